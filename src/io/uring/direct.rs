//! The ring's part of zero copy: which sends, and what becomes of the memory. See `zero_copy.rs`.

use io_uring::cqueue;

use crate::base::ids::ConnId;
use crate::io::arena::Arena;
use crate::io::{Completion, Segment};

use super::Uring;
use super::connection::{Direct, Ended, Flight};
use super::key::{Key, Kind};
use super::zero_copy::{ZeroCopy, prefix};

/// Slots of the arena for each send that the kernel may hold at a time: with a burst of two chunks, every
/// core of eight may have an eighth of its cache pinned, never all of it.
const SLOTS_PER_HOLD: u32 = 16;

/// How many sends of one ring the kernel may hold.
pub(super) fn holds_max(arena: &Arena) -> u32 {
    arena.slot_count() / SLOTS_PER_HOLD
}

impl Uring {
    /// Whether the start of a send leaves without a copy: how many segments, and how.
    pub(super) fn direct(&mut self, conn: ConnId, segments: &[Segment]) -> Option<(usize, Direct)> {
        if self.zero_copy == ZeroCopy::Off {
            return None;
        }
        let start = prefix(segments)?;
        let connection = self.connections.get_mut(conn)?;
        if connection.fd.is_none() || !connection.holds.wants(self.zero_copy, start.bytes) {
            return None;
        }
        let buffer = self.regions.index(start.region, &self.arena, &self.ring)?;
        let id = self.holds.insert(conn).ok()?;
        connection.holds.began(id, start.bytes);
        self.counters.zero_copy_sends += 1;
        Some((start.segments, Direct { buffer, id }))
    }

    /// A completion of a zero-copy send: the bytes are taken, or their memory is free.
    pub(super) fn zero_copy_event(&mut self, id: ConnId, cqe: &cqueue::Entry, done: &mut Vec<Completion>) {
        let Some(&conn) = self.holds.get(id) else {
            self.counters.stale += 1;
            return;
        };
        if cqueue::notif(cqe.flags()) {
            return self.released(id, conn, cqe.result(), done);
        }
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let (result, is_held) = (cqe.result(), cqueue::more(cqe.flags()));
        let is_running = connection.send == Flight::Running && !connection.closing;
        let again = matches!(-result, libc::EINTR | libc::EAGAIN);
        if again && is_running && !is_held {
            return connection.push_send(Key { kind: Kind::ZeroCopy, id }, &mut self.ring);
        }
        if !is_held {
            connection.holds.dropped(id);
            self.holds.remove(id);
        }
        // What the kernel does not have at all (before Linux 6.15), and what it has no memory for.
        let is_missing = matches!(-result, libc::EINVAL | libc::EOPNOTSUPP);
        if is_running && (is_missing || matches!(-result, libc::ENOMEM | libc::ENOBUFS)) {
            connection.holds.give_up();
            connection.push_copied(Key { kind: Kind::Send, id: conn }, &mut self.ring);
            if is_missing {
                self.zero_copy = ZeroCopy::Off;
            }
            return;
        }
        let held = is_held && result >= 0;
        if held {
            connection.holds.taken(id);
        }
        self.ended(Ended { kind: Kind::Send, conn, result, again, held }, done);
    }

    /// The kernel has let go of a send's memory.
    fn released(&mut self, id: ConnId, conn: ConnId, result: i32, done: &mut Vec<Completion>) {
        self.holds.remove(id);
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let (free, was_copied) = connection.holds.notified(id, result);
        self.counters.zero_copy_copied += u64::from(was_copied);
        if connection.closing {
            return self.let_go(conn, done);
        }
        done.extend((0..free).map(|_| Completion::Released { conn }));
    }
}
