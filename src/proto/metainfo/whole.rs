//! What is asked of a whole torrent: its magnet link (BEP 9; BEP 52 for `btmh`), its size.

use std::fmt::Write;

use url::form_urlencoded::byte_serialize;

use super::Metainfo;

impl Metainfo {
    /// A link that names the torrent for v1, v2 or both, with its name, trackers and web seeds.
    pub fn magnet_link(&self) -> String {
        let mut link = String::from("magnet:?");
        let mut topics = Vec::new();
        if self.has_v1() {
            topics.push(format!("xt=urn:btih:{}", self.info_hash.to_hex()));
        }
        topics.extend(self.v2.as_ref().map(|v2| format!("xt=urn:btmh:1220{}", v2.info_hash_hex())));
        link += &topics.join("&");
        let mut hint = |key: &str, value: &str| {
            let escaped: String = byte_serialize(value.as_bytes()).collect();
            // Not every client takes a plus for a space. Writing to a string cannot fail.
            let _ = write!(link, "&{key}={}", escaped.replace('+', "%20"));
        };
        hint("dn", &self.name);
        self.trackers.iter().flatten().for_each(|url| hint("tr", url));
        self.web_seeds.iter().for_each(|url| hint("ws", url));
        link
    }

    /// Bytes of all files, padding left out.
    pub fn content_bytes(&self) -> u64 {
        self.files.iter().filter(|file| !file.pad).map(|file| file.length).sum()
    }

    /// Whether pieces have SHA-1 digests: the torrent is of v1, or hybrid.
    pub fn has_v1(&self) -> bool {
        !self.piece_hashes.is_empty()
    }
}
