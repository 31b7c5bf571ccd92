//! Bencode (BEP 3): a bounded reader that borrows, and a canonical writer.
//!
//! Why not a library. What is needed is a depth limit without recursion, a token limit, no
//! allocation by claimed lengths, duplicate keys refused but unsorted ones accepted (real files
//! have them), and the exact bytes of any value, for the info-hash. `bendy` 0.3.3 has the depth
//! limit and raw slices, but no token limit, refuses unsorted keys, and depends on the abandoned
//! `failure` crate (RUSTSEC-2020-0036, unsound by RUSTSEC-2019-0036) and through it on `syn` 1.
//! The serde ones (`serde_bencode` 0.2, `bt_bencode` 0.8) recurse by nesting without a limit of
//! their own and have no token limit.
//!
//! The rules. [`parse`] checks the whole input once, iteratively: nesting and tokens within the
//! given bounds; lengths and integers without leading zeros, `-0` or `+`; integers within i64;
//! dictionary keys unique, in any order; nothing after the value. The [`Value`] it returns is a
//! view of checked bytes; looking something up walks them again and allocates nothing. A lookup
//! is linear in the dictionary's bytes, and no caller nests lookups deeper than a few levels, so
//! all of reading is linear in the input.

use std::collections::BTreeMap;
use std::ops::Range;

use lexer::{Token, skip, token};

mod lexer;

/// Where and why bytes are not acceptable bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {flaw}")]
pub struct BencodeError {
    /// Offset in the input.
    pub at: usize,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// What can be wrong with bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The input ends inside a value.
    #[error("the data ends too early")]
    Truncated,
    /// Something follows the value.
    #[error("there is data after the end")]
    Trailing,
    /// No value starts with this byte.
    #[error("no value starts here")]
    Unexpected,
    /// A number with a leading zero, a bad sign or something that is no digit, or beyond 64 bits.
    #[error("malformed or oversized number")]
    Number,
    /// Lists and dictionaries nested deeper than allowed.
    #[error("nested too deep")]
    Depth,
    /// More values than allowed.
    #[error("too many values")]
    Tokens,
    /// A dictionary key that is no string, or one without a value.
    #[error("a dictionary key is no string or has no value")]
    Key,
    /// The same key twice in one dictionary.
    #[error("a dictionary has a key twice")]
    DuplicateKey,
}

/// A checked value inside the input it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    raw: &'a [u8],
    start: usize,
}

/// Parses `bytes` as exactly one value with at most `depth_max` nested lists or dictionaries and
/// `tokens_max` strings (keys too), integers, lists and dictionaries together.
pub fn parse(bytes: &[u8], depth_max: usize, tokens_max: usize) -> Result<Value<'_>, BencodeError> {
    let (value, rest) = parse_prefix(bytes, depth_max, tokens_max)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(BencodeError { at: value.raw.len(), flaw: Flaw::Trailing })
}

/// Like [`parse`], but gives back what follows the value (BEP 9 puts metadata there).
pub fn parse_prefix(
    bytes: &[u8],
    depth_max: usize,
    tokens_max: usize,
) -> Result<(Value<'_>, &[u8]), BencodeError> {
    let end = lexer::check(bytes, depth_max, tokens_max)?;
    let (raw, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    Ok((Value { raw, start: 0 }, rest))
}

impl<'a> Value<'a> {
    /// The exact bytes of the value.
    pub const fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Where the value lies in the input.
    pub const fn range(self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// The content, if it is a string.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match token(self.raw, 0) {
            Ok((Token::Bytes(bytes), _)) => Some(bytes),
            _ => None,
        }
    }

    /// The content, if it is a string of UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        str::from_utf8(self.as_bytes()?).ok()
    }

    /// The number, if it is an integer.
    pub fn as_int(self) -> Option<i64> {
        match token(self.raw, 0) {
            Ok((Token::Int(int), _)) => Some(int),
            _ => None,
        }
    }

    /// The items in order, if it is a list.
    pub fn as_list(self) -> Option<impl Iterator<Item = Self> + Clone> {
        (self.raw.first() == Some(&b'l')).then(|| self.items())
    }

    /// The keys and values in the order of the input, if it is a dictionary.
    pub fn as_dict(self) -> Option<impl Iterator<Item = (&'a [u8], Self)>> {
        if self.raw.first() != Some(&b'd') {
            return None;
        }
        let mut items = self.items();
        Some(std::iter::from_fn(move || Some((items.next()?.as_bytes()?, items.next()?))))
    }

    /// The value under `key`, if it is a dictionary that has it.
    pub fn get(self, key: &[u8]) -> Option<Self> {
        self.as_dict()?.find(|&(have, _)| have == key).map(|(_, value)| value)
    }

    /// The values inside a list or dictionary, keys as values.
    fn items(self) -> Items<'a> {
        Items { rest: self.raw.get(1..).unwrap_or_default(), start: self.start + 1 }
    }
}

/// Values side by side, up to the `e` that ends them.
#[derive(Clone)]
struct Items<'a> {
    rest: &'a [u8],
    start: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        // Checked bytes: `skip` fails at the closing `e` and nowhere else.
        let (raw, rest) = self.rest.split_at_checked(skip(self.rest)?)?;
        let value = Value { raw, start: self.start };
        self.rest = rest;
        self.start += raw.len();
        Some(value)
    }
}

/// A value to be written. Canonical by its type: keys are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// An integer.
    Int(i64),
    /// A string.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Self>),
    /// A dictionary.
    Dict(BTreeMap<&'a [u8], Self>),
}

impl<'a> Item<'a> {
    /// A dictionary of `entries`; of equal keys the last one stays.
    pub fn dict(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Dict(entries.into_iter().map(|(key, value)| (key.as_bytes(), value)).collect())
    }

    /// Appends the bencode of the value to `out`. Recurses as deep as the value, which our own
    /// code has built.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(int) => out.extend_from_slice(format!("i{int}e").as_bytes()),
            Self::Bytes(bytes) => encode_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                for item in items {
                    item.encode(out);
                }
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_bytes(key, out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }

    /// The bencode of the value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

impl<'a> From<&'a str> for Item<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
