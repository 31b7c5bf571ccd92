//! Peers that are found without a tracker, as the loop sees them.

use std::net::IpAddr;

use super::*;
use crate::base::ids::InfoHash;
use crate::base::limits::PEERS_ENOUGH;
use crate::daemon::discovery::{BoundDht, Discovery, Need, News, Privacy, Wanted};
use crate::daemon::status::DhtStatus;

/// What the loop knows of discovery.
#[derive(Debug, Default)]
pub(super) struct Finding {
    bound: Vec<BoundDht>,
    discovery: Discovery,
    /// Which torrent an info hash is.
    torrents: HashMap<InfoHash, TorrentId>,
}

impl Finding {
    /// Whether there is nothing left to wait for.
    pub(super) const fn is_over(&self) -> bool {
        self.discovery.is_over()
    }

    /// For the status.
    pub(super) fn status(&self) -> Vec<DhtStatus> {
        self.discovery.status()
    }

    /// Has it end.
    pub(super) fn stop(&self) {
        self.discovery.stop();
    }

    /// A peer has a node of the distributed hash table.
    pub(super) fn hint(&self, address: SocketAddr) {
        self.discovery.hint(address);
    }
}

impl Control<'_> {
    /// The same with sockets of the distributed hash table.
    pub fn with_dht(mut self, bound: Vec<BoundDht>) -> Self {
        self.finding.bound = bound;
        self
    }

    pub(super) fn start_discovery(&mut self) {
        let tell = self.tell.clone();
        let tell = move |news| drop(tell.send(Event::Discovered(news)));
        let bound = std::mem::take(&mut self.finding.bound);
        let (config, listen) = (&self.config.discovery, self.shared.listen);
        match Discovery::start(bound, config, listen, &self.state, tell) {
            Ok(discovery) => self.finding.discovery = discovery,
            Err(error) => tracing::warn!("peers are not looked for without trackers: {error}"),
        }
    }

    /// Has a swarm rank its peers by where others see us (BEP 40): the address that we listen on, or `seen`.
    pub(super) fn know_own_address(&self, swarm: &mut Swarm, seen: Option<IpAddr>) {
        let Some(listen) = self.shared.listen else { return };
        let bound = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
        if let Some(ip) = bound.or(seen) {
            swarm.roster.candidates.set_own(SocketAddr::new(ip, listen.port()));
        }
    }

    /// Says what a torrent needs, if that has changed.
    pub(super) fn discover(&mut self, id: TorrentId) {
        if self.phase != Phase::Running || self.finding.discovery.is_idle() {
            return;
        }
        let swarm = &self.swarms[id.0 as usize];
        // Before it is open, who comes would be refused, and come again much later. Who comes for a link is
        // asked for its metadata, and neighbours answer an announcement by theirs (BEP 14).
        let accepts = swarm.live.is_some() || swarm.is_asleep() || swarm.seeking.is_some();
        let need = self.need(swarm);
        for info_hash in swarm.metainfo.names() {
            let wanted = Wanted {
                info_hash,
                port: self.shared.listen.filter(|_| accepts).map(|address| address.port()),
                privacy: if swarm.metainfo.private { Privacy::Private } else { Privacy::Public },
                need,
            };
            self.finding.torrents.insert(info_hash, id);
            self.finding.discovery.want(wanted);
        }
    }

    /// One that is still being checked most likely lacks something if it is to be fetched.
    fn need(&self, swarm: &Swarm) -> Need {
        let peers = |live: &Live| -> u32 {
            live.shared.stats.iter().map(|stats| stats.peers.load(Ordering::Relaxed)).sum()
        };
        let wants = match &swarm.live {
            Some(live) => swarm.is_fetching() && peers(live) < PEERS_ENOUGH,
            None if swarm.seeking.is_some() => return Need::Metadata,
            None => matches!(self.config.role, Role::Get { .. }),
        };
        if wants { Need::Peers } else { Need::Presence }
    }

    pub(super) fn discovered(&mut self, news: News) {
        match news {
            News::Found(info_hash, source, peers) => {
                let Some(&id) = self.finding.torrents.get(&info_hash) else { return };
                let (now, me) = (clock::now(), self.shared.listen);
                let peers = peers.into_iter().filter(|&peer| !is_self(peer, me));
                let swarm = &mut self.swarms[id.0 as usize];
                swarm.note_peers_by((source, swarm.name_of(info_hash)), peers, now);
                self.agenda.set(id, Some(now));
            }
            News::External(address) => {
                tracing::info!("others see this host at {address}");
                let mut swarms = std::mem::take(&mut self.swarms);
                swarms.iter_mut().for_each(|swarm| self.know_own_address(swarm, Some(address)));
                self.swarms = swarms;
            }
            News::Ended => self.finding.discovery.handle_ended(),
        }
    }
}
