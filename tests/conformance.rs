//! Torrents of other makers with their payload, where the shared collection lies beside the project:
//! each is relayed, fetched, and compared file by file.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::node::{Node, get, relay, troc};
use support::torrent::sha256;

/// The collection, or `None` with a word about it.
fn collection() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/transfer");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: {} is not there", dir.display());
    None
}

/// Relays `files` as `torrent` and fetches them again.
fn round_trip(torrent: &str, files: &[(&str, Vec<u8>)]) {
    let Some(collection) = collection() else { return };
    let temp = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| temp.path().join(name);
    for (name, bytes) in files {
        let file = path("source").join(name);
        fs::create_dir_all(file.parent().expect("a file has a parent")).expect("source directory");
        fs::write(file, bytes).expect("write the payload");
    }
    let torrent = collection.join(torrent);
    let mut command = relay(&torrent, &path("source"), temp.path());
    let mut seed = Node::spawn("relay", &mut command, temp.path());
    let addr = seed.wait_seeding();
    let mut command = get(&torrent, &path("fetched"), temp.path());
    command.arg("--peer").arg(addr.to_string());
    Node::spawn("get", &mut command, temp.path()).expect_done();
    for (name, _) in files {
        assert_eq!(sha256(&path("fetched").join(name)), sha256(&path("source").join(name)), "{name}");
    }
}

/// The files of the collection by their paths.
fn payload(names: &'static [&'static str]) -> Vec<(&'static str, Vec<u8>)> {
    let Some(dir) = collection() else { return Vec::new() };
    names.iter().map(|name| (*name, fs::read(dir.join(name)).expect("payload of the collection"))).collect()
}

#[test]
fn alice() {
    round_trip("alice.torrent", &payload(&["alice.txt"]));
}

#[test]
fn leaves_of_grass() {
    round_trip("leaves.torrent", &payload(&["Leaves of Grass by Walt Whitman.epub"]));
}

#[test]
fn leaves_of_grass_with_foreign_keys_in_the_torrent() {
    round_trip("leaves-metadata.torrent", &payload(&["Leaves of Grass by Walt Whitman.epub"]));
}

#[test]
fn a_folder_of_one_file() {
    round_trip("folder.torrent", &payload(&["folder/file.txt"]));
}

#[test]
fn three_files_in_one_block() {
    round_trip("numbers.torrent", &payload(&["numbers/1.txt", "numbers/2.txt", "numbers/3.txt"]));
}

#[test]
fn six_files_in_two_directories() {
    let file = |name, text: &str| (name, text.as_bytes().to_vec());
    let files = [
        file("lots-of-numbers/big numbers/10.txt", "10"),
        file("lots-of-numbers/big numbers/11.txt", "11"),
        file("lots-of-numbers/big numbers/12.txt", "12"),
        file("lots-of-numbers/small numbers/1.txt", "1"),
        file("lots-of-numbers/small numbers/2.txt", "22"),
        file("lots-of-numbers/small numbers/3.txt", "333"),
    ];
    round_trip("lots-of-numbers.torrent", &files);
}

#[test]
fn a_torrent_without_a_name_is_refused_in_one_line() {
    let Some(collection) = collection() else { return };
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut command = troc("get", temp.path());
    command.arg(collection.join("corrupt.torrent")).arg("-o").arg(temp.path().join("out"));
    let output = command.output().expect("troc runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().count() == 1 && said.contains("name"), "{said}");
    assert!(!temp.path().join("out").exists(), "nothing is written for a torrent that is refused");
}
