//! The HTTP tracker protocol (BEP 3): the announce's URL.

use super::url::TrackerUrl;
use super::{AnnounceEvent, AnnounceRequest};

/// The URL to GET for `request`: the tracker's own URL with our arguments behind its query. Holds
/// the passkey if there is one: for the wire only.
pub fn announce_url(tracker: &TrackerUrl, request: &AnnounceRequest) -> String {
    let base = tracker.expose();
    let mut url = String::with_capacity(base.len() + super::url::ARGUMENTS_BYTES_MAX);
    url.push_str(base);
    url.push(match base.find('?') {
        None => '?',
        Some(at) if at + 1 == base.len() => '&',
        Some(_) => '&',
    });
    url
}
