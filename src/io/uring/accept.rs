//! Accepting: one multishot operation on the listener, armed again whenever it ends.
#![allow(unsafe_code)] // An operation names the listener's descriptor.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, types};
use socket2::SockRef;

use crate::base::ids::ConnId;
use crate::base::time::{Instant, Span};

use super::key::{Key, Kind};
use super::ring::{Ring, Wait};

/// How long accepting rests when the process has no descriptor or memory left for a connection.
pub(super) const ACCEPT_PAUSE: Span = Span::from_ms(100);

/// The listener and whether its accept is in flight.
pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    key: Key,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be armed in the next turn.
    Idle,
    Armed,
    /// To be armed when this time has come.
    Paused(Instant),
}

/// What a completion of the accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection and where it comes from.
    Socket(OwnedFd, SocketAddr),
    /// Nothing: the other side has gone already, or the accept was cancelled.
    Nothing,
    /// The process or the system cannot accept now.
    Failed(i32),
}

impl Acceptor {
    pub(super) const fn new(listener: Option<TcpListener>) -> Self {
        Self::numbered(listener, 0)
    }

    /// One of several on a ring: completions of its accept carry `index`.
    pub(super) const fn numbered(listener: Option<TcpListener>, index: u32) -> Self {
        let key = Key { kind: Kind::Accept, id: ConnId { index, generation: 0 } };
        Self { listener, key, state: State::Idle }
    }

    /// Arms the accept if it is not and need not rest.
    pub(super) fn arm(&mut self, now: Instant, ring: &mut Ring) {
        let Some(listener) = &self.listener else { return };
        match self.state {
            State::Armed => return,
            State::Paused(until) if now < until => return,
            State::Idle | State::Paused(_) => {}
        }
        let fd = types::Fd(listener.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the listener lives as long as the acceptor, which `Uring` drops only after the
        // last completion (or leaks).
        unsafe { ring.push(entry, self.key) }
        self.state = State::Armed;
    }

    /// How long a turn may wait before the accept must be armed again.
    pub(super) fn wait(&self, now: Instant) -> Wait {
        match self.state {
            State::Paused(until) => Wait::AtMost(until.since(now)),
            State::Idle | State::Armed => Wait::Forever,
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.state == State::Armed
    }

    /// Takes a completion of the accept: its result, and whether more follow by themselves. `now` is
    /// asked for only if accepting must rest.
    pub(super) fn completed(&mut self, result: i32, more: bool, now: impl FnOnce() -> Instant) -> Accepted {
        if !more {
            self.state = State::Idle;
        }
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            return greet(fd);
        }
        match -result {
            libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => Accepted::Nothing,
            errno => {
                if !more {
                    self.state = State::Paused(now() + ACCEPT_PAUSE);
                }
                Accepted::Failed(errno)
            }
        }
    }
}

/// An accepted socket, and where it comes from. Options are inherited from the listener.
fn greet(fd: OwnedFd) -> Accepted {
    let socket = SockRef::from(&fd);
    let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
    // It fails only if the connection is gone already.
    peer.map_or(Accepted::Nothing, |address| {
        // A dual-stack listener shows 1.2.3.4 as ::ffff:1.2.3.4.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Accepted::Socket(fd, address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_descriptors_accepting_rests_and_the_wait_is_bounded() {
        let mut acceptor = Acceptor { state: State::Armed, ..Acceptor::new(None) };
        assert_eq!(acceptor.wait(Instant(5)), Wait::Forever);
        assert!(matches!(
            acceptor.completed(-libc::EMFILE, false, || Instant(5)),
            Accepted::Failed(libc::EMFILE)
        ));
        assert!(!acceptor.is_armed());
        assert_eq!(acceptor.wait(Instant(5)), Wait::AtMost(ACCEPT_PAUSE));
        assert_eq!(acceptor.wait(Instant(6) + ACCEPT_PAUSE), Wait::AtMost(Span::ZERO));
    }

    #[test]
    fn what_passes_by_itself_needs_no_rest() {
        for errno in [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR] {
            let mut acceptor = Acceptor { state: State::Armed, ..Acceptor::new(None) };
            let never = || -> Instant { panic!("no rest") };
            assert!(matches!(acceptor.completed(-errno, true, never), Accepted::Nothing));
            assert!(acceptor.is_armed());
            assert!(matches!(acceptor.completed(-errno, false, never), Accepted::Nothing));
            assert_eq!(acceptor.state, State::Idle);
        }
    }
}
