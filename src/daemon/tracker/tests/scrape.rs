//! Scrapes: threats N1, N3, N5, N6, as for announces.

use tokio::net::UdpSocket;

use super::*;
use crate::proto::tracker::scrape::Scrape;

const HASH: InfoHash = InfoHash([0x20; 20]);
const WANT: Scrape = Scrape { seeds: 5, peers: 10, completed: 50 };

fn counts() -> Vec<u8> {
    let file = "d8:completei5e10:downloadedi50e10:incompletei10ee";
    ok_with("Connection: close\r\n", format!("d5:filesd20:{}{file}ee", " ".repeat(20)).as_bytes())
}

async fn scrape(url: &str, origin: TrackerOrigin) -> Result<Scrape, AnnounceFault> {
    client().scrape(url, HASH, origin).await.map_err(|error| error.cause)
}

async fn operator(url: &str) -> Result<Scrape, AnnounceFault> {
    scrape(url, TrackerOrigin::Operator).await
}

#[tokio::test]
async fn counts_come_by_http_from_beside_the_announce_url() {
    let (listener, port) = listener([127, 0, 0, 1]).await;
    let (seen, head) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = seen.send(read_head(&mut stream).await);
        stream.write_all(&counts()).await.unwrap();
    });
    let got = operator(&format!("http://127.0.0.1:{port}/PASSKEY/announce")).await;
    assert_eq!(got, Ok(WANT));
    let hash = "%20".repeat(20);
    assert!(head.await.unwrap().starts_with(&format!("GET /PASSKEY/scrape?info_hash={hash} HTTP/1.1")));
}

#[tokio::test]
async fn counts_come_by_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("udp://127.0.0.1:{}/", socket.local_addr().unwrap().port());
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        for (action, body) in [(0u32, vec![7; 8]), (2, [0, 0, 0, 5, 0, 0, 0, 50, 0, 0, 0, 10].to_vec())] {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!(len, if action == 0 { 16 } else { 36 });
            let answer = [&action.to_be_bytes(), &buffer[12..16], &body].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    assert_eq!(operator(&url).await, Ok(WANT));
}

#[tokio::test]
async fn n1_n3_scrapes_lead_no_further_in_than_announces() {
    let stranger = scrape("http://127.0.0.1:9/announce", TrackerOrigin::Stranger).await;
    assert_eq!(stranger, Err(AnnounceFault::Address(AddressClass::Loopback)));
    let metadata = operator("http://169.254.169.254/announce").await;
    assert_eq!(metadata, Err(AnnounceFault::Address(AddressClass::LinkLocal)));
    let (listener, port) = listener([127, 1, 0, 1]).await;
    serve(listener, redirect_to("http://127.0.0.1:9/scrape"), Vec::new());
    let got = operator(&format!("http://127.1.0.1:{port}/announce")).await;
    assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::Inwards(AddressClass::Loopback))));
}

#[tokio::test]
async fn n5_n6_what_is_no_count_is_an_error() {
    assert_eq!(operator("http://127.0.0.1:9/a").await, Err(AnnounceFault::NoScrape));
    for body in [&b"<html>"[..], b"de", b"d14:failure reason2:noe"] {
        let url = tracker(ok_with("Connection: close\r\n", body), b"").await;
        assert!(matches!(operator(&url).await, Err(AnnounceFault::Reply(_))));
    }
    let url = tracker(ok_with("Connection: close\r\n", b""), &[b'd'; 64 << 10]).await;
    assert_eq!(operator(&url).await, Err(AnnounceFault::TooLong));
}
