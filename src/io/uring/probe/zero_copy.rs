//! Whether a zero-copy send is honoured: tried over loopback, where the kernel says what it did.
#![allow(unsafe_code)] // One send on a ring of the probe's own.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, types};

use super::super::setup::{self, ENTRIES_MIN};
use super::{Check, Verdict, good};

/// `IORING_SEND_ZC_REPORT_USAGE` of io_uring.h: the notification says whether the bytes were copied.
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED` of io_uring.h.
const COPIED: u32 = 1 << 31;
/// Enough that the kernel would not rather copy.
const SEND_BYTES: usize = 64 << 10;
/// The notification comes at once, or the probe does without it.
const PATIENCE_SECONDS: u64 = 1;

const NAME: &str = "zero-copy send";

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    Honoured,
    Copied,
    /// A kernel before 6.2, or no notification.
    NotTold,
}

/// Sends once over loopback. A node works without zero copy, so nothing here is worse than a warning.
pub(super) fn check() -> Check {
    match setup::build(ENTRIES_MIN).map_err(io::Error::other).and_then(send_one) {
        Ok(Usage::Honoured) => good(NAME, "works, honoured even over 127.0.0.1"),
        Ok(Usage::Copied) => good(
            NAME,
            "works; copied over 127.0.0.1, as always there: for other peers the network card decides, and \
             each connection goes by what the kernel reports",
        ),
        Ok(Usage::NotTold) => good(NAME, "works; this kernel does not tell whether it copied"),
        Err(error) => Check {
            name: NAME,
            verdict: Verdict::Warn,
            detail: format!("does not work: {error}"),
            remedy: "sends are copied, at more CPU time: run Linux 6.2 or newer, with enough locked memory"
                .into(),
        },
    }
}

fn send_one(mut ring: IoUring) -> io::Result<Usage> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    // Leaked, once per process: should no notification come, the kernel may keep it for ever.
    let payload = Box::leak(vec![0u8; SEND_BYTES].into_boxed_slice());
    let part =
        Box::leak(Box::new(libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: SEND_BYTES }));
    // SAFETY: all zero is a valid msghdr: no address, no parts, no control data.
    let message: &mut libc::msghdr = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
    (message.msg_iov, message.msg_iovlen) = (part, 1);
    let send = opcode::SendMsgZc::new(types::Fd(sender.as_raw_fd()), message);
    // SAFETY: message, part and payload are never freed, and the kernel holds the socket itself.
    unsafe { ring.submission().push(&send.ioprio(REPORT_USAGE).build()) }.map_err(io::Error::other)?;
    let sent = next(&mut ring)?.ok_or(io::ErrorKind::TimedOut)?;
    if sent.result() < 0 {
        return Err(io::Error::from_raw_os_error(-sent.result()));
    }
    if !cqueue::more(sent.flags()) {
        return Ok(Usage::NotTold);
    }
    // What lies unread could hold the memory.
    receiver.set_read_timeout(Some(Duration::from_secs(PATIENCE_SECONDS)))?;
    receiver.read_exact(&mut vec![0; sent.result() as usize])?;
    let Some(notification) = next(&mut ring)? else { return Ok(Usage::NotTold) };
    let copied = notification.result() as u32 & COPIED != 0;
    Ok(if copied { Usage::Copied } else { Usage::Honoured })
}

/// The next completion, unless it takes too long.
fn next(ring: &mut IoUring) -> io::Result<Option<cqueue::Entry>> {
    let time = Timespec::new().sec(PATIENCE_SECONDS);
    match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)) {
        Err(error) if error.raw_os_error() != Some(libc::ETIME) => return Err(error),
        _ => {}
    }
    Ok(ring.completion().next())
}
