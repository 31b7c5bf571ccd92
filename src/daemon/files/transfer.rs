//! The little that the control thread's ring does with payload files: edges and syncs.

use std::io;

use bytes::Bytes;
use tokio_uring::fs::File;

use crate::io::uring::FilePair;

/// fdatasync.
pub async fn sync_data(file: &FilePair) -> io::Result<()> {
    let file = uring(file)?;
    let result = file.sync_data().await;
    file.close().await.and(result)
}

/// Writes all of each part, bytes and their offset in the file, through the page cache; the first error
/// ends it.
pub async fn write_all(file: &FilePair, parts: impl IntoIterator<Item = (Bytes, u64)>) -> io::Result<()> {
    let file = uring(file)?;
    let mut result = Ok(());
    for (bytes, offset) in parts {
        result = file.write_all_at(bytes, offset).await.0;
        if result.is_err() {
            break;
        }
    }
    file.close().await.and(result)
}

fn uring(file: &FilePair) -> io::Result<File> {
    Ok(File::from_std(file.buffered().try_clone_to_owned()?.into()))
}
