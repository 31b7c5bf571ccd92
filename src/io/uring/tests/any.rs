//! Receiving what nobody planned for.

use std::io::Write;

use crate::base::limits::RECEIVE_BUFFERS;
use crate::io::INBOX_BYTES;

use super::*;

/// Memory that this process holds, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Rings with and without the kernel's buffers: nobody may notice.
fn rigs() -> [Rig; 2] {
    let (with, mut without) = (Rig::new(64), Rig::new(64));
    assert!(with.uring.buffers.is_some(), "Linux 5.19 has them");
    without.uring.buffers = None;
    [with, without]
}

#[test]
fn what_comes_lies_at_the_start_of_the_inbox() {
    for mut rig in rigs() {
        let (conn, mut stream) = rig.guest();
        for text in [&b"first"[..], b"second, longer", b"3"] {
            rig.uring.recv_any(conn);
            stream.write_all(text).unwrap();
            assert_eq!(rig.received(conn), Ok(text.len() as u32));
            assert_eq!(&rig.uring.inbox(conn)[..text.len()], text);
        }
        rig.uring.recv_any(conn);
        drop(stream);
        assert_eq!(rig.received(conn), Ok(0));
    }
}

#[test]
fn a_stream_longer_than_all_buffers_comes_whole_and_in_order() {
    for mut rig in rigs() {
        let (conn, mut stream) = rig.guest();
        let bytes = pattern(5, usize::from(RECEIVE_BUFFERS) * INBOX_BYTES * 2 + 1);
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| stream.write_all(&bytes).unwrap());
            while got.len() < bytes.len() {
                rig.uring.recv_any(conn);
                let count = rig.received(conn).unwrap() as usize;
                assert!(count > 0 && count <= INBOX_BYTES);
                got.extend_from_slice(&rig.uring.inbox(conn)[..count]);
            }
        });
        assert!(got == bytes);
    }
}

#[test]
fn a_connection_changes_between_planned_and_any_and_no_byte_is_lost() {
    for mut rig in rigs() {
        let (conn, mut stream) = rig.guest();
        for round in 0..50_u8 {
            rig.uring.recv_any(conn);
            if round % 2 == 0 {
                rig.uring.interrupt_recv(conn);
                assert_eq!(rig.received(conn), Err(Errno::CANCELED));
                stream.write_all(&[round; 9]).unwrap();
                rig.uring.recv(conn, &[payload(1, 0, 4), inbox(7, 100)]);
                assert_eq!(rig.received(conn), Ok(9));
                assert_eq!(rig.arena.payload(SlotId(1), 0, 4), [round; 4]);
                assert_eq!(rig.uring.inbox(conn)[7..12], [round; 5]);
            } else {
                stream.write_all(&[round; 3]).unwrap();
                assert_eq!(rig.received(conn), Ok(3));
                assert_eq!(rig.uring.inbox(conn)[..3], [round; 3]);
            }
        }
    }
}

#[test]
fn more_bytes_than_buffers_at_a_time_wait_and_none_is_lost() {
    let limit = u32::from(RECEIVE_BUFFERS);
    for count in [limit - 1, limit, limit + 1, 2 * limit + 5] {
        let mut rig = Rig::with(64, count);
        let guests: Vec<_> = (0..count).map(|_| rig.guest()).collect();
        for (conn, stream) in &guests {
            (&*stream).write_all(&conn.index.to_be_bytes()).unwrap();
            rig.uring.recv_any(*conn);
        }
        // All complete before a turn takes any. The kernel runs only some of its work at a time.
        (0..count).for_each(|_| rig.uring.ring.enter(Wait::No));
        for (conn, _) in &guests {
            assert_eq!(rig.received(*conn), Ok(4));
            assert_eq!(rig.uring.inbox(*conn)[..4], conn.index.to_be_bytes());
        }
        if count <= limit {
            assert_eq!(rig.uring.counters().starved, 0);
        }
        assert!(count != 2 * limit + 5 || rig.uring.counters().starved > 0);
        // All hold a buffer now, and there are still some for whoever else gets bytes.
        let (conn, mut stream) = (guests[0].0, &guests[0].1);
        rig.uring.recv_any(conn);
        stream.write_all(b"more").unwrap();
        assert_eq!(rig.received(conn), Ok(4));
    }
}

#[test]
fn a_close_while_bytes_arrive_loses_no_buffer() {
    let mut rig = Rig::with(64, 8);
    for _ in 0..2 * u32::from(RECEIVE_BUFFERS) {
        let (conn, mut stream) = rig.guest();
        stream.write_all(b"x").unwrap();
        rig.uring.recv_any(conn);
        rig.uring.close(conn);
        rig.closed(conn);
    }
    let (conn, mut stream) = rig.guest();
    rig.uring.recv_any(conn);
    stream.write_all(b"x").unwrap();
    assert_eq!((rig.received(conn), rig.uring.counters().starved), (Ok(1), 0));
}

#[test]
fn a_connection_that_waits_costs_little() {
    const COUNT: usize = 2_000;
    if !alone("io::uring::tests::any::a_connection_that_waits_costs_little") {
        return;
    }
    crate::io::sockets::raise_nofile();
    let mut rig = Rig::with(1024, COUNT as u32);
    let mut guests = Vec::with_capacity(COUNT);
    let mut greet = |rig: &mut Rig, count: usize| {
        for _ in 0..count {
            let (conn, mut stream) = rig.guest();
            rig.uring.recv_any(conn);
            stream.write_all(&[7; 600]).unwrap();
            assert_eq!(rig.received(conn), Ok(600));
            // As handshake, extensions and bitfield of a large torrent would.
            rig.uring.outbox(conn).resize(200, 1);
            rig.uring.send(conn, &[Segment::Outbox { offset: 0, len: 200 }]);
            rig.uring.recv_any(conn);
            assert_eq!(rig.sent(conn), Ok(200));
            guests.push(stream);
        }
    };
    // All buffers have been used once.
    greet(&mut rig, COUNT / 2);
    let before = resident_bytes();
    greet(&mut rig, COUNT / 2);
    let each = (resident_bytes() - before) / (COUNT as u64 / 2);
    assert!(each <= 1_024, "{each} bytes a connection");
}
