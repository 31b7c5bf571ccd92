//! Complete torrents of a large node: nothing of them is open until a peer asks for one.

use super::*;
use crate::base::limits::TORRENTS_KEPT_AWAKE;
use crate::io::sockets;
use crate::proto::metainfo::Metainfo;
use crate::shared::sleepers::Sleepers;

/// Descriptors of an open torrent besides its files: two directories, journal, lock.
const TORRENT_DESCRIPTORS: u64 = 4;

/// Descriptors of each of its files at most: the pair that the workers hold while the torrent is open, and
/// another if the control thread's own cache (`daemon/files.rs`) closed its share of it and opened it anew.
const FILE_DESCRIPTORS: u64 = 4;

/// What the loop knows of torrents that are asleep.
#[derive(Debug)]
pub(super) struct Bedroom {
    sleepers: Arc<Sleepers>,
    /// Descriptors of all torrents that are awake.
    descriptors: u64,
    /// No torrent is woken beyond this: connections need descriptors too.
    descriptors_max: u64,
    /// Torrents that were asked for and for which there was none left.
    refused: u64,
}

impl Bedroom {
    pub(super) fn new(sleepers: Arc<Sleepers>) -> Self {
        Self { sleepers, descriptors: 0, descriptors_max: sockets::raise_nofile().0 / 2, refused: 0 }
    }

    /// Takes the descriptors of one more torrent. False if there are none: what is open stays so, whoever
    /// asks for this one from now on is refused at once, and the operator hears of it.
    fn take(&mut self, id: TorrentId, descriptors: u64) -> bool {
        if self.descriptors + descriptors <= self.descriptors_max {
            self.descriptors += descriptors;
            return true;
        }
        self.sleepers.give_up(id);
        self.refused += 1;
        if self.refused.is_power_of_two() {
            let refused = self.refused;
            tracing::warn!(
                refused,
                "too many torrents are open for one more to be served, until the next start: \
                raise the limit of open files, as with ulimit -n"
            );
        }
        false
    }
}

impl Control<'_> {
    /// Whether torrents sleep while they are complete and nobody asks for them. Who names peers wants
    /// them connected; who has few torrents has descriptors for all.
    fn lets_sleep(&self) -> bool {
        let many = self.config.torrents.len() > TORRENTS_KEPT_AWAKE;
        many && self.config.role == Role::Relay && self.config.peers.is_empty()
    }

    /// Starts a torrent.
    pub(super) fn begin_start(&self, id: TorrentId, may_sleep: bool) {
        let config = StartConfig {
            id,
            metainfo: Arc::clone(&self.swarms[id.0 as usize].metainfo),
            dir: self.config.dir.clone(),
            state: Arc::clone(&self.state),
            cores: self.workers.len(),
            gates: Arc::clone(&self.gates),
            sync: SyncPolicy { bytes: self.config.unsynced_bytes, ..SyncPolicy::default() },
            may_sleep: may_sleep && self.lets_sleep(),
            wanted: self.swarms[id.0 as usize].wanted.clone(),
            upload_limit: self.config.upload.torrent,
            download_limit: self.config.download.torrent,
        };
        let tell = self.tell.clone();
        tokio_uring::spawn(async move {
            let hear = tell.clone();
            let on_checked = move |_| drop(hear.send(Event::Checked(id)));
            let started = start(config, on_checked).await;
            let _ = tell.send(Event::Started(id, Box::new(started)));
        });
    }

    pub(super) fn fell_asleep(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        swarm.begin_complete();
        swarm.sleep = Sleep::Asleep;
        self.bedroom.sleepers.note_closed(id);
    }

    /// A peer asks for a torrent that is asleep.
    pub(super) fn wake(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        if swarm.sleep != Sleep::Asleep || self.phase != Phase::Running {
            return;
        }
        if self.bedroom.take(id, descriptors_of(&swarm.metainfo)) {
            swarm.sleep = Sleep::Waking;
            self.begin_start(id, false);
        }
    }

    /// Notes that a torrent is open.
    pub(super) fn woke(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        if std::mem::replace(&mut swarm.sleep, Sleep::Awake) != Sleep::Waking {
            self.bedroom.descriptors += descriptors_of(&swarm.metainfo);
        }
    }

    /// A link is looked for: whoever asks for it is passed on to `called`.
    pub(super) fn note_sought(&self, id: TorrentId) {
        self.bedroom.sleepers.note_sought(id);
    }

    /// What a link names was found: connections for it wait until it is open.
    pub(super) fn note_found(&self, id: TorrentId) {
        self.bedroom.sleepers.note_closed(id);
    }

    /// Notes that a torrent could not be opened: connections for it are refused from now on.
    pub(super) fn never_wakes(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        if std::mem::replace(&mut swarm.sleep, Sleep::Awake) == Sleep::Waking {
            self.bedroom.descriptors -= descriptors_of(&swarm.metainfo);
        }
        self.bedroom.sleepers.give_up(id);
    }
}

fn descriptors_of(metainfo: &Metainfo) -> u64 {
    TORRENT_DESCRIPTORS + FILE_DESCRIPTORS * metainfo.files.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;

    #[test]
    fn strangers_who_wake_all_that_sleeps_are_told_when_it_is_enough_and_who_is_served_stays_so() {
        let hash = |id: u32| InfoHash([id as u8; 20]);
        for (descriptors_max, woken) in [(29, 2), (30, 3), (31, 3)] {
            let sleepers = Arc::new(Sleepers::new((0..8).map(|at| [hash(at)])));
            (0..8).for_each(|id| sleepers.note_closed(TorrentId(id)));
            let sleepers_seen = Arc::clone(&sleepers);
            let mut bedroom = Bedroom { sleepers, descriptors: 0, descriptors_max, refused: 0 };
            for id in 0..8 {
                assert_eq!(bedroom.take(TorrentId(id), 10), id < woken, "{id} of {descriptors_max}");
                let waits = sleepers_seen.find(&hash(id)).is_some();
                assert_eq!(waits, id < woken, "whoever asks for {id} waits");
            }
            assert_eq!((bedroom.descriptors, bedroom.refused), (u64::from(woken) * 10, u64::from(8 - woken)));
        }
    }
}
