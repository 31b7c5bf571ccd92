use super::*;
use crate::base::damage::damaged;
use crate::base::ids::{InfoHash, PeerId};
use crate::base::limits::{TRACKER_PEERS_MAX, TRACKER_TEXT_BYTES_MAX};
use crate::base::time::Span;
use crate::proto::bencode::Item;
use proptest::prelude::*;

fn request() -> AnnounceRequest {
    let mut info_hash = [b'a'; 20];
    info_hash[..6].copy_from_slice(b"\x00\xff &~%");
    AnnounceRequest {
        info_hash: InfoHash(info_hash),
        peer_id: PeerId(*b"-TR0001-abcdefghijkl"),
        port: 6881,
        uploaded_bytes: 1,
        downloaded_bytes: 2,
        left_bytes: 3,
        event: AnnounceEvent::Started,
        peers_wanted: Some(80),
        key: 0xbeef,
        ipv6: None,
    }
}

const ARGUMENTS: &str = "info_hash=%00%FF%20%26~%25aaaaaaaaaaaaaa&peer_id=-TR0001-abcdefghijkl&port=6881\
                         &uploaded=1&downloaded=2&left=3&compact=1&key=0000beef&numwant=80&event=started";

#[test]
fn n4_arguments_follow_the_urls_own() {
    for (text, start) in [
        ("http://t.example/announce", "http://t.example/announce?"),
        ("http://t.example/announce#frag", "http://t.example/announce?"),
        ("http://t.example", "http://t.example/?"),
        ("http://t.example/a?", "http://t.example/a?"),
        ("http://t.example/a?pk=1", "http://t.example/a?pk=1&"),
        ("http://t.example/a?pk=1&", "http://t.example/a?pk=1&"),
        ("https://t.example:1/a%20b?x=%0d%0a", "https://t.example:1/a%20b?x=%0d%0a&"),
    ] {
        let url = announce_url(&TrackerUrl::parse(text).unwrap(), &request());
        assert_eq!(url, format!("{start}{ARGUMENTS}"));
    }
    let own_key = announce_url(&TrackerUrl::parse("http://t.example/a?key=mine").unwrap(), &request());
    assert!(own_key.contains("?key=mine&") && !own_key.contains("beef"));
}

#[test]
fn optional_arguments_and_events() {
    let tracker = TrackerUrl::parse("http://t.example/a").unwrap();
    for (event, word) in [
        (AnnounceEvent::None, None),
        (AnnounceEvent::Completed, Some("&event=completed")),
        (AnnounceEvent::Stopped, Some("&event=stopped")),
    ] {
        let request = AnnounceRequest {
            event,
            peers_wanted: None,
            ipv6: Some("2a00::1".parse().unwrap()),
            ..request()
        };
        let url = announce_url(&tracker, &request);
        assert!(url.contains("&ipv6=2a00%3A%3A1") && !url.contains("numwant"));
        assert_eq!(url.contains("event"), word.is_some());
        assert!(word.is_none_or(|word| url.ends_with(word)));
    }
}

#[test]
fn the_longest_arguments_fit() {
    let request = AnnounceRequest {
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([0; 20]),
        port: u16::MAX,
        uploaded_bytes: u64::MAX,
        downloaded_bytes: u64::MAX,
        left_bytes: u64::MAX,
        event: AnnounceEvent::Completed,
        peers_wanted: Some(u32::MAX),
        key: u32::MAX,
        ipv6: Some("1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap()),
    };
    let tracker = TrackerUrl::parse("http://t.example/").unwrap();
    let added = announce_url(&tracker, &request).len() - tracker.expose().len();
    assert!(added <= ARGUMENTS_BYTES_MAX, "{added}");
}

const COMPACT_REPLY: &[u8] = b"d8:completei5e10:incompletei7e8:intervali1800e12:min intervali60e\
    5:peers12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x01\
    6:peers618:\x2a\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x02\
    15:warning message4:\x1bowle";

#[test]
fn compact_reply_is_read() {
    let reply = parse_reply(COMPACT_REPLY).unwrap();
    assert_eq!(reply.interval, Span::from_secs(1800));
    assert_eq!(reply.min_interval, Some(Span::from_secs(60)));
    assert_eq!((reply.seeders, reply.leechers), (Some(5), Some(7)));
    assert_eq!(reply.warning.as_deref(), Some("\\u{1b}owl"));
    let peers: Vec<_> = reply.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["1.2.3.4:6881", "5.6.7.8:1", "[2a00::1]:2"]);
}

#[test]
fn list_of_dictionaries_is_read() {
    let body = b"d8:intervali9e5:peersl\
        d2:ip7:1.2.3.47:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti80ee\
        d2:ip7:2a00::14:porti81ee\
        d2:ip9:localhost4:porti82eed2:ip7:1.2.3.5ed4:porti1eed2:ip7:1.2.3.64:porti0ee\
        d2:ip7:1.2.3.74:porti-1eed2:ip7:1.2.3.84:porti65536eed2:ipi7e4:porti1eei5e3:abcleee";
    let peers = parse_reply(body).unwrap().peers;
    assert_eq!(peers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.2.3.4:80", "[2a00::1]:81"]);
}

#[test]
fn n6_odd_peers_name_none() {
    for body in [
        &b"de"[..],
        b"d5:peersi5ee",
        b"d5:peersdee",
        b"d5:peersle6:peers6lee",
        b"d5:peers0:e",
        b"d5:peers5:12345e",
        b"d6:peers617:12345678901234567e",
    ] {
        assert!(parse_reply(body).unwrap().peers.is_empty(), "{}", body.escape_ascii());
    }
}

#[test]
fn n6_bombs_and_floods() {
    let deep = [b"d5:peers".to_vec(), vec![b'l'; 500_000]].concat();
    let many = [b"d5:peersl".to_vec(), b"le".repeat(MESSAGE_TOKENS_MAX), b"ee".to_vec()].concat();
    let long = vec![b'0'; TRACKER_REPLY_BYTES_MAX + 1];
    for bad in [&deep, &many, &long, &b"d5:peers99999999999999999999:".to_vec(), &b"<html>".to_vec(), &vec![]]
    {
        assert!(matches!(parse_reply(bad), Err(ReplyError::Malformed(_))));
    }
    let peers: Vec<u8> =
        (0..TRACKER_PEERS_MAX + 9).flat_map(|n| [5, 5, (n >> 8) as u8, n as u8, 0, 1]).collect();
    let body = Item::dict([("peers", Item::Bytes(&peers))]).to_bytes();
    assert_eq!(parse_reply(&body).unwrap().peers.len(), TRACKER_PEERS_MAX);
}

#[test]
fn n6_reply_length_limit_is_exact() {
    for len in [TRACKER_REPLY_BYTES_MAX - 1, TRACKER_REPLY_BYTES_MAX, TRACKER_REPLY_BYTES_MAX + 1] {
        let frame = b"d1:x1048560:e".len();
        let filler = vec![0; len - frame];
        let body = Item::dict([("x", Item::Bytes(&filler))]).to_bytes();
        assert_eq!(body.len(), len);
        assert_eq!(parse_reply(&body).is_ok(), len <= TRACKER_REPLY_BYTES_MAX);
    }
}

#[test]
fn n7_intervals_at_the_extremes() {
    let interval = |text: &str| {
        let reply = parse_reply(format!("d8:interval{text}12:min interval{text}e").as_bytes());
        reply.map(|reply| (reply.interval.0 / 1_000_000_000, reply.min_interval.is_some()))
    };
    assert_eq!(interval("i0e"), Ok((0, true)));
    assert_eq!(interval("i-1e"), Ok((0, true)));
    assert_eq!(interval("i9223372036854775807e"), Ok((u64::from(u32::MAX), true)));
    assert!(interval("i9223372036854775808e").is_err());
    assert_eq!(interval("4:soon"), Ok((0, false)));
}

#[test]
fn n8_failure_reason_is_escaped_and_capped() {
    let refused = parse_reply(b"d14:failure reason8:no\r\n\x1b[2Je");
    assert_eq!(refused, Err(ReplyError::Refused("no\\r\\n\\u{1b}[2J".into())));
    let long = "x".repeat(900_000);
    let body = Item::dict([("failure reason", Item::from(long.as_str()))]).to_bytes();
    let Err(ReplyError::Refused(text)) = parse_reply(&body) else { panic!("not refused") };
    assert!(text.len() <= TRACKER_TEXT_BYTES_MAX);
    assert!(matches!(parse_reply(b"d14:failure reasoni5ee"), Err(ReplyError::Refused(_))));
}

/// A reply with all that is read, peers of both families.
const GOOD: &[u8] = b"d8:completei5e10:incompletei6e8:intervali1800e12:min intervali60e\
    5:peers12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x1a\xe2\
    6:peers618:\x2a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1\
    15:warning message4:slowe";

#[test]
fn truncated_at_every_byte_is_an_error() {
    for end in 0..GOOD.len() {
        assert!(matches!(parse_reply(&GOOD[..end]), Err(ReplyError::Malformed(_))), "{end}");
    }
    assert!(parse_reply(&[GOOD, b"\n"].concat()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_reply(&body);
        let dict = [b"d5:peers".to_vec(), body.clone(), b"e".to_vec()].concat();
        let _ = parse_reply(&dict);
    }

    #[test]
    fn a_damaged_reply_is_refused_or_gives_usable_peers(body in damaged(GOOD.to_vec())) {
        if let Ok(reply) = parse_reply(&body) {
            prop_assert!(reply.peers.len() <= body.len() / 6);
            prop_assert!(reply.peers.iter().all(|peer| peer.port() != 0));
        }
    }
}
