//! Accepts connections to the control thread's small servers: so many at a time, and each for so long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::base::time::Span;
use crate::daemon::clock;

/// Wait after an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Has `converse` talk to whoever `accept` brings, until the runtime ends. More than `connections_max` wait
/// until one of these has ended, or its `time` is up.
pub async fn serve<S, T: Future + 'static>(
    mut accept: impl AsyncFnMut() -> io::Result<S>,
    connections_max: usize,
    time: Span,
    converse: impl Fn(S) -> T,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        // Closed never: the semaphore lives as long as this task.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match accept().await {
            Ok(stream) => {
                let talk = converse(stream);
                tokio_uring::spawn(async move {
                    let _ = tokio::time::timeout(clock::duration(time), talk).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
