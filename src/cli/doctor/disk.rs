//! The file system below a directory: direct I/O, and room.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::base::human::format_size;
use crate::base::units::PAGE_BYTES;

use super::Check;

pub(super) fn checks(dir: &Path) -> Vec<Check> {
    let name = "file system";
    let shown = dir.display();
    let stat = match rustix::fs::statfs(dir) {
        Ok(stat) => stat,
        Err(errno) => {
            let found = format!("{shown}: {}", io::Error::from(errno));
            return vec![Check::bad(name, found, "give --dir a directory that exists")];
        }
    };
    let kind = type_name(stat.f_type as u64);
    let free = stat.f_bavail.saturating_mul(stat.f_bsize as u64);
    vec![Check::ok(name, format!("{kind} at {shown}, {} free", format_size(free))), direct(dir)]
}

/// Tries it on a file without a name, which leaves nothing behind.
fn direct(dir: &Path) -> Check {
    let name = "direct I/O";
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => file,
        Err(errno) => {
            let found = format!("cannot make a file to try: {}", io::Error::from(errno));
            return Check::warn(name, found, "give --dir a directory that can be written");
        }
    };
    if rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).is_err() {
        let remedy = "works through the page cache, at more CPU time: use ext4 or xfs on a local disk";
        return Check::warn(name, "refused by the file system", remedy);
    }
    alignment_check(name, alignment(&file))
}

/// Alignment in memory and on disk that direct I/O asks for; `None` where the kernel does not tell.
fn alignment(file: &OwnedFd) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let told = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

fn alignment_check(name: &str, alignment: Option<(u32, u32)>) -> Check {
    match alignment {
        None => Check::ok(name, "works; the file system does not tell its alignment"),
        Some((memory, offset)) if offset == 0 || memory.max(offset) > PAGE_BYTES => {
            let found =
                format!("alignment of {memory} in memory and {offset} on disk; 4096 is the most we use");
            Check::warn(name, found, "works through the page cache, at more CPU time: use another disk")
        }
        Some((memory, offset)) => {
            Check::ok(name, format!("works, aligned to {memory} bytes in memory and {offset} on disk"))
        }
    }
}

/// Names from statfs(2).
fn type_name(magic: u64) -> String {
    let name = match magic & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => "overlayfs",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x6573_5546 => "fuse",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        other => return format!("type {other:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn alignments_beyond_a_page_are_told() {
        for (alignment, level) in [
            (None, Level::Ok),
            (Some((4, 512)), Level::Ok),
            (Some((4096, 4096)), Level::Ok),
            (Some((512, 8192)), Level::Warn),
            (Some((0, 0)), Level::Warn),
        ] {
            assert_eq!(alignment_check("direct I/O", alignment).level, level, "{alignment:?}");
        }
    }

    #[test]
    fn a_directory_that_is_missing_is_bad_and_one_that_is_there_is_not() {
        assert_eq!(checks(Path::new("/nonexistent"))[0].level, Level::Bad);
        let dir = tempfile::tempdir().unwrap();
        assert!(checks(dir.path()).iter().all(|check| check.level != Level::Bad));
    }
}
