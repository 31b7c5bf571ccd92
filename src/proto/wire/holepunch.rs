//! Hole punching (BEP 55): a peer that both know has them dial one another at once. Extension
//! `ut_holepunch` (BEP 10).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proto::tracker::compact::write_peer;

const RENDEZVOUS: u8 = 0;
const CONNECT: u8 = 1;
const ERROR: u8 = 2;

const V4: u8 = 0;
const V6: u8 = 1;

/// Why nobody is brought together, as BEP 55 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunchError {
    /// The address is none that a peer can have.
    NoSuchPeer,
    /// The relaying peer is not connected to the target.
    NotConnected,
    /// The target does not speak the extension.
    NoSupport,
    /// The target is who asks.
    NoSelf,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunchKind {
    /// Bring me together with that peer.
    Rendezvous,
    /// Dial that peer now: it dials you.
    Connect,
    /// That peer cannot be had.
    Error(PunchError),
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PunchMessage {
    /// What is said.
    pub kind: PunchKind,
    /// Of which peer.
    pub address: SocketAddr,
}

impl PunchMessage {
    /// Reads the payload of an `ut_holepunch` message; `None` for one that makes no sense, which is to be
    /// ignored. The error code may be missing where there is no error: some clients leave it out.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&[kind, family], rest) = payload.split_first_chunk::<2>()?;
        let (ip, rest) = match family {
            V4 => {
                let (octets, rest) = rest.split_first_chunk::<4>()?;
                (IpAddr::from(Ipv4Addr::from(*octets)), rest)
            }
            V6 => {
                let (octets, rest) = rest.split_first_chunk::<16>()?;
                (IpAddr::from(Ipv6Addr::from(*octets)), rest)
            }
            _ => return None,
        };
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let kind = match kind {
            RENDEZVOUS => PunchKind::Rendezvous,
            CONNECT => PunchKind::Connect,
            ERROR => PunchKind::Error(error(u32::from_be_bytes(*rest.first_chunk()?))?),
            _ => return None,
        };
        Some(Self { kind, address: SocketAddr::new(ip, u16::from_be_bytes(*port)) })
    }

    /// The payload of an `ut_holepunch` message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, code) = match self.kind {
            PunchKind::Rendezvous => (RENDEZVOUS, 0),
            PunchKind::Connect => (CONNECT, 0),
            PunchKind::Error(error) => (ERROR, code(error)),
        };
        let mut out = vec![kind, if self.address.is_ipv6() { V6 } else { V4 }];
        write_peer(&mut out, self.address);
        out.extend(code.to_be_bytes());
        out
    }
}

const fn code(error: PunchError) -> u32 {
    match error {
        PunchError::NoSuchPeer => 1,
        PunchError::NotConnected => 2,
        PunchError::NoSupport => 3,
        PunchError::NoSelf => 4,
    }
}

const fn error(code: u32) -> Option<PunchError> {
    Some(match code {
        1 => PunchError::NoSuchPeer,
        2 => PunchError::NotConnected,
        3 => PunchError::NoSupport,
        4 => PunchError::NoSelf,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let connect = PunchMessage { kind: PunchKind::Connect, address: "1.2.3.4:6881".parse().unwrap() };
        assert_eq!(connect.encode(), [1, 0, 1, 2, 3, 4, 0x1a, 0xe1, 0, 0, 0, 0]);
        let error = PunchKind::Error(PunchError::NotConnected);
        let error = PunchMessage { kind: error, address: "[2a00::1]:1".parse().unwrap() };
        assert_eq!(error.encode().len(), 24);
        assert_eq!(error.encode()[18..], [0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_short_is_not() {
        let errors = [1, 2, 3, 4].map(|code| PunchKind::Error(error(code).unwrap()));
        for kind in [PunchKind::Rendezvous, PunchKind::Connect].into_iter().chain(errors) {
            for address in ["1.2.3.4:5", "[2a00::1]:6"] {
                let message = PunchMessage { kind, address: address.parse().unwrap() };
                let bytes = message.encode();
                assert_eq!(PunchMessage::parse(&bytes), Some(message));
                let needed = bytes.len() - if matches!(kind, PunchKind::Error(_)) { 0 } else { 4 };
                for cut in 0..needed {
                    assert_eq!(PunchMessage::parse(&bytes[..cut]), None, "{cut}");
                }
            }
        }
        for unknown in [[3, 0, 1, 1, 1, 1, 1, 1], [0, 2, 1, 1, 1, 1, 1, 1], [255; 8]] {
            assert_eq!(PunchMessage::parse(&unknown), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = PunchMessage::parse(&bytes) {
                prop_assert_eq!(PunchMessage::parse(&message.encode()), Some(message));
            }
        }
    }
}
