//! Who gave and who got: one account per remote party, for all cores and torrents.
//!
//! A party is an identity (a peer, by its address) or a group of addresses that share grants; both are
//! keyed by a secret hash. An account is one cache line of atomics. Credit is given by the core that
//! verified the bytes, debit by the core that submits a send; neither waits for the other.
//!
//! The table has a fixed size. A party that is connected is *live* and keeps its account; when a new party
//! finds its places taken, the one of them that is not live and gave least makes room.
//!
//! What time makes of accounts, and how they outlive the process: `ledger/upkeep.rs`, by the control thread.
//!
//! Invariants: `received_bytes` counts only verified payload that was asked for, once. `sent_bytes` counts
//! payload of sends that were submitted, less what was refunded because it never left; a send that our own
//! closing cut off is not refunded. Both hold between two agings (`upkeep.rs`), which lessen both.

pub mod view;

use super::sync::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::base::limits::{AWAITED_BLOCKS_MAX, LEDGER_PROBES_MAX};
use crate::storage::ledger::PartyKind;

mod upkeep;

/// `live` of an account that is being handed to another party.
const CLOSED: u32 = 1 << 31;

/// Key of an account that belongs to nobody.
const NOBODY: u64 = 0;

/// `kind` of a party that proves itself with a key.
const BY_KEY: u16 = 1;

/// Place of an account. Good while its party is live; later it may be another party's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId(u32);

impl AccountId {
    /// Its number, for words that other cores read.
    pub const fn index(self) -> u32 {
        self.0
    }

    /// From what `index` said.
    pub const fn from_index(index: u32) -> Self {
        Self(index)
    }
}

/// What one party gave and got.
#[derive(Debug)]
#[repr(align(64))]
struct Account {
    /// Hash of the party, or `NOBODY`.
    key: AtomicU64,
    /// The group that an identity belongs to, or `NOBODY`: it is credited with what its members give.
    group: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Weighted service that a group has had, in bytes; see `engine/scheduler`.
    service: AtomicU64,
    /// What a group was given before it had given anything.
    granted_bytes: AtomicU64,
    /// Of the bytes that this node gave first, how many others announced later.
    spread_bytes: AtomicU64,
    /// Connections of the party, on all cores, and who looks at the account right now; or `CLOSED`.
    live: AtomicU32,
    /// By what the party is known: `BY_KEY`, or zero.
    kind: AtomicU16,
    /// Blocks that a seed gave to the group alone and that no other has announced since, and such as were not
    /// whole. No more than `AWAITED_BLOCKS_MAX`, and half as many after each look of the control thread.
    awaited_blocks: AtomicU16,
}

/// A look at an account. The numbers are read one after the other: others may change meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Verified payload that the party gave us.
    pub received_bytes: u64,
    /// Payload that we submitted to it.
    pub sent_bytes: u64,
}

/// One account, for checks.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Secret hash of the party.
    pub key: u64,
    /// See [`Standing`].
    pub standing: Standing,
    /// Connections it has.
    pub live: u32,
}

/// All accounts. See the module.
#[derive(Debug)]
pub struct Ledger {
    /// The last one is for parties that find no place.
    accounts: Box<[Account]>,
    /// Some core gives a new party a place.
    admitting: AtomicBool,
}

impl Standing {
    /// What we owe the party; negative when it owes us.
    #[cfg(test)]
    pub const fn balance(&self) -> i64 {
        self.received_bytes as i64 - self.sent_bytes as i64
    }
}

impl Account {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            key: AtomicU64::new(NOBODY),
            group: AtomicU64::new(NOBODY),
            received_bytes: zero(),
            sent_bytes: zero(),
            service: zero(),
            granted_bytes: zero(),
            spread_bytes: zero(),
            live: AtomicU32::new(0),
            kind: AtomicU16::new(0),
            awaited_blocks: AtomicU16::new(0),
        }
    }

    fn party_kind(&self) -> PartyKind {
        if self.kind.load(Ordering::Relaxed) == BY_KEY { PartyKind::Key } else { PartyKind::Address }
    }

    /// Keeps the account from being handed on; false if it belongs to another party than `key`.
    fn enter(&self, key: u64) -> bool {
        if self.live.fetch_add(1, Ordering::Acquire) & CLOSED == 0 && self.key.load(Ordering::Relaxed) == key
        {
            return true;
        }
        self.leave();
        false
    }

    fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Release);
    }

    fn standing(&self) -> Standing {
        Standing {
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Gives an account that nobody looks at to `key`, and opens it for whoever did so; false if somebody
    /// looks at it.
    fn take(&self, key: u64, kind: PartyKind) -> bool {
        if self.live.compare_exchange(0, CLOSED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        for word in [&self.group, &self.received_bytes, &self.sent_bytes, &self.service] {
            word.store(0, Ordering::Relaxed);
        }
        self.granted_bytes.store(0, Ordering::Relaxed);
        self.spread_bytes.store(0, Ordering::Relaxed);
        self.awaited_blocks.store(0, Ordering::Relaxed);
        self.kind.store(if kind == PartyKind::Key { BY_KEY } else { 0 }, Ordering::Relaxed);
        self.key.store(key, Ordering::Relaxed);
        // Others may have knocked meanwhile; each takes its own mark back.
        self.live.fetch_sub(CLOSED - 1, Ordering::Release);
        true
    }
}

impl Ledger {
    /// A ledger of `accounts` accounts, a power of two.
    pub fn new(accounts: usize) -> Self {
        assert!(accounts.is_power_of_two() && accounts < 1 << 31);
        let accounts = (0..=accounts).map(|_| Account::new()).collect();
        Self { accounts, admitting: AtomicBool::new(false) }
    }

    /// The account of a party that has connected and is known by its address; a new one starts with nothing.
    /// While all its places are taken by parties that are connected, it is one of those that share the last
    /// account.
    pub fn open(&self, key: u64) -> AccountId {
        self.open_as(key, PartyKind::Address)
    }

    /// As `open`, of a party that is known as `kind` says. A key is hashed differently from an address.
    pub fn open_as(&self, key: u64, kind: PartyKind) -> AccountId {
        self.open_own(key, kind).unwrap_or_else(|| {
            let shared = AccountId(self.accounts.len() as u32 - 1);
            self.at(shared).live.fetch_add(1, Ordering::Relaxed);
            shared
        })
    }

    /// As `open`; `None` if there is no place.
    fn open_own(&self, key: u64, kind: PartyKind) -> Option<AccountId> {
        debug_assert_ne!(key, NOBODY);
        self.find(key).or_else(|| self.admit(key, kind))
    }

    /// Gives a new party a place. One at a time, on all cores: two that took two places for one party at once
    /// might not see one another. Parties are new once per connection, and this takes a few stores.
    fn admit(&self, key: u64, kind: PartyKind) -> Option<AccountId> {
        while self.admitting.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin();
        }
        let id = self.find(key).or_else(|| self.take_place(key, kind));
        self.admitting.store(false, Ordering::Release);
        id
    }

    /// Takes the place of a new party, under `admitting`. Who looks at an account keeps it for a moment; then
    /// another may go.
    fn take_place(&self, key: u64, kind: PartyKind) -> Option<AccountId> {
        loop {
            let place = self.least(key)?;
            if self.at(place).take(key, kind) {
                return Some(place);
            }
            spin();
        }
    }

    /// What members of `group` give from now on is credited to the group, too.
    pub fn join(&self, id: AccountId, group: u64) {
        self.at(id).group.store(group, Ordering::Relaxed);
    }

    /// The party of `id` has one connection less.
    pub fn close(&self, id: AccountId) {
        self.at(id).leave();
    }

    /// The party gave us verified bytes, and so did its group. Nothing happens to who has no account any
    /// more.
    pub fn credit(&self, key: u64, bytes: u64) {
        let mut next = key;
        for _ in 0..2 {
            let Some(id) = Some(next).filter(|&next| next != NOBODY).and_then(|next| self.find(next)) else {
                return;
            };
            self.at(id).received_bytes.fetch_add(bytes, Ordering::Relaxed);
            next = self.at(id).group.load(Ordering::Relaxed);
            self.close(id);
        }
    }

    /// Bytes were submitted to the party.
    pub fn debit(&self, id: AccountId, bytes: u64) {
        self.at(id).sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Submitted bytes never left.
    pub fn refund(&self, id: AccountId, bytes: u64) {
        lessen(&self.at(id).sent_bytes, bytes);
    }

    /// How a party stands.
    pub fn standing(&self, id: AccountId) -> Standing {
        self.at(id).standing()
    }

    /// A group was given bytes before it had given anything.
    pub fn grant(&self, id: AccountId, bytes: u64) {
        self.at(id).granted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What a group was granted so far.
    pub fn granted_bytes(&self, id: AccountId) -> u64 {
        self.at(id).granted_bytes.load(Ordering::Relaxed)
    }

    /// Weighted service that a group has had.
    pub fn service(&self, id: AccountId) -> u64 {
        self.at(id).service.load(Ordering::Relaxed)
    }

    /// A group was served.
    pub fn serve(&self, id: AccountId, weighted_bytes: u64) {
        self.at(id).service.fetch_add(weighted_bytes, Ordering::Relaxed);
    }

    /// Bytes that we gave a group first came back as an announcement of others.
    pub fn note_spread(&self, id: AccountId, bytes: u64) {
        self.at(id).spread_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// See `note_spread`.
    pub fn spread_bytes(&self, id: AccountId) -> u64 {
        self.at(id).spread_bytes.load(Ordering::Relaxed)
    }

    /// A group alone was given a block of a piece that others are to get from there.
    pub fn await_block(&self, id: AccountId) {
        let more = |blocks: u16| (blocks < AWAITED_BLOCKS_MAX).then_some(blocks + 1);
        let _ = self.at(id).awaited_blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// So many blocks of those are awaited from there no longer.
    pub fn await_no_longer(&self, id: AccountId, blocks: u16) {
        let fewer = |awaited: u16| Some(awaited.saturating_sub(blocks));
        let _ = self.at(id).awaited_blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// See `await_block`.
    pub fn awaited_blocks(&self, id: AccountId) -> u16 {
        self.at(id).awaited_blocks.load(Ordering::Relaxed)
    }

    /// All accounts that belong to somebody.
    #[cfg(test)]
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.accounts.iter().filter_map(|account| {
            let key = account.key.load(Ordering::Relaxed);
            let live = account.live.load(Ordering::Relaxed) & !CLOSED;
            (key != NOBODY).then(|| Entry { key, standing: account.standing(), live })
        })
    }

    fn at(&self, id: AccountId) -> &Account {
        &self.accounts[id.0 as usize]
    }

    /// The places in which a party may be.
    fn places(&self, key: u64) -> impl Iterator<Item = AccountId> {
        let mask = self.accounts.len() - 2;
        // The lowest bit of a key is always set.
        let first = (key >> 1) as usize;
        (0..LEDGER_PROBES_MAX.min(mask + 1))
            .map(move |probe| AccountId((first.wrapping_add(probe) & mask) as u32))
    }

    /// The account of `key`, made live once more.
    fn find(&self, key: u64) -> Option<AccountId> {
        self.places(key).find(|&id| self.at(id).key.load(Ordering::Relaxed) == key && self.at(id).enter(key))
    }

    /// Where a new party may go: an empty account, or of those that are not live the one that gave least.
    fn least(&self, key: u64) -> Option<AccountId> {
        let idle = self.places(key).filter(|&id| self.at(id).live.load(Ordering::Relaxed) == 0);
        idle.min_by_key(|&id| {
            let taken = self.at(id).key.load(Ordering::Relaxed) != NOBODY;
            let Standing { received_bytes, sent_bytes } = self.at(id).standing();
            (taken, received_bytes, sent_bytes)
        })
    }
}

/// Waits a moment for another core.
fn spin() {
    #[cfg(feature = "loom")]
    loom::thread::yield_now();
    #[cfg(not(feature = "loom"))]
    std::hint::spin_loop();
}

/// Takes `bytes` off, but not below zero.
fn lessen(word: &AtomicU64, bytes: u64) {
    let mut now = word.load(Ordering::Relaxed);
    while let Err(seen) =
        word.compare_exchange_weak(now, now.saturating_sub(bytes), Ordering::Relaxed, Ordering::Relaxed)
    {
        now = seen;
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_and_sent_makes_the_balance() {
        let ledger = Ledger::new(16);
        let id = ledger.open(7);
        ledger.credit(7, 100);
        ledger.debit(id, 30);
        assert_eq!(ledger.standing(id), Standing { received_bytes: 100, sent_bytes: 30 });
        ledger.refund(id, 10);
        assert_eq!(ledger.standing(id).balance(), 80);
        ledger.credit(8, 1);
        assert_eq!(ledger.entries().count(), 1, "who has no account gets no credit");
    }

    #[test]
    fn a_group_is_credited_with_what_its_members_give() {
        let ledger = Ledger::new(16);
        let (one, other, group) = (ledger.open(7), ledger.open(8), ledger.open(9));
        ledger.join(one, 9);
        ledger.join(other, 9);
        ledger.credit(7, 100);
        ledger.credit(8, 10);
        assert_eq!(ledger.standing(one).received_bytes, 100);
        assert_eq!(ledger.standing(other).received_bytes, 10);
        assert_eq!(ledger.standing(group).received_bytes, 110);
    }

    #[test]
    fn a_refund_never_makes_less_than_nothing() {
        let ledger = Ledger::new(16);
        let id = ledger.open(7);
        ledger.debit(id, 5);
        ledger.refund(id, 6);
        assert_eq!(ledger.standing(id).sent_bytes, 0);
    }

    #[test]
    fn what_is_awaited_of_a_group_is_bounded_and_goes_with_its_account() {
        let ledger = Ledger::new(LEDGER_PROBES_MAX);
        let id = ledger.open(1);
        ledger.await_no_longer(id, 1);
        assert_eq!(ledger.awaited_blocks(id), 0);
        (1..AWAITED_BLOCKS_MAX).for_each(|_| ledger.await_block(id));
        for blocks in [AWAITED_BLOCKS_MAX - 1, AWAITED_BLOCKS_MAX, AWAITED_BLOCKS_MAX] {
            assert_eq!(ledger.awaited_blocks(id), blocks);
            ledger.await_block(id);
        }
        ledger.await_no_longer(id, AWAITED_BLOCKS_MAX - 5);
        assert_eq!(ledger.awaited_blocks(id), 5);
        ledger.close(id);
        for key in 2..=LEDGER_PROBES_MAX as u64 + 1 {
            assert_eq!(ledger.awaited_blocks(ledger.open(key)), 0, "somebody else's");
        }
    }

    #[test]
    fn connections_of_one_party_share_an_account_that_outlives_them() {
        let ledger = Ledger::new(16);
        let (first, second) = (ledger.open(7), ledger.open(7));
        assert_eq!(first, second);
        ledger.debit(first, 5);
        ledger.close(first);
        ledger.close(second);
        let again = ledger.open(7);
        assert_eq!(ledger.standing(again).sent_bytes, 5);
    }

    #[test]
    fn who_gave_least_and_is_not_connected_makes_room() {
        let ledger = Ledger::new(LEDGER_PROBES_MAX);
        let last = LEDGER_PROBES_MAX as u64;
        for key in 1..=last {
            let id = ledger.open(key);
            ledger.credit(key, 100 * key);
            if key != 1 {
                ledger.close(id);
            }
        }
        ledger.open(last + 1);
        let keys: Vec<u64> = ledger.entries().map(|entry| entry.key).collect();
        assert!(keys.contains(&1), "it is connected");
        assert!(!keys.contains(&2), "of the others it gave least");
        assert!(keys.contains(&3) && keys.contains(&(last + 1)));
    }

    #[test]
    fn parties_that_find_no_place_share_the_last_account() {
        for (parties, shared) in
            [(LEDGER_PROBES_MAX - 1, 0), (LEDGER_PROBES_MAX, 0), (LEDGER_PROBES_MAX + 1, 1)]
        {
            let ledger = Ledger::new(LEDGER_PROBES_MAX);
            let last = AccountId(LEDGER_PROBES_MAX as u32);
            let opened: Vec<AccountId> = (1..=parties as u64).map(|key| ledger.open(key)).collect();
            assert_eq!(opened.iter().filter(|&&id| id == last).count(), shared, "{parties} parties");
            assert_eq!(ledger.entries().count(), parties - shared);
        }
    }
}
