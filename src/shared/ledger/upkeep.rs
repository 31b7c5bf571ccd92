//! What the control thread does with all accounts while cores go on with them: has time pass, reads them,
//! and puts back those of the last run.
//!
//! Of balances only what was there a moment ago is taken off, by subtraction: what cores add meanwhile is
//! whole afterwards, as if it had come later. What is awaited is halved at each look. An account is entered
//! like by any core, so that it does not change hands meanwhile.

use super::{Account, AccountId, Ledger, NOBODY, Ordering, lessen};
use crate::storage::ledger::{Balance, Passed};

impl Account {
    /// Its figures, of nobody else if whoever calls has entered it.
    fn balance(&self, key: u64) -> Balance {
        let read = |word: &super::AtomicU64| word.load(Ordering::Relaxed);
        Balance {
            key,
            kind: self.party_kind(),
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
            granted_bytes: read(&self.granted_bytes),
            spread_bytes: read(&self.spread_bytes),
        }
    }

    fn settle(&self, key: u64, passed: Passed) {
        // Of a torrent that is gone, or that nobody else wants, nobody ever announces what is awaited.
        let half = |blocks: u16| Some(blocks / 2);
        let _ = self.awaited_blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
        let before = self.balance(key);
        let after = before.settled(passed);
        if before == after {
            return;
        }
        // What was given first: nobody who looks in between sees more credit than there is.
        for (word, before, after) in [
            (&self.received_bytes, before.received_bytes, after.received_bytes),
            (&self.sent_bytes, before.sent_bytes, after.sent_bytes),
            (&self.spread_bytes, before.spread_bytes, after.spread_bytes),
            (&self.granted_bytes, before.granted_bytes, after.granted_bytes),
        ] {
            if before > after {
                lessen(word, before - after);
            }
        }
    }
}

impl Ledger {
    /// Time passes for all accounts, those of connected parties, of groups and the shared one included, and
    /// what is owed is bounded. One thread calls this. What is submitted when it happens and never leaves is
    /// refunded in full though it was halved: at most half of what is under way, in favour of the party.
    pub fn settle(&self, passed: Passed) {
        for (_, account) in self.occupied() {
            let key = account.key.load(Ordering::Relaxed);
            if account.enter(key) {
                account.settle(key, passed);
                account.leave();
            }
        }
        self.at(self.shared()).settle(NOBODY, passed);
    }

    /// Puts the accounts of all parties into `balances`, each in its place; nobody's are empty.
    pub fn read_into(&self, balances: &mut Vec<Balance>) {
        balances.clear();
        balances.resize(self.accounts.len() - 1, Balance::default());
        for (place, account) in self.occupied() {
            let key = account.key.load(Ordering::Relaxed);
            if account.enter(key) {
                balances[place] = account.balance(key);
                account.leave();
            }
        }
    }

    /// Puts accounts of the last run back, before the first party connects; those that come first have the
    /// first choice. Returns how many found a place.
    pub fn restore(&self, balances: &[Balance]) -> usize {
        balances.iter().filter(|balance| self.restore_one(balance)).count()
    }

    fn restore_one(&self, balance: &Balance) -> bool {
        let Balance { key, kind, received_bytes, sent_bytes, granted_bytes, spread_bytes } = *balance;
        let known = |id: &AccountId| self.at(*id).key.load(Ordering::Relaxed) == key;
        let empty = |id: &AccountId| self.at(*id).key.load(Ordering::Relaxed) == NOBODY;
        if key == NOBODY || self.places(key).any(|id| known(&id)) {
            return false;
        }
        let Some(account) = self.places(key).find(empty).map(|id| self.at(id)) else { return false };
        if !account.take(key, kind) {
            return false;
        }
        account.received_bytes.store(received_bytes, Ordering::Relaxed);
        account.sent_bytes.store(sent_bytes, Ordering::Relaxed);
        account.granted_bytes.store(granted_bytes, Ordering::Relaxed);
        account.spread_bytes.store(spread_bytes, Ordering::Relaxed);
        account.leave();
        true
    }

    /// Accounts that belong to somebody, with their places.
    fn occupied(&self) -> impl Iterator<Item = (usize, &Account)> {
        let own = &self.accounts[..self.accounts.len() - 1];
        own.iter().enumerate().filter(|(_, account)| account.key.load(Ordering::Relaxed) != NOBODY)
    }

    const fn shared(&self) -> AccountId {
        AccountId(self.accounts.len() as u32 - 1)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::base::limits::{BALANCE_ADDRESS_BYTES_MAX, GRANT_REFILL_BYTES, LEDGER_PROBES_MAX};
    use crate::storage::ledger::PartyKind;

    const HALVED: Passed = Passed { address_halvings: 1, key_halvings: 0, refill_bytes: 0 };
    const MIB: u64 = 1 << 20;

    fn figures(ledger: &Ledger, id: AccountId) -> (u64, u64) {
        let standing = ledger.standing(id);
        (standing.received_bytes, standing.sent_bytes)
    }

    #[test]
    fn time_passes_for_connected_parties_groups_and_those_that_are_gone() {
        let ledger = Ledger::new(16);
        let (live, gone, group) = (ledger.open(7), ledger.open(9), ledger.open(11));
        ledger.join(live, 11);
        ledger.credit(7, 40);
        ledger.credit(9, 20);
        ledger.debit(live, 10);
        ledger.note_spread(group, 8);
        ledger.serve(group, 5);
        (0..7).for_each(|_| ledger.await_block(group));
        ledger.close(gone);
        ledger.settle(HALVED);
        assert_eq!(ledger.awaited_blocks(group), 3);
        assert_eq!((figures(&ledger, live), figures(&ledger, gone)), ((20, 5), (10, 0)));
        assert_eq!((figures(&ledger, group), ledger.spread_bytes(group)), ((20, 0), 4));
        assert_eq!(ledger.service(group), 5, "only differences count");
        ledger.settle(Passed::default());
        assert_eq!(figures(&ledger, live), (20, 5));
        assert_eq!(ledger.entries().map(|entry| entry.live).sum::<u32>(), 2, "nobody was closed or opened");
    }

    #[test]
    fn keys_age_by_themselves_and_keep_more() {
        let ledger = Ledger::new(16);
        let (address, key) = (ledger.open(7), ledger.open_as(9, PartyKind::Key));
        for party in [7, 9] {
            ledger.credit(party, 2 * BALANCE_ADDRESS_BYTES_MAX);
        }
        ledger.settle(Passed::default());
        assert_eq!(figures(&ledger, address).0, BALANCE_ADDRESS_BYTES_MAX);
        assert_eq!(figures(&ledger, key).0, 2 * BALANCE_ADDRESS_BYTES_MAX);
        ledger.settle(HALVED);
        assert_eq!(figures(&ledger, address).0, BALANCE_ADDRESS_BYTES_MAX / 2);
        assert_eq!(figures(&ledger, key).0, 2 * BALANCE_ADDRESS_BYTES_MAX);
        ledger.settle(Passed { key_halvings: 1, ..Passed::default() });
        assert_eq!(figures(&ledger, key).0, BALANCE_ADDRESS_BYTES_MAX);
    }

    #[test]
    fn a_place_that_changes_hands_changes_its_kind() {
        let ledger = Ledger::new(1);
        let keyed = ledger.open_as(7, PartyKind::Key);
        ledger.close(keyed);
        let other = ledger.open(9);
        ledger.credit(9, 8);
        ledger.settle(HALVED);
        assert_eq!((other, figures(&ledger, other).0), (keyed, 4));
    }

    #[test]
    fn grants_come_back_and_no_more_than_were_used() {
        let ledger = Ledger::new(16);
        let group = ledger.open(7);
        ledger.grant(group, GRANT_REFILL_BYTES + 1);
        let refill = Passed { refill_bytes: GRANT_REFILL_BYTES, ..Passed::default() };
        ledger.settle(refill);
        assert_eq!(ledger.granted_bytes(group), 1);
        ledger.settle(refill);
        assert_eq!(ledger.granted_bytes(group), 0);
    }

    #[test]
    fn time_passes_for_those_that_share_the_last_account() {
        let ledger = Ledger::new(1);
        ledger.open(7);
        let shared = ledger.open(9);
        ledger.debit(shared, 8);
        ledger.settle(HALVED);
        assert_eq!(figures(&ledger, shared), (0, 4));
        let mut balances = Vec::new();
        ledger.read_into(&mut balances);
        assert_eq!(balances.len(), 1, "they are nobody in particular");
    }

    #[test]
    fn what_was_read_is_what_is_put_back() {
        let ledger = Ledger::new(64);
        for key in (1..40).step_by(2) {
            let kind = if key % 3 == 0 { PartyKind::Key } else { PartyKind::Address };
            let id = ledger.open_as(key, kind);
            ledger.credit(key, key * MIB);
            ledger.debit(id, key);
            ledger.grant(id, key + 1);
            ledger.note_spread(id, key + 2);
        }
        let mut balances = Vec::new();
        ledger.read_into(&mut balances);
        let restored = Ledger::new(64);
        assert_eq!(restored.restore(&balances), 20);
        assert_eq!(restored.restore(&balances), 0, "each party once");
        let mut again = Vec::new();
        restored.read_into(&mut again);
        let order = |balances: &mut Vec<Balance>| balances.sort_unstable_by_key(|balance| balance.key);
        order(&mut balances);
        order(&mut again);
        assert_eq!(again, balances);
        assert!(restored.entries().all(|entry| entry.live == 0), "nobody is connected");
        let id = restored.open(7);
        assert_eq!(figures(&restored, id), (7 * MIB, 7));
    }

    #[test]
    fn of_more_parties_than_places_the_first_are_put_back() {
        for parties in [LEDGER_PROBES_MAX - 1, LEDGER_PROBES_MAX, LEDGER_PROBES_MAX + 1] {
            let ledger = Ledger::new(LEDGER_PROBES_MAX);
            let balances: Vec<Balance> = (1..=parties as u64)
                .map(|key| Balance { key, received_bytes: 1000 - key, ..Balance::default() })
                .collect();
            assert_eq!(ledger.restore(&balances), parties.min(LEDGER_PROBES_MAX), "{parties}");
            assert!(ledger.entries().all(|entry| entry.key <= LEDGER_PROBES_MAX as u64));
        }
    }
}
