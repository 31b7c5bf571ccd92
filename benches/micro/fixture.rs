//! Engines with torrents and peers, as the cases need them. Same arguments, same state.

use std::sync::Arc;

use troc::base::bitfield::Bitfield;
use troc::base::geometry::Geometry;
use troc::base::ids::{ConnId, CoreId, InfoHash, PeerId, SlotId, TorrentId};
use troc::base::network::Grouping;
use troc::base::segment::Segment;
use troc::base::time::Instant;
use troc::base::units::CHUNK_BYTES;
use troc::engine::action::Action;
use troc::engine::{Engine, EngineConfig};
use troc::proto::wire::handshake::Handshake;
use troc::proto::wire::message::{Frame, Message, next_frame};
use troc::shared::budget::Budgets;
use troc::shared::cache::Cache;
use troc::shared::torrent::{SharedTorrent, TorrentMeta};

/// The one torrent.
pub const TORRENT: TorrentId = TorrentId(0);
/// Time stands still: nothing here waits for it.
pub const NOW: Instant = Instant(1_000_000_000);
/// Its name.
pub const INFO_HASH: InfoHash = InfoHash([7; 20]);
/// The SHA-1 of each of its pieces.
pub const PIECE_HASH: [u8; 20] = [5; 20];

/// What of the torrent is there at first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Have {
    /// Nothing.
    Nothing,
    /// All, and every chunk in memory.
    Everything,
}

/// One engine, and the buffers that a worker composes sends in.
pub struct Node {
    /// See [`Engine`].
    pub engine: Engine,
    outbox: Vec<u8>,
    segments: Vec<Segment>,
}

impl Node {
    /// A torrent of `pieces` pieces of one chunk.
    pub fn new(pieces: u32, have: Have) -> Self {
        let geometry = Geometry::new(u64::from(pieces) * u64::from(CHUNK_BYTES), CHUNK_BYTES);
        let piece_hashes = vec![PIECE_HASH; pieces as usize].into();
        let plain = TorrentMeta::plain(INFO_HASH, geometry.total_bytes, CHUNK_BYTES);
        let meta = TorrentMeta { id: TORRENT, piece_hashes, ..plain };
        let all = have == Have::Everything;
        let bits = if all { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        let shared = SharedTorrent::new(meta, &bits, 1);
        for chunk in (0..pieces).filter(|_| all) {
            assert!(shared.chunks.begin_load(chunk, SlotId(chunk)));
            shared.chunks.finish_load(chunk, 0);
        }
        let config = EngineConfig {
            core: CoreId(0),
            cores: 1,
            peer_id: PeerId([1; 20]),
            listen_port: None,
            dht_port: None,
            sequential: false,
            seed: 1,
            secret: 1,
            grouping: Grouping::default(),
            identity: None,
            upload: Budgets::default(),
            download: Budgets::default(),
        };
        let mut engine = Engine::new(config, Arc::new(Cache::new(2 * pieces)), NOW);
        engine.handle_torrent(shared);
        Self { engine, outbox: Vec::new(), segments: Vec::new() }
    }

    /// Connection number `index`, through its handshake.
    pub fn connect(&mut self, index: u32) -> ConnId {
        let conn = ConnId { index, generation: 0 };
        let mut theirs = [2; 20];
        theirs[..4].copy_from_slice(&index.to_be_bytes());
        self.engine.handle_accepted(conn, ([127, 0, 0, 1], index as u16 + 1).into(), NOW);
        self.engine.handle_handshake(conn, &Handshake::new(INFO_HASH, PeerId(theirs)), NOW);
        conn
    }

    /// A connection that wants blocks and is served.
    pub fn connect_fetcher(&mut self, index: u32) -> ConnId {
        let conn = self.connect(index);
        self.hear(conn, Message::Interested);
        self.run();
        conn
    }

    /// A message from a peer.
    pub fn hear(&mut self, conn: ConnId, message: Message<'_>) {
        self.engine.handle_message(conn, message, NOW).expect("messages of cases are good");
    }

    /// Whole messages from a peer, as they come from the socket.
    pub fn hear_bytes(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let bitfield_bytes = self.engine.peer(conn).map_or(0, |peer| peer.bits.as_bytes().len() as u32);
        while let Some((Frame::Message(message), used)) =
            next_frame(bytes, bitfield_bytes).expect("messages of cases are good")
        {
            self.hear(conn, message);
            bytes = &bytes[used..];
        }
    }

    /// Carries out all that the engine wants done, at once and with success: the worker's part of a
    /// turn without the kernel.
    pub fn run(&mut self) {
        while let Some(action) = self.engine.poll_action(NOW) {
            match action {
                Action::Send(conn) => self.send(conn),
                Action::Hash { torrent, chunk, last, .. } => {
                    self.engine.handle_hashed(torrent, chunk, last.then_some(PIECE_HASH.into()));
                }
                Action::Write { torrent, chunk } => self.engine.handle_written(torrent, chunk, Ok(())),
                _ => {}
            }
        }
    }

    fn send(&mut self, conn: ConnId) {
        self.segments.clear();
        if self.engine.take_send(conn, &mut self.outbox, &mut self.segments, NOW) {
            let bytes = self.segments.iter().map(|segment| segment.len()).sum();
            self.engine.handle_sent(conn, Ok(bytes), NOW);
        }
    }
}
