//! From a magnet link (BEP 9) to the torrent that it names.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::build::strings;
use super::{Metainfo, MetainfoError, Reading, V2, V2File, WantedLayer};
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;
use crate::base::limits::METAINFO_BYTES_MAX;
use crate::base::piece_hashes::PieceHashes;
use crate::base::units::BLOCK_BYTES;
use crate::hash::merkle::Hash;
use crate::proto::bencode::Item;
use crate::proto::magnet::{Magnet, Match, Topics};

/// What a piece layer takes in a .torrent file beside its hashes, with room to spare: its root, two lengths,
/// and what stands around all layers.
const LAYER_KEY_BYTES: usize = 96;

/// What an info dictionary that was found comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole torrent.
    Whole(Box<Metainfo>),
    /// One whose piece layers are to be had from peers first.
    Bare(Box<Bare>),
}

/// An info dictionary of v2 that was found and checked; only [`Metainfo::found_with`] makes a torrent of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// The dictionary.
    pub info: Bytes,
    /// By what peers know it that speak v2.
    pub v2_name: InfoHash,
    /// Only its trackers may name peers (BEP 27).
    pub private: bool,
    /// What is missing, each layer once.
    pub layers: Vec<WantedLayer>,
    /// Whether its v1 part is of use without them: of a hybrid that its link names for v1.
    pub has_v1: bool,
}

impl Metainfo {
    /// What a link tells of a torrent, until its info dictionary is found: hashes, trackers, web seeds and a
    /// name to show. It has neither files nor pieces, and [`is_awaited`](Self::is_awaited) says so. `None` if
    /// the link has no hash, which none lacks that was parsed.
    pub fn of_link(magnet: &Magnet) -> Option<Self> {
        let info_hash = magnet.first_name()?;
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
            v2_left_out: false,
            v2: magnet.v2_hash.map(|info_hash| V2 { info_hash, files: Vec::new() }),
        })
    }

    /// Whether this is all that a link tells, and the info dictionary is yet to be found.
    pub fn is_awaited(&self) -> bool {
        self.info.is_empty()
    }

    /// By what its info dictionary is known, of a link.
    pub fn topics(&self) -> Topics {
        let v2 = self.v2.as_ref();
        let only_v2 = v2.is_some_and(|v2| v2.short_info_hash() == self.info_hash);
        Topics { v1: (!only_v2).then_some(self.info_hash), v2: v2.map(|v2| v2.info_hash) }
    }

    /// What the info dictionary that was found comes to: every check of a .torrent file, and the trackers and
    /// web seeds of `self`. The caller has compared the hashes.
    pub fn found(&self, info: &[u8]) -> Result<Found, MetainfoError> {
        if info.len() > METAINFO_BYTES_MAX {
            return Err(MetainfoError::TooLong { bytes: info.len() });
        }
        let reading = Reading::of(&[b"d4:info", info, b"e"].concat())?;
        if reading.metainfo.info != info {
            // A dictionary and something behind it.
            return Err(MetainfoError::Malformed { key: "info" });
        }
        let by_v1 = self.topics().v1.is_some();
        let Some(v2) = &reading.metainfo.v2 else {
            // By its v2 hash nobody knows a torrent of v1.
            let missing = MetainfoError::Missing { key: "info.meta version" };
            return if by_v1 { reading.whole().map(|found| self.adopt(found)) } else { Err(missing) };
        };
        let has_v1 = reading.metainfo.has_v1() && by_v1;
        let (bare, bytes) = bare(&reading.metainfo, v2, has_v1);
        if bare.layers.is_empty() || bytes > METAINFO_BYTES_MAX && has_v1 {
            return reading.whole().map(|found| self.adopt(found));
        }
        if bytes > METAINFO_BYTES_MAX {
            return Err(MetainfoError::TooLong { bytes });
        }
        Ok(Found::Bare(Box::new(bare)))
    }

    /// What is missing of a hybrid that is what its v1 part says for want of its piece layers; `None` of
    /// anything else.
    pub fn left_out(&self) -> Option<Bare> {
        if !self.v2_left_out {
            return None;
        }
        let reading = Reading::of(&[b"d4:info", &self.info[..], b"e"].concat()).ok()?;
        let (bare, bytes) = bare(&reading.metainfo, reading.metainfo.v2.as_ref()?, true);
        (bytes <= METAINFO_BYTES_MAX).then_some(bare)
    }

    /// The torrent of an info dictionary and the piece layers that it lacks, by their roots: as it would be
    /// read from a .torrent file that has them. Without any a hybrid is its v1 part.
    pub fn found_with(
        &self,
        bare: &Bare,
        layers: Option<&BTreeMap<Hash, Vec<Hash>>>,
    ) -> Result<Self, MetainfoError> {
        let mut torrent = [b"d4:info", &bare.info[..]].concat();
        if let Some(layers) = layers {
            encode_layers(layers.iter().map(|(root, layer)| (root, &layer[..])), &mut torrent);
        }
        torrent.push(b'e');
        Self::parse(&torrent).map(|found| self.adopted(found))
    }

    /// The torrent that was kept for this link, from the bytes of its .torrent file; `None` if it is another
    /// one.
    pub fn recalled(&self, torrent: &[u8]) -> Result<Option<Self>, MetainfoError> {
        let found = Reading::of(torrent)?.whole()?;
        let right = self.topics().judge(&found.info) == Match::Right;
        Ok(right.then(|| self.adopted(found)))
    }

    fn adopt(&self, found: Self) -> Found {
        Found::Whole(Box::new(self.adopted(found)))
    }

    /// `found` with the trackers and web seeds of a link.
    fn adopted(&self, mut found: Self) -> Self {
        found.trackers.clone_from(&self.trackers);
        found.web_seeds.clone_from(&self.web_seeds);
        found
    }

    /// A .torrent file that says the same: info dictionary, piece layers, trackers and web seeds.
    pub fn to_torrent(&self) -> Vec<u8> {
        let mut out = b"d".to_vec();
        if !self.trackers.is_empty() {
            let tiers = self.trackers.iter().map(|tier| strings(tier)).collect();
            out.extend_from_slice(b"13:announce-list");
            Item::List(tiers).encode(&mut out);
        }
        out.extend_from_slice(b"4:info");
        out.extend_from_slice(&self.info);
        if let Some(v2) = &self.v2 {
            // One piece is its own layer, and is not told.
            let long = v2.files.iter().filter(|file| file.pieces.len() > 1);
            encode_layers(long.map(|V2File { pieces_root, layer, .. }| (pieces_root, &layer[..])), &mut out);
        }
        if !self.web_seeds.is_empty() {
            out.extend_from_slice(b"8:url-list");
            strings(&self.web_seeds).encode(&mut out);
        }
        out.push(b'e');
        out
    }
}

/// What is missing of a torrent, and the bytes of a .torrent file that had it.
fn bare(metainfo: &Metainfo, v2: &V2, has_v1: bool) -> (Bare, usize) {
    let layers: BTreeMap<Hash, WantedLayer> =
        v2.bare_files().map(|file| (file.pieces_root, file.wanted_layer())).collect();
    let of_layer = |layer: &WantedLayer| LAYER_KEY_BYTES + layer.hashes() as usize * size_of::<Hash>();
    let bytes = metainfo.info.len() + layers.values().map(of_layer).sum::<usize>();
    let (info, v2_name, layers) =
        (metainfo.info.clone(), v2.short_info_hash(), layers.into_values().collect());
    (Bare { info, v2_name, private: metainfo.private, layers, has_v1 }, bytes)
}

/// Appends `piece layers` of a .torrent file, key and value.
fn encode_layers<'a>(layers: impl Iterator<Item = (&'a Hash, &'a [Hash])>, out: &mut Vec<u8>) {
    let layers = layers.map(|(root, layer)| (&root[..], Item::Bytes(layer.as_flattened())));
    out.extend_from_slice(b"12:piece layers");
    Item::Dict(layers.collect()).encode(out);
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

    /// What is whole as soon as its info dictionary is found.
    fn whole(info: &[u8]) -> Metainfo {
        match link().found(info) {
            Ok(Found::Whole(whole)) => *whole,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_link_is_awaited_and_what_is_found_has_its_trackers_and_web_seeds() {
        let link = link();
        assert!(link.is_awaited() && link.geometry.piece_count() == 0 && link.name == "n");
        let found = whole(INFO);
        assert!(!found.is_awaited());
        assert_eq!((&found.name[..], &found.info[..]), ("a", INFO));
        assert_eq!(found.trackers, [["http://a/"], ["udp://b:1"]]);
        assert_eq!(found.web_seeds, ["http://w/f"]);
    }

    #[test]
    fn what_is_written_as_a_torrent_is_read_as_the_same() {
        let found = whole(INFO);
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
