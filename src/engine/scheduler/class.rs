//! Where a party stands in the order of service: a class, and a place in it. Integers only.
//!
//! ```text
//! grant    strangers, out of a pool that is a tenth of what is sent      first come, first served
//! owed     who gave more than it got                                     the largest debt first
//! excess   who gave, and got that back                                   who got least for what it gave
//! rest     everybody else                                                equal shares of service
//! again    who wants of a seed only what others have or are being given  only what would be idle
//! ```
//!
//! The last class is served as soon as the others want nothing, or do not fill the link (`window.rs`). *Owed*
//! is the deficit order of FairTorrent (Sherman, Nieh, Stein 2012), *excess* the proportional share of
//! PropShare (Levin et al. 2008): with the first alone, what remains when all debts are paid would go to
//! free riders and contributors alike.

use crate::base::limits::{CONTRIBUTION_BYTES_MIN, EXCESS_RATIO_MAX, GRANT_GROUP_BYTES};
use crate::base::units::BLOCK_BYTES;
use crate::shared::ledger::Standing;

/// Buckets of a class.
pub const BUCKETS: u32 = 64;

/// See the module. In the order of service, but for [`Class::order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Out of the pool for newcomers.
    Grant,
    /// It gave more than it got.
    Owed,
    /// It gave, and got as much.
    Excess,
    /// It gave nothing, or got many times what it gave.
    Rest,
    /// It wants of a seed only what others have or are being given.
    Again,
}

/// How many classes there are.
pub const CLASSES: usize = 5;

impl Class {
    /// Whether nobody in it has earned its place and all may want what is rare.
    pub const fn is_unearned(self) -> bool {
        matches!(self, Self::Grant | Self::Rest)
    }

    /// All of them, in the order of service.
    pub const ALL: [Self; CLASSES] = [Self::Grant, Self::Owed, Self::Excess, Self::Rest, Self::Again];

    /// The order while nothing may be granted: strangers come behind those who have earned a place.
    const WITHOUT_GRANTS: [Self; CLASSES] = [Self::Owed, Self::Excess, Self::Grant, Self::Rest, Self::Again];

    /// The classes in the order of service, down to `worst`, while so much may be granted.
    pub fn order(pool_bytes: i64, worst: Self) -> &'static [Self] {
        let order = if pool_bytes > 0 { &Self::ALL } else { &Self::WITHOUT_GRANTS };
        let better = order.iter().take_while(|&&class| class != worst).count();
        &order[..=better]
    }

    /// The class of a party that gave and got so much, and whose group was granted so much.
    pub fn of(balance: Standing, granted_bytes: u64) -> Self {
        let unearned = if granted_bytes < GRANT_GROUP_BYTES { Self::Grant } else { Self::Rest };
        earned(balance).map_or(unearned, |place| place.class)
    }
}

/// A place in the order: the class, then the key. Lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The class.
    pub class: Class,
    /// Within it.
    pub key: u64,
}

/// The place of a party by what it gave and got; `None` if it has earned none.
pub fn earned(standing: Standing) -> Option<Place> {
    let Standing { received_bytes, sent_bytes } = standing;
    if received_bytes < CONTRIBUTION_BYTES_MIN {
        return None;
    }
    if received_bytes > sent_bytes {
        let debt_blocks = (received_bytes - sent_bytes) / u64::from(BLOCK_BYTES);
        return Some(Place { class: Class::Owed, key: u64::from(BUCKETS - 1 - logarithm(debt_blocks)) });
    }
    let excess_bytes = sent_bytes - received_bytes;
    if excess_bytes / EXCESS_RATIO_MAX >= received_bytes {
        return None;
    }
    let ratio = u128::from(excess_bytes) * 64 / u128::from(received_bytes);
    Some(Place { class: Class::Excess, key: logarithm(ratio as u64).into() })
}

/// Four steps for each doubling: 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9, 10 and 11, and so on to 63.
fn logarithm(value: u64) -> u32 {
    if value < 4 {
        return value as u32;
    }
    let power = value.ilog2();
    ((power - 1) * 4 + (value >> (power - 2) & 3) as u32).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn place(received_bytes: u64, sent_bytes: u64) -> Option<Place> {
        earned(Standing { received_bytes, sent_bytes })
    }

    #[test]
    fn the_logarithm_grows_by_quarters_of_an_octave() {
        let steps: Vec<u32> = (0..16).map(logarithm).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11]);
        assert!((1..1_000_000).all(|value| logarithm(value - 1) <= logarithm(value)));
        assert_eq!(logarithm(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn grants_come_first_while_there_is_something_to_grant_and_behind_what_was_earned_when_not() {
        use Class::{Again, Excess, Grant, Owed, Rest};
        assert_eq!(Class::order(1, Again), Class::ALL);
        for pool_bytes in [0, -1] {
            assert_eq!(Class::order(pool_bytes, Again), [Owed, Excess, Grant, Rest, Again]);
            assert_eq!(Class::order(pool_bytes, Excess), [Owed, Excess], "nobody is granted anything");
        }
        assert_eq!(Class::order(1, Excess), [Grant, Owed, Excess]);
        assert_eq!(Class::order(1, Owed), [Grant, Owed]);
    }

    #[test]
    fn a_contribution_counts_from_its_limit_on() {
        for (bytes, counts) in [
            (CONTRIBUTION_BYTES_MIN - 1, false),
            (CONTRIBUTION_BYTES_MIN, true),
            (CONTRIBUTION_BYTES_MIN + 1, true),
        ] {
            assert_eq!(place(bytes, 0).is_some(), counts, "{bytes}");
        }
    }

    #[test]
    fn larger_debts_go_before_smaller_ones_and_any_debt_before_excess() {
        let (large, small, even) =
            (place(9 * MIB, MIB).unwrap(), place(2 * MIB, MIB).unwrap(), place(MIB, MIB).unwrap());
        assert!(large < small && small < even);
        assert_eq!(even.class, Class::Excess);
    }

    #[test]
    fn excess_goes_to_who_got_least_for_what_it_gave_whoever_is_larger() {
        assert!(place(10 * MIB, 12 * MIB).unwrap() < place(MIB, 2 * MIB).unwrap(), "1.2 times before twice");
        assert_eq!(place(10 * MIB, 20 * MIB), place(MIB, 2 * MIB), "the ratio decides");
    }

    #[test]
    fn who_got_many_times_what_it_gave_has_earned_nothing_more() {
        for (sent, earned) in [
            ((EXCESS_RATIO_MAX + 1) * MIB - 1, true),
            ((EXCESS_RATIO_MAX + 1) * MIB, false),
            ((EXCESS_RATIO_MAX + 1) * MIB + 1, false),
        ] {
            assert_eq!(place(MIB, sent).is_some(), earned, "{sent}");
        }
        assert_eq!(place(u64::MAX, u64::MAX).unwrap().class, Class::Excess, "no overflow");
        assert!(place(u64::MAX, 0).is_some());
    }
}
