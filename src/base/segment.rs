//! Names of places in memory: what a receive fills and a send drains.
//!
//! The engine composes them, the kernel module resolves them; neither handles a pointer on the way.

use super::ids::SlotId;
use super::units::PIECE_HEADER_BYTES;

/// Most segments of one receive or send; a send of 32 blocks with headers and control frames fits.
pub const SEGMENTS_MAX: usize = 68;

/// One contiguous piece of memory that a receive fills or a send drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Payload bytes of an arena slot, counted from the start of its payload area.
    Payload {
        /// Which slot.
        slot: SlotId,
        /// Offset in the payload area, in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
    /// The ready-made 13-byte `piece` header of one block of a slot; for sends only.
    Header {
        /// Which slot.
        slot: SlotId,
        /// Which 16 KiB block of its chunk.
        block: u32,
        /// How many of the 13 bytes were sent already.
        skip: u32,
    },
    /// Bytes of the connection's inbox; for receives only.
    Inbox {
        /// Offset in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
    /// Bytes of the connection's outbox; for sends only.
    Outbox {
        /// Offset in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
}

impl Segment {
    /// How many bytes the segment covers.
    pub const fn len(&self) -> u32 {
        match *self {
            Self::Payload { len, .. } | Self::Inbox { len, .. } | Self::Outbox { len, .. } => len,
            Self::Header { skip, .. } => PIECE_HEADER_BYTES - skip,
        }
    }

    /// The slot that it names, if any.
    pub const fn slot(&self) -> Option<SlotId> {
        match *self {
            Self::Payload { slot, .. } | Self::Header { slot, .. } => Some(slot),
            Self::Inbox { .. } | Self::Outbox { .. } => None,
        }
    }

    /// Whether it covers no byte.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it names payload.
    pub const fn is_payload(&self) -> bool {
        matches!(self, Self::Payload { .. })
    }

    /// The segment without its first `n` bytes. Panics if it is shorter than that.
    pub fn skip(self, n: u32) -> Self {
        assert!(n <= self.len());
        match self {
            Self::Payload { slot, offset, len } => Self::Payload { slot, offset: offset + n, len: len - n },
            Self::Header { slot, block, skip } => Self::Header { slot, block, skip: skip + n },
            Self::Inbox { offset, len } => Self::Inbox { offset: offset + n, len: len - n },
            Self::Outbox { offset, len } => Self::Outbox { offset: offset + n, len: len - n },
        }
    }
}
