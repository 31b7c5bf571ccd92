//! BitTorrent v2 and hybrid torrents with the built program (BEP 52): made, passed on, fetched, checked; with
//! libtorrent in both directions, and with peers that know v1 alone. (Transmission 3.00 reads no hybrid
//! torrent, whoever made it: it takes the empty key of a file tree for none.)

#![allow(clippy::disallowed_methods, reason = "a witness on the wire has a thread")]

#[path = "v2_transfer/magnet.rs"]
mod magnet;
mod support;
#[path = "hostile/wire.rs"]
mod wire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use support::clients::{Job, Kind, python};
use support::node::{Node, get, relay, troc};
use support::process::Process;
use support::torrent::Torrent;
use tempfile::TempDir;
use troc::hash::merkle;
use troc::proto::metainfo::Metainfo;
use wire::{FakeSeed, Manner, Payload, Peer, Said, assert_serves};

/// Files whose ends lie in every way to blocks, chunks and pieces of 512 KiB.
const FILES: [(&str, u64); 6] = [
    ("a/one piece and a byte", (512 << 10) + 1),
    ("a/short", 5),
    ("b/a block", 16 << 10),
    ("b/many pieces", (5 << 20) + 12_345),
    ("c/a chunk and a bit", (256 << 10) + 20_000),
    ("d/whole pieces", 2 << 20),
];

const PIECE_BYTES: u32 = 512 << 10;

/// A payload, and the torrent that `troc create` makes of it.
struct Scene {
    temp: TempDir,
    torrent: Torrent,
    file: PathBuf,
}

impl Scene {
    /// `format` is `--v2` or `--hybrid`.
    fn new(format: &str) -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::multi(&temp.path().join("source"), "payload", &FILES, PIECE_BYTES.into(), 52);
        Self::create(temp, torrent, format)
    }

    fn create(temp: TempDir, torrent: Torrent, format: &str) -> Self {
        Self::create_of(temp, torrent, format, "512KiB")
    }

    fn create_of(temp: TempDir, torrent: Torrent, format: &str, piece_size: &str) -> Self {
        let file = temp.path().join("made.torrent");
        let mut create = troc("create", temp.path());
        create.arg(torrent.source.join(&torrent.name)).arg("-o").arg(&file);
        create.args([format, "--piece-size", piece_size]);
        let made = create.output().expect("troc runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { temp, torrent, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn metainfo(&self) -> Metainfo {
        Metainfo::parse(&std::fs::read(&self.file).expect("the torrent")).expect("a good torrent")
    }

    fn relay(&self) -> (Node, SocketAddr) {
        let mut command = relay(&self.file, &self.path("source"), &self.path("relay"));
        let mut node = Node::spawn("relay", &mut command, self.temp.path());
        let address = node.wait_seeding();
        (node, address)
    }

    fn get(&self, peers: &[SocketAddr]) -> Node {
        self.get_by(peers, &[])
    }

    fn get_by(&self, peers: &[SocketAddr], flags: &[&str]) -> Node {
        let mut command = get(&self.file, &self.path("fetched"), &self.path("get"));
        // The relay would hear of the others and connect to them, too.
        command.arg("--no-pex").args(flags);
        for peer in peers {
            command.arg("--peer").arg(peer.to_string());
        }
        Node::spawn("get", &mut command, self.temp.path())
    }

    fn assert_fetched(&self, who: &str) {
        self.torrent.assert_identical(&self.path("fetched"), who);
    }

    fn verify(&self, dir: &Path) {
        let mut verify = troc("verify", self.temp.path());
        let checked = verify.arg(&self.file).arg(dir).output().expect("troc runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    /// libtorrent with the torrent that `troc` made.
    fn libtorrent(&self, job: Job) -> (Process, SocketAddr) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/libtorrent_peer.py");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, support::free_port()));
        let dir = self.path(if job == Job::Seed { "source" } else { "fetched" });
        let mut command = Command::new(python());
        command.arg(script).arg("--torrent").arg(&self.file).arg("--dir").arg(dir);
        command.arg("--listen").arg(address.to_string());
        if job == Job::Seed {
            command.arg("--seed");
        }
        let mut process = Process::spawn("libtorrent", &mut command, self.temp.path());
        process.expect_line("its address", |line| line.contains(r#""listening""#).then_some(()));
        if job == Job::Seed {
            process.expect_line("its check", |line| line.contains(r#""seeding""#).then_some(()));
        }
        (process, address)
    }
}

/// `troc relay` to `troc get`.
fn passes(format: &str) {
    let scene = Scene::new(format);
    let (_relay, address) = scene.relay();
    scene.get(&[address]).expect_done();
    scene.assert_fetched("get");
    scene.verify(&scene.path("fetched"));
}

#[test]
fn a_v2_torrent_is_made_passed_on_and_checked() {
    passes("--v2");
}

#[test]
fn a_hybrid_torrent_is_made_passed_on_and_checked() {
    passes("--hybrid");
}

/// libtorrent seeds, `troc get` fetches.
fn from_libtorrent(format: &str) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new(format);
    let (_libtorrent, address) = scene.libtorrent(Job::Seed);
    scene.get(&[address]).expect_done();
    scene.assert_fetched("get");
}

/// `troc relay` seeds, libtorrent fetches.
fn to_libtorrent(format: &str) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let scene = Scene::new(format);
    let (_relay, address) = scene.relay();
    let (mut libtorrent, _) = scene.libtorrent(Job::Fetch);
    libtorrent.say(&format!("peer {} {}", address.ip(), address.port()));
    libtorrent.expect_line("finished", |line| line.contains(r#""finished""#).then_some(()));
    scene.assert_fetched("libtorrent");
}

#[test]
fn a_v2_torrent_is_fetched_from_libtorrent() {
    from_libtorrent("--v2");
}

#[test]
fn a_hybrid_torrent_is_fetched_from_libtorrent() {
    from_libtorrent("--hybrid");
}

#[test]
fn libtorrent_fetches_a_v2_torrent() {
    to_libtorrent("--v2");
}

#[test]
fn libtorrent_fetches_a_hybrid_torrent() {
    to_libtorrent("--hybrid");
}

/// A hybrid torrent as a peer knows it that knows v1 alone: by its first name, with padding between the
/// files.
fn by_v1(scene: &Scene) -> Arc<Payload> {
    let metainfo = scene.metainfo();
    let mut bytes = Vec::new();
    for file in &metainfo.files {
        if file.pad {
            bytes.resize(bytes.len() + file.length as usize, 0);
        } else {
            let path = file.path.iter().fold(scene.path("source"), |path, name| path.join(name));
            bytes.extend(std::fs::read(path).expect("payload"));
        }
    }
    Arc::new(Payload { info_hash: metainfo.info_hash.0, bytes, piece_bytes: PIECE_BYTES })
}

#[test]
fn a_peer_that_knows_v1_alone_is_served_a_hybrid_torrent_and_its_padding() {
    let scene = Scene::new("--hybrid");
    let (_relay, address) = scene.relay();
    assert_serves(address, &by_v1(&scene));
}

#[test]
fn a_hybrid_torrent_is_fetched_from_a_peer_that_knows_v1_alone() {
    let scene = Scene::new("--hybrid");
    let seed = FakeSeed::start(&by_v1(&scene), Manner::Honest);
    scene.get(&[seed.addr]).expect_done();
    scene.assert_fetched("get");
}

/// By v2 there is no padding between files: a piece ends where its file does. A client that knows v2 alone is
/// in the swarm of the second name and hangs up on who comes by the first.
#[test]
fn a_hybrid_torrent_is_fetched_from_a_peer_that_knows_v2_alone() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 3 << 20, PIECE_BYTES.into(), 8);
    let scene = Scene::create(temp, torrent, "--hybrid");
    let second = scene.metainfo().names().nth(1).expect("a second name");
    let payload = Arc::new(Payload {
        info_hash: second.0,
        bytes: std::fs::read(scene.path("source/payload.bin")).expect("payload"),
        piece_bytes: PIECE_BYTES,
    });
    let seed = FakeSeed::start_that_knows_one_name(&payload, Manner::Honest);
    scene.get_by(&[seed.addr], &["--encryption", "off"]).expect_done();
    scene.assert_fetched("get");
    assert_eq!(seed.accepted.load(Ordering::SeqCst), 2, "by the first name, and at once by the second");
}

/// The witness is there before the liar and the honest one, has all and gives no block: so nobody but its
/// answer decides what the lie costs.
#[test]
fn p21_p22_one_wrong_block_in_a_v2_swarm_bans_its_giver_and_costs_that_block_alone() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let bytes = 8 << 20;
    let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", bytes, PIECE_BYTES.into(), 7);
    let scene = Scene::create(temp, torrent, "--v2");
    let payload = Arc::new(Payload {
        info_hash: scene.metainfo().info_hash.0,
        bytes: std::fs::read(scene.path("source/payload.bin")).expect("payload"),
        piece_bytes: PIECE_BYTES,
    });
    let [lies, gives, knows] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let peers = [&lies, &gives, &knows].map(|listener| listener.local_addr().expect("an address"));
    // Witnesses are asked on the core that has the piece: on another one the whole of it comes again.
    let mut node = scene.get_by(&peers, &["--cores", "1"]);
    let mut witness = Peer::on(knows.accept().expect("the node comes").0);
    witness.shake(&payload.info_hash);
    witness.send(&wire::message(14, b""));
    witness.wait_for(INTERESTED);
    let leaves: Vec<merkle::Hash> = payload.bytes.chunks(wire::BLOCK as usize).map(merkle::leaf).collect();
    let testimony = std::thread::spawn(move || testify(&mut witness, &leaves));
    let liar = FakeSeed::on(lies, &payload, Manner::LiesOnce);
    let honest = FakeSeed::on(gives, &payload, Manner::Honest);
    let mut wasted = 0;
    while let Some(status) = node.next_status() {
        wasted = status.bytes("wasted_bytes");
    }
    scene.assert_fetched("get");
    assert!(testimony.join().expect("a witness") > 0, "it was not asked");
    assert!(liar.sent.load(Ordering::SeqCst) > 0 || liar.ended.load(Ordering::SeqCst) > 0, "it was asked");
    assert_eq!(honest.accepted.load(Ordering::SeqCst), 1, "the honest one was sent away");
    assert_eq!(liar.accepted.load(Ordering::SeqCst), 1, "the liar was asked again");
    assert!(wasted < u64::from(PIECE_BYTES), "{wasted} bytes were thrown away for one block");
}

/// Answers what it is asked of the `leaves` of a file until the other side hangs up. Returns how often.
fn testify(witness: &mut Peer, leaves: &[merkle::Hash]) -> u32 {
    let mut answers = 0;
    while let Some(request) = witness.find(HASH_REQUEST) {
        let word = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let (index, length) = (word(36) as usize, word(40) as usize);
        let hashes = [&request[..], leaves[index..index + length].as_flattened()].concat();
        witness.send(&wire::message(HASHES, &hashes));
        answers += 1;
    }
    answers
}

const INTERESTED: u8 = 2;

/// Messages of BEP 52.
const HASH_REQUEST: u8 = 21;
const HASHES: u8 = 22;
const HASH_REJECT: u8 = 23;

/// A file of one piece, of which a peer knows the leaves.
struct OnePiece {
    scene: Scene,
    payload: Arc<Payload>,
    leaves: Vec<merkle::Hash>,
}

impl OnePiece {
    fn new(piece_bytes: u32, piece_size: &str) -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let bytes = u64::from(piece_bytes);
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", bytes, bytes, 7);
        let scene = Scene::create_of(temp, torrent, "--v2", piece_size);
        let bytes = std::fs::read(scene.path("source/payload.bin")).expect("payload");
        let leaves = bytes.chunks(wire::BLOCK as usize).map(merkle::leaf).collect();
        let payload = Payload { info_hash: scene.metainfo().info_hash.0, bytes, piece_bytes };
        Self { scene, payload: Arc::new(payload), leaves }
    }

    /// Asks for all leaves.
    fn hash_request(&self) -> Vec<u8> {
        let height = self.leaves.len().ilog2();
        let root = merkle::root(&mut self.leaves.clone(), 0, height).expect("a tree");
        let words = [0, 0, self.leaves.len() as u32, height - 1].map(u32::to_be_bytes);
        [&root[..], words.as_flattened()].concat()
    }

    /// The answer.
    fn hashes(&self) -> Vec<u8> {
        [&self.hash_request()[..], self.leaves.as_flattened()].concat()
    }
}

#[test]
fn p21_p22_a_wrong_block_of_a_long_piece_is_found_before_the_piece_is_whole() {
    const CHUNK_BYTES: u32 = 256 << 10;
    let one = OnePiece::new(8 << 20, "8MiB");
    let [lies, honest] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let peers = [&lies, &honest].map(|listener| listener.local_addr().expect("an address"));
    let mut node = one.scene.get_by(&peers, &["--cores", "1"]);
    // It gives one chunk of the piece, one block of it wrong, and what the node wants to know. So far nobody
    // else says anything.
    let mut liar = Peer::on(lies.accept().expect("the node comes").0);
    liar.shake(&one.payload.info_hash);
    liar.send(&[wire::message(14, b""), wire::message(1, b"")].concat());
    let (mut asked, mut given) = (0, 0);
    loop {
        match liar.next() {
            Said::Message(HASH_REQUEST, body) => {
                assert_eq!(body, one.hash_request());
                liar.send(&wire::message(HASHES, &one.hashes()));
                asked += 1;
            }
            Said::Message(6, body) => {
                let begin = u32::from_be_bytes(body[4..8].try_into().expect("four bytes"));
                let mut bytes = one.payload.block(0, begin, wire::BLOCK).to_vec();
                bytes[7] ^= u8::from(begin == 0);
                if begin < CHUNK_BYTES {
                    liar.send(&wire::piece(0, begin, &bytes));
                    given += wire::BLOCK;
                }
            }
            Said::Message(..) => {}
            Said::End => break,
        }
    }
    assert_eq!((asked, given), (1, CHUNK_BYTES));
    let _honest = FakeSeed::on(honest, &one.payload, Manner::Honest);
    let mut wasted = 0;
    while let Some(status) = node.next_status() {
        wasted = status.bytes("wasted_bytes");
    }
    one.scene.assert_fetched("get");
    assert_eq!(wasted, u64::from(wire::BLOCK));
}

#[test]
fn all_leaves_of_a_piece_of_16_mib_are_given_to_who_asks() {
    let one = OnePiece::new(16 << 20, "16MiB");
    let (_relay, address) = one.scene.relay();
    let mut peer = Peer::open(address, &one.payload.info_hash);
    peer.send(&wire::message(HASH_REQUEST, &one.hash_request()));
    assert!(peer.wait_for(HASHES) == one.hashes());
}

#[test]
fn libtorrent_answers_what_is_asked_ahead() {
    if !Kind::Libtorrent.available() {
        return;
    }
    let one = OnePiece::new(1 << 20, "1MiB");
    let (_libtorrent, address) = one.scene.libtorrent(Job::Seed);
    let mut peer = Peer::open(address, &one.payload.info_hash);
    peer.send(&wire::message(HASH_REQUEST, &one.hash_request()));
    loop {
        match peer.next() {
            Said::Message(HASHES, body) => break assert!(body == one.hashes()),
            Said::Message(HASH_REJECT, body) => break assert!(body == one.hash_request()),
            Said::Message(..) => {}
            Said::End => panic!("it hung up"),
        }
    }
}
