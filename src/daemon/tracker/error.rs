//! Why an announce failed: one line each, with the tracker's scheme, host and port, never with
//! its path or query, which may be a passkey (threats A12).

use std::io;

use crate::base::address::AddressClass;
use crate::base::limits::{TRACKER_REDIRECTS_MAX, TRACKER_REPLY_BYTES_MAX};
use crate::base::time::Span;
use crate::proto::tracker::ReplyError;
use crate::proto::tracker::url::UrlError;

/// An announce that brought no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{cause}", prefix(.tracker))]
pub struct AnnounceError {
    /// `scheme://host:port` of the tracker that was to be asked; empty if its URL cannot be read.
    pub tracker: String,
    /// Why.
    pub cause: AnnounceFault,
}

/// See [`AnnounceError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceFault {
    /// The URL itself; whoever gave it must mend it.
    #[error("{0}")]
    Url(UrlError),
    /// The host has no address, or the look-up took too long.
    #[error("no address found for its host; check its spelling, the network and DNS")]
    NoAddress,
    /// The host lies where the one who named it may not send us.
    #[error(
        "refused: its host has a {0} address; only you may name trackers on this host or a private network"
    )]
    Address(AddressClass),
    /// It lies where only we can reach it, and its URL is no tracker's.
    #[error(
        "refused: it is on this host or a private network, and the last part of its URL does not begin with \
         `announce`"
    )]
    NoAnnounce,
    /// The host failed a moment ago.
    #[error("its host failed a moment ago; it is asked again in {} s", .0.as_ms().div_ceil(1000))]
    HostPaused(Span),
    /// A redirect that is not followed.
    #[error("refused: {0}")]
    Redirect(RedirectFault),
    /// No complete answer within the total time.
    #[error("no answer within {} s", .0.as_ms().div_ceil(1000))]
    Timeout(Span),
    /// The network's or the system's word.
    #[error("cannot be reached: {0}")]
    Network(io::ErrorKind),
    /// The certificate, or TLS itself; escaped.
    #[error("TLS failed, nothing was sent: {0}")]
    Tls(String),
    /// A status other than success, without a tracker's words.
    #[error("HTTP status {0}; check the announce URL")]
    Status(u16),
    /// The body or the header is too long.
    #[error("its reply is longer than {TRACKER_REPLY_BYTES_MAX} bytes, or has too long a header")]
    TooLong,
    /// What came is not HTTP, or breaks its rules.
    #[error("its reply is cut off or breaks the rules of HTTP")]
    Http,
    /// By BEP 48 there is no URL for it.
    #[error("it has no counts to ask for: the last part of its URL does not begin with `announce`")]
    NoScrape,
    /// The reply says no, or is no tracker's.
    #[error("{0}")]
    Reply(ReplyError),
    /// No thread, socket or randomness to be had from the system.
    #[error("this host has no thread or socket left for it")]
    Exhausted,
}

/// What is wrong with a redirect (threats N3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    /// More than [`TRACKER_REDIRECTS_MAX`], be it in a circle or not.
    #[error("it redirects more than {TRACKER_REDIRECTS_MAX} times")]
    TooMany,
    /// From TLS to plain HTTP.
    #[error("it redirects from https to http")]
    Downgrade,
    /// To an address that only we can reach.
    #[error("it redirects to a {0} address")]
    Inwards(AddressClass),
    /// To nowhere, or to what is no tracker's URL.
    #[error("it redirects to no usable URL")]
    Location,
}

fn prefix(tracker: &str) -> String {
    match tracker {
        "" => String::new(),
        tracker => format!("tracker {tracker}: "),
    }
}

impl AnnounceFault {
    /// Whether the host did answer as a tracker does.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Reply(ReplyError::Refused(_)))
    }
}
