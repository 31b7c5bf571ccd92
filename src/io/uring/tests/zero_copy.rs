//! Sends without a copy, as far as loopback shows them: it always copies in the end, but holds memory
//! for as long as the other side has no room.

use std::io::Read;

use crate::base::limits::ZERO_COPY_BYTES_MIN;
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::io::uring::ZeroCopy;

use super::stream::advance;
use super::*;

fn rig(mode: ZeroCopy) -> Rig {
    let mut rig = Rig::new(64);
    rig.uring.zero_copy = mode;
    rig
}

/// Whether this host has zero copy from registered memory: Linux 6.15 and enough locked memory.
fn has_zero_copy() -> bool {
    let mut rig = rig(ZeroCopy::Force);
    let (conn, _stream) = rig.guest();
    rig.uring.send(conn, &[payload(0, 0, ZERO_COPY_BYTES_MIN)]);
    rig.sent(conn).unwrap();
    rig.held > 0
}

impl Rig {
    pub(super) fn released(&mut self, wanted: ConnId) {
        self.expect("Released", |done| match *done {
            Completion::Released { conn } if conn == wanted => Some(()),
            _ => None,
        });
        self.held -= 1;
    }
}

#[test]
fn on_loopback_one_send_tries_and_all_others_copy() {
    let mut rig = rig(ZeroCopy::Auto);
    if !has_zero_copy() {
        return;
    }
    let (conn, mut stream) = rig.guest();
    let chunk = pattern(1, CHUNK_BYTES as usize);
    rig.arena.copy_in(SlotId(0), 0, &chunk);
    let mut got = vec![0; ZERO_COPY_BYTES_MIN as usize];
    for round in 0..4 {
        let offset = round * ZERO_COPY_BYTES_MIN;
        rig.uring.send(conn, &[payload(0, offset, ZERO_COPY_BYTES_MIN)]);
        assert_eq!(rig.sent(conn), Ok(ZERO_COPY_BYTES_MIN));
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, chunk[offset as usize..][..got.len()]);
        if round == 0 {
            rig.released(conn);
        }
    }
    let counters = rig.uring.counters();
    assert_eq!((counters.zero_copy_sends, counters.zero_copy_copied, rig.held), (1, 1, 0));
}

#[test]
fn headers_and_payload_of_one_region_leave_together_and_the_rest_follows() {
    if !has_zero_copy() {
        return;
    }
    let mut rig = rig(ZeroCopy::Force);
    let (conn, mut stream) = rig.guest();
    rig.arena.copy_in(SlotId(2), 0, &pattern(2, CHUNK_BYTES as usize));
    rig.arena.write_headers(SlotId(2), 7, 0, CHUNK_BYTES);
    rig.uring.outbox(conn).extend_from_slice(b"end");
    let mut segments = Vec::new();
    let mut wanted = Vec::new();
    for block in 0..4 {
        segments.push(Segment::Header { slot: SlotId(2), block, skip: 0 });
        segments.push(payload(2, block * BLOCK_BYTES, BLOCK_BYTES));
        wanted.extend_from_slice(rig.arena.header(SlotId(2), block));
        wanted.extend_from_slice(rig.arena.payload(SlotId(2), block * BLOCK_BYTES, BLOCK_BYTES));
    }
    segments.push(Segment::Outbox { offset: 0, len: 3 });
    rig.uring.send(conn, &segments);
    let mut count = rig.sent(conn).unwrap();
    assert!(rig.held == 1 && count <= wanted.len() as u32, "the outbox is never held");
    // Short sends leave less than the least that is worth it, and the outbox.
    while !segments.is_empty() {
        advance(&mut segments, count);
        if !segments.is_empty() {
            rig.uring.send(conn, &segments);
            count = rig.sent(conn).unwrap();
        }
    }
    wanted.extend_from_slice(b"end");
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == wanted);
    while rig.held > 0 {
        rig.released(conn);
    }
}

/// Sends to a guest that does not read until a send does not end by itself.
fn fill(rig: &mut Rig, conn: ConnId) {
    loop {
        rig.uring.send(conn, &[payload(9, 0, CHUNK_BYTES)]);
        let until = rig.uring.now() + Span::from_ms(50);
        let is_sent = |rig: &Rig| rig.seen.iter().any(|done| matches!(done, Completion::Sent { .. }));
        while rig.uring.now() < until && !is_sent(rig) {
            rig.uring.turn(Some(until), &mut rig.seen);
        }
        if !is_sent(rig) {
            return;
        }
        rig.sent(conn).unwrap();
    }
}

#[test]
fn a_close_ends_at_once_although_the_kernel_holds_memory() {
    if !has_zero_copy() {
        return;
    }
    for is_sending in [true, false] {
        let mut rig = rig(ZeroCopy::Force);
        let (conn, stream) = rig.guest();
        let inode = rig.inode(conn);
        fill(&mut rig, conn);
        assert!(rig.held > 0);
        if !is_sending {
            let socket = rig.uring.connections.get(conn).unwrap().fd.as_ref().unwrap().as_fd();
            rustix::net::shutdown(socket, rustix::net::Shutdown::Write).unwrap();
            let _ = rig.sent(conn);
            assert!(rig.uring.connections.get(conn).unwrap().is_idle());
        }
        rig.seen.clear();
        assert!(rig.uring.detach(conn).is_none(), "memory is held");
        rig.uring.close(conn);
        rig.closed(conn);
        assert!(!is_open(inode) && rig.uring.holds.is_empty());
        drop(stream);
    }
}

#[test]
fn a_ring_whose_memory_is_held_is_dropped_safely() {
    let mut rig = rig(ZeroCopy::Force);
    let (conn, _stream) = rig.guest();
    fill(&mut rig, conn);
    let arena = Arc::downgrade(&rig.arena);
    drop(rig);
    assert_eq!(arena.strong_count(), 0);
}

#[test]
fn without_registered_memory_or_when_switched_off_all_is_copied() {
    for mode in [ZeroCopy::Force, ZeroCopy::Off] {
        let mut rig = rig(mode);
        if mode == ZeroCopy::Force {
            rig.uring.regions.forbid();
        }
        let (conn, mut stream) = rig.guest();
        rig.uring.send(conn, &[payload(0, 0, ZERO_COPY_BYTES_MIN)]);
        assert_eq!(rig.sent(conn), Ok(ZERO_COPY_BYTES_MIN));
        stream.read_exact(&mut [1; ZERO_COPY_BYTES_MIN as usize]).unwrap();
        assert_eq!((rig.held, rig.uring.counters().zero_copy_sends), (0, 0));
    }
}
