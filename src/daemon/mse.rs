//! Encrypted handshakes, and the connections that stay encrypted: a thread of its own between the network and
//! the cores.
//!
//! Once both sides have agreed on a plain stream the connection itself goes to a core, as fast as any other.
//! One that stays under RC4 is carried: the core gets one end of a pair of Unix sockets, this thread the
//! other, and the network's. So no core encrypts, no payload is sent without a copy, and the engine knows
//! nothing of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;

use super::clock;
use super::deliver::deliver;
use crate::base::address::{AddressClass, canonical};
use crate::base::ids::{InfoHash, TorrentId};
use crate::base::limits::{
    MSE_CONNECTIONS_MAX, MSE_DIALS_MAX, MSE_HANDSHAKES_MAX, MSE_HANDSHAKES_OF_ONE_MAX, MSE_PAD_BYTES_MAX,
    MSE_TIMEOUT,
};
use crate::engine::action::{Farewell, Report};
use crate::engine::encryption::Encryption;
use crate::engine::versions::Name;
use crate::io::uring::{Uring, UringSocket};
use crate::proto::mse::{Cipher, Entropy, Established, Handshaker, Method, Methods, torrent_tag};
use crate::worker::Decrypter;
use crate::worker::mesh::{Caller, Mailbox, Opened, ToControl, ToWorker};

/// What is read at once of a connection under RC4.
const CARRIED_BYTES: usize = 64 << 10;

enum Order {
    Accept(Caller<UringSocket>),
    Dial { dialled: (TorrentId, Name), info_hash: InfoHash, address: SocketAddr, core: usize },
    Know(InfoHash),
}

/// Where orders are given. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mse(UnboundedSender<Order>);

/// Where they are taken.
pub struct Inbox(UnboundedReceiver<Order>);

impl Mse {
    /// Both ends; nothing is done before [`start`].
    pub fn new() -> (Self, Inbox) {
        let (orders, inbox) = unbounded_channel();
        (Self(orders), Inbox(inbox))
    }

    /// For workers.
    pub fn decrypter(&self) -> Decrypter<Uring> {
        let orders = self.0.clone();
        Arc::new(move |encrypted| drop(orders.send(Order::Accept(encrypted))))
    }

    /// Connects to a peer of a torrent by one of its names, which is `info_hash`; if that fails the control
    /// thread hears that it is gone.
    pub fn dial(&self, dialled: (TorrentId, Name), info_hash: InfoHash, address: SocketAddr, core: usize) {
        let _ = self.0.send(Order::Dial { dialled, info_hash, address, core });
    }

    /// A torrent has this name, too: it was found by a link that has another.
    pub fn know(&self, name: InfoHash) {
        let _ = self.0.send(Order::Know(name));
    }
}

/// Starts the thread, for torrents of these names. It ends when the process does, or nobody gives orders any
/// more.
pub fn start(
    Inbox(orders): Inbox,
    encryption: Encryption,
    control: Arc<Mailbox<ToControl>>,
    cores: Vec<Arc<Mailbox<ToWorker<Uring>>>>,
    names: Vec<InfoHash>,
) -> io::Result<()> {
    let methods = methods(encryption);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        match runtime {
            Ok(runtime) => {
                LocalSet::new().block_on(&runtime, attend(orders, Desk::new(methods, control, cores, &names)))
            }
            Err(error) => tracing::error!("no encrypted connections: {error}"),
        }
    };
    std::thread::Builder::new().name("troc-mse".to_owned()).spawn(body).map(drop)
}

/// What all connections use.
struct Desk {
    methods: Methods,
    control: Arc<Mailbox<ToControl>>,
    cores: Vec<Arc<Mailbox<ToWorker<Uring>>>>,
    /// Torrents by what a handshake says of them.
    torrents: RefCell<HashMap<[u8; 20], InfoHash>>,
    handshakes: Arc<Semaphore>,
    dials: Arc<Semaphore>,
    /// Whose handshakes are under way; an address stands here once for each.
    coming: RefCell<Vec<IpAddr>>,
    carried: Arc<Semaphore>,
    next_core: Cell<usize>,
}

async fn attend(mut orders: UnboundedReceiver<Order>, desk: Desk) {
    let desk = Rc::new(desk);
    while let Some(order) = orders.recv().await {
        match order {
            Order::Accept(encrypted) => {
                // Who comes beyond the limit is hung up on.
                if let Some(place) = desk.enter(encrypted.address.ip()) {
                    tokio::task::spawn_local(accept(Rc::clone(&desk), encrypted, place));
                }
            }
            Order::Know(name) => drop(desk.torrents.borrow_mut().insert(torrent_tag(&name), name)),
            Order::Dial { dialled, info_hash, address, core } => {
                let desk = Rc::clone(&desk);
                tokio::task::spawn_local(async move {
                    if let Err(why) = desk.dial(dialled, info_hash, address, core).await {
                        let torrent = dialled.0;
                        let report = Report::Disconnected { torrent, conn: None, address, why };
                        deliver(&desk.control, ToControl::Report(report)).await;
                    }
                });
            }
        }
    }
}

/// A handshake of somebody who came to us takes a place until this is dropped.
struct Coming {
    desk: Rc<Desk>,
    host: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut coming = self.desk.coming.borrow_mut();
        if let Some(at) = coming.iter().position(|&host| host == self.host) {
            coming.swap_remove(at);
        }
    }
}

/// A connection that a core gives away.
pub(super) fn adopt(socket: UringSocket) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(OwnedFd::from(socket));
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

async fn accept(desk: Rc<Desk>, encrypted: Caller<UringSocket>, place: Coming) {
    let Caller { socket, address, heard } = encrypted;
    let Ok(mut stream) = adopt(socket) else { return };
    let Ok(entropy) = entropy() else { return };
    let find = |tag: &[u8; 20]| desk.torrents.borrow().get(tag).copied();
    let handshake = shake(&mut stream, Handshaker::accept(desk.methods, entropy), heard, find);
    let Some(established) = in_time(handshake).await.flatten() else { return };
    drop(place);
    let core = desk.next_core.replace(desk.next_core.get() + 1) % desk.cores.len();
    // Who cannot be passed on is hung up on.
    let _ = desk.pass_on(stream, established, address, Opened::ByPeer, core).await;
}

impl Desk {
    fn new(
        methods: Methods,
        control: Arc<Mailbox<ToControl>>,
        cores: Vec<Arc<Mailbox<ToWorker<Uring>>>>,
        names: &[InfoHash],
    ) -> Self {
        Self {
            methods,
            control,
            cores,
            torrents: RefCell::new(names.iter().map(|name| (torrent_tag(name), *name)).collect()),
            handshakes: Arc::new(Semaphore::new(MSE_HANDSHAKES_MAX)),
            dials: Arc::new(Semaphore::new(MSE_DIALS_MAX)),
            coming: RefCell::default(),
            carried: Arc::new(Semaphore::new(MSE_CONNECTIONS_MAX)),
            next_core: Cell::new(0),
        }
    }

    /// A place for somebody who came to us, if there is one and no stranger takes too many.
    fn enter(self: &Rc<Self>, host: IpAddr) -> Option<Coming> {
        let host = canonical(host);
        let mut coming = self.coming.borrow_mut();
        let many = coming.iter().filter(|&&other| other == host).count() >= MSE_HANDSHAKES_OF_ONE_MAX;
        if many && AddressClass::of(host).is_stranger() {
            return None;
        }
        let place = Arc::clone(&self.handshakes).try_acquire_owned().ok()?;
        coming.push(host);
        Some(Coming { desk: Rc::clone(self), host, _place: place })
    }

    async fn dial(
        self: &Rc<Self>,
        (torrent, name): (TorrentId, Name),
        info_hash: InfoHash,
        address: SocketAddr,
        core: usize,
    ) -> Result<(), Farewell> {
        let place = Arc::clone(&self.dials).acquire_owned().await.map_err(|_| Farewell::Useless)?;
        let connected = in_time(TcpStream::connect(address)).await;
        let mut stream = connected.and_then(Result::ok).ok_or(Farewell::DialFailed)?;
        let entropy = entropy().map_err(|_| Farewell::DialFailed)?;
        // BitTorrent's handshake is the core's to say, once this one is over.
        let handshaker = Handshaker::begin(info_hash, self.methods, Vec::new(), entropy);
        let established = in_time(shake(&mut stream, handshaker, Vec::new(), |_| None)).await;
        let established = established.ok_or(Farewell::TimedOut)?.ok_or(Farewell::Gone)?;
        drop(place);
        let passed = self.pass_on(stream, established, address, Opened::ByUs(torrent, name), core).await;
        passed.map_err(|_| Farewell::DialFailed)
    }

    /// Gives a connection to a core: itself if it is plain from here on, else by a pair of sockets.
    async fn pass_on(
        self: &Rc<Self>,
        stream: TcpStream,
        established: Established,
        address: SocketAddr,
        opened: Opened,
        core: usize,
    ) -> io::Result<()> {
        let Established { method, heard, sealing, opening, .. } = established;
        if method == Method::Plain {
            let stream = stream.into_std()?;
            // A ring waits for a socket only if that blocks.
            stream.set_nonblocking(false)?;
            self.give(OwnedFd::from(stream), address, opened, heard, core).await;
            return Ok(());
        }
        let place = Arc::clone(&self.carried).try_acquire_owned().map_err(io::Error::other)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        self.give(OwnedFd::from(theirs), address, opened, heard, core).await;
        tokio::task::spawn_local(async move {
            let _place = place;
            carry(stream, ours, sealing, opening).await;
        });
        Ok(())
    }

    async fn give(&self, fd: OwnedFd, address: SocketAddr, opened: Opened, heard: Vec<u8>, core: usize) {
        let socket = UringSocket::new(fd);
        deliver(&self.cores[core], ToWorker::Decrypted { socket, address, opened, heard }).await;
    }
}

/// Has a handshake, with a peer that has said `heard`; `find` knows torrents by their tags. `None` if the
/// other side fails it or leaves.
pub(super) async fn shake(
    stream: &mut TcpStream,
    mut handshaker: Handshaker,
    mut heard: Vec<u8>,
    find: impl Fn(&[u8; 20]) -> Option<InfoHash>,
) -> Option<Established> {
    let mut buffer = vec![0; 2 << 10];
    loop {
        let outcome = handshaker.handle_bytes(&heard, &find);
        if let Some(output) = handshaker.poll_output() {
            stream.write_all(&output).await.ok()?;
        }
        match outcome {
            Ok(Some(established)) => return Some(established),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("encrypted handshake: the peer {error}");
                return None;
            }
        }
        let bytes = stream.read(&mut buffer).await.ok().filter(|&bytes| bytes > 0)?;
        heard.clear();
        heard.extend_from_slice(&buffer[..bytes]);
    }
}

/// Carries a connection until either side ends.
async fn carry(network: TcpStream, core: UnixStream, sealing: Cipher, opening: Cipher) {
    let (from_network, to_network) = network.into_split();
    let (from_core, to_core) = core.into_split();
    tokio::select! {
        _ = pump(from_network, to_core, opening) => {}
        _ = pump(from_core, to_network, sealing) => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut cipher: Cipher,
) -> io::Result<()> {
    let mut buffer = vec![0; CARRIED_BYTES];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        cipher.apply(&mut buffer[..bytes]);
        to.write_all(&buffer[..bytes]).await?;
    }
}

/// What comes of `work` before `MSE_TIMEOUT`.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(clock::duration(MSE_TIMEOUT), work).await.ok()
}

/// What is offered and taken.
pub(super) const fn methods(encryption: Encryption) -> Methods {
    match encryption {
        Encryption::Require => Methods::OnlyRc4,
        _ => Methods::Both,
    }
}

/// Randomness for one handshake.
pub(super) fn entropy() -> Result<Entropy, getrandom::Error> {
    let (mut private, mut pad) = ([0; 20], vec![0; 2 + MSE_PAD_BYTES_MAX]);
    getrandom::fill(&mut private)?;
    getrandom::fill(&mut pad)?;
    let length = usize::from(u16::from_be_bytes([pad[0], pad[1]])) % (MSE_PAD_BYTES_MAX + 1);
    pad.drain(..2);
    pad.truncate(length);
    Ok(Entropy { private, pad })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p33_one_stranger_takes_so_many_places_and_neighbours_any() {
        let desk = Rc::new(Desk::new(Methods::Both, Arc::new(Mailbox::new()), Vec::new(), &[]));
        let stranger: IpAddr = "8.8.8.8".parse().unwrap();
        let taken: Vec<_> = (0..MSE_HANDSHAKES_OF_ONE_MAX).map(|_| desk.enter(stranger).unwrap()).collect();
        assert!(desk.enter(stranger).is_none());
        let neighbours: Vec<_> = (taken.len()..MSE_HANDSHAKES_MAX)
            .map(|_| desk.enter(IpAddr::from([127, 0, 0, 1])).unwrap())
            .collect();
        assert!(desk.enter(IpAddr::from([9, 9, 9, 9])).is_none(), "all places are taken");
        drop(neighbours);
        drop(taken);
        assert!(desk.enter(stranger).is_some() && desk.coming.borrow().is_empty());
    }
}
