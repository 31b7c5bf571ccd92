use super::*;
use crate::base::limits::CHOKE_ROUND;
use crate::base::time::Span;
use crate::engine::scheduler::class::{Class, Place};
use crate::shared::ledger::AccountId;

const NOW: Instant = Instant(1 << 40);
const PAST: Option<Instant> = Some(Instant(1));

fn conn(index: usize) -> ConnId {
    ConnId { index: index as u32, generation: 0 }
}

fn member(index: usize, kept_until: Option<Instant>) -> Member {
    Member { conn: conn(index), earned: None, wants: true, kept_until }
}

fn giver(index: usize, key: u64, kept_until: Option<Instant>) -> Member {
    Member { earned: Some(Place { class: Class::Owed, key }), ..member(index, kept_until) }
}

/// A choker of that limit, with so many unchoked rivals and so many that wait.
fn choker(limit: usize, unchoked: usize, waiting: usize) -> Choker {
    let mut choker = Choker { limit, unchoked, ..Choker::new(NOW) };
    for n in 0..waiting {
        choker.turns.push(conn(1_000 + n), AccountId::from_index(n as u32));
    }
    choker
}

/// A round in which `sent` bytes left a second, and the uplink was full at `full` of 80 looks.
fn round(choker: &mut Choker, sent: u64, full: u32, now: Instant) -> Instant {
    choker.note_sent(10 * sent);
    let mut due = None;
    for look in 1..=80 {
        choker.note_uplink(look <= full);
        due = choker.look(0, now + Span(CHOKE_ROUND.0 * look as u64 / 80));
    }
    assert_eq!(due, Some(Due::Round));
    now + CHOKE_ROUND
}

#[test]
fn nobody_is_choked_below_the_limit_and_one_beyond_it_is() {
    for (unchoked, choked) in [(39, 0), (40, 0), (41, 1)] {
        let choker = choker(40, unchoked, 0);
        let members = (0..unchoked).map(|index| member(index, PAST)).collect();
        assert_eq!(choker.decide(members, NOW).choke.len(), choked, "{unchoked}");
    }
}

#[test]
fn everybody_stays_unchoked_while_the_uplink_has_room() {
    for (full, limited) in [(69, false), (70, true), (71, true)] {
        let mut choker = choker(usize::MAX, 100, 0);
        round(&mut choker, 40 * UNCHOKED_RATE_MIN, full, NOW);
        assert_eq!(choker.limit() == 40, limited, "{full} looks of 80");
        assert_eq!(choker.limit() == usize::MAX, !limited);
    }
}

#[test]
fn the_limit_is_what_can_be_served_and_never_less_than_the_least() {
    let least = UNCHOKED_MIN as u64;
    for (rate, limit) in [(0, UNCHOKED_MIN), (least - 1, UNCHOKED_MIN), (least, UNCHOKED_MIN), (9, 9)] {
        let mut choker = choker(usize::MAX, 100, 0);
        round(&mut choker, rate * UNCHOKED_RATE_MIN, 80, NOW);
        assert_eq!(choker.limit(), limit, "{rate}");
    }
}

#[test]
fn the_limit_does_not_follow_every_breath_of_the_rate() {
    for (rate, limit) in [(35, 40), (36, 40), (45, 40), (46, 46), (34, 34)] {
        let mut choker = choker(40, 40, 10);
        round(&mut choker, rate * UNCHOKED_RATE_MIN, 80, NOW);
        assert_eq!(choker.limit(), limit, "{rate}");
    }
}

#[test]
fn who_was_unchoked_a_short_while_ago_is_not_choked() {
    for (until, choked) in [(NOW.0 - 1, 1), (NOW.0, 1), (NOW.0 + 1, 0)] {
        let choker = choker(10, 11, 0);
        let members = (0..11).map(|index| member(index, Some(Instant(until)))).collect();
        assert_eq!(choker.decide(members, NOW).choke.len(), choked, "{until}");
    }
}

#[test]
fn one_round_chokes_a_third_at_most() {
    for unchoked in [9, 12, 300, 3_000] {
        let choker = choker(1, unchoked, 0);
        let members = (0..unchoked).map(|index| member(index, PAST)).collect();
        let most = (unchoked / 3).max(CHOKES_MIN);
        assert_eq!(choker.decide(members, NOW).choke.len(), most, "{unchoked}");
    }
}

#[test]
fn who_gave_is_unchoked_and_keeps_its_place_but_for_those_that_go_by_turns() {
    let choker = choker(10, 10, 20);
    // Twelve have earned a place, of whom the two best wait; eight places are theirs.
    let mut members: Vec<Member> = (0..10).map(|n| giver(n, 10 + n as u64, PAST)).collect();
    members.extend([giver(1_000, 1, None), giver(1_001, 2, None)]);
    let decision = choker.decide(members, NOW);
    assert_eq!(decision.unchoke, [conn(1_000), conn(1_001)]);
    assert_eq!(decision.choke.len(), CHOKES_MIN, "{decision:?}");
    assert!(decision.choke.iter().all(|choked| choked.index >= 6), "{decision:?}");
    assert_eq!(decision.turns, 2, "two places go by turns");
}

#[test]
fn who_wants_nothing_goes_first_then_who_was_served_longest() {
    let choker = choker(4, 5, 2);
    let mut members: Vec<Member> =
        [50, 30, 40, 20, 10].iter().enumerate().map(|(n, &until)| member(n, Some(Instant(until)))).collect();
    members.push(Member { wants: false, ..member(9, Some(Instant(60))) });
    let decision = choker.decide(members, NOW);
    assert_eq!(decision.choke, [9, 4, 3, 1].map(conn));
    assert_eq!(decision.turns, 2);
}

#[test]
fn an_idle_uplink_unchokes_at_once_and_it_is_remembered_what_it_took() {
    let mut choker = choker(8, 8, 50);
    choker.note_uplink(true);
    assert_eq!(choker.look(0, NOW), None);
    choker.note_uplink(false);
    assert_eq!((choker.look(0, NOW), choker.look(0, NOW)), (None, Some(Due::Unchoke(2))));
    let count = choker.unchoked + 2;
    for _ in 0..2 {
        choker.turns.pop();
        choker.note_unchoked();
    }
    let mut now = round(&mut choker, UNCHOKED_RATE_MIN, 80, NOW);
    while now.since(NOW).0 < UNCHOKED_NEEDED_TIME.0 {
        assert!(choker.limit() >= count, "{choker:?}");
        now = round(&mut choker, UNCHOKED_RATE_MIN, 80, now);
    }
    assert_eq!(choker.limit(), UNCHOKED_MIN, "it is forgotten");
}

#[test]
fn one_look_unchokes_so_many_and_no_more() {
    for (room, count) in
        [(UNCHOKES_MAX - 1, UNCHOKES_MAX - 1), (UNCHOKES_MAX, UNCHOKES_MAX), (UNCHOKES_MAX + 1, UNCHOKES_MAX)]
    {
        let mut choker = choker(100, 100 - room, 200);
        assert_eq!(choker.look(0, NOW), Some(Due::Unchoke(count)));
    }
}

#[test]
fn so_much_is_sent_out_of_turn_and_no_more() {
    let mut choker = Choker::new(NOW);
    assert!(!choker.take_spare(), "a part of what was sent, and nothing was");
    let most = SERVED_OUT_OF_TURN_BYTES_MAX / u64::from(BLOCK_BYTES);
    choker.note_sent(SERVED_OUT_OF_TURN_PART * (SERVED_OUT_OF_TURN_BYTES_MAX + 1));
    choker.put_spare_back();
    assert!((0..most).all(|_| choker.take_spare()));
    assert!(!choker.take_spare(), "what is put back is no more than may be saved up");
    choker.put_spare_back();
    assert!(choker.take_spare() && !choker.take_spare());
    choker.note_sent(SERVED_OUT_OF_TURN_PART * u64::from(BLOCK_BYTES) - SERVED_OUT_OF_TURN_PART);
    assert!(!choker.take_spare());
    choker.note_sent(SERVED_OUT_OF_TURN_PART);
    assert!(choker.take_spare() && !choker.take_spare());
}
