//! Announces and their replies as bytes: HTTP (BEP 3, 7, 23) and UDP (BEP 15). Pure: the caller
//! passes transaction ids and does the sending.

pub mod compact;
pub mod http;
pub mod scrape;
pub mod serve;
pub mod udp;
pub mod url;

use std::net::{Ipv6Addr, SocketAddr};

use crate::base::ids::{InfoHash, PeerId};
use crate::base::limits::{TRACKER_PEERS_MAX, TRACKER_TEXT_BYTES_MAX};
use crate::base::time::Span;
use crate::proto::text;

/// Why an announce is sent (BEP 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// The interval has passed.
    #[default]
    None,
    /// The first announce to this tracker.
    Started,
    /// The last missing piece has arrived; never sent by a node that began complete.
    Completed,
    /// We leave.
    Stopped,
    /// The interval has passed, and nothing more is wanted of a torrent that is incomplete here (BEP 21).
    Paused,
}

/// What a node tells a tracker of one torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who we are.
    pub peer_id: PeerId,
    /// Where we accept peers; 0 if nowhere.
    pub port: u16,
    /// Payload bytes sent since `Started`.
    pub uploaded_bytes: u64,
    /// Payload bytes received since `Started`.
    pub downloaded_bytes: u64,
    /// Payload bytes still missing.
    pub left_bytes: u64,
    /// See [`AnnounceEvent`].
    pub event: AnnounceEvent,
    /// Peers wanted; `None` leaves it to the tracker. Zero is right with `Stopped`.
    pub peers_wanted: Option<u32>,
    /// Random word by which the tracker knows us again when our address changes.
    pub key: u32,
    /// Our address in the other family, for trackers reached by IPv4 (BEP 7).
    pub ipv6: Option<Ipv6Addr>,
}

/// What a tracker answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// When the tracker wants the next announce; unclamped, zero if it named none or a negative one.
    pub interval: Span,
    /// Announces sooner than this are unwelcome.
    pub min_interval: Option<Span>,
    /// At most [`TRACKER_PEERS_MAX`], each once, all of them addresses that a host can have.
    pub peers: Vec<SocketAddr>,
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
    /// A complaint that did not stop the tracker from answering; escaped and capped.
    pub warning: Option<String>,
}

/// Why a reply is no list of peers. The tracker's fault, all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The tracker refuses, in its own words: escaped and capped.
    #[error("the tracker refuses: {0}")]
    Refused(String),
    /// Not the format.
    #[error("the reply is not a tracker's: {0}")]
    Malformed(&'static str),
}

/// `text` of a tracker as one printable line of at most [`TRACKER_TEXT_BYTES_MAX`] bytes (threats N8).
pub fn safe_text(text: &[u8]) -> String {
    text::escape(text, TRACKER_TEXT_BYTES_MAX)
}

/// Seconds as a tracker writes them: negative is zero, absurd is capped far above every clamp.
fn seconds(n: i64) -> Span {
    Span::from_secs(n.clamp(0, i64::from(u32::MAX)).unsigned_abs())
}

/// Collects peers: drops what no host can have, port 0 and repetitions, stops at the cap.
#[derive(Debug, Default)]
struct PeerList {
    peers: Vec<SocketAddr>,
    seen: std::collections::HashSet<SocketAddr>,
}

impl PeerList {
    fn is_full(&self) -> bool {
        self.peers.len() >= TRACKER_PEERS_MAX
    }

    fn push(&mut self, address: SocketAddr) {
        if let Some(address) = compact::usable(address)
            && !self.is_full()
            && self.seen.insert(address)
        {
            self.peers.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n8_texts_are_escaped_and_capped() {
        assert_eq!(safe_text(b"plain 'text'"), "plain 'text'");
        assert_eq!(safe_text(b"\x1b[31mred\r\n\xff"), "\\u{1b}[31mred\\r\\n\u{fffd}");
        for len in [TRACKER_TEXT_BYTES_MAX - 1, TRACKER_TEXT_BYTES_MAX, TRACKER_TEXT_BYTES_MAX + 1, 1 << 20] {
            assert_eq!(safe_text(&vec![b'x'; len]).len(), len.min(TRACKER_TEXT_BYTES_MAX));
            assert!(safe_text(&vec![0x1b; len]).len() <= TRACKER_TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn n7_seconds_are_never_negative_and_never_overflow() {
        for (given, expected) in
            [(0, 0), (-1, 0), (i64::MIN, 0), (1800, 1800), (i64::MAX, u64::from(u32::MAX))]
        {
            assert_eq!(seconds(given), Span::from_secs(expected));
        }
    }

    #[test]
    fn n6_peer_list_filters_and_caps() {
        let mut list = PeerList::default();
        for text in ["1.2.3.4:0", "0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1", "[ff02::1]:1"] {
            list.push(text.parse().unwrap());
        }
        assert!(list.peers.is_empty());
        list.push("1.2.3.4:5".parse().unwrap());
        list.push("[::ffff:1.2.3.4]:5".parse().unwrap());
        assert_eq!(list.peers, ["1.2.3.4:5".parse().unwrap()]);
        for count in [TRACKER_PEERS_MAX - 1, TRACKER_PEERS_MAX, TRACKER_PEERS_MAX + 1] {
            let mut list = PeerList::default();
            (0..count).for_each(|n| list.push(SocketAddr::from(([1, 2, (n >> 8) as u8, n as u8], 1))));
            assert_eq!(list.peers.len(), count.min(TRACKER_PEERS_MAX));
        }
    }
}
