//! Announces as they are carried out, on the control thread.
//!
//! Who names an address decides where it may lie. The operator may name trackers on this host and
//! in private networks; a redirect and a list of peers may point outwards or stay level, never
//! further in ([`AddressClass::may_name`]). The address that was checked is the one connected to.
//! Every announce has one deadline over look-up, connection, redirects and body.

mod blocking;
mod error;
mod hosts;
mod http;
mod resolve;
mod scrape;
mod udp;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use ureq::tls::RootCerts;

use crate::base::address::AddressClass;
use crate::base::limits::{
    DNS_TIMEOUT, TRACKER_ANNOUNCES_MAX, TRACKER_HOST_GAP, TRACKER_HOST_GAP_OPERATOR, TRACKER_REDIRECTS_MAX,
    TRACKER_STOP_TIMEOUT, TRACKER_TIMEOUT, TRACKER_UDP_FIRST_WAIT,
};
use crate::base::time::{Instant as Now, Span};
use crate::daemon::clock;
use crate::engine::announcer::TrackerOrigin;
use crate::proto::tracker::http::{announce_url, parse_reply};
use crate::proto::tracker::url::{Scheme, TrackerUrl};
use crate::proto::tracker::{AnnounceEvent, AnnounceReply, AnnounceRequest, ReplyError};

use blocking::BlockingJobs;
use hosts::HostGate;

pub use error::{AnnounceError, AnnounceFault, RedirectFault};
pub(in crate::daemon) use resolve::Lookup;
pub use resolve::{Resolve, SystemResolver};

/// What a [`TrackerClient`] works with; tests put in their own.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// Total time for one announce.
    pub timeout: Span,
    /// Total time for a good-bye.
    pub stop_timeout: Span,
    /// Total time for one look-up.
    pub dns_timeout: Span,
    /// First wait for an answer by UDP.
    pub udp_first_wait: Span,
    /// Where names come from.
    pub resolver: Arc<dyn Resolve>,
    /// Whose certificates count.
    pub roots: RootCerts,
    /// What an address is.
    pub classify: fn(IpAddr) -> AddressClass,
}

impl Default for TrackerSettings {
    fn default() -> Self {
        Self {
            timeout: TRACKER_TIMEOUT,
            stop_timeout: TRACKER_STOP_TIMEOUT,
            dns_timeout: DNS_TIMEOUT,
            udp_first_wait: TRACKER_UDP_FIRST_WAIT,
            resolver: Arc::new(SystemResolver),
            roots: RootCerts::WebPki,
            classify: AddressClass::of,
        }
    }
}

/// Announces for all torrents of the process. One per process, on the control thread.
#[derive(Debug)]
pub struct TrackerClient {
    settings: TrackerSettings,
    lookup: Lookup,
    gets: BlockingJobs,
    places: Semaphore,
    hosts: RefCell<HostGate>,
    epoch: Instant,
}

impl TrackerClient {
    /// A client that has not asked anybody yet. Needs tokio's clock, thus a runtime.
    pub fn new(settings: TrackerSettings) -> Self {
        Self {
            lookup: Lookup::new(settings.resolver.clone()),
            gets: BlockingJobs::new("troc-tracker", TRACKER_ANNOUNCES_MAX),
            places: Semaphore::new(TRACKER_ANNOUNCES_MAX),
            hosts: RefCell::default(),
            epoch: Instant::now(),
            settings,
        }
    }

    /// Announces `request` to the tracker at `url`, which `origin` has named. The deadline counts
    /// from when there is a place for it ([`TRACKER_ANNOUNCES_MAX`]). May be dropped at any time.
    pub async fn announce(
        &self,
        url: &str,
        request: &AnnounceRequest,
        origin: TrackerOrigin,
    ) -> Result<AnnounceReply, AnnounceError> {
        let url = TrackerUrl::parse(url)
            .map_err(|error| AnnounceError { tracker: String::new(), cause: AnnounceFault::Url(error) })?;
        let outcome = self.announce_to(&url, request, origin).await;
        outcome.map_err(|cause| AnnounceError { tracker: url.to_string(), cause })
    }

    async fn announce_to(
        &self,
        url: &TrackerUrl,
        request: &AnnounceRequest,
        origin: TrackerOrigin,
    ) -> Result<AnnounceReply, AnnounceFault> {
        let _place = self.places.acquire().await.map_err(|_| AnnounceFault::Exhausted)?;
        let total = match request.event {
            AnnounceEvent::Stopped => self.settings.stop_timeout,
            _ => self.settings.timeout,
        };
        let deadline = Instant::now() + clock::duration(total);
        let call = Call { client: self, origin, deadline, asked: Cell::new(false) };
        call.finish(url, total, call.announce(url, request)).await
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// One announce, over all its hops.
struct Call<'a> {
    client: &'a TrackerClient,
    origin: TrackerOrigin,
    deadline: Instant,
    /// Whether a host of somebody else was bothered at the tracker's own URL.
    asked: Cell<bool>,
}

/// The outcome of one hop.
enum Hop<T> {
    Reply(T),
    Redirect(TrackerUrl),
}

impl Call<'_> {
    /// Has `work` end in time, and remembers what it says of the host.
    async fn finish<T>(
        &self,
        url: &TrackerUrl,
        total: Span,
        work: impl Future<Output = Result<T, AnnounceFault>>,
    ) -> Result<T, AnnounceFault> {
        let outcome = match tokio::time::timeout_at(self.deadline, work).await {
            Err(_) | Ok(Err(AnnounceFault::Timeout(_))) => Err(AnnounceFault::Timeout(total)),
            Ok(outcome) => outcome,
        };
        if self.asked.get() {
            // Whoever redirects to no tracker is none either.
            self.note(&url.host(), outcome.as_ref().err());
        }
        outcome
    }

    async fn announce(
        &self,
        url: &TrackerUrl,
        request: &AnnounceRequest,
    ) -> Result<AnnounceReply, AnnounceFault> {
        let (reply, class) = if url.scheme() == Scheme::Udp {
            self.ask(url, request).await?
        } else {
            self.get(url, announce_url(url, request), parse_reply).await?
        };
        Ok(self.without_inward_peers(reply, class))
    }

    /// Asks a UDP tracker. Also returns where it lies.
    async fn ask<Q: udp::Question>(
        &self,
        url: &TrackerUrl,
        question: &Q,
    ) -> Result<(Q::Reply, AddressClass), AnnounceFault> {
        let (addresses, class) = self.addresses(url, None).await?;
        self.asked.set(class == AddressClass::Global);
        let first_wait = self.client.settings.udp_first_wait;
        Ok((udp::ask(&addresses, question, first_wait, self.deadline).await?, class))
    }

    /// GETs `full`, an URL of the tracker at `url`, and follows redirects. Also returns where who answered
    /// lies.
    async fn get<T: Send + 'static>(
        &self,
        url: &TrackerUrl,
        full: String,
        parse: impl Fn(&[u8]) -> Result<T, ReplyError> + Copy + Send + 'static,
    ) -> Result<(T, AddressClass), AnnounceFault> {
        let (addresses, mut class) = self.addresses(url, None).await?;
        // Whoever wrote the link or the .torrent has us GET that URL: let it be a tracker's (threat N1).
        if class != AddressClass::Global && !url.is_announce() {
            return Err(AnnounceFault::NoAnnounce);
        }
        self.asked.set(class == AddressClass::Global);
        let mut hop = self.hop(url, full, addresses, parse).await?;
        for _ in 0..TRACKER_REDIRECTS_MAX {
            let next = match hop {
                Hop::Reply(reply) => return Ok((reply, class)),
                Hop::Redirect(next) => next,
            };
            let (addresses, next_class) = self.addresses(&next, Some(class)).await?;
            class = next_class;
            let outcome = self.hop(&next, next.expose().to_owned(), addresses, parse).await;
            if class == AddressClass::Global && !matches!(outcome, Ok(Hop::Redirect(_))) {
                self.note(&next.host(), outcome.as_ref().err());
            }
            hop = outcome?;
        }
        match hop {
            Hop::Reply(reply) => Ok((reply, class)),
            Hop::Redirect(_) => Err(AnnounceFault::Redirect(RedirectFault::TooMany)),
        }
    }

    /// The addresses of `url`'s host that may be connected to, all of one class; `from` is the
    /// class of the host that redirects there.
    async fn addresses(
        &self,
        url: &TrackerUrl,
        from: Option<AddressClass>,
    ) -> Result<(Vec<SocketAddr>, AddressClass), AnnounceFault> {
        let (client, host) = (self.client, url.host());
        let found = client.lookup.addresses(&host, url.port(), client.now());
        let limit = clock::duration(client.settings.dns_timeout);
        let found = tokio::time::timeout(limit, found).await.unwrap_or_default();
        let class_of = |address: &SocketAddr| (client.settings.classify)(address.ip());
        let Some(first) = found.first().map(class_of) else { return Err(AnnounceFault::NoAddress) };
        let allowed = |class: AddressClass| match (from, self.origin) {
            (Some(from), _) => from.may_name(class),
            (None, TrackerOrigin::Operator) => class.may_operator_name(),
            (None, TrackerOrigin::Stranger) => class == AddressClass::Global,
        };
        let refused = || match from {
            Some(_) => AnnounceFault::Redirect(RedirectFault::Inwards(first)),
            None => AnnounceFault::Address(first),
        };
        let class = found.iter().map(class_of).find(|class| allowed(*class)).ok_or_else(refused)?;
        if class == AddressClass::Global
            && let Some(wait) = client.hosts.borrow().wait(&host, client.now())
        {
            return Err(AnnounceFault::HostPaused(wait));
        }
        Ok((found.into_iter().filter(|address| class_of(address) == class).collect(), class))
    }

    async fn hop<T: Send + 'static>(
        &self,
        from: &TrackerUrl,
        url: String,
        addresses: Vec<SocketAddr>,
        parse: impl Fn(&[u8]) -> Result<T, ReplyError> + Send + 'static,
    ) -> Result<Hop<T>, AnnounceFault> {
        let timeout = clock::duration(span_until(self.deadline));
        let get = http::Get { url, addresses, timeout, roots: self.client.settings.roots.clone(), parse };
        let outcome = match self.client.gets.run(|| get.run()).await {
            Ok(outcome) => outcome,
            Err(blocking::JobLost) => Err(AnnounceFault::Exhausted),
        };
        match outcome? {
            http::Got::Reply(reply) => Ok(Hop::Reply(reply)),
            http::Got::Redirect(location) => redirect(from, &location).map(Hop::Redirect),
        }
    }

    /// Remembers whether `host` is a tracker's: it is if it answered, be it with a refusal.
    fn note(&self, host: &str, fault: Option<&AnnounceFault>) {
        let gap = match self.origin {
            TrackerOrigin::Operator => TRACKER_HOST_GAP_OPERATOR,
            TrackerOrigin::Stranger => TRACKER_HOST_GAP,
        };
        let mut hosts = self.client.hosts.borrow_mut();
        match fault {
            Some(AnnounceFault::Exhausted) => {}
            Some(fault) if !fault.is_answer() => hosts.handle_failure(host, self.client.now(), gap),
            _ => hosts.handle_answer(host),
        }
    }

    /// A tracker out there must not make us dial what only we can reach.
    fn without_inward_peers(&self, mut reply: AnnounceReply, tracker: AddressClass) -> AnnounceReply {
        let classify = self.client.settings.classify;
        reply.peers.retain(|peer| tracker.may_name(classify(peer.ip())));
        reply
    }
}

fn redirect(from: &TrackerUrl, location: &str) -> Result<TrackerUrl, AnnounceFault> {
    let to = from.redirect(location).map_err(|_| AnnounceFault::Redirect(RedirectFault::Location))?;
    match (from.scheme(), to.scheme()) {
        (Scheme::Https, Scheme::Http) => Err(AnnounceFault::Redirect(RedirectFault::Downgrade)),
        _ => Ok(to),
    }
}

fn span_until(deadline: Instant) -> Span {
    let left = deadline.saturating_duration_since(Instant::now());
    Span(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
