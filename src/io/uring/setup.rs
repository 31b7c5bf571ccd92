//! Making a ring: what the kernel allows is found by trying, and a refusal says how to mend it.

use std::io;

use io_uring::IoUring;

/// Fewest submission entries that are tried before memory is called too short.
pub const ENTRIES_MIN: u32 = 64;
/// Completion entries per submission entry: most connections have a receive armed all the time.
const CQ_PER_SQ: u32 = 8;
/// Worker threads of the kernel per ring, for file operations and for sockets: few, because only
/// what the kernel cannot do asynchronously ends there.
const KERNEL_WORKERS_MAX: [u32; 2] = [2, 2];

/// Why there is no ring, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The sysctl forbids it.
    #[error(
        "io_uring is switched off: sysctl kernel.io_uring_disabled is {0}; set it to 0, or to 1 and \
         put this user into the group of sysctl kernel.io_uring_group"
    )]
    Disabled(u32),
    /// EPERM although the sysctl allows it: a system call filter.
    #[error(
        "io_uring is refused here (EPERM), most likely by a seccomp filter: in Docker, run with \
         --security-opt seccomp=unconfined or with a profile that allows the io_uring calls"
    )]
    Refused,
    /// ENOSYS.
    #[error("this kernel has no io_uring; run Linux 6.1 or newer, built with CONFIG_IO_URING")]
    Missing,
    /// EINVAL for every set of flags.
    #[error("io_uring of this kernel ({0}) is too old: it has no DEFER_TASKRUN; run Linux 6.1 or newer")]
    TooOld(String),
    /// ENOMEM down to the smallest ring.
    #[error(
        "no locked memory left for io_uring (limit {0}): raise `ulimit -l`, or set \
         LimitMEMLOCK=infinity in the systemd unit"
    )]
    Memlock(Memlock),
    /// EMFILE or ENFILE.
    #[error("no file descriptor left for io_uring: raise `ulimit -n`, or LimitNOFILE in the systemd unit")]
    Files,
    /// Anything else.
    #[error("cannot set up io_uring ({step}): {error}; `troc doctor` shows what this host allows")]
    Other {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// The soft limit on locked memory, in bytes; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock(pub Option<u64>);

impl Memlock {
    /// The limit of this process.
    pub fn current() -> Self {
        Self(rustix::process::getrlimit(rustix::process::Resource::Memlock).current)
    }
}

impl std::fmt::Display for Memlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} KiB", bytes >> 10),
            None => f.write_str("unlimited"),
        }
    }
}

/// Whether this process may have a ring at all.
pub fn check() -> Result<(), SetupError> {
    build(ENTRIES_MIN).map(drop)
}

/// A ring of at most `entries` submissions, owned by the calling thread: only it may use the ring.
pub(super) fn build(entries: u32) -> Result<IoUring, SetupError> {
    let mut entries = entries.max(1);
    loop {
        match build_exactly(entries) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && entries > ENTRIES_MIN => {
                entries = (entries / 2).max(ENTRIES_MIN);
            }
            Err(error) => return Err(explain("io_uring_setup", error)),
            Ok(ring) => {
                let mut workers = KERNEL_WORKERS_MAX;
                let limited = ring.submitter().register_iowq_max_workers(&mut workers);
                limited.map_err(|error| explain("limit of kernel workers", error))?;
                return Ok(ring);
            }
        }
    }
}

/// Tries with and without what Linux 6.6 brought; what 6.1 has is needed.
fn build_exactly(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_submit_all().setup_cqsize(entries.saturating_mul(CQ_PER_SQ));
    builder.setup_single_issuer().setup_defer_taskrun();
    let mut newer = builder.clone();
    match newer.setup_no_sqarray().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(entries),
        result => result,
    }
}

/// Sorts the kernel's answer by how to mend it.
pub fn explain(step: &'static str, error: io::Error) -> SetupError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::Missing,
        Some(libc::EPERM) => match disabled_sysctl() {
            0 => SetupError::Refused,
            level => SetupError::Disabled(level),
        },
        Some(libc::EINVAL) => {
            let release = rustix::system::uname().release().to_string_lossy().escape_debug().to_string();
            SetupError::TooOld(release)
        }
        Some(libc::ENOMEM) => SetupError::Memlock(Memlock::current()),
        Some(libc::EMFILE | libc::ENFILE) => SetupError::Files,
        _ => SetupError::Other { step, error },
    }
}

/// `kernel.io_uring_disabled`; 0 where there is no such sysctl.
pub(super) fn disabled_sysctl() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_one_line_that_names_the_remedy() {
        let cases = [
            (libc::ENOSYS, "CONFIG_IO_URING"),
            (libc::EPERM, "io_uring"),
            (libc::EINVAL, "6.1"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EBUSY, "troc doctor"),
        ];
        for (errno, remedy) in cases {
            let text = explain("a step", io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(remedy) && !text.contains('\n'), "{text}");
        }
        assert!(SetupError::Refused.to_string().contains("seccomp"));
        assert!(SetupError::Disabled(2).to_string().contains("io_uring_disabled is 2"));
    }

    #[test]
    fn the_limit_reads_as_people_write_it() {
        assert_eq!(Memlock(Some(8 << 20)).to_string(), "8192 KiB");
        assert_eq!(Memlock(None).to_string(), "unlimited");
    }
}
