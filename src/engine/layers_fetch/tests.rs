use std::collections::VecDeque;

use super::*;
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::hash::merkle::{Shape, Tree, leaf};

/// Hashes of one request.
const RUN: u32 = LAYER_HASHES_PER_REQUEST;

/// The tree of a file.
struct File {
    wanted: WantedLayer,
    layer: Vec<Hash>,
    tree: Tree,
}

impl File {
    /// Of so many pieces of `2^height` blocks, the last one of one block; `seed` makes it differ from others.
    fn new(pieces: u32, height: u32, seed: u8) -> Self {
        let blocks = (u64::from(pieces - 1) << height) + 1;
        let shape = Shape::of_file(blocks * u64::from(BLOCK_BYTES)).unwrap();
        let layer: Vec<Hash> =
            (0..pieces).map(|piece| leaf(&[&[seed][..], &piece.to_le_bytes()].concat())).collect();
        let tree = Tree::new(shape, height, layer.clone()).unwrap();
        Self { wanted: WantedLayer { root: tree.root(), shape, height }, layer, tree }
    }

    fn answer(&self, request: &HashRequest) -> Vec<Hash> {
        let HashRequest { base_layer: base, index, length, proof_layers, .. } = *request;
        let range = HashRange { base, index, length, proof_layers };
        range.answer(self.wanted.shape, |layer, index| self.tree.node(layer, index)).expect("a good request")
    }
}

/// How a peer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Honest,
    /// One bit of a hash is wrong.
    WrongHash,
    /// One bit of the last hash, which belongs to the proof if there is one.
    WrongProof,
    /// One hash too few, or too many.
    Short,
    Long,
    Nothing,
    /// The right number of hashes, of a layer that nobody asked for.
    OtherLayer,
    /// The hashes of another run or file, as if they were those that were asked for.
    OtherRun,
    OtherFile,
    /// Right hashes, for a request that nobody made.
    OtherIndex,
    OtherLength,
    OtherRoot,
    /// More than the layer has.
    Beyond,
    Rejects,
    /// Rejects what nobody asked for.
    RejectsOther,
    Silent,
    /// Right, once in so many rounds.
    Drips(u32),
}

/// All that is a lie, whoever is asked for what.
const LIES: [Kind; 13] = [
    Kind::WrongHash,
    Kind::WrongProof,
    Kind::Short,
    Kind::Long,
    Kind::Nothing,
    Kind::OtherLayer,
    Kind::OtherRun,
    Kind::OtherFile,
    Kind::OtherIndex,
    Kind::OtherLength,
    Kind::OtherRoot,
    Kind::Beyond,
    Kind::RejectsOther,
];

/// A fetch of the layers of `files`, with virtual time.
struct Rig {
    files: Vec<File>,
    fetch: LayersFetch,
    peers: BTreeMap<PeerNumber, (Kind, VecDeque<HashRequest>)>,
    dropped: BTreeMap<PeerNumber, Fault>,
    now: Instant,
    rounds: u32,
    end: Option<LayersAction>,
}

impl Rig {
    fn new(files: Vec<File>, need: Need) -> Self {
        let wanted: Vec<WantedLayer> = files.iter().map(|file| file.wanted).collect();
        let now = Instant(0) + Span::from_secs(100);
        let fetch = LayersFetch::new(&wanted, need, now);
        let (peers, dropped) = (BTreeMap::new(), BTreeMap::new());
        Self { files, fetch, peers, dropped, now, rounds: 0, end: None }
    }

    /// Two files, of several runs and of one.
    fn with(need: Need, kinds: &[Kind]) -> Self {
        let mut rig = Self::new(vec![File::new(5 * RUN + 77, 3, 1), File::new(3, 3, 2)], need);
        (1..).zip(kinds).for_each(|(number, &kind)| rig.join(number, kind));
        rig
    }

    fn join(&mut self, number: PeerNumber, kind: Kind) {
        self.peers.insert(number, (kind, VecDeque::new()));
        self.fetch.handle_ready(number, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.fetch.poll_action() {
            match action {
                LayersAction::Ask(peer, request) => {
                    assert!(request.length <= RUN);
                    self.peers.get_mut(&peer).unwrap().1.push_back(request);
                }
                LayersAction::Drop(peer, fault) => {
                    self.peers.remove(&peer);
                    assert_eq!(self.dropped.insert(peer, fault), None, "{peer} is dropped twice");
                }
                end => assert_eq!(self.end.replace(end), None, "it ends twice"),
            }
        }
        let most = self.peers.values().map(|(_, asked)| asked.len()).max();
        assert!(most.unwrap_or(0) <= LAYER_REQUESTS_OUT);
    }

    /// Each peer answers one request; a tenth of a second passes.
    fn round(&mut self) {
        self.rounds += 1;
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some((kind, asked)) = self.peers.get_mut(&number) else { continue };
            let kind = *kind;
            let waits = match kind {
                Kind::Silent => true,
                Kind::Drips(rounds) => !self.rounds.is_multiple_of(rounds),
                _ => false,
            };
            let request = if waits { None } else { asked.pop_front() };
            if let Some(request) = request {
                self.answer(number, kind, request);
            }
            self.carry_out();
        }
        self.now = self.now + Span::from_ms(100);
        self.fetch.handle_tick(self.now);
        self.carry_out();
    }

    fn answer(&mut self, number: PeerNumber, kind: Kind, request: HashRequest) {
        let at = self.files.iter().position(|file| file.wanted.root == request.root).unwrap();
        let (file, other) = (&self.files[at], &self.files[(at + 1) % self.files.len()]);
        let (mut hashes, mut said) = (file.answer(&request), request);
        match kind {
            Kind::Rejects => return self.fetch.handle_reject(number, &request, self.now),
            Kind::RejectsOther => {
                let other = HashRequest { index: request.index ^ (RUN << 8), ..request };
                return self.fetch.handle_reject(number, &other, self.now);
            }
            Kind::WrongHash => hashes[0][0] ^= 1,
            Kind::WrongProof => hashes.last_mut().unwrap()[31] ^= 1,
            Kind::Short => drop(hashes.pop()),
            Kind::Long => hashes.push([0; 32]),
            Kind::Nothing => hashes.clear(),
            Kind::OtherLayer => hashes.fill(file.wanted.root),
            Kind::OtherRun => hashes.reverse(),
            Kind::OtherFile => {
                let of_other = other.layer.iter().copied().cycle();
                hashes.iter_mut().zip(of_other).for_each(|(hash, other)| *hash = other);
            }
            Kind::OtherIndex => said.index ^= RUN,
            Kind::OtherLength => {
                said.length *= 2;
                hashes.extend(hashes.clone());
            }
            Kind::OtherRoot => said.root = other.wanted.root,
            Kind::Beyond => {
                said.index = file.wanted.hashes().next_multiple_of(RUN);
            }
            Kind::Honest | Kind::Silent | Kind::Drips(_) => {}
        }
        self.fetch.handle_hashes(number, &said, &hashes, self.now);
    }

    fn run(&mut self, rounds: u32) -> &mut Self {
        for _ in 0..rounds {
            if self.end.is_none() {
                self.round();
            }
        }
        self
    }

    fn assert_found(&self) {
        let wanted: Layers = self.files.iter().map(|file| (file.wanted.root, file.layer.clone())).collect();
        assert!(self.end == Some(LayersAction::End(Some(wanted))), "dropped so far: {:?}", self.dropped);
        assert_eq!((self.fetch.is_done(), self.fetch.poll_timeout()), (true, None));
    }
}

#[test]
fn one_honest_peer_is_enough_whatever_the_size() {
    for height in [0, 1, 4] {
        for pieces in
            [2, 3, 4, 5, RUN - 1, RUN, RUN + 1, RUN + 2, 2 * RUN - 1, 2 * RUN, 2 * RUN + 1, 9 * RUN + 3]
        {
            let mut rig = Rig::new(vec![File::new(pieces, height, 7)], Need::Must);
            rig.join(1, Kind::Honest);
            rig.run(40).assert_found();
            assert!(rig.dropped.is_empty());
        }
    }
}

#[test]
fn many_small_files_are_all_asked_for() {
    let files = (0..100).map(|seed| File::new(2 + u32::from(seed) % 3, 2, seed)).collect();
    let mut rig = Rig::new(files, Need::Must);
    rig.join(1, Kind::Honest);
    assert_eq!(rig.fetch.peers(), 0, "it has given nothing yet");
    rig.round();
    assert_eq!(rig.fetch.peers(), 1);
    rig.run(100).assert_found();
}

#[test]
fn p44_so_many_requests_are_outstanding_and_no_more() {
    let max = LAYER_REQUESTS_OUT as u32;
    for runs in [max - 1, max, max + 1] {
        let mut rig = Rig::new(vec![File::new(runs * RUN, 2, 7)], Need::Must);
        rig.join(1, Kind::Honest);
        assert_eq!(rig.peers[&1].1.len() as u32, runs.min(max));
        rig.run(20).assert_found();
    }
}

#[test]
fn p45_whoever_lies_is_found_at_once_and_nobody_else_is_blamed() {
    for lie in LIES {
        for need in [Need::Must, Need::May] {
            let mut rig = Rig::with(need, &[lie, Kind::Honest, lie, Kind::Honest]);
            rig.run(1);
            let blamed: Vec<(PeerNumber, Fault)> = rig.dropped.clone().into_iter().collect();
            assert_eq!(blamed, [(1, Fault::Lied), (3, Fault::Lied)], "{lie:?}");
            rig.run(40).assert_found();
            assert_eq!(rig.dropped.len(), 2, "{lie:?}");
        }
    }
}

#[test]
fn p44_of_liars_alone_nothing_is_taken_and_the_first_honest_one_gives_all() {
    for lie in LIES {
        let mut rig = Rig::with(Need::Must, &[lie; 5]);
        rig.run(10);
        assert_eq!((rig.dropped.len(), rig.fetch.peers(), rig.end.is_none()), (5, 0, true), "{lie:?}");
        rig.join(9, Kind::Honest);
        rig.run(40).assert_found();
    }
}

#[test]
fn p44_who_refuses_or_is_silent_is_passed_over_and_others_are_asked_for_the_same() {
    for (kind, fault) in [(Kind::Rejects, Fault::Refused), (Kind::Silent, Fault::Silent)] {
        let mut rig = Rig::with(Need::Must, &[kind, kind, Kind::Honest]);
        rig.run(200).assert_found();
        assert_eq!(rig.dropped.into_values().collect::<Vec<_>>(), [fault; 2], "{kind:?}");
    }
}

/// Ever new connections that refuse, as one makes them that is dialled again and again.
#[test]
fn p44_endless_rejects_count_for_nobody_and_end_what_can_end() {
    for need in [Need::Must, Need::May] {
        let mut rig = Rig::with(need, &[]);
        for number in 1..=200 {
            rig.join(number, Kind::Rejects);
            rig.round();
            assert_eq!(rig.fetch.peers(), 0, "nobody gave anything");
            if rig.end.is_some() {
                break;
            }
        }
        let ended = (need == Need::May).then_some(LayersAction::End(None));
        assert_eq!(rig.end, ended);
    }
}

#[test]
fn p44_silence_is_borne_for_so_long_and_no_longer() {
    let mut rig = Rig::with(Need::Must, &[Kind::Silent]);
    let end = rig.now + HASH_PATIENCE;
    assert_eq!(rig.fetch.poll_timeout(), Some(end));
    rig.fetch.handle_tick(Instant(end.0 - 1));
    assert_eq!(rig.fetch.poll_action(), None);
    rig.fetch.handle_tick(end);
    assert_eq!(rig.fetch.poll_action(), Some(LayersAction::Drop(1, Fault::Silent)));
    assert_eq!(rig.fetch.poll_timeout(), None, "nobody is waited for");
    // Who has nothing to do may be silent.
    let mut rig = Rig::new(vec![File::new(2, 2, 1)], Need::Must);
    rig.join(1, Kind::Silent);
    rig.join(2, Kind::Silent);
    rig.fetch.handle_tick(rig.now + HASH_PATIENCE);
    assert_eq!(rig.fetch.poll_action(), Some(LayersAction::Drop(1, Fault::Silent)));
    assert!(matches!(rig.fetch.poll_action(), Some(LayersAction::Ask(2, _))));
    assert_eq!(rig.fetch.poll_action(), None);
}

#[test]
fn p44_a_hybrid_is_waited_for_so_long_without_an_answer_and_no_longer() {
    let mut rig = Rig::with(Need::May, &[]);
    let end = rig.now + LAYERS_PATIENCE;
    rig.fetch.handle_tick(Instant(end.0 - 1));
    assert_eq!((rig.fetch.poll_action(), rig.fetch.poll_timeout()), (None, Some(end)));
    rig.fetch.handle_tick(end);
    assert_eq!(rig.fetch.poll_action(), Some(LayersAction::End(None)));
    assert_eq!((rig.fetch.poll_action(), rig.fetch.poll_timeout()), (None, None));
    rig.fetch.handle_ready(1, end);
    assert_eq!(rig.fetch.poll_action(), None, "it is over");
    // What is of no use without them waits for ever.
    let mut rig = Rig::with(Need::Must, &[]);
    rig.fetch.handle_tick(rig.now + Span::from_secs(1_000_000));
    assert_eq!((rig.fetch.poll_action(), rig.fetch.poll_timeout()), (None, None));
}

#[test]
fn p44_who_gives_a_little_now_and_then_holds_a_hybrid_up_for_so_long_and_no_longer() {
    // An answer in four seconds: never silent, and done after forty minutes.
    for (runs, found) in [(10, true), (600, false)] {
        let mut rig = Rig::new(vec![File::new(runs * RUN, 0, 7)], Need::May);
        let begun_at = rig.now;
        rig.join(1, Kind::Drips(40));
        rig.run(2_000);
        assert!(rig.dropped.is_empty(), "to be slow is no lie");
        assert!(rig.now <= begun_at + LAYERS_TIME_MAX + Span::from_ms(100));
        assert_eq!(rig.end == Some(LayersAction::End(None)), !found, "{runs}");
    }
}

#[test]
fn what_a_peer_had_in_hand_when_it_left_others_are_asked_for() {
    let mut rig = Rig::with(Need::Must, &[Kind::Silent, Kind::Honest]);
    rig.run(10);
    assert!(rig.end.is_none(), "the silent one has the first runs");
    rig.peers.remove(&1);
    rig.fetch.handle_gone(1, rig.now);
    rig.carry_out();
    rig.run(10).assert_found();
    // What comes of those who are gone, or after the end, changes nothing.
    let request = HashRequest { root: [0; 32], base_layer: 0, index: 0, length: 2, proof_layers: 0 };
    for peer in [1, 2] {
        rig.fetch.handle_hashes(peer, &request, &[], rig.now);
        rig.fetch.handle_reject(peer, &request, rig.now);
        rig.fetch.handle_gone(peer, rig.now);
    }
    assert_eq!(rig.fetch.poll_action(), None);
}

#[test]
fn an_answer_that_comes_twice_was_asked_for_once() {
    let mut rig = Rig::with(Need::Must, &[Kind::Honest]);
    let request = rig.peers.get_mut(&1).unwrap().1.pop_front().unwrap();
    let hashes = rig.files[0].answer(&request);
    rig.fetch.handle_hashes(1, &request, &hashes, rig.now);
    rig.carry_out();
    assert!(rig.dropped.is_empty());
    rig.fetch.handle_hashes(1, &request, &hashes, rig.now);
    rig.carry_out();
    assert_eq!(rig.dropped.get(&1), Some(&Fault::Lied));
}

/// What a peer of ours is asked for is what it may ask us for.
#[test]
fn requests_are_ones_that_can_be_answered_whatever_the_layer() {
    for height in [0, 3, 12] {
        for pieces in (2..70).chain(RUN - 3..RUN + 70) {
            let file = File::new(pieces, height, 7);
            let layer = Layer { wanted: file.wanted, hashes: Vec::new() };
            let mut next = 0;
            for number in 0..layer.runs() {
                let HashRequest { base_layer: base, index, length, proof_layers, .. } = layer.request(number);
                let range = HashRange { base, index, length, proof_layers };
                assert!(range.fits(file.wanted.shape), "{pieces} {number}");
                assert_eq!((base, index), (height, next));
                next += length;
            }
            assert!(next >= pieces && next - pieces < RUN);
        }
    }
}
