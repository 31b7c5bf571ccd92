//! Bounds of hashes that peers ask us for, and that we ask them for (BEP 52; threats P21, P22 and P32).

use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;

/// Hashes of one layer that a hash request may ask for (BEP 52 advises 512): the leaves of a piece of 16 MiB.
pub const HASHES_PER_REQUEST_MAX: u32 = 1024;
/// Hash requests that wait for a piece of one torrent on one core to be read and hashed; one of each peer.
pub const LEAF_ASKS_MAX: usize = 16;
/// The same over all torrents of one core: so many pieces at most have their chunks pinned to be hashed.
pub const LEAF_ASKS_OF_CORE_MAX: usize = 32;
/// Longest piece whose leaves are hashed for a peer that asks for them: those of a longer one do not fit into
/// one answer, and it would be hashed once for each.
pub const LEAF_PIECE_BYTES_MAX: u32 = HASHES_PER_REQUEST_MAX * BLOCK_BYTES;
/// Bytes of a piece that are hashed for a peer for each byte of what it may ask for (`ASK_BYTES_PER_SEC`).
pub const LEAF_BYTES_PER_ASK_BYTE: u64 = 4;
/// Bytes of answers that wait for a peer and beyond which its hash requests are rejected.
pub const HASH_ANSWERS_WAITING_BYTES_MAX: usize = 128 << 10;
/// How long a hash request waits for a piece to be read before it is rejected, and ours for an answer.
pub const HASH_PATIENCE: Span = Span::from_secs(5);
/// Peers that are asked in turn for the leaves of a piece that failed, or is begun.
pub const INQUEST_WITNESSES_MAX: usize = 3;
/// Failed pieces of a torrent on one core whose leaves are asked for.
pub const INQUESTS_MAX: usize = 8;
/// Pieces of a torrent on one core whose leaves are asked for while they are collected, or known: 32 KiB for
/// one of 16 MiB. Further ones are verified when they are whole.
pub const LEAVES_AHEAD_MAX: usize = 64;
/// Pieces, by their length, that a peer must have given before it is believed until a piece is whole.
pub const BELIEVED_AFTER_PIECES: u64 = 4;
/// How long nobody is believed after something wrong came.
pub const DOUBT_TIME: Span = Span::from_secs(600);
