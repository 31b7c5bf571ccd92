//! Registered memory that several rings share.

use super::file::{Files, round_trip};
use super::*;
use crate::io::arena::REGION_BYTES;
use crate::io::uring::can_share_regions;

fn files(arena: &Arc<Arena>, shared: Option<&Arc<SharedRegions>>) -> Files {
    Files::on(Rig::over(Arc::clone(arena), shared.cloned(), 64, 16))
}

/// Memory that this process has pinned, in bytes.
fn pinned_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
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
        assert!(can_share_regions());
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
        assert!(!can_share_regions() || counts == [(0, 0); 2], "{counts:?}");
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
