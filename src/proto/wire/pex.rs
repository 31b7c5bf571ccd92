//! Peer exchange (BEP 11): who joined and who left, in compact form. Extension `ut_pex` (BEP 10).
//!
//! An address counts as it stands on the wire, unchecked: whether it may be dialled is the engine's question.

use std::net::SocketAddr;

use super::WireError;
use crate::base::limits::{MESSAGE_DEPTH_MAX, PEX_USED_MAX};
use crate::proto::bencode::{self, BencodeError, Flaw, Item, Value};
use crate::proto::tracker::compact::{read_v4, read_v6, write_peer};

/// Tokens of a message: six strings with their keys, and room for keys that later clients may add.
const PEX_TOKENS_MAX: usize = 64;

/// What is said of a peer (BEP 11 `added.f`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// It only gives.
    pub const SEED: Self = Self(0x02);
    /// It speaks `ut_holepunch` (BEP 55).
    pub const HOLEPUNCH: Self = Self(0x08);
    /// It was dialled, so it takes connections.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all flags of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One message. Once parsed it names at most `PEX_USED_MAX` added peers of each family; who left is not
/// read, because nobody parts from a peer on hearsay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// Peers that joined.
    pub added: Vec<(SocketAddr, PexFlags)>,
    /// Peers that left.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Reads the payload of an `ut_pex` message. A remainder of a list and all beyond the limit is ignored,
    /// unknown keys too.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let root = bencode::parse(payload, MESSAGE_DEPTH_MAX, PEX_TOKENS_MAX)?;
        if root.as_dict().is_none() {
            return Err(WireError::Extension(BencodeError { at: 0, flaw: Flaw::Unexpected }));
        }
        let list = |key: &[u8]| root.get(key).and_then(Value::as_bytes).unwrap_or_default();
        let (v4, _rest) = list(b"added").as_chunks::<6>();
        let (v6, _rest) = list(b"added6").as_chunks::<18>();
        let v4 = with_flags(v4.iter().map(read_v4), list(b"added.f"));
        let v6 = with_flags(v6.iter().map(read_v6), list(b"added6.f"));
        Ok(Self { added: v4.chain(v6).collect(), dropped: Vec::new() })
    }

    /// The payload of an `ut_pex` message.
    pub fn encode(&self) -> Vec<u8> {
        let (mut lists, mut flags) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
        for &(address, flag) in &self.added {
            write_peer(&mut lists[usize::from(address.is_ipv6())], address);
            flags[usize::from(address.is_ipv6())].push(flag.0);
        }
        let mut dropped = [const { Vec::new() }; 2];
        for &address in &self.dropped {
            write_peer(&mut dropped[usize::from(address.is_ipv6())], address);
        }
        Item::dict([
            ("added", Item::Bytes(&lists[0])),
            ("added.f", Item::Bytes(&flags[0])),
            ("added6", Item::Bytes(&lists[1])),
            ("added6.f", Item::Bytes(&flags[1])),
            ("dropped", Item::Bytes(&dropped[0])),
            ("dropped6", Item::Bytes(&dropped[1])),
        ])
        .to_bytes()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }
}

/// Flags that are missing say nothing.
fn with_flags(
    addresses: impl Iterator<Item = SocketAddr>,
    flags: &[u8],
) -> impl Iterator<Item = (SocketAddr, PexFlags)> {
    let flags = flags.iter().copied().chain(std::iter::repeat(0));
    addresses.zip(flags.map(PexFlags)).take(PEX_USED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let payload =
            b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x017:added.f2:\x02\x107:dropped0:e";
        let message = PexMessage::parse(payload).unwrap();
        let both = [("1.2.3.4:6881", PexFlags::SEED), ("5.6.7.8:1", PexFlags::REACHABLE)];
        assert_eq!(message.added, both.map(|(text, flags)| (text.parse().unwrap(), flags)));
        let message = PexMessage { added: message.added, dropped: vec!["[2a00::1]:7".parse().unwrap()] };
        assert_eq!(
            message.encode(),
            b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x017:added.f2:\x02\x10\
              6:added60:8:added6.f0:7:dropped0:8:dropped618:\x2a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x07e"
        );
    }

    #[test]
    fn p31_wrong_strides_and_missing_flags_lose_only_the_remainder() {
        for cut in 0..=12 {
            let mut payload = format!("d5:added{cut}:").into_bytes();
            payload.extend(&[9; 12][..cut]);
            payload.push(b'e');
            let message = PexMessage::parse(&payload).unwrap();
            assert_eq!(message.added.len(), cut / 6);
            assert!(message.added.iter().all(|(_, flags)| *flags == PexFlags::default()));
        }
    }

    #[test]
    fn p31_so_many_peers_of_a_message_are_used() {
        for count in [PEX_USED_MAX - 1, PEX_USED_MAX, PEX_USED_MAX + 1, 10_000] {
            let peer = |n: usize| SocketAddr::from(([5, 5, (n >> 8) as u8, n as u8], 1));
            let added = (0..count).map(|n| (peer(n), PexFlags::default())).collect();
            let payload = PexMessage { added, dropped: Vec::new() }.encode();
            assert_eq!(PexMessage::parse(&payload).unwrap().added.len(), count.min(PEX_USED_MAX));
        }
    }

    #[test]
    fn p31_what_is_no_dictionary_or_a_bomb_is_refused() {
        for payload in [&b""[..], b"le", b"i1e", b"d5:added", b"d5:addede"] {
            assert!(PexMessage::parse(payload).is_err());
        }
        let bomb = |count: usize| [b"d1:xl".to_vec(), b"i1e".repeat(count), b"ee".to_vec()].concat();
        for (tokens, ok) in [(PEX_TOKENS_MAX - 1, true), (PEX_TOKENS_MAX, true), (PEX_TOKENS_MAX + 1, false)]
        {
            // The dictionary, its key and the list are tokens too.
            assert_eq!(PexMessage::parse(&bomb(tokens - 3)).is_ok(), ok, "{tokens}");
        }
        let unusual = PexMessage::parse(b"d5:addedi7e6:added6lee").unwrap();
        assert!(unusual.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            peers in proptest::collection::vec((any::<[u8; 18]>(), any::<bool>(), any::<u8>()), 0..50)
        ) {
            let of = |(bytes, v6, flags): ([u8; 18], bool, u8)| {
                let v4 = read_v4(bytes.first_chunk().unwrap());
                (if v6 { read_v6(&bytes) } else { v4 }, PexFlags(flags))
            };
            let mut added: Vec<_> = peers.into_iter().map(of).collect();
            let message = PexMessage { added: added.clone(), dropped: Vec::new() };
            added.sort_by_key(|(address, _)| address.is_ipv6());
            prop_assert_eq!(PexMessage::parse(&message.encode()).unwrap().added, added);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = PexMessage::parse(&bytes);
        }
    }
}
