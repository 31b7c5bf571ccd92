//! Digests: SHA-1 pieces, and secret-seeded XXH3 fingerprints of chunks.

pub mod fingerprint;
pub mod sha1;
