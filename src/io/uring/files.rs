//! Files: direct or through the page cache, into registered memory where the kernel allows it.
#![allow(unsafe_code)] // Operations and registrations name the arena's memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use crate::io::FileOp;
use crate::io::arena::Arena;

use super::key::Key;
use super::ring::Ring;
use super::setup::Memlock;

/// An open file, twice where the file system has direct I/O.
#[derive(Debug)]
pub struct FilePair {
    direct: Option<OwnedFd>,
    buffered: OwnedFd,
}

impl FilePair {
    /// Of the same file: opened with `O_DIRECT` where the file system allows that, and without.
    pub const fn new(direct: Option<OwnedFd>, buffered: OwnedFd) -> Self {
        Self { direct, buffered }
    }

    /// The descriptor that goes through the page cache.
    pub fn buffered(&self) -> BorrowedFd<'_> {
        self.buffered.as_fd()
    }

    /// The descriptor that goes past it, in whole pages.
    pub fn direct(&self) -> Option<BorrowedFd<'_>> {
        self.direct.as_ref().map(AsFd::as_fd)
    }

    /// Whether direct I/O is possible.
    pub const fn has_direct(&self) -> bool {
        self.direct.is_some()
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// A file operation in flight; keeps its file open.
#[derive(Debug)]
pub(super) struct FileFlight {
    pub(super) op: FileOp<Arc<FilePair>>,
    pub(super) direction: Direction,
}

impl FileFlight {
    /// Submits the operation, or submits it again.
    pub(super) fn push(&self, arena: &Arena, regions: &mut Regions, key: Key, ring: &mut Ring) {
        let FileOp { file, slot, offset, len, file_offset, direct, .. } = &self.op;
        let fd = file.direct.as_ref().filter(|_| *direct).unwrap_or(&file.buffered);
        let fd = types::Fd(fd.as_raw_fd());
        let place = arena.payload_ptr(*slot, *offset, *len).as_ptr();
        let buffer = regions.index(Arena::region_of(*slot), arena, ring);
        let entry: squeue::Entry = match (self.direction, buffer) {
            (Direction::Read, Some(index)) => {
                opcode::ReadFixed::new(fd, place, *len, index).offset(*file_offset).build()
            }
            (Direction::Read, None) => opcode::Read::new(fd, place, *len).offset(*file_offset).build(),
            (Direction::Write, Some(index)) => {
                opcode::WriteFixed::new(fd, place, *len, index).offset(*file_offset).build()
            }
            (Direction::Write, None) => opcode::Write::new(fd, place, *len).offset(*file_offset).build(),
        };
        // SAFETY: the flight holds the file and stays in its table until the last completion; the
        // caller pins the slot (`Io`), and `Uring` holds the arena.
        unsafe { ring.push(entry, key) }
    }

    /// Gives up direct I/O for this operation; `false` if it does not use it.
    pub(super) fn go_buffered(&mut self) -> bool {
        self.op.file.has_direct() && std::mem::replace(&mut self.op.direct, false)
    }
}

/// Which regions of the arena are registered with this ring. A region is, when this ring first
/// uses it for a file; the kernel then need not look up its pages for every operation.
pub(super) struct Regions {
    registered: Vec<bool>,
    /// Cleared for good when the kernel refuses: it would refuse the next region too.
    allowed: bool,
}

impl Regions {
    /// An empty table in the kernel with a place for each region.
    pub(super) fn new(arena: &Arena, ring: &Ring) -> Self {
        let count = arena.region_count();
        let made = ring.submitter().register_buffers_sparse(count);
        if let Err(error) = &made {
            warn(error);
        }
        Self { registered: vec![false; count as usize], allowed: made.is_ok() }
    }

    /// Goes on with unregistered memory for all regions that are not registered yet.
    #[cfg(test)]
    pub(super) fn forbid(&mut self) {
        self.allowed = false;
    }

    /// How many regions are registered.
    pub(super) fn count(&self) -> usize {
        self.registered.iter().filter(|registered| **registered).count()
    }

    /// The buffer index of a region, `None` if it cannot be registered.
    fn index(&mut self, region: u32, arena: &Arena, ring: &Ring) -> Option<u16> {
        if !self.registered[region as usize] {
            if !self.allowed {
                return None;
            }
            // SAFETY: the region stays mapped as long as the arena, which `Uring` holds until the
            // ring is gone.
            let made = unsafe {
                ring.submitter().register_buffers_update(region, &[arena.region_iovec(region)], None)
            };
            if let Err(error) = made {
                warn(&error);
                self.allowed = false;
                return None;
            }
            self.registered[region as usize] = true;
        }
        Some(region as u16)
    }
}

fn warn(error: &io::Error) {
    let limit = Memlock::current();
    tracing::warn!(
        %error,
        "cannot register cache memory with io_uring (locked-memory limit {limit}); disk transfers cost \
         more CPU until you raise `ulimit -l` or set LimitMEMLOCK=infinity in the systemd unit"
    );
}
