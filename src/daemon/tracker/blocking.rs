//! Work that blocks, off the control thread, within a bound.

use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// Runs blocking jobs on threads of their own, so many at a time. A job that is given up keeps
/// its place until it really ends, and the process can end without waiting for it: that is why
/// it is not tokio's pool.
#[derive(Debug)]
pub(in crate::daemon) struct BlockingJobs {
    name: &'static str,
    places: Arc<Semaphore>,
}

/// The system gave no thread, or the job panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct JobLost;

impl BlockingJobs {
    pub(in crate::daemon) fn new(name: &'static str, jobs_max: usize) -> Self {
        Self { name, places: Arc::new(Semaphore::new(jobs_max)) }
    }

    /// The result of `job`, once there is a place for it and it has ended.
    pub(in crate::daemon) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| JobLost)?;
        let (done, outcome) = oneshot::channel();
        let work = move || {
            // Nobody may be listening any more; that is no error.
            let _ = done.send(job());
            drop(place);
        };
        thread::Builder::new().name(self.name.into()).spawn(work).map_err(|_| JobLost)?;
        outcome.await.map_err(|_| JobLost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn n13_a_stalled_job_keeps_its_place_and_no_other() {
        let jobs = BlockingJobs::new("test", 2);
        let (release, stalled) = mpsc::channel::<()>();
        let mut given_up = Box::pin(jobs.run(move || stalled.recv()));
        // Polled once, so that it has started; then given up.
        tokio::select! { biased; _ = &mut given_up => panic!("ended"), () = async {} => {} }
        drop(given_up);
        assert_eq!(jobs.places.available_permits(), 1);
        assert_eq!(jobs.run(|| 5).await, Ok(5));
        release.send(()).unwrap();
        let all = jobs.places.acquire_many(2).await.unwrap();
        drop(all);
    }
}
