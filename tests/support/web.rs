//! Web servers: nginx as it is installed, and one that answers as a test says.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::poll;

/// A running nginx that serves a directory; ended when it goes out of scope.
pub struct Nginx {
    child: Child,
    /// Where it accepts.
    pub addr: SocketAddr,
    log: PathBuf,
}

/// Debian's is not on a user's path.
fn nginx() -> Command {
    let debian = Path::new("/usr/sbin/nginx");
    Command::new(if debian.exists() { debian } else { Path::new("nginx") })
}

/// Whether nginx is installed.
pub fn has_nginx() -> bool {
    nginx().arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Nginx {
    /// Serves `root`; `more` goes into its server block.
    pub fn start(scratch: &Path, name: &str, root: &Path, more: &str) -> Self {
        Self::listen(scratch, name, root, more, "")
    }

    /// The same over TLS, with a certificate chain and its key in PEM.
    pub fn start_tls(scratch: &Path, name: &str, root: &Path, [chain, key]: [&Path; 2]) -> Self {
        let more =
            format!("ssl_certificate \"{}\";\nssl_certificate_key \"{}\";", chain.display(), key.display());
        Self::listen(scratch, name, root, &more, " ssl")
    }

    fn listen(scratch: &Path, name: &str, root: &Path, more: &str, ssl: &str) -> Self {
        let dir = scratch.join(name);
        fs::create_dir_all(&dir).expect("a directory for nginx");
        // The kernel chooses a port; somebody else may take it before nginx does, which then ends.
        loop {
            let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let addr = probe.local_addr().expect("an address");
            drop(probe);
            let config = dir.join("nginx.conf");
            fs::write(&config, text(&dir, root, &format!("{addr}{ssl}"), more)).expect("nginx.conf");
            let mut child = nginx()
                .arg("-p")
                .arg(&dir)
                .arg("-c")
                .arg(&config)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx starts");
            let up = poll("nginx accepts or ends", || match child.try_wait().expect("a child") {
                Some(_) => Some(false),
                None => TcpStream::connect(addr).is_ok().then_some(true),
            });
            if up {
                return Self { child, addr, log: dir.join("access.log") };
            }
            let errors = fs::read_to_string(dir.join("error.log")).unwrap_or_default();
            assert!(errors.contains("Address already in use"), "nginx: {errors}");
        }
    }

    /// Status and range of each request so far.
    pub fn requests(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(dir: &Path, root: &Path, listen: &str, more: &str) -> String {
    let (dir, root) = (dir.display(), root.display());
    let temp = |what: &str| format!("{what}_temp_path \"{dir}/{what}\";\n");
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).concat();
    format!(
        "daemon off;\nmaster_process off;\npid \"{dir}/pid\";\nerror_log \"{dir}/error.log\";\n\
         events {{}}\nhttp {{\n{temps}\
         log_format ranges '$status $http_range';\naccess_log \"{dir}/access.log\" ranges;\n\
         sendfile on;\nserver {{\nlisten {listen};\nroot \"{root}\";\n{more}\n}}\n}}\n"
    )
}

/// What a server was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// First and last byte.
    pub range: (u64, u64),
}

/// A server that answers as it is told.
pub struct Server {
    /// Where it accepts.
    pub addr: SocketAddr,
}

impl Server {
    /// `answer` writes whole answers, one per request of a connection; an error ends that.
    pub fn start(
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { addr }
    }
}

fn serve(mut stream: TcpStream, answer: &(impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + ?Sized)) {
    let Ok(clone) = stream.try_clone() else { return };
    let mut lines = BufReader::new(clone).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let target = first.split(' ').nth(1).expect("a request line").to_owned();
        let mut range = (0, u64::MAX);
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let line = line.to_lowercase();
            if let Some((first, last)) =
                line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-'))
            {
                range = (first.parse().expect("a number"), last.parse().expect("a number"));
            }
        }
        if answer(&Asked { target, range }, &mut stream).is_err() || stream.flush().is_err() {
            return;
        }
    }
}

/// The answer with the range that was asked for, out of `file`.
pub fn range_of(file: &[u8], asked: &Asked) -> Vec<u8> {
    let (first, last) = asked.range;
    let bytes = &file[first as usize..=last as usize];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\n\
         Content-Length: {}\r\n\r\n",
        file.len(),
        bytes.len()
    );
    [head.as_bytes(), bytes].concat()
}
