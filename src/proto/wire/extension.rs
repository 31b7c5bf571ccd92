//! The handshake of the extension protocol (BEP 10), with BEP 21's `upload_only`.

use std::net::IpAddr;

use super::WireError;
use crate::base::limits::{
    CLIENT_NAME_BYTES_MAX, MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX, METAINFO_BYTES_MAX, REQUESTS_OUT_MAX,
};
use crate::proto::bencode::{self, Item, Value};
use crate::proto::text;

/// The message id of the extension handshake itself.
pub const EXTENSION_HANDSHAKE_ID: u8 = 0;

/// The ids under which the sender wants to receive the extensions that we know; 1 or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// Metadata exchange (BEP 9).
    pub ut_metadata: Option<u8>,
    /// Peer exchange (BEP 11).
    pub ut_pex: Option<u8>,
    /// Hole punching (BEP 55).
    pub ut_holepunch: Option<u8>,
    /// A piece that is gone again (BEP 54).
    pub lt_donthave: Option<u8>,
    /// Proof of identity between nodes of `troc`; see [`super::identity`].
    pub troc_id: Option<u8>,
}

/// What one side tells of itself. Every field is optional on the wire; one that is absent or
/// makes no sense is as if it had not been sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// `m`: the extensions and their ids.
    pub messages: ExtensionIds,
    /// `reqq`: how many requests the sender queues; at most `REQUESTS_OUT_MAX` once parsed.
    pub reqq: Option<u32>,
    /// `v`: client name and version, once parsed escaped and at most 64 bytes.
    pub version: Option<String>,
    /// `yourip`: how the sender sees the receiver's address.
    pub your_ip: Option<IpAddr>,
    /// `p`: the port on which the sender takes connections.
    pub port: Option<u16>,
    /// `metadata_size`: length of the info dictionary (BEP 9); at most `METAINFO_BYTES_MAX`.
    pub metadata_size: Option<u32>,
    /// `upload_only`: the sender wants nothing (BEP 21).
    pub upload_only: bool,
}

impl ExtensionHandshake {
    /// Reads the payload of extended message 0. Unknown keys are ignored.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let root = bencode::parse(payload, MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX)?;
        let mut entries = root
            .as_dict()
            .ok_or(WireError::Extension(bencode::BencodeError { at: 0, flaw: bencode::Flaw::Unexpected }))?;
        Ok(entries.by_ref().fold(Self::default(), Self::with_entry))
    }

    /// The payload of extended message 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let ids = self.messages;
        let named = [
            ("lt_donthave", ids.lt_donthave),
            ("troc_id", ids.troc_id),
            ("ut_holepunch", ids.ut_holepunch),
            ("ut_metadata", ids.ut_metadata),
            ("ut_pex", ids.ut_pex),
        ];
        let messages = named.into_iter().filter_map(|(name, id)| Some((name, Item::Int(id?.into()))));
        let address = self.your_ip.map(address_bytes);
        let mut entries = vec![("m", Item::dict(messages))];
        entries.extend(self.metadata_size.map(|size| ("metadata_size", Item::Int(size.into()))));
        entries.extend(self.port.map(|port| ("p", Item::Int(port.into()))));
        entries.extend(self.reqq.map(|reqq| ("reqq", Item::Int(reqq.into()))));
        entries.extend(self.upload_only.then_some(("upload_only", Item::Int(1))));
        entries.extend(self.version.as_deref().map(|version| ("v", version.into())));
        entries.extend(address.as_deref().map(|bytes| ("yourip", Item::Bytes(bytes))));
        Item::dict(entries).encode(out);
    }

    fn with_entry(mut self, (key, value): (&[u8], Value<'_>)) -> Self {
        match key {
            b"m" => self.messages = ExtensionIds::parse(value),
            b"metadata_size" => self.metadata_size = in_range(value, METAINFO_BYTES_MAX as i64),
            b"p" => self.port = in_range(value, u16::MAX.into()).map(|port| port as u16),
            b"reqq" => {
                self.reqq = in_range(value, i64::MAX).map(|reqq| reqq.min(REQUESTS_OUT_MAX as u32));
            }
            b"upload_only" => self.upload_only = value.as_int().is_some_and(|int| int != 0),
            b"v" => self.version = value.as_bytes().map(|v| text::escape(v, CLIENT_NAME_BYTES_MAX)),
            b"yourip" => self.your_ip = value.as_bytes().and_then(address),
            _ => {}
        }
        self
    }
}

impl ExtensionIds {
    /// Reads `m`. Ids outside 1..=255 mean "not wanted"; of two names under one id the first counts.
    fn parse(messages: Value<'_>) -> Self {
        let mut ids = Self::default();
        for (name, value) in messages.as_dict().into_iter().flatten() {
            let id = value.as_int().and_then(|id| u8::try_from(id).ok()).filter(|&id| id != 0);
            let taken = [ids.ut_metadata, ids.ut_pex, ids.ut_holepunch, ids.lt_donthave, ids.troc_id];
            if id.is_some() && taken.contains(&id) {
                continue;
            }
            match name {
                b"ut_metadata" => ids.ut_metadata = id,
                b"ut_pex" => ids.ut_pex = id,
                b"ut_holepunch" => ids.ut_holepunch = id,
                b"lt_donthave" => ids.lt_donthave = id,
                b"troc_id" => ids.troc_id = id,
                _ => {}
            }
        }
        ids
    }
}

/// A number in `1..=max`, cut to 32 bits.
fn in_range(value: Value<'_>, max: i64) -> Option<u32> {
    let int = value.as_int().filter(|int| (1..=max).contains(int))?;
    Some(u32::try_from(int).unwrap_or(u32::MAX))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    Some(<[u8; 16]>::try_from(bytes).ok()?.into())
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
