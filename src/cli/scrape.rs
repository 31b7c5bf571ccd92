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
    /// The swarm that it counts, of a hybrid torrent, which has two.
    version: Option<&'static str>,
    outcome: Result<Scrape, AnnounceError>,
}

/// Asks all trackers of the source.
pub fn ask(source: &Source) -> Result<Vec<Counted>, CliError> {
    let (names, trackers): (Vec<InfoHash>, Vec<String>) = match source {
        Source::Torrent(metainfo) => {
            let trackers = metainfo.trackers.iter().flatten().cloned();
            (metainfo.names().collect(), trackers.collect())
        }
        Source::Magnet(magnet) => (magnet.first_name().into_iter().collect(), magnet.trackers.clone()),
    };
    if names.is_empty() || trackers.is_empty() {
        return Err(CliError::Failed("no tracker to ask: leave out --scrape".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("no runtime: {error}")))?;
    Ok(runtime.block_on(ask_all(trackers, &names)))
}

/// A hybrid torrent has a swarm by each of its names (BEP 52), and each is counted alone: most peers are in
/// both.
async fn ask_all(trackers: Vec<String>, names: &[InfoHash]) -> Vec<Counted> {
    let client = Rc::new(TrackerClient::new(TrackerSettings::default()));
    let tasks = tokio::task::LocalSet::new();
    let versions = ["v1", "v2"].map(|version| Some(version).filter(|_| names.len() > 1));
    let ask = |(url, info_hash, version): (String, InfoHash, _)| {
        let client = Rc::clone(&client);
        tasks.spawn_local(async move {
            let tracker = TrackerUrl::parse(&url).map(|url| url.to_string()).unwrap_or_default();
            Counted { tracker, version, outcome: client.scrape(&url, info_hash, TrackerOrigin::SOURCE).await }
        })
    };
    let each = |url: String| {
        let swarms = names.iter().zip(versions);
        swarms.map(move |(&info_hash, version)| (url.clone(), info_hash, version))
    };
    let asked: Vec<_> = trackers.into_iter().take(TRACKERS_MAX).flat_map(each).map(ask).collect();
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
            let swarm = counted.version.map(|version| format!(" ({version})")).unwrap_or_default();
            format!("{}{swarm}: {seeds} seeds, {peers} peers, completed {completed} times", counted.tracker)
        }
        Err(error) => error.to_string(),
    }
}

/// One entry of the JSON.
pub fn json(counted: &Counted) -> serde_json::Value {
    let mut value = match &counted.outcome {
        Ok(Scrape { seeds, peers, completed }) => {
            json!({ "tracker": counted.tracker, "seeds": seeds, "peers": peers, "completed": completed })
        }
        Err(error) => json!({ "tracker": counted.tracker, "error": error.to_string() }),
    };
    if let Some(version) = counted.version {
        value["version"] = json!(version);
    }
    value
}
