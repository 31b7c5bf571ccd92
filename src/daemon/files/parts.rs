//! The part file of a torrent of which not all is wanted (`storage/parts.rs`), and what is taken out of it.
//!
//! It lies in the state directory, so that the payload has nothing but what was asked for. It is as long as
//! the torrent and has holes where nothing was written.

use std::os::fd::AsFd;

use super::*;
use crate::base::priority::Priority;
use crate::base::units::CHUNK_BYTES;
use crate::storage::journal::JournalState;
use crate::storage::parts::{self, Move};

/// Where a part file is or would be.
#[derive(Debug)]
pub(super) struct PartFile {
    dir: OwnedFd,
    dir_path: PathBuf,
    name: PathBuf,
}

impl PartFile {
    pub(super) fn path(&self) -> PathBuf {
        self.dir_path.join(&self.name)
    }

    fn error(&self, errno: Errno) -> FileError {
        FileError::of_file(self.path(), errno)
    }
}

impl TorrentFiles {
    /// The same with a part file at `path`, which need not exist; its directory must.
    pub fn with_parts(mut self, path: &Path) -> Result<Self, FileError> {
        let (Some(dir_path), Some(name)) = (path.parent(), path.file_name()) else { return Ok(self) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = fs::open(dir_path, flags, Mode::empty());
        let dir = dir.map_err(|errno| FileError::of_root(dir_path, errno))?;
        self.parts = Some(PartFile { dir, dir_path: dir_path.to_owned(), name: name.into() });
        Ok(self)
    }

    /// Settles where the bytes of each file go, of which somebody wants so much. What is said of `layout` is
    /// then true of the files.
    pub fn arrange(
        &mut self,
        layout: Layout,
        journal: Option<&JournalState>,
        wanted: Option<&[Priority]>,
    ) -> Layout {
        let Some(wanted) = wanted else { return layout };
        let place = |(file, &priority): (FileIndex, &Priority)| {
            let whole = |identity: FileIdentity| identity.len == layout.file_len(file);
            let found = !layout.is_pad(file) && self.identity(file).ok().flatten().is_some_and(whole);
            parts::place(journal, &layout, file, priority, found)
        };
        let places: Box<[Place]> = (0u32..).map(FileIndex).zip(wanted).map(place).collect();
        let apart = places.iter().map(|&place| place == Place::Apart).collect();
        self.places = Some(places);
        layout.with_apart(apart)
    }

    /// Where the bytes of a file go.
    pub fn place(&self, file: FileIndex) -> Place {
        self.places.as_ref().map_or(Place::Wanted, |places| places[file.0 as usize])
    }

    /// The part file's index, one more than the last file's.
    pub fn parts_index(&self) -> FileIndex {
        FileIndex(self.metainfo.files.len() as u32)
    }

    /// Whether any file lies apart.
    pub fn has_apart(&self) -> bool {
        self.places.as_ref().is_some_and(|places| places.contains(&Place::Apart))
    }

    /// What the part file looks like now; `None` if there is none.
    pub fn parts_identity(&self) -> Result<Option<FileIdentity>, FileError> {
        let Some(parts) = &self.parts else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match open_beneath(&parts.dir, &parts.name, flags, Mode::empty()) {
            Ok(fd) => statx(&fd).map(|stat| Some(identity_of(&stat))).map_err(|errno| parts.error(errno)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(parts.error(errno)),
        }
    }

    /// Copies what is named out of the part file and syncs it. Returns the files that were made for it.
    pub fn take_over(&mut self, moves: &[Move]) -> Result<Vec<FileIndex>, FileError> {
        let mut made = Vec::new();
        for run in moves.chunk_by(|a, b| a.file == b.file) {
            let file = run[0].file;
            if self.identity(file)?.is_none() {
                made.push(file);
            }
            let from = self.open(self.parts_index(), Access::Read)?;
            let to = self.open(file, Access::Write)?;
            let copied = run.iter().try_for_each(|step| copy(&from, &to, step));
            let synced = copied.and_then(|()| fs::fdatasync(to.buffered()));
            synced.map_err(|errno| self.error(&self.path(file), errno))?;
        }
        self.sync_new_dirs()?;
        Ok(made)
    }

    /// Removes the part file, of which nothing is needed any more.
    pub fn remove_parts(&mut self) -> Result<(), FileError> {
        self.open.remove(&self.parts_index());
        let Some(parts) = &self.parts else { return Ok(()) };
        match fs::unlinkat(&parts.dir, &parts.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(parts.error(errno)),
        }
    }

    pub(super) fn open_parts(&self, access: Access) -> Result<FilePair, FileError> {
        let Some(parts) = &self.parts else {
            return Err(FileError::Missing { path: self.root_path.clone() });
        };
        let (flags, length) = (OFlags::RDWR | CAREFUL, self.metainfo.geometry.total_bytes);
        let (flags, mode) = match access {
            Access::Write => (flags | OFlags::CREATE, Mode::from_raw_mode(0o600)),
            Access::Read => (flags, Mode::empty()),
        };
        let opened = open_beneath(&parts.dir, &parts.name, flags, mode);
        let buffered = opened.map_err(|errno| parts.error(errno))?;
        let stat = statx(&buffered).map_err(|errno| parts.error(errno))?;
        if fs::FileType::from_raw_mode(stat.stx_mode.into()) != fs::FileType::RegularFile {
            return Err(FileError::NotRegular { path: parts.path() });
        }
        become_blocking(&buffered).map_err(|errno| parts.error(errno))?;
        if stat.stx_size != length && access == Access::Write {
            // All of its length at once: by that it is recognised after a crash.
            let grown = fs::ftruncate(&buffered, length).and_then(|()| sync_dir(&parts.dir));
            grown.map_err(|errno| match errno {
                Errno::FBIG => FileError::TooLong { path: parts.path(), wanted: length },
                errno => parts.error(errno),
            })?;
        }
        let direct = open_direct(&parts.dir, &parts.name, OFlags::RDWR, &stat);
        Ok(FilePair::new(direct, buffered))
    }
}

/// A name in it survives a power failure from here on.
fn sync_dir(dir: &OwnedFd) -> Result<(), Errno> {
    fs::fsync(open_beneath(dir, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)
}

fn copy(from: &FilePair, to: &FilePair, step: &Move) -> Result<(), Errno> {
    let mut buffer = vec![0; step.len.min(CHUNK_BYTES) as usize];
    let mut done = 0;
    while done < u64::from(step.len) {
        let want = buffer.len().min((u64::from(step.len) - done) as usize);
        let offset = step.parts_offset + done;
        let got = rustix::io::retry_on_intr(|| {
            rustix::io::pread(from.buffered().as_fd(), &mut buffer[..want], offset)
        })?;
        // It is as long as the torrent, or was changed under our hands.
        let mut rest = buffer.get(..got).filter(|bytes| !bytes.is_empty()).ok_or(Errno::IO)?;
        while !rest.is_empty() {
            let written = rustix::io::pwrite(to.buffered().as_fd(), rest, step.file_offset + done)?;
            rest = &rest[written..];
            done += written as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::metainfo;
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::storage::journal::{Record, Subject};

    const PIECE: u64 = 16 << 10;

    fn torrent(dir: &Path, state: &Path) -> TorrentFiles {
        let info = metainfo(&[("t/a", PIECE / 2), ("t/b", PIECE), ("t/.pad/1", 1), ("t/c", PIECE / 2)]);
        TorrentFiles::new(dir, info).unwrap().with_parts(&state.join("x.parts")).unwrap()
    }

    fn journal(torrent: &TorrentFiles) -> JournalState {
        let (info_hash, geometry) = (InfoHash([4; 20]), torrent.metainfo.geometry);
        JournalState::new(Subject { info_hash, geometry, file_count: 4, secret_id: 1 })
    }

    const FIRST_ONLY: [Priority; 4] = [Priority::Normal, Priority::Skip, Priority::Skip, Priority::Skip];

    #[test]
    fn only_what_is_wanted_is_made_and_the_rest_lies_in_the_state_directory() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut torrent = torrent(dir.path(), state.path());
        let layout = layout_of(&torrent.metainfo);
        let layout = torrent.arrange(layout, None, Some(&FIRST_ONLY));
        assert!(layout.has_apart() && torrent.has_apart());
        torrent.preallocate_all().unwrap();
        torrent.open(torrent.parts_index(), Access::Write).unwrap();
        let names = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
        assert_eq!((names(&dir.path().join("t")), names(state.path())), (1, 1));
        let found = torrent.identities().unwrap();
        let lens: Vec<_> = found.iter().map(|file| file.map(|file| file.len)).collect();
        assert_eq!(lens, [Some(PIECE / 2), None, None, None, Some(2 * PIECE + 1)]);
        torrent.remove_parts().unwrap();
        torrent.remove_parts().unwrap();
        assert_eq!(names(state.path()), 0);
    }

    #[test]
    fn a_file_that_is_there_is_used_though_nobody_wants_it_unless_it_is_of_another_size() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut torrent = torrent(dir.path(), state.path());
        std::fs::create_dir(dir.path().join("t")).unwrap();
        std::fs::write(dir.path().join("t/b"), vec![7; PIECE as usize]).unwrap();
        std::fs::write(dir.path().join("t/c"), b"short").unwrap();
        let layout = layout_of(&torrent.metainfo);
        let layout = torrent.arrange(layout, None, Some(&FIRST_ONLY));
        let places: Vec<Place> = [0, 1, 3].map(|file| torrent.place(FileIndex(file))).into();
        assert_eq!(places, [Place::Wanted, Place::Kept, Place::Apart]);
        assert!(layout.is_apart(FileIndex(3)) && !layout.is_apart(FileIndex(1)));
        torrent.preallocate_all().unwrap();
        assert_eq!(std::fs::read(dir.path().join("t/c")).unwrap(), b"short");
    }

    #[test]
    fn what_is_durable_of_a_file_is_copied_where_it_is_wanted_now() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut torrent = torrent(dir.path(), state.path());
        let _ = torrent.arrange(layout_of(&torrent.metainfo), None, Some(&FIRST_ONLY));
        let parts = torrent.open(torrent.parts_index(), Access::Write).unwrap();
        rustix::io::pwrite(parts.buffered(), &[9; PIECE as usize / 2], PIECE / 2).unwrap();
        let mut journal = journal(&torrent);
        for file in [0, 4] {
            let identity = torrent.parts_identity().unwrap().unwrap();
            assert!(journal.apply(&Record::File { file, identity }));
        }
        assert!(journal.apply(&Record::Durable { piece: 0, fingerprints: [1].into() }));
        let wanted = [Priority::Normal, Priority::Normal, Priority::Skip, Priority::Skip];
        let layout = torrent.arrange(layout_of(&torrent.metainfo), Some(&journal), Some(&wanted));
        for made in [vec![FileIndex(1)], vec![]] {
            let moves = parts::moves(&journal, &layout);
            assert_eq!(torrent.take_over(&moves).unwrap(), made, "as after a crash, it is done again");
            let bytes = std::fs::read(dir.path().join("t/b")).unwrap();
            let (copied, rest) = bytes.split_at(PIECE as usize / 2);
            assert!(copied.iter().all(|&byte| byte == 9) && rest.iter().all(|&byte| byte == 0));
        }
    }
}
