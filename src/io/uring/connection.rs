//! One connection: its buffers, what is in flight on it, and the operations on it.
#![allow(unsafe_code)] // Scatter lists point into the buffers of the connection and the arena.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::io::arena::Arena;
use crate::io::{Errno, INBOX_BYTES, SEGMENTS_MAX, Segment};

use super::key::{Key, Kind};
use super::ring::Ring;

/// An outbox that grew beyond this is given back when its connection closes.
const OUTBOX_KEPT_BYTES: usize = 16 << 10;

/// An operation of a connection that can be in flight once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flight {
    #[default]
    None,
    Running,
    /// Its end was asked for.
    Interrupted,
}

/// A scatter or gather list that stays put while the kernel uses it.
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
    incoming: Vectors,
    outgoing: Vectors,
    address: SockAddr,
}

impl Default for Vectors {
    fn default() -> Self {
        // SAFETY: a message header of zero bytes is an empty one: null pointers and lengths of 0.
        Self { segments: Vec::new(), message: unsafe { std::mem::zeroed() } }
    }
}

impl Vectors {
    /// Takes the list over and returns it as the kernel wants it.
    fn fill(&mut self, segments: impl Iterator<Item = libc::iovec>) -> &mut libc::msghdr {
        self.segments.clear();
        self.segments.extend(segments);
        self.message.msg_iov = self.segments.as_mut_ptr();
        self.message.msg_iovlen = self.segments.len();
        &mut self.message
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
            incoming: Vectors::default(),
            outgoing: Vectors::default(),
            address: SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))),
        })
    }

    /// Makes the block of a closed connection as good as new.
    pub(super) fn recycle(&mut self) {
        debug_assert!(self.is_quiet());
        self.fd = None;
        self.closing = false;
        if self.inbox.capacity() > INBOX_BYTES {
            self.inbox = Vec::new();
        } else {
            self.inbox.clear();
        }
        self.outbox.clear();
        self.outbox.shrink_to(OUTBOX_KEPT_BYTES);
    }

    /// Whether nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        [self.connect, self.recv, self.send] == [Flight::None; 3]
    }

    /// How many operations are in flight.
    pub(super) fn flights(&self) -> usize {
        [self.connect, self.recv, self.send].iter().filter(|flight| **flight != Flight::None).count()
    }

    /// The inbox, made when it is first wanted. Panics while a receive is in flight.
    pub(super) fn inbox(&mut self) -> &mut Vec<u8> {
        assert!(self.recv == Flight::None, "the inbox belongs to the kernel while it receives");
        self.ready_inbox()
    }

    /// The outbox. Panics while a send is in flight.
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        assert!(self.send == Flight::None, "the outbox belongs to the kernel while it sends");
        &mut self.outbox
    }

    fn ready_inbox(&mut self) -> &mut Vec<u8> {
        if self.inbox.is_empty() {
            self.inbox.resize(INBOX_BYTES, 0);
        }
        &mut self.inbox
    }

    /// Opens a socket and starts to connect.
    pub(super) fn dial(&mut self, address: SocketAddr, key: Key, ring: &mut Ring) -> Result<(), Errno> {
        let made = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
        let socket = made.and_then(|socket| socket.set_tcp_nodelay(true).map(|()| socket));
        let socket = socket.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        self.address = SockAddr::from(address);
        let fd = self.fd.insert(OwnedFd::from(socket)).as_raw_fd();
        self.connect = Flight::Running;
        let entry = opcode::Connect::new(types::Fd(fd), self.address.as_ptr().cast(), self.address.len());
        debug_assert!(key.kind == Kind::Connect);
        // SAFETY: the address lies in the boxed connection and is not changed before the connect
        // has ended; the socket stays open that long (invariant of `Connection`).
        unsafe { ring.push(entry.build(), key) }
        Ok(())
    }

    /// Starts to receive. Panics if a receive is in flight or a segment is out of bounds.
    pub(super) fn recv(&mut self, segments: &[Segment], arena: &Arena, key: Key, ring: &mut Ring) {
        assert!(self.recv == Flight::None, "a receive is in flight already");
        check(segments);
        if segments.iter().any(|segment| matches!(segment, Segment::Inbox { .. })) {
            self.ready_inbox();
        }
        let inbox = &mut self.inbox;
        let places = segments.iter().map(|segment| match *segment {
            Segment::Payload { slot, offset, len } => {
                vector(arena.payload_ptr(slot, offset, len).as_ptr(), len)
            }
            Segment::Inbox { offset, len } => part(inbox, offset, len),
            Segment::Header { .. } | Segment::Outbox { .. } => panic!("not a place to receive into"),
        });
        self.incoming.fill(places);
        self.recv = Flight::Running;
        self.push_recv(key, ring);
    }

    /// Starts to send. Panics if a send is in flight or a segment is out of bounds.
    pub(super) fn send(&mut self, segments: &[Segment], arena: &Arena, key: Key, ring: &mut Ring) {
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
        self.outgoing.fill(places);
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
        let entry: squeue::Entry = match self.incoming.segments[..] {
            [one] => opcode::Recv::new(fd, one.iov_base.cast(), one.iov_len as u32).build(),
            _ => opcode::RecvMsg::new(fd, &raw mut self.incoming.message).build(),
        };
        // SAFETY: list, inbox and socket belong to the boxed connection, which is neither moved nor
        // changed in these before the receive has ended; the caller pins the slots (`Io`), and
        // `Uring` holds the arena.
        unsafe { ring.push(entry, key) }
    }

    /// Submits the send as `send` left it, anew if the kernel gave it back undone.
    pub(super) fn push_send(&mut self, key: Key, ring: &mut Ring) {
        debug_assert!(key.kind == Kind::Send);
        let Some(fd) = &self.fd else {
            // The dial had failed: nothing starts, hence nothing ends.
            self.send = Flight::None;
            return;
        };
        let fd = types::Fd(fd.as_raw_fd());
        let entry: squeue::Entry = match self.outgoing.segments[..] {
            [one] => opcode::Send::new(fd, one.iov_base.cast(), one.iov_len as u32)
                .flags(libc::MSG_NOSIGNAL)
                .build(),
            _ => opcode::SendMsg::new(fd, &raw const self.outgoing.message)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build(),
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
