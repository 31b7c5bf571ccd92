//! Torrents that are complete and of which nothing is open: an entry here and one on the control thread.
//! A core that is asked for one lets the connection wait and has the control thread wake the torrent.

use std::collections::HashMap;

use super::sync::{AtomicBool, Ordering};
use crate::base::ids::{InfoHash, TorrentId};

/// Which of the node's torrents may be asleep.
///
/// A torrent that was woken stays marked: cores look here only for what they do not know.
#[derive(Debug, Default)]
pub struct Sleepers {
    by_hash: HashMap<InfoHash, TorrentId>,
    asleep: Box<[AtomicBool]>,
}

impl Sleepers {
    /// The torrents of a node, in the order of their ids, all awake: each by its names.
    pub fn new<N: IntoIterator<Item = InfoHash>>(torrents: impl Iterator<Item = N>) -> Self {
        let (mut by_hash, mut asleep) = (HashMap::new(), Vec::new());
        for (id, names) in (0u32..).zip(torrents) {
            by_hash.extend(names.into_iter().map(|hash| (hash, TorrentId(id))));
            asleep.push(AtomicBool::new(false));
        }
        Self { by_hash, asleep: asleep.into() }
    }

    /// The torrent, if it may be woken.
    pub fn find(&self, info_hash: &InfoHash) -> Option<TorrentId> {
        let &id = self.by_hash.get(info_hash)?;
        self.asleep.get(id.0 as usize)?.load(Ordering::Acquire).then_some(id)
    }

    /// The control thread has closed all of the torrent, or never opened it.
    pub fn fell_asleep(&self, id: TorrentId) {
        self.mark(id, true);
    }

    /// The torrent could not be woken and will not be again.
    pub fn give_up(&self, id: TorrentId) {
        self.mark(id, false);
    }

    fn mark(&self, id: TorrentId, asleep: bool) {
        if let Some(mark) = self.asleep.get(id.0 as usize) {
            mark.store(asleep, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn only_a_torrent_of_ours_that_fell_asleep_is_found() {
        let hash = |byte| InfoHash([byte; 20]);
        let sleepers = Sleepers::new([vec![hash(1)], vec![hash(2), hash(4)]].into_iter());
        assert_eq!(sleepers.find(&hash(2)), None, "not started yet");
        sleepers.fell_asleep(TorrentId(1));
        assert_eq!((sleepers.find(&hash(2)), sleepers.find(&hash(1))), (Some(TorrentId(1)), None));
        assert_eq!(sleepers.find(&hash(4)), Some(TorrentId(1)), "the second name of a hybrid");
        assert_eq!(sleepers.find(&hash(3)), None, "nobody's");
        sleepers.give_up(TorrentId(1));
        assert_eq!(sleepers.find(&hash(2)), None);
        assert_eq!(Sleepers::default().find(&hash(1)), None);
    }
}
