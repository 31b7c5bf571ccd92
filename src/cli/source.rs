//! SOURCE: a .torrent file or a magnet link.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::ids::InfoHash;
use crate::base::limits::METAINFO_BYTES_MAX;
use crate::proto::file_ranges::FileRanges;
use crate::proto::magnet::{Magnet, MagnetError};
use crate::proto::metainfo::Metainfo;

use super::error::CliError;
use super::out;

/// What a SOURCE turned out to be.
pub enum Source {
    /// A .torrent file.
    Torrent(Box<Metainfo>),
    /// A magnet link.
    Magnet(Box<Magnet>),
}

impl Source {
    /// Reads the file or parses the link.
    pub fn read(text: &str) -> Result<Self, CliError> {
        if is_magnet(text) {
            let magnet = Magnet::parse(text).map_err(|error| CliError::Failed(error.to_string()))?;
            return Ok(Self::Magnet(Box::new(magnet)));
        }
        let metainfo = read_file(Path::new(text))?;
        Ok(Self::Torrent(Box::new(metainfo)))
    }

    /// Reads a .torrent file, where only that will do: a magnet link says nothing of pieces.
    pub fn read_torrent(text: &str) -> Result<Metainfo, CliError> {
        if is_magnet(text) {
            return Err(CliError::Usage(
                "a magnet link has no piece hashes: give the .torrent file, or troc get the link into the \
                 directory, which checks what is there and fetches what is bad or missing"
                    .to_owned(),
            ));
        }
        read_file(Path::new(text))
    }
}

/// A torrent to run, and peers for it.
pub struct Named {
    /// Known, or [awaited](Metainfo::is_awaited).
    pub metainfo: Metainfo,
    /// `x.pe` of its link, resolved.
    pub peers: Vec<SocketAddr>,
    /// `so` of its link (BEP 53).
    pub files: Option<FileRanges>,
}

impl Named {
    /// Reads a .torrent file, or a magnet link of which the rest will be found. Peers of a link that cannot
    /// be resolved are named and left out.
    pub fn read(text: &str) -> Result<Self, CliError> {
        match Source::read(text)? {
            Source::Torrent(metainfo) => Ok(Self { metainfo: *metainfo, peers: Vec::new(), files: None }),
            Source::Magnet(magnet) => Self::of_link(&magnet),
        }
    }

    fn of_link(magnet: &Magnet) -> Result<Self, CliError> {
        let metainfo = Metainfo::of_link(magnet);
        let metainfo = metainfo.ok_or_else(|| CliError::Failed(MagnetError::NoHash.to_string()))?;
        let mut peers = Vec::new();
        for peer in &magnet.peers {
            match (peer.host.as_str(), peer.port).to_socket_addrs() {
                Ok(found) => peers.extend(found),
                Err(error) => out::warn(&format!("cannot find peer of the magnet link, {peer}: {error}")),
            }
        }
        Ok(Self { metainfo, peers, files: magnet.selection.clone() })
    }

    /// Which files its link names, as a node is told of it.
    pub fn link_files(&self) -> impl Iterator<Item = (InfoHash, FileRanges)> {
        self.files.iter().map(|files| (self.metainfo.info_hash, files.clone()))
    }

    /// Its peers as a node is told of them.
    pub fn link_peers(&self) -> impl Iterator<Item = (InfoHash, SocketAddr)> {
        self.peers.iter().map(|&peer| (self.metainfo.info_hash, peer))
    }
}

/// Reads and parses a .torrent file.
pub fn read_file(path: &Path) -> Result<Metainfo, CliError> {
    Metainfo::parse(&read_bytes(path)?)
        .map_err(|error| CliError::Failed(format!("bad torrent, {}: {error}", path.display())))
}

/// Whether a SOURCE is a link and no path.
pub fn is_magnet(text: &str) -> bool {
    text.trim_start().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("magnet:"))
}

/// At most [`METAINFO_BYTES_MAX`] bytes of a regular file; a FIFO or a device in its place cannot hold us up.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    let shown = path.display();
    let io = |error: std::io::Error| {
        CliError::Failed(format!("cannot read torrent, {shown}: {error}: check the path and its permissions"))
    };
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        let text = format!("not a regular file, {shown}: give the path of a .torrent file");
        return Err(CliError::Failed(text));
    }
    let mut bytes = Vec::new();
    file.take(METAINFO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_from_files_whatever_their_case() {
        assert!(is_magnet("magnet:?xt=urn:btih:00") && is_magnet(" MAGNET:?"));
        assert!(!is_magnet("magnet.torrent") && !is_magnet("é") && !is_magnet("magnet"));
    }

    #[test]
    fn devices_and_missing_files_are_refused_in_one_line() {
        for (path, why) in [("/dev/zero", "not a regular file"), ("/nonexistent", "cannot read torrent")] {
            let Err(error) = Source::read(path) else { panic!("{path} was read") };
            assert!(error.to_string().starts_with(why), "{error}");
        }
    }
}
