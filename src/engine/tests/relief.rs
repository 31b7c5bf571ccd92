//! Peers that fall silent while others have nothing to do (P37), and peers that are only slow.

use super::*;
use crate::base::limits::{
    CHUNKS_WRITING_MAX, COMEBACKS_MAX, ENDGAME_AGE, ENDGAME_CHUNKS, ENDGAME_SPANS, HELD_BACK_TIME,
    SNUBBED_TIME,
};
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::engine::relief::{RELIEF_LOOKS, RELIEF_PIECES};

/// A source that gave one block quickly, and what else it was asked for.
fn quick(rig: &mut Rig) -> (ConnId, Vec<BlockRef>) {
    let conn = rig.seed();
    let asked = rig.asked(conn);
    rig.pass(Span::from_ms(10));
    give(rig, conn, asked[0]);
    (conn, asked[1..].to_vec())
}

fn give(rig: &mut Rig, conn: ConnId, block: BlockRef) {
    let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(conn, block) else { panic!("{block:?}") };
    rig.engine.handle_block(conn, place.chunk, place.index, rig.now);
}

fn is_snubbed(rig: &Rig, conn: ConnId) -> bool {
    rig.engine.peer(conn).unwrap().is_snubbed()
}

/// What it is told to send no more.
fn cancelled(rig: &mut Rig, conn: ConnId) -> Vec<BlockRef> {
    let (bytes, _) = rig.read(conn);
    let cancel = |message| if let Message::Cancel(block) = message { Some(block) } else { None };
    frames(&bytes).into_iter().filter_map(cancel).collect()
}

#[test]
fn who_is_far_too_late_is_relieved_by_who_has_nothing_to_do_and_by_nobody_else() {
    for helped in [false, true] {
        let mut rig = Rig::new(1, false);
        let (late, left) = quick(&mut rig);
        let idle = helped.then(|| rig.seed());
        // One block is raced for in the endgame, no more.
        let raced = idle.map_or(0, |idle| rig.asked(idle).len());
        assert_eq!(raced, usize::from(helped));
        rig.pass(Span::from_ms(250));
        assert!(!is_snubbed(&rig, late), "not yet");
        rig.pass(Span::from_ms(51));
        assert_eq!(is_snubbed(&rig, late), helped);
        let Some(idle) = idle else { continue };
        assert_eq!(raced + rig.asked(idle).len(), left.len(), "all that is missing");
        assert_eq!(cancelled(&mut rig, late), left, "it need not send them any more");
    }
}

#[test]
fn who_alone_gives_a_part_of_what_it_was_asked_for_is_waited_for() {
    for others_give_all in [false, true] {
        let mut rig = Rig::new(2, false);
        let (late, left) = quick(&mut rig);
        let begun = left[0].piece;
        assert!(left.iter().any(|block| block.piece != begun), "it is asked for both pieces");
        if others_give_all {
            let idle = rig.seed();
            // What nobody else was asked for it gives, and is idle then.
            let own = |rig: &mut Rig| -> Vec<_> {
                let theirs = |rig: &Rig, block: &BlockRef| {
                    let asked = &rig.engine.peer(late).unwrap().asked;
                    asked.iter().any(|asked| rig.shared.meta.wanted_block(asked.chunk, asked.block) == *block)
                };
                rig.asked(idle).into_iter().filter(|block| !theirs(rig, block)).collect()
            };
            while let Some(blocks) = Some(own(&mut rig)).filter(|blocks| !blocks.is_empty()) {
                blocks.into_iter().for_each(|block| give(&mut rig, idle, block));
            }
        } else {
            let idle = rig.leech(true);
            rig.say(idle, Message::Have(begun)).unwrap();
            rig.say(idle, Message::Unchoke).unwrap();
        }
        rig.pass(Span::from_ms(301));
        assert_eq!(is_snubbed(&rig, late), others_give_all);
        if !others_give_all {
            rig.pass(HELD_BACK_TIME);
            assert!(is_snubbed(&rig, late), "not for ever");
        }
    }
}

#[test]
fn a_slow_and_steady_source_keeps_its_blocks_while_others_idle() {
    let mut rig = Rig::new(1, false);
    let slow = rig.seed();
    let asked = rig.asked(slow);
    let idle = rig.seed();
    assert_eq!(rig.asked(idle).len(), 1, "the endgame");
    // At first it has some at hand.
    for (&block, pause_ms) in asked.iter().zip([10, 240, 900, 1_000, 1_000, 1_000, 1_000]) {
        for _ in 0..pause_ms / 10 {
            rig.pass(Span::from_ms(10));
            assert!(!is_snubbed(&rig, slow), "before {block:?}");
        }
        give(&mut rig, slow, block);
    }
    assert_eq!(rig.engine.peer(slow).unwrap().received_bytes, 100_000, "it gave all of it");
}

#[test]
fn who_gives_after_all_is_asked_again_so_often_and_no_more() {
    let mut rig = Rig::new(2, false);
    let (late, mut left) = quick(&mut rig);
    for comeback in 1..=COMEBACKS_MAX + 1 {
        let stale = left[0];
        let until = rig.now + SNUBBED_TIME;
        rig.engine.snub(late, until);
        assert_eq!(rig.engine.handle_piece_header(late, stale), Ok(Landing::Discard));
        let back = comeback <= COMEBACKS_MAX;
        assert_eq!(is_snubbed(&rig, late), !back, "comeback {comeback}");
        left = rig.asked(late);
        assert_eq!(left.is_empty(), !back);
        rig.engine.check_invariants();
    }
    rig.pass(Span(3 * crate::base::limits::SNUB_TIMEOUT.0));
    assert!(!rig.asked(late).is_empty(), "after a while it has another chance");
    assert_eq!(rig.engine.peer(late).unwrap().comebacks, 0);
}

#[test]
fn a_block_that_was_taken_back_and_comes_all_the_same_is_not_thrown_away() {
    let mut rig = Rig::of_pieces(16, CHUNK_BYTES, false);
    let (late, mut left) = quick(&mut rig);
    // Somebody else could give it, so that the chunk stays with us.
    rig.seed();
    for comeback in 1..=COMEBACKS_MAX + 1 {
        let until = rig.now + SNUBBED_TIME;
        rig.engine.snub(late, until);
        let block = left[0];
        let Ok(landing) = rig.engine.handle_piece_header(late, block) else { panic!("{block:?}") };
        let back = comeback <= COMEBACKS_MAX;
        assert_eq!(is_snubbed(&rig, late), !back, "comeback {comeback}");
        assert_eq!(matches!(landing, Landing::Into(_)), back, "comeback {comeback}");
        if let Landing::Into(place) = landing {
            let before = rig.engine.peer(late).unwrap().received_bytes;
            rig.engine.handle_block(late, place.chunk, place.index, rig.now);
            let gave_bytes = rig.engine.peer(late).unwrap().received_bytes - before;
            assert_eq!(gave_bytes, u64::from(block.length));
        }
        left = rig.asked(late);
        rig.engine.check_invariants();
    }
}

#[test]
fn a_late_block_is_taken_once_as_often_as_it_was_taken_back_and_not_where_another_lands() {
    let mut rig = Rig::new(1, false);
    let (late, left) = quick(&mut rig);
    let other = rig.seed();
    let until = rig.now + SNUBBED_TIME;
    rig.engine.snub(late, until);
    assert!(!rig.asked(other).is_empty());
    let Ok(Landing::Into(_)) = rig.engine.handle_piece_header(other, left[0]) else { panic!() };
    assert_eq!(rig.engine.handle_piece_header(late, left[0]), Ok(Landing::Discard), "another's is landing");
    give(&mut rig, late, left[1]);
    assert_eq!(cancelled(&mut rig, other), [left[1]], "the other need not send it");
    assert_eq!(rig.engine.handle_piece_header(late, left[1]), Ok(Landing::Discard), "we have it");
    let peer = rig.engine.peers.get_mut(late).unwrap();
    assert_eq!(peer.grace, left.len() as u32 - 3, "so many more may come");
    peer.grace = 1;
    give(&mut rig, late, left[2]);
    assert_eq!(rig.engine.handle_piece_header(late, left[3]), Ok(Landing::Discard), "nobody asked for it");
    assert_eq!(rig.engine.peer(late).unwrap().unsolicited_bytes, u64::from(left[3].length));
    rig.engine.check_invariants();
}

#[test]
fn nobody_races_while_it_is_the_disk_that_keeps_it_from_more() {
    for (writing, races) in
        [(CHUNKS_WRITING_MAX - 1, 1), (CHUNKS_WRITING_MAX, 0), (CHUNKS_WRITING_MAX + 1, 0)]
    {
        let mut rig = Rig::new(1, false);
        rig.seed();
        rig.engine.chunks_writing = writing;
        let idle = rig.seed();
        rig.engine.chunks_writing = writing;
        assert_eq!(rig.asked(idle).len(), races, "{writing} chunks");
    }
}

#[test]
fn nobody_races_while_more_is_outstanding_than_the_end_of_a_torrent() {
    let few = ENDGAME_CHUNKS as u32;
    for (pieces, races) in [(few - 1, 1), (few, 1), (few + 1, 0)] {
        let meta = TorrentMeta::plain(HASH, u64::from(pieces * 2 * BLOCK_BYTES), 2 * BLOCK_BYTES);
        let shared = SharedTorrent::new(meta, &Bitfield::new(pieces), 1);
        let mut rig = Rig::of(shared, false, Default::default());
        let busy = rig.seed();
        assert_eq!(rig.asked(busy).len() as u32, 2 * pieces, "all of it");
        let idle = rig.seed();
        assert_eq!(rig.asked(idle).len(), races, "{pieces} pieces");
        rig.engine.check_invariants();
    }
}

#[test]
fn what_its_giver_is_slow_with_is_raced_for_however_much_that_is() {
    let half = Span(ENDGAME_AGE.0 / ENDGAME_SPANS);
    let beyond = Span(half.0 + 1);
    for (chunk_span, age_ns) in [
        (Span::ZERO, ENDGAME_AGE.0),
        (half, ENDGAME_AGE.0),
        (beyond, ENDGAME_SPANS * beyond.0),
        (ENDGAME_AGE, ENDGAME_SPANS * ENDGAME_AGE.0),
    ] {
        for (after_ns, races) in [(age_ns - 1, 0), (age_ns, 1), (age_ns + 1, 1)] {
            let mut rig = Rig::of_pieces(2 * ENDGAME_CHUNKS as u32, 2 * BLOCK_BYTES, false);
            let busy = rig.seed();
            assert!(!rig.asked(busy).is_empty());
            let idle = rig.seed();
            assert_eq!(rig.asked(idle).len(), 0, "just begun");
            rig.engine.torrents[0].as_mut().unwrap().chunk_span = chunk_span;
            rig.now = rig.now + Span(after_ns);
            rig.engine.handle_tick(rig.now);
            assert_eq!(rig.asked(idle).len(), races, "{chunk_span:?}, after {after_ns} ns");
        }
    }
}

#[test]
fn what_somebody_else_comes_to_have_is_asked_of_a_seed_no_more_unless_some_of_it_came() {
    for begun in [false, true] {
        let mut rig = Rig::new(2, false);
        let seed = rig.seed();
        let asked = rig.asked(seed);
        if begun {
            give(&mut rig, seed, asked[0]);
        }
        let other = rig.peer(true);
        rig.say(other, Message::HaveNone).unwrap();
        rig.say(other, Message::Unchoke).unwrap();
        rig.say(other, Message::Have(asked[0].piece)).unwrap();
        let of_piece = asked.iter().copied().filter(|block| block.piece == asked[0].piece && !begun);
        let taken_back: Vec<BlockRef> = of_piece.collect();
        assert_eq!(cancelled(&mut rig, seed), taken_back);
        assert_eq!(rig.asked(other).is_empty(), begun);
        rig.engine.check_invariants();
    }
}

#[test]
fn what_somebody_has_who_begins_to_serve_us_is_asked_of_a_seed_no_more_once() {
    for before in [false, true] {
        let mut rig = Rig::new(2, false);
        let seed = rig.seed();
        let asked = rig.asked(seed);
        let other = rig.peer(true);
        rig.say(other, Message::HaveNone).unwrap();
        if before {
            rig.say(other, Message::Unchoke).unwrap();
            rig.say(other, Message::Choke).unwrap();
        }
        rig.say(other, Message::Have(asked[0].piece)).unwrap();
        assert!(cancelled(&mut rig, seed).is_empty(), "it does not serve us yet");
        rig.say(other, Message::Unchoke).unwrap();
        let of_piece = asked.iter().copied().filter(|block| block.piece == asked[0].piece && !before);
        assert_eq!(cancelled(&mut rig, seed), of_piece.collect::<Vec<BlockRef>>());
        rig.engine.check_invariants();
    }
}

#[test]
fn only_so_many_pieces_are_taken_over_by_who_begins_to_serve_us() {
    for (count, taken) in [
        (RELIEF_PIECES - 1, RELIEF_PIECES - 1),
        (RELIEF_PIECES, RELIEF_PIECES),
        (RELIEF_PIECES + 1, RELIEF_PIECES),
    ] {
        // Each is asked for a piece of its own: all that a first queue holds.
        let mut rig = Rig::of_pieces(64, CHUNK_BYTES, false);
        let seeds: Vec<ConnId> = (0..count).map(|_| rig.seed()).collect();
        let pieces: Vec<u32> = seeds.iter().map(|&seed| rig.asked(seed)[0].piece).collect();
        let other = rig.peer(true);
        rig.say(other, Message::HaveNone).unwrap();
        pieces.iter().for_each(|&piece| rig.say(other, Message::Have(piece)).unwrap());
        rig.say(other, Message::Unchoke).unwrap();
        let taken_back = seeds.iter().filter(|&&seed| !cancelled(&mut rig, seed).is_empty()).count();
        assert_eq!(taken_back, taken, "of {count}");
    }
}

#[test]
fn only_so_many_peers_are_looked_at_for_whom_a_chunk_is_asked_of() {
    for (before, looked_at) in [(RELIEF_LOOKS - 1, true), (RELIEF_LOOKS, false), (RELIEF_LOOKS + 1, false)] {
        let mut rig = Rig::new(2, false);
        (0..before).for_each(|_| {
            let conn = rig.peer(true);
            rig.say(conn, Message::HaveNone).unwrap();
        });
        let seed = rig.seed();
        let piece = rig.asked(seed)[0].piece;
        let other = rig.peer(true);
        rig.say(other, Message::HaveNone).unwrap();
        rig.say(other, Message::Unchoke).unwrap();
        rig.say(other, Message::Have(piece)).unwrap();
        assert_eq!(!cancelled(&mut rig, seed).is_empty(), looked_at, "behind {before} others");
    }
}

#[test]
fn who_is_late_again_is_left_alone_for_twice_as_long() {
    let mut rig = Rig::new(2, false);
    let (late, _) = quick(&mut rig);
    for alone_secs in [2, 4, 8, 16, 32, 40, 40] {
        rig.engine.relieve(late, rig.now);
        rig.pass(Span::from_ms(alone_secs * 1_000 - 1));
        assert!(is_snubbed(&rig, late), "before {alone_secs} s");
        // Each connection is looked at once a second.
        rig.pass(Span::from_ms(1_001));
        assert!(!is_snubbed(&rig, late), "after {alone_secs} s");
    }
}
