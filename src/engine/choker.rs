//! Who is unchoked: those whom the order of service expects to serve. Decisions only, on integers;
//! `unchoking.rs` carries them out.
//!
//! While the uplink has room everybody who wants blocks is unchoked: the order of service shares it out, and
//! a choke would only cost a round trip. When it was full all through a round, as many stay unchoked as can
//! be served at `UNCHOKED_RATE_MIN`:
//!
//! - *earned*: who gave, in the order of service, on at most four fifths of the places;
//! - *by turns*: on the rest whoever waited longest, by groups of addresses (`turns.rs`), for
//!   `UNCHOKED_TURN`. Newcomers are among them, the clients of a seed, and those that snub us.
//!
//! Chokes come once in a round, so many at most, and never to who was unchoked a short while ago. Unchokes
//! come at once while there is room, and as soon as the uplink is idle: no peer waits for a link that has
//! nothing to do. How many it took to fill the link is remembered for a while, so that they are not choked
//! and unchoked over and over.
//!
//! Peers of local networks and friends are exempt: they are the operator's own machines, the order serves
//! them by what they give, and to be choked by turns would help nobody there.

mod turns;

use std::net::IpAddr;

use crate::base::ids::ConnId;
use crate::base::limits::{
    CHOKE_PART, CHOKE_ROUND, CHOKES_MIN, SERVED_OUT_OF_TURN_BYTES_MAX, SERVED_OUT_OF_TURN_PART, UNCHOKED_MIN,
    UNCHOKED_NEEDED_TIME, UNCHOKED_RATE_MIN, UNCHOKED_TURNS_MIN, UNCHOKED_TURNS_PART, UNCHOKES_MAX,
};
use crate::base::network::Grouping;
use crate::base::time::Instant;
use crate::base::units::BLOCK_BYTES;

use super::scheduler::class::Place;
pub use turns::Turns;

/// Of so many looks in a round one may find the uplink with nothing to do, and it counts as full.
const FULL_PART: u32 = 8;

/// Looks in a row that find nobody waiting for the uplink, after which it counts as idle.
const IDLE_LOOKS: u32 = 2;

/// Who competes for being unchoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivals {
    /// Strangers: peers of other networks that are not friends.
    Strangers,
    /// All peers: in simulations, where every network is a local one.
    Everybody,
}

/// What a look finds to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Unchoke so many that wait.
    Unchoke(usize),
    /// Decide anew who is unchoked.
    Round,
}

/// A peer that is unchoked, or has earned to be.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its connection.
    pub conn: ConnId,
    /// Where it stands by what it gave; none if it gave nothing, or snubs us.
    pub earned: Option<Place>,
    /// It wants blocks.
    pub wants: bool,
    /// Unchoked, and not to be choked before; none: it waits.
    pub kept_until: Option<Instant>,
}

/// What a round comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Who is choked.
    pub choke: Vec<ConnId>,
    /// Who is unchoked for what it gave.
    pub unchoke: Vec<ConnId>,
    /// How many are unchoked by turns.
    pub turns: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Choker {
    rivals: Rivals,
    /// Least number of unchoked rivals.
    least: usize,
    /// Most rivals that may be unchoked and want blocks; `usize::MAX`: all of them.
    limit: usize,
    /// So many it took to fill the uplink, at that time.
    needed: (usize, Instant),
    /// Rivals that are unchoked and want blocks.
    unchoked: usize,
    /// Rivals that are choked and want blocks.
    pub turns: Turns,
    round_at: Instant,
    /// Payload sent in this round.
    sent_bytes: u64,
    /// Looks in this round, those that found the uplink full, and the last ones that did not.
    looks: u32,
    full_looks: u32,
    idle_looks: u32,
    /// Somebody waits for the uplink.
    full: bool,
    /// What may be sent out of turn.
    spare_bytes: u64,
}

impl Choker {
    /// Everybody is unchoked.
    pub fn new(now: Instant) -> Self {
        Self::with(Rivals::Strangers, UNCHOKED_MIN, now)
    }

    /// The same for `rivals`, of whom `least` are unchoked in any case.
    pub fn with(rivals: Rivals, least: usize, now: Instant) -> Self {
        Self {
            rivals,
            least,
            limit: usize::MAX,
            needed: (0, now),
            unchoked: 0,
            turns: Turns::default(),
            round_at: now,
            sent_bytes: 0,
            looks: 0,
            full_looks: 0,
            idle_looks: 0,
            full: false,
            spare_bytes: 0,
        }
    }

    /// Whether a peer at `address` competes with others for being unchoked.
    pub fn competes(&self, address: IpAddr, grouping: &Grouping) -> bool {
        self.rivals == Rivals::Everybody || grouping.is_stranger(address)
    }

    /// Rivals that are unchoked and want blocks.
    pub const fn unchoked(&self) -> usize {
        self.unchoked
    }

    /// Most of them.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// A rival that wants blocks is unchoked, or one that is unchoked wants some.
    pub const fn note_unchoked(&mut self) {
        self.unchoked += 1;
    }

    /// One such rival fewer.
    pub const fn note_gone(&mut self) {
        self.unchoked -= 1;
    }

    /// Payload left.
    pub fn note_sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        self.save_spare(bytes / SERVED_OUT_OF_TURN_PART);
    }

    /// All that may leave now has; `waits`: somebody still waits for the uplink.
    pub const fn note_uplink(&mut self, waits: bool) {
        self.full = waits;
    }

    /// Takes a block that is sent out of turn off what may be.
    pub fn take_spare(&mut self) -> bool {
        let left = self.spare_bytes.checked_sub(BLOCK_BYTES.into());
        self.spare_bytes = left.unwrap_or(self.spare_bytes);
        left.is_some()
    }

    /// Nothing was sent for that.
    pub fn put_spare_back(&mut self) {
        self.save_spare(BLOCK_BYTES.into());
    }

    fn save_spare(&mut self, bytes: u64) {
        self.spare_bytes = (self.spare_bytes + bytes).min(SERVED_OUT_OF_TURN_BYTES_MAX);
    }

    /// Whether one that comes to want blocks is unchoked at once. Who waits goes first.
    pub const fn has_room(&self) -> bool {
        self.turns.is_empty() && self.unchoked < self.limit
    }

    /// Time has passed; `others`: peers that want blocks and do not compete.
    pub fn look(&mut self, others: usize, now: Instant) -> Option<Due> {
        self.looks += 1;
        self.full_looks += u32::from(self.full);
        self.idle_looks = if self.full { 0 } else { self.idle_looks + 1 };
        if now.since(self.round_at).0 >= CHOKE_ROUND.0 {
            self.end_round(others, now);
            return Some(Due::Round);
        }
        if self.turns.is_empty() {
            return None;
        }
        let mut count = self.limit.saturating_sub(self.unchoked);
        if count == 0 && self.idle_looks >= IDLE_LOOKS {
            count = self.unchoked / FULL_PART as usize + 1;
            self.needed = (self.unchoked + count, now);
        }
        let count = count.min(UNCHOKES_MAX).min(self.turns.len());
        (count > 0).then_some(Due::Unchoke(count))
    }

    /// Sets the limit by what the round showed.
    fn end_round(&mut self, others: usize, now: Instant) {
        let span = now.since(self.round_at);
        let rate = u128::from(self.sent_bytes) * 1_000_000_000 / u128::from(span.0.max(1));
        // Somebody must have looked, and found the uplink busy.
        let full = self.full_looks > 0 && (self.looks - self.full_looks) * FULL_PART <= self.looks;
        self.limit = if full {
            let served = (rate / u128::from(UNCHOKED_RATE_MIN)) as usize;
            let needed = if now.since(self.needed.1).0 < UNCHOKED_NEEDED_TIME.0 { self.needed.0 } else { 0 };
            steady(self.limit, served.saturating_sub(others).max(needed).max(self.least))
        } else if self.turns.is_empty() {
            usize::MAX
        } else {
            self.limit.max(self.unchoked) + changes_max(self.unchoked)
        };
        (self.sent_bytes, self.looks, self.full_looks, self.round_at) = (0, 0, 0, now);
    }

    /// Who is choked and unchoked now. `members`: all rivals that are unchoked, and those that wait and have
    /// earned to be.
    pub fn decide(&self, mut members: Vec<Member>, now: Instant) -> Decision {
        if self.limit == usize::MAX {
            return Decision::default();
        }
        let unchoked = members.iter().filter(|member| member.kept_until.is_some()).count();
        let most = changes_max(unchoked);
        let others = split_earned(&mut members, earned_places(self.limit));
        let mut unchoke = waiting(&members);
        unchoke.truncate(most);
        let mut served: Vec<Member> = others.into_iter().filter(|other| other.kept_until.is_some()).collect();
        let idle = served.iter().filter(|member| !member.wants).count();
        let places = self.limit - members.len();
        let (taken, waits) = (served.len() - idle, self.turns.len().saturating_sub(unchoke.len()));
        // Who wants nothing is choked first, then who has been served longest.
        let vacant = places.saturating_sub(taken);
        let give_way = taken.saturating_sub(places) + waits.saturating_sub(vacant);
        served.retain(|member| member.kept_until.is_some_and(|until| until <= now));
        served.sort_by_key(|member| (member.wants, member.kept_until));
        let free_idle = served.iter().filter(|member| !member.wants).count();
        served.truncate((free_idle + give_way).min(most));
        let left = taken - served.iter().filter(|member| member.wants).count();
        let turns = places.saturating_sub(left).min(waits).min(most);
        Decision { choke: served.iter().map(|member| member.conn).collect(), unchoke, turns }
    }
}

/// Leaves the best `places` members that have earned one and want blocks; the others are returned. Of equals
/// the one that is unchoked goes first.
fn split_earned(members: &mut Vec<Member>, places: usize) -> Vec<Member> {
    let counts = |member: &Member| member.earned.is_some() && member.wants;
    members.sort_by_key(|member| (!counts(member), member.earned, member.kept_until.is_none()));
    let earned = members.iter().take_while(|member| counts(member)).count();
    members.split_off(earned.min(places))
}

fn waiting(members: &[Member]) -> Vec<ConnId> {
    members.iter().filter(|member| member.kept_until.is_none()).map(|member| member.conn).collect()
}

/// Places of those who gave; the others go by turns.
fn earned_places(limit: usize) -> usize {
    limit.saturating_sub((limit / UNCHOKED_TURNS_PART).max(UNCHOKED_TURNS_MIN))
}

/// Peers that one round may choke, or unchoke.
fn changes_max(unchoked: usize) -> usize {
    (unchoked / CHOKE_PART).max(CHOKES_MIN)
}

/// A limit that does not follow every breath of the rate.
const fn steady(old: usize, new: usize) -> usize {
    if old != usize::MAX && old.abs_diff(new) <= old / 8 { old } else { new }
}

#[cfg(test)]
mod tests;
