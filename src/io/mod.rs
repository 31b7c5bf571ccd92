//! The kernel, behind one seam: the [`Io`] trait.
//!
//! `uring` implements it for production, `sim` for tests. It knows connections, files and arena
//! slots; it does not know what a torrent is. Operations never carry pointers: they name places
//! ([`Segment`], [`FileOp`]) that the implementation resolves, and the implementation keeps the
//! descriptor and the bookkeeping of an operation alive until its **last** completion.
//!
//! Contract of a connection: at most one receive and one send are in flight. `inbox` may be
//! touched only while no receive is in flight, `outbox` only while no send is. Arena slots named
//! by an operation must stay allocated until it has completed (a send that is `held`: until it is
//! `Released`); the caller pins them. From `close` to `Closed` the id stays good and nothing more
//! happens on it: a second `close`, and `recv`, `recv_any`, `interrupt_recv` and `send`, are ignored.
//! After `Closed` only `close`, `interrupt_recv` and `detach` forgive the stale id; the other calls are
//! the caller's mistake.

pub mod arena;
pub mod sockets;
pub mod uring;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use crate::base::ids::{ConnId, SlotId};
use crate::base::time::Instant;

/// A kernel error number. `Display` gives the system's text for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled by us.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// The other side reset the connection.
    pub const RESET: Self = Self(libc::ECONNRESET);
    /// No space on the device.
    pub const NO_SPACE: Self = Self(libc::ENOSPC);
    /// The device failed.
    pub const IO: Self = Self(libc::EIO);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {} ({self})", self.0)
    }
}

impl std::error::Error for Errno {}

pub use crate::base::segment::{SEGMENTS_MAX, Segment};

/// A read or write between a file and the payload area of a slot.
#[derive(Clone, Debug)]
pub struct FileOp<F> {
    /// Comes back with the completion.
    pub token: u64,
    /// The file; the operation keeps it open.
    pub file: F,
    /// Ask for direct I/O; offsets, length and slot offset are then multiples of 4096. Where the
    /// file system has none the implementation goes through the page cache.
    pub direct: bool,
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// The slot.
    pub slot: SlotId,
    /// Offset in the slot's payload area, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// What a turn brings. Counts are bytes; 0 received means that the other side closed.
#[derive(Debug)]
pub enum Completion {
    /// A peer connected to us.
    Accepted {
        /// Its new connection.
        conn: ConnId,
        /// Where it comes from.
        address: SocketAddr,
    },
    /// A `dial` ended. After an error the connection must still be closed.
    Dialed {
        /// The connection that `dial` returned.
        conn: ConnId,
        /// Why it failed, if it did.
        result: Result<(), Errno>,
    },
    /// A receive ended.
    Received {
        /// Its connection.
        conn: ConnId,
        /// Bytes placed in the segments, in order; of a `recv_any`, at the start of the inbox.
        result: Result<u32, Errno>,
    },
    /// A send ended, perhaps short.
    Sent {
        /// Its connection.
        conn: ConnId,
        /// Bytes taken from the segments, in order.
        result: Result<u32, Errno>,
        /// The kernel still reads the slots of what was taken (zero copy): they stay pinned until
        /// `Released`. The outbox is free at once.
        held: bool,
    },
    /// The kernel has let go of the slots of a send that it held, the oldest of the connection. None comes
    /// after `close`: `Closed` frees them all.
    Released {
        /// Its connection.
        conn: ConnId,
    },
    /// The last operation of a closed connection has ended; its id is stale from now on and the
    /// slots that its operations named may be freed.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A file read ended, perhaps short.
    Read {
        /// `FileOp::token`.
        token: u64,
        /// Bytes read.
        result: Result<u32, Errno>,
    },
    /// A file write ended, perhaps short.
    Written {
        /// `FileOp::token`.
        token: u64,
        /// Bytes written.
        result: Result<u32, Errno>,
    },
}

/// What an implementation of [`Io`] has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Calls into the kernel.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Completions whose operation is not known any more.
    pub stale: u64,
    /// Calls into the kernel that found the completion queue overflowing.
    pub overflows: u64,
    /// Connections closed at once because the table was full.
    pub refused: u64,
    /// Accepts that failed, mostly for want of descriptors.
    pub accept_failures: u64,
    /// Receives that took memory of their own because all receive buffers were waiting to be taken.
    pub starved: u64,
    /// Sends given to the kernel.
    pub sends: u64,
    /// Of these, as zero-copy sends.
    pub zero_copy_sends: u64,
    /// Zero-copy sends that the kernel reported to have copied after all.
    pub zero_copy_copied: u64,
}

/// Ends another core's (or the own) wait in [`Io::turn`]; callable from any thread.
pub trait Wake: Send + Sync {
    /// The next or current `turn` of the woken core returns at once.
    fn wake(&self);
}

/// One core's access to sockets, files and time.
pub trait Io {
    /// A connection on its way to another core.
    type Socket: Send + fmt::Debug;
    /// An open file, cheap to clone; clones share the descriptor.
    type File: Clone + Send + Sync + fmt::Debug;

    /// Monotonic time; read twice per turn by the worker.
    fn now(&self) -> Instant;

    /// What happened so far; nothing where nobody counts.
    fn counters(&self) -> IoCounters {
        IoCounters::default()
    }

    /// Starts to connect. `None` when the connection table is full.
    fn dial(&mut self, address: SocketAddr) -> Option<ConnId>;

    /// Takes over a connected socket. Gives it back when the connection table is full.
    fn attach(&mut self, socket: Self::Socket) -> Result<ConnId, Self::Socket>;

    /// Gives up a connection on which nothing is in flight; its id is stale from now on. `None` if
    /// something is in flight or the id is stale. Inbox and outbox contents are lost.
    fn detach(&mut self, conn: ConnId) -> Option<Self::Socket>;

    /// The receive buffer of a connection; at first empty. May be resized or replaced.
    fn inbox(&mut self, conn: ConnId) -> &mut Vec<u8>;

    /// The buffer for control frames of a connection; at first empty.
    fn outbox(&mut self, conn: ConnId) -> &mut Vec<u8>;

    /// Receives whatever comes, at most `INBOX_BYTES`, to the start of the inbox. Contents and memory of
    /// the inbox are given up now: a connection that waits like this holds no buffer.
    fn recv_any(&mut self, conn: ConnId);

    /// Receives into the segments, in order. Ends as soon as anything has arrived. An empty inbox that a
    /// segment names becomes `INBOX_BYTES` zero bytes.
    fn recv(&mut self, conn: ConnId, segments: &[Segment]);

    /// Ends a receive in flight: it completes with what had arrived or with `Errno::CANCELED`.
    fn interrupt_recv(&mut self, conn: ConnId);

    /// Sends the segments, in order; may end short.
    fn send(&mut self, conn: ConnId, segments: &[Segment]);

    /// Payload beyond what can be sent at once that the kernel takes of a send: `bytes` from now on.
    fn set_unsent(&mut self, conn: ConnId, bytes: u32);

    /// Of what the kernel has taken, the bytes that stand in this machine's own queue, with what keeping them
    /// takes: handed to the link and not on the wire yet. 0 where nobody knows.
    fn backlog_bytes(&self, conn: ConnId) -> u64;

    /// Cancels what is in flight and closes. No completion of the connection but `Closed` follows
    /// that the caller must act on; `Received` and `Sent` may still come before it.
    fn close(&mut self, conn: ConnId);

    /// Starts a file read.
    fn read(&mut self, op: FileOp<Self::File>);

    /// Starts a file write.
    fn write(&mut self, op: FileOp<Self::File>);

    /// Forgets registrations of the memory of `slots`, whole regions, so that it can be given back. No
    /// operation that names one of them is in flight. False if the kernel goes on using it.
    fn forget(&mut self, slots: Range<u32>) -> bool;

    /// Submits what was queued, waits until something completes, `deadline` passes or a wake-up
    /// comes, and appends a bounded number of completions to `done`. A deadline that has passed
    /// means not to wait.
    fn turn(&mut self, deadline: Option<Instant>, done: &mut Vec<Completion>);
}

/// Size of an inbox: 240 requests, or the headers of a full vectored receive and a tail.
pub const INBOX_BYTES: usize = 4096;
