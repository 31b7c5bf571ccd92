//! How long a finished `get` goes on serving.

use crate::base::time::{Instant, Span};

/// When a finished torrent has been served enough: at what is reached first, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedGoal {
    /// What was sent in this run over the torrent's size, in thousandths.
    pub ratio_thousandths: Option<u64>,
    /// Since all was there.
    pub time: Option<Span>,
}

/// What was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedEnd {
    /// The ratio.
    Ratio,
    /// The time.
    Time,
}

/// A finished torrent that is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeding {
    /// Until when.
    pub goal: SeedGoal,
    /// Since when.
    pub since: Instant,
    /// For how long, when last looked at.
    pub span: Span,
    /// What was reached first.
    pub end: Option<SeedEnd>,
}

impl Seeding {
    /// All is there from now on.
    pub const fn new(goal: SeedGoal, now: Instant) -> Self {
        Self { goal, since: now, span: Span::ZERO, end: None }
    }

    /// So much was sent by now; whether that is enough.
    pub fn note(&mut self, sent_bytes: u64, total_bytes: u64, now: Instant) -> bool {
        self.span = now.since(self.since);
        let SeedGoal { ratio_thousandths, time } = self.goal;
        let sent = u128::from(sent_bytes) * 1000;
        let enough = |ratio: u64| sent >= u128::from(ratio) * u128::from(total_bytes);
        if self.end.is_none() && ratio_thousandths.is_some_and(enough) {
            self.end = Some(SeedEnd::Ratio);
        } else if self.end.is_none() && time.is_some_and(|time| self.span >= time) {
            self.end = Some(SeedEnd::Time);
        }
        self.end.is_some()
    }

    /// When the time is over, if it is limited.
    pub fn over_at(&self) -> Option<Instant> {
        Some(self.since + self.goal.time?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(5_000);
    const SIZE: u64 = 1 << 20;

    fn seeding(ratio_thousandths: Option<u64>, time: Option<Span>) -> Seeding {
        Seeding::new(SeedGoal { ratio_thousandths, time }, START)
    }

    #[test]
    fn a_ratio_is_reached_by_the_byte() {
        for (thousandths, enough) in [(1_000, SIZE), (1_500, SIZE * 3 / 2), (1, SIZE.div_ceil(1000))] {
            let mut seeding = seeding(Some(thousandths), None);
            assert!(!seeding.note(enough - 1, SIZE, START + Span::from_secs(1 << 20)), "{thousandths}");
            assert!(seeding.note(enough, SIZE, START) && seeding.end == Some(SeedEnd::Ratio));
        }
        assert!(seeding(Some(u64::MAX), None).note(0, 0, START), "nothing is all of an empty torrent");
        assert!(!seeding(Some(u64::MAX), None).note(u64::MAX / 2, u64::MAX, START), "no overflow");
    }

    #[test]
    fn a_time_is_over_to_the_nanosecond_and_nobody_need_have_come() {
        let mut seeding = seeding(None, Some(Span::from_secs(60)));
        let over = START + Span::from_secs(60);
        assert_eq!(seeding.over_at(), Some(over));
        assert!(!seeding.note(u64::MAX, SIZE, Instant(over.0 - 1)));
        assert!(seeding.note(0, SIZE, over) && seeding.end == Some(SeedEnd::Time));
    }

    #[test]
    fn what_is_reached_first_stays_the_reason_and_without_a_goal_nothing_is() {
        let both = || seeding(Some(1_000), Some(Span::from_secs(60)));
        let (mut by_ratio, mut by_time) = (both(), both());
        assert!(by_ratio.note(SIZE, SIZE, START) && by_time.note(0, SIZE, START + Span::from_secs(60)));
        for (seeding, end) in [(&mut by_ratio, SeedEnd::Ratio), (&mut by_time, SeedEnd::Time)] {
            assert!(seeding.note(2 * SIZE, SIZE, START + Span::from_secs(90)) && seeding.end == Some(end));
        }
        assert!(!seeding(None, None).note(u64::MAX, SIZE, START + Span::from_secs(1 << 30)));
    }
}
