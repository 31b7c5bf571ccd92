//! Nodes that find each other without a tracker: by the distributed hash table, made of other people's nodes,
//! and by multicast between network namespaces.

#![allow(clippy::disallowed_methods, reason = "tests of real processes have real clocks and threads")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mainline::{Dht, Id};
use support::bridge::Bridge;
use support::clients::python;
use support::node::{Node, get, relay, troc};
use support::process::Process;
use support::torrent::Torrent;
use support::tracker::Tracker;
use support::{PATIENCE, poll, skip};
use tempfile::TempDir;

/// Nodes of another implementation, which only know each other.
struct Network {
    nodes: Vec<Dht>,
    bootstrap: SocketAddr,
}

impl Network {
    fn of(count: usize) -> Self {
        let mut nodes = vec![server(None)];
        let bootstrap = address(&nodes[0]);
        nodes.extend((1..count).map(|_| server(Some(bootstrap))));
        Self { nodes, bootstrap }
    }

    /// Waits until `hash` is announced, as another node finds it.
    #[allow(deprecated, reason = "the blocking interface is what a test needs")]
    fn wait_announced(&self, hash: [u8; 20]) -> SocketAddr {
        let node = self.nodes.last().expect("a node");
        poll("an announce", || {
            let peers = node.get_peers(Id::from(hash)).flatten().next()?;
            Some(SocketAddr::V4(peers))
        })
    }
}

fn server(bootstrap: Option<SocketAddr>) -> Dht {
    let mut builder = Dht::builder();
    builder.server_mode().bind_address(Ipv4Addr::LOCALHOST).port(0);
    match bootstrap {
        Some(bootstrap) => builder.bootstrap(&[bootstrap]),
        None => builder.no_bootstrap(),
    };
    builder.build().expect("a node of the table")
}

#[allow(deprecated, reason = "the blocking interface is what a test needs")]
fn address(node: &Dht) -> SocketAddr {
    SocketAddr::V4(node.info().local_addr())
}

struct Scene {
    temp: TempDir,
    torrent: Torrent,
    file: PathBuf,
}

impl Scene {
    /// A torrent without a tracker.
    fn new(seed: u64) -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 4 << 20, 256 << 10, seed);
        let file = torrent.write(&temp.path().join("troc.torrent"), None);
        Self { temp, torrent, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Listens on the host of its bootstrap node.
    fn relay(&self, bootstrap: SocketAddr) -> Node {
        let listen = SocketAddr::new(bootstrap.ip(), 0).to_string();
        let mut command = troc("relay", self.temp.path());
        command.arg(&self.file).arg("--dir").arg(self.path("source")).args(["--listen", &listen, "--json"]);
        command.args(["--cache", "64MiB", "--status-interval-ms", "10"]);
        command.args(["--dht-bootstrap", &bootstrap.to_string()]);
        Node::spawn("relay", &mut command, self.temp.path())
    }

    fn link(&self) -> PathBuf {
        format!("magnet:?xt=urn:btih:{}", self.torrent.info_hash_hex()).into()
    }

    fn get(&self, dir: &str, bootstrap: SocketAddr) -> Node {
        self.get_by(&self.file, dir, bootstrap)
    }

    fn get_by(&self, source: &Path, dir: &str, bootstrap: SocketAddr) -> Node {
        let mut command = get(source, &self.path(dir), &self.path(&format!("{dir}-scratch")));
        let listen = SocketAddr::new(bootstrap.ip(), 0).to_string();
        command.args(["--listen", &listen, "--dht-bootstrap", &bootstrap.to_string()]);
        Node::spawn("get", &mut command, self.temp.path())
    }
}

/// Where a node takes datagrams of the table.
fn dht_address(node: &mut Node) -> SocketAddr {
    let status = node.wait("a node of the table", |status| status.0["dht"][0]["listen"].is_string());
    status.0["dht"][0]["listen"].as_str().expect("seen").parse().expect("an address")
}

fn wait_nodes(node: &mut Node, count: u64) {
    node.wait("nodes that answer", |status| status.0["dht"][0]["nodes"].as_u64() >= Some(count));
}

#[test]
fn get_finds_a_relay_by_the_hash_table_alone() {
    let (network, scene) = (Network::of(10), Scene::new(1));
    let mut relay = scene.relay(network.bootstrap);
    let listen = relay.wait_seeding();
    assert_eq!(network.wait_announced(scene.torrent.info_hash), listen);
    scene.get("fetched", network.bootstrap).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

/// The metadata is looked for in the table, too.
#[test]
fn a_magnet_link_and_the_hash_table_are_enough() {
    let (network, scene) = (Network::of(10), Scene::new(30));
    let mut relay = scene.relay(network.bootstrap);
    relay.wait_seeding();
    network.wait_announced(scene.torrent.info_hash);
    scene.get_by(&scene.link(), "fetched", network.bootstrap).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

/// Both know nothing but a third node of ours, which has another torrent.
fn find_by_a_third(host: &str, seed: u64) {
    let (other, scene) = (Scene::new(seed), Scene::new(seed + 1));
    let nobody = UdpSocket::bind((host, 0)).expect("a socket").local_addr().expect("its address");
    let mut first = other.relay(nobody);
    let bootstrap = dht_address(&mut first);
    let mut relay = scene.relay(bootstrap);
    relay.wait_seeding();
    first.wait("an announce", |status| status.0["dht"][0]["stored_peers"].as_u64() >= Some(1));
    scene.get("fetched", bootstrap).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

#[test]
fn nodes_of_ours_alone_are_a_hash_table() {
    find_by_a_third("127.0.0.1", 20);
}

/// BEP 32.
#[test]
fn nodes_with_ipv6_alone_are_a_hash_table() {
    find_by_a_third("::1", 22);
}

/// BEP 5 `port`: the second relay's bootstrap node answers nothing, but its peer has a node.
#[test]
fn a_node_is_learnt_of_by_a_peer_that_has_one() {
    let scene = Scene::new(24);
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let bootstrap = nobody.local_addr().expect("its address");
    let mut first = scene.relay(bootstrap);
    let peer = first.wait_seeding();
    let mut command = get(&scene.file, &scene.path("fetched"), &scene.path("get-scratch"));
    command.args(["--listen", "127.0.0.1:0", "--peer", &peer.to_string(), "--seed"]);
    command.args(["--dht-bootstrap", &bootstrap.to_string()]);
    let mut second = Node::spawn("get", &mut command, scene.temp.path());
    wait_nodes(&mut second, 1);
}

/// BEP 27. The bootstrap node is a socket that sees each query.
#[test]
fn d4_a_private_torrent_never_appears_in_the_hash_table() {
    let scene = Scene::new(4);
    let made = troc("create", scene.temp.path())
        .arg(scene.path("source"))
        .args(["--private", "--tracker", "http://127.0.0.1:9/announce", "-o"])
        .arg(scene.path("private.torrent"))
        .output()
        .expect("troc create");
    assert!(made.status.success(), "{made:?}");
    let shown = troc("show", scene.temp.path()).arg(scene.path("private.torrent")).arg("--json").output();
    let shown: serde_json::Value = serde_json::from_slice(&shown.expect("troc show").stdout).expect("JSON");
    let private = shown["info_hash"].as_str().expect("a hash").to_owned();

    let spy = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    spy.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let bootstrap = spy.local_addr().expect("its address");
    // Private first: it would be looked up first.
    let mut command = troc("relay", scene.temp.path());
    command.arg(scene.path("private.torrent")).arg(&scene.file).arg("--dir").arg(scene.path("source"));
    command.args(["--listen", "127.0.0.1:0", "--json", "--cache", "64MiB", "--lsd"]);
    command.args(["--dht-bootstrap", &bootstrap.to_string()]);
    let _relay = Node::spawn("relay", &mut command, scene.temp.path());
    let has = |datagram: &[u8], hash: &[u8]| datagram.windows(hash.len()).any(|window| window == hash);
    let private: Vec<u8> =
        (0..20).map(|at| u8::from_str_radix(&private[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let (mut public, mut buffer) = (0, [0; 2048]);
    // Thrice, since nobody answers: the others had their turns by then.
    while public < 3 {
        let (len, _) = spy.recv_from(&mut buffer).expect("queries of the public torrent");
        assert!(!has(&buffer[..len], &private), "the private torrent was named");
        public += usize::from(has(&buffer[..len], &scene.torrent.info_hash));
    }
}

#[test]
fn d9_nodes_are_known_after_a_restart_though_the_bootstrap_node_is_gone() {
    let (mut network, scene) = (Network::of(10), Scene::new(5));
    let mut relay = scene.relay(network.bootstrap);
    relay.wait_seeding();
    wait_nodes(&mut relay, 4);
    relay.process.terminate();
    relay.expect_done();
    drop(network.nodes.remove(0));
    let mut relay = scene.relay(network.bootstrap);
    wait_nodes(&mut relay, 3);
    network.wait_announced(scene.torrent.info_hash);
}

#[test]
fn d1_datagrams_that_are_bombs_do_not_harm_a_node() {
    let scene = Scene::new(6);
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut relay = scene.relay(nobody.local_addr().expect("its address"));
    let node = dht_address(&mut relay);
    let us = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    us.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let id = "a".repeat(20);
    for bomb in [
        "l".repeat(2000),
        format!("d1:ad2:id20:{id}1:x{}", "l".repeat(1900)),
        format!("d1:x{}", "d1:a".repeat(490)),
        format!("d1:ad2:id20:{id}e1:q4:pingi{}e", "9".repeat(1000)),
        String::new(),
    ] {
        us.send_to(bomb.as_bytes(), node).expect("a datagram is sent");
    }
    us.send_to(format!("d1:ad2:id20:{id}e1:q4:ping1:t2:xy1:y1:qe").as_bytes(), node).expect("sent");
    let mut buffer = [0; 2048];
    let (len, from) = us.recv_from(&mut buffer).expect("an answer");
    assert_eq!(from, node);
    assert!(buffer[..len].windows(6).any(|window| window == b"1:t2:x"), "{:?}", &buffer[..len]);
}

fn libtorrent(
    scene: &Scene,
    dir: &Path,
    bootstrap: Option<SocketAddr>,
    seed: bool,
) -> Option<(Process, u16)> {
    let found = Command::new(python()).args(["-c", "import libtorrent"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        skip("libtorrent", "the client is not installed (run scripts/setup)");
        return None;
    }
    std::fs::create_dir_all(dir).expect("directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/libtorrent_peer.py");
    let port = support::free_port();
    let mut command = Command::new(python());
    command.arg(script).arg("--torrent").arg(&scene.file).arg("--dir").arg(dir);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--dht"]);
    if let Some(bootstrap) = bootstrap {
        command.args(["--dht-bootstrap", &bootstrap.to_string()]);
    }
    if seed {
        command.arg("--seed");
    }
    let mut process = Process::spawn("libtorrent", &mut command, scene.temp.path());
    let event = if seed { r#""seeding""# } else { r#""started""# };
    process.expect_line("its start", |line| line.contains(event).then_some(()));
    Some((process, port))
}

/// A relay of another torrent is the node by which all enter.
#[test]
fn libtorrent_and_troc_find_each_other_by_nodes_of_ours() {
    let other = Scene::new(7);
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address");
    let mut first = other.relay(nobody);
    let bootstrap = dht_address(&mut first);

    let scene = Scene::new(8);
    let Some((_seed, _)) = libtorrent(&scene, &scene.path("source"), Some(bootstrap), true) else { return };
    first.wait("its announce", |status| status.0["dht"][0]["stored_peers"].as_u64() >= Some(1));
    scene.get("fetched", bootstrap).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");

    let scene = Scene::new(9);
    let mut relay = scene.relay(bootstrap);
    relay.wait_seeding();
    first.wait("our announce", |status| status.0["dht"][0]["stored_peers"].as_u64() >= Some(2));
    let Some((mut peer, _)) = libtorrent(&scene, &scene.path("fetched"), Some(bootstrap), false) else {
        return;
    };
    peer.expect_line("all of it", |line| line.contains(r#""finished""#).then_some(()));
    scene.torrent.assert_identical(&scene.path("fetched"), "libtorrent");
}

/// A libtorrent node of another torrent keeps our announce and tells it.
#[test]
fn nodes_of_ours_find_each_other_by_a_libtorrent_node() {
    let other = Scene::new(10);
    let Some((_node, port)) = libtorrent(&other, &other.path("source"), None, true) else { return };
    let bootstrap = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let scene = Scene::new(11);
    let mut relay = scene.relay(bootstrap);
    relay.wait_seeding();
    wait_nodes(&mut relay, 1);
    scene.get("fetched", bootstrap).expect_done();
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

/// Prints the figure of the README: from the start of a `get` to its first payload, in a table of fifty.
#[test]
fn a_get_finds_its_first_payload_in_a_table_of_fifty_nodes() {
    let (network, scene) = (Network::of(50), Scene::new(12));
    let mut relay = scene.relay(network.bootstrap);
    relay.wait_seeding();
    network.wait_announced(scene.torrent.info_hash);
    let mut took: Vec<Duration> = (0..5)
        .map(|n| {
            let began = Instant::now();
            let mut node = scene.get(&format!("fetched{n}"), network.bootstrap);
            node.wait("payload", |status| status.bytes("downloaded_bytes") > 0);
            let took = began.elapsed();
            node.expect_done();
            took
        })
        .collect();
    took.sort();
    println!("start to first payload by a table of 50 nodes: median {:?} of {took:?}", took[2]);
}

/// The second host comes later and hears nothing of the first announce: its own brings the first one to dial.
#[test]
fn d8_two_hosts_find_each_other_on_their_wire_and_nowhere_else() {
    find_on_a_wire(&Scene::new(13), |scene| scene.file.clone());
}

#[test]
fn a_magnet_link_and_a_neighbour_are_enough() {
    find_on_a_wire(&Scene::new(31), Scene::link);
}

fn find_on_a_wire(scene: &Scene, source: fn(&Scene) -> PathBuf) {
    let Some(wire) = Bridge::new("local discovery", 2) else { return };
    let mut command = troc("relay", scene.temp.path());
    command.arg(&scene.file).arg("--dir").arg(scene.path("source"));
    command.args(["--listen", "0.0.0.0:0", "--lsd", "--no-dht", "--json", "--cache", "64MiB"]);
    let mut relay = Node::spawn("relay", &mut wire.within(0, &command), scene.temp.path());
    relay.wait_seeding();
    let mut command = get(&source(scene), &scene.path("fetched"), &scene.path("get-scratch"));
    command.args(["--listen", "10.77.0.2:0", "--no-dht"]);
    let began = Instant::now();
    let mut node = Node::spawn("get", &mut wire.within(1, &command), scene.temp.path());
    // It may be done between two lines of its status: what it has is what tells that it found somebody.
    node.expect_done();
    println!("two hosts found each other, and one has it all, after {:?}", began.elapsed());
    scene.torrent.assert_identical(&scene.path("fetched"), "troc get");
}

/// A tracker that answers one scrape by HTTP; where it is asked for announces.
fn scraped_tracker(hash: [u8; 20]) -> (String, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}/announce", listener.local_addr().expect("its address"));
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            head.extend_from_slice(&byte);
        }
        let counts = b"d8:completei7e10:downloadedi42e10:incompletei3ee";
        let body = [&b"d5:filesd20:"[..], &hash, counts, b"ee"].concat();
        let length = body.len();
        let start = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(&[start.as_bytes(), &body].concat()).expect("an answer");
        String::from_utf8_lossy(&head).into_owned()
    });
    (url, answering)
}

#[test]
fn show_asks_trackers_for_their_counts() {
    let scene = Scene::new(14);
    let (url, answering) = scraped_tracker(scene.torrent.info_hash);
    let file = scene.torrent.write(&scene.path("tracked.torrent"), Some(&url));
    let shown = troc("show", scene.temp.path()).arg(&file).args(["--scrape", "--json"]).output();
    let shown: serde_json::Value = serde_json::from_slice(&shown.expect("troc show").stdout).expect("JSON");
    let counts = &shown["scrape"][0];
    assert_eq!(counts["seeds"].as_u64(), Some(7), "{shown}");
    assert_eq!((counts["peers"].as_u64(), counts["completed"].as_u64()), (Some(3), Some(42)));
    assert!(answering.join().expect("the tracker").starts_with("GET /scrape?info_hash="));
    // It is gone now: a refusal is told, and the rest is shown.
    let shown = troc("show", scene.temp.path()).arg(&file).arg("--scrape").output().expect("troc show");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("cannot be reached"), "{text}");
}

#[test]
fn all_tiers_hear_of_a_torrent_where_that_is_asked_for() {
    let scene = Scene::new(15);
    let trackers = [Tracker::start(), Tracker::start()];
    let made = troc("create", scene.temp.path())
        .arg(scene.path("source/payload.bin"))
        .args([
            "--piece-size",
            "256KiB",
            "--tracker",
            &trackers[0].url(),
            "--tracker",
            &trackers[1].url(),
            "-o",
        ])
        .arg(scene.path("tiers.torrent"))
        .output()
        .expect("troc create");
    assert!(made.status.success(), "{made:?}");
    let mut command = relay(&scene.path("tiers.torrent"), &scene.path("source"), scene.temp.path());
    let mut relay = Node::spawn("relay", command.arg("--announce-all"), scene.temp.path());
    let port = relay.wait_seeding().port();
    for tracker in &trackers {
        tracker.wait_announced(scene.torrent.info_hash, port);
    }
}
