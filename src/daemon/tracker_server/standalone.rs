//! `troc tracker`: a process that is nothing but a tracker.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::{TrackerServer, TrackerServerError};
use crate::base::time::Span;
use crate::engine::tracker::{Figures, Rules};

/// What it is told to do.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Where to serve HTTP and UDP. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// See [`Rules`].
    pub rules: Rules,
    /// How often the figures are told.
    pub status_interval: Span,
}

/// Why there is no tracker, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// No port.
    #[error(transparent)]
    Server(#[from] TrackerServerError),
    /// No runtime or signals.
    #[error("cannot start: {0}; see troc doctor")]
    Runtime(#[from] std::io::Error),
}

/// Serves until told to stop (SIGINT, SIGTERM). `on_status` hears where it serves and how it goes, at once
/// and then at the configured interval.
pub fn run(
    config: TrackerConfig,
    on_status: &mut dyn FnMut(SocketAddr, Figures),
) -> Result<(), TrackerError> {
    let mut server = TrackerServer::open(config.listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        server.start(config.rules, None, |_, _| {});
        let mut looks = tokio::time::interval(Duration::from_nanos(config.status_interval.0));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = looks.tick() => on_status(server.address, server.figures()),
            }
        }
    })
}
