//! What kind of network an address is on. Decisions about whom to trust, whom to dial and whom to
//! count together are made on the address that is connected to, never on its spelling (threats N1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of network that an address belongs to, after unwrapping IPv4 inside IPv6
/// (mapped, compatible, NAT64, 6to4). The IANA special-purpose registries, RFC 6890.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// This host: 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10; where clouds keep their metadata services.
    LinkLocal,
    /// RFC 1918, carrier NAT 100.64/10, test beds 198.18/15 and 2001:2::/48, fc00::/7, fec0::/10,
    /// 64:ff9b:1::/48.
    Private,
    /// Reachable from anywhere.
    Global,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 0.0.0.0/8, ::; Linux connects them to this host.
    Unspecified,
    /// 192.0.2/24, 198.51.100/24, 203.0.113/24, 2001:db8::/32, 3fff::/20.
    Documentation,
    /// Broadcast, 240/4, discard-only, Teredo and all that IANA has not handed out.
    Reserved,
}

/// Addresses that count as one party when grants and caps are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupKey {
    /// A public network, by its first address; how large says `Grouping`.
    Net(IpAddr),
    /// One address of a local network, or of friends, where neighbours are honest machines and not one
    /// Sybil.
    Local(IpAddr),
}

impl AddressClass {
    /// The class of `address`.
    pub fn of(address: IpAddr) -> Self {
        match canonical(address) {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    /// Whether the address may belong to anybody: caps per address and bans of addresses apply.
    /// Local networks are the operator's own.
    pub const fn is_stranger(self) -> bool {
        !matches!(self, Self::Loopback | Self::LinkLocal | Self::Private)
    }

    /// Whether one host can be there at all, so that a connection to it makes sense.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Loopback | Self::LinkLocal | Self::Private | Self::Global)
    }

    /// Whether the operator's own word suffices to connect there: not to link-local addresses,
    /// since a torrent from elsewhere could aim at a metadata service.
    pub const fn may_operator_name(self) -> bool {
        matches!(self, Self::Loopback | Self::Private | Self::Global)
    }

    /// Whether a host of this class may send us to one of class `other`, by a redirect or a list of
    /// peers: only outwards or level, so that nobody out there reaches what only we can reach.
    pub const fn may_name(self, other: Self) -> bool {
        match self {
            Self::Loopback => other.may_operator_name(),
            Self::Private => matches!(other, Self::Private | Self::Global),
            Self::Global => matches!(other, Self::Global),
            _ => false,
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Self {
        match v4.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
                Self::Private
            }
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Self::Reserved,
            [224..=239, ..] => Self::Multicast,
            _ => Self::Global,
        }
    }

    fn of_v6(v6: Ipv6Addr) -> Self {
        match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            [0x64, 0xff9b, 1, ..] | [0x2001, 2, 0, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Documentation,
            // 2001::/23 is for protocols, Teredo among them.
            [0x2001, 0..=0x1ff, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Reserved,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::Global => "public",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Documentation => "documentation",
            Self::Reserved => "reserved",
        })
    }
}

/// `address` with any IPv4 address inside it taken out: IPv4-mapped ::ffff:0:0/96, IPv4-compatible
/// ::/96, NAT64 64:ff9b::/96 (RFC 6052) and 6to4 2002::/16 (RFC 3056).
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// What counts as one address: an IPv4 address however it is wrapped, or the /64 that any IPv6 host
/// has to itself.
pub fn home(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AddressClass::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("not an address: {text}"))
    }

    const TABLE: &[(&str, AddressClass)] = &[
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("126.255.255.255", Global),
        ("128.0.0.0", Global),
        ("::1", Loopback),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:7f00:1", Loopback),
        ("::127.0.0.1", Loopback),
        ("64:ff9b::127.0.0.1", Loopback),
        ("64:ff9b::7f00:1", Loopback),
        ("2002:7f00:1::", Loopback),
        ("2002:7f00:1:dead::beef", Loopback),
        ("169.254.169.254", LinkLocal),
        ("169.253.255.255", Global),
        ("169.255.0.0", Global),
        ("::ffff:169.254.169.254", LinkLocal),
        ("64:ff9b::a9fe:a9fe", LinkLocal),
        ("2002:a9fe:a9fe::1", LinkLocal),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("9.255.255.255", Global),
        ("11.0.0.0", Global),
        ("172.15.255.255", Global),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("172.32.0.0", Global),
        ("192.168.0.1", Private),
        ("192.167.255.255", Global),
        ("192.169.0.0", Global),
        ("100.63.255.255", Global),
        ("100.64.0.0", Private),
        ("100.127.255.255", Private),
        ("100.128.0.0", Global),
        ("198.17.255.255", Global),
        ("198.18.0.1", Private),
        ("198.19.255.255", Private),
        ("198.20.0.0", Global),
        ("::ffff:10.0.0.1", Private),
        ("64:ff9b::10.1.2.3", Private),
        ("2002:c0a8:1::", Private),
        ("64:ff9b:1::1", Private),
        ("fc00::1", Private),
        ("fdff:ffff::1", Private),
        ("fec0::1", Private),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("::", Unspecified),
        ("::ffff:0.0.0.0", Unspecified),
        ("64:ff9b::", Unspecified),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("ff02::1", Multicast),
        ("::ffff:224.0.0.1", Multicast),
        ("192.0.2.1", Documentation),
        ("198.51.100.7", Documentation),
        ("203.0.113.9", Documentation),
        ("2001:db8::1", Documentation),
        ("3fff:fff::1", Documentation),
        ("192.0.0.8", Reserved),
        ("192.88.99.1", Reserved),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("::ffff:255.255.255.255", Reserved),
        ("100::1", Reserved),
        ("2001::1", Reserved),
        ("4000::1", Reserved),
        ("8.8.8.8", Global),
        ("223.255.255.255", Global),
        ("::ffff:8.8.8.8", Global),
        ("64:ff9b::808:808", Global),
        ("2001:200::1", Global),
        ("2001:4860:4860::8888", Global),
        ("2a00::1", Global),
        ("3ffe::1", Global),
    ];

    #[test]
    fn n1_every_spelling_has_its_class() {
        for (text, class) in TABLE {
            assert_eq!(AddressClass::of(ip(text)), *class, "{text}");
        }
        assert!(TABLE.len() >= 60);
    }

    #[test]
    fn n3_nobody_points_inwards() {
        let order = [Loopback, Private, Global];
        for (from_rank, from) in order.iter().enumerate() {
            for (to_rank, to) in order.iter().enumerate() {
                assert_eq!(from.may_name(*to), from_rank <= to_rank, "{from:?} to {to:?}");
            }
            for never in [LinkLocal, Multicast, Unspecified, Documentation, Reserved] {
                assert!(!from.may_name(never) && !never.may_name(*from));
                assert!(!never.may_operator_name());
            }
            assert!(from.may_operator_name());
        }
    }

    #[test]
    fn strangers_are_all_but_local_networks() {
        for (text, class) in TABLE {
            let local = matches!(class, Loopback | Private | LinkLocal);
            assert_eq!(class.is_stranger(), !local, "{text}");
        }
    }
}
