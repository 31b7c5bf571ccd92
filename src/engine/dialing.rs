//! Connections that we open: to whom, for which torrent, by which of its names.

use super::versions::{Name, our_offer};
use super::*;

impl Engine {
    /// We began to connect to a peer of `torrent`, which knows it by `name`.
    pub fn handle_dialing(
        &mut self,
        conn: ConnId,
        address: SocketAddr,
        (torrent, name): (TorrentId, Name),
        now: Instant,
    ) {
        let key = self.peer_key(address);
        let mut peer = Peer::new(conn, address, Origin::Outgoing, key, now);
        peer.torrent = Some(torrent);
        peer.name = name;
        self.peers.insert(peer);
        if self.bans.contains(&key) {
            self.close(conn, Farewell::Misbehaved);
        } else if self.stopping {
            self.close(conn, Farewell::Useless);
        }
    }

    /// A dial could not even begin: the connection table is full. Whoever asked for it must know.
    pub fn handle_dial_refused(&mut self, address: SocketAddr, torrent: TorrentId) {
        let why = Farewell::DialFailed;
        let report = Report::Disconnected { torrent, conn: None, address, why };
        self.actions.push_back(Action::Report(report));
    }

    /// A dial ended.
    pub fn handle_dialed(&mut self, conn: ConnId, connected: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.stage == Stage::Dialing) else { return };
        if !connected {
            self.close(conn, Farewell::DialFailed);
            return;
        }
        peer.stage = Stage::Handshaking;
        peer.since = now;
        let known = |id: TorrentId| self.torrents.get(id.0 as usize)?.as_ref();
        let Some(torrent) = peer.torrent.and_then(known) else {
            // An encrypted dial may be over before the torrent is known on this core.
            self.close(conn, Farewell::DialFailed);
            return;
        };
        let offer = our_offer(&self.config, &torrent.shared.meta, peer.name);
        peer.out.frames.extend_from_slice(&offer.encode());
        self.make_ready(conn);
    }
}
