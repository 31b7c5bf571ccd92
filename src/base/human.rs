//! Sizes, rates and times as people write and read them, and foreign text made safe to show.
//!
//! Prefixes follow GNU coreutils, in any case: `K` and `KiB` are 1024, `kB` is 1000, and so on to
//! `P`. In a rate the case of a lone `b` is what separates bits from bytes, and people mix it up by a
//! factor of eight: `Bps` is bytes, `bps` is bits, and `Mb/s` is refused with the two ways to mend it.

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;

use super::time::Span;

/// Why a size or a rate could not be read. Each message is one line that ends with the remedy.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// No digits at the start, or two dots, or a sign.
    #[error("no number at the start; write it like {0}")]
    Number(&'static str),
    /// More digits than anybody means.
    #[error("too many digits; use a larger unit, such as GiB")]
    Digits,
    /// Not a unit that is known.
    #[error("unit \"{unit}\" is not known; write it like {example}")]
    Unit {
        /// What stood there, escaped.
        unit: String,
        /// A good one.
        example: &'static str,
    },
    /// `b` may be bits or bytes.
    #[error("\"{0}\" may mean bits or bytes; write MB/s for bytes or Mbit/s for bits")]
    Ambiguous(String),
    /// Beyond 2^64 - 1 bytes.
    #[error("too large; the most is 16 EiB")]
    TooLarge,
    /// Beyond 2^64 - 1 nanoseconds.
    #[error("too long; the most is 200000 days")]
    TooLong,
}

const SIZE_EXAMPLE: &str = "64KiB, 1MiB or 1.5GB";
const DURATION_EXAMPLE: &str = "90s, 30m, 2h or 1h30m";
const RATIO_EXAMPLE: &str = "1, 1.5 or 2";
const RATE_EXAMPLE: &str = "100MiB/s, 20MB/s or 1Gbit/s";

/// Most digits of a number: 10^18 times the largest prefix still fits in 128 bits.
const DIGITS_MAX: usize = 18;

const NS_PER_S: u128 = 1_000_000_000;

/// Reads where to listen: an IP address and a port. A host name is none: what it means may change.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, like 0.0.0.0:6881 or [::]:6881".to_owned())
}

/// Reads a size in bytes: `65536`, `64KiB`, `64K`, `1.5 GB`. Fractions of a byte are dropped.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    let (number, unit) = Decimal::split(text, SIZE_EXAMPLE)?;
    let unknown = || ParseError::Unit { unit: escape_for_terminal(unit), example: SIZE_EXAMPLE };
    let (prefix, rest) = split_prefix(unit);
    let multiplier = match (prefix, rest.to_ascii_lowercase().as_str()) {
        (None, "" | "b" | "byte" | "bytes") => 1,
        (Some(power), "" | "ib") => binary(power),
        (Some(power), "b") => decimal(power),
        _ => return Err(unknown()),
    };
    number.times(multiplier, 1)
}

/// Reads a rate in bytes per second: `100MiB/s`, `20MB/s`, `1Gbit/s`, `8Mbps`; `1KiB` means each second.
/// A rate above zero never rounds to zero.
pub fn parse_rate(text: &str) -> Result<u64, ParseError> {
    let (number, unit) = Decimal::split(text, RATE_EXAMPLE)?;
    let unknown = || ParseError::Unit { unit: escape_for_terminal(unit), example: RATE_EXAMPLE };
    let (amount, per_second) = match unit {
        _ if unit.ends_with("/s") || unit.ends_with("/S") => (unit[..unit.len() - 2].trim_end(), "/s"),
        _ if unit.ends_with("ps") || unit.ends_with("PS") || unit.ends_with("pS") => {
            (&unit[..unit.len() - 2], "ps")
        }
        _ => (unit, ""),
    };
    let (prefix, rest) = split_prefix(amount);
    let (kibi, rest) = match rest.strip_prefix(['i', 'I']) {
        Some(after) if prefix.is_some() && !after.is_empty() && !rest.eq_ignore_ascii_case("it") => {
            (true, after)
        }
        _ => (false, rest),
    };
    let (multiplier, divisor) = match (prefix, rest, per_second) {
        (_, "b", "ps") => (scale(prefix, kibi), 8),
        (Some(_), "b", _) if !kibi => return Err(ParseError::Ambiguous(escape_for_terminal(unit))),
        (None, "", "" | "/s") => (1, 1),
        (Some(power), "", "" | "/s") if !kibi => (binary(power), 1),
        (_, "B" | "b", _) => (scale(prefix, kibi), 1),
        (_, word, "" | "/s") if ["bit", "bits"].contains(&word.to_ascii_lowercase().as_str()) => {
            (scale(prefix, kibi), 8)
        }
        _ => return Err(unknown()),
    };
    let rate = number.times(multiplier, divisor)?;
    Ok(if rate == 0 && number.mantissa > 0 { 1 } else { rate })
}

/// Reads a span of time: `90`, `90s`, `30m`, `1.5h`, `1h30m`, `2d`, `500ms`. A lone number is seconds.
pub fn parse_duration(text: &str) -> Result<Span, ParseError> {
    let (mut rest, mut sum_ns) = (text.trim(), 0u128);
    loop {
        let (number, after) = Decimal::split(rest, DURATION_EXAMPLE)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let alone = rest.len() == text.trim().len() && next.is_empty();
        let unit_ns = match unit.trim() {
            "" if alone => NS_PER_S,
            "ms" => NS_PER_S / 1000,
            "s" | "sec" | "second" | "seconds" => NS_PER_S,
            "m" | "min" | "minute" | "minutes" => 60 * NS_PER_S,
            "h" | "hour" | "hours" => 3600 * NS_PER_S,
            "d" | "day" | "days" => 86_400 * NS_PER_S,
            "w" | "week" | "weeks" => 7 * 86_400 * NS_PER_S,
            unit => {
                let unit = escape_for_terminal(unit);
                return Err(ParseError::Unit { unit, example: DURATION_EXAMPLE });
            }
        };
        sum_ns += number.mantissa * unit_ns / 10u128.pow(number.decimals);
        if next.is_empty() {
            return u64::try_from(sum_ns).map(Span).map_err(|_| ParseError::TooLong);
        }
        rest = next;
    }
}

/// `1.30`, rounded down, of thousandths.
pub fn format_ratio(thousandths: u128) -> String {
    format!("{}.{:02}", thousandths / 1000, thousandths % 1000 / 10)
}

/// Reads a ratio, in thousandths: `1`, `1.5`. One above zero never rounds to zero.
pub fn parse_ratio(text: &str) -> Result<u64, ParseError> {
    let (number, unit) = Decimal::split(text, RATIO_EXAMPLE)?;
    if !unit.is_empty() {
        return Err(ParseError::Unit { unit: escape_for_terminal(unit), example: RATIO_EXAMPLE });
    }
    let thousandths = number.times(1000, 1)?;
    Ok(if number.mantissa > 0 { thousandths.max(1) } else { 0 })
}

/// `0 B`, `512 B`, `1.50 GiB`: three digits or so, never more than 1023 of a unit.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut power = (bytes.ilog2() / 10) as usize;
    let mut hundredths = rounded(bytes, power);
    if hundredths >= 102_400 {
        power += 1;
        hundredths = rounded(bytes, power);
    }
    let unit = UNITS[power - 1];
    match hundredths {
        0..1_000 => format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{} {unit}", hundredths / 100, hundredths % 100 / 10),
        _ => format!("{} {unit}", hundredths / 100),
    }
}

/// As [`format_size`], each second.
pub fn format_rate(bytes_per_second: u64) -> String {
    format!("{}/s", format_size(bytes_per_second))
}

/// `8s`, `4m 05s`, `3h 07m`, `2d 04h`: two units at most.
pub fn format_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// What something took: `1.5s` below a minute, else as [`format_duration`].
pub fn format_took(ns: u64) -> String {
    match ns / 1_000_000_000 {
        seconds @ 0..60 => format!("{seconds}.{}s", ns / 100_000_000 % 10),
        seconds => format_duration(seconds),
    }
}

/// Time until `left` bytes have come at `rate` bytes per second; `-` when nothing comes.
pub fn format_eta(left: u64, rate: u64) -> String {
    match (left, rate) {
        (0, _) => "0s".to_owned(),
        (_, 0) => "-".to_owned(),
        _ => format_duration(left.div_ceil(rate)),
    }
}

/// `part` of `whole` with one decimal, rounded down so that 100.0 means all; 100.0 of nothing.
pub fn format_percent(part: u64, whole: u64) -> String {
    let tenths = match whole {
        0 => 1000,
        _ => u128::from(part.min(whole)) * 1000 / u128::from(whole),
    };
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Whether `char` is invisible or changes how its neighbours look: control characters (C0, C1,
/// DEL), bidirectional marks and overrides, zero-width and other format characters, and the
/// line and paragraph separators. Not the joiners and variation selectors: names in Persian,
/// Hindi, Japanese and emoji need them.
pub fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

/// `text` with every hidden character as `\u{...}`, so that it neither steers a terminal nor misleads
/// a reader (T12, T13).
pub fn escape_for_terminal(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hidden(char) {
            safe.extend(char.escape_unicode());
        } else {
            safe.push(char);
        }
    }
    safe
}

/// [`escape_for_terminal`] for `{}`.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape_for_terminal(self.0))
    }
}

/// `mantissa` / 10^`decimals`.
struct Decimal {
    mantissa: u128,
    decimals: u32,
}

impl Decimal {
    /// The number at the start of `text`, and the unit behind it.
    fn split<'a>(text: &'a str, example: &'static str) -> Result<(Self, &'a str), ParseError> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
            return Err(ParseError::Number(example));
        }
        if whole.len() + fraction.len() > DIGITS_MAX {
            return Err(ParseError::Digits);
        }
        let digits = whole.bytes().chain(fraction.bytes());
        let mantissa = digits.fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        Ok((Self { mantissa, decimals: fraction.len() as u32 }, unit.trim_start()))
    }

    fn times(&self, multiplier: u128, divisor: u128) -> Result<u64, ParseError> {
        let value = self.mantissa * multiplier / (divisor * 10u128.pow(self.decimals));
        u64::try_from(value).map_err(|_| ParseError::TooLarge)
    }
}

/// The power of a prefix at the start of `unit` (1 for K), and what follows.
fn split_prefix(unit: &str) -> (Option<u32>, &str) {
    let first = unit.chars().next().map(|c| c.to_ascii_lowercase());
    match first.and_then(|c| "kmgtp".find(c)) {
        Some(power) => (Some(power as u32 + 1), &unit[1..]),
        None => (None, unit),
    }
}

fn scale(prefix: Option<u32>, kibi: bool) -> u128 {
    match prefix {
        None => 1,
        Some(power) if kibi => binary(power),
        Some(power) => decimal(power),
    }
}

const fn binary(power: u32) -> u128 {
    1 << (10 * power)
}

const fn decimal(power: u32) -> u128 {
    1000u128.pow(power)
}

/// `bytes` in hundredths of 1024^`power`, rounded to the nearest.
const fn rounded(bytes: u64, power: usize) -> u64 {
    let unit = 1u128 << (10 * power);
    ((bytes as u128 * 200 + unit) / (2 * unit)) as u64
}

#[cfg(test)]
mod tests;
