//! Listeners and the limit on descriptors.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::base::limits::SEND_UNSENT_BYTES;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that the kernel holds for us until they are accepted. It silently uses less where
/// the sysctl net.core.somaxconn is lower (4096 by default).
pub const LISTEN_BACKLOG: i32 = 4096;

/// There is no listener, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there, perhaps another node of ours.
    #[error(
        "{0} is in use already, perhaps by another troc; stop that one, or give --listen another port \
         (`ss -ltnp` names the user)"
    )]
    InUse(SocketAddr),
    /// Ports below 1024.
    #[error("not allowed to listen on {0}: use a port from 1024 up, or grant CAP_NET_BIND_SERVICE")]
    NotAllowed(SocketAddr),
    /// The host does not have the address.
    #[error("{0} is no address of this host; `ip addr` lists them, 0.0.0.0 or [::] means all")]
    NotHere(SocketAddr),
    /// EMFILE or ENFILE.
    #[error("no file descriptor left to listen on {0}: raise `ulimit -n`, or LimitNOFILE in the unit")]
    Files(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {error}; give --listen another address")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// One listener per core on one address, among which the kernel spreads new connections. Port 0
/// lets the kernel choose; ask the first listener which it was.
///
/// With `SO_REUSEPORT` alone a second node of the same user would silently share the port. So the
/// address is first bound without it, which fails if anybody listens there. Between the closing of
/// that probe and the first real bind somebody else may take the port: one without `SO_REUSEPORT`
/// makes ours fail as it should; only two nodes started within the same microseconds can get past
/// each other, because the kernel has no way to turn an exclusive socket into a shared one.
pub fn listen(address: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, ListenError> {
    let explained = |error| explain(address, error);
    drop(bind(address, Sharing::Exclusive).map_err(explained)?);
    let first = bind(address, Sharing::BetweenCores).map_err(explained)?;
    let chosen = first.local_addr().map_err(explained)?.as_socket().unwrap_or(address);
    let mut listeners = vec![start(first).map_err(explained)?];
    while listeners.len() < cores {
        let next = bind(chosen, Sharing::BetweenCores).and_then(start).map_err(explained)?;
        listeners.push(next);
    }
    Ok(listeners)
}

/// Raises the soft limit on descriptors as far as the hard one allows; returns both as they are
/// now. `u64::MAX` means no limit.
pub fn raise_nofile() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    // Cannot fail: a process may always raise its soft limit up to the hard one. If it did, the
    // limit read below is the truth.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    BetweenCores,
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // [::] means every address, IPv4 too.
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::BetweenCores {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn start(socket: Socket) -> io::Result<TcpListener> {
    // What is accepted inherits it: no calls for each connection.
    tune(&socket)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// How all our connections are set up.
pub(super) fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(SEND_UNSENT_BYTES)
}

fn explain(address: SocketAddr, error: io::Error) -> ListenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::InUse(address),
        Some(libc::EACCES | libc::EPERM) => ListenError::NotAllowed(address),
        Some(libc::EADDRNOTAVAIL) => ListenError::NotHere(address),
        Some(libc::EMFILE | libc::ENFILE) => ListenError::Files(address),
        _ => ListenError::Other { address, error },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn all_cores_share_the_port_that_the_kernel_chose() {
        let listeners = listen(LOOPBACK, 3).unwrap();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert!(ports.len() == 3 && ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn a_second_node_on_the_same_port_fails_and_is_told_why() {
        let listeners = listen(LOOPBACK, 2).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let error = listen(address, 2).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error:?}");
        assert!(error.to_string().contains(&address.port().to_string()), "{error}");
        drop(listeners);
        assert!(listen(address, 1).is_ok());
    }

    #[test]
    fn every_address_of_ipv6_includes_ipv4() {
        let Ok(listeners) = listen("[::]:0".parse().unwrap(), 1) else {
            // A host without IPv6.
            return;
        };
        let port = listeners[0].local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_, peer) = listeners[0].accept().unwrap();
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
    }

    #[test]
    fn each_refusal_is_one_line_that_names_the_address() {
        for errno in [libc::EADDRINUSE, libc::EACCES, libc::EADDRNOTAVAIL, libc::EMFILE, libc::EIO] {
            let text = explain(LOOPBACK, io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains("127.0.0.1:0") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_strange_address_is_refused() {
        // TEST-NET-1 (RFC 5737): no host has it.
        let error = listen("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, ListenError::NotHere(_)), "{error:?}");
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let (soft, hard) = raise_nofile();
        assert_eq!(soft, hard);
    }
}
