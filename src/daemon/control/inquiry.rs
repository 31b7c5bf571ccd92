//! What is asked of a running node: its metrics, and questions at the control socket.
//!
//! A question about connections goes to all workers at once. Each shows a part of its table and is asked
//! for the next one, so that no turn of a worker and no message is long.

use tokio::sync::oneshot;

use super::*;
use crate::base::limits::VIEW_PLACES_PER_TURN;
use crate::daemon::explain::{Document, Gathering, NodeHead, VERSION};
use crate::daemon::socket::{self, ControlSocket};
use crate::shared::ledger::Ledger;
use crate::worker::mesh::Viewing;

/// Questions that wait for workers. As many as there are connections at the socket, at most.
#[derive(Debug)]
pub(super) struct Inquiries {
    /// Where questions come in, and the accounts that are explained.
    place: Option<(ControlSocket, Arc<Ledger>)>,
    tickets: u64,
    open: Vec<Inquiry>,
}

#[derive(Debug)]
struct Inquiry {
    ticket: u64,
    so_far: Gathering,
    /// Workers that have not shown all.
    waits_for: usize,
    reply: oneshot::Sender<Document>,
}

impl Inquiries {
    /// Nobody asks, and nobody can.
    pub(super) fn new() -> Self {
        Self { place: None, tickets: 0, open: Vec::new() }
    }
}

impl Control<'_> {
    /// The same with metrics, served while it runs.
    pub fn with_metrics(mut self, metrics: Option<Endpoint>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The same with a control socket, served while it runs, and accounts to explain.
    pub fn with_socket(mut self, socket: Option<ControlSocket>, ledger: Arc<Ledger>) -> Self {
        self.inquiries.place = socket.map(|socket| (socket, ledger));
        self
    }

    /// Answers from now on.
    pub(super) fn listen(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            let tell = self.tell.clone();
            metrics.start(move |asked| drop(tell.send(Event::Scraped(asked))));
        }
        if let Some((socket, _)) = &mut self.inquiries.place {
            let tell = self.tell.clone();
            socket.start(move |asked| drop(tell.send(Event::Asked(asked))));
        }
    }

    /// Somebody reads the metrics.
    pub(super) fn scraped(&self, asked: Asked) {
        let Some(metrics) = &self.metrics else { return };
        let swarms = self.swarms.iter().enumerate();
        let torrents = swarms.filter_map(|(index, swarm)| Some((index, &*swarm.live.as_ref()?.shared)));
        let mut snapshot = metrics.sources.snapshot(clock::now().since(self.started_at).0, torrents);
        snapshot.mailboxes = self.workers.iter().map(|worker| worker.mailbox().len() as u64).collect();
        snapshot.control_mailbox = self.mailbox.len() as u64;
        let (regions, gone, shrinks) = self.memory.figures();
        (snapshot.regions, snapshot.slots_gone, snapshot.shrinks) = (regions, gone.into(), shrinks);
        // One who asked and went away needs no answer.
        let _ = asked.send(snapshot);
    }

    /// Somebody asks at the socket. While the node stops nobody is answered: workers may have ended.
    pub(super) fn asked(&mut self, asked: socket::Asked) {
        let inquiries = &mut self.inquiries;
        let Some((_, ledger)) = inquiries.place.as_ref().filter(|_| self.phase == Phase::Running) else {
            return;
        };
        inquiries.tickets += 1;
        let ticket = inquiries.tickets;
        inquiries.open.push(Inquiry {
            ticket,
            so_far: Gathering::begin(asked.question, ledger),
            waits_for: self.workers.len(),
            reply: asked.reply,
        });
        for worker in &mut self.workers {
            let peers = Vec::with_capacity(VIEW_PLACES_PER_TURN);
            worker.send(ToWorker::View(Viewing { ticket, from: 0, peers }));
        }
    }

    /// A worker showed some of its connections.
    pub(super) fn viewed(&mut self, core: u8, viewing: Viewing, next: Option<usize>) {
        let mut open = self.inquiries.open.iter_mut();
        // None of whoever was not waited for: the node stops.
        let Some(at) = open.position(|inquiry| inquiry.ticket == viewing.ticket) else { return };
        let inquiry = &mut self.inquiries.open[at];
        if inquiry.reply.is_closed() {
            self.inquiries.open.swap_remove(at);
            return;
        }
        inquiry.so_far.add(core, &viewing.peers);
        match next {
            Some(from) => self.workers[core as usize].send(ToWorker::View(Viewing { from, ..viewing })),
            None => inquiry.waits_for -= 1,
        }
        if inquiry.waits_for == 0 {
            let Inquiry { so_far, reply, .. } = self.inquiries.open.swap_remove(at);
            if let Some((_, ledger)) = &self.inquiries.place {
                let _ = reply.send(self.explain(so_far, ledger));
            }
        }
    }

    /// Whoever waits for an answer is told that there will be none.
    pub(super) fn dismiss_inquiries(&mut self) {
        self.inquiries.open.clear();
    }

    fn explain(&self, gathered: Gathering, ledger: &Ledger) -> Document {
        let uptime_ns = clock::now().since(self.started_at).0;
        let node = NodeHead { version: VERSION, pid: std::process::id(), uptime_ns };
        let info_hash = |id: usize| Some(self.swarms.get(id)?.metainfo.info_hash.to_hex());
        gathered.finish(node, ledger, info_hash)
    }
}
