//! HTTPS trackers: a bad certificate ends the announce before anything is sent (threats N10).

use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::Certificate;

use super::*;

const NAMES: &[(&str, &[u8; 4])] = &[("t.test", &[127, 0, 0, 1]), ("other.test", &[127, 0, 0, 1])];

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: RootCerts,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let roots = RootCerts::new_with_certs(&[Certificate::from_der(certificate.der()).to_owned()]);
    Authority { issuer: Issuer::new(params, key), roots }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

fn server_config(params: &CertificateParams, issuer: Option<&Authority>) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(authority) => params.signed_by(&key, &authority.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// Serves one connection; gives back the port and what the client sent inside TLS.
fn serve_one(config: ServerConfig, response: Vec<u8>) -> (u16, thread::JoinHandle<Vec<u8>>) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let work = move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|len| len == 1) {
            request.push(byte[0]);
        }
        if !request.is_empty() {
            stream.write_all(&response).unwrap();
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        request
    };
    (port, thread::Builder::new().spawn(work).unwrap())
}

async fn ask(
    roots: &RootCerts,
    config: ServerConfig,
    response: Vec<u8>,
) -> (Result<AnnounceReply, AnnounceFault>, Vec<u8>) {
    let (port, server) = serve_one(config, response);
    let client = TrackerClient::new(TrackerSettings { roots: roots.clone(), ..settings(NAMES) });
    let got = announce(&client, &format!("https://t.test:{port}/PASSKEY/announce")).await;
    (got, server.join().unwrap())
}

fn good() -> Vec<u8> {
    ok_with("Connection: close\r\n", REPLY)
}

#[tokio::test]
async fn a_good_certificate_is_accepted() {
    let authority = authority();
    let config = server_config(&params("t.test"), Some(&authority));
    let (got, sent) = ask(&authority.roots, config, good()).await;
    assert_eq!(got.unwrap().peers.len(), 1);
    assert!(sent.starts_with(b"GET /PASSKEY/announce?info_hash="));
}

#[tokio::test]
async fn n10_bad_certificates_fail_closed() {
    let authority = authority();
    let mut expired = params("t.test");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = params("t.test");
    early.not_before = date_time_ymd(3000, 1, 1);
    early.not_after = date_time_ymd(3001, 1, 1);
    for (flaw, params, issuer) in [
        ("self-signed", params("t.test"), None),
        ("other authority", params("t.test"), Some(&self::authority())),
        ("wrong host", params("other.test"), Some(&authority)),
        ("address instead of name", params("127.0.0.1"), Some(&authority)),
        ("expired", expired, Some(&authority)),
        ("not valid yet", early, Some(&authority)),
    ] {
        let (got, sent) = ask(&authority.roots, server_config(&params, issuer), good()).await;
        assert!(matches!(got, Err(AnnounceFault::Tls(_))), "{flaw}: {got:?}");
        assert!(sent.is_empty(), "{flaw}: the passkey was sent");
    }
    // The roots that come with the program know none of them.
    let (got, sent) =
        ask(&RootCerts::WebPki, server_config(&params("t.test"), Some(&authority)), good()).await;
    assert!(matches!(got, Err(AnnounceFault::Tls(_))) && sent.is_empty());
}

#[tokio::test]
async fn n10_what_is_not_tls_fails() {
    let (listener, port) = listener([127, 0, 0, 1]).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&good()).await.unwrap();
        while stream.read_u8().await.is_ok() {}
    });
    let got = announce(&client(), &format!("https://127.0.0.1:{port}/announce")).await;
    assert!(matches!(got, Err(AnnounceFault::Tls(_))), "{got:?}");
}

#[tokio::test]
async fn n3_no_redirect_from_https_to_http() {
    let authority = authority();
    let config = server_config(&params("t.test"), Some(&authority));
    let (got, _) = ask(&authority.roots, config, redirect_to("http://t.test:1/announce")).await;
    assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::Downgrade)));
}
