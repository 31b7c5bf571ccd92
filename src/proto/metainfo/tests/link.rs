//! What links name of version 2 and of both (BEP 52): info dictionaries, and piece layers that come later.

use super::v2::{FILES, PIECE, made};
use super::*;
use crate::base::limits::METAINFO_BYTES_MAX;
use crate::hash::merkle::Hash;
use crate::proto::magnet::{Magnet, Match, Topics, short};
use crate::proto::metainfo::{Bare, Found};

/// By which of its hashes a link names a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    V1,
    V2,
    Both,
}

fn link(whole: &Metainfo, by: By) -> Metainfo {
    let v1 = (by != By::V2).then(|| format!("xt=urn:btih:{}", whole.info_hash));
    let v2 = whole.v2.as_ref().filter(|_| by != By::V1);
    let v2 = v2.map(|v2| format!("xt=urn:btmh:1220{}", v2.info_hash_hex()));
    let topics: Vec<String> = v1.into_iter().chain(v2).collect();
    let text = format!("magnet:?{}&tr=http%3A%2F%2Flink%2F", topics.join("&"));
    Metainfo::of_link(&Magnet::parse(&text).unwrap()).unwrap()
}

fn bare(link: &Metainfo, info: &[u8]) -> Bare {
    match link.found(info) {
        Ok(Found::Bare(bare)) => *bare,
        other => panic!("{other:?}"),
    }
}

/// The layers of a whole torrent by their roots.
fn layers(whole: &Metainfo) -> BTreeMap<Hash, Vec<Hash>> {
    let files = whole.v2.as_ref().unwrap().files.iter().filter(|file| file.pieces.len() > 1);
    files.map(|file| (file.pieces_root, file.layer.clone())).collect()
}

#[test]
fn a_link_is_known_by_all_of_its_hashes() {
    let (_, whole) = made(FILES, true).build().unwrap();
    let (v1, v2) = (whole.info_hash, whole.v2.as_ref().unwrap().info_hash);
    for (by, names, topics) in [
        (By::V1, vec![v1], Topics { v1: Some(v1), v2: None }),
        (By::V2, vec![short(&v2)], Topics { v1: None, v2: Some(v2) }),
        (By::Both, vec![v1, short(&v2)], Topics { v1: Some(v1), v2: Some(v2) }),
    ] {
        let link = link(&whole, by);
        assert!(link.is_awaited() && link.geometry.piece_count() == 0);
        assert_eq!((link.names().collect::<Vec<_>>(), link.topics()), (names, topics));
        assert_eq!(link.topics().judge(&whole.info), Match::Right);
        assert_eq!(link.topics().judge(&whole.info[1..]), Match::Wrong);
    }
}

#[test]
fn what_lacks_its_layers_says_so_and_is_the_torrent_itself_once_they_came() {
    for (hybrid, by, has_v1) in
        [(false, By::V2, false), (true, By::V2, false), (true, By::V1, true), (true, By::Both, true)]
    {
        let (_, whole) = made(FILES, hybrid).build().unwrap();
        let link = link(&whole, by);
        let bare = bare(&link, &whole.info);
        assert_eq!((bare.v2_name, bare.private), (whole.v2.as_ref().unwrap().short_info_hash(), true));
        let wanted: Vec<(Hash, u32)> = bare.layers.iter().map(|layer| (layer.root, layer.hashes())).collect();
        let known = layers(&whole);
        let lengths: Vec<(Hash, u32)> =
            known.iter().map(|(root, layer)| (*root, layer.len() as u32)).collect();
        assert_eq!(wanted, lengths);
        // By its v1 part alone a hybrid is of use to whoever asked for that.
        assert_eq!(bare.has_v1, has_v1);
        match link.found_with(&bare, None) {
            Ok(v1) => {
                let (trackers, whole) = (link.trackers.clone(), whole.clone());
                assert!(hybrid && v1 == Metainfo { trackers, v2: None, v2_left_out: true, ..whole });
                // What is kept of that still knows what it lacks.
                let kept = Metainfo::parse(&v1.to_torrent()).unwrap();
                assert_eq!(kept.left_out().as_ref(), Some(&Bare { has_v1: true, ..bare.clone() }));
            }
            Err(error) => assert!(!hybrid && matches!(error, MetainfoError::MissingLayer { .. })),
        }
        let found = link.found_with(&bare, Some(&known)).unwrap();
        assert_eq!(found, Metainfo { trackers: link.trackers.clone(), ..whole.clone() });
        assert_eq!(found.left_out(), None);
        // What is kept of it says the same, and is that of this link alone.
        let kept = found.to_torrent();
        assert_eq!(Metainfo::parse(&kept), Ok(found.clone()));
        assert_eq!(link.recalled(&kept), Ok(Some(found)));
        let other =
            Metainfo::of_link(&Magnet::parse(&format!("magnet:?xt=urn:btih:{:040}", 0)).unwrap()).unwrap();
        assert_eq!(other.recalled(&kept), Ok(None));
    }
}

#[test]
fn t21_layers_that_are_not_those_of_the_files_make_no_torrent() {
    let (_, whole) = made(FILES, false).build().unwrap();
    let link = link(&whole, By::V2);
    let bare = bare(&link, &whole.info);
    let known = layers(&whole);
    let (&first, layer) = known.first_key_value().unwrap();
    let with = |layer: Vec<Hash>| {
        let mut layers = known.clone();
        layers.insert(first, layer);
        link.found_with(&bare, Some(&layers))
    };
    assert!(with(layer.clone()).is_ok());
    let mut longer = layer.clone();
    longer.push([0; 32]);
    let mut wrong = layer.clone();
    wrong[0][31] ^= 1;
    for layer in [longer, wrong, layer[1..].to_vec(), Vec::new()] {
        assert!(matches!(with(layer), Err(MetainfoError::WrongLayer { .. })));
    }
    let mut fewer = known.clone();
    fewer.remove(&first);
    assert!(matches!(link.found_with(&bare, Some(&fewer)), Err(MetainfoError::MissingLayer { .. })));
    let mut more = known.clone();
    more.insert([7; 32], layer.clone());
    assert!(link.found_with(&bare, Some(&more)).is_err());
}

#[test]
fn what_has_no_file_longer_than_a_piece_is_whole_at_once() {
    for hybrid in [false, true] {
        let small = made(&[("a", 5), ("b", PIECE as usize)], hybrid).build().unwrap().1;
        let link = link(&small, By::V2);
        let Ok(Found::Whole(found)) = link.found(&small.info) else { panic!("something is missing") };
        assert_eq!(*found, Metainfo { trackers: link.trackers.clone(), ..small });
    }
}

/// Nobody knows it by that hash.
#[test]
fn a_torrent_of_v1_is_not_taken_for_what_a_v2_hash_names() {
    let v1 = Metainfo::parse(&with_info([])).unwrap();
    let v2_hash = crate::hash::sha256::digest(&v1.info);
    let magnet = |info_hash| Magnet { info_hash, v2_hash: Some(v2_hash), ..Magnet::default() };
    let link = Metainfo::of_link(&magnet(None)).unwrap();
    assert_eq!(link.found(&v1.info), Err(MetainfoError::Missing { key: "info.meta version" }));
    let link = Metainfo::of_link(&magnet(Some(v1.info_hash))).unwrap();
    assert!(matches!(link.found(&v1.info), Ok(Found::Whole(_))));
}

/// A .torrent file with all layers has to be one that is read.
#[test]
fn t25_layers_beyond_the_length_of_a_torrent_are_not_asked_for() {
    let of_length = |bytes: usize, hybrid: bool| {
        let (_, whole) = made(FILES, hybrid).build().unwrap();
        let layers: usize = layers(&whole).values().map(|layer| 96 + 32 * layer.len()).sum();
        let (head, tail) = whole.info.split_at(whole.info.len() - 1);
        // A key that sorts behind all others, and its length with eight digits.
        let filler = bytes - layers - whole.info.len() - "1:z".len() - "67000000:".len();
        let info = [head, format!("1:z{filler}:").as_bytes(), &vec![b'z'; filler], tail].concat();
        assert_eq!(info.len() + layers, bytes);
        // Nobody compares them here.
        let (info_hash, v2_hash) = (hybrid.then_some(InfoHash([8; 20])), Some([7; 32]));
        (Metainfo::of_link(&Magnet { info_hash, v2_hash, ..Magnet::default() }).unwrap(), info, whole)
    };
    for (bytes, taken) in
        [(METAINFO_BYTES_MAX - 1, true), (METAINFO_BYTES_MAX, true), (METAINFO_BYTES_MAX + 1, false)]
    {
        let (link, info, whole) = of_length(bytes, false);
        match link.found(&info) {
            Ok(Found::Bare(bare)) => {
                assert!(taken, "{bytes}");
                assert!(link.found_with(&bare, Some(&layers(&whole))).is_ok());
            }
            other => assert_eq!((taken, other), (false, Err(MetainfoError::TooLong { bytes }))),
        }
    }
    // A hybrid goes on by its v1 part.
    let (link, info, _) = of_length(METAINFO_BYTES_MAX + 1, true);
    assert!(matches!(link.found(&info), Ok(Found::Whole(found)) if found.v2.is_none()));
}
