//! Which URLs of a torrent or magnet link are worth a try (threat T26).

use url::Url;

use super::text;
use crate::base::limits::URL_BYTES_MAX;

/// The URL of a tracker, trimmed, if we can announce to it: HTTP, HTTPS or UDP.
pub fn tracker(bytes: &[u8]) -> Option<String> {
    usable(bytes, &["http", "https", "udp"])
}

/// The URL of a web seed (BEP 19), trimmed, if we can fetch from it: HTTP or HTTPS.
pub fn web_seed(bytes: &[u8]) -> Option<String> {
    usable(bytes, &["http", "https"])
}

fn usable(bytes: &[u8], schemes: &[&str]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?.trim();
    if text.len() > URL_BYTES_MAX || text.chars().any(text::is_hidden) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let good = schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t26_unsupported_empty_and_malformed_urls_are_dropped() {
        for (url, is_tracker, is_seed) in [
            ("http://tracker.example/announce", true, true),
            ("https://[2001:db8::1]:443/announce?key=1", true, true),
            (" udp://tracker.example:6969/announce\r\n", true, false),
            ("udp://tracker.example:6969", true, false),
            ("wss://tracker.example", false, false),
            ("file:///etc/passwd", false, false),
            ("gopher://example/1", false, false),
            ("http://", false, false),
            ("udp:///announce", false, false),
            ("http://example:99999/", false, false),
            ("http://exa\u{202e}mple/", false, false),
            ("http://example/\n\nGET /", false, false),
            ("tracker.example/announce", false, false),
            ("", false, false),
            ("   ", false, false),
        ] {
            assert_eq!(tracker(url.as_bytes()).is_some(), is_tracker, "{url:?}");
            assert_eq!(web_seed(url.as_bytes()).is_some(), is_seed, "{url:?}");
        }
        assert_eq!(tracker(b"http://\xff/"), None);
    }

    #[test]
    fn t26_the_length_limit_is_exact() {
        let head = "http://example/";
        for (len, good) in [(URL_BYTES_MAX - 1, true), (URL_BYTES_MAX, true), (URL_BYTES_MAX + 1, false)] {
            let url = head.to_owned() + &"a".repeat(len - head.len());
            assert_eq!(tracker(url.as_bytes()).is_some(), good, "{len}");
        }
    }
}
