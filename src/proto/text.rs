//! Text that strangers chose, made fit for a terminal, a log line or a file name.

use std::fmt::Write;

pub use crate::base::human::is_hidden;

/// `bytes` as one line of printable text of at most `bytes_max` bytes: hidden characters become
/// `\u{..}`, invalid UTF-8 becomes U+FFFD, what is too long ends in `...`.
pub fn escape(bytes: &[u8], bytes_max: usize) -> String {
    // No input byte yields less than one byte of text, so what is cut here would not be shown.
    let head = bytes.get(..bytes_max.saturating_add(4)).unwrap_or(bytes);
    let mut out = String::new();
    for char in String::from_utf8_lossy(head).chars() {
        if is_hidden(char) || char == '\\' {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", char.escape_default());
        } else {
            out.push(char);
        }
        if out.len() > bytes_max {
            return shorten(out, bytes_max);
        }
    }
    out
}

/// Cuts `text` at a character so that it fits with a trailing `...`.
fn shorten(mut text: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max.saturating_sub(3)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text.push_str(&"..."[..bytes_max.min(3)]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p39_terminal_sequences_and_newlines_are_escaped() {
        for (bytes, want) in [
            (&b"qBittorrent/4.6"[..], "qBittorrent/4.6"),
            (b"\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            (b"a\nb\r\t\0", "a\\nb\\r\\t\\u{0}"),
            ("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("K\u{f6}ln %s {}".as_bytes(), "K\u{f6}ln %s {}"),
            (b"a\\nb", "a\\\\nb"),
        ] {
            assert_eq!(escape(bytes, 64), want);
        }
    }

    #[test]
    fn the_length_limit_holds_to_the_byte() {
        for max in 0..40 {
            for len in 0..80 {
                for unit in ["a", "\u{f6}", "\u{1b}", "\u{1f600}"] {
                    let out = escape(unit.repeat(len).as_bytes(), max);
                    assert!(out.len() <= max, "{unit:?} x {len}, {max}: {out}");
                }
                let whole = "b".repeat(len);
                assert_eq!(escape(whole.as_bytes(), max) == whole, len <= max);
            }
        }
    }
}
