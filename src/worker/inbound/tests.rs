//! Whole sessions against a kernel that delivers the stream in arbitrary fragments: whatever the
//! order, the fragments and what comes in between, the slots end with exactly the right bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::ids::{CoreId, InfoHash, PeerId, TorrentId};
use crate::base::network::Grouping;
use crate::base::rng::Rng;
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::engine::action::Action;
use crate::engine::{Admission, EngineConfig};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::Message;
use crate::shared::budget::Budgets;
use crate::shared::cache::Cache;
use crate::shared::chunks::ChunkState;
use crate::shared::torrent::{SharedTorrent, TorrentMeta};
use crate::storage::layout::{FileSpan, Layout};

const TORRENT: TorrentId = TorrentId(0);
const STEPS_MAX: usize = 50_000;

/// What the peers do beside answering.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    fast: bool,
    /// Answers come in any order.
    shuffled: bool,
    /// Keep-alives and haves come in between.
    chatty: bool,
    /// Blocks come twice, the second time spoiled, and so do blocks that nobody asked for.
    repeats: bool,
    /// Chokes now and then.
    moody: bool,
    connections: u32,
}

/// One peer, its stream, and our receiving half.
struct Side {
    conn: ConnId,
    inbound: Inbound,
    inbox: Vec<u8>,
    segments: Vec<Segment>,
    outbox: Vec<u8>,
    greeted: bool,
    stream: VecDeque<u8>,
    pending: Vec<BlockRef>,
    answered: Vec<BlockRef>,
    choking: bool,
    chatter: u32,
    spoiled: u32,
}

struct World {
    rng: Rng,
    manners: Manners,
    engine: Engine,
    arena: Arena,
    shared: Arc<SharedTorrent>,
    sides: Vec<Side>,
    now: Instant,
}

fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn shared(total_bytes: u64, piece_bytes: u32) -> Arc<SharedTorrent> {
    let geometry = Geometry::new(total_bytes, piece_bytes);
    let files = [5_001, total_bytes - 5_001].map(|length| FileSpan { length, pad: false });
    let plain = TorrentMeta::plain(InfoHash([7; 20]), total_bytes, piece_bytes);
    let meta = TorrentMeta { id: TORRENT, layout: Layout::new(files.into_iter()), ..plain };
    SharedTorrent::new(meta, &Bitfield::new(geometry.piece_count()), 1)
}

impl World {
    fn new(seed: u64, manners: Manners, total_bytes: u64, piece_bytes: u32) -> Self {
        let arena = Arena::new(0).unwrap();
        let config = EngineConfig {
            core: CoreId(0),
            cores: 1,
            peer_id: PeerId([1; 20]),
            listen_port: None,
            dht_port: None,
            sequential: false,
            seed,
            secret: 1,
            grouping: Grouping::default(),
            identity: None,
            upload: Budgets::default(),
            download: Budgets::default(),
        };
        let now = Instant(1_000_000_000);
        let engine = Engine::new(config, Arc::new(Cache::new(arena.slot_count())), now);
        let shared = shared(total_bytes, piece_bytes);
        let sides = Vec::new();
        let mut world = Self { rng: Rng::new(seed), manners, engine, arena, shared, sides, now };
        world.engine.handle_torrent(Arc::clone(&world.shared));
        (0..manners.connections).for_each(|index| world.connect(index));
        world
    }

    fn connect(&mut self, index: u32) {
        let conn = ConnId { index, generation: 0 };
        let address = ([127, 0, 0, 1], 1000 + index as u16).into();
        self.engine.handle_accepted(conn, address, self.now);
        let mut theirs = Handshake::new(InfoHash([7; 20]), PeerId([2; 20]));
        if self.manners.fast {
            theirs = theirs.with_fast();
        }
        assert_eq!(self.engine.handle_handshake(conn, &theirs, self.now), Admission::Here);
        let mut side = Side {
            conn,
            inbound: Inbound::default(),
            inbox: vec![0; INBOX_BYTES],
            segments: Vec::new(),
            outbox: Vec::new(),
            greeted: false,
            stream: VecDeque::new(),
            pending: Vec::new(),
            answered: Vec::new(),
            choking: false,
            chatter: 0,
            spoiled: 0,
        };
        side.inbound.begin_messages(&mut side.inbox, 0);
        let bits = Bitfield::full(self.shared.meta.geometry.piece_count());
        side.say(Message::Bitfield(bits.as_bytes()));
        side.say(Message::Unchoke);
        side.receive(&mut self.engine);
        self.sides.push(side);
    }

    /// Runs until the torrent is complete.
    fn run(mut self) {
        for _ in 0..STEPS_MAX {
            self.perform();
            if self.shared.is_complete() {
                // Others have made room meanwhile.
                let ready = |&chunk: &u32| self.shared.chunks.view(chunk).state == ChunkState::Ready;
                let chunks = 0..self.shared.meta.geometry.chunk_count();
                chunks.filter(ready).for_each(|chunk| self.check_bytes(chunk));
                return;
            }
            self.engine.check_settled();
            let at = self.rng.below(self.sides.len() as u32) as usize;
            self.speak(at);
            self.deliver(at);
            self.engine.check_invariants();
            self.now = self.now + Span::from_ms(5);
            self.engine.handle_tick(self.now);
        }
        panic!("stalled at {} pieces: {:?}", self.shared.have_count(), self.manners);
    }

    fn perform(&mut self) {
        while let Some(action) = self.engine.poll_action(self.now) {
            match action {
                Action::Send(conn) => self.send(conn),
                Action::Interrupt(conn) => {
                    let side = &mut self.sides[conn.index as usize];
                    side.inbound.cancel(conn, &mut self.engine);
                    side.receive(&mut self.engine);
                }
                Action::Hash { chunk, last, .. } => {
                    self.check_bytes(chunk);
                    self.engine.handle_hashed(TORRENT, chunk, last.then_some([0; 20].into()));
                }
                Action::Write { chunk, .. } => self.engine.handle_written(TORRENT, chunk, Ok(())),
                Action::Tell(..) | Action::Report(_) => {}
                other => panic!("{other:?} of {:?}", self.manners),
            }
            self.engine.check_invariants();
        }
    }

    fn check_bytes(&self, chunk: u32) {
        let meta = &self.shared.meta;
        let (start, len) = (meta.geometry.chunk_start(chunk), meta.geometry.chunk_len(chunk));
        let slot = self.shared.chunks.view(chunk).slot;
        let bytes = self.arena.payload(slot, meta.residue(chunk), len);
        let wrong = (start..).zip(bytes).position(|(at, &byte)| byte != byte_at(at));
        assert_eq!(wrong, None, "byte of chunk {chunk} is wrong with {:?}", self.manners);
    }

    fn send(&mut self, conn: ConnId) {
        let side = &mut self.sides[conn.index as usize];
        let mut segments = Vec::new();
        if !self.engine.take_send(conn, &mut side.outbox, &mut segments, self.now) {
            return;
        }
        let bytes = segments.iter().map(Segment::len).sum();
        assert_eq!(bytes as usize, side.outbox.len(), "nobody asked us for payload");
        let mut left = &side.outbox[if side.greeted { 0 } else { HANDSHAKE_BYTES }..];
        side.greeted = true;
        while let Some((frame, used)) = next_frame(left, 1).unwrap_or(None) {
            match frame {
                Frame::Message(Message::Request(block)) if !side.choking => side.pending.push(block),
                Frame::Message(Message::Request(block)) if self.manners.fast => {
                    let mut bytes = Vec::new();
                    Message::Reject(block).encode(&mut bytes);
                    side.stream.extend(bytes);
                }
                Frame::Message(Message::Cancel(block)) => side.pending.retain(|&other| other != block),
                _ => {}
            }
            left = &left[used..];
        }
        self.engine.handle_sent(conn, Ok(bytes), self.now);
    }

    /// The peer adds something to its stream.
    fn speak(&mut self, at: usize) {
        let (rng, manners, side) = (&mut self.rng, self.manners, &mut self.sides[at]);
        let geometry = self.shared.meta.geometry;
        match rng.below(12) {
            0 if manners.chatty && side.chatter < 150 => {
                side.chatter += 1;
                let piece = rng.below(geometry.piece_count());
                side.say(if piece % 2 == 0 { Message::KeepAlive } else { Message::Have(piece) });
            }
            1 if manners.repeats && side.spoiled < 40 && !side.answered.is_empty() => {
                side.spoiled += 1;
                let block = side.answered[rng.below(side.answered.len() as u32) as usize];
                side.give(block, |_| 0xee);
            }
            2 if manners.repeats && side.spoiled < 40 => {
                side.spoiled += 1;
                let piece = rng.below(geometry.piece_count());
                side.give(BlockRef { piece, begin: 1, length: 1 + rng.below(9_000) }, |_| 0xdd);
            }
            3 if manners.moody => side.change_mood(manners.fast),
            _ => {
                for _ in 0..rng.below(6).min(side.pending.len() as u32) {
                    let any = if manners.shuffled { rng.below(side.pending.len() as u32) } else { 0 };
                    let block = side.pending.remove(any as usize);
                    side.answered.push(block);
                    let start = geometry.piece_start(block.piece) + u64::from(block.begin);
                    side.give(block, |at| byte_at(start + at));
                }
            }
        }
    }

    /// The kernel puts some bytes of the stream where the receive wants them.
    fn deliver(&mut self, at: usize) {
        let side = &mut self.sides[at];
        let room: u32 = side.segments.iter().map(Segment::len).sum();
        let most = room.min(side.stream.len() as u32);
        if most == 0 {
            return;
        }
        let cut = match self.rng.below(4) {
            0 => 16,
            1 => 3_000,
            2 => 2 * BLOCK_BYTES,
            _ => u32::MAX,
        };
        let bytes = 1 + self.rng.below(most.min(cut));
        let mut left = bytes;
        for segment in &side.segments {
            let step = segment.len().min(left);
            left -= step;
            let part: Vec<u8> = side.stream.drain(..step as usize).collect();
            match *segment {
                Segment::Payload { slot, offset, .. } => self.arena.copy_in(slot, offset, &part),
                Segment::Inbox { offset, .. } => {
                    side.inbox[offset as usize..][..part.len()].copy_from_slice(&part);
                }
                Segment::Header { .. } | Segment::Outbox { .. } => panic!("not for a receive"),
            }
        }
        let (inbound, inbox) = (&mut side.inbound, &mut side.inbox);
        let flow = inbound.received(side.conn, bytes, inbox, &mut self.engine, &self.arena, self.now);
        assert_eq!(flow, Flow::On, "{:?}", self.manners);
        side.receive(&mut self.engine);
    }
}

impl Side {
    fn say(&mut self, message: Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.extend(bytes);
    }

    fn give(&mut self, block: BlockRef, byte: impl Fn(u64) -> u8) {
        self.stream.extend(piece_header(block));
        self.stream.extend((0..u64::from(block.length)).map(byte));
    }

    fn change_mood(&mut self, fast: bool) {
        self.choking = !self.choking;
        if !self.choking {
            self.say(Message::Unchoke);
            return;
        }
        self.say(Message::Choke);
        for block in std::mem::take(&mut self.pending) {
            if fast {
                self.say(Message::Reject(block));
            }
        }
    }

    fn receive(&mut self, engine: &mut Engine) {
        if self.inbound.plan(self.conn, engine, &mut self.inbox, &mut self.segments) == Target::Any {
            self.inbox = vec![0x5a; INBOX_BYTES];
            self.segments.push(Segment::Inbox { offset: 0, len: INBOX_BYTES as u32 });
        }
    }
}

/// Short pieces; pieces of two chunks; an odd last block.
const SIZES: [(u64, u32); 3] = [(400_003, 48 << 10), (900_001, 272 << 10), (30_000, 16 << 10)];

fn sessions(manners: Manners, seeds: u64) {
    for seed in 0..seeds {
        let (total_bytes, piece_bytes) = SIZES[seed as usize % SIZES.len()];
        World::new(seed, manners, total_bytes, piece_bytes).run();
    }
}

#[test]
fn blocks_in_order_in_any_fragments() {
    sessions(Manners { connections: 1, ..Manners::default() }, 60);
}

#[test]
fn blocks_in_any_order_with_messages_between() {
    let manners = Manners { connections: 1, shuffled: true, chatty: true, ..Manners::default() };
    sessions(manners, 60);
    sessions(Manners { fast: true, ..manners }, 60);
}

#[test]
fn blocks_twice_and_blocks_that_nobody_asked_for_never_touch_what_is_there() {
    let manners = Manners { connections: 1, chatty: true, repeats: true, ..Manners::default() };
    sessions(manners, 60);
    sessions(Manners { shuffled: true, ..manners }, 60);
}

#[test]
fn chokes_and_rejects_in_the_middle_of_blocks() {
    let manners = Manners { connections: 1, chatty: true, moody: true, ..Manners::default() };
    sessions(manners, 60);
    sessions(Manners { fast: true, shuffled: true, ..manners }, 60);
}

#[test]
fn connections_that_race_in_the_endgame() {
    let manners = Manners { connections: 3, shuffled: true, chatty: true, ..Manners::default() };
    sessions(manners, 60);
    sessions(Manners { fast: true, moody: true, ..manners }, 60);
}

#[test]
fn a_message_shorter_than_a_block_header_is_handled_when_it_comes() {
    let manners = Manners { connections: 1, ..Manners::default() };
    let mut world = World::new(1, manners, 400_003, 48 << 10);
    let conn = world.sides[0].conn;
    while world.engine.peer(conn).is_none_or(|peer| peer.asked.is_empty()) {
        world.perform();
        world.deliver(0);
    }
    world.perform();
    world.sides[0].say(Message::Choke);
    while !world.sides[0].stream.is_empty() {
        world.deliver(0);
    }
    assert!(world.engine.peer(conn).is_some_and(|peer| !peer.flags.unchokes_us));
}
