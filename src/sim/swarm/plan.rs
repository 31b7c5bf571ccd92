//! What a swarm consists of.

use super::content::Content;
use super::net::Rates;
use super::policy::Policy;
use crate::base::time::Span;

/// What runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node of ours, with so many cores.
    Troc {
        /// One engine each.
        cores: usize,
    },
    /// A model.
    Model(Policy),
}

impl Kind {
    /// A node of ours on one core.
    pub const TROC: Self = Self::Troc { cores: 1 };
}

/// What a host is there for, in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It has everything from the start.
    Seed,
    /// It fetches, and gives.
    Contributor,
    /// It fetches, and gives nothing or wrong bytes.
    Rogue,
}

/// How long a host stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// To the end.
    Always,
    /// Until it has everything.
    UntilDone,
    /// Until it has everything, and so long again.
    After(Span),
    /// So long after its coming, whatever it has.
    For(Span),
    /// Until it has sent so many bytes.
    UntilSent(u64),
}

/// Where a group's hosts live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Each in a public /24 of its own.
    Apart,
    /// All in one public /24.
    OneNet,
    /// In one private network.
    Private,
}

/// Hosts of one kind.
#[derive(Clone, Debug)]
pub struct Group {
    /// What for.
    pub role: Role,
    /// What runs there.
    pub kind: Kind,
    /// How many.
    pub count: usize,
    /// How fast.
    pub rates: Rates,
    /// How many others each connects to; whoever connects to it comes on top.
    pub view: usize,
    /// How many connections it makes to each of them.
    pub connections: usize,
    /// Its hosts come within this time from the start, evenly.
    pub within: Span,
    /// How long they stay.
    pub stay: Stay,
    /// Where they are.
    pub home: Home,
}

impl Group {
    /// So many hosts that are there at once, know `VIEW` others and stay.
    pub fn new(role: Role, kind: Kind, count: usize, rate: u64) -> Self {
        Self {
            role,
            kind,
            count,
            rates: Rates { up: rate, down: rate },
            view: VIEW,
            connections: 1,
            within: Span::from_secs(1),
            stay: Stay::Always,
            home: Home::Apart,
        }
    }

    /// The same with another `stay`.
    #[must_use]
    pub const fn staying(mut self, stay: Stay) -> Self {
        self.stay = stay;
        self
    }

    /// The same with another `view`.
    #[must_use]
    pub const fn seeing(mut self, view: usize) -> Self {
        self.view = view;
        self
    }
}

/// Peers that a host connects to; as many connect to it.
pub const VIEW: usize = 25;

/// One swarm.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of all choices.
    pub seed: u64,
    /// What is fetched.
    pub content: Content,
    /// From any host to any other.
    pub delay: Span,
    /// The longest queue in front of a link, which connections that send share; none: they take turns, a
    /// block at a time.
    pub queue: Span,
    /// Who is there. Numbers of hosts follow the order.
    pub groups: Vec<Group>,
    /// The run ends then at the latest.
    pub end: Span,
    /// What the kernel takes of a connection beyond what it can send; as the engine says, if none.
    pub unsent_bytes: Option<u32>,
    /// Hosts of ours are woken no more often, while nothing but time happens.
    pub tick: Span,
}
