//! The ledger: nothing is lost, and no account gets what belongs to another.

use super::{join, model, spawn};
use std::sync::Arc;

use crate::shared::ledger::Ledger;

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
