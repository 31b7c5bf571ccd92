//! How much time accounts have aged by, in whole halvings and refills.
//!
//! While a node runs the monotonic clock counts; over a stop the wall clock does, by a stamp in the log. A
//! clock that goes back makes nothing younger, one that jumps ahead costs what `LEDGER_AGE_MAX` of time does.

use super::Passed;
use crate::base::limits::{
    GRANT_GROUP_BYTES, GRANT_REFILL_BYTES, GRANT_REFILL_TIME, HALF_LIFE_ADDRESS, HALF_LIFE_KEY,
    LEDGER_AGE_MAX,
};
use crate::base::time::{Instant, Span};

/// Time since the last halving of each kind, and since the last refill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ages {
    address: Span,
    key: Span,
    grant: Span,
}

/// See the module. One for all accounts.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at: Instant,
    ages: Ages,
}

/// A clock as it is written down: what was said in the log before is of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds since 1970, by the wall clock.
    pub wall_s: u64,
    /// Seconds since the last halving by address.
    pub address_s: u32,
    /// Seconds since the last halving by key.
    pub key_s: u32,
    /// Seconds since the last refill.
    pub grant_s: u32,
}

impl Clock {
    /// A clock whose accounts are new.
    pub fn start(now: Instant) -> Self {
        Self { at: now, ages: Ages::default() }
    }

    /// A clock that goes on where `stamp` was made, and what has passed since.
    pub fn resume(stamp: Stamp, wall_s: u64, now: Instant) -> (Self, Passed) {
        let seconds = |s: u32| Span::from_secs(s.into());
        let (address, key) = (seconds(stamp.address_s), seconds(stamp.key_s));
        let mut clock = Self { at: now, ages: Ages { address, key, grant: seconds(stamp.grant_s) } };
        let away_s = wall_s.saturating_sub(stamp.wall_s).min(LEDGER_AGE_MAX.as_ms() / 1000);
        let passed = clock.age(Span::from_secs(away_s));
        (clock, passed)
    }

    /// What has passed since the last time.
    pub fn advance(&mut self, now: Instant) -> Passed {
        let elapsed = now.since(self.at).min(LEDGER_AGE_MAX);
        self.at = now;
        self.age(elapsed)
    }

    /// For the log.
    pub fn stamp(&self, wall_s: u64) -> Stamp {
        let seconds = |span: Span| (span.as_ms() / 1000) as u32;
        let Ages { address, key, grant } = self.ages;
        Stamp { wall_s, address_s: seconds(address), key_s: seconds(key), grant_s: seconds(grant) }
    }

    fn age(&mut self, elapsed: Span) -> Passed {
        let whole = |age: &mut Span, every: Span| {
            let aged = age.0.saturating_add(elapsed.0);
            *age = Span(aged % every.0);
            aged / every.0
        };
        let Ages { address, key, grant } = &mut self.ages;
        Passed {
            address_halvings: whole(address, HALF_LIFE_ADDRESS).min(u8::MAX.into()) as u8,
            key_halvings: whole(key, HALF_LIFE_KEY).min(u8::MAX.into()) as u8,
            refill_bytes: (whole(grant, GRANT_REFILL_TIME) * GRANT_REFILL_BYTES).min(GRANT_GROUP_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 24 * 3600;
    const START: Instant = Instant(1 << 60);

    fn halvings(passed: Passed) -> (u8, u8) {
        (passed.address_halvings, passed.key_halvings)
    }

    #[test]
    fn addresses_age_in_hours_and_keys_in_days() {
        let mut clock = Clock::start(START);
        let (mut addresses, mut keys, mut refills) = (0, 0, 0);
        // Steps that divide neither half-life.
        let step = Span::from_secs(1009);
        for n in 1..=14 * DAY_S / 1009 {
            let passed = clock.advance(START + Span(step.0 * n));
            addresses += u64::from(passed.address_halvings);
            keys += u64::from(passed.key_halvings);
            refills += passed.refill_bytes;
        }
        assert_eq!((addresses, keys), (55, 1), "a little less than 14 days");
        let hours = (14 * DAY_S / 1009 * 1009) as f64 / 3600.0;
        assert!((refills as f64 / (1 << 20) as f64 - hours).abs() < 0.02, "1 MiB an hour");
        clock.advance(START + Span::from_secs(14 * DAY_S));
        assert_eq!(clock.stamp(5), Stamp { wall_s: 5, ..Stamp::default() });
    }

    #[test]
    fn a_half_life_is_over_at_its_limit_and_not_before() {
        for (ns, halved) in [(-1, 0), (0, 1), (1, 1)] {
            let at = |life: Span| START + Span(life.0.checked_add_signed(ns).unwrap());
            assert_eq!(Clock::start(START).advance(at(HALF_LIFE_ADDRESS)).address_halvings, halved);
            assert_eq!(Clock::start(START).advance(at(HALF_LIFE_KEY)).key_halvings, halved);
            let refill = Clock::start(START).advance(at(GRANT_REFILL_TIME)).refill_bytes;
            assert_eq!(refill, u64::from(halved) * GRANT_REFILL_BYTES);
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_younger_and_nothing_older() {
        let mut clock = Clock::start(START);
        clock.advance(START + Span::from_secs(3600));
        let before = clock.stamp(0);
        assert_eq!(clock.advance(Instant(0)), Passed::default());
        assert_eq!(clock.stamp(0), before);
        for wall_s in [0, 999, 1000] {
            let stamp = Stamp { wall_s: 1000, address_s: 100, ..Stamp::default() };
            let (resumed, passed) = Clock::resume(stamp, wall_s, START);
            assert_eq!((passed, resumed.stamp(1000)), (Passed::default(), stamp), "{wall_s}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_costs_a_bounded_time_and_grants_no_more_than_an_hour() {
        let week = HALF_LIFE_KEY;
        assert_eq!(halvings(Clock::start(START).advance(Instant(u64::MAX))), (28, 1));
        for (away_s, keys) in [(week.as_ms() / 1000 - 1, 0), (week.as_ms() / 1000, 1), (u64::MAX - 1000, 1)] {
            let stamp = Stamp { wall_s: 1000, ..Stamp::default() };
            let (_, passed) = Clock::resume(stamp, 1000 + away_s, START);
            assert_eq!((passed.key_halvings, passed.refill_bytes), (keys, GRANT_GROUP_BYTES), "{away_s}");
        }
        // And back again: nothing more.
        let mut clock = Clock::start(START);
        clock.advance(Instant(u64::MAX));
        assert_eq!(clock.advance(START), Passed::default());
    }

    #[test]
    fn a_stop_counts_as_if_the_node_had_run() {
        let mut ran = Clock::start(START);
        let before = ran.advance(START + Span::from_secs(5 * 3600));
        let stamp = ran.stamp(1000);
        assert_eq!(halvings(before), (0, 0));
        let (stopped, passed) = Clock::resume(stamp, 1000 + 2 * 3600, START);
        let as_well = ran.advance(START + Span::from_secs(7 * 3600));
        assert_eq!((halvings(passed), halvings(as_well)), ((1, 0), (1, 0)));
        assert_eq!(stopped.stamp(9), ran.stamp(9));
        let odd = Stamp { address_s: u32::MAX, key_s: u32::MAX, grant_s: u32::MAX, wall_s: u64::MAX };
        let (clock, passed) = Clock::resume(odd, u64::MAX, START);
        assert!(halvings(passed) == (u8::MAX, u8::MAX) || passed.key_halvings > 0, "no overflow");
        assert!(u64::from(clock.stamp(0).key_s) < week_s());
    }

    fn week_s() -> u64 {
        HALF_LIFE_KEY.as_ms() / 1000
    }
}
