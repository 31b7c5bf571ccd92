//! Digests: SHA-1 pieces, SHA-256 and its hash trees, secret-seeded XXH3 fingerprints of chunks, and Ed25519
//! signatures of nodes.

pub mod fingerprint;
mod lanes;
pub mod merkle;
pub mod sha1;
pub mod sha256;
pub mod signature;
