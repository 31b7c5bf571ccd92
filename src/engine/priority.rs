//! Canonical peer priority (BEP 40): both ends of a connection give it the same rank, and nobody can choose
//! the rank of its address with everybody. So swarms in which all dial their best become well connected.

use std::net::{IpAddr, SocketAddr};

use crate::base::address::{AddressClass, canonical};

/// The order in which addresses that are due at the same time are dialled: neighbours first, then the highest
/// priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    distance: Distance,
    /// The complement of the priority: the highest comes first.
    inverse: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    Near,
    Far,
}

impl Rank {
    /// That of a peer at `address` for a node that others see at `own`.
    pub fn of(address: SocketAddr, own: Option<SocketAddr>) -> Self {
        let near = !AddressClass::of(address.ip()).is_stranger();
        let distance = if near { Distance::Near } else { Distance::Far };
        Self { distance, inverse: !own.map_or(0, |own| priority(own, address)) }
    }
}

/// The priority of a connection between two addresses, whichever comes first; 0 between families.
pub fn priority(a: SocketAddr, b: SocketAddr) -> u32 {
    const CASTAGNOLI: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let (ip_a, ip_b) = (canonical(a.ip()), canonical(b.ip()));
    if ip_a == ip_b {
        let (low, high) = (a.port().min(b.port()), a.port().max(b.port()));
        return CASTAGNOLI.checksum(&[low.to_be_bytes(), high.to_be_bytes()].concat());
    }
    match (ip_a, ip_b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => CASTAGNOLI.checksum(&masked(a.octets(), b.octets(), 2)),
        (IpAddr::V6(a), IpAddr::V6(b)) => CASTAGNOLI.checksum(&masked(a.octets(), b.octets(), 6)),
        _ => 0,
    }
}

/// Both addresses, the lesser one first, with every other bit of their ends taken out: one byte behind what
/// they have in common, `whole` bytes at least, is left whole.
fn masked<const N: usize>(a: [u8; N], b: [u8; N], whole: usize) -> Vec<u8> {
    let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let whole = if common >= whole { common + 1 } else { whole };
    let mask = |bytes: [u8; N]| -> [u8; N] {
        std::array::from_fn(|at| if at < whole { bytes[at] } else { bytes[at] & 0x55 })
    };
    let (a, b) = (mask(a), mask(b));
    if a <= b { [a, b].concat() } else { [b, a].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_examples_of_bep_40() {
        assert_eq!(priority(at("123.213.32.10:1"), at("98.76.54.32:2")), 0xec2d_7224);
        assert_eq!(priority(at("123.213.32.10:1"), at("123.213.32.234:2")), 0x9956_8189);
    }

    #[test]
    fn both_ends_agree_and_the_ports_of_one_host_count() {
        for (a, b) in [
            ("8.8.8.8:1", "9.9.9.9:2"),
            ("8.8.8.8:1", "8.8.9.9:2"),
            ("8.8.8.8:1", "8.8.8.8:2"),
            ("[2600:1::1]:1", "[2600:2::1]:2"),
            ("[2600:1:2:3::1]:1", "[2600:1:2:3::2]:2"),
        ] {
            assert_eq!(priority(at(a), at(b)), priority(at(b), at(a)), "{a} {b}");
            assert_ne!(priority(at(a), at(b)), 0);
        }
        assert_ne!(priority(at("8.8.8.8:1"), at("8.8.8.8:2")), priority(at("8.8.8.8:1"), at("8.8.8.8:3")));
        assert_eq!(priority(at("8.8.8.8:1"), at("[2600::1]:1")), 0);
        // Within a /16 the third byte counts whole, within a /24 the fourth.
        let near = |last: &str| priority(at("8.8.8.8:1"), at(last));
        assert_ne!(near("8.8.10.8:1"), near("8.8.8.10:1"));
        assert_eq!(near("9.9.10.8:1"), near("9.9.8.8:1"), "far away every other bit does not count");
        assert_ne!(near("8.8.10.8:1"), near("8.8.11.8:1"));
    }

    #[test]
    fn neighbours_come_first_and_then_the_highest_priority() {
        let own = at("123.213.32.10:1");
        let (far, other) = (at("98.76.54.32:2"), at("123.213.32.234:2"));
        assert!(Rank::of(far, Some(own)) < Rank::of(other, Some(own)));
        assert!(Rank::of(at("192.168.1.1:1"), Some(own)) < Rank::of(far, Some(own)));
        assert_eq!(Rank::of(far, None), Rank::of(other, None));
    }
}
