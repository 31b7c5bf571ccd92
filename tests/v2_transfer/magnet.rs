//! Magnet links to v2 and hybrid torrents: the info dictionary by either hash, then piece layers from peers.
#![allow(clippy::disallowed_methods, reason = "a peer on the wire has a thread")]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{self, free_port};
use super::wire::{HANDSHAKE, Peer, Said, handshake, message, piece};
use super::*;

/// By which of its hashes a link names a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    V1,
    V2,
    Both,
}

impl Scene {
    /// A link with more parts behind its hashes.
    fn link(&self, by: By, parts: &str) -> String {
        let metainfo = self.metainfo();
        let v1 = (by != By::V2).then(|| format!("xt=urn:btih:{}", metainfo.info_hash));
        let v2 = metainfo.v2.as_ref().filter(|_| by != By::V1);
        let v2 = v2.map(|v2| format!("xt=urn:btmh:1220{}", v2.info_hash_hex()));
        let topics: Vec<String> = v1.into_iter().chain(v2).collect();
        format!("magnet:?{}&dn=payload{parts}", topics.join("&"))
    }

    fn get_link(&self, link: &str) -> Command {
        let mut command = get(Path::new(link), &self.path("fetched"), &self.path("get"));
        command.arg("--no-pex");
        command
    }

    fn fetch_link(&self, link: &str) {
        Node::spawn("get", &mut self.get_link(link), self.temp.path()).expect_done();
        self.assert_fetched("get");
    }

    /// A relay of its own state that has all of `fetched`, or fetches it.
    fn second_relay(&self, args: &[&str]) -> (Node, SocketAddr) {
        let mut command = troc("relay", &self.path("second"));
        command.args(args).arg("--dir").arg(self.path("fetched"));
        command.args(["--listen", "127.0.0.1:0", "--json", "--cache", "64MiB"]);
        let mut node = Node::spawn("second", &mut command, self.temp.path());
        let address = node.wait_seeding();
        (node, address)
    }

    /// What the state directory has of a link's torrent.
    fn kept(&self, by: By) -> Metainfo {
        let metainfo = self.metainfo();
        let short = metainfo.v2.as_ref().map(|v2| v2.short_info_hash());
        let name = if by == By::V2 { short.expect("a v2 torrent") } else { metainfo.info_hash };
        let path = self.path("get/get-state").join(format!("{name}.torrent"));
        Metainfo::parse(&std::fs::read(path).expect("it is kept")).expect("a whole torrent")
    }
}

/// The last line of an error, and the status.
fn error_of(command: &mut Command) -> (String, Option<i32>) {
    let output = command.stdin(Stdio::null()).output().expect("troc runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().rfind(|line| line.starts_with("troc: ")).unwrap_or_default();
    (line.to_owned(), output.status.code())
}

/// `troc relay` has all; `troc get` has a link, and asks nobody the second time.
fn passes_by_link(format: &str, by: By) {
    let scene = Scene::new(format);
    let (relay, address) = scene.relay();
    let link = scene.link(by, &format!("&x.pe={address}"));
    scene.fetch_link(&link);
    scene.verify(&scene.path("fetched"));
    let (kept, whole) = (scene.kept(by), scene.metainfo());
    assert_eq!((&kept.info, &kept.v2), (&whole.info, &whole.v2), "with all of its layers");
    drop(relay);
    Node::spawn("again", &mut scene.get_link(&link), scene.temp.path()).expect_done();
}

#[test]
fn a_v2_link_is_all_that_a_get_needs() {
    passes_by_link("--v2", By::V2);
}

#[test]
fn a_hybrid_is_fetched_whole_by_its_v1_hash() {
    passes_by_link("--hybrid", By::V1);
}

#[test]
fn a_hybrid_is_fetched_whole_by_its_v2_hash() {
    passes_by_link("--hybrid", By::V2);
}

#[test]
fn a_hybrid_is_fetched_whole_by_both_of_its_hashes() {
    passes_by_link("--hybrid", By::Both);
}

/// Each peer is found by the name that its link has.
fn found_by_tracker(format: &str, by: By) {
    let scene = Scene::new(format);
    let mut command = relay(&scene.file, &scene.path("source"), &scene.path("relay"));
    command.args(["--tracker", "127.0.0.1:0"]);
    let mut node = Node::spawn("relay", &mut command, scene.temp.path());
    node.wait_seeding();
    let status = node.wait("its tracker", |status| status.0["tracker"].is_string());
    let url = format!("http://{}/announce", status.0["tracker"].as_str().expect("an address"));
    let url: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
    scene.fetch_link(&scene.link(by, &format!("&tr={url}")));
}

#[test]
fn a_v2_link_with_a_tracker_alone_is_enough() {
    found_by_tracker("--v2", By::V2);
}

#[test]
fn a_link_to_a_hybrid_with_a_tracker_alone_is_enough() {
    found_by_tracker("--hybrid", By::Both);
}

#[test]
fn a_relay_fetches_by_a_v2_link_and_knows_it_without_being_told_again() {
    let scene = Scene::new("--v2");
    let (seed, address) = scene.relay();
    std::fs::create_dir(scene.path("fetched")).expect("a directory");
    let (mut node, _) = scene.second_relay(&[&scene.link(By::V2, &format!("&x.pe={address}"))]);
    node.process.terminate();
    node.process.expect_success();
    scene.assert_fetched("relay");
    drop(seed);
    scene.second_relay(&[]);
}

/// libtorrent seeds, `troc get` has a link.
fn from_libtorrent_by_link(format: &str, by: By) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new(format);
    let (_libtorrent, address) = scene.libtorrent(Job::Seed);
    scene.fetch_link(&scene.link(by, &format!("&x.pe={address}")));
    assert_eq!(scene.kept(by).v2, scene.metainfo().v2);
}

#[test]
fn libtorrent_gives_the_layers_of_a_v2_link() {
    from_libtorrent_by_link("--v2", By::V2);
}

#[test]
fn libtorrent_gives_the_layers_of_a_hybrid_by_its_v1_hash() {
    from_libtorrent_by_link("--hybrid", By::V1);
}

#[test]
fn libtorrent_gives_the_layers_of_a_hybrid_by_its_v2_hash() {
    from_libtorrent_by_link("--hybrid", By::V2);
}

#[test]
fn libtorrent_gives_the_layers_of_a_hybrid_by_both_of_its_hashes() {
    from_libtorrent_by_link("--hybrid", By::Both);
}

/// `troc get` has a link and knows nobody: it waits for peers to connect.
fn get_that_waits(scene: &Scene, by: By) -> (Node, SocketAddr) {
    let mut command = scene.get_link(&scene.link(by, ""));
    command.args(["--listen", "127.0.0.1:0", "--no-dht", "--no-lsd"]);
    let mut node = Node::spawn("get", &mut command, scene.temp.path());
    let address = node.wait_listening();
    (node, address)
}

/// Metadata and layers come by connections that others open.
#[test]
fn a_v2_link_is_enough_where_who_has_its_metadata_can_only_dial_us() {
    let scene = Scene::new("--v2");
    let (mut node, address) = get_that_waits(&scene, By::V2);
    let mut command = relay(&scene.file, &scene.path("source"), &scene.path("relay"));
    command.arg("--peer").arg(address.to_string());
    let _relay = Node::spawn("relay", &mut command, scene.temp.path());
    node.expect_done();
    scene.assert_fetched("get");
    assert_eq!(scene.kept(By::V2).v2, scene.metainfo().v2);
}

/// libtorrent seeds, and dials.
fn from_libtorrent_that_dials(format: &str, by: By) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new(format);
    let (mut node, address) = get_that_waits(&scene, by);
    let (mut libtorrent, _) = scene.libtorrent(Job::Seed);
    libtorrent.say(&format!("peer {} {}", address.ip(), address.port()));
    node.expect_done();
    scene.assert_fetched("get");
}

#[test]
fn libtorrent_that_can_only_dial_us_gives_the_layers_of_a_v2_link() {
    from_libtorrent_that_dials("--v2", By::V2);
}

#[test]
fn libtorrent_that_can_only_dial_us_gives_a_hybrid_by_its_v1_hash() {
    from_libtorrent_that_dials("--hybrid", By::V1);
}

/// `troc relay` seeds, libtorrent has a link.
fn to_libtorrent_by_link(format: &str, by: By) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let mut scene = Scene::new(format);
    let (_relay, address) = scene.relay();
    scene.file = scene.link(by, "").into();
    let (mut libtorrent, _) = scene.libtorrent(Job::Fetch);
    libtorrent.say(&format!("peer {} {}", address.ip(), address.port()));
    libtorrent.expect_line("finished", |line| line.contains(r#""finished""#).then_some(()));
    scene.assert_fetched("libtorrent");
}

#[test]
fn libtorrent_is_given_the_layers_of_a_v2_link() {
    to_libtorrent_by_link("--v2", By::V2);
}

#[test]
fn libtorrent_is_given_the_layers_of_a_hybrid_by_both_of_its_hashes() {
    to_libtorrent_by_link("--hybrid", By::Both);
}

#[test]
fn t23_a_link_whose_hashes_are_of_two_torrents_is_refused() {
    let scene = Scene::new("--hybrid");
    let (_relay, address) = scene.relay();
    let whole = scene.link(By::Both, &format!("&x.pe={address}"));
    let at = whole.find("btmh:1220").expect("a v2 hash") + "btmh:1220".len();
    let mut torn = whole.clone();
    torn.replace_range(at..at + 64, &"ab".repeat(32));
    let (line, status) = error_of(&mut scene.get_link(&torn));
    assert_eq!(status, Some(1), "{line}");
    assert!(line.starts_with("troc: cannot use what the magnet link names, payload: its btih and"), "{line}");
}

/// How a peer by hand treats who asks it for piece layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layers {
    /// It gives zeros.
    Zeros,
    /// It rejects whatever is asked for.
    Rejects,
    /// It says nothing.
    Silence,
    /// It knows the torrent by its v1 hash alone, and gives all blocks of it.
    KnowsV1Alone,
}

/// A peer that gives the info dictionary, and counts how often it was asked for hashes, or for another name.
fn giver(scene: &Scene, layers: Layers) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (info, payload) = (scene.metainfo().info, by_v1(scene));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (info, payload, counter) = (info.clone(), Arc::clone(&payload), Arc::clone(&counter));
            std::thread::spawn(move || give(&mut Peer::on(stream), layers, &info, &payload, &counter));
        }
    });
    (address, asked)
}

fn give(peer: &mut Peer, layers: Layers, info: &[u8], payload: &Payload, asked: &AtomicUsize) -> Option<()> {
    let mut theirs = [0; HANDSHAKE];
    std::io::Read::read_exact(&mut peer.stream, &mut theirs).ok()?;
    let name: [u8; 20] = theirs[28..48].try_into().ok()?;
    if layers == Layers::KnowsV1Alone && name != payload.info_hash {
        asked.fetch_add(1, Ordering::SeqCst);
        return None;
    }
    peer.send(&handshake(&name, b"-XX0002-by-hand-1234"));
    let hello = format!("\0d1:md11:ut_metadatai3ee13:metadata_sizei{}ee", info.len());
    peer.send(&message(20, hello.as_bytes()));
    if layers == Layers::KnowsV1Alone {
        peer.send(&[message(14, b""), message(1, b"")].concat());
    }
    while let Said::Message(id, body) = peer.next() {
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
        match id {
            6 => {
                let (index, begin, length) = (word(0), word(4), word(8));
                peer.send(&piece(index, begin, payload.block(index, begin, length)));
            }
            // Under the id that was announced; d8:msg_typei0e5:piecei<N>ee
            20 if body[0] == 3 => {
                let text = String::from_utf8_lossy(&body).into_owned();
                let number: usize = text.split("5:piecei").nth(1)?.split('e').next()?.parse().ok()?;
                let bytes = info.chunks(16 << 10).nth(number)?;
                let head = format!("\td8:msg_typei1e5:piecei{number}e10:total_sizei{}ee", info.len());
                peer.send(&message(20, &[head.as_bytes(), bytes].concat()));
            }
            21 => {
                asked.fetch_add(1, Ordering::SeqCst);
                let (length, proof) = (word(40), word(44) + 1);
                let hashes = length + proof.saturating_sub(length.ilog2());
                match layers {
                    Layers::Zeros => {
                        peer.send(&message(22, &[&body[..], &vec![0; 32 * hashes as usize]].concat()))
                    }
                    Layers::Rejects => peer.send(&message(23, &body)),
                    Layers::Silence | Layers::KnowsV1Alone => true,
                };
            }
            _ => {}
        }
    }
    None
}

#[test]
fn p44_peers_that_lie_about_layers_reject_or_are_silent_do_not_stop_it() {
    for format in ["--v2", "--hybrid"] {
        let scene = Scene::new(format);
        let others = [Layers::Zeros, Layers::Rejects, Layers::Silence].map(|layers| giver(&scene, layers));
        let named: String = others.iter().map(|(address, _)| format!("&x.pe={address}")).collect();
        // The honest one comes up when all of them were asked.
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let link = scene.link(By::V2, &format!("{named}&x.pe={address}"));
        let mut node = Node::spawn("get", &mut scene.get_link(&link), scene.temp.path());
        for (_, asked) in &others {
            support::poll("a request", || (asked.load(Ordering::SeqCst) > 0).then_some(()));
        }
        let mut command = troc("relay", &scene.path("relay"));
        command.arg(&scene.file).arg("--dir").arg(scene.path("source"));
        command.args(["--cache", "64MiB", "--listen"]).arg(address.to_string());
        let _seed = Node::spawn("relay", &mut command, scene.temp.path());
        node.expect_done();
        scene.assert_fetched("get");
        assert_eq!(scene.kept(By::V2).v2, scene.metainfo().v2);
    }
}

#[test]
fn p44_who_finds_nobody_with_layers_says_so() {
    let scene = Scene::new("--v2");
    let (address, _) = giver(&scene, Layers::Rejects);
    let link = scene.link(By::V2, &format!("&x.pe={address}"));
    let (line, status) = error_of(scene.get_link(&link).args(["--no-peers-timeout-ms", "1000"]));
    assert_eq!(status, Some(1), "{line}");
    assert!(line.starts_with("troc: no metadata for 1 s, payload: "), "{line}");
    assert!(line.contains("piece layers are missing") && line.contains("refused"), "{line}");
}

#[test]
fn a_hybrid_goes_on_by_its_v1_part_where_nobody_gives_its_layers() {
    let scene = Scene::new("--hybrid");
    let (address, asked) = giver(&scene, Layers::KnowsV1Alone);
    scene.fetch_link(&scene.link(By::Both, &format!("&x.pe={address}")));
    assert!(asked.load(Ordering::SeqCst) > 0, "it was asked by the other name");
    let kept = scene.kept(By::Both);
    assert!(kept.has_v1() && kept.v2.is_none());
}

/// What a relay without SOURCE starts with.
fn remembered(scene: &Scene) -> Metainfo {
    let entries = std::fs::read_dir(scene.path("second/relay-state")).expect("the state directory");
    let names = entries.map(|entry| entry.expect("an entry").path());
    let of_library = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.contains('-') && name.ends_with(".torrent")
    };
    let path = names.into_iter().find(of_library).expect("it is remembered");
    Metainfo::parse(&std::fs::read(path).expect("a copy")).expect("a good torrent")
}

#[test]
fn a_relay_that_went_on_by_the_v1_part_finds_the_layers_at_its_next_start_and_is_whole_at_the_one_after() {
    let scene = Scene::new("--hybrid");
    let (address, _) = giver(&scene, Layers::KnowsV1Alone);
    std::fs::create_dir(scene.path("fetched")).expect("a directory");
    let stop = |mut node: Node| {
        node.process.terminate();
        node.process.expect_success();
    };
    stop(scene.second_relay(&[&scene.link(By::V1, &format!("&x.pe={address}"))]).0);
    assert_eq!(remembered(&scene).v2, None);
    // It has all of the payload, so that nobody waits for anything.
    let (_seed, seed) = scene.relay();
    let (node, _) = scene.second_relay(&["--peer", &seed.to_string()]);
    support::poll("its piece layers", || (remembered(&scene).v2 == scene.metainfo().v2).then_some(()));
    stop(node);
    let (_node, address) = scene.second_relay(&[]);
    let link = scene.link(By::V2, &format!("&x.pe={address}"));
    let mut by_v2 = get(Path::new(&link), &scene.path("copy"), &scene.path("get"));
    Node::spawn("get", &mut by_v2, scene.temp.path()).expect_done();
    scene.torrent.assert_identical(&scene.path("copy"), "get");
}
