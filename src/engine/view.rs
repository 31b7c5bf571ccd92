//! What whoever asks is shown of the connections of one core: values, a bounded number at a time.

use std::net::SocketAddr;

use super::encryption::Manner;
use super::peer::Flags;
use super::scheduler::view::Outlook;
use super::*;
use crate::base::limits::VIEW_PLACES_PER_TURN;
use crate::base::network::Network;
use crate::base::time::Span;

/// Bytes a second, smoothed over about two seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    before_bytes: u64,
    rate: u64,
}

impl Meter {
    /// So much has passed by now, `span` after the last time.
    pub fn roll(&mut self, total_bytes: u64, span: Span) {
        let bytes = total_bytes.saturating_sub(self.before_bytes);
        let now = (u128::from(bytes) * 1_000_000_000 / u128::from(span.0.max(1))) as u64;
        self.rate = if self.rate == 0 { now } else { self.rate / 2 + now / 2 };
        self.before_bytes = total_bytes;
    }

    /// Bytes a second of late.
    pub const fn rate(&self) -> u64 {
        self.rate
    }
}

/// One connection at one moment.
#[derive(Clone, Copy, Debug)]
pub struct PeerView {
    /// The other end.
    pub address: SocketAddr,
    /// The addresses that share grants and turns with it.
    pub group: Network,
    /// What it calls itself; zeros before its handshake.
    pub peer_id: PeerId,
    /// Which torrent, once known.
    pub torrent: Option<TorrentId>,
    /// Who opened it.
    pub origin: Origin,
    /// How far it is.
    pub stage: Stage,
    /// Who wants and serves whom.
    pub flags: Flags,
    /// It took too long with what it was asked for.
    pub snubbed: bool,
    /// It began with an encrypted handshake.
    pub encrypted: bool,
    /// Pieces that it has, and that there are.
    pub pieces: [u32; 2],
    /// Payload that came.
    pub received_bytes: u64,
    /// Payload that left.
    pub sent_bytes: u64,
    /// Bytes a second that come and that leave.
    pub rates: [u64; 2],
    /// Our requests that wait for their blocks.
    pub asked: usize,
    /// Its requests that wait to be served.
    pub queued: usize,
    /// Payload of the send that is under way.
    pub sending_bytes: u64,
    /// Where it stands in the order of service, once messages flow.
    pub turn: Option<Outlook>,
}

impl Peer {
    /// `span` has passed.
    pub(super) fn roll_meters(&mut self, span: Span) {
        let [down, up] = &mut self.meters;
        down.roll(self.received_bytes, span);
        up.roll(self.sent_bytes, span);
    }
}

impl Engine {
    /// The connections in the next `VIEW_PLACES_PER_TURN` places from `from` on, as far as `room` has room
    /// without growing. Where to go on, or `None` at the end: who comes or goes meanwhile may be missed.
    pub fn view_peers(&self, from: usize, room: &mut Vec<PeerView>) -> Option<usize> {
        let (peers, next) = self.peers.places(from, VIEW_PLACES_PER_TURN.min(room.capacity()));
        room.clear();
        room.extend(peers.map(|peer| self.view(peer)));
        next
    }

    /// The debt to whoever is owed most of those that wait here.
    pub fn owed_waiting_bytes(&self) -> u64 {
        self.egress.owed_waiting_bytes(&self.ledger)
    }

    fn view(&self, peer: &Peer) -> PeerView {
        PeerView {
            address: peer.address,
            group: self.config.grouping.network_of(peer.address.ip()),
            peer_id: peer.peer_id,
            torrent: peer.torrent,
            origin: peer.origin,
            stage: peer.stage,
            flags: peer.flags,
            snubbed: peer.is_snubbed(),
            encrypted: peer.manner == Manner::Encrypted,
            pieces: [peer.bits.count(), peer.bits.len()],
            received_bytes: peer.received_bytes,
            sent_bytes: peer.sent_bytes,
            rates: peer.meters.map(|meter| meter.rate()),
            asked: peer.asked.len(),
            queued: peer.requests.len(),
            sending_bytes: peer.out.left_payload_bytes,
            turn: self.egress.outlook(peer.conn, &self.ledger),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_follows_what_passes_and_falls_to_nothing() {
        let (mut meter, second) = (Meter::default(), Span::from_secs(1));
        meter.roll(1_000, second);
        assert_eq!(meter.rate(), 1_000);
        meter.roll(4_000, second);
        assert_eq!(meter.rate(), 2_000, "half of the new, half of the old");
        meter.roll(4_000, Span(0));
        assert_eq!(meter.rate(), 1_000, "no time is no division by zero");
        (0..10).for_each(|_| meter.roll(4_000, second));
        assert_eq!(meter.rate(), 0);
        meter.roll(u64::MAX, Span(1));
        assert!(meter.rate() > 0, "no overflow");
    }
}
