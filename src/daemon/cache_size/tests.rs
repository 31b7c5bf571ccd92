use super::*;

const REGION: u64 = REGION_BYTES;
const AMPLE: u64 = 1 << 50;

/// A host with so much memory, and nothing else that bounds.
fn host(memory_bytes: u64) -> Host {
    Host { memory_bytes: Some(memory_bytes), ..Host::default() }
}

fn cgroup(bytes: u64) -> Option<CgroupRoom> {
    Some(CgroupRoom { bytes, limit_bytes: 2 * bytes, file: "/sys/fs/cgroup/x/memory.max".to_owned() })
}

fn choose(asked: Option<u64>, host: &Host) -> (u64, &'static str) {
    let size = CacheSize::choose(asked, REGION, host);
    assert_eq!(size.bytes % REGION, 0);
    (size.bytes / REGION, size.decided_by())
}

#[test]
fn the_default_is_a_quarter_of_what_is_available_in_whole_regions() {
    for (memory, regions) in [(8 * REGION - 1, 1), (8 * REGION, 2), (8 * REGION + 1, 2), (400 * REGION, 100)]
    {
        assert_eq!(choose(None, &host(memory)), (regions, "memory"), "{memory}");
    }
    assert_eq!(choose(None, &Host::default()), (4, "memory"), "unknown");
}

#[test]
fn a_control_group_counts_when_it_has_less_than_the_machine() {
    for (room, by) in [(8 * REGION - 1, "cgroup"), (8 * REGION, "memory"), (8 * REGION + 1, "memory")] {
        let host = Host { cgroup: cgroup(room), ..host(8 * REGION) };
        assert_eq!(choose(None, &host).1, by, "{room}");
    }
    let host = Host { cgroup: cgroup(8 * REGION), ..Host::default() };
    assert_eq!(choose(None, &host), (2, "cgroup"));
}

#[test]
fn what_is_asked_for_is_given_up_to_seven_eighths_of_the_room() {
    for (asked, given) in [
        (7 * REGION - 1, (6, "asked")),
        (7 * REGION, (7, "asked")),
        (8 * REGION - 1, (7, "asked")),
        (8 * REGION, (7, "memory")),
        (u64::MAX, (7, "memory")),
    ] {
        assert_eq!(choose(Some(asked), &host(8 * REGION)), given, "{asked}");
        let crowded = Host { cgroup: cgroup(8 * REGION), ..host(AMPLE) };
        let by = if given.1 == "memory" { "cgroup" } else { given.1 };
        assert_eq!(choose(Some(asked), &crowded), (given.0, by), "{asked}");
    }
}

#[test]
fn no_limit_leaves_less_than_the_least() {
    for host in [host(0), Host { cgroup: cgroup(0), ..host(AMPLE) }] {
        for asked in [None, Some(100 * REGION)] {
            assert_eq!(choose(asked, &host), (1, "minimum"), "{host:?}");
            let warning = CacheSize::choose(asked, REGION, &host).warning(&host).unwrap();
            assert!(warning.starts_with("the cache has 64.0 MiB, the least that works ("), "{warning}");
        }
    }
    for (asked, by) in [(REGION - 1, "minimum"), (REGION, "asked"), (REGION + 1, "asked")] {
        assert_eq!(choose(Some(asked), &host(AMPLE)), (1, by));
    }
}

#[test]
fn more_than_a_ring_can_register_is_cut() {
    let most = u64::from(REGIONS_MAX);
    for (regions, given) in
        [(most - 1, (most - 1, "asked")), (most, (most, "asked")), (most + 1, (most, "buffers"))]
    {
        assert_eq!(choose(Some(regions * REGION), &host(AMPLE)), given);
    }
}

#[test]
fn the_least_holds_four_of_the_longest_pieces() {
    use crate::base::limits::PIECE_BYTES_MAX;
    use crate::base::units::CHUNK_BYTES;
    for chunks in [1, 61, 62, 63, 64, 256, PIECE_BYTES_MAX / CHUNK_BYTES] {
        let slots = least_bytes(chunks) / REGION * u64::from(SLOTS_PER_REGION);
        assert!(slots >= CACHED_PIECES_MIN * u64::from(chunks), "{slots} slots for {chunks}");
    }
    assert_eq!([61, 62, 63].map(|chunks| least_bytes(chunks) / REGION), [1, 1, 2]);
}

#[test]
fn a_warning_names_the_limit_and_the_command_that_lifts_it() {
    let crowded = Host { cgroup: cgroup(4 * REGION), ..host(AMPLE) };
    let high = CgroupRoom { file: "/x/memory.high".to_owned(), ..cgroup(4 * REGION).unwrap() };
    let throttled = Host { cgroup: Some(high), ..host(AMPLE) };
    for (host, parts) in [
        (
            &host(4 * REGION),
            ["the cache has 192 MiB, not 640 MiB", "256 MiB of memory available", "`free -h`"],
        ),
        (&crowded, ["256 MiB left of 512 MiB", "/sys/fs/cgroup/x/memory.max", "MemoryMax="]),
        (&throttled, ["left of", "/x/memory.high", "MemoryHigh="]),
    ] {
        let warning = CacheSize::choose(Some(10 * REGION), REGION, host).warning(host).unwrap();
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
        assert!(!warning.contains('\n'));
    }
    let small = CacheSize::choose(Some(1), REGION, &host(AMPLE)).warning(&host(AMPLE)).unwrap();
    assert!(small.contains("pieces that are begun"), "{small}");
}

#[test]
fn nothing_is_said_of_a_size_that_is_as_wanted() {
    for (asked, host) in [(None, host(8 * REGION)), (Some(3 * REGION + 1), host(AMPLE))] {
        assert_eq!(CacheSize::choose(asked, REGION, &host).warning(&host), None);
    }
}
