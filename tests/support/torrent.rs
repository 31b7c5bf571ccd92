//! Payload and metainfo, bencoded by hand.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;
use troc::base::rng::Rng;

/// One file of a payload: path below the torrent's directory, and size in bytes.
pub type FileSpec<'a> = (&'a str, u64);

/// A torrent on disk with its payload.
pub struct Torrent {
    /// Name of the file or directory.
    pub name: String,
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// Payload bytes.
    pub total_bytes: u64,
    /// Where the payload lies: the directory that holds `name`.
    pub source: PathBuf,
    files: Vec<PayloadFile>,
    info: Vec<u8>,
}

struct PayloadFile {
    path: PathBuf,
    length: u64,
    sha256: [u8; 32],
}

/// A bencoded string.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

impl Torrent {
    /// A single file of pseudo-random bytes.
    pub fn single(source: &Path, name: &str, bytes: u64, piece_bytes: u64, seed: u64) -> Self {
        Self::make(source, name, None, &[("", bytes)], piece_bytes, seed)
    }

    /// A directory of files, piece boundaries where they fall.
    pub fn multi(source: &Path, name: &str, files: &[FileSpec<'_>], piece_bytes: u64, seed: u64) -> Self {
        let layout: Vec<Vec<u8>> = files
            .iter()
            .map(|(path, length)| {
                let parts: Vec<u8> = path.split('/').flat_map(string).collect();
                [format!("d6:lengthi{length}e4:pathl").into_bytes(), parts, b"ee".to_vec()].concat()
            })
            .collect();
        Self::make(source, name, Some(layout.concat()), files, piece_bytes, seed)
    }

    fn make(
        source: &Path,
        name: &str,
        layout: Option<Vec<u8>>,
        files: &[FileSpec<'_>],
        piece_bytes: u64,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let mut pieces = Pieces::new(piece_bytes);
        let mut made = Vec::new();
        for (path, length) in files {
            let relative = if path.is_empty() { PathBuf::from(name) } else { Path::new(name).join(path) };
            let digest = write_payload(&source.join(&relative), *length, &mut rng, &mut pieces);
            made.push(PayloadFile { path: relative, length: *length, sha256: digest });
        }
        let total_bytes = files.iter().map(|file| file.1).sum();
        let mut info = b"d".to_vec();
        match layout {
            Some(list) => info.extend([&b"5:filesl"[..], &list, b"e"].concat()),
            None => info.extend(format!("6:lengthi{total_bytes}e").into_bytes()),
        }
        info.extend([&b"4:name"[..], &string(name)].concat());
        info.extend(format!("12:piece lengthi{piece_bytes}e6:pieces").into_bytes());
        info.extend([string(pieces.finish()), b"e".to_vec()].concat());
        let info_hash = Sha1::digest(&info).into();
        Self { name: name.to_owned(), info_hash, total_bytes, source: source.to_owned(), files: made, info }
    }

    /// Writes a .torrent file with at most one tracker.
    pub fn write(&self, path: &Path, tracker: Option<&str>) -> PathBuf {
        let announce = tracker.map(|url| [string("announce"), string(url)].concat()).unwrap_or_default();
        let parts = [&b"d"[..], &announce, b"4:info", &self.info, b"e"];
        fs::write(path, parts.concat()).expect("write the .torrent file");
        path.to_owned()
    }

    /// Requires that `dir` holds the payload, byte by byte.
    pub fn assert_identical(&self, dir: &Path, who: &str) {
        self.files.iter().for_each(|file| file.assert_identical(dir, who));
    }

    /// The same without the empty files, which transmission does not make.
    pub fn assert_identical_but_for_empty(&self, dir: &Path, who: &str) {
        self.files.iter().filter(|file| file.length > 0).for_each(|file| file.assert_identical(dir, who));
    }

    /// Paths below the directory that holds the torrent.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// 40 hexadecimal digits.
    pub fn info_hash_hex(&self) -> String {
        self.info_hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PayloadFile {
    fn assert_identical(&self, dir: &Path, who: &str) {
        let path = dir.join(&self.path);
        assert!(sha256(&path) == self.sha256, "{who}: {} differs from the source", path.display());
    }
}

/// SHA-256 of a file.
pub fn sha256(path: &Path) -> [u8; 32] {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).expect("read a payload file");
        if count == 0 {
            return hasher.finalize().into();
        }
        hasher.update(&buffer[..count]);
    }
}

/// The piece hashes of a stream.
struct Pieces {
    piece_bytes: u64,
    open: Sha1,
    filled: u64,
    hashes: Vec<u8>,
}

impl Pieces {
    fn new(piece_bytes: u64) -> Self {
        Self { piece_bytes, open: Sha1::new(), filled: 0, hashes: Vec::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = bytes.len().min((self.piece_bytes - self.filled) as usize);
            self.open.update(&bytes[..take]);
            self.filled += take as u64;
            bytes = &bytes[take..];
            if self.filled == self.piece_bytes {
                self.hashes.extend(self.open.finalize_reset());
                self.filled = 0;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.hashes.extend(self.open.finalize());
        }
        self.hashes
    }
}

/// Writes `length` seeded bytes; returns their SHA-256.
fn write_payload(path: &Path, length: u64, rng: &mut Rng, pieces: &mut Pieces) -> [u8; 32] {
    fs::create_dir_all(path.parent().expect("a payload file has a parent")).expect("payload directory");
    let mut file = File::create(path).expect("payload file");
    let mut hasher = Sha256::new();
    let mut left = length;
    let mut buffer = Vec::with_capacity(1 << 16);
    while left > 0 {
        buffer.clear();
        while buffer.len() < (1 << 16) {
            buffer.extend(rng.next_u64().to_le_bytes());
        }
        let part = &buffer[..left.min(1 << 16) as usize];
        file.write_all(part).expect("write payload");
        hasher.update(part);
        pieces.update(part);
        left -= part.len() as u64;
    }
    hasher.finalize().into()
}
