//! Who may send us where: threats N1, N2, N3, N11, N12, N13.

use std::sync::Mutex;

use super::*;

async fn web(address: [u8; 4], response: Vec<u8>) -> u16 {
    let (listener, port) = listener(address).await;
    serve(listener, response, Vec::new());
    port
}

fn good() -> Vec<u8> {
    ok_with("Connection: close\r\n", REPLY)
}

const NAMES: &[(&str, &[u8; 4])] = &[
    ("public.test", &[127, 1, 0, 1]),
    ("lan.test", &[127, 2, 0, 1]),
    ("link.test", &[127, 3, 0, 1]),
    ("here.test", &[127, 0, 0, 1]),
    ("any.test", &[0, 0, 0, 0]),
];

#[tokio::test]
async fn n1_the_resolved_address_decides_not_its_spelling() {
    use AddressClass::{LinkLocal, Loopback, Private, Unspecified};
    let client = TrackerClient::new(settings(NAMES));
    for (host, class) in [
        ("link.test", LinkLocal),
        ("any.test", Unspecified),
        ("169.254.169.254", LinkLocal),
        ("0xa9fea9fe", LinkLocal),
        ("2852039166", LinkLocal),
        ("[::ffff:169.254.169.254]", LinkLocal),
        ("[64:ff9b::a9fe:a9fe]", LinkLocal),
        ("[fe80::1]", LinkLocal),
        ("0.0.0.0", Unspecified),
        ("0", Unspecified),
        ("[::]", Unspecified),
    ] {
        for scheme in ["http", "https", "udp"] {
            let got = announce(&client, &format!("{scheme}://{host}:9/announce")).await;
            assert_eq!(got, Err(AnnounceFault::Address(class)), "{scheme} {host}");
        }
    }
    let request = request(AnnounceEvent::None);
    for (host, class) in [
        ("here.test", Loopback),
        ("127.0.0.1", Loopback),
        ("2130706433", Loopback),
        ("[::1]", Loopback),
        ("[::ffff:127.0.0.1]", Loopback),
        ("lan.test", Private),
        ("10.0.0.1", Private),
        ("[fd00::1]", Private),
        ("link.test", LinkLocal),
    ] {
        let url = format!("http://{host}:9/announce");
        let got = client.announce(&url, &request, TrackerOrigin::Stranger).await;
        assert_eq!(got.unwrap_err().cause, AnnounceFault::Address(class), "{host}");
    }
}

#[tokio::test]
async fn n1_the_operator_may_name_this_host_and_the_lan() {
    let client = TrackerClient::new(settings(NAMES));
    for (name, address) in
        [("here.test", [127, 0, 0, 1]), ("lan.test", [127, 2, 0, 1]), ("public.test", [127, 1, 0, 1])]
    {
        let port = web(address, good()).await;
        assert!(announce(&client, &format!("http://{name}:{port}/announce")).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn n1_of_hosts_that_only_we_can_reach_nothing_but_a_trackers_url_is_asked() {
    let client = TrackerClient::new(settings(NAMES));
    for (name, address, local) in [
        ("here.test", [127, 0, 0, 1], true),
        ("lan.test", [127, 2, 0, 1], true),
        ("public.test", [127, 1, 0, 1], false),
    ] {
        for path in ["", "reboot", "announce/reboot", "reboot?x=/announce", "Announce"] {
            let port = web(address, good()).await;
            let got = announce(&client, &format!("http://{name}:{port}/{path}")).await;
            assert_eq!(got == Err(AnnounceFault::NoAnnounce), local, "{name} {path}: {got:?}");
        }
        for path in ["announce.php", "passkey/announce?a=b"] {
            let port = web(address, good()).await;
            assert!(announce(&client, &format!("http://{name}:{port}/{path}")).await.is_ok(), "{path}");
        }
    }
}

/// Gives another answer each time it is asked.
#[derive(Debug)]
struct Rebinding(Mutex<Vec<IpAddr>>);

impl Resolve for Rebinding {
    fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.lock().unwrap().pop().into_iter().collect())
    }
}

#[tokio::test]
async fn n2_the_checked_address_is_the_one_connected_to() {
    // The inner host listens on the same port, and would be reached by a second look-up.
    let (outer, port) = listener([127, 1, 0, 1]).await;
    let inner = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), port)).await.unwrap();
    serve(outer, good(), Vec::new());
    let answers = vec![[127, 0, 0, 1].into(), [127, 1, 0, 1].into()];
    let resolver = Arc::new(Rebinding(Mutex::new(answers)));
    let client = TrackerClient::new(TrackerSettings { resolver: resolver.clone(), ..settings(&[]) });
    let url = format!("http://rebind.test:{port}/announce");
    let got = client.announce(&url, &request(AnnounceEvent::None), TrackerOrigin::Stranger).await;
    assert!(got.is_ok(), "{got:?}");
    assert_eq!(resolver.0.lock().unwrap().len(), 1);
    let touched = tokio::select! { biased; _ = inner.accept() => true, () = async {} => false };
    assert!(!touched);
}

#[tokio::test]
async fn n3_redirects_lead_outwards_only() {
    use AddressClass::{LinkLocal, Loopback, Private};
    let homes =
        [("here.test", [127, 0, 0, 1]), ("lan.test", [127, 2, 0, 1]), ("public.test", [127, 1, 0, 1])];
    for (from_rank, (from, from_address)) in homes.iter().enumerate() {
        for (to_rank, (to, to_address)) in homes.iter().enumerate() {
            let to_port = web(*to_address, good()).await;
            let from_port = web(*from_address, redirect_to(&format!("http://{to}:{to_port}/a"))).await;
            let client = TrackerClient::new(settings(NAMES));
            let got = announce(&client, &format!("http://{from}:{from_port}/announce")).await;
            match from_rank <= to_rank {
                true => assert!(got.is_ok(), "{from} to {to}: {got:?}"),
                false => assert!(matches!(got, Err(AnnounceFault::Redirect(RedirectFault::Inwards(_))))),
            }
        }
    }
    for (target, class) in [
        ("http://127.0.0.1:1/announce", Loopback),
        ("http://localhost.test:1/", Loopback),
        ("http://0x7f.1:1/", Loopback),
        ("http://[::1]:1/", Loopback),
        ("http://[::ffff:10.0.0.1]/", Private),
        ("http://169.254.169.254/latest/meta-data/", LinkLocal),
    ] {
        let port = web([127, 1, 0, 1], redirect_to(target)).await;
        let names = [NAMES, &[("localhost.test", &[127, 0, 0, 1])]].concat();
        let client = TrackerClient::new(settings(&names));
        let got = announce(&client, &format!("http://public.test:{port}/announce")).await;
        assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::Inwards(class))), "{target}");
    }
}

#[tokio::test]
async fn n3_redirects_are_counted_and_keep_to_the_web() {
    let mut url = format!("http://127.0.0.1:{}/announce?end", web([127, 0, 0, 1], good()).await);
    for hops in 1..=TRACKER_REDIRECTS_MAX + 1 {
        url = format!("http://127.0.0.1:{}/announce?{hops}", web([127, 0, 0, 1], redirect_to(&url)).await);
        let got = announce(&client(), &url).await;
        match hops <= TRACKER_REDIRECTS_MAX {
            true => assert!(got.is_ok(), "{hops}: {got:?}"),
            false => assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::TooMany))),
        }
    }
    let circle = tracker(redirect_to("/round"), b"").await;
    let got = announce(&client(), &circle).await;
    assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::TooMany)));
    for location in ["file:///etc/passwd", "udp://127.0.0.1:1", "gopher://a/", "", "http://"] {
        let url = tracker(redirect_to(location), b"").await;
        let got = announce(&client(), &url).await;
        // An empty location is the page itself.
        let expected = if location.is_empty() { RedirectFault::TooMany } else { RedirectFault::Location };
        assert_eq!(got, Err(AnnounceFault::Redirect(expected)), "{location}");
    }
    let nowhere = tracker("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", b"").await;
    let got = announce(&client(), &nowhere).await;
    assert_eq!(got, Err(AnnounceFault::Redirect(RedirectFault::Location)));
    let from = TrackerUrl::parse("https://t.example/").unwrap();
    let downgrade = redirect(&from, "http://t.example/").unwrap_err();
    assert_eq!(downgrade, AnnounceFault::Redirect(RedirectFault::Downgrade));
}

#[tokio::test]
async fn n6_a_tracker_names_no_peers_further_in_than_itself() {
    let peers: Vec<u8> = [[127, 0, 0, 1], [127, 3, 0, 9], [10, 0, 0, 1], [8, 8, 8, 8]]
        .iter()
        .flat_map(|ip: &[u8; 4]| [ip[0], ip[1], ip[2], ip[3], 0x1a, 0xe1])
        .collect();
    let body = [b"d5:peers24:", &peers[..], b"e"].concat();
    let client = TrackerClient::new(settings(NAMES));
    for (name, address, expected) in [
        ("public.test", [127, 1, 0, 1], 1),
        ("lan.test", [127, 2, 0, 1], 2),
        ("here.test", [127, 0, 0, 1], 3),
    ] {
        let port = web(address, ok_with("Connection: close\r\n", &body)).await;
        let reply = announce(&client, &format!("http://{name}:{port}/announce")).await.unwrap();
        assert_eq!(reply.peers.len(), expected, "{name}: {:?}", reply.peers);
    }
}

#[tokio::test]
async fn n12_a_host_that_is_no_tracker_is_bothered_once_by_all_its_urls() {
    let (victim, port) = listener([127, 1, 0, 1]).await;
    let client = client();
    let count = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut stream, _)) = victim.accept().await {
            connections += 1;
            if read_head(&mut stream).await.contains("/last") {
                break;
            }
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        }
        connections
    });
    let first = announce(&client, &format!("http://127.1.0.1:{port}/0")).await;
    assert_eq!(first, Err(AnnounceFault::Status(404)));
    for n in 1..64 {
        let got = announce(&client, &format!("http://127.1.0.1:{port}/{n}")).await;
        assert!(matches!(got, Err(AnnounceFault::HostPaused(_))), "{n}: {got:?}");
    }
    let mut last = TcpStream::connect(("127.1.0.1", port)).await.unwrap();
    last.write_all(b"GET /last\r\n\r\n").await.unwrap();
    assert_eq!(count.await.unwrap(), 2);
}

#[tokio::test]
async fn n12_redirects_do_not_hide_who_is_no_tracker() {
    let client = TrackerClient::new(settings(NAMES));
    let page = web([127, 1, 0, 2], b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let port = web([127, 1, 0, 1], redirect_to(&format!("http://127.1.0.2:{page}/"))).await;
    let url = format!("http://public.test:{port}/announce");
    assert_eq!(announce(&client, &url).await, Err(AnnounceFault::Status(404)));
    for paused in [url, format!("http://127.1.0.2:{page}/")] {
        let got = announce(&client, &paused).await;
        assert!(matches!(got, Err(AnnounceFault::HostPaused(_))), "{got:?}");
    }
}

#[tokio::test]
async fn n12_a_dead_tracker_on_a_local_network_pauses_nobody() {
    let client = client();
    let dead = tracker("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", b"").await;
    assert_eq!(announce(&client, &dead).await, Err(AnnounceFault::Status(404)));
    assert!(announce(&client, &tracker(good(), b"").await).await.is_ok());
}

#[tokio::test]
async fn n12_refusals_do_not_pause_a_tracker() {
    let client = client();
    let refusal = ok_with("Connection: close\r\n", b"d14:failure reason2:noe");
    let url = format!("http://127.1.0.1:{}/announce", web([127, 1, 0, 1], refusal).await);
    for _ in 0..3 {
        let got = announce(&client, &url).await;
        assert!(matches!(got, Err(AnnounceFault::Reply(_))), "{got:?}");
    }
}

/// Never answers.
#[derive(Debug)]
struct Stalled(Mutex<std::sync::mpsc::Receiver<()>>);

impl Resolve for Stalled {
    fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let _ = self.0.lock().unwrap().recv();
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn n13_names_that_cannot_be_looked_up() {
    let (release, stalled) = std::sync::mpsc::channel();
    let client = TrackerClient::new(TrackerSettings {
        resolver: Arc::new(Stalled(Mutex::new(stalled))),
        dns_timeout: MOMENT,
        ..settings(&[])
    });
    for url in ["http://stalled.test/", "udp://stalled.test:1"] {
        let got = announce(&client, url).await;
        assert!(matches!(got, Err(AnnounceFault::NoAddress)), "{got:?}");
    }
    drop(release);
    let got = announce(&self::client(), "http://nxdomain.test/").await;
    assert_eq!(got, Err(AnnounceFault::NoAddress));
}

#[tokio::test]
async fn n11_announces_under_way_are_bounded() {
    let client = TrackerClient::new(TrackerSettings { timeout: MOMENT, ..settings(&[]) });
    let places = client.places.acquire_many(TRACKER_ANNOUNCES_MAX as u32).await.unwrap();
    let url = tracker(good(), b"").await;
    let mut waiting = Box::pin(announce(&client, &url));
    tokio::select! { biased; _ = &mut waiting => panic!("no place for it"), () = async {} => {} }
    drop(places);
    // The deadline counts from now on.
    assert!(waiting.await.is_ok());
}
