use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;
use crate::proto::bencode::Flaw;

fn encoded(handshake: &ExtensionHandshake) -> Vec<u8> {
    let mut out = Vec::new();
    handshake.encode(&mut out);
    out
}

fn parse(text: &str) -> ExtensionHandshake {
    ExtensionHandshake::parse(text.as_bytes()).unwrap()
}

fn example() -> ExtensionHandshake {
    ExtensionHandshake {
        messages: ExtensionIds {
            ut_metadata: Some(3),
            ut_pex: Some(1),
            ut_holepunch: Some(4),
            lt_donthave: None,
            troc_id: Some(2),
        },
        reqq: Some(250),
        version: Some("troc 0.1.0".to_owned()),
        your_ip: Some([127, 0, 0, 1].into()),
        port: Some(6881),
        metadata_size: Some(31_235),
        upload_only: true,
    }
}

#[test]
fn the_bytes_are_canonical_and_come_back() {
    let bytes = encoded(&example());
    let text = "d1:md7:troc_idi2e12:ut_holepunchi4e11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e\
                1:pi6881e4:reqqi250e11:upload_onlyi1e1:v10:troc 0.1.06:yourip4:\x7f\0\0\x01e";
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text);
    assert_eq!(ExtensionHandshake::parse(&bytes), Ok(example()));
    assert_eq!(encoded(&ExtensionHandshake::default()), b"d1:mdee");
    let v6 = ExtensionHandshake { your_ip: Some(std::net::Ipv6Addr::LOCALHOST.into()), ..example() };
    assert_eq!(ExtensionHandshake::parse(&encoded(&v6)), Ok(v6));
}

#[test]
fn truncation_at_every_byte_is_refused() {
    let bytes = encoded(&example());
    for len in 0..bytes.len() {
        assert!(ExtensionHandshake::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn p29_unknown_keys_and_senseless_values_are_ignored() {
    let default = ExtensionHandshake::default();
    for text in [
        "de",
        "d1:mle1:p2:no4:reqq0:1:vi1e6:yourip3:abc13:metadata_sizele11:upload_onlyde3:zzzllleeee",
        "d1:md11:ut_metadatai0e6:ut_pexi-1e11:lt_donthavei256ee1:pi0ee",
        "d1:pi65536e4:reqqi-9223372036854775808e13:metadata_sizei9223372036854775807ee",
        "d13:metadata_sizei-1e4:reqqi0ee",
    ] {
        assert_eq!(parse(text), default, "{text}");
    }
}

#[test]
fn p29_reqq_and_metadata_size_are_held_to_their_limits() {
    let max = REQUESTS_OUT_MAX as i64;
    for (reqq, want) in [(1, 1), (max - 1, max - 1), (max, max), (max + 1, max), (i64::MAX, max)] {
        assert_eq!(parse(&format!("d4:reqqi{reqq}ee")).reqq, Some(want as u32), "{reqq}");
    }
    let max = METAINFO_BYTES_MAX;
    for (size, want) in [(max - 1, Some(max - 1)), (max, Some(max)), (max + 1, None)] {
        let got = parse(&format!("d13:metadata_sizei{size}ee")).metadata_size;
        assert_eq!(got, want.map(|size| size as u32), "{size}");
    }
}

#[test]
fn p29_of_two_names_under_one_id_the_first_counts() {
    let ids = parse("d1:md11:ut_metadatai2e6:ut_pexi2eee").messages;
    assert_eq!((ids.ut_metadata, ids.ut_pex), (Some(2), None));
}

#[test]
fn truncated_at_every_byte_is_refused() {
    let bytes = encoded(&example());
    for len in 0..bytes.len() {
        assert!(ExtensionHandshake::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn p29_depth_and_tokens_are_bounded() {
    for (depth, good) in
        [(MESSAGE_DEPTH_MAX - 1, true), (MESSAGE_DEPTH_MAX, true), (MESSAGE_DEPTH_MAX + 1, false)]
    {
        let lists = depth - 1;
        let text = format!("d1:z{}{}e", "l".repeat(lists), "e".repeat(lists));
        assert_eq!(ExtensionHandshake::parse(text.as_bytes()).is_ok(), good, "{depth} levels");
    }
    let names: String = (0..100_000).map(|n| format!("6:{n:06}i1e")).collect();
    let error = ExtensionHandshake::parse(format!("d1:md{names}ee").as_bytes()).unwrap_err();
    assert!(matches!(error, WireError::Extension(error) if error.flaw == Flaw::Tokens));
}

#[test]
fn p29_something_else_than_a_dictionary_is_refused() {
    for text in ["", "le", "i1e", "3:abc", "d1:md", "dee"] {
        assert!(matches!(ExtensionHandshake::parse(text.as_bytes()), Err(WireError::Extension(_))), "{text}");
    }
}

#[test]
fn p39_the_version_is_escaped_and_cut() {
    for (len, whole) in [(63, true), (64, true), (65, false)] {
        let version = parse(&format!("d1:v{len}:{}e", "v".repeat(len))).version.unwrap();
        assert_eq!((version.len() == len, version.len() <= 64), (whole, true), "{len}");
    }
    assert_eq!(parse("d1:v6:a\x1b[2J\ne").version.as_deref(), Some("a\\u{1b}[2J\\n"));
    let megabyte = 1 << 20;
    let long = parse(&format!("d1:v{megabyte}:{}e", "\x1b".repeat(megabyte))).version.unwrap();
    assert!(long.len() <= 64 && long.ends_with("..."));
}

proptest! {
    #[test]
    fn any_payload_is_read_or_refused(bytes in prop::collection::vec(
        prop_oneof![prop::sample::select(&b"ilde0123:-mpv"[..]), any::<u8>()],
        0..48,
    )) {
        let _ = ExtensionHandshake::parse(&bytes);
    }

    #[test]
    fn a_damaged_handshake_is_refused_or_says_what_we_could_say(bytes in damaged(encoded(&example()))) {
        if let Ok(mut handshake) = ExtensionHandshake::parse(&bytes) {
            // Escaped already: what escapes is escaped again.
            let version = handshake.version.take().unwrap_or_default();
            prop_assert!(version.len() <= CLIENT_NAME_BYTES_MAX && !version.contains(text::is_hidden));
            prop_assert_eq!(ExtensionHandshake::parse(&encoded(&handshake)), Ok(handshake));
        }
    }

    #[test]
    fn what_is_sent_is_understood(
        ids in prop::collection::btree_set(1..=255u8, 5..=5),
        reqq in prop::option::of(1..=REQUESTS_OUT_MAX as u32),
        port in prop::option::of(1..=u16::MAX),
        metadata_size in prop::option::of(1..=METAINFO_BYTES_MAX as u32),
        your_ip in prop::option::of(any::<IpAddr>()),
        upload_only: bool,
    ) {
        let ids: Vec<_> = ids.into_iter().map(Some).collect();
        let messages = ExtensionIds {
            ut_metadata: ids[0],
            ut_pex: ids[1],
            ut_holepunch: ids[2],
            lt_donthave: ids[3],
            troc_id: ids[4],
        };
        let version = Some("v".to_owned());
        let sent = ExtensionHandshake { messages, reqq, version, your_ip, port, metadata_size, upload_only };
        prop_assert_eq!(ExtensionHandshake::parse(&encoded(&sent)), Ok(sent));
    }
}
