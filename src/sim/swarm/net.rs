//! The network of a swarm: links, connections and the clock.
//!
//! - A *link* has a rate each way. Up, connections with data take turns, a block at a time, as TCP flows
//!   share a link; down, what arrives waits in one queue. If the plan says so, a queue of so much time stands
//!   before the uplink, first in, first out: what is under way of a connection, its part of the queue
//!   besides, waits in it behind what came before, and nobody takes turns.
//! - A connection carries whole *parcels* in order: encoded messages, or one block without its bytes. No more
//!   than two blocks and what the distance takes is under way on one connection, so who reads slowly holds up
//!   its own connections only.
//! - Small messages on a connection that has nothing queued pass at once and are charged to both links.
//! - A send has ended when no more than `unsent_max` bytes of its connection are left to be sent
//!   (`TCP_NOTSENT_LOWAT`).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;

use crate::base::geometry::BlockRef;
use crate::base::limits::SEND_UNSENT_BYTES;
use crate::base::time::{Instant, Span};
use crate::base::units::{BLOCK_BYTES, PIECE_HEADER_BYTES};

/// Blocks under way on one connection, beside what the distance takes.
const WINDOW_BLOCKS: u64 = 2;

/// One end of a connection; the other end differs in the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId(pub u32);

impl EndId {
    /// The other end.
    pub const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// What travels in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parcel {
    /// Encoded messages, perhaps behind a handshake.
    Control(Vec<u8>),
    /// A `piece` message. There are no bytes: it is said whether they are right.
    Block {
        /// Which block.
        block: BlockRef,
        /// Its bytes are what they should be.
        good: bool,
    },
}

impl Parcel {
    /// Bytes on the wire.
    pub const fn wire_bytes(&self) -> u64 {
        match self {
            Self::Control(bytes) => bytes.len() as u64,
            Self::Block { block, .. } => (PIECE_HEADER_BYTES + block.length) as u64,
        }
    }

    /// What counts as under way: messages are small.
    const fn window_bytes(&self) -> u64 {
        match self {
            Self::Control(_) => 0,
            Self::Block { .. } => self.wire_bytes(),
        }
    }
}

/// What happens, at a time.
#[derive(Debug)]
pub enum Event {
    /// A host asked to be woken.
    Wake(usize),
    /// A host's link has sent what it was sending.
    Uplink(usize),
    /// All of a parcel has come to an end of a connection.
    Deliver(EndId, Parcel),
    /// The other side of a connection has closed it.
    Gone(EndId),
    /// Somebody connects to a host.
    Accept(EndId),
    /// A dial ended well.
    Dialed(EndId),
    /// A host comes.
    Join(usize),
    /// A host goes.
    Leave(usize),
    /// A host looks for more peers.
    Announce(usize),
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// By what a host knows its end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The core, if it has several.
    pub core: usize,
    /// Its place.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
    /// The other side's handshake has come.
    pub shaken: bool,
}

#[derive(Debug)]
struct End {
    host: usize,
    /// As the other side sees it.
    address: SocketAddr,
    tag: Tag,
    open: bool,
    queue: VecDeque<Parcel>,
    queued_bytes: u64,
    unsent_max: u64,
    /// A send has not ended yet.
    sending: bool,
    under_way_bytes: u64,
    /// It waits for its turn on the link.
    listed: bool,
    delivers_at: Instant,
}

/// How fast a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second that it sends.
    pub up: u64,
    /// Bytes a second that it receives.
    pub down: u64,
}

#[derive(Debug)]
struct Link {
    rates: Rates,
    turns: VecDeque<EndId>,
    /// What the kernel and the link's queue hold, in order, if the link has a queue.
    fifo: VecDeque<(EndId, Parcel)>,
    /// Connections that have something under way.
    active: u64,
    busy: Option<(EndId, Parcel)>,
    /// Small messages that passed at once and take their time from what follows.
    owed_bytes: u64,
    down_free_at: Instant,
    /// How long it has been sending.
    busy_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Net {
    now: Instant,
    delay: Span,
    /// See `Plan`.
    queue: Span,
    /// See `Plan`.
    unsent_bytes: Option<u32>,
    events: BinaryHeap<Entry>,
    sequence: u64,
    ends: Vec<End>,
    links: Vec<Link>,
    /// Ends whose send has ended, for whoever runs the hosts.
    sent: VecDeque<EndId>,
    /// Hosts whose link has room for more.
    roomy: VecDeque<usize>,
}

impl Net {
    /// Nobody is there; everything takes `delay` from anywhere to anywhere.
    pub fn new(delay: Span, queue: Span, unsent_bytes: Option<u32>) -> Self {
        Self {
            queue,
            unsent_bytes,
            now: Instant(1_000_000_000),
            delay,
            events: BinaryHeap::new(),
            sequence: 0,
            ends: Vec::new(),
            links: Vec::new(),
            sent: VecDeque::new(),
            roomy: VecDeque::new(),
        }
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// A host more; it is known by the number of those before it.
    pub fn add_host(&mut self, rates: Rates) -> usize {
        assert!(rates.up > 0 && rates.down > 0);
        self.links.push(Link {
            rates,
            turns: VecDeque::new(),
            fifo: VecDeque::new(),
            active: 0,
            busy: None,
            owed_bytes: 0,
            down_free_at: self.now,
            busy_ns: 0,
        });
        self.links.len() - 1
    }

    /// Has something happen later.
    pub fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Entry { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// The next thing that happens; time goes on to it.
    pub fn next_event(&mut self) -> Option<Event> {
        let entry = self.events.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// A connection from one host to another; `from` is what the other one sees. The dialled side hears of it
    /// first.
    pub fn dial(&mut self, dialer: usize, from: SocketAddr, to: usize, at: SocketAddr) -> EndId {
        let end = EndId(self.ends.len() as u32);
        let now = self.now;
        let unsent_max = self.unsent_bytes.unwrap_or(SEND_UNSENT_BYTES).into();
        self.ends.extend([(dialer, from), (to, at)].map(|(host, address)| End {
            host,
            address,
            tag: Tag::default(),
            open: true,
            queue: VecDeque::new(),
            queued_bytes: 0,
            unsent_max,
            sending: false,
            under_way_bytes: 0,
            listed: false,
            delivers_at: now,
        }));
        self.schedule(now + self.delay, Event::Accept(end.other()));
        self.schedule(now + Span(2 * self.delay.0), Event::Dialed(end));
        end
    }

    /// Whose end it is.
    pub fn host(&self, end: EndId) -> usize {
        self.ends[end.0 as usize].host
    }

    /// Where the other side connects from, or is connected to.
    pub fn peer_address(&self, end: EndId) -> SocketAddr {
        self.ends[end.other().0 as usize].address
    }

    /// What the host calls it.
    pub fn tag(&self, end: EndId) -> Tag {
        self.ends[end.0 as usize].tag
    }

    /// The host calls it so.
    pub fn set_tag(&mut self, end: EndId, tag: Tag) {
        self.ends[end.0 as usize].tag = tag;
    }

    /// Whether neither side has closed it, as far as this one knows.
    pub fn is_open(&self, end: EndId) -> bool {
        self.ends[end.0 as usize].open
    }

    /// What the kernel takes beyond what it can send.
    pub fn set_unsent(&mut self, end: EndId, bytes: u32) {
        self.ends[end.0 as usize].unsent_max = self.unsent_bytes.unwrap_or(bytes).into();
    }

    /// A send of several parcels; `next_sent` names the end when the kernel has taken all.
    pub fn send(&mut self, end: EndId, parcels: impl IntoIterator<Item = Parcel>) {
        for parcel in parcels {
            self.push(end, parcel);
        }
        self.ends[end.0 as usize].sending = true;
        self.note_progress(end);
    }

    /// Puts one parcel behind those that are queued.
    pub fn push(&mut self, end: EndId, parcel: Parcel) {
        let at = &mut self.ends[end.0 as usize];
        if !at.open {
            return;
        }
        let sending = self.links[at.host].busy.as_ref().is_some_and(|(busy, _)| *busy == end);
        if at.queue.is_empty() && !sending && matches!(parcel, Parcel::Control(_)) {
            return self.pass(end, parcel);
        }
        at.queued_bytes += parcel.wire_bytes();
        at.queue.push_back(parcel);
        self.list(end);
    }

    /// A small message takes no turn of its own.
    fn pass(&mut self, end: EndId, parcel: Parcel) {
        let bytes = parcel.wire_bytes();
        let (from, to) = (self.host(end), self.host(end.other()));
        self.links[from].owed_bytes += bytes;
        let down = &mut self.links[to];
        down.down_free_at = down.down_free_at.max(self.now) + transfer(bytes, down.rates.down);
        let at = &mut self.ends[end.0 as usize];
        at.delivers_at = at.delivers_at.max(self.now + self.delay);
        let delivers_at = at.delivers_at;
        self.schedule(delivers_at, Event::Deliver(end.other(), parcel));
    }

    /// The end waits for its turn on the link, if it has something to send and may.
    fn list(&mut self, end: EndId) {
        let window_bytes = self.window_bytes(end);
        let at = &mut self.ends[end.0 as usize];
        let host = at.host;
        let may = !at.queue.is_empty() && at.under_way_bytes < window_bytes;
        if may && self.queue > Span::ZERO {
            self.fill(end);
        } else if may && !std::mem::replace(&mut at.listed, true) {
            self.links[host].turns.push_back(end);
        }
        self.take_turn(host);
    }

    fn window_bytes(&self, end: EndId) -> u64 {
        let [up, down] = [self.host(end), self.host(end.other())].map(|host| self.links[host].rates);
        let rate = u128::from(up.up.min(down.down));
        let distance = (2 * rate * u128::from(self.delay.0) / 1_000_000_000) as u64;
        let link = &self.links[self.host(end)];
        let queue_bytes = (u128::from(link.rates.up) * u128::from(self.queue.0) / 1_000_000_000) as u64;
        (WINDOW_BLOCKS - 1) * u64::from(BLOCK_BYTES) + distance + queue_bytes / link.active.max(1) + 1
    }

    /// Moves what may be under way into the link's queue.
    fn fill(&mut self, end: EndId) {
        let host = self.host(end);
        while self.ends[end.0 as usize].under_way_bytes < self.window_bytes(end) {
            let Some(parcel) = self.dequeue(end) else { break };
            self.links[host].fifo.push_back((end, parcel));
        }
        self.note_progress(end);
    }

    /// The next parcel of a connection is under way.
    fn dequeue(&mut self, end: EndId) -> Option<Parcel> {
        let at = &mut self.ends[end.0 as usize];
        let parcel = at.queue.pop_front()?;
        at.queued_bytes -= parcel.wire_bytes();
        let idle = at.under_way_bytes == 0;
        at.under_way_bytes += parcel.window_bytes();
        self.links[at.host].active += u64::from(idle && at.under_way_bytes > 0);
        Some(parcel)
    }

    /// The link sends a parcel.
    fn transmit(&mut self, host: usize, end: EndId, parcel: Parcel) {
        let link = &mut self.links[host];
        let bytes = parcel.wire_bytes() + std::mem::take(&mut link.owed_bytes);
        let span = transfer(bytes, link.rates.up);
        link.busy = Some((end, parcel));
        link.busy_ns += span.0;
        self.schedule(self.now + span, Event::Uplink(host));
    }

    /// The link begins to send the next parcel.
    fn take_turn(&mut self, host: usize) {
        while self.links[host].busy.is_none() {
            if let Some((end, parcel)) = self.links[host].fifo.pop_front() {
                self.transmit(host, end, parcel);
                break;
            }
            let Some(end) = self.links[host].turns.pop_front() else { break };
            self.ends[end.0 as usize].listed = false;
            let Some(parcel) = self.dequeue(end) else { continue };
            self.transmit(host, end, parcel);
            self.note_progress(end);
            self.list(end);
        }
        if self.has_room(host) {
            self.roomy.push_back(host);
        }
    }

    fn note_progress(&mut self, end: EndId) {
        let at = &mut self.ends[end.0 as usize];
        if at.sending && at.queued_bytes <= at.unsent_max {
            at.sending = false;
            self.sent.push_back(end);
        }
    }

    /// The link has sent a parcel.
    pub fn handle_uplink(&mut self, host: usize) {
        if let Some((end, parcel)) = self.links[host].busy.take() {
            let bytes = parcel.wire_bytes();
            let to = self.host(end.other());
            let down = &mut self.links[to];
            let arrives = self.now + self.delay;
            let at = arrives.max(down.down_free_at + transfer(bytes, down.rates.down));
            down.down_free_at = at;
            let at_end = &mut self.ends[end.0 as usize];
            at_end.delivers_at = at_end.delivers_at.max(at);
            let at = at_end.delivers_at;
            self.schedule(at, Event::Deliver(end.other(), parcel));
        }
        self.take_turn(host);
    }

    /// A parcel that was queued has come: its sender may send more. False if the connection is closed.
    pub fn acknowledge(&mut self, end: EndId, parcel: &Parcel) -> bool {
        let sender = end.other();
        let at = &mut self.ends[sender.0 as usize];
        at.under_way_bytes -= parcel.window_bytes();
        let idle = at.under_way_bytes == 0 && parcel.window_bytes() > 0;
        self.links[at.host].active -= u64::from(idle);
        if at.open {
            self.list(sender);
        }
        self.is_open(end)
    }

    /// Closes an end; the other side hears of it.
    pub fn close(&mut self, end: EndId) {
        let at = &mut self.ends[end.0 as usize];
        if std::mem::replace(&mut at.open, false) {
            at.queue = VecDeque::new();
            at.queued_bytes = 0;
            at.sending = false;
            self.schedule(self.now + self.delay, Event::Gone(end.other()));
        }
    }

    /// An end whose send has ended.
    pub fn next_sent(&mut self) -> Option<EndId> {
        self.sent.pop_front()
    }

    /// A host whose link has little or nothing left to send.
    pub fn next_roomy(&mut self) -> Option<usize> {
        self.roomy.pop_front()
    }

    /// Whether a host's link has nothing waiting.
    pub fn has_room(&self, host: usize) -> bool {
        self.links[host].turns.is_empty() && self.links[host].fifo.is_empty()
    }

    /// Whether an end has nothing queued and could send at once.
    pub fn may_send(&self, end: EndId) -> bool {
        let at = &self.ends[end.0 as usize];
        at.open && at.queue.is_empty() && at.under_way_bytes < self.window_bytes(end)
    }

    /// What stands before its host's uplink of an end's parcels, the one that waits for its turn included.
    pub fn backlog_bytes(&self, end: EndId) -> u64 {
        let (at, link) = (&self.ends[end.0 as usize], &self.links[self.host(end)]);
        let standing = link.fifo.iter().chain(&link.busy).filter(|(whose, _)| *whose == end);
        let waiting = at.queue.front().filter(|_| at.listed);
        standing.map(|(_, parcel)| parcel).chain(waiting).map(Parcel::wire_bytes).sum()
    }

    /// How long a host's link has been sending.
    pub fn busy(&self, host: usize) -> Span {
        Span(self.links[host].busy_ns)
    }

    /// How fast a host is.
    pub fn rates(&self, host: usize) -> Rates {
        self.links[host].rates
    }
}

/// How long `bytes` take at `rate` bytes a second.
pub const fn transfer(bytes: u64, rate: u64) -> Span {
    Span((bytes as u128 * 1_000_000_000 / rate as u128) as u64)
}
