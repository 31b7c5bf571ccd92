//! Whole nodes in the simulator: each seed is a swarm with its own faults, enemies, crashes and
//! restarts. A seed that fails is run again, with what happens in it, by
//! `TROC_SEED=<seed> cargo test --profile ci --test sim replay -- --nocapture`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use troc::sim::{Canary, Verdict, run_seed};

/// A canary must not live longer.
const CANARY_SEEDS: u64 = 20;

/// Runs a seed; what did not hold, panics included.
fn outcome(seed: u64, canary: Canary, tell: &mut dyn FnMut(String)) -> Result<Verdict, String> {
    let run = AssertUnwindSafe(|| run_seed(seed, canary, tell));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Runs all seeds of a range, so that one bad change shows all that it breaks.
fn run_seeds(seeds: std::ops::Range<u64>) {
    let mut failed = Vec::new();
    let mut sum = Verdict::default();
    for seed in seeds.clone() {
        match outcome(seed, Canary::None, &mut |_| {}) {
            Ok(verdict) => {
                sum.steps += verdict.steps;
                sum.ends += verdict.ends;
                sum.failures += verdict.failures;
                sum.resizes += verdict.resizes;
                sum.leeched_blocks += verdict.leeched_blocks;
            }
            Err(wrong) => failed.push(format!(
                "seed {seed}: {wrong}\n  \
                 TROC_SEED={seed} cargo test --profile ci --test sim replay -- --nocapture"
            )),
        }
    }
    println!("seeds {seeds:?}: {sum:?}");
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn replay() {
    let seed = std::env::var("TROC_SEED").map_or(0, |seed| seed.parse().expect("TROC_SEED is a number"));
    let verdict = outcome(seed, Canary::None, &mut |line| println!("{line}"));
    println!("seed {seed}: {verdict:?}");
    verdict.unwrap();
}

/// Equal seeds give equal runs, step by step: what a failing seed shows can be looked at again.
#[test]
fn sim_runs_repeat() {
    for seed in 0..40 {
        let run = || outcome(seed, Canary::None, &mut |_| {}).unwrap();
        assert_eq!(run(), run(), "seed {seed}");
    }
    let hash = |seed| outcome(seed, Canary::None, &mut |_| {}).unwrap().trace_hash;
    assert_ne!(hash(0), hash(1));
}

/// Mistakes that a control thread might make are caught within so many seeds.
#[test]
fn sim_canary_is_caught() {
    for (canary, sign) in [
        (Canary::EarlyDurable, "durable by the journal"),
        (Canary::LostEdges, "durable by the journal"),
        (Canary::KeptMark, "the journal reads clean"),
    ] {
        let caught = (0..CANARY_SEEDS).find(|&seed| outcome(seed, canary, &mut |_| {}).is_err());
        let seed = caught.unwrap_or_else(|| panic!("{canary:?} was not caught in {CANARY_SEEDS} seeds"));
        let wrong = outcome(seed, canary, &mut |_| {}).unwrap_err();
        assert!(wrong.contains(sign), "{canary:?}, seed {seed}: {wrong}");
    }
}

#[test]
fn sim_seeds_0() {
    run_seeds(0..100);
}

#[test]
fn sim_seeds_100() {
    run_seeds(100..200);
}

#[test]
fn sim_seeds_200() {
    run_seeds(200..300);
}

#[test]
fn sim_seeds_300() {
    run_seeds(300..400);
}

#[test]
fn sim_seeds_400() {
    run_seeds(400..500);
}

#[test]
fn sim_seeds_500() {
    run_seeds(500..600);
}
