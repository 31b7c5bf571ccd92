//! The host's interfaces: on which ones neighbours are spoken to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::limits::LSD_INTERFACES_MAX;

/// One interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interface {
    /// The kernel's number.
    pub(super) index: u32,
    /// Its first IPv4 address, if it has any.
    pub(super) v4: Option<Ipv4Addr>,
    /// Whether it has an IPv6 address.
    pub(super) v6: bool,
}

/// Those on which a node that accepts peers at `listen` speaks: at most [`LSD_INTERFACES_MAX`]; that of the
/// address, or all but loopback.
pub(super) fn interfaces(listen: Option<SocketAddr>) -> Vec<Interface> {
    let only = listen.map(|address| address.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let chosen = |index: u32| match only {
        Some(ip) => all.iter().any(|other| other.index == Some(index) && other.ip() == ip),
        None => all.iter().any(|other| other.index == Some(index) && !other.is_loopback()),
    };
    let mut found = BTreeMap::new();
    for interface in &all {
        let Some(index) = interface.index.filter(|&index| chosen(index)) else { continue };
        let entry = found.entry(index).or_insert(Interface { index, v4: None, v6: false });
        match interface.ip() {
            IpAddr::V4(v4) if only.is_none_or(|ip| ip == v4) => entry.v4 = entry.v4.or(Some(v4)),
            IpAddr::V6(_) if only.is_none_or(|ip| ip.is_ipv6()) => entry.v6 = true,
            _ => {}
        }
    }
    found.into_values().take(LSD_INTERFACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_speaks_where_it_listens() {
        let local = interfaces(Some("127.0.0.1:5".parse().unwrap()));
        assert_eq!(local.len(), 1);
        assert_eq!((local[0].v4, local[0].v6), (Some(Ipv4Addr::LOCALHOST), false));
        let all = interfaces(Some("0.0.0.0:5".parse().unwrap()));
        assert!(all.iter().all(|interface| interface.index != local[0].index));
        assert_eq!(interfaces(Some("203.0.113.77:5".parse().unwrap())), []);
    }
}
