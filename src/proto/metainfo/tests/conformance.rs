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
    let good = pieces.zip(&metainfo.piece_hashes).filter(|(piece, hash)| Sha1::digest(piece)[..] == hash[..]);
    Some(good.count())
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

#[test]
fn a_hybrid_parses_as_v1_and_a_v2_torrent_is_named_so() {
    for (name, bytes) in torrents("bep52") {
        let result = Metainfo::parse(&bytes);
        if name.contains("hybrid") {
            assert!(result.unwrap().files.iter().any(|file| file.pad), "{name}");
        } else {
            assert_eq!(result, Err(MetainfoError::OnlyV2), "{name}");
        }
    }
}
