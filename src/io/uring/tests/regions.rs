//! Registered memory that several rings share.

use super::file::{Files, round_trip, round_trip_at};
use super::*;
use crate::io::arena::{REGION_BYTES, SLOTS_PER_REGION};

fn files(arena: &Arc<Arena>, shared: Option<&Arc<SharedRegions>>) -> Files {
    Files::on(Rig::over(Arc::clone(arena), shared.cloned(), 64, 16))
}

/// Memory that this process has pinned, in bytes.
fn pinned_bytes() -> u64 {
    status_bytes("VmPin:")
}

fn status_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_region_is_registered_once_for_all_rings() {
    if !alone("io::uring::tests::regions::a_region_is_registered_once_for_all_rings") {
        return;
    }
    let arena = Arc::new(Arena::new(2 * REGION_BYTES).unwrap());
    let shared = SharedRegions::new(&arena);
    let mut rings = [files(&arena, shared.as_ref()), files(&arena, shared.as_ref())];
    let before = pinned_bytes();
    rings.iter_mut().for_each(|files| round_trip(files, true));
    let pinned = pinned_bytes() - before;
    let counts = rings.each_ref().map(|files| files.rig.uring.registered_regions());
    if counts == [(1, 1); 2] {
        assert_eq!(pinned, REGION_BYTES);
        // Without sharing each ring pays for itself.
        round_trip(&mut files(&arena, None), true);
        let mut own = files(&arena, None);
        round_trip(&mut own, true);
        assert!(pinned_bytes() - before >= 2 * REGION_BYTES);
        // The last ring that uses a region keeps it, whatever became of the others.
        drop(shared);
        let [first, mut second] = rings;
        drop(first);
        round_trip(&mut second, true);
    } else {
        // A kernel that cannot clone a range (before 6.13): each has its own, or the limit is too low.
        assert!(counts.iter().all(|(_, cloned)| *cloned == 0), "{counts:?}");
    }
}

#[test]
fn where_nothing_can_be_shared_a_ring_registers_for_itself() {
    let (arena, other) = (Arc::new(Arena::new(0).unwrap()), Arc::new(Arena::new(0).unwrap()));
    let Some(shared) = SharedRegions::new(&other) else { return };
    shared.refuse(0);
    let mut files = files(&arena, Some(&shared));
    round_trip(&mut files, true);
    let (registered, cloned) = files.rig.uring.registered_regions();
    assert!(registered <= 1 && cloned == 0);
}

/// Memory of this process that is in RAM, in bytes.
fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

#[test]
fn a_forgotten_region_gives_its_memory_back_and_is_registered_anew() {
    if !alone("io::uring::tests::regions::a_forgotten_region_gives_its_memory_back_and_is_registered_anew") {
        return;
    }
    let arena = Arc::new(Arena::new(2 * REGION_BYTES).unwrap());
    let slots = |region: u32| region * SLOTS_PER_REGION..(region + 1) * SLOTS_PER_REGION;
    let second = SLOTS_PER_REGION;
    for shared in [SharedRegions::new(&arena), None] {
        let mut rings = [files(&arena, shared.as_ref()), files(&arena, shared.as_ref())];
        let pinned = pinned_bytes();
        arena.prefault(0);
        arena.prefault(1);
        rings.iter_mut().for_each(|files| round_trip_at(files, true, second));
        let counts = rings.each_ref().map(|files| files.rig.uring.registered_regions().0);
        let resident = resident_bytes();
        for files in &mut rings {
            assert!(files.rig.uring.forget(slots(1)) && files.rig.uring.forget(slots(0)));
            assert_eq!(files.rig.uring.registered_regions(), (0, 0));
        }
        assert!(shared.as_ref().is_none_or(|shared| shared.forget(1) && shared.forget(0)));
        assert_eq!(pinned_bytes(), pinned, "the last reference unpins");
        arena.discard(1);
        // Other memory of the process may move a little meanwhile.
        let freed = resident - resident_bytes();
        assert!(freed > REGION_BYTES / 16 * 15, "{freed} bytes are given back");
        assert_eq!(arena.payload(SlotId(second), 0, 8), [0; 8]);
        // What is used again is whole and registered again, and what stayed is as it was.
        for files in &mut rings {
            round_trip_at(files, true, second);
            round_trip(files, true);
        }
        let again = rings.each_ref().map(|files| files.rig.uring.registered_regions().0);
        // A limit on locked memory may have room for one region only.
        assert!((0..2).all(|ring| (counts[ring]..=2 * counts[ring]).contains(&again[ring])), "{again:?}");
    }
}
