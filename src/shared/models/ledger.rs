//! The ledger: nothing is lost, and no account gets what belongs to another.

use super::{join, model, spawn};
use std::sync::Arc;

use loom::thread::JoinHandle;

use crate::shared::ledger::Ledger;
use crate::storage::ledger::Passed;

const HALVED: Passed = Passed { address_halvings: 1, key_halvings: 0, refill_bytes: 0 };

#[test]
fn loom_credit_and_debit_of_all_cores_add_up() {
    model(3, || {
        let ledger = Arc::new(Ledger::new(1));
        let id = ledger.open(7);
        let cores = [
            spawn(&ledger, |ledger| ledger.credit(7, 3)),
            spawn(&ledger, move |ledger| {
                ledger.debit(id, 5);
                ledger.refund(id, 2);
            }),
        ];
        ledger.debit(id, 10);
        join(cores);
        let standing = ledger.standing(id);
        assert_eq!((standing.received_bytes, standing.sent_bytes), (3, 13));
    });
}

#[test]
fn loom_an_account_that_changes_hands_gets_no_credit_of_who_had_it() {
    model(3, || {
        let ledger = Arc::new(Ledger::new(1));
        let old = ledger.open(7);
        ledger.close(old);
        let creditor = spawn(&ledger, |ledger| ledger.credit(7, 3));
        let newcomer = spawn(&ledger, |ledger| {
            let id = ledger.open(8);
            assert_eq!(ledger.standing(id).received_bytes, 0);
        });
        join([creditor, newcomer]);
        let mine = ledger.entries().find(|entry| entry.key == 8);
        assert!(mine.is_none_or(|entry| entry.standing.received_bytes == 0));
    });
}

#[test]
fn loom_two_cores_that_open_an_account_at_once_share_it() {
    model(2, || {
        let ledger = Arc::new(Ledger::new(2));
        let cores = [(); 2].map(|()| spawn(&ledger, |ledger| ledger.debit(ledger.open(8), 1)));
        join(cores);
        let found: Vec<_> = ledger.entries().filter(|entry| entry.key == 8).collect();
        assert_eq!(found.len(), 1, "one account");
        assert_eq!((found[0].standing.sent_bytes, found[0].live), (2, 2));
    });
}

#[test]
fn loom_time_that_passes_beside_credit_and_debit_loses_nothing_but_what_it_halves() {
    model(3, || {
        let ledger = Arc::new(Ledger::new(1));
        let id = ledger.open(7);
        ledger.credit(7, 8);
        ledger.debit(id, 8);
        let cores = [
            spawn(&ledger, |ledger| ledger.credit(7, 4)),
            spawn(&ledger, move |ledger| {
                ledger.debit(id, 6);
                ledger.refund(id, 2);
            }),
        ];
        ledger.settle(HALVED);
        join(cores);
        let standing = ledger.standing(id);
        // Halved before or after the other core came, or between its two steps.
        assert!([8 / 2 + 4, (8 + 4) / 2].contains(&standing.received_bytes), "{standing:?}");
        assert!([8 / 2 + 4, (8 + 6) / 2 - 2, (8 + 4) / 2].contains(&standing.sent_bytes), "{standing:?}");
    });
}

/// The only account of a ledger, which one party has left, and a core that gives it to another.
fn account_that_changes_hands() -> (Arc<Ledger>, JoinHandle<()>) {
    let ledger = Arc::new(Ledger::new(1));
    let old = ledger.open(7);
    ledger.credit(7, 8);
    ledger.close(old);
    let newcomer = spawn(&ledger, |ledger| {
        ledger.open(9);
        ledger.credit(9, 4);
    });
    (ledger, newcomer)
}

#[test]
fn loom_time_that_passes_while_an_account_changes_hands_takes_nothing_from_who_has_it_now() {
    model(3, || {
        let (ledger, newcomer) = account_that_changes_hands();
        ledger.settle(HALVED);
        join([newcomer]);
        let found: Vec<_> =
            ledger.entries().map(|entry| (entry.key, entry.standing.received_bytes)).collect();
        // While the account is looked at, the newcomer may have to share the last one.
        assert!([(9, 4), (9, 2), (7, 4)].map(|one| vec![one]).contains(&found), "{found:?}");
    });
}

#[test]
fn loom_whoever_reads_all_accounts_sees_nobody_with_the_figures_of_another() {
    model(3, || {
        let (ledger, newcomer) = account_that_changes_hands();
        let mut balances = Vec::new();
        ledger.read_into(&mut balances);
        let seen = (balances[0].key, balances[0].received_bytes);
        assert!([(0, 0), (7, 8), (9, 0), (9, 4)].contains(&seen), "{seen:?}");
        join([newcomer]);
    });
}
