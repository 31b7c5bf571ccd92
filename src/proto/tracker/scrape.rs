//! Scrapes (BEP 48, and BEP 15 by UDP): how many peers a tracker counts of one torrent.

use crate::base::ids::InfoHash;
use crate::base::limits::{MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX, TRACKER_REPLY_BYTES_MAX};
use crate::proto::bencode::{self, Value};

use super::http::percent_encode;
use super::url::TrackerUrl;
use super::{ReplyError, safe_text};

/// What a tracker counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrape {
    /// Peers that have everything.
    pub seeds: u32,
    /// Peers that do not.
    pub peers: u32,
    /// Peers that have completed it, since the tracker counts.
    pub completed: u32,
}

/// The URL to GET for the counts of a torrent; `None` if the tracker has none: by BEP 48 its last part must
/// begin with `announce`. It may hold a passkey: for the wire only.
pub fn scrape_url(tracker: &TrackerUrl, info_hash: InfoHash) -> Option<String> {
    let (path, query) = match tracker.expose().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tracker.expose(), None),
    };
    let (front, last) = path.rsplit_once('/')?;
    let rest = last.strip_prefix("announce")?;
    let mut url = format!("{front}/scrape{rest}?");
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        url.push_str(query);
        url.push('&');
    }
    url.push_str("info_hash=");
    percent_encode(&info_hash.0, &mut url);
    Some(url)
}

/// Reads the body of a reply, already inflated, that is about one torrent.
pub fn parse_scrape(body: &[u8], info_hash: InfoHash) -> Result<Scrape, ReplyError> {
    if body.len() > TRACKER_REPLY_BYTES_MAX {
        return Err(ReplyError::Malformed("it is too long"));
    }
    let not_bencode = |_| ReplyError::Malformed("it is not bencode; does this tracker know scrapes?");
    let (reply, _rest) =
        bencode::parse_prefix(body, MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX).map_err(not_bencode)?;
    if let Some(reason) = reply.get(b"failure reason") {
        let reason = reason.as_bytes().unwrap_or(b"(no reason given)");
        return Err(ReplyError::Refused(safe_text(reason)));
    }
    let files = reply.get(b"files").filter(|files| files.as_dict().is_some());
    let files = files.ok_or(ReplyError::Malformed("it counts no torrents"))?;
    // A torrent that it does not know has no peers there.
    let Some(file) = files.get(&info_hash.0) else { return Ok(Scrape::default()) };
    let count = |key: &[u8]| {
        let count = file.get(key).and_then(Value::as_int).unwrap_or(0);
        u32::try_from(count.max(0)).unwrap_or(u32::MAX)
    };
    Ok(Scrape { seeds: count(b"complete"), peers: count(b"incomplete"), completed: count(b"downloaded") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash([0x20; 20]);

    #[test]
    fn only_announce_urls_have_a_scrape_url() {
        let hash = "%20".repeat(20);
        for (announce, scrape) in [
            ("http://t.example/announce", Some("http://t.example/scrape?info_hash=")),
            ("http://t.example/x/announce", Some("http://t.example/x/scrape?info_hash=")),
            ("http://t.example/announce.php", Some("http://t.example/scrape.php?info_hash=")),
            ("http://t.example/announce?key=1", Some("http://t.example/scrape?key=1&info_hash=")),
            ("http://t.example/a", None),
            ("http://t.example/announce/x", None),
            ("http://t.example/x?announce=/announce", None),
            ("http://t.example", None),
        ] {
            let url = scrape_url(&TrackerUrl::parse(announce).unwrap(), HASH);
            assert_eq!(url, scrape.map(|front| format!("{front}{hash}")), "{announce}");
        }
    }

    #[test]
    fn n6_counts_are_read_and_nonsense_is_not() {
        let reply = |inner: &str| format!("d5:filesd20:{}{inner}ee", " ".repeat(20));
        let counts = "d8:completei5e10:downloadedi50e10:incompletei10ee";
        let want = Scrape { seeds: 5, peers: 10, completed: 50 };
        assert_eq!(parse_scrape(reply(counts).as_bytes(), HASH), Ok(want));
        assert_eq!(parse_scrape(reply(counts).as_bytes(), InfoHash([1; 20])), Ok(Scrape::default()));
        let odd = "d8:completei-5e10:downloadedi99999999999e10:incomplete1:xe";
        let want = Scrape { seeds: 0, peers: 0, completed: u32::MAX };
        assert_eq!(parse_scrape(reply(odd).as_bytes(), HASH), Ok(want));
        for bad in ["", "de", "d5:filesi1ee", "<html>", "d5:filesd20:"] {
            assert!(parse_scrape(bad.as_bytes(), HASH).is_err(), "{bad}");
        }
        let refused = parse_scrape(b"d14:failure reason5:no\x1b[2e", HASH);
        assert_eq!(refused, Err(ReplyError::Refused("no\\u{1b}[2".to_owned())));
        let long = vec![b'd'; TRACKER_REPLY_BYTES_MAX + 1];
        assert_eq!(parse_scrape(&long, HASH), Err(ReplyError::Malformed("it is too long")));
    }
}
