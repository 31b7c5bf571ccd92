//! Requests out, blocks in.

use crate::base::geometry::BlockRef;
use crate::base::ids::SlotId;
use crate::base::limits::{REQUEST_FRAMES_WAITING_MAX, SNUBBED_TIME, UNSOLICITED_BYTES_MAX};
use crate::base::time::Span;
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::proto::wire::message::Message;
use crate::shared::cache::Giver;

use super::claims::Claim;
use super::peer::Asked;
use super::session::{PeerMisbehaved, idle};
use super::*;

/// A block that a receive may be planned for: its header and payload are what should come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// As requested.
    pub block: BlockRef,
    /// Its chunk.
    pub chunk: u32,
    /// Its place in the chunk.
    pub index: u32,
    /// The slot it goes to.
    pub slot: SlotId,
    /// Where in the slot's payload area.
    pub offset: u32,
}

/// Where the payload behind a `piece` header goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// To its place.
    Into(Expected),
    /// Nowhere: it is a duplicate, or it was taken back.
    Discard,
}

/// A claim younger than this is never given to another core that idles.
const GIVE_AFTER: Span = Span::from_secs(2);

/// How often the other cores are told that this one idles.
const IDLE_TOLD_EVERY: Span = Span::from_ms(250);

impl Engine {
    /// Composes the next receive: up to `max` blocks that should come next, in order, into `out`;
    /// without `current`, the block that is half received. Each lands from this connection alone
    /// until `unland`, `handle_block` or its end.
    pub fn plan_receive(
        &mut self,
        conn: ConnId,
        current: Option<(u32, u32)>,
        max: usize,
        out: &mut Vec<Expected>,
    ) {
        let Some(peer) = self.peers.get(conn).filter(|peer| peer.is_open()) else { return };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_mut()) else {
            return;
        };
        let meta = &torrent.shared.meta;
        let next = peer.asked.iter().filter(|asked| current != Some((asked.chunk, asked.block)));
        for asked in next.take(max) {
            let Some(claim) = torrent.claims.get_mut(&asked.chunk) else { return };
            // A block that two connections race for lands when its header has come.
            let sole = claim.asked[asked.block as usize] == 1 && !claim.has(asked.block);
            if !sole || claim.releasing || !claim.land(asked.block, conn) {
                return;
            }
            out.push(Expected {
                block: meta.wanted_block(asked.chunk, asked.block),
                chunk: asked.chunk,
                index: asked.block,
                slot: claim.slot,
                offset: claim.residue + asked.block * BLOCK_BYTES,
            });
        }
    }

    /// A planned block did not come with this receive.
    pub fn unland(&mut self, conn: ConnId, chunk: u32, index: u32) {
        let Some(id) = self.peers.get(conn).and_then(|peer| peer.torrent) else { return };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(claim) = torrent.claims.get_mut(&chunk) else { return };
        claim.unland(index, conn);
        if claim.releasing && !claim.is_landing() {
            self.finish_release(id, chunk);
        }
    }

    /// A `piece` header came whose payload was not planned for.
    pub fn handle_piece_header(&mut self, conn: ConnId, block: BlockRef) -> Result<Landing, PeerMisbehaved> {
        let landing = self.piece_header(conn, block);
        if landing.is_err() {
            self.close(conn, Farewell::Misbehaved);
        }
        landing
    }

    fn piece_header(&mut self, conn: ConnId, block: BlockRef) -> Result<Landing, PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) else {
            return Ok(Landing::Discard);
        };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_mut()) else {
            return Ok(Landing::Discard);
        };
        let geometry = torrent.shared.meta.geometry;
        let (chunk, index) = (
            geometry.chunk_of(block.piece.min(geometry.piece_count()), block.begin),
            block.begin % CHUNK_BYTES / BLOCK_BYTES,
        );
        let is_one = geometry.contains(block) && torrent.shared.meta.wanted_block(chunk, index) == block;
        let place = peer.asked_index(chunk, index).filter(|_| is_one).or_else(|| {
            let claim = torrent.claims.get_mut(&chunk).filter(|_| is_one)?;
            peer.take_late(claim, chunk, index, self.ticked_at).inspect(|_| self.appetite.note_asked())
        });
        let waste = |bytes: u32| {
            let stats = &torrent.shared.stats[self.config.core.0 as usize];
            stats.received_bytes.add(bytes.into());
            stats.wasted_bytes.add(bytes.into());
        };
        let Some(place) = place else {
            waste(block.length);
            if peer.grace > 0 {
                peer.grace -= 1;
                if peer.come_back(self.ticked_at) {
                    self.hungry.push(conn);
                    self.food = true;
                }
            } else {
                peer.unsolicited_bytes += u64::from(block.length);
            }
            let over = peer.unsolicited_bytes > UNSOLICITED_BYTES_MAX;
            return if over { Err(PeerMisbehaved::Unsolicited) } else { Ok(Landing::Discard) };
        };
        if let Some(claim) = torrent.claims.get_mut(&chunk)
            && !claim.has(index)
            && !claim.releasing
            && claim.land(index, conn)
        {
            let offset = claim.residue + index * BLOCK_BYTES;
            return Ok(Landing::Into(Expected { block, chunk, index, slot: claim.slot, offset }));
        }
        // It came from another connection first, or is coming.
        waste(block.length);
        peer.asked.remove(place);
        self.appetite.note_gone(1);
        if let Some(claim) = torrent.claims.get_mut(&chunk) {
            claim.unask(index);
            if claim.landing(index).is_some() {
                claim.note_beaten(index);
            }
        }
        // Nothing else may ever come from it: the tick finds it something new.
        self.hungry.push(conn);
        Ok(Landing::Discard)
    }

    /// Whether a block that is half received may go on landing; if not the rest is discarded.
    pub fn still_lands(&self, conn: ConnId, chunk: u32, index: u32) -> bool {
        let asked = |peer: &Peer| peer.is_open() && peer.asked_index(chunk, index).is_some();
        self.peers.get(conn).is_some_and(asked)
    }

    /// A block has landed whole in its place.
    pub fn handle_block(&mut self, conn: ConnId, chunk: u32, index: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(id) = peer.torrent else { return };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(claim) = torrent.claims.get_mut(&chunk) else { return };
        let length = torrent.shared.meta.wanted_block(chunk, index).length;
        claim.unland(index, conn);
        let place = peer.asked_index(chunk, index);
        let Some(asked) = place.and_then(|place| peer.asked.remove(place)) else {
            // Taken back while it landed; a claim that is given up may have waited for just that.
            if claim.releasing && !claim.is_landing() {
                self.finish_release(id, chunk);
            }
            return;
        };
        self.appetite.note_gone(1);
        self.crumbs |= self.appetite.note_block();
        let pause = now.since(peer.block_at);
        peer.heard_at = now;
        peer.block_at = now;
        peer.snubbed_until = None;
        peer.received_bytes += u64::from(length);
        peer.pace.note_block(length, now.since(asked.at), pause);
        let stats = &torrent.shared.stats[self.config.core.0 as usize];
        web_seed::note_received(peer, stats, length);
        debug_assert!(!claim.has(index), "landing guards against a second copy");
        claim.unask(index);
        claim.got |= 1 << index;
        let giver = Giver { blame: peer.key, account: peer.account_key };
        self.cache.note_block(claim.slot, index, giver);
        let (rivals, full) = (claim.asked[index as usize] > 0, claim.is_full());
        if rivals {
            self.cancel_rivals(id, conn, chunk, index);
        }
        if full {
            self.claim_full(id, chunk);
            self.rank_again(conn);
        }
        self.ask_more(conn, now);
    }

    /// All blocks of a claim are there: its piece's owner hashes it.
    fn claim_full(&mut self, id: TorrentId, chunk: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        if let Some(claim) = torrent.claims.remove(&chunk) {
            self.counters.blocks_received.add(claim.blocks.into());
            torrent.note_collected(self.ticked_at.since(claim.since));
        }
        torrent.shared.chunks.fill(chunk);
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        let owner = picker::own_anyway(torrent, &self.cache, piece, self.config.core, self.rolled_at);
        if owner == self.config.core {
            self.chunk_filled(id, chunk);
        } else {
            let note = Note::Filled { torrent: id, chunk };
            self.actions.push_back(Action::Tell(To::Core(owner), note));
        }
    }

    /// The other connections that were asked for a block that has come.
    fn cancel_rivals(&mut self, id: TorrentId, winner: ConnId, chunk: u32, index: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let block = torrent.shared.meta.wanted_block(chunk, index);
        let mut told = Vec::new();
        for &conn in torrent.peers.iter().filter(|&&conn| conn != winner) {
            let Some(peer) = self.peers.get_mut(conn) else { continue };
            if let Some(place) = peer.asked_index(chunk, index) {
                peer.asked.remove(place);
                self.appetite.note_gone(1);
                peer.grace = peer.grace.saturating_add(1);
                Message::Cancel(block).encode(&mut peer.out.frames);
                told.push(conn);
            }
        }
        if let Some(claim) = torrent.claims.get_mut(&chunk) {
            claim.asked[index as usize] = 0;
        }
        for conn in told {
            self.hungry.push(conn);
            self.make_ready(conn);
        }
    }

    /// Keeps the peer's request queue filled.
    pub(super) fn ask_more(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let may_ask = peer.is_open() && peer.lets_ask() && peer.flags.interested && !peer.is_snubbed();
        // A web seed is asked for long ranges or for none.
        let most = if peer.is_web_seed() { usize::MAX } else { self.share_of_cache() };
        let depth = peer.depth().min(most);
        // Asking in batches of a quarter keeps sends few; what is outstanding covers the meantime.
        if !may_ask || self.stopping || peer.asked.len() > depth - depth.div_ceil(4) {
            return;
        }
        if peer.out.frames.len() > REQUEST_FRAMES_WAITING_MAX {
            // It does not read what it was sent; more would only fill our memory.
            self.hungry.push(conn);
            return;
        }
        let before = peer.asked.len();
        while self.peers.get(conn).is_some_and(|peer| peer.asked.len() < depth) {
            if !self.ask_one(conn, now) {
                self.stay_hungry(conn);
                break;
            }
        }
        if before == 0
            && let Some(peer) = self.peers.get_mut(conn)
        {
            peer.block_at = now;
        }
        self.make_ready(conn);
    }

    /// There was nothing to ask for now. While we are choked there never will be, once what we may ask for
    /// has come.
    fn stay_hungry(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else { return };
        peer.allowed.retain(|&piece| torrent.shared.lacks(piece));
        if peer.lets_ask() {
            self.hungry.push(conn);
        }
    }

    /// Asks for one more block; false if there is none to ask for or no leave to.
    fn ask_one(&mut self, conn: ConnId, now: Instant) -> bool {
        if !self.may_ask(conn) || !self.claim_ask(conn, now) {
            return false;
        }
        let block = self.next_block(conn, now).and_then(|(chunk, index)| self.ask(conn, chunk, index, now));
        self.put_ask_back(conn, BLOCK_BYTES - block.map_or(0, |block| block.length));
        block.is_some()
    }

    /// Takes a whole block of what limits the peer's blocks; false while that is shut.
    fn claim_ask(&mut self, conn: ConnId, now: Instant) -> bool {
        let Some(peer) = self.peers.get(conn) else { return false };
        let torrent = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_mut());
        let limit = torrent.and_then(|torrent| torrent.download.as_mut());
        self.ingress.claim(peer.locality(), limit, BLOCK_BYTES, now)
    }

    fn put_ask_back(&mut self, conn: ConnId, bytes: u32) {
        let Some(peer) = self.peers.get(conn).filter(|_| bytes > 0) else { return };
        let torrent = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_mut());
        self.ingress.put_back(peer.locality(), torrent.and_then(|torrent| torrent.download.as_mut()), bytes);
    }

    fn ask(&mut self, conn: ConnId, chunk: u32, index: u32, now: Instant) -> Option<BlockRef> {
        let peer = self.peers.get_mut(conn)?;
        let torrent = self.torrents[peer.torrent?.0 as usize].as_mut()?;
        let claim = torrent.claims.get_mut(&chunk)?;
        claim.asked[index as usize] += 1;
        peer.asked.push_back(Asked { chunk, block: index, at: now });
        self.appetite.note_asked();
        let block = torrent.shared.meta.wanted_block(chunk, index);
        Message::Request(block).encode(&mut peer.out.frames);
        Some(block)
    }

    /// The next block to ask the peer for: of its current chunk, of a new one, of one that other
    /// connections collect, or, when nothing else is left, one that is asked for already.
    fn next_block(&mut self, conn: ConnId, now: Instant) -> Option<(u32, u32)> {
        let peer = self.peers.get(conn)?;
        if !peer.flags.unchokes_us {
            return self.next_allowed(conn, now);
        }
        let id = peer.torrent?;
        let torrent = self.torrents[id.0 as usize].as_ref()?;
        let open = |chunk: u32| torrent.claims.get(&chunk).filter(|claim| claim.is_open_to(conn));
        let unasked = |chunk: u32| Some((chunk, open(chunk)?.next_unasked()?));
        if let Some(found) = peer.current.and_then(unasked) {
            return Some(found);
        }
        if let Some(chunk) = self.claim_for(conn, now) {
            self.peers.get_mut(conn)?.current = Some(chunk);
            self.ask_ahead(conn, chunk, now);
            let torrent = self.torrents[id.0 as usize].as_ref()?;
            return Some((chunk, torrent.claims.get(&chunk)?.next_unasked()?));
        }
        self.join(conn).inspect(|&(chunk, _)| self.ask_ahead(conn, chunk, now))
    }

    /// A block of a chunk that other connections of this core collect.
    fn join(&mut self, conn: ConnId) -> Option<(u32, u32)> {
        let peer = self.peers.get(conn)?;
        let torrent = self.torrents[peer.torrent?.0 as usize].as_ref()?;
        let open = |(chunk, claim): &(&u32, &Claim)| {
            claim.is_open_to(conn) && picker::has_chunk(torrent, peer, **chunk)
        };
        for (&chunk, claim) in torrent.claims.iter().filter(open) {
            if let Some(index) = claim.next_unasked() {
                self.peers.get_mut(conn)?.current = Some(chunk);
                return Some((chunk, index));
            }
        }
        self.race(conn)
    }

    pub(super) fn unchoked(&mut self, conn: ConnId, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if std::mem::replace(&mut peer.flags.unchokes_us, true) {
            // Said again it means nothing: who stalls gains no time by it, who floods no work of ours.
            return idle(peer);
        }
        peer.block_at = now;
        let first = !std::mem::replace(&mut peer.flags.has_unchoked, true);
        if first && let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) {
            torrent.shared.givers.join(&peer.bits);
        }
        self.ask_more(conn, now);
        if first {
            self.take_over_all(conn);
        }
        Ok(())
    }

    /// Without the fast extension a choke drops our requests; with it each is rejected by name.
    pub(super) fn choked(&mut self, conn: ConnId) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        peer.flags.unchokes_us = false;
        if !peer.fast {
            self.drop_requests(conn);
        }
        Ok(())
    }

    pub(super) fn rejected(&mut self, conn: ConnId, block: BlockRef) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        let Some(id) = peer.torrent else { return Ok(()) };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return Ok(()) };
        let geometry = torrent.shared.meta.geometry;
        if !geometry.contains(block) {
            return Err(PeerMisbehaved::NoSuchPiece);
        }
        let (chunk, index) =
            (geometry.chunk_of(block.piece, block.begin), block.begin % CHUNK_BYTES / BLOCK_BYTES);
        let Some(place) = peer.asked_index(chunk, index) else {
            // Taken back before it was rejected. Or never asked for.
            let Some(left) = peer.grace.checked_sub(1) else { return idle(peer) };
            peer.grace = left;
            return Ok(());
        };
        peer.asked.remove(place);
        self.appetite.note_gone(1);
        if peer.flags.unchokes_us {
            // It rejects what it announced: leave it alone for a while.
            peer.snubbed_until = Some(peer.block_at + SNUBBED_TIME);
        } else {
            // It was choked meanwhile, or takes back that we may ask for the piece while we are.
            peer.allowed.retain(|&piece| piece != block.piece);
        }
        if let Some(claim) = torrent.claims.get_mut(&chunk) {
            claim.unask(index);
        }
        let landing = torrent.claims.get(&chunk).is_some_and(|claim| claim.landing(index) == Some(conn));
        if landing {
            self.actions.push_back(Action::Interrupt(conn));
        }
        self.food = true;
        self.give_back(id, chunk);
        Ok(())
    }

    /// Takes back all requests to a peer: it choked us, stalls or leaves.
    pub(super) fn drop_requests(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let asked = std::mem::take(&mut peer.asked);
        peer.current = None;
        if asked.is_empty() {
            return;
        }
        self.appetite.note_gone(asked.len());
        peer.grace = peer.grace.saturating_add(asked.len() as u32);
        let Some(id) = peer.torrent else { return };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let mut chunks = Vec::new();
        for asked in asked {
            if let Some(claim) = torrent.claims.get_mut(&asked.chunk) {
                claim.unask(asked.block);
                chunks.push(asked.chunk);
            }
        }
        // What was planned to land there must not come any more; the close does it by itself.
        self.actions.push_back(Action::Interrupt(conn));
        chunks.dedup();
        for chunk in chunks {
            self.give_back(id, chunk);
        }
        self.food = true;
    }

    /// Releases a claim that no unchoked peer of this core can finish.
    fn give_back(&mut self, id: TorrentId, chunk: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let Some(claim) = torrent.claims.get(&chunk) else { return };
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        let can = |conn: &ConnId| {
            let gives = self.peers.get(*conn).is_some_and(|peer| peer.gives(piece));
            gives && claim.is_open_to(*conn)
        };
        if claim.asked.iter().all(|&count| count == 0) && !torrent.peers.iter().any(can) {
            self.release(id, chunk);
        }
    }

    /// Gives a claim up: what is outstanding is taken back, and once nothing lands any more the
    /// chunk is offered to all cores.
    pub(super) fn release(&mut self, id: TorrentId, chunk: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(claim) = torrent.claims.get_mut(&chunk) else { return };
        claim.releasing = true;
        claim.asked = [0; _];
        let landers: Vec<ConnId> = claim.landers().collect();
        let meta = &torrent.shared.meta;
        let mut told = Vec::new();
        for &conn in &torrent.peers {
            let Some(peer) = self.peers.get_mut(conn) else { continue };
            let before = peer.asked.len();
            let frames = &mut peer.out.frames;
            peer.asked.retain(|asked| {
                let keep = asked.chunk != chunk;
                if !keep {
                    Message::Cancel(meta.wanted_block(chunk, asked.block)).encode(frames);
                }
                keep
            });
            let cancelled = before - peer.asked.len();
            self.appetite.note_gone(cancelled);
            if cancelled > 0 {
                peer.grace = peer.grace.saturating_add(cancelled as u32);
                told.push(conn);
            }
        }
        let landing = !landers.is_empty();
        self.actions.extend(landers.into_iter().map(Action::Interrupt));
        for conn in told {
            self.hungry.push(conn);
            self.make_ready(conn);
        }
        if !landing {
            self.finish_release(id, chunk);
        }
    }

    /// Nothing lands in a claim that is given up: the chunk is Partial, or Empty if nothing came.
    pub(super) fn finish_release(&mut self, id: TorrentId, chunk: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(claim) = torrent.claims.remove(&chunk) else { return };
        assert!(!claim.is_landing());
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        if claim.giver.is_some() {
            // Only a whole piece of one giver is of use.
            let slot = torrent.shared.chunks.reset(chunk);
            self.cache.release(slot);
        } else if claim.got == 0 {
            let slot = torrent.shared.chunks.reset(chunk);
            self.cache.release(slot);
            // Some other core may have taken the piece off its list.
            self.forget_piece(id, piece);
            self.actions.push_back(Action::Tell(To::Others, Note::Missing { torrent: id, piece }));
        } else {
            torrent.shared.chunks.offer(chunk);
            torrent.offers.push(chunk);
            self.actions.push_back(Action::Tell(To::Others, Note::Offer { torrent: id, chunk }));
        }
        self.food = true;
    }

    /// Puts a piece back on the list of those to begin.
    pub(super) fn forget_piece(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        if !torrent.shared.wants(piece) {
            return;
        }
        torrent.missing.push(piece, torrent.shared.priority(piece));
        let gives = |conn: &&ConnId| self.peers.get(**conn).is_some_and(|peer| peer.bits.get(piece));
        let givers: Vec<ConnId> = torrent.peers.iter().filter(gives).copied().collect();
        for conn in givers {
            // Interest is taken back from a peer that has nothing we lack.
            if self.peers.get(conn).is_some_and(|peer| !peer.flags.interested) {
                self.become_interested(conn);
                self.hungry.push(conn);
            }
        }
        self.food = true;
    }

    pub(super) fn note_offer(&mut self, id: TorrentId, chunk: u32) {
        if let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) {
            torrent.offers.push(chunk);
            self.food = true;
        }
    }

    /// Another core idles: give it the claim that is oldest, if it is old.
    pub(super) fn offer_slowest(&mut self, id: TorrentId, now: Instant) {
        let Some(Some(torrent)) = self.torrents.get(id.0 as usize) else { return };
        let old = torrent.claims.iter().filter(|(_, claim)| {
            !claim.releasing && claim.giver.is_none() && now.since(claim.since) >= GIVE_AFTER
        });
        if let Some(chunk) = old.min_by_key(|(_, claim)| claim.since).map(|(&chunk, _)| chunk) {
            self.release(id, chunk);
        }
    }

    /// Tells the other cores when peers here have nothing left to do while pieces are missing.
    pub(super) fn tell_if_idle(&mut self, now: Instant) {
        // Whom only the appetite holds back idles for want of nothing that others could give up.
        if self.config.cores == 1 || self.appetite.is_short() {
            return;
        }
        let idle = self.hungry.iter().filter_map(|&conn| self.peers.get(conn));
        let torrents: Vec<TorrentId> =
            idle.filter(|peer| peer.asked.is_empty()).filter_map(|peer| peer.torrent).collect();
        for id in torrents {
            let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { continue };
            if torrent.wants_pieces() && now.since(torrent.idle_told_at) >= IDLE_TOLD_EVERY {
                torrent.idle_told_at = now;
                self.actions.push_back(Action::Tell(To::Others, Note::Idle { torrent: id }));
            }
        }
    }
}
