//! What can go wrong with a payload file, as the operator reads it: what, where, how to mend it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::base::human::escape_for_terminal;

/// One line each. Paths may hold text that a stranger chose, and are escaped.
#[derive(Debug, Error)]
pub enum FileError {
    /// No right to open, create or write.
    #[error("{}: permission denied: give this user access or choose another directory", shown(path))]
    Denied {
        /// Of the file or directory.
        path: PathBuf,
    },
    /// The kernel would have had to leave the download directory or follow a link.
    #[error("{}: a symbolic link is in the way: remove it or choose another directory", shown(path))]
    Link {
        /// Of the file.
        path: PathBuf,
    },
    /// There is more in the file than the torrent says.
    #[error(
        "{}: has {found} bytes, the torrent says {wanted}: move it away or choose another directory",
        shown(path)
    )]
    Longer {
        /// Of the file.
        path: PathBuf,
        /// Present size in bytes.
        found: u64,
        /// Size in bytes by the torrent.
        wanted: u64,
    },
    /// It should be there and is not.
    #[error("{}: not found: create it or choose another directory", shown(path))]
    Missing {
        /// Of the file or directory.
        path: PathBuf,
    },
    /// The file system is full.
    #[error("{}: needs {needed} bytes, has {free} free: free space or choose another directory", shown(dir))]
    NoSpace {
        /// Download directory.
        dir: PathBuf,
        /// Bytes still to be allocated.
        needed: u64,
        /// Bytes free to this user.
        free: u64,
    },
    /// A directory, FIFO, socket or device, or a file where a directory should be.
    #[error(
        "{}: is not a regular file in a directory: move it away or choose another directory",
        shown(path)
    )]
    NotRegular {
        /// Of the file.
        path: PathBuf,
    },
    /// Quota exceeded.
    #[error("{}: the disk quota is used up: free space or choose another directory", shown(path))]
    Quota {
        /// Of the file.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("{}: the file system is read-only: remount it or choose another directory", shown(path))]
    ReadOnly {
        /// Of the file.
        path: PathBuf,
    },
    /// Out of file descriptors.
    #[error("{}: too many open files: raise the limit, for example by ulimit -n 65536", shown(path))]
    TooManyOpen {
        /// Of the file.
        path: PathBuf,
    },
    /// The file system or the process's limit forbids files of this size.
    #[error(
        "{}: the file system cannot hold a file of {wanted} bytes: choose another directory",
        shown(path)
    )]
    TooLong {
        /// Of the file.
        path: PathBuf,
        /// Size in bytes by the torrent.
        wanted: u64,
    },
    /// Anything else.
    #[error("{}: {source}", shown(path))]
    Other {
        /// Of the file or directory.
        path: PathBuf,
        /// As the kernel says it.
        source: io::Error,
    },
}

impl FileError {
    pub(super) fn of_file(path: PathBuf, errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => Self::Denied { path },
            Errno::LOOP | Errno::XDEV => Self::Link { path },
            Errno::NOENT => Self::Missing { path },
            Errno::ISDIR | Errno::NOTDIR | Errno::NXIO | Errno::NODEV => Self::NotRegular { path },
            Errno::DQUOT => Self::Quota { path },
            Errno::ROFS => Self::ReadOnly { path },
            Errno::MFILE | Errno::NFILE => Self::TooManyOpen { path },
            errno => Self::Other { path, source: errno.into() },
        }
    }

    pub(super) fn of_root(path: &Path, errno: Errno) -> Self {
        Self::of_file(path.to_owned(), errno)
    }
}

/// A path for a person: whatever could act on a terminal is escaped.
pub(crate) fn shown(path: &Path) -> String {
    escape_for_terminal(&path.to_string_lossy())
}
