use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;

const BITFIELD_BYTES: u32 = 7;
const BLOCK: BlockRef = BlockRef { piece: 1, begin: 0x8000, length: 0x4000 };

const HASH_REQUEST_OF_ALL: HashRequest =
    HashRequest { root: [9; HASH_BYTES], base_layer: 1, index: 2, length: 2, proof_layers: 0x0102 };

fn examples() -> Vec<Message<'static>> {
    use Message::*;
    let payload = b"payload";
    vec![
        KeepAlive,
        Choke,
        Unchoke,
        Interested,
        NotInterested,
        Have(u32::MAX),
        Bitfield(&[1, 2, 3, 4, 5, 6, 7]),
        Request(BLOCK),
        Cancel(BLOCK),
        Port(6881),
        Suggest(3),
        HaveAll,
        HaveNone,
        Reject(BLOCK),
        AllowedFast(4),
        Extended { id: 0, payload },
        HashRequest(HASH_REQUEST_OF_ALL),
        Hashes { request: HASH_REQUEST_OF_ALL, hashes: &[[1; HASH_BYTES], [2; HASH_BYTES]] },
        HashReject(HASH_REQUEST_OF_ALL),
        Unknown { id: 99 },
    ]
}

fn encoded(message: Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// Every message, one after the other.
fn all_encoded() -> Vec<u8> {
    let mut out = Vec::new();
    examples().iter().for_each(|message| message.encode(&mut out));
    out.extend(piece_header(BLOCK));
    out
}

/// A length prefix and an id without any body.
fn head(length: u32, id: u8) -> Vec<u8> {
    [&length.to_be_bytes()[..], &[id]].concat()
}

#[test]
fn every_message_comes_back_and_every_shorter_prefix_waits() {
    for message in examples() {
        let bytes = encoded(message);
        let want = Ok(Some((Frame::Message(message), bytes.len())));
        assert_eq!(next_frame(&bytes, BITFIELD_BYTES), want);
        assert_eq!(next_frame(&[&bytes[..], b"next"].concat(), BITFIELD_BYTES), want);
        for len in 0..bytes.len() {
            assert_eq!(next_frame(&bytes[..len], BITFIELD_BYTES), Ok(None), "{message:?} at {len}");
        }
    }
}

#[test]
fn the_bytes_are_those_of_bep_3_and_bep_6() {
    assert_eq!(encoded(Message::KeepAlive), [0; 4]);
    assert_eq!(encoded(Message::Have(0x0102)), [0, 0, 0, 5, 4, 0, 0, 1, 2]);
    assert_eq!(encoded(Message::Request(BLOCK)), [0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0x40, 0]);
    assert_eq!(encoded(Message::HaveAll), [0, 0, 0, 1, 14]);
    assert_eq!(encoded(Message::Extended { id: 3, payload: b"x" }), [0, 0, 0, 3, 20, 3, b'x']);
    assert_eq!(piece_header(BLOCK), [0, 0, 0x40, 9, 7, 0, 0, 0, 1, 0, 0, 0x80, 0]);
}

#[test]
fn a_block_is_announced_by_its_header_alone() {
    let header = piece_header(BLOCK);
    let frame = Frame::Piece { piece: BLOCK.piece, begin: BLOCK.begin, length: BLOCK.length };
    assert_eq!(next_frame(&header, 0), Ok(Some((frame, 13))));
    for len in 0..13 {
        assert_eq!(next_frame(&header[..len], 0), Ok(None));
    }
}

#[test]
fn p6_a_keep_alive_takes_four_bytes() {
    assert_eq!(next_frame(&[0; 8], 0), Ok(Some((Frame::Message(Message::KeepAlive), 4))));
}

#[test]
fn p7_a_huge_length_is_refused_by_the_prefix_alone() {
    let longest = REQUEST_BYTES_MAX + 9;
    for length in [longest + 1, 1 << 20, 1 << 31, u32::MAX] {
        assert_eq!(next_frame(&length.to_be_bytes(), 1), Err(WireError::TooLong { length }));
    }
    assert_eq!(next_frame(&longest.to_be_bytes(), 1), Ok(None));
}

#[test]
fn p7_a_block_length_is_limited_to_the_longest_request() {
    for (block, good) in [
        (0, false),
        (1, true),
        (REQUEST_BYTES_MAX - 1, true),
        (REQUEST_BYTES_MAX, true),
        (REQUEST_BYTES_MAX + 1, false),
    ] {
        // A bit field of 1 MiB, so that the general limit is not what refuses.
        let bytes = head(block + 9, PIECE);
        let result = next_frame(&bytes, 1 << 20);
        let want = if good { Ok(None) } else { Err(WireError::BlockLength { length: block }) };
        assert_eq!(result, want, "block of {block}");
    }
}

/// As many hashes as may be asked for, and a proof of 32 layers.
const HASHES_LENGTH_MAX: u32 = 49 + 32 * (HASHES_PER_REQUEST_MAX + 32);

#[test]
fn p32_hashes_end_at_their_limit_and_come_whole() {
    for (length, good) in [
        (48, false),
        (49, true),
        (HASHES_LENGTH_MAX - 32, true),
        (HASHES_LENGTH_MAX - 1, false),
        (HASHES_LENGTH_MAX, true),
        (HASHES_LENGTH_MAX + 1, false),
        (HASHES_LENGTH_MAX + 32, false),
    ] {
        assert_eq!(next_frame(&head(length, 22), 0).is_ok(), good, "{length}");
    }
}

/// Every id against every length from 0 to 64 and around the limits, with only the head sent.
#[test]
fn p8_a_wrong_length_is_refused_before_the_body_arrives() {
    for id in 0..=255u8 {
        let limits =
            [UNKNOWN_MESSAGE_BYTES_MAX, UNKNOWN_MESSAGE_BYTES_MAX + 1, UNKNOWN_MESSAGE_BYTES_MAX + 2];
        let around = [MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 1];
        for length in (1..=64).chain(limits).chain(around) {
            let good = match id {
                0..=3 | 14 | 15 => length == 1,
                4 | 13 | 17 => length == 5,
                5 => length == 1 + BITFIELD_BYTES,
                6 | 8 | 16 => length == 13,
                7 => length > 9,
                9 => length == 3,
                20 => (2..=MESSAGE_BYTES_MAX).contains(&length),
                21 | 23 => length == 49,
                22 => length >= 49 && (length - 49).is_multiple_of(32) && length <= HASHES_LENGTH_MAX,
                _ => length <= 1 + UNKNOWN_MESSAGE_BYTES_MAX,
            };
            let bytes = head(length, id);
            let result = next_frame(&bytes, BITFIELD_BYTES);
            assert_eq!(result.is_ok(), good, "id {id}, length {length}: {result:?}");
        }
    }
}

#[test]
fn p8_an_unknown_message_is_skipped_whole() {
    let size = UNKNOWN_MESSAGE_BYTES_MAX as usize;
    let bytes = [&head(1 + UNKNOWN_MESSAGE_BYTES_MAX, 200)[..], &vec![7; size]].concat();
    let want = (Frame::Message(Message::Unknown { id: 200 }), 5 + size);
    assert_eq!(next_frame(&bytes, 0), Ok(Some(want)));
}

#[test]
fn p9_a_bit_field_of_another_size_is_refused() {
    for (have, good) in [(0, false), (6, false), (7, true), (8, false)] {
        let bytes = encoded(Message::Bitfield(&[0; 8][..have]));
        assert_eq!(next_frame(&bytes, BITFIELD_BYTES).is_ok(), good, "{have} bytes");
    }
    // The largest torrent's bit field is far longer than any other message.
    let largest = crate::base::limits::PIECES_MAX / 8;
    let bytes = encoded(Message::Bitfield(&vec![0xff; largest as usize]));
    assert!(matches!(next_frame(&bytes, largest), Ok(Some((_, n))) if n == bytes.len()));
}

proptest! {
    #[test]
    fn any_bytes_yield_a_frame_that_fits_or_an_error(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), 0..=24u8, any::<u8>()], 0..64),
        bitfield_bytes: u32,
    ) {
        if let Ok(Some((_, used))) = next_frame(&bytes, bitfield_bytes) {
            prop_assert!((4..=bytes.len()).contains(&used));
        }
    }

    #[test]
    fn a_stream_of_messages_is_cut_where_it_was_joined(
        picks in prop::collection::vec(0..20usize, 0..20),
    ) {
        let messages: Vec<_> = picks.iter().map(|&at| examples()[at]).collect();
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let mut rest = &bytes[..];
        for message in messages {
            let (frame, used) = next_frame(rest, BITFIELD_BYTES).unwrap().unwrap();
            prop_assert_eq!(frame, Frame::Message(message));
            rest = &rest[used..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_damaged_stream_is_cut_into_frames_that_were_in_it(bytes in damaged(all_encoded())) {
        let mut rest = &bytes[..];
        while let Ok(Some((frame, used))) = next_frame(rest, BITFIELD_BYTES) {
            prop_assert!((4..=rest.len()).contains(&used));
            let again = match frame {
                Frame::Message(Message::Unknown { .. }) => rest[..used].to_vec(),
                Frame::Message(message) => encoded(message),
                Frame::Piece { piece, begin, length } => {
                    piece_header(BlockRef { piece, begin, length }).to_vec()
                }
            };
            prop_assert_eq!(&again, &rest[..used], "{:?}", frame);
            // What is known of a frame, no later byte changes; what is not known waits.
            prop_assert_eq!(next_frame(&rest[..used], BITFIELD_BYTES), Ok(Some((frame, used))));
            for len in 0..used {
                prop_assert_eq!(next_frame(&rest[..len], BITFIELD_BYTES), Ok(None));
            }
            rest = &rest[used..];
        }
    }
}
