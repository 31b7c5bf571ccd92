//! Hostile and slow peers against one engine with virtual time. Rows of threats by their number.

mod allowed;
mod answers;
mod appetite;
mod asleep;
mod backlog;
mod begun;
mod choking;
mod exchange;
mod flood;
mod held;
mod identity;
mod limits;
mod long;
mod lost;
mod metadata;
mod nodes;
mod random;
mod relief;
mod requests;
mod rivals;
mod seeding;
mod time;
mod turns;
mod upload_only;
mod v2;
mod view;
mod wanted;
mod web_seed;

use super::*;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BlockRef, Geometry};
use crate::base::segment::Segment;
use crate::base::time::Span;
use crate::proto::wire::handshake::Handshake;
use crate::proto::wire::message::{Frame, Message, next_frame};
use crate::shared::torrent::{TorrentLimits, TorrentMeta};
use crate::storage::layout::{FileSpan, Layout};

const HASH: InfoHash = InfoHash([7; 20]);
const OURS: PeerId = PeerId(*b"-tC0100-the-engine--");
const THEIRS: PeerId = PeerId(*b"-XX0000-a-peer------");
const NO_BLOCK: BlockRef = BlockRef { piece: 9_999, begin: 0, length: 16 << 10 };

/// One engine, one torrent, and the time.
struct Rig {
    engine: Engine,
    shared: Arc<SharedTorrent>,
    now: Instant,
    conns: u32,
    /// Everything that was wanted and is not a send.
    done: Vec<Action>,
}

impl Rig {
    /// A torrent of `pieces` pieces of 1 MiB and a last one of 100,000 bytes; all of it or none is there.
    fn new(pieces: u32, complete: bool) -> Self {
        let none = Budgets::default();
        Self::limited(pieces, complete, (none.clone(), none), TorrentLimits::default())
    }

    /// The same with limits of what is sent and asked for.
    fn limited(
        pieces: u32,
        complete: bool,
        (upload, download): (Budgets, Budgets),
        limits: TorrentLimits,
    ) -> Self {
        let piece_bytes = 1 << 20;
        let total_bytes = u64::from(pieces - 1) * u64::from(piece_bytes) + 100_000;
        let meta = TorrentMeta::plain(HASH, total_bytes, piece_bytes);
        let have = if complete { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        Self::of(SharedTorrent::with_limits(meta, &have, 1, limits), false, (upload, download))
    }

    /// The same with pieces of another length.
    fn of_pieces(pieces: u32, piece_bytes: u32, complete: bool) -> Self {
        let meta = TorrentMeta::plain(HASH, u64::from(pieces) * u64::from(piece_bytes), piece_bytes);
        let have = if complete { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        Self::of(SharedTorrent::new(meta, &have, 1), false, <(Budgets, Budgets)>::default())
    }

    /// Another torrent, or the first one anew, of which all or nothing is there.
    fn add(&mut self, meta: TorrentMeta, complete: bool) -> Arc<SharedTorrent> {
        let pieces = meta.geometry.piece_count();
        let have = if complete { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        let shared = SharedTorrent::new(meta, &have, 1);
        self.engine.handle_torrent(Arc::clone(&shared));
        shared
    }

    /// A torrent like the first.
    fn plain(&self) -> TorrentMeta {
        let geometry = self.shared.meta.geometry;
        TorrentMeta::plain(HASH, geometry.total_bytes, geometry.piece_bytes)
    }

    /// Of any torrent.
    fn of(shared: Arc<SharedTorrent>, sequential: bool, (upload, download): (Budgets, Budgets)) -> Self {
        let config = EngineConfig {
            core: CoreId(0),
            cores: 1,
            peer_id: OURS,
            listen_port: None,
            dht_port: None,
            sequential,
            seed: 1,
            secret: 2,
            grouping: Grouping::default(),
            identity: None,
            upload,
            download,
        };
        let now = Instant(0) + Span::from_secs(1_000);
        let mut engine = Engine::new(config, Arc::new(Cache::new(64)), now);
        engine.handle_torrent(Arc::clone(&shared));
        Self { engine, shared, now, conns: 0, done: Vec::new() }
    }

    fn accept(&mut self, address: &str) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        self.engine.handle_accepted(conn, address.parse().unwrap(), self.now);
        conn
    }

    fn shake(&mut self, conn: ConnId, fast: bool) -> Admission {
        let mut handshake = Handshake::new(HASH, THEIRS).with_extension();
        if fast {
            handshake = handshake.with_fast();
        }
        self.engine.handle_handshake(conn, &handshake, self.now)
    }

    /// A local peer past its handshake, whose greeting from us has left.
    fn peer(&mut self, fast: bool) -> ConnId {
        let conn = self.accept(&format!("127.0.0.1:{}", 10_000 + self.conns));
        assert_eq!(self.shake(conn, fast), Admission::Here);
        self.read(conn);
        conn
    }

    /// One that has everything and serves us.
    fn seed(&mut self) -> ConnId {
        let conn = self.peer(true);
        self.say(conn, Message::HaveAll).unwrap();
        self.say(conn, Message::Unchoke).unwrap();
        conn
    }

    /// One that we serve.
    fn leech(&mut self, fast: bool) -> ConnId {
        let conn = self.peer(fast);
        self.say(conn, Message::Interested).unwrap();
        self.read(conn);
        conn
    }

    fn say(&mut self, conn: ConnId, message: Message<'_>) -> Result<(), session::PeerMisbehaved> {
        self.engine.handle_message(conn, message, self.now)
    }

    /// Performs what is wanted; the connections that have something to send.
    fn perform(&mut self) -> Vec<ConnId> {
        let mut sends = Vec::new();
        while let Some(action) = self.engine.poll_action(self.now) {
            match action {
                Action::Send(conn) => sends.push(conn),
                Action::Load { torrent, chunk, .. } => self.engine.handle_loaded(torrent, chunk, Ok(())),
                Action::Close(conn) => {
                    self.done.push(action);
                    self.engine.handle_closed(conn);
                }
                other => self.done.push(other),
            }
        }
        sends
    }

    /// Composes the next send to `conn` once its blocks are in memory; it stays in flight.
    fn begin_send(&mut self, conn: ConnId) -> Vec<Segment> {
        let (mut outbox, mut segments) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            if self.engine.take_send(conn, &mut outbox, &mut segments, self.now) {
                return segments;
            }
            self.perform();
        }
        panic!("nothing is sent to {conn:?}");
    }

    /// Performs what is wanted, and reads all that is for `conn`: the frames, and how many blocks.
    fn read(&mut self, conn: ConnId) -> (Vec<u8>, u32) {
        let (mut bytes, mut blocks) = (Vec::new(), 0);
        loop {
            self.perform();
            let (mut outbox, mut segments) = (Vec::new(), Vec::new());
            let mut sends = |rig: &mut Self| rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now);
            if !sends(self) {
                // It may have asked for a chunk to be read first.
                self.perform();
                if !sends(self) {
                    return (bytes, blocks);
                }
            }
            let sum: u32 = segments.iter().map(Segment::len).sum();
            blocks +=
                segments.iter().filter(|segment| matches!(segment, Segment::Payload { .. })).count() as u32;
            let first = match segments.first() {
                Some(Segment::Outbox { offset: 0, len }) => *len as usize,
                _ => 0,
            };
            bytes.extend_from_slice(&outbox[..first]);
            self.engine.handle_sent(conn, Ok(sum), self.now);
        }
    }

    /// The blocks that `conn` is asked for.
    fn asked(&mut self, conn: ConnId) -> Vec<BlockRef> {
        let (bytes, _) = self.read(conn);
        frames(&bytes)
            .into_iter()
            .filter_map(|message| match message {
                Message::Request(block) => Some(block),
                _ => None,
            })
            .collect()
    }

    /// Lets time pass, a second at a time.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.now = end.min(self.now + Span::from_secs(1));
            self.engine.handle_tick(self.now);
            self.perform();
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.engine.peer(conn).is_some_and(Peer::is_open)
    }

    fn was_closed(&self, conn: ConnId) -> bool {
        self.done.contains(&Action::Close(conn))
    }
}

/// The messages in `bytes`; the extension handshake is left out.
fn frames(bytes: &[u8]) -> Vec<Message<'_>> {
    let (mut at, mut all) = (0, Vec::new());
    while let Some((frame, used)) = next_frame(&bytes[at..], 0).unwrap() {
        at += used;
        match frame {
            Frame::Message(message) => all.push(message),
            Frame::Piece { .. } => panic!("blocks are not among the frames"),
        }
    }
    assert_eq!(at, bytes.len());
    all
}

const fn block(piece: u32, begin: u32, length: u32) -> BlockRef {
    BlockRef { piece, begin, length }
}
