//! Scenarios, each with its bars. `benches/reciprocity` prints them, for us and for other policies.
//!
//! The numbers E1 to E14 and the bars come from the literature: E1 Sirivianos et al. 2007, E2 Levin et al.
//! 2008, E3 Piatek et al. 2007, E4 Locher et al. 2006. E13, stolen identities, needs no swarm. L1 to L4 are
//! the laboratory's of `scripts/swarm`; L5 is L1 with other sizes.

mod crowds;
mod lab;
mod mixes;
mod rogues;

use super::content::Content;
use super::plan::{Group, Kind, Plan, Role, Stay};
use super::policy::{Policy, Rogue};
use super::report::{Bar, Figures};
use super::tally::{Tally, greatest, mean, seconds};
use super::world::run;
use crate::base::time::Span;

/// Bytes of a piece.
pub const PIECE_BYTES: u32 = 64 << 10;

/// From anybody to anybody.
const DELAY: Span = Span::from_ms(20);

/// How large swarms are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As in the source.
    Full,
    /// Some tens of nodes, a sixteenth of the payload at least: for tests and a first look.
    Small,
}

/// What a scenario is run with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Of all choices.
    pub seed: u64,
    /// What contributors and seeds run.
    pub kind: Kind,
    /// How large.
    pub size: Size,
    /// Bytes a second of a usual link.
    pub rate: u64,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// E1 and so on.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Runs it.
    pub run: fn(&Setup) -> Figures,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.title)
    }
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { id: "E1", title: "a crowd with free riders that see everybody", run: crowds::free_riders },
    Scenario { id: "E2", title: "one among many of another policy", run: mixes::one_among_many },
    Scenario { id: "E3", title: "fast nodes that cap what they give", run: mixes::selfish_cap },
    Scenario { id: "E4", title: "many connections of one party", run: rogues::many_connections },
    Scenario { id: "E5", title: "whitewashers and colluding pairs", run: rogues::whitewash },
    Scenario { id: "E6", title: "links of 1 and 10", run: mixes::heterogeneous },
    Scenario { id: "E7", title: "a flash crowd", run: crowds::flash_crowd },
    Scenario { id: "E8", title: "churn", run: crowds::churn },
    Scenario { id: "E9", title: "the last seed leaves", run: crowds::last_seed_leaves },
    Scenario { id: "E10", title: "a seed and equal demand", run: rogues::equal_demand },
    Scenario { id: "E11", title: "several cores of one seed", run: rogues::cores },
    Scenario { id: "E12", title: "polluters, false haves, bit fields of nothing", run: rogues::liars },
    Scenario { id: "E14", title: "a small swarm of equals", run: crowds::small_swarm },
    Scenario { id: "L1", title: "eight equal hosts and a seed", run: lab::eight },
    Scenario { id: "L2", title: "four of ten give nothing", run: lab::riders },
    Scenario { id: "L3", title: "four slow hosts, four fast ones", run: lab::heterogeneous },
    Scenario { id: "L4", title: "4, 8 and 16 hosts", run: lab::growth },
    Scenario { id: "L5", title: "eight hosts, shorter and longer pieces", run: lab::pieces },
];

impl Setup {
    /// `full` in full size, `small` in small.
    pub const fn sized(&self, full: usize, small: usize) -> usize {
        match self.size {
            Size::Full => full,
            Size::Small => small,
        }
    }

    /// 12 MiB, or 3.
    fn content(&self) -> Content {
        Content::new(self.sized(192, 48) as u32, PIECE_BYTES)
    }

    /// A swarm of these groups.
    fn plan(&self, content: Content, groups: Vec<Group>) -> Plan {
        let alone = content.geometry.total_bytes / self.rate;
        // Nodes need not look at the clock more often than a block takes.
        let tick = (u64::from(crate::base::units::BLOCK_BYTES) * 1_000 / self.rate).clamp(50, 500);
        Plan {
            seed: self.seed,
            content,
            delay: DELAY,
            queue: Span::ZERO,
            groups,
            end: Span::from_secs(30 * alone.max(20)),
            unsent_bytes: None,
            tick: Span::from_ms(tick),
        }
    }

    /// A seed with so many times the usual link.
    fn seed_of(&self, links: u64) -> Group {
        Group::new(Role::Seed, self.kind, 1, links * self.rate)
    }

    /// Contributors of the usual link that leave when they are done.
    fn contributors(&self, count: usize) -> Group {
        Group::new(Role::Contributor, self.kind, count, self.rate).staying(Stay::UntilDone)
    }

    /// Rogues that see everybody.
    fn rogues(&self, rogue: Rogue, count: usize) -> Group {
        let kind = Kind::Model(Policy::Rogue(rogue));
        Group::new(Role::Rogue, kind, count, self.rate).staying(Stay::UntilDone).seeing(usize::MAX)
    }
}

/// Seconds that `receivers` equal hosts need at least (Mundinger, Weber, Weiss 2008).
fn chunk_bound(content: Content, receivers: usize, rate: u64) -> f64 {
    let pieces = f64::from(content.geometry.piece_count());
    let rounds = f64::from(receivers.ilog2());
    (1.0 + rounds / pieces) * content.geometry.total_bytes as f64 / rate as f64
}

/// Seconds that everybody needs at least if nobody leaves (Kumar, Ross 2006).
fn fluid_bound(plan: &Plan) -> f64 {
    let bytes = plan.content.geometry.total_bytes as f64;
    let sum = |role: Option<Role>| {
        let groups = plan.groups.iter().filter(move |group| role.is_none_or(|role| group.role == role));
        groups
            .filter(|group| group.role != Role::Rogue)
            .map(|group| group.count as f64 * group.rates.up as f64)
    };
    let fetching = plan.groups.iter().filter(|group| group.role != Role::Seed);
    let count: usize = fetching.clone().map(|group| group.count).sum();
    let slowest = fetching.map(|group| group.rates.down).min().unwrap_or(1) as f64;
    let (seeds, all): (f64, f64) = (sum(Some(Role::Seed)).sum(), sum(None).sum());
    (bytes / slowest).max(bytes / seeds).max(count as f64 * bytes / all)
}

/// Mean time of the hosts of a role.
fn mean_time(tally: &Tally, role: Role) -> f64 {
    mean(&tally.times(tally.of(role)))
}

/// When the last contributor was done, from the beginning.
fn makespan(tally: &Tally) -> f64 {
    greatest(&tally.times(tally.of(Role::Contributor)))
}

/// Copies that all seeds gave.
fn seed_copies(tally: &Tally, content: Content) -> f64 {
    let given: u64 = tally.of(Role::Seed).map(|host| host.gave_bytes).sum();
    given as f64 / content.geometry.total_bytes as f64
}

/// Payload thrown away, as a part of what came.
fn wasted_part(tally: &Tally) -> f64 {
    let sum = |of: fn(&super::tally::HostTally) -> u64| tally.hosts.iter().map(of).sum::<u64>() as f64;
    sum(|host| host.wasted_bytes) / sum(|host| host.got_bytes).max(1.0)
}

/// Parts of what contributors and seeds gave that went to rogues.
fn add_given_to_riders(figures: &mut Figures, case: &str, tally: &Tally) {
    for (name, role) in [("given to riders", Role::Contributor), ("seed gave riders", Role::Seed)] {
        let given = tally.between(role, Role::Rogue);
        let sum = given + tally.between(role, Role::Contributor);
        figures.add(case, name, given as f64 / sum.max(1) as f64, Bar::None);
    }
}

/// Part of the time that contributors' links were sending.
fn utilisation(tally: &Tally) -> f64 {
    let part = |host: &super::tally::HostTally| {
        let until = host.left_at.unwrap_or(tally.span.1);
        seconds(host.busy) / seconds(until.since(host.joined_at.unwrap_or(until))).max(0.001)
    };
    mean(&tally.of(Role::Contributor).map(part).collect::<Vec<_>>())
}
