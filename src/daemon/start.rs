//! How a torrent starts: its journal, its files, what of them is believed and what is hashed.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock;
use super::error::NodeError;
use super::files::{Access, OpenFile, TorrentFiles, layout_of};
use super::hashing::{HashOptions, HashSource, PieceOutcome, hash_pieces};
use super::store::{Keeper, StateDir};
use crate::base::bitfield::Bitfield;
use crate::base::ids::TorrentId;
use crate::hash::fingerprint::Fingerprint;
use crate::io::uring::FilePair;
use crate::proto::metainfo::Metainfo;
use crate::shared::torrent::{SharedTorrent, TorrentMeta};
use crate::storage::durability::SyncPolicy;
use crate::storage::layout::FileIndex;
use crate::storage::resume::Resume;

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
    /// How many workers there are.
    pub cores: usize,
    /// Set when the node stops: a check under way ends.
    pub stop: Arc<AtomicBool>,
    /// When written bytes are synced.
    pub sync: SyncPolicy,
    /// Fingerprints of chunks.
    pub fingerprint: Fingerprint,
    /// A complete torrent need not be open yet.
    pub may_sleep: bool,
}

/// Opens journal and files, hashes what is not known, makes room for what is missing.
/// `on_checked` hears of each piece that was hashed. `None` if all is there, and is known to be at the
/// next start, and the torrent may sleep: nothing of it is open then.
pub async fn start(
    config: StartConfig,
    state: &StateDir,
    on_checked: impl Fn(u32) + Send + 'static,
) -> Result<Option<Started>, NodeError> {
    let metainfo = &config.metainfo;
    let geometry = metainfo.geometry;
    let layout = layout_of(metainfo);
    let mut files = TorrentFiles::new(&config.dir, Arc::clone(metainfo))?;
    let journal =
        state.open_journal(&config.dir, metainfo.info_hash, geometry, metainfo.files.len() as u32)?;
    if let Some((reason, copy)) = &journal.set_aside {
        tracing::warn!("journal not usable, {reason}; kept as {}, files are checked instead", copy.display());
    }
    let (mut keeper, resume) = Keeper::start(journal, &layout, &files, config.sync)?;
    if config.may_sleep && resume.clean && resume.state.durable().is_full() {
        return Ok(None);
    }

    let mut have = resume.state.durable();
    let durable = have.clone();
    let found = check(&config, &resume, on_checked).await?;
    for (piece, _) in &found {
        have.set(*piece);
    }
    // What is all there may lie where nobody may write.
    if !have.is_full() || is_any_absent(&files, metainfo)? {
        files.preallocate_all()?;
    }
    note_files(&mut keeper, &files, &resume)?;
    let meta = TorrentMeta {
        id: config.id,
        info_hash: metainfo.info_hash,
        geometry,
        piece_hashes: metainfo.piece_hashes.clone(),
        layout,
        private: metainfo.private,
    };
    let shared = SharedTorrent::new(meta, &have, config.cores);
    for piece in durable.ones() {
        set_fingerprints(&shared, piece, resume.state.fingerprints(piece));
    }
    for (piece, prints) in found {
        set_fingerprints(&shared, piece, &prints);
        let files: Vec<FileIndex> = shared.meta.layout.files_of_piece(geometry, piece).collect();
        // Found right, but perhaps never synced: it becomes durable like a piece just written.
        let _ = keeper.machine().handle_written(piece, files, prints.into(), clock::now());
    }
    keeper.machine().flush();
    if config.may_sleep && shared.is_complete() {
        return close(keeper, files, metainfo).await.map(|()| None);
    }
    let access = if shared.is_complete() { Access::Read } else { Access::Write };
    let pairs = open_all(&mut files, metainfo, access)?;
    Ok(Some(Started { shared, pairs, durable, keeper, files }))
}

/// Makes durable what was found, so that the torrent is opened later without a look at its bytes.
async fn close(keeper: Keeper, mut files: TorrentFiles, metainfo: &Metainfo) -> Result<(), NodeError> {
    let (settled, clean) = keeper.close(&mut files, clock::now()).await;
    if clean {
        return Ok(());
    }
    let name = crate::proto::text::escape(metainfo.name.as_bytes(), 255);
    let why = settled.errors.into_iter().next();
    let why = why.unwrap_or_else(|| "not closed cleanly: start again to have it checked".to_owned());
    Err(NodeError::Disk { name, why })
}

fn set_fingerprints(shared: &SharedTorrent, piece: u32, prints: &[u64]) {
    for (chunk, &print) in crate::engine::assembly_chunks(shared, piece).into_iter().zip(prints) {
        shared.set_fingerprint(chunk, print);
    }
}

/// Hashes the pieces of which nothing is known; returns those that are right, with fingerprints.
async fn check(
    config: &StartConfig,
    resume: &Resume,
    on_checked: impl Fn(u32) + Send + 'static,
) -> Result<Vec<(u32, Vec<u64>)>, NodeError> {
    if resume.rehash.count() == 0 {
        return Ok(Vec::new());
    }
    let (metainfo, dir, fingerprint) = (Arc::clone(&config.metainfo), config.dir.clone(), config.fingerprint);
    let pieces: Vec<u32> = resume.rehash.ones().collect();
    let (stop, stopped) = (Arc::clone(&config.stop), Arc::clone(&config.stop));
    let hashing = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        let source = HashSource::of_torrent(&metainfo, &dir);
        let options = HashOptions { fingerprint: Some(fingerprint), ..HashOptions::default() };
        hash_pieces(&source, pieces, &options, &mut |piece, outcome| {
            if let PieceOutcome::Hashed { digest, fingerprints } = outcome
                && metainfo.piece_hashes.get(piece as usize) == Some(&digest)
            {
                found.push((piece, fingerprints));
            }
            on_checked(piece);
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map(|_| found)
    });
    match hashing.await {
        // What was not looked at must not count as missing: nothing is known until all is checked.
        Ok(_) if stopped.load(Ordering::Relaxed) => Err(NodeError::CheckStopped),
        Ok(found) => Ok(found?),
        Err(error) => Err(NodeError::Control(std::io::Error::other(error))),
    }
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

/// Whether a file is not there, an empty one perhaps.
fn is_any_absent(files: &TorrentFiles, metainfo: &Metainfo) -> Result<bool, NodeError> {
    let found = files.identities()?;
    Ok(found.iter().zip(&metainfo.files).any(|(identity, file)| identity.is_none() && !file.pad))
}

/// Two descriptors for each file that has bytes on disk.
fn open_all(
    files: &mut TorrentFiles,
    metainfo: &Metainfo,
    access: Access,
) -> Result<Arc<[Option<Arc<FilePair>>]>, NodeError> {
    let mut pairs = Vec::with_capacity(metainfo.files.len());
    for (index, entry) in (0u32..).zip(&metainfo.files) {
        let wanted = !entry.pad && entry.length > 0;
        let open = wanted.then(|| files.open(FileIndex(index), access)).transpose()?;
        pairs.push(open.map(|open| pair(&open)).transpose()?);
    }
    Ok(pairs.into())
}

fn pair(file: &OpenFile) -> Result<Arc<FilePair>, NodeError> {
    let direct = file.direct().map(|fd| fd.try_clone_to_owned()).transpose();
    let buffered = file.buffered().try_clone_to_owned();
    match (direct, buffered) {
        (Ok(direct), Ok(buffered)) => Ok(Arc::new(FilePair::new(direct, buffered))),
        (Err(error), _) | (_, Err(error)) => Err(NodeError::Control(error)),
    }
}
