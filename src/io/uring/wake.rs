//! Ending another core's wait: an eventfd with a read armed on it.
#![allow(unsafe_code)] // The kernel writes the counter that it read into our memory.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, types};
use rustix::event::{EventfdFlags, eventfd};

use crate::io::Wake;

use super::key::{Key, Kind};
use super::ring::Ring;

/// The eventfd. Blocking on purpose: a read of a non-blocking one would end at once with EAGAIN
/// instead of waiting inside the ring.
#[derive(Debug)]
struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(&self) {
        #[expect(clippy::host_endian_bytes, reason = "an eventfd's counter is the host's")]
        let one = 1_u64.to_ne_bytes();
        // It fails only if 2^64 - 2 rings are unanswered, and then the consumer is awake anyway.
        let _ = rustix::io::write(&self.0, &one);
    }
}

/// The owner's end: keeps a read armed.
pub(super) struct Doorbell {
    bell: Arc<Bell>,
    /// The kernel writes here while the read is in flight; nobody reads it.
    count: Box<UnsafeCell<[u8; 8]>>,
    armed: bool,
}

impl Doorbell {
    pub(super) fn new() -> io::Result<Self> {
        let bell = Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC)?));
        Ok(Self { bell, count: Box::new(UnsafeCell::new([0; 8])), armed: false })
    }

    pub(super) fn waker(&self) -> Arc<dyn Wake> {
        self.bell.clone()
    }

    /// Arms the read unless it is armed.
    pub(super) fn arm(&mut self, ring: &mut Ring) {
        if self.armed {
            return;
        }
        self.armed = true;
        let fd = types::Fd(self.bell.0.as_raw_fd());
        let entry = opcode::Read::new(fd, self.count.get().cast(), 8).build();
        // SAFETY: descriptor and counter live until the doorbell is dropped, and `Uring` drops it
        // only after the last completion (or leaks it).
        unsafe { ring.push(entry, Key::only(Kind::Wake)) }
    }

    /// The read has ended.
    pub(super) fn ended(&mut self) {
        self.armed = false;
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Leaves eventfd and counter to the kernel, which may still use them.
    pub(super) fn leak(&mut self) {
        std::mem::forget(Arc::clone(&self.bell));
        std::mem::forget(std::mem::replace(&mut self.count, Box::new(UnsafeCell::new([0; 8]))));
    }
}
