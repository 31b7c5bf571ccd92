//! Peers that want much and give nothing, beside honest ones on one node: the honest ones finish in at
//! most 1/0.9 of the time that they take alone, and every bound on what is kept for a peer holds.
//!
//! What is scarce is given by the scene: the node's uplink, its one core, or its slots. The greedy have
//! thin links: with a thick one they would get the share that any peer gets.

use std::cell::RefCell;
use std::rc::Rc;

use super::swarm::spec;
use super::{Profile, World};
use crate::base::time::Span;
use crate::sim::{Behaviour, Node, NodeSpec, Outcome, Peer, Report, Run, SimTorrent};

const HONEST: usize = 4;
const GREEDY: usize = 8;
const SEEDS: u64 = 3;

/// The greedy ones come first: what each may have at once, it has when the honest ones begin.
const HEAD_START: Span = Span::from_ms(100);

/// What is scarce on the node.
#[derive(Clone, Debug)]
struct Scene {
    /// Its uplink, in bytes per second.
    uplink: u64,
    /// Link of each greedy peer, in bytes per second.
    greedy_link: u64,
    /// Slots of its cache.
    slots: u32,
    torrent_bytes: u64,
    profile: Profile,
}

impl Scene {
    /// The uplink is what limits.
    fn uplink(bytes_per_sec: u64, torrent_bytes: u64) -> Self {
        let profile = Profile { window_bytes: (128 << 10, 128 << 10), ..Profile::calm() };
        Self { uplink: bytes_per_sec, greedy_link: bytes_per_sec / 400, slots: 248, torrent_bytes, profile }
    }

    /// The slots are what limits, for minutes: half as many as the payload has chunks.
    fn slots() -> Self {
        Self { slots: 32, ..Self::uplink(256 << 10, 16 << 20) }
    }

    /// The core is what limits, a tenth as fast as that of a real node: the run is long beside the epochs in
    /// which the node learns how much it sends.
    fn core(torrent_bytes: u64) -> Self {
        let profile = Profile { completion_ns: 15_000, byte_ps: 2_000, ..Profile::calm() };
        let greedy_link = 800 << 10;
        Self { uplink: 1 << 40, greedy_link, slots: 248, torrent_bytes, profile }
    }
}

/// How long the honest peers take beside so many greedy ones, and how often those connected.
fn time(scene: &Scene, seed: u64, greedy: Option<Behaviour>) -> (Span, u32) {
    let world = World::new(seed, scene.profile.clone());
    let mut run = Run::new(world.clone());
    let torrent = Rc::new(SimTorrent::plain(seed, scene.torrent_bytes, 1 << 20));
    let host = world.add_host();
    world.set_link(host, scene.uplink);
    world.disk(host, |disk, _, _| torrent.put_on(disk));
    let spec = NodeSpec { slots: scene.slots, connections_max: 64, ..spec(&world, host, 1, &[], seed) };
    let node = Node::start(&mut run, &torrent, spec).unwrap();
    let add = |run: &mut Run, behaviour, link: Option<u64>| {
        let host = world.add_host();
        link.into_iter().for_each(|link| world.set_link(host, link));
        let dials = vec![world.address(node.spec.host, 1)];
        let peer = Peer::new(&world, host, Rc::clone(&torrent.content), behaviour, None, dials);
        let report = peer.report();
        run.add(peer.id(), peer);
        report
    };
    let others = if greedy.is_some() { GREEDY } else { 0 };
    let greedy: Vec<_> =
        (0..others).filter_map(|_| Some(add(&mut run, greedy?, Some(scene.greedy_link)))).collect();
    run.until(world.now() + HEAD_START, |_| false);
    let begun = world.now();
    let honest: Vec<_> = (0..HONEST).map(|_| add(&mut run, Behaviour::Reader, None)).collect();
    let pieces = torrent.geometry().piece_count();
    let fed = |report: &Rc<RefCell<Report>>| report.borrow().pieces == pieces;
    let outcome = run.until(begun + Span::from_secs(3_600), |_| {
        assert_eq!(node.over_a_limit(), None);
        honest.iter().all(fed)
    });
    assert_eq!(outcome, Outcome::Done, "seed {seed}: {}", node.describe());
    assert!(honest.iter().all(|report| report.borrow().wrong_blocks + report.borrow().bad_frames == 0));
    (world.now().since(begun), greedy.iter().map(|report| report.borrow().links).sum())
}

/// The honest peers' throughput beside the greedy ones is at least 0.9 of what it is without.
fn assert_unharmed(scene: &Scene, greedy: Behaviour) {
    assert_left(scene, greedy, 1);
}

/// The honest peers' throughput beside the greedy ones is at least 0.9 of one part in so many of what it is
/// without.
fn assert_left(scene: &Scene, greedy: Behaviour, parts: u64) {
    for seed in 0..SEEDS {
        let (clean, _) = time(scene, seed, None);
        let (beside, links) = time(scene, seed, Some(greedy));
        println!("{greedy:?}, seed {seed}: {clean:?} alone, {beside:?} beside them");
        assert!(links as usize >= GREEDY, "they were there");
        assert!(
            clean.0 * parts * 10 >= beside.0 * 9,
            "seed {seed}: {clean:?} alone, {beside:?} beside {greedy:?}"
        );
    }
}

#[test]
fn p35_slow_readers_harm_nobody() {
    assert_unharmed(&Scene::uplink(256 << 10, 8 << 20), Behaviour::SlowReader { bytes: 128 });
    assert_unharmed(&Scene::slots(), Behaviour::SlowReader { bytes: 128 });
}

#[test]
fn p13_p35_peers_that_never_read_harm_nobody() {
    assert_unharmed(&Scene::uplink(256 << 10, 8 << 20), Behaviour::NeverReader);
    assert_unharmed(&Scene::slots(), Behaviour::NeverReader);
}

#[test]
fn p14_requests_for_one_byte_harm_nobody() {
    assert_unharmed(&Scene::uplink(4 << 20, 8 << 20), Behaviour::TinyAsker);
    // A byte costs a core about half of what a block costs: each gets a share of it, as a reader would.
    let scene = Scene { greedy_link: 1 << 40, ..Scene::core(8 << 20) };
    assert_left(&scene, Behaviour::TinyAsker, ((HONEST + GREEDY) / HONEST) as u64);
}

#[test]
fn p13_requests_beyond_what_may_wait_harm_nobody() {
    assert_unharmed(&Scene::uplink(4 << 20, 8 << 20), Behaviour::OverAsker);
    assert_unharmed(&Scene::core(8 << 20), Behaviour::OverAsker);
}

#[test]
fn p16_cancel_storms_harm_nobody() {
    assert_unharmed(&Scene::uplink(4 << 20, 8 << 20), Behaviour::Canceller);
    assert_unharmed(&Scene::core(8 << 20), Behaviour::Canceller);
}

#[test]
fn p25_interest_that_comes_and_goes_harms_nobody() {
    assert_unharmed(&Scene::uplink(4 << 20, 8 << 20), Behaviour::InterestFlapper);
    assert_unharmed(&Scene::core(8 << 20), Behaviour::InterestFlapper);
}

#[test]
fn p38_peers_that_request_and_leave_harm_nobody() {
    assert_unharmed(&Scene::uplink(4 << 20, 8 << 20), Behaviour::HitAndRun);
    assert_unharmed(&Scene::core(8 << 20), Behaviour::HitAndRun);
}
