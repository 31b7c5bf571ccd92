//! How far each file is, for programs and for people.

use serde::Serialize;

use crate::base::human::{Escaped, format_percent, format_size};
use crate::daemon::status::{FileStatus, FilesStatus};

/// Files in the table at the end; of more nobody reads it.
const FILES_SHOWN_MAX: usize = 20;

/// Of one torrent, in a line of `--json`.
#[derive(Serialize)]
pub struct FilesLine<'a> {
    files_wanted: u32,
    files_done: u32,
    files: Vec<FileLine<'a>>,
}

#[derive(Serialize)]
struct FileLine<'a> {
    index: u32,
    path: &'a str,
    length: u64,
    verified_bytes: u64,
}

impl<'a> FilesLine<'a> {
    /// With at most `left` files, of which it takes those that it has: they are for all torrents of a line.
    pub fn of(status: &'a FilesStatus, left: &mut usize) -> Self {
        let line = |file: &'a FileStatus| FileLine {
            index: file.index,
            path: &file.path,
            length: file.length,
            verified_bytes: file.verified_bytes,
        };
        let files: Vec<FileLine<'_>> = status.list.iter().take(*left).map(line).collect();
        *left -= files.len();
        Self { files_wanted: status.wanted, files_done: status.done, files }
    }
}

/// `3 of 5 files`.
pub fn count_text(status: &FilesStatus) -> String {
    let noun = if status.wanted == 1 { "file" } else { "files" };
    format!("{} of {} {noun}", status.done, status.wanted)
}

/// One row per file, of few; none if they are many.
pub fn table(status: &FilesStatus) -> Vec<String> {
    let row = |file: &FileStatus| {
        let percent = match file.length {
            0 => "100".to_owned(),
            length => format_percent(file.verified_bytes, length),
        };
        format!("{percent:>5}% {:>10}  {}", format_size(file.length), Escaped(&file.path))
    };
    let few = status.wanted as usize <= FILES_SHOWN_MAX;
    status.list.iter().filter(|_| few).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(count: u32) -> FilesStatus {
        let file = |index: u32| FileStatus {
            index,
            path: format!("t/{index}\u{1b}[2J"),
            length: 2048 * u64::from(index),
            verified_bytes: 1024 * u64::from(index),
        };
        FilesStatus { wanted: count, done: 1, list: (0..count).map(file).collect() }
    }

    #[test]
    fn a_line_has_so_many_files_whatever_the_number_of_torrents() {
        let mut left = 3;
        let json =
            |count, left: &mut usize| serde_json::to_string(&FilesLine::of(&status(count), left)).unwrap();
        let first = json(2, &mut left);
        assert!(first.starts_with(r#"{"files_wanted":2,"files_done":1,"files":[{"index":0,"path":"t/0\u"#));
        assert!(first.ends_with(r#""length":2048,"verified_bytes":1024}]}"#), "{first}");
        assert_eq!(json(5, &mut left).matches("index").count(), 1);
        assert_eq!(json(5, &mut left), r#"{"files_wanted":5,"files_done":1,"files":[]}"#);
    }

    #[test]
    fn t12_few_files_are_a_table_in_which_names_are_escaped() {
        assert_eq!(count_text(&status(1)), "1 of 1 file");
        assert_eq!(count_text(&status(7)), "1 of 7 files");
        let rows = table(&status(2));
        assert_eq!(rows[1], " 50.0%   2.00 KiB  t/1\\u{1b}[2J");
        assert!(rows[0].starts_with("  100%"), "an empty file is there: {}", rows[0]);
        let shown = |count| table(&status(count)).len();
        let most = FILES_SHOWN_MAX as u32;
        assert_eq!([most - 1, most, most + 1].map(shown), [FILES_SHOWN_MAX - 1, FILES_SHOWN_MAX, 0]);
    }
}
