//! Accounts of the ledger as values: what a party gave and got, and what time makes of it. `clock` says how
//! much time that is, `codec` turns accounts into bytes and back, `book` plans what is written when.
//!
//! Nothing here gives anybody credit: time only halves, and only refills what a group may be granted.

use crate::base::limits::{
    BALANCE_ADDRESS_BYTES_MAX, BALANCE_KEY_BYTES_MAX, GRANT_GROUP_BYTES, LEDGER_STORED_BYTES_MIN,
};

pub mod book;
pub mod clock;
pub mod codec;

pub use book::{Book, Write};
pub use clock::{Clock, Stamp};
pub use codec::{Flaw, Replay, Subject, replay};

/// By what a party is known, which says how long and how far it is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartyKind {
    /// An address, or a group of them.
    #[default]
    Address,
    /// A key with which it signs.
    Key,
}

/// What one party gave and got. `key` is its secret hash; zero if the account is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// See above.
    pub key: u64,
    /// By what it is known.
    pub kind: PartyKind,
    /// Verified payload that it gave.
    pub received_bytes: u64,
    /// Payload that was sent to it.
    pub sent_bytes: u64,
    /// What its group was granted before it had given anything.
    pub granted_bytes: u64,
    /// Of what this node gave it first, how much others announced later.
    pub spread_bytes: u64,
}

/// What passing time brings: halvings by kind of party, and new grants. See [`Clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Halvings of parties known by their address.
    pub address_halvings: u8,
    /// Halvings of parties known by their key.
    pub key_halvings: u8,
    /// What may be granted anew to each group.
    pub refill_bytes: u64,
}

impl PartyKind {
    /// Most that is owed in the long run, either way.
    pub const fn balance_bytes_max(self) -> u64 {
        match self {
            Self::Address => BALANCE_ADDRESS_BYTES_MAX,
            Self::Key => BALANCE_KEY_BYTES_MAX,
        }
    }
}

impl Passed {
    /// This, and then `later`.
    pub fn and(self, later: Self) -> Self {
        Self {
            address_halvings: self.address_halvings.saturating_add(later.address_halvings),
            key_halvings: self.key_halvings.saturating_add(later.key_halvings),
            refill_bytes: self.refill_bytes.saturating_add(later.refill_bytes).min(GRANT_GROUP_BYTES),
        }
    }

    const fn halvings(&self, kind: PartyKind) -> u32 {
        let halvings = match kind {
            PartyKind::Address => self.address_halvings,
            PartyKind::Key => self.key_halvings,
        };
        if halvings < u64::BITS as u8 { halvings as u32 } else { u64::BITS - 1 }
    }
}

impl Balance {
    /// What is left when time has passed and what is owed has been bounded. What was given and what was
    /// sent are halved together, so that who is owed something stays so and nobody else becomes it.
    pub fn settled(self, passed: Passed) -> Self {
        let halvings = passed.halvings(self.kind);
        Self {
            received_bytes: self.received_bytes >> halvings,
            sent_bytes: self.sent_bytes >> halvings,
            granted_bytes: self.granted_bytes.saturating_sub(passed.refill_bytes),
            spread_bytes: self.spread_bytes >> halvings,
            ..self
        }
        .bounded()
    }

    /// How much is owed, either way: what counts when there is no room for all.
    pub const fn owed_bytes(&self) -> u64 {
        self.received_bytes.abs_diff(self.sent_bytes)
    }

    /// Whether it is worth a record.
    pub fn is_worth_keeping(&self) -> bool {
        let largest = self.received_bytes.max(self.sent_bytes).max(self.granted_bytes).max(self.spread_bytes);
        self.key != 0 && largest >= LEDGER_STORED_BYTES_MIN
    }

    /// A contribution beyond the limit is cut off. A debt beyond it is forgiven, but by making all figures
    /// smaller in proportion: who got ten times what it gave did so afterwards, too, and ranks as before.
    fn bounded(self) -> Self {
        let (max, owed) = (self.kind.balance_bytes_max(), self.owed_bytes());
        if owed <= max {
            return self;
        }
        if self.received_bytes > self.sent_bytes {
            return Self { received_bytes: self.sent_bytes + max, ..self };
        }
        // Fits: `owed` is at least `max`.
        let part = |bytes: u64| (u128::from(bytes) * u128::from(max) / u128::from(owed)) as u64;
        let received_bytes = part(self.received_bytes);
        let sent_bytes = received_bytes + max;
        Self { received_bytes, sent_bytes, spread_bytes: part(self.spread_bytes), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVED: Passed = Passed { address_halvings: 1, key_halvings: 0, refill_bytes: 0 };

    fn balance(received_bytes: u64, sent_bytes: u64) -> Balance {
        Balance { key: 7, received_bytes, sent_bytes, ..Balance::default() }
    }

    fn halved(received_bytes: u64, sent_bytes: u64) -> (u64, u64) {
        let after = balance(received_bytes, sent_bytes).settled(HALVED);
        (after.received_bytes, after.sent_bytes)
    }

    #[test]
    fn both_sides_are_halved_and_nobody_changes_sides() {
        assert_eq!(halved(100, 60), (50, 30));
        for (received, sent) in [(0, 0), (1, 0), (0, 1), (3, 2), (2, 3), (7, 7), (u64::MAX, u64::MAX)] {
            let (less, other) = halved(received, sent);
            assert!(less <= received && other <= sent);
            assert!(received < sent || less >= other, "{received} {sent}");
            assert!(received > sent || less <= other, "{received} {sent}");
        }
    }

    #[test]
    fn each_kind_of_party_has_its_own_halvings() {
        let keyed = Balance { kind: PartyKind::Key, ..balance(100, 60) };
        assert_eq!(keyed.settled(HALVED), keyed);
        let both = Passed { key_halvings: 2, ..HALVED };
        assert_eq!(keyed.settled(both), Balance { received_bytes: 25, sent_bytes: 15, ..keyed });
        for many in [63, 64, u8::MAX] {
            assert_eq!(
                balance(1 << 62, 0).settled(Passed { address_halvings: many, ..HALVED }),
                balance(0, 0)
            );
        }
    }

    #[test]
    fn grants_refill_and_evidence_of_passing_on_ages_like_what_was_sent() {
        let before = Balance { granted_bytes: 10, spread_bytes: 9, ..balance(0, 20) };
        for (refill_bytes, granted_bytes) in [(9, 1), (10, 0), (11, 0)] {
            let after = before.settled(Passed { refill_bytes, ..HALVED });
            assert_eq!((after.granted_bytes, after.spread_bytes, after.sent_bytes), (granted_bytes, 4, 10));
        }
    }

    #[test]
    fn a_contribution_counts_up_to_its_limit() {
        for kind in [PartyKind::Address, PartyKind::Key] {
            let max = kind.balance_bytes_max();
            for (gave, left) in [(max - 1, max - 1), (max, max), (max + 1, max), (u64::MAX - 5, max)] {
                let after = Balance { kind, ..balance(gave + 5, 5) }.settled(Passed::default());
                assert_eq!((after.received_bytes, after.sent_bytes), (left + 5, 5), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_debt_beyond_its_limit_is_forgiven_and_ranks_as_before() {
        let max = BALANCE_ADDRESS_BYTES_MAX;
        for (got, left) in [(max - 1, max - 1), (max, max), (max + 1, max), (u64::MAX, max)] {
            assert_eq!(balance(0, got).settled(Passed::default()).sent_bytes, left);
        }
        let before = Balance { spread_bytes: 5 * max, ..balance(max, 11 * max) };
        let after = before.settled(Passed::default());
        assert_eq!((after.received_bytes, after.sent_bytes), (max / 10, max / 10 + max));
        assert_eq!(after.spread_bytes, max / 2);
        let huge = balance(u64::MAX / 2, u64::MAX).settled(Passed::default());
        assert!(huge.owed_bytes() == max && huge.received_bytes.abs_diff(max) <= 1, "no overflow");
    }

    #[test]
    fn what_is_bounded_once_stays_as_it_is() {
        for (received, sent) in [(u64::MAX, 3), (3, u64::MAX), (1 << 40, 1 << 50), (1 << 50, 1 << 40)] {
            let once = balance(received, sent).settled(HALVED);
            assert_eq!(once.settled(Passed::default()), once);
            assert_eq!(once.settled(HALVED.and(HALVED)), once.settled(HALVED).settled(HALVED));
        }
    }

    #[test]
    fn accounts_are_worth_keeping_from_a_block_on() {
        let min = LEDGER_STORED_BYTES_MIN;
        for (bytes, kept) in [(min - 1, false), (min, true), (min + 1, true)] {
            for of in [
                balance(bytes, 0),
                balance(0, bytes),
                Balance { granted_bytes: bytes, ..balance(0, 0) },
                Balance { spread_bytes: bytes, ..balance(0, 0) },
            ] {
                assert_eq!(of.is_worth_keeping(), kept, "{of:?}");
            }
        }
        assert!(!Balance { key: 0, ..balance(min, min) }.is_worth_keeping(), "nobody's");
    }
}
