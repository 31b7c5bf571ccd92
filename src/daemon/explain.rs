//! What a running node says of its peers and its ledger: questions, and documents with the reasons in words.
//!
//! A document is put together on the control thread. It looks at the ledger itself and is told by the workers
//! of their connections, a part at a time (`control/inquiry.rs`); what it keeps meanwhile is bounded by what
//! was asked for.

mod ledger;
mod peers;
mod words;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base::limits::CONTROL_ROWS_MAX;
use crate::engine::view::PeerView;
use crate::shared::ledger::Ledger;

pub use ledger::{LedgerDocument, PartyRow};
pub use peers::{PeerRow, PeersDocument};

use ledger::Parties;
use peers::Connections;

/// Version of questions and documents. Documents of one version may gain fields.
pub const VERSION: u32 = 1;

/// What can be asked. Nothing that is asked changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Each connection: a [`PeersDocument`].
    Peers,
    /// Each account: a [`LedgerDocument`].
    Ledger,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// About what.
    pub ask: Subject,
    /// Rows wanted at most, up to [`CONTROL_ROWS_MAX`].
    #[serde(default = "rows_max")]
    pub top: usize,
}

const fn rows_max() -> usize {
    CONTROL_ROWS_MAX
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It does not parse.
    #[error("not a question: send one line like {{\"version\":{VERSION},\"ask\":\"peers\",\"top\":20}}")]
    Malformed,
    /// Of another program.
    #[error("version {0} is not known: ask with the troc that runs the node, which speaks version {VERSION}")]
    Version(u32),
    /// More than is kept.
    #[error("more than {CONTROL_ROWS_MAX} rows: ask for fewer")]
    Rows,
    /// It has no end.
    #[error("the question is too long")]
    Long,
    /// Asked too late.
    #[error("the node is stopping")]
    Stopping,
}

impl Question {
    /// About `ask`, at most `top` rows.
    pub const fn new(ask: Subject, top: usize) -> Self {
        Self { version: VERSION, ask, top }
    }

    /// Reads one line.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(line).map_err(|_| Refusal::Malformed)?;
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        let question: Self = serde_json::from_slice(line).map_err(|_| Refusal::Malformed)?;
        if question.top > CONTROL_ROWS_MAX { Err(Refusal::Rows) } else { Ok(question) }
    }
}

/// What every document says of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHead {
    /// [`VERSION`].
    pub version: u32,
    /// Its process.
    pub pid: u32,
    /// Since it started, in nanoseconds.
    pub uptime_ns: u64,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// To [`Subject::Peers`].
    Peers(PeersDocument),
    /// To [`Subject::Ledger`].
    Ledger(LedgerDocument),
}

/// An answer on its way.
#[derive(Debug)]
pub enum Gathering {
    /// Connections so far.
    Peers(Connections),
    /// Accounts, and who of them is connected so far.
    Ledger(Parties),
}

impl Gathering {
    /// Nobody has been shown yet.
    pub fn begin(question: Question, ledger: &Ledger) -> Self {
        match question.ask {
            Subject::Peers => Self::Peers(Connections::new(question.top)),
            Subject::Ledger => Self::Ledger(Parties::new(question.top, ledger)),
        }
    }

    /// A worker showed some of its connections.
    pub fn add(&mut self, core: u8, peers: &[PeerView]) {
        match self {
            Self::Peers(connections) => connections.add(core, peers),
            Self::Ledger(parties) => parties.add(peers),
        }
    }

    /// All have been shown. `info_hash` names a torrent by its number.
    pub fn finish(
        self,
        node: NodeHead,
        ledger: &Ledger,
        info_hash: impl Fn(usize) -> Option<String>,
    ) -> Document {
        match self {
            Self::Peers(connections) => Document::Peers(connections.finish(node, ledger, info_hash)),
            Self::Ledger(parties) => Document::Ledger(parties.finish(node, ledger)),
        }
    }
}

#[cfg(test)]
mod tests;
