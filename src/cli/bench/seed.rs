//! The synthetic source: one payload, from memory, to whoever asks. One bare ring without an engine: what
//! a node is compared with, and faster than what fetches from it.

mod connection;

use std::net::SocketAddr;

use self::connection::Content;
use super::BenchError;
use super::payload::Payload;
use crate::base::limits::BENCH_CONNECTIONS_MAX;
use crate::base::time::Span;
use crate::io::sockets::listen;
use crate::io::uring::bare::{BareLimits, BareLoop};
use crate::proto::metainfo::Metainfo;

/// How a source serves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Most bytes a second on each connection.
    pub rate: Option<u64>,
    /// Block bytes after which a connection gets no more.
    pub stall_after: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Source {
    ring: BareLoop<Content>,
    addrs: Vec<SocketAddr>,
}

impl Source {
    /// Starts to listen on every address. Belongs to this thread.
    pub fn bind(
        addrs: &[SocketAddr],
        metainfo: &Metainfo,
        payload: Payload,
        manner: Manner,
    ) -> Result<Self, BenchError> {
        let failed = |error: &dyn std::error::Error| BenchError::Failed(error.to_string());
        let mut listeners = Vec::new();
        for addr in addrs {
            listeners.extend(listen(*addr, 1).map_err(|error| failed(&error))?);
        }
        let addrs = listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>();
        let limits = BareLimits { connections_max: BENCH_CONNECTIONS_MAX, rate: manner.rate };
        let content = Content::new(metainfo, manner.stall_after.unwrap_or(u64::MAX));
        let ring = BareLoop::new(listeners, payload.into_bytes(), content, limits);
        Ok(Self {
            ring: ring.map_err(|error| failed(&error))?,
            addrs: addrs.map_err(|error| BenchError::io("the listener", error))?,
        })
    }

    /// Where fetchers find it.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Waits for something to do, at most `longest`, and does it.
    pub fn turn(&mut self, longest: Option<Span>) {
        self.ring.turn(longest);
    }
}
