//! One connection between a core and a web seed, from the web seed's side: which range is fetched next, and
//! where the bytes of its body belong.
//!
//! Requests that follow one another become one *run*, of any number of whole pieces. A run is fetched in
//! *parts*, one for each file that it touches; the bytes of each part come in order and are *cut* into
//! blocks. Bytes never pass through here, only their number.

use std::collections::VecDeque;

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::limits::{REQUESTS_OUT_MAX, WEB_SEED_DRAIN_BYTES_MAX, WEB_SEED_RANGE_BYTES_MAX};
use crate::base::units::PIECE_HEADER_BYTES;
use crate::proto::wire::message::{Message, piece_header};
use crate::storage::layout::{FileIndex, Layout};

/// What is to be fetched next: bytes that lie together in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file; `None` is padding, which is all zeros and fetched from nobody.
    pub file: Option<FileIndex>,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// How many bytes; never 0.
    pub len: u32,
}

/// What becomes of the next bytes of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Goes to the core before them: a block begins.
    pub header: Option<[u8; PIECE_HEADER_BYTES as usize]>,
    /// How many bytes.
    pub len: usize,
    /// They go to the core; if not, nobody wants them any more.
    pub wanted: bool,
}

/// The core asks what a core of ours never asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a core asked for blocks that do not exist, or for too many; this is a bug in troc")]
pub struct BadRequest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// Its header is out.
    Begun,
    Cancelled,
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    geometry: Geometry,
    queue: VecDeque<BlockRef>,
    /// Blocks that are being fetched, end to end.
    run: VecDeque<(BlockRef, Fate)>,
    /// Bytes of the first of them that have come.
    done: u32,
}

impl Feed {
    /// A connection of a torrent of this geometry, over which nothing was asked for.
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry, queue: VecDeque::new(), run: VecDeque::new(), done: 0 }
    }

    /// The core said something. Only requests and cancels mean anything to a web server.
    pub fn handle_message(&mut self, message: Message<'_>) -> Result<(), BadRequest> {
        match message {
            Message::Request(block) => {
                let room = self.queue.len() + self.run.len() < 2 * REQUESTS_OUT_MAX;
                if !room || !self.geometry.contains(block) {
                    return Err(BadRequest);
                }
                self.queue.push_back(block);
            }
            Message::Cancel(block) => self.cancel(block),
            _ => {}
        }
        Ok(())
    }

    fn cancel(&mut self, block: BlockRef) {
        if let Some(at) = self.queue.iter().position(|&queued| queued == block) {
            self.queue.remove(at);
        } else if let Some(flying) =
            self.run.iter_mut().find(|flying| flying.0 == block && flying.1 == Fate::Wanted)
        {
            flying.1 = Fate::Cancelled;
        }
    }

    /// The part to fetch next. To be called only when the one before has come, or was abandoned.
    pub fn poll_part(&mut self, layout: &Layout) -> Option<Part> {
        // What nobody wants any more need not be fetched, at either end.
        while self.done == 0 && self.run.front().is_some_and(|front| front.1 == Fate::Cancelled) {
            self.run.pop_front();
        }
        while self.run.len() > 1 && self.run.back().is_some_and(|back| back.1 == Fate::Cancelled) {
            self.run.pop_back();
        }
        self.lengthen();
        let &(first, _) = self.run.front()?;
        let start = self.start_of(first) + u64::from(self.done);
        let len = u32::try_from(self.end() - start).unwrap_or(u32::MAX);
        let extent = layout.extents(start, len).next()?;
        Some(Part { file: extent.file, offset: extent.file_offset, len: extent.len })
    }

    /// Adds requests to the run as long as they follow it.
    fn lengthen(&mut self) {
        while let Some(&next) = self.queue.front() {
            let start = self.start_of(next);
            if let Some(&(first, _)) = self.run.front() {
                let bytes = self.end() + u64::from(next.length) - self.start_of(first);
                if start != self.end() || bytes > WEB_SEED_RANGE_BYTES_MAX {
                    return;
                }
            }
            self.queue.pop_front();
            self.run.push_back((next, Fate::Wanted));
        }
    }

    /// `available` further bytes of the part are here, at least one: what becomes of the first of them.
    /// Panics if no part is being fetched.
    pub fn cut(&mut self, available: usize) -> Cut {
        let Some((block, fate)) = self.run.front_mut() else { panic!("no part is being fetched") };
        let header = (*fate == Fate::Wanted).then(|| piece_header(*block));
        if header.is_some() {
            *fate = Fate::Begun;
        }
        let wanted = *fate == Fate::Begun;
        let len = available.min((block.length - self.done) as usize);
        self.done += len as u32;
        if self.done == block.length {
            self.done = 0;
            self.run.pop_front();
        }
        Cut { header, len, wanted }
    }

    /// Whether the rest of the run is not worth its bytes: nobody wants it, and it is long.
    pub fn is_vain(&self) -> bool {
        let Some(&(first, _)) = self.run.front() else { return false };
        let rest_bytes = self.end() - self.start_of(first) - u64::from(self.done);
        rest_bytes > WEB_SEED_DRAIN_BYTES_MAX && self.run.iter().all(|(_, fate)| *fate == Fate::Cancelled)
    }

    /// Forgets the run, of which nobody wants anything.
    pub fn abandon(&mut self) {
        self.run.clear();
        self.done = 0;
    }

    fn start_of(&self, block: BlockRef) -> u64 {
        self.geometry.piece_start(block.piece) + u64::from(block.begin)
    }

    /// Where the run ends.
    fn end(&self) -> u64 {
        self.run.back().map_or(0, |&(last, _)| self.start_of(last) + u64::from(last.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::BLOCK_BYTES;
    use crate::storage::layout::FileSpan;

    const PIECE: u32 = 4 * BLOCK_BYTES;

    fn layout(files: &[(u64, bool)]) -> (Layout, Feed) {
        let spans = files.iter().map(|&(length, pad)| FileSpan { length, pad });
        let layout = Layout::new(spans);
        let feed = Feed::new(Geometry::new(layout.total_bytes(), PIECE));
        (layout, feed)
    }

    fn block(number: u32) -> BlockRef {
        BlockRef { piece: number / 4, begin: number % 4 * BLOCK_BYTES, length: BLOCK_BYTES }
    }

    fn ask(feed: &mut Feed, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            feed.handle_message(Message::Request(block(number))).unwrap();
        }
    }

    /// Lets all of a part come; the blocks whose headers went out, and wanted bytes.
    fn come(feed: &mut Feed, part: Part, step: usize) -> (usize, usize) {
        let (mut left, mut headers, mut bytes) = (part.len as usize, 0, 0);
        while left > 0 {
            let cut = feed.cut(left.min(step));
            headers += usize::from(cut.header.is_some());
            bytes += if cut.wanted { cut.len } else { 0 };
            left -= cut.len;
        }
        (headers, bytes)
    }

    fn part(file: u32, offset: u64, len: u32) -> Part {
        Part { file: Some(FileIndex(file)), offset, len }
    }

    #[test]
    fn requests_that_follow_one_another_become_one_range_of_whole_pieces() {
        let (layout, mut feed) = layout(&[(64 * u64::from(BLOCK_BYTES), false)]);
        ask(&mut feed, (4..12).chain([20, 21]));
        let first = feed.poll_part(&layout).unwrap();
        assert_eq!(first, part(0, 4 * u64::from(BLOCK_BYTES), 8 * BLOCK_BYTES));
        assert_eq!(come(&mut feed, first, 1_000), (8, 8 * BLOCK_BYTES as usize));
        let second = feed.poll_part(&layout).unwrap();
        assert_eq!(second, part(0, 20 * u64::from(BLOCK_BYTES), 2 * BLOCK_BYTES));
        come(&mut feed, second, usize::MAX);
        assert_eq!(feed.poll_part(&layout), None);
    }

    #[test]
    fn a_range_ends_at_each_file_and_padding_is_fetched_from_nobody() {
        let (layout, mut feed) = layout(&[(20_000, false), (5_000, true), (100_000, false)]);
        ask(&mut feed, 0..4);
        let zeros = Part { file: None, offset: 0, len: 5_000 };
        for expected in [part(0, 0, 20_000), zeros, part(2, 0, 4 * BLOCK_BYTES - 25_000)] {
            let next = feed.poll_part(&layout).unwrap();
            assert_eq!(next, expected);
            come(&mut feed, next, 7_000);
        }
        assert_eq!(feed.poll_part(&layout), None);
    }

    #[test]
    fn a_range_is_as_long_as_the_limit_and_no_longer() {
        let limit = (WEB_SEED_RANGE_BYTES_MAX / u64::from(BLOCK_BYTES)) as u32;
        for (asked, expected) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let (layout, mut feed) = layout(&[(4 * WEB_SEED_RANGE_BYTES_MAX, false)]);
            // A core asks for fewer at a time; what it asks for meanwhile is added between two parts.
            feed.queue.extend((0..asked).map(block));
            assert_eq!(feed.poll_part(&layout).unwrap().len, expected * BLOCK_BYTES);
        }
    }

    #[test]
    fn what_is_cancelled_is_not_fetched_or_not_passed_on() {
        let (layout, mut feed) = layout(&[(64 * u64::from(BLOCK_BYTES), false)]);
        ask(&mut feed, 0..4);
        feed.handle_message(Message::Cancel(block(3))).unwrap();
        let run = feed.poll_part(&layout).unwrap();
        assert_eq!(run.len, 3 * BLOCK_BYTES);
        assert_eq!(feed.cut(10), Cut { header: Some(piece_header(block(0))), len: 10, wanted: true });
        for number in [0, 1] {
            feed.handle_message(Message::Cancel(block(number))).unwrap();
        }
        let rest = Part { len: run.len - 10, ..run };
        let bytes = 2 * BLOCK_BYTES as usize - 10;
        assert_eq!(come(&mut feed, rest, usize::MAX), (1, bytes), "a block that is begun comes whole");
    }

    #[test]
    fn a_long_answer_that_nobody_wants_any_more_is_abandoned() {
        let blocks = (WEB_SEED_DRAIN_BYTES_MAX / u64::from(BLOCK_BYTES)) as u32;
        for (asked, vain) in [(blocks - 1, false), (blocks, false), (blocks + 1, true)] {
            let (layout, mut feed) = layout(&[(1 << 30, false)]);
            ask(&mut feed, 0..asked);
            assert!(feed.poll_part(&layout).is_some() && !feed.is_vain());
            (0..asked).for_each(|number| feed.handle_message(Message::Cancel(block(number))).unwrap());
            assert_eq!(feed.is_vain(), vain, "{asked}");
            feed.abandon();
            assert_eq!(feed.poll_part(&layout), None);
        }
    }

    #[test]
    fn blocks_that_do_not_exist_and_too_many_are_refused() {
        let (_, mut feed) = layout(&[(1 << 30, false)]);
        let beyond = BlockRef { piece: u32::MAX, ..block(0) };
        assert_eq!(feed.handle_message(Message::Request(beyond)), Err(BadRequest));
        let most = 2 * REQUESTS_OUT_MAX as u32;
        ask(&mut feed, 0..most);
        assert_eq!(feed.handle_message(Message::Request(block(most))), Err(BadRequest));
    }
}
