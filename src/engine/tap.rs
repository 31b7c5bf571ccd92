//! What one core draws from a rate limit that all share.

use std::sync::Arc;

use crate::base::time::{Instant, Span};
use crate::shared::budget::{Budget, Claimant};

/// Between two looks at a limit that was shut: what waits for it is gone through each time.
const LOOK: Span = Span::from_ms(10);

/// Who was refused and does not come back for so long after it might have does not wait any more.
const PATIENCE: Span = Span::from_secs(1);

/// A budget, and what this core has taken of it and not used.
#[derive(Clone, Debug)]
pub struct Tap {
    budget: Arc<Budget>,
    slice_bytes: u32,
    left_bytes: u32,
    /// Until when it counts as waiting.
    waits_until: Instant,
}

impl Tap {
    /// Draws slices. Nothing is drawn yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { slice_bytes: budget.slice(), ..Self::exact(budget) }
    }

    /// Draws what is asked for and no more: nothing is left to give back.
    pub const fn exact(budget: Arc<Budget>) -> Self {
        Self { budget, slice_bytes: 0, left_bytes: 0, waits_until: Instant(0) }
    }

    /// Draws `bytes`; false while the limit does not let them pass.
    pub fn claim(&mut self, bytes: u32, now: Instant) -> bool {
        if self.left_bytes < bytes {
            let least = bytes - self.left_bytes;
            let who = if now <= self.waits_until { Claimant::Waiting } else { Claimant::Fresh };
            let granted = self.budget.claim(least, self.slice_bytes.max(least), who, now);
            if granted == 0 {
                self.give_back();
                self.shut_until(now);
                return false;
            }
            self.left_bytes += granted;
        }
        self.left_bytes -= bytes;
        true
    }

    /// Whether an answer may be sent that is no payload. See [`Budget::charge_answer`].
    pub fn is_open_for_answers(&self, now: Instant) -> bool {
        self.budget.is_open_for_answers(now)
    }

    /// Charges such an answer.
    pub fn charge_answer(&self, bytes: u32, now: Instant) {
        self.budget.charge_answer(bytes, now);
    }

    /// Such an answer is not given after all.
    pub fn put_answer_back(&self, bytes: u32) {
        self.budget.refund_answer(bytes);
    }

    /// What was drawn is not used after all.
    pub fn put_back(&mut self, bytes: u32) {
        self.left_bytes = self.left_bytes.saturating_add(bytes);
        if self.slice_bytes == 0 {
            self.give_back();
        }
    }

    /// This core draws no more for now: others may have what it has left.
    pub fn give_back(&mut self) {
        if self.left_bytes > 0 {
            self.budget.refund(std::mem::take(&mut self.left_bytes));
        }
    }

    /// When to look again whether something may be drawn; none if it may be now.
    pub fn shut_until(&mut self, now: Instant) -> Option<Instant> {
        if self.left_bytes > 0 {
            return None;
        }
        let wait = self.budget.wait(now)?;
        let until = now + Span(wait.0.max(LOOK.0));
        self.waits_until = until + PATIENCE;
        Some(until)
    }
}

/// Draws `bytes` from both, or from neither.
pub fn claim_both(one: Option<&mut Tap>, other: Option<&mut Tap>, bytes: u32, now: Instant) -> bool {
    let mut drawn = None;
    if let Some(tap) = one {
        if !tap.claim(bytes, now) {
            return false;
        }
        drawn = Some(tap);
    }
    let passes = other.is_none_or(|tap| tap.claim(bytes, now));
    if !passes && let Some(tap) = drawn {
        tap.put_back(bytes);
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::units::BLOCK_BYTES;

    const START: Instant = Instant(3_000_000_007);

    /// What cores that always want more are granted in ten seconds, each woken up to `late` too late.
    fn granted(budget: &Arc<Budget>, cores: usize, block: u32, late: Span, start: Instant) -> u64 {
        let mut taps: Vec<(Instant, Tap)> =
            (0..cores).map(|_| (start, Tap::new(Arc::clone(budget)))).collect();
        let (mut sum, mut rng) = (0, Rng::new(u64::from(block)));
        let end = start + Span::from_secs(10);
        loop {
            let (now, tap) = taps.iter_mut().min_by_key(|(at, _)| *at).unwrap();
            if *now >= end {
                return sum;
            }
            // A core is not alone: what it does takes time, and others have their turn.
            let mut blocks = 0;
            while blocks < 64 && tap.claim(block, *now) {
                sum += u64::from(block);
                blocks += 1;
            }
            tap.give_back();
            let woken =
                tap.shut_until(*now).map_or(*now, |until| until + Span(rng.next_u64() % (late.0 + 1)));
            assert!(woken > *now || blocks == 64, "no core spins while the limit is shut");
            *now = woken.max(*now + Span(20_000));
        }
    }

    /// The bar: within 2 % from 1 MiB/s up, below that within one block.
    fn check(rate: u64, cores: usize, block: u32, late: Span, idle: Span) {
        let budget = Arc::new(Budget::new(rate, START));
        let sum = granted(&budget, cores, block, late, START + idle);
        let slack = if rate >= 1 << 20 { rate * 10 / 50 } else { u64::from(block.max(BLOCK_BYTES)) };
        let off = sum.abs_diff(rate * 10);
        assert!(off <= slack, "{sum} of {} at {rate}, {cores} cores, {block}, {late:?}, {idle:?}", rate * 10);
    }

    const RATES: [u64; 9] = [
        1 << 10,
        20_000,
        500 << 10,
        (1 << 20) - 1,
        1 << 20,
        3_000_003,
        100 << 20,
        125_000_000,
        1_250_000_000,
    ];

    #[test]
    fn ten_seconds_bring_the_rate_with_one_two_and_many_cores() {
        for rate in RATES {
            for cores in [1, 2, 7] {
                for idle in [Span::ZERO, Span::from_secs(3600)] {
                    check(rate, cores, BLOCK_BYTES, Span::ZERO, idle);
                }
            }
        }
    }

    #[test]
    fn ten_seconds_bring_the_rate_in_blocks_of_any_size() {
        for rate in RATES {
            for block in [1, 999, 16_383, 40_000, 128 << 10] {
                if rate * 10 / u64::from(block) < 2_000_000 {
                    check(rate, 2, block, Span::ZERO, Span::from_secs(60));
                }
            }
        }
    }

    #[test]
    fn ten_seconds_bring_the_rate_though_cores_wake_late() {
        for rate in RATES {
            for cores in [1, 3] {
                check(rate, cores, BLOCK_BYTES, Span::from_ms(8), Span::from_secs(9));
            }
        }
    }

    #[test]
    fn a_slice_serves_many_blocks_and_its_rest_goes_back() {
        let budget = Arc::new(Budget::new(1 << 30, START));
        let now = START + Span::from_ms(1);
        let (mut one, mut other) = (Tap::new(Arc::clone(&budget)), Tap::new(Arc::clone(&budget)));
        assert!(one.claim(BLOCK_BYTES, now) && one.left_bytes == (256 << 10) - BLOCK_BYTES);
        while budget.wait(now).is_none() {
            budget.claim(BLOCK_BYTES, BLOCK_BYTES, Claimant::Fresh, now);
        }
        assert!(!other.claim(BLOCK_BYTES, now), "one holds the last");
        assert!((0..15).all(|_| one.claim(BLOCK_BYTES, now)), "without a look at what is shared");
        one.put_back(2 * BLOCK_BYTES);
        assert!(one.shut_until(now).is_none() && other.shut_until(now).is_some());
        one.give_back();
        assert!(other.claim(BLOCK_BYTES, now) && one.left_bytes == 0);
        while budget.wait(now).is_none() {
            budget.claim(BLOCK_BYTES, BLOCK_BYTES, Claimant::Fresh, now);
        }
        let (mut exact, spent) = (Tap::exact(Arc::clone(&budget)), budget.wait(now));
        exact.put_back(BLOCK_BYTES);
        assert!(exact.left_bytes == 0 && budget.wait(now) < spent, "it keeps nothing");
    }

    #[test]
    fn who_waits_is_paid_for_a_late_wake_and_who_went_away_is_not() {
        let budget = Arc::new(Budget::new(BLOCK_BYTES.into(), START));
        let mut tap = Tap::new(Arc::clone(&budget));
        let take = |tap: &mut Tap, now| (0..9).take_while(|_| tap.claim(BLOCK_BYTES, now)).count();
        assert_eq!(take(&mut tap, START), 1);
        let late = tap.shut_until(START).unwrap() + PATIENCE;
        assert_eq!(take(&mut tap, late), 2, "a second late, a block more");
        let gone = tap.shut_until(late).unwrap() + PATIENCE + Span(1);
        assert_eq!(take(&mut tap, gone), 1);
    }

    #[test]
    fn both_limits_are_drawn_from_or_neither() {
        let slow = || Tap::new(Arc::new(Budget::new(1000, START)));
        let (mut node, mut torrent) = (slow(), slow());
        assert!(torrent.claim(BLOCK_BYTES, START));
        for _ in 0..3 {
            assert!(!claim_both(Some(&mut node), Some(&mut torrent), BLOCK_BYTES, START));
        }
        assert!(claim_both(Some(&mut node), None, BLOCK_BYTES, START), "it was put back");
        assert!(!claim_both(Some(&mut node), None, 1, START));
        assert!(claim_both(None, None, 1, START));
    }
}
