//! Complete torrents of a large node: nothing of them is open until a peer asks for one.

use super::*;
use crate::base::limits::TORRENTS_KEPT_AWAKE;
use crate::io::sockets;
use crate::proto::metainfo::Metainfo;
use crate::shared::sleepers::Sleepers;

/// Descriptors of an open torrent besides its files: directory, journal, lock.
const TORRENT_DESCRIPTORS: u64 = 3;

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
    said_full: bool,
}

impl Bedroom {
    pub(super) fn new(sleepers: Arc<Sleepers>) -> Self {
        Self { sleepers, descriptors: 0, descriptors_max: sockets::raise_nofile().0 / 2, said_full: false }
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
        self.bedroom.sleepers.fell_asleep(id);
    }

    /// A peer asks for a torrent that is asleep.
    pub(super) fn wake(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        if swarm.sleep != Sleep::Asleep || self.phase != Phase::Running {
            return;
        }
        let bedroom = &mut self.bedroom;
        if bedroom.descriptors + descriptors_of(&swarm.metainfo) > bedroom.descriptors_max {
            if !std::mem::replace(&mut bedroom.said_full, true) {
                let text = "too many torrents are open for one more to be served";
                tracing::warn!("{text}: raise the limit of open files, as with ulimit -n");
            }
            return;
        }
        swarm.sleep = Sleep::Waking;
        bedroom.descriptors += descriptors_of(&swarm.metainfo);
        self.begin_start(id, false);
    }

    /// Notes that a torrent is open.
    pub(super) fn woke(&mut self, id: TorrentId) {
        let swarm = &mut self.swarms[id.0 as usize];
        if std::mem::replace(&mut swarm.sleep, Sleep::Awake) != Sleep::Waking {
            self.bedroom.descriptors += descriptors_of(&swarm.metainfo);
        }
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
