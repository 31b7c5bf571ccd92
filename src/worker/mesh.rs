//! What cores and the control thread send one another.
//!
//! Each receiver has one bounded lock-free mailbox. A sender that finds it full keeps the message,
//! in order, and tries again next turn: messages may be late, never lost. Who rings whom is decided
//! by `shared::lane::Parking`, which is model-checked.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;

use crate::base::ids::{ConnId, TorrentId, WebSeedId};
use crate::engine::action::{Note, Report};
use crate::engine::exchange::Tale;
use crate::engine::versions::Name;
use crate::engine::view::PeerView;
use crate::io::{Io, Wake};
use crate::proto::wire::handshake::Handshake;
use crate::shared::lane::Parking;
use crate::shared::torrent::SharedTorrent;
use crate::storage::layout::FileIndex;

/// Messages that one mailbox holds.
const MAILBOX_MESSAGES_MAX: usize = 4096;

/// The open files of a torrent by file index; `None` for padding and for empty files.
pub type Files<F> = Arc<[Option<F>]>;

/// What a worker is sent.
pub enum ToWorker<I: Io> {
    /// Another core's engine says something.
    Note(Note),
    /// Fetch and serve a torrent.
    Add {
        /// Its shared state.
        torrent: Arc<SharedTorrent>,
        /// Its files.
        files: Files<I::File>,
    },
    /// Connect to a peer.
    Dial {
        /// For which torrent.
        torrent: TorrentId,
        /// By which of its names.
        name: Name,
        /// Where.
        address: SocketAddr,
    },
    /// Take over a connection from the bridge to a web seed.
    Adopt {
        /// Our end of it.
        socket: I::Socket,
        /// Where the web server is.
        address: SocketAddr,
        /// For which torrent.
        torrent: TorrentId,
        /// Which of its web seeds.
        seed: WebSeedId,
    },
    /// Go on with a connection whose encrypted handshake is over.
    Decrypted {
        /// Its plain side.
        socket: I::Socket,
        /// Its other end.
        address: SocketAddr,
        /// Who opened it.
        opened: Opened,
        /// What the peer has said so far, of what follows.
        heard: Vec<u8>,
    },
    /// Close a connection, if it is still there.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Tell a peer of others, if its connection is still there.
    Tell {
        /// Which.
        conn: ConnId,
        /// By which extension.
        tale: Tale,
        /// The payload of the message.
        payload: Bytes,
    },
    /// Take over a connection.
    HandOver {
        /// The socket.
        socket: I::Socket,
        /// Its other end.
        address: SocketAddr,
        /// What the peer said first.
        handshake: Handshake,
        /// What it said after that.
        rest: Vec<u8>,
    },
    /// Unregister a region of the cache, of which no slot is in use; answer with `ToControl::Forgotten`.
    Forget {
        /// Which.
        region: u32,
    },
    /// The edges of a chunk are written, or could not be.
    Edges {
        /// The write job of the receiving worker.
        job: u32,
        /// The error number, if it failed.
        result: Result<(), i32>,
    },
    /// Show some of its connections; answer with `ToControl::Viewed`.
    View(Viewing),
    /// Close everything, write what is verified, then end.
    Stop,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The peer; it has to say for which torrent.
    ByPeer,
    /// We did, for this torrent, by this of its names.
    ByUs(TorrentId, Name),
}

/// A connection that a peer opened, on its way out of the cores; nothing was sent on it.
#[derive(Debug)]
pub struct Caller<S> {
    /// The connection.
    pub socket: S,
    /// Its other end.
    pub address: SocketAddr,
    /// What was received of it.
    pub heard: Vec<u8>,
}

/// A look at a worker's connections, a part of them each time that it is sent.
#[derive(Debug)]
pub struct Viewing {
    /// The question, of the control thread's choice.
    pub ticket: u64,
    /// The first place in the worker's table.
    pub from: usize,
    /// Room for what is there, made by the control thread: the worker allocates nothing.
    pub peers: Vec<PeerView>,
}

/// Part of a chunk that does not fill a page of its file.
#[derive(Debug)]
pub struct Edge {
    /// The file.
    pub file: FileIndex,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The bytes; a copy, as edges are small and the slot may go. All edges of a chunk share one buffer.
    pub bytes: Bytes,
}

/// What the control thread is sent.
#[derive(Debug)]
pub enum ToControl {
    /// The engine of a core reports.
    Report(Report),
    /// Write the edges of a chunk through the page cache, then answer with `ToWorker::Edges`.
    Edges {
        /// Who asks.
        core: u8,
        /// The job to name in the answer.
        job: u32,
        /// The torrent.
        torrent: TorrentId,
        /// What to write where.
        edges: Vec<Edge>,
    },
    /// This region of the arena will be needed soon.
    Touched {
        /// Which.
        region: u32,
    },
    /// A worker has unregistered a region of the cache.
    Forgotten {
        /// Which.
        region: u32,
        /// Or could not.
        could: bool,
    },
    /// What `ToWorker::View` asked for.
    Viewed {
        /// Who answers.
        core: u8,
        /// The same, with what was found.
        viewing: Viewing,
        /// Where to go on, if that is not all.
        next: Option<usize>,
    },
    /// A web seed fails, or gives again (`None`).
    WebSeed {
        /// The torrent.
        torrent: TorrentId,
        /// One line: which, why, and what happens next.
        trouble: Option<String>,
    },
    /// A worker has ended; nothing of it is in flight.
    Stopped {
        /// Which.
        core: u8,
    },
    /// A worker could not start or died.
    Failed {
        /// Which.
        core: u8,
        /// One line.
        why: String,
    },
}

/// A bounded queue into one thread.
pub struct Mailbox<M> {
    queue: ArrayQueue<M>,
    parking: Parking,
    waker: OnceLock<Arc<dyn Wake>>,
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({} messages)", self.queue.len())
    }
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Mailbox<M> {
    /// An empty mailbox whose owner is awake.
    pub fn new() -> Self {
        let queue = ArrayQueue::new(MAILBOX_MESSAGES_MAX);
        Self { queue, parking: Parking::new(), waker: OnceLock::new() }
    }

    /// How to wake the owner; set once, before it first parks.
    pub fn set_waker(&self, waker: Arc<dyn Wake>) {
        let first = self.waker.set(waker).is_ok();
        assert!(first, "a mailbox has one owner");
    }

    /// Puts a message in and rings if the owner sleeps. Gives it back when the mailbox is full.
    pub fn push(&self, message: M) -> Result<(), M> {
        self.queue.push(message)?;
        if self.parking.must_ring()
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
        Ok(())
    }

    /// Messages that wait, as of now.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The oldest message.
    pub fn pop(&self) -> Option<M> {
        self.queue.pop()
    }

    /// The owner is about to sleep; false if there is mail, and it should not.
    pub fn park(&self) -> bool {
        self.parking.park();
        self.queue.is_empty()
    }

    /// The owner is awake.
    pub fn unpark(&self) {
        self.parking.unpark();
    }
}

/// The sending end, with what did not fit yet.
#[derive(Debug)]
pub struct Sender<M> {
    mailbox: Arc<Mailbox<M>>,
    late: VecDeque<M>,
}

impl<M> Sender<M> {
    /// A sender into `mailbox`.
    pub const fn new(mailbox: Arc<Mailbox<M>>) -> Self {
        Self { mailbox, late: VecDeque::new() }
    }

    /// Where it sends to.
    pub fn mailbox(&self) -> Arc<Mailbox<M>> {
        Arc::clone(&self.mailbox)
    }

    /// Sends, or keeps for `flush`; order is kept.
    pub fn send(&mut self, message: M) {
        if self.late.is_empty() {
            if let Err(message) = self.mailbox.push(message) {
                self.late.push_back(message);
            }
        } else {
            self.late.push_back(message);
            self.flush();
        }
    }

    /// Sends what did not fit; true if nothing is left.
    pub fn flush(&mut self) -> bool {
        while let Some(message) = self.late.pop_front() {
            if let Err(message) = self.mailbox.push(message) {
                self.late.push_front(message);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_delays_messages_and_keeps_their_order() {
        let mailbox = Arc::new(Mailbox::new());
        let mut sender = Sender::new(Arc::clone(&mailbox));
        for message in 0..MAILBOX_MESSAGES_MAX + 3 {
            sender.send(message);
        }
        assert!(!sender.flush());
        let mut seen = Vec::new();
        while seen.len() < MAILBOX_MESSAGES_MAX + 3 {
            seen.extend(mailbox.pop());
            sender.flush();
        }
        assert!(sender.flush() && mailbox.pop().is_none());
        assert!(seen.iter().copied().eq(0..MAILBOX_MESSAGES_MAX + 3));
    }
}
