//! What the workers tell the control thread.

use super::*;
use crate::base::ids::CoreConn;
use crate::daemon::deliver::deliver;
use crate::daemon::files::write_all;
use crate::engine::action::Farewell;

impl Control<'_> {
    pub(super) fn take_mail(&mut self) {
        while let Some(message) = self.mailbox.pop() {
            match message {
                ToControl::Report(report) => self.handle_report(report),
                ToControl::Edges { core, job, torrent, edges } => self.write_edges(core, job, torrent, edges),
                ToControl::Touched { region } => self.region_touched(region),
                ToControl::Forgotten { region, could } => self.region_forgotten(region, could),
                ToControl::Viewed { core, viewing, next } => self.viewed(core, viewing, next),
                ToControl::WebSeed { torrent, trouble } => {
                    self.swarms[torrent.0 as usize].web_seed_error = trouble;
                }
                ToControl::Stopped { .. } => self.worker_ended(),
                ToControl::Failed { core, why } => {
                    self.fail(NodeError::Worker { core, why });
                    self.worker_ended();
                }
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        let now = clock::now();
        self.agenda.set(report.torrent(), Some(now));
        let order = |swarm: &Swarm, order| {
            if let Some(live) = &swarm.live {
                let _ = live.orders.send(order);
            }
        };
        match report {
            Report::PieceWritten { torrent, piece } => {
                let swarm = &mut self.swarms[torrent.0 as usize];
                order(swarm, Order::Written(piece));
                swarm.note_progress();
                if swarm.live.as_ref().is_some_and(|live| live.shared.is_satisfied()) {
                    order(swarm, Order::Flush);
                }
            }
            Report::PieceLost { torrent, piece } => {
                let swarm = &mut self.swarms[torrent.0 as usize];
                tracing::warn!(
                    "{}: piece {piece} on disk is not what it was; it is fetched again",
                    swarm.metainfo.name.escape_debug()
                );
                if let Some(live) = &mut swarm.live {
                    live.durable.clear(piece);
                }
                swarm.roster.candidates.handle_wanting(now);
                order(swarm, Order::Lost(piece));
                self.fetch_from_web(torrent);
            }
            Report::DiskFailed { torrent, errno } => self.disk_failed(torrent, disk_advice(errno)),
            Report::Torn { torrent, piece } => self.disk_failed(torrent, torn_advice(piece)),
            Report::Wanted { torrent } => self.wake(torrent),
            Report::Connected { torrent, conn, address, origin, peer_id } => {
                let swarm = &mut self.swarms[torrent.0 as usize];
                swarm.peer_at = now;
                let unwanted = swarm.roster.handle_connected(conn, address, origin, peer_id);
                swarm.note_home(conn);
                self.close(unwanted);
            }
            Report::Listens { torrent, conn, port } => {
                let swarm = &mut self.swarms[torrent.0 as usize];
                let unwanted = swarm.roster.handle_listens(conn, port);
                swarm.note_home(conn);
                self.close(unwanted);
            }
            Report::Speaks { torrent, conn, speaks } => self.speaks(torrent, conn, speaks, now),
            Report::Exchanged { torrent, conn, from, name, peers } => {
                self.exchanged(torrent, (conn, from, name), peers, now);
            }
            Report::Punch { torrent, conn, from, message } => {
                self.punched(torrent, (conn, from), message, now);
            }
            Report::WebSeedLeft { torrent, seed, why } => {
                if why == Farewell::Misbehaved {
                    self.web_seeds.ban(torrent, seed);
                }
            }
            Report::Node { address, .. } => self.finding.hint(address),
            Report::Disconnected { torrent, conn, address, why } => {
                self.disconnected(torrent, (conn, address), why, now);
            }
        }
    }

    /// A connection ended, or could not be made: then somebody else may bring us together.
    fn disconnected(
        &mut self,
        id: TorrentId,
        (conn, address): (Option<CoreConn>, SocketAddr),
        why: Farewell,
        now: Instant,
    ) {
        let swarm = &mut self.swarms[id.0 as usize];
        // A dial that fails, again and again, is no peer.
        if why != Farewell::DialFailed {
            swarm.peer_at = now;
        }
        let was_connected = conn.is_some_and(|conn| swarm.roster.origin(conn).is_some());
        swarm.roster.handle_gone(conn, address, why, now);
        let Some(grapevine) = &mut swarm.grapevine else { return };
        conn.into_iter().for_each(|conn| grapevine.handle_gone(conn));
        if !was_connected && matches!(why, Farewell::DialFailed | Farewell::TimedOut) {
            grapevine.handle_dial_failed(address, now);
        }
    }

    /// Has connections closed by the workers that they belong to.
    pub(super) fn close(&mut self, unwanted: impl IntoIterator<Item = CoreConn>) {
        for CoreConn { core, conn } in unwanted {
            self.workers[core.0 as usize].send(ToWorker::Close { conn });
        }
    }

    pub(super) fn disk_failed(&mut self, id: TorrentId, why: String) {
        let swarm = &mut self.swarms[id.0 as usize];
        let first = swarm.stopped.is_none();
        swarm.stop(why.clone());
        if !first {
            return;
        }
        if matches!(self.config.role, Role::Get { .. }) {
            let name = crate::proto::text::escape(swarm.metainfo.name.as_bytes(), 255);
            self.fail(NodeError::Disk { name, why });
        } else {
            tracing::error!("{}: {why}", swarm.metainfo.name.escape_debug());
        }
    }

    /// Edges of a chunk go through the page cache, on this thread's ring.
    fn write_edges(&mut self, core: u8, job: u32, torrent: TorrentId, mut edges: Vec<Edge>) {
        let Some(live) = self.swarms[torrent.0 as usize].live.as_ref() else { return };
        let files = Arc::clone(&live.files);
        let worker = self.workers[core as usize].mailbox();
        tokio_uring::spawn(async move {
            let mut result = Ok(());
            for run in edges.chunk_by_mut(|a, b| a.file == b.file) {
                let Some(Some(file)) = files.get(run[0].file.0 as usize) else { continue };
                let parts = run.iter_mut().map(|edge| (std::mem::take(&mut edge.bytes), edge.offset));
                if let Err(error) = write_all(file, parts).await {
                    result = Err(error.raw_os_error().unwrap_or(libc::EIO));
                }
            }
            deliver(&worker, ToWorker::Edges { job, result }).await;
        });
    }
}

fn torn_advice(piece: u32) -> String {
    format!(
        "the v1 and v2 halves of this hybrid torrent describe different data (piece {piece}): nothing can be \
         right by both; get the torrent from somewhere else"
    )
}

fn disk_advice(errno: i32) -> String {
    let error = std::io::Error::from_raw_os_error(errno);
    match errno {
        libc::ENOSPC | libc::EDQUOT => {
            format!("the disk is full ({error}): free space and start again; what is there is kept")
        }
        // EBADF: opened for reading only, because they may not be written.
        libc::EROFS | libc::EACCES | libc::EPERM | libc::EBADF => {
            format!("the files may not be written ({error}): check permissions and mount, then start again")
        }
        _ => format!("reading or writing failed ({error}): check the disk, then start again"),
    }
}
