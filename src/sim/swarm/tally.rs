//! Who gave how much to whom, and when who was done.

use super::plan::{Plan, Role};
use crate::base::time::{Instant, Span};

/// One host's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTally {
    /// The group of the plan that it belongs to.
    pub group: usize,
    /// What for.
    pub role: Role,
    /// When it came.
    pub joined_at: Option<Instant>,
    /// When its first piece was whole.
    pub first_piece_at: Option<Instant>,
    /// When it had everything.
    pub done_at: Option<Instant>,
    /// When it went.
    pub left_at: Option<Instant>,
    /// Payload that came to it.
    pub got_bytes: u64,
    /// Payload from it that came to others.
    pub gave_bytes: u64,
    /// Of `gave_bytes`, what it gave before it had everything itself, until the count was stopped.
    pub traded_bytes: u64,
    /// What others gave it before they had everything, until the count was stopped.
    pub bought_bytes: u64,
    /// Payload that came and was thrown away.
    pub wasted_bytes: u64,
    /// Pieces it has.
    pub pieces: u32,
    /// How long its link was sending.
    pub busy: Span,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// By host.
    pub hosts: Vec<HostTally>,
    /// Payload by giver and receiver.
    traffic: Vec<u64>,
    /// Trade is not counted any more.
    pub frozen: bool,
    /// When the run began and ended.
    pub span: (Instant, Instant),
    /// A sum over all that happened, to compare runs.
    pub trace: u64,
    /// Events.
    pub steps: u64,
}

impl Tally {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan, now: Instant) -> Self {
        let host = |group: usize| HostTally {
            group,
            role: plan.groups[group].role,
            joined_at: None,
            first_piece_at: None,
            done_at: None,
            left_at: None,
            got_bytes: 0,
            gave_bytes: 0,
            traded_bytes: 0,
            bought_bytes: 0,
            wasted_bytes: 0,
            pieces: 0,
            busy: Span::ZERO,
        };
        let groups = plan.groups.iter().enumerate();
        let hosts: Vec<HostTally> =
            groups.flat_map(|(at, group)| std::iter::repeat_n(at, group.count)).map(host).collect();
        let traffic = vec![0; hosts.len() * hosts.len()];
        Self { hosts, traffic, frozen: false, span: (now, now), trace: 0, steps: 0 }
    }

    /// Payload came.
    pub fn note_block(&mut self, from: usize, to: usize, bytes: u64) {
        let count = self.hosts.len();
        self.traffic[from * count + to] += bytes;
        self.hosts[to].got_bytes += bytes;
        let giver = &mut self.hosts[from];
        giver.gave_bytes += bytes;
        let trades = !self.frozen && giver.done_at.is_none() && giver.role != Role::Seed;
        if trades {
            giver.traded_bytes += bytes;
            self.hosts[to].bought_bytes += bytes;
        }
    }

    /// Mixes a number into the trace.
    pub const fn note_step(&mut self, number: u64) {
        self.steps += 1;
        self.trace = (self.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    /// Payload that one host gave to another.
    pub fn traffic(&self, from: usize, to: usize) -> u64 {
        self.traffic[from * self.hosts.len() + to]
    }

    /// Payload that hosts of one role gave to those of another.
    pub fn between(&self, from: Role, to: Role) -> u64 {
        let of = |role: Role| (0..self.hosts.len()).filter(move |&at| self.hosts[at].role == role);
        of(from).map(|from| of(to).map(|to| self.traffic(from, to)).sum::<u64>()).sum()
    }

    /// Hosts of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &HostTally> {
        self.hosts.iter().filter(move |host| host.role == role)
    }

    /// Hosts of a group.
    pub fn of_group(&self, group: usize) -> impl Iterator<Item = &HostTally> {
        self.hosts.iter().filter(move |host| host.group == group)
    }

    /// Seconds that each of these hosts took; one that was not done counts as if it were at the end.
    pub fn times<'a>(&self, hosts: impl Iterator<Item = &'a HostTally>) -> Vec<f64> {
        let end = self.span.1;
        let time = |host: &HostTally| host.done_at.unwrap_or(end).since(host.joined_at.unwrap_or(end));
        hosts.map(time).map(seconds).collect()
    }

    /// Share of these hosts that have everything.
    pub fn done_share<'a>(hosts: impl Iterator<Item = &'a HostTally>) -> f64 {
        let done: Vec<f64> = hosts.map(|host| f64::from(u8::from(host.done_at.is_some()))).collect();
        mean(&done)
    }
}

/// A span in seconds.
pub fn seconds(span: Span) -> f64 {
    span.0 as f64 / 1e9
}

/// The mean; zero of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The greatest; zero of nothing.
pub fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The value below which a share of all lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Jain's index: one if all are equal, 1/n if one has all.
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares == 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}
