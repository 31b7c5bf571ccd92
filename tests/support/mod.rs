//! What the tests of the built binary share: torrents made by hand, a tracker, drivers of `troc` and
//! of other clients. Nothing here uses the library's own parsers: two mistakes that agree would hide.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests of real processes have real clocks and threads")]

pub mod bridge;
pub mod clients;
pub mod node;
pub mod process;
pub mod qbittorrent;
pub mod rtorrent;
pub mod scene;
pub mod torrent;
pub mod tracker;
pub mod transmission;
pub mod web;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long any one step may take before the test fails. Generous: it only ends what hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether a missing client is a failure instead of a named skip.
pub fn nothing_may_be_skipped() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says which test did not run and why; fails it where nothing may be skipped.
pub fn skip(what: &str, why: &str) {
    assert!(!nothing_may_be_skipped(), "{what}: {why}; CI=true forbids to skip (run scripts/setup)");
    eprintln!("SKIPPED {what}: {why}");
}

/// A port for a client that cannot be told to let the kernel choose. They lie below the range that
/// the kernel gives to others; test processes that run at once have neighbouring ids and so differ.
pub fn free_port() -> u16 {
    static USED: AtomicU16 = AtomicU16::new(0);
    const PER_PROCESS: u16 = 16;
    let home = 10_000 + (std::process::id() % 1_300) as u16 * PER_PROCESS;
    loop {
        let port = home + USED.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Asks again until the answer is there. Only for programs that can tell nothing by themselves.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What one GET brings: the status line with the headers, and the body.
pub fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the metrics port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // In one write: a request that is refused at its first word may be answered before a second write.
    let request = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a reply in UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole reply");
    (head.to_owned(), body.to_owned())
}
