//! Whose blocks leave next, over all limits.
//!
//! What may be sent is limited for the node, for each torrent, and apart from both for the peers of local
//! networks. Connections under the same limits are a *domain*, with an order of service and a window of
//! its own: in one order a domain that may send more would leave the others' places behind. Domains take
//! turns. One whose limit is shut, or whose window is full, is set aside until then, so that nobody waits
//! for somebody else's limit.
//!
//! ```text
//! domain        who                                              limited by
//! 0             all but the following                            node
//! 1             local networks, if they are apart                their own limit, or nothing
//! one each      torrents that have a limit                       node and torrent
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::scheduler::class::Class;
use super::scheduler::lists::{Links, List};
use super::scheduler::view::Outlook;
use super::scheduler::{Demand, InFlight, Membership, Scheduler, Turn};
use super::tap::{Tap, claim_both};
use crate::base::ids::{ConnId, TorrentId};
use crate::base::limits::CONNECTIONS_PER_CORE_MAX;
use crate::base::slots::Slots;
use crate::base::time::{Instant, Span};
use crate::shared::budget::{Budget, Budgets, LanBudget};
use crate::shared::ledger::Ledger;

/// The domain of all that is limited by the node alone.
const OTHERS: u32 = 0;

/// The domain of local networks, if they are apart.
const LAN: u32 = 1;

/// Between two looks at the windows of all domains, if there are many.
const ROLL: Span = Span::from_ms(10);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// A private, link-local or loopback address.
    Local,
    /// Any other.
    Public,
}

/// What limits a connection: where it comes from, and for which torrent.
#[derive(Clone, Copy, Debug)]
pub struct Lane<'a> {
    /// Where it comes from.
    pub locality: Locality,
    /// Its torrent.
    pub torrent: TorrentId,
    /// The limit of that.
    pub limit: Option<&'a Arc<Budget>>,
}

/// Where a domain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Nobody waits.
    Idle,
    /// Somebody waits, and may have a turn.
    Ready,
    /// What is in flight has to end first, or to grow old.
    Full,
    /// A limit is shut.
    Shut,
}

#[derive(Debug)]
struct Domain {
    scheduler: Scheduler,
    /// By the numbers that they have in its scheduler.
    members: Slots<ConnId>,
    torrent: Option<TorrentId>,
    /// Its limit beside the node's, or instead of that.
    own: Option<Tap>,
    stand: Stand,
    /// While it is set aside: when to look at it again.
    due: Instant,
}

/// Where a connection is: its domain, and its number there.
#[derive(Clone, Copy, Debug)]
struct Seat {
    conn: ConnId,
    domain: u32,
    number: ConnId,
}

/// What came of asking a domain for somebody to serve.
enum Look {
    Turn(ConnId, Turn),
    Nobody,
    Aside(Stand, Instant),
}

/// See the module.
#[derive(Debug)]
pub struct Egress {
    node: Option<Tap>,
    lan: LanBudget,
    domains: Vec<Domain>,
    vacant: Vec<u32>,
    by_torrent: HashMap<TorrentId, u32>,
    /// By index of the connection.
    seats: Vec<Option<Seat>>,
    links: Links,
    ready: List,
    aside: List,
    /// When to look at those set aside.
    look_at: Option<Instant>,
    rolled_at: Instant,
    waiting_parties: usize,
    /// Connections to be asked for. See [`Scheduler::next_ask`].
    asks: Vec<ConnId>,
}

impl Egress {
    /// Nobody is there.
    pub fn new(budgets: &Budgets, now: Instant) -> Self {
        let own = budgets.lan.own().cloned().map(Tap::new);
        Self {
            node: budgets.node.clone().map(Tap::new),
            lan: budgets.lan.clone(),
            domains: vec![Domain::new(None, None, now), Domain::new(None, own, now)],
            vacant: Vec::new(),
            by_torrent: HashMap::new(),
            seats: Vec::new(),
            links: Links::default(),
            ready: List::default(),
            aside: List::default(),
            look_at: None,
            rolled_at: now,
            waiting_parties: 0,
            asks: Vec::new(),
        }
    }

    /// A connection that may come to wait.
    pub fn enter(&mut self, conn: ConnId, membership: Membership, lane: Lane<'_>, now: Instant) {
        let domain = self.domain_of(lane, now);
        let number = self.domains[domain as usize].members.insert(conn);
        let number = number.expect("a domain has room for all connections of a core");
        let index = conn.index as usize;
        if self.seats.len() <= index {
            self.seats.resize(index + 1, None);
        }
        assert!(self.seats[index].is_none(), "connection {index} has a seat");
        self.seats[index] = Some(Seat { conn, domain, number });
        self.domains[domain as usize].scheduler.enter(number, membership);
    }

    /// A connection belongs elsewhere from now on. See [`Scheduler::reseat`].
    pub fn reseat(&mut self, conn: ConnId, membership: Membership, ledger: &Ledger) {
        self.on(conn, |scheduler, number| scheduler.reseat(number, membership, ledger));
    }

    /// A connection is gone.
    pub fn leave(&mut self, conn: ConnId, ledger: &Ledger) {
        self.on(conn, |scheduler, number| scheduler.leave(number, ledger));
        let Some(seat) = self.seat(conn) else { return };
        self.seats[conn.index as usize] = None;
        let domain = &mut self.domains[seat.domain as usize];
        domain.members.remove(seat.number);
        if domain.members.is_empty()
            && let Some(torrent) = domain.torrent.take()
        {
            self.put(seat.domain, Stand::Idle);
            self.by_torrent.remove(&torrent);
            self.vacant.push(seat.domain);
        }
    }

    /// Whether the connection waits.
    pub fn holds(&self, conn: ConnId) -> bool {
        self.look_up(conn).is_some_and(|(domain, number)| domain.scheduler.holds(number))
    }

    /// Whether the connection waits in the class `Again`.
    pub fn waits_again(&self, conn: ConnId) -> bool {
        self.look_up(conn).is_some_and(|(domain, number)| domain.scheduler.waits_again(number))
    }

    /// Whether nobody waits.
    pub const fn is_idle(&self) -> bool {
        self.waiting_parties == 0
    }

    /// How many parties wait.
    pub const fn waiting_parties(&self) -> usize {
        self.waiting_parties
    }

    /// The connection has blocks to be sent; it waits for its turn, once.
    pub fn wait(&mut self, conn: ConnId, demand: Demand, ledger: &Ledger) {
        self.on(conn, |scheduler, number| scheduler.wait(number, demand, ledger));
    }

    /// A connection that waits may have come to stand wrong. It keeps its turn if not.
    pub fn rank_again(&mut self, conn: ConnId, demand: Demand, ledger: &Ledger) {
        self.on(conn, |scheduler, number| scheduler.rank_again(number, demand, ledger));
    }

    /// The connection has nothing to be sent any more.
    pub fn forget(&mut self, conn: ConnId) {
        self.on(conn, Scheduler::forget);
    }

    /// Members of a connection's address group that was served nothing. See [`Scheduler::passed_over`].
    pub fn passed_over(&self, conn: ConnId, since: Instant) -> Option<u32> {
        let (domain, number) = self.look_up(conn)?;
        domain.scheduler.passed_over(number, since)
    }

    /// A turn out of order carried nothing. See [`Scheduler::missed_turn`].
    pub fn missed_turn(&mut self, conn: ConnId) {
        self.on(conn, Scheduler::missed_turn);
    }

    /// How long the link of a connection takes for so much. See [`Window::sending`].
    ///
    /// [`Window::sending`]: super::scheduler::window::Window::sending
    pub fn sending(&self, conn: ConnId, bytes: u64) -> Span {
        self.look_up(conn).map_or(Span::ZERO, |(domain, _)| domain.scheduler.window.sending(bytes))
    }

    /// How long the slowest link takes for so much; no time while none is known.
    pub fn longest_sending(&self, bytes: u64) -> Span {
        let sending = self.domains.iter().map(|domain| domain.scheduler.window.sending(bytes));
        sending.max().unwrap_or(Span::ZERO)
    }

    /// Every link is so fast.
    #[cfg(test)]
    pub fn set_rate(&mut self, rate_bytes: u64) {
        self.domains.iter_mut().for_each(|domain| domain.scheduler.window.set_rate(rate_bytes));
    }

    /// A turn out of order. See [`Scheduler::out_of_turn`].
    pub fn out_of_turn(&mut self, conn: ConnId, bytes: u64) -> Option<Turn> {
        self.on(conn, |scheduler, number| scheduler.out_of_turn(number, bytes)).flatten()
    }

    /// The turn carries so many bytes.
    pub fn charge(&mut self, conn: ConnId, turn: Turn, bytes: u64, ledger: &Ledger) -> Option<InFlight> {
        self.on(conn, |scheduler, _| scheduler.charge(turn, bytes, ledger)).flatten()
    }

    /// Bytes that were charged never left. See [`Scheduler::refund`].
    pub fn refund(&self, conn: ConnId, bytes: u64, ledger: &Ledger) {
        if let Some((domain, number)) = self.look_up(conn) {
            domain.scheduler.refund(number, bytes, ledger);
        }
    }

    /// A send to the connection ended, or the connection did.
    pub fn end(&mut self, conn: ConnId, sent: InFlight, ledger: &Ledger) {
        self.on(conn, |scheduler, _| scheduler.end(sent, ledger));
    }

    /// Where the connection stands now. See [`Scheduler::outlook`].
    pub fn outlook(&self, conn: ConnId, ledger: &Ledger) -> Option<Outlook> {
        self.look_up(conn).and_then(|(domain, number)| domain.scheduler.outlook(number, ledger))
    }

    /// The debt to whoever is owed most of those that wait.
    pub fn owed_waiting_bytes(&self, ledger: &Ledger) -> u64 {
        let debts = self.domains.iter().map(|domain| domain.scheduler.owed_waiting_bytes(ledger));
        debts.max().unwrap_or(0)
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub fn check(&self) {
        for (at, domain) in self.domains.iter().enumerate() {
            domain.scheduler.check();
            let stands =
                [&self.ready, &self.aside].map(|&list| self.links.iter(list).any(|one| one as usize == at));
            let want = match domain.stand {
                Stand::Idle => [false, false],
                Stand::Ready => [true, false],
                Stand::Full | Stand::Shut => [false, true],
            };
            assert_eq!(stands, want, "where domain {at} stands");
            let forgotten = domain.stand == Stand::Idle && !domain.scheduler.is_idle();
            assert!(!forgotten, "domain {at} waits for nothing");
        }
        let sum: usize = self.domains.iter().map(|domain| domain.scheduler.waiting_parties()).sum();
        assert_eq!(self.waiting_parties, sum, "parties that wait");
    }

    /// Takes `bytes` of what limits the connection; false while that is shut.
    pub fn claim(&mut self, conn: ConnId, bytes: u32, now: Instant) -> bool {
        let Some(seat) = self.seat(conn) else { return true };
        let node = self.node.as_mut().filter(|_| seat.domain != LAN);
        claim_both(self.domains[seat.domain as usize].own.as_mut(), node, bytes, now)
    }

    /// Takes `bytes` that are no payload of what limits the connection; false while their part is used up.
    pub fn claim_answer(&self, conn: ConnId, bytes: u32, now: Instant) -> bool {
        let Some(seat) = self.seat(conn) else { return true };
        let node = self.node.as_ref().filter(|_| seat.domain != LAN);
        let taps = [self.domains[seat.domain as usize].own.as_ref(), node];
        let open = taps.iter().flatten().all(|tap| tap.is_open_for_answers(now));
        taps.iter().flatten().filter(|_| open).for_each(|tap| tap.charge_answer(bytes, now));
        open
    }

    /// Such an answer is not given after all.
    pub fn put_answer_back(&self, conn: ConnId, bytes: u32) {
        let Some(seat) = self.seat(conn) else { return };
        let node = self.node.as_ref().filter(|_| seat.domain != LAN);
        let taps = [self.domains[seat.domain as usize].own.as_ref(), node];
        taps.iter().flatten().for_each(|tap| tap.put_answer_back(bytes));
    }

    /// What was claimed is not sent after all.
    pub fn put_back(&mut self, conn: ConnId, bytes: u32) {
        let Some(seat) = self.seat(conn) else { return };
        let node = self.node.as_mut().filter(|_| seat.domain != LAN);
        let own = self.domains[seat.domain as usize].own.as_mut();
        own.into_iter().chain(node).for_each(|tap| tap.put_back(bytes));
    }

    /// Whose turn it is; it waits no longer. `None`: nobody waits who may be served now.
    pub fn next(&mut self, now: Instant, ledger: &Ledger) -> Option<(ConnId, Turn)> {
        self.look(now, ledger);
        while let Some(domain) = self.ready.first() {
            match self.turn_of(domain, now, ledger) {
                Look::Turn(conn, turn) => {
                    self.links.remove(&mut self.ready, domain);
                    self.links.push_back(&mut self.ready, domain);
                    return Some((conn, turn));
                }
                Look::Nobody => self.put(domain, Stand::Idle),
                Look::Aside(stand, due) => {
                    self.domains[domain as usize].due = due;
                    self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
                    self.put(domain, stand);
                }
            }
        }
        self.node.iter_mut().for_each(Tap::give_back);
        None
    }

    /// The next connection of which we need to know what stands in this machine's queue.
    pub fn next_ask(&mut self) -> Option<ConnId> {
        self.asks.pop()
    }

    /// See [`Scheduler::note_backlog`].
    pub fn note_backlog(&mut self, conn: ConnId, bytes: u64, now: Instant, ledger: &Ledger) {
        self.on(conn, |scheduler, number| scheduler.note_backlog(number, bytes, now, ledger));
    }

    /// When somebody who waits may be served, if nothing happens before.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Time has passed.
    pub fn roll(&mut self, now: Instant, ledger: &Ledger) {
        if self.domains.len() > 2 && now.since(self.rolled_at) < ROLL {
            return;
        }
        self.rolled_at = now;
        self.domains.iter_mut().for_each(|domain| domain.scheduler.roll(now, ledger));
    }

    /// Those set aside whose time has come are ready again.
    fn look(&mut self, now: Instant, ledger: &Ledger) {
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.look_at = None;
        let mut aside = std::mem::take(&mut self.aside);
        while let Some(domain) = aside.first() {
            self.links.remove(&mut aside, domain);
            let Domain { scheduler, stand, due, .. } = &mut self.domains[domain as usize];
            if *due <= now {
                scheduler.roll(now, ledger);
                *stand = Stand::Ready;
                self.links.push_back(&mut self.ready, domain);
            } else {
                self.look_at = Some(self.look_at.map_or(*due, |at| at.min(*due)));
                self.links.push_back(&mut self.aside, domain);
            }
        }
    }

    fn turn_of(&mut self, at: u32, now: Instant, ledger: &Ledger) -> Look {
        let domain = &mut self.domains[at as usize];
        if domain.scheduler.is_idle() {
            return Look::Nobody;
        }
        if !domain.scheduler.window.is_open_to(Class::Owed) {
            return Look::Aside(Stand::Full, domain.scheduler.due());
        }
        let node = self.node.as_mut().filter(|_| at != LAN);
        let shut = domain.own.as_mut().into_iter().chain(node).filter_map(|tap| tap.shut_until(now));
        if let Some(until) = shut.max() {
            return Look::Aside(Stand::Shut, until);
        }
        let before = domain.scheduler.waiting_parties();
        let pick = domain.scheduler.pick(ledger);
        self.waiting_parties = self.waiting_parties - before + domain.scheduler.waiting_parties();
        let members = &domain.members;
        let asks = std::iter::from_fn(|| domain.scheduler.next_ask());
        self.asks.extend(asks.filter_map(|number| members.get(number)));
        match pick {
            Some(turn) => Look::Turn(*domain.members.get(turn.conn).expect("who waits is a member"), turn),
            None => Look::Aside(Stand::Full, domain.scheduler.due()),
        }
    }

    /// Does something to a connection's place in the order, after which its domain may have a turn.
    fn on<T>(&mut self, conn: ConnId, action: impl FnOnce(&mut Scheduler, ConnId) -> T) -> Option<T> {
        let seat = self.seat(conn)?;
        let Domain { scheduler, stand, .. } = &mut self.domains[seat.domain as usize];
        let before = scheduler.waiting_parties();
        let outcome = action(scheduler, seat.number);
        self.waiting_parties = self.waiting_parties - before + scheduler.waiting_parties();
        if matches!(stand, Stand::Idle | Stand::Full) && !scheduler.is_idle() {
            self.put(seat.domain, Stand::Ready);
        }
        Some(outcome)
    }

    /// Moves a domain to where it stands from now on.
    fn put(&mut self, at: u32, stand: Stand) {
        let domain = &mut self.domains[at as usize];
        match domain.stand {
            Stand::Idle => {}
            Stand::Ready => self.links.remove(&mut self.ready, at),
            Stand::Full | Stand::Shut => self.links.remove(&mut self.aside, at),
        }
        domain.stand = stand;
        match stand {
            Stand::Idle => domain.own.iter_mut().for_each(Tap::give_back),
            Stand::Ready => self.links.push_back(&mut self.ready, at),
            Stand::Full | Stand::Shut => {
                domain.own.iter_mut().for_each(Tap::give_back);
                self.links.push_back(&mut self.aside, at);
            }
        }
    }

    /// The domain of those under the same limits, made if there is none.
    fn domain_of(&mut self, lane: Lane<'_>, now: Instant) -> u32 {
        let Lane { locality, torrent, limit } = lane;
        if locality == Locality::Local && self.lan.is_apart() {
            return LAN;
        }
        let Some(limit) = limit else { return OTHERS };
        if let Some(&domain) = self.by_torrent.get(&torrent) {
            return domain;
        }
        let own = Some(Tap::new(Arc::clone(limit)));
        let domain = if let Some(domain) = self.vacant.pop() {
            let vacant = &mut self.domains[domain as usize];
            (vacant.torrent, vacant.own) = (Some(torrent), own);
            domain
        } else {
            self.domains.push(Domain::new(Some(torrent), own, now));
            self.domains.len() as u32 - 1
        };
        self.by_torrent.insert(torrent, domain);
        domain
    }

    fn seat(&self, conn: ConnId) -> Option<Seat> {
        (*self.seats.get(conn.index as usize)?).filter(|seat| seat.conn == conn)
    }

    fn look_up(&self, conn: ConnId) -> Option<(&Domain, ConnId)> {
        let seat = self.seat(conn)?;
        Some((&self.domains[seat.domain as usize], seat.number))
    }
}

impl Domain {
    fn new(torrent: Option<TorrentId>, own: Option<Tap>, now: Instant) -> Self {
        Self {
            scheduler: Scheduler::new(now),
            members: Slots::new(CONNECTIONS_PER_CORE_MAX),
            torrent,
            own,
            stand: Stand::Idle,
            due: now,
        }
    }
}

#[cfg(test)]
mod tests;
