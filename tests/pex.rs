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

/// A port that refuses connections until it is listened on, and that nobody else gets meanwhile.
fn refusing_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    (socket, address)
}

/// Compact form of an IPv4 address (BEP 11, 55).
fn compact(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("by IPv4") };
    [&address.ip().octets()[..], &address.port().to_be_bytes()].concat()
}

#[test]
fn who_named_a_peer_that_cannot_be_dialled_is_asked_for_a_rendezvous_and_then_it_is_dialled_again() {
    let scene = Scene::new();
    let hub = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let (target, address) = refusing_port();
    let _node = scene.fetcher("fetched", hub.local_addr().expect("its address"), "--pex");
    let mut peer = wire::Peer::on(hub.accept().expect("the fetcher").0);
    peer.hear_handshake(&scene.torrent.info_hash);
    peer.send(&wire::handshake(&scene.torrent.info_hash, b"-XX0001-the-hub-1234"));
    peer.send(&wire::message(20, b"\0d1:md12:ut_holepunchi2e6:ut_pexi1eee"));
    let greeting = peer.wait_for(20);
    // Under which ids the node wants them, by `engine/exchange.rs`.
    for id in [&b"6:ut_pexi5e"[..], b"12:ut_holepunchi6e"] {
        assert!(greeting.windows(id.len()).any(|part| part == id), "{greeting:?}");
    }
    let named = [&b"\x05d5:added6:"[..], &compact(address), b"7:added.f1:\x08e"].concat();
    peer.send(&wire::message(20, &named));
    let question = loop {
        let said = peer.wait_for(20);
        if said[0] == 2 {
            break said;
        }
    };
    assert_eq!(question[1..9], [&[0, 0][..], &compact(address)].concat(), "a rendezvous");
    target.listen(1).expect("it accepts now");
    let connect = [&[6, 1, 0][..], &compact(address), &[0; 4]].concat();
    peer.send(&wire::message(20, &connect));
    target.set_read_timeout(Some(support::PATIENCE)).expect("a time limit");
    let (stream, _) = target.accept().expect("it is dialled again");
    wire::Peer::on(stream.into()).hear_handshake(&scene.torrent.info_hash);
}
