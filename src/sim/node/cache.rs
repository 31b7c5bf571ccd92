//! The cache of a simulated node shrinks and grows as it is told, by the retirer of production.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::ids::SlotId;
use crate::base::time::{Instant, Span};
use crate::base::units::SLOT_PAYLOAD_BYTES;
use crate::io::arena::Arena;
use crate::shared::retirer::{Retirer, Step};
use crate::shared::torrent::SharedTorrent;
use crate::sim::world::World;
use crate::worker::mesh::{Sender, ToWorker};

/// Between two looks at a region that leaves.
const INTERVAL: Span = Span::from_ms(50);

/// How long it takes to give memory back, or to fetch it, in nanoseconds.
const STEP_NS: (u64, u64) = (0, 20_000_000);

/// What a region reads as once its memory was given back: whoever still uses it is found out.
const POISON: u8 = 0xdb;

/// The control thread's part in it.
pub(super) struct CacheControl {
    arena: Arc<Arena>,
    retirer: Rc<RefCell<Retirer>>,
    steps: Vec<(Instant, Step)>,
    look_at: Option<Instant>,
}

impl CacheControl {
    pub(super) const fn new(arena: Arc<Arena>, retirer: Rc<RefCell<Retirer>>) -> Self {
        Self { arena, retirer, steps: Vec::new(), look_at: None }
    }

    /// When it has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.steps.iter().map(|(at, _)| *at).chain(self.look_at).min()
    }

    pub(super) fn handle_forgotten(&mut self, world: &World, region: u32, could: bool) {
        let step = self.retirer.borrow_mut().handle_forgotten(region, could);
        step.into_iter().for_each(|step| self.begin(world, step));
    }

    /// Looks after the regions, and has the workers forget those that nobody uses.
    pub(super) fn look_after(
        &mut self,
        world: &World,
        torrent: &SharedTorrent,
        workers: &mut [Sender<ToWorker<crate::sim::io::SimIo>>],
    ) {
        let now = world.now();
        let (due, later) = std::mem::take(&mut self.steps).into_iter().partition(|(at, _)| *at <= now);
        self.steps = later;
        Vec::into_iter(due).for_each(|(_, step)| self.end(step));
        if self.look_at.is_some_and(|at| at > now) {
            return;
        }
        let steps =
            self.retirer.borrow_mut().advance(|id| (id == torrent.meta.id).then_some(&torrent.chunks));
        for step in steps {
            match step {
                Step::Forget(region) => {
                    workers.iter_mut().for_each(|worker| worker.send(ToWorker::Forget { region }));
                }
                step => self.begin(world, step),
            }
        }
        self.look_at = self.retirer.borrow().is_busy().then(|| now + INTERVAL);
    }

    fn begin(&mut self, world: &World, step: Step) {
        let took = world.state(|state| Span(state.timeline.draw(STEP_NS)));
        self.steps.push((world.now() + took, step));
    }

    fn end(&mut self, step: Step) {
        let mut retirer = self.retirer.borrow_mut();
        match step {
            Step::Drop(region) => {
                for slot in retirer.cache().region(region) {
                    self.arena.copy_in(SlotId(slot), 0, &[POISON; SLOT_PAYLOAD_BYTES as usize]);
                }
                retirer.handle_dropped(region);
            }
            Step::Fill(region) => retirer.handle_filled(region),
            Step::Forget(_) => {}
        }
    }
}
