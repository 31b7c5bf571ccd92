//! Which slot holds which chunk, which slots are free, and which chunk leaves when none is.
//!
//! Free slots form a stack, so that the memory used last is used next, while the processor still
//! has it in its caches, and memory never used is never touched.
//!
//! Eviction is a clock with heat: a hand goes round the slots and takes the first Ready chunk that is
//! unpinned and that at most one reader has come to; hotter ones cool by one as it passes. So a sweep
//! of one reader through everything leaves after one round what it brought, and what several read
//! stays, though it rests for a round or two.
//!
//! Slots belong to regions. Only those below a limit are handed out; `retirer.rs` moves it by whole
//! regions, collects what lies beyond and gives the memory back. A slot is always in one place: the free
//! stack, the parked stack, the hands of whoever allocated it, a chunk word, or the retirer. So a core that
//! sees the limit late delays a region, but can never use one that is gone.

use std::ops::Range;

use super::chunks::{ChunkState, ChunkTable, HEAT_MAX};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::base::ids::{CoreId, SlotId, TorrentId};
use crate::base::units::BLOCKS_PER_CHUNK;

/// No slot: the end of the free stack.
const NIL: u32 = u32::MAX;

/// Slots that an allocation looks at before it takes untouched memory instead.
const QUICK_STEPS: u32 = 1024;

/// Heat of a chunk that leaves when there is no other memory: one reader has come to it.
const HEAT_KEPT_ABOVE: u8 = 1;

/// Whether memory that was never touched is taken early or late. Its first touch costs more than a
/// send of its bytes, but a chunk that leaves may have to be read from disk again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Before any chunk leaves.
    Early,
    /// Only when a few slots have been looked at for a chunk that nobody ever read.
    Late,
}

/// What is known about one slot beside its bytes.
#[derive(Debug)]
pub struct SlotInfo {
    /// Torrent and chunk that live here, or lived here last; what the hand follows.
    home: AtomicU64,
    /// Cores whose peers wait for the load of this slot to end. Only the end of a load clears it:
    /// a bit left by a core that came too late costs one note that says nothing.
    waiters: AtomicU64,
    /// Blocks received so far, one bit each. Written only by the core that fills the slot.
    got: AtomicU32,
    /// Who gave each block. Written only by the core that fills the slot.
    blames: [AtomicU64; BLOCKS_PER_CHUNK as usize],
    accounts: [AtomicU64; BLOCKS_PER_CHUNK as usize],
    /// Next slot in the free stack.
    next: AtomicU32,
}

/// Who gave a block: secret hashes, zero for nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Giver {
    /// Who is banned if it is bad: an address.
    pub blame: u64,
    /// Whose account is credited if it is good: an address's, or a key's.
    pub account: u64,
}

/// The slots of the arena, shared by all cores and torrents.
#[derive(Debug)]
pub struct Cache {
    slots: Box<[SlotInfo]>,
    /// Slots of one region: they leave and come back together.
    region_slots: u32,
    /// Slots from here on are not handed out. Only the retirer moves it.
    limit: AtomicU32,
    /// Slots of which a half may be promised to pieces: the limit, or what it is to become.
    promisable: AtomicU32,
    /// Slots beyond the limit that came free, as a stack: anybody adds, the retirer takes all.
    parked: AtomicU32,
    /// Top of the free stack: index in the low half, a count of pops in the high half (ABA).
    free: AtomicU64,
    /// Slots below this were used at least once.
    touched: AtomicU32,
    hand: AtomicU32,
    /// Slots that begun pieces may come to need.
    reserved: AtomicU32,
    /// Chunks that left to make room.
    evictions: AtomicU64,
    /// How often no slot was to be had; wraps.
    refusals: AtomicU32,
}

impl Cache {
    /// `count` slots that nothing has touched, in one region.
    pub fn new(count: u32) -> Self {
        Self::with_regions(count, count)
    }

    /// `count` slots that nothing has touched, in regions of `region_slots`; the last may be shorter.
    pub fn with_regions(count: u32, region_slots: u32) -> Self {
        assert!(count > 0 && count < NIL && region_slots > 0);
        let slot = |_| SlotInfo {
            home: AtomicU64::new(u64::MAX),
            waiters: AtomicU64::new(0),
            got: AtomicU32::new(0),
            blames: std::array::from_fn(|_| AtomicU64::new(0)),
            accounts: std::array::from_fn(|_| AtomicU64::new(0)),
            next: AtomicU32::new(NIL),
        };
        Self {
            slots: (0..count).map(slot).collect(),
            region_slots,
            limit: AtomicU32::new(count),
            promisable: AtomicU32::new(count),
            parked: AtomicU32::new(NIL),
            free: AtomicU64::new(u64::from(NIL)),
            touched: AtomicU32::new(0),
            hand: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            evictions: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
        }
    }

    /// Number of slots, those of regions that are gone included.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Number of slots that may be handed out now.
    pub fn present_count(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Number of regions, those that are gone included.
    pub fn region_count(&self) -> u32 {
        self.slot_count().div_ceil(self.region_slots)
    }

    /// The slots of a region.
    pub fn region(&self, region: u32) -> Range<u32> {
        let start = region * self.region_slots;
        start..(start + self.region_slots).min(self.slot_count())
    }

    /// The region of a slot.
    pub(super) const fn region_of(&self, slot: SlotId) -> u32 {
        slot.0 / self.region_slots
    }

    /// Whether a slot that is in use is to become free soon: its region leaves.
    pub fn is_leaving(&self, slot: SlotId) -> bool {
        slot.0 >= self.present_count()
    }

    /// How many slots were ever used: what the arena costs in memory.
    pub fn touched_count(&self) -> u32 {
        self.touched.load(Ordering::Relaxed).min(self.slot_count())
    }

    /// How many chunks have left to make room for others.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// How many slots lie in the free stack. Exact while no other core allocates or releases.
    pub fn free_count(&self) -> u32 {
        let (mut at, mut count) = (self.free.load(Ordering::Acquire) as u32, 0);
        while at != NIL && count <= self.slot_count() {
            at = self.slots[at as usize].next.load(Ordering::Relaxed);
            count += 1;
        }
        count
    }

    /// A slot for a chunk of a torrent. `table_of` finds the chunk tables of this core's torrents.
    /// `None` when every slot is in use: back-pressure.
    pub fn allocate<'a>(
        &self,
        (torrent, chunk): (TorrentId, u32),
        growth: Growth,
        table_of: impl Fn(TorrentId) -> Option<&'a ChunkTable>,
    ) -> Option<SlotId> {
        let all = self.slot_count().saturating_mul(u32::from(HEAT_MAX));
        let unread = || self.sweep(QUICK_STEPS, 0, &table_of);
        let slot = self
            .pop_free()
            .or_else(|| if growth == Growth::Late { unread() } else { None })
            .or_else(|| self.take_untouched())
            .or_else(|| self.sweep(all, HEAT_KEPT_ABOVE, &table_of));
        let Some(slot) = slot else {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let info = &self.slots[slot.0 as usize];
        info.got.store(0, Ordering::Relaxed);
        info.home.store(u64::from(torrent.0) << 32 | u64::from(chunk), Ordering::Release);
        Some(slot)
    }

    /// How often `allocate` found nothing, on any core; wraps. Whoever sees it grow knows that others
    /// wait for slots.
    pub fn refusals(&self) -> u32 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Gives back a slot that no chunk word names any more.
    pub fn release(&self, slot: SlotId) {
        if self.is_leaving(slot) {
            return self.park(slot);
        }
        let mut top = self.free.load(Ordering::Acquire);
        loop {
            self.slots[slot.0 as usize].next.store(top as u32, Ordering::Relaxed);
            let new = top & !u64::from(u32::MAX) | u64::from(slot.0);
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Sets `slots` aside for a piece that is to be begun. A piece cannot be hashed before all of its
    /// chunks are there, so pieces that were begun without room for all of them could block one
    /// another for ever: at most half of the slots are promised, or one piece if it is larger.
    pub fn reserve(&self, slots: u32) -> bool {
        let half = self.promised_max();
        let mut reserved = self.reserved.load(Ordering::Relaxed);
        while reserved == 0 || reserved + slots <= half {
            let new = reserved + slots;
            match self.reserved.compare_exchange_weak(reserved, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => reserved = now,
            }
        }
        false
    }

    /// Slots that are promised to begun pieces at most.
    pub fn promised_max(&self) -> u32 {
        self.promisable.load(Ordering::Relaxed) / 2
    }

    /// Whether so much is promised that new pieces may have to wait for begun ones.
    pub fn is_tight(&self) -> bool {
        self.reserved.load(Ordering::Relaxed) >= self.promisable.load(Ordering::Relaxed) / 4
    }

    /// Sets slots aside for a piece that is there already.
    pub fn reserve_anyway(&self, slots: u32) {
        self.reserved.fetch_add(slots, Ordering::Relaxed);
    }

    /// The piece is verified, or given up.
    pub fn unreserve(&self, slots: u32) {
        let before = self.reserved.fetch_sub(slots, Ordering::Relaxed);
        assert!(before >= slots, "{slots} slots of {before} reserved");
    }

    /// Leaves a slot beyond the limit to the retirer.
    fn park(&self, slot: SlotId) {
        let mut top = self.parked.load(Ordering::Relaxed);
        loop {
            self.slots[slot.0 as usize].next.store(top, Ordering::Relaxed);
            match self.parked.compare_exchange_weak(top, slot.0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    fn pop_free(&self) -> Option<SlotId> {
        loop {
            let slot = self.pop_any()?;
            if !self.is_leaving(slot) {
                return Some(slot);
            }
            self.park(slot);
        }
    }

    fn pop_any(&self) -> Option<SlotId> {
        let mut top = self.free.load(Ordering::Acquire);
        loop {
            let index = top as u32;
            if index == NIL {
                return None;
            }
            let next = self.slots[index as usize].next.load(Ordering::Relaxed);
            let new = ((top >> 32).wrapping_add(1) << 32) | u64::from(next);
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(SlotId(index)),
                Err(now) => top = now,
            }
        }
    }

    fn take_untouched(&self) -> Option<SlotId> {
        if self.touched.load(Ordering::Relaxed) >= self.present_count() {
            return None;
        }
        // May overshoot when cores race for the last slot; `touched_count` clamps. Who comes after the
        // retirer's look at `touched` sees its limit (`touched_in`).
        let slot = SlotId(self.touched.fetch_add(1, Ordering::AcqRel));
        if slot.0 >= self.slot_count() {
            return None;
        }
        if self.is_leaving(slot) {
            self.park(slot);
            return None;
        }
        Some(slot)
    }

    /// Moves the hand by up to `steps` touched slots; takes the first chunk that is not hotter than
    /// `limit`.
    fn sweep<'a>(
        &self,
        steps: u32,
        limit: u8,
        table_of: &impl Fn(TorrentId) -> Option<&'a ChunkTable>,
    ) -> Option<SlotId> {
        let touched = self.touched_count().min(self.present_count());
        for _ in 0..steps.min(touched.saturating_mul(u32::from(HEAT_MAX))) {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % touched;
            let Some(slot) = self.evict_from(SlotId(at), limit, table_of) else { continue };
            self.evictions.fetch_add(1, Ordering::Relaxed);
            if !self.is_leaving(slot) {
                return Some(slot);
            }
            self.park(slot);
        }
        None
    }

    /// Evicts the chunk that lives in a slot if it is not hotter than `limit`.
    fn evict_from<'a>(
        &self,
        slot: SlotId,
        limit: u8,
        table_of: &impl Fn(TorrentId) -> Option<&'a ChunkTable>,
    ) -> Option<SlotId> {
        let home = self.slots[slot.0 as usize].home.load(Ordering::Acquire);
        let table = table_of(TorrentId((home >> 32) as u32))?;
        let chunk = home as u32;
        // The word may have moved to another slot since; evict only what lives here.
        (table.view(chunk).slot == slot).then(|| table.evict(chunk, limit)).flatten()
    }

    // ---- For the retirer, of which there is one ----

    /// Moves the limit, to the end of a region.
    pub(super) fn set_limit(&self, regions: u32) {
        let slots = regions.saturating_mul(self.region_slots).min(self.slot_count());
        self.limit.store(slots, Ordering::Release);
    }

    /// Says of how many regions pieces may be promised a half.
    pub(super) fn set_promisable(&self, regions: u32) {
        let slots = regions.saturating_mul(self.region_slots).min(self.slot_count());
        self.promisable.store(slots, Ordering::Relaxed);
    }

    /// Regions that hold what is promised to begun pieces.
    pub(super) fn reserved_regions(&self) -> u32 {
        self.reserved.load(Ordering::Relaxed).div_ceil(self.region_slots)
    }

    /// How many slots of a region were ever used. Of a region beyond the limit the others stay untouched:
    /// whoever counts `touched` up after this sees the limit that was set before it.
    pub(super) fn touched_in(&self, region: u32) -> u32 {
        let Range { start, end } = self.region(region);
        self.touched.fetch_add(0, Ordering::AcqRel).clamp(start, end) - start
    }

    /// Takes all slots that were parked.
    pub(super) fn take_parked(&self) -> Vec<SlotId> {
        if self.parked.load(Ordering::Relaxed) == NIL {
            return Vec::new();
        }
        self.unlink(self.parked.swap(NIL, Ordering::Acquire))
    }

    /// Takes all free slots, the top of the stack first.
    pub(super) fn take_free(&self) -> Vec<SlotId> {
        let mut top = self.free.load(Ordering::Acquire);
        while top as u32 != NIL {
            let new = ((top >> 32).wrapping_add(1) << 32) | u64::from(NIL);
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.unlink(top as u32),
                Err(now) => top = now,
            }
        }
        Vec::new()
    }

    /// The slots of a stack that nobody else can reach.
    fn unlink(&self, mut at: u32) -> Vec<SlotId> {
        let mut slots = Vec::new();
        while at != NIL {
            slots.push(SlotId(at));
            at = self.slots[at as usize].next.load(Ordering::Relaxed);
        }
        slots
    }

    /// Empties the slots of a region whose chunks nothing uses, however hot.
    pub(super) fn evict_region<'a>(
        &self,
        region: u32,
        table_of: &impl Fn(TorrentId) -> Option<&'a ChunkTable>,
    ) -> Vec<SlotId> {
        let slots = self.region(region).map(SlotId);
        slots.filter_map(|slot| self.evict_from(slot, HEAT_MAX, table_of)).collect()
    }

    /// Asks to be told when the load of `chunk` ends. False if it is not being loaded, or that load
    /// has ended meanwhile: look at the chunk again.
    pub fn wait_for_load(&self, table: &ChunkTable, chunk: u32, core: CoreId) -> bool {
        let before = table.view(chunk);
        if before.state != ChunkState::Loading {
            return false;
        }
        let (waiters, bit) = (&self.slots[before.slot.0 as usize].waiters, 1 << core.0);
        waiters.fetch_or(bit, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let after = table.view(chunk);
        // The load seen now may be a later one, in another slot, or in the same after one whose end
        // took the bit.
        after.state == ChunkState::Loading
            && after.slot == before.slot
            && waiters.load(Ordering::SeqCst) & bit != 0
    }

    /// Loading to Ready; returns the cores to tell. The chunk stays pinned until they are known, so
    /// that its slot cannot go to a load that others wait for already.
    pub fn finish_load(&self, table: &ChunkTable, chunk: u32) -> u64 {
        let slot = table.view(chunk).slot;
        table.finish_load(chunk, 1);
        let waiters = self.take_waiters(slot);
        table.unpin(chunk);
        waiters
    }

    /// Loading to Empty, and the slot is free; returns the cores to tell.
    pub fn fail_load(&self, table: &ChunkTable, chunk: u32) -> u64 {
        let slot = table.reset(chunk);
        let waiters = self.take_waiters(slot);
        self.release(slot);
        waiters
    }

    /// After the chunk word was published, while the slot is still the caller's.
    fn take_waiters(&self, slot: SlotId) -> u64 {
        fence(Ordering::SeqCst);
        self.slots[slot.0 as usize].waiters.swap(0, Ordering::SeqCst)
    }

    /// Blocks received into `slot`, one bit each.
    pub fn got(&self, slot: SlotId) -> u16 {
        self.slots[slot.0 as usize].got.load(Ordering::Relaxed) as u16
    }

    /// Notes that `giver` gave block `block` of `slot`. Only the core that fills the slot calls it.
    pub fn note_block(&self, slot: SlotId, block: u32, giver: Giver) {
        let info = &self.slots[slot.0 as usize];
        info.blames[block as usize].store(giver.blame, Ordering::Relaxed);
        info.accounts[block as usize].store(giver.account, Ordering::Relaxed);
        info.got.fetch_or(1 << block, Ordering::Relaxed);
    }

    /// Blocks of a whole chunk turned out to be wrong: they are to be received again. Only the core that owns
    /// the piece calls it, before the chunk may be collected anew.
    pub fn forget_blocks(&self, slot: SlotId, blocks: u16) {
        self.slots[slot.0 as usize].got.fetch_and(!u32::from(blocks), Ordering::Relaxed);
    }

    /// Who gave block `block` of `slot`. Visible to whoever saw the chunk `Filled` or `Partial`.
    pub fn giver(&self, slot: SlotId, block: u32) -> Giver {
        let info = &self.slots[slot.0 as usize];
        let read = |words: &[AtomicU64]| words[block as usize].load(Ordering::Relaxed);
        Giver { blame: read(&info.blames), account: read(&info.accounts) }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    const TORRENT: TorrentId = TorrentId(0);

    #[test]
    fn slots_are_reused_last_in_first_out_before_new_ones_are_touched() {
        let (cache, table) = (Cache::new(4), ChunkTable::new(8));
        let take = |chunk| cache.allocate((TORRENT, chunk), Growth::Late, |_| Some(&table));
        let (a, b) = (take(0).unwrap(), take(1).unwrap());
        cache.release(a);
        cache.release(b);
        assert_eq!((take(2), take(3), cache.touched_count()), (Some(b), Some(a), 2));
    }

    #[test]
    fn exhaustion_is_none_and_only_unpinned_unused_chunks_leave() {
        let (cache, table) = (Cache::new(3), ChunkTable::new(8));
        let take = |chunk| cache.allocate((TORRENT, chunk), Growth::Late, |_| Some(&table));
        for chunk in 0..3 {
            let slot = take(chunk).unwrap();
            assert!(table.begin_load(chunk, slot));
        }
        assert_eq!(take(3), None, "loading chunks stay");
        for chunk in 0..3 {
            table.finish_load(chunk, 0);
        }
        let kept = table.pin(0, true).unwrap();
        let slot = take(3).unwrap();
        assert_ne!(slot, kept);
        assert!(table.claim_empty(3, slot));
        assert!(take(4).is_some_and(|slot| slot != kept && table.claim_empty(4, slot)));
        assert_eq!(take(5), None, "what is left is pinned or being filled");
        table.unpin(0);
        assert_eq!(take(5), Some(kept), "unpinned, and only one came to read it");
    }

    /// What `readers` came to is loaded into a cache of eight slots; then one reader sweeps through
    /// `sweep` others. Returns how many of the first are still there.
    fn survivors(popular: u32, readers: u32, sweep: u32) -> usize {
        let (cache, table) = (Cache::new(8), ChunkTable::new(1_000));
        let read = |chunk| {
            if table.view(chunk).state == ChunkState::Empty {
                let slot = cache.allocate((TORRENT, chunk), Growth::Early, |_| Some(&table)).unwrap();
                assert!(table.begin_load(chunk, slot));
                table.finish_load(chunk, 0);
            }
            table.pin(chunk, true).unwrap();
            table.unpin(chunk);
        };
        (0..readers).for_each(|_| (0..popular).for_each(read));
        (100..100 + sweep).for_each(read);
        (0..popular).filter(|&chunk| table.view(chunk).state == ChunkState::Ready).count()
    }

    #[test]
    fn a_sweep_through_everything_does_not_flush_what_several_read() {
        assert_eq!(survivors(4, 3, 8), 4, "two rounds of the hand over the other half");
        assert_eq!(survivors(4, 1, 8), 0, "what one read once leaves like the rest");
        assert_eq!(survivors(4, 3, 100), 0, "in the end even the popular cools");
    }

    #[test]
    fn growth_late_takes_what_nobody_read_and_early_takes_new_memory() {
        let (cache, table) = (Cache::new(4), ChunkTable::new(8));
        let take = |chunk, growth| cache.allocate((TORRENT, chunk), growth, |_| Some(&table)).unwrap();
        let first = take(0, Growth::Late);
        assert!(table.begin_load(0, first));
        table.finish_load(0, 0);
        let second = take(1, Growth::Early);
        assert_ne!(second, first);
        assert_eq!(take(2, Growth::Late), first, "nobody read it");
    }

    #[test]
    fn half_of_the_slots_may_be_promised_or_one_piece_of_any_size() {
        let cache = Cache::new(8);
        assert!(cache.reserve(3) && cache.reserve(1) && !cache.reserve(1));
        cache.unreserve(4);
        assert!(cache.reserve(20) && !cache.reserve(1));
    }

    #[test]
    fn got_and_sources_start_afresh_in_a_reused_slot() {
        let (cache, table) = (Cache::new(1), ChunkTable::new(2));
        let slot = cache.allocate((TORRENT, 0), Growth::Late, |_| Some(&table)).unwrap();
        let giver = Giver { blame: 42, account: 43 };
        cache.note_block(slot, 15, giver);
        assert_eq!((cache.got(slot), cache.giver(slot, 15)), (1 << 15, giver));
        cache.release(slot);
        let again = cache.allocate((TORRENT, 1), Growth::Late, |_| Some(&table)).unwrap();
        assert_eq!((again, cache.got(again)), (slot, 0));
    }
}
