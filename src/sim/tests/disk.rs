use super::two_hosts;
use crate::base::rng::Rng;
use crate::io::Errno;
use crate::sim::profile::PPM;
use crate::sim::{Disk, Profile, SimFile};

fn new_disk() -> (Disk, SimFile) {
    let mut disk = Disk::new(0, u64::MAX);
    let file = disk.open("a");
    (disk, file)
}

#[test]
fn a_crash_keeps_what_was_synced_and_only_old_or_new_sectors_of_the_rest() {
    const SECTOR: usize = 512;
    const LEN: usize = 64 * SECTOR;
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let profile = Profile { crash_lose_ppm: 300_000, crash_tear_ppm: 400_000, ..Profile::calm() };
        let (mut disk, file) = new_disk();
        disk.allocate(file, LEN as u64).unwrap();
        disk.sync(file, &profile, &mut rng).unwrap();
        // What each sector may hold after a crash: every value since the last sync.
        let mut allowed = vec![vec![0u8]; 64];
        for value in 1..=rng.below(30) as u8 + 1 {
            let first = rng.below(64) as usize;
            let count = 1 + rng.below(64 - first as u32) as usize;
            disk.write(file, (first * SECTOR) as u64, &vec![value; count * SECTOR]).unwrap();
            allowed[first..first + count].iter_mut().for_each(|values| values.push(value));
            if rng.below(4) == 0 {
                disk.sync(file, &profile, &mut rng).unwrap();
                allowed.iter_mut().for_each(|values| *values = vec![*values.last().unwrap()]);
            }
        }
        disk.crash(&profile, &mut rng);
        assert_eq!(disk.live(file), disk.durable(file));
        for (sector, values) in disk.live(file).chunks(SECTOR).zip(&allowed) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}: torn inside a sector");
            assert!(values.contains(&sector[0]), "seed {seed}: {} is not in {values:?}", sector[0]);
            let is_last = values.last() == Some(&sector[0]);
            (kept, lost) = (kept + u32::from(is_last), lost + u32::from(!is_last));
        }
    }
    assert!(kept > 1_000 && lost > 1_000, "{kept} kept, {lost} lost: the dice are loaded");
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    let mut rng = Rng::new(1);
    let lossy = Profile { crash_lose_ppm: PPM, crash_tear_ppm: 0, ..Profile::calm() };
    let (mut disk, file) = new_disk();
    disk.write(file, 0, b"first").unwrap();
    let mark = disk.sync_begin();
    disk.append(file, b" second").unwrap();
    disk.sync_end(file, mark);
    assert_eq!((disk.live(file), disk.durable(file)), (&b"first second"[..], &b"first"[..]));
    disk.crash(&lossy, &mut rng);
    assert_eq!(disk.live(file), b"first");
}

#[test]
fn after_a_failed_sync_a_good_one_does_not_bring_back_what_was_lost() {
    let mut lost = 0;
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let failing = Profile { sync_error_ppm: PPM, ..Profile::calm() };
        let (mut disk, file) = new_disk();
        disk.write(file, 0, b"data").unwrap();
        assert_eq!(disk.sync(file, &failing, &mut rng), Err(Errno::IO));
        assert_eq!(disk.live(file), b"data", "reads still see it");
        disk.sync(file, &Profile::calm(), &mut rng).unwrap();
        disk.crash(&Profile::calm(), &mut rng);
        lost += u32::from(disk.live(file) != b"data");
    }
    assert!((20..80).contains(&lost), "{lost} of 100");
}

#[test]
fn a_file_that_was_never_synced_may_vanish_and_a_synced_one_does_not() {
    let mut gone = 0;
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let profile = Profile { crash_lose_ppm: PPM / 2, ..Profile::calm() };
        let (mut disk, synced) = new_disk();
        disk.allocate(synced, 10).unwrap();
        disk.sync(synced, &profile, &mut rng).unwrap();
        disk.open("b");
        disk.rename("a", "c");
        disk.crash(&profile, &mut rng);
        assert_eq!((disk.find("c"), disk.len(synced)), (Some(synced), 10));
        gone += u32::from(disk.find("b").is_none());
    }
    assert!((20..80).contains(&gone), "{gone} of 100");
}

#[test]
fn a_full_disk_refuses_growth_and_still_takes_overwrites() {
    let (mut disk, file) = new_disk();
    disk.set_quota(10);
    disk.allocate(file, 10).unwrap();
    disk.write(file, 5, b"12345").unwrap();
    assert_eq!(disk.append(file, b"6"), Err(Errno::NO_SPACE));
    assert_eq!(disk.allocate(file, 11), Err(Errno::NO_SPACE));
    disk.set_len(file, 4).unwrap();
    disk.append(file, b"6").unwrap();
    assert_eq!((disk.read(file, 3, 9), disk.read(file, 9, 9)), (&b"\x006"[..], &b""[..]));
    assert_eq!(disk.write(file, u64::MAX, b"6"), Err(Errno(libc::EFBIG)));
}

#[test]
fn rot_stays_and_a_removed_file_is_gone() {
    let (mut disk, file) = new_disk();
    disk.write(file, 0, b"a").unwrap();
    disk.rot(file, 0, 2);
    assert_eq!(disk.live(file), b"c");
    disk.rot(file, 1, 2);
    disk.remove("a");
    assert_eq!((disk.find("a"), disk.used_bytes()), (None, 0));
}

#[test]
fn the_disk_of_a_crashed_host_forgets_operations_in_flight() {
    let (world, host, _) = two_hosts(1, Profile::calm());
    let mut io = super::core(&world, host);
    let file = world.disk(host, |disk, _, _| disk.open("a"));
    crate::io::Io::write(&mut io, super::io::file_op(file, 7, 0, 4096));
    assert_eq!(world.file_ops(host), 1);
    world.crash(host);
    assert_eq!(world.file_ops(host), 0);
    while world.step(crate::base::time::Instant(u64::MAX)) {}
    assert_eq!(world.disk(host, |disk, _, _| disk.used_bytes()), 0);
}
