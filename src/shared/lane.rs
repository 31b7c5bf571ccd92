//! A lane: a bounded queue from one core to another, and the wake-up protocol on top of it.
//!
//! The queue is crossbeam's; what is ours, and model-checked, is who wakes whom. The consumer sets
//! `parked`, fences, looks at its lanes once more and only then sleeps; the producer pushes, fences
//! and rings only if the consumer is parked. Whichever fence comes first in the total order, either
//! the consumer sees the message or the producer sees the flag.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a core sleeps. One per core, shared by all that send to it.
///
/// Every change is a swap, so that each sees the one before it and their order needs no argument:
/// the models know no total order of plain stores. On x86 it is the same instruction.
#[derive(Debug, Default)]
pub struct Parking {
    parked: AtomicBool,
}

impl Parking {
    /// A core that is awake.
    pub fn new() -> Self {
        Self { parked: AtomicBool::new(false) }
    }

    /// The consumer is about to sleep; it must look at its lanes once more after this.
    pub fn park(&self) {
        self.parked.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake.
    pub fn unpark(&self) {
        self.parked.swap(false, Ordering::SeqCst);
    }

    /// After a push: whether the producer has to ring. At most one producer is told so per sleep.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.parked.load(Ordering::SeqCst) && self.parked.swap(false, Ordering::SeqCst)
    }
}
