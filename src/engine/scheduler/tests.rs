mod backlog;
mod cores;
mod random;

use super::class::Class::*;
use super::flight::{EPOCH_AT_FIRST, EPOCH_MAX, PATIENCE};
use super::*;
use crate::base::limits::{MEMBER_TURN_BYTES, SEND_WINDOW_BYTES_AT_FIRST, SERVED_WITHIN, TURN_BYTES_LEAST};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// What one send carries at most.
const BURST_BYTES: u64 = 512 << 10;

/// A scheduler, a ledger, and connections of parties numbered from 1.
struct Rig {
    scheduler: Scheduler,
    ledger: Ledger,
    conns: u32,
}

impl Rig {
    fn new() -> Self {
        Self { scheduler: Scheduler::new(Instant(0)), ledger: Ledger::new(1 << 10), conns: 0 }
    }

    /// A connection of `party`, which is its own group, that has used up its grant.
    fn enter(&mut self, party: u64) -> ConnId {
        self.enter_group(party, party)
    }

    fn enter_group(&mut self, party: u64, group: u64) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let own = self.ledger.open(party);
        let membership = Membership { own, balance: own, group: self.ledger.open(group) };
        self.ledger.grant(membership.group, GRANT_GROUP_BYTES);
        self.scheduler.enter(conn, membership);
        conn
    }

    fn wait(&mut self, conn: ConnId) {
        self.scheduler.wait(conn, Demand::default(), &self.ledger);
    }

    /// Whose turn it is. The link is so fast that nothing stands in this machine's queue.
    fn turn(&mut self) -> Option<Turn> {
        loop {
            let turn = self.scheduler.pick(&self.ledger);
            let asks: Vec<ConnId> = std::iter::from_fn(|| self.scheduler.next_ask()).collect();
            asks.iter().for_each(|&conn| self.scheduler.note_backlog(conn, 0, Instant(0), &self.ledger));
            if turn.is_some() || asks.is_empty() {
                return turn;
            }
        }
    }

    /// Who is served next with `bytes`, and waits again.
    fn serve(&mut self, bytes: u64) -> Option<(ConnId, Class)> {
        let turn = self.turn()?;
        let sent = self.scheduler.charge(turn, bytes, &self.ledger).unwrap();
        self.scheduler.end(sent, &self.ledger);
        self.wait(turn.conn);
        Some((turn.conn, turn.class))
    }

    /// Who is picked next, and out of which class.
    fn pick(&mut self) -> Option<(ConnId, Class)> {
        self.turn().map(|turn| (turn.conn, turn.class))
    }

    /// A turn of as many bytes as it may carry begins.
    fn begin(&mut self) -> Option<(ConnId, InFlight)> {
        let turn = self.turn()?;
        let sent = self.scheduler.charge(turn, turn.bytes.min(BURST_BYTES), &self.ledger).unwrap();
        Some((turn.conn, sent))
    }

    /// Bytes that each connection gets of `blocks` blocks.
    fn shares(&mut self, blocks: usize) -> Vec<u64> {
        let mut shares = vec![0; self.conns as usize];
        for _ in 0..blocks {
            let (conn, _) = self.serve(BLOCK).expect("somebody waits");
            shares[conn.index as usize] += BLOCK;
        }
        shares
    }
}

#[test]
fn debts_are_paid_first_and_the_largest_before_others() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (1..=3).map(|party| rig.enter(party)).collect();
    rig.ledger.credit(2, MIB);
    rig.ledger.credit(3, 4 * MIB);
    conns.iter().for_each(|&conn| rig.wait(conn));
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(rig.serve(MIB).unwrap());
    }
    let owed = order.iter().filter(|(_, class)| *class == Owed).count();
    assert_eq!(owed, 5, "{order:?}");
    assert_eq!(order[0].0, conns[2]);
    let account = rig.ledger.open(3);
    assert_eq!(rig.ledger.standing(account).balance(), 0);
}

#[test]
fn what_is_left_goes_to_givers_in_proportion_and_to_takers_last() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (1..=3).map(|party| rig.enter(party)).collect();
    rig.ledger.credit(1, 3 * MIB);
    rig.ledger.credit(2, MIB);
    conns.iter().for_each(|&conn| rig.wait(conn));
    let shares = rig.shares((16 * MIB / BLOCK) as usize);
    assert_eq!(shares[2], 0, "the free rider gets nothing while others want it");
    let ratio = shares[0] as f64 / shares[1] as f64;
    assert!((2.5..3.5).contains(&ratio), "{shares:?}");
}

#[test]
fn it_is_an_order_and_never_a_gate() {
    let mut rig = Rig::new();
    let taker = rig.enter(1);
    rig.wait(taker);
    assert_eq!(rig.shares(1_000), [1_000 * BLOCK]);
}

#[test]
fn s1_a_hundred_connections_of_a_group_get_what_one_gets() {
    let mut rig = Rig::new();
    let single = rig.enter(1);
    rig.wait(single);
    for party in 0..100 {
        let one_of_many = rig.enter_group(1_000 + party, 2);
        rig.wait(one_of_many);
    }
    let shares = rig.shares(2_000);
    let many: u64 = shares[1..].iter().sum();
    assert!(many.abs_diff(shares[0]) <= 2 * SERVICE_STEP_BYTES, "{} against {many}", shares[0]);
}

#[test]
fn s1_connections_of_one_giver_are_paid_once() {
    let mut rig = Rig::new();
    let single = rig.enter(1);
    rig.wait(single);
    let many: Vec<ConnId> = (0..50).map(|_| rig.enter(2)).collect();
    many.iter().for_each(|&conn| rig.wait(conn));
    rig.ledger.credit(1, 64 * MIB);
    rig.ledger.credit(2, 64 * MIB);
    // Who gave something is ranked anew.
    for conn in many.into_iter().chain([single]) {
        rig.scheduler.forget(conn);
        rig.wait(conn);
    }
    let shares = rig.shares((128 * MIB / BLOCK) as usize);
    let many: u64 = shares[1..].iter().sum();
    assert!(shares[0].abs_diff(many) <= 2 * MIB, "{} against {many}", shares[0]);
}

#[test]
fn newcomers_get_their_grant_at_once_and_the_pool_bounds_all_of_them() {
    let mut rig = Rig::new();
    let giver = rig.enter(1);
    rig.ledger.credit(1, 1_000 * MIB);
    rig.wait(giver);
    for party in 2..200 {
        let conn = ConnId { index: rig.conns, generation: 0 };
        rig.conns += 1;
        let account = rig.ledger.open(party);
        rig.scheduler.enter(conn, Membership { own: account, balance: account, group: account });
        rig.wait(conn);
    }
    let (_, class) = rig.serve(BLOCK).unwrap();
    assert_eq!(class, Grant);
    let shares = rig.shares((100 * MIB / BLOCK) as usize);
    let newcomers: u64 = shares[1..].iter().sum();
    let most = 100 * MIB / GRANT_PART + GRANT_POOL_BYTES_AT_FIRST as u64 + BLOCK;
    assert!(newcomers <= most && newcomers >= most * 9 / 10, "{newcomers} of at most {most}");
}

#[test]
fn before_anything_was_sent_a_block_may_be_granted_and_a_part_of_that() {
    let parts = GRANT_PART as i64;
    let least = (GRANT_POOL_BYTES_AT_FIRST * parts / (parts - 1)) as u64;
    for (granted, class) in [(least - 1, Grant), (least, Owed), (least + 1, Owed)] {
        let mut rig = Rig::new();
        let giver = rig.enter(1);
        rig.ledger.credit(1, MIB);
        let newcomer = ConnId { index: 1, generation: 0 };
        let account = rig.ledger.open(2);
        rig.scheduler.enter(newcomer, Membership { own: account, balance: account, group: account });
        rig.wait(newcomer);
        assert_eq!(rig.serve(granted), Some((newcomer, Grant)));
        rig.wait(giver);
        assert_eq!(rig.serve(BLOCK).unwrap().1, class, "{granted} bytes were granted");
    }
}

#[test]
fn p14_a_turn_counts_as_so_much_at_least_whatever_it_carries() {
    let least = TURN_BYTES_LEAST;
    for (bytes, counts) in [(1, least), (least - 1, least), (least, least), (least + 1, least + 1)] {
        let mut rig = Rig::new();
        let account = rig.ledger.open(1);
        let conn = ConnId { index: 0, generation: 0 };
        rig.scheduler.enter(conn, Membership { own: account, balance: account, group: account });
        rig.wait(conn);
        assert_eq!(rig.serve(bytes), Some((conn, Grant)));
        assert_eq!((rig.ledger.granted_bytes(account), rig.ledger.service(account)), (counts, counts));
        assert_eq!(rig.ledger.standing(account).sent_bytes, bytes, "the debt is what it got");
    }
}

#[test]
fn a_group_is_granted_so_much_and_no_more() {
    for (granted, class) in
        [(GRANT_GROUP_BYTES - 1, Grant), (GRANT_GROUP_BYTES, Rest), (GRANT_GROUP_BYTES + 1, Rest)]
    {
        let mut rig = Rig::new();
        let account = rig.ledger.open(1);
        let conn = ConnId { index: 0, generation: 0 };
        rig.scheduler.enter(conn, Membership { own: account, balance: account, group: account });
        rig.ledger.grant(account, granted);
        rig.wait(conn);
        assert_eq!(rig.serve(BLOCK), Some((conn, class)), "{granted}");
    }
}

#[test]
fn weights_share_out_the_rest() {
    let mut rig = Rig::new();
    let (heavy, light) = (rig.enter(1), rig.enter(2));
    let demand = |weight| Demand { weight, ..Demand::default() };
    rig.scheduler.wait(heavy, demand(3 * WEIGHT_ONE), &rig.ledger);
    rig.scheduler.wait(light, demand(WEIGHT_ONE), &rig.ledger);
    let mut got = [0; 2];
    for _ in 0..4_000 {
        let turn = rig.scheduler.pick(&rig.ledger).unwrap();
        let conn = turn.conn;
        let sent = rig.scheduler.charge(turn, BLOCK, &rig.ledger).unwrap();
        rig.scheduler.end(sent, &rig.ledger);
        got[conn.index as usize] += 1;
        rig.scheduler.wait(conn, demand([3 * WEIGHT_ONE, WEIGHT_ONE][conn.index as usize]), &rig.ledger);
    }
    assert!((2_950..=3_050).contains(&got[0]), "{got:?}");
}

#[test]
fn no_reader_alone_fills_the_window_with_what_it_asks_again_for() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (1..=6).map(|party| rig.enter(party)).collect();
    for &conn in &conns {
        rig.scheduler.wait(conn, Demand { again: true, ..Demand::default() }, &rig.ledger);
    }
    let share_bytes = rig.scheduler.window.limit_bytes() / TURNS_IN_FLIGHT;
    for conn in &conns[..TURNS_IN_FLIGHT as usize] {
        let turn = rig.turn().unwrap();
        assert_eq!((turn.conn, turn.class, turn.bytes), (*conn, Again, share_bytes));
        rig.scheduler.charge(turn, turn.bytes, &rig.ledger).unwrap();
    }
    assert_eq!(rig.pick(), None, "together they do");
}

#[test]
fn who_asks_again_for_what_was_given_away_is_served_when_nobody_else_wants_anything() {
    let mut rig = Rig::new();
    let conns = [1, 2, 3].map(|party| rig.enter(party));
    let [again, owed, other] = conns;
    rig.ledger.credit(2, MIB);
    [again, owed].into_iter().for_each(|conn| {
        rig.scheduler.wait(conn, Demand { again: true, ..Demand::default() }, &rig.ledger);
    });
    rig.wait(other);
    assert_eq!(rig.pick(), Some((owed, Owed)), "what somebody earned it gets, whatever it asks for");
    assert_eq!(rig.pick(), Some((other, Rest)));
    assert_eq!(rig.pick(), Some((again, Again)));
    assert_eq!(rig.pick(), None);
}

#[test]
fn who_leaves_or_is_forgotten_waits_no_more_and_a_refund_restores_the_account() {
    let mut rig = Rig::new();
    let (first, second, third) = (rig.enter(1), rig.enter(1), rig.enter(2));
    [first, second, third].into_iter().for_each(|conn| rig.wait(conn));
    rig.scheduler.leave(first, &rig.ledger);
    rig.scheduler.forget(second);
    assert!(!rig.scheduler.holds(first) && !rig.scheduler.holds(second) && rig.scheduler.holds(third));
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    let conn = turn.conn;
    rig.scheduler.charge(turn, 5 * BLOCK, &rig.ledger);
    rig.scheduler.refund(conn, 2 * BLOCK, &rig.ledger);
    let account = rig.ledger.open(2);
    assert_eq!((conn, rig.ledger.standing(account).sent_bytes), (third, 3 * BLOCK));
    assert!(rig.scheduler.is_idle());
    rig.scheduler.leave(second, &rig.ledger);
    rig.scheduler.leave(third, &rig.ledger);
    assert_eq!(rig.scheduler.parties.accounts(), 0);
}

#[test]
fn who_is_reseated_waits_anew_for_the_new_account_and_its_group_stands_where_it_stood() {
    let mut rig = Rig::new();
    let (moved, other) = (rig.enter_group(1, 10), rig.enter_group(2, 20));
    rig.wait(moved);
    rig.serve(64 * BLOCK).unwrap();
    let (old, own, group) = (rig.ledger.open(1), rig.ledger.open(3), rig.ledger.open(10));
    rig.scheduler.reseat(moved, Membership { own, balance: own, group }, &rig.ledger);
    assert!(rig.scheduler.is_idle());
    [moved, other].into_iter().for_each(|conn| rig.wait(conn));
    for block in 0..32 {
        assert_eq!(rig.serve(BLOCK), Some((other, Rest)), "block {block}");
    }
    rig.scheduler.forget(other);
    assert_eq!(rig.serve(BLOCK), Some((moved, Rest)));
    let sent = |account| rig.ledger.standing(account).sent_bytes / BLOCK;
    assert_eq!((sent(old), sent(own), sent(group)), (64, 1, 65));
    [moved, other].into_iter().for_each(|conn| rig.scheduler.leave(conn, &rig.ledger));
    assert_eq!(rig.scheduler.parties.accounts(), 0);
}

#[test]
fn no_more_than_so_many_that_stand_wrong_are_passed_over_in_one_pick() {
    for (wrong, passed_over) in
        [(SCHEDULER_LOOKS_MAX - 1, true), (SCHEDULER_LOOKS_MAX, true), (SCHEDULER_LOOKS_MAX + 1, false)]
    {
        let mut rig = Rig::new();
        let owed = rig.enter(1);
        rig.ledger.credit(1, MIB);
        for party in 2..wrong as u64 + 2 {
            let conn = rig.enter(party);
            rig.ledger.credit(party, 4 * MIB);
            rig.wait(conn);
            // Another core pays it meanwhile, and more.
            let account = rig.ledger.open(party);
            rig.ledger.debit(account, 100 * MIB);
        }
        rig.wait(owed);
        let (conn, class) = rig.pick().unwrap();
        let want = if passed_over { (true, Owed) } else { (false, Rest) };
        assert_eq!((conn == owed, class), want, "{wrong} stand wrong");
        rig.scheduler.check();
    }
}

#[test]
fn a_long_turn_is_a_quarter_of_the_window_and_no_more_than_its_limit() {
    let whole = TURN_BYTES * TURNS_IN_FLIGHT;
    for (window_bytes, turn_bytes) in [
        (whole - TURNS_IN_FLIGHT, TURN_BYTES - 1),
        (whole, TURN_BYTES),
        (whole + TURNS_IN_FLIGHT, TURN_BYTES),
    ] {
        assert_eq!(long_turn_bytes(window_bytes), turn_bytes, "{window_bytes}");
    }
}

/// The kernel serves all sends in flight at the same rate each, `rate_bytes` together, as TCP does on a full
/// link. Bytes of each connection after so long.
fn on_a_shared_link(rig: &mut Rig, conns: &[ConnId], rate_bytes: u64, time: Span) -> Vec<u64> {
    const STEP: Span = Span::from_ms(1);
    conns.iter().for_each(|&conn| rig.wait(conn));
    let mut got = vec![0; rig.conns as usize];
    let mut flying: Vec<(ConnId, InFlight, u64)> = Vec::new();
    let mut now = Instant(0);
    for _ in 0..time.0 / STEP.0 {
        while rig.scheduler.window.is_open_to(Owed)
            && let Some((conn, sent)) = rig.begin()
        {
            flying.push((conn, sent, 0));
        }
        let each = rate_bytes / 1_000 / flying.len().max(1) as u64;
        for (conn, sent, out) in &mut flying {
            *out += each;
            got[conn.index as usize] += each.min(sent.bytes());
        }
        let (ended, rest) = flying.into_iter().partition(|(_, sent, out)| *out >= sent.bytes());
        flying = rest;
        for (conn, sent, _) in ended {
            rig.scheduler.end(sent, &rig.ledger);
            rig.wait(conn);
        }
        now = now + STEP;
        rig.scheduler.roll(now, &rig.ledger);
    }
    got
}

#[test]
fn s1_on_a_full_link_500_connections_of_a_group_get_what_one_gets() {
    let mut rig = Rig::new();
    let mut conns = vec![rig.enter(1)];
    conns.extend((0..500).map(|party| rig.enter_group(1_000 + party, 2)));
    let got = on_a_shared_link(&mut rig, &conns, 12_500_000, Span::from_secs(10));
    let many: u64 = got[1..].iter().sum();
    assert!(many <= got[0] * 105 / 100, "{many} against {}", got[0]);
}

#[test]
fn a_creditor_alone_keeps_takers_off_a_full_link() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (1..=5).map(|party| rig.enter(party)).collect();
    rig.ledger.credit(1, 1_000 * MIB);
    let got = on_a_shared_link(&mut rig, &conns, 12_500_000, Span::from_secs(10));
    let takers: u64 = got[1..].iter().sum();
    assert!(takers * 2 <= got[0], "{got:?}");
}

#[test]
fn a_party_alone_has_all_of_the_window_and_two_have_half_each() {
    let mut rig = Rig::new();
    let many: Vec<ConnId> = (0..8).map(|_| rig.enter(1)).collect();
    many.iter().for_each(|&conn| rig.wait(conn));
    let window_bytes = rig.scheduler.window.limit_bytes();
    assert_eq!(rig.scheduler.pick(&rig.ledger).map(|turn| turn.bytes), Some(window_bytes));
    let other = rig.enter(2);
    rig.wait(other);
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    assert_eq!(turn.bytes, window_bytes / 2);
    // With that in flight the party is parked, until it ends or counts no longer.
    let sent = rig.scheduler.charge(turn, turn.bytes, &rig.ledger).unwrap();
    assert_eq!(rig.begin().map(|(conn, _)| conn), Some(other));
    assert!(rig.pick().is_none() && !rig.scheduler.is_idle());
    rig.scheduler.end(sent, &rig.ledger);
    assert!(rig.pick().is_some_and(|(conn, _)| conn != other));
}

#[test]
fn what_is_stuck_keeps_its_own_party_waiting_no_longer_than_others() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (0..2).map(|_| rig.enter(1)).collect();
    conns.iter().for_each(|&conn| rig.wait(conn));
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    rig.scheduler.charge(turn, turn.bytes, &rig.ledger).unwrap();
    assert_eq!(rig.scheduler.pick(&rig.ledger), None);
    rig.scheduler.roll(Instant(0) + Span(PATIENCE as u64 * EPOCH_MAX.0), &rig.ledger);
    assert!(rig.scheduler.pick(&rig.ledger).is_some());
}

#[test]
fn who_is_in_the_middle_of_a_piece_comes_first_among_takers_and_not_before_givers() {
    for (begun, is_last) in [(false, true), (true, false), (true, true)] {
        let mut rig = Rig::new();
        let [first, served, mate, giver] = [1, 2, 2, 3].map(|party| rig.enter(party));
        rig.ledger.credit(3, 64 * MIB);
        // Both stand in *rest*; one was served more since.
        rig.wait(first);
        rig.pick().unwrap();
        for conn in [served, if is_last { served } else { mate }] {
            rig.wait(conn);
            rig.serve(5 * SERVICE_STEP_BYTES).unwrap();
            rig.scheduler.forget(conn);
        }
        rig.wait(first);
        rig.scheduler.wait(served, Demand { begun, ..Demand::default() }, &rig.ledger);
        rig.wait(giver);
        let order: Vec<ConnId> = (0..3).map(|_| rig.pick().unwrap().0).collect();
        let goes_on = begun && is_last;
        assert_eq!(order, if goes_on { [giver, served, first] } else { [giver, first, served] });
    }
}

#[test]
fn who_gave_and_is_in_the_middle_of_a_piece_comes_before_larger_creditors_and_no_better_class() {
    for begun in [false, true] {
        let mut rig = Rig::new();
        let [small, large, even] = [1, 2, 3].map(|party| rig.enter(party));
        rig.ledger.credit(1, MIB);
        rig.wait(small);
        rig.serve(u64::from(BLOCK_BYTES)).unwrap();
        rig.scheduler.forget(small);
        rig.ledger.credit(2, 64 * MIB);
        rig.ledger.credit(3, MIB);
        rig.wait(even);
        rig.serve(MIB).unwrap();
        rig.scheduler.forget(even);
        rig.wait(large);
        for (conn, begun) in [(small, begun), (even, true)] {
            rig.scheduler.wait(conn, Demand { begun, ..Demand::default() }, &rig.ledger);
        }
        let order: Vec<ConnId> = (0..3).map(|_| rig.pick().unwrap().0).collect();
        assert_eq!(order, if begun { [small, large, even] } else { [large, small, even] }, "{begun}");
    }
}

#[test]
fn a_party_of_which_something_is_stuck_gets_no_new_patience() {
    let mut rig = Rig::new();
    let [stuck, next, other] = [1, 1, 2].map(|party| rig.enter(party));
    let patience = Span(PATIENCE as u64 * EPOCH_AT_FIRST.0);
    for (conn, waits) in [(stuck, patience), (next, EPOCH_AT_FIRST), (next, EPOCH_AT_FIRST)] {
        rig.wait(conn);
        let turn = rig.scheduler.pick(&rig.ledger).unwrap();
        rig.scheduler.charge(turn, SEND_WINDOW_BYTES_AT_FIRST, &rig.ledger).unwrap();
        rig.wait(other);
        assert_eq!(rig.scheduler.pick(&rig.ledger), None);
        rig.scheduler.forget(other);
        let epochs = waits.0 / EPOCH_AT_FIRST.0;
        let begun = rig.scheduler.window.epoch();
        while rig.scheduler.window.epoch() < begun + epochs {
            let due = rig.scheduler.window.due();
            rig.scheduler.roll(due, &rig.ledger);
        }
        rig.wait(other);
        assert_eq!(rig.pick().map(|(conn, _)| conn), Some(other), "after {epochs} epochs");
    }
}

#[test]
fn a_group_is_passed_over_that_was_sent_nothing_for_so_long() {
    let mut rig = Rig::new();
    let [conn, mate] = [9, 9].map(|group| rig.enter_group(u64::from(rig.conns) + 20, group));
    let at = Instant(SERVED_WITHIN.0);
    assert_eq!(rig.scheduler.passed_over(conn, at), Some(2), "never sent anything");
    rig.scheduler.window = Window::new(at);
    rig.scheduler.out_of_turn(mate, BLOCK).unwrap();
    for (since, members) in [(at.0 - 1, None), (at.0, Some(2)), (at.0 + 1, Some(2))] {
        assert_eq!(rig.scheduler.passed_over(conn, Instant(since)), members, "{since}");
    }
    rig.scheduler.missed_turn(mate);
    assert_eq!(rig.scheduler.passed_over(conn, Instant(0)), Some(2), "it carried nothing");
}

#[test]
fn members_of_a_party_take_long_turns() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (0..3).map(|_| rig.enter(1)).collect();
    conns.iter().for_each(|&conn| rig.wait(conn));
    let turns = MEMBER_TURN_BYTES / BLOCK;
    let order: Vec<u32> = (0..3 * turns).map(|_| rig.serve(BLOCK).unwrap().0.index).collect();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 2, "{order:?}");
}

#[test]
fn a_group_that_comes_back_begins_where_the_others_are() {
    let mut rig = Rig::new();
    let (gone, other) = (rig.enter(1), rig.enter(2));
    rig.wait(gone);
    rig.shares(64);
    rig.scheduler.forget(gone);
    rig.scheduler.leave(gone, &rig.ledger);
    rig.wait(other);
    rig.serve(BLOCK).unwrap();
    let back = rig.enter(1);
    rig.wait(back);
    let shares = rig.shares(2_000);
    assert!(shares[1].abs_diff(shares[2]) <= 2 * SERVICE_STEP_BYTES, "{shares:?}");
}
