//! What one peer may cost the others: the slots that its sends pin, the disk reads that its requests
//! cause, and the time that its messages take.
//!
//! - A send holds the slots of its blocks until the peer has read it. A peer that reads a few bytes
//!   now and then would hold them for ever, so one that drains less than `DRAIN_BYTES_MIN` in
//!   `DRAIN_WINDOW` is parted from, but only while somebody waits for a slot: a slow link is no
//!   offence where there is room. The floor is 273 bytes a second. The kernel tells of progress when
//!   a third of its send buffer is free, for slow connections 15 to 30 KB, so that a link of 1 KiB/s
//!   shows as two steps of that in a window and keeps well above it.
//! - Requests for blocks that lie far apart would have one send pin as many slots as it has blocks, and a
//!   few peers that never read would pin them all for a minute. All sends together are to leave half
//!   of the slots alone: each pins at most its connection's share of the other half.
//! - A request for one byte of a chunk that is not in memory reads all of it (threats P14, P15). A
//!   peer starts with `COLD_READ_GRANT_BYTES`, earns `COLD_READ_PER_SENT` times what it is sent, and
//!   `COLD_READ_BYTES_PER_SEC` besides. Who reads chunks from end to end never notices; who jumps
//!   about is read for at that rate, and his requests wait, as for a slot.
//! - A request or a cancel costs about as much time as some KiB of payload, however little it brings
//!   (threats P14, P16). Each takes `ASK_COST_BYTES` off a credit that payload sent to the peer fills
//!   up again. Once it is used up nothing more is received from the peer until it has grown: requests
//!   for whole blocks pay for themselves, a storm fills its own pipe and nobody's core.

use super::*;
use crate::base::limits::{
    ASK_BYTES_PER_SEC, ASK_COST_BYTES, ASK_GRANT_BYTES, COLD_READ_BYTES_PER_SEC, COLD_READ_GRANT_BYTES,
    COLD_READ_PER_SENT, DRAIN_BYTES_MIN, DRAIN_WINDOW, SEND_SLOTS_MIN, SEND_SLOTS_PART,
};
use crate::base::time::Span;

/// How fast a peer reads what is sent to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// Time with slots pinned for it, in this window.
    held: Span,
    /// Payload that left for it, in this window.
    bytes: u64,
    /// It drained too little in the last window.
    slow: bool,
}

impl Drain {
    /// Payload left for the peer.
    pub const fn note_sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// `span` has passed; `holds`: slots are pinned for it.
    pub const fn roll(&mut self, span: Span, holds: bool) {
        if !holds {
            return;
        }
        self.held = Span(self.held.0 + span.0);
        if self.held.0 >= DRAIN_WINDOW.0 {
            *self = Self { held: Span(0), bytes: 0, slow: self.bytes < DRAIN_BYTES_MIN };
        }
    }
}

/// How much may be read from disk for a peer. Invariant: at most the grant.
#[derive(Clone, Copy, Debug)]
pub struct ColdReads {
    credit_bytes: u64,
}

impl Default for ColdReads {
    fn default() -> Self {
        Self { credit_bytes: COLD_READ_GRANT_BYTES }
    }
}

impl ColdReads {
    /// Payload left for the peer.
    pub const fn note_sent(&mut self, bytes: u64) {
        self.earn(bytes.saturating_mul(COLD_READ_PER_SENT));
    }

    /// `span` has passed.
    pub fn roll(&mut self, span: Span) {
        self.earn((u128::from(span.0) * u128::from(COLD_READ_BYTES_PER_SEC) / 1_000_000_000) as u64);
    }

    /// Takes a read of `bytes` off the credit; false if it does not suffice.
    const fn spend(&mut self, bytes: u64) -> bool {
        let enough = bytes <= self.credit_bytes;
        if enough {
            self.credit_bytes -= bytes;
        }
        enough
    }

    const fn earn(&mut self, bytes: u64) {
        let sum = self.credit_bytes.saturating_add(bytes);
        self.credit_bytes = if sum > COLD_READ_GRANT_BYTES { COLD_READ_GRANT_BYTES } else { sum };
    }
}

/// How much more a peer may ask for and take back. Invariant: at most the grant.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    credit_bytes: u64,
    /// The worker left the connection alone, and is to be told when to receive again.
    muted: bool,
}

impl Default for Asks {
    fn default() -> Self {
        Self { credit_bytes: ASK_GRANT_BYTES, muted: false }
    }
}

impl Asks {
    /// A request or a cancel came. What one receive brings beyond the credit is handled and free.
    pub const fn note_message(&mut self) {
        self.credit_bytes = self.credit_bytes.saturating_sub(ASK_COST_BYTES);
    }

    /// It was answered otherwise than by payload, which no limit of payload holds.
    pub const fn note_answer(&mut self, bytes: u64) {
        self.credit_bytes = self.credit_bytes.saturating_sub(bytes);
    }

    /// Payload left for the peer, or it was not answered after all.
    pub const fn earn(&mut self, bytes: u64) {
        let sum = self.credit_bytes.saturating_add(bytes);
        self.credit_bytes = if sum > ASK_GRANT_BYTES { ASK_GRANT_BYTES } else { sum };
    }

    /// `span` has passed.
    pub fn roll(&mut self, span: Span) {
        self.earn((u128::from(span.0) * u128::from(ASK_BYTES_PER_SEC) / 1_000_000_000) as u64);
    }

    /// What it may ask for still.
    #[cfg(test)]
    pub const fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Whether one more may come.
    const fn is_left(&self) -> bool {
        self.credit_bytes >= ASK_COST_BYTES
    }
}

/// Whether anybody, on any core, lately waited for a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    refusals_seen: u32,
    high: bool,
}

impl Pressure {
    /// Looks again; `refusals` is the cache's count of them.
    pub const fn roll(&mut self, refusals: u32) {
        self.high = refusals != self.refusals_seen;
        self.refusals_seen = refusals;
    }
}

impl Engine {
    /// Whether the peer holds slots that others wait for, and hardly reads.
    pub(super) fn hoards(&self, peer: &Peer) -> bool {
        self.pressure.high && peer.drain.slow && peer.out.holds_slots()
    }

    /// Slots that one send may pin; it is looked at before each block.
    pub(super) fn send_slots_max(&self) -> usize {
        let senders = self.peers.len().max(1) * self.config.cores;
        (self.cache.present_count() as usize / SEND_SLOTS_PART / senders).max(SEND_SLOTS_MIN)
    }

    /// Whether more is to be received from a connection now. If not, `Action::Listen` says when.
    pub fn listens(&mut self, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get_mut(conn) else { return true };
        peer.asks.muted = !peer.asks.is_left();
        !peer.asks.muted
    }

    /// Has the worker receive again, if the peer may say more now.
    pub(super) fn hear_again(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn)
            && peer.asks.muted
            && peer.asks.is_left()
        {
            peer.asks.muted = false;
            self.actions.push_back(Action::Listen(conn));
        }
    }

    /// Starts to read a chunk for a peer, unless another core was faster; false if no slot is free or
    /// the peer has used up what may be read for it.
    pub(super) fn load_for(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        let bytes = torrent.shared.meta.geometry.chunk_len(chunk).into();
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        if !peer.cold_reads.spend(bytes) {
            return false;
        }
        let begun = self.load(id, chunk);
        if !begun && let Some(peer) = self.peers.get_mut(conn) {
            peer.cold_reads.earn(bytes);
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Span = Span::from_secs(1);

    #[test]
    fn p35_so_much_is_to_be_drained_in_a_window_and_no_more() {
        let seconds = DRAIN_WINDOW.0 / SECOND.0;
        for (bytes, slow) in
            [(DRAIN_BYTES_MIN - 1, true), (DRAIN_BYTES_MIN, false), (DRAIN_BYTES_MIN + 1, false)]
        {
            let mut drain = Drain::default();
            drain.note_sent(bytes);
            (1..seconds).for_each(|_| drain.roll(SECOND, true));
            assert!(!drain.slow, "not before the end of the window");
            // Time without slots does not count.
            (0..3 * seconds).for_each(|_| drain.roll(SECOND, false));
            assert!(!drain.slow);
            drain.roll(SECOND, true);
            assert_eq!(drain.slow, slow, "{bytes} bytes");
        }
    }

    #[test]
    fn p35_a_link_of_one_kib_a_second_is_fast_enough_however_coarse_its_progress_shows() {
        let (mut drain, mut sent) = (Drain::default(), 0);
        for second in 1..=3_600u64 {
            // Steps of 30 KB, as the kernel tells of them.
            let steps = second * 1024 / 30_000 * 30_000;
            drain.note_sent(steps - sent);
            sent = steps;
            drain.roll(SECOND, true);
            assert!(!drain.slow, "second {second}");
        }
    }

    #[test]
    fn p16_so_many_requests_and_cancels_are_taken_until_something_is_sent() {
        let most = ASK_GRANT_BYTES / ASK_COST_BYTES;
        for (messages, left) in [(most - 1, true), (most, false), (most + 1, false)] {
            let mut asks = Asks::default();
            (0..messages).for_each(|_| asks.note_message());
            assert_eq!(asks.is_left(), left, "{messages}");
        }
        let mut asks = Asks::default();
        (0..2 * most).for_each(|_| asks.note_message());
        asks.earn(ASK_COST_BYTES - 1);
        assert!(!asks.is_left());
        asks.earn(1);
        assert!(asks.is_left());
        asks.note_message();
        asks.roll(SECOND);
        (1..ASK_BYTES_PER_SEC / ASK_COST_BYTES).for_each(|_| asks.note_message());
        assert!(asks.is_left());
        asks.note_message();
        assert!(!asks.is_left());
        asks.earn(u64::MAX);
        assert_eq!(asks.credit_bytes, ASK_GRANT_BYTES, "it is not saved up");
    }

    #[test]
    fn p15_a_credit_of_so_much_and_no_more_may_be_read() {
        for (ask, granted) in [
            (COLD_READ_GRANT_BYTES - 1, true),
            (COLD_READ_GRANT_BYTES, true),
            (COLD_READ_GRANT_BYTES + 1, false),
        ] {
            assert_eq!(ColdReads::default().spend(ask), granted, "{ask}");
        }
        let mut reads = ColdReads::default();
        assert!(reads.spend(COLD_READ_GRANT_BYTES) && !reads.spend(1));
        reads.note_sent(1);
        assert!(reads.spend(COLD_READ_PER_SENT) && !reads.spend(1));
        reads.roll(SECOND);
        assert!(reads.spend(COLD_READ_BYTES_PER_SEC) && !reads.spend(1));
        reads.note_sent(u64::MAX);
        assert!(!reads.spend(COLD_READ_GRANT_BYTES + 1), "it is not saved up");
    }
}
