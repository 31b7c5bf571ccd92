//! From a configuration to a running node and back.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::accounts::Accounts;
use super::cache_size::{CacheSize, Host, least_bytes};
use super::clock;
use super::config::{Identity, LanLimit, NodeConfig, RateLimits};
use super::control::{CacheMemory, Control, Shared};
use super::discovery::BoundDht;
use super::error::NodeError;
use super::magnet;
use super::metrics::{Endpoint, Sources};
use super::mse::{self, Mse};
use super::remembering;
use super::socket::ControlSocket;
use super::status::NodeStatus;
use super::store::StateDir;
use super::supervisor::{Crew, Workers, allowed_cpus};
use super::tracker_server::TrackerServer;
use crate::base::human::format_size;
use crate::base::ids::CoreId;
use crate::base::limits::{CORES_MAX, LEDGER_ACCOUNTS};
use crate::base::time::Instant;
use crate::engine::EngineConfig;
use crate::engine::encryption::Encryption;
use crate::hash::signature::NodeKey;
use crate::io::arena::Arena;
use crate::io::sockets;
use crate::io::uring;
use crate::proto::wire::peer_id::peer_id;
use crate::shared::budget::{Budget, Budgets, LanBudget};
use crate::shared::cache::Cache;
use crate::shared::counters::CoreCounters;
use crate::shared::ledger::Ledger;
use crate::shared::sleepers::Sleepers;
use crate::worker::mesh::{Mailbox, ToControl};

/// Runs a node until it is done or told to stop (SIGINT, SIGTERM). `on_status` hears how it goes, at
/// the configured interval and once more at the end; the last status is returned.
pub fn run(mut config: NodeConfig, on_status: &mut dyn FnMut(&NodeStatus)) -> Result<NodeStatus, NodeError> {
    if !config.dir.is_dir() {
        return Err(NodeError::NoDirectory(config.dir));
    }
    sockets::raise_nofile();
    let state = StateDir::open(&config.state_dir)?;
    state.check_outside(&config.dir)?;
    recall_links(&state, &mut config)?;
    let cpus = cpus(&config);
    let (listeners, listen) = bind_listeners(&config, cpus.len())?;
    let cache_size = cache_size(&config);
    let arena = Arc::new(Arena::new(cache_size.bytes)?);
    let cache = Arc::new(Cache::with_regions(arena.slot_count(), arena.slots_per_region()));
    let random = random()?;
    let dht = bind_dht(&config, listen)?;
    let ports = (listen, dht.first().map(|bound| bound.address));
    let mut engine = engine_config(&config, &random, state.party_secret(), cpus.len(), ports);
    engine.identity = identity(&config, &state)?;
    let ledger = Arc::new(Ledger::new(LEDGER_ACCOUNTS));
    let accounts = Accounts::open(&state, Arc::clone(&ledger), config.role, clock::wall_s(), clock::now());
    let mailbox = Arc::new(Mailbox::new());
    let shared = shared(&engine, &random, listen);
    let sleepers = Arc::new(Sleepers::new(config.torrents.iter().map(|torrent| torrent.names())));
    let counters: Vec<_> = cpus.iter().map(|_| Arc::new(CoreCounters::new())).collect();
    let sources = Sources {
        cores: counters.clone(),
        cache: Arc::clone(&cache),
        cache_size,
        ledger: Arc::clone(&ledger),
    };
    let metrics = config.metrics.map(|address| Endpoint::open(address, sources)).transpose()?;
    let tracker = config.tracker.map(TrackerServer::open).transpose()?;
    let socket = control_socket(&config);
    // One core alone shares with nobody.
    let shared_regions = if cpus.len() > 1 { uring::SharedRegions::new(&arena) } else { None };
    let parts = (Arc::clone(&arena), Arc::clone(&cache));
    let memory = CacheMemory::new(parts, shared_regions.clone(), least(&config), cpus.len());
    let encrypted = (config.encryption != Encryption::Off).then(Mse::new);
    let (seeker, callers) = magnet::callers();
    let crew = Crew {
        encryption: config.encryption,
        decrypter: encrypted.as_ref().map(|(mse, _)| mse.decrypter()),
        seeker,
        arena,
        regions: shared_regions,
        zero_copy: config.zero_copy,
        cache,
        ledger: Arc::clone(&ledger),
        counters,
        sleepers: Arc::clone(&sleepers),
        fingerprint: state.fingerprint(),
        engine,
        exchange: config.exchange,
        control: Arc::clone(&mailbox),
    };
    let runtime = runtime()?;
    let workers = Workers::start(crew, &cpus, listeners).map_err(NodeError::Control)?;
    let mse = start_mse(encrypted, &config, &mailbox, &workers)?;
    let control =
        Control::new(config, shared, state, (mailbox, memory, sleepers), &workers.mailboxes, on_status);
    let control = control.with_encryption(mse).with_callers(callers);
    let control = control.with_metrics(metrics).with_accounts(accounts).with_socket(socket, ledger);
    let mut control = control.with_tracker(tracker).with_dht(dht);
    let outcome = runtime.block_on(control.run());
    drop(control);
    if !matches!(outcome, Err(NodeError::Killed)) {
        workers.join();
    }
    outcome
}

/// One listener for each core, if peers are accepted, and where.
fn bind_listeners(
    config: &NodeConfig,
    cores: usize,
) -> Result<(Vec<TcpListener>, Option<SocketAddr>), NodeError> {
    let listeners = config.listen.map(|address| sockets::listen(address, cores));
    let listeners = listeners.transpose()?.unwrap_or_default();
    let listen = listeners.first().and_then(|listener| listener.local_addr().ok());
    Ok((listeners, listen))
}

/// The smallest cache that will do.
fn least(config: &NodeConfig) -> u64 {
    least_bytes(longest_piece(config))
}

/// What the control thread knows of the process.
fn shared(engine: &EngineConfig, random: &[u8; 32], listen: Option<SocketAddr>) -> Shared {
    let key = u32::from_le_bytes([random[12], random[13], random[14], random[15]]);
    Shared { peer_id: engine.peer_id, key, seed: engine.seed, listen }
}

/// Puts what is known in place of links, and chooses of it what is wanted, or what was before.
fn recall_links(state: &StateDir, config: &mut NodeConfig) -> Result<(), NodeError> {
    for index in state.recall_links(&mut config.torrents) {
        let metainfo = &config.torrents[index];
        let wanted = config.choose_files(metainfo).map_err(|why| NodeError::Metadata {
            name: crate::proto::text::escape(metainfo.name.as_bytes(), 255),
            why,
        })?;
        config.wanted.resize(config.torrents.len(), None);
        config.wanted[index] = wanted;
    }
    remembering::settle_all(state, config);
    Ok(())
}

/// Starts who has encrypted handshakes, if they are spoken.
fn start_mse(
    encrypted: Option<(Mse, mse::Inbox)>,
    config: &NodeConfig,
    control: &Arc<Mailbox<ToControl>>,
    workers: &Workers,
) -> Result<Option<Mse>, NodeError> {
    let Some((mse, inbox)) = encrypted else { return Ok(None) };
    let names = config.torrents.iter().flat_map(|torrent| torrent.names()).collect();
    mse::start(inbox, config.encryption, Arc::clone(control), workers.mailboxes.clone(), names)
        .map_err(NodeError::Control)?;
    Ok(Some(mse))
}

/// The sockets of the distributed hash table, if it is used.
fn bind_dht(config: &NodeConfig, listen: Option<SocketAddr>) -> Result<Vec<BoundDht>, NodeError> {
    let Some(setup) = &config.discovery.dht else { return Ok(Vec::new()) };
    BoundDht::bind_all(setup, listen)
        .map_err(|source| NodeError::Dht { address: setup.listen.or(listen), source })
}

/// The control thread's.
fn runtime() -> Result<tokio_uring::Runtime, NodeError> {
    let builder = tokio_uring::uring_builder();
    let mut ring = tokio_uring::builder();
    ring.entries(256).uring_builder(&builder);
    let runtime = tokio_uring::Runtime::new(&ring);
    Ok(runtime.map_err(|error| uring::explain("control thread's ring", error))?)
}

/// The key by which the node proves who it is, if it does.
fn identity(config: &NodeConfig, state: &StateDir) -> Result<Option<Arc<NodeKey>>, NodeError> {
    Ok(match config.identity {
        Identity::Signed => Some(Arc::new(state.node_key(&random()?)?)),
        Identity::Address => None,
    })
}

/// The CPUs to work on: as many as asked for, out of those allowed, more than once if need be.
fn cpus(config: &NodeConfig) -> Vec<usize> {
    let allowed = allowed_cpus();
    let count = config.cores.unwrap_or(allowed.len()).clamp(1, CORES_MAX);
    allowed.iter().copied().cycle().take(count).collect()
}

fn engine_config(
    config: &NodeConfig,
    random: &[u8; 32],
    party_secret: u64,
    cores: usize,
    (listen, dht): (Option<SocketAddr>, Option<SocketAddr>),
) -> EngineConfig {
    let mut id = [0; 12];
    id.copy_from_slice(&random[..12]);
    let now = clock::now();
    EngineConfig {
        core: CoreId(0),
        cores,
        peer_id: peer_id(id),
        listen_port: listen.map(|address| address.port()),
        dht_port: dht.map(|address| address.port()),
        sequential: config.sequential,
        seed: xxh3_64_with_seed(random, 1),
        secret: party_secret,
        grouping: config.grouping.clone(),
        identity: None,
        upload: budgets(config.upload, now),
        download: budgets(config.download, now),
    }
}

fn budgets(limits: RateLimits, now: Instant) -> Budgets {
    let budget = |rate| Arc::new(Budget::new(rate, now));
    let lan = match limits.lan {
        LanLimit::Shared => LanBudget::Shared,
        LanLimit::Exempt => LanBudget::Exempt,
        LanLimit::Own(rate) => LanBudget::Own(budget(rate)),
    };
    Budgets { node: limits.node.map(budget), lan }
}

/// The socket at which it is asked how it goes. A node without one works all the same.
fn control_socket(config: &NodeConfig) -> Option<ControlSocket> {
    let opened = ControlSocket::open(&config.state_dir);
    let opened = opened.inspect_err(|error| {
        tracing::warn!(
            "no control socket in {}: {error}; `troc peers` and `troc ledger` will not find this node: give \
             --state a directory on a local file system",
            config.state_dir.display()
        );
    });
    opened.ok()
}

fn random() -> Result<[u8; 32], NodeError> {
    super::random::random().map_err(|error| NodeError::Random(error.to_string()))
}

/// Chunks of the longest piece.
fn longest_piece(config: &NodeConfig) -> u32 {
    config.torrents.iter().map(|torrent| torrent.geometry.chunks_per_piece()).max().unwrap_or(1)
}

/// The arena's size, within what the host allows; a warning says so when that is less than wanted.
fn cache_size(config: &NodeConfig) -> CacheSize {
    let host = Host::look();
    let size = CacheSize::choose(config.cache_bytes, least_bytes(longest_piece(config)), &host);
    match size.warning(&host) {
        Some(warning) => tracing::warn!("{warning}"),
        None => tracing::info!("the cache has {}, {}", format_size(size.bytes), size.why(&host)),
    }
    size
}
