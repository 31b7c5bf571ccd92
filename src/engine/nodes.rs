//! Nodes of the distributed hash table that peers name by a `port` message (BEP 5), and ours that we name.

use super::action::{Action, Report};
use super::peer::Peer;
use super::session::{PeerMisbehaved, idle};
use super::{Engine, EngineConfig};
use crate::base::ids::ConnId;
use crate::proto::wire::handshake::Handshake;
use crate::proto::wire::message::Message;
use crate::shared::torrent::SharedTorrent;

/// Tells a peer that has a node where ours is. Not about a private torrent: who has that is no news for the
/// table (BEP 27).
pub(super) fn name_node(config: &EngineConfig, theirs: &Handshake, shared: &SharedTorrent, peer: &mut Peer) {
    if let Some(port) = config.dht_port.filter(|_| theirs.has_dht() && !shared.meta.private) {
        Message::Port(port).encode(&mut peer.out.frames);
    }
}

impl Engine {
    /// A peer has a node at `port` of its address: the control thread hears of the first one (threat D7).
    pub(super) fn node_named(&mut self, conn: ConnId, port: u16) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        idle(peer)?;
        let Some(torrent) = peer.torrent else { return Ok(()) };
        let shared = self.torrents[torrent.0 as usize].as_ref().map(|torrent| &torrent.shared);
        let wanted = self.config.dht_port.is_some() && shared.is_some_and(|shared| !shared.meta.private);
        if !wanted || port == 0 || std::mem::replace(&mut peer.node_named, true) {
            return Ok(());
        }
        let mut address = peer.address;
        address.set_port(port);
        self.actions.push_back(Action::Report(Report::Node { torrent, address }));
        Ok(())
    }
}
