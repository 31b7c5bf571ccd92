//! The bytes of the ledger's log: records as in `storage/frame.rs`, the first of them the subject.
//!
//! A record gives an account new figures, or says that time has passed for all that was said before it.
//! Checksums are seeded with the node's secret and the record's number. Replay believes everything before
//! the first bad record and nothing after it; it keeps at most `LEDGER_STORED_MAX` accounts in mind.

use std::collections::HashMap;

use thiserror::Error;

use super::{Balance, PartyKind, Passed, Stamp};
use crate::base::limits::LEDGER_STORED_MAX;
use crate::storage::frame::{self, Cursor, FRAME_BYTES, PREAMBLE_BYTES, Place};

const MAGIC: &[u8; 8] = b"troc-ldg";
const VERSION: u32 = 1;

const KIND_SUBJECT: u32 = 1;
const KIND_PASSED: u32 = 2;
const KIND_BALANCE: u32 = 3;

const BODY_BYTES_MAX: usize = 64;
const BALANCE_BODY_BYTES: usize = 41;
const PASSED_BODY_BYTES: usize = 30;

/// Bytes of the record of one account.
pub const BALANCE_BYTES: u64 = (FRAME_BYTES + BALANCE_BODY_BYTES) as u64;
/// Bytes of the record of a time.
pub const PASSED_BYTES: u64 = (FRAME_BYTES + PASSED_BODY_BYTES) as u64;
/// Bytes of a log that says nothing.
pub const HEAD_BYTES: u64 = (PREAMBLE_BYTES + FRAME_BYTES + 8) as u64;

/// Why a ledger's log, or its end, cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Flaw {
    /// The beginning is damaged or was never a ledger's.
    #[error("its beginning is damaged")]
    Damaged,
    /// Written by another version of the format.
    #[error("it has format version {found}, this troc reads version {VERSION}")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// Its parties are hashed under a secret that this node no longer has.
    #[error("it was written under another node secret")]
    OtherSecret,
    /// Only its end is damaged, as a crash may leave it.
    #[error("its end is damaged")]
    Tail,
}

/// Whose ledger it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Tells whether parties were hashed with the node's present secret; says nothing of it.
    pub secret_id: u64,
    /// Seed of checksums, made of the secret.
    pub seed: u64,
}

/// A log as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Accounts worth keeping, the largest balances first.
    pub balances: Vec<Balance>,
    /// Of when they are.
    pub stamp: Stamp,
    /// Length of the good part.
    pub bytes: u64,
    /// Whether the good part is all there is. A torn last record is what a crash leaves.
    pub whole: bool,
}

/// Writes the records of a log.
#[derive(Clone, Debug)]
pub struct Writer(Place);

impl Writer {
    /// A log's beginning is put into `out`.
    pub fn begin(subject: Subject, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&frame::preamble(MAGIC, VERSION));
        // Not under the secret's seed: a ledger of another secret is named as such.
        frame::put(out, KIND_SUBJECT, 0, &subject.secret_id.to_le_bytes());
        Self(Place::first(subject.seed, HEAD_BYTES))
    }

    /// Length of the log with all records so far.
    pub const fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Says that time has passed for all that was said so far, and what time it is now.
    pub fn pass(&mut self, passed: Passed, stamp: Stamp, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(PASSED_BODY_BYTES);
        body.extend_from_slice(&[passed.address_halvings, passed.key_halvings]);
        body.extend_from_slice(&passed.refill_bytes.to_le_bytes());
        body.extend_from_slice(&stamp.wall_s.to_le_bytes());
        for seconds in [stamp.address_s, stamp.key_s, stamp.grant_s] {
            body.extend_from_slice(&seconds.to_le_bytes());
        }
        self.0.put(KIND_PASSED, &body, out);
    }

    /// Says how an account stands.
    pub fn set(&mut self, balance: &Balance, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(BALANCE_BODY_BYTES);
        body.push(match balance.kind {
            PartyKind::Address => 0,
            PartyKind::Key => 1,
        });
        let Balance { key, received_bytes, sent_bytes, granted_bytes, spread_bytes, .. } = *balance;
        for number in [key, received_bytes, sent_bytes, granted_bytes, spread_bytes] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        self.0.put(KIND_BALANCE, &body, out);
    }
}

/// Reads a log that should be of `subject`, up to the first bad record.
pub fn replay(bytes: &[u8], subject: Subject) -> Result<Replay, Flaw> {
    replay_within(bytes, subject, LEDGER_STORED_MAX)
}

fn replay_within(bytes: &[u8], subject: Subject, accounts_max: usize) -> Result<Replay, Flaw> {
    match frame::version(bytes, MAGIC) {
        Some(VERSION) => {}
        Some(found) => return Err(Flaw::Version { found }),
        None => return Err(Flaw::Damaged),
    }
    match frame::take(&bytes[PREAMBLE_BYTES..], 0, BODY_BYTES_MAX) {
        Some((KIND_SUBJECT, body)) if body == subject.secret_id.to_le_bytes() => {}
        Some((KIND_SUBJECT, body)) if body.len() == 8 => return Err(Flaw::OtherSecret),
        _ => return Err(Flaw::Damaged),
    }
    let mut said = Said { accounts: HashMap::new(), accounts_max, stamp: Stamp::default() };
    let mut place = Place::first(subject.seed, HEAD_BYTES);
    while let Some((kind, body)) = place.take(bytes, BODY_BYTES_MAX) {
        if said.apply(kind, body).is_none() {
            break;
        }
        place.pass(body);
    }
    let (stamp, end) = (said.stamp, place.bytes());
    Ok(Replay { balances: said.into_balances(), stamp, bytes: end, whole: end == bytes.len() as u64 })
}

/// What a log says so far.
struct Said {
    accounts: HashMap<u64, Balance>,
    accounts_max: usize,
    stamp: Stamp,
}

impl Said {
    /// `None`, and nothing changes, for an unknown kind or a body that makes no sense.
    fn apply(&mut self, kind: u32, body: &[u8]) -> Option<()> {
        match kind {
            KIND_PASSED => {
                let (passed, stamp) = decode_passed(body)?;
                self.stamp = stamp;
                for account in self.accounts.values_mut() {
                    *account = account.settled(passed);
                }
            }
            KIND_BALANCE => {
                let balance = decode_balance(body)?;
                self.accounts.insert(balance.key, balance);
                // Now and then, so that it costs little each time.
                if self.accounts.len() > 2 * self.accounts_max {
                    self.evict();
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Keeps the largest balances.
    fn evict(&mut self) {
        self.accounts.retain(|_, balance| balance.is_worth_keeping());
        let mut balances: Vec<Balance> = self.accounts.values().copied().collect();
        keep_largest(&mut balances, self.accounts_max);
        self.accounts = balances.into_iter().map(|balance| (balance.key, balance)).collect();
    }

    fn into_balances(mut self) -> Vec<Balance> {
        self.evict();
        let mut balances: Vec<Balance> = self.accounts.into_values().collect();
        balances.sort_unstable_by_key(order);
        balances
    }
}

/// Leaves at most `max` balances: the small ones go.
pub fn keep_largest(balances: &mut Vec<Balance>, max: usize) {
    if balances.len() > max {
        balances.select_nth_unstable_by_key(max, order);
        balances.truncate(max);
    }
}

/// Larger balances first; of equal ones who gave more.
fn order(balance: &Balance) -> impl Ord + use<> {
    let Balance { key, received_bytes, .. } = *balance;
    std::cmp::Reverse((balance.owed_bytes(), received_bytes, key))
}

fn decode_passed(body: &[u8]) -> Option<(Passed, Stamp)> {
    let mut cursor = Cursor(body);
    let (address_halvings, key_halvings, refill_bytes) = (cursor.u8()?, cursor.u8()?, cursor.u64()?);
    let passed = Passed { address_halvings, key_halvings, refill_bytes };
    let wall_s = cursor.u64()?;
    let (address_s, key_s, grant_s) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    cursor.0.is_empty().then_some((passed, Stamp { wall_s, address_s, key_s, grant_s }))
}

fn decode_balance(body: &[u8]) -> Option<Balance> {
    let mut cursor = Cursor(body);
    let kind = match cursor.u8()? {
        0 => PartyKind::Address,
        1 => PartyKind::Key,
        _ => return None,
    };
    let key = cursor.u64().filter(|&key| key != 0)?;
    let (received_bytes, sent_bytes) = (cursor.u64()?, cursor.u64()?);
    let (granted_bytes, spread_bytes) = (cursor.u64()?, cursor.u64()?);
    let balance = Balance { key, kind, received_bytes, sent_bytes, granted_bytes, spread_bytes };
    cursor.0.is_empty().then_some(balance)
}

#[cfg(test)]
mod tests;
