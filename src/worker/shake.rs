//! Handshakes: who stays, who moves to another core, who waits for a torrent.

use super::mesh::Opened;
use super::*;

impl<I: Io> Worker<I> {
    /// Bytes of a handshake came.
    pub(super) fn shake(&mut self, conn: ConnId, inbox: &mut [u8], now: Instant) {
        let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { return };
        match Handshake::parse(&inbox[..inbound.rest()]) {
            Ok(None) => {}
            // No receive until it is given away, in this very turn.
            Err(_) if self.links.decrypter.is_some() && self.engine.handle_cipher(conn) => {
                inbound.in_flight = true;
            }
            Err(_) => self.engine.handle_broken(conn),
            Ok(Some(handshake)) => match self.engine.handle_handshake(conn, &handshake, now) {
                Admission::Here => {
                    inbound.begin_messages(inbox, crate::proto::wire::handshake::HANDSHAKE_BYTES);
                    inbound.parse_inbox(conn, inbox, &mut self.engine, &self.arena, now);
                }
                // No receive until it is given away, in this very turn, or the torrent is there.
                Admission::Elsewhere | Admission::Later => inbound.in_flight = true,
                Admission::Refused => {}
            },
        }
    }

    /// Handles the handshakes that waited for a torrent; each is still in its inbox.
    pub(super) fn shake_parked(&mut self, torrent: TorrentId, now: Instant) {
        for conn in self.engine.take_parked(torrent) {
            let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { continue };
            inbound.in_flight = false;
            let mut inbox = std::mem::take(self.io.inbox(conn));
            self.shake(conn, &mut inbox, now);
            *self.io.inbox(conn) = inbox;
            self.receive(conn);
        }
    }

    /// Gives a connection to who has encrypted handshakes.
    pub(super) fn decrypt(&mut self, conn: ConnId) {
        if let (Some(caller), Some(decrypter)) = (self.take_out(conn), &self.links.decrypter) {
            decrypter(caller);
        }
    }

    /// Gives a connection to who looks for the metadata of its torrent.
    pub(super) fn give_to_seeker(&mut self, conn: ConnId, torrent: TorrentId) {
        if let (Some(caller), Some(seeker)) = (self.take_out(conn), &self.links.seeker) {
            seeker(torrent, caller);
        }
    }

    /// Takes a connection out of this core, on which nothing was said to the peer.
    fn take_out(&mut self, conn: ConnId) -> Option<Caller<I::Socket>> {
        // It may have ended since the engine decided so.
        let address = self.engine.peer(conn)?.address;
        let inbound = self.inbound.get_mut(conn.index as usize).and_then(Option::take)?;
        let heard = self.io.inbox(conn)[..inbound.rest()].to_vec();
        let Some(socket) = self.io.detach(conn) else {
            self.engine.handle_gone(conn);
            return None;
        };
        self.engine.forget(conn);
        Some(Caller { socket, address, heard })
    }

    /// Goes on with a connection whose encrypted handshake is over: BitTorrent's own is to come.
    pub(super) fn go_on(
        &mut self,
        socket: I::Socket,
        address: std::net::SocketAddr,
        opened: Opened,
        heard: &[u8],
        now: Instant,
    ) {
        let Ok(conn) = self.io.attach(socket) else {
            if let Opened::ByUs(torrent, _) = opened {
                self.engine.handle_dial_refused(address, torrent);
            }
            return;
        };
        self.place_inbound(conn);
        match opened {
            Opened::ByPeer => self.engine.handle_decrypted(conn, address, now),
            Opened::ByUs(torrent, name) => {
                self.engine.handle_encrypted_dial(conn, address, (torrent, name), now);
            }
        }
        if !heard.is_empty() {
            let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { return };
            let mut inbox = std::mem::take(self.io.inbox(conn));
            inbound.hear(&mut inbox, heard);
            self.shake(conn, &mut inbox, now);
            *self.io.inbox(conn) = inbox;
        }
        self.receive(conn);
    }

    pub(super) fn take_over(
        &mut self,
        conn: ConnId,
        address: std::net::SocketAddr,
        handshake: &Handshake,
        rest: &[u8],
        now: Instant,
    ) {
        self.place_inbound(conn);
        if self.engine.handle_handover(conn, address, handshake, now) != Admission::Here {
            return;
        }
        let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { return };
        let mut inbox = std::mem::take(self.io.inbox(conn));
        inbound.adopt(&mut inbox, rest);
        inbound.parse_inbox(conn, &mut inbox, &mut self.engine, &self.arena, now);
        *self.io.inbox(conn) = inbox;
        self.receive(conn);
    }
}
