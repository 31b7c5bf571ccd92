//! What this host allows, for `troc doctor`. Everything is tried; nothing is concluded from the
//! kernel's version.
#![allow(unsafe_code)] // A registration and an accept on a ring of the probe's own.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, Probe, cqueue, opcode, types};

use crate::base::ids::SlotId;
use crate::base::limits::ZERO_COPY_BYTES_MIN;
use crate::base::time::Span;
use crate::io::arena::{Arena, REGION_BYTES};
use crate::io::{Completion, Io, Segment};

use super::setup::{self, ENTRIES_MIN, Memlock};
use super::{Uring, UringConfig, UringSocket, ZeroCopy};

/// What takes longer than this does not work.
const PATIENCE: Span = Span::from_secs(1);

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, at some cost.
    Warn,
    /// Nothing works before this is mended.
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: String,
}

/// What is asked of the kernel, and whether nothing works without it.
const OPCODES: [(&str, u8, Verdict); 12] = [
    ("connect", opcode::Connect::CODE, Verdict::Bad),
    ("recv", opcode::Recv::CODE, Verdict::Bad),
    ("recvmsg", opcode::RecvMsg::CODE, Verdict::Bad),
    ("send", opcode::Send::CODE, Verdict::Bad),
    ("sendmsg", opcode::SendMsg::CODE, Verdict::Bad),
    ("read", opcode::Read::CODE, Verdict::Bad),
    ("read_fixed", opcode::ReadFixed::CODE, Verdict::Bad),
    ("write_fixed", opcode::WriteFixed::CODE, Verdict::Bad),
    ("async_cancel", opcode::AsyncCancel::CODE, Verdict::Bad),
    ("msg_ring", opcode::MsgRingData::CODE, Verdict::Warn),
    ("send_zc", opcode::SendZc::CODE, Verdict::Warn),
    ("sendmsg_zc", opcode::SendMsgZc::CODE, Verdict::Warn),
];

/// Tries what a worker's ring needs. Stops at the first failure after which nothing can be tried.
pub fn probe() -> Vec<Check> {
    let ring = match setup::build(ENTRIES_MIN) {
        Ok(ring) => ring,
        Err(error) => {
            let (what, remedy) = split(&error.to_string());
            return vec![Check { name: "io_uring", verdict: Verdict::Bad, detail: what, remedy }];
        }
    };
    let mut checks = vec![flags(&ring)];
    checks.extend(opcodes(&ring));
    checks.push(accept(ring));
    checks.push(memlock());
    checks.push(zero_copy());
    checks
}

/// A setup error reads "what is wrong: how to mend it" or "...; how to mend it".
fn split(text: &str) -> (String, String) {
    let at = text.rfind("; ").or_else(|| text.rfind(": "));
    at.map_or_else(
        || (text.to_owned(), String::new()),
        |at| (text[..at].to_owned(), text[at + 2..].to_owned()),
    )
}

fn good(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, detail: detail.into(), remedy: String::new() }
}

fn flags(ring: &IoUring) -> Check {
    let optional = [
        ("no_iowait", ring.params().is_feature_no_iowait()),
        ("min_timeout", ring.params().is_feature_min_timeout()),
        ("send bundles", ring.params().is_feature_recvsend_bundle()),
    ];
    let mut detail = String::from("available, with single_issuer, defer_taskrun, submit_all");
    for (name, there) in optional {
        detail.push_str(if there { ", " } else { ", no " });
        detail.push_str(name);
    }
    good("io_uring", detail)
}

/// One line if all are there, else one line for each that is missing.
fn opcodes(ring: &IoUring) -> Vec<Check> {
    let mut known = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut known) {
        let detail = format!("cannot be asked for: {error}");
        let remedy = String::from("allow io_uring_register in the seccomp profile");
        return vec![Check { name: "operations", verdict: Verdict::Bad, detail, remedy }];
    }
    let missing: Vec<_> = OPCODES.iter().filter(|(_, code, _)| !known.is_supported(*code)).collect();
    if missing.is_empty() {
        let names: Vec<_> = OPCODES.iter().map(|(name, ..)| *name).collect();
        return vec![good("operations", names.join(", "))];
    }
    let line = |(name, _, verdict): &&(&'static str, u8, Verdict)| Check {
        name,
        verdict: *verdict,
        detail: "this kernel does not have it".into(),
        remedy: "run Linux 6.1 or newer".into(),
    };
    missing.iter().map(line).collect()
}

/// Accepts one connection from ourselves over loopback.
fn accept(ring: IoUring) -> Check {
    const NAME: &str = "multishot accept";
    let bad = |detail: String| Check {
        name: NAME,
        verdict: Verdict::Bad,
        detail,
        remedy: "run Linux 6.1 or newer; allow TCP over 127.0.0.1".into(),
    };
    match accept_one(ring) {
        Ok(true) => good(NAME, "works, over 127.0.0.1"),
        Ok(false) => bad("ends after one connection".into()),
        Err(error) => bad(error.to_string()),
    }
}

/// Whether the accept stays armed after its first connection.
fn accept_one(mut ring: IoUring) -> io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
    // SAFETY: the kernel holds the listener's file itself once it has taken the submission, which
    // the next call makes it do; no memory is named.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next();
    let Some(cqe) = completion else { return Err(io::ErrorKind::Interrupted.into()) };
    if cqe.result() < 0 {
        return Err(io::Error::from_raw_os_error(-cqe.result()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(cqe.result()) });
    Ok(cqueue::more(cqe.flags()))
}

/// Registers one region of the arena as a worker would.
fn memlock() -> Check {
    let limit = Memlock::current();
    let costly = |detail: String| Check {
        name: "locked memory",
        verdict: Verdict::Warn,
        detail,
        remedy: "raise `ulimit -l`, or set LimitMEMLOCK=infinity in the systemd unit".into(),
    };
    match register() {
        Ok(()) => good(
            "locked memory",
            format!("limit {limit}; {} MiB of cache registered in a trial", REGION_BYTES >> 20),
        ),
        Err(error) => costly(format!("limit {limit}; registering cache memory fails: {error}")),
    }
}

fn register() -> io::Result<()> {
    let arena = Arena::new(0).map_err(io::Error::other)?;
    let ring = setup::build(ENTRIES_MIN).map_err(io::Error::other)?;
    ring.submitter().register_buffers_sparse(1)?;
    // SAFETY: the arena outlives the ring, which is dropped first.
    unsafe { ring.submitter().register_buffers_update(0, &[arena.region_iovec(0)], None) }
}

/// Sends once without a copy as a worker would, to ourselves.
fn zero_copy() -> Check {
    const NAME: &str = "zero-copy send";
    let without = |detail: String| Check {
        name: NAME,
        verdict: Verdict::Warn,
        detail,
        remedy: "run Linux 6.15 or newer; raise `ulimit -l`, or set LimitMEMLOCK=infinity".into(),
    };
    match send_one() {
        Ok(true) => good(
            NAME,
            format!(
                "available; used from {} KiB up on each connection whose network honours it (loopback and \
                 veth do not)",
                ZERO_COPY_BYTES_MIN >> 10
            ),
        ),
        Ok(false) => without("not used, each send is copied: the kernel refuses it for cache memory".into()),
        Err(error) => without(format!("not used, each send is copied: {error}")),
    }
}

/// Whether the kernel held the memory of a send.
fn send_one() -> io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let arena = Arc::new(Arena::new(0).map_err(io::Error::other)?);
    let (shared, zero_copy, entries) = (None, ZeroCopy::Force, ENTRIES_MIN);
    let config = UringConfig { listen: None, connections_max: 1, arena, shared, zero_copy, entries };
    let mut uring = Uring::new(config).map_err(io::Error::other)?;
    let conn = uring.attach(UringSocket::new(client.into())).map_err(|_| io::ErrorKind::Other)?;
    uring.send(conn, &[Segment::Payload { slot: SlotId(0), offset: 0, len: ZERO_COPY_BYTES_MIN }]);
    let deadline = uring.now() + PATIENCE;
    let mut done = Vec::new();
    while uring.now() < deadline {
        uring.turn(Some(deadline), &mut done);
        if let Some(Completion::Sent { result, held, .. }) =
            done.iter().find(|done| matches!(done, Completion::Sent { .. }))
        {
            return result.map(|_| *held).map_err(|errno| io::Error::from_raw_os_error(errno.0));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_runs_these_tests_has_what_a_worker_needs() {
        let checks = probe();
        assert!(checks.len() >= 4);
        for check in checks {
            assert_ne!(check.verdict, Verdict::Bad, "{check:?}");
            assert_eq!(check.verdict == Verdict::Ok, check.remedy.is_empty(), "{check:?}");
            assert!(!check.detail.contains('\n'));
        }
    }

    #[test]
    fn a_refusal_is_split_into_what_and_how_to_mend_it() {
        let (what, remedy) = split(&setup::SetupError::Disabled(2).to_string());
        assert!(what.contains("io_uring_disabled is 2") && remedy.starts_with("set it to 0"));
        let (what, remedy) = split(&setup::SetupError::Memlock(Memlock(Some(64 << 10))).to_string());
        assert!(what.contains("64 KiB") && remedy.starts_with("raise `ulimit -l`"));
    }
}
