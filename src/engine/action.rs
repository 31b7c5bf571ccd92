//! What the engine wants done. The worker carries it out and reports back by `handle_*`.

use std::net::SocketAddr;

use super::exchange::Speaks;
use super::peer::Origin;
use super::versions::Name;
use crate::base::ids::{ConnId, CoreConn, CoreId, PeerId, SlotId, TorrentId, WebSeedId};
use crate::proto::wire::handshake::Handshake;
use crate::proto::wire::holepunch::PunchMessage;

/// One intention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the receive in flight, so that the next one is planned afresh.
    Interrupt(ConnId),
    /// Receive again: the connection was left alone after `Engine::listens` had said no.
    Listen(ConnId),
    /// Close the connection; `handle_closed` follows.
    Close(ConnId),
    /// Something is to be sent: call `take_send`.
    Send(ConnId),
    /// The kernel is to take no more payload of a connection than it can send, and so much.
    Unsent {
        /// Which one.
        conn: ConnId,
        /// How much more.
        bytes: u32,
    },
    /// Others wait for what this machine has not sent yet of a connection: ask the kernel how much that is,
    /// then call `handle_backlog`.
    Backlog(ConnId),
    /// Give the connection to another core; nothing was sent on it yet.
    HandOver {
        /// The connection.
        conn: ConnId,
        /// The core that gets it.
        to: CoreId,
        /// What the peer said.
        handshake: Handshake,
    },
    /// The connection may begin with an encrypted handshake: give it to who has that, nothing was sent on it
    /// yet. It comes back by `handle_decrypted`, on any core.
    Decrypt(ConnId),
    /// The torrent is a link whose metadata is looked for: give the connection to who does, nothing was sent
    /// on it yet. It does not come back.
    Seek {
        /// The connection.
        conn: ConnId,
        /// The torrent.
        torrent: TorrentId,
    },
    /// Run the piece's hash, by each version of its torrent, over a chunk, then call `handle_hashed`.
    Hash {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk; its slot is stable.
        chunk: u32,
        /// It starts the piece.
        first: bool,
        /// It ends the piece: the digest is wanted.
        last: bool,
    },
    /// Fingerprint each block of a piece, then call `handle_autopsy`.
    Autopsy {
        /// The torrent.
        torrent: TorrentId,
        /// The piece; its slots are stable.
        piece: u32,
    },
    /// Hash each block of a piece, or say what they were hashed to, then call `handle_leaves`.
    Leaves {
        /// The torrent.
        torrent: TorrentId,
        /// The piece; its slots are stable.
        piece: u32,
        /// What for.
        of: Leaves,
    },
    /// Write a chunk to its files, then call `handle_written`. The chunk is pinned for it.
    Write {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk.
        chunk: u32,
    },
    /// Read a chunk from its files into `slot`, then call `handle_loaded`.
    Load {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk.
        chunk: u32,
        /// Where to.
        slot: SlotId,
    },
    /// Tell one core, or all others.
    Tell(To, Note),
    /// Tell the control thread.
    Report(Report),
}

/// Whose leaves are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Of a piece that is verified, for peers that ask. Its chunks are pinned for it.
    Verified,
    /// Of one that failed, to find the blocks that are wrong.
    Failed,
    /// Of one that is being collected, as far as it is hashed: nothing is hashed anew.
    Begun,
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One core.
    Core(CoreId),
    /// Every core but the sender.
    Others,
    /// The cores of a bit mask.
    Mask(u64),
}

/// What cores tell one another. None carries payload: bytes are in shared slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A piece was verified.
    Have {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: u32,
    },
    /// All blocks of a chunk are there; told to the owner of its piece.
    Filled {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk.
        chunk: u32,
    },
    /// The load of a chunk that the told core waits for has ended, well or not.
    Loaded {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk.
        chunk: u32,
    },
    /// A chunk is Partial: whoever can may collect the rest.
    Offer {
        /// The torrent.
        torrent: TorrentId,
        /// The chunk.
        chunk: u32,
    },
    /// The sender's peers have nothing left to ask for: offer a chunk that makes slow progress.
    Idle {
        /// The torrent.
        torrent: TorrentId,
    },
    /// A piece failed its hash or left the disk: it may be fetched again.
    Missing {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: u32,
    },
    /// A peer gave bad blocks and is not to be served or asked again.
    Ban {
        /// Its key.
        key: u64,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It could not be made.
    DialFailed,
    /// The other side closed or reset it.
    Gone,
    /// It broke the protocol or gave bad data.
    Misbehaved,
    /// It was silent for too long.
    TimedOut,
    /// It did nothing wrong, but is not wanted: both sides have everything, the peer has another connection,
    /// its torrent is unknown or has lost the tracker that named it, a cap or a ban keeps it out, or the node
    /// stops.
    Useless,
}

/// What the control thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// All chunks of a verified piece are written, not yet synced.
    PieceWritten {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: u32,
    },
    /// A piece that was thought to be on disk is not what it was.
    PieceLost {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: u32,
    },
    /// A read or write failed; fetching of the torrent has stopped.
    DiskFailed {
        /// The torrent.
        torrent: TorrentId,
        /// The error number.
        errno: i32,
    },
    /// The v1 and v2 halves of a hybrid torrent describe different data; fetching of it has stopped.
    Torn {
        /// The torrent.
        torrent: TorrentId,
        /// A piece in which they differ.
        piece: u32,
    },
    /// A peer asks for a torrent that is asleep.
    Wanted {
        /// The torrent.
        torrent: TorrentId,
    },
    /// A peer finished its handshake.
    Connected {
        /// The torrent.
        torrent: TorrentId,
        /// The connection.
        conn: CoreConn,
        /// Where it is connected from or was dialled at.
        address: SocketAddr,
        /// Who opened it.
        origin: Origin,
        /// The peer's name for itself.
        peer_id: PeerId,
    },
    /// A peer's extension handshake named the port it listens on (BEP 10 `p`).
    Listens {
        /// The torrent.
        torrent: TorrentId,
        /// The connection.
        conn: CoreConn,
        /// Its port.
        port: u16,
    },
    /// A peer speaks peer exchange or hole punching (BEP 11, 55); once for each connection.
    Speaks {
        /// The torrent.
        torrent: TorrentId,
        /// The connection.
        conn: CoreConn,
        /// What it speaks.
        speaks: Speaks,
    },
    /// A peer named others (BEP 11) that it may name.
    Exchanged {
        /// The torrent.
        torrent: TorrentId,
        /// The connection.
        conn: CoreConn,
        /// The other end.
        from: SocketAddr,
        /// By which name of the torrent it, and most likely they, are in a swarm.
        name: Name,
        /// Whom it named.
        peers: Vec<SocketAddr>,
    },
    /// A peer wants to be brought together with another, or we are to dial one (BEP 55).
    Punch {
        /// The torrent.
        torrent: TorrentId,
        /// The connection.
        conn: CoreConn,
        /// The other end.
        from: SocketAddr,
        /// What it said.
        message: PunchMessage,
    },
    /// A peer named a node of the distributed hash table (BEP 5 `port`).
    Node {
        /// The torrent.
        torrent: TorrentId,
        /// Where the node is.
        address: SocketAddr,
    },
    /// A dialled or accepted connection ended.
    Disconnected {
        /// The torrent, if the handshake got that far or it was dialled for one.
        torrent: TorrentId,
        /// The connection; `None` if there was no room for one.
        conn: Option<CoreConn>,
        /// The address.
        address: SocketAddr,
        /// Why.
        why: Farewell,
    },
    /// A connection to a web seed ended.
    WebSeedLeft {
        /// The torrent.
        torrent: TorrentId,
        /// The web seed.
        seed: WebSeedId,
        /// Why.
        why: Farewell,
    },
}

impl Report {
    /// The torrent that it is about.
    pub const fn torrent(&self) -> TorrentId {
        match *self {
            Self::PieceWritten { torrent, .. }
            | Self::PieceLost { torrent, .. }
            | Self::DiskFailed { torrent, .. }
            | Self::Torn { torrent, .. }
            | Self::Wanted { torrent }
            | Self::Connected { torrent, .. }
            | Self::Listens { torrent, .. }
            | Self::Speaks { torrent, .. }
            | Self::Exchanged { torrent, .. }
            | Self::Punch { torrent, .. }
            | Self::Node { torrent, .. }
            | Self::Disconnected { torrent, .. }
            | Self::WebSeedLeft { torrent, .. } => torrent,
        }
    }
}
