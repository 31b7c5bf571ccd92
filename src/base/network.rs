//! Which addresses count as one party: by the kind of their network, and by what the operator says.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use super::address::{AddressClass, GroupKey, canonical};
use super::limits::{
    FRIENDS_MAX, GROUP_PREFIX_V4, GROUP_PREFIX_V4_MAX, GROUP_PREFIX_V4_MIN, GROUP_PREFIX_V6,
    GROUP_PREFIX_V6_MAX, GROUP_PREFIX_V6_MIN,
};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

/// How many bits public addresses have in common that are one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupPrefixes {
    v4: u8,
    v6: u8,
}

/// The rule by which addresses are put into groups. The default knows no friends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    friends: Vec<Network>,
    prefixes: GroupPrefixes,
}

/// What is wrong with a network or prefixes as somebody wrote them, and how to write them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NetworkError {
    /// No address before the slash.
    #[error("not an address: write a network like 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7")]
    Address,
    /// The number of bits is none, or too many.
    #[error("the prefix is not a number from 0 to {0}: write a network like 203.0.113.0/24 or 2001:db8::/32")]
    Prefix(u8),
    /// The address goes on behind the prefix.
    #[error("the address has bits behind its prefix: write {0}")]
    Bits(Network),
    /// An IPv4 address inside IPv6.
    #[error("an IPv4 address inside IPv6: write {0}, with the prefix that it has there")]
    Wrapped(IpAddr),
    /// Not two numbers within their limits.
    #[error(
        "not two prefixes: write the bits of an IPv4 group, {GROUP_PREFIX_V4_MIN} to {GROUP_PREFIX_V4_MAX}, \
         and of an IPv6 group, {GROUP_PREFIX_V6_MIN} to {GROUP_PREFIX_V6_MAX}, like {GROUP_PREFIX_V4},\
         {GROUP_PREFIX_V6}"
    )]
    Prefixes,
    /// [`FRIENDS_MAX`] are reached.
    #[error("more than {FRIENDS_MAX} networks of friends: name larger ones that contain them")]
    TooMany,
}

impl Network {
    /// `prefix` must fit the address.
    fn new(address: IpAddr, prefix: u8) -> Self {
        Self(IpNet::new(address, prefix).expect("a prefix that fits").trunc())
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Whether it is a single address.
    pub fn is_address(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Whether an address is one of it, however it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&canonical(address))
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// An address, or the first of a network, a slash and its bits.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        if canonical(address) != address {
            return Err(NetworkError::Wrapped(canonical(address)));
        }
        let max = IpNet::from(address).max_prefix_len();
        // Digits alone: `u8` would take a sign as well.
        let number =
            |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let prefix = prefix.map_or(Some(max), number);
        let prefix = prefix.filter(|&prefix| prefix <= max).ok_or(NetworkError::Prefix(max))?;
        let network = Self::new(address, prefix);
        if network.address() == address { Ok(network) } else { Err(NetworkError::Bits(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for GroupPrefixes {
    fn default() -> Self {
        Self { v4: GROUP_PREFIX_V4, v6: GROUP_PREFIX_V6 }
    }
}

impl FromStr for GroupPrefixes {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parse = || {
            let (v4, v6) = text.split_once(',')?;
            let (v4, v6) = (v4.trim().parse().ok()?, v6.trim().parse().ok()?);
            let fits = (GROUP_PREFIX_V4_MIN..=GROUP_PREFIX_V4_MAX).contains(&v4)
                && (GROUP_PREFIX_V6_MIN..=GROUP_PREFIX_V6_MAX).contains(&v6);
            fits.then_some(Self { v4, v6 })
        };
        parse().ok_or(NetworkError::Prefixes)
    }
}

impl fmt::Display for GroupPrefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.v4, self.v6)
    }
}

impl Grouping {
    /// A rule in which each address of `friends` is a party like those of local networks.
    pub fn new(friends: Vec<Network>, prefixes: GroupPrefixes) -> Result<Self, NetworkError> {
        if friends.len() > FRIENDS_MAX {
            return Err(NetworkError::TooMany);
        }
        Ok(Self { friends, prefixes })
    }

    /// Whether the address may belong to anybody; see [`AddressClass::is_stranger`]. Friends' do not.
    pub fn is_stranger(&self, address: IpAddr) -> bool {
        let is_friend = || self.friends.iter().any(|network| network.contains(address));
        AddressClass::of(address).is_stranger() && !is_friend()
    }

    /// The addresses that are one party with `address` when grants and caps are shared out, to be shown.
    pub fn network_of(&self, address: IpAddr) -> Network {
        match self.group_key(address) {
            GroupKey::Local(address) => Network(address.into()),
            GroupKey::Net(first) => Network::new(first, self.prefix(first)),
        }
    }

    /// The party that `address` belongs to when grants and caps are shared out.
    pub fn group_key(&self, address: IpAddr) -> GroupKey {
        let address = canonical(address);
        if !self.is_stranger(address) {
            return GroupKey::Local(address);
        }
        GroupKey::Net(Network::new(address, self.prefix(address)).address())
    }

    /// Bits that a stranger's group has in common.
    const fn prefix(&self, address: IpAddr) -> u8 {
        if address.is_ipv4() { self.prefixes.v4 } else { self.prefixes.v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("not an address: {text}"))
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn groups_are_shown_as_networks() {
        let text = |address: &str| Grouping::default().network_of(ip(address)).to_string();
        assert_eq!((text("8.8.4.9"), text("2a00:1:2:3::4")), ("8.8.4.0/24".into(), "2a00:1:2::/48".into()));
        assert_eq!((text("10.0.0.7"), text("fc00::1")), ("10.0.0.7/32".into(), "fc00::1/128".into()));
    }

    #[test]
    fn networks_contain_what_begins_like_them_however_it_is_spelt() {
        for (net, inside, outside) in [
            ("8.8.8.0/24", "8.8.8.255", "8.8.9.0"),
            ("8.8.8.0/24", "::ffff:8.8.8.1", "::ffff:8.8.9.1"),
            ("8.8.8.8", "8.8.8.8", "8.8.8.9"),
            ("8.8.8.8/32", "64:ff9b::808:808", "8.8.8.7"),
            ("8.8.8.0/31", "8.8.8.1", "8.8.8.2"),
            ("0.0.0.0/0", "255.255.255.255", "2600::1"),
            ("::/0", "2600::1", "8.8.8.8"),
            ("2600:1::/32", "2600:1:ffff::1", "2600:2::"),
            ("2600::1", "2600::1", "2600::2"),
        ] {
            assert!(network(net).contains(ip(inside)), "{net} {inside}");
            assert!(!network(net).contains(ip(outside)), "{net} {outside}");
        }
    }

    #[test]
    fn a_network_that_is_written_wrong_is_answered_with_how_to_write_it() {
        for (text, want) in [
            ("", "like 203.0.113.0/24"),
            ("fleet.example/24", "like 203.0.113.0/24"),
            ("8.8.8/24", "not an address"),
            ("8.8.8.0/", "from 0 to 32"),
            ("8.8.8.0/33", "from 0 to 32"),
            ("8.8.8.0/-1", "from 0 to 32"),
            ("8.8.8.0/+24", "from 0 to 32"),
            ("8.8.8.0/24/24", "from 0 to 32"),
            ("8.8.8.0/255.255.255.0", "from 0 to 32"),
            ("2600::/129", "from 0 to 128"),
            ("8.8.8.8/24", "write 8.8.8.0/24"),
            ("2600::1/32", "write 2600::/32"),
            ("::ffff:8.8.8.0/120", "write 8.8.8.0"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(want) && !error.contains('\n'), "{text}: {error}");
        }
        assert_eq!(network("8.8.8.0/24").to_string(), "8.8.8.0/24");
    }

    #[test]
    fn prefixes_are_two_numbers_within_their_limits() {
        for (v4, v6) in [
            (GROUP_PREFIX_V4_MIN, GROUP_PREFIX_V6_MIN),
            (GROUP_PREFIX_V4_MIN + 1, GROUP_PREFIX_V6_MIN + 1),
            (GROUP_PREFIX_V4_MAX - 1, GROUP_PREFIX_V6_MAX - 1),
            (GROUP_PREFIX_V4_MAX, GROUP_PREFIX_V6_MAX),
        ] {
            let text = format!("{v4},{v6}");
            assert_eq!(text.parse::<GroupPrefixes>().unwrap().to_string(), text);
        }
        let below = format!("{},48", GROUP_PREFIX_V4_MIN - 1);
        let above = format!("{},48", GROUP_PREFIX_V4_MAX + 1);
        let below_v6 = format!("24,{}", GROUP_PREFIX_V6_MIN - 1);
        let above_v6 = format!("24,{}", GROUP_PREFIX_V6_MAX + 1);
        for text in [&below, &above, &below_v6, &above_v6, "24", "24,48,1", "a,b", "", "/24,/48"] {
            let error = text.parse::<GroupPrefixes>().unwrap_err().to_string();
            assert!(error.contains("like 24,48") && !error.contains('\n'), "{text}: {error}");
        }
        assert_eq!("24, 48".parse(), Ok(GroupPrefixes::default()));
    }

    #[test]
    fn groups_are_nets_of_strangers_and_single_local_addresses() {
        let group_key = |address| Grouping::default().group_key(address);
        assert_eq!(group_key(ip("8.8.8.8")), group_key(ip("8.8.8.9")));
        assert_ne!(group_key(ip("8.8.8.8")), group_key(ip("8.8.9.8")));
        assert_eq!(group_key(ip("8.8.8.8")), group_key(ip("::ffff:8.8.8.99")));
        assert_eq!(group_key(ip("2a00:1:2::1")), group_key(ip("2a00:1:2:ffff::1")));
        assert_ne!(group_key(ip("2a00:1:2::1")), group_key(ip("2a00:1:3::1")));
        assert_ne!(group_key(ip("10.0.0.1")), group_key(ip("10.0.0.2")));
        assert_eq!(group_key(ip("10.0.0.1")), group_key(ip("::ffff:10.0.0.1")));
        assert_ne!(group_key(ip("127.0.0.1")), group_key(ip("::1")));
        assert_ne!(group_key(ip("8.8.8.0")), GroupKey::Local(ip("8.8.8.0")));
    }

    #[test]
    fn the_operator_says_how_large_groups_are() {
        let grouping = Grouping::new(Vec::new(), "16,32".parse().unwrap()).unwrap();
        let same = |a, b| grouping.group_key(ip(a)) == grouping.group_key(ip(b));
        assert!(same("8.8.8.8", "8.8.9.8") && !same("8.8.8.8", "8.9.8.8"));
        assert!(same("2a00:1:2::1", "2a00:1:3::1") && !same("2a00:1:2::1", "2a00:2:2::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"), "private addresses stay single");
        let single = Grouping::new(Vec::new(), "32,64".parse().unwrap()).unwrap();
        assert_ne!(single.group_key(ip("8.8.8.8")), single.group_key(ip("8.8.8.9")));
    }

    #[test]
    fn friends_are_no_strangers_and_each_address_is_a_party() {
        let friends = vec![network("8.8.8.0/24"), network("2600:1::/32")];
        let grouping = Grouping::new(friends, GroupPrefixes::default()).unwrap();
        for (address, stranger) in [
            ("8.8.8.0", false),
            ("8.8.8.255", false),
            ("8.8.7.255", true),
            ("8.8.9.0", true),
            ("2600:1::5", false),
            ("2600:2::5", true),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(grouping.is_stranger(ip(address)), stranger, "{address}");
        }
        assert_eq!(grouping.group_key(ip("::ffff:8.8.8.8")), GroupKey::Local(ip("8.8.8.8")));
    }

    #[test]
    fn as_many_friends_as_the_limit_and_no_more() {
        for (count, fits) in [(FRIENDS_MAX - 1, true), (FRIENDS_MAX, true), (FRIENDS_MAX + 1, false)] {
            let friends = vec![network("8.8.8.0/24"); count];
            assert_eq!(Grouping::new(friends, GroupPrefixes::default()).is_ok(), fits, "{count}");
        }
    }
}
