//! Which bytes of which file: pieces cut into reads. Pure.

use crate::base::geometry::Geometry;

use super::{SourceFile, UNIT_BYTES};

/// Files end to end, and the pieces over them.
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    pub(super) files: Vec<SourceFile>,
    /// Offset of each file in the torrent; ascending, equal for empty files.
    starts: Vec<u64>,
}

/// Part of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// Consecutive whole pieces that fit one read, or a single longer piece: what one digest thread gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// One read: at most [`UNIT_BYTES`] of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Where the bytes begin.
    pub(super) piece: u32,
    pub(super) begin: u32,
    /// Never 0.
    pub(super) len: u32,
}

/// One read of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Number of the run, in the order of all.
    pub(super) run: usize,
    /// The digest thread of the run.
    pub(super) lane: usize,
    /// Pieces of the run.
    pub(super) pieces: u32,
    pub(super) unit: Unit,
}

impl Layout {
    pub(super) fn new(geometry: Geometry, files: Vec<SourceFile>) -> Self {
        let starts = files.iter().scan(0u64, |at, file| {
            let start = *at;
            *at = at.saturating_add(file.length);
            Some(start)
        });
        Self { geometry, starts: starts.collect(), files }
    }

    /// The parts of files that make up `len` bytes from `start`; empty files are left out.
    pub(super) fn segments(&self, start: u64, len: u64) -> impl Iterator<Item = Segment> {
        let end = start + len;
        let first = self.starts.partition_point(|&file| file <= start).saturating_sub(1);
        (first..self.files.len()).take_while(move |&file| self.starts[file] < end).filter_map(move |file| {
            let from = start.max(self.starts[file]);
            let to = end.min(self.starts[file].saturating_add(self.files[file].length));
            let len = u32::try_from(to.checked_sub(from)?).ok()?;
            (len > 0).then(|| Segment { file, offset: from - self.starts[file], len })
        })
    }

    /// `pieces` gathered into runs.
    pub(super) fn runs(&self, pieces: &[u32]) -> Vec<Run> {
        let most = (UNIT_BYTES / self.geometry.piece_bytes).max(1);
        let mut runs: Vec<Run> = Vec::new();
        for &piece in pieces {
            match runs.last_mut() {
                Some(run) if run.first + run.count == piece && run.count < most => run.count += 1,
                _ => runs.push(Run { first: piece, count: 1 }),
            }
        }
        runs
    }

    /// All reads for `pieces`: as many runs side by side as there are lanes, so that long pieces keep
    /// every digest thread busy; the reads of one run stay in order.
    pub(super) fn schedule(&self, pieces: &[u32], lanes: usize) -> impl Iterator<Item = Step> {
        let runs: Vec<(usize, Run)> = self.runs(pieces).into_iter().enumerate().collect();
        let rounds = self.geometry.piece_bytes.div_ceil(UNIT_BYTES);
        let groups: Vec<Vec<(usize, Run)>> = runs.chunks(lanes).map(<[_]>::to_vec).collect();
        groups.into_iter().flat_map(move |group| {
            let steps = (0..rounds).flat_map(move |index| {
                let step = move |(ordinal, run): (usize, Run)| {
                    let unit = self.unit(run, index)?;
                    Some(Step { run: ordinal, lane: ordinal % lanes, pieces: run.count, unit })
                };
                group.clone().into_iter().filter_map(step)
            });
            steps.collect::<Vec<_>>()
        })
    }

    /// Read number `index` of `run`; `None` behind its end.
    pub(super) fn unit(&self, run: Run, index: u32) -> Option<Unit> {
        let start = self.geometry.piece_start(run.first);
        let end = self.geometry.piece_start(run.first + run.count).min(self.geometry.total_bytes);
        let begin = u64::from(index) * u64::from(UNIT_BYTES);
        let left = (end - start).checked_sub(begin).filter(|&left| left > 0)?;
        Some(Unit { piece: run.first, begin: begin as u32, len: left.min(u64::from(UNIT_BYTES)) as u32 })
    }

    /// Offset of `unit` in the torrent.
    pub(super) fn unit_start(&self, unit: Unit) -> u64 {
        self.geometry.piece_start(unit.piece) + u64::from(unit.begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lengths: &[u64], piece_bytes: u32) -> Layout {
        let file = |(index, &length): (usize, &u64)| SourceFile {
            path: format!("f{index}").into(),
            length,
            pad: false,
        };
        let geometry = Geometry::new(lengths.iter().sum(), piece_bytes);
        Layout::new(geometry, lengths.iter().enumerate().map(file).collect())
    }

    #[test]
    fn units_of_all_runs_tile_the_torrent_in_any_piece_length() {
        for piece_bytes in [16 << 10, 48 << 10, 1 << 20, (1 << 20) + (16 << 10), 4 << 20] {
            let layout = layout(&[0, 3_000_000, 0, 1, 7_654_321, 0], piece_bytes);
            let pieces: Vec<u32> = (0..layout.geometry.piece_count()).collect();
            let mut at = 0;
            let mut runs: Vec<Step> = layout.schedule(&pieces, 3).collect();
            assert!(runs.iter().all(|step| step.lane == step.run % 3));
            // Stable: the reads of one run keep their order.
            runs.sort_by_key(|step| step.run);
            for Step { unit, .. } in runs {
                assert_eq!(layout.unit_start(unit), at);
                assert!(unit.len > 0 && unit.len <= UNIT_BYTES);
                at += u64::from(unit.len);
            }
            assert_eq!(at, layout.geometry.total_bytes, "{piece_bytes}");
        }
    }

    #[test]
    fn segments_equal_a_byte_by_byte_map() {
        let lengths = [0, 5, 0, 0, 1, 7, 0, 3];
        let layout = layout(&lengths, 16 << 10);
        let bytes: Vec<(usize, u64)> = (0..lengths.len())
            .flat_map(|file| (0..lengths[file]).map(move |offset| (file, offset)))
            .collect();
        for start in 0..bytes.len() {
            for end in start..=bytes.len() {
                let segments = layout.segments(start as u64, (end - start) as u64);
                let got: Vec<(usize, u64)> = segments
                    .flat_map(|s| (0..u64::from(s.len)).map(move |at| (s.file, s.offset + at)))
                    .collect();
                assert_eq!(got, bytes[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn a_gap_in_the_pieces_ends_a_run() {
        let layout = layout(&[16 << 20], 256 << 10);
        let runs = layout.runs(&[0, 1, 3, 4, 5, 6, 7]);
        let run = |first, count| Run { first, count };
        assert_eq!(runs, [run(0, 2), run(3, 4), run(7, 1)]);
    }
}
