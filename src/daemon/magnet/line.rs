//! The bytes of a connection that the control thread has itself: plain, or with an encrypted handshake (MSE)
//! before, as the policy says. One that a peer opened comes from a core and is plain here.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::timeout;
use crate::base::ids::InfoHash;
use crate::daemon::mse;
use crate::engine::action::Farewell;
use crate::engine::encryption::Manner;
use crate::io::uring::UringSocket;
use crate::proto::mse::{Cipher, Handshaker, Method, Methods};
use crate::proto::wire::metadata::METADATA_PIECE_BYTES;

/// What is read at a time, at least.
const READ_BYTES: usize = METADATA_PIECE_BYTES as usize;

/// A connection.
pub(super) struct Line {
    /// Of who came under RC4 it is one of a pair of Unix sockets, which is read and written alike.
    stream: TcpStream,
    /// For what we send and for what we receive, under RC4.
    ciphers: Option<(Cipher, Cipher)>,
}

impl Line {
    /// Connects to a peer. With it comes what the peer has said already.
    pub(super) async fn open(
        address: SocketAddr,
        name: InfoHash,
        (manner, methods): (Manner, Methods),
    ) -> Result<(Self, BytesMut), Farewell> {
        let connected = timeout(TcpStream::connect(address)).await;
        let mut stream = connected.ok().and_then(Result::ok).ok_or(Farewell::DialFailed)?;
        if manner == Manner::Plain {
            return Ok((Self { stream, ciphers: None }, BytesMut::new()));
        }
        let entropy = mse::entropy().map_err(|_| Farewell::DialFailed)?;
        let handshaker = Handshaker::begin(name, methods, Vec::new(), entropy);
        // Who is asked names no torrent.
        let shaken = timeout(mse::shake(&mut stream, handshaker, Vec::new(), |_| None)).await;
        let established = shaken.map_err(|_| Farewell::TimedOut)?.ok_or(Farewell::Gone)?;
        let ciphers = match established.method {
            Method::Plain => None,
            Method::Rc4 => Some((established.sealing, established.opening)),
        };
        Ok((Self { stream, ciphers }, BytesMut::from(&established.heard[..])))
    }

    /// Takes over a connection that a peer opened, on which nothing was sent.
    pub(super) fn adopt(socket: UringSocket) -> Result<Self, Farewell> {
        let stream = mse::adopt(socket).map_err(|_| Farewell::Gone)?;
        Ok(Self { stream, ciphers: None })
    }

    /// Sends all of `bytes`.
    pub(super) async fn write(&mut self, mut bytes: Vec<u8>) -> Result<(), Farewell> {
        if let Some((sealing, _)) = &mut self.ciphers {
            sealing.apply(&mut bytes);
        }
        self.stream.write_all(&bytes).await.map_err(|_| Farewell::Gone)
    }

    /// Reads what is there, once something is. May be dropped at any time.
    pub(super) async fn read(&mut self, heard: &mut BytesMut) -> Result<(), Farewell> {
        heard.reserve(READ_BYTES);
        let before = heard.len();
        match self.stream.read_buf(heard).await {
            Ok(0) | Err(_) => return Err(Farewell::Gone),
            Ok(_) => {}
        }
        if let Some((_, opening)) = &mut self.ciphers {
            opening.apply(&mut heard[before..]);
        }
        Ok(())
    }
}
