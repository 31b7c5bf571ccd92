//! Torrents that other programs made, with the data they describe, where they lie beside the
//! checkout. A fresh clone may lack them; then there is nothing to check.

use std::fs;
use std::path::PathBuf;

use super::*;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance").join(name)
}

/// Every .torrent file in `folder`, by file name.
fn torrents(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(name)).into_iter().flatten().flatten();
    let paths =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "torrent"));
    let named =
        |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    let mut torrents: Vec<_> = paths.map(named).collect();
    torrents.sort();
    torrents
}

/// How many pieces of the payload beside the torrent have the right hash; `None` without payload.
fn good_pieces(metainfo: &Metainfo) -> Option<usize> {
    let root = folder("transfer");
    let mut payload = Vec::new();
    for file in &metainfo.files {
        payload.extend(fs::read(file.path.iter().fold(root.clone(), |path, name| path.join(name))).ok()?);
    }
    let pieces = payload.chunks(metainfo.geometry.piece_bytes as usize);
    let pairs = pieces.zip(metainfo.piece_hashes.iter());
    Some(pairs.filter(|(piece, hash)| Sha1::digest(piece)[..] == hash[..]).count())
}

#[test]
fn every_v1_torrent_parses_and_fits_its_payload() {
    let mut whole = Vec::new();
    for (name, bytes) in torrents("transfer") {
        let result = Metainfo::parse(&bytes);
        if name == "corrupt.torrent" {
            assert_eq!(result, Err(MetainfoError::Missing { key: "info.name" }));
            continue;
        }
        let metainfo = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        if good_pieces(&metainfo) == Some(metainfo.piece_hashes.len()) {
            whole.push(name);
        }
    }
    if folder("transfer").exists() {
        for name in ["alice.torrent", "folder.torrent", "leaves.torrent", "numbers.torrent"] {
            assert!(whole.iter().any(|have| have == name), "{name} does not fit its payload");
        }
    }
}

/// `value` as it would be written anew.
fn again(value: Value<'_>) -> Item<'_> {
    if let Some(entries) = value.as_dict() {
        return Item::Dict(entries.map(|(key, value)| (key, again(value))).collect());
    }
    if let Some(list) = value.as_list() {
        return Item::List(list.map(again).collect());
    }
    value.as_int().map(Item::Int).or_else(|| value.as_bytes().map(Item::Bytes)).unwrap()
}

#[test]
fn v2_and_hybrid_torrents_of_others_have_their_hashes_and_come_out_byte_for_byte() {
    for (name, bytes) in torrents("bep52") {
        let metainfo = Metainfo::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let v2 = metainfo.v2.as_ref().unwrap();
        let hashes = match metainfo.has_v1() {
            true => (Some(metainfo.info_hash.to_hex()), v2.info_hash_hex()),
            false => (None, v2.info_hash_hex()),
        };
        let (v1_hash, v2_hash) = match name.contains("hybrid") {
            true => (
                Some("631a31dd0a46257d5078c0dee4e66e26f73e42ac".to_owned()),
                "d8dd32ac93357c368556af3ac1d95c9d76bd0dff6fa9833ecdac3d53134efabb",
            ),
            false => (None, "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e"),
        };
        assert_eq!(hashes, (v1_hash, v2_hash.to_owned()), "{name}");
        assert!(metainfo.files.iter().any(|file| file.pad), "{name}");
        let root = bencode::parse(&bytes, METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX).unwrap();
        assert_eq!(again(root).to_bytes(), bytes, "{name}");
        let long = v2.files.iter().filter(|file| file.pieces.len() > 1);
        let layers = long.map(|file| (&file.pieces_root[..], Item::Bytes(file.layer.as_flattened())));
        let layers = Item::Dict(layers.collect());
        assert_eq!(layers.to_bytes(), root.get(b"piece layers").unwrap().raw(), "{name}");
    }
}
