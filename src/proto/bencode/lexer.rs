//! Tokens, and the one pass that checks how they fit together. No recursion anywhere: the stack
//! of open lists and dictionaries is a vector that never outgrows the depth limit.

use super::{BencodeError, Flaw};

/// One token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    List,
    Dict,
    End,
}

/// A list or dictionary that is still open.
enum Open<'a> {
    List,
    Dict(Dict<'a>),
}

/// Invariant: while `sorted`, every key is greater than the one before, so none comes twice.
struct Dict<'a> {
    start: usize,
    last_key: Option<&'a [u8]>,
    key_is_next: bool,
    sorted: bool,
}

/// Checks one value at the front of `bytes`; returns where it ends.
pub(super) fn check(bytes: &[u8], depth_max: usize, tokens_max: usize) -> Result<usize, BencodeError> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut at = 0;
    let mut tokens = 0;
    loop {
        let fail = |flaw| BencodeError { at, flaw };
        let (token, next) = token(bytes, at)?;
        if let Token::End = token {
            match open.pop() {
                None => return Err(fail(Flaw::Unexpected)),
                Some(Open::Dict(dict)) if !dict.key_is_next => return Err(fail(Flaw::Key)),
                Some(Open::Dict(dict)) if !dict.sorted => check_unique(bytes, dict.start, next)?,
                Some(Open::Dict(_) | Open::List) => {}
            }
        } else {
            if let Some(Open::Dict(dict)) = open.last_mut() {
                dict.accept(token).map_err(fail)?;
            }
            tokens += 1;
            if tokens > tokens_max {
                return Err(fail(Flaw::Tokens));
            }
            if matches!(token, Token::List | Token::Dict) && open.len() >= depth_max {
                return Err(fail(Flaw::Depth));
            }
            match token {
                Token::List => open.push(Open::List),
                Token::Dict => open.push(Open::Dict(Dict::new(at))),
                Token::Bytes(_) | Token::Int(_) | Token::End => {}
            }
        }
        at = next;
        if open.is_empty() {
            return Ok(at);
        }
    }
}

impl<'a> Dict<'a> {
    const fn new(start: usize) -> Self {
        Self { start, last_key: None, key_is_next: true, sorted: true }
    }

    /// Takes the next token as key or value.
    fn accept(&mut self, token: Token<'a>) -> Result<(), Flaw> {
        if self.key_is_next {
            let Token::Bytes(key) = token else { return Err(Flaw::Key) };
            if self.last_key == Some(key) {
                return Err(Flaw::DuplicateKey);
            }
            self.sorted &= self.last_key.is_none_or(|last| last < key);
            self.last_key = Some(key);
        }
        self.key_is_next = !self.key_is_next;
        Ok(())
    }
}

/// Refuses duplicates in the unsorted dictionary at `start..end`, by sorting its keys.
fn check_unique(bytes: &[u8], start: usize, end: usize) -> Result<(), BencodeError> {
    let dict = super::Value { raw: bytes.get(start..end).unwrap_or_default(), start };
    let mut keys: Vec<&[u8]> = dict.as_dict().into_iter().flatten().map(|(key, _)| key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BencodeError { at: start, flaw: Flaw::DuplicateKey });
    }
    Ok(())
}

/// Where the checked value at the front of `bytes` ends; `None` if there is none.
pub(super) fn skip(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut depth = 0usize;
    loop {
        let (token, next) = token(bytes, at).ok()?;
        match token {
            Token::List | Token::Dict => depth += 1,
            Token::End => depth = depth.checked_sub(1)?,
            Token::Bytes(_) | Token::Int(_) => {}
        }
        at = next;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The token at `at`, and where the next one starts.
pub(super) fn token(bytes: &[u8], at: usize) -> Result<(Token<'_>, usize), BencodeError> {
    let fail = |flaw| BencodeError { at, flaw };
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first().ok_or_else(|| fail(Flaw::Truncated))? {
        b'e' => Ok((Token::End, at + 1)),
        b'l' => Ok((Token::List, at + 1)),
        b'd' => Ok((Token::Dict, at + 1)),
        b'i' => {
            let (digits, used) = until(&rest[1..], b'e').map_err(fail)?;
            Ok((Token::Int(int(digits).ok_or_else(|| fail(Flaw::Number))?), at + 1 + used))
        }
        b'0'..=b'9' => {
            let (digits, used) = until(rest, b':').map_err(fail)?;
            // i64 holds any length that memory can; a negative one has no digit in front.
            let len = int(digits).ok_or_else(|| fail(Flaw::Number))? as usize;
            let content = rest[used..].get(..len).ok_or_else(|| fail(Flaw::Truncated))?;
            Ok((Token::Bytes(content), at + used + len))
        }
        _ => Err(fail(Flaw::Unexpected)),
    }
}

/// The at most 20 bytes (`-9223372036854775808`) before `stop`, and how far it reaches with it.
fn until(bytes: &[u8], stop: u8) -> Result<(&[u8], usize), Flaw> {
    let window = bytes.get(..21).unwrap_or(bytes);
    match window.iter().position(|&byte| byte == stop) {
        Some(end) => Ok((&bytes[..end], end + 1)),
        None if window.len() == 21 => Err(Flaw::Number),
        // A wrong byte is wrong however the input would go on.
        None if window.iter().any(|byte| !byte.is_ascii_digit() && *byte != b'-') => Err(Flaw::Number),
        None => Err(Flaw::Truncated),
    }
}

/// The number in `text`, which must be written in the one canonical way.
fn int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', tail @ ..] => tail.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { str::from_utf8(text).ok()?.parse().ok() } else { None }
}
