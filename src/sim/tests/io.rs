use std::collections::BTreeSet;

use super::{core, settle, two_hosts};
use crate::base::ids::{ConnId, SlotId};
use crate::base::time::Span;
use crate::io::{Completion, Errno, FileOp, Io, Segment};
use crate::sim::profile::PPM;
use crate::sim::{Profile, SimFile, SimIo, World};

pub(super) fn file_op(file: SimFile, token: u64, file_offset: u64, len: u32) -> FileOp<SimFile> {
    FileOp { token, file, direct: true, file_offset, slot: SlotId(0), offset: 0, len }
}

const SECOND: Span = Span::from_secs(1);

/// Two cores with a connection between them.
fn connected(profile: Profile) -> (World, [SimIo; 2], [ConnId; 2]) {
    let (world, a, b) = two_hosts(1, profile);
    let (mut dialer, mut listener) = (core(&world, a), core(&world, b));
    let conn = dialer.dial(world.address(b, 1)).unwrap();
    let done = settle(&world, &mut [&mut dialer, &mut listener], SECOND);
    assert!(matches!(done[0][..], [Completion::Dialed { conn: dialed, result: Ok(()) }] if dialed == conn));
    let [Completion::Accepted { conn: other, address }] = done[1][..] else { panic!("{done:?}") };
    assert_eq!(address.ip(), world.address(a, 1).ip());
    (world, [dialer, listener], [conn, other])
}

#[test]
fn segments_are_sent_and_filled_in_order() {
    let (world, [mut a, mut b], [from, to]) = connected(Profile::calm());
    let arena = a.arena();
    arena.write_headers(SlotId(3), 9, 0, 1 << 14);
    arena.copy_in(SlotId(3), 100, b"payload");
    a.outbox(from).extend(b"..frame");
    a.send(
        from,
        &[
            Segment::Outbox { offset: 2, len: 5 },
            Segment::Header { slot: SlotId(3), block: 0, skip: 4 },
            Segment::Payload { slot: SlotId(3), offset: 100, len: 7 },
        ],
    );
    b.recv(
        to,
        &[Segment::Inbox { offset: 1, len: 14 }, Segment::Payload { slot: SlotId(5), offset: 8, len: 99 }],
    );
    let done = settle(&world, &mut [&mut a, &mut b], SECOND);
    assert!(matches!(done[0][..], [Completion::Sent { result: Ok(21), .. }]), "{done:?}");
    assert!(matches!(done[1][..], [Completion::Received { result: Ok(21), .. }]), "{done:?}");
    assert_eq!(&b.inbox(to)[..16], b"\0frame\x07\0\0\0\x09\0\0\0\0\0");
    assert_eq!(b.arena().payload(SlotId(5), 8, 7), b"payload");
}

#[test]
fn a_receive_is_interrupted_and_an_end_reads_as_zero_bytes() {
    let (world, [mut a, mut b], [from, to]) = connected(Profile::calm());
    b.recv(to, &[Segment::Inbox { offset: 0, len: 9 }]);
    b.interrupt_recv(to);
    let done = settle(&world, &mut [&mut a, &mut b], SECOND);
    assert!(matches!(done[1][..], [Completion::Received { result: Err(Errno::CANCELED), .. }]), "{done:?}");
    a.close(from);
    b.recv(to, &[Segment::Inbox { offset: 0, len: 9 }]);
    let done = settle(&world, &mut [&mut a, &mut b], SECOND);
    assert!(matches!(done[0][..], [Completion::Closed { .. }]), "{done:?}");
    assert!(matches!(done[1][..], [Completion::Received { result: Ok(0), .. }]), "{done:?}");
}

#[test]
fn a_connection_moves_between_cores_and_is_closed_when_dropped_on_the_way() {
    let (world, [mut a, mut b], [from, to]) = connected(Profile::calm());
    b.recv(to, &[Segment::Inbox { offset: 0, len: 9 }]);
    assert!(b.detach(to).is_none(), "a receive is in flight");
    b.interrupt_recv(to);
    settle(&world, &mut [&mut b], SECOND);
    let mut second = core(&world, crate::sim::HostId(1));
    let moved = second.attach(b.detach(to).unwrap()).unwrap();
    assert!(b.is_quiet() && b.detach(to).is_none());
    a.outbox(from).extend(b"hi");
    a.send(from, &[Segment::Outbox { offset: 0, len: 2 }]);
    second.recv(moved, &[Segment::Inbox { offset: 0, len: 9 }]);
    let done = settle(&world, &mut [&mut a, &mut second], SECOND);
    assert!(matches!(done[1][..], [Completion::Received { result: Ok(2), .. }]), "{done:?}");

    drop(second.detach(moved).unwrap());
    a.recv(from, &[Segment::Inbox { offset: 0, len: 9 }]);
    let done = settle(&world, &mut [&mut a], SECOND);
    assert!(matches!(done[0][..], [Completion::Received { result: Ok(0), .. }]), "{done:?}");
}

#[test]
fn a_full_table_refuses_dials_and_sockets_and_closes_what_comes() {
    let (world, [mut a, _b], [from, _]) = connected(Profile::calm());
    let mut tiny = world.io(world.add_actor(crate::sim::HostId(0)), a.arena(), 1);
    let address = world.address(crate::sim::HostId(1), 1);
    assert!(tiny.dial(address).is_some() && tiny.dial(address).is_none());
    let socket = a.detach(from).unwrap();
    assert!(tiny.attach(socket).is_err());
}

#[test]
fn files_are_read_and_written_in_any_order() {
    let (world, host, _) = two_hosts(1, Profile::calm());
    let mut io = core(&world, host);
    let file = world.disk(host, |disk, _, _| disk.open("a"));
    io.arena().copy_in(SlotId(0), 0, &[7; 8192]);
    io.write(file_op(file, 70, 4096, 8192));
    let done = settle(&world, &mut [&mut io], SECOND);
    assert!(matches!(done[0][..], [Completion::Written { token: 70, result: Ok(8192) }]), "{done:?}");
    io.arena().zero(SlotId(0), 0, 8192);
    io.read(file_op(file, 71, 8192, 8192));
    let done = settle(&world, &mut [&mut io], SECOND);
    assert!(matches!(done[0][..], [Completion::Read { token: 71, result: Ok(4096) }]), "short at the end");
    assert_eq!(io.arena().payload(SlotId(0), 4095, 2), [7, 0]);
    assert!(io.is_quiet());
}

#[test]
fn file_faults_strike_at_their_rates() {
    let broken = Profile { read_error_ppm: PPM, write_error_ppm: PPM, ..Profile::calm() };
    let (world, host, _) = two_hosts(1, broken);
    let mut io = core(&world, host);
    let file = world.disk(host, |disk, _, _| disk.open("a"));
    io.write(file_op(file, 1, 0, 4096));
    settle(&world, &mut [&mut io], SECOND);
    io.read(file_op(file, 2, 0, 4096));
    let done = settle(&world, &mut [&mut io], SECOND);
    assert!(matches!(done[0][..], [Completion::Read { token: 2, result: Err(Errno::IO) }]), "{done:?}");

    world.with_profile(|knobs| *knobs = Profile { rot_ppm: PPM, ..Profile::calm() });
    world.disk(host, |disk, _, _| disk.write(file, 0, &[0; 4096])).unwrap();
    io.read(file_op(file, 3, 0, 4096));
    settle(&world, &mut [&mut io], SECOND);
    let flipped: u32 = io.arena().payload(SlotId(0), 0, 4096).iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);

    world.with_profile(|knobs| *knobs = Profile { short_file_ppm: PPM, ..Profile::calm() });
    io.read(file_op(file, 4, 0, 4096));
    let done = settle(&world, &mut [&mut io], SECOND);
    let [Completion::Read { result: Ok(count), .. }] = done[0][..] else { panic!("{done:?}") };
    assert!(count > 0 && count % 512 == 0, "{count}");
}

#[test]
fn no_completion_of_a_connection_follows_its_closed() {
    for seed in 0..300 {
        let mut profile = Profile::from_seed(seed);
        (profile.refuse_ppm, profile.unanswered_ppm) = (0, 0);
        let (world, a, b) = two_hosts(seed, profile);
        let mut cores = [core(&world, a), core(&world, b)];
        let mut closed: [BTreeSet<(u32, u32)>; 2] = Default::default();
        let mut live: [BTreeSet<(u32, u32)>; 2] = Default::default();
        for _ in 0..40 {
            if let Some(conn) = cores[0].dial(world.address(b, 1)) {
                live[0].insert((conn.index, conn.generation));
            }
            let [first, second] = &mut cores;
            let done = settle(&world, &mut [first, second], Span::from_ms(50));
            for (side, done) in done.iter().enumerate() {
                for completion in done {
                    check(&mut cores[side], completion, &mut live[side], &closed[side], seed);
                    if let Completion::Closed { conn } = *completion {
                        live[side].remove(&(conn.index, conn.generation));
                        closed[side].insert((conn.index, conn.generation));
                    }
                }
                close_some(&world, &mut cores[side], &mut live[side]);
            }
        }
        close_all(&world, &mut cores, &mut live);
        assert!(cores.iter().all(SimIo::is_quiet), "seed {seed}: something is left");
    }
}

/// No completion names a closed connection; and the connection goes on in some way.
fn check(
    core: &mut SimIo,
    completion: &Completion,
    live: &mut BTreeSet<(u32, u32)>,
    closed: &BTreeSet<(u32, u32)>,
    seed: u64,
) {
    let conn = match *completion {
        Completion::Accepted { conn, .. }
        | Completion::Closed { conn }
        | Completion::Dialed { conn, .. }
        | Completion::Received { conn, .. }
        | Completion::Sent { conn, .. }
        | Completion::Released { conn } => conn,
        Completion::Read { .. } | Completion::Written { .. } => panic!("no file was touched"),
    };
    let key = (conn.index, conn.generation);
    assert!(!closed.contains(&key), "seed {seed}: {completion:?} after Closed");
    match *completion {
        Completion::Accepted { .. } => assert!(live.insert(key), "seed {seed}: accepted twice"),
        Completion::Received { result: Ok(count), .. } if count > 0 => {}
        Completion::Dialed { result: Ok(()), .. } | Completion::Sent { .. } => {}
        _ => return,
    }
    if !live.contains(&key) {
        return;
    }
    if !core.is_receiving(conn) {
        core.recv(conn, &[Segment::Inbox { offset: 0, len: 4096 }]);
    }
    if !core.is_sending(conn) {
        core.outbox(conn).resize(3_000, 7);
        core.send(conn, &[Segment::Outbox { offset: 0, len: 3_000 }]);
    }
}

fn close_some(world: &World, core: &mut SimIo, live: &mut BTreeSet<(u32, u32)>) {
    let doomed: Vec<_> = live.iter().copied().filter(|_| world.with_rng(|rng| rng.below(8) == 0)).collect();
    for (index, generation) in doomed {
        live.remove(&(index, generation));
        core.close(ConnId { index, generation });
    }
}

/// Closes what is left and what is still accepted, until nothing more comes.
fn close_all(world: &World, cores: &mut [SimIo; 2], live: &mut [BTreeSet<(u32, u32)>; 2]) {
    while live.iter().any(|live| !live.is_empty()) {
        for (core, live) in cores.iter_mut().zip(live.iter_mut()) {
            for (index, generation) in std::mem::take(live) {
                core.close(ConnId { index, generation });
            }
        }
        let [first, second] = cores;
        let done = settle(world, &mut [first, second], Span::from_secs(300));
        for (done, live) in done.iter().zip(live.iter_mut()) {
            live.extend(done.iter().filter_map(|completion| match completion {
                Completion::Accepted { conn, .. } => Some((conn.index, conn.generation)),
                _ => None,
            }));
        }
    }
}

#[test]
#[should_panic(expected = "memory changed under a send")]
fn a_slot_that_changes_under_a_send_is_noticed() {
    let (world, [mut a, _b], [from, _]) = connected(Profile::calm());
    a.send(from, &[Segment::Payload { slot: SlotId(0), offset: 0, len: 10 }]);
    a.arena().copy_in(SlotId(0), 5, b"x");
    settle(&world, &mut [&mut a], SECOND);
}

#[test]
#[should_panic(expected = "belongs to the receive")]
fn an_inbox_in_use_is_not_handed_out() {
    let (_world, [mut a, _b], [from, _]) = connected(Profile::calm());
    a.recv(from, &[Segment::Inbox { offset: 0, len: 10 }]);
    a.inbox(from);
}

#[test]
#[should_panic(expected = "file operations clash")]
fn direct_and_buffered_access_to_one_page_is_noticed() {
    let (world, host, _) = two_hosts(1, Profile::calm());
    let mut io = core(&world, host);
    let file = world.disk(host, |disk, _, _| disk.open("a"));
    io.write(file_op(file, 1, 0, 8192));
    io.write(FileOp { direct: false, slot: SlotId(1), ..file_op(file, 2, 8000, 400) });
}
