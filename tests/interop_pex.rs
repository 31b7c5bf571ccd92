//! Peer exchange (BEP 11) with other clients, both directions: a fetcher that knows one peer, which has next
//! to nothing, and a seed that only that peer knows.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use support::clients::{Client, Job, Kind, Start};
use support::node::{Node, get, troc};
use support::torrent::Torrent;
use support::tracker::Tracker;
use tempfile::TempDir;

/// Not all clients take two peers of one address for two.
const SEED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Scene {
    temp: TempDir,
    torrent: Torrent,
    /// The one that the seed announces to.
    tracker: Tracker,
    /// The one of a fetcher that is not to know the seed.
    lonely: Tracker,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 8 << 20, 256 << 10, 12);
        Self { temp, torrent, tracker: Tracker::start(), lonely: Tracker::start() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn client(&self, kind: Kind, name: &str, job: Job, ip: Ipv4Addr, tracker: &Tracker) -> Client {
        let dir = self.path(if job == Job::Seed { "source" } else { name });
        let start = Start { job, torrent: &self.torrent, tracker, dir: &dir, scratch: &self.path(name), ip };
        let client = kind.start(&start);
        client.wait_ready(tracker);
        client
    }

    /// A `troc relay` that gets next to nothing in the time of a test, told of `peers`.
    fn middle(&self, peers: &[SocketAddr]) -> Node {
        std::fs::create_dir_all(self.path("middle")).expect("directory");
        let mut command = troc("relay", self.temp.path());
        command
            .arg(self.torrent.write(&self.path("troc.torrent"), None))
            .arg("--dir")
            .arg(self.path("middle"));
        command.args(["--listen", "0.0.0.0:0", "--json", "--cache", "64MiB", "--download-limit", "1KiB/s"]);
        peers.iter().for_each(|peer| _ = command.arg("--peer").arg(peer.to_string()));
        Node::spawn("middle", &mut command, self.temp.path())
    }
}

/// `troc` tells `kind` of the seed.
fn is_told_by_troc(kind: Kind) {
    if !kind.available() || !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new();
    let seed = scene.client(Kind::Libtorrent, "seed", Job::Seed, SEED, &scene.tracker);
    let mut fetcher = scene.client(kind, "fetched", Job::Fetch, OTHER, &scene.lonely);
    let _middle = scene.middle(&[seed.addr, fetcher.addr]);
    fetcher.wait_complete(&scene.lonely);
    scene.torrent.assert_identical(&scene.path("fetched"), &format!("{kind:?}"));
}

/// `kind` tells `troc` of the seed.
fn tells_troc(kind: Kind) {
    if !kind.available() || !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new();
    let _seed = scene.client(Kind::Libtorrent, "seed", Job::Seed, SEED, &scene.tracker);
    let middle = scene.client(kind, "middle", Job::Starve, OTHER, &scene.tracker);
    let mut command = get(
        &scene.torrent.write(&scene.path("troc.torrent"), None),
        &scene.path("fetched"),
        scene.temp.path(),
    );
    command.arg("--peer").arg(middle.addr.to_string());
    Node::spawn("get", &mut command, scene.temp.path()).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

#[test]
fn libtorrent_is_told_by_troc() {
    is_told_by_troc(Kind::Libtorrent);
}

#[test]
fn transmission_is_told_by_troc() {
    is_told_by_troc(Kind::Transmission);
}

#[test]
fn libtorrent_tells_troc() {
    tells_troc(Kind::Libtorrent);
}

#[test]
fn transmission_tells_troc() {
    tells_troc(Kind::Transmission);
}
