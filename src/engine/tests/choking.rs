//! Whom we choke when the uplink is full, what that does to requests, and that nobody starves (P25, P26,
//! P40, E12). Peers of public networks share an uplink that takes so many bytes a second.

use super::*;
use crate::base::limits::{
    CHOKE_PART, CHOKE_ROUND, GRANT_GROUP_BYTES, REQUESTS_QUEUED_MAX, SERVED_WITHIN, UNCHOKED_TURN,
};
use crate::base::network::GroupPrefixes;
use crate::engine::choker::{Choker, Rivals};
use crate::proto::wire::handshake::HANDSHAKE_BYTES;

const STEP: Span = Span::from_ms(20);
const RATE: u64 = 8 << 20;
const PIECES: u32 = 16;
const BLOCK: u32 = 16 << 10;

/// Of one piece more, which is short.
const BITFIELD_BYTES: u32 = (PIECES + 1).div_ceil(8);

/// Requests that a peer keeps with us.
const DEPTH: usize = 16;

/// The other end of a connection.
struct Remote {
    conn: ConnId,
    fast: bool,
    greeted: bool,
    /// It asks while it may.
    asks: bool,
    unchoked: bool,
    allowed: Vec<u32>,
    asked: Vec<BlockRef>,
    rejected: u32,
    got_bytes: u64,
    unchoked_at: Vec<Instant>,
    choked_at: Vec<Instant>,
    next: u32,
}

/// A seed, its peers, and what is on its way to them, in order.
struct Uplink {
    rig: Rig,
    remotes: Vec<Remote>,
    flying: VecDeque<(usize, u32, u64)>,
    credit_bytes: u64,
    /// What could have been sent and was not.
    idle_bytes: u64,
}

impl Uplink {
    fn new() -> Self {
        let mut rig = Rig::new(PIECES + 1, true);
        rig.engine.choker = Choker::new(rig.now);
        Self { rig, remotes: Vec::new(), flying: VecDeque::new(), credit_bytes: 0, idle_bytes: 0 }
    }

    /// One with so many peers that ask all the time, each of a network of its own.
    fn with(peers: usize) -> Self {
        let mut uplink = Self::new();
        for n in 0..peers {
            uplink.connect(&format!("80.{}.{}.9:7", n / 256, n % 256), true);
        }
        uplink
    }

    fn connect(&mut self, address: &str, fast: bool) -> usize {
        let conn = self.rig.accept(address);
        assert_eq!(self.rig.shake(conn, fast), Admission::Here);
        self.remotes.push(Remote {
            conn,
            fast,
            greeted: false,
            asks: true,
            unchoked: false,
            allowed: Vec::new(),
            asked: Vec::new(),
            rejected: 0,
            got_bytes: 0,
            unchoked_at: Vec::new(),
            choked_at: Vec::new(),
            next: self.remotes.len() as u32,
        });
        let at = self.remotes.len() - 1;
        self.say(at, if fast { Message::HaveNone } else { Message::Bitfield(&[0; 3]) });
        self.say(at, Message::Interested);
        self.perform();
        at
    }

    fn say(&mut self, at: usize, message: Message<'_>) {
        self.rig.say(self.remotes[at].conn, message).unwrap();
    }

    /// The peer at `at` gave us bytes.
    fn give(&mut self, at: usize, bytes: u64) {
        let key = self.rig.engine.peer(self.remotes[at].conn).unwrap().key;
        self.rig.engine.ledger.credit(key, bytes);
    }

    /// Carries out all intentions; sends begin to fly.
    fn perform(&mut self) {
        while let Some(action) = self.rig.engine.poll_action(self.rig.now) {
            match action {
                Action::Send(conn) => self.send(conn),
                Action::Load { torrent, chunk, .. } => self.rig.engine.handle_loaded(torrent, chunk, Ok(())),
                Action::Close(conn) => self.rig.engine.handle_closed(conn),
                _ => {}
            }
        }
        self.rig.engine.check_invariants();
        self.rig.engine.check_settled();
    }

    fn send(&mut self, conn: ConnId) {
        let Some(at) = self.remotes.iter().position(|remote| remote.conn == conn) else { return };
        let (mut outbox, mut segments) = (Vec::new(), Vec::new());
        if !self.rig.engine.take_send(conn, &mut outbox, &mut segments, self.rig.now) {
            return;
        }
        let skip = if std::mem::replace(&mut self.remotes[at].greeted, true) { 0 } else { HANDSHAKE_BYTES };
        let mut left = &outbox[skip..];
        while let Some((Frame::Message(message), used)) = next_frame(left, BITFIELD_BYTES).unwrap() {
            self.hear(at, message);
            left = &left[used..];
        }
        let payload = segments.iter().filter(|segment| segment.is_payload()).map(|one| u64::from(one.len()));
        let payload = payload.sum();
        self.flying.push_back((at, segments.iter().map(Segment::len).sum(), payload));
    }

    fn hear(&mut self, at: usize, message: Message<'_>) {
        let (now, remote) = (self.rig.now, &mut self.remotes[at]);
        match message {
            Message::Unchoke => {
                assert!(!std::mem::replace(&mut remote.unchoked, true), "said twice");
                remote.unchoked_at.push(now);
            }
            Message::Choke => {
                assert!(std::mem::replace(&mut remote.unchoked, false), "said twice");
                remote.choked_at.push(now);
                if !remote.fast {
                    remote.asked.clear();
                }
            }
            Message::AllowedFast(piece) => remote.allowed.push(piece),
            Message::Reject(block) => {
                remote.rejected += 1;
                // What was sent is taken off in the order in which it was asked for, but a seed brings rare
                // pieces forward.
                let place = remote.asked.iter().position(|&asked| asked == block);
                place.map(|place| remote.asked.remove(place));
            }
            _ => {}
        }
    }

    /// A peer asks for what it may until `DEPTH` requests are outstanding.
    fn ask(&mut self, at: usize) {
        while self.remotes[at].asks && self.remotes[at].asked.len() < DEPTH {
            let remote = &mut self.remotes[at];
            remote.next += 1;
            let piece = match (remote.unchoked, remote.allowed.len() as u32) {
                (true, _) => remote.next / 64 % PIECES,
                (false, 0) => return,
                (false, count) => remote.allowed[(remote.next / 64 % count) as usize],
            };
            let block = block(piece, remote.next % 64 * BLOCK, BLOCK);
            remote.asked.push(block);
            self.say(at, Message::Request(block));
        }
    }

    fn land(&mut self) {
        while let Some(&(at, bytes, payload)) =
            self.flying.front().filter(|fly| u64::from(fly.1) <= self.credit_bytes)
        {
            self.credit_bytes -= u64::from(bytes);
            self.flying.pop_front();
            let remote = &mut self.remotes[at];
            remote.got_bytes += payload;
            let blocks = (payload / u64::from(BLOCK)) as usize;
            remote.asked.drain(..blocks.min(remote.asked.len()));
            self.rig.engine.handle_sent(remote.conn, Ok(bytes), self.rig.now);
        }
        if self.flying.is_empty() {
            self.idle_bytes += std::mem::take(&mut self.credit_bytes);
        }
    }

    fn step(&mut self) {
        self.rig.now = self.rig.now + STEP;
        self.credit_bytes += RATE * STEP.as_ms() / 1_000;
        self.land();
        (0..self.remotes.len()).for_each(|at| self.ask(at));
        self.rig.engine.handle_tick(self.rig.now);
        self.perform();
    }

    fn pass(&mut self, span: Span) {
        (0..span.0 / STEP.0).for_each(|_| self.step());
    }

    fn unchoked(&self) -> usize {
        self.remotes.iter().filter(|remote| remote.unchoked).count()
    }

    fn got(&self) -> Vec<u64> {
        self.remotes.iter().map(|remote| remote.got_bytes).collect()
    }
}

/// Peers that this uplink serves at the rate that an unchoked one is to have.
const ROOM: usize = (RATE / crate::base::limits::UNCHOKED_RATE_MIN) as usize;

#[test]
fn as_many_as_can_be_served_are_unchoked_and_nobody_is_choked_while_there_is_room() {
    for (peers, unchoked) in [(ROOM / 2, ROOM / 2), (ROOM - 4, ROOM - 4), (3 * ROOM, ROOM)] {
        let mut uplink = Uplink::with(peers);
        assert_eq!(uplink.unchoked(), peers, "at first there is room");
        uplink.pass(Span::from_secs(60));
        let now = uplink.unchoked();
        assert!(now.abs_diff(unchoked) <= unchoked / 8, "{now} of {peers}");
        assert!(peers > ROOM || uplink.remotes.iter().all(|remote| remote.choked_at.is_empty()));
    }
}

#[test]
fn p25_we_do_not_flap_and_chokes_come_in_rounds() {
    let mut uplink = Uplink::with(3 * ROOM);
    uplink.pass(Span::from_secs(120));
    let mut chokes: Vec<Instant> = Vec::new();
    // Either is heard a moment later, behind what is on its way.
    let moment = Span::from_secs(1);
    let least = Span(CHOKE_ROUND.0 - moment.0);
    for remote in &uplink.remotes {
        for (unchoked, choked) in remote.unchoked_at.iter().zip(&remote.choked_at) {
            assert!(choked.since(*unchoked) >= least, "{unchoked:?} to {choked:?}");
        }
        chokes.extend(&remote.choked_at);
    }
    chokes.sort_unstable();
    let rounds: Vec<&[Instant]> = chokes.chunk_by(|one, next| next.since(*one) < moment).collect();
    assert!(rounds.len() > 5 && rounds.iter().all(|round| round.len() <= 3 * ROOM / CHOKE_PART));
    assert!(rounds.windows(2).all(|pair| pair[1][0].since(pair[0][0]) >= least));
}

#[test]
fn p40_turns_reach_everybody_within_their_bound() {
    let mut uplink = Uplink::with(3 * ROOM);
    uplink.pass(Span::from_secs(60));
    let begun = uplink.rig.now;
    // Two thirds wait; each place is free again after a turn and a round at most.
    let bound = Span(4 * (UNCHOKED_TURN.0 + CHOKE_ROUND.0));
    uplink.pass(bound);
    for (at, remote) in uplink.remotes.iter().enumerate() {
        let served = remote.unchoked || remote.choked_at.last().is_some_and(|&at| at >= begun);
        assert!(served, "{at}: {:?}", remote.unchoked_at);
    }
    let got = uplink.got();
    assert!(*got.iter().min().unwrap() > 0);
}

#[test]
fn the_uplink_never_idles_while_somebody_waits() {
    let mut uplink = Uplink::with(3 * ROOM);
    uplink.pass(Span::from_secs(60));
    assert!(uplink.unchoked() < 2 * ROOM);
    // All that are unchoked want blocks and ask for none.
    uplink.remotes.iter_mut().filter(|remote| remote.unchoked).for_each(|remote| remote.asks = false);
    let idle = uplink.idle_bytes;
    uplink.pass(Span::from_secs(10));
    let idle_ms = (uplink.idle_bytes - idle) * 1_000 / RATE;
    assert!(idle_ms < 1_000, "{idle_ms} ms");
    let idle = uplink.idle_bytes;
    uplink.pass(Span::from_secs(20));
    let idle_ms = (uplink.idle_bytes - idle) * 1_000 / RATE;
    assert!(idle_ms < 500, "{idle_ms} ms");
}

#[test]
fn givers_stay_unchoked_unless_they_snub_us() {
    for snubs in [false, true] {
        let mut uplink = Uplink::with(3 * ROOM);
        for at in [0, 7, 40] {
            uplink.give(at, 1 << 40);
            uplink.give(at + 1, 1 << 20);
            let conn = uplink.remotes[at + 1].conn;
            let key = uplink.rig.engine.peer(conn).unwrap().accounts.unwrap()[0];
            uplink.rig.engine.ledger.debit(key, 1 << 20);
        }
        for _ in 0..100 {
            for at in [1, 8, 41] {
                uplink.give(at, 8 << 20);
                let conn = uplink.remotes[at].conn;
                let peer = uplink.rig.engine.peers.get_mut(conn).unwrap();
                peer.snubbed_until = snubs.then_some(Instant(u64::MAX));
                let account = peer.accounts.unwrap()[0];
                uplink.rig.engine.ledger.debit(account, 8 << 20);
            }
            uplink.pass(Span::from_secs(1));
        }
        for at in [0, 7, 40] {
            assert!(uplink.remotes[at].choked_at.is_empty(), "{at} is owed much");
        }
        let choked = [1, 8, 41].iter().filter(|&&at| !uplink.remotes[at].choked_at.is_empty()).count();
        assert_eq!(choked > 0, snubs);
    }
}

#[test]
fn a_choke_rejects_what_is_queued_and_what_is_in_a_send_goes_out() {
    for fast in [true, false] {
        let mut uplink = Uplink::new();
        let at = uplink.connect("80.1.1.1:1", fast);
        for n in 0..40 {
            uplink.connect(&format!("81.1.{n}.1:1"), true);
        }
        uplink.pass(Span::from_secs(1));
        while uplink.rig.engine.peer(uplink.remotes[at].conn).unwrap().requests.is_empty()
            || !uplink.flying.iter().any(|fly| fly.0 == at)
        {
            uplink.step();
        }
        let conn = uplink.remotes[at].conn;
        let queued = uplink.rig.engine.peer(conn).unwrap().requests.len();
        let (before, flying) = (uplink.remotes[at].got_bytes, uplink.flying.iter().filter(|fly| fly.0 == at));
        let flying: u64 = flying.map(|fly| fly.2).sum();
        uplink.remotes[at].asks = false;
        uplink.rig.engine.choke(conn);
        uplink.rig.engine.check_invariants();
        uplink.rig.engine.check_settled();
        uplink.pass(Span::from_secs(2));
        let remote = &uplink.remotes[at];
        assert_eq!(remote.choked_at.len(), 1);
        if fast {
            let stays = |block: &BlockRef| remote.allowed.contains(&block.piece);
            assert!(remote.rejected as usize <= queued && remote.asked.iter().all(stays), "each is answered");
        } else {
            assert_eq!((remote.rejected, remote.got_bytes - before), (0, flying));
        }
        assert!(uplink.rig.is_open(conn));
    }
}

#[test]
fn requests_that_race_with_our_chokes_are_no_offence() {
    let mut rig = Rig::new(3, true);
    let conn = rig.accept("80.1.1.1:1");
    rig.shake(conn, true);
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    for _ in 0..10 {
        for n in 0..REQUESTS_QUEUED_MAX as u32 {
            rig.say(conn, Message::Request(block(0, n % 64 * BLOCK, BLOCK))).unwrap();
        }
        rig.engine.choke(conn);
        for n in 0..REQUESTS_QUEUED_MAX as u32 {
            rig.say(conn, Message::Request(block(1, n % 64 * BLOCK, BLOCK))).unwrap();
        }
        let (bytes, blocks) = rig.read(conn);
        let rejects = frames(&bytes).iter().filter(|one| matches!(one, Message::Reject(_))).count();
        assert_eq!((rejects, blocks), (2 * REQUESTS_QUEUED_MAX, 0));
        rig.engine.unchoke(conn, CHOKE_ROUND, rig.now);
    }
    let peer = rig.engine.peer(conn).unwrap();
    assert!(peer.is_open() && peer.strikes == 0);
}

#[test]
fn peers_of_local_networks_are_not_choked() {
    let mut uplink = Uplink::new();
    for n in 0..3 * ROOM {
        let address = if n % 2 == 0 { format!("10.0.0.{n}:1") } else { format!("127.0.0.1:{n}") };
        uplink.connect(&address, true);
    }
    uplink.pass(Span::from_secs(40));
    assert!(uplink.remotes.iter().all(|remote| remote.unchoked && remote.choked_at.is_empty()));
    assert!(uplink.remotes.iter().all(|remote| remote.allowed.is_empty()));
    let mut strict = Uplink::new();
    strict.rig.engine.choker = Choker::with(Rivals::Everybody, 8, strict.rig.now);
    for n in 0..3 * ROOM {
        strict.connect(&format!("10.0.0.{n}:1"), true);
    }
    strict.pass(Span::from_secs(40));
    assert!(strict.remotes.iter().any(|remote| !remote.choked_at.is_empty()), "it is their network");
}

#[test]
fn friends_are_not_choked() {
    let mut uplink = Uplink::new();
    let friends = vec!["80.0.0.0/16".parse().unwrap()];
    uplink.rig.engine.config.grouping = Grouping::new(friends, GroupPrefixes::default()).unwrap();
    for n in 0..3 * ROOM {
        uplink.connect(&format!("80.{}.{n}.9:7", n % 2), true);
    }
    uplink.pass(Span::from_secs(40));
    let choked = |parity: usize| {
        let of_network = uplink.remotes.iter().skip(parity).step_by(2);
        of_network.filter(|remote| !remote.choked_at.is_empty() || !remote.unchoked).count()
    };
    assert_eq!(choked(0), 0, "friends");
    assert!(choked(1) > 0, "strangers");
}

/// An uplink that givers fill, and takers that have used up their grants.
fn full_of_givers(takers: &[String]) -> (Uplink, Vec<usize>) {
    let mut uplink = Uplink::new();
    let givers: Vec<usize> = (0..8).map(|n| uplink.connect(&format!("82.1.{n}.1:1"), true)).collect();
    givers.into_iter().for_each(|at| uplink.give(at, 1 << 40));
    let takers: Vec<usize> = takers.iter().map(|address| uplink.connect(address, true)).collect();
    for &taker in &takers {
        let account = uplink.rig.engine.peer(uplink.remotes[taker].conn).unwrap().accounts.unwrap()[1];
        uplink.rig.engine.ledger.grant(account, GRANT_GROUP_BYTES);
    }
    uplink.pass(Span::from_secs(5));
    (uplink, takers)
}

#[test]
fn an_unchoked_peer_that_the_order_leaves_waiting_gets_a_block_within_its_time() {
    let (mut uplink, takers) = full_of_givers(&["83.1.1.1:1".to_string()]);
    let taker = takers[0];
    let (mut last, mut waits, mut waited_secs) = (uplink.remotes[taker].got_bytes, Vec::new(), 0);
    for _ in 0..100 {
        uplink.pass(Span::from_secs(1));
        waited_secs += 1;
        let got = uplink.remotes[taker].got_bytes;
        if got > last {
            assert_eq!(got - last, u64::from(BLOCK), "no more than one");
            waits.push(std::mem::take(&mut waited_secs));
            last = got;
        }
    }
    let least = SERVED_WITHIN.0 / Span::from_secs(1).0;
    assert!(waits.len() >= 5 && waits[1..].iter().all(|wait| (least..=20).contains(wait)), "{waits:?}");
}

#[test]
fn many_connections_of_a_group_get_no_more_out_of_turn_than_one() {
    let one = vec!["83.1.1.1:1".to_string()];
    let many = (1..=12).map(|n| format!("84.1.1.{n}:1"));
    let (mut uplink, takers) = full_of_givers(&one.into_iter().chain(many).collect::<Vec<_>>());
    let sum = |uplink: &Uplink, takers: &[usize]| -> u64 {
        takers.iter().map(|&taker| uplink.remotes[taker].got_bytes).sum()
    };
    let before = [&takers[..1], &takers[1..]].map(|takers| sum(&uplink, takers));
    uplink.pass(Span::from_secs(200));
    let [one, many] = [&takers[..1], &takers[1..]].map(|takers| sum(&uplink, takers));
    let [one, many] = [one - before[0], many - before[1]].map(|bytes| bytes / u64::from(BLOCK));
    assert!(one >= 10 && many >= 10 && many <= one + 2, "{many} blocks, one alone {one}");
}

/// A full uplink on which whoever comes now has to wait for its turn.
fn crowd() -> Uplink {
    let mut uplink = Uplink::with(3 * ROOM);
    uplink.pass(Span::from_secs(40));
    uplink
}

#[test]
fn bep6_a_newcomer_is_served_from_its_set_while_it_is_choked_out_of_its_grant() {
    let mut uplink = crowd();
    let at = uplink.connect("90.1.1.1:1", true);
    assert!(!uplink.remotes[at].unchoked, "others wait longer");
    uplink.pass(Span::from_secs(5));
    let remote = &uplink.remotes[at];
    assert!(!remote.unchoked && remote.allowed.len() == 10, "{:?}", remote.allowed);
    let got = remote.got_bytes;
    assert!((GRANT_GROUP_BYTES..=GRANT_GROUP_BYTES + 512 * 1024).contains(&got), "{got}");
}

#[test]
fn bep6_who_is_unchoked_at_once_is_told_of_no_set() {
    let uplink = Uplink::with(ROOM);
    assert!(uplink.remotes.iter().all(|remote| remote.unchoked && remote.allowed.is_empty()));
}

#[test]
fn p26_a_flood_of_requests_for_allowed_pieces_and_whitewashing_gain_no_more_than_one_grant() {
    let mut uplink = crowd();
    let mut got = 0;
    for n in 0..12 {
        let at = uplink.connect(&format!("90.1.1.{n}:1"), true);
        let conn = uplink.remotes[at].conn;
        uplink.pass(Span::from_secs(1));
        assert!(!uplink.remotes[at].unchoked);
        let allowed = uplink.remotes[at].allowed.clone();
        assert!(allowed.len() == if n == 0 { 10 } else { 0 }, "{n}: {got}");
        for n in 0..300 {
            let piece = allowed.first().copied().unwrap_or(0);
            uplink.remotes[at].asked.push(block(piece, n % 64 * BLOCK, BLOCK));
            uplink.say(at, Message::Request(block(piece, n % 64 * BLOCK, BLOCK)));
        }
        uplink.pass(Span::from_secs(1));
        assert!(uplink.rig.engine.peer(conn).unwrap().requests.len() <= REQUESTS_QUEUED_MAX);
        got += uplink.remotes[at].got_bytes;
        uplink.rig.engine.handle_gone(conn);
        uplink.remotes[at].asks = false;
        uplink.remotes[at].asked.clear();
        uplink.flying.retain(|fly| fly.0 != at);
        uplink.perform();
    }
    assert!(got <= GRANT_GROUP_BYTES + 512 * 1024, "{got}");
}

#[test]
fn e12_who_says_that_it_has_nothing_or_everything_and_gives_nothing_gets_what_others_get() {
    let mut uplink = Uplink::with(3 * ROOM - 2);
    let liar = uplink.connect("91.1.1.1:1", false);
    (0..PIECES / 2).for_each(|piece| uplink.say(liar, Message::Have(piece)));
    let empty = uplink.connect("91.1.2.1:1", true);
    uplink.pass(Span::from_secs(200));
    let got = uplink.got();
    let mean = got.iter().sum::<u64>() / got.len() as u64;
    for at in [liar, empty] {
        assert!(got[at] <= mean * 2, "{} of {mean}", got[at]);
    }
    // Nor does it keep a place for what it says.
    assert!(!uplink.remotes[liar].choked_at.is_empty() && !uplink.remotes[empty].choked_at.is_empty());
}
