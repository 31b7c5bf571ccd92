//! The datagrams of local service discovery (BEP 14): who is a peer of which torrents on this network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tracker::compact::Family;
use crate::base::ids::InfoHash;
use crate::base::limits::{LSD_DATAGRAM_BYTES_MAX, LSD_HASHES_MAX};

/// The port of both groups.
pub const PORT: u16 = 6771;

/// The multicast group of IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);

/// That of IPv6, within the site.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// Longest cookie that is compared.
const COOKIE_BYTES_MAX: usize = 64;

const FIRST_LINE: &str = "BT-SEARCH * HTTP/1.1";

/// What somebody says to all neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Where it accepts peers.
    pub port: u16,
    /// Of which torrents, at most [`LSD_HASHES_MAX`].
    pub hashes: Vec<InfoHash>,
    /// By which it knows its own datagrams again.
    pub cookie: Option<String>,
}

/// The group of a family.
pub fn group(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::new(IpAddr::V4(GROUP_V4), PORT),
        Family::V6 => SocketAddr::new(IpAddr::V6(GROUP_V6), PORT),
    }
}

impl Announce {
    /// The datagram for the group of a family.
    pub fn encode(&self, family: Family) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\r\nHost: {}\r\nPort: {}\r\n", group(family), self.port);
        for hash in self.hashes.iter().take(LSD_HASHES_MAX) {
            text.push_str(&format!("Infohash: {}\r\n", hash.to_hex()));
        }
        if let Some(cookie) = &self.cookie {
            text.push_str(&format!("cookie: {cookie}\r\n"));
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }
}

/// Reads a datagram; `None` for what is none, or names nothing. Info hashes beyond the limit, and lines that
/// are not known, are passed over.
pub fn parse(bytes: &[u8]) -> Option<Announce> {
    let text = str::from_utf8(bytes).ok().filter(|text| text.len() <= LSD_DATAGRAM_BYTES_MAX)?;
    let mut lines = text.split("\r\n");
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let (mut port, mut cookie, mut hashes) = (None, None, Vec::new());
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "port" => port = value.parse().ok().filter(|&port| port != 0),
            "cookie" if value.len() <= COOKIE_BYTES_MAX => cookie = Some(value.to_owned()),
            "infohash" if hashes.len() < LSD_HASHES_MAX => {
                hashes.extend(InfoHash::from_hex(&value.to_ascii_lowercase()));
            }
            _ => {}
        }
    }
    let announce = Announce { port: port?, hashes, cookie };
    (!announce.hashes.is_empty()).then_some(announce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(count: usize) -> Announce {
        let hashes = (0..count).map(|n| InfoHash([n as u8; 20])).collect();
        Announce { port: 6881, hashes, cookie: Some("abc".to_owned()) }
    }

    #[test]
    fn datagrams_have_the_lines_of_bep_14() {
        let mut one = announce(1);
        one.hashes[0] = InfoHash([0xab; 20]);
        let hash = "ab".repeat(20);
        for (family, host) in [(Family::V4, "239.192.152.143:6771"), (Family::V6, "[ff15::efc0:988f]:6771")] {
            let want = format!(
                "BT-SEARCH * HTTP/1.1\r\nHost: {host}\r\nPort: 6881\r\nInfohash: {hash}\r\n\
                 cookie: abc\r\n\r\n\r\n"
            );
            assert_eq!(String::from_utf8(one.encode(family)).unwrap(), want);
        }
        // As libtorrent and Transmission write it.
        let other = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 1\r\nInfohash: {}\r\n\r\n\r\n",
            hash.to_uppercase()
        );
        let parsed = parse(other.as_bytes()).unwrap();
        assert_eq!(parsed, Announce { port: 1, hashes: one.hashes, cookie: None });
    }

    #[test]
    fn d8_so_many_torrents_fit_a_datagram_and_are_read() {
        for count in [LSD_HASHES_MAX - 1, LSD_HASHES_MAX, LSD_HASHES_MAX + 1] {
            let bytes = announce(count).encode(Family::V6);
            assert!(bytes.len() <= LSD_DATAGRAM_BYTES_MAX, "{}", bytes.len());
            assert_eq!(parse(&bytes).unwrap().hashes.len(), count.min(LSD_HASHES_MAX));
        }
        let line = format!("Infohash: {}\r\n", "00".repeat(20));
        let text = |count: usize| format!("{FIRST_LINE}\r\nPort: 1\r\n{}\r\n", line.repeat(count));
        assert_eq!(parse(text(LSD_HASHES_MAX + 1).as_bytes()).unwrap().hashes.len(), LSD_HASHES_MAX);
        assert_eq!(parse(text(40).as_bytes()), None, "longer than a datagram may be");
    }

    #[test]
    fn d8_junk_names_nobody() {
        let hash = "ab".repeat(20);
        for text in [
            String::new(),
            "M-SEARCH * HTTP/1.1\r\nHost: 239.255.255.250:1900\r\n\r\n".to_owned(),
            format!("{FIRST_LINE}\r\nInfohash: {hash}\r\n\r\n"),
            format!("{FIRST_LINE}\r\nPort: 0\r\nInfohash: {hash}\r\n\r\n"),
            format!("{FIRST_LINE}\r\nPort: 65536\r\nInfohash: {hash}\r\n\r\n"),
            format!("{FIRST_LINE}\r\nPort: 1\r\nInfohash: {}\r\n\r\n", "zz".repeat(20)),
            format!("{FIRST_LINE}\r\nPort: 1\r\nInfohash: {hash}00\r\n\r\n"),
            format!("{FIRST_LINE}\r\nPort: 1\r\n\r\nInfohash: {hash}\r\n\r\n"),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[0xff; 100]), None);
        let whole = announce(2).encode(Family::V4);
        (0..whole.len()).for_each(|len| drop(parse(&whole[..len])));
    }
}
