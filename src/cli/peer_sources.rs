//! Where a node looks for peers besides its trackers: what the flags say, and what they leave open.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::base::limits::DHT_BOOTSTRAP_MAX;
use crate::daemon::config::Role;
use crate::daemon::discovery::{DhtSetup, DiscoveryConfig, LocalDiscovery};
use crate::engine::dht::Mode;
use crate::proto::metainfo::Metainfo;
use crate::proto::tracker::url::TrackerUrl;

use super::args::NodeArgs;
use super::error::CliError;

/// What the distributed hash table and the local network are used for by a node that accepts peers at
/// `listen`.
pub fn discovery(
    args: &NodeArgs,
    role: Role,
    listen: SocketAddr,
    torrents: &[Arc<Metainfo>],
    link_peers: &[(InfoHash, SocketAddr)],
) -> Result<DiscoveryConfig, CliError> {
    for node in &args.dht_bootstrap {
        let port = node.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) || args.dht_bootstrap.len() > DHT_BOOTSTRAP_MAX {
            return Err(CliError::Usage(format!(
                "bad --dht-bootstrap, {node}: name at most {DHT_BOOTSTRAP_MAX} nodes like 192.0.2.1:6881 or \
                 host.example:6881"
            )));
        }
    }
    let setup = || DhtSetup {
        listen: args.dht_listen,
        bootstrap: args.dht_bootstrap.clone(),
        // A `get` is soon gone: nobody should remember it as a node.
        mode: if role == Role::Relay { Mode::Serving } else { Mode::ReadOnly },
    };
    let uses_dht = uses_dht(args, listen, torrents, link_peers)?;
    let class = AddressClass::of(listen.ip());
    let on_lan = matches!(class, AddressClass::Private | AddressClass::LinkLocal);
    let lsd = if args.lsd || on_lan && !args.no_lsd { LocalDiscovery::On } else { LocalDiscovery::Off };
    Ok(DiscoveryConfig { dht: uses_dht.then(setup), lsd })
}

/// Whether anybody is found without trackers and peers.
pub const fn is_any(config: &DiscoveryConfig) -> bool {
    config.dht.is_some() || matches!(config.lsd, LocalDiscovery::On)
}

/// A closed network never asks the public one: neither a node that listens on this host alone, nor one that
/// was told of nothing but local addresses, unless it is asked to.
fn uses_dht(
    args: &NodeArgs,
    listen: SocketAddr,
    torrents: &[Arc<Metainfo>],
    link_peers: &[(InfoHash, SocketAddr)],
) -> Result<bool, CliError> {
    if args.no_dht {
        return Ok(false);
    }
    if !args.dht_bootstrap.is_empty() {
        return Ok(true);
    }
    let listen = args.dht_listen.unwrap_or(listen);
    if AddressClass::of(listen.ip()) == AddressClass::Loopback {
        return match args.dht {
            true => Err(CliError::Usage(format!(
                "--dht reaches nobody from {listen}: give --dht-bootstrap HOST:PORT of a node on this host, \
                 or --dht-listen 0.0.0.0:0"
            ))),
            false => Ok(false),
        };
    }
    let public = torrents.iter().any(|torrent| !torrent.private);
    Ok(args.dht || public && !is_closed(args, torrents, link_peers))
}

/// Whether peers and trackers are named, and all of them by local addresses.
fn is_closed(args: &NodeArgs, torrents: &[Arc<Metainfo>], link_peers: &[(InfoHash, SocketAddr)]) -> bool {
    let peers = args.peers.iter().map(|peer| peer.parse().ok().map(|peer: SocketAddr| peer.ip()));
    let peers = peers.chain(link_peers.iter().map(|(_, peer)| Some(peer.ip())));
    let trackers = torrents.iter().flat_map(|torrent| torrent.trackers.iter().flatten());
    let trackers = trackers.map(|url| TrackerUrl::parse(url).ok().and_then(|url| url.host().parse().ok()));
    let is_local = |address: &Option<IpAddr>| {
        let class = address.map(AddressClass::of);
        matches!(class, Some(AddressClass::Loopback | AddressClass::Private | AddressClass::LinkLocal))
    };
    let mut named = peers.chain(trackers).peekable();
    named.peek().is_some() && named.all(|address| is_local(&address))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn torrent(trackers: &[&str], private: bool) -> Arc<Metainfo> {
        let tiers: String = trackers.iter().map(|url| format!("l{}:{url}e", url.len())).collect();
        let info = "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa";
        let bytes = format!("d13:announce-listl{tiers}e4:info{info}7:privatei{}eee", u8::from(private));
        Arc::new(Metainfo::parse(bytes.as_bytes()).unwrap())
    }

    fn config(flags: &str, listen: &str, torrent: Arc<Metainfo>) -> Result<DiscoveryConfig, CliError> {
        config_with(flags, listen, torrent, &[])
    }

    fn config_with(
        flags: &str,
        listen: &str,
        torrent: Arc<Metainfo>,
        link_peers: &[(InfoHash, SocketAddr)],
    ) -> Result<DiscoveryConfig, CliError> {
        let line = format!("troc relay x --dir d {flags}");
        let Verb::Relay(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().verb else {
            panic!("no relay")
        };
        discovery(&args.node, Role::Relay, listen.parse().unwrap(), &[torrent], link_peers)
    }

    #[test]
    fn d4_a_closed_network_never_asks_the_public_table() {
        for (flags, listen, trackers, used) in [
            ("", "0.0.0.0:1", &[][..], true),
            ("--no-dht", "0.0.0.0:1", &[], false),
            ("", "127.0.0.1:1", &[], false),
            ("", "[::1]:1", &["http://example.com/announce"], false),
            ("--dht-bootstrap 127.0.0.1:5", "127.0.0.1:1", &[], true),
            ("--dht-bootstrap 127.0.0.1:5 --no-dht", "127.0.0.1:1", &[], false),
            ("--peer 127.0.0.1:5", "0.0.0.0:1", &[], false),
            ("--peer 10.0.0.1:5 --dht", "0.0.0.0:1", &[], true),
            ("--peer 10.0.0.1:5", "0.0.0.0:1", &["http://10.0.0.2:9/announce"], false),
            ("--peer 10.0.0.1:5", "0.0.0.0:1", &["http://example.com/announce"], true),
            ("--peer 8.8.8.8:5", "0.0.0.0:1", &[], true),
            ("--peer fleet.example:5", "0.0.0.0:1", &[], true),
            ("", "0.0.0.0:1", &["udp://127.0.0.1:9"], false),
            ("--dht-listen 0.0.0.0:0 --dht", "127.0.0.1:1", &[], true),
            ("--dht-listen 127.0.0.1:0", "0.0.0.0:1", &[], false),
        ] {
            let got = config(flags, listen, torrent(trackers, false)).unwrap();
            assert_eq!(got.dht.is_some(), used, "{flags} {listen} {trackers:?}");
        }
        assert!(config("", "0.0.0.0:1", torrent(&[], true)).unwrap().dht.is_none(), "only private torrents");
        for (peer, used) in [("127.0.0.1:5", false), ("10.0.0.1:5", false), ("8.8.8.8:5", true)] {
            let named = [(InfoHash([1; 20]), peer.parse().unwrap())];
            let got = config_with("", "0.0.0.0:1", torrent(&[], false), &named).unwrap();
            assert_eq!(got.dht.is_some(), used, "a link that names {peer}");
        }
        let error = config("--dht", "127.0.0.1:1", torrent(&[], false)).unwrap_err();
        assert!(error.to_string().contains("--dht-bootstrap"), "{error}");
        for bad in ["10.0.0.1", "10.0.0.1:0", "a:70000"] {
            let error = config(&format!("--dht-bootstrap {bad}"), "0.0.0.0:1", torrent(&[], false));
            assert!(error.unwrap_err().to_string().starts_with("bad --dht-bootstrap"), "{bad}");
        }
    }

    #[test]
    fn as_many_bootstrap_nodes_as_the_limit_and_no_more() {
        for count in [DHT_BOOTSTRAP_MAX - 1, DHT_BOOTSTRAP_MAX, DHT_BOOTSTRAP_MAX + 1] {
            let flags = "--dht-bootstrap 10.0.0.1:5 ".repeat(count);
            let got = config(&flags, "0.0.0.0:1", torrent(&[], false));
            assert_eq!(got.is_ok(), count <= DHT_BOOTSTRAP_MAX);
        }
    }

    #[test]
    fn d8_neighbours_are_spoken_to_only_when_asked_or_on_a_local_network() {
        for (flags, listen, on) in [
            ("", "0.0.0.0:1", false),
            ("", "127.0.0.1:1", false),
            ("", "8.8.8.8:1", false),
            ("--lsd", "0.0.0.0:1", true),
            ("", "192.168.1.5:1", true),
            ("--no-lsd", "192.168.1.5:1", false),
        ] {
            let got = config(flags, listen, torrent(&[], false)).unwrap().lsd;
            assert_eq!(got == LocalDiscovery::On, on, "{flags} {listen}");
        }
    }
}
