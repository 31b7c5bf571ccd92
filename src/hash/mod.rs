//! Digests: SHA-1 pieces, and secret-seeded XXH3 fingerprints of chunks.
