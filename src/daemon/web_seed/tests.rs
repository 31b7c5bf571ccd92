//! Fake web servers on loopback. 127.1.0.0/16 plays the public network, 127.2.0.0/16 a private one and
//! 127.3.0.0/16 a link-local one; the rest of 127.0.0.0/8 is what it is.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::http::{Body, Session};
use super::*;
use crate::base::address::AddressClass;
use crate::base::limits::{WEB_SEED_DRAIN_BYTES_MAX, WEB_SEED_REDIRECTS_MAX};
use crate::base::time::Span;
use crate::daemon::tracker::Resolve;
use crate::engine::web_seed::answer::{Ask, Refusal};

/// Long enough for a loaded machine; no test waits for it.
const PATIENCE: Span = Span::from_secs(20);
/// For what never comes.
const MOMENT: Span = Span::from_ms(150);

const FILE: FileIndex = FileIndex(0);
const ASK: Ask = Ask { offset: 2, len: 5, file_len: 10 };
const RANGE: &str =
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-6/10\r\nContent-Length: 5\r\n\r\n23456";

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

fn session(names: &[(&'static str, &[u8; 4])], stall_timeout: Span) -> Session {
    session_by(names, stall_timeout, NamedBy::Torrent)
}

fn session_by(names: &[(&'static str, &[u8; 4])], stall_timeout: Span, named_by: NamedBy) -> Session {
    let names = names.iter().map(|(name, ip)| (*name, vec![IpAddr::from(**ip)])).collect();
    let tls = tls::config_with(rustls::RootCertStore::empty()).unwrap();
    let mut client = Client::new(Arc::new(Names(names)), tls, [PATIENCE, stall_timeout]);
    client.classify = classify;
    Session::new(Rc::new(client), named_by)
}

/// A server that gives one answer per connection, or one per request of one connection.
struct Server {
    port: u16,
    /// Requests so far, their connection first.
    asked: Rc<RefCell<Vec<(usize, String)>>>,
}

/// `answer` makes the answer to a request from its number; an empty one is none at all, ever.
async fn serve(ip: [u8; 4], answer: impl Fn(usize, &str) -> Vec<u8> + 'static) -> Server {
    let listener = TcpListener::bind((Ipv4Addr::from(ip), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        let answer = Rc::new(answer);
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(talk(stream, connection, Rc::clone(&log), Rc::clone(&answer)));
        }
    });
    Server { port, asked }
}

async fn talk(
    mut stream: TcpStream,
    connection: usize,
    log: Rc<RefCell<Vec<(usize, String)>>>,
    answer: Rc<impl Fn(usize, &str) -> Vec<u8>>,
) {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let request = String::from_utf8(request).unwrap();
        let number = log.borrow().len();
        log.borrow_mut().push((connection, request.clone()));
        let bytes = answer(number, &request);
        if bytes.is_empty() {
            std::future::pending::<()>().await;
        }
        // Whoever hangs up on a long answer misses nothing.
        if stream.write_all(&bytes).await.is_err() || bytes.ends_with(b"!") {
            return;
        }
    }
}

async fn read(body: &mut Body) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    while let Some(data) = body.next().await? {
        all.extend_from_slice(&data);
    }
    Ok(all)
}

async fn get(session: &mut Session, url: &str) -> Result<Vec<u8>, Fault> {
    let mut body = session.fetch(FILE, &WebUrl::parse(url).unwrap(), ASK).await?;
    let all = read(&mut body).await?;
    session.finish(body).await;
    Ok(all)
}

fn local<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn a_connection_is_kept_and_one_that_the_server_closed_is_opened_anew() {
    local(async {
        let answer = |number, _: &str| match number {
            2 => [RANGE.as_bytes(), b"!"].concat(),
            _ => RANGE.as_bytes().to_vec(),
        };
        let server = serve([127, 0, 0, 1], answer).await;
        let mut session = session(&[], PATIENCE);
        for _ in 0..5 {
            let url = format!("http://127.0.0.1:{}/a%20b", server.port);
            assert_eq!(get(&mut session, &url).await.unwrap(), b"23456");
        }
        let asked = server.asked.borrow();
        assert_eq!(asked.iter().map(|(connection, _)| *connection).collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        let request = asked[0].1.to_lowercase();
        assert!(request.starts_with("get /a%20b http/1.1\r\n") && request.contains("range: bytes=2-6\r\n"));
        assert!(request.contains("accept-encoding: identity\r\n") && request.contains("host: 127.0.0.1:"));
    });
}

#[test]
fn a_whole_file_in_place_of_a_range_is_cut_to_what_was_asked_for() {
    local(async {
        let whole = |_, _: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789".to_vec();
        let server = serve([127, 0, 0, 1], whole).await;
        let mut session = session(&[], PATIENCE);
        let url = format!("http://127.0.0.1:{}/", server.port);
        for _ in 0..2 {
            assert_eq!(get(&mut session, &url).await.unwrap(), b"23456");
        }
        assert!(server.asked.borrow().iter().all(|(connection, _)| *connection == 0), "the rest is little");
    });
}

#[test]
fn p24_bodies_that_are_endless_or_cut_off_give_no_byte_more_and_no_byte_less() {
    local(async {
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-6/10\r\n";
        let endless = vec![b'x'; 2 * WEB_SEED_DRAIN_BYTES_MAX as usize];
        let chunk = [format!("{:x}\r\n", endless.len()).as_bytes(), &endless, b"\r\n"].concat();
        let chunked = [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &chunk].concat();
        let until_close = [head.as_bytes(), b"\r\n", &endless].concat();
        for answer in [chunked, until_close] {
            let server = serve([127, 0, 0, 1], move |_, _| answer.clone()).await;
            let mut session = session(&[], PATIENCE);
            let url = format!("http://127.0.0.1:{}/", server.port);
            for _ in 0..2 {
                assert_eq!(get(&mut session, &url).await.unwrap(), b"xxxxx");
            }
            assert_eq!(server.asked.borrow()[1].0, 1, "the rest is not waited for");
        }
        let cut = format!("{head}Content-Length: 5\r\n\r\n23!");
        let server = serve([127, 0, 0, 1], move |_, _| cut.clone().into_bytes()).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        assert_eq!(get(&mut session(&[], PATIENCE), &url).await, Err(Fault::CutOff));
        let long = format!("{head}Content-Length: 6\r\n\r\n234567");
        let server = serve([127, 0, 0, 1], move |_, _| long.clone().into_bytes()).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        let other = Err(Fault::Answer(Refusal::OtherRange));
        assert_eq!(get(&mut session(&[], PATIENCE), &url).await, other);
    });
}

#[test]
fn p36_a_server_that_stalls_before_its_head_or_in_its_body_is_given_up() {
    local(async {
        let half =
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-6/10\r\nContent-Length: 5\r\n\r\n2";
        for answer in ["", half] {
            let server = serve([127, 0, 0, 1], move |_, _| answer.as_bytes().to_vec()).await;
            let url = format!("http://127.0.0.1:{}/", server.port);
            assert_eq!(get(&mut session(&[], MOMENT), &url).await, Err(Fault::Stalled(MOMENT)));
        }
    });
}

#[test]
fn n1_a_torrents_web_seed_may_be_here_or_near_but_no_service_with_arguments() {
    local(async {
        for (ip, fault) in [
            ([127, 0, 0, 1], Some(Fault::Query(AddressClass::Loopback))),
            ([127, 1, 0, 1], None),
            ([127, 2, 0, 1], Some(Fault::Query(AddressClass::Private))),
            ([127, 3, 0, 1], Some(Fault::Address(AddressClass::LinkLocal))),
        ] {
            let server = serve(ip, |_, _| RANGE.as_bytes().to_vec()).await;
            let host = Ipv4Addr::from(ip);
            let plain = format!("http://{host}:{}/f", server.port);
            let query = format!("{plain}?delete=all");
            let link_local = ip[1] == 3;
            assert_eq!(get(&mut session(&[], PATIENCE), &plain).await.is_ok(), !link_local, "{host}");
            assert_eq!(get(&mut session(&[], PATIENCE), &query).await.err(), fault, "{host}");
            let mut given = session_by(&[], PATIENCE, NamedBy::Operator);
            assert_eq!(get(&mut given, &query).await.is_ok(), !link_local, "{host}");
        }
    });
}

#[test]
fn n2_the_address_of_a_web_seed_that_was_checked_is_the_one_connected_to() {
    local(async {
        let server = serve([127, 1, 0, 1], |_, _| RANGE.as_bytes().to_vec()).await;
        let mut session = session(&[("seed.test", &[127, 1, 0, 1])], PATIENCE);
        let url = format!("http://seed.test:{}/", server.port);
        assert_eq!(get(&mut session, &url).await.unwrap(), b"23456");
        assert!(server.asked.borrow()[0].1.to_lowercase().contains("host: seed.test:"));
        assert_eq!(get(&mut session, "http://missing.test/").await, Err(Fault::NoAddress));
    });
}

#[test]
fn n3_redirects_of_web_seeds_lead_outwards_only_and_end() {
    local(async {
        let inner = serve([127, 2, 0, 1], |_, _| RANGE.as_bytes().to_vec()).await;
        let to = format!("http://127.2.0.1:{}/moved", inner.port);
        for (ip, outcome) in [
            ([127, 1, 0, 1], Err(Fault::Inwards(AddressClass::Private))),
            ([127, 2, 0, 2], Ok(b"23456".to_vec())),
            ([127, 0, 0, 1], Ok(b"23456".to_vec())),
        ] {
            let to = to.clone();
            let server = serve(ip, move |_, _| redirect(&to)).await;
            let url = format!("http://{}:{}/", Ipv4Addr::from(ip), server.port);
            assert_eq!(get(&mut session(&[], PATIENCE), &url).await, outcome, "{ip:?}");
        }
        let circle = serve([127, 1, 0, 1], |_, _| redirect("/again")).await;
        let url = format!("http://127.1.0.1:{}/", circle.port);
        assert_eq!(get(&mut session(&[], PATIENCE), &url).await, Err(Fault::Redirects));
        assert_eq!(circle.asked.borrow().len() as u32, WEB_SEED_REDIRECTS_MAX + 1);
        let nowhere = serve([127, 1, 0, 1], |_, _| redirect("file:///etc/passwd")).await;
        let url = format!("http://127.1.0.1:{}/", nowhere.port);
        assert_eq!(get(&mut session(&[], PATIENCE), &url).await, Err(Fault::Location));
    });
}

#[test]
fn where_a_file_was_found_after_a_redirect_is_remembered_until_it_fails() {
    local(async {
        let mirror = serve([127, 1, 0, 2], |number, _| match number {
            2 => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => RANGE.as_bytes().to_vec(),
        });
        let mirror = mirror.await;
        let to = format!("http://127.1.0.2:{}/f", mirror.port);
        let server = serve([127, 1, 0, 1], move |_, _| redirect(&to)).await;
        let url = format!("http://127.1.0.1:{}/", server.port);
        let mut session = session(&[], PATIENCE);
        for _ in 0..3 {
            assert_eq!(get(&mut session, &url).await.unwrap(), b"23456");
        }
        assert_eq!((mirror.asked.borrow().len(), server.asked.borrow().len()), (4, 2));
    });
}

#[test]
fn n3_user_and_password_go_to_the_host_that_they_were_given_for_and_no_other() {
    local(async {
        let mirror = serve([127, 1, 0, 2], |_, _| RANGE.as_bytes().to_vec()).await;
        let to = format!("http://x:y@127.1.0.2:{}/f", mirror.port);
        let server =
            serve([127, 1, 0, 1], move |number, _| redirect(if number == 0 { "/here" } else { &to })).await;
        let url = format!("http://Aladdin:open%20sesame@127.1.0.1:{}/", server.port);
        assert_eq!(get(&mut session(&[], PATIENCE), &url).await.unwrap(), b"23456");
        let told = |server: &Server| -> Vec<bool> {
            let asked = server.asked.borrow();
            let heads = asked.iter().map(|(_, head)| head.to_lowercase());
            heads.map(|head| head.contains("authorization:")).collect()
        };
        assert_eq!((told(&server), told(&mirror)), (vec![true, true], vec![false]));
        assert!(server.asked.borrow()[0].1.contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    });
}
