//! Models of a region that leaves the cache while cores allocate, evict and release.

use super::*;
use crate::shared::retirer::{Retirer, Stage, Step};

/// How the slot of the region that is to leave is found.
#[derive(Clone, Copy, Debug)]
enum Before {
    Untouched,
    Free,
    Ready,
}

/// Two regions of one slot each, and chunks that come and go.
struct Regions {
    stack: Arc<Stack>,
    table: ChunkTable,
}

impl Regions {
    fn new(before: Before) -> (Arc<Self>, Retirer) {
        let cache = Arc::new(Cache::with_regions(2, 1));
        let stack = Arc::new(Stack::of(Arc::clone(&cache)));
        let regions = Self { stack, table: ChunkTable::new(4) };
        if !matches!(before, Before::Untouched) {
            regions.load(0);
            regions.load(1);
        }
        if matches!(before, Before::Free) {
            let slot = regions.table.evict(1, 3).unwrap();
            regions.stack.give(slot);
        }
        (Arc::new(regions), Retirer::new(cache, 1))
    }

    fn table_of(&self, id: TorrentId) -> Option<&ChunkTable> {
        (id == TORRENT).then_some(&self.table)
    }

    fn take(&self, chunk: u32) -> Option<SlotId> {
        let cache = &self.stack.cache;
        let slot = cache.allocate((TORRENT, chunk), Growth::Late, |id| self.table_of(id))?;
        self.stack.hold(slot);
        Some(slot)
    }

    /// Brings a chunk, if there is a slot for it.
    fn load(&self, chunk: u32) {
        let Some(slot) = self.take(chunk) else { return };
        assert!(self.table.begin_load(chunk, slot));
        self.stack.cache.finish_load(&self.table, chunk);
    }

    /// One look of the retirer. Whoever else uses a slot of a region that is said to be empty is caught.
    fn advance(&self, retirer: &mut Retirer) {
        for step in retirer.advance(|id| self.table_of(id)) {
            if let Step::Forget(region) = step {
                self.stack.hold(SlotId(region));
                assert_eq!(retirer.handle_forgotten(region, true), Some(Step::Drop(region)));
                retirer.handle_dropped(region);
            }
        }
    }
}

/// What a core does meanwhile.
type Core = fn(&Regions);

/// Brings a chunk, for which another may have to leave.
fn load(regions: &Regions) {
    regions.load(2);
}

/// Uses a slot for a while.
fn borrow(regions: &Regions) {
    if let Some(slot) = regions.take(3) {
        regions.stack.give(slot);
    }
}

/// Serves a chunk of the region, if it is still there.
fn read(regions: &Regions) {
    if let Some(slot) = regions.table.pin(1, true) {
        regions.stack.hold(slot);
        regions.table.unpin(1);
    }
}

fn a_region_leaves(before: Before, cores: &[Core]) {
    let (regions, mut retirer) = Regions::new(before);
    let cores: Vec<_> = cores.iter().map(|core| spawn(&regions, *core)).collect();
    retirer.set_target(1);
    regions.advance(&mut retirer);
    join(cores);
    // Nobody uses anything any more: it goes, and then returns with its slot.
    regions.advance(&mut retirer);
    assert_eq!(retirer.stage(1), Stage::Gone);
    assert!(regions.take(0).is_none_or(|slot| slot == SlotId(0)));
    retirer.set_target(2);
    assert_eq!(retirer.advance(|id| regions.table_of(id)), [Step::Fill(1)]);
    retirer.handle_filled(1);
    assert_eq!((retirer.stage(1), retirer.slot_count()), (Stage::Present, 0));
    assert_eq!(regions.take(1), Some(SlotId(1)));
}

#[test]
fn loom_a_region_that_is_gone_is_used_by_nobody_and_returns_whole() {
    for before in [Before::Untouched, Before::Free, Before::Ready] {
        model(2, move || a_region_leaves(before, &[load]));
        model(2, move || a_region_leaves(before, &[borrow]));
    }
    model(2, || a_region_leaves(Before::Ready, &[borrow, read]));
}

#[test]
fn loom_a_pinned_chunk_keeps_its_region() {
    model(3, || {
        let (regions, mut retirer) = Regions::new(Before::Ready);
        let reader = spawn(&regions, read);
        retirer.set_target(1);
        regions.advance(&mut retirer);
        join([reader]);
        regions.advance(&mut retirer);
        assert_eq!(retirer.stage(1), Stage::Gone);
    });
}

/// How untouched slots are kept from cores that see the limit late, with or without the second look.
fn untouched<const LOOK: bool>() {
    model(3, || {
        let state = Arc::new((AtomicU32::new(2), AtomicU32::new(1), Stack::new(2)));
        let core = spawn(&state, |(limit, touched, stack)| {
            if touched.load(Relaxed) >= limit.load(Relaxed) {
                return;
            }
            let slot = touched.fetch_add(1, Ordering::AcqRel);
            if !LOOK || slot < limit.load(Relaxed) {
                stack.hold(SlotId(slot));
            }
        });
        let (limit, touched, stack) = &*state;
        limit.store(1, Ordering::Release);
        if touched.fetch_add(0, Ordering::AcqRel) == 1 {
            stack.hold(SlotId(1));
        }
        join([core]);
    });
}

#[test]
fn loom_untouched_slots_beyond_the_limit_stay_untouched() {
    untouched::<true>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_without_the_second_look_a_late_core_uses_them() {
    untouched::<false>();
}
