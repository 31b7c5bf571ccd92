//! Limits of what is sent and asked for, in virtual time: how exact they are, and whom they hold up.

use super::*;
use crate::base::units::BLOCK_BYTES;
use crate::shared::budget::{Budget, LanBudget};

const LAN_PEER: &str = "192.168.1.7:6881";
const PUBLIC_PEER: &str = "8.8.8.8:6881";

fn budget(rate: u64) -> Arc<Budget> {
    Arc::new(Budget::new(rate, Instant(0)))
}

const fn node(budget: Arc<Budget>, lan: LanBudget) -> Budgets {
    Budgets { node: Some(budget), lan }
}

/// The bar of ten seconds: within 2 % from 1 MiB/s up, below that within one block.
fn assert_rate(sum: u64, rate: u64, block: u32, what: &str) {
    let slack = if rate >= 1 << 20 { rate * 10 / 50 } else { block.max(BLOCK_BYTES).into() };
    assert!(sum.abs_diff(rate * 10) <= slack, "{sum} of {} at {rate}, blocks of {block}: {what}", rate * 10);
}

/// Engines whose peers read all they are sent, ask again at once, and answer all they are asked.
struct Fleet {
    rigs: Vec<Rig>,
    now: Instant,
    /// What each connection asks for, and what it was sent: by rig and connection.
    asks: HashMap<(usize, ConnId), BlockRef>,
    sent: HashMap<(usize, ConnId), u64>,
    turns: u64,
}

impl Fleet {
    fn new(rigs: Vec<Rig>) -> Self {
        let now = rigs[0].now;
        Self { rigs, now, asks: HashMap::new(), sent: HashMap::new(), turns: 0 }
    }

    /// A peer that wants `block` over and over.
    fn leech(&mut self, rig: usize, address: &str, block: BlockRef) -> ConnId {
        let conn = self.rigs[rig].accept(address);
        assert_eq!(self.rigs[rig].shake(conn, true), Admission::Here);
        self.rigs[rig].read(conn);
        self.rigs[rig].say(conn, Message::Interested).unwrap();
        self.rigs[rig].read(conn);
        self.asks.insert((rig, conn), block);
        conn
    }

    /// Sends what may be sent now.
    fn pump(&mut self, at: usize) {
        let rig = &mut self.rigs[at];
        while let Some(action) = rig.engine.poll_action(rig.now) {
            match action {
                Action::Send(conn) => {
                    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
                    if rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now) {
                        let sum = segments.iter().map(Segment::len).sum();
                        rig.engine.handle_sent(conn, Ok(sum), rig.now);
                        let payload = segments.iter().filter(|segment| segment.is_payload());
                        let payload: u64 = payload.map(|segment| u64::from(segment.len())).sum();
                        *self.sent.entry((at, conn)).or_default() += payload;
                    }
                    ask(rig, conn, self.asks.get(&(at, conn)));
                }
                Action::Load { torrent, chunk, .. } => rig.engine.handle_loaded(torrent, chunk, Ok(())),
                _ => {}
            }
        }
        rig.engine.check_settled();
    }

    fn run(&mut self, span: Span) {
        let end = self.now + span;
        let all: Vec<(usize, ConnId)> = self.asks.keys().copied().collect();
        for (at, conn) in all {
            ask(&mut self.rigs[at], conn, self.asks.get(&(at, conn)));
        }
        loop {
            for at in 0..self.rigs.len() {
                self.rigs[at].now = self.now;
                self.rigs[at].engine.handle_tick(self.now);
                self.pump(at);
            }
            self.turns += 1;
            let due = self.rigs.iter().filter_map(|rig| rig.engine.poll_timeout()).min();
            let due = due.expect("there are peers");
            assert!(due > self.now, "it would spin");
            if due >= end {
                self.now = end;
                return;
            }
            self.now = due;
        }
    }

    fn sent_bytes(&self) -> u64 {
        self.sent.values().sum()
    }
}

/// Keeps a few requests waiting.
fn ask(rig: &mut Rig, conn: ConnId, block: Option<&BlockRef>) {
    let Some(&block) = block else { return };
    while rig.engine.peer(conn).is_some_and(|peer| peer.is_open() && peer.requests.len() < 32) {
        rig.say(conn, Message::Request(block)).unwrap();
    }
}

/// Ten seconds of `cores` engines with `peers` each, after an idle minute.
fn ten_seconds(rate: u64, cores: usize, peers: u16, length: u32) {
    let limit = node(budget(rate), LanBudget::Shared);
    let rig = || Rig::limited(3, true, (limit.clone(), Budgets::default()), TorrentLimits::default());
    let mut fleet = Fleet::new((0..cores).map(|_| rig()).collect());
    fleet.now = fleet.now + Span::from_secs(60);
    for at in 0..cores {
        fleet.rigs[at].now = fleet.now;
        for port in 0..peers {
            fleet.leech(at, &format!("9.9.{at}.{port}:7"), block(0, 0, length));
        }
    }
    fleet.run(Span::from_secs(10));
    assert_rate(fleet.sent_bytes(), rate, length, &format!("{cores} cores, {peers} peers each"));
    // Timers, not turns without an end: a look each 10 ms and core, and one each 50 ms at the windows.
    assert!(fleet.turns <= 10 * 100 * cores as u64 + 1_000, "{} turns", fleet.turns);
}

#[test]
fn one_engine_sends_what_the_limit_says() {
    for rate in [1 << 10, 100_000, (1 << 20) - 1, 1 << 20, 20 << 20] {
        for (peers, length) in [(1, BLOCK_BYTES), (5, BLOCK_BYTES), (3, 10_001)] {
            ten_seconds(rate, 1, peers, length);
        }
    }
    ten_seconds(1_250_000_000, 1, 4, BLOCK_BYTES);
}

#[test]
fn engines_that_share_a_limit_send_what_it_says_together() {
    for rate in [1 << 10, 300_000, 1 << 20, 125_000_000] {
        for cores in [2, 4] {
            ten_seconds(rate, cores, 2, BLOCK_BYTES);
        }
    }
}

/// One seed with limits, a peer out there and one in the local network: what each is sent in ten seconds.
fn out_there_and_local(upload: Budgets, limits: TorrentLimits) -> (u64, u64) {
    let rig = Rig::limited(3, true, (upload, Budgets::default()), limits);
    let mut fleet = Fleet::new(vec![rig]);
    let public = fleet.leech(0, PUBLIC_PEER, block(0, 0, BLOCK_BYTES));
    let local = fleet.leech(0, LAN_PEER, block(0, 1 << 15, BLOCK_BYTES));
    fleet.run(Span::from_secs(10));
    let sent = |conn| fleet.sent.get(&(0, conn)).copied().unwrap_or(0);
    (sent(public), sent(local))
}

#[test]
fn local_peers_with_a_limit_of_their_own_and_others_do_not_hold_each_other_up() {
    for (out, lan) in [(20_000, 50 << 20), (50 << 20, 20_000), (1, 3 << 20), (3 << 20, 1)] {
        let limits = node(budget(out), LanBudget::Own(budget(lan)));
        let (public, local) = out_there_and_local(limits, TorrentLimits::default());
        assert_rate(public, out, BLOCK_BYTES, "out there");
        assert_rate(local, lan, BLOCK_BYTES, "local");
    }
}

#[test]
fn without_a_word_about_local_peers_one_limit_is_for_all() {
    let rate = 2 << 20;
    let (public, local) =
        out_there_and_local(node(budget(rate), LanBudget::Shared), TorrentLimits::default());
    assert_rate(public + local, rate, BLOCK_BYTES, "together");
    assert!(public > 0 && local > 0);
}

#[test]
fn exempt_local_peers_are_sent_all_they_ask_for_while_the_limit_is_shut() {
    let limited = TorrentLimits { upload: Some(budget(1)), download: None };
    for limits in [TorrentLimits::default(), limited] {
        let upload = node(budget(1), LanBudget::Exempt);
        let rig = Rig::limited(3, true, (upload, Budgets::default()), limits);
        let mut fleet = Fleet::new(vec![rig]);
        let public = fleet.leech(0, PUBLIC_PEER, block(0, 0, BLOCK_BYTES));
        let local = fleet.leech(0, LAN_PEER, NO_BLOCK);
        // What is not limited would go on for ever if it was asked for for ever.
        fleet.asks.remove(&(0, local));
        fleet.run(Span::from_secs(1));
        let sent = |fleet: &Fleet, conn| fleet.sent.get(&(0, conn)).copied().unwrap_or(0);
        assert_eq!(sent(&fleet, public), u64::from(BLOCK_BYTES), "one block for the next five hours");
        for _ in 0..400 {
            fleet.rigs[0].say(local, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        }
        fleet.pump(0);
        assert_eq!(sent(&fleet, local), 400 * u64::from(BLOCK_BYTES), "all at once");
        assert_eq!(sent(&fleet, public), u64::from(BLOCK_BYTES));
    }
}

/// A second torrent for a rig, with limits of its own.
fn add_torrent(rig: &mut Rig, id: u32, limits: TorrentLimits) {
    let plain = TorrentMeta::plain(InfoHash([id as u8 + 100; 20]), 2 << 20, 1 << 20);
    let meta = TorrentMeta { id: TorrentId(id), ..plain };
    let shared = SharedTorrent::with_limits(meta, &Bitfield::full(2), 1, limits);
    rig.engine.handle_torrent(shared);
}

#[test]
fn a_torrent_whose_limit_is_shut_holds_no_other_up_and_each_gets_its_own() {
    let limit = |rate| TorrentLimits { upload: Some(budget(rate)), download: None };
    let upload = node(budget(6 << 20), LanBudget::Shared);
    let mut rig = Rig::limited(3, true, (upload, Budgets::default()), limit(20_000));
    add_torrent(&mut rig, 1, limit(2 << 20));
    add_torrent(&mut rig, 2, TorrentLimits::default());
    let mut fleet = Fleet::new(vec![rig]);
    let mut conns = Vec::new();
    for (torrent, hash) in [(0u8, HASH), (1, InfoHash([101; 20])), (2, InfoHash([102; 20]))] {
        // Each wants another piece: one that somebody was just given a seed leaves for last.
        for host in 0..2 {
            let conn = fleet.rigs[0].accept(&format!("9.{torrent}.{host}.1:7"));
            let handshake = Handshake::new(hash, THEIRS).with_fast();
            assert_eq!(fleet.rigs[0].engine.handle_handshake(conn, &handshake, fleet.now), Admission::Here);
            fleet.rigs[0].read(conn);
            fleet.rigs[0].say(conn, Message::Interested).unwrap();
            fleet.rigs[0].read(conn);
            fleet.asks.insert((0, conn), block(host, 0, BLOCK_BYTES));
            conns.push(conn);
        }
    }
    fleet.run(Span::from_secs(10));
    let sent = |at: usize| fleet.sent.get(&(0, conns[at])).copied().unwrap_or(0);
    assert_rate(sent(0) + sent(1), 20_000, BLOCK_BYTES, "the slow one");
    assert_rate(sent(2) + sent(3), 2 << 20, BLOCK_BYTES, "the other one");
    assert_rate(fleet.sent_bytes(), 6 << 20, BLOCK_BYTES, "the third gets what the node has left");
    // Within a torrent everybody has a share.
    for pair in [2, 4] {
        assert!(sent(pair).abs_diff(sent(pair + 1)) <= sent(pair) / 10, "{} {}", sent(pair), sent(pair + 1));
    }
}

#[test]
fn a_limit_that_is_shut_counts_nobody_away_and_forgets_who_leaves() {
    let limit = TorrentLimits { upload: Some(budget(1)), download: None };
    let rig = Rig::limited(3, true, (Budgets::default(), Budgets::default()), limit);
    let mut fleet = Fleet::new(vec![rig]);
    for round in 0..3 {
        let conns: Vec<ConnId> = (0..40)
            .map(|host| fleet.leech(0, &format!("9.{round}.{host}.1:7"), block(0, 0, BLOCK_BYTES)))
            .collect();
        fleet.run(Span::from_ms(200));
        assert!(fleet.rigs[0].engine.ready_count() > 0);
        for conn in conns {
            fleet.asks.remove(&(0, conn));
            fleet.rigs[0].engine.handle_closed(conn);
            fleet.pump(0);
        }
        assert_eq!(fleet.rigs[0].engine.ready_count(), 0);
    }
    assert_eq!(fleet.sent_bytes(), u64::from(BLOCK_BYTES), "who comes anew gains nothing");
}

/// What an engine asks of its peers in ten seconds: each block that it asks for comes at once.
fn asked_in_ten_seconds(download: Budgets, limits: TorrentLimits, cores: usize, address: &str) -> u64 {
    let rig = || Rig::limited(400, false, (Budgets::default(), download.clone()), limits.clone());
    let mut rigs: Vec<Rig> = (0..cores).map(|_| rig()).collect();
    let (mut now, mut sum) = (rigs[0].now + Span::from_secs(60), 0);
    let mut conns = Vec::new();
    for rig in &mut rigs {
        rig.now = now;
        let conn = rig.accept(address);
        assert_eq!(rig.shake(conn, true), Admission::Here);
        rig.read(conn);
        rig.say(conn, Message::HaveAll).unwrap();
        rig.say(conn, Message::Unchoke).unwrap();
        conns.push(conn);
    }
    let end = now + Span::from_secs(10);
    while now < end {
        for (rig, &conn) in rigs.iter_mut().zip(&conns) {
            rig.now = now;
            rig.engine.handle_tick(now);
            sum += answer(rig, conn);
        }
        now = rigs.iter().filter_map(|rig| rig.engine.poll_timeout()).min().unwrap();
        assert!(now > rigs[0].now, "it would spin");
    }
    sum
}

/// Gives `conn` all that it is asked for now.
fn answer(rig: &mut Rig, conn: ConnId) -> u64 {
    let mut sum = 0;
    loop {
        let asked = rig.asked(conn);
        sum += asked.iter().map(|block| u64::from(block.length)).sum::<u64>();
        for &block in &asked {
            let Ok(Landing::Into(expected)) = rig.engine.handle_piece_header(conn, block) else {
                panic!("{block:?} was asked for")
            };
            rig.engine.handle_block(conn, expected.chunk, expected.index, rig.now);
        }
        let hashed = verify(rig);
        if asked.is_empty() && !hashed {
            return sum;
        }
    }
}

/// All that waits to be hashed is right, and on disk at once.
fn verify(rig: &mut Rig) -> bool {
    let done = std::mem::take(&mut rig.done);
    for action in &done {
        match *action {
            Action::Hash { torrent, chunk, last, .. } => {
                rig.engine.handle_hashed(torrent, chunk, last.then_some([0; 20].into()));
            }
            Action::Write { torrent, chunk } => rig.engine.handle_written(torrent, chunk, Ok(())),
            _ => {}
        }
    }
    !done.is_empty()
}

#[test]
fn what_is_asked_for_keeps_to_the_limit_too() {
    for rate in [1 << 10, 300_000, 1 << 20, 8 << 20] {
        for cores in [1, 2] {
            let download = node(budget(rate), LanBudget::Shared);
            let sum = asked_in_ten_seconds(download, TorrentLimits::default(), cores, PUBLIC_PEER);
            assert_rate(sum, rate, BLOCK_BYTES, &format!("{cores} cores"));
        }
    }
    let slow = TorrentLimits { upload: None, download: Some(budget(500_000)) };
    let sum = asked_in_ten_seconds(node(budget(8 << 20), LanBudget::Shared), slow.clone(), 1, PUBLIC_PEER);
    assert_rate(sum, 500_000, BLOCK_BYTES, "of the torrent");
    let apart = node(budget(1), LanBudget::Own(budget(2 << 20)));
    let sum = asked_in_ten_seconds(apart, slow, 1, LAN_PEER);
    assert_rate(sum, 2 << 20, BLOCK_BYTES, "of a local peer, whose limit is apart");
}

#[test]
fn twenty_connections_of_a_group_gain_nothing_where_a_limit_is_shut_most_of_the_time() {
    let limit = |rate| TorrentLimits { upload: Some(budget(rate)), download: None };
    let mut rig = Rig::limited(3, true, (Budgets::default(), Budgets::default()), limit(400_000));
    add_torrent(&mut rig, 1, limit(8 << 20));
    let mut fleet = Fleet::new(vec![rig]);
    let many: Vec<ConnId> =
        (1..=20).map(|host| fleet.leech(0, &format!("9.9.9.{host}:7"), block(0, 0, BLOCK_BYTES))).collect();
    let one = fleet.leech(0, PUBLIC_PEER, block(0, 0, BLOCK_BYTES));
    // Of another torrent, served twenty times as fast: it must not make the slow one forget who got what.
    let fast = fleet.rigs[0].accept("7.7.7.7:7");
    let handshake = Handshake::new(InfoHash([101; 20]), THEIRS).with_fast();
    assert_eq!(fleet.rigs[0].engine.handle_handshake(fast, &handshake, fleet.now), Admission::Here);
    fleet.rigs[0].read(fast);
    fleet.rigs[0].say(fast, Message::Interested).unwrap();
    fleet.rigs[0].read(fast);
    fleet.asks.insert((0, fast), block(0, 0, BLOCK_BYTES));
    fleet.run(Span::from_secs(30));
    let sent = |conn: &ConnId| fleet.sent.get(&(0, *conn)).copied().unwrap_or(0);
    let (many, one): (u64, u64) = (many.iter().map(sent).sum(), sent(&one));
    assert!(many <= one + one / 4, "{many} for twenty, {one} for one");
    assert!(sent(&fast) > 200 << 20);
}
