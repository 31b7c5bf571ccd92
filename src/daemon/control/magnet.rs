//! Torrents of which only a magnet link is known. They stand among the others from the beginning: trackers
//! are asked and peers are named for them by the same ways (`Swarm::note_peers`). Peers that come up are
//! connected to for their metadata alone; once it is there the torrent starts like any other.

use tokio::sync::Semaphore;

use super::*;
use crate::base::human::format_size;
use crate::base::limits::METADATA_CONNECTIONS_MAX;
use crate::daemon::cache_size::least_bytes;
use crate::daemon::magnet::{Call, Said, converse};
use crate::daemon::remembering;
use crate::daemon::seeking::{Line, Seeking, farewell};
use crate::engine::metadata_fetch::{FetchAction, PeerNumber};
use crate::proto::metainfo::Metainfo;
use crate::proto::text;

/// What became of a link.
pub(super) type Found = Result<Arc<Metainfo>, String>;

/// Connections for metadata, over all links.
pub(super) fn places() -> Rc<Semaphore> {
    Rc::new(Semaphore::new(METADATA_CONNECTIONS_MAX))
}

impl Control<'_> {
    /// Starts a torrent, or begins to look for the metadata of a link.
    pub(super) fn begin_torrent(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        let hash = swarm.metainfo.info_hash;
        let named = self.config.link_peers.iter().filter(|(of, _)| *of == hash).map(|&(_, peer)| peer);
        swarm.note_peers(Source::Operator, named, now);
        match swarm.metainfo.is_awaited() {
            true => swarm.seeking = Some(Box::new(Seeking::new(hash))),
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
        let Some(seeking) = &mut swarm.seeking else { return };
        while let Some(address) = seeking.has_room().then(|| swarm.roster.candidates.poll_dial(now)).flatten()
        {
            let (requests, inbox) = unbounded_channel();
            let number = seeking.begin(Line { address, requests });
            let call = Call {
                address,
                info_hash: swarm.metainfo.info_hash,
                peer_id: self.shared.peer_id,
                port: listens_at,
            };
            let (places, tell) = (Rc::clone(&self.seek_places), self.tell.clone());
            tokio_uring::spawn(async move {
                // Never closed.
                let _place = places.acquire().await.ok();
                converse(call, inbox, |said| drop(tell.send(Event::Said(id, number, said)))).await;
            });
        }
        seeking.fetch.handle_tick(now);
        self.carry_out(id, now);
    }

    /// A peer told something.
    pub(super) fn said(&mut self, id: TorrentId, number: PeerNumber, said: Said) {
        let now = clock::now();
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(seeking) = &mut swarm.seeking else { return };
        // Of one that we have parted from nothing is listened to any more.
        if !seeking.lines.contains_key(&number) {
            return;
        }
        if let Some((address, why)) = seeking.note(number, said, now) {
            swarm.roster.handle_gone(None, address, why, now);
        }
        self.carry_out(id, now);
    }

    fn carry_out(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(seeking) = &mut swarm.seeking else { return };
        let mut whole = None;
        while let Some(action) = seeking.fetch.poll_action() {
            match action {
                FetchAction::Request(peer, piece) => {
                    if let Some(line) = seeking.lines.get(&peer) {
                        let _ = line.requests.send(piece);
                    }
                }
                FetchAction::Drop(peer, fault) => {
                    seeking.fault = Some(fault);
                    if let Some(line) = seeking.lines.remove(&peer) {
                        tracing::debug!("{} {fault}", line.address);
                        swarm.roster.handle_gone(None, line.address, farewell(fault), now);
                    }
                }
                FetchAction::Done(bytes) => whole = Some(bytes),
            }
        }
        if let Some(info) = whole {
            for line in std::mem::take(&mut seeking.lines).into_values() {
                swarm.roster.candidates.handle_parted(line.address, now);
            }
            self.settle_metadata(id, info);
        }
    }

    /// Checks and keeps what was found, on the blocking pool.
    fn settle_metadata(&self, id: TorrentId, info: Vec<u8>) {
        let link = Arc::clone(&self.swarms[id.0 as usize].metainfo);
        let (state, dir, role) = (Arc::clone(&self.state), self.config.dir.clone(), self.config.role);
        let tell = self.tell.clone();
        tokio_uring::spawn(async move {
            let work = move || {
                let found = link.found(&info).map_err(|error| error.to_string())?;
                let mut kept = state.keep_info(link.info_hash, &info);
                if role == Role::Relay {
                    // A start without SOURCE knows it, too.
                    let library = state.library(&dir);
                    let torrent = found.to_torrent();
                    let known = library.and_then(|mut library| library.remember(link.info_hash, &torrent));
                    kept = kept.and_then(|()| known.map(|_| ()));
                }
                if let Err(error) = kept {
                    tracing::warn!("the next start has to find this metadata again: {error}");
                }
                Ok(Arc::new(found))
            };
            let found = tokio::task::spawn_blocking(work).await;
            let found = found.unwrap_or_else(|error| Err(error.to_string()));
            let _ = tell.send(Event::Found(id, found));
        });
    }

    /// The torrent of a link is known: it starts, unless it cannot be used.
    pub(super) fn found(&mut self, id: TorrentId, found: Found) {
        let swarm = &mut self.swarms[id.0 as usize];
        swarm.seeking = None;
        let found = found.and_then(|metainfo| {
            self.check_cache(&metainfo)?;
            let wanted = self.config.choose_files(&metainfo)?;
            let wanted = remembering::settle(&self.state, &self.config, &metainfo, wanted);
            Ok((metainfo, wanted))
        });
        let swarm = &mut self.swarms[id.0 as usize];
        match found {
            Ok((metainfo, wanted)) => {
                swarm.wanted = wanted;
                self.memory.keep_room_for(least_bytes(metainfo.geometry.chunks_per_piece()));
                tracing::info!("found the metadata of {}", metainfo.name.escape_debug());
                swarm.roster.candidates.set_encryption(self.config.encryption);
                swarm.begin_found(metainfo, clock::now());
                if self.phase == Phase::Running {
                    self.begin_start(id, true);
                }
            }
            Err(why) => {
                let name = text::escape(swarm.metainfo.name.as_bytes(), 255);
                self.torrent_failed(id, NodeError::Metadata { name, why });
            }
        }
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
