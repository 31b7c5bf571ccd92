use super::*;
use crate::base::ids::InfoHash;
use crate::base::limits::{METADATA_CALLERS_MAX, METADATA_PEERS_MAX};
use crate::hash::{sha1, sha256};

const PIECE: usize = METADATA_PIECE_BYTES as usize;

/// How a peer behaves. Sizes are of what it claims to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Honest,
    /// The right size, one byte wrong.
    Wrong,
    /// Another size, announced and in every message.
    OtherSize(u32),
    /// Announces one size and says another with each piece.
    ChangesSize,
    Rejects,
    Silent,
    /// One piece at every so many rounds.
    Drips(u32),
    /// The same, always of what it was asked for last.
    Trickles(u32),
    /// Pieces that do not exist.
    Beyond,
    /// Pieces that are too short.
    Short,
}

/// A fetch of `metadata` from peers, with virtual time.
struct Rig {
    metadata: Vec<u8>,
    fetch: MetadataFetch,
    peers: BTreeMap<PeerNumber, (Kind, VecDeque<u32>)>,
    dropped: BTreeMap<PeerNumber, Fault>,
    now: Instant,
    rounds: u32,
    done: Option<Vec<u8>>,
    torn: bool,
}

impl Rig {
    fn new(bytes: usize) -> Self {
        let metadata: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let wanted = Topics { v1: Some(InfoHash(sha1::digest(&metadata))), v2: None };
        Self {
            metadata,
            fetch: MetadataFetch::new(wanted, Hoard::default()),
            peers: BTreeMap::new(),
            dropped: BTreeMap::new(),
            now: Instant(0) + Span::from_secs(100),
            rounds: 0,
            done: None,
            torn: false,
        }
    }

    fn with(bytes: usize, kinds: &[Kind]) -> Self {
        let mut rig = Self::new(bytes);
        (1..).zip(kinds).for_each(|(number, &kind)| rig.join(number, kind));
        rig
    }

    fn join(&mut self, number: PeerNumber, kind: Kind) {
        self.join_by(number, Origin::Outgoing, kind);
    }

    /// A peer hangs up; false if it is gone already.
    fn leave(&mut self, number: PeerNumber) -> bool {
        let was_there = self.peers.remove(&number).is_some();
        if was_there {
            self.fetch.handle_gone(number, self.now);
            self.carry_out();
        }
        was_there
    }

    fn join_by(&mut self, number: PeerNumber, origin: Origin, kind: Kind) {
        let size = match kind {
            Kind::OtherSize(size) => size,
            _ => self.metadata.len() as u32,
        };
        self.peers.insert(number, (kind, VecDeque::new()));
        self.fetch.handle_ready((number, origin), Some(size), self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.fetch.poll_action() {
            match action {
                FetchAction::Ask(peer, piece) => self.peers.get_mut(&peer).unwrap().1.push_back(piece),
                FetchAction::Drop(peer, fault) => {
                    self.peers.remove(&peer);
                    assert_eq!(self.dropped.insert(peer, fault), None, "{peer} is dropped twice");
                }
                FetchAction::End(Found::Info(bytes)) => self.done = Some(bytes),
                FetchAction::End(Found::Torn) => self.torn = true,
            }
        }
    }

    /// Each peer answers one request; a tenth of a second passes.
    fn round(&mut self) {
        self.rounds += 1;
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some((kind, asked)) = self.peers.get_mut(&number) else { continue };
            let kind = *kind;
            let waits = match kind {
                Kind::Silent => true,
                Kind::Drips(rounds) | Kind::Trickles(rounds) => !self.rounds.is_multiple_of(rounds),
                _ => false,
            };
            let piece = match kind {
                _ if waits => None,
                Kind::Trickles(_) => asked.pop_back(),
                _ => asked.pop_front(),
            };
            if let Some(piece) = piece {
                self.answer(number, kind, piece);
            }
            self.carry_out();
        }
        self.now = self.now + Span::from_ms(100);
        self.fetch.handle_tick(self.now);
        self.carry_out();
    }

    fn answer(&mut self, number: PeerNumber, kind: Kind, piece: u32) {
        let total = self.metadata.len() as u32;
        let range = piece_range(piece, total);
        let mut bytes = range.map_or_else(Vec::new, |range| self.metadata[range].to_vec());
        let (mut piece, mut said) = (piece, total);
        match kind {
            Kind::Rejects => {
                self.fetch.handle_reject(number, piece, self.now);
                return;
            }
            Kind::Wrong => bytes[0] ^= 1,
            Kind::OtherSize(size) => {
                said = size;
                bytes = vec![7; piece_range(piece, size).unwrap().len()];
            }
            Kind::ChangesSize => said += 1,
            Kind::Beyond => piece = total.div_ceil(METADATA_PIECE_BYTES),
            Kind::Short => drop(bytes.pop()),
            Kind::Honest | Kind::Silent | Kind::Drips(_) | Kind::Trickles(_) => {}
        }
        self.fetch.handle_data(number, piece, (said, &bytes), self.now);
    }

    fn run(&mut self, rounds: u32) -> &mut Self {
        for _ in 0..rounds {
            if self.done.is_none() {
                self.round();
            }
        }
        self
    }

    fn assert_found(&self) {
        assert!(self.done.as_ref() == Some(&self.metadata), "not found; dropped so far: {:?}", self.dropped);
    }
}

#[test]
fn one_honest_peer_is_enough_whatever_the_size() {
    for bytes in [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 40 * PIECE + 17] {
        let mut rig = Rig::with(bytes, &[Kind::Honest]);
        rig.run(100).assert_found();
        assert_eq!(rig.fetch.poll_timeout(), None, "nothing is due any more");
        assert!(rig.dropped.is_empty());
    }
}

/// A link names it by SHA-1, by SHA-256 or by both (BEP 52).
#[test]
fn t23_what_has_two_hashes_is_right_by_both_or_of_no_use_to_anybody() {
    let metadata = Rig::new(PIECE + 1).metadata;
    let (v1, v2) = (InfoHash(sha1::digest(&metadata)), sha256::digest(&metadata));
    let (other_v1, other_v2) = (InfoHash([7; 20]), [7; 32]);
    for (wanted, found, torn) in [
        ((Some(v1), None), true, false),
        ((None, Some(v2)), true, false),
        ((Some(v1), Some(v2)), true, false),
        ((Some(v1), Some(other_v2)), false, true),
        ((Some(other_v1), Some(v2)), false, true),
        ((Some(other_v1), Some(other_v2)), false, false),
        ((None, Some(other_v2)), false, false),
    ] {
        let mut rig = Rig::new(metadata.len());
        rig.fetch = MetadataFetch::new(Topics { v1: wanted.0, v2: wanted.1 }, Hoard::default());
        rig.join(1, Kind::Honest);
        rig.run(10);
        assert_eq!((rig.done.is_some(), rig.torn, rig.fetch.is_done()), (found, torn, found || torn));
        let blamed = !found && !torn;
        assert_eq!(rig.dropped.get(&1), blamed.then_some(&Fault::Lied), "nobody is to blame for the link");
    }
}

#[test]
fn p30_so_many_requests_are_outstanding_and_no_more() {
    for pieces in [METADATA_REQUESTS_OUT - 1, METADATA_REQUESTS_OUT, METADATA_REQUESTS_OUT + 1] {
        let mut rig = Rig::with(pieces * PIECE, &[Kind::Honest]);
        assert_eq!(rig.peers[&1].1.len(), pieces.min(METADATA_REQUESTS_OUT));
        rig.run(100).assert_found();
    }
}

#[test]
fn p30_of_three_peers_the_one_that_gave_wrong_bytes_is_found_and_no_other() {
    for liar in 0..3 {
        let mut kinds = [Kind::Honest; 3];
        kinds[liar] = Kind::Wrong;
        let mut rig = Rig::with(5 * PIECE + 1, &kinds);
        rig.run(100).assert_found();
        let blamed: Vec<_> = rig.dropped.iter().collect();
        match liar {
            // The honest two were as fast.
            2 => assert_eq!(blamed, []),
            // It answers before the others do.
            0 => assert_eq!(blamed, [(&1, &Fault::Lied)]),
            _ => assert!(blamed.iter().all(|(peer, _)| **peer == liar as u32 + 1), "{blamed:?}"),
        }
    }
}

#[test]
fn p30_lies_about_the_size_cost_the_liar_alone() {
    let size = (5 * PIECE + 1) as u32;
    for kind in [
        Kind::OtherSize(1),
        Kind::OtherSize(size - 1),
        Kind::OtherSize(size + 1),
        Kind::OtherSize(10 * size),
        Kind::ChangesSize,
        Kind::Beyond,
        Kind::Short,
        Kind::Wrong,
    ] {
        let mut rig = Rig::with(size as usize, &[kind, kind, kind, Kind::Honest]);
        rig.run(2000).assert_found();
        assert!(rig.dropped.iter().all(|(&peer, &fault)| peer < 4 && fault == Fault::Lied), "{kind:?}");
        assert!(rig.dropped.len() >= 2, "{kind:?} gave its part before the honest had a place");
    }
}

#[test]
fn p30_metadata_has_so_many_bytes_and_no_more() {
    let max = METAINFO_BYTES_MAX as u32;
    for (size, taken) in [
        (Some(max - 1), true),
        (Some(max), true),
        (Some(max + 1), false),
        (Some(u32::MAX), false),
        (Some(0), false),
        (None, false),
    ] {
        let mut fetch =
            MetadataFetch::new(Topics { v1: Some(InfoHash([0; 20])), v2: None }, Hoard::default());
        fetch.handle_ready((1, Origin::Outgoing), size, Instant(0));
        let action = fetch.poll_action();
        match taken {
            true => assert_eq!(action, Some(FetchAction::Ask(1, 0)), "{size:?}"),
            false => assert_eq!(action, Some(FetchAction::Drop(1, Fault::HasNone)), "{size:?}"),
        }
        assert_eq!(fetch.peers(), usize::from(taken));
    }
}

#[test]
fn p30_metadata_of_the_greatest_length_is_put_together() {
    let mut rig = Rig::with(METAINFO_BYTES_MAX, &[Kind::Honest]);
    rig.run(2 * (METAINFO_BYTES_MAX / PIECE) as u32).assert_found();
}

#[test]
fn p30_who_refuses_or_is_silent_makes_room_for_others() {
    for (kind, fault) in [(Kind::Rejects, Fault::Refused), (Kind::Silent, Fault::Silent)] {
        let mut rig = Rig::with(PIECE, &[kind, kind, kind, kind, Kind::Honest]);
        rig.run(1000).assert_found();
        assert!(rig.dropped.len() >= METADATA_GIVERS_MAX);
        assert!(rig.dropped.values().all(|&dropped| dropped == fault), "{:?}", rig.dropped);
    }
}

#[test]
fn p30_silence_is_borne_for_so_long_and_no_longer() {
    let mut rig = Rig::with(PIECE, &[Kind::Silent]);
    let end = rig.now + METADATA_SILENCE;
    assert_eq!(rig.fetch.poll_timeout(), Some(end));
    rig.fetch.handle_tick(Instant(end.0 - 1));
    assert_eq!(rig.fetch.poll_action(), None);
    rig.fetch.handle_tick(end);
    assert_eq!(rig.fetch.poll_action(), Some(FetchAction::Drop(1, Fault::Silent)));
}

#[test]
fn p30_so_many_give_at_a_time_and_the_others_wait_for_their_places() {
    let mut rig = Rig::with(PIECE, &[Kind::Silent; METADATA_GIVERS_MAX + 1]);
    let asked = |rig: &Rig| rig.peers.values().filter(|(_, asked)| !asked.is_empty()).count();
    assert_eq!(asked(&rig), METADATA_GIVERS_MAX);
    assert!(rig.leave(1));
    assert_eq!(asked(&rig), METADATA_GIVERS_MAX, "the next one has its place");
}

#[test]
fn p30_those_that_drip_give_way_and_have_twice_as_long_the_next_time() {
    // 50 pieces at one in 8 seconds: never silent for long enough, and never done in a turn.
    let drips = Kind::Drips(80);
    let mut rig = Rig::with(50 * PIECE, &[drips, drips, drips, drips, Kind::Honest]);
    // Two turns of ten seconds before the honest one has a place, and five seconds for its pieces.
    rig.run(10 * 26).assert_found();
    assert!(rig.dropped.is_empty(), "being slow is no lie");

    let mut slow = Rig::with(4 * PIECE, &[drips, drips, drips]);
    slow.run(10 * 200).assert_found();
}

/// A piece every eight seconds: never silent for long enough, and never done.
const TRICKLES: Kind = Kind::Trickles(80);

#[test]
fn p30_who_drips_is_parted_from_after_so_many_turns_once_no_place_is_left() {
    for (origin, places) in [(Origin::Incoming, METADATA_CALLERS_MAX), (Origin::Outgoing, METADATA_PEERS_MAX)]
    {
        for count in [places - 1, places] {
            let mut rig = Rig::new(2000 * PIECE);
            (1..=count as u32).for_each(|number| rig.join_by(number, origin, TRICKLES));
            rig.run(10 * 1000);
            assert_eq!(rig.dropped.len(), usize::from(count == places), "one makes room");
            assert!(rig.dropped.values().all(|&fault| fault == Fault::Silent));
        }
    }
}

#[test]
fn p30_who_comes_and_leaves_takes_nobodys_turn() {
    // Fifteen seconds for a copy, from two at once.
    let mut rig = Rig::with(15 * PIECE, &[Kind::Drips(10); 2]);
    rig.run(10 * 9);
    for number in 10..20 {
        if rig.done.is_none() {
            rig.join_by(number, Origin::Incoming, Kind::Silent);
            rig.run(10);
            assert!(rig.leave(number));
        }
    }
    rig.assert_found();
    assert_eq!(rig.rounds.div_ceil(10), 15, "as if nobody had come");
}

#[test]
fn p30_who_had_a_turn_has_another_though_fresh_ones_come_again_and_again() {
    // Fifteen seconds for a copy, and others that hang up before their first turn is over.
    let mut rig = Rig::new(15 * PIECE);
    rig.join_by(1, Origin::Incoming, Kind::Drips(10));
    let mut come = VecDeque::new();
    for second in 0..120 {
        if second % 4 == 0 {
            rig.join_by(100 + second, Origin::Incoming, TRICKLES);
            come.push_back(100 + second);
        }
        if come.len() > 3 {
            let number = come.pop_front().unwrap();
            assert!(rig.leave(number));
        }
        rig.run(10);
    }
    rig.assert_found();
}

#[test]
fn p30_who_is_fresh_waits_for_first_turns_however_long_others_have_dripped() {
    for (dripping, honest) in [
        (Origin::Incoming, Origin::Incoming),
        (Origin::Outgoing, Origin::Outgoing),
        (Origin::Incoming, Origin::Outgoing),
    ] {
        let of_kind = if dripping == Origin::Incoming { METADATA_CALLERS_MAX } else { METADATA_PEERS_MAX };
        for minutes in [0, 1, 2, 5, 20] {
            let mut rig = Rig::new(50 * PIECE);
            let mut next = 1;
            for _ in 0..=minutes {
                // Whoever is parted from comes again.
                while rig.peers.len() < of_kind - 1 {
                    rig.join_by(next, dripping, TRICKLES);
                    next += 1;
                }
                rig.run(if minutes == 0 { 1 } else { 10 * 60 });
            }
            rig.join_by(1000, honest, Kind::Honest);
            // Of each that has waited for long one first turn, and five seconds for the pieces.
            let turns = if dripping == honest { of_kind } else { 1 };
            rig.run(10 * (10 * turns as u32 + 6)).assert_found();
        }
    }
}

#[test]
fn p30_a_slow_giver_comes_to_its_end_beside_others_that_always_come_back_fresh() {
    // Half a minute for its copy.
    let slow = Kind::Drips(10);
    let mut rig = Rig::new(30 * PIECE);
    rig.join_by(1, Origin::Outgoing, slow);
    for number in 2..200 {
        if rig.done.is_some() {
            break;
        }
        rig.join_by(number, Origin::Incoming, TRICKLES);
        rig.run(10 * 5);
        // They hang up when their turn is over and come again.
        let left = number.saturating_sub(METADATA_CALLERS_MAX as u32 - 1);
        if left > 1 {
            rig.leave(left);
        }
    }
    rig.assert_found();
    assert_eq!(rig.rounds.div_ceil(10), 30, "as if it had been alone");
}

#[test]
fn p30_all_copies_together_have_so_many_bytes_and_short_ones_always_room() {
    let half = METADATA_COPIES_BYTES_MAX / 2;
    for (others, own, room) in [
        (half - 1, METAINFO_BYTES_MAX, true),
        (half, half / 3 - 1, true),
        (half, half / 3, false),
        (half + 1, half / 3 + 1, false),
        (METADATA_COPIES_BYTES_MAX, half / 3 - 1, true),
    ] {
        let hoard = Hoard::default();
        let mut held = [(); 3].map(|()| Held::new(hoard.clone()));
        held[0].add(others);
        assert_eq!(hoard.has_room(own), room, "{own} beside {others}");
        drop(held);
        assert_eq!(hoard.0.get(), Sum::default());
    }
}

#[test]
fn p30_who_has_more_than_its_part_loses_it_and_not_who_comes_later() {
    let mut rig = Rig::with(METAINFO_BYTES_MAX, &[Kind::Honest]);
    let mut others = Held::new(rig.fetch.hoard.clone());
    others.add(METADATA_COPIES_BYTES_MAX / 2);
    // Each may have a half of the half, which is as long as anybody's is at most.
    rig.run(2 * (METAINFO_BYTES_MAX / PIECE) as u32).assert_found();
    assert!(!others.of.has_room(others.bytes), "the other goes");

    let mut rig = Rig::with(METAINFO_BYTES_MAX, &[Kind::Honest]);
    let mut others = [(); 2].map(|()| Held::new(rig.fetch.hoard.clone()));
    others[0].add(METADATA_COPIES_BYTES_MAX / 2);
    rig.run(2 * (METAINFO_BYTES_MAX / PIECE) as u32);
    assert_eq!(rig.dropped, BTreeMap::from([(1, Fault::Long)]), "of three it has more than its part");
    drop(others);
    assert_eq!(rig.fetch.hoard.0.get(), Sum::default());
    rig.join(2, Kind::Honest);
    rig.run(2 * (METAINFO_BYTES_MAX / PIECE) as u32).assert_found();
}

#[test]
fn a_late_answer_of_an_earlier_turn_is_no_offence() {
    let mut rig = Rig::with(2 * PIECE, &[Kind::Silent; METADATA_GIVERS_MAX + 1]);
    let piece = rig.metadata[..PIECE].to_vec();
    let total = rig.metadata.len() as u32;
    // Both give a little, so that they are not silent when their turn is over.
    for number in 1..=METADATA_GIVERS_MAX as u32 {
        rig.fetch.handle_data(number, 0, (total, &piece), rig.now + Span::from_secs(5));
    }
    rig.now = rig.now + METADATA_TURN;
    rig.fetch.handle_tick(rig.now);
    rig.carry_out();
    assert!(rig.dropped.is_empty());
    let last = rig.metadata[PIECE..].to_vec();
    rig.fetch.handle_data(1, 1, (total, &last), rig.now);
    rig.carry_out();
    assert!(rig.dropped.is_empty() && rig.done.is_none());
    // Nor is an answer that came twice, or a refusal of what nobody asked for.
    rig.fetch.handle_data(2, 0, (total, &piece), rig.now);
    rig.fetch.handle_reject(2, 77, rig.now);
    rig.carry_out();
    assert!(rig.dropped.is_empty());
}

#[test]
fn what_a_peer_says_again_of_its_metadata_changes_nothing() {
    let mut rig = Rig::with(3 * PIECE, &[Kind::Honest]);
    rig.fetch.handle_ready((1, Origin::Outgoing), Some(7), rig.now);
    rig.fetch.handle_ready((1, Origin::Outgoing), None, rig.now);
    rig.run(10).assert_found();
    rig.fetch.handle_ready((2, Origin::Outgoing), Some(7), rig.now);
    rig.fetch.handle_data(2, 0, (7, &[0; 7]), rig.now);
    rig.fetch.handle_tick(rig.now + Span::from_secs(1000));
    assert_eq!(rig.fetch.poll_action(), None, "it is over");
}
