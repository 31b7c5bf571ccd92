//! Sending and receiving.

use std::io::{Read, Write};

use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::io::{INBOX_BYTES, SEGMENTS_MAX};

use super::*;

/// Serves two blocks, header and payload of each, between two control frames, and receives them
/// the way a fetch does: frames and headers into the inbox, payload into its slot.
fn echo(entries: u32) {
    let mut rig = Rig::new(entries);
    let (here, there) = rig.pair();
    let chunk = pattern(1, CHUNK_BYTES as usize);
    rig.arena.copy_in(SlotId(0), 100, &chunk);
    rig.arena.write_headers(SlotId(0), 7, CHUNK_BYTES, CHUNK_BYTES);
    let block = BLOCK_BYTES;
    rig.uring.outbox(here).extend_from_slice(b"beforeafter");
    let mut to_send = vec![
        Segment::Outbox { offset: 0, len: 6 },
        Segment::Header { slot: SlotId(0), block: 2, skip: 0 },
        payload(0, 100 + 2 * block, block),
        Segment::Header { slot: SlotId(0), block: 3, skip: 0 },
        payload(0, 100 + 3 * block, block),
        Segment::Outbox { offset: 6, len: 5 },
    ];
    let mut to_receive =
        vec![inbox(0, 6 + 13), payload(1, 0, block), inbox(19, 13), payload(1, block, block), inbox(32, 5)];
    let bytes = 2 * (13 + block) + 11;
    transfer(&mut rig, (here, &mut to_send), (there, &mut to_receive), bytes);

    let got = rig.uring.inbox(there);
    assert_eq!((&got[..6], &got[32..37]), (&b"before"[..], &b"after"[..]));
    let got = got[6..32].to_vec();
    assert_eq!(got, [rig.arena.header(SlotId(0), 2), rig.arena.header(SlotId(0), 3)].concat());
    assert_eq!(rig.arena.payload(SlotId(1), 0, 2 * block), &chunk[2 * block as usize..4 * block as usize]);
}

/// Goes on where a short send or receive has ended until all bytes are there.
fn transfer(rig: &mut Rig, from: (ConnId, &mut Vec<Segment>), to: (ConnId, &mut Vec<Segment>), bytes: u32) {
    let (mut sent, mut received) = (0, 0);
    while received < bytes {
        if sent < bytes {
            rig.uring.send(from.0, from.1);
        }
        rig.uring.recv(to.0, to.1);
        let count = rig.received(to.0).unwrap();
        assert!(count > 0);
        received += count;
        advance(to.1, count);
        if sent < bytes {
            let count = rig.sent(from.0).unwrap();
            sent += count;
            advance(from.1, count);
        }
    }
    assert_eq!((sent, received), (bytes, bytes));
}

pub(super) fn advance(segments: &mut Vec<Segment>, mut count: u32) {
    while count > 0 {
        let step = count.min(segments[0].len());
        segments[0] = segments[0].skip(step);
        count -= step;
        if segments[0].is_empty() {
            segments.remove(0);
        }
    }
}

#[test]
fn blocks_are_gathered_and_scattered() {
    echo(256);
}

#[test]
fn blocks_are_gathered_and_scattered_by_the_tiniest_ring() {
    echo(1);
    echo(4);
}

#[test]
fn a_tiny_ring_overflows_and_loses_nothing() {
    let mut rig = Rig::new(2);
    let guests: Vec<_> = (0..200).map(|_| rig.guest()).collect();
    for (conn, stream) in &guests {
        rig.uring.recv(*conn, &[inbox(0, 8)]);
        (&*stream).write_all(b"x").unwrap();
    }
    for (conn, _) in &guests {
        assert_eq!(rig.received(*conn), Ok(1));
    }
    // Each of these completes as soon as the kernel sees it, and no turn takes completions.
    for (conn, _) in &guests {
        rig.uring.send(*conn, &[payload(0, 0, 1)]);
        rig.uring.recv(*conn, &[inbox(0, 8)]);
    }
    for (conn, _) in &guests {
        assert_eq!(rig.sent(*conn), Ok(1));
        rig.uring.close(*conn);
    }
    for (conn, mut stream) in guests {
        rig.closed(conn);
        assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1);
    }
    assert_eq!(rig.uring.connection_count(), 0);
    assert!(rig.uring.counters().overflows > 0, "{:?}", rig.uring);
}

#[test]
fn the_longest_list_goes_through_and_a_longer_one_panics() {
    let mut rig = Rig::new(64);
    let (conn, mut stream) = rig.guest();
    let bytes = pattern(2, SEGMENTS_MAX);
    rig.arena.copy_in(SlotId(3), 0, &bytes);
    let segments: Vec<_> = (0..=SEGMENTS_MAX as u32).map(|at| payload(3, at, 1)).collect();
    rig.uring.send(conn, &segments[..SEGMENTS_MAX]);
    assert_eq!(rig.sent(conn), Ok(SEGMENTS_MAX as u32));
    let mut got = vec![0; SEGMENTS_MAX];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
    let longer = std::panic::AssertUnwindSafe(|| rig.uring.send(conn, &segments));
    assert!(std::panic::catch_unwind(longer).is_err());
}

#[test]
fn a_send_to_a_peer_that_does_not_read_goes_on_as_it_reads_and_ends_whole() {
    let mut rig = Rig::new(64);
    let (conn, mut stream) = rig.guest();
    rustix::net::sockopt::set_socket_send_buffer_size(
        rig.uring.connections.get(conn).unwrap().fd.as_ref().unwrap(),
        16 << 10,
    )
    .unwrap();
    let chunk = pattern(3, CHUNK_BYTES as usize);
    rig.arena.copy_in(SlotId(9), 0, &chunk);
    // Sends until one does not end by itself: nobody reads, so the buffers are full then.
    let mut total: u64 = 0;
    let (mut offset, mut stuck) = (0, false);
    while !stuck {
        rig.uring.send(conn, &[payload(9, offset, CHUNK_BYTES - offset)]);
        let until = rig.uring.now() + Span::from_ms(50);
        while rig.uring.now() < until && rig.seen.is_empty() {
            rig.uring.turn(Some(until), &mut rig.seen);
        }
        stuck = rig.seen.is_empty();
        if !stuck {
            let count = rig.sent(conn).unwrap();
            total += u64::from(count);
            offset = (offset + count) % CHUNK_BYTES;
        }
    }
    let rest = CHUNK_BYTES - offset;
    // Read a little at a time until the send ends, and then all that was sent.
    let mut got = 0_u64;
    let mut buffer = vec![0; 8 << 10];
    while rig.seen.is_empty() {
        let count = stream.read(&mut buffer).unwrap();
        check(&buffer[..count], &chunk, &mut got);
        rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
    }
    let count = rig.sent(conn).unwrap();
    assert_eq!(count, rest);
    total += u64::from(count);
    while got < total {
        let count = stream.read(&mut buffer).unwrap();
        check(&buffer[..count], &chunk, &mut got);
    }
    assert_eq!(got, total);
}

/// The stream is the chunk over and over.
fn check(bytes: &[u8], chunk: &[u8], got: &mut u64) {
    for byte in bytes {
        assert_eq!(*byte, chunk[*got as usize % chunk.len()]);
        *got += 1;
    }
}

#[test]
fn the_end_and_a_reset_are_told_apart() {
    let mut rig = Rig::new(64);
    let (conn, stream) = rig.guest();
    rig.uring.recv(conn, &[inbox(0, 8)]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rig.received(conn), Ok(0));

    let (conn, stream) = rig.guest();
    rig.uring.recv(conn, &[inbox(0, 4), payload(0, 0, 4)]);
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(rig.received(conn), Err(Errno::RESET));
    // And a send after that is an error, not a signal.
    rig.uring.send(conn, &[payload(0, 0, 4)]);
    assert_eq!(rig.sent(conn), Err(Errno(libc::EPIPE)));
}

#[test]
fn buffers_of_a_closed_connection_come_back_as_new() {
    let mut rig = Rig::new(64);
    let (conn, _stream) = rig.guest();
    rig.uring.inbox(conn).resize(1 << 20, 1);
    rig.uring.outbox(conn).resize(1 << 20, 2);
    rig.uring.close(conn);
    rig.closed(conn);
    let (conn, _stream) = rig.guest();
    assert!(rig.uring.inbox(conn).is_empty() && rig.uring.inbox(conn).capacity() == 0);
    assert!(rig.uring.outbox(conn).is_empty() && rig.uring.outbox(conn).capacity() < 1 << 20);
    // An empty inbox that a receive names is made.
    rig.uring.recv(conn, &[inbox(INBOX_BYTES as u32 - 1, 1)]);
    rig.uring.interrupt_recv(conn);
    assert_eq!(rig.received(conn), Err(Errno::CANCELED));
    assert_eq!(*rig.uring.inbox(conn), [0; INBOX_BYTES]);
}

#[test]
fn what_stands_in_this_machines_queue_is_known_until_it_has_left() {
    let mut rig = Rig::new(64);
    // What the other end of a pair has not taken is in our queue; loopback takes all at once.
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let conn = rig.uring.attach(UringSocket::new(ours.into())).unwrap();
    assert_eq!(rig.uring.backlog_bytes(conn), 0);
    rig.uring.outbox(conn).extend_from_slice(&pattern(1, 4096));
    rig.uring.send(conn, &[Segment::Outbox { offset: 0, len: 4096 }]);
    assert_eq!(rig.sent(conn), Ok(4096));
    assert!(rig.uring.backlog_bytes(conn) >= 4096);
    theirs.read_exact(&mut [0; 4096]).unwrap();
    assert_eq!(rig.uring.backlog_bytes(conn), 0);
    rig.uring.close(conn);
    rig.closed(conn);
    assert_eq!(rig.uring.backlog_bytes(conn), 0, "a stale one has none");
}
