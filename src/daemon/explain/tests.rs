use std::net::SocketAddr;

use super::*;
use crate::base::ids::{ConnId, PeerId, TorrentId};
use crate::base::limits::GRANT_GROUP_BYTES;
use crate::base::network::Grouping;
use crate::base::time::Instant;
use crate::engine::identity::Identity;
use crate::engine::peer::{Flags, Origin, Stage};
use crate::engine::scheduler::{Membership, Scheduler};
use crate::shared::ledger::Ledger;
use crate::storage::ledger::PartyKind;

const MIB: u64 = 1 << 20;
const NODE: NodeHead = NodeHead { version: VERSION, pid: 1, uptime_ns: 2 };

/// A ledger, and connections with their accounts in it.
struct Rig {
    ledger: Ledger,
    scheduler: Scheduler,
    peers: Vec<PeerView>,
}

impl Rig {
    fn new() -> Self {
        Self { ledger: Ledger::new(256), scheduler: Scheduler::new(Instant(0)), peers: Vec::new() }
    }

    /// A connection that gave and got so much.
    fn peer(&mut self, address: &str, gave_bytes: u64, got_bytes: u64) -> &mut PeerView {
        let address: SocketAddr = address.parse().unwrap();
        let identity = Identity::of(address, &Grouping::default(), 5);
        let (own, group) = (self.ledger.open(identity.key), self.ledger.open(identity.group));
        self.ledger.join(own, if identity.group == identity.key { 0 } else { identity.group });
        let balance = if identity.one_machine { group } else { own };
        let conn = ConnId { index: self.peers.len() as u32, generation: 0 };
        self.scheduler.enter(conn, Membership { own, balance, group });
        self.ledger.credit(identity.key, gave_bytes);
        self.ledger.debit(own, got_bytes);
        if own != group {
            self.ledger.debit(group, got_bytes);
        }
        self.peers.push(PeerView {
            address,
            group: Grouping::default().network_of(address.ip()),
            peer_id: PeerId(*b"-qB4620-xxxxxxxxxxxx"),
            torrent: Some(TorrentId(0)),
            origin: Origin::Incoming,
            stage: Stage::Open,
            flags: Flags { wants_us: true, unchoked: true, ..Flags::default() },
            snubbed: false,
            encrypted: false,
            pieces: [1, 4],
            received_bytes: gave_bytes,
            sent_bytes: got_bytes,
            rates: [0, got_bytes / 10],
            asked: 0,
            queued: 3,
            sending_bytes: 0,
            turn: self.scheduler.outlook(conn, &self.ledger),
        });
        self.peers.last_mut().unwrap()
    }

    fn ask(&self, ask: Subject, top: usize) -> Document {
        let mut gathering = Gathering::begin(Question::new(ask, top), &self.ledger);
        // In parts, as workers show them.
        self.peers.chunks(3).for_each(|part| gathering.add(0, part));
        gathering.finish(NODE, &self.ledger, |id| (id == 0).then(|| "ab".repeat(20)))
    }

    fn parties(&self, top: usize) -> LedgerDocument {
        let Document::Ledger(document) = self.ask(Subject::Ledger, top) else { panic!("peers") };
        document
    }

    fn rows(&self, top: usize) -> PeersDocument {
        let Document::Peers(document) = self.ask(Subject::Peers, top) else { panic!("accounts") };
        document
    }

    fn party(&self, address: &str) -> PartyRow {
        let found = self.parties(100).parties.into_iter().find(|row| row.address.as_deref() == Some(address));
        found.unwrap_or_else(|| panic!("no {address} in {:#?}", self.parties(100)))
    }
}

#[test]
fn a_question_is_one_line_of_the_known_version_and_asks_for_no_more_than_the_limit() {
    let parse = |line: &str| Question::parse(line.as_bytes());
    let peers = Question::new(Subject::Peers, CONTROL_ROWS_MAX);
    assert_eq!(parse(r#"{"version":1,"ask":"peers"}"#), Ok(peers));
    assert_eq!(
        parse(r#" {"ask":"ledger","top":3,"version":1,"more":[]} "#),
        Ok(Question::new(Subject::Ledger, 3))
    );
    for (top, good) in
        [(0, true), (CONTROL_ROWS_MAX - 1, true), (CONTROL_ROWS_MAX, true), (CONTROL_ROWS_MAX + 1, false)]
    {
        let line = format!(r#"{{"version":1,"ask":"peers","top":{top}}}"#);
        assert_eq!(parse(&line).is_ok(), good, "{top}");
    }
    assert_eq!(parse(r#"{"version":2,"ask":"stop","sure":true}"#), Err(Refusal::Version(2)));
    for line in ["", "{}", "peers", "[1]", "\"\\ud800\"", r#"{"version":1}"#, r#"{"version":1,"ask":"stop"}"#]
    {
        assert_eq!(parse(line), Err(Refusal::Malformed), "{line}");
    }
    assert_eq!(parse(&"[".repeat(1_000)), Err(Refusal::Malformed), "nesting");
}

#[test]
fn a_public_address_stands_by_itself_and_its_network_by_what_it_was_granted() {
    let mut rig = Rig::new();
    rig.peer("8.8.4.9:5", 3 * MIB, MIB);
    rig.peer("8.8.4.7:6", 0, MIB);
    rig.peer("8.8.4.7:9", 0, 0);
    let giver = rig.party("8.8.4.9");
    assert_eq!((giver.kind.as_str(), giver.group.as_deref()), ("peer", Some("8.8.4.0/24")));
    assert_eq!((giver.gave_bytes, giver.got_bytes, giver.balance_bytes), (3 * MIB, MIB, 2 * MIB as i64));
    assert_eq!((giver.class.as_str(), giver.why.as_str()), ("owed", "gave 2.00 MiB more than it got"));
    let taker = rig.party("8.8.4.7");
    assert_eq!((taker.connections, taker.class.as_str()), (2, "grant"));
    assert_eq!(taker.balance_bytes, -(MIB as i64));
    let group = rig.party("8.8.4.0/24");
    assert_eq!((group.kind.as_str(), group.connections, group.class.as_str()), ("group", 3, "grant"));
    assert_eq!((group.gave_bytes, group.got_bytes), (3 * MIB, 2 * MIB), "its members' together");
    let accounts: Vec<_> = rig.ledger.rows().map(|row| row.id).collect();
    accounts.into_iter().for_each(|id| rig.ledger.grant(id, GRANT_GROUP_BYTES));
    assert_eq!((rig.party("8.8.4.7").class, rig.party("8.8.4.0/24").class), ("rest".into(), "rest".into()));
}

#[test]
fn a_key_stands_by_itself_and_what_it_got_counts_once() {
    let mut rig = Rig::new();
    rig.peer("8.8.4.9:5", 0, 3 * MIB);
    let key = rig.ledger.open_as(77, PartyKind::Key);
    rig.ledger.credit(77, 2 * MIB);
    rig.ledger.debit(key, 3 * MIB);
    let document = rig.parties(100);
    let keys: Vec<_> = document.parties.iter().filter(|row| row.kind == "key").collect();
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].gave_bytes, keys[0].got_bytes, keys[0].class.as_str()), (2 * MIB, 3 * MIB, "excess"));
    assert_eq!((document.gave_bytes, document.got_bytes), (2 * MIB, 3 * MIB), "its group got the same bytes");
}

#[test]
fn a_private_address_is_one_party_and_its_connections_stand_as_it_does() {
    let mut rig = Rig::new();
    rig.peer("10.0.0.7:5", 3 * MIB, 0);
    rig.peer("10.0.0.7:6", 0, MIB);
    rig.peer("127.0.0.1:7", MIB, MIB);
    let machine = rig.party("10.0.0.7");
    assert_eq!((machine.kind.as_str(), machine.class.as_str(), machine.connections), ("group", "owed", 2));
    let taker = rig.party("10.0.0.7:6");
    assert_eq!((taker.class.as_str(), taker.why.as_str()), ("owed", "gave 2.00 MiB more than it got"));
    let alone = rig.party("127.0.0.1:7");
    assert_eq!((alone.kind.as_str(), alone.connections, alone.group), ("group", 1, None));
    assert_eq!((alone.class.as_str(), alone.why.as_str()), ("excess", "got 1.00 times what it gave"));
    let document = rig.parties(100);
    assert_eq!((document.accounts, document.gave_bytes, document.got_bytes), (4, 4 * MIB, 2 * MIB));
}

#[test]
fn who_is_not_connected_is_its_short_hash() {
    let mut rig = Rig::new();
    rig.peer("[2a00:1:2:3::4]:5", MIB, 0);
    assert_eq!(rig.party("2a00:1:2:3::/64").group.as_deref(), Some("2a00:1:2::/48"));
    rig.peers.clear();
    let document = rig.parties(100);
    assert_eq!(document.parties.len(), 2);
    for row in &document.parties {
        assert!(row.account.len() == 8 && row.address.is_none() && row.connections == 0, "{row:?}");
        assert!(row.group.as_ref().is_none_or(|group| group.len() == 8));
        assert_eq!(row.class, "owed");
    }
}

#[test]
fn no_more_rows_than_asked_for_the_first_in_order_and_all_are_counted() {
    let mut rig = Rig::new();
    (1..=20u64).for_each(|number| {
        rig.peer(&format!("127.0.0.1:{number}"), number * MIB, number);
    });
    for top in [0, 1, 19, 20, 21] {
        let (ledger, peers) = (rig.parties(top), rig.rows(top));
        assert_eq!((ledger.parties.len(), ledger.accounts), (top.min(20), 20));
        assert_eq!((peers.peers.len(), peers.connections), (top.min(20), 20));
        let gave = ledger.parties.iter().map(|row| row.gave_bytes / MIB);
        assert!(gave.eq((1..=20).rev().take(top)), "who gave most first");
        let ports = peers.peers.iter().map(|row| row.got_bytes);
        assert!(ports.eq((1..=20).rev().take(top)), "the fastest first, {top}");
    }
    assert_eq!(rig.parties(5).gave_bytes, 210 * MIB, "those without a row are in the sums");
}

#[test]
fn a_row_of_a_peer_says_who_what_and_why_and_reads_back_as_it_was() {
    let mut rig = Rig::new();
    rig.peer("127.0.0.1:5", MIB, 0);
    let document = rig.rows(9);
    let row = &document.peers[0];
    assert_eq!((row.address.as_str(), row.client.as_str()), ("127.0.0.1:5", "qBittorrent 4.6.2"));
    assert_eq!((row.flags.as_str(), row.direction.as_str(), row.stage.as_str()), ("UI", "in", "open"));
    assert_eq!((row.class.as_deref(), row.encryption.as_str()), (Some("owed"), "none"));
    assert_eq!((row.have_pieces, row.pieces, row.queued), (1, 4, 3));
    assert_eq!(row.torrent, Some("ab".repeat(20)));
    assert_eq!(row.why, "gave 1.00 MiB more than it got");
    let text = serde_json::to_string(&document).unwrap();
    assert!(text.starts_with(r#"{"version":1,"pid":1,"uptime_ns":2,"connections":1,"#), "{text}");
    let back: PeersDocument = serde_json::from_str(&text).unwrap();
    assert_eq!((back.node, &back.peers), (NODE, &document.peers));
}

#[test]
fn letters_say_who_wants_and_who_serves() {
    let mut rig = Rig::new();
    for (number, wants) in
        (1u16..).zip([[false; 4], [true; 4], [true, false, true, false], [false, true, false, true]])
    {
        let peer = rig.peer(&format!("127.0.0.1:{number}"), 0, 1_000 - 10 * u64::from(number));
        let [interested, unchokes_us, wants_us, unchoked] = wants;
        peer.flags = Flags { unchoked, interested, unchokes_us, wants_us, ..Flags::default() };
        peer.snubbed = number == 2;
        peer.origin = if number == 2 { Origin::Outgoing } else { Origin::Incoming };
    }
    let flags: Vec<String> = rig.rows(9).peers.into_iter().map(|row| row.flags).collect();
    assert_eq!(flags, ["I", "DUS", "duI", "K?I"]);
}

#[test]
fn t12_a_client_cannot_steer_the_terminal() {
    let mut rig = Rig::new();
    rig.peer("127.0.0.1:5", 0, 0).peer_id = PeerId(*b"-qB\x1b[2J-xxxxxxxxxxxx");
    assert_eq!(rig.rows(1).peers[0].client, "-qB\\u{1b}[2J-");
    rig.peers[0].peer_id = PeerId([0; 20]);
    assert_eq!(rig.rows(1).peers[0].client, "", "before its handshake");
}
