//! One connection: its buffers, what is in flight on it, and the operations on it.
#![allow(unsafe_code)] // Scatter lists point into the buffers of the connection and the arena.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::base::ids::ConnId;
use crate::io::arena::Arena;
use crate::io::{Errno, INBOX_BYTES, SEGMENTS_MAX, Segment};

use super::buffers::{Buffers, GROUP};
use super::key::{Key, Kind};
use super::ring::{BATCH_MAX, POLL_FIRST, Ring};
use super::zero_copy::{self, Holds};

/// An outbox that grew beyond this is given back when its connection closes.
const OUTBOX_KEPT_BYTES: usize = 16 << 10;

/// With `MSG_WAITALL` the kernel goes on by itself when the socket has room again, without a turn of ours
/// in between (figures: ARCHITECTURE.md, decisions).
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// An operation of a connection that can be in flight once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flight {
    #[default]
    None,
    Running,
    /// Its end was asked for.
    Interrupted,
}

/// How an operation of a connection has ended.
pub(super) struct Ended {
    pub(super) kind: Kind,
    pub(super) conn: ConnId,
    pub(super) result: i32,
    /// It was to be started again, but is not wanted any more.
    pub(super) again: bool,
    /// The kernel still reads what was sent.
    pub(super) held: bool,
}

/// What an operation moves, in the kernel's terms; it stays put until the operation has ended.
enum Transfer {
    /// Whatever comes, into one of the ring's buffers.
    Any,
    List(Box<Vectors>),
}

/// Lists that no operation uses, kept because most operations need one for a short time only.
#[derive(Default)]
pub(super) struct Lists {
    #[expect(clippy::vec_box, reason = "a list never moves: the kernel knows its address")]
    spare: Vec<Box<Vectors>>,
}

impl Lists {
    fn take(&mut self) -> Box<Vectors> {
        self.spare.pop().unwrap_or_default()
    }

    fn give(&mut self, transfer: Option<Transfer>) {
        if let Some(Transfer::List(list)) = transfer
            && self.spare.len() < BATCH_MAX
        {
            self.spare.push(list);
        }
    }
}

/// A scatter or gather list.
struct Vectors {
    segments: Vec<libc::iovec>,
    message: libc::msghdr,
}

/// The state of a connection. Boxed, so that nothing the kernel was told about moves.
///
/// Invariant: while a receive (send) is in flight, `inbox` and `incoming` (`outbox` and `outgoing`)
/// are not touched; while anything is in flight, `fd` stays open.
pub(super) struct Connection {
    pub(super) fd: Option<OwnedFd>,
    pub(super) connect: Flight,
    pub(super) recv: Flight,
    pub(super) send: Flight,
    pub(super) closing: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    incoming: Option<Transfer>,
    outgoing: Option<Transfer>,
    /// While a connect is in flight.
    address: Option<Box<SockAddr>>,
    /// Whether the send in flight leaves without a copy, and how.
    direct: Option<Direct>,
    /// Zero-copy sends that the kernel holds, the one in flight included.
    pub(super) holds: Holds,
}

/// A send without a copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    /// The registered buffer that all of it lies in.
    pub(super) buffer: u16,
    /// Its place in the table of such sends.
    pub(super) id: ConnId,
}

impl Default for Vectors {
    fn default() -> Self {
        // SAFETY: a message header of zero bytes is an empty one: null pointers and lengths of 0.
        Self { segments: Vec::new(), message: unsafe { std::mem::zeroed() } }
    }
}

impl Vectors {
    /// Takes the list over and makes the message point to it.
    fn fill(&mut self, segments: impl Iterator<Item = libc::iovec>) {
        self.segments.clear();
        self.segments.extend(segments);
        self.message.msg_iov = self.segments.as_mut_ptr();
        self.message.msg_iovlen = self.segments.len();
    }
}

impl Connection {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            fd: None,
            connect: Flight::None,
            recv: Flight::None,
            send: Flight::None,
            closing: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
            incoming: None,
            outgoing: None,
            address: None,
            direct: None,
            holds: Holds::default(),
        })
    }

    /// Makes the block of a closed connection as good as new.
    pub(super) fn recycle(&mut self) {
        debug_assert!(self.is_quiet());
        self.fd = None;
        self.closing = false;
        self.inbox = Vec::new();
        self.address = None;
        self.holds = Holds::default();
        self.outbox.clear();
        self.outbox.shrink_to(OUTBOX_KEPT_BYTES);
    }

    /// Whether nothing is in flight, and no memory held.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle() && self.holds.count() == 0
    }

    /// Whether nothing is in flight. The kernel may hold memory, but needs the descriptor no more.
    pub(super) fn is_idle(&self) -> bool {
        [self.connect, self.recv, self.send] == [Flight::None; 3]
    }

    /// How many last completions are to come.
    pub(super) fn flights(&self) -> usize {
        let flights = [self.connect, self.recv, self.send];
        // A zero-copy send in flight counts twice: it ends, and its memory becomes free.
        flights.iter().filter(|flight| **flight != Flight::None).count() + self.holds.count()
    }

    /// The key of the send in flight.
    pub(super) fn send_key(&self, conn: ConnId) -> Key {
        self.direct
            .map_or(Key { kind: Kind::Send, id: conn }, |direct| Key { kind: Kind::ZeroCopy, id: direct.id })
    }

    /// Closes a connection of which the kernel holds only memory. What it has not sent yet would keep that
    /// until the other side acknowledges it, perhaps never: so it is thrown away by a reset.
    pub(super) fn abort(&mut self) {
        if let Some(fd) = self.fd.take() {
            // It fails only if the connection is gone, which is as well.
            let _ = socket2::SockRef::from(&fd).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Sends what is in flight anew, with a copy.
    pub(super) fn push_copied(&mut self, key: Key, ring: &mut Ring) {
        self.direct = None;
        self.push_send(key, ring);
    }

    /// The inbox. Panics while a receive is in flight.
    pub(super) fn inbox(&mut self) -> &mut Vec<u8> {
        assert!(self.recv == Flight::None, "the inbox belongs to the kernel while it receives");
        &mut self.inbox
    }

    /// The outbox. Panics while a send is in flight.
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        assert!(self.send == Flight::None, "the outbox belongs to the kernel while it sends");
        &mut self.outbox
    }

    /// Notes that an operation has ended, and returns what it was.
    pub(super) fn ended(&mut self, kind: Kind, lists: &mut Lists) -> Flight {
        match kind {
            Kind::Connect => {
                self.address = None;
                std::mem::take(&mut self.connect)
            }
            Kind::Recv => {
                lists.give(self.incoming.take());
                std::mem::take(&mut self.recv)
            }
            _ => {
                lists.give(self.outgoing.take());
                self.direct = None;
                std::mem::take(&mut self.send)
            }
        }
    }

    /// Bounds what the kernel takes before it can send it.
    pub(super) fn set_unsent(&self, bytes: u32) {
        if let Some(fd) = &self.fd {
            // A kernel without the option takes as much as it likes: sends are then less well ordered.
            let _ = socket2::SockRef::from(fd).set_tcp_notsent_lowat(bytes);
        }
    }

    /// What the link has not sent of what it was given.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.fd.as_ref().map_or(0, backlog_bytes)
    }

    /// Opens a socket and starts to connect.
    pub(super) fn dial(&mut self, address: SocketAddr, key: Key, ring: &mut Ring) -> Result<(), Errno> {
        let made = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
        let socket = made.and_then(|socket| crate::io::sockets::tune(&socket).map(|()| socket));
        let socket = socket.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let address = self.address.insert(Box::new(SockAddr::from(address)));
        let fd = self.fd.insert(OwnedFd::from(socket)).as_raw_fd();
        self.connect = Flight::Running;
        let entry = opcode::Connect::new(types::Fd(fd), address.as_ptr().cast(), address.len());
        debug_assert!(key.kind == Kind::Connect);
        // SAFETY: the boxed address is neither moved nor changed before the connect has ended; the
        // socket stays open that long (invariant of `Connection`).
        unsafe { ring.push(entry.build(), key) }
        Ok(())
    }

    /// Starts to receive whatever comes into one of `buffers`, to which the inbox goes. Panics if a
    /// receive is in flight.
    pub(super) fn recv_any(&mut self, buffers: &mut Buffers, key: Key, ring: &mut Ring) {
        assert!(self.recv == Flight::None, "a receive is in flight already");
        buffers.give(std::mem::take(&mut self.inbox));
        self.incoming = Some(Transfer::Any);
        self.recv = Flight::Running;
        self.push_recv(key, ring);
    }

    /// Goes on with a receive of whatever comes, into `inbox`: bytes are there, but every shared buffer is
    /// full and waits to be taken.
    pub(super) fn recv_into(&mut self, inbox: Vec<u8>, lists: &mut Lists, key: Key, ring: &mut Ring) {
        debug_assert!(self.is_receiving_any() && self.recv == Flight::Running);
        self.inbox = inbox;
        let whole = part(&mut self.inbox, 0, INBOX_BYTES as u32);
        let mut list = lists.take();
        list.fill([whole].into_iter());
        self.incoming = Some(Transfer::List(list));
        self.push_recv(key, ring);
    }

    /// Whether the receive in flight takes whatever comes.
    pub(super) fn is_receiving_any(&self) -> bool {
        matches!(self.incoming, Some(Transfer::Any))
    }

    /// The kernel has filled a buffer for the receive in flight, or the one that has just ended.
    pub(super) fn set_inbox(&mut self, filled: Vec<u8>) {
        self.inbox = filled;
    }

    /// Starts to receive. Panics if a receive is in flight or a segment is out of bounds.
    pub(super) fn recv(
        &mut self,
        segments: &[Segment],
        (arena, lists): (&Arena, &mut Lists),
        key: Key,
        ring: &mut Ring,
    ) {
        assert!(self.recv == Flight::None, "a receive is in flight already");
        check(segments);
        if self.inbox.is_empty() && segments.iter().any(|segment| matches!(segment, Segment::Inbox { .. })) {
            self.inbox.resize(INBOX_BYTES, 0);
        }
        let inbox = &mut self.inbox;
        let places = segments.iter().map(|segment| match *segment {
            Segment::Payload { slot, offset, len } => {
                vector(arena.payload_ptr(slot, offset, len).as_ptr(), len)
            }
            Segment::Inbox { offset, len } => part(inbox, offset, len),
            Segment::Header { .. } | Segment::Outbox { .. } => panic!("not a place to receive into"),
        });
        let mut list = lists.take();
        list.fill(places);
        self.incoming = Some(Transfer::List(list));
        self.recv = Flight::Running;
        self.push_recv(key, ring);
    }

    /// Starts to send, without a copy if `direct` says how. Panics if a send is in flight or a segment is
    /// out of bounds.
    pub(super) fn send(
        &mut self,
        segments: &[Segment],
        direct: Option<Direct>,
        (arena, lists): (&Arena, &mut Lists),
        key: Key,
        ring: &mut Ring,
    ) {
        assert!(self.send == Flight::None, "a send is in flight already");
        check(segments);
        let outbox = &mut self.outbox;
        let places = segments.iter().map(|segment| match *segment {
            Segment::Payload { slot, offset, len } => {
                vector(arena.payload_ptr(slot, offset, len).as_ptr(), len)
            }
            Segment::Header { slot, block, skip } => {
                let rest = &arena.header(slot, block)[skip as usize..];
                vector(rest.as_ptr().cast_mut(), rest.len() as u32)
            }
            Segment::Outbox { offset, len } => part(outbox, offset, len),
            Segment::Inbox { .. } => panic!("not a place to send from"),
        });
        let mut list = lists.take();
        list.fill(places);
        self.outgoing = Some(Transfer::List(list));
        self.direct = direct;
        self.send = Flight::Running;
        self.push_send(key, ring);
    }

    /// Submits the receive as `recv` left it, anew if the kernel gave it back undone.
    pub(super) fn push_recv(&mut self, key: Key, ring: &mut Ring) {
        debug_assert!(key.kind == Kind::Recv);
        let Some(fd) = &self.fd else {
            // The dial had failed: nothing starts, hence nothing ends.
            self.recv = Flight::None;
            return;
        };
        let fd = types::Fd(fd.as_raw_fd());
        let entry: squeue::Entry = match &mut self.incoming {
            None => return,
            Some(Transfer::Any) => opcode::Recv::new(fd, std::ptr::null_mut(), INBOX_BYTES as u32)
                .buf_group(GROUP)
                .ioprio(POLL_FIRST)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            Some(Transfer::List(list)) => match list.segments[..] {
                [one] => opcode::Recv::new(fd, one.iov_base.cast(), one.iov_len as u32).build(),
                _ => opcode::RecvMsg::new(fd, &raw mut list.message).build(),
            },
        };
        // SAFETY: list, inbox and socket belong to the boxed connection, and the list is boxed too; they
        // are neither moved nor changed before the receive has ended; the caller pins the slots (`Io`),
        // and `Uring` holds the arena and the buffers.
        unsafe { ring.push(entry, key) }
    }

    /// Submits the send as `send` left it, anew if the kernel gave it back undone.
    pub(super) fn push_send(&mut self, key: Key, ring: &mut Ring) {
        debug_assert!(key == self.send_key(key.id));
        let Some(fd) = &self.fd else {
            // The dial had failed: nothing starts, hence nothing ends.
            self.send = Flight::None;
            return;
        };
        let fd = types::Fd(fd.as_raw_fd());
        let Some(Transfer::List(list)) = &self.outgoing else { return };
        let entry: squeue::Entry = match (&list.segments[..], self.direct) {
            (_, Some(direct)) => zero_copy::entry(fd, &raw const list.message, direct.buffer),
            ([one], None) => {
                opcode::Send::new(fd, one.iov_base.cast(), one.iov_len as u32).flags(SEND_FLAGS).build()
            }
            (_, None) => opcode::SendMsg::new(fd, &raw const list.message).flags(SEND_FLAGS as u32).build(),
        };
        // SAFETY: as in `push_recv`, with the outbox for the inbox.
        unsafe { ring.push(entry, key) }
    }

    /// Makes the kernel end whatever a cancellation could not reach.
    pub(super) fn shut_down(&self) {
        if let Some(fd) = &self.fd {
            // It fails only if the connection is gone, which is as well.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
    }
}

/// What the network device has not sent of a socket (`SO_MEMINFO`, Linux 4.12); 0 if the kernel does not say.
fn backlog_bytes(fd: &OwnedFd) -> u64 {
    let mut words = [0_u32; libc::SK_MEMINFO_WMEM_ALLOC as usize + 1];
    let mut len = size_of_val(&words) as libc::socklen_t;
    let place = words.as_mut_ptr().cast();
    // SAFETY: `place` has room for `len` bytes, and both outlive the call; the descriptor is open.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut len) };
    if done == 0 { words[libc::SK_MEMINFO_WMEM_ALLOC as usize].into() } else { 0 }
}

fn check(segments: &[Segment]) {
    assert!(segments.len() <= SEGMENTS_MAX, "more than {SEGMENTS_MAX} segments");
    assert!(segments.iter().any(|segment| !segment.is_empty()), "nothing to transfer");
}

fn vector(start: *mut u8, len: u32) -> libc::iovec {
    libc::iovec { iov_base: start.cast(), iov_len: len as usize }
}

/// Part of a buffer. Panics if it is out of bounds.
fn part(buffer: &mut [u8], offset: u32, len: u32) -> libc::iovec {
    let start = offset as usize;
    vector(buffer[start..start + len as usize].as_mut_ptr(), len)
}
