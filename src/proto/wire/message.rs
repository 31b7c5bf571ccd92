//! Length-prefixed messages (BEP 3, 5, 6, 10, 52), read without copying and without allocating.
//!
//! The payload of `piece` never passes through here: [`next_frame`] stops after its header, and
//! whoever owns the socket moves the block to its slot.

use super::WireError;
use super::hashes::{HASH_BYTES, HASH_REQUEST_BYTES, HashRequest};
use crate::base::geometry::BlockRef;
use crate::base::limits::{
    HASHES_PER_REQUEST_MAX, MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, UNKNOWN_MESSAGE_BYTES_MAX,
};
use crate::base::units::PIECE_HEADER_BYTES;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;
const HASH_REQUEST: u8 = 21;
const HASHES: u8 = 22;
const HASH_REJECT: u8 = 23;

/// Hashes in one message: what was asked for, and a proof from the lowest layer to the highest.
const HASHES_MAX: u32 = HASHES_PER_REQUEST_MAX + u32::BITS;

/// Id, piece index and offset of a `piece` message: what its length prefix counts beside the block.
const PIECE_FIXED_BYTES: u32 = PIECE_HEADER_BYTES - 4;

/// Any message but `piece`. Indices and blocks are as the peer wrote them: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// No message at all, to keep the connection open.
    KeepAlive,
    /// Requests will not be served for now.
    Choke,
    /// Requests will be served.
    Unchoke,
    /// The sender wants blocks.
    Interested,
    /// The sender wants no block any more.
    NotInterested,
    /// The sender has this piece now.
    Have(u32),
    /// All pieces that the sender has; the first message if it comes at all.
    Bitfield(&'a [u8]),
    /// A block is wanted.
    Request(BlockRef),
    /// A requested block is no longer wanted.
    Cancel(BlockRef),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// A piece that is cheap to serve now (BEP 6).
    Suggest(u32),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// A request that will not be served (BEP 6).
    Reject(BlockRef),
    /// A piece that may be requested while choked (BEP 6).
    AllowedFast(u32),
    /// A message of the extension protocol (BEP 10); id 0 is its handshake.
    Extended {
        /// Which extension, by the numbers that the receiver announced.
        id: u8,
        /// What the extension defines.
        payload: &'a [u8],
    },
    /// Nodes of a file's merkle tree are wanted (BEP 52).
    HashRequest(HashRequest),
    /// Nodes of a file's merkle tree, and what proves them.
    Hashes {
        /// What was asked for.
        request: HashRequest,
        /// The nodes in order, and their uncles upwards; unchecked.
        hashes: &'a [[u8; HASH_BYTES]],
    },
    /// A hash request that will not be answered.
    HashReject(HashRequest),
    /// An id that we do not know, with at most 1 KiB of payload that is skipped.
    Unknown {
        /// The message id.
        id: u8,
    },
}

/// The next thing on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// The header of a `piece` message; `length` bytes of block follow on the wire.
    Piece {
        /// Piece index, unchecked.
        piece: u32,
        /// Offset in the piece, unchecked.
        begin: u32,
        /// Bytes of block that follow: 1 to `REQUEST_BYTES_MAX`.
        length: u32,
    },
}

/// Reads the front of `buf`: the frame and how many bytes it took, or `None` if more must arrive.
///
/// `bitfield_bytes` is the size of the torrent's bit field; one of any other size is an error.
/// An error comes as soon as the length prefix and the id show it, before the body arrives.
pub fn next_frame(buf: &[u8], bitfield_bytes: u32) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some((prefix, rest)) = buf.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix);
    if length == 0 {
        return Ok(Some((Frame::Message(Message::KeepAlive), 4)));
    }
    if length > length_max(bitfield_bytes) {
        return Err(WireError::TooLong { length });
    }
    let Some((&id, rest)) = rest.split_first() else { return Ok(None) };
    check_length(id, length, bitfield_bytes)?;
    if id == PIECE {
        return Ok(piece_fields(rest, length - PIECE_FIXED_BYTES));
    }
    let Some(body) = rest.get(..length as usize - 1) else { return Ok(None) };
    let message = decode(id, body).ok_or(WireError::WrongLength { id, length })?;
    Ok(Some((Frame::Message(message), 4 + length as usize)))
}

/// The 13 bytes that precede a block on the wire.
pub fn piece_header(block: BlockRef) -> [u8; PIECE_HEADER_BYTES as usize] {
    let mut out = [0; PIECE_HEADER_BYTES as usize];
    // Blocks are at most REQUEST_BYTES_MAX long: the sum cannot overflow.
    out[..4].copy_from_slice(&(PIECE_FIXED_BYTES + block.length).to_be_bytes());
    out[4] = PIECE;
    out[5..9].copy_from_slice(&block.piece.to_be_bytes());
    out[9..].copy_from_slice(&block.begin.to_be_bytes());
    out
}

impl Message<'_> {
    /// Appends the message to `out`, its length prefix included. `Unknown` has an empty payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::KeepAlive => out.extend([0; 4]),
            Self::Choke => frame(out, CHOKE, &[]),
            Self::Unchoke => frame(out, UNCHOKE, &[]),
            Self::Interested => frame(out, INTERESTED, &[]),
            Self::NotInterested => frame(out, NOT_INTERESTED, &[]),
            Self::Have(piece) => frame(out, HAVE, &[&piece.to_be_bytes()]),
            Self::Bitfield(bits) => frame(out, BITFIELD, &[bits]),
            Self::Request(block) => frame_block(out, REQUEST, block),
            Self::Cancel(block) => frame_block(out, CANCEL, block),
            Self::Port(port) => frame(out, PORT, &[&port.to_be_bytes()]),
            Self::Suggest(piece) => frame(out, SUGGEST, &[&piece.to_be_bytes()]),
            Self::HaveAll => frame(out, HAVE_ALL, &[]),
            Self::HaveNone => frame(out, HAVE_NONE, &[]),
            Self::Reject(block) => frame_block(out, REJECT, block),
            Self::AllowedFast(piece) => frame(out, ALLOWED_FAST, &[&piece.to_be_bytes()]),
            Self::Extended { id, payload } => frame(out, EXTENDED, &[&[id], payload]),
            Self::HashRequest(request) => frame(out, HASH_REQUEST, &[&request.encode()]),
            Self::Hashes { request, hashes } => {
                frame(out, HASHES, &[&request.encode(), hashes.as_flattened()]);
            }
            Self::HashReject(request) => frame(out, HASH_REJECT, &[&request.encode()]),
            Self::Unknown { id } => frame(out, id, &[]),
        }
    }
}

/// The longest length prefix that any id may have.
fn length_max(bitfield_bytes: u32) -> u32 {
    MESSAGE_BYTES_MAX.max(PIECE_FIXED_BYTES + REQUEST_BYTES_MAX).max(bitfield_bytes.saturating_add(1))
}

/// Whether a message with `id` may have a length prefix of `length`.
fn check_length(id: u8, length: u32, bitfield_bytes: u32) -> Result<(), WireError> {
    let fits = match id {
        CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED | HAVE_ALL | HAVE_NONE => length == 1,
        HAVE | SUGGEST | ALLOWED_FAST => length == 5,
        REQUEST | CANCEL | REJECT => length == 13,
        PORT => length == 3,
        BITFIELD => length - 1 == bitfield_bytes,
        EXTENDED => (2..=MESSAGE_BYTES_MAX).contains(&length),
        HASH_REQUEST | HASH_REJECT => length == HASH_REQUEST_BYTES as u32 + 1,
        HASHES => {
            let hashes = length.wrapping_sub(HASH_REQUEST_BYTES as u32 + 1);
            hashes.is_multiple_of(HASH_BYTES as u32) && hashes / HASH_BYTES as u32 <= HASHES_MAX
        }
        PIECE => {
            let block = length.saturating_sub(PIECE_FIXED_BYTES);
            if length >= PIECE_FIXED_BYTES && !(1..=REQUEST_BYTES_MAX).contains(&block) {
                return Err(WireError::BlockLength { length: block });
            }
            length > PIECE_FIXED_BYTES
        }
        _ => length <= 1 + UNKNOWN_MESSAGE_BYTES_MAX,
    };
    if fits { Ok(()) } else { Err(WireError::WrongLength { id, length }) }
}

/// What `body` means; `None` if its length is wrong, which [`check_length`] has ruled out.
fn decode(id: u8, body: &[u8]) -> Option<Message<'_>> {
    Some(match id {
        CHOKE => Message::Choke,
        UNCHOKE => Message::Unchoke,
        INTERESTED => Message::Interested,
        NOT_INTERESTED => Message::NotInterested,
        HAVE => Message::Have(word(body)?),
        BITFIELD => Message::Bitfield(body),
        REQUEST => Message::Request(block(body)?),
        CANCEL => Message::Cancel(block(body)?),
        PORT => Message::Port(u16::from_be_bytes(body.try_into().ok()?)),
        SUGGEST => Message::Suggest(word(body)?),
        HAVE_ALL => Message::HaveAll,
        HAVE_NONE => Message::HaveNone,
        REJECT => Message::Reject(block(body)?),
        ALLOWED_FAST => Message::AllowedFast(word(body)?),
        EXTENDED => {
            let (&id, payload) = body.split_first()?;
            Message::Extended { id, payload }
        }
        HASH_REQUEST => Message::HashRequest(hash_request(body)?),
        HASHES => {
            let (request, hashes) = HashRequest::parse(body)?;
            let (hashes, []) = hashes.as_chunks() else { return None };
            Message::Hashes { request, hashes }
        }
        HASH_REJECT => Message::HashReject(hash_request(body)?),
        id => Message::Unknown { id },
    })
}

fn piece_fields(rest: &[u8], length: u32) -> Option<(Frame<'static>, usize)> {
    let (piece, rest) = rest.split_first_chunk::<4>()?;
    let (begin, _) = rest.split_first_chunk::<4>()?;
    let frame = Frame::Piece { piece: u32::from_be_bytes(*piece), begin: u32::from_be_bytes(*begin), length };
    Some((frame, PIECE_HEADER_BYTES as usize))
}

fn hash_request(body: &[u8]) -> Option<HashRequest> {
    HashRequest::parse(body).filter(|(_, rest)| rest.is_empty()).map(|(request, _)| request)
}

fn word(body: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(body.try_into().ok()?))
}

fn block(body: &[u8]) -> Option<BlockRef> {
    let (words, []) = body.as_chunks::<4>() else { return None };
    let &[piece, begin, length] = words else { return None };
    Some(BlockRef {
        piece: u32::from_be_bytes(piece),
        begin: u32::from_be_bytes(begin),
        length: u32::from_be_bytes(length),
    })
}

/// Appends one message whose payload comes in parts. Callers keep it far below 4 GiB.
fn frame(out: &mut Vec<u8>, id: u8, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    out.extend((payload as u32 + 1).to_be_bytes());
    out.push(id);
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn frame_block(out: &mut Vec<u8>, id: u8, block: BlockRef) {
    let words = [block.piece, block.begin, block.length].map(u32::to_be_bytes);
    frame(out, id, &[words.as_flattened()]);
}

#[cfg(test)]
mod tests;
