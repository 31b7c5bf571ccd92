//! The decisions over virtual time, without a host.

use super::*;
use crate::base::time::Span;
use crate::daemon::cache_size::CgroupRoom;

const MIB: u64 = 1 << 20;
/// Marks at 256 and 512 MiB.
const TOTAL: u64 = 8 << 30;
const LOW: u64 = TOTAL / MEMORY_LOW_PART;
const REGION: u64 = REGION_BYTES;

fn host(left: u64) -> Host {
    Host { memory_bytes: Some(left), memory_total_bytes: Some(TOTAL), ..Host::default() }
}

/// A cache whose target is reached: so many regions present, all used.
fn settled(regions: u32) -> CacheFacts {
    let counts = RegionCounts { present: regions, used: regions, leaving: 0, gone: 16 - regions };
    CacheFacts { regions: counts, target: regions, is_full: true }
}

fn governor() -> Governor {
    Governor::new(2, 16)
}

fn shrunk(wish: &Wish) -> Option<u32> {
    match wish {
        Wish::Shrink(regions, _) => Some(*regions),
        _ => None,
    }
}

#[test]
fn below_the_low_mark_so_much_leaves_that_the_high_one_is_reached() {
    for (left, want) in [
        (LOW + 1, None),
        (LOW, None),
        (LOW - 1, Some(16 - 5)),
        (2 * LOW - 7 * REGION, Some(16 - 7)),
        (0, Some(16 - 8)),
    ] {
        let wish = governor().handle_look(&host(left), settled(16), Instant(0));
        assert_eq!(shrunk(&wish), want, "{left}");
    }
    let wish = governor().handle_look(&host(100 * MIB), settled(16), Instant(0));
    assert_eq!(wish, Wish::Shrink(9, "100 MiB of 8.00 GiB are left in memory".to_owned()));
}

#[test]
fn the_marks_have_bounds() {
    let low = |total| Gauge::new(0, total, "").low_bytes;
    let part = MEMORY_LOW_PART;
    for (mark, bound) in
        [(MEMORY_LOW_BYTES_MIN, MEMORY_LOW_BYTES_MIN), (MEMORY_LOW_BYTES_MAX, MEMORY_LOW_BYTES_MAX)]
    {
        assert_eq!(low(mark * part), bound);
    }
    assert_eq!(low((MEMORY_LOW_BYTES_MIN - 1) * part), MEMORY_LOW_BYTES_MIN);
    assert_eq!(low((MEMORY_LOW_BYTES_MIN + 1) * part), MEMORY_LOW_BYTES_MIN + 1);
    assert_eq!(low((MEMORY_LOW_BYTES_MAX - 1) * part), MEMORY_LOW_BYTES_MAX - 1);
    assert_eq!(low((MEMORY_LOW_BYTES_MAX + 1) * part), MEMORY_LOW_BYTES_MAX);
}

#[test]
fn the_least_stays_whatever_is_short() {
    for (has, want) in [(1, None), (2, None), (3, Some(2)), (16, Some(2))] {
        let mut short = host(0);
        short.memory_total_bytes = Some(TOTAL * 100);
        let wish = governor().handle_look(&short, settled(has), Instant(0));
        assert_eq!(shrunk(&wish), want, "{has}");
    }
}

#[test]
fn what_leaves_already_is_counted_and_what_was_never_used_leaves_first() {
    let mut facts = settled(12);
    (facts.regions.leaving, facts.regions.gone) = (2, 2);
    let look = |left, facts| shrunk(&governor().handle_look(&host(left), facts, Instant(0)));
    assert_eq!(look(LOW - 2 * REGION, facts), None, "what is coming is enough");
    assert!(look(LOW - 2 * REGION - 1, facts).is_some());
    let mut fresh = settled(16);
    fresh.regions.used = 6;
    assert_eq!(look(LOW - 1, fresh), Some(2), "6 hold memory; 5 are short, 2 stay");
    fresh.regions.used = 10;
    assert_eq!(look(LOW - 1, fresh), Some(5));
}

#[test]
fn tasks_that_wait_for_memory_make_it_leave_earlier_but_not_while_there_is_plenty() {
    for (permille, left, leaves) in [
        (MEMORY_STALLED_PERMILLE - 1, 2 * LOW - 1, false),
        (MEMORY_STALLED_PERMILLE, 2 * LOW - 1, true),
        (MEMORY_STALLED_PERMILLE + 1, 2 * LOW - 1, true),
        (1000, 2 * LOW, false),
    ] {
        let host = Host { stalled_permille: permille, ..host(left) };
        let wish = governor().handle_look(&host, settled(16), Instant(0));
        assert_eq!(shrunk(&wish).is_some(), leaves, "{permille} {left}");
    }
}

#[test]
fn the_tightest_limit_decides_and_is_named() {
    let room = CgroupRoom { bytes: 20 * MIB, limit_bytes: 512 * MIB, file: "/g/memory.max".to_owned() };
    let host = Host { cgroup: Some(room), ..host(TOTAL / 2) };
    let wish = governor().handle_look(&host, settled(16), Instant(0));
    assert_eq!(wish, Wish::Shrink(15, "20.0 MiB of 512 MiB are left in /g/memory.max".to_owned()));
    assert_eq!(
        governor().handle_look(&Host::default(), settled(16), Instant(0)),
        Wish::Stay,
        "nothing is known"
    );
}

/// Looks once a second at a cache that obeys at once; returns its size after each look.
fn course(
    governor: &mut Governor,
    from: u64,
    seconds: u64,
    cache: &mut u32,
    left: impl Fn(u64, u32) -> u64,
) -> Vec<u32> {
    (from..from + seconds)
        .map(|second| {
            let now = Instant(0) + Span::from_secs(second);
            match governor.handle_look(&host(left(second, *cache)), settled(*cache), now) {
                Wish::Stay => {}
                Wish::Shrink(regions, _) | Wish::Grow(regions) => *cache = regions,
            }
            *cache
        })
        .collect()
}

#[test]
fn it_shrinks_in_a_second_and_grows_slowly_when_memory_has_been_plentiful_for_a_while() {
    let (mut governor, mut cache) = (governor(), 16);
    // Another program takes 4 GiB for a minute, of 5 that are left beside a full cache of 1 GiB.
    let left = |second: u64, cache: u32| {
        let other = if second < 60 { 4 << 30 } else { 0 };
        (5u64 << 30).saturating_sub(other + u64::from(cache) * REGION)
    };
    let sizes = course(&mut governor, 0, 60, &mut cache, left);
    assert_eq!((sizes[0], sizes[59]), (8, 8), "what is between the marks leaves all as it is");
    let sizes = course(&mut governor, 60, 120, &mut cache, left);
    let after = CACHE_GROWS_AFTER.as_ms() as usize / 1000;
    assert_eq!((sizes[after - 1], sizes[after]), (8, 9));
    let every = CACHE_GROWS_EVERY.as_ms() as usize / 1000;
    assert_eq!((sizes[after + every - 1], sizes[after + every], sizes[119]), (9, 10, 16));
}

#[test]
fn it_grows_only_as_far_as_the_high_mark_allows_and_then_rests() {
    let (mut governor, mut cache) = (governor(), 4);
    let left = |_, cache: u32| 2 * LOW + 6 * REGION - u64::from(cache) * REGION;
    let sizes = course(&mut governor, 0, 600, &mut cache, left);
    assert_eq!(sizes[599], 6, "one more would leave less than the high mark");
    assert!(sizes.is_sorted(), "no swinging: {sizes:?}");
}

#[test]
fn a_short_calm_or_a_cache_with_room_does_not_grow() {
    let (mut governor, mut cache) = (governor(), 4);
    // Every 20 seconds memory is short of the high mark for a moment.
    let left = |second: u64, _| if second.is_multiple_of(20) { 2 * LOW } else { TOTAL };
    let sizes = course(&mut governor, 0, 300, &mut cache, left);
    assert_eq!(sizes[299], 4);
    let idle = CacheFacts { is_full: false, ..settled(4) };
    for second in 300..400 {
        let now = Instant(0) + Span::from_secs(second);
        assert_eq!(governor.handle_look(&host(TOTAL), idle, now), Wish::Stay);
    }
    let now = Instant(0) + Span::from_secs(400);
    assert_eq!(governor.handle_look(&host(TOTAL), settled(4), now), Wish::Grow(5));
    let mut leaving = settled(4);
    leaving.regions.leaving = 1;
    let now = now + CACHE_GROWS_EVERY;
    assert_eq!(governor.handle_look(&host(TOTAL), leaving, now), Wish::Stay, "one thing after the other");
}
