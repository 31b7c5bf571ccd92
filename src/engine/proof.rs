//! Signed identity: a connection that proves its key is credited and served under the key's account, so that
//! credit survives a change of address.
//!
//! Both sides say hello (`proto/wire/identity.rs`) and sign what both said. Of one connection one hello is
//! answered and one proof is checked; over all of a core's, `IDENTITY_STEPS_PER_SEC` a second. The others
//! wait for their next look (`tick.rs`), under their address.
//!
//! A key costs nothing, so a new one is worth nothing. Its account begins empty, grants and equal shares stay
//! with the group of addresses, and blame stays with the address: nobody is banned for what somebody did who
//! posed as him. What the address gave before stays in its account.

use super::scheduler::Membership;
use super::session::{PeerMisbehaved, idle};
use super::*;
use crate::base::limits::{IDENTITY_STEPS_PER_SEC, STRIKES_MAX};
use crate::base::time::Span;
use crate::hash::signature::{Signature, verify};
use crate::proto::wire::identity::{Hello, IdentityMessage, Side, statement};
use crate::proto::wire::message::Message;
use crate::storage::ledger::PartyKind;

/// The id under which we want messages of the extension.
pub(super) const TROC_ID: u8 = 1;

const SECOND: Span = Span::from_secs(1);

/// How far a connection is with its proof.
#[derive(Debug, Default)]
pub enum Proof {
    /// The other side has not said that it knows the extension.
    #[default]
    Silent,
    /// We have said hello.
    Begun(Box<Exchange>),
    /// The key with this hash is theirs. It counts once no send is charged to the address any more.
    Good(u64),
    /// Taken or refused: nothing of it is listened to any more.
    Over,
}

/// Who said what.
#[derive(Debug)]
pub struct Exchange {
    /// Under which they want messages of the extension.
    id: u8,
    ours: Hello,
    theirs: Option<Hello>,
    /// We have signed.
    answered: bool,
    /// Theirs, not checked yet.
    signature: Option<Signature>,
}

/// What signing and checking may cost a core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// Taken since then.
    taken: u32,
    since: Instant,
    /// Hellos so far, which makes the next nonce.
    hellos: u64,
}

impl Steps {
    /// Takes one, if this second has one left.
    fn take(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= SECOND {
            (self.taken, self.since) = (0, now);
        }
        let left = self.taken < IDENTITY_STEPS_PER_SEC;
        self.taken += u32::from(left);
        left
    }
}

impl Engine {
    /// The other side knows the extension: we say hello, once.
    pub(super) fn say_hello(&mut self, conn: ConnId, id: u8) {
        let Some(key) = &self.config.identity else { return };
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| matches!(peer.proof, Proof::Silent)) else {
            return;
        };
        let nonce = key.nonce(self.config.core.0, self.steps.hellos);
        self.steps.hellos += 1;
        let ours = Hello { nonce, key: key.public() };
        peer.proof =
            Proof::Begun(Box::new(Exchange { id, ours, theirs: None, answered: false, signature: None }));
        queue(peer, id, IdentityMessage::Hello(ours));
        self.make_ready(conn);
    }

    /// A message of the extension came. Whatever comes more than once or too early is an offence.
    pub(super) fn identified(
        &mut self,
        conn: ConnId,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        idle(peer)?;
        if self.config.identity.is_none() {
            return Ok(());
        }
        match (IdentityMessage::parse(payload), &mut peer.proof) {
            (Ok(None), _) => return Ok(()),
            (Ok(Some(IdentityMessage::Hello(hello))), Proof::Begun(exchange))
                if exchange.theirs.is_none() =>
            {
                exchange.theirs = Some(hello);
                if hello.key == exchange.ours.key {
                    // Ourselves, or our own words sent back.
                    peer.proof = Proof::Over;
                }
            }
            (Ok(Some(IdentityMessage::Proof(signature))), Proof::Begun(exchange))
                if exchange.theirs.is_some() && exchange.signature.is_none() =>
            {
                exchange.signature = Some(signature);
            }
            _ => return offend(peer),
        }
        self.prove(conn, now)
    }

    /// Signs and checks what is due, if this second's steps suffice.
    pub(super) fn prove(&mut self, conn: ConnId, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(key) = &self.config.identity else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) else { return Ok(()) };
        let Some(info_hash) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        let info_hash = info_hash.shared.meta.info_hash;
        let Proof::Begun(exchange) = &mut peer.proof else { return Ok(()) };
        let Some(theirs) = exchange.theirs else { return Ok(()) };
        let ours = exchange.ours;
        let (side, hellos) = match peer.origin {
            Origin::Outgoing => (Side::Dialler, [&ours, &theirs]),
            Origin::Incoming => (Side::Acceptor, [&theirs, &ours]),
            Origin::WebSeed(_) => return Ok(()),
        };
        let (mut answer, mut good) = (None, None);
        if !exchange.answered && self.steps.take(now) {
            answer = Some(key.sign(&statement(side, info_hash, hellos)));
            exchange.answered = true;
        }
        if let Some(signature) = exchange.signature
            && self.steps.take(now)
        {
            good = Some(verify(&theirs.key, &statement(side.other(), info_hash, hellos), &signature));
        }
        let id = exchange.id;
        if let Some(signature) = answer {
            queue(peer, id, IdentityMessage::Proof(signature));
        }
        match good {
            None => {}
            Some(true) => peer.proof = Proof::Good(Identity::of_key(&theirs.key, self.config.secret)),
            Some(false) => {
                peer.proof = Proof::Over;
                offend(peer)?;
            }
        }
        self.take_identity(conn);
        self.make_ready(conn);
        Ok(())
    }

    /// The connection is its key's from now on, once nothing is in flight that was charged to its address:
    /// a refund goes where the charge went.
    pub(super) fn take_identity(&mut self, conn: ConnId) {
        let idle = |peer: &&mut Peer| peer.is_open() && peer.out.begun.is_none();
        let Some(peer) = self.peers.get_mut(conn).filter(idle) else { return };
        let (&Proof::Good(key), Some([address, group])) = (&peer.proof, peer.accounts) else { return };
        // It joins no group: on a private network the group's balance is that of its machine, and what was
        // given once could be spent under the key and again without.
        let own = self.ledger.open_as(key, PartyKind::Key);
        peer.proof = Proof::Over;
        peer.account_key = key;
        peer.accounts = Some([own, group]);
        self.egress.reseat(conn, Membership { own, balance: own, group }, &self.ledger);
        self.ledger.close(address);
        self.counters.identities.add(1);
        self.make_ready(conn);
    }
}

/// Counts what no honest node sends; too much of it ends the connection.
pub(super) const fn offend(peer: &mut Peer) -> Result<(), PeerMisbehaved> {
    peer.strikes += 1;
    if peer.strikes > STRIKES_MAX { Err(PeerMisbehaved::TooManyStrikes) } else { Ok(()) }
}

fn queue(peer: &mut Peer, id: u8, message: IdentityMessage) {
    Message::Extended { id, payload: &message.encode() }.encode(&mut peer.out.frames);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_steps_and_no_more() {
        let now = Instant(0) + Span::from_secs(5);
        let mut steps = Steps::default();
        let taken =
            |steps: &mut Steps, at| (0..2 * IDENTITY_STEPS_PER_SEC).filter(|_| steps.take(at)).count();
        for (before, left) in [
            (IDENTITY_STEPS_PER_SEC - 1, true),
            (IDENTITY_STEPS_PER_SEC, false),
            (IDENTITY_STEPS_PER_SEC + 1, false),
        ] {
            let mut steps = Steps::default();
            (0..before).for_each(|_| _ = steps.take(now));
            assert_eq!(steps.take(now), left, "{before}");
        }
        assert_eq!(taken(&mut steps, now), IDENTITY_STEPS_PER_SEC as usize);
        let soon = Instant(now.0 + SECOND.0 - 1);
        assert_eq!(taken(&mut steps, soon), 0);
        assert_eq!(taken(&mut steps, now + SECOND), IDENTITY_STEPS_PER_SEC as usize, "nothing is saved up");
    }
}
