use super::two_hosts;
use crate::base::time::{Instant, Span};
use crate::io::Errno;
use crate::sim::net::DIAL_TIMEOUT;
use crate::sim::profile::PPM;
use crate::sim::{ActorId, EndId, EndState, Inbound, Profile, World};

fn drain(world: &World) {
    while world.step(Instant(u64::MAX)) {}
}

/// A connection between two hosts and the actors at its ends.
fn connected(seed: u64, profile: Profile) -> (World, [ActorId; 2], [EndId; 2]) {
    let (world, a, b) = two_hosts(seed, profile);
    let (dialer, listener) = (world.add_actor(a), world.add_actor(b));
    world.listen(listener, 1);
    let end = world.dial(dialer, world.address(b, 1));
    drain(&world);
    let other = world.accept(listener).unwrap();
    assert_eq!((world.end_state(end), world.end_state(other)), (EndState::Open, EndState::Open));
    assert_eq!((world.remote(end), world.local(end)), (world.local(other), world.remote(other)));
    (world, [dialer, listener], [end, other])
}

/// Reads what there is.
fn take(world: &World, end: EndId) -> (Vec<u8>, Result<Inbound, Errno>) {
    let mut bytes = Vec::new();
    loop {
        match world.read(end, 1 << 20, &mut bytes) {
            Ok(Inbound::Bytes(count)) if count > 0 => drain(world),
            other => return (bytes, other),
        }
    }
}

#[test]
fn bytes_arrive_once_and_in_order_whatever_the_knobs() {
    for seed in 0..100 {
        let faults = Profile::from_seed(seed);
        let profile = Profile { reset_ppm: 0, refuse_ppm: 0, unanswered_ppm: 0, ..faults };
        let (world, _, [from, to]) = connected(seed, profile);
        let sent: Vec<u8> = (0..200_000u32).map(|at| (at * 7 / 3) as u8).collect();
        let (mut at, mut got) = (0, Vec::new());
        while got.len() < sent.len() {
            let count = world.write(from, &sent[at..]).unwrap();
            at += count;
            let before = got.len();
            world.read(to, 100_000, &mut got).unwrap();
            assert!(count > 0 || got.len() > before || world.step(Instant(u64::MAX)), "seed {seed}: stuck");
        }
        assert!(got == sent, "seed {seed}");
    }
}

#[test]
fn a_window_fills_up_and_opens_when_the_other_side_reads() {
    let profile = Profile { window_bytes: (1_000, 1_000), ..Profile::calm() };
    let (world, _, [from, to]) = connected(1, profile);
    assert_eq!(world.write(from, &[1; 3_000]), Ok(1_000));
    drain(&world);
    assert_eq!(world.write(from, &[1; 3_000]), Ok(0));
    assert_eq!(world.read(to, 300, &mut Vec::new()), Ok(Inbound::Bytes(300)));
    drain(&world);
    assert_eq!(world.write(from, &[1; 3_000]), Ok(300));
}

#[test]
fn half_a_close_ends_one_direction() {
    let (world, _, [a, b]) = connected(1, Profile::calm());
    world.write(a, b"last").unwrap();
    world.shut_send(a);
    drain(&world);
    assert_eq!(take(&world, b), (b"last".to_vec(), Ok(Inbound::Bytes(0))));
    assert_eq!(world.write(a, b"x"), Err(Errno(libc::EPIPE)));
    world.write(b, b"answer").unwrap();
    drain(&world);
    assert_eq!(take(&world, a), (b"answer".to_vec(), Ok(Inbound::Pending)));
}

#[test]
fn a_close_is_orderly_unless_bytes_were_left_unread_or_come_later() {
    let (world, _, [a, b]) = connected(1, Profile::calm());
    world.write(a, b"last").unwrap();
    world.close(a);
    drain(&world);
    assert_eq!(take(&world, b), (b"last".to_vec(), Ok(Inbound::Bytes(0))));
    assert_eq!(world.write(b, b"too late"), Ok(8));
    drain(&world);
    assert_eq!(world.end_state(b), EndState::Failed(Errno::RESET));

    let (world, _, [a, b]) = connected(1, Profile::calm());
    world.write(a, b"never read").unwrap();
    drain(&world);
    world.close(b);
    drain(&world);
    assert_eq!(take(&world, a), (vec![], Err(Errno::RESET)));
}

#[test]
fn dials_are_refused_answered_late_or_never() {
    let (world, a, b) = two_hosts(1, Profile::calm());
    let dialer = world.add_actor(a);
    let nobody = world.dial(dialer, world.address(b, 2));
    let nowhere = world.dial(dialer, "192.0.2.1:1".parse().unwrap());
    let start = world.now();
    drain(&world);
    assert_eq!(world.end_state(nobody), EndState::Failed(Errno(libc::ECONNREFUSED)));
    assert_eq!(world.end_state(nowhere), EndState::Failed(Errno(libc::ETIMEDOUT)));
    assert!(world.now().since(start) >= DIAL_TIMEOUT);

    world.crash(b);
    let dark = world.dial(dialer, world.address(b, 1));
    drain(&world);
    assert_eq!(world.end_state(dark), EndState::Failed(Errno(libc::ETIMEDOUT)));
}

#[test]
fn a_dial_given_up_on_its_way_resets_the_accepted_side() {
    let (world, a, b) = two_hosts(1, Profile::calm());
    let (dialer, listener) = (world.add_actor(a), world.add_actor(b));
    world.listen(listener, 1);
    let end = world.dial(dialer, world.address(b, 1));
    world.close(end);
    drain(&world);
    let other = world.accept(listener).unwrap();
    assert_eq!(world.end_state(other), EndState::Failed(Errno::RESET));
    assert_eq!(world.end_state(end), EndState::Closed);
}

#[test]
fn a_killed_host_closes_and_a_dark_one_is_silent() {
    let (world, [_, listener], [a, b]) = connected(1, Profile::calm());
    world.kill(world.host_of(listener));
    drain(&world);
    assert_eq!(take(&world, a), (vec![], Ok(Inbound::Bytes(0))));
    assert_eq!(world.end_state(b), EndState::Closed);

    let (world, [_, listener], [a, _]) = connected(1, Profile::calm());
    world.crash(world.host_of(listener));
    world.write(a, b"hello?").unwrap();
    drain(&world);
    assert_eq!(world.end_state(a), EndState::Open);
    world.power_on(world.host_of(listener));
    world.write(a, b"hello?").unwrap();
    drain(&world);
    assert_eq!(world.end_state(a), EndState::Failed(Errno::RESET));
}

#[test]
fn resets_strike_at_their_rate() {
    let profile = Profile { reset_ppm: PPM, ..Profile::calm() };
    let (world, _, [a, b]) = connected(1, profile);
    world.write(a, b"x").unwrap();
    drain(&world);
    for end in [a, b] {
        assert_eq!(world.end_state(end), EndState::Failed(Errno::RESET));
    }
}

#[test]
fn a_link_is_as_fast_as_it_says_for_all_connections_together() {
    let profile = Profile { window_bytes: (1 << 30, 1 << 30), ..Profile::calm() };
    let (world, [dialer, listener], [a, _]) = connected(1, profile);
    let second = world.dial(dialer, world.address(world.host_of(listener), 1));
    drain(&world);
    world.set_link(world.host_of(dialer), 1_000_000);
    let start = world.now();
    for end in [a, second] {
        assert_eq!(world.write(end, &vec![0; 500_000]), Ok(500_000));
    }
    drain(&world);
    let took = world.now().since(start);
    assert!(took >= Span::from_ms(1_000) && took < Span::from_ms(1_010), "{took:?}");
}
