//! A tracker of our own: `troc tracker`, and `troc relay --tracker`. HTTP and UDP on one port.
//!
//! Who is told of whom decides `engine::tracker`; here are the sockets. A client is known by the address that
//! it comes from: by TCP's handshake, or by a connection id of BEP 15, which costs no memory (threat N16).

mod connection_id;
mod guests;
mod http;
mod standalone;
mod udp;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use super::clock;
use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::base::rng::Rng;
use crate::daemon::random::random;
use crate::engine::tracker::{Figures, Rules, Tracker};
use crate::proto::tracker::AnnounceEvent;
use crate::proto::tracker::serve::{Answer, Asked, Families, Refusal};

use connection_id::ConnectionIds;
use guests::Guests;
pub use standalone::{TrackerConfig, TrackerError, run};

/// Between two looks for peers that fell silent.
const SWEEP: Duration = Duration::from_secs(60);

/// How often a port is tried for both protocols when the kernel chooses it.
const PORT_TRIES: u32 = 16;

/// There is no tracker, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve a tracker on {address}: {error}; give another address (`ip addr` lists those of this host) \
     or port (`ss -lntup` names who listens there)"
)]
pub struct TrackerServerError {
    address: SocketAddr,
    error: std::io::Error,
}

/// Who hears of each peer that announces itself.
type OnPeer = Box<dyn Fn(InfoHash, SocketAddr)>;

/// What the sockets have in common.
struct Desk {
    tracker: RefCell<Tracker>,
    ids: ConnectionIds,
    on_peer: OnPeer,
    /// The port at which we are a peer ourselves of all torrents that there are.
    our_port: Option<u16>,
}

/// An open port. Nothing is answered before `start`.
pub struct TrackerServer {
    /// Where, the kernel's choice of port included.
    pub address: SocketAddr,
    sockets: Option<(TcpListener, UdpSocket)>,
    /// Of connection ids.
    secret: [u8; 32],
    desk: Option<Rc<Desk>>,
}

impl std::fmt::Debug for TrackerServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrackerServer({})", self.address)
    }
}

impl TrackerServer {
    /// Opens the port for TCP and UDP; 0 takes one that is free for both.
    pub fn open(address: SocketAddr) -> Result<Self, TrackerServerError> {
        let failed = |error| TrackerServerError { address, error };
        let secret = random().map_err(failed)?;
        let mut tries = 1;
        loop {
            match Self::bind(address) {
                Ok((address, sockets)) => {
                    return Ok(Self { address, sockets: Some(sockets), secret, desk: None });
                }
                Err(_) if address.port() == 0 && tries < PORT_TRIES => tries += 1,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, (TcpListener, UdpSocket))> {
        let listener = TcpListener::bind(address)?;
        let chosen = listener.local_addr()?;
        let socket = UdpSocket::bind(chosen)?;
        listener.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        Ok((chosen, (listener, socket)))
    }

    /// Serves from now on, on the calling thread's runtime, by `rules`. `on_peer`
    /// hears of each peer; `our_port` is where this process accepts peers of all torrents of the rules.
    pub fn start(
        &mut self,
        rules: Rules,
        our_port: Option<u16>,
        on_peer: impl Fn(InfoHash, SocketAddr) + 'static,
    ) {
        let Some((listener, socket)) = self.sockets.take() else { return };
        // Nobody gains from guessing whom it names.
        let rng = Rng::new(clock::now().0);
        let guests = Rc::new(Guests::new(rules.grouping.clone()));
        let tracker = RefCell::new(Tracker::new(rules, rng));
        let (ids, on_peer) = (ConnectionIds::new(&self.secret), Box::new(on_peer));
        let desk = Rc::new(Desk { tracker, ids, on_peer, our_port });
        tokio_uring::spawn(http::serve(listener, Rc::clone(&desk), guests));
        tokio_uring::spawn(udp::serve(socket, self.address.ip(), Rc::clone(&desk)));
        let swept = Rc::clone(&desk);
        tokio_uring::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                swept.tracker.borrow_mut().handle_tick(clock::now());
            }
        });
        self.desk = Some(desk);
    }

    /// Serves a torrent, too, where only some are.
    pub fn allow(&self, hash: InfoHash) {
        if let Some(desk) = &self.desk {
            desk.tracker.borrow_mut().allow(hash);
        }
    }

    /// What it has done and has.
    pub fn figures(&self) -> Figures {
        self.desk.as_ref().map_or_else(Figures::default, |desk| desk.tracker.borrow().figures())
    }
}

impl Desk {
    /// A peer announces itself; `claimed` is what it says of its address, and `ours` where it reached us.
    fn announce(
        &self,
        mut asked: Asked,
        claimed: Option<IpAddr>,
        families: Families,
        ours: Option<IpAddr>,
    ) -> Result<Answer, Refusal> {
        let source = asked.peer.ip().to_canonical();
        let ip = claimed.filter(|&claimed| may_claim(source, claimed)).unwrap_or(source).to_canonical();
        asked.peer.set_ip(ip);
        let mut answer = self.tracker.borrow_mut().handle_announce(&asked, families, clock::now())?;
        if asked.event == AnnounceEvent::Stopped {
            return Ok(answer);
        }
        if asked.peer.port() != 0 {
            (self.on_peer)(asked.info_hash, asked.peer);
        }
        let ours =
            ours.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified() && families.has(ip.is_ipv6()));
        let us = ours.zip(self.our_port).map(|(ip, port)| SocketAddr::new(ip, port));
        answer.peers.extend(us.filter(|&us| us != asked.peer && asked.wanted != Some(0)));
        Ok(answer)
    }
}

/// Whether who comes from `source` may say that it is at `claimed`: somebody behind the same NAT as we, or on
/// this host. Of anybody else the address that it comes from is the only one that is sure to be its own.
fn may_claim(source: IpAddr, claimed: IpAddr) -> bool {
    let source = AddressClass::of(source);
    !source.is_stranger() && source.may_name(AddressClass::of(claimed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n15_only_neighbours_may_say_that_they_are_elsewhere() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (source, claimed, may) in [
            ("127.0.0.1", "8.8.8.8", true),
            ("10.0.0.1", "8.8.8.8", true),
            ("10.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "224.0.0.1", false),
            ("9.9.9.9", "8.8.8.8", false),
            ("9.9.9.9", "10.0.0.1", false),
            ("::ffff:10.0.0.1", "8.8.8.8", true),
            ("::ffff:9.9.9.9", "8.8.8.8", false),
        ] {
            assert_eq!(may_claim(ip(source), ip(claimed)), may, "{source} says {claimed}");
        }
    }

    #[test]
    fn the_kernels_choice_of_port_is_one_for_both_protocols() {
        let server = TrackerServer::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (listener, socket) = server.sockets.as_ref().unwrap();
        assert_eq!(listener.local_addr().unwrap(), socket.local_addr().unwrap());
        let error = TrackerServer::open(server.address).unwrap_err().to_string();
        assert!(error.contains(&server.address.to_string()) && !error.contains('\n'), "{error}");
    }
}
