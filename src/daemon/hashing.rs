//! Digests of what lies on disk, at the speed of the disk: `create`, `verify`, and the node's check of
//! existing files.
//!
//! One thread reads ahead (io_uring, `O_DIRECT` where the file system allows it) into a fixed set of
//! buffers; one thread per core digests them, up to four pieces side by side; the caller's thread hears of
//! each piece as it is done, in no particular order. Memory is bounded by the buffers
//! ([`HASH_BUFFERS_BYTES_MAX`]), whatever the piece length.
//!
//! Missing and short files are no errors: their pieces are [`PieceOutcome::Absent`].

mod check;
mod digest;
mod method;
mod read;
mod source;
mod units;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use crossbeam::channel::{Receiver, Sender, bounded};
use thiserror::Error;

use crate::base::geometry::Geometry;
use crate::base::limits::{HASH_BUFFERS_BYTES_MAX, HASH_THREADS_MAX};
use crate::hash::sha1::LANES;
use crate::proto::metainfo::Metainfo;
use crate::storage::layout::Layout;

pub use check::{Known, check_pieces};
use digest::Digester;
pub use method::{Digests, Method, PieceDigest};
use source::Fault;
use units::Job;

/// Largest single read, and the share of a piece that is digested at once.
const UNIT_BYTES: u32 = 1 << 20;
/// Reads in flight.
const READS_MAX: usize = 16;
/// Rows that wait for a digest thread, besides the one it has.
const ROWS_WAITING: usize = 1;

/// One file of what is digested, in payload order.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path below the directory; an absolute one only of the part file.
    pub path: PathBuf,
    /// Size in bytes that it must have at least.
    pub length: u64,
    /// All zero bytes and never on disk (BEP 47).
    pub pad: bool,
}

/// What is digested: files below a directory, cut into pieces.
pub struct HashSource {
    dir: PathBuf,
    job: Arc<Job>,
}

/// How to digest.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashOptions {
    /// Digest threads; `None` is one per allowed CPU. At most [`HASH_THREADS_MAX`].
    pub threads: Option<usize>,
    /// What is computed.
    pub method: Method,
}

/// What became of one piece.
#[derive(Debug)]
pub enum PieceOutcome {
    /// All of it was read.
    Hashed {
        /// The digests that were asked for.
        digest: PieceDigest,
        /// One per chunk, in order; empty unless asked for.
        fingerprints: Vec<u64>,
    },
    /// All of it was read, and no digest was asked for.
    Fingerprinted {
        /// One per chunk, in order.
        fingerprints: Vec<u64>,
    },
    /// A file is missing or too short to have it.
    Absent {
        /// Index of that file.
        file: usize,
    },
    /// A file could not be read.
    Failed(ReadError),
}

/// Why a file could not be read.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct ReadError {
    /// The file, below the directory.
    pub path: PathBuf,
    /// What went wrong.
    pub fault: String,
}

/// Why nothing could be digested at all.
#[derive(Debug, Error)]
pub enum HashError {
    /// The directory that holds the files.
    #[error("cannot open directory, {}: {source}; check the path and its permissions", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread or its runtime.
    #[error("cannot start a thread, {0}: raise the limit on processes (ulimit -u)")]
    Thread(io::Error),
}

impl HashSource {
    /// `files` below `dir`, which together hold `geometry.total_bytes`.
    pub fn new(dir: &Path, geometry: Geometry, files: Vec<SourceFile>) -> Self {
        Self { dir: dir.to_owned(), job: Arc::new(Job::new(geometry, files)) }
    }

    /// The files of a torrent below the download directory `dir`.
    pub fn of_torrent(metainfo: &Metainfo, dir: &Path) -> Self {
        let files = metainfo.files.iter().map(|file| SourceFile {
            path: file.path.iter().collect(),
            length: file.length,
            pad: file.pad,
        });
        Self::new(dir, metainfo.geometry, files.collect())
    }

    /// The same files, of which those that lie apart by `layout` are read from the part file `path`, an
    /// absolute one. It counts as one more file.
    pub fn with_parts(self, layout: Layout, path: &Path) -> Self {
        let mut files = self.job.files.clone();
        files.push(SourceFile { path: path.to_owned(), length: layout.total_bytes(), pad: false });
        let job = Job { geometry: self.job.geometry, files, layout };
        Self { dir: self.dir, job: Arc::new(job) }
    }

    /// Indices of the files that piece `piece` touches, empty ones and padding left out.
    pub fn files_of_piece(&self, piece: u32) -> Vec<usize> {
        let files = self.job.layout.files_of_piece(self.job.geometry, piece);
        files.map(|file| file.0 as usize).collect()
    }

    /// The files, in payload order.
    pub fn files(&self) -> &[SourceFile] {
        &self.job.files
    }
}

/// Digests `pieces` (ascending; others than those of the torrent are left out) and reports each to
/// `on_piece` on the caller's thread, until it breaks. True if all were reported.
pub fn hash_pieces(
    source: &HashSource,
    pieces: impl IntoIterator<Item = u32>,
    options: &HashOptions,
    on_piece: &mut dyn FnMut(u32, PieceOutcome) -> ControlFlow<()>,
) -> Result<bool, HashError> {
    let dir = source::open_dir(&source.dir)
        .map_err(|error| HashError::Directory { path: source.dir.clone(), source: error })?;
    let count = source.job.geometry.piece_count();
    let pieces: Vec<u32> = pieces.into_iter().filter(|&piece| piece < count).collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads_for(options.threads.unwrap_or(cores), pieces.len());
    let stop = AtomicBool::new(false);
    let (result_tx, results) = bounded(1024);
    let pool = Pool::new(buffers_for(threads));

    thread::scope(|scope| {
        let mut to_threads = Vec::new();
        for index in 0..threads {
            let (to_thread, rows) = bounded(ROWS_WAITING);
            let digester = Digester {
                job: &source.job,
                method: options.method,
                results: result_tx.clone(),
                pool: &pool,
            };
            to_threads.push(to_thread);
            let builder = thread::Builder::new().name(format!("digest-{index}"));
            builder.spawn_scoped(scope, move || digester.run(&rows)).map_err(HashError::Thread)?;
        }
        drop(result_tx);
        let job = Arc::clone(&source.job);
        let reader = read::Reader { job, dir, threads: to_threads, pool: &pool, stop: &stop };
        let builder = thread::Builder::new().name("digest-read".to_owned());
        builder.spawn_scoped(scope, move || reader.run(&pieces)).map_err(HashError::Thread)?;
        for (piece, outcome) in &results {
            if !stop.load(Ordering::Relaxed) && on_piece(piece, outcome).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(!stop.load(Ordering::Relaxed))
    })
}

fn threads_for(wanted: usize, pieces: usize) -> usize {
    wanted.min(pieces).clamp(1, HASH_THREADS_MAX)
}

/// Those being read, a row that is gathered or dealt out piece by piece, and the rows of each thread.
const fn buffers_for(threads: usize) -> usize {
    READS_MAX + LANES + 1 + threads * (1 + ROWS_WAITING) * LANES
}

const _: () = assert!(buffers_for(HASH_THREADS_MAX) * read::BUFFER_BYTES <= HASH_BUFFERS_BYTES_MAX);

/// A recycled read buffer.
type Buffer = Vec<u8>;

/// A fixed number of buffers, made on first use.
struct Pool {
    /// One for each buffer that may be taken.
    permits: Receiver<()>,
    give: Sender<()>,
    /// The one given back last is taken first: its bytes are still in the processor's cache.
    free: Mutex<Vec<Buffer>>,
}

impl Pool {
    fn new(count: usize) -> Self {
        let (give, permits) = bounded(count);
        for _ in 0..count {
            let _ = give.try_send(());
        }
        Self { permits, give, free: Mutex::new(Vec::with_capacity(count)) }
    }

    /// Waits for a buffer; the digest threads give theirs back without waiting for anything.
    fn take(&self) -> Buffer {
        // Both ends live in `self`: it cannot be disconnected.
        let _ = self.permits.recv();
        self.free().pop().unwrap_or_else(|| vec![0; read::BUFFER_BYTES])
    }

    fn give(&self, buffer: Buffer) {
        self.free().push(buffer);
        let _ = self.give.try_send(());
    }

    fn free(&self) -> MutexGuard<'_, Vec<Buffer>> {
        // Whoever panicked with it: a list of buffers is whole.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    /// The outcome of a piece that needs file `file` of `files`.
    fn outcome(self, file: usize, files: &[SourceFile]) -> PieceOutcome {
        match self {
            Self::Absent => PieceOutcome::Absent { file },
            Self::Unusable(fault) => {
                PieceOutcome::Failed(ReadError { path: files[file].path.clone(), fault })
            }
        }
    }
}

#[cfg(test)]
mod tests;
