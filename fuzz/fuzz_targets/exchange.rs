//! Extension messages: peers that are named, holes to be punched, metadata.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::proto::wire::holepunch::PunchMessage;
use troc::proto::wire::metadata::MetadataMessage;
use troc::proto::wire::pex::PexMessage;

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = PexMessage::parse(payload) {
        assert_eq!(PexMessage::parse(&message.encode()).as_ref(), Ok(&message));
    }
    if let Some(message) = PunchMessage::parse(payload) {
        assert_eq!(PunchMessage::parse(&message.encode()).as_ref(), Some(&message));
    }
    if let Ok(Some(message)) = MetadataMessage::parse(payload) {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(MetadataMessage::parse(&out), Ok(Some(message)));
    }
});
