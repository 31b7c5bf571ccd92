//! Whom we know and whom we are connected to, over all cores, and which of two connections to one
//! peer goes. One per torrent, on the control thread; sans-io.
//!
//! A peer's *home* is where it can be dialled: the address that we dialled, or the one that it came
//! from with the port that it announced (BEP 10 `p`). Two connections are one too many if home and
//! peer id are the same. Neither suffices alone: machines behind one NAT announce the same port, and
//! anybody may take another's peer id. Both sides must close the same one: of two that were opened
//! by different sides the one stays whose opener has the greater peer id, which both know; of two
//! that were opened by the same side the older stays.
//!
//! Invariant: an entry of `homes` names a connection of `links` with that home and peer id.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::action::Farewell;
use super::candidates::{Candidates, Source};
use super::peer::Origin;
use super::versions::Name;
use crate::base::ids::{CoreConn, PeerId};
use crate::base::time::Instant;

/// Where a peer is at home, and its peer id.
type Home = (SocketAddr, [u8; 20]);

#[derive(Clone, Copy, Debug)]
struct Link {
    home: Home,
    origin: Origin,
    /// The peer has named its port: it does so once.
    told: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    /// Whom to connect to.
    pub candidates: Candidates,
    ours: PeerId,
    links: HashMap<CoreConn, Link>,
    homes: BTreeMap<Home, CoreConn>,
}

impl Roster {
    /// Nobody is known yet to us, who are called `ours`.
    pub fn new(ours: PeerId) -> Self {
        let (candidates, links, homes) = (Candidates::default(), HashMap::new(), BTreeMap::new());
        Self { candidates, ours, links, homes }
    }

    /// An address was named; see [`Candidates::add`].
    pub fn add(&mut self, address: SocketAddr, source: Source, now: Instant) {
        self.add_by(address, (source, Name::First), now);
    }

    /// The same, of somebody who knows the torrent by a name of it; see [`Candidates::add_by`].
    pub fn add_by(&mut self, address: SocketAddr, by: (Source, Name), now: Instant) {
        self.candidates.add_by(unmapped(address), by, now);
    }

    /// Somebody at an address expects our dial; see [`Candidates::hasten`].
    pub fn hasten(&mut self, address: SocketAddr, now: Instant) -> bool {
        self.candidates.hasten(unmapped(address), now)
    }

    /// A peer finished its handshake. Returns the connection that is to be closed, if one is: this or
    /// an older one.
    pub fn handle_connected(
        &mut self,
        conn: CoreConn,
        address: SocketAddr,
        origin: Origin,
        peer_id: PeerId,
    ) -> Option<CoreConn> {
        let home = (unmapped(address), peer_id.0);
        self.links.insert(conn, Link { home, origin, told: false });
        if origin == Origin::Outgoing && !self.candidates.knows(home.0) {
            // Forgotten while it was dialled: `part` has parted from it.
            return Some(conn);
        }
        self.settle(conn)
    }

    /// A peer named the port that it listens at. What it says of a connection that we dialled, or
    /// says again, changes nothing: it must not make us believe that all ports of its host are it.
    pub fn handle_listens(&mut self, conn: CoreConn, port: u16) -> Option<CoreConn> {
        let link = self.links.get_mut(&conn)?;
        if link.told || link.origin == Origin::Outgoing {
            return None;
        }
        link.told = true;
        let before = link.home;
        link.home.0.set_port(port);
        if self.homes.get(&before) != Some(&conn) {
            // It is being closed already.
            return None;
        }
        self.homes.remove(&before);
        self.settle(conn)
    }

    /// A connection ended, or was never made (`conn` is not known then, or `None`).
    pub fn handle_gone(&mut self, conn: Option<CoreConn>, address: SocketAddr, why: Farewell, now: Instant) {
        let link = conn.and_then(|conn| self.links.remove(&conn));
        let home = link.map_or_else(|| unmapped(address), |link| link.home.0);
        if let Some(link) = link
            && self.homes.get(&link.home) == conn.as_ref()
        {
            self.homes.remove(&link.home);
        }
        // Who came to us only claims its home: what it did is not held against whoever listens there.
        let claimed = link.is_some_and(|link| link.origin == Origin::Incoming);
        let why = if claimed && why == Farewell::Misbehaved { Farewell::Gone } else { why };
        if !self.is_connected(home) {
            self.candidates.handle_gone(home, why, now);
        }
    }

    /// Where the peer of a connection is at home, as far as is known.
    pub fn home(&self, conn: CoreConn) -> Option<SocketAddr> {
        self.links.get(&conn).map(|link| link.home.0)
    }

    /// Where it can surely be dialled: where we did, or where it says that it listens.
    pub fn dialable(&self, conn: CoreConn) -> Option<SocketAddr> {
        let link = self.links.get(&conn)?;
        (link.told || link.origin == Origin::Outgoing).then_some(link.home.0)
    }

    /// All connections, in their order.
    pub fn connected(&self) -> Vec<CoreConn> {
        let mut all: Vec<CoreConn> = self.links.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// A connection to whoever is at home there.
    pub fn connected_at(&self, home: SocketAddr) -> Option<CoreConn> {
        let home = unmapped(home);
        self.homes.range((home, [0; 20])..=(home, [u8::MAX; 20])).next().map(|(_, &conn)| conn)
    }

    /// Who opened a connection.
    pub fn origin(&self, conn: CoreConn) -> Option<Origin> {
        self.links.get(&conn).map(|link| link.origin)
    }

    /// A private torrent has another tracker now: forgets all peers but those that the operator named
    /// (BEP 27). Returns the connections that are to be closed, in the order of their homes.
    pub fn part(&mut self) -> Vec<CoreConn> {
        self.candidates.forget_hints();
        let mut strangers: Vec<(Home, CoreConn)> =
            self.links.iter().map(|(&conn, link)| (link.home, conn)).collect();
        strangers.retain(|((address, _), _)| !self.candidates.knows(*address));
        strangers.sort_unstable();
        strangers.into_iter().map(|(_, conn)| conn).collect()
    }

    /// Enters a connection under its home; which of two goes if there is one already.
    fn settle(&mut self, newer: CoreConn) -> Option<CoreConn> {
        let link = *self.links.get(&newer)?;
        self.candidates.handle_connected(link.home.0);
        let Some(&older) = self.homes.get(&link.home) else {
            self.homes.insert(link.home, newer);
            return None;
        };
        let before = self.links.get(&older).map(|link| link.origin);
        if before == Some(link.origin) || link.origin != self.stays(&link.home.1) {
            return Some(newer);
        }
        self.homes.insert(link.home, newer);
        Some(older)
    }

    /// Which of two connections stays, one opened by us and one by a peer of that id.
    fn stays(&self, theirs: &[u8; 20]) -> Origin {
        if self.ours.0 > *theirs { Origin::Outgoing } else { Origin::Incoming }
    }

    fn is_connected(&self, home: SocketAddr) -> bool {
        self.connected_at(home).is_some()
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is the IPv4 address that others name.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, CoreId};

    const LOW: PeerId = PeerId([1; 20]);
    const HIGH: PeerId = PeerId([2; 20]);
    const NOW: Instant = Instant(1_000_000_000);

    fn conn(core: u8, index: u32) -> CoreConn {
        CoreConn { core: CoreId(core), conn: ConnId { index, generation: 0 } }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// We dialled `address(1)` and it dialled us, with our connection first, or theirs.
    fn both_dial(ours: PeerId, theirs: PeerId, ours_first: bool) -> Vec<CoreConn> {
        let mut roster = Roster::new(ours);
        roster.add(address(1), Source::Operator, NOW);
        assert_eq!(roster.candidates.poll_dial(NOW), Some(address(1)));
        let mut closed = Vec::new();
        let dialled =
            |roster: &mut Roster| roster.handle_connected(conn(0, 1), address(1), Origin::Outgoing, theirs);
        if ours_first {
            closed.extend(dialled(&mut roster));
        }
        closed.extend(roster.handle_connected(conn(1, 2), address(50_000), Origin::Incoming, theirs));
        closed.extend(roster.handle_listens(conn(1, 2), 1));
        if !ours_first {
            closed.extend(dialled(&mut roster));
        }
        // The peer stays connected whichever goes, and is not dialled again.
        roster.handle_gone(closed.first().copied(), address(1), Farewell::Useless, NOW);
        assert_eq!(roster.candidates.poll_timeout(), None);
        closed
    }

    #[test]
    fn p5_nodes_that_dial_each_other_close_the_same_connection_of_two_in_any_order() {
        for ours_first in [true, false] {
            // What one side dialled is what the other accepted.
            assert_eq!(both_dial(HIGH, LOW, ours_first), [conn(1, 2)], "ours stays");
            assert_eq!(both_dial(LOW, HIGH, ours_first), [conn(0, 1)], "theirs stays");
        }
    }

    #[test]
    fn p5_of_two_that_the_same_side_opened_the_older_stays() {
        let mut roster = Roster::new(LOW);
        for (index, port) in [(1, 50_001), (2, 50_002)] {
            let fresh = roster.handle_connected(conn(0, index), address(port), Origin::Incoming, HIGH);
            assert_eq!(fresh, None, "it has not said where it listens");
        }
        assert_eq!(roster.handle_listens(conn(0, 1), 6881), None);
        assert_eq!(roster.handle_listens(conn(0, 2), 6881), Some(conn(0, 2)));
        assert_eq!(roster.handle_listens(conn(0, 2), 6882), None, "it is on its way out");
    }

    #[test]
    fn p5_neither_the_address_nor_the_peer_id_alone_makes_a_duplicate() {
        let mut roster = Roster::new(LOW);
        let mut enter = |index, peer_id, port, listens| {
            let fresh = roster.handle_connected(conn(0, index), address(port), Origin::Incoming, peer_id);
            (fresh, roster.handle_listens(conn(0, index), listens))
        };
        assert_eq!(enter(1, HIGH, 50_001, 6881), (None, None));
        assert_eq!(enter(2, PeerId([3; 20]), 50_002, 6881), (None, None), "a neighbour behind one NAT");
        assert_eq!(enter(3, HIGH, 50_003, 6882), (None, None), "somebody with a stolen name");
        // The second word of the first peer does not make it the third.
        assert_eq!(roster.handle_listens(conn(0, 1), 6882), None);
    }

    #[test]
    fn a_peer_is_dialled_again_only_when_its_last_connection_has_ended() {
        let mut roster = Roster::new(HIGH);
        roster.add("[::ffff:10.0.0.1]:1".parse().unwrap(), Source::Tracker, NOW);
        assert_eq!(roster.candidates.poll_dial(NOW), Some(address(1)));
        // It came to us meanwhile; our dial fails.
        assert_eq!(roster.handle_connected(conn(0, 1), address(9), Origin::Incoming, LOW), None);
        assert_eq!(roster.handle_listens(conn(0, 1), 1), None);
        roster.handle_gone(Some(conn(1, 1)), address(1), Farewell::DialFailed, NOW);
        roster.handle_gone(None, address(1), Farewell::DialFailed, NOW);
        assert_eq!(roster.candidates.poll_timeout(), None);
        roster.handle_gone(Some(conn(0, 1)), address(9), Farewell::Gone, NOW);
        assert!(roster.candidates.poll_timeout().is_some());
        assert!(roster.links.is_empty() && roster.homes.is_empty());
    }

    #[test]
    fn a_private_torrent_parts_from_all_but_the_operators_peers() {
        let mut roster = Roster::new(HIGH);
        roster.add(address(1), Source::Operator, NOW);
        roster.add(address(2), Source::Tracker, NOW);
        roster.add(address(3), Source::Tracker, NOW);
        assert_eq!(std::iter::from_fn(|| roster.candidates.poll_dial(NOW)).count(), 3);
        for index in 1..=2 {
            let dialled = address(index as u16);
            assert_eq!(roster.handle_connected(conn(0, index), dialled, Origin::Outgoing, LOW), None);
        }
        assert_eq!(roster.handle_connected(conn(1, 9), address(9), Origin::Incoming, LOW), None);
        assert_eq!(roster.part(), [conn(0, 2), conn(1, 9)]);
        let late = roster.handle_connected(conn(0, 3), address(3), Origin::Outgoing, LOW);
        assert_eq!(late, Some(conn(0, 3)), "its dial was out when the tracker changed");
        for (conn, port) in [(conn(0, 2), 2), (conn(1, 9), 9), (conn(0, 3), 3)] {
            roster.handle_gone(Some(conn), address(port), Farewell::Useless, NOW);
        }
        assert_eq!((roster.candidates.len(), roster.candidates.dialing()), (1, 0));
        roster.add(address(2), Source::Tracker, NOW);
        assert_eq!(roster.candidates.poll_dial(NOW), Some(address(2)), "the new tracker named it too");
    }
}
