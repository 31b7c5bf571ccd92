//! `troc peers`: each connection of the running nodes, and why it is served now.

use crate::base::human::{format_percent, format_rate, format_size};
use crate::daemon::explain::{PeerRow, PeersDocument, Subject};

use super::args::AskArgs;
use super::ask::{self, heading};
use super::error::CliError;
use super::table::{Side, Table};

/// Asks and prints.
pub fn run(args: &AskArgs) -> Result<(), CliError> {
    ask::run(args, Subject::Peers, show)
}

const COLUMNS: [(&str, Side); 14] = [
    ("ADDRESS", Side::Left),
    ("CLIENT", Side::Left),
    ("DIR", Side::Left),
    ("HAS", Side::Right),
    ("DOWN", Side::Right),
    ("UP", Side::Right),
    ("GAVE", Side::Right),
    ("GOT", Side::Right),
    ("FLAGS", Side::Left),
    ("ASKED", Side::Right),
    ("QUEUED", Side::Right),
    ("SENDING", Side::Right),
    ("CLASS", Side::Left),
    ("WHY", Side::Left),
];

fn show(document: &PeersDocument) -> String {
    let all = document.connections;
    let said = if all == 1 { "1 connection".to_owned() } else { format!("{all} connections") };
    let head = heading(document.node, &said, document.peers.len(), all);
    if document.peers.is_empty() {
        return head;
    }
    let mut table = Table::new(&COLUMNS);
    document.peers.iter().for_each(|peer| table.row(cells(peer)));
    head + &table.text()
}

fn cells(peer: &PeerRow) -> Vec<String> {
    let or_none = |text: String, something: bool| if something { text } else { "-".to_owned() };
    let class = match (&peer.class, peer.place) {
        (Some(class), Some(place)) if peer.waits => format!("{class} #{place}"),
        (Some(class), _) => class.clone(),
        (None, _) => peer.stage.clone(),
    };
    vec![
        peer.address.clone(),
        or_none(peer.client.clone(), !peer.client.is_empty()),
        peer.direction.clone(),
        or_none(format_percent(peer.have_pieces.into(), peer.pieces.into()) + "%", peer.pieces > 0),
        or_none(format_rate(peer.down_rate), peer.down_rate > 0),
        or_none(format_rate(peer.up_rate), peer.up_rate > 0),
        format_size(peer.gave_bytes),
        format_size(peer.got_bytes),
        or_none(peer.flags.clone(), !peer.flags.is_empty()),
        peer.asked.to_string(),
        peer.queued.to_string(),
        or_none(format_size(peer.sending_bytes), peer.sending_bytes > 0),
        class,
        peer.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::explain::NodeHead;

    fn peer() -> PeerRow {
        PeerRow {
            address: "10.0.0.7:51413".to_owned(),
            client: "qBittorrent 4.6.2".to_owned(),
            torrent: Some("ab".repeat(20)),
            core: 0,
            direction: "in".to_owned(),
            stage: "open".to_owned(),
            have_pieces: 1,
            pieces: 3,
            down_rate: 0,
            up_rate: 3 << 20,
            gave_bytes: 0,
            got_bytes: 5 << 20,
            flags: "UI".to_owned(),
            snubbed: false,
            encryption: "none".to_owned(),
            asked: 0,
            queued: 12,
            sending_bytes: 512 << 10,
            class: Some("grant".to_owned()),
            place: Some(0),
            waits: true,
            party_connections: 1,
            why: "has used 256 KiB of a newcomer's 1.00 MiB".to_owned(),
        }
    }

    fn document(peers: Vec<PeerRow>, connections: u64) -> PeersDocument {
        PeersDocument { node: NodeHead { version: 1, pid: 7, uptime_ns: 0 }, connections, peers }
    }

    #[test]
    fn a_table_of_peers_is_aligned_and_says_why() {
        let shaking = PeerRow {
            address: "[2001:db8::1]:6881".to_owned(),
            client: String::new(),
            stage: "handshake".to_owned(),
            pieces: 0,
            flags: String::new(),
            class: None,
            place: None,
            waits: false,
            up_rate: 0,
            sending_bytes: 0,
            why: String::new(),
            ..peer()
        };
        let lines = [
            "node 7, up 0s: 2 connections",
            concat!(
                "ADDRESS             CLIENT             DIR    HAS  DOWN          UP  ",
                "GAVE       GOT  FLAGS  ASKED  QUEUED  SENDING  CLASS      WHY",
            ),
            concat!(
                "10.0.0.7:51413      qBittorrent 4.6.2  in   33.3%     -  3.00 MiB/s  ",
                " 0 B  5.00 MiB  UI         0      12  512 KiB  grant #0   ",
                "has used 256 KiB of a newcomer's 1.00 MiB",
            ),
            concat!(
                "[2001:db8::1]:6881  -                  in       -     -           -  ",
                " 0 B  5.00 MiB  -          0      12        -  handshake",
            ),
        ];
        let text = show(&document(vec![peer(), shaking], 2));
        assert_eq!(text, lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn nobody_is_a_line_and_who_does_not_wait_has_no_place() {
        assert_eq!(show(&document(Vec::new(), 0)), "node 7, up 0s: 0 connections\n");
        let text = show(&document(vec![PeerRow { waits: false, ..peer() }], 3));
        assert!(text.starts_with("node 7, up 0s: 3 connections; 2 more with a larger --top\n"), "{text}");
        assert!(text.contains("  grant  has used "), "{text}");
    }

    #[test]
    fn t12_a_node_that_lies_cannot_steer_the_terminal() {
        let liar = PeerRow { client: "\u{1b}[2J\n".to_owned(), ..peer() };
        let text = show(&document(vec![liar], 1));
        assert!(!text.contains('\u{1b}') && text.lines().count() == 3, "{text:?}");
    }
}
