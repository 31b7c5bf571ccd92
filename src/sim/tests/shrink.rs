//! A cache that shrinks and grows while a node fetches and serves: everything completes, every byte is
//! right, and no slot is lost.

use std::rc::Rc;

use super::swarm::spec;
use super::{Profile, World};
use crate::base::rng::Rng;
use crate::base::time::Span;
use crate::sim::{Behaviour, Node, NodeSpec, Outcome, Peer, Run, SimTorrent};

/// Chunks of the torrent: 16 pieces of four.
const CHUNKS: u32 = 64;
const REGION_SLOTS: u32 = 8;
const REGIONS: u32 = 6;
/// Room for four pieces, as production keeps it.
const LEAST: u32 = 2;

struct Scene {
    world: World,
    run: Run,
    torrent: Rc<SimTorrent>,
    node: Node,
}

impl Scene {
    /// A node with a cache of three quarters of a torrent; `has_it` says whether it has that on disk.
    fn new(seed: u64, profile: Profile, has_it: bool) -> Self {
        let world = World::new(seed, profile);
        let mut run = Run::new(world.clone());
        let torrent = Rc::new(SimTorrent::plain(seed, u64::from(CHUNKS) << 18, 1 << 20));
        let [host, source] = [world.add_host(), world.add_host()];
        if has_it {
            world.disk(host, |disk, _, _| torrent.put_on(disk));
        }
        let (slots, region_slots) = (REGIONS * REGION_SLOTS, REGION_SLOTS);
        let spec = spec(&world, host, 1 + seed as usize % 3, &[source], seed);
        let spec = NodeSpec { slots, region_slots, connections_max: 64, ..spec };
        let node = Node::start(&mut run, &torrent, spec).unwrap();
        let seeder = Peer::new(&world, source, Rc::clone(&torrent.content), Behaviour::Seed, Some(1), vec![]);
        run.add(seeder.id(), seeder);
        Self { world, run, torrent, node }
    }

    /// Resizes the cache again and again until `is_done`, then checks what must hold.
    fn play(mut self, seed: u64, sizes: &[u32]) -> (u32, u32) {
        let reports: Vec<_> = (0..4)
            .map(|_| {
                let dials = vec![self.world.address(self.node.spec.host, 1)];
                let content = Rc::clone(&self.torrent.content);
                let peer =
                    Peer::new(&self.world, self.world.add_host(), content, Behaviour::Reader, None, dials);
                let report = peer.report();
                self.run.add(peer.id(), peer);
                report
            })
            .collect();
        let pieces = self.torrent.geometry().piece_count();
        let mut rng = Rng::new(seed);
        let (mut gone_most, mut resizes) = (0, 0);
        let limit = self.world.now() + Span::from_secs(600);
        loop {
            let Self { run, node, world, .. } = &mut self;
            let next = world.now() + Span::from_ms(20 + u64::from(rng.below(400)));
            let outcome = run.until(next.min(limit), |_| {
                gone_most = gone_most.max(node.cache_regions().gone);
                node.is_done() && reports.iter().all(|report| report.borrow().pieces == pieces)
            });
            if outcome == Outcome::Done {
                break;
            }
            assert!(world.now() < limit, "seed {seed}: {}", node.describe());
            node.resize_cache(world, sizes[rng.below(sizes.len() as u32) as usize]);
            resizes += 1;
        }
        for report in &reports {
            let report = report.borrow();
            assert_eq!((report.wrong_blocks, report.bad_frames), (0, 0), "seed {seed}: {report:?}");
        }
        // All returns, and nothing is missing.
        let Self { run, node, world, .. } = &mut self;
        node.resize_cache(world, REGIONS);
        let outcome =
            run.until(world.now() + Span::from_secs(60), |_| node.cache_regions().present == REGIONS);
        assert_eq!(outcome, Outcome::Done, "seed {seed}: {}", node.describe());
        node.stop(world);
        run.until(world.now() + Span::from_secs(60), |_| node.log.borrow().closed.is_some());
        assert_eq!((node.leak_after_stop(), node.slot_leak()), (None, None), "seed {seed}");
        (gone_most, resizes)
    }
}

fn slow_links() -> Profile {
    Profile { window_bytes: (128 << 10, 128 << 10), latency_ns: (1_000_000, 30_000_000), ..Profile::calm() }
}

#[test]
fn a_fetch_and_its_readers_complete_while_the_cache_shrinks_and_grows() {
    for seed in 0..12 {
        let sizes = [LEAST, LEAST, 3, REGIONS];
        let (gone, resizes) = Scene::new(seed, slow_links(), false).play(seed, &sizes);
        assert!(gone > 0 && resizes > 2, "seed {seed}: {gone} regions gone, {resizes} times");
    }
}

#[test]
fn a_fetch_completes_in_the_least_that_stays() {
    for seed in 0..8 {
        let (gone, _) = Scene::new(seed, slow_links(), false).play(seed, &[LEAST]);
        assert!(gone > 0, "seed {seed}");
    }
}

#[test]
fn a_payload_larger_than_the_cache_is_served_while_it_shrinks_and_grows() {
    for seed in 0..8 {
        let (gone, resizes) = Scene::new(seed, slow_links(), true).play(seed, &[LEAST, 4, REGIONS]);
        assert!(gone > 0 && resizes > 2, "seed {seed}: {gone} regions gone, {resizes} times");
    }
}
