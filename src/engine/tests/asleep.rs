//! Torrents that are not open: connections wait until they are, so many and so long and no more. Those for
//! links whose metadata is looked for are given away.

use super::*;
use crate::base::limits::{CONNECTIONS_PARKED_MAX, HANDSHAKE_TIMEOUT};
use crate::shared::sleepers::Sleepers;

const SLEEPING: InfoHash = InfoHash([9; 20]);
const ID: TorrentId = TorrentId(1);
const WANTED: Action = Action::Report(Report::Wanted { torrent: ID });

fn rig() -> Rig {
    let mut rig = Rig::new(3, true);
    let sleepers = Sleepers::new([[HASH], [SLEEPING]].into_iter());
    sleepers.note_closed(ID);
    rig.engine.set_sleepers(Arc::new(sleepers));
    rig
}

fn ask(rig: &mut Rig, info_hash: InfoHash) -> (ConnId, Admission) {
    let conn = rig.accept(&format!("127.0.0.1:{}", 10_000 + rig.conns));
    let admission = rig.engine.handle_handshake(conn, &Handshake::new(info_hash, THEIRS), rig.now);
    (conn, admission)
}

fn wake(rig: &mut Rig) -> Vec<ConnId> {
    rig.add(TorrentMeta { id: ID, ..TorrentMeta::plain(SLEEPING, 100_000, 16 << 10) }, true);
    rig.engine.take_parked(ID)
}

#[test]
fn connections_wait_for_a_torrent_that_is_asked_for_once() {
    let mut rig = rig();
    let (first, second) = (ask(&mut rig, SLEEPING), ask(&mut rig, SLEEPING));
    assert_eq!((first.1, second.1), (Admission::Later, Admission::Later));
    assert_eq!(ask(&mut rig, InfoHash([8; 20])).1, Admission::Refused, "nobody's torrent");
    rig.perform();
    assert_eq!(rig.done.iter().filter(|action| **action == WANTED).count(), 1);
    assert_eq!(wake(&mut rig), [first.0, second.0]);
    let again = rig.engine.handle_handshake(first.0, &Handshake::new(SLEEPING, THEIRS), rig.now);
    assert_eq!(again, Admission::Here);
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Here, "open from now on");
    assert_eq!(rig.engine.take_parked(ID), [], "each once");
}

#[test]
fn so_many_connections_wait_and_no_more_and_those_that_leave_make_room() {
    let mut rig = rig();
    let waiting: Vec<_> = (0..CONNECTIONS_PARKED_MAX).map(|_| ask(&mut rig, SLEEPING)).collect();
    assert!(waiting.iter().all(|(_, admission)| *admission == Admission::Later));
    let (beyond, admission) = ask(&mut rig, SLEEPING);
    assert_eq!(admission, Admission::Refused);
    rig.perform();
    assert!(rig.was_closed(beyond) && !rig.was_closed(waiting[0].0));
    rig.engine.handle_closed(waiting[0].0);
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Later);
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Refused);
    assert_eq!(wake(&mut rig).len(), CONNECTIONS_PARKED_MAX);
}

#[test]
fn a_torrent_that_never_comes_does_not_keep_its_connections() {
    let mut rig = rig();
    let (conn, _) = ask(&mut rig, SLEEPING);
    rig.pass(HANDSHAKE_TIMEOUT);
    assert!(rig.was_closed(conn));
    assert_eq!(wake(&mut rig), []);
}

#[test]
fn connections_for_a_link_are_given_to_who_looks_for_its_metadata_and_wait_once_it_is_found() {
    let mut rig = Rig::new(3, true);
    let sleepers = Arc::new(Sleepers::new([[HASH], [SLEEPING]].into_iter()));
    rig.engine.set_sleepers(Arc::clone(&sleepers));
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Refused, "nobody has begun to look for it");
    sleepers.note_sought(ID);
    let (conn, admission) = ask(&mut rig, SLEEPING);
    assert_eq!(admission, Admission::Elsewhere);
    let seek = Action::Seek { conn, torrent: ID };
    assert!(std::iter::from_fn(|| rig.engine.poll_action(rig.now)).any(|action| action == seek));
    rig.engine.forget(conn);
    let nameless = rig.accept("127.0.0.1:9");
    for named in [PeerId([0; 20]), OURS] {
        let theirs = Handshake::new(SLEEPING, named);
        assert_eq!(rig.engine.handle_handshake(nameless, &theirs, rig.now), Admission::Refused);
    }
    sleepers.note_closed(ID);
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Later);
    rig.engine.handle_stop();
    sleepers.note_sought(ID);
    assert_eq!(ask(&mut rig, SLEEPING).1, Admission::Refused);
}
