//! Connection ids of BEP 15 that nobody has to remember: a keyed hash of the client's address and the time.

use std::net::IpAddr;

use ring::hmac;

use crate::base::limits::SERVED_CONNECTION_ID_TIME;
use crate::base::time::Instant;
use crate::proto::tracker::udp::ConnectionId;

/// Makes and knows them.
pub struct ConnectionIds(hmac::Key);

impl ConnectionIds {
    /// Under a secret that nobody else has.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// For who asks from `from`: only who receives there learns it.
    pub fn give(&self, from: IpAddr, now: Instant) -> ConnectionId {
        self.of(from, now.0 / SERVED_CONNECTION_ID_TIME.0)
    }

    /// Whether it was given to `from` not long ago.
    pub fn is_good(&self, id: ConnectionId, from: IpAddr, now: Instant) -> bool {
        let epoch = now.0 / SERVED_CONNECTION_ID_TIME.0;
        id == self.of(from, epoch) || id == self.of(from, epoch.wrapping_sub(1))
    }

    fn of(&self, from: IpAddr, epoch: u64) -> ConnectionId {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&epoch.to_be_bytes());
        match from {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let tag = context.sign();
        let first = tag.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        ConnectionId(u64::from_be_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Span;

    #[test]
    fn n16_an_id_is_good_for_its_address_and_for_a_while() {
        let ids = ConnectionIds::new(&[1; 32]);
        let (from, other): (IpAddr, IpAddr) = ("8.8.8.8".parse().unwrap(), "8.8.8.9".parse().unwrap());
        let time = SERVED_CONNECTION_ID_TIME.0;
        let now = Instant(100 * time + 5);
        let id = ids.give(from, now);
        assert!(ids.is_good(id, from, now) && !ids.is_good(id, other, now));
        assert!(!ids.is_good(ConnectionId(id.0 ^ 1), from, now));
        assert!(!ConnectionIds::new(&[2; 32]).is_good(id, from, now));
        assert!(ids.is_good(id, from, now + Span(time)));
        let end = Instant(102 * time);
        assert!(ids.is_good(id, from, Instant(end.0 - 1)));
        assert!(!ids.is_good(id, from, end) && !ids.is_good(id, from, end + Span(1)));
    }
}
