//! Digests: SHA-1 pieces, secret-seeded XXH3 fingerprints of chunks, and Ed25519 signatures of nodes.

pub mod fingerprint;
pub mod sha1;
pub mod signature;
