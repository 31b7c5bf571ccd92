//! What peers say of other peers: peer exchange (BEP 11) and hole punching (BEP 55), as far as it concerns
//! one connection. Who is told of whom the control thread decides (`gossip.rs`, `rendezvous.rs`), since it
//! knows the peers of all cores.
//!
//! Of a private torrent nothing is said and nothing is listened to (BEP 27).

use super::proof::offend;
use super::session::{PeerMisbehaved, idle};
use super::versions::{Name, known_by};
use super::*;
use crate::base::address::AddressClass;
use crate::base::limits::{
    HAVE_FRAMES_WAITING_MAX, PEX_TAKEN_AT_ONCE, PEX_TAKEN_INTERVAL, PUNCH_INTERVAL, PUNCHES_AT_ONCE,
};
use crate::base::time::Span;
use crate::proto::wire::extension::{ExtensionHandshake, ExtensionIds};
use crate::proto::wire::holepunch::PunchMessage;
use crate::proto::wire::message::Message;
use crate::proto::wire::pex::{PexFlags, PexMessage};

/// The id under which we want messages of peer exchange.
pub(super) const PEX_ID: u8 = 5;

/// The id under which we want messages of hole punching.
pub(super) const PUNCH_ID: u8 = 6;

/// Whether peers are told of one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exchange {
    /// They are, and say so to us.
    On,
    /// Only trackers and the operator name peers.
    #[default]
    Off,
}

/// What a peer is told by the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tale {
    /// Who came and who left.
    Pex,
    /// Whom to dial, or why not.
    Punch,
}

/// Which of the extensions a peer speaks, once it has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// Peer exchange.
    pub pex: bool,
    /// What others are told of it: whether it only gives, whether it speaks hole punching.
    pub flags: PexFlags,
}

/// So many at once, and then one in so long.
#[derive(Clone, Copy, Debug)]
pub struct Trickle {
    left: u32,
    at: Instant,
}

impl Trickle {
    /// Full.
    pub const fn new(at_once: u32, now: Instant) -> Self {
        Self { left: at_once, at: now }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, at_once: u32, interval: Span, now: Instant) -> bool {
        let come = now.since(self.at).0 / interval.0;
        if u64::from(self.left) + come >= u64::from(at_once) {
            (self.left, self.at) = (at_once, now);
        } else {
            self.left += come as u32;
            self.at = self.at + Span(interval.0 * come);
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

/// What one connection has said and may say.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// Under which ids they want messages.
    pex_id: Option<u8>,
    punch_id: Option<u8>,
    /// The control thread knows.
    reported: bool,
    /// How much more of what they say is listened to.
    pex: Trickle,
    punches: Trickle,
}

impl Talk {
    /// Nothing was said yet.
    pub const fn new(now: Instant) -> Self {
        let (pex, punches) = (Trickle::new(PEX_TAKEN_AT_ONCE, now), Trickle::new(PUNCHES_AT_ONCE, now));
        Self { pex_id: None, punch_id: None, reported: false, pex, punches }
    }
}

/// Adds what we speak about a torrent to our extension handshake.
pub(super) fn announce(exchange: Exchange, private: bool, ids: &mut ExtensionIds) {
    if exchange == Exchange::On && !private {
        (ids.ut_pex, ids.ut_holepunch) = (Some(PEX_ID), Some(PUNCH_ID));
    }
}

impl Engine {
    /// The same engine, which has peers told of one another or not.
    pub fn with_exchange(mut self, exchange: Exchange) -> Self {
        self.exchange = exchange;
        self
    }

    /// The peer's extension handshake came: what it speaks is reported once.
    pub(super) fn note_spoken(&mut self, conn: ConnId, theirs: &ExtensionHandshake) {
        let Some(torrent) = self.gossips(conn) else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let ids = &theirs.messages;
        (peer.talk.pex_id, peer.talk.punch_id) = (ids.ut_pex, ids.ut_holepunch);
        let silent = ids.ut_pex.is_none() && ids.ut_holepunch.is_none();
        if silent || std::mem::replace(&mut peer.talk.reported, true) {
            return;
        }
        let mut flags = PexFlags::default();
        for (holds, flag) in
            [(theirs.upload_only, PexFlags::SEED), (ids.ut_holepunch.is_some(), PexFlags::HOLEPUNCH)]
        {
            flags = if holds { flags.with(flag) } else { flags };
        }
        let speaks = Speaks { pex: ids.ut_pex.is_some(), flags };
        let conn = CoreConn { core: self.config.core, conn };
        self.actions.push_back(Action::Report(Report::Speaks { torrent, conn, speaks }));
    }

    /// The torrent of an open connection, if its peers are told of one another.
    fn gossips(&self, conn: ConnId) -> Option<TorrentId> {
        let id = self.peers.get(conn).filter(|peer| peer.is_open())?.torrent?;
        let private = self.torrent(id)?.shared.meta.private;
        (self.exchange == Exchange::On && !private).then_some(id)
    }

    /// Whether a message of a peer is read: the torrent that it is about, and who said it.
    fn listens_to(
        &mut self,
        conn: ConnId,
        takes: impl FnOnce(&mut Talk) -> bool,
    ) -> Result<Option<(TorrentId, SocketAddr)>, PeerMisbehaved> {
        let torrent = self.gossips(conn);
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(None) };
        idle(peer)?;
        let Some(torrent) = torrent else { return Ok(None) };
        if !takes(&mut peer.talk) {
            return offend(peer).map(|()| None);
        }
        Ok(Some((torrent, peer.address)))
    }

    /// A message of peer exchange came. More than are allowed are not read (threat P31).
    pub(super) fn exchanged(
        &mut self,
        conn: ConnId,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let takes = |talk: &mut Talk| talk.pex.take(PEX_TAKEN_AT_ONCE, PEX_TAKEN_INTERVAL, now);
        let Some((torrent, from)) = self.listens_to(conn, takes)? else { return Ok(()) };
        let message = PexMessage::parse(payload).map_err(|_| PeerMisbehaved::BadExtension)?;
        let satisfied = self.torrent(torrent).is_some_and(|torrent| torrent.shared.is_satisfied());
        // A seed has nothing to gain from seeds.
        let wanted = message.added.iter().filter(|(_, flags)| !(satisfied && flags.has(PexFlags::SEED)));
        let peers: Vec<SocketAddr> =
            wanted.map(|&(address, _)| address).filter(|&address| may_name(from, address)).collect();
        if !peers.is_empty() {
            let name = self.name_known_to(torrent, conn);
            let conn = CoreConn { core: self.config.core, conn };
            self.actions.push_back(Action::Report(Report::Exchanged { torrent, conn, from, name, peers }));
        }
        Ok(())
    }

    fn name_known_to(&self, torrent: TorrentId, conn: ConnId) -> Name {
        let version = self.peers.get(conn).map(|peer| peer.version);
        let meta = self.torrent(torrent).map(|torrent| &torrent.shared.meta);
        version.zip(meta).map_or(Name::First, |(version, meta)| known_by(meta, version))
    }

    /// A message of hole punching came. What makes no sense is ignored, and so is too much (threat P43).
    pub(super) fn punched(
        &mut self,
        conn: ConnId,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let takes = |talk: &mut Talk| talk.punches.take(PUNCHES_AT_ONCE, PUNCH_INTERVAL, now);
        let Some((torrent, from)) = self.listens_to(conn, takes)? else { return Ok(()) };
        if let Some(message) = PunchMessage::parse(payload) {
            let conn = CoreConn { core: self.config.core, conn };
            self.actions.push_back(Action::Report(Report::Punch { torrent, conn, from, message }));
        }
        Ok(())
    }

    /// The control thread has something for a peer. One that reads nothing is told nothing.
    pub fn handle_tale(&mut self, conn: ConnId, tale: Tale, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) else { return };
        let id = match tale {
            Tale::Pex => peer.talk.pex_id,
            Tale::Punch => peer.talk.punch_id,
        };
        let Some(id) = id.filter(|_| peer.out.frames.len() < HAVE_FRAMES_WAITING_MAX) else { return };
        Message::Extended { id, payload }.encode(&mut peer.out.frames);
        self.make_ready(conn);
    }
}

/// Whether the peer at `from` may send us to `address` (threats N3, P31): nobody points inwards.
pub fn may_name(from: SocketAddr, address: SocketAddr) -> bool {
    address.port() != 0 && AddressClass::of(from.ip()).may_name(AddressClass::of(address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_in_so_long() {
        let (now, step) = (Instant(1_000_000_000_000), Span::from_secs(10));
        let mut trickle = Trickle::new(3, now);
        let taken = |trickle: &mut Trickle, now| (0..10).filter(|_| trickle.take(3, step, now)).count();
        assert_eq!(taken(&mut trickle, now), 3);
        assert_eq!(taken(&mut trickle, Instant(now.0 + step.0 - 1)), 0);
        assert_eq!(taken(&mut trickle, now + step), 1);
        assert_eq!(taken(&mut trickle, Instant(now.0 + 2 * step.0 + 1)), 1);
        assert_eq!(taken(&mut trickle, now + Span(100 * step.0)), 3, "no more is saved up");
    }
}
