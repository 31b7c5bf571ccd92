//! What a relay wants of its torrents when it is started again and told nothing of that: what it wanted
//! before, until it is told otherwise.

use std::path::Path;
use std::sync::Arc;

use super::config::{NodeConfig, Role};
use super::store::{KeptSelection, StateDir};
use crate::base::priority::Priority;
use crate::proto::metainfo::Metainfo;

/// How much each file is wanted; `None` is all alike.
type Wanted = Option<Arc<[Priority]>>;

/// Whether the command line, or the link, says which files are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

/// Settles what is wanted of all torrents that are known at the start.
pub fn settle_all(state: &StateDir, config: &mut NodeConfig) {
    if config.role != Role::Relay {
        return;
    }
    config.wanted.resize(config.torrents.len(), None);
    for index in 0..config.torrents.len() {
        let metainfo = Arc::clone(&config.torrents[index]);
        if !metainfo.is_awaited() {
            let chosen = config.wanted[index].take();
            config.wanted[index] = settle(state, config, &metainfo, chosen);
        }
    }
}

/// What is wanted of a torrent, of which `chosen` is what was said now.
pub fn settle(state: &StateDir, config: &NodeConfig, metainfo: &Metainfo, chosen: Wanted) -> Wanted {
    if config.role != Role::Relay {
        return chosen;
    }
    let named = config.link_files.iter().any(|(of, _)| metainfo.names().any(|name| name == *of));
    let told = if named || !config.selection.is_empty() { Told::Yes } else { Told::No };
    keep_or_recall(state, &config.dir, metainfo, (told, chosen))
}

fn keep_or_recall(
    state: &StateDir,
    dir: &Path,
    metainfo: &Metainfo,
    (told, chosen): (Told, Wanted),
) -> Wanted {
    let name = metainfo.name.escape_debug();
    let hash = metainfo.info_hash;
    if told == Told::Yes {
        if let Err(error) = state.keep_selection(dir, hash, chosen.as_deref()) {
            tracing::warn!("{name}: the next start has to be told again which files are wanted: {error}");
        }
        return chosen;
    }
    match state.kept_selection(dir, hash, metainfo.files.len()) {
        Ok(KeptSelection::None) => chosen,
        Ok(KeptSelection::Files(wanted)) => {
            tracing::info!("{name}: wanted is what was wanted before; --files '**' is for all of it");
            Some(wanted)
        }
        Ok(KeptSelection::Damaged(path)) => {
            tracing::warn!("{name}: {} is damaged, all files are wanted: give --files anew", path.display());
            chosen
        }
        Err(error) => {
            tracing::warn!("{name}: all files are wanted, what was wanted before cannot be read: {error}");
            chosen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_once_counts_until_something_else_is_said() {
        let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = StateDir::open(state.path()).unwrap();
        let files = "d6:lengthi1e4:pathl1:aeed6:lengthi1e4:pathl1:bee";
        let info =
            format!("d5:filesl{files}e4:name1:t12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae");
        let metainfo = Metainfo::parse(format!("d4:info{info}e").as_bytes()).unwrap();
        let start = |told, chosen: Option<&[Priority]>| {
            keep_or_recall(&state, dir.path(), &metainfo, (told, chosen.map(Arc::from)))
        };
        let some: Wanted = Some(Arc::new([Priority::Skip, Priority::High]));
        assert_eq!(start(Told::No, None), None);
        assert_eq!(start(Told::Yes, some.as_deref()), some);
        for _ in 0..2 {
            assert_eq!(start(Told::No, None), some);
        }
        assert_eq!(start(Told::Yes, None), None, "all of it");
        assert_eq!(start(Told::No, None), None);
    }
}
