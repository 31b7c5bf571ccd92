//! What one connection says of other peers (BEP 11, 55): whom it may name, how often, and of which torrents.

use super::*;
use crate::base::limits::{
    HAVE_FRAMES_WAITING_MAX, PEX_TAKEN_AT_ONCE, PEX_TAKEN_INTERVAL, PUNCH_INTERVAL, PUNCHES_AT_ONCE,
    STRIKES_MAX,
};
use crate::engine::exchange::{Exchange, PEX_ID, PUNCH_ID, Speaks, Tale};
use crate::proto::wire::holepunch::{PunchKind, PunchMessage};
use crate::proto::wire::pex::{PexFlags, PexMessage};

const GREETING: &[u8] = b"d1:md12:ut_holepunchi8e6:ut_pexi7ee11:upload_onlyi1ee";

fn node(exchange: Exchange, private: bool) -> Rig {
    let mut rig = Rig::new(1, false);
    rig.engine.exchange = exchange;
    if private {
        rig.shared = rig.add(TorrentMeta { private, ..rig.plain() }, false);
    }
    rig
}

impl Rig {
    /// A connection from `address`, and what we said to it first.
    fn met(&mut self, address: &str) -> (ConnId, Vec<u8>) {
        let conn = self.accept(address);
        assert_eq!(self.shake(conn, true), Admission::Here);
        let greeting = self.read(conn).0;
        self.say(conn, Message::Extended { id: 0, payload: GREETING }).unwrap();
        self.perform();
        (conn, greeting)
    }

    fn reports(&mut self) -> Vec<Report> {
        self.perform();
        let reports = self.done.extract_if(.., |action| matches!(action, Action::Report(_)));
        let reports = reports.filter_map(|action| match action {
            Action::Report(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    /// `conn` names peers; those that are reported.
    fn names(&mut self, conn: ConnId, peers: &[&str], flags: PexFlags) -> Vec<SocketAddr> {
        self.reports();
        let added = peers.iter().map(|text| (text.parse().unwrap(), flags)).collect();
        let payload = PexMessage { added, dropped: Vec::new() }.encode();
        self.say(conn, Message::Extended { id: PEX_ID, payload: &payload }).unwrap();
        let peers = self.reports().into_iter().filter_map(|report| match report {
            Report::Exchanged { peers, .. } => Some(peers),
            _ => None,
        });
        peers.flatten().collect()
    }

    /// Whether a question of `conn` for another peer is passed on.
    fn asks(&mut self, conn: ConnId) -> bool {
        self.reports();
        let message = PunchMessage { kind: PunchKind::Rendezvous, address: "8.8.4.4:1".parse().unwrap() };
        self.say(conn, Message::Extended { id: PUNCH_ID, payload: &message.encode() }).unwrap();
        self.reports().iter().any(|report| matches!(report, Report::Punch { .. }))
    }
}

fn says(greeting: &[u8], word: &str) -> bool {
    greeting.windows(word.len()).any(|part| part == word.as_bytes())
}

#[test]
fn peers_of_private_torrents_and_without_the_switch_are_told_nothing_and_not_listened_to() {
    for (exchange, private, on) in
        [(Exchange::On, false, true), (Exchange::On, true, false), (Exchange::Off, false, false)]
    {
        let mut rig = node(exchange, private);
        let (conn, greeting) = rig.met("8.8.8.8:1");
        assert_eq!((says(&greeting, "6:ut_pex"), says(&greeting, "12:ut_holepunch")), (on, on));
        let spoke = rig.reports().iter().any(|report| matches!(report, Report::Speaks { .. }));
        assert_eq!(spoke, on);
        assert_eq!(rig.names(conn, &["8.8.4.4:1"], PexFlags::default()).len(), usize::from(on));
        assert_eq!(rig.asks(conn), on);
        rig.engine.handle_tale(conn, Tale::Pex, b"de");
        assert_eq!(rig.read(conn).0.is_empty(), !on);
        assert!(rig.is_open(conn));
    }
}

#[test]
fn what_a_peer_speaks_is_reported_once() {
    let mut rig = node(Exchange::On, false);
    let (conn, _) = rig.met("8.8.8.8:1");
    rig.say(conn, Message::Extended { id: 0, payload: GREETING }).unwrap();
    let reports = rig.reports();
    let spoken: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Speaks { speaks, .. } => Some(*speaks),
            _ => None,
        })
        .collect();
    assert_eq!(spoken, [Speaks { pex: true, flags: PexFlags::SEED.with(PexFlags::HOLEPUNCH) }]);
}

#[test]
fn p31_nobody_points_inwards_and_port_0_is_nobody() {
    const NAMED: [&str; 9] = [
        "127.0.0.1:1",
        "10.0.0.1:1",
        "8.8.4.4:1",
        "8.8.4.4:0",
        "169.254.169.254:80",
        "224.0.0.1:1",
        "0.0.0.0:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ];
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    for (from, believed) in [
        ("8.8.8.8:1", &["8.8.4.4:1"][..]),
        ("10.9.9.9:1", &["10.0.0.1:1", "8.8.4.4:1"]),
        ("127.0.0.1:9", &["127.0.0.1:1", "10.0.0.1:1", "8.8.4.4:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]),
    ] {
        let mut rig = node(Exchange::On, false);
        let (conn, _) = rig.met(from);
        assert_eq!(rig.names(conn, &NAMED, PexFlags::default()), parse(believed), "{from}");
    }
}

#[test]
fn p31_messages_beyond_the_rate_are_not_read_and_end_the_connection_at_last() {
    let mut rig = node(Exchange::On, false);
    let (conn, _) = rig.met("8.8.8.8:1");
    let names = |rig: &mut Rig| rig.names(conn, &["8.8.4.4:1"], PexFlags::default()).len();
    for count in 1..=PEX_TAKEN_AT_ONCE + 1 {
        assert_eq!(names(&mut rig), usize::from(count <= PEX_TAKEN_AT_ONCE), "{count}");
    }
    rig.now = Instant(rig.now.0 + PEX_TAKEN_INTERVAL.0 - 1);
    assert_eq!(names(&mut rig), 0);
    rig.now = rig.now + Span(1);
    assert_eq!((names(&mut rig), names(&mut rig)), (1, 0));
    let mut last = Ok(());
    let struck = rig.engine.peer(conn).unwrap().strikes;
    for count in struck..=STRIKES_MAX {
        assert!(last.is_ok(), "ended by message {count}");
        last = rig.say(conn, Message::Extended { id: PEX_ID, payload: b"de" });
    }
    assert!(last.is_err() && !rig.is_open(conn));
}

#[test]
fn p31_what_cannot_be_read_ends_the_connection() {
    for payload in [&b"x"[..], b"le", b"d5:added"] {
        let mut rig = node(Exchange::On, false);
        let (conn, _) = rig.met("8.8.8.8:1");
        assert!(rig.say(conn, Message::Extended { id: PEX_ID, payload }).is_err());
    }
}

#[test]
fn a_seed_is_not_sent_to_seeds() {
    let mut rig = Rig::new(1, true);
    rig.engine.exchange = Exchange::On;
    let (conn, _) = rig.met("8.8.8.8:1");
    assert_eq!(rig.names(conn, &["8.8.4.4:1"], PexFlags::SEED), []);
    assert_eq!(rig.names(conn, &["8.8.4.4:1"], PexFlags::REACHABLE).len(), 1);
}

#[test]
fn a_peer_is_told_under_the_ids_of_its_choice_unless_it_reads_nothing() {
    let mut rig = node(Exchange::On, false);
    let (conn, _) = rig.met("8.8.8.8:1");
    rig.read(conn);
    rig.engine.handle_tale(conn, Tale::Pex, b"de");
    rig.engine.handle_tale(conn, Tale::Punch, b"xx");
    let (bytes, _) = rig.read(conn);
    let want = [Message::Extended { id: 7, payload: b"de" }, Message::Extended { id: 8, payload: b"xx" }];
    assert_eq!(frames(&bytes), want);
    for (waiting, told) in [
        (HAVE_FRAMES_WAITING_MAX - 1, true),
        (HAVE_FRAMES_WAITING_MAX, false),
        (HAVE_FRAMES_WAITING_MAX + 1, false),
    ] {
        let frames = &mut rig.engine.peers.get_mut(conn).unwrap().out.frames;
        frames.clear();
        frames.resize(waiting, 0);
        rig.engine.handle_tale(conn, Tale::Pex, b"de");
        assert_eq!(rig.engine.peer(conn).unwrap().out.frames.len() > waiting, told, "{waiting}");
    }
}

#[test]
fn p43_questions_beyond_the_rate_are_not_passed_on() {
    let mut rig = node(Exchange::On, false);
    let (conn, _) = rig.met("8.8.8.8:1");
    for count in 1..=PUNCHES_AT_ONCE + 1 {
        assert_eq!(rig.asks(conn), count <= PUNCHES_AT_ONCE, "{count}");
    }
    rig.now = rig.now + PUNCH_INTERVAL;
    assert_eq!((rig.asks(conn), rig.asks(conn)), (true, false));
    rig.say(conn, Message::Extended { id: PUNCH_ID, payload: b"?" }).unwrap();
    assert!(rig.is_open(conn));
}
