//! How many payload bytes one core keeps on their way into the kernel.
//!
//! With every connection's send in flight at once the kernel decides who gets how much of a full link,
//! and an order of ours decides nothing. So only as much is in flight as the core lately sent in
//! [`WINDOW`]; the others wait here, in order. The kernel keeps some more of each connection
//! (`SEND_UNSENT_BYTES`), so that the link never waits for us.
//!
//! A peer that reads slowly must not keep the others waiting: what has been in flight for [`PATIENCE`] no
//! longer counts.

use crate::base::limits::SEND_WINDOW_BYTES_MIN;
use crate::base::time::{Instant, Span};

/// What is in flight covers so much time.
const WINDOW: Span = Span::from_ms(25);

/// One epoch: the unit of patience.
const EPOCH: Span = Span::from_ms(50);

/// Epochs for which a send counts, the one in which it began included.
const PATIENCE: usize = 4;

/// How much of its estimate a core keeps each epoch when it sends less.
const KEPT_OF_8: u64 = 7;

/// When a send began. Good for the window that gave it out.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    epoch: u64,
    /// Payload of the send.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Window {
    /// In flight, by the epoch in which they began; the newest at `epoch % PATIENCE`.
    bytes_by_epoch: [u64; PATIENCE],
    epoch: u64,
    since: Instant,
    /// In flight and counted.
    counted_bytes: u64,
    /// Ended in this epoch.
    ended_bytes: u64,
    rate_bytes: u64,
}

impl Window {
    /// Nothing is in flight.
    pub const fn new(now: Instant) -> Self {
        let (epoch, counted_bytes, ended_bytes, rate_bytes) = (0, 0, 0, 0);
        Self { bytes_by_epoch: [0; PATIENCE], epoch, since: now, counted_bytes, ended_bytes, rate_bytes }
    }

    /// Bytes that may be in flight.
    pub fn limit_bytes(&self) -> u64 {
        let by_rate = (u128::from(self.rate_bytes) * u128::from(WINDOW.0) / 1_000_000_000) as u64;
        by_rate.max(SEND_WINDOW_BYTES_MIN)
    }

    /// Whether another send may begin.
    pub fn is_open(&self) -> bool {
        self.counted_bytes < self.limit_bytes()
    }

    /// When the window next looks at the time.
    pub fn due(&self) -> Instant {
        self.since + EPOCH
    }

    /// A send begins.
    pub const fn begin(&mut self, bytes: u64) -> Begun {
        self.bytes_by_epoch[(self.epoch % PATIENCE as u64) as usize] += bytes;
        self.counted_bytes += bytes;
        Begun { epoch: self.epoch, bytes }
    }

    /// A send ended, or its connection did.
    pub const fn end(&mut self, begun: Begun) {
        self.ended_bytes += begun.bytes;
        if self.epoch - begun.epoch < PATIENCE as u64 {
            self.bytes_by_epoch[(begun.epoch % PATIENCE as u64) as usize] -= begun.bytes;
            self.counted_bytes -= begun.bytes;
        }
    }

    /// Time has passed.
    pub fn roll(&mut self, now: Instant) {
        let span = now.since(self.since);
        if span.0 < EPOCH.0 {
            return;
        }
        let rate = (u128::from(self.ended_bytes) * 1_000_000_000 / u128::from(span.0)) as u64;
        self.rate_bytes = rate.max(self.rate_bytes / 8 * KEPT_OF_8);
        self.ended_bytes = 0;
        self.since = now;
        for _ in 0..(span.0 / EPOCH.0).min(PATIENCE as u64) {
            self.epoch += 1;
            let oldest = &mut self.bytes_by_epoch[(self.epoch % PATIENCE as u64) as usize];
            self.counted_bytes -= std::mem::take(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000);

    #[test]
    fn a_window_is_open_below_its_limit_and_shut_from_it_on() {
        for (bytes, open) in [
            (SEND_WINDOW_BYTES_MIN - 1, true),
            (SEND_WINDOW_BYTES_MIN, false),
            (SEND_WINDOW_BYTES_MIN + 1, false),
        ] {
            let mut window = Window::new(START);
            let begun = window.begin(bytes);
            assert_eq!(window.is_open(), open, "{bytes}");
            window.end(begun);
            assert!(window.is_open());
        }
    }

    #[test]
    fn it_covers_a_span_of_what_was_sent_and_shrinks_slowly() {
        let mut window = Window::new(START);
        let mut now = START;
        for _ in 0..20 {
            let begun = window.begin(50_000_000);
            window.end(begun);
            now = now + EPOCH;
            window.roll(now);
        }
        assert_eq!(window.limit_bytes(), 25_000_000, "25 ms of 1 GB a second");
        now = now + EPOCH;
        window.roll(now);
        assert_eq!(window.limit_bytes(), 21_875_000);
        for _ in 0..100 {
            now = now + EPOCH;
            window.roll(now);
        }
        assert_eq!(window.limit_bytes(), SEND_WINDOW_BYTES_MIN);
    }

    #[test]
    fn what_is_stuck_stops_counting_and_its_end_is_counted_once() {
        let mut window = Window::new(START);
        let stuck = window.begin(SEND_WINDOW_BYTES_MIN);
        let mut now = START;
        for epoch in 1..=PATIENCE {
            assert!(!window.is_open(), "epoch {epoch}");
            now = now + EPOCH;
            window.roll(now);
        }
        assert!(window.is_open());
        let other = window.begin(1);
        window.end(stuck);
        window.end(other);
        assert_eq!((window.counted_bytes, window.bytes_by_epoch), (0, [0; PATIENCE]));
        // A long pause is as good as several epochs.
        window.begin(SEND_WINDOW_BYTES_MIN);
        window.roll(now + Span::from_secs(9));
        assert_eq!(window.counted_bytes, 0);
    }
}
