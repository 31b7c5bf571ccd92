//! A node of the distributed hash table on a socket: datagrams in and out, time, and the file of nodes.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::{Command, DhtSetup, DhtStatus, News, clock};
use crate::base::address::AddressClass;
use crate::base::limits::{DHT_DATAGRAM_BYTES_MAX, DHT_READ_PER_SEC};
use crate::base::time::{Instant, Span};
use crate::daemon::random::random;
use crate::daemon::store::StateDir;
use crate::daemon::tracker::{Lookup, SystemResolver};
use crate::engine::candidates::Source;
use crate::engine::dht::guard::Bucket;
use crate::engine::dht::schedule::Schedule;
use crate::engine::dht::{Dht, DhtConfig, DhtEvent, Mode, family_of};
use crate::hash::sha1::Sha1;
use crate::proto::krpc::{NodeId, fitting_id};
use crate::proto::tracker::compact::Family;

/// Nodes that the public network is entered by: those that BitTorrent, libtorrent, Transmission and uTorrent
/// run for everybody.
pub const PUBLIC_BOOTSTRAP: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.libtorrent.org:25401",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
];

/// Between two writes of the nodes.
const SAVE_INTERVAL: Span = Span::from_secs(300);

/// Until bootstrap nodes are looked up again that had no address.
const RESOLVE_AGAIN: Span = Span::from_secs(30);

/// While more datagrams come than are read.
const PAUSE: Span = Span::from_ms(20);

/// A socket of a node that does not run yet.
#[derive(Debug)]
pub struct BoundDht {
    socket: std::net::UdpSocket,
    /// Where datagrams come in.
    pub address: SocketAddr,
    network: String,
    mode: Mode,
}

impl BoundDht {
    /// The sockets for `setup` of a node that accepts peers at `listen`: one, or one of each family where
    /// peers of both are accepted. Fails if the first one is not to be had.
    pub fn bind_all(setup: &DhtSetup, listen: Option<SocketAddr>) -> io::Result<Vec<Self>> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let wanted = setup.listen.or(listen).unwrap_or(any);
        let mut bound = Vec::new();
        for address in addresses(wanted) {
            match bind(address, setup.listen.is_some()) {
                Ok(socket) => bound.push(Self::new(socket, setup)?),
                // A host without the other family does with one.
                Err(error) if bound.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(bound)
    }

    fn new(socket: std::net::UdpSocket, setup: &DhtSetup) -> io::Result<Self> {
        let network = match setup.bootstrap.is_empty() {
            true => "public".to_owned(),
            false => setup.bootstrap.join(","),
        };
        Ok(Self { address: socket.local_addr()?, socket, network, mode: setup.mode })
    }
}

/// IPv4 first: most nodes have that.
fn addresses(wanted: SocketAddr) -> Vec<SocketAddr> {
    if wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port())), wanted];
    }
    vec![SocketAddr::new(wanted.ip().to_canonical(), wanted.port())]
}

/// At any free port, if that of the listener is taken and nobody named it.
fn bind(address: SocketAddr, named: bool) -> io::Result<std::net::UdpSocket> {
    let open = |address: SocketAddr| -> io::Result<std::net::UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(std::net::UdpSocket::from(socket))
    };
    match open(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !named => {
            open(SocketAddr::new(address.ip(), 0))
        }
        outcome => outcome,
    }
}

/// What the status shows of a running node.
#[derive(Clone, Debug)]
pub(super) struct Shown(Rc<Cell<DhtStatus>>);

impl Shown {
    pub(super) fn get(&self) -> DhtStatus {
        self.0.get()
    }
}

/// A node that runs.
pub(super) struct Part<F> {
    socket: UdpSocket,
    address: SocketAddr,
    family: Family,
    network: String,
    dht: Dht,
    schedule: Schedule,
    state: Arc<StateDir>,
    inbox: UnboundedReceiver<Command>,
    tell: F,
    shown: Shown,
    reading: Bucket,
    /// More came than is read: nothing is, until then.
    paused_until: Option<Instant>,
    save_at: Instant,
}

impl<F: Fn(News)> Part<F> {
    pub(super) fn new(
        bound: BoundDht,
        state: Arc<StateDir>,
        inbox: UnboundedReceiver<Command>,
        tell: F,
    ) -> io::Result<Self> {
        let BoundDht { socket, address, network, mode } = bound;
        let (now, secret, family) = (clock::now(), random()?, family_of(address));
        let id = (mode == Mode::Serving).then(|| node_id(state.dht_seed(address.port()), address.ip()));
        let nodes = state.read_nodes(family, &network);
        let config = DhtConfig { family, mode, secret, id, bootstrap: Vec::new(), nodes };
        let seed = u64::from_le_bytes(random()?);
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            address,
            family,
            network,
            dht: Dht::new(config, now),
            schedule: Schedule::new(seed),
            state,
            inbox,
            tell,
            shown: Shown(Rc::new(Cell::new(DhtStatus::default()))),
            reading: Bucket::new(now),
            paused_until: None,
            save_at: now + SAVE_INTERVAL,
        })
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Runs until it is told to stop, or whoever told it things is gone.
    pub(super) async fn run(mut self) {
        let mut buffer = [0; DHT_DATAGRAM_BYTES_MAX + 1];
        loop {
            let now = clock::now();
            self.look_after(now);
            self.send().await;
            let due = self.dht.poll_timeout().min(self.save_at);
            let due =
                self.schedule.poll_timeout().into_iter().chain(self.paused_until).fold(due, Instant::min);
            tokio::select! {
                received = self.socket.recv_from(&mut buffer), if self.paused_until.is_none() => {
                    self.received(received, &buffer);
                }
                command = self.inbox.recv() => {
                    if !self.obey(command) {
                        break;
                    }
                }
                () = tokio::time::sleep_until(clock::tokio_at(due)) => {}
            }
        }
        self.save();
        (self.tell)(News::Ended);
    }

    fn look_after(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|&at| at > now);
        self.dht.handle_tick(now);
        self.take_events(now);
        let nodes = self.dht.node_count();
        if nodes > 0 && self.shown.get().nodes == 0 {
            self.schedule.handle_reachable(now);
        }
        while let Some(aim) = self.schedule.poll(now) {
            self.dht.look_up(aim, now);
        }
        // A walk without any node is over at once.
        self.take_events(now);
        if now >= self.save_at {
            self.save_at = now + SAVE_INTERVAL;
            self.save();
        }
        let stored_peers = self.dht.stored();
        self.shown.0.set(DhtStatus { listen: Some(self.address), nodes, stored_peers });
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.dht.poll_event() {
            match event {
                DhtEvent::Peers(info_hash, peers) => {
                    if self.schedule.wants(info_hash) {
                        (self.tell)(News::Found(info_hash, Source::Dht, peers));
                    }
                }
                DhtEvent::Done { info_hash, answers, announced } => {
                    self.schedule.handle_done(info_hash, answers, announced, now);
                }
                DhtEvent::External(address) => (self.tell)(News::External(address)),
            }
        }
    }

    async fn send(&mut self) {
        while let Some((to, bytes)) = self.dht.poll_send() {
            // Who is on this host alone says nothing to others.
            if self.address.ip().is_loopback() && AddressClass::of(to.ip()) != AddressClass::Loopback {
                continue;
            }
            // What cannot be sent is as good as lost on its way.
            let _ = self.socket.send_to(&bytes, to).await;
        }
    }

    fn received(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        let now = clock::now();
        if !self.reading.take(1, DHT_READ_PER_SEC, now) {
            self.paused_until = Some(now + PAUSE);
        }
        match received {
            Ok((len, from)) => {
                self.dht.handle_datagram(from, buffer.get(..len).unwrap_or_default(), now);
                self.take_events(now);
            }
            // Somebody's port is shut, or the like; but an error that stays must not keep us busy.
            Err(_) => self.paused_until = Some(now + PAUSE),
        }
    }

    fn obey(&mut self, command: Option<Command>) -> bool {
        let now = clock::now();
        match command {
            Some(Command::Want(wanted)) => {
                self.schedule.want(wanted.info_hash, wanted.port, wanted.need, now);
            }
            Some(Command::Forget(info_hash)) => self.schedule.forget(info_hash),
            Some(Command::Hint(address)) => self.dht.handle_hint(address, now),
            Some(Command::Bootstrap(addresses)) => self.dht.add_bootstrap(&addresses, now),
            Some(Command::Stop) | None => return false,
        }
        true
    }

    fn save(&self) {
        let nodes = self.dht.contacts();
        // A node that found nobody this time keeps those of the last.
        if nodes.is_empty() {
            return;
        }
        if let Err(error) = self.state.write_nodes(self.family, &self.network, &nodes) {
            tracing::warn!("cannot keep the nodes of the distributed hash table: {error}");
        }
    }
}

/// Tells the nodes where to begin: at addresses at once, at names when they are resolved, again and again
/// until one is.
pub(super) async fn resolve(named: Vec<String>, parts: Vec<UnboundedSender<Command>>) {
    let public = named.is_empty();
    let named = if public { PUBLIC_BOOTSTRAP.map(str::to_owned).to_vec() } else { named };
    let tell = |addresses: Vec<SocketAddr>| {
        let command = Command::Bootstrap(addresses);
        // False once all have ended.
        parts.iter().map(|part| part.send(command.clone()).is_ok()).fold(false, |any, sent| any | sent)
    };
    let lookup = Lookup::new(Arc::new(SystemResolver));
    let mut names = named;
    while !names.is_empty() {
        let mut rest = Vec::new();
        for name in names {
            // The command line is checked: each has a port.
            let Some((host, Ok(port))) = name.rsplit_once(':').map(|(host, port)| (host, port.parse()))
            else {
                continue;
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let mut found = lookup.addresses(host, port, clock::now()).await;
            found.retain(|address| match AddressClass::of(address.ip()) {
                AddressClass::Global => true,
                class => !public && class.may_operator_name(),
            });
            if found.is_empty() {
                rest.push(name);
            } else if !tell(found) {
                return;
            }
        }
        names = rest;
        if !names.is_empty() {
            tracing::debug!("no address yet for bootstrap nodes: {}", names.join(", ").escape_debug());
            tokio::time::sleep(clock::duration(RESOLVE_AGAIN)).await;
        }
    }
}

/// The id of a node that is bound to `own`. Where that is a public address the id fits it from the start (BEP
/// 42): in a small table there are not enough others to say so.
fn node_id(seed: u64, own: IpAddr) -> NodeId {
    let mut digest = Sha1::new();
    digest.update(&seed.to_le_bytes());
    let id = NodeId(digest.finish());
    if AddressClass::of(own) == AddressClass::Global { fitting_id(id, own) } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::krpc::fits;

    fn setup(listen: Option<&str>) -> DhtSetup {
        let listen = listen.map(|text| text.parse().unwrap());
        DhtSetup { listen, bootstrap: Vec::new(), mode: Mode::Serving }
    }

    #[test]
    fn the_id_of_a_node_that_is_bound_to_a_public_address_fits_it() {
        let [public, any] = ["9.8.7.6", "0.0.0.0"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_ne!(node_id(1, public), node_id(1, any));
        assert_ne!(node_id(1, public), node_id(2, public));
        assert!((0..32).all(|seed| fits(node_id(seed, public), public)));
        assert!((0..32).any(|seed| !fits(node_id(seed, any), public)));
    }

    #[test]
    fn datagrams_come_in_at_the_port_of_peers_if_it_is_free_and_where_it_was_named() {
        let local = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let first = BoundDht::bind_all(&setup(None), local("127.0.0.1:0")).unwrap();
        let address = first[0].address;
        assert!(first.len() == 1 && address.ip().is_loopback() && address.port() != 0);
        let second = BoundDht::bind_all(&setup(None), Some(address)).unwrap();
        assert_ne!(second[0].address.port(), address.port());
        let named = BoundDht::bind_all(&setup(Some(&address.to_string())), None);
        assert_eq!(named.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let both = addresses("[::]:7".parse().unwrap());
        assert_eq!(both, ["0.0.0.0:7".parse().unwrap(), "[::]:7".parse().unwrap()]);
        assert_eq!(addresses("[::ffff:1.2.3.4]:7".parse().unwrap()), ["1.2.3.4:7".parse().unwrap()]);
    }
}
