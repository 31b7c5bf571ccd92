//! Who a node is to other nodes: an Ed25519 key pair (RFC 8032), by `ring`, which TLS brings along anyway.
//!
//! Signing draws no random numbers, and neither do nonces: they are HMACs under a secret of the process, so
//! that nobody can know one before it is sent, and none comes twice.

use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// A public key, as it is sent.
pub type PublicKey = [u8; 32];
/// A signature, as it is sent.
pub type Signature = [u8; 64];
/// What makes a challenge a new one.
pub type Nonce = [u8; 32];

/// The key pair of this node, and the secret of its nonces.
pub struct NodeKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    nonces: hmac::Key,
}

impl NodeKey {
    /// The pair that `seed` makes, the same for ever; `session` is another random number at each start.
    pub fn new(seed: &[u8; 32], session: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes is one");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { pair, public, nonces: hmac::Key::new(hmac::HMAC_SHA256, session) }
    }

    /// What others know of it.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.pair.sign(message).as_ref().try_into().expect("a signature has 64 bytes")
    }

    /// The nonce number `count` of core `core`.
    pub fn nonce(&self, core: u8, count: u64) -> Nonce {
        let mut text = [0; 9];
        text[0] = core;
        text[1..].copy_from_slice(&count.to_be_bytes());
        hmac::sign(&self.nonces, &text).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secrets stay out of logs.
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

/// Whether whoever has the key pair of `public` signed `message`. 50 to 100 us: never for each block.
pub fn verify(public: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::new(&[seed; 32], &[seed; 32])
    }

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    #[test]
    fn it_is_the_ed25519_of_rfc_8032() {
        // Section 7.1, test 2.
        let seed = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = NodeKey::new(&seed, &[0; 32]);
        let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(key.public(), public);
        let signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!(key.sign(&[0x72]), signature);
        assert!(verify(&public, &[0x72], &signature));
    }

    #[test]
    fn every_bit_of_key_message_and_signature_counts() {
        let (public, message) = (key(1).public(), *b"a statement");
        let signature = key(1).sign(&message);
        assert!(verify(&public, &message, &signature));
        let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
        for bit in 0..8 * signature.len() {
            let (mut other_key, mut other, mut forged) = (public, message, signature);
            flip(&mut other_key, bit % 256);
            flip(&mut other, bit % (8 * message.len()));
            flip(&mut forged, bit);
            assert!(!verify(&other_key, &message, &signature), "key bit {bit}");
            assert!(!verify(&public, &other, &signature), "message bit {bit}");
            assert!(!verify(&public, &message, &forged), "signature bit {bit}");
        }
    }

    #[test]
    fn no_nonce_comes_twice_and_the_next_process_has_others() {
        let mut seen = std::collections::HashSet::new();
        for session in 0..4u8 {
            let key = NodeKey::new(&[1; 32], &[session; 32]);
            let nonces = (0..4).flat_map(|core| (0..4).map(move |count| (core, count)));
            assert!(nonces.into_iter().all(|(core, count)| seen.insert(key.nonce(core, count))));
        }
    }

    #[test]
    fn the_secrets_are_not_printed() {
        assert_eq!(format!("{:?}", key(77)), "NodeKey { .. }");
    }
}
