//! Buffers for bytes that nobody planned for: the kernel takes one when they have arrived.
//!
//! A connection that waits for a handshake, a request or a keep-alive names no memory; there is one
//! set of buffers per ring ("provided buffers", `IORING_REGISTER_PBUF_RING`). A filled buffer becomes
//! the connection's inbox as it is, without a copy, and its place in the set is filled at once. When
//! the connection waits again it gives the memory back. Where the kernel refuses, `None` is made and
//! each connection waits with a buffer of its own.
#![allow(unsafe_code)] // The table and the buffers in it are shared with the kernel.

use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::base::limits::RECEIVE_BUFFERS;
use crate::base::units::PAGE_BYTES;
use crate::io::INBOX_BYTES;

use super::ring::{BATCH_MAX, Ring};

/// The number of the set; a ring has only this one.
pub(super) const GROUP: u16 = 0;

/// What the kernel reads the buffers' addresses from.
///
/// Invariant: `base` is the start of [`RECEIVE_BUFFERS`] zero-filled entries, aligned to a page, that
/// stay there until the table is dropped. The kernel reads them and writes none.
struct Table {
    base: NonNull<BufRingEntry>,
    /// Buffers handed to the kernel so far, modulo 2^16.
    tail: u16,
}

impl Table {
    fn layout() -> Layout {
        let bytes = usize::from(RECEIVE_BUFFERS) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES as usize).expect("a page is a power of two")
    }

    fn new() -> Self {
        let layout = Self::layout();
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        let Some(base) = base else { std::alloc::handle_alloc_error(layout) };
        Self { base: base.cast(), tail: 0 }
    }

    /// Offers a buffer. Its memory must stay until the kernel has filled it or the ring is gone.
    fn offer(&mut self, id: u16, buffer: &mut [u8]) {
        let at = usize::from(self.tail % RECEIVE_BUFFERS);
        // SAFETY: below `RECEIVE_BUFFERS`, hence inside the table; the kernel does not read the entry
        // before the tail says that it is there.
        let entry = unsafe { &mut *self.base.as_ptr().add(at) };
        entry.set_addr(buffer.as_mut_ptr() as u64);
        entry.set_len(buffer.len() as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in a part of the first entry that `set_...` leave alone, and all that
        // ever access it are the kernel and this store.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.base.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: as it was made in `new`; the owner has dropped the ring before.
        unsafe { std::alloc::dealloc(self.base.as_ptr().cast(), Self::layout()) }
    }
}

/// See the module.
pub(super) struct Buffers {
    table: Table,
    /// By buffer id: what the kernel may write to at any time.
    offered: Vec<Vec<u8>>,
    /// Given back, to replace what is taken next.
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// Registers a full set with `ring`, which must be dropped before it.
    pub(super) fn new(ring: &Ring) -> io::Result<Self> {
        let mut table = Table::new();
        let base = table.base.as_ptr() as u64;
        // SAFETY: the table has as many entries, and the caller drops the ring first.
        unsafe { ring.submitter().register_buf_ring_with_flags(base, RECEIVE_BUFFERS, GROUP, 0)? };
        let mut offered: Vec<_> = (0..RECEIVE_BUFFERS).map(|_| vec![0; INBOX_BYTES]).collect();
        (0..).zip(&mut offered).for_each(|(id, buffer)| table.offer(id, buffer));
        Ok(Self { table, offered, spare: Vec::new() })
    }

    /// Takes a buffer that the kernel has filled, and offers another in its place: buffers are short
    /// only as long as completions wait to be taken.
    pub(super) fn take(&mut self, id: u16) -> Vec<u8> {
        let mut other = self.private();
        std::mem::swap(&mut self.offered[usize::from(id)], &mut other);
        self.table.offer(id, &mut self.offered[usize::from(id)]);
        other
    }

    /// Memory for a connection that found all buffers filled.
    pub(super) fn private(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| vec![0; INBOX_BYTES])
    }

    /// Gives memory back. Contents do not matter; an inbox that was resized is of no use here.
    pub(super) fn give(&mut self, inbox: Vec<u8>) {
        if inbox.len() == INBOX_BYTES && self.spare.len() < BATCH_MAX {
            self.spare.push(inbox);
        }
    }
}
