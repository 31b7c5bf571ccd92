//! One page over HTTP: `GET /metrics`. No authentication; whoever reaches the port may read. Connections
//! and their time are bounded, so that a reader who says nothing keeps nobody else out for long. A page is
//! kept for a moment, so that readers who ask on and on cost no more than one.

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
use tokio::sync::{Mutex, oneshot};

use super::{Snapshot, page};
use crate::base::limits::{METRICS_CONNECTION_TIME, METRICS_CONNECTIONS_MAX, METRICS_PAGE_AGE};
use crate::base::time::Instant;
use crate::daemon::{clock, serving};

/// Where the control loop puts its answer.
pub type Asked = oneshot::Sender<Snapshot>;

/// Serves until the runtime ends. `ask` hands each question to the control loop.
pub(super) async fn serve(listener: TcpListener, ask: impl Fn(Asked) + 'static) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("metrics are not served: {error}"),
    };
    let pages = Rc::new(Pages::new(ask));
    let accept = async || Ok(listener.accept().await?.0);
    let converse = |stream| converse(stream, Rc::clone(&pages));
    serving::serve(accept, METRICS_CONNECTIONS_MAX, METRICS_CONNECTION_TIME, converse).await;
}

/// The page that was made last.
struct Pages {
    ask: Box<dyn Fn(Asked)>,
    /// Whoever comes while one is being made waits for that.
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Pages {
    fn new(ask: impl Fn(Asked) + 'static) -> Self {
        Self { ask: Box::new(ask), last: Mutex::new(None) }
    }

    /// The page for who asked at `now`; `None` when the node stops.
    async fn get(&self, now: Instant) -> Option<Bytes> {
        let mut last = self.last.lock().await;
        if let Some((_, page)) = last.as_ref().filter(|(at, _)| now.since(*at) < METRICS_PAGE_AGE) {
            return Some(page.clone());
        }
        let (reply, snapshot) = oneshot::channel();
        (self.ask)(reply);
        let page = Bytes::from(page::render(snapshot.await.ok()?).ok()?);
        *last = Some((now, page.clone()));
        Some(page)
    }
}

/// One connection, which may bring several requests until its time is up. Its errors are the reader's: gone,
/// too slow, or not speaking HTTP.
async fn converse(stream: TcpStream, pages: Rc<Pages>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Rc::clone(&pages)));
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}

async fn answer(request: Request<Incoming>, pages: Rc<Pages>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"));
    }
    if !reading {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let Some(page) = pages.get(clock::now()).await else {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::time::Span;
    use crate::daemon::metrics::tests::snapshot;

    #[test]
    fn who_asks_on_and_on_gets_one_page_a_second() {
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let pages = Pages::new(move |reply: Asked| {
            counted.set(counted.get() + 1);
            let _ = reply.send(snapshot(&[]));
        });
        let at = Instant(0) + Span::from_secs(9);
        tokio_uring::start(async {
            for (after_ns, made) in [
                (0, 1),
                (METRICS_PAGE_AGE.0 - 1, 1),
                (METRICS_PAGE_AGE.0, 2),
                (METRICS_PAGE_AGE.0 + 1, 2),
                (2 * METRICS_PAGE_AGE.0, 3),
            ] {
                for _ in 0..10 {
                    assert!(pages.get(at + Span(after_ns)).await.is_some());
                    assert_eq!(asked.get(), made, "after {after_ns} ns");
                }
            }
        });
        tokio_uring::start(async {
            let stopping = Pages::new(|_| {});
            assert_eq!(stopping.get(at).await, None);
        });
    }
}
