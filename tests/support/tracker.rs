//! A tracker (BEP 3, 7 and 23) whose announces are events of the test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::torrent::string;

/// What a peer last said of itself.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Where it accepts peers.
    pub addr: SocketAddr,
    /// Bytes it lacks.
    pub left: u64,
    /// Announces so far.
    pub count: u32,
    /// Whether it ever said `event=completed`.
    pub completed: bool,
    /// Whether it ever said `event=paused`: it wants no more and lacks something (BEP 21).
    pub paused: bool,
}

type Swarm = BTreeMap<SocketAddr, Announced>;

#[derive(Default)]
struct State {
    swarms: Mutex<BTreeMap<[u8; 20], Swarm>>,
    changed: Condvar,
}

/// Serves until the test process ends; its thread holds nothing that outlives it.
pub struct Tracker {
    url: String,
    state: Arc<State>,
}

impl Tracker {
    /// On a port of the kernel's choice.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind the tracker");
        let addr = listener.local_addr().expect("the tracker's address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { url: format!("http://{addr}/announce"), state }
    }

    /// Stands for another tracker: clients are told of that, and nothing is heard here.
    pub fn elsewhere(url: &str) -> Self {
        Self { url: url.to_owned(), state: Arc::default() }
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Waits until the peer on `port` has said something for which `pick` has an answer.
    pub fn wait<T>(
        &self,
        info_hash: [u8; 20],
        port: u16,
        what: &str,
        pick: impl Fn(&Announced) -> Option<T>,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        let mut swarms = self.state.swarms.lock().expect("no announce panicked");
        loop {
            let swarm = swarms.get(&info_hash);
            let peer = swarm.and_then(|swarm| swarm.values().find(|peer| peer.addr.port() == port));
            if let Some(answer) = peer.and_then(&pick) {
                return answer;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "port {port} did not announce {what}; known: {swarm:?}");
            swarms = self.state.changed.wait_timeout(swarms, left).expect("no announce panicked").0;
        }
    }

    /// Waits for any announce of the peer on `port`.
    pub fn wait_announced(&self, info_hash: [u8; 20], port: u16) -> SocketAddr {
        self.wait(info_hash, port, "anything", |peer| Some(peer.addr))
    }

    /// Waits until the peer on `port` says that it lacks nothing.
    pub fn wait_complete(&self, info_hash: [u8; 20], port: u16) -> SocketAddr {
        self.wait(info_hash, port, "that it is complete", |peer| (peer.left == 0).then_some(peer.addr))
    }

    /// All that was ever announced.
    pub fn peers(&self, info_hash: [u8; 20]) -> Vec<Announced> {
        let swarms = self.state.swarms.lock().expect("no announce panicked");
        swarms.get(&info_hash).map(|swarm| swarm.values().cloned().collect()).unwrap_or_default()
    }
}

fn serve(mut stream: &TcpStream, state: &State) {
    let (Ok(peer), Ok(clone)) = (stream.peer_addr(), stream.try_clone()) else { return };
    let mut reader = BufReader::new(clone);
    let mut request = String::new();
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let mut header = String::new();
    while reader.read_line(&mut header).is_ok_and(|count| count > 2) {
        header.clear();
    }
    let body = answer(&request, peer.ip(), state)
        .unwrap_or_else(|why| [b"d14:failure reason", &string(why)[..], b"e"].concat());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // The client may be gone already: then nobody misses the answer.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
}

fn answer(request: &str, from: IpAddr, state: &State) -> Result<Vec<u8>, &'static str> {
    let target = request.split(' ').nth(1).ok_or("not HTTP")?;
    let (path, query) = target.split_once('?').ok_or("no query")?;
    if path != "/announce" {
        return Err("only /announce is here");
    }
    let query: BTreeMap<&str, Vec<u8>> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key, unescape(value)))
        .collect();
    let text = |key: &str| query.get(key).and_then(|value| str::from_utf8(value).ok());
    let info_hash: [u8; 20] =
        query.get("info_hash").and_then(|hash| hash.as_slice().try_into().ok()).ok_or("bad info_hash")?;
    let port: u16 = text("port").and_then(|port| port.parse().ok()).ok_or("bad port")?;
    let left: u64 = text("left").and_then(|left| left.parse().ok()).ok_or("bad left")?;
    let addr = SocketAddr::new(from, port);
    let mut swarms = state.swarms.lock().map_err(|_| "broken")?;
    let swarm = swarms.entry(info_hash).or_default();
    let entry =
        swarm.entry(addr).or_insert(Announced { addr, left, count: 0, completed: false, paused: false });
    entry.left = left;
    entry.count += 1;
    entry.completed |= text("event") == Some("completed");
    entry.paused |= text("event") == Some("paused");
    let stopped = text("event") == Some("stopped");
    let reply = compact(swarm.keys().filter(|other| **other != addr));
    if stopped && left > 0 {
        swarm.remove(&addr);
    }
    state.changed.notify_all();
    Ok(reply)
}

/// The reply of BEP 23 with the `peers6` of BEP 7.
fn compact<'a>(peers: impl Iterator<Item = &'a SocketAddr>) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for peer in peers {
        match peer.ip() {
            IpAddr::V4(ip) => v4.extend([&ip.octets()[..], &peer.port().to_be_bytes()].concat()),
            IpAddr::V6(ip) => v6.extend([&ip.octets()[..], &peer.port().to_be_bytes()].concat()),
        }
    }
    let mut reply = b"d8:intervali5e12:min intervali5e5:peers".to_vec();
    reply.extend(string(v4));
    if !v6.is_empty() {
        reply.extend([string("peers6"), string(v6)].concat());
    }
    reply.push(b'e');
    reply
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        plain.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    plain
}
