//! What must hold of an engine between any two calls; tests look after each step.

use std::collections::HashSet;

use super::*;
use crate::base::limits::SLOTS_HELD_MAX;
use crate::shared::chunks::ChunkState;

impl Engine {
    /// Panics if an invariant does not hold.
    pub fn check_invariants(&self) {
        for torrent in self.torrents.iter().flatten() {
            self.check_members(torrent);
            for (&chunk, claim) in &torrent.claims {
                self.check_claim(torrent, chunk, claim);
            }
        }
        self.check_choker();
        self.egress.check();
        let mut queued = HashSet::new();
        for &conn in &self.due {
            assert!(queued.insert(conn), "{conn:?} is queued twice");
        }
        for peer in self.peers.iter() {
            assert_eq!(peer.out.due, queued.contains(&peer.conn), "due flag of {:?}", peer.conn);
            self.check_asked(peer);
        }
        let asked: usize = self.peers.iter().map(|peer| peer.asked.len()).sum();
        assert_eq!(asked, self.appetite.asked(), "requests outstanding");
    }

    /// Panics if the choker counts others than those who want blocks and compete.
    fn check_choker(&self) {
        let rivals = self.peers.iter().filter(|peer| peer.is_open() && self.competes(peer));
        let (unchoked, waiting): (Vec<&Peer>, Vec<&Peer>) =
            rivals.filter(|peer| peer.flags.wants_us).partition(|peer| peer.flags.unchoked);
        let counts = (self.choker.unchoked(), self.choker.turns.len());
        assert_eq!(counts, (unchoked.len(), waiting.len()), "unchoked and waiting rivals");
        for peer in waiting {
            let group = peer.accounts.expect("an open peer has accounts")[1];
            assert!(self.choker.turns.holds(peer.conn, group), "{:?} waits for no turn", peer.conn);
        }
    }

    /// Panics if blocks were asked for and nothing will ever send them.
    fn check_turn(&self, peer: &Peer) {
        let wants = self.may_be_served(peer)
            && !peer.requests.is_empty()
            && peer.may_send()
            && peer.out.segments.is_empty();
        let full = peer.out.slots_held() >= SLOTS_HELD_MAX;
        let waits = self.egress.holds(peer.conn) || peer.out.throttled || peer.missed || full;
        assert!(!wants || waits, "{:?} waits for no turn", peer.conn);
    }

    /// Panics if something would wait for nothing once all intentions are carried out.
    pub fn check_settled(&self) {
        for peer in self.peers.iter().filter(|peer| peer.is_open()) {
            let Some(torrent) = peer.torrent.and_then(|id| self.torrent(id)) else { continue };
            self.check_turn(peer);
            let mute = peer.out.frames.is_empty() || peer.out.in_flight || peer.out.due;
            assert!(mute, "{:?} has messages that nobody sends", peer.conn);
            let willing = peer.flags.unchokes_us && peer.flags.interested && !peer.is_snubbed();
            let wanted = torrent.wants_pieces() && peer.bits.ones().any(|piece| torrent.shared.lacks(piece));
            if willing && wanted && !self.stopping && peer.asked.is_empty() {
                assert!(self.hungry.contains(&peer.conn), "{:?} idles for good", peer.conn);
            }
        }
    }

    fn check_members(&self, torrent: &Torrent) {
        let members: HashSet<ConnId> = torrent.peers.iter().copied().collect();
        assert_eq!(members.len(), torrent.peers.len(), "a connection is listed twice");
        let open = |peer: &&Peer| peer.is_open() && peer.torrent == Some(torrent.id());
        let open: HashSet<ConnId> = self.peers.iter().filter(open).map(|peer| peer.conn).collect();
        assert_eq!(members, open, "the torrent's list and the open connections differ");
        self.check_givers(torrent);
    }

    /// As far as one core can know.
    fn check_givers(&self, torrent: &Torrent) {
        let pieces = torrent.shared.meta.geometry.piece_count();
        if torrent.shared.stats.len() > 1 || pieces > 64 {
            return;
        }
        let givers = torrent.peers.iter().filter_map(|&conn| self.peers.get(conn));
        let givers: Vec<&Peer> = givers.filter(|peer| peer.flags.has_unchoked).collect();
        for piece in 0..pieces {
            let count = givers.iter().filter(|peer| peer.bits.get(piece)).count();
            assert_eq!(torrent.shared.givers.of(piece) as usize, count, "of piece {piece}");
        }
        let seeds = givers.iter().filter(|peer| peer.is_seed()).count();
        assert_eq!(torrent.shared.givers.seeds() as usize, seeds);
    }

    fn check_claim(&self, torrent: &Torrent, chunk: u32, claim: &claims::Claim) {
        let view = torrent.shared.chunks.view(chunk);
        assert_eq!((view.state, view.slot), (ChunkState::Filling, claim.slot), "claimed chunk {chunk}");
        assert_eq!(self.cache.got(claim.slot), claim.got, "got bits of chunk {chunk}");
        assert!(!claim.is_full(), "chunk {chunk} is full and still claimed");
        if claim.releasing {
            assert!(claim.is_landing(), "chunk {chunk} is given up and nothing lands in it");
        }
        for block in 0..crate::base::units::BLOCKS_PER_CHUNK {
            let asked =
                |peer: &&Peer| peer.torrent == Some(torrent.id()) && peer.asked_index(chunk, block).is_some();
            let asked = self.peers.iter().filter(asked).count();
            let counted = usize::from(claim.asked[block as usize]);
            assert_eq!(asked, counted, "who is asked for block {block} of chunk {chunk}");
            let lander = claim.landing(block);
            if claim.has(block) {
                assert_eq!((counted, lander), (0, None), "block {block} of chunk {chunk} is there");
            }
            if let Some(conn) = lander {
                let peer = self.peers.get(conn).expect("what lands has a connection");
                assert_eq!(peer.torrent, Some(torrent.id()));
            }
        }
    }

    fn check_asked(&self, peer: &Peer) {
        assert!(peer.is_open() || peer.asked.is_empty(), "{:?} is closed and asked", peer.conn);
        let mut seen = HashSet::new();
        for asked in &peer.asked {
            assert!(seen.insert((asked.chunk, asked.block)), "{:?} is asked twice for {asked:?}", peer.conn);
            let torrent = peer.torrent.and_then(|id| self.torrent(id)).expect("a torrent to ask for");
            let claim = torrent.claims.get(&asked.chunk).expect("a claim to ask for");
            assert!(!claim.releasing && asked.block < claim.blocks);
            let piece = torrent.shared.meta.geometry.chunk_piece(asked.chunk);
            assert!(peer.bits.get(piece), "{:?} is asked for what it lacks", peer.conn);
        }
    }
}
