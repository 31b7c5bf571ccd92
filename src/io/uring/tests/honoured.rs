//! A way out that honours zero copy, made of what every kernel has: two network namespaces joined by a
//! pair of virtual cards, of which the receiving one runs an XDP program. It takes packets off the sender's
//! memory by itself, as a real card does, where a virtual card alone would have the sender copy them.
#![allow(unsafe_code)] // Namespaces, and a program for the kernel of two instructions.

use std::ffi::CString;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc::channel;

use crate::base::limits::ZERO_COPY_BYTES_MIN;
use crate::base::units::CHUNK_BYTES;
use crate::io::uring::ZeroCopy;

use super::*;

/// From linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 4;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// Moves the calling thread into an empty network of its own; whether it may.
fn leave() -> bool {
    // SAFETY: it touches no memory; only this thread changes its network.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// Runs `ip` with these arguments in this thread's network; whether that went well.
fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

fn bpf(command: i32, attributes: &[u32; 16]) -> Option<OwnedFd> {
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    // SAFETY: the kernel has just made this descriptor for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Has a card of this thread's network pass packets on by XDP until what is returned is dropped.
fn pass(card: &str) -> Option<(OwnedFd, OwnedFd)> {
    let (name, licence) = (CString::new(card).unwrap(), c"GPL");
    let halves = |address: u64| [address as u32, (address >> 32) as u32];
    let [low, high] = halves(PASS.as_ptr() as u64);
    let [licence_low, licence_high] = halves(licence.as_ptr() as u64);
    let mut attributes = [0; 16];
    attributes[..6].copy_from_slice(&[
        BPF_PROG_TYPE_XDP,
        PASS.len() as u32,
        low,
        high,
        licence_low,
        licence_high,
    ]);
    let program = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the name ends with a zero.
    let card = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let mut attributes = [0; 16];
    let program_fd = std::os::fd::AsRawFd::as_raw_fd(&program) as u32;
    attributes[..4].copy_from_slice(&[program_fd, card, BPF_XDP, XDP_FLAGS_DRV_MODE]);
    Some((bpf(BPF_LINK_CREATE, &attributes)?, program))
}

/// The far end: a listener that reads `bytes` and returns them. `None` where the host does not allow it.
fn far(near: i32, ready: &std::sync::mpsc::Sender<Option<SocketAddr>>, bytes: usize) -> Option<Vec<u8>> {
    let is_joined = leave()
        && ip(&format!("link add far type veth peer name near netns {near}"))
        && ip("addr add 10.9.0.2/24 dev far")
        && ip("link set far up");
    let program = if is_joined { pass("far") } else { None };
    let Some(_program) = program else {
        ready.send(None).unwrap();
        return None;
    };
    let listener = TcpListener::bind(("10.9.0.2", 0)).unwrap();
    ready.send(listener.local_addr().ok()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).unwrap();
    Some(got)
}

#[test]
fn where_it_is_honoured_all_long_sends_leave_without_a_copy() {
    const SENDS: usize = 8;
    if !leave() || !ip("link set lo up") {
        return eprintln!("skipped: not allowed to make a network");
    }
    let near = rustix::thread::gettid().as_raw_nonzero().get();
    std::thread::scope(|scope| {
        let (sender, ready) = channel();
        let far = scope.spawn(move || far(near, &sender, SENDS * ZERO_COPY_BYTES_MIN as usize));
        let Some(address) = ready.recv().unwrap() else {
            return eprintln!("skipped: not allowed to join networks, or to run XDP");
        };
        assert!(ip("addr add 10.9.0.1/24 dev near") && ip("link set near up"));
        let mut rig = Rig::new(64);
        rig.uring.zero_copy = ZeroCopy::Auto;
        let chunk = pattern(4, CHUNK_BYTES as usize);
        rig.arena.copy_in(SlotId(0), 0, &chunk);
        let conn = rig.uring.dial(address).unwrap();
        assert_eq!(rig.dialed(conn), Ok(()));
        for at in 0..SENDS as u32 {
            // Short where the socket has no room for all: the rest is copied.
            let (mut from, end) = (at * ZERO_COPY_BYTES_MIN, (at + 1) * ZERO_COPY_BYTES_MIN);
            while from < end {
                rig.uring.send(conn, &[payload(0, from, end - from)]);
                from += rig.sent(conn).unwrap();
                if rig.held > 0 {
                    rig.released(conn);
                }
            }
        }
        // None at all where the kernel has no zero copy.
        let counters = rig.uring.counters();
        assert_eq!(counters.zero_copy_copied, 0, "{counters:?}");
        assert!(counters.zero_copy_sends == 0 || counters.zero_copy_sends == SENDS as u64, "{counters:?}");
        assert!(far.join().unwrap().unwrap() == chunk[..SENDS * ZERO_COPY_BYTES_MIN as usize]);
    });
}
