//! Whom to serve next: who gives, gets.
//!
//! ```text
//! class.rs    the order: five classes, and a place in each (pure)
//! queue.rs    parties that wait, by class and bucket, O(1)
//! lists.rs    the lists of it
//! view.rs     why somebody is served when it is, for whoever asks
//! window.rs   how much may be in flight, so that the order decides and not the kernel
//! ```
//!
//! Connections wait in *parties*: all that belong to one account take turns in it, and only the party has
//! a place in the run queue. A hundred connections stand where one would; they still get more, because one
//! alone does not wait while its send is in flight. A connection waits in the party of
//! its identity while that has earned a place by what it gave, else in that of its address group: grants
//! and equal shares are for groups, because addresses of one group cost nothing.
//!
//! Places are looked up when a party comes to wait and again when its turn comes; whoever stands too high by
//! then moves down. Who has come to deserve better is ranked anew by the engine (`rank_again`). The ring of
//! *rest* begins elsewhere on each core, while service counts on all: a group on two cores stands behind on
//! the slower one. Numbers of an account change on all cores at once, so the same party on two cores is paid
//! once.

pub mod class;
mod lists;
mod queue;
pub mod view;
pub mod window;

use std::collections::HashMap;

use crate::base::ids::ConnId;
use crate::base::limits::{
    GRANT_GROUP_BYTES, GRANT_PART, GRANT_POOL_BYTES_MAX, SCHEDULER_LOOKS_MAX, SERVICE_STEP_BYTES,
};
use crate::base::time::Instant;
use crate::shared::ledger::{AccountId, Ledger};

use class::{Class, Place, earned};
use lists::{Links, List};
use queue::RunQueue;
use window::{Begun, Window};

/// The party of all whose demand is for what was given away already; it has no account.
const AGAIN: u32 = 0;

/// Least weight of a group in *rest*: its service counts as it is.
pub const WEIGHT_ONE: u64 = 16;

/// Under which accounts a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// By which it is credited; it is charged, too.
    pub own: AccountId,
    /// Whose balance decides what it has earned: its own, or its group's where one machine is behind that.
    pub balance: AccountId,
    /// Whose grants and equal share it takes from; perhaps the same.
    pub group: AccountId,
}

/// What a pick depends on besides the ledger: how the connection's torrent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// All that it asks for was given away already, and is not spread yet.
    pub again: bool,
    /// Weight of its group in *rest*, in sixteenths.
    pub weight: u64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { again: false, weight: WEIGHT_ONE }
    }
}

/// Connections of one account that wait, in turn.
#[derive(Debug)]
struct Party {
    /// None of `AGAIN` only.
    account: Option<AccountId>,
    members: u32,
    waiting: List,
    /// The service of its account at which its service on this core began.
    since_bytes: u64,
}

/// How one connection stands.
#[derive(Clone, Copy, Debug)]
struct Seat {
    conn: ConnId,
    own: AccountId,
    /// The party of its balance.
    identity: u32,
    group: u32,
    /// In which of the two it waits.
    party: u32,
    demand: Demand,
}

/// The order of service of one core. See the module.
#[derive(Debug)]
pub struct Scheduler {
    queue: RunQueue,
    /// How much may be in flight.
    pub window: Window,
    links: Links,
    /// By index of the connection.
    seats: Vec<Option<Seat>>,
    parties: Vec<Party>,
    vacant: Vec<u32>,
    by_account: HashMap<AccountId, u32>,
    /// Bytes that strangers may be granted. Below zero when they got more because nobody else wanted it.
    pool_bytes: i64,
}

impl Scheduler {
    /// Nobody waits.
    pub fn new(now: Instant) -> Self {
        Self {
            queue: RunQueue::default(),
            window: Window::new(now),
            links: Links::default(),
            seats: Vec::new(),
            parties: vec![Party { account: None, members: 1, waiting: List::default(), since_bytes: 0 }],
            vacant: Vec::new(),
            by_account: HashMap::new(),
            pool_bytes: GRANT_POOL_BYTES_MAX,
        }
    }

    /// Time has passed.
    pub fn roll(&mut self, now: Instant) {
        let waits = self.first().map(|(_, class)| class);
        self.window.roll(now, waits);
    }

    /// Whether nobody waits.
    pub const fn is_idle(&self) -> bool {
        self.queue.len() == 0
    }

    /// How many parties wait.
    pub const fn waiting_parties(&self) -> usize {
        self.queue.len()
    }

    /// A connection that may come to wait.
    pub fn enter(&mut self, conn: ConnId, membership: Membership) {
        let identity = self.party(membership.balance);
        let group = self.party(membership.group);
        let index = conn.index as usize;
        if self.seats.len() <= index {
            self.seats.resize(index + 1, None);
        }
        assert!(self.seats[index].is_none(), "connection {index} has a seat");
        self.seats[index] = Some(Seat {
            conn,
            own: membership.own,
            identity,
            group,
            party: group,
            demand: Demand::default(),
        });
    }

    /// A connection is gone.
    pub fn leave(&mut self, conn: ConnId) {
        self.forget(conn);
        let Some(seat) = self.seat(conn) else { return };
        self.seats[conn.index as usize] = None;
        self.release(seat.identity);
        self.release(seat.group);
    }

    /// Whether the connection waits.
    pub fn holds(&self, conn: ConnId) -> bool {
        self.seat(conn).is_some() && self.links.is_listed(conn.index)
    }

    /// Whether the connection waits in the class `Again`.
    pub fn waits_again(&self, conn: ConnId) -> bool {
        self.holds(conn) && self.seat(conn).is_some_and(|seat| seat.party == AGAIN)
    }

    /// The connection has blocks to be sent; it waits for its turn, once.
    pub fn wait(&mut self, conn: ConnId, demand: Demand, ledger: &Ledger) {
        let Some(mut seat) = self.seat(conn) else { return };
        if self.links.is_listed(conn.index) {
            return;
        }
        seat.demand = demand;
        let place = self.place(&mut seat, ledger);
        self.seats[conn.index as usize] = Some(seat);
        let party = &mut self.parties[seat.party as usize];
        self.links.push_back(&mut party.waiting, conn.index);
        // The others of the party waited for the same; what changed since holds for all of them.
        if self.queue.holds(seat.party) && !self.queue.stands(seat.party, place) {
            self.queue.remove(seat.party);
        }
        if !self.queue.holds(seat.party) {
            self.queue.push(seat.party, place);
        }
    }

    /// A connection that waits may have come to stand wrong. It keeps its turn if not.
    pub fn rank_again(&mut self, conn: ConnId, demand: Demand, ledger: &Ledger) {
        let Some(mut seat) = self.seat(conn).filter(|_| self.links.is_listed(conn.index)) else { return };
        let party = seat.party;
        seat.demand = demand;
        let place = self.place(&mut seat, ledger);
        if seat.party == party && (party == AGAIN || self.queue.stands(party, place)) {
            self.seats[conn.index as usize] = Some(seat);
        } else {
            self.forget(conn);
            self.wait(conn, demand, ledger);
        }
    }

    /// The connection has nothing to be sent any more.
    pub fn forget(&mut self, conn: ConnId) {
        let Some(seat) = self.seat(conn).filter(|_| self.links.is_listed(conn.index)) else { return };
        let party = &mut self.parties[seat.party as usize];
        self.links.remove(&mut party.waiting, conn.index);
        if party.waiting.is_empty() {
            self.queue.remove(seat.party);
        }
    }

    /// Whose turn it is; it waits no longer. `None`: nobody waits, or only those of a worse class than what
    /// fills the window.
    pub fn pick(&mut self, ledger: &Ledger) -> Option<(ConnId, Class)> {
        let worst = self.window.worst_class();
        // Without a pool grants are no better than what comes behind them in that order.
        let grants = self.pool_bytes > 0 || worst >= Class::Rest;
        let may = |class| class <= worst && (class != Class::Grant || grants);
        for look in 0..=SCHEDULER_LOOKS_MAX {
            let (party, class) = self.first().filter(|&(_, class)| may(class))?;
            let index = self.parties[party as usize].waiting.first().expect("a party that waits has members");
            let mut seat = self.seats[index as usize].expect("who waits has a seat");
            let place = self.place(&mut seat, ledger);
            let stands = seat.party == party && (self.queue.stands(party, place) || place.class < class);
            let late = look == SCHEDULER_LOOKS_MAX;
            if stands || late && may(place.class) {
                let class = if stands { class } else { place.class };
                if stands && class == Class::Rest {
                    self.queue.advance_to(party);
                }
                self.forget_first(party, index);
                self.requeue(party, ledger);
                return Some((seat.conn, class));
            }
            // What it stood for has changed since it came to wait.
            self.forget_first(party, index);
            self.requeue(party, ledger);
            self.wait(seat.conn, seat.demand, ledger);
        }
        None
    }

    /// The pick was given so many bytes.
    pub fn charge(&mut self, conn: ConnId, class: Class, bytes: u64, ledger: &Ledger) -> Option<Begun> {
        let seat = self.seat(conn)?;
        let group = self.account(seat.group);
        ledger.debit(seat.own, bytes);
        if group != seat.own {
            ledger.debit(group, bytes);
        }
        ledger.serve(group, bytes * WEIGHT_ONE / seat.demand.weight.max(1));
        if class == Class::Grant {
            ledger.grant(group, bytes);
            self.pool_bytes -= bytes as i64;
        }
        self.pool_bytes = (self.pool_bytes + (bytes / GRANT_PART) as i64).min(GRANT_POOL_BYTES_MAX);
        self.pool_bytes = self.pool_bytes.max(-GRANT_POOL_BYTES_MAX);
        Some(self.window.begin(class, bytes))
    }

    /// Bytes that were charged never left. The balance gets them back; grants and service are used up, so
    /// that nobody gains by closing.
    pub fn refund(&self, conn: ConnId, bytes: u64, ledger: &Ledger) {
        let Some(seat) = self.seat(conn) else { return };
        let group = self.account(seat.group);
        ledger.refund(seat.own, bytes);
        if group != seat.own {
            ledger.refund(group, bytes);
        }
    }

    /// The party that is first, and the class in which it is.
    fn first(&self) -> Option<(u32, Class)> {
        let grants = self.pool_bytes > 0;
        let order: [Class; 5] = if grants {
            [Class::Grant, Class::Owed, Class::Excess, Class::Rest, Class::Again]
        } else {
            [Class::Owed, Class::Excess, Class::Grant, Class::Rest, Class::Again]
        };
        order.into_iter().find_map(|class| Some((self.queue.first(class)?, class)))
    }

    /// Where the connection belongs now; its party is noted in the seat.
    fn place(&mut self, seat: &mut Seat, ledger: &Ledger) -> Place {
        if seat.demand.again {
            seat.party = AGAIN;
            return Place { class: Class::Again, key: 0 };
        }
        seat.party = seat.group;
        let group = self.account(seat.group);
        if let Some(place) = earned(ledger.standing(self.account(seat.identity))) {
            seat.party = seat.identity;
            return place;
        }
        if ledger.granted_bytes(group) < GRANT_GROUP_BYTES {
            return Place { class: Class::Grant, key: 0 };
        }
        Place { class: Class::Rest, key: self.service_key(seat.group, ledger.service(group)) }
    }

    /// Key of a group in *rest*: what its account was served, on all cores, since it first stood there on
    /// this one, counted from where the ring was then. Who was away has saved nothing up.
    fn service_key(&mut self, party: u32, service_bytes: u64) -> u64 {
        let base_bytes = self.queue.base() * SERVICE_STEP_BYTES;
        let since_bytes = &mut self.parties[party as usize].since_bytes;
        let key_bytes = service_bytes.wrapping_sub(*since_bytes);
        if key_bytes.cast_signed() < base_bytes.cast_signed() {
            *since_bytes = service_bytes.wrapping_sub(base_bytes);
            return self.queue.base();
        }
        key_bytes / SERVICE_STEP_BYTES
    }

    /// Takes the first connection of a party out of it.
    fn forget_first(&mut self, party: u32, index: u32) {
        self.links.remove(&mut self.parties[party as usize].waiting, index);
        self.queue.remove(party);
    }

    /// A party of which others wait takes its place anew, behind those that stand there: the place of its
    /// first member, who moves on when its turn comes if it belongs elsewhere.
    fn requeue(&mut self, party: u32, ledger: &Ledger) {
        let Some(index) = self.parties[party as usize].waiting.first() else { return };
        let mut seat = self.seats[index as usize].expect("who waits has a seat");
        let place = self.place(&mut seat, ledger);
        self.queue.push(party, place);
    }

    fn seat(&self, conn: ConnId) -> Option<Seat> {
        (*self.seats.get(conn.index as usize)?).filter(|seat| seat.conn == conn)
    }

    fn account(&self, party: u32) -> AccountId {
        self.parties[party as usize].account.expect("no seat is of the party without an account")
    }

    /// The party of an account, with one member more.
    fn party(&mut self, account: AccountId) -> u32 {
        if let Some(&party) = self.by_account.get(&account) {
            self.parties[party as usize].members += 1;
            return party;
        }
        // Far ahead of any service: the first look sets it.
        let fresh =
            Party { account: Some(account), members: 1, waiting: List::default(), since_bytes: u64::MAX };
        let party = match self.vacant.pop() {
            Some(place) => {
                self.parties[place as usize] = fresh;
                place
            }
            None => {
                self.parties.push(fresh);
                self.parties.len() as u32 - 1
            }
        };
        self.by_account.insert(account, party);
        party
    }

    fn release(&mut self, party: u32) {
        let Party { account, members, waiting, .. } = &mut self.parties[party as usize];
        *members -= 1;
        if *members == 0 {
            assert!(waiting.is_empty());
            if let Some(account) = account {
                self.by_account.remove(account);
            }
            self.vacant.push(party);
        }
    }
}

#[cfg(test)]
mod tests;
