//! How long a finished `get` serves, and whom limits leave alone: the built binary on loopback.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use support::node::{Node, Status, get, relay, troc};
use support::torrent::Torrent;

const BYTES: u64 = 3_000_000;

/// A payload that is all there, and its .torrent.
struct Scene {
    temp: tempfile::TempDir,
    file: PathBuf,
    source: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let source = temp.path().join("source");
        let torrent = Torrent::single(&source, "payload", BYTES, 128 << 10, 7);
        let file = torrent.write(&temp.path().join("payload.torrent"), None);
        Self { temp, file, source }
    }

    /// A `get` of what is there already, that serves until `goal`.
    fn seed(&self, goal: &[&str]) -> Node {
        let mut command = get(&self.file, &self.source, self.temp.path());
        command.args(["--listen", "127.0.0.1:0"]).args(goal);
        Node::spawn("seed", &mut command, self.temp.path())
    }

    /// A `get` from `address`, with a state of its own.
    fn fetch(&self, address: SocketAddr, more: &[&str]) -> Command {
        let out = self.temp.path().join("copy");
        let mut command = get(&self.file, &out, self.temp.path());
        command.env("TROC_STATE", self.temp.path().join("fetch-state"));
        command.arg("--peer").arg(address.to_string()).args(more);
        command
    }
}

/// All status lines to the end of a process that is to end well; the last one.
fn last_status(node: &mut Node) -> Status {
    let mut last = None;
    while let Some(status) = node.next_status() {
        last = Some(status);
    }
    node.expect_done();
    last.expect("it says how it goes")
}

fn seed_end(status: &Status) -> &str {
    status.0["torrents"][0]["seed_end"].as_str().unwrap_or_else(|| panic!("no end: {}", status.0))
}

#[test]
fn a_ratio_that_is_reached_ends_a_seed_long_before_its_time() {
    let scene = Scene::new();
    let mut seed = scene.seed(&["--seed-ratio", "1", "--seed-time", "1d"]);
    let address = seed.wait_seeding();
    let mut fetcher = Node::spawn("fetch", &mut scene.fetch(address, &["--seed"]), scene.temp.path());
    let last = last_status(&mut seed);
    assert_eq!(seed_end(&last), "ratio");
    assert!(last.bytes("uploaded_bytes") >= BYTES, "{}", last.0);
    fetcher.process.terminate();
    fetcher.process.wait();
}

#[test]
fn a_time_that_is_over_ends_a_seed_that_nobody_asked() {
    let scene = Scene::new();
    for goal in [&["--seed-time", "20ms"][..], &["--seed", "--seed-ratio", "1000", "--seed-time", "0"]] {
        let last = last_status(&mut scene.seed(goal));
        assert_eq!((seed_end(&last), last.bytes("uploaded_bytes")), ("time", 0), "{goal:?}");
    }
    // And so says the line for people.
    let mut command = troc("get", scene.temp.path());
    command.arg(&scene.file).arg("-o").arg(&scene.source).args(["--cache", "64MiB"]);
    command.args(["--listen", "127.0.0.1:0", "--seed-time", "100ms"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("ratio 0.00; ended after 0.1s as a seed\n"), "{text}");
}

#[test]
fn a_fetcher_stays_for_its_time_and_counts_from_when_all_is_there() {
    let scene = Scene::new();
    let mut relay =
        Node::spawn("relay", &mut relay(&scene.file, &scene.source, scene.temp.path()), scene.temp.path());
    let address = relay.wait_seeding();
    let mut command = scene.fetch(address, &["--seed-time", "10ms", "--seed-ratio", "5"]);
    let last = last_status(&mut Node::spawn("fetch", &mut command, scene.temp.path()));
    assert_eq!((seed_end(&last), last.bytes("durable_bytes")), ("time", BYTES));
    relay.process.terminate();
    relay.expect_done();
}

/// With limits of a byte a second for everybody else, a peer on loopback gets all.
#[test]
fn limits_leave_local_peers_alone_when_told_to() {
    let scene = Scene::new();
    for apart in [&["--lan-unlimited"][..], &["--lan-upload-limit", "1Gbit/s"]] {
        let mut command = relay(&scene.file, &scene.source, scene.temp.path());
        command.args(["--upload-limit", "1", "--torrent-upload-limit", "1"]).args(apart);
        let mut relay = Node::spawn("relay", &mut command, scene.temp.path());
        let address = relay.wait_seeding();
        let limits = ["--download-limit", "1", "--lan-download-limit", "1Gbit/s"];
        let last =
            last_status(&mut Node::spawn("fetch", &mut scene.fetch(address, &limits), scene.temp.path()));
        assert_eq!(last.bytes("durable_bytes"), BYTES);
        relay.process.terminate();
        relay.expect_done();
        for made in ["copy", "fetch-state"] {
            std::fs::remove_dir_all(scene.temp.path().join(made)).unwrap();
        }
    }
}
