//! When to write what of the ledger: changed accounts are appended to the log, and a snapshot takes its
//! place when it has become twice as long as what it says.
//!
//! Invariant: while `writer` is there, the log on disk says what `written` says, once `pending` has passed.

use super::codec::{BALANCE_BYTES, HEAD_BYTES, PASSED_BYTES, Writer, keep_largest};
use super::{Balance, Passed, Stamp, Subject};
use crate::base::limits::{LEDGER_SLACK_BYTES, LEDGER_STORED_MAX};

/// What is to be done with the log on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// These bytes come at its end.
    Append(Vec<u8>),
    /// These bytes come in its place.
    Replace(Vec<u8>),
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    subject: Subject,
    /// `None` if the next write must replace what is there.
    writer: Option<Writer>,
    /// The accounts as the log says, by their place in the ledger.
    written: Vec<Balance>,
    /// What has passed and the log does not say. It need not while nothing else changes: by the stamp's age
    /// a restart finds it out.
    pending: Passed,
}

impl Book {
    /// The first write replaces whatever there is.
    pub fn new(subject: Subject) -> Self {
        Self { subject, writer: None, written: Vec::new(), pending: Passed::default() }
    }

    /// Time has passed for all accounts.
    pub fn pass(&mut self, passed: Passed) {
        if passed == Passed::default() {
            return;
        }
        self.pending = self.pending.and(passed);
        for balance in &mut self.written {
            *balance = balance.settled(passed);
        }
    }

    /// What is to be written now that accounts are as `now` says, each in its place; `None` if they have not
    /// changed. Then `handle_written` must say what came of it.
    pub fn plan(&mut self, stamp: Stamp, now: &[Balance]) -> Option<Write> {
        self.written.resize(now.len(), Balance::default());
        let mut changed: Vec<Balance> = Vec::new();
        let mut kept = 0;
        for (balance, written) in now.iter().zip(&self.written) {
            let is_kept = balance.is_worth_keeping();
            kept += u64::from(is_kept);
            // One that has become small is written once more, or the log would say what it was.
            let was_kept = balance.key == written.key && written.is_worth_keeping();
            if balance != written && (is_kept || was_kept) {
                changed.push(*balance);
            }
        }
        if changed.is_empty() {
            return None;
        }
        let said_bytes = HEAD_BYTES + PASSED_BYTES + kept.min(LEDGER_STORED_MAX as u64) * BALANCE_BYTES;
        let more_bytes = PASSED_BYTES + changed.len() as u64 * BALANCE_BYTES;
        self.written.copy_from_slice(now);
        let pending = std::mem::take(&mut self.pending);
        match &mut self.writer {
            Some(writer) if writer.bytes() + more_bytes <= 2 * said_bytes + LEDGER_SLACK_BYTES => {
                let mut out = Vec::with_capacity(more_bytes as usize);
                writer.pass(pending, stamp, &mut out);
                changed.iter().for_each(|balance| writer.set(balance, &mut out));
                Some(Write::Append(out))
            }
            _ => Some(Write::Replace(self.snapshot(stamp, now))),
        }
    }

    /// Whether what was planned is on disk.
    pub fn handle_written(&mut self, is_written: bool) {
        if !is_written {
            self.writer = None;
            // All of it is to be written again.
            self.written.fill(Balance::default());
        }
    }

    fn snapshot(&mut self, stamp: Stamp, now: &[Balance]) -> Vec<u8> {
        let mut kept: Vec<Balance> =
            now.iter().filter(|balance| balance.is_worth_keeping()).copied().collect();
        keep_largest(&mut kept, LEDGER_STORED_MAX);
        let mut out = Vec::new();
        let mut writer = Writer::begin(self.subject, &mut out);
        writer.pass(Passed::default(), stamp, &mut out);
        kept.iter().for_each(|balance| writer.set(balance, &mut out));
        self.writer = Some(writer);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, replay};
    use super::*;
    use crate::base::limits::HALF_LIFE_ADDRESS;
    use crate::base::rng::Rng;
    use crate::base::time::Instant;

    const SUBJECT: Subject = Subject { secret_id: 1, seed: 2 };
    const MIB: u64 = 1 << 20;

    fn balance(key: u64, received_bytes: u64) -> Balance {
        Balance { key, received_bytes, ..Balance::default() }
    }

    fn stamp(wall_s: u64) -> Stamp {
        Stamp { wall_s, ..Stamp::default() }
    }

    /// What lies on disk.
    fn carry_out(file: &mut Vec<u8>, write: Option<Write>) {
        match write {
            Some(Write::Append(bytes)) => file.extend(bytes),
            Some(Write::Replace(bytes)) => *file = bytes,
            None => {}
        }
    }

    fn said(file: &[u8]) -> Vec<Balance> {
        let replay = replay(file, SUBJECT).unwrap();
        assert!(replay.whole);
        replay.balances
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut book = Book::new(SUBJECT);
        let nobody = Balance::default();
        assert_eq!(book.plan(stamp(1), &[nobody, balance(5, 9)]), None, "nothing worth a record");
        let mut now = [balance(7, 3 * MIB), balance(5, 2 * MIB), nobody];
        let mut file = Vec::new();
        let first = book.plan(stamp(2), &now);
        assert!(matches!(first, Some(Write::Replace(_))));
        carry_out(&mut file, first);
        assert_eq!(said(&file), now[..2]);
        assert_eq!(book.plan(stamp(3), &now), None);
        now[1].received_bytes += MIB / 2;
        let Some(Write::Append(bytes)) = book.plan(stamp(4), &now) else { panic!("one account changed") };
        assert_eq!(bytes.len() as u64, PASSED_BYTES + BALANCE_BYTES);
        file.extend(bytes);
        assert_eq!(said(&file), now[..2]);
        now[1].received_bytes = 1;
        carry_out(&mut file, book.plan(stamp(5), &now));
        assert_eq!(said(&file), now[..1], "it is not worth keeping any more, and the log knows");
        assert_eq!(book.plan(stamp(6), &now), None);
    }

    #[test]
    fn time_alone_writes_nothing_and_is_made_up_for_by_the_next_write_or_the_restart() {
        let mut book = Book::new(SUBJECT);
        let mut clock = Clock::start(Instant(0));
        let mut now = [balance(7, 8 * MIB), balance(5, 2 * MIB)];
        let mut file = Vec::new();
        carry_out(&mut file, book.plan(clock.stamp(0), &now));
        let passed = clock.advance(Instant(HALF_LIFE_ADDRESS.0));
        now = now.map(|balance| balance.settled(passed));
        book.pass(passed);
        let wall_s = HALF_LIFE_ADDRESS.as_ms() / 1000;
        assert_eq!(book.plan(clock.stamp(wall_s), &now), None);
        let old = replay(&file, SUBJECT).unwrap();
        let (_, away) = Clock::resume(old.stamp, wall_s, Instant(0));
        let found: Vec<Balance> = old.balances.iter().map(|balance| balance.settled(away)).collect();
        assert_eq!(found, now, "a restart halves them");

        now[0].received_bytes += MIB;
        carry_out(&mut file, book.plan(clock.stamp(wall_s), &now));
        let (_, away) = Clock::resume(replay(&file, SUBJECT).unwrap().stamp, wall_s, Instant(0));
        assert_eq!((said(&file), away), (now.to_vec(), Passed::default()), "halved once, not twice");
    }

    #[test]
    fn a_log_that_is_twice_as_long_as_what_it_says_is_replaced() {
        let mut book = Book::new(SUBJECT);
        let mut now = vec![balance(1, MIB); 4];
        for (n, balance) in now.iter_mut().enumerate() {
            balance.key += n as u64;
        }
        let mut file = Vec::new();
        let limit = 2 * (HEAD_BYTES + PASSED_BYTES + 4 * BALANCE_BYTES) + LEDGER_SLACK_BYTES;
        let (mut replaced, mut longest) = (0, 0);
        for n in 0..3000 {
            now[n % 4].received_bytes += 1;
            let write = book.plan(stamp(n as u64), &now);
            replaced += u32::from(matches!(write, Some(Write::Replace(_))));
            carry_out(&mut file, write);
            longest = longest.max(file.len() as u64);
            assert!(file.len() as u64 <= limit);
        }
        assert!(longest + PASSED_BYTES + BALANCE_BYTES > limit, "and no sooner");
        assert_eq!(replaced, 1 + 3000 * (PASSED_BYTES + BALANCE_BYTES) as u32 / limit as u32);
    }

    #[test]
    fn after_a_failed_write_all_is_written_anew() {
        let mut book = Book::new(SUBJECT);
        let mut now = [balance(7, 3 * MIB), balance(5, 2 * MIB)];
        assert!(book.plan(stamp(1), &now).is_some());
        book.handle_written(false);
        let Some(Write::Replace(bytes)) = book.plan(stamp(2), &now) else { panic!("not written yet") };
        book.handle_written(true);
        now[0].received_bytes += 1;
        let Some(Write::Append(_)) = book.plan(stamp(3), &now) else { panic!("goes on") };
        book.handle_written(false);
        let Some(Write::Replace(again)) = book.plan(stamp(4), &now) else { panic!("where, nobody knows") };
        assert_eq!((said(&bytes).len(), said(&again)), (2, now.to_vec()));
    }

    /// A power cut at any moment leaves a beginning of what was appended, or the snapshot before it.
    #[test]
    fn a_power_cut_loses_no_more_than_the_last_write() {
        let mut rng = Rng::new(1);
        let mut book = Book::new(SUBJECT);
        let mut now: Vec<Balance> = (1..=6).map(|key| balance(key, 2 * MIB)).collect();
        let mut file = Vec::new();
        let mut before: Vec<Balance> = Vec::new();
        for round in 0..200 {
            for _ in 0..=rng.below(3) {
                now[rng.below(6) as usize].received_bytes += u64::from(rng.below(1 << 20));
            }
            let passed = Passed { address_halvings: u8::from(rng.below(8) == 0), ..Passed::default() };
            now.iter_mut().for_each(|balance| *balance = balance.settled(passed));
            book.pass(passed);
            let synced = file.len();
            let write = book.plan(stamp(round), &now);
            let appended = matches!(write, Some(Write::Append(_)));
            carry_out(&mut file, write);
            if appended {
                for len in synced..file.len() {
                    let torn = replay(&file[..len], SUBJECT).unwrap();
                    for balance in &torn.balances {
                        let index = balance.key as usize - 1;
                        let old = before[index].settled(passed);
                        let known = [before[index], old, now[index]];
                        assert!(known.contains(balance), "round {round}, {len} bytes: {balance:?}");
                    }
                }
            }
            before.clone_from(&now);
            let mut all = said(&file);
            all.sort_unstable_by_key(|balance| balance.key);
            assert_eq!(all, now, "round {round}");
            if rng.below(20) == 0 {
                book.handle_written(false);
            }
        }
    }
}
