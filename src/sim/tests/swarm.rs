//! Small swarms of whole nodes, each for one thing that random seeds would show only by luck.

use std::rc::Rc;

use super::{HostId, Profile, World};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::sim::profile::PPM;
use crate::sim::{Behaviour, Canary, Node, NodeSpec, Outcome, Peer, Run, SimTorrent};

/// A node on `host` that nothing limits; the operator names `peers`.
pub(super) fn spec(world: &World, host: HostId, cores: usize, peers: &[HostId], seed: u64) -> NodeSpec {
    NodeSpec {
        host,
        cores,
        port: 1,
        slots: 248,
        region_slots: 248,
        connections_max: 16,
        peers: peers.iter().map(|&peer| world.address(peer, 1)).collect(),
        sequential: false,
        limits: (None, None),
        seed,
        unchoked_min: None,
        canary: Canary::None,
    }
}

#[test]
fn p5_two_nodes_that_dial_each_other_end_with_one_connection() {
    for seed in 0..60 {
        let profile = Profile { latency_ns: (1_000, 50_000_000), ..Profile::calm() };
        let world = World::new(seed, profile);
        let mut run = Run::new(world.clone());
        let torrent = Rc::new(SimTorrent::from_seed(seed));
        let hosts = [world.add_host(), world.add_host()];
        let _nodes = [(0, 1), (1, 0)].map(|(own, other)| {
            let cores = 1 + (seed as usize + own) % 3;
            let spec = spec(&world, hosts[own], cores, &[hosts[other]], seed * 2 + own as u64);
            Node::start(&mut run, &torrent, spec).unwrap()
        });
        // Neither has anything, so none ever finds the other useless.
        for seconds in [5, 60] {
            run.until(world.now() + Span::from_secs(seconds), |_| false);
            let open = hosts.map(|host| world.open_ends(host));
            assert_eq!(open, [1, 1], "seed {seed}, after {seconds} s");
        }
    }
}

#[test]
fn s9_a_place_that_cannot_be_read_costs_its_piece_and_no_other() {
    let world = World::new(1, Profile::calm());
    let mut run = Run::new(world.clone());
    let torrent = Rc::new(SimTorrent::plain(1, 8 << 20, 1 << 20));
    let host = world.add_host();
    world.disk(host, |disk, _, _| {
        torrent.put_on(disk);
        let file = disk.find("file 0").unwrap();
        disk.spoil(file, (3 << 20) + 300_000);
    });
    // Its first check does not read by operations that fail: what is spoilt is found by serving it.
    let node = Node::start(&mut run, &torrent, spec(&world, host, 2, &[], 1)).unwrap();
    let reports: Vec<_> = (0..4)
        .map(|_| {
            let dials = vec![world.address(host, 1)];
            let content = Rc::clone(&torrent.content);
            let peer = Peer::new(&world, world.add_host(), content, Behaviour::Reader, None, dials);
            let report = peer.report();
            run.add(peer.id(), peer);
            report
        })
        .collect();
    // Without the fast extension nobody is told of a refusal: such a reader gives up and comes back.
    run.until(world.now() + Span::from_secs(300), |_| {
        reports.iter().all(|report| report.borrow().pieces == 7) && node.log.borrow().failed
    });
    assert!(node.log.borrow().failed, "it is reported");
    for report in reports {
        let report = report.borrow();
        assert_eq!((report.pieces, report.wrong_blocks, report.bad_frames), (7, 0, 0), "{report:?}");
    }
    let lost: Vec<u32> = (0..8).filter(|&piece| !node.shared.has(piece)).collect();
    assert_eq!(lost, [3]);
}

#[test]
fn p21_a_liar_beside_a_seed_is_found_and_nobody_else() {
    let mixed = |seed: &u64| SimTorrent::from_seed(*seed).geometry().piece_bytes > BLOCK_BYTES;
    let mut found = 0;
    for seed in (0..).filter(mixed).take(100) {
        let world = World::new(seed, Profile::calm());
        let mut run = Run::new(world.clone());
        let torrent = Rc::new(SimTorrent::from_seed(seed));
        let hosts = [world.add_host(), world.add_host(), world.add_host()];
        for (host, behaviour) in [(hosts[1], Behaviour::Liar { ppm: PPM }), (hosts[2], Behaviour::Seed)] {
            let content = Rc::clone(&torrent.content);
            let peer = Peer::new(&world, host, content, behaviour, Some(1), vec![]);
            run.add(peer.id(), peer);
        }
        let spec = spec(&world, hosts[0], 1 + seed as usize % 2, &hosts[1..], seed);
        let node = Node::start(&mut run, &torrent, spec).unwrap();
        let outcome = run.until(world.now() + Span::from_secs(120), |_| node.is_done());
        assert_eq!(outcome, Outcome::Done, "seed {seed}: {}", node.describe());
        let log = node.log.borrow();
        assert!(log.accused.iter().all(|&address| address == world.address(hosts[1], 1)), "seed {seed}");
        found += log.accused.len();
    }
    // In a few runs the seed is so much faster that no lie ever counts.
    assert!(found >= 70, "found in {found} of 100");
}
