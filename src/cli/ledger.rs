//! `troc ledger`: who gave and who got, and where each stands in the order of service.

use crate::base::human::format_size;
use crate::daemon::explain::{LedgerDocument, PartyRow, Subject};

use super::args::AskArgs;
use super::ask::{self, heading};
use super::error::CliError;
use super::table::{Side, Table};

/// Asks and prints.
pub fn run(args: &AskArgs) -> Result<(), CliError> {
    ask::run(args, Subject::Ledger, show)
}

const COLUMNS: [(&str, Side); 9] = [
    ("PARTY", Side::Left),
    ("KIND", Side::Left),
    ("GROUP", Side::Left),
    ("CONNS", Side::Right),
    ("GAVE", Side::Right),
    ("GOT", Side::Right),
    ("BALANCE", Side::Right),
    ("CLASS", Side::Left),
    ("WHY", Side::Left),
];

fn show(document: &LedgerDocument) -> String {
    let [gave, got] = [document.gave_bytes, document.got_bytes].map(format_size);
    let accounts = document.accounts;
    let noun = if accounts == 1 { "account" } else { "accounts" };
    let said = format!("{accounts} {noun}, gave {gave}, got {got}");
    let head = heading(document.node, &said, document.parties.len(), accounts);
    if document.parties.is_empty() {
        return head;
    }
    let mut table = Table::new(&COLUMNS);
    document.parties.iter().for_each(|party| table.row(cells(party)));
    head + &table.text()
}

fn cells(party: &PartyRow) -> Vec<String> {
    let sign = match party.balance_bytes {
        ..0 => "-",
        0 => "",
        1.. => "+",
    };
    vec![
        party.address.clone().unwrap_or_else(|| format!("#{}", party.account)),
        party.kind.clone(),
        party.group.clone().unwrap_or_else(|| "-".to_owned()),
        party.connections.to_string(),
        format_size(party.gave_bytes),
        format_size(party.got_bytes),
        format!("{sign}{}", format_size(party.balance_bytes.unsigned_abs())),
        party.class.clone(),
        party.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::explain::NodeHead;

    #[test]
    fn a_table_of_accounts_is_aligned_and_says_why() {
        let giver = PartyRow {
            account: "0011aabb".to_owned(),
            address: Some("8.8.4.9".to_owned()),
            kind: "peer".to_owned(),
            group: Some("8.8.4.0/24".to_owned()),
            connections: 2,
            gave_bytes: 4 << 30,
            got_bytes: 1 << 30,
            balance_bytes: 3 << 30,
            granted_bytes: 0,
            class: "owed".to_owned(),
            why: "gave 3.00 GiB more than it got".to_owned(),
        };
        let gone = PartyRow {
            address: None,
            kind: "group".to_owned(),
            group: None,
            connections: 0,
            gave_bytes: 0,
            got_bytes: 5 << 10,
            balance_bytes: -(5 << 10),
            class: "rest".to_owned(),
            why: "gave nothing: equal share of its group".to_owned(),
            ..giver.clone()
        };
        let even = PartyRow { balance_bytes: 0, ..gone.clone() };
        let document = LedgerDocument {
            node: NodeHead { version: 1, pid: 7, uptime_ns: 0 },
            accounts: 4,
            gave_bytes: 4 << 30,
            got_bytes: 0,
            parties: vec![giver, gone, even],
        };
        let lines = [
            "node 7, up 0s: 4 accounts, gave 4.00 GiB, got 0 B; 1 more with a larger --top",
            "PARTY      KIND   GROUP       CONNS      GAVE       GOT    BALANCE  CLASS  WHY",
            concat!(
                "8.8.4.9    peer   8.8.4.0/24      2  4.00 GiB  1.00 GiB  +3.00 GiB  owed   ",
                "gave 3.00 GiB more than it got",
            ),
            concat!(
                "#0011aabb  group  -               0       0 B  5.00 KiB  -5.00 KiB  rest   ",
                "gave nothing: equal share of its group",
            ),
            concat!(
                "#0011aabb  group  -               0       0 B  5.00 KiB        0 B  rest   ",
                "gave nothing: equal share of its group",
            ),
        ];
        assert_eq!(show(&document), lines.map(|line| format!("{line}\n")).concat());
        let nobody = LedgerDocument { accounts: 1, parties: Vec::new(), ..document };
        assert!(show(&nobody).starts_with("node 7, up 0s: 1 account, gave "));
    }
}
