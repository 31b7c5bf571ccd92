use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;
use crate::proto::metainfo::FileEntry;

/// A torrent of files named by their paths, with their lengths.
pub(crate) fn metainfo(files: &[(&str, u64)]) -> Arc<Metainfo> {
    let entry = |&(path, length): &(&str, u64)| FileEntry {
        path: path.split('/').map(str::to_owned).collect(),
        length,
        pad: path.contains(".pad"),
    };
    let total = files.iter().map(|file| file.1).sum();
    Arc::new(Metainfo {
        info_hash: InfoHash([4; 20]),
        v2: None,
        name: "t".to_owned(),
        geometry: Geometry::new(total, 16 << 10),
        piece_hashes: Default::default(),
        files: files.iter().map(entry).collect(),
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        private: false,
        comment: None,
        created_by: None,
        creation_date: None,
        info: Default::default(),
        v2_left_out: false,
        symlinks_skipped: 0,
    })
}

fn files(dir: &TempDir, files: &[(&str, u64)]) -> TorrentFiles {
    TorrentFiles::new(dir.path(), metainfo(files)).unwrap()
}

fn tempdir() -> TempDir {
    tempfile::tempdir().unwrap()
}

const FIRST: FileIndex = FileIndex(0);

#[test]
fn all_files_are_created_with_their_space_and_recognised_again() {
    let dir = tempdir();
    let list = [("t/a", 100_000), ("t/deep/er/b", 5), ("t/.pad/9", 9), ("t/deep/empty", 0)];
    let mut torrent = files(&dir, &list);
    assert_eq!(torrent.identities().unwrap(), [None; 4]);
    torrent.preallocate_all().unwrap();
    let found = torrent.identities().unwrap();
    let lens: Vec<_> = found.iter().map(|file| file.map(|file| file.len)).collect();
    assert_eq!(lens, [Some(100_000), Some(5), None, Some(0)]);
    let a = std::fs::metadata(dir.path().join("t/a")).unwrap();
    assert!(a.blocks() * 512 >= 100_000);
    let identity = found[0].unwrap();
    assert_eq!((identity.inode, identity.dev), (a.ino(), a.dev()));
    assert_eq!(identity.mtime_ns, a.mtime() * 1_000_000_000 + a.mtime_nsec());
    assert_eq!(identity.ctime_ns, a.ctime() * 1_000_000_000 + a.ctime_nsec());
    assert!(!dir.path().join("t/.pad").exists());

    let mut again = files(&dir, &list);
    again.preallocate_all().unwrap();
    assert_eq!(again.identities().unwrap(), found, "what is there already stays untouched");
}

#[test]
fn both_descriptors_reach_the_same_bytes() {
    let dir = tempdir();
    let mut torrent = files(&dir, &[("t", 3 * 4096 + 7)]);
    let file = torrent.open(FIRST, Access::Write).unwrap();
    assert!(Arc::ptr_eq(&file, &torrent.open(FIRST, Access::Read).unwrap()));
    for fd in [Some(file.buffered()), file.direct()].into_iter().flatten() {
        assert!(!fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
    }
    let edge = std::fs::File::from(file.buffered().try_clone_to_owned().unwrap());
    edge.write_all_at(b"edge", 3 * 4096).unwrap();

    // A page-aligned window in a plain allocation.
    let mut memory = vec![0u8; 3 * 4096];
    let at = memory.as_ptr().align_offset(4096);
    let page = &mut memory[at..at + 4096];
    page.fill(0x5a);
    let data = file.direct().unwrap_or_else(|| file.buffered());
    let data = std::fs::File::from(data.try_clone_to_owned().unwrap());
    data.write_all_at(page, 4096).unwrap();
    page.fill(0);
    assert_eq!(data.read_at(page, 3 * 4096).unwrap(), 7, "short at the end of the file");
    assert_eq!(&page[..7], b"edge\0\0\0");
    let mut back = [0; 4096];
    edge.read_exact_at(&mut back, 4096).unwrap();
    assert_eq!(back, [0x5a; 4096]);
}

#[test]
fn transfers_and_syncs_run_on_the_ring() {
    let dir = tempdir();
    let mut torrent = files(&dir, &[("t", 300_000)]);
    let file = torrent.open(FIRST, Access::Write).unwrap();
    tokio_uring::start(async {
        write_all(&file, [(vec![9; 200_000].into(), 1), (vec![7; 99_999].into(), 200_001)]).await.unwrap();
        sync_data(&file).await.unwrap();
    });
    let bytes = std::fs::read(dir.path().join("t")).unwrap();
    assert!(bytes.len() == 300_000 && bytes[0] == 0);
    assert!(
        bytes[1..200_001].iter().all(|&byte| byte == 9) && bytes[200_001..].iter().all(|&byte| byte == 7)
    );
    let closed = FilePair::new(None, std::fs::File::open(dir.path().join("t")).unwrap().into());
    tokio_uring::start(async {
        let error = write_all(&closed, [(Bytes::from_static(&[1]), 0), (Bytes::from_static(&[1]), 1)])
            .await
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "opened for reading");
    });
}

/// Threats T17, T18: whatever links lead out, nothing outside changes.
#[test]
fn a_link_is_never_followed() {
    let (dir, outside) = (tempdir(), tempdir());
    std::fs::write(outside.path().join("victim"), b"keep").unwrap();
    std::fs::create_dir(dir.path().join("t")).unwrap();
    symlink(outside.path(), dir.path().join("t/out")).unwrap();
    symlink(outside.path().join("victim"), dir.path().join("t/file")).unwrap();
    symlink("loop", dir.path().join("t/loop")).unwrap();
    symlink("/proc/self/root", dir.path().join("t/proc")).unwrap();
    for path in ["t/out/victim", "t/out/new", "t/out/sub/new", "t/file", "t/loop", "t/proc/tmp/new"] {
        let mut torrent = files(&dir, &[(path, 10)]);
        for access in [Access::Read, Access::Write] {
            let error = torrent.open(FIRST, access).unwrap_err();
            assert!(matches!(error, FileError::Link { .. } | FileError::NotRegular { .. }), "{path} {error}");
            let text = error.to_string();
            assert!(text.contains(path) && text.contains("another directory") && !text.contains('\n'));
        }
        assert!(torrent.preallocate_all().is_err() && torrent.identities().is_err());
    }
    assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"keep");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// A hostile path that got past the parser still stays below.
#[test]
fn a_path_that_climbs_is_refused() {
    let above = tempdir();
    let dir = above.path().join("root");
    std::fs::create_dir(&dir).unwrap();
    for path in [vec!["..", "x"], vec!["a", "..", "..", "x"], vec!["/x"]] {
        let mut info = (*metainfo(&[("x", 1)])).clone();
        info.files[0].path = path.iter().map(|&part| part.to_owned()).collect();
        let mut torrent = TorrentFiles::new(&dir, Arc::new(info)).unwrap();
        assert!(torrent.open(FIRST, Access::Write).is_err(), "{path:?}");
    }
    assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 1);
}

/// Threat T19.
#[test]
fn only_regular_files_are_opened() {
    let dir = tempdir();
    let at = |name| dir.path().join(name);
    let root = fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
    fs::mknodat(&root, "fifo", fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    std::fs::write(at("plain"), b"").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for path in ["fifo", "dir", "socket", "plain/below"] {
        for access in [Access::Read, Access::Write] {
            let error = files(&dir, &[(path, 10)]).open(FIRST, access).unwrap_err();
            assert!(matches!(error, FileError::NotRegular { .. }), "{path} {access:?} {error}");
        }
    }
}

#[test]
fn a_longer_file_is_not_cut() {
    let dir = tempdir();
    std::fs::write(dir.path().join("t"), b"0123456789").unwrap();
    for (length, fits) in [(9, false), (10, true), (11, true)] {
        let result = files(&dir, &[("t", length)]).open(FIRST, Access::Write);
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            assert!(matches!(error, FileError::Longer { found: 10, wanted: 9, .. }));
        }
        assert_eq!(&std::fs::read(dir.path().join("t")).unwrap()[..10], b"0123456789");
    }
}

/// Threat S7.
#[test]
fn a_torrent_larger_than_the_disk_is_refused_before_anything_is_created() {
    let dir = tempdir();
    let error = files(&dir, &[("small", 1), ("t", 1 << 50)]).preallocate_all().unwrap_err();
    assert!(matches!(error, FileError::NoSpace { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("needs 1125899906842625 bytes") && text.contains("free space"), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempdir();
    let gone = dir.path().join("gone");
    let error = TorrentFiles::new(&gone, metainfo(&[("t", 1)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: not found: create it or choose another directory", gone.display())
    );
    assert!(matches!(files(&dir, &[("t", 1)]).open(FIRST, Access::Read), Err(FileError::Missing { .. })));
    std::fs::write(dir.path().join("plain"), b"").unwrap();
    let error = TorrentFiles::new(&dir.path().join("plain"), metainfo(&[("t", 1)])).unwrap_err();
    assert!(matches!(error, FileError::NotRegular { .. }));
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let path = Path::new("d/\u{1b}[2J\u{202e}\u{e9}");
    assert_eq!(shown(path), "d/\\u{1b}[2J\\u{202e}\u{e9}");
    let error = FileError::of_file(path.to_owned(), Errno::IO).to_string();
    assert!(!error.contains('\u{1b}'));
}

#[test]
fn no_more_files_are_held_open_than_the_limit() {
    let dir = tempdir();
    let names: Vec<_> = (0..OPEN_FILES_MAX + 1).map(|n| format!("t/{n}")).collect();
    let list: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let mut torrent = files(&dir, &list);
    let first = torrent.open(FIRST, Access::Write).unwrap();
    let at = |n: usize| FileIndex(n as u32);
    for n in 0..OPEN_FILES_MAX - 1 {
        torrent.open(at(n), Access::Write).unwrap();
    }
    assert_eq!(torrent.open.len(), OPEN_FILES_MAX - 1);
    torrent.open(at(OPEN_FILES_MAX - 1), Access::Write).unwrap();
    assert_eq!(torrent.open.len(), OPEN_FILES_MAX);
    torrent.open(FIRST, Access::Write).unwrap();
    torrent.open(at(OPEN_FILES_MAX), Access::Write).unwrap();
    assert_eq!(torrent.open.len(), OPEN_FILES_MAX);
    assert!(torrent.open.contains_key(&FIRST) && !torrent.open.contains_key(&at(1)));
    assert!(Arc::ptr_eq(&first, &torrent.open(FIRST, Access::Read).unwrap()));
}

/// Threat T18: while a directory is swapped for a link and back, nothing is created outside.
#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (dir, outside) = (tempdir(), tempdir());
    let (good, link, spare) = (dir.path().join("t"), dir.path().join("link"), dir.path().join("spare"));
    std::fs::create_dir(&good).unwrap();
    symlink(outside.path(), &link).unwrap();
    for n in 0..200 {
        // Every state that a race could show, one after the other.
        let name = format!("t/{n}");
        let mut torrent = files(&dir, &[(&name, 1)]);
        if n % 2 == 0 {
            std::fs::rename(&good, &spare).unwrap();
            std::fs::rename(&link, &good).unwrap();
            assert!(torrent.open(FIRST, Access::Write).is_err());
            std::fs::rename(&good, &link).unwrap();
            std::fs::rename(&spare, &good).unwrap();
        }
        torrent.open(FIRST, Access::Write).unwrap();
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
