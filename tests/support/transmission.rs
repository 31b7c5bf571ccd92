//! transmission-daemon by its JSON RPC.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::clients::{Job, Speech, Start};
use super::{free_port, poll};

/// The command line; its configuration goes to the scratch directory.
pub fn command(start: &Start<'_>, addr: SocketAddr, speech: Speech) -> Command {
    let rpc_port = free_port();
    let settings = json!({
        "bind-address-ipv4": addr.ip().to_string(),
        "dht-enabled": false,
        "download-dir": start.dir,
        "encryption": if speech == Speech::Encrypted { 2 } else { 0 },
        "lpd-enabled": false,
        "peer-port": addr.port(),
        "peer-socket-tos": "default",
        "pex-enabled": true,
        "port-forwarding-enabled": false,
        "rpc-bind-address": "127.0.0.1",
        "rpc-port": rpc_port,
        "rpc-whitelist-enabled": false,
        "speed-limit-down": 1,
        "speed-limit-down-enabled": start.job == Job::Starve,
        "utp-enabled": false,
    });
    std::fs::write(start.scratch.join("settings.json"), settings.to_string()).expect("write settings");
    std::fs::write(start.scratch.join("rpc-port"), rpc_port.to_string()).expect("write the RPC port");
    let mut command = Command::new("transmission-daemon");
    command.arg("--foreground").arg("--config-dir").arg(start.scratch);
    command
}

/// Adds the torrent; a seed hashes its payload first.
pub fn add(start: &Start<'_>, file: &Path) {
    let port = std::fs::read_to_string(start.scratch.join("rpc-port")).expect("the RPC port");
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    let session = poll("transmission's RPC", || session_id(addr));
    let call = |method: &str, arguments: Value| {
        let body = json!({ "method": method, "arguments": arguments });
        let answer = post(addr, &session, &body.to_string()).expect("transmission answers");
        assert!(answer.contains(r#""result":"success""#), "{method}: {answer}");
    };
    let seed = start.job == Job::Seed;
    call("torrent-add", json!({ "filename": file, "download-dir": start.dir, "paused": seed }));
    if seed {
        call("torrent-verify", json!({}));
        call("torrent-start", json!({}));
    }
}

/// The token that transmission wants to hear back, from its refusal of a call without it.
fn session_id(addr: SocketAddr) -> Option<String> {
    let answer = post(addr, "", "{}").ok()?;
    let line = answer.lines().find(|line| line.starts_with("X-Transmission-Session-Id:"))?;
    Some(line.split_once(": ")?.1.trim().to_owned())
}

fn post(addr: SocketAddr, session: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    write!(
        stream,
        "POST /transmission/rpc HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         X-Transmission-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
