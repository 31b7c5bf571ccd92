//! One fetcher of the synthetic source: what it sent, and what it gets next.

use std::collections::VecDeque;

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::ids::{InfoHash, PeerId};
use crate::base::limits::{BENCH_DEPTH_MAX, REQUEST_BYTES_MAX};
use crate::io::uring::bare::{Gather, Script};
use crate::proto::metainfo::Metainfo;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame, piece_header};

/// Blocks that leave by one system call: 512 KiB.
const BLOCKS_PER_SEND: usize = 32;

/// What is served; the same for all.
#[derive(Debug)]
pub struct Content {
    geometry: Geometry,
    info_hash: InfoHash,
    hello: Vec<u8>,
    stall_after: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Connection {
    /// The beginning of a message that has not come whole.
    input: Vec<u8>,
    /// Messages other than blocks; they go first.
    output: Vec<u8>,
    greeted: bool,
    queue: VecDeque<BlockRef>,
    served: u64,
}

/// The fetcher broke the protocol and is dropped.
#[derive(Debug)]
struct Broken;

impl Content {
    /// A torrent, each of whose fetchers gets no block after it got `stall_after` bytes.
    pub fn new(metainfo: &Metainfo, stall_after: u64) -> Self {
        let (geometry, info_hash) = (metainfo.geometry, metainfo.info_hash);
        Self { geometry, info_hash, hello: hello(metainfo), stall_after }
    }

    /// Handles all that is whole; how many bytes that was.
    fn parse(&self, conn: &mut Connection, input: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        if !conn.greeted {
            match Handshake::parse(input) {
                Ok(Some(handshake)) if handshake.info_hash == self.info_hash => at = HANDSHAKE_BYTES,
                Ok(None) => return Ok(0),
                _ => return Err(Broken),
            }
            conn.greeted = true;
            conn.output.extend(&self.hello);
        }
        let bitfield_bytes = self.geometry.piece_count().div_ceil(8);
        while let Some((frame, used)) = next_frame(&input[at..], bitfield_bytes).map_err(|_| Broken)? {
            at += used;
            self.hear(conn, frame)?;
        }
        Ok(at)
    }

    fn hear(&self, conn: &mut Connection, frame: Frame<'_>) -> Result<(), Broken> {
        match frame {
            Frame::Message(Message::Request(block)) => {
                let fits = self.geometry.contains(block) && block.length <= REQUEST_BYTES_MAX;
                // Twice what was announced: who is slow to read our greeting has asked by its own rule.
                if !fits || conn.queue.len() >= 2 * BENCH_DEPTH_MAX as usize {
                    return Err(Broken);
                }
                conn.queue.push_back(block);
            }
            Frame::Message(Message::Interested) => Message::Unchoke.encode(&mut conn.output),
            Frame::Message(Message::Cancel(block)) => {
                let place = conn.queue.iter().position(|queued| *queued == block);
                place.map(|place| conn.queue.remove(place));
            }
            // Nobody gave us leave to receive a block.
            Frame::Piece { .. } => return Err(Broken),
            Frame::Message(_) => {}
        }
        Ok(())
    }
}

impl Script for Content {
    type Conn = Connection;

    fn received(&mut self, conn: &mut Connection, bytes: &[u8]) -> bool {
        if conn.input.is_empty() {
            // The rule: whole messages, parsed where they lie.
            let Ok(used) = self.parse(conn, bytes) else { return false };
            conn.input.extend_from_slice(&bytes[used..]);
            return true;
        }
        let mut input = std::mem::take(&mut conn.input);
        input.extend_from_slice(bytes);
        let Ok(used) = self.parse(conn, &input) else { return false };
        input.drain(..used);
        conn.input = input;
        true
    }

    fn next_send(&mut self, conn: &mut Connection, gather: &mut Gather) {
        if !conn.output.is_empty() {
            gather.small(&conn.output);
            conn.output.clear();
        }
        for _ in 0..BLOCKS_PER_SEND {
            if conn.served >= self.stall_after {
                break;
            }
            let Some(block) = conn.queue.pop_front() else { break };
            let start = self.geometry.piece_start(block.piece) + u64::from(block.begin);
            gather.small(&piece_header(block));
            gather.memory(start as usize, block.length as usize);
            conn.served += u64::from(block.length);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: u32 = 3;
    const PIECE_BYTES: u32 = 32 << 10;

    /// A fetcher that has greeted and read the greeting, of a source that stalls.
    fn greeted(stall_after: u64) -> (Content, Connection, Vec<u8>) {
        let mut text = format!(
            "d4:infod6:lengthi{}e4:name1:n12:piece lengthi{PIECE_BYTES}e6:pieces{}:",
            PIECES * PIECE_BYTES,
            20 * PIECES
        )
        .into_bytes();
        text.extend([b'h'; 20 * PIECES as usize]);
        text.extend(b"ee");
        let metainfo = Metainfo::parse(&text).expect("a good torrent");
        let mut content = Content::new(&metainfo, stall_after);
        let mut conn = Connection::default();
        let hello = Handshake::new(metainfo.info_hash, PeerId([1; 20])).encode();
        assert!(content.received(&mut conn, &hello[..30]) && sent(&mut content, &mut conn, &[]).is_empty());
        assert!(content.received(&mut conn, &hello[30..]));
        assert_eq!(sent(&mut content, &mut conn, &[]), content.hello);
        let memory = (0..PIECES * PIECE_BYTES).map(|at| (at / 1000) as u8).collect();
        (content, conn, memory)
    }

    fn sent(content: &mut Content, conn: &mut Connection, memory: &[u8]) -> Vec<u8> {
        let mut gather = Gather::default();
        content.next_send(conn, &mut gather);
        gather.concat(memory)
    }

    fn requests(blocks: &[BlockRef]) -> Vec<u8> {
        let mut out = Vec::new();
        blocks.iter().for_each(|block| Message::Request(*block).encode(&mut out));
        out
    }

    #[test]
    fn requests_cut_anywhere_are_answered_in_order_after_other_messages() {
        let blocks = [(2, 5, 100), (0, 0, 16 << 10), (1, 16 << 10, 16 << 10)]
            .map(|(piece, begin, length)| BlockRef { piece, begin, length });
        let mut input = requests(&blocks);
        Message::Interested.encode(&mut input);
        for cut in 0..input.len() {
            let (mut content, mut conn, memory) = greeted(u64::MAX);
            assert!(content.received(&mut conn, &input[..cut]) && content.received(&mut conn, &input[cut..]));
            let mut expected = Vec::new();
            Message::Unchoke.encode(&mut expected);
            for block in blocks {
                let start = (block.piece * PIECE_BYTES + block.begin) as usize;
                expected.extend(piece_header(block));
                expected.extend(&memory[start..start + block.length as usize]);
            }
            assert!(sent(&mut content, &mut conn, &memory) == expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_stalled_source_serves_its_share_and_then_nothing() {
        let block = BlockRef { piece: 0, begin: 0, length: 16 << 10 };
        let (mut content, mut conn, memory) = greeted(2 * (16 << 10));
        assert!(content.received(&mut conn, &requests(&[block; 3])));
        assert_eq!(sent(&mut content, &mut conn, &memory).len(), 2 * (13 + (16 << 10)));
        assert!(content.received(&mut conn, &requests(&[block])));
        assert!(sent(&mut content, &mut conn, &memory).is_empty());
    }

    #[test]
    fn a_cancelled_request_is_not_answered() {
        let [first, second] = [0, 1].map(|piece| BlockRef { piece, begin: 0, length: 9 });
        let (mut content, mut conn, memory) = greeted(u64::MAX);
        let mut input = requests(&[first, second]);
        Message::Cancel(first).encode(&mut input);
        assert!(content.received(&mut conn, &input));
        assert_eq!(sent(&mut content, &mut conn, &memory)[..13], piece_header(second));
    }

    #[test]
    fn what_does_not_exist_is_too_long_or_too_much_ends_the_connection() {
        let good = BlockRef { piece: 0, begin: 0, length: 1 };
        let most = 2 * BENCH_DEPTH_MAX as usize;
        for (blocks, held) in [
            (vec![BlockRef { piece: PIECES, ..good }], false),
            (vec![BlockRef { length: PIECE_BYTES + 1, ..good }], false),
            (vec![BlockRef { length: 0, ..good }], false),
            (vec![good; most], true),
            (vec![good; most + 1], false),
        ] {
            let (mut content, mut conn, _) = greeted(u64::MAX);
            assert_eq!(content.received(&mut conn, &requests(&blocks)), held, "{}", blocks.len());
        }
        let (mut content, mut conn, _) = greeted(u64::MAX);
        assert!(!content.received(&mut conn, &piece_header(good)));
    }
}
