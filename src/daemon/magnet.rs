//! One connection that is made to find the metadata of a magnet link (BEP 9), and its piece layers (BEP 52),
//! on the control thread: there is no torrent yet that a worker could speak about. Either side may have
//! opened it. It asks for what it is told to ask for and tells what comes; `engine::metadata_fetch` and
//! `engine::layers_fetch` decide.

mod line;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, channel};

use crate::base::ids::{InfoHash, PeerId, TorrentId};
use crate::base::limits::{HANDSHAKE_TIMEOUT, METADATA_CALLERS_QUEUED_MAX, METADATA_OTHER_BYTES_MAX};
use crate::daemon::clock;
use crate::daemon::random::random;
use crate::engine::action::Farewell;
use crate::engine::encryption::Manner;
use crate::hash::merkle::Hash;
use crate::io::uring::{Uring, UringSocket};
use crate::proto::mse::Methods;
use crate::proto::wire::WireError;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::hashes::HashRequest;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA, next_message};
use crate::proto::wire::peer_id::peer_id;
use crate::worker::Seeker;
use crate::worker::mesh::Caller;

use line::Line;

/// What a connection tells.
#[derive(Debug)]
pub enum Said {
    /// The peer speaks the extension protocol: length of its metadata, if it has any.
    Ready(Option<u32>),
    /// A piece of it, in answer to a request.
    Data {
        /// Which.
        piece: u32,
        /// Length of all, by this message.
        total_bytes: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// It will not give this piece.
    Reject(u32),
    /// Hashes, in answer to a request by its own word.
    Hashes(HashRequest, Vec<Hash>),
    /// It will not give these hashes.
    HashReject(HashRequest),
    /// The connection ended, or was never made. Nothing comes after it.
    Gone(Farewell),
}

/// What a peer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A piece of the info dictionary.
    Piece(u32),
    /// Hashes of a piece layer.
    Hashes(HashRequest),
}

/// How a connection begins.
#[derive(Debug)]
pub enum Opening {
    /// We dial, like this, and an encrypted handshake may come to that.
    Dial(SocketAddr, (Manner, Methods)),
    /// A peer came. What was heard of it begins with its handshake.
    Called(Caller<UringSocket>),
}

/// What is said first.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The torrent, in our handshake.
    pub info_hash: InfoHash,
    /// In theirs.
    pub their_hash: InfoHash,
    /// Our name.
    pub peer_id: PeerId,
    /// The port on which we take connections.
    pub port: Option<u16>,
}

impl Call {
    /// By a name of its own and without a port, for who may be connected to the peer already, or was until
    /// now and it has yet to see that: by our name it would take us for there twice, and close this one.
    pub fn once_more(info_hash: InfoHash) -> io::Result<Self> {
        let peer_id = peer_id(random()?);
        Ok(Self { info_hash, their_hash: info_hash, peer_id, port: None })
    }
}

/// A connection that a peer opened, and for which torrent.
pub type Called = (TorrentId, Caller<UringSocket>);

/// Where cores give connections that peers opened, and where they are taken. Who comes while too many wait
/// is hung up on.
pub fn callers() -> (Seeker<Uring>, Receiver<Called>) {
    let (give, take) = channel(METADATA_CALLERS_QUEUED_MAX);
    (Arc::new(move |torrent, caller| drop(give.try_send((torrent, caller)))), take)
}

/// Speaks with a peer until it has enough, or whoever asks has, who then drops the other end of `requests`.
pub async fn converse(
    opening: Opening,
    call: Call,
    requests: UnboundedReceiver<Ask>,
    mut say: impl FnMut(Said),
) {
    let opened = match opening {
        Opening::Dial(address, manner) => Line::open(address, call.info_hash, manner).await,
        Opening::Called(Caller { socket, heard, .. }) => {
            Line::adopt(socket).map(|line| (line, BytesMut::from(&heard[..])))
        }
    };
    let why = match opened {
        Ok((line, heard)) => {
            let talk = Talk { line, heard, id: None, outstanding: 0, other_bytes: 0, say: &mut say };
            talk.run(call, requests).await
        }
        Err(why) => why,
    };
    say(Said::Gone(why));
}

async fn timeout<T>(work: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(clock::duration(HANDSHAKE_TIMEOUT), work).await
}

/// A connection. Invariant: no more answers are told than were asked for.
struct Talk<'a> {
    line: Line,
    heard: BytesMut,
    /// Under which the peer wants messages of `ut_metadata`.
    id: Option<u8>,
    /// Requests that are not answered.
    outstanding: usize,
    /// Of messages that say nothing to us.
    other_bytes: u64,
    say: &'a mut dyn FnMut(Said),
}

impl Talk<'_> {
    async fn run(mut self, call: Call, mut requests: UnboundedReceiver<Ask>) -> Farewell {
        match timeout(self.greet(call)).await {
            Err(_) => return Farewell::TimedOut,
            Ok(Err(why)) => return why,
            Ok(Ok(())) => {}
        }
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(ask) = request else { return Farewell::Gone };
                    match timeout(self.request(ask)).await {
                        Err(_) => return Farewell::TimedOut,
                        Ok(Err(why)) => return why,
                        Ok(Ok(())) => {}
                    }
                }
                heard = self.line.read(&mut self.heard) => {
                    if let Err(why) = heard.and_then(|()| self.take_messages()) {
                        return why;
                    }
                }
            }
        }
    }

    /// Both handshakes, theirs and ours.
    async fn greet(&mut self, call: Call) -> Result<(), Farewell> {
        // Without the fast extension nothing has to be said of pieces, which nobody knows yet. And nothing
        // else is said before the answer: aria2 takes what comes with a handshake for a broken one.
        let ours = Handshake::new(call.info_hash, call.peer_id).with_extension();
        self.line.write(ours.encode().to_vec()).await?;
        let theirs = loop {
            if let Some(theirs) = Handshake::parse(&self.heard).map_err(broken)? {
                break theirs;
            }
            self.line.read(&mut self.heard).await?;
        };
        self.heard.advance(HANDSHAKE_BYTES);
        if theirs.info_hash != call.their_hash || theirs.peer_id == call.peer_id || !theirs.has_extension() {
            return Err(Farewell::Useless);
        }
        self.line.write(our_extensions(call.port)).await?;
        while self.id.is_none() {
            self.take_messages()?;
            if self.id.is_none() {
                self.line.read(&mut self.heard).await?;
            }
        }
        Ok(())
    }

    async fn request(&mut self, ask: Ask) -> Result<(), Farewell> {
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        match ask {
            Ask::Piece(piece) => {
                MetadataMessage::Request(piece).encode(&mut payload);
                Message::Extended { id: self.id.unwrap_or(0), payload: &payload }.encode(&mut out);
            }
            Ask::Hashes(request) => Message::HashRequest(request).encode(&mut out),
        }
        self.outstanding += 1;
        self.line.write(out).await
    }

    /// All whole messages that were heard.
    fn take_messages(&mut self) -> Result<(), Farewell> {
        // Taken out while it is gone through: what is left of it stays where it is.
        let mut heard = std::mem::take(&mut self.heard);
        while let Some((message, used)) = next_message(&heard).map_err(broken)? {
            let news = self.take(message).map_err(broken)?;
            if !news {
                self.other_bytes += used as u64;
            }
            if self.other_bytes > METADATA_OTHER_BYTES_MAX {
                return Err(Farewell::Misbehaved);
            }
            heard.advance(used);
        }
        self.heard = heard;
        Ok(())
    }

    /// Whether the message says something to us.
    fn take(&mut self, message: Message<'_>) -> Result<bool, WireError> {
        let (id, payload) = match message {
            Message::Extended { id, payload } => (id, payload),
            Message::Hashes { request, hashes } if self.outstanding > 0 => {
                return Ok(self.answered(Said::Hashes(request, hashes.to_vec())));
            }
            Message::HashReject(request) if self.outstanding > 0 => {
                return Ok(self.answered(Said::HashReject(request)));
            }
            _ => return Ok(false),
        };
        match id {
            EXTENSION_HANDSHAKE_ID => {
                let theirs = ExtensionHandshake::parse(payload)?;
                let first = self.id.is_none();
                if first {
                    self.id = Some(theirs.messages.ut_metadata.unwrap_or(0));
                    let size = theirs.messages.ut_metadata.and(theirs.metadata_size);
                    (self.say)(Said::Ready(size));
                }
                Ok(first)
            }
            UT_METADATA => match MetadataMessage::parse(payload)? {
                Some(answer) if self.outstanding > 0 => Ok(self.take_answer(answer)),
                _ => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn take_answer(&mut self, answer: MetadataMessage<'_>) -> bool {
        let said = match answer {
            // Who asks us is told nothing: we have none either.
            MetadataMessage::Request(_) => return false,
            MetadataMessage::Reject(piece) => Said::Reject(piece),
            MetadataMessage::Data { piece, total_bytes, bytes } => {
                Said::Data { piece, total_bytes, bytes: bytes.to_vec() }
            }
        };
        self.answered(said)
    }

    fn answered(&mut self, said: Said) -> bool {
        self.outstanding -= 1;
        (self.say)(said);
        true
    }
}

/// Our extension handshake (BEP 10).
fn our_extensions(port: Option<u16>) -> Vec<u8> {
    let ours = ExtensionHandshake {
        messages: ExtensionIds { ut_metadata: Some(UT_METADATA), ..ExtensionIds::default() },
        version: Some(concat!("troc ", env!("CARGO_PKG_VERSION")).to_owned()),
        port,
        ..ExtensionHandshake::default()
    };
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    ours.encode(&mut payload);
    Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &payload }.encode(&mut out);
    out
}

fn broken(_: WireError) -> Farewell {
    Farewell::Misbehaved
}

#[cfg(test)]
mod tests;
