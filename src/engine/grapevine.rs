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
    /// Answers to peers that ask for others; taken at once.
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

    /// What is believed of what the peer at `from` names.
    pub fn believe(
        &mut self,
        from: SocketAddr,
        named: impl IntoIterator<Item = SocketAddr>,
        candidates: &Candidates,
        grouping: &Grouping,
    ) -> Vec<SocketAddr> {
        self.hearsay.take(from.ip(), named, candidates, grouping)
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
