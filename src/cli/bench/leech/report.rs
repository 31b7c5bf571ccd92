//! The figures of one measurement.

use std::fmt;

use serde_json::{Value, json};

use super::connection::Shared;
use super::{Plan, Snapshot};
use crate::cli::bench::BenchError;

/// Refusals that are shown.
const REFUSALS_SHOWN: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct Report {
    connections: u32,
    depth: u32,
    served: u32,
    seconds: f64,
    bytes: u64,
    jain: f64,
    /// What the slowest connection got, over the mean.
    worst_of_mean: f64,
    latency_p50_ns: u64,
    latency_p99_ns: u64,
    latency_p999_ns: u64,
    seeder_cpu_seconds: Option<f64>,
    seeder_resident_bytes: Option<u64>,
    own_cpu_seconds: f64,
    samples_good: u32,
    samples_bad: u32,
    unasked: u64,
    refusals: Vec<String>,
}

impl Report {
    /// From both ends of the window.
    pub fn new(
        plan: &Plan,
        before: &Snapshot,
        after: &Snapshot,
        shared: Shared,
        refusals: Vec<String>,
    ) -> Self {
        let shares: Vec<u64> =
            after.bytes.iter().zip(&before.bytes).map(|(after, before)| after - before).collect();
        let cpu =
            after.seeder.zip(before.seeder).map(|(after, before)| after.cpu_seconds - before.cpu_seconds);
        Self {
            connections: plan.connections,
            depth: plan.depth,
            served: shares.iter().filter(|bytes| **bytes > 0).count() as u32,
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            bytes: shares.iter().sum(),
            jain: jain_index(&shares),
            worst_of_mean: worst_of_mean(&shares),
            latency_p50_ns: shared.latency.quantile(500),
            latency_p99_ns: shared.latency.quantile(990),
            latency_p999_ns: shared.latency.quantile(999),
            seeder_cpu_seconds: cpu,
            seeder_resident_bytes: after.seeder.map(|usage| usage.resident_bytes),
            own_cpu_seconds: after.own.cpu_seconds - before.own.cpu_seconds,
            samples_good: shared.samples_good,
            samples_bad: shared.samples_bad,
            unasked: shared.unasked,
            refusals,
        }
    }

    fn gigabytes(&self) -> f64 {
        self.bytes as f64 / 1e9
    }

    fn per_second(&self) -> f64 {
        self.gigabytes() / self.seconds
    }

    /// `None` without `--pid`, or when the seeder used less than a clock tick.
    fn per_cpu_second(&self) -> Option<f64> {
        self.seeder_cpu_seconds.filter(|seconds| *seconds > 0.0).map(|seconds| self.gigabytes() / seconds)
    }

    /// One object; the units are in the names. Rates are in 10^9 bytes.
    pub fn json(&self) -> Value {
        json!({
            "connections": self.connections,
            "depth": self.depth,
            "connections_served": self.served,
            "connections_ended": self.refusals.len(),
            "seconds": self.seconds,
            "bytes": self.bytes,
            "gb_per_s": self.per_second(),
            "gb_per_cpu_s": self.per_cpu_second(),
            "seeder_cpu_seconds": self.seeder_cpu_seconds,
            "seeder_resident_bytes": self.seeder_resident_bytes,
            "own_cpu_seconds": self.own_cpu_seconds,
            "jain": self.jain,
            "latency_p50_us": self.latency_p50_ns / 1000,
            "worst_of_mean": self.worst_of_mean,
            "latency_p99_us": self.latency_p99_ns / 1000,
            "latency_p999_us": self.latency_p999_ns / 1000,
            "pieces_checked": self.samples_good + self.samples_bad,
            "pieces_bad": self.samples_bad,
            "blocks_unasked": self.unasked,
            "refusals": self.refusals.iter().take(REFUSALS_SHOWN).collect::<Vec<_>>(),
        })
    }

    /// An error if nothing came, or if something false came.
    pub fn verdict(&self) -> Result<(), BenchError> {
        if self.samples_bad > 0 {
            return Err(BenchError::Failed(format!(
                "{} of {} checked pieces differ from their hash: the seeder serves wrong bytes",
                self.samples_bad,
                self.samples_good + self.samples_bad
            )));
        }
        if self.bytes == 0 {
            let why = self.refusals.first().map_or("it sent no block in time", String::as_str);
            return Err(BenchError::Failed(format!(
                "the seeder served nothing: {why}; see that it has this torrent, and all of it"
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<26}{value}");
        row(
            "served",
            format!("{:.3} GB/s ({} bytes in {:.2} s)", self.per_second(), self.bytes, self.seconds),
        )?;
        if let Some(rate) = self.per_cpu_second() {
            row("per CPU-second of seeder", format!("{rate:.3} GB"))?;
        }
        if let Some(bytes) = self.seeder_resident_bytes {
            row("seeder's memory", format!("{:.1} MiB", bytes as f64 / 1_048_576.0))?;
        }
        row("connections served", format!("{} of {}", self.served, self.connections))?;
        row("Jain index", format!("{:.4}, worst of mean {:.2}", self.jain, self.worst_of_mean))?;
        let ms = |ns: u64| ns as f64 / 1e6;
        let [p50, p99, p999] = [self.latency_p50_ns, self.latency_p99_ns, self.latency_p999_ns].map(ms);
        let depth = self.depth;
        row(
            "block latency",
            format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms (depth {depth})"),
        )?;
        row("pieces checked", format!("{}, bad {}", self.samples_good + self.samples_bad, self.samples_bad))?;
        if let Some(seconds) = self.seeder_cpu_seconds {
            row("seeder's CPU", format!("{seconds:.2} s"))?;
        }
        row("generator's CPU", format!("{:.2} s", self.own_cpu_seconds))?;
        for refusal in self.refusals.iter().take(REFUSALS_SHOWN) {
            row("connection ended", refusal.clone())?;
        }
        Ok(())
    }
}

/// Jain, Chiu and Hawe 1984: 1 when all have the same, 1/n when one has all.
fn jain_index(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// 1 when all have the same, 0 when one has nothing.
fn worst_of_mean(shares: &[u64]) -> f64 {
    let worst = shares.iter().min().copied().unwrap_or(0);
    let sum: u64 = shares.iter().sum();
    if sum == 0 { 0.0 } else { worst as f64 * shares.len() as f64 / sum as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_measured_by_the_mean() {
        assert!((worst_of_mean(&[5, 5]) - 1.0).abs() < 1e-12);
        assert!((worst_of_mean(&[1, 3]) - 0.5).abs() < 1e-12);
        assert!(worst_of_mean(&[0, 9]) < 1e-12 && worst_of_mean(&[]) < 1e-12);
    }

    #[test]
    fn jain_is_one_when_equal_and_one_nth_when_one_has_all() {
        assert!((jain_index(&[5, 5, 5, 5]) - 1.0).abs() < 1e-12);
        assert!((jain_index(&[7, 0, 0, 0]) - 0.25).abs() < 1e-12);
        assert!(jain_index(&[0, 0]) < 1e-12);
        assert!(jain_index(&[]) < 1e-12);
    }
}
