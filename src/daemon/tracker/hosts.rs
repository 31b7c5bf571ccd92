//! Hosts that lately failed to answer as trackers are left alone for a while, by all torrents
//! together: no list of announce URLs turns a node against somebody's web server (threats N12).
//! Only public hosts are entered here; on a local network a dead tracker says nothing of its host.

use std::collections::HashMap;

use crate::base::limits::TRACKER_HOSTS_MAX;
use crate::base::time::{Instant, Span};

/// The hosts that are left alone at present, with the end of it.
#[derive(Debug, Default)]
pub(super) struct HostGate {
    closed: HashMap<String, Instant>,
}

impl HostGate {
    /// How long `host` is to be left alone yet; `None` if it may be asked.
    pub(super) fn wait(&self, host: &str, now: Instant) -> Option<Span> {
        let end = self.closed.get(host).copied()?;
        (end > now).then(|| end.since(now))
    }

    /// `host` did not answer as a tracker does.
    pub(super) fn handle_failure(&mut self, host: &str, now: Instant, gap: Span) {
        if self.closed.len() >= TRACKER_HOSTS_MAX {
            self.closed.retain(|_, end| *end > now);
        }
        if self.closed.len() >= TRACKER_HOSTS_MAX && !self.closed.contains_key(host) {
            // Who would be asked again first is forgotten.
            let first = self.closed.iter().min_by_key(|(_, end)| **end).map(|(host, _)| host.clone());
            first.and_then(|host| self.closed.remove(&host));
        }
        self.closed.insert(host.to_owned(), now + gap);
    }

    /// `host` answered as a tracker does, be it with a refusal.
    pub(super) fn handle_answer(&mut self, host: &str) {
        self.closed.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Span = Span::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::default() + Span::from_secs(seconds)
    }

    #[test]
    fn n12_a_host_that_is_no_tracker_is_asked_once_per_gap_whatever_the_url() {
        let mut gate = HostGate::default();
        let mut asked = Vec::new();
        for second in 0..120 {
            // 64 URLs of one host, tried every second.
            for _url in 0..64 {
                if gate.wait("victim.example", at(second)).is_none() {
                    asked.push(second);
                    gate.handle_failure("victim.example", at(second), GAP);
                }
            }
        }
        assert_eq!(asked, [0, 30, 60, 90]);
        assert_eq!(gate.wait("other.example", at(0)), None);
        assert_eq!(gate.wait("victim.example", at(119)), Some(Span::from_secs(1)));
        gate.handle_answer("victim.example");
        assert_eq!(gate.wait("victim.example", at(119)), None);
    }

    #[test]
    fn the_number_of_hosts_is_bounded() {
        for count in [TRACKER_HOSTS_MAX - 1, TRACKER_HOSTS_MAX, TRACKER_HOSTS_MAX + 1] {
            let mut gate = HostGate::default();
            for n in 0..count as u64 {
                gate.handle_failure(&n.to_string(), Instant(n), GAP);
            }
            assert_eq!(gate.closed.len(), count.min(TRACKER_HOSTS_MAX));
            // Only the one that would be asked first is forgotten.
            assert_eq!(gate.wait("0", Instant(0)).is_none(), count > TRACKER_HOSTS_MAX);
            assert!(gate.wait("1", Instant(0)).is_some());
            gate.handle_failure("late", at(100), GAP);
            assert_eq!(gate.closed.contains_key("2"), count < TRACKER_HOSTS_MAX);
        }
    }
}
