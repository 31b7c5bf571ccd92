//! By HTTP: the query of an announce or a scrape, and the bencoded answer.

use std::net::{IpAddr, SocketAddr};

use super::super::compact::write_peer;
use super::{Answer, Asked, Refusal, Scraped};
use crate::base::ids::InfoHash;
use crate::base::limits::SERVED_SCRAPES_MAX;
use crate::proto::bencode::Item;
use crate::proto::tracker::AnnounceEvent;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpQuestion {
    /// `/announce`, and the address that the client gives for itself.
    Announce(Asked, Option<IpAddr>),
    /// `/scrape`.
    Scrape(Vec<InfoHash>),
}

/// Reads path and query of a request that came from `from`. What BEP 3 does not name is ignored.
pub fn parse_query(path: &str, query: &str, from: IpAddr) -> Result<HttpQuestion, Refusal> {
    match path {
        "/announce" => announce(query, from),
        "/scrape" => scrape(query),
        _ => Err(Refusal::Malformed("only /announce and /scrape are here")),
    }
}

fn announce(query: &str, from: IpAddr) -> Result<HttpQuestion, Refusal> {
    let text = |key: &str| arguments(query).find(|(name, _)| *name == key).map(|(_, value)| value);
    let hash = text("info_hash").and_then(info_hash).ok_or(Refusal::Malformed("bad info_hash"))?;
    let port = number(text("port")).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(Refusal::Malformed("bad port"))?;
    // Who does not know what it lacks lacks something.
    let left_bytes = number(text("left")).unwrap_or(u64::MAX);
    let event = match text("event") {
        Some("started") => AnnounceEvent::Started,
        Some("completed") => AnnounceEvent::Completed,
        Some("stopped") => AnnounceEvent::Stopped,
        _ => AnnounceEvent::None,
    };
    // Some clients write -1 for "as you like".
    let wanted = number(text("numwant")).map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX));
    let claimed = text("ip").and_then(|ip| String::from_utf8(unescape(ip)).ok()?.parse().ok());
    let peer = SocketAddr::new(from, port);
    Ok(HttpQuestion::Announce(Asked { info_hash: hash, peer, left_bytes, event, wanted }, claimed))
}

fn scrape(query: &str) -> Result<HttpQuestion, Refusal> {
    let hashes = arguments(query).filter(|(name, _)| *name == "info_hash");
    let hashes: Option<Vec<InfoHash>> =
        hashes.take(SERVED_SCRAPES_MAX).map(|(_, value)| info_hash(value)).collect();
    let hashes = hashes.ok_or(Refusal::Malformed("bad info_hash"))?;
    if hashes.is_empty() {
        return Err(Refusal::Malformed("a scrape names its torrents by info_hash"));
    }
    Ok(HttpQuestion::Scrape(hashes))
}

/// The answer to an announce, compact whatever was asked for: no client in use lacks BEP 23.
pub fn announce_reply(answer: &Answer) -> Vec<u8> {
    let mut lists = [const { Vec::new() }; 2];
    for &peer in &answer.peers {
        write_peer(&mut lists[usize::from(peer.is_ipv6())], peer);
    }
    let interval = i64::try_from(answer.interval.as_ms() / 1_000).unwrap_or(i64::MAX);
    let mut entries = vec![
        ("complete", Item::Int(answer.seeders.into())),
        ("incomplete", Item::Int(answer.leechers.into())),
        ("interval", Item::Int(interval)),
        // Who has nobody yet may ask sooner.
        ("min interval", Item::Int((interval / 2).max(1))),
        ("peers", Item::Bytes(&lists[0])),
    ];
    if !lists[1].is_empty() {
        entries.push(("peers6", Item::Bytes(&lists[1])));
    }
    Item::dict(entries).to_bytes()
}

/// The answer to a scrape (BEP 48).
pub fn scrape_reply(hashes: &[InfoHash], scraped: &[Scraped]) -> Vec<u8> {
    let files = hashes.iter().zip(scraped).map(|(hash, found)| {
        let counts = [
            ("complete", Item::Int(found.seeders.into())),
            ("downloaded", Item::Int(found.completed.into())),
            ("incomplete", Item::Int(found.leechers.into())),
        ];
        (&hash.0[..], Item::dict(counts))
    });
    Item::dict([("files", Item::Dict(files.collect()))]).to_bytes()
}

/// Says why not.
pub fn failure_reply(refusal: Refusal) -> Vec<u8> {
    let why = refusal.to_string();
    Item::dict([("failure reason", Item::Bytes(why.as_bytes()))]).to_bytes()
}

fn arguments(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter_map(|pair| pair.split_once('='))
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

fn info_hash(text: &str) -> Option<InfoHash> {
    // Three characters for a byte at most.
    if text.len() > 60 {
        return None;
    }
    unescape(text).try_into().ok().map(InfoHash)
}

/// Percent-decodes; what is no escape stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind.first_chunk::<2>().filter(|_| byte == b'%').and_then(hex_byte);
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    plain
}

fn hex_byte(&[high, low]: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PeerId;
    use crate::base::time::Span;
    use crate::proto::tracker::AnnounceRequest;
    use crate::proto::tracker::http::{announce_url, parse_reply};
    use crate::proto::tracker::url::TrackerUrl;
    use proptest::prelude::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8));
    const HASH: &str = "%00%01%02%03%04%05%06%07%08%09%0A%0b%0C~-._AZz";

    fn hash() -> InfoHash {
        let mut hash = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0, 0, 0, 0];
        hash[13..].copy_from_slice(b"~-._AZz");
        InfoHash(hash)
    }

    #[test]
    fn what_our_client_asks_is_understood() {
        let request = AnnounceRequest {
            info_hash: hash(),
            peer_id: PeerId([0xff; 20]),
            port: 6881,
            uploaded_bytes: 1,
            downloaded_bytes: 2,
            left_bytes: 3,
            event: AnnounceEvent::Completed,
            peers_wanted: Some(4),
            key: 5,
            ipv6: None,
        };
        let url = announce_url(&TrackerUrl::parse("http://127.0.0.1:1/announce").unwrap(), &request);
        let (path, query) = url.strip_prefix("http://127.0.0.1:1").unwrap().split_once('?').unwrap();
        let asked = Asked {
            info_hash: hash(),
            peer: SocketAddr::new(FROM, 6881),
            left_bytes: 3,
            event: AnnounceEvent::Completed,
            wanted: Some(4),
        };
        assert_eq!(parse_query(path, query, FROM), Ok(HttpQuestion::Announce(asked, None)));
    }

    #[test]
    fn what_is_missing_or_odd_is_refused_or_left_to_us() {
        let parse = |query: &str| parse_query("/announce", query, FROM);
        let asked = |query: &str| match parse(query) {
            Ok(HttpQuestion::Announce(asked, claimed)) => (asked, claimed),
            other => panic!("{other:?}"),
        };
        for bad in [
            "",
            "port=1",
            &format!("info_hash={HASH}"),
            &format!("info_hash={HASH}&port=65536"),
            "info_hash=abc&port=1",
            &format!("info_hash={HASH}x&port=1"),
            &format!("info_hash={}&port=1", "%00".repeat(21)),
        ] {
            assert!(matches!(parse(bad), Err(Refusal::Malformed(_))), "{bad}");
        }
        let (bare, claimed) = asked(&format!("info_hash={HASH}&port=1&numwant=-1&left=x&event=%00"));
        assert_eq!(
            (bare.left_bytes, bare.wanted, bare.event, claimed),
            (u64::MAX, None, AnnounceEvent::None, None)
        );
        let (_, claimed) = asked(&format!("info_hash={HASH}&port=1&ip=2001%3Adb8%3a%3a1"));
        assert_eq!(claimed, Some("2001:db8::1".parse().unwrap()));
        assert!(parse_query("/", "", FROM).is_err());
    }

    #[test]
    fn answers_are_what_clients_read() {
        let answer = Answer {
            interval: Span::from_secs(300),
            seeders: 1,
            leechers: 2,
            peers: vec!["1.2.3.4:5".parse().unwrap(), "[2a00::1]:6".parse().unwrap()],
        };
        let read = parse_reply(&announce_reply(&answer)).unwrap();
        assert_eq!((read.interval, read.peers, read.seeders), (answer.interval, answer.peers, Some(1)));
        let refused = parse_reply(&failure_reply(Refusal::NotAllowed)).unwrap_err().to_string();
        assert!(refused.contains("ask its operator"), "{refused}");
    }

    #[test]
    fn n15_a_scrape_names_its_torrents_and_so_many_of_them() {
        assert!(parse_query("/scrape", "", FROM).is_err(), "not all at once");
        for count in [SERVED_SCRAPES_MAX - 1, SERVED_SCRAPES_MAX, SERVED_SCRAPES_MAX + 1] {
            let query = vec![format!("info_hash={HASH}"); count].join("&");
            let Ok(HttpQuestion::Scrape(hashes)) = parse_query("/scrape", &query, FROM) else { panic!() };
            assert_eq!(hashes, vec![hash(); count.min(SERVED_SCRAPES_MAX)]);
        }
        let found = [Scraped { seeders: 1, leechers: 2, completed: 3 }];
        let reply = scrape_reply(&[hash()], &found);
        let want =
            [&b"d5:filesd20:"[..], &hash().0, b"d8:completei1e10:downloadedi3e10:incompletei2eeee"].concat();
        assert_eq!(reply, want);
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(path in "/(announce|scrape)", query in "\\PC{0,200}") {
            let _ = parse_query(&path, &query, FROM);
        }
    }
}
