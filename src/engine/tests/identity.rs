//! Signed identity (E13): credit follows the key, and nobody gains by forging, replaying or minting one.

use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;
use crate::base::limits::{GRANT_GROUP_BYTES, IDENTITY_STEPS_PER_SEC, STRIKES_MAX};
use crate::hash::signature::{NodeKey, Signature};
use crate::proto::wire::identity::{Hello, IdentityMessage, Side, statement};
use crate::shared::ledger::Standing;
use scheduler::class::Class;
use versions::Name;

const ONLY: TorrentId = TorrentId(0);
/// Under which the other side wants the extension, and what it says so with.
const THEIR_ID: u8 = 9;
const GREETING: &[u8] = b"d1:md7:troc_idi9eee";

fn key(seed: u8) -> NodeKey {
    NodeKey::new(&[seed; 32], &[seed; 32])
}

/// An engine that has the key pair of `seed`.
fn node(seed: u8, complete: bool) -> Rig {
    let mut rig = Rig::new(1, complete);
    rig.engine.config.identity = Some(Arc::new(key(seed)));
    rig.engine.config.peer_id.0[19] = seed;
    rig
}

/// Somebody who dialled us, and what he says of himself.
struct Far {
    key: NodeKey,
    hello: Hello,
}

impl Far {
    fn new(seed: u8) -> Self {
        let key = key(seed);
        let hello = Hello { nonce: key.nonce(0, 0), key: key.public() };
        Self { key, hello }
    }

    /// His proof to whoever said `ours`.
    fn proof(&self, ours: &Hello) -> Signature {
        self.key.sign(&statement(Side::Dialler, HASH, [&self.hello, ours]))
    }
}

impl Rig {
    fn tell(&mut self, conn: ConnId, message: IdentityMessage) -> Result<(), session::PeerMisbehaved> {
        self.say(conn, Message::Extended { id: proof::TROC_ID, payload: &message.encode() })
    }

    /// What `conn` is told under its own id for the extension.
    fn told(&mut self, conn: ConnId) -> Vec<IdentityMessage> {
        let (bytes, _) = self.read(conn);
        let told = frames(&bytes).into_iter().filter_map(|message| match message {
            Message::Extended { id: THEIR_ID, payload } => IdentityMessage::parse(payload).unwrap(),
            _ => None,
        });
        told.collect()
    }

    /// A connection from `address` that knows the extension, and our hello to it.
    fn meet(&mut self, address: &str) -> (ConnId, Hello) {
        let conn = self.accept(address);
        assert_eq!(self.shake(conn, true), Admission::Here);
        self.read(conn);
        assert_eq!(self.told(conn), [], "nothing is said to who did not announce it");
        self.say(conn, Message::Extended { id: 0, payload: GREETING }).unwrap();
        let told = self.told(conn);
        let [IdentityMessage::Hello(ours)] = told[..] else { panic!("{told:?}") };
        (conn, ours)
    }

    /// One that proves the key of `seed`.
    fn proven(&mut self, address: &str, seed: u8) -> ConnId {
        let (conn, ours) = self.meet(address);
        let far = Far::new(seed);
        self.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
        self.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
        assert!(self.is_keys(conn, seed));
        conn
    }

    /// Whether the connection is served and credited under the key of `seed`, and not under its address.
    fn is_keys(&self, conn: ConnId, seed: u8) -> bool {
        let peer = self.engine.peer(conn).unwrap();
        let hash = Identity::of_key(&key(seed).public(), self.engine.config.secret);
        assert!(peer.key != hash, "blame stays with the address");
        peer.account_key == hash
    }

    /// Whether it is served and credited under its address.
    fn is_address(&self, conn: ConnId) -> bool {
        let peer = self.engine.peer(conn).unwrap();
        peer.account_key == peer.key
    }

    fn standing(&self, conn: ConnId) -> Standing {
        self.engine.ledger.standing(self.engine.peer(conn).unwrap().accounts.unwrap()[0])
    }

    fn strikes(&self, conn: ConnId) -> u32 {
        self.engine.peer(conn).unwrap().strikes
    }

    /// Hello and `proof` on a new connection, which stays its address's; how many offences that was.
    fn refuses(&mut self, hello: Hello, proof: impl Fn(&Hello) -> Signature) -> u32 {
        let (conn, ours) = self.meet("8.8.8.8:1");
        self.tell(conn, IdentityMessage::Hello(hello)).unwrap();
        self.tell(conn, IdentityMessage::Proof(proof(&ours))).unwrap();
        assert!(self.is_address(conn) && self.is_open(conn));
        self.engine.check_invariants();
        let strikes = self.strikes(conn);
        self.engine.handle_gone(conn);
        self.perform();
        strikes
    }

    /// The class in which a request of `conn` is served.
    fn class(&mut self, conn: ConnId) -> Option<Class> {
        self.say(conn, Message::Interested).unwrap();
        self.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
        self.perform();
        let class = self.engine.peer(conn).unwrap().out.turn.map(|turn| turn.class);
        self.read(conn);
        class
    }

    /// Has `conn` give the only piece; what is `wrong` fails its check.
    fn fetch_from(&mut self, conn: ConnId, wrong: bool) {
        if !self.engine.peer(conn).unwrap().is_seed() {
            self.say(conn, Message::HaveAll).unwrap();
        }
        self.say(conn, Message::Unchoke).unwrap();
        for _ in 0..1_000 {
            if self.shared.has(0) || !self.is_open(conn) {
                return;
            }
            self.asked(conn);
            // It may have been asked before, when it let us ask for allowed pieces.
            let geometry = self.shared.meta.geometry;
            let asked = self.engine.peer(conn).map(|peer| peer.asked.iter().copied().collect::<Vec<_>>());
            for one in asked.unwrap_or_default() {
                let block = geometry.block(one.chunk, one.block);
                let Ok(Landing::Into(place)) = self.engine.handle_piece_header(conn, block) else { panic!() };
                self.engine.handle_block(conn, place.chunk, place.index, self.now);
            }
            self.perform();
            for action in std::mem::take(&mut self.done) {
                match action {
                    Action::Hash { chunk, last, .. } => {
                        self.engine.handle_hashed(ONLY, chunk, last.then_some([u8::from(wrong); 20].into()));
                    }
                    Action::Autopsy { piece, .. } => self.engine.handle_autopsy(ONLY, piece, &[1; 7]),
                    Action::Write { chunk, .. } => self.engine.handle_written(ONLY, chunk, Ok(())),
                    _ => {}
                }
            }
        }
        panic!("{conn:?} is asked for nothing");
    }

    /// A connection to somebody else's engine.
    fn dial(&mut self, address: &str) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        self.engine.handle_dialing(conn, address.parse().unwrap(), (ONLY, Name::First), self.now);
        self.engine.handle_dialed(conn, true, self.now);
        conn
    }

    /// What the node wants sent to `conn`, and its handshake if that is still to come.
    fn take(&mut self, conn: ConnId, shaken: &mut bool) -> (Option<Handshake>, Vec<u8>) {
        let (bytes, _) = self.read(conn);
        if *shaken || bytes.is_empty() {
            return (None, bytes);
        }
        *shaken = true;
        let (handshake, rest) = bytes.split_at(68);
        (Handshake::parse(handshake).unwrap(), rest.to_vec())
    }

    fn hear(&mut self, conn: ConnId, handshake: Option<Handshake>, bytes: &[u8]) {
        if let Some(handshake) = handshake {
            assert_eq!(self.engine.handle_handshake(conn, &handshake, self.now), Admission::Here);
        }
        // Blocks are not carried, so none is asked for.
        let messages = frames(bytes).into_iter().filter(|message| *message != Message::Unchoke);
        messages.for_each(|message| self.say(conn, message).unwrap());
    }
}

/// Carries what two ends say to the other until neither has more to say. All of it, as a wire does, and as
/// somebody does who sits between them.
fn carry(a: (&mut Rig, ConnId), b: (&mut Rig, ConnId)) {
    let (mut a_shaken, mut b_shaken) = (false, false);
    for _ in 0..20 {
        let (handshake, bytes) = a.0.take(a.1, &mut a_shaken);
        b.0.hear(b.1, handshake, &bytes);
        let (handshake, bytes) = b.0.take(b.1, &mut b_shaken);
        a.0.hear(a.1, handshake, &bytes);
    }
}

#[test]
fn two_nodes_know_one_another_after_they_have_met() {
    let (mut a, mut b) = (node(1, true), node(2, true));
    let (to_b, from_a) = (a.dial("9.9.9.9:1"), b.accept("8.8.8.8:1"));
    carry((&mut a, to_b), (&mut b, from_a));
    assert!(a.is_keys(to_b, 2) && b.is_keys(from_a, 1));
    assert_eq!((a.engine.counters.identities.get(), b.engine.counters.identities.get()), (1, 1));
    assert_eq!((a.strikes(to_b), b.strikes(from_a)), (0, 0));
}

#[test]
fn a_node_without_identity_announces_none_and_none_is_proven_to_it() {
    let (mut a, mut b) = (node(1, true), Rig::new(1, true));
    let (to_b, from_a) = (a.dial("9.9.9.9:1"), b.accept("8.8.8.8:1"));
    carry((&mut a, to_b), (&mut b, from_a));
    assert!(a.is_address(to_b) && b.is_address(from_a));
    assert!(matches!(a.engine.peer(to_b).unwrap().proof, proof::Proof::Silent), "nothing was said");
    // Who says it all the same says nothing to it.
    b.tell(from_a, IdentityMessage::Hello(Far::new(3).hello)).unwrap();
    assert!(b.is_address(from_a) && b.strikes(from_a) == 0);
}

#[test]
fn credit_survives_a_change_of_address() {
    let mut rig = node(1, false);
    let conn = rig.proven("8.8.8.8:1", 2);
    rig.fetch_from(conn, false);
    assert_eq!(rig.standing(conn), Standing { received_bytes: 100_000, sent_bytes: 0 });
    rig.engine.handle_gone(conn);
    rig.perform();

    let (elsewhere, ours) = rig.meet("9.9.9.9:7");
    assert_eq!(rig.class(elsewhere), Some(Class::Grant), "it is a stranger");
    let far = Far::new(2);
    rig.tell(elsewhere, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(elsewhere, IdentityMessage::Proof(far.proof(&ours))).unwrap();
    assert_eq!(rig.standing(elsewhere).received_bytes, 100_000);
    assert_eq!(rig.class(elsewhere), Some(Class::Owed));
    assert_eq!(rig.standing(elsewhere).sent_bytes, 16 << 10, "what it got as a stranger is not its key's");
    let old = rig.meet("8.8.8.8:1").0;
    assert_eq!(rig.standing(old), Standing::default(), "the address gave nothing itself");
}

#[test]
fn a_new_key_is_worth_nothing() {
    let mut rig = node(1, true);
    let (conn, _) = rig.meet("8.8.8.8:1");
    let [_, group] = rig.engine.peer(conn).unwrap().accounts.unwrap();
    assert_eq!(rig.class(conn), Some(Class::Grant));
    rig.engine.ledger.grant(group, GRANT_GROUP_BYTES);
    assert_eq!(rig.class(conn), Some(Class::Rest));
    let (before, served) = (rig.engine.ledger.granted_bytes(group), rig.engine.ledger.service(group));
    for seed in 2..12 {
        let minted = rig.proven("8.8.8.8:2", seed);
        assert_eq!(rig.engine.peer(minted).unwrap().accounts.unwrap()[1], group);
        assert_eq!(rig.standing(minted), Standing::default());
        assert_eq!(rig.class(minted), Some(Class::Rest), "no grant comes with a key");
        rig.engine.handle_gone(minted);
        rig.perform();
    }
    assert_eq!(rig.engine.ledger.granted_bytes(group), before);
    let paid = rig.engine.ledger.service(group) - served;
    assert!(paid >= 10 * (16 << 10), "its group pays for all of them, and more while it passes nothing on");
}

#[test]
fn e13_a_forged_signature_proves_nothing() {
    let (mut rig, far) = (node(1, true), Far::new(2));
    let forged = |ours: &Hello, bit: usize| {
        let mut signature = far.proof(ours);
        signature[bit / 8] ^= 1 << (bit % 8);
        signature
    };
    for bit in [0, 255, 256, 511] {
        assert_eq!(rig.refuses(far.hello, |ours| forged(ours, bit)), 1, "bit {bit}");
    }
    assert_eq!(rig.refuses(far.hello, |_| [0; 64]), 1);
    assert_eq!(rig.engine.counters.identities.get(), 0);
}

#[test]
fn e13_a_stolen_public_key_proves_nothing() {
    let (mut rig, thief) = (node(1, true), Far::new(3));
    let stolen = Hello { key: key(2).public(), ..thief.hello };
    let sign = |ours: &Hello| thief.key.sign(&statement(Side::Dialler, HASH, [&stolen, ours]));
    assert_eq!(rig.refuses(stolen, sign), 1);
}

#[test]
fn e13_a_proof_for_another_nonce_torrent_or_side_proves_nothing() {
    let (mut rig, far) = (node(1, true), Far::new(2));
    let other = Hello { nonce: [7; 32], ..far.hello };
    for (side, hash, hello) in [
        (Side::Dialler, HASH, &other),
        (Side::Dialler, InfoHash([8; 20]), &far.hello),
        (Side::Acceptor, HASH, &far.hello),
    ] {
        let sign = |ours: &Hello| far.key.sign(&statement(side, hash, [hello, ours]));
        assert_eq!(rig.refuses(far.hello, sign), 1, "{side:?} {hash:?}");
    }
    let stale = |ours: &Hello| far.proof(&Hello { nonce: [7; 32], ..*ours });
    assert_eq!(rig.refuses(far.hello, stale), 1);
}

#[test]
fn e13_a_replayed_transcript_proves_nothing() {
    let (mut rig, far) = (node(1, true), Far::new(2));
    let (conn, ours) = rig.meet("8.8.8.8:1");
    let overheard = far.proof(&ours);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof(overheard)).unwrap();
    assert!(rig.is_keys(conn, 2));
    assert_eq!(rig.refuses(far.hello, |_| overheard), 1, "word for word, on another connection");
}

#[test]
fn e13_our_own_words_sent_back_prove_nothing_and_are_not_answered() {
    let mut rig = node(1, true);
    let (conn, ours) = rig.meet("8.8.8.8:1");
    rig.tell(conn, IdentityMessage::Hello(ours)).unwrap();
    assert_eq!(rig.told(conn), [], "we sign nothing for ourselves");
    assert!(rig.is_address(conn));

    // Nor does our own proof for another hello serve as the other's.
    let (conn, _) = rig.meet("8.8.8.8:1");
    rig.tell(conn, IdentityMessage::Hello(Far::new(2).hello)).unwrap();
    let told = rig.told(conn);
    let [IdentityMessage::Proof(our_proof)] = told[..] else { panic!("{told:?}") };
    rig.tell(conn, IdentityMessage::Proof(our_proof)).unwrap();
    assert!(rig.is_address(conn) && rig.strikes(conn) == 1);
}

#[test]
fn e13_who_dials_two_nodes_cannot_pose_as_one_of_them() {
    let (mut a, mut b) = (node(1, true), node(2, true));
    let ((at_a, from_a), (at_b, from_b)) = (a.meet("8.8.8.8:1"), b.meet("8.8.8.8:1"));
    // Both accepted: what either signs is no dialler's word.
    a.tell(at_a, IdentityMessage::Hello(from_b)).unwrap();
    b.tell(at_b, IdentityMessage::Hello(from_a)).unwrap();
    let proof = b.told(at_b)[0];
    a.tell(at_a, proof).unwrap();
    assert!(a.is_address(at_a) && a.strikes(at_a) == 1);
}

/// What cannot be prevented, and what it brings: see `proto/wire/identity.rs`.
#[test]
fn e13_a_live_relay_is_taken_for_the_node_behind_it_and_blamed_under_its_own_address() {
    let (mut a, mut b) = (node(1, false), node(2, true));
    // The relay is 6.6.6.6: b dials it, and it dials a.
    let (to_relay, from_relay) = (b.dial("6.6.6.6:1"), a.accept("6.6.6.6:2"));
    carry((&mut b, to_relay), (&mut a, from_relay));
    assert!(a.is_keys(from_relay, 2));
    a.fetch_from(from_relay, true);
    assert!(!a.is_open(from_relay), "it is banned for what it gave");
    a.done.clear();
    let again = a.accept("6.6.6.6:3");
    assert!(a.engine.peer(again).is_some_and(|peer| !peer.is_open() && peer.farewell.is_some()));
    // The node that it posed as is as it was.
    let honest = a.proven("9.9.9.9:1", 2);
    assert!(a.is_open(honest) && a.standing(honest) == Standing::default());
}

#[test]
fn e13_one_connection_proves_one_key_once() {
    let mut rig = node(1, true);
    let conn = rig.proven("8.8.8.8:1", 2);
    let second = Far::new(3);
    rig.tell(conn, IdentityMessage::Hello(second.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof([1; 64])).unwrap();
    assert!(rig.is_keys(conn, 2) && rig.strikes(conn) == 2);
    // Nor does a second attempt follow the first that failed, nor a second hello the first.
    let (conn, ours) = rig.meet("8.8.8.8:1");
    let far = Far::new(2);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Hello(second.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof([1; 64])).unwrap();
    rig.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
    assert!(rig.is_address(conn) && rig.strikes(conn) == 3);
    assert_eq!(rig.told(conn).len(), 1, "one answer");
}

#[test]
fn e13_what_comes_before_its_time_is_an_offence_and_says_nothing() {
    let (mut rig, far) = (node(1, true), Far::new(2));
    let conn = rig.accept("8.8.8.8:1");
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    assert_eq!(rig.strikes(conn), 0, "before the handshake there are no messages");
    rig.shake(conn, true);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    assert_eq!(rig.strikes(conn), 1, "before the extension handshake");
    rig.say(conn, Message::Extended { id: 0, payload: GREETING }).unwrap();
    rig.tell(conn, IdentityMessage::Proof([1; 64])).unwrap();
    assert_eq!((rig.strikes(conn), rig.is_address(conn)), (2, true), "a proof before the hello");
}

#[test]
fn unknown_versions_are_ignored_and_malformed_messages_end_a_connection_in_the_end() {
    for (count, open) in [(STRIKES_MAX - 1, true), (STRIKES_MAX, true), (STRIKES_MAX + 1, false)] {
        let mut rig = node(1, true);
        let (conn, _) = rig.meet("8.8.8.8:1");
        rig.say(conn, Message::Extended { id: proof::TROC_ID, payload: &[2, 0, 0] }).unwrap();
        assert_eq!(rig.strikes(conn), 0);
        let mut say = || rig.say(conn, Message::Extended { id: proof::TROC_ID, payload: &[1, 0, 0] });
        let heard = (0..count).take_while(|_| say().is_ok()).count();
        assert_eq!((heard == count as usize, rig.is_open(conn)), (open, open), "{count}");
    }
}

#[test]
fn a_flood_of_proofs_costs_so_many_steps_a_second_and_the_others_wait() {
    let mut rig = node(1, true);
    // Whoever proves takes two.
    let count = IDENTITY_STEPS_PER_SEC;
    let conns: Vec<ConnId> = (0..count)
        .map(|n| {
            let (conn, ours) = rig.meet(&format!("10.0.0.{}:1", n + 1));
            let far = Far::new(n as u8 + 2);
            rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
            rig.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
            conn
        })
        .collect();
    let proven = |rig: &Rig| conns.iter().filter(|&&conn| !rig.is_address(conn)).count() as u32;
    assert_eq!(proven(&rig), count / 2);
    rig.pass(Span::from_secs(3));
    assert_eq!(proven(&rig), count);
    assert!(conns.iter().all(|&conn| rig.strikes(conn) == 0));
    rig.engine.check_invariants();
}

#[test]
fn what_is_in_flight_when_the_proof_comes_stays_with_the_address() {
    let mut rig = node(1, true);
    let (conn, ours) = rig.meet("8.8.8.8:1");
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    let [address, group] = rig.engine.peer(conn).unwrap().accounts.unwrap();
    rig.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
    rig.perform();
    let bytes: u32 = rig.begin_send(conn).iter().map(Segment::len).sum();
    let far = Far::new(2);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
    assert!(rig.is_address(conn), "not while a send is charged to it");
    // The rest of a short send, too.
    rig.engine.handle_sent(conn, Ok(bytes - 1_000), rig.now);
    assert!(rig.is_address(conn));
    rig.say(conn, Message::Request(block(0, 16 << 10, 16 << 10))).unwrap();
    rig.read(conn);
    assert!(rig.is_keys(conn, 2));
    let sent = |account| rig.engine.ledger.standing(account).sent_bytes;
    assert_eq!((sent(address), sent(group)), (16 << 10, 32 << 10));
    assert_eq!(rig.standing(conn).sent_bytes, 16 << 10);
    rig.engine.check_settled();
}

#[test]
fn what_never_left_is_refunded_to_whom_it_was_charged() {
    let mut rig = node(1, true);
    let (conn, ours) = rig.meet("8.8.8.8:1");
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    let [address, _] = rig.engine.peer(conn).unwrap().accounts.unwrap();
    rig.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
    rig.perform();
    let bytes: u32 = rig.begin_send(conn).iter().map(Segment::len).sum();
    rig.engine.handle_sent(conn, Ok(bytes - 1_000), rig.now);
    let far = Far::new(2);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
    rig.engine.handle_gone(conn);
    while let Some(action) = rig.engine.poll_action(rig.now) {
        if action == Action::Close(conn) {
            rig.engine.handle_closed(conn);
        }
    }
    assert_eq!(rig.engine.ledger.standing(address).sent_bytes, (16 << 10) - 1_000);
    assert!(rig.engine.ledger.entries().all(|entry| entry.live == 0), "all accounts are closed");
}

#[test]
fn a_key_that_waits_for_its_turn_keeps_waiting() {
    let mut rig = node(1, true);
    let (conn, ours) = rig.meet("8.8.8.8:1");
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    rig.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
    assert!(rig.engine.egress.holds(conn));
    let far = Far::new(2);
    rig.tell(conn, IdentityMessage::Hello(far.hello)).unwrap();
    rig.tell(conn, IdentityMessage::Proof(far.proof(&ours))).unwrap();
    assert!(rig.is_keys(conn, 2) && rig.engine.egress.holds(conn));
    assert_eq!(rig.read(conn).1, 1);
}

#[test]
fn one_key_at_two_addresses_has_one_account_for_as_long_as_either_is_there() {
    let mut rig = node(1, true);
    let (one, other) = (rig.proven("8.8.8.8:1", 2), rig.proven("9.9.9.9:1", 2));
    let account = |rig: &Rig, conn| rig.engine.peer(conn).unwrap().accounts.unwrap();
    assert_eq!(account(&rig, one)[0], account(&rig, other)[0]);
    assert_ne!(account(&rig, one)[1], account(&rig, other)[1], "each address has its own group");
    let key = rig.engine.peer(one).unwrap().account_key;
    let live = |rig: &Rig| rig.engine.ledger.entries().find(|entry| entry.key == key).unwrap().live;
    assert_eq!(live(&rig), 2);
    rig.engine.handle_gone(one);
    rig.perform();
    assert_eq!(live(&rig), 1);
}

#[test]
fn what_a_key_gave_its_machine_cannot_spend_again_without_it() {
    let mut rig = node(1, false);
    let conn = rig.proven("10.0.0.1:1", 2);
    rig.fetch_from(conn, false);
    assert_eq!(rig.standing(conn).received_bytes, 100_000);
    let neighbour = rig.meet("10.0.0.1:2").0;
    assert_eq!(rig.class(neighbour), Some(Class::Grant));
    assert_eq!(rig.class(conn), Some(Class::Owed));
}

/// What a stranger says, in order: a hello and a proof.
fn words(far: &Far, ours: &Hello) -> [Vec<u8>; 2] {
    let words = [IdentityMessage::Hello(far.hello), IdentityMessage::Proof(far.proof(ours))];
    words.map(|message| message.encode().to_vec())
}

/// What `Far::new(2)` says to the first hello of `node(1, ..)`, one of the two damaged.
fn damaged_words() -> impl Strategy<Value = [Vec<u8>; 2]> {
    let (ours, far) = (Hello { nonce: key(1).nonce(0, 0), key: key(1).public() }, Far::new(2));
    let [hello, proof] = words(&far, &ours);
    let whole = (hello.clone(), proof.clone());
    prop_oneof![
        damaged(hello).prop_map(move |hello| [hello, whole.1.clone()]),
        damaged(proof).prop_map(move |proof| [whole.0.clone(), proof]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn e13_damaged_words_prove_nothing(said in damaged_words()) {
        let mut rig = node(1, true);
        let (conn, ours) = rig.meet("8.8.8.8:1");
        for payload in &said {
            rig.say(conn, Message::Extended { id: proof::TROC_ID, payload }).unwrap();
        }
        // Damage may undo itself.
        prop_assert_eq!(rig.is_keys(conn, 2), said == words(&Far::new(2), &ours));
        prop_assert!(rig.is_open(conn));
        rig.engine.check_invariants();
    }
}
