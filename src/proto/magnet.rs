//! Magnet links (BEP 9; BEP 52 for `btmh`, BEP 53 for `so`).

use std::fmt;

use sha1::{Digest, Sha1};
use url::form_urlencoded;

use super::file_ranges::FileRanges;
use super::urls;
use crate::base::ids::InfoHash;
use crate::base::limits::{MAGNET_BYTES_MAX, MAGNET_PEERS_MAX, TRACKERS_MAX, WEB_SEEDS_MAX};
use crate::hash::merkle::Hash;
use crate::hash::sha256;

/// A parsed link: what it names, and hints where to find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`, the v1 info-hash; there is this, `v2_hash` or both.
    pub info_hash: Option<InfoHash>,
    /// `xt=urn:btmh:1220`, the SHA-256 of a v2 info dictionary.
    pub v2_hash: Option<[u8; 32]>,
    /// `dn`: a name to show, as found.
    pub name: Option<String>,
    /// `tr`: usable trackers, each once, at most `TRACKERS_MAX`.
    pub trackers: Vec<String>,
    /// `ws`: usable web seeds, each once, at most `WEB_SEEDS_MAX`.
    pub web_seeds: Vec<String>,
    /// `x.pe`: peers, each once, at most `MAGNET_PEERS_MAX`.
    pub peers: Vec<MagnetPeer>,
    /// `so`: the files that are wanted, if not all (BEP 53).
    pub selection: Option<FileRanges>,
}

/// By what an info dictionary is known that nobody has yet: one hash or both (BEP 9, 52).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Its SHA-1.
    pub v1: Option<InfoHash>,
    /// Its SHA-256.
    pub v2: Option<Hash>,
}

/// What comes of comparing an info dictionary with what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is the one, by all that is known of it.
    Right,
    /// It is another one.
    Wrong,
    /// It is the one by one hash and another by the other: no dictionary will ever be both.
    Torn,
}

impl Topics {
    /// Compares the raw bytes of a dictionary with them.
    pub fn judge(&self, info: &[u8]) -> Match {
        let v1 = self.v1.map(|wanted| Sha1::digest(info)[..] == wanted.0);
        let v2 = self.v2.map(|wanted| sha256::digest(info) == wanted);
        match (v1, v2) {
            (Some(true), Some(true) | None) | (None, Some(true)) => Match::Right,
            (Some(a), Some(b)) if a != b => Match::Torn,
            _ => Match::Wrong,
        }
    }
}

/// What a v2 hash is cut to in handshakes and announces, where only so much has room (BEP 52).
pub fn short(v2_hash: &Hash) -> InfoHash {
    InfoHash(std::array::from_fn(|at| v2_hash[at]))
}

/// A peer that a link names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MagnetPeer {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port, not 0.
    pub port: u16,
}

/// Why a link is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// The link is longer than any that is read.
    #[error(
        "the magnet link is {bytes} bytes long (at most {MAGNET_BYTES_MAX}): \
             drop some of its `tr` and `ws` parts"
    )]
    TooLong {
        /// Length of the link.
        bytes: usize,
    },
    /// The text is no magnet link.
    #[error("not a magnet link: it has to start with `magnet:?`")]
    NotMagnet,
    /// There is no hash that we know.
    #[error("the magnet link has no `xt=urn:btih:...` or `xt=urn:btmh:...`: copy the whole link, in quotes")]
    NoHash,
    /// A hash that is no hash.
    #[error(
        "the info hash of the magnet link is malformed: a `btih` has 40 hexadecimal or \
             32 base32 digits, a `btmh` is 1220 and 64 hexadecimal digits"
    )]
    BadHash,
    /// Files that are no numbers. To drop it would fetch all of what is wanted in part.
    #[error(
        "the files that the magnet link names (`so=`) are no numbers and ranges like 0,4-6: mend it, or \
             leave it out and give --files"
    )]
    BadSelection,
    /// Two hashes of a kind.
    #[error("the magnet link names two torrents: use one link for each")]
    TwoHashes,
}

impl Magnet {
    /// By what peers and trackers are asked for it first: those who know v1 alone know no other name. `None`
    /// only of a link that was not parsed.
    pub fn first_name(&self) -> Option<InfoHash> {
        self.info_hash.or_else(|| self.v2_hash.as_ref().map(short))
    }

    /// Parses a link. Unknown parts are ignored, hints that cannot be used are dropped.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        if link.len() > MAGNET_BYTES_MAX {
            return Err(MagnetError::TooLong { bytes: link.len() });
        }
        let (scheme, query) = link.trim().split_once('?').ok_or(MagnetError::NotMagnet)?;
        if !scheme.eq_ignore_ascii_case("magnet:") {
            return Err(MagnetError::NotMagnet);
        }
        let mut magnet = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            magnet.take(&key, &value)?;
        }
        if magnet.info_hash.is_none() && magnet.v2_hash.is_none() {
            return Err(MagnetError::NoHash);
        }
        Ok(magnet)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), MagnetError> {
        // Links with several values of a kind may number them: `xt.1`, `tr.2`.
        let kind = key.split_once('.').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()));
        match kind.map_or(key, |(kind, _)| kind) {
            "xt" => self.take_topic(value)?,
            "dn" if self.name.is_none() => self.name = Some(value.to_owned()),
            "tr" => push_new(&mut self.trackers, urls::tracker(value.as_bytes()), TRACKERS_MAX),
            "ws" => push_new(&mut self.web_seeds, urls::web_seed(value.as_bytes()), WEB_SEEDS_MAX),
            "x.pe" => push_new(&mut self.peers, MagnetPeer::parse(value), MAGNET_PEERS_MAX),
            "so" if self.selection.is_none() => {
                self.selection = Some(FileRanges::parse(value).ok_or(MagnetError::BadSelection)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the hash of an exact topic; other kinds of topic are ignored.
    fn take_topic(&mut self, value: &str) -> Result<(), MagnetError> {
        if let Some(text) = strip_prefix(value, "urn:btih:") {
            let hash = hex(text).or_else(|| base32(text)).ok_or(MagnetError::BadHash)?;
            return set_once(&mut self.info_hash, InfoHash(hash));
        }
        if let Some(text) = strip_prefix(value, "urn:btmh:") {
            let hash = text.strip_prefix("1220").and_then(hex).ok_or(MagnetError::BadHash)?;
            return set_once(&mut self.v2_hash, hash);
        }
        Ok(())
    }
}

impl MagnetPeer {
    /// Parses `host:port` or `[v6]:port`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|&port| port != 0)?;
        let parsed = url::Host::parse(host).ok()?;
        let host = match parsed {
            url::Host::Domain(name) => name,
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for MagnetPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: Option<T>, max: usize) {
    list.extend(item.filter(|item| list.len() < max && !list.contains(item)));
}

fn set_once<T: PartialEq>(field: &mut Option<T>, value: T) -> Result<(), MagnetError> {
    if field.as_ref().is_some_and(|have| *have != value) {
        return Err(MagnetError::TwoHashes);
    }
    *field = Some(value);
    Ok(())
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// `2 * N` hexadecimal digits of either case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut out = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(out)
}

/// 32 digits of RFC 4648 base32 in either case: 160 bits.
fn base32(text: &str) -> Option<[u8; 20]> {
    let mut out = [0; 20];
    let (groups, []) = text.as_bytes().as_chunks::<8>() else { return None };
    if groups.len() != 4 {
        return None;
    }
    // Eight digits are five bytes.
    for (bytes, group) in out.as_chunks_mut::<5>().0.iter_mut().zip(groups) {
        let mut bits = 0u64;
        for digit in group {
            let value = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
