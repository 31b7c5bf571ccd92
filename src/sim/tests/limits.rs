//! Rate limits of whole nodes: what goes over the simulated links in ten seconds.

use std::rc::Rc;

use super::{Profile, World};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::shared::torrent::CoreStats;
use crate::sim::{Behaviour, Node, Peer, Run, SimTorrent};

use super::swarm::spec;

/// Payload that a node of two cores with these limits moves in ten seconds, after some to begin.
fn moved(limits: (Option<u64>, Option<u64>), field: fn(&CoreStats) -> u64) -> u64 {
    let world = World::new(3, Profile::calm());
    let mut run = Run::new(world.clone());
    let torrent = Rc::new(SimTorrent::plain(3, 64 << 20, 1 << 20));
    let host = world.add_host();
    let seeds = limits.0.is_some();
    if seeds {
        world.disk(host, |disk, _, _| torrent.put_on(disk));
    }
    let others: Vec<_> = (0..3).map(|_| world.add_host()).collect();
    let (behaviour, dialled) =
        if seeds { (Behaviour::Reader, &[][..]) } else { (Behaviour::Seed, &others[..]) };
    for &other in &others {
        let (port, dials) = if seeds { (None, vec![world.address(host, 1)]) } else { (Some(1), vec![]) };
        let peer = Peer::new(&world, other, Rc::clone(&torrent.content), behaviour, port, dials);
        run.add(peer.id(), peer);
    }
    let mut spec = spec(&world, host, 2, dialled, 3);
    spec.limits = limits;
    let node = Node::start(&mut run, &torrent, spec).unwrap();
    let sum = || node.shared.stats.iter().map(|stats| field(stats)).sum::<u64>();
    run.until(world.now() + Span::from_secs(3), |_| false);
    let before = sum();
    run.until(world.now() + Span::from_secs(10), |_| false);
    sum() - before
}

#[test]
fn a_node_sends_and_receives_what_its_limits_say() {
    for rate in [100_000, 3 << 20] {
        let slack = if rate >= 1 << 20 { rate * 10 / 50 } else { BLOCK_BYTES.into() };
        let sent = moved((Some(rate), None), |stats| stats.sent_bytes.get());
        assert!(sent.abs_diff(rate * 10) <= slack, "sent {sent} of {}", rate * 10);
        let received = moved((None, Some(rate)), |stats| stats.received_bytes.get());
        assert!(received.abs_diff(rate * 10) <= slack, "received {received} of {}", rate * 10);
    }
}
