//! What a verb ends with when it does not succeed: one line, and an exit status.

use thiserror::Error;

use crate::base::human::escape_for_terminal;

use super::bench::BenchError;

/// Why a verb failed, sorted by who can mend it. Each text is `what, where: how to mend it`.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line asks for what cannot be: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The work itself failed: exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Usage(text) => Self::Usage(text),
            BenchError::Failed(text) => Self::Failed(text),
        }
    }
}

impl CliError {
    /// 1 failed, 2 wrong usage.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }

    /// The one line for stderr, safe for a terminal whatever a torrent put into it.
    pub fn line(&self) -> String {
        format!("troc: {}", escape_for_terminal(&self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_add_a_line() {
        let error = CliError::Failed("bad name, a\nb\u{1b}[31m: rename it".to_owned());
        assert_eq!(error.line(), "troc: bad name, a\\u{a}b\\u{1b}[31m: rename it");
    }
}
