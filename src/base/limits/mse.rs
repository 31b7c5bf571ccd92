//! Bounds of encrypted handshakes (threat P33).

use crate::base::time::Span;

/// Longest padding in a handshake of message stream encryption, each time that there may be some.
pub const MSE_PAD_BYTES_MAX: usize = 512;
/// Most that the side that begins may say with its offer: a BitTorrent handshake is 68 bytes.
pub const MSE_INITIAL_BYTES_MAX: usize = 4 << 10;
/// Encrypted handshakes under way at once; who comes beyond is hung up on. Each costs two exponentiations.
pub const MSE_HANDSHAKES_MAX: usize = 64;
/// Those of one public address that came to us; who comes beyond is hung up on.
pub const MSE_HANDSHAKES_OF_ONE_MAX: usize = 4;
/// Those that we begin, at once; more wait.
pub const MSE_DIALS_MAX: usize = 32;
/// Time for one.
pub const MSE_TIMEOUT: Span = Span::from_secs(10);
/// Connections under RC4 at once; beyond, only handshakes are had and the stream has to be plain.
pub const MSE_CONNECTIONS_MAX: usize = 1024;
