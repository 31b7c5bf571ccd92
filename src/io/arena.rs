//! The arena: the only memory that payload ever lies in, shared by all cores.
//!
//! Regions of 64 MiB, each registered as one buffer by every ring that uses it. The address space
//! of all regions is reserved when the arena is made; memory comes from the kernel when a region is
//! first used. A slot is one header page, the payload of a chunk, and one page more, because a
//! chunk lies in its slot at its file offset modulo [`PAGE_BYTES`].
//!
//! Contract: the arena keeps no track of who uses a slot. The chunk states in `shared/` do: a slot
//! in the hands of a loader or an assembly is written by that core alone (or by the kernel on its
//! behalf) and read by nobody else; once published it is only read, until the last pin is gone.
#![allow(unsafe_code)] // Raw memory that the kernel reads and writes; each block says why it is sound.

use std::ptr::NonNull;

use crate::base::ids::SlotId;
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES, PAGE_BYTES, PIECE_HEADER_BYTES, SLOT_PAYLOAD_BYTES};

use super::Errno;

/// One region, in bytes: what is registered as one buffer.
pub const REGION_BYTES: u64 = 64 << 20;
/// From one slot to the next: header page and payload area.
pub const SLOT_STRIDE_BYTES: u32 = PAGE_BYTES + SLOT_PAYLOAD_BYTES;
/// Slots of one region; none straddles two regions.
pub const SLOTS_PER_REGION: u32 = (REGION_BYTES / SLOT_STRIDE_BYTES as u64) as u32;
/// Most regions: as many buffers as one ring can register (1 TiB).
pub const REGIONS_MAX: u32 = 1 << 14;

/// Regions start on the boundary of a large page.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// `piece` (BEP 3).
const MESSAGE_ID_PIECE: u8 = 7;
/// Bytes of a `piece` message that its length prefix counts besides the block: id, index, begin.
const PIECE_PREFIX_BYTES: u32 = 9;

/// The arena cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The kernel refuses the address space.
    #[error(
        "cannot reserve {bytes} bytes of memory for the cache: {errno}; lower --cache or raise `ulimit -v`"
    )]
    Map {
        /// What was asked for.
        bytes: u64,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// Payload memory in slots.
///
/// Invariant: `base` is the start of `regions` x [`REGION_BYTES`] mapped, writable, zero-filled
/// bytes that stay mapped until the arena is dropped.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    regions: u32,
}

// SAFETY: the mapping belongs to the process, not to a thread; who may touch which bytes at what
// time is the contract at the top of this module.
unsafe impl Send for Arena {}
// SAFETY: as for `Send`; the only field that changes is the memory itself.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves as many whole regions as fit into `limit_bytes`: at least one, at most
    /// [`REGIONS_MAX`].
    pub fn new(limit_bytes: u64) -> Result<Self, ArenaError> {
        let regions = (limit_bytes / REGION_BYTES).clamp(1, u64::from(REGIONS_MAX)) as u32;
        let base = map(regions as usize * REGION_BYTES as usize)?;
        Ok(Self { base, regions })
    }

    /// How many slots there are; slot ids count from 0.
    pub const fn slot_count(&self) -> u32 {
        self.regions * SLOTS_PER_REGION
    }

    /// How many consecutive slots share one region.
    pub const fn slots_per_region(&self) -> u32 {
        SLOTS_PER_REGION
    }

    /// How many regions there are.
    pub const fn region_count(&self) -> u32 {
        self.regions
    }

    /// Takes the memory of a region from the kernel now, from whatever thread. A ring that registers
    /// the region later then needs some 0.1 ms for it; otherwise it fills 64 MiB with zeroes first
    /// and stands still for 7 ms and more. Contents do not change; where the kernel cannot do it
    /// ahead (before Linux 5.14, or for want of memory) nothing happens.
    pub fn prefault(&self, region: u32) {
        let start = self.region_ptr(region);
        // SAFETY: the region is mapped, and populating it leaves all bytes as they are.
        unsafe { libc::madvise(start.as_ptr().cast(), REGION_BYTES as usize, libc::MADV_POPULATE_WRITE) };
    }

    /// Gives the memory of a region back to the kernel; it reads as zeroes from then on. The caller is the
    /// only user of all its slots, and no ring has it registered: one would go on using the old pages.
    pub fn discard(&self, region: u32) {
        let start = self.region_ptr(region);
        // SAFETY: the region is mapped, and nobody uses its bytes (above).
        unsafe { libc::madvise(start.as_ptr().cast(), REGION_BYTES as usize, libc::MADV_DONTNEED) };
    }

    /// Payload bytes of a slot. The caller holds the slot, or a pin on its chunk.
    pub fn payload(&self, slot: SlotId, offset: u32, len: u32) -> &[u8] {
        // SAFETY: `payload_ptr` has checked the bounds; the bytes were zero-filled at first; nobody
        // writes them while the caller may read them (contract of the module).
        unsafe { std::slice::from_raw_parts(self.payload_ptr(slot, offset, len).as_ptr(), len as usize) }
    }

    /// Copies bytes into a slot's payload. The caller is the slot's only user.
    pub fn copy_in(&self, slot: SlotId, offset: u32, bytes: &[u8]) {
        assert!(bytes.len() <= SLOT_PAYLOAD_BYTES as usize, "longer than a slot");
        let to = self.payload_ptr(slot, offset, bytes.len() as u32);
        // SAFETY: the bounds were checked; `bytes` cannot overlap, because nobody else may hold a
        // reference into a slot that is being written (contract of the module).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) }
    }

    /// Sets payload bytes of a slot to zero. The caller is the slot's only user.
    pub fn zero(&self, slot: SlotId, offset: u32, len: u32) {
        let to = self.payload_ptr(slot, offset, len);
        // SAFETY: the bounds were checked, and the slot is the caller's alone (contract of the module).
        unsafe { std::ptr::write_bytes(to.as_ptr(), 0, len as usize) }
    }

    /// Fills in the `piece` headers (BEP 3) of every 16 KiB block of the chunk of `chunk_len` bytes
    /// that starts `chunk_begin` bytes into piece `piece`; the last block may be shorter. The
    /// caller is the slot's only user.
    pub fn write_headers(&self, slot: SlotId, piece: u32, chunk_begin: u32, chunk_len: u32) {
        assert!(chunk_len <= CHUNK_BYTES, "longer than a chunk");
        for block in 0..chunk_len.div_ceil(BLOCK_BYTES) {
            let begin = block * BLOCK_BYTES;
            let len = BLOCK_BYTES.min(chunk_len - begin);
            let header = piece_header(piece, chunk_begin + begin, len);
            let to = self.header_ptr(slot, block);
            // SAFETY: `header_ptr` has checked that the whole header lies in the header page, and
            // the slot is the caller's alone (contract of the module).
            unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), to.as_ptr(), header.len()) }
        }
    }

    /// The header of one block as [`Self::write_headers`] left it, 13 bytes.
    pub fn header(&self, slot: SlotId, block: u32) -> &[u8] {
        let from = self.header_ptr(slot, block);
        // SAFETY: the bounds were checked; nobody writes the header while the caller may read it
        // (contract of the module).
        unsafe { std::slice::from_raw_parts(from.as_ptr(), PIECE_HEADER_BYTES as usize) }
    }

    /// Where payload bytes lie. Panics if they are not all inside the slot.
    pub(super) fn payload_ptr(&self, slot: SlotId, offset: u32, len: u32) -> NonNull<u8> {
        let end = u64::from(offset) + u64::from(len);
        assert!(end <= u64::from(SLOT_PAYLOAD_BYTES), "bytes {offset}..{end} are not in the slot");
        // SAFETY: the sum stays inside the slot, hence inside the mapping.
        unsafe { self.slot_ptr(slot).add((PAGE_BYTES + offset) as usize) }
    }

    /// Where the header of a block lies. Panics if the block is not one of a full chunk.
    pub(super) fn header_ptr(&self, slot: SlotId, block: u32) -> NonNull<u8> {
        assert!(block < CHUNK_BYTES / BLOCK_BYTES, "a chunk has no block {block}");
        // SAFETY: 16 headers of 13 bytes fit in the header page, which is inside the mapping.
        unsafe { self.slot_ptr(slot).add((block * PIECE_HEADER_BYTES) as usize) }
    }

    /// The region that a slot lies in.
    pub(super) const fn region_of(slot: SlotId) -> u32 {
        slot.0 / SLOTS_PER_REGION
    }

    /// A region as a buffer to register.
    pub(super) fn region_iovec(&self, region: u32) -> libc::iovec {
        libc::iovec { iov_base: self.region_ptr(region).as_ptr().cast(), iov_len: REGION_BYTES as usize }
    }

    fn slot_ptr(&self, slot: SlotId) -> NonNull<u8> {
        let at = (slot.0 % SLOTS_PER_REGION) as usize * SLOT_STRIDE_BYTES as usize;
        // SAFETY: a slot never ends beyond its region, and `region_ptr` checks the region.
        unsafe { self.region_ptr(Self::region_of(slot)).add(at) }
    }

    fn region_ptr(&self, region: u32) -> NonNull<u8> {
        assert!(region < self.regions, "the arena has no region {region}");
        // SAFETY: below `regions`, hence inside the mapping.
        unsafe { self.base.add(region as usize * REGION_BYTES as usize) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` returned; every user of the memory holds the arena's `Arc`.
        unsafe { unmap(self.base.as_ptr(), self.regions as usize * REGION_BYTES as usize) }
    }
}

/// The 13 bytes in front of a block of `len` bytes on the wire (BEP 3, `piece`).
fn piece_header(piece: u32, begin: u32, len: u32) -> [u8; PIECE_HEADER_BYTES as usize] {
    let mut header = [0; PIECE_HEADER_BYTES as usize];
    header[..4].copy_from_slice(&(PIECE_PREFIX_BYTES + len).to_be_bytes());
    header[4] = MESSAGE_ID_PIECE;
    header[5..9].copy_from_slice(&piece.to_be_bytes());
    header[9..].copy_from_slice(&begin.to_be_bytes());
    header
}

/// Maps `bytes` of zeroes on the boundary of a large page, without touching them.
fn map(bytes: usize) -> Result<NonNull<u8>, ArenaError> {
    let total = bytes + HUGE_PAGE_BYTES;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), total, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        let errno = Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        return Err(ArenaError::Map { bytes: bytes as u64, errno });
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(HUGE_PAGE_BYTES);
    // SAFETY: `before` is less than a large page, and the mapping is that much too long: what is cut
    // off at either end was never handed out, and `bytes` stay. The advice changes no content; a
    // kernel without large pages refuses it, which does no harm.
    let base = unsafe {
        let base = start.add(before);
        unmap(start, before);
        unmap(base.add(bytes), HUGE_PAGE_BYTES - before);
        libc::madvise(base.cast(), bytes, libc::MADV_HUGEPAGE);
        libc::madvise(base.cast(), bytes, libc::MADV_DONTFORK);
        base
    };
    Ok(NonNull::new(base).expect("mmap with a kernel-chosen address never returns null"))
}

/// Gives `bytes` of address space back.
///
/// # Safety
///
/// They are mapped by [`map`], and nobody uses them any more.
unsafe fn unmap(at: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(at.cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_page_aligned_disjoint_and_never_straddle_regions() {
        let arena = Arena::new(3 * REGION_BYTES + 1).unwrap();
        assert_eq!((arena.region_count(), arena.slots_per_region()), (3, 248));
        let mut last_end = 0;
        for slot in 0..arena.slot_count() {
            let start = arena.header_ptr(SlotId(slot), 0).as_ptr() as usize;
            assert_eq!(start % PAGE_BYTES as usize, 0);
            assert!(start >= last_end);
            last_end = start + SLOT_STRIDE_BYTES as usize;
            let base = arena.base.as_ptr() as usize;
            let region = |at: usize| (at - base) / REGION_BYTES as usize;
            assert_eq!(region(start), region(last_end - 1));
            assert_eq!(region(start), Arena::region_of(SlotId(slot)) as usize);
        }
        assert_eq!(arena.base.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
    }

    #[test]
    fn an_arena_has_at_least_one_region() {
        assert_eq!(Arena::new(0).unwrap().region_count(), 1);
        assert_eq!(Arena::new(REGION_BYTES - 1).unwrap().region_count(), 1);
        assert_eq!(Arena::new(2 * REGION_BYTES).unwrap().region_count(), 2);
    }

    #[test]
    fn what_was_copied_in_is_read_back_and_neighbours_stay() {
        let arena = Arena::new(0).unwrap();
        let last = SlotId(arena.slot_count() - 1);
        arena.copy_in(last, SLOT_PAYLOAD_BYTES - 3, b"abc");
        arena.copy_in(SlotId(0), 0, b"xyz");
        assert_eq!(arena.payload(last, SLOT_PAYLOAD_BYTES - 4, 4), b"\0abc");
        arena.zero(last, SLOT_PAYLOAD_BYTES - 2, 1);
        assert_eq!(arena.payload(last, SLOT_PAYLOAD_BYTES - 3, 3), b"a\0c");
        assert_eq!(arena.payload(SlotId(0), 0, 4), b"xyz\0");
        assert_eq!(arena.payload(SlotId(1), 0, 4), [0; 4]);
        assert!(arena.payload(SlotId(0), SLOT_PAYLOAD_BYTES, 0).is_empty());
    }

    #[test]
    fn memory_taken_ahead_keeps_its_contents() {
        let arena = Arena::new(0).unwrap();
        arena.copy_in(SlotId(1), 7, b"kept");
        arena.prefault(0);
        assert_eq!(arena.payload(SlotId(1), 6, 6), b"\0kept\0");
    }

    #[test]
    #[should_panic(expected = "not in the slot")]
    fn one_byte_beyond_the_slot_panics() {
        Arena::new(0).unwrap().payload(SlotId(0), SLOT_PAYLOAD_BYTES, 1);
    }

    #[test]
    #[should_panic(expected = "no region 1")]
    fn one_slot_too_many_panics() {
        Arena::new(0).unwrap().payload(SlotId(SLOTS_PER_REGION), 0, 0);
    }

    #[test]
    fn headers_are_those_of_bep_3_and_the_last_is_shorter() {
        let arena = Arena::new(0).unwrap();
        let slot = SlotId(5);
        arena.write_headers(slot, 0x0102_0304, 2 * CHUNK_BYTES, BLOCK_BYTES + 5);
        assert_eq!(arena.header(slot, 0), [0, 0, 0x40, 9, 7, 1, 2, 3, 4, 0, 8, 0, 0]);
        assert_eq!(arena.header(slot, 1), [0, 0, 0, 14, 7, 1, 2, 3, 4, 0, 8, 0x40, 0]);
        assert_eq!(arena.header(slot, 2), [0; 13]);
        arena.write_headers(slot, 1, 0, CHUNK_BYTES);
        assert_eq!(arena.header(slot, 15), [0, 0, 0x40, 9, 7, 0, 0, 0, 1, 0, 3, 0xC0, 0]);
        assert_eq!(arena.payload(slot, 0, 13), [0; 13]);
    }
}
