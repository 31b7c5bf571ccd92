//! Extension handshakes and proofs of identity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::proto::wire::extension::ExtensionHandshake;
use troc::proto::wire::identity::IdentityMessage;

fuzz_target!(|payload: &[u8]| {
    let _ = IdentityMessage::parse(payload);
    let Ok(theirs) = ExtensionHandshake::parse(payload) else { return };
    // Their version is escaped when it is read, for whoever prints it, and never written.
    let theirs = ExtensionHandshake { version: None, ..theirs };
    let mut out = Vec::new();
    theirs.encode(&mut out);
    assert_eq!(ExtensionHandshake::parse(&out).as_ref(), Ok(&theirs));
});
