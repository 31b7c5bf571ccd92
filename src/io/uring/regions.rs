//! The arena's regions as buffers that are registered with the kernel: once, and cloned to every ring.
//!
//! Registering pins a region's pages and charges them to the limit on locked memory, each time it is
//! done: with a ring per core, once per core. So one ring without submissions holds the registration,
//! and the others get a reference to it (`IORING_REGISTER_CLONE_BUFFERS` with a range, Linux 6.13).
//! Where the kernel cannot do that, each ring registers for itself.
#![allow(unsafe_code)] // Registrations name the arena's memory.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

use io_uring::IoUring;
use io_uring::types::CloneBuffersFlags;

use crate::base::units::PAGE_BYTES;
use crate::io::arena::Arena;

use super::ring::Ring;
use super::setup::Memlock;

/// Registrations that all rings of the process share.
pub struct SharedRegions {
    arena: Arc<Arena>,
    /// Nothing is ever submitted here. Not `SINGLE_ISSUER`, because every core's thread registers
    /// with it; it outlives no memory, because it holds the arena.
    home: IoUring,
    /// Whether each region could be registered; whoever comes first does it, who comes at the same
    /// time waits for it, as it would have to for a registration of its own.
    registered: Box<[OnceLock<bool>]>,
}

impl SharedRegions {
    /// For the regions of `arena`. `None` where the kernel refuses; each ring then registers for itself.
    pub fn new(arena: &Arc<Arena>) -> Option<Arc<Self>> {
        let home = IoUring::builder().dontfork().build(1).ok()?;
        home.submitter().register_buffers_sparse(arena.region_count()).ok()?;
        let registered = (0..arena.region_count()).map(|_| OnceLock::new()).collect();
        Some(Arc::new(Self { arena: Arc::clone(arena), home, registered }))
    }

    /// As if the kernel had refused to register a region.
    #[cfg(test)]
    pub(super) fn refuse(&self, region: u32) {
        self.registered[region as usize].set(false).expect("not registered yet");
    }

    /// Makes a region a buffer of `ring`, at the index of the region.
    fn lend(&self, region: u32, ring: &Ring) -> io::Result<()> {
        let there = *self.registered[region as usize]
            .get_or_init(|| register(&self.home.submitter(), region, &self.arena).is_ok());
        if !there {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (home, flags) = (self.home.as_raw_fd(), CloneBuffersFlags::DST_REPLACE);
        ring.submitter().register_buffers_clone_offset(home, region, region, 1, flags)
    }
}

impl std::fmt::Debug for SharedRegions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = self.registered.iter().filter(|region| region.get() == Some(&true)).count();
        f.debug_struct("SharedRegions").field("registered", &there).finish_non_exhaustive()
    }
}

/// Whether the kernel lets rings share the registration of a buffer: tried with a page.
pub fn can_share_regions() -> bool {
    let page = vec![0_u8; PAGE_BYTES as usize];
    let sparse = || {
        let ring = IoUring::builder().dontfork().build(1)?;
        ring.submitter().register_buffers_sparse(1).map(|()| ring)
    };
    let lend = || {
        let (home, borrower): (IoUring, IoUring) = (sparse()?, sparse()?);
        let buffer = libc::iovec { iov_base: page.as_ptr().cast_mut().cast(), iov_len: page.len() };
        // SAFETY: nothing is ever submitted to either ring, and both are gone before the page is.
        unsafe { home.submitter().register_buffers_update(0, &[buffer], None)? };
        let flags = CloneBuffersFlags::DST_REPLACE;
        borrower.submitter().register_buffers_clone_offset(home.as_raw_fd(), 0, 0, 1, flags)
    };
    let lent: io::Result<()> = lend();
    lent.is_ok()
}

/// Which regions of the arena are buffers of this ring. A region becomes one when this ring first
/// uses it; the kernel then need not look up its pages for every operation.
pub(super) struct Regions {
    /// Cleared for good when the kernel cannot clone.
    shared: Option<Arc<SharedRegions>>,
    registered: Vec<bool>,
    /// Regions that were cloned from the shared registration.
    cloned: usize,
    /// Cleared for good when the kernel refuses: it would refuse the next region too.
    allowed: bool,
}

impl Regions {
    /// An empty table in the kernel with a place for each region.
    pub(super) fn new(arena: &Arena, shared: Option<Arc<SharedRegions>>, ring: &Ring) -> Self {
        let count = arena.region_count();
        let made = ring.submitter().register_buffers_sparse(count);
        if let Err(error) = &made {
            warn(error);
        }
        Self { shared, registered: vec![false; count as usize], cloned: 0, allowed: made.is_ok() }
    }

    /// Goes on with unregistered memory for all regions that are not registered yet.
    #[cfg(test)]
    pub(super) fn forbid(&mut self) {
        self.allowed = false;
    }

    /// How many regions are registered, and how many of them share their registration.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.registered.iter().filter(|registered| **registered).count(), self.cloned)
    }

    /// The buffer index of a region, `None` if it cannot be registered.
    pub(super) fn index(&mut self, region: u32, arena: &Arena, ring: &Ring) -> Option<u16> {
        if !self.registered[region as usize] {
            if !self.allowed {
                return None;
            }
            if !self.borrow(region, ring)
                && let Err(error) = register(&ring.submitter(), region, arena)
            {
                warn(&error);
                self.allowed = false;
                return None;
            }
            self.registered[region as usize] = true;
        }
        Some(region as u16)
    }

    /// Takes part in the shared registration; whether that went well.
    fn borrow(&mut self, region: u32, ring: &Ring) -> bool {
        let Some(shared) = &self.shared else { return false };
        match shared.lend(region, ring) {
            Ok(()) => {
                self.cloned += 1;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "registered cache memory is not shared between cores");
                self.shared = None;
                false
            }
        }
    }
}

/// Registers a region with the ring of `submitter`, at the index of the region.
fn register(submitter: &io_uring::Submitter<'_>, region: u32, arena: &Arena) -> io::Result<()> {
    // SAFETY: the region stays mapped as long as the arena, which whoever owns the ring holds until
    // the ring is gone.
    unsafe { submitter.register_buffers_update(region, &[arena.region_iovec(region)], None) }
}

fn warn(error: &io::Error) {
    let limit = Memlock::current();
    tracing::warn!(
        %error,
        "cannot register cache memory with io_uring (locked-memory limit {limit}); disk transfers cost \
         more CPU until you raise `ulimit -l` or set LimitMEMLOCK=infinity in the systemd unit"
    );
}
