//! A torrent of which only a magnet link is known: who is connected to for its metadata.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::mpsc::UnboundedSender;

use super::magnet::Said;
use crate::base::ids::InfoHash;
use crate::base::limits::METADATA_PEERS_MAX;
use crate::base::time::Instant;
use crate::engine::action::Farewell;
use crate::engine::metadata_fetch::{Fault, MetadataFetch, PeerNumber};

/// The metadata of a link that is being looked for.
///
/// Invariant: peers of `fetch` have a line.
#[derive(Debug)]
pub struct Seeking {
    /// Whom to ask for what.
    pub(super) fetch: MetadataFetch,
    /// Connections, those that are being made included; at most `METADATA_PEERS_MAX`.
    pub(super) lines: BTreeMap<PeerNumber, Line>,
    /// What was wrong with the peer that was parted from last.
    pub(super) fault: Option<Fault>,
    numbers: PeerNumber,
}

/// A connection, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    /// The other end.
    pub(super) address: SocketAddr,
    /// Pieces to ask it for.
    pub(super) requests: UnboundedSender<u32>,
}

impl Seeking {
    /// Nobody is known yet.
    pub fn new(wanted: InfoHash) -> Self {
        let fetch = MetadataFetch::new(wanted);
        Self { fetch, lines: BTreeMap::new(), numbers: 0, fault: None }
    }

    /// Peers that have metadata, by their own word.
    pub fn peers(&self) -> usize {
        self.fetch.peers()
    }

    /// When to look at it though nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.fetch.poll_timeout()
    }

    /// Whether one more peer may be dialled.
    pub fn has_room(&self) -> bool {
        !self.fetch.is_done() && self.lines.len() < METADATA_PEERS_MAX
    }

    /// What to add to an error that says that nothing was found.
    pub fn why(&self) -> String {
        self.fault.map(|fault| format!(" (the last peer {fault})")).unwrap_or_default()
    }

    /// Notes a connection that is begun, and numbers it.
    pub(super) fn begin(&mut self, line: Line) -> PeerNumber {
        self.numbers += 1;
        self.lines.insert(self.numbers, line);
        self.numbers
    }

    /// Notes what a peer said. Returns it if that was its last word, and why.
    pub(super) fn note(
        &mut self,
        number: PeerNumber,
        said: Said,
        now: Instant,
    ) -> Option<(SocketAddr, Farewell)> {
        let fetch = &mut self.fetch;
        match said {
            Said::Ready(total_bytes) => fetch.handle_ready(number, total_bytes, now),
            Said::Data { piece, total_bytes, bytes } => {
                fetch.handle_data(number, piece, (total_bytes, &bytes), now);
            }
            Said::Reject(piece) => fetch.handle_reject(number, piece, now),
            Said::Gone(why) => {
                fetch.handle_gone(number, now);
                return self.lines.remove(&number).map(|line| (line.address, why));
            }
        }
        None
    }
}

/// How long a peer is left alone after it was parted from.
pub(super) const fn farewell(fault: Fault) -> Farewell {
    match fault {
        // It may have some soon, or want to be asked again later.
        Fault::HasNone | Fault::Refused => Farewell::Gone,
        Fault::Silent => Farewell::TimedOut,
        Fault::Lied => Farewell::Misbehaved,
    }
}
