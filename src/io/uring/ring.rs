//! The bare ring: submissions that never get lost, one call into the kernel per turn.
#![allow(unsafe_code)] // Submissions name memory; each block says who keeps it valid.

use std::collections::VecDeque;
use std::io;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::base::ids::ConnId;
use crate::base::time::Span;

use super::key::{Key, Kind};

/// Completions taken in one turn.
pub(super) const BATCH_MAX: usize = 256;
/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness before the first try. A receive is armed when all that
/// came was read, so an immediate try would find nothing.
pub(super) const POLL_FIRST: u16 = 1;
/// How long a turn waits for completions when the kernel is too short of memory to submit.
const RELIEF: Span = Span::from_ms(1);

/// How long a call into the kernel may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    AtMost(Span),
    Forever,
}

impl Wait {
    /// The shorter one.
    pub(super) fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Forever, wait) | (wait, Self::Forever) => wait,
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.min(b)),
        }
    }
}

/// What became of a call into the kernel.
enum Entered {
    /// It went well, or it timed out or was interrupted, which is as well.
    Done,
    /// The kernel takes nothing before completions are taken from it or it has memory again.
    Busy,
}

/// A ring with its submissions that did not fit yet.
///
/// Invariant: operations reach the kernel in the order in which they were pushed. A cancellation
/// therefore never hits an operation that was pushed after it.
pub(super) struct Ring {
    ring: IoUring,
    backlog: VecDeque<squeue::Entry>,
    enter_flags: EnterFlags,
    /// Times the kernel had to hold completions back because the queue was full.
    pub(super) overflows: u64,
    /// Calls into the kernel.
    pub(super) enters: u64,
}

impl Ring {
    pub(super) fn new(ring: IoUring) -> Self {
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            // A parked core is idle, not waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        Self { ring, backlog: VecDeque::new(), enter_flags, overflows: 0, enters: 0 }
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation. Should the queue be full, what is in it is submitted at once.
    ///
    /// # Safety
    ///
    /// The descriptor and all memory that the operation names stay valid until its last completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, key: Key) {
        let entry = entry.user_data(key.pack());
        if !self.backlog.is_empty() || !self.push_or_submit(&entry) {
            self.backlog.push_back(entry);
        }
    }

    /// Queues the cancellation of an operation. Only its failure comes back, as a completion of
    /// kind `Cancel` with the id of `conn`, whose operation it is.
    pub(super) fn cancel(&mut self, target: Key, conn: ConnId) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target.pack())).build();
        let key = Key { kind: Kind::Cancel, id: conn };
        // SAFETY: a cancellation by user data names no memory and no descriptor.
        unsafe { self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), key) }
    }

    /// Queues the cancellation of everything in flight.
    pub(super) fn cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: as in `cancel`.
        unsafe { self.push(entry, Key::only(Kind::Cancel)) }
    }

    /// Submits everything, runs the kernel's deferred work and waits for at least one completion if
    /// there is none yet.
    pub(super) fn enter(&mut self, wait: Wait) {
        let wait = if self.drain_backlog() { wait } else { Wait::No };
        let wait = if self.ring.completion().is_empty() { wait } else { Wait::No };
        if matches!(self.call(true, wait), Entered::Busy) {
            self.call(false, wait.min(Wait::AtMost(RELIEF)));
        }
    }

    /// Moves up to [`BATCH_MAX`] completions to `batch`.
    pub(super) fn reap(&mut self, batch: &mut Vec<cqueue::Entry>) {
        batch.extend(self.ring.completion().take(BATCH_MAX));
    }

    /// Queues an operation, after submitting what is queued if need be; whether there was room.
    fn push_or_submit(&mut self, entry: &squeue::Entry) -> bool {
        self.push_now(entry) || (self.submit() && self.push_now(entry))
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller of `push` has promised it.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Hands the queue to the kernel without waiting; whether it took any of it.
    fn submit(&mut self) -> bool {
        matches!(self.call_with(EnterFlags::empty(), true, 0, None), Entered::Done)
    }

    /// Whether all of the backlog is in the queue now.
    fn drain_backlog(&mut self) -> bool {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push_or_submit(&entry) {
                self.backlog.push_front(entry);
                return false;
            }
        }
        true
    }

    fn call(&mut self, submit: bool, wait: Wait) -> Entered {
        let flags = self.enter_flags;
        match wait {
            Wait::No => self.call_with(flags, submit, 0, None),
            Wait::Forever => self.call_with(flags, submit, 1, None),
            Wait::AtMost(span) => {
                let (sec, nsec) = (span.0 / 1_000_000_000, span.0 % 1_000_000_000);
                let time = Timespec::new().sec(sec).nsec(nsec as u32);
                self.call_with(flags, submit, 1, Some(&time))
            }
        }
    }

    fn call_with(
        &mut self,
        flags: EnterFlags,
        submit: bool,
        want: u32,
        timeout: Option<&Timespec>,
    ) -> Entered {
        self.enters += 1;
        let queue = self.ring.submission();
        self.overflows += u64::from(queue.cq_overflow());
        let queued = if submit { queue.len() as u32 } else { 0 };
        drop(queue);
        let mut args = SubmitArgs::new();
        if let Some(time) = timeout {
            args = args.timespec(time);
        }
        let args = if flags.contains(EnterFlags::EXT_ARG) { Some(&args) } else { None };
        // SAFETY: whoever pushed the submissions vouches for them; `args` has the layout that
        // EXT_ARG asks for and outlives the call.
        let result = unsafe { self.ring.submitter().enter(queued, want, flags.bits(), args) };
        result.map_or_else(|error| sort(&error), |_| Entered::Done)
    }
}

/// What an error of the call means. Panics on what cannot happen unless this module is wrong, or
/// after which operations would never end: the process stops then, it does not limp on.
fn sort(error: &io::Error) -> Entered {
    match error.raw_os_error() {
        Some(libc::ETIME | libc::EINTR) => Entered::Done,
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => Entered::Busy,
        Some(libc::EBADR) => panic!("the kernel ran out of memory and lost I/O completions"),
        _ => panic!("io_uring_enter failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_wait_wins() {
        let (short, long) = (Wait::AtMost(Span(1)), Wait::AtMost(Span(2)));
        assert_eq!(short.min(long), short);
        assert_eq!(long.min(Wait::No), Wait::No);
        assert_eq!(Wait::Forever.min(long), long);
        assert_eq!(Wait::Forever.min(Wait::Forever), Wait::Forever);
    }

    #[test]
    fn only_errors_that_pass_are_survived() {
        let sorted = |errno| sort(&io::Error::from_raw_os_error(errno));
        assert!(matches!(sorted(libc::EINTR), Entered::Done));
        assert!(matches!(sorted(libc::ETIME), Entered::Done));
        assert!(matches!(sorted(libc::EBUSY), Entered::Busy));
        assert!(std::panic::catch_unwind(|| sorted(libc::EBADR)).is_err());
    }
}
