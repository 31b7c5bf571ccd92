//! Models of the wake-up between cores.

use super::*;

/// A mailbox with its parking: ours, or a copy of it without one of its three steps.
trait Protocol: Default + 'static {
    fn park(&self);
    fn must_look_again(&self) -> bool;
    fn unpark(&self);
    fn must_ring(&self) -> bool;
}

impl Protocol for Parking {
    fn park(&self) {
        Self::park(self);
    }
    fn must_look_again(&self) -> bool {
        true
    }
    fn unpark(&self) {
        Self::unpark(self);
    }
    fn must_ring(&self) -> bool {
        Self::must_ring(self)
    }
}

#[derive(Default)]
struct Copied<const PARK_FENCE: bool, const RING_FENCE: bool, const LOOK: bool> {
    parked: AtomicBool,
}

impl<const PARK_FENCE: bool, const RING_FENCE: bool, const LOOK: bool> Protocol
    for Copied<PARK_FENCE, RING_FENCE, LOOK>
{
    fn park(&self) {
        self.parked.swap(true, Ordering::SeqCst);
        if PARK_FENCE {
            fence(Ordering::SeqCst);
        }
    }
    fn must_look_again(&self) -> bool {
        LOOK
    }
    fn unpark(&self) {
        self.parked.swap(false, Ordering::SeqCst);
    }
    fn must_ring(&self) -> bool {
        if RING_FENCE {
            fence(Ordering::SeqCst);
        }
        self.parked.load(Ordering::SeqCst) && self.parked.swap(false, Ordering::SeqCst)
    }
}

struct Mail<P> {
    parking: P,
    /// Messages pushed; as weak as a queue can be, so that nothing but the protocol orders it.
    pushed: AtomicUsize,
    rings: AtomicUsize,
    bell: Notify,
}

impl<P: Protocol> Mail<P> {
    fn new() -> Arc<Self> {
        let (pushed, bell) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { parking: P::default(), pushed, rings: AtomicUsize::new(0), bell })
    }

    fn push(&self) {
        self.pushed.fetch_add(1, Relaxed);
        if self.parking.must_ring() {
            self.rings.fetch_add(1, Relaxed);
            self.bell.notify();
        }
    }

    /// Parks; true if the consumer may sleep, having taken `taken` messages.
    fn sleeps(&self, taken: usize) -> bool {
        self.parking.park();
        !self.parking.must_look_again() || self.pushed.load(Relaxed) == taken
    }
}

/// A core pushes `messages`; the consumer sleeps whenever it finds none. A lost wake-up leaves it
/// asleep for good, which loom reports as a deadlock.
fn wake_up<P: Protocol>(messages: usize) {
    let mail = Mail::<P>::new();
    let producer = spawn(&mail, move |mail| (0..messages).for_each(|_| mail.push()));
    let mut taken = 0;
    while taken < messages {
        if mail.sleeps(taken) {
            mail.bell.wait();
        }
        mail.parking.unpark();
        taken = mail.pushed.load(Relaxed);
    }
    join([producer]);
}

#[test]
fn loom_parking_loses_no_wake_up() {
    model(3, || wake_up::<Parking>(1));
    model(3, || wake_up::<Parking>(2));
    model(3, || wake_up::<Copied<true, true, true>>(1));
}

#[test]
fn loom_two_producers_do_not_rely_on_each_other_to_ring() {
    model(3, || {
        let mail = Mail::<Parking>::new();
        let producers = [spawn(&mail, |mail| mail.push()), spawn(&mail, |mail| mail.push())];
        let mut taken = 0;
        let asleep = loop {
            if mail.sleeps(taken) {
                break true;
            }
            mail.parking.unpark();
            taken = mail.pushed.load(Relaxed);
            if taken == 2 {
                break false;
            }
        };
        join(producers);
        assert!(!asleep || mail.rings.load(Relaxed) > 0, "asleep for good after {taken} of 2 messages");
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_parking_without_the_consumers_fence_loses_one() {
    model(3, || wake_up::<Copied<false, true, true>>(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_parking_without_the_producers_fence_loses_one() {
    model(3, || wake_up::<Copied<true, false, true>>(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_parking_without_the_second_look_loses_one() {
    model(3, || wake_up::<Copied<true, true, false>>(1));
}

#[test]
fn loom_one_sleep_is_rung_for_once() {
    model(3, || {
        let state = Arc::new((Parking::new(), AtomicUsize::new(0)));
        state.0.park();
        let ring = |(parking, rings): &(Parking, AtomicUsize)| {
            if parking.must_ring() {
                rings.fetch_add(1, Relaxed);
            }
        };
        join([spawn(&state, ring), spawn(&state, ring)]);
        assert_eq!(state.1.load(Relaxed), 1);
    });
}
