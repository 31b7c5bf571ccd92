//! A rate limit that all cores share: a token bucket in two words.

use super::sync::{AtomicI64, AtomicU64, Ordering};
use crate::base::time::{Instant, Span};

/// Bytes per second, claimed in slices. Invariant: over any span the bytes granted are at most
/// `rate * span` plus one burst.
#[derive(Debug)]
pub struct Budget {
    rate: u64,
    tokens: AtomicI64,
    refilled_ns: AtomicU64,
}

impl Budget {
    /// A budget of `rate` bytes per second, whose first burst is there at once.
    pub fn new(rate: u64, now: Instant) -> Self {
        assert!(rate > 0);
        Self { rate, tokens: AtomicI64::new(Self::burst(rate)), refilled_ns: AtomicU64::new(now.0) }
    }

    /// A twentieth of a second, at least one block: what an idle budget saves up.
    fn burst(rate: u64) -> i64 {
        (rate / 20).clamp(16 << 10, 64 << 20) as i64
    }

    /// Takes `want` bytes, or nothing while the bucket is empty; what is not used goes back by `refund`.
    /// The bucket may run up to one grant into debt, so that a block larger than the burst still passes.
    pub fn claim(&self, want: u32, now: Instant) -> u32 {
        self.refill(now);
        let mut tokens = self.tokens.load(Ordering::Relaxed);
        while tokens > 0 {
            let less = tokens - i64::from(want);
            // Not a plain subtraction: cores that saw the last token together would all get a grant.
            match self.tokens.compare_exchange_weak(tokens, less, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return want,
                Err(now) => tokens = now,
            }
        }
        0
    }

    /// Whether a claim may succeed now.
    pub fn is_open(&self, now: Instant) -> bool {
        self.refill(now);
        self.tokens.load(Ordering::Relaxed) > 0
    }

    /// Gives back what was claimed and not used.
    pub fn refund(&self, bytes: u32) {
        self.tokens.fetch_add(i64::from(bytes), Ordering::Relaxed);
    }

    /// When a claim may succeed again, counted from `now`.
    pub fn wait(&self) -> Span {
        let missing = 1 - self.tokens.load(Ordering::Relaxed).min(0);
        Span(((missing as u128) * 1_000_000_000 / u128::from(self.rate)) as u64 + 1)
    }

    fn refill(&self, now: Instant) {
        let last = self.refilled_ns.load(Ordering::Relaxed);
        let span_ns = now.0.saturating_sub(last);
        let earned = (u128::from(span_ns) * u128::from(self.rate) / 1_000_000_000) as u64;
        if earned == 0 {
            return;
        }
        // Advance by what the whole bytes took, so that no fraction is lost.
        let step_ns = (u128::from(earned) * 1_000_000_000 / u128::from(self.rate)) as u64;
        let won =
            self.refilled_ns.compare_exchange(last, last + step_ns, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_ok() {
            let cap = Self::burst(self.rate);
            let mut tokens = self.tokens.load(Ordering::Relaxed);
            loop {
                let full = tokens.saturating_add_unsigned(earned).min(cap.max(tokens));
                let swap =
                    self.tokens.compare_exchange_weak(tokens, full, Ordering::Relaxed, Ordering::Relaxed);
                match swap {
                    Ok(_) => return,
                    Err(now) => tokens = now,
                }
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_of_claims_grant_the_rate_within_one_burst() {
        for rate in [20_000u64, 1 << 20, 125_000_000, 10_000_000_000] {
            let mut now = Instant(1_000);
            let budget = Budget::new(rate, now);
            let (mut granted, end) = (0u64, now + Span::from_secs(10));
            while now < end {
                match budget.claim(16 << 10, now) {
                    0 => now = now + budget.wait(),
                    bytes => granted += u64::from(bytes),
                }
            }
            let (low, high) = (rate * 10, rate * 10 + 2 * Budget::burst(rate) as u64);
            assert!((low * 98 / 100..=high).contains(&granted), "{granted} of {low} at {rate}");
        }
    }

    #[test]
    fn an_idle_budget_saves_up_no_more_than_a_burst() {
        let budget = Budget::new(1 << 20, Instant(0));
        let late = Instant(0) + Span::from_secs(3600);
        let mut granted = 0u64;
        while let bytes @ 1.. = budget.claim(16 << 10, late) {
            granted += u64::from(bytes);
        }
        assert!(granted <= Budget::burst(1 << 20) as u64 + (16 << 10));
    }
}
