//! A peer written by hand: bytes in, bytes out, nothing of the library.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests of real processes have real threads")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::PATIENCE;
use super::support::torrent::Torrent;

/// Length of a handshake.
pub const HANDSHAKE: usize = 68;
/// What everybody asks for.
pub const BLOCK: u32 = 16 << 10;

/// A torrent's bytes and sizes, as a peer knows them.
pub struct Payload {
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Length of a piece.
    pub piece_bytes: u32,
}

impl Payload {
    /// Of a torrent of one file.
    pub fn of(torrent: &Torrent, piece_bytes: u32) -> Arc<Self> {
        let bytes = std::fs::read(torrent.source.join(&torrent.name)).expect("payload");
        Arc::new(Self { info_hash: torrent.info_hash, bytes, piece_bytes })
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u32 {
        (self.bytes.len() as u32).div_ceil(self.piece_bytes)
    }

    /// The bytes of a block inside the torrent.
    pub fn block(&self, piece: u32, begin: u32, length: u32) -> &[u8] {
        let start = piece as usize * self.piece_bytes as usize + begin as usize;
        &self.bytes[start..start + length as usize]
    }

    /// Every block: piece, begin, length.
    pub fn blocks(&self) -> Vec<(u32, u32, u32)> {
        let total = self.bytes.len() as u32;
        let starts = (0..total).step_by(BLOCK as usize);
        starts.map(|at| (at / self.piece_bytes, at % self.piece_bytes, BLOCK.min(total - at))).collect()
    }
}

/// A handshake with the fast and the extension bit.
pub fn handshake(info_hash: &[u8; 20], peer_id: &[u8; 20]) -> Vec<u8> {
    [&b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04"[..], info_hash, peer_id].concat()
}

/// A message with its length prefix.
pub fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 1).to_be_bytes()[..], &[id], payload].concat()
}

/// Three big-endian words, as in request, cancel and reject.
pub fn words(piece: u32, begin: u32, length: u32) -> Vec<u8> {
    [piece.to_be_bytes(), begin.to_be_bytes(), length.to_be_bytes()].concat()
}

/// One request.
pub fn request(piece: u32, begin: u32, length: u32) -> Vec<u8> {
    message(6, &words(piece, begin, length))
}

/// One block.
pub fn piece(piece: u32, begin: u32, bytes: &[u8]) -> Vec<u8> {
    message(7, &[&piece.to_be_bytes()[..], &begin.to_be_bytes(), bytes].concat())
}

/// One connection.
pub struct Peer {
    /// The socket.
    pub stream: TcpStream,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message.
    Message(u8, Vec<u8>),
    /// The other side closed or reset.
    End,
}

impl Peer {
    /// A connection on which nothing was said.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::on(TcpStream::connect(addr).expect("a node accepts"))
    }

    /// A connection that is there.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("time limit");
        Self { stream }
    }

    /// A connection on which both sides have shaken hands.
    pub fn open(addr: SocketAddr, info_hash: &[u8; 20]) -> Self {
        let mut peer = Self::connect(addr);
        peer.shake(info_hash);
        peer
    }

    /// One that is served.
    pub fn served(addr: SocketAddr, info_hash: &[u8; 20]) -> Self {
        let mut peer = Self::open(addr, info_hash);
        peer.send(&message(2, b""));
        peer.wait_for(1);
        peer
    }

    /// Says our handshake and hears theirs; returns their peer id.
    pub fn shake(&mut self, info_hash: &[u8; 20]) -> [u8; 20] {
        self.send(&handshake(info_hash, b"-XX0001-by-hand-1234"));
        self.hear_handshake(info_hash)
    }

    /// Hears their handshake; returns their peer id.
    pub fn hear_handshake(&mut self, info_hash: &[u8; 20]) -> [u8; 20] {
        let mut theirs = [0; HANDSHAKE];
        self.stream.read_exact(&mut theirs).expect("a handshake in return");
        assert_eq!(theirs[28..48], *info_hash);
        theirs[48..].try_into().expect("twenty bytes")
    }

    /// Sends, whether or not anybody still listens.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next message that is not a keep-alive.
    pub fn next(&mut self) -> Said {
        loop {
            let mut prefix = [0; 4];
            if !self.fill(&mut prefix) {
                return Said::End;
            }
            let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
            if !self.fill(&mut body) {
                return Said::End;
            }
            if let Some((&id, payload)) = body.split_first() {
                return Said::Message(id, payload.to_vec());
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        match self.stream.read_exact(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came within {PATIENCE:?}")
            }
            Err(_) => false,
        }
    }

    /// Skips to the next message `id`.
    pub fn wait_for(&mut self, id: u8) -> Vec<u8> {
        self.find(id).unwrap_or_else(|| panic!("closed before message {id}"))
    }

    /// Skips to the next message `id`; `None` if the connection ends before.
    pub fn find(&mut self, id: u8) -> Option<Vec<u8>> {
        loop {
            match self.next() {
                Said::Message(found, payload) if found == id => return Some(payload),
                Said::Message(..) => {}
                Said::End => return None,
            }
        }
    }

    /// Waits until the other side closes; returns how many bytes came before.
    pub fn wait_closed(&mut self) -> usize {
        let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("not closed within {PATIENCE:?}")
                }
                Err(_) => return all,
            }
        }
    }

    /// Asks for a block and returns what comes for it: the bytes, or `None` for a reject.
    pub fn fetch(&mut self, piece: u32, begin: u32, length: u32) -> Option<Vec<u8>> {
        self.send(&request(piece, begin, length));
        let head = [piece.to_be_bytes(), begin.to_be_bytes()].concat();
        loop {
            match self.next() {
                Said::Message(7, payload) if payload[..8] == head => return Some(payload[8..].to_vec()),
                Said::Message(16, payload) if payload == words(piece, begin, length) => return None,
                Said::Message(..) => {}
                Said::End => panic!("closed instead of an answer to {piece} {begin} {length}"),
            }
        }
    }

    /// Ends with RST instead of FIN.
    pub fn reset(self) {
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&self.stream).set_linger(linger).expect("linger");
    }

    /// Ends with FIN.
    pub fn finish(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// Fetches all of a torrent from `addr` and compares each byte: the node is well.
pub fn assert_serves(addr: SocketAddr, payload: &Payload) {
    let mut peer = Peer::served(addr, &payload.info_hash);
    for (index, begin, length) in payload.blocks() {
        let block = peer.fetch(index, begin, length);
        let wanted = payload.block(index, begin, length);
        assert!(block.as_deref() == Some(wanted), "block {index} {begin} is not what it should be");
    }
}

/// How a seed of ours answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Honest,
    /// Every block has a wrong byte.
    Liar,
    /// The first block that it gives has a wrong byte, and no other.
    LiesOnce,
    /// Every block comes twice.
    Twice,
    /// It announces that it queues one request.
    QueuesOne,
    /// The connection is reset after so many bytes of blocks.
    ResetsAfter(usize),
}

/// Serves one connection, whoever opened it, until its end. Returns the blocks that were sent.
pub fn seed(peer: &mut Peer, payload: &Payload, manner: Manner) -> u32 {
    let mut greeting = Vec::new();
    if manner == Manner::QueuesOne {
        greeting.extend(message(20, b"\0d4:reqqi1ee"));
    }
    greeting.extend([message(14, b""), message(1, b"")].concat());
    if !peer.send(&greeting) {
        return 0;
    }
    let (mut sent, mut bytes_sent) = (0, 0);
    while let Some(asked) = peer.find(6) {
        let word = |at: usize| u32::from_be_bytes(asked[at..at + 4].try_into().expect("four bytes"));
        let (index, begin, length) = (word(0), word(4), word(8));
        let mut bytes = payload.block(index, begin, length).to_vec();
        if manner == Manner::Liar || manner == Manner::LiesOnce && sent == 0 {
            bytes[0] ^= 0x55;
        }
        let mut answer = piece(index, begin, &bytes);
        if manner == Manner::Twice {
            answer.extend_from_within(..);
        }
        if let Manner::ResetsAfter(limit) = manner
            && bytes_sent + answer.len() > limit
        {
            peer.send(&answer[..limit - bytes_sent]);
            return sent;
        }
        bytes_sent += answer.len();
        sent += 1;
        if !peer.send(&answer) {
            break;
        }
    }
    sent
}

/// A seed that accepts connections, until the test ends.
pub struct FakeSeed {
    /// Where.
    pub addr: SocketAddr,
    /// Connections that came.
    pub accepted: Arc<AtomicU32>,
    /// Connections that ended.
    pub ended: Arc<AtomicU32>,
    /// Blocks that were sent.
    pub sent: Arc<AtomicU32>,
}

impl FakeSeed {
    /// Starts one on a port of the kernel's choice.
    pub fn start(payload: &Arc<Payload>, manner: Manner) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), payload, manner)
    }

    /// Accepts from now on who has come already.
    pub fn on(listener: TcpListener, payload: &Arc<Payload>, manner: Manner) -> Self {
        Self::with(listener, payload, manner, |peer, name| {
            peer.shake(name);
            true
        })
    }

    /// The same, which hears the other side first and hangs up on whoever says another name of the torrent.
    pub fn start_that_knows_one_name(payload: &Arc<Payload>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self::with(listener, payload, manner, |peer, name| {
            let mut theirs = [0; HANDSHAKE];
            let knows = peer.stream.read_exact(&mut theirs).is_ok() && theirs[28..48] == *name;
            knows && peer.send(&handshake(name, b"-XX0001-by-hand-1234"))
        })
    }

    fn with(
        listener: TcpListener,
        payload: &Arc<Payload>,
        manner: Manner,
        shake: fn(&mut Peer, &[u8; 20]) -> bool,
    ) -> Self {
        let addr = listener.local_addr().expect("an address");
        let fake = Self { addr, accepted: Arc::default(), ended: Arc::default(), sent: Arc::default() };
        let (accepted, ended) = (Arc::clone(&fake.accepted), Arc::clone(&fake.ended));
        let (sent, payload) = (Arc::clone(&fake.sent), Arc::clone(payload));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let mut peer = Peer::on(stream);
                if shake(&mut peer, &payload.info_hash) {
                    sent.fetch_add(seed(&mut peer, &payload, manner), Ordering::SeqCst);
                }
                ended.fetch_add(1, Ordering::SeqCst);
            }
        });
        fake
    }
}
