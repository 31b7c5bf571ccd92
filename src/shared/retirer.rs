//! How regions of the cache leave, so that their memory can be given back, and how they return.
//!
//! ```text
//!            target falls            all slots here         every core forgot    memory given back
//!   Present --------------> Leaving ---------------> Forgetting ------> Dropping ----------> Gone
//!      ^                       |                                                              |
//!      +---- target rises -----+                                                              |
//!      +------------------- memory is there ------- Returning <--------- target rises --------+
//! ```
//!
//! Present regions are the first ones: the last leaves first and returns last. One thread has the retirer;
//! it looks from time to time (`advance`), carries out the steps that it is told and says when they are
//! done. Slots beyond the cache's limit come to it as they get free: idle chunks are evicted, the rest
//! leaves when its pins, loads, writes and pieces end. With every slot of a region in its hands nobody can
//! name one, so the registrations and then the memory can go.

use std::sync::Arc;

use super::cache::Cache;
use super::chunks::ChunkTable;
use crate::base::ids::{SlotId, TorrentId};

/// Where a region stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its slots are handed out.
    Present,
    /// They are not any more; some are still in use.
    Leaving,
    /// No slot is in use. So many cores may still have the memory registered with the kernel.
    Forgetting {
        /// Cores that have not answered.
        cores: usize,
        /// One has, that it cannot: the kernel would go on using the pages.
        is_kept: bool,
    },
    /// The memory is being given back.
    Dropping,
    /// It costs nothing, and is used by nobody.
    Gone,
    /// It is wanted again, and its memory is being fetched from the kernel.
    Returning,
}

/// What is to be done for a region, by whoever can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Each core unregisters the region; then `handle_forgotten` once for each.
    Forget(u32),
    /// Its memory goes back to the kernel; then `handle_dropped`.
    Drop(u32),
    /// Its memory is taken from the kernel ahead of use; then `handle_filled`.
    Fill(u32),
}

/// How many regions are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionCounts {
    /// Their slots are handed out.
    pub present: u32,
    /// Of these, those that hold memory.
    pub used: u32,
    /// On their way out: their memory is not given back yet.
    pub leaving: u32,
    /// Given back, or never to be used for now.
    pub gone: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// As far as known only what chunks have touched is there.
    AsTouched,
    /// It is being fetched: the region must not be dropped meanwhile.
    Filling,
    Filled,
}

#[derive(Debug)]
struct Region {
    stage: Stage,
    memory: Memory,
    /// Slots in the hands of the retirer.
    slots: Vec<SlotId>,
}

/// See the module.
#[derive(Debug)]
pub struct Retirer {
    cache: Arc<Cache>,
    cores: usize,
    regions: Vec<Region>,
    /// Regions that are to be present.
    target: u32,
}

impl Retirer {
    /// For a cache of which everything is present, used by `cores` cores.
    pub fn new(cache: Arc<Cache>, cores: usize) -> Self {
        let target = cache.region_count();
        let region = |_| Region { stage: Stage::Present, memory: Memory::AsTouched, slots: Vec::new() };
        Self { cores, regions: (0..target).map(region).collect(), target, cache }
    }

    /// The cache.
    pub const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// How many regions are to be present.
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// Has the cache shrink or grow to so many regions, at least one, from the next `advance` on.
    pub fn set_target(&mut self, regions: u32) {
        self.target = regions.clamp(1, self.regions.len() as u32);
    }

    /// Where a region stands.
    pub fn stage(&self, region: u32) -> Stage {
        self.regions[region as usize].stage
    }

    /// How many regions are where.
    pub fn counts(&self) -> RegionCounts {
        let mut counts = RegionCounts::default();
        let touched = self.cache.touched_count();
        for (index, region) in (0..).zip(&self.regions) {
            match region.stage {
                Stage::Present => {
                    counts.present += 1;
                    let is_touched = self.cache.region(index).start < touched;
                    counts.used += u32::from(is_touched || region.memory != Memory::AsTouched);
                }
                Stage::Leaving | Stage::Forgetting { .. } | Stage::Dropping => counts.leaving += 1,
                Stage::Gone | Stage::Returning => counts.gone += 1,
            }
        }
        counts
    }

    /// Slots in the hands of the retirer.
    pub fn slot_count(&self) -> u32 {
        self.regions.iter().map(|region| region.slots.len() as u32).sum()
    }

    /// Whether `advance` has something to do before the target moves.
    pub fn is_busy(&self) -> bool {
        let present = self.present();
        self.regions.iter().any(|region| region.stage == Stage::Leaving) || present != self.target
    }

    /// Looks after the regions; `table_of` finds the chunk tables of all torrents.
    pub fn advance<'a>(&mut self, table_of: impl Fn(TorrentId) -> Option<&'a ChunkTable>) -> Vec<Step> {
        let mut steps = Vec::new();
        self.cache.set_promisable(self.target);
        // Begun pieces keep what they were promised, or none of them might ever become whole.
        let keep = self.target.max(self.cache.reserved_regions()).min(self.regions.len() as u32);
        let present = self.present();
        if keep < present {
            self.cache.set_limit(keep);
            self.regions[keep as usize..present as usize]
                .iter_mut()
                .for_each(|region| region.stage = Stage::Leaving);
        }
        self.collect();
        self.bring_back(keep, &mut steps);
        for region in self.present()..self.regions.len() as u32 {
            if self.stage(region) == Stage::Leaving {
                self.empty(region, &table_of, &mut steps);
            }
        }
        steps
    }

    /// A core has unregistered a region, or cannot.
    pub fn handle_forgotten(&mut self, region: u32, could: bool) -> Option<Step> {
        let place = &mut self.regions[region as usize];
        let Stage::Forgetting { cores, is_kept } = place.stage else { return None };
        let (cores, is_kept) = (cores - 1, is_kept || !could);
        place.stage = match cores {
            1.. => Stage::Forgetting { cores, is_kept },
            0 if is_kept => Stage::Gone,
            0 => Stage::Dropping,
        };
        (place.stage == Stage::Dropping).then_some(Step::Drop(region))
    }

    /// The memory of a region is given back.
    pub fn handle_dropped(&mut self, region: u32) {
        let place = &mut self.regions[region as usize];
        place.memory = Memory::AsTouched;
        place.stage = Stage::Gone;
    }

    /// The memory of a region is there.
    pub fn handle_filled(&mut self, region: u32) {
        let place = &mut self.regions[region as usize];
        place.memory = Memory::Filled;
        if place.stage != Stage::Returning {
            return;
        }
        // Memory may have become short again meanwhile: then it is given back like any other.
        if region == self.present() && region < self.target {
            self.make_present(region);
        } else {
            self.regions[region as usize].stage = Stage::Leaving;
        }
    }

    /// A region will soon be used: its memory is to be fetched, once.
    pub fn handle_touched(&mut self, region: u32) -> Option<Step> {
        let place = self.regions.get_mut(region as usize)?;
        let is_new = place.stage == Stage::Present && place.memory == Memory::AsTouched;
        if is_new {
            place.memory = Memory::Filling;
        }
        is_new.then_some(Step::Fill(region))
    }

    /// Present regions are the first ones.
    fn present(&self) -> u32 {
        self.regions.partition_point(|region| region.stage == Stage::Present) as u32
    }

    /// Takes the slots that came free beyond the limit.
    pub fn collect(&mut self) {
        let mut slots = self.cache.take_parked();
        if self.regions.iter().any(|region| region.stage == Stage::Leaving) {
            // From the bottom, so that those that go back lie as they lay.
            slots.extend(self.cache.take_free().into_iter().rev());
        }
        slots.into_iter().for_each(|slot| self.keep(slot));
    }

    fn keep(&mut self, slot: SlotId) {
        if self.cache.is_leaving(slot) {
            self.regions[self.cache.region_of(slot) as usize].slots.push(slot);
        } else {
            self.cache.release(slot);
        }
    }

    /// Has the next regions return, as far as wanted. One that is being dropped must be gone first.
    fn bring_back(&mut self, keep: u32, steps: &mut Vec<Step>) {
        while self.present() < keep {
            let region = self.present();
            let place = &mut self.regions[region as usize];
            match place.stage {
                Stage::Leaving => self.make_present(region),
                Stage::Gone => {
                    place.stage = Stage::Returning;
                    place.memory = Memory::Filling;
                    return steps.push(Step::Fill(region));
                }
                _ => return,
            }
        }
    }

    fn make_present(&mut self, region: u32) {
        self.regions[region as usize].stage = Stage::Present;
        self.cache.set_limit(region + 1);
        for slot in std::mem::take(&mut self.regions[region as usize].slots) {
            self.cache.release(slot);
        }
    }

    fn empty<'a>(
        &mut self,
        region: u32,
        table_of: &impl Fn(TorrentId) -> Option<&'a ChunkTable>,
        steps: &mut Vec<Step>,
    ) {
        for slot in self.cache.evict_region(region, table_of) {
            self.keep(slot);
        }
        let touched = self.cache.touched_in(region);
        let place = &mut self.regions[region as usize];
        if place.slots.len() as u32 != touched || place.memory == Memory::Filling {
            return;
        }
        place.stage = if touched == 0 && place.memory == Memory::AsTouched {
            Stage::Gone
        } else {
            steps.push(Step::Forget(region));
            Stage::Forgetting { cores: self.cores, is_kept: false }
        };
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::shared::cache::Growth;
    use crate::shared::chunks::ChunkState;

    const TORRENT: TorrentId = TorrentId(0);

    /// A cache of four regions of three slots, and a table with more chunks than that.
    struct Rig {
        cache: Arc<Cache>,
        table: ChunkTable,
        retirer: Retirer,
    }

    impl Rig {
        fn new() -> Self {
            let cache = Arc::new(Cache::with_regions(12, 3));
            Self { table: ChunkTable::new(40), retirer: Retirer::new(Arc::clone(&cache), 2), cache }
        }

        fn take(&self, chunk: u32) -> Option<SlotId> {
            let find = |id| (id == TORRENT).then_some(&self.table);
            self.cache.allocate((TORRENT, chunk), Growth::Early, find)
        }

        /// Loads chunks, each into the next slot.
        fn load(&self, chunks: std::ops::Range<u32>) {
            for chunk in chunks {
                assert!(self.table.begin_load(chunk, self.take(chunk).unwrap()));
                self.table.finish_load(chunk, 0);
            }
        }

        fn advance(&mut self) -> Vec<Step> {
            self.retirer.advance(|id| (id == TORRENT).then_some(&self.table))
        }

        fn shrink(&mut self, regions: u32) -> Vec<Step> {
            self.retirer.set_target(regions);
            self.advance()
        }

        fn counts(&self) -> (u32, u32, u32, u32) {
            let RegionCounts { present, used, leaving, gone } = self.retirer.counts();
            (present, used, leaving, gone)
        }

        fn drop_region(&mut self, region: u32) {
            assert_eq!(self.retirer.handle_forgotten(region, true), None, "the other core may use it");
            assert_eq!(self.retirer.handle_forgotten(region, true), Some(Step::Drop(region)));
            self.retirer.handle_dropped(region);
        }
    }

    #[test]
    fn idle_chunks_leave_pinned_ones_stay_and_the_rest_of_the_cache_goes_on() {
        let mut rig = Rig::new();
        rig.load(0..8);
        assert!(rig.table.pin(4, true).is_some() && rig.table.pin(7, true).is_some());
        assert_eq!(rig.counts(), (4, 3, 0, 0));
        // The last was never used: it is gone at once. In the others a chunk is pinned each.
        assert_eq!(rig.shrink(1), []);
        assert_eq!(rig.counts(), (1, 1, 2, 1));
        assert_eq!((rig.retirer.stage(1), rig.retirer.stage(3)), (Stage::Leaving, Stage::Gone));
        // A pinned chunk is served on; what was next to it is not there any more.
        assert!(rig.table.pin(4, true).is_some());
        assert!((0..3).all(|chunk| rig.table.view(chunk).state == ChunkState::Ready));
        rig.load(20..30);
        assert_eq!(rig.cache.touched_count(), 8, "no slot beyond the first region is handed out");
        rig.table.unpin(7);
        assert_eq!(rig.advance(), [Step::Forget(2)]);
        (0..2).for_each(|_| rig.table.unpin(4));
        assert_eq!(rig.advance(), [Step::Forget(1)]);
        rig.drop_region(1);
        assert_eq!((rig.counts(), rig.retirer.slot_count()), ((1, 1, 1, 2), 5));
        assert!(!rig.retirer.is_busy());
    }

    #[test]
    fn regions_return_one_after_the_other_with_their_slots() {
        let mut rig = Rig::new();
        rig.load(0..12);
        assert_eq!(rig.shrink(1), [Step::Forget(1), Step::Forget(2), Step::Forget(3)]);
        rig.drop_region(1);
        rig.drop_region(2);
        assert_eq!(rig.shrink(4), [Step::Fill(1)]);
        assert_eq!((rig.advance(), rig.cache.present_count()), (vec![], 3), "not before its memory is there");
        rig.retirer.handle_filled(1);
        assert_eq!((rig.cache.present_count(), rig.cache.free_count()), (6, 3));
        assert_eq!(rig.advance(), [Step::Fill(2)]);
        rig.retirer.handle_filled(2);
        assert_eq!((rig.advance(), rig.retirer.is_busy()), (vec![], true), "the last is being dropped");
        rig.drop_region(3);
        assert_eq!(rig.advance(), [Step::Fill(3)]);
        rig.retirer.handle_filled(3);
        assert_eq!((rig.counts(), rig.cache.free_count(), rig.retirer.is_busy()), ((4, 4, 0, 0), 9, false));
        rig.load(20..29);
        assert_eq!(rig.cache.evictions(), 0);
    }

    #[test]
    fn one_that_leaves_is_kept_when_the_target_rises_again() {
        let mut rig = Rig::new();
        rig.load(0..12);
        assert!(rig.table.pin(9, true).is_some());
        assert_eq!(rig.shrink(3), []);
        assert_eq!((rig.counts(), rig.retirer.slot_count()), ((3, 3, 1, 0), 2));
        assert_eq!(rig.shrink(4), []);
        assert_eq!((rig.counts(), rig.cache.free_count()), ((4, 4, 0, 0), 2));
    }

    #[test]
    fn what_is_promised_to_pieces_is_kept_until_they_are_whole() {
        let mut rig = Rig::new();
        rig.load(0..12);
        assert!(rig.cache.reserve(6) && !rig.cache.reserve(1));
        assert_eq!(rig.shrink(1), [Step::Forget(2), Step::Forget(3)]);
        assert!(rig.retirer.is_busy() && rig.cache.present_count() == 6 && rig.cache.is_tight());
        rig.cache.unreserve(3);
        assert!(!rig.cache.reserve(1), "half of what is to be left is one");
        assert_eq!(rig.advance(), [Step::Forget(1)]);
        rig.cache.unreserve(3);
        assert!(rig.cache.reserve(1) && !rig.cache.reserve(1));
    }

    #[test]
    fn the_least_is_one_region_and_more_than_all_is_all() {
        let mut rig = Rig::new();
        for (asked, has) in [(0, 1), (1, 1), (2, 2), (4, 4), (5, 4)] {
            rig.retirer.set_target(asked);
            assert_eq!(rig.retirer.target(), has);
        }
    }

    #[test]
    fn memory_is_fetched_ahead_once_and_not_dropped_meanwhile() {
        let mut rig = Rig::new();
        assert_eq!(rig.retirer.handle_touched(3), Some(Step::Fill(3)));
        assert_eq!((rig.retirer.handle_touched(3), rig.retirer.handle_touched(4)), (None, None));
        assert_eq!(rig.shrink(3), [], "it is being filled");
        rig.retirer.handle_filled(3);
        assert_eq!(rig.advance(), [Step::Forget(3)], "it holds memory though nothing used it");
        rig.drop_region(3);
        assert_eq!(rig.retirer.handle_touched(3), None, "it is gone");
    }

    #[test]
    fn a_region_that_is_not_wanted_any_more_when_it_returns_leaves_again() {
        let mut rig = Rig::new();
        rig.load(0..12);
        assert_eq!(rig.shrink(3), [Step::Forget(3)]);
        rig.drop_region(3);
        assert_eq!(rig.shrink(4), [Step::Fill(3)]);
        rig.shrink(1);
        rig.retirer.handle_filled(3);
        assert_ne!(rig.retirer.stage(3), Stage::Present);
        assert_eq!(rig.cache.present_count(), 3, "one region of three slots");
    }

    #[test]
    fn what_a_core_cannot_unregister_is_not_dropped() {
        let mut rig = Rig::new();
        rig.load(0..12);
        assert_eq!(rig.shrink(3), [Step::Forget(3)]);
        assert_eq!(rig.retirer.handle_forgotten(3, false), None);
        assert_eq!(rig.retirer.handle_forgotten(3, true), None);
        assert_eq!(rig.counts(), (3, 3, 0, 1));
        assert_eq!(rig.shrink(4), [Step::Fill(3)]);
    }
}
