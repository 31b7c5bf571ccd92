//! A web seed is a peer like any other, but for what it is not: known to others, credited, served.

use super::*;
use crate::base::ids::WebSeedId;
use crate::base::limits::WEB_SEED_REQUESTS_OUT_MIN;
use crate::base::units::BLOCK_BYTES;

impl Rig {
    /// A connection to web seed `seed`, whose server is at `address`; what we said first.
    fn adopt(&mut self, seed: u16, address: &str) -> (ConnId, Vec<u8>) {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let whose = (TorrentId(0), WebSeedId(seed));
        self.engine.handle_adopted(conn, address.parse().unwrap(), whose, self.now);
        let (greeting, _) = self.read(conn);
        (conn, greeting)
    }

    /// The same, past its handshake: it has everything and gives it.
    fn web_seed(&mut self, seed: u16) -> ConnId {
        let (conn, _) = self.adopt(seed, "8.8.8.8:80");
        let handshake = Handshake::new(HASH, THEIRS).with_fast();
        assert_eq!(self.engine.handle_handshake(conn, &handshake, self.now), Admission::Here);
        self.say(conn, Message::HaveAll).unwrap();
        self.say(conn, Message::Unchoke).unwrap();
        conn
    }

    /// Lets all blocks of the first piece come from `conn`, and its hash be wrong.
    fn spoil_a_piece(&mut self, conn: ConnId) {
        let asked = self.asked(conn);
        let piece = asked[0].piece;
        for block in asked.into_iter().filter(|block| block.piece == piece) {
            let chunk = self.shared.meta.geometry.chunk_of(block.piece, block.begin);
            let index = block.begin % crate::base::units::CHUNK_BYTES / BLOCK_BYTES;
            let landing = self.engine.handle_piece_header(conn, block).unwrap();
            assert!(matches!(landing, Landing::Into(_)));
            self.engine.handle_block(conn, chunk, index, self.now);
        }
        loop {
            self.perform();
            let due = |action: &Action| matches!(action, Action::Hash { .. } | Action::Autopsy { .. });
            let Some(at) = self.done.iter().position(due) else { break };
            match self.done.remove(at) {
                Action::Hash { torrent, chunk, last, .. } => {
                    self.engine.handle_hashed(torrent, chunk, last.then_some([9; 20].into()));
                }
                Action::Autopsy { torrent, piece } => self.engine.handle_autopsy(torrent, piece, &[1; 64]),
                _ => {}
            }
        }
    }
}

#[test]
fn a_web_seed_is_asked_for_much_at_once_and_told_of_nothing() {
    let mut rig = Rig::new(8, false);
    let (conn, greeting) = rig.adopt(0, "8.8.8.8:80");
    assert_eq!(Handshake::parse(&greeting).unwrap().unwrap().info_hash, HASH);
    let handshake = Handshake::new(HASH, THEIRS).with_fast();
    assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Here);
    rig.say(conn, Message::HaveAll).unwrap();
    rig.say(conn, Message::Unchoke).unwrap();
    let (bytes, _) = rig.read(conn);
    let said = frames(&bytes);
    assert_eq!(said[0], Message::Interested);
    assert!(said[1..].iter().all(|message| matches!(message, Message::Request(_))), "{said:?}");
    assert!(said.len() > WEB_SEED_REQUESTS_OUT_MIN, "{}", said.len());
    let web_seeds = |rig: &Rig| rig.shared.stats[0].web_seeds.load(crate::shared::sync::Ordering::Relaxed);
    assert_eq!(web_seeds(&rig), 1);
    // No report names it, so that it is nobody's candidate, and nobody's peer.
    assert!(!rig.done.iter().any(|action| matches!(action, Action::Report(Report::Connected { .. }))));
    rig.engine.handle_gone(conn);
    rig.perform();
    assert_eq!(web_seeds(&rig), 0);
    let why = Farewell::Gone;
    let left = Report::WebSeedLeft { torrent: TorrentId(0), seed: WebSeedId(0), why };
    assert!(rig.done.contains(&Action::Report(left)));
    assert!(!rig.done.iter().any(|action| matches!(action, Action::Report(Report::Disconnected { .. }))));
}

#[test]
fn p24_a_web_seed_that_gives_bad_data_is_banned_and_its_neighbours_stay() {
    let mut rig = Rig::new(8, false);
    let liar = rig.web_seed(0);
    let stranger = rig.accept("8.8.8.8:5000");
    assert_eq!(rig.shake(stranger, true), Admission::Here);
    rig.spoil_a_piece(liar);
    let other = rig.web_seed(1);
    rig.perform();
    assert!(rig.was_closed(liar), "it gave all of a bad piece");
    assert!(rig.is_open(other), "another web seed at the same address");
    assert!(rig.is_open(stranger), "a peer at the same address");
    let (again, _) = rig.adopt(0, "9.9.9.9:443");
    assert!(rig.was_closed(again), "the same web seed at another address");
}
