use proptest::prelude::*;

use super::*;

const HEX: &str = "0123456789abcdef0123456789ABCDEF01234567";
const BASE32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";

fn parse(rest: &str) -> Result<Magnet, MagnetError> {
    Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}{rest}"))
}

#[test]
fn a_whole_link_is_read() {
    let magnet = parse(
        "&dn=K%C3%B6ln+2024&tr=udp%3A%2F%2Ftracker.example%3A6969&tr=http://tracker.example/announce\
         &ws=https%3A%2F%2Fmirror.example%2Ffiles%2F&x.pe=192.0.2.1:6881&x.pe=[2001:db8::1]:6882\
         &x.pe=peer.example:6883&so=0,2&unknown=1",
    )
    .unwrap();
    assert_eq!(magnet.info_hash.unwrap().to_hex(), HEX.to_lowercase());
    assert_eq!(magnet.name.as_deref(), Some("K\u{f6}ln 2024"));
    assert_eq!(magnet.trackers, ["udp://tracker.example:6969", "http://tracker.example/announce"]);
    assert_eq!(magnet.web_seeds, ["https://mirror.example/files/"]);
    assert_eq!(magnet.selection.as_ref().map(ToString::to_string).as_deref(), Some("0,2"));
    let peers: Vec<_> = magnet.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["192.0.2.1:6881", "[2001:db8::1]:6882", "peer.example:6883"]);
}

#[test]
fn base32_and_hexadecimal_name_the_same_torrent() {
    let by_hex = Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}")).unwrap();
    for base32 in [BASE32.to_owned(), BASE32.to_lowercase()] {
        assert_eq!(Magnet::parse(&format!("MAGNET:?xt.1=URN:BTIH:{base32}")), Ok(by_hex.clone()));
    }
}

#[test]
fn a_v2_hash_is_recognised_alone_and_beside_a_v1_hash() {
    let v2 = "12".repeat(32);
    let alone = Magnet::parse(&format!("magnet:?xt=urn:btmh:1220{v2}")).unwrap();
    assert_eq!((alone.info_hash, alone.v2_hash), (None, Some([0x12; 32])));
    let both = parse(&format!("&xt=urn:btmh:1220{v2}&xt=urn:sha1:ignored")).unwrap();
    assert!(both.info_hash.is_some() && both.v2_hash.is_some());
}

#[test]
fn t23_bad_and_repeated_hashes_are_refused() {
    let other = "f".repeat(40);
    for (link, want) in [
        ("http://example/?xt=urn:btih:0".to_owned(), MagnetError::NotMagnet),
        ("magnet:".to_owned(), MagnetError::NotMagnet),
        (String::new(), MagnetError::NotMagnet),
        ("magnet:?dn=name".to_owned(), MagnetError::NoHash),
        ("magnet:?xt=urn:ed2k:0".to_owned(), MagnetError::NoHash),
        ("magnet:?xt=urn:btih:".to_owned(), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:{}", &HEX[1..]), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:{HEX}0"), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:g{}", &HEX[1..]), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:1{}", &BASE32[1..]), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:+{}", &HEX[1..]), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btmh:1114{}", "0".repeat(64)), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btmh:1220{}", "0".repeat(63)), MagnetError::BadHash),
        (format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}"), MagnetError::TwoHashes),
        // Percent-encoding is undone once, not twice.
        (format!("magnet:?xt=urn%253Abtih%253A{HEX}"), MagnetError::NoHash),
    ] {
        assert_eq!(Magnet::parse(&link), Err(want), "{link}");
    }
    assert!(parse(&format!("&xt=urn:btih:{}", HEX.to_lowercase())).is_ok());
}

#[test]
fn t23_the_length_limit_is_exact() {
    let start = format!("magnet:?xt=urn:btih:{HEX}&dn=");
    for (bytes, good) in
        [(MAGNET_BYTES_MAX - 1, true), (MAGNET_BYTES_MAX, true), (MAGNET_BYTES_MAX + 1, false)]
    {
        let link = format!("{start}{}", "n".repeat(bytes - start.len()));
        let want = if good { None } else { Some(MagnetError::TooLong { bytes }) };
        assert_eq!(Magnet::parse(&link).err(), want);
    }
}

#[test]
fn t23_hints_are_limited_in_number_and_dropped_if_useless() {
    for count in [63, 64, 65, 200] {
        let many = |key: &str, value: &dyn Fn(usize) -> String| -> String {
            (0..count).map(|n| format!("&{key}={}", value(n))).collect()
        };
        assert_eq!(
            parse(&many("tr", &|n| format!("udp://t{n}:1"))).unwrap().trackers.len(),
            count.min(TRACKERS_MAX)
        );
        assert_eq!(
            parse(&many("ws", &|n| format!("http://s{n}"))).unwrap().web_seeds.len(),
            count.min(WEB_SEEDS_MAX)
        );
        assert_eq!(
            parse(&many("x.pe", &|n| format!("h{n}:1"))).unwrap().peers.len(),
            count.min(MAGNET_PEERS_MAX)
        );
    }
    let useless =
        parse("&tr=&tr=file:///x&tr=wss://t&ws=udp://x:1&x.pe=h:0&x.pe=h&x.pe=:1&x.pe=h:65536&x.pe=[::1:5");
    assert_eq!(useless, parse(""));
    assert_eq!(parse("&tr=udp://t:1&tr.2=udp://t:1").unwrap().trackers.len(), 1);
}

#[test]
fn truncation_at_every_byte_is_refused_or_names_the_same_torrent() {
    let link = format!("magnet:?xt=urn:btih:{HEX}&dn=na%6De&tr=udp://t:1");
    let hash_end = link.find("&dn").unwrap();
    for len in 0..link.len() {
        assert_eq!(Magnet::parse(&link[..len]).is_ok(), len >= hash_end, "{len}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", query in "[a-z.&=%:0-9\\[\\]+]{0,80}") {
        let _ = Magnet::parse(&text);
        let _ = Magnet::parse(&format!("magnet:?{query}"));
        let named = parse(&format!("&dn={query}"));
        // Another topic may be wrong, and so may a selection (BEP 53).
        let may_be_refused = ["xt", "so"].iter().any(|key| query.contains(key));
        prop_assert!(may_be_refused || named.is_ok_and(|magnet| magnet.info_hash.is_some()));
    }
}

#[test]
fn bep53_files_that_are_no_numbers_are_refused_rather_than_all_fetched() {
    let link = |so: &str| Magnet::parse(&format!("magnet:?xt=urn:btih:{}&so={so}", "0".repeat(40)));
    let files = |so: &str| link(so).unwrap().selection.unwrap().to_string();
    assert_eq!(files("0,2,4-6"), "0,2,4-6");
    assert_eq!(files("0%2C2"), "0,2");
    assert_eq!(files("1&so=2"), "1", "the first counts");
    assert_eq!(files("0-4294967295"), "0-4294967295");
    for bad in ["", "x", "2-1", "-1", "1-", "4294967296"] {
        assert_eq!(link(bad), Err(MagnetError::BadSelection), "{bad:?}");
    }
}
