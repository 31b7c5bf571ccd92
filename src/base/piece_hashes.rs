//! The SHA-1 of each piece (BEP 3).

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// Length of one.
const HASH_BYTES: usize = 20;

/// The SHA-1 of each piece, in order. Of a torrent that was parsed this is a look into its info dictionary,
/// which is kept to be given to others: the hashes are nearly all of it, and stand in memory once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PieceHashes(Bytes);

impl PieceHashes {
    /// Of bytes that are nothing but hashes; `None` if they are no whole number of them.
    pub fn new(bytes: Bytes) -> Option<Self> {
        bytes.len().is_multiple_of(HASH_BYTES).then_some(Self(bytes))
    }
}

impl Deref for PieceHashes {
    type Target = [[u8; HASH_BYTES]];

    fn deref(&self) -> &Self::Target {
        self.0.as_chunks().0
    }
}

impl From<Vec<[u8; HASH_BYTES]>> for PieceHashes {
    fn from(hashes: Vec<[u8; HASH_BYTES]>) -> Self {
        Self(hashes.into_flattened().into())
    }
}

impl fmt::Debug for PieceHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_whole_and_in_order_and_share_the_bytes_that_they_lie_in() {
        let bytes = Bytes::from((0..60).collect::<Vec<u8>>());
        for len in [39, 40, 41] {
            assert_eq!(PieceHashes::new(bytes.slice(..len)).is_some(), len == 40);
        }
        let hashes = PieceHashes::new(bytes.slice(20..)).unwrap();
        assert_eq!((hashes.len(), hashes[1][0]), (2, 40));
        assert_eq!(hashes[0].as_ptr(), bytes[20..].as_ptr());
        assert_eq!(hashes, PieceHashes::from(vec![hashes[0], hashes[1]]));
    }
}
