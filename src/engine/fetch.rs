//! What the searches for what a magnet link does not bring have in common (`metadata_fetch.rs`,
//! `layers_fetch.rs`): what they want done, and what they hold against peers.

use std::collections::VecDeque;

/// A peer, by the caller's numbers; none is used again.
pub type PeerNumber = u32;

/// What a fetch wants done: peers are asked for `Ask`, and it comes to an `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchAction<Ask, End> {
    /// Ask a peer.
    Ask(PeerNumber, Ask),
    /// Part from a peer, which is forgotten here.
    Drop(PeerNumber, Fault),
    /// The fetch is over.
    End(End),
}

impl<Ask, End> FetchAction<Ask, End> {
    /// The same in the caller's words.
    pub fn map<A, E>(self, ask: impl FnOnce(Ask) -> A, end: impl FnOnce(End) -> E) -> FetchAction<A, E> {
        match self {
            Self::Ask(peer, what) => FetchAction::Ask(peer, ask(what)),
            Self::Drop(peer, fault) => FetchAction::Drop(peer, fault),
            Self::End(last) => FetchAction::End(end(last)),
        }
    }
}

/// Why a peer is parted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has none, or too much of it. Perhaps later.
    #[error("has no metadata")]
    HasNone,
    /// It rejected a request.
    #[error("refused to give the metadata")]
    Refused,
    /// It was asked and did not answer.
    #[error("does not answer")]
    Silent,
    /// What it gave is not what the link names, or cannot be.
    #[error("gave wrong metadata")]
    Lied,
    /// What it has is long, and too much of that is being fetched. Perhaps later.
    #[error("has more metadata than there is room for now")]
    Long,
}

/// What is wanted and not done yet. Invariant: behind the end there is nothing.
#[derive(Debug)]
pub(super) struct Wishes<Ask, End> {
    queue: VecDeque<FetchAction<Ask, End>>,
    over: bool,
}

impl<Ask, End> Wishes<Ask, End> {
    pub(super) const fn new() -> Self {
        Self { queue: VecDeque::new(), over: false }
    }

    pub(super) fn ask(&mut self, peer: PeerNumber, ask: Ask) {
        self.queue.push_back(FetchAction::Ask(peer, ask));
    }

    pub(super) fn part(&mut self, peer: PeerNumber, fault: Fault) {
        self.queue.push_back(FetchAction::Drop(peer, fault));
    }

    /// Nothing of what was wanted before is wanted any more.
    pub(super) fn end(&mut self, end: End) {
        self.queue.clear();
        self.queue.push_back(FetchAction::End(end));
        self.over = true;
    }

    pub(super) fn poll(&mut self) -> Option<FetchAction<Ask, End>> {
        self.queue.pop_front()
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }
}
