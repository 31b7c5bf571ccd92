//! `troc relay`: serve and fetch torrents until told to stop.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::limits::TORRENTS_MAX;
use crate::daemon::config::Role;
use crate::daemon::store::{Library, Remembered, StateDir, StoreError};
use crate::proto::metainfo::Metainfo;

use super::args::RelayArgs;
use super::error::CliError;
use super::node::{self, Plan};
use super::out;
use super::source::{Named, is_magnet, read_bytes, read_file};

/// Where other clients are used to find a peer.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6881);

/// Serves until a signal comes.
pub fn run(args: &RelayArgs) -> Result<(), CliError> {
    node::check_switches(&args.node)?;
    if !args.dir.is_dir() {
        let shown = args.dir.display();
        return Err(CliError::Failed(format!("no such directory, {shown}: make it, or give another --dir")));
    }
    let named = read_all(&args.sources)?;
    node::check_host()?;
    let failed = |error: StoreError| CliError::Failed(error.to_string());
    let state = StateDir::open(&node::state_path(&args.node, &args.dir)?).map_err(failed)?;
    let mut library = state.library(&args.dir).map_err(failed)?;
    let (mut link_peers, mut link_files) = (Vec::new(), Vec::new());
    let torrents = match named.is_empty() {
        true => recall(&library, &args.dir)?,
        false => {
            remember_all(&mut library, &named);
            link_peers.extend(named.iter().flat_map(|(named, _)| named.link_peers()));
            link_files.extend(named.iter().flat_map(|(named, _)| named.link_files()));
            named.into_iter().map(|(wanted, _)| Arc::new(wanted.metainfo)).collect()
        }
    };
    let listen = args.node.listen.unwrap_or(LISTEN);
    let tracker = args.tracker;
    let wanted = args.node.select.choose(&torrents)?;
    let plan = Plan {
        role: Role::Relay,
        torrents,
        wanted,
        link_peers,
        link_files,
        dir: &args.dir,
        listen,
        tracker,
        sequential: false,
    };
    node::run(plan, &args.node)
}

/// All that was relayed in this directory before. One that cannot be read is named, and the others go on.
fn recall(library: &Library, dir: &Path) -> Result<Vec<Arc<Metainfo>>, CliError> {
    let mut torrents = Vec::new();
    for (hash, path) in library.torrents() {
        let remedy = "left out; give its .torrent as SOURCE to have it remembered again";
        match read_file(&path) {
            Ok(metainfo) if metainfo.info_hash == hash => torrents.push(Arc::new(metainfo)),
            Ok(_) => out::warn(&format!("another torrent than its name says, {}: {remedy}", path.display())),
            Err(error) => out::warn(&format!("{error}: {remedy}")),
        }
    }
    check_count(torrents.len())?;
    if torrents.is_empty() {
        return Err(CliError::Usage(format!(
            "nothing to relay, {}: no torrent was relayed there with this state directory; give .torrent \
             files, a directory of them, or magnet links as SOURCE",
            dir.display()
        )));
    }
    Ok(torrents)
}

/// Each torrent once, however often it was named, and its file; a link has none.
fn read_all(sources: &[String]) -> Result<Vec<(Named, Option<PathBuf>)>, CliError> {
    let (links, files): (Vec<_>, Vec<_>) = sources.iter().partition(|source| is_magnet(source));
    let (mut torrents, mut seen) = (Vec::new(), HashSet::new());
    let mut add = |wanted: Named, path: Option<PathBuf>, source: &str| {
        if seen.insert(wanted.metainfo.info_hash) {
            torrents.push((wanted, path));
        } else {
            out::warn(&format!("{source} is a torrent that was named before"));
        }
    };
    for path in expand(&files)? {
        let shown = path.display().to_string();
        add(Named { metainfo: read_file(&path)?, peers: Vec::new(), files: None }, Some(path), &shown);
    }
    for link in links {
        add(Named::read(link)?, None, link);
    }
    check_count(torrents.len())?;
    Ok(torrents)
}

/// Has the next start know the torrents; links only once what they name was found. Their files are read
/// again rather than held all in memory: one that has changed since is found out by the next start. The
/// first that cannot be kept ends it.
fn remember_all(library: &mut Library, torrents: &[(Named, Option<PathBuf>)]) {
    for (wanted, path) in torrents {
        let (metainfo, Some(path)) = (&wanted.metainfo, path) else { continue };
        // What is known of a hybrid may be more than its file says: its piece layers.
        if metainfo.v2_left_out && library.torrents().any(|(hash, _)| hash == metainfo.info_hash) {
            continue;
        }
        let kept = read_bytes(path).map_err(|error| error.to_string()).and_then(|bytes| {
            library.remember(metainfo.info_hash, &bytes).map_err(|error| error.to_string())
        });
        let why = match kept {
            Ok(Remembered::Yes) => continue,
            Ok(Remembered::Full) => format!("the state directory has {TORRENTS_MAX} already"),
            Err(error) => error,
        };
        out::warn(&format!("a start without SOURCE will not know all torrents: {why}"));
        return;
    }
}

/// The .torrent files that are meant: each source, or what it has of them if it is a directory, sorted
/// and without those below.
fn expand(sources: &[impl AsRef<std::ffi::OsStr>]) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for source in sources.iter().map(PathBuf::from) {
        if source.is_dir() {
            paths.extend(torrents_in(&source)?);
        } else {
            paths.push(source);
        }
        check_count(paths.len())?;
    }
    Ok(paths)
}

fn torrents_in(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let shown = dir.display();
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot read directory, {shown}: {error}: check its permissions"))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "torrent") {
            paths.push(path);
            check_count(paths.len())?;
        }
    }
    if paths.is_empty() {
        return Err(CliError::Failed(format!(
            "no .torrent files, {shown}: give a directory that has some, or a file"
        )));
    }
    paths.sort();
    Ok(paths)
}

fn check_count(torrents: usize) -> Result<(), CliError> {
    if torrents > TORRENTS_MAX {
        let text = format!("more than {TORRENTS_MAX} torrents: start a second relay with some of them");
        return Err(CliError::Usage(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_torrents_as_the_limit_and_no_more() {
        assert!(check_count(TORRENTS_MAX - 1).is_ok() && check_count(TORRENTS_MAX).is_ok());
        assert!(matches!(check_count(TORRENTS_MAX + 1), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_directory_stands_for_its_torrents_sorted_and_without_those_below() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("below")).unwrap();
        for name in ["b.torrent", "a.torrent", "c.txt", "torrent", "below/d.torrent"] {
            std::fs::write(path(name), b"").unwrap();
        }
        let text = |path: &Path| path.display().to_string();
        let sources = [text(&path("c.txt")), text(dir.path())];
        let want = [path("c.txt"), path("a.torrent"), path("b.torrent")];
        assert_eq!(expand(&sources).unwrap(), want);
        assert!(expand(&[text(&path("below"))]).is_ok());
        std::fs::remove_file(path("below/d.torrent")).unwrap();
        let error = expand(&[text(&path("below"))]).unwrap_err();
        assert!(error.exit_status() == 1 && error.to_string().starts_with("no .torrent files, "), "{error}");
    }
}
