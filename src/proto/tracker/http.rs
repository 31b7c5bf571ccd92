//! The HTTP tracker protocol (BEP 3): the URL of an announce and the bencoded reply, with compact
//! lists (BEP 23), IPv6 (BEP 7) and lists of dictionaries.

use std::net::{IpAddr, SocketAddr};

use crate::base::limits::{MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX, TRACKER_REPLY_BYTES_MAX};
use crate::proto::bencode::{self, Value};

use super::compact::{Family, append};
use super::url::{ARGUMENTS_BYTES_MAX, TrackerUrl};
use super::{AnnounceEvent, AnnounceReply, AnnounceRequest, PeerList, ReplyError, safe_text, seconds};

/// The URL to GET for `request`: the tracker's own URL with our arguments behind its query. It
/// holds the passkey if there is one: for the wire only.
pub fn announce_url(tracker: &TrackerUrl, request: &AnnounceRequest) -> String {
    let base = tracker.expose();
    let mut url = String::with_capacity(base.len() + ARGUMENTS_BYTES_MAX);
    url.push_str(base);
    match (base.contains('?'), base.ends_with(['?', '&'])) {
        (false, _) => url.push('?'),
        (true, false) => url.push('&'),
        (true, true) => {}
    }
    url.push_str("info_hash=");
    percent_encode(&request.info_hash.0, &mut url);
    url.push_str("&peer_id=");
    percent_encode(&request.peer_id.0, &mut url);
    url.push_str(&format!(
        "&port={}&uploaded={}&downloaded={}&left={}&compact=1",
        request.port, request.uploaded_bytes, request.downloaded_bytes, request.left_bytes
    ));
    // Some trackers hand out URLs with a `key` of their own.
    if !tracker.has_argument("key") {
        url.push_str(&format!("&key={:08x}", request.key));
    }
    if let Some(wanted) = request.peers_wanted {
        url.push_str(&format!("&numwant={wanted}"));
    }
    if let Some(ipv6) = request.ipv6 {
        url.push_str("&ipv6=");
        percent_encode(ipv6.to_string().as_bytes(), &mut url);
    }
    url.push_str(match request.event {
        AnnounceEvent::None => "",
        AnnounceEvent::Started => "&event=started",
        AnnounceEvent::Completed => "&event=completed",
        AnnounceEvent::Stopped => "&event=stopped",
        AnnounceEvent::Paused => "&event=paused",
    });
    url
}

/// Reads the body of a reply, already inflated.
pub fn parse_reply(body: &[u8]) -> Result<AnnounceReply, ReplyError> {
    if body.len() > TRACKER_REPLY_BYTES_MAX {
        return Err(ReplyError::Malformed("it is too long"));
    }
    let not_bencode = |_| ReplyError::Malformed("it is not bencode; is this URL an announce URL?");
    // Some trackers end the reply with a line feed.
    let (reply, _rest) =
        bencode::parse_prefix(body, MESSAGE_DEPTH_MAX, MESSAGE_TOKENS_MAX).map_err(not_bencode)?;
    if reply.as_dict().is_none() {
        return Err(ReplyError::Malformed("it is no dictionary"));
    }
    if let Some(reason) = reply.get(b"failure reason") {
        let reason = reason.as_bytes().unwrap_or(b"(no reason given)");
        return Err(ReplyError::Refused(safe_text(reason)));
    }
    let number = |key: &[u8]| reply.get(key).and_then(Value::as_int);
    let count = |key: &[u8]| number(key).and_then(|n| u32::try_from(n).ok());
    Ok(AnnounceReply {
        interval: seconds(number(b"interval").unwrap_or(0)),
        min_interval: number(b"min interval").map(seconds),
        peers: parse_peers(reply),
        seeders: count(b"complete"),
        leechers: count(b"incomplete"),
        warning: reply.get(b"warning message").and_then(Value::as_bytes).map(safe_text),
    })
}

/// Peers in any of the three forms; whatever is neither of them names none.
fn parse_peers(reply: Value<'_>) -> Vec<SocketAddr> {
    let mut list = PeerList::default();
    if let Some(peers) = reply.get(b"peers") {
        if let Some(compact) = peers.as_bytes() {
            append(&mut list, compact, Family::V4);
        } else if let Some(entries) = peers.as_list() {
            entries.filter_map(parse_entry).for_each(|peer| list.push(peer));
        }
    }
    if let Some(compact) = reply.get(b"peers6").and_then(Value::as_bytes) {
        append(&mut list, compact, Family::V6);
    }
    list.peers
}

/// One peer as a dictionary. Host names, which BEP 3 allows, are not resolved: a tracker must not
/// choose what we ask our resolver.
fn parse_entry(entry: Value<'_>) -> Option<SocketAddr> {
    let address: IpAddr = entry.get(b"ip")?.as_str()?.parse().ok()?;
    let port = u16::try_from(entry.get(b"port")?.as_int()?).ok()?;
    Some(SocketAddr::new(address, port))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(super) fn percent_encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests;
