//! Local service discovery on sockets: one of each family, joined to its group on every interface.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedReceiver;

use super::interfaces::{Interface, interfaces};
use super::{Command, News, clock};
use crate::base::limits::LSD_DATAGRAM_BYTES_MAX;
use crate::base::time::{Instant, Span};
use crate::daemon::random::random;
use crate::engine::candidates::Source;
use crate::engine::dht::family_of;
use crate::engine::lsd::Lsd;
use crate::proto::lsd::{Announce, GROUP_V4, GROUP_V6, PORT, group};
use crate::proto::tracker::compact::Family;

/// Between two looks for interfaces that came.
const LOOK_INTERVAL: Span = Span::from_secs(30);

/// While a socket has nothing but errors.
const PAUSE: Span = Span::from_ms(100);

/// The socket of one family, and the interfaces on which it is a member of the group.
struct Group {
    family: Family,
    socket: UdpSocket,
    joined: BTreeSet<u32>,
}

impl Group {
    fn open(family: Family) -> io::Result<Self> {
        let (domain, any) = match family {
            Family::V4 => (Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))),
            Family::V6 => (Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // Other clients on this host are members, too.
        socket.set_reuse_address(true)?;
        match family {
            Family::V4 => socket.set_multicast_ttl_v4(1)?,
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.set_multicast_hops_v6(1)?;
            }
        }
        socket.bind(&any.into())?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { family, socket, joined: BTreeSet::new() })
    }

    fn speaks_on(&self, interface: &Interface) -> bool {
        match self.family {
            Family::V4 => interface.v4.is_some(),
            Family::V6 => interface.v6,
        }
    }

    /// Joins the group where it has not yet.
    fn join(&mut self, interfaces: &[Interface]) {
        self.joined.retain(|index| interfaces.iter().any(|interface| interface.index == *index));
        for interface in interfaces {
            let index = interface.index;
            if !self.speaks_on(interface) || self.joined.contains(&index) {
                continue;
            }
            let socket = SockRef::from(&self.socket);
            let joined = match self.family {
                Family::V4 => socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index)),
                Family::V6 => socket.join_multicast_v6(&GROUP_V6, index),
            };
            if joined.is_ok() || joined.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                self.joined.insert(index);
            }
        }
    }

    /// To one neighbour, if it is of this family.
    async fn answer(&self, neighbour: SocketAddr, announce: &Announce) {
        if family_of(neighbour) == self.family {
            // It hears the next one, if it does not hear this one.
            let _ = self.socket.send_to(&announce.encode(self.family), neighbour).await;
        }
    }

    async fn send(&self, announce: &Announce, interfaces: &[Interface]) {
        let bytes = announce.encode(self.family);
        for interface in interfaces.iter().filter(|interface| self.joined.contains(&interface.index)) {
            let socket = SockRef::from(&self.socket);
            let chosen = match (self.family, interface.v4) {
                (Family::V4, Some(v4)) => socket.set_multicast_if_v4(&v4),
                (Family::V4, None) => continue,
                (Family::V6, _) => socket.set_multicast_if_v6(interface.index),
            };
            if chosen.is_ok() {
                // Neighbours that do not hear it hear the next one.
                let _ = self.socket.send_to(&bytes, group(self.family)).await;
            }
        }
    }
}

/// Runs until it is told to stop. Without any socket it only waits for that.
pub(super) async fn run(
    listen: Option<SocketAddr>,
    mut inbox: UnboundedReceiver<Command>,
    tell: impl Fn(News),
) {
    let open = |family| {
        Group::open(family).inspect_err(|error| {
            tracing::warn!("no local discovery in {family:?}: port {PORT}: {error}");
        })
    };
    let (mut v4, mut v6) = (open(Family::V4).ok(), open(Family::V6).ok());
    let cookie = random().map_or(0, u64::from_le_bytes);
    let port = listen.map_or(0, |address| address.port());
    let mut lsd = Lsd::new(port, cookie, clock::now());
    let mut found = Vec::new();
    let mut look_at = clock::now();
    let mut buffers = [[0; LSD_DATAGRAM_BYTES_MAX + 1]; 2];
    loop {
        let now = clock::now();
        if now >= look_at {
            look_at = now + LOOK_INTERVAL;
            found = interfaces(listen);
            for group in [&mut v4, &mut v6].into_iter().flatten() {
                group.join(&found);
            }
        }
        while let Some(announce) = lsd.poll_send(now) {
            for group in [&v4, &v6].into_iter().flatten() {
                group.send(&announce, &found).await;
            }
        }
        let due = lsd.poll_timeout().into_iter().fold(look_at, Instant::min);
        let [buffer4, buffer6] = &mut buffers;
        let (len, from, buffer) = tokio::select! {
            (len, from) = receive(v4.as_ref(), buffer4) => (len, from, &buffer4[..]),
            (len, from) = receive(v6.as_ref(), buffer6) => (len, from, &buffer6[..]),
            command = inbox.recv() => {
                match command {
                    Some(Command::Want(wanted)) if wanted.port.is_some() => {
                        lsd.want(wanted.info_hash, clock::now());
                    }
                    // Nobody could come yet.
                    Some(Command::Want(_)) => {}
                    Some(Command::Forget(info_hash)) => lsd.forget(info_hash),
                    Some(Command::Hint(_) | Command::Bootstrap(_)) => {}
                    Some(Command::Stop) | None => break,
                }
                continue;
            }
            () = tokio::time::sleep_until(clock::tokio_at(due)) => continue,
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        if let Some((peer, hashes)) = lsd.handle_datagram(from, bytes, clock::now()) {
            hashes.into_iter().for_each(|hash| tell(News::Found(hash, Source::Lsd, vec![peer])));
        }
        if let Some((neighbour, announce)) = lsd.poll_answer(clock::now()) {
            for group in [&v4, &v6].into_iter().flatten() {
                group.answer(neighbour, &announce).await;
            }
        }
    }
    tell(News::Ended);
}

/// The next datagram; never, without a socket.
async fn receive(group: Option<&Group>, buffer: &mut [u8]) -> (usize, SocketAddr) {
    let Some(group) = group else { return std::future::pending().await };
    loop {
        match group.socket.recv_from(buffer).await {
            Ok(received) => return received,
            Err(_) => tokio::time::sleep(clock::duration(PAUSE)).await,
        }
    }
}
