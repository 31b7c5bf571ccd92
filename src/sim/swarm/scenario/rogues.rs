//! Rule-breakers, and parties with many connections or identities.

use super::super::plan::Home;
use super::super::tally::jain;
use super::super::world::Swarm;
use super::*;

/// What each taker has got when the first of them is done.
fn got_until_one_is_done(plan: &Plan) -> Vec<f64> {
    let mut swarm = Swarm::new(plan);
    let fetching = swarm.fetching();
    while swarm.step() && swarm.fetching() == fetching {}
    swarm.finish().of(Role::Contributor).map(|host| host.got_bytes as f64).collect()
}

/// What a party of so many hosts and connections each gets of a seed beside takers of one connection, over
/// what those get, and Jain's index of the hosts. The seed's link is full: half of what all can take. All
/// stop when the first is done.
fn among_takers(setup: &Setup, all: usize, hosts: usize, connections: usize, home: Home) -> [f64; 2] {
    let taker = |count: usize| {
        let kind = Kind::Model(Policy::Rogue(Rogue::FreeRider));
        Group { home: Home::Private, ..Group::new(Role::Contributor, kind, count, setup.rate) }
    };
    // Only the seed has anything: nobody gives to anybody else.
    let seed = setup.seed_of(all as u64 / 2);
    let party = Group { home, connections, ..taker(hosts) };
    let got = got_until_one_is_done(&setup.plan(setup.content(), vec![seed, taker(all), party]));
    [got[all..].iter().sum::<f64>() / mean(&got[..all]), jain(&got)]
}

/// E4. What one party gets by more connections, or by more addresses of one net, against one connection.
pub(super) fn many_connections(setup: &Setup) -> Figures {
    let (mut figures, all, most) = (Figures::default(), setup.sized(50, 16), setup.sized(500, 50));
    for (case, hosts, connections, home) in [
        ("16 connections of a private address", 1, 16, Home::Private),
        ("500 connections of a private address", 1, most, Home::Private),
        ("16 addresses of one /24", 16, 1, Home::OneNet),
    ] {
        let [times, _] = among_takers(setup, all, hosts, connections, home);
        figures.add(case, "times one", times, Bar::AtMost(1.10));
    }
    figures
}

/// E5. What free riders gain by coming back as somebody else, or by praising one another.
pub(super) fn whitewash(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(100, 30));
    let riders = (all / 10) & !1;
    let times = [Rogue::FreeRider, Rogue::Whitewasher, Rogue::Colluder].map(|rogue| {
        // Rogues first: pairs go by even and odd numbers.
        let groups = vec![setup.rogues(rogue, riders), setup.contributors(all - riders), setup.seed_of(4)];
        let tally = run(&setup.plan(content, groups));
        let given: u64 =
            tally.between(Role::Contributor, Role::Rogue) + tally.between(Role::Seed, Role::Rogue);
        let sum: u64 = tally.hosts.iter().map(|host| host.gave_bytes).sum();
        let share = given as f64 / sum as f64;
        (mean_time(&tally, Role::Rogue), mean_time(&tally, Role::Contributor), share)
    });
    for (case, (rogue, contributor, share)) in
        [("free riders", times[0]), ("whitewashers", times[1]), ("colluding pairs", times[2])]
    {
        let bar = if case == "free riders" { Bar::None } else { Bar::AtMost(1.10) };
        figures.add(case, "gain over riding free", times[0].0 / rogue, bar);
        figures.add(case, "contributors' time", contributor / times[0].1, bar);
        figures.add(case, "share of all", share, Bar::None);
    }
    figures
}

/// E10. A seed whose clients all take: one connection each, one with 50.
pub(super) fn equal_demand(setup: &Setup) -> Figures {
    let mut figures = Figures::default();
    let [times, jain] = among_takers(setup, setup.sized(20, 8), 1, 50, Home::Private);
    figures.add("one of 50 connections among others", "Jain", jain, Bar::AtLeast(0.99));
    figures.add("one of 50 connections among others", "times one", times, Bar::AtMost(1.10));
    figures
}

/// E11. A seed of several cores that share a ledger: equal clients get as much, whichever core they are on.
pub(super) fn cores(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(64, 16));
    for cores in [1, 4, 16] {
        // Models have no cores.
        let kind = if matches!(setup.kind, Kind::Troc { .. }) { Kind::Troc { cores } } else { setup.kind };
        let seed = Group { kind, ..setup.seed_of(all as u64 / 4) };
        let rider = Kind::Model(Policy::Rogue(Rogue::FreeRider));
        let takers = Group::new(Role::Contributor, rider, all, setup.rate);
        let got = got_until_one_is_done(&setup.plan(content, vec![seed, takers]));
        let case = format!("{cores} cores");
        figures.add(&case, "Jain", jain(&got), Bar::AtLeast(0.98));
        let lag = greatest(&got) - got.iter().copied().fold(f64::INFINITY, f64::min);
        figures.add(&case, "lag in blocks", lag / f64::from(crate::base::units::BLOCK_BYTES), Bar::None);
    }
    figures
}

/// E12. A tenth of all lies: what it costs the others.
pub(super) fn liars(setup: &Setup) -> Figures {
    let (mut figures, content, all) = (Figures::default(), setup.content(), setup.sized(100, 30));
    let rogues = all / 10;
    let clean = run(&setup.plan(content, vec![setup.seed_of(4), setup.contributors(all - rogues)]));
    let clean = mean_time(&clean, Role::Contributor);
    for (case, rogue) in [
        ("polluters", Rogue::Polluter),
        ("false haves", Rogue::FalseHaves),
        ("nothing announced", Rogue::Mute),
    ] {
        let groups = vec![setup.seed_of(4), setup.contributors(all - rogues), setup.rogues(rogue, rogues)];
        let tally = run(&setup.plan(content, groups));
        let done = Tally::done_share(tally.of(Role::Contributor));
        figures.add(case, "all others done", done, Bar::AtLeast(1.0));
        figures.add(case, "price", mean_time(&tally, Role::Contributor) / clean, Bar::AtMost(1.15));
        figures.add(case, "thrown away", wasted_part(&tally), Bar::None);
    }
    figures
}
