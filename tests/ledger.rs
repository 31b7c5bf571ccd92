//! Balances of real nodes outlive them: `kill -9`, a disk that refuses, a second node beside the first.
//!
//! On loopback a party is a connection's address and port, so none comes back: what a node remembers is read
//! from its state directory, by the crate's own code.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use support::node::{Node, get, relay};
use support::poll;
use support::torrent::Torrent;
use troc::daemon::store::StateDir;

const TOTAL_BYTES: u64 = 8 << 20;

struct Scene {
    temp: tempfile::TempDir,
    torrent: Torrent,
    file: PathBuf,
    fetches: u32,
}

impl Scene {
    fn new() -> Self {
        // Beside the build: on a disk, where /tmp may be memory.
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "whole", TOTAL_BYTES, 256 << 10, 1);
        let file = torrent.write(&temp.path().join("a.torrent"), None);
        Self { temp, torrent, file, fetches: 0 }
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("relay-state")
    }

    /// A relay that writes its ledger as soon as it has changed.
    fn relay(&self, name: &str) -> (Node, SocketAddr) {
        let mut command = relay(&self.file, &self.torrent.source, self.temp.path());
        command.args(["--ledger-interval-ms", "10"]);
        let mut node = Node::spawn(name, &mut command, self.temp.path());
        let address = node.wait_seeding();
        (node, address)
    }

    fn fetch_from(&mut self, relay: SocketAddr) {
        self.fetches += 1;
        let name = format!("get-{}", self.fetches);
        let mut command = get(&self.file, &self.temp.path().join(&name), &self.temp.path().join("other"));
        // Known by its address: with a key it would have an account more.
        command.args(["--no-identity", "--peer", &relay.to_string()]);
        Node::spawn(&name, &mut command, self.temp.path()).expect_done();
    }

    /// Waits until the state directory says that so many parties got all.
    fn wait_remembered(&self, parties: usize) -> Vec<(u64, u64)> {
        poll("what the ledger says", || {
            let said = remembered(&self.state());
            let all = said.iter().all(|&(_, sent_bytes)| sent_bytes >= TOTAL_BYTES);
            (said.len() == parties && all).then_some(said)
        })
    }
}

/// What a node said about its ledger on standard error.
fn complaints(node: &Node) -> Vec<String> {
    node.process.errors().lines().filter(|line| line.contains("ledger")).map(str::to_owned).collect()
}

/// The parties that a state directory remembers, and what each was sent. What it was granted refills as time
/// passes.
fn remembered(state: &Path) -> Vec<(u64, u64)> {
    let state = StateDir::open_existing(state).expect("a state directory").expect("with a secret");
    let said = state.glance_ledger().expect("it can be read");
    let balances = said.map_or_else(Vec::new, |said| said.expect("its head is good").balances);
    balances.iter().map(|balance| (balance.key, balance.sent_bytes)).collect()
}

#[test]
fn balances_survive_kill_9() {
    let mut scene = Scene::new();
    let (mut node, address) = scene.relay("first");
    scene.fetch_from(address);
    let before = scene.wait_remembered(1);
    node.process.kill();
    assert_eq!(remembered(&scene.state()), before, "as it was written before the kill");

    // It writes all that it remembers anew before the first change is appended.
    let (mut node, address) = scene.relay("second");
    scene.fetch_from(address);
    let after = scene.wait_remembered(2);
    assert!(after.contains(&before[0]), "{before:?} {after:?}");
    node.process.terminate();
    node.expect_done();
    assert_eq!(remembered(&scene.state()), after);
    assert!(complaints(&node).is_empty(), "nothing was damaged: {:?}", complaints(&node));
}

#[test]
fn a_ledger_that_cannot_be_written_is_a_warning_and_mending_it_suffices() {
    let mut scene = Scene::new();
    let blocks = scene.state().join("ledger.new");
    std::fs::create_dir_all(&blocks).expect("a directory where a file should be");
    let (mut node, address) = scene.relay("relay");
    scene.fetch_from(address);
    let said = poll("a warning", || Some(complaints(&node)).filter(|said| !said.is_empty()));
    scene.fetch_from(address);
    assert!(said[0].contains("the ledger could not be written: "), "{said:?}");
    assert!(said[0].contains("free space or mend the state directory"), "{said:?}");
    std::fs::remove_dir(&blocks).expect("it is empty");
    scene.wait_remembered(2);
    node.process.terminate();
    node.expect_done();
    assert_eq!(complaints(&node).len(), 1, "said once: {:?}", complaints(&node));
}

#[test]
fn a_second_node_on_one_state_directory_serves_and_leaves_the_ledger_alone() {
    let mut scene = Scene::new();
    let (_first, address) = scene.relay("first");
    scene.fetch_from(address);
    let before = scene.wait_remembered(1);
    let other = Torrent::single(&scene.temp.path().join("elsewhere"), "other", TOTAL_BYTES, 256 << 10, 2);
    let file = other.write(&scene.temp.path().join("b.torrent"), None);
    let mut command = relay(&file, &other.source, scene.temp.path());
    command.args(["--ledger-interval-ms", "10"]);
    let mut second = Node::spawn("second", &mut command, scene.temp.path());
    let address = second.wait_seeding();
    let said = complaints(&second).concat();
    assert!(said.contains("keeps the ledger of this state directory"), "{said}");
    let dir = scene.temp.path().join("got");
    let mut command = get(&file, &dir, &scene.temp.path().join("third"));
    command.args(["--peer", &address.to_string()]);
    Node::spawn("get", &mut command, scene.temp.path()).expect_done();
    second.process.terminate();
    second.expect_done();
    assert_eq!(remembered(&scene.state()), before);
}
