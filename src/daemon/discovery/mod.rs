//! Peers without a tracker: the distributed hash table (`dht.rs`) and the local network (`lsd.rs`), on the
//! control thread.
//!
//! It serves info hashes, not torrents: what is [`Wanted`] need not have metadata yet. Decisions are in
//! `engine/dht/` and `engine/lsd.rs`; here are sockets, clocks and names. Private torrents are never wanted
//! (BEP 27), and a link that turns out to name one is forgotten: until then nobody knows.

mod dht;
mod interfaces;
mod lsd;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::clock;
use super::store::StateDir;
use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::engine::candidates::Source;
use crate::engine::dht::Mode;

pub use crate::engine::dht::schedule::Need;
pub use dht::{BoundDht, PUBLIC_BOOTSTRAP};

/// Where a node looks for peers besides its trackers.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryConfig {
    /// The distributed hash table, if it is used.
    pub dht: Option<DhtSetup>,
    /// Multicasts on the local network.
    pub lsd: LocalDiscovery,
}

/// How the distributed hash table is used.
#[derive(Clone, Debug)]
pub struct DhtSetup {
    /// Where its datagrams come in; `None`: at the address and port where peers do.
    pub listen: Option<SocketAddr>,
    /// `HOST:PORT` of where to begin; empty: the public network's.
    pub bootstrap: Vec<String>,
    /// See [`Mode`].
    pub mode: Mode,
}

/// Whether neighbours are told which torrents are here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalDiscovery {
    /// They are.
    On,
    /// Nothing is sent, and nothing is heard.
    #[default]
    Off,
}

/// Whether a torrent may be found by anybody (BEP 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// It may.
    Public,
    /// Its trackers alone name peers.
    Private,
}

/// A torrent for which peers are to be found, known by its hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Where we accept peers of it; `None`: nowhere, so that it is not announced.
    pub port: Option<u16>,
    /// See [`Privacy`].
    pub privacy: Privacy,
    /// See [`Need`].
    pub need: Need,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Peers of a torrent, by whom they were named.
    Found(InfoHash, Source, Vec<SocketAddr>),
    /// Others see us at this public address.
    External(IpAddr),
    /// One of the parts has ended, as it was told.
    Ended,
}

/// How it goes, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DhtStatus {
    /// Where datagrams come in, the kernel's choice of port included.
    pub listen: Option<SocketAddr>,
    /// Nodes that are known to answer.
    pub nodes: usize,
    /// Peers that others have announced here.
    pub stored_peers: usize,
}

/// What the parts are told.
#[derive(Clone, Debug)]
enum Command {
    Want(Wanted),
    Forget(InfoHash),
    Hint(SocketAddr),
    Bootstrap(Vec<SocketAddr>),
    Stop,
}

/// The parts that run. One per process; does nothing until it is started.
#[derive(Debug, Default)]
pub struct Discovery {
    parts: Vec<UnboundedSender<Command>>,
    ended: usize,
    wanted: HashMap<InfoHash, Wanted>,
    dht: Vec<dht::Shown>,
}

impl Discovery {
    /// Starts what `config` asks for, on sockets that are bound already, in the runtime that it is called
    /// in. `tell` hears the news. `listen` is where peers are accepted.
    pub fn start(
        bound: Vec<BoundDht>,
        config: &DiscoveryConfig,
        listen: Option<SocketAddr>,
        state: &Arc<StateDir>,
        tell: impl Fn(News) + Clone + 'static,
    ) -> io::Result<Self> {
        let mut discovery = Self::default();
        for socket in bound {
            let (commands, inbox) = unbounded_channel();
            let tell = tell.clone();
            let part = dht::Part::new(socket, Arc::clone(state), inbox, tell)?;
            discovery.dht.push(part.shown());
            discovery.parts.push(commands);
            tokio_uring::spawn(part.run());
        }
        if let Some(setup) = config.dht.as_ref().filter(|_| !discovery.parts.is_empty()) {
            tokio_uring::spawn(dht::resolve(setup.bootstrap.clone(), discovery.parts.clone()));
        }
        if config.lsd == LocalDiscovery::On {
            let (commands, inbox) = unbounded_channel();
            discovery.parts.push(commands);
            tokio_uring::spawn(lsd::run(listen, inbox, tell));
        }
        Ok(discovery)
    }

    /// Whether nothing runs that could be told anything.
    pub const fn is_idle(&self) -> bool {
        self.parts.is_empty()
    }

    /// Peers of a torrent are wanted, or it is to be found by others. Said again when something has changed;
    /// costs nothing if nothing has.
    pub fn want(&mut self, wanted: Wanted) {
        if wanted.privacy == Privacy::Private {
            // It may have been a link of which nobody knew.
            self.forget(wanted.info_hash);
            return;
        }
        if self.is_idle() || self.wanted.get(&wanted.info_hash) == Some(&wanted) {
            return;
        }
        self.wanted.insert(wanted.info_hash, wanted);
        self.tell(&Command::Want(wanted));
    }

    /// A torrent is gone.
    pub fn forget(&mut self, info_hash: InfoHash) {
        if self.wanted.remove(&info_hash).is_some() {
            self.tell(&Command::Forget(info_hash));
        }
    }

    /// A peer at this address says that it has a node of the table (BEP 5 `port`).
    pub fn hint(&self, address: SocketAddr) {
        if AddressClass::of(address.ip()).may_operator_name() {
            self.tell(&Command::Hint(address));
        }
    }

    /// Has the parts end; the nodes of the table are kept.
    pub fn stop(&self) {
        self.tell(&Command::Stop);
    }

    /// A part has ended ([`News::Ended`]).
    pub const fn handle_ended(&mut self) {
        self.ended += 1;
    }

    /// Whether all parts have.
    pub const fn is_over(&self) -> bool {
        self.ended >= self.parts.len()
    }

    /// How the distributed hash table goes, one for each address family that it is used in.
    pub fn status(&self) -> Vec<DhtStatus> {
        self.dht.iter().map(|shown| shown.get()).collect()
    }

    fn tell(&self, command: &Command) {
        for part in &self.parts {
            // A part that has ended needs nothing.
            let _ = part.send(command.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(privacy: Privacy, need: Need) -> Wanted {
        Wanted { info_hash: InfoHash([1; 20]), port: Some(5), privacy, need }
    }

    #[test]
    fn d4_private_torrents_are_never_wanted_and_nothing_is_said_twice() {
        let (commands, mut inbox) = unbounded_channel();
        let mut discovery = Discovery { parts: vec![commands], ..Discovery::default() };
        for need in [Need::Peers, Need::Presence] {
            discovery.want(wanted(Privacy::Private, need));
        }
        discovery.forget(InfoHash([1; 20]));
        assert!(inbox.try_recv().is_err());
        discovery.want(wanted(Privacy::Public, Need::Peers));
        discovery.want(wanted(Privacy::Public, Need::Peers));
        discovery.want(wanted(Privacy::Public, Need::Presence));
        let told: Vec<Need> = std::iter::from_fn(|| inbox.try_recv().ok())
            .map(|command| match command {
                Command::Want(wanted) => wanted.need,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [Need::Peers, Need::Presence]);
        // A link that turns out to name a private torrent.
        discovery.want(wanted(Privacy::Private, Need::Peers));
        assert!(matches!(inbox.try_recv(), Ok(Command::Forget(InfoHash([1, ..])))));
        discovery.want(wanted(Privacy::Private, Need::Presence));
        assert!(inbox.try_recv().is_err());
    }

    #[test]
    fn d7_nodes_that_no_host_can_be_are_not_hinted_at() {
        let (commands, mut inbox) = unbounded_channel();
        let discovery = Discovery { parts: vec![commands], ..Discovery::default() };
        for text in ["169.254.169.254:1", "224.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1"] {
            discovery.hint(text.parse().unwrap());
            assert!(inbox.try_recv().is_err(), "{text}");
        }
        discovery.hint("8.8.8.8:1".parse().unwrap());
        assert!(inbox.try_recv().is_ok());
    }
}
