//! Torrents of which cores have nothing, and which who asks for them is not refused: complete ones that are
//! closed, and links whose metadata is still looked for. Each is an entry here and one on the control thread.

use std::collections::HashMap;

use super::sync::{AtomicU8, Ordering};
use crate::base::ids::{InfoHash, TorrentId};

/// Why a core has nothing of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is asleep, or is being opened: connections wait, and the control thread wakes it.
    Closed,
    /// Only its magnet link is known: whoever asks for it may have its metadata, and is passed on.
    Sought,
}

/// Which of the node's torrents are absent in one of these ways.
///
/// A torrent that was woken or found stays marked as closed: cores look here only for what they do not know.
#[derive(Debug, Default)]
pub struct Sleepers {
    by_hash: HashMap<InfoHash, TorrentId>,
    marks: Box<[AtomicU8]>,
}

/// Who asks is refused.
const PRESENT: u8 = 0;
const CLOSED: u8 = 1;
const SOUGHT: u8 = 2;

impl Sleepers {
    /// The torrents of a node, in the order of their ids, all awake: each by its names.
    pub fn new<N: IntoIterator<Item = InfoHash>>(torrents: impl Iterator<Item = N>) -> Self {
        let (mut by_hash, mut marks) = (HashMap::new(), Vec::new());
        for (id, names) in (0u32..).zip(torrents) {
            by_hash.extend(names.into_iter().map(|hash| (hash, TorrentId(id))));
            marks.push(AtomicU8::new(PRESENT));
        }
        Self { by_hash, marks: marks.into() }
    }

    /// The torrent, if connections for it are of use.
    pub fn find(&self, info_hash: &InfoHash) -> Option<(TorrentId, Absence)> {
        let &id = self.by_hash.get(info_hash)?;
        match self.marks.get(id.0 as usize)?.load(Ordering::Acquire) {
            CLOSED => Some((id, Absence::Closed)),
            SOUGHT => Some((id, Absence::Sought)),
            _ => None,
        }
    }

    /// The control thread has closed all of the torrent, or never opened it, and will open it.
    pub fn note_closed(&self, id: TorrentId) {
        self.mark(id, CLOSED);
    }

    /// The metadata of the torrent is being looked for.
    pub fn note_sought(&self, id: TorrentId) {
        self.mark(id, SOUGHT);
    }

    /// The torrent could not be opened, or found, and will not be again.
    pub fn give_up(&self, id: TorrentId) {
        self.mark(id, PRESENT);
    }

    fn mark(&self, id: TorrentId, value: u8) {
        if let Some(mark) = self.marks.get(id.0 as usize) {
            mark.store(value, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn only_a_torrent_of_ours_that_fell_asleep_or_is_looked_for_is_found() {
        let hash = |byte| InfoHash([byte; 20]);
        let sleepers = Sleepers::new([vec![hash(1)], vec![hash(2), hash(4)]].into_iter());
        assert_eq!(sleepers.find(&hash(2)), None, "not started yet");
        let (id, closed) = (TorrentId(1), Some((TorrentId(1), Absence::Closed)));
        sleepers.note_closed(id);
        assert_eq!((sleepers.find(&hash(2)), sleepers.find(&hash(1))), (closed, None));
        assert_eq!(sleepers.find(&hash(4)), closed, "the second name of a hybrid");
        assert_eq!(sleepers.find(&hash(3)), None, "nobody's");
        sleepers.note_sought(id);
        assert_eq!(sleepers.find(&hash(2)), Some((id, Absence::Sought)));
        sleepers.give_up(id);
        assert_eq!(sleepers.find(&hash(2)), None);
        assert_eq!(Sleepers::default().find(&hash(1)), None);
    }
}
