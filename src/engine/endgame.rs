//! The endgame (BEP 3): when no piece is left to begin, who has nothing to do races for a block that another
//! peer was asked for. Each race but the one that is won costs a block, so it begins late.

use super::claims::Claim;
use super::*;
use crate::base::limits::{ENDGAME_AGE, ENDGAME_CHUNKS, ENDGAME_COPIES, ENDGAME_PART, ENDGAME_SPANS};
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
        let few = ENDGAME_CHUNKS + torrent.shared.meta.geometry.chunk_count() as usize / ENDGAME_PART;
        let late_age = ENDGAME_AGE.max(Span(ENDGAME_SPANS * torrent.chunk_span.0));
        let is_late = |claim: &Claim| self.ticked_at.since(claim.since) >= late_age;
        let races = |(chunk, claim): &(&u32, &Claim)| {
            let open = claim.is_open_to(conn) && picker::has_chunk(torrent, peer, **chunk);
            open && (torrent.claims.len() <= few || is_late(claim))
        };
        let (chunk, index) = torrent.claims.iter().filter(races).find_map(|(&chunk, claim)| {
            let contested = |&index: &u32| claim.asked[index as usize] < ENDGAME_COPIES;
            claim.outstanding().find(contested).map(|index| (chunk, index))
        })?;
        // Whoever planned a receive for it plans again: the first whole copy counts.
        self.actions.extend(torrent.claims.get(&chunk)?.landing(index).map(Action::Interrupt));
        Some((chunk, index))
    }
}
