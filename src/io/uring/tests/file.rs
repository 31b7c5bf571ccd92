//! Files: direct and buffered, registered memory and plain.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::units::{CHUNK_BYTES, PAGE_BYTES};
use crate::io::FileOp;
use crate::io::uring::FilePair;

use super::*;

/// Opens a file both ways; without direct I/O where the file system (tmpfs) has none.
fn open(path: &Path) -> Arc<FilePair> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let buffered = options.open(path).unwrap();
    let direct = options.custom_flags(libc::O_DIRECT).open(path).ok();
    Arc::new(FilePair::new(direct.map(Into::into), buffered.into()))
}

pub(super) struct Files {
    pub(super) rig: Rig,
    file: Arc<FilePair>,
    _directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self::on(Rig::new(64))
    }

    pub(super) fn on(rig: Rig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = open(&directory.path().join("payload"));
        Self { rig, file, _directory: directory }
    }

    fn op(&self, direct: bool, file_offset: u64, slot: u32, offset: u32, len: u32) -> FileOp<Arc<FilePair>> {
        let file = self.file.clone();
        FileOp { token: file_offset + 1, file, direct, file_offset, slot: SlotId(slot), offset, len }
    }

    fn read(&mut self, op: FileOp<Arc<FilePair>>) -> Result<u32, Errno> {
        let wanted = op.token;
        self.rig.uring.read(op);
        self.rig.expect("Read", |done| match *done {
            Completion::Read { token, result } if token == wanted => Some(result),
            _ => None,
        })
    }

    fn write(&mut self, op: FileOp<Arc<FilePair>>) -> Result<u32, Errno> {
        let wanted = op.token;
        self.rig.uring.write(op);
        self.rig.expect("Written", |done| match *done {
            Completion::Written { token, result } if token == wanted => Some(result),
            _ => None,
        })
    }
}

/// Writes a chunk and its unaligned tail, and reads both back into another slot.
pub(super) fn round_trip(files: &mut Files, direct: bool) {
    round_trip_at(files, direct, 0);
}

/// The same in slots from `first` on.
pub(super) fn round_trip_at(files: &mut Files, direct: bool, first: u32) {
    let [from, to] = [first + 1, first + 2];
    let bytes = pattern(u32::from(direct), CHUNK_BYTES as usize + 5);
    files.rig.arena.copy_in(SlotId(from), 0, &bytes);
    let op = files.op(direct, u64::from(PAGE_BYTES), from, 0, CHUNK_BYTES);
    assert_eq!(files.write(op), Ok(CHUNK_BYTES));
    let end = u64::from(PAGE_BYTES + CHUNK_BYTES);
    let tail = files.op(false, end, from, CHUNK_BYTES, 5);
    assert_eq!(files.write(tail), Ok(5));
    files.rig.arena.zero(SlotId(to), 0, CHUNK_BYTES + PAGE_BYTES);
    assert_eq!(files.read(files.op(direct, u64::from(PAGE_BYTES), to, 0, CHUNK_BYTES)), Ok(CHUNK_BYTES));
    // Beyond the end of the file: short.
    assert_eq!(files.read(files.op(false, end, to, CHUNK_BYTES, 100)), Ok(5));
    assert_eq!(files.rig.arena.payload(SlotId(to), 0, CHUNK_BYTES + 5), bytes);
    assert_eq!(files.read(files.op(false, end + 5, to, 0, 100)), Ok(0));
}

#[test]
fn a_chunk_is_written_and_read_directly_and_through_the_page_cache() {
    let mut files = Files::new();
    for direct in [true, false] {
        round_trip(&mut files, direct);
    }
    // The ring registers a region when it is first used, if the host's limit allows it.
    assert!(files.rig.uring.registered_regions().0 <= 1);
}

#[test]
fn unregistered_memory_does_as_well() {
    let mut files = Files::new();
    files.rig.uring.regions.forbid();
    for direct in [true, false] {
        round_trip(&mut files, direct);
    }
    assert_eq!(files.rig.uring.registered_regions(), (0, 0));
}

#[test]
fn a_file_without_direct_io_goes_through_the_page_cache() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("payload");
    let mut files = Files::new();
    let buffered = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    files.file = Arc::new(FilePair::new(None, buffered.into()));
    assert!(!files.file.has_direct());
    round_trip(&mut files, true);
}

#[test]
fn an_offset_that_direct_io_refuses_goes_through_the_page_cache() {
    let mut files = Files::new();
    files.rig.arena.copy_in(SlotId(0), 0, b"0123456789");
    assert_eq!(files.write(files.op(true, 3, 0, 0, 10)), Ok(10));
    assert_eq!(files.read(files.op(true, 4, 0, 100, 10)), Ok(9));
    assert_eq!(files.rig.arena.payload(SlotId(0), 100, 10), b"123456789\0");
}

#[test]
fn errors_come_back_and_the_file_is_let_go() {
    let mut files = Files::new();
    let read_only = std::fs::File::open("/proc/self/exe").unwrap();
    files.file = Arc::new(FilePair::new(None, read_only.into()));
    let file = Arc::downgrade(&files.file);
    assert_eq!(files.write(files.op(false, 0, 0, 0, 10)), Err(Errno(libc::EBADF)));
    files.file = open(&files._directory.path().join("payload"));
    assert_eq!(file.strong_count(), 0);
    assert_eq!(files.rig.uring.files.len(), 0);
}

#[test]
fn many_operations_at_a_time_each_bring_their_own_bytes() {
    const COUNT: u32 = 200;
    let mut files = Files::new();
    for slot in 0..COUNT {
        files.rig.arena.copy_in(SlotId(slot), 0, &pattern(slot, PAGE_BYTES as usize));
        let op = files.op(true, u64::from(slot * PAGE_BYTES), slot, 0, PAGE_BYTES);
        files.rig.uring.write(op);
    }
    let mut seen: Vec<u64> = (0..COUNT)
        .map(|_| {
            files.rig.expect("Written", |done| match *done {
                Completion::Written { token, result: Ok(PAGE_BYTES) } => Some(token - 1),
                _ => None,
            })
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.iter().enumerate().all(|(at, offset)| *offset == at as u64 * u64::from(PAGE_BYTES)));
    for slot in 0..COUNT {
        assert_eq!(
            files.read(files.op(true, u64::from(slot * PAGE_BYTES), 240, 0, PAGE_BYTES)),
            Ok(PAGE_BYTES)
        );
        assert_eq!(files.rig.arena.payload(SlotId(240), 0, PAGE_BYTES), pattern(slot, PAGE_BYTES as usize));
    }
}

#[test]
fn a_ring_with_disk_work_in_flight_is_dropped_safely() {
    let mut files = Files::new();
    for slot in 0..100 {
        files.rig.uring.write(files.op(slot % 2 == 0, u64::from(slot) << 18, slot, 0, CHUNK_BYTES));
    }
    files.rig.uring.turn(Some(files.rig.uring.now()), &mut files.rig.seen);
    files.rig.uring.read(files.op(true, 0, 100, 0, CHUNK_BYTES));
    let (arena, file) = (Arc::downgrade(&files.rig.arena), Arc::downgrade(&files.file));
    drop(files);
    assert_eq!((arena.strong_count(), file.strong_count()), (0, 0));
}
