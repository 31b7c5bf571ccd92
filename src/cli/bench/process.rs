//! What the kernel says of a process, and on which CPU this one runs.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::BenchError;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time since its start, in seconds, to a clock tick (10 ms).
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads `/proc/PID/stat` and `/proc/PID/statm`.
    pub fn of(pid: u32) -> Result<Self, BenchError> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).map_err(|error| BenchError::io(&path, error))
        };
        let ticks = cpu_ticks(&read("stat")?);
        let pages = read("statm")?.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        match (ticks, pages) {
            (Some(ticks), Some(pages)) => Ok(Self {
                cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
                resident_bytes: pages * rustix::param::page_size() as u64,
            }),
            _ => Err(BenchError::Failed(format!("/proc/{pid}: not in the form that proc(5) describes"))),
        }
    }
}

/// `utime + stime`, fields 14 and 15. The command in field 2 may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(") ")?;
    let mut fields = after_command.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: Option<usize>) -> Result<(), BenchError> {
    let Some(cpu) = cpu else { return Ok(()) };
    if cpu >= CpuSet::MAX_CPU {
        return Err(BenchError::Usage(format!("--cpu {cpu}: the highest is {}", CpuSet::MAX_CPU - 1)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|error| BenchError::Usage(format!("--cpu {cpu}: {error}; see `nproc` and `taskset -p`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 70 5 8 9 20 0 1 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(75));
        assert_eq!(cpu_ticks("42 (short) S 1 2"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).expect("own process");
        assert!(usage.resident_bytes > 0);
    }
}
