//! From written to durable: which files to sync when, and what the journal may then say.
//!
//! ```text
//! Written -> Syncing -> Synced -> Journaled (durable)
//! ```
//!
//! A piece becomes durable when every file it lies in has been synced after the piece was written,
//! its record has been appended to the journal and the journal has been synced. Facts come in by
//! `handle_*`, what to do next comes out of [`Durability::poll`], one intention at a time; each is
//! answered by the `handle_*` of its name. Nothing here waits or knows what time it is.
//!
//! A sync that fails may have thrown away what it should have written, and a later one may
//! succeed without it (threats S11): the pieces that waited for the file are given up, and the file
//! takes no more. A journal that fails is replaced as a whole, and no piece is lost by it. Reads may go on
//! showing what its failed sync threw away: a mark of a clean stop is cut off then, so that the next start
//! does not append to what is perhaps not there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::journal::{FileIdentity, JournalState, Record, Writer, snapshot};
use super::layout::FileIndex;
use crate::base::bitfield::Bitfield;
use crate::base::limits::{SYNCS_IN_FLIGHT_MAX, UNSYNCED_BYTES_MAX, UNSYNCED_TIME_MAX};
use crate::base::time::{Instant, Span};

/// When written bytes are synced.
#[derive(Clone, Copy, Debug)]
pub struct SyncPolicy {
    /// As soon as so many bytes wait.
    pub bytes: u64,
    /// As soon as the first of them has waited so long.
    pub delay: Span,
}

impl Default for SyncPolicy {
    fn default() -> Self {
        Self { bytes: UNSYNCED_BYTES_MAX, delay: UNSYNCED_TIME_MAX }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Put these bytes at the end of the journal; answer by `handle_appended`.
    Append {
        /// Whole records.
        bytes: Vec<u8>,
    },
    /// Put a journal of these bytes in the place of the present one, and sync both it and its
    /// directory; answer by `handle_replaced`.
    Replace {
        /// A whole journal.
        bytes: Vec<u8>,
    },
    /// fdatasync a file; answer by `handle_synced`.
    Sync {
        /// Which file.
        file: FileIndex,
    },
    /// fdatasync the journal; answer by `handle_journal_synced`.
    SyncJournal,
    /// Cut the journal off behind what is known to be on disk; answer by `handle_cut`.
    Cut {
        /// What is to stay, in bytes.
        len: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Appending,
    Appended,
    Syncing,
    /// Failed with the mark of a clean stop in what was appended.
    Doubtful,
    Cutting,
    /// The journal on disk is not to be appended to.
    Outdated,
    Replacing,
    /// Failed, and waits for `retry`.
    Stalled,
}

/// A piece that is written and not yet synced.
#[derive(Debug)]
struct Waiting {
    fingerprints: Box<[u64]>,
    /// Files whose sync it still waits for.
    files: Vec<FileIndex>,
}

/// Pieces that wait for one file; `covered` by the sync that runs, or by the next.
#[derive(Debug, Default)]
struct FileQueue {
    covered: BTreeSet<u32>,
    next: BTreeSet<u32>,
}

/// The machine of one torrent.
///
/// Invariants: `file` is in `waiting[piece].files` exactly if `piece` is in one of the two sets of
/// `files[file]`; `batch` holds what the journal operation in flight will make true, and what was
/// left by one that failed; no piece of a file in `failed` waits.
#[derive(Debug)]
pub struct Durability {
    policy: SyncPolicy,
    /// What the journal is known to say on disk, once it is proven.
    state: JournalState,
    /// False until a journal that reads as `state` is sure to be on disk: what a killed process had
    /// appended and not synced reads like the rest, and is gone with the power.
    proven: bool,
    writer: Writer,
    /// Length of the journal up to its last sync, or replacement, that succeeded.
    synced_bytes: u64,
    phase: Phase,
    batch: Vec<Record>,
    queue: Vec<Record>,
    waiting: BTreeMap<u32, Waiting>,
    files: BTreeMap<FileIndex, FileQueue>,
    failed: BTreeSet<FileIndex>,
    /// Files of the present round whose sync has not begun.
    round: VecDeque<FileIndex>,
    syncs_in_flight: usize,
    unsynced_bytes: u64,
    oldest: Option<Instant>,
    flush: bool,
}

impl Durability {
    /// A machine that knows what `state` says. With the `writer` of a replayed journal it appends to
    /// that; without, its first intention is to put a new one in its place, and only then does what
    /// `state` says count as durable. Either way the journal first says that the torrent is in use.
    pub fn new(state: JournalState, writer: Option<Writer>, policy: SyncPolicy) -> Self {
        let proven = writer.is_some();
        let phase = if proven { Phase::Idle } else { Phase::Outdated };
        let writer = writer.unwrap_or_else(|| snapshot(&state).1);
        Self {
            policy,
            state,
            proven,
            synced_bytes: writer.bytes(),
            writer,
            phase,
            batch: Vec::new(),
            queue: vec![Record::Opened],
            waiting: BTreeMap::new(),
            files: BTreeMap::new(),
            failed: BTreeSet::new(),
            round: VecDeque::new(),
            syncs_in_flight: 0,
            unsynced_bytes: 0,
            oldest: None,
            flush: false,
        }
    }

    /// What the journal says, or is about to say.
    pub const fn state(&self) -> &JournalState {
        &self.state
    }

    /// The pieces that survive whatever happens.
    pub fn durable(&self) -> Bitfield {
        let said = self.state.durable();
        if self.proven { said } else { Bitfield::new(said.len()) }
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.syncs_in_flight == 0
            && self.queue.is_empty()
            && self.batch.is_empty()
            && self.phase == Phase::Idle
    }

    /// Whether the journal has failed and waits for `retry`. Pieces go on being synced meanwhile.
    pub fn is_stalled(&self) -> bool {
        self.phase == Phase::Stalled
    }

    /// All of `piece` has been verified and written to `files` (all that it lies in; none if it is
    /// only padding). False if one of them has failed before: the piece is lost like those then.
    #[must_use]
    pub fn handle_written(
        &mut self,
        piece: u32,
        files: impl IntoIterator<Item = FileIndex>,
        fingerprints: Box<[u64]>,
        now: Instant,
    ) -> bool {
        let files: BTreeSet<_> = files.into_iter().collect();
        self.drop_waiting(piece);
        if files.iter().any(|file| self.failed.contains(file)) {
            return false;
        }
        if files.is_empty() {
            self.queue.push(Record::Durable { piece, fingerprints });
            return true;
        }
        for &file in &files {
            self.files.entry(file).or_default().next.insert(piece);
        }
        self.unsynced_bytes += u64::from(self.state.subject().geometry.piece_len(piece));
        self.oldest.get_or_insert(now);
        self.waiting.insert(piece, Waiting { fingerprints, files: files.into_iter().collect() });
        true
    }

    /// A file was created, or what was in it has now been checked: this is what it looks like.
    /// To be said before its pieces are written.
    pub fn handle_file(&mut self, file: FileIndex, identity: FileIdentity) {
        self.queue.push(Record::File { file: file.0, identity });
    }

    /// A piece turned out not to be on disk as it should.
    pub fn handle_lost(&mut self, piece: u32) {
        self.drop_waiting(piece);
        self.queue.push(Record::Lost { piece });
    }

    /// Syncs what is written without waiting for more.
    pub fn flush(&mut self) {
        self.flush = self.oldest.is_some();
    }

    /// The torrent is no longer in use, and this is what its files look like. Panics if pieces still
    /// wait for a sync: `flush` and finish that first.
    pub fn close(&mut self, identities: impl IntoIterator<Item = (FileIndex, FileIdentity)>) {
        assert!(self.waiting.is_empty() && self.syncs_in_flight == 0, "closed before all was synced");
        for (file, identity) in identities {
            if self.state.file(file.0) != Some(identity) {
                self.queue.push(Record::File { file: file.0, identity });
            }
        }
        self.queue.push(Record::Clean);
    }

    /// Tries a journal that has failed again, by replacing it.
    pub fn retry(&mut self) {
        if self.phase == Phase::Stalled {
            self.phase = Phase::Outdated;
        }
    }

    /// The next thing to do, if any; to be called until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Intent> {
        self.poll_journal().or_else(|| self.poll_sync(now))
    }

    /// When `poll` will have something to do though nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.in_round() { None } else { self.oldest.map(|oldest| oldest + self.policy.delay) }
    }

    /// A sync of `file` has ended. Returns the pieces that are lost if it failed: they must be fetched
    /// again, or read from the device and hashed.
    #[must_use]
    pub fn handle_synced(&mut self, file: FileIndex, ok: bool) -> Vec<u32> {
        self.syncs_in_flight -= 1;
        if ok { self.file_synced(file) } else { self.file_failed(file) }
    }

    /// An append to the journal has ended.
    pub fn handle_appended(&mut self, ok: bool) {
        assert_eq!(self.phase, Phase::Appending);
        self.phase = if ok { Phase::Appended } else { self.phase_of_failure() };
    }

    /// The journal was cut off, or could not be: either way it waits for `retry`.
    pub fn handle_cut(&mut self) {
        assert_eq!(self.phase, Phase::Cutting);
        self.phase = Phase::Stalled;
    }

    /// A sync of the journal has ended. Returns the pieces that are now durable.
    #[must_use]
    pub fn handle_journal_synced(&mut self, ok: bool) -> Vec<u32> {
        assert_eq!(self.phase, Phase::Syncing);
        self.journal_done(ok)
    }

    /// A replacement of the journal has ended. Returns the pieces that are now durable.
    #[must_use]
    pub fn handle_replaced(&mut self, ok: bool) -> Vec<u32> {
        assert_eq!(self.phase, Phase::Replacing);
        self.journal_done(ok)
    }

    fn poll_journal(&mut self) -> Option<Intent> {
        match self.phase {
            // Once a round, so that one journal sync serves all its files.
            Phase::Idle if !self.queue.is_empty() && !self.in_round() => {
                self.batch = std::mem::take(&mut self.queue);
                let mut bytes = Vec::new();
                for record in &self.batch {
                    self.writer.push(record, &mut bytes);
                }
                self.phase = Phase::Appending;
                Some(Intent::Append { bytes })
            }
            Phase::Appended => {
                self.phase = Phase::Syncing;
                Some(Intent::SyncJournal)
            }
            Phase::Doubtful => {
                self.phase = Phase::Cutting;
                Some(Intent::Cut { len: self.synced_bytes })
            }
            Phase::Outdated => {
                self.batch.append(&mut self.queue);
                let (mut bytes, mut writer) = snapshot(&self.state);
                for record in &self.batch {
                    writer.push(record, &mut bytes);
                }
                (self.writer, self.phase) = (writer, Phase::Replacing);
                Some(Intent::Replace { bytes })
            }
            Phase::Idle
            | Phase::Appending
            | Phase::Syncing
            | Phase::Cutting
            | Phase::Replacing
            | Phase::Stalled => None,
        }
    }

    /// After an append or its sync. A replacement that fails is synced before it gets its name, or is
    /// never seen: its mark can be believed.
    fn phase_of_failure(&self) -> Phase {
        let marked = self.phase != Phase::Replacing && self.batch.contains(&Record::Clean);
        if marked { Phase::Doubtful } else { Phase::Stalled }
    }

    fn poll_sync(&mut self, now: Instant) -> Option<Intent> {
        if !self.in_round() && self.is_due(now) {
            self.round = self.files.keys().copied().collect();
            (self.unsynced_bytes, self.oldest, self.flush) = (0, None, false);
        }
        if self.syncs_in_flight == SYNCS_IN_FLIGHT_MAX {
            return None;
        }
        let file = self.round.pop_front()?;
        // What is written from here on may not be seen by this sync.
        let queue = self.files.entry(file).or_default();
        queue.covered = std::mem::take(&mut queue.next);
        self.syncs_in_flight += 1;
        Some(Intent::Sync { file })
    }

    fn in_round(&self) -> bool {
        self.syncs_in_flight > 0 || !self.round.is_empty()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.oldest.is_some_and(|oldest| {
            self.flush || self.unsynced_bytes >= self.policy.bytes || now >= oldest + self.policy.delay
        })
    }

    fn file_synced(&mut self, file: FileIndex) -> Vec<u32> {
        let Some(queue) = self.files.get_mut(&file) else { return Vec::new() };
        let covered = std::mem::take(&mut queue.covered);
        if queue.next.is_empty() {
            self.files.remove(&file);
        }
        for piece in covered {
            let Some(waiting) = self.waiting.get_mut(&piece) else { continue };
            waiting.files.retain(|&other| other != file);
            if waiting.files.is_empty()
                && let Some(Waiting { fingerprints, .. }) = self.waiting.remove(&piece)
            {
                self.queue.push(Record::Durable { piece, fingerprints });
            }
        }
        Vec::new()
    }

    fn file_failed(&mut self, file: FileIndex) -> Vec<u32> {
        self.failed.insert(file);
        let Some(queue) = self.files.get(&file) else { return Vec::new() };
        let lost: Vec<u32> = queue.covered.union(&queue.next).copied().collect();
        for &piece in &lost {
            self.drop_waiting(piece);
            // It may have been durable before it was written anew.
            self.queue.push(Record::Lost { piece });
        }
        self.files.remove(&file);
        lost
    }

    fn drop_waiting(&mut self, piece: u32) {
        let Some(waiting) = self.waiting.remove(&piece) else { return };
        for file in waiting.files {
            if let Some(queue) = self.files.get_mut(&file) {
                queue.covered.remove(&piece);
                queue.next.remove(&piece);
            }
        }
    }

    fn journal_done(&mut self, ok: bool) -> Vec<u32> {
        if !ok {
            self.phase = self.phase_of_failure();
            return Vec::new();
        }
        (self.phase, self.synced_bytes) = (Phase::Idle, self.writer.bytes());
        let mut durable = BTreeSet::new();
        if !std::mem::replace(&mut self.proven, true) {
            durable.extend(self.state.durable().ones());
        }
        for record in self.batch.drain(..) {
            let fits = self.state.apply(&record);
            assert!(fits, "a record that does not fit the torrent: {record:?}");
            if let Record::Durable { piece, .. } = record {
                durable.insert(piece);
            }
        }
        // What was lost meanwhile is not announced, though its loss is written down only by the next batch.
        for record in &self.queue {
            if let Record::Lost { piece } = record {
                durable.remove(piece);
            }
        }
        durable.into_iter().filter(|&piece| self.state.is_durable(piece)).collect()
    }
}

#[cfg(test)]
mod tests;
