//! Bounds of the metadata that is looked for by a magnet link (BEP 9; threat P30).

use crate::base::time::Span;

/// Peers that we dial at a time to find the metadata of one link.
pub const METADATA_PEERS_MAX: usize = 8;
/// The same over all links.
pub const METADATA_CONNECTIONS_MAX: usize = 128;
/// Peers that came to us and are asked for it besides; more are closed. Neither takes places of the others,
/// whatever comes, and however many addresses answer nobody.
pub const METADATA_CALLERS_MAX: usize = 4;
/// Of those, what one group of strangers may take: whoever has as many groups as there are places keeps out
/// others who come, and nobody whom we dial.
pub const METADATA_CALLERS_OF_GROUP_MAX: usize = 1;
/// The same of all links.
pub const METADATA_CALLERS_OF_GROUP_OF_ALL_MAX: usize = 8;
/// Peers that came to us, over all links.
pub const METADATA_CALLERS_OF_ALL_MAX: usize = 64;
/// Connections on their way from the cores to who looks for metadata; more are closed.
pub const METADATA_CALLERS_QUEUED_MAX: usize = 64;
/// Peers that give the metadata of one link at a time, each a copy of its own, in memory until it is whole.
pub const METADATA_GIVERS_MAX: usize = 2;
/// Requests outstanding at a giver.
pub const METADATA_REQUESTS_OUT: usize = 8;
/// Silence after which a giver is parted from.
pub const METADATA_SILENCE: Span = Span::from_secs(10);
/// First turn of a giver while others wait for its place; each later one is twice as long.
pub const METADATA_TURN: Span = Span::from_secs(10);
/// Turns after which a giver that comes to no end is parted from, if `METADATA_PEERS_MAX` of those whom
/// we dialled have metadata, or `METADATA_CALLERS_MAX` of those who came.
pub const METADATA_TURNS_MAX: u32 = 4;
/// Copies that are not whole yet, over all links. From half of it on none has more than its even part of
/// the other half: whoever has, loses it with its next piece, or when it is silent.
pub const METADATA_COPIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of other messages that are taken from a peer while the metadata is looked for: a bit field, and a
/// have for each of `PIECES_MAX` pieces.
pub const METADATA_OTHER_BYTES_MAX: u64 = 32 << 20;
