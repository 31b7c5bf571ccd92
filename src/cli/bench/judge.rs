//! Whether a piece is what the torrent says that it is, by each version that the torrent has.

use crate::daemon::hashing::PieceDigest;
use crate::hash::{merkle, sha1};
use crate::proto::metainfo::Metainfo;

/// Whether `bytes` are piece `piece`, padding included.
pub fn is_right(metainfo: &Metainfo, piece: u32, bytes: &[u8]) -> bool {
    let sha1 = metainfo.has_v1().then(|| sha1::digest(bytes));
    let mut leaves = Vec::new();
    if let Some(tree) = metainfo.v2.as_ref().and_then(|v2| v2.piece(piece)) {
        // Padding has no leaves (BEP 52).
        merkle::push_leaves(&bytes[..bytes.len().min(tree.length as usize)], &mut leaves);
    }
    PieceDigest { sha1, leaves }.fits(metainfo, piece)
}
