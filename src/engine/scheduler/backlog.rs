//! Of a group one connection at a time stands in this machine's own queue.
//!
//! On a full link each connection that has something there gets as much as any other: a group that has four
//! in it gets four times what another gets, whatever the order says. While something stands there the link
//! is busy, so the others of that group may as well wait. Of what is in flight further on nobody knows
//! whether it stands in a queue, or whose: it holds up nobody.

use super::class::Class;
use super::party::Next;
use super::{Scheduler, Seat};
use crate::base::ids::ConnId;
use crate::base::time::{Instant, Span};
use crate::shared::ledger::Ledger;

/// What stands in this machine's queue of one connection keeps others of its party waiting if our link
/// takes longer for it. TCP leaves some there of whoever fills the link, a millisecond's worth and more; a
/// link that is not full has sent it in a fraction of that.
pub const BACKLOG_SPAN: Span = Span(400_000);

/// The kernel is asked again when that should be gone, after so long at the soonest and at the latest: all
/// parties that wait are asked about together, and each question is a system call.
pub const ASK_AGAIN: [Span; 2] = [Span::from_ms(1), Span::from_ms(4)];

impl Scheduler {
    /// Whether the others of a party wait until what one of them got has left our queue. Who has earned its
    /// place need not, and a party that is busy alone takes nothing from anybody.
    pub(super) fn is_held(&mut self, party: u32, class: Class) -> bool {
        if !class.is_unearned() || self.parties.busy() <= 1 {
            return false;
        }
        let next = self.parties.at_mut(party).next(self.window.epoch());
        if let Next::Ask(index) = next {
            self.asks.push(self.seats[index as usize].expect("who leaves has no turn").conn);
        }
        next != Next::Free
    }

    /// The next connection of which we need to know what stands in this machine's queue.
    pub fn next_ask(&mut self) -> Option<ConnId> {
        self.asks.pop()
    }

    /// So much of what the connection was sent stands in this machine's queue.
    pub fn note_backlog(&mut self, conn: ConnId, bytes: u64, now: Instant, ledger: &Ledger) {
        let Some(seat) = self.seat(conn) else { return };
        let left = self.window.passing(bytes);
        if left > BACKLOG_SPAN {
            self.held.extend(seat.parties());
            let [soonest, latest] = ASK_AGAIN;
            let at = now + left.clamp(soonest, latest);
            self.ask_at = Some(self.ask_at.map_or(at, |before| before.min(at)));
            return;
        }
        self.end_turns(seat, ledger);
    }

    /// Nothing of what a connection got stands in our queue any more, or it goes: nobody waits for that.
    pub(super) fn end_turns(&mut self, seat: Seat, ledger: &Ledger) {
        for party in seat.parties() {
            if self.parties.at_mut(party).end_turn(seat.conn.index) {
                self.try_anew(party, ledger);
            }
        }
    }

    /// Parties that wait for what stands in our queue may look whether it still does.
    pub(super) fn release(&mut self, ledger: &Ledger) {
        while let Some(party) = self.held.pop() {
            self.parties.at_mut(party).ask_anew();
            self.try_anew(party, ledger);
        }
    }
}
