//! A bare loop: the least that a ring must do to serve bytes from memory to many connections. Load tests
//! compare a node with it, so it has no arena, no timers and no clock of its own: one receive armed on
//! each connection all the time, one `sendmsg` in flight, and the kernel retries what a socket did not
//! take. Nothing else uses it.
#![allow(unsafe_code)] // Operations name memory and descriptors; each block says who keeps them valid.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};

use crate::base::ids::ConnId;
use crate::base::limits::BARE_INBOX_BYTES;
use crate::base::time::Span;

use super::accept::{Accepted, Acceptor};
use super::key::{Key, Kind};
use super::ring::{BATCH_MAX, POLL_FIRST, Ring, Wait};
use super::{DRAIN_TURNS_MAX, DRAIN_WAIT, SetupError, monotonic, setup};

/// Submission entries. Each connection submits a receive and a send per turn at most.
const ENTRIES: u32 = 4096;

/// What the loop serves.
pub trait Script {
    /// The state of one connection.
    type Conn: Default;

    /// Takes what came on a connection; false closes it. What was sent along goes first.
    fn received(&mut self, conn: &mut Self::Conn, bytes: &[u8]) -> bool;

    /// What leaves next; nothing, when there is nothing to send before more is received.
    fn next_send(&mut self, conn: &mut Self::Conn, gather: &mut Gather);
}

/// The parts of one send: bytes of the moment, and ranges of the memory that is served.
#[derive(Debug, Default)]
pub struct Gather {
    small: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Small { offset: usize, bytes: usize },
    Memory { offset: usize, bytes: usize },
}

/// How sockets are accepted.
#[derive(Clone, Copy, Debug)]
pub struct BareLimits {
    /// Connections beyond are closed at once.
    pub connections_max: u32,
    /// Most bytes a second on each connection, paced by the kernel (`SO_MAX_PACING_RATE`).
    pub rate: Option<u64>,
}

/// See the module. Belongs to the thread that made it.
pub struct BareLoop<S: Script> {
    ring: Ring,
    script: S,
    memory: Vec<u8>,
    acceptors: Vec<Acceptor>,
    /// Boxed: the kernel knows their addresses.
    connections: Vec<Box<Connection<S::Conn>>>,
    /// Places in `connections` that are quiet and without a socket.
    free: Vec<u32>,
    limits: BareLimits,
    batch: Vec<cqueue::Entry>,
}

/// Invariant: while a receive (send) is in flight, `inbox` (`gather`, `vectors`, `message`) is not touched;
/// while either is, `fd` stays open.
struct Connection<C> {
    fd: Option<OwnedFd>,
    state: C,
    receiving: bool,
    sending: bool,
    closing: bool,
    inbox: Vec<u8>,
    gather: Gather,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Gather {
    /// Appends bytes that are copied.
    pub fn small(&mut self, bytes: &[u8]) {
        let offset = self.small.len();
        self.small.extend_from_slice(bytes);
        self.places.push(Place::Small { offset, bytes: bytes.len() });
    }

    /// Appends a range of the memory that is served. It lies inside, or the send panics.
    pub fn memory(&mut self, offset: usize, bytes: usize) {
        self.places.push(Place::Memory { offset, bytes });
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.places.len()
    }

    fn clear(&mut self) {
        self.small.clear();
        self.places.clear();
    }

    /// The bytes of all parts, one after the other.
    #[cfg(test)]
    pub fn concat(&self, memory: &[u8]) -> Vec<u8> {
        let slice = |place: &Place| match *place {
            Place::Small { offset, bytes } => self.small[offset..offset + bytes].to_vec(),
            Place::Memory { offset, bytes } => memory[offset..offset + bytes].to_vec(),
        };
        self.places.iter().flat_map(slice).collect()
    }
}

impl<C: Default> Connection<C> {
    fn new(fd: OwnedFd) -> Box<Self> {
        Box::new(Self {
            fd: Some(fd),
            state: C::default(),
            receiving: false,
            sending: false,
            closing: false,
            inbox: vec![0; BARE_INBOX_BYTES],
            gather: Gather::default(),
            vectors: Vec::new(),
            // SAFETY: a message header of zero bytes is an empty one: null pointers and lengths of 0.
            message: unsafe { std::mem::zeroed() },
        })
    }

    const fn is_quiet(&self) -> bool {
        !self.receiving && !self.sending
    }

    fn raw_fd(&self) -> Option<types::Fd> {
        self.fd.as_ref().map(|fd| types::Fd(fd.as_raw_fd()))
    }

    /// Ends what is in flight; whether the connection is quiet already.
    fn close(&mut self) -> bool {
        self.closing = true;
        if let Some(fd) = &self.fd {
            // It fails only if the connection is gone, which is as well.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        self.is_quiet()
    }

    fn receive(&mut self, index: u32, ring: &mut Ring) {
        let Some(fd) = self.raw_fd() else { return };
        let (start, bytes) = (self.inbox.as_mut_ptr(), self.inbox.len() as u32);
        let entry = opcode::Recv::new(fd, start, bytes).ioprio(POLL_FIRST).build();
        self.receiving = true;
        // SAFETY: inbox and socket belong to the boxed connection, which outlives the receive and does not
        // touch either before (its invariant).
        unsafe { ring.push(entry, key(Kind::Recv, index)) }
    }

    fn send(&mut self, index: u32, memory: &[u8], ring: &mut Ring) {
        let Some(fd) = self.raw_fd() else { return };
        let small = &self.gather.small;
        let vectors = self.gather.places.iter().map(|place| match *place {
            Place::Small { offset, bytes } => vector(&small[offset..offset + bytes]),
            Place::Memory { offset, bytes } => vector(&memory[offset..offset + bytes]),
        });
        self.vectors.clear();
        self.vectors.extend(vectors);
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len();
        // With MSG_WAITALL the kernel goes on by itself when the socket has room again.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::SendMsg::new(fd, &raw const self.message).flags(flags as u32).build();
        self.sending = true;
        // SAFETY: header, vectors and small parts belong to the boxed connection and are not touched before
        // the send has ended (its invariant); the memory belongs to the loop, which never changes it and
        // frees it, like the connections, only when nothing is in flight.
        unsafe { ring.push(entry, key(Kind::Send, index)) }
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

const fn key(kind: Kind, index: u32) -> Key {
    Key { kind, id: ConnId { index, generation: 0 } }
}

impl<S: Script> BareLoop<S> {
    /// Serves `memory` by `script` to whoever connects to one of the listeners.
    pub fn new(
        listeners: Vec<TcpListener>,
        memory: Vec<u8>,
        script: S,
        limits: BareLimits,
    ) -> Result<Self, SetupError> {
        let numbered = listeners.into_iter().zip(0..);
        Ok(Self {
            ring: Ring::new(setup::build(ENTRIES)?),
            script,
            memory,
            acceptors: numbered.map(|(listener, index)| Acceptor::numbered(Some(listener), index)).collect(),
            connections: Vec::new(),
            free: Vec::new(),
            limits,
            batch: Vec::with_capacity(BATCH_MAX),
        })
    }

    /// One call into the kernel, which waits for something to do, at most `longest`.
    pub fn turn(&mut self, longest: Option<Span>) {
        let mut wait = longest.map_or(Wait::Forever, Wait::AtMost);
        if !self.acceptors.iter().all(Acceptor::is_armed) {
            let now = monotonic();
            for acceptor in &mut self.acceptors {
                acceptor.arm(now, &mut self.ring);
                wait = wait.min(acceptor.wait(now));
            }
        }
        self.ring.enter(wait);
        self.take_completions();
    }

    /// Connections that are open or being closed.
    pub fn connection_count(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// How many there were.
    fn take_completions(&mut self) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.reap(&mut batch);
        let count = batch.len();
        for cqe in batch.drain(..) {
            match Key::unpack(cqe.user_data()) {
                Some(Key { kind: Kind::Accept, id }) => self.accepted(id.index, &cqe),
                Some(Key { kind: Kind::Recv, id }) => self.received(id.index, cqe.result()),
                Some(Key { kind: Kind::Send, id }) => self.sent(id.index, cqe.result()),
                // The failure of a cancellation: the operation ends by itself.
                _ => {}
            }
        }
        self.batch = batch;
        count
    }

    fn accepted(&mut self, listener: u32, cqe: &cqueue::Entry) {
        let acceptor = &mut self.acceptors[listener as usize];
        match acceptor.completed(cqe.result(), cqueue::more(cqe.flags()), monotonic) {
            Accepted::Socket(fd, _) if self.connection_count() < self.limits.connections_max as usize => {
                self.adopt(fd);
            }
            Accepted::Failed(errno) => {
                tracing::warn!(error = %crate::io::Errno(errno), "cannot accept connections for now; \
                    raise `ulimit -n` if descriptors are short");
            }
            Accepted::Socket(..) | Accepted::Nothing => {}
        }
    }

    fn adopt(&mut self, fd: OwnedFd) {
        if let Some(rate) = self.limits.rate {
            limit_rate(&fd, rate);
        }
        let mut connection = Connection::new(fd);
        let index = self.free.pop().unwrap_or(self.connections.len() as u32);
        connection.receive(index, &mut self.ring);
        if index as usize == self.connections.len() {
            self.connections.push(connection);
        } else {
            self.connections[index as usize] = connection;
        }
    }

    fn received(&mut self, index: u32, result: i32) {
        let connection = &mut *self.connections[index as usize];
        connection.receiving = false;
        let again = matches!(-result, libc::EINTR | libc::EAGAIN);
        let bytes = connection.inbox.get(..result.max(0) as usize).unwrap_or_default();
        let goes_on = again || (!bytes.is_empty() && self.script.received(&mut connection.state, bytes));
        if connection.closing || !goes_on {
            return self.close(index);
        }
        connection.receive(index, &mut self.ring);
        self.send_next(index);
    }

    fn sent(&mut self, index: u32, result: i32) {
        let connection = &mut *self.connections[index as usize];
        connection.sending = false;
        if connection.closing || result < 0 || (result as usize) < total(&connection.vectors) {
            return self.close(index);
        }
        self.send_next(index);
    }

    fn send_next(&mut self, index: u32) {
        let connection = &mut *self.connections[index as usize];
        if connection.sending {
            return;
        }
        connection.gather.clear();
        self.script.next_send(&mut connection.state, &mut connection.gather);
        if connection.gather.parts() > 0 {
            connection.send(index, &self.memory, &mut self.ring);
        }
    }

    fn close(&mut self, index: u32) {
        let connection = &mut *self.connections[index as usize];
        if connection.close() {
            connection.fd = None;
            connection.inbox = Vec::new();
            self.free.push(index);
        }
    }

    fn in_flight(&self) -> usize {
        let accepts = self.acceptors.iter().filter(|acceptor| acceptor.is_armed()).count();
        accepts + self.connections.iter().filter(|connection| !connection.is_quiet()).count()
    }
}

impl<S: Script> Drop for BareLoop<S> {
    /// Waits until the kernel has let go of everything; what it keeps is never freed.
    fn drop(&mut self) {
        self.ring.cancel_all();
        let mut idle_turns = 0;
        while self.in_flight() > 0 && idle_turns < DRAIN_TURNS_MAX && !std::thread::panicking() {
            for connection in self.connections.iter_mut().filter(|connection| !connection.is_quiet()) {
                connection.close();
            }
            self.ring.enter(Wait::AtMost(DRAIN_WAIT));
            idle_turns = if self.take_completions() == 0 { idle_turns + 1 } else { 0 };
        }
        if self.in_flight() > 0 {
            std::mem::forget(std::mem::take(&mut self.connections));
            std::mem::forget(std::mem::take(&mut self.acceptors));
            std::mem::forget(std::mem::take(&mut self.memory));
        }
    }
}

impl<S: Script> std::fmt::Debug for BareLoop<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLoop").field("connections", &self.connection_count()).finish_non_exhaustive()
    }
}

fn total(vectors: &[libc::iovec]) -> usize {
    vectors.iter().map(|vector| vector.iov_len).sum()
}

/// Paces a socket. It fails only on a kernel without pacing, and then the source is too fast, not wrong.
fn limit_rate(fd: &OwnedFd, bytes_per_second: u64) {
    let rate = &raw const bytes_per_second;
    let size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option takes a u64 (socket(7)), which lives until the call returns.
    let set = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, rate.cast(), size)
    };
    if set != 0 {
        tracing::warn!("cannot pace a connection: {}", std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;
    use crate::io::sockets::listen;

    /// More than two sockets hold.
    const MEMORY_BYTES: usize = 32 << 20;

    /// Answers each byte by itself and all of the memory; `x` is the end.
    struct Answers;

    impl Script for Answers {
        type Conn = Vec<u8>;

        fn received(&mut self, conn: &mut Vec<u8>, bytes: &[u8]) -> bool {
            conn.extend_from_slice(bytes);
            !bytes.contains(&b'x')
        }

        fn next_send(&mut self, conn: &mut Vec<u8>, gather: &mut Gather) {
            if let Some(byte) = conn.pop() {
                gather.small(&[byte]);
                gather.memory(0, MEMORY_BYTES);
            }
        }
    }

    /// A loop that takes so many connections, on two listeners; runs until `work` has ended.
    fn with_loop<T: Send>(connections_max: u32, work: impl FnOnce([SocketAddr; 2]) -> T + Send) -> T {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = [(); 2].map(|()| listen(loopback, 1).unwrap().remove(0));
        let addrs = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
        let memory: Vec<u8> = (0..MEMORY_BYTES).map(|at| (at >> 10) as u8).collect();
        let limits = BareLimits { connections_max, rate: None };
        let mut bare = BareLoop::new(listeners.into(), memory, Answers, limits).unwrap();
        std::thread::scope(|scope| {
            let working = scope.spawn(|| work(addrs));
            while !working.is_finished() {
                bare.turn(Some(Span::from_ms(10)));
            }
            working.join().unwrap()
        })
    }

    fn ask(stream: &mut TcpStream, byte: u8) {
        stream.write_all(&[byte]).unwrap();
        let mut answer = vec![0; 1 + MEMORY_BYTES];
        stream.read_exact(&mut answer).unwrap();
        let right = |(at, byte): (usize, &u8)| *byte == (at >> 10) as u8;
        assert!(answer[0] == byte && answer[1..].iter().enumerate().all(right));
    }

    #[test]
    fn what_a_socket_does_not_take_at_once_follows_in_order() {
        with_loop(2, |addrs| {
            let mut streams = addrs.map(|addr| TcpStream::connect(addr).unwrap());
            for byte in 0..3 {
                streams.iter_mut().for_each(|stream| ask(stream, byte));
            }
        });
    }

    #[test]
    fn one_connection_too_many_is_closed_and_a_free_place_is_used_again() {
        with_loop(1, |[addr, _]| {
            for byte in 0..3 {
                let mut first = TcpStream::connect(addr).unwrap();
                ask(&mut first, byte);
                let mut second = TcpStream::connect(addr).unwrap();
                assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
                // The script ends it; the end of the stream says that the place is free.
                first.write_all(b"x").unwrap();
                assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
            }
        });
    }

    #[test]
    fn it_ends_while_a_reader_that_never_reads_keeps_a_send_in_flight() {
        let stream = with_loop(1, |[addr, _]| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(b"a").unwrap();
            // The answer has begun, and cannot end.
            stream.read_exact(&mut [0]).unwrap();
            stream
        });
        drop(stream);
    }
}
