//! Bounds on what a seed gives while some pieces are rare (`engine/seeding.rs`).

use crate::base::time::Span;

/// A seed gives by evidence of passing on while fewer others than this hold some piece.
pub const INJECTION_COPIES: u32 = 2;
/// How much more a group that passes on weighs than one that does not, while a seed injects.
pub const SPREAD_WEIGHT_MAX: u64 = 16;
/// Blocks that others are still to get from a group which halve its weight, or those of two pieces if they
/// are more: a fast host of a swarm holds two or three pieces back, one a tenth as fast eight.
pub const AWAITED_BLOCKS_FEW: u32 = 64;
/// The most that are counted: a group weighs least long before. Half of them are forgotten each
/// `LEDGER_INTERVAL`.
pub const AWAITED_BLOCKS_MAX: u16 = 1024;
/// How long a seed waits at least to see a piece elsewhere of which it gave a block to somebody who passes
/// on, and how long, after its last block, a client is held back that wants only what others have or are
/// being given. Its requests may be stale by then: only once they are served it asks for others.
pub const GIFT_FRESH_TIME: Span = Span::from_secs(3);
/// On a slow link as long as it takes to send so many pieces: a piece has to reach whom it is given to, and
/// somebody else from there, who is served in turn.
pub const GIFT_FRESH_PIECES: u32 = 16;
/// But no longer than this.
pub const GIFT_FRESH_TIME_MAX: Span = Span::from_secs(60);
/// What a group was sent before it is judged by what became of it.
pub const EVIDENCE_BYTES_MIN: u64 = 1 << 20;
/// Who keeps all passes on less than one part in so many of what it was sent.
pub const KEEPERS_PART: u64 = 64;
/// Requests of a connection that are looked at for one to be served first.
pub const SPREAD_LOOKS_MAX: usize = 64;
