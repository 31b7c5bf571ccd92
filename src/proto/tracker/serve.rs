//! The tracker's side of announces and scrapes: what clients ask, and what they are answered, by HTTP (BEP 3,
//! 7, 23, 48) and by UDP (BEP 15).

mod http;
mod udp;

use std::net::SocketAddr;

use super::AnnounceEvent;
use crate::base::ids::InfoHash;
use crate::base::time::Span;

pub use http::{HttpQuestion, announce_reply, failure_reply, parse_query, scrape_reply};
pub use udp::{UdpQuestion, announced, connected, failed, parse_datagram, scraped};

/// One announce. Who announces is known by where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of which torrent.
    pub info_hash: InfoHash,
    /// Where the peer takes connections; port 0 if nowhere.
    pub peer: SocketAddr,
    /// What it lacks.
    pub left_bytes: u64,
    /// Why it announces.
    pub event: AnnounceEvent,
    /// How many others it wants to know.
    pub wanted: Option<u32>,
}

/// Which addresses an answer has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Both.
    Both,
}

impl Families {
    /// Whether it has room for IPv6, or for IPv4.
    pub const fn has(self, v6: bool) -> bool {
        matches!((self, v6), (Self::Both, _) | (Self::V4, false) | (Self::V6, true))
    }
}

/// What an announce is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Until the next announce.
    pub interval: Span,
    /// Peers that have everything.
    pub seeders: u32,
    /// Peers that do not.
    pub leechers: u32,
    /// Some of them.
    pub peers: Vec<SocketAddr>,
}

/// How large a swarm is (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    /// Peers that have everything.
    pub seeders: u32,
    /// Peers that do not.
    pub leechers: u32,
    /// How many have become complete.
    pub completed: u32,
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The operator names the torrents that there are.
    #[error("this tracker does not know the torrent: ask its operator to add it")]
    NotAllowed,
    /// It is not what BEP 3 or 15 say.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The connection id is not ours, or too old.
    #[error("connect again")]
    Stale,
}
