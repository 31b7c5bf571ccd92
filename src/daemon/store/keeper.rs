//! Carries out what the durability machine wants, on the control thread's ring.

use std::io;

use super::{JournalFile, OpenedJournal};
use crate::base::time::Instant;
use crate::daemon::files::{Access, FileError, TorrentFiles, sync_data};
use crate::storage::durability::{Durability, Intent, SyncPolicy};
use crate::storage::journal::{Record, Replay};
use crate::storage::layout::{FileIndex, Layout};
use crate::storage::parts::moves;
use crate::storage::resume::{Resume, believes, start};

/// A torrent's durability machine with its journal.
#[derive(Debug)]
pub struct Keeper {
    machine: Durability,
    journal: JournalFile,
}

/// What came of a round of work.
#[derive(Debug, Default)]
pub struct Settled {
    /// Pieces that will survive a crash from now on.
    pub durable: Vec<u32>,
    /// Pieces whose sync failed, durable before or not: the next start fetches them again.
    pub lost: Vec<u32>,
    /// What went wrong, each one line for the operator. The torrent should stop; what is durable stays.
    pub errors: Vec<String>,
}

impl Keeper {
    /// Compares the journal with the files as they are, and takes up the work where it ended.
    pub fn start(
        mut journal: OpenedJournal,
        layout: &Layout,
        files: &mut TorrentFiles,
        policy: SyncPolicy,
    ) -> Result<(Self, Resume), FileError> {
        if let Some(replay) = &mut journal.replay {
            take_over(replay, layout, files)?;
        }
        let actual = files.identities()?;
        let (resume, machine) = start(journal.replay, journal.subject, layout, &actual, policy);
        Ok((Self { machine, journal: journal.file }, resume))
    }

    /// To tell it what was written, created or lost, and to ask for a flush or a retry.
    pub fn machine(&mut self) -> &mut Durability {
        &mut self.machine
    }

    /// When `settle` will have work though nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Does all that is to be done at `now`.
    pub async fn settle(&mut self, files: &mut TorrentFiles, now: Instant) -> Settled {
        let mut settled = Settled::default();
        loop {
            let mut syncs = Vec::new();
            while let Some(intent) = self.machine.poll(now) {
                match intent {
                    Intent::Sync { file } => syncs.push((file, begin_sync(files, file))),
                    other => self.keep_journal(other, files, &mut settled).await,
                }
            }
            if syncs.is_empty() {
                return settled;
            }
            for (file, begun) in syncs {
                let result = match begun {
                    Ok(handle) => handle.await.unwrap_or_else(|error| Err(io::Error::other(error))),
                    Err(error) => Err(io::Error::other(error)),
                };
                settled.lost.extend(self.machine.handle_synced(file, result.is_ok()));
                if let Err(error) = result {
                    let path = files.shown_path(file);
                    let error =
                        format!("{path}: could not be synced: {error}: check the disk, then start again");
                    settled.errors.push(error);
                }
            }
        }
    }

    /// Stops cleanly: syncs all, and notes what the files look like. True if the next start will
    /// find a clean journal.
    pub async fn close(mut self, files: &mut TorrentFiles, now: Instant) -> (Settled, bool) {
        self.machine.flush();
        let mut settled = self.settle(files, now).await;
        if !self.machine.is_idle() || !settled.errors.is_empty() {
            return (settled, false);
        }
        match files.identities() {
            Ok(identities) => {
                let known = (0u32..).map(FileIndex).zip(identities);
                let known = known.filter_map(|(file, identity)| identity.map(|identity| (file, identity)));
                self.machine.close(known);
            }
            Err(error) => settled.errors.push(error.to_string()),
        }
        let last = self.settle(files, now).await;
        settled.durable.extend(last.durable);
        settled.errors.extend(last.errors);
        let clean = self.machine.is_idle() && self.machine.state().is_clean();
        if clean && !files.has_apart() {
            // Every file has its bytes itself, and the journal on disk says so.
            settled.errors.extend(files.remove_parts().err().map(|error| error.to_string()));
        }
        (settled, clean)
    }

    async fn keep_journal(&mut self, intent: Intent, files: &mut TorrentFiles, settled: &mut Settled) {
        // A journal must not outlive the names of the files that it speaks of.
        let named = files.sync_new_dirs().map_err(io::Error::other);
        let (machine, journal) = (&mut self.machine, &mut self.journal);
        let result = match (intent, named) {
            (Intent::Append { bytes }, named) => {
                let result = if named.is_ok() { journal.append(bytes).await } else { named };
                machine.handle_appended(result.is_ok());
                result
            }
            (Intent::Replace { bytes }, named) => {
                let result = if named.is_ok() { journal.replace(bytes).await } else { named };
                settled.durable.extend(machine.handle_replaced(result.is_ok()));
                result
            }
            (Intent::Cut { len }, _) => {
                let result = journal.cut(len);
                machine.handle_cut();
                result
            }
            (Intent::SyncJournal | Intent::Sync { .. }, named) => {
                let result = if named.is_ok() { journal.sync().await } else { named };
                settled.durable.extend(machine.handle_journal_synced(result.is_ok()));
                result
            }
        };
        if let Err(error) = result {
            let error = format!("the journal could not be written: {error}: free space or check the disk");
            settled.errors.push(error);
        }
    }
}

/// Has files that are wanted now, or were made since, take their bytes out of the part file.
fn take_over(replay: &mut Replay, layout: &Layout, files: &mut TorrentFiles) -> Result<(), FileError> {
    // Most have none, and then there is nothing to look at.
    if replay.state.file(layout.parts().0).is_none() || !believes(&replay.state, files.parts_identity()?) {
        return Ok(());
    }
    let clean = replay.state.is_clean();
    for file in files.take_over(&moves(&replay.state, layout))? {
        if let Some(identity) = files.identity(file)? {
            replay.state.apply(&Record::File { file: file.0, identity });
            // The journal on disk does not say so: it is to be replaced.
            replay.whole = false;
        }
    }
    if clean {
        replay.state.apply(&Record::Clean);
    }
    Ok(())
}

type SyncHandle = tokio::task::JoinHandle<io::Result<()>>;

fn begin_sync(files: &mut TorrentFiles, file: FileIndex) -> Result<SyncHandle, FileError> {
    let open = files.open(file, Access::Read)?;
    Ok(tokio_uring::spawn(async move { sync_data(&open).await }))
}
