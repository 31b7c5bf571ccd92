//! Which BitTorrent a connection speaks (BEP 52).
//!
//! A v2 torrent has one name, the front of its SHA-256. A hybrid has two and is in two swarms: who knows it
//! by v1 alone shakes hands by the first name, and whoever can goes on with v2 by answering with the second.

use super::EngineConfig;
use super::peer::{Origin, Version};
use super::session::our_handshake;
use crate::base::ids::InfoHash;
use crate::proto::wire::handshake::Handshake;
use crate::shared::torrent::TorrentMeta;

/// Our handshake when we open a connection: by the first name of the torrent. Of a hybrid one we offer to go
/// on with v2, and who accepts answers by the second name (BEP 52).
pub(super) fn our_offer(config: &EngineConfig, meta: &TorrentMeta) -> Handshake {
    let ours = our_handshake(config, meta.info_hash);
    if meta.v2_hash.is_some() { ours.with_v2() } else { ours }
}

/// The version that both sides speak after the handshake of the other.
pub(super) fn version(meta: &TorrentMeta, origin: Origin, theirs: &Handshake) -> Version {
    let accepts = origin == Origin::Incoming && theirs.has_v2();
    match meta.v2_hash {
        Some(v2) if accepts || theirs.info_hash == v2 => Version::V2,
        None if meta.trees.is_some() => Version::V2,
        _ => Version::V1,
    }
}

/// The name of the torrent in our answer to a handshake.
pub(super) fn answer_name(meta: &TorrentMeta, version: Version) -> InfoHash {
    match version {
        Version::V2 => meta.v2_hash.unwrap_or(meta.info_hash),
        Version::V1 => meta.info_hash,
    }
}
