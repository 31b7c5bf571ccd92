//! The endgame (BEP 3): when no piece is left to begin, who has nothing to do races for a block that another
//! peer was asked for. Each race but the one that is won costs a block. So it begins late, it is for what
//! would come last, and only if that is likely to be won: then the other's copy can still be cancelled.

use super::claims::Claim;
use super::relief::RELIEF_LOOKS;
use super::torrent::Torrent;
use super::*;
use crate::base::limits::{
    ENDGAME_AGE, ENDGAME_CHUNKS, ENDGAME_COPIES, ENDGAME_GAIN, ENDGAME_PART, ENDGAME_SPANS,
};
use crate::base::time::Span;

impl Engine {
    /// A block to race for. Not while only the disk keeps the peer from new chunks, nor while pieces are left
    /// that nobody has begun, or many just were.
    pub(super) fn race(&mut self, conn: ConnId) -> Option<(u32, u32)> {
        let peer = self.peers.get(conn)?;
        let torrent = self.torrents[peer.torrent?.0 as usize].as_ref()?;
        let is_end = torrent.missing.is_empty() && torrent.begun.is_empty();
        if !peer.asked.is_empty() || !is_end || self.is_disk_behind() {
            return None;
        }
        let late = late_block(torrent, peer, self.ticked_at);
        let last = || last_block(torrent, peer).filter(|&(chunk, index)| self.would_win(conn, chunk, index));
        let (chunk, index) = late.or_else(last)?;
        // Whoever planned a receive for it plans again: the first whole copy counts.
        self.actions.extend(torrent.claims.get(&chunk)?.landing(index).map(Action::Interrupt));
        Some((chunk, index))
    }

    /// Whether a peer is likely to bring a block long before who was asked for it, or nobody knows.
    fn would_win(&self, conn: ConnId, chunk: u32, index: u32) -> bool {
        let Some(peer) = self.peers.get(conn) else { return false };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrent(id)) else { return false };
        let others = torrent.peers.iter().take(RELIEF_LOOKS).filter_map(|&conn| self.peers.get(conn));
        let takes =
            others.filter_map(|other| other.pace.time_for(other.asked_index(chunk, index)? + 1)).min();
        takes.is_none_or(|takes| takes.0 >= ENDGAME_GAIN * peer.pace.latency().0)
    }
}

/// A block of a chunk that was begun so long ago that its giver must be slow.
fn late_block(torrent: &Torrent, peer: &Peer, now: Instant) -> Option<(u32, u32)> {
    let late_age = ENDGAME_AGE.max(Span(ENDGAME_SPANS * torrent.chunk_span.0));
    let late = contested(torrent, peer).filter(|(_, claim)| now.since(claim.since) >= late_age);
    late.filter_map(|(chunk, claim)| Some((chunk, blocks_of(claim).next()?))).next()
}

/// The last block of the chunk that was begun last, if few are left.
fn last_block(torrent: &Torrent, peer: &Peer) -> Option<(u32, u32)> {
    let few = ENDGAME_CHUNKS + torrent.shared.meta.geometry.chunk_count() as usize / ENDGAME_PART;
    if torrent.claims.len() > few {
        return None;
    }
    let blocks = contested(torrent, peer)
        .filter_map(|(chunk, claim)| Some((claim.since, chunk, blocks_of(claim).next_back()?)));
    blocks.max().map(|(_, chunk, index)| (chunk, index))
}

/// Chunks of which blocks may be asked of a peer, too.
fn contested<'a>(torrent: &'a Torrent, peer: &'a Peer) -> impl Iterator<Item = (u32, &'a Claim)> {
    let claims = torrent.claims.iter().map(|(&chunk, claim)| (chunk, claim));
    claims.filter(|&(chunk, claim)| claim.is_open_to(peer.conn) && picker::has_chunk(torrent, peer, chunk))
}

fn blocks_of(claim: &Claim) -> impl DoubleEndedIterator<Item = u32> {
    claim.outstanding().filter(|&index| claim.asked[index as usize] < ENDGAME_COPIES)
}
