//! Several peers on one piece: the endgame, and parole after they spoilt it together (P21).

use std::collections::HashSet;

use super::*;
use crate::base::limits::{PAROLE_GIVERS_MAX, PAROLE_PIECES_MAX, SNUB_TIMEOUT};

const ONLY: TorrentId = TorrentId(0);

/// A torrent of one piece of seven blocks, peers that have it, and what lies in its places.
struct Piece {
    rig: Rig,
    peers: Vec<ConnId>,
    wrong: HashSet<u32>,
    failures: u32,
}

impl Piece {
    /// `peers` that queue `reqq` requests each.
    fn new(peers: usize, reqq: u32) -> Self {
        let mut rig = Rig::new(1, false);
        let greeting = format!("d4:reqqi{reqq}ee");
        let peers = (0..peers)
            .map(|_| {
                let conn = rig.peer(true);
                rig.say(conn, Message::Extended { id: 0, payload: greeting.as_bytes() }).unwrap();
                rig.say(conn, Message::HaveAll).unwrap();
                rig.say(conn, Message::Unchoke).unwrap();
                conn
            })
            .collect();
        Self { rig, peers, wrong: HashSet::new(), failures: 0 }
    }

    /// One that all peers spoilt together, the one at `liar` on purpose.
    fn spoilt(peers: usize, reqq: u32, liar: usize) -> Self {
        let mut piece = Self::new(peers, reqq);
        let all = piece.asked();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 7, "{all:?}");
        for (at, blocks) in all.into_iter().enumerate() {
            blocks.into_iter().for_each(|block| piece.give(at, block, at != liar));
        }
        assert_eq!(piece.failures, 1);
        assert!(piece.rig.shared.is_restricted(0) && piece.peers.iter().all(|&peer| piece.rig.is_open(peer)));
        piece
    }

    /// What each peer is asked for.
    fn asked(&mut self) -> Vec<Vec<BlockRef>> {
        self.peers.iter().map(|&peer| self.rig.asked(peer)).collect()
    }

    /// The one peer that is asked for anything, and the first block. What was asked for and taken back
    /// before it is sent does not count.
    fn giver(&self) -> (usize, BlockRef) {
        let asked = |at: &usize| self.rig.engine.peer(self.peers[*at])?.asked.front().copied();
        let givers: Vec<usize> = (0..self.peers.len()).filter(|at| asked(at).is_some()).collect();
        let &[giver] = &givers[..] else { panic!("asked are {givers:?}") };
        (giver, self.rig.shared.meta.geometry.block(0, asked(&giver).unwrap().block))
    }

    fn give(&mut self, at: usize, block: BlockRef, right: bool) {
        let conn = self.peers[at];
        let Ok(Landing::Into(place)) = self.rig.engine.handle_piece_header(conn, block) else { return };
        self.wrong.remove(&place.index);
        self.wrong.extend((!right).then_some(place.index));
        self.rig.engine.handle_block(conn, place.chunk, place.index, self.rig.now);
        self.work();
    }

    /// What the worker would do: hashes, autopsies, writes.
    fn work(&mut self) {
        let mut at = 0;
        loop {
            self.rig.perform();
            let Some(action) = self.rig.done.get(at).cloned() else { return };
            at += 1;
            let engine = &mut self.rig.engine;
            match action {
                Action::Hash { chunk, last, .. } => {
                    let digest = [u8::from(!self.wrong.is_empty()); 20];
                    engine.handle_hashed(ONLY, chunk, last.then_some(digest.into()));
                }
                Action::Autopsy { piece, .. } => {
                    self.failures += u32::from(!self.rig.shared.has(piece));
                    let prints: Vec<u64> = (0..7).map(|n| u64::from(self.wrong.contains(&n))).collect();
                    engine.handle_autopsy(ONLY, piece, &prints);
                }
                Action::Write { chunk, .. } => engine.handle_written(ONLY, chunk, Ok(())),
                _ => continue,
            }
            // Done is done.
            at -= 1;
            self.rig.done.remove(at);
        }
    }
}

#[test]
fn p21_a_liar_that_takes_part_in_every_attempt_is_found_by_the_second() {
    for liar in [0, 1] {
        let mut piece = Piece::spoilt(2, 4, liar);
        let shared = Arc::clone(&piece.rig.shared);
        for _ in (0..20).take_while(|_| !shared.has(0)) {
            for (at, blocks) in piece.asked().into_iter().enumerate() {
                blocks.into_iter().for_each(|block| piece.give(at, block, at != liar));
            }
            piece.rig.pass(Span::from_ms(60));
        }
        assert!(shared.has(0) && piece.failures <= 2, "{} attempts failed", piece.failures);
        assert!(!piece.rig.is_open(piece.peers[liar]) && piece.rig.is_open(piece.peers[1 - liar]));
        assert!(!shared.is_restricted(0));
        let torrent = piece.rig.engine.torrent(ONLY).unwrap();
        assert!(torrent.paroles.is_empty() && torrent.evidence.is_empty() && torrent.owned.is_empty());
    }
}

#[test]
fn p21_a_giver_that_stalls_or_leaves_is_followed_by_another_that_gives_all_of_it() {
    for leaves in [false, true] {
        let mut piece = Piece::spoilt(2, 4, 0);
        let (first, block) = piece.giver();
        piece.give(first, block, true);
        if leaves {
            piece.rig.engine.handle_gone(piece.peers[first]);
            piece.rig.pass(Span::from_secs(2));
        } else {
            piece.rig.pass(SNUB_TIMEOUT);
            piece.rig.pass(Span::from_secs(2));
        }
        let (second, again) = piece.giver();
        assert_eq!((second, again), (1 - first, block), "from the start");
        let claim = &piece.rig.engine.torrent(ONLY).unwrap().claims[&0];
        assert_eq!((claim.got, claim.giver), (0, Some(piece.peers[second])));
        piece.rig.engine.check_invariants();
    }
}

#[test]
fn p21_after_so_many_givers_anybody_may_fetch_the_piece() {
    let mut piece = Piece::spoilt(PAROLE_GIVERS_MAX + 1, 2, 0);
    for _ in 0..PAROLE_GIVERS_MAX {
        assert!(piece.rig.shared.is_restricted(0));
        let (giver, _) = piece.giver();
        piece.rig.say(piece.peers[giver], Message::Choke).unwrap();
        piece.rig.pass(Span::from_secs(3));
    }
    assert!(!piece.rig.shared.is_restricted(0));
    for &peer in &piece.peers {
        piece.rig.say(peer, Message::Unchoke).unwrap();
    }
    let all = piece.asked();
    assert!(all.iter().filter(|blocks| !blocks.is_empty()).count() > 1, "{all:?}");
}

#[test]
fn p21_when_nobody_comes_forward_the_piece_does_not_wait() {
    let mut piece = Piece::spoilt(2, 4, 0);
    for &peer in &piece.peers.clone() {
        piece.rig.say(peer, Message::Choke).unwrap();
    }
    piece.rig.pass(Span::from_secs(8));
    assert!(!piece.rig.shared.is_restricted(0) && piece.rig.shared.owner(0).is_none());
    assert!(piece.rig.engine.torrent(ONLY).unwrap().missing.iter().eq([0]));
}

#[test]
fn p21_so_many_pieces_are_on_parole_and_no_more() {
    let mut rig = Rig::new(12, false);
    for piece in 0..=PAROLE_PIECES_MAX {
        assert_eq!(rig.engine.begin_parole(ONLY, piece as u32), piece < PAROLE_PIECES_MAX, "{piece}");
        assert_eq!(rig.shared.is_restricted(piece as u32), piece < PAROLE_PIECES_MAX);
    }
}

#[test]
fn in_the_endgame_a_block_that_another_is_half_through_with_is_not_asked_for_again_and_again() {
    let mut rig = Rig::new(1, false);
    let slow = rig.seed();
    let asked = rig.asked(slow);
    assert!(matches!(rig.engine.handle_piece_header(slow, asked[0]), Ok(Landing::Into(_))));
    let idle = rig.seed();
    assert_eq!(rig.asked(idle), [asked[0]], "it races");
    assert_eq!(rig.engine.handle_piece_header(idle, asked[0]), Ok(Landing::Discard));
    let mut again = Vec::new();
    for _ in 0..10 {
        rig.pass(Span::from_ms(60));
        again.extend(rig.asked(idle));
    }
    assert_eq!(again, [asked[1]], "for another block, and that once");
    // The rest of the block does not come: now it can be won.
    rig.engine.unland(slow, 0, 0);
    assert_eq!(
        rig.engine.handle_piece_header(idle, asked[1]).map(|landing| landing != Landing::Discard),
        Ok(true)
    );
    rig.engine.handle_block(idle, 0, 1, rig.now);
    assert_eq!(rig.asked(idle), [asked[0]]);
}
