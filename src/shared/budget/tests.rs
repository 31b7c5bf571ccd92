use super::*;
use Claimant::{Fresh, Waiting};

const START: Instant = Instant(77_000_000_001);
const BLOCK: u32 = BLOCK_BYTES;

/// All that is granted at `now`, a block at a time.
fn drain(budget: &Budget, who: Claimant, now: Instant) -> u64 {
    let mut granted = 0;
    while let bytes @ 1.. = budget.claim(BLOCK, BLOCK, who, now) {
        granted += u64::from(bytes);
    }
    granted
}

#[test]
fn an_idle_budget_saves_up_no_more_than_a_burst() {
    for rate in [1, 1000, SAVED_FROM_RATE - 1, SAVED_FROM_RATE, SAVED_FROM_RATE + 1, 1_250_000_000] {
        let budget = Budget::new(rate, START);
        for hours in [1, 24 * 365] {
            let late = START + Span::from_secs(3600 * hours);
            let saved = if rate < SAVED_FROM_RATE { 0 } else { rate / 20 };
            let granted = drain(&budget, Fresh, late);
            assert!((saved..=saved + u64::from(BLOCK)).contains(&granted), "{granted} at {rate}");
            assert!(granted > 0);
        }
    }
}

#[test]
fn who_waits_is_paid_for_being_late_and_no_more_than_a_block_of_it() {
    let rate = 500_000;
    let budget = Budget::new(rate, START);
    assert_eq!(budget.claim(BLOCK, BLOCK, Fresh, START), BLOCK);
    assert_eq!(budget.claim(BLOCK, BLOCK, Fresh, START), 0);
    // Half a block's time later than need be.
    let wait = budget.wait(START).unwrap();
    let late = START + Span(wait.0 * 3 / 2);
    assert_eq!(budget.claim(BLOCK, BLOCK, Waiting, late), BLOCK);
    assert_eq!(budget.wait(late).map(|span| span.0 / 100_000), Some(wait.0 / 2 / 100_000), "half is there");
    let very_late = late + Span::from_secs(9);
    assert_eq!(drain(&budget, Waiting, very_late), 2 * u64::from(BLOCK));
}

#[test]
fn a_claim_succeeds_when_the_wait_is_over_and_not_before() {
    for rate in [1, 3, 1000, 1_000_003, 125_000_000, 12_500_000_000, RATE_BYTES_MAX] {
        let budget = Budget::new(rate, START);
        let granted = drain(&budget, Waiting, START);
        assert_eq!(granted, u64::from(BLOCK), "it has saved nothing yet");
        let wait = budget.wait(START).unwrap();
        let need_ns = u128::from(granted) * 1_000_000_000 / u128::from(rate);
        assert!((need_ns..=need_ns + 2).contains(&u128::from(wait.0)), "{wait:?} at {rate}");
        assert_eq!(budget.claim(1, 1, Waiting, START + Span(wait.0.saturating_sub(50))), 0, "{rate}");
        assert_eq!(budget.claim(1, 1, Waiting, START + wait), 1, "{rate}");
    }
}

#[test]
fn rates_up_to_the_limit_are_kept_and_higher_ones_are_that() {
    for (rate, kept) in [
        (RATE_BYTES_MAX - 1, RATE_BYTES_MAX - 1),
        (RATE_BYTES_MAX, RATE_BYTES_MAX),
        (RATE_BYTES_MAX + 1, RATE_BYTES_MAX),
        (u64::MAX, RATE_BYTES_MAX),
    ] {
        let budget = Budget::new(rate, START);
        assert_eq!(budget.rate, kept);
        let second = budget.earned(START + Span::from_secs(1)) - budget.earned(START);
        assert_eq!(second, kept);
        // A year of waiting does not make it forget.
        assert!(drain(&budget, Fresh, START + Span::from_secs(3600 * 24 * 365)) >= kept / 20);
    }
}

#[test]
fn time_brings_the_rate_whatever_the_steps() {
    for rate in [1, 999, 1_000_003, 1_250_000_000, RATE_BYTES_MAX] {
        let budget = Budget::new(rate, START);
        let (mut now, mut before) = (START, 0);
        for step_ns in [0, 1, 999_999_998, 1, 1, 1_000_000_007, 123_456_789, 9_999_999_999] {
            now = now + Span(step_ns);
            let earned = budget.earned(now);
            let exact = (u128::from(now.since(START).0) * u128::from(rate) / 1_000_000_000) as u64;
            assert!(earned >= before && earned.abs_diff(exact) <= 1, "{rate}: {earned} of {exact}");
            before = earned;
        }
    }
}

#[test]
fn a_slice_is_at_most_the_limit_and_what_little_time_brings() {
    let slice = |rate| Budget::new(rate, START).slice();
    let limit_rate = u64::from(BUDGET_SLICE_BYTES_MAX) * SLICE_PART;
    assert_eq!(slice(limit_rate - 1), BUDGET_SLICE_BYTES_MAX - 1);
    assert_eq!(slice(limit_rate), BUDGET_SLICE_BYTES_MAX);
    assert_eq!(slice(limit_rate + SLICE_PART), BUDGET_SLICE_BYTES_MAX);
    assert!(slice(8 << 20) <= BLOCK && slice(1) == 0);
}

#[test]
fn a_grant_takes_what_is_there_up_to_what_is_wanted_and_refunds_count() {
    let budget = Budget::new(100 << 20, START);
    let now = START + Span::from_ms(1);
    let there = budget.earned(now) as u32;
    assert!(there > BLOCK && there < 256 << 10);
    assert_eq!(budget.claim(BLOCK, 256 << 10, Fresh, now), there, "what is there, without debt");
    assert_eq!(budget.claim(BLOCK, 256 << 10, Fresh, now), BLOCK, "the last one goes into debt");
    assert!(budget.wait(now).is_some());
    budget.refund(BLOCK);
    assert_eq!((budget.wait(now), budget.claim(1, 1, Fresh, now)), (None, 1));
}
