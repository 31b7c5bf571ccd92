//! A disk as a naive map of bytes, through runs with changing selections.

use super::*;
use crate::base::ids::InfoHash;
use crate::base::rng::Rng;
use crate::storage::journal::{FileIdentity, Record, Subject};
use crate::storage::layout::FileSpan;
use crate::storage::plan::write_plan;
use crate::storage::resume::{believes, resume};
use crate::storage::wanted::Wanted;

/// Small files beside long pieces, so that most pieces are shared.
const PIECE: u32 = 16 << 10;

/// What is on disk: a place for each file, the part file last; `None` where there is none.
#[derive(Clone, Debug)]
struct Disk {
    files: Vec<Option<Vec<u8>>>,
    /// Goes up when a file is made.
    inodes: Vec<u64>,
    next: u64,
}

impl Disk {
    fn make(&mut self, file: usize, len: u64) {
        if self.files[file].is_none() {
            self.files[file] = Some(vec![0; len as usize]);
            self.next += 1;
            self.inodes[file] = self.next;
        }
    }

    fn identity(&self, file: usize) -> Option<FileIdentity> {
        let bytes = self.files[file].as_ref()?;
        let len = bytes.len() as u64;
        Some(FileIdentity { len, mtime_ns: 0, ctime_ns: 0, inode: self.inodes[file], dev: 1 })
    }
}

struct Model {
    plain: Layout,
    geometry: Geometry,
    payload: Vec<u8>,
    disk: Disk,
    journal: JournalState,
    /// Files that some run wanted: those may have been made.
    ever_wanted: Vec<bool>,
    rng: Rng,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.below(5);
        let spans: Vec<FileSpan> = (0..count)
            .map(|_| FileSpan { length: u64::from(rng.below(3 * PIECE)), pad: rng.below(6) == 0 })
            .chain([FileSpan { length: 1, pad: false }])
            .collect();
        let plain = Layout::new(spans.iter().copied());
        let geometry = Geometry::new(plain.total_bytes(), PIECE);
        let file_count = plain.file_count();
        let mut payload = Vec::new();
        for (file, span) in (1u8..).zip(&spans) {
            let byte = if span.pad { 0 } else { file };
            payload
                .extend((0..span.length).map(|at| byte.wrapping_add((at % 251) as u8 * u8::from(!span.pad))));
        }
        let subject = Subject { info_hash: InfoHash([1; 20]), geometry, file_count, secret_id: 1 };
        let files = vec![None; file_count as usize + 1];
        let disk = Disk { inodes: vec![0; files.len()], files, next: 0 };
        let ever_wanted = vec![false; file_count as usize];
        Self { plain, geometry, payload, disk, journal: JournalState::new(subject), ever_wanted, rng }
    }

    fn bytes_of(&self, file: FileIndex) -> &[u8] {
        let start = self.plain.file_start(file) as usize;
        &self.payload[start..start + self.plain.file_len(file) as usize]
    }

    /// One run of a node, as `daemon::start` and its keeper do it; it may be killed at each step.
    fn run(&mut self) {
        let all = [Priority::Skip, Priority::Normal];
        let chosen: Vec<Priority> =
            (0..self.plain.file_count()).map(|_| all[self.rng.below(2) as usize]).collect();
        for (ever, priority) in self.ever_wanted.iter_mut().zip(&chosen) {
            *ever |= priority.is_wanted();
        }
        let layout = self.place(&chosen);
        if !self.take_over(&layout) {
            return;
        }
        let actual: Vec<_> = (0..self.disk.files.len()).map(|file| self.disk.identity(file)).collect();
        let resume = resume(&self.journal, &layout, &actual);
        self.journal = resume.state;
        let mut have = self.journal.durable();
        for piece in resume.rehash.ones().filter(|&piece| self.reads_right(&layout, piece)) {
            have.set(piece);
        }
        for piece in have.ones() {
            assert!(self.reads_right(&layout, piece), "piece {piece} is believed and wrong");
        }
        let wanted = Wanted::new(&layout, self.geometry, &chosen);
        for file in layout.disk_files().filter(|&file| wanted.file(file).is_wanted()) {
            self.disk.make(file.0 as usize, layout.file_len(file));
        }
        if layout.has_apart() {
            self.disk.make(layout.parts().0 as usize, layout.total_bytes());
        }
        self.note_files(&layout, &resume.unknown);
        for piece in have.ones() {
            assert!(self.journal.apply(&Record::Durable { piece, fingerprints: [1].into() }));
        }
        let missing: Vec<u32> = wanted.pieces().ones().filter(|&piece| !have.get(piece)).collect();
        let fetched = self.rng.below(missing.len() as u32 + 1) as usize;
        for &piece in &missing[..fetched] {
            self.write(&layout, piece);
            if self.rng.below(8) > 0 {
                assert!(self.journal.apply(&Record::Durable { piece, fingerprints: [1].into() }));
            }
        }
        if fetched == missing.len() {
            self.check_done(&layout, &wanted);
        }
    }

    fn place(&self, chosen: &[Priority]) -> Layout {
        let apart = (0u32..).map(FileIndex).zip(chosen).map(|(file, &priority)| {
            let found = self.disk.files[file.0 as usize].is_some();
            place(Some(&self.journal), &self.plain, file, priority, found) == Place::Apart
        });
        self.plain.clone().with_apart(apart.collect())
    }

    /// False if it was killed.
    fn take_over(&mut self, layout: &Layout) -> bool {
        let parts = layout.parts().0 as usize;
        if !believes(&self.journal, self.disk.identity(parts)) {
            return true;
        }
        let (moves, before) = (moves(&self.journal, layout), self.disk.clone());
        for step in &moves {
            if self.rng.below(20) == 0 {
                return false;
            }
            self.disk.make(step.file.0 as usize, layout.file_len(step.file));
            let from = step.parts_offset as usize;
            let bytes = self.disk.files[parts].as_ref().unwrap()[from..from + step.len as usize].to_vec();
            let file = self.disk.files[step.file.0 as usize].as_mut().unwrap();
            file[step.file_offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        if self.rng.below(20) == 0 {
            return false;
        }
        for step in moves {
            let file = step.file.0;
            if before.files[file as usize].is_none() {
                let identity = self.disk.identity(file as usize).unwrap();
                assert!(self.journal.apply(&Record::File { file, identity }));
            }
        }
        true
    }

    fn note_files(&mut self, layout: &Layout, unknown: &[FileIndex]) {
        let parts = layout.has_apart().then(|| layout.parts());
        for file in layout.disk_files().chain(parts) {
            let recorded = self.journal.file(file.0).is_some() && !unknown.contains(&file);
            if let Some(identity) = self.disk.identity(file.0 as usize).filter(|_| !recorded) {
                assert!(self.journal.apply(&Record::File { file: file.0, identity }));
            }
        }
    }

    fn write(&mut self, layout: &Layout, piece: u32) {
        let (start, len) = (self.geometry.piece_start(piece), self.geometry.piece_len(piece));
        let from = crate::storage::plan::residue(layout, start, len);
        for op in write_plan(layout, start, len) {
            let at = start as usize + (op.mem_offset - from) as usize;
            let bytes = self.payload[at..at + op.len as usize].to_vec();
            let file = self.disk.files[op.file.0 as usize].as_mut().expect("a file that is made");
            file[op.file_offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }

    fn reads_right(&self, layout: &Layout, piece: u32) -> bool {
        let (start, len) = (self.geometry.piece_start(piece), self.geometry.piece_len(piece));
        let at = start as usize..start as usize + len as usize;
        let mut found = Vec::new();
        for extent in layout.extents(start, len) {
            let Some(file) = extent.file else {
                found.extend(vec![0; extent.len as usize]);
                continue;
            };
            let Some(bytes) = &self.disk.files[file.0 as usize] else { return false };
            found.extend_from_slice(&bytes[extent.file_offset as usize..][..extent.len as usize]);
        }
        found == self.payload[at]
    }

    /// All that is wanted is there, whole; what is not wanted was not made.
    fn check_done(&self, layout: &Layout, wanted: &Wanted) {
        for file in layout.disk_files().filter(|&file| wanted.file(file).is_wanted()) {
            assert_eq!(self.disk.files[file.0 as usize].as_deref(), Some(self.bytes_of(file)), "{file:?}");
        }
        for file in layout.apart_files().filter(|file| !self.ever_wanted[file.0 as usize]) {
            assert!(self.disk.files[file.0 as usize].is_none(), "{file:?} was made");
        }
    }
}

#[test]
fn runs_with_any_selections_and_kills_never_believe_a_wrong_byte_nor_make_an_unwanted_file() {
    for seed in 0..300 {
        let mut model = Model::new(seed);
        for _ in 0..12 {
            model.run();
        }
    }
}

/// What a run with another selection finds durable is not fetched again.
#[test]
fn a_file_is_taken_over_with_all_that_was_durable_of_it() {
    let lengths = [PIECE / 2, PIECE, PIECE / 2].map(u64::from);
    let layout = Layout::new(lengths.into_iter().map(|length| FileSpan { length, pad: false }));
    let geometry = Geometry::new(layout.total_bytes(), PIECE);
    let subject = Subject { info_hash: InfoHash([1; 20]), geometry, file_count: 3, secret_id: 1 };
    let mut journal = JournalState::new(subject);
    let identity = |file: u32| FileIdentity { len: 1, mtime_ns: 0, ctime_ns: 0, inode: file.into(), dev: 0 };
    // The first file was wanted: its piece has half of the second.
    for file in [0, 3] {
        assert!(journal.apply(&Record::File { file, identity: identity(file) }));
    }
    assert!(journal.apply(&Record::Durable { piece: 0, fingerprints: [1].into() }));
    let half = PIECE / 2;
    let expected = Move { file: FileIndex(1), file_offset: 0, parts_offset: half.into(), len: half };
    assert_eq!(moves(&journal, &layout), [expected]);
    assert_eq!(moves(&journal, &layout.clone().with_apart(vec![false, true, true])), []);
    let place = |file, priority, found| place(Some(&journal), &layout, FileIndex(file), priority, found);
    assert_eq!(place(1, Priority::Normal, false), Place::Wanted);
    assert_eq!(place(1, Priority::Skip, true), Place::Apart, "a stranger's file in its place stays as it is");
    assert_eq!(place(2, Priority::Skip, true), Place::Kept);
    assert_eq!(place(2, Priority::Skip, false), Place::Apart);
    assert_eq!(place(0, Priority::Skip, true), Place::Kept, "it was wanted before");
    assert!(believes(&journal, Some(identity(3))) && !believes(&journal, Some(identity(4))));
    assert!(!believes(&journal, None));
}
