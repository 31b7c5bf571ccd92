//! Peers that are found by peer exchange alone (BEP 11): real nodes, each of which is told of one other.

mod support;

#[path = "hostile/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use support::node::{Node, get, relay};
use support::torrent::Torrent;
use tempfile::TempDir;

/// A torrent, a seed that nobody is told of, and a relay that has nothing and is told of the seed.
struct Scene {
    temp: TempDir,
    torrent: Torrent,
    file: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 8 << 20, 256 << 10, 11);
        let file = torrent.write(&temp.path().join("x.torrent"), None);
        Self { temp, torrent, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn seed(&self) -> (Node, SocketAddr) {
        let mut command = relay(&self.file, &self.path("source"), &self.path("seed"));
        let mut node = Node::spawn("seed", &mut command, &self.path("seed"));
        let addr = node.wait_seeding();
        (node, addr)
    }

    /// Gets next to nothing in the time of a test, so that nobody gets the payload from it.
    fn middle(&self, peer: SocketAddr, flag: &str) -> (Node, SocketAddr) {
        std::fs::create_dir_all(self.path("middle")).expect("directory");
        let mut command = relay(&self.file, &self.path("middle"), &self.path("middle-state"));
        command.args(["--download-limit", "1KiB/s", "--status-interval-ms", "10", flag, "--peer"]);
        command.arg(peer.to_string());
        let mut node = Node::spawn("middle", &mut command, &self.path("middle-state"));
        let status = node.wait("the seed", |status| status.listen().is_some() && status.bytes("peers") == 1);
        (node, status.listen().expect("it listens"))
    }

    fn fetcher(&self, name: &str, peer: SocketAddr, flag: &str) -> Node {
        let mut command = get(&self.file, &self.path(name), &self.path(&format!("{name}-state")));
        command.args(["--listen", "127.0.0.1:0", flag, "--peer"]).arg(peer.to_string());
        Node::spawn(name, &mut command, &self.path(&format!("{name}-state")))
    }
}

#[test]
fn a_fetcher_that_knows_one_peer_fetches_from_those_whom_that_one_knows() {
    let scene = Scene::new();
    let (seed, addr) = scene.seed();
    let (mut middle, middle_addr) = scene.middle(addr, "--pex");
    let mut fetcher = scene.fetcher("fetched", middle_addr, "--pex");
    fetcher.expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
    let status = middle.next_status().expect("the relay goes on");
    assert!(
        status.bytes("uploaded_bytes") < scene.torrent.total_bytes / 2,
        "it came from the relay: {status:?}"
    );
    drop(seed);
}

#[test]
fn a_node_says_that_it_exchanges_peers_unless_it_is_told_not_to() {
    let scene = Scene::new();
    for (flags, says) in [(&[][..], true), (&["--no-pex"], false), (&["--no-pex", "--pex"], true)] {
        let mut command = relay(&scene.file, &scene.path("source"), &scene.path("seed"));
        command.args(flags);
        let mut node = Node::spawn("seed", &mut command, &scene.path("seed"));
        let mut peer = wire::Peer::open(node.wait_seeding(), &scene.torrent.info_hash);
        let greeting = peer.wait_for(20);
        let said = |word: &[u8]| greeting.windows(word.len()).any(|part| part == word);
        assert_eq!((said(b"6:ut_pexi"), said(b"12:ut_holepunchi")), (says, says), "{flags:?}");
        node.process.terminate();
        node.expect_done();
    }
}
