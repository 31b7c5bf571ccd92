//! Looks at accounts, for whoever explains them. Changes nothing and keeps nobody: the numbers of a row are
//! read one after the other, and an account that is handed on meanwhile shows some of both parties'.

use super::{Account, AccountId, CLOSED, Ledger, NOBODY, Standing};
use crate::shared::sync::Ordering;
use crate::storage::ledger::PartyKind;

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub id: AccountId,
    /// Secret hash of the party.
    pub key: u64,
    /// That of the group which it belongs to; none of a group, nor of a key.
    pub group: Option<u64>,
    /// Whether it is known by its address or proved a key.
    pub kind: PartyKind,
    /// What the party gave and got.
    pub standing: Standing,
    /// What a group was given before it had given anything.
    pub granted_bytes: u64,
    /// Whether the party is connected.
    pub is_live: bool,
}

impl Row {
    fn of(id: AccountId, account: &Account) -> Option<Self> {
        let word = |key: u64| Some(key).filter(|&key| key != NOBODY);
        Some(Self {
            id,
            key: word(account.key.load(Ordering::Relaxed))?,
            group: word(account.group.load(Ordering::Relaxed)),
            kind: account.party_kind(),
            standing: account.standing(),
            granted_bytes: account.granted_bytes.load(Ordering::Relaxed),
            is_live: account.live.load(Ordering::Relaxed) & !CLOSED > 0,
        })
    }
}

impl Ledger {
    /// Every account that belongs to somebody.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let numbered = (0u32..).zip(&self.accounts);
        numbered.filter_map(|(index, account)| Row::of(AccountId(index), account))
    }

    /// The account of the party whose hash is `key`, if it has one.
    pub fn row_of(&self, key: u64) -> Option<Row> {
        self.places(key).filter_map(|id| Row::of(id, self.at(id))).find(|row| row.key == key)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::base::limits::LEDGER_PROBES_MAX;

    #[test]
    fn a_row_says_what_an_account_has_and_looking_keeps_nobody() {
        let ledger = Ledger::new(16);
        let (own, group) = (ledger.open(7), ledger.open(9));
        ledger.join(own, 9);
        ledger.credit(7, 100);
        ledger.debit(group, 30);
        ledger.grant(group, 20);
        let standing = |received_bytes, sent_bytes| Standing { received_bytes, sent_bytes };
        let row = Row {
            id: own,
            key: 7,
            group: Some(9),
            kind: PartyKind::Address,
            standing: standing(100, 0),
            granted_bytes: 0,
            is_live: true,
        };
        assert_eq!(ledger.row_of(7), Some(row));
        let row =
            Row { id: group, key: 9, group: None, standing: standing(100, 30), granted_bytes: 20, ..row };
        assert_eq!(ledger.row_of(9), Some(row));
        assert_eq!((ledger.row_of(11), ledger.rows().count()), (None, 2));
        ledger.close(own);
        assert_eq!(ledger.row_of(7).map(|row| row.is_live), Some(false));
    }

    #[test]
    fn the_account_that_strangers_share_is_nobodys() {
        let ledger = Ledger::new(LEDGER_PROBES_MAX);
        let parties = LEDGER_PROBES_MAX as u64 + 1;
        (1..=parties).for_each(|key| {
            ledger.open(key);
        });
        assert_eq!(ledger.rows().count(), LEDGER_PROBES_MAX);
    }
}
