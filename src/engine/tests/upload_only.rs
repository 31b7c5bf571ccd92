//! Whether we fetch anything, said on connections that are open (BEP 21).

use super::*;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake};

/// What `conn` is told of it.
fn told(rig: &mut Rig, conn: ConnId) -> Vec<bool> {
    let (bytes, _) = rig.read(conn);
    let said = frames(&bytes).into_iter().filter_map(|message| match message {
        Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => Some(payload),
        _ => None,
    });
    said.map(|payload| ExtensionHandshake::parse(payload).unwrap().upload_only).collect()
}

#[test]
fn a_peer_is_told_again_when_we_come_to_fetch_nothing_or_something_and_not_otherwise() {
    let mut rig = Rig::new(2, false);
    let conn = rig.peer(true);
    let deaf = rig.accept("127.0.0.1:9");
    assert_eq!(rig.engine.handle_handshake(deaf, &Handshake::new(HASH, THEIRS), rig.now), Admission::Here);
    rig.read(deaf);
    let pass = |rig: &mut Rig| {
        rig.pass(Span::from_secs(3));
        assert!(told(rig, deaf).is_empty(), "who does not know the extension protocol");
        told(rig, conn)
    };
    assert!(pass(&mut rig).is_empty());
    assert!(rig.shared.set_have(0));
    assert!(pass(&mut rig).is_empty(), "one is missing");
    assert!(rig.shared.set_have(1));
    assert_eq!(pass(&mut rig), [true]);
    assert!(pass(&mut rig).is_empty());
    assert!(rig.shared.clear_have(1));
    assert_eq!(pass(&mut rig), [false]);
    assert!(rig.is_open(conn));
}
