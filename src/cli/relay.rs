//! `troc relay`: serve and fetch torrents until told to stop.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::base::limits::TORRENTS_MAX;
use crate::daemon::config::Role;
use crate::proto::metainfo::Metainfo;

use super::args::RelayArgs;
use super::error::CliError;
use super::node::{self, Plan};
use super::out;
use super::source::Source;

/// Where other clients are used to find a peer.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6881);

/// Serves until a signal comes.
pub fn run(args: &RelayArgs) -> Result<(), CliError> {
    node::check_switches(&args.node)?;
    if args.sources.is_empty() {
        return Err(CliError::NotYet(
            "a relay that starts empty: give at least one .torrent file".to_owned(),
        ));
    }
    if args.sources.len() > TORRENTS_MAX {
        return Err(CliError::Usage(format!("more than {TORRENTS_MAX} torrents: start a second relay")));
    }
    let torrents = read_all(&args.sources)?;
    if !args.dir.is_dir() {
        let shown = args.dir.display();
        return Err(CliError::Failed(format!("no such directory, {shown}: make it, or give another --dir")));
    }
    let listen = args.node.listen.unwrap_or(LISTEN);
    let plan = Plan { role: Role::Relay, torrents, dir: &args.dir, listen, sequential: false };
    node::run(plan, &args.node)
}

/// Each torrent once, however often it was named.
fn read_all(sources: &[String]) -> Result<Vec<Arc<Metainfo>>, CliError> {
    let (mut torrents, mut seen) = (Vec::new(), HashSet::new());
    for source in sources {
        let metainfo = Source::read_torrent(source)?;
        if seen.insert(metainfo.info_hash) {
            torrents.push(Arc::new(metainfo));
        } else {
            out::warn(&format!("{source} is a torrent that was named before"));
        }
    }
    Ok(torrents)
}
