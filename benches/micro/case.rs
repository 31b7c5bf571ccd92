//! One thing to measure, in two ways: criterion repeats it for its time, the gate runs it a fixed
//! number of times for its instructions.
//!
//! Cases draw nothing at random and read no clock, so that their instructions repeat exactly.

use std::hint::black_box;

use criterion::{BatchSize, Bencher, Criterion, Throughput};

/// Iterations before the one that is counted: buffers have grown to their size by then.
const WARM_UP: u32 = 4;

/// See the module.
pub struct Case {
    /// `topic/step`, without spaces.
    pub name: &'static str,
    /// What one iteration handles, and how many of it.
    pub work: Work,
    /// Why instructions of this case say nothing, if so.
    uncounted: Option<&'static str>,
    time: Box<dyn Fn(&mut Bencher<'_>)>,
    count: Box<dyn Fn()>,
}

/// How much one iteration does.
#[derive(Clone, Copy)]
pub struct Work {
    /// How many units.
    pub units: u64,
    /// Their name, in the plural; `bytes` are shown as a rate of bytes.
    pub unit: &'static str,
}

/// `units` of `unit` an iteration.
pub const fn work(units: u64, unit: &'static str) -> Work {
    Work { units, unit }
}

impl Case {
    /// Iterations that leave the state as they found it.
    pub fn steady<S: 'static>(name: &'static str, work: Work, prepare: fn() -> S, run: fn(&mut S)) -> Self {
        let time = move |bencher: &mut Bencher<'_>| {
            let mut state = prepare();
            bencher.iter(|| run(&mut state));
        };
        let count = move || {
            let mut state = prepare();
            (0..WARM_UP).for_each(|_| run(&mut state));
            counted(&mut || run(&mut state));
        };
        Self { name, work, uncounted: None, time: Box::new(time), count: Box::new(count) }
    }

    /// Iterations that use their state up: each has its own, made outside of what is measured.
    pub fn consuming<S: 'static>(
        name: &'static str,
        work: Work,
        prepare: fn() -> S,
        run: fn(&mut S),
    ) -> Self {
        let time = move |bencher: &mut Bencher<'_>| {
            bencher.iter_batched_ref(prepare, run, BatchSize::LargeInput);
        };
        let count = move || {
            let mut state = prepare();
            counted(&mut || run(&mut state));
        };
        Self { name, work, uncounted: None, time: Box::new(time), count: Box::new(count) }
    }

    /// The gate leaves it out, because of `why`.
    pub fn uncounted(mut self, why: &'static str) -> Self {
        self.uncounted = Some(why);
        self
    }

    /// Its time, by criterion, as part of the topic that its name starts with.
    pub fn time(&self, criterion: &mut Criterion) {
        let (topic, step) = self.name.split_once('/').expect("names are topic/step");
        let mut group = criterion.benchmark_group(topic);
        let Work { units, unit } = self.work;
        group.throughput(if unit == "bytes" {
            Throughput::Bytes(units)
        } else {
            Throughput::Elements(units)
        });
        group.bench_function(step, |bencher| (self.time)(bencher));
        group.finish();
    }

    /// One iteration inside of [`counted`].
    pub fn count(&self) {
        (self.count)();
    }

    /// Name, work and why it is not counted, between tabs: what `scripts/bench-gate` reads.
    pub fn describe(&self) -> String {
        let Work { units, unit } = self.work;
        format!("{}\t{units} {unit}\t{}", self.name, self.uncounted.unwrap_or_default())
    }
}

/// The only function whose instructions are collected: `scripts/bench-gate` names it to callgrind.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
    // Not a jump into the closure: callgrind must see this function return.
    black_box(());
}
