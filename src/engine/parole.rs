//! Parole: a piece that several peers spoilt together is fetched again from one of them, or of
//! others, alone (threat P21). If it fails again its giver is the liar; if it comes right the
//! evidence of the failed attempt convicts the liar. Without this a liar that takes part in every
//! attempt is never found.
//!
//! ```text
//! Wanted -> Given (to the first peer that asks for work and has the piece) -> verified, or failed
//!    ^          | it left or took too long
//!    +-- Dismissed: what it gave is thrown away
//! ```
//!
//! While a piece is on parole its core owns it and it is restricted (`SharedTorrent::restrict`): no
//! other core collects it, and its chunks are claimed for its giver only. Nothing waits for ever:
//! after `PAROLE_GIVERS_MAX` givers, or when none comes forward, anybody may fetch it as before.

use super::torrent::Torrent;
use super::*;
use crate::base::limits::{PAROLE_GIVERS_MAX, PAROLE_PIECES_MAX};
use crate::base::time::Span;

/// How long a peer is looked for that gives a piece alone.
const WAIT: Span = Span::from_secs(5);

/// How long a giver has for a piece, and besides for each of its chunks.
const TIME: (Span, Span) = (Span::from_secs(60), Span::from_secs(1));

/// One piece on parole.
#[derive(Debug)]
pub struct Parole {
    giver: Giver,
    /// Who was tried and gave up.
    dismissed: Vec<ConnId>,
    /// When this state began, by the second.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Giver {
    Wanted,
    Given(ConnId),
    Dismissed,
}

impl Parole {
    /// Whether `conn` may give the piece, or does already.
    fn is_open_to(&self, conn: ConnId) -> bool {
        match self.giver {
            Giver::Wanted => !self.dismissed.contains(&conn),
            Giver::Given(giver) => giver == conn,
            Giver::Dismissed => false,
        }
    }
}

impl Engine {
    /// Puts a failed piece of this core, whose chunks are not given back yet, on parole; false if too
    /// many are.
    pub(super) fn begin_parole(&mut self, id: TorrentId, piece: u32) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        if torrent.paroles.len() >= PAROLE_PIECES_MAX {
            return false;
        }
        torrent.shared.restrict(piece, self.config.core);
        let parole = Parole { giver: Giver::Wanted, dismissed: Vec::new(), since: self.rolled_at };
        torrent.paroles.insert(piece, parole);
        torrent.owned.insert(piece, self.rolled_at);
        self.food = true;
        true
    }

    /// Claims a chunk of a piece on parole that `conn` gives alone, or may.
    pub(super) fn claim_paroled(&mut self, conn: ConnId, now: Instant) -> Option<u32> {
        let peer = self.peers.get(conn)?;
        let id = peer.torrent?;
        let torrent = self.torrents[id.0 as usize].as_ref()?;
        let (chunk, piece) = torrent.paroles.iter().find_map(|(&piece, parole)| {
            let open = parole.is_open_to(conn) && peer.bits.get(piece);
            let chunk = open.then(|| picker::empty_chunk(torrent, &self.cache, piece)).flatten();
            chunk.map(|chunk| (chunk, piece))
        })?;
        let chunk = self.claim_empty(id, chunk, Some(conn), now)?;
        let parole = self.torrents[id.0 as usize].as_mut()?.paroles.get_mut(&piece)?;
        if parole.giver == Giver::Wanted {
            (parole.giver, parole.since) = (Giver::Given(conn), now);
        }
        Some(chunk)
    }

    /// Once a second: givers that are gone or late, and pieces that nobody gives.
    pub(super) fn review_paroles(&mut self, now: Instant) {
        for index in 0..self.torrents.len() {
            let Some(torrent) = self.torrents[index].as_ref() else { continue };
            let pieces: Vec<u32> = torrent.paroles.keys().copied().collect();
            for piece in pieces {
                self.review_parole(TorrentId(index as u32), piece, now);
            }
        }
    }

    fn review_parole(&mut self, id: TorrentId, piece: u32, now: Instant) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let time = patience(torrent);
        let Some(parole) = torrent.paroles.get_mut(&piece) else { return };
        let waited = now.since(parole.since);
        match parole.giver {
            Giver::Wanted if waited >= WAIT => self.give_up(id, piece),
            Giver::Given(conn) if waited >= time || !self.peers.get(conn).is_some_and(gives) => {
                (parole.giver, parole.since) = (Giver::Dismissed, now);
                parole.dismissed.push(conn);
                for chunk in wanted_chunks(&torrent.shared, piece) {
                    self.release(id, chunk);
                }
                self.look_for_another(id, piece, now);
            }
            Giver::Dismissed => self.look_for_another(id, piece, now),
            Giver::Wanted | Giver::Given(_) => {}
        }
    }

    /// Once nothing of the last giver lands or is hashed any more, throws away what it gave.
    fn look_for_another(&mut self, id: TorrentId, piece: u32, now: Instant) {
        if !self.empty_piece(id, piece) {
            return;
        }
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(parole) = torrent.paroles.get_mut(&piece) else { return };
        if parole.dismissed.len() >= PAROLE_GIVERS_MAX {
            self.give_up(id, piece);
        } else {
            (parole.giver, parole.since) = (Giver::Wanted, now);
            self.food = true;
        }
    }
}

/// Whether a peer answers requests.
const fn gives(peer: &Peer) -> bool {
    peer.is_open() && peer.flags.unchokes_us && !peer.is_snubbed()
}

/// How long one giver has for a piece.
fn patience(torrent: &Torrent) -> Span {
    Span(TIME.0.0 + TIME.1.0 * u64::from(torrent.shared.meta.geometry.chunks_per_piece()))
}
