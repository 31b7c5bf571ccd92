//! The chunk table: for each chunk of a torrent one atomic word that says where its bytes are.
//!
//! ```text
//!          claim_empty            fill              publish
//!   Empty ------------> Filling -------> Filled ------------> Ready
//!     ^                  |   ^              |                  |  ^
//!     |            offer v   | claim_partial| reset      evict |  | finish_load
//!     |                 Partial <- reopen --+                  |  |
//!     +-------------------------------------+------------------+  |
//!     +-------- begin_load -----------------------> Loading ------+
//! ```
//!
//! Bits of a word: 0 to 2 state, 3 and 4 heat, 16 to 31 pins, 32 to 63 slot.

use super::sync::{AtomicU64, Ordering};
use crate::base::ids::SlotId;

/// Where a chunk's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// In no slot.
    Empty,
    /// One core reads it from disk.
    Loading,
    /// One core collects its blocks from peers.
    Filling,
    /// Some blocks are there; no core is collecting the rest.
    Partial,
    /// All blocks are there; the owner of the piece has yet to hash it.
    Filled,
    /// Verified bytes, to be served while pinned.
    Ready,
}

/// A word taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkView {
    /// See [`ChunkState`].
    pub state: ChunkState,
    /// The slot; meaningless when `Empty`.
    pub slot: SlotId,
    /// Sends and writes that hold the slot; only when `Ready`.
    pub pins: u16,
    /// How many came to read it, up to [`HEAT_MAX`]; each time eviction comes by it cools by one.
    pub heat: u8,
}

/// Where the heat of a chunk ends: so often the hand passes by a chunk that was popular.
pub const HEAT_MAX: u8 = 3;

const HEAT_SHIFT: u32 = 3;
const HEAT: u64 = 3 << HEAT_SHIFT;
const PIN: u64 = 1 << 16;
const PINS: u64 = 0xffff << 16;
const STATE: u64 = 7;

impl ChunkView {
    const EMPTY: Self = Self { state: ChunkState::Empty, slot: SlotId(0), pins: 0, heat: 0 };

    fn unpack(word: u64) -> Self {
        let state = match word & STATE {
            0 => ChunkState::Empty,
            1 => ChunkState::Loading,
            2 => ChunkState::Filling,
            3 => ChunkState::Partial,
            4 => ChunkState::Filled,
            _ => ChunkState::Ready,
        };
        let pins = ((word & PINS) >> 16) as u16;
        let heat = ((word & HEAT) >> HEAT_SHIFT) as u8;
        Self { state, slot: SlotId((word >> 32) as u32), pins, heat }
    }

    fn pack(self) -> u64 {
        let slot = u64::from(self.slot.0) << 32;
        slot | u64::from(self.pins) << 16 | u64::from(self.heat) << HEAT_SHIFT | self.state as u64
    }
}

/// One word per chunk of a torrent.
#[derive(Debug)]
pub struct ChunkTable {
    words: Box<[AtomicU64]>,
}

impl ChunkTable {
    /// `count` empty chunks.
    pub fn new(count: u32) -> Self {
        Self { words: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The chunk as it is now. An acquire: a `Ready` or `Filled` chunk's bytes may be read.
    pub fn view(&self, chunk: u32) -> ChunkView {
        ChunkView::unpack(self.words[chunk as usize].load(Ordering::Acquire))
    }

    /// Empty to Filling in `slot`. False if another core was faster; the slot stays the caller's.
    pub fn claim_empty(&self, chunk: u32, slot: SlotId) -> bool {
        self.leave_empty(chunk, slot, ChunkState::Filling)
    }

    /// Empty to Loading in `slot`. False if another core was faster; the slot stays the caller's.
    pub fn begin_load(&self, chunk: u32, slot: SlotId) -> bool {
        self.leave_empty(chunk, slot, ChunkState::Loading)
    }

    fn leave_empty(&self, chunk: u32, slot: SlotId, state: ChunkState) -> bool {
        let new = ChunkView { state, slot, ..ChunkView::EMPTY }.pack();
        let word = &self.words[chunk as usize];
        word.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Partial to Filling: the caller goes on where another core stopped. `None` if it is not Partial.
    pub fn claim_partial(&self, chunk: u32) -> Option<SlotId> {
        let view = self.view(chunk);
        (view.state == ChunkState::Partial
            && self.swap(chunk, view, ChunkView { state: ChunkState::Filling, ..view }))
        .then_some(view.slot)
    }

    /// Filling to Partial: whoever wants may collect the missing blocks.
    pub fn offer(&self, chunk: u32) {
        self.advance(chunk, ChunkState::Filling, ChunkState::Partial, 0);
    }

    /// Filling to Filled: all blocks are there.
    pub fn fill(&self, chunk: u32) {
        self.advance(chunk, ChunkState::Filling, ChunkState::Filled, 0);
    }

    /// Filled to Partial: some of its blocks are wrong, and whoever wants may collect them again.
    pub fn reopen(&self, chunk: u32) {
        self.advance(chunk, ChunkState::Filled, ChunkState::Partial, 0);
    }

    /// Filled to Ready: the piece is verified. `pins` are the caller's.
    pub fn publish(&self, chunk: u32, pins: u16) {
        self.advance(chunk, ChunkState::Filled, ChunkState::Ready, pins);
    }

    /// Loading to Ready. `pins` are the caller's.
    pub fn finish_load(&self, chunk: u32, pins: u16) {
        self.advance(chunk, ChunkState::Loading, ChunkState::Ready, pins);
    }

    /// Loading, Filling or Filled to Empty; the slot is the caller's again.
    pub fn reset(&self, chunk: u32) -> SlotId {
        let view = self.view(chunk);
        let owned = matches!(view.state, ChunkState::Loading | ChunkState::Filling | ChunkState::Filled);
        assert!(owned, "reset of a chunk that nobody owns: {view:?}");
        self.words[chunk as usize].store(0, Ordering::Release);
        view.slot
    }

    /// Pins a Ready chunk, so that its slot stays while a send or write reads it. `warm` says that
    /// another reader has come to it, not that one goes on.
    pub fn pin(&self, chunk: u32, warm: bool) -> Option<SlotId> {
        loop {
            let view = self.view(chunk);
            if view.state != ChunkState::Ready || view.pins == u16::MAX {
                return None;
            }
            let heat = (view.heat + u8::from(warm)).min(HEAT_MAX);
            if self.swap(chunk, view, ChunkView { pins: view.pins + 1, heat, ..view }) {
                return Some(view.slot);
            }
        }
    }

    /// Gives a pin back.
    pub fn unpin(&self, chunk: u32) {
        let before = self.words[chunk as usize].fetch_sub(PIN, Ordering::AcqRel);
        assert!(before & PINS != 0, "unpin without a pin: {:?}", ChunkView::unpack(before));
    }

    /// Ready to Empty if nothing holds it and it is not hotter than `limit`; a hotter one cools. The
    /// slot is the caller's.
    pub fn evict(&self, chunk: u32, limit: u8) -> Option<SlotId> {
        let view = self.view(chunk);
        if view.state != ChunkState::Ready || view.pins != 0 {
            return None;
        }
        if view.heat > limit {
            self.swap(chunk, view, ChunkView { heat: view.heat - 1, ..view });
            return None;
        }
        self.swap(chunk, view, ChunkView::EMPTY).then_some(view.slot)
    }

    fn advance(&self, chunk: u32, from: ChunkState, to: ChunkState, pins: u16) {
        let view = self.view(chunk);
        assert!(view.state == from, "chunk {chunk} is {view:?}, not {from:?}");
        // Only the owner leaves these states, so a plain store cannot lose another's change.
        let new = ChunkView { state: to, pins, ..view };
        self.words[chunk as usize].store(new.pack(), Ordering::Release);
    }

    fn swap(&self, chunk: u32, old: ChunkView, new: ChunkView) -> bool {
        let word = &self.words[chunk as usize];
        let new = if new.state == ChunkState::Empty { 0 } else { new.pack() };
        word.compare_exchange(old.pack(), new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_filled_handed_on_verified_pinned_and_evicted() {
        let table = ChunkTable::new(2);
        assert!(table.claim_empty(1, SlotId(7)) && !table.claim_empty(1, SlotId(8)));
        table.offer(1);
        assert_eq!(table.claim_partial(1), Some(SlotId(7)));
        assert_eq!(table.claim_partial(1), None);
        table.fill(1);
        assert_eq!(table.pin(1, true), None, "unverified bytes are never served");
        table.publish(1, 1);
        assert_eq!(table.evict(1, 1), None, "pinned by its write");
        assert_eq!(table.pin(1, true), Some(SlotId(7)));
        table.unpin(1);
        table.unpin(1);
        assert_eq!(table.evict(1, 0), None, "read: a second chance");
        assert_eq!(table.evict(1, 0), Some(SlotId(7)));
        assert_eq!(table.view(1).state, ChunkState::Empty);
        assert_eq!(table.view(0).state, ChunkState::Empty);
    }

    #[test]
    fn pins_stop_at_their_limit() {
        let table = ChunkTable::new(1);
        assert!(table.begin_load(0, SlotId(3)));
        table.finish_load(0, u16::MAX - 1);
        assert_eq!(table.pin(0, false), Some(SlotId(3)));
        assert_eq!(table.pin(0, false), None);
        table.unpin(0);
        assert_eq!(table.pin(0, false), Some(SlotId(3)));
    }

    #[test]
    fn each_reader_warms_a_chunk_to_a_limit_and_each_pass_of_the_hand_cools_it() {
        let table = ChunkTable::new(1);
        assert!(table.begin_load(0, SlotId(0)));
        table.finish_load(0, 0);
        for heat in [1, 2, HEAT_MAX, HEAT_MAX] {
            assert!(table.pin(0, true).is_some() && table.pin(0, false).is_some());
            (0..2).for_each(|_| table.unpin(0));
            assert_eq!(table.view(0).heat, heat);
        }
        for heat in (1..HEAT_MAX).rev() {
            assert_eq!(table.evict(0, 1), None);
            assert_eq!(table.view(0).heat, heat);
        }
        assert_eq!(table.evict(0, 1), Some(SlotId(0)));
    }
}
