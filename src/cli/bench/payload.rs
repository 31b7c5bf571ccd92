//! A torrent's payload in memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::BenchError;
use super::judge::is_right;
use crate::base::geometry::BlockRef;
use crate::base::limits::{BENCH_PAYLOAD_BYTES_MAX, BENCH_SAMPLES_MAX};
use crate::proto::metainfo::Metainfo;

/// All files one after the other, padding as zero bytes.
#[derive(Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    piece_bytes: u64,
}

impl Payload {
    /// Reads every file below `dir`, and checks the hashes of some pieces: the first, the last, and
    /// others evenly between.
    pub fn read(metainfo: &Metainfo, dir: &Path) -> Result<Self, BenchError> {
        let total = metainfo.geometry.total_bytes;
        if total > BENCH_PAYLOAD_BYTES_MAX {
            return Err(BenchError::Failed(format!(
                "the payload has {total} bytes: a source in memory takes at most {BENCH_PAYLOAD_BYTES_MAX}"
            )));
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(total as usize)
            .map_err(|_| BenchError::Failed(format!("no memory for a payload of {total} bytes")))?;
        for file in &metainfo.files {
            let end = bytes.len() as u64 + file.length;
            if !file.pad {
                read_file(
                    &file.path.iter().fold(dir.to_owned(), |path, part| path.join(part)),
                    end,
                    &mut bytes,
                )?;
            }
            bytes.resize(end as usize, 0);
        }
        let payload = Self { bytes, piece_bytes: metainfo.geometry.piece_bytes.into() };
        payload.check_samples(metainfo, dir)?;
        Ok(payload)
    }

    /// The bytes alone.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes of a block; `None` if it is not wholly inside.
    fn block(&self, block: BlockRef) -> Option<&[u8]> {
        let start = (u64::from(block.piece) * self.piece_bytes).checked_add(block.begin.into())?;
        let end = start.checked_add(block.length.into())?;
        self.bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    fn check_samples(&self, metainfo: &Metainfo, dir: &Path) -> Result<(), BenchError> {
        let count = metainfo.geometry.piece_count();
        let last = count.saturating_sub(1);
        let samples = BENCH_SAMPLES_MAX.min(count);
        for sample in 0..samples {
            let piece = (u64::from(last) * u64::from(sample) / u64::from(samples.max(2) - 1)) as u32;
            let whole = BlockRef { piece, begin: 0, length: metainfo.geometry.piece_len(piece) };
            if !self.block(whole).is_some_and(|bytes| is_right(metainfo, piece, bytes)) {
                return Err(BenchError::Failed(format!(
                    "{}: piece {piece} differs from its hash; is this the payload of the torrent?",
                    dir.display()
                )));
            }
        }
        Ok(())
    }
}

/// Appends the file; it must fill `bytes` up to `end` exactly.
fn read_file(path: &Path, end: u64, bytes: &mut Vec<u8>) -> Result<(), BenchError> {
    let shown = path.display().to_string();
    let absent =
        |error| BenchError::Failed(format!("{shown}: {error}; name the directory of the payload by --data"));
    let file = File::open(path).map_err(absent)?;
    let missing = end - bytes.len() as u64;
    let count = file.take(missing + 1).read_to_end(bytes).map_err(|error| BenchError::io(&shown, error))?;
    if count as u64 != missing {
        return Err(BenchError::Failed(format!("{shown}: not {missing} bytes long, as the torrent says")));
    }
    Ok(())
}
