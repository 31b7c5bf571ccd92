//! Standard output and error that may go away: `troc show x | head` is no failure and never panics.

use std::io::{self, ErrorKind, Write};

use crate::base::human::escape_for_terminal;

use super::error::CliError;

/// Writes `text` and a new line to standard output, at once.
pub fn line(text: &str) -> Result<(), CliError> {
    raw(&[text.as_bytes(), b"\n"])
}

/// Writes `parts` to standard output as they are. A reader that went away has read enough.
pub fn raw(parts: &[&[u8]]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("cannot write, standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line to standard error; there is nowhere to report that this failed.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A warning about what goes on nevertheless.
pub fn warn(text: &str) {
    complain(&format!("troc: warning: {}", escape_for_terminal(text)));
}
