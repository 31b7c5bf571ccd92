//! `troc get`: fetch a torrent; what is there already is checked and kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::daemon::config::Role;
use crate::daemon::seeding::SeedGoal;
use crate::proto::metainfo::Metainfo;

use super::args::GetArgs;
use super::error::CliError;
use super::node::{self, Plan};
use super::out;
use super::peer_sources;
use super::source::Source;

/// Peers may come in on any free port, so that fetchers of one torrent find each other by its tracker.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Fetches until all is there.
pub fn run(args: &GetArgs) -> Result<(), CliError> {
    node::check_switches(&args.node)?;
    if args.seed_ratio == Some(0) {
        let text =
            "--seed-ratio 0 is reached at once: leave it out, or give --seed to serve on without an end";
        return Err(CliError::Usage(text.to_owned()));
    }
    let metainfo = Arc::new(Source::read_torrent(&args.source)?);
    let listen = args.node.listen.unwrap_or(LISTEN);
    let role = Role::Get { seed: seed_goal(args) };
    let discovery = peer_sources::discovery(&args.node, role, listen, std::slice::from_ref(&metainfo))?;
    if !peer_sources::is_any(&discovery) {
        check_peer_sources(args, &metainfo)?;
    }
    node::check_host()?;
    std::fs::create_dir_all(&args.output).map_err(|error| {
        let shown = args.output.display();
        CliError::Failed(format!(
            "cannot make directory, {shown}: {error}: check the path and its permissions"
        ))
    })?;
    let plan =
        Plan { role, torrents: vec![metainfo], dir: &args.output, listen, sequential: args.sequential };
    node::run(plan, &args.node)
}

/// Whether to serve on, and until when.
fn seed_goal(args: &GetArgs) -> Option<SeedGoal> {
    let goal = SeedGoal { ratio_thousandths: args.seed_ratio, time: args.seed_time };
    (args.seed || goal != SeedGoal::default()).then_some(goal)
}

/// Without a tracker and a peer nobody is ever asked; only who listens can still be found by others.
fn check_peer_sources(args: &GetArgs, metainfo: &Metainfo) -> Result<(), CliError> {
    if !args.node.peers.is_empty() || metainfo.trackers.iter().any(|tier| !tier.is_empty()) {
        return Ok(());
    }
    let seeds = match metainfo.web_seeds.is_empty() {
        true => "",
        false => " (web seeds: not yet)",
    };
    if let Some(address) = args.node.listen {
        out::warn(&format!(
            "no tracker in {}{seeds}, no --peer and no --dht: waiting for peers to connect to {address}",
            args.source
        ));
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "nobody to fetch from, {}: it names no tracker{seeds}; leave out --no-dht, give --peer ADDR:PORT, or \
         --listen ADDR:PORT and have peers connect",
        args.source
    )))
}
