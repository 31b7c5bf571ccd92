//! Web seeds of the real program: nginx as a source, and servers that lie.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use support::node::{Node, Status, get, relay, troc};
use support::torrent::Torrent;
use support::web::{Nginx, Server, has_nginx, range_of};
use support::{poll, skip};

const PIECE: u64 = 64 << 10;
const TOTAL: u64 = (5 << 20) + 12_345;

/// A torrent on disk in a directory of its own.
struct Scene {
    temp: TempDir,
    torrent: Torrent,
    file: PathBuf,
}

impl Scene {
    fn single() -> Self {
        Self::of(|source| Torrent::single(source, "whole.bin", TOTAL, PIECE, 1))
    }

    fn of(make: impl Fn(&Path) -> Torrent) -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let torrent = make(&temp.path().join("source"));
        let file = torrent.write(&temp.path().join("a.torrent"), None);
        Self { temp, torrent, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// `troc get` from these web seeds alone.
    fn get(&self, web_seeds: &[String]) -> Command {
        let mut command = get(&self.file, &self.path("got"), self.temp.path());
        command.args(["--listen", "127.0.0.1:0"]);
        for url in web_seeds {
            command.arg("--web-seed").arg(url);
        }
        command
    }

    /// Runs it to its end; the last status.
    fn fetch(&self, command: &mut Command) -> Status {
        let mut node = Node::spawn("get", command, self.temp.path());
        let mut last = None;
        while let Some(status) = node.next_status() {
            last = Some(status);
        }
        node.expect_done();
        self.torrent.assert_identical(&self.path("got"), "troc get");
        last.expect("a status")
    }

    fn payload(&self) -> Vec<u8> {
        fs::read(self.torrent.source.join(&self.torrent.name)).expect("the payload")
    }
}

/// Runs a `get` that cannot succeed; its line of error.
fn give_up(command: &mut Command) -> String {
    let output: Output = command
        .args(["--no-peers-timeout-ms", "1000"])
        .stdin(Stdio::null())
        .output()
        .expect("a command that can be started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.lines().rfind(|line| line.starts_with("troc: ")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn url(server: std::net::SocketAddr, path: &str) -> String {
    format!("http://{server}/{path}")
}

#[test]
fn a_single_file_comes_from_nginx_alone_in_ranges() {
    if !has_nginx() {
        return skip("web seed", "nginx is not installed");
    }
    let scene = Scene::single();
    let nginx = Nginx::start(scene.temp.path(), "nginx", &scene.torrent.source, "");
    let last = scene.fetch(&mut scene.get(&[url(nginx.addr, "whole.bin")]));
    // What comes twice at the end is not counted.
    assert_eq!(last.bytes("web_seed_bytes"), TOTAL, "{last:?}");
    let requests = nginx.requests();
    let ranges: Vec<_> = requests.iter().filter(|line| line.starts_with("206 bytes=")).collect();
    assert!(!ranges.is_empty() && ranges.len() as u64 <= TOTAL.div_ceil(16 << 10), "{requests:?}");
}

#[test]
fn the_web_seed_of_a_torrent_made_here_has_names_of_all_kinds() {
    if !has_nginx() {
        return skip("web seed", "nginx is not installed");
    }
    let odd =
        ["a b.bin", "é.bin", "x#y?z.bin", "50%25.bin", "empty", "sub dir/&+;=@,.bin", "sub dir/[1].bin"];
    let files: Vec<(&str, u64)> =
        odd.iter().map(|&name| (name, if name == "empty" { 0 } else { 100_003 })).collect();
    let scene = Scene::of(|source| Torrent::multi(source, "odd é", &files, PIECE, 2));
    let nginx = Nginx::start(scene.temp.path(), "nginx", &scene.torrent.source, "");
    for base in ["", "/"] {
        let made = scene.path("made.torrent");
        let mut create = troc("create", scene.temp.path());
        create.arg(scene.torrent.source.join("odd é")).arg("-o").arg(&made);
        create.arg("--web-seed").arg(format!("http://{}{base}", nginx.addr));
        assert!(create.output().expect("it starts").status.success());
        let out = scene.path(&format!("got{}", base.len()));
        let mut command = get(&made, &out, scene.temp.path());
        let mut node = Node::spawn("get", command.args(["--listen", "127.0.0.1:0"]), scene.temp.path());
        node.expect_done();
        scene.torrent.assert_identical(&out, "from the URL in the torrent");
    }
}

#[test]
fn a_web_seed_and_a_peer_give_what_the_other_lacks() {
    if !has_nginx() {
        return skip("web seed", "nginx is not installed");
    }
    let files = [("a.bin", 1 << 20), ("b.bin", 1 << 20)];
    let scene = Scene::of(|source| Torrent::multi(source, "top", &files, PIECE, 3));
    let part = |name: &str, file: &str| {
        let dir = scene.path(name).join("top");
        fs::create_dir_all(&dir).expect("a directory");
        fs::copy(scene.torrent.source.join("top").join(file), dir.join(file)).expect("a copy");
        scene.path(name)
    };
    let nginx = Nginx::start(scene.temp.path(), "nginx", &part("web", "a.bin"), "");
    let peer = part("peer", "b.bin");
    let mut node = Node::spawn("relay", &mut relay(&scene.file, &peer, scene.temp.path()), scene.temp.path());
    let ready = |status: &Status| status.listen().is_some() && status.bytes("verified_bytes") == 1 << 20;
    let address = node.wait("its half", ready).listen().expect("it listens");
    let last = scene.fetch(scene.get(&[url(nginx.addr, "")]).args(["--peer", &address.to_string()]));
    assert_eq!(last.bytes("web_seed_bytes"), 1 << 20, "{last:?}");
    assert!(last.bytes("downloaded_bytes") >= 2 << 20);
}

/// The pieces of the wanted file have bytes of others, which lie apart on this disk and where they belong on
/// the server.
#[test]
fn of_some_files_a_web_seed_gives_the_pieces_that_they_are_in() {
    if !has_nginx() {
        return skip("web seed", "nginx is not installed");
    }
    let files = [("a.bin", 100_003), ("b.bin", 200_001), ("c.bin", 100_007)];
    let scene = Scene::of(|source| Torrent::multi(source, "top", &files, PIECE, 4));
    let nginx = Nginx::start(scene.temp.path(), "nginx", &scene.torrent.source, "");
    let mut command = scene.get(&[url(nginx.addr, "")]);
    Node::spawn("get", command.args(["--files", "b.bin"]), scene.temp.path()).expect_done();
    let fetched = scene.path("got").join("top");
    let same = |name: &str| {
        fs::read(fetched.join(name)).ok() == fs::read(scene.torrent.source.join("top").join(name)).ok()
    };
    assert!(same("b.bin") && !fetched.join("a.bin").exists() && !fetched.join("c.bin").exists());
}

#[test]
fn n10_https_needs_a_certificate_that_the_operator_trusts() {
    if !has_nginx() {
        return skip("web seed", "nginx is not installed");
    }
    let scene = Scene::single();
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let [chain, secret] =
        [("chain.pem", certificate.pem()), ("key.pem", key.serialize_pem())].map(|(name, text)| {
            fs::write(scene.path(name), text).expect("a file");
            scene.path(name)
        });
    let nginx = Nginx::start_tls(scene.temp.path(), "nginx", &scene.torrent.source, [&chain, &secret]);
    let url = format!("https://localhost:{}/whole.bin", nginx.addr.port());
    let line = give_up(&mut scene.get(std::slice::from_ref(&url)));
    assert!(line.contains("TLS failed, nothing was sent"), "{line}");
    assert!(nginx.requests().iter().all(|request| !request.starts_with("206")), "{:?}", nginx.requests());
    scene.fetch(scene.get(&[url]).env("SSL_CERT_FILE", &chain));
}

#[test]
fn p24_a_web_seed_that_lies_is_banned_and_an_honest_one_finishes() {
    let scene = Scene::single();
    let good = scene.payload();
    let bad = good.iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
    let honest = Server::start(move |asked, stream| stream.write_all(&range_of(&good, asked)));
    let liar = Server::start(move |asked, stream| stream.write_all(&range_of(&bad, asked)));
    let seeds = [url(liar.addr, "whole.bin"), url(honest.addr, "whole.bin")];
    // The liar alone first, so that it is sure to be asked.
    let line = give_up(&mut scene.get(&seeds[..1]));
    assert!(line.contains("gave bad data and is not asked again"), "{line}");
    scene.fetch(&mut scene.get(&seeds));
}

#[test]
fn p24_answers_that_are_of_no_use_are_named_and_nothing_of_them_is_kept() {
    let scene = Scene::single();
    let payload = scene.payload();
    let whole = |bytes: &[u8]| {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes(), bytes].concat()
    };
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let answers = [
        (whole(&payload), "instead of the range that was asked for"),
        (whole(&payload[1..]), "another size than in the torrent"),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n0123456789".to_vec(),
            "another size",
        ),
        (status("404 Not Found"), "HTTP status 404"),
        (status("403 Forbidden"), "HTTP status 403"),
        (status("503 Service Unavailable"), "HTTP status 503"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "breaks the rules of HTTP"),
    ];
    for (answer, why) in answers {
        let server = Server::start(move |_, stream| {
            stream.write_all(&answer)?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        });
        let line = give_up(&mut scene.get(&[url(server.addr, "whole.bin")]));
        assert!(
            line.contains(why) && line.contains(&format!("web seed http://{}", server.addr)),
            "{why}: {line}"
        );
    }
}

#[test]
fn a_server_without_ranges_serves_small_files() {
    let scene = Scene::of(|source| Torrent::single(source, "small.bin", 300_000, PIECE, 4));
    let payload = scene.payload();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", payload.len());
    let answer = [head.as_bytes(), &payload].concat();
    let server = Server::start(move |_, stream| stream.write_all(&answer));
    scene.fetch(&mut scene.get(&[url(server.addr, "small.bin")]));
}

#[test]
fn peers_show_a_web_seed_as_what_it_is() {
    let scene = Scene::single();
    let mute = Server::start(|_, _| {
        std::thread::park();
        Ok(())
    });
    let mut command = scene.get(&[url(mute.addr, "whole.bin")]);
    let node = Node::spawn("get", &mut command, scene.temp.path());
    let state = scene.path("get-state");
    let row = poll("a row of the web seed", || {
        let mut ask = troc("peers", scene.temp.path());
        let output = ask.arg("--state").arg(&state).arg("--json").output().expect("it starts");
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        let row = answer["nodes"][0]["peers"][0].clone();
        (row["asked"].as_u64() > Some(0)).then_some(row)
    });
    let shown = ["direction", "client", "address"].map(|field| row[field].as_str().unwrap_or_default());
    assert_eq!(shown, ["web", "web seed", &mute.addr.to_string()], "{row}");
    assert!(row["class"].is_null(), "it has no place in the order of service: {row}");
    node.process.terminate();
}
