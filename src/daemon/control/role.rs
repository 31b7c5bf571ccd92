//! When a `get` ends by itself.

use super::*;

/// Between two looks at how much was sent.
const RATIO_LOOK: Span = Span::from_ms(250);

impl Control<'_> {
    /// A `get` ends when all is durable and, if it is to go on serving, served enough; or when there is
    /// nobody to get anything from.
    pub(super) fn check_role(&mut self, now: Instant) {
        let Role::Get { seed } = self.config.role else { return };
        // Each is looked at, whether others need more or not.
        let is_enough = |enough, swarm: &mut Swarm| swarm.is_enough(seed, now) && enough;
        if self.swarms.iter_mut().fold(true, is_enough) {
            self.stop();
            return;
        }
        let due = |swarm: &Swarm| {
            let seeding = swarm.seeding.filter(|seeding| seeding.end.is_none())?;
            let look = seeding.goal.ratio_thousandths.map(|_| now + RATIO_LOOK);
            look.into_iter().chain(seeding.over_at()).min()
        };
        self.role_at = self.swarms.iter().filter_map(due).min();
        self.check_peers(now);
    }

    /// Gives up when no peer has been connected to a torrent that needs one for too long.
    fn check_peers(&mut self, now: Instant) {
        let connected = |swarm: &Swarm| {
            let stats = swarm.live.as_ref().map(|live| live.shared.stats.iter());
            stats.into_iter().flatten().any(|stats| stats.peers.load(Ordering::Relaxed) > 0)
        };
        let metadata = |swarm: &Swarm| swarm.seeking.as_ref().is_some_and(|seeking| seeking.peers() > 0);
        for swarm in &mut self.swarms {
            let seeks = swarm.seeking.as_ref().is_some_and(|seeking| seeking.needs_peers());
            let needs_peers = swarm.is_fetching() || seeks;
            if !needs_peers || connected(swarm) || metadata(swarm) {
                swarm.peer_at = now;
            } else if now.since(swarm.peer_at) >= self.config.no_peers_timeout {
                let errors = swarm.tracker_error.iter().chain(&swarm.web_seed_error);
                let tracker: String = errors.map(|error| format!(" ({error})")).collect();
                let name = crate::proto::text::escape(swarm.metainfo.name.as_bytes(), 255);
                let seconds = self.config.no_peers_timeout.as_ms() / 1000;
                if let Some(seeking) = &swarm.seeking {
                    let why = if tracker.is_empty() { seeking.why() } else { tracker };
                    self.fail(NodeError::NoMetadata { seconds, name, why });
                    return;
                }
                self.fail(NodeError::NoPeers { seconds, name, tracker });
                return;
            }
        }
    }
}
