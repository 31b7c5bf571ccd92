//! Piece layers that a hybrid went on without (BEP 52): while it runs by its v1 part, the peers that are
//! known are asked for them now and then, on connections of their own. Nothing waits for it, and what is
//! found is of use from the next start on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::magnet::Said;
use super::seeking::{Line, SeekAction, Seeking};
use crate::base::ids::InfoHash;
use crate::base::limits::{LATE_LAYERS_INTERVAL, LATE_LAYERS_PEERS_MAX};
use crate::base::time::Instant;
use crate::engine::candidates::Candidates;
use crate::engine::fetch::PeerNumber;
use crate::engine::layers_fetch::Layers;
use crate::proto::metainfo::Bare;

/// See the module.
#[derive(Debug)]
pub struct LateLayers {
    bare: Arc<Bare>,
    /// While they are looked for.
    seeking: Option<Seeking>,
    /// When they are looked for again.
    next_at: Instant,
    /// Whom to ask next, of those that are to be asked this time; at most `LATE_LAYERS_PEERS_MAX`.
    peers: VecDeque<SocketAddr>,
    /// Who was asked last.
    last: Option<SocketAddr>,
    /// The last number that a peer was given: none is used again.
    numbers: PeerNumber,
}

impl LateLayers {
    /// Nobody was asked yet.
    pub const fn new(bare: Arc<Bare>, now: Instant) -> Self {
        Self { bare, seeking: None, next_at: now, peers: VecDeque::new(), last: None, numbers: 0 }
    }

    /// By what whoever has them knows the torrent.
    pub fn name(&self) -> InfoHash {
        self.bare.v2_name
    }

    /// What they belong to.
    pub fn bare(&self) -> Arc<Bare> {
        Arc::clone(&self.bare)
    }

    /// Whom to connect to now, if anybody. The caller answers by `begin`.
    pub fn poll_peer(&mut self, candidates: &Candidates, now: Instant) -> Option<SocketAddr> {
        if self.seeking.is_none() {
            if now < self.next_at || candidates.is_empty() {
                return None;
            }
            let mut last = self.last;
            while self.peers.len() < candidates.len().min(LATE_LAYERS_PEERS_MAX) {
                last = candidates.next_known(last);
                self.peers.extend(last);
            }
            self.seeking = Some(Seeking::of_layers(self.bare(), self.numbers, now));
        }
        self.seeking.as_ref().filter(|seeking| seeking.has_room())?;
        let next = self.peers.pop_front();
        // Who had no turn this time is the first of the next.
        self.last = next.or(self.last);
        next
    }

    /// Notes a connection that is begun, and numbers it.
    pub(super) fn begin(&mut self, line: Line) -> Option<PeerNumber> {
        let number = self.seeking.as_mut().map(|seeking| seeking.begin(line));
        self.numbers = number.unwrap_or(self.numbers);
        number
    }

    /// Notes what a peer said.
    pub(super) fn note(&mut self, number: PeerNumber, said: Said, now: Instant) {
        if let Some(seeking) = &mut self.seeking {
            seeking.note(number, said, now);
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        if let Some(seeking) = &mut self.seeking {
            seeking.handle_tick(now);
        }
    }

    /// When to look at it though nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.seeking.as_ref().map_or(Some(self.next_at), Seeking::poll_timeout)
    }

    /// The layers, once they are found. That somebody has none is held against nobody: as a peer of the v1
    /// part it is as good as before.
    pub fn poll_found(&mut self, now: Instant) -> Option<Layers> {
        while let Some(action) = self.seeking.as_mut()?.poll_action() {
            if let SeekAction::Layers(_, found) = action {
                self.seeking = None;
                self.peers.clear();
                self.next_at = now + LATE_LAYERS_INTERVAL;
                return found;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::base::limits::METADATA_PEERS_MAX;
    use crate::base::units::BLOCK_BYTES;
    use crate::engine::action::Farewell;
    use crate::engine::candidates::Source;
    use crate::engine::peer::Origin;
    use crate::hash::merkle::{Shape, Tree, leaf};
    use crate::proto::metainfo::WantedLayer;
    use crate::proto::wire::hashes::HashRequest;

    const NOW: Instant = Instant(1_000_000_000);

    fn candidates(count: usize) -> Candidates {
        let mut candidates = Candidates::default();
        let address = |host| SocketAddr::from(([10, 0, 0, host as u8], 1));
        (0..count).for_each(|host| candidates.add(address(host), Source::Tracker, NOW));
        candidates
    }

    fn late(layer: &[[u8; 32]]) -> LateLayers {
        let shape = Shape::of_file(layer.len() as u64 * u64::from(BLOCK_BYTES)).unwrap();
        let root = Tree::new(shape, 0, layer.to_vec()).unwrap().root();
        let layers = vec![WantedLayer { root, shape, height: 0 }];
        let v2_name = InfoHash([2; 20]);
        let bare = Bare { info: bytes::Bytes::new(), v2_name, private: false, layers, has_v1: true };
        LateLayers::new(Arc::new(bare), NOW)
    }

    /// Whom it connects to at once; each connection ends the same moment.
    fn asks(late: &mut LateLayers, candidates: &Candidates, now: Instant) -> Vec<SocketAddr> {
        let asked = std::iter::from_fn(|| {
            let address = late.poll_peer(candidates, now)?;
            let (name, requests) = (late.name(), unbounded_channel().0);
            let line = Line { address, origin: Origin::Outgoing, name, requests, ready: false };
            let number = late.begin(line).unwrap();
            late.note(number, Said::Gone(Farewell::Gone), now);
            Some(address)
        });
        asked.collect()
    }

    #[test]
    fn so_many_peers_are_asked_each_time_and_the_others_the_next() {
        let layer = [leaf(b"a"), leaf(b"b")];
        let most = LATE_LAYERS_PEERS_MAX;
        for known in [0, 1, most - 1, most, most + 1] {
            let (mut late, candidates) = (late(&layer), candidates(known));
            let first = asks(&mut late, &candidates, NOW);
            assert_eq!(first.len(), known.min(most));
            if known == 0 {
                assert_eq!(late.poll_timeout(), Some(NOW), "somebody may be named at any time");
                continue;
            }
            let end = late.poll_timeout().unwrap();
            late.handle_tick(end);
            assert_eq!(late.poll_found(end), None, "nobody gave anything");
            let again = end + LATE_LAYERS_INTERVAL;
            assert_eq!(late.poll_timeout(), Some(again));
            assert_eq!(asks(&mut late, &candidates, Instant(again.0 - 1)), []);
            let second = asks(&mut late, &candidates, again);
            assert_eq!(second.len(), known.min(most));
            if known > most {
                assert!(!first.contains(&second[0]), "who was not asked comes first");
            }
        }
    }

    /// Who says nothing must not keep those behind it from ever being asked.
    #[test]
    fn who_had_no_turn_beside_silent_ones_is_the_first_of_the_next_time() {
        let layer = [leaf(b"a"), leaf(b"b")];
        let (mut late, candidates) = (late(&layer), candidates(METADATA_PEERS_MAX + 1));
        let silent = |late: &mut LateLayers, now| {
            let asked = std::iter::from_fn(|| {
                let address = late.poll_peer(&candidates, now)?;
                let (name, requests) = (late.name(), unbounded_channel().0);
                late.begin(Line { address, origin: Origin::Outgoing, name, requests, ready: false });
                Some(address)
            });
            asked.collect::<Vec<_>>()
        };
        let first = silent(&mut late, NOW);
        assert_eq!(first.len(), METADATA_PEERS_MAX);
        let end = NOW + LATE_LAYERS_INTERVAL;
        late.handle_tick(end);
        assert_eq!(late.poll_found(end), None, "nobody gave anything");
        let second = silent(&mut late, end + LATE_LAYERS_INTERVAL);
        assert!(!first.contains(&second[0]), "{second:?} after {first:?}");
    }

    #[test]
    fn what_a_peer_gives_is_found_whoever_else_left() {
        let layer = [leaf(b"a"), leaf(b"b")];
        let (mut late, candidates) = (late(&layer), candidates(1));
        let address = late.poll_peer(&candidates, NOW).unwrap();
        let (requests, mut inbox) = unbounded_channel();
        let name = late.name();
        let line = Line { address, origin: Origin::Outgoing, name, requests, ready: false };
        let number = late.begin(line).unwrap();
        late.note(number, Said::Ready(None), NOW);
        assert_eq!(late.poll_found(NOW), None);
        let Ok(super::super::magnet::Ask::Hashes(request)) = inbox.try_recv() else {
            panic!("it is asked for hashes")
        };
        let HashRequest { root, index: 0, length: 2, proof_layers: 0, .. } = request else {
            panic!("{request:?}")
        };
        late.note(number, Said::Hashes(request, layer.to_vec()), NOW);
        assert_eq!(late.poll_found(NOW), Some(Layers::from([(root, layer.to_vec())])));
    }
}
