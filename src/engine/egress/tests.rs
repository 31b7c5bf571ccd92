use super::*;

const START: Instant = Instant(1_000_000_000);

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 3 }
}

struct Desk {
    egress: Egress,
    ledger: Ledger,
}

impl Desk {
    fn new(node: Option<u64>, lan: LanBudget) -> Self {
        let node = node.map(|rate| Arc::new(Budget::new(rate, START)));
        Self { egress: Egress::new(&Budgets { node, lan }, START), ledger: Ledger::new(256) }
    }

    fn enter(&mut self, index: u32, locality: Locality, torrent: u32, limit: Option<&Arc<Budget>>) {
        let account = self.ledger.open(u64::from(index) + 1);
        let membership = Membership { own: account, balance: account, group: account };
        let lane = Lane { locality, torrent: TorrentId(torrent), limit };
        self.egress.enter(conn(index), membership, lane, START);
    }

    fn wait(&mut self, index: u32) {
        self.egress.wait(conn(index), Demand::default(), &self.ledger);
    }

    fn next(&mut self, now: Instant) -> Option<u32> {
        self.egress.next(now, &self.ledger).map(|(conn, _)| conn.index)
    }
}

fn limit(rate: u64) -> Arc<Budget> {
    Arc::new(Budget::new(rate, START))
}

#[test]
fn without_limits_apart_all_are_in_one_order() {
    let mut desk = Desk::new(Some(1000), LanBudget::Shared);
    desk.enter(0, Locality::Local, 0, None);
    desk.enter(1, Locality::Public, 1, None);
    [0, 1].into_iter().for_each(|index| desk.wait(index));
    assert_eq!(desk.egress.waiting_parties(), 2);
    assert_eq!((desk.next(START), desk.next(START), desk.next(START)), (Some(0), Some(1), None));
    assert_eq!((desk.egress.waiting_parties(), desk.egress.poll_timeout()), (0, None));
}

#[test]
fn torrents_with_limits_take_turns_whoever_has_more_peers() {
    let mut desk = Desk::new(None, LanBudget::Shared);
    let limits = [limit(1 << 30), limit(1 << 30)];
    (0..6).for_each(|index| {
        let torrent = u32::from(index == 5);
        desk.enter(index, Locality::Public, torrent, Some(&limits[torrent as usize]));
    });
    (0..6).for_each(|index| desk.wait(index));
    let mut order = Vec::new();
    while let Some(index) = desk.next(START) {
        order.push(index);
        if index == 5 && order.len() < 6 {
            desk.wait(5);
        }
    }
    assert_eq!(order, [0, 5, 1, 5, 2, 5, 3, 4]);
}

#[test]
fn who_is_shut_out_is_looked_at_when_that_is_over_and_the_others_meanwhile() {
    let mut desk = Desk::new(None, LanBudget::Exempt);
    let slow = limit(16 << 10);
    desk.enter(0, Locality::Public, 0, Some(&slow));
    desk.enter(1, Locality::Public, 1, None);
    desk.enter(2, Locality::Local, 0, Some(&slow));
    assert!(desk.egress.claim(conn(0), 16 << 10, START), "a second's worth");
    (0..3).for_each(|index| desk.wait(index));
    assert_eq!((desk.next(START), desk.next(START), desk.next(START)), (Some(1), Some(2), None));
    let due = desk.egress.poll_timeout().unwrap();
    assert!(due > START + Span::from_ms(999) && due < START + Span::from_ms(1_001), "{due:?}");
    assert_eq!(desk.next(Instant(due.0 - 1)), None);
    assert_eq!(desk.egress.poll_timeout(), Some(due), "it is not put off");
    assert!(desk.egress.claim(conn(2), 1 << 20, START) && desk.egress.claim(conn(1), 1 << 20, START));
    assert_eq!(desk.next(due), Some(0));
}

#[test]
fn a_torrent_that_all_have_left_makes_room_for_another() {
    let mut desk = Desk::new(None, LanBudget::Shared);
    for round in 0..5 {
        for torrent in 0..3 {
            desk.enter(torrent, Locality::Public, 3 * round + torrent, Some(&limit(1)));
            desk.wait(torrent);
        }
        assert!(desk.egress.claim(conn(0), 1, START) && desk.next(START).is_some());
        for torrent in 0..3 {
            desk.egress.leave(conn(torrent), &desk.ledger);
            assert!(!desk.egress.holds(conn(torrent)));
        }
        assert_eq!((desk.egress.waiting_parties(), desk.next(START)), (0, None));
    }
    assert_eq!((desk.egress.domains.len(), desk.egress.by_torrent.len()), (2 + 3, 0));
}
