//! Whom to tell of whom (BEP 11): what the peer exchange of one torrent says, over all cores. On the control
//! thread; sans-io.
//!
//! Members are numbered as they come. What a listener was told is a range of numbers: it begins somewhere
//! in the swarm, so that not all newcomers are sent to the same peers, grows upwards by who came since, and
//! downwards while there is room. So there is no list of what each was told, and of who left only those are
//! dropped whom the listener knows from us.
//!
//! A listener with nothing new to hear costs nothing until somebody comes or goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;

use crate::base::address::AddressClass;
use crate::base::ids::CoreConn;
use crate::base::limits::{PEX_DROPPED_MAX, PEX_INTERVAL, PEX_TOLD_MAX};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::proto::wire::pex::{PexFlags, PexMessage};

/// A peer that can be dialled, by how many connections we know it, and its number.
#[derive(Clone, Copy, Debug)]
struct Member {
    number: u64,
    conns: u32,
    flags: PexFlags,
}

/// Somebody who left.
#[derive(Clone, Copy, Debug)]
struct Left {
    home: SocketAddr,
    number: u64,
}

#[derive(Clone, Debug)]
struct Listener {
    /// Where it is at home: it is not told of itself.
    home: SocketAddr,
    /// Numbers of those that it was told of, or that it is not to hear of.
    told: Range<u64>,
    /// How many had left when it was last told of that.
    left_seen: u64,
    /// Nothing is said before.
    earliest: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Gossip {
    rng: Rng,
    members: BTreeMap<u64, SocketAddr>,
    homes: HashMap<SocketAddr, Member>,
    conns: HashMap<CoreConn, SocketAddr>,
    /// The number of the next member.
    next: u64,
    /// Those who left last; at most `PEX_DROPPED_MAX`.
    left: VecDeque<Left>,
    /// How many have left.
    left_count: u64,
    listeners: HashMap<CoreConn, Listener>,
    /// Listeners that may have something to hear, by when they may.
    armed: BTreeSet<(Instant, CoreConn)>,
    /// Those that have not.
    idle: BTreeSet<CoreConn>,
}

impl Gossip {
    /// Nobody is known.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            members: BTreeMap::new(),
            homes: HashMap::new(),
            conns: HashMap::new(),
            next: 0,
            left: VecDeque::new(),
            left_count: 0,
            listeners: HashMap::new(),
            armed: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    /// The peer of `conn` can be dialled at `home`.
    pub fn handle_home(&mut self, conn: CoreConn, home: SocketAddr, flags: PexFlags) {
        if home.port() == 0 || self.conns.contains_key(&conn) {
            return;
        }
        self.conns.insert(conn, home);
        if let Some(member) = self.homes.get_mut(&home) {
            member.conns += 1;
            member.flags = member.flags.with(flags);
            return;
        }
        self.homes.insert(home, Member { number: self.next, conns: 1, flags });
        self.members.insert(self.next, home);
        self.next += 1;
        self.arm_idle();
    }

    /// More is known of the peer of `conn`, if it can be dialled.
    pub fn handle_flags(&mut self, conn: CoreConn, flags: PexFlags) {
        if let Some(member) = self.conns.get(&conn).and_then(|home| self.homes.get_mut(home)) {
            member.flags = member.flags.with(flags);
        }
    }

    /// The peer of `conn`, at home at `home` as far as is known, wants to hear of others.
    pub fn handle_listener(&mut self, conn: CoreConn, home: SocketAddr, now: Instant) {
        let begin = self.members.keys().next().copied().unwrap_or(self.next);
        let span = u32::try_from(self.next - begin).unwrap_or(u32::MAX);
        let pivot = begin + u64::from(self.rng.below(span));
        let listener = Listener { home, told: pivot..pivot, left_seen: self.left_count, earliest: now };
        if self.listeners.insert(conn, listener).is_none() {
            self.armed.insert((now, conn));
        }
    }

    /// A connection ended.
    pub fn handle_gone(&mut self, conn: CoreConn) {
        self.idle.remove(&conn);
        if let Some(listener) = self.listeners.remove(&conn) {
            self.armed.remove(&(listener.earliest, conn));
        }
        let Some(home) = self.conns.remove(&conn) else { return };
        let Some(member) = self.homes.get_mut(&home) else { return };
        member.conns -= 1;
        if member.conns > 0 {
            return;
        }
        let number = member.number;
        self.homes.remove(&home);
        self.members.remove(&number);
        self.left.push_back(Left { home, number });
        self.left_count += 1;
        if self.left.len() > PEX_DROPPED_MAX {
            self.left.pop_front();
        }
        self.arm_idle();
    }

    /// The next message that is due, and to whom.
    pub fn poll_message(&mut self, now: Instant) -> Option<(CoreConn, PexMessage)> {
        while let Some(&(at, conn)) = self.armed.first().filter(|(at, _)| *at <= now) {
            self.armed.remove(&(at, conn));
            let Some(mut listener) = self.listeners.remove(&conn) else { continue };
            let message = self.compose(&mut listener);
            let all =
                listener.told.end == self.next && self.members.range(..listener.told.start).next().is_none();
            if !message.is_empty() {
                listener.earliest = now + PEX_INTERVAL;
            }
            if all {
                self.idle.insert(conn);
            } else {
                self.armed.insert((listener.earliest, conn));
            }
            self.listeners.insert(conn, listener);
            if !message.is_empty() {
                return Some((conn, message));
            }
        }
        None
    }

    /// When `poll_message` may have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.armed.first().map(|&(at, _)| at)
    }

    /// Whether nobody listens.
    pub fn is_silent(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Something has changed: who had nothing to hear may have now.
    fn arm_idle(&mut self) {
        for conn in std::mem::take(&mut self.idle) {
            if let Some(listener) = self.listeners.get(&conn) {
                self.armed.insert((listener.earliest, conn));
            }
        }
    }

    /// What a listener is told next.
    fn compose(&self, listener: &mut Listener) -> PexMessage {
        let dropped = self.dropped(listener);
        listener.left_seen = self.left_count;
        let mut added = Vec::new();
        for (&number, &home) in self.members.range(listener.told.end..) {
            if added.len() == PEX_TOLD_MAX {
                break;
            }
            listener.told.end = number + 1;
            self.extend(&mut added, listener.home, home);
        }
        if added.len() < PEX_TOLD_MAX {
            listener.told.end = self.next;
        }
        for (&number, &home) in self.members.range(..listener.told.start).rev() {
            if added.len() == PEX_TOLD_MAX {
                break;
            }
            listener.told.start = number;
            self.extend(&mut added, listener.home, home);
        }
        PexMessage { added, dropped }
    }

    fn extend(&self, added: &mut Vec<(SocketAddr, PexFlags)>, to: SocketAddr, home: SocketAddr) {
        if may_hear(to, home) {
            added.push((home, self.homes.get(&home).map_or_else(PexFlags::default, |member| member.flags)));
        }
    }

    /// Who left of those that the listener was told of, and has not come back.
    fn dropped(&self, listener: &Listener) -> Vec<SocketAddr> {
        let unseen = (self.left_count - listener.left_seen) as usize;
        let skip = self.left.len().saturating_sub(unseen);
        let gone = self.left.iter().skip(skip).filter(|left| {
            let known = listener.told.contains(&left.number) && may_hear(listener.home, left.home);
            known && !self.homes.contains_key(&left.home)
        });
        gone.map(|left| left.home).take(PEX_TOLD_MAX).collect()
    }
}

/// Whether who is at home at `to` may be told of `home`: not of itself, and not of what only we can reach.
/// As we see its address, so it sees ours.
fn may_hear(to: SocketAddr, home: SocketAddr) -> bool {
    to != home && AddressClass::of(to.ip()).may_name(AddressClass::of(home.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, CoreId};
    use crate::base::time::Span;

    const NOW: Instant = Instant(1_000_000_000_000);
    const PLAIN: PexFlags = PexFlags(0);

    fn conn(index: u32) -> CoreConn {
        CoreConn { core: CoreId((index % 2) as u8), conn: ConnId { index, generation: 0 } }
    }

    fn home(index: u32) -> SocketAddr {
        SocketAddr::from(([8, 8, (index >> 8) as u8, index as u8], 6881))
    }

    fn gossip() -> Gossip {
        Gossip::new(Rng::new(1))
    }

    /// A peer that speaks the extension and can be dialled.
    fn join(gossip: &mut Gossip, index: u32, now: Instant) {
        gossip.handle_home(conn(index), home(index), PLAIN);
        gossip.handle_listener(conn(index), home(index), now);
    }

    /// Who is told what at `now`: listener, added, dropped.
    fn told(gossip: &mut Gossip, now: Instant) -> Vec<(u32, Vec<SocketAddr>, Vec<SocketAddr>)> {
        std::iter::from_fn(|| gossip.poll_message(now))
            .map(|(to, message)| {
                let added = message.added.into_iter().map(|(address, _)| address).collect();
                (to.conn.index, added, message.dropped)
            })
            .collect()
    }

    #[test]
    fn a_newcomer_is_told_at_once_and_the_others_are_told_of_it() {
        let mut gossip = gossip();
        join(&mut gossip, 1, NOW);
        assert_eq!(told(&mut gossip, NOW), []);
        assert_eq!(gossip.poll_timeout(), None, "nobody to tell of costs nothing");
        join(&mut gossip, 2, NOW);
        let both = [(1, vec![home(2)], vec![]), (2, vec![home(1)], vec![])];
        let mut news = told(&mut gossip, NOW);
        news.sort_unstable();
        assert_eq!(news, both);
        assert_eq!(gossip.poll_timeout(), None);
    }

    #[test]
    fn nobody_hears_more_often_than_once_in_the_interval() {
        let mut gossip = gossip();
        for index in 1..=3 {
            join(&mut gossip, index, NOW);
        }
        assert_eq!(told(&mut gossip, NOW).len(), 3);
        join(&mut gossip, 4, NOW + Span::from_secs(1));
        let news = told(&mut gossip, NOW + Span::from_secs(1));
        assert_eq!(news.len(), 1, "only the newcomer: {news:?}");
        let due = NOW + PEX_INTERVAL;
        assert_eq!(gossip.poll_timeout(), Some(due));
        assert_eq!(told(&mut gossip, Instant(due.0 - 1)), []);
        let news = told(&mut gossip, due);
        assert!(news.len() == 3 && news.iter().all(|(_, added, _)| *added == [home(4)]), "{news:?}");
    }

    #[test]
    fn a_message_names_so_many_and_each_member_is_named_once() {
        for count in [PEX_TOLD_MAX - 1, PEX_TOLD_MAX, PEX_TOLD_MAX + 1, 5 * PEX_TOLD_MAX] {
            let mut gossip = gossip();
            for index in 0..count as u32 {
                gossip.handle_home(conn(index), home(index), PLAIN);
            }
            gossip.handle_listener(conn(9_999), home(9_999), NOW);
            let (mut heard, mut now) = (Vec::new(), NOW);
            while let Some(at) = gossip.poll_timeout() {
                now = now.max(at);
                let (_, message) = gossip.poll_message(now).expect("what is due is said");
                assert!((1..=PEX_TOLD_MAX).contains(&message.added.len()));
                heard.extend(message.added.into_iter().map(|(address, _)| address));
            }
            assert_eq!(now, NOW + Span(PEX_INTERVAL.0 * (count.div_ceil(PEX_TOLD_MAX) as u64 - 1)));
            heard.sort_unstable();
            let mut all: Vec<_> = (0..count as u32).map(home).collect();
            all.sort_unstable();
            assert_eq!(heard, all);
        }
    }

    #[test]
    fn newcomers_are_not_all_sent_to_the_same_peers() {
        let mut gossip = gossip();
        (0..1_000).for_each(|index| gossip.handle_home(conn(index), home(index), PLAIN));
        let mut heard = BTreeSet::new();
        for index in 2_000..2_020 {
            gossip.handle_listener(conn(index), home(index), NOW);
            let (_, message) = gossip.poll_message(NOW).unwrap();
            heard.extend(message.added.into_iter().map(|(address, _)| address));
        }
        assert!(heard.len() > 8 * PEX_TOLD_MAX, "{}", heard.len());
    }

    #[test]
    fn who_left_is_dropped_for_those_who_were_told_and_who_came_back_is_not() {
        let mut gossip = gossip();
        for index in 1..=4 {
            join(&mut gossip, index, NOW);
        }
        assert_eq!(told(&mut gossip, NOW).len(), 4);
        gossip.handle_gone(conn(2));
        gossip.handle_gone(conn(3));
        let later = NOW + Span::from_secs(30);
        join(&mut gossip, 5, later);
        let news = told(&mut gossip, later);
        assert!(news.len() == 1 && news[0].1.len() == 2 && news[0].2.is_empty(), "{news:?}");
        // The third comes back, and somebody comes and goes that nobody heard of.
        gossip.handle_home(conn(13), home(3), PLAIN);
        join(&mut gossip, 6, later);
        gossip.handle_gone(conn(6));
        let news = told(&mut gossip, NOW + PEX_INTERVAL);
        let to_first = news.iter().find(|(to, ..)| *to == 1).unwrap();
        assert_eq!(*to_first, (1, vec![home(5), home(3)], vec![home(2)]));
    }

    #[test]
    fn of_two_connections_to_one_home_the_last_that_ends_drops_it() {
        let mut gossip = gossip();
        gossip.handle_home(conn(1), home(1), PLAIN);
        gossip.handle_home(conn(2), home(1), PexFlags::SEED);
        gossip.handle_listener(conn(3), home(3), NOW);
        let (_, message) = gossip.poll_message(NOW).unwrap();
        assert_eq!(message.added, [(home(1), PexFlags::SEED)]);
        gossip.handle_gone(conn(1));
        assert_eq!(gossip.poll_timeout(), None);
        gossip.handle_gone(conn(2));
        let (_, message) = gossip.poll_message(NOW + PEX_INTERVAL).unwrap();
        assert_eq!(message.dropped, [home(1)]);
    }

    #[test]
    fn so_many_who_left_are_remembered_and_so_many_told() {
        for count in [PEX_DROPPED_MAX - 1, PEX_DROPPED_MAX, PEX_DROPPED_MAX + 1] {
            let mut gossip = gossip();
            (0..count as u32).for_each(|index| gossip.handle_home(conn(index), home(index), PLAIN));
            (0..count as u32).for_each(|index| gossip.handle_gone(conn(index)));
            assert_eq!(gossip.left.len(), count.min(PEX_DROPPED_MAX));
        }
        for count in [PEX_TOLD_MAX - 1, PEX_TOLD_MAX, PEX_TOLD_MAX + 1] {
            let mut gossip = gossip();
            (0..count as u32).for_each(|index| gossip.handle_home(conn(index), home(index), PLAIN));
            gossip.handle_listener(conn(9_999), home(9_999), NOW);
            let soon = NOW + PEX_INTERVAL;
            while gossip.poll_message(soon).is_some() {}
            let later = soon + PEX_INTERVAL;
            while gossip.poll_message(later).is_some() {}
            (0..count as u32).for_each(|index| gossip.handle_gone(conn(index)));
            let (_, message) = gossip.poll_message(later + PEX_INTERVAL).unwrap();
            assert_eq!(message.dropped.len(), count.min(PEX_TOLD_MAX));
        }
    }

    #[test]
    fn n3_nobody_is_told_of_what_only_we_can_reach_or_of_itself() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let members = ["127.0.0.1:1", "10.0.0.1:1", "8.8.4.4:1"].map(at);
        for (listener, hears) in
            [("127.0.0.1:1", &members[1..]), ("10.0.0.9:1", &members[1..]), ("9.9.9.9:1", &members[2..])]
        {
            let mut gossip = gossip();
            for (index, &member) in members.iter().enumerate() {
                gossip.handle_home(conn(index as u32), member, PLAIN);
            }
            gossip.handle_listener(conn(99), at(listener), NOW);
            let mut added: Vec<_> =
                gossip.poll_message(NOW).unwrap().1.added.into_iter().map(|(address, _)| address).collect();
            added.sort_unstable();
            let mut want = hears.to_vec();
            want.sort_unstable();
            assert_eq!(added, want, "{listener}");
            assert_eq!(gossip.poll_timeout(), None);
        }
    }

    #[test]
    fn connections_that_end_leave_nothing_behind() {
        let mut gossip = gossip();
        for index in 0..50 {
            join(&mut gossip, index, NOW);
            let _ = gossip.poll_message(NOW);
        }
        (0..50).for_each(|index| gossip.handle_gone(conn(index)));
        assert!(gossip.is_silent() && gossip.armed.is_empty() && gossip.idle.is_empty());
        assert!(gossip.members.is_empty() && gossip.homes.is_empty() && gossip.conns.is_empty());
    }
}
