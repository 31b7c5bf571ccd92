//! Bounds of the cache's memory.

use crate::base::time::Span;

/// Smallest cache that is of use: the chunks of a few fast peers. A host without room for it gets it all
/// the same, with a warning: memory is taken only as chunks come.
pub const CACHE_BYTES_MIN: u64 = 64 << 20;
/// Pieces of the longest kind that the cache holds at least: one half may be promised to begun ones.
pub const CACHED_PIECES_MIN: u64 = 4;
/// Without `--cache` it takes at most one part in so many of the memory that is available.
pub const CACHE_DEFAULT_PART: u64 = 4;
/// One part in so many of the available memory stays out of any cache: it is for socket buffers, tables
/// and other programs.
pub const CACHE_SPARED_PART: u64 = 8;
/// When less than one part in so many of the memory, or of a control group's limit, is left, the cache
/// gives some back until twice that is left.
pub const MEMORY_LOW_PART: u64 = 32;
/// What counts as little at least: what programs take at once, in a second or two.
pub const MEMORY_LOW_BYTES_MIN: u64 = 32 << 20;
/// And at most: large machines have room for everybody long before.
pub const MEMORY_LOW_BYTES_MAX: u64 = 1 << 30;
/// When tasks have waited for memory for so much of the last ten seconds, in thousandths, the cache gives
/// memory back as soon as less than twice that is left.
pub const MEMORY_STALLED_PERMILLE: u32 = 100;
/// Between two looks at how much memory is left.
pub const MEMORY_LOOK_INTERVAL: Span = Span::from_secs(1);
/// Memory was plentiful for so long when the cache begins to grow again.
pub const CACHE_GROWS_AFTER: Span = Span::from_secs(30);
/// Between two steps in which it grows.
pub const CACHE_GROWS_EVERY: Span = Span::from_secs(5);
/// It grows by one part in so many of its full size, or by one region.
pub const CACHE_GROWS_PART: u32 = 64;
/// Between two looks at a region of the cache that is leaving.
pub const CACHE_LEAVING_INTERVAL: Span = Span::from_ms(100);
/// Taken for available where the kernel does not say how much there is.
pub const MEMORY_BYTES_ASSUMED: u64 = 1 << 30;
