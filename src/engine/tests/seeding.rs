//! What a seed hears, and whose requests it leaves for last.

use super::*;
use crate::base::limits::{
    CONTRIBUTION_BYTES_MIN, EVIDENCE_BYTES_MIN, GIFT_FRESH_PIECES, GIFT_FRESH_TIME, GIFT_FRESH_TIME_MAX,
    SPREAD_LOOKS_MAX, SPREAD_WEIGHT_MAX,
};
use crate::base::units::BLOCK_BYTES;
use crate::engine::scheduler::WEIGHT_ONE;
use crate::engine::scheduler::class::Class;
use crate::shared::ledger::AccountId;

impl Rig {
    /// One that we serve, of an address of its own.
    pub(super) fn client(&mut self, address: &str) -> ConnId {
        let conn = self.accept(address);
        assert_eq!(self.shake(conn, true), Admission::Here);
        self.say(conn, Message::Interested).unwrap();
        self.read(conn);
        conn
    }

    /// The same, that was given a block of `piece` and says that it has that.
    pub(super) fn holder(&mut self, address: &str, piece: u32) -> ConnId {
        let conn = self.client(address);
        self.say(conn, Message::Request(block(piece, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(self.read(conn).1, 1);
        self.say(conn, Message::Have(piece)).unwrap();
        conn
    }

    pub(super) fn group(&self, conn: ConnId) -> AccountId {
        self.engine.peer(conn).unwrap().accounts.unwrap()[1]
    }
}

#[test]
fn everybody_is_told_of_a_new_piece_who_has_it_too() {
    let mut rig = Rig::new(2, false);
    let conns = [rig.seed(), rig.leech(true)];
    conns.into_iter().for_each(|conn| drop(rig.read(conn)));
    rig.engine.note_have(TorrentId(0), 1);
    rig.engine.flush_haves();
    for conn in conns {
        let (bytes, _) = rig.read(conn);
        assert!(frames(&bytes).contains(&Message::Have(1)), "{conn:?}");
    }
}

#[test]
fn a_request_for_what_others_have_waits_for_so_long_and_no_longer() {
    for (after_ns, again) in
        [(GIFT_FRESH_TIME.0 - 1, true), (GIFT_FRESH_TIME.0, false), (GIFT_FRESH_TIME.0 + 1, false)]
    {
        let mut rig = Rig::new(2, true);
        let asks = rig.client("80.1.1.1:1");
        rig.holder("80.2.2.2:1", 0);
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        assert!(!rig.engine.bring_forward(asks).again, "nobody else has it");
        rig.read(asks);
        rig.say(asks, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
        assert!(rig.engine.bring_forward(asks).again, "somebody has it");
        rig.engine.ticked_at = rig.now + Span(after_ns);
        assert_eq!(rig.engine.bring_forward(asks).again, again, "after {after_ns} ns");
    }
}

#[test]
fn on_a_slow_link_a_gift_is_awaited_for_as_long_as_some_pieces_take_to_send() {
    let piece_bytes = 256 << 10;
    let pieces_bytes = u64::from(GIFT_FRESH_PIECES * piece_bytes);
    let rate = |span: Span| pieces_bytes * 1_000_000_000 / span.0;
    let (least, most) = (GIFT_FRESH_TIME, GIFT_FRESH_TIME_MAX);
    for (rate_bytes, span) in [
        (rate(least) + 1, least),
        (rate(Span(2 * least.0)), Span(2 * least.0)),
        (rate(most), most),
        (rate(most) - 1, most),
        (1, most),
    ] {
        let mut rig = Rig::of_pieces(4, piece_bytes, true);
        assert_eq!(rig.engine.torrents[0].as_ref().unwrap().gift_span, least, "no rate is known");
        rig.engine.egress.set_rate(rate_bytes);
        rig.engine.review_gifts();
        let found = rig.engine.torrents[0].as_ref().unwrap().gift_span;
        assert!(found.0.abs_diff(span.0) <= span.0 / 1000, "{rate_bytes} bytes a second: {found:?}");
        // It is awaited for so long, and no longer.
        rig.holder("80.2.2.2:1", 0);
        let asks = rig.client("80.1.1.1:1");
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        rig.read(asks);
        rig.say(asks, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
        let asked_at = rig.now;
        for (after, again) in [(found.0 - 1, true), (found.0, false)] {
            rig.engine.torrents[0].as_mut().unwrap().gift_span = found;
            rig.engine.ticked_at = asked_at + Span(after);
            assert_eq!(
                rig.engine.bring_forward(asks).again,
                again,
                "{rate_bytes} bytes a second, {after} ns"
            );
        }
    }
}

/// Of what free riders hold nobody gets anything: a seed that counted on them left the last pieces to nobody.
#[test]
fn a_piece_that_only_a_free_rider_has_is_given_again_once_it_was_awaited_in_vain() {
    for (kept_bytes, after, again) in [
        (EVIDENCE_BYTES_MIN, Span::ZERO, true),
        (EVIDENCE_BYTES_MIN, GIFT_FRESH_TIME, false),
        (0, GIFT_FRESH_TIME, true),
    ] {
        let mut rig = Rig::new(2, true);
        let rider = rig.holder("80.2.2.2:1", 0);
        rig.engine.ledger.debit(rig.group(rider), kept_bytes);
        rig.now = rig.now + after;
        rig.engine.ticked_at = rig.now;
        let asks = rig.client("80.1.1.1:1");
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        rig.read(asks);
        rig.say(asks, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(rig.engine.bring_forward(asks).again, again, "{kept_bytes} bytes, {after:?}");
    }
}

#[test]
fn only_so_many_requests_are_looked_at_for_one_that_comes_first() {
    for (before, found) in
        [(SPREAD_LOOKS_MAX - 1, true), (SPREAD_LOOKS_MAX, false), (SPREAD_LOOKS_MAX + 1, false)]
    {
        let mut rig = Rig::new(2, true);
        let asks = rig.client("80.1.1.1:1");
        rig.holder("80.2.2.2:1", 0);
        let len = BLOCK_BYTES / 2;
        (0..before as u32).for_each(|at| rig.say(asks, Message::Request(block(0, at * len, len))).unwrap());
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(rig.engine.bring_forward(asks).again, !found, "behind {before} others");
        let first = rig.engine.peer(asks).unwrap().requests[0].piece;
        assert_eq!(first, u32::from(found), "behind {before} others");
    }
}

impl Rig {
    fn sent_blocks(&self, class: Class) -> u64 {
        self.engine.counters.class_sent_bytes[class as usize].get() / u64::from(BLOCK_BYTES)
    }
}

#[test]
fn a_turn_carries_what_is_to_spread_and_not_what_stands_behind_it() {
    let mut rig = Rig::new(3, true);
    let asks = rig.client("80.1.1.1:1");
    rig.holder("80.2.2.2:1", 0);
    let before = rig.sent_blocks(Class::Grant);
    for piece in [1, 2, 0, 0] {
        rig.say(asks, Message::Request(block(piece, 0, BLOCK_BYTES))).unwrap();
    }
    rig.read(asks);
    assert_eq!(rig.sent_blocks(Class::Grant) - before, 2, "two pieces that nobody has");
    assert_eq!(rig.sent_blocks(Class::Again), 2, "and then what somebody has");
}

#[test]
fn who_was_held_back_long_enough_has_a_whole_turn() {
    for (after_ns, class) in [
        (GIFT_FRESH_TIME.0 - 1, Class::Again),
        (GIFT_FRESH_TIME.0, Class::Grant),
        (GIFT_FRESH_TIME.0 + 1, Class::Grant),
    ] {
        let mut rig = Rig::new(3, true);
        let asks = rig.client("80.1.1.1:1");
        for (address, piece) in [("80.2.2.2:1", 0), ("80.3.3.3:1", 1)] {
            rig.holder(address, piece);
        }
        rig.say(asks, Message::Request(block(2, 0, BLOCK_BYTES))).unwrap();
        rig.read(asks);
        let before = rig.sent_blocks(class);
        (0..2).for_each(|piece| rig.say(asks, Message::Request(block(piece, 0, BLOCK_BYTES))).unwrap());
        rig.now = rig.now + Span(after_ns);
        rig.engine.ticked_at = rig.now;
        rig.engine.rank_again(asks);
        assert_eq!(rig.engine.bring_forward(asks).again, class == Class::Again);
        rig.read(asks);
        assert_eq!(rig.sent_blocks(class) - before, 2, "after {after_ns} ns");
    }
}

#[test]
fn what_is_given_to_one_is_awaited_until_another_announces_it() {
    let mut rig = Rig::new(2, true);
    let [one, other] = ["80.1.1.1:1", "80.2.2.2:1"].map(|address| rig.client(address));
    let awaited = |rig: &Rig| rig.engine.ledger.awaited_blocks(rig.group(one));
    rig.say(one, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
    rig.read(one);
    assert_eq!(awaited(&rig), 1);
    rig.say(one, Message::Have(0)).unwrap();
    assert_eq!(awaited(&rig), 1, "that it has it proves nothing");
    rig.say(other, Message::Have(0)).unwrap();
    assert_eq!(awaited(&rig), 0);
    rig.say(one, Message::Request(block(1, 0, BLOCK_BYTES - 1))).unwrap();
    rig.read(one);
    assert_eq!(awaited(&rig), 1, "a block that is not whole is awaited, too");
}

#[test]
fn what_another_was_given_while_somebody_waited_is_not_given_twice_before_its_turn() {
    let mut rig = Rig::new(2, true);
    let asks = ["80.1.1.1:1", "80.2.2.2:1"].map(|address| rig.client(address));
    for conn in asks {
        rig.say(conn, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
        assert!(!rig.engine.bring_forward(conn).again, "nobody was given it yet");
    }
    asks.into_iter().for_each(|conn| drop(rig.read(conn)));
    let sent = [Class::Grant, Class::Again].map(|class| rig.sent_blocks(class));
    assert_eq!(sent, [1, 1], "the second one gets it when nobody wants anything rare");
}

/// What the seed believes while a client that passes on asks for a piece: whether it injects, and whether the
/// piece is one that others have.
fn asked_for(rig: &mut Rig, conn: ConnId, piece: u32) -> (bool, bool) {
    rig.say(conn, Message::Request(block(piece, 0, BLOCK_BYTES))).unwrap();
    let demand = rig.engine.bring_forward(conn);
    assert!([WEIGHT_ONE, WEIGHT_ONE * SPREAD_WEIGHT_MAX].contains(&demand.weight));
    (demand.weight > WEIGHT_ONE, demand.again)
}

#[test]
fn p44_connections_of_one_group_that_announce_everything_end_no_injection() {
    let mut rig = Rig::new(3, true);
    let honest = rig.client("80.1.1.1:1");
    rig.engine.ledger.debit(rig.group(honest), 1_000);
    rig.engine.ledger.note_spread(rig.group(honest), 1_000);
    // Each lacks another piece: none looks like a seed, and there seem to be two copies of each piece.
    for lacks in 0..3 {
        let liar = rig.client(&format!("80.2.2.{}:1", lacks + 1));
        for piece in (0..3).filter(|&piece| piece != lacks) {
            rig.say(liar, Message::Have(piece)).unwrap();
        }
        rig.say(liar, Message::Unchoke).unwrap();
    }
    assert_eq!(rig.shared.givers.of(0), 2);
    assert_eq!(asked_for(&mut rig, honest, 0), (true, false), "nothing has come of what they say");
    // An accomplice elsewhere that takes a block of it all makes one copy of each, and no more.
    let taker = rig.client("80.3.3.3:1");
    for piece in 0..3 {
        rig.say(taker, Message::Request(block(piece, 0, BLOCK_BYTES))).unwrap();
        rig.say(taker, Message::Have(piece)).unwrap();
    }
    rig.read(taker);
    assert!(asked_for(&mut rig, honest, 1).0, "one group holds everything, two make it enough");
}

#[test]
fn a_seed_shares_equally_once_two_groups_hold_each_piece_and_not_when_they_are_gone() {
    let mut rig = Rig::new(2, true);
    let honest = rig.client("80.1.1.1:1");
    rig.engine.ledger.debit(rig.group(honest), 1_000);
    rig.engine.ledger.note_spread(rig.group(honest), 1_000);
    let givers = ["80.2.2.2:1", "80.3.3.3:1"].map(|address| {
        let giver = rig.client(address);
        let key = rig.engine.peer(giver).unwrap().key;
        rig.engine.ledger.credit(key, CONTRIBUTION_BYTES_MIN);
        (0..2).for_each(|piece| rig.say(giver, Message::Have(piece)).unwrap());
        giver
    });
    assert_eq!(asked_for(&mut rig, honest, 0), (false, false), "both gave us something: they are believed");
    rig.engine.handle_gone(givers[0]);
    rig.perform();
    assert!(asked_for(&mut rig, honest, 1).0);
}

#[test]
fn a_file_of_one_short_block_counts_as_given_though_padding_follows() {
    let (piece_bytes, file_bytes) = (2 * BLOCK_BYTES, 5_000);
    let mut rig = Rig::new(1, false);
    let spans = [(file_bytes, false), (piece_bytes - file_bytes, true), (piece_bytes, false)];
    let spans = spans.map(|(length, pad)| FileSpan { length: length.into(), pad });
    let plain = TorrentMeta::plain(HASH, 2 * u64::from(piece_bytes), piece_bytes);
    rig.shared = rig.add(TorrentMeta { layout: Layout::new(spans.into_iter()), ..plain }, true);
    for (address, length) in [("80.1.1.1:1", file_bytes - 1), ("80.2.2.2:1", file_bytes)] {
        let client = rig.client(address);
        rig.say(client, Message::Request(block(0, 0, length))).unwrap();
        assert_eq!(rig.read(client).1, 1);
        rig.say(client, Message::Have(0)).unwrap();
    }
    assert_eq!(rig.shared.witnesses.copies(0, |_| false, |_| false), 1, "only who was given all of it");
}
