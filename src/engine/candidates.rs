//! Whom to connect to, and when to try again. One per torrent, on the control thread; sans-io.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

use super::action::Farewell;
use super::encryption::{Encryption, Manner};
use super::exchange::Trickle;
use super::priority::Rank;
use super::versions::Name;
use crate::base::address::AddressClass;
use crate::base::limits::{
    CANDIDATE_PORTS_MAX, CANDIDATES_MAX, PUNCH_HASTE_INTERVAL, PUNCH_HASTES_INTERVAL, PUNCH_HASTES_MAX,
};
use crate::base::time::{Instant, Span};

/// Who named an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator: tried for ever, soon again.
    Operator,
    /// A tracker (BEP 3).
    Tracker,
    /// The distributed hash table (BEP 5).
    Dht,
    /// Another peer (BEP 11).
    Pex,
    /// A multicast on the local network (BEP 14).
    Lsd,
}

impl Source {
    /// Whether somebody else's word is all there is: tried a few times, then forgotten.
    pub const fn is_hint(self) -> bool {
        !matches!(self, Self::Operator)
    }

    /// Whether it may name peers of a private torrent (BEP 27).
    pub const fn may_name_private(self) -> bool {
        matches!(self, Self::Operator | Self::Tracker)
    }
}

/// First wait after a failed dial of an address that the operator gave, and the longest.
const OPERATOR_WAITS: (Span, Span) = (Span::from_ms(250), Span::from_secs(4));

/// The same for hints.
const HINT_WAITS: (Span, Span) = (Span::from_secs(10), Span::from_secs(1800));

/// Failures after which a hint is forgotten.
const HINT_FAILURES_MAX: u32 = 6;

/// Wait after the other side, or we, found the connection useless.
const USELESS_WAIT: Span = Span::from_secs(300);

/// Connections being made at a time.
const DIALING_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialing,
    Connected,
}

#[derive(Debug)]
struct Candidate {
    source: Source,
    /// Among those that are due at the same time.
    rank: Rank,
    state: State,
    failures: u32,
    /// How it is dialled next.
    manner: Manner,
    /// By which name of the torrent, and under which it was found.
    name: Name,
    found: Name,
    /// When it was last said to wait for us.
    hastened: Option<Instant>,
    /// How often it may still be.
    hastes: Trickle,
}

/// The known addresses of a torrent's peers. Invariant: at most `CANDIDATES_MAX`, and those that the
/// operator named.
#[derive(Debug, Default)]
pub struct Candidates {
    /// In the order of addresses, so that a run can be repeated.
    known: BTreeMap<SocketAddr, Candidate>,
    /// Those that wait, by when they are due.
    waiting: BTreeSet<(Instant, Rank, SocketAddr)>,
    /// Where others see us, as far as known: ranks hang on it.
    own: Option<SocketAddr>,
    /// How many are being dialled.
    dialing: usize,
    encryption: Encryption,
    names: Names,
}

/// By how many names the torrent is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// By one.
    #[default]
    One,
    /// It is a hybrid (BEP 52), and has a swarm by each of its names.
    Two,
}

impl Candidates {
    /// An address was named. Hints beyond the limit are dropped.
    pub fn add(&mut self, address: SocketAddr, source: Source, now: Instant) {
        self.add_by(address, (source, Name::First), now);
    }

    /// The same, of somebody who knows the torrent by `name`.
    pub fn add_by(&mut self, address: SocketAddr, (source, name): (Source, Name), now: Instant) {
        if address.port() == 0 || address.ip().is_unspecified() {
            return;
        }
        let room = source == Source::Operator || self.has_room(address, source);
        match self.known.get_mut(&address) {
            Some(candidate) => {
                if source == Source::Operator {
                    candidate.source = source;
                }
                // Who is in both swarms knows v2 as well, and accepts our offer to go on with it.
                if name == Name::First && candidate.found == Name::Second {
                    (candidate.name, candidate.found) = (name, name);
                }
            }
            None if room => {
                let state = State::Waiting(now);
                let rank = Rank::of(address, self.own);
                let manner = self.encryption.first();
                let candidate = Candidate {
                    source,
                    rank,
                    state,
                    failures: 0,
                    manner,
                    name,
                    found: name,
                    hastened: None,
                    hastes: Trickle::new(PUNCH_HASTES_MAX, now),
                };
                self.known.insert(address, candidate);
                self.waiting.insert((now, rank, address));
            }
            None => {}
        }
    }

    /// Whether a hint is taken: not everything that anybody can say leaves room for what trackers say, and
    /// nobody has us dial many ports of a stranger.
    fn has_room(&self, address: SocketAddr, source: Source) -> bool {
        let most =
            if source.may_name_private() { CANDIDATES_MAX } else { CANDIDATES_MAX - CANDIDATES_MAX / 4 };
        let of_host = |port| SocketAddr::new(address.ip(), port);
        let ports = self.known.range(of_host(0)..=of_host(u16::MAX)).take(CANDIDATE_PORTS_MAX).count();
        let stranger = AddressClass::of(address.ip()).is_stranger();
        self.known.len() < most && (!stranger || ports < CANDIDATE_PORTS_MAX)
    }

    /// Others see us at `own`: by that peers are ranked (BEP 40).
    pub fn set_own(&mut self, own: SocketAddr) {
        if self.own.replace(own) == Some(own) {
            return;
        }
        for (address, candidate) in &mut self.known {
            let before = std::mem::replace(&mut candidate.rank, Rank::of(*address, Some(own)));
            if let State::Waiting(at) = candidate.state {
                self.waiting.remove(&(at, before, *address));
                self.waiting.insert((at, candidate.rank, *address));
            }
        }
    }

    /// The next address to dial, if one is due. The caller answers by `handle_gone` or, after the
    /// handshake, `handle_connected`.
    pub fn poll_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        let &(at, _, address) = self.waiting.first().filter(|_| self.dialing < DIALING_MAX)?;
        if at > now {
            return None;
        }
        self.change(address, State::Dialing);
        Some(address)
    }

    /// How an address is to be dialled that `poll_dial` named.
    pub fn manner(&self, address: SocketAddr) -> Manner {
        self.known.get(&address).map_or_else(|| self.encryption.first(), |candidate| candidate.manner)
    }

    /// By which name of the torrent it is to be dialled.
    pub fn name(&self, address: SocketAddr) -> Name {
        self.known.get(&address).map_or(Name::First, |candidate| candidate.name)
    }

    /// By how many names the torrent is known.
    pub const fn set_names(&mut self, names: Names) {
        self.names = names;
    }

    /// How addresses are dialled that are named from now on.
    pub const fn set_encryption(&mut self, encryption: Encryption) {
        self.encryption = encryption;
    }

    /// When `poll_dial` may have something; `None` if only an event can bring it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.first().filter(|_| self.dialing < DIALING_MAX).map(|&(at, ..)| at)
    }

    /// A peer at this address is connected, whoever opened the connection.
    pub fn handle_connected(&mut self, address: SocketAddr) {
        if let Some(candidate) = self.change(address, State::Connected) {
            candidate.failures = 0;
        }
    }

    /// A connection with this address ended, or was never made.
    pub fn handle_gone(&mut self, address: SocketAddr, why: Farewell, now: Instant) {
        let Some(candidate) = self.known.get_mut(&address) else { return };
        let operator = candidate.source == Source::Operator;
        let (first, longest) = waits(candidate.source);
        let doubled = Span(first.0.saturating_mul(1 << candidate.failures.min(20)).min(longest.0));
        // It took the connection and left at our handshake: perhaps it speaks the other kind, and that is
        // tried at once, before time is given.
        let hung_up = candidate.state == State::Dialing && matches!(why, Farewell::Gone | Farewell::TimedOut);
        let manner = if hung_up { self.encryption.after(candidate.manner) } else { candidate.manner };
        let other_kind = manner != candidate.manner && manner != self.encryption.first();
        candidate.manner = manner;
        // Perhaps it knows the torrent by its other name alone (BEP 52).
        if hung_up && !other_kind && self.names == Names::Two {
            candidate.name = candidate.name.other();
        }
        let other_name = hung_up && !other_kind && candidate.name != candidate.found;
        if !other_kind && !other_name {
            candidate.failures += 1;
        }
        let (forget, wait) = match why {
            _ if other_kind || other_name => (false, Span(0)),
            Farewell::Misbehaved => (!operator, USELESS_WAIT),
            Farewell::Useless => (false, USELESS_WAIT),
            Farewell::DialFailed | Farewell::Gone | Farewell::TimedOut => {
                (!operator && candidate.failures > HINT_FAILURES_MAX, doubled)
            }
        };
        self.change(address, State::Waiting(now + wait));
        if forget {
            self.forget(address);
        }
    }

    /// Somebody there expects our dial, and may dial us: it is due now, unless it was hastened a moment ago,
    /// or too often: anybody may say so of anybody (threat P43). False if the address is not known.
    pub fn hasten(&mut self, address: SocketAddr, now: Instant) -> bool {
        let Some(candidate) = self.known.get_mut(&address) else { return false };
        let waits = matches!(candidate.state, State::Waiting(at) if at > now);
        let rested = candidate.hastened.is_none_or(|at| now.since(at) >= PUNCH_HASTE_INTERVAL);
        if waits && rested && candidate.hastes.take(PUNCH_HASTES_MAX, PUNCH_HASTES_INTERVAL, now) {
            candidate.hastened = Some(now);
            self.change(address, State::Waiting(now));
        }
        true
    }

    /// We ended a connection with this address, or a dial, for reasons of our own: it may be dialled again at
    /// once.
    pub fn handle_parted(&mut self, address: SocketAddr, now: Instant) {
        self.change(address, State::Waiting(now));
    }

    /// Something is missing again: peers that were of no use may be now.
    pub fn handle_wanting(&mut self, now: Instant) {
        self.hasten_all(now, |source| waits(source).0);
    }

    /// The metadata of a link is there: peers that had none, and those that turned us away, may be dialled
    /// at once.
    pub fn handle_metadata(&mut self, now: Instant) {
        self.hasten_all(now, |_| Span::ZERO);
    }

    /// Nobody waits for longer than that.
    fn hasten_all(&mut self, now: Instant, most: impl Fn(Source) -> Span) {
        for (address, candidate) in &mut self.known {
            let latest = now + most(candidate.source);
            if let State::Waiting(at) = &mut candidate.state
                && *at > latest
            {
                self.waiting.remove(&(*at, candidate.rank, *address));
                *at = latest;
                self.waiting.insert((*at, candidate.rank, *address));
            }
        }
    }

    /// Forgets whom the operator did not name, those that are being dialled included.
    pub fn forget_hints(&mut self) {
        self.forget_all_of(Source::is_hint);
    }

    /// The torrent turned out to be private: forgets whom nobody named who may (BEP 27).
    pub fn forget_public(&mut self) {
        self.forget_all_of(|source| !source.may_name_private());
    }

    fn forget_all_of(&mut self, goes: impl Fn(Source) -> bool) {
        let hints = self.known.iter().filter(|(_, candidate)| goes(candidate.source));
        let hints: Vec<SocketAddr> = hints.map(|(&address, _)| address).collect();
        hints.into_iter().for_each(|address| self.forget(address));
    }

    /// The address behind `last`, in the order of addresses, and again the first behind the last of all.
    pub fn next_known(&self, last: Option<SocketAddr>) -> Option<SocketAddr> {
        let behind = last.and_then(|last| self.known.range((Bound::Excluded(last), Bound::Unbounded)).next());
        behind.or_else(|| self.known.first_key_value()).map(|(&address, _)| address)
    }

    /// Whether an address was named and is not forgotten.
    pub fn knows(&self, address: SocketAddr) -> bool {
        self.known.contains_key(&address)
    }

    /// How many dials are out and not answered.
    pub const fn dialing(&self) -> usize {
        self.dialing
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget(&mut self, address: SocketAddr) {
        self.change(address, State::Connected);
        self.known.remove(&address);
    }

    /// The one place where a state changes, so that the queue and the count follow it.
    fn change(&mut self, address: SocketAddr, state: State) -> Option<&mut Candidate> {
        let candidate = self.known.get_mut(&address)?;
        match std::mem::replace(&mut candidate.state, state) {
            State::Waiting(at) => drop(self.waiting.remove(&(at, candidate.rank, address))),
            State::Dialing => self.dialing -= 1,
            State::Connected => {}
        }
        match state {
            State::Waiting(at) => drop(self.waiting.insert((at, candidate.rank, address))),
            State::Dialing => self.dialing += 1,
            State::Connected => {}
        }
        Some(candidate)
    }
}

/// First and longest wait after a failed dial.
const fn waits(source: Source) -> (Span, Span) {
    if source.is_hint() { HINT_WAITS } else { OPERATOR_WAITS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 6881))
    }

    #[test]
    fn a_failed_dial_is_tried_again_later_and_later_and_a_hint_is_forgotten_in_the_end() {
        let mut candidates = Candidates::default();
        let mut now = Instant(0);
        candidates.add(address(1), Source::Tracker, now);
        candidates.add(address(2), Source::Operator, now);
        let mut tries = BTreeMap::from([(address(1), 0), (address(2), 0)]);
        for _ in 0..400 {
            while let Some(peer) = candidates.poll_dial(now) {
                *tries.get_mut(&peer).unwrap() += 1;
                candidates.handle_gone(peer, Farewell::DialFailed, now);
            }
            now = candidates.poll_timeout().unwrap();
        }
        assert_eq!((tries[&address(1)], candidates.len()), (HINT_FAILURES_MAX + 1, 1));
        assert!(tries[&address(2)] > 300);
    }

    #[test]
    fn hints_stop_at_their_limit_and_the_operator_does_not() {
        let mut candidates = Candidates::default();
        for n in 0..CANDIDATES_MAX as u32 + 1 {
            candidates.add(address(n), Source::Tracker, Instant(0));
        }
        assert_eq!(candidates.len(), CANDIDATES_MAX);
        candidates.add(address(1 << 20), Source::Operator, Instant(0));
        assert_eq!(candidates.len(), CANDIDATES_MAX + 1);
    }

    #[test]
    fn of_peers_that_are_due_together_neighbours_are_dialled_first_and_then_by_bep_40() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let mut candidates = Candidates::default();
        let named = ["123.213.32.234:1", "98.76.54.32:1", "10.0.0.1:1"].map(at);
        named.iter().for_each(|&peer| candidates.add(peer, Source::Dht, Instant(0)));
        candidates.set_own(at("123.213.32.10:1"));
        candidates.add(at("192.168.0.1:1"), Source::Lsd, Instant(0));
        let dialled: Vec<SocketAddr> = std::iter::from_fn(|| candidates.poll_dial(Instant(0))).collect();
        assert!(dialled[..2].iter().all(|peer| !AddressClass::of(peer.ip()).is_stranger()));
        assert_eq!(dialled[2..], [named[1], named[0]]);
        assert!(candidates.waiting.is_empty());
    }

    #[test]
    fn who_hangs_up_is_dialled_the_other_way_at_once_and_then_later_and_later() {
        let mut candidates = Candidates::default();
        candidates.set_encryption(Encryption::Accept);
        candidates.add(address(1), Source::Tracker, Instant(0));
        let mut now = Instant(0);
        let mut dialled = Vec::new();
        for _ in 0..4 {
            assert_eq!(candidates.poll_dial(now), Some(address(1)));
            dialled.push((now, candidates.manner(address(1))));
            candidates.handle_gone(address(1), Farewell::Gone, now);
            now = candidates.poll_timeout().unwrap();
        }
        let manners: Vec<Manner> = dialled.iter().map(|&(_, manner)| manner).collect();
        assert_eq!(manners, [Manner::Plain, Manner::Encrypted, Manner::Plain, Manner::Encrypted]);
        assert_eq!(dialled[0].0, dialled[1].0);
        assert!(dialled[1].0 < dialled[2].0 && dialled[2].0 == dialled[3].0);
        // A connection that cannot be made at all says nothing of what is spoken there.
        assert_eq!(candidates.poll_dial(now), Some(address(1)));
        let before = candidates.manner(address(1));
        candidates.handle_gone(address(1), Farewell::DialFailed, now);
        assert_eq!(candidates.manner(address(1)), before);
    }

    #[test]
    fn who_hangs_up_is_dialled_by_the_other_name_of_a_hybrid_at_once_after_all_manners() {
        let dialled = |encryption, names, name| {
            let mut candidates = Candidates::default();
            candidates.set_encryption(encryption);
            candidates.set_names(names);
            candidates.add_by(address(1), (Source::Dht, name), Instant(0));
            let mut dialled = Vec::new();
            while candidates.poll_dial(Instant(0)).is_some() {
                dialled.push((candidates.name(address(1)), candidates.manner(address(1))));
                candidates.handle_gone(address(1), Farewell::Gone, Instant(0));
            }
            // Tries at once are one for who counts how often it failed.
            assert_eq!(candidates.known[&address(1)].failures, 1);
            dialled
        };
        let (first, second, plain) = (Name::First, Name::Second, Manner::Plain);
        assert_eq!(dialled(Encryption::Off, Names::One, first), [(first, plain)]);
        assert_eq!(dialled(Encryption::Off, Names::Two, first), [(first, plain), (second, plain)]);
        assert_eq!(dialled(Encryption::Off, Names::Two, second), [(second, plain), (first, plain)]);
        let all = [first, second].map(|name| [(name, plain), (name, Manner::Encrypted)]);
        assert_eq!(dialled(Encryption::Accept, Names::Two, first), all.as_flattened());
    }

    #[test]
    fn who_is_found_by_both_names_is_dialled_by_the_first() {
        let mut candidates = Candidates::default();
        candidates.set_names(Names::Two);
        for (name, by) in
            [(Name::Second, Name::Second), (Name::First, Name::First), (Name::Second, Name::First)]
        {
            candidates.add_by(address(1), (Source::Dht, name), Instant(0));
            assert_eq!(candidates.name(address(1)), by);
        }
    }

    #[test]
    fn p31_so_many_ports_of_a_stranger_are_dialled_and_so_much_of_the_list_is_anybodys() {
        for (host, all) in [("8.8.8.8", false), ("192.168.0.1", true)] {
            let mut candidates = Candidates::default();
            for port in 1..=CANDIDATE_PORTS_MAX as u16 + 1 {
                let address = SocketAddr::new(host.parse().unwrap(), port);
                candidates.add(address, Source::Dht, Instant(0));
                assert_eq!(candidates.knows(address), all || usize::from(port) <= CANDIDATE_PORTS_MAX);
            }
        }
        let mut candidates = Candidates::default();
        (0..CANDIDATES_MAX as u32).for_each(|n| candidates.add(address(n), Source::Dht, Instant(0)));
        assert_eq!(candidates.len(), CANDIDATES_MAX - CANDIDATES_MAX / 4);
        candidates.add(address(1 << 20), Source::Tracker, Instant(0));
        assert!(candidates.knows(address(1 << 20)));
    }

    #[test]
    fn p43_who_is_said_to_wait_is_dialled_before_its_time_once_in_a_while() {
        let mut candidates = Candidates::default();
        assert!(!candidates.hasten(address(1), Instant(0)), "nobody knows it");
        candidates.add(address(1), Source::Pex, Instant(0));
        let fail = |candidates: &mut Candidates, now| {
            assert_eq!(candidates.poll_dial(now), Some(address(1)));
            candidates.handle_gone(address(1), Farewell::DialFailed, now);
        };
        fail(&mut candidates, Instant(0));
        assert!(candidates.hasten(address(1), Instant(1)));
        fail(&mut candidates, Instant(1));
        let (early, again) = (Instant(PUNCH_HASTE_INTERVAL.0), Instant(1) + PUNCH_HASTE_INTERVAL);
        assert!(candidates.hasten(address(1), Instant(2)) && candidates.poll_dial(Instant(2)).is_none());
        fail(&mut candidates, early);
        assert!(candidates.hasten(address(1), early) && candidates.poll_dial(early).is_none());
        assert!(candidates.hasten(address(1), again));
        assert_eq!(candidates.poll_dial(again), Some(address(1)));
        assert!(candidates.hasten(address(1), again), "it is being dialled");
        assert_eq!(candidates.dialing(), 1);
    }

    #[test]
    fn p43_who_is_said_to_wait_again_and_again_is_dialled_so_often_and_no_more() {
        let dials = |candidates: &mut Candidates, now| {
            let dials = std::iter::from_fn(|| candidates.poll_dial(now)).count();
            candidates.handle_gone(address(1), Farewell::Useless, now);
            dials
        };
        let hastened = |candidates: &mut Candidates, since: Instant, times: u32| -> usize {
            let each = (1..=times).map(|time| {
                let now = Instant(since.0 + PUNCH_HASTE_INTERVAL.0 * u64::from(time));
                candidates.hasten(address(1), now);
                dials(candidates, now)
            });
            each.sum()
        };
        for said in [PUNCH_HASTES_MAX - 1, PUNCH_HASTES_MAX, PUNCH_HASTES_MAX + 1] {
            let mut candidates = Candidates::default();
            candidates.add(address(1), Source::Pex, Instant(0));
            for since in [0, 1, 2].map(|round| Instant(round << 43)) {
                assert_eq!(dials(&mut candidates, since), 1, "its time has come");
                assert_eq!(hastened(&mut candidates, since, said), said.min(PUNCH_HASTES_MAX) as usize);
            }
        }
        assert!(PUNCH_HASTES_INTERVAL.0 * u64::from(PUNCH_HASTES_MAX) < 1 << 43);
        assert!(PUNCH_HASTE_INTERVAL.0 * u64::from(PUNCH_HASTES_MAX + 1) < USELESS_WAIT.0);
    }

    #[test]
    fn a_connected_peer_is_not_dialled() {
        let mut candidates = Candidates::default();
        candidates.add(address(1), Source::Tracker, Instant(0));
        assert_eq!(candidates.poll_dial(Instant(0)), Some(address(1)));
        candidates.handle_connected(address(1));
        assert_eq!((candidates.poll_dial(Instant(1)), candidates.poll_timeout()), (None, None));
        candidates.handle_gone(address(1), Farewell::Gone, Instant(1));
        assert!(candidates.poll_timeout().is_some());
    }

    #[test]
    fn useless_peers_are_asked_again_at_once_when_something_is_missing_again() {
        let mut candidates = Candidates::default();
        candidates.add(address(1), Source::Operator, Instant(0));
        assert!(candidates.poll_dial(Instant(0)).is_some());
        candidates.handle_connected(address(1));
        candidates.handle_gone(address(1), Farewell::Useless, Instant(0));
        assert_eq!(candidates.poll_timeout(), Some(Instant(0) + USELESS_WAIT));
        candidates.handle_wanting(Instant(0));
        assert_eq!(candidates.poll_timeout(), Some(Instant(0) + OPERATOR_WAITS.0));
    }

    #[test]
    fn who_turned_us_away_is_dialled_at_once_when_the_metadata_is_there() {
        let mut candidates = Candidates::default();
        candidates.add(address(1), Source::Tracker, Instant(0));
        assert_eq!(candidates.poll_dial(Instant(0)), Some(address(1)));
        candidates.handle_gone(address(1), Farewell::DialFailed, Instant(0));
        assert_eq!(candidates.poll_dial(Instant(0)), None);
        candidates.handle_metadata(Instant(0));
        assert_eq!(candidates.poll_dial(Instant(0)), Some(address(1)));
    }
}
