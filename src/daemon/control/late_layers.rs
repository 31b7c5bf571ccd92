//! Piece layers of a hybrid that goes on by its v1 part, for the next start.

use super::*;
use crate::daemon::late_layers::LateLayers;
use crate::daemon::magnet::{Call, Opening, converse};
use crate::daemon::mse::methods;
use crate::daemon::seeking::Line;
use crate::engine::action::Farewell;
use crate::engine::peer::Origin;

impl Control<'_> {
    /// A torrent runs: what it went on without is looked for from now on. A `get` is soon over.
    pub(super) fn await_late_layers(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        if self.config.role == Role::Relay && swarm.late_layers.is_none() {
            let bare = swarm.metainfo.left_out();
            swarm.late_layers = bare.map(|bare| Box::new(LateLayers::new(Arc::new(bare), now)));
        }
    }

    /// Asks whom we know of, and does what time asks for.
    pub(super) fn seek_late_layers(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(late) = swarm.late_layers.as_mut().filter(|_| self.phase == Phase::Running) else { return };
        let candidates = &swarm.roster.candidates;
        while let Some(address) = late.poll_peer(candidates, now) {
            let (requests, inbox) = unbounded_channel();
            let origin = Origin::Outgoing;
            let line = Line { address, origin, name: late.name(), requests, ready: false };
            let (Some(number), Ok(call)) = (late.begin(line), Call::once_more(late.name())) else { return };
            let opening =
                Opening::Dial(address, (candidates.manner(address), methods(self.config.encryption)));
            let (places, tell) = (Rc::clone(&self.seek_places), self.tell.clone());
            tokio_uring::spawn(async move {
                let say = |said| drop(tell.send(Event::SaidLate(id, number, said)));
                // Links come first.
                match places.take() {
                    Ok(_place) => converse(opening, call, inbox, say).await,
                    Err(_) => say(Said::Gone(Farewell::Gone)),
                }
            });
        }
        late.handle_tick(now);
        self.take_late_layers(id, now);
    }

    /// A peer told something.
    pub(super) fn said_late(&mut self, id: TorrentId, number: PeerNumber, said: Said) {
        let now = clock::now();
        if let Some(late) = &mut self.swarms[id.0 as usize].late_layers {
            late.note(number, said, now);
            self.take_late_layers(id, now);
        }
    }

    /// Keeps what was found, on the blocking pool.
    fn take_late_layers(&mut self, id: TorrentId, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(late) = &mut swarm.late_layers else { return };
        let Some(layers) = late.poll_found(now) else { return };
        let (v1, bare) = (Arc::clone(&swarm.metainfo), late.bare());
        swarm.late_layers = None;
        let (state, dir, role) = (Arc::clone(&self.state), self.config.dir.clone(), self.config.role);
        tokio::task::spawn_blocking(move || {
            let name = v1.name.escape_debug();
            match v1.found_with(&bare, Some(&layers)) {
                Ok(whole) => {
                    magnet::keep(&state, (&dir, role), v1.info_hash, &whole);
                    tracing::info!("found the piece layers of {name}: from the next start on it is a hybrid");
                }
                Err(error) => tracing::warn!("the piece layers of {name} do not fit: {error}"),
            }
        });
    }
}
