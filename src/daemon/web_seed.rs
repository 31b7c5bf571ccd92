//! Web seeds (BEP 19): any HTTP server as a source.
//!
//! A web seed is a peer whose other end is our own *bridge*: one thread that holds, for each connection, one
//! end of a pair of Unix sockets, speaks peer wire over it as a seed does, and answers requests with ranges
//! that it fetches by HTTP. The other end belongs to a worker like any peer's connection, so that claims,
//! depth, limits, verification, blame and bans are those of any peer. Payload passes neither through the
//! control thread nor through a core before it is in its slot.
//!
//! Decisions are `engine::web_seed`'s; here is what waits.

mod fault;
mod http;
mod link;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;

use super::clock;
use super::deliver::deliver;
use super::files::layout_of;
use super::tracker::SystemResolver;
use crate::base::ids::{TorrentId, WebSeedId};
use crate::base::limits::{
    WEB_SEED_CONNECT_TIMEOUT, WEB_SEED_CONNECTIONS_MAX, WEB_SEED_STALL_TIMEOUT, WEB_SEEDS_MAX,
};
use crate::engine::web_seed::source::{End, Opening, Source};
use crate::io::uring::{Uring, UringSocket};
use crate::proto::metainfo::Metainfo;
use crate::proto::web_url::WebUrl;
use crate::shared::torrent::SharedTorrent;
use crate::storage::layout::{FileIndex, Layout};
use crate::worker::mesh::{Mailbox, ToControl, ToWorker};

use fault::Fault;
use http::Client;
use link::Ended;

/// What the kernel holds of what is on its way from the bridge to a core; it grants as much as it allows.
const BRIDGE_BYTES: usize = 1 << 20;

/// Whose word it is that a URL is a web seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The operator's, on the command line.
    Operator,
    /// A .torrent's.
    Torrent,
}

/// A torrent that is to be fetched from its web seeds.
#[derive(Debug)]
pub struct Sources {
    /// Its paths.
    pub metainfo: Arc<Metainfo>,
    /// Its pieces.
    pub shared: Arc<SharedTorrent>,
    /// The operator's web seeds, which go before those of the torrent.
    pub given: Vec<String>,
}

enum Order {
    Open(Sources),
    /// It lacks pieces again.
    Wake(TorrentId),
    /// A web seed of it gave bad data.
    Ban(TorrentId, WebSeedId),
}

type Cores = Vec<Arc<Mailbox<ToWorker<Uring>>>>;

/// The bridge, from the control thread's side; its thread starts with the first torrent that has web seeds.
#[derive(Debug)]
pub struct Bridge {
    control: Arc<Mailbox<ToControl>>,
    cores: Cores,
    thread: Option<(UnboundedSender<Order>, JoinHandle<()>)>,
    /// Torrents whose web seeds the thread knows.
    opened: HashSet<TorrentId>,
}

impl Bridge {
    /// One without a thread.
    pub fn new(control: Arc<Mailbox<ToControl>>, cores: Cores) -> Self {
        Self { control, cores, thread: None, opened: HashSet::new() }
    }

    /// A torrent lacks pieces: fetches from its web seeds, which are `sources`, until it does not.
    pub fn fetch(&mut self, torrent: TorrentId, sources: impl FnOnce() -> Sources) {
        if !self.opened.insert(torrent) {
            return self.send(Order::Wake(torrent));
        }
        if self.thread.is_none() {
            self.thread = self.start().map_err(|error| tracing::warn!("no web seeds: {error}")).ok();
        }
        self.send(Order::Open(sources()));
    }

    /// A web seed gave bad data: it is asked no more.
    pub fn ban(&self, torrent: TorrentId, seed: WebSeedId) {
        self.send(Order::Ban(torrent, seed));
    }

    /// Ends all connections.
    pub fn stop(&mut self) {
        if let Some((orders, thread)) = self.thread.take() {
            drop(orders);
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    fn send(&self, order: Order) {
        if let Some((orders, _)) = &self.thread {
            let _ = orders.send(order);
        }
    }

    fn start(&self) -> Result<(UnboundedSender<Order>, JoinHandle<()>), String> {
        let (orders, inbox) = unbounded_channel();
        let (control, cores) = (Arc::clone(&self.control), self.cores.clone());
        let tls = tls::config()?;
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, attend(inbox, control, cores, tls)),
                Err(error) => tracing::error!("no web seeds: {error}"),
            }
        };
        let thread = std::thread::Builder::new().name("troc-web".to_owned()).spawn(body);
        Ok((orders, thread.map_err(|error| error.to_string())?))
    }
}

/// What all web seeds use.
struct Yard {
    client: Rc<Client>,
    control: Arc<Mailbox<ToControl>>,
    cores: Cores,
    places: Arc<Semaphore>,
    /// Where the next connection goes.
    next_core: Cell<usize>,
}

/// One web seed of one torrent.
struct Seed {
    id: WebSeedId,
    url: WebUrl,
    named_by: NamedBy,
    metainfo: Arc<Metainfo>,
    /// As servers have the files, whatever lies apart on this disk.
    layout: Rc<Layout>,
    shared: Arc<SharedTorrent>,
    source: RefCell<Source>,
    /// Whether one more connection may be opened is to be looked at again.
    look: Notify,
    /// It failed, and nothing has come since.
    in_trouble: Cell<bool>,
    yard: Rc<Yard>,
}

/// The bridge's thread, until nobody gives orders any more.
async fn attend(
    mut orders: UnboundedReceiver<Order>,
    control: Arc<Mailbox<ToControl>>,
    cores: Cores,
    tls: Arc<rustls::ClientConfig>,
) {
    let timeouts = [WEB_SEED_CONNECT_TIMEOUT, WEB_SEED_STALL_TIMEOUT];
    let yard = Rc::new(Yard {
        client: Rc::new(Client::new(Arc::new(SystemResolver), tls, timeouts)),
        control,
        cores,
        places: Arc::new(Semaphore::new(WEB_SEED_CONNECTIONS_MAX)),
        next_core: Cell::new(0),
    });
    let mut seeds: Vec<Rc<Seed>> = Vec::new();
    while let Some(order) = orders.recv().await {
        let of = |torrent: TorrentId| move |seed: &&Rc<Seed>| seed.shared.meta.id == torrent;
        match order {
            Order::Open(sources) => {
                let fresh = sources.seeds(&yard);
                fresh.iter().for_each(|seed| drop(tokio::task::spawn_local(tend(Rc::clone(seed)))));
                seeds.extend(fresh);
            }
            Order::Wake(torrent) => {
                seeds.iter().filter(of(torrent)).for_each(|seed| seed.look.notify_one());
            }
            Order::Ban(torrent, id) => {
                seeds.iter().filter(of(torrent)).filter(|seed| seed.id == id).for_each(|seed| seed.ban());
            }
        }
    }
}

impl Sources {
    /// Each URL once, and at most `WEB_SEEDS_MAX`.
    fn seeds(&self, yard: &Rc<Yard>) -> Vec<Rc<Seed>> {
        let given = self.given.iter().map(|url| (url, NamedBy::Operator));
        let named = self.metainfo.web_seeds.iter().map(|url| (url, NamedBy::Torrent));
        let mut urls: Vec<(WebUrl, NamedBy)> = Vec::new();
        for (url, named_by) in given.chain(named) {
            let Ok(url) = WebUrl::parse(url) else { continue };
            if urls.len() < WEB_SEEDS_MAX && urls.iter().all(|(other, _)| *other != url) {
                urls.push((url, named_by));
            }
        }
        let layout = Rc::new(layout_of(&self.metainfo));
        let seed = |(index, (url, named_by))| {
            Rc::new(Seed {
                id: WebSeedId(index as u16),
                url,
                named_by,
                metainfo: Arc::clone(&self.metainfo),
                layout: Rc::clone(&layout),
                shared: Arc::clone(&self.shared),
                source: RefCell::new(Source::new(clock::now())),
                look: Notify::new(),
                in_trouble: Cell::new(false),
                yard: Rc::clone(yard),
            })
        };
        urls.into_iter().enumerate().map(seed).collect()
    }
}

/// Opens connections of a web seed as long as pieces are wanted and it may be asked.
async fn tend(seed: Rc<Seed>) {
    loop {
        let wanted = !seed.shared.is_satisfied() && !seed.shared.fetch_stopped();
        let opening = seed.source.borrow().poll_open(clock::now());
        match opening {
            Opening::Never => return,
            _ if !wanted => seed.look.notified().await,
            Opening::Enough => seed.look.notified().await,
            Opening::At(at) => {
                let wait = tokio::time::sleep_until(clock::tokio_at(at));
                tokio::select! { () = wait => {} () = seed.look.notified() => {} }
            }
            Opening::Now => {
                let Ok(place) = Arc::clone(&seed.yard.places).acquire_owned().await else { return };
                seed.source.borrow_mut().handle_opened();
                tokio::task::spawn_local(carry(Rc::clone(&seed), place));
            }
        }
    }
}

/// One connection, from its beginning to its end.
async fn carry(seed: Rc<Seed>, _place: OwnedSemaphorePermit) {
    let ended = seed.connect().await.unwrap_or_else(|ended| ended);
    seed.ended(ended);
    seed.look.notify_one();
}

impl Seed {
    async fn connect(&self) -> Result<Ended, Ended> {
        let failed = |fault: Fault| Ended { end: End::Failed, fault: Some(fault) };
        let client = Rc::clone(&self.yard.client);
        let (addresses, _) = client.addresses(&self.url, None, self.named_by).await.map_err(failed)?;
        let pair = self.offer(addresses[0]).await;
        let stream = pair.map_err(|error| failed(Fault::Network(error.kind())))?;
        Ok(link::serve(self, stream, client).await)
    }

    /// Makes a pair of sockets and gives one end to a core.
    async fn offer(&self, address: SocketAddr) -> std::io::Result<UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // As much as the system allows is as well.
        let _ = socket2::SockRef::from(&ours).set_send_buffer_size(BRIDGE_BYTES);
        ours.set_nonblocking(true)?;
        let yard = &self.yard;
        let core = yard.next_core.replace(yard.next_core.get() + 1) % yard.cores.len();
        let socket = UringSocket::new(OwnedFd::from(theirs));
        let message = ToWorker::Adopt { socket, address, torrent: self.shared.meta.id, seed: self.id };
        deliver(&yard.cores[core], message).await;
        UnixStream::from_std(ours)
    }

    /// Where a file lies.
    fn url_of(&self, file: FileIndex) -> Result<WebUrl, Fault> {
        self.url.of_file(&self.metainfo.files[file.0 as usize].path).map_err(Fault::Url)
    }

    /// Bytes came.
    fn gives(&self) {
        if self.source.borrow_mut().handle_bytes() {
            self.look.notify_one();
        }
        // What was on its way from one that is banned does not clear its name.
        let banned = matches!(self.source.borrow().poll_open(clock::now()), Opening::Never);
        if !banned && self.in_trouble.replace(false) {
            self.tell(None);
        }
    }

    fn ban(&self) {
        self.source.borrow_mut().handle_banned();
        self.say(&Fault::BadData, "");
        self.look.notify_one();
    }

    fn ended(&self, ended: Ended) {
        let place = (self.shared.meta.geometry, &*self.layout);
        let wait = self.source.borrow_mut().handle_ended(ended.end, place, clock::now());
        match (ended.fault, wait) {
            (Some(fault), Some(wait)) => {
                self.say(&fault, &format!("; it is tried again in {} s", wait.as_ms() / 1_000));
            }
            (Some(fault), None) => self.say(&fault, "; the rest of it is tried"),
            (None, _) => {}
        }
    }

    /// Says what is wrong, once until something comes.
    fn say(&self, fault: &Fault, next: &str) {
        let line = format!("web seed {}: {fault}{next}", self.url);
        if !self.in_trouble.replace(true) {
            tracing::warn!("{}: {line}", self.metainfo.name.escape_debug());
        }
        self.tell(Some(line));
    }

    fn tell(&self, trouble: Option<String>) {
        // A control thread that is so far behind has other troubles.
        let _ = self.yard.control.push(ToControl::WebSeed { torrent: self.shared.meta.id, trouble });
    }
}

#[cfg(test)]
mod tests;
