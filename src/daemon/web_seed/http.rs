//! Ranges of files by HTTP and HTTPS over one connection that is kept. Who names an address decides where it
//! may lie, as for trackers; the address that was checked is the one connected to (threats N1 to N3, N10).

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::NamedBy;
use super::fault::Fault;
use crate::base::address::AddressClass;
use crate::base::limits::{DNS_TIMEOUT, WEB_SEED_DRAIN_BYTES_MAX, WEB_SEED_REDIRECTS_MAX};
use crate::base::time::Span;
use crate::daemon::clock;
use crate::daemon::tracker::{Lookup, Resolve};
use crate::engine::web_seed::answer::{Ask, Head, judge};
use crate::proto::web_url::WebUrl;
use crate::storage::layout::FileIndex;

/// What connections are made with.
#[derive(Debug)]
pub struct Client {
    /// Where names come from.
    pub lookup: Lookup,
    /// Whose certificates count.
    pub tls: Arc<rustls::ClientConfig>,
    /// What an address is.
    pub classify: fn(IpAddr) -> AddressClass,
    /// For one address to accept a connection, TLS included.
    pub connect_timeout: Span,
    /// Without a byte that is awaited.
    pub stall_timeout: Span,
}

impl Client {
    /// One that looks names up by `resolver`.
    pub fn new(resolver: Arc<dyn Resolve>, tls: Arc<rustls::ClientConfig>, timeouts: [Span; 2]) -> Self {
        let [connect_timeout, stall_timeout] = timeouts;
        let lookup = Lookup::new(resolver);
        Self { lookup, tls, classify: AddressClass::of, connect_timeout, stall_timeout }
    }

    /// The addresses of the host of `url`, all of one class; `from` is the class of the host that redirects
    /// there, if one does.
    pub async fn addresses(
        &self,
        url: &WebUrl,
        from: Option<AddressClass>,
        named_by: NamedBy,
    ) -> Result<(Vec<SocketAddr>, AddressClass), Fault> {
        let host = url.host();
        let found = self.lookup.addresses(&host, url.port(), clock::now());
        let found = timeout(clock::duration(DNS_TIMEOUT), found).await.unwrap_or_default();
        let class_of = |address: &SocketAddr| (self.classify)(address.ip());
        let first = found.first().map(class_of).ok_or(Fault::NoAddress)?;
        let allowed = |class: AddressClass| match from {
            Some(from) => from.may_name(class),
            None => class.may_operator_name(),
        };
        let refused = || if from.is_some() { Fault::Inwards(first) } else { Fault::Address(first) };
        let class = found.iter().map(class_of).find(|&class| allowed(class)).ok_or_else(refused)?;
        let aims_inwards = url.has_query() && class != AddressClass::Global;
        if aims_inwards && from.is_none() && named_by == NamedBy::Torrent {
            return Err(Fault::Query(class));
        }
        Ok((found.into_iter().filter(|address| class_of(address) == class).collect(), class))
    }

    async fn connect(&self, url: &WebUrl, addresses: &[SocketAddr]) -> Result<Sender, Fault> {
        let mut last = Fault::NoAddress;
        for &address in addresses {
            let limit = clock::duration(self.connect_timeout);
            match timeout(limit, self.connect_to(url, address)).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(fault)) => last = fault,
                Err(_) => last = Fault::Stalled(self.connect_timeout),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, url: &WebUrl, address: SocketAddr) -> Result<Sender, Fault> {
        let tcp = TcpStream::connect(address).await.map_err(|error| Fault::of_io(&error))?;
        tcp.set_nodelay(true).map_err(|error| Fault::of_io(&error))?;
        if !url.is_tls() {
            return begin(TokioIo::new(tcp)).await;
        }
        let name = ServerName::try_from(url.host()).map_err(|_| Fault::NoAddress)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
        begin(TokioIo::new(tls.map_err(|error| Fault::of_io(&error))?)).await
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// Speaks HTTP over a connection from now on.
async fn begin(io: impl Read + Write + Unpin + 'static) -> Result<Sender, Fault> {
    let shaken = http1::Builder::new().handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| Fault::of_hyper(&error))?;
    // It ends with the sender and the body, and whatever happens to it is told to these.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

#[derive(Debug)]
struct Open {
    tls: bool,
    host: String,
    port: u16,
    class: AddressClass,
    sender: Sender,
}

impl Open {
    fn leads_to(&self, url: &WebUrl) -> bool {
        self.tls == url.is_tls() && self.port == url.port() && self.host == url.host()
    }
}

/// Where a file was found after redirects, and the class of the host that sent us there.
#[derive(Debug)]
struct Moved {
    file: FileIndex,
    url: WebUrl,
    from: AddressClass,
}

/// One connection at a time, kept from request to request.
#[derive(Debug)]
pub struct Session {
    client: Rc<Client>,
    named_by: NamedBy,
    open: Option<Open>,
    moved: Option<Moved>,
}

impl Session {
    /// Nothing is open yet.
    pub const fn new(client: Rc<Client>, named_by: NamedBy) -> Self {
        Self { client, named_by, open: None, moved: None }
    }

    /// Asks for a range of `file`, which lies at `url`. The body has to be read, or the connection is lost.
    pub async fn fetch(&mut self, file: FileIndex, url: &WebUrl, ask: Ask) -> Result<Body, Fault> {
        if let Some(moved) = self.moved.take_if(|moved| moved.file == file) {
            let found = self.follow(file, &moved.url, Some(moved.from), ask).await;
            if found.is_ok() {
                self.moved.get_or_insert(moved);
                return found;
            }
            // Such places are often good for a while only.
        }
        self.follow(file, url, None, ask).await
    }

    async fn follow(
        &mut self,
        file: FileIndex,
        url: &WebUrl,
        mut from: Option<AddressClass>,
        ask: Ask,
    ) -> Result<Body, Fault> {
        let mut url = url.clone();
        for hop in 0..=WEB_SEED_REDIRECTS_MAX {
            let (response, class) = self.request(&url, from, ask).await?;
            if !is_redirect(response.status()) {
                let skip = judge(ask, &head(&response)).map_err(Fault::Answer)?;
                self.moved = from.filter(|_| hop > 0).map(|from| Moved { file, url, from });
                let more = response.status() == StatusCode::OK;
                let rest = if more { ask.file_len - ask.offset - u64::from(ask.len) } else { 0 };
                let stall = self.client.stall_timeout;
                return Ok(Body { body: response.into_body(), skip, left: ask.len.into(), rest, stall });
            }
            let next = text(response.headers(), header::LOCATION).and_then(|to| url.redirect(to).ok());
            let next = next.ok_or(Fault::Location)?;
            if url.is_tls() && !next.is_tls() {
                return Err(Fault::Downgrade);
            }
            (url, from) = (next, Some(class));
        }
        Err(Fault::Redirects)
    }

    /// One request, over the connection that is open if it leads there.
    async fn request(
        &mut self,
        url: &WebUrl,
        from: Option<AddressClass>,
        ask: Ask,
    ) -> Result<(Response<Incoming>, AddressClass), Fault> {
        let open = self.open.take().filter(|open| open.leads_to(url));
        if let Some(open) = open.filter(|open| from.is_none_or(|from| from.may_name(open.class))) {
            match self.send(open, url, ask).await {
                // The server had closed it meanwhile, as it may.
                Err(Fault::CutOff | Fault::Network(_)) => {}
                answered => return answered,
            }
        }
        let (addresses, class) = self.client.addresses(url, from, self.named_by).await?;
        let sender = self.client.connect(url, &addresses).await?;
        let open = Open { tls: url.is_tls(), host: url.host(), port: url.port(), class, sender };
        self.send(open, url, ask).await
    }

    async fn send(
        &mut self,
        mut open: Open,
        url: &WebUrl,
        ask: Ask,
    ) -> Result<(Response<Incoming>, AddressClass), Fault> {
        let last = ask.offset + u64::from(ask.len) - 1;
        let mut request = Request::get(url.target())
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, concat!("troc/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::RANGE, format!("bytes={}-{last}", ask.offset));
        if let Some(authorization) = url.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|_| Fault::Http)?;
        let stall = self.client.stall_timeout;
        let exchange = async {
            open.sender.ready().await?;
            open.sender.send_request(request).await
        };
        let answered = timeout(clock::duration(stall), exchange).await.map_err(|_| Fault::Stalled(stall))?;
        let response = answered.map_err(|error| Fault::of_hyper(&error))?;
        let class = open.class;
        self.open = Some(open);
        Ok((response, class))
    }

    /// The body was read as far as it was wanted: keeps the connection if that is worth the rest.
    pub async fn finish(&mut self, body: Body) {
        if !body.drain().await {
            self.open = None;
        }
    }

    /// Closes the connection, whose body nobody reads on.
    pub fn abandon(&mut self) {
        self.open = None;
    }
}

/// The bytes that were asked for, as they come.
#[derive(Debug)]
pub struct Body {
    body: Incoming,
    skip: u64,
    left: u64,
    /// Bytes behind those that were asked for.
    rest: u64,
    stall: Span,
}

impl Body {
    /// The next bytes that were asked for; `None` when all have come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        while self.left > 0 {
            let mut data = self.frame().await?.ok_or(Fault::CutOff)?;
            let skipped = self.skip.min(data.len() as u64);
            self.skip -= skipped;
            let mut data = data.split_off(skipped as usize);
            let wanted = self.left.min(data.len() as u64);
            data.truncate(wanted as usize);
            self.left -= wanted;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = timeout(clock::duration(self.stall), self.body.frame()).await;
            match frame.map_err(|_| Fault::Stalled(self.stall))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Fault::of_hyper(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads what is behind, if that is little; false if the connection cannot be used any more.
    async fn drain(mut self) -> bool {
        let mut most = self.rest.saturating_add(self.left);
        if most > WEB_SEED_DRAIN_BYTES_MAX {
            return false;
        }
        loop {
            match self.frame().await {
                Ok(None) => return true,
                Ok(Some(data)) if data.len() as u64 <= most => most -= data.len() as u64,
                _ => return false,
            }
        }
    }
}

const fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn head<B>(response: &Response<B>) -> Head<'_> {
    let headers = response.headers();
    Head {
        status: response.status().as_u16(),
        content_range: text(headers, header::CONTENT_RANGE),
        content_length: text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        content_encoding: text(headers, header::CONTENT_ENCODING),
        retry_after: text(headers, header::RETRY_AFTER),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
