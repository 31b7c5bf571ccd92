//! Peer ids: ours, and what those of others say about their client (BEP 20).

use crate::base::ids::PeerId;
use crate::proto::text;

/// Our code and version in the Azureus style of BEP 20: major, minor, patch, zero.
pub const PEER_ID_PREFIX: [u8; 8] = [
    b'-',
    b't',
    b'C',
    env!("CARGO_PKG_VERSION_MAJOR").as_bytes()[0],
    env!("CARGO_PKG_VERSION_MINOR").as_bytes()[0],
    env!("CARGO_PKG_VERSION_PATCH").as_bytes()[0],
    b'0',
    b'-',
];

/// Longest client name that [`client_name`] gives.
const NAME_BYTES_MAX: usize = 40;

/// Our peer id; `random` comes from the kernel, so that ids of two processes differ.
pub fn peer_id(random: [u8; 12]) -> PeerId {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&PEER_ID_PREFIX);
    id[8..].copy_from_slice(&random);
    PeerId(id)
}

/// The client that `id` claims to be, as one line of printable text: `qBittorrent 4.6.2` for a
/// well-known code, else the code and version, else the first eight bytes escaped.
pub fn client_name(id: &PeerId) -> String {
    match id.0 {
        [b'-', a, b, major, minor, patch, tag, b'-', ..] if a.is_ascii_graphic() && b.is_ascii_graphic() => {
            let version = [major, minor, patch, tag];
            let Some(version) = dotted(version) else { return text::escape(&id.0[..8], NAME_BYTES_MAX) };
            let code = [a, b];
            let name = known(&code).map_or_else(|| text::escape(&code, NAME_BYTES_MAX), str::to_owned);
            format!("{name} {version}")
        }
        _ => text::escape(&id.0[..8], NAME_BYTES_MAX),
    }
}

/// `4620` as `4.6.2`: one character per number, letters from ten on, a last zero dropped.
fn dotted(version: [u8; 4]) -> Option<String> {
    let mut numbers = Vec::with_capacity(4);
    for char in version {
        numbers.push(char::from(char).to_digit(36)?.to_string());
    }
    if numbers.last().is_some_and(|last| last == "0") {
        numbers.pop();
    }
    Some(numbers.join("."))
}

fn known(code: &[u8; 2]) -> Option<&'static str> {
    Some(match code {
        b"7T" => "aTorrent",
        b"AZ" => "Vuze",
        b"BC" => "BitComet",
        b"BI" => "BiglyBT",
        b"BT" => "BitTorrent",
        b"DE" => "Deluge",
        b"FD" => "Free Download Manager",
        b"GT" => "anacrolix/torrent",
        b"KT" => "KTorrent",
        b"LT" => "libtorrent",
        b"PI" => "PicoTorrent",
        b"TR" => "Transmission",
        b"TX" => "Tixati",
        b"UM" => "\u{b5}Torrent Mac",
        b"UT" => "\u{b5}Torrent",
        b"UW" => "\u{b5}Torrent Web",
        b"WW" => "WebTorrent",
        b"XL" => "Xunlei",
        b"lt" => "rTorrent",
        b"qB" => "qBittorrent",
        b"rQ" => "rqbit",
        b"tC" => "troc",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_id_is_of_the_azureus_style_and_ends_in_the_random_bytes() {
        let id = peer_id(*b"abcdefghijkl");
        assert_eq!(&id.0[8..], b"abcdefghijkl");
        assert_eq!(client_name(&id), format!("troc {}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn p39_well_known_clients_are_named_and_strange_bytes_escaped() {
        for (id, want) in [
            (b"-qB4620-xxxxxxxxxxxx", "qBittorrent 4.6.2"),
            (b"-LT20B0-xxxxxxxxxxxx", "libtorrent 2.0.11"),
            (b"-TR3000-xxxxxxxxxxxx", "Transmission 3.0.0"),
            (b"-ZZ1234-xxxxxxxxxxxx", "ZZ 1.2.3.4"),
            (b"-qB\x1b[2J-xxxxxxxxxxxx", "-qB\\u{1b}[2J-"),
            (b"M7-10-0--xxxxxxxxxxx", "M7-10-0-"),
            (b"\0\0\0\0\0\0\0\0xxxxxxxxxxxx", "\\u{0}\\u{0}\\u{0}\\u{0}\\u{0}\\u{0}\\u{0}\\u{0}"),
        ] {
            assert_eq!(client_name(&PeerId(*id)), want);
        }
    }

    proptest! {
        #[test]
        fn p39_no_id_yields_a_hidden_character(id: [u8; 20]) {
            let name = client_name(&PeerId(id));
            prop_assert!(name.len() <= 48 && !name.chars().any(text::is_hidden), "{name:?}");
        }
    }
}
