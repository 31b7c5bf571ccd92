//! One GET by HTTP or HTTPS, blocking, to addresses that were checked before; redirects are given
//! back instead of followed (threats N2, N3, N5, N10).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::base::limits::{TRACKER_HEADER_BYTES_MAX, TRACKER_REPLY_BYTES_MAX};
use crate::base::time::Span;
use crate::proto::tracker::{ReplyError, safe_text};

use super::error::{AnnounceFault, RedirectFault};

/// What to get, from where, and how long it may take altogether.
pub(super) struct Get<P> {
    pub(super) url: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) timeout: Duration,
    pub(super) roots: RootCerts,
    /// Reads the body, inflated already.
    pub(super) parse: P,
}

/// What came.
#[derive(Debug)]
pub(super) enum Got<T> {
    Reply(T),
    /// The location as the server wrote it.
    Redirect(String),
}

impl<P> Get<P> {
    /// Connects, sends, reads and parses.
    pub(super) fn run<T>(self) -> Result<Got<T>, AnnounceFault>
    where
        P: Fn(&[u8]) -> Result<T, ReplyError>,
    {
        let timeout = self.timeout;
        let translate = |error| fault(error, timeout);
        let mut response = self.agent().get(&self.url).call().map_err(translate)?;
        let status = response.status();
        if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            let location = location.ok_or(AnnounceFault::Redirect(RedirectFault::Location))?;
            return Ok(Got::Redirect(location.to_owned()));
        }
        let body = response.body_mut().with_config().limit(TRACKER_REPLY_BYTES_MAX as u64);
        let body = body.read_to_vec().map_err(translate)?;
        match (self.parse)(&body) {
            Ok(reply) if status.is_success() => Ok(Got::Reply(reply)),
            // Some trackers refuse with a status of failure, but in their own words.
            Err(ReplyError::Refused(reason)) => Err(AnnounceFault::Reply(ReplyError::Refused(reason))),
            Err(error) if status.is_success() => Err(AnnounceFault::Reply(error)),
            _ => Err(AnnounceFault::Status(status.as_u16())),
        }
    }

    fn agent(&self) -> Agent {
        let config = Agent::config_builder()
            .timeout_global(Some(self.timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // A proxy would connect to an address that nobody has checked.
            .proxy(None)
            .user_agent(concat!("troc/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(TRACKER_HEADER_BYTES_MAX)
            .max_idle_connections(0)
            .tls_config(TlsConfig::builder().root_certs(self.roots.clone()).build())
            .build();
        Agent::with_parts(config, DefaultConnector::default(), Checked(self.addresses.clone()))
    }
}

/// Resolves every name to the addresses that were checked for it.
#[derive(Debug)]
struct Checked(Vec<SocketAddr>);

impl Resolver for Checked {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        // `DNS_ADDRESSES_MAX` is below the array's length.
        self.0.iter().for_each(|address| addresses.push(*address));
        Ok(addresses)
    }
}

/// `error` without any text that could hold a URL.
fn fault(error: ureq::Error, timeout: Duration) -> AnnounceFault {
    use ureq::Error;
    match error {
        Error::Timeout(_) => {
            AnnounceFault::Timeout(Span(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)))
        }
        Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => AnnounceFault::TooLong,
        Error::Rustls(error) => AnnounceFault::Tls(safe_text(error.to_string().as_bytes())),
        Error::Tls(text) => AnnounceFault::Tls(text.to_owned()),
        Error::HostNotFound => AnnounceFault::NoAddress,
        Error::Io(error) => io_fault(&error),
        _ => AnnounceFault::Http,
    }
}

fn io_fault(error: &io::Error) -> AnnounceFault {
    match error.get_ref() {
        // Names out of the certificate are the other side's choice.
        Some(inner) if inner.is::<rustls::Error>() => {
            AnnounceFault::Tls(safe_text(inner.to_string().as_bytes()))
        }
        _ => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                AnnounceFault::Http
            }
            kind => AnnounceFault::Network(kind),
        },
    }
}
