//! What the part file holds, and what of it belongs into a file that is wanted now.
//!
//! Of a piece that the journal lists, the bytes of a file without an identity in the journal lie in the part
//! file. To take a file over is to copy these, sync the file, and record its identity: from that record on
//! its bytes count as lying in the file. A crash before it has them copied again, which changes nothing, for
//! the part file is kept as long as it can be needed.

use super::journal::JournalState;
use super::layout::{FileIndex, Layout};
use crate::base::geometry::Geometry;
use crate::base::priority::Priority;

/// Bytes that are to be copied out of the part file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub file: FileIndex,
    /// Offset there, in bytes.
    pub file_offset: u64,
    /// Offset in the part file, in bytes.
    pub parts_offset: u64,
    /// Length in bytes; never 0.
    pub len: u32,
}

/// Where a file's bytes go, and whether it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Wanted: made, with all its space.
    Wanted,
    /// Not wanted, yet there: used as it is.
    Kept,
    /// Not wanted and not there: never made. What pieces share with it lies in the part file.
    Apart,
}

/// Where the bytes of a file go of which somebody wants `priority`. `found` says whether there is a regular
/// file of its size. One that has come to be while its bytes lie in the part file stays untouched.
pub fn place(
    journal: Option<&JournalState>,
    layout: &Layout,
    file: FileIndex,
    priority: Priority,
    found: bool,
) -> Place {
    let apart = || journal.is_some_and(|journal| holds(journal, layout, file));
    match priority.is_wanted() {
        true => Place::Wanted,
        false if found && layout.file_len(file) > 0 && !apart() => Place::Kept,
        false => Place::Apart,
    }
}

/// What has to be copied into files that do not lie apart, ascending.
pub fn moves(journal: &JournalState, layout: &Layout) -> Vec<Move> {
    let geometry = journal.subject().geometry;
    let files = layout.disk_files().filter(|&file| holds(journal, layout, file));
    files.flat_map(|file| moves_into(journal, layout, geometry, file)).collect()
}

/// Whether the part file has bytes of `file`, if it has what it should have.
fn holds(journal: &JournalState, layout: &Layout, file: FileIndex) -> bool {
    let mut pieces = layout.pieces_of_file(journal.subject().geometry, file);
    journal.file(file.0).is_none() && pieces.any(|piece| journal.is_durable(piece))
}

fn moves_into(
    journal: &JournalState,
    layout: &Layout,
    geometry: Geometry,
    file: FileIndex,
) -> impl Iterator<Item = Move> {
    let (start, end) = (layout.file_start(file), layout.file_start(file) + layout.file_len(file));
    let pieces = layout.pieces_of_file(geometry, file).filter(|&piece| journal.is_durable(piece));
    pieces.map(move |piece| {
        let from = geometry.piece_start(piece).max(start);
        let to = (geometry.piece_start(piece) + u64::from(geometry.piece_len(piece))).min(end);
        Move { file, file_offset: from - start, parts_offset: from, len: (to - from) as u32 }
    })
}

#[cfg(test)]
mod tests;
