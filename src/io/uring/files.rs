//! Files: direct or through the page cache, into registered memory where the kernel allows it.
#![allow(unsafe_code)] // Operations name the arena's memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use crate::io::FileOp;
use crate::io::arena::Arena;

use super::key::Key;
use super::regions::Regions;
use super::ring::Ring;

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
