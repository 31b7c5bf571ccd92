//! UDP trackers: threats N9, and the retransmission of BEP 15.

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::*;
use crate::proto::tracker::ReplyError;

const CONNECTION: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

async fn socket() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("udp://127.0.0.1:{}/PASSKEY", socket.local_addr().unwrap().port());
    (socket, url)
}

fn packet(action: u32, transaction: &[u8], body: &[u8]) -> Vec<u8> {
    [&action.to_be_bytes(), transaction, body].concat()
}

/// The right answer to `request`.
fn answer(request: &[u8]) -> Vec<u8> {
    let transaction = &request[12..16];
    match request.len() {
        16 => packet(0, transaction, &CONNECTION),
        _ => {
            assert_eq!(request[..8], CONNECTION);
            packet(1, transaction, &[0, 0, 7, 8, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4, 0x1a, 0xe1])
        }
    }
}

/// Answers each datagram with what `answers` makes of it; gives back the requests seen.
fn serve(
    socket: UdpSocket,
    mut answers: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> mpsc::UnboundedReceiver<Vec<u8>> {
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let mut count = 0;
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            for reply in answers(count, &buffer[..len]) {
                socket.send_to(&reply, from).await.unwrap();
            }
            let _ = seen.send(buffer[..len].to_vec());
            count += 1;
        }
    });
    requests
}

fn quick(timeout: Span) -> TrackerClient {
    let udp_first_wait = Span::from_ms(20);
    TrackerClient::new(TrackerSettings { timeout, udp_first_wait, ..settings(&[]) })
}

#[tokio::test]
async fn connect_then_announce() {
    let (socket, url) = socket().await;
    let mut requests = serve(socket, |_, request| vec![answer(request)]);
    let reply = announce(&client(), &url).await.unwrap();
    assert_eq!((reply.interval, reply.seeders, reply.leechers), (Span::from_secs(1800), Some(2), Some(1)));
    assert_eq!(reply.peers, ["1.2.3.4:6881".parse().unwrap()]);
    let (connect, announced) = (requests.recv().await.unwrap(), requests.recv().await.unwrap());
    assert_eq!((connect.len(), announced.len()), (16, 98));
    assert_ne!(connect[12..16], announced[12..16], "a transaction id is drawn for each request");
    assert_eq!(announced[16..36], [0xab; 20]);
}

#[tokio::test]
async fn n9_ids_differ_from_announce_to_announce() {
    let (socket, url) = socket().await;
    let mut requests = serve(socket, |_, request| vec![answer(request)]);
    let client = client();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..8 {
        announce(&client, &url).await.unwrap();
        ids.insert(requests.recv().await.unwrap()[12..16].to_vec());
        ids.insert(requests.recv().await.unwrap()[12..16].to_vec());
    }
    assert_eq!(ids.len(), 16);
}

#[tokio::test]
async fn n9_foreign_short_and_late_datagrams_are_dropped() {
    let (socket, url) = socket().await;
    let _requests = serve(socket, |_, request| {
        let right = answer(request);
        let mut wrong_transaction = right.clone();
        wrong_transaction[7] ^= 1;
        let mut wrong_action = right.clone();
        wrong_action[3] = 2;
        let mut foreign_error = packet(3, &right[4..8], b"spoofed");
        foreign_error[4] ^= 0x80;
        let short = (0..16).map(|len| right[..len].to_vec());
        let mut all = vec![wrong_transaction, wrong_action, foreign_error];
        all.extend(short);
        all.push(right);
        all
    });
    assert_eq!(announce(&client(), &url).await.unwrap().peers.len(), 1);
}

#[tokio::test]
async fn n9_another_source_is_not_heard() {
    let (socket, url) = socket().await;
    let spoofer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            // With the right transaction id even, but from elsewhere, and first.
            let transaction = buffer[12..16].to_vec();
            spoofer.send_to(&packet(3, &transaction, b"go away"), from).unwrap();
            socket.send_to(&answer(&buffer[..len]), from).await.unwrap();
        }
    });
    assert!(announce(&client(), &url).await.is_ok());
}

#[tokio::test]
async fn n9_error_packets_are_told_safely() {
    for at in 0..2 {
        let (socket, url) = socket().await;
        let _requests = serve(socket, move |count, request| match count == at {
            true => vec![packet(3, &request[12..16], b"no\x1b[2J")],
            false => vec![answer(request)],
        });
        let refused = AnnounceFault::Reply(ReplyError::Refused("no\\u{1b}[2J".into()));
        assert_eq!(announce(&client(), &url).await, Err(refused));
    }
}

#[tokio::test]
async fn lost_datagrams_are_sent_again_unchanged() {
    let (socket, url) = socket().await;
    // Connect is lost twice, announce once.
    let mut to_lose = (2, 1);
    let mut requests = serve(socket, move |_, request| {
        let left = if request.len() == 16 { &mut to_lose.0 } else { &mut to_lose.1 };
        let lost = *left > 0;
        *left -= i32::from(lost);
        if lost { vec![] } else { vec![answer(request)] }
    });
    announce(&quick(PATIENCE), &url).await.unwrap();
    let (mut connects, mut announces) = (Vec::new(), Vec::new());
    while announces.len() < 2 {
        let request = requests.recv().await.unwrap();
        if request.len() == 16 { connects.push(request) } else { announces.push(request) }
    }
    assert!(connects.len() >= 3 && connects.iter().all(|copy| *copy == connects[0]));
    assert_eq!(announces[0], announces[1]);
}

#[tokio::test]
async fn n5_a_silent_tracker_meets_the_deadline_and_few_datagrams() {
    let (socket, url) = socket().await;
    let mut requests = serve(socket, |_, _| vec![]);
    let total = Span::from_ms(200);
    assert_eq!(announce(&quick(total), &url).await, Err(AnnounceFault::Timeout(total)));
    // 20, 40, 80 and what is left: four copies at most.
    let mut copies = 0;
    while requests.try_recv().is_ok() {
        copies += 1;
    }
    assert!(copies <= 4, "{copies}");
}

#[tokio::test]
async fn a_closed_port_fails_at_once_and_the_next_address_is_asked() {
    let (socket, _) = socket().await;
    let port = socket.local_addr().unwrap().port();
    let refused = announce(&client(), &format!("udp://127.0.0.2:{port}")).await;
    assert_eq!(refused, Err(AnnounceFault::Network(io::ErrorKind::ConnectionRefused)));

    let _requests = serve(socket, |_, request| vec![answer(request)]);
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 1]].map(IpAddr::from).to_vec();
    let names = Names([("two.test", addresses)].into());
    let client = TrackerClient::new(TrackerSettings { resolver: Arc::new(names), ..settings(&[]) });
    assert!(announce(&client, &format!("udp://two.test:{port}")).await.is_ok());
}

#[tokio::test]
async fn ipv6_trackers_name_ipv6_peers() {
    // A machine without IPv6 has nothing to test here.
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else { return };
    let url = format!("udp://[::1]:{}", socket.local_addr().unwrap().port());
    let _requests = serve(socket, |_, request| {
        let mut reply = answer(request);
        if request.len() != 16 {
            reply.truncate(20);
            crate::proto::tracker::compact::write_peer(&mut reply, "[2a00::1]:9".parse().unwrap());
        }
        vec![reply]
    });
    assert_eq!(announce(&client(), &url).await.unwrap().peers, ["[2a00::1]:9".parse().unwrap()]);
}
