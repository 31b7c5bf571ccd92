//! Torrents of BitTorrent v2 and hybrid ones (BEP 52) through `create`, `show` and `verify`, against the
//! torrents that libtorrent makes of the same files.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::clients::{Kind, python};
use support::node::{Node, get, relay, troc};

/// A file by its path below `data`, and its length.
type File = (&'static str, usize);

const PIECE: usize = 32 << 10;

/// libtorrent sorts whole paths for v1 and directories for v2, and then does not read the hybrid that it
/// made.
const OTHERWISE: &str = "names that sort across directories";

/// Trees that are hard to get right.
const SHAPES: &[(&str, &[File])] = &[
    ("one byte", &[("a", 1)]),
    ("exactly a block", &[("a", 16 << 10)]),
    ("exactly a piece", &[("a", PIECE)]),
    ("a byte more than a piece", &[("a", PIECE + 1)]),
    ("five pieces", &[("a", 5 * PIECE - 7)]),
    ("two files", &[("a", 5), ("b", PIECE)]),
    ("twice the same", &[("a", 3 * PIECE), ("b", 3 * PIECE)]),
    ("empty files", &[("a", 0), ("b", PIECE + 1), ("c/d", 0), ("c/e", 100_000), ("f", 0)]),
    (OTHERWISE, &[("a.d/x", 7), ("a-b", 3), ("a/y", 9), ("z", 3 * PIECE)]),
    ("whole pieces only", &[("a", PIECE), ("b", 2 * PIECE), ("c", 4 * PIECE)]),
];

/// Bytes that depend on the length alone: files of one length are the same.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251 + length) as u8).collect()
}

fn write(dir: &Path, files: &[File]) {
    for (path, length) in files {
        let path = dir.join("data").join(path);
        fs::create_dir_all(path.parent().expect("a file has a parent")).expect("a directory");
        fs::write(path, content(*length)).expect("a file");
    }
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

fn good(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON")
}

/// Makes a torrent of `what` below `dir` with `flag`, and gives what `show` says about it.
fn create(dir: &Path, what: &str, flag: &str) -> Value {
    let mut command = troc("create", dir);
    command.current_dir(dir).args([what, "-o", "t.torrent", "--piece-size", "32KiB", flag]);
    good(&mut command);
    json(&good(troc("show", dir).current_dir(dir).args(["t.torrent", "--json"])))
}

/// The info hashes of the torrent that libtorrent makes of `what` below `dir`, and of ours as it reads it.
fn by_libtorrent(dir: &Path, what: &str, flag: &str) -> Vec<String> {
    let script = "
import libtorrent as lt, sys
path, flag, ours = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, path)
kind = {'--hybrid': 0, '--v2': lt.create_torrent.v2_only}[flag]
made = lt.create_torrent(files, 32768, kind)
lt.set_piece_hashes(made, path.rsplit('/', 1)[0])
for torrent in (made.generate(), lt.bdecode(open(ours, 'rb').read())):
    try:
        hashes = lt.torrent_info(torrent).info_hashes()
    except RuntimeError as error:
        print(error, None, sep='\\n')
        continue
    print(hashes.v1 if hashes.has_v1() else None, hashes.v2)
    layers = torrent[b'piece layers']
    print(b''.join(key + layers[key] for key in sorted(layers)).hex())
";
    let mut command = Command::new(python());
    command.args(["-W", "ignore", "-c", script]).arg(dir.join(what)).arg(flag).arg(dir.join("t.torrent"));
    good(&mut command).lines().map(str::to_owned).collect()
}

/// One file is also made into a torrent of its own.
fn sources(files: &[File]) -> Vec<String> {
    let lone = files.first().filter(|_| files.len() == 1).map(|(path, _)| format!("data/{path}"));
    std::iter::once("data".to_owned()).chain(lone).collect()
}

#[test]
fn torrents_of_every_shape_are_those_of_libtorrent() {
    if !Kind::Libtorrent.available() {
        return;
    }
    for (name, files) in SHAPES {
        let temp = tempfile::tempdir().expect("temporary directory");
        write(temp.path(), files);
        for what in sources(files) {
            for flag in ["--v2", "--hybrid"] {
                let shown = create(temp.path(), &what, flag);
                let said = by_libtorrent(temp.path(), &what, flag);
                let ours = format!(
                    "{} {}",
                    shown["info_hash"].as_str().unwrap_or("None"),
                    shown["v2_hash"].as_str().expect("a hash")
                );
                assert_eq!(said[2], ours, "{name} {what} {flag}");
                if (*name, flag) != (OTHERWISE, "--hybrid") {
                    assert_eq!(said[..2], said[2..], "{name} {what} {flag}");
                }
            }
        }
    }
}

/// Where the files of a torrent of `what` lie.
fn place(dir: &Path, shown: &Value) -> std::path::PathBuf {
    let path = shown["files"][0]["path"].as_str().expect("a path").to_owned();
    if path.starts_with("data/") { dir.to_owned() } else { dir.join("data") }
}

#[test]
fn every_shape_verifies_and_a_changed_bit_does_not() {
    for (name, files) in SHAPES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let dir = temp.path();
        write(dir, files);
        for flag in ["--v2", "--hybrid"] {
            let shown = create(dir, "data", flag);
            let verify = || {
                let mut command = troc("verify", dir);
                command.arg(dir.join("t.torrent")).arg(place(dir, &shown)).arg("--json");
                run(&mut command)
            };
            assert!(verify().status.success(), "{name} {flag}");
            for (path, length) in files.iter().filter(|(_, length)| *length > 0) {
                let file = dir.join("data").join(path);
                let mut bytes = content(*length);
                bytes[length - 1] ^= 1;
                fs::write(&file, &bytes).expect("a file");
                let output = verify();
                let said = json(&String::from_utf8_lossy(&output.stdout));
                assert_eq!(output.status.code(), Some(1), "{name} {flag} {path}");
                let findings = said["findings"].as_array().expect("findings");
                assert_eq!(findings.len(), 1, "{name} {flag} {path}: {said}");
                assert!(findings[0]["files"][0].as_str().expect("a file").ends_with(path), "{said}");
                assert_eq!(said["good_pieces"].as_u64(), said["pieces"].as_u64().map(|pieces| pieces - 1));
                bytes[length - 1] ^= 1;
                fs::write(&file, &bytes).expect("a file");
            }
        }
    }
}

/// The first of `what` in `bytes` with one bit changed.
fn with_flipped(bytes: &[u8], what: &[u8], offset: usize) -> Vec<u8> {
    let at = bytes.windows(what.len()).position(|window| window == what).expect("it is there");
    let mut bytes = bytes.to_vec();
    bytes[at + what.len() + offset] ^= 1;
    bytes
}

/// Threat T22: what is right by one part of a hybrid is not right.
#[test]
fn t22_a_hybrid_that_lies_in_one_part_verifies_by_neither() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = temp.path();
    write(dir, &[("a", PIECE)]);
    create(dir, "data/a", "--hybrid");
    let bytes = fs::read(dir.join("t.torrent")).expect("the torrent");
    for key in [&b"6:pieces20:"[..], b"11:pieces root32:"] {
        fs::write(dir.join("lie.torrent"), with_flipped(&bytes, key, 3)).expect("a torrent");
        let output = run(troc("verify", dir).arg(dir.join("lie.torrent")).arg(dir.join("data")));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("0 of 1 pieces are right"), "{said}");
    }
}

#[test]
fn show_names_both_hashes_and_a_link_that_show_reads_too() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = temp.path();
    write(dir, SHAPES[7].1);
    for (flag, topics) in [("--v1", 1), ("--v2", 1), ("--hybrid", 2)] {
        let shown = create(dir, "data", flag);
        assert_eq!(shown["info_hash"].is_null(), flag == "--v2");
        assert_eq!(shown["v2_hash"].is_null(), flag == "--v1");
        assert_eq!(shown["content_bytes"], PIECE + 1 + 100_000);
        let link = shown["magnet"].as_str().expect("a link");
        assert_eq!(link.matches("xt=urn:").count(), topics, "{link}");
        let magnet = json(&good(troc("show", dir).args([link, "--json"])));
        for key in ["info_hash", "v2_hash", "name"] {
            assert_eq!(magnet[key], shown[key], "{flag} {key}");
        }
        let table = good(troc("show", dir).arg(dir.join("t.torrent")));
        for key in ["info_hash", "v2_hash", "magnet"] {
            assert!(shown[key].as_str().is_none_or(|hash| table.contains(hash)), "{flag} {key}: {table}");
        }
    }
}

#[test]
fn the_same_files_make_the_same_torrent() {
    let temp = tempfile::tempdir().expect("temporary directory");
    write(temp.path(), SHAPES[7].1);
    for flag in ["--v2", "--hybrid"] {
        let shown = create(temp.path(), "data", flag);
        assert_eq!(create(temp.path(), "data", flag)["magnet"], shown["magnet"]);
    }
}

#[test]
fn a_hybrid_is_checked_at_the_start_and_fetched() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = temp.path();
    let source = dir.join("source");
    write(&source, SHAPES[7].1);
    create(&source, "data", "--hybrid");
    let torrent = dir.join("t.torrent");
    fs::rename(source.join("t.torrent"), &torrent).expect("the torrent moves");
    let mut seed = Node::spawn("relay", &mut relay(&torrent, &source, dir), dir);
    let addr = seed.wait_seeding();
    let mut command = get(&torrent, &dir.join("fetched"), dir);
    command.arg("--peer").arg(addr.to_string());
    Node::spawn("get", &mut command, dir).expect_done();
    for (path, length) in SHAPES[7].1 {
        let got = fs::read(dir.join("fetched/data").join(path)).expect("a fetched file");
        assert_eq!(got, content(*length), "{path}");
    }
}
