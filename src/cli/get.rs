//! `troc get`: fetch a torrent; what is there already is checked and kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::daemon::config::Role;
use crate::daemon::seeding::SeedGoal;

use super::args::GetArgs;
use super::error::CliError;
use super::node::{self, Plan};
use super::out;
use super::peer_sources;
use super::source::Named;

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
    let named = Named::read(&args.source)?;
    let listen = args.node.listen.unwrap_or(LISTEN);
    let role = Role::Get { seed: seed_goal(args) };
    let link_peers: Vec<_> = named.link_peers().collect();
    let link_files = named.link_files().collect();
    let torrents = vec![Arc::new(named.metainfo.clone())];
    let discovery = peer_sources::discovery(&args.node, role, listen, &torrents, &link_peers)?;
    if !peer_sources::is_any(&discovery) {
        check_peer_sources(args, &named)?;
    }
    let wanted = args.node.select.choose(&torrents)?;
    node::check_host()?;
    std::fs::create_dir_all(&args.output).map_err(|error| {
        let shown = args.output.display();
        CliError::Failed(format!(
            "cannot make directory, {shown}: {error}: check the path and its permissions"
        ))
    })?;
    let plan = Plan {
        role,
        torrents,
        wanted,
        link_peers,
        link_files,
        dir: &args.output,
        listen,
        tracker: None,
        sequential: args.sequential,
    };
    node::run(plan, &args.node)
}

/// Whether to serve on, and until when.
fn seed_goal(args: &GetArgs) -> Option<SeedGoal> {
    let goal = SeedGoal { ratio_thousandths: args.seed_ratio, time: args.seed_time };
    (args.seed || goal != SeedGoal::default()).then_some(goal)
}

/// Without a tracker and a peer nobody is ever asked; only who listens can still be found by others.
fn check_peer_sources(args: &GetArgs, named: &Named) -> Result<(), CliError> {
    let metainfo = &named.metainfo;
    let web_seeds = !args.node.web_seeds.is_empty() || !metainfo.web_seeds.is_empty();
    let trackers = metainfo.trackers.iter().any(|tier| !tier.is_empty());
    let peers = !args.node.peers.is_empty() || !named.peers.is_empty();
    // A web server has pieces, and does not say what they are.
    if web_seeds && !metainfo.is_awaited() || trackers || peers {
        return Ok(());
    }
    if let Some(address) = args.node.listen {
        out::warn(&format!(
            "no tracker in {}, no --peer and no --dht: waiting for peers to connect to {address}",
            args.source
        ));
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "nobody to fetch from, {}: it names no tracker; leave out --no-dht, give --peer ADDR:PORT, or \
         --listen ADDR:PORT and have peers connect",
        args.source
    )))
}
