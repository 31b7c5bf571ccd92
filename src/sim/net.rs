//! The simulated network: listeners, dials and byte streams.
//!
//! A connection has two ends. Each direction keeps its order, holds a bounded number of bytes
//! that were sent but not yet read, and shares its hosts' links with all other connections. As
//! with TCP nothing is lost: what goes wrong is delay, short transfers, resets and silence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::profile::index;
use super::timeline::{ActorId, Event, HostId, Timeline};
use crate::base::time::{Instant, Span};
use crate::io::Errno;

/// One end of a connection; never reused. The other end has the neighbouring number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId(pub u32);

impl EndId {
    /// The other end.
    const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// What a receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Nothing yet.
    Pending,
    /// So many bytes; 0 means that the other side sends no more.
    Bytes(usize),
}

/// How far a connection is, seen from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndState {
    /// Dialled, no answer yet.
    Connecting,
    /// Connected.
    Open,
    /// Over, by an error.
    Failed(Errno),
    /// Closed by its owner.
    Closed,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Packet {
    Data(Vec<u8>),
    Fin,
    Reset,
}

/// What the queue holds for the network; `to` is the end that it concerns.
#[derive(Debug)]
pub(super) enum NetEvent {
    /// A dial reaches the address of the other end.
    Knock { from: EndId },
    /// A dial ends.
    Answer { to: EndId, result: Result<(), Errno> },
    /// A packet reaches the receiver's link.
    Arrive { to: EndId, packet: Packet },
    /// A packet has crossed the receiver's link.
    Deliver { to: EndId, packet: Packet },
    /// The other side has read so many bytes.
    Acknowledge { to: EndId, bytes: usize },
}

#[derive(Debug)]
struct End {
    owner: ActorId,
    host: HostId,
    local: SocketAddr,
    remote: SocketAddr,
    state: EndState,
    latency: Span,
    /// Delivered, not yet read.
    inbound: VecDeque<u8>,
    /// The other side sends no more.
    at_end: bool,
    /// Sent, not yet read by the other side; at most `window`.
    unread_bytes: usize,
    window: usize,
    /// Last time at which a packet to this end arrives or is delivered: the next one is later.
    arrive_last: Instant,
    deliver_last: Instant,
    /// We send no more.
    send_shut: bool,
}

#[derive(Debug)]
struct Host {
    address: IpAddr,
    bytes_per_sec: u64,
    up_free: Instant,
    down_free: Instant,
    port_next: u16,
    /// A host without power neither answers nor refuses.
    dark: bool,
}

/// Largest packet; several connections on one link take turns at this grain.
const PACKET_BYTES_MAX: usize = 32 << 10;
/// How long an unanswered dial lasts, as with Linux's six SYN retries.
pub const DIAL_TIMEOUT: Span = Span::from_secs(127);

/// All connections. Invariant: ends come in pairs, `2n` the dialling one and `2n + 1` the other.
#[derive(Debug, Default)]
pub(super) struct Net {
    hosts: Vec<Host>,
    ends: Vec<End>,
    listeners: BTreeMap<SocketAddr, BTreeSet<ActorId>>,
}

impl Net {
    pub(super) fn add_host(&mut self, timeline: &mut Timeline) -> HostId {
        let number = self.hosts.len() as u32;
        let [_, _, high, low] = number.to_be_bytes();
        let bytes_per_sec = timeline.draw(timeline.profile.link_bytes_per_sec).max(1);
        self.hosts.push(Host {
            address: IpAddr::V4(Ipv4Addr::new(10, 1, high, low)),
            bytes_per_sec,
            up_free: timeline.now,
            down_free: timeline.now,
            port_next: 32_768,
            dark: false,
        });
        HostId(number)
    }

    pub(super) fn address(&self, host: HostId) -> IpAddr {
        self.hosts[host.0 as usize].address
    }

    pub(super) fn set_link(&mut self, host: HostId, bytes_per_sec: u64) {
        self.hosts[host.0 as usize].bytes_per_sec = bytes_per_sec.max(1);
    }

    /// Several actors may listen at one address; each connection goes to one of them.
    pub(super) fn listen(&mut self, address: SocketAddr, owner: ActorId) {
        self.listeners.entry(address).or_default().insert(owner);
    }

    pub(super) fn dial(&mut self, timeline: &mut Timeline, to: SocketAddr, owner: ActorId) -> EndId {
        let host = timeline.host_of(owner);
        let local = self.ephemeral(host);
        let latency = Span(timeline.draw(timeline.profile.latency_ns));
        let id = EndId(self.ends.len() as u32);
        self.ends.push(self.end(timeline, owner, host, local, to, latency));
        // The other end's owner and host are known when the dial arrives.
        self.ends.push(self.end(timeline, owner, host, to, local, latency));
        timeline.schedule(timeline.now + latency, Event::Net(NetEvent::Knock { from: id }));
        id
    }

    fn ephemeral(&mut self, host: HostId) -> SocketAddr {
        let host = &mut self.hosts[host.0 as usize];
        let local = SocketAddr::new(host.address, host.port_next);
        host.port_next = host.port_next.checked_add(1).unwrap_or(32_768);
        local
    }

    fn end(
        &self,
        timeline: &mut Timeline,
        owner: ActorId,
        host: HostId,
        local: SocketAddr,
        remote: SocketAddr,
        latency: Span,
    ) -> End {
        let window = timeline.draw(timeline.profile.window_bytes).max(1);
        End {
            owner,
            host,
            local,
            remote,
            state: EndState::Connecting,
            latency,
            inbound: VecDeque::new(),
            at_end: false,
            unread_bytes: 0,
            window: usize::try_from(window).unwrap_or(usize::MAX),
            arrive_last: timeline.now,
            deliver_last: timeline.now,
            send_shut: false,
        }
    }

    fn get(&self, id: EndId) -> &End {
        &self.ends[id.0 as usize]
    }

    fn get_mut(&mut self, id: EndId) -> &mut End {
        &mut self.ends[id.0 as usize]
    }

    pub(super) fn state(&self, id: EndId) -> EndState {
        self.get(id).state
    }

    pub(super) fn remote(&self, id: EndId) -> SocketAddr {
        self.get(id).remote
    }

    pub(super) fn local(&self, id: EndId) -> SocketAddr {
        self.get(id).local
    }

    /// Hands the end to another actor of the same host.
    pub(super) fn set_owner(&mut self, timeline: &mut Timeline, id: EndId, owner: ActorId) {
        assert_eq!(timeline.host_of(owner), self.get(id).host, "a socket stays on its host");
        self.get_mut(id).owner = owner;
        timeline.rouse(owner);
    }

    /// Whether `read` would give something else than `Pending`.
    pub(super) fn is_readable(&self, id: EndId) -> bool {
        let end = self.get(id);
        !end.inbound.is_empty() || end.at_end || end.state != EndState::Open
    }

    /// Whether `write` would take a byte or fail.
    pub(super) fn is_writable(&self, id: EndId) -> bool {
        let end = self.get(id);
        end.state != EndState::Open || end.unread_bytes < end.window
    }

    /// Takes up to `max` delivered bytes and appends them to `out`.
    pub(super) fn read(
        &mut self,
        timeline: &mut Timeline,
        id: EndId,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Inbound, Errno> {
        let ready = self.get(id).inbound.len().min(max);
        let count = timeline.shorten(ready);
        let end = self.get_mut(id);
        if count > 0 {
            out.extend(end.inbound.drain(..count));
            let at = timeline.now + end.latency;
            timeline.schedule(at, Event::Net(NetEvent::Acknowledge { to: id.other(), bytes: count }));
            return Ok(Inbound::Bytes(count));
        }
        match end.state {
            EndState::Failed(errno) => Err(errno),
            EndState::Closed => Err(Errno(libc::EBADF)),
            EndState::Open if end.at_end => Ok(Inbound::Bytes(0)),
            EndState::Open | EndState::Connecting => Ok(Inbound::Pending),
        }
    }

    /// Sends what fits, in order; `Ok(0)` means that nothing fits now.
    pub(super) fn write(&mut self, timeline: &mut Timeline, id: EndId, bytes: &[u8]) -> Result<usize, Errno> {
        let end = self.get(id);
        match end.state {
            EndState::Failed(errno) => return Err(errno),
            EndState::Closed => return Err(Errno(libc::EBADF)),
            EndState::Connecting => return Ok(0),
            EndState::Open if end.send_shut => return Err(Errno(libc::EPIPE)),
            EndState::Open => {}
        }
        let count = timeline.shorten(bytes.len().min(end.window - end.unread_bytes));
        self.get_mut(id).unread_bytes += count;
        for part in bytes[..count].chunks(PACKET_BYTES_MAX) {
            self.transmit(timeline, id, Packet::Data(part.to_vec()));
        }
        Ok(count)
    }

    /// Sends no more; the other side reads to the end.
    pub(super) fn shut_send(&mut self, timeline: &mut Timeline, id: EndId) {
        let end = self.get_mut(id);
        if end.state == EndState::Open && !end.send_shut {
            end.send_shut = true;
            self.transmit(timeline, id, Packet::Fin);
        }
    }

    /// Closes. As in Linux, unread bytes turn the orderly end into a reset.
    pub(super) fn close(&mut self, timeline: &mut Timeline, id: EndId) {
        let end = self.get_mut(id);
        let before = std::mem::replace(&mut end.state, EndState::Closed);
        let unread = !std::mem::take(&mut end.inbound).is_empty();
        let send_shut = std::mem::replace(&mut end.send_shut, true);
        if before != EndState::Open {
            return;
        }
        if unread {
            self.transmit(timeline, id, Packet::Reset);
        } else if !send_shut {
            self.transmit(timeline, id, Packet::Fin);
        }
    }

    /// The host's connections and listeners vanish. With `dark` nobody is told; otherwise the
    /// kernel of the host closes them, as after `kill -9`.
    pub(super) fn end_host(&mut self, timeline: &mut Timeline, host: HostId, dark: bool) {
        self.hosts[host.0 as usize].dark = dark;
        let address = self.hosts[host.0 as usize].address;
        self.listeners.retain(|at, _| at.ip() != address);
        for number in 0..self.ends.len() {
            let id = EndId(number as u32);
            if self.get(id).host != host || self.get(id).state == EndState::Closed {
                continue;
            }
            if dark {
                let end = self.get_mut(id);
                end.state = EndState::Closed;
                end.inbound.clear();
            } else {
                self.close(timeline, id);
            }
        }
    }

    /// The host has power again.
    pub(super) fn light_host(&mut self, host: HostId) {
        self.hosts[host.0 as usize].dark = false;
    }

    /// Connections with at least one open end.
    pub(super) fn open_ends(&self, host: HostId) -> usize {
        let is_open = |end: &&End| end.host == host && end.state == EndState::Open;
        self.ends.iter().filter(is_open).count()
    }

    /// Puts a packet on the sender's link.
    fn transmit(&mut self, timeline: &mut Timeline, from: EndId, packet: Packet) {
        let jitter = timeline.draw(timeline.profile.jitter_ns);
        let stalled = timeline.chance(timeline.profile.stall_ppm);
        let stall = if stalled { timeline.draw(timeline.profile.stall_ns) } else { 0 };
        let (host, latency) = (self.get(from).host, self.get(from).latency);
        let sent = cross(&mut self.hosts[host.0 as usize], Link::Up, timeline.now, &packet);
        let to = from.other();
        let end = self.get_mut(to);
        let at = (sent + latency + Span(jitter) + Span(stall)).max(end.arrive_last + Span(1));
        end.arrive_last = at;
        timeline.schedule(at, Event::Net(NetEvent::Arrive { to, packet }));
    }

    pub(super) fn handle(&mut self, timeline: &mut Timeline, event: NetEvent) {
        match event {
            NetEvent::Knock { from } => self.knock(timeline, from),
            NetEvent::Answer { to, result } => self.answer(timeline, to, result),
            NetEvent::Arrive { to, packet } => {
                let host = self.get(to).host;
                let done = cross(&mut self.hosts[host.0 as usize], Link::Down, timeline.now, &packet);
                let end = self.get_mut(to);
                let at = done.max(end.deliver_last + Span(1));
                end.deliver_last = at;
                timeline.schedule(at, Event::Net(NetEvent::Deliver { to, packet }));
            }
            NetEvent::Deliver { to, packet } => self.deliver(timeline, to, packet),
            NetEvent::Acknowledge { to, bytes } => {
                timeline.record("acknowledge", &[u64::from(to.0), bytes as u64]);
                let end = self.get_mut(to);
                end.unread_bytes = end.unread_bytes.saturating_sub(bytes);
                if end.state == EndState::Open {
                    timeline.rouse(end.owner);
                }
            }
        }
    }

    fn knock(&mut self, timeline: &mut Timeline, from: EndId) {
        let address = self.get(from).remote;
        let latency = self.get(from).latency;
        let host = self.hosts.iter().position(|host| host.address == address.ip());
        let lit = host.is_some_and(|host| !self.hosts[host].dark);
        timeline.record("knock", &[u64::from(from.0), u64::from(lit)]);
        if !lit || timeline.chance(timeline.profile.unanswered_ppm) {
            let result = Err(Errno(libc::ETIMEDOUT));
            let at = timeline.now + DIAL_TIMEOUT;
            timeline.schedule(at, Event::Net(NetEvent::Answer { to: from, result }));
            return;
        }
        let refused = timeline.chance(timeline.profile.refuse_ppm);
        let owner = if refused { None } else { self.pick_listener(timeline, address) };
        let result = match owner {
            Some(owner) => {
                let to = from.other();
                let host = timeline.host_of(owner);
                let open = self.get(from).state == EndState::Connecting;
                let end = self.get_mut(to);
                (end.owner, end.host, end.state) = (owner, host, EndState::Open);
                timeline.push_accepted(owner, to);
                if !open {
                    // The dialler gave up meanwhile: the accepted side finds a reset.
                    self.transmit(timeline, from, Packet::Reset);
                }
                Ok(())
            }
            None => Err(Errno(libc::ECONNREFUSED)),
        };
        timeline.schedule(timeline.now + latency, Event::Net(NetEvent::Answer { to: from, result }));
    }

    fn pick_listener(&self, timeline: &mut Timeline, address: SocketAddr) -> Option<ActorId> {
        let owners: Vec<_> = self.listeners.get(&address)?.iter().copied().collect();
        let alive: Vec<_> = owners.into_iter().filter(|&owner| timeline.is_alive(owner)).collect();
        if alive.is_empty() { None } else { Some(alive[index(&mut timeline.rng, alive.len())]) }
    }

    fn answer(&mut self, timeline: &mut Timeline, to: EndId, result: Result<(), Errno>) {
        timeline.record("answer", &[u64::from(to.0), u64::from(result.is_ok())]);
        let end = self.get_mut(to);
        if end.state != EndState::Connecting {
            if result.is_ok() && end.state == EndState::Closed {
                self.transmit(timeline, to, Packet::Reset);
            }
            return;
        }
        end.state = result.map_or_else(EndState::Failed, |()| EndState::Open);
        timeline.rouse(end.owner);
    }

    fn deliver(&mut self, timeline: &mut Timeline, to: EndId, packet: Packet) {
        let owner = self.get(to).owner;
        if self.get(to).state == EndState::Connecting {
            // What the other side sent at once may tie with the answer to the dial.
            self.get_mut(to).state = EndState::Open;
        }
        if self.get(to).state != EndState::Open {
            // Data for a socket that is gone is answered by a reset, as in TCP; a dark host is silent.
            let dark = self.hosts[self.get(to).host.0 as usize].dark;
            let wanted = self.get(to).state == EndState::Closed && matches!(packet, Packet::Data(_));
            timeline.record("undelivered", &[u64::from(to.0)]);
            if wanted && !dark {
                self.transmit(timeline, to, Packet::Reset);
            }
            return;
        }
        match packet {
            Packet::Data(bytes) => {
                timeline.record("deliver", &[u64::from(to.0), bytes.len() as u64]);
                if timeline.chance(timeline.profile.reset_ppm) {
                    self.fail(timeline, to);
                    self.transmit(timeline, to, Packet::Reset);
                } else {
                    self.get_mut(to).inbound.extend(bytes);
                }
            }
            Packet::Fin => {
                timeline.record("fin", &[u64::from(to.0)]);
                self.get_mut(to).at_end = true;
            }
            Packet::Reset => self.fail(timeline, to),
        }
        timeline.rouse(owner);
    }

    /// The end is reset. What was delivered before may or may not still be read.
    fn fail(&mut self, timeline: &mut Timeline, id: EndId) {
        timeline.record("reset", &[u64::from(id.0)]);
        let forget = timeline.chance(500_000);
        let end = self.get_mut(id);
        end.state = EndState::Failed(Errno::RESET);
        if forget {
            end.inbound.clear();
        }
    }
}

#[derive(Clone, Copy)]
enum Link {
    Up,
    Down,
}

/// When a packet that is put on the link now has crossed it.
fn cross(host: &mut Host, link: Link, now: Instant, packet: &Packet) -> Instant {
    let bytes = match packet {
        Packet::Data(bytes) => bytes.len() as u64,
        Packet::Fin | Packet::Reset => 0,
    };
    let takes = Span(bytes.saturating_mul(1_000_000_000) / host.bytes_per_sec);
    let free = match link {
        Link::Up => &mut host.up_free,
        Link::Down => &mut host.down_free,
    };
    *free = (*free).max(now) + takes;
    *free
}
