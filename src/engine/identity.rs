//! Who is who: the hashes under which blocks are attributed, peers are banned, and accounts are kept.
//!
//! | network | blame, ban, credit (`key`) | grants and equal shares (`group`) | balance that counts |
//! |---|---|---|---|
//! | public IPv4 | the address | its /24, or as `--group-prefix` says | of the address |
//! | public IPv6 | the /64 | its /48, or as `--group-prefix` says | of the /64 |
//! | private, or of `--friends` | address and port of the connection | the address | of the address |
//! | loopback | address and port of the connection | the same | of the same |
//!
//! Many machines behind one public address are one party; in a local network every machine is one, since
//! a fleet in one subnet is honest neighbours. On loopback whoever connects is a party of its own.
//!
//! Who proves a key (`proof.rs`) is credited under it wherever it is, and so is the balance; blame, ban,
//! grants and equal shares stay with its address.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::address::{AddressClass, GroupKey, canonical};
use crate::base::ids::{InfoHash, WebSeedId};
use crate::base::network::Grouping;

/// The hashes of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// By which its blocks are attributed and it is banned. Never zero.
    pub key: u64,
    /// The addresses that share grants with it. Never zero; equal to `key` for who shares with nobody.
    pub group: u64,
    /// The balance of the whole group is its own: behind all addresses of it is one machine.
    pub one_machine: bool,
}

impl Identity {
    /// Of the peer at `address` by the operator's rule, hashed under a secret that nobody out there knows.
    pub fn of(address: SocketAddr, grouping: &Grouping, secret: u64) -> Self {
        let is_stranger = grouping.is_stranger(address.ip());
        let key = hash(&key_bytes(address, is_stranger), secret);
        let group = match AddressClass::of(address.ip()) {
            AddressClass::Loopback => key,
            _ => hash(&group_bytes(grouping.group_key(address.ip())), secret),
        };
        Self { key, group, one_machine: !is_stranger }
    }

    /// By which a web seed of a torrent is blamed and banned, whatever its address: servers have many, and
    /// one address has many servers. Never zero.
    pub fn of_web_seed(info_hash: InfoHash, seed: WebSeedId, secret: u64) -> u64 {
        // Of another length than what is hashed of addresses and keys.
        let mut bytes = [0; 22];
        bytes[..20].copy_from_slice(&info_hash.0);
        bytes[20..].copy_from_slice(&seed.0.to_be_bytes());
        hash(&bytes, secret)
    }

    /// The account of whoever has the key pair of `public`. Never zero.
    pub fn of_key(public: &[u8; 32], secret: u64) -> u64 {
        // Of another length than what is hashed of addresses, so that no address is a key.
        hash(public, secret)
    }
}

fn key_bytes(address: SocketAddr, stranger: bool) -> [u8; 18] {
    let port = if stranger { 0 } else { address.port() };
    let number = match canonical(address.ip()) {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) if stranger => ip.to_bits() >> 64 << 64,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&number.to_be_bytes());
    bytes[16..].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Of another length than a key's, so that no group is a key.
fn group_bytes(group: GroupKey) -> [u8; 19] {
    let mut bytes = [0; 19];
    match group {
        GroupKey::Net(IpAddr::V4(ip)) | GroupKey::Local(IpAddr::V4(ip)) => {
            bytes[1..5].copy_from_slice(&ip.octets());
        }
        GroupKey::Net(IpAddr::V6(ip)) | GroupKey::Local(IpAddr::V6(ip)) => {
            bytes[1..17].copy_from_slice(&ip.octets());
        }
    }
    bytes[0] = match group {
        GroupKey::Net(IpAddr::V4(_)) => 1,
        GroupKey::Net(IpAddr::V6(_)) => 2,
        GroupKey::Local(IpAddr::V4(_)) => 3,
        GroupKey::Local(IpAddr::V6(_)) => 4,
    };
    bytes
}

/// Zero means "nobody" wherever hashes are kept.
fn hash(bytes: &[u8], secret: u64) -> u64 {
    xxh3_64_with_seed(bytes, secret) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::network::GroupPrefixes;

    fn of(address: &str) -> Identity {
        Identity::of(address.parse().unwrap(), &Grouping::default(), 7)
    }

    #[test]
    fn public_addresses_are_parties_whatever_their_port_and_share_a_group() {
        let (one, other_port) = (of("8.8.8.8:1"), of("8.8.8.8:2"));
        assert_eq!(one, other_port);
        let neighbour = of("8.8.8.9:1");
        assert!(one.key != neighbour.key && one.group == neighbour.group && !one.one_machine);
        assert_ne!(one.group, of("8.8.9.8:1").group);
        let (v6, same_net) = (of("[2600:1:2:3::4]:1"), of("[2600:1:2:9::4]:1"));
        assert!(v6.key != same_net.key && v6.group == same_net.group);
        assert_eq!(v6.key, of("[2600:1:2:3:9::9]:5").key, "a /64 is one host's");
        assert_ne!(v6.group, of("[2600:1:3:3::4]:1").group);
    }

    #[test]
    fn private_addresses_are_machines_and_loopback_connections_are() {
        let (one, other_port) = (of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert!(one.key != other_port.key && one.group == other_port.group && one.one_machine);
        assert_ne!(one.group, of("10.0.0.2:1").group);
        let (one, other) = (of("127.0.0.1:1"), of("127.0.0.1:2"));
        assert!(one.group == one.key && one.group != other.group);
    }

    #[test]
    fn addresses_of_friends_are_machines_like_private_ones() {
        let grouping = Grouping::new(vec!["8.8.8.0/24".parse().unwrap()], GroupPrefixes::default()).unwrap();
        let of = |address: &str| Identity::of(address.parse().unwrap(), &grouping, 7);
        let (one, other_port) = (of("8.8.8.8:1"), of("8.8.8.8:2"));
        assert!(one.key != other_port.key && one.group == other_port.group && one.one_machine);
        assert_ne!(one.group, of("8.8.8.9:1").group);
        let (one, neighbour) = (of("8.8.9.8:1"), of("8.8.9.9:1"));
        assert!(one.group == neighbour.group && !one.one_machine, "everybody else as before");
    }

    #[test]
    fn how_an_address_is_written_and_what_secret_hashes_it() {
        assert_eq!(of("[::ffff:8.8.8.8]:1"), of("8.8.8.8:1"));
        let elsewhere = Identity::of("8.8.8.8:1".parse().unwrap(), &Grouping::default(), 8);
        assert_ne!(of("8.8.8.8:1"), elsewhere);
    }
}
