//! Whom to connect to, and when to try again. One per torrent, on the control thread; sans-io.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::action::Farewell;
use crate::base::limits::CANDIDATES_MAX;
use crate::base::time::{Instant, Span};

/// Who named an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator: tried for ever, soon again.
    Operator,
    /// A tracker, or the peer itself.
    Hint,
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
    state: State,
    failures: u32,
}

/// The known addresses of a torrent's peers. Invariant: at most `CANDIDATES_MAX`.
#[derive(Debug, Default)]
pub struct Candidates {
    /// In the order of addresses, so that a run can be repeated.
    known: BTreeMap<SocketAddr, Candidate>,
    dialing: usize,
}

impl Candidates {
    /// An address was named. Hints beyond the limit are dropped.
    pub fn add(&mut self, address: SocketAddr, source: Source, now: Instant) {
        let room = self.known.len() < CANDIDATES_MAX || source == Source::Operator;
        if address.port() == 0
            || address.ip().is_unspecified()
            || (!room && !self.known.contains_key(&address))
        {
            return;
        }
        let fresh = Candidate { source, state: State::Waiting(now), failures: 0 };
        let candidate = self.known.entry(address).or_insert(fresh);
        if source == Source::Operator {
            candidate.source = source;
        }
    }

    /// The next address to dial, if one is due. The caller answers by `handle_gone` or, after the
    /// handshake, `handle_connected`.
    pub fn poll_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.dialing >= DIALING_MAX {
            return None;
        }
        let due = |candidate: &Candidate| matches!(candidate.state, State::Waiting(at) if at <= now);
        let (&address, candidate) = self.known.iter_mut().find(|(_, candidate)| due(candidate))?;
        candidate.state = State::Dialing;
        self.dialing += 1;
        Some(address)
    }

    /// When `poll_dial` may have something; `None` if only an event can bring it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.known.values().filter_map(|candidate| match candidate.state {
            State::Waiting(at) => Some(at),
            State::Dialing | State::Connected => None,
        });
        waits.min().filter(|_| self.dialing < DIALING_MAX)
    }

    /// A peer at this address is connected, whoever opened the connection.
    pub fn handle_connected(&mut self, address: SocketAddr) {
        if let Some(candidate) = self.known.get_mut(&address) {
            self.dialing -= usize::from(candidate.state == State::Dialing);
            candidate.state = State::Connected;
            candidate.failures = 0;
        }
    }

    /// A connection with this address ended, or was never made.
    pub fn handle_gone(&mut self, address: SocketAddr, why: Farewell, now: Instant) {
        let Some(candidate) = self.known.get_mut(&address) else { return };
        self.dialing -= usize::from(candidate.state == State::Dialing);
        let operator = candidate.source == Source::Operator;
        let (first, longest) = waits(candidate.source);
        let doubled = Span(first.0.saturating_mul(1 << candidate.failures.min(20)).min(longest.0));
        candidate.failures += 1;
        let (forget, wait) = match why {
            Farewell::Misbehaved => (!operator, USELESS_WAIT),
            Farewell::Useless => (false, USELESS_WAIT),
            Farewell::DialFailed | Farewell::Gone | Farewell::TimedOut => {
                (!operator && candidate.failures > HINT_FAILURES_MAX, doubled)
            }
        };
        if forget {
            self.known.remove(&address);
        } else {
            candidate.state = State::Waiting(now + wait);
        }
    }

    /// Something is missing again: peers that were of no use may be now.
    pub fn handle_wanting(&mut self, now: Instant) {
        for candidate in self.known.values_mut() {
            let (first, _) = waits(candidate.source);
            if let State::Waiting(at) = &mut candidate.state {
                *at = (*at).min(now + first);
            }
        }
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
}

/// First and longest wait after a failed dial.
const fn waits(source: Source) -> (Span, Span) {
    match source {
        Source::Operator => OPERATOR_WAITS,
        Source::Hint => HINT_WAITS,
    }
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
        candidates.add(address(1), Source::Hint, now);
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
            candidates.add(address(n), Source::Hint, Instant(0));
        }
        assert_eq!(candidates.len(), CANDIDATES_MAX);
        candidates.add(address(1 << 20), Source::Operator, Instant(0));
        assert_eq!(candidates.len(), CANDIDATES_MAX + 1);
    }

    #[test]
    fn a_connected_peer_is_not_dialled() {
        let mut candidates = Candidates::default();
        candidates.add(address(1), Source::Hint, Instant(0));
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
}
