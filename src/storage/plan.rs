//! How one chunk moves between its arena slot and its files.
//!
//! A slot's payload area starts on a page and is `SLOT_PAYLOAD_BYTES` long. The chunk begins in it
//! at its *residue*, so chosen that the largest run of the chunk has the same offset modulo the page
//! in memory as in its file: whole pages of that run then move by direct I/O. All else, the edges
//! and runs that happen to lie otherwise, moves through the page cache. A page that a direct write
//! covers belongs to one chunk wholly, so no buffered write ever touches it.
//!
//! Where a file has no direct I/O, a `Direct` operation is carried out as a buffered one.

use super::layout::{Extent, FileIndex, Layout};
use crate::base::units::PAGE_BYTES;

/// How a part of a chunk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Through the page cache.
    Buffered,
    /// Whole pages, aligned in memory and in the file.
    Direct,
}

/// One write of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOp {
    /// Where to.
    pub file: FileIndex,
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Offset in the slot's payload area, in bytes.
    pub mem_offset: u32,
    /// Length in bytes; never 0.
    pub len: u32,
    /// See [`WriteKind`].
    pub kind: WriteKind,
}

/// How a part of a chunk is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// Through the page cache.
    Buffered,
    /// Whole pages, aligned in memory and in the file.
    Direct,
    /// Padding (BEP 47): no read at all, the memory is set to zeros.
    Zero,
}

/// One read of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOp {
    /// Where from; for `Zero` the padding file, which is not on disk.
    pub file: FileIndex,
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Offset in the slot's payload area, in bytes.
    pub mem_offset: u32,
    /// Length in bytes; never 0. A direct read may start before and end after the bytes of the
    /// chunk, and even after the end of the file.
    pub len: u32,
    /// Bytes from the start of this read that must arrive; at most `len`.
    pub need: u32,
    /// See [`ReadKind`].
    pub kind: ReadKind,
}

/// Offset in the slot's payload area, below [`PAGE_BYTES`], of the first byte of the chunk that
/// covers `len` bytes from `start` of the torrent.
pub fn residue(layout: &Layout, start: u64, len: u32) -> u32 {
    let mut best: Option<Extent> = None;
    for extent in layout.extents(start, len) {
        let best_len = best.map_or(0, |best| best.len);
        if extent.file.is_some() && extent.len > best_len {
            best = Some(extent);
        }
        // Nothing that follows can be longer: with few files this ends at the first.
        if len - extent.offset - extent.len <= best.map_or(0, |best| best.len) {
            break;
        }
    }
    best.map_or(0, |extent| page_offset(extent.file_offset.wrapping_sub(u64::from(extent.offset))))
}

/// The writes that put a chunk into its files, ascending; padding is not written.
pub fn write_plan(layout: &Layout, start: u64, len: u32) -> Vec<WriteOp> {
    let residue = residue(layout, start, len);
    let mut ops = Vec::new();
    for (file, extent) in disk_runs(layout, start, len) {
        let mut push = |from: u32, to: u32, kind| {
            if from < to {
                let (file_offset, len) = (extent.file_offset + u64::from(from), to - from);
                ops.push(WriteOp {
                    file,
                    file_offset,
                    mem_offset: residue + extent.offset + from,
                    len,
                    kind,
                });
            }
        };
        let (head, tail) = interior(residue, extent);
        push(0, head, WriteKind::Buffered);
        push(head, tail, WriteKind::Direct);
        push(tail, extent.len, WriteKind::Buffered);
    }
    ops
}

/// The reads that put a chunk into its slot, ascending. No two touch the same memory, so they may
/// run in any order.
pub fn read_plan(layout: &Layout, start: u64, len: u32) -> Vec<ReadOp> {
    let residue = residue(layout, start, len);
    let len = layout.total_bytes().saturating_sub(start).min(u64::from(len)) as u32;
    let mut ops = Vec::new();
    for (file, extent) in layout.runs(start, len) {
        let (file_offset, mem_offset) = (extent.file_offset, residue + extent.offset);
        let whole = ReadOp {
            file,
            file_offset,
            mem_offset,
            len: extent.len,
            need: extent.len,
            kind: ReadKind::Buffered,
        };
        if layout.is_pad(file) {
            ops.push(ReadOp { kind: ReadKind::Zero, ..whole });
        } else if is_congruent(residue, extent) {
            push_direct(&mut ops, whole, extent.offset == 0, extent.offset + extent.len == len);
        } else {
            ops.push(whole);
        }
    }
    ops
}

impl WriteOp {
    /// What is left after `written` bytes; `None` if nothing is. A direct write goes on from a page
    /// boundary, so a result equal to the operation itself means no progress: the caller gives up.
    pub fn advance(self, written: u32) -> Option<Self> {
        if written >= self.len {
            return None;
        }
        let step = step(written, self.kind == WriteKind::Direct);
        Some(Self {
            file_offset: self.file_offset + u64::from(step),
            mem_offset: self.mem_offset + step,
            len: self.len - step,
            ..self
        })
    }
}

impl ReadOp {
    /// Whether `read` bytes are all that this operation has to bring; a read that was widened past
    /// the end of its file is short and yet satisfied.
    pub const fn satisfied(self, read: u32) -> bool {
        read >= self.need
    }

    /// What is left after `read` bytes; `None` if satisfied. As with [`WriteOp::advance`], a result
    /// equal to the operation itself means no progress: the file is shorter than it should be.
    pub fn advance(self, read: u32) -> Option<Self> {
        if self.satisfied(read) {
            return None;
        }
        let step = step(read, self.kind == ReadKind::Direct);
        Some(Self {
            file_offset: self.file_offset + u64::from(step),
            mem_offset: self.mem_offset + step,
            len: self.len - step,
            need: self.need - step,
            ..self
        })
    }
}

const fn page_offset(offset: u64) -> u32 {
    (offset % PAGE_BYTES as u64) as u32
}

const fn step(transferred: u32, direct: bool) -> u32 {
    if direct { transferred - transferred % PAGE_BYTES } else { transferred }
}

fn disk_runs(layout: &Layout, start: u64, len: u32) -> impl Iterator<Item = (FileIndex, Extent)> {
    layout.runs(start, len).filter(|&(file, _)| !layout.is_pad(file))
}

fn is_congruent(residue: u32, extent: Extent) -> bool {
    page_offset(u64::from(residue + extent.offset)) == page_offset(extent.file_offset)
}

/// The whole pages of a run as offsets in the run; empty if there are none or they are not aligned
/// in memory.
fn interior(residue: u32, extent: Extent) -> (u32, u32) {
    let head = page_offset(extent.file_offset.wrapping_neg());
    let tail = extent.len.saturating_sub(page_offset(extent.file_offset + u64::from(extent.len)));
    if is_congruent(residue, extent) && head < tail { (head, tail) } else { (0, 0) }
}

/// Reads a congruent run directly. The page of an edge is read whole where the rest of it in memory
/// belongs to nothing else: before the chunk's first byte and after its last.
fn push_direct(ops: &mut Vec<ReadOp>, run: ReadOp, first: bool, last: bool) {
    let before = page_offset(run.file_offset);
    let end = before + run.len;
    let from = if first { 0 } else { before.next_multiple_of(PAGE_BYTES) };
    let to = if last { end.next_multiple_of(PAGE_BYTES) } else { end - end % PAGE_BYTES };
    if from >= to {
        ops.push(run);
        return;
    }
    // Offsets below count from the page in which the run starts, in the file and in memory alike.
    let (page, mem_page) = (run.file_offset - u64::from(before), run.mem_offset - before);
    let mut push = |from: u32, to: u32, need_to: u32, kind| {
        if from < to {
            let mem_offset = mem_page + from;
            let (len, need) = (to - from, need_to - from);
            ops.push(ReadOp { file_offset: page + u64::from(from), mem_offset, len, need, kind, ..run });
        }
    };
    push(before, from, from, ReadKind::Buffered);
    push(from, to, to.min(end), ReadKind::Direct);
    push(to, end, end, ReadKind::Buffered);
}

#[cfg(test)]
mod tests;
