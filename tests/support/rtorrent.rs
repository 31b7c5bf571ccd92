//! rtorrent without a terminal, by its SCGI socket.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::clients::Start;
use super::poll;

fn socket(scratch: &Path) -> PathBuf {
    scratch.join("scgi")
}

/// The command line; its configuration goes to the scratch directory.
pub fn command(start: &Start<'_>, addr: SocketAddr, file: &Path) -> Command {
    let session = start.scratch.join("session");
    std::fs::create_dir_all(&session).expect("session directory");
    let config = format!(
        "system.daemon.set = true\n\
         network.port_range.set = {port}-{port}\n\
         network.port_random.set = no\n\
         network.bind_address.set = {ip}\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         trackers.use_udp.set = no\n\
         directory.default.set = {dir}\n\
         session.path.set = {session}\n\
         network.scgi.open_local = {socket}\n\
         schedule2 = load, 0, 0, ((load.start, {file}))\n",
        port = addr.port(),
        ip = addr.ip(),
        dir = start.dir.display(),
        session = session.display(),
        socket = socket(start.scratch).display(),
        file = file.display(),
    );
    let path = start.scratch.join("rtorrent.rc");
    std::fs::write(&path, config).expect("write the configuration");
    let mut command = Command::new("rtorrent");
    command.arg("-n").arg("-o").arg(format!("import={}", path.display())).env("HOME", start.scratch);
    command
}

/// Has rtorrent dial a peer.
pub fn add_peer(scratch: &Path, info_hash: [u8; 20], peer: SocketAddr) {
    poll("rtorrent takes a peer", || call(scratch, "add_peer", info_hash, Some(peer)));
}

/// Waits until rtorrent has everything: it tells its tracker only after minutes.
pub fn wait_complete(scratch: &Path, info_hash: [u8; 20]) {
    poll("rtorrent completes", || {
        let answer = call(scratch, "d.complete", info_hash, None)?;
        answer.contains("<i8>1</i8>").then_some(())
    });
}

/// One XML-RPC call about the torrent; `None` until rtorrent is there and knows it.
fn call(scratch: &Path, method: &str, info_hash: [u8; 20], peer: Option<SocketAddr>) -> Option<String> {
    let hash: String = info_hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let parameters: String = [Some(hash), peer.map(|peer| peer.to_string())]
        .into_iter()
        .flatten()
        .map(|text| format!("<param><value><string>{text}</string></value></param>"))
        .collect();
    let body = format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName>\
         <params>{parameters}</params></methodCall>"
    );
    let answer = scgi(&socket(scratch), &body).ok()?;
    (answer.contains("200 OK") && !answer.contains("faultCode")).then_some(answer)
}

fn scgi(socket: &Path, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    let headers = format!("CONTENT_LENGTH\0{}\0SCGI\x001\0", body.len());
    write!(stream, "{}:{headers},{body}", headers.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
