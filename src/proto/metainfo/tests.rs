use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;
use crate::base::limits::{PATH_BYTES_MAX, URL_BYTES_MAX};
use crate::proto::bencode::{Flaw, Item};

mod conformance;
mod link;
mod paths;
mod v2;

const HASH: &[u8; 20] = b"01234567890123456789";

/// A single-file torrent of one piece, with entries of `info` changed or (`None`) left out.
fn with_info<'a>(changes: impl IntoIterator<Item = (&'a str, Option<Item<'a>>)>) -> Vec<u8> {
    with_root(changes, [])
}

fn with_root<'a>(
    changes: impl IntoIterator<Item = (&'a str, Option<Item<'a>>)>,
    root: impl IntoIterator<Item = (&'a str, Item<'a>)>,
) -> Vec<u8> {
    let mut info: BTreeMap<&[u8], Item<'_>> = BTreeMap::from([
        (&b"length"[..], Item::Int(5)),
        (b"name", "a.txt".into()),
        (b"piece length", Item::Int(16384)),
        (b"pieces", Item::Bytes(HASH)),
    ]);
    for (key, value) in changes {
        info.remove(key.as_bytes());
        info.extend(value.map(|value| (key.as_bytes(), value)));
    }
    Item::dict(root.into_iter().chain([("info", Item::Dict(info))])).to_bytes()
}

/// One entry of `files`.
fn entry<'a>(length: i64, path: &[&'a [u8]], attributes: &'a str) -> Item<'a> {
    let names = path.iter().map(|name| Item::Bytes(name)).collect();
    Item::dict([("length", Item::Int(length)), ("path", Item::List(names)), ("attr", attributes.into())])
}

/// A torrent of several files, `dir` at the top, with as many hashes as `pieces`.
fn with_files(files: Vec<Item<'_>>, pieces: usize) -> Vec<u8> {
    let hashes = HASH.repeat(pieces);
    with_info([
        ("length", None),
        ("name", Some("dir".into())),
        ("files", Some(Item::List(files))),
        ("pieces", Some(Item::Bytes(&hashes))),
    ])
}

fn error(bytes: &[u8]) -> MetainfoError {
    Metainfo::parse(bytes).unwrap_err()
}

#[test]
fn a_single_file_torrent_is_read() {
    let bytes = with_root(
        [("private", Some(Item::Int(1)))],
        [
            ("announce", "http://tracker.example/announce".into()),
            ("comment", "a comment".into()),
            ("created by", "somebody".into()),
            ("creation date", Item::Int(1_700_000_000)),
            ("url-list", "https://mirror.example/a.txt".into()),
        ],
    );
    let metainfo = Metainfo::parse(&bytes).unwrap();
    assert_eq!(metainfo.geometry, Geometry::new(5, 16384));
    assert_eq!(metainfo.piece_hashes[..], [*HASH]);
    assert_eq!(metainfo.files, [FileEntry { path: vec!["a.txt".to_owned()], length: 5, pad: false }]);
    assert_eq!(metainfo.trackers, [["http://tracker.example/announce"]]);
    assert_eq!(metainfo.web_seeds, ["https://mirror.example/a.txt"]);
    assert_eq!(metainfo.comment.as_deref(), Some("a comment"));
    assert_eq!(metainfo.created_by.as_deref(), Some("somebody"));
    assert_eq!((metainfo.creation_date, metainfo.private), (Some(1_700_000_000), true));
    let info = &metainfo.info[..];
    assert_eq!(metainfo.info_hash.0, <[u8; 20]>::from(Sha1::digest(info)));
    assert!(info.starts_with(b"d6:length") && info.ends_with(b"7:privatei1ee"));
}

#[test]
fn t1_nesting_bomb_is_refused_even_under_an_unknown_key() {
    for depth in [METAINFO_DEPTH_MAX - 1, METAINFO_DEPTH_MAX, METAINFO_DEPTH_MAX + 1] {
        let nested = "l".repeat(depth - 1) + &"e".repeat(depth - 1);
        let bytes = [b"d1:a", nested.as_bytes(), &with_info([])[1..]].concat();
        assert_eq!(Metainfo::parse(&bytes).is_ok(), depth <= METAINFO_DEPTH_MAX, "{depth} levels");
    }
    let bomb = [b"d1:a", &b"l".repeat(10_000_000)[..]].concat();
    assert!(matches!(error(&bomb), MetainfoError::Bencode(error) if error.flaw == Flaw::Depth));
}

#[test]
fn t2_token_bomb_is_refused() {
    let torrent = with_info([]);
    // Two dictionaries, the key of `info`, and four keys with their values; then the bomb's key and list.
    let own = 2 + 1 + 8 + 2;
    for (tokens, good) in
        [(METAINFO_TOKENS_MAX - 1, true), (METAINFO_TOKENS_MAX, true), (METAINFO_TOKENS_MAX + 1, false)]
    {
        let bomb = "0:".repeat(tokens - own);
        let bytes = [b"d1:al", bomb.as_bytes(), b"e", &torrent[1..]].concat();
        let flaw = Metainfo::parse(&bytes).err();
        let refused = matches!(flaw, Some(MetainfoError::Bencode(ref error)) if error.flaw == Flaw::Tokens);
        assert_eq!((flaw.is_none(), refused), (good, !good), "{tokens}: {flaw:?}");
    }
}

#[test]
fn t3_the_file_size_limit_is_exact() {
    let torrent = with_info([]);
    for size in [METAINFO_BYTES_MAX - 1, METAINFO_BYTES_MAX, METAINFO_BYTES_MAX + 1] {
        let head = b"d1:a";
        let room = size - head.len() - (torrent.len() - 1);
        let filler = room - format!("{room}:").len();
        let text = format!("{filler}:{}", "x".repeat(filler));
        let bytes = [head, text.as_bytes(), &torrent[1..]].concat();
        assert_eq!(bytes.len(), size);
        let want =
            if size > METAINFO_BYTES_MAX { Some(MetainfoError::TooLong { bytes: size }) } else { None };
        assert_eq!(Metainfo::parse(&bytes).err(), want);
    }
}

#[test]
fn t5_the_info_hash_is_of_the_raw_bytes_and_a_second_info_is_refused() {
    let info = "d4:name1:a6:lengthi5e12:piece lengthi16384e3:odd1:x6:pieces20:01234567890123456789e";
    let bytes = format!("d4:info{info}8:announce0:e");
    let metainfo = Metainfo::parse(bytes.as_bytes()).unwrap();
    assert_eq!(metainfo.info_hash.0, <[u8; 20]>::from(Sha1::digest(info)));
    assert_eq!(metainfo.info, info);
    for twice in [format!("d4:info{info}4:info{info}e"), format!("d4:info{info}1:a0:4:info{info}e")] {
        let error = error(twice.as_bytes());
        assert!(matches!(error, MetainfoError::Bencode(error) if error.flaw == Flaw::DuplicateKey));
    }
}

#[test]
fn t6_truncation_at_every_byte_and_trailing_bytes_are_refused() {
    let bytes =
        with_root([], [("announce", "http://tracker.example/".into()), ("url-list", Item::List(vec![]))]);
    for len in 0..bytes.len() {
        assert!(matches!(error(&bytes[..len]), MetainfoError::Bencode(_)), "{len} bytes");
    }
    assert!(matches!(error(&[&bytes[..], b"\n"].concat()), MetainfoError::Bencode(_)));
}

#[test]
fn t7_a_piece_length_outside_the_policy_is_refused() {
    let max = i64::from(PIECE_BYTES_MAX);
    for value in [16384, 32768, 48 << 10, max - 16384, max] {
        let bytes = with_info([("piece length", Some(Item::Int(value)))]);
        assert_eq!(Metainfo::parse(&bytes).map(|m| i64::from(m.geometry.piece_bytes)), Ok(value));
    }
    let wrong =
        [0, 1, -1, -16384, 16383, 16385, 20000, max + 1, max + 16384, (1 << 31) - 1, 1 << 32, i64::MAX];
    for value in wrong.into_iter().chain([i64::MIN]) {
        let bytes = with_info([("piece length", Some(Item::Int(value)))]);
        assert_eq!(error(&bytes), MetainfoError::PieceLength { value });
    }
    let beyond_64_bits = b"d4:infod12:piece lengthi9223372036854775808eee";
    assert!(matches!(error(beyond_64_bits), MetainfoError::Bencode(error) if error.flaw == Flaw::Number));
    let text = with_info([("piece length", Some("16384".into()))]);
    assert_eq!(error(&text), MetainfoError::Malformed { key: "info.piece length" });
}

#[test]
fn t8_piece_hashes_that_do_not_fit_are_refused() {
    for len in [1, 19, 21, 39] {
        let bytes = with_info([("pieces", Some(Item::Bytes(&HASH.repeat(2)[..len])))]);
        assert_eq!(error(&bytes), MetainfoError::Malformed { key: "info.pieces" }, "{len}");
    }
    for (length, hashes, good) in [
        (1, 1, true),
        (16384, 1, true),
        (16385, 2, true),
        (16385, 1, false),
        (16384, 2, false),
        (5, 0, false),
    ] {
        let pieces = HASH.repeat(hashes);
        let bytes = with_info([("length", Some(Item::Int(length))), ("pieces", Some(Item::Bytes(&pieces)))]);
        let wanted = (length as u64).div_ceil(16384);
        let want = (!good).then_some(MetainfoError::PieceCount { found: hashes as u64, wanted });
        assert_eq!(Metainfo::parse(&bytes).err(), want);
    }
}

#[test]
fn t8_the_limit_on_pieces_is_exact() {
    for pieces in [PIECES_MAX - 1, PIECES_MAX, PIECES_MAX + 1] {
        let hashes = HASH.repeat(pieces as usize);
        let length = Item::Int(i64::from(pieces) * 16384);
        let bytes = with_info([("length", Some(length)), ("pieces", Some(Item::Bytes(&hashes)))]);
        let want = (pieces > PIECES_MAX).then_some(MetainfoError::TooManyPieces { found: pieces.into() });
        assert_eq!(Metainfo::parse(&bytes).err(), want);
    }
}

#[test]
fn t9_file_lengths_that_are_negative_or_overflow_are_refused() {
    const MALFORMED: MetainfoError = MetainfoError::Malformed { key: "info.files[].length" };
    for (lengths, want) in [
        (vec![-1], MALFORMED),
        (vec![5, i64::MIN], MALFORMED),
        (vec![i64::MAX], MetainfoError::TooLarge),
        (vec![i64::MAX, i64::MAX, i64::MAX], MetainfoError::TooLarge),
    ] {
        let names: Vec<String> = (0..lengths.len()).map(|n| n.to_string()).collect();
        let files = lengths.iter().zip(&names).map(|(&length, name)| entry(length, &[name.as_bytes()], ""));
        assert_eq!(error(&with_files(files.collect(), 1)), want, "{lengths:?}");
    }
    let max = TOTAL_BYTES_MAX as i64;
    for (length, too_large) in [(max - 2, false), (max - 1, false), (max, true)] {
        let files = vec![entry(length, &[b"a"], ""), entry(1, &[b"b"], "")];
        assert_eq!(error(&with_files(files, 1)) == MetainfoError::TooLarge, too_large, "{length} and 1");
    }
    assert_eq!(
        error(&with_info([("length", Some(Item::Int(-5)))])),
        MetainfoError::Malformed { key: "info.length" }
    );
}

#[test]
fn t10_torrents_without_content_are_refused_and_empty_files_beside_content_are_not() {
    for files in [
        vec![],
        vec![entry(0, &[b"a"], "")],
        vec![entry(0, &[b"a"], ""), entry(0, &[b"b"], "")],
        vec![entry(16383, &[b".pad", b"16383"], "p")],
        vec![entry(0, &[b"link"], "l")],
    ] {
        assert_eq!(error(&with_files(files.clone(), 0)), MetainfoError::Empty, "{files:?}");
    }
    assert_eq!(
        error(&with_info([("length", Some(Item::Int(0))), ("pieces", Some("".into()))])),
        MetainfoError::Empty
    );
    let mixed = vec![entry(0, &[b"a"], ""), entry(5, &[b"b"], ""), entry(0, &[b"c"], "")];
    assert_eq!(Metainfo::parse(&with_files(mixed, 1)).unwrap().files.len(), 3);
}

#[test]
fn t10_padding_is_shorter_than_a_piece() {
    for length in [16383, 16384, 16385] {
        let files = vec![entry(1, &[b"a"], ""), entry(length, &[b".pad", b"0"], "p")];
        let pieces = (length as u64 + 1).div_ceil(16384) as usize;
        let want = (length >= 16384).then_some(MetainfoError::Padding);
        assert_eq!(Metainfo::parse(&with_files(files, pieces)).err(), want, "{length}");
    }
}

#[test]
fn t10_the_limit_on_files_is_exact() {
    for count in [FILES_MAX - 1, FILES_MAX, FILES_MAX + 1] {
        let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let files =
            names.iter().enumerate().map(|(n, name)| entry(i64::from(n == 0), &[name.as_bytes()], ""));
        let want = (count > FILES_MAX).then_some(MetainfoError::TooManyFiles);
        assert_eq!(Metainfo::parse(&with_files(files.collect(), 1)).err(), want);
    }
}

#[test]
fn t17_symbolic_links_are_left_out_and_move_no_offset() {
    let mut link = entry(0, &[b"passwd"], "l");
    if let Item::Dict(entries) = &mut link {
        let target = ["..", "..", "etc", "passwd"].map(Item::from);
        entries.insert(b"symlink path", Item::List(target.to_vec()));
    }
    let mut short = link.clone();
    if let Item::Dict(entries) = &mut short {
        entries.remove(&b"length"[..]);
    }
    let files = vec![entry(3, &[b"a"], ""), link, short, entry(2, &[b"b"], "")];
    let metainfo = Metainfo::parse(&with_files(files, 1)).unwrap();
    assert_eq!(metainfo.files.iter().map(|file| file.length).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((metainfo.symlinks_skipped, metainfo.geometry.total_bytes), (2, 5));
    let with_content = with_files(vec![entry(3, &[b"a"], ""), entry(2, &[b"b"], "l")], 1);
    assert_eq!(error(&with_content), MetainfoError::Malformed { key: "info.files[].length" });
}

#[test]
fn t20_a_padding_file_takes_part_in_offsets_but_never_in_paths() {
    let files = vec![
        entry(5, &[b"a"], ""),
        entry(16379, &[b"..", b"a"], "p"),
        entry(7, &[b".pad", b"16379"], ""),
        entry(16377, &[b"a"], "xp"),
        entry(1, &[b"b"], "x"),
    ];
    let metainfo = Metainfo::parse(&with_files(files, 3)).unwrap();
    assert_eq!(metainfo.files[1], FileEntry::padding("dir", 16379));
    let pads: Vec<_> = metainfo.files.iter().map(|file| file.pad).collect();
    assert_eq!(pads, [false, true, false, true, false]);
    assert_eq!(metainfo.geometry.total_bytes, 5 + 16379 + 7 + 16377 + 1);
}

#[test]
fn t24_absurd_dates_and_texts_are_kept_and_malformed_ones_dropped() {
    for date in [i64::MIN, -1, 0, 1_452_468_725_091, i64::MAX] {
        let bytes = with_root([], [("creation date", Item::Int(date))]);
        assert_eq!(Metainfo::parse(&bytes).unwrap().creation_date, Some(date));
    }
    let wrong = with_root(
        [("private", Some("yes".into()))],
        [
            ("creation date", "now".into()),
            ("comment", Item::Int(1)),
            ("created by", Item::Bytes(b"a\xff\x1b")),
        ],
    );
    let metainfo = Metainfo::parse(&wrong).unwrap();
    assert_eq!((metainfo.creation_date, metainfo.comment, metainfo.private), (None, None, false));
    assert_eq!(metainfo.created_by.as_deref(), Some("a\u{fffd}\x1b"));
}

fn trackers_of(root: Vec<(&str, Item<'_>)>) -> Vec<Vec<String>> {
    Metainfo::parse(&with_root([], root)).unwrap().trackers
}

#[test]
fn t26_tracker_tiers_keep_usable_urls_once() {
    let tiers = Item::List(vec![
        Item::List(vec!["http://a/".into(), "gopher://b/".into(), " udp://c:1\n".into()]),
        Item::List(vec![]),
        "http://lone/".into(),
        Item::Int(3),
        Item::List(vec!["http://a/".into(), Item::Int(4), Item::List(vec![])]),
    ]);
    let wanted: [&[&str]; 2] = [&["http://a/", "udp://c:1"], &["http://lone/"]];
    assert_eq!(trackers_of(vec![("announce", "http://z/".into()), ("announce-list", tiers)]), wanted);
    // A list without anything usable does not hide a good `announce`.
    for list in [Item::List(vec![]), Item::List(vec!["file:///x".into()]), Item::Int(1)] {
        assert_eq!(
            trackers_of(vec![("announce", "http://z/".into()), ("announce-list", list)]),
            [["http://z/"]]
        );
    }
    assert!(trackers_of(vec![("announce", "file:///etc/passwd".into())]).is_empty());
}

#[test]
fn t26_the_limits_on_trackers_and_web_seeds_are_exact() {
    for count in [TRACKERS_MAX - 1, TRACKERS_MAX, TRACKERS_MAX + 1, 1000] {
        let urls: Vec<String> = (0..count).map(|n| format!("http://host{n}/")).collect();
        let list = || Item::List(urls.iter().map(|url| url.as_str().into()).collect());
        let tiers = trackers_of(vec![("announce-list", Item::List(vec![list()]))]);
        assert_eq!(tiers.concat(), urls[..count.min(TRACKERS_MAX)]);
        assert_eq!(trackers_of(vec![("announce-list", list())]).concat(), urls[..count.min(TRACKERS_MAX)]);
        let seeds = Metainfo::parse(&with_root([], [("url-list", list())])).unwrap().web_seeds;
        assert_eq!(seeds, urls[..count.min(WEB_SEEDS_MAX)]);
    }
    let long = format!("http://{}/", "a".repeat(URL_BYTES_MAX));
    for url in ["file:///etc/passwd", "gopher://example/", "", " ", &long] {
        let metainfo = Metainfo::parse(&with_root([], [("url-list", url.into())])).unwrap();
        assert!(metainfo.web_seeds.is_empty());
    }
}

#[test]
fn missing_and_malformed_keys_are_named() {
    for (changes, want) in [
        (("name", None), MetainfoError::Missing { key: "info.name" }),
        (("name", Some(Item::Int(1))), MetainfoError::Malformed { key: "info.name" }),
        (("length", None), MetainfoError::Missing { key: "info.files" }),
        (("length", Some("5".into())), MetainfoError::Malformed { key: "info.length" }),
        (("files", Some(Item::List(vec![]))), MetainfoError::Malformed { key: "info.length" }),
        (("pieces", None), MetainfoError::Missing { key: "info.pieces" }),
        (("pieces", Some(Item::Int(0))), MetainfoError::Malformed { key: "info.pieces" }),
        (("piece length", None), MetainfoError::Missing { key: "info.piece length" }),
    ] {
        assert_eq!(error(&with_info([changes])), want);
    }
    for text in ["de", "le", "i0e", "1:a"] {
        assert_eq!(error(text.as_bytes()), MetainfoError::Missing { key: "info" });
    }
    for info in ["i0e", "le", "0:", "de"] {
        let bytes = format!("d4:info{info}e");
        assert_eq!(error(bytes.as_bytes()), MetainfoError::Missing { key: "info.pieces" });
    }
}

#[test]
fn every_message_is_one_line_with_a_remedy() {
    let path = "dir/a".to_owned();
    for error in [
        MetainfoError::TooLong { bytes: 1 << 30 },
        error(b"d"),
        MetainfoError::Missing { key: "info" },
        MetainfoError::Malformed { key: "info" },
        MetainfoError::Version { value: 3 },
        MetainfoError::PieceLengthV2 { value: 48 << 10 },
        MetainfoError::FileTree { path: path.clone() },
        MetainfoError::MissingLayer { path: path.clone() },
        MetainfoError::WrongLayer { path: path.clone() },
        MetainfoError::Mismatch { path: path.clone() },
        MetainfoError::PieceLength { value: -1 },
        MetainfoError::PieceCount { found: 1, wanted: 2 },
        MetainfoError::TooManyPieces { found: 1 << 30 },
        MetainfoError::TooLarge,
        MetainfoError::TooManyFiles,
        MetainfoError::Empty,
        MetainfoError::UnsafePath { path: path.clone() },
        MetainfoError::LongPath { path: path.clone() },
        MetainfoError::Clashes,
        MetainfoError::Unportable { path },
    ] {
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("  ") && text.contains([':', ',']), "{text}");
    }
}

fn of_three_files() -> Vec<u8> {
    let files = vec![entry(5, &[b"a", b"b"], ""), entry(16379, &[b"p"], "p"), entry(9, &[b"c"], "x")];
    with_files(files, 2)
}

proptest! {
    #[test]
    fn a_damaged_torrent_is_refused_or_still_consistent(bytes in damaged(of_three_files())) {
        if let Ok(metainfo) = Metainfo::parse(&bytes) {
            let sum: u64 = metainfo.files.iter().map(|file| file.length).sum();
            prop_assert_eq!(metainfo.geometry.total_bytes, sum);
            prop_assert_eq!(metainfo.geometry.piece_count() as usize, metainfo.piece_hashes.len());
            paths::check_safe(&metainfo)?;
        }
    }
}
