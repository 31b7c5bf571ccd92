//! The tracker that a relay is for its torrents (`--tracker`), as the loop sees it: whoever announces is a
//! peer that can be dialled.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use super::*;
use crate::base::ids::InfoHash;
use crate::base::limits::{SERVED_INTERVAL, SERVED_MET_MAX};
use crate::daemon::tracker_server::TrackerServer;
use crate::engine::tracker::Rules;
use crate::proto::metainfo::Metainfo;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    pub(super) server: Option<TrackerServer>,
    /// Of what torrent an info-hash is a name.
    names: Rc<RefCell<HashMap<InfoHash, (TorrentId, Name)>>>,
    /// Peers that announced and that the loop has not heard of; at most `SERVED_MET_MAX`.
    waiting: Rc<Cell<usize>>,
}

impl Control<'_> {
    /// The same with a tracker, which serves while it runs.
    pub fn with_tracker(mut self, server: Option<TrackerServer>) -> Self {
        self.tracking.server = server;
        self
    }

    /// Serves the torrents of this node and no others.
    pub(super) fn start_tracking(&mut self) {
        let Some(server) = &mut self.tracking.server else { return };
        let allow = Some(HashSet::new());
        let rules = Rules { interval: SERVED_INTERVAL, allow, grouping: self.config.grouping.clone() };
        let names = Rc::clone(&self.tracking.names);
        let (tell, waiting) = (self.tell.clone(), Rc::clone(&self.tracking.waiting));
        let on_peer = move |hash, peer| {
            let Some(&(id, name)) = names.borrow().get(&hash) else { return };
            if waiting.get() < SERVED_MET_MAX {
                waiting.set(waiting.get() + 1);
                let _ = tell.send(Event::Met(id, name, peer));
            }
        };
        server.start(rules, self.shared.listen.map(|listen| listen.port()), on_peer);
        let torrents = self.config.torrents.iter().enumerate();
        torrents.for_each(|(index, metainfo)| self.track(TorrentId(index as u32), metainfo));
    }

    /// Serves a torrent by all names that are known of it: of one that a link named there may be more now.
    pub(super) fn track(&self, id: TorrentId, metainfo: &Metainfo) {
        let Some(server) = &self.tracking.server else { return };
        for (hash, name) in metainfo.names().zip([Name::First, Name::Second]) {
            self.tracking.names.borrow_mut().insert(hash, (id, name));
            server.allow(hash);
        }
    }

    /// A peer announced itself to us.
    pub(super) fn met(&mut self, id: TorrentId, name: Name, peer: SocketAddr) {
        self.tracking.waiting.set(self.tracking.waiting.get().saturating_sub(1));
        let me = self.shared.listen;
        let peers = Some(peer).filter(|&peer| !is_self(peer, me)).into_iter();
        self.swarms[id.0 as usize].note_peers_by((Source::Tracker, name), peers, clock::now());
    }
}
