//! A rate limit that all cores share: a token bucket in one word.

use std::sync::Arc;

use super::sync::{AtomicU64, Ordering};
use crate::base::limits::{ANSWERS_PART, BUDGET_SLICE_BYTES_MAX, RATE_BYTES_MAX};
use crate::base::time::{Instant, Span};
use crate::base::units::BLOCK_BYTES;

/// From this rate on an idle budget saves up a span of it.
const SAVED_FROM_RATE: u64 = 1 << 20;

/// What an idle budget saves up is its rate times this, in parts of a second.
const SAVED_PART: u64 = 20;

/// A slice is at most what so many parts of a second bring. 64 cores that hold one each are an eighth of a
/// second off.
const SLICE_PART: u64 = 512;

/// Whether who claims was refused before and waited, so that what came meanwhile is no saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// It wants something only now.
    Fresh,
    /// It was refused, and has wanted more ever since.
    Waiting,
}

/// Bytes per second, claimed in slices.
///
/// Invariant: over any span the bytes granted are at most `rate * span` and one *burst*, which is what is
/// saved up while nobody asks and one grant. From 1 MiB/s on a twentieth of a second is saved; below that
/// nothing, so that a grant of one block is all that may be too much. Only who waits and is late, because
/// its core was, finds up to a block.
#[derive(Debug)]
pub struct Budget {
    rate: u64,
    /// Bytes that a nanosecond brings, times 2^56: a product and a shift instead of a division. Rounded up,
    /// so that a claim succeeds when `wait` is over.
    per_ns: u64,
    start: Instant,
    /// Bytes granted or forfeited since the start. Beyond what time has brought it is debt: nothing is
    /// granted until that is paid. It wraps around; differences count.
    spent: AtomicU64,
    /// The part of it that is for what is no payload.
    answers: Option<Box<Self>>,
}

impl Budget {
    /// A budget of `rate` bytes per second, at most `RATE_BYTES_MAX`, that has saved nothing yet.
    pub fn new(rate: u64, now: Instant) -> Self {
        assert!(rate > 0);
        let rate = rate.min(RATE_BYTES_MAX);
        let answers = Self::undivided((rate / ANSWERS_PART).max(1), now);
        Self { answers: Some(Box::new(answers)), ..Self::undivided(rate, now) }
    }

    fn undivided(rate: u64, now: Instant) -> Self {
        let per_ns = (u128::from(rate) << 56).div_ceil(1_000_000_000) as u64;
        Self { rate, per_ns, start: now, spent: AtomicU64::new(0), answers: None }
    }

    /// Whether something may be sent now that is no payload: an answer.
    pub fn is_open_for_answers(&self, now: Instant) -> bool {
        self.answers.as_ref().is_none_or(|answers| answers.wait(now).is_none())
    }

    /// Charges an answer: payload waits for that much longer, though never for more than their part of the
    /// rate.
    pub fn charge_answer(&self, bytes: u32, now: Instant) {
        if let Some(answers) = &self.answers {
            // Cores that saw it open together make a debt: the next one waits until that is paid.
            let granted = answers.claim(bytes, bytes, Claimant::Fresh, now);
            answers.spent.fetch_add(u64::from(bytes - granted), Ordering::Relaxed);
        }
        self.spent.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Grants `least` bytes, and up to `most` while that much is there; nothing while the budget is in
    /// debt. What is not used goes back by `refund`. A grant may run into debt, so that a block larger
    /// than what can be saved still passes, and small claims do not starve large ones.
    pub fn claim(&self, least: u32, most: u32, who: Claimant, now: Instant) -> u32 {
        let (earned, saved) = (self.earned(now), self.saved(who));
        let mut spent = self.spent.load(Ordering::Relaxed);
        loop {
            // What is beyond is forfeited by the first grant after it.
            let left = earned.wrapping_sub(spent).cast_signed().min(saved.cast_signed());
            if left < 0 {
                return 0;
            }
            let grant = most.min(u32::try_from(left).unwrap_or(u32::MAX)).max(least);
            let after = earned.wrapping_sub(left as u64).wrapping_add(grant.into());
            // Not a plain addition: cores that saw the last byte together would all get a grant.
            match self.spent.compare_exchange_weak(spent, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return grant,
                Err(now) => spent = now,
            }
        }
    }

    /// Gives back what was granted and not used.
    pub fn refund(&self, bytes: u32) {
        self.spent.fetch_sub(bytes.into(), Ordering::Relaxed);
    }

    /// Gives back an answer that was charged and is not given after all.
    pub fn refund_answer(&self, bytes: u32) {
        self.answers.iter().for_each(|answers| answers.refund(bytes));
        self.refund(bytes);
    }

    /// How long a claim will be refused, if nobody claims meanwhile; none if it would succeed.
    pub fn wait(&self, now: Instant) -> Option<Span> {
        let debt = self.spent.load(Ordering::Relaxed).wrapping_sub(self.earned(now));
        if debt.cast_signed() <= 0 {
            return None;
        }
        Some(Span((u128::from(debt) * 1_000_000_000 / u128::from(self.rate)) as u64 + 1))
    }

    /// What a core may take at a time, so that it does not come for every block.
    pub fn slice(&self) -> u32 {
        (self.rate / SLICE_PART).min(BUDGET_SLICE_BYTES_MAX.into()) as u32
    }

    /// Bytes that time has brought, modulo 2^64.
    fn earned(&self, now: Instant) -> u64 {
        let ns = now.since(self.start).0;
        let (seconds, rest_ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
        let rest = (u128::from(rest_ns) * u128::from(self.per_ns)) >> 56;
        seconds.wrapping_mul(self.rate).wrapping_add(rest as u64)
    }

    fn saved(&self, who: Claimant) -> u64 {
        match who {
            _ if self.rate >= SAVED_FROM_RATE => self.rate / SAVED_PART,
            Claimant::Waiting => BLOCK_BYTES.into(),
            Claimant::Fresh => 0,
        }
    }
}

/// The limits of one direction, over all cores.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// Of all peers together, but for those of local networks if these are apart.
    pub node: Option<Arc<Budget>>,
    /// Of the peers of local networks.
    pub lan: LanBudget,
}

/// What limits peers with private and loopback addresses.
#[derive(Clone, Debug, Default)]
pub enum LanBudget {
    /// What limits all others.
    #[default]
    Shared,
    /// Nothing.
    Exempt,
    /// A budget of their own, and nothing else.
    Own(Arc<Budget>),
}

impl LanBudget {
    /// Whether local peers are limited apart from others.
    pub const fn is_apart(&self) -> bool {
        !matches!(self, Self::Shared)
    }

    /// The budget of their own.
    pub const fn own(&self) -> Option<&Arc<Budget>> {
        match self {
            Self::Own(budget) => Some(budget),
            Self::Shared | Self::Exempt => None,
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;
