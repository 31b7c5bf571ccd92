//! Each operation and its races, on a real ring. No test sleeps: each waits for a completion.

mod any;
mod cancel;
mod file;
mod honoured;
mod regions;
mod stream;
mod zero_copy;

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::base::ids::{ConnId, SlotId};
use crate::base::time::Span;
use crate::io::arena::Arena;
use crate::io::sockets::listen;
use crate::io::{Completion, Errno, Io, Segment};

use super::{Key, Kind, SharedRegions, Uring, UringConfig, UringSocket, Wait, ZeroCopy, accept};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// A test that waits longer for one completion has failed.
const PATIENCE: Span = Span::from_secs(20);

/// A ring with its listener's address and the completions that no test step has asked for yet.
struct Rig {
    uring: Uring,
    address: SocketAddr,
    arena: Arc<Arena>,
    seen: Vec<Completion>,
    /// Sends that the kernel holds, as far as `sent` has seen them.
    held: u32,
}

impl Rig {
    fn new(entries: u32) -> Self {
        Self::with(entries, 1024)
    }

    fn with(entries: u32, connections_max: u32) -> Self {
        Self::over(Arc::new(Arena::new(0).unwrap()), None, entries, connections_max)
    }

    fn over(
        arena: Arc<Arena>,
        shared: Option<Arc<SharedRegions>>,
        entries: u32,
        connections_max: u32,
    ) -> Self {
        let listener = listen(LOOPBACK, 1).unwrap().pop().unwrap();
        let address = listener.local_addr().unwrap();
        let config = UringConfig {
            listen: Some(listener),
            connections_max,
            arena: arena.clone(),
            shared,
            zero_copy: ZeroCopy::Off,
            entries,
        };
        Self { uring: Uring::new(config).unwrap(), address, arena, seen: Vec::new(), held: 0 }
    }

    /// Turns until a completion satisfies `wanted`, and takes it.
    fn expect<T>(&mut self, what: &str, wanted: impl Fn(&Completion) -> Option<T>) -> T {
        let deadline = self.uring.now() + PATIENCE;
        loop {
            let found = self.seen.iter().enumerate().find_map(|(at, done)| Some((at, wanted(done)?)));
            if let Some((at, value)) = found {
                self.seen.remove(at);
                return value;
            }
            assert!(self.uring.now() < deadline, "no {what}; seen: {:?}", self.seen);
            self.uring.turn(Some(deadline), &mut self.seen);
        }
    }

    fn accepted(&mut self) -> (ConnId, SocketAddr) {
        self.expect("Accepted", |done| match *done {
            Completion::Accepted { conn, address } => Some((conn, address)),
            _ => None,
        })
    }

    fn dialed(&mut self, wanted: ConnId) -> Result<(), Errno> {
        self.expect("Dialed", |done| match *done {
            Completion::Dialed { conn, result } if conn == wanted => Some(result),
            _ => None,
        })
    }

    fn received(&mut self, wanted: ConnId) -> Result<u32, Errno> {
        self.expect("Received", |done| match *done {
            Completion::Received { conn, result } if conn == wanted => Some(result),
            _ => None,
        })
    }

    fn sent(&mut self, wanted: ConnId) -> Result<u32, Errno> {
        let (result, held) = self.expect("Sent", |done| match *done {
            Completion::Sent { conn, result, held } if conn == wanted => Some((result, held)),
            _ => None,
        });
        self.held += u32::from(held);
        result
    }

    fn closed(&mut self, wanted: ConnId) {
        self.expect("Closed", |done| match *done {
            Completion::Closed { conn } if conn == wanted => Some(()),
            _ => None,
        });
    }

    /// Two ends of one connection: the dialling one, then the accepted one.
    fn pair(&mut self) -> (ConnId, ConnId) {
        let here = self.uring.dial(self.address).unwrap();
        assert_eq!(self.dialed(here), Ok(()));
        let (there, address) = self.accepted();
        assert!(address.ip().is_loopback());
        (here, there)
    }

    /// A connection whose other end is an ordinary socket.
    fn guest(&mut self) -> (ConnId, TcpStream) {
        let stream = TcpStream::connect(self.address).unwrap();
        let (conn, address) = self.accepted();
        assert_eq!(address, stream.local_addr().unwrap());
        (conn, stream)
    }

    /// Which socket a connection is, whatever number it has.
    fn inode(&self, conn: ConnId) -> u64 {
        let connection = self.uring.connections.get(conn).unwrap();
        rustix::fs::fstat(connection.fd.as_ref().unwrap().as_fd()).unwrap().st_ino
    }
}

const fn payload(slot: u32, offset: u32, len: u32) -> Segment {
    Segment::Payload { slot: SlotId(slot), offset, len }
}

const fn inbox(offset: u32, len: u32) -> Segment {
    Segment::Inbox { offset, len }
}

/// Whether any descriptor of this process is the socket with this inode. Other tests run beside
/// this one, so that counting descriptors would prove nothing.
fn is_open(inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    links.filter_map(|link| std::fs::read_link(link.path()).ok()).any(|target| target.as_os_str() == &*name)
}

/// Whether this process runs the test of that name and no other. If not, it starts one that does: what
/// is counted for a whole process must not be what other tests do.
fn alone(name: &str) -> bool {
    const ALONE: &str = "TROC_TEST_ALONE";
    let is_alone = std::env::var_os(ALONE).is_some();
    if !is_alone {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(child.args([name, "--exact", "--nocapture"]).env(ALONE, "1").status().unwrap().success());
    }
    is_alone
}

/// Bytes that differ at each place and for each seed.
fn pattern(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761).rotate_left(9) ^ seed) as u8).collect()
}

#[test]
fn a_deadline_is_kept_and_a_past_one_does_not_wait() {
    let mut rig = Rig::new(64);
    let start = rig.uring.now();
    let deadline = start + Span::from_ms(3);
    let mut done = Vec::new();
    while rig.uring.now() < deadline {
        rig.uring.turn(Some(deadline), &mut done);
    }
    // The first turn waits, it does not spin.
    assert!(rig.uring.counters().enters < 20, "{:?}", rig.uring);
    rig.uring.turn(Some(start), &mut done);
    assert!(done.is_empty());
}

#[test]
fn a_wake_from_another_thread_ends_the_wait_and_works_again() {
    let mut rig = Rig::new(64);
    let waker = rig.uring.waker();
    let mut done = Vec::new();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            rig.uring.turn(None, &mut done);
        });
    }
    // A wake before the turn counts too.
    waker.wake();
    rig.uring.turn(None, &mut done);
    assert!(done.is_empty());
}

#[test]
fn five_hundred_connections_are_accepted_and_the_table_is_a_limit() {
    const LIMIT: u32 = 500;
    let mut rig = Rig::with(64, LIMIT);
    let mut streams: Vec<_> = (0..LIMIT - 1).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    let mut ids: Vec<_> = streams.iter().map(|_| rig.accepted().0).collect();
    for _ in 0..2 {
        streams.push(TcpStream::connect(rig.address).unwrap());
    }
    ids.push(rig.accepted().0);
    // One too many is closed at once: its client reads the end.
    let mut surplus = streams.pop().unwrap();
    while rig.uring.counters().refused == 0 {
        rig.uring.turn(None, &mut rig.seen);
    }
    assert_eq!(std::io::Read::read(&mut surplus, &mut [0]).unwrap_or(0), 0);
    assert!(rig.uring.dial(rig.address).is_none());
    let socket = UringSocket::new(streams.pop().unwrap().into());
    let socket = rig.uring.attach(socket).unwrap_err();
    // A place that becomes free can be used again.
    rig.uring.close(ids[0]);
    rig.closed(ids[0]);
    assert_eq!(rig.uring.attach(socket).unwrap().index, ids[0].index);
    assert_eq!(rig.uring.connection_count(), LIMIT);
}

#[test]
fn what_is_accepted_sends_small_frames_at_once() {
    let mut rig = Rig::new(64);
    let (here, there) = rig.pair();
    for conn in [here, there] {
        let socket = rig.uring.connections.get(conn).unwrap().fd.as_ref().unwrap();
        assert!(rustix::net::sockopt::tcp_nodelay(socket).unwrap());
    }
}

#[test]
fn a_connection_moves_to_another_ring() {
    let (mut from, mut to) = (Rig::new(64), Rig::new(64));
    let (conn, mut stream) = from.guest();
    from.uring.recv(conn, &[inbox(0, 8)]);
    assert!(from.uring.detach(conn).is_none(), "a receive is in flight");
    from.uring.interrupt_recv(conn);
    assert_eq!(from.received(conn), Err(Errno::CANCELED));
    let socket = from.uring.detach(conn).unwrap();
    assert!(from.uring.detach(conn).is_none(), "the id is stale");
    let conn = to.uring.attach(socket).unwrap();
    to.uring.recv(conn, &[inbox(0, 8)]);
    std::io::Write::write_all(&mut stream, b"moved").unwrap();
    assert_eq!(to.received(conn), Ok(5));
    assert_eq!(&to.uring.inbox(conn)[..5], b"moved");
}

#[test]
fn accepting_goes_on_after_a_rest() {
    let mut rig = Rig::new(64);
    rig.guest();
    // As if the kernel had ended the multishot accept for want of descriptors.
    let deadline = rig.uring.now() + PATIENCE;
    rig.uring.ring.cancel(Key::only(Kind::Accept), Key::only(Kind::Accept).id);
    while rig.uring.acceptor.is_armed() {
        rig.uring.ring.enter(Wait::AtMost(PATIENCE));
        let mut batch = Vec::new();
        rig.uring.ring.reap(&mut batch);
        for cqe in batch {
            rig.uring.dispatch(&cqe, &mut rig.seen);
        }
        assert!(rig.uring.now() < deadline);
    }
    let now = rig.uring.now();
    rig.uring.acceptor.completed(-libc::EMFILE, false, || now);
    // A turn without deadline comes back in time to accept again.
    let client = TcpStream::connect(rig.address).unwrap();
    while rig.seen.is_empty() {
        rig.uring.turn(None, &mut rig.seen);
    }
    assert!(rig.uring.now() >= now + accept::ACCEPT_PAUSE);
    assert_eq!(rig.accepted().1, client.local_addr().unwrap());
}
