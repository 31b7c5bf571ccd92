//! Latencies by powers of two with sixteen steps each: every figure is right to 6 %.

const STEPS: usize = 16;
const STEP_BITS: u32 = 4;

/// Counts of values in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * 61] }
    }
}

impl Histogram {
    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
    }

    /// The value that a share of `per_mille` of all lie at or below, rounded down; 0 without any.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let rank = (total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return floor(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let power = value.ilog2();
    let step = (value >> (power - STEP_BITS)) as usize - STEPS;
    STEPS * (power - STEP_BITS + 1) as usize + step
}

/// The smallest value of a bucket.
fn floor(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let power = (index / STEPS - 1) as u32;
    ((STEPS + index % STEPS) as u64) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_what_rounds_down_to_its_floor() {
        for value in (0..4096).chain([1 << 20, (1 << 40) + 12_345, u64::MAX]) {
            let low = floor(bucket(value));
            assert!(low <= value && (value - low) as f64 <= value as f64 / 16.0, "{value} {low}");
        }
        assert_eq!(bucket(u64::MAX), STEPS * 61 - 1);
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        for value in 1..=10 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(500), 5);
        assert_eq!(histogram.quantile(990), 10);
        assert_eq!(histogram.quantile(0), 1);
    }
}
