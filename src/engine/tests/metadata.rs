//! The info dictionary for those who have only a link (BEP 9; P30).

use bytes::Bytes;

use super::*;
use crate::base::limits::{
    METADATA_COPIES_MAX, METADATA_COPIES_SPAN, METADATA_REJECTS_WAITING_MAX, METADATA_REQUESTS_QUEUED_MAX,
};
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake};
use crate::proto::wire::handshake::HANDSHAKE_BYTES;
use crate::proto::wire::metadata::{METADATA_PIECE_BYTES, MetadataMessage, UT_METADATA, piece_range};

/// Under which the other side wants answers.
const THEIR_ID: u8 = 7;
const GREETING: &[u8] = b"d1:md11:ut_metadatai7eee";

impl Rig {
    /// A seed of a torrent with an info dictionary of so many bytes.
    fn with_info(info_bytes: usize, private: bool) -> Self {
        let mut rig = Self::new(1, true);
        let info: Bytes = (0..info_bytes).map(|at| (at % 251) as u8).collect();
        rig.shared = rig.add(TorrentMeta { info, private, ..rig.plain() }, true);
        rig
    }

    /// A peer that wants metadata.
    fn seeker(&mut self) -> ConnId {
        let conn = self.peer(true);
        self.say(conn, Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: GREETING }).unwrap();
        self.read(conn);
        conn
    }

    fn want(&mut self, conn: ConnId, piece: u32) -> Result<(), session::PeerMisbehaved> {
        let mut payload = Vec::new();
        MetadataMessage::Request(piece).encode(&mut payload);
        self.say(conn, Message::Extended { id: UT_METADATA, payload: &payload })
    }

    /// The pieces that `conn` is given until nothing more comes, and the rejects.
    fn given(&mut self, conn: ConnId) -> (Vec<u32>, Vec<u32>) {
        let (bytes, _) = self.read(conn);
        let (mut given, mut rejected) = (Vec::new(), Vec::new());
        let info = self.shared.meta.info.clone();
        for message in frames(&bytes) {
            let Message::Extended { id: THEIR_ID, payload } = message else { continue };
            match MetadataMessage::parse(payload).unwrap().unwrap() {
                MetadataMessage::Data { piece, total_bytes, bytes } => {
                    assert_eq!(total_bytes as usize, info.len());
                    assert_eq!(bytes, &info[piece_range(piece, total_bytes).unwrap()]);
                    given.push(piece);
                }
                MetadataMessage::Reject(piece) => rejected.push(piece),
                MetadataMessage::Request(_) => panic!("we ask nobody"),
            }
        }
        (given, rejected)
    }
}

/// What we announce to a new peer.
fn announced(rig: &mut Rig) -> ExtensionHandshake {
    let conn = rig.accept("127.0.0.1:999");
    rig.shake(conn, true);
    let (bytes, _) = rig.read(conn);
    let greeting = frames(&bytes[HANDSHAKE_BYTES..]).into_iter().find_map(|message| match message {
        Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => Some(payload),
        _ => None,
    });
    ExtensionHandshake::parse(greeting.unwrap()).unwrap()
}

#[test]
fn every_piece_of_the_metadata_is_given_to_whoever_asks_of_private_torrents_too() {
    let piece = METADATA_PIECE_BYTES as usize;
    for private in [false, true] {
        for info_bytes in [1, piece - 1, piece, piece + 1, 5 * piece + 17] {
            let mut rig = Rig::with_info(info_bytes, private);
            let ours = announced(&mut rig);
            assert_eq!(ours.metadata_size, Some(info_bytes as u32));
            assert_eq!(ours.messages.ut_metadata, Some(UT_METADATA));
            let conn = rig.seeker();
            let count = info_bytes.div_ceil(piece) as u32;
            (0..count).for_each(|piece| rig.want(conn, piece).unwrap());
            assert_eq!(rig.given(conn), ((0..count).collect(), vec![]));
        }
    }
}

#[test]
fn without_metadata_none_is_announced_and_none_given() {
    let mut rig = Rig::new(1, true);
    let ours = announced(&mut rig);
    assert_eq!((ours.metadata_size, ours.messages.ut_metadata), (None, None));
    let conn = rig.seeker();
    rig.want(conn, 0).unwrap();
    assert_eq!(rig.given(conn), (vec![], vec![]));
}

#[test]
fn p30_pieces_that_do_not_exist_are_rejected() {
    let mut rig = Rig::with_info(2 * METADATA_PIECE_BYTES as usize, false);
    let conn = rig.seeker();
    for piece in [2, 3, u32::MAX] {
        rig.want(conn, piece).unwrap();
        assert_eq!(rig.given(conn), (vec![], vec![piece]));
    }
    assert!(rig.is_open(conn));
}

#[test]
fn p30_who_asks_again_and_again_gets_so_many_copies_and_more_only_later() {
    let pieces = 3;
    let mut rig = Rig::with_info(pieces as usize * METADATA_PIECE_BYTES as usize, false);
    let conn = rig.seeker();
    let most = METADATA_COPIES_MAX as u32 * pieces;
    for asked in 1..=most + 1 {
        rig.want(conn, asked % pieces).unwrap();
        let (given, rejected) = rig.given(conn);
        assert_eq!((given.len(), rejected.len()), if asked <= most { (1, 0) } else { (0, 1) }, "{asked}");
    }
    let other = rig.seeker();
    rig.want(other, 0).unwrap();
    assert_eq!(rig.given(other).0, [0], "others have theirs");
    let again = rig.now + METADATA_COPIES_SPAN;
    rig.now = Instant(again.0 - 1);
    rig.want(conn, 0).unwrap();
    assert_eq!(rig.given(conn), (vec![], vec![0]));
    rig.now = again;
    rig.want(conn, 0).unwrap();
    assert_eq!(rig.given(conn), (vec![0], vec![]));
}

#[test]
fn p30_so_many_requests_wait_and_who_reads_no_rejects_is_dropped() {
    for asked in
        [METADATA_REQUESTS_QUEUED_MAX - 1, METADATA_REQUESTS_QUEUED_MAX, METADATA_REQUESTS_QUEUED_MAX + 1]
    {
        let pieces = 2 * METADATA_REQUESTS_QUEUED_MAX;
        let mut rig = Rig::with_info(pieces * METADATA_PIECE_BYTES as usize, false);
        let conn = rig.seeker();
        (0..asked).for_each(|piece| rig.want(conn, piece as u32).unwrap());
        let (given, rejected) = rig.given(conn);
        assert_eq!(given.len(), asked.min(METADATA_REQUESTS_QUEUED_MAX));
        assert_eq!(rejected.len(), asked - given.len());
    }
    let mut rig = Rig::with_info(1, false);
    let conn = rig.seeker();
    for _ in 0..METADATA_REJECTS_WAITING_MAX {
        rig.want(conn, 1).unwrap();
    }
    assert_eq!(rig.want(conn, 1), Err(session::PeerMisbehaved::ReadsNothing));
}

#[test]
fn p30_what_waits_for_a_peer_that_does_not_read_is_one_piece() {
    let pieces = 100;
    let mut rig = Rig::with_info(pieces * METADATA_PIECE_BYTES as usize, false);
    let conn = rig.seeker();
    (0..pieces).for_each(|piece| rig.want(conn, piece as u32).unwrap());
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    let kept = outbox.len() + rig.engine.peer(conn).unwrap().out.frames.len();
    assert!(kept < 2 * METADATA_PIECE_BYTES as usize, "{kept} bytes");
}

#[test]
fn p30_messages_that_nobody_expects_change_nothing_and_malformed_ones_end_it() {
    let mut rig = Rig::with_info(1, false);
    let conn = rig.seeker();
    for payload in
        [&b"d8:msg_typei1e5:piecei0e10:total_sizei1eex"[..], b"d8:msg_typei2e5:piecei0ee", b"d8:msg_typei9ee"]
    {
        rig.say(conn, Message::Extended { id: UT_METADATA, payload }).unwrap();
    }
    assert_eq!(rig.given(conn), (vec![], vec![]));
    let silent = rig.peer(true);
    rig.want(silent, 0).unwrap();
    assert_eq!(rig.given(silent), (vec![], vec![]), "it has not said where answers go");
    let broken = Message::Extended { id: UT_METADATA, payload: b"d8:msg_typei0e" };
    assert_eq!(rig.say(conn, broken), Err(session::PeerMisbehaved::BadExtension));
}
