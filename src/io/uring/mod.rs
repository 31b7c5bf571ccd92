//! The io_uring implementation of [`Io`]: one ring per worker thread.
//!
//! Every operation carries a key (kind, index, generation) that its completions bring back; what
//! the operation names (descriptor, buffers, lists) stays where it is until the last of them. A
//! completion whose key is stale is counted and never acted upon, with one exception: a descriptor
//! that it brings is closed.

mod accept;
pub mod bare;
mod buffers;
mod connection;
mod direct;
mod files;
mod key;
pub mod probe;
mod regions;
mod ring;
mod setup;
mod wake;
mod zero_copy;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use io_uring::cqueue;

use crate::base::ids::{ConnId, SlotId};
use crate::base::slots::Slots;
use crate::base::time::{Instant, Span};

use super::arena::Arena;
use super::{Completion, Errno, FileOp, INBOX_BYTES, Io, IoCounters, Segment, Wake};

use accept::{Accepted, Acceptor};
use buffers::Buffers;
use connection::{Connection, Direct, Ended, Flight, Lists};
use files::{Direction, FileFlight};
use key::{INDEX_LIMIT, Key, Kind};
use regions::Regions;
use ring::{BATCH_MAX, Ring, Wait};
use wake::Doorbell;

pub use files::FilePair;
pub use regions::SharedRegions;
pub use setup::{ENTRIES_MIN, Memlock, SetupError, check, explain};
pub use zero_copy::ZeroCopy;

/// Blocks of closed connections that are kept for new ones.
const SPARE_MAX: usize = 256;
/// Turns without any completion, of [`DRAIN_WAIT`] each, after which a ring that is dropped
/// leaks what the kernel still holds instead of waiting longer.
const DRAIN_TURNS_MAX: u32 = 50;
/// See [`DRAIN_TURNS_MAX`].
const DRAIN_WAIT: Span = Span::from_ms(100);

/// What a ring is made of.
#[derive(Debug)]
pub struct UringConfig {
    /// Where to accept connections, if anywhere.
    pub listen: Option<TcpListener>,
    /// Most connections at a time.
    pub connections_max: u32,
    /// The payload memory.
    pub arena: Arc<Arena>,
    /// Its registrations, if other rings use the same memory.
    pub shared: Option<Arc<SharedRegions>>,
    /// Which sends leave without a copy.
    pub zero_copy: ZeroCopy,
    /// Submission entries; the completion queue is a multiple. Halved while memory is short.
    pub entries: u32,
}

/// A connection outside of any ring.
#[derive(Debug)]
pub struct UringSocket(OwnedFd);

impl UringSocket {
    /// Takes over a connected TCP socket.
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<UringSocket> for OwnedFd {
    fn from(UringSocket(socket): UringSocket) -> Self {
        socket
    }
}

/// One core's ring. Belongs to the thread that made it.
pub struct Uring {
    ring: Ring,
    connections: Slots<Box<Connection>>,
    files: Slots<FileFlight>,
    regions: Regions,
    /// `None` where the kernel refuses them.
    buffers: Option<Buffers>,
    lists: Lists,
    /// Whose each zero-copy send is, until the kernel lets go of its memory.
    holds: Slots<ConnId>,
    zero_copy: ZeroCopy,
    acceptor: Acceptor,
    doorbell: Doorbell,
    /// What is to be told in the next turns without asking the kernel.
    ready: VecDeque<Ready>,
    #[expect(clippy::vec_box, reason = "a connection never moves: the kernel knows its address")]
    spare: Vec<Box<Connection>>,
    batch: Vec<cqueue::Entry>,
    counters: IoCounters,
    arena: Arc<Arena>,
    not_send: PhantomData<*const ()>,
}

/// A completion that the kernel has no part in.
#[derive(Clone, Copy, Debug)]
enum Ready {
    /// Closed while nothing was in flight. The table entry goes when this is told.
    Closed(ConnId),
    DialFailed(ConnId, Errno),
}

impl Uring {
    /// Makes a ring for the calling thread; no other one may use it.
    pub fn new(config: UringConfig) -> Result<Self, SetupError> {
        let ring = Ring::new(setup::build(config.entries)?);
        let doorbell = Doorbell::new().map_err(|error| explain("eventfd", error))?;
        let regions = Regions::new(&config.arena, config.shared, &ring);
        let buffers = Buffers::new(&ring).inspect_err(|error| {
            tracing::info!(%error, "no shared receive buffers; each idle connection costs 4 KiB more");
        });
        Ok(Self {
            ring,
            connections: Slots::new(config.connections_max.min(INDEX_LIMIT)),
            files: Slots::new(INDEX_LIMIT),
            regions,
            buffers: buffers.ok(),
            lists: Lists::default(),
            holds: Slots::new(direct::holds_max(&config.arena)),
            zero_copy: config.zero_copy,
            acceptor: Acceptor::new(config.listen),
            doorbell,
            ready: VecDeque::new(),
            spare: Vec::new(),
            batch: Vec::with_capacity(BATCH_MAX),
            counters: IoCounters::default(),
            arena: config.arena,
            not_send: PhantomData,
        })
    }

    /// Ends this ring's wait in `turn`, from any thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.doorbell.waker()
    }

    /// Connections in the table, those being closed included.
    pub fn connection_count(&self) -> u32 {
        self.connections.len()
    }

    /// Regions of the arena that are registered with this ring, and how many of them share their
    /// registration with other rings.
    pub fn registered_regions(&self) -> (usize, usize) {
        self.regions.count()
    }

    /// Puts a connection into the table, or gives `fd` back.
    fn adopt(&mut self, fd: Option<OwnedFd>) -> Result<ConnId, Option<OwnedFd>> {
        if self.connections.is_full() {
            return Err(fd);
        }
        let mut connection = self.spare.pop().unwrap_or_else(Connection::new);
        connection.fd = fd;
        self.connections.insert(connection).map_err(|mut connection| connection.fd.take())
    }

    /// Removes a quiet connection from the table and returns its socket.
    fn disown(&mut self, conn: ConnId) -> Option<OwnedFd> {
        let mut connection = self.connections.remove(conn)?;
        let fd = connection.fd.take();
        if self.spare.len() < SPARE_MAX {
            connection.recycle();
            self.spare.push(connection);
        }
        fd
    }

    fn connection(&mut self, conn: ConnId) -> &mut Connection {
        let Some(connection) = self.connections.get_mut(conn) else { panic!("{conn:?} is stale") };
        connection
    }

    fn start_file(&mut self, op: FileOp<Arc<FilePair>>, direction: Direction) {
        let flight = FileFlight { op, direction };
        let Ok(id) = self.files.insert(flight) else { panic!("{INDEX_LIMIT} file operations in flight") };
        self.push_file(id);
    }

    fn push_file(&mut self, id: ConnId) {
        if let Some(flight) = self.files.get(id) {
            let key = Key { kind: Kind::File, id };
            flight.push(&self.arena, &mut self.regions, key, &mut self.ring);
        }
    }

    fn tell_ready(&mut self, done: &mut Vec<Completion>) {
        for _ in 0..BATCH_MAX {
            let Some(ready) = self.ready.pop_front() else { return };
            match ready {
                Ready::Closed(conn) => {
                    self.disown(conn);
                    done.push(Completion::Closed { conn });
                }
                Ready::DialFailed(conn, errno) => {
                    if self.connections.get(conn).is_some_and(|connection| !connection.closing) {
                        done.push(Completion::Dialed { conn, result: Err(errno) });
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, cqe: &cqueue::Entry, done: &mut Vec<Completion>) {
        self.counters.completions += 1;
        let Some(Key { kind, id }) = Key::unpack(cqe.user_data()) else {
            self.counters.stale += 1;
            return;
        };
        match kind {
            Kind::Accept => self.accepted(cqe, done),
            Kind::Wake => self.doorbell.ended(),
            Kind::Cancel => self.cancel_failed(id),
            Kind::Connect | Kind::Recv | Kind::Send => self.transferred(kind, id, cqe, done),
            Kind::ZeroCopy => self.zero_copy_event(id, cqe, done),
            Kind::File => self.file_ended(id, cqe.result(), done),
        }
    }

    fn accepted(&mut self, cqe: &cqueue::Entry, done: &mut Vec<Completion>) {
        match self.acceptor.completed(cqe.result(), cqueue::more(cqe.flags()), monotonic) {
            Accepted::Socket(fd, address) => match self.adopt(Some(fd)) {
                Ok(conn) => done.push(Completion::Accepted { conn, address }),
                Err(_closed) => self.counters.refused += 1,
            },
            Accepted::Nothing => {}
            Accepted::Failed(errno) => {
                self.counters.accept_failures += 1;
                if self.counters.accept_failures.is_power_of_two() {
                    let times = self.counters.accept_failures;
                    tracing::warn!(error = %Errno(errno), times, "cannot accept connections for now; \
                        raise `ulimit -n` (LimitNOFILE) if descriptors are short");
                }
            }
        }
    }

    /// A connect, receive or send has ended.
    fn transferred(&mut self, kind: Kind, conn: ConnId, cqe: &cqueue::Entry, done: &mut Vec<Completion>) {
        let result = cqe.result();
        if let Some(id) = cqueue::buffer_select(cqe.flags()) {
            self.take_buffer(conn, id);
        }
        let Some(connection) = self.connections.get_mut(conn) else {
            self.counters.stale += 1;
            return;
        };
        let key = Key { kind, id: conn };
        let starved = result == -libc::ENOBUFS && kind == Kind::Recv && connection.is_receiving_any();
        let again = starved || matches!(-result, libc::EINTR | libc::EAGAIN);
        let running = Flight::Running;
        let wanted = connection.recv == running && !connection.closing;
        if starved
            && wanted
            && let Some(buffers) = &mut self.buffers
        {
            self.counters.starved += 1;
            return connection.recv_into(buffers.private(), &mut self.lists, key, &mut self.ring);
        }
        if again && !connection.closing {
            match kind {
                Kind::Recv if connection.recv == running => return connection.push_recv(key, &mut self.ring),
                Kind::Send if connection.send == running => return connection.push_send(key, &mut self.ring),
                _ => {}
            }
        }
        self.ended(Ended { kind, conn, result, again, held: false }, done);
    }

    /// Tells that an operation of a connection has ended.
    fn ended(&mut self, ended: Ended, done: &mut Vec<Completion>) {
        let Ended { kind, conn, result, again, held } = ended;
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let was = connection.ended(kind, &mut self.lists);
        debug_assert!(was != Flight::None);
        if connection.closing {
            return self.let_go(conn, done);
        }
        let result = match u32::try_from(result) {
            Ok(bytes) => Ok(bytes),
            Err(_) if again => Err(Errno::CANCELED),
            Err(_) => Err(Errno(-result)),
        };
        done.push(match kind {
            Kind::Connect => Completion::Dialed { conn, result: result.map(drop) },
            Kind::Recv => Completion::Received { conn, result },
            _ => Completion::Sent { conn, result, held },
        });
    }

    /// Something of a closing connection has ended: with the last completion, and not before, it goes.
    fn let_go(&mut self, conn: ConnId, done: &mut Vec<Completion>) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_quiet() {
            self.disown(conn);
            done.push(Completion::Closed { conn });
        } else if connection.is_idle() {
            connection.abort();
        }
    }

    /// Makes a buffer that the kernel has filled the connection's inbox.
    fn take_buffer(&mut self, conn: ConnId, id: u16) {
        let Some(buffers) = &mut self.buffers else { panic!("no buffers were offered") };
        let filled = buffers.take(id);
        match self.connections.get_mut(conn) {
            Some(connection) => connection.set_inbox(filled),
            None => buffers.give(filled),
        }
    }

    /// A cancellation found nothing, or found it too busy to stop. What it was for may have ended
    /// meanwhile; if not, it is asked for once more, and more firmly when closing.
    fn cancel_failed(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.closing {
            connection.shut_down();
        } else if connection.recv == Flight::Interrupted {
            self.ring.cancel(Key { kind: Kind::Recv, id: conn }, conn);
        }
    }

    fn file_ended(&mut self, id: ConnId, result: i32, done: &mut Vec<Completion>) {
        let Some(flight) = self.files.get_mut(id) else {
            self.counters.stale += 1;
            return;
        };
        let again = match -result {
            libc::EINTR | libc::EAGAIN => true,
            // The file system has direct I/O, but not for this offset or length.
            libc::EINVAL => flight.go_buffered(),
            _ => false,
        };
        if again {
            return self.push_file(id);
        }
        let Some(FileFlight { op, direction }) = self.files.remove(id) else { return };
        let result = u32::try_from(result).map_err(|_| Errno(-result));
        done.push(match direction {
            Direction::Read => Completion::Read { token: op.token, result },
            Direction::Write => Completion::Written { token: op.token, result },
        });
    }
}

impl Io for Uring {
    type Socket = UringSocket;
    type File = Arc<FilePair>;

    fn now(&self) -> Instant {
        monotonic()
    }

    fn counters(&self) -> IoCounters {
        IoCounters { enters: self.ring.enters, overflows: self.ring.overflows, ..self.counters }
    }

    fn dial(&mut self, address: SocketAddr) -> Option<ConnId> {
        let conn = self.adopt(None).ok()?;
        let connection = self.connections.get_mut(conn)?;
        let key = Key { kind: Kind::Connect, id: conn };
        if let Err(errno) = connection.dial(address, key, &mut self.ring) {
            self.ready.push_back(Ready::DialFailed(conn, errno));
        }
        Some(conn)
    }

    fn attach(&mut self, socket: UringSocket) -> Result<ConnId, UringSocket> {
        let UringSocket(fd) = socket;
        if self.connections.is_full() {
            return Err(UringSocket(fd));
        }
        let Ok(conn) = self.adopt(Some(fd)) else { panic!("the table was not full") };
        Ok(conn)
    }

    fn detach(&mut self, conn: ConnId) -> Option<UringSocket> {
        let connection = self.connections.get(conn)?;
        if connection.closing || !connection.is_quiet() || connection.fd.is_none() {
            return None;
        }
        self.disown(conn).map(UringSocket)
    }

    fn inbox(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.connection(conn).inbox()
    }

    fn outbox(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.connection(conn).outbox()
    }

    fn recv_any(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { panic!("{conn:?} is stale") };
        if connection.closing {
            return;
        }
        let key = Key { kind: Kind::Recv, id: conn };
        if let Some(buffers) = &mut self.buffers {
            return connection.recv_any(buffers, key, &mut self.ring);
        }
        let whole = [Segment::Inbox { offset: 0, len: INBOX_BYTES as u32 }];
        connection.inbox().resize(INBOX_BYTES, 0);
        connection.recv(&whole, (&self.arena, &mut self.lists), key, &mut self.ring);
    }

    fn recv(&mut self, conn: ConnId, segments: &[Segment]) {
        let Some(connection) = self.connections.get_mut(conn) else { panic!("{conn:?} is stale") };
        if !connection.closing {
            let key = Key { kind: Kind::Recv, id: conn };
            connection.recv(segments, (&self.arena, &mut self.lists), key, &mut self.ring);
        }
    }

    fn interrupt_recv(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.recv == Flight::Running && !connection.closing {
            connection.recv = Flight::Interrupted;
            self.ring.cancel(Key { kind: Kind::Recv, id: conn }, conn);
        }
    }

    fn set_unsent(&mut self, conn: ConnId, bytes: u32) {
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.set_unsent(bytes);
        }
    }

    fn backlog_bytes(&self, conn: ConnId) -> u64 {
        self.connections.get(conn).map_or(0, |connection| connection.backlog_bytes())
    }

    fn send(&mut self, conn: ConnId, segments: &[Segment]) {
        if self.connection(conn).closing {
            return;
        }
        self.counters.sends += 1;
        let direct = self.direct(conn, segments);
        let (count, key) = match direct {
            Some((count, Direct { id, .. })) => (count, Key { kind: Kind::ZeroCopy, id }),
            None => (segments.len(), Key { kind: Kind::Send, id: conn }),
        };
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let how = direct.map(|(_, how)| how);
        connection.send(&segments[..count], how, (&self.arena, &mut self.lists), key, &mut self.ring);
    }

    fn close(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if std::mem::replace(&mut connection.closing, true) {
            return;
        }
        if connection.is_quiet() {
            connection.fd = None;
            return self.ready.push_back(Ready::Closed(conn));
        }
        if connection.is_idle() {
            return connection.abort();
        }
        let flights = [
            (Key { kind: Kind::Connect, id: conn }, connection.connect),
            (Key { kind: Kind::Recv, id: conn }, connection.recv),
            (connection.send_key(conn), connection.send),
        ];
        for (key, flight) in flights {
            if flight != Flight::None {
                self.ring.cancel(key, conn);
            }
        }
    }

    fn read(&mut self, op: FileOp<Arc<FilePair>>) {
        self.start_file(op, Direction::Read);
    }

    fn write(&mut self, op: FileOp<Arc<FilePair>>) {
        self.start_file(op, Direction::Write);
    }

    fn forget(&mut self, slots: Range<u32>) -> bool {
        debug_assert!(self.files.iter().all(|(_, flight)| !slots.contains(&flight.op.slot.0)));
        self.regions.forget(Arena::region_of(SlotId(slots.start)), &self.ring)
    }

    fn turn(&mut self, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        let now = monotonic();
        self.acceptor.arm(now, &mut self.ring);
        self.doorbell.arm(&mut self.ring);
        let wait = match deadline {
            _ if !self.ready.is_empty() => Wait::No,
            Some(deadline) if deadline <= now => Wait::No,
            Some(deadline) => Wait::AtMost(deadline.since(now)),
            None => Wait::Forever,
        };
        self.ring.enter(wait.min(self.acceptor.wait(now)));
        self.tell_ready(done);
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.reap(&mut batch);
        for cqe in batch.drain(..) {
            self.dispatch(&cqe, done);
        }
        self.batch = batch;
    }
}

impl Drop for Uring {
    /// Waits until the kernel has let go of everything, then lets it be freed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The ring itself may be what broke.
            return self.leak();
        }
        self.ring.cancel_all();
        let mut idle_turns = 0;
        let mut ignored = Vec::new();
        while self.in_flight() > 0 && idle_turns < DRAIN_TURNS_MAX {
            for conn in self.connections.ids() {
                self.close(conn);
            }
            self.ring.enter(Wait::AtMost(DRAIN_WAIT));
            let before = self.counters.completions;
            let mut batch = std::mem::take(&mut self.batch);
            self.ring.reap(&mut batch);
            for cqe in batch.drain(..) {
                self.dispatch(&cqe, &mut ignored);
            }
            self.batch = batch;
            ignored.clear();
            idle_turns = if self.counters.completions == before { idle_turns + 1 } else { 0 };
        }
        if self.in_flight() > 0 {
            self.leak();
        }
    }
}

impl Uring {
    /// Operations whose last completion is still to come.
    fn in_flight(&self) -> usize {
        let connections: usize = self.connections.iter().map(|(_, connection)| connection.flights()).sum();
        let single = usize::from(self.acceptor.is_armed()) + usize::from(self.doorbell.is_armed());
        connections + self.files.len() as usize + single
    }

    /// Gives up memory and descriptors that the kernel may still use: a disk that never answers
    /// must not keep the process from ending, and freed memory must not be written to.
    fn leak(&mut self) {
        tracing::warn!(operations = self.in_flight(), "I/O does not end; leaving its memory to the kernel");
        std::mem::forget(std::mem::replace(&mut self.connections, Slots::new(0)));
        std::mem::forget(std::mem::replace(&mut self.files, Slots::new(0)));
        std::mem::forget(self.buffers.take());
        std::mem::forget(std::mem::replace(&mut self.acceptor, Acceptor::new(None)));
        std::mem::forget(Arc::clone(&self.arena));
        self.doorbell.leak();
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("connections", &self.connections.len())
            .field("files", &self.files.len())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// `CLOCK_MONOTONIC`, the clock of the deadlines.
fn monotonic() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
