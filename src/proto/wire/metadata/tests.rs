use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;

fn encoded(message: &MetadataMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// The examples of BEP 9, keys and all.
#[test]
fn messages_are_written_as_bep_9_shows_them() {
    assert_eq!(encoded(&MetadataMessage::Request(0)), b"d8:msg_typei0e5:piecei0ee");
    assert_eq!(encoded(&MetadataMessage::Reject(0)), b"d8:msg_typei2e5:piecei0ee");
    let data = MetadataMessage::Data { piece: 0, total_bytes: 3425, bytes: b"xxxx" };
    assert_eq!(encoded(&data), b"d8:msg_typei1e5:piecei0e10:total_sizei3425eexxxx");
}

#[test]
fn p30_a_message_cut_off_at_any_byte_of_its_dictionary_is_refused() {
    for message in [
        MetadataMessage::Request(7),
        MetadataMessage::Reject(u32::MAX),
        MetadataMessage::Data { piece: 1, total_bytes: 20_000, bytes: b"d1:ai0ee" },
    ] {
        let bytes = encoded(&message);
        let body = if let MetadataMessage::Data { bytes, .. } = message { bytes.len() } else { 0 };
        assert_eq!(MetadataMessage::parse(&bytes), Ok(Some(message)));
        for length in 0..bytes.len() - body {
            assert!(MetadataMessage::parse(&bytes[..length]).is_err(), "{length} bytes of {message:?}");
        }
        // What is cut off behind it is a short piece, which is for the fetcher to judge.
        for length in bytes.len() - body..bytes.len() {
            assert!(matches!(MetadataMessage::parse(&bytes[..length]), Ok(Some(_))));
        }
    }
}

#[test]
fn p30_numbers_that_are_none_and_bombs_are_refused() {
    for payload in [
        &b"d5:piecei0ee"[..],
        b"d8:msg_typei0ee",
        b"d8:msg_typei0e5:piecei-1ee",
        b"d8:msg_typei0e5:piecei4294967296ee",
        b"d8:msg_type1:05:piecei0ee",
        b"d8:msg_typei1e5:piecei0eexxxx",
        b"d8:msg_typei1e5:piecei0e10:total_sizei-1eexxxx",
        b"le",
        b"i0e",
        b"",
    ] {
        assert!(MetadataMessage::parse(payload).is_err(), "{}", payload.escape_ascii());
    }
    let deep = [b"d8:msg_typei0e5:piecei0e1:z".to_vec(), b"l".repeat(1000), b"e".repeat(1001)].concat();
    assert!(MetadataMessage::parse(&deep).is_err());
}

#[test]
fn p30_a_piece_has_so_many_bytes_and_no_more() {
    let max = METADATA_PIECE_BYTES as usize;
    for (length, taken) in [(max - 1, true), (max, true), (max + 1, false)] {
        let bytes = vec![7; length];
        let message = MetadataMessage::Data { piece: 0, total_bytes: 1 << 20, bytes: &bytes };
        assert_eq!(MetadataMessage::parse(&encoded(&message)).is_ok(), taken, "{length}");
    }
}

#[test]
fn other_types_of_message_are_ignored() {
    assert_eq!(MetadataMessage::parse(b"d8:msg_typei3e5:piecei0eerest"), Ok(None));
    assert_eq!(MetadataMessage::parse(b"d8:msg_typei-1ee"), Ok(None));
}

#[test]
fn pieces_lie_side_by_side_and_end_with_the_metadata() {
    let piece = METADATA_PIECE_BYTES;
    for (total, last) in
        [(1, 0..1), (piece - 1, 0..piece - 1), (piece, 0..piece), (piece + 1, piece..piece + 1)]
    {
        let count = total.div_ceil(piece);
        assert_eq!(piece_range(count - 1, total), Some(last.start as usize..last.end as usize));
        assert_eq!(piece_range(count, total), None, "{total}");
    }
    assert_eq!((piece_range(0, 0), piece_range(u32::MAX, u32::MAX)), (None, None));
}

#[test]
fn p9_any_bit_field_that_a_torrent_could_have_passes_while_its_size_is_unknown() {
    let frame = |bytes: u32| [&(bytes + 1).to_be_bytes()[..], &[BITFIELD], &vec![0; bytes as usize]].concat();
    let max = BITFIELD_BYTES_MAX;
    for (bytes, taken) in [(0, true), (1, true), (max - 1, true), (max, true), (max + 1, false)] {
        let buf = frame(bytes);
        let outcome = next_message(&buf);
        assert_eq!(outcome.is_ok(), taken, "{bytes}");
        if let Ok(Some((message, used))) = outcome {
            assert!(matches!(message, Message::Bitfield(field) if field.len() == bytes as usize));
            assert_eq!(used, buf.len());
        }
    }
    assert!(next_message(&[0xff, 0xff, 0xff, 0xff, BITFIELD]).is_err());
    assert_eq!(next_message(&[0, 0, 0, 1]), Ok(None));
    assert_eq!(next_message(&[0, 0, 0, 0]), Ok(Some((Message::KeepAlive, 4))));
    let block = [&14u32.to_be_bytes()[..], &[7], &[0; 13]].concat();
    assert!(next_message(&block).is_err(), "nobody asked for a block");
}

fn message() -> impl Strategy<Value = (u32, u32, Vec<u8>, u8)> {
    (any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..64), 0..3u8)
}

proptest! {
    #[test]
    fn what_is_written_is_read((piece, total_bytes, bytes, kind) in message()) {
        let message = match kind {
            0 => MetadataMessage::Request(piece),
            1 => MetadataMessage::Data { piece, total_bytes, bytes: &bytes },
            _ => MetadataMessage::Reject(piece),
        };
        let payload = encoded(&message);
        prop_assert_eq!(MetadataMessage::parse(&payload), Ok(Some(message)));
    }

    #[test]
    fn p30_damaged_messages_are_refused_or_read(
        payload in message().prop_flat_map(|(piece, total_bytes, bytes, _)| {
            damaged(encoded(&MetadataMessage::Data { piece, total_bytes, bytes: &bytes }))
        }),
    ) {
        if let Ok(Some(MetadataMessage::Data { bytes, .. })) = MetadataMessage::parse(&payload) {
            prop_assert!(payload.ends_with(bytes));
        }
    }
}
