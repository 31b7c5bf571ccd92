//! Pieces that somebody is in the middle of, on slow links: they come first, and no more than that.

use super::*;
use crate::base::limits::{BEGUN_PIECE_BYTES_MAX, BEGUN_PIECE_SPANS, GRANT_GROUP_BYTES, REQUESTS_QUEUED_MAX};
use crate::base::units::BLOCK_BYTES;

/// Pieces of the torrent.
const PIECES: u32 = 24;

/// Blocks of a piece.
const BLOCKS: u32 = 16;

/// How somebody asks for pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// One after the other.
    Plain,
    /// Out of step with turns: one carries the last block of a piece and the first of the next.
    OutOfStep,
    /// All but the last block of each, and before the next one a block of the last one, which is cancelled.
    Bait,
}

/// A client that asks and asks, and what it got.
struct Taker {
    conn: ConnId,
    manner: Manner,
    plan: Vec<(u32, u32)>,
    at: usize,
    got_bytes: u64,
}

/// A node of 256 KiB/s that lacks one piece and can be repaid, and eight that fetch from it.
struct Counter {
    rig: Rig,
    takers: Vec<Taker>,
    flying: VecDeque<(ConnId, u64, u32)>,
}

impl Counter {
    /// All took their grants. If they gave something, the last one got back five times that, the others as
    /// much.
    fn new(gave: bool, manner: Manner) -> Self {
        let piece_bytes = BLOCKS * BLOCK_BYTES;
        let meta = TorrentMeta::plain(HASH, u64::from(PIECES * piece_bytes), piece_bytes);
        let mut have = Bitfield::full(PIECES);
        have.clear(PIECES - 1);
        let shared = SharedTorrent::new(meta, &have, 1);
        let mut counter = Self {
            rig: Rig::of(shared, false, Default::default()),
            takers: Vec::new(),
            flying: VecDeque::new(),
        };
        (0..8).for_each(|n| counter.enter(n, gave, if n == 7 { manner } else { Manner::Plain }));
        counter
    }

    fn enter(&mut self, n: u32, gave: bool, manner: Manner) {
        let rig = &mut self.rig;
        let conn = rig.accept(&format!("80.{}.1.1:1", n + 1));
        assert_eq!(rig.shake(conn, false), Admission::Here);
        rig.say(conn, Message::Interested).unwrap();
        let (key, [own, group]) = {
            let peer = rig.engine.peer(conn).unwrap();
            (peer.key, peer.accounts.unwrap())
        };
        rig.engine.ledger.grant(group, GRANT_GROUP_BYTES);
        if gave {
            rig.engine.ledger.credit(key, 4 << 20);
            rig.engine.ledger.debit(own, if n == 7 { 20 << 20 } else { 4 << 20 });
        }
        let pieces = (0..PIECES - 1).map(|piece| (piece + 2 * n) % (PIECES - 1));
        let blocks = |count: u32| move |piece: u32| (0..count).map(move |at| (piece, at));
        let plan = match manner {
            Manner::Bait => pieces.flat_map(blocks(BLOCKS - 1)).collect(),
            _ => pieces.flat_map(blocks(BLOCKS)).collect(),
        };
        let at = if manner == Manner::OutOfStep { BLOCKS as usize - 1 } else { 0 };
        self.takers.push(Taker { conn, manner, plan, at, got_bytes: 0 });
    }

    /// What the others got on average, and the last one, in two minutes.
    fn run(mut self) -> [u64; 2] {
        let rate = 256 << 10;
        let step = Span(u64::from(BLOCK_BYTES) * 1_000_000_000 / rate);
        let end = self.rig.now + Span::from_secs(120);
        while self.rig.now < end {
            self.rig.now = self.rig.now + step;
            self.rig.engine.handle_tick(self.rig.now);
            self.land();
            self.perform();
            (0..self.takers.len()).for_each(|at| self.ask(at));
            self.perform();
        }
        self.rig.engine.check_invariants();
        let (last, others) = self.takers.split_last().unwrap();
        [others.iter().map(|taker| taker.got_bytes).sum::<u64>() / others.len() as u64, last.got_bytes]
    }

    /// A block arrives, of whoever waited longest.
    fn land(&mut self) {
        let Some((conn, left_bytes, sum)) = self.flying.pop_front() else { return };
        let bytes = left_bytes.min(BLOCK_BYTES.into());
        self.takers.iter_mut().find(|taker| taker.conn == conn).unwrap().got_bytes += bytes;
        if left_bytes > bytes {
            self.flying.push_back((conn, left_bytes - bytes, sum));
        } else {
            self.rig.engine.handle_sent(conn, Ok(sum), self.rig.now);
        }
    }

    fn perform(&mut self) {
        let rig = &mut self.rig;
        while let Some(action) = rig.engine.poll_action(rig.now) {
            match action {
                Action::Load { torrent, chunk, .. } => rig.engine.handle_loaded(torrent, chunk, Ok(())),
                Action::Send(conn) => {
                    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
                    if !rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now) {
                        continue;
                    }
                    let sum = segments.iter().map(Segment::len).sum();
                    match rig.engine.peer(conn).unwrap().out.left_payload_bytes {
                        0 => rig.engine.handle_sent(conn, Ok(sum), rig.now),
                        payload_bytes => self.flying.push_back((conn, payload_bytes, sum)),
                    }
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, at: usize) {
        let (rig, taker) = (&mut self.rig, &mut self.takers[at]);
        loop {
            let peer = rig.engine.peer(taker.conn).unwrap();
            let [(before, _), (piece, at)] =
                [taker.at.max(1) - 1, taker.at].map(|at| taker.plan[at % taker.plan.len()]);
            let (queued, idle) = (peer.requests.len(), !peer.out.in_flight && peer.requests.is_empty());
            let baits = taker.manner == Manner::Bait && piece != before;
            if queued >= 8 || baits && !idle {
                return;
            }
            if baits {
                let bait = block(before, 0, BLOCK_BYTES);
                rig.say(taker.conn, Message::Request(bait)).unwrap();
                rig.say(taker.conn, Message::Cancel(bait)).unwrap();
            }
            rig.say(taker.conn, Message::Request(block(piece, at * BLOCK_BYTES, BLOCK_BYTES))).unwrap();
            taker.at += 1;
        }
    }
}

#[test]
fn nobody_stays_first_from_one_piece_to_the_next() {
    for manner in [Manner::Plain, Manner::OutOfStep, Manner::Bait] {
        let [others, bad] = Counter::new(true, manner).run();
        assert!(bad <= others / 4, "it got five times what it gave: {bad} of {others}, {manner:?}");
        let [others, bad] = Counter::new(false, manner).run();
        assert!(bad <= others + others / 10, "nobody gave anything: {bad} of {others}, {manner:?}");
    }
}

#[test]
fn no_more_stays_after_a_choke_than_the_rest_of_a_piece() {
    let piece_bytes = BLOCKS * BLOCK_BYTES;
    let mut rig = Rig::of_pieces(4, piece_bytes, true);
    let asks = rig.client("80.1.1.1:1");
    let key = rig.engine.peer(asks).unwrap().key;
    rig.engine.ledger.credit(key, 64 << 20);
    rig.say(asks, Message::Request(block(3, 0, BLOCK_BYTES))).unwrap();
    rig.read(asks);
    for _ in 0..REQUESTS_QUEUED_MAX {
        rig.say(asks, Message::Request(block(3, 0, BLOCK_BYTES))).unwrap();
    }
    rig.engine.egress.set_rate(64 << 10);
    rig.engine.choke(asks);
    assert_eq!(rig.engine.peer(asks).unwrap().requests.len() as u32, BLOCKS - 1);
    rig.engine.check_invariants();
}

#[test]
fn a_block_out_of_turn_begins_no_piece() {
    let mut rig = Rig::of_pieces(4, BLOCKS * BLOCK_BYTES, true);
    let asks = rig.client("80.1.1.1:1");
    rig.say(asks, Message::Request(block(3, 0, BLOCK_BYTES))).unwrap();
    assert_eq!(rig.read(asks).1, 1);
    assert_eq!(rig.engine.peer(asks).unwrap().out.piece, Some((3, BLOCK_BYTES)));
    rig.say(asks, Message::Request(block(3, BLOCK_BYTES, BLOCK_BYTES))).unwrap();
    rig.engine.egress.set_rate(256 << 10);
    let turn = rig.engine.egress.out_of_turn(asks, BLOCK_BYTES.into());
    assert!(turn.is_some_and(|turn| turn.is_extra));
    rig.engine.peers.get_mut(asks).unwrap().out.turn = turn;
    assert!(rig.engine.take_send(asks, &mut Vec::new(), &mut Vec::new(), rig.now));
    let out = &rig.engine.peer(asks).unwrap().out;
    assert_eq!((out.left_payload_bytes, out.piece), (BLOCK_BYTES.into(), None));
}

#[test]
fn on_a_slow_link_a_begun_piece_comes_first() {
    let begun = |piece_bytes: u32, rate_bytes: u64, given: Option<u32>, piece: u32| {
        let mut rig = Rig::of_pieces(4, piece_bytes, true);
        let asks = rig.client("80.1.1.1:1");
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(rig.read(asks).1, 1);
        rig.say(asks, Message::Request(block(piece, BLOCK_BYTES, BLOCK_BYTES))).unwrap();
        rig.engine.egress.set_rate(rate_bytes);
        let peer = rig.engine.peers.get_mut(asks).unwrap();
        assert_eq!(peer.out.piece, Some((1, BLOCK_BYTES)));
        peer.out.piece = given.map_or(peer.out.piece, |bytes| Some((1, bytes)));
        rig.engine.bring_forward(asks).begun
    };
    let longest = BEGUN_PIECE_BYTES_MAX;
    let [least, most] = BEGUN_PIECE_SPANS.map(|span| u64::from(longest) * 1_000_000_000 / span.0);
    // The faster the link, the shorter a piece takes; at `most + 1` it takes just less than the longest span.
    for (rate_bytes, is_begun) in [(least + 1, false), (least, true), (most + 1, true), (most - 1, false)] {
        assert_eq!(begun(longest, rate_bytes, None, 1), is_begun, "{rate_bytes} bytes a second");
    }
    assert!(!begun(longest, least, None, 2), "another piece");
    for (given, is_begun) in [(longest - 1, true), (longest, false), (longest + 1, false)] {
        assert_eq!(begun(longest, least, Some(given), 1), is_begun, "{given} bytes of it were given");
    }
    for (piece_bytes, is_begun) in
        [(longest - BLOCK_BYTES, true), (longest, true), (longest + BLOCK_BYTES, false)]
    {
        assert_eq!(begun(piece_bytes, least / 2, None, 1), is_begun, "pieces of {piece_bytes}");
    }
}

#[test]
fn a_choke_on_a_slow_link_leaves_the_rest_of_the_piece_that_was_begun() {
    let piece_bytes = 4 * BLOCK_BYTES;
    let slow = u64::from(piece_bytes) * 1_000_000_000 / BEGUN_PIECE_SPANS[1].0 + 1;
    let granted = GRANT_GROUP_BYTES - u64::from(BLOCK_BYTES) - 1;
    let cases = [
        ("in the middle of one", true, slow, 0, vec![3]),
        ("without BEP 6 what is queued is dropped", false, slow, 0, vec![]),
        ("whole pieces are not worth it", true, slow / 1000, 0, vec![]),
        ("its grant lasts for one block more", true, slow, granted, vec![3]),
        ("its grant is used up", true, slow, granted + 1, vec![]),
    ];
    for (what, fast, rate, spent, left) in cases {
        let mut rig = Rig::of_pieces(4, piece_bytes, true);
        let asks = rig.accept("80.1.1.1:1");
        assert_eq!(rig.shake(asks, fast), Admission::Here);
        rig.say(asks, Message::Interested).unwrap();
        rig.say(asks, Message::Request(block(3, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(rig.read(asks).1, 1);
        for piece in [1, 3, 2] {
            rig.say(asks, Message::Request(block(piece, BLOCK_BYTES, BLOCK_BYTES))).unwrap();
        }
        rig.engine.egress.set_rate(rate);
        rig.engine.ledger.grant(rig.group(asks), spent);
        rig.engine.choke(asks);
        rig.engine.check_invariants();
        let queued: Vec<u32> =
            rig.engine.peer(asks).unwrap().requests.iter().map(|block| block.piece).collect();
        assert_eq!(queued, left, "{what}");
        let (bytes, blocks) = rig.read(asks);
        let rejects = frames(&bytes).iter().filter(|frame| matches!(frame, Message::Reject(_))).count();
        assert_eq!((blocks as usize, rejects), (left.len(), if fast { 3 - left.len() } else { 0 }), "{what}");
        rig.engine.check_settled();
    }
}

#[test]
fn the_rest_of_a_begun_piece_is_rejected_when_the_grant_ends() {
    let piece_bytes = 4 * BLOCK_BYTES;
    let mut rig = Rig::of_pieces(4, piece_bytes, true);
    let asks = rig.client("80.1.1.1:1");
    (0..3).for_each(|at| rig.say(asks, Message::Request(block(3, at * BLOCK_BYTES, BLOCK_BYTES))).unwrap());
    let rate = u64::from(piece_bytes) * 1_000_000_000 / BEGUN_PIECE_SPANS[1].0 + 1;
    rig.engine.egress.set_rate(rate);
    rig.engine.peers.get_mut(asks).unwrap().out.piece = Some((3, BLOCK_BYTES));
    rig.engine.choke(asks);
    assert_eq!(rig.engine.peer(asks).unwrap().requests.len(), 3);
    // Others of its group had the grant.
    rig.engine.ledger.grant(rig.group(asks), GRANT_GROUP_BYTES);
    let (bytes, blocks) = rig.read(asks);
    let rejects = frames(&bytes).iter().filter(|frame| matches!(frame, Message::Reject(_))).count();
    assert_eq!((blocks, rejects), (0, 3));
    rig.engine.check_settled();
}
