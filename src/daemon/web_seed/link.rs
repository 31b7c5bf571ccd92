//! One connection between a core and a web seed: peer wire on one side, HTTP on the other. What is asked
//! for when is decided by [`Feed`]; bytes of a body go on as they come, behind the headers of their blocks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Seed;
use super::fault::Fault;
use super::http::{Body, Client, Session};
use crate::base::ids::PeerId;
use crate::base::limits::KEEPALIVE_INTERVAL;
use crate::daemon::clock;
use crate::engine::web_seed::answer::Ask;
use crate::engine::web_seed::feed::{BadRequest, Feed, Part};
use crate::engine::web_seed::source::End;
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame};
use crate::storage::layout::FileIndex;

/// What a core calls the other end.
const NAME: PeerId = PeerId(*b"-WS0000-the-web-seed");

/// Room for what a core says at once: all its requests and cancels.
const INBOX_BYTES: usize = 32 << 10;

/// Parts of a message that are given to the kernel at once.
const SLICES_MAX: usize = 64;

/// Bytes of padding that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Why a connection ended: how that counts, and what to say of it.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) fault: Option<Fault>,
}

struct Link<'a> {
    seed: &'a Seed,
    stream: &'a UnixStream,
    feed: RefCell<Feed>,
    asked: Notify,
}

/// Serves a core until it leaves, or the web seed fails it. `stream` is our end.
pub(super) async fn serve(seed: &Seed, stream: UnixStream, client: Rc<Client>) -> Ended {
    let feed = RefCell::new(Feed::new(seed.shared.meta.geometry));
    let link = Link { seed, stream: &stream, feed, asked: Notify::new() };
    let session = Session::new(client, seed.named_by);
    tokio::select! {
        ended = link.listen() => ended,
        ended = link.give(session) => ended,
    }
}

impl Link<'_> {
    /// Takes requests in.
    async fn listen(&self) -> Ended {
        let left = || Ended { end: End::Left, fault: None };
        let (mut inbox, mut filled, mut shaken) = (vec![0; INBOX_BYTES], 0, false);
        loop {
            if self.stream.readable().await.is_err() {
                return left();
            }
            match self.stream.try_read(&mut inbox[filled..]) {
                Ok(bytes @ 1..) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => return left(),
            }
            let mut used = 0;
            if !shaken && filled >= HANDSHAKE_BYTES {
                (shaken, used) = (true, HANDSHAKE_BYTES);
            }
            if shaken {
                match self.hear(&inbox[used..filled]) {
                    Ok(bytes) => used += bytes,
                    Err(error) => return Ended { end: End::Failed, fault: Some(Fault::Core(error)) },
                }
                self.asked.notify_one();
            }
            inbox.copy_within(used..filled, 0);
            filled -= used;
        }
    }

    /// Goes through whole messages; how many bytes they have.
    fn hear(&self, bytes: &[u8]) -> Result<usize, BadRequest> {
        let mut used = 0;
        while let Some((frame, step)) = next_frame(&bytes[used..], 0).map_err(|_| BadRequest)? {
            let Frame::Message(message) = frame else { return Err(BadRequest) };
            self.feed.borrow_mut().handle_message(message)?;
            used += step;
        }
        Ok(used)
    }

    /// Gives what is asked for.
    async fn give(&self, mut session: Session) -> Ended {
        let left = |_: io::Error| Ended { end: End::Left, fault: None };
        if let Err(error) = self.greet().await {
            return left(error);
        }
        loop {
            let part = match self.next_part().await {
                Ok(part) => part,
                Err(error) => return left(error),
            };
            let Some(file) = part.file else {
                match self.pad(part.len as usize).await {
                    Ok(()) => continue,
                    Err(error) => return left(error),
                }
            };
            match self.fetch(&mut session, file, part).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return left(error),
                Err(fault) => return Ended { end: fault.end(file), fault: Some(fault) },
            }
        }
    }

    async fn greet(&self) -> io::Result<()> {
        let meta = &self.seed.shared.meta;
        let bits = self.seed.source.borrow().bits(meta.geometry, &self.seed.layout);
        let mut hello = Handshake::new(meta.info_hash, NAME).with_fast().encode().to_vec();
        match bits.is_full() {
            true => Message::HaveAll.encode(&mut hello),
            false => Message::Bitfield(bits.as_bytes()).encode(&mut hello),
        }
        Message::Unchoke.encode(&mut hello);
        self.write(VecDeque::from([Bytes::from(hello)])).await
    }

    /// Waits for something to fetch.
    async fn next_part(&self) -> io::Result<Part> {
        loop {
            if let Some(part) = self.feed.borrow_mut().poll_part(&self.seed.layout) {
                return Ok(part);
            }
            if timeout(clock::duration(KEEPALIVE_INTERVAL), self.asked.notified()).await.is_err() {
                self.write(VecDeque::from([Bytes::from_static(&[0; 4])])).await?;
            }
        }
    }

    /// Fetches one part and passes it on. The outer error is the web seed's, the inner one the core's.
    async fn fetch(
        &self,
        session: &mut Session,
        file: FileIndex,
        part: Part,
    ) -> Result<io::Result<()>, Fault> {
        let url = self.seed.url_of(file)?;
        let file_len = self.seed.layout.file_len(file);
        let ask = Ask { offset: part.offset, len: part.len, file_len };
        let mut body: Body = session.fetch(file, &url, ask).await?;
        while let Some(data) = body.next().await? {
            self.seed.gives();
            if let Err(error) = self.pass_on(data).await {
                return Ok(Err(error));
            }
            if self.feed.borrow().is_vain() {
                self.feed.borrow_mut().abandon();
                session.abandon();
                return Ok(Ok(()));
            }
        }
        session.finish(body).await;
        Ok(Ok(()))
    }

    async fn pad(&self, mut bytes: usize) -> io::Result<()> {
        while bytes > 0 {
            let step = bytes.min(ZEROS.len());
            self.pass_on(Bytes::from_static(&ZEROS[..step])).await?;
            bytes -= step;
        }
        Ok(())
    }

    /// Bytes of the part that is fetched go to the core, those of them that it still wants.
    async fn pass_on(&self, mut data: Bytes) -> io::Result<()> {
        let mut out = VecDeque::new();
        while !data.is_empty() {
            let cut = self.feed.borrow_mut().cut(data.len());
            out.extend(cut.header.map(|header| Bytes::copy_from_slice(&header)));
            let bytes = data.split_to(cut.len);
            if cut.wanted {
                out.push_back(bytes);
            }
        }
        self.write(out).await
    }

    async fn write(&self, mut out: VecDeque<Bytes>) -> io::Result<()> {
        while !out.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                out.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
            let mut sent = match self.stream.try_write_vectored(&slices) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            while let Some(front) = out.front_mut().filter(|front| sent > 0 || front.is_empty()) {
                let step = sent.min(front.len());
                front.advance(step);
                sent -= step;
                if front.is_empty() {
                    out.pop_front();
                }
            }
        }
        Ok(())
    }
}
