//! The handshake of message stream encryption (MSE/PE), as both sides speak it: sans-io.
//!
//! It hides what a connection carries from who looks at it on the way, no more: there is nothing by which the
//! other side is known, and RC4 is broken. Peers on networks that hinder BitTorrent speak nothing else, so it
//! is worth speaking. After the handshake the stream is plain, or goes on under RC4, as both agree.
//!
//! ```text
//! A -> B   Ya, up to 512 bytes of padding
//! B -> A   Yb, up to 512 bytes of padding
//! A -> B   H("req1", S), H("req2", SKEY) ^ H("req3", S), then under RC4:
//!          8 zeros, methods offered, padding, what A says first
//! B -> A   under RC4: 8 zeros, method chosen, padding
//! ```
//!
//! `S` is the shared secret of a Diffie-Hellman exchange modulo a prime of 768 bits, `SKEY` the info
//! hash: who does not know it cannot go on. Randomness is an argument, deadlines are the driver's.

use num_bigint::BigUint;
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

use crate::base::ids::InfoHash;
use crate::base::limits::{MSE_INITIAL_BYTES_MAX, MSE_PAD_BYTES_MAX};

/// Length of a public key and of the shared secret.
const KEY_BYTES: usize = 96;

/// Length of a private key.
const PRIVATE_BYTES: usize = 20;

/// The first bytes of what RC4 gives are known to leak the key.
const DISCARDED_BYTES: usize = 1024;

/// By eight zeros each side finds where the encrypted part begins.
const ZEROS: [u8; 8] = [0; 8];

/// The prime of the exchange, and what is raised to a power modulo it.
const PRIME: [u8; KEY_BYTES] = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xc9\x0f\xda\xa2\x21\x68\xc2\x34\
\xc4\xc6\x62\x8b\x80\xdc\x1c\xd1\x29\x02\x4e\x08\x8a\x67\xcc\x74\x02\x0b\xbe\xa6\x3b\x13\x9b\x22\
\x51\x4a\x08\x79\x8e\x34\x04\xdd\xef\x95\x19\xb3\xcd\x3a\x43\x1b\x30\x2b\x0a\x6d\xf2\x5f\x14\x37\
\x4f\xe1\x35\x6d\x6d\x51\xc2\x45\xe4\x85\xb5\x76\x62\x5e\x7e\xc6\xf4\x4c\x42\xe9\xa6\x3a\x36\x21\
\x00\x00\x00\x00\x00\x09\x05\x63";
const GENERATOR: u32 = 2;

/// What the stream is after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it would be without: only the handshake was hidden.
    Plain,
    /// RC4 in both directions, to the end.
    Rc4,
}

/// Which methods one side takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// RC4 alone.
    OnlyRc4,
    /// Both. Who is asked chooses plain, which costs nothing.
    Both,
}

/// Random bytes of one handshake.
#[derive(Clone, Debug)]
pub struct Entropy {
    /// The private key.
    pub private: [u8; PRIVATE_BYTES],
    /// Padding behind the public key; what is beyond `MSE_PAD_BYTES_MAX` is left out.
    pub pad: Vec<u8>,
}

/// Why a handshake ends: the other side's fault, or it speaks something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MseError {
    /// A public key that makes the shared secret known to everybody.
    #[error("sent a public key that is no key")]
    WeakKey,
    /// What should follow the padding did not come.
    #[error("sent something else than an encrypted handshake")]
    NoSync,
    /// It asked for a torrent that is not here.
    #[error("asked for a torrent that is not here")]
    UnknownTorrent,
    /// Padding or first words beyond the limit.
    #[error("sent more padding or first words than is allowed")]
    TooLong,
    /// No method that both take.
    #[error("offered or chose no method that we take")]
    NoMethod,
}

/// What both sides agreed on.
pub struct Established {
    /// The torrent that it is about.
    pub info_hash: InfoHash,
    /// What the stream is from here on.
    pub method: Method,
    /// What the other side has said so far, decrypted.
    pub heard: Vec<u8>,
    /// For what we send from here on, under RC4.
    pub sealing: Cipher,
    /// For what we receive from here on, under RC4.
    pub opening: Cipher,
}

/// RC4 of one direction.
pub struct Cipher(Rc4);

impl Cipher {
    /// Of the side that began (`keyA`) or of the other one (`keyB`).
    fn new(label: &[u8; 4], secret: &[u8; KEY_BYTES], info_hash: &InfoHash) -> Self {
        let key = digest(&[label, secret, &info_hash.0]);
        let mut cipher = Self(Rc4::new_from_slice(&key).expect("20 bytes are a key"));
        cipher.apply(&mut [0; DISCARDED_BYTES]);
        cipher
    }

    /// Encrypts or decrypts the next bytes of the stream, in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

/// By this the side that begins names the torrent, without naming it to who only looks on.
pub fn torrent_tag(info_hash: &InfoHash) -> [u8; 20] {
    digest(&[b"req2", &info_hash.0])
}

/// Where a handshake is.
enum Stage {
    /// The other side's public key is to come.
    AwaitsKey,
    /// We began; the eight zeros and the chosen method are to come.
    AwaitsChoice(Box<[u8; KEY_BYTES]>),
    /// They began; what names the torrent, and the offer, are to come.
    AwaitsOffer(Box<[u8; KEY_BYTES]>),
    /// It has ended, well or not.
    Over,
}

/// What the side that begins wants.
struct Aim {
    info_hash: InfoHash,
    first: Vec<u8>,
}

/// One side of a handshake.
pub struct Handshaker {
    stage: Stage,
    methods: Methods,
    /// Of the side that began.
    aim: Option<Aim>,
    entropy: Entropy,
    /// Bytes that came and are not used yet.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Handshaker {
    /// Begins a handshake for `info_hash`; `first`, at most `MSE_INITIAL_BYTES_MAX`, is said with it: our own
    /// BitTorrent handshake.
    pub fn begin(info_hash: InfoHash, methods: Methods, first: Vec<u8>, entropy: Entropy) -> Self {
        assert!(first.len() <= MSE_INITIAL_BYTES_MAX);
        let mut this = Self::new(methods, Some(Aim { info_hash, first }), entropy);
        this.say_key();
        this
    }

    /// Waits for a handshake of somebody who connected to us.
    pub const fn accept(methods: Methods, entropy: Entropy) -> Self {
        Self::new(methods, None, entropy)
    }

    const fn new(methods: Methods, aim: Option<Aim>, entropy: Entropy) -> Self {
        Self { stage: Stage::AwaitsKey, methods, aim, entropy, inbox: Vec::new(), outbox: Vec::new() }
    }

    /// What is to be sent, if anything; after the end, too.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        (!self.outbox.is_empty()).then(|| std::mem::take(&mut self.outbox))
    }

    /// Bytes came. `find` knows torrents by their [`torrent_tag`]. `None` while more must come. After an
    /// error or the end nothing more is to be handed in.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        find: impl Fn(&[u8; 20]) -> Option<InfoHash>,
    ) -> Result<Option<Established>, MseError> {
        self.inbox.extend_from_slice(bytes);
        if matches!(self.stage, Stage::AwaitsKey) && !self.take_key()? {
            return Ok(None);
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let done = match &stage {
            Stage::AwaitsChoice(secret) => self.take_choice(secret)?,
            Stage::AwaitsOffer(secret) => self.take_offer(secret, find)?,
            Stage::AwaitsKey | Stage::Over => None,
        };
        if done.is_none() {
            self.stage = stage;
        }
        Ok(done)
    }

    /// Our public key, and padding.
    fn say_key(&mut self) {
        let private = BigUint::from_bytes_be(&self.entropy.private);
        let public = BigUint::from(GENERATOR).modpow(&private, &BigUint::from_bytes_be(&PRIME));
        self.outbox.extend_from_slice(&key_bytes(&public));
        let pad = &self.entropy.pad;
        self.outbox.extend_from_slice(&pad[..pad.len().min(MSE_PAD_BYTES_MAX)]);
    }

    /// Takes the other side's public key and answers; false if it has not come yet.
    fn take_key(&mut self) -> Result<bool, MseError> {
        let Some(key) = self.inbox.first_chunk::<KEY_BYTES>() else { return Ok(false) };
        let secret = Box::new(shared_secret(key, &self.entropy.private)?);
        self.inbox.drain(..KEY_BYTES);
        self.stage = match &self.aim {
            Some(aim) => {
                let offer = offer(aim, self.methods, &secret);
                self.outbox.extend_from_slice(&offer);
                Stage::AwaitsChoice(secret)
            }
            None => {
                self.say_key();
                Stage::AwaitsOffer(secret)
            }
        };
        Ok(true)
    }

    /// We began: looks for the eight zeros behind the padding, then for the method.
    fn take_choice(&mut self, secret: &[u8; KEY_BYTES]) -> Result<Option<Established>, MseError> {
        let Some(aim) = &self.aim else { return Ok(None) };
        let info_hash = aim.info_hash;
        let mut opening = Cipher::new(b"keyB", secret, &info_hash);
        let mut zeros = ZEROS;
        opening.apply(&mut zeros);
        let Some(at) = find_behind_pad(&self.inbox, &zeros)? else { return Ok(None) };
        let mut fields = Sealed { rest: &self.inbox[at + zeros.len()..], cipher: &mut opening };
        let Some([chosen, pad_bytes]) = fields.take_choice() else { return Ok(None) };
        if fields.take_pad(pad_bytes)?.is_none() {
            return Ok(None);
        }
        let method = match chosen {
            PLAIN if self.methods == Methods::Both => Method::Plain,
            RC4 => Method::Rc4,
            _ => return Err(MseError::NoMethod),
        };
        let mut heard = fields.rest.to_vec();
        if method == Method::Rc4 {
            opening.apply(&mut heard);
        }
        let mut sealing = Cipher::new(b"keyA", secret, &info_hash);
        // What was said under it so far is passed over.
        sealing.apply(&mut vec![0; OFFER_BYTES + aim.first.len()]);
        Ok(Some(Established { info_hash, method, heard, sealing, opening }))
    }

    /// They began: looks for what names the torrent, then for the offer, and chooses.
    fn take_offer(
        &mut self,
        secret: &[u8; KEY_BYTES],
        find: impl Fn(&[u8; 20]) -> Option<InfoHash>,
    ) -> Result<Option<Established>, MseError> {
        let mark = digest(&[b"req1", secret]);
        let Some(at) = find_behind_pad(&self.inbox, &mark)? else { return Ok(None) };
        let rest = &self.inbox[at + mark.len()..];
        let Some((tag, rest)) = rest.split_first_chunk::<20>() else { return Ok(None) };
        let mask = digest(&[b"req3", secret]);
        let tag = std::array::from_fn(|index| tag[index] ^ mask[index]);
        let info_hash = find(&tag).ok_or(MseError::UnknownTorrent)?;
        let mut opening = Cipher::new(b"keyA", secret, &info_hash);
        let mut fields = Sealed { rest, cipher: &mut opening };
        let Some(zeros) = fields.take::<8>() else { return Ok(None) };
        if zeros != ZEROS {
            return Err(MseError::NoSync);
        }
        let Some([offered, pad_bytes]) = fields.take_choice() else { return Ok(None) };
        if fields.take_pad(pad_bytes)?.is_none() {
            return Ok(None);
        }
        let Some(first_bytes) = fields.take::<2>() else { return Ok(None) };
        let first_bytes = usize::from(u16::from_be_bytes(first_bytes));
        if first_bytes > MSE_INITIAL_BYTES_MAX {
            return Err(MseError::TooLong);
        }
        let Some(mut heard) = fields.take_vec(first_bytes) else { return Ok(None) };
        let (rest, method) = (fields.rest.to_vec(), choose(self.methods, offered)?);
        let mut sealing = Cipher::new(b"keyB", secret, &info_hash);
        let mut answer = ZEROS.to_vec();
        answer.extend_from_slice(&method.bit().to_be_bytes());
        answer.extend_from_slice(&[0; 2]);
        sealing.apply(&mut answer);
        self.outbox.extend_from_slice(&answer);
        let begun = heard.len();
        heard.extend_from_slice(&rest);
        if method == Method::Rc4 {
            opening.apply(&mut heard[begun..]);
        }
        Ok(Some(Established { info_hash, method, heard, sealing, opening }))
    }
}

/// Bits of the fields that offer and choose.
const PLAIN: u32 = 1;
const RC4: u32 = 2;

/// Zeros, methods and two lengths: what an offer without padding has before the first words.
const OFFER_BYTES: usize = 8 + 4 + 2 + 2;

impl Method {
    const fn bit(self) -> u32 {
        match self {
            Self::Plain => PLAIN,
            Self::Rc4 => RC4,
        }
    }
}

/// Plain if both take it: it leaves the stream as fast as one that was never hidden.
const fn choose(ours: Methods, offered: u32) -> Result<Method, MseError> {
    match ours {
        Methods::Both if offered & PLAIN != 0 => Ok(Method::Plain),
        _ if offered & RC4 != 0 => Ok(Method::Rc4),
        _ => Err(MseError::NoMethod),
    }
}

/// Fields under RC4.
struct Sealed<'a> {
    rest: &'a [u8],
    cipher: &'a mut Cipher,
}

impl Sealed<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        let mut bytes = bytes;
        self.cipher.apply(&mut bytes);
        Some(bytes)
    }

    fn take_vec(&mut self, length: usize) -> Option<Vec<u8>> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let mut bytes = bytes.to_vec();
        self.cipher.apply(&mut bytes);
        Some(bytes)
    }

    /// Methods, and the length of the padding.
    fn take_choice(&mut self) -> Option<[u32; 2]> {
        let methods = u32::from_be_bytes(self.take()?);
        Some([methods, u32::from(u16::from_be_bytes(self.take()?))])
    }

    fn take_pad(&mut self, length: u32) -> Result<Option<()>, MseError> {
        if length as usize > MSE_PAD_BYTES_MAX {
            return Err(MseError::TooLong);
        }
        Ok(self.take_vec(length as usize).map(drop))
    }
}

/// What the side that begins says once it knows the secret.
fn offer(aim: &Aim, methods: Methods, secret: &[u8; KEY_BYTES]) -> Vec<u8> {
    let (tag, mask) = (torrent_tag(&aim.info_hash), digest(&[b"req3", secret]));
    let mut out = digest(&[b"req1", secret]).to_vec();
    out.extend(tag.iter().zip(mask).map(|(tag, mask)| tag ^ mask));
    let sealed_from = out.len();
    let offered = match methods {
        Methods::OnlyRc4 => RC4,
        Methods::Both => PLAIN | RC4,
    };
    out.extend_from_slice(&ZEROS);
    out.extend_from_slice(&offered.to_be_bytes());
    out.extend_from_slice(&0u16.to_be_bytes());
    out.extend_from_slice(&(aim.first.len() as u16).to_be_bytes());
    out.extend_from_slice(&aim.first);
    Cipher::new(b"keyA", secret, &aim.info_hash).apply(&mut out[sealed_from..]);
    out
}

/// Where `mark` lies behind at most `MSE_PAD_BYTES_MAX` bytes of padding; `None` if it may still come.
fn find_behind_pad(bytes: &[u8], mark: &[u8]) -> Result<Option<usize>, MseError> {
    let searched = &bytes[..bytes.len().min(MSE_PAD_BYTES_MAX + mark.len())];
    match searched.windows(mark.len()).position(|window| window == mark) {
        Some(at) => Ok(Some(at)),
        None if bytes.len() < MSE_PAD_BYTES_MAX + mark.len() => Ok(None),
        None => Err(MseError::NoSync),
    }
}

/// A key of 0, 1 or the prime less one, or beyond, would give a secret that everybody can guess.
fn shared_secret(
    theirs: &[u8; KEY_BYTES],
    private: &[u8; PRIVATE_BYTES],
) -> Result<[u8; KEY_BYTES], MseError> {
    let (prime, theirs) = (BigUint::from_bytes_be(&PRIME), BigUint::from_bytes_be(theirs));
    if theirs <= BigUint::from(1u32) || theirs >= &prime - 1u32 {
        return Err(MseError::WeakKey);
    }
    Ok(key_bytes(&theirs.modpow(&BigUint::from_bytes_be(private), &prime)))
}

/// Big-endian, with zeros in front.
fn key_bytes(number: &BigUint) -> [u8; KEY_BYTES] {
    let bytes = number.to_bytes_be();
    let mut out = [0; KEY_BYTES];
    out[KEY_BYTES - bytes.len()..].copy_from_slice(&bytes);
    out
}

fn digest(parts: &[&[u8]]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
