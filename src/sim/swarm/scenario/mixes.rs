//! Mixed swarms: policies beside one another, slow links beside fast ones.

use super::super::net::Rates;
use super::super::tally::jain;
use super::super::world::Swarm;
use super::*;

const TYRANT: Kind = Kind::Model(Policy::BitTyrant);

/// E2. A lone BitTyrant gains nothing among us, and one of us does well among BitTyrants.
pub(super) fn one_among_many(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(110, 30));
    let seeds = |kind| Group { count: 3, kind, ..setup.seed_of(1) };
    for (case, one, many, bar) in [
        ("BitTyrant among these", TYRANT, setup.kind, Bar::AtLeast(1.0)),
        ("one of these among BitTyrants", setup.kind, TYRANT, Bar::AtMost(0.81)),
    ] {
        let of = |kind, count| Group { kind, ..setup.contributors(count).staying(Stay::Always) };
        // Five, for a mean: they are too few to matter to one another.
        let groups = vec![seeds(many), of(many, all - 5), of(one, 5)];
        let tally = run(&setup.plan(content, groups));
        let [many, one] = [1, 2].map(|group| mean(&tally.times(tally.of_group(group))));
        figures.add(case, "its time / theirs", one / many, bar);
    }
    figures
}

/// E3. A third of all has ten times the link; how much the others lose when those give only a third of it.
pub(super) fn selfish_cap(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(350, 36));
    let slow_times = [10, 3].map(|gives| {
        let rates = Rates { up: gives * setup.rate, down: 10 * setup.rate };
        let slow =
            Group { rates: Rates { up: setup.rate, down: 10 * setup.rate }, ..setup.contributors(all) };
        let slow = Group { count: all - all / 3, ..slow };
        let fast = Group { rates, count: all / 3, ..slow.clone() };
        let tally = run(&setup.plan(content, vec![setup.seed_of(4), slow, fast]));
        mean(&tally.times(tally.of_group(1)))
    });
    // The ratio alone does not say whether slow ones lose more or have less to lose.
    figures.add("fast ones give all", "slow ones: seconds", slow_times[0], Bar::None);
    figures.add("fast ones give 0.3", "slow ones: seconds", slow_times[1], Bar::None);
    figures.add("fast ones give 0.3", "slow ones' time", slow_times[1] / slow_times[0], Bar::AtMost(1.10));
    figures
}

/// E6. Links of 1 and 10, a seed of 10; who is done stays, or leaves.
pub(super) fn heterogeneous(setup: &Setup) -> Figures {
    let (mut figures, content, each) = (Figures::default(), setup.content(), setup.sized(50, 16));
    for (case, stay) in [("stay", Stay::Always), ("leave", Stay::UntilDone)] {
        let link = |links: u64| Rates { up: links * setup.rate, down: 20 * setup.rate };
        let slow = Group { rates: link(1), ..setup.contributors(each).staying(stay) };
        let fast = Group { rates: link(10), ..slow.clone() };
        let plan = setup.plan(content, vec![setup.seed_of(10), slow, fast]);
        let mut swarm = Swarm::new(&plan);
        // While the fast ones are about, everybody should get from the others what it gives them.
        swarm.freezes_with = Some(2);
        while swarm.step() {}
        let tally = swarm.finish();
        let traded = tally.of(Role::Contributor).filter(|host| host.bought_bytes > 0);
        let ratios: Vec<f64> =
            traded.map(|host| host.traded_bytes as f64 / host.bought_bytes as f64).collect();
        let ratio = makespan(&tally) / fluid_bound(&plan);
        let stays = stay == Stay::Always;
        figures.add(case, "makespan / bound", ratio, if stays { Bar::AtMost(1.15) } else { Bar::None });
        let bar = if stays { Bar::AtLeast(0.95) } else { Bar::None };
        figures.add(case, "Jain of given / got", jain(&ratios), bar);
        for (group, name) in [(1, "slow: mean / bound"), (2, "fast: mean / bound")] {
            let time = mean(&tally.times(tally.of_group(group)));
            figures.add(case, name, time / fluid_bound(&plan), Bar::None);
        }
    }
    figures
}
