//! Links whose metadata nobody has but peers that connect to us: nobody is named to `troc get`, or nobody who
//! can be dialled.

use socket2::{Domain, Socket, Type};

use super::wire::{Peer, Said, handshake, message};
use super::*;

/// More than one link ever speaks with.
const CROWD: usize = 16;

impl Scene {
    /// `troc get` of a link, which waits for peers to connect.
    fn wait_for_peers(&self, parts: &str, flags: &[&str]) -> (Node, SocketAddr) {
        let mut command = self.get(&self.link(parts));
        command.args(["--listen", "127.0.0.1:0", "--no-dht", "--no-lsd"]).args(flags);
        let mut node = Node::spawn("get", &mut command, self.temp.path());
        let addr = node.wait_listening();
        (node, addr)
    }

    /// A relay that has all and dials `peer`; nobody is told of it.
    fn seed_that_dials(&self, peer: SocketAddr, flags: &[&str]) -> Node {
        let file = self.torrent.write(&self.path("seed.torrent"), None);
        let mut command = relay(&file, &self.path("source"), self.temp.path());
        command.arg("--peer").arg(peer.to_string()).args(flags);
        Node::spawn("relay", &mut command, self.temp.path())
    }

    fn assert_fetched(&self, mut node: Node) {
        node.expect_done();
        self.torrent.assert_identical(&self.path("fetched"), "troc get");
    }

    /// A handshake.
    fn hello(&self) -> Vec<u8> {
        handshake(&self.torrent.info_hash, b"-XX0003-by-hand-1234")
    }
}

/// Both sides with a policy of encryption: a plain connection, one that is plain again, one under RC4.
#[test]
fn a_link_is_enough_where_who_has_its_metadata_can_only_dial_us() {
    for (ours, theirs) in [("accept", "off"), ("accept", "prefer"), ("require", "require")] {
        let scene = Scene::new();
        let (node, addr) = scene.wait_for_peers("", &["--encryption", ours]);
        let _seed = scene.seed_that_dials(addr, &["--encryption", theirs]);
        scene.assert_fetched(node);
    }
}

#[test]
fn p30_who_comes_and_says_nothing_leaves_its_place_to_others_who_come() {
    let scene = Scene::new();
    let (node, addr) = scene.wait_for_peers("", &[]);
    // They come again and again, as long as there is a place: then all that are for who comes are taken.
    let silent: Vec<Peer> = std::iter::from_fn(|| {
        let mut peer = Peer::connect(addr);
        peer.send(&scene.hello());
        peer.stream.read_exact(&mut [0; wire::HANDSHAKE]).is_ok().then_some(peer)
    })
    .take(CROWD)
    .collect();
    assert!(!silent.is_empty());
    let _seed = scene.seed_that_dials(addr, &[]);
    scene.assert_fetched(node);
}

#[test]
fn p30_a_crowd_that_comes_leaves_places_to_whom_we_dial() {
    let scene = Scene::new();
    let dialled = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    let (node, addr) = scene.wait_for_peers(&format!("&x.pe={dialled}"), &[]);
    let taken = Arc::new(AtomicUsize::new(0));
    for _ in 0..CROWD {
        let (hello, taken) = (scene.hello(), Arc::clone(&taken));
        std::thread::spawn(move || {
            // Until nobody listens there any more.
            while let Ok(mut stream) = TcpStream::connect(addr) {
                let answered =
                    stream.write_all(&hello).is_ok() && stream.read_exact(&mut [0; wire::HANDSHAKE]).is_ok();
                taken.fetch_add(usize::from(answered), Ordering::Relaxed);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
    }
    support::poll("one has a place", || (taken.load(Ordering::Relaxed) > 0).then_some(()));
    let mut command = troc("relay", scene.temp.path());
    command.arg(scene.torrent.write(&scene.path("seed.torrent"), None));
    command.arg("--dir").arg(scene.path("source")).args(["--cache", "64MiB", "--listen"]);
    let _seed = Node::spawn("relay", command.arg(dialled.to_string()), scene.temp.path());
    scene.assert_fetched(node);
}

/// A connection from this address.
fn connect_from(from: SocketAddr, to: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an address that was used");
    socket.bind(&from.into()).expect("its port");
    socket.connect(&to.into()).expect("a node accepts");
    Peer::on(socket.into())
}

#[test]
fn p30_who_comes_and_gives_wrong_metadata_is_kept_out_and_others_are_not() {
    let scene = Scene::new();
    let (node, addr) = scene.wait_for_peers("", &[]);
    let mut liar = connect_from(SocketAddr::from(([127, 0, 0, 1], 0)), addr);
    let from = liar.stream.local_addr().expect("its address");
    liar.send(&scene.hello());
    liar.hear_handshake(&scene.torrent.info_hash);
    liar.send(&message(20, b"\0d1:md11:ut_metadatai3ee13:metadata_sizei1ee"));
    // Our greeting, then a request for the piece that there is.
    while let Said::Message(id, body) = liar.next() {
        if (id, body.first()) == (20, Some(&3)) {
            // Under the id that troc announces for the extension.
            liar.send(&message(20, b"\x09d8:msg_typei1e5:piecei0e10:total_sizei1ee7"));
        }
    }
    drop(liar);
    let mut again = connect_from(from, addr);
    again.send(&scene.hello());
    assert_eq!(again.wait_closed(), 0, "it is not even greeted");
    let _seed = scene.seed_that_dials(addr, &[]);
    scene.assert_fetched(node);
}
