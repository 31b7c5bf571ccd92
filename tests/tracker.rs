//! `troc tracker` and `troc relay --tracker`: real nodes and other clients announce themselves, by HTTP and
//! by UDP, and find one another. And `troc` with another tracker, opentracker.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::clients::{Client, Job, Kind, Start};
use support::node::{Node, get, relay, troc};
use support::process::Process;
use support::torrent::Torrent;
use support::tracker::Tracker;
use support::{free_port, http, poll, skip};
use tempfile::TempDir;

/// Where other clients are: not all take two peers of one address for two.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Scene {
    temp: TempDir,
    torrent: Torrent,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 8 << 20, 256 << 10, 13);
        Self { temp, torrent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A .torrent file that names the tracker.
    fn file(&self, url: &str) -> PathBuf {
        self.torrent.write(&self.path("troc.torrent"), Some(url))
    }

    /// `troc tracker` on a port of the kernel's choice.
    fn tracker(&self, more: &[&str]) -> (Process, SocketAddr) {
        let mut command = troc("tracker", self.temp.path());
        command.args(["--listen", "127.0.0.1:0", "--interval", "5s", "--json"]).args(more);
        let mut process = Process::spawn("tracker", &mut command, self.temp.path());
        let addr = process.expect_line("its address", |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            value["listen"].as_str()?.parse().ok()
        });
        (process, addr)
    }

    fn seed(&self, url: &str) -> Node {
        let mut command = relay(&self.file(url), &self.path("source"), &self.path("seed"));
        let mut node = Node::spawn("seed", &mut command, &self.path("seed"));
        node.wait_seeding();
        node
    }

    /// `troc get` finds everybody by the tracker at `url` alone.
    fn fetch(&self, url: &str) {
        let mut command = get(&self.file(url), &self.path("fetched"), self.temp.path());
        Node::spawn("get", command.arg("--no-pex"), self.temp.path()).expect_done();
        self.torrent.assert_identical(&self.path("fetched"), "troc get");
    }

    /// Another client that announces to `url` and nowhere else.
    fn client(&self, kind: Kind, job: Job, url: &str) -> Client {
        let dir = self.path(if job == Job::Seed { "source" } else { "fetched" });
        let (tracker, scratch) = (&Tracker::elsewhere(url), &self.path("client"));
        kind.start(&Start { job, torrent: &self.torrent, tracker, dir: &dir, scratch, ip: OTHER })
    }

    /// Waits until the tracker counts so many who have everything.
    fn wait_complete(&self, tracker: SocketAddr, count: u32) {
        let hash: String = self.torrent.info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
        poll("the tracker to count them", || {
            let mut stream = std::net::TcpStream::connect(tracker).ok()?;
            let request =
                format!("GET /scrape?info_hash={hash} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut reply = Vec::new();
            std::io::Write::write_all(&mut stream, request.as_bytes()).ok()?;
            std::io::Read::read_to_end(&mut stream, &mut reply).ok()?;
            String::from_utf8_lossy(&reply).contains(&format!("8:completei{count}e")).then_some(())
        });
    }
}

#[test]
fn nodes_find_one_another_by_http_and_by_udp() {
    for scheme in ["http", "udp"] {
        let scene = Scene::new();
        let (_tracker, addr) = scene.tracker(&[]);
        let url = format!("{scheme}://{addr}/announce");
        let _seed = scene.seed(&url);
        scene.fetch(&url);
    }
}

#[test]
fn a_relay_is_the_tracker_of_its_own_torrents_and_of_no_others() {
    let scene = Scene::new();
    let mut command = relay(
        &scene.torrent.write(&scene.path("bare.torrent"), None),
        &scene.path("source"),
        scene.temp.path(),
    );
    let mut node = Node::spawn("relay", command.args(["--tracker", "127.0.0.1:0"]), scene.temp.path());
    let status =
        node.wait("seeding", |status| status.state() == "seeding" && status.0["tracker"].is_string());
    let addr: SocketAddr =
        status.0["tracker"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    scene.fetch(&format!("http://{addr}/announce"));
    let other = format!("GET /announce?info_hash={}&port=1&left=1", "%00".repeat(20));
    let (head, body) = http(addr, &other);
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("does not know the torrent"), "{head} {body}");
}

#[test]
fn a_tracker_with_a_list_refuses_what_is_not_on_it() {
    let scene = Scene::new();
    let (mut tracker, addr) = scene.tracker(&["--allow", &scene.torrent.info_hash_hex()]);
    let hash: String = scene.torrent.info_hash.iter().map(|byte| format!("%{byte:02X}")).collect();
    let ask = |hash: &str| http(addr, &format!("GET /announce?info_hash={hash}&port=7&left=1")).1;
    assert!(ask(&"%00".repeat(20)).contains("14:failure reason"));
    let body = ask(&hash);
    assert!(body.contains("10:incompletei1e") && body.contains("5:peers0:"), "{body}");
    let (head, _) = http(addr, "GET /elsewhere");
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    tracker.expect_line("its figures", |line| {
        let value: Value = serde_json::from_str(line).ok()?;
        (value["peers"] == 1 && value["refused"] == 1 && value["announces"] == 1).then_some(())
    });
    tracker.terminate();
    tracker.expect_success();
}

/// A client fetches from `troc` which it finds by our tracker.
fn finds_troc(kind: Kind, scheme: &str) {
    if !kind.available() {
        return;
    }
    let scene = Scene::new();
    let (_tracker, addr) = scene.tracker(&[]);
    let url = format!("{scheme}://{addr}/announce");
    let _seed = scene.seed(&url);
    let mut client = scene.client(kind, Job::Fetch, &url);
    match kind {
        // It says so to its tracker alone.
        Kind::Transmission => scene.wait_complete(addr, 2),
        _ => client.wait_complete(&Tracker::elsewhere(&url)),
    }
    scene.torrent.assert_identical(&scene.path("fetched"), &format!("{kind:?}"));
}

/// `troc` fetches from a client which it finds by our tracker.
fn is_found(kind: Kind, scheme: &str) {
    if !kind.available() {
        return;
    }
    let scene = Scene::new();
    let (_tracker, addr) = scene.tracker(&[]);
    let url = format!("{scheme}://{addr}/announce");
    let _client = scene.client(kind, Job::Seed, &url);
    scene.wait_complete(addr, 1);
    scene.fetch(&url);
}

#[test]
fn libtorrent_finds_troc_and_is_found() {
    finds_troc(Kind::Libtorrent, "udp");
    is_found(Kind::Libtorrent, "http");
}

#[test]
fn transmission_finds_troc_and_is_found() {
    finds_troc(Kind::Transmission, "http");
    is_found(Kind::Transmission, "http");
}

#[test]
fn aria2_finds_troc_and_is_found() {
    // Without its DHT it has no UDP.
    finds_troc(Kind::Aria2, "http");
    is_found(Kind::Aria2, "http");
}

/// Larger fleets have engines of their own: `troc` and opentracker.
#[test]
fn nodes_find_one_another_by_opentracker() {
    if Command::new("opentracker").arg("-h").output().is_err() {
        return skip("opentracker", "it is not installed (run scripts/setup)");
    }
    for scheme in ["http", "udp"] {
        let scene = Scene::new();
        let dir = scene.path("opentracker");
        std::fs::create_dir_all(&dir).expect("directory");
        // Debian's knows only the torrents that a list names. It reads that as another user.
        std::fs::write(dir.join("list"), scene.torrent.info_hash_hex() + "\n").expect("list");
        for open in [scene.temp.path(), &dir] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(open, mode).expect("permissions");
        }
        let port = free_port().to_string();
        let mut command = Command::new("opentracker");
        command.args(["-i", "127.0.0.1", "-p", &port, "-P", &port, "-w", "list", "-d"]).arg(&dir);
        let _opentracker = Process::spawn("opentracker", &mut command, scene.temp.path());
        let addr: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
        poll("opentracker", || std::net::TcpStream::connect(addr).ok());
        let url = format!("{scheme}://{addr}/announce");
        let _seed = scene.seed(&url);
        scene.fetch(&url);
    }
}
