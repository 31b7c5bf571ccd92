//! The payload files of one torrent, below a directory that is opened once and never left.
//!
//! Every path is resolved by the kernel below that directory, without following any symbolic link
//! (threats T17, T18), and what is opened must be a regular file (T19). All calls here block: they
//! belong on the control thread, never on a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::base::limits::OPEN_FILES_MAX;
use crate::base::units::PAGE_BYTES;
use crate::io::uring::FilePair;
use crate::proto::metainfo::Metainfo;
use crate::storage::journal::FileIdentity;
use crate::storage::layout::{FileIndex, FileSpan, Layout};
use crate::storage::parts::Place;

mod error;
mod parts;
mod transfer;

pub use error::FileError;
pub(crate) use error::shown;
use parts::PartFile;
pub use transfer::{sync_data, write_all};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// It must be there.
    Read,
    /// It is created, with its directories, and given its space if it is not there.
    Write,
}

/// All files of one torrent, opened when they are needed.
///
/// Invariant: `open` has at most [`OPEN_FILES_MAX`] entries; holders elsewhere keep their own.
#[derive(Debug)]
pub struct TorrentFiles {
    root: OwnedFd,
    root_path: PathBuf,
    metainfo: Arc<Metainfo>,
    /// Where the part file is or would be, if the torrent may have one.
    parts: Option<PartFile>,
    /// Where the bytes of each file go; `None` if all are wanted.
    places: Option<Box<[Place]>>,
    open: BTreeMap<FileIndex, Cached>,
    /// Counts uses, to tell which open file was used last.
    uses: u64,
    /// Directories, below the root, with entries that are not known to be on disk yet.
    fresh_dirs: BTreeSet<PathBuf>,
    said_no_direct: bool,
}

#[derive(Debug)]
struct Cached {
    file: Arc<FilePair>,
    access: Access,
    used: u64,
}

/// The layout of a torrent's files.
pub fn layout_of(metainfo: &Metainfo) -> Layout {
    Layout::new(metainfo.files.iter().map(|file| FileSpan { length: file.length, pad: file.pad }))
}

impl TorrentFiles {
    /// Opens `dir`, under which all files lie; it must exist, and may itself be a link.
    pub fn new(dir: &Path, metainfo: Arc<Metainfo>) -> Result<Self, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(dir, flags, Mode::empty()).map_err(|errno| FileError::of_root(dir, errno))?;
        Ok(Self {
            root,
            root_path: dir.to_owned(),
            metainfo,
            parts: None,
            places: None,
            open: BTreeMap::new(),
            uses: 0,
            fresh_dirs: BTreeSet::new(),
            said_no_direct: false,
        })
    }

    /// The file, or the part file, open for `access` or more. Panics for padding and for what lies apart,
    /// which are not on disk.
    pub fn open(&mut self, file: FileIndex, access: Access) -> Result<Arc<FilePair>, FileError> {
        self.uses += 1;
        if let Some(cached) = self.open.get_mut(&file).filter(|cached| cached.access >= access) {
            cached.used = self.uses;
            return Ok(Arc::clone(&cached.file));
        }
        let opened = match file == self.parts_index() {
            true => self.open_parts(access)?,
            false => self.open_file(file, access)?,
        };
        let opened = Arc::new(opened);
        self.open.remove(&file);
        if self.open.len() == OPEN_FILES_MAX
            && let Some(oldest) = self.open.iter().min_by_key(|(_, cached)| cached.used)
        {
            let oldest = *oldest.0;
            self.open.remove(&oldest);
        }
        let cached = Cached { file: Arc::clone(&opened), access, used: self.uses };
        self.open.insert(file, cached);
        Ok(opened)
    }

    /// Creates all wanted files with all their space, after a look whether there is enough of it.
    pub fn preallocate_all(&mut self) -> Result<(), FileError> {
        let mut needed = 0;
        for file in self.wanted_files() {
            needed += self.space_needed(file)?;
        }
        let free = self.free_bytes()?;
        if needed > free {
            return Err(FileError::NoSpace { dir: self.root_path.clone(), needed, free });
        }
        for file in self.wanted_files() {
            self.open(file, Access::Write)?;
        }
        self.sync_new_dirs()
    }

    /// What the file looks like now; `None` if there is none.
    pub fn identity(&self, file: FileIndex) -> Result<Option<FileIdentity>, FileError> {
        let path = self.path(file);
        let fd = match self.open_beneath(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.error(&path, errno)),
        };
        let stat = self.stat(&fd, &path)?;
        Ok(Some(identity_of(&stat)))
    }

    /// As `identity`, of every file; `None` for padding and for what lies apart, too. Where anything lies
    /// apart the part file comes last.
    pub fn identities(&self) -> Result<Vec<Option<FileIdentity>>, FileError> {
        let mut all = vec![None; self.metainfo.files.len()];
        for file in self.disk_files() {
            all[file.0 as usize] = self.identity(file)?;
        }
        if self.has_apart() {
            all.push(self.parts_identity()?);
        }
        Ok(all)
    }

    /// Makes the names of new files and directories survive a power failure. To be called before
    /// anything in them is called durable.
    pub fn sync_new_dirs(&mut self) -> Result<(), FileError> {
        while let Some(dir) = self.fresh_dirs.first().cloned() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let synced = self.open_beneath(&dir, flags, Mode::empty()).and_then(fs::fsync);
            synced.map_err(|errno| self.error(&dir, errno))?;
            self.fresh_dirs.remove(&dir);
        }
        Ok(())
    }

    /// The path of a file for a person, escaped.
    pub fn shown_path(&self, file: FileIndex) -> String {
        match &self.parts {
            Some(parts) if file == self.parts_index() => shown(&parts.path()),
            _ => shown(&self.shown(&self.path(file))),
        }
    }

    /// Every file of the torrent that exists on disk.
    fn disk_files(&self) -> Vec<FileIndex> {
        let files = (0u32..).map(FileIndex).zip(&self.metainfo.files).filter(|(_, entry)| !entry.pad);
        files.map(|(file, _)| file).filter(|&file| self.place(file) != Place::Apart).collect()
    }

    /// Those that are to be there.
    fn wanted_files(&self) -> Vec<FileIndex> {
        let mut files = self.disk_files();
        files.retain(|&file| self.place(file) == Place::Wanted);
        files
    }

    fn path(&self, file: FileIndex) -> PathBuf {
        let entry = &self.metainfo.files[file.0 as usize];
        assert!(!entry.pad, "padding is not on disk");
        entry.path.iter().collect()
    }

    fn length(&self, file: FileIndex) -> u64 {
        self.metainfo.files[file.0 as usize].length
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        open_beneath(&self.root, path, flags, mode)
    }

    fn open_file(&mut self, file: FileIndex, access: Access) -> Result<FilePair, FileError> {
        let path = self.path(file);
        let mut mode = OFlags::RDWR;
        let buffered = match self.open_beneath(&path, mode | CAREFUL, Mode::empty()) {
            Err(Errno::NOENT) if access == Access::Write => self.create(&path, mode | CAREFUL),
            // Who only serves may do so from a disk that cannot be written. Where it can, what turns
            // out to be damaged is fetched again.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) if access == Access::Read => {
                mode = OFlags::RDONLY;
                self.open_beneath(&path, mode | CAREFUL, Mode::empty())
            }
            result => result,
        };
        let buffered = buffered.map_err(|errno| self.error(&path, errno))?;
        let stat = self.stat(&buffered, &path)?;
        become_blocking(&buffered).map_err(|errno| self.error(&path, errno))?;
        if access == Access::Write {
            self.preallocate(file, &buffered, &stat)?;
        }
        let direct = open_direct(&self.root, &path, mode, &stat);
        if direct.is_none() && !self.said_no_direct {
            self.said_no_direct = true;
            let dir = shown(&self.root_path);
            tracing::info!("{dir}: the file system has no direct I/O; using the page cache");
        }
        Ok(FilePair::new(direct, buffered))
    }

    fn create(&mut self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        self.create_dirs(parent)?;
        let fd = self.open_beneath(path, flags | OFlags::CREATE, Mode::from_raw_mode(0o666))?;
        self.fresh_dirs.insert(or_root(parent));
        Ok(fd)
    }

    /// Creates `dir` and what is missing above it.
    fn create_dirs(&mut self, dir: &Path) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let (mut above, mut at) = (PathBuf::from("."), PathBuf::new());
        for name in dir {
            let parent = self.open_beneath(&above, flags, Mode::empty())?;
            match fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => {
                    self.fresh_dirs.insert(above);
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            at.push(name);
            above = at.clone();
        }
        Ok(())
    }

    fn preallocate(&self, file: FileIndex, fd: &OwnedFd, stat: &fs::Statx) -> Result<(), FileError> {
        let (path, wanted) = (self.path(file), self.length(file));
        if stat.stx_size > wanted {
            return Err(FileError::Longer { path: self.shown(&path), found: stat.stx_size, wanted });
        }
        if missing_bytes(stat, wanted) == 0 {
            return Ok(());
        }
        let allocated =
            rustix::io::retry_on_intr(|| fs::fallocate(fd, fs::FallocateFlags::empty(), 0, wanted));
        let result = match allocated {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if stat.stx_size == wanted => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fs::ftruncate(fd, wanted),
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC) => {
                let (needed, free) = (missing_bytes(stat, wanted), self.free_bytes()?);
                Err(FileError::NoSpace { dir: self.root_path.clone(), needed, free })
            }
            Err(Errno::FBIG) => Err(FileError::TooLong { path: self.shown(&path), wanted }),
            Err(errno) => Err(self.error(&path, errno)),
        }
    }

    /// Bytes that the file will still take from the file system.
    fn space_needed(&self, file: FileIndex) -> Result<u64, FileError> {
        let path = self.path(file);
        match self.open_beneath(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(missing_bytes(&self.stat(&fd, &path)?, self.length(file))),
            Err(Errno::NOENT) => Ok(self.length(file)),
            Err(errno) => Err(self.error(&path, errno)),
        }
    }

    fn free_bytes(&self) -> Result<u64, FileError> {
        let stat = fs::fstatvfs(&self.root).map_err(|errno| FileError::of_root(&self.root_path, errno))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// What a regular file looks like; anything else is refused.
    fn stat(&self, fd: &OwnedFd, path: &Path) -> Result<fs::Statx, FileError> {
        let stat = statx(fd).map_err(|errno| self.error(path, errno))?;
        match fs::FileType::from_raw_mode(stat.stx_mode.into()) {
            fs::FileType::RegularFile => Ok(stat),
            fs::FileType::Symlink => Err(FileError::Link { path: self.shown(path) }),
            _ => Err(FileError::NotRegular { path: self.shown(path) }),
        }
    }

    fn shown(&self, path: &Path) -> PathBuf {
        self.root_path.join(path)
    }

    fn error(&self, path: &Path, errno: Errno) -> FileError {
        FileError::of_file(self.shown(path), errno)
    }
}

/// Not to follow a link, hang on a FIFO or act on a device before it is known what this is.
pub(super) const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens `path` below `root`, wherever names lead; no link is followed on the way (threats T17, T18).
pub(super) fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // A rename somewhere meanwhile: the kernel cannot tell, and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A second descriptor of the same file for direct I/O, if that is to be had in whole pages.
fn open_direct(root: &OwnedFd, path: &Path, mode: OFlags, stat: &fs::Statx) -> Option<OwnedFd> {
    let told = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let fits = |align: u32| align > 0 && align <= PAGE_BYTES;
    if told && !(fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)) {
        return None;
    }
    let fd = open_beneath(root, path, mode | CAREFUL | OFlags::DIRECT, Mode::empty()).ok()?;
    let same = |other: fs::Statx| {
        identity_of(&other).inode == stat.stx_ino && identity_of(&other).dev == identity_of(stat).dev
    };
    // The name may have been given to another file since.
    (statx(&fd).is_ok_and(same) && become_blocking(&fd).is_ok()).then_some(fd)
}

fn or_root(dir: &Path) -> PathBuf {
    if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() }
}

fn statx(fd: &OwnedFd) -> Result<fs::Statx, Errno> {
    fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN)
}

fn identity_of(stat: &fs::Statx) -> FileIdentity {
    let ns = |time: fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    FileIdentity {
        len: stat.stx_size,
        mtime_ns: ns(stat.stx_mtime),
        ctime_ns: ns(stat.stx_ctime),
        inode: stat.stx_ino,
        dev: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
    }
}

/// What is missing until the file has its full size and all its blocks.
fn missing_bytes(stat: &fs::Statx, wanted: u64) -> u64 {
    let allocated = wanted.saturating_sub(stat.stx_blocks.saturating_mul(512));
    if allocated == 0 && stat.stx_size < wanted { 1 } else { allocated }
}

/// A ring answers "try again" for a file in non-blocking mode instead of waiting for the disk.
pub(super) fn become_blocking(fd: &OwnedFd) -> Result<(), Errno> {
    fs::fcntl_setfl(fd, fs::fcntl_getfl(fd)? - OFlags::NONBLOCK)
}

#[cfg(test)]
pub(crate) mod tests;
