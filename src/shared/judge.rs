//! Whether a piece is what the torrent says that it is.

use super::torrent::TorrentMeta;
use crate::hash::merkle::Hash;

/// What the bytes of a piece hash to, by each version that the torrent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceDigest {
    /// SHA-1 of all bytes, padding included (BEP 3).
    pub v1: Option<[u8; 20]>,
    /// The root of their tree, without padding (BEP 52).
    pub v2: Option<Hash>,
}

impl From<[u8; 20]> for PieceDigest {
    fn from(v1: [u8; 20]) -> Self {
        Self { v1: Some(v1), v2: None }
    }
}

/// What comes of comparing a piece with the torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be, by all that the torrent says of it.
    Right,
    /// It is something else.
    Wrong,
    /// The two halves of a hybrid torrent describe different pieces, and this is one of them. Nobody who gave
    /// it is to blame, and no bytes will ever do (threat T22).
    Torn,
}

impl TorrentMeta {
    /// Compares what a piece hashes to with what the torrent says. A hybrid piece must be right by both, or
    /// those who know one half of the torrent would be given other bytes than those who know the other.
    pub fn judge(&self, piece: u32, digest: &PieceDigest) -> Verdict {
        let v1 = self.piece_hashes.get(piece as usize).map(|hash| digest.v1.as_ref() == Some(hash));
        let trees = self.trees.as_deref();
        let v2 = trees.map(|trees| digest.v2.is_some() && trees.piece_root(piece) == digest.v2);
        match (v1, v2) {
            (Some(true), Some(true) | None) | (None, Some(true)) => Verdict::Right,
            (Some(a), Some(b)) if a != b => Verdict::Torn,
            _ => Verdict::Wrong,
        }
    }
}
