//! The 68 bytes that open a connection (BEP 3), with the reserved bits of BEP 5, BEP 6, BEP 10 and BEP 52.

use super::WireError;
use crate::base::ids::{InfoHash, PeerId};

/// Length of a handshake on the wire.
pub const HANDSHAKE_BYTES: usize = 68;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const EXTENSION_BYTE: usize = 5;
const EXTENSION_BIT: u8 = 0x10;
const FAST_BYTE: usize = 7;
const FAST_BIT: u8 = 0x04;
const DHT_BYTE: usize = 7;
const DHT_BIT: u8 = 0x01;
const V2_BYTE: usize = 7;
const V2_BIT: u8 = 0x10;

/// The handshake of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Feature bits; unknown ones are kept and mean nothing.
    pub reserved: [u8; 8],
    /// The torrent that the connection is about.
    pub info_hash: InfoHash,
    /// How the sender names itself.
    pub peer_id: PeerId,
}

impl Handshake {
    /// A handshake without any feature bit.
    pub const fn new(info_hash: InfoHash, peer_id: PeerId) -> Self {
        Self { reserved: [0; 8], info_hash, peer_id }
    }

    /// The same with the bit of the fast extension (BEP 6).
    #[must_use]
    pub const fn with_fast(mut self) -> Self {
        self.reserved[FAST_BYTE] |= FAST_BIT;
        self
    }

    /// The same with the bit of the extension protocol (BEP 10).
    #[must_use]
    pub const fn with_extension(mut self) -> Self {
        self.reserved[EXTENSION_BYTE] |= EXTENSION_BIT;
        self
    }

    /// The same with the bit of the distributed hash table (BEP 5).
    #[must_use]
    pub const fn with_dht(mut self) -> Self {
        self.reserved[DHT_BYTE] |= DHT_BIT;
        self
    }

    /// Whether the sender has a node of the distributed hash table (BEP 5).
    pub const fn has_dht(&self) -> bool {
        self.reserved[DHT_BYTE] & DHT_BIT != 0
    }

    /// The same with the bit that offers v2 for a hybrid torrent (BEP 52).
    #[must_use]
    pub const fn with_v2(mut self) -> Self {
        self.reserved[V2_BYTE] |= V2_BIT;
        self
    }

    /// Whether the sender can go on with v2 of a hybrid torrent (BEP 52).
    pub const fn has_v2(&self) -> bool {
        self.reserved[V2_BYTE] & V2_BIT != 0
    }

    /// Whether the sender speaks the fast extension (BEP 6).
    pub const fn has_fast(&self) -> bool {
        self.reserved[FAST_BYTE] & FAST_BIT != 0
    }

    /// Whether the sender speaks the extension protocol (BEP 10).
    pub const fn has_extension(&self) -> bool {
        self.reserved[EXTENSION_BYTE] & EXTENSION_BIT != 0
    }

    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut out = [0; HANDSHAKE_BYTES];
        out[..20].copy_from_slice(PROTOCOL);
        out[20..28].copy_from_slice(&self.reserved);
        out[28..48].copy_from_slice(&self.info_hash.0);
        out[48..].copy_from_slice(&self.peer_id.0);
        out
    }

    /// Reads the front of `bytes`: `None` while it is a good but short prefix, an error at the
    /// first byte that no handshake has. Bytes after the 68th are the first messages.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        if let Some(at) = PROTOCOL.iter().zip(bytes).position(|(want, got)| want != got) {
            return Err(WireError::NotBitTorrent { at });
        }
        Ok(Self::fields(bytes))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<20>()?;
        let (reserved, rest) = rest.split_first_chunk::<8>()?;
        let (info_hash, rest) = rest.split_first_chunk::<20>()?;
        let (peer_id, _) = rest.split_first_chunk::<20>()?;
        Some(Self { reserved: *reserved, info_hash: InfoHash(*info_hash), peer_id: PeerId(*peer_id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Handshake {
        Handshake::new(InfoHash([0xaa; 20]), PeerId(*b"-tC0100-abcdefghijkl"))
    }

    #[test]
    fn what_is_encoded_is_parsed_and_every_short_prefix_waits() {
        let handshake = example().with_fast().with_extension();
        let bytes = handshake.encode();
        assert_eq!(Handshake::parse(&bytes), Ok(Some(handshake)));
        assert_eq!(Handshake::parse(&[&bytes[..], b"more"].concat()), Ok(Some(handshake)));
        for len in 0..bytes.len() {
            assert_eq!(Handshake::parse(&bytes[..len]), Ok(None), "{len} bytes");
        }
    }

    #[test]
    fn p4_the_first_wrong_byte_is_refused_at_once() {
        for at in 0..20 {
            for flip in 1..=255u8 {
                let mut bytes = example().encode();
                bytes[at] ^= flip;
                for len in at + 1..=bytes.len() {
                    assert_eq!(Handshake::parse(&bytes[..len]), Err(WireError::NotBitTorrent { at }));
                }
            }
        }
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0"] {
            assert_eq!(Handshake::parse(other), Err(WireError::NotBitTorrent { at: 0 }));
        }
    }

    #[test]
    fn the_feature_bits_are_those_of_bep_6_bep_10_and_bep_52() {
        assert!(!example().has_fast() && !example().has_extension());
        assert_eq!(example().with_fast().reserved, [0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(example().with_extension().reserved, [0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(example().with_dht().reserved, [0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(example().with_dht().has_dht() && !example().with_fast().has_dht());
        assert_eq!(example().with_v2().reserved, [0, 0, 0, 0, 0, 0, 0, 0x10]);
        assert!(example().with_v2().has_v2() && !example().with_fast().has_v2());
        let mut all = example();
        all.reserved = [0xff; 8];
        let parsed = Handshake::parse(&all.encode()).unwrap().unwrap();
        assert!(parsed.has_fast() && parsed.has_extension() && parsed == all);
    }
}
