//! The reading thread: keeps [`READS_MAX`] reads in flight and deals them out in order, row by row.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::Sender;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::base::units::PAGE_BYTES;
use crate::storage::layout::{Extent, FileIndex};

use super::digest::{Content, Part, Row};
use super::source::{Backend, Fault, Files, Handle, Opened};
use super::units::{Job, Place, Step, Unit};
use super::{Buffer, Pool, READS_MAX, UNIT_BYTES};
use crate::hash::sha1::LANES;

const PAGE: usize = PAGE_BYTES as usize;

/// Room for a unit, the alignment of the buffer itself, the bytes before the unit in its first page, and
/// what a part read in whole pages takes more than it brings: it begins up to a page later than the
/// bytes before it end, and has the rest of its own first and last page.
pub(super) const BUFFER_BYTES: usize = UNIT_BYTES as usize + 5 * PAGE;

/// The reading thread's view of the job.
pub(super) struct Reader<'a> {
    pub(super) job: Arc<Job>,
    pub(super) dir: OwnedFd,
    /// To the digest threads.
    pub(super) threads: Vec<Sender<Row>>,
    pub(super) pool: &'a Pool,
    /// Nobody wants more.
    pub(super) stop: &'a AtomicBool,
}

/// A unit that is being read.
struct Pending {
    step: Step,
    /// `None` for what is not wanted any more.
    reading: Option<JoinHandle<Filled>>,
}

/// A finished read: where the bytes lie in the buffer, or which file would not give them.
struct Filled {
    buffer: Buffer,
    result: Result<Range<usize>, (usize, Fault)>,
}

impl Reader<'_> {
    /// Reads `pieces` and deals them out; returns when all are dealt or nobody wants more.
    pub(super) fn run(self, pieces: &[u32]) {
        let mut rings = tokio_uring::builder();
        rings.entries(READS_MAX.next_power_of_two() as u32 * 2);
        let Self { job, dir, threads, pool, stop } = self;
        let deal = |backend| {
            let files = Rc::new(Files::new(dir, job, backend));
            let lost = vec![[usize::MAX; LANES]; threads.len()];
            let pending = VecDeque::with_capacity(READS_MAX);
            Deal { files, threads, pool, stop, pending, row: Row::with_capacity(LANES), lost }
        };
        match tokio_uring::Runtime::new(&rings) {
            Ok(runtime) => runtime.block_on(deal(Backend::Uring).run(pieces)),
            // Containers often refuse io_uring: slower, yet right. `troc doctor` says why.
            Err(_) => match tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => LocalSet::new().block_on(&runtime, deal(Backend::Plain).run(pieces)),
                Err(error) => unreachable!("a runtime without drivers asks the kernel for nothing: {error}"),
            },
        }
    }
}

/// [`Reader`] inside a runtime.
struct Deal<'a> {
    files: Rc<Files>,
    threads: Vec<Sender<Row>>,
    pool: &'a Pool,
    stop: &'a AtomicBool,
    /// In the order in which the digest threads get them.
    pending: VecDeque<Pending>,
    /// What has been read of the row that comes next.
    row: Row,
    /// Per lane the run that lost a part last: its other parts are not wanted.
    lost: Vec<[usize; LANES]>,
}

impl Deal<'_> {
    async fn run(mut self, pieces: &[u32]) {
        let job = Arc::clone(&self.files.job);
        for step in job.schedule(pieces, self.threads.len()) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if self.pending.len() == READS_MAX {
                self.settle().await;
            }
            // A run that has lost a part keeps its place in the row, which would not end otherwise.
            let reading = (!self.is_lost(step)).then(|| self.start(step.unit));
            self.pending.push_back(Pending { step, reading });
        }
        while !self.pending.is_empty() {
            self.settle().await;
        }
    }

    fn is_lost(&self, step: Step) -> bool {
        self.lost[step.place.thread][step.place.lane] == step.run
    }

    fn start(&self, unit: Unit) -> JoinHandle<Filled> {
        let buffer = self.pool.take();
        spawn_local(read_unit(Rc::clone(&self.files), unit, buffer))
    }

    /// Waits for the oldest read; the last of a row has it dealt out.
    async fn settle(&mut self) {
        let Some(Pending { step, reading }) = self.pending.pop_front() else { return };
        if let Some(reading) = reading {
            let Filled { buffer, result } = join(reading).await;
            self.add(step, buffer, result).await;
        }
        if step.row_left == 0 && !self.row.is_empty() {
            let row = std::mem::replace(&mut self.row, Row::with_capacity(LANES));
            self.send(step.place.thread, row);
        }
    }

    async fn add(&mut self, step: Step, buffer: Buffer, result: Result<Range<usize>, (usize, Fault)>) {
        if self.is_lost(step) {
            return self.pool.give(buffer);
        }
        match result {
            Ok(range) => self.row.push(part(step.place, step.unit, Content::Bytes { buffer, range })),
            Err((file, fault)) if step.pieces == 1 => {
                self.pool.give(buffer);
                self.lost[step.place.thread][step.place.lane] = step.run;
                self.row.push(self.fault(step.place, step.unit, file, fault));
            }
            Err(_) => {
                self.pool.give(buffer);
                self.read_one_by_one(step).await;
            }
        }
    }

    /// Some piece of a read that covers several cannot be had: find out which. Each is whole, and needs to
    /// wait for no row.
    async fn read_one_by_one(&self, step: Step) {
        for piece in step.unit.piece..step.unit.piece + step.pieces {
            let unit = Unit { piece, begin: 0, len: self.files.job.geometry.piece_len(piece) };
            let Filled { buffer, result } = join(self.start(unit)).await;
            let part = match result {
                Ok(range) => part(step.place, unit, Content::Bytes { buffer, range }),
                Err((file, fault)) => {
                    self.pool.give(buffer);
                    self.fault(step.place, unit, file, fault)
                }
            };
            self.send(step.place.thread, vec![part]);
        }
    }

    fn send(&self, thread: usize, row: Row) {
        // A digest thread ends before its channel only by a panic, which the scope passes on.
        let _ = self.threads[thread].send(row);
    }

    fn fault(&self, place: Place, unit: Unit, file: usize, fault: Fault) -> Part {
        part(place, unit, Content::Fault(fault.outcome(file, &self.files.job.files)))
    }
}

const fn part(place: Place, unit: Unit, content: Content) -> Part {
    Part { lane: place.lane, piece: unit.piece, begin: unit.begin, content }
}

async fn join(reading: JoinHandle<Filled>) -> Filled {
    match reading.await {
        Ok(filled) => filled,
        // Nobody aborts these tasks.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads one unit, part by part as it lies in files.
async fn read_unit(files: Rc<Files>, unit: Unit, mut buffer: Buffer) -> Filled {
    // Where the buffer's first page boundary is; allocators promise no such alignment.
    let base = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    let start = files.job.unit_start(unit);
    let mut filled = base..base;
    for extent in files.job.layout.extents(start, unit.len) {
        let Some(FileIndex(file)) = extent.file else {
            let end = filled.end + extent.len as usize;
            buffer[filled.end..end].fill(0);
            filled.end = end;
            continue;
        };
        let fault = |fault| Err((file as usize, fault));
        let opened = match files.get(file as usize) {
            Ok(opened) => opened,
            Err(cause) => return Filled { buffer, result: fault(cause) },
        };
        let (result, back) = read_part(&opened, extent, buffer, base, filled.end).await;
        buffer = back;
        let part = match result {
            Ok(part) => part,
            Err(cause) => return Filled { buffer, result: fault(cause) },
        };
        if filled.is_empty() {
            filled = part;
        } else {
            // In the same buffer, still warm: less than reading through the page cache costs.
            buffer.copy_within(part.clone(), filled.end);
            filled.end += part.len();
        }
    }
    Filled { buffer, result: Ok(filled) }
}

/// Reads the part of a unit that lies in one file to `at` or somewhat behind: past the page cache where
/// the file system allows it, else after the cache was told to forget it. Says where the bytes lie.
async fn read_part(
    file: &Opened,
    extent: Extent,
    mut buffer: Buffer,
    base: usize,
    at: usize,
) -> (Result<Range<usize>, Fault>, Buffer) {
    if let Some(direct) = file.direct() {
        let page = base + (at - base).next_multiple_of(PAGE);
        let (result, back) = read_direct(direct, extent, buffer, page).await;
        buffer = back;
        match result {
            // A device of larger sectors, or a file system that takes the flag and not the reads.
            Err(Refused::Direct) => {}
            Err(Refused::Fault(cause)) => return (Err(cause), buffer),
            Ok(range) => return (Ok(range), buffer),
        }
    }
    let end = at + extent.len as usize;
    file.forget_cached(extent.file_offset, extent.len);
    let (result, buffer) = read_all(file.buffered(), buffer, (at, end), extent.file_offset).await;
    let result = match result {
        Ok(got) if got == end - at => Ok(at..end),
        Ok(_) => Err(Fault::Absent),
        Err(error) => Err(error.into()),
    };
    (result, buffer)
}

/// Why a direct read gave nothing.
enum Refused {
    /// Try again through the page cache.
    Direct,
    Fault(Fault),
}

/// Reads the whole pages around `extent` to `base`, a page boundary, and says where its bytes lie.
async fn read_direct(
    file: &Handle,
    extent: Extent,
    buffer: Buffer,
    base: usize,
) -> (Result<Range<usize>, Refused>, Buffer) {
    let skew = (extent.file_offset % PAGE as u64) as usize;
    let need = skew + extent.len as usize;
    let end = base + need.next_multiple_of(PAGE);
    let (result, buffer) = read_all(file, buffer, (base, end), extent.file_offset - skew as u64).await;
    let result = match result {
        Ok(got) if got >= need => Ok(base + skew..base + need),
        Ok(_) => Err(Refused::Fault(Fault::Absent)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(Refused::Direct),
        Err(error) => Err(Refused::Fault(error.into())),
    };
    (result, buffer)
}

/// Reads until `buffer[from..to]` is full or the file ends; the bytes read.
async fn read_all(
    file: &Handle,
    mut buffer: Buffer,
    (from, to): (usize, usize),
    offset: u64,
) -> (io::Result<usize>, Buffer) {
    let mut got = 0;
    while from + got < to {
        let (result, back) = file.read(buffer, (from + got, to), offset + got as u64).await;
        buffer = back;
        match result {
            Ok(0) => break,
            Ok(more) => {
                got += more;
                // A direct read that ends inside a page ended with the file: going on is not aligned.
                if file.is_direct && !got.is_multiple_of(PAGE) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(got), buffer)
}
