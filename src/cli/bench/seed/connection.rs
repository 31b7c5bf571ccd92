//! One fetcher of the synthetic source.

use std::collections::VecDeque;
use std::io::IoSlice;

use rustix::io::{Errno, writev};
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::ids::{InfoHash, PeerId};
use crate::base::limits::{BENCH_DEPTH_MAX, REQUEST_BYTES_MAX};
use crate::base::units::PIECE_HEADER_BYTES;
use crate::cli::bench::payload::Payload;
use crate::proto::metainfo::Metainfo;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame, piece_header};

/// Blocks that leave by one system call.
const BLOCKS_PER_SEND: usize = 32;
const RECEIVE_BYTES: usize = 64 << 10;

/// What is served; the same for all.
#[derive(Debug)]
pub struct Content<'a> {
    geometry: Geometry,
    payload: &'a Payload,
    info_hash: InfoHash,
    hello: Vec<u8>,
}

/// Why a fetcher is dropped: it went away, or broke the protocol. Either way nobody is told.
#[derive(Debug)]
pub struct Gone;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    input: Vec<u8>,
    /// Messages other than blocks; they go first.
    output: Vec<u8>,
    greeted: bool,
    queue: VecDeque<BlockRef>,
    /// Bytes of the first block in the queue, header included, that are sent.
    front_sent: usize,
}

impl<'a> Content<'a> {
    /// A torrent and its payload.
    pub fn new(metainfo: &Metainfo, payload: &'a Payload) -> Self {
        let geometry = metainfo.geometry;
        Self { geometry, payload, info_hash: metainfo.info_hash, hello: hello(metainfo) }
    }
}

/// Handshake, extension handshake with a deep request queue, and a full bit field.
fn hello(metainfo: &Metainfo) -> Vec<u8> {
    let id = PeerId(*b"-tCbnch-source000000");
    let mut out = Handshake::new(metainfo.info_hash, id).with_extension().encode().to_vec();
    let mut payload = Vec::new();
    let version = Some("troc bench".to_owned());
    ExtensionHandshake { reqq: Some(BENCH_DEPTH_MAX), version, upload_only: true, ..Default::default() }
        .encode(&mut payload);
    Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &payload }.encode(&mut out);
    let pieces = metainfo.geometry.piece_count() as usize;
    let mut bits = vec![0xff; pieces.div_ceil(8)];
    if let Some(last) = bits.last_mut() {
        // Spare bits at the end are zero (BEP 3).
        *last <<= pieces.next_multiple_of(8) - pieces;
    }
    Message::Bitfield(&bits).encode(&mut out);
    out
}

impl Connection {
    /// A new fetcher, which speaks first.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            greeted: false,
            queue: VecDeque::new(),
            front_sent: 0,
        }
    }

    /// Reads and writes until the socket has had enough. Readiness is edge-triggered.
    pub fn pump(&mut self, content: &Content<'_>) -> Result<(), Gone> {
        loop {
            let read = self.receive(content)?;
            let blocked = self.send(content)?;
            if !read && (blocked || self.queue.is_empty()) {
                return Ok(());
            }
        }
    }

    /// One read; false when nothing was there. Stops reading while a full queue waits to be sent.
    fn receive(&mut self, content: &Content<'_>) -> Result<bool, Gone> {
        if self.queue.len() > BENCH_DEPTH_MAX as usize {
            return Ok(false);
        }
        let had = self.input.len();
        self.input.resize(had + RECEIVE_BYTES, 0);
        let received = recv(&self.socket, &mut self.input[had..], RecvFlags::empty());
        self.input.truncate(had + received.map_or(0, |(_, count)| count));
        match received {
            Ok((_, 0)) => return Err(Gone),
            Ok(_) => self.parse(content)?,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(_) => return Err(Gone),
        }
        Ok(true)
    }

    fn parse(&mut self, content: &Content<'_>) -> Result<(), Gone> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        if !self.greeted {
            match Handshake::parse(&input) {
                Ok(Some(handshake)) if handshake.info_hash == content.info_hash => at = HANDSHAKE_BYTES,
                Ok(None) => {
                    self.input = input;
                    return Ok(());
                }
                _ => return Err(Gone),
            }
            self.greeted = true;
            self.output.extend(&content.hello);
        }
        let bitfield_bytes = content.geometry.piece_count().div_ceil(8);
        while let Some((frame, used)) = next_frame(&input[at..], bitfield_bytes).map_err(|_| Gone)? {
            at += used;
            self.hear(frame, content)?;
        }
        self.input = input;
        self.input.drain(..at);
        Ok(())
    }

    fn hear(&mut self, frame: Frame<'_>, content: &Content<'_>) -> Result<(), Gone> {
        match frame {
            Frame::Message(Message::Interested) => Message::Unchoke.encode(&mut self.output),
            Frame::Message(Message::Request(block)) => {
                let fits = content.geometry.contains(block) && block.length <= REQUEST_BYTES_MAX;
                // One read holds less than twice the queue that was announced.
                if !fits || self.queue.len() > 4 * BENCH_DEPTH_MAX as usize {
                    return Err(Gone);
                }
                self.queue.push_back(block);
            }
            Frame::Message(Message::Cancel(block)) => {
                let first = usize::from(self.front_sent > 0);
                let place = self.queue.iter().skip(first).position(|queued| *queued == block);
                place.map(|place| self.queue.remove(place + first));
            }
            // Nobody gave us leave to receive a block.
            Frame::Piece { .. } => return Err(Gone),
            Frame::Message(_) => {}
        }
        Ok(())
    }

    /// One write; true when the socket took no more.
    fn send(&mut self, content: &Content<'_>) -> Result<bool, Gone> {
        let blocks: Vec<BlockRef> = self.queue.iter().take(BLOCKS_PER_SEND).copied().collect();
        if blocks.is_empty() && self.output.is_empty() {
            return Ok(false);
        }
        let headers: Vec<_> = blocks.iter().map(|block| piece_header(*block)).collect();
        // What follows a block that was begun must be the rest of it.
        let messages_first = self.front_sent == 0;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(1 + 2 * blocks.len());
        parts.extend(messages_first.then_some(&self.output[..]));
        for (block, header) in blocks.iter().zip(&headers) {
            parts.push(header);
            parts.push(content.payload.block(*block).ok_or(Gone)?);
        }
        let (asked, sent) = write_parts(&self.socket, &parts, self.front_sent)?;
        let messages = if messages_first { self.output.len() } else { 0 };
        self.output.drain(..messages.min(sent));
        self.blocks_sent(sent.saturating_sub(messages));
        Ok(sent < asked)
    }

    fn blocks_sent(&mut self, bytes: usize) {
        self.front_sent += bytes;
        while let Some(front) = self.queue.front() {
            let length = (PIECE_HEADER_BYTES + front.length) as usize;
            if self.front_sent < length {
                break;
            }
            self.front_sent -= length;
            self.queue.pop_front();
        }
    }
}

/// Writes `parts` but for their first `skip` bytes: how many bytes there were, and how many left.
fn write_parts(socket: &Socket, parts: &[&[u8]], mut skip: usize) -> Result<(usize, usize), Gone> {
    let mut slices = Vec::with_capacity(parts.len());
    for part in parts {
        let cut = skip.min(part.len());
        skip -= cut;
        if cut < part.len() {
            slices.push(IoSlice::new(&part[cut..]));
        }
    }
    let asked = slices.iter().map(|slice| slice.len()).sum();
    match writev(socket, &slices) {
        Ok(sent) => Ok((asked, sent)),
        Err(Errno::AGAIN | Errno::INTR) => Ok((asked, 0)),
        Err(_) => Err(Gone),
    }
}
