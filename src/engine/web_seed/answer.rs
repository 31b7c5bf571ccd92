//! Which answers of a web server are of use (RFC 9110, BEP 19).

use crate::base::limits::{WEB_SEED_RETRY_AFTER_MAX, WEB_SEED_WHOLE_BYTES_MAX};
use crate::base::time::Span;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// First byte of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
    /// Size of the file by the torrent.
    pub file_len: u64,
}

/// What of a head matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// Its status.
    pub status: u16,
    /// `Content-Range`.
    pub content_range: Option<&'a str>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// `Retry-After`.
    pub retry_after: Option<&'a str>,
}

/// An answer that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404, 410 or 416.
    #[error("HTTP status {0}: a file is not there, or not under this path")]
    Absent(u16),
    /// The file there has another size.
    #[error("a file there has another size than in the torrent")]
    OtherLength,
    /// The whole of a large file instead of a part from its middle.
    #[error("it answers with a whole file instead of the range that was asked for: serve it with ranges")]
    NoRanges,
    /// A range, but not the one that was asked for.
    #[error("it answers with another range than was asked for")]
    OtherRange,
    /// It is compressed, though that was not asked for.
    #[error("it answers with a content encoding that was not asked for")]
    Encoded,
    /// 429 or 503, and for how long it wants to be left alone.
    #[error("HTTP status {0}: it is busy")]
    Busy(u16, Option<Span>),
    /// Any other status.
    #[error("HTTP status {0}")]
    Status(u16),
}

/// Bytes of the body that come before those that were asked for.
pub fn judge(ask: Ask, head: &Head<'_>) -> Result<u64, Refusal> {
    match head.status {
        200 | 206 => {}
        status @ (404 | 410 | 416) => return Err(Refusal::Absent(status)),
        status @ (429 | 503) => return Err(Refusal::Busy(status, head.retry_after.and_then(retry_after))),
        status => return Err(Refusal::Status(status)),
    }
    if head.content_encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Refusal::Encoded);
    }
    if head.status == 200 {
        if head.content_length.is_some_and(|bytes| bytes != ask.file_len) {
            return Err(Refusal::OtherLength);
        }
        let usable = ask.offset == 0 || ask.file_len <= WEB_SEED_WHOLE_BYTES_MAX;
        return if usable { Ok(ask.offset) } else { Err(Refusal::NoRanges) };
    }
    let (first, last, total) = head.content_range.and_then(content_range).ok_or(Refusal::OtherRange)?;
    if total.is_some_and(|total| total != ask.file_len) {
        return Err(Refusal::OtherLength);
    }
    let other_length = head.content_length.is_some_and(|bytes| bytes != u64::from(ask.len));
    if first != ask.offset || last != ask.offset + u64::from(ask.len) - 1 || other_length {
        return Err(Refusal::OtherRange);
    }
    Ok(0)
}

/// `bytes 0-99/1000`, or with `*` for a size that the server does not know.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(number(total)?) };
    unit.eq_ignore_ascii_case("bytes").then_some((number(first)?, number(last)?, total))
}

/// Seconds; a date is not read, since the clocks may differ.
fn retry_after(text: &str) -> Option<Span> {
    let seconds = number(text.trim())?;
    Some(Span::from_secs(seconds.min(WEB_SEED_RETRY_AFTER_MAX.as_ms() / 1_000)))
}

/// Digits alone: `parse` would take a sign as well.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Ask = Ask { offset: 100, len: 50, file_len: 1_000 };
    const LARGE: Ask = Ask { file_len: WEB_SEED_WHOLE_BYTES_MAX + 1, ..ASK };

    fn partial(content_range: &str, content_length: Option<u64>) -> Result<u64, Refusal> {
        let head =
            Head { status: 206, content_range: Some(content_range), content_length, ..Head::default() };
        judge(ASK, &head)
    }

    #[test]
    fn only_the_range_that_was_asked_for_is_taken() {
        assert_eq!(partial("bytes 100-149/1000", Some(50)), Ok(0));
        assert_eq!(partial("bytes 100-149/*", None), Ok(0));
        for other in [
            "bytes 99-149/1000",
            "bytes 100-148/1000",
            "bytes 100-150/1000",
            "bytes 0-49/1000",
            "bytes 100-149",
            "bytes */1000",
            "bytes 100-99/1000",
            "bytes +100-149/1000",
            "bytes 100-99999999999999999999/1000",
            "lines 100-149/1000",
            "",
        ] {
            assert_eq!(partial(other, None), Err(Refusal::OtherRange), "{other}");
        }
        assert_eq!(partial("bytes 100-149/1000", Some(51)), Err(Refusal::OtherRange), "an endless body");
        assert_eq!(partial("bytes 100-149/999", Some(50)), Err(Refusal::OtherLength));
        assert_eq!(judge(ASK, &Head { status: 206, ..Head::default() }), Err(Refusal::OtherRange));
    }

    #[test]
    fn a_whole_file_is_of_use_from_its_start_or_if_it_is_small() {
        let whole = |ask: Ask, bytes| {
            judge(ask, &Head { status: 200, content_length: Some(bytes), ..Head::default() })
        };
        assert_eq!(whole(ASK, 1_000), Ok(100));
        assert_eq!(whole(ASK, 999), Err(Refusal::OtherLength));
        let at_limit = Ask { file_len: WEB_SEED_WHOLE_BYTES_MAX, ..ASK };
        for (ask, outcome) in [
            (Ask { file_len: at_limit.file_len - 1, ..ASK }, Ok(100)),
            (at_limit, Ok(100)),
            (LARGE, Err(Refusal::NoRanges)),
            (Ask { offset: 0, ..LARGE }, Ok(0)),
        ] {
            assert_eq!(whole(ask, ask.file_len), outcome, "{ask:?}");
        }
    }

    #[test]
    fn what_servers_say_when_they_give_nothing() {
        let say = |status, retry_after| judge(ASK, &Head { status, retry_after, ..Head::default() });
        for status in [404, 410, 416] {
            assert_eq!(say(status, None), Err(Refusal::Absent(status)));
        }
        for status in [100, 204, 301, 401, 403, 500, 502, 999] {
            assert_eq!(say(status, Some("5")), Err(Refusal::Status(status)));
        }
        for (text, span) in [
            (Some("5"), Some(Span::from_secs(5))),
            (Some(" 7 "), Some(Span::from_secs(7))),
            (Some("3599"), Some(Span::from_secs(3_599))),
            (Some("3600"), Some(WEB_SEED_RETRY_AFTER_MAX)),
            (Some("3601"), Some(WEB_SEED_RETRY_AFTER_MAX)),
            (Some("-1"), None),
            (Some("Fri, 31 Dec 1999 23:59:59 GMT"), None),
            (None, None),
        ] {
            assert_eq!(say(503, text), Err(Refusal::Busy(503, span)), "{text:?}");
        }
        let head = Head {
            status: 206,
            content_range: Some("bytes 100-149/1000"),
            content_encoding: Some("gzip"),
            ..Head::default()
        };
        assert_eq!(judge(ASK, &head), Err(Refusal::Encoded));
    }
}
