//! The URL of a web seed (BEP 19), and of the files below it: shown without what may be secret in it.

use std::fmt;

use url::{Host, Url};

use crate::base::limits::WEB_URL_BYTES_MAX;

/// A URL that can be fetched: HTTP or HTTPS, with a host, at most `WEB_URL_BYTES_MAX` long. `Debug` and
/// `Display` show scheme, host and port only: path and query may be tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(Url);

/// Why a text is no [`WebUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable URL: write http://host/path or https://host/path")]
pub struct BadUrl;

impl WebUrl {
    /// Reads `text`. User and password are dropped: they are sent to nobody.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        Self::checked(Url::parse(text).map_err(|_| BadUrl)?)
    }

    fn checked(mut url: Url) -> Result<Self, BadUrl> {
        let port = url.port_or_known_default();
        let good = matches!(url.scheme(), "http" | "https") && port.is_some_and(|port| port != 0);
        if !good || url.host_str().is_none_or(str::is_empty) {
            return Err(BadUrl);
        }
        url.set_fragment(None);
        // These fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        if url.as_str().len() > WEB_URL_BYTES_MAX { Err(BadUrl) } else { Ok(Self(url)) }
    }

    /// Where the file at `path` lies, whose first element is the torrent's name. BEP 19: the URL of a
    /// single file is taken as it stands unless it ends with a slash; in any other case the elements are
    /// added, each percent-encoded.
    pub fn of_file(&self, path: &[String]) -> Result<Self, BadUrl> {
        if path.len() == 1 && !self.0.path().ends_with('/') {
            return Ok(self.clone());
        }
        let mut url = self.0.clone();
        url.path_segments_mut().map_err(|()| BadUrl)?.pop_if_empty().extend(path);
        Self::checked(url)
    }

    /// Where a redirect leads; to HTTP and HTTPS only.
    pub fn redirect(&self, location: &str) -> Result<Self, BadUrl> {
        Self::checked(self.0.join(location).map_err(|_| BadUrl)?)
    }

    /// Whether it is HTTPS.
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Name or address of the host, without brackets. Numbers as hosts are addresses by now.
    pub fn host(&self) -> String {
        match self.0.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }

    /// Whether it has a query.
    pub fn has_query(&self) -> bool {
        self.0.query().is_some()
    }

    /// Path and query, as in the first line of a request.
    pub fn target(&self) -> String {
        self.0[url::Position::BeforePath..].to_owned()
    }

    /// As in the `Host` header: with brackets, and with the port unless it is the usual one.
    pub fn authority(&self) -> String {
        self.0[url::Position::BeforeHost..url::Position::BeforePath].to_owned()
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.authority())
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(base: &str, path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
        WebUrl::parse(base).unwrap().of_file(&path).unwrap().target()
    }

    #[test]
    fn files_lie_where_bep_19_says() {
        assert_eq!(target("http://h/a.iso", &["b.iso"]), "/a.iso", "a single file, as it stands");
        assert_eq!(target("http://h/dir/", &["b.iso"]), "/dir/b.iso", "a slash asks for the name");
        assert_eq!(target("http://h", &["b.iso"]), "/b.iso");
        for base in ["http://h/dir", "http://h/dir/"] {
            assert_eq!(target(base, &["top", "sub", "f"]), "/dir/top/sub/f");
        }
        assert_eq!(target("http://h/dir/?key=1", &["a b"]), "/dir/a%20b?key=1", "a query stays behind");
    }

    #[test]
    fn elements_of_a_path_are_percent_encoded_once() {
        let odd = ["top", "a b#c?d%e", "é", "50%25"];
        assert_eq!(target("http://h/x%20y/", &odd), "/x%20y/top/a%20b%23c%3Fd%25e/%C3%A9/50%2525");
    }

    #[test]
    fn n3_redirects_of_web_seeds_keep_to_the_web_and_drop_passwords() {
        let from = WebUrl::parse("https://u:p@h:1/a/b").unwrap();
        assert_eq!(from.redirect("c?d=1").unwrap().target(), "/a/c?d=1");
        assert_eq!(from.redirect("//o/x").unwrap().to_string(), "https://o");
        for bad in ["file:///etc/passwd", "gopher://h/", "javascript:1", "http://h:0/", "http://["] {
            assert_eq!(from.redirect(bad), Err(BadUrl), "{bad}");
        }
        assert_eq!(WebUrl::parse("http://2130706433/").unwrap().host(), "127.0.0.1");
    }

    #[test]
    fn a12_nothing_secret_of_a_web_seed_is_shown() {
        let url = WebUrl::parse("http://user:hunter2@h/TOKEN/?k=SECRET").unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://h http://h");
    }

    #[test]
    fn the_length_limit_is_exact() {
        let head = "http://example/";
        for (len, good) in
            [(WEB_URL_BYTES_MAX - 1, true), (WEB_URL_BYTES_MAX, true), (WEB_URL_BYTES_MAX + 1, false)]
        {
            assert_eq!(WebUrl::parse(&(head.to_owned() + &"a".repeat(len - head.len()))).is_ok(), good);
        }
    }
}
