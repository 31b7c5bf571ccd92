use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn p30_so_many_who_came_wait_to_be_taken_and_others_are_hung_up_on() {
    for came in
        [METADATA_CALLERS_QUEUED_MAX - 1, METADATA_CALLERS_QUEUED_MAX, METADATA_CALLERS_QUEUED_MAX + 1]
    {
        let (give, mut take) = callers();
        let give_one = |_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let address = SocketAddr::from(([8, 8, 8, 8], 1));
            let socket = UringSocket::new(OwnedFd::from(ours));
            give(TorrentId(0), Caller { socket, address, heard: Vec::new() });
            theirs
        };
        let mut ends: Vec<UnixStream> = (0..came).map(give_one).collect();
        let taken: Vec<Called> = std::iter::from_fn(|| take.try_recv().ok()).collect();
        assert_eq!(taken.len(), came.min(METADATA_CALLERS_QUEUED_MAX));
        let beyond = ends.split_off(taken.len());
        assert!(beyond.into_iter().all(|mut end| end.read(&mut [0]).unwrap() == 0), "its end is closed");
    }
}

#[test]
fn who_may_still_be_connected_comes_by_a_new_name_and_without_a_home() {
    let calls = [(); 2].map(|()| Call::once_more(InfoHash([1; 20])).unwrap());
    assert_ne!(calls[0].peer_id, calls[1].peer_id, "one name for both would make the second a duplicate");
    assert!(calls.iter().all(|call| call.port.is_none()), "so would one port, by which a relay knows a home");
}
