//! Files that are only read: opened below one directory without following links, direct where possible.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{Advice, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio_uring::buf::BoundedBuf;

use super::Buffer;
use super::units::Job;
use crate::base::units::PAGE_BYTES;
use crate::daemon::files::{CAREFUL, become_blocking, open_beneath};

/// Files kept open; units come in payload order, so that few are in use at once.
const OPEN_MAX: usize = 32;

/// Why bytes of a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Missing, or too short.
    Absent,
    /// There, but not readable.
    Unusable(String),
}

/// How reads reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// The tokio-uring runtime that this thread runs.
    Uring,
    /// Plain reads, where io_uring is refused.
    Plain,
}

/// The directory, as an anchor for [`Files`].
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = (OFlags::DIRECTORY | OFlags::PATH).bits() as i32;
    Ok(std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

/// Opened files of one source, the latest few.
pub(super) struct Files {
    pub(super) job: Arc<Job>,
    dir: OwnedFd,
    backend: Backend,
    open: RefCell<VecDeque<Recent>>,
}

/// A file by its index, or why it would not open.
type Recent = (usize, Result<Rc<Opened>, Fault>);

/// One file.
pub(super) struct Opened {
    /// For advice, which no ring gives.
    plain: OwnedFd,
    buffered: Handle,
    /// Reads of this one must be aligned.
    direct: Option<Handle>,
}

impl Files {
    pub(super) fn new(dir: OwnedFd, job: Arc<Job>, backend: Backend) -> Self {
        Self { job, dir, backend, open: RefCell::new(VecDeque::with_capacity(OPEN_MAX)) }
    }

    /// File `index`, opened now or lately.
    pub(super) fn get(&self, index: usize) -> Result<Rc<Opened>, Fault> {
        let mut open = self.open.borrow_mut();
        if let Some((_, file)) = open.iter().rev().find(|(at, _)| *at == index) {
            return file.clone();
        }
        let file = self.open(&self.job.files[index].path).map(Rc::new);
        if open.len() == OPEN_MAX {
            open.pop_front();
        }
        open.push_back((index, file.clone()));
        file
    }

    fn open(&self, path: &Path) -> Result<Opened, Fault> {
        let buffered = self.open_once(path)?;
        let direct = self.open_once(path)?;
        // Refused by file systems without direct I/O (tmpfs on older kernels, some network ones).
        let direct = rustix::fs::fcntl_setfl(&direct, OFlags::DIRECT).is_ok().then_some(direct);
        let plain = buffered.try_clone()?;
        let handle = |fd, is_direct| Handle { file: Inner::new(fd, self.backend), is_direct };
        Ok(Opened { plain, buffered: handle(buffered, false), direct: direct.map(|fd| handle(fd, true)) })
    }

    fn open_once(&self, path: &Path) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDONLY | CAREFUL;
        let opened = match path.is_absolute() {
            // The part file, in our own state directory: what a torrent names is never absolute.
            true => rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()),
            false => open_beneath(&self.dir, path, flags, Mode::empty()),
        };
        let fd = opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Fault::Absent,
            Errno::LOOP | Errno::XDEV => {
                Fault::Unusable("a symbolic link is in the way; replace it by what it points to".to_owned())
            }
            Errno::NXIO => not_regular(),
            other => Fault::from(io::Error::from(other)),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| Fault::from(io::Error::from(errno)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_regular());
        }
        become_blocking(&fd).map_err(|errno| Fault::from(io::Error::from(errno)))?;
        Ok(fd)
    }
}

fn not_regular() -> Fault {
    Fault::Unusable("not a regular file; move it out of the way".to_owned())
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl Opened {
    /// The handle whose reads need no alignment.
    pub(super) const fn buffered(&self) -> &Handle {
        &self.buffered
    }

    /// The handle whose reads go past the page cache, if the file system has it.
    pub(super) const fn direct(&self) -> Option<&Handle> {
        self.direct.as_ref()
    }

    /// Has the page cache forget what it holds of `len` bytes from `offset`, unless that is still to be
    /// written: the device is read next. What a failed sync threw away is held as if it had been written
    /// (threats S11).
    pub(super) fn forget_cached(&self, offset: u64, len: u32) {
        let page = u64::from(PAGE_BYTES);
        let from = offset - offset % page;
        // Only whole pages are forgotten.
        let pages = NonZeroU64::new((offset + u64::from(len)).next_multiple_of(page) - from);
        // Advice that is not taken leaves things as they were.
        let _ = rustix::fs::fadvise(&self.plain, from, pages, Advice::DontNeed);
    }
}

/// An open file.
pub(super) struct Handle {
    file: Inner,
    /// Offsets, lengths and buffers must be aligned to pages.
    pub(super) is_direct: bool,
}

enum Inner {
    Uring(tokio_uring::fs::File),
    Plain(File),
}

impl Inner {
    fn new(fd: OwnedFd, backend: Backend) -> Self {
        match backend {
            Backend::Uring => Self::Uring(tokio_uring::fs::File::from_std(File::from(fd))),
            Backend::Plain => Self::Plain(File::from(fd)),
        }
    }
}

impl Handle {
    /// Reads up to `to - from` bytes of the file from `offset` into `buffer[from..to]`.
    pub(super) async fn read(
        &self,
        mut buffer: Buffer,
        (from, to): (usize, usize),
        offset: u64,
    ) -> (io::Result<usize>, Buffer) {
        match &self.file {
            Inner::Uring(file) => {
                let (result, slice) = file.read_at(buffer.slice(from..to), offset).await;
                (result, slice.into_inner())
            }
            Inner::Plain(file) => {
                let result = file.read_at(&mut buffer[from..to], offset);
                (result, buffer)
            }
        }
    }
}
