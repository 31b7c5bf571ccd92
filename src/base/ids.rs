//! Identifiers. An index alone goes stale; whatever outlives a turn carries a generation too.

use std::fmt;

/// The SHA-1 of a v1 info dictionary (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

/// The 20 bytes by which a peer names itself in its handshake (BEP 20 for their shape).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(pub [u8; 20]);

/// One worker, counted from 0 in the order of the allowed CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u8);

/// One torrent of this process; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TorrentId(pub u32);

/// One connection of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Place in the worker's table.
    pub index: u32,
    /// How often the place had been used before; tells a stale id from a live one.
    pub generation: u32,
}

/// One connection of any worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreConn {
    /// The worker.
    pub core: CoreId,
    /// Its connection.
    pub conn: ConnId,
}

/// One web seed of a torrent, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebSeedId(pub u16);

/// One slot of the arena: room for one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

impl InfoHash {
    /// 40 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As `to_hex` gives it; `None` for anything else, upper case included.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u32> = text.chars().map(|char| char.to_digit(16)).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| (pair[0] << 4 | pair[pair.len() - 1]) as u8).collect();
        let hash = Self(bytes.try_into().ok()?);
        (hash.to_hex() == text).then_some(hash)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Peer-chosen bytes: escaped, so that no terminal sequence reaches a log.
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_hash_is_read_as_it_is_written_and_no_other_way() {
        let hash = InfoHash([0xa0; 20]);
        assert_eq!(InfoHash::from_hex(&hash.to_hex()), Some(hash));
        let text = "a0".repeat(20);
        for bad in ["", &text[1..], &format!("{text}a"), &text.to_uppercase(), &text.replace('0', "g")] {
            assert_eq!(InfoHash::from_hex(bad), None, "{bad}");
        }
    }
}
