//! Which bytes of which file: pieces cut into reads. Pure.

use crate::base::geometry::Geometry;
use crate::storage::layout::{FileSpan, Layout};

use crate::hash::sha1::LANES;

use super::{SourceFile, UNIT_BYTES};

/// What is read: files end to end, and the pieces over them.
pub(super) struct Job {
    pub(super) geometry: Geometry,
    pub(super) files: Vec<SourceFile>,
    pub(super) layout: Layout,
}

/// Consecutive whole pieces that fit one read, or a single longer piece: what one lane of a digest thread
/// gets.
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
    pub(super) place: Place,
    /// Pieces of the run.
    pub(super) pieces: u32,
    pub(super) unit: Unit,
    /// Reads of the same row that are still to come.
    pub(super) row_left: usize,
}

/// Where a run is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) thread: usize,
    /// Below [`LANES`].
    pub(super) lane: usize,
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

    /// All reads for `pieces`: up to [`LANES`] runs side by side for each of `threads`, so that long pieces
    /// keep every lane busy. The reads of one run stay in order. Those that one thread digests side by
    /// side, a row, follow one another.
    pub(super) fn schedule(&self, pieces: &[u32], threads: usize) -> impl Iterator<Item = Step> {
        let runs: Vec<(usize, Run)> = self.runs(pieces).into_iter().enumerate().collect();
        let rounds = self.geometry.piece_bytes.div_ceil(UNIT_BYTES);
        let groups: Vec<Vec<(usize, Run)>> = runs.chunks(threads * LANES).map(<[_]>::to_vec).collect();
        groups.into_iter().flat_map(move |group| {
            // Few runs are spread over all threads.
            let width = group.len().div_ceil(threads);
            let rows = (0..rounds).flat_map(|round| {
                let rows = (0..).zip(group.chunks(width));
                rows.flat_map(move |(thread, runs)| self.row(thread, runs, round))
            });
            rows.collect::<Vec<_>>()
        })
    }

    /// Read number `round` of each of `runs`.
    fn row(&self, thread: usize, runs: &[(usize, Run)], round: u32) -> Vec<Step> {
        let step = |(lane, &(ordinal, run)): (usize, &(usize, Run))| {
            let (unit, place) = (self.unit(run, round)?, Place { thread, lane });
            Some(Step { run: ordinal, place, pieces: run.count, unit, row_left: 0 })
        };
        let mut row: Vec<Step> = (0..).zip(runs).filter_map(step).collect();
        for (left, step) in row.iter_mut().rev().enumerate() {
            step.row_left = left;
        }
        row
    }

    /// Read number `index` of `run`; `None` behind its end.
    pub(super) fn unit(&self, run: Run, index: u32) -> Option<Unit> {
        let start = self.geometry.piece_start(run.first);
        let end = self.geometry.piece_start(run.first + run.count).min(self.geometry.total_bytes);
        let begin = u64::from(index) * u64::from(UNIT_BYTES);
        let left = (end - start).checked_sub(begin).filter(|&left| left > 0)?;
        Some(Unit { piece: run.first, begin: begin as u32, len: left.min(u64::from(UNIT_BYTES)) as u32 })
    }

    /// Bytes of piece `piece` without the padding at its end.
    pub(super) fn real_len(&self, piece: u32) -> u32 {
        self.layout.content_len(self.geometry.piece_start(piece), self.geometry.piece_len(piece))
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
            assert!(runs.iter().all(|step| step.place.thread < 3 && step.place.lane < LANES));
            assert_rows(&runs);
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

    /// A row is of one thread and has each lane once.
    fn assert_rows(steps: &[Step]) {
        let mut at = 0;
        while at < steps.len() {
            let row = &steps[at..=at + steps[at].row_left];
            for (left, step) in row.iter().rev().enumerate() {
                assert_eq!((step.row_left, step.place.thread), (left, row[0].place.thread));
            }
            assert!(row.windows(2).all(|pair| pair[0].place.lane < pair[1].place.lane));
            at += row.len();
        }
    }

    #[test]
    fn few_runs_keep_all_threads_busy() {
        let job = job(&[5 << 20], 1 << 20);
        let steps: Vec<Step> = job.schedule(&[0, 1, 2, 3, 4], 2).collect();
        let places: Vec<(usize, usize)> =
            steps.iter().map(|step| (step.place.thread, step.place.lane)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    }

    #[test]
    fn a_gap_in_the_pieces_ends_a_run() {
        let job = job(&[16 << 20], 256 << 10);
        let runs = job.runs(&[0, 1, 3, 4, 5, 6, 7]);
        let run = |first, count| Run { first, count };
        assert_eq!(runs, [run(0, 2), run(3, 4), run(7, 1)]);
    }
}
