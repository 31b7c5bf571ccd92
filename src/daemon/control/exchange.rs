//! What peers say of other peers (BEP 11, 55), between the workers and the swarms that it is about.

use super::*;
use crate::base::ids::CoreConn;
use crate::base::limits::PEX_FRAMES_PER_LOOK;
use crate::engine::exchange::{Exchange, Speaks};
use crate::engine::grapevine::Grapevine;
use crate::proto::wire::holepunch::PunchMessage;

impl Control<'_> {
    /// The first peer that speaks one of the extensions is what makes a swarm of gossip.
    pub(super) fn speaks(&mut self, id: TorrentId, conn: CoreConn, speaks: Speaks, now: Instant) {
        let swarm = &mut self.swarms[id.0 as usize];
        if self.config.exchange == Exchange::Off || swarm.metainfo.private {
            return;
        }
        let seed = self.shared.seed ^ u64::from(id.0).rotate_left(32);
        let roster = &swarm.roster;
        let make = || Box::new(Grapevine::new(Rng::new(seed), roster));
        swarm.grapevine.get_or_insert_with(make).handle_speaks(conn, speaks, roster, now);
    }

    /// A peer named others.
    pub(super) fn exchanged(
        &mut self,
        id: TorrentId,
        (conn, from, name): (CoreConn, SocketAddr, Name),
        peers: Vec<SocketAddr>,
        now: Instant,
    ) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(grapevine) = &mut swarm.grapevine else { return };
        let me = self.shared.listen;
        let others = peers.into_iter().filter(|&peer| !is_self(peer, me));
        let candidates = &swarm.roster.candidates;
        let by = (candidates, &self.config.grouping);
        let believed = grapevine.believe((conn, from), others, by, now);
        swarm.note_peers_by((Source::Pex, name), believed.into_iter(), now);
    }

    /// A peer asks for another, or we are to dial one.
    pub(super) fn punched(
        &mut self,
        id: TorrentId,
        (conn, from): (CoreConn, SocketAddr),
        message: PunchMessage,
        now: Instant,
    ) {
        let swarm = &mut self.swarms[id.0 as usize];
        let Some(grapevine) = &mut swarm.grapevine else { return };
        // Whoever is known already is dialled now and not when its time has come: so does the other side.
        if let Some(peer) = grapevine.handle_punch((conn, from), message, &swarm.roster, now)
            && !swarm.roster.hasten(peer, now)
        {
            self.exchanged(id, (conn, from, Name::First), vec![peer], now);
        }
    }

    /// Tells peers what is due, a part of them each time.
    pub(super) fn gossip(&mut self, id: TorrentId, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(grapevine) = &mut self.swarms[id.0 as usize].grapevine else { return };
        for _ in 0..PEX_FRAMES_PER_LOOK {
            let Some((to, tale, payload)) = grapevine.poll_tale(now) else { return };
            let CoreConn { core, conn } = to;
            self.workers[core.0 as usize].send(ToWorker::Tell { conn, tale, payload });
        }
    }
}
