//! A tracker's URL: parsed strictly, and shown without what may be secret in it (threats N4, A12).

use std::fmt;

use url::{Host, Url};

use crate::base::limits::URL_BYTES_MAX;

/// The protocols that trackers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// BEP 3.
    Http,
    /// BEP 3 over TLS.
    Https,
    /// BEP 15.
    Udp,
}

/// Why a URL is no tracker's. Whoever gave the URL must mend it; the message does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("tracker URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// White space, control characters, or anything beyond ASCII. International host names are
    /// written as `xn--`, so that no look-alike letter hides in one.
    #[error("tracker URL has white space, control or non-ASCII characters; write them percent-encoded")]
    Characters,
    /// Not a URL.
    #[error("tracker URL cannot be read; write http://host:port/announce or udp://host:port")]
    Syntax,
    /// Neither of the three schemes.
    #[error("tracker URL must start with http://, https:// or udp://")]
    Scheme,
    /// A UDP tracker has no usual port; port 0 is none.
    #[error("tracker URL names no port; write udp://host:port")]
    Port,
    /// The query already has an argument that only the client may set.
    #[error("tracker URL already has announce arguments; leave out info_hash, peer_id, port and the like")]
    Arguments,
}

/// Arguments of an announce that a URL may not bring along.
const OWN_ARGUMENTS: [&str; 11] = [
    "info_hash",
    "peer_id",
    "port",
    "uploaded",
    "downloaded",
    "left",
    "event",
    "numwant",
    "compact",
    "no_peer_id",
    "ipv6",
];

/// A checked URL of a tracker. `Debug` and `Display` show scheme, host and port only: path and
/// query often hold a passkey, and the user part a password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrackerUrl {
    scheme: Scheme,
    port: u16,
    url: Url,
}

impl TrackerUrl {
    /// Reads and checks `text`. Numbers as hosts (decimal, octal, hexadecimal) become IPv4
    /// addresses here, as every resolver would read them.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Self::read(text, URL_BYTES_MAX)?;
        if url.url.query_pairs().any(|(name, _)| OWN_ARGUMENTS.contains(&name.as_ref())) {
            return Err(UrlError::Arguments);
        }
        Ok(url)
    }

    /// Where a redirect from `self` leads. It may carry the announce's arguments along, as most
    /// servers do; user and password are dropped.
    pub fn redirect(&self, location: &str) -> Result<Self, UrlError> {
        if location.len() > URL_BYTES_MAX + ARGUMENTS_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        check_characters(location)?;
        let mut joined = self.url.join(location).map_err(|_| UrlError::Syntax)?;
        if joined.cannot_be_a_base() || !matches!(joined.scheme(), "http" | "https") {
            return Err(UrlError::Scheme);
        }
        // These fail only for URLs without a host, which http and https always have.
        let _ = joined.set_username("");
        let _ = joined.set_password(None);
        Self::read(joined.as_str(), URL_BYTES_MAX + ARGUMENTS_BYTES_MAX)
    }

    fn read(text: &str, bytes_max: usize) -> Result<Self, UrlError> {
        if text.len() > bytes_max {
            return Err(UrlError::TooLong);
        }
        check_characters(text)?;
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "udp" => Scheme::Udp,
            _ => return Err(UrlError::Scheme),
        };
        if rest.starts_with(['/', '\\', '?', '#']) {
            return Err(UrlError::Syntax);
        }
        // `url` knows hosts and ports of web schemes only, and hides a port that is the usual one.
        let as_http = Url::parse(&format!("http://{rest}")).map_err(|_| UrlError::Syntax)?;
        let as_https = Url::parse(&format!("https://{rest}")).map_err(|_| UrlError::Syntax)?;
        let given = as_http.port().or_else(|| as_https.port());
        let port = match scheme {
            Scheme::Http => given.unwrap_or(80),
            Scheme::Https => given.unwrap_or(443),
            Scheme::Udp => given.ok_or(UrlError::Port)?,
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        let mut url = if scheme == Scheme::Https { as_https } else { as_http };
        url.set_fragment(None);
        Ok(Self { scheme, port, url })
    }

    /// Which protocol.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The port to connect to, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Name or address of the host, without brackets.
    pub fn host(&self) -> String {
        match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    /// The whole URL to connect to, secrets included; for the wire only. Of no use for UDP.
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }

    /// Whether the last part of its path begins with `announce`, as a tracker's does (BEP 48).
    pub fn is_announce(&self) -> bool {
        let path = self.expose().split('?').next().unwrap_or_default();
        path.rsplit('/').next().is_some_and(|last| last.starts_with("announce"))
    }

    /// Whether the query brings an argument of this name along.
    pub fn has_argument(&self, name: &str) -> bool {
        self.url.query_pairs().any(|(key, _)| key == name)
    }
}

/// Room for the arguments of one announce: twice 20 bytes percent-encoded, numbers, an address.
pub(super) const ARGUMENTS_BYTES_MAX: usize = 512;

fn check_characters(text: &str) -> Result<(), UrlError> {
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(UrlError::Characters),
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Udp => "udp",
        };
        write!(f, "{scheme}://{}:{}", self.url.host_str().unwrap_or(""), self.port)
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::AddressClass;
    use proptest::prelude::*;

    fn shown(text: &str) -> Result<String, UrlError> {
        TrackerUrl::parse(text).map(|url| url.to_string())
    }

    #[test]
    fn ports_and_schemes() {
        for (text, expected) in [
            ("http://t.example/announce", "http://t.example:80"),
            ("HTTP://T.Example:80/announce", "http://t.example:80"),
            ("https://t.example/a", "https://t.example:443"),
            ("https://t.example:80/a", "https://t.example:80"),
            ("udp://t.example:80", "udp://t.example:80"),
            ("udp://t.example:443/announce", "udp://t.example:443"),
            ("udp://t.example:6969/announce", "udp://t.example:6969"),
            ("udp://[::1]:6969", "udp://[::1]:6969"),
            ("http://user:secret@t.example:1/passkey?k=v#frag", "http://t.example:1"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        assert_eq!(shown("udp://t.example/announce"), Err(UrlError::Port));
        assert_eq!(shown("http://t.example:0/"), Err(UrlError::Port));
        assert_eq!(TrackerUrl::parse("udp://[2a00::1]:5").unwrap().host(), "2a00::1");
    }

    #[test]
    fn n4_bad_urls_are_refused() {
        use UrlError::*;
        for (text, error) in [
            ("", Scheme),
            ("t.example/announce", Scheme),
            ("file:///etc/passwd", Scheme),
            ("ftp://t.example/", Scheme),
            ("wss://t.example/", Scheme),
            ("http:t.example", Scheme),
            ("http:///etc/passwd", Syntax),
            ("http://\\etc", Syntax),
            ("http://?x", Syntax),
            ("http://a:99999/", Syntax),
            ("http://a:-1/", Syntax),
            ("http://[::1/", Syntax),
            ("http://a%00b/", Syntax),
            ("http://t.example/a\r\nHost: b", Characters),
            ("http://t.example/a\tb", Characters),
            ("http://t.example/a b", Characters),
            (" http://t.example/", Characters),
            ("http://t\u{0435}st.example/", Characters),
            ("http://t.example/\0", Characters),
            ("http://t.example/?info_hash=abc", Arguments),
            ("http://t.example/?a=b&%69nfo_hash=abc", Arguments),
            ("http://t.example/?port=1", Arguments),
            ("udp://t.example:1/?left=0", Arguments),
        ] {
            assert_eq!(shown(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn n4_length_is_capped() {
        for len in [URL_BYTES_MAX - 1, URL_BYTES_MAX, URL_BYTES_MAX + 1, 8 << 10] {
            let stem = "http://t.example/";
            let text = format!("{stem}{}", "a".repeat(len - stem.len()));
            assert_eq!(shown(&text).is_ok(), len <= URL_BYTES_MAX, "{len}");
        }
        assert!(shown(&format!("http://{}/", "a".repeat(8 << 10))).is_err());
    }

    #[test]
    fn n1_numbers_as_hosts_are_addresses() {
        for host in ["2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "127.0.1", "0177.0.0.1"] {
            for scheme in ["http", "udp"] {
                let url = TrackerUrl::parse(&format!("{scheme}://{host}:6969/announce")).unwrap();
                let address = url.host().parse().unwrap_or_else(|_| panic!("{host} is a name"));
                assert_eq!(AddressClass::of(address), AddressClass::Loopback, "{host}");
            }
        }
        let metadata = TrackerUrl::parse("http://0xa9fea9fe/latest/").unwrap().host().parse().unwrap();
        assert_eq!(AddressClass::of(metadata), AddressClass::LinkLocal);
    }

    #[test]
    fn n3_redirects_keep_to_the_web() {
        let from = TrackerUrl::parse("https://t.example:1/a/announce").unwrap();
        for (location, expected) in [
            ("/b?x=1", Ok("https://t.example:1/b?x=1")),
            ("b", Ok("https://t.example:1/a/b")),
            ("//other.example/c", Ok("https://other.example/c")),
            ("http://u:p@other.example/c?info_hash=1", Ok("http://other.example/c?info_hash=1")),
            ("file:///etc/passwd", Err(UrlError::Scheme)),
            ("udp://other.example:1", Err(UrlError::Scheme)),
            ("gopher://other.example/", Err(UrlError::Scheme)),
            ("javascript:alert(1)", Err(UrlError::Scheme)),
            ("http://a\r\nb/", Err(UrlError::Characters)),
            ("http://[", Err(UrlError::Syntax)),
        ] {
            let got = from.redirect(location);
            assert_eq!(got.as_ref().map(TrackerUrl::expose).map_err(|e| *e), expected, "{location}");
        }
    }

    #[test]
    fn a12_nothing_secret_is_shown() {
        let url = TrackerUrl::parse("http://user:hunter2@t.example/PASSKEY/announce?pk=SECRET").unwrap();
        for text in [url.to_string(), format!("{url:?}")] {
            for secret in ["user", "hunter2", "PASSKEY", "SECRET"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert!(url.expose().contains("PASSKEY"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,60}", rest in "[ -~]{0,60}") {
            let _ = TrackerUrl::parse(&text);
            let parsed = TrackerUrl::parse(&format!("http://{rest}"));
            if let Ok(url) = parsed {
                prop_assert_ne!(url.port(), 0);
                let _ = url.redirect(&text);
                let _ = url.redirect(&rest);
            }
        }
    }
}
