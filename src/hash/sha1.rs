//! SHA-1, by which BEP 3 names pieces and torrents.
//!
//! The `sha1` crate picks the processor's SHA instructions at run time where there are any.

use sha1::Digest;

/// A digest of bytes that arrive in parts.
#[derive(Clone, Debug, Default)]
pub struct Sha1(sha1::Sha1);

impl Sha1 {
    /// A digest of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `bytes` to what is digested.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all parts in order.
    pub fn finish(self) -> [u8; 20] {
        self.0.finalize().into()
    }
}

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> [u8; 20] {
    sha1::Sha1::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;

    /// The examples of FIPS 180-2, appendix A.
    #[test]
    fn the_standard_examples_hold() {
        for (text, want) in [
            ("abc".to_owned(), "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_owned(),
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            ("a".repeat(1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ] {
            assert_eq!(InfoHash(digest(text.as_bytes())).to_hex(), want);
        }
    }

    #[test]
    fn parts_digest_like_the_whole() {
        let bytes: Vec<u8> = (0..200u8).collect();
        for split in 0..=bytes.len() {
            let mut hasher = Sha1::new();
            hasher.update(&bytes[..split]);
            hasher.update(&bytes[split..]);
            assert_eq!(hasher.finish(), digest(&bytes), "split at {split}");
        }
    }
}
