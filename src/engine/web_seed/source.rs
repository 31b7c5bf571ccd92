//! One web seed of a torrent, over all its connections: whether to open one more, which pieces its server
//! has, when to leave it alone and for how long.

use std::collections::BTreeSet;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::limits::{
    WEB_SEED_ABSENT_IN_A_ROW_MAX, WEB_SEED_BACKOFF_MAX, WEB_SEED_BACKOFF_MIN, WEB_SEED_CONNECTIONS_EACH_MAX,
};
use crate::base::time::{Instant, Span};
use crate::storage::layout::{FileIndex, Layout};

use super::answer::Refusal;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The core closed it.
    Left,
    /// The server does not have this file, or not the right one, or not in parts.
    Absent(FileIndex),
    /// The server wants to be left alone, for so long if it says so.
    Busy(Option<Span>),
    /// Anything else.
    Failed,
}

impl End {
    /// Of a connection over which `file` was asked for and refused.
    pub const fn refused(refusal: Refusal, file: FileIndex) -> Self {
        match refusal {
            Refusal::Absent(_) | Refusal::OtherLength | Refusal::NoRanges => Self::Absent(file),
            Refusal::Busy(_, after) => Self::Busy(after),
            Refusal::OtherRange | Refusal::Encoded | Refusal::Status(_) => Self::Failed,
        }
    }
}

/// Whether one more connection may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Yes.
    Now,
    /// Not before then.
    At(Instant),
    /// Not before one of those that are open has brought something or ended.
    Enough,
    /// Never: it gave bad data.
    Never,
}

/// See the module.
#[derive(Debug)]
pub struct Source {
    absent: BTreeSet<FileIndex>,
    absent_in_a_row: u32,
    failures: u32,
    open: u32,
    /// Connections that the server puts up with.
    most: u32,
    /// It brought bytes since it last failed.
    proven: bool,
    next_at: Instant,
    banned: bool,
}

impl Source {
    /// One that has not been tried.
    pub const fn new(now: Instant) -> Self {
        Self {
            absent: BTreeSet::new(),
            absent_in_a_row: 0,
            failures: 0,
            open: 0,
            most: WEB_SEED_CONNECTIONS_EACH_MAX,
            proven: false,
            next_at: now,
            banned: false,
        }
    }

    /// Whether to open one more connection.
    pub fn poll_open(&self, now: Instant) -> Opening {
        let most = if self.proven { self.most } else { 1 };
        match () {
            () if self.banned => Opening::Never,
            () if self.open >= most => Opening::Enough,
            () if self.next_at > now => Opening::At(self.next_at),
            () => Opening::Now,
        }
    }

    /// One is being opened.
    pub const fn handle_opened(&mut self) {
        self.open += 1;
    }

    /// Bytes came; true if others may be opened since.
    pub const fn handle_bytes(&mut self) -> bool {
        (self.failures, self.absent_in_a_row) = (0, 0);
        !std::mem::replace(&mut self.proven, true)
    }

    /// It gave bad data.
    pub const fn handle_banned(&mut self) {
        self.banned = true;
    }

    /// A connection ended. Returns for how long the whole web seed is left alone, if it is.
    pub fn handle_ended(
        &mut self,
        end: End,
        (geometry, layout): (Geometry, &Layout),
        now: Instant,
    ) -> Option<Span> {
        self.open -= 1;
        let wait = match end {
            // Perhaps it has no room; that costs nothing but must not go round and round.
            End::Left => {
                self.next_at = self.next_at.max(now + WEB_SEED_BACKOFF_MIN);
                return None;
            }
            End::Absent(file) => {
                self.absent.insert(file);
                self.absent_in_a_row += 1;
                let nothing = self.bits(geometry, layout).count() == 0;
                if !nothing && self.absent_in_a_row < WEB_SEED_ABSENT_IN_A_ROW_MAX {
                    return None;
                }
                self.absent.clear();
                self.absent_in_a_row = 0;
                WEB_SEED_BACKOFF_MAX
            }
            // It serves the others, and those are what it puts up with.
            End::Busy(_) if self.open > 0 && self.proven => {
                self.most = self.open;
                return None;
            }
            End::Busy(after) => self.backoff().max(after.unwrap_or_default()),
            End::Failed => self.backoff(),
        };
        self.failures = self.failures.saturating_add(1);
        self.proven = false;
        self.next_at = self.next_at.max(now + wait);
        Some(wait)
    }

    fn backoff(&self) -> Span {
        let doubled = WEB_SEED_BACKOFF_MIN.0.saturating_mul(1 << self.failures.min(32));
        Span(doubled.min(WEB_SEED_BACKOFF_MAX.0))
    }

    /// The pieces of which every file is there, as far as is known.
    pub fn bits(&self, geometry: Geometry, layout: &Layout) -> Bitfield {
        let mut bits = Bitfield::full(geometry.piece_count());
        for &file in &self.absent {
            for piece in layout.pieces_of_file(geometry, file) {
                bits.clear(piece);
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::layout::FileSpan;

    const NOW: Instant = Instant(1_000_000_000);

    /// Four pieces; two files share the second.
    fn place() -> (Geometry, Layout) {
        let files = [24 << 10, 40 << 10].map(|length| FileSpan { length, pad: false });
        (Geometry::new(64 << 10, 16 << 10), Layout::new(files.into_iter()))
    }

    fn end(source: &mut Source, end: End, now: Instant) -> Option<Span> {
        let (geometry, layout) = place();
        source.handle_opened();
        source.handle_ended(end, (geometry, &layout), now)
    }

    #[test]
    fn one_connection_has_to_bring_something_before_others_are_opened() {
        let mut source = Source::new(NOW);
        assert_eq!(source.poll_open(NOW), Opening::Now);
        source.handle_opened();
        assert_eq!(source.poll_open(NOW), Opening::Enough);
        assert!(source.handle_bytes() && !source.handle_bytes());
        for _ in 1..WEB_SEED_CONNECTIONS_EACH_MAX {
            assert_eq!(source.poll_open(NOW), Opening::Now);
            source.handle_opened();
        }
        assert_eq!(source.poll_open(NOW), Opening::Enough);
    }

    #[test]
    fn a_web_seed_that_fails_is_left_alone_for_longer_each_time_until_it_gives_again() {
        let (mut source, mut now) = (Source::new(NOW), NOW);
        for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
            assert_eq!(end(&mut source, End::Failed, now), Some(Span::from_secs(seconds)));
            let at = now + Span::from_secs(seconds);
            assert_eq!(source.poll_open(Instant(at.0 - 1)), Opening::At(at));
            assert_eq!(source.poll_open(at), Opening::Now);
            now = at;
        }
        source.handle_bytes();
        assert_eq!(end(&mut source, End::Failed, now), Some(WEB_SEED_BACKOFF_MIN));
    }

    #[test]
    fn a_busy_server_is_left_alone_as_long_as_it_says_or_has_fewer_connections() {
        let mut source = Source::new(NOW);
        assert_eq!(end(&mut source, End::Busy(Some(Span::from_secs(90))), NOW), Some(Span::from_secs(90)));
        assert_eq!(source.poll_open(NOW), Opening::At(NOW + Span::from_secs(90)));
        let mut source = Source::new(NOW);
        (0..2).for_each(|_| source.handle_opened());
        source.handle_bytes();
        assert_eq!(end(&mut source, End::Busy(None), NOW), None);
        assert_eq!(source.poll_open(NOW), Opening::Enough, "the two that are open go on");
    }

    #[test]
    fn only_pieces_of_files_that_are_not_there_are_missing() {
        let (geometry, layout) = place();
        let mut source = Source::new(NOW);
        assert!(source.bits(geometry, &layout).is_full());
        assert_eq!(end(&mut source, End::Absent(FileIndex(0)), NOW), None);
        assert_eq!(source.bits(geometry, &layout).ones().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(source.poll_open(NOW), Opening::Now, "the other file may be there");
        assert_eq!(end(&mut source, End::Absent(FileIndex(1)), NOW), Some(WEB_SEED_BACKOFF_MAX));
        assert!(source.bits(geometry, &layout).is_full(), "all is tried anew some day");
    }

    #[test]
    fn so_many_files_in_a_row_may_be_absent() {
        let files = 4 * WEB_SEED_ABSENT_IN_A_ROW_MAX;
        let geometry = Geometry::new(u64::from(files) << 14, 1 << 14);
        let layout = Layout::new((0..files).map(|_| FileSpan { length: 1 << 14, pad: false }));
        let mut source = Source::new(NOW);
        for number in 1..=WEB_SEED_ABSENT_IN_A_ROW_MAX {
            source.handle_opened();
            let wait = source.handle_ended(End::Absent(FileIndex(number)), (geometry, &layout), NOW);
            assert_eq!(wait.is_some(), number == WEB_SEED_ABSENT_IN_A_ROW_MAX, "{number}");
        }
    }

    #[test]
    fn p24_bad_data_ends_a_web_seed_for_good_and_a_core_that_leaves_does_not() {
        let mut source = Source::new(NOW);
        assert_eq!(end(&mut source, End::Left, NOW), None);
        assert_eq!(source.poll_open(NOW), Opening::At(NOW + WEB_SEED_BACKOFF_MIN));
        source.handle_banned();
        assert_eq!(source.poll_open(NOW + WEB_SEED_BACKOFF_MAX), Opening::Never);
    }
}
