use proptest::prelude::*;

use super::*;

const HASH: InfoHash = InfoHash([7; 20]);

fn entropy(seed: u8, pad: usize) -> Entropy {
    Entropy { private: [seed; PRIVATE_BYTES], pad: vec![seed; pad] }
}

fn known(tag: &[u8; 20]) -> Option<InfoHash> {
    (*tag == torrent_tag(&HASH)).then_some(HASH)
}

fn begin(methods: Methods, pad: usize) -> Handshaker {
    Handshaker::begin(HASH, methods, b"first words".to_vec(), entropy(3, pad))
}

fn accept(methods: Methods, pad: usize) -> Handshaker {
    Handshaker::accept(methods, entropy(5, pad))
}

/// Has two sides talk, `step` bytes at a time, until both are done.
fn talk(mut a: Handshaker, mut b: Handshaker, step: usize) -> Result<(Established, Established), MseError> {
    let (mut a_done, mut b_done) = (None, None);
    for _ in 0..4 {
        for part in a.poll_output().unwrap_or_default().chunks(step) {
            assert!(b_done.is_none(), "nothing is said after the first words");
            b_done = b.handle_bytes(part, known)?;
        }
        for part in b.poll_output().unwrap_or_default().chunks(step) {
            a_done = a.handle_bytes(part, known)?;
        }
    }
    Ok((a_done.expect("a is done"), b_done.expect("b is done")))
}

#[test]
fn both_sides_agree_whatever_comes_at_a_time() {
    use Methods::{Both, OnlyRc4};
    for (ours, theirs, method) in [
        (Both, Both, Method::Plain),
        (Both, OnlyRc4, Method::Rc4),
        (OnlyRc4, Both, Method::Rc4),
        (OnlyRc4, OnlyRc4, Method::Rc4),
    ] {
        for (pad, step) in [(0, 1), (MSE_PAD_BYTES_MAX, 7), (MSE_PAD_BYTES_MAX + 9, 4096)] {
            let (mut a, mut b) = talk(begin(ours, pad), accept(theirs, pad), step).unwrap();
            assert_eq!((a.method, b.method, a.info_hash, b.info_hash), (method, method, HASH, HASH));
            assert_eq!((a.heard.as_slice(), b.heard.as_slice()), (&b""[..], &b"first words"[..]));
            for (sealing, opening) in [(&mut a.sealing, &mut b.opening), (&mut b.sealing, &mut a.opening)] {
                let mut bytes = *b"a block of something";
                sealing.apply(&mut bytes);
                assert_ne!(&bytes, b"a block of something");
                opening.apply(&mut bytes);
                assert_eq!(&bytes, b"a block of something");
            }
        }
    }
}

#[test]
fn what_follows_the_handshake_at_once_is_heard() {
    for (methods, method) in [(Methods::Both, Method::Plain), (Methods::OnlyRc4, Method::Rc4)] {
        let (mut a, mut b) = (begin(methods, 3), accept(Methods::Both, 3));
        assert!(b.handle_bytes(&a.poll_output().unwrap(), known).unwrap().is_none());
        assert!(a.handle_bytes(&b.poll_output().unwrap(), known).unwrap().is_none());
        let mut offer = a.poll_output().unwrap();
        let mut more = b"more".to_vec();
        if method == Method::Rc4 {
            // The side that began goes on under its cipher behind its first words.
            let secret = shared_secret(&public(5), &[3; PRIVATE_BYTES]).unwrap();
            let mut sealing = Cipher::new(b"keyA", &secret, &HASH);
            sealing.apply(&mut vec![0; OFFER_BYTES + b"first words".len()]);
            sealing.apply(&mut more);
        }
        offer.extend_from_slice(&more);
        let mut b_done = b.handle_bytes(&offer, known).unwrap().unwrap();
        assert_eq!((b_done.method, b_done.heard.as_slice()), (method, &b"first wordsmore"[..]));
        let mut answer = b.poll_output().unwrap();
        let mut reply = b"reply".to_vec();
        if method == Method::Rc4 {
            b_done.sealing.apply(&mut reply);
        }
        answer.extend_from_slice(&reply);
        assert_eq!(a.handle_bytes(&answer, known).unwrap().unwrap().heard, b"reply");
    }
}

fn public(private: u8) -> [u8; KEY_BYTES] {
    let private = BigUint::from_bytes_be(&[private; PRIVATE_BYTES]);
    key_bytes(&BigUint::from(GENERATOR).modpow(&private, &BigUint::from_bytes_be(&PRIME)))
}

#[test]
fn p33_keys_that_give_a_secret_away_are_refused() {
    let prime = BigUint::from_bytes_be(&PRIME);
    for (key, fine) in [
        (BigUint::from(0u32), false),
        (BigUint::from(1u32), false),
        (BigUint::from(2u32), true),
        (&prime - 2u32, true),
        (&prime - 1u32, false),
        (prime.clone(), false),
        (&prime + 1u32, false),
    ] {
        let key = key_bytes(&key);
        let outcome = accept(Methods::Both, 0).handle_bytes(&key, known).map(|done| done.is_none());
        assert_eq!(outcome, if fine { Ok(true) } else { Err(MseError::WeakKey) });
        let outcome = begin(Methods::Both, 0).handle_bytes(&key, known).map(|done| done.is_none());
        assert_eq!(outcome, if fine { Ok(true) } else { Err(MseError::WeakKey) });
    }
}

#[test]
fn p33_who_never_comes_to_the_point_is_dropped_behind_the_longest_padding() {
    for (mut side, mark_bytes) in [(begin(Methods::Both, 0), 8), (accept(Methods::Both, 0), 20)] {
        assert!(side.handle_bytes(&public(9), known).unwrap().is_none());
        let noise = vec![0xaa; MSE_PAD_BYTES_MAX + mark_bytes - 1];
        assert!(side.handle_bytes(&noise, known).unwrap().is_none());
        assert_eq!(side.handle_bytes(&[0xaa], known).err(), Some(MseError::NoSync));
    }
}

/// An offer whose padding and first words have these lengths.
fn offer_of(pad_bytes: usize, first_bytes: usize, methods: u32) -> Vec<u8> {
    let secret = shared_secret(&public(5), &[3; PRIVATE_BYTES]).unwrap();
    let mut out = offer(&Aim { info_hash: HASH, first: Vec::new() }, Methods::Both, &secret);
    out.truncate(40);
    let mut sealed = ZEROS.to_vec();
    sealed.extend_from_slice(&methods.to_be_bytes());
    sealed.extend_from_slice(&(pad_bytes as u16).to_be_bytes());
    sealed.extend(std::iter::repeat_n(0, pad_bytes));
    sealed.extend_from_slice(&(first_bytes as u16).to_be_bytes());
    sealed.extend(std::iter::repeat_n(1, first_bytes));
    Cipher::new(b"keyA", &secret, &HASH).apply(&mut sealed);
    out.extend_from_slice(&sealed);
    out
}

#[test]
fn p33_padding_and_first_words_end_at_their_limits() {
    for (pad, first, fine) in [
        (MSE_PAD_BYTES_MAX - 1, 0, true),
        (MSE_PAD_BYTES_MAX, MSE_INITIAL_BYTES_MAX - 1, true),
        (0, MSE_INITIAL_BYTES_MAX, true),
        (MSE_PAD_BYTES_MAX + 1, 0, false),
        (0, MSE_INITIAL_BYTES_MAX + 1, false),
    ] {
        let mut b = accept(Methods::Both, 0);
        assert!(b.handle_bytes(&public(3), known).unwrap().is_none());
        let outcome = b.handle_bytes(&offer_of(pad, first, RC4), known);
        let outcome = outcome.map(|done| done.map(|done| done.heard.len()));
        assert_eq!(outcome, if fine { Ok(Some(first)) } else { Err(MseError::TooLong) }, "{pad} {first}");
    }
}

#[test]
fn p33_unknown_torrents_and_methods_are_refused() {
    let answer = |find: fn(&[u8; 20]) -> Option<InfoHash>, ours, methods| {
        let mut b = accept(ours, 0);
        assert!(b.handle_bytes(&public(3), known).unwrap().is_none());
        b.handle_bytes(&offer_of(0, 0, methods), find).map(|done| done.map(|done| done.method))
    };
    assert_eq!(answer(|_| None, Methods::Both, RC4), Err(MseError::UnknownTorrent));
    assert_eq!(answer(known, Methods::Both, 0), Err(MseError::NoMethod));
    assert_eq!(answer(known, Methods::OnlyRc4, PLAIN), Err(MseError::NoMethod));
    assert_eq!(answer(known, Methods::Both, PLAIN | 0x8000), Ok(Some(Method::Plain)));
    // The other side may choose only what was offered.
    for (chosen, fine) in [(PLAIN, false), (RC4, true), (0, false), (3, false)] {
        let mut a = begin(Methods::OnlyRc4, 0);
        let secret = shared_secret(&public(3), &[5; PRIVATE_BYTES]).unwrap();
        let mut sealed = ZEROS.to_vec();
        sealed.extend_from_slice(&u32::to_be_bytes(chosen));
        sealed.extend_from_slice(&[0; 2]);
        Cipher::new(b"keyB", &secret, &HASH).apply(&mut sealed);
        assert!(a.handle_bytes(&public(5), known).unwrap().is_none());
        let outcome = a.handle_bytes(&sealed, known).map(|done| done.is_some());
        assert_eq!(outcome, if fine { Ok(true) } else { Err(MseError::NoMethod) }, "{chosen}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p33_anything_at_all_is_refused_or_awaited(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..6),
        begins in any::<bool>(),
    ) {
        let mut side = if begins { begin(Methods::Both, 9) } else { accept(Methods::Both, 9) };
        for part in parts {
            match side.handle_bytes(&part, known) {
                Ok(done) => prop_assert!(done.is_none()),
                Err(_) => break,
            }
        }
    }
}
