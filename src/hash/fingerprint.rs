//! Fingerprints: 64 bits that tell whether a chunk's bytes changed since they were verified.
//!
//! XXH3 is no cryptographic hash: it guards against accidents of memory and disk. The secret
//! seed keeps a peer from preparing two chunks with one fingerprint; nothing a peer sent is
//! believed because of a fingerprint, only what a digest has verified before.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A fingerprint function, one of 2^64.
#[derive(Clone, Copy)]
pub struct Fingerprint {
    secret: u64,
}

impl Fingerprint {
    /// The function that `secret` chooses: random per process, or per journal if kept there.
    pub const fn new(secret: u64) -> Self {
        Self { secret }
    }

    /// The fingerprint of `bytes`.
    pub fn of(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.secret)
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("Fingerprint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xxh3_of_the_seed() {
        // The empty input under seed 0, as in the reference implementation's documentation.
        assert_eq!(Fingerprint::new(0).of(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn every_bit_and_every_secret_counts() {
        let mut bytes = vec![0u8; 4096];
        let clean = Fingerprint::new(7).of(&bytes);
        assert_ne!(clean, Fingerprint::new(8).of(&bytes));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Fingerprint::new(7).of(&bytes), clean, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Fingerprint::new(77)), "Fingerprint { .. }");
    }
}
