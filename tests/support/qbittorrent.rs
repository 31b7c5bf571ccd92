//! qbittorrent-nox, told everything by its configuration and its arguments.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::clients::Start;
use super::free_port;

/// The command line; its profile is the scratch directory. `source` is a .torrent file or a magnet link.
pub fn command(start: &Start<'_>, addr: SocketAddr, source: &Path) -> Command {
    let config = start.scratch.join("qBittorrent/config");
    std::fs::create_dir_all(&config).expect("configuration directory");
    let settings = [
        ("AddTrackersEnabled", "false".to_owned()),
        ("BTProtocol", "TCP".to_owned()),
        ("DHTEnabled", "false".to_owned()),
        ("DefaultSavePath", start.dir.display().to_string()),
        ("InterfaceAddress", addr.ip().to_string()),
        ("LSDEnabled", "false".to_owned()),
        ("MultiConnectionsPerIp", "true".to_owned()),
        ("PeXEnabled", "false".to_owned()),
        ("Port", addr.port().to_string()),
        ("QueueingSystemEnabled", "false".to_owned()),
        ("SSRFMitigation", "false".to_owned()),
    ];
    let session: String = settings.iter().map(|(key, value)| format!("Session\\{key}={value}\n")).collect();
    let text = format!(
        "[LegalNotice]\nAccepted=true\n[BitTorrent]\n{session}[Network]\nPortForwardingEnabled=false\n\
         [Preferences]\nWebUI\\Address=127.0.0.1\nWebUI\\Port={}\n",
        free_port()
    );
    std::fs::write(config.join("qBittorrent.conf"), text).expect("write the configuration");
    let mut command = Command::new("qbittorrent-nox");
    command.arg(format!("--profile={}", start.scratch.display()));
    command.arg(format!("--save-path={}", start.dir.display())).arg("--skip-dialog=true").arg(source);
    command
}
