//! What the kernel says of a process and of its own memory, and on which CPU this process runs.

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

/// Memory that the kernel uses for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KernelMemory {
    /// In the buffers of TCP sockets.
    pub socket_bytes: u64,
    /// For its objects, sockets and epoll entries among them.
    pub slab_bytes: u64,
}

impl KernelMemory {
    /// Reads `/proc/net/sockstat` and `/proc/meminfo`.
    pub fn read() -> Result<Self, BenchError> {
        let number = |path: &str, line: &str, word: &str| {
            let text = std::fs::read_to_string(path).map_err(|error| BenchError::io(path, error))?;
            number_after(&text, line, word)
                .ok_or_else(|| BenchError::Failed(format!("{path}: no number after {line} {word}")))
        };
        let pages = number("/proc/net/sockstat", "TCP:", "mem")?;
        let slab_kib = number("/proc/meminfo", "Slab:", "Slab:")?;
        Ok(Self { socket_bytes: pages * rustix::param::page_size() as u64, slab_bytes: slab_kib << 10 })
    }
}

/// The number behind `word` in the line that begins with `line`.
fn number_after(text: &str, line: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|candidate| candidate.starts_with(line))?;
    let mut words = line.split_whitespace().skip_while(|candidate| *candidate != word);
    words.nth(1)?.parse().ok()
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
    fn numbers_are_found_by_their_line_and_word() {
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 mem 17\nSlab:   300 kB\n";
        assert_eq!(number_after(text, "TCP:", "mem"), Some(17));
        assert_eq!(number_after(text, "Slab:", "Slab:"), Some(300));
        assert_eq!(number_after(text, "TCP:", "tw"), None);
        assert_eq!(number_after(text, "UDP:", "mem"), None);
        assert!(KernelMemory::read().is_ok_and(|memory| memory.slab_bytes > 0));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).expect("own process");
        assert!(usage.resident_bytes > 0);
    }
}
