//! One party on several cores: how far they may go. Each core has an order of its own over one ledger, and
//! between the pick of a turn and its charge no other core sees it. So together they may go one turn each too
//! far.

use super::*;
use crate::base::rng::Rng;

const CORES: usize = 8;

/// An order of service for each core, with one ledger.
struct Cores {
    schedulers: Vec<Scheduler>,
    ledger: Ledger,
}

impl Cores {
    fn new() -> Self {
        let schedulers = (0..CORES).map(|_| Scheduler::new(Instant(0))).collect();
        Self { schedulers, ledger: Ledger::new(1 << 10) }
    }

    /// The connection number `index` of `core` is one of `party`, which has used up its grant, and waits.
    fn enter(&mut self, core: usize, index: u32, party: u64) {
        let account = self.ledger.open(party);
        self.ledger.grant(account, GRANT_GROUP_BYTES);
        let conn = ConnId { index, generation: 0 };
        let scheduler = &mut self.schedulers[core];
        scheduler.enter(conn, Membership { own: account, balance: account, group: account });
        scheduler.wait(conn, Demand::default(), &self.ledger);
    }

    /// All of `cores` pick at once, then all send `bytes`, and who was served waits again. The classes.
    fn turn(&mut self, cores: &[usize], bytes: u64) -> Vec<Class> {
        let turns: Vec<(usize, Turn)> =
            cores.iter().map(|&core| (core, self.schedulers[core].pick(&self.ledger).unwrap())).collect();
        for &(core, turn) in &turns {
            let scheduler = &mut self.schedulers[core];
            let sent = scheduler.charge(turn, bytes, &self.ledger).unwrap();
            scheduler.end(sent, &self.ledger);
            scheduler.wait(turn.conn, Demand::default(), &self.ledger);
            scheduler.check();
        }
        turns.into_iter().map(|(_, turn)| turn.class).collect()
    }
}

#[test]
fn a_creditor_on_all_cores_is_paid_no_more_than_a_turn_of_each_too_much() {
    let debt_bytes = 64 * MIB;
    let all: Vec<usize> = (0..CORES).collect();
    for bytes in [BLOCK, 3 * BLOCK, BURST_BYTES] {
        let mut cores = Cores::new();
        cores.ledger.open(1);
        cores.ledger.credit(1, debt_bytes);
        all.iter().for_each(|&core| cores.enter(core, 0, 1));
        let account = cores.ledger.open(1);
        while cores.turn(&all, bytes).contains(&Owed) {}
        // The last round, of which none was owed anything any more, was one too many.
        let sent_bytes = cores.ledger.standing(account).sent_bytes - CORES as u64 * bytes;
        let too_much = sent_bytes - debt_bytes;
        assert!(too_much <= CORES as u64 * bytes, "{too_much} too much, in turns of {bytes}");
    }
}

#[test]
fn a_group_on_all_cores_gets_what_the_most_served_gets_within_a_step_and_a_turn_of_each() {
    let mut rng = Rng::new(7);
    for bytes in [BLOCK, 64 << 10, BURST_BYTES] {
        let mut cores = Cores::new();
        // On each core the group and another one that is nowhere else. Cores are differently fast.
        for core in 0..CORES {
            cores.enter(core, 0, 1);
            cores.enter(core, 1, 100 + core as u64);
        }
        let service = |cores: &Cores, party| {
            let account = cores.ledger.open(party);
            cores.ledger.service(account)
        };
        for _ in 0..4_000 {
            let busy: Vec<usize> = (0..CORES).filter(|&core| rng.below(1 + core as u32) == 0).collect();
            cores.turn(&busy, bytes);
            let group = service(&cores, 1);
            let most = (0..CORES as u64).map(|core| service(&cores, 100 + core)).max().unwrap();
            let bound = SERVICE_STEP_BYTES + CORES as u64 * bytes;
            assert!(group.abs_diff(most) <= bound, "{group} and {most}, in turns of {bytes}");
        }
    }
}
