//! Who is late is relieved: what was asked of a peer that does not give becomes the work of others.
//!
//! ```text
//! giving -> late (`Peer::is_late`) and another idles -> snubbed: its requests are taken back
//!    ^                                                     |  a block comes after all, or a while passes,
//!    |                                                     |  longer each time
//!    +-----------------------------------------------------+
//! ```
//!
//! Being late is judged by what the peer itself did before, so that a slow and steady one keeps its blocks.
//! Who was asked for something that only it gives is waited for as long as a seed of ours would have us wait
//! (`HELD_BACK_TIME`): to leave it alone in turn would be the longer wait. No longer, since it may lie. What
//! nobody else even gives is waited for until the longest timeout, and a block that comes after it was taken
//! back is taken: on a slow link to ask anew is to wait for another turn.

use std::collections::BTreeSet;

use super::claims::Claim;
use super::peer::Asked;
use super::*;
use crate::base::limits::{HELD_BACK_TIME, SNUBBED_TIME};
use crate::base::time::Span;
use crate::proto::wire::message::Message;

/// Late peers that one tick may relieve, idle ones that it looks at for each, and peers of a torrent that are
/// looked at for whom a chunk is asked of: ten thousand for each of ten thousand would not end.
pub(super) const RELIEF_LOOKS: usize = 64;

/// Chunks that are looked at of what a late peer was asked for.
const RELIEF_CHUNKS: usize = 16;

/// Pieces that somebody takes over who begins to serve us.
pub(super) const RELIEF_PIECES: usize = 16;

impl Engine {
    /// While a peer has nothing to do, what another is far too late with becomes its work: near the end of
    /// a torrent one stalled source would otherwise be waited for until it counts as snubbing.
    pub(super) fn relieve_late(&mut self, now: Instant) {
        if self.hungry.is_empty() {
            return;
        }
        let idle = || self.hungry.iter().take(RELIEF_LOOKS);
        let late = self.peers.iter().filter(|peer| peer.is_late(now)).take(RELIEF_LOOKS);
        let late = late.filter(|peer| {
            let looks = if now.since(peer.block_at) < HELD_BACK_TIME { RELIEF_CHUNKS } else { 1 };
            let mut chunks = asked_chunks(peer).take(looks);
            chunks.all(|chunk| idle().any(|&idle| self.can_relieve(idle, peer, chunk)))
        });
        let late: Vec<ConnId> = late.map(|peer| peer.conn).collect();
        late.into_iter().for_each(|conn| self.relieve(conn, now));
    }

    /// Leaves a late peer alone for a while, longer each time.
    pub(super) fn relieve(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let until = now + peer.alone_next;
        peer.alone_next = Span(2 * peer.alone_next.0).min(SNUBBED_TIME);
        self.snub(conn, until);
    }

    /// Whether `idle` may give, and has, a chunk that is asked of `peer`.
    fn can_relieve(&self, idle: ConnId, peer: &Peer, chunk: u32) -> bool {
        let torrent = peer.torrent.and_then(|id| self.torrent(id));
        let (Some(torrent), Some(other)) = (torrent, self.peers.get(idle)) else { return false };
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        let is_open = torrent.claims.get(&chunk).is_some_and(|claim| claim.is_open_to(idle));
        other.conn != peer.conn && other.torrent == peer.torrent && is_open && other.gives(piece)
    }

    /// Somebody has come to have a piece that was asked of a seed, which may leave it for last from now on,
    /// as ours do: what nothing has come of yet is taken back, so that the seed is asked for what only it
    /// has.
    pub(super) fn take_over(&mut self, giver: ConnId, piece: u32) {
        let Some(peer) = self.peers.get(giver).filter(|peer| !peer.is_seed() && peer.gives(piece)) else {
            return;
        };
        let Some(id) = peer.torrent else { return };
        let Some(torrent) = self.torrent(id) else { return };
        let untouched = |chunk: &u32| {
            let claim = torrent.claims.get(chunk);
            claim.is_some_and(|claim| claim.got == 0 && claim.giver.is_none() && !claim.is_landing())
        };
        // Of a larger torrent the others are not looked at: what only they are asked for stays where it is,
        // and what they are asked for beside a seed is taken back from them, too.
        let looked_at = || torrent.peers.iter().take(RELIEF_LOOKS).filter_map(|&conn| self.peers.get(conn));
        let of_seeds = |chunk: &u32| {
            let asks = |peer: &&Peer| peer.asked.iter().any(|asked| asked.chunk == *chunk);
            let mut askers = looked_at().filter(asks).peekable();
            askers.peek().is_some() && askers.all(Peer::is_seed)
        };
        let chunks = picker::chunks(torrent, piece).filter(untouched).filter(of_seeds);
        chunks.collect::<Vec<_>>().into_iter().for_each(|chunk| self.release(id, chunk));
    }

    /// The same of what a peer had before it served us: at the start of a swarm pieces are announced first,
    /// and a seed that was asked for nothing but what others were given gave nothing for seconds. Once only:
    /// whoever chokes and unchokes all the time is no work of ours.
    pub(super) fn take_over_all(&mut self, giver: ConnId) {
        let Some(peer) = self.peers.get(giver).filter(|peer| !peer.is_seed()) else { return };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrent(id)) else { return };
        let geometry = torrent.shared.meta.geometry;
        let looked_at = torrent.peers.iter().take(RELIEF_LOOKS).filter_map(|&conn| self.peers.get(conn));
        let of_seeds = looked_at.filter(|peer| peer.is_seed()).flat_map(asked_chunks);
        let pieces = of_seeds.map(|chunk| geometry.chunk_piece(chunk));
        let pieces: BTreeSet<u32> = pieces.filter(|&piece| peer.bits.get(piece)).collect();
        pieces.into_iter().take(RELIEF_PIECES).for_each(|piece| self.take_over(giver, piece));
    }

    /// Whether what a peer was asked for first is a piece that nobody else is known to give.
    pub(super) fn waits_for_rare(&self, conn: ConnId) -> bool {
        let first = || {
            let peer = self.peers.get(conn)?;
            let shared = &self.torrent(peer.torrent?)?.shared;
            let piece = shared.meta.geometry.chunk_piece(peer.asked.front()?.chunk);
            Some(shared.givers.of(piece) <= u32::from(peer.flags.has_unchoked))
        };
        first().unwrap_or(false)
    }

    /// Takes back what was asked of a peer; it is asked again once a block comes, or then.
    pub(super) fn snub(&mut self, conn: ConnId, until: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.snubbed_until = Some(until);
        if let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) {
            let meta = &torrent.shared.meta;
            // What it has not sent yet others give: a copy would be thrown away.
            for asked in &peer.asked {
                Message::Cancel(meta.wanted_block(asked.chunk, asked.block)).encode(&mut peer.out.frames);
            }
        }
        self.drop_requests(conn);
        self.make_ready(conn);
    }
}

impl Peer {
    /// A block comes that was taken back: unless somebody else's is landing it is as good as any, and counts
    /// as asked for again. Its place among what is asked for; `None` if it is thrown away. Of who is left
    /// alone for its silence so many are taken as it may come back.
    pub(super) fn take_late(
        &mut self,
        claim: &mut Claim,
        chunk: u32,
        block: u32,
        now: Instant,
    ) -> Option<usize> {
        let is_wanted = claim.is_open_to(self.conn) && !claim.has(block) && claim.landing(block).is_none();
        if self.grace == 0 || !is_wanted || self.is_snubbed() && !self.come_back(now) {
            return None;
        }
        self.grace -= 1;
        claim.asked[block as usize] += 1;
        // When it was asked for is forgotten: not before the last one came.
        self.asked.push_back(Asked { chunk, block, at: self.block_at });
        Some(self.asked.len() - 1)
    }
}

/// Chunks of which a peer is asked for something. Those of one are together but at the end of a torrent.
fn asked_chunks(peer: &Peer) -> impl Iterator<Item = u32> {
    let mut before = None;
    peer.asked.iter().map(|asked| asked.chunk).filter(move |&chunk| before.replace(chunk) != Some(chunk))
}
