//! More torrents than a relay keeps open: all are served, and what nobody asks for is closed.

mod support;

#[path = "hostile/relay.rs"]
mod relay;
#[path = "hostile/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay::descriptors;
use support::node::{Node, troc};
use support::torrent::Torrent;
use troc::base::limits::TORRENTS_KEPT_AWAKE;
use wire::{Payload, Peer, assert_serves};

/// All that a node without torrents has open, and more.
const DESCRIPTORS_BASE: usize = 100;

struct Library {
    temp: tempfile::TempDir,
    files: Vec<PathBuf>,
    payloads: Vec<Arc<Payload>>,
}

impl Library {
    fn new(torrents: usize) -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let (mut files, mut payloads) = (Vec::new(), Vec::new());
        for seed in 0..torrents {
            let name = format!("torrent-{seed}");
            let torrent = Torrent::single(&temp.path().join("source"), &name, 40_000, 32 << 10, seed as u64);
            files.push(torrent.write(&temp.path().join(format!("{name}.torrent")), None));
            payloads.push(Payload::of(&torrent, 32 << 10));
        }
        Self { temp, files, payloads }
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    /// A relay of all, once all are seeding.
    fn relay(&self) -> (Node, SocketAddr) {
        let mut command = troc("relay", self.path());
        command.args(&self.files).arg("--dir").arg(self.path().join("source"));
        command.args(["--listen", "127.0.0.1:0", "--cores", "2", "--cache", "64MiB"]);
        command.args(["--json", "--status-interval-ms", "50"]);
        let mut node = Node::spawn("relay", &mut command, self.path());
        let status = node.wait("all to be seeding", |status| {
            let torrents = status.0["torrents"].as_array().expect("a list");
            torrents.iter().all(|torrent| torrent["state"] == "seeding")
        });
        let addr = status.listen().expect("it listens");
        (node, addr)
    }
}

fn stop(mut node: Node) {
    node.process.terminate();
    node.expect_done();
}

#[test]
fn many_torrents_are_closed_until_a_peer_asks_and_then_all_are_served() {
    let torrents = 3 * TORRENTS_KEPT_AWAKE;
    let library = Library::new(torrents);
    let (checked, addr) = library.relay();
    assert_serves(addr, &library.payloads[torrents / 2]);
    assert!(descriptors(checked.process.pid()) < DESCRIPTORS_BASE, "closed after the check");
    stop(checked);

    let (clean, addr) = library.relay();
    assert!(descriptors(clean.process.pid()) < DESCRIPTORS_BASE, "nothing is open while nobody asks");
    // All ask before any is answered; some ask twice.
    let again = library.payloads.iter().step_by(5);
    let mut asking: Vec<_> =
        library.payloads.iter().chain(again).map(|payload| (Peer::connect(addr), payload)).collect();
    for (peer, payload) in &mut asking {
        peer.send(&wire::handshake(&payload.info_hash, b"-XX0001-by-hand-1234"));
    }
    for (peer, payload) in &mut asking {
        peer.hear_handshake(&payload.info_hash);
        peer.send(&wire::message(2, b""));
        peer.wait_for(1);
        let block = peer.fetch(1, 0, 40_000 - (32 << 10));
        assert_eq!(block.as_deref(), Some(payload.block(1, 0, 40_000 - (32 << 10))));
    }
    drop(asking);
    library.payloads.iter().for_each(|payload| assert_serves(addr, payload));
    stop(clean);
}

#[test]
fn a_payload_that_was_changed_under_a_sleeping_torrent_is_not_served() {
    let library = Library::new(TORRENTS_KEPT_AWAKE + 1);
    let (node, addr) = library.relay();
    let spoilt = library.path().join("source/torrent-0");
    std::fs::write(&spoilt, vec![7; 40_000]).expect("payload");
    let mut peer = Peer::open(addr, &library.payloads[0].info_hash);
    // It was checked again when it was opened: we have no piece of it (BEP 6, have none).
    peer.wait_for(15);
    assert_serves(addr, &library.payloads[1]);
    stop(node);
}
