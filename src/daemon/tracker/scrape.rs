//! Scrapes (BEP 48): the counts of a torrent, under the same rules as announces.

use super::*;
use crate::base::ids::InfoHash;
use crate::daemon::clock;
use crate::proto::tracker::scrape::{Scrape, parse_scrape, scrape_url};

impl TrackerClient {
    /// Asks the tracker at `url`, which `origin` has named, how many peers it counts of a torrent. Waits for
    /// a place as an announce does, and may be dropped at any time.
    pub async fn scrape(
        &self,
        url: &str,
        info_hash: InfoHash,
        origin: TrackerOrigin,
    ) -> Result<Scrape, AnnounceError> {
        let url = TrackerUrl::parse(url)
            .map_err(|error| AnnounceError { tracker: String::new(), cause: AnnounceFault::Url(error) })?;
        let outcome = self.scrape_at(&url, info_hash, origin).await;
        outcome.map_err(|cause| AnnounceError { tracker: url.to_string(), cause })
    }

    async fn scrape_at(
        &self,
        url: &TrackerUrl,
        info_hash: InfoHash,
        origin: TrackerOrigin,
    ) -> Result<Scrape, AnnounceFault> {
        let _place = self.places.acquire().await.map_err(|_| AnnounceFault::Exhausted)?;
        let total = self.settings.timeout;
        let deadline = Instant::now() + clock::duration(total);
        let call = Call { client: self, origin, deadline, asked: Cell::new(false) };
        call.finish(url, total, call.scrape(url, info_hash)).await
    }
}

impl Call<'_> {
    async fn scrape(&self, url: &TrackerUrl, info_hash: InfoHash) -> Result<Scrape, AnnounceFault> {
        if url.scheme() == Scheme::Udp {
            return Ok(self.ask(url, &info_hash).await?.0);
        }
        let full = scrape_url(url, info_hash).ok_or(AnnounceFault::NoScrape)?;
        Ok(self.get(url, full, move |body: &[u8]| parse_scrape(body, info_hash)).await?.0)
    }
}
