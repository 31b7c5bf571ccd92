use super::*;
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;
use crate::base::rng::Rng;
use crate::storage::journal::{Subject, replay};

const PIECES: u32 = 40;
const FILES: u32 = 5;
const PIECE: u32 = 16 << 10;

fn subject() -> Subject {
    let geometry = Geometry::new(u64::from(PIECES * PIECE), PIECE);
    Subject { info_hash: InfoHash([3; 20]), geometry, file_count: FILES, secret_id: 1 }
}

fn machine(policy: SyncPolicy) -> Durability {
    Durability::new(JournalState::new(subject()), None, policy)
}

const LATER: SyncPolicy = SyncPolicy { bytes: u64::MAX, delay: Span::from_secs(5) };

/// A machine whose journal has been begun.
fn begun(policy: SyncPolicy) -> Durability {
    let mut machine = machine(policy);
    assert!(matches!(machine.poll(Instant(0)), Some(Intent::Replace { .. })));
    assert!(machine.handle_replaced(true).is_empty() && machine.is_idle());
    machine
}

fn write(machine: &mut Durability, piece: u32, files: &[u32], now: Instant) {
    let files = files.iter().map(|&file| FileIndex(file));
    assert!(machine.handle_written(piece, files, [u64::from(piece)].into(), now));
}

fn sync(file: u32) -> Option<Intent> {
    Some(Intent::Sync { file: FileIndex(file) })
}

/// Appends and syncs the journal.
fn journal(machine: &mut Durability) -> Vec<u32> {
    assert!(matches!(machine.poll(Instant(0)), Some(Intent::Append { .. })));
    assert_eq!(machine.poll(Instant(0)), None);
    machine.handle_appended(true);
    assert_eq!(machine.poll(Instant(0)), Some(Intent::SyncJournal));
    machine.handle_journal_synced(true)
}

#[test]
fn what_a_killed_process_left_in_its_journal_is_durable_only_once_that_is_on_disk() {
    let mut state = JournalState::new(subject());
    assert!(state.apply(&Record::Durable { piece: 7, fingerprints: [1].into() }));
    let mut machine = Durability::new(state, None, LATER);
    assert_eq!(machine.durable().count(), 0);
    for ok in [false, true] {
        machine.retry();
        assert!(matches!(machine.poll(Instant(0)), Some(Intent::Replace { .. })));
        assert_eq!(machine.handle_replaced(ok), if ok { vec![7] } else { Vec::new() });
    }
    assert_eq!(machine.durable().ones().collect::<Vec<_>>(), [7]);
}

#[test]
fn a_piece_is_durable_after_all_its_files_and_the_journal() {
    let mut machine = begun(LATER);
    write(&mut machine, 7, &[1, 2], Instant(0));
    assert_eq!(machine.poll(Instant(0)), None);
    machine.flush();
    assert_eq!((machine.poll(Instant(0)), machine.poll(Instant(0))), (sync(1), sync(2)));
    write(&mut machine, 8, &[2], Instant(0));
    assert!(machine.handle_synced(FileIndex(2), true).is_empty());
    assert_eq!(machine.poll(Instant(0)), None, "file 1 is not synced yet");
    assert!(machine.handle_synced(FileIndex(1), true).is_empty());
    assert_eq!(journal(&mut machine), [7], "8 was written after the sync of file 2 had begun");
    assert!(machine.state().is_durable(7) && !machine.state().is_durable(8) && !machine.is_idle());
}

#[test]
fn a_sync_is_asked_for_at_the_byte_limit_and_at_the_deadline() {
    let policy = SyncPolicy { bytes: u64::from(3 * PIECE), delay: Span::from_secs(5) };
    let mut machine = begun(policy);
    for (piece, due) in [(0, false), (1, false), (2, true)] {
        assert_eq!(machine.poll(Instant(9)), None);
        write(&mut machine, piece, &[0], Instant(9 + u64::from(piece)));
        assert_eq!(machine.poll(Instant(9)), if due { sync(0) } else { None });
    }
    assert_eq!(machine.poll_timeout(), None, "a round is under way");
    assert!(machine.handle_synced(FileIndex(0), true).is_empty());
    assert_eq!(journal(&mut machine), [0, 1, 2]);
    assert_eq!(machine.poll_timeout(), None);

    write(&mut machine, 3, &[0], Instant(100));
    let deadline = Instant(100) + policy.delay;
    assert_eq!(machine.poll_timeout(), Some(deadline));
    assert_eq!(machine.poll(Instant(deadline.0 - 1)), None);
    assert_eq!(machine.poll(deadline), sync(0));
}

#[test]
fn no_more_syncs_are_in_flight_than_the_limit() {
    let mut machine = begun(LATER);
    for file in 0..SYNCS_IN_FLIGHT_MAX as u32 + 2 {
        write(&mut machine, file, &[file], Instant(0));
    }
    machine.flush();
    for file in 0..SYNCS_IN_FLIGHT_MAX as u32 {
        assert_eq!(machine.poll(Instant(0)), sync(file));
    }
    assert_eq!(machine.poll(Instant(0)), None);
    assert!(machine.handle_synced(FileIndex(3), true).is_empty());
    assert_eq!(machine.poll(Instant(0)), sync(SYNCS_IN_FLIGHT_MAX as u32));
    assert_eq!(machine.poll(Instant(0)), None);
}

/// Threat S11.
#[test]
fn a_failed_sync_loses_all_that_waited_for_the_file_and_the_file_takes_no_more() {
    let mut machine = begun(LATER);
    for (piece, files) in [(1, &[0][..]), (2, &[0, 1]), (3, &[1])] {
        write(&mut machine, piece, files, Instant(0));
    }
    machine.flush();
    assert_eq!((machine.poll(Instant(0)), machine.poll(Instant(0))), (sync(0), sync(1)));
    write(&mut machine, 4, &[0], Instant(0));
    assert!(machine.handle_synced(FileIndex(1), true).is_empty());
    assert_eq!(machine.handle_synced(FileIndex(0), false), [1, 2, 4]);
    assert!(!machine.handle_written(5, [FileIndex(0), FileIndex(1)], [5].into(), Instant(0)));
    assert_eq!(journal(&mut machine), [3]);
    assert!(machine.is_idle());
}

#[test]
fn a_failed_journal_is_replaced_and_loses_nothing() {
    for broken_append in [true, false] {
        let mut machine = begun(LATER);
        write(&mut machine, 1, &[0], Instant(0));
        machine.flush();
        assert_eq!(machine.poll(Instant(0)), sync(0));
        assert!(machine.handle_synced(FileIndex(0), true).is_empty());
        assert!(matches!(machine.poll(Instant(0)), Some(Intent::Append { .. })));
        machine.handle_appended(!broken_append);
        if !broken_append {
            assert_eq!(machine.poll(Instant(0)), Some(Intent::SyncJournal));
            assert!(machine.handle_journal_synced(false).is_empty());
        }
        assert!(machine.is_stalled() && machine.poll(Instant(0)).is_none());
        machine.retry();
        let Some(Intent::Replace { bytes }) = machine.poll(Instant(0)) else { panic!("no replacement") };
        assert!(replay(&bytes, &subject()).unwrap().state.is_durable(1));
        assert!(!machine.state().is_durable(1), "not before it is on disk");
        assert_eq!(machine.handle_replaced(true), [1]);
        assert!(machine.is_idle());
    }
}

/// Threat S11: what the failed sync threw away is read on until the power fails.
#[test]
fn a_clean_mark_whose_sync_failed_is_cut_off_and_a_later_one_counts() {
    for (broken_append, appended) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut machine = machine(LATER);
        let Some(Intent::Replace { mut bytes }) = machine.poll(Instant(0)) else { panic!("no journal") };
        assert!(machine.handle_replaced(true).is_empty());
        if appended {
            write(&mut machine, 1, &[], Instant(0));
            let Some(Intent::Append { bytes: more }) = machine.poll(Instant(0)) else { panic!("no append") };
            bytes.extend_from_slice(&more);
            machine.handle_appended(true);
            assert_eq!(machine.poll(Instant(0)), Some(Intent::SyncJournal));
            assert_eq!(machine.handle_journal_synced(true), [1]);
        }
        machine.close([]);
        let Some(Intent::Append { bytes: more }) = machine.poll(Instant(0)) else { panic!("no mark") };
        assert!(replay(&[&bytes[..], &more].concat(), &subject()).unwrap().state.is_clean());
        machine.handle_appended(!broken_append);
        if !broken_append {
            assert_eq!(machine.poll(Instant(0)), Some(Intent::SyncJournal));
            assert!(machine.handle_journal_synced(false).is_empty());
        }
        assert_eq!(machine.poll(Instant(0)), Some(Intent::Cut { len: bytes.len() as u64 }));
        assert_eq!(machine.poll(Instant(0)), None);
        machine.handle_cut();
        assert!(machine.is_stalled() && !machine.state().is_clean());
        let found = replay(&bytes, &subject()).unwrap();
        assert!(found.whole && !found.state.is_clean() && found.state.is_durable(1) == appended);
        machine.retry();
        let Some(Intent::Replace { bytes }) = machine.poll(Instant(0)) else { panic!("no replacement") };
        assert!(machine.handle_replaced(true).is_empty() && machine.state().is_clean());
        assert!(replay(&bytes, &subject()).unwrap().state.is_clean());
    }
}

#[test]
fn a_lost_piece_is_struck_out_even_while_it_is_being_journaled() {
    let mut machine = begun(LATER);
    write(&mut machine, 1, &[], Instant(0));
    assert!(matches!(machine.poll(Instant(0)), Some(Intent::Append { .. })));
    machine.handle_lost(1);
    machine.handle_appended(true);
    assert_eq!(machine.poll(Instant(0)), Some(Intent::SyncJournal));
    assert!(machine.handle_journal_synced(true).is_empty());
    assert!(journal(&mut machine).is_empty());
    assert!(!machine.state().is_durable(1) && machine.is_idle());
}

/// A journal and files that forget what is not synced.
struct Disk {
    /// Per file, the pieces whose bytes are in it: surely, or only until the next crash.
    stable: Vec<BTreeSet<u32>>,
    cached: Vec<BTreeSet<u32>>,
    /// What the cache held when the sync in flight began.
    syncing: Vec<Option<BTreeSet<u32>>>,
    journal: Vec<u8>,
    journal_stable: usize,
}

impl Disk {
    fn new() -> Self {
        let none = vec![BTreeSet::new(); FILES as usize];
        let syncing = vec![None; FILES as usize];
        Self { stable: none.clone(), cached: none, syncing, journal: Vec::new(), journal_stable: 0 }
    }

    fn finish_sync(&mut self, file: FileIndex, ok: bool) {
        let file = file.0 as usize;
        let seen = self.syncing[file].take().unwrap();
        if ok {
            self.cached[file].retain(|piece| !seen.contains(piece));
            self.stable[file].extend(seen);
        } else {
            // The pages count as clean now: no later sync writes them.
            self.cached[file].clear();
        }
    }

    /// What a crash leaves: of what was not synced, an arbitrary part.
    fn crash(&mut self, rng: &mut Rng) {
        for (stable, cached) in self.stable.iter_mut().zip(&self.cached) {
            stable.extend(cached.iter().filter(|_| rng.below(2) == 0));
        }
        let unsynced = (self.journal.len() - self.journal_stable) as u32;
        let torn = self.journal_stable + rng.below(unsynced + 1) as usize;
        for byte in &mut self.journal[torn..] {
            *byte = if rng.below(2) == 0 { 0 } else { *byte };
        }
        if rng.below(2) == 0 {
            self.journal.truncate(torn);
        }
    }
}

fn files_of(piece: u32) -> Vec<FileIndex> {
    let first = piece * FILES / PIECES;
    let last = ((piece + 3) * FILES / PIECES).min(FILES - 1);
    (first..=last).map(FileIndex).collect()
}

/// The machine with its disk, the intentions under way, and what it has said so far.
struct World {
    machine: Durability,
    disk: Disk,
    under_way: Vec<Intent>,
    now: Instant,
    durable: BTreeSet<u32>,
    /// Never written, or written and given up: may be written (again).
    missing: BTreeSet<u32>,
    half_written: Option<u32>,
}

impl World {
    fn new() -> Self {
        let machine = machine(SyncPolicy { bytes: u64::from(4 * PIECE), delay: Span(50) });
        let missing = (0..PIECES).collect();
        let (disk, now, durable) = (Disk::new(), Instant(0), BTreeSet::new());
        Self { machine, disk, under_way: Vec::new(), now, durable, missing, half_written: None }
    }

    /// Writes half of a piece, or the other half of the one begun before: a sync may fail between.
    fn write(&mut self, rng: &mut Rng) {
        let Some(piece) = self.half_written.take() else {
            let pick = rng.below(self.missing.len() as u32) as usize;
            self.half_written = self.missing.iter().nth(pick).copied();
            if let Some(piece) = self.half_written {
                self.disk.cached[files_of(piece)[0].0 as usize].insert(piece);
            }
            return;
        };
        for file in &files_of(piece)[1..] {
            self.disk.cached[file.0 as usize].insert(piece);
        }
        if self.machine.handle_written(piece, files_of(piece), [piece.into()].into(), self.now) {
            self.missing.remove(&piece);
        }
    }

    /// Carries out the next intention, or begins it if it takes time.
    fn begin(&mut self) {
        let Some(intent) = self.machine.poll(self.now) else { return };
        match &intent {
            Intent::Sync { file } => {
                let file = file.0 as usize;
                assert!(self.disk.syncing[file].replace(self.disk.cached[file].clone()).is_none());
            }
            Intent::Append { bytes } => self.disk.journal.extend_from_slice(bytes),
            Intent::Replace { .. } | Intent::SyncJournal | Intent::Cut { .. } => {}
        }
        self.under_way.push(intent);
    }

    fn finish(&mut self, rng: &mut Rng) {
        if self.under_way.is_empty() {
            return;
        }
        let intent = self.under_way.swap_remove(rng.below(self.under_way.len() as u32) as usize);
        let ok = rng.below(12) > 0;
        match intent {
            Intent::Sync { file } => {
                self.disk.finish_sync(file, ok);
                self.missing.extend(self.machine.handle_synced(file, ok));
            }
            Intent::Append { .. } => self.machine.handle_appended(ok),
            Intent::SyncJournal => {
                if ok {
                    self.disk.journal_stable = self.disk.journal.len();
                }
                self.durable.extend(self.machine.handle_journal_synced(ok));
            }
            Intent::Cut { .. } => unreachable!("it is not closed"),
            Intent::Replace { bytes } => {
                if ok || rng.below(2) == 0 {
                    // A failure may come before the rename or after.
                    (self.disk.journal_stable, self.disk.journal) = (bytes.len(), bytes);
                }
                self.durable.extend(self.machine.handle_replaced(ok));
            }
        }
    }

    fn check_invariants(&self) {
        for (piece, waiting) in &self.machine.waiting {
            for (file, queue) in &self.machine.files {
                let queued = queue.covered.contains(piece) || queue.next.contains(piece);
                assert_eq!(queued, waiting.files.contains(file));
            }
            assert!(!waiting.files.is_empty());
            assert!(waiting.files.iter().all(|file| !self.machine.failed.contains(file)));
        }
        let queued: usize =
            self.machine.files.values().map(|queue| queue.covered.len() + queue.next.len()).sum();
        assert_eq!(queued, self.machine.waiting.values().map(|waiting| waiting.files.len()).sum::<usize>());
    }

    /// After a crash the journal names only what is on disk, and all that was called durable.
    fn crash(mut self, rng: &mut Rng, seed: u64) {
        self.disk.crash(rng);
        if self.disk.journal.is_empty() {
            assert!(self.durable.is_empty());
            return;
        }
        let found = replay(&self.disk.journal, &subject()).unwrap().state.durable();
        for piece in found.ones() {
            let there = files_of(piece).iter().all(|file| self.disk.stable[file.0 as usize].contains(&piece));
            assert!(there, "seed {seed}: piece {piece} is in the journal and not on disk");
        }
        for &piece in &self.durable {
            assert!(found.get(piece), "seed {seed}: piece {piece} was durable and is not in the journal");
        }
    }
}

/// Threats S1, S2, S3: random work, random failures, a crash at a random moment.
#[test]
fn a_crash_never_finds_more_in_the_journal_than_on_disk_nor_less_than_was_promised() {
    let mut promised = 0;
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let mut world = World::new();
        for _ in 0..rng.below(400) {
            match rng.below(10) {
                0 | 1 => world.write(&mut rng),
                2..=5 => world.begin(),
                6..=8 => world.finish(&mut rng),
                _ => match rng.below(8) {
                    0 => world.machine.flush(),
                    1 => world.machine.retry(),
                    _ => world.now = world.now + Span(10),
                },
            }
            world.check_invariants();
        }
        promised += world.durable.len();
        world.crash(&mut rng, seed);
    }
    assert!(promised > 4000, "the test must reach durable pieces: {promised}");
}

/// Without failures all work ends, whatever the order.
#[test]
fn all_that_is_written_becomes_durable_and_the_stop_is_clean() {
    let mut machine = machine(SyncPolicy::default());
    for piece in 0..PIECES {
        write(
            &mut machine,
            piece,
            &files_of(piece).iter().map(|file| file.0).collect::<Vec<_>>(),
            Instant(0),
        );
    }
    machine.flush();
    let (mut bytes, mut durable) = (Vec::new(), Vec::new());
    let drive = |machine: &mut Durability, bytes: &mut Vec<u8>, durable: &mut Vec<u32>| {
        while let Some(intent) = machine.poll(Instant(0)) {
            match intent {
                Intent::Sync { file } => assert!(machine.handle_synced(file, true).is_empty()),
                Intent::Append { bytes: more } => {
                    bytes.extend_from_slice(&more);
                    machine.handle_appended(true);
                }
                Intent::SyncJournal => durable.extend(machine.handle_journal_synced(true)),
                Intent::Cut { .. } => panic!("nothing has failed"),
                Intent::Replace { bytes: all } => {
                    *bytes = all;
                    durable.extend(machine.handle_replaced(true));
                }
            }
        }
        assert!(machine.is_idle());
    };
    drive(&mut machine, &mut bytes, &mut durable);
    assert_eq!(durable, (0..PIECES).collect::<Vec<_>>());
    assert!(!replay(&bytes, &subject()).unwrap().state.is_clean());

    let identity = FileIdentity { len: 1, mtime_ns: 2, ctime_ns: 3, inode: 4, dev: 5 };
    machine.close((0..FILES).map(|file| (FileIndex(file), identity)));
    drive(&mut machine, &mut bytes, &mut durable);
    let replayed = replay(&bytes, &subject()).unwrap();
    assert!(replayed.state.is_clean() && replayed.state.durable().is_full());
    assert_eq!(replayed.state.file(FILES - 1), Some(identity));

    let mut next = Durability::new(replayed.state, Some(replayed.writer), SyncPolicy::default());
    assert!(matches!(next.poll(Instant(0)), Some(Intent::Append { .. })), "the clean mark is undone first");
}
