use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::base::time::Instant;
use crate::daemon::files::tests::metainfo;
use crate::daemon::files::{Access, TorrentFiles, layout_of, write_all};
use crate::proto::metainfo::V2;
use crate::storage::durability::SyncPolicy;
use crate::storage::layout::FileIndex;
use crate::storage::resume::Resume;

const NOW: Instant = Instant(0);
const PIECE: u64 = 16 << 10;

/// A state directory and a download directory.
struct Node {
    state: TempDir,
    download: TempDir,
    info: Arc<Metainfo>,
}

/// What a running node holds.
struct Run {
    keeper: Keeper,
    files: TorrentFiles,
}

impl Node {
    /// Pieces 0 to 2 lie in `t/a`, 2 to 4 in `t/b`.
    fn new() -> Self {
        let info = metainfo(&[("t/a", 2 * PIECE + 100), ("t/b", 2 * PIECE)]);
        Self { state: tempfile::tempdir().unwrap(), download: tempfile::tempdir().unwrap(), info }
    }

    fn open_journal(&self) -> Result<OpenedJournal, StoreError> {
        let state = StateDir::open(self.state.path())?;
        state.open_journal(self.download.path(), &self.info)
    }

    fn start(&self) -> (Run, Resume) {
        let mut files = TorrentFiles::new(self.download.path(), Arc::clone(&self.info)).unwrap();
        let journal = self.open_journal().unwrap();
        let layout = layout_of(&self.info);
        let (keeper, resume) = Keeper::start(journal, &layout, &mut files, SyncPolicy::default()).unwrap();
        (Run { keeper, files }, resume)
    }

    fn journal_path(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.state.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.extension().is_some_and(|name| name == "journal")).unwrap()
    }
}

impl Run {
    async fn create(&mut self) {
        self.files.preallocate_all().unwrap();
        for (file, identity) in (0..).map(FileIndex).zip(self.files.identities().unwrap()) {
            self.keeper.machine().handle_file(file, identity.unwrap());
        }
        let settled = self.keeper.settle(&mut self.files, NOW).await;
        assert!(settled.errors.is_empty(), "{:?}", settled.errors);
    }

    async fn write(&mut self, piece: u32, files: &[u32]) {
        for &file in files {
            let file = self.files.open(FileIndex(file), Access::Write).unwrap();
            write_all(&file, [(vec![piece as u8 + 1; 100].into(), 0)]).await.unwrap();
        }
        let files = files.iter().map(|&file| FileIndex(file));
        assert!(self.keeper.machine().handle_written(piece, files, [u64::from(piece)].into(), NOW));
    }

    async fn flush(&mut self) -> Vec<u32> {
        self.keeper.machine().flush();
        let settled = self.keeper.settle(&mut self.files, NOW).await;
        assert!(settled.errors.is_empty() && settled.lost.is_empty(), "{:?}", settled.errors);
        settled.durable
    }

    async fn close(mut self) {
        let (settled, clean) = self.keeper.close(&mut self.files, NOW).await;
        assert!(clean && settled.errors.is_empty(), "{:?}", settled.errors);
    }
}

fn ones(resume: &Resume) -> (Vec<u32>, Vec<u32>) {
    (resume.state.durable().ones().collect(), resume.rehash.ones().collect())
}

/// Threats S1 and S5 on real files: crash, clean stop, edit.
#[test]
fn a_node_takes_up_its_work_where_it_ended() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut run, resume) = node.start();
        assert_eq!((ones(&resume), resume.clean), ((vec![], vec![]), false));
        run.create().await;
        run.write(0, &[0]).await;
        run.write(2, &[0, 1]).await;
        assert_eq!(run.flush().await, [0, 2]);
        run.write(1, &[0]).await;
        drop(run); // as a crash leaves it: piece 1 was written, and its record was not

        let (mut run, resume) = node.start();
        assert_eq!((ones(&resume), resume.clean), ((vec![0, 2], vec![]), false));
        assert_eq!(resume.state.fingerprints(2), [2]);
        run.write(1, &[0]).await;
        assert!(run.keeper.next_timeout().is_some());
        run.close().await;

        let (run, resume) = node.start();
        assert_eq!((ones(&resume), resume.clean), ((vec![0, 1, 2], vec![]), true));
        run.close().await;

        let edited = File::options().write(true).open(node.download.path().join("t/b")).unwrap();
        edited.write_all_at(b"spoilt", 0).unwrap();
        edited.set_modified(std::time::UNIX_EPOCH).unwrap();
        let (run, resume) = node.start();
        assert_eq!((ones(&resume), resume.clean), ((vec![0, 1], vec![2, 3, 4]), false));
        drop(run); // before the check is over: it begins again
        assert_eq!(ones(&node.start().1), (vec![0, 1], vec![2, 3, 4]));
    });
}

#[test]
fn a_removed_file_is_fetched_again_and_its_twin_is_not() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut run, _) = node.start();
        run.create().await;
        for (piece, files) in [(0, &[0][..]), (2, &[0, 1]), (3, &[1])] {
            run.write(piece, files).await;
        }
        run.close().await;
        std::fs::remove_file(node.download.path().join("t/b")).unwrap();
        let (mut run, resume) = node.start();
        assert_eq!((ones(&resume), resume.clean), ((vec![0], vec![]), false));
        run.create().await;
        run.write(3, &[1]).await;
        assert_eq!(run.flush().await, [3]);
        drop(run);
        assert_eq!(ones(&node.start().1), (vec![0, 3], vec![]));
    });
}

/// Threat S17.
#[test]
fn a_second_node_on_the_same_torrent_and_directory_is_refused() {
    let node = Node::new();
    let first = node.open_journal().unwrap();
    let error = node.open_journal().unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())) && !text.contains('\n'), "{text}");

    let elsewhere = Node { state: tempfile::tempdir().unwrap(), ..Node::new() };
    let state = StateDir::open(node.state.path()).unwrap();
    state.open_journal(elsewhere.download.path(), &elsewhere.info).unwrap();
    drop(first);
    node.open_journal().unwrap();
}

/// Threat S4 on disk.
#[test]
fn a_damaged_journal_is_set_aside_and_another_version_is_refused() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut run, _) = node.start();
        run.create().await;
        run.write(0, &[0]).await;
        run.write(1, &[0]).await;
        run.close().await;
        let good = std::fs::read(node.journal_path()).unwrap();

        std::fs::write(node.journal_path(), [&good[..], b"torn"].concat()).unwrap();
        let opened = node.open_journal().unwrap();
        let (reason, copy) = opened.set_aside.clone().unwrap();
        assert_eq!((reason, std::fs::read(&copy).unwrap().len()), (Corrupt::Tail, good.len() + 4));
        drop(opened);
        let (mut run, resume) = node.start();
        assert!(!resume.clean && ones(&resume) == (vec![0, 1], vec![]));
        assert_eq!(run.flush().await, [0, 1], "they count again once the journal is whole");
        assert!(node.open_journal().is_err(), "the lock outlives the replacement");
        drop(run);
        assert!(node.open_journal().unwrap().replay.unwrap().whole);

        std::fs::write(node.journal_path(), b"something else").unwrap();
        let opened = node.open_journal().unwrap();
        assert!(opened.replay.is_none() && opened.set_aside.as_ref().unwrap().0 == Corrupt::Damaged);
        drop(opened);
        let (mut run, resume) = node.start();
        assert_eq!(ones(&resume), (vec![], vec![0, 1, 2, 3, 4]));
        assert!(run.flush().await.is_empty());
        drop(run);
        assert!(node.open_journal().unwrap().set_aside.is_none());

        let mut newer = good;
        newer[8] += 1;
        let check = xxh3_64(&newer[..12]) as u32;
        newer[12..16].copy_from_slice(&check.to_le_bytes());
        std::fs::write(node.journal_path(), &newer).unwrap();
        let error = node.open_journal().unwrap_err().to_string();
        assert!(error.contains("format version 2") && error.contains("move the file away"), "{error}");
        assert_eq!(std::fs::read(node.journal_path()).unwrap(), newer, "left as it was");
    });
}

#[test]
fn state_is_for_this_user_alone_and_the_secret_stays() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("a/state");
    let first = StateDir::open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("secret"))), (0o700, 0o600));
    let again = StateDir::open(&path).unwrap();
    assert_eq!(first.fingerprint().of(b"x"), again.fingerprint().of(b"x"));
    let other = StateDir::open(&above.path().join("b")).unwrap();
    assert_ne!(first.fingerprint().of(b"x"), other.fingerprint().of(b"x"));
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "no temporary file is left");
    assert!(!format!("{first:?}").contains('['), "the secret is not printed");

    for len in [0, 31, 33] {
        std::fs::write(path.join("secret"), vec![1; len]).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("delete it"), "{error}");
    }
}

#[test]
fn a_state_directory_that_others_own_or_may_write_is_refused_with_what_to_do() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("state");
    std::fs::create_dir(&path).unwrap();
    for (mode, fits) in [(0o755, true), (0o750, true), (0o770, false), (0o720, false), (0o702, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match StateDir::open(&path) {
            Ok(_) => assert!(fits, "{mode:o}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!fits && text.contains("chmod go-w") && text.contains("--state"), "{mode:o}: {text}");
            }
        }
    }
    assert!(check_ours(&path, (7, 0o700), 7).is_ok());
    let text = check_ours(&path, (8, 0o700), 7).unwrap_err().to_string();
    assert!(
        text.contains("belongs to user 8") && text.contains("chown -R 7") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn the_key_pair_is_made_when_asked_for_stays_and_is_for_this_user_alone() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("state");
    let state = StateDir::open(&path).unwrap();
    assert!(!path.join("identity").exists(), "who wants no identity has none");
    let key = |state: &StateDir| state.node_key(&[1; 32]).map(|key| key.public());
    let first = key(&state).unwrap();
    assert_eq!(std::fs::metadata(path.join("identity")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(key(&StateDir::open(&path).unwrap()).unwrap(), first);
    assert_ne!(key(&StateDir::open(&above.path().join("b")).unwrap()).unwrap(), first);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "no temporary file is left");
    for len in [0, 31, 33] {
        std::fs::write(path.join("identity"), vec![1; len]).unwrap();
        let error = key(&state).unwrap_err().to_string();
        assert!(error.contains("identity: is damaged: delete it, and other nodes"), "{error}");
    }
}

#[test]
fn a_new_secret_has_everything_checked_again() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut run, _) = node.start();
        run.create().await;
        run.write(0, &[0]).await;
        run.close().await;
    });
    std::fs::remove_file(node.state.path().join("secret")).unwrap();
    let opened = node.open_journal().unwrap();
    assert!(opened.replay.is_none() && opened.set_aside.unwrap().0 == Corrupt::OtherSecret);
}

#[test]
fn t22_a_hybrid_that_was_verified_by_its_v1_part_alone_is_checked_again_by_both() {
    let mut node = Node::new();
    tokio_uring::start(async {
        let (mut run, _) = node.start();
        run.create().await;
        run.write(0, &[0]).await;
        run.close().await;
    });
    assert!(node.open_journal().unwrap().replay.is_some());
    let v2 = Some(V2 { info_hash: [9; 32], files: Vec::new() });
    node.info = Arc::new(Metainfo { v2, ..Metainfo::clone(&node.info) });
    let opened = node.open_journal().unwrap();
    assert!(opened.replay.is_none() && opened.set_aside.unwrap().0 == Corrupt::OtherTorrent);
}

/// Threat T20.
#[test]
fn state_inside_the_download_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let inside = StateDir::open(&dir.path().join("x/state")).unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("other/link")).unwrap();
    for download in [".", "x", "x/state", "other/link"] {
        let error = inside.check_outside(&dir.path().join(download)).unwrap_err();
        assert!(error.to_string().contains("--state"), "{download}: {error}");
    }
    inside.check_outside(&dir.path().join("other")).unwrap();
    // A name that only begins alike.
    std::fs::create_dir(dir.path().join("x/st")).unwrap();
    inside.check_outside(&dir.path().join("x/st")).unwrap();
    assert!(matches!(inside.check_outside(&dir.path().join("gone")), Err(StoreError::Other { .. })));
}

#[test]
fn a_journal_is_read_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    assert_eq!(read_journal(&path, 10).unwrap(), None);
    for len in [9, 10, 11] {
        std::fs::write(&path, vec![1; len]).unwrap();
        assert_eq!(read_journal(&path, 10).unwrap().unwrap().len(), len.min(10));
    }
}

/// Threat S7 for the state directory: nothing is lost by a journal that cannot be written.
#[test]
fn a_journal_that_cannot_be_written_is_tried_again_when_told() {
    let node = Node::new();
    let hidden = node.state.path().with_extension("hidden");
    tokio_uring::start(async {
        let (mut run, _) = node.start();
        run.files.preallocate_all().unwrap();
        run.write(0, &[0]).await;
        std::fs::rename(node.state.path(), &hidden).unwrap();
        run.keeper.machine().flush();
        let settled = run.keeper.settle(&mut run.files, NOW).await;
        assert!(settled.durable.is_empty() && settled.lost.is_empty());
        assert!(settled.errors.iter().all(|error| error.contains("the journal could not be written")));
        assert!(!settled.errors.is_empty() && run.keeper.machine().is_stalled());

        std::fs::rename(&hidden, node.state.path()).unwrap();
        run.keeper.machine().retry();
        assert_eq!(run.keeper.settle(&mut run.files, NOW).await.durable, [0]);
        run.close().await;
    });
    assert!(node.open_journal().unwrap().replay.unwrap().state.is_durable(0));
}
