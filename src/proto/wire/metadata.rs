//! Metadata exchange (BEP 9): the info dictionary of a torrent, in pieces of 16 KiB, by extended messages.
//!
//! A message is a bencoded dictionary; behind that of `data` come the bytes themselves, so that the end of
//! the dictionary is where they begin.

use super::WireError;
use super::message::{Frame, Message, next_frame};
use crate::base::limits::{MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX, PIECES_MAX};
use crate::proto::bencode::{self, Item, Value};

/// The id under which we want messages of `ut_metadata`: the number of its BEP.
pub const UT_METADATA: u8 = 9;

/// Length of each piece of the metadata but the last.
pub const METADATA_PIECE_BYTES: u32 = 16 << 10;

/// Longest bit field that a torrent can have.
const BITFIELD_BYTES_MAX: u32 = PIECES_MAX.div_ceil(8);

/// The id of a `bitfield` message (BEP 3).
const BITFIELD: u8 = 5;

const REQUEST: i64 = 0;
const DATA: i64 = 1;
const REJECT: i64 = 2;

/// A message of `ut_metadata`. Piece numbers are as the peer wrote them: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMessage<'a> {
    /// A piece is wanted.
    Request(u32),
    /// A piece.
    Data {
        /// Which.
        piece: u32,
        /// Length of the whole metadata.
        total_bytes: u32,
        /// Its bytes: at most `METADATA_PIECE_BYTES`.
        bytes: &'a [u8],
    },
    /// A piece that the sender will not give.
    Reject(u32),
}

impl<'a> MetadataMessage<'a> {
    /// Reads the payload of an extended message; `None` if it is of a type that we do not know, which is to
    /// be ignored.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, WireError> {
        let (dict, bytes) = bencode::parse_prefix(payload, MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX)?;
        let bad = WireError::Metadata { length: payload.len() };
        let number = |key: &[u8]| dict.get(key).and_then(Value::as_int);
        let word = |key: &[u8]| number(key).and_then(|int| u32::try_from(int).ok()).ok_or(bad);
        Ok(match number(b"msg_type").ok_or(bad)? {
            REQUEST => Some(Self::Request(word(b"piece")?)),
            REJECT => Some(Self::Reject(word(b"piece")?)),
            DATA if bytes.len() > METADATA_PIECE_BYTES as usize => return Err(bad),
            DATA => Some(Self::Data { piece: word(b"piece")?, total_bytes: word(b"total_size")?, bytes }),
            _ => None,
        })
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, piece) = match *self {
            Self::Request(piece) => (REQUEST, piece),
            Self::Data { piece, .. } => (DATA, piece),
            Self::Reject(piece) => (REJECT, piece),
        };
        let mut entries = vec![("msg_type", Item::Int(kind)), ("piece", Item::Int(piece.into()))];
        if let Self::Data { total_bytes, .. } = self {
            entries.push(("total_size", Item::Int((*total_bytes).into())));
        }
        Item::dict(entries).encode(out);
        if let Self::Data { bytes, .. } = self {
            out.extend_from_slice(bytes);
        }
    }
}

/// Where piece `piece` lies in metadata of `total_bytes`; `None` if there is no such piece.
pub fn piece_range(piece: u32, total_bytes: u32) -> Option<std::ops::Range<usize>> {
    let start = piece.checked_mul(METADATA_PIECE_BYTES).filter(|&start| start < total_bytes)?;
    let end = start.saturating_add(METADATA_PIECE_BYTES).min(total_bytes);
    Some(start as usize..end as usize)
}

/// Reads the front of `buf` while nothing is known of the torrent: any bit field that some torrent could
/// have is taken for one, and blocks are an error, since nobody asked for any. Otherwise as [`next_frame`].
pub fn next_message(buf: &[u8]) -> Result<Option<(Message<'_>, usize)>, WireError> {
    let bitfield_bytes = match *buf {
        [a, b, c, d, BITFIELD, ..] => u32::from_be_bytes([a, b, c, d]).saturating_sub(1),
        _ => 0,
    };
    let taken = next_frame(buf, bitfield_bytes.min(BITFIELD_BYTES_MAX))?;
    taken
        .map(|(frame, bytes)| match frame {
            Frame::Message(message) => Ok((message, bytes)),
            Frame::Piece { length, .. } => Err(WireError::BlockLength { length }),
        })
        .transpose()
}

#[cfg(test)]
mod tests;
