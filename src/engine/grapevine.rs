//! All that peers of one torrent tell one another about peers: what is said (`gossip.rs`), what is believed
//! (`hearsay.rs`), and who is brought together (`rendezvous.rs`). On the control thread, made when the first
//! peer comes that speaks one of the extensions; sans-io.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::candidates::Candidates;
use super::exchange::{Speaks, Tale, may_name};
use super::gossip::Gossip;
use super::hearsay::Hearsay;
use super::peer::Origin;
use super::rendezvous::Rendezvous;
use super::roster::Roster;
use crate::base::ids::CoreConn;
use crate::base::network::Grouping;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::proto::wire::holepunch::{PunchKind, PunchMessage};
use crate::proto::wire::pex::PexFlags;

/// See the module.
#[derive(Debug)]
pub struct Grapevine {
    gossip: Gossip,
    hearsay: Hearsay,
    rendezvous: Rendezvous,
    /// Answers to peers that ask for others, and our own questions; taken at once.
    answers: VecDeque<(CoreConn, PunchMessage)>,
}

impl Grapevine {
    /// Knows those who are connected.
    pub fn new(rng: Rng, roster: &Roster) -> Self {
        let (hearsay, rendezvous) = (Hearsay::default(), Rendezvous::default());
        let mut grapevine = Self { gossip: Gossip::new(rng), hearsay, rendezvous, answers: VecDeque::new() };
        roster.connected().into_iter().for_each(|conn| grapevine.note_home(conn, roster));
        grapevine
    }

    /// More may be known of where the peer of a connection is at home.
    pub fn note_home(&mut self, conn: CoreConn, roster: &Roster) {
        if let Some(home) = roster.dialable(conn) {
            let dialled = roster.origin(conn) == Some(Origin::Outgoing);
            let flags = if dialled { PexFlags::REACHABLE } else { PexFlags::default() };
            self.gossip.handle_home(conn, home, flags);
        }
    }

    /// A peer said which of the extensions it speaks.
    pub fn handle_speaks(&mut self, conn: CoreConn, speaks: Speaks, roster: &Roster, now: Instant) {
        let Some(home) = roster.home(conn) else { return };
        self.gossip.handle_flags(conn, speaks.flags);
        if speaks.pex {
            self.gossip.handle_listener(conn, home, now);
        }
        if speaks.flags.has(PexFlags::HOLEPUNCH) {
            self.rendezvous.handle_speaker(conn, now);
        }
    }

    /// What is believed of what a peer names.
    pub fn believe(
        &mut self,
        (conn, from): (CoreConn, SocketAddr),
        named: impl IntoIterator<Item = SocketAddr>,
        (candidates, grouping): (&Candidates, &Grouping),
        now: Instant,
    ) -> Vec<SocketAddr> {
        let believed = self.hearsay.take(from.ip(), named, (candidates, grouping), now);
        self.rendezvous.handle_named(conn, &believed, |address| candidates.knows(address));
        believed
    }

    /// An address could not be dialled: who named it may bring us together.
    pub fn handle_dial_failed(&mut self, address: SocketAddr, now: Instant) {
        self.answers.extend(self.rendezvous.handle_dial_failed(address, now));
    }

    /// A message of hole punching came. Returns whom we are to dial, if it says so.
    pub fn handle_punch(
        &mut self,
        (conn, from): (CoreConn, SocketAddr),
        message: PunchMessage,
        roster: &Roster,
        now: Instant,
    ) -> Option<SocketAddr> {
        match message.kind {
            PunchKind::Rendezvous => {
                self.answers.extend(self.rendezvous.handle_question(conn, message.address, roster, now));
                None
            }
            PunchKind::Connect => Some(message.address).filter(|&address| may_name(from, address)),
            PunchKind::Error(_) => None,
        }
    }

    /// A connection ended.
    pub fn handle_gone(&mut self, conn: CoreConn) {
        self.gossip.handle_gone(conn);
        self.rendezvous.handle_gone(conn);
    }

    /// What a peer is to be told now: by which extension, and the payload.
    pub fn poll_tale(&mut self, now: Instant) -> Option<(CoreConn, Tale, Bytes)> {
        if let Some((conn, message)) = self.answers.pop_front() {
            return Some((conn, Tale::Punch, message.encode().into()));
        }
        let (conn, message) = self.gossip.poll_message(now)?;
        Some((conn, Tale::Pex, message.encode().into()))
    }

    /// When `poll_tale` may have something again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.gossip.poll_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, CoreId, PeerId};
    use crate::engine::candidates::Source;
    use crate::proto::wire::holepunch::PunchError;
    use crate::proto::wire::pex::PexMessage;

    const NOW: Instant = Instant(1_000_000_000_000);

    fn conn(index: u32) -> CoreConn {
        CoreConn { core: CoreId(0), conn: ConnId { index, generation: 0 } }
    }

    fn home(index: u32) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, index as u8], 6881))
    }

    const fn speaks(flags: PexFlags) -> Speaks {
        Speaks { pex: true, flags }
    }

    /// A node that has dialled the first peer, and to which the second has come, who told its port, and the
    /// third, who did not.
    fn roster() -> Roster {
        let mut roster = Roster::new(PeerId([9; 20]));
        roster.add(home(1), Source::Tracker, NOW);
        for index in 1..=3 {
            let origin = if index == 1 { Origin::Outgoing } else { Origin::Incoming };
            let from = SocketAddr::new(home(index).ip(), if index == 1 { 6881 } else { 50_000 });
            assert_eq!(roster.handle_connected(conn(index), from, origin, PeerId([index as u8; 20])), None);
        }
        assert_eq!(roster.handle_listens(conn(2), 6881), None);
        roster
    }

    #[test]
    fn the_first_who_listens_hears_of_all_who_can_be_dialled_and_how() {
        let roster = roster();
        let mut grapevine = Grapevine::new(Rng::new(1), &roster);
        assert_eq!(grapevine.poll_timeout(), None);
        grapevine.handle_speaks(conn(3), speaks(PexFlags::default()), &roster, NOW);
        let (to, tale, payload) = grapevine.poll_tale(NOW).unwrap();
        assert_eq!((to, tale), (conn(3), Tale::Pex));
        let mut added = PexMessage::parse(&payload).unwrap().added;
        added.sort_unstable_by_key(|(address, _)| *address);
        assert_eq!(added, [(home(1), PexFlags::REACHABLE), (home(2), PexFlags::default())]);
        grapevine.handle_speaks(conn(2), speaks(PexFlags::SEED), &roster, NOW);
        let (_, _, payload) = grapevine.poll_tale(NOW).unwrap();
        assert_eq!(PexMessage::parse(&payload).unwrap().added, [(home(1), PexFlags::REACHABLE)]);
        assert_eq!(grapevine.poll_tale(NOW), None);
    }

    #[test]
    fn who_asks_for_another_is_answered_and_whom_we_are_to_dial_is_named() {
        let roster = roster();
        let mut grapevine = Grapevine::new(Rng::new(1), &roster);
        for index in 1..=2 {
            let speaks = Speaks { pex: false, flags: PexFlags::HOLEPUNCH };
            grapevine.handle_speaks(conn(index), speaks, &roster, NOW);
        }
        let mut hear = |kind, address: &str| {
            let message = PunchMessage { kind, address: address.parse().unwrap() };
            grapevine.handle_punch((conn(1), home(1)), message, &roster, NOW)
        };
        assert_eq!(hear(PunchKind::Connect, "8.8.4.4:1"), Some("8.8.4.4:1".parse().unwrap()));
        for inwards in ["127.0.0.1:1", "10.0.0.1:1", "169.254.169.254:80", "8.8.4.4:0"] {
            assert_eq!(hear(PunchKind::Connect, inwards), None, "{inwards}");
        }
        assert_eq!(hear(PunchKind::Error(PunchError::NoSupport), "8.8.4.4:1"), None);
        assert_eq!(hear(PunchKind::Rendezvous, "8.8.8.2:6881"), None);
        let said: Vec<_> = std::iter::from_fn(|| grapevine.poll_tale(NOW))
            .map(|(to, tale, payload)| (to, tale, PunchMessage::parse(&payload).unwrap().address))
            .collect();
        assert_eq!(said, [(conn(2), Tale::Punch, home(1)), (conn(1), Tale::Punch, home(2))]);
    }
}
