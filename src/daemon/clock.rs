//! The control thread's clock: the same monotonic clock as the workers'.

use std::time::Duration;

use crate::base::time::{Instant, Span};

/// Now, on CLOCK_MONOTONIC.
pub fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The same moment for tokio's timers.
pub fn tokio_at(at: Instant) -> tokio::time::Instant {
    tokio::time::Instant::now() + duration(at.since(now()))
}

/// Seconds since 1970 by the wall clock, which may jump; zero before that.
pub fn wall_s() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(time.tv_sec).unwrap_or(0)
}

/// A span as the libraries want it.
pub const fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.0)
}
