//! Connections instead of bytes: opened and closed as fast as told, or opened and held.
//!
//! One connection's way: connect, send the handshake, wait for the other side's. Then it is closed by a
//! reset, which leaves no TIME_WAIT that would use up ports, or held, reading what comes and saying nothing.

mod report;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Socket, Type};

pub use self::report::Report;
use super::BenchError;
use super::histogram::Histogram;
use super::net::{peer_id, source_addr, wait};
use super::process::{KernelMemory, Usage};
use crate::base::ids::InfoHash;
use crate::base::limits::BENCH_START_TIMEOUT;
use crate::base::rng::Rng;
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};

/// Readiness events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// Connections begun before readiness is looked at again.
const OPENS_PER_TURN: usize = 64;
/// How long a turn waits at most: connections are due by time.
const TURN: Duration = Duration::from_millis(1);
/// What is read from a held connection at once, and thrown away.
const DISCARD_BYTES: usize = 64 << 10;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Whom to load.
    pub seeder: SocketAddr,
    /// Most handshakes under way at a time; with `hold`, how many connections there will be.
    pub connections: u32,
    /// Most connections begun in a second; as many as can be without.
    pub rate: Option<u32>,
    /// How long to open and close, or to hold.
    pub window: Duration,
    /// End as soon as so many handshakes were answered.
    pub count_max: u32,
    /// Hold the connections instead of closing them.
    pub hold: bool,
    /// The seeder's process, to be measured.
    pub pid: Option<u32>,
}

/// What the machine looked like.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    seeder: Option<Usage>,
    own: Usage,
    kernel: KernelMemory,
}

impl Snapshot {
    fn take(plan: &Plan) -> Result<Self, BenchError> {
        Ok(Self {
            seeder: plan.pid.map(Usage::of).transpose()?,
            own: Usage::of(std::process::id())?,
            kernel: KernelMemory::read()?,
        })
    }
}

/// Opens connections and measures. Bounded by the window, and by [`BENCH_START_TIMEOUT`] before it when
/// connections are held.
pub fn run(plan: &Plan, info_hash: InfoHash) -> Result<Report, BenchError> {
    let mut storm = Storm::new(plan, info_hash)?;
    let before = Snapshot::take(plan)?;
    let begun = Instant::now();
    if plan.hold {
        let patience = Duration::from_nanos(BENCH_START_TIMEOUT.0).max(storm.time_to_open());
        storm.turn_until(begun + patience, Storm::all_answered)?;
    } else {
        storm.turn_until(begun + plan.window, |storm| storm.answered >= plan.count_max)?;
    }
    let opening = begun.elapsed();
    if plan.hold {
        storm.turn_until(Instant::now() + plan.window, |storm| storm.held == 0)?;
    }
    let after = Snapshot::take(plan)?;
    Ok(Report::new(plan, opening, &before, &after, storm))
}

/// One connection before, and when it is held, after its handshake.
struct Visit {
    socket: Socket,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// So many bytes of the answer have come.
    Greeting(usize),
    Held,
}

struct Storm {
    plan: Plan,
    epoll: rustix::fd::OwnedFd,
    info_hash: InfoHash,
    rng: Rng,
    visits: Vec<Option<Visit>>,
    free: Vec<usize>,
    discarded: Vec<u8>,
    begun: Instant,
    opened: u32,
    answered: u32,
    held: u32,
    latency: Histogram,
    failures: Vec<String>,
}

impl Storm {
    fn new(plan: &Plan, info_hash: InfoHash) -> Result<Self, BenchError> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| BenchError::io("epoll", error))?;
        Ok(Self {
            plan: *plan,
            epoll,
            info_hash,
            rng: Rng::new(1),
            visits: (0..plan.connections).map(|_| None).collect(),
            free: (0..plan.connections as usize).rev().collect(),
            discarded: vec![0; DISCARD_BYTES],
            begun: Instant::now(),
            opened: 0,
            answered: 0,
            held: 0,
            latency: Histogram::default(),
            failures: Vec::new(),
        })
    }

    /// Twice what the rate asks for.
    fn time_to_open(&self) -> Duration {
        let rate = self.plan.rate.unwrap_or(u32::MAX);
        Duration::from_secs(2 * u64::from(self.plan.connections / rate.max(1)))
    }

    fn all_answered(&self) -> bool {
        self.answered + self.failures.len() as u32 >= self.plan.connections
    }

    fn turn_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !done(self) && Instant::now() < end {
            let more_due = self.open_due();
            wait(&self.epoll, &mut events, Some(if more_due { Duration::ZERO } else { TURN }))?;
            for event in events.drain(..) {
                self.serve(event.data.u64() as usize);
            }
        }
        Ok(())
    }

    /// Begins the connections that are due; whether there are more.
    fn open_due(&mut self) -> bool {
        let due = match self.plan.rate {
            Some(rate) => (self.begun.elapsed().as_secs_f64() * f64::from(rate)) as u32,
            None => u32::MAX,
        };
        let due = if self.plan.hold { due.min(self.plan.connections) } else { due };
        for _ in 0..OPENS_PER_TURN {
            if self.opened >= due {
                return false;
            }
            let Some(index) = self.free.pop() else { return false };
            self.opened = self.opened.saturating_add(1);
            match self.open(index) {
                Ok(visit) => self.visits[index] = Some(visit),
                Err(error) => self.fail(index, &error),
            }
        }
        self.opened < due && !self.free.is_empty()
    }

    fn open(&self, index: usize) -> std::io::Result<Visit> {
        let since = Instant::now();
        let socket = Socket::new(Domain::for_address(self.plan.seeder), Type::STREAM, None)?;
        if let Some(source) = source_addr(self.plan.seeder, self.opened) {
            socket.bind(&source.into())?;
        }
        socket.set_nonblocking(true)?;
        if !self.plan.hold {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        match socket.connect(&self.plan.seeder.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        // Edge-triggered: once when connected, and then whenever something comes.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket.as_fd(), epoll::EventData::new_u64(index as u64), flags)?;
        Ok(Visit { socket, since, stage: Stage::Connecting })
    }

    fn serve(&mut self, index: usize) {
        let Some(mut visit) = self.visits[index].take() else { return };
        match self.advance(&mut visit) {
            Ok(()) if visit.stage == Stage::Held && !self.plan.hold => self.free.push(index),
            Ok(()) => self.visits[index] = Some(visit),
            Err(error) => {
                self.held -= u32::from(visit.stage == Stage::Held);
                drop(visit);
                self.fail(index, &error);
            }
        }
    }

    fn fail(&mut self, index: usize, error: &std::io::Error) {
        self.failures.push(error.to_string());
        // A held connection that fails is not opened again.
        if !self.plan.hold {
            self.free.push(index);
        }
    }

    /// Goes as far as the socket allows.
    fn advance(&mut self, visit: &mut Visit) -> std::io::Result<()> {
        if visit.stage == Stage::Connecting {
            if let Some(error) = visit.socket.take_error()? {
                return Err(error);
            }
            let hello = Handshake::new(self.info_hash, peer_id(&mut self.rng)).encode();
            // A new socket takes 68 bytes at once, or it has failed.
            send(&visit.socket, &hello, SendFlags::NOSIGNAL)?;
            visit.stage = Stage::Greeting(0);
        }
        loop {
            let wanted = match visit.stage {
                Stage::Greeting(got) => HANDSHAKE_BYTES - got,
                _ => DISCARD_BYTES,
            };
            let count = match recv(&visit.socket, &mut self.discarded[..wanted], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(std::io::Error::other("the seeder closed the connection")),
                Ok((_, count)) => count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if let Stage::Greeting(got) = visit.stage {
                visit.stage = self.greeted(visit.since, got + count);
                if visit.stage == Stage::Held && !self.plan.hold {
                    return Ok(());
                }
            }
        }
    }

    fn greeted(&mut self, since: Instant, got: usize) -> Stage {
        if got < HANDSHAKE_BYTES {
            return Stage::Greeting(got);
        }
        self.answered += 1;
        self.held += u32::from(self.plan.hold);
        self.latency.record(since.elapsed().as_nanos() as u64);
        Stage::Held
    }
}
