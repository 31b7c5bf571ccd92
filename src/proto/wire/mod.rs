//! The peer wire (BEP 3, 5, 6, 9, 10, 11, 20, 21, 52, 55): what travels over one connection, as values.
//!
//! Nothing here knows a torrent: whether an index or a block exists is the engine's question.

pub mod extension;
pub mod handshake;
pub mod hashes;
pub mod holepunch;
pub mod identity;
pub mod message;
pub mod metadata;
pub mod peer_id;
pub mod pex;

use crate::proto::bencode::BencodeError;

/// What a peer sent that no correct client sends; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not those of BEP 3: another protocol, or an encrypted handshake.
    #[error("not a BitTorrent handshake: byte {at} is wrong")]
    NotBitTorrent {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// The length prefix is over any limit; the id has not even arrived.
    #[error("a message of {length} bytes is longer than any that exists")]
    TooLong {
        /// The length prefix.
        length: u32,
    },
    /// The length prefix does not fit the message id.
    #[error("a message with id {id} cannot have {length} bytes")]
    WrongLength {
        /// The message id.
        id: u8,
        /// The length prefix: id and payload.
        length: u32,
    },
    /// A block that nobody may ask for: empty, or longer than the longest request.
    #[error("a piece message cannot carry {length} bytes")]
    BlockLength {
        /// Length of the block.
        length: u32,
    },
    /// The extension handshake (BEP 10) is not the bencode of a dictionary.
    #[error("the extension handshake is malformed: {0}")]
    Extension(#[from] BencodeError),
    /// No message of `troc_id` is like that.
    #[error("an identity message of {length} bytes is malformed")]
    Identity {
        /// Its payload.
        length: usize,
    },
    /// No message of `ut_metadata` (BEP 9) is like that.
    #[error("a metadata message of {length} bytes is malformed")]
    Metadata {
        /// Its payload.
        length: usize,
    },
}
