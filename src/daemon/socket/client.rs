//! The asking side: finds the running nodes of a state directory and asks each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::{reachable, sockets_in};
use crate::base::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_CONNECTION_TIME, CONTROL_NODES_MAX};
use crate::daemon::explain::Question;
use crate::daemon::files::shown;

/// Why a node does not answer, or the directory cannot be looked at: one line each.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error(
        "no node is running, {}: start one with `troc relay` or `troc get`, or name its state directory with \
         --state",
        shown(.0)
    )]
    Nobody(PathBuf),
    /// The kernel refused.
    #[error("cannot ask, {}: {source}: run it as the user who runs the node, or try again", shown(path))]
    Refused {
        /// Of the directory or the socket.
        path: PathBuf,
        /// As the kernel says it.
        source: io::Error,
    },
    /// It is no answer.
    #[error("no answer that is understood, {}: ask with the troc that runs the node", shown(.0))]
    Unreadable(PathBuf),
    /// The node said why not.
    #[error("no answer, {}: {why}", shown(path))]
    Declined {
        /// Of the socket.
        path: PathBuf,
        /// In its words.
        why: String,
    },
}

/// The answers of all nodes that run with the state directory `dir`, as they came, and why others gave none.
/// Nobody there is an error, and so is nobody who answers.
pub fn ask_all(dir: &Path, question: &Question) -> Result<(Vec<Value>, Vec<AskError>), AskError> {
    let sockets = match sockets_in(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        found => found.map_err(|source| AskError::Refused { path: dir.to_owned(), source })?,
    };
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for path in sockets {
        if answers.len() + failures.len() >= CONTROL_NODES_MAX {
            break;
        }
        match ask(&path, question) {
            Ok(answer) => answers.push(answer),
            // Left by a process that was killed, or gone meanwhile.
            Err(AskError::Refused { source, .. })
                if matches!(source.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {}
            Err(error) => failures.push(error),
        }
    }
    if answers.is_empty() {
        return Err(failures.into_iter().next().unwrap_or_else(|| AskError::Nobody(dir.to_owned())));
    }
    Ok((answers, failures))
}

fn ask(path: &Path, question: &Question) -> Result<Value, AskError> {
    let refused = |source| AskError::Refused { path: path.to_owned(), source };
    let mut stream = connect(path, Patience::Some).map_err(refused)?;
    let mut line = serde_json::to_vec(question).map_err(|error| refused(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).and_then(|()| stream.shutdown(Shutdown::Write)).map_err(refused)?;
    let mut text = Vec::new();
    stream.take(CONTROL_ANSWER_BYTES_MAX).read_to_end(&mut text).map_err(refused)?;
    let answer: Value = serde_json::from_slice(&text).map_err(|_| AskError::Unreadable(path.to_owned()))?;
    match answer.get("error") {
        Some(why) => {
            let why = why.as_str().unwrap_or_default().to_owned();
            Err(AskError::Declined { path: path.to_owned(), why })
        }
        None => Ok(answer),
    }
}

/// How long a connection to a socket may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// No time at all.
    None,
    /// Each step as long as the node gives a connection.
    Some,
}

/// Connects to a socket, however long its path is.
pub(super) fn connect(path: &Path, patience: Patience) -> io::Result<UnixStream> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(ErrorKind::InvalidInput)?;
    let (path, _dir) = reachable(path.parent().unwrap_or_else(|| Path::new(".")), name)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let time = Some(Duration::from_nanos(CONTROL_CONNECTION_TIME.0));
    socket.set_write_timeout(time)?;
    socket.set_read_timeout(time)?;
    socket.set_nonblocking(patience == Patience::None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}
