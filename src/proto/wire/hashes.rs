//! Hash requests and their answers (BEP 52): nodes of a file's merkle tree, and what proves them.
//!
//! A request names a run of nodes in one layer, and how many layers above it the proof is to reach. The
//! answer repeats it and carries the nodes, then their proof. `hash::merkle` says what it proves.

/// Length of a digest.
pub const HASH_BYTES: usize = 32;

/// Length of the fields that all three messages begin with.
pub const HASH_REQUEST_BYTES: usize = HASH_BYTES + 16;

/// A run of nodes in the tree of one file; as the peer wrote it: unchecked.
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

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(root: [u8; 32], words: [u32; 4], rest: Vec<u8>) {
            let [base_layer, index, length, proof_layers] = words;
            let request = HashRequest { root, base_layer, index, length, proof_layers };
            let bytes = [&request.encode()[..], &rest].concat();
            prop_assert_eq!(HashRequest::parse(&bytes), Some((request, &rest[..])));
            for len in 0..HASH_REQUEST_BYTES {
                prop_assert_eq!(HashRequest::parse(&bytes[..len]), None);
            }
        }
    }
}
