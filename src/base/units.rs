//! The sizes that everything else is counted in.

/// A block: what one `request` asks for (BEP 3 clients all use 16 KiB).
pub const BLOCK_BYTES: u32 = 16 << 10;

/// A chunk: what one claim, one cache slot and one disk read cover.
pub const CHUNK_BYTES: u32 = 256 << 10;

/// Blocks in a full chunk.
pub const BLOCKS_PER_CHUNK: u32 = CHUNK_BYTES / BLOCK_BYTES;

/// The alignment that direct I/O is planned for, whatever smaller one a device would allow.
pub const PAGE_BYTES: u32 = 4096;

/// Room for a chunk in a cache slot: it may begin anywhere in the first page.
pub const SLOT_PAYLOAD_BYTES: u32 = CHUNK_BYTES + PAGE_BYTES;

/// Length prefix, id, piece index and offset in front of each block on the wire (BEP 3).
pub const PIECE_HEADER_BYTES: u32 = 13;
