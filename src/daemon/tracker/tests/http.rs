//! The HTTP exchange itself: good replies, and the bad ones of threats N5, N6, N8.

use std::io::Write;

use super::*;
use crate::base::limits::{TRACKER_HEADER_BYTES_MAX, TRACKER_REPLY_BYTES_MAX};
use crate::proto::tracker::ReplyError;

async fn outcome(response: impl AsRef<[u8]>, again: &[u8]) -> Result<AnnounceReply, AnnounceFault> {
    announce(&client(), &tracker(response, again).await).await
}

/// For what ends only by the deadline.
async fn hurried(response: impl AsRef<[u8]>, again: &[u8]) -> AnnounceFault {
    let client = TrackerClient::new(TrackerSettings { timeout: MOMENT, ..settings(&[]) });
    announce(&client, &tracker(response, again).await).await.unwrap_err()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn replies_are_read_however_they_are_framed() {
    let chunked = [b"1\r\n", &REPLY[..1], b"\r\n20;x=y\r\n", &REPLY[1..], b"\r\n0\r\n\r\n"].concat();
    assert_eq!(REPLY.len(), 1 + 0x20);
    for response in [
        ok_with(&format!("Content-Length: {}\r\n", REPLY.len()), REPLY),
        ok_with("Connection: close\r\n", REPLY),
        ok_with("Transfer-Encoding: chunked\r\n", &chunked),
        ok_with("Content-Encoding: gzip\r\nConnection: close\r\n", &gzip(REPLY)),
        [b"HTTP/1.0 200 OK\r\n\r\n", REPLY].concat(),
        [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok_with("Connection: close\r\n", REPLY)].concat(),
    ] {
        let reply = outcome(&response, b"").await;
        let text = response.escape_ascii().to_string();
        let reply = reply.unwrap_or_else(|fault| panic!("{fault}: {text}"));
        assert_eq!(reply.interval, Span::from_secs(1800));
        assert_eq!(reply.peers, ["1.2.3.4:6881".parse().unwrap()]);
    }
}

#[tokio::test]
async fn the_request_is_what_bep_3_says() {
    let (listener, port) = listener([127, 0, 0, 1]).await;
    let url = format!("http://user:word@127.0.0.1:{port}/announce?pk=1");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(&ok_with("Connection: close\r\n", REPLY)).await.unwrap();
        head
    });
    announce(&client(), &url).await.unwrap();
    let head = server.await.unwrap().to_ascii_lowercase();
    let info_hash = "%ab".repeat(20);
    let line = format!("get /announce?pk=1&info_hash={info_hash}&peer_id=-tr0001-abcdefghijkl&port=6881&");
    assert!(head.starts_with(&line), "{head}");
    assert!(head.contains("&event=started http/1.1\r\n"));
    assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")));
    assert!(head.contains("\r\naccept-encoding: gzip\r\n"));
    // "user:word" in base64, in lower case.
    assert!(head.contains("\r\nauthorization: basic dxnlcjp3b3jk\r\n"), "{head}");
}

#[tokio::test]
async fn n5_endless_bodies_are_cut_off() {
    let filler = vec![b'0'; 64 << 10];
    let chunk = [b"10000\r\n", &filler[..], b"\r\n"].concat();
    for (headers, again) in [
        ("Connection: close\r\n", &filler),
        ("Content-Length: 99999999999\r\n", &filler),
        ("Transfer-Encoding: chunked\r\n", &chunk),
    ] {
        assert_eq!(outcome(ok_with(headers, b""), again).await, Err(AnnounceFault::TooLong), "{headers}");
    }
}

#[tokio::test]
async fn n5_body_limit_is_exact() {
    let body_of = |len: usize| {
        let head = format!("d1:x{}:", len - b"d1:x1048563:e".len());
        [head.as_bytes(), &vec![b'0'; len - head.len() - 1], b"e"].concat()
    };
    for len in [TRACKER_REPLY_BYTES_MAX - 1, TRACKER_REPLY_BYTES_MAX, TRACKER_REPLY_BYTES_MAX + 1] {
        let got = outcome(ok_with("Connection: close\r\n", &body_of(len)), b"").await;
        match len <= TRACKER_REPLY_BYTES_MAX {
            true => assert!(got.is_ok(), "{got:?}"),
            false => assert_eq!(got, Err(AnnounceFault::TooLong)),
        }
    }
}

#[tokio::test]
async fn n5_gzip_bombs_are_cut_off() {
    let bomb = gzip(&vec![b'0'; 64 << 20]);
    assert!(bomb.len() < 128 << 10);
    let headers = "Content-Encoding: gzip\r\nConnection: close\r\n";
    assert_eq!(outcome(ok_with(headers, &bomb), b"").await, Err(AnnounceFault::TooLong));
    // A gzip stream that ends too early, and one that is none.
    let cut = gzip(REPLY);
    for body in [&cut[..cut.len() - 9], b"no gzip at all"] {
        assert!(outcome(ok_with(headers, body), b"").await.is_err());
    }
}

#[tokio::test]
async fn n5_slow_and_silent_trackers_meet_the_deadline() {
    for response in [
        &b""[..],
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\nd8:inter",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nd8:in",
    ] {
        let (listener, port) = listener([127, 0, 0, 1]).await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(response).await.unwrap();
            // Held open until the client leaves.
            while stream.read_u8().await.is_ok() {}
        });
        let client = TrackerClient::new(TrackerSettings { timeout: MOMENT, ..settings(&[]) });
        let got = announce(&client, &format!("http://127.0.0.1:{port}/announce")).await;
        assert_eq!(got, Err(AnnounceFault::Timeout(MOMENT)));
    }
}

#[tokio::test]
async fn n5_a_good_bye_has_its_own_deadline() {
    let client = TrackerClient::new(TrackerSettings { stop_timeout: MOMENT, ..settings(&[]) });
    let (_silent, port) = listener([127, 0, 0, 1]).await;
    let url = format!("http://127.0.0.1:{port}/announce");
    let got = client.announce(&url, &request(AnnounceEvent::Stopped), TrackerOrigin::Operator).await;
    assert_eq!(got.unwrap_err().cause, AnnounceFault::Timeout(MOMENT));
}

#[tokio::test]
async fn n5_floods_of_headers_and_interim_replies_end() {
    let header = format!("X-Flood: {}\r\n", "x".repeat(1000)).into_bytes();
    assert!(outcome("HTTP/1.1 200 OK\r\n", &header).await.is_err());
    let long = format!("X: {}\r\nConnection: close\r\n", "x".repeat(TRACKER_HEADER_BYTES_MAX));
    assert_eq!(outcome(ok_with(&long, REPLY), b"").await, Err(AnnounceFault::TooLong));
    // Whatever the client makes of them, they must not hold it beyond the deadline.
    hurried("", b"HTTP/1.1 100 Continue\r\n\r\n").await;
    hurried("", b"HTTP/1.1 102 Processing\r\n\r\n").await;
}

#[tokio::test]
async fn n5_lies_about_lengths_are_errors() {
    for (headers, body) in [
        ("Transfer-Encoding: chunked\r\n", &b"-5\r\nhello\r\n0\r\n\r\n"[..]),
        ("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\nhello"),
        ("Transfer-Encoding: chunked\r\n", b"zz\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"2\r\nde"),
        ("Content-Length: -1\r\n", b"de"),
        ("Content-Length: 18446744073709551616\r\n", b"de"),
        ("Content-Length: 5\r\n", b"de"),
        ("Content-Length: 1\r\n", b"de"),
        ("Content-Length: 0\r\n", b"de"),
    ] {
        let got = outcome(ok_with(headers, body), b"").await;
        assert!(got.is_err(), "{headers}{}: {got:?}", body.escape_ascii());
    }
    for garbage in [&b"\0\0\0\0"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"<html>"] {
        assert!(outcome(garbage, b"").await.is_err());
    }
}

#[tokio::test]
async fn n8_refusals_are_told_in_safe_words_whatever_the_status() {
    let refusal = b"d14:failure reason12:not\x1b[2J yet!e";
    let words = AnnounceFault::Reply(ReplyError::Refused("not\\u{1b}[2J yet!".into()));
    let response = ok_with("Connection: close\r\n", refusal);
    assert_eq!(outcome(&response, b"").await, Err(words.clone()));
    let with_status = response.iter().copied().skip(b"HTTP/1.1 200".len());
    let with_status: Vec<u8> = b"HTTP/1.1 403".iter().copied().chain(with_status).collect();
    assert_eq!(outcome(with_status, b"").await, Err(words));
    for status in [400_u16, 404, 429, 500, 503] {
        let response = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nde");
        assert_eq!(outcome(response, b"").await, Err(AnnounceFault::Status(status)));
    }
    let page = ok_with("Connection: close\r\n", b"<html>hello</html>");
    assert!(matches!(outcome(page, b"").await, Err(AnnounceFault::Reply(ReplyError::Malformed(_)))));
}

#[tokio::test]
async fn a12_errors_name_the_host_and_no_secret() {
    // The port is taken, so that nobody else gets it, but on another address.
    let (_listener, port) = listener([127, 0, 0, 1]).await;
    let dead = format!("http://user:hunter2@127.0.0.9:{port}/PASSKEY/announce?pk=SECRET");
    let redirects = tracker(redirect_to("http://[bad/PASSKEY?pk=SECRET"), b"").await;
    let page = tracker(ok_with("Connection: close\r\n", b"PASSKEY"), b"").await;
    let long = format!("http://127.0.0.1:1/PASSKEY{}", "x".repeat(3000));
    for url in [dead, redirects, page, long, "http://127.0.0.1:1/PASSKEY{|}".into()] {
        let client = client();
        let request = request(AnnounceEvent::None);
        let error = client.announce(&url, &request, TrackerOrigin::Operator).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("tracker http://127.0.0.") || url.len() > 2048, "{text}");
        for secret in ["PASSKEY", "SECRET", "hunter2"] {
            assert!(!text.contains(secret) && !format!("{error:?}").contains(secret), "{text}");
        }
        assert!(!text.contains('\n'));
    }
}
