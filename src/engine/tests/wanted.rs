//! Not all pieces are wanted, or not all alike.

use super::*;
use crate::base::priority::Priority::{self, High, Low, Normal, Skip};
use crate::storage::wanted::Wanted;

/// A torrent of pieces of two blocks, one file each, wanted so much; of `have` all is there.
fn rig(wanted: &[Priority], have: &[u32], sequential: bool) -> Rig {
    const PIECE: u32 = 32 << 10;
    let pieces = wanted.len() as u32;
    let geometry = Geometry::new(u64::from(pieces) * u64::from(PIECE), PIECE);
    let layout = Layout::new(wanted.iter().map(|_| FileSpan { length: PIECE.into(), pad: false }));
    let mut bits = Bitfield::new(pieces);
    for &piece in have {
        bits.set(piece);
    }
    let wanted = Some(Arc::new(Wanted::new(&layout, geometry, wanted)));
    let meta = TorrentMeta { layout, ..TorrentMeta::plain(HASH, geometry.total_bytes, PIECE) };
    let shared = SharedTorrent::with_wanted(meta, &bits, 1, TorrentLimits::default(), wanted);
    Rig::of(shared, sequential, Default::default())
}

/// A peer that has some pieces and unchokes us; what it was told and asked for.
fn giver(rig: &mut Rig, bits: &[u8]) -> (ConnId, bool, Vec<BlockRef>) {
    let conn = rig.peer(true);
    rig.say(conn, Message::Bitfield(bits)).unwrap();
    rig.say(conn, Message::Unchoke).unwrap();
    let (bytes, _) = rig.read(conn);
    let told = frames(&bytes).contains(&Message::Interested);
    let blocks = frames(&bytes).into_iter().filter_map(|message| match message {
        Message::Request(block) => Some(block),
        _ => None,
    });
    (conn, told, blocks.collect())
}

#[test]
fn who_else_holds_a_piece_is_remembered_only_where_all_of_them_may_be_here_one_day() {
    // A piece that is not wanted may be there all the same.
    for (wanted, have, copies) in
        [([Normal, Low], &[0][..], 1), ([Normal, Skip], &[0], 0), ([Normal, Skip], &[0, 1], 1)]
    {
        let mut rig = rig(&wanted, have, false);
        rig.holder("80.1.1.1:1", 0);
        assert_eq!(rig.shared.witnesses.copies(0, |_| false, |_| false), copies, "{wanted:?} {have:?}");
    }
}

/// Everything that is asked of `conn` comes and is right, until nothing is asked; the pieces in the order
/// in which they were asked for.
fn fetch(rig: &mut Rig, conn: ConnId, mut asked: Vec<BlockRef>) -> Vec<u32> {
    let mut order = Vec::new();
    for _ in 0..200 {
        for block in asked.drain(..) {
            order.push(block.piece);
            let landing = rig.engine.handle_piece_header(conn, block);
            let Ok(Landing::Into(expected)) = landing else { panic!("{landing:?}") };
            rig.engine.handle_block(conn, expected.chunk, expected.index, rig.now);
        }
        let (bytes, _) = rig.read(conn);
        for action in std::mem::take(&mut rig.done) {
            match action {
                Action::Hash { torrent, chunk, last, .. } => {
                    rig.engine.handle_hashed(torrent, chunk, last.then_some([0; 20].into()));
                }
                Action::Write { torrent, chunk } => rig.engine.handle_written(torrent, chunk, Ok(())),
                _ => {}
            }
        }
        asked.extend(frames(&bytes).into_iter().filter_map(|message| match message {
            Message::Request(block) => Some(block),
            _ => None,
        }));
        rig.pass(Span::from_ms(60));
        rig.engine.check_invariants();
    }
    // What others were told is read, too.
    for index in 0..rig.conns {
        rig.read(ConnId { index, generation: 0 });
    }
    rig.engine.check_settled();
    order.dedup();
    order
}

#[test]
fn a_peer_with_nothing_that_is_wanted_is_neither_told_interest_nor_asked() {
    let mut rig = rig(&[Skip, Normal, Skip, Normal], &[3], false);
    let (conn, told, asked) = giver(&mut rig, &[0b1011_0000]);
    assert!(!told && asked.is_empty(), "{asked:?}");
    rig.pass(Span::from_secs(3));
    rig.say(conn, Message::AllowedFast(0)).unwrap();
    assert_eq!(rig.asked(conn), []);
    rig.say(conn, Message::Have(1)).unwrap();
    let (bytes, _) = rig.read(conn);
    let requests = [block(1, 0, 16 << 10), block(1, 16 << 10, 16 << 10)].map(Message::Request);
    let told = frames(&bytes);
    assert!(told.contains(&Message::Interested) && requests.iter().all(|request| told.contains(request)));
    rig.engine.check_settled();
}

#[test]
fn only_what_is_wanted_is_fetched_then_interest_ends_and_the_endgame_with_it() {
    let mut rig = rig(&[Skip, Normal, Skip, Normal, Skip, Skip], &[], false);
    let (conn, told, asked) = giver(&mut rig, &[0b0111_1100]);
    assert!(told);
    let (rival, ..) = giver(&mut rig, &[0b0111_1100]);
    let mut pieces = fetch(&mut rig, conn, asked);
    pieces.sort_unstable();
    pieces.dedup();
    assert_eq!(pieces, [1, 3]);
    assert!(rig.shared.is_satisfied() && !rig.shared.is_complete());
    assert!([0, 2, 4, 5].iter().all(|&piece| !rig.shared.has(piece)));
    assert_eq!(rig.asked(rival), []);
    rig.pass(Span::from_secs(3));
    for conn in [conn, rival] {
        assert!(rig.is_open(conn) && !rig.engine.peer(conn).unwrap().flags.interested);
        assert!(rig.engine.peer(conn).unwrap().asked.is_empty());
    }
}

#[test]
fn bep21_who_wants_no_more_says_so_and_parts_from_those_who_want_nothing_either() {
    let mut rig = rig(&[Skip, Normal], &[1], false);
    let upload_only = |rig: &mut Rig| {
        let conn = rig.accept(&format!("127.0.0.1:{}", 10_000 + rig.conns));
        assert_eq!(rig.shake(conn, true), Admission::Here);
        let (bytes, _) = rig.read(conn);
        (conn, bytes.windows(16).any(|window| window == b"11:upload_onlyi1"))
    };
    let (seed, said) = upload_only(&mut rig);
    assert!(said);
    rig.say(seed, Message::HaveAll).unwrap();
    let (leech, _) = upload_only(&mut rig);
    rig.say(leech, Message::Interested).unwrap();
    rig.pass(Span::from_secs(3));
    assert!(!rig.is_open(seed) && rig.is_open(leech));
    let mut hungry = rig_lacking();
    assert!(!upload_only(&mut hungry).1);
}

fn rig_lacking() -> Rig {
    rig(&[Skip, Normal], &[0], false)
}

#[test]
fn the_most_wanted_come_first_and_in_order_where_order_is_asked_for() {
    let wanted = [Low, Normal, High, Skip, Low, High, Normal, Normal];
    let mut rig = rig(&wanted, &[], true);
    let (conn, _, asked) = giver(&mut rig, &[0xff]);
    assert_eq!(fetch(&mut rig, conn, asked), [2, 5, 1, 6, 7, 0, 4]);

    let mut rig = self::rig(&wanted, &[], false);
    let (conn, _, asked) = giver(&mut rig, &[0xff]);
    let order: Vec<Priority> =
        fetch(&mut rig, conn, asked).into_iter().map(|piece| wanted[piece as usize]).collect();
    assert_eq!(order, [High, High, Normal, Normal, Normal, Low, Low]);
}

#[test]
fn what_a_peer_lacks_does_not_keep_it_from_what_is_wanted_less() {
    let mut rig = rig(&[High, Low], &[], false);
    let (conn, told, asked) = giver(&mut rig, &[0b0100_0000]);
    assert!(told);
    assert_eq!(fetch(&mut rig, conn, asked), [1]);
    assert!(rig.shared.has(1) && rig.shared.lacks(0));
}

#[test]
fn a_piece_that_is_lost_and_not_wanted_is_not_fetched_again() {
    let mut rig = rig(&[Skip, Normal], &[0, 1], false);
    rig.shared.clear_have(0);
    rig.engine.handle_note(Note::Missing { torrent: TorrentId(0), piece: 0 }, rig.now);
    let (_, told, asked) = giver(&mut rig, &[0xc0]);
    assert!(!told && asked.is_empty());
    rig.shared.clear_have(1);
    rig.engine.handle_note(Note::Missing { torrent: TorrentId(0), piece: 1 }, rig.now);
    let (conn, told, asked) = giver(&mut rig, &[0x40]);
    assert!(told);
    assert_eq!(fetch(&mut rig, conn, asked), [1]);
}
