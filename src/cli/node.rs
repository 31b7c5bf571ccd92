//! From the arguments of `get` and `relay` to a running node.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::InfoHash;
use crate::base::network::Grouping;
use crate::base::time::Span;
use crate::daemon;
use crate::daemon::NodeError;
use crate::daemon::config::{Identity, LanLimit, NodeConfig, RateLimits, Role};
use crate::engine::announcer::Reach;
use crate::engine::exchange::Exchange;
use crate::io::uring;
use crate::proto::file_ranges::FileRanges;
use crate::proto::metainfo::Metainfo;
use crate::proto::urls;

use super::args::{LimitArgs, NodeArgs};
use super::error::CliError;
use super::out;
use super::peer_sources::discovery;
use super::progress::NodeProgress;
use super::select::Wanted;

/// Between two looks of a progress bar.
const BAR_INTERVAL: Span = Span::from_ms(250);

/// The same, of however many torrents.
const BAR_INTERVAL_MAX: Span = Span::from_secs(5);

/// Torrents of which a bar shows the state as often as that.
const TORRENTS_PER_BAR_INTERVAL: u64 = 500;

/// What a verb settles before the arguments that both have in common.
pub struct Plan<'a> {
    /// `get` or `relay`.
    pub role: Role,
    /// Parsed and validated, or what a magnet link tells.
    pub torrents: Vec<Arc<Metainfo>>,
    /// What is wanted of each.
    pub wanted: Vec<Wanted>,
    /// Files that links name, and of which torrent.
    pub link_files: Vec<(InfoHash, FileRanges)>,
    /// Peers that links name, and for which torrent.
    pub link_peers: Vec<(InfoHash, SocketAddr)>,
    /// Where the payload lies.
    pub dir: &'a Path,
    /// Where to accept peers.
    pub listen: SocketAddr,
    /// Where to be a tracker.
    pub tracker: Option<SocketAddr>,
    /// Pieces in order.
    pub sequential: bool,
}

/// What can be found wrong without a look at the host.
pub fn check_switches(args: &NodeArgs) -> Result<(), CliError> {
    if let Some(url) = args.web_seeds.iter().find(|url| urls::web_seed(url.as_bytes()).is_none()) {
        let remedy = "write it like http://host/path or https://host/path";
        return Err(CliError::Usage(format!("bad web seed, {url}: {remedy}")));
    }
    let limits = &args.limits;
    for (limit, flag) in [
        (limits.upload_limit, "--upload-limit"),
        (limits.download_limit, "--download-limit"),
        (limits.torrent_upload_limit, "--torrent-upload-limit"),
        (limits.torrent_download_limit, "--torrent-download-limit"),
        (limits.lan_upload_limit, "--lan-upload-limit"),
        (limits.lan_download_limit, "--lan-download-limit"),
    ] {
        if limit == Some(0) {
            return Err(CliError::Usage(format!(
                "{flag} 0 would stop everything: leave it out for no limit"
            )));
        }
    }
    Ok(())
}

/// Refuses a host on which a node cannot run, before anything is written.
pub fn check_host() -> Result<(), CliError> {
    uring::check().map_err(|error| CliError::Failed(error.to_string()))
}

/// Runs a node and shows how it goes until it ends.
pub fn run(plan: Plan<'_>, args: &NodeArgs) -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        out::warn("running as root; a node needs no privileges: give it a user of its own");
    }
    if let Some(address) = args.metrics.filter(|address| !address.ip().to_canonical().is_loopback()) {
        out::warn(&format!(
            "metrics on {address} are open to whoever reaches it, there is no authentication: guard the \
             port, or give --metrics a loopback address"
        ));
    }
    let config = config(plan, args)?;
    let mut progress = NodeProgress::new(args.json);
    let ended = daemon::run(config, &mut |status| progress.update(status));
    let last = match &ended {
        Ok(last) => Some(last),
        Err(NodeError::Unfinished(last)) => Some(&**last),
        Err(_) => None,
    };
    last.map_or(Ok(()), |last| progress.finish(last))?;
    ended.map(drop).map_err(|error| CliError::Failed(error.to_string()))
}

/// Where the state lies of a node whose payload is in `dir`; refused inside of that.
pub fn state_path(args: &NodeArgs, dir: &Path) -> Result<PathBuf, CliError> {
    let state = state_dir_here(args.state.as_deref())?;
    check_apart(&state, dir)?;
    Ok(state)
}

fn config(plan: Plan<'_>, args: &NodeArgs) -> Result<NodeConfig, CliError> {
    let state_dir = state_path(args, plan.dir)?;
    // A look at very many torrents takes milliseconds: a bar of them moves slowly.
    let slower = 1 + plan.torrents.len() as u64 / TORRENTS_PER_BAR_INTERVAL;
    let bar_interval = Span(BAR_INTERVAL.0.saturating_mul(slower).min(BAR_INTERVAL_MAX.0));
    let json_interval = Span::from_ms(args.status_interval_ms.into());
    let status_interval = if args.json { json_interval } else { bar_interval };
    let discovery = discovery(args, plan.role, plan.listen, &plan.torrents, &plan.link_peers)?;
    Ok(NodeConfig {
        role: plan.role,
        torrents: plan.torrents,
        wanted: plan.wanted,
        file_progress: args.select.file_progress,
        link_peers: plan.link_peers,
        link_files: plan.link_files,
        selection: args.select.selection()?,
        dir: plan.dir.to_owned(),
        state_dir,
        listen: Some(plan.listen),
        metrics: args.metrics,
        tracker: plan.tracker,
        peers: resolve(&args.peers)?,
        web_seeds: args.web_seeds.clone(),
        announce: if args.announce_all { Reach::AllTiers } else { Reach::FirstTier },
        discovery,
        cores: args.cores.map(usize::from),
        cache_bytes: args.cache,
        encryption: args.encryption.into(),
        zero_copy: args.zero_copy.into(),
        upload: RateLimits {
            node: args.limits.upload_limit,
            torrent: args.limits.torrent_upload_limit,
            lan: lan_limit(args.limits.lan_upload_limit, &args.limits),
        },
        download: RateLimits {
            node: args.limits.download_limit,
            torrent: args.limits.torrent_download_limit,
            lan: lan_limit(args.limits.lan_download_limit, &args.limits),
        },
        identity: if args.no_identity { Identity::Address } else { Identity::Signed },
        exchange: if args.no_pex { Exchange::Off } else { Exchange::On },
        sequential: plan.sequential,
        unsynced_bytes: args.unsynced,
        grouping: grouping(args)?,
        ledger_interval: Span::from_ms(args.ledger_interval_ms.into()),
        no_peers_timeout: Span::from_ms(args.no_peers_timeout_ms.into()),
        status_interval,
    })
}

const fn lan_limit(own: Option<u64>, args: &LimitArgs) -> LanLimit {
    match own {
        Some(rate) => LanLimit::Own(rate),
        None if args.lan_unlimited => LanLimit::Exempt,
        None => LanLimit::Shared,
    }
}

fn grouping(args: &NodeArgs) -> Result<Grouping, CliError> {
    Grouping::new(args.friends.clone(), args.group_prefix)
        .map_err(|error| CliError::Usage(format!("--friends: {error}")))
}

/// Every address of every peer that was named.
fn resolve(peers: &[String]) -> Result<Vec<SocketAddr>, CliError> {
    let mut addresses = Vec::new();
    for peer in peers {
        let port = peer.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            let remedy = "write it like 192.0.2.1:6881, [2001:db8::1]:6881 or host.example:6881";
            return Err(CliError::Usage(format!("bad peer, {peer}: {remedy}")));
        }
        let found = peer.to_socket_addrs().map_err(|error| {
            CliError::Failed(format!("cannot find peer, {peer}: {error}: check the name"))
        })?;
        addresses.extend(found);
    }
    Ok(addresses)
}

/// The state directory by `--state` and the environment.
pub fn state_dir_here(given: Option<&Path>) -> Result<PathBuf, CliError> {
    state_dir(given, |name| std::env::var_os(name).map(PathBuf::from))
}

/// `--state`, TROC_STATE, XDG_STATE_HOME/troc or ~/.local/state/troc: the first that is set.
fn state_dir(given: Option<&Path>, env: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, CliError> {
    let set = |name: &str| env(name).filter(|path| !path.as_os_str().is_empty());
    given
        .map(Path::to_owned)
        .or_else(|| set("TROC_STATE"))
        // The XDG specification tells programs to ignore relative paths.
        .or_else(|| set("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("troc")))
        .or_else(|| set("HOME").map(|path| path.join(".local/state/troc")))
        .ok_or_else(|| {
            CliError::Usage("no place for the state, HOME is not set: give --state DIR".to_owned())
        })
}

/// State below the payload could be overwritten by a torrent that names its files (T20).
fn check_apart(state: &Path, dir: &Path) -> Result<(), CliError> {
    if resolved(state).starts_with(resolved(dir)) {
        return Err(CliError::Usage(format!(
            "state inside the payload, {} in {}: give --state a directory outside",
            state.display(),
            dir.display()
        )));
    }
    Ok(())
}

/// The absolute path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            return real.join(rest);
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lies_where_it_was_asked_for_first() {
        let find = |given: Option<&str>, set: &[(&str, &str)]| {
            let env =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            state_dir(given.map(Path::new), env).ok()
        };
        let all = [("TROC_STATE", "/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(find(Some("s"), &all), Some("s".into()));
        assert_eq!(find(None, &all), Some("/t".into()));
        assert_eq!(find(None, &all[1..]), Some("/x/troc".into()));
        assert_eq!(find(None, &all[2..]), Some("/h/.local/state/troc".into()));
        assert_eq!(
            find(None, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]),
            Some("/h/.local/state/troc".into())
        );
        assert_eq!(find(None, &[("HOME", "")]), None);
    }

    #[test]
    fn t20_state_inside_the_payload_is_refused_through_links_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("payload")).unwrap();
        std::os::unix::fs::symlink("payload", path("link")).unwrap();
        for (state, apart) in [
            ("payload", false),
            ("payload/state", false),
            ("link/a/b", false),
            ("payload2", true),
            ("state/payload", true),
        ] {
            assert_eq!(check_apart(&path(state), &path("payload")).is_ok(), apart, "{state}");
        }
    }

    #[test]
    fn local_peers_are_apart_if_they_are_told_to_be() {
        let args = |lan_unlimited| LimitArgs {
            upload_limit: Some(1),
            download_limit: None,
            torrent_upload_limit: None,
            torrent_download_limit: None,
            lan_upload_limit: None,
            lan_download_limit: None,
            lan_unlimited,
        };
        assert_eq!(lan_limit(None, &args(false)), LanLimit::Shared);
        assert_eq!(lan_limit(Some(7), &args(false)), LanLimit::Own(7));
        assert_eq!(lan_limit(None, &args(true)), LanLimit::Exempt);
    }

    #[test]
    fn peers_are_addresses_with_a_port() {
        let resolve = |peer: &str| resolve(&[peer.to_owned()]).map_err(|error| error.exit_status());
        assert_eq!(resolve("127.0.0.1:6881"), Ok(vec!["127.0.0.1:6881".parse().unwrap()]));
        assert_eq!(resolve("[::1]:1"), Ok(vec!["[::1]:1".parse().unwrap()]));
        for peer in ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "", ":", "::1"] {
            assert!(resolve(peer).is_err(), "{peer}");
        }
    }
}
