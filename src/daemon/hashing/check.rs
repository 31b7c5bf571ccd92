//! A check by fingerprints: what was verified before is only compared, the rest is hashed.
//!
//! A fingerprint that fits says that the bytes are what was verified by digest, since nobody but this node
//! knows its secret. One that does not fit says nothing: digests alone tell whether a piece is bad.

use std::ops::ControlFlow;

use super::{Digests, HashError, HashOptions, HashSource, Method, PieceOutcome, hash_pieces};
use crate::hash::fingerprint::Fingerprint;

/// What is known of pieces that were verified before.
pub struct Known<'a> {
    /// The function that made the fingerprints.
    pub fingerprint: Fingerprint,
    /// The fingerprints of a piece's chunks, in order; empty if they are not known.
    pub of_piece: &'a dyn Fn(u32) -> &'a [u64],
}

impl Known<'_> {
    /// Whether the fingerprints of all chunks of a piece are known: 0 is what stands for none.
    fn has(&self, piece: u32) -> bool {
        let known = (self.of_piece)(piece);
        !known.is_empty() && !known.contains(&0)
    }
}

/// As [`hash_pieces`] by `rest` (what is not settled by a fingerprint), but a piece whose chunks all have
/// the fingerprints that are known of it is [`PieceOutcome::Fingerprinted`].
pub fn check_pieces(
    source: &HashSource,
    pieces: impl IntoIterator<Item = u32>,
    known: &Known<'_>,
    rest: &HashOptions,
    on_piece: &mut dyn FnMut(u32, PieceOutcome) -> ControlFlow<()>,
) -> Result<bool, HashError> {
    let (known_pieces, mut others): (Vec<u32>, Vec<u32>) =
        pieces.into_iter().partition(|&piece| known.has(piece));
    let method = Method { digests: Digests::Nothing, fingerprint: Some(known.fingerprint) };
    let options = HashOptions { method, ..*rest };
    let any_known = !known_pieces.is_empty();
    if any_known {
        let mut compare = |piece, outcome| match outcome {
            PieceOutcome::Fingerprinted { fingerprints } if fingerprints != (known.of_piece)(piece) => {
                others.push(piece);
                ControlFlow::Continue(())
            }
            outcome => on_piece(piece, outcome),
        };
        if !hash_pieces(source, known_pieces, &options, &mut compare)? {
            return Ok(false);
        }
    }
    others.sort_unstable();
    if any_known && others.is_empty() { Ok(true) } else { hash_pieces(source, others, rest, on_piece) }
}

#[cfg(test)]
mod tests;
