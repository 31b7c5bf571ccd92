//! What one node makes of many sources of one rate, each well below what the node can take.

use std::rc::Rc;

use super::swarm::spec;
use super::{Profile, World};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::sim::{Behaviour, Node, NodeSpec, Outcome, Peer, Run, SimTorrent};

const SOURCES: u64 = 16;
const STALLED: u64 = 2;
const SEEDS: u64 = 3;

/// Of each source, a second. With it, and the payload, each gives for 1.6 s: as 64 of 20 MB/s do with 2 GiB.
const RATE_BYTES: u64 = 5 << 20;
const TOTAL_BYTES: u64 = 128 << 20;

/// Slots: as many as the payload has chunks, and a fourth, which still holds four chunks of each source.
const AMPLE: u32 = 248;
const SMALL: u32 = 64;

/// How long all of it takes where `stalled` of the sources stop half way through their share.
fn time(seed: u64, stalled: u64, slots: u32) -> Span {
    let world = World::new(seed, Profile { window_bytes: (256 << 10, 256 << 10), ..Profile::calm() });
    let mut run = Run::new(world.clone());
    let torrent = Rc::new(SimTorrent::plain(seed, TOTAL_BYTES, 1 << 20));
    let blocks = TOTAL_BYTES / SOURCES / 2 / u64::from(BLOCK_BYTES);
    let mut sources = Vec::new();
    for source in 0..SOURCES {
        let host = world.add_host();
        world.set_link(host, RATE_BYTES);
        let behaviour = if source < stalled { Behaviour::StallerLate { blocks } } else { Behaviour::Seed };
        let peer = Peer::new(&world, host, Rc::clone(&torrent.content), behaviour, Some(1), Vec::new());
        sources.push(host);
        run.add(peer.id(), peer);
    }
    let spec = spec(&world, world.add_host(), 1, &sources, seed);
    let spec = NodeSpec { slots, region_slots: slots, connections_max: 64, ..spec };
    let node = Node::start(&mut run, &torrent, spec).unwrap();
    let begun = world.now();
    let outcome = run.until(begun + Span::from_secs(600), |_| node.is_done());
    assert_eq!(outcome, Outcome::Done, "seed {seed}: {}", node.describe());
    world.now().since(begun)
}

/// What all sources together take at least.
fn ideal() -> Span {
    Span(1_000_000_000 * TOTAL_BYTES / (SOURCES * RATE_BYTES))
}

#[test]
fn many_sources_add_up() {
    for seed in 0..SEEDS {
        let took = time(seed, 0, AMPLE);
        println!("seed {seed}: {:.3}", ideal().0 as f64 / took.0 as f64);
        assert!(ideal().0 * 10 >= took.0 * 9, "seed {seed}: {took:?} instead of {:?}", ideal());
    }
}

#[test]
fn a_small_cache_is_shared_among_sources() {
    for seed in 0..SEEDS {
        let took = time(seed, 0, SMALL);
        println!("seed {seed}: {:.3}", ideal().0 as f64 / took.0 as f64);
        assert!(ideal().0 * 10 >= took.0 * 7, "seed {seed}: {took:?} instead of {:?}", ideal());
    }
}

/// What is lost is what they would have given, not what the others give.
#[test]
fn sources_that_stall_half_way_cost_their_share() {
    for seed in 0..SEEDS {
        let (clean, beside) = (time(seed, 0, AMPLE), time(seed, STALLED, AMPLE));
        // For the second half there are so many fewer.
        let share = clean.0 / 2 + clean.0 / 2 * SOURCES / (SOURCES - STALLED);
        println!("seed {seed}: {clean:?}, {beside:?} beside stalls, {:?} by their share", Span(share));
        assert!(beside.0 * 20 <= share * 21, "seed {seed}: {beside:?}, {share}");
    }
}
