//! What is computed of each piece, and what makes it right.

use crate::hash::fingerprint::Fingerprint;
use crate::hash::merkle::Hash;
use crate::proto::metainfo::Metainfo;

/// What is computed of each piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Method {
    /// Its digests.
    pub digests: Digests,
    /// The fingerprints of its chunks, if there is a function for them.
    pub fingerprint: Option<Fingerprint>,
}

/// Digests of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digests {
    /// None: fingerprints alone are a third of the work.
    Nothing,
    /// Its SHA-1, by which v1 knows it.
    #[default]
    Sha1,
    /// The leaves of its hash tree (BEP 52).
    Leaves,
    /// Both, for a hybrid: either is enough against accidents, but a torrent may lie, and what is right by
    /// one of them only would be served to those who go by the other.
    Both,
}

/// The digests of one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceDigest {
    /// Its SHA-1, if asked for.
    pub sha1: Option<[u8; 20]>,
    /// The SHA-256 of each of its blocks, padding left out, if asked for.
    pub leaves: Vec<Hash>,
}

impl Digests {
    /// All that a torrent tells of its pieces.
    pub fn of_torrent(metainfo: &Metainfo) -> Self {
        match (metainfo.has_v1(), metainfo.v2.is_some()) {
            (true, true) => Self::Both,
            (true, false) => Self::Sha1,
            (false, _) => Self::Leaves,
        }
    }

    /// Whether the SHA-1 is among them.
    pub(super) const fn has_sha1(self) -> bool {
        matches!(self, Self::Sha1 | Self::Both)
    }

    /// Whether the leaves are among them.
    pub(super) const fn has_leaves(self) -> bool {
        matches!(self, Self::Leaves | Self::Both)
    }
}

impl PieceDigest {
    /// Whether it is that of piece `piece`: by all that the torrent tells of it, and by something at least.
    pub fn fits(mut self, metainfo: &Metainfo, piece: u32) -> bool {
        let sha1 = metainfo.piece_hashes.get(piece as usize).map(|wanted| self.sha1 == Some(*wanted));
        let tree = metainfo.v2.as_ref().and_then(|v2| v2.piece(piece));
        let leaves = tree.map(|tree| tree.verify(&mut self.leaves));
        match (sha1, leaves) {
            (None, None) => false,
            (sha1, leaves) => sha1.unwrap_or(true) && leaves.unwrap_or(true),
        }
    }
}
