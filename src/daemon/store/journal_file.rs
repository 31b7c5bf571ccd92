//! The journal's file, written on the control thread's ring.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A journal on disk, locked for this process.
///
/// Invariant: the first `end` bytes are whole records, written in order.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    /// `None` until the first replacement if there was no journal.
    file: Option<File>,
    end: u64,
    /// Held open: the lock lasts as long.
    _lock: File,
}

impl JournalFile {
    pub(super) fn open(path: PathBuf, end: u64, lock: File) -> io::Result<Self> {
        let file = if end > 0 {
            Some(File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?)
        } else {
            None
        };
        Ok(Self { path, file, end, _lock: lock })
    }

    /// Writes whole records at the end. After an error only `replace` may follow.
    pub async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let len = bytes.len() as u64;
        let file = self.uring()?;
        let (result, _) = file.write_all_at(bytes, self.end).await;
        file.close().await.and(result)?;
        self.end += len;
        Ok(())
    }

    /// Leaves only the first `len` bytes; whether that is on disk is not known. Only `replace` may follow.
    pub fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(len))
    }

    /// fdatasync. After an error only `replace` may follow.
    pub async fn sync(&mut self) -> io::Result<()> {
        let file = self.uring()?;
        let result = file.sync_data().await;
        file.close().await.and(result)
    }

    /// Puts a journal of these bytes in the place of the present one, if any: a crash leaves the
    /// old one or the new one.
    pub async fn replace(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let temp = self.path.with_extension("new");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temp)?;
        let len = bytes.len() as u64;
        let uring = tokio_uring::fs::File::from_std(file.try_clone()?);
        let (mut result, _) = uring.write_all_at(bytes, 0).await;
        if result.is_ok() {
            result = uring.sync_all().await;
        }
        uring.close().await.and(result)?;
        std::fs::rename(&temp, &self.path)?;
        // From here on the name leads to the new one, whatever becomes of the directory's sync.
        (self.file, self.end) = (Some(file), len);
        let dir = self.path.parent().map(File::open).transpose()?;
        let Some(dir) = dir.map(tokio_uring::fs::File::from_std) else { return Ok(()) };
        let result = dir.sync_all().await;
        dir.close().await.and(result)
    }

    fn uring(&self) -> io::Result<tokio_uring::fs::File> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(tokio_uring::fs::File::from_std(file.try_clone()?))
    }
}
