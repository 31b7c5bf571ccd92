//! Files by their numbers, as a magnet link names them (BEP 53, `so=0,2,4-6`) and people do.
//!
//! Ranges stay ranges: `0-4294967295` costs as much as `0`.

use crate::base::limits::FILE_RANGES_MAX;

/// Files of a torrent by their numbers, from 0 in the order of the metainfo, padding counted.
///
/// Invariant: at least one and at most [`FILE_RANGES_MAX`] ranges, ascending, none touching the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRanges(Box<[(u32, u32)]>);

impl FileRanges {
    /// Parses `0,2,4-6`. `None` if it is anything else: empty, backwards, or of too many parts.
    pub fn parse(text: &str) -> Option<Self> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            if ranges.len() == FILE_RANGES_MAX {
                return None;
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Some(Self(joined.into()))
    }

    /// Whether file number `file` is named.
    pub fn contains(&self, file: u32) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= file);
        after.checked_sub(1).is_some_and(|at| file <= self.0[at].1)
    }

    /// The ranges, first and last number of each, ascending.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }
}

impl std::fmt::Display for FileRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Digits and nothing else: no sign, no blank.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Vec<(u32, u32)>> {
        FileRanges::parse(text).map(|ranges| ranges.ranges().to_vec())
    }

    #[test]
    fn bep53_numbers_and_ranges_are_joined() {
        assert_eq!(parse("0,2,4-6"), Some(vec![(0, 0), (2, 2), (4, 6)]));
        assert_eq!(parse("6,4-5,0,7-9,8"), Some(vec![(0, 0), (4, 9)]));
        assert_eq!(parse("3-3"), Some(vec![(3, 3)]));
        assert_eq!(FileRanges::parse("9,1-2,3").unwrap().to_string(), "1-3,9");
        for text in ["", ",", "1,", "-", "1-", "-1", "2-1", "+1", " 1", "1 ", "0x1", "1-2-3", "a", "1;2"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    /// A range of four thousand million files is as small as one of one.
    #[test]
    fn t23_ranges_are_never_counted_out() {
        assert_eq!(parse("0-4294967295"), Some(vec![(0, u32::MAX)]));
        assert_eq!(parse("5-4294967295,0-4294967295"), Some(vec![(0, u32::MAX)]));
        assert_eq!(parse("0-4294967296"), None);
        assert_eq!(parse("99999999999999999999"), None);
        for (count, fits) in
            [(FILE_RANGES_MAX - 1, true), (FILE_RANGES_MAX, true), (FILE_RANGES_MAX + 1, false)]
        {
            let text: Vec<String> = (0..count).map(|at| (2 * at).to_string()).collect();
            assert_eq!(parse(&text.join(",")).map(|ranges| ranges.len()), fits.then_some(count), "{count}");
        }
    }

    #[test]
    fn a_number_is_contained_exactly_if_some_part_names_it() {
        let ranges = FileRanges::parse("0,2,4-6,9-4294967295").unwrap();
        for file in [0, 2, 4, 5, 6, 9, 10, u32::MAX] {
            assert!(ranges.contains(file), "{file}");
        }
        for file in [1, 3, 7, 8] {
            assert!(!ranges.contains(file), "{file}");
        }
    }
}
