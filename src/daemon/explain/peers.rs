//! One row per connection.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::NodeHead;
use super::words::why;
use crate::engine::peer::{Origin, Stage};
use crate::engine::scheduler::view::Outlook;
use crate::engine::view::PeerView;
use crate::proto::wire::peer_id::client_name;
use crate::shared::ledger::Ledger;

/// Every connection of a node, or the fastest of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeersDocument {
    /// Of the node.
    #[serde(flatten)]
    pub node: NodeHead,
    /// Connections there are, also those without a row.
    pub connections: u64,
    /// The fastest first.
    pub peers: Vec<PeerRow>,
}

/// One connection. *Gave* and *got* are the peer's: it gave what came here. Bytes are payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The other end.
    pub address: String,
    /// The client that it says it is, made safe for a terminal; empty before its handshake.
    pub client: String,
    /// Info hash of the torrent, once known.
    pub torrent: Option<String>,
    /// Which worker has it.
    pub core: u8,
    /// `in`: it came to us; `out`: we dialled it; `web`: a connection to a web seed.
    pub direction: String,
    /// `dialing`, `handshake`, `open` or `closing`.
    pub stage: String,
    /// Pieces that it has.
    pub have_pieces: u32,
    /// Pieces that there are.
    pub pieces: u32,
    /// Bytes a second that come, over the last seconds.
    pub down_rate: u64,
    /// Bytes a second that leave.
    pub up_rate: u64,
    /// Bytes that came.
    pub gave_bytes: u64,
    /// Bytes that left.
    pub got_bytes: u64,
    /// Letters; see [`flags`].
    pub flags: String,
    /// It took too long with what it was asked for.
    pub snubbed: bool,
    /// `handshake` if it began with an encrypted one (what follows may be plain), else `none`.
    pub encryption: String,
    /// Our requests that wait for their blocks.
    pub asked: usize,
    /// Its requests that wait to be served.
    pub queued: usize,
    /// Bytes of the send that is under way.
    pub sending_bytes: u64,
    /// Class in the order of service; none before its handshake.
    pub class: Option<String>,
    /// Place in the class, 0 is first.
    pub place: Option<u64>,
    /// It waits for its turn.
    pub waits: bool,
    /// Connections of its party on the same worker, itself included: they take turns.
    pub party_connections: u32,
    /// Why it stands in that class.
    pub why: String,
}

/// Connections that were shown so far, the fastest `top` of them at least.
#[derive(Debug)]
pub struct Connections {
    top: usize,
    seen: u64,
    kept: Vec<(u8, PeerView)>,
}

impl Connections {
    pub(super) const fn new(top: usize) -> Self {
        Self { top, seen: 0, kept: Vec::new() }
    }

    pub(super) fn add(&mut self, core: u8, peers: &[PeerView]) {
        self.seen += peers.len() as u64;
        self.kept.extend(peers.iter().map(|&peer| (core, peer)));
        // So that each is looked at a few times, and little more is kept than was asked for.
        if self.kept.len() > 2 * self.top.max(peers.len()) {
            self.keep_fastest();
        }
    }

    fn keep_fastest(&mut self) {
        self.kept.sort_unstable_by_key(|(_, peer)| (Reverse(speed(peer)), peer.address));
        self.kept.truncate(self.top);
    }

    pub(super) fn finish(
        mut self,
        node: NodeHead,
        ledger: &Ledger,
        info_hash: impl Fn(usize) -> Option<String>,
    ) -> PeersDocument {
        self.keep_fastest();
        let row = |(core, peer): &(u8, PeerView)| {
            let torrent = peer.torrent.and_then(|id| info_hash(id.0 as usize));
            row(*core, peer, torrent, ledger)
        };
        PeersDocument { node, connections: self.seen, peers: self.kept.iter().map(row).collect() }
    }
}

/// By what connections are ranked: what passes now, then what has passed.
const fn speed(peer: &PeerView) -> (u64, u64) {
    let [down, up] = peer.rates;
    (down.saturating_add(up), peer.received_bytes.saturating_add(peer.sent_bytes))
}

fn row(core: u8, peer: &PeerView, torrent: Option<String>, ledger: &Ledger) -> PeerRow {
    let reason = |turn: &Outlook| {
        let membership = turn.membership;
        why(turn.class, ledger.standing(membership.balance), ledger.granted_bytes(membership.group))
    };
    PeerRow {
        address: peer.address.to_string(),
        client: client(peer),
        torrent,
        core,
        direction: direction(peer.origin).to_owned(),
        stage: stage(peer.stage).to_owned(),
        have_pieces: peer.pieces[0],
        pieces: peer.pieces[1],
        down_rate: peer.rates[0],
        up_rate: peer.rates[1],
        gave_bytes: peer.received_bytes,
        got_bytes: peer.sent_bytes,
        flags: flags(peer),
        snubbed: peer.snubbed,
        encryption: if peer.encrypted { "handshake" } else { "none" }.to_owned(),
        asked: peer.asked,
        queued: peer.queued,
        sending_bytes: peer.sending_bytes,
        class: peer.turn.map(|turn| turn.class.name().to_owned()),
        place: peer.turn.map(|turn| turn.place),
        waits: peer.turn.is_some_and(|turn| turn.waits),
        party_connections: peer.turn.map_or(0, |turn| turn.members),
        why: peer.turn.as_ref().map(reason).unwrap_or_default(),
    }
}

fn client(peer: &PeerView) -> String {
    match peer.origin {
        Origin::WebSeed(_) => "web seed".to_owned(),
        _ if peer.peer_id.0 != [0; 20] => client_name(&peer.peer_id),
        _ => String::new(),
    }
}

const fn direction(origin: Origin) -> &'static str {
    match origin {
        Origin::Incoming => "in",
        Origin::Outgoing => "out",
        Origin::WebSeed(_) => "web",
    }
}

const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Dialing => "dialing",
        Stage::Handshaking => "handshake",
        Stage::Open => "open",
        Stage::Closing => "closing",
    }
}

/// The letters that BitTorrent clients show: `D` we take from it, `d` we would and it chokes us, `K` it
/// would give and we want nothing; `U` it takes from us, `u` it would and we choke it, `?` we would give and
/// it wants nothing; `S` snubbed; `I` it came to us.
fn flags(peer: &PeerView) -> String {
    let letter = |wants: bool, may: bool, [both, choked, idle]: [char; 3]| match (wants, may) {
        (true, true) => Some(both),
        (true, false) => Some(choked),
        (false, true) => Some(idle),
        (false, false) => None,
    };
    let flags = peer.flags;
    let down = letter(flags.interested, flags.unchokes_us, ['D', 'd', 'K']);
    let up = letter(flags.wants_us, flags.unchoked, ['U', 'u', '?']);
    let snubbed = peer.snubbed.then_some('S');
    let came = (peer.origin == Origin::Incoming).then_some('I');
    [down, up, snubbed, came].into_iter().flatten().collect()
}
