//! `file tree`, the list of files of a v2 torrent (BEP 52).

use super::{FileEntry, MetainfoError, file_length, paths};
use crate::base::limits::FILES_MAX;
use crate::hash::merkle::Hash;
use crate::proto::bencode::Value;

const TREE: &str = "info.file tree";

/// The files in the order of the tree.
#[derive(Debug, Default)]
pub(super) struct FileTree {
    /// As v1 would list them, without padding.
    pub(super) files: Vec<FileEntry>,
    /// The root of each file's hashes; `None` for empty ones.
    pub(super) roots: Vec<Option<Hash>>,
    /// Symbolic links, left out as those of v1 are.
    pub(super) symlinks_skipped: u32,
}

impl FileTree {
    /// Reads the tree of the torrent `name`, whose files lie below a directory of that name, unless the
    /// tree is one file. In a hybrid that file lies in a directory, too, if v1 says so.
    pub(super) fn read(info: Value<'_>, name: &str) -> Result<Self, MetainfoError> {
        let root = info.get(b"file tree").ok_or(MetainfoError::Missing { key: TREE })?;
        let mut tree = Self::default();
        let is_lone = is_one_file(root) && info.get(b"files").is_none();
        let mut path = if is_lone { vec![] } else { vec![name.to_owned()] };
        tree.directory(root, &mut path)?;
        paths::resolve_clashes(&mut tree.files)?;
        Ok(tree)
    }

    /// All below one directory, whose path is `path`. As deep as the limits on nesting and on paths allow.
    fn directory(&mut self, dir: Value<'_>, path: &mut Vec<String>) -> Result<(), MetainfoError> {
        let malformed = |path: &[String]| MetainfoError::FileTree { path: paths::shown(path) };
        let mut last: &[u8] = b"";
        for (key, value) in dir.as_dict().ok_or_else(|| malformed(path))? {
            // The order of the files is that of the pieces: no two readers may disagree about it. An empty
            // key makes a file of what has other entries, too, or of the whole tree.
            if key <= last {
                return Err(malformed(path));
            }
            last = key;
            path.push(paths::element(key)?);
            paths::check_length(path)?;
            match value.get(b"") {
                Some(_) if value.as_dict().into_iter().flatten().count() > 1 => return Err(malformed(path)),
                Some(file) => self.file(file, path)?,
                None => self.directory(value, path)?,
            }
            path.pop();
        }
        Ok(())
    }

    fn file(&mut self, file: Value<'_>, path: &[String]) -> Result<(), MetainfoError> {
        let malformed = || MetainfoError::FileTree { path: paths::shown(path) };
        if self.files.len() + self.symlinks_skipped as usize == FILES_MAX {
            return Err(MetainfoError::TooManyFiles);
        }
        let attributes = file.get(b"attr").and_then(Value::as_bytes).unwrap_or_default();
        let length = match file.get(b"length") {
            Some(length) => Some(file_length(length).ok_or_else(malformed)?),
            None => None,
        };
        if attributes.contains(&b'l') && length.unwrap_or(0) == 0 {
            self.symlinks_skipped += 1;
            return Ok(());
        }
        // A link with content, and padding, which has no place in a tree.
        if attributes.iter().any(|attribute| matches!(attribute, b'l' | b'p')) {
            return Err(malformed());
        }
        let length = length.ok_or_else(malformed)?;
        let root = match file.get(b"pieces root").map(|root| root.as_bytes().map(Hash::try_from)) {
            Some(Some(Ok(root))) if length > 0 && root != Hash::default() => Some(root),
            None if length == 0 => None,
            _ => return Err(malformed()),
        };
        self.files.push(FileEntry { path: path.to_vec(), length, pad: false });
        self.roots.push(root);
        Ok(())
    }

    /// The files with the padding in between that has each begin at a piece, as a v1 torrent would list them.
    pub(super) fn laid_out(&self, name: &str, piece_bytes: u32) -> Vec<FileEntry> {
        let piece_bytes = u64::from(piece_bytes);
        let mut files = Vec::with_capacity(self.files.len());
        // Bytes of the last piece that are used.
        let mut used = 0;
        for file in &self.files {
            if file.length > 0 && used > 0 {
                files.push(FileEntry::padding(name, piece_bytes - used));
                used = 0;
            }
            files.push(file.clone());
            used = (used + file.length % piece_bytes) % piece_bytes;
        }
        files
    }
}

/// Whether a tree has a file at its top and nothing else.
fn is_one_file(root: Value<'_>) -> bool {
    let mut entries = root.as_dict().into_iter().flatten();
    let first = entries.next();
    entries.next().is_none() && first.is_some_and(|(_, value)| value.get(b"").is_some())
}
