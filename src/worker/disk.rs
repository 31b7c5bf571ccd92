//! Disk jobs: the reads and writes that move one chunk between its slot and its files.

use std::collections::HashMap;

use bytes::BytesMut;

use super::mesh::{Edge, Files, ToControl};
use crate::base::geometry::Geometry;
use crate::base::ids::{CoreId, SlotId, TorrentId};
use crate::io::arena::Arena;
use crate::io::{Errno, FileOp, Io};
use crate::shared::torrent::SharedTorrent;
use crate::storage::plan::{self, ReadKind, ReadOp, WriteKind, WriteOp};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From files to slot.
    Load,
    /// From slot to files.
    Write,
}

/// A job that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose.
    pub torrent: TorrentId,
    /// Which chunk.
    pub chunk: u32,
    /// Where it is.
    pub slot: SlotId,
    /// Which way.
    pub direction: Direction,
    /// The error number; `None` inside `Err` when a file is shorter than it should be.
    pub result: Result<(), Option<i32>>,
}

#[derive(Debug)]
enum Step {
    Read(ReadOp),
    Write(WriteOp),
}

#[derive(Debug)]
struct Job {
    finished: Finished,
    steps: Vec<Step>,
    pending: u32,
}

/// The jobs of a worker.
#[derive(Debug, Default)]
pub struct Disk {
    jobs: HashMap<u32, Job>,
    next: u32,
}

/// What a job needs to know of its torrent.
#[derive(Debug)]
pub struct Place<'a, F> {
    /// Layout and sizes.
    pub torrent: &'a SharedTorrent,
    /// Open files.
    pub files: &'a Files<F>,
}

impl Disk {
    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Starts to read a chunk. Returns it at once if nothing has to be read (all padding).
    pub fn load<I: Io>(
        &mut self,
        io: &mut I,
        arena: &Arena,
        place: &Place<'_, I::File>,
        chunk: u32,
        slot: SlotId,
    ) -> Option<Finished> {
        let (start, len) = span(place.torrent.meta.geometry, chunk);
        let ops = plan::read_plan(&place.torrent.meta.layout, start, len);
        let (zeros, reads): (Vec<_>, Vec<_>) = ops.into_iter().partition(|op| op.kind == ReadKind::Zero);
        for op in zeros {
            arena.zero(slot, op.mem_offset, op.len);
        }
        let steps = reads.into_iter().map(Step::Read).collect();
        self.begin(io, place, chunk, slot, Direction::Load, steps, 0)
    }

    /// Starts to write a chunk; its edges go to `control`. Returns it at once if there is nothing to
    /// write.
    pub fn write<I: Io>(
        &mut self,
        io: &mut I,
        arena: &Arena,
        place: &Place<'_, I::File>,
        (chunk, slot): (u32, SlotId),
        core: CoreId,
        control: &mut impl FnMut(ToControl),
    ) -> Option<Finished> {
        let (start, len) = span(place.torrent.meta.geometry, chunk);
        let ops = plan::write_plan(&place.torrent.meta.layout, start, len);
        let (direct, edges): (Vec<_>, Vec<_>) = ops.into_iter().partition(|op| op.kind == WriteKind::Direct);
        let mut copies = BytesMut::with_capacity(edges.iter().map(|op| op.len as usize).sum());
        let edges: Vec<Edge> = edges
            .into_iter()
            .map(|op| {
                copies.extend_from_slice(arena.payload(slot, op.mem_offset, op.len));
                Edge { file: op.file, offset: op.file_offset, bytes: copies.split().freeze() }
            })
            .collect();
        let steps = direct.into_iter().map(Step::Write).collect();
        let extra = u32::from(!edges.is_empty());
        let job = self.next;
        let finished = self.begin(io, place, chunk, slot, Direction::Write, steps, extra);
        if extra > 0 {
            control(ToControl::Edges { core: core.0, job, torrent: place.torrent.meta.id, edges });
        }
        finished
    }

    #[allow(clippy::too_many_arguments, reason = "private; one caller each way")]
    fn begin<I: Io>(
        &mut self,
        io: &mut I,
        place: &Place<'_, I::File>,
        chunk: u32,
        slot: SlotId,
        direction: Direction,
        steps: Vec<Step>,
        extra: u32,
    ) -> Option<Finished> {
        let finished = Finished { torrent: place.torrent.meta.id, chunk, slot, direction, result: Ok(()) };
        let pending = steps.len() as u32 + extra;
        if pending == 0 {
            return Some(finished);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut job = Job { finished, steps, pending };
        for at in 0..job.steps.len() {
            if !submit(io, place.files, id, at, &job) {
                job.finished.result = Err(Some(libc::EBADF));
                job.pending -= 1;
            }
        }
        if job.pending == 0 {
            return Some(job.finished);
        }
        self.jobs.insert(id, job);
        None
    }

    /// An operation of a job ended. Returns the job when it was the last one.
    pub fn handle_done<I: Io>(
        &mut self,
        io: &mut I,
        files: impl Fn(TorrentId) -> Option<Files<I::File>>,
        token: u64,
        result: Result<u32, Errno>,
    ) -> Option<Finished> {
        let (id, at) = ((token >> 32) as u32, token as u32 as usize);
        let job = self.jobs.get_mut(&id)?;
        match result {
            Err(errno) => job.finished.result = Err(Some(errno.0)),
            Ok(bytes) => match advance(&job.steps[at], bytes) {
                Progress::Done => {}
                Progress::None => {
                    let write = job.finished.direction == Direction::Write;
                    job.finished.result = Err(write.then_some(libc::ENOSPC));
                }
                Progress::Left(step) => {
                    job.steps[at] = step;
                    if let Some(files) = files(job.finished.torrent)
                        && submit(io, &files, id, at, job)
                    {
                        return None;
                    }
                    job.finished.result = Err(Some(libc::EBADF));
                }
            },
        }
        self.one_less(id)
    }

    /// The edges of a write job are written, or could not be.
    pub fn handle_edges(&mut self, id: u32, result: Result<(), i32>) -> Option<Finished> {
        if let (Some(job), Err(errno)) = (self.jobs.get_mut(&id), result) {
            job.finished.result = Err(Some(errno));
        }
        self.one_less(id)
    }

    fn one_less(&mut self, id: u32) -> Option<Finished> {
        let job = self.jobs.get_mut(&id)?;
        job.pending -= 1;
        if job.pending > 0 {
            return None;
        }
        self.jobs.remove(&id).map(|job| job.finished)
    }
}

/// The bytes of a chunk in its slot. The caller holds the slot, or a pin on the chunk.
pub fn payload<'a>(arena: &'a Arena, torrent: &SharedTorrent, chunk: u32, slot: SlotId) -> &'a [u8] {
    arena.payload(slot, torrent.meta.residue(chunk), torrent.meta.geometry.chunk_len(chunk))
}

/// Sets what is padding in a chunk to zero: nobody was asked for it. The caller is the slot's only user.
pub fn zero_padding(arena: &Arena, torrent: &SharedTorrent, chunk: u32, slot: SlotId) {
    let layout = &torrent.meta.layout;
    if !layout.has_pads() {
        return;
    }
    let (start, len) = span(torrent.meta.geometry, chunk);
    let residue = torrent.meta.residue(chunk);
    for padding in layout.extents(start, len).filter(|extent| extent.file.is_none()) {
        arena.zero(slot, residue + padding.offset, padding.len);
    }
}

const fn span(geometry: Geometry, chunk: u32) -> (u64, u32) {
    (geometry.chunk_start(chunk), geometry.chunk_len(chunk))
}

enum Progress {
    Done,
    Left(Step),
    None,
}

fn advance(step: &Step, bytes: u32) -> Progress {
    match step {
        Step::Read(op) => match op.advance(bytes) {
            None => Progress::Done,
            Some(left) if left == *op => Progress::None,
            Some(left) => Progress::Left(Step::Read(left)),
        },
        Step::Write(op) => match op.advance(bytes) {
            None => Progress::Done,
            Some(left) if left == *op => Progress::None,
            Some(left) => Progress::Left(Step::Write(left)),
        },
    }
}

/// Submits step `at` of a job; false if its file is not open.
fn submit<I: Io>(io: &mut I, files: &Files<I::File>, id: u32, at: usize, job: &Job) -> bool {
    let token = u64::from(id) << 32 | at as u64;
    let slot = job.finished.slot;
    let (file, direct, file_offset, offset, len) = match &job.steps[at] {
        Step::Read(op) => (op.file, op.kind == ReadKind::Direct, op.file_offset, op.mem_offset, op.len),
        Step::Write(op) => (op.file, op.kind == WriteKind::Direct, op.file_offset, op.mem_offset, op.len),
    };
    let Some(Some(file)) = files.get(file.0 as usize) else { return false };
    let op = FileOp { token, file: file.clone(), direct, file_offset, slot, offset, len };
    match job.finished.direction {
        Direction::Load => io.read(op),
        Direction::Write => io.write(op),
    }
    true
}
