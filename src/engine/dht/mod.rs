//! A node of the distributed hash table (BEP 5) in one address family (BEP 32), sans-io: datagrams and time
//! go in, datagrams and what they bring come out.
//!
//! ```text
//! table.rs     nodes that answer                 lookup.rs    one walk towards a target
//! store.rs     peers that others announce        guard.rs     how much of what others ask is answered
//! schedule.rs  which torrent is looked up when
//! ```
//!
//! Who may be named by whom: a node out there names only public addresses, one of a private network also
//! private ones, one on this host all (`AddressClass::may_name`); that holds for nodes and for peers, and
//! for what we tell others. An answer counts if it comes from where the question went and brings back the
//! question's transaction, which nobody can guess.

pub mod guard;
pub mod lookup;
pub mod schedule;
pub mod store;
pub mod table;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::base::address::{AddressClass, canonical};
use crate::base::ids::InfoHash;
use crate::base::limits::{
    DHT_ASKERS_MAX, DHT_BOOTSTRAP_MAX, DHT_HINTS_MAX, DHT_MOVE_INTERVAL, DHT_QUERIES_MAX,
    DHT_QUERIES_PER_SEC, DHT_QUERY_SLOW, DHT_QUERY_TIMEOUT, DHT_REPLY_BYTES_PER_SEC, DHT_SAVED_NODES_MAX,
};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::hash::sha1::Sha1;
use crate::proto::krpc::{
    Contact, NodeId, Packet, Query, Reply, Request, encode_error, fits, fitting_id, parse,
};
use crate::proto::tracker::compact::Family;

use guard::{Bucket, Guard};
use lookup::{Aim, Lookup};
use store::{Store, Tokens};
use table::{BUCKET, Table};

/// Between two looks at what has not been answered.
const TICK: Span = Span::from_ms(100);

/// Between two questions to nodes that have been silent.
const UPKEEP: Span = Span::from_secs(10);

/// Between two walks that keep the table fresh (BEP 5).
const REFRESH: Span = Span::from_secs(15 * 60);

/// The same while hardly any node is known: at first, and at most.
const REFRESH_EMPTY: (Span, Span) = (Span::from_secs(2), Span::from_secs(60));

/// Nodes on different hosts that must see us at the same address before we believe it (BEP 42).
const VOTES: usize = 4;

/// Addresses at which we may be said to be.
const VOTED_MAX: usize = 8;

/// Whether the node serves others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It answers queries and keeps what others announce.
    Serving,
    /// It asks only, and says so (BEP 43): a process that is gone in a minute is no node to remember.
    ReadOnly,
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// The family of its socket.
    pub family: Family,
    /// See [`Mode`].
    pub mode: Mode,
    /// From the kernel's generator: transactions, tokens and the id hang on it.
    pub secret: [u8; 32],
    /// The id that it had before.
    pub id: Option<NodeId>,
    /// Where to begin.
    pub bootstrap: Vec<SocketAddr>,
    /// Nodes that it knew before.
    pub nodes: Vec<Contact>,
}

/// What a node has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DhtEvent {
    /// Peers of a torrent.
    Peers(InfoHash, Vec<SocketAddr>),
    /// A walk is over.
    Done {
        /// Of which torrent.
        info_hash: InfoHash,
        /// Nodes that answered.
        answers: usize,
        /// Nodes that were told where we are.
        announced: usize,
    },
    /// Others see us at this public address.
    External(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Walk(u32),
    Ping,
    Announce,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    to: SocketAddr,
    id: Option<NodeId>,
    asked_at: Instant,
    purpose: Purpose,
}

/// See the module.
#[derive(Debug)]
pub struct Dht {
    family: Family,
    mode: Mode,
    secret: [u8; 32],
    drawn: u64,
    table: Table,
    bootstrap: Vec<SocketAddr>,
    /// Nodes of the last run, until enough others answer.
    cold: Vec<Contact>,
    walks: BTreeMap<u32, Lookup>,
    walks_begun: u32,
    pending: BTreeMap<[u8; 4], Pending>,
    /// Addresses to be pinged.
    hints: VecDeque<SocketAddr>,
    votes: HashMap<IpAddr, HashSet<IpAddr>>,
    /// Where others see us, and since when that is known.
    seen: Option<(IpAddr, Instant)>,
    store: Store,
    tokens: Tokens,
    askers: Guard,
    reply_bytes: Bucket,
    rng: Rng,
    tick_at: Instant,
    upkeep_at: Instant,
    refresh_at: Instant,
    refresh_wait: Span,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<DhtEvent>,
}

impl Dht {
    /// A node that knows nobody yet.
    pub fn new(config: DhtConfig, now: Instant) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = config.secret;
        let mut node = Self {
            family: config.family,
            mode: config.mode,
            secret: config.secret,
            drawn: 0,
            table: Table::new(NodeId([0; 20])),
            bootstrap: Vec::new(),
            cold: config.nodes,
            walks: BTreeMap::new(),
            walks_begun: 0,
            pending: BTreeMap::new(),
            hints: VecDeque::new(),
            votes: HashMap::new(),
            seen: None,
            store: Store::default(),
            tokens: Tokens::new(config.secret),
            askers: Guard::new(DHT_QUERIES_PER_SEC, DHT_ASKERS_MAX),
            reply_bytes: Bucket::new(now),
            rng: Rng::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            tick_at: now,
            upkeep_at: now + UPKEEP,
            refresh_at: now,
            refresh_wait: REFRESH_EMPTY.0,
            out: VecDeque::new(),
            events: VecDeque::new(),
        };
        node.cold.truncate(DHT_SAVED_NODES_MAX);
        node.table = Table::new(config.id.unwrap_or_else(|| NodeId(node.draw())));
        node.add_bootstrap(&config.bootstrap, now);
        node
    }

    /// More places to begin at; names are resolved late.
    pub fn add_bootstrap(&mut self, addresses: &[SocketAddr], now: Instant) {
        let ours = addresses.iter().filter(|address| family_of(**address) == self.family);
        for &address in ours {
            if self.bootstrap.len() < DHT_BOOTSTRAP_MAX && !self.bootstrap.contains(&address) {
                self.bootstrap.push(address);
            }
        }
        if self.table.count() < BUCKET {
            self.refresh_at = self.refresh_at.min(now);
        }
    }

    /// A peer says that it has a node at this address (BEP 5 `port`). It is pinged; beyond the limit, not.
    pub fn handle_hint(&mut self, address: SocketAddr, now: Instant) {
        if family_of(address) == self.family && self.table.count() < DHT_SAVED_NODES_MAX {
            self.hint(address);
            self.ping_hints(now);
        }
    }

    /// Begins a walk for a torrent.
    pub fn look_up(&mut self, aim: Aim, now: Instant) {
        if let Aim::Peers { info_hash, .. } = aim {
            self.begin(aim, NodeId(info_hash.0), now);
        }
    }

    /// A datagram came.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        let from = SocketAddr::new(canonical(from.ip()), from.port());
        match parse(bytes, self.family) {
            Some(Packet::Request(request)) => self.requested(from, request, now),
            Some(Packet::Reply(reply)) => self.replied(from, reply, now),
            Some(Packet::Error(transaction)) => {
                if let Some(pending) = self.take_pending(from, &transaction) {
                    self.unanswered(pending, now);
                }
            }
            None => {}
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        if now < self.tick_at {
            return;
        }
        self.tick_at = now + TICK;
        let is_late = |pending: &Pending| now.since(pending.asked_at) >= DHT_QUERY_TIMEOUT;
        let late: Vec<Pending> = self.pending.values().filter(|pending| is_late(pending)).copied().collect();
        self.pending.retain(|_, pending| !is_late(pending));
        late.into_iter().for_each(|pending| self.unanswered(pending, now));
        let walks: Vec<u32> = self.walks.keys().copied().collect();
        walks.into_iter().for_each(|walk| self.advance(walk, now));
        if now >= self.upkeep_at {
            self.upkeep_at = now + UPKEEP;
            if let Some(stale) = self.table.stalest(now) {
                self.ask(stale.address, Some(stale.id), Query::Ping, Purpose::Ping, now);
            }
        }
        self.ping_hints(now);
        if now >= self.refresh_at {
            self.refresh(now);
        }
    }

    /// When [`Self::handle_tick`] is due.
    pub fn poll_timeout(&self) -> Instant {
        let busy = !self.pending.is_empty() || !self.walks.is_empty() || !self.hints.is_empty();
        let idle = self.upkeep_at.min(self.refresh_at).max(self.tick_at);
        if busy { self.tick_at } else { idle }
    }

    /// The next datagram to be sent.
    pub fn poll_send(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// The next thing that was found out.
    pub fn poll_event(&mut self) -> Option<DhtEvent> {
        self.events.pop_front()
    }

    /// Its name.
    pub const fn id(&self) -> NodeId {
        self.table.own()
    }

    /// Nodes that are known to answer.
    pub fn node_count(&self) -> usize {
        self.table.count()
    }

    /// Nodes to be kept over a restart, the farthest first.
    pub fn contacts(&self) -> Vec<Contact> {
        self.table.contacts().take(DHT_SAVED_NODES_MAX).collect()
    }

    /// Peers that others have announced.
    pub const fn stored(&self) -> usize {
        self.store.count()
    }

    fn refresh(&mut self, now: Instant) {
        let few = self.table.count() < BUCKET;
        let wait = if few { self.refresh_wait } else { REFRESH };
        self.refresh_wait = if few { Span((2 * wait.0).min(REFRESH_EMPTY.1.0)) } else { REFRESH_EMPTY.0 };
        self.refresh_at = now + wait;
        let random = NodeId(self.draw());
        self.begin(Aim::Nodes, self.id(), now);
        if !few {
            self.begin(Aim::Nodes, random, now);
        }
    }

    fn begin(&mut self, aim: Aim, target: NodeId, now: Instant) {
        let mut contacts = self.table.closest(target, 2 * BUCKET);
        if contacts.len() < BUCKET {
            contacts.extend(&self.cold);
        } else {
            self.cold.clear();
        }
        let few = self.table.count() < BUCKET;
        let strangers = if few { self.bootstrap.as_slice() } else { &[] };
        self.walks_begun = self.walks_begun.wrapping_add(1);
        let walk = Lookup::new(aim, target, &contacts, strangers);
        self.walks.insert(self.walks_begun, walk);
        self.advance(self.walks_begun, now);
    }

    /// Asks whom a walk wants to ask, and ends it when it is over.
    fn advance(&mut self, id: u32, now: Instant) {
        let (mut fast, mut all) = (0, 0);
        for pending in self.pending.values().filter(|pending| pending.purpose == Purpose::Walk(id)) {
            all += 1;
            fast += usize::from(now.since(pending.asked_at) < DHT_QUERY_SLOW);
        }
        while let Some(walk) = self.walks.get_mut(&id)
            && self.pending.len() < DHT_QUERIES_MAX
            && let Some((address, node)) = walk.poll_ask(fast)
        {
            let query = match walk.aim {
                Aim::Nodes => Query::FindNode(walk.target()),
                Aim::Peers { info_hash, .. } => Query::GetPeers(info_hash),
            };
            self.ask(address, node, query, Purpose::Walk(id), now);
            (fast, all) = (fast + 1, all + 1);
        }
        if self.walks.get(&id).is_some_and(|walk| walk.is_over(all)) {
            self.end(id, now);
        }
    }

    fn end(&mut self, id: u32, now: Instant) {
        let Some(walk) = self.walks.remove(&id) else { return };
        self.pending.retain(|_, pending| pending.purpose != Purpose::Walk(id));
        let Aim::Peers { info_hash, announce } = walk.aim else { return };
        let told = if announce.is_some() { walk.closest() } else { Vec::new() };
        let announced = told.len();
        for (address, token) in told {
            let query = Query::Announce { info_hash, port: announce, token };
            self.ask(address, None, query, Purpose::Announce, now);
        }
        self.events.push_back(DhtEvent::Done { info_hash, answers: walk.answers(), announced });
    }

    fn ask(&mut self, to: SocketAddr, id: Option<NodeId>, query: Query, purpose: Purpose, now: Instant) {
        let [a, b, c, d, ..] = self.draw();
        let transaction = [a, b, c, d];
        let read_only = self.mode == Mode::ReadOnly;
        let request = Request { transaction: transaction.to_vec(), id: self.id(), query, read_only };
        self.pending.insert(transaction, Pending { to, id, asked_at: now, purpose });
        self.out.push_back((to, request.encode()));
    }

    fn take_pending(&mut self, from: SocketAddr, transaction: &[u8]) -> Option<Pending> {
        let transaction: [u8; 4] = transaction.try_into().ok()?;
        let pending = self.pending.get(&transaction).filter(|pending| pending.to == from).copied()?;
        self.pending.remove(&transaction);
        Some(pending)
    }

    fn replied(&mut self, from: SocketAddr, reply: Reply, now: Instant) {
        let Some(pending) = self.take_pending(from, &reply.transaction) else { return };
        let contact = Contact { id: reply.id, address: from };
        if pending.id.is_some_and(|id| id != reply.id) {
            // Another node than the one that was meant lives there now.
            self.unanswered(pending, now);
        }
        self.table.handle_answer(contact, now);
        if let Some(seen) = reply.seen {
            self.vote(from.ip(), canonical(seen.ip()));
        }
        let Purpose::Walk(id) = pending.purpose else { return };
        let Some(walk) = self.walks.get_mut(&id) else { return };
        let class = AddressClass::of(from.ip());
        let may_name = |address: &SocketAddr| class.may_name(AddressClass::of(address.ip()));
        for node in reply.nodes.into_iter().filter(|node| may_name(&node.address)) {
            if node.id != self.table.own() {
                walk.add(node);
            }
        }
        let fresh = walk.handle_answer(contact, reply.token, reply.peers.into_iter().filter(may_name));
        if let Aim::Peers { info_hash, .. } = walk.aim
            && !fresh.is_empty()
        {
            self.events.push_back(DhtEvent::Peers(info_hash, fresh));
        }
        self.advance(id, now);
    }

    fn unanswered(&mut self, pending: Pending, now: Instant) {
        if let Some(id) = pending.id {
            self.table.handle_silence(id, pending.to);
        }
        if let Purpose::Walk(id) = pending.purpose
            && let Some(walk) = self.walks.get_mut(&id)
        {
            walk.handle_silence(pending.to);
            self.advance(id, now);
        }
    }

    /// Somebody asks.
    fn requested(&mut self, from: SocketAddr, request: Request, now: Instant) {
        let class = AddressClass::of(from.ip());
        if self.mode == Mode::ReadOnly
            || from.port() == 0
            || !class.is_host()
            || !self.askers.admits(from, now)
        {
            return;
        }
        if !request.read_only && self.table.wants(Contact { id: request.id, address: from }) {
            self.hint(from);
        }
        let answer = self.answer(from, &request, now);
        let bytes = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        if self.reply_bytes.take(bytes, DHT_REPLY_BYTES_PER_SEC, now) {
            self.out.push_back((from, answer));
        }
        self.ping_hints(now);
    }

    fn answer(&mut self, from: SocketAddr, request: &Request, now: Instant) -> Vec<u8> {
        let class = AddressClass::of(from.ip());
        let may_hear = |address: &SocketAddr| class.may_name(AddressClass::of(address.ip()));
        let mut reply = Reply {
            transaction: request.transaction.clone(),
            id: self.id(),
            nodes: Vec::new(),
            peers: Vec::new(),
            token: None,
            seen: Some(from),
        };
        let closest = |target: NodeId| {
            let mut nodes = self.table.closest(target, 2 * BUCKET);
            nodes.retain(|node| may_hear(&node.address));
            nodes.truncate(BUCKET);
            nodes
        };
        match &request.query {
            Query::Ping => {}
            Query::FindNode(target) => reply.nodes = closest(*target),
            Query::GetPeers(info_hash) => {
                reply.nodes = closest(NodeId(info_hash.0));
                reply.token = Some(self.tokens.give(from.ip(), now));
                reply.peers = self.store.peers(*info_hash, &mut self.rng, now);
                reply.peers.retain(may_hear);
            }
            Query::Announce { info_hash, port, token } => {
                if !self.tokens.is_good(token, from.ip(), now) {
                    return encode_error(&request.transaction, 203, "Bad token");
                }
                let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                self.store.add(*info_hash, peer, now);
            }
        }
        reply.encode(self.family)
    }

    fn hint(&mut self, address: SocketAddr) {
        if self.hints.len() < DHT_HINTS_MAX && !self.hints.contains(&address) {
            self.hints.push_back(address);
        }
    }

    fn ping_hints(&mut self, now: Instant) {
        let pings = self.pending.values().filter(|pending| pending.purpose == Purpose::Ping).count();
        for _ in pings..DHT_HINTS_MAX {
            let Some(address) = self.hints.pop_front() else { return };
            if !self.pending.values().any(|pending| pending.to == address) {
                self.ask(address, None, Query::Ping, Purpose::Ping, now);
            }
        }
    }

    /// A node sees us at `seen`. When enough hosts agree on a public address, our id has to fit it.
    fn vote(&mut self, voter: IpAddr, seen: IpAddr) {
        let public = |ip: IpAddr| AddressClass::of(ip) == AddressClass::Global;
        if !public(seen) || !public(voter) {
            return;
        }
        if self.votes.len() >= VOTED_MAX && !self.votes.contains_key(&seen) {
            self.votes.clear();
        }
        let votes = self.votes.entry(seen).or_default();
        votes.insert(voter);
        if votes.len() < VOTES {
            return;
        }
        self.votes.clear();
        let now = self.tick_at;
        // A few hosts that agree could have us move about: not again for a while.
        if self.seen.is_some_and(|(ip, since)| ip == seen || now.since(since) < DHT_MOVE_INTERVAL) {
            return;
        }
        self.seen = Some((seen, now));
        self.events.push_back(DhtEvent::External(seen));
        if !fits(self.id(), seen) {
            let own = fitting_id(NodeId(self.draw()), seen);
            let before: Vec<Contact> = self.table.contacts().collect();
            self.table = Table::new(own);
            before.into_iter().for_each(|contact| self.table.handle_answer(contact, now));
        }
    }

    /// Twenty bytes that nobody can guess.
    fn draw(&mut self) -> [u8; 20] {
        self.drawn += 1;
        let mut digest = Sha1::new();
        digest.update(&self.secret);
        digest.update(b"draw");
        digest.update(&self.drawn.to_be_bytes());
        digest.finish()
    }
}

/// Of which socket an address is.
pub fn family_of(address: SocketAddr) -> Family {
    match canonical(address.ip()) {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[cfg(test)]
mod tests;
