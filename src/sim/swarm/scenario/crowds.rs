//! Crowds of equal hosts around one seed.

use super::super::tally::{jain, quantile};
use super::*;

/// Uplinks of one peer that an ample seed has.
const AMPLE: u64 = 4;

/// E1. Clean, then with shares of free riders, with a scarce seed and an ample one.
pub(super) fn free_riders(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(300, 40));
    for (links, seed) in [(1, "scarce seed"), (AMPLE, "ample seed")] {
        let mut clean = 0.0;
        for percent in [0, 10, 40, 60] {
            let riders = all * percent / 100;
            let groups = vec![
                setup.seed_of(links),
                setup.contributors(all - riders),
                setup.rogues(Rogue::FreeRider, riders),
            ];
            let tally = run(&setup.plan(content, groups));
            let case = format!("{seed}, {percent} % ride free");
            let time = mean_time(&tally, Role::Contributor);
            if percent == 0 {
                clean = time;
                let bound = chunk_bound(content, all, setup.rate);
                figures.add(&case, "mean / bound", time / bound, Bar::AtMost(1.10));
                figures.add(&case, "makespan / bound", makespan(&tally) / bound, Bar::None);
            } else {
                let (price, slower) = match (links, percent) {
                    (AMPLE, 40) => (Bar::AtMost(1.15), Bar::AtLeast(2.0)),
                    _ => (Bar::None, Bar::None),
                };
                figures.add(&case, "price of free riding", time / clean, price);
                figures.add(&case, "riders slower by", mean_time(&tally, Role::Rogue) / time, slower);
                add_given_to_riders(&mut figures, &case, &tally);
            }
            figures.add(&case, "copies of the seed", seed_copies(&tally, content), Bar::None);
            figures.add(&case, "thrown away", wasted_part(&tally), Bar::None);
            figures.add(&case, "uplinks busy", utilisation(&tally), Bar::None);
        }
    }
    figures
}

/// E7. Everybody comes within a second.
pub(super) fn flash_crowd(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(1_000, 60));
    let tally = run(&setup.plan(content, vec![setup.seed_of(1), setup.contributors(all)]));
    let bound = chunk_bound(content, all, setup.rate);
    figures.add("", "makespan / bound", makespan(&tally) / bound, Bar::AtMost(1.25));
    let times = tally.times(tally.of(Role::Contributor));
    figures.add("", "95 % / bound", quantile(&times, 0.95) / bound, Bar::None);
    figures.add("", "copies of the seed", seed_copies(&tally, content), Bar::None);
    figures
}

/// E8. People come one after the other, a third of them gives up half way; the others are done, and not much
/// later than without those.
pub(super) fn churn(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(150, 36));
    let alone = Span(content.geometry.total_bytes * 1_000_000_000 / setup.rate);
    let steady = |count: usize| Group { within: alone, ..setup.contributors(count) };
    let still = run(&setup.plan(content, vec![setup.seed_of(AMPLE), steady(all)]));
    let quitters =
        Group { within: alone, ..setup.contributors(all / 3).staying(Stay::For(Span(alone.0 / 2))) };
    let tally = run(&setup.plan(content, vec![setup.seed_of(AMPLE), steady(all - all / 3), quitters]));
    let price = mean(&tally.times(tally.of_group(1))) / mean_time(&still, Role::Contributor);
    figures.add(
        "a third gives up",
        "all others done",
        Tally::done_share(tally.of_group(1)),
        Bar::AtLeast(1.0),
    );
    figures.add("a third gives up", "price", price, Bar::AtMost(1.15));
    figures
}

/// E9. Whether all contributors are done although the seed has left.
pub(super) fn last_seed_leaves(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(60, 24));
    for riding in [0, 40] {
        for (copies, bar) in [(1.05, Bar::None), (1.2, Bar::AtLeast(0.95)), (1.5, Bar::None)] {
            let riders = all * riding / 100;
            let bytes = (content.geometry.total_bytes as f64 * copies) as u64;
            // Who has got everything stays: else the last piece leaves with the first who has it.
            let groups = vec![
                setup.seed_of(1).staying(Stay::UntilSent(bytes)),
                setup.contributors(all - riders).staying(Stay::Always),
                setup.rogues(Rogue::FreeRider, riders),
            ];
            let tally = run(&setup.plan(content, groups));
            let done = Tally::done_share(tally.of(Role::Contributor));
            let case = format!("{copies} copies, {riding} % ride free");
            let bar = if riding == 40 { bar } else { Bar::None };
            figures.add(&case, "all done", f64::from(u8::from(done >= 1.0)), bar);
        }
    }
    figures
}

/// E14. Equal peers get unequal rates even without malice (Murai et al.): reported, without a bar.
pub(super) fn small_swarm(setup: &Setup) -> Figures {
    let (mut figures, content) = (Figures::default(), setup.content());
    let groups = vec![setup.seed_of(1), setup.contributors(5).staying(Stay::Always)];
    let tally = run(&setup.plan(content, groups));
    let rates: Vec<f64> = tally.times(tally.of(Role::Contributor)).iter().map(|time| 1.0 / time).collect();
    figures.add("5 equal peers", "Jain of rates", jain(&rates), Bar::None);
    let bound = chunk_bound(content, 5, setup.rate);
    figures.add("5 equal peers", "makespan / bound", makespan(&tally) / bound, Bar::None);
    figures
}
