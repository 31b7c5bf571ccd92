//! `troc show --scrape`: what the trackers of a torrent count (BEP 48), asked side by side.

use std::rc::Rc;

use serde_json::json;

use crate::base::ids::InfoHash;
use crate::base::limits::TRACKERS_MAX;
use crate::daemon::tracker::{AnnounceError, TrackerClient, TrackerSettings};
use crate::engine::announcer::TrackerOrigin;
use crate::proto::tracker::scrape::Scrape;
use crate::proto::tracker::url::TrackerUrl;

use super::error::CliError;
use super::source::Source;

/// A tracker, as it may be shown, and what it counts.
pub struct Counted {
    tracker: String,
    outcome: Result<Scrape, AnnounceError>,
}

/// Asks all trackers of the source. A .torrent file here is the operator's word, a magnet link somebody's.
pub fn ask(source: &Source) -> Result<Vec<Counted>, CliError> {
    let (info_hash, trackers, origin): (_, Vec<String>, _) = match source {
        Source::Torrent(metainfo) => {
            let trackers = metainfo.trackers.iter().flatten().cloned();
            (Some(metainfo.info_hash), trackers.collect(), TrackerOrigin::Operator)
        }
        Source::Magnet(magnet) => (magnet.first_name(), magnet.trackers.clone(), TrackerOrigin::Stranger),
    };
    let Some(info_hash) = info_hash.filter(|_| !trackers.is_empty()) else {
        return Err(CliError::Failed("no tracker to ask: leave out --scrape".to_owned()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("no runtime: {error}")))?;
    Ok(runtime.block_on(ask_all(trackers, info_hash, origin)))
}

async fn ask_all(trackers: Vec<String>, info_hash: InfoHash, origin: TrackerOrigin) -> Vec<Counted> {
    let client = Rc::new(TrackerClient::new(TrackerSettings::default()));
    let tasks = tokio::task::LocalSet::new();
    let ask = |url: String| {
        let client = Rc::clone(&client);
        tasks.spawn_local(async move {
            let tracker = TrackerUrl::parse(&url).map(|url| url.to_string()).unwrap_or_default();
            Counted { tracker, outcome: client.scrape(&url, info_hash, origin).await }
        })
    };
    let asked: Vec<_> = trackers.into_iter().take(TRACKERS_MAX).map(ask).collect();
    let collect = async {
        let mut counted = Vec::new();
        for task in asked {
            counted.extend(task.await.ok());
        }
        counted
    };
    tasks.run_until(collect).await
}

/// One row of the table.
pub fn text(counted: &Counted) -> String {
    match &counted.outcome {
        Ok(Scrape { seeds, peers, completed }) => {
            format!("{}: {seeds} seeds, {peers} peers, completed {completed} times", counted.tracker)
        }
        Err(error) => error.to_string(),
    }
}

/// One entry of the JSON.
pub fn json(counted: &Counted) -> serde_json::Value {
    match &counted.outcome {
        Ok(Scrape { seeds, peers, completed }) => {
            json!({ "tracker": counted.tracker, "seeds": seeds, "peers": peers, "completed": completed })
        }
        Err(error) => json!({ "tracker": counted.tracker, "error": error.to_string() }),
    }
}
