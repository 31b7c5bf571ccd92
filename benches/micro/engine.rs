//! One core's decisions: what to ask a peer for, what to send it, what to do with what came.

use troc::base::geometry::BlockRef;
use troc::base::ids::ConnId;
use troc::base::rng::Rng;
use troc::base::units::{BLOCK_BYTES, BLOCKS_PER_CHUNK};
use troc::engine::Expected;
use troc::engine::scheduler::{Demand, Membership, Scheduler};
use troc::proto::wire::message::Message;
use troc::shared::ledger::Ledger;

use super::case::{Case, work};
use super::fixture::{Have, NOW, Node};

/// Pieces of a torrent of usual size, one chunk each.
const PIECES: u32 = 1024;
/// Blocks that go to one connection: two sends of 512 KiB.
const BLOCKS_EACH: u32 = 64;
/// Connections of a crowd.
const CROWD: u32 = 1000;
/// Of the picker.
const MANY_PIECES: u32 = 10_000;
const PEERS: u32 = 100;
/// Pieces that are received in one iteration.
const PIECES_RECEIVED: u32 = 64;
/// Blocks that the worker plans one receive for.
const PLANNED: usize = 8;

pub fn cases() -> Vec<Case> {
    let received = u64::from(PIECES_RECEIVED * BLOCKS_PER_CHUNK);
    vec![
        Case::steady("engine/serve-1-peer", work(BLOCKS_EACH.into(), "blocks"), one_peer, serve),
        Case::steady("engine/serve-1000-peers", work(CROWD.into(), "blocks"), crowd, serve),
        Case::steady("scheduler/turn", work(TURNS, "turns"), Waiting::new, Waiting::serve),
        Case::consuming("engine/receive", work(received, "blocks"), source, receive),
        Case::consuming("picker/choose", work(PEERS.into(), "chunks"), choked_peers, choose),
    ]
}

/// Turns of one iteration.
const TURNS: u64 = 1000;

/// Connections that wait for their turn: a third gave, a third gave and got, a third neither.
struct Waiting {
    scheduler: Scheduler,
    ledger: Ledger,
}

impl Waiting {
    fn new() -> Self {
        let (mut scheduler, ledger) = (Scheduler::new(NOW), Ledger::new(4096));
        for index in 0..CROWD {
            let (key, conn) = (u64::from(index) + 1, ConnId { index, generation: 0 });
            let account = ledger.open(key);
            ledger.credit(key, u64::from(index % 3) << 20);
            ledger.debit(account, u64::from(index % 2) << 20);
            scheduler.enter(conn, Membership { own: account, balance: account, group: account });
            scheduler.wait(conn, Demand::default(), &ledger);
        }
        Self { scheduler, ledger }
    }

    fn serve(&mut self) {
        for _ in 0..TURNS {
            let turn = self.scheduler.pick(&self.ledger).expect("somebody waits");
            let sent = self.scheduler.charge(turn, BLOCK_BYTES.into(), &self.ledger);
            self.scheduler.end(sent.expect("it has a seat"), &self.ledger);
            self.scheduler.wait(turn.conn, Demand::default(), &self.ledger);
        }
    }
}

/// Connections, and the requests that each sends, as bytes.
struct Serving {
    node: Node,
    fetchers: Vec<(ConnId, Vec<u8>)>,
}

fn serving(fetchers: u32, blocks_each: u32) -> Serving {
    let mut node = Node::new(PIECES, Have::Everything);
    let fetchers =
        (0..fetchers).map(|index| (node.connect_fetcher(index), requests(index, blocks_each))).collect();
    Serving { node, fetchers }
}

/// Requests for consecutive blocks from the start of a piece on.
fn requests(first_piece: u32, blocks: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for at in 0..blocks {
        let (piece, block) = (first_piece + at / BLOCKS_PER_CHUNK, at % BLOCKS_PER_CHUNK);
        Message::Request(BlockRef { piece, begin: block * BLOCK_BYTES, length: BLOCK_BYTES })
            .encode(&mut out);
    }
    out
}

fn one_peer() -> Serving {
    serving(1, BLOCKS_EACH)
}

fn crowd() -> Serving {
    serving(CROWD, 1)
}

/// Everybody asks for as many blocks, and gets them: bytes in, segments out.
fn serve(Serving { node, fetchers }: &mut Serving) {
    for (conn, wire) in &*fetchers {
        node.hear_bytes(*conn, wire);
    }
    node.run();
}

/// A peer that has everything and has just unchoked us: requests are out.
fn source() -> (Node, ConnId, Vec<Expected>) {
    let mut node = Node::new(PIECES, Have::Nothing);
    let conn = node.connect(0);
    node.hear(conn, Message::Bitfield(&[0xff; PIECES as usize / 8]));
    node.hear(conn, Message::Unchoke);
    node.run();
    (node, conn, Vec::new())
}

/// Blocks come as planned; pieces are found right and written at once.
fn receive((node, conn, expected): &mut (Node, ConnId, Vec<Expected>)) {
    let mut left = PIECES_RECEIVED * BLOCKS_PER_CHUNK;
    while left > 0 {
        expected.clear();
        node.engine.plan_receive(*conn, None, PLANNED, expected);
        assert!(!expected.is_empty(), "the peer is kept busy");
        for block in &*expected {
            node.engine.handle_block(*conn, block.chunk, block.index, NOW);
        }
        left = left.saturating_sub(expected.len() as u32);
        node.run();
    }
}

/// Peers that have a random half of the pieces each and have not unchoked us yet.
fn choked_peers() -> (Node, Vec<ConnId>) {
    let mut node = Node::new(MANY_PIECES, Have::Nothing);
    let mut rng = Rng::new(1);
    let peers = (0..PEERS)
        .map(|index| {
            let bits: Vec<u8> = (0..MANY_PIECES / 8).map(|_| rng.next_u64() as u8).collect();
            let conn = node.connect(index);
            node.hear(conn, Message::Bitfield(&bits));
            conn
        })
        .collect();
    node.run();
    (node, peers)
}

/// Each unchokes us and is asked for its first sixteen blocks: one chunk, the rarest of a sample.
fn choose((node, peers): &mut (Node, Vec<ConnId>)) {
    peers.iter().for_each(|&conn| node.hear(conn, Message::Unchoke));
}
