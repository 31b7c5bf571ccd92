//! Why nothing came from a web seed: one line each, without path and query of a URL, which may be tokens.

use std::io;

use crate::base::address::AddressClass;
use crate::base::limits::WEB_SEED_REDIRECTS_MAX;
use crate::base::time::Span;
use crate::engine::web_seed::answer::Refusal;
use crate::engine::web_seed::feed::BadRequest;
use crate::engine::web_seed::source::End;
use crate::proto::tracker::safe_text;
use crate::proto::web_url::BadUrl;
use crate::storage::layout::FileIndex;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server's answer is of no use.
    #[error("{0}")]
    Answer(Refusal),
    /// The URL of a file cannot be made.
    #[error("{0}")]
    Url(BadUrl),
    /// The host has no address, or the look-up took too long.
    #[error("no address found for its host; check its spelling, the network and DNS")]
    NoAddress,
    /// The host lies where nobody may send us.
    #[error("refused: its host has a {0} address")]
    Address(AddressClass),
    /// A .torrent aims at a service of this host or network (threat N1).
    #[error("refused: it has a query and its host a {0} address; give it by --web-seed if that is meant")]
    Query(AddressClass),
    /// More redirects than are followed.
    #[error("it redirects more than {WEB_SEED_REDIRECTS_MAX} times")]
    Redirects,
    /// From TLS to plain HTTP.
    #[error("it redirects from https to http")]
    Downgrade,
    /// To an address that only we can reach.
    #[error("it redirects to a {0} address")]
    Inwards(AddressClass),
    /// A redirect to nowhere.
    #[error("it redirects to no usable URL")]
    Location,
    /// Nothing came for so long.
    #[error("nothing came for {} s", .0.as_ms().div_ceil(1000))]
    Stalled(Span),
    /// The network's or the system's word.
    #[error("cannot be reached: {0}")]
    Network(io::ErrorKind),
    /// The certificate, or TLS itself; escaped.
    #[error("TLS failed, nothing was sent: {0}")]
    Tls(String),
    /// The body ended before all was there.
    #[error("its answer is cut off")]
    CutOff,
    /// What came is not HTTP.
    #[error("its answer breaks the rules of HTTP")]
    Http,
    /// It gave what the torrent's hashes do not know.
    #[error("gave bad data and is not asked again")]
    BadData,
    /// See [`BadRequest`].
    #[error("{0}")]
    Core(BadRequest),
}

impl Fault {
    /// What it means for the web seed, if it met `file`.
    pub fn end(&self, file: FileIndex) -> End {
        match self {
            Self::Answer(refusal) => End::refused(*refusal, file),
            Self::Url(_) => End::Absent(file),
            _ => End::Failed,
        }
    }

    /// Of a connection that could not be made, or broke.
    pub fn of_io(error: &io::Error) -> Self {
        match error.get_ref() {
            // Names out of the certificate are the other side's choice.
            Some(inner) if inner.is::<rustls::Error>() => Self::Tls(safe_text(inner.to_string().as_bytes())),
            _ => Self::Network(error.kind()),
        }
    }

    /// Of an exchange.
    pub fn of_hyper(error: &hyper::Error) -> Self {
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        match cause {
            _ if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => Self::CutOff,
            Some(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Self::CutOff,
            Some(cause) => Self::of_io(cause),
            None => Self::Http,
        }
    }
}
