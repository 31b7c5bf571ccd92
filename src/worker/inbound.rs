//! The receiving half of a connection: where the stream's bytes go.
//!
//! While blocks are outstanding a receive is *planned*: the kernel puts header, payload, header,
//! payload of the next expected blocks where they belong, headers into the inbox and payload into
//! the slots, with no copy of ours. When the peer answers in another order, or says something else
//! in between, the bytes are in the wrong places: they are gathered in stream order into a spill
//! buffer and parsed from there (`repair`), and the places count as not received. While no block is
//! outstanding the bytes come in a buffer that the connection holds only until it has parsed them.

use crate::base::geometry::BlockRef;
use crate::base::ids::ConnId;
use crate::base::segment::Segment;
use crate::base::time::Instant;
use crate::base::units::PIECE_HEADER_BYTES;
use crate::engine::{Engine, Expected, Landing};
use crate::io::INBOX_BYTES;
use crate::io::arena::Arena;
use crate::proto::wire::message::{Frame, next_frame, piece_header};

/// Blocks that one receive is planned for.
const PLANNED_MAX: usize = 8;

/// What the next byte of the stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A handshake.
    Handshake,
    /// A message, or the header of a block.
    Frames,
    /// The payload of a block, of which `done` bytes are in place.
    Payload { expected: Expected, done: u32 },
    /// Payload that nobody wants.
    Skip { left: u32 },
}

/// Where the next receive puts its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No block is expected and nothing is begun: into any buffer, at the start of the inbox.
    Any,
    /// Into the segments that were composed.
    Planned,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Receive on.
    On,
    /// A whole handshake is in the inbox; its length is in `handshake_bytes`.
    Shaken,
    /// The peer broke the protocol; it is being closed.
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Inbound {
    mode: Mode,
    /// Bytes at the start of the inbox that are not parsed yet.
    filled: u32,
    /// Blocks of the receive in flight.
    planned: Vec<Expected>,
    /// A receive is in flight.
    pub in_flight: bool,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { mode: Mode::Handshake, filled: 0, planned: Vec::new(), in_flight: false }
    }
}

impl Inbound {
    /// Bytes received and not parsed.
    pub fn rest(&self) -> usize {
        self.filled as usize
    }

    /// Handshake done: messages follow, `used` bytes of the inbox are parsed.
    pub fn begin_messages(&mut self, inbox: &mut [u8], used: usize) {
        assert_eq!(self.mode, Mode::Handshake);
        self.mode = Mode::Frames;
        self.consume(inbox, used);
    }

    /// Takes over bytes that another core received.
    pub fn adopt(&mut self, inbox: &mut Vec<u8>, rest: &[u8]) {
        self.mode = Mode::Frames;
        self.hear(inbox, rest);
    }

    /// Takes over the first bytes of the stream.
    pub fn hear(&mut self, inbox: &mut Vec<u8>, rest: &[u8]) {
        if inbox.len() < rest.len() * 2 {
            inbox.resize(rest.len() * 2, 0);
        }
        inbox[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len() as u32;
    }

    /// Composes the next receive in `segments`. Without blocks to come the connection holds no memory
    /// while it waits.
    pub fn plan(
        &mut self,
        conn: ConnId,
        engine: &mut Engine,
        inbox: &mut Vec<u8>,
        segments: &mut Vec<Segment>,
    ) -> Target {
        assert!(!self.in_flight && self.planned.is_empty());
        self.in_flight = true;
        segments.clear();
        if let Mode::Payload { expected, done } = self.mode {
            assert_eq!(self.filled, 0);
            let left = expected.block.length - done;
            if engine.still_lands(conn, expected.chunk, expected.index) {
                let offset = expected.offset + done;
                segments.push(Segment::Payload { slot: expected.slot, offset, len: left });
            } else {
                engine.unland(conn, expected.chunk, expected.index);
                self.mode = Mode::Skip { left };
            }
        }
        self.plan_blocks(conn, engine, &inbox[..self.filled as usize], segments);
        if segments.is_empty() && self.filled == 0 {
            self.planned = Vec::new();
            return Target::Any;
        }
        let headers = PIECE_HEADER_BYTES * self.planned.len() as u32;
        let tail = headers.max(self.filled);
        if inbox.len() as u32 <= tail {
            inbox.resize((inbox.len() * 2).max(INBOX_BYTES), 0);
        }
        segments.push(Segment::Inbox { offset: tail, len: inbox.len() as u32 - tail });
        Target::Planned
    }

    /// Headers and payload of the blocks that should come next, unless something else has begun.
    fn plan_blocks(&mut self, conn: ConnId, engine: &mut Engine, begun: &[u8], segments: &mut Vec<Segment>) {
        let current = match self.mode {
            Mode::Frames => None,
            Mode::Payload { expected, .. } => Some((expected.chunk, expected.index)),
            Mode::Handshake | Mode::Skip { .. } => return,
        };
        if begun.len() >= PIECE_HEADER_BYTES as usize {
            return;
        }
        engine.plan_receive(conn, current, PLANNED_MAX, &mut self.planned);
        let fits = self.planned.first().is_some_and(|first| piece_header(first.block).starts_with(begun));
        if !fits {
            self.unplan(conn, engine);
            return;
        }
        let mut have = begun.len() as u32;
        for (at, expected) in self.planned.iter().enumerate() {
            let offset = at as u32 * PIECE_HEADER_BYTES + have;
            segments.push(Segment::Inbox { offset, len: PIECE_HEADER_BYTES - have });
            let len = expected.block.length;
            segments.push(Segment::Payload { slot: expected.slot, offset: expected.offset, len });
            have = 0;
        }
    }

    fn unplan(&mut self, conn: ConnId, engine: &mut Engine) {
        for expected in self.planned.drain(..) {
            engine.unland(conn, expected.chunk, expected.index);
        }
    }

    /// A receive ended without data, or the connection is closing.
    pub fn cancel(&mut self, conn: ConnId, engine: &mut Engine) {
        self.in_flight = false;
        self.unplan(conn, engine);
    }

    /// `bytes` have arrived where `plan` said.
    pub fn received(
        &mut self,
        conn: ConnId,
        mut bytes: u32,
        inbox: &mut Vec<u8>,
        engine: &mut Engine,
        arena: &Arena,
        now: Instant,
    ) -> Flow {
        self.in_flight = false;
        if let Mode::Payload { expected, done } = self.mode {
            let step = bytes.min(expected.block.length - done);
            bytes -= step;
            self.land(conn, expected, done + step, engine, now);
        }
        let mut done = 0;
        while done < self.planned.len() && bytes > 0 {
            let expected = self.planned[done];
            let at = done * PIECE_HEADER_BYTES as usize;
            let missing = PIECE_HEADER_BYTES - if done == 0 { self.filled } else { 0 };
            if bytes < missing {
                let have = (PIECE_HEADER_BYTES - missing + bytes) as usize;
                inbox.copy_within(at..at + have, 0);
                self.filled = have as u32;
                self.planned.drain(..done);
                self.unplan(conn, engine);
                if piece_header(expected.block).starts_with(&inbox[..have]) {
                    return Flow::On;
                }
                // Something else, perhaps whole: a choke waits for no further byte.
                return self.parse_inbox(conn, inbox, engine, arena, now);
            }
            let header = &inbox[at..at + PIECE_HEADER_BYTES as usize];
            if header != piece_header(expected.block) {
                let spill = self.gather(done, bytes - missing, inbox, arena);
                engine.counters().copied_bytes.add(spill.len() as u64);
                self.planned.drain(..done);
                return self.repair(conn, &spill, inbox, engine, arena, now);
            }
            if done == 0 {
                self.filled = 0;
            }
            bytes -= missing;
            let step = bytes.min(expected.block.length);
            bytes -= step;
            done += 1;
            self.land(conn, expected, step, engine, now);
        }
        let tail = (self.planned.len() as u32 * PIECE_HEADER_BYTES).max(self.filled) as usize;
        self.planned.drain(..done);
        if !self.planned.is_empty() || bytes == 0 {
            self.unplan(conn, engine);
            return Flow::On;
        }
        if self.filled == 0 {
            inbox.copy_within(tail..tail + bytes as usize, 0);
        }
        self.filled += bytes;
        self.parse_inbox(conn, inbox, engine, arena, now)
    }

    /// Bytes of a block are in its place, `done` in all.
    fn land(&mut self, conn: ConnId, expected: Expected, done: u32, engine: &mut Engine, now: Instant) {
        if done == expected.block.length {
            self.mode = Mode::Frames;
            engine.handle_block(conn, expected.chunk, expected.index, now);
        } else {
            self.mode = Mode::Payload { expected, done };
        }
    }

    /// The stream from the header of planned block `from` on, with `more` bytes behind it.
    fn gather(&self, from: usize, mut more: u32, inbox: &[u8], arena: &Arena) -> Vec<u8> {
        let header = PIECE_HEADER_BYTES as usize;
        let mut spill = Vec::with_capacity(header + more as usize);
        spill.extend_from_slice(&inbox[from * header..(from + 1) * header]);
        for (at, expected) in self.planned.iter().enumerate().skip(from) {
            if at > from {
                let step = more.min(PIECE_HEADER_BYTES) as usize;
                spill.extend_from_slice(&inbox[at * header..at * header + step]);
                more -= step as u32;
            }
            let step = more.min(expected.block.length);
            spill.extend_from_slice(arena.payload(expected.slot, expected.offset, step));
            more -= step;
        }
        let tail = self.planned.len() * header;
        spill.extend_from_slice(&inbox[tail..tail + more as usize]);
        spill
    }

    /// The peer did not answer as planned.
    fn repair(
        &mut self,
        conn: ConnId,
        spill: &[u8],
        inbox: &mut Vec<u8>,
        engine: &mut Engine,
        arena: &Arena,
        now: Instant,
    ) -> Flow {
        self.filled = 0;
        self.unplan(conn, engine);
        let Ok(used) = self.parse(conn, spill, engine, arena, now) else { return Flow::Over };
        let rest = &spill[used..];
        if inbox.len() <= rest.len() {
            inbox.resize(rest.len() * 2, 0);
        }
        inbox[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len() as u32;
        Flow::On
    }

    /// Parses what is in the inbox.
    pub fn parse_inbox(
        &mut self,
        conn: ConnId,
        inbox: &mut [u8],
        engine: &mut Engine,
        arena: &Arena,
        now: Instant,
    ) -> Flow {
        if self.mode == Mode::Handshake {
            return Flow::Shaken;
        }
        let filled = self.filled as usize;
        let Ok(used) = self.parse(conn, &inbox[..filled], engine, arena, now) else { return Flow::Over };
        self.consume(inbox, used);
        Flow::On
    }

    fn consume(&mut self, inbox: &mut [u8], used: usize) {
        inbox.copy_within(used..self.filled as usize, 0);
        self.filled -= used as u32;
    }

    /// Goes through `bytes` of the stream; returns how many were used. What is left is the start of
    /// a message.
    fn parse(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        engine: &mut Engine,
        arena: &Arena,
        now: Instant,
    ) -> Result<usize, ()> {
        let mut used = 0;
        loop {
            let left = &bytes[used..];
            match self.mode {
                Mode::Handshake => return Ok(used),
                Mode::Skip { left: skip } => {
                    let step = skip.min(left.len() as u32);
                    used += step as usize;
                    if step < skip {
                        self.mode = Mode::Skip { left: skip - step };
                        return Ok(used);
                    }
                    self.mode = Mode::Frames;
                }
                Mode::Payload { expected, done } => {
                    let step = left.len().min((expected.block.length - done) as usize);
                    if !engine.still_lands(conn, expected.chunk, expected.index) {
                        engine.unland(conn, expected.chunk, expected.index);
                        self.mode = Mode::Skip { left: expected.block.length - done };
                        continue;
                    }
                    arena.copy_in(expected.slot, expected.offset + done, &left[..step]);
                    engine.counters().copied_bytes.add(step as u64);
                    used += step;
                    self.land(conn, expected, done + step as u32, engine, now);
                    if self.mode != Mode::Frames {
                        return Ok(used);
                    }
                }
                Mode::Frames => match self.frame(conn, left, engine, now)? {
                    0 => return Ok(used),
                    step => used += step,
                },
            }
        }
    }

    /// Handles one frame; 0 if it is not whole yet.
    fn frame(&mut self, conn: ConnId, bytes: &[u8], engine: &mut Engine, now: Instant) -> Result<usize, ()> {
        let Some(peer) = engine.peer(conn).filter(|peer| peer.is_open()) else { return Err(()) };
        let bitfield_bytes = peer.bits.as_bytes().len() as u32;
        let Some((frame, used)) =
            next_frame(bytes, bitfield_bytes).map_err(|_| engine.handle_broken(conn))?
        else {
            return Ok(0);
        };
        match frame {
            Frame::Message(message) => engine.handle_message(conn, message, now).map_err(drop)?,
            Frame::Piece { piece, begin, length } => {
                let block = BlockRef { piece, begin, length };
                self.mode = match engine.handle_piece_header(conn, block).map_err(drop)? {
                    Landing::Into(expected) => Mode::Payload { expected, done: 0 },
                    Landing::Discard => Mode::Skip { left: length },
                };
            }
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests;
