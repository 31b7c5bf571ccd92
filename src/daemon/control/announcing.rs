//! Who is dialled or fetched from, and what trackers are told and tell.

use super::*;

/// A worker that carries so many more connections than the least loaded gets no new ones.
const LOAD_SLACK: u32 = 4;

/// Whom a tracker named, in the swarm by each name of the torrent.
#[derive(Debug, Default)]
pub(super) struct Found {
    by_first: Vec<SocketAddr>,
    by_second: Vec<SocketAddr>,
}

impl Control<'_> {
    pub(super) fn dial(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(live) = swarm.live.as_ref().filter(|_| self.phase == Phase::Running) else { return };
        let loads: Vec<u32> =
            live.shared.stats.iter().map(|stats| stats.peers.load(Ordering::Relaxed)).collect();
        while let Some(address) = swarm.roster.candidates.poll_dial(now) {
            let (core, name) = (place(address, &loads), swarm.roster.candidates.name(address));
            match &self.mse {
                Some(mse) if swarm.roster.candidates.manner(address) == Manner::Encrypted => {
                    mse.dial((id, name), swarm.hash_of(name), address, core);
                }
                _ => self.workers[core].send(ToWorker::Dial { torrent: id, name, address }),
            }
        }
    }

    /// Has web seeds give what a torrent lacks, if it has any.
    pub(super) fn fetch_from_web(&mut self, id: TorrentId) {
        let swarm = &self.swarms[id.0 as usize];
        let none = self.config.web_seeds.is_empty() && swarm.metainfo.web_seeds.is_empty();
        let Some(live) = swarm.live.as_ref().filter(|_| !none && self.phase == Phase::Running) else {
            return;
        };
        if live.shared.is_satisfied() {
            return;
        }
        let (metainfo, shared) = (Arc::clone(&swarm.metainfo), Arc::clone(&live.shared));
        let given = &self.config.web_seeds;
        self.web_seeds.fetch(id, || Sources { metainfo, shared, given: given.clone() });
    }

    /// Announces what is due, or has it wait until fewer announces are under way.
    pub(super) fn announce_due(&mut self, id: TorrentId, now: Instant) {
        while self.announcing < TRACKER_ANNOUNCES_MAX {
            let Some(announce) = self.swarms[id.0 as usize].announcer.poll_announce(now) else { return };
            self.announce(id, announce);
        }
        let swarm = &mut self.swarms[id.0 as usize];
        let due = swarm.announcer.poll_timeout().is_some_and(|at| at <= now);
        if due && !std::mem::replace(&mut swarm.announce_queued, true) {
            self.announces_queued.push_back(id);
        }
    }

    fn announce(&mut self, id: TorrentId, announce: Announce) {
        self.announcing += 1;
        let port = self.shared.listen.map_or(0, |address| address.port());
        let swarm = &self.swarms[id.0 as usize];
        let request = swarm.request(announce.event, self.shared.peer_id, port, self.shared.key);
        // A hybrid has a swarm by each of its names; the first answers for both.
        let second = swarm.metainfo.names().nth(1);
        let (trackers, tell) = (Rc::clone(&self.trackers), self.tell.clone());
        tokio_uring::spawn(async move {
            let mut result = trackers.announce(&announce.url, &request, TrackerOrigin::SOURCE).await;
            let mut found = Found::default();
            if let Ok(reply) = &mut result {
                found.by_first = std::mem::take(&mut reply.peers);
            }
            if let Some(info_hash) = second.filter(|_| result.is_ok()) {
                let request = AnnounceRequest { info_hash, ..request };
                let more = trackers.announce(&announce.url, &request, TrackerOrigin::SOURCE).await;
                found.by_second = more.map(|more| more.peers).unwrap_or_default();
            }
            let _ = tell.send(Event::Announced(id, announce.tracker, result, found));
        });
    }

    pub(super) fn announced(
        &mut self,
        id: TorrentId,
        tracker: TrackerIndex,
        result: Result<AnnounceReply, AnnounceError>,
        found: Found,
    ) {
        let now = clock::now();
        self.announcing -= 1;
        let swarm = &mut self.swarms[id.0 as usize];
        match result {
            Ok(reply) => {
                swarm.tracker_error = reply.warning.clone();
                let change = swarm.announcer.handle_reply(now, tracker, &reply);
                let me = self.shared.listen;
                let others =
                    |peers: Vec<SocketAddr>| peers.into_iter().filter(move |&peer| !is_self(peer, me));
                let strangers = swarm.note_reply(change, others(found.by_first), now);
                swarm.note_peers_by((Source::Tracker, Name::Second), others(found.by_second), now);
                self.close(strangers);
            }
            Err(error) => {
                tracing::warn!("{error}");
                swarm.tracker_error = Some(error.to_string());
                swarm.announcer.handle_failure(now, tracker);
            }
        }
    }
}

/// The core for a dialled connection: by the hash of its address, unless that core is busier.
fn place(address: SocketAddr, loads: &[u32]) -> usize {
    let core = xxh3_64(address.to_string().as_bytes()) as usize % loads.len();
    let least = (0..loads.len()).min_by_key(|&core| loads[core]).unwrap_or(0);
    if loads[core] > loads[least] + LOAD_SLACK { least } else { core }
}
