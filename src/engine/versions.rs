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

/// One of the names of a torrent, as trackers and peers know it. Only a hybrid has a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Name {
    /// Of v1, if the torrent has that, else of v2.
    #[default]
    First,
    /// Of v2 of a hybrid: who was found by it may know no other.
    Second,
}

impl Name {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Which of the `names` of a torrent, in their order, a hash is.
    pub fn of(names: impl Iterator<Item = InfoHash>, hash: InfoHash) -> Self {
        if names.skip(1).any(|name| name == hash) { Self::Second } else { Self::First }
    }
}

/// Our handshake when we open a connection, by the name under which the peer was found. By the first name of
/// a hybrid we offer to go on with v2, and who accepts answers by the second (BEP 52).
pub(super) fn our_offer(config: &EngineConfig, meta: &TorrentMeta, name: Name) -> Handshake {
    match meta.v2_hash {
        Some(v2) if name == Name::Second => our_handshake(config, v2),
        Some(_) => our_handshake(config, meta.info_hash).with_v2(),
        None => our_handshake(config, meta.info_hash),
    }
}

/// The name by which the peer of a connection knows the torrent, and whom it names most likely does.
pub(super) fn known_by(meta: &TorrentMeta, version: Version) -> Name {
    if version == Version::V2 && meta.v2_hash.is_some() { Name::Second } else { Name::First }
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
