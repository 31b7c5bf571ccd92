//! Torrents of which only a magnet link is known. They stand among the others from the beginning: trackers
//! are asked and peers are named for them by the same ways (`Swarm::note_peers`). Peers that come up are
//! connected to for their metadata alone, and those that connect to us are asked for it, too: the cores pass
//! them on. Once it is there the torrent starts like any other.

use std::path::Path;

use tokio::sync::{SemaphorePermit, TryAcquireError};

use super::*;
use crate::base::human::format_size;
use crate::base::ids::InfoHash;
use crate::base::limits::{
    METADATA_CALLERS_OF_ALL_MAX, METADATA_CALLERS_QUEUED_MAX, METADATA_CONNECTIONS_MAX,
};
use crate::daemon::cache_size::least_bytes;
use crate::daemon::magnet::{Call, Called, Opening, Said, converse};
use crate::daemon::mse::methods;
use crate::daemon::remembering;
use crate::daemon::seeking::{Line, SeekAction, Seeking, has_its_places};
use crate::engine::action::{Farewell, Note};
use crate::engine::fetch::PeerNumber;
use crate::engine::identity::Identity;
use crate::engine::metadata_fetch::Hoard;
use crate::engine::peer::Origin;
use crate::engine::versions::Name;
use crate::proto::metainfo::{self, Bare, Metainfo, MetainfoError};
use crate::proto::text;
use crate::proto::wire::handshake::Handshake;

/// What became of a link.
pub(super) type Found = Result<metainfo::Found, String>;

/// Connections for metadata, over all links.
#[derive(Debug)]
pub(super) struct Places {
    /// Of those whom we dial.
    dialled: Semaphore,
    /// Of those who came to us.
    callers: Semaphore,
    /// What they gave.
    hoard: Hoard,
}

impl Places {
    /// All are free.
    pub(super) fn new() -> Self {
        let (dialled, callers) = (METADATA_CONNECTIONS_MAX, METADATA_CALLERS_OF_ALL_MAX);
        let (dialled, callers) = (Semaphore::new(dialled), Semaphore::new(callers));
        Self { dialled, callers, hoard: Hoard::default() }
    }

    /// Waits for a place.
    async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.dialled.acquire().await.ok()
    }

    /// A place, if nobody waits for one.
    pub(super) fn take(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.dialled.try_acquire()
    }

    /// A place for who came.
    fn enter(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.callers.try_acquire()
    }
}

/// Keeps what the link of this first hash names for later starts.
pub(super) fn keep(state: &StateDir, (dir, role): (&Path, Role), link: InfoHash, whole: &Metainfo) {
    let torrent = whole.to_torrent();
    let mut kept = state.keep_torrent(link, &torrent);
    if role == Role::Relay {
        // A start without SOURCE knows it, too.
        let library = state.library(dir);
        let known = library.and_then(|mut library| library.remember(whole.info_hash, &torrent));
        kept = kept.and_then(|()| known.map(|_| ()));
    }
    if let Err(error) = kept {
        tracing::warn!("the next start has to find this metadata again: {error}");
    }
}

impl Control<'_> {
    /// The same with peers that come for links.
    pub fn with_callers(mut self, callers: Receiver<Called>) -> Self {
        self.callers = callers;
        self
    }

    /// Starts a torrent, or begins to look for the metadata of a link.
    pub(super) fn begin_torrent(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        // What a link named by its v2 hash was found to be has a v1 hash, too.
        let names = Arc::clone(&swarm.metainfo);
        let named = self.config.link_peers.iter().filter(|(of, _)| names.names().any(|name| name == *of));
        swarm.note_peers(Source::Operator, named.map(|&(_, peer)| peer), now);
        match swarm.metainfo.is_awaited() {
            true => {
                swarm.seeking =
                    Some(Box::new(Seeking::new(swarm.metainfo.topics(), self.seek_places.hoard.clone())));
                self.note_sought(id);
            }
            false => self.begin_start(id, true),
        }
    }

    /// Dials whom we know of, and does what time asks for.
    pub(super) fn seek(&mut self, id: TorrentId, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let listens_at = self.shared.listen.map(|address| address.port());
        let swarm = &mut self.swarms[id.0 as usize];
        let [first, second] = [Name::First, Name::Second].map(|name| swarm.hash_of(name));
        let Some(seeking) = &mut swarm.seeking else { return };
        while let Some(address) = seeking.has_room().then(|| swarm.roster.candidates.poll_dial(now)).flatten()
        {
            let (requests, inbox) = unbounded_channel();
            let name = seeking.layers_name.unwrap_or_else(|| match swarm.roster.candidates.name(address) {
                Name::First => first,
                Name::Second => second,
            });
            let origin = Origin::Outgoing;
            let number = seeking.begin(Line { address, origin, name, requests, ready: false });
            let manner = (swarm.roster.candidates.manner(address), methods(self.config.encryption));
            let peer_id = self.shared.peer_id;
            let ours = Call { info_hash: name, their_hash: name, peer_id, port: listens_at };
            let again = seeking.layers_name.and_then(|name| Call::once_more(name).ok());
            let call = again.unwrap_or(ours);
            let (places, tell) = (Rc::clone(&self.seek_places), self.tell.clone());
            tokio_uring::spawn(async move {
                let _place = places.wait().await;
                let say = |said| drop(tell.send(Event::Said(id, number, said)));
                converse(Opening::Dial(address, manner), call, inbox, say).await;
            });
        }
        seeking.handle_tick(now);
        self.carry_out(id, now);
    }

    /// All that came: the queue is short, and who finds it full is hung up on.
    pub(super) fn handle_callers(&mut self, first: Called) {
        self.called(first);
        for _ in 1..METADATA_CALLERS_QUEUED_MAX {
            let Ok(called) = self.callers.try_recv() else { return };
            self.called(called);
        }
    }

    /// A peer came for a link: it is asked as one that we dial, if there is a place. Who is not taken is hung
    /// up on.
    fn called(&mut self, (id, caller): Called) {
        let links = self.swarms.iter().filter_map(|swarm| swarm.seeking.as_deref());
        if has_its_places(links, caller.address.ip(), &self.config.grouping) {
            return;
        }
        let swarm = &mut self.swarms[id.0 as usize];
        let seeking = swarm.seeking.as_mut().filter(|_| self.phase == Phase::Running);
        let (Some(seeking), Ok(Some(theirs))) = (seeking, Handshake::parse(&caller.heard)) else { return };
        let address = caller.address;
        let Some(name) = seeking.admit(address.ip(), &theirs, &self.config.grouping) else { return };
        let (requests, inbox) = unbounded_channel();
        let origin = Origin::Incoming;
        let number = seeking.begin(Line { address, origin, name, requests, ready: false });
        let call = Call {
            info_hash: name,
            their_hash: theirs.info_hash,
            peer_id: self.shared.peer_id,
            port: self.shared.listen.map(|address| address.port()),
        };
        let (places, tell) = (Rc::clone(&self.seek_places), self.tell.clone());
        tokio_uring::spawn(async move {
            let say = |said| drop(tell.send(Event::Said(id, number, said)));
            match places.enter() {
                Ok(_place) => converse(Opening::Called(caller), call, inbox, say).await,
                Err(_) => say(Said::Gone(Farewell::Gone)),
            }
        });
    }

    /// Has all cores keep out whoever is at an address, as if it had given wrong blocks.
    fn ban(&mut self, address: SocketAddr) {
        let key = Identity::of(address, &self.config.grouping, self.state.party_secret()).key;
        for worker in &mut self.workers {
            worker.send(ToWorker::Note(Note::Ban { key }));
        }
    }

    /// A peer told something.
    pub(super) fn said(&mut self, id: TorrentId, number: PeerNumber, said: Said) {
        let now = clock::now();
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(seeking) = &mut swarm.seeking else { return };
        match seeking.note(number, said, now) {
            Some(SeekAction::Gone(address, why)) => swarm.roster.handle_gone(None, address, why, now),
            // Its dial is over, and must not count as one: others could not be dialled.
            Some(SeekAction::SetAside(address)) => swarm.roster.candidates.handle_connected(address),
            _ => {}
        }
        self.carry_out(id, now);
    }

    fn carry_out(&mut self, id: TorrentId, now: Instant) {
        loop {
            let swarm = &mut self.swarms[id.0 as usize];
            let next = swarm.seeking.as_mut().and_then(|seeking| seeking.poll_action());
            let Some(action) = next else { return };
            match action {
                SeekAction::Ban(address) => self.ban(address),
                SeekAction::Gone(address, why) => swarm.roster.handle_gone(None, address, why, now),
                SeekAction::SetAside(address) => swarm.roster.candidates.handle_connected(address),
                SeekAction::Info(info) => return self.settle(id, move |link| link.found(&info)),
                SeekAction::Torn => {
                    let why = "its btih and its btmh are not of one torrent: get the link again from where \
                               it came, or leave out the one that is wrong";
                    return self.found(id, Err(why.to_owned()));
                }
                SeekAction::Layers(bare, layers) => {
                    if layers.is_none() {
                        let name = swarm.metainfo.name.escape_debug();
                        tracing::warn!("nobody gives the piece layers of {name}: it goes on by its v1 part");
                    }
                    let make = move |link: &Metainfo| link.found_with(&bare, layers.as_ref());
                    return self.settle(id, move |link| Ok(metainfo::Found::Whole(Box::new(make(link)?))));
                }
            }
        }
    }

    /// Has `make` check what was found, and keeps it if it is whole, on the blocking pool.
    fn settle(
        &self,
        id: TorrentId,
        make: impl FnOnce(&Metainfo) -> Result<metainfo::Found, MetainfoError> + Send + 'static,
    ) {
        let link = Arc::clone(&self.swarms[id.0 as usize].metainfo);
        let (state, dir, role) = (Arc::clone(&self.state), self.config.dir.clone(), self.config.role);
        let tell = self.tell.clone();
        tokio_uring::spawn(async move {
            let work = move || {
                let found = make(&link).map_err(|error| error.to_string())?;
                if let metainfo::Found::Whole(whole) = &found {
                    keep(&state, (&dir, role), link.info_hash, whole);
                }
                Ok(found)
            };
            let found = tokio::task::spawn_blocking(work).await;
            let found = found.unwrap_or_else(|error| Err(error.to_string()));
            let _ = tell.send(Event::Found(id, found));
        });
    }

    /// What a link names is known: it starts, unless its piece layers are missing, or it cannot be used.
    pub(super) fn found(&mut self, id: TorrentId, found: Found) {
        let whole = match found {
            Ok(metainfo::Found::Bare(bare)) => return self.await_layers(id, bare),
            Ok(metainfo::Found::Whole(whole)) => Ok(Arc::new(*whole)),
            Err(why) => Err(why),
        };
        let now = clock::now();
        let swarm = &mut self.swarms[id.0 as usize];
        for address in swarm.seeking.take().into_iter().flat_map(|seeking| seeking.part()) {
            swarm.roster.candidates.handle_parted(address, now);
        }
        let whole = whole.and_then(|metainfo: Arc<Metainfo>| {
            self.check_cache(&metainfo)?;
            let wanted = self.config.choose_files(&metainfo)?;
            let wanted = remembering::settle(&self.state, &self.config, &metainfo, wanted);
            Ok((metainfo, wanted))
        });
        let swarm = &mut self.swarms[id.0 as usize];
        match whole {
            Ok((metainfo, wanted)) => {
                swarm.wanted = wanted;
                self.memory.keep_room_for(least_bytes(metainfo.geometry.chunks_per_piece()));
                tracing::info!("found the metadata of {}", metainfo.name.escape_debug());
                if let Some(mse) = &self.mse {
                    metainfo.names().for_each(|name| mse.know(name));
                }
                swarm.roster.candidates.handle_metadata(now);
                swarm.begin_found(Arc::clone(&metainfo), now);
                self.track(id, &metainfo);
                self.note_found(id);
                if self.phase == Phase::Running {
                    // Who came meanwhile waits for it to be open: asleep it would have to be asked for anew.
                    self.begin_start(id, false);
                }
            }
            Err(why) => {
                let name = text::escape(swarm.metainfo.name.as_bytes(), 255);
                self.torrent_failed(id, NodeError::Metadata { name, why });
            }
        }
    }

    /// An info dictionary was found and checked, and peers have to give its piece layers, too (BEP 52).
    fn await_layers(&mut self, id: TorrentId, bare: Box<Bare>) {
        let now = clock::now();
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(seeking) = &mut swarm.seeking else { return };
        tracing::info!("looking for the piece layers of {}", swarm.metainfo.name.escape_debug());
        let candidates = &mut swarm.roster.candidates;
        if bare.private {
            // Whoever named peers did not know, and is not listened to from here on.
            candidates.forget_public();
            swarm.metainfo = Arc::new(Metainfo { private: true, ..Metainfo::clone(&swarm.metainfo) });
        }
        let private = bare.private;
        let may_stay = |line: &Line| match line.origin {
            Origin::Incoming => !private,
            _ => candidates.knows(line.address),
        };
        for address in seeking.begin_layers(Arc::from(bare), may_stay, now) {
            candidates.handle_parted(address, now);
        }
        swarm.peer_at = now;
        self.seek(id, now);
    }

    /// The cache was made before anybody knew how long the pieces are.
    fn check_cache(&self, metainfo: &Metainfo) -> Result<(), String> {
        let least = least_bytes(metainfo.geometry.chunks_per_piece());
        if least <= self.memory.status().full_bytes {
            return Ok(());
        }
        let (piece, least) = (format_size(metainfo.geometry.piece_bytes.into()), format_size(least));
        Err(format!(
            "its pieces of {piece} need a cache of {least}: start again, now that they are known the cache \
             will have room for them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p30_over_all_links_who_came_and_whom_we_dial_have_places_of_their_own() {
        let places = Places::new();
        let mut came: Vec<_> = (0..METADATA_CALLERS_OF_ALL_MAX).map(|_| places.enter().unwrap()).collect();
        assert!(places.enter().is_err());
        let taken: Vec<_> = (0..METADATA_CONNECTIONS_MAX).map(|_| places.take().unwrap()).collect();
        assert!(places.take().is_err());
        drop(came.pop());
        assert!(places.take().is_err() && places.enter().is_ok(), "one left, one may come");
        drop(taken);
    }
}
