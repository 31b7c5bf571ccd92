//! How a torrent starts: its journal, its files, what of them is believed and what is hashed.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::clock;
use super::error::NodeError;
use super::files::{Access, TorrentFiles, layout_of};
use super::hashing::{Digests, HashOptions, HashSource, Known, Method, PieceOutcome, check_pieces};
use super::store::{Keeper, StateDir};
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::ids::TorrentId;
use crate::base::limits::{CHECKS_MAX, STARTS_MAX, TORRENTS_STARTING_MAX};
use crate::base::priority::Priority;
use crate::io::uring::FilePair;
use crate::proto::metainfo::Metainfo;
use crate::shared::budget::Budget;
use crate::shared::torrent::{SharedTorrent, TorrentLimits, TorrentMeta};
use crate::shared::trees::Trees;
use crate::storage::durability::SyncPolicy;
use crate::storage::layout::{FileIndex, Layout};
use crate::storage::parts::Place;
use crate::storage::resume::Resume;
use crate::storage::wanted::Wanted;

/// A torrent that is ready to be fetched and served.
#[derive(Debug)]
pub struct Started {
    /// For the workers.
    pub shared: Arc<SharedTorrent>,
    /// For the workers.
    pub pairs: Arc<[Option<Arc<FilePair>>]>,
    /// Pieces that are durable.
    pub durable: Bitfield,
    /// For the keeping task.
    pub keeper: Keeper,
    /// For the keeping task.
    pub files: TorrentFiles,
}

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// The torrent's number.
    pub id: TorrentId,
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// Where its files are.
    pub dir: PathBuf,
    /// Where its journal is.
    pub state: Arc<StateDir>,
    /// How many workers there are.
    pub cores: usize,
    /// Shared by all torrents of the node.
    pub gates: Arc<Gates>,
    /// When written bytes are synced.
    pub sync: SyncPolicy,
    /// A complete torrent need not be open yet.
    pub may_sleep: bool,
    /// How much each file is wanted; `None` if all are alike.
    pub wanted: Option<Arc<[Priority]>>,
    /// Most payload to send of it, in bytes per second.
    pub upload_limit: Option<u64>,
    /// Most payload of it to ask for.
    pub download_limit: Option<u64>,
}

/// How much of starting goes on at once, over all torrents.
#[derive(Debug)]
pub struct Gates {
    /// Torrents somewhere between begin and open, waiting for a check included: each holds descriptors.
    begun: Semaphore,
    checks: Semaphore,
    starts: Semaphore,
    stopped: AtomicBool,
}

impl Default for Gates {
    fn default() -> Self {
        let (begun, checks) = (Semaphore::new(TORRENTS_STARTING_MAX), Semaphore::new(CHECKS_MAX));
        Self { begun, checks, starts: Semaphore::new(STARTS_MAX), stopped: AtomicBool::new(false) }
    }
}

impl Gates {
    /// The node stops: checks under way end, and none begins.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A torrent of which it is known what to check.
struct Begun {
    files: TorrentFiles,
    /// Where the bytes lie, those of files that nobody wants included.
    layout: Layout,
    keeper: Keeper,
    resume: Resume,
}

/// Pieces that were checked and are right, each with the fingerprints of its chunks.
type Found = Vec<(u32, Vec<u64>)>;

/// Opens journal and files, hashes what is not known, makes room for what is missing; all that may wait
/// for a disk is done on the blocking pool. `on_checked` hears of each piece that was hashed. `None` if all
/// is there, and is known to be at the next start, and the torrent may sleep: nothing of it is open then.
pub async fn start(
    config: StartConfig,
    on_checked: impl Fn(u32) + Send + 'static,
) -> Result<Option<Started>, NodeError> {
    let config = Arc::new(config);
    // Never closed. A torrent that is woken does not queue behind others: its peers wait for it.
    let _place = if config.may_sleep { config.gates.begun.acquire().await.ok() } else { None };
    let starts = &config.gates.starts;
    let job = Arc::clone(&config);
    let mut begun = blocking(starts, move || begin(&job)).await?;
    let resume = &begun.resume;
    if config.may_sleep && resume.clean && !resume.replace && resume.state.durable().is_full() {
        return Ok(None);
    }
    prove(&mut begun, &config.metainfo).await?;
    let prints = std::mem::take(&mut begun.resume.known);
    let found = check(&config, &begun, prints, on_checked).await?;
    let job = Arc::clone(&config);
    let started = blocking(starts, move || finish(&job, begun, found)).await?;
    if config.may_sleep && started.shared.is_complete() {
        return close(started.keeper, started.files, &config.metainfo).await.map(|()| None);
    }
    Ok(Some(started))
}

/// Runs `work` on the blocking pool once there is room at `gate`.
async fn blocking<T: Send + 'static>(
    gate: &Semaphore,
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let _room = gate.acquire().await.map_err(|error| NodeError::Control(std::io::Error::other(error)))?;
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| NodeError::Control(std::io::Error::other(error)))?
}

fn begin(config: &StartConfig) -> Result<Begun, NodeError> {
    let metainfo = &config.metainfo;
    let parts = config.state.parts_path(&config.dir, metainfo.info_hash)?;
    let mut files = TorrentFiles::new(&config.dir, Arc::clone(metainfo))?.with_parts(&parts)?;
    let journal = config.state.open_journal(&config.dir, metainfo)?;
    if let Some((reason, copy)) = &journal.set_aside {
        tracing::warn!("journal not usable, {reason}; kept as {}, files are checked instead", copy.display());
    }
    let said = journal.replay.as_ref().map(|replay| &replay.state);
    let layout = files.arrange(layout_of(metainfo), said, config.wanted.as_deref());
    let (keeper, resume) = Keeper::start(journal, &layout, &mut files, config.sync)?;
    Ok(Begun { files, layout, keeper, resume })
}

/// After an unclean end what is believed counts as durable once the journal that says so is on disk.
async fn prove(begun: &mut Begun, metainfo: &Metainfo) -> Result<(), NodeError> {
    if begun.keeper.machine().durable() == begun.resume.state.durable() {
        return Ok(());
    }
    let settled = begun.keeper.settle(&mut begun.files, clock::now()).await;
    match settled.errors.into_iter().next() {
        Some(why) => Err(disk_error(metainfo, why)),
        None => Ok(()),
    }
}

fn disk_error(metainfo: &Metainfo, why: String) -> NodeError {
    NodeError::Disk { name: crate::proto::text::escape(metainfo.name.as_bytes(), 255), why }
}

fn finish(config: &StartConfig, begun: Begun, found: Found) -> Result<Started, NodeError> {
    let Begun { mut files, layout, mut keeper, resume } = begun;
    let metainfo = &config.metainfo;
    let wanted = config.wanted.as_ref().map(|wanted| Wanted::new(&layout, metainfo.geometry, wanted));
    let believed = resume.state.durable();
    let mut have = believed.clone();
    for (piece, _) in &found {
        have.set(*piece);
    }
    // What is all there may lie where nobody may write.
    let all = wanted.as_ref().map_or_else(|| have.is_full(), |wanted| is_within(wanted.pieces(), &have));
    if !all || is_any_absent(&files, metainfo)? {
        files.preallocate_all()?;
        if wanted.as_ref().is_some_and(|wanted| shares_pieces(&layout, metainfo.geometry, wanted)) {
            files.open(files.parts_index(), Access::Write)?;
        }
    }
    note_files(&mut keeper, &files, &resume)?;
    let geometry = metainfo.geometry;
    let meta = TorrentMeta {
        id: config.id,
        info_hash: metainfo.info_hash,
        geometry,
        piece_hashes: metainfo.piece_hashes.clone(),
        layout,
        info: metainfo.info.clone(),
        trees: trees_of(metainfo).map(Arc::new),
        v2_hash: metainfo.names().nth(1),
        private: metainfo.private,
    };
    let budget = |rate| Arc::new(Budget::new(rate, clock::now()));
    let limits = TorrentLimits {
        upload: config.upload_limit.map(budget),
        download: config.download_limit.map(budget),
    };
    let shared = SharedTorrent::with_wanted(meta, &have, config.cores, limits, wanted.map(Arc::new));
    for piece in believed.ones() {
        set_fingerprints(&shared, piece, resume.state.fingerprints(piece));
    }
    for (piece, prints) in found {
        set_fingerprints(&shared, piece, &prints);
        let files: Vec<FileIndex> = shared.meta.layout.files_of_piece(geometry, piece).collect();
        // Found right, but perhaps never synced: it becomes durable like a piece just written.
        let _ = keeper.machine().handle_written(piece, files, prints.into(), clock::now());
    }
    keeper.machine().flush();
    let durable = keeper.machine().durable();
    let access = if shared.is_satisfied() { Access::Read } else { Access::Write };
    let pairs = open_all(&mut files, metainfo, access)?;
    Ok(Started { shared, pairs, durable, keeper, files })
}

/// The trees of a v2 or hybrid torrent, as the cores need them.
fn trees_of(metainfo: &Metainfo) -> Option<Trees> {
    let v2 = metainfo.v2.as_ref()?;
    let files = v2.files.iter().map(|file| (file.pieces.start, file.length, file.layer.clone()));
    // They fit: whoever holds a `Metainfo` holds whole layers. Without trees no v2 piece would be right.
    Trees::new(metainfo.geometry, files)
}

/// Makes durable what was found, so that the torrent is opened later without a look at its bytes.
async fn close(keeper: Keeper, mut files: TorrentFiles, metainfo: &Metainfo) -> Result<(), NodeError> {
    let (settled, clean) = keeper.close(&mut files, clock::now()).await;
    if clean {
        return Ok(());
    }
    let why = settled.errors.into_iter().next();
    let why = why.unwrap_or_else(|| "not closed cleanly: start again to have it checked".to_owned());
    Err(disk_error(metainfo, why))
}

fn set_fingerprints(shared: &SharedTorrent, piece: u32, prints: &[u64]) {
    for (chunk, &print) in crate::engine::assembly_chunks(shared, piece).into_iter().zip(prints) {
        shared.set_fingerprint(chunk, print);
    }
}

/// Reads the pieces of which it is not known whether they are there, compares the fingerprints that the
/// journal has of them, and hashes the others.
async fn check(
    config: &StartConfig,
    begun: &Begun,
    prints: Vec<(u32, Box<[u64]>)>,
    on_checked: impl Fn(u32) + Send + 'static,
) -> Result<Found, NodeError> {
    let rehash = &begun.resume.rehash;
    if rehash.count() == 0 {
        return Ok(Vec::new());
    }
    let (metainfo, dir, gates) =
        (Arc::clone(&config.metainfo), config.dir.clone(), Arc::clone(&config.gates));
    let pieces: Vec<u32> = rehash.ones().collect();
    let apart = match begun.layout.has_apart() {
        true => Some((begun.layout.clone(), config.state.parts_path(&dir, metainfo.info_hash)?)),
        false => None,
    };
    let fingerprint = config.state.fingerprint();
    let digests = Digests::of_torrent(&metainfo);
    let method = Method { digests, fingerprint: Some(fingerprint) };
    let options = HashOptions { method, ..HashOptions::default() };
    blocking(&config.gates.checks, move || {
        let mut found = Vec::new();
        let mut source = HashSource::of_torrent(&metainfo, &dir);
        if let Some((layout, parts)) = apart {
            source = source.with_parts(layout, &parts);
        }
        let mut on_piece = |piece, outcome| {
            match outcome {
                PieceOutcome::Hashed { digest, fingerprints } => {
                    found.extend(digest.fits(&metainfo, piece).then_some((piece, fingerprints)));
                }
                PieceOutcome::Fingerprinted { fingerprints } => found.push((piece, fingerprints)),
                _ => {}
            }
            on_checked(piece);
            if gates.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let of_piece = |piece| {
            let at = prints.binary_search_by_key(&piece, |(piece, _)| *piece);
            at.map_or(&[] as &[u64], |at| &prints[at].1)
        };
        let known = Known { fingerprint, of_piece: &of_piece };
        if gates.is_stopped() || !check_pieces(&source, pieces, &known, &options, &mut on_piece)? {
            // What was not looked at must not count as missing: nothing is known until all is checked.
            return Err(NodeError::CheckStopped);
        }
        Ok(found)
    })
    .await
}

/// Files that are new, or whose content has just been checked: the journal says how they look.
fn note_files(keeper: &mut Keeper, files: &TorrentFiles, resume: &Resume) -> Result<(), NodeError> {
    for (index, identity) in (0u32..).zip(files.identities()?) {
        let file = FileIndex(index);
        if let Some(identity) = identity
            && (resume.state.file(index).is_none() || resume.unknown.contains(&file))
        {
            keeper.machine().handle_file(file, identity);
        }
    }
    Ok(())
}

/// Whether all bits of `some` are set in `all`.
fn is_within(some: &Bitfield, all: &Bitfield) -> bool {
    some.words().zip(all.words()).all(|(some, all)| some & !all == 0)
}

/// Whether wanted pieces have bytes of files that lie apart.
fn shares_pieces(layout: &Layout, geometry: Geometry, wanted: &Wanted) -> bool {
    let is_wanted = |piece: u32| wanted.piece(piece).is_wanted();
    layout.apart_files().any(|file| layout.pieces_of_file(geometry, file).any(is_wanted))
}

/// Whether a file that is wanted is not there, an empty one perhaps.
fn is_any_absent(files: &TorrentFiles, metainfo: &Metainfo) -> Result<bool, NodeError> {
    let found = files.identities()?;
    let wanted = |index: u32| files.place(FileIndex(index)) == Place::Wanted;
    let absent = (0u32..).zip(&found).zip(&metainfo.files);
    let mut absent =
        absent.filter(|((index, identity), file)| identity.is_none() && !file.pad && wanted(*index));
    Ok(absent.next().is_some())
}

/// Two descriptors for each file that has bytes on disk.
fn open_all(
    files: &mut TorrentFiles,
    metainfo: &Metainfo,
    access: Access,
) -> Result<Arc<[Option<Arc<FilePair>>]>, NodeError> {
    let mut pairs = Vec::with_capacity(metainfo.files.len());
    for (index, entry) in (0u32..).zip(&metainfo.files) {
        let file = FileIndex(index);
        let open = match files.place(file) {
            _ if entry.pad || entry.length == 0 => None,
            Place::Wanted => Some(files.open(file, access)?),
            // As it is: nothing is made of it, nor room for it.
            Place::Kept => Some(files.open(file, Access::Read)?),
            Place::Apart => None,
        };
        pairs.push(open);
    }
    if files.has_apart() && files.parts_identity()?.is_some() {
        pairs.push(Some(files.open(files.parts_index(), access)?));
    }
    Ok(pairs.into())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use crossbeam::channel::unbounded;

    use super::*;

    #[test]
    fn as_many_go_through_a_gate_as_the_limit_and_the_next_waits_for_one_to_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let gates = Gates::default();
        for (gate, max) in
            [(&gates.begun, TORRENTS_STARTING_MAX), (&gates.checks, CHECKS_MAX), (&gates.starts, STARTS_MAX)]
        {
            let (give, take) = unbounded();
            let job = || {
                let take = take.clone();
                Box::pin(blocking(gate, move || Ok(take.recv().is_ok())))
            };
            let mut context = Context::from_waker(Waker::noop());
            let _inside = runtime.enter();
            let mut jobs: Vec<_> = (0..max + 1).map(|_| job()).collect();
            for (number, job) in (1..).zip(&mut jobs) {
                assert!(job.as_mut().poll(&mut context).is_pending());
                assert_eq!(gate.available_permits(), max.saturating_sub(number));
            }
            let mut last = pin!(jobs.pop().unwrap());
            assert!(matches!(last.as_mut().poll(&mut context), Poll::Pending));
            (0..=max).for_each(|_| give.send(()).unwrap());
            assert!(jobs.into_iter().all(|job| runtime.block_on(job).unwrap()));
            assert!(runtime.block_on(last).unwrap());
            assert_eq!(gate.available_permits(), max);
        }
    }
}
