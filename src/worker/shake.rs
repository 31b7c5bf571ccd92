//! Handshakes: who stays, who moves to another core, who waits for a torrent.

use super::*;

impl<I: Io> Worker<I> {
    /// Bytes of a handshake came.
    pub(super) fn shake(&mut self, conn: ConnId, inbox: &mut [u8], now: Instant) {
        let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { return };
        match Handshake::parse(&inbox[..inbound.rest()]) {
            Ok(None) => {}
            Err(_) => self.engine.handle_broken(conn),
            Ok(Some(handshake)) => match self.engine.handle_handshake(conn, &handshake, now) {
                Admission::Here => {
                    inbound.begin_messages(inbox, crate::proto::wire::handshake::HANDSHAKE_BYTES);
                    inbound.parse_inbox(conn, inbox, &mut self.engine, &self.arena, now);
                }
                // No receive until the hand-over is performed, in this very turn, or the torrent is there.
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
