//! How much is asked of a peer at a time, and how much one send to it carries: both follow how fast it is.

use crate::base::limits::{REQUESTS_OUT_MAX, REQUESTS_OUT_MIN, SEND_UNSENT_BYTES, SEND_UNSENT_BYTES_MAX};
use crate::base::time::{Instant, Span};
use crate::base::units::BLOCK_BYTES;

/// How fast blocks come, and how many requests that warrants.
///
/// Depth = rate x (base latency + 100 ms), and 300 ms more but at most 32 blocks, at most what the other
/// side queues. At first the depth doubles each round trip, as it grows by one with each block, until
/// that brings no more or a block takes 100 ms longer than the fastest did: then the other side's queue
/// is long enough, and more would only hold slots. (HyStart ends TCP's slow start by the same sign.)
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes per second, smoothed over about two seconds.
    pub rate: u64,
    /// Shortest time from request to block seen so far; none before the first block.
    base_latency: Option<Span>,
    /// Time from request to block, of the last one.
    latency: Span,
    /// Longest time without a block of late, while some were outstanding.
    pause: Span,
    window_bytes: u64,
    window_pause: Span,
    ramp: usize,
    ramping: bool,
}

/// What blocks may wait in the other side's queue.
const QUEUEING: Span = Span::from_ms(100);

/// What may wait there besides: it serves in turns, and whoever asks for nothing when its turn comes
/// loses it. Of a slow one less, since blocks that are asked for are not fetched elsewhere.
const TURNS_AHEAD: Span = Span::from_ms(300);

/// The most of it.
const TURNS_AHEAD_BLOCKS: u64 = 32;

/// Nobody is late before, however near and fast it is: a lost segment alone takes 200 ms on Linux.
const LATE_AFTER: Span = Span::from_ms(250);

/// Whose last block took so long is slow: longer than five take on a link of 30 KiB/s.
const SLOW: Span = Span::from_secs(3);

/// What a fresh connection may have outstanding.
const DEPTH_AT_FIRST: usize = 16;

/// What a peer queues that does not say (BEP 10 `reqq`).
pub const REQQ_DEFAULT: usize = 250;

impl Default for Pace {
    fn default() -> Self {
        let (pause, window_pause) = (Span::ZERO, Span::ZERO);
        let (ramp, ramping) = (DEPTH_AT_FIRST, true);
        Self {
            rate: 0,
            base_latency: None,
            latency: Span::ZERO,
            pause,
            window_bytes: 0,
            window_pause,
            ramp,
            ramping,
        }
    }
}

impl Pace {
    /// A block came `latency` after its request and, as requests were outstanding all the while, `pause`
    /// after the block before it.
    pub fn note_block(&mut self, bytes: u32, latency: Span, pause: Span) {
        self.window_bytes += u64::from(bytes);
        self.window_pause = self.window_pause.max(pause);
        let base = self.base_latency.map_or(latency, |base| base.min(latency));
        self.base_latency = Some(base);
        self.latency = latency;
        if self.ramping {
            self.ramp = (self.ramp + 1).min(REQUESTS_OUT_MAX);
            if latency.0 > base.0 + QUEUEING.0 {
                // Little's law: as many were outstanding when this block was asked for, a round trip ago.
                let outstanding_bytes = self.ramp as u64 / 2 * u64::from(BLOCK_BYTES);
                self.rate = self.rate.max(outstanding_bytes.saturating_mul(1_000_000_000) / latency.0);
                self.ramping = false;
            }
        }
    }

    /// Whether the last block took three seconds or longer. Not before the first.
    pub fn is_slow(&self) -> bool {
        self.latency >= SLOW
    }

    /// How long the next block may take before the peer is late: twice what its queue should hold, and
    /// four times as long as it was silent before. None before its first block, which nobody can foretell.
    pub fn patience(&self) -> Option<Span> {
        let window_ns = self.base_latency?.0.saturating_add(QUEUEING.0).saturating_mul(2);
        let pause_ns = self.pause.max(self.window_pause).0.saturating_mul(4);
        Some(LATE_AFTER.max(Span(window_ns)).max(Span(pause_ns)))
    }

    /// The peer was silent for `pause` and gives again: how much it takes is found out anew.
    pub fn begin_anew(&mut self, pause: Span) {
        let pause = self.pause.max(self.window_pause).max(pause);
        *self = Self { base_latency: self.base_latency, pause, ..Self::default() };
    }

    /// A window of `span` has passed.
    pub fn roll(&mut self, span: Span) {
        let now = self.window_bytes.saturating_mul(1_000_000_000) / span.0.max(1);
        if self.window_bytes > 0 {
            self.pause = std::mem::take(&mut self.window_pause).max(Span(self.pause.0 / 2));
        }
        self.window_bytes = 0;
        let grew = now > self.rate + self.rate / 4;
        self.rate = if self.rate == 0 { now } else { self.rate / 2 + now / 2 };
        // Going on doubling makes sense only while it still brings more.
        self.ramping &= grew || now == 0;
    }

    /// Requests to keep outstanding at a peer that queues `reqq`.
    pub fn depth(&self, reqq: usize) -> usize {
        let under_way = self.blocks_in(Span(self.base_latency.unwrap_or_default().0 + QUEUEING.0));
        let by_rate = (under_way + self.blocks_in(TURNS_AHEAD).min(TURNS_AHEAD_BLOCKS)) as usize;
        let depth = if self.ramping { self.ramp.max(by_rate) } else { by_rate };
        // A peer may queue fewer than our least: what it says goes before what we want.
        depth.clamp(REQUESTS_OUT_MIN, REQUESTS_OUT_MAX).min(reqq.max(1))
    }

    fn blocks_in(&self, span: Span) -> u64 {
        (u128::from(self.rate) * u128::from(span.0) / 1_000_000_000) as u64 / u64::from(BLOCK_BYTES)
    }
}

/// Blocks of one send at most: 512 KiB.
pub const BURST_BLOCKS_MAX: usize = 32;

/// Blocks of a connection's first send.
const BURST_BLOCKS_AT_FIRST: usize = 4;

/// A send that took longer was too long: the next carries half of it.
const BURST_SPAN_MAX: Span = Span::from_secs(2);

/// A send that took no longer may grow.
const BURST_SPAN_GROWS: Span = Span::from_secs(1);

/// How many blocks a send carries: as many as the peer takes in a second or two, so that neither its
/// control messages wait long behind them nor its pins last long.
///
/// The kernel goes on with a send until all of it is out (`MSG_WAITALL`): only the time that it took
/// says how fast the peer reads.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    blocks: usize,
    begun_at: Instant,
    fast: bool,
}

/// Shorter sends say nothing of how fast they were: the kernel takes them though the link is full.
const FAST_BYTES_MIN: u64 = 256 << 10;

/// Bytes a second from which on a connection is fast.
const FAST_RATE: u64 = 64 << 20;

impl Default for Burst {
    fn default() -> Self {
        Self { blocks: BURST_BLOCKS_AT_FIRST, begun_at: Instant::default(), fast: false }
    }
}

impl Burst {
    /// What the next send may carry.
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// A send begins.
    pub const fn begin(&mut self, now: Instant) {
        self.begun_at = now;
    }

    /// All `bytes` of it are out. How much unsent payload the kernel may take from now on, if that changes.
    pub fn end(&mut self, bytes: u64, now: Instant) -> Option<u32> {
        let took = now.since(self.begun_at);
        if took > BURST_SPAN_MAX {
            self.blocks = (self.blocks / 2).max(1);
        } else if took <= BURST_SPAN_GROWS {
            self.blocks = (self.blocks * 2).min(BURST_BLOCKS_MAX);
        }
        let at_rate = |rate: u64| u128::from(bytes) * 1_000_000_000 >= u128::from(took.0) * u128::from(rate);
        let fast = if self.fast { at_rate(FAST_RATE / 2) } else { at_rate(FAST_RATE) };
        if bytes < FAST_BYTES_MIN || fast == self.fast {
            return None;
        }
        self.fast = fast;
        Some(if fast { SEND_UNSENT_BYTES_MAX } else { SEND_UNSENT_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_doubles_per_round_trip_until_the_rate_is_known_and_then_follows_it() {
        let mut pace = Pace::default();
        assert_eq!(pace.depth(500), DEPTH_AT_FIRST);
        for _ in 0..DEPTH_AT_FIRST {
            pace.note_block(BLOCK_BYTES, Span::from_ms(10), Span(0));
        }
        assert_eq!(pace.depth(500), 2 * DEPTH_AT_FIRST);
        for _ in 0..4 {
            (0..61).for_each(|_| pace.note_block(BLOCK_BYTES, Span::from_ms(10), Span(0)));
            pace.roll(Span::from_secs(1));
        }
        // About 1 MB/s over 110 ms is 7 blocks, over 300 ms more 18.
        let depth = pace.depth(500);
        assert!((20..=26).contains(&depth), "{depth}");
        assert_eq!(Pace::default().depth(3), 3, "never more than the other side queues");
    }

    #[test]
    fn depth_stops_doubling_when_blocks_wait_long_in_the_other_sides_queue() {
        // 20 MB/s, however many are outstanding.
        let at_rate = |depth: usize| Span(depth as u64 * u64::from(BLOCK_BYTES) * 50);
        let mut pace = Pace::default();
        pace.note_block(BLOCK_BYTES, Span::from_ms(10), Span(0));
        for _ in 0..2_000 {
            pace.note_block(BLOCK_BYTES, at_rate(pace.depth(500)).max(Span::from_ms(10)), Span(0));
        }
        // 110 ms at that rate are 134 blocks.
        assert!((60..=212).contains(&pace.depth(500)), "{}", pace.depth(500));
        assert!(!pace.ramping);
        // At the edge it goes on.
        let mut pace = Pace::default();
        pace.note_block(BLOCK_BYTES, Span::from_ms(10), Span(0));
        pace.note_block(BLOCK_BYTES, Span::from_ms(110), Span(0));
        assert!(pace.ramping);
        pace.note_block(BLOCK_BYTES, Span(Span::from_ms(110).0 + 1), Span(0));
        assert!(!pace.ramping);
    }

    #[test]
    fn a_long_way_is_filled_like_a_short_one() {
        // 300 ms there and back, and 50 MB/s: 915 blocks are on the way.
        let (way, rate_blocks) = (Span::from_ms(300), 3_052);
        let mut pace = Pace::default();
        for _ in 0..20 {
            // A second: as many round trips as it has, and no more than the link carries.
            for _ in 0..3 {
                let came = pace.depth(500).min(rate_blocks * 3 / 10);
                (0..came).for_each(|_| pace.note_block(BLOCK_BYTES, way, Span(0)));
            }
            pace.roll(Span::from_secs(1));
        }
        assert_eq!(pace.depth(500), 500, "all that the other side queues");
    }

    #[test]
    fn late_is_who_is_silent_for_four_times_as_long_as_before() {
        let (block, fast) = (BLOCK_BYTES, Span::from_ms(1));
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), None, "nobody can foretell the first block");
        pace.note_block(block, fast, fast);
        assert_eq!(pace.patience(), Some(LATE_AFTER));
        pace.note_block(block, Span::from_secs(3), Span::from_secs(3));
        assert_eq!(pace.patience(), Some(Span::from_secs(12)), "slow and steady");
        (0..10).for_each(|_| pace.roll(Span::from_secs(1)));
        assert_eq!(pace.patience(), Some(Span::from_secs(12)), "silence makes nobody fast");
        pace.note_block(block, fast, fast);
        pace.roll(Span::from_secs(1));
        assert_eq!(pace.patience(), Some(Span::from_secs(6)), "it is forgotten by and by");
        pace.begin_anew(Span::from_secs(2));
        assert_eq!(pace.patience(), Some(Span::from_secs(8)));
        let mut far = Pace::default();
        far.note_block(block, Span::from_ms(200), fast);
        assert_eq!(far.patience(), Some(Span::from_ms(600)), "two round trips and queues");
    }

    #[test]
    fn a_send_carries_what_the_peer_takes_in_a_second_or_two() {
        let mut burst = Burst::default();
        let mut send = |took: Span| {
            burst.begin(Instant(5));
            assert_eq!(burst.end(0, Instant(5) + took), None);
            burst.blocks()
        };
        assert_eq!([(); 4].map(|()| send(BURST_SPAN_GROWS)), [8, 16, 32, BURST_BLOCKS_MAX]);
        assert_eq!(send(Span(BURST_SPAN_GROWS.0 + 1)), 32, "neither short nor long");
        assert_eq!(send(BURST_SPAN_MAX), 32);
        assert_eq!([(); 6].map(|()| send(Span(BURST_SPAN_MAX.0 + 1))), [16, 8, 4, 2, 1, 1]);
        assert_eq!(send(Span(0)), 2);
    }

    #[test]
    fn the_kernel_takes_more_of_a_connection_that_is_fast_and_less_again_when_it_is_not() {
        let mut burst = Burst::default();
        let mut send = |bytes: u64, took: Span| {
            burst.begin(Instant(5));
            burst.end(bytes, Instant(5) + took)
        };
        // 64 MiB/s are 256 KiB in 3.9 ms.
        let (at_once, slow) = (Span(3_906_250), Span(3_906_251));
        assert_eq!(send(FAST_BYTES_MIN - 1, Span(0)), None, "too short to tell");
        assert_eq!(send(FAST_BYTES_MIN, slow), None);
        assert_eq!(send(FAST_BYTES_MIN, at_once), Some(SEND_UNSENT_BYTES_MAX));
        assert_eq!(send(FAST_BYTES_MIN + 1, slow), None, "half as fast is fast enough to stay");
        assert_eq!(send(FAST_BYTES_MIN, Span(2 * at_once.0 + 1)), Some(SEND_UNSENT_BYTES));
    }

    #[test]
    fn what_waits_for_turns_of_ours_is_bounded() {
        for (blocks, ahead) in [
            (TURNS_AHEAD_BLOCKS - 1, TURNS_AHEAD_BLOCKS - 1),
            (TURNS_AHEAD_BLOCKS, TURNS_AHEAD_BLOCKS),
            (TURNS_AHEAD_BLOCKS + 1, TURNS_AHEAD_BLOCKS),
        ] {
            // So many come in 300 ms, a third of them in 100.
            let rate = (blocks * u64::from(BLOCK_BYTES) * 10).div_ceil(3);
            let pace = Pace { rate, ramping: false, ..Pace::default() };
            assert_eq!(pace.depth(500) as u64, blocks / 3 + ahead, "{blocks}");
        }
    }

    #[test]
    fn depth_stays_within_its_limits() {
        let mut pace = Pace { rate: 0, ..Pace::default() };
        pace.ramping = false;
        assert_eq!(pace.depth(500), REQUESTS_OUT_MIN);
        pace.rate = u64::MAX >> 8;
        assert_eq!(pace.depth(10_000), REQUESTS_OUT_MAX);
    }
}
