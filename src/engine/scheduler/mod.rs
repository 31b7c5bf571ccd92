//! Whom to serve next: who gives, gets.
//!
//! ```text
//! class.rs    the order: five classes, and a place in each (pure)
//! queue.rs    parties that wait, by class and bucket, O(1)
//! lists.rs    the lists of it
//! view.rs     why somebody is served when it is, for whoever asks
//! check.rs    what holds between any two steps
//! window.rs   how much may be in flight, so that the order decides and not the kernel
//! flight.rs   what is in flight, and for how long it counts
//! party.rs    connections of one account
//! backlog.rs  which of them may stand in this machine's own queue
//! ```
//!
//! Connections wait in *parties*: all that belong to one account take turns in it, and only the party has
//! a place in the run queue. A connection waits in the party of its identity while that has earned a place
//! by what it gave, else in that of its address group: grants and equal shares are for groups, because
//! addresses of one group cost nothing.
//!
//! A hundred connections of a party stand where one would: a party has no more in flight than its share
//! of the window, and its members do not take turns with every send, but each has a long one. A party at
//! its share is *parked* until something of it ends or stops counting. What the kernel has taken the order
//! does not reach, and on a full link each connection that has something in this machine's own queue gets as
//! much as any other. So of a group one at a time stands there: the next member begins when the queue holds
//! little of the one before. The kernel is asked (`next_ask`, `note_backlog`) when that hangs on it, and not
//! before.
//!
//! Places are looked up when a party comes to wait and again when its turn comes; whoever stands too high by
//! then moves down. Who has come to deserve better is ranked anew by the engine (`rank_again`). The ring of
//! *rest* begins elsewhere on each core, while service counts on all: a group on two cores stands behind on
//! the slower one. Numbers of an account change on all cores at once, so the same party on two cores is paid
//! once.

pub(super) mod backlog;
#[cfg(test)]
mod check;
pub mod class;
pub(super) mod flight;
pub(super) mod lists;
mod party;
mod queue;
pub mod view;
pub mod window;

use crate::base::ids::ConnId;
use crate::base::limits::{
    BEGUN_PIECE_BYTES_MAX, GRANT_GROUP_BYTES, GRANT_PART, GRANT_POOL_BYTES_AT_FIRST, GRANT_POOL_BYTES_MAX,
    MEMBER_TURN_BYTES, SCHEDULER_LOOKS_MAX, SERVICE_STEP_BYTES, TURN_BYTES, TURN_BYTES_LEAST,
};
use crate::base::time::Instant;
use crate::shared::ledger::{AccountId, Ledger};

use class::{Class, Place, earned};
use lists::{Links, List};
use party::{AGAIN, Parties, PartyId};
use queue::RunQueue;
use window::{Begun, Window};

/// Long turns that fill what may be in flight, while those who wait have earned nothing.
const TURNS_IN_FLIGHT: u64 = 4;

/// Room for one part in so many of a party's share is worth a send.
const ROOM_WORTH_PART: u64 = 4;

/// Weight of a group in *rest* whose service counts as it is.
pub const WEIGHT_ONE: u64 = 16;

/// The least: even so one turn leaves a group within the ring.
pub const WEIGHT_LEAST: u64 = 4;

const _: () = assert!(TURN_BYTES * WEIGHT_ONE / WEIGHT_LEAST < class::BUCKETS as u64 * SERVICE_STEP_BYTES);

const _: () = assert!(BEGUN_PIECE_BYTES_MAX as u64 <= MEMBER_TURN_BYTES, "no mate's turn comes meanwhile");

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
    /// It wants of a seed only what others have or are being given.
    pub again: bool,
    /// Weight of its group in *rest*, in sixteenths.
    pub weight: u64,
    /// Its next block goes on with a piece that it was given the begin of, on a slow link: if it was the last
    /// of its party to be served, it comes to wait before others of its class, in *rest* where the ring
    /// begins, and its turn is for the rest of that piece.
    pub begun: bool,
}

impl Default for Demand {
    fn default() -> Self {
        Self { again: false, weight: WEIGHT_ONE, begun: false }
    }
}

/// One turn of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose it is, as the scheduler knows it.
    pub conn: ConnId,
    /// Out of which class.
    pub class: Class,
    /// What its party may still have in flight; a send may carry so much, rounded up to blocks.
    pub bytes: u64,
    /// It is out of the order: see [`Scheduler::out_of_turn`].
    pub is_extra: bool,
    /// It came first since the connection is in the middle of a piece: it is for the rest of that.
    pub goes_on: bool,
}

/// A send that was charged. Good for the scheduler that gave it out, once.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    begun: Begun,
    party: PartyId,
}

impl InFlight {
    /// Payload of the send.
    pub const fn bytes(&self) -> u64 {
        self.begun.bytes
    }
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

impl Seat {
    /// Those in which it waits at one time or another, `AGAIN` left out.
    const fn parties(&self) -> [u32; 2] {
        [self.identity, self.group]
    }
}

/// The order of service of one core. See the module.
#[derive(Debug)]
pub struct Scheduler {
    queue: RunQueue,
    /// How much may be in flight.
    pub window: Window,
    /// Of the connections that wait.
    links: Links,
    /// By index of the connection.
    seats: Vec<Option<Seat>>,
    parties: Parties,
    /// Parties that wait and have as much in flight as they may.
    parked: List,
    parked_links: Links,
    parked_count: usize,
    /// Connections to be asked for, since others of their parties wait for what is in our queue of them.
    asks: Vec<ConnId>,
    /// Parties of those of which too much stands there, some perhaps twice.
    held: Vec<u32>,
    /// When to ask again.
    ask_at: Option<Instant>,
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
            parties: Parties::default(),
            parked: List::default(),
            parked_links: Links::default(),
            parked_count: 0,
            asks: Vec::new(),
            held: Vec::new(),
            ask_at: None,
            pool_bytes: GRANT_POOL_BYTES_AT_FIRST,
        }
    }

    /// When time alone may let somebody have a turn.
    pub fn due(&self) -> Instant {
        self.ask_at.into_iter().fold(self.window.due(), Instant::min)
    }

    /// Time has passed.
    pub fn roll(&mut self, now: Instant, ledger: &Ledger) {
        if self.ask_at.take_if(|at| *at <= now).is_some() {
            self.release(ledger);
        }
        if now < self.window.due() {
            return;
        }
        // What they have in flight may count no longer; who is at its share still is parked anew.
        while let Some(party) = self.parked.first() {
            self.unpark(party, ledger);
        }
        let waits = self.first(Class::order(self.pool_bytes, Class::Again)).map(|(_, class)| class);
        self.window.roll(now, waits);
    }

    /// Whether nobody waits.
    pub const fn is_idle(&self) -> bool {
        self.waiting_parties() == 0
    }

    /// How many parties wait, parked ones included.
    pub const fn waiting_parties(&self) -> usize {
        self.queue.len() + self.parked_count
    }

    /// A connection that may come to wait.
    pub fn enter(&mut self, conn: ConnId, membership: Membership) {
        let identity = self.parties.join(membership.balance);
        let group = self.parties.join(membership.group);
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
    pub fn leave(&mut self, conn: ConnId, ledger: &Ledger) {
        self.forget(conn);
        let Some(seat) = self.seat(conn) else { return };
        self.seats[conn.index as usize] = None;
        self.end_turns(seat, ledger);
        self.parties.leave(seat.identity);
        self.parties.leave(seat.group);
    }

    /// A connection belongs elsewhere from now on; it waits no longer. Charges go with it only from here on.
    pub fn reseat(&mut self, conn: ConnId, membership: Membership, ledger: &Ledger) {
        self.forget(conn);
        let Some(seat) = self.seat(conn) else { return };
        self.seats[conn.index as usize] = None;
        self.end_turns(seat, ledger);
        // First the new parties: a group that it is alone in keeps its place in the ring.
        self.enter(conn, membership);
        self.parties.leave(seat.identity);
        self.parties.leave(seat.group);
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
        self.parties.at_mut(seat.party).wait(conn.index, &mut self.links);
        self.parties.review(seat.party);
        if self.parked_links.is_listed(seat.party) {
            // Whose turn it is goes on, though others of its party wait for what stands in our queue.
            if self.parties.at(seat.party).waiting.first() == Some(conn.index) {
                self.unpark(seat.party, ledger);
            }
            return;
        }
        // What changed since the others of the party came to wait holds for all of them, but for who goes on.
        if self.queue.holds(seat.party) && !self.queue.stands(seat.party, place) {
            self.queue.remove(seat.party);
        }
        if !self.queue.holds(seat.party) && self.goes_on(&seat) {
            self.queue.push_front(seat.party, place);
        } else if !self.queue.holds(seat.party) {
            self.queue.push(seat.party, place);
        }
    }

    /// A connection that waits may have come to stand wrong. It keeps its turn if not.
    pub fn rank_again(&mut self, conn: ConnId, demand: Demand, ledger: &Ledger) {
        let Some(mut seat) = self.seat(conn).filter(|_| self.links.is_listed(conn.index)) else { return };
        let party = seat.party;
        seat.demand = demand;
        let place = self.place(&mut seat, ledger);
        let parked = self.parked_links.is_listed(party);
        if seat.party == party && (party == AGAIN || parked || self.queue.stands(party, place)) {
            self.seats[conn.index as usize] = Some(seat);
        } else {
            self.forget(conn);
            self.wait(conn, demand, ledger);
        }
    }

    /// The connection has nothing to be sent any more.
    pub fn forget(&mut self, conn: ConnId) {
        let Some(seat) = self.seat(conn).filter(|_| self.links.is_listed(conn.index)) else { return };
        let party = self.parties.at_mut(seat.party);
        self.links.remove(&mut party.waiting, conn.index);
        if !party.waiting.is_empty() {
            return;
        }
        if self.parked_links.is_listed(seat.party) {
            self.parked_links.remove(&mut self.parked, seat.party);
            self.parked_count -= 1;
        } else {
            self.queue.remove(seat.party);
        }
        self.parties.review(seat.party);
    }

    /// Whose turn it is; it waits no longer. `None`: nobody waits, or only those of a worse class than what
    /// fills the window, or parties that have their share in flight.
    pub fn pick(&mut self, ledger: &Ledger) -> Option<Turn> {
        let classes = Class::order(self.pool_bytes, self.window.worst_class());
        let mut looks = 0;
        loop {
            let (party, class) = self.first(classes)?;
            let Some(bytes) = self.room(party, class).filter(|_| !self.is_held(party, class)) else {
                self.park(party);
                continue;
            };
            let index = self.parties.at(party).waiting.first().expect("a party that waits has members");
            let mut seat = self.seats[index as usize].expect("who waits has a seat");
            let place = self.place(&mut seat, ledger);
            let stands = seat.party == party && (self.queue.stands(party, place) || place.class < class);
            let late = looks == SCHEDULER_LOOKS_MAX;
            let class = if stands { class } else { place.class };
            if stands && class == Class::Rest {
                self.queue.advance_to(party);
            }
            self.forget_first(party, index);
            self.requeue(party, ledger);
            if stands || late && classes.contains(&place.class) {
                let goes_on = self.goes_on(&seat);
                return Some(Turn { conn: seat.conn, class, bytes, is_extra: false, goes_on });
            }
            // What it stood for has changed since it came to wait.
            self.wait(seat.conn, seat.demand, ledger);
            if late {
                return None;
            }
            looks += 1;
        }
    }

    /// How many connections the address group of a connection has, if nothing was sent to any of them, but by
    /// what it gave itself, since then; else none.
    pub fn passed_over(&self, conn: ConnId, since: Instant) -> Option<u32> {
        let seat = self.seat(conn)?;
        let group = self.parties.at(seat.group);
        // Who is a group of its own is a member twice.
        let members = group.members / if seat.identity == seat.group { 2 } else { 1 };
        group.served_at.is_none_or(|at| at <= since).then_some(members)
    }

    /// A connection that the order leaves waiting has a turn all the same; it waits no longer.
    pub fn out_of_turn(&mut self, conn: ConnId, bytes: u64) -> Option<Turn> {
        self.forget(conn);
        let seat = self.seat(conn)?;
        // Now, since others of its group may ask before this turn is charged.
        self.parties.at_mut(seat.group).served_at = Some(self.window.since());
        Some(Turn { conn, class: Class::Rest, bytes, is_extra: true, goes_on: false })
    }

    /// A turn out of order carried nothing: its group was passed over after all.
    pub fn missed_turn(&mut self, conn: ConnId) {
        if let Some(seat) = self.seat(conn) {
            self.parties.at_mut(seat.group).served_at = None;
        }
    }

    /// The turn carries so many bytes.
    pub fn charge(&mut self, turn: Turn, bytes: u64, ledger: &Ledger) -> Option<InFlight> {
        let Turn { conn, class, .. } = turn;
        let seat = self.seat(conn)?;
        let group = self.account(seat.group);
        ledger.debit(seat.own, bytes);
        if group != seat.own {
            ledger.debit(group, bytes);
        }
        // Who asks for a byte at a time has no more turns than who asks for half a block.
        let served_bytes = bytes.max(TURN_BYTES_LEAST);
        ledger.serve(group, served_bytes * WEIGHT_ONE / seat.demand.weight.max(1));
        if class == Class::Grant {
            ledger.grant(group, served_bytes);
            self.pool_bytes -= served_bytes as i64;
        }
        self.pool_bytes = (self.pool_bytes + (bytes / GRANT_PART) as i64).min(GRANT_POOL_BYTES_MAX);
        self.pool_bytes = self.pool_bytes.max(-GRANT_POOL_BYTES_MAX);
        let (epoch, party) = (self.window.epoch(), self.parties.at_mut(seat.party));
        let begun = if seat.party != AGAIN && party.is_stuck(epoch) {
            self.window.begin_impatient(class, bytes)
        } else {
            let reader = party.reader;
            self.window.begin(class, reader, bytes)
        };
        if seat.party != seat.identity || seat.identity == seat.group {
            self.parties.at_mut(seat.group).served_at = Some(self.window.since());
        }
        let party = self.parties.begin_aged(seat.party, conn.index, [epoch, begun.epoch], bytes);
        Some(InFlight { begun, party })
    }

    /// A send ended, or its connection did.
    pub fn end(&mut self, sent: InFlight, ledger: &Ledger) {
        let InFlight { begun, party } = sent;
        let reader = self.window.end(begun);
        let there = self.parties.end(party, self.window.epoch(), begun.epoch, begun.bytes);
        if there {
            self.parties.at_mut(party.number).reader = reader;
            self.try_anew(party.number, ledger);
        }
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

    /// The party that is first among these classes, and the class in which it is.
    fn first(&self, classes: &[Class]) -> Option<(u32, Class)> {
        classes.iter().find_map(|&class| Some((self.queue.first(class)?, class)))
    }

    /// Where the connection belongs now; its party is noted in the seat.
    fn place(&mut self, seat: &mut Seat, ledger: &Ledger) -> Place {
        let group = self.account(seat.group);
        let (party, place) = if let Some(place) = earned(ledger.standing(self.account(seat.identity))) {
            (seat.identity, place)
        } else if seat.demand.again {
            (AGAIN, Place { class: Class::Again, key: 0 })
        } else if ledger.granted_bytes(group) < GRANT_GROUP_BYTES {
            (seat.group, Place { class: Class::Grant, key: 0 })
        } else {
            // In any case: it enters the group into the ring.
            let key = self.service_key(seat.group, ledger.service(group));
            (seat.group, Place { class: Class::Rest, key })
        };
        seat.party = party;
        let first = if place.class == Class::Rest { self.queue.base() } else { 0 };
        if self.goes_on(seat) { Place { key: first, ..place } } else { place }
    }

    /// Whether the connection goes before others of its class: it was the last of its party to be served, and
    /// is in the middle of a piece.
    fn goes_on(&self, seat: &Seat) -> bool {
        let is_last = || self.parties.at(seat.party).is_turn_of(seat.conn.index);
        seat.demand.begun && seat.party != AGAIN && is_last()
    }

    /// Key of a group in *rest*: what its account was served, on all cores, since it first stood there on
    /// this one, counted from where the ring was then. Who was away has saved nothing up.
    fn service_key(&mut self, party: u32, service_bytes: u64) -> u64 {
        let base_bytes = self.queue.base() * SERVICE_STEP_BYTES;
        let since_bytes = &mut self.parties.at_mut(party).since_bytes;
        let key_bytes = since_bytes.map(|since_bytes| service_bytes.wrapping_sub(since_bytes));
        match key_bytes.filter(|bytes| bytes.cast_signed() >= base_bytes.cast_signed()) {
            Some(key_bytes) => key_bytes / SERVICE_STEP_BYTES,
            None => {
                *since_bytes = Some(service_bytes.wrapping_sub(base_bytes));
                self.queue.base()
            }
        }
    }

    /// What a party may still have in flight; `None` if that is not worth a send. Equal shares of the window
    /// for all that are busy, but long enough turns; who has earned its place may take half of the window,
    /// so that it keeps worse classes out. Those in *again* are one party, of which each has about a quarter:
    /// one reader that filled the window would have the link wait for it.
    fn room(&mut self, party: u32, class: Class) -> Option<u64> {
        let window_bytes = self.window.limit_bytes();
        let share_bytes = match class {
            Class::Owed | Class::Excess => window_bytes / 2,
            Class::Again => window_bytes,
            Class::Grant | Class::Rest => window_bytes / u64::from(self.parties.busy().max(1)),
        };
        let turn_bytes = long_turn_bytes(window_bytes);
        let share_bytes = share_bytes.max(turn_bytes);
        let flight = &mut self.parties.at_mut(party).flight;
        flight.roll_to(self.window.epoch());
        let room_bytes = share_bytes.saturating_sub(flight.counted_bytes());
        let one_bytes = if class == Class::Again { turn_bytes } else { share_bytes };
        (room_bytes >= one_bytes / ROOM_WORTH_PART).then_some(room_bytes.min(one_bytes))
    }

    fn try_anew(&mut self, party: u32, ledger: &Ledger) {
        if self.parked_links.is_listed(party) {
            self.unpark(party, ledger);
        }
    }

    /// A party that waits has its share in flight.
    fn park(&mut self, party: u32) {
        self.queue.remove(party);
        self.parked_links.push_back(&mut self.parked, party);
        self.parked_count += 1;
    }

    fn unpark(&mut self, party: u32, ledger: &Ledger) {
        self.parked_links.remove(&mut self.parked, party);
        self.parked_count -= 1;
        self.requeue(party, ledger);
    }

    /// Takes the first connection of a party out of it.
    fn forget_first(&mut self, party: u32, index: u32) {
        self.links.remove(&mut self.parties.at_mut(party).waiting, index);
        self.queue.remove(party);
        self.parties.review(party);
    }

    /// A party of which others wait takes its place anew, behind those that stand there: the place of its
    /// first member, who moves on when its turn comes if it belongs elsewhere.
    fn requeue(&mut self, party: u32, ledger: &Ledger) {
        let Some(index) = self.parties.at(party).waiting.first() else { return };
        let mut seat = self.seats[index as usize].expect("who waits has a seat");
        let place = self.place(&mut seat, ledger);
        self.queue.push(party, place);
    }

    fn seat(&self, conn: ConnId) -> Option<Seat> {
        (*self.seats.get(conn.index as usize)?).filter(|seat| seat.conn == conn)
    }

    fn account(&self, party: u32) -> AccountId {
        self.parties.at(party).account.expect("no seat is of the party without an account")
    }
}

/// What a party's share is at least.
fn long_turn_bytes(window_bytes: u64) -> u64 {
    TURN_BYTES.min(window_bytes / TURNS_IN_FLIGHT)
}

#[cfg(test)]
mod tests;
