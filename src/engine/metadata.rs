//! The info dictionary for whoever has only a magnet link (BEP 9), of private torrents too: who asks was
//! named by a tracker like everybody else.
//!
//! A request is only queued. Each send carries one piece, so that what waits in memory for a peer that does
//! not read is 16 KiB and a few numbers. Who asks for more than a copy or two is told no for a while, and so
//! is a group of strangers that had many; what is sent counts in the upload limits (`answers.rs`).

use std::collections::VecDeque;

use super::session::{PeerMisbehaved, idle};
use super::*;
use crate::base::limits::{
    METADATA_COPIES_MAX, METADATA_COPIES_SPAN, METADATA_REJECTS_WAITING_MAX, METADATA_REQUESTS_QUEUED_MAX,
};
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, piece_range};

/// What one peer asks of the metadata.
#[derive(Debug, Default)]
pub struct MetadataAsks {
    /// Under which it wants answers; 0 while it wants none.
    id: u8,
    /// Pieces that it waits for; at most `METADATA_REQUESTS_QUEUED_MAX`, each of which exists.
    waiting: VecDeque<u32>,
    /// Rejects since the last send.
    rejects: u32,
    /// Bytes granted since then.
    granted_bytes: u64,
    since: Instant,
}

impl MetadataAsks {
    /// The peer announced its id for answers, or that it wants none.
    pub(super) fn set_id(&mut self, id: Option<u8>) {
        self.id = id.unwrap_or(0);
        if self.id == 0 {
            self.waiting.clear();
        }
    }

    /// Whether a send is to carry a piece.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a request for a piece of `bytes` of `total_bytes`, if there is room and neither it nor its
    /// group, which is asked last, had too many.
    fn grant(
        &mut self,
        piece: u32,
        (bytes, total_bytes): (usize, usize),
        group_grants: impl FnOnce() -> bool,
        now: Instant,
    ) -> bool {
        if now.since(self.since) >= METADATA_COPIES_SPAN {
            (self.granted_bytes, self.since) = (0, now);
        }
        let granted_bytes = self.granted_bytes + bytes as u64;
        let fits = granted_bytes <= METADATA_COPIES_MAX * total_bytes as u64;
        if !fits || self.waiting.len() >= METADATA_REQUESTS_QUEUED_MAX || !group_grants() {
            return false;
        }
        self.granted_bytes = granted_bytes;
        self.waiting.push_back(piece);
        true
    }

    /// A send begins, which carries all rejects.
    pub(super) fn note_send(&mut self) {
        self.rejects = 0;
    }

    /// Bytes of the next piece, if the peer waits for one.
    pub(super) fn next_bytes(&self, info: &[u8]) -> Option<u32> {
        let range = self.waiting.front().and_then(|&piece| piece_range(piece, info.len() as u32));
        range.map(|range| range.len() as u32)
    }

    /// Forgets what waits: how many bytes that is.
    pub(super) fn forget(&mut self, info: &[u8]) -> u64 {
        let pieces = self.waiting.drain(..);
        pieces.filter_map(|piece| piece_range(piece, info.len() as u32)).map(|range| range.len() as u64).sum()
    }

    /// Appends the next piece, if the peer waits for one, to `frames`.
    pub(super) fn answer(&mut self, info: &[u8], frames: &mut Vec<u8>) {
        let Some(piece) = self.waiting.pop_front() else { return };
        let total_bytes = info.len() as u32;
        let Some(bytes) = piece_range(piece, total_bytes).and_then(|range| info.get(range)) else { return };
        queue(self.id, MetadataMessage::Data { piece, total_bytes, bytes }, frames);
    }
}

impl Engine {
    /// A message of the extension came. We ask nobody here: only requests mean something.
    pub(super) fn asked_for_metadata(
        &mut self,
        conn: ConnId,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        let (info_bytes, id, address) = (torrent.shared.meta.info.len(), torrent.id(), peer.address);
        let asks = &mut peer.metadata;
        if asks.id == 0 || info_bytes == 0 {
            // It has not said where answers are to go, or we have not said that there are any.
            return idle(peer);
        }
        let message = MetadataMessage::parse(payload).map_err(|_| PeerMisbehaved::BadExtension)?;
        let Some(MetadataMessage::Request(piece)) = message else { return idle(peer) };
        let range = piece_range(piece, info_bytes as u32);
        let granted = range.is_some_and(|range| {
            let sizes = (range.len(), info_bytes);
            let group = || self.rations.take_metadata(&self.config, (address, id), sizes, now);
            asks.grant(piece, sizes, group, now)
        });
        if !granted {
            if asks.rejects >= METADATA_REJECTS_WAITING_MAX {
                return Err(PeerMisbehaved::ReadsNothing);
            }
            asks.rejects += 1;
            queue(asks.id, MetadataMessage::Reject(piece), &mut peer.out.frames);
            idle(peer)?;
        }
        self.make_ready(conn);
        Ok(())
    }
}

fn queue(id: u8, message: MetadataMessage<'_>, frames: &mut Vec<u8>) {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    Message::Extended { id, payload: &payload }.encode(frames);
}
