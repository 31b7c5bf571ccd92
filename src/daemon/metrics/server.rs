//! One page over HTTP: `GET /metrics`. No authentication; whoever reaches the port may read. Connections
//! and their time are bounded, so that a reader who says nothing keeps nobody else out for long.

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Snapshot, page};
use crate::base::limits::{METRICS_CONNECTION_TIME, METRICS_CONNECTIONS_MAX};
use crate::daemon::serving;

/// Where the control loop puts its answer.
pub type Asked = oneshot::Sender<Snapshot>;

/// Serves until the runtime ends. `ask` hands each question to the control loop.
pub(super) async fn serve(listener: TcpListener, ask: impl Fn(Asked) + 'static) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("metrics are not served: {error}"),
    };
    let ask: Rc<dyn Fn(Asked)> = Rc::new(ask);
    let accept = async || Ok(listener.accept().await?.0);
    let converse = |stream| converse(stream, Rc::clone(&ask));
    serving::serve(accept, METRICS_CONNECTIONS_MAX, METRICS_CONNECTION_TIME, converse).await;
}

/// One connection, which may bring several requests until its time is up. Its errors are the reader's: gone,
/// too slow, or not speaking HTTP.
async fn converse(stream: TcpStream, ask: Rc<dyn Fn(Asked)>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Rc::clone(&ask)));
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}

async fn answer(
    request: Request<Incoming>,
    ask: Rc<dyn Fn(Asked)>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"));
    }
    if !reading {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let (reply, snapshot) = oneshot::channel();
    ask(reply);
    let page = snapshot.await.ok().and_then(|snapshot| page::render(snapshot).ok());
    let Some(page) = page else {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping\n"));
    };
    let mut response = Response::new(Full::from(page));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page::CONTENT_TYPE));
    Ok(response)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
