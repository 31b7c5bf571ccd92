//! The synthetic source: one payload, from memory, to whoever asks.

mod connection;

use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::epoll;
use socket2::{Domain, Socket, Type};

use self::connection::{Connection, Content};
use super::BenchError;
use super::leech::wait;
use super::payload::Payload;
use crate::base::limits::BENCH_CONNECTIONS_MAX;
use crate::proto::metainfo::Metainfo;

const EVENTS_MAX: usize = 256;
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;

/// See the module.
pub struct Source<'a> {
    epoll: rustix::fd::OwnedFd,
    listener: Socket,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    content: Content<'a>,
    events: Vec<epoll::Event>,
}

impl<'a> Source<'a> {
    /// Starts to listen.
    pub fn bind(addr: SocketAddr, metainfo: &'a Metainfo, payload: &'a Payload) -> Result<Self, BenchError> {
        let failed = |error| BenchError::io(&format!("{addr}: cannot listen"), error);
        let listener = Socket::new(Domain::for_address(addr), Type::STREAM, None).map_err(failed)?;
        listener.set_reuse_address(true).map_err(failed)?;
        listener.bind(&addr.into()).map_err(failed)?;
        listener.listen(BACKLOG).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| BenchError::io("epoll", error))?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
            .map_err(|error| BenchError::io("epoll", error))?;
        Ok(Self {
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            content: Content::new(metainfo, payload),
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Where fetchers find it.
    pub fn local_addr(&self) -> Result<SocketAddr, BenchError> {
        let addr = self.listener.local_addr().map_err(|error| BenchError::io("the listener", error))?;
        addr.as_socket().ok_or_else(|| BenchError::Failed("the listener has no IP address".to_owned()))
    }

    /// Waits for readiness, at most `timeout`, and serves it.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), BenchError> {
        let mut events = std::mem::take(&mut self.events);
        wait(&self.epoll, &mut events, timeout)?;
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => self.accept(),
                index => self.serve(index as usize),
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept(&mut self) {
        // An error means that nobody waits, or that the one who waited has gone.
        while let Ok((socket, _)) = self.listener.accept() {
            let index = self.free.pop().unwrap_or(self.connections.len());
            if index >= BENCH_CONNECTIONS_MAX as usize || !self.watch(&socket, index) {
                self.free.push(index);
                return;
            }
            if index == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[index] = Some(Connection::new(socket));
        }
    }

    fn watch(&self, socket: &Socket, index: usize) -> bool {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        socket.set_nonblocking(true).is_ok()
            && socket.set_tcp_nodelay(true).is_ok()
            && epoll::add(&self.epoll, socket, epoll::EventData::new_u64(index as u64), flags).is_ok()
    }

    fn serve(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        if connection.pump(&self.content).is_err() {
            // Dropping the socket takes it out of the epoll set.
            self.connections[index] = None;
            self.free.push(index);
        }
    }
}
