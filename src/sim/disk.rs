//! A simulated disk: what reads see, and what a crash leaves.
//!
//! Each file has two images. `live` is what reads see, as through the page cache. `durable` is
//! what is on the platter: it takes over a write when a sync that began after the write ends well.
//! A crash decides for each change since then whether the platter has it, lost it or has some
//! sectors of it. A failed sync behaves as Linux's: later syncs may succeed without what it lost.

use std::collections::BTreeMap;

use super::profile::{Profile, chance, draw, index};
use super::timeline::ActorId;
use crate::base::rng::Rng;
use crate::io::Errno;

/// A simulated open file: a name on the disk of a host. Clones are the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimFile {
    /// Whose disk.
    pub host: u32,
    /// Which file, in the order of creation.
    pub number: u32,
}

/// A change that a crash may undo.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// Invariant: `pending` is in the order of its numbers, and `live` is `durable` with all changes
/// applied, but for those of failed syncs.
#[derive(Clone, Debug, Default)]
struct File {
    name: String,
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, Change)>,
    /// Whether the directory entry survives a crash for certain.
    is_entered: bool,
    is_removed: bool,
}

/// The changes that a sync must make durable: those before it began.
#[derive(Clone, Copy, Debug)]
pub struct SyncMark(u64);

/// One disk. All operations take effect at once; their duration is the caller's business.
#[derive(Clone, Debug)]
pub struct Disk {
    host: u32,
    files: Vec<File>,
    names: BTreeMap<String, u32>,
    changes: u64,
    quota_bytes: u64,
    /// Where reads fail for good: a file and a place in it.
    bad_spots: Vec<(SimFile, u64)>,
    /// Counts crashes: operations from before one no longer take effect.
    pub(super) epoch: u64,
}

/// A file operation on its way. It takes effect at a moment between submission and completion.
#[derive(Debug)]
pub(super) enum DiskEvent {
    Apply { actor: ActorId, epoch: u64, op: DiskOp },
    Done { actor: ActorId, epoch: u64, file: SimFile, done: DiskDone },
}

/// One read or write.
#[derive(Debug)]
pub(super) struct DiskOp {
    pub(super) token: u64,
    pub(super) file: SimFile,
    pub(super) offset: u64,
    /// Past the page cache; ends short only between sectors.
    pub(super) direct: bool,
    pub(super) job: Job,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Job {
    Read { len: usize },
    Write { bytes: Vec<u8> },
}

/// What an operation brought. `bytes` is empty for writes.
#[derive(Debug)]
pub(super) struct DiskDone {
    pub(super) token: u64,
    pub(super) is_write: bool,
    pub(super) result: Result<u32, Errno>,
    pub(super) bytes: Vec<u8>,
}

impl Disk {
    pub(super) fn new(host: u32, quota_bytes: u64) -> Self {
        Self {
            host,
            files: Vec::new(),
            names: BTreeMap::new(),
            changes: 0,
            quota_bytes,
            bad_spots: Vec::new(),
            epoch: 0,
        }
    }

    /// Opens a file, creating it empty if there is none of that name.
    pub fn open(&mut self, name: &str) -> SimFile {
        if let Some(file) = self.find(name) {
            return file;
        }
        let number = self.files.len() as u32;
        self.files.push(File { name: name.to_owned(), ..File::default() });
        self.names.insert(name.to_owned(), number);
        SimFile { host: self.host, number }
    }

    /// The file of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<SimFile> {
        self.names.get(name).map(|&number| SimFile { host: self.host, number })
    }

    /// Length in bytes, as `stat` tells it.
    pub fn len(&self, file: SimFile) -> u64 {
        self.file(file).live.len() as u64
    }

    /// What reads see now, whole.
    pub fn live(&self, file: SimFile) -> &[u8] {
        &self.file(file).live
    }

    /// What is certain to survive a crash, whole.
    pub fn durable(&self, file: SimFile) -> &[u8] {
        &self.file(file).durable
    }

    /// Bytes that all files take together.
    pub fn used_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.live.len() as u64).sum()
    }

    /// Sets how many bytes all files may take; what is there stays.
    pub const fn set_quota(&mut self, bytes: u64) {
        self.quota_bytes = bytes;
    }

    /// Grows the file to `len` zero bytes, as `fallocate`; never shrinks it.
    pub fn allocate(&mut self, file: SimFile, len: u64) -> Result<(), Errno> {
        if len <= self.len(file) { Ok(()) } else { self.set_len(file, len) }
    }

    /// Cuts or grows the file, as `ftruncate`.
    pub fn set_len(&mut self, file: SimFile, len: u64) -> Result<(), Errno> {
        let grows_by = len.saturating_sub(self.len(file));
        if self.used_bytes().saturating_add(grows_by) > self.quota_bytes {
            return Err(Errno::NO_SPACE);
        }
        self.change(file, Change::SetLen(len));
        Ok(())
    }

    /// Bytes from `offset` on, as many as there are, at most `len`; no faults.
    pub fn read(&self, file: SimFile, offset: u64, len: usize) -> &[u8] {
        let live = &self.file(file).live;
        let start = usize::try_from(offset).map_or(live.len(), |offset| offset.min(live.len()));
        &live[start..live.len().min(start.saturating_add(len))]
    }

    /// Writes, growing the file where needed; no faults but a full disk, which writes nothing.
    pub fn write(&mut self, file: SimFile, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno(libc::EFBIG))?;
        let grows_by = end.saturating_sub(self.len(file));
        if self.used_bytes().saturating_add(grows_by) > self.quota_bytes {
            return Err(Errno::NO_SPACE);
        }
        self.change(file, Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Writes at the end of the file, as with O_APPEND.
    pub fn append(&mut self, file: SimFile, bytes: &[u8]) -> Result<(), Errno> {
        self.write(file, self.len(file), bytes)
    }

    /// A sync begins: what was changed until now will be durable when it ends well.
    pub const fn sync_begin(&self) -> SyncMark {
        SyncMark(self.changes)
    }

    /// The sync of a file ends well; its directory entry is durable too.
    pub fn sync_end(&mut self, file: SimFile, mark: SyncMark) {
        let file = self.file_mut(file);
        file.is_entered = true;
        let later = file.pending.partition_point(|(number, _)| *number < mark.0);
        for (_, change) in file.pending.drain(..later) {
            apply(&mut file.durable, &change);
        }
    }

    /// The sync fails with EIO. The kernel forgets an unknown part of what it should have written:
    /// reads still see it, no later sync writes it.
    pub fn sync_fail(&mut self, file: SimFile, mark: SyncMark, rng: &mut Rng) {
        let is_lost = |number: u64, rng: &mut Rng| number < mark.0 && chance(rng, 500_000);
        self.file_mut(file).pending.retain(|(number, _)| !is_lost(*number, rng));
    }

    /// The names of all files survive a crash from now on.
    pub fn sync_dir(&mut self) {
        self.files.iter_mut().for_each(|file| file.is_entered = true);
    }

    /// Begins and ends a sync of one file, by the fault rate of the profile.
    pub fn sync(&mut self, file: SimFile, profile: &Profile, rng: &mut Rng) -> Result<(), Errno> {
        self.sync_since(file, self.sync_begin(), profile, rng)
    }

    /// Ends a sync of one file that began at `mark`, by the fault rate of the profile.
    pub fn sync_since(
        &mut self,
        file: SimFile,
        mark: SyncMark,
        profile: &Profile,
        rng: &mut Rng,
    ) -> Result<(), Errno> {
        if chance(rng, profile.sync_error_ppm) {
            self.sync_fail(file, mark, rng);
            return Err(Errno::IO);
        }
        self.sync_end(file, mark);
        Ok(())
    }

    /// Removes the name, durably.
    pub fn remove(&mut self, name: &str) {
        if let Some(number) = self.names.remove(name) {
            let file = &mut self.files[number as usize];
            *file = File { is_removed: true, ..File::default() };
        }
    }

    /// Gives a file another name, durably and at once; a file that had it is gone.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(number) = self.names.remove(from) {
            self.remove(to);
            to.clone_into(&mut self.files[number as usize].name);
            self.names.insert(to.to_owned(), number);
        }
    }

    /// Flips one bit of the live and the durable image, for good.
    pub fn rot(&mut self, file: SimFile, offset: u64, mask: u8) {
        let file = self.file_mut(file);
        for image in [&mut file.live, &mut file.durable] {
            if let Some(byte) = usize::try_from(offset).ok().and_then(|offset| image.get_mut(offset)) {
                *byte ^= mask;
            }
        }
    }

    /// Reads that touch this place fail from now on.
    pub fn spoil(&mut self, file: SimFile, offset: u64) {
        self.bad_spots.push((file, offset));
    }

    /// The power fails: each change that was not synced is kept, lost or torn.
    pub fn crash(&mut self, profile: &Profile, rng: &mut Rng) {
        self.epoch += 1;
        for number in 0..self.files.len() {
            let file = &mut self.files[number];
            if file.is_removed {
                continue;
            }
            let gone = !file.is_entered && chance(rng, profile.crash_lose_ppm);
            if gone {
                let name = file.name.clone();
                self.remove(&name);
                continue;
            }
            for (_, change) in std::mem::take(&mut file.pending) {
                survive(&mut file.durable, change, profile, rng);
            }
            file.live.clone_from(&file.durable);
            file.is_entered = true;
        }
    }

    /// An operation as the device does it, faults included.
    pub(super) fn execute(&mut self, op: DiskOp, profile: &Profile, rng: &mut Rng) -> DiskDone {
        let token = op.token;
        match &op.job {
            Job::Read { len } => {
                let outcome = self.read_faulty(&op, *len, profile, rng);
                let result = outcome.as_ref().map(|bytes| bytes.len() as u32).map_err(|&errno| errno);
                DiskDone { token, is_write: false, result, bytes: outcome.unwrap_or_default() }
            }
            Job::Write { bytes } => {
                let result = self.write_faulty(&op, bytes, profile, rng);
                DiskDone { token, is_write: true, result, bytes: Vec::new() }
            }
        }
    }

    fn read_faulty(
        &self,
        op: &DiskOp,
        len: usize,
        profile: &Profile,
        rng: &mut Rng,
    ) -> Result<Vec<u8>, Errno> {
        let range = op.offset..op.offset + len as u64;
        let spoilt = self.bad_spots.iter().any(|(file, at)| *file == op.file && range.contains(at));
        if spoilt || chance(rng, profile.read_error_ppm) {
            return Err(Errno::IO);
        }
        let there = self.read(op.file, op.offset, len).len();
        let count = shorten(there, op.direct, profile, rng);
        let misdirected = chance(rng, profile.misdirect_ppm);
        let at = if misdirected { draw(rng, (0, self.len(op.file) / 512)) * 512 } else { op.offset };
        let mut bytes = self.read(op.file, at, count).to_vec();
        bytes.resize(count, 0);
        if chance(rng, profile.rot_ppm) && !bytes.is_empty() {
            let byte = index(rng, bytes.len());
            bytes[byte] ^= 1 << rng.below(8);
        }
        Ok(bytes)
    }

    /// After an error an unknown part was written.
    fn write_faulty(
        &mut self,
        op: &DiskOp,
        bytes: &[u8],
        profile: &Profile,
        rng: &mut Rng,
    ) -> Result<u32, Errno> {
        let failed = chance(rng, profile.write_error_ppm);
        let len =
            if failed { index(rng, bytes.len() + 1) } else { shorten(bytes.len(), op.direct, profile, rng) };
        self.write(op.file, op.offset, &bytes[..len])?;
        if failed { Err(Errno::IO) } else { Ok(len as u32) }
    }

    fn change(&mut self, file: SimFile, change: Change) {
        let number = self.changes;
        self.changes += 1;
        let file = self.file_mut(file);
        if file.is_removed {
            return;
        }
        apply(&mut file.live, &change);
        file.pending.push((number, change));
    }

    fn file(&self, file: SimFile) -> &File {
        assert_eq!(file.host, self.host, "a file of another host's disk");
        &self.files[file.number as usize]
    }

    fn file_mut(&mut self, file: SimFile) -> &mut File {
        assert_eq!(file.host, self.host, "a file of another host's disk");
        &mut self.files[file.number as usize]
    }
}

fn shorten(len: usize, direct: bool, profile: &Profile, rng: &mut Rng) -> usize {
    let grain = if direct { 512 } else { 1 };
    if len <= grain || !chance(rng, profile.short_file_ppm) {
        return len;
    }
    (1 + index(rng, len - 1)).next_multiple_of(grain).min(len)
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => image.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
        Change::Write { offset, bytes } => put(image, *offset, bytes),
    }
}

fn put(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    image[start..end].copy_from_slice(bytes);
}

/// Applies what a crash leaves of an unsynced change.
fn survive(image: &mut Vec<u8>, change: Change, profile: &Profile, rng: &mut Rng) {
    let fate = rng.below(super::profile::PPM);
    if fate < profile.crash_lose_ppm {
        return;
    }
    let is_torn = fate < profile.crash_lose_ppm + profile.crash_tear_ppm;
    match change {
        Change::Write { offset, bytes } if is_torn => {
            let sector = u64::from(profile.sector_bytes);
            let mut at = 0;
            while at < bytes.len() {
                // Sectors are counted from the start of the file, so an unaligned write tears there.
                let left = sector - (offset + at as u64) % sector;
                let end = bytes.len().min(at + left as usize);
                if chance(rng, 500_000) {
                    put(image, offset + at as u64, &bytes[at..end]);
                }
                at = end;
            }
        }
        change => apply(image, &change),
    }
}
