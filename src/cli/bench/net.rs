//! What the generators share: readiness, peer ids, addresses to dial from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::BenchError;
use crate::base::ids::PeerId;
use crate::base::rng::Rng;

/// Fills `events`; an interrupted wait is an empty one.
pub fn wait(
    epoll: &rustix::fd::OwnedFd,
    events: &mut Vec<epoll::Event>,
    timeout: Option<Duration>,
) -> Result<(), BenchError> {
    events.clear();
    let timeout = timeout
        .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    match epoll::wait(epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(BenchError::io("epoll", error)),
    }
}

/// Another id for each connection.
pub fn peer_id(rng: &mut Rng) -> PeerId {
    let mut id = *b"-tCbnch-000000000000";
    for byte in &mut id[8..] {
        *byte = b'a' + rng.below(26) as u8;
    }
    PeerId(id)
}

/// The loopback address from which connection `index` comes when each has its own; `None` where the other
/// side is not in 127.0.0.0/8, so that there is only one to choose.
pub fn source_addr(to: SocketAddr, index: u32) -> Option<SocketAddr> {
    let IpAddr::V4(ip) = to.ip() else { return None };
    // 62,500 addresses, then the first again.
    let host = Ipv4Addr::new(127, 1, (index / 250 % 250) as u8, (index % 250) as u8 + 1);
    ip.is_loopback().then(|| SocketAddr::from((host, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_of_a_large_run_has_an_address_of_its_own() {
        let loopback: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let mut addrs: Vec<_> = (0..62_500).map(|index| source_addr(loopback, index)).collect();
        addrs.sort_unstable();
        addrs.dedup();
        assert_eq!(addrs.len(), 62_500);
        assert!(addrs.iter().all(|addr| addr.is_some_and(|addr| addr.ip().is_loopback())));
        assert_eq!(source_addr(loopback, 62_500), source_addr(loopback, 0));
        assert_eq!(source_addr("[::1]:1".parse().expect("an address"), 0), None);
    }
}
