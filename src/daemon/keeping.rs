//! The task that makes one torrent's pieces durable.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::clock;
use super::files::TorrentFiles;
use super::store::{Keeper, Settled};
use crate::engine::assembly_chunks;
use crate::shared::torrent::SharedTorrent;
use crate::storage::layout::FileIndex;

/// What the task is told.
#[derive(Debug)]
pub enum Order {
    /// A verified piece is in its files, unsynced.
    Written(u32),
    /// A piece is not what it was.
    Lost(u32),
    /// Make durable what there is, without waiting for more.
    Flush,
    /// Make all durable, note how the files look, end.
    Close,
}

/// What it tells.
#[derive(Debug)]
pub enum News {
    /// Some pieces are durable, or lost, or something failed.
    Settled(Settled),
    /// It has ended; `clean` if the next start can trust the files as they are.
    Closed {
        /// See above.
        clean: bool,
    },
}

/// Runs until `Order::Close`, or until nobody can give orders any more.
pub async fn keep(
    mut keeper: Keeper,
    mut files: TorrentFiles,
    torrent: Arc<SharedTorrent>,
    mut orders: UnboundedReceiver<Order>,
    tell: impl Fn(News),
) {
    loop {
        let settled = keeper.settle(&mut files, clock::now()).await;
        if !settled.durable.is_empty() || !settled.lost.is_empty() || !settled.errors.is_empty() {
            tell(News::Settled(settled));
        }
        let first = match keeper.next_timeout() {
            Some(at) => tokio::time::timeout_at(clock::tokio_at(at), orders.recv()).await,
            None => Ok(orders.recv().await),
        };
        let Ok(order) = first else { continue };
        let mut next = order;
        loop {
            match next {
                None | Some(Order::Close) => {
                    let (settled, clean) = keeper.close(&mut files, clock::now()).await;
                    tell(News::Settled(settled));
                    tell(News::Closed { clean });
                    return;
                }
                Some(Order::Written(piece)) => {
                    if !written(&mut keeper, &torrent, piece) {
                        let lost = vec![piece];
                        tell(News::Settled(Settled { lost, ..Settled::default() }));
                    }
                }
                Some(Order::Lost(piece)) => keeper.machine().handle_lost(piece),
                Some(Order::Flush) => keeper.machine().flush(),
            }
            match orders.try_recv() {
                Ok(order) => next = Some(order),
                Err(_) => break,
            }
        }
    }
}

fn written(keeper: &mut Keeper, torrent: &SharedTorrent, piece: u32) -> bool {
    let meta = &torrent.meta;
    let prints =
        assembly_chunks(torrent, piece).into_iter().map(|chunk| torrent.fingerprint(chunk)).collect();
    let files: Vec<FileIndex> = meta.layout.files_of_piece(meta.geometry, piece).collect();
    keeper.machine().handle_written(piece, files, prints, clock::now())
}

/// How the rest of the control thread reaches the task.
pub type Orders = UnboundedSender<Order>;
