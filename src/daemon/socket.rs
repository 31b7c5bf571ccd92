//! The control socket: a Unix socket in the state directory on which a running node answers questions of its
//! own user. It answers, and changes nothing.
//!
//! One line of JSON comes in, one JSON document goes out, and the connection ends. Several processes may
//! share a state directory: each has a socket named after its process id, and `client.rs` finds those that
//! live. Whoever opens one clears away what dead processes left, and never what a live one listens at: all
//! of that is done under a lock, so that a socket that refuses is surely nobody's.

pub mod client;

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use client::Patience;

use super::explain::{Document, Question, Refusal, VERSION};
use super::serving;
use crate::base::limits::{
    CONTROL_CONNECTION_TIME, CONTROL_CONNECTIONS_MAX, CONTROL_QUESTION_BYTES_MAX, CONTROL_SOCKETS_PER_PID_MAX,
};

/// Begin of a socket's name; the process id follows.
const PREFIX: &str = "control-";

/// End of a socket's name.
const SUFFIX: &str = ".sock";

/// Locked while sockets are made and cleared away.
const LOCK_NAME: &str = "control.lock";

/// Longest path that the address of a Unix socket holds, its terminating zero left out (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Dropped when the node has no answer any more.
    pub reply: oneshot::Sender<Document>,
}

/// An open socket. Its name goes when it does.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ControlSocket {
    /// Opens the socket of this process in the state directory `dir`. Nothing is answered before `start`.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_as(dir, std::process::id())
    }

    fn open_as(dir: &Path, pid: u32) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(dir.join(LOCK_NAME))?;
        // Others hold it for as long as this takes; it ends with the file.
        flock(&lock, FlockOperation::LockExclusive)?;
        for path in sockets_in(dir)? {
            if !is_live(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
        for number in 0..CONTROL_SOCKETS_PER_PID_MAX {
            let name = match number {
                0 => format!("{PREFIX}{pid}{SUFFIX}"),
                // A process of another namespace has the same id.
                _ => format!("{PREFIX}{pid}-{number}{SUFFIX}"),
            };
            match listen(dir, &name) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                listener => return Ok(Self { path: dir.join(name), listener: Some(listener?) }),
            }
        }
        Err(ErrorKind::AddrInUse.into())
    }

    /// Answers from now on, on the calling thread's runtime. `ask` hands each question to the control loop.
    pub fn start(&mut self, ask: impl Fn(Asked) + 'static) {
        if let Some(listener) = self.listener.take() {
            tokio_uring::spawn(serve(listener, ask));
        }
    }
}

/// Listens at a name that nothing has yet. Only this user may connect, from the first moment on: nobody
/// can before `listen`.
fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let (path, _dir) = reachable(dir, name)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let begun = || {
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        socket.listen(CONTROL_CONNECTIONS_MAX as i32)?;
        socket.set_nonblocking(true)
    };
    if let Err(error) = begun() {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(socket.into())
}

/// A path to `name` in `dir` that fits into a socket's address: through a descriptor of the directory where
/// the directory's own is too long. Good for as long as that is open.
fn reachable(dir: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = dir.join(name);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())), Some(dir)))
}

/// What looks like a control socket in `dir`, sorted by name.
fn sockets_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let named = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if named && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether somebody may listen there. In doubt somebody does: one whose queue is full, for instance, for
/// whom nobody waits here.
fn is_live(path: &Path) -> bool {
    match client::connect(path, Patience::None) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
    }
}

/// Serves until the runtime ends.
async fn serve(listener: UnixListener, ask: impl Fn(Asked) + 'static) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the control socket is not served: {error}"),
    };
    let ask: Rc<dyn Fn(Asked)> = Rc::new(ask);
    let accept = async || Ok(listener.accept().await?.0);
    let converse = |stream| converse(stream, Rc::clone(&ask));
    serving::serve(accept, CONTROL_CONNECTIONS_MAX, CONTROL_CONNECTION_TIME, converse).await;
}

/// One question and its answer. Its errors are the asker's: gone, or too slow.
async fn converse(mut stream: UnixStream, ask: Rc<dyn Fn(Asked)>) -> io::Result<()> {
    let answer = match read_question(&mut stream).await? {
        Ok(question) => {
            let (reply, document) = oneshot::channel();
            ask(Asked { question, reply });
            document.await.map_err(|_| Refusal::Stopping)
        }
        Err(refusal) => Err(refusal),
    };
    let mut text = match answer {
        Ok(document) => serde_json::to_vec(&document)?,
        Err(refusal) => json!({ "version": VERSION, "error": refusal.to_string() }).to_string().into_bytes(),
    };
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

/// The first line, or all that comes before the other side ends.
async fn read_question(stream: &mut UnixStream) -> io::Result<Result<Question, Refusal>> {
    let mut line = Vec::new();
    let mut bytes = [0; CONTROL_QUESTION_BYTES_MAX + 1];
    loop {
        let room = bytes.len() - line.len();
        let count = stream.read(&mut bytes[..room]).await?;
        line.extend_from_slice(&bytes[..count]);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            return Ok(Question::parse(&line[..end]));
        }
        if line.len() > CONTROL_QUESTION_BYTES_MAX {
            return Ok(Err(Refusal::Long));
        }
        if count == 0 {
            return Ok(Question::parse(&line));
        }
    }
}

#[cfg(test)]
mod tests;
