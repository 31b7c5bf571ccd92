//! The state directory: journals with their locks, part files of what is wanted in part, the .torrent files
//! of what was relayed, the ledger, the node's secret, and the seed of its key pair.
//!
//! One journal per torrent and download directory, named after both, so that the same torrent
//! may lie in two places. State never lies inside a download directory, where a torrent could name it
//! (threats T20).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::files::shown;
use crate::base::ids::InfoHash;
use crate::base::limits::JOURNAL_BYTES_MAX;
use crate::daemon::random::random;
use crate::hash::fingerprint::Fingerprint;
use crate::hash::signature::NodeKey;
use crate::proto::metainfo::Metainfo;
use crate::storage::journal::{Corrupt, Replay, Subject, replay};

mod glance;
mod journal_file;
mod keeper;
mod ledger_file;
mod library;
mod metadata;
mod nodes_file;
mod selection_file;

pub use glance::Glance;
pub use journal_file::JournalFile;
pub use keeper::{Keeper, Settled};
pub use ledger_file::OpenedLedger;
pub use library::{Library, Remembered};
pub use selection_file::KeptSelection;

const SECRET_BYTES: usize = 32;
/// Mode bits by which group and others may write.
const OTHERS_WRITE: u32 = 0o022;
const SECRET_NAME: &str = "secret";
const IDENTITY_NAME: &str = "identity";

/// What can go wrong with the state directory: one line each.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The node's secret has the wrong size.
    #[error("{}: is damaged: delete it, and all torrents will be checked again", shown(path))]
    BadSecret {
        /// Of the secret.
        path: PathBuf,
    },
    /// The seed of the node's key pair has the wrong size.
    #[error("{}: is damaged: delete it, and other nodes will take this one for a new one", shown(path))]
    BadIdentity {
        /// Of the seed.
        path: PathBuf,
    },
    /// Another process has the torrent in the same directory.
    #[error(
        "another troc ({holder}) already uses this torrent in {}: stop it or choose another directory",
        shown(dir)
    )]
    InUse {
        /// The process, as far as known.
        holder: String,
        /// Download directory.
        dir: PathBuf,
    },
    /// Another process keeps the ledger.
    #[error("another troc ({holder}) keeps the ledger of this state directory")]
    LedgerInUse {
        /// The process, as far as known.
        holder: String,
    },
    /// State would lie where torrents may write.
    #[error(
        "state directory {} lies inside download directory {}: choose another with --state or TROC_STATE",
        shown(state),
        shown(dir)
    )]
    Inside {
        /// State directory.
        state: PathBuf,
        /// Download directory.
        dir: PathBuf,
    },
    /// Another user could read the secret, or forge what a journal says.
    #[error(
        "state directory {} belongs to user {owner}, and this is user {user}: choose another with --state or \
         TROC_STATE, or give it to this user with chown -R {user}",
        shown(path)
    )]
    NotOurs {
        /// State directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others than its user may write there.
    #[error(
        "state directory {} may be written by others than its user: chmod go-w it, or choose another with \
         --state or TROC_STATE",
        shown(path)
    )]
    Writable {
        /// State directory.
        path: PathBuf,
    },
    /// The journal has another version of the format.
    #[error("{}: {source}, or move the file away to have the torrent checked again", shown(path))]
    Version {
        /// Of the journal.
        path: PathBuf,
        /// Which.
        source: Corrupt,
    },
    /// The kernel refused.
    #[error("{}: {source}: choose another state directory with --state or TROC_STATE", shown(path))]
    Other {
        /// Of the file or directory.
        path: PathBuf,
        /// As the kernel says it.
        source: io::Error,
    },
}

/// The state directory of this node.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    secret: Secret,
}

struct Secret([u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A journal, locked for this process.
#[derive(Debug)]
pub struct OpenedJournal {
    /// For what comes.
    pub file: JournalFile,
    /// What it is about.
    pub subject: Subject,
    /// What it said; `None` if there was none, or none that could be used.
    pub replay: Option<Replay>,
    /// Why it, or its end, could not be used, and where a copy was put.
    pub set_aside: Option<(Corrupt, PathBuf)>,
}

impl StateDir {
    /// Opens `path`, which is created for this user alone if missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let at = |source| StoreError::Other { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at)?;
        let path = path.canonicalize().map_err(at)?;
        let found = path.metadata().map_err(at)?;
        check_ours(&path, (found.uid(), found.mode()), rustix::process::geteuid().as_raw())?;
        let secret = Secret(load_secret(&path, SECRET_NAME)?);
        Ok(Self { path, secret })
    }

    /// Refuses a download directory in which the state would lie.
    pub fn check_outside(&self, download_dir: &Path) -> Result<(), StoreError> {
        let dir = canonical(download_dir)?;
        if self.path.starts_with(&dir) {
            return Err(StoreError::Inside { state: self.path.clone(), dir });
        }
        Ok(())
    }

    /// The function that makes this node's fingerprints of chunks.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(xxh3_64_with_seed(&self.secret.0, 1))
    }

    /// The node's key pair, made when it is first asked for. `session` is random.
    pub fn node_key(&self, session: &[u8; SECRET_BYTES]) -> Result<NodeKey, StoreError> {
        let seed = load_secret(&self.path, IDENTITY_NAME).map_err(|error| match error {
            StoreError::BadSecret { path } => StoreError::BadIdentity { path },
            other => other,
        })?;
        Ok(NodeKey::new(&seed, session))
    }

    /// Secret under which parties are hashed: the same at each start, so that an account is found again.
    pub fn party_secret(&self) -> u64 {
        xxh3_64_with_seed(&self.secret.0, 3)
    }

    /// Opens and locks the journal of a torrent in `download_dir`, which must exist. A journal that
    /// cannot be used is set aside.
    pub fn open_journal(
        &self,
        download_dir: &Path,
        metainfo: &Metainfo,
    ) -> Result<OpenedJournal, StoreError> {
        self.check_outside(download_dir)?;
        let dir = canonical(download_dir)?;
        let path = self.journal_path(&dir, metainfo.info_hash);
        let lock = lock(&path.with_extension("lock"), &dir)?;
        let subject = self.subject(metainfo);

        let at = |source| StoreError::Other { path: path.clone(), source };
        let bytes = read_journal(&path, JOURNAL_BYTES_MAX).map_err(at)?;
        let found = bytes.map(|bytes| replay(&bytes, &subject));
        let bad = match &found {
            Some(Err(source @ Corrupt::Version { .. })) => {
                return Err(StoreError::Version { path, source: *source });
            }
            Some(Err(reason)) => Some(*reason),
            Some(Ok(replay)) if !replay.whole => Some(Corrupt::Tail),
            _ => None,
        };
        let set_aside = bad.map(|reason| set_aside(&path).map(|copy| (reason, copy))).transpose();
        let replay = found.and_then(Result::ok);
        let end = replay.as_ref().map_or(0, |replay| replay.writer.bytes());
        let set_aside = set_aside.map_err(at)?;
        let file = JournalFile::open(path.clone(), end, lock).map_err(at)?;
        Ok(OpenedJournal { file, subject, replay, set_aside })
    }

    /// Where the part file of a torrent in `download_dir`, which must exist, is or would be.
    pub fn parts_path(&self, download_dir: &Path, info_hash: InfoHash) -> Result<PathBuf, StoreError> {
        let stem = journal_stem(info_hash, &canonical(download_dir)?);
        Ok(self.path.join(format!("{stem}.parts")))
    }

    /// `dir` without links.
    fn journal_path(&self, dir: &Path, info_hash: InfoHash) -> PathBuf {
        self.path.join(format!("{}.journal", journal_stem(info_hash, dir)))
    }

    /// A hybrid is named by its v2 part: what was verified while only its v1 part was known has to be checked
    /// anew, by both digests, since they may disagree (threat T22).
    fn subject(&self, metainfo: &Metainfo) -> Subject {
        let secret_id = xxh3_64_with_seed(&self.secret.0, 2);
        let info_hash = metainfo.names().last().unwrap_or(metainfo.info_hash);
        let file_count = metainfo.files.len() as u32;
        Subject { info_hash, geometry: metainfo.geometry, file_count, secret_id }
    }
}

/// Refuses a directory, of this owner and mode, in which anybody but `user` may put files: a secret that they
/// know, or journals that they wrote. Without links.
fn check_ours(path: &Path, (owner, mode): (u32, u32), user: u32) -> Result<(), StoreError> {
    let path = path.to_owned();
    if owner != user {
        Err(StoreError::NotOurs { path, owner, user })
    } else if mode & OTHERS_WRITE != 0 {
        Err(StoreError::Writable { path })
    } else {
        Ok(())
    }
}

/// How the files of a torrent in a download directory are named.
fn journal_stem(info_hash: InfoHash, dir: &Path) -> String {
    format!("{info_hash}-{:016x}", xxh3_64(dir.as_os_str().as_encoded_bytes()))
}

fn canonical(dir: &Path) -> Result<PathBuf, StoreError> {
    dir.canonicalize().map_err(|source| StoreError::Other { path: dir.to_owned(), source })
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// A secret, made when it is first needed. Two nodes that start at once end up with the same.
fn load_secret(dir: &Path, name: &str) -> Result<[u8; SECRET_BYTES], StoreError> {
    let path = dir.join(name);
    let at = |source| StoreError::Other { path: path.clone(), source };
    if !path.try_exists().map_err(at)? {
        make_secret(dir, &path).map_err(at)?;
    }
    let mut bytes = Vec::new();
    let file = private().read(true).open(&path).map_err(at)?;
    file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(at)?;
    bytes.try_into().map_err(|_| StoreError::BadSecret { path: path.clone() })
}

fn make_secret(dir: &Path, path: &Path) -> io::Result<()> {
    let secret: [u8; SECRET_BYTES] = random()?;
    let temp = path.with_extension(std::process::id().to_string());
    let _ = std::fs::remove_file(&temp);
    let mut file = private().write(true).create_new(true).open(&temp)?;
    let written = file.write_all(&secret).and_then(|()| file.sync_all());
    // Unlike a rename, a link never replaces the secret of a node that was faster.
    let linked = written.and_then(|()| std::fs::hard_link(&temp, path));
    std::fs::remove_file(&temp)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

/// Takes the lock that a journal's replacement does not lose, and writes down who has it.
fn lock(path: &Path, dir: &Path) -> Result<File, StoreError> {
    let at = |source| StoreError::Other { path: path.to_owned(), source };
    let mut file = private().read(true).write(true).create(true).truncate(false).open(path).map_err(at)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.take(20).read_to_string(&mut text);
            let pid = text.trim().parse::<u32>();
            let holder = pid.map_or_else(|_| "process unknown".to_owned(), |pid| format!("process {pid}"));
            return Err(StoreError::InUse { holder, dir: dir.to_owned() });
        }
        Err(errno) => return Err(at(errno.into())),
    }
    // Over what was there, always as long: ext4 writes a file that was emptied to disk when it is closed.
    writeln!(file, "{:<10}", std::process::id()).map_err(at)?;
    Ok(file)
}

/// At most `max` bytes of a journal; what is beyond counts as a damaged end. `None` if there is none.
fn read_journal(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match private().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Keeps a journal, that will be replaced, under another name as well.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let copy = path.with_extension("damaged");
    match std::fs::remove_file(&copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::hard_link(path, &copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests;
