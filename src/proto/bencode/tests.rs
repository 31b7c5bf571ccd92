use std::thread;

use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;

fn flaw(bytes: &[u8]) -> Option<Flaw> {
    parse(bytes, 32, 1000).err().map(|error| error.flaw)
}

/// Runs `work` where a recursion by nesting would end the process.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn values_are_views_of_the_input() {
    let bytes = b"d4:infod1:ai-7e1:bl0:3:xyzeee";
    let root = parse(bytes, 3, 9).unwrap();
    let info = root.get(b"info").unwrap();
    assert_eq!(info.raw(), b"d1:ai-7e1:bl0:3:xyzee");
    assert_eq!(&bytes[info.range()], info.raw());
    assert_eq!(info.get(b"a").and_then(Value::as_int), Some(-7));
    let list = info.get(b"b").unwrap();
    assert_eq!(&bytes[list.range()], list.raw());
    let texts: Vec<_> = list.as_list().unwrap().map(|item| item.as_str().unwrap()).collect();
    assert_eq!(texts, ["", "xyz"]);
    assert_eq!(info.as_dict().unwrap().map(|(key, _)| key).collect::<Vec<_>>(), [b"a", b"b"]);
    // A value of another type is none, never a panic.
    assert_eq!((root.as_int(), root.as_bytes(), list.get(b"a"), info.get(b"c")), (None, None, None, None));
    assert!(info.as_list().is_none() && list.as_dict().is_none());
}

#[test]
fn t1_nesting_bomb_is_refused_in_constant_stack() {
    on_a_small_stack(|| {
        for depth in [33, 1_000, 10_000_000] {
            for unit in [&b"l"[..], b"d1:a", b"d0:l"] {
                let bomb = unit.repeat(depth);
                assert_eq!(flaw(&bomb), Some(Flaw::Depth), "{} times {unit:?}", depth);
                let under_an_unknown_key = [b"d3:zzz", &bomb[..]].concat();
                assert_eq!(flaw(&under_an_unknown_key), Some(Flaw::Depth));
            }
        }
    });
}

#[test]
fn t1_the_depth_limit_is_exact_and_within_it_the_stack_is_constant() {
    for (depth, good) in [(31, true), (32, true), (33, false)] {
        let nested = [b"l".repeat(depth), b"e".repeat(depth)].concat();
        assert_eq!(flaw(&nested).is_none(), good, "{depth} levels");
    }
    on_a_small_stack(|| {
        let depth = 1_000_000;
        let nested = [b"l".repeat(depth), b"e".repeat(depth)].concat();
        let value = parse(&nested, depth, depth).unwrap();
        assert_eq!(value.as_list().unwrap().count(), 1);
    });
}

#[test]
fn t2_the_token_limit_is_exact_and_counts_keys() {
    for (tokens, good) in [(999, true), (1000, true), (1001, false)] {
        for unit in ["0:", "i0e", "le", "de"] {
            let list = format!("l{}e", unit.repeat(tokens - 1));
            assert_eq!(flaw(list.as_bytes()), (!good).then_some(Flaw::Tokens), "{tokens} times {unit}");
        }
    }
    assert!(parse(b"d1:ai0e1:bi0ee", 1, 5).is_ok());
    assert!(parse(b"d1:ai0e1:bi0ee", 1, 4).is_err());
}

#[test]
fn t3_lying_string_lengths_are_refused() {
    for (bytes, want) in [
        (&b"0:"[..], None),
        (b"3:abc", None),
        (b"4:abc", Some(Flaw::Truncated)),
        (b"2:abc", Some(Flaw::Trailing)),
        (b"2147483648:abc", Some(Flaw::Truncated)),
        (b"9223372036854775807:abc", Some(Flaw::Truncated)),
        (b"9223372036854775808:abc", Some(Flaw::Number)),
        (b"18446744073709551615:abc", Some(Flaw::Number)),
        (b"1111111111222222222233333333334444444444:abc", Some(Flaw::Number)),
        (b"03:abc", Some(Flaw::Number)),
        (b"00:", Some(Flaw::Number)),
        (b"-1:a", Some(Flaw::Unexpected)),
        (b"+5:abcde", Some(Flaw::Unexpected)),
        (b" 3:abc", Some(Flaw::Unexpected)),
        (b"3 :abc", Some(Flaw::Number)),
        (b"0x3:abc", Some(Flaw::Number)),
        (b"3;abc", Some(Flaw::Number)),
        (b":", Some(Flaw::Unexpected)),
    ] {
        assert_eq!(flaw(bytes), want, "{}", bytes.escape_ascii());
    }
}

#[test]
fn t4_integers_are_canonical_and_never_wrap() {
    for (text, want) in [
        ("i0e", Some(0)),
        ("i-1e", Some(-1)),
        ("i9223372036854775807e", Some(i64::MAX)),
        ("i-9223372036854775808e", Some(i64::MIN)),
        ("i9223372036854775808e", None),
        ("i-9223372036854775809e", None),
        ("i99999999999999999999999e", None),
        ("i-0e", None),
        ("i03e", None),
        ("i-03e", None),
        ("ie", None),
        ("i-e", None),
        ("i--1e", None),
        ("i+1e", None),
        ("i1.0e", None),
        ("i 1e", None),
        ("i1_0e", None),
        ("i0xe", None),
        ("i\u{663}e", None),
    ] {
        let result = parse(text.as_bytes(), 1, 1);
        assert_eq!(result.ok().and_then(Value::as_int), want, "{text}");
        assert!(want.is_some() || result.is_err_and(|error| error.flaw == Flaw::Number), "{text}");
    }
}

#[test]
fn t5_unsorted_keys_are_accepted_and_duplicates_refused() {
    for (text, want) in [
        ("d1:ai1e1:bi2ee", None),
        ("d1:bi2e1:ai1ee", None),
        ("d1:ai1e1:ai1ee", Some(Flaw::DuplicateKey)),
        ("d1:ai1e1:bi2e1:ai1ee", Some(Flaw::DuplicateKey)),
        ("d1:bi1e1:ai2e1:bi1ee", Some(Flaw::DuplicateKey)),
        ("d1:cd1:bi1e1:ai2e1:bi1eee", Some(Flaw::DuplicateKey)),
        ("d1:bd1:a0:e1:ad1:a0:ee", None),
        ("di1e1:ae", Some(Flaw::Key)),
        ("dle1:ae", Some(Flaw::Key)),
        ("d1:ae", Some(Flaw::Key)),
        ("d1:a1:b1:ce", Some(Flaw::Key)),
    ] {
        assert_eq!(flaw(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn t6_truncation_at_every_byte_and_trailing_bytes_are_refused() {
    let whole = b"d4:infod1:ai-7e1:bl0:12:abcdefghijklee1:x1:ye";
    assert_eq!(flaw(whole), None);
    for len in 0..whole.len() {
        assert_eq!(flaw(&whole[..len]), Some(Flaw::Truncated), "{len} bytes");
    }
    for tail in [&b"\n"[..], b"e", b"0:", b"\0"] {
        let bytes = [whole, tail].concat();
        assert_eq!(parse(&bytes, 9, 99), Err(BencodeError { at: whole.len(), flaw: Flaw::Trailing }));
        let (value, rest) = parse_prefix(&bytes, 9, 99).unwrap();
        assert_eq!((value.raw(), rest), (&whole[..], tail));
    }
    assert_eq!(flaw(b"e"), Some(Flaw::Unexpected));
}

#[test]
fn dictionaries_are_written_in_key_order() {
    let item = Item::dict([
        ("pieces", Item::Bytes(b"\xff\0")),
        ("name", "a".into()),
        ("list", Item::List(vec![Item::Int(-5), "".into()])),
    ]);
    assert_eq!(item.to_bytes(), b"d4:listli-5e0:e4:name1:a6:pieces2:\xff\0e");
}

/// A value to write, owned so that the property tests can make any.
#[derive(Clone, Debug)]
enum Tree {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(BTreeMap<Vec<u8>, Self>),
}

impl Tree {
    fn item(&self) -> Item<'_> {
        match self {
            Self::Int(int) => Item::Int(*int),
            Self::Bytes(bytes) => Item::Bytes(bytes),
            Self::List(items) => Item::List(items.iter().map(Self::item).collect()),
            Self::Dict(map) => Item::Dict(map.iter().map(|(key, value)| (&key[..], value.item())).collect()),
        }
    }

    fn matches(&self, value: Value<'_>) -> bool {
        match self {
            Self::Int(int) => value.as_int() == Some(*int),
            Self::Bytes(bytes) => value.as_bytes() == Some(bytes),
            Self::List(items) => {
                let list: Vec<_> = value.as_list().unwrap().collect();
                list.len() == items.len() && items.iter().zip(list).all(|(item, value)| item.matches(value))
            }
            Self::Dict(map) => {
                value.as_dict().unwrap().count() == map.len()
                    && map.iter().all(|(key, item)| item.matches(value.get(key).unwrap()))
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..12);
    let leaf = prop_oneof![any::<i64>().prop_map(Tree::Int), bytes().prop_map(Tree::Bytes)];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
            prop::collection::btree_map(bytes(), inner, 0..6).prop_map(Tree::Dict),
        ]
    })
}

/// Mostly the bytes that bencode is made of.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(&b"ilde0123:-"[..]), any::<u8>()];
    prop::collection::vec(byte, 0..48)
}

/// Whether all views of an accepted value, and of what it holds, agree and lie inside of it.
fn is_sound(value: Value<'_>) -> bool {
    let lists = value.as_list().map(|mut items| items.all(is_inside(value)));
    let dicts = value.as_dict().map(|mut items| items.all(|(_, item)| is_inside(value)(item)));
    let kinds = [value.as_int().map(|_| true), value.as_bytes().map(|_| true), lists, dicts];
    let mut found = kinds.into_iter().flatten();
    found.next() == Some(true) && found.next().is_none()
}

fn is_inside<'a>(whole: Value<'a>) -> impl Fn(Value<'a>) -> bool {
    move |part| {
        let (outer, inner) = (whole.range(), part.range());
        outer.start < inner.start && inner.end < outer.end && is_sound(part)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(tree in tree()) {
        let bytes = tree.item().to_bytes();
        let value = parse(&bytes, 8, 10_000).unwrap();
        prop_assert!(tree.matches(value));
        prop_assert_eq!(value.raw(), &bytes[..]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in noise()) {
        if let Ok((value, rest)) = parse_prefix(&bytes, 8, 100) {
            prop_assert_eq!([value.raw(), rest].concat(), bytes.clone());
            prop_assert!(is_sound(value));
        }
    }

    #[test]
    fn damaged_values_are_refused_or_still_sound(
        bytes in tree().prop_flat_map(|tree| damaged(tree.item().to_bytes())),
    ) {
        if let Ok(value) = parse(&bytes, 8, 10_000) {
            prop_assert_eq!(value.raw(), &bytes[..]);
            prop_assert!(is_sound(value));
        }
    }
}
