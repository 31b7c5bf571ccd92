//! The lasting half of the ledger: has time pass for all accounts, and keeps them on disk. Never on a worker.
//!
//! A failed write is a warning and is tried again; a node without a ledger on disk runs on, and its balances
//! end with it.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::clock;
use super::config::Role;
use super::store::{JournalFile, OpenedLedger, StateDir, StoreError};
use crate::base::time::{Instant, Span};
use crate::shared::ledger::Ledger;
use crate::storage::ledger::{Balance, Book, Clock, Write};

/// What is kept of a ledger. See the module.
#[derive(Debug)]
pub struct Accounts {
    ledger: Arc<Ledger>,
    clock: Clock,
    /// `None` if nothing is kept.
    kept: Option<(Book, JournalFile)>,
    /// Read anew each time, in the same memory.
    balances: Vec<Balance>,
    /// The last write failed, which was said.
    failing: bool,
}

impl Accounts {
    /// Fills `ledger`, which no worker has yet, with what the state directory remembers for a node of `role`.
    pub fn open(state: &StateDir, ledger: Arc<Ledger>, role: Role, wall_s: u64, now: Instant) -> Self {
        let mut accounts =
            Self { ledger, clock: Clock::start(now), kept: None, balances: Vec::new(), failing: false };
        match state.open_ledger() {
            Ok(opened) => accounts.take_up(opened, wall_s, now),
            // A fetch beside a relay is nothing out of the ordinary, and has little to remember.
            Err(error @ StoreError::LedgerInUse { .. }) if matches!(role, Role::Get { .. }) => {
                tracing::info!("{error}: balances of this one end with it");
            }
            Err(error @ StoreError::LedgerInUse { .. }) => {
                tracing::warn!("{error}: balances of this one end with it, unless it has another --state");
            }
            Err(error) => tracing::warn!("no balances are kept: {error}"),
        }
        accounts
    }

    fn take_up(&mut self, opened: OpenedLedger, wall_s: u64, now: Instant) {
        if let Some((flaw, copy)) = &opened.set_aside {
            let what = match opened.replay {
                Some(_) => "what comes before is used",
                None => "all begin with nothing",
            };
            tracing::warn!(
                "the ledger of who gave and who got: {flaw}; {what}, a copy is {}",
                copy.display()
            );
        }
        if let Some(replay) = opened.replay {
            let (clock, passed) = Clock::resume(replay.stamp, wall_s, now);
            self.clock = clock;
            let settled: Vec<Balance> =
                replay.balances.into_iter().map(|balance| balance.settled(passed)).collect();
            let restored = self.ledger.restore(&settled);
            tracing::info!("{restored} accounts are remembered");
        }
        self.kept = Some((Book::new(opened.subject), opened.file));
    }

    /// Has time pass until `now`, and writes what has changed.
    pub async fn look_after(&mut self, wall_s: u64, now: Instant) {
        let passed = self.clock.advance(now);
        self.ledger.settle(passed);
        let Some((book, file)) = &mut self.kept else { return };
        book.pass(passed);
        self.ledger.read_into(&mut self.balances);
        let Some(write) = book.plan(self.clock.stamp(wall_s), &self.balances) else { return };
        let result = match write {
            Write::Append(bytes) => match file.append(bytes).await {
                Ok(()) => file.sync().await,
                Err(error) => Err(error),
            },
            Write::Replace(bytes) => file.replace(bytes).await,
        };
        book.handle_written(result.is_ok());
        let failed_before = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Err(error) if !failed_before => tracing::warn!(
                "the ledger could not be written: {error}: free space or mend the state directory; it is \
                 tried again, and balances are lost if the node ends before that"
            ),
            Ok(()) if failed_before => tracing::info!("the ledger is written again"),
            _ => {}
        }
    }

    /// Looks after the accounts at each `interval` until `end` says so, or nobody is left who could; then
    /// once more.
    pub async fn keep(mut self, interval: Span, mut end: UnboundedReceiver<()>) {
        loop {
            let at = clock::tokio_at(clock::now() + interval);
            let ended = tokio::time::timeout_at(at, end.recv()).await.is_ok();
            self.look_after(clock::wall_s(), clock::now()).await;
            if ended {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
