//! Which chunk to ask a peer for.
//!
//! In order: a chunk of a piece on parole (`parole.rs`); a chunk that some core gave back; a chunk of a piece
//! that is begun, so that pieces get whole; the rarest of a sample of the most wanted missing pieces, with a
//! random start, so that equally rare ones differ between nodes. Chunks are claimed in the shared table: two
//! cores never collect one.
//!
//! A seed is asked for what only seeds have before it is asked for the rest of a piece that was begun from
//! somebody else: pieces of several chunks came from it twice and more.
//!
//! Of equally rare pieces a node prefers its own: those for which its peer id, hashed with the piece,
//! beats the ids of all others that lack pieces (rendezvous hashing, Thaler and Ravishankar 1998). All nodes
//! of a swarm know the same ids, so without a word they ask a seed for different pieces.

use super::claims::Claim;
use super::torrent::Torrent;
use super::*;
use crate::base::limits::CHUNKS_WRITING_MAX;
use crate::base::priority::Priority;
use crate::shared::cache::Growth;
use crate::shared::chunks::{ChunkState, HEAT_MAX};

/// Missing pieces that are compared before one is begun. Among 128 drawn at random the rarest is
/// with 99.9 % certainty in the rarest 5.3 %.
const SAMPLE: usize = 128;

/// Missing pieces that are looked at for that.
const LOOKS_MAX: usize = 32 * SAMPLE;

impl Engine {
    /// Claims a chunk that `conn` can give blocks of. `None`: nothing unclaimed that the peer has, or
    /// no free slot.
    pub(super) fn claim_for(&mut self, conn: ConnId, now: Instant) -> Option<u32> {
        let peer = self.peers.get(conn)?;
        let id = peer.torrent?;
        let core = self.config.core;
        let torrent = self.torrents[id.0 as usize].as_mut()?;
        let on_parole = !torrent.paroles.is_empty();
        if !torrent.wants_pieces() || self.chunks_writing >= CHUNKS_WRITING_MAX {
            return None;
        }
        if on_parole && let Some(chunk) = self.claim_paroled(conn, now) {
            return Some(chunk);
        }
        let peer = self.peers.get(conn)?;
        let torrent = self.torrents[id.0 as usize].as_mut()?;
        if let Some(at) = torrent.offers.as_slice().iter().rposition(|&chunk| has_chunk(torrent, peer, chunk))
        {
            let chunk = torrent.offers.swap_remove(at);
            if let Some(slot) = torrent.shared.chunks.claim_partial(chunk) {
                let got = self.cache.got(slot);
                open_claim(torrent, chunk, slot, got, None, now);
                return Some(chunk);
            }
        }
        let begun = begun_chunk(torrent, &self.cache, peer);
        let sequential = self.config.sequential;
        if let Some(begun) = begun.filter(|begun| !begun.may_wait || sequential) {
            return self.claim_empty(id, begun.chunk, None, now);
        }
        let rivals = Rivals::of(self.config.peer_id, torrent, &self.peers);
        let torrent = self.torrents[id.0 as usize].as_mut()?;
        let rng = &mut self.rng;
        let piece = pick_missing(torrent, &self.cache, peer, rng, sequential, &rivals);
        let piece = piece.filter(|&piece| begun.is_none_or(|begun| begun.waits_for(torrent, piece)));
        let begins = piece.is_some_and(|piece| own(torrent, &self.cache, piece, core, now));
        let Some(piece) = piece.filter(|_| begins) else {
            return self.claim_empty(id, begun?.chunk, None, now);
        };
        let chunk = first_empty_chunk(torrent, &self.cache, piece)?;
        if torrent.shared.meta.geometry.chunks_per_piece() > 1 {
            torrent.begun.push(piece);
        }
        self.claim_empty(id, chunk, None, now)
    }

    /// Whether nothing new is claimed because what would come now could only wait in memory.
    pub(super) const fn is_disk_behind(&self) -> bool {
        self.chunks_writing >= CHUNKS_WRITING_MAX
    }

    /// Claims an empty chunk: for anybody who has it, or for `giver` alone.
    pub(super) fn claim_empty(
        &mut self,
        id: TorrentId,
        chunk: u32,
        giver: Option<ConnId>,
        now: Instant,
    ) -> Option<u32> {
        let slot = self.allocate(id, chunk)?;
        let torrent = self.torrents[id.0 as usize].as_mut()?;
        if !torrent.shared.chunks.claim_empty(chunk, slot) {
            self.cache.release(slot);
            return None;
        }
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        if torrent.shared.has(piece) || giver.is_none() && torrent.shared.is_restricted(piece) {
            // Verified by another core in the meantime, then evicted, or failed there and put on
            // parole: nothing to collect.
            let slot = torrent.shared.chunks.reset(chunk);
            self.cache.release(slot);
            return None;
        }
        if torrent.shared.owner(piece).is_none() {
            own_anyway(torrent, &self.cache, piece, self.config.core, now);
        }
        open_claim(torrent, chunk, slot, 0, giver, now);
        Some(chunk)
    }

    pub(super) fn allocate(&self, id: TorrentId, chunk: u32) -> Option<crate::base::ids::SlotId> {
        // Who fetches for others keeps what it fetched; who fetches for itself reuses its memory.
        let growth = if self.leeches > 0 { Growth::Early } else { Growth::Late };
        self.cache.allocate((id, chunk), growth, |id| {
            self.torrents.get(id.0 as usize)?.as_ref().map(|torrent| &torrent.shared.chunks)
        })
    }
}

/// Others that lack pieces and may ask for the same ones, by their peer ids.
struct Rivals {
    own: u64,
    ids: [u64; RIVALS_MAX],
    count: usize,
}

/// Rivals that are compared with; in a larger swarm pieces are shared out less strictly.
const RIVALS_MAX: usize = 64;

/// Connections that are looked at for them: most may be seeds.
const RIVALS_LOOKS_MAX: usize = 4 * RIVALS_MAX;

impl Rivals {
    fn of(own: PeerId, torrent: &Torrent, peers: &Peers) -> Self {
        let mut rivals = Self { own: number(own), ids: [0; RIVALS_MAX], count: 0 };
        let looked_at = torrent.peers.iter().take(RIVALS_LOOKS_MAX).filter_map(|&conn| peers.get(conn));
        let lacking = looked_at.filter(|peer| !peer.is_seed() && !peer.is_web_seed());
        for (place, peer) in rivals.ids.iter_mut().zip(lacking) {
            *place = number(peer.peer_id);
            rivals.count += 1;
        }
        rivals
    }

    /// Whether all rivals leave the piece to us.
    fn leave(&self, piece: u32) -> bool {
        let ours = mix(self.own, piece);
        self.ids[..self.count].iter().all(|&id| mix(id, piece) <= ours)
    }
}

/// The part of a peer id that clients choose at random: its end.
const fn number(id: PeerId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The finaliser of SplitMix64.
const fn mix(id: u64, piece: u32) -> u64 {
    let mut word = id ^ (piece as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Makes `core` the owner of a piece that nobody owns, if the cache has room for all of it. True if
/// the piece has an owner now.
pub(super) fn own(torrent: &mut Torrent, cache: &Cache, piece: u32, core: CoreId, now: Instant) -> bool {
    let slots = torrent.shared.meta.geometry.chunks_per_piece();
    if torrent.shared.owner(piece).is_some() {
        return true;
    }
    if !cache.reserve(slots) {
        return false;
    }
    if torrent.shared.own_piece(piece, core) == core {
        torrent.owned.insert(piece, now);
    } else {
        cache.unreserve(slots);
    }
    true
}

/// The owner of a piece of which chunks are there: `core`, if it has none.
pub(super) fn own_anyway(
    torrent: &mut Torrent,
    cache: &Cache,
    piece: u32,
    core: CoreId,
    now: Instant,
) -> CoreId {
    let slots = torrent.shared.meta.geometry.chunks_per_piece();
    if let Some(owner) = torrent.shared.owner(piece) {
        return owner;
    }
    cache.reserve_anyway(slots);
    let owner = torrent.shared.own_piece(piece, core);
    if owner == core {
        torrent.owned.insert(piece, now);
    } else {
        cache.unreserve(slots);
    }
    owner
}

/// A chunk of a begun piece.
#[derive(Clone, Copy)]
struct Begun {
    piece: u32,
    chunk: u32,
    /// The peer is a seed, and somebody else gives the piece who is none.
    may_wait: bool,
}

impl Begun {
    /// Whether a missing piece is rather to be asked for: no less wanted, and only seeds give it.
    fn waits_for(&self, torrent: &Torrent, missing: u32) -> bool {
        let class = |piece| torrent.shared.priority(piece).class();
        class(missing) <= class(self.piece) && !torrent.shared.givers.is_with_leeches(missing)
    }
}

/// A chunk of a begun piece that the peer has and nobody collects: of a seed, rather one that only seeds
/// give. Pieces that are wholly claimed leave the list when they are met.
fn begun_chunk(torrent: &mut Torrent, cache: &Cache, peer: &Peer) -> Option<Begun> {
    let (mut at, mut tries, mut second) = (torrent.begun.len(), 0, None);
    while at > 0 && tries < SAMPLE {
        (at, tries) = (at - 1, tries + 1);
        let piece = torrent.begun[at];
        match first_empty_chunk(torrent, cache, piece) {
            None => drop(torrent.begun.swap_remove(at)),
            Some(chunk) if peer.bits.get(piece) => {
                let may_wait = peer.is_seed() && torrent.shared.givers.is_with_leeches(piece);
                let found = Begun { piece, chunk, may_wait };
                if !may_wait {
                    return Some(found);
                }
                second = second.or(Some(found));
            }
            Some(_) => {}
        }
    }
    second
}

fn open_claim(
    torrent: &mut Torrent,
    chunk: u32,
    slot: crate::base::ids::SlotId,
    got: claims::BlockMask,
    giver: Option<ConnId>,
    now: Instant,
) {
    let meta = &torrent.shared.meta;
    let mut claim = Claim::new(slot, meta.residue(chunk), meta.wanted_blocks(chunk), got, now);
    claim.giver = giver;
    let old = torrent.claims.insert(chunk, claim);
    assert!(old.is_none(), "chunk {chunk} claimed twice");
}

/// Whether the peer has the piece of `chunk`.
pub(super) fn has_chunk(torrent: &Torrent, peer: &Peer, chunk: u32) -> bool {
    peer.bits.get(torrent.shared.meta.geometry.chunk_piece(chunk))
}

/// The first chunk of `piece` that nobody collects or holds and anybody may collect.
pub(super) fn first_empty_chunk(torrent: &Torrent, cache: &Cache, piece: u32) -> Option<u32> {
    if !torrent.shared.lacks(piece) || torrent.shared.is_restricted(piece) {
        return None;
    }
    empty_chunk(torrent, cache, piece)
}

/// The first chunk of `piece`, which is missing, that nobody collects or holds.
pub(super) fn empty_chunk(torrent: &Torrent, cache: &Cache, piece: u32) -> Option<u32> {
    chunks(torrent, piece).find(|&chunk| match torrent.shared.chunks.view(chunk).state {
        ChunkState::Empty => true,
        ChunkState::Ready => empty_lost(torrent, cache, chunk),
        _ => false,
    })
}

/// Empties a chunk that was read before another chunk of its piece turned out to be wrong on disk:
/// the piece is collected anew from end to end. Not while a send holds it.
fn empty_lost(torrent: &Torrent, cache: &Cache, chunk: u32) -> bool {
    let slot = torrent.shared.chunks.evict(chunk, HEAT_MAX);
    if let Some(slot) = slot {
        cache.release(slot);
    }
    slot.is_some()
}

/// Whether chunks of a missing piece are held from before it was lost: it must be met again.
fn is_held(torrent: &Torrent, piece: u32) -> bool {
    let held =
        |chunk| matches!(torrent.shared.chunks.view(chunk).state, ChunkState::Ready | ChunkState::Loading);
    !torrent.shared.has(piece) && chunks(torrent, piece).any(held)
}

/// Chunks of a piece that are to be collected.
pub(super) fn chunks(torrent: &Torrent, piece: u32) -> impl Iterator<Item = u32> {
    torrent.shared.meta.wanted_chunks(piece)
}

/// What is picked of the most wanted pieces of which anything is.
fn pick_missing(
    torrent: &mut Torrent,
    cache: &Cache,
    peer: &Peer,
    rng: &mut Rng,
    sequential: bool,
    rivals: &Rivals,
) -> Option<u32> {
    // Where all are wanted alike there is one list.
    let only = Priority::Normal.class();
    let mut classes =
        if torrent.shared.wanted.is_some() { 0..Priority::CLASSES.len() } else { only..only + 1 };
    classes.find_map(|class| pick_of_class(torrent, class, cache, peer, rng, (sequential, rivals)))
}

/// The rarest of a sample of missing pieces that the peer has and that has an unclaimed chunk.
/// Pieces that are done or wholly claimed leave the list when they are met.
fn pick_of_class(
    torrent: &mut Torrent,
    class: usize,
    cache: &Cache,
    peer: &Peer,
    rng: &mut Rng,
    (sequential, rivals): (bool, &Rivals),
) -> Option<u32> {
    let mut best: Option<((u32, bool), u32)> = None;
    let all = torrent.missing.class(class).as_slice().len();
    let mut at = if sequential { all.wrapping_sub(1) } else { rng.below(all as u32) as usize };
    let (mut seen, mut fits) = (0, 0);
    // A peer that has hardly any of them is not worth a walk through all: another try starts elsewhere.
    let looks = if sequential { all } else { all.min(LOOKS_MAX) };
    while seen < looks
        && fits < SAMPLE
        && let Some(last) = torrent.missing.class(class).as_slice().len().checked_sub(1)
    {
        seen += 1;
        at = at.min(last);
        let piece = torrent.missing.class(class).as_slice()[at];
        let claimed = first_empty_chunk(torrent, cache, piece).is_none();
        if claimed && !is_held(torrent, piece) {
            if sequential {
                torrent.missing.class(class).remove(at);
            } else {
                torrent.missing.class(class).swap_remove(at);
            }
            at = if sequential { at.wrapping_sub(1) } else { at };
            continue;
        }
        if !claimed && peer.bits.get(piece) {
            if sequential {
                return Some(piece);
            }
            fits += 1;
            let rarity = torrent.shared.givers.of(piece);
            let (rarest, theirs) = best.map_or((u32::MAX, true), |(rank, _)| rank);
            // Whose piece it is takes a hash for each rival: only looked at where it decides.
            if rarity < rarest || rarity == rarest && theirs {
                let rank = (rarity, !rivals.leave(piece));
                if best.is_none() || rank < (rarest, theirs) {
                    best = Some((rank, piece));
                }
            }
        }
        at = if at == 0 { last } else { at - 1 };
    }
    best.map(|(_, piece)| piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_know_one_another_share_pieces_out_without_a_word() {
        let ids: Vec<u64> = (1..=8).map(|id| mix(id, 0)).collect();
        let mut pieces_of = [0; 8];
        for piece in 0..8_000 {
            let owners: Vec<usize> = (0..8)
                .filter(|&at| {
                    let mut rivals = Rivals { own: ids[at], ids: [0; RIVALS_MAX], count: 7 };
                    let others = ids.iter().filter(|&&id| id != ids[at]);
                    rivals.ids.iter_mut().zip(others).for_each(|(place, &id)| *place = id);
                    rivals.leave(piece)
                })
                .collect();
            assert_eq!(owners.len(), 1, "piece {piece}");
            pieces_of[owners[0]] += 1;
        }
        assert!(pieces_of.iter().all(|&count| (850..1_150).contains(&count)), "{pieces_of:?}");
    }
}
