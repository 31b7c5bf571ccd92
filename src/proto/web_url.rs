//! The URL of a web seed (BEP 19), and of the files below it: shown without what may be secret in it.

use std::fmt;

use url::{Host, Url};

use crate::base::limits::WEB_URL_BYTES_MAX;

/// A URL that can be fetched: HTTP or HTTPS, with a host, at most `WEB_URL_BYTES_MAX` long. `Debug` and
/// `Display` show scheme, host and port only: user, password, path and query may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl {
    /// Without user and password.
    url: Url,
    /// What is sent of these (RFC 7617), to this scheme, host and port alone.
    basic: Option<String>,
}

/// Why a text is no [`WebUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable URL: write http://host/path or https://host/path")]
pub struct BadUrl;

impl WebUrl {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let url = Url::parse(text).map_err(|_| BadUrl)?;
        let basic = basic(&url);
        Self::checked(url, basic)
    }

    fn checked(mut url: Url, basic: Option<String>) -> Result<Self, BadUrl> {
        let port = url.port_or_known_default();
        let good = matches!(url.scheme(), "http" | "https") && port.is_some_and(|port| port != 0);
        if !good || url.host_str().is_none_or(str::is_empty) {
            return Err(BadUrl);
        }
        url.set_fragment(None);
        // These fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        if url.as_str().len() > WEB_URL_BYTES_MAX { Err(BadUrl) } else { Ok(Self { url, basic }) }
    }

    /// Where the file at `path` lies, whose first element is the torrent's name. BEP 19: the URL of a
    /// single file is taken as it stands unless it ends with a slash; in any other case the elements are
    /// added, each percent-encoded.
    pub fn of_file(&self, path: &[String]) -> Result<Self, BadUrl> {
        if path.len() == 1 && !self.url.path().ends_with('/') {
            return Ok(self.clone());
        }
        let mut url = self.url.clone();
        url.path_segments_mut().map_err(|()| BadUrl)?.pop_if_empty().extend(path);
        Self::checked(url, self.basic.clone())
    }

    /// Where a redirect leads; to HTTP and HTTPS only. Nobody else is told user and password, and those that
    /// the redirect itself names are dropped: whoever sends us there could have us log in where it cannot.
    pub fn redirect(&self, location: &str) -> Result<Self, BadUrl> {
        let to = self.url.join(location).map_err(|_| BadUrl)?;
        let basic = self.basic.clone().filter(|_| to.origin() == self.url.origin());
        Self::checked(to, basic)
    }

    /// The value of the `Authorization` header: for the wire only.
    pub fn authorization(&self) -> Option<String> {
        self.basic.as_ref().map(|basic| format!("Basic {basic}"))
    }

    /// Whether it is HTTPS.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Name or address of the host, without brackets. Numbers as hosts are addresses by now.
    pub fn host(&self) -> String {
        match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }

    /// Whether it has a query.
    pub fn has_query(&self) -> bool {
        self.url.query().is_some()
    }

    /// Path and query, as in the first line of a request.
    pub fn target(&self) -> String {
        self.url[url::Position::BeforePath..].to_owned()
    }

    /// As in the `Host` header: with brackets, and with the port unless it is the usual one.
    pub fn authority(&self) -> String {
        self.url[url::Position::BeforeHost..url::Position::BeforePath].to_owned()
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.authority())
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// User and password as they are sent: in base64, with a colon between.
fn basic(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair = unescaped(url.username());
    pair.push(b':');
    pair.extend(unescaped(url.password().unwrap_or_default()));
    Some(base64(&pair))
}

/// The bytes that a part of a URL stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let Some((&first, rest)) = bytes.split_first() {
        let code = rest.get(..2).filter(|_| first == b'%').and_then(|two| str::from_utf8(two).ok());
        let code = code.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = code.and_then(|two| u8::from_str_radix(two, 16).ok());
        out.push(byte.unwrap_or(first));
        bytes = if byte.is_some() { &rest[2..] } else { rest };
    }
    out
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4_usize {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
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
    fn user_and_password_are_sent_as_rfc_7617_has_it() {
        for (url, basic) in [
            ("http://Aladdin:open%20sesame@h/", Some("QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            ("http://a@h/", Some("YTo=")),
            ("http://ab:c@h/", Some("YWI6Yw==")),
            ("http://a%3Ab%zz:@h/", Some("YTpiJXp6Og==")),
            ("http://h/", None),
        ] {
            let sent = WebUrl::parse(url).unwrap().authorization();
            assert_eq!(sent, basic.map(|basic| format!("Basic {basic}")), "{url}");
        }
        let below = WebUrl::parse("http://a:b@h/d/").unwrap().of_file(&["f".to_owned()]).unwrap();
        assert_eq!((below.authorization().is_some(), below.authority()), (true, "h".to_owned()));
    }

    #[test]
    fn n3_user_and_password_are_told_to_no_other_host() {
        let from = WebUrl::parse("https://u:p@h/a").unwrap();
        for (to, told) in [
            ("/b", true),
            ("https://h:443/b", true),
            ("https://o/b", false),
            ("http://h/b", false),
            ("https://h:444/b", false),
            ("https://x:y@o/b", false),
        ] {
            assert_eq!(from.redirect(to).unwrap().authorization().is_some(), told, "{to}");
        }
        let back = from.redirect("https://o/b").unwrap().redirect("https://h/a").unwrap();
        assert_eq!(back.authorization(), None, "nor to the same one by way of another");
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
