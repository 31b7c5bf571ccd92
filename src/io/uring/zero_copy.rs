//! Sends that the network card reads from the arena itself (`SENDMSG_ZC`), where that is worth it.
//!
//! The kernel completes such a send twice: when it has taken the bytes, and when it has let go of the
//! memory ("notification"), which says whether the bytes were copied after all. They are on loopback and
//! veth, and behind a packet tap; each connection finds out by one send, and one *copied* ends it for the
//! connection, because a zero-copy send that copies is dearer than a plain one. Only registered memory is
//! used: looking the pages up for each send would cost what is won, and be charged to the limit on locked
//! memory. All of one send lies in one region, headers included.
#![allow(unsafe_code)] // One field of a submission that the crate does not let one set.

use std::collections::VecDeque;

use io_uring::{opcode, squeue, types};

use crate::base::ids::ConnId;
use crate::base::limits::{ZERO_COPY_BYTES_MIN, ZERO_COPY_HELD_BYTES_MAX};
use crate::io::Segment;
use crate::io::arena::Arena;

/// Take the memory from the ring's registered buffers (`IORING_RECVSEND_FIXED_BUF`).
const FIXED_BUFFER: u16 = 1 << 2;
/// Say in the notification whether the bytes were copied (`IORING_SEND_ZC_REPORT_USAGE`).
const REPORT_USAGE: u16 = 1 << 3;
/// They were (`IORING_NOTIF_USAGE_ZC_COPIED`).
const COPIED: i32 = i32::MIN;
/// Where `io_uring_sqe` has its `buf_index`, in bytes.
const BUFFER_INDEX_AT: usize = 40;

/// When sends leave without a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// On each connection on which the kernel says that it does.
    Auto,
    /// Never.
    #[default]
    Off,
    /// Always when a send is long enough, whatever the kernel says; for tests and measurements.
    Force,
}

/// What a connection knows about its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Unknown,
    /// A first send is under way; the others are copied until its notification.
    Asked,
    Honoured,
    /// For good.
    Copied,
}

/// A send whose memory the kernel has not let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    id: ConnId,
    bytes: u32,
    /// The caller was told that it is held. One that failed is not told of.
    is_told: bool,
    /// The notification has come, but an older send's has not.
    is_free: bool,
}

/// The zero-copy sends of one connection. Order of their notifications may differ from theirs, order
/// of what is told does not.
#[derive(Debug, Default)]
pub(super) struct Holds {
    verdict: Verdict,
    sends: VecDeque<Held>,
}

/// The start of a send that can leave without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// How many segments.
    pub(super) segments: usize,
    /// How long they are together.
    pub(super) bytes: u32,
    /// The region that they all lie in.
    pub(super) region: u32,
}

/// The first segments that lie in one region of the arena, if they are long enough together.
pub(super) fn prefix(segments: &[Segment]) -> Option<Prefix> {
    let region = |segment: &Segment| match segment {
        Segment::Payload { slot, .. } | Segment::Header { slot, .. } => Some(Arena::region_of(*slot)),
        Segment::Inbox { .. } | Segment::Outbox { .. } => None,
    };
    let first = region(segments.first()?)?;
    let count = segments.iter().take_while(|segment| region(segment) == Some(first)).count();
    let bytes = segments[..count].iter().map(Segment::len).sum();
    (bytes >= ZERO_COPY_BYTES_MIN).then_some(Prefix { segments: count, bytes, region: first })
}

impl Holds {
    /// Whether `bytes` more should leave without a copy.
    pub(super) fn wants(&self, mode: ZeroCopy, bytes: u32) -> bool {
        let held: u32 = self.sends.iter().map(|held| held.bytes).sum();
        let allowed = match mode {
            ZeroCopy::Off => false,
            ZeroCopy::Force => true,
            ZeroCopy::Auto => matches!(self.verdict, Verdict::Unknown | Verdict::Honoured),
        };
        allowed && held + bytes <= ZERO_COPY_HELD_BYTES_MAX
    }

    /// A send of `bytes` begins.
    pub(super) fn began(&mut self, id: ConnId, bytes: u32) {
        self.sends.push_back(Held { id, bytes, is_told: false, is_free: false });
        if self.verdict == Verdict::Unknown {
            self.verdict = Verdict::Asked;
        }
    }

    /// The send that began last ended without a notification to come; it says nothing about the way.
    pub(super) fn dropped(&mut self, id: ConnId) {
        self.sends.retain(|held| held.id != id);
        if self.verdict == Verdict::Asked {
            self.verdict = Verdict::Unknown;
        }
    }

    /// The bytes of a send are taken, and its caller is told that the memory is held.
    pub(super) fn taken(&mut self, id: ConnId) {
        if let Some(held) = self.sends.iter_mut().find(|held| held.id == id) {
            held.is_told = true;
        }
    }

    /// This connection goes back to copies for good.
    pub(super) fn give_up(&mut self) {
        self.verdict = Verdict::Copied;
    }

    /// The notification of a send, with its result: how many sends that the caller was told of, the oldest
    /// first, are free now, and whether the bytes were copied.
    pub(super) fn notified(&mut self, id: ConnId, result: i32) -> (usize, bool) {
        let was_copied = result & COPIED != 0;
        self.verdict = match self.verdict {
            Verdict::Copied => Verdict::Copied,
            _ if was_copied => Verdict::Copied,
            _ => Verdict::Honoured,
        };
        if let Some(held) = self.sends.iter_mut().find(|held| held.id == id) {
            held.is_free = true;
        }
        let free = self.sends.iter().take_while(|held| held.is_free).count();
        let told = self.sends.drain(..free).filter(|held| held.is_told).count();
        (told, was_copied)
    }

    /// Sends whose memory is not free yet.
    pub(super) fn count(&self) -> usize {
        self.sends.len()
    }
}

/// A send without a copy from the registered buffer `index`.
pub(super) fn entry(fd: types::Fd, message: *const libc::msghdr, index: u16) -> squeue::Entry {
    let flags = libc::MSG_NOSIGNAL as u32;
    let mut entry =
        opcode::SendMsgZc::new(fd, message).ioprio(FIXED_BUFFER | REPORT_USAGE).flags(flags).build();
    // SAFETY: an entry is an `io_uring_sqe` of 64 bytes, aligned to 8, which has a `u16` there; the test
    // below compares with an operation for which the crate sets it.
    unsafe { (&raw mut entry).cast::<u8>().add(BUFFER_INDEX_AT).cast::<u16>().write(index) };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::SlotId;
    use crate::io::arena::SLOTS_PER_REGION;

    const fn id(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    /// A send that the kernel has taken.
    fn take(holds: &mut Holds, index: u32, bytes: u32) {
        holds.began(id(index), bytes);
        holds.taken(id(index));
    }

    const fn payload(slot: u32, len: u32) -> Segment {
        Segment::Payload { slot: SlotId(slot), offset: 0, len }
    }

    #[test]
    fn the_buffer_index_lies_where_the_crate_has_it() {
        let bytes = |entry: squeue::Entry| -> [u8; 64] {
            assert_eq!(size_of::<squeue::Entry>(), 64);
            // SAFETY: an entry is 64 bytes of plain integers.
            unsafe { std::mem::transmute_copy(&entry) }
        };
        let fd = types::Fd(3);
        let theirs =
            |index| bytes(opcode::SendZc::new(fd, std::ptr::null(), 0).buf_index(Some(index)).build());
        let (one, other) = (theirs(0), theirs(0x1234));
        let differing: Vec<_> = (0..64).filter(|&at| one[at] != other[at]).collect();
        assert_eq!(differing, [BUFFER_INDEX_AT, BUFFER_INDEX_AT + 1]);
        let ours = bytes(entry(fd, std::ptr::null(), 0x1234));
        assert_eq!(ours[BUFFER_INDEX_AT..BUFFER_INDEX_AT + 2], other[BUFFER_INDEX_AT..BUFFER_INDEX_AT + 2]);
    }

    #[test]
    fn a_send_leaves_without_a_copy_as_far_as_it_lies_in_one_region() {
        let head = Segment::Header { slot: SlotId(0), block: 0, skip: 0 };
        let outbox = Segment::Outbox { offset: 0, len: ZERO_COPY_BYTES_MIN };
        let least = ZERO_COPY_BYTES_MIN;
        assert_eq!(prefix(&[payload(0, least - 1)]), None);
        assert_eq!(prefix(&[payload(0, least)]), Some(Prefix { segments: 1, bytes: least, region: 0 }));
        let bytes = 13 + least;
        assert_eq!(prefix(&[head, payload(0, least)]), Some(Prefix { segments: 2, bytes, region: 0 }));
        let elsewhere = payload(SLOTS_PER_REGION, least);
        assert_eq!(prefix(&[payload(0, least), elsewhere]).map(|prefix| prefix.segments), Some(1));
        assert_eq!(prefix(&[payload(0, least), outbox]).map(|prefix| prefix.segments), Some(1));
        assert_eq!(prefix(&[head, elsewhere]), None);
        assert_eq!(prefix(&[outbox, payload(0, least)]), None);
        assert_eq!(prefix(&[]), None);
    }

    #[test]
    fn one_send_asks_and_one_copy_ends_it() {
        let mut holds = Holds::default();
        assert!(!holds.wants(ZeroCopy::Off, 1) && holds.wants(ZeroCopy::Auto, 1));
        take(&mut holds, 1, 1);
        assert!(!holds.wants(ZeroCopy::Auto, 1), "until the kernel has answered");
        assert!(holds.wants(ZeroCopy::Force, 1));
        assert_eq!(holds.notified(id(1), 0), (1, false));
        assert!(holds.wants(ZeroCopy::Auto, 1), "honoured");
        take(&mut holds, 2, 1);
        take(&mut holds, 3, 1);
        assert_eq!(holds.notified(id(2), COPIED), (1, true));
        assert!(!holds.wants(ZeroCopy::Auto, 1) && holds.wants(ZeroCopy::Force, 1));
        assert_eq!(holds.notified(id(3), 0), (1, false));
        assert!(!holds.wants(ZeroCopy::Auto, 1), "for good");
    }

    #[test]
    fn memory_is_told_free_in_the_order_of_the_sends() {
        let mut holds = Holds::default();
        (0..4).for_each(|at| take(&mut holds, at, 1));
        assert_eq!(holds.notified(id(1), 0), (0, false));
        assert_eq!(holds.notified(id(0), 0), (2, false));
        assert_eq!(holds.notified(id(3), 0), (0, false));
        holds.dropped(id(2));
        assert_eq!((holds.notified(id(9), 0), holds.count()), ((1, false), 0));
    }

    #[test]
    fn a_send_that_failed_has_not_answered() {
        let mut holds = Holds::default();
        holds.began(id(1), 1);
        holds.dropped(id(1));
        assert!(holds.wants(ZeroCopy::Auto, 1));
        // One that failed, and yet a notification follows.
        holds.began(id(2), 1);
        assert_eq!(holds.notified(id(2), 0), (0, false));
        holds.give_up();
        assert!(!holds.wants(ZeroCopy::Auto, 1));
    }

    #[test]
    fn a_slow_peer_holds_no_more_than_the_limit() {
        let mut holds = Holds::default();
        take(&mut holds, 0, 1);
        assert_eq!(holds.notified(id(0), 0), (1, false));
        take(&mut holds, 1, ZERO_COPY_HELD_BYTES_MAX - 10);
        assert!(holds.wants(ZeroCopy::Auto, 9) && holds.wants(ZeroCopy::Auto, 10));
        assert!(!holds.wants(ZeroCopy::Auto, 11) && !holds.wants(ZeroCopy::Force, 11));
    }
}
