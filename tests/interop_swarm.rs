//! A swarm of everyone: one seed, seven fetchers of four makes, one torrent with awkward files.

mod support;

use std::net::Ipv4Addr;

use support::clients::{Job, Kind, Start};
use support::node::{Node, get, relay};
use support::torrent::Torrent;
use support::tracker::Tracker;

const PIECE_BYTES: u64 = 256 << 10;

/// 64 MiB over files that end anywhere: within a page, a block and a piece, one smaller than a
/// block, one empty, one that spans hundreds of pieces.
const FILES: &[(&str, u64)] = &[
    ("a/readme.txt", 4_099),
    ("a/weights-1.bin", (20 << 20) + 12_345),
    ("b/empty", 0),
    ("b/index.json", 777),
    ("b/deep/er/weights-2.bin", (30 << 20) + 1),
    ("b/one-page", 4_096),
    ("c/tail.bin", (14 << 20) - 21_318),
];

#[test]
fn a_mixed_swarm_ends_with_identical_bytes() {
    let others = [Kind::Transmission, Kind::Aria2, Kind::Libtorrent];
    let others: Vec<Kind> = others.into_iter().filter(|kind| kind.available()).collect();
    let temp = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| temp.path().join(name);
    let tracker = Tracker::start();
    let torrent = Torrent::multi(&path("source"), "mixed", FILES, PIECE_BYTES, 64);
    assert_eq!(torrent.total_bytes, 64 << 20);
    let file = torrent.write(&path("troc.torrent"), Some(&tracker.url()));

    // Each on an address of its own: transmission takes one peer per address.
    let mut clients: Vec<_> = others
        .iter()
        .zip(2..)
        .map(|(kind, host)| {
            let start = Start {
                job: Job::Fetch,
                torrent: &torrent,
                tracker: &tracker,
                dir: &path(&format!("{kind:?}-dir")),
                scratch: &path(&format!("{kind:?}")),
                ip: Ipv4Addr::new(127, 0, 0, host),
            };
            kind.start(&start)
        })
        .collect();
    for client in &clients {
        client.wait_ready(&tracker);
    }
    let mut nodes: Vec<Node> = (0..3)
        .map(|index| {
            let scratch = path(&format!("get-{index}"));
            let mut command = get(&file, &path(&format!("dir-{index}")), &scratch);
            command.args(["--seed", "--listen", "127.0.0.1:0"]);
            Node::spawn("get", &mut command, &scratch)
        })
        .collect();
    for node in &mut nodes {
        node.wait_listening();
    }
    let mut seed = Node::spawn("relay", &mut relay(&file, &path("source"), &path("relay")), &path("relay"));
    seed.wait_seeding();

    for (index, node) in nodes.iter_mut().enumerate() {
        node.wait("all pieces on disk", |status| status.bytes("durable_bytes") == torrent.total_bytes);
        torrent.assert_identical(&path(&format!("dir-{index}")), "a troc node");
    }
    for client in &mut clients {
        client.wait_complete(&tracker);
        let dir = path(&format!("{:?}-dir", client.kind));
        torrent.assert_identical_but_for_empty(&dir, &format!("{:?}", client.kind));
    }
}
