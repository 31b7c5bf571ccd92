//! When to say on the local network which torrents are here, and what to believe of what neighbours say
//! (BEP 14); sans-io.
//!
//! A torrent is announced at once, then every five minutes, and when a neighbour is heard for the first time,
//! at most once a minute: so two hosts find each other as soon as the second one comes. One that comes within
//! that minute is answered alone: who has only a link waits for our address, and cannot be dialled before.
//! Only sources on local networks are heard, each so often; our own datagrams are known by their cookie.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::dht::guard::{Bucket, Guard};
use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::base::limits::{
    DISCOVERED_MAX, LSD_ANNOUNCE_GAP, LSD_ANNOUNCE_INTERVAL, LSD_HASHES_MAX, LSD_NEIGHBOURS_MAX,
    LSD_READ_PER_SEC, LSD_SENT_PER_SEC,
};
use crate::base::time::{Instant, Span};
use crate::proto::lsd::{Announce, PORT, parse};

/// Neighbours that are remembered for one torrent, to tell who is new.
const HEARD_MAX: usize = 64;

#[derive(Debug, Default)]
struct Entry {
    due: Instant,
    announced_at: Option<Instant>,
    heard: Vec<SocketAddr>,
}

/// See the module. Invariant: each torrent stands in `order` once, at its `due`.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    cookie: String,
    entries: HashMap<InfoHash, Entry>,
    order: BTreeSet<(Instant, InfoHash)>,
    neighbours: Guard,
    /// Who is to be answered alone, and what of.
    answer: Option<(SocketAddr, Vec<InfoHash>)>,
    sent: Bucket,
    /// Nothing is sent before, since too much was.
    not_before: Instant,
}

impl Lsd {
    /// Of a node that accepts peers at `port`; `cookie` is random.
    pub fn new(port: u16, cookie: u64, now: Instant) -> Self {
        Self {
            port,
            cookie: format!("{cookie:016x}"),
            entries: HashMap::new(),
            order: BTreeSet::new(),
            neighbours: Guard::new(LSD_READ_PER_SEC, LSD_NEIGHBOURS_MAX),
            answer: None,
            sent: Bucket::new(now),
            not_before: now,
        }
    }

    /// A torrent is here, and not private.
    pub fn want(&mut self, info_hash: InfoHash, now: Instant) {
        if self.entries.len() < DISCOVERED_MAX && !self.entries.contains_key(&info_hash) {
            self.entries.insert(info_hash, Entry { due: now, ..Entry::default() });
            self.order.insert((now, info_hash));
        }
    }

    /// A torrent is gone.
    pub fn forget(&mut self, info_hash: InfoHash) {
        if let Some(entry) = self.entries.remove(&info_hash) {
            self.order.remove(&(entry.due, info_hash));
        }
    }

    /// A datagram came. Returns which torrents of ours its sender has, and where it accepts peers.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Option<(SocketAddr, Vec<InfoHash>)> {
        let class = AddressClass::of(from.ip());
        let local = matches!(class, AddressClass::Loopback | AddressClass::Private | AddressClass::LinkLocal);
        // A neighbour counts as one, whatever port it sends from.
        if !local || !self.neighbours.admits(SocketAddr::new(from.ip(), 0), now) {
            return None;
        }
        let announce = parse(bytes).filter(|announce| announce.cookie.as_ref() != Some(&self.cookie))?;
        let mut peer = from;
        peer.set_port(announce.port);
        let mut ours = announce.hashes;
        ours.retain(|hash| self.entries.contains_key(hash));
        let mut unheard = ours.clone();
        unheard.retain(|&hash| self.heard(hash, peer, now));
        let mut neighbour = from;
        neighbour.set_port(PORT);
        self.answer = (!unheard.is_empty()).then_some((neighbour, unheard));
        (!ours.is_empty()).then_some((peer, ours))
    }

    /// The next datagram to be sent to both groups, if one is due.
    pub fn poll_send(&mut self, now: Instant) -> Option<Announce> {
        let is_due = |order: &BTreeSet<(Instant, InfoHash)>| order.first().is_some_and(|(at, _)| *at <= now);
        if self.port == 0 || now < self.not_before || !is_due(&self.order) {
            return None;
        }
        if !self.sent.take(1, LSD_SENT_PER_SEC, now) {
            self.not_before = now + Span(1_000_000_000 / u64::from(LSD_SENT_PER_SEC));
            return None;
        }
        let mut hashes = Vec::new();
        while hashes.len() < LSD_HASHES_MAX && is_due(&self.order) {
            let Some((_, hash)) = self.order.pop_first() else { break };
            if let Some(entry) = self.entries.get_mut(&hash) {
                entry.announced_at = Some(now);
                entry.due = now + LSD_ANNOUNCE_INTERVAL;
                self.order.insert((entry.due, hash));
            }
            hashes.push(hash);
        }
        Some(self.announce(hashes))
    }

    /// The datagram for the neighbour that was heard last, if it is to be answered alone.
    pub fn poll_answer(&mut self, now: Instant) -> Option<(SocketAddr, Announce)> {
        let (neighbour, hashes) = self.answer.take()?;
        let may = self.port != 0 && self.sent.take(1, LSD_SENT_PER_SEC, now);
        may.then(|| (neighbour, self.announce(hashes)))
    }

    fn announce(&self, hashes: Vec<InfoHash>) -> Announce {
        Announce { port: self.port, hashes, cookie: Some(self.cookie.clone()) }
    }

    /// When [`Self::poll_send`] may have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let &(at, _) = self.order.first().filter(|_| self.port != 0)?;
        Some(at.max(self.not_before))
    }

    /// A new neighbour hears of us soon. Whether it has to be answered, since that is not now.
    fn heard(&mut self, hash: InfoHash, peer: SocketAddr, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        if entry.heard.contains(&peer) {
            return false;
        }
        if entry.heard.len() >= HEARD_MAX {
            entry.heard.remove(0);
        }
        entry.heard.push(peer);
        let soonest = entry.announced_at.map_or(now, |at| now.max(at + LSD_ANNOUNCE_GAP));
        if soonest < entry.due {
            self.order.remove(&(entry.due, hash));
            entry.due = soonest;
            self.order.insert((soonest, hash));
        }
        soonest > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tracker::compact::Family;

    const NOW: Instant = Instant(1_000_000_000);

    fn hash(n: u32) -> InfoHash {
        let mut hash = InfoHash([0; 20]);
        hash.0[..4].copy_from_slice(&n.to_be_bytes());
        hash
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 6771))
    }

    fn said(port: u16, n: u32, cookie: &str) -> Vec<u8> {
        let cookie = Some(cookie.to_owned());
        Announce { port, hashes: vec![hash(n)], cookie }.encode(Family::V4)
    }

    fn lsd(torrents: u32) -> Lsd {
        let mut lsd = Lsd::new(6881, 7, NOW);
        (0..torrents).for_each(|n| lsd.want(hash(n), NOW));
        lsd
    }

    /// Seconds at which the one torrent is announced until `end`, and a neighbour is heard each `every`.
    fn announces(every: u64, end: u64) -> Vec<u64> {
        let mut lsd = lsd(1);
        let mut at = Vec::new();
        for second in 0..end {
            let now = NOW + Span::from_secs(second);
            if second % every == every - 1 {
                lsd.handle_datagram(from((second / every) as u8), &said(1, 0, "x"), now);
            }
            at.extend(std::iter::from_fn(|| lsd.poll_send(now)).map(|_| second));
        }
        at
    }

    #[test]
    fn a_torrent_is_announced_at_once_and_every_five_minutes() {
        assert_eq!(announces(10_000, 901), [0, 300, 600, 900]);
    }

    #[test]
    fn d8_new_neighbours_hear_of_us_at_most_once_a_minute() {
        assert_eq!(announces(100, 250), [0, 99, 199]);
        assert_eq!(announces(5, 241), [0, 60, 120, 180, 240]);
    }

    #[test]
    fn d8_who_comes_within_the_minute_is_answered_alone_and_once() {
        let mut lsd = lsd(2);
        lsd.handle_datagram(from(1), &said(1, 0, "x"), NOW);
        assert_eq!(lsd.poll_answer(NOW), None, "all are about to hear of us");
        assert_eq!(lsd.poll_send(NOW).unwrap().hashes.len(), 2);
        let later = NOW + Span::from_secs(1);
        lsd.handle_datagram(SocketAddr::from(([10, 0, 0, 2], 999)), &said(1, 1, "x"), later);
        let (neighbour, announce) = lsd.poll_answer(later).unwrap();
        assert_eq!((neighbour, announce.port, announce.hashes), (from(2), 6881, vec![hash(1)]));
        lsd.handle_datagram(from(2), &said(1, 1, "x"), later);
        lsd.handle_datagram(from(3), &said(1, 7, "x"), later);
        assert_eq!(lsd.poll_answer(later), None, "nobody is answered twice, or of what is not here");
        let answered = |host: u8| {
            lsd.handle_datagram(from(host), &said(1, 1, "x"), later);
            lsd.poll_answer(later).is_some()
        };
        let answers = (4..100).map(answered).filter(|answered| *answered).count();
        assert!(answers <= 4 * LSD_SENT_PER_SEC as usize, "{answers}");
    }

    #[test]
    fn d8_many_torrents_share_datagrams_that_are_few_a_second() {
        let mut lsd = lsd(10_000);
        let (mut sent, mut now, mut last, mut hashes) = (0, NOW, NOW, 0);
        while hashes < 10_000 {
            while let Some(announce) = lsd.poll_send(now) {
                (sent, hashes, last) = (sent + 1, hashes + announce.hashes.len(), now);
            }
            now = lsd.poll_timeout().unwrap();
        }
        assert_eq!(sent, 10_000 / LSD_HASHES_MAX);
        let seconds = last.since(NOW).0 / 1_000_000_000;
        assert!((90..110).contains(&seconds), "{seconds} s");
    }

    #[test]
    fn d8_only_neighbours_are_heard_and_not_ourselves() {
        for (text, heard) in [
            ("10.0.0.1:6771", true),
            ("192.168.1.1:1", true),
            ("127.0.0.1:6771", true),
            ("169.254.1.1:6771", true),
            ("[fe80::1]:6771", true),
            ("[fd00::1]:6771", true),
            ("8.8.8.8:6771", false),
            ("[2600::1]:6771", false),
            ("239.192.152.143:6771", false),
            ("0.0.0.0:6771", false),
        ] {
            let source: SocketAddr = text.parse().unwrap();
            let got = lsd(1).handle_datagram(source, &said(51413, 0, "x"), NOW);
            let peer = SocketAddr::new(source.ip(), 51413);
            assert_eq!(got, heard.then(|| (peer, vec![hash(0)])), "{text}");
        }
        let mut lsd = lsd(1);
        let own = lsd.poll_send(NOW).unwrap().encode(Family::V4);
        assert_eq!(lsd.handle_datagram(from(1), &own, NOW), None);
        assert_eq!(lsd.handle_datagram(from(1), &said(1, 99, "x"), NOW), None, "not a torrent of ours");
        lsd.forget(hash(0));
        assert_eq!((lsd.handle_datagram(from(1), &said(1, 0, "x"), NOW), lsd.poll_timeout()), (None, None));
    }

    #[test]
    fn d8_a_neighbour_is_read_so_often_and_remembered_in_bounds() {
        let mut lsd = lsd(1);
        let read = |lsd: &mut Lsd, host, now| {
            (1..=1000)
                .filter(|&port| lsd.handle_datagram(from(host), &said(port, 0, "x"), now).is_some())
                .count()
        };
        assert_eq!(read(&mut lsd, 1, NOW), 4 * LSD_READ_PER_SEC as usize);
        assert_eq!(read(&mut lsd, 1, NOW + Span::from_secs(1)), LSD_READ_PER_SEC as usize);
        assert_eq!(
            read(&mut lsd, 2, NOW),
            4 * LSD_READ_PER_SEC as usize,
            "another one is heard all the same"
        );
        for host in 3..20 {
            read(&mut lsd, host, NOW);
        }
        assert_eq!(lsd.entries[&hash(0)].heard.len(), HEARD_MAX);
    }

    #[test]
    fn who_accepts_no_peers_only_listens() {
        let mut lsd = Lsd::new(0, 7, NOW);
        lsd.want(hash(0), NOW);
        assert_eq!((lsd.poll_send(NOW), lsd.poll_timeout()), (None, None));
        assert!(lsd.handle_datagram(from(1), &said(1, 0, "x"), NOW).is_some());
    }
}
