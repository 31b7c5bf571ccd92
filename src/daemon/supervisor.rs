//! The worker threads: one per core, pinned, each with a ring of its own.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::base::ids::CoreId;
use crate::base::limits::{CONNECTIONS_PER_CORE_MAX, CORES_MAX};
use crate::base::time::Instant;
use crate::engine::encryption::Encryption;
use crate::engine::exchange::Exchange;
use crate::engine::{Engine, EngineConfig};
use crate::hash::fingerprint::Fingerprint;
use crate::io::Io;
use crate::io::arena::Arena;
use crate::io::uring::{SharedRegions, Uring, UringConfig, ZeroCopy};
use crate::shared::cache::Cache;
use crate::shared::counters::CoreCounters;
use crate::shared::ledger::Ledger;
use crate::shared::sleepers::Sleepers;
use crate::worker::mesh::{Mailbox, Sender, ToControl, ToWorker};
use crate::worker::{Decrypter, Links, Running, Seeker, Worker};

/// Submission entries of a worker's ring.
const RING_ENTRIES: u32 = 1024;

/// What all workers are made of.
pub struct Crew {
    /// Payload memory.
    pub arena: Arc<Arena>,
    /// Its registrations, where there is more than one worker.
    pub regions: Option<Arc<SharedRegions>>,
    /// Which sends leave without a copy.
    pub zero_copy: ZeroCopy,
    /// Its slots.
    pub cache: Arc<Cache>,
    /// Who gave and who got.
    pub ledger: Arc<Ledger>,
    /// What each worker counts.
    pub counters: Vec<Arc<CoreCounters>>,
    /// Torrents that may be asleep.
    pub sleepers: Arc<Sleepers>,
    /// Fingerprints of chunks.
    pub fingerprint: Fingerprint,
    /// As each engine is configured, but for its core.
    pub engine: EngineConfig,
    /// Whether peers are told of one another.
    pub exchange: Exchange,
    /// Which handshakes are taken.
    pub encryption: Encryption,
    /// Who has those that are encrypted.
    pub decrypter: Option<Decrypter<Uring>>,
    /// Who looks for the metadata of links.
    pub seeker: Seeker<Uring>,
    /// Into the control thread.
    pub control: Arc<Mailbox<ToControl>>,
}

/// CPUs that this process may run on, ascending.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).take(CORES_MAX).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    /// One mailbox per worker.
    pub mailboxes: Vec<Arc<Mailbox<ToWorker<Uring>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one worker per entry of `cpus`, with one listener each if there are any. A worker that
    /// cannot start says so to the control thread.
    pub fn start(crew: Crew, cpus: &[usize], listeners: Vec<TcpListener>) -> std::io::Result<Self> {
        let crew = Arc::new(crew);
        let mailboxes: Vec<_> = cpus.iter().map(|_| Arc::new(Mailbox::new())).collect();
        let mut listeners = listeners.into_iter();
        let mut threads = Vec::new();
        for (index, &cpu) in cpus.iter().enumerate() {
            let (crew, mailboxes, listen) = (Arc::clone(&crew), mailboxes.clone(), listeners.next());
            let body = move || {
                pin(cpu);
                work(&crew, CoreId(index as u8), &mailboxes, listen);
            };
            threads.push(std::thread::Builder::new().name(format!("troc-{index}")).spawn(body)?);
        }
        Ok(Self { mailboxes, threads })
    }

    /// Waits for all of them to end.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked has told the control thread already.
            let _ = thread.join();
        }
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!("worker not pinned to CPU {cpu}: {error}");
    }
}

fn work(crew: &Crew, core: CoreId, mailboxes: &[Arc<Mailbox<ToWorker<Uring>>>], listen: Option<TcpListener>) {
    let mut control = Sender::new(Arc::clone(&crew.control));
    let turns = std::panic::AssertUnwindSafe(|| run_turns(crew, core, mailboxes, listen));
    let message = match std::panic::catch_unwind(turns) {
        Ok(Ok(())) => ToControl::Stopped { core: core.0 },
        Ok(Err(why)) => ToControl::Failed { core: core.0, why },
        Err(_) => ToControl::Failed { core: core.0, why: "it panicked; this is a bug in troc".to_owned() },
    };
    control.send(message);
    while !control.flush() {
        std::thread::yield_now();
    }
}

fn run_turns(
    crew: &Crew,
    core: CoreId,
    mailboxes: &[Arc<Mailbox<ToWorker<Uring>>>],
    listen: Option<TcpListener>,
) -> Result<(), String> {
    let config = UringConfig {
        listen,
        connections_max: CONNECTIONS_PER_CORE_MAX,
        arena: Arc::clone(&crew.arena),
        shared: crew.regions.clone(),
        zero_copy: crew.zero_copy,
        entries: RING_ENTRIES,
    };
    let io = Uring::new(config).map_err(|error| error.to_string())?;
    let mailbox = Arc::clone(&mailboxes[core.0 as usize]);
    mailbox.set_waker(io.waker());
    let seed = crew.engine.seed.wrapping_add(u64::from(core.0));
    let config = EngineConfig { core, seed, ..crew.engine.clone() };
    let now: Instant = io.now();
    let counters = Arc::clone(&crew.counters[core.0 as usize]);
    let mut engine = Engine::new(config, Arc::clone(&crew.cache), now)
        .with_counters(counters)
        .with_ledger(Arc::clone(&crew.ledger))
        .with_exchange(crew.exchange)
        .with_encryption(crew.encryption);
    engine.set_sleepers(Arc::clone(&crew.sleepers));
    let links = Links {
        mailbox,
        cores: mailboxes.iter().map(|mailbox| Sender::new(Arc::clone(mailbox))).collect(),
        control: Sender::new(Arc::clone(&crew.control)),
        decrypter: crew.decrypter.clone(),
        seeker: Some(Arc::clone(&crew.seeker)),
    };
    let mut worker = Worker::new(core, io, Arc::clone(&crew.arena), engine, links, crew.fingerprint);
    while worker.turn() == Running::Yes {}
    Ok(())
}
