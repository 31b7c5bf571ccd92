//! Standard output and error that may go away: `troc show x | head` is no failure and never panics.

use std::io::{self, ErrorKind, IsTerminal, Write};

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

/// Writes one line to standard error, whole, so that two nodes on one terminal do not write into each
/// other's; there is nowhere to report that this failed.
pub fn complain(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Where the log goes: standard error. On a terminal each event takes the place of the bar that stands in its
/// line, which is drawn again below.
pub struct Log;

impl Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let clear = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
        io::stderr().lock().write_all(&[clear.as_bytes(), event].concat())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A warning about what goes on nevertheless.
pub fn warn(text: &str) {
    complain(&format!("troc: warning: {}", escape_for_terminal(text)));
}
