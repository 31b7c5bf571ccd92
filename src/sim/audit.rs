//! What must hold of a disk, at every moment and after a stop.

use super::disk::Disk;
use super::node::JOURNAL;
use super::torrent::SimTorrent;
use crate::hash::sha1;
use crate::storage::journal::replay;

/// Every piece that the journal calls durable is right, both as reads see it and on the platter: a
/// power cut at this moment loses none of them. The first thing that does not hold.
pub fn disk(torrent: &SimTorrent, disk: &Disk) -> Result<(), String> {
    let Some(journal) = disk.find(JOURNAL) else { return Ok(()) };
    let Ok(replay) = replay(disk.live(journal), &torrent.subject()) else { return Ok(()) };
    for piece in replay.state.durable().ones() {
        let hash = torrent.piece_hashes[piece as usize];
        if sha1::digest(&torrent.piece_on_disk(disk, piece, Disk::live)) != hash {
            return Err(format!("piece {piece} is durable by the journal, and wrong in its files"));
        }
        if sha1::digest(&torrent.piece_on_disk(disk, piece, Disk::durable)) != hash {
            return Err(format!("piece {piece} is durable by the journal, and not on the platter"));
        }
    }
    Ok(())
}

/// After a stop: a journal that reads as ended cleanly is on the platter as it reads.
pub fn clean_mark(torrent: &SimTorrent, disk: &Disk) -> Result<(), String> {
    let Some(journal) = disk.find(JOURNAL) else { return Ok(()) };
    let marked = replay(disk.live(journal), &torrent.subject()).is_ok_and(|replay| replay.state.is_clean());
    if marked && disk.live(journal) != disk.durable(journal) {
        return Err("the journal reads clean, and is not so on the platter".to_owned());
    }
    Ok(())
}
