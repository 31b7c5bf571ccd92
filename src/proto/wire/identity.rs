//! The extension `troc_id` (BEP 10): two nodes prove to one another that they have their keys.
//!
//! ```text
//! hello   version 1, kind 0, nonce (32 bytes), public key (32)     each side, once
//! proof   version 1, kind 1, signature (64)                        each side, to the other's hello
//! ```
//!
//! What is signed is [`statement`]: both hellos, the torrent, and which side of the connection signs. It is
//! of no use on another connection (nonces), for another torrent, or sent back to its signer (sides, keys).
//!
//! It names no address. Behind a NAT neither side knows how the other sees it, so that a check would refuse
//! honest nodes, and without one the address would only be told to strangers. Hence one attack is left: who
//! is dialled by one node, and dials another itself, may pass hellos and proofs on; he is served as the first
//! while the connection lasts. He cannot do so later or elsewhere, he is blamed under his own address, and
//! what he gives counts for the node that he poses as, whose credit with that one peer he may use up.

use super::WireError;
use crate::base::ids::InfoHash;

/// The only version that there is; messages of others are ignored.
pub const IDENTITY_VERSION: u8 = 1;

const HELLO: u8 = 0;
const PROOF: u8 = 1;

/// So that no signature of ours for anything else is a proof.
const DOMAIN: &[u8; 16] = b"troc identity v1";

/// Length of what is signed.
pub const STATEMENT_BYTES: usize = 16 + 1 + 20 + 4 * 32;

/// Who one side says that it is, and its challenge to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Never sent before by its sender.
    pub nonce: [u8; 32],
    /// Public key of the sender.
    pub key: [u8; 32],
}

/// A message of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityMessage {
    /// See [`Hello`].
    Hello(Hello),
    /// The signature of the sender's [`statement`].
    Proof([u8; 64]),
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It dialled.
    Dialler,
    /// It accepted.
    Acceptor,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

impl IdentityMessage {
    /// Reads the payload of an extended message; `None` if it is of a version that we do not know.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, WireError> {
        let bad = WireError::Identity { length: payload.len() };
        let (&version, rest) = payload.split_first().ok_or(bad)?;
        if version != IDENTITY_VERSION {
            return Ok(None);
        }
        // Both bodies are as long.
        let (&kind, body) = rest.split_first().ok_or(bad)?;
        let body = <&[u8; 64]>::try_from(body).map_err(|_| bad)?;
        match kind {
            HELLO => {
                let (mut nonce, mut key) = ([0; 32], [0; 32]);
                nonce.copy_from_slice(&body[..32]);
                key.copy_from_slice(&body[32..]);
                Ok(Some(Self::Hello(Hello { nonce, key })))
            }
            PROOF => Ok(Some(Self::Proof(*body))),
            _ => Err(bad),
        }
    }

    /// The payload to send.
    pub fn encode(&self) -> [u8; 66] {
        let mut out = [0; 66];
        out[0] = IDENTITY_VERSION;
        match self {
            Self::Hello(Hello { nonce, key }) => {
                out[1] = HELLO;
                out[2..34].copy_from_slice(nonce);
                out[34..].copy_from_slice(key);
            }
            Self::Proof(signature) => {
                out[1] = PROOF;
                out[2..].copy_from_slice(signature);
            }
        }
        out
    }
}

/// What `signer` signs. `hellos` are the dialler's and the acceptor's.
pub fn statement(signer: Side, info_hash: InfoHash, hellos: [&Hello; 2]) -> [u8; STATEMENT_BYTES] {
    let mut out = [0; STATEMENT_BYTES];
    out[..16].copy_from_slice(DOMAIN);
    out[16] = match signer {
        Side::Dialler => 0,
        Side::Acceptor => 1,
    };
    out[17..37].copy_from_slice(&info_hash.0);
    let fields = hellos.into_iter().flat_map(|hello| [&hello.nonce, &hello.key]);
    for (place, field) in out[37..].chunks_exact_mut(32).zip(fields) {
        place.copy_from_slice(field);
    }
    out
}

#[cfg(test)]
mod tests;
