//! The figures of one storm.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Plan, Snapshot, Storm};
use crate::cli::bench::BenchError;

/// Failures that are shown.
const FAILURES_SHOWN: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct Report {
    hold: bool,
    opened: u32,
    answered: u32,
    held: u32,
    seconds: f64,
    latency_p50_ns: u64,
    latency_p99_ns: u64,
    seeder_cpu_seconds: Option<f64>,
    own_cpu_seconds: f64,
    resident_growth_bytes: Option<i64>,
    socket_growth_bytes: i64,
    slab_growth_bytes: i64,
    failures: Vec<String>,
}

impl Report {
    /// From both ends. `opening` is how long connections were opened.
    pub(super) fn new(
        plan: &Plan,
        opening: Duration,
        before: &Snapshot,
        after: &Snapshot,
        storm: Storm,
    ) -> Self {
        let grown = |after: u64, before: u64| after as i64 - before as i64;
        let seeder = after.seeder.zip(before.seeder);
        Self {
            hold: plan.hold,
            opened: storm.opened,
            answered: storm.answered,
            held: storm.held,
            seconds: opening.as_secs_f64(),
            latency_p50_ns: storm.latency.quantile(500),
            latency_p99_ns: storm.latency.quantile(990),
            seeder_cpu_seconds: seeder.map(|(after, before)| after.cpu_seconds - before.cpu_seconds),
            own_cpu_seconds: after.own.cpu_seconds - before.own.cpu_seconds,
            resident_growth_bytes: seeder
                .map(|(after, before)| grown(after.resident_bytes, before.resident_bytes)),
            socket_growth_bytes: grown(after.kernel.socket_bytes, before.kernel.socket_bytes),
            slab_growth_bytes: grown(after.kernel.slab_bytes, before.kernel.slab_bytes),
            failures: storm.failures,
        }
    }

    fn per_second(&self) -> f64 {
        f64::from(self.answered) / self.seconds
    }

    fn per_held(&self, bytes: i64) -> Option<i64> {
        (self.held > 0).then(|| bytes / i64::from(self.held))
    }

    /// One object; the units are in the names. Kernel memory is the machine's, both ends together.
    pub fn json(&self) -> Value {
        json!({
            "opened": self.opened,
            "handshakes": self.answered,
            "seconds": self.seconds,
            "handshakes_per_s": self.per_second(),
            "failures": self.failures.len(),
            "failure_texts": self.failures.iter().take(FAILURES_SHOWN).collect::<Vec<_>>(),
            "latency_p50_us": self.latency_p50_ns / 1000,
            "latency_p99_us": self.latency_p99_ns / 1000,
            "seeder_cpu_seconds": self.seeder_cpu_seconds,
            "own_cpu_seconds": self.own_cpu_seconds,
            "held": self.held,
            "resident_bytes_per_held": self.resident_growth_bytes.and_then(|bytes| self.per_held(bytes)),
            "socket_bytes_per_held": self.per_held(self.socket_growth_bytes),
            "slab_bytes_per_held": self.per_held(self.slab_growth_bytes),
        })
    }

    /// An error if nobody answered, or if a connection that was to be held is gone.
    pub fn verdict(&self) -> Result<(), BenchError> {
        let why = self.failures.first().map_or("it did not answer in time", String::as_str);
        if self.answered == 0 {
            return Err(BenchError::Failed(format!("no handshake was answered: {why}")));
        }
        if self.hold && self.held < self.opened {
            let missing = self.opened - self.held;
            return Err(BenchError::Failed(format!("{missing} connections were not held: {why}")));
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<26}{value}");
        row(
            "handshakes",
            format!("{} in {:.2} s, {:.0} per second", self.answered, self.seconds, self.per_second()),
        )?;
        let ms = |ns: u64| ns as f64 / 1e6;
        let (p50, p99) = (ms(self.latency_p50_ns), ms(self.latency_p99_ns));
        row("from connect to answer", format!("p50 {p50:.2} ms, p99 {p99:.2} ms"))?;
        row("failures", self.failures.len().to_string())?;
        for failure in self.failures.iter().take(FAILURES_SHOWN) {
            row("connection failed", failure.clone())?;
        }
        if self.hold {
            row("held", self.held.to_string())?;
            let each = |bytes| self.per_held(bytes).map_or_else(|| "-".to_owned(), |n| format!("{n} bytes"));
            if let Some(bytes) = self.resident_growth_bytes {
                row("seeder's memory for each", each(bytes))?;
            }
            row("socket buffers for each", format!("{} (both ends)", each(self.socket_growth_bytes)))?;
            row("kernel slab for each", format!("{} (both ends)", each(self.slab_growth_bytes)))?;
        }
        if let Some(seconds) = self.seeder_cpu_seconds {
            row("seeder's CPU", format!("{seconds:.2} s"))?;
        }
        row("generator's CPU", format!("{:.2} s", self.own_cpu_seconds))
    }
}
