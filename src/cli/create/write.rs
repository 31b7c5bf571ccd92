//! The output file: whole or not at all, and never over somebody's data.
//!
//! An existing file is replaced only if it looks like a .torrent (a bencoded dictionary), so that a slip
//! of the hand (`-o data.bin`) cannot destroy what was to be shared.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;

/// Refuses an output that exists and is no .torrent, or whose directory is missing.
pub fn check_output(path: &Path) -> Result<(), CliError> {
    let shown = path.display();
    let refuse =
        || CliError::Usage(format!("refusing to overwrite, {shown}: it is no .torrent; give another -o"));
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            if looks_like_torrent(path).map_err(|error| cannot_write(path, &error))? {
                return Ok(());
            }
            Err(refuse())
        }
        Ok(_) => Err(refuse()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory(path) {
            dir if dir.is_dir() => Ok(()),
            dir => Err(CliError::Failed(format!("no such directory, {}: make it first", dir.display()))),
        },
        Err(error) => Err(cannot_write(path, &error)),
    }
}

/// Writes `bytes` beside `path` and puts them in its place at once.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let Some(name) = path.file_name() else {
        return Err(CliError::Usage(format!("no file name, {}: give -o a file", path.display())));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory(path).join(hidden);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // It may not even have been made; there is nothing to do if it stays.
        let _ = fs::remove_file(&temporary);
        cannot_write(path, &error)
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether it is empty or starts as every .torrent does: a dictionary whose first key has a length.
fn looks_like_torrent(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [] => true,
        [b'd', digit] => digit.is_ascii_digit(),
        _ => false,
    })
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!(
        "cannot write, {}: {error}: check the directory and its permissions",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_torrent_is_replaced_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("data.bin"), b"payload").unwrap();
        fs::write(path("old.torrent"), b"d4:infode").unwrap();
        for (name, allowed) in
            [("data.bin", false), ("old.torrent", true), ("new.torrent", true), (".", false), ("no/x", false)]
        {
            assert_eq!(check_output(&path(name)).is_ok(), allowed, "{name}");
        }
        replace(&path("old.torrent"), b"d1:ai1ee").unwrap();
        assert_eq!(fs::read(path("old.torrent")).unwrap(), b"d1:ai1ee");
        assert!(replace(&path("no/x"), b"").unwrap_err().to_string().starts_with("cannot write, "));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
