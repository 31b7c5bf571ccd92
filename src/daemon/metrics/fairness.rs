//! How fairly the node has shared out, over the accounts of its ledger, worked out when somebody reads
//! the page. Group by group: what a peer gives and gets is in its group's account, too. A key stands for
//! itself: what it gives is in no group's account, and what a key that gave got is taken off what groups
//! got for nothing.

use crate::base::limits::CONTRIBUTION_BYTES_MIN;
use crate::shared::counters::CoreCounters;
use crate::shared::ledger::Ledger;
use crate::storage::ledger::PartyKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fairness {
    /// Accounts whose party is connected, groups included.
    pub connected: u64,
    /// Accounts of others.
    pub remembered: u64,
    /// Groups that gave.
    pub contributors: u64,
    /// Jain index of what contributors got for each byte that they gave: 1 when all got as much, 1 / n when
    /// one of n got everything. None without contributors.
    pub jain: Option<f64>,
    /// Part of all sent bytes that went to groups that gave nothing. None before a byte is sent.
    pub free_rider_share: Option<f64>,
}

impl Fairness {
    /// As the ledger is now.
    pub fn of(ledger: &Ledger) -> Self {
        let mut fairness = Self::default();
        let (mut sum, mut squares) = (0.0, 0.0);
        let (mut sent_bytes, mut given_away_bytes, mut earned_bytes) = (0, 0, 0u64);
        for row in ledger.rows() {
            *(if row.is_live { &mut fairness.connected } else { &mut fairness.remembered }) += 1;
            if row.group.is_some() {
                continue;
            }
            let is_key = row.kind == PartyKind::Key;
            sent_bytes += if is_key { 0 } else { row.standing.sent_bytes };
            if is_key && row.standing.received_bytes < CONTRIBUTION_BYTES_MIN {
                continue;
            }
            earned_bytes += if is_key { row.standing.sent_bytes } else { 0 };
            if row.standing.received_bytes < CONTRIBUTION_BYTES_MIN {
                given_away_bytes += row.standing.sent_bytes;
            } else {
                let ratio = row.standing.sent_bytes as f64 / row.standing.received_bytes as f64;
                fairness.contributors += 1;
                sum += ratio;
                squares += ratio * ratio;
            }
        }
        let count = fairness.contributors as f64;
        // All got nothing: nobody got more than another.
        let jain = if squares > 0.0 { sum * sum / (count * squares) } else { 1.0 };
        fairness.jain = (fairness.contributors > 0).then_some(jain);
        let given_away_bytes = u64::saturating_sub(given_away_bytes, earned_bytes);
        fairness.free_rider_share = (sent_bytes > 0).then(|| given_away_bytes as f64 / sent_bytes as f64);
        fairness
    }
}

/// How far cores are apart: the difference between the largest and the smallest of the debts that are first
/// in line on each, over the cores where somebody owed waits. In one order for all cores they would be one.
pub fn lag_bytes<'a>(cores: impl Iterator<Item = &'a CoreCounters>) -> u64 {
    let owed = cores.map(|core| core.owed_waiting_bytes.get()).filter(|&bytes| bytes > 0);
    let (least, most) = owed.fold((u64::MAX, 0), |(least, most), bytes| (least.min(bytes), most.max(bytes)));
    most.saturating_sub(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: u64 = CONTRIBUTION_BYTES_MIN;

    /// A ledger of groups that gave and got so much, all connected.
    fn of(groups: &[(u64, u64)]) -> Fairness {
        let ledger = Ledger::new(16);
        for (key, &(gave, got)) in (1..).zip(groups) {
            let id = ledger.open(key);
            ledger.credit(key, gave);
            ledger.debit(id, got);
        }
        Fairness::of(&ledger)
    }

    #[test]
    fn the_index_is_one_when_all_got_in_proportion_and_one_nth_when_one_got_all() {
        assert_eq!(of(&[]), Fairness::default());
        assert_eq!(of(&[(GIVEN, 10), (3 * GIVEN, 30)]).jain, Some(1.0));
        assert_eq!(of(&[(GIVEN, 10), (GIVEN, 0), (GIVEN, 0), (GIVEN, 0)]).jain, Some(0.25));
        assert_eq!(of(&[(GIVEN, 0), (GIVEN, 0)]).jain, Some(1.0), "nobody got more than another");
        assert_eq!(of(&[(0, 10), (GIVEN - 1, 10)]).jain, None, "nobody gave");
    }

    #[test]
    fn a_free_rider_is_who_gave_less_than_a_block() {
        for (gave, share, contributors) in
            [(0, 0.75, 1), (GIVEN - 1, 0.75, 1), (GIVEN, 0.0, 2), (GIVEN + 1, 0.0, 2)]
        {
            let fairness = of(&[(5 * GIVEN, 25), (gave, 75)]);
            assert_eq!(fairness.free_rider_share, Some(share), "{gave}");
            assert_eq!(fairness.contributors, contributors);
        }
        assert_eq!(of(&[(GIVEN, 0)]).free_rider_share, None, "nothing was sent");
    }

    #[test]
    fn what_members_and_their_group_have_counts_once_and_who_left_is_remembered() {
        let ledger = Ledger::new(16);
        let (one, other, group) = (ledger.open(1), ledger.open(3), ledger.open(9));
        for (member, got) in [(one, 30), (other, 10)] {
            ledger.join(member, 9);
            ledger.debit(member, got);
            ledger.debit(group, got);
        }
        ledger.credit(1, 100 * GIVEN);
        ledger.close(other);
        let fairness = Fairness::of(&ledger);
        assert_eq!((fairness.connected, fairness.remembered, fairness.contributors), (2, 1, 1));
        assert_eq!((fairness.jain, fairness.free_rider_share), (Some(1.0), Some(0.0)));
    }

    #[test]
    fn a_key_that_gave_stands_for_itself_and_what_it_got_is_not_given_away() {
        for (gave, share, contributors) in [(GIVEN - 1, 1.0, 0), (GIVEN, 0.25, 1), (GIVEN + 1, 0.25, 1)] {
            let ledger = Ledger::new(16);
            let (own, group) = (ledger.open_as(1, PartyKind::Key), ledger.open(9));
            ledger.credit(1, gave);
            ledger.debit(own, 75);
            ledger.debit(group, 75 + 25);
            let fairness = Fairness::of(&ledger);
            assert_eq!((fairness.free_rider_share, fairness.contributors), (Some(share), contributors));
        }
    }

    #[test]
    fn cores_where_nobody_owed_waits_lag_behind_nobody() {
        let lag = |owed: &[u64]| {
            let cores: Vec<CoreCounters> = owed.iter().map(|_| CoreCounters::new()).collect();
            cores.iter().zip(owed).for_each(|(core, &bytes)| core.owed_waiting_bytes.set(bytes));
            lag_bytes(cores.iter())
        };
        assert_eq!((lag(&[]), lag(&[5]), lag(&[5, 0])), (0, 0, 0));
        assert_eq!((lag(&[5, 7, 0, 11]), lag(&[9, 9])), (6, 0));
    }
}
