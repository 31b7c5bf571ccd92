//! The task that keeps the ledger, as the loop sees it.

use super::*;
use crate::daemon::accounts::Accounts;

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Ledgering {
    /// There is nothing to keep, or it has been kept for the last time.
    #[default]
    Over,
    /// Not begun.
    Waiting(Box<Accounts>),
    /// It runs until it is told to end.
    Running(UnboundedSender<()>),
}

impl Control<'_> {
    /// The same with accounts, kept while it runs.
    pub fn with_accounts(mut self, accounts: Accounts) -> Self {
        self.ledgering = Ledgering::Waiting(Box::new(accounts));
        self
    }

    pub(super) fn start_ledgering(&mut self) {
        let Ledgering::Waiting(accounts) = std::mem::take(&mut self.ledgering) else { return };
        let (end, ended) = unbounded_channel();
        self.ledgering = Ledgering::Running(end);
        let (tell, interval) = (self.tell.clone(), self.config.ledger_interval);
        tokio_uring::spawn(async move {
            accounts.keep(interval, ended).await;
            let _ = tell.send(Event::Ledgered);
        });
    }

    /// Has it write for the last time.
    pub(super) fn end_ledgering(&self) {
        if let Ledgering::Running(end) = &self.ledgering {
            let _ = end.send(());
        }
    }
}
