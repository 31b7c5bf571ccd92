//! A torrent of which only a magnet link is known, or whose piece layers are missing: who is connected to for
//! them, and who of those that come is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::magnet::{Ask, Said};
use crate::base::ids::InfoHash;
use crate::base::limits::{
    METADATA_CALLERS_MAX, METADATA_CALLERS_OF_GROUP_MAX, METADATA_CALLERS_OF_GROUP_OF_ALL_MAX,
    METADATA_PEERS_MAX,
};
use crate::base::network::Grouping;
use crate::base::time::Instant;
use crate::engine::action::Farewell;
use crate::engine::fetch::{Fault, FetchAction, PeerNumber};
use crate::engine::layers_fetch::{Layers, LayersFetch, Need};
use crate::engine::metadata_fetch::{Found, Hoard, MetadataFetch};
use crate::engine::peer::Origin;
use crate::proto::magnet::Topics;
use crate::proto::metainfo::Bare;
use crate::proto::wire::handshake::Handshake;

/// The metadata of a link that is being looked for.
///
/// Invariant: peers of `fetch` and of `lacking` have a line.
#[derive(Debug)]
pub struct Seeking {
    /// By what whoever has the piece layers knows it, once they are looked for.
    pub(super) layers_name: Option<InfoHash>,
    /// Whom to ask for the info dictionary.
    fetch: MetadataFetch,
    /// Once that was found without its piece layers.
    lacking: Option<Lacking>,
    /// Connections, those that are being made included: at most `METADATA_PEERS_MAX` that we dialled, and
    /// `METADATA_CALLERS_MAX` that peers opened.
    lines: BTreeMap<PeerNumber, Line>,
    /// What was wrong with the peer that was parted from last.
    fault: Option<Fault>,
    /// The last number that a peer was given.
    pub(super) numbers: PeerNumber,
}

#[derive(Debug)]
struct Lacking {
    bare: Arc<Bare>,
    /// Whom to ask for its layers.
    fetch: LayersFetch,
    /// Peers that gave none and may be good ones of a hybrid's v1 part.
    others: Vec<SocketAddr>,
}

/// A connection, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    /// The other end: who came is most likely not at home there.
    pub(super) address: SocketAddr,
    /// Who opened it.
    pub(super) origin: Origin,
    /// The name of the torrent in our handshake.
    pub(super) name: InfoHash,
    /// What to ask it for.
    pub(super) requests: UnboundedSender<Ask>,
    /// Whether it can be asked.
    pub(super) ready: bool,
}

impl Line {
    /// Whether a peer opened it, and not we.
    fn came(&self) -> bool {
        self.origin == Origin::Incoming
    }
}

/// What is to be done beside asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SeekAction {
    /// A peer that we dialled is gone, or was parted from.
    Gone(SocketAddr, Farewell),
    /// The same, of one that `part` names in the end: until then it is not dialled again.
    SetAside(SocketAddr),
    /// A peer that came to us was parted from for what it gave, and is to be kept out.
    Ban(SocketAddr),
    /// The info dictionary was found.
    Info(Vec<u8>),
    /// The link's hashes are those of two dictionaries.
    Torn,
    /// The layers were found, or nobody has them and they are waited for no longer.
    Layers(Arc<Bare>, Option<Layers>),
}

impl Seeking {
    /// Nobody is known yet.
    pub fn new(wanted: Topics, hoard: Hoard) -> Self {
        let fetch = MetadataFetch::new(wanted, hoard);
        Self { layers_name: None, fetch, lacking: None, lines: BTreeMap::new(), numbers: 0, fault: None }
    }

    /// The same of piece layers alone, which a hybrid goes on without; peers have numbers beyond `numbers`.
    pub(super) fn of_layers(bare: Arc<Bare>, numbers: PeerNumber, now: Instant) -> Self {
        let mut seeking = Self { numbers, ..Self::new(Topics { v1: None, v2: None }, Hoard::default()) };
        seeking.begin_layers(bare, |_| true, now);
        seeking
    }

    /// Peers that have what is looked for, by their own word or by what they gave.
    pub fn peers(&self) -> usize {
        self.lacking.as_ref().map_or_else(|| self.fetch.peers(), |lacking| lacking.fetch.peers())
    }

    /// Whether it comes to nothing without peers: a hybrid goes on by what is there.
    pub fn needs_peers(&self) -> bool {
        !self.lacking.as_ref().is_some_and(|lacking| lacking.bare.has_v1)
    }

    /// When to look at it though nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lacking
            .as_ref()
            .map_or_else(|| self.fetch.poll_timeout(), |lacking| lacking.fetch.poll_timeout())
    }

    /// By which name of the torrent a peer that came to us is answered; `None` if it may not stay: so many
    /// may, and so many of a group of strangers.
    pub(super) fn admit(&self, from: IpAddr, theirs: &Handshake, grouping: &Grouping) -> Option<InfoHash> {
        let came = self.lines.values().filter(|line| line.came()).count();
        let of_group = self.callers_of_group(from, grouping);
        let crowded = grouping.is_stranger(from) && of_group >= METADATA_CALLERS_OF_GROUP_MAX;
        if !self.is_sought() || crowded || came >= METADATA_CALLERS_MAX {
            return None;
        }
        match self.layers_name {
            None => Some(theirs.info_hash),
            // Who knows a hybrid by v1 alone has none; whoever offers v2 goes on with it (BEP 52).
            Some(v2) => (theirs.info_hash == v2 || theirs.has_v2()).then_some(v2),
        }
    }

    /// Peers that came and are of the group of an address.
    fn callers_of_group(&self, address: IpAddr, grouping: &Grouping) -> usize {
        let group = grouping.group_key(address);
        let of_group = |line: &&Line| line.came() && grouping.group_key(line.address.ip()) == group;
        self.lines.values().filter(of_group).count()
    }

    /// Whether one more peer may be dialled.
    pub fn has_room(&self) -> bool {
        let dialled = self.lines.values().filter(|line| !line.came()).count();
        self.is_sought() && dialled < METADATA_PEERS_MAX
    }

    /// Whether more peers are of use.
    fn is_sought(&self) -> bool {
        match &self.lacking {
            Some(lacking) => !lacking.fetch.is_done(),
            None => !self.fetch.is_done(),
        }
    }

    /// What to add to an error that says that nothing was found.
    pub fn why(&self) -> String {
        let layers = self.lacking.as_ref().map(|_| "only its piece layers are missing".to_owned());
        let fault = self.fault.map(|fault| format!("the last peer {fault}"));
        let why: Vec<String> = layers.into_iter().chain(fault).collect();
        if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) }
    }

    /// Notes a connection that is begun, and numbers it.
    pub(super) fn begin(&mut self, line: Line) -> PeerNumber {
        self.numbers += 1;
        self.lines.insert(self.numbers, line);
        self.numbers
    }

    /// The info dictionary was found without its layers: they are asked for. Returns whom we dialled and part
    /// from, since by its v2 name we have to be connected anew; the others are asked on the connections that
    /// there are, unless `may_stay` says that they must not.
    pub(super) fn begin_layers(
        &mut self,
        bare: Arc<Bare>,
        may_stay: impl Fn(&Line) -> bool,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let need = if bare.has_v1 { Need::May } else { Need::Must };
        let mut fetch = LayersFetch::new(&bare.layers, need, now);
        let mut parted = Vec::new();
        self.lines.retain(|_, line| {
            let stays = line.name == bare.v2_name && may_stay(line);
            if !stays && !line.came() {
                parted.push(line.address);
            }
            stays
        });
        self.layers_name = Some(bare.v2_name);
        let ready = self.lines.iter().filter(|(_, line)| line.ready);
        ready.for_each(|(&number, _)| fetch.handle_ready(number, now));
        self.lacking = Some(Lacking { bare, fetch, others: Vec::new() });
        parted
    }

    /// Notes what a peer said. Returns what is to be done if that was its last word.
    pub(super) fn note(&mut self, number: PeerNumber, said: Said, now: Instant) -> Option<SeekAction> {
        // Of one that we have parted from nothing is listened to any more.
        let line = self.lines.get_mut(&number)?;
        let fetch = &mut self.fetch;
        match (said, &mut self.lacking) {
            (Said::Ready(total_bytes), lacking) => {
                line.ready = true;
                match lacking {
                    Some(lacking) => lacking.fetch.handle_ready(number, now),
                    None => fetch.handle_ready((number, line.origin), total_bytes, now),
                }
            }
            (Said::Data { piece, total_bytes, bytes }, _) => {
                fetch.handle_data(number, piece, (total_bytes, &bytes), now);
            }
            (Said::Reject(piece), _) => fetch.handle_reject(number, piece, now),
            (Said::Hashes(request, hashes), Some(lacking)) => {
                lacking.fetch.handle_hashes(number, &request, &hashes, now);
            }
            (Said::HashReject(request), Some(lacking)) => {
                lacking.fetch.handle_reject(number, &request, now);
            }
            // Nobody was asked for any.
            (Said::Hashes(..) | Said::HashReject(_), None) => {}
            (Said::Gone(why), lacking) => {
                fetch.handle_gone(number, now);
                if let Some(lacking) = lacking {
                    lacking.fetch.handle_gone(number, now);
                }
                return self.end(number, why);
            }
        }
        None
    }

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        match &mut self.lacking {
            Some(lacking) => lacking.fetch.handle_tick(now),
            None => self.fetch.handle_tick(now),
        }
    }

    /// What is to be done next; peers are asked by the way.
    pub(super) fn poll_action(&mut self) -> Option<SeekAction> {
        loop {
            let (number, fault) = match self.poll()? {
                FetchAction::Ask(number, ask) => {
                    if let Some(line) = self.lines.get(&number) {
                        let _ = line.requests.send(ask);
                    }
                    continue;
                }
                FetchAction::Drop(number, fault) => (number, fault),
                FetchAction::End(action) => return Some(action),
            };
            self.fault = Some(fault);
            let Some(line) = self.lines.get(&number) else { continue };
            tracing::debug!("{} {fault}", line.address);
            let liar = line.came() && fault == Fault::Lied;
            let banned = liar.then_some(SeekAction::Ban(line.address));
            if let Some(action) = self.end(number, farewell(fault)).or(banned) {
                return Some(action);
            }
        }
    }

    /// The next step of either fetch.
    fn poll(&mut self) -> Option<FetchAction<Ask, SeekAction>> {
        let Some(lacking) = &mut self.lacking else {
            let found = |found| match found {
                Found::Info(info) => SeekAction::Info(info),
                Found::Torn => SeekAction::Torn,
            };
            return Some(self.fetch.poll_action()?.map(Ask::Piece, found));
        };
        let found = |layers| SeekAction::Layers(Arc::clone(&lacking.bare), layers);
        Some(lacking.fetch.poll_action()?.map(Ask::Hashes, found))
    }

    /// Ends a line, if it has not ended.
    fn end(&mut self, number: PeerNumber, why: Farewell) -> Option<SeekAction> {
        let line = self.lines.remove(&number)?;
        let (address, came) = (line.address, line.came());
        match &mut self.lacking {
            // Nobody dials it there, and what it did is not held against whoever listens there.
            _ if came => None,
            // Who knows v1 alone hangs up on the other name, and is dialled once more by its own.
            Some(lacking) if lacking.bare.has_v1 && !is_bad(why) => {
                lacking.others.push(address);
                Some(SeekAction::SetAside(address))
            }
            _ => Some(SeekAction::Gone(address, why)),
        }
    }

    /// All is over: whom of those that we dialled we part from, with nothing against them.
    pub(super) fn part(self) -> Vec<SocketAddr> {
        let others = self.lacking.into_iter().flat_map(|lacking| lacking.others);
        let dialled = self.lines.into_values().filter(|line| !line.came());
        dialled.map(|line| line.address).chain(others).collect()
    }
}

/// Whether the group of an address, if it is of strangers, has all the places of all links that it may have.
pub(super) fn has_its_places<'a>(
    links: impl Iterator<Item = &'a Seeking>,
    from: IpAddr,
    grouping: &Grouping,
) -> bool {
    let of_group = || links.map(|seeking| seeking.callers_of_group(from, grouping)).sum::<usize>();
    grouping.is_stranger(from) && of_group() >= METADATA_CALLERS_OF_GROUP_OF_ALL_MAX
}

/// Whether it is held against a peer of whom something else might be wanted.
const fn is_bad(why: Farewell) -> bool {
    matches!(why, Farewell::DialFailed | Farewell::Misbehaved)
}

/// How long a peer is left alone after it was parted from.
const fn farewell(fault: Fault) -> Farewell {
    match fault {
        // It may have some soon, or want to be asked again later.
        Fault::HasNone | Fault::Refused | Fault::Long => Farewell::Gone,
        Fault::Silent => Farewell::TimedOut,
        Fault::Lied => Farewell::Misbehaved,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::base::ids::PeerId;
    use crate::base::units::BLOCK_BYTES;
    use crate::hash::merkle::Shape;
    use crate::proto::metainfo::WantedLayer;
    use crate::proto::wire::hashes::HashRequest;

    const NOW: Instant = Instant(1_000_000_000);
    const V1: InfoHash = InfoHash([1; 20]);
    const V2: InfoHash = InfoHash([2; 20]);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// What lacks the layer of one file.
    fn bare(has_v1: bool) -> Arc<Bare> {
        let shape = Shape::of_file(3 * u64::from(BLOCK_BYTES)).unwrap();
        let layers = vec![WantedLayer { root: [3; 32], shape, height: 0 }];
        Arc::new(Bare { info: Bytes::new(), v2_name: V2, private: false, layers, has_v1 })
    }

    fn seeking(name: InfoHash) -> Seeking {
        Seeking::new(Topics { v1: Some(name), v2: None }, Hoard::default())
    }

    /// Begins a connection to that port; ready, if it is to be.
    fn connect(seeking: &mut Seeking, port: u16, ready: bool) -> (PeerNumber, UnboundedReceiver<Ask>) {
        connect_by(seeking, (port, V2), ready)
    }

    /// The same by a name of the torrent.
    fn connect_by(
        seeking: &mut Seeking,
        (port, name): (u16, InfoHash),
        ready: bool,
    ) -> (PeerNumber, UnboundedReceiver<Ask>) {
        let (requests, inbox) = unbounded_channel();
        let (address, origin) = (address(port), Origin::Outgoing);
        let number = seeking.begin(Line { address, origin, name, requests, ready: false });
        if ready {
            seeking.note(number, Said::Ready(None), NOW);
        }
        (number, inbox)
    }

    #[test]
    fn who_was_asked_by_the_v2_name_is_asked_on_and_others_are_dialled_anew() {
        for (name, knows, stays) in [(V2, true, true), (V2, false, false), (V1, true, false)] {
            let mut seeking = seeking(name);
            let (_, mut waiting) = connect_by(&mut seeking, (1, name), false);
            let (number, mut ready) = connect_by(&mut seeking, (2, name), false);
            // It has metadata, or it would have been parted from.
            seeking.note(number, Said::Ready(Some(1)), NOW);
            let parted = seeking.begin_layers(bare(false), |_| knows, NOW);
            assert_eq!(parted, if stays { vec![] } else { vec![address(1), address(2)] });
            assert!(seeking.poll_action().is_none() && seeking.layers_name == Some(V2));
            assert!(waiting.try_recv().is_err(), "it is not there yet");
            let asked = std::iter::from_fn(|| ready.try_recv().ok());
            assert_eq!(asked.filter(|ask| matches!(ask, Ask::Hashes(_))).count(), usize::from(stays));
        }
    }

    #[test]
    fn peers_that_know_a_hybrid_by_v1_alone_are_kept_for_its_v1_part() {
        for hybrid in [false, true] {
            let mut seeking = seeking(V1);
            seeking.begin_layers(bare(hybrid), |_| true, NOW);
            let (hung_up, _a) = connect(&mut seeking, 1, false);
            let (absent, _b) = connect(&mut seeking, 2, false);
            let (refused, _c) = connect(&mut seeking, 3, true);
            let (_left, _d) = connect(&mut seeking, 4, false);
            let told = seeking.note(hung_up, Said::Gone(Farewell::Gone), NOW);
            let gone = SeekAction::Gone(address(1), Farewell::Gone);
            assert_eq!(told, Some(if hybrid { SeekAction::SetAside(address(1)) } else { gone }));
            let told = seeking.note(absent, Said::Gone(Farewell::DialFailed), NOW);
            assert_eq!(told, Some(SeekAction::Gone(address(2), Farewell::DialFailed)));
            let request = HashRequest { root: [3; 32], base_layer: 0, index: 0, length: 4, proof_layers: 1 };
            seeking.note(refused, Said::HashReject(request), NOW);
            let gone = SeekAction::Gone(address(3), Farewell::Gone);
            let told = seeking.poll_action();
            assert_eq!(told, Some(if hybrid { SeekAction::SetAside(address(3)) } else { gone }));
            assert_eq!(seeking.needs_peers(), !hybrid);
            assert!(seeking.why().contains("piece layers") && seeking.why().contains("refused"));
            let kept = if hybrid { vec![address(4), address(1), address(3)] } else { vec![address(4)] };
            assert_eq!(seeking.part(), kept);
        }
    }

    fn caller(seeking: &mut Seeking, from: SocketAddr) -> (PeerNumber, UnboundedReceiver<Ask>) {
        let (requests, inbox) = unbounded_channel();
        let line = Line { address: from, origin: Origin::Incoming, name: V2, requests, ready: false };
        (seeking.begin(line), inbox)
    }

    fn admits(seeking: &Seeking, from: SocketAddr) -> bool {
        let theirs = Handshake::new(V1, PeerId([7; 20]));
        seeking.admit(from.ip(), &theirs, &Grouping::default()) == Some(V1)
    }

    #[test]
    fn p30_who_came_and_whom_we_dial_have_places_of_their_own() {
        for came in [METADATA_CALLERS_MAX - 1, METADATA_CALLERS_MAX, METADATA_CALLERS_MAX + 1] {
            let mut seeking = seeking(V1);
            // Addresses where nobody answers hold all places of whom we dial.
            for n in 0..METADATA_PEERS_MAX {
                assert!(seeking.has_room(), "{n}");
                connect(&mut seeking, n as u16, false);
            }
            assert!(!seeking.has_room());
            for n in 0..came {
                let taken = admits(&seeking, address(100 + n as u16));
                assert_eq!(taken, n < METADATA_CALLERS_MAX, "{n}");
                taken.then(|| caller(&mut seeking, address(100 + n as u16)));
            }
            assert!(!seeking.has_room());
            let first_caller = METADATA_PEERS_MAX as PeerNumber + 1;
            seeking.note(first_caller, Said::Gone(Farewell::TimedOut), NOW);
            assert!(admits(&seeking, address(99)) && !seeking.has_room(), "its place is for who comes");
        }
    }

    #[test]
    fn p30_a_group_of_strangers_has_so_many_places_and_neighbours_any() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let mut seeking = seeking(V1);
        for n in 0..METADATA_CALLERS_OF_GROUP_MAX {
            assert!(admits(&seeking, at("8.8.8.8:1")), "{n}");
            caller(&mut seeking, at("8.8.8.8:1"));
        }
        assert!(!admits(&seeking, at("8.8.8.9:2")) && !admits(&seeking, at("[::ffff:8.8.8.8]:3")));
        assert!(admits(&seeking, at("8.8.9.8:1")), "another group");
        caller(&mut seeking, at("10.0.0.1:1"));
        assert!(admits(&seeking, at("10.0.0.1:2")) && admits(&seeking, at("127.0.0.1:2")));
    }

    #[test]
    fn p30_a_group_of_strangers_has_so_many_places_of_all_links() {
        let from = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let max = METADATA_CALLERS_OF_GROUP_OF_ALL_MAX;
        for (links, crowded) in [(max - 1, false), (max, true), (max + 1, true)] {
            let of_links = |stranger: &str, friend: &str| {
                let link = |_| {
                    let mut seeking = seeking(V1);
                    caller(&mut seeking, from(stranger));
                    caller(&mut seeking, from(friend));
                    seeking
                };
                (0..links).map(link).collect::<Vec<_>>()
            };
            let all = of_links("8.8.8.8", "10.0.0.1");
            let has = |address: &str| has_its_places(all.iter(), from(address).ip(), &Grouping::default());
            assert_eq!((has("8.8.8.9"), has("8.8.9.8"), has("10.0.0.1")), (crowded, false, false), "{links}");
        }
    }

    #[test]
    fn p30_who_came_and_lied_is_banned_and_who_left_is_no_candidate() {
        let mut seeking = seeking(V1);
        let (left, _a) = caller(&mut seeking, address(1));
        let (liar, _b) = caller(&mut seeking, address(2));
        let (poor, _c) = caller(&mut seeking, address(3));
        assert_eq!(seeking.note(left, Said::Gone(Farewell::Misbehaved), NOW), None);
        seeking.note(liar, Said::Ready(Some(1)), NOW);
        seeking.note(poor, Said::Ready(None), NOW);
        assert!(seeking.poll_action().is_none(), "who has none is parted from, and that is all");
        seeking.note(liar, Said::Data { piece: 0, total_bytes: 1, bytes: vec![7] }, NOW);
        assert_eq!(seeking.poll_action(), Some(SeekAction::Ban(address(2))));
        assert!(seeking.poll_action().is_none() && seeking.lines.is_empty());
        caller(&mut seeking, address(4));
        assert_eq!(seeking.part(), [], "nobody dials it");
    }

    #[test]
    fn once_layers_are_looked_for_who_comes_has_to_speak_v2_and_who_came_by_it_stays() {
        let mut seeking = seeking(V2);
        let (stays, mut asked) = caller(&mut seeking, address(1));
        seeking.note(stays, Said::Ready(Some(1)), NOW);
        assert_eq!(seeking.begin_layers(bare(true), |_| true, NOW), []);
        assert!(seeking.poll_action().is_none());
        let hashes = std::iter::from_fn(|| asked.try_recv().ok()).any(|ask| matches!(ask, Ask::Hashes(_)));
        assert!(hashes, "it is asked on");
        let (by_v1, by_v2) = (Handshake::new(V1, PeerId([7; 20])), Handshake::new(V2, PeerId([7; 20])));
        for (theirs, answer) in [(by_v1, None), (by_v1.with_v2(), Some(V2)), (by_v2, Some(V2))] {
            assert_eq!(seeking.admit(address(2).ip(), &theirs, &Grouping::default()), answer);
        }
    }

    #[test]
    fn a_hybrid_whose_layers_nobody_gives_is_told_of() {
        let mut seeking = seeking(V1);
        seeking.begin_layers(bare(true), |_| true, NOW);
        let end = seeking.poll_timeout().unwrap();
        seeking.handle_tick(end);
        assert!(matches!(seeking.poll_action(), Some(SeekAction::Layers(bare, None)) if bare.has_v1));
        assert!(!seeking.has_room() && seeking.poll_action().is_none());
    }
}
