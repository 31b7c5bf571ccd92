//! One connection of the load generator.

use std::collections::VecDeque;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use super::walk::Walk;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BlockRef, Geometry};
use crate::base::ids::PeerId;
use crate::base::limits::{BENCH_SAMPLE_INTERVAL, MESSAGE_BYTES_MAX};
use crate::base::units::{BLOCK_BYTES, PIECE_HEADER_BYTES};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::judge::is_right;
use crate::proto::metainfo::Metainfo;
use crate::proto::wire::WireError;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame};

/// The message id after which a block follows.
const PIECE: u8 = 7;
/// System calls on one connection before the others get their turn.
const CALLS_PER_TURN: u32 = 64;

/// What all connections use.
pub struct Shared {
    metainfo: Metainfo,
    depth: u32,
    /// Named to the kernel as the place for payload that it throws away: never written.
    nowhere: Vec<u8>,
    bytes: u64,
    now: Instant,
    /// From a request to the header of its block.
    pub latency: Histogram,
    /// Pieces whose hash was right.
    pub samples_good: u32,
    /// Pieces whose hash was wrong.
    pub samples_bad: u32,
    /// Blocks that nobody had asked for.
    pub unasked: u64,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The seeder closed it.
    #[error("the seeder closed the connection")]
    Closed,
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(Errno),
    /// The seeder sent what the protocol forbids.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The seeder answered for another torrent.
    #[error("the seeder has another torrent")]
    WrongTorrent,
}

#[derive(Debug)]
enum Stage {
    Handshake,
    Messages,
    /// Block bytes that are still to come, and where they go when they are kept.
    Payload {
        left: u32,
        keep_at: Option<u32>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    stage: Stage,
    head: Vec<u8>,
    out: Vec<u8>,
    walk: Walk,
    asked: VecDeque<(BlockRef, Instant)>,
    depth: usize,
    choked: bool,
    bytes: u64,
    sample: Option<Sample>,
}

/// A piece that is kept to check its hash; after it comes another.
#[derive(Debug)]
struct Sample {
    piece: u32,
    bytes: Vec<u8>,
    /// Blocks that are there. A seeder may answer in any order.
    got: Bitfield,
}

impl Sample {
    fn new(geometry: Geometry, piece: u32) -> Self {
        let length = geometry.piece_len(piece);
        let got = Bitfield::new(length.div_ceil(BLOCK_BYTES));
        Self { piece, bytes: vec![0; length as usize], got }
    }

    /// Goes on to the next one, far enough behind that hashing stays cheap beside discarding. Its bytes
    /// come where those of the last one were: fresh memory would cost more than the hash.
    fn advance(&mut self, geometry: Geometry) {
        let next = u64::from(self.piece) + u64::from(BENCH_SAMPLE_INTERVAL);
        self.piece = (next % u64::from(geometry.piece_count())) as u32;
        let length = geometry.piece_len(self.piece);
        self.got = Bitfield::new(length.div_ceil(BLOCK_BYTES));
        self.bytes.resize(length as usize, 0);
    }
}

impl Shared {
    /// For one torrent.
    pub fn new(metainfo: &Metainfo, depth: u32) -> Self {
        Self {
            metainfo: metainfo.clone(),
            depth,
            nowhere: vec![0; crate::base::limits::REQUEST_BYTES_MAX as usize],
            bytes: 0,
            now: Instant::now(),
            latency: Histogram::default(),
            samples_good: 0,
            samples_bad: 0,
            unasked: 0,
        }
    }

    /// Block bytes of all connections.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets what was measured before the window.
    pub fn begin_window(&mut self) {
        self.latency = Histogram::default();
    }
}

impl Connection {
    /// On a connected socket; asks from `piece` on, and checks that piece's hash if told to.
    pub fn new(socket: Socket, shared: &Shared, id: PeerId, piece: u32, sampled: bool) -> Self {
        let out = Handshake::new(shared.metainfo.info_hash, id).with_extension().encode().to_vec();
        let mut connection = Self {
            socket,
            stage: Stage::Handshake,
            head: Vec::new(),
            out,
            walk: Walk::new(shared.metainfo.geometry, piece),
            asked: VecDeque::new(),
            depth: shared.depth as usize,
            choked: true,
            bytes: 0,
            sample: sampled.then(|| Sample::new(shared.metainfo.geometry, piece)),
        };
        // A failure shows again at the first read.
        drop(connection.flush());
        connection
    }

    /// Block bytes received.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what is there, within a budget, and asks for more. The clock is read once: what one turn
    /// reads was there when it began, give or take its own length.
    pub fn pump(&mut self, shared: &mut Shared) -> Result<(), ConnectionError> {
        shared.now = Instant::now();
        for _ in 0..CALLS_PER_TURN {
            let more = match self.stage {
                Stage::Payload { left, keep_at } => self.receive_block(shared, left, keep_at)?,
                Stage::Handshake | Stage::Messages => self.receive_head(shared)?,
            };
            if !more {
                break;
            }
        }
        self.ask(shared.now);
        self.flush()
    }

    /// Block bytes: kept for a sample, else thrown away by the kernel without copying (tcp(7),
    /// `MSG_TRUNC`). False when nothing is left to read.
    fn receive_block(
        &mut self,
        shared: &mut Shared,
        left: u32,
        keep_at: Option<u32>,
    ) -> Result<bool, ConnectionError> {
        let kept = keep_at
            .and_then(|at| self.sample.as_mut()?.bytes.get_mut(at as usize..at as usize + left as usize));
        let (into, flags) = match kept {
            Some(place) => (place, RecvFlags::empty()),
            None => (&mut shared.nowhere[..left as usize], RecvFlags::TRUNC),
        };
        let Some(count) = receive(&self.socket, into, flags)? else { return Ok(false) };
        let left = left - count;
        self.bytes += u64::from(count);
        shared.bytes += u64::from(count);
        if let Some(at) = keep_at.filter(|_| left == 0) {
            self.sample_received(shared, (at + count - 1) / BLOCK_BYTES);
        }
        self.stage = if left == 0 {
            Stage::Messages
        } else {
            Stage::Payload { left, keep_at: keep_at.map(|at| at + count) }
        };
        Ok(left == 0)
    }

    fn sample_received(&mut self, shared: &mut Shared, block: u32) {
        let Some(sample) = &mut self.sample else { return };
        sample.got.set(block);
        if !sample.got.is_full() {
            return;
        }
        let good = is_right(&shared.metainfo, sample.piece, &sample.bytes);
        shared.samples_good += u32::from(good);
        shared.samples_bad += u32::from(!good);
        sample.advance(shared.metainfo.geometry);
    }

    /// Whatever stands before and between blocks. Never reads into the block that follows.
    fn receive_head(&mut self, shared: &mut Shared) -> Result<bool, ConnectionError> {
        let wanted = self.head_bytes_wanted().saturating_sub(self.head.len());
        let had = self.head.len();
        self.head.resize(had + wanted, 0);
        let count = receive(&self.socket, &mut self.head[had..], RecvFlags::empty());
        self.head.truncate(had + count.as_ref().map_or(0, |count| count.unwrap_or(0) as usize));
        if count?.is_none() {
            return Ok(false);
        }
        self.parse_head(shared)?;
        Ok(true)
    }

    /// At least enough for the next decision, at most what cannot reach into a block.
    fn head_bytes_wanted(&self) -> usize {
        if matches!(self.stage, Stage::Handshake) {
            return HANDSHAKE_BYTES;
        }
        let shortest = PIECE_HEADER_BYTES as usize;
        match (self.head.first_chunk::<4>(), self.head.get(4)) {
            // `next_frame` has already refused lengths over the limit.
            (Some(prefix), Some(&id)) if id != PIECE => (4 + u32::from_be_bytes(*prefix) as usize)
                .min(4 + self.message_bytes_max())
                .max(self.head.len() + 1),
            _ => shortest,
        }
    }

    fn message_bytes_max(&self) -> usize {
        (MESSAGE_BYTES_MAX as usize).max(1 + self.bitfield_bytes() as usize)
    }

    const fn bitfield_bytes(&self) -> u32 {
        self.walk.geometry().piece_count().div_ceil(8)
    }

    fn parse_head(&mut self, shared: &mut Shared) -> Result<(), ConnectionError> {
        if matches!(self.stage, Stage::Handshake) {
            let Some(handshake) = Handshake::parse(&self.head)? else { return Ok(()) };
            if handshake.info_hash != shared.metainfo.info_hash {
                return Err(ConnectionError::WrongTorrent);
            }
            self.head.clear();
            self.stage = Stage::Messages;
            self.introduce();
            return Ok(());
        }
        let bitfield_bytes = self.bitfield_bytes();
        let head = std::mem::take(&mut self.head);
        let mut at = 0;
        while let Some((frame, used)) = next_frame(&head[at..], bitfield_bytes)? {
            at += used;
            match frame {
                Frame::Piece { piece, begin, length } => {
                    self.block_begins(shared, BlockRef { piece, begin, length });
                }
                Frame::Message(message) => self.hear(message),
            }
        }
        self.head = head;
        self.head.drain(..at);
        Ok(())
    }

    /// The first messages. Only now: aria2 drops whoever sends them along with the handshake.
    fn introduce(&mut self) {
        let mut hello = Vec::new();
        ExtensionHandshake { version: Some("troc bench".to_owned()), ..Default::default() }
            .encode(&mut hello);
        Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &hello }.encode(&mut self.out);
        Message::Interested.encode(&mut self.out);
    }

    fn block_begins(&mut self, shared: &mut Shared, block: BlockRef) {
        let place = self.asked.iter().position(|(asked, _)| *asked == block);
        match place.and_then(|place| self.asked.remove(place)) {
            Some((_, since)) => shared.latency.record(shared.now.duration_since(since).as_nanos() as u64),
            None => shared.unasked += 1,
        }
        let sampled = self.sample.as_ref().is_some_and(|sample| sample.piece == block.piece);
        let keep_at = (place.is_some() && sampled).then_some(block.begin);
        self.stage = Stage::Payload { left: block.length, keep_at };
    }

    fn hear(&mut self, message: Message<'_>) {
        match message {
            Message::Unchoke => self.choked = false,
            Message::Choke => {
                // Without the fast extension a choke takes back every request (BEP 3).
                self.choked = true;
                self.asked.clear();
            }
            Message::Reject(block) => self.asked.retain(|(asked, _)| *asked != block),
            Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => {
                let reqq = ExtensionHandshake::parse(payload).ok().and_then(|hello| hello.reqq);
                self.depth = self.depth.min(reqq.map_or(usize::MAX, |reqq| reqq.max(1) as usize));
            }
            _ => {}
        }
    }

    /// Tops up the requests, half the depth at a time: one small send instead of one per block.
    fn ask(&mut self, now: Instant) {
        if self.choked || self.asked.len() > self.depth / 2 {
            return;
        }
        while self.asked.len() < self.depth {
            let block = self.walk.next_block();
            Message::Request(block).encode(&mut self.out);
            self.asked.push_back((block, now));
        }
    }

    /// Sends what the socket takes. The rest goes when the next block comes: requests are so small
    /// beside blocks that a full send buffer means that many are on their way.
    fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.out.is_empty() {
            match send(&self.socket, &self.out, SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(ConnectionError::Socket(error)),
            }
        }
        Ok(())
    }
}

/// `None` when nothing is there yet.
fn receive(socket: &Socket, into: &mut [u8], flags: RecvFlags) -> Result<Option<u32>, ConnectionError> {
    loop {
        match recv(socket, &mut *into, flags) {
            Ok((_, 0)) => return Err(ConnectionError::Closed),
            Ok((_, count)) => return Ok(Some(count as u32)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(ConnectionError::Socket(error)),
        }
    }
}
