//! Fake trackers on loopback. 127.1.0.0/16 plays the public network, 127.2.0.0/16 a private one
//! and 127.3.0.0/16 a link-local one; the rest of 127.0.0.0/8 is what it is.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::base::ids::{InfoHash, PeerId};

mod http;
mod policy;
mod scrape;
mod tls;
mod udp;

/// Long enough for a loaded machine; no test waits for it.
const PATIENCE: Span = Span::from_secs(20);
/// For what never comes.
const MOMENT: Span = Span::from_ms(150);

const REPLY: &[u8] = b"d8:intervali1800e5:peers6:\x01\x02\x03\x04\x1a\xe1e";

#[derive(Debug, Default)]
struct Names(HashMap<&'static str, Vec<IpAddr>>);

impl Resolve for Names {
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.get(host).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [127, 1, ..] => AddressClass::Global,
            [127, 2, ..] => AddressClass::Private,
            [127, 3, ..] => AddressClass::LinkLocal,
            _ => AddressClass::of(address),
        },
        IpAddr::V6(_) => AddressClass::of(address),
    }
}

fn settings(names: &[(&'static str, &[u8; 4])]) -> TrackerSettings {
    let names = names.iter().map(|(name, ip)| (*name, vec![IpAddr::from(**ip)])).collect();
    TrackerSettings {
        timeout: PATIENCE,
        resolver: Arc::new(Names(names)),
        classify,
        ..TrackerSettings::default()
    }
}

fn client() -> TrackerClient {
    TrackerClient::new(settings(&[]))
}

fn request(event: AnnounceEvent) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: InfoHash([0xab; 20]),
        peer_id: PeerId(*b"-TR0001-abcdefghijkl"),
        port: 6881,
        uploaded_bytes: 1,
        downloaded_bytes: 2,
        left_bytes: 3,
        event,
        peers_wanted: Some(50),
        key: 7,
        ipv6: None,
    }
}

async fn announce(client: &TrackerClient, url: &str) -> Result<AnnounceReply, AnnounceFault> {
    let request = request(AnnounceEvent::Started);
    client.announce(url, &request, TrackerOrigin::Operator).await.map_err(|error| error.cause)
}

async fn listener(address: [u8; 4]) -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::from(address), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The head of a request, up to the empty line.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Answers each connection with `start`, then with `again` for as long as it is read, then closes.
fn serve(listener: TcpListener, start: Vec<u8>, again: Vec<u8>) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (start, again) = (start.clone(), again.clone());
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let mut alive = stream.write_all(&start).await.is_ok() && !again.is_empty();
                while alive {
                    alive = stream.write_all(&again).await.is_ok();
                }
                let _ = stream.shutdown().await;
                // Closing with unread bytes would reset the connection before the answer is read.
                while stream.read_u8().await.is_ok() {}
            });
        }
    });
}

/// A tracker on 127.0.0.1 that answers everything with `response`; its URL.
async fn tracker(response: impl AsRef<[u8]>, again: &[u8]) -> String {
    let (listener, port) = listener([127, 0, 0, 1]).await;
    serve(listener, response.as_ref().to_vec(), again.to_vec());
    format!("http://127.0.0.1:{port}/PASSKEY/announce")
}

fn ok_with(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

fn redirect_to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn errors_say_what_where_and_how_to_mend_it() {
    let client = client();
    let page = tracker(ok_with("Connection: close\r\n", b"<html>"), b"").await;
    let cut = tracker("HTTP/1.1 200", b"").await;
    for (url, text) in [
        ("ftp://x/", "tracker URL must start with http://, https:// or udp://"),
        (
            "http://nx/",
            "tracker http://nx:80: no address found for its host; check its spelling, the network and DNS",
        ),
        (
            "udp://169.254.169.254:1",
            "tracker udp://169.254.169.254:1: refused: its host has a link-local address; \
             only you may name trackers on this host or a private network",
        ),
        (&page, "the reply is not a tracker's: it is not bencode; is this URL an announce URL?"),
        (&cut, "its reply is cut off or breaks the rules of HTTP"),
    ] {
        let request = request(AnnounceEvent::None);
        let error = client.announce(url, &request, TrackerOrigin::Operator).await.unwrap_err().to_string();
        assert!(error.ends_with(text), "{error}");
    }
}
