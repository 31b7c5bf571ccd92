//! Announces and scrapes by HTTP. A connection brings one question and has a few seconds for it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Desk;
use super::guests::Guests;
use crate::base::limits::{SERVED_CONNECTION_TIME, SERVED_CONNECTIONS_MAX, SERVED_REQUEST_BYTES_MAX};
use crate::daemon::{clock, serving};
use crate::proto::tracker::serve::{
    Families, HttpQuestion, Refusal, announce_reply, failure_reply, parse_query, scrape_reply,
};

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, desk: Rc<Desk>, guests: Rc<Guests>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the tracker does not serve HTTP: {error}"),
    };
    let accept = async || listener.accept().await;
    let converse = |(stream, from): (TcpStream, SocketAddr)| {
        let (place, desk) = (guests.enter(from.ip()), Rc::clone(&desk));
        async move {
            // Who has too many is hung up on, and comes again with its next announce.
            let Some(_place) = place else { return Ok(()) };
            converse(stream, from, desk).await
        }
    };
    serving::serve(accept, SERVED_CONNECTIONS_MAX, SERVED_CONNECTION_TIME, converse).await;
}

/// One connection. Its errors are the client's: gone, too slow, or not speaking HTTP.
async fn converse(stream: TcpStream, from: SocketAddr, desk: Rc<Desk>) -> hyper::Result<()> {
    let ours = stream.local_addr().ok().map(|address| address.ip());
    let service = service_fn(move |request| answer(request, from.ip(), ours, Rc::clone(&desk)));
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(SERVED_REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// A refusal is an answer, too (BEP 3): clients show its reason.
async fn answer(
    request: Request<Incoming>,
    from: IpAddr,
    ours: Option<IpAddr>,
    desk: Rc<Desk>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match *request.method() {
        Method::GET => reply(request.uri(), from, ours, &desk),
        _ => Err(Refusal::Malformed("it is a GET")),
    };
    let mut response = Response::new(Full::from(Bytes::new()));
    if matches!(body, Err(Refusal::Malformed(_))) {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    *response.body_mut() = Full::from(body.unwrap_or_else(failure_reply));
    Ok(response)
}

fn reply(uri: &hyper::Uri, from: IpAddr, ours: Option<IpAddr>, desk: &Desk) -> Result<Vec<u8>, Refusal> {
    Ok(match parse_query(uri.path(), uri.query().unwrap_or_default(), from)? {
        HttpQuestion::Announce(asked, claimed) => {
            announce_reply(&desk.announce(asked, claimed, Families::Both, ours)?)
        }
        HttpQuestion::Scrape(hashes) => {
            scrape_reply(&hashes, &desk.tracker.borrow_mut().handle_scrape(&hashes, clock::now()))
        }
    })
}
