//! Bounds on web seeds (BEP 19).

use crate::base::time::Span;

/// Connections to one web seed of one torrent: what hides the round trip between two ranges, and what HTTP
/// servers put up with from one client. The first has to bring bytes before others are opened.
pub const WEB_SEED_CONNECTIONS_EACH_MAX: u32 = 4;
/// Connections to web seeds of the whole process; further ones wait until some have ended.
pub const WEB_SEED_CONNECTIONS_MAX: usize = 256;
/// Least that is asked of a connection to a web seed at a time: 64 blocks of 16 KiB, ranges of a mebibyte.
pub const WEB_SEED_REQUESTS_OUT_MIN: usize = 64;
/// Most bytes of one range, many pieces if they follow one another; more would only keep cancels waiting.
pub const WEB_SEED_RANGE_BYTES_MAX: u64 = 16 << 20;
/// Largest file that is taken whole from a server which knows no ranges, to use a part of it.
pub const WEB_SEED_WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an answer that are read and thrown away to keep its connection; with more it is closed.
pub const WEB_SEED_DRAIN_BYTES_MAX: u64 = 1 << 20;
/// Redirects of one request; one more is a failure.
pub const WEB_SEED_REDIRECTS_MAX: u32 = 5;
/// For one address to accept a connection, TLS included.
pub const WEB_SEED_CONNECT_TIMEOUT: Span = Span::from_secs(10);
/// Without a byte of a head or a body that is awaited, the connection is given up.
pub const WEB_SEED_STALL_TIMEOUT: Span = Span::from_secs(30);
/// A web seed that failed once is left alone for so long, and twice as long each further time.
pub const WEB_SEED_BACKOFF_MIN: Span = Span::from_secs(2);
/// The longest that it is left alone by our own decision.
pub const WEB_SEED_BACKOFF_MAX: Span = Span::from_secs(600);
/// The longest that it may ask to be left alone (`Retry-After`).
pub const WEB_SEED_RETRY_AFTER_MAX: Span = Span::from_secs(3_600);
/// Files in a row that are not there before the whole web seed counts as failed.
pub const WEB_SEED_ABSENT_IN_A_ROW_MAX: u32 = 16;
/// Longest URL of a file: base and percent-encoded path.
pub const WEB_URL_BYTES_MAX: usize = 16 << 10;
