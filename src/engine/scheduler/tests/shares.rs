//! What those get who do not pass on, while a seed injects.

use super::*;
use crate::base::limits::{UNPROVEN_PERCENT, UNPROVEN_POOL_BYTES_MAX};

const SPREADS: Demand = Demand { again: false, spreads: true, weight: WEIGHT_ONE };

impl Rig {
    /// A turn of `bytes` for whoever is first; who it is, and out of which class.
    fn turn(&mut self, bytes: u64) -> Option<(ConnId, Class)> {
        let turn = self.scheduler.pick(&self.ledger)?;
        let sent = self.scheduler.charge(turn, bytes, &self.ledger).unwrap();
        self.scheduler.end(sent, &self.ledger);
        Some((turn.conn, turn.class))
    }

    /// Somebody of a group that nobody knows asks for blocks.
    fn newcomer(&mut self, group: u64) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let account = self.ledger.open(group);
        self.scheduler.enter(conn, Membership { own: account, balance: account, group: account });
        self.wait(conn);
        conn
    }
}

/// Bytes that those who pass on and all others got of `MIB` times `mib`, in turns of `turn_bytes`. There are
/// takers, and for each newcomer that was served comes another one.
fn shared_out(mib: u64, turn_bytes: u64) -> [u64; 2] {
    let mut rig = Rig::new();
    let spreaders = [1, 2].map(|party| rig.enter(party));
    spreaders.iter().for_each(|&conn| rig.scheduler.wait(conn, SPREADS, &rig.ledger));
    let takers: Vec<ConnId> = (3..40).map(|party| rig.enter(party)).collect();
    takers.iter().for_each(|&conn| rig.wait(conn));
    let mut next_group = 1_000;
    rig.newcomer(next_group);
    let mut got = [0; 2];
    for _ in 0..mib * MIB / turn_bytes {
        let (conn, class) = rig.turn(turn_bytes).expect("somebody waits");
        got[usize::from(class != Spread)] += turn_bytes;
        if spreaders.contains(&conn) {
            rig.scheduler.wait(conn, SPREADS, &rig.ledger);
        } else if takers.contains(&conn) {
            rig.wait(conn);
        } else if next_group < 1_400 {
            rig.scheduler.leave(conn);
            next_group += 1;
            rig.newcomer(next_group);
        }
        rig.scheduler.check();
    }
    got
}

#[test]
fn while_somebody_passes_on_grants_and_equal_shares_get_15_percent_together_and_no_more() {
    for turn_bytes in [BLOCK, 64 << 10, BURST_BYTES] {
        let [spread, others] = shared_out(64, turn_bytes);
        let percent = UNPROVEN_PERCENT as u64;
        let most = (spread + others) * percent / 100 + UNPROVEN_POOL_BYTES_MAX as u64 + turn_bytes;
        assert!(others <= most, "{others} of at most {most} in turns of {turn_bytes}");
        assert!(others + BURST_BYTES >= (spread + others) * percent / 100, "but that much: {others}");
    }
}

#[test]
fn nobody_waits_for_who_passes_on_once_that_wants_nothing() {
    let mut rig = Rig::new();
    let (spreader, taker) = (rig.enter(1), rig.enter(2));
    rig.wait(taker);
    for _ in 0..1_000 {
        assert_eq!(rig.turn(BLOCK), Some((taker, Rest)));
        rig.wait(taker);
    }
    // What the taker got meanwhile is not held against it: it gets what is saved up, then the others.
    rig.scheduler.wait(spreader, SPREADS, &rig.ledger);
    let mut before = 0;
    while rig.turn(BLOCK) == Some((taker, Rest)) {
        rig.wait(taker);
        before += BLOCK;
    }
    assert!(before >= UNPROVEN_POOL_BYTES_MAX as u64, "{before}");
    assert_eq!(rig.turn(BLOCK), Some((taker, Rest)), "it alone waits");
}

#[test]
fn who_comes_to_pass_on_begins_where_the_others_are() {
    let mut rig = Rig::new();
    let (old, new) = (rig.enter(1), rig.enter(2));
    rig.scheduler.wait(old, SPREADS, &rig.ledger);
    for _ in 0..100 {
        assert_eq!(rig.turn(SERVICE_STEP_BYTES), Some((old, Spread)));
        rig.scheduler.wait(old, SPREADS, &rig.ledger);
    }
    rig.scheduler.wait(new, SPREADS, &rig.ledger);
    let mut got = [0; 2];
    for _ in 0..20 {
        let (conn, _) = rig.turn(SERVICE_STEP_BYTES).unwrap();
        got[conn.index as usize] += 1;
        rig.scheduler.wait(conn, SPREADS, &rig.ledger);
    }
    assert!(got[0] >= 9 && got[1] >= 9, "{got:?}");
}

#[test]
fn what_a_group_gets_as_one_that_passes_on_uses_up_its_grant() {
    let mut rig = Rig::new();
    let conn = rig.newcomer(7);
    rig.scheduler.forget(conn);
    for served in 0..2 * GRANT_GROUP_BYTES / BLOCK {
        rig.scheduler.wait(conn, SPREADS, &rig.ledger);
        assert_eq!(rig.turn(BLOCK), Some((conn, Spread)), "{served}");
    }
    let account = rig.ledger.open(7);
    assert_eq!(rig.ledger.granted_bytes(account), GRANT_GROUP_BYTES);
}
