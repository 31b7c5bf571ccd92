//! What is hashed for which version of torrent, and what becomes of the digests.

use std::ops::ControlFlow;
use std::ops::Range;

use crate::base::geometry::Geometry;
use crate::base::limits::PIECES_MAX;
use crate::cli::args::CreateArgs;
use crate::cli::error::CliError;
use crate::cli::hash_progress::HashProgress;
use crate::daemon::hashing::{
    Digests, HashOptions, HashSource, Method, PieceDigest, PieceOutcome, SourceFile, hash_pieces,
};
use crate::hash::merkle::Hash;
use crate::proto::metainfo::{FileEntry, FileHashes, aligned};

use super::walk::{self, Tree};

/// What is read and hashed.
#[derive(Debug)]
pub struct Plan {
    /// The files, sorted by path.
    pub files: Vec<FileEntry>,
    /// Sizes, padding between the files of v2 and hybrid torrents included.
    pub geometry: Geometry,
    /// What is read, padding included.
    sources: Vec<SourceFile>,
    digests: Digests,
}

/// The digests of all pieces.
#[derive(Debug, Default)]
pub struct Hashes {
    /// SHA-1 of each piece, for v1.
    pub pieces: Vec<[u8; 20]>,
    /// The trees of the files, for v2; `None` for empty ones.
    pub files: Option<Vec<Option<FileHashes>>>,
}

impl Plan {
    /// For the version that the arguments ask for; v1 unless they do.
    pub fn new(args: &CreateArgs, tree: &Tree, piece_bytes: u32) -> Result<Self, CliError> {
        let digests = match (args.v2, args.hybrid) {
            (_, true) => Digests::Both,
            (true, false) => Digests::Leaves,
            (false, false) => Digests::Sha1,
        };
        let entry =
            |file: &walk::Found| FileEntry { path: file.names.clone(), length: file.length, pad: false };
        let mut files: Vec<FileEntry> = tree.files.iter().map(entry).collect();
        // A tree of one file has no directory (BEP 52): to v2 it is the file alone.
        if let ([FileEntry { path, .. }], Digests::Leaves) = (&mut files[..], digests)
            && path.len() == 2
        {
            path.remove(0);
        }
        let listed = match digests {
            Digests::Sha1 => files.clone(),
            _ => aligned(&tree.name, &files, piece_bytes),
        };
        let total = listed.iter().fold(0u64, |sum, file| sum.saturating_add(file.length));
        if total.div_ceil(u64::from(piece_bytes)) > u64::from(PIECES_MAX) {
            let text = format!("too many pieces, {}: give a larger --piece-size", args.path.display());
            return Err(CliError::Usage(text));
        }
        let mut paths = tree.files.iter().map(|file| file.path.clone());
        let source = |file: &FileEntry| SourceFile {
            path: if file.pad { None } else { paths.next() }.unwrap_or_default(),
            length: file.length,
            pad: file.pad,
        };
        let sources = listed.iter().map(source).collect();
        Ok(Self { files, geometry: Geometry::new(total, piece_bytes), sources, digests })
    }

    /// Reads every byte once.
    pub fn hash(&self, tree: &Tree, progress: &mut HashProgress) -> Result<Hashes, CliError> {
        let source = HashSource::new(&tree.dir, self.geometry, self.sources.clone());
        let mut gathered = Gathered::new(self);
        let mut problem = None;
        let mut on_piece = |piece: u32, outcome: PieceOutcome| {
            match outcome {
                PieceOutcome::Hashed { digest, .. } => gathered.take(piece, digest),
                PieceOutcome::Absent { file } => {
                    problem = source.files().get(file).map(|f| walk::changed(&f.path));
                }
                PieceOutcome::Failed(error) => {
                    problem = Some(CliError::Failed(format!(
                        "cannot read, {error}: check its permissions, or its disk"
                    )));
                }
                PieceOutcome::Fingerprinted { .. } => {}
            }
            progress.advance(u64::from(self.geometry.piece_len(piece)));
            if problem.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let method = Method { digests: self.digests, fingerprint: None };
        let options = HashOptions { method, ..HashOptions::default() };
        hash_pieces(&source, 0..self.geometry.piece_count(), &options, &mut on_piece)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        match problem {
            Some(problem) => Err(problem),
            None => Ok(gathered.finish()),
        }
    }

    fn has_trees(&self) -> bool {
        self.digests != Digests::Sha1
    }
}

/// Digests that arrive in any order.
struct Gathered<'a> {
    plan: &'a Plan,
    sha1: Vec<[u8; 20]>,
    /// The roots of all pieces; leaves are not kept.
    roots: Vec<Hash>,
    /// The pieces of each file, if it has a tree.
    places: Vec<Range<u32>>,
}

impl<'a> Gathered<'a> {
    fn new(plan: &'a Plan) -> Self {
        let pieces = plan.geometry.piece_count() as usize;
        let mut next = 0;
        let place = |file: &FileEntry| {
            let first = next;
            next += file.length.div_ceil(plan.geometry.piece_bytes.into()) as u32;
            first..next
        };
        let places = if plan.has_trees() { plan.files.iter().map(place).collect() } else { Vec::new() };
        let sha1 = if plan.digests == Digests::Leaves { 0 } else { pieces };
        let roots = if plan.has_trees() { pieces } else { 0 };
        Self { plan, sha1: vec![[0; 20]; sha1], roots: vec![[0; 32]; roots], places }
    }

    fn take(&mut self, piece: u32, digest: PieceDigest) {
        if let (Some(place), Some(sha1)) = (self.sha1.get_mut(piece as usize), digest.sha1) {
            *place = sha1;
        }
        let at = self.places.partition_point(|place| place.end <= piece);
        let Some(file) = self.plan.files.get(at) else { return };
        let mut leaves = digest.leaves;
        let root = FileHashes::piece_root(file.length, self.plan.geometry.piece_bytes, &mut leaves);
        if let (Some(place), Some(root)) = (self.roots.get_mut(piece as usize), root) {
            *place = root;
        }
    }

    fn finish(self) -> Hashes {
        let hashes = |(file, place): (&FileEntry, &Range<u32>)| {
            let roots = self.roots.get(place.start as usize..place.end as usize)?;
            FileHashes::new(file.length, self.plan.geometry.piece_bytes, roots.to_vec())
        };
        let trees = self.plan.files.iter().zip(&self.places).map(hashes);
        let files = self.plan.has_trees().then(|| trees.collect());
        Hashes { pieces: self.sha1, files }
    }
}
