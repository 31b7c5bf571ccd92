//! Magnet links with the real program: found by what the link names, by a tracker alone, by what was kept,
//! by peers that connect to us, and among peers that lie.

#![allow(clippy::disallowed_methods, reason = "a liar on the wire has a thread")]

#[path = "magnet/called.rs"]
mod called;
mod support;
#[path = "hostile/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha1::{Digest, Sha1};
use support::node::{Node, get, relay, troc};
use support::torrent::{Torrent, string};
use support::tracker::Tracker;
use tempfile::TempDir;

/// Enough pieces that the metadata has two of its own.
const PIECES: u64 = 1000;

struct Scene {
    temp: TempDir,
    torrent: Torrent,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let bytes = PIECES * (16 << 10) - 5;
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", bytes, 16 << 10, 9);
        Self { temp, torrent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A link with more parts behind its hash.
    fn link(&self, parts: &str) -> PathBuf {
        format!("magnet:?xt=urn:btih:{}{parts}", self.torrent.info_hash_hex()).into()
    }

    fn seed(&self, tracker: Option<&Tracker>) -> (Node, SocketAddr) {
        let url = tracker.map(Tracker::url);
        let file = self.torrent.write(&self.path("seed.torrent"), url.as_deref());
        let mut seed =
            Node::spawn("relay", &mut relay(&file, &self.path("source"), self.temp.path()), self.temp.path());
        let addr = seed.wait_seeding();
        (seed, addr)
    }

    fn get(&self, link: &Path) -> Command {
        get(link, &self.path("fetched"), self.temp.path())
    }

    fn fetch(&self, link: &Path) {
        Node::spawn("get", &mut self.get(link), self.temp.path()).expect_done();
        self.torrent.assert_identical(&self.path("fetched"), "troc get");
    }
}

/// The one line of an error, and the status.
fn error_of(command: &mut Command) -> (String, Option<i32>) {
    let Output { stderr, status, .. } = command.stdin(Stdio::null()).output().expect("troc runs");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("troc: ")).collect();
    (lines.last().unwrap_or(&"").to_string(), status.code())
}

#[test]
fn a_link_that_names_a_peer_is_all_that_a_get_needs() {
    let scene = Scene::new();
    let (_seed, addr) = scene.seed(None);
    let link = scene.link(&format!("&dn=payload&x.pe={addr}"));
    let mut node = Node::spawn("get", &mut scene.get(&link), scene.temp.path());
    let first = node.next_status().expect("a status");
    assert_eq!((first.state(), first.bytes("total_bytes")), ("metadata", 0));
    let found = node.wait("fetching", |status| status.state() != "metadata");
    assert_eq!(found.bytes("total_bytes"), scene.torrent.total_bytes);
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

#[test]
fn peers_of_the_command_line_are_asked_too() {
    let scene = Scene::new();
    let (_seed, addr) = scene.seed(None);
    let mut command = scene.get(&scene.link(""));
    command.arg("--peer").arg(addr.to_string());
    Node::spawn("get", &mut command, scene.temp.path()).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

#[test]
fn a_link_with_a_tracker_alone_is_enough() {
    let scene = Scene::new();
    let tracker = Tracker::start();
    let (_seed, addr) = scene.seed(Some(&tracker));
    tracker.wait_complete(scene.torrent.info_hash, addr.port());
    let url: String = url::form_urlencoded::byte_serialize(tracker.url().as_bytes()).collect();
    scene.fetch(&scene.link(&format!("&tr={url}")));
}

#[test]
fn a_restart_with_the_same_link_needs_no_peer_for_what_was_kept() {
    let scene = Scene::new();
    let (seed, addr) = scene.seed(None);
    let link = scene.link(&format!("&x.pe={addr}"));
    scene.fetch(&link);
    drop(seed);
    // All is there: it is found right without anybody.
    Node::spawn("again", &mut scene.get(&link), scene.temp.path()).expect_done();
    // A damaged copy is no metadata: nobody has it now, and that is said.
    let kept = scene.path("get-state").join(format!("{}.torrent", scene.torrent.info_hash_hex()));
    let mut bytes = std::fs::read(&kept).expect("the metadata is kept");
    bytes[9] ^= 1;
    std::fs::write(&kept, bytes).expect("damage it");
    let (line, status) = error_of(scene.get(&link).args(["--no-peers-timeout-ms", "1000"]));
    assert_eq!(status, Some(1), "{line}");
    assert!(line.starts_with("troc: no metadata for 1 s, ") && line.contains("--peer"), "{line}");
}

/// BEP 53, by peers and by what was kept.
#[test]
fn only_the_files_that_a_link_names_are_fetched_the_second_time_too() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let files = [("a.bin", 100_003), ("b.bin", 200_001), ("c.bin", 100_007)];
    let torrent = Torrent::multi(&temp.path().join("source"), "top", &files, 32 << 10, 5);
    let scene = Scene { temp, torrent };
    let (seed, addr) = scene.seed(None);
    let link = scene.link(&format!("&so=1&x.pe={addr}"));
    let fetched = scene.path("fetched").join("top");
    let names = || -> Vec<_> {
        let entries = std::fs::read_dir(&fetched).expect("the directory").flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    Node::spawn("get", &mut scene.get(&link), scene.temp.path()).expect_done();
    assert_eq!(names(), ["b.bin"]);
    drop(seed);
    Node::spawn("again", &mut scene.get(&link), scene.temp.path()).expect_done();
    assert_eq!(names(), ["b.bin"]);
}

#[test]
fn a_relay_fetches_by_a_link_beside_others_and_knows_it_without_being_told_again() {
    let scene = Scene::new();
    let (_seed, addr) = scene.seed(None);
    let other = Torrent::single(&scene.path("mirror"), "other.bin", 100_000, 32 << 10, 7);
    let file = other.write(&scene.path("other.torrent"), None);
    let unknown = format!("magnet:?xt=urn:btih:{}", "ab".repeat(20));
    let mut command = troc("relay", &scene.path("second"));
    command.arg(&file).arg(scene.link(&format!("&x.pe={addr}"))).arg(unknown);
    command.arg("--dir").arg(scene.path("mirror")).args([
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--cache",
        "64MiB",
    ]);
    let mut node = Node::spawn("second", &mut command, scene.temp.path());
    let state = |status: &support::node::Status, index: usize| status.0["torrents"][index]["state"].clone();
    let status =
        node.wait("both are there", |status| state(status, 0) == "seeding" && state(status, 1) == "seeding");
    assert_eq!(state(&status, 2), "metadata", "nobody knows the third, and nobody waits for it");
    scene.torrent.assert_identical(&scene.path("mirror"), "troc relay");
    node.process.terminate();
    node.process.expect_success();
    let mut command = troc("relay", &scene.path("second"));
    command.arg("--dir").arg(scene.path("mirror")).args([
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--cache",
        "64MiB",
    ]);
    let mut node = Node::spawn("third", &mut command, scene.temp.path());
    let status = node.wait("both again", |status| (0..2).all(|index| state(status, index) == "seeding"));
    assert_eq!(status.0["torrents"].as_array().map(Vec::len), Some(2));
}

#[test]
fn pieces_that_the_cache_has_no_room_for_are_said_and_the_next_start_makes_room() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 100_000, 64 << 20, 3);
    let scene = Scene { temp, torrent };
    let (_seed, addr) = scene.seed(None);
    let link = scene.link(&format!("&x.pe={addr}"));
    let (line, status) = error_of(&mut scene.get(&link));
    assert_eq!(status, Some(1), "{line}");
    assert!(line.contains("pieces of 64.0 MiB") && line.contains("start again"), "{line}");
    scene.fetch(&link);
}

/// A peer that says to have metadata of `size` bytes and gives what `piece` makes of each piece's number.
fn liar(
    hash: [u8; 20],
    size: usize,
    piece: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (addr, piece) = (listener.local_addr().expect("its address"), Arc::new(piece));
    let lies = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&lies);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (piece, told) = (Arc::clone(&piece), Arc::clone(&told));
            std::thread::spawn(move || lie(stream, hash, size, &*piece, &told));
        }
    });
    (addr, lies)
}

fn lie(
    mut stream: TcpStream,
    hash: [u8; 20],
    size: usize,
    piece: &dyn Fn(usize) -> Vec<u8>,
    told: &AtomicUsize,
) -> Option<()> {
    let extended =
        |id: u8, payload: &[u8]| [&(payload.len() as u32 + 2).to_be_bytes()[..], &[20, id], payload].concat();
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs).ok()?;
    let hello = [&b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\0"[..], &hash, b"-XX0000-a-liar-here-"].concat();
    stream.write_all(&hello).ok()?;
    let greeting = format!("d1:md11:ut_metadatai3ee13:metadata_sizei{size}ee");
    stream.write_all(&extended(0, greeting.as_bytes())).ok()?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut body).ok()?;
        // d8:msg_typei0e5:piecei<N>ee
        let text = String::from_utf8_lossy(&body).into_owned();
        let Some(number) = text.split("5:piecei").nth(1).and_then(|rest| rest.split('e').next()) else {
            continue;
        };
        let number: usize = number.parse().ok()?;
        told.fetch_add(1, Ordering::Relaxed);
        let header = format!("d8:msg_typei1e5:piecei{number}e10:total_sizei{size}ee");
        // Under the id that troc announces for the extension.
        stream.write_all(&extended(9, &[header.as_bytes(), &piece(number)].concat())).ok()?;
    }
}

#[test]
fn p30_liars_first_in_the_list_do_not_stop_it() {
    let scene = Scene::new();
    let (hash, size) = (scene.torrent.info_hash, 20_070);
    let zeros = move |number: usize| vec![0; (size - number * (16 << 10)).min(16 << 10)];
    let liars = [
        liar(hash, size, zeros),
        liar(hash, 1, |_| vec![7]),
        liar(hash, 1 << 20, |_| vec![7; 16 << 10]),
        liar(hash, size, |_| vec![7; 3]),
    ];
    let named: String = liars.iter().map(|(liar, _)| format!("&x.pe={liar}")).collect();
    // The honest one comes up when all of them have lied.
    let addr = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    let link = scene.link(&format!("{named}&x.pe={addr}"));
    let mut node = Node::spawn("get", &mut scene.get(&link), scene.temp.path());
    for (_, lies) in &liars {
        support::poll("the lie", || (lies.load(Ordering::Relaxed) > 0).then_some(()));
    }
    let mut command = troc("relay", scene.temp.path());
    command
        .arg(scene.torrent.write(&scene.path("seed.torrent"), None))
        .arg("--dir")
        .arg(scene.path("source"));
    command.args(["--cache", "64MiB", "--listen"]).arg(addr.to_string());
    let _seed = Node::spawn("relay", &mut command, scene.temp.path());
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

#[test]
fn t25_metadata_that_is_what_the_link_names_and_no_torrent_is_refused() {
    let scene = Scene::new();
    let outside = [
        &b"d6:lengthi1e4:name"[..],
        &string("../../etc"),
        b"12:piece lengthi16385e6:pieces",
        &string([0; 20]),
        b"e",
    ]
    .concat();
    let hash: [u8; 20] = Sha1::digest(&outside).into();
    let (addr, _) = liar(hash, outside.len(), move |_| outside.clone());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let link = format!("magnet:?xt=urn:btih:{hex}&dn=trap&x.pe={addr}");
    let (line, status) = error_of(&mut scene.get(Path::new(&link)));
    assert_eq!(status, Some(1));
    assert!(line.starts_with("troc: cannot use what the magnet link names, trap: "), "{line}");
}

#[test]
fn links_that_nobody_can_use_are_refused_at_once() {
    let scene = Scene::new();
    let (line, status) = error_of(scene.get(&scene.link("")).arg("--no-dht"));
    assert!(status == Some(2) && line.starts_with("troc: nobody to fetch from, "), "{line}");
    let mut verify = troc("verify", scene.temp.path());
    let (line, status) = error_of(verify.arg(scene.link("")).arg(scene.path("source")));
    assert!(status == Some(2) && line.contains("give the .torrent file"), "{line}");
}
