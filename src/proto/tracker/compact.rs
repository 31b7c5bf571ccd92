//! Compact peer lists: 6 bytes per IPv4 peer (BEP 23), 18 per IPv6 peer (BEP 7).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::PeerList;
use crate::base::address::{AddressClass, canonical};

/// Which addresses a compact list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 4 bytes of address.
    V4,
    /// 16 bytes of address.
    V6,
}

impl Family {
    /// Length of a compact address and its port.
    pub const fn peer_bytes(self) -> usize {
        match self {
            Self::V4 => 6,
            Self::V6 => 18,
        }
    }

    /// Length of the same behind the id of a node of the hash table (BEP 5).
    pub const fn node_bytes(self) -> usize {
        20 + self.peer_bytes()
    }
}

/// A compact IPv4 address and its port.
pub fn read_v4(&[a, b, c, d, high, low]: &[u8; 6]) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}

/// A compact IPv6 address and its port.
pub fn read_v6([address @ .., high, low]: &[u8; 18]) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::from(*address), u16::from_be_bytes([*high, *low])))
}

/// The address as it is connected to; `None` if no host can be there.
pub fn usable(address: SocketAddr) -> Option<SocketAddr> {
    let address = SocketAddr::new(canonical(address.ip()), address.port());
    (address.port() != 0 && AddressClass::of(address.ip()).is_host()).then_some(address)
}

/// The peers in `bytes`; a remainder at the end is ignored, since some trackers cut their replies.
pub fn parse_peers(bytes: &[u8], family: Family) -> Vec<SocketAddr> {
    let mut list = PeerList::default();
    append(&mut list, bytes, family);
    list.peers
}

pub(super) fn append(list: &mut PeerList, bytes: &[u8], family: Family) {
    match family {
        Family::V4 => {
            let (entries, _rest) = bytes.as_chunks::<6>();
            entries.iter().for_each(|entry| push(list, read_v4(entry)));
        }
        Family::V6 => {
            let (entries, _rest) = bytes.as_chunks::<18>();
            entries.iter().for_each(|entry| push(list, read_v6(entry)));
        }
    }
}

fn push(list: &mut PeerList, address: SocketAddr) {
    if !list.is_full() {
        list.push(address);
    }
}

/// Writes a compact entry of `address`, 6 or 18 bytes; what a tracker does, and a test.
pub fn write_peer(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => out.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => out.extend_from_slice(&v6.ip().octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::TRACKER_PEERS_MAX;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let v4 = parse_peers(&[1, 2, 3, 4, 0x1a, 0xe1, 5, 6, 7, 8, 0, 1], Family::V4);
        assert_eq!(v4, ["1.2.3.4:6881".parse().unwrap(), "5.6.7.8:1".parse().unwrap()]);
        let mut bytes = Vec::new();
        write_peer(&mut bytes, "[2a00::1]:6881".parse().unwrap());
        assert_eq!(bytes.len(), 18);
        assert_eq!(parse_peers(&bytes, Family::V6), ["[2a00::1]:6881".parse().unwrap()]);
    }

    #[test]
    fn n6_odd_lengths_lose_only_the_remainder() {
        let peer = [9, 9, 9, 9, 1, 1, 8, 8, 8, 8, 1, 1];
        for cut in 0..=peer.len() {
            let bytes = peer.get(..cut).unwrap();
            assert_eq!(parse_peers(bytes, Family::V4).len(), cut / 6);
            assert!(parse_peers(bytes, Family::V6).is_empty());
        }
    }

    #[test]
    fn n6_a_million_peers_are_capped() {
        let bytes: Vec<u8> =
            (0..1_000_000_u32).flat_map(|n| [5, (n >> 16) as u8, (n >> 8) as u8, n as u8, 1, 1]).collect();
        assert_eq!(parse_peers(&bytes, Family::V4).len(), TRACKER_PEERS_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_give_only_usable_peers(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for family in [Family::V4, Family::V6] {
                for peer in parse_peers(&bytes, family) {
                    prop_assert_ne!(peer.port(), 0);
                    prop_assert!(!peer.ip().is_unspecified() && !peer.ip().is_multicast());
                }
            }
        }
    }
}
