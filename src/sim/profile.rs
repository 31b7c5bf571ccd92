//! What goes wrong, and how often: one struct of named knobs, drawn from a seed.
//!
//! Rates are per million operations (`_ppm`). A seed leaves about half of the faults off, so that
//! some runs are hit by one kind of fault alone and some by many at once.

use crate::base::rng::Rng;

/// A closed range from which a value is drawn per use.
pub type Draw = (u64, u64);

/// The knobs of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// One-way latency between two hosts, in nanoseconds; drawn once per connection.
    pub latency_ns: Draw,
    /// Extra delay of one packet, in nanoseconds; order within a connection is kept.
    pub jitter_ns: Draw,
    /// Speed of a host's link in each direction, in bytes per second; drawn once per host.
    pub link_bytes_per_sec: Draw,
    /// Bytes that one direction of a connection holds, sent but not yet read; drawn per connection.
    pub window_bytes: Draw,
    /// Sends and receives that move fewer bytes than they could.
    pub short_ppm: u32,
    /// Of those, the ones that move a single byte.
    pub tiny_ppm: u32,
    /// Packets whose arrival resets the connection.
    pub reset_ppm: u32,
    /// Packets that are held up for `stall_ns`.
    pub stall_ppm: u32,
    /// How long a held-up packet waits, in nanoseconds.
    pub stall_ns: Draw,
    /// Dials that are refused although somebody listens.
    pub refuse_ppm: u32,
    /// Dials that are never answered.
    pub unanswered_ppm: u32,
    /// Completions that are ready but held back to a later turn.
    pub defer_ppm: u32,
    /// Most completions of one turn.
    pub batch_max: u32,
    /// Processor time of one turn, in nanoseconds.
    pub turn_ns: Draw,
    /// Processor time of one completion on a core of a node, in nanoseconds.
    pub completion_ns: u64,
    /// Processor time of each byte that a core sends or receives, in picoseconds.
    pub byte_ps: u64,
    /// Time between the close of a connection and its `Closed`, in nanoseconds.
    pub close_ns: Draw,
    /// Duration of a file read, in nanoseconds.
    pub read_ns: Draw,
    /// Duration of a file write, in nanoseconds.
    pub write_ns: Draw,
    /// Reads that fail with EIO.
    pub read_error_ppm: u32,
    /// Writes that fail with EIO.
    pub write_error_ppm: u32,
    /// Syncs that fail with EIO; what they should have made durable may then never become so.
    pub sync_error_ppm: u32,
    /// Reads and writes that end short.
    pub short_file_ppm: u32,
    /// Reads that bring one flipped bit.
    pub rot_ppm: u32,
    /// Reads that bring the bytes of another place of the file.
    pub misdirect_ppm: u32,
    /// Bytes that all files of one disk may take together.
    pub quota_bytes: u64,
    /// The unit in which a disk keeps or loses what was not synced: 512 or 4096.
    pub sector_bytes: u32,
    /// Share of unsynced writes that a crash loses as a whole.
    pub crash_lose_ppm: u32,
    /// Share of unsynced writes that a crash tears, sector by sector.
    pub crash_tear_ppm: u32,
    /// Share of remote peers that misbehave.
    pub hostile_ppm: u32,
}

/// One million: the whole, in the unit of all rates.
pub const PPM: u32 = 1_000_000;

impl Profile {
    /// Nothing goes wrong; a fast local network and a fast disk.
    pub const fn calm() -> Self {
        Self {
            latency_ns: (100_000, 200_000),
            jitter_ns: (0, 0),
            link_bytes_per_sec: (1 << 30, 1 << 30),
            window_bytes: (1 << 20, 1 << 20),
            short_ppm: 0,
            tiny_ppm: 0,
            reset_ppm: 0,
            stall_ppm: 0,
            stall_ns: (0, 0),
            refuse_ppm: 0,
            unanswered_ppm: 0,
            defer_ppm: 0,
            batch_max: 256,
            turn_ns: (1_000, 1_000),
            completion_ns: 0,
            byte_ps: 0,
            close_ns: (0, 10_000),
            read_ns: (50_000, 100_000),
            write_ns: (50_000, 100_000),
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            short_file_ppm: 0,
            rot_ppm: 0,
            misdirect_ppm: 0,
            quota_bytes: u64::MAX,
            sector_bytes: 512,
            crash_lose_ppm: 400_000,
            crash_tear_ppm: 300_000,
            hostile_ppm: 0,
        }
    }

    /// The knobs of a seed, each within the range that its line names.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x70_726f_6669_6c65);
        let calm = Self::calm();
        let mut rate = |max: u32| if chance(&mut rng, PPM / 2) { 0 } else { rng.below(max) + 1 };
        let (short_ppm, tiny_ppm) = (rate(800_000), rate(300_000));
        let (reset_ppm, stall_ppm) = (rate(2_000), rate(10_000));
        let (refuse_ppm, unanswered_ppm) = (rate(200_000), rate(100_000));
        let defer_ppm = rate(500_000);
        let (read_error_ppm, write_error_ppm) = (rate(50_000), rate(50_000));
        let (sync_error_ppm, short_file_ppm) = (rate(50_000), rate(300_000));
        let (rot_ppm, misdirect_ppm) = (rate(20_000), rate(20_000));
        let hostile_ppm = rate(600_000);
        let crash_lose_ppm = rng.below(600_000);
        let mut slowest = |calm: Draw, max: u64| (calm.0, calm.1.max(draw(&mut rng, (calm.1, max))));
        Self {
            latency_ns: slowest(calm.latency_ns, 100_000_000),
            jitter_ns: slowest(calm.jitter_ns, 20_000_000),
            stall_ns: slowest((1_000_000, 1_000_000), 5_000_000_000),
            turn_ns: slowest(calm.turn_ns, 500_000),
            completion_ns: calm.completion_ns,
            byte_ps: calm.byte_ps,
            close_ns: slowest(calm.close_ns, 50_000_000),
            read_ns: slowest(calm.read_ns, 100_000_000),
            write_ns: slowest(calm.write_ns, 1_000_000_000),
            link_bytes_per_sec: (1 << 20, draw(&mut rng, (1 << 21, 1 << 30))),
            window_bytes: (4 << 10, draw(&mut rng, (16 << 10, 4 << 20))),
            batch_max: 1 + rng.below(256),
            sector_bytes: if chance(&mut rng, PPM / 2) { 512 } else { 4096 },
            crash_tear_ppm: rng.below(PPM - crash_lose_ppm),
            short_ppm,
            tiny_ppm,
            reset_ppm,
            stall_ppm,
            refuse_ppm,
            unanswered_ppm,
            defer_ppm,
            read_error_ppm,
            write_error_ppm,
            sync_error_ppm,
            short_file_ppm,
            rot_ppm,
            misdirect_ppm,
            quota_bytes: calm.quota_bytes,
            crash_lose_ppm,
            hostile_ppm,
        }
    }
}

/// True `ppm` times in a million.
pub fn chance(rng: &mut Rng, ppm: u32) -> bool {
    ppm > 0 && rng.below(PPM) < ppm
}

/// A value of the closed range. A range whose ends are out of order gives its lower end.
pub fn draw(rng: &mut Rng, (low, high): Draw) -> u64 {
    if high <= low {
        return low;
    }
    match (high - low).checked_add(1) {
        Some(values) => low + rng.next_u64() % values,
        None => rng.next_u64(),
    }
}

/// A place in `0..len`; 0 if `len` is 0.
pub fn index(rng: &mut Rng, len: usize) -> usize {
    rng.below(u32::try_from(len).unwrap_or(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_profile_and_seeds_differ() {
        assert_eq!(Profile::from_seed(7), Profile::from_seed(7));
        assert_ne!(Profile::from_seed(7), Profile::from_seed(8));
        for seed in 0..500 {
            let profile = Profile::from_seed(seed);
            assert!(profile.crash_lose_ppm + profile.crash_tear_ppm <= PPM);
            assert!(profile.batch_max > 0 && profile.window_bytes.0 > 0);
            assert!(profile.latency_ns.0 <= profile.latency_ns.1);
        }
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            assert!((3..=5).contains(&draw(&mut rng, (3, 5))));
        }
        assert_eq!(draw(&mut rng, (9, 9)), 9);
        draw(&mut rng, (0, u64::MAX));
        assert!(!chance(&mut rng, 0) && chance(&mut rng, PPM));
        let mut items: Vec<_> = (0..20).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
