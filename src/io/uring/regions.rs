//! The arena's regions as buffers that are registered with the kernel: once, and cloned to every ring.
//!
//! Registering pins a region's pages and charges them to the limit on locked memory, each time it is
//! done: with a ring per core, once per core. So one ring without submissions holds the registration,
//! and the others get a reference to it (`IORING_REGISTER_CLONE_BUFFERS` with a range, Linux 6.13).
//! Where the kernel cannot do that, each ring registers for itself.
//!
//! A region is forgotten before its memory is given back: by every ring, then by the one they share. The
//! last reference unpins its pages. When it is used again it is registered anew.
#![allow(unsafe_code)] // Registrations name the arena's memory.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use io_uring::IoUring;
use io_uring::types::CloneBuffersFlags;

use crate::io::arena::Arena;

use super::ring::Ring;
use super::setup::Memlock;

/// Registrations that all rings of the process share.
pub struct SharedRegions {
    arena: Arc<Arena>,
    /// Nothing is ever submitted here. Not `SINGLE_ISSUER`, because every core's thread registers
    /// with it; it outlives no memory, because it holds the arena.
    home: IoUring,
    /// A [`Home`] for each region.
    registered: Box<[AtomicU8]>,
}

/// Where a region stands on the ring that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Home {
    Absent,
    /// One thread is registering it.
    Coming,
    There,
    /// The kernel has refused it.
    Refused,
}

/// What a ring can have of a region.
enum Lent {
    Yes,
    /// Not now: another thread is registering it.
    Later,
    No,
}

impl SharedRegions {
    /// For the regions of `arena`. `None` where the kernel refuses; each ring then registers for itself.
    pub fn new(arena: &Arc<Arena>) -> Option<Arc<Self>> {
        let home = IoUring::builder().dontfork().build(1).ok()?;
        home.submitter().register_buffers_sparse(arena.region_count()).ok()?;
        let registered = (0..arena.region_count()).map(|_| AtomicU8::new(Home::Absent as u8)).collect();
        Some(Arc::new(Self { arena: Arc::clone(arena), home, registered }))
    }

    /// As if the kernel had refused to register a region.
    #[cfg(test)]
    pub(super) fn refuse(&self, region: u32) {
        self.registered[region as usize].store(Home::Refused as u8, Ordering::Release);
    }

    /// Makes a region a buffer of `ring`, at the index of the region.
    fn lend(&self, region: u32, ring: &Ring) -> io::Result<Lent> {
        let place = &self.registered[region as usize];
        let (absent, coming) = (Home::Absent as u8, Home::Coming as u8);
        match place.compare_exchange(absent, coming, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let made = register(&self.home.submitter(), region, &self.arena);
                let now = if made.is_ok() { Home::There } else { Home::Refused };
                place.store(now as u8, Ordering::Release);
                made?;
            }
            Err(found) if found == coming => return Ok(Lent::Later),
            Err(found) if found == Home::Refused as u8 => {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Err(_) => {}
        }
        let (home, flags) = (self.home.as_raw_fd(), CloneBuffersFlags::DST_REPLACE);
        ring.submitter().register_buffers_clone_offset(home, region, region, 1, flags)?;
        Ok(Lent::Yes)
    }

    /// Unregisters a region that every ring has forgotten; false if the kernel does not do it. May take
    /// a while: its pages are unpinned.
    pub fn forget(&self, region: u32) -> bool {
        let place = &self.registered[region as usize];
        if place.load(Ordering::Acquire) == Home::There as u8 {
            if let Err(error) = unregister(&self.home.submitter(), region) {
                tracing::warn!(%error, "cannot unregister cache memory; it is not given back");
                return false;
            }
            place.store(Home::Absent as u8, Ordering::Release);
        }
        true
    }
}

impl std::fmt::Debug for SharedRegions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_there = |region: &&AtomicU8| region.load(Ordering::Relaxed) == Home::There as u8;
        let there = self.registered.iter().filter(is_there).count();
        f.debug_struct("SharedRegions").field("registered", &there).finish_non_exhaustive()
    }
}

/// Which regions of the arena are buffers of this ring. A region becomes one when this ring first
/// uses it; the kernel then need not look up its pages for every operation.
pub(super) struct Regions {
    /// Cleared for good when the kernel cannot clone.
    shared: Option<Arc<SharedRegions>>,
    registered: Vec<Own>,
    /// Cleared for good when the kernel refuses: it would refuse the next region too.
    allowed: bool,
}

/// How a region is registered with one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    No,
    Alone,
    /// By a reference to the shared registration.
    Cloned,
}

impl Regions {
    /// An empty table in the kernel with a place for each region.
    pub(super) fn new(arena: &Arena, shared: Option<Arc<SharedRegions>>, ring: &Ring) -> Self {
        let count = arena.region_count();
        let made = ring.submitter().register_buffers_sparse(count);
        if let Err(error) = &made {
            warn(error);
        }
        Self { shared, registered: vec![Own::No; count as usize], allowed: made.is_ok() }
    }

    /// Goes on with unregistered memory for all regions that are not registered yet.
    #[cfg(test)]
    pub(super) fn forbid(&mut self) {
        self.allowed = false;
    }

    /// How many regions are registered, and how many of them share their registration.
    pub(super) fn count(&self) -> (usize, usize) {
        let cloned = self.registered.iter().filter(|own| **own == Own::Cloned).count();
        (self.registered.iter().filter(|own| **own != Own::No).count(), cloned)
    }

    /// The buffer index of a region; `None` if it cannot be registered, or not now.
    pub(super) fn index(&mut self, region: u32, arena: &Arena, ring: &Ring) -> Option<u16> {
        if self.registered[region as usize] == Own::No {
            if !self.allowed {
                return None;
            }
            self.registered[region as usize] = match self.borrow(region, ring) {
                Lent::Yes => Own::Cloned,
                Lent::Later => return None,
                Lent::No => self.register(region, arena, ring)?,
            };
        }
        Some(region as u16)
    }

    /// Unregisters a region that no operation uses; false if the kernel does not do it.
    pub(super) fn forget(&mut self, region: u32, ring: &Ring) -> bool {
        if self.registered[region as usize] == Own::No {
            return true;
        }
        if let Err(error) = unregister(&ring.submitter(), region) {
            tracing::warn!(%error, "cannot unregister cache memory; it is not given back");
            return false;
        }
        self.registered[region as usize] = Own::No;
        true
    }

    fn register(&mut self, region: u32, arena: &Arena, ring: &Ring) -> Option<Own> {
        if let Err(error) = register(&ring.submitter(), region, arena) {
            warn(&error);
            self.allowed = false;
            return None;
        }
        Some(Own::Alone)
    }

    /// Takes part in the shared registration.
    fn borrow(&mut self, region: u32, ring: &Ring) -> Lent {
        let Some(shared) = &self.shared else { return Lent::No };
        match shared.lend(region, ring) {
            Ok(lent) => lent,
            Err(error) => {
                tracing::debug!(%error, "registered cache memory is not shared between cores");
                self.shared = None;
                Lent::No
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

/// Takes a region off the table of the ring of `submitter`.
fn unregister(submitter: &io_uring::Submitter<'_>, region: u32) -> io::Result<()> {
    let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: an empty entry names no memory.
    unsafe { submitter.register_buffers_update(region, &[nothing], None) }
}

fn warn(error: &io::Error) {
    let limit = Memlock::current();
    tracing::warn!(
        %error,
        "cannot register cache memory with io_uring (locked-memory limit {limit}); disk transfers cost \
         more CPU until you raise `ulimit -l` or set LimitMEMLOCK=infinity in the systemd unit"
    );
}
