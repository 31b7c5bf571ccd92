//! When to look at which torrent: one that nothing happens to costs nothing.

use std::collections::{BTreeSet, HashMap};

use crate::base::ids::TorrentId;
use crate::base::time::Instant;

/// At most one appointment per torrent, in the order of time.
#[derive(Debug, Default)]
pub struct Agenda {
    order: BTreeSet<(Instant, TorrentId)>,
    by_torrent: HashMap<TorrentId, Instant>,
}

impl Agenda {
    /// Puts an appointment in the place of the torrent's present one; `None` leaves it without.
    pub fn set(&mut self, torrent: TorrentId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_torrent.insert(torrent, at),
            None => self.by_torrent.remove(&torrent),
        };
        if let Some(before) = before {
            self.order.remove(&(before, torrent));
        }
        self.order.extend(at.map(|at| (at, torrent)));
    }

    /// Takes out all that is due, the earliest first.
    pub fn take_due(&mut self, now: Instant) -> Vec<TorrentId> {
        let mut due = Vec::new();
        while let Some(&(at, torrent)) = self.order.first().filter(|(at, _)| *at <= now) {
            self.order.remove(&(at, torrent));
            self.by_torrent.remove(&torrent);
            due.push(torrent);
        }
        due
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_torrent_has_one_appointment_the_last_that_was_made() {
        let (a, b, at) = (TorrentId(0), TorrentId(1), Instant);
        let mut agenda = Agenda::default();
        agenda.set(a, Some(at(5)));
        agenda.set(b, Some(at(3)));
        assert_eq!(agenda.next(), Some(at(3)));
        agenda.set(b, Some(at(9)));
        agenda.set(a, Some(at(7)));
        assert_eq!((agenda.next(), agenda.take_due(at(6))), (Some(at(7)), vec![]));
        agenda.set(a, None);
        assert_eq!(agenda.take_due(at(8)), []);
        assert_eq!((agenda.take_due(at(9)), agenda.next()), (vec![b], None));
    }

    #[test]
    fn what_is_due_comes_once_and_in_the_order_of_time() {
        let mut agenda = Agenda::default();
        for (id, at) in [(4, 30), (2, 10), (3, 10), (1, 20), (0, 31)] {
            agenda.set(TorrentId(id), Some(Instant(at)));
        }
        assert_eq!(agenda.take_due(Instant(30)), [2, 3, 1, 4].map(TorrentId));
        assert_eq!(agenda.take_due(Instant(30)), []);
        assert_eq!(agenda.next(), Some(Instant(31)));
    }
}
