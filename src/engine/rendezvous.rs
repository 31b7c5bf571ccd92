//! Brings two peers together that cannot reach one another alone (BEP 55): who asks, whom it may have, and
//! how often. One per torrent, on the control thread; sans-io.
//!
//! We relay only between peers that are connected to us and both speak the extension, and tell each of
//! the other's home. One question brings two small messages at most, and neither side may be asked more often
//! than `PUNCH_INTERVAL` allows: nobody is flooded through us (threat P43).
//!
//! We ask ourselves when a peer cannot be dialled whom somebody named that is still connected to us and
//! speaks the extension: so often for each target, and each of those whom we ask. Both sides then dial by TCP
//! from any port: so we come together with who is behind a NAT if we are behind none, or the other way round;
//! two that are both behind one stay apart, since neither dials from the port that the other one dials.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::exchange::Trickle;
use super::roster::Roster;
use crate::base::address::AddressClass;
use crate::base::ids::CoreConn;
use crate::base::limits::{PUNCH_ASKS_PER_TARGET_MAX, PUNCH_INTERVAL, PUNCH_TARGETS_MAX, PUNCHES_AT_ONCE};
use crate::base::time::Instant;
use crate::proto::wire::holepunch::{PunchError, PunchKind, PunchMessage};

/// A peer that speaks the extension: how often it may still be spoken to, and asked by us.
#[derive(Debug)]
struct Speaker {
    spoken_to: Trickle,
    asked: Trickle,
}

/// Who named somebody, and how often it was asked to bring us together.
#[derive(Debug)]
struct Target {
    named_by: CoreConn,
    asks: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rendezvous {
    /// By their connections.
    speakers: HashMap<CoreConn, Speaker>,
    /// Peers that speakers named; at most `PUNCH_TARGETS_MAX`.
    targets: HashMap<SocketAddr, Target>,
}

impl Rendezvous {
    /// The peer of `conn` speaks the extension.
    pub fn handle_speaker(&mut self, conn: CoreConn, now: Instant) {
        let full = Trickle::new(PUNCHES_AT_ONCE, now);
        self.speakers.entry(conn).or_insert(Speaker { spoken_to: full, asked: full });
    }

    /// A connection ended.
    pub fn handle_gone(&mut self, conn: CoreConn) {
        if self.speakers.remove(&conn).is_some() {
            self.targets.retain(|_, target| target.named_by != conn);
        }
    }

    /// The peer of `conn` named addresses that are going to be dialled.
    /// Of those that were named before, `may_be_dialled` says who is still of interest.
    pub fn handle_named(
        &mut self,
        conn: CoreConn,
        addresses: &[SocketAddr],
        may_be_dialled: impl Fn(SocketAddr) -> bool,
    ) {
        if !self.speakers.contains_key(&conn) {
            return;
        }
        if self.targets.len() + addresses.len() > PUNCH_TARGETS_MAX {
            self.targets.retain(|&address, _| may_be_dialled(address));
        }
        for &address in addresses {
            if self.targets.len() >= PUNCH_TARGETS_MAX {
                return;
            }
            self.targets.insert(address, Target { named_by: conn, asks: 0 });
        }
    }

    /// A dial failed. Who is to be asked for a rendezvous, if anybody is.
    pub fn handle_dial_failed(
        &mut self,
        address: SocketAddr,
        now: Instant,
    ) -> Option<(CoreConn, PunchMessage)> {
        let target = self.targets.get_mut(&address)?;
        let named_by = target.named_by;
        let asked = &mut self.speakers.get_mut(&named_by)?.asked;
        if !asked.take(PUNCHES_AT_ONCE, PUNCH_INTERVAL, now) {
            return None;
        }
        target.asks += 1;
        if target.asks >= PUNCH_ASKS_PER_TARGET_MAX {
            self.targets.remove(&address);
        }
        Some((named_by, PunchMessage { kind: PunchKind::Rendezvous, address }))
    }

    /// `asking` wants to meet the peer at `target`: what is said to whom.
    pub fn handle_question(
        &mut self,
        asking: CoreConn,
        target: SocketAddr,
        roster: &Roster,
        now: Instant,
    ) -> Vec<(CoreConn, PunchMessage)> {
        if !self.may(asking, now) {
            return Vec::new();
        }
        let Some(home) = roster.home(asking) else { return Vec::new() };
        match self.find(asking, home, target, roster, now) {
            Ok(Some(other)) => {
                let connect = |address| PunchMessage { kind: PunchKind::Connect, address };
                vec![(other, connect(home)), (asking, connect(target))]
            }
            Ok(None) => Vec::new(),
            Err(error) => vec![(asking, PunchMessage { kind: PunchKind::Error(error), address: target })],
        }
    }

    /// The connection of the target; `None` if it was asked too often.
    fn find(
        &mut self,
        asking: CoreConn,
        home: SocketAddr,
        target: SocketAddr,
        roster: &Roster,
        now: Instant,
    ) -> Result<Option<CoreConn>, PunchError> {
        let class = AddressClass::of(target.ip());
        if target.port() == 0 || !class.is_host() {
            return Err(PunchError::NoSuchPeer);
        }
        if target == home {
            return Err(PunchError::NoSelf);
        }
        // Each is named to the other: both must be where the other may be sent.
        let asks = AddressClass::of(home.ip());
        let other = roster.connected_at(target).filter(|_| asks.may_name(class) && class.may_name(asks));
        let other = other.ok_or(PunchError::NotConnected)?;
        if other == asking {
            return Err(PunchError::NoSelf);
        }
        if !self.speakers.contains_key(&other) {
            return Err(PunchError::NoSupport);
        }
        Ok(self.may(other, now).then_some(other))
    }

    fn may(&mut self, conn: CoreConn, now: Instant) -> bool {
        let speaker = self.speakers.get_mut(&conn);
        speaker.is_some_and(|speaker| speaker.spoken_to.take(PUNCHES_AT_ONCE, PUNCH_INTERVAL, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, CoreId, PeerId};
    use crate::engine::peer::Origin;

    const NOW: Instant = Instant(1_000_000_000_000);

    fn conn(index: u32) -> CoreConn {
        CoreConn { core: CoreId((index % 2) as u8), conn: ConnId { index, generation: 0 } }
    }

    fn home(index: u32) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, index as u8], 6881))
    }

    /// A node to which peers 1 to 3 have come, the first two of which speak the extension.
    fn node() -> (Rendezvous, Roster) {
        let (mut rendezvous, mut roster) = (Rendezvous::default(), Roster::new(PeerId([9; 20])));
        for index in 1..=3 {
            let from = SocketAddr::new(home(index).ip(), 50_000);
            let peer_id = PeerId([index as u8; 20]);
            assert_eq!(roster.handle_connected(conn(index), from, Origin::Incoming, peer_id), None);
            assert_eq!(roster.handle_listens(conn(index), 6881), None);
        }
        rendezvous.handle_speaker(conn(1), NOW);
        rendezvous.handle_speaker(conn(2), NOW);
        (rendezvous, roster)
    }

    const fn connect(address: SocketAddr) -> PunchMessage {
        PunchMessage { kind: PunchKind::Connect, address }
    }

    #[test]
    fn each_of_two_is_told_of_the_other() {
        let (mut rendezvous, roster) = node();
        let said = rendezvous.handle_question(conn(1), home(2), &roster, NOW);
        assert_eq!(said, [(conn(2), connect(home(1))), (conn(1), connect(home(2)))]);
    }

    #[test]
    fn who_cannot_be_had_is_an_error_with_its_reason() {
        let (mut rendezvous, roster) = node();
        for (target, error) in [
            (home(1), PunchError::NoSelf),
            (home(3), PunchError::NoSupport),
            (home(4), PunchError::NotConnected),
            ("10.0.0.1:1".parse().unwrap(), PunchError::NotConnected),
            ("224.0.0.1:1".parse().unwrap(), PunchError::NoSuchPeer),
            ("8.8.8.2:0".parse().unwrap(), PunchError::NoSuchPeer),
        ] {
            let said = rendezvous.handle_question(conn(1), target, &roster, NOW);
            assert_eq!(said, [(conn(1), PunchMessage { kind: PunchKind::Error(error), address: target })]);
        }
        assert_eq!(rendezvous.handle_question(conn(3), home(1), &roster, NOW), [], "who does not speak it");
    }

    #[test]
    fn who_named_a_peer_that_cannot_be_dialled_is_asked_for_it_so_often() {
        let (mut rendezvous, _) = node();
        rendezvous.handle_named(conn(1), &[home(7)], |_| true);
        rendezvous.handle_named(conn(3), &[home(8)], |_| true);
        let question = |address| PunchMessage { kind: PunchKind::Rendezvous, address };
        for _ in 0..PUNCH_ASKS_PER_TARGET_MAX {
            assert_eq!(rendezvous.handle_dial_failed(home(7), NOW), Some((conn(1), question(home(7)))));
        }
        assert_eq!(rendezvous.handle_dial_failed(home(7), NOW), None, "often enough");
        assert_eq!(rendezvous.handle_dial_failed(home(8), NOW), None, "named by who does not speak it");
        assert_eq!(rendezvous.handle_dial_failed(home(9), NOW), None, "named by nobody");
        rendezvous.handle_named(conn(2), &[home(9)], |_| true);
        rendezvous.handle_gone(conn(2));
        assert_eq!(rendezvous.handle_dial_failed(home(9), NOW), None, "who named it is gone");
        assert!(rendezvous.targets.is_empty());
    }

    #[test]
    fn p43_we_ask_nobody_more_often_than_so_and_remember_so_many() {
        let (mut rendezvous, _) = node();
        let at = |n: u32| SocketAddr::from(([9, (n >> 16) as u8, (n >> 8) as u8, n as u8], 1));
        let named: Vec<SocketAddr> = (0..=PUNCH_TARGETS_MAX as u32).map(at).collect();
        rendezvous.handle_named(conn(1), &named, |_| true);
        assert_eq!(rendezvous.targets.len(), PUNCH_TARGETS_MAX);
        let mut asks = |now| named.iter().filter_map(|&to| rendezvous.handle_dial_failed(to, now)).count();
        assert_eq!(asks(NOW), PUNCHES_AT_ONCE as usize);
        assert_eq!((asks(NOW + PUNCH_INTERVAL), asks(NOW + PUNCH_INTERVAL)), (1, 0));
    }

    #[test]
    fn p43_neither_who_asks_nor_who_is_asked_for_is_spoken_to_more_often_than_so() {
        let (mut rendezvous, roster) = node();
        rendezvous.handle_speaker(conn(3), NOW);
        let asks = |rendezvous: &mut Rendezvous, index, now| {
            rendezvous.handle_question(conn(index), home(2), &roster, now).len()
        };
        let said: Vec<usize> = (0..PUNCHES_AT_ONCE + 1).map(|_| asks(&mut rendezvous, 1, NOW)).collect();
        assert!(said[..PUNCHES_AT_ONCE as usize].iter().all(|&count| count == 2) && said.last() == Some(&0));
        assert_eq!(asks(&mut rendezvous, 3, NOW), 0, "the second was asked often enough");
        let later = NOW + PUNCH_INTERVAL;
        assert_eq!((asks(&mut rendezvous, 1, later), asks(&mut rendezvous, 1, later)), (2, 0));
    }
}
