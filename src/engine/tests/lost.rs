//! A piece whose bytes on disk are not what they were (S6, S9, S14).

use super::*;

#[test]
fn s6_a_piece_that_was_damaged_on_disk_is_refused_and_collected_anew_from_end_to_end() {
    let mut rig = Rig::new(2, true);
    let reader = rig.leech(true);
    // Its first chunk is read and right; a send holds it.
    rig.say(reader, Message::Request(block(0, 0, 16 << 10))).unwrap();
    rig.perform();
    let segments = rig.begin_send(reader);
    let sum: u32 = segments.iter().map(Segment::len).sum();
    assert!(rig.shared.chunks.view(0).pins > 0);
    // Its second is not what it was.
    let damaged = block(0, 256 << 10, 16 << 10);
    rig.say(reader, Message::Request(damaged)).unwrap();
    rig.engine.handle_sent(reader, Ok(1), rig.now);
    let slot = rig.engine.allocate(TorrentId(0), 1).unwrap();
    assert!(rig.shared.chunks.begin_load(1, slot));
    rig.engine.handle_loaded(TorrentId(0), 1, Err(None));
    rig.perform();
    assert!(!rig.shared.has(0));
    let lost = Action::Report(Report::PieceLost { torrent: TorrentId(0), piece: 0 });
    assert_eq!(rig.done.iter().filter(|&action| *action == lost).count(), 1);

    // A seed that was of no use before is asked for all of it, but for what the send still holds.
    let seed = rig.seed();
    let mut asked = rig.asked(seed);
    let held = |asked: &[BlockRef]| asked.iter().any(|block| block.begin < 256 << 10);
    assert!(!asked.is_empty() && !held(&asked), "{asked:?}");
    let mut left = Vec::new();
    rig.engine.take_send(reader, &mut Vec::new(), &mut left, rig.now);
    rig.engine.handle_sent(reader, Ok(sum - 1), rig.now);
    let (bytes, _) = rig.read(reader);
    assert!(frames(&bytes).contains(&Message::Reject(damaged)));
    let mut all = Vec::new();
    for _ in 0..200 {
        for block in asked.drain(..) {
            all.push(block);
            let Ok(Landing::Into(expected)) = rig.engine.handle_piece_header(seed, block) else { panic!() };
            rig.engine.handle_block(seed, expected.chunk, expected.index, rig.now);
        }
        rig.pass(Span::from_ms(60));
        asked = rig.asked(seed);
    }
    all.sort_unstable();
    let whole: Vec<BlockRef> = (0..64).map(|n| block(0, n * (16 << 10), 16 << 10)).collect();
    assert_eq!(all, whole);
    let first = Action::Hash { torrent: TorrentId(0), chunk: 0, first: true, last: false };
    assert!(rig.done.contains(&first), "it is hashed from its start");
}

/// A second torrent beside the rig's, complete too, and a leech of it.
fn another(rig: &mut Rig) -> (TorrentId, ConnId) {
    let id = TorrentId(1);
    let meta = TorrentMeta { id, info_hash: InfoHash([8; 20]), ..rig.plain() };
    let handshake = Handshake::new(meta.info_hash, THEIRS).with_extension().with_fast();
    rig.add(meta, true);
    let conn = rig.accept("127.0.0.1:20000");
    assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Here);
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    (id, conn)
}

#[test]
fn s9_a_chunk_that_cannot_be_read_is_reported_for_its_torrent_and_everything_else_goes_on() {
    let mut rig = Rig::new(3, true);
    let (_, stranger) = another(&mut rig);
    let readers = [rig.leech(true), rig.leech(true)];
    let bad = block(0, 0, 16 << 10);
    let slot = rig.engine.allocate(TorrentId(0), 0).unwrap();
    assert!(rig.shared.chunks.begin_load(0, slot));
    for reader in readers {
        // Two wait for the chunk, and want others behind it.
        rig.say(reader, Message::Request(bad)).unwrap();
        rig.say(reader, Message::Request(block(1, 0, 16 << 10))).unwrap();
    }
    rig.perform();
    rig.engine.handle_loaded(TorrentId(0), 0, Err(Some(libc::EIO)));
    for reader in readers {
        let (bytes, blocks) = rig.read(reader);
        assert!(frames(&bytes).contains(&Message::Reject(bad)));
        assert_eq!(blocks, 1, "the other piece is served");
        assert!(rig.is_open(reader));
    }
    rig.say(stranger, Message::Request(bad)).unwrap();
    assert_eq!(rig.read(stranger).1, 1, "the same place of another torrent");
    let failed = |action: &&Action| matches!(action, Action::Report(Report::DiskFailed { .. }));
    let said: Vec<_> = rig.done.iter().filter(failed).collect();
    let report = Report::DiskFailed { torrent: TorrentId(0), errno: libc::EIO };
    assert_eq!(said, [&Action::Report(report)], "once");
    assert!(!rig.shared.has(0) && rig.shared.has(1) && rig.shared.has(2));
    assert_eq!(rig.engine.cache().free_count(), rig.engine.cache().touched_count() - 2, "its slot is free");
}
