//! Pieces that may be asked for while choked (BEP 6, Allowed Fast): ours for newcomers, and others' for us.
//!
//! The set of a newcomer follows from its network and the torrent, so all honest nodes allow the same pieces,
//! and who asks all of them from one network gets no more than those. What it takes comes out of its group's
//! grant; who has used that up waits until it is unchoked.

use std::net::IpAddr;

use super::session::{PeerMisbehaved, idle};
use super::*;
use crate::base::address::canonical;
use crate::base::geometry::Geometry;
use crate::base::limits::{
    ALLOWED_FAST_ASKED_MAX, ALLOWED_FAST_COPIES, ALLOWED_FAST_KEPT_MAX, ALLOWED_FAST_PIECES,
    GRANT_GROUP_BYTES,
};
use crate::base::units::BLOCK_BYTES;
use crate::hash::sha1::Sha1;
use crate::proto::wire::message::Message;

use super::scheduler::class::{Class, earned};

/// Digests that are drawn from. Each has five numbers; even of eleven pieces ten are found in six.
const DIGESTS_MAX: usize = 64;

/// The first `count` pieces of the canonical set: SHA-1 over the network and the info hash, then over its own
/// digest, gives five numbers each time. IPv4 by /24 as BEP 6 has it, IPv6 by /48.
pub fn canonical_set(address: IpAddr, info_hash: InfoHash, pieces: u32, count: usize) -> Vec<u32> {
    if pieces as usize <= count {
        return (0..pieces).collect();
    }
    let mut set = Vec::with_capacity(count);
    let mut digest = Sha1::new();
    match canonical(address) {
        IpAddr::V4(ip) => digest.update(&(ip.to_bits() & 0xffff_ff00).to_be_bytes()),
        IpAddr::V6(ip) => digest.update(&ip.octets()[..6]),
    }
    digest.update(&info_hash.0);
    for _ in 0..DIGESTS_MAX {
        let numbers = digest.finish();
        for word in numbers.as_chunks::<4>().0 {
            let piece = u32::from_be_bytes(*word) % pieces;
            if set.len() < count && !set.contains(&piece) {
                set.push(piece);
            }
        }
        digest = Sha1::new();
        digest.update(&numbers);
    }
    set
}

/// What a peer may ask us for while it is choked.
#[derive(Debug)]
pub struct Offered {
    pieces: Vec<u32>,
    /// Requests that are left to it.
    requests_left: u32,
}

impl Offered {
    fn new(pieces: Vec<u32>, geometry: Geometry) -> Self {
        let blocks: u32 = pieces.iter().map(|&piece| geometry.piece_len(piece).div_ceil(BLOCK_BYTES)).sum();
        Self { pieces, requests_left: ALLOWED_FAST_COPIES * blocks }
    }

    /// Whether the piece is one of them.
    pub fn has(&self, piece: u32) -> bool {
        self.pieces.contains(&piece)
    }

    /// Takes a request for a block of `piece`; false if it is one too many, or for another piece.
    pub fn take(&mut self, piece: u32) -> bool {
        let taken = self.has(piece) && self.requests_left > 0;
        self.requests_left -= u32::from(taken);
        taken
    }
}

impl Engine {
    /// A peer wants blocks and has to wait for its turn: a newcomer is told once what it may ask for
    /// meanwhile. Who is unchoked at once is not: sets of different addresses overlap, and of two newcomers
    /// that ask a seed for one piece the second gets nothing while that is awaited from the first.
    pub(super) fn offer_allowed_fast(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(conn) else { return };
        let newcomer = peer.fast && (peer.bits.count() as usize) < ALLOWED_FAST_PIECES;
        if !newcomer || peer.offered.is_some() || !self.gets_though_choked(peer) {
            return;
        }
        let Some(torrent) = peer.torrent.and_then(|id| self.torrent(id)) else { return };
        let meta = &torrent.shared.meta;
        let pieces = meta.geometry.piece_count();
        let mut set = canonical_set(peer.address.ip(), meta.info_hash, pieces, ALLOWED_FAST_PIECES);
        set.retain(|&piece| torrent.shared.has(piece) && !peer.bits.get(piece));
        let offered = Offered::new(set, meta.geometry);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        offered.pieces.iter().for_each(|&piece| Message::AllowedFast(piece).encode(&mut peer.out.frames));
        peer.offered = Some(Box::new(offered));
        self.make_ready(conn);
    }

    /// Whether blocks go to a peer though it is choked: what it gave, or its group's grant, allows for it.
    pub(super) fn gets_though_choked(&self, peer: &Peer) -> bool {
        peer.accounts.is_some_and(|[own, group]| {
            let earned = earned(self.ledger.standing(own)).is_some();
            earned || self.ledger.granted_bytes(group) < GRANT_GROUP_BYTES
        })
    }

    /// Whether blocks may go to the peer now.
    pub(super) fn may_be_served(&self, peer: &Peer) -> bool {
        peer.flags.unchoked || self.gets_though_choked(peer)
    }

    /// Whether blocks of `class` go to the peer now.
    pub(super) fn is_served(&self, peer: &Peer, class: Class) -> bool {
        peer.flags.unchoked || class != Class::Rest && self.gets_though_choked(peer)
    }

    /// A peer lets us ask for a piece while it chokes us. Of too many the first ones are remembered.
    pub(super) fn allowed_fast(
        &mut self,
        conn: ConnId,
        piece: u32,
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        idle(peer)?;
        if piece >= peer.bits.len() {
            return Err(PeerMisbehaved::NoSuchPiece);
        }
        if peer.fast && peer.allowed.len() < ALLOWED_FAST_KEPT_MAX && !peer.allowed.contains(&piece) {
            peer.allowed.push(piece);
            self.ask_more(conn, now);
        }
        Ok(())
    }

    /// A block to ask a peer for that chokes us: of a chunk that is collected, or of a new one.
    pub(super) fn next_allowed(&mut self, conn: ConnId, now: Instant) -> Option<(u32, u32)> {
        let peer = self.peers.get(conn).filter(|peer| peer.asked.len() < ALLOWED_FAST_ASKED_MAX)?;
        let torrent = self.torrents[peer.torrent?.0 as usize].as_ref()?;
        let shared = &torrent.shared;
        let geometry = shared.meta.geometry;
        let collected = torrent.claims.iter().find_map(|(&chunk, claim)| {
            let open = claim.is_open_to(conn) && peer.gives(geometry.chunk_piece(chunk));
            Some((chunk, claim.next_unasked().filter(|_| open)?))
        });
        if collected.is_some() {
            return collected;
        }
        let chunk = self.claim_allowed(conn, now)?;
        let torrent = self.torrents[self.peers.get(conn)?.torrent?.0 as usize].as_ref()?;
        Some((chunk, torrent.claims.get(&chunk)?.next_unasked()?))
    }

    /// Claims a chunk of a piece that the peer gives though it chokes us.
    fn claim_allowed(&mut self, conn: ConnId, now: Instant) -> Option<u32> {
        if self.is_disk_behind() {
            return None;
        }
        let peer = self.peers.get(conn)?;
        let id = peer.torrent?;
        let torrent = self.torrents[id.0 as usize].as_mut().filter(|torrent| torrent.wants_pieces())?;
        let mut given = peer.allowed.iter().copied().filter(|&piece| peer.gives(piece));
        let (piece, chunk) =
            given.find_map(|piece| Some((piece, picker::first_empty_chunk(torrent, &self.cache, piece)?)))?;
        if !picker::own(torrent, &self.cache, piece, self.config.core, now) {
            return None;
        }
        if torrent.shared.meta.geometry.chunks_per_piece() > 1 && !torrent.begun.contains(&piece) {
            torrent.begun.push(piece);
        }
        self.claim_empty(id, chunk, None, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash([0xaa; 20]);

    fn set(address: &str, pieces: u32, count: usize) -> Vec<u32> {
        canonical_set(address.parse().unwrap(), HASH, pieces, count)
    }

    #[test]
    fn bep6_the_published_sets() {
        let nine = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(set("80.4.4.200", 1313, 7), nine[..7]);
        assert_eq!(set("80.4.4.200", 1313, 9), nine);
        assert_eq!(set("::ffff:80.4.4.200", 1313, 9), nine, "however it is written");
    }

    #[test]
    fn one_network_has_one_set() {
        assert_eq!(set("80.4.4.1", 1313, 10), set("80.4.4.255", 1313, 10));
        assert_ne!(set("80.4.5.1", 1313, 10), set("80.4.4.1", 1313, 10));
        assert_eq!(set("2600:1:2:3::1", 1313, 10), set("2600:1:2:ffff::9", 1313, 10));
        assert_ne!(set("2600:1:3::1", 1313, 10), set("2600:1:2::1", 1313, 10));
    }

    #[test]
    fn small_torrents_are_allowed_whole_and_others_in_part() {
        for (pieces, many) in [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10), (12, 10)] {
            let mut set = set("80.4.4.200", pieces, 10);
            set.sort_unstable();
            set.dedup();
            assert_eq!(set.len(), many, "{pieces} pieces");
            assert!(set.iter().all(|&piece| piece < pieces));
        }
    }

    #[test]
    fn p26_each_block_may_be_asked_for_so_often() {
        let geometry = Geometry::new(100 * (64 << 10), 64 << 10);
        let mut offered = Offered::new(vec![3, 7], geometry);
        let most = ALLOWED_FAST_COPIES * 2 * 4;
        for n in 0..most {
            assert!(!offered.take(4), "another piece");
            assert!(offered.take(if n % 2 == 0 { 3 } else { 7 }), "{n}");
        }
        assert!(!offered.take(3) && !offered.take(7) && offered.has(3));
    }
}
