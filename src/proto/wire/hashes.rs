//! Hash requests and their answers (BEP 52): nodes of a file's merkle tree, and what proves them.
//!
//! A request names a run of nodes in one layer, and how many layers above it the proof is to reach. The answer
//! repeats it and carries the nodes, then one uncle for each of those layers that cannot be computed from them.

use crate::base::limits::HASHES_ASKED_MAX;

/// Length of a digest.
pub const HASH_BYTES: usize = 32;

/// Length of the fields that all three messages begin with.
pub const HASH_REQUEST_BYTES: usize = HASH_BYTES + 16;

/// A run of nodes in the tree of one file; as the peer wrote it: unchecked but for `is_sane`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashRequest {
    /// The root of the file's tree.
    pub root: [u8; HASH_BYTES],
    /// The layer of the nodes; 0 is the leaves.
    pub base_layer: u32,
    /// The first of them, counted in their layer.
    pub index: u32,
    /// How many: a power of two.
    pub length: u32,
    /// How many layers above `base_layer` the proof reaches.
    pub proof_layers: u32,
}

impl HashRequest {
    /// Whether it asks for something that a tree can have: an aligned run of a power of two, at most
    /// `HASHES_ASKED_MAX`, and no layers that no tree has.
    pub const fn is_sane(&self) -> bool {
        self.length >= 2
            && self.length <= HASHES_ASKED_MAX
            && self.length.is_power_of_two()
            && self.index.is_multiple_of(self.length)
            && self.base_layer < u32::BITS
            && self.proof_layers < u32::BITS
    }

    /// Layers of the tree that the run is wide.
    pub const fn height(&self) -> u32 {
        self.length.ilog2()
    }

    /// Uncles that prove the run: one for each layer of the proof from that of the run's own root on.
    pub const fn uncles(&self) -> u32 {
        (self.proof_layers + 1).saturating_sub(self.height())
    }

    /// Hashes in the answer to a sane request.
    pub const fn answer_len(&self) -> u32 {
        self.length + self.uncles()
    }

    /// Reads the fields at the front of a message; `None` if there are too few bytes.
    pub fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (&root, rest) = body.split_first_chunk::<HASH_BYTES>()?;
        let (words, rest) = rest.split_first_chunk::<16>()?;
        let word = |at: usize| {
            let [a, b, c, d] = [words[at], words[at + 1], words[at + 2], words[at + 3]];
            u32::from_be_bytes([a, b, c, d])
        };
        let request =
            Self { root, base_layer: word(0), index: word(4), length: word(8), proof_layers: word(12) };
        Some((request, rest))
    }

    /// The fields as they stand on the wire.
    pub fn encode(&self) -> [u8; HASH_REQUEST_BYTES] {
        let mut out = [0; HASH_REQUEST_BYTES];
        out[..HASH_BYTES].copy_from_slice(&self.root);
        let words = [self.base_layer, self.index, self.length, self.proof_layers].map(u32::to_be_bytes);
        out[HASH_BYTES..].copy_from_slice(words.as_flattened());
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asks(length: u32, proof_layers: u32) -> HashRequest {
        HashRequest { root: [7; 32], base_layer: 0, index: 0, length, proof_layers }
    }

    #[test]
    fn the_proof_leaves_out_what_the_run_itself_tells() {
        // BEP 52: the first log2(length) - 1 layers are left out.
        assert_eq!((asks(2, 0).uncles(), asks(2, 1).uncles(), asks(2, 5).uncles()), (0, 1, 5));
        assert_eq!((asks(16, 3).uncles(), asks(16, 4).uncles(), asks(16, 9).uncles()), (0, 1, 6));
        assert_eq!((asks(512, 8).answer_len(), asks(512, 10).answer_len()), (512, 514));
    }

    #[test]
    fn p32_only_aligned_runs_of_powers_of_two_up_to_the_limit_are_sane() {
        for (length, sane) in [
            (0, false),
            (1, false),
            (2, true),
            (3, false),
            (HASHES_ASKED_MAX / 2, true),
            (HASHES_ASKED_MAX - 1, false),
            (HASHES_ASKED_MAX, true),
            (HASHES_ASKED_MAX + 1, false),
            (HASHES_ASKED_MAX * 2, false),
            (1 << 31, false),
            (u32::MAX, false),
        ] {
            assert_eq!(asks(length, 0).is_sane(), sane, "{length}");
        }
        assert!(!HashRequest { index: 3, ..asks(2, 0) }.is_sane());
        assert!(HashRequest { index: 4, ..asks(4, 31) }.is_sane());
        assert!(!asks(4, 32).is_sane() && !HashRequest { base_layer: 32, ..asks(4, 0) }.is_sane());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(root: [u8; 32], words: [u32; 4], rest: Vec<u8>) {
            let [base_layer, index, length, proof_layers] = words;
            let request = HashRequest { root, base_layer, index, length, proof_layers };
            let bytes = [&request.encode()[..], &rest].concat();
            prop_assert_eq!(HashRequest::parse(&bytes), Some((request, &rest[..])));
            let _ = request.is_sane();
            for len in 0..HASH_REQUEST_BYTES {
                prop_assert_eq!(HashRequest::parse(&bytes[..len]), None);
            }
        }
    }
}
