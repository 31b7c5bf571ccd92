//! Encrypted handshakes (MSE) with real clients that speak nothing else, and between nodes of `troc`.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use support::PATIENCE;
use support::clients::{Job, Kind, Speech};
use support::node::{Node, get, relay};
use support::scene::Scene;

fn scene() -> Scene {
    Scene::new(8 << 20, 256 << 10, 16)
}

impl Scene {
    fn relay(&self, policy: &str) -> (Node, SocketAddr) {
        let mut command = relay(&self.file(true), &self.path("source"), self.temp.path());
        command.args(["--encryption", policy]);
        let mut node = Node::spawn("relay", &mut command, self.temp.path());
        let address = node.wait_seeding();
        (node, address)
    }

    /// `troc get` from `peer`; it must end well.
    fn fetch(&self, peer: SocketAddr, policy: &str) {
        self.fetch_source(&self.file(false), peer, policy);
    }

    /// The same with a link that names nobody.
    fn fetch_by_link(&self, peer: SocketAddr, policy: &str) {
        let link = format!("magnet:?xt=urn:btih:{}", self.torrent.info_hash_hex());
        self.fetch_source(Path::new(&link), peer, policy);
    }

    fn fetch_source(&self, source: &Path, peer: SocketAddr, policy: &str) {
        let mut command = get(source, &self.path("fetched"), self.temp.path());
        command.args(["--encryption", policy, "--peer"]).arg(peer.to_string());
        Node::spawn("get", &mut command, self.temp.path()).expect_done();
        self.assert_fetched("troc get");
    }
}

/// A client that takes encrypted connections alone seeds; `troc get` finds out and fetches.
fn seeds_to_get(kind: Kind, policy: &str) {
    if kind.available() {
        let scene = scene();
        let client = scene.client(kind, Job::Seed, Speech::Encrypted);
        scene.fetch(client.addr, policy);
    }
}

/// A client that makes and takes encrypted connections alone fetches from a relay; either dials.
fn fetches_from_relay(kind: Kind, policy: &str) {
    if kind.available() {
        let scene = scene();
        let mut client = scene.client(kind, Job::Fetch, Speech::Encrypted);
        let (_node, _) = scene.relay(policy);
        client.wait_complete(&scene.tracker);
        scene.assert_fetched(&format!("{kind:?}"));
    }
}

#[test]
fn libtorrent_seeds_under_rc4() {
    seeds_to_get(Kind::Libtorrent, "accept");
}

#[test]
fn libtorrent_fetches_under_rc4() {
    fetches_from_relay(Kind::Libtorrent, "accept");
}

#[test]
fn libtorrent_fetches_from_who_requires_it_too() {
    fetches_from_relay(Kind::Libtorrent, "require");
}

#[test]
fn transmission_seeds_encrypted() {
    seeds_to_get(Kind::Transmission, "prefer");
}

#[test]
fn transmission_fetches_encrypted() {
    fetches_from_relay(Kind::Transmission, "accept");
}

#[test]
fn aria2_seeds_under_rc4() {
    seeds_to_get(Kind::Aria2, "accept");
}

#[test]
fn aria2_fetches_under_rc4() {
    fetches_from_relay(Kind::Aria2, "prefer");
}

/// Who has only a link, and takes nothing but RC4, gets metadata and payload from who takes nothing else.
#[test]
fn libtorrent_gives_the_metadata_of_a_link_under_rc4() {
    if Kind::Libtorrent.available() {
        for policy in ["accept", "require"] {
            let scene = scene();
            let client = scene.client(Kind::Libtorrent, Job::Seed, Speech::Encrypted);
            scene.fetch_by_link(client.addr, policy);
        }
    }
}

/// Policies that agree on something: of who seeds, and of who fetches.
const AGREEABLE: [(&str, &str); 6] = [
    ("accept", "accept"),
    ("accept", "prefer"),
    ("off", "prefer"),
    ("require", "accept"),
    ("accept", "require"),
    ("require", "require"),
];

fn agree(fetch: impl Fn(&Scene, SocketAddr, &str)) {
    for (theirs, ours) in AGREEABLE {
        let scene = scene();
        let (_node, address) = scene.relay(theirs);
        fetch(&scene, address, ours);
    }
}

#[test]
fn nodes_give_the_metadata_of_a_link_whatever_their_policies_as_long_as_they_can() {
    agree(Scene::fetch_by_link);
}

#[test]
fn nodes_agree_whatever_their_policies_as_long_as_they_can() {
    agree(Scene::fetch);
}

#[test]
fn p33_who_talks_in_ciphers_and_never_comes_to_the_point_is_hung_up_on() {
    let scene = scene();
    let (_node, address) = scene.relay("accept");
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // A public key, which is answered by one, and then noise beyond the longest padding.
    stream.write_all(&[2; 96]).expect("write");
    stream.read_exact(&mut [0; 96]).expect("its public key");
    let _ = stream.write_all(&[0xaa; 4096]);
    let mut rest = Vec::new();
    // The end of the stream, or a reset, since it had not read all.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() <= 512, "padding and nothing else");
    // A plain handshake is refused by who requires ciphers.
    let scene = self::scene();
    let (_node, address) = scene.relay("require");
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    hello.extend_from_slice(&scene.torrent.info_hash);
    hello.extend_from_slice(b"-XX0000-abcdefghijkl");
    stream.write_all(&hello).expect("write");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "nothing is said to who begins plainly");
}
