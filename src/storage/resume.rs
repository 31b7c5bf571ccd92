//! What a restarted node believes of what it finds on disk.
//!
//! After a clean stop a file is believed if it is the same file, of the same size, unwritten and
//! untouched since. After an unclean one its times say nothing, because the node itself wrote to it
//! after the last record; the same file with the same size is believed for the pieces that the journal
//! lists, and the fingerprint of each chunk, checked when it is first read, catches what was changed
//! in between. Whatever was not listed, or lies in a file that is new or different, is read in full: where
//! the journal has fingerprints they are compared, and what they do not settle is hashed.
//!
//! A piece that the journal lists, with bytes of a file of which it has no identity, has these in the part
//! file (`storage/parts.rs`): they count as long as that is the one that it was.

use super::durability::{Durability, SyncPolicy};
use super::journal::{FileIdentity, JournalState, Record, Replay, Subject};
use super::layout::{FileIndex, Layout};
use crate::base::bitfield::Bitfield;
use crate::base::limits::JOURNAL_SLACK_BYTES;

/// How to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// What the journal is to say from now on: only what is still believed.
    pub state: JournalState,
    /// Pieces to be read and hashed before anything is known of them. The rest is either durable by
    /// `state` or missing.
    pub rehash: Bitfield,
    /// Of these, the fingerprints that the journal has, ascending by piece: bytes that fit them are what
    /// was verified, wherever they lie now.
    pub known: Vec<(u32, Box<[u64]>)>,
    /// Files with unknown content. Their identity is to be recorded once their pieces have been
    /// hashed and not before: a node that is killed in between must hash them again.
    pub unknown: Vec<FileIndex>,
    /// Stopped cleanly and nothing differs: what is durable is served at once, nothing is read.
    pub clean: bool,
    /// `state` says other things than the journal on disk, which must be replaced by a snapshot
    /// before it is appended to.
    pub replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Believed.
    Same,
    /// There is content, but nothing is known of it.
    Unknown,
    /// There is no such file.
    Missing,
}

/// Compares a replayed journal with the files as they are now: one entry of `actual` per file of the
/// layout, `None` where there is no file, and perhaps one for the part file. Entries of padding files are
/// ignored.
pub fn resume(journal: &JournalState, layout: &Layout, actual: &[Option<FileIdentity>]) -> Resume {
    let subject = *journal.subject();
    assert!(actual.len() >= layout.file_count() as usize && subject.file_count == layout.file_count());
    let findings: Vec<_> = (0u32..)
        .zip(actual)
        .map(|(file, actual)| find(journal.file(file), *actual, journal.is_clean()))
        .collect();

    let pieces = subject.geometry.piece_count();
    let (mut state, mut unknown) = (JournalState::new(subject), Vec::new());
    let (mut doubted, mut gone) = (Bitfield::new(pieces), Bitfield::new(pieces));
    for file in layout.disk_files() {
        let set = match (findings[file.0 as usize], journal.file(file.0)) {
            (Finding::Same, Some(identity)) => {
                // As recorded, though its times may be others by now: the machine must know what
                // the journal says, to tell what to record at a clean stop.
                state.apply(&Record::File { file: file.0, identity });
                continue;
            }
            (Finding::Unknown, _) => {
                unknown.push(file);
                &mut doubted
            }
            _ => &mut gone,
        };
        for piece in layout.pieces_of_file(subject.geometry, file) {
            set.set(piece);
        }
    }
    let parts = layout.parts().0;
    if believes(journal, actual.get(parts as usize).copied().flatten())
        && let Some(identity) = journal.file(parts).filter(|_| layout.has_apart())
    {
        state.apply(&Record::File { file: parts, identity });
    }
    for file in layout.apart_files() {
        if journal.file(file.0).is_some() || state.file(parts).is_none() {
            // They were in the file itself, which is gone, or in a part file that is.
            for piece in layout.pieces_of_file(subject.geometry, file) {
                gone.set(piece);
            }
        }
    }
    for piece in journal.durable().ones().filter(|&piece| !doubted.get(piece) && !gone.get(piece)) {
        let fingerprints = journal.fingerprints(piece).into();
        state.apply(&Record::Durable { piece, fingerprints });
    }
    for piece in gone.ones() {
        doubted.clear(piece);
    }
    let known = doubted.ones().filter(|&piece| journal.is_durable(piece));
    let known = known.map(|piece| (piece, journal.fingerprints(piece).into())).collect();
    let clean =
        journal.is_clean() && layout.disk_files().all(|file| findings[file.0 as usize] == Finding::Same);
    let replace = !says_the_same(journal, &state);
    Resume { state, rehash: doubted, known, unknown, clean, replace }
}

/// Start without a usable journal: whatever is there is hashed.
pub fn resume_afresh(subject: Subject, layout: &Layout, actual: &[Option<FileIdentity>]) -> Resume {
    Resume { replace: true, ..resume(&JournalState::new(subject), layout, actual) }
}

/// Compares and starts the durability machine on what is believed: it goes on with the journal that was
/// found, if that is whole, says nothing else and is not mostly history, and replaces it otherwise.
pub fn start(
    found: Option<Replay>,
    subject: Subject,
    layout: &Layout,
    actual: &[Option<FileIdentity>],
    policy: SyncPolicy,
) -> (Resume, Durability) {
    let Some(found) = found else {
        let resume = resume_afresh(subject, layout, actual);
        let machine = Durability::new(resume.state.clone(), None, policy);
        return (resume, machine);
    };
    let mut resume = resume(&found.state, layout, actual);
    let history = found.writer.bytes() > 2 * found.state.snapshot_bytes() + JOURNAL_SLACK_BYTES;
    // After an unclean end the journal may be other on the disk than it reads: a sync that failed throws
    // away what it should have written, yet reads go on showing it (threats S11). Appending to it would
    // leave a hole that hides all that follows once the power fails.
    resume.replace |= !found.whole || history || !found.state.is_clean();
    let writer = if resume.replace { None } else { Some(found.writer) };
    let machine = Durability::new(resume.state.clone(), writer, policy);
    (resume, machine)
}

/// Whether the part file, as it is now, has what the journal says that it has.
pub fn believes(journal: &JournalState, parts: Option<FileIdentity>) -> bool {
    find(journal.file(journal.subject().file_count), parts, journal.is_clean()) == Finding::Same
}

fn find(recorded: Option<FileIdentity>, actual: Option<FileIdentity>, clean: bool) -> Finding {
    match (recorded, actual) {
        (_, None) => Finding::Missing,
        (Some(recorded), Some(actual)) if recorded == actual => Finding::Same,
        (Some(recorded), Some(actual)) if !clean && recorded.same_file(&actual) => Finding::Same,
        (_, Some(_)) => Finding::Unknown,
    }
}

/// Whether the same pieces are durable in the same files.
fn says_the_same(a: &JournalState, b: &JournalState) -> bool {
    (0..=a.subject().file_count).all(|file| a.file(file) == b.file(file)) && a.durable() == b.durable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::geometry::Geometry;
    use crate::base::ids::InfoHash;
    use crate::storage::layout::FileSpan;

    const PIECE: u32 = 16 << 10;

    /// Files of 1.5, 1, 0 and 1.5 pieces: pieces 0 | 1 | 2 | 3 lie in files 0 | 0 1 | 1 3 | 3.
    fn torrent() -> (Layout, Subject) {
        let lengths = [PIECE / 2 * 3, PIECE, 0, PIECE / 2 * 3];
        let layout =
            Layout::new(lengths.into_iter().map(|length| FileSpan { length: length.into(), pad: false }));
        let geometry = Geometry::new(layout.total_bytes(), PIECE);
        (layout, Subject { info_hash: InfoHash([1; 20]), geometry, file_count: 4, secret_id: 5 })
    }

    fn identity(file: u32) -> FileIdentity {
        let inode = u64::from(file) + 100;
        FileIdentity { len: torrent().0.file_len(FileIndex(file)), mtime_ns: 1, ctime_ns: 2, inode, dev: 9 }
    }

    fn journal(durable: &[u32], clean: bool) -> JournalState {
        let mut state = JournalState::new(torrent().1);
        for file in 0..4 {
            assert!(state.apply(&Record::File { file, identity: identity(file) }));
        }
        for &piece in durable {
            assert!(state.apply(&Record::Durable { piece, fingerprints: [7].into() }));
        }
        assert!(state.apply(if clean { &Record::Clean } else { &Record::Opened }));
        state
    }

    fn actual() -> Vec<Option<FileIdentity>> {
        (0..4).map(|file| Some(identity(file))).collect()
    }

    fn check(
        journal: &JournalState,
        actual: &[Option<FileIdentity>],
        durable: &[u32],
        rehash: &[u32],
        clean: bool,
    ) -> Resume {
        let resume = resume(journal, &torrent().0, actual);
        assert_eq!(resume.state.durable().ones().collect::<Vec<_>>(), durable);
        assert_eq!(resume.rehash.ones().collect::<Vec<_>>(), rehash);
        assert_eq!(resume.clean, clean);
        let known: Vec<u32> = resume.known.iter().map(|(piece, _)| *piece).collect();
        assert!(rehash.iter().filter(|&&piece| journal.is_durable(piece)).eq(&known));
        assert!(resume.known.iter().all(|(piece, prints)| **prints == *journal.fingerprints(*piece)));
        for file in 0..4 {
            let same = |now: FileIdentity| {
                let before = journal.file(file).unwrap();
                if journal.is_clean() { before == now } else { before.same_file(&now) }
            };
            let now = actual[file as usize];
            assert_eq!(
                resume.state.file(file),
                now.filter(|&now| same(now)).and_then(|_| journal.file(file))
            );
            assert_eq!(resume.unknown.contains(&FileIndex(file)), now.is_some_and(|now| !same(now)));
        }
        resume
    }

    #[test]
    fn after_a_clean_stop_nothing_is_read() {
        let resume = check(&journal(&[0, 1, 2, 3], true), &actual(), &[0, 1, 2, 3], &[], true);
        assert!(!resume.replace);
        assert!(!check(&journal(&[2], true), &actual(), &[2], &[], true).replace);
    }

    /// Threat S5, each difference by itself, after a clean stop and after a crash.
    #[test]
    fn a_file_that_differs_is_hashed_again_in_full() {
        type Change = fn(&mut FileIdentity);
        let changes: [(Change, bool); 5] = [
            (|file| file.len -= 1, false),
            (|file| file.inode += 1, false),
            (|file| file.dev += 1, false),
            (|file| file.mtime_ns += 1, true),
            (|file| file.ctime_ns -= 1, true),
        ];
        for (change, only_time) in changes {
            let mut actual = actual();
            change(actual[1].as_mut().unwrap());
            assert!(check(&journal(&[0, 1, 3], true), &actual, &[0, 3], &[1, 2], false).replace);
            let crashed = journal(&[0, 1, 3], false);
            if only_time {
                assert!(!check(&crashed, &actual, &[0, 1, 3], &[], false).replace);
            } else {
                assert!(check(&crashed, &actual, &[0, 3], &[1, 2], false).replace);
            }
        }
    }

    #[test]
    fn pieces_of_a_missing_file_are_missing_and_not_hashed() {
        for clean in [false, true] {
            let mut actual = actual();
            actual[0] = None;
            assert!(check(&journal(&[0, 1, 2, 3], clean), &actual, &[2, 3], &[], false).replace);
            // Piece 1 also lies in file 1, which now differs: it cannot be whole.
            actual[1].as_mut().unwrap().inode = 1;
            check(&journal(&[0, 1, 2, 3], clean), &actual, &[3], &[2], false);
        }
    }

    #[test]
    fn files_that_no_journal_speaks_of_are_hashed_if_they_exist() {
        let (layout, subject) = torrent();
        let mut found = vec![None; 4];
        let resume = resume_afresh(subject, &layout, &found);
        assert!(resume.rehash.count() == 0 && resume.replace && !resume.clean);
        found[3] = Some(identity(3));
        let resume = resume_afresh(subject, &layout, &found);
        assert_eq!(resume.rehash.ones().collect::<Vec<_>>(), [3], "piece 2 misses its half in file 1");
        let resume = resume_afresh(subject, &layout, &actual());
        assert!(resume.rehash.is_full() && resume.state.durable().count() == 0);

        // Killed before the check is over: all is hashed again, what had been listed too.
        let mut state = resume.state;
        assert!(state.apply(&Record::Durable { piece: 0, fingerprints: [7].into() }));
        check_again(&state);
    }

    fn check_again(state: &JournalState) {
        let again = resume(state, &torrent().0, &actual());
        assert!(again.rehash.is_full() && again.unknown.len() == 4);
    }

    #[test]
    fn a_journal_that_is_torn_or_mostly_history_is_replaced() {
        use crate::storage::durability::Intent;
        use crate::storage::journal::{replay, snapshot};
        let (layout, subject) = torrent();
        let state = journal(&[0, 1, 2, 3], true);
        let go = |bytes: &[u8]| {
            let found = replay(bytes, &subject).unwrap();
            let (resume, mut machine) =
                start(Some(found), subject, &layout, &actual(), SyncPolicy::default());
            assert!(resume.state.durable().is_full());
            matches!(machine.poll(crate::base::time::Instant(0)), Some(Intent::Replace { .. }))
        };
        let (mut bytes, mut writer) = snapshot(&state);
        assert!(go(&bytes), "an end that was not clean");
        writer.push(&Record::Clean, &mut bytes);
        assert!(!go(&bytes) && go(&[&bytes[..], &[0]].concat()));
        while bytes.len() as u64 <= 2 * state.snapshot_bytes() + JOURNAL_SLACK_BYTES {
            assert!(!go(&bytes));
            for _ in 0..1000 {
                writer.push(&Record::Clean, &mut bytes);
            }
        }
        assert!(go(&bytes));
    }

    #[test]
    fn a_missing_empty_file_ends_the_clean_state_but_costs_no_piece() {
        let mut actual = actual();
        actual[2] = None;
        check(&journal(&[0, 1, 2, 3], true), &actual, &[0, 1, 2, 3], &[], false);
    }
}
