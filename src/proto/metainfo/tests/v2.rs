//! Torrents of version 2 and of both (BEP 52; threats T21, T22).

use super::*;
use crate::base::limits::PATH_ELEMENTS_MAX;
use crate::hash::merkle::{self, Hash};
use crate::hash::{sha1, sha256};
use crate::proto::metainfo::build::aligned;

pub(super) const PIECE: u32 = 32 << 10;

/// Bytes of a file without a pattern that repeats with the block.
fn content(name: &str, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 16_384 + name.len()) as u8).collect()
}

/// Files below `dir`, sorted, as `troc create` would put them together.
pub(super) fn made(names: &[(&str, usize)], hybrid: bool) -> V2Builder {
    let path = |name: &str| std::iter::once("dir").chain(name.split('/')).map(str::to_owned).collect();
    let file =
        |(name, length): &(&str, usize)| FileEntry { path: path(name), length: *length as u64, pad: false };
    let files: Vec<FileEntry> = names.iter().map(file).collect();
    let hashes = names.iter().map(|(name, length)| {
        let bytes = content(name, *length);
        let root = |piece: &[u8]| {
            let mut leaves = Vec::new();
            merkle::push_leaves(piece, &mut leaves);
            FileHashes::piece_root(*length as u64, PIECE, &mut leaves).unwrap()
        };
        FileHashes::new(*length as u64, PIECE, bytes.chunks(PIECE as usize).map(root).collect())
    });
    let mut payload = Vec::new();
    let mut contents = names.iter().map(|(name, length)| content(name, *length));
    for file in aligned("dir", &files, PIECE) {
        payload.extend(if file.pad { vec![0; file.length as usize] } else { contents.next().unwrap() });
    }
    let pieces = payload.chunks(PIECE as usize).map(sha1::digest);
    let common = MetainfoBuilder {
        name: "dir".to_owned(),
        piece_bytes: PIECE,
        piece_hashes: if hybrid { pieces.collect() } else { Vec::new() },
        trackers: vec![vec!["http://tracker.example/".to_owned()]],
        web_seeds: Vec::new(),
        private: true,
        comment: None,
        created_by: None,
        creation_date: None,
        files: files.clone(),
    };
    V2Builder { common, hashes: hashes.collect() }
}

pub(super) const FILES: &[(&str, usize)] = &[
    ("a", 2 * PIECE as usize),
    ("b", PIECE as usize + 1),
    ("empty", 0),
    ("sub/c", 5),
    ("sub/d", 3 * 16384),
    ("z", PIECE as usize),
    ("zz", 0),
];

#[test]
fn what_is_made_is_read_again_and_every_piece_verifies() {
    for hybrid in [false, true] {
        let (_, metainfo) = made(FILES, hybrid).build().unwrap();
        let v2 = metainfo.v2.as_ref().unwrap();
        let info = &metainfo.info[..];
        assert_eq!(v2.info_hash, sha256::digest(info));
        let short = v2.short_info_hash();
        assert_eq!(metainfo.info_hash.0, if hybrid { sha1::digest(info) } else { short.0 });
        assert_eq!((metainfo.has_v1(), metainfo.private), (hybrid, true));
        assert_eq!(metainfo.trackers, [["http://tracker.example/"]]);
        let listed = metainfo.files.iter().filter(|file| !file.pad);
        let listed: Vec<(String, u64)> = listed.map(|file| (file.path[1..].join("/"), file.length)).collect();
        let wanted: Vec<(String, u64)> =
            FILES.iter().map(|(name, length)| ((*name).to_owned(), *length as u64)).collect();
        assert_eq!(listed, wanted);
        assert_eq!(metainfo.content_bytes(), wanted.iter().map(|(_, length)| length).sum::<u64>());
        check_pieces(&metainfo);
        assert_eq!(
            v2.files.iter().map(|file| file.pieces.clone()).collect::<Vec<_>>(),
            [0..2, 2..4, 4..5, 5..7, 7..8]
        );
        let mut trees = (0..metainfo.geometry.piece_count()).map(|piece| v2.piece(piece).unwrap());
        for (name, length) in FILES {
            for bytes in content(name, *length).chunks(PIECE as usize) {
                let tree = trees.next().unwrap();
                assert_eq!(metainfo.files[tree.file as usize].path[1..].join("/"), *name);
                let mut leaves = Vec::new();
                merkle::push_leaves(bytes, &mut leaves);
                assert!(tree.verify(&mut leaves.clone()), "{name}");
                leaves[0][0] ^= 1;
                assert!(!tree.verify(&mut leaves) && !tree.verify(&mut []), "{name}");
            }
        }
        assert!(trees.next().is_none());
        assert_eq!(v2.piece(metainfo.geometry.piece_count()), None);
    }
}

/// What every parsed torrent of version 2 promises.
fn check_pieces(metainfo: &Metainfo) {
    let Some(v2) = &metainfo.v2 else { return };
    let mut next = 0;
    let mut start = 0;
    let starts: Vec<u64> = metainfo
        .files
        .iter()
        .map(|file| {
            start += file.length;
            start - file.length
        })
        .collect();
    for file in &v2.files {
        assert_eq!(file.pieces.start, next);
        assert_eq!(starts[file.index as usize], metainfo.geometry.piece_start(next));
        assert_eq!(metainfo.files[file.index as usize].length, file.length);
        next = file.pieces.end;
        let lengths = file.pieces.clone().map(|piece| u64::from(v2.piece(piece).unwrap().length));
        assert_eq!(lengths.sum::<u64>(), file.length);
        assert_eq!(file.layer.len(), file.pieces.len());
    }
    assert_eq!(metainfo.geometry.piece_count(), next);
}

#[test]
fn the_magnet_link_names_all_that_the_torrent_is() {
    use crate::proto::magnet::Magnet;
    let mut lone = made(&[("a", 5)], true);
    lone.common.name = "a & b+c".to_owned();
    lone.common.files[0].path = vec![lone.common.name.clone()];
    for builder in [made(FILES, false), made(FILES, true), lone] {
        let (_, metainfo) = builder.build().unwrap();
        let magnet = Magnet::parse(&metainfo.magnet_link()).unwrap();
        assert_eq!(magnet.info_hash, metainfo.has_v1().then_some(metainfo.info_hash));
        assert_eq!(magnet.v2_hash, Some(metainfo.v2.unwrap().info_hash));
        assert_eq!((magnet.name, magnet.trackers), (Some(metainfo.name), metainfo.trackers.concat()));
    }
    let v1 = Metainfo::parse(&with_info([])).unwrap();
    assert_eq!(v1.magnet_link(), format!("magnet:?xt=urn:btih:{}&dn=a.txt", v1.info_hash));
}

/// A leaf of the file tree.
fn leaf<'a>(length: i64, root: Option<&'a [u8]>) -> Item<'a> {
    let root = root.map(|root| ("pieces root", Item::Bytes(root)));
    Item::dict([("", Item::dict([("length", Item::Int(length))].into_iter().chain(root)))])
}

const ROOT: &[u8] = &[7; 32];

/// A v2 torrent with this tree and these piece layers.
fn with_tree(tree: Item<'_>, layers: Item<'_>) -> Vec<u8> {
    let changes =
        [("length", None), ("pieces", None), ("meta version", Some(Item::Int(2))), ("file tree", Some(tree))];
    with_root(changes, [("piece layers", layers)])
}

fn of_tree(tree: Item<'_>) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&with_tree(tree, Item::dict([])))
}

fn is_tree_error(result: &Result<Metainfo, MetainfoError>) -> bool {
    matches!(result, Err(MetainfoError::FileTree { .. }))
}

#[test]
fn t21_an_unknown_version_is_named_before_anything_else() {
    for value in [0, 3, -1, i64::MAX] {
        let bytes = with_info([("meta version", Some(Item::Int(value))), ("name", None), ("pieces", None)]);
        assert_eq!(error(&bytes), MetainfoError::Version { value });
    }
    let text = with_info([("meta version", Some("2".into()))]);
    assert_eq!(error(&text), MetainfoError::Malformed { key: "info.meta version" });
    let without = with_info([("pieces", None), ("file tree", Some(leaf(1, Some(ROOT))))]);
    assert_eq!(error(&without), MetainfoError::Missing { key: "info.meta version" });
    // Version 1 is not assigned, and a tree without a version is nothing to v1.
    assert_eq!(Metainfo::parse(&with_info([("meta version", Some(Item::Int(1)))])).unwrap().v2, None);
    assert_eq!(Metainfo::parse(&with_info([("file tree", Some("".into()))])).unwrap().v2, None);
    let no_tree = with_info([("meta version", Some(Item::Int(2))), ("pieces", None)]);
    assert_eq!(error(&no_tree), MetainfoError::Missing { key: "info.file tree" });
}

#[test]
fn t21_the_piece_length_of_v2_is_a_power_of_two() {
    let tree = || Item::dict([("a", leaf(5, Some(ROOT)))]);
    for (value, good) in
        [(16 << 10, true), (48 << 10, false), (32 << 10, true), (64 << 20, true), (96 << 10, false)]
    {
        let bytes = with_info([
            ("length", None),
            ("pieces", None),
            ("meta version", Some(Item::Int(2))),
            ("file tree", Some(tree())),
            ("piece length", Some(Item::Int(value))),
        ]);
        let want = (!good).then_some(MetainfoError::PieceLengthV2 { value });
        assert_eq!(Metainfo::parse(&bytes).err(), want);
    }
}

#[test]
fn t21_roots_are_there_for_content_and_32_bytes_long() {
    for (length, root, good) in [
        (5, Some(ROOT), true),
        (5, None, false),
        (5, Some(&[7; 31][..]), false),
        (5, Some(&[7; 33][..]), false),
        (5, Some(b""), false),
        (5, Some(&[0; 32][..]), false),
        (0, None, true),
        (0, Some(ROOT), false),
        (-1, Some(ROOT), false),
        (i64::MIN, None, false),
    ] {
        let result = of_tree(Item::dict([("a", leaf(length, root)), ("b", leaf(1, Some(ROOT)))]));
        assert_eq!((result.is_ok(), is_tree_error(&result)), (good, !good), "{length} {root:?}");
    }
    assert_eq!(of_tree(Item::dict([("a", leaf(0, None))])), Err(MetainfoError::Empty));
    assert_eq!(of_tree(Item::dict([])), Err(MetainfoError::Empty));
    let text = Item::dict([(
        "a",
        Item::dict([("", Item::dict([("length", Item::Int(1)), ("pieces root", Item::Int(1))]))]),
    )]);
    assert!(is_tree_error(&of_tree(text)));
}

#[test]
fn t21_a_malformed_tree_is_refused_with_the_place() {
    let properties = || Item::dict([("length", Item::Int(1)), ("pieces root", Item::Bytes(ROOT))]);
    for (tree, place) in [
        (Item::List(vec![]), ""),
        (Item::Int(1), ""),
        (Item::dict([("", properties())]), "a.txt"),
        (Item::dict([("a", Item::Int(1))]), "a.txt/a"),
        (Item::dict([("a", Item::dict([("", properties()), ("b", leaf(1, Some(ROOT)))]))]), "a"),
        (Item::dict([("a", Item::dict([("", Item::Int(1))]))]), "a"),
        (Item::dict([("a", Item::dict([("b", Item::dict([("", Item::dict([]))]))]))]), "a.txt/a/b"),
    ] {
        let Err(MetainfoError::FileTree { path }) = of_tree(tree.clone()) else { panic!("{tree:?}") };
        assert!(path.ends_with(place) || place == "a.txt" || path == place, "{path} {place}");
    }
    // Keys that are not in order: the encoder sorts, so by hand.
    let leaf = |name: &str| format!("1:{name}d0:d6:lengthi1e11:pieces root32:{}ee", "7".repeat(32));
    for (names, good) in [(["a", "b"], true), (["b", "a"], false)] {
        let tree: String = names.iter().map(|name| leaf(name)).collect();
        let bytes = format!(
            "d4:infod9:file treed{tree}e12:meta versioni2e4:name3:dir\
             12:piece lengthi16384ee12:piece layersdee"
        );
        let result = Metainfo::parse(bytes.as_bytes());
        assert_eq!((result.is_ok(), is_tree_error(&result)), (good, !good), "{result:?}");
    }
}

fn with_attributes<'a>(length: Option<i64>, attributes: &'a str) -> Item<'a> {
    let length = length.map(|length| ("length", Item::Int(length)));
    let root = length
        .iter()
        .any(|(_, length)| *length != Item::Int(0))
        .then_some(("pieces root", Item::Bytes(ROOT)));
    let entries = [("attr", Item::from(attributes))].into_iter().chain(length).chain(root);
    Item::dict([("", Item::dict(entries))])
}

#[test]
fn t17_t21_links_are_left_out_and_padding_has_no_place_in_a_tree() {
    for (entry, links) in [
        (with_attributes(Some(1), "x"), Some(0)),
        (with_attributes(Some(0), "l"), Some(1)),
        (with_attributes(None, "l"), Some(1)),
        (with_attributes(Some(1), "l"), None),
        (with_attributes(Some(1), "p"), None),
        (with_attributes(None, "x"), None),
    ] {
        let result = of_tree(Item::dict([("a", entry.clone()), ("b", leaf(1, Some(ROOT)))]));
        assert_eq!(result.as_ref().ok().map(|metainfo| metainfo.symlinks_skipped), links, "{entry:?}");
        assert!(result.is_ok() || is_tree_error(&result));
    }
}

#[test]
fn t11_t21_names_of_a_tree_go_through_the_checks_of_all_names() {
    for name in ["", ".", "..", "/", "a/b", "../a", "a\0"] {
        for tree in [
            Item::dict([(name, leaf(1, Some(ROOT)))]),
            Item::dict([(name, Item::dict([("a", leaf(1, Some(ROOT)))]))]),
            Item::dict([("a", Item::dict([(name, leaf(1, Some(ROOT))), ("zz", leaf(1, Some(ROOT)))]))]),
        ] {
            assert!(of_tree(tree).is_err(), "{name:?}");
        }
    }
    let key: &[u8] = b"a\xff\x1b";
    let metainfo =
        of_tree(Item::Dict([(key, leaf(1, Some(ROOT))), (b"b", leaf(1, Some(ROOT)))].into())).unwrap();
    assert_eq!(metainfo.files[0].path, ["a.txt", "a__"]);
    // Names that become equal get other ones, as in v1.
    let both = [(&b"a\x1b"[..], leaf(1, Some(ROOT))), (b"a\x1c", leaf(1, Some(ROOT)))];
    let metainfo = of_tree(Item::Dict(both.into())).unwrap();
    let paths: Vec<&str> = metainfo.files.iter().filter(|f| !f.pad).map(|f| f.path[1].as_str()).collect();
    assert_eq!(paths, ["a_", "a_.1"]);
}

#[test]
fn a_lone_file_is_named_by_the_tree() {
    let metainfo = of_tree(Item::dict([("other.bin", leaf(5, Some(ROOT)))])).unwrap();
    assert_eq!(
        (metainfo.name.as_str(), &metainfo.files[0].path[..]),
        ("other.bin", &["other.bin".to_owned()][..])
    );
    assert_eq!(metainfo.geometry, Geometry::new(5, 16384));
}

/// A tree of one file below `depth` directories.
fn deep(depth: usize) -> Vec<u8> {
    let file = Item::dict([("f", leaf(1, Some(ROOT)))]).to_bytes();
    [b"d1:d".repeat(depth), file, b"e".repeat(depth)].concat()
}

#[test]
fn t1_t21_trees_are_as_deep_as_paths_may_be() {
    for below in [PATH_ELEMENTS_MAX - 2, PATH_ELEMENTS_MAX - 1, PATH_ELEMENTS_MAX, 200, 100_000] {
        let tree = deep(below - 1);
        let info =
            [b"d4:infod9:file tree", &tree[..], b"12:meta versioni2e4:name1:n12:piece lengthi16384eee"];
        let result = Metainfo::parse(&info.concat());
        assert_eq!(result.is_ok(), below < PATH_ELEMENTS_MAX, "{below}");
        match below {
            PATH_ELEMENTS_MAX => assert!(matches!(result, Err(MetainfoError::LongPath { .. })), "{result:?}"),
            200.. => assert!(matches!(result, Err(MetainfoError::Bencode(e)) if e.flaw == Flaw::Depth)),
            _ => {}
        }
    }
}

#[test]
fn t10_t21_the_limit_on_files_of_a_tree_is_exact() {
    for count in [FILES_MAX - 1, FILES_MAX, FILES_MAX + 1] {
        let names: Vec<String> = (0..count).map(|n| format!("{n:06}")).collect();
        let leaf = |name: &str| if name == "000000" { leaf(1, Some(ROOT)) } else { leaf(0, None) };
        let tree = Item::Dict(names.iter().map(|name| (name.as_bytes(), leaf(name))).collect());
        let result = of_tree(tree);
        match count > FILES_MAX {
            true => assert_eq!(result, Err(MetainfoError::TooManyFiles)),
            false => assert_eq!(result.unwrap().files.len(), count),
        }
    }
}

#[test]
fn t9_t21_lengths_beyond_the_limits_are_refused() {
    let max = TOTAL_BYTES_MAX as i64;
    for (length, error) in [(max - 1, "pieces"), (max, "pieces"), (max + 1, "larger"), (i64::MAX, "larger")] {
        let result = of_tree(Item::dict([("a", leaf(length, Some(ROOT)))]));
        assert!(
            result.as_ref().is_err_and(|found| found.to_string().contains(error)),
            "{length}: {result:?}"
        );
    }
    for pieces in [PIECES_MAX - 1, PIECES_MAX, PIECES_MAX + 1] {
        let result = of_tree(Item::dict([("a", leaf(i64::from(pieces) * 16384, Some(ROOT)))]));
        match pieces > PIECES_MAX {
            true => assert_eq!(result, Err(MetainfoError::TooManyPieces { found: pieces.into() })),
            false => assert_eq!(result, Err(MetainfoError::MissingLayer { path: "a".to_owned() })),
        }
    }
}

/// What befalls a layer.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A torrent of the file `a` with `pieces` pieces of one block, whose layer `change` has been at.
fn with_layer(pieces: u8, change: impl Fn(&mut Vec<u8>)) -> Result<Metainfo, MetainfoError> {
    let nodes: Vec<Hash> = (0..pieces).map(|n| [n + 1; 32]).collect();
    let root = merkle::root(&mut nodes.clone(), 0, u32::from(pieces).next_power_of_two().ilog2()).unwrap();
    let mut layer = nodes.as_flattened().to_vec();
    change(&mut layer);
    let tree = Item::dict([("a", leaf(i64::from(pieces) * 16384, Some(&root)))]);
    Metainfo::parse(&with_tree(tree, Item::Dict([(&root[..], Item::Bytes(&layer))].into())))
}

#[test]
fn t21_piece_layers_are_whole_and_lead_to_the_root() {
    for pieces in 2..=9 {
        assert!(with_layer(pieces, |_| {}).is_ok());
        let changes: [Change<'_>; 7] = [
            &|layer| layer.truncate(layer.len() - 32),
            &|layer| layer.truncate(layer.len() - 1),
            &|layer| layer.push(0),
            &|layer| layer.extend([0; 32]),
            &|layer| layer.clear(),
            &|layer| layer[0] ^= 1,
            &|layer| layer.reverse(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let result = with_layer(pieces, change);
            assert_eq!(result, Err(MetainfoError::WrongLayer { path: "a".to_owned() }), "{pieces} {number}");
        }
    }
    // One piece is its own layer: what is given for it is one too many.
    assert_eq!(with_layer(1, |_| {}), Err(MetainfoError::Malformed { key: "piece layers" }));
}

#[test]
fn t21_layers_of_no_file_and_none_for_a_long_file_are_refused() {
    let tree = || Item::dict([("a", leaf(5, Some(ROOT)))]);
    const MALFORMED: MetainfoError = MetainfoError::Malformed { key: "piece layers" };
    for layers in [
        Item::Dict([(ROOT, Item::Bytes(ROOT))].into()),
        Item::Dict([(&b"x"[..], Item::Bytes(b""))].into()),
        Item::Dict([(ROOT, Item::Int(1))].into()),
        Item::List(vec![]),
    ] {
        assert_eq!(Metainfo::parse(&with_tree(tree(), layers)), Err(MALFORMED));
    }
    let long = with_tree(Item::dict([("a", leaf(16385, Some(ROOT)))]), Item::dict([]));
    assert_eq!(error(&long), MetainfoError::MissingLayer { path: "a".to_owned() });
}

/// A hybrid of the v1 list and the tree, with as many hashes as `pieces`.
fn hybrid(list: Vec<Item<'_>>, tree: Item<'_>, pieces: usize) -> Result<Metainfo, MetainfoError> {
    let hashes = HASH.repeat(pieces);
    Metainfo::parse(&with_info([
        ("length", None),
        ("name", Some("dir".into())),
        ("files", Some(Item::List(list))),
        ("pieces", Some(Item::Bytes(&hashes))),
        ("meta version", Some(Item::Int(2))),
        ("file tree", Some(tree)),
    ]))
}

#[test]
fn t22_a_hybrid_whose_parts_differ_is_refused() {
    let tree = || Item::dict([("a", leaf(5, Some(ROOT))), ("b", leaf(7, Some(ROOT))), ("e", leaf(0, None))]);
    let a = || entry(5, &[b"a"], "");
    let pad = |length| entry(length, &[b".pad", b"0"], "p");
    let b = || entry(7, &[b"b"], "");
    let e = || entry(0, &[b"e"], "");
    for (list, pieces, good) in [
        (vec![a(), pad(16379), b(), e()], 2, true),
        // Padding behind the last file is as good; wherever empty files stand among padding.
        (vec![a(), pad(16379), b(), pad(16377), e()], 2, true),
        (vec![a(), pad(16379), b(), e(), pad(16377)], 2, true),
        (vec![a(), pad(16000), pad(379), b(), e()], 2, true),
        (vec![a(), pad(16379), b(), pad(16378), e()], 3, false),
        (vec![a(), pad(16379), b(), pad(16377), pad(1), e()], 3, false),
        (vec![a(), b(), e()], 1, false),
        (vec![a(), pad(16378), b(), e()], 2, false),
        (vec![a(), pad(16380), b(), e()], 2, false),
        (vec![a(), pad(16379), pad(16383), pad(1), b(), e()], 3, false),
        (vec![pad(16383), pad(1), a(), pad(16379), b(), e()], 3, false),
        (vec![b(), pad(16377), a(), e()], 2, false),
        (vec![a(), pad(16379), b()], 2, false),
        (vec![a(), pad(16379), b(), e(), entry(0, &[b"f"], "")], 2, false),
        (vec![entry(6, &[b"a"], ""), pad(16378), b(), e()], 2, false),
        (vec![entry(5, &[b"A"], ""), pad(16379), b(), e()], 2, false),
        (vec![entry(5, &[b"a", b"a"], ""), pad(16379), b(), e()], 2, false),
        (vec![a(), pad(16379), entry(7, &[b"b"], "p"), e()], 2, false),
    ] {
        let result = hybrid(list.clone(), tree(), pieces);
        let differs = matches!(result, Err(MetainfoError::Mismatch { .. }));
        assert_eq!((result.is_ok(), differs), (good, !good), "{list:?}: {result:?}");
        result.iter().for_each(check_pieces);
    }
}

#[test]
fn t22_a_lone_file_of_a_hybrid_has_one_name_and_one_place() {
    let lone = |name: &'static str| {
        let tree = Item::dict([(name, leaf(5, Some(ROOT)))]);
        Metainfo::parse(&with_info([("meta version", Some(Item::Int(2))), ("file tree", Some(tree))]))
    };
    assert_eq!(lone("a.txt").unwrap().files.len(), 1);
    assert_eq!(lone("b.txt"), Err(MetainfoError::Mismatch { path: "a.txt".to_owned() }));
    let tree = || Item::dict([("a", leaf(5, Some(ROOT)))]);
    let listed = hybrid(vec![entry(5, &[b"a"], "")], tree(), 1).unwrap();
    assert_eq!(listed.files[0].path, ["dir", "a"]);
    assert!(hybrid(vec![entry(5, &[b"b"], "")], tree(), 1).is_err());
}

#[test]
fn t6_t21_truncation_at_every_byte_is_refused() {
    for is_hybrid in [false, true] {
        let (bytes, _) = made(&FILES[..4], is_hybrid).build().unwrap();
        for len in 0..bytes.len() {
            assert!(matches!(error(&bytes[..len]), MetainfoError::Bencode(_)), "{len} bytes");
        }
    }
}

#[test]
fn thousands_of_files_are_read_in_order() {
    let names: Vec<String> = (0..3_000).map(|n| format!("{:02}/{n:04}", n / 100)).collect();
    let files: Vec<(&str, usize)> = names.iter().map(String::as_str).zip((0..7).cycle()).collect();
    for is_hybrid in [false, true] {
        let (_, metainfo) = made(&files, is_hybrid).build().unwrap();
        check_pieces(&metainfo);
        assert_eq!(metainfo.files.iter().filter(|file| !file.pad).count(), 3_000);
    }
}

proptest! {
    #[test]
    fn t21_t22_a_damaged_torrent_of_v2_is_refused_or_still_consistent(
        bytes in (any::<bool>(), 2..=FILES.len()).prop_flat_map(|(is_hybrid, count)| {
            damaged(made(&FILES[..count], is_hybrid).build().unwrap().0)
        }),
    ) {
        if let Ok(metainfo) = Metainfo::parse(&bytes) {
            paths::check_safe(&metainfo)?;
            check_pieces(&metainfo);
            let wanted = if metainfo.has_v1() { metainfo.geometry.piece_count() as usize } else { 0 };
            prop_assert_eq!(metainfo.piece_hashes.len(), wanted);
        }
    }

    #[test]
    fn files_of_any_lengths_come_out_as_they_went_in(
        lengths in prop::collection::vec(0usize..3 * PIECE as usize, 1..5), is_hybrid in any::<bool>(),
    ) {
        let names: Vec<String> = (0..lengths.len()).map(|n| n.to_string()).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(lengths.iter().copied()).collect();
        // One file in a directory is no v2 torrent, and nothing is none.
        prop_assume!((lengths.len() > 1 || is_hybrid) && lengths.iter().any(|&length| length > 0));
        let (_, metainfo) = made(&files, is_hybrid).build().unwrap();
        check_pieces(&metainfo);
        let listed: Vec<usize> =
            metainfo.files.iter().filter(|file| !file.pad).map(|file| file.length as usize).collect();
        prop_assert_eq!(listed, lengths);
    }
}
