//! Ends that are asked for: interrupting, closing, dropping.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

#[test]
fn an_interrupted_receive_ends_cancelled_and_the_connection_lives_on() {
    let mut rig = Rig::new(64);
    let (conn, mut stream) = rig.guest();
    rig.uring.interrupt_recv(conn);
    rig.uring.recv(conn, &[inbox(0, 8)]);
    rig.uring.interrupt_recv(conn);
    rig.uring.interrupt_recv(conn);
    assert_eq!(rig.received(conn), Err(Errno::CANCELED));
    rig.uring.recv(conn, &[inbox(0, 8)]);
    stream.write_all(b"data").unwrap();
    assert_eq!(rig.received(conn), Ok(4));
    assert_eq!(&rig.uring.inbox(conn)[..4], b"data");
}

#[test]
fn interrupting_races_with_data_and_no_byte_is_lost() {
    let mut rig = Rig::new(8);
    let (conn, mut stream) = rig.guest();
    let (mut sent, mut got, mut cancelled) = (0_u32, 0_u32, 0);
    while got < 2_000 {
        rig.uring.recv(conn, &[inbox(0, 1), inbox(1, 1)]);
        if sent.is_multiple_of(3) {
            // Armed before the data comes; otherwise the data is there first.
            rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
        }
        if sent == got {
            stream.write_all(&[sent as u8]).unwrap();
            sent += 1;
        }
        rig.uring.interrupt_recv(conn);
        match rig.received(conn) {
            Ok(count) => {
                assert_eq!((count, rig.uring.inbox(conn)[0]), (1, got as u8));
                got += 1;
            }
            Err(errno) => {
                assert_eq!(errno, Errno::CANCELED);
                cancelled += 1;
                assert!(cancelled < 100_000);
            }
        }
    }
    assert_eq!(sent, got);
}

#[test]
fn a_close_with_everything_in_flight_gives_all_descriptors_back() {
    let mut rig = Rig::new(64);
    let (here, mut stream) = rig.guest();
    let inode = rig.inode(here);
    rig.uring.recv(here, &[inbox(0, 64), payload(0, 0, 64)]);
    // Nobody reads: once the buffers of the connection are full, a send stays in flight.
    let all: Vec<_> = (0..64).map(|slot| payload(slot, 0, 256 << 10)).collect();
    rig.seen.push(Completion::Sent { conn: here, result: Ok(0), held: false });
    while !rig.seen.is_empty() {
        assert!(rig.sent(here).is_ok());
        rig.uring.send(here, &all);
        rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
    }
    rig.uring.close(here);
    rig.uring.close(here);
    assert!(rig.uring.detach(here).is_none());
    rig.closed(here);
    assert!(!is_open(inode));
    assert_eq!((rig.uring.connection_count(), rig.uring.in_flight()), (0, 2));
    // What did leave arrives, then the end (or the reset).
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    // The id is stale now; closing it again is nothing.
    rig.uring.close(here);
    rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
    assert!(rig.seen.is_empty(), "{:?}", rig.seen);
}

#[test]
fn a_close_with_nothing_in_flight_is_told_and_reuses_the_place_only_then() {
    let mut rig = Rig::new(64);
    let (conn, _stream) = rig.guest();
    let inode = rig.inode(conn);
    rig.uring.close(conn);
    assert!(!is_open(inode));
    let other = rig.uring.dial(rig.address).unwrap();
    assert_ne!(other.index, conn.index);
    rig.closed(conn);
    assert!(rig.uring.connections.get(conn).is_none());
    let (there, _) = rig.accepted();
    assert_eq!((there.index, there.generation), (conn.index, conn.generation + 1));
}

#[test]
fn a_refused_dial_says_so_and_is_closed() {
    let mut rig = Rig::new(64);
    let nobody = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let conn = rig.uring.dial(nobody).unwrap();
    assert_eq!(rig.dialed(conn), Err(Errno(libc::ECONNREFUSED)));
    rig.uring.close(conn);
    rig.closed(conn);
    // An address that no socket can connect to.
    let conn = rig.uring.dial("[::ffff:255.255.255.255]:1".parse().unwrap()).unwrap();
    assert!(rig.dialed(conn).is_err());
    rig.uring.close(conn);
    rig.closed(conn);
    assert_eq!(rig.uring.connection_count(), 0);
}

#[test]
fn a_dial_that_hangs_can_be_closed() {
    let mut rig = Rig::new(64);
    // A listener with a full backlog lets further dials hang.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&LOOPBACK.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let dials: Vec<_> = (0..8).map(|_| rig.uring.dial(address).unwrap()).collect();
    rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
    rig.seen.clear();
    for conn in &dials {
        rig.uring.close(*conn);
    }
    for conn in dials {
        rig.closed(conn);
    }
    assert!(rig.seen.is_empty(), "{:?}", rig.seen);
    assert_eq!(rig.uring.connection_count(), 0);
}

#[test]
fn ten_thousand_receives_that_are_cancelled_leave_nothing() {
    let mut rig = Rig::new(32);
    let guests: Vec<_> = (0..100).map(|_| rig.guest()).collect();
    let inodes: Vec<_> = guests.iter().map(|(conn, _)| rig.inode(*conn)).collect();
    for _ in 0..100 {
        for (conn, _) in &guests {
            rig.uring.recv(*conn, &[inbox(0, 16), payload(conn.index, 0, 16)]);
        }
        rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
        for (conn, _) in &guests {
            rig.uring.interrupt_recv(*conn);
        }
        for (conn, _) in &guests {
            assert_eq!(rig.received(*conn), Err(Errno::CANCELED));
        }
    }
    for (conn, _) in &guests {
        rig.uring.recv(*conn, &[inbox(0, 16)]);
        rig.uring.close(*conn);
    }
    for (conn, _) in &guests {
        rig.closed(*conn);
    }
    // Accept and wake-up stay in flight, nothing else.
    assert_eq!((rig.uring.connection_count(), rig.uring.in_flight()), (0, 2));
    assert_eq!((rig.uring.files.len(), rig.uring.ready.len(), rig.uring.counters().stale), (0, 0, 0));
    assert!(inodes.into_iter().all(|inode| !is_open(inode)));
}

#[test]
fn a_ring_with_work_in_flight_is_dropped_safely() {
    for entries in [1, 64] {
        let mut rig = Rig::new(entries);
        let guests: Vec<_> = (0..20).map(|_| rig.guest()).collect();
        let inodes: Vec<_> = guests.iter().map(|(conn, _)| rig.inode(*conn)).collect();
        for (at, (conn, _)) in guests.iter().enumerate() {
            rig.uring.recv(*conn, &[inbox(0, 16), payload(at as u32, 0, 16)]);
            rig.uring.send(*conn, &[payload(0, 0, 4096)]);
        }
        rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
        // Some that the kernel has not even seen yet, and one that waits to be accepted.
        rig.uring.dial(rig.address).unwrap();
        let _waiting = TcpStream::connect(rig.address).unwrap();
        let arena = Arc::downgrade(&rig.arena);
        let waker = rig.uring.waker();
        drop(rig);
        assert!(inodes.into_iter().all(|inode| !is_open(inode)));
        assert_eq!(arena.strong_count(), 0, "nothing was leaked");
        waker.wake();
    }
}

#[test]
fn a_close_right_after_an_interrupt_or_a_shutdown_ends() {
    let mut rig = Rig::new(4);
    for round in 0..200 {
        let (conn, stream) = rig.guest();
        rig.uring.recv(conn, &[inbox(0, 16)]);
        if round % 2 == 0 {
            rig.uring.turn(Some(rig.uring.now()), &mut rig.seen);
        }
        rig.uring.interrupt_recv(conn);
        if round % 3 == 0 {
            drop(stream);
        }
        rig.uring.close(conn);
        rig.closed(conn);
        rig.seen.clear();
    }
    assert_eq!((rig.uring.connection_count(), rig.uring.in_flight()), (0, 2));
}
