//! Hostile names (threats T11 to T16), and that made torrents come back as they went in.

use std::collections::HashSet;

use super::*;
use crate::base::limits::{PATH_CLASHES_MAX, PATH_ELEMENT_BYTES_MAX, PATH_ELEMENTS_MAX};
use crate::proto::text;

/// What every parsed torrent promises about its paths.
pub(super) fn check_safe(metainfo: &Metainfo) -> Result<(), TestCaseError> {
    let mut files = HashSet::new();
    let mut directories = HashSet::new();
    for file in metainfo.files.iter().filter(|file| !file.pad) {
        prop_assert_eq!(file.path.first(), Some(&metainfo.name));
        for name in &file.path {
            prop_assert!(!name.is_empty() && name != "." && name != "..", "{name:?}");
            prop_assert!(!name.contains(['/', '\0']) && !name.chars().any(text::is_hidden), "{name:?}");
            prop_assert!(name.len() <= PATH_ELEMENT_BYTES_MAX);
        }
        prop_assert!(file.path.len() <= PATH_ELEMENTS_MAX && file.path.join("/").len() <= PATH_BYTES_MAX);
        prop_assert!(files.insert(file.path.clone()), "twice: {:?}", file.path);
        directories.extend((1..file.path.len()).map(|len| file.path[..len].to_vec()));
    }
    prop_assert!(files.is_disjoint(&directories));
    Ok(())
}

/// The path below `dir` that the only file of a torrent gets.
fn path_of(names: &[&[u8]]) -> Result<Vec<String>, MetainfoError> {
    let metainfo = Metainfo::parse(&with_files(vec![entry(5, names, "")], 1))?;
    Ok(metainfo.files[0].path[1..].to_vec())
}

/// The paths below `dir` that files with these slash-separated ones get.
fn paths_of(paths: &[&str]) -> Result<Vec<String>, MetainfoError> {
    let names: Vec<Vec<&[u8]>> = paths.iter().map(|p| p.split('/').map(str::as_bytes).collect()).collect();
    let files = names.iter().enumerate().map(|(n, names)| entry(i64::from(n == 0), names, ""));
    let metainfo = Metainfo::parse(&with_files(files.collect(), 1))?;
    check_safe(&metainfo).unwrap();
    Ok(metainfo.files.iter().map(|file| file.path[1..].join("/")).collect())
}

#[test]
fn t11_names_that_could_leave_the_directory_are_refused() {
    let bad: [&[u8]; 9] =
        [b"", b".", b"..", b"/", b"/etc/passwd", b"a/b", b"../a", b"a/../../b", b"\xc0\xae/\xff"];
    for name in bad {
        let is_unsafe = |bytes: &[u8]| matches!(error(bytes), MetainfoError::UnsafePath { .. });
        assert!(is_unsafe(&with_info([("name", Some(Item::Bytes(name)))])), "{}", name.escape_ascii());
        for path in [vec![name], vec![name, b"a"], vec![b"a", name], vec![b"a", name, b"b"]] {
            assert!(is_unsafe(&with_files(vec![entry(5, &path, "")], 1)), "{}", name.escape_ascii());
        }
        // The .utf-8 variants go the same way, where they are valid at all.
        if str::from_utf8(name).is_ok() {
            assert!(is_unsafe(&with_info([("name.utf-8", Some(Item::Bytes(name)))])));
            let utf8 = Item::dict([
                ("length", Item::Int(5)),
                ("path", Item::List(vec!["good".into()])),
                ("path.utf-8", Item::List(vec![Item::Bytes(name)])),
            ]);
            assert!(is_unsafe(&with_files(vec![utf8], 1)));
        }
    }
    assert!(matches!(path_of(&[]), Err(MetainfoError::UnsafePath { .. })));
}

#[test]
fn t12_nul_is_refused_and_control_characters_are_replaced() {
    assert!(matches!(path_of(&[b"a\0b"]), Err(MetainfoError::UnsafePath { .. })));
    for (name, want) in [
        (&b"a\nb\r\tc"[..], "a_b__c"),
        (b"\x1b[2Jclear", "_[2Jclear"),
        (b"\x7f\x01\x1f", "___"),
        ("\u{85}\u{9b}c1".as_bytes(), "__c1"),
    ] {
        assert_eq!(path_of(&[name]), Ok(vec![want.to_owned()]));
    }
    // What an error shows is escaped as well.
    let error = path_of(&[b"\x1b[2J\n/x"]).unwrap_err().to_string();
    assert!(!error.contains(['\x1b', '\n']), "{error}");
}

#[test]
fn t13_bidi_zero_width_and_invalid_utf_8_are_replaced() {
    for (name, want) in [
        ("\u{202e}gpj.exe".as_bytes(), "_gpj.exe"),
        ("a\u{200b}b\u{feff}c\u{2066}d".as_bytes(), "a_b_c_d"),
        (b"latin-\xe9.txt", "latin-_.txt"),
        // An overlong slash and an overlong dot are just invalid.
        (b"a\xc0\xafb", "a__b"),
        (b"\xc0\xae\xc0\xae", "____"),
        (b"\xed\xa0\x80", "___"),
        // Ordinary names of people stay as they are.
        (
            "K\u{f6}ln \u{6a9}\u{200c}\u{647} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}".as_bytes(),
            "K\u{f6}ln \u{6a9}\u{200c}\u{647} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}",
        ),
    ] {
        assert_eq!(path_of(&[name]), Ok(vec![want.to_owned()]));
    }
}

#[test]
fn t13_names_that_become_equal_get_paths_of_their_own() {
    assert_eq!(paths_of(&["a\u{202e}.txt", "a\u{200b}.txt"]).unwrap(), ["a_.txt", "a_.1.txt"]);
}

#[test]
fn t14_windows_names_are_ordinary() {
    for name in ["CON", "NUL.txt", "a.", "a ", "a:b", "a\\..\\b", "C:", "\\\\host\\x", "..."] {
        assert_eq!(path_of(&[name.as_bytes()]), Ok(vec![name.to_owned()]));
    }
}

#[test]
fn t15_long_names_keep_their_extension_and_stay_apart() {
    for (len, kept) in [(254, true), (255, true), (256, false), (10_000, false)] {
        let name = "n".repeat(len - 4) + ".mkv";
        let got = path_of(&[name.as_bytes()]).unwrap().remove(0);
        assert_eq!((got == name, got.len()), (kept, len.min(255)), "{len}");
        assert!(got.ends_with(".mkv"));
    }
    let (a, b) = ("x".repeat(300) + "a", "x".repeat(300) + "b");
    assert_ne!(path_of(&[a.as_bytes()]), path_of(&[b.as_bytes()]));
    // Never cut inside a character, whatever its length.
    for unit in ["\u{e9}", "\u{20ac}", "\u{1f600}"] {
        for pad in 0..4 {
            let name = "p".repeat(pad) + &unit.repeat(200);
            let got = path_of(&[name.as_bytes()]).unwrap().remove(0);
            assert!((240..=255).contains(&got.len()) || unit.len() * 200 + pad <= 255, "{}", got.len());
        }
    }
}

#[test]
fn t15_too_deep_or_long_paths_are_refused() {
    for (elements, good) in [(30, true), (31, true), (32, false), (10_000, false)] {
        // The name of the torrent is one element more.
        let path = vec![&b"a"[..]; elements];
        assert_eq!(path_of(&path).is_ok(), good, "{elements}");
        assert!(good || matches!(path_of(&path), Err(MetainfoError::LongPath { .. })));
    }
    for bytes in [PATH_BYTES_MAX - 1, PATH_BYTES_MAX, PATH_BYTES_MAX + 1] {
        let long = [b'a'; 255];
        let full = (bytes - "dir".len()) / 256;
        let rest = vec![b'a'; bytes - "dir".len() - full * 256 - 1];
        let mut path = vec![&long[..]; full];
        path.push(&rest);
        assert_eq!(path_of(&path).is_ok(), bytes <= PATH_BYTES_MAX, "{bytes}");
    }
}

#[test]
fn t16_clashing_paths_are_resolved_in_a_fixed_way() {
    for (paths, want) in [
        (&["a.txt", "a.txt", "a.txt"][..], &["a.txt", "a.1.txt", "a.2.txt"][..]),
        (&["a", "a/b"], &["a.1", "a/b"]),
        (&["a/b", "a"], &["a/b", "a.1"]),
        (&["a", "a/b", "a"], &["a.1", "a/b", "a.2"]),
        (&["a", "a/b/c", "a/b"], &["a.1", "a/b/c", "a/b.2"]),
        (&["a.txt", "a.txt", "a.1.txt/x"], &["a.txt", "a.2.txt", "a.1.txt/x"]),
        (&["a.txt", "a.1.txt", "a.txt"], &["a.txt", "a.1.txt", "a.2.txt"]),
        (&["a", "a-b", "a/c"], &["a.1", "a-b", "a/c"]),
        (&[".x", ".x"], &[".x", ".x.1"]),
        (&["a", "ab", "a b"], &["a", "ab", "a b"]),
    ] {
        assert_eq!(paths_of(paths).unwrap(), want);
        assert_eq!(paths_of(paths), paths_of(paths));
    }
    let long = "n".repeat(255);
    assert_eq!(paths_of(&[&long, &long]).unwrap()[1], "n".repeat(253) + ".1");
}

#[test]
fn t16_the_limit_on_clashes_is_exact_and_reached_fast() {
    for clashes in [PATH_CLASHES_MAX - 1, PATH_CLASHES_MAX, PATH_CLASHES_MAX + 1, 100_000] {
        let result = paths_of(&vec!["same"; clashes + 1]);
        let want = (clashes > PATH_CLASHES_MAX).then_some(MetainfoError::Clashes);
        assert_eq!(result.err(), want, "{clashes}");
    }
}

#[test]
fn t16_taken_numbers_do_not_make_clashes_slow() {
    // Every low number is taken in advance, and PATH_CLASHES_MAX files want one.
    let mut paths: Vec<String> = (1..100_000).map(|n| format!("same.{n}")).collect();
    paths.extend((0..=PATH_CLASHES_MAX).map(|_| "same".to_owned()));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(paths_of(&paths).unwrap().last().unwrap(), &format!("same.{}", 99_999 + PATH_CLASHES_MAX));
}

#[test]
fn t16_files_that_differ_only_in_case_or_normal_form_are_kept_and_can_be_found() {
    for (paths, twins) in [
        (&["xt_TCPMSS.h", "xt_tcpmss.h"][..], Some((0, 1))),
        (&["x", "\u{e9}t\u{e9}", "e\u{301}te\u{301}"], Some((1, 2))),
        (&["\u{c9}", "e\u{301}"], Some((0, 1))),
        (&["A", "a/b"], Some((1, 0))),
        (&["A/x", "a/y"], None),
        (&["a", "b", "ab"], None),
    ] {
        assert_eq!(paths_of(paths).unwrap(), paths);
        let names: Vec<Vec<&[u8]>> =
            paths.iter().map(|p| p.split('/').map(str::as_bytes).collect()).collect();
        let files = names.iter().map(|names| entry(1, names, "")).collect();
        let metainfo = Metainfo::parse(&with_files(files, 1)).unwrap();
        assert_eq!(case_twins(&metainfo.files), twins, "{paths:?}");
    }
}

fn builder() -> MetainfoBuilder {
    let file = |path: &[&str], length| FileEntry {
        path: path.iter().map(|&name| name.to_owned()).collect(),
        length,
        pad: false,
    };
    MetainfoBuilder {
        name: "dir".to_owned(),
        files: vec![
            file(&["dir", "a"], 5),
            FileEntry::padding("dir", 16379),
            file(&["dir", "sub", "b"], 16384),
            file(&["dir", "empty"], 0),
        ],
        piece_bytes: 16384,
        piece_hashes: vec![*HASH, *b"98765432109876543210"],
        trackers: vec![vec!["http://a/".to_owned(), "udp://b:1".to_owned()], vec!["http://c/".to_owned()]],
        web_seeds: vec!["http://mirror/".to_owned()],
        private: true,
        comment: Some("c".to_owned()),
        created_by: Some("troc".to_owned()),
        creation_date: Some(1),
    }
}

#[test]
fn what_is_built_is_what_is_parsed() {
    let single_file = FileEntry { path: vec!["one".to_owned()], length: 16385, pad: false };
    let single = MetainfoBuilder { name: "one".to_owned(), files: vec![single_file], ..builder() };
    let plain = MetainfoBuilder {
        trackers: vec![vec!["http://a/".to_owned()]],
        web_seeds: vec![],
        private: false,
        comment: None,
        created_by: None,
        creation_date: None,
        ..builder()
    };
    for builder in [builder(), single, plain] {
        let (bytes, built) = builder.build().unwrap();
        assert_eq!(Metainfo::parse(&bytes).as_ref(), Ok(&built));
        let total_bytes = builder.files.iter().map(|file| file.length).sum();
        assert_eq!(built.geometry, Geometry { total_bytes, piece_bytes: builder.piece_bytes });
        let Metainfo { name, files, piece_hashes, trackers, web_seeds, private, .. } = built.clone();
        let again = MetainfoBuilder {
            name,
            files,
            piece_bytes: built.geometry.piece_bytes,
            piece_hashes: piece_hashes.to_vec(),
            trackers,
            web_seeds,
            private,
            comment: built.comment,
            created_by: built.created_by,
            creation_date: built.creation_date,
        };
        assert_eq!(again, builder);
    }
}

#[test]
fn a_name_that_a_parser_would_change_cannot_be_built() {
    let long = "n".repeat(256);
    for name in ["a\nb", "a\u{202e}b", &long] {
        let mut in_directory = builder();
        in_directory.files[0].path[1] = name.to_owned();
        let mut top = builder();
        top.name = name.to_owned();
        top.files.iter_mut().for_each(|file| file.path[0] = name.to_owned());
        for builder in [in_directory, top] {
            assert!(matches!(builder.build(), Err(MetainfoError::Unportable { .. })), "{name:?}");
        }
    }
    let mut hostile = builder();
    hostile.files[0].path[1] = "..".to_owned();
    assert!(matches!(hostile.build(), Err(MetainfoError::UnsafePath { .. })));
    assert!(matches!(
        MetainfoBuilder { piece_hashes: vec![], ..builder() }.build(),
        Err(MetainfoError::PieceCount { found: 0, wanted: 2 })
    ));
}

#[test]
fn suggested_piece_lengths_grow_with_the_torrent() {
    let (kib, gib) = (1u64 << 10, 1u64 << 30);
    for (total, want_kib) in [
        (1, 256),
        (512 << 20, 256),
        ((512 << 20) + 1, 512),
        (2 * gib, 1024),
        (32 * gib, 16 << 10),
        (1024 * gib, 16 << 10),
        (32 * 1024 * gib, 16 << 10),
        (32 * 1024 * gib + 1, 32 << 10),
        (u64::MAX, 64 << 10),
    ] {
        let bytes = suggest_piece_bytes(total);
        assert_eq!(u64::from(bytes), want_kib * kib, "{total}");
        assert!(bytes.is_power_of_two() && bytes <= PIECE_BYTES_MAX);
    }
}

proptest! {
    #[test]
    fn t11_any_names_land_below_the_directory_or_are_refused(
        paths in prop::collection::vec(prop::collection::vec(prop_oneof![
            4 => prop::collection::vec(prop::sample::select(&b"./\\\0ab\xc3\xa9"[..]), 0..4),
            2 => prop::sample::select(&["a", "b", "a.1", "A"][..]).prop_map(|name| name.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..300),
            1 => "\\PC{0,12}".prop_map(String::into_bytes),
        ], 1..5), 1..8),
    ) {
        let files = paths.iter().map(|path| {
            entry(1, &path.iter().map(Vec::as_slice).collect::<Vec<_>>(), "")
        });
        if let Ok(metainfo) = Metainfo::parse(&with_files(files.collect(), 1)) {
            check_safe(&metainfo)?;
        }
    }
}
