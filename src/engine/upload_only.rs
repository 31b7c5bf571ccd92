//! Whether we fetch nothing any more (BEP 21), said again on open connections when it has changed: whoever
//! would wait for our interest learns that there will be none, or that it is back.

use super::session::greet;
use super::*;

impl Engine {
    /// Once a second for each connection.
    pub(super) fn say_upload_only(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else { return };
        let shared = &torrent.shared;
        if peer.told_upload_only.is_some_and(|told| told != shared.is_satisfied()) {
            // All of the handshake: some clients take what is left out for withdrawn.
            greet(&self.config, shared, peer, self.exchange);
        }
    }
}
