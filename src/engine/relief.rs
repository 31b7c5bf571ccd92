//! Who is late is relieved: what was asked of a peer that does not give becomes the work of others.
//!
//! ```text
//! giving -> late (`Peer::is_late`) and another idles -> snubbed: its requests are taken back
//!    ^                                                     |  a block comes after all, or a while passes
//!    +-----------------------------------------------------+
//! ```
//!
//! Being late is judged by what the peer itself did before, so that a slow and steady one keeps its blocks.

use super::*;
use crate::proto::wire::message::Message;

/// Late peers, and idle ones for each, that one tick looks at: with ten thousand of both it would not end.
const RELIEF_LOOKS: usize = 64;

impl Engine {
    /// While a peer has nothing to do, what another is far too late with becomes its work: near the end of
    /// a torrent one stalled source would otherwise be waited for until it counts as snubbing.
    pub(super) fn relieve_late(&mut self, now: Instant) {
        if self.hungry.is_empty() {
            return;
        }
        let idle = || self.hungry.iter().take(RELIEF_LOOKS);
        let late = self.peers.iter().filter(|peer| peer.is_late(now)).take(RELIEF_LOOKS);
        let late = late.filter(|peer| idle().any(|&idle| self.can_relieve(idle, peer)));
        let late: Vec<ConnId> = late.map(|peer| peer.conn).collect();
        late.into_iter().for_each(|conn| self.snub(conn));
    }

    /// Whether `idle` may give, and has, the oldest block that is asked of `peer`.
    fn can_relieve(&self, idle: ConnId, peer: &Peer) -> bool {
        let oldest = peer.torrent.and_then(|id| self.torrent(id)).zip(peer.asked.front());
        let (Some((torrent, asked)), Some(other)) = (oldest, self.peers.get(idle)) else { return false };
        let piece = torrent.shared.meta.geometry.chunk_piece(asked.chunk);
        let is_open = torrent.claims.get(&asked.chunk).is_some_and(|claim| claim.is_open_to(idle));
        other.conn != peer.conn && other.torrent == peer.torrent && is_open && other.gives(piece)
    }

    /// Takes back what was asked of a peer; it is asked again once a block comes, or after a while.
    pub(super) fn snub(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.snubbed = true;
        let geometry = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref());
        if let Some(geometry) = geometry.map(|torrent| torrent.shared.meta.geometry) {
            // What it has not sent yet others give: a copy would be thrown away.
            for asked in &peer.asked {
                Message::Cancel(geometry.block(asked.chunk, asked.block)).encode(&mut peer.out.frames);
            }
        }
        self.drop_requests(conn);
        self.make_ready(conn);
    }
}
