//! The load generator: many connections on one thread, payload thrown away inside the kernel.

mod connection;
mod report;
mod walk;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use socket2::{Domain, Socket, Type};

use self::connection::{Connection, Shared};
pub use self::report::Report;
use super::BenchError;
use super::net::{peer_id, source_addr, wait};
use super::process::Usage;
use crate::base::limits::{BENCH_SAMPLE_BYTES_MAX, BENCH_SAMPLES_MAX, BENCH_START_TIMEOUT};
use crate::base::rng::Rng;
use crate::proto::metainfo::Metainfo;

/// Readiness events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// Receive buffer of each connection; the kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to load.
    pub seeder: SocketAddr,
    /// Connections to open.
    pub connections: u32,
    /// Requests outstanding on each.
    pub depth: u32,
    /// How long to measure once every connection has had a block.
    pub window: Duration,
    /// Stop earlier once so many bytes came.
    pub bytes_max: u64,
    /// The seeder's process, to be measured.
    pub pid: Option<u32>,
    /// Dial each from a loopback address of its own.
    pub spread: bool,
    /// Seed of the starting points.
    pub seed: u64,
}

/// Loads the seeder and measures. Bounded by the plan's window and [`BENCH_START_TIMEOUT`], twice.
pub fn run(plan: &Plan, metainfo: &Metainfo) -> Result<Report, BenchError> {
    if metainfo.geometry.piece_count() == 0 {
        return Err(BenchError::Usage("the torrent is empty: nothing to measure with".to_owned()));
    }
    let mut load = Load::connect(plan, metainfo)?;
    load.turn_until(start_timeout(), Load::all_started)?;
    let before = load.snapshot(plan)?;
    load.shared.begin_window();
    let bytes_end = before.bytes.iter().sum::<u64>().saturating_add(plan.bytes_max);
    load.turn_until(plan.window, |load| load.alive == 0 || load.bytes() >= bytes_end)?;
    let after = load.snapshot(plan)?;
    Ok(Report::new(plan, &before, &after, load.shared, load.refusals))
}

/// What was true at one end of the window.
pub struct Snapshot {
    at: Instant,
    bytes: Vec<u64>,
    seeder: Option<Usage>,
    own: Usage,
}

struct Load {
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Option<Connection>>,
    /// Bytes of the connections that are gone.
    ended: Vec<u64>,
    alive: u32,
    waiting_for_first: u32,
    refusals: Vec<String>,
    shared: Shared,
}

impl Load {
    fn connect(plan: &Plan, metainfo: &Metainfo) -> Result<Self, BenchError> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| BenchError::io("epoll", error))?;
        let mut load = Self {
            epoll,
            connections: Vec::with_capacity(plan.connections as usize),
            ended: vec![0; plan.connections as usize],
            alive: plan.connections,
            waiting_for_first: plan.connections,
            refusals: Vec::new(),
            shared: Shared::new(metainfo, plan.depth),
        };
        let mut rng = Rng::new(plan.seed);
        let sampled = samples(metainfo);
        for index in 0..plan.connections {
            let socket = dial(plan, index)?;
            let piece = rng.below(metainfo.geometry.piece_count());
            epoll::add(&load.epoll, &socket, epoll::EventData::new_u64(index.into()), epoll::EventFlags::IN)
                .map_err(|error| BenchError::io("epoll", error))?;
            let id = peer_id(&mut rng);
            load.connections.push(Some(Connection::new(socket, &load.shared, id, piece, index < sampled)));
        }
        Ok(load)
    }

    /// Serves readiness until `done` holds, or for as long as `span`.
    fn turn_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let end = Instant::now() + span;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&self.epoll, &mut events, Some(left))?;
            for event in events.drain(..) {
                self.serve(event.data.u64() as usize);
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        let had_none = connection.bytes() == 0;
        let outcome = connection.pump(&mut self.shared);
        if had_none && (connection.bytes() > 0 || outcome.is_err()) {
            self.waiting_for_first -= 1;
        }
        if let Err(why) = outcome {
            self.ended[index] = connection.bytes();
            // Dropping the socket takes it out of the epoll set.
            self.connections[index] = None;
            self.alive -= 1;
            self.refusals.push(why.to_string());
        }
    }

    fn all_started(&self) -> bool {
        self.waiting_for_first == 0
    }

    fn bytes_of(&self, index: usize) -> u64 {
        self.connections[index].as_ref().map_or(self.ended[index], Connection::bytes)
    }

    fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    fn snapshot(&self, plan: &Plan) -> Result<Snapshot, BenchError> {
        Ok(Snapshot {
            at: Instant::now(),
            bytes: (0..self.connections.len()).map(|index| self.bytes_of(index)).collect(),
            seeder: plan.pid.map(Usage::of).transpose()?,
            own: Usage::of(std::process::id())?,
        })
    }
}

const fn start_timeout() -> Duration {
    Duration::from_nanos(BENCH_START_TIMEOUT.0)
}

/// How many connections check the hash of their first piece.
fn samples(metainfo: &Metainfo) -> u32 {
    let by_memory = BENCH_SAMPLE_BYTES_MAX / u64::from(metainfo.geometry.piece_bytes);
    BENCH_SAMPLES_MAX.min(by_memory.max(1) as u32)
}

fn dial(plan: &Plan, index: u32) -> Result<Socket, BenchError> {
    let failed = |error: std::io::Error| {
        let (seeder, remedy) = (plan.seeder, "start the seeder first, and name where it listens by --seeder");
        BenchError::Failed(format!("{seeder}: cannot connect (connection {index}): {error}; {remedy}"))
    };
    let socket = Socket::new(Domain::for_address(plan.seeder), Type::STREAM, None).map_err(failed)?;
    if plan.spread
        && let Some(source) = source_addr(plan.seeder, index)
    {
        socket.bind(&source.into()).map_err(failed)?;
    }
    // The same window for all: left alone, the kernel gives more to whoever happens to be read first.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).map_err(failed)?;
    socket.connect_timeout(&plan.seeder.into(), start_timeout()).map_err(failed)?;
    socket.set_tcp_nodelay(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}
