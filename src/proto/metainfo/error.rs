//! Why a .torrent file is refused. Each message is the rest of a line that names the file.

use crate::base::limits::{
    FILES_MAX, METAINFO_BYTES_MAX, PATH_BYTES_MAX, PATH_CLASHES_MAX, PATH_ELEMENTS_MAX, PIECE_BYTES_MAX,
    PIECES_MAX, TOTAL_BYTES_MAX,
};
use crate::proto::bencode::BencodeError;

/// What is wrong with a .torrent file, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    // ---- The bytes ----
    /// The file is longer than any that is read.
    #[error(
        "{bytes} bytes are too much for a torrent file (at most {METAINFO_BYTES_MAX}): \
             make it anew with larger pieces"
    )]
    TooLong {
        /// Length of the file.
        bytes: usize,
    },
    /// The file is not bencode, or is damaged or hostile.
    #[error("not a valid torrent file ({0}): get it again from where it came")]
    Bencode(#[from] BencodeError),
    /// A key is absent.
    #[error("the torrent has no `{key}`: get it again, or make it anew with `troc create`")]
    Missing {
        /// The key, by its path from the root.
        key: &'static str,
    },
    /// A key holds a value of the wrong type or out of range.
    #[error("`{key}` of the torrent is malformed: get it again, or make it anew with `troc create`")]
    Malformed {
        /// The key, by its path from the root.
        key: &'static str,
    },

    // ---- What we cannot do ----
    /// A version that is not known yet.
    #[error(
        "the torrent is of version {value} (1 and 2 are supported): use another torrent of the same data"
    )]
    Version {
        /// The version as found.
        value: i64,
    },

    // ---- Version 2 (BEP 52) ----
    /// A piece length that v1 may have and v2 may not.
    #[error("a piece length of {value} is no power of two, as v2 needs: make the torrent anew")]
    PieceLengthV2 {
        /// The length as found.
        value: i64,
    },
    /// The tree of files: not sorted, a file that is a directory, a length or root that is none.
    #[error(
        "the torrent's file tree is malformed at {path:?}: get it again, or make it anew with `troc create`"
    )]
    FileTree {
        /// The path, escaped and shortened.
        path: String,
    },
    /// A file longer than a piece without the hashes of its pieces.
    #[error("the torrent lacks the piece hashes of {path:?}: get it again from where it came")]
    MissingLayer {
        /// The path, escaped and shortened.
        path: String,
    },
    /// Hashes of pieces that are too many, too few, or not those of the file.
    #[error("the torrent's piece hashes of {path:?} contradict the file's hash: do not use this torrent")]
    WrongLayer {
        /// The path, escaped and shortened.
        path: String,
    },
    /// A hybrid whose parts describe different files, or the same in another order or place.
    #[error("the torrent's v1 and v2 parts do not agree about {path:?}: do not use this torrent")]
    Mismatch {
        /// The path, escaped and shortened; empty if it is padding behind the last file.
        path: String,
    },

    // ---- The sizes ----
    /// A padding file that is longer than any that pads (BEP 47).
    #[error(
        "a padding file of the torrent is as long as a piece: get it again, or make it anew with \
             `troc create`"
    )]
    Padding,
    /// A piece length that is not a multiple of 16 KiB within the limit.
    #[error(
        "a piece length of {value} is not supported (a multiple of 16384 up to {PIECE_BYTES_MAX}): \
             make the torrent anew with another piece size"
    )]
    PieceLength {
        /// The length as found.
        value: i64,
    },
    /// The number of piece hashes does not fit the sizes.
    #[error(
        "the torrent has {found} piece hashes where its files need {wanted}: it is damaged, get it again"
    )]
    PieceCount {
        /// Hashes in the torrent.
        found: u64,
        /// Pieces by total size and piece length.
        wanted: u64,
    },
    /// More pieces than are supported.
    #[error("the torrent has {found} pieces (at most {PIECES_MAX}): make it anew with larger pieces")]
    TooManyPieces {
        /// Pieces of the torrent.
        found: u64,
    },
    /// More bytes than are supported.
    #[error("the torrent's files are larger than {TOTAL_BYTES_MAX} bytes together: split it")]
    TooLarge,
    /// More files than are supported.
    #[error("the torrent has more than {FILES_MAX} files: split it, or put the files into an archive")]
    TooManyFiles,
    /// Not one byte of content.
    #[error("the torrent's files are all empty: there is nothing to transfer")]
    Empty,

    // ---- The paths ----
    /// A name that could leave the download directory or that no file can have.
    #[error("the torrent names a file {path:?}, which is not safe: do not use this torrent")]
    UnsafePath {
        /// The path, escaped and shortened.
        path: String,
    },
    /// A path that is too long or too deep even after its names were shortened.
    #[error(
        "the torrent's path {path:?} is too long (at most {PATH_ELEMENTS_MAX} names, \
             {PATH_BYTES_MAX} bytes): make the torrent anew with shorter paths"
    )]
    LongPath {
        /// The path, escaped and shortened.
        path: String,
    },
    /// Too many files want a path that another file or directory has.
    #[error(
        "more than {PATH_CLASHES_MAX} files of the torrent share a path with another: \
             it is damaged, do not use it"
    )]
    Clashes,
    /// Only when building: a path that a parser would change, so that no relay found the file.
    #[error("{path:?} cannot be put into a torrent as it is (invisible characters, or too long): rename it")]
    Unportable {
        /// The path, escaped and shortened.
        path: String,
    },
}
