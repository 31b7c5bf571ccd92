//! Connections to web seeds (BEP 19), as a core sees them: peers that have what their server has, give and
//! want nothing. At the other end is our own bridge (`daemon/web_seed/`), so that claims, depth, limits,
//! verification, blame and bans are those of any peer. What differs: nobody else is told of one, it has no
//! account and no place in the order of service, and it is blamed as a web seed of its torrent and not by
//! its address.
//!
//! ```text
//! source.rs   one web seed: whether to open a connection, what its server has, when to leave it alone
//! feed.rs     one connection: which range is fetched next, and where its bytes belong
//! answer.rs   which answers of a server are of use
//! ```

pub mod answer;
pub mod feed;
pub mod source;

use std::net::SocketAddr;

use crate::base::bitfield::Bitfield;
use crate::base::ids::WebSeedId;
use crate::base::limits::REQUESTS_OUT_MAX;
use crate::proto::wire::handshake::Handshake;
use crate::shared::sync::Ordering;
use crate::shared::torrent::CoreStats;

use super::session::our_handshake;
use super::*;

/// Counts a block that landed.
pub(super) fn note_received(peer: &Peer, stats: &CoreStats, bytes: u32) {
    stats.received_bytes.add(bytes.into());
    if peer.is_web_seed() {
        stats.web_seed_bytes.add(bytes.into());
    }
}

impl Engine {
    /// The bridge opened a connection to a web seed, whose server is at `address`.
    pub fn handle_adopted(
        &mut self,
        conn: ConnId,
        address: SocketAddr,
        (id, seed): (TorrentId, WebSeedId),
        now: Instant,
    ) {
        let info_hash = self.torrent(id).map(|torrent| torrent.shared.meta.info_hash);
        let key = info_hash.map_or(0, |hash| Identity::of_web_seed(hash, seed, self.config.secret));
        let mut peer = Peer::new(conn, address, Origin::WebSeed(seed), key, now);
        peer.torrent = info_hash.map(|_| id);
        // It wants nothing, so that nobody is to be credited.
        peer.account_key = 0;
        self.peers.insert(peer);
        let why = if self.bans.contains(&key) { Farewell::Misbehaved } else { Farewell::Useless };
        let Some(info_hash) = info_hash.filter(|_| why == Farewell::Useless && !self.stopping) else {
            self.close(conn, why);
            return;
        };
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.out.frames.extend_from_slice(&our_handshake(&self.config, info_hash).encode());
        }
        self.make_ready(conn);
    }

    /// The bridge's handshake came.
    pub(super) fn admit_web_seed(&mut self, conn: ConnId, id: TorrentId, theirs: &Handshake, now: Instant) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.stage = Stage::Open;
        peer.since = now;
        peer.fast = true;
        peer.upload_only = true;
        peer.peer_id = theirs.peer_id;
        peer.reqq = REQUESTS_OUT_MAX;
        peer.bits = Bitfield::new(torrent.shared.meta.geometry.piece_count());
        torrent.peers.push(conn);
        let stats = torrent.stats(self.config.core);
        stats.peers.fetch_add(1, Ordering::Relaxed);
        stats.web_seeds.fetch_add(1, Ordering::Relaxed);
    }
}
