//! One row per account.
//!
//! The ledger keeps hashes only: whose account it is can be said while the party is connected.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::NodeHead;
use super::words::why;
use crate::base::address::canonical;
use crate::base::network::Network;
use crate::engine::scheduler::class::Class;
use crate::engine::scheduler::view::Outlook;
use crate::engine::view::PeerView;
use crate::shared::ledger::view::Row;
use crate::shared::ledger::{AccountId, Ledger, Standing};
use crate::storage::ledger::PartyKind;

/// Every account of a node's ledger, or those that gave and got most.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerDocument {
    /// Of the node.
    #[serde(flatten)]
    pub node: NodeHead,
    /// Accounts there are, also those without a row.
    pub accounts: u64,
    /// Verified payload that all parties gave, as far as they have accounts.
    pub gave_bytes: u64,
    /// Payload that they got.
    pub got_bytes: u64,
    /// Who gave most first.
    pub parties: Vec<PartyRow>,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyRow {
    /// First half of the party's secret hash, in hexadecimal.
    pub account: String,
    /// Its address, while it is connected.
    pub address: Option<String>,
    /// `peer`: an identity that shares grants and equal shares with its `group`; `group`: that group, or a
    /// party that is a group of its own.
    pub kind: String,
    /// The group of a `peer`: its addresses, or its account.
    pub group: Option<String>,
    /// Connections now.
    pub connections: u32,
    /// Verified payload that it gave.
    pub gave_bytes: u64,
    /// Payload that it got.
    pub got_bytes: u64,
    /// What it gave more than it got.
    pub balance_bytes: i64,
    /// What a group was given before it had given anything.
    pub granted_bytes: u64,
    /// Class in the order of service, or in which it would be.
    pub class: String,
    /// Why.
    pub why: String,
}

/// What is known of an account because it is connected.
#[derive(Clone, Copy, Debug)]
struct Seen {
    address: SocketAddr,
    connections: u32,
    turn: Outlook,
    group: Network,
}

/// The accounts that are shown, and who of them was found connected so far.
#[derive(Debug)]
pub struct Parties {
    accounts: u64,
    gave_bytes: u64,
    got_bytes: u64,
    rows: Vec<Row>,
    seen: HashMap<AccountId, Option<Seen>>,
}

impl Parties {
    pub(super) fn new(top: usize, ledger: &Ledger) -> Self {
        let mut rows: Vec<Row> = ledger.rows().collect();
        // What a peer gives and gets is in its group's account, too; what a key gives is not.
        let alone = || rows.iter().filter(|row| row.group.is_none());
        let gave_bytes = alone().map(|row| row.standing.received_bytes).sum();
        let groups = alone().filter(|row| row.kind == PartyKind::Address);
        let got_bytes = groups.map(|row| row.standing.sent_bytes).sum();
        let accounts = rows.len() as u64;
        rows.sort_unstable_by_key(|row| {
            (Reverse((row.standing.received_bytes, row.standing.sent_bytes)), row.key)
        });
        rows.truncate(top);
        // Looked up for every connection there is: only those that are shown are kept.
        let seen = rows.iter().map(|row| (row.id, None)).collect();
        Self { accounts, gave_bytes, got_bytes, rows, seen }
    }

    pub(super) fn add(&mut self, peers: &[PeerView]) {
        for peer in peers {
            let Some(turn) = peer.turn else { continue };
            let own = turn.membership.own;
            let group = Some(turn.membership.group).filter(|&group| group != own);
            for account in [own].into_iter().chain(group) {
                let Some(seen) = self.seen.get_mut(&account) else { continue };
                let fresh = Seen { address: peer.address, connections: 0, turn, group: peer.group };
                seen.get_or_insert(fresh).connections += 1;
            }
        }
    }

    pub(super) fn finish(self, node: NodeHead, ledger: &Ledger) -> LedgerDocument {
        let row = |row: &Row| party(row, self.seen.get(&row.id).copied().flatten(), ledger);
        LedgerDocument {
            node,
            accounts: self.accounts,
            gave_bytes: self.gave_bytes,
            got_bytes: self.got_bytes,
            parties: self.rows.iter().map(row).collect(),
        }
    }
}

fn party(row: &Row, seen: Option<Seen>, ledger: &Ledger) -> PartyRow {
    let (class, why) = place(row, seen.map(|seen| seen.turn), ledger);
    let group = row.group.map(|key| match seen {
        Some(seen) => shown(seen.group),
        None => short(key),
    });
    let (gave, got) = (row.standing.received_bytes, row.standing.sent_bytes);
    PartyRow {
        account: short(row.key),
        address: seen.map(|seen| address(row, seen)),
        kind: kind(row).to_owned(),
        group,
        connections: seen.map_or(0, |seen| seen.connections),
        gave_bytes: gave,
        got_bytes: got,
        balance_bytes: gave.wrapping_sub(got).cast_signed(),
        granted_bytes: row.granted_bytes,
        class: class.name().to_owned(),
        why,
    }
}

const fn kind(row: &Row) -> &'static str {
    match (row.kind, row.group) {
        (PartyKind::Key, _) => "key",
        (PartyKind::Address, Some(_)) => "peer",
        (PartyKind::Address, None) => "group",
    }
}

/// The class of an account, and why. Of a party that is connected it is known whose balance counts; of
/// another its own is taken.
fn place(row: &Row, turn: Option<Outlook>, ledger: &Ledger) -> (Class, String) {
    let granted_bytes = match row.group {
        Some(group) => ledger.row_of(group).map_or(0, |group| group.granted_bytes),
        None => row.granted_bytes,
    };
    let is_only_group = turn
        .is_some_and(|Outlook { membership, .. }| row.id == membership.group && row.id != membership.balance);
    if is_only_group {
        // Members that gave stand by themselves; it has the place of those that did not.
        let class = Class::of(Standing::default(), granted_bytes);
        let why = match class {
            Class::Grant => why(class, row.standing, granted_bytes),
            _ => "equal share for its members that gave nothing".to_owned(),
        };
        return (class, why);
    }
    let balance = turn.map_or(row.standing, |turn| ledger.standing(turn.membership.balance));
    let class = Class::of(balance, granted_bytes);
    (class, why(class, balance, granted_bytes))
}

/// A group: its network, or the one address that it is.
fn shown(group: Network) -> String {
    if group.is_address() { group.address().to_string() } else { group.to_string() }
}

/// Who has the account: a network for a group, an address for a party.
fn address(row: &Row, seen: Seen) -> String {
    let membership = seen.turn.membership;
    let ip = canonical(seen.address.ip());
    if row.id == membership.group && row.id != membership.own {
        return shown(seen.group);
    }
    match ip {
        // One party whatever its port; of IPv6 a whole network is.
        IpAddr::V4(ip) if !seen.group.is_address() => ip.to_string(),
        IpAddr::V6(ip) if !seen.group.is_address() => {
            format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64))
        }
        ip => SocketAddr::new(ip, seen.address.port()).to_string(),
    }
}

fn short(key: u64) -> String {
    format!("{:08x}", key >> 32)
}
