//! Blocks of a v2 piece are verified as they come (BEP 52): the leaves of the piece are asked for when it is
//! begun, and each chunk is compared with them when it is hashed.
//!
//! ```text
//! begun -> asked (inquest.rs) -> known -> each chunk, once hashed: right, or its wrong blocks come again
//!            | rejected, late or gone: the next witness, at last the piece is verified when it is whole
//! ```
//!
//! Nothing waits for the answer, and nothing is hashed twice: the worker keeps the leaves that it has hashed
//! for the root of the piece, and what was hashed before the answer came is compared then.
//!
//! Leaves are 32 bytes for 16 KiB, but whoever gives them may have to hash the piece for it, which costs more
//! than to send it. So they are asked for where a late verdict costs much and may be needed: of pieces longer
//! than a chunk, that somebody helps to collect who has not given `BELIEVED_AFTER_PIECES` yet, or of all such
//! pieces for `DOUBT_TIME` after something wrong came. Who lies after he was believed is found when the piece
//! is whole, by `inquest.rs`.

use super::action::Leaves;
use super::claims::BlockMask;
use super::*;
use crate::base::limits::{BELIEVED_AFTER_PIECES, DOUBT_TIME, LEAVES_AHEAD_MAX};
use crate::base::units::{BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES};
use crate::hash::merkle::Hash;

/// What becomes of a chunk that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The hash of its piece goes on with it.
    Kept,
    /// It is hashed again later, or a chunk before it is: the hash of its piece is what it was before.
    Again,
}

impl Engine {
    /// A chunk is being collected from `conn`, perhaps among others: asks for the leaves of its piece, if
    /// they are of use.
    pub(super) fn ask_ahead(&mut self, conn: ConnId, chunk: u32, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some(id) = peer.torrent else { return };
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let meta = &torrent.shared.meta;
        let piece = meta.geometry.chunk_piece(chunk);
        let is_wanted = meta.trees.is_some()
            && torrent.inquests.len() < LEAVES_AHEAD_MAX
            && !torrent.inquests.contains_key(&piece)
            // Where one peer gives all of it, alone, the whole piece convicts it.
            && !torrent.paroles.contains_key(&piece)
            && meta.wanted_piece_len(piece) > CHUNK_BYTES
            // Who hashes it.
            && torrent.shared.owner(piece) == Some(self.config.core)
            && self.is_doubted(torrent, peer, now);
        if is_wanted {
            self.open_inquest(id, piece, Leaves::Begun, Some(conn), now);
        }
    }

    /// Whether what the peer gives is to be verified as it comes.
    fn is_doubted(&self, torrent: &Torrent, peer: &Peer, now: Instant) -> bool {
        if torrent.spoilt_at.is_some_and(|at| now.since(at) < DOUBT_TIME) {
            return true;
        }
        // A web seed has no account by which it could come to be believed.
        let Some([own, _]) = peer.accounts.filter(|_| !peer.is_web_seed()) else { return false };
        let enough = BELIEVED_AFTER_PIECES * u64::from(torrent.shared.meta.geometry.piece_bytes);
        self.ledger.standing(own).received_bytes < enough
    }

    /// A chunk was hashed; `ours` are the leaves of its blocks. To be called before `handle_hashed`, which is
    /// not called if the answer is `Again`.
    pub fn judge_chunk(&mut self, id: TorrentId, chunk: u32, ours: &[Hash]) -> Judged {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return Judged::Kept };
        let geometry = torrent.shared.meta.geometry;
        let piece = geometry.chunk_piece(chunk);
        let Some(right) = torrent.inquests.get(&piece).and_then(|inquest| inquest.known()) else {
            return Judged::Kept;
        };
        let first = (geometry.chunk_begin(chunk) / BLOCK_BYTES) as usize;
        let wrong = wrong_blocks(ours, right.get(first..).unwrap_or_default());
        let Some(assembly) = torrent.assembling.get_mut(&piece) else { return Judged::Kept };
        let rewind = assembly.rewind.take();
        if wrong == 0 && rewind.is_none() {
            return Judged::Kept;
        }
        assembly.hashing = false;
        assembly.next_chunk = rewind.unwrap_or(chunk);
        if wrong != 0 {
            self.convict(id, &[(chunk, wrong)]);
        }
        self.hash_next(id, piece);
        Judged::Again
    }

    /// The leaves of a piece have come; `ours` are those of the chunks that were hashed before.
    pub(super) fn compare_begun(&mut self, id: TorrentId, piece: u32, ours: &[Hash]) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let Some(right) = torrent.inquests.get(&piece).and_then(|inquest| inquest.known()) else { return };
        let Some(assembly) = torrent.assembling.get_mut(&piece) else { return };
        let meta = &torrent.shared.meta;
        let hashed = meta.wanted_chunks(piece).take_while(|&chunk| chunk < assembly.next_chunk);
        let per_chunk = BLOCKS_PER_CHUNK as usize;
        let pairs = ours.chunks(per_chunk).zip(right.chunks(per_chunk));
        let wrong = hashed.zip(pairs).map(|(chunk, (ours, right))| (chunk, wrong_blocks(ours, right)));
        let wrong: Vec<(u32, BlockMask)> = wrong.filter(|&(_, blocks)| blocks != 0).collect();
        let Some(&(chunk, _)) = wrong.first() else { return };
        // SHA-1 has gone on over the wrong bytes, and begins anew; leaves are cut off.
        let is_hybrid = !meta.piece_hashes.is_empty();
        let back = if is_hybrid { meta.geometry.chunk_of(piece, 0) } else { chunk };
        if assembly.hashing {
            assembly.rewind = Some(back);
        } else {
            assembly.next_chunk = back;
        }
        self.convict(id, &wrong);
        self.hash_next(id, piece);
    }
}

/// Whether a peer may be asked for leaves ahead: it answers, and has no other question of ours to answer.
pub(super) const fn answers_ahead(peer: &Peer) -> bool {
    !peer.leafless && peer.hashes_due == 0
}

/// Which of the blocks of a chunk are not what they should be.
pub(super) fn wrong_blocks(ours: &[Hash], right: &[Hash]) -> BlockMask {
    let pairs = (0u32..).zip(ours.iter().zip(right)).take(BLOCKS_PER_CHUNK as usize);
    pairs.fold(0, |mask, (block, (ours, right))| mask | BlockMask::from(ours != right) << block)
}
