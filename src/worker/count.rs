//! What the worker itself counts for the metrics, and what it shows to whoever asks; the engine counts what
//! is its own.

use super::Worker;
use super::mesh::{ToControl, Viewing};
use crate::base::ids::TorrentId;
use crate::base::time::Instant;
use crate::io::Io;

impl<I: Io> Worker<I> {
    /// The figures of the metrics that a turn ends with: a clock read and a few plain stores.
    pub(super) fn count_turn(&self, began: Instant) {
        let (io, counters) = (self.io.counters(), &self.counters);
        counters.turns.add(1);
        counters.turn_ns.record(self.io.now().since(began).0);
        counters.hashes_waiting.set(self.hashes.len() as u64);
        counters.chunks_writing.set(self.engine.chunks_writing().into());
        counters.owed_waiting_bytes.set(self.engine.owed_waiting_bytes());
        counters.ring_enters.set(io.enters);
        counters.ring_overflows.set(io.overflows);
        counters.completions.set(io.completions);
        counters.refused.set(io.refused);
        counters.accept_failures.set(io.accept_failures);
        counters.receives_starved.set(io.starved);
        counters.sends.set(io.sends);
        counters.zero_copy_sends.set(io.zero_copy_sends);
        counters.zero_copy_copied.set(io.zero_copy_copied);
    }

    /// Shows a bounded part of its connections.
    pub(super) fn show(&mut self, mut viewing: Viewing) {
        let next = self.engine.view_peers(viewing.from, &mut viewing.peers);
        self.links.control.send(ToControl::Viewed { core: self.core.0, viewing, next });
    }

    /// A chunk is in its files.
    pub(super) fn count_written(&self, torrent: TorrentId, chunk: u32) {
        if let Some(torrent) = self.engine.torrent(torrent) {
            let bytes = torrent.shared.meta.geometry.chunk_len(chunk);
            self.counters.written_bytes.add(bytes.into());
        }
    }
}
