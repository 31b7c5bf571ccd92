//! Whom a model node serves, and what it does wrong on purpose.
//!
//! | policy | serves | source |
//! |---|---|---|
//! | tit-for-tat | the four that gave most in 20 s, one other for 30 s; a seed in turn | BEP 3 |
//! | PropShare | 0.8 in proportion to what came in four rounds, 0.2 to others | Levin et al. 2008 |
//! | FairTorrent | everybody; next whoever owes least | Sherman, Nieh, Stein 2012 |
//! | BitTyrant | the cheapest that reciprocate, as far as the link goes | Piatek et al. 2007 |

use super::model::{ModelNode, ROUND, ROUNDS_KEPT};
use super::net::Net;
use crate::base::time::{Instant, Span};
use crate::base::units::BLOCK_BYTES;

/// Peers that are served because they gave most.
const SLOTS: usize = 4;

/// Rounds for which an optimistic choice stands.
const OPTIMISTIC_ROUNDS: u64 = 3;

/// Shares are counted in so many parts.
const SHARES: u64 = 1_000;

/// Parts of what a PropShare node sends to those that did not give yet.
const PROBE_SHARES: u64 = SHARES / 5;

/// And to how many of them in a round.
const PROBES: usize = 2;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Plain tit-for-tat.
    TitForTat,
    /// Proportional shares.
    PropShare,
    /// Lowest deficit first.
    FairTorrent,
    /// Pays as little as it can.
    BitTyrant,
    /// Breaks the rules.
    Rogue(Rogue),
}

/// How a node breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rogue {
    /// It gives nothing.
    FreeRider,
    /// It gives nothing, and comes back under another address when it was given something.
    Whitewasher,
    /// It gives nothing, and has a partner announce what it got.
    Colluder,
    /// It says that it has everything, and gives nothing.
    FalseHaves,
    /// It never says that it has anything, and gives nothing.
    Mute,
    /// It gives wrong bytes to everybody.
    Polluter,
}

impl Rogue {
    /// What a whitewasher takes under one address.
    pub const GRANT_BYTES: u64 = 64 << 10;
}

impl Policy {
    /// Whether a newcomer may be served before the next round.
    pub const fn wanted(self) -> bool {
        !matches!(self, Self::Rogue(_)) || matches!(self, Self::Rogue(Rogue::Polluter))
    }

    const fn serves_all(self) -> bool {
        matches!(self, Self::FairTorrent | Self::Rogue(Rogue::Polluter))
    }
}

impl ModelNode {
    /// Somebody wants our pieces: it is served at once if there is room.
    pub(super) fn admit(&mut self, at: usize, now: Instant) {
        let served = |&at: &usize| self.contacts[at].unchoked && self.contacts[at].wants_us;
        let served = self.open().filter(served).count();
        if self.policy.serves_all() || served <= SLOTS {
            self.contacts[at].weight = PROBE_SHARES / PROBES as u64;
            self.set_unchoked(at, true, now);
        }
    }

    /// Chooses whom to serve until the next round.
    pub(super) fn round(&mut self, now: Instant) {
        let wanting: Vec<usize> = self.open().filter(|&at| self.contacts[at].wants_us).collect();
        let chosen = match self.policy {
            Policy::Rogue(rogue) if rogue != Rogue::Polluter => return,
            Policy::FairTorrent | Policy::Rogue(_) => wanting,
            _ if self.store.is_complete() => self.in_turn(wanting),
            Policy::TitForTat => self.tit_for_tat(wanting, now),
            Policy::PropShare => self.shares(wanting),
            Policy::BitTyrant => self.cheapest(wanting),
        };
        for at in self.open().collect::<Vec<_>>() {
            self.set_unchoked(at, chosen.contains(&at), now);
        }
    }

    /// A seed serves in turn: each round those that were not served for longest.
    fn in_turn(&mut self, mut wanting: Vec<usize>) -> Vec<usize> {
        wanting.sort_by_key(|&at| (self.contacts[at].served_round, at));
        wanting.truncate(SLOTS + 1);
        for &at in &wanting {
            (self.contacts[at].weight, self.contacts[at].served_round) = (SHARES, self.rounds);
        }
        wanting
    }

    fn tit_for_tat(&mut self, mut wanting: Vec<usize>, now: Instant) -> Vec<usize> {
        self.rng.shuffle(&mut wanting);
        let got = |node: &Self, at: usize| node.contacts[at].got_rounds[..2].iter().sum::<u64>();
        wanting.sort_by_key(|&at| std::cmp::Reverse(got(self, at)));
        let mut chosen: Vec<usize> = wanting.iter().copied().take(SLOTS).collect();
        let rest = &wanting[chosen.len()..];
        let stands = Span(OPTIMISTIC_ROUNDS * ROUND.0);
        let lucky = rest.iter().copied().filter(|&at| self.contacts[at].unchoked);
        let lucky = lucky
            .filter(|&at| now.since(self.contacts[at].unchoked_at) < stands)
            .max_by_key(|&at| self.contacts[at].unchoked_at);
        chosen.extend(lucky.or_else(|| rest.iter().copied().find(|&at| !self.contacts[at].unchoked)));
        chosen
    }

    fn shares(&mut self, mut wanting: Vec<usize>) -> Vec<usize> {
        self.rng.shuffle(&mut wanting);
        let got = |node: &Self, at: usize| node.contacts[at].got_rounds[..ROUNDS_KEPT].iter().sum::<u64>();
        let sum: u64 = wanting.iter().map(|&at| got(self, at)).sum();
        let (givers, others): (Vec<_>, Vec<_>) = wanting.into_iter().partition(|&at| got(self, at) > 0);
        for &at in &givers {
            self.contacts[at].weight = ((SHARES - PROBE_SHARES) * got(self, at) / sum.max(1)).max(1);
        }
        let probes = if givers.is_empty() { SLOTS + 1 } else { PROBES };
        let probed: Vec<usize> = others.into_iter().take(probes).collect();
        for &at in &probed {
            self.contacts[at].weight = PROBE_SHARES / probed.len() as u64;
        }
        [givers, probed].concat()
    }

    fn cheapest(&mut self, mut wanting: Vec<usize>) -> Vec<usize> {
        let round_bytes = self.up_rate * (ROUND.0 / 1_000_000_000);
        for &at in &wanting {
            let contact = &mut self.contacts[at];
            if contact.price == 0 {
                contact.price = (round_bytes / (SLOTS as u64 + 1)).max(1);
            }
            contact.streak = if contact.got_rounds[0] > 0 { contact.streak + 1 } else { 0 };
            if contact.unchoked && contact.streak == 0 {
                contact.price += contact.price / 5;
            } else if contact.unchoked && contact.streak >= 3 {
                contact.price = (contact.price - contact.price / 10).max(u64::from(BLOCK_BYTES));
            }
        }
        self.rng.shuffle(&mut wanting);
        let fair = round_bytes / (SLOTS as u64 + 1);
        let worth = |node: &Self, at: usize| {
            let contact = &node.contacts[at];
            let gives = if contact.streak > 0 { contact.got_rounds[0] } else { fair };
            u128::from(gives) * 1_000 / u128::from(contact.price)
        };
        wanting.sort_by_key(|&at| std::cmp::Reverse(worth(self, at)));
        let mut left = round_bytes;
        wanting.retain(|&at| {
            let pays = left > 0;
            left = left.saturating_sub(self.contacts[at].price);
            pays
        });
        for &at in &wanting {
            self.contacts[at].weight = self.contacts[at].price;
        }
        wanting
    }

    /// Whose block is sent next.
    pub(super) fn next_to_serve(&self, net: &Net) -> Option<usize> {
        let ready = self.open().filter(|&at| {
            let contact = &self.contacts[at];
            contact.unchoked && !contact.requests.is_empty() && net.may_send(contact.end)
        });
        ready.min_by_key(|&at| {
            let contact = &self.contacts[at];
            match self.policy {
                Policy::FairTorrent if self.store.is_complete() => contact.gave_bytes.cast_signed(),
                Policy::FairTorrent => contact.gave_bytes.cast_signed() - contact.got_bytes.cast_signed(),
                Policy::PropShare | Policy::BitTyrant => {
                    (contact.gave_round * SHARES / contact.weight.max(1)).cast_signed()
                }
                Policy::TitForTat | Policy::Rogue(_) => contact.gave_round.cast_signed(),
            }
        })
    }
}
