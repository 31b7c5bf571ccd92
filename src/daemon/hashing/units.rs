//! Which bytes of which file: pieces cut into reads. Pure.

use crate::base::geometry::Geometry;
use crate::storage::layout::{FileSpan, Layout};

use super::{SourceFile, UNIT_BYTES};

/// What is read: files end to end, and the pieces over them.
pub(super) struct Job {
    pub(super) geometry: Geometry,
    pub(super) files: Vec<SourceFile>,
    pub(super) layout: Layout,
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

impl Job {
    pub(super) fn new(geometry: Geometry, files: Vec<SourceFile>) -> Self {
        let layout = Layout::new(files.iter().map(|file| FileSpan { length: file.length, pad: file.pad }));
        Self { geometry, files, layout }
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

    fn job(lengths: &[u64], piece_bytes: u32) -> Job {
        let file = |(index, &length): (usize, &u64)| SourceFile {
            path: format!("f{index}").into(),
            length,
            pad: false,
        };
        let geometry = Geometry::new(lengths.iter().sum(), piece_bytes);
        Job::new(geometry, lengths.iter().enumerate().map(file).collect())
    }

    #[test]
    fn units_of_all_runs_tile_the_torrent_in_any_piece_length() {
        for piece_bytes in [16 << 10, 48 << 10, 1 << 20, (1 << 20) + (16 << 10), 4 << 20] {
            let job = job(&[0, 3_000_000, 0, 1, 7_654_321, 0], piece_bytes);
            let pieces: Vec<u32> = (0..job.geometry.piece_count()).collect();
            let mut at = 0;
            let mut runs: Vec<Step> = job.schedule(&pieces, 3).collect();
            assert!(runs.iter().all(|step| step.lane == step.run % 3));
            // Stable: the reads of one run keep their order.
            runs.sort_by_key(|step| step.run);
            for Step { unit, .. } in runs {
                assert_eq!(job.unit_start(unit), at);
                assert!(unit.len > 0 && unit.len <= UNIT_BYTES);
                at += u64::from(unit.len);
            }
            assert_eq!(at, job.geometry.total_bytes, "{piece_bytes}");
        }
    }

    #[test]
    fn a_gap_in_the_pieces_ends_a_run() {
        let job = job(&[16 << 20], 256 << 10);
        let runs = job.runs(&[0, 1, 3, 4, 5, 6, 7]);
        let run = |first, count| Run { first, count };
        assert_eq!(runs, [run(0, 2), run(3, 4), run(7, 1)]);
    }
}
