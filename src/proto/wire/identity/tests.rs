use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;

fn hello(seed: u8) -> Hello {
    Hello { nonce: [seed; 32], key: [seed + 1; 32] }
}

fn messages() -> [IdentityMessage; 2] {
    [IdentityMessage::Hello(hello(3)), IdentityMessage::Proof([9; 64])]
}

#[test]
fn what_is_encoded_is_parsed() {
    for message in messages() {
        assert_eq!(IdentityMessage::parse(&message.encode()), Ok(Some(message)));
    }
    assert_eq!(messages()[0].encode()[..3], [1, 0, 3]);
    assert_eq!(messages()[1].encode()[..3], [1, 1, 9]);
}

#[test]
fn truncation_at_every_byte_and_a_byte_too_many_are_refused() {
    for message in messages() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert_eq!(IdentityMessage::parse(&bytes[..length]), Err(WireError::Identity { length }));
        }
        let long = [&bytes[..], b"x"].concat();
        assert_eq!(IdentityMessage::parse(&long), Err(WireError::Identity { length: 67 }));
    }
}

#[test]
fn other_versions_are_ignored_whatever_follows_and_unknown_kinds_are_refused() {
    for version in (0..=255u8).filter(|&version| version != IDENTITY_VERSION) {
        for rest in [&[][..], &[0; 65], &[7; 1_000]] {
            let bytes = [&[version][..], rest].concat();
            assert_eq!(IdentityMessage::parse(&bytes), Ok(None), "version {version}");
        }
    }
    for kind in 2..=255u8 {
        let mut bytes = messages()[0].encode();
        bytes[1] = kind;
        assert!(IdentityMessage::parse(&bytes).is_err(), "kind {kind}");
    }
}

#[test]
fn no_two_situations_have_one_statement() {
    let mut seen = HashSet::new();
    for signer in [Side::Dialler, Side::Acceptor] {
        for torrent in [1, 2] {
            for (a, b) in [(1, 2), (2, 1), (1, 1), (3, 2), (1, 3)] {
                let statement = statement(signer, InfoHash([torrent; 20]), [&hello(a), &hello(b)]);
                assert!(seen.insert(statement), "{signer:?} {torrent} {a} {b}");
                assert!(statement.starts_with(DOMAIN));
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_of_a_damaged_message_is_what_it_says(
        bytes in prop::sample::select(messages().map(|message| message.encode().to_vec()).to_vec())
            .prop_flat_map(damaged)
    ) {
        if let Ok(Some(message)) = IdentityMessage::parse(&bytes) {
            prop_assert_eq!(&message.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn any_payload_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = IdentityMessage::parse(&bytes);
    }

    #[test]
    fn what_is_sent_is_understood(nonce: [u8; 32], key: [u8; 32], low: [u8; 32], high: [u8; 32]) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&low);
        signature[32..].copy_from_slice(&high);
        for sent in [IdentityMessage::Hello(Hello { nonce, key }), IdentityMessage::Proof(signature)] {
            prop_assert_eq!(IdentityMessage::parse(&sent.encode()), Ok(Some(sent)));
        }
    }
}
