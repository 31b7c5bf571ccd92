//! What peers are answered beside payload: pieces of the metadata (BEP 9; `metadata.rs`) and hashes (BEP 52;
//! `leaves.rs`).
//!
//! It counts in the upload limits, of which it may take a part: while that is used up answers wait, and the
//! tick tries again. What strangers may have of it counts for their group of addresses, not for a connection:
//! who comes anew may have no more (threats P30, P32). Local networks and friends are exempt.

use super::session::PeerMisbehaved;
use super::*;
use crate::base::limits::{
    ANSWERS_PLACES, ANSWERS_SPAN, HASH_ANSWERS_WAITING_BYTES_MAX, HASHES_OF_GROUP_BYTES_MAX,
    METADATA_COPIES_OF_GROUP_MAX, PAYLOAD_PER_HASH_BYTE,
};
use crate::proto::wire::hashes::{HASH_BYTES, HashRequest};

/// Places that a group may use up.
const PLACES_OF_GROUP: u64 = 64;

/// All that a group may have of something.
const WHOLE: u64 = 1 << 40;

/// What a group has had lately, in parts of [`WHOLE`].
#[derive(Clone, Copy, Debug, Default)]
struct Ration {
    had: u64,
    at: Instant,
}

impl Ration {
    /// Gives back what time has brought.
    fn roll(&mut self, now: Instant) {
        let back = u128::from(now.since(self.at).0) * u128::from(WHOLE) / u128::from(ANSWERS_SPAN.0);
        self.had = self.had.saturating_sub(u64::try_from(back).unwrap_or(u64::MAX));
        self.at = now;
    }
}

/// What groups of strangers had of answers. Its size is fixed once somebody has asked.
#[derive(Debug, Default)]
pub(super) struct Rations {
    places: Vec<Ration>,
}

impl Rations {
    /// Takes `bytes` of the `most_bytes` that whoever `who` is the hash of may have in [`ANSWERS_SPAN`],
    /// after `earned_bytes` were given back; false if too few are left.
    fn take(&mut self, who: u64, (bytes, earned_bytes, most_bytes): (u64, u64, u64), now: Instant) -> bool {
        if self.places.is_empty() {
            self.places = vec![Ration::default(); ANSWERS_PLACES];
        }
        let ration = &mut self.places[place(who)];
        ration.roll(now);
        ration.had = ration.had.saturating_sub(part(earned_bytes, most_bytes));
        let had = ration.had.saturating_add(part(bytes, most_bytes));
        let fits = had <= WHOLE;
        if fits {
            ration.had = had;
        }
        fits
    }

    /// What was taken is not given after all.
    fn put_back(&mut self, who: u64, (bytes, most_bytes): (u64, u64)) {
        if let Some(ration) = self.places.get_mut(place(who)) {
            ration.had = ration.had.saturating_sub(part(bytes, most_bytes));
        }
    }

    /// Takes a piece of the metadata of a torrent, which has `info_bytes`.
    pub(super) fn take_metadata(
        &mut self,
        config: &EngineConfig,
        (address, torrent): (SocketAddr, TorrentId),
        (bytes, info_bytes): (usize, usize),
        now: Instant,
    ) -> bool {
        let who = seeker(config, address, torrent);
        let bytes = (bytes as u64, 0, metadata_of_group(info_bytes));
        who.is_none_or(|who| self.take(who, bytes, now))
    }

    /// Metadata that was taken is not given after all.
    pub(super) fn put_metadata_back(
        &mut self,
        config: &EngineConfig,
        (address, torrent): (SocketAddr, TorrentId),
        (bytes, info_bytes): (u64, usize),
    ) {
        let who = seeker(config, address, torrent);
        who.into_iter().for_each(|who| self.put_back(who, (bytes, metadata_of_group(info_bytes))));
    }

    /// Takes hashes, after what the peer was sent of payload has earned some.
    pub(super) fn take_hashes(
        &mut self,
        config: &EngineConfig,
        peer: &mut Peer,
        request: &HashRequest,
        now: Instant,
    ) -> bool {
        let paid_bytes = std::mem::replace(&mut peer.paid_bytes, peer.sent_bytes);
        let earned_bytes = peer.sent_bytes.saturating_sub(paid_bytes) / PAYLOAD_PER_HASH_BYTE;
        let bytes = (answer_bytes(request).into(), earned_bytes, HASHES_OF_GROUP_BYTES_MAX);
        group(config, peer.address).is_none_or(|who| self.take(who, bytes, now))
    }

    /// Hashes that were taken are not given after all.
    pub(super) fn put_hashes_back(
        &mut self,
        config: &EngineConfig,
        address: SocketAddr,
        request: &HashRequest,
    ) {
        let bytes = (answer_bytes(request).into(), HASHES_OF_GROUP_BYTES_MAX);
        group(config, address).into_iter().for_each(|who| self.put_back(who, bytes));
    }
}

/// Where it is counted what whoever `who` is the hash of had.
const fn place(who: u64) -> usize {
    (who % ANSWERS_PLACES as u64) as usize
}

/// `bytes` in parts of [`WHOLE`], which `most_bytes` are.
fn part(bytes: u64, most_bytes: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(WHOLE) / u128::from(most_bytes.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Bytes of metadata that a group may have of a torrent.
const fn metadata_of_group(info_bytes: usize) -> u64 {
    METADATA_COPIES_OF_GROUP_MAX * info_bytes as u64
}

/// A group as one that has metadata of a torrent: whoever asks for all of many uses up a few places, and the
/// rest is for others.
fn seeker(config: &EngineConfig, address: SocketAddr, torrent: TorrentId) -> Option<u64> {
    group(config, address).map(|who| who.wrapping_add(u64::from(torrent.0) % PLACES_OF_GROUP))
}

/// The group of a stranger, hashed; none for neighbours and friends.
fn group(config: &EngineConfig, address: SocketAddr) -> Option<u64> {
    let stranger = config.grouping.is_stranger(address.ip());
    stranger.then(|| Identity::of(address, &config.grouping, config.secret).group)
}

/// Bytes of the hashes that answer a request, at most; it fits a tree, so that they are few.
pub(super) fn answer_bytes(request: &HashRequest) -> u32 {
    request.length.saturating_add(request.proof_layers).saturating_mul(HASH_BYTES as u32)
}

impl Engine {
    /// Puts what waits to be answered into the next send, as far as the limits let it pass; the tick tries
    /// again to send the rest.
    pub(super) fn answer_waiting(&mut self, conn: ConnId, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        peer.metadata.note_send();
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        let info = &torrent.shared.meta.info;
        match peer.metadata.next_bytes(info) {
            Some(bytes) if self.egress.claim_answer(conn, bytes, now) => {
                peer.metadata.answer(info, &mut peer.out.frames);
            }
            Some(_) => self.throttle(conn),
            None => {}
        }
        self.answer_hashes(conn, now)
    }

    /// Answers hash requests that wait, as far as the limits let it pass.
    pub(super) fn answer_hashes(&mut self, conn: ConnId, now: Instant) -> Result<(), PeerMisbehaved> {
        while let Some(peer) = self.peers.get_mut(conn) {
            if peer.out.frames.len() > HASH_ANSWERS_WAITING_BYTES_MAX {
                // The end of the send looks again.
                break;
            }
            // What ends the connection is not to be given back once more with what waits then.
            let Some(request) = peer.hash_asks.pop_front() else { break };
            if !self.give_hashes(conn, request, now)? {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.hash_asks.push_front(request);
                }
                self.throttle(conn);
                break;
            }
        }
        Ok(())
    }

    /// Takes what an answer to a request weighs of what limits the connection; false while their part for
    /// answers is used up.
    pub(super) fn claim_hashes(&self, conn: ConnId, request: &HashRequest, now: Instant) -> bool {
        self.egress.claim_answer(conn, answer_bytes(request), now)
    }

    /// Hashes that were claimed are not given after all.
    pub(super) fn put_hashes_back(&mut self, conn: ConnId, request: &HashRequest) {
        self.egress.put_answer_back(conn, answer_bytes(request));
        if let Some(peer) = self.peers.get(conn) {
            self.rations.put_hashes_back(&self.config, peer.address, request);
        }
    }

    /// The connection is over: its group is charged for nothing that waited and was not begun.
    pub(super) fn forget_asks(&mut self, peer: &mut Peer) {
        for request in peer.hash_asks.drain(..) {
            self.rations.put_hashes_back(&self.config, peer.address, &request);
        }
        self.forget_leaf_asks(peer.conn, peer.address);
        let torrent = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref());
        if let Some(torrent) = torrent {
            let info_bytes = torrent.shared.meta.info.len();
            let bytes = peer.metadata.forget(&torrent.shared.meta.info);
            let of = (peer.address, torrent.id());
            self.rations.put_metadata_back(&self.config, of, (bytes, info_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Span;

    const NOW: Instant = Instant(7_000_000_000_000);

    #[test]
    fn p30_p32_a_group_has_so_much_and_no_more_until_time_or_payload_brings_it_back() {
        for (bytes, most, fits) in [(99, 100, true), (100, 100, true), (101, 100, false)] {
            assert_eq!(Rations::default().take(5, (bytes, 0, most), NOW), fits, "{bytes} of {most}");
        }
        let mut rations = Rations::default();
        let all = HASHES_OF_GROUP_BYTES_MAX;
        assert!(rations.take(5, (all, 0, all), NOW) && !rations.take(5, (1 << 10, 0, all), NOW));
        assert!(rations.take(6, (all, 0, all), NOW), "somebody else has his own");
        assert!(rations.take(5, (1 << 10, 1 << 10, all), NOW), "payload earned it");
        let half = NOW + Span(ANSWERS_SPAN.0 / 2);
        assert!(!rations.take(5, (all / 2 + (1 << 10), 0, all), half));
        assert!(rations.take(5, (all / 2, 0, all), half), "time brings it back");
        assert!(!rations.take(5, (1 << 10, 0, all), half));
        assert!(rations.take(5, (all, 0, all), half + ANSWERS_SPAN));
        assert_eq!(rations.places.len(), ANSWERS_PLACES);
        rations.put_back(5, (all / 4, all));
        assert!(!rations.take(5, (all / 4 + (1 << 10), 0, all), half + ANSWERS_SPAN));
        assert!(rations.take(5, (all / 4, 0, all), half + ANSWERS_SPAN), "what was not given after all");
    }
}
