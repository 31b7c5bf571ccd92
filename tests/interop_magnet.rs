//! Magnet links between `troc` and each other client, both directions: who has only a link gets the metadata
//! from the other (BEP 9), then the payload, compared by SHA-256.

mod support;

use std::path::Path;

use support::clients::{Client, Job, Kind};
use support::node::{Node, get, relay};
use support::scene::Scene;

/// A torrent of 16 MiB whose metadata has two pieces.
fn scene() -> Scene {
    Scene::new(16 << 20, 16 << 10, 61)
}

impl Scene {
    /// A link with more parts behind its hash.
    fn link(&self, parts: &str) -> String {
        format!("magnet:?xt=urn:btih:{}&dn=payload.bin{parts}", self.torrent.info_hash_hex())
    }

    /// One that names the tracker.
    fn tracked_link(&self) -> String {
        let url: String = url::form_urlencoded::byte_serialize(self.tracker.url().as_bytes()).collect();
        self.link(&format!("&tr={url}"))
    }

    /// Starts the other client, a fetcher by `link`.
    fn client_by(&self, kind: Kind, link: Option<&str>) -> Client {
        let job = if link.is_some() { Job::Fetch } else { Job::Seed };
        self.start(job, |start| {
            link.map_or_else(|| kind.start(start), |link| kind.start_by_link(start, link))
        })
    }

    /// Starts a relay that has all, and announces itself to the tracker if that is how it is to be found.
    fn relay(&self, tracked: bool) -> (Node, std::net::SocketAddr) {
        let mut command = relay(&self.file(tracked), &self.path("source"), self.temp.path());
        let mut node = Node::spawn("relay", &mut command, self.temp.path());
        let addr = node.wait_seeding();
        if tracked {
            self.tracker.wait_complete(self.torrent.info_hash, addr.port());
        }
        (node, addr)
    }
}

/// `client` seeds; `troc get` has a link that names its address, or the tracker.
fn seeds_to_get(kind: Kind, tracked: bool) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let client = scene.client_by(kind, None);
    client.wait_ready(&scene.tracker);
    let link = if tracked { scene.tracked_link() } else { scene.link(&format!("&x.pe={}", client.addr)) };
    let mut command = get(Path::new(&link), &scene.path("fetched"), scene.temp.path());
    Node::spawn("get", &mut command, scene.temp.path()).expect_done();
    scene.assert_fetched("troc get");
}

/// `troc relay` seeds; `client` has a link that names the tracker.
fn fetches_from_relay(kind: Kind) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let (_node, _) = scene.relay(true);
    let mut client = scene.client_by(kind, Some(&scene.tracked_link()));
    client.wait_complete(&scene.tracker);
    scene.assert_fetched(&format!("{kind:?}"));
}

macro_rules! directions {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn gives_the_metadata_to_get_found_by_tracker() {
                seeds_to_get($kind, true);
            }

            #[test]
            fn gives_the_metadata_to_get_named_by_the_link() {
                seeds_to_get($kind, false);
            }

            #[test]
            fn is_given_the_metadata_by_a_relay_found_by_tracker() {
                fetches_from_relay($kind);
            }
        }
    };
}

directions!(aria2, Kind::Aria2);
directions!(libtorrent, Kind::Libtorrent);
directions!(qbittorrent, Kind::Qbittorrent);
directions!(transmission, Kind::Transmission);

#[test]
fn libtorrent_is_given_the_metadata_by_a_relay_named_by_its_link() {
    if !Kind::Libtorrent.available() {
        return;
    }
    let scene = scene();
    let (_node, addr) = scene.relay(false);
    let mut client = scene.client_by(Kind::Libtorrent, Some(&scene.link(&format!("&x.pe={addr}"))));
    client.wait_complete(&scene.tracker);
    scene.assert_fetched("libtorrent");
}
