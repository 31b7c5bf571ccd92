//! Blocks that were sent without a copy: the kernel reads their memory after it has counted them.

use std::collections::VecDeque;

use super::Engine;
use super::peer::{Outgoing, Pin};
use crate::base::ids::ConnId;

/// What the kernel still reads for one connection.
#[derive(Debug, Default)]
pub struct Held {
    /// Sends of the burst under way that the kernel holds.
    sends: u32,
    /// Bursts that are out, the oldest first: how many of their sends the kernel holds, and their pins.
    bursts: VecDeque<(u32, Vec<Pin>)>,
}

impl Outgoing {
    /// The burst is out: if the kernel holds some of it, its pins wait.
    pub(super) fn hold_burst(&mut self) {
        if self.held.sends > 0 {
            let pins = std::mem::take(&mut self.pins);
            self.held.bursts.push_back((std::mem::take(&mut self.held.sends), pins));
        }
    }

    /// Slots pinned for the peer, one for each run of blocks.
    pub(super) fn slots_held(&self) -> usize {
        self.pins.len() + self.held.bursts.iter().map(|(_, pins)| pins.len()).sum::<usize>()
    }

    /// Whether slots are pinned for the peer, by a send under way or by what the kernel still reads.
    pub(super) fn holds_slots(&self) -> bool {
        !self.pins.is_empty() || self.held.sends > 0 || !self.held.bursts.is_empty()
    }

    /// All pins, held or not, once nothing of the connection is in flight any more.
    pub(super) fn take_pins(&mut self) -> impl Iterator<Item = Pin> {
        let held = std::mem::take(&mut self.held).bursts.into_iter().flat_map(|(_, pins)| pins);
        std::mem::take(&mut self.pins).into_iter().chain(held)
    }
}

impl Engine {
    /// The send that ends next is held by the kernel until `handle_released`.
    pub fn handle_held(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.out.held.sends += 1;
        }
    }

    /// The kernel has let go of the oldest send that it held.
    pub fn handle_released(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let held = &mut peer.out.held;
        let Some((sends, _)) = held.bursts.front_mut() else {
            held.sends = held.sends.saturating_sub(1);
            return;
        };
        *sends -= 1;
        if *sends == 0
            && let (Some((_, pins)), Some(id)) = (held.bursts.pop_front(), peer.torrent)
        {
            self.unpin_all(id, &pins);
            // It may have waited for a slot of its own.
            self.make_ready(conn);
        }
    }
}
