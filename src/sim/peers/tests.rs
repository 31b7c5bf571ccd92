use std::rc::Rc;

use super::*;
use crate::base::geometry::Geometry;
use crate::sim::profile::{PPM, Profile};
use crate::sim::run::{Outcome, Run};

/// A leech that connects to one peer of each behaviour, for at most so many seconds.
fn fetch(
    seed: u64,
    profile: Profile,
    sources: &[Behaviour],
    seconds: u64,
) -> (Outcome, Report, Vec<Report>, u64) {
    let world = World::new(seed, profile);
    let content = Rc::new(Content::from_seed(seed, Geometry::new(700_001, 64 << 10)));
    let mut run = Run::new(world.clone());
    let mut dials = Vec::new();
    let mut reports = Vec::new();
    for &behaviour in sources {
        let host = world.add_host();
        let peer = Peer::new(&world, host, Rc::clone(&content), behaviour, Some(1), vec![]);
        reports.push(peer.report());
        dials.push(world.address(host, 1));
        run.add(peer.id(), peer);
    }
    let leech = Peer::new(&world, world.add_host(), content, Behaviour::Leech, None, dials);
    let report = leech.report();
    run.add(leech.id(), leech);
    let limit = world.now() + Span::from_secs(seconds);
    let outcome = run.until(limit, |_| report.borrow().pieces == 11);
    let others = reports.iter().map(|report| report.borrow().clone()).collect();
    (outcome, report.borrow().clone(), others, world.trace_hash())
}

#[test]
fn a_leech_fetches_all_from_each_kind_of_honest_peer() {
    for behaviour in [Behaviour::Seed, Behaviour::Shuffler, Behaviour::ChokeFlapper] {
        assert!(behaviour.is_enough());
        let (outcome, leech, others, _) = fetch(1, Profile::calm(), &[behaviour], 30);
        assert_eq!((outcome, leech.wrong_blocks, leech.bad_frames), (Outcome::Done, 0, 0), "{behaviour:?}");
        assert!(leech.blocks_got >= 43 && others[0].blocks_sent >= leech.blocks_got, "{behaviour:?}");
    }
}

#[test]
fn each_misbehaviour_does_what_its_name_says() {
    let run = |behaviour| fetch(1, Profile::calm(), &[behaviour], 30);
    let (outcome, leech, others, _) = run(Behaviour::Liar { ppm: PPM });
    assert_eq!((outcome, leech.wrong_blocks), (Outcome::Done, others[0].lies));
    for behaviour in [Behaviour::Denier, Behaviour::StallerSilent, Behaviour::Flooder, Behaviour::StallerHalf]
    {
        let (outcome, leech, _, _) = run(behaviour);
        assert_ne!(outcome, Outcome::Done, "{behaviour:?}");
        assert_eq!(leech.blocks_got, 0, "{behaviour:?}");
    }
    let (_, leech, _, _) = run(Behaviour::Garbage);
    assert!(leech.bad_frames > 0);
    let (_, leech, _, _) = run(Behaviour::Quitter { at_byte: 40_000 });
    assert!(leech.links > 2, "it came back after each end");
    let (_, leech, _, _) = run(Behaviour::Unsolicited);
    assert!(leech.unrequested_blocks > 0 && leech.wrong_blocks == 0);
}

#[test]
fn a_run_is_repeated_by_its_seed_and_ends_whatever_the_knobs() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let sources =
            [Behaviour::Seed, Behaviour::Liar { ppm: 100_000 }, Behaviour::ChokeFlapper, Behaviour::Garbage];
        let first = fetch(seed, Profile::from_seed(seed), &sources, 3_600);
        assert_eq!(first, fetch(seed, Profile::from_seed(seed), &sources, 3_600), "seed {seed}");
        assert_eq!(first.0, Outcome::Done, "seed {seed}: {first:?}");
        hashes.insert(first.3);
    }
    assert_eq!(hashes.len(), 40);
}
