//! What the cores share of one torrent: immutable metadata and atomic state.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam::utils::CachePadded;

use super::budget::Budget;
use super::chunks::ChunkTable;
use super::counters::Count;
use super::givers::Givers;
use super::injection::Injection;
use super::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use super::trees::Trees;
use super::witnesses::Witnesses;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::ids::{CoreId, InfoHash, TorrentId};
use crate::base::limits::{CONNECTIONS_PER_CORE_MAX, CORES_MAX};
use crate::base::piece_hashes::PieceHashes;
use crate::base::priority::Priority;
use crate::storage::layout::{FileSpan, Layout};
use crate::storage::plan;
use crate::storage::wanted::Wanted;

/// What never changes.
#[derive(Debug)]
pub struct TorrentMeta {
    /// This process's number for it.
    pub id: TorrentId,
    /// The world's name for it.
    pub info_hash: InfoHash,
    /// Sizes.
    pub geometry: Geometry,
    /// SHA-1 of each piece; none of a v2 torrent.
    pub piece_hashes: PieceHashes,
    /// The raw info dictionary, for those who have only a link (BEP 9); none is served if it is empty.
    pub info: Bytes,
    /// What v2 says of its pieces (BEP 52).
    pub trees: Option<Arc<Trees>>,
    /// The second name of a hybrid torrent: its v2 info-hash, cut to what the wire has room for.
    pub v2_hash: Option<InfoHash>,
    /// Where its bytes lie in files.
    pub layout: Layout,
    /// Only its trackers may name peers (BEP 27).
    pub private: bool,
}

impl TorrentMeta {
    /// The first torrent of a process, of v1, public and of one file, whose pieces hash to zeros and which
    /// gives no metadata: what tests and benchmarks change where it matters to them.
    pub fn plain(info_hash: InfoHash, total_bytes: u64, piece_bytes: u32) -> Self {
        let geometry = Geometry::new(total_bytes, piece_bytes);
        Self {
            id: TorrentId(0),
            info_hash,
            geometry,
            piece_hashes: vec![[0; 20]; geometry.piece_count() as usize].into(),
            info: Bytes::new(),
            trees: None,
            v2_hash: None,
            layout: Layout::new(std::iter::once(FileSpan { length: total_bytes, pad: false })),
            private: false,
        }
    }

    /// Where the first byte of a chunk lies in the payload area of its slot (`storage/plan.rs`).
    pub fn residue(&self, chunk: u32) -> u32 {
        plan::residue(&self.layout, self.geometry.chunk_start(chunk), self.geometry.chunk_len(chunk))
    }
}

/// What one core has done for a torrent, for the status and the metrics. Bytes and `seeds` are written by
/// that core alone, `peers` also by a core that hands a connection over to it.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Payload received, duplicates included.
    pub received_bytes: Count,
    /// Of that, blocks of web seeds that landed.
    pub web_seed_bytes: Count,
    /// Payload sent.
    pub sent_bytes: Count,
    /// Payload received and thrown away.
    pub wasted_bytes: Count,
    /// Connected peers.
    pub peers: AtomicU32,
    /// Connected peers that have everything.
    pub seeds: AtomicU32,
    /// Of `peers`, connections to web seeds.
    pub web_seeds: AtomicU32,
    /// Payload read from disk to be served.
    pub loaded_bytes: Count,
}

/// What limits one torrent, beside what limits the whole node.
#[derive(Clone, Debug, Default)]
pub struct TorrentLimits {
    /// Payload sent.
    pub upload: Option<Arc<Budget>>,
    /// Payload asked for.
    pub download: Option<Arc<Budget>>,
}

/// One torrent as all cores see it.
#[derive(Debug)]
pub struct SharedTorrent {
    /// What limits it.
    pub limits: TorrentLimits,
    /// What never changes.
    pub meta: TorrentMeta,
    /// Where each chunk's bytes are.
    pub chunks: ChunkTable,
    /// One entry per worker.
    pub stats: Box<[CachePadded<CoreStats>]>,
    /// What is wanted; `None` is everything alike.
    pub wanted: Option<Arc<Wanted>>,
    have: Box<[AtomicU64]>,
    have_count: AtomicU32,
    /// Pieces that are wanted and not verified.
    lacking: AtomicU32,
    /// Who gives which piece.
    pub givers: Givers,
    owners: Box<[AtomicU8]>,
    fingerprints: Box<[AtomicU64]>,
    fetch_stopped: AtomicBool,
    may_be_complete: bool,
    injection: OnceLock<Injection>,
    /// Who else holds which piece.
    pub witnesses: Witnesses,
}

/// Nobody collects this piece.
const NO_OWNER: u8 = u8::MAX;

/// Beside the owner: nobody else may collect this piece. Cores are numbered below it.
const RESTRICTED: u8 = 0x80;

const _: () = assert!(CORES_MAX < RESTRICTED as usize);
// A count of connections fits into that of those who give a piece.
const _: () = assert!(CORES_MAX as u64 * (CONNECTIONS_PER_CORE_MAX as u64) < u32::MAX as u64);

impl SharedTorrent {
    /// A torrent of which `have` is verified and on disk, on `cores` workers.
    pub fn new(meta: TorrentMeta, have: &Bitfield, cores: usize) -> Arc<Self> {
        Self::with_limits(meta, have, cores, TorrentLimits::default())
    }

    /// The same with limits of its own.
    pub fn with_limits(meta: TorrentMeta, have: &Bitfield, cores: usize, limits: TorrentLimits) -> Arc<Self> {
        Self::with_wanted(meta, have, cores, limits, None)
    }

    /// The same of which not everything is wanted.
    pub fn with_wanted(
        meta: TorrentMeta,
        have: &Bitfield,
        cores: usize,
        limits: TorrentLimits,
        wanted: Option<Arc<Wanted>>,
    ) -> Arc<Self> {
        let geometry = meta.geometry;
        let pieces = geometry.piece_count();
        assert_eq!(have.len(), pieces);
        let wants = |piece| wanted.as_ref().is_none_or(|wanted| wanted.pieces().get(piece));
        let may_be_complete = (0..pieces).all(|piece| have.get(piece) || wants(piece));
        let torrent = Self {
            limits,
            may_be_complete,
            lacking: AtomicU32::new(wanted.as_ref().map_or(pieces, |wanted| wanted.pieces().count())),
            wanted,
            chunks: ChunkTable::new(geometry.chunk_count()),
            stats: (0..cores).map(|_| CachePadded::default()).collect(),
            have: (0..pieces.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            have_count: AtomicU32::new(0),
            givers: Givers::new(pieces),
            owners: (0..pieces).map(|_| AtomicU8::new(NO_OWNER)).collect(),
            fingerprints: (0..geometry.chunk_count()).map(|_| AtomicU64::new(0)).collect(),
            fetch_stopped: AtomicBool::new(false),
            injection: OnceLock::new(),
            witnesses: Witnesses::new(pieces),
            meta,
        };
        for piece in have.ones() {
            torrent.set_have(piece);
        }
        Arc::new(torrent)
    }

    /// Whether piece `piece` is verified.
    pub fn has(&self, piece: u32) -> bool {
        self.have[piece as usize / 64].load(Ordering::Acquire) & (1 << (piece % 64)) != 0
    }

    /// Marks piece `piece` verified; true if it was not before.
    pub fn set_have(&self, piece: u32) -> bool {
        let bit = 1 << (piece % 64);
        let was = self.have[piece as usize / 64].fetch_or(bit, Ordering::AcqRel) & bit != 0;
        if !was {
            self.have_count.fetch_add(1, Ordering::AcqRel);
            if self.wants(piece) {
                self.lacking.fetch_sub(1, Ordering::AcqRel);
            }
        }
        !was
    }

    /// Marks piece `piece` missing again, because its bytes on disk are not what they were.
    pub fn clear_have(&self, piece: u32) -> bool {
        let bit = 1 << (piece % 64);
        let was = self.have[piece as usize / 64].fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        if was {
            if self.wants(piece) {
                self.lacking.fetch_add(1, Ordering::AcqRel);
            }
            self.have_count.fetch_sub(1, Ordering::AcqRel);
        }
        was
    }

    /// How many pieces are verified.
    pub fn have_count(&self) -> u32 {
        self.have_count.load(Ordering::Acquire)
    }

    /// Whether every piece is verified.
    pub fn is_complete(&self) -> bool {
        self.have_count() == self.meta.geometry.piece_count()
    }

    /// Whether it is so, or will be once all that is wanted is there.
    pub const fn may_be_complete(&self) -> bool {
        self.may_be_complete
    }

    /// Whether piece `piece` is to be fetched unless it is there.
    pub fn wants(&self, piece: u32) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.pieces().get(piece))
    }

    /// Whether piece `piece` is wanted and not verified.
    pub fn lacks(&self, piece: u32) -> bool {
        !self.has(piece) && self.wants(piece)
    }

    /// How much piece `piece` is wanted.
    pub fn priority(&self, piece: u32) -> Priority {
        self.wanted.as_ref().map_or(Priority::Normal, |wanted| wanted.piece(piece))
    }

    /// Whether every wanted piece is verified: nothing is fetched any more, though it may be no seed.
    pub fn is_satisfied(&self) -> bool {
        self.lacking.load(Ordering::Acquire) == 0
    }

    /// What became of pieces that were given away; made when it is first asked for.
    pub fn injection(&self) -> &Injection {
        self.injection.get_or_init(|| Injection::new(self.meta.geometry.piece_count()))
    }

    /// Whether `theirs` has a piece that is wanted and not verified here.
    pub fn lacks_any_of(&self, theirs: &Bitfield) -> bool {
        let wanted = self.wanted.iter().flat_map(|wanted| wanted.pieces().words());
        // Where there is no selection everything is wanted.
        let wanted = wanted.chain(std::iter::repeat(u64::MAX));
        let mut words = theirs.words().zip(&self.have).zip(wanted);
        words.any(|((theirs, ours), wanted)| theirs & !ours.load(Ordering::Acquire) & wanted != 0)
    }

    /// The verified pieces in wire order, as of now.
    pub fn have_bits(&self) -> Bitfield {
        let mut bits = Bitfield::new(self.meta.geometry.piece_count());
        for piece in (0..bits.len()).filter(|&piece| self.has(piece)) {
            bits.set(piece);
        }
        bits
    }

    /// Bytes in verified pieces, padding included.
    pub fn verified_bytes(&self) -> u64 {
        let geometry = self.meta.geometry;
        let Some(last) = geometry.piece_count().checked_sub(1) else { return 0 };
        let full = u64::from(self.have_count()) * u64::from(geometry.piece_bytes);
        let short = u64::from(geometry.piece_bytes - geometry.piece_len(last));
        // The last piece may come between the two looks.
        if self.has(last) { full.saturating_sub(short) } else { full }
    }

    /// Who collects and hashes piece `piece`, if anybody does.
    pub fn owner(&self, piece: u32) -> Option<CoreId> {
        let owner = self.owners[piece as usize].load(Ordering::Acquire);
        (owner != NO_OWNER).then_some(CoreId(owner & !RESTRICTED))
    }

    /// Keeps piece `piece`, which `core` owns, to that core until it is disowned. To be called before
    /// its chunks become `Empty`: who claims one afterwards sees it.
    pub fn restrict(&self, piece: u32, core: CoreId) {
        self.owners[piece as usize].store(core.0 | RESTRICTED, Ordering::Release);
    }

    /// Whether only the owner of piece `piece` may collect it.
    pub fn is_restricted(&self, piece: u32) -> bool {
        let owner = self.owners[piece as usize].load(Ordering::Acquire);
        owner != NO_OWNER && owner & RESTRICTED != 0
    }

    /// Makes `core` the owner of piece `piece` unless it has one; returns the owner, who hashes it.
    pub fn own_piece(&self, piece: u32, core: CoreId) -> CoreId {
        let owner = &self.owners[piece as usize];
        match owner.compare_exchange(NO_OWNER, core.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => core,
            Err(now) => CoreId(now & !RESTRICTED),
        }
    }

    /// Ends the ownership of piece `piece`; only its owner calls it, after verification or failure.
    pub fn disown_piece(&self, piece: u32) {
        self.owners[piece as usize].store(NO_OWNER, Ordering::Release);
    }

    /// The secret-seeded XXH3 of chunk `chunk`; 0 while unknown.
    pub fn fingerprint(&self, chunk: u32) -> u64 {
        self.fingerprints[chunk as usize].load(Ordering::Relaxed)
    }

    /// Notes the fingerprint of verified bytes.
    pub fn set_fingerprint(&self, chunk: u32, print: u64) {
        self.fingerprints[chunk as usize].store(print, Ordering::Relaxed);
    }

    /// Whether fetching has been stopped: disk trouble, or the node is shutting down.
    pub fn fetch_stopped(&self) -> bool {
        self.fetch_stopped.load(Ordering::Relaxed)
    }

    /// Stops fetching on all cores; what is in memory is still written and served.
    pub fn stop_fetch(&self) {
        self.fetch_stopped.store(true, Ordering::Relaxed);
    }

    /// The core with the fewest peers of this torrent.
    pub fn least_loaded(&self) -> CoreId {
        let load = |index: &usize| self.stats[*index].peers.load(Ordering::Relaxed);
        CoreId((0..self.stats.len()).min_by_key(load).unwrap_or(0) as u8)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn torrent(total_bytes: u64, piece_bytes: u32, have: &[u32]) -> Arc<SharedTorrent> {
        let meta = TorrentMeta::plain(InfoHash([0; 20]), total_bytes, piece_bytes);
        let mut bits = Bitfield::new(meta.geometry.piece_count());
        for &piece in have {
            bits.set(piece);
        }
        SharedTorrent::new(meta, &bits, 2)
    }

    #[test]
    fn verified_bytes_count_the_short_last_piece_as_what_it_is() {
        let torrent = torrent(100_000, 32 << 10, &[0, 3]);
        assert_eq!(torrent.verified_bytes(), (32 << 10) + 1_696);
        assert!(torrent.set_have(1) && !torrent.set_have(1) && torrent.set_have(2));
        assert!(torrent.is_complete());
        assert_eq!(torrent.verified_bytes(), 100_000);
        assert!(torrent.clear_have(3) && !torrent.clear_have(3));
        assert_eq!(torrent.verified_bytes(), 96 << 10);
    }

    #[test]
    fn only_a_piece_that_we_lack_is_lacking() {
        let torrent = torrent(200 << 15, 32 << 10, &[0, 63, 64, 199]);
        let mut theirs = Bitfield::new(200);
        assert!(!torrent.lacks_any_of(&theirs));
        for piece in [0, 63, 64, 199] {
            theirs.set(piece);
        }
        assert!(!torrent.lacks_any_of(&theirs));
        theirs.set(198);
        assert!(torrent.lacks_any_of(&theirs) && torrent.lacks_any_of(&Bitfield::full(200)));
    }

    #[test]
    fn a_piece_that_is_not_wanted_is_not_lacking_and_counts_as_verified_all_the_same() {
        use crate::base::priority::Priority::{High, Normal, Skip};
        let geometry = Geometry::new(200 << 15, 32 << 10);
        let spans = [100 << 15, 50 << 15, 50 << 15].map(|length| FileSpan { length, pad: false });
        let layout = Layout::new(spans.into_iter());
        let wanted = Some(Arc::new(Wanted::new(&layout, geometry, &[Skip, Normal, High])));
        let plain = TorrentMeta::plain(InfoHash([0; 20]), geometry.total_bytes, geometry.piece_bytes);
        let meta = TorrentMeta { layout, ..plain };
        let mut have = Bitfield::new(200);
        have.set(0);
        have.set(150);
        let torrent = SharedTorrent::with_wanted(meta, &have, 1, TorrentLimits::default(), wanted);
        assert_eq!([0, 100, 150].map(|piece| torrent.priority(piece)), [Skip, Normal, High]);
        assert!(!torrent.lacks(99) && torrent.lacks(100) && !torrent.lacks(150));
        let mut theirs = Bitfield::new(200);
        for piece in (0..100).chain([150]) {
            theirs.set(piece);
        }
        assert!(!torrent.lacks_any_of(&theirs));
        theirs.set(199);
        assert!(torrent.lacks_any_of(&theirs));
        for piece in 100..200 {
            assert!(!torrent.is_satisfied());
            torrent.set_have(piece);
        }
        assert!(torrent.is_satisfied() && !torrent.is_complete() && !torrent.may_be_complete());
        assert!(torrent.clear_have(0) && torrent.is_satisfied(), "nobody wants it again");
        assert!(torrent.clear_have(120) && !torrent.is_satisfied() && torrent.lacks(120));
    }

    #[test]
    fn a_restricted_piece_keeps_its_owner_until_it_is_given_up() {
        let torrent = torrent(100_000, 32 << 10, &[]);
        assert!(!torrent.is_restricted(1), "nobody owns it");
        assert_eq!(torrent.own_piece(1, CoreId(1)), CoreId(1));
        assert!(!torrent.is_restricted(1));
        torrent.restrict(1, CoreId(1));
        assert!(torrent.is_restricted(1) && torrent.owner(1) == Some(CoreId(1)));
        assert_eq!(torrent.own_piece(1, CoreId(0)), CoreId(1));
        torrent.disown_piece(1);
        assert!(!torrent.is_restricted(1) && torrent.owner(1).is_none());
    }

    #[test]
    fn the_first_core_owns_a_piece_until_it_gives_it_up() {
        let torrent = torrent(100_000, 32 << 10, &[]);
        assert_eq!(torrent.own_piece(2, CoreId(1)), CoreId(1));
        assert_eq!(torrent.own_piece(2, CoreId(0)), CoreId(1));
        torrent.disown_piece(2);
        assert_eq!(torrent.own_piece(2, CoreId(0)), CoreId(0));
    }
}
