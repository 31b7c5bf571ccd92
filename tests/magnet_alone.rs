//! A magnet link and one means of discovery are enough: hosts on one switch, each in a network namespace of
//! its own, on which `troc get` is given the link and nothing that the network does not need. Nobody is named
//! by any flag, and the link alone finds nobody.

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::bridge::Bridge;
use support::node::{Node, get, troc};
use support::process::Process;
use support::torrent::Torrent;
use tempfile::TempDir;

/// What nodes find one another by: a node of the hash table, a tracker, a peer that names others.
const HELPER: usize = 0;
const SEED: usize = 1;
/// They fetch at the same time.
const FETCHERS: [usize; 2] = [2, 3];
/// Fetches without any means.
const LONELY: usize = 4;
const HOSTS: usize = 5;

struct Scene {
    bridge: Bridge,
    temp: TempDir,
    torrent: Torrent,
}

impl Scene {
    fn new(seed: u64) -> Option<Self> {
        let bridge = Bridge::new("a magnet link alone", HOSTS)?;
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 4 << 20, 256 << 10, seed);
        Some(Self { bridge, temp, torrent })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The .torrent file.
    fn file(&self, tracker: Option<&str>) -> PathBuf {
        self.torrent.write(&self.path("x.torrent"), tracker)
    }

    /// A link with more parts behind its hash.
    fn link(&self, parts: &str) -> String {
        format!("magnet:?xt=urn:btih:{}{parts}", self.torrent.info_hash_hex())
    }

    fn relay(&self, host: usize, file: &Path, dir: &str, flags: &[&str]) -> Node {
        let scratch = self.path(&format!("host-{host}"));
        std::fs::create_dir_all(self.path(dir)).expect("directory");
        let mut command = troc("relay", &scratch);
        command.arg(file).arg("--dir").arg(self.path(dir)).args(["--listen", &listen(host)]).args(flags);
        command.args(["--json", "--cache", "64MiB", "--status-interval-ms", "10"]);
        Node::spawn("relay", &mut self.bridge.within(host, &command), &scratch)
    }

    /// The seed, once it has all and listens.
    fn seed(&self, file: &Path, flags: &[&str]) -> Node {
        let mut node = self.relay(SEED, file, "source", flags);
        node.wait_seeding();
        node
    }

    /// `troc get` of the link; what else it is told says nothing of peers.
    fn get(&self, host: usize, link: &str, flags: &[&str]) -> std::process::Command {
        let scratch = self.path(&format!("host-{host}"));
        let mut command = get(Path::new(link), &self.path(&format!("fetched-{host}")), &scratch);
        command.args(flags);
        self.bridge.within(host, &command)
    }

    /// Each fetcher has one of the links, and gets all.
    fn fetch(&self, links: [&str; FETCHERS.len()], flags: &[&str]) {
        let mut lonely = self.get(LONELY, &self.link(""), &["--no-peers-timeout-ms", "1000"]);
        let lonely = lonely.stdin(Stdio::null()).output().expect("troc runs");
        let errors = String::from_utf8_lossy(&lonely.stderr);
        assert!(lonely.status.code() == Some(1) && errors.contains("no metadata for"), "{errors}");
        let start = |(host, link): (usize, &str)| {
            let mut command = self.get(host, link, flags);
            (host, Node::spawn("get", &mut command, &self.path(&format!("host-{host}"))))
        };
        let nodes: Vec<(usize, Node)> = FETCHERS.into_iter().zip(links).map(start).collect();
        for (host, mut node) in nodes {
            node.expect_done();
            self.torrent.assert_identical(&self.path(&format!("fetched-{host}")), "troc get");
        }
    }
}

fn listen(host: usize) -> String {
    format!("{}:6881", Bridge::address(host))
}

/// BEP 5, 9: the helper is a node of the table with another torrent.
#[test]
fn a_magnet_link_is_enough_with_the_hash_table_alone() {
    let Some(scene) = Scene::new(1) else { return };
    let other = Torrent::single(&scene.path("other"), "other.bin", 1 << 10, 16 << 10, 2);
    let other = other.write(&scene.path("other.torrent"), None);
    // Nobody is there: it is the first node.
    let nobody = format!("{}:9", Bridge::address(HELPER));
    let flags = ["--no-lsd", "--no-pex", "--dht-bootstrap"];
    let mut first = scene.relay(HELPER, &other, "other", &[&flags[..], &[nobody.as_str()]].concat());
    first.wait("a node of the table", |status| status.0["dht"][0]["listen"].is_string());
    let bootstrap = listen(HELPER);
    let _seed = scene.seed(&scene.file(None), &[&flags[..], &[bootstrap.as_str()]].concat());
    first.wait("the announce", |status| status.0["dht"][0]["stored_peers"].as_u64() >= Some(1));
    let link = scene.link("");
    scene.fetch([&link, &link], &["--dht-bootstrap", &bootstrap]);
}

/// BEP 3, 15, 9: one fetcher asks by HTTP, the other by UDP.
#[test]
fn a_magnet_link_is_enough_with_a_tracker_alone() {
    let Some(scene) = Scene::new(3) else { return };
    let address = format!("{}:6969", Bridge::address(HELPER));
    let mut command = troc("tracker", scene.temp.path());
    command.args(["--listen", &address, "--json"]);
    let mut command = scene.bridge.within(HELPER, &command);
    let mut tracker = Process::spawn("tracker", &mut command, scene.temp.path());
    tracker.expect_line("it listens", |line| line.contains(&address).then_some(()));
    let [http, udp] = [format!("http://{address}/announce"), format!("udp://{address}/announce")];
    let _seed = scene.seed(&scene.file(Some(&http)), &["--no-dht", "--no-lsd", "--no-pex"]);
    tracker.expect_line("the announce", |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["peers"].as_u64() >= Some(1)).then_some(())
    });
    let named = |url: &str| -> String {
        let url: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
        scene.link(&format!("&tr={url}"))
    };
    scene.fetch([&named(&http), &named(&udp)], &[]);
}

/// BEP 11, 9: the helper is the one peer that links name (`x.pe`); it has nothing, and names the seed.
#[test]
fn a_magnet_link_is_enough_with_peer_exchange_alone() {
    let Some(scene) = Scene::new(4) else { return };
    let file = scene.file(None);
    let _seed = scene.seed(&file, &["--no-dht", "--no-lsd"]);
    // A piece would take it four minutes, which no step of a test may take.
    let known = listen(SEED);
    let flags = ["--no-dht", "--no-lsd", "--download-limit", "1KiB/s", "--peer", known.as_str()];
    let mut named = scene.relay(HELPER, &file, "nothing", &flags);
    named.wait("the seed", |status| status.bytes("peers") == 1);
    let link = scene.link(&format!("&x.pe={}", listen(HELPER)));
    scene.fetch([&link, &link], &[]);
    named.process.terminate();
    let last = std::iter::from_fn(|| named.next_status()).last().expect("it went on");
    assert_eq!((last.bytes("verified_bytes"), last.bytes("uploaded_bytes")), (0, 0), "it had nothing");
}

/// BEP 14, 9: nobody helps.
#[test]
fn a_magnet_link_is_enough_with_the_local_network_alone() {
    let Some(scene) = Scene::new(5) else { return };
    let _seed = scene.seed(&scene.file(None), &["--lsd", "--no-dht", "--no-pex"]);
    let link = scene.link("");
    scene.fetch([&link, &link], &["--lsd"]);
}
