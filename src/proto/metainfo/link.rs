//! From a magnet link (BEP 9) to the torrent that it names.

use bytes::Bytes;

use super::build::strings;
use super::v2::Layers;
use super::{Metainfo, MetainfoError};
use crate::base::geometry::Geometry;
use crate::base::limits::METAINFO_BYTES_MAX;
use crate::base::piece_hashes::PieceHashes;
use crate::base::units::BLOCK_BYTES;
use crate::proto::bencode::Item;
use crate::proto::magnet::Magnet;

impl Metainfo {
    /// What a link tells of a torrent, until its info dictionary is found: hash, trackers, web seeds and a
    /// name to show. It has neither files nor pieces, and [`is_awaited`](Self::is_awaited) says so. `None` if
    /// the link has no v1 info-hash.
    pub fn of_link(magnet: &Magnet) -> Option<Self> {
        let info_hash = magnet.info_hash?;
        Some(Self {
            info_hash,
            name: magnet.name.clone().unwrap_or_else(|| info_hash.to_hex()),
            geometry: Geometry::new(0, BLOCK_BYTES),
            piece_hashes: PieceHashes::default(),
            files: Vec::new(),
            symlinks_skipped: 0,
            // A link has no tiers: its trackers are tried one after the other.
            trackers: magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
            web_seeds: magnet.web_seeds.clone(),
            private: false,
            comment: None,
            created_by: None,
            creation_date: None,
            info: Bytes::new(),
            v2: None,
        })
    }

    /// Whether this is all that a link tells, and the info dictionary is yet to be found.
    pub fn is_awaited(&self) -> bool {
        self.info.is_empty()
    }

    /// The torrent whose info dictionary was found: every check of a .torrent file, and the trackers and web
    /// seeds of `self`. The caller has compared the hash.
    pub fn found(&self, info: &[u8]) -> Result<Self, MetainfoError> {
        if info.len() > METAINFO_BYTES_MAX {
            return Err(MetainfoError::TooLong { bytes: info.len() });
        }
        let mut found = Self::read_any_length(&[b"d4:info", info, b"e"].concat(), Layers::Needed)?;
        if found.info != info {
            // A dictionary and something behind it.
            return Err(MetainfoError::Malformed { key: "info" });
        }
        found.trackers.clone_from(&self.trackers);
        found.web_seeds.clone_from(&self.web_seeds);
        Ok(found)
    }

    /// A .torrent file that says the same: info dictionary, trackers and web seeds.
    pub fn to_torrent(&self) -> Vec<u8> {
        let mut out = b"d".to_vec();
        if !self.trackers.is_empty() {
            let tiers = self.trackers.iter().map(|tier| strings(tier)).collect();
            out.extend_from_slice(b"13:announce-list");
            Item::List(tiers).encode(&mut out);
        }
        out.extend_from_slice(b"4:info");
        out.extend_from_slice(&self.info);
        if !self.web_seeds.is_empty() {
            out.extend_from_slice(b"8:url-list");
            strings(&self.web_seeds).encode(&mut out);
        }
        out.push(b'e');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";

    fn link() -> Metainfo {
        let text = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=n&tr=http%3A%2F%2Fa%2F&\
                    tr=udp%3A%2F%2Fb%3A1&ws=http%3A%2F%2Fw%2Ff";
        Metainfo::of_link(&Magnet::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_link_is_awaited_and_what_is_found_has_its_trackers_and_web_seeds() {
        let link = link();
        assert!(link.is_awaited() && link.geometry.piece_count() == 0 && link.name == "n");
        let found = link.found(INFO).unwrap();
        assert!(!found.is_awaited());
        assert_eq!((&found.name[..], &found.info[..]), ("a", INFO));
        assert_eq!(found.trackers, [["http://a/"], ["udp://b:1"]]);
        assert_eq!(found.web_seeds, ["http://w/f"]);
    }

    #[test]
    fn what_is_written_as_a_torrent_is_read_as_the_same() {
        let found = link().found(INFO).unwrap();
        let read = Metainfo::parse(&found.to_torrent()).unwrap();
        assert_eq!(read, found);
        let bare = Metainfo { trackers: Vec::new(), web_seeds: Vec::new(), ..found };
        assert_eq!(bare.to_torrent(), [b"d4:info", INFO, b"e"].concat());
    }

    /// The same parser and the same checks as for a file.
    #[test]
    fn t11_t25_an_info_dictionary_that_a_file_must_not_have_a_link_must_not_have() {
        let outside = b"d5:filesld6:lengthi1e4:pathl2:..1:aeee4:name1:a12:piece lengthi16384e\
                        6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        for info in [
            &outside[..],
            b"d6:lengthi1e4:name2:..12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae",
            b"d6:lengthi-1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae",
            b"d6:lengthi1e4:name1:a12:piece lengthi0e6:pieces20:aaaaaaaaaaaaaaaaaaaae",
            b"le",
            b"i1e",
            b"de",
            b"",
            &[b"l".repeat(1000), b"e".repeat(1000)].concat(),
            &[INFO, b"4:infode"].concat(),
            &[INFO, b"8:announce1:x"].concat(),
        ] {
            assert!(link().found(info).is_err(), "{}", info.escape_ascii());
        }
    }

    #[test]
    fn t25_the_limit_on_length_is_that_of_the_info_dictionary_alone() {
        let of_length = |bytes: usize| {
            let head = [&INFO[..INFO.len() - 1], b"1:x"].concat();
            let filler = bytes - head.len() - "67108000:".len() - 1;
            let out = [&head, format!("{filler}:").as_bytes(), &vec![b'z'; filler], b"e"].concat();
            assert_eq!(out.len(), bytes);
            out
        };
        for (bytes, taken) in
            [(METAINFO_BYTES_MAX - 1, true), (METAINFO_BYTES_MAX, true), (METAINFO_BYTES_MAX + 1, false)]
        {
            assert_eq!(link().found(&of_length(bytes)).is_ok(), taken, "{bytes}");
        }
    }
}
