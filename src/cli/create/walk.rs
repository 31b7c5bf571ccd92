//! What lies below a path: regular files, in the order of their bytes.
//!
//! Symbolic links are left out with a warning, whatever they point to; devices, FIFOs and sockets are
//! refused, because nobody means to share them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::base::limits::{FILES_MAX, PATH_ELEMENTS_MAX};
use crate::cli::error::CliError;
use crate::cli::out;

/// Links named one by one.
const LINKS_NAMED: usize = 10;

/// All that goes into a torrent.
#[derive(Debug)]
pub struct Tree {
    /// The torrent's name.
    pub name: String,
    /// The directory that file paths start from.
    pub dir: PathBuf,
    /// Sorted by path, bytewise.
    pub files: Vec<Found>,
    /// Of all files.
    pub total_bytes: u64,
}

/// One regular file.
#[derive(Debug)]
pub struct Found {
    /// Below [`Tree::dir`].
    pub path: PathBuf,
    /// The same with the torrent's name first, one component each.
    pub names: Vec<String>,
    /// Size when it was found.
    pub length: u64,
    /// Seconds and nanoseconds when it was found.
    modified: (i64, i64),
}

impl Tree {
    /// Looks at everything below `path` but `output`, which may lie there since the last time.
    pub fn walk(path: &Path, output: &Path) -> Result<Self, CliError> {
        let root = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let name = name_of(path, &root)?;
        let metadata = fs::symlink_metadata(&root).map_err(|error| unreadable(path, &error))?;
        if metadata.is_file() {
            let file_name = root.file_name().map(PathBuf::from).unwrap_or_default();
            let dir = root.parent().map(Path::to_owned).unwrap_or_default();
            let files = vec![Found::new(file_name, vec![name.clone()], &metadata)];
            return Ok(Self { name, dir, files, total_bytes: metadata.len() });
        }
        if !metadata.is_dir() {
            return Err(special(path));
        }
        let mut walk =
            Walk { root: &root, output: fs::canonicalize(output).ok(), files: Vec::new(), links: Vec::new() };
        walk.directory(PathBuf::new(), std::slice::from_ref(&name))?;
        let Walk { mut files, links, .. } = walk;
        warn_of_links(links);
        files.sort_by(|a, b| a.names.iter().map(String::as_bytes).cmp(b.names.iter().map(String::as_bytes)));
        let total_bytes = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.length));
        Ok(Self { name, dir: root, files, total_bytes })
    }

    /// Fails if a file has another size or time than when it was found: its digests may be of both.
    pub fn check_unchanged(&self) -> Result<(), CliError> {
        for file in &self.files {
            let now = fs::symlink_metadata(self.dir.join(&file.path));
            let same = |now: &Metadata| (now.len(), times(now)) == (file.length, file.modified);
            if !now.as_ref().is_ok_and(same) {
                return Err(changed(&file.path));
            }
        }
        Ok(())
    }
}

/// The failure of a file that was written to, or vanished, while it was read.
pub fn changed(path: &Path) -> CliError {
    let path = path.display();
    CliError::Failed(format!("file changed while it was read, {path}: try again when nothing writes to it"))
}

impl Found {
    fn new(path: PathBuf, names: Vec<String>, metadata: &Metadata) -> Self {
        Self { path, names, length: metadata.len(), modified: times(metadata) }
    }
}

fn times(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// A walk under way.
struct Walk<'a> {
    root: &'a Path,
    output: Option<PathBuf>,
    files: Vec<Found>,
    links: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Adds what lies in `dir` below the root, whose names are `names`. The depth is bounded by the
    /// limit on names in a path.
    fn directory(&mut self, dir: PathBuf, names: &[String]) -> Result<(), CliError> {
        if names.len() >= PATH_ELEMENTS_MAX {
            let text = format!(
                "directories too deep, {}: at most {PATH_ELEMENTS_MAX} names in a path; move them up",
                dir.display()
            );
            return Err(CliError::Failed(text));
        }
        let whole = self.root.join(&dir);
        for entry in fs::read_dir(&whole).map_err(|error| unreadable(&whole, &error))? {
            let entry = entry.map_err(|error| unreadable(&whole, &error))?;
            let path = dir.join(entry.file_name());
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            if kind.is_symlink() {
                self.links.push(path);
                continue;
            }
            let Ok(name) = entry.file_name().into_string() else { return Err(not_utf8(&entry.path())) };
            let mut names = names.to_vec();
            names.push(name);
            if kind.is_dir() {
                self.directory(path, &names)?;
            } else if kind.is_file() {
                self.file(path, names)?;
            } else {
                return Err(special(&entry.path()));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, names: Vec<String>) -> Result<(), CliError> {
        let whole = self.root.join(&path);
        if self.output.as_deref() == Some(&whole) {
            return Ok(());
        }
        if self.files.len() == FILES_MAX {
            let text = format!(
                "more than {FILES_MAX} files, {}: put some of them into archives",
                self.root.display()
            );
            return Err(CliError::Failed(text));
        }
        let metadata = fs::symlink_metadata(&whole).map_err(|error| unreadable(&whole, &error))?;
        self.files.push(Found::new(path, names, &metadata));
        Ok(())
    }
}

/// The last name of the path as it was given, or of what it stands for (`.`, `..`, `/`).
fn name_of(path: &Path, root: &Path) -> Result<String, CliError> {
    let given = match path.components().next_back() {
        Some(Component::Normal(name)) => Some(name),
        _ => root.file_name(),
    };
    let Some(name) = given else {
        return Err(CliError::Usage(format!(
            "no name for the torrent, {}: give a directory in it",
            path.display()
        )));
    };
    name.to_str().map(str::to_owned).ok_or_else(|| not_utf8(path))
}

fn warn_of_links(mut links: Vec<PathBuf>) {
    links.sort();
    for link in links.iter().take(LINKS_NAMED) {
        out::warn(&format!("symbolic link left out, {}", link.display()));
    }
    if links.len() > LINKS_NAMED {
        out::warn(&format!("{} more symbolic links left out", links.len() - LINKS_NAMED));
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("cannot read, {}: {error}: check the path and its permissions", path.display()))
}

fn special(path: &Path) -> CliError {
    let path = path.display();
    CliError::Failed(format!("neither file nor directory, {path}: move it out of the way"))
}

fn not_utf8(path: &Path) -> CliError {
    CliError::Failed(format!("name is not UTF-8, {}: rename it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn files_come_in_byte_order_and_links_and_the_output_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("top");
        for path in ["b", "a/z", "a/b/c", "a.txt", "Z", "é", "old.torrent"] {
            touch(&root, path, path.as_bytes());
        }
        fs::create_dir(root.join("empty")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let tree = Tree::walk(&root, &root.join("old.torrent")).unwrap();
        let names: Vec<String> = tree.files.iter().map(|file| file.names.join("/")).collect();
        assert_eq!(names, ["top/Z", "top/a/b/c", "top/a/z", "top/a.txt", "top/b", "top/é"]);
        assert_eq!(tree.total_bytes, 1 + 5 + 3 + 5 + 1 + 2);
        assert!(tree.check_unchanged().is_ok());
        touch(&root, "b", b"longer");
        assert!(tree.check_unchanged().unwrap_err().to_string().contains("changed while it was read, b"));
    }

    #[test]
    fn names_come_from_the_path_as_given() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "top/f", b"1");
        std::os::unix::fs::symlink("top", dir.path().join("latest")).unwrap();
        for (path, name) in
            [("top", "top"), ("top/", "top"), ("top/.", "top"), ("latest", "latest"), ("top/f", "f")]
        {
            let tree = Tree::walk(&dir.path().join(path), Path::new("out")).unwrap();
            assert_eq!(tree.name, name, "{path}");
            assert_eq!(tree.files[0].names.last().unwrap(), "f");
        }
    }

    #[test]
    fn what_cannot_be_shared_is_named() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "bad/x", b"");
        fs::write(dir.path().join("bad").join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
        let text = Tree::walk(&dir.path().join("bad"), Path::new("out")).unwrap_err().to_string();
        assert!(text.contains("not UTF-8"), "{text}");
        let deep = "d/".repeat(PATH_ELEMENTS_MAX) + "f";
        touch(dir.path(), &deep, b"");
        let text = Tree::walk(&dir.path().join("d"), Path::new("out")).unwrap_err().to_string();
        assert!(text.contains("too deep"), "{text}");
        let text = Tree::walk(Path::new("/dev/null"), Path::new("out")).unwrap_err().to_string();
        assert!(text.contains("neither file nor directory"), "{text}");
    }
}
