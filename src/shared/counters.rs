//! What one core counts for the metrics: it alone writes, the control thread reads when it is asked.
//!
//! A word has one writer, so adding is a plain load and a plain store, without a locked instruction;
//! each core's words have cache lines of their own. A reader may see the words of a turn half written:
//! each word for itself only grows, sums over several may be a turn apart.

use super::sync::{AtomicU64, Ordering};

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `more`. Only the owner calls it.
    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// Sets it. Only the owner calls it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number as of now, or a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Classes of service that are told apart, in the order of `engine/scheduler/class.rs`.
pub const SERVICE_CLASSES: usize = 5;

/// Buckets of a histogram at most, the one without a bound included.
pub const BUCKETS_MAX: usize = 24;

/// Counts of values by powers of two: bucket 0 up to and including 2^`lowest`, each next one twice as far,
/// the last without bound. Integers only; what a bound means in seconds is the reader's business.
#[derive(Debug)]
pub struct Histogram {
    lowest: u32,
    buckets: usize,
    counts: [Count; BUCKETS_MAX],
    sum: Count,
}

impl Histogram {
    /// Without any value. Bounds are 2^`lowest` to 2^`highest`.
    pub fn new(lowest: u32, highest: u32) -> Self {
        let buckets = (highest - lowest) as usize + 2;
        assert!(buckets <= BUCKETS_MAX);
        Self { lowest, buckets, counts: std::array::from_fn(|_| Count::default()), sum: Count::default() }
    }

    /// Adds a value. Only the owner calls it.
    pub fn record(&self, value: u64) {
        // The power of two at or above it.
        let power = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (power.saturating_sub(self.lowest) as usize).min(self.buckets - 1);
        self.counts[bucket].add(1);
        self.sum.add(value);
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// Upper bound, inclusive, and count of each bucket; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let last = self.buckets - 1;
        let bound = move |at: usize| (at < last).then(|| 1 << (self.lowest + at as u32));
        self.counts[..self.buckets].iter().enumerate().map(move |(at, count)| (bound(at), count.get()))
    }
}

/// See the module. Bytes that belong to a torrent are in `torrent::CoreStats`.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines: processors fetch them in pairs.
pub struct CoreCounters {
    // Per turn.
    /// Rounds of the worker.
    pub turns: Count,
    /// Work of a turn in nanoseconds, from the end of its wait to its own end.
    pub turn_ns: Histogram,
    /// Completions that one turn took from the kernel.
    pub batch: Histogram,
    /// Calls into the kernel.
    pub ring_enters: Count,
    /// Calls that found the completion queue overflowing.
    pub ring_overflows: Count,
    /// Completions taken.
    pub completions: Count,
    /// Connections closed at once because the table was full.
    pub refused: Count,
    /// Accepts that failed, mostly for want of descriptors.
    pub accept_failures: Count,
    /// Receives that took memory of their own because all shared buffers were full.
    pub receives_starved: Count,
    /// Sends given to the kernel.
    pub sends: Count,
    /// Of these, as zero-copy sends.
    pub zero_copy_sends: Count,
    /// Zero-copy sends that the kernel reported to have copied after all.
    pub zero_copy_copied: Count,
    /// Connections that had messages to send, and parties that waited for blocks, when the turn began to act.
    pub ready: Count,
    /// Chunks that wait for their share of hashing at the end of the turn.
    pub hashes_waiting: Count,
    /// Chunks given out to be written and not reported yet.
    pub chunks_writing: Count,
    /// Bytes hashed with SHA-1.
    pub hashed_bytes: Count,
    /// The debt to whoever is owed most of those that wait at the end of the turn; 0 if nobody owed does.
    pub owed_waiting_bytes: Count,
    // Per chunk or per send.
    /// Bytes of chunks whose write ended well.
    pub written_bytes: Count,
    /// Blocks put into sends.
    pub blocks_sent: Count,
    /// Of these, blocks that had to wait for their chunk to be read.
    pub cache_misses: Count,
    /// Payload put into sends, by the class out of which it was served.
    pub class_sent_bytes: [Count; SERVICE_CLASSES],
    /// Blocks of chunks that this core completed.
    pub blocks_received: Count,
    // Rare.
    /// Received bytes that the worker itself copied because a peer answered otherwise than planned.
    pub copied_bytes: Count,
    /// Connections whose handshake was accepted.
    pub handshakes: Count,
    /// Connections that proved a key.
    pub identities: Count,
    /// Peers banned because of what they gave to this core's pieces.
    pub bans: Count,
    /// Pieces whose hash was wrong.
    pub hash_failures: Count,
    /// From a request to the end of the send that carried its block, in nanoseconds: one request of a
    /// connection at a time.
    pub request_ns: Histogram,
}

impl CoreCounters {
    /// All zero.
    pub fn new() -> Self {
        let zero = Count::default;
        Self {
            turns: zero(),
            // About 1 µs to 1 s.
            turn_ns: Histogram::new(10, 30),
            batch: Histogram::new(0, 8),
            ring_enters: zero(),
            ring_overflows: zero(),
            completions: zero(),
            refused: zero(),
            accept_failures: zero(),
            receives_starved: zero(),
            sends: zero(),
            zero_copy_sends: zero(),
            zero_copy_copied: zero(),
            ready: zero(),
            hashes_waiting: zero(),
            chunks_writing: zero(),
            hashed_bytes: zero(),
            owed_waiting_bytes: zero(),
            written_bytes: zero(),
            blocks_sent: zero(),
            cache_misses: zero(),
            class_sent_bytes: std::array::from_fn(|_| zero()),
            blocks_received: zero(),
            copied_bytes: zero(),
            handshakes: zero(),
            identities: zero(),
            bans: zero(),
            hash_failures: zero(),
            // About 16 µs to 34 s.
            request_ns: Histogram::new(14, 35),
        }
    }
}

impl Default for CoreCounters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(2, 5);
        for value in [0, 1, 4, 5, 8, 9, 32, 33, u64::MAX / 2] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(Some(4), 3), (Some(8), 2), (Some(16), 1), (Some(32), 1), (None, 2)]);
        assert_eq!(histogram.sum(), 92 + u64::MAX / 2);
    }

    #[test]
    fn the_longest_histogram_has_a_bucket_for_every_value() {
        let counters = CoreCounters::new();
        for histogram in [&counters.turn_ns, &counters.batch, &counters.request_ns] {
            (0..64).for_each(|power| histogram.record(1 << power));
            assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), 64);
            assert!(histogram.buckets().all(|(_, count)| count > 0));
        }
        assert_eq!(counters.request_ns.buckets().count(), 23);
        assert_eq!(Histogram::new(0, 22).buckets().count(), BUCKETS_MAX);
    }

    #[test]
    #[should_panic(expected = "buckets <= BUCKETS_MAX")]
    fn more_buckets_than_there_are_is_a_mistake_at_the_start() {
        let _ = Histogram::new(0, 23);
    }
}
