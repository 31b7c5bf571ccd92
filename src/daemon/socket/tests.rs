use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != LOCK_NAME)
        .collect();
    names.sort_unstable();
    names
}

/// What a process leaves that is killed.
fn leave_behind(dir: &Path, name: &str) {
    drop(listen(dir, name).unwrap());
    assert!(!is_live(&dir.join(name)));
}

#[test]
fn a_socket_is_for_its_user_alone_and_goes_with_its_node() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = ControlSocket::open_as(dir.path(), 7).unwrap();
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("control-7.sock"), mode(LOCK_NAME)), (0o600, 0o600));
    assert!(is_live(&dir.path().join("control-7.sock")));
    drop(socket);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn what_dead_processes_left_is_cleared_away_and_live_ones_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let other = ControlSocket::open_as(dir.path(), 1).unwrap();
    leave_behind(dir.path(), "control-7.sock");
    leave_behind(dir.path(), "control-9.sock");
    let own = ControlSocket::open_as(dir.path(), 7).unwrap();
    assert_eq!(names(dir.path()), ["control-1.sock", "control-7.sock"]);
    assert!([&own, &other].into_iter().all(|socket| is_live(&socket.path)));
}

#[test]
fn two_processes_of_one_id_in_two_namespaces_have_two_names() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = [(); 3].map(|()| ControlSocket::open_as(dir.path(), 1).unwrap());
    assert_eq!(names(dir.path()), ["control-1-1.sock", "control-1-2.sock", "control-1.sock"]);
    assert!(sockets.iter().all(|socket| is_live(&socket.path)));
}

#[test]
fn no_more_sockets_of_one_id_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut sockets: Vec<ControlSocket> =
        (0..CONTROL_SOCKETS_PER_PID_MAX).map(|_| ControlSocket::open_as(dir.path(), 1).unwrap()).collect();
    let error = ControlSocket::open_as(dir.path(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(sockets.pop());
    assert!(ControlSocket::open_as(dir.path(), 1).is_ok());
}

#[test]
fn a_node_that_does_not_answer_keeps_its_name_and_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let _stuck = ControlSocket::open_as(dir.path(), 1).unwrap();
    // More than its queue holds: a blocking connect would wait now.
    let path = dir.path().join("control-1.sock");
    let queue: Vec<_> =
        (0..2 * CONTROL_CONNECTIONS_MAX).map(|_| client::connect(&path, Patience::None)).collect();
    assert!(queue.iter().any(|connection| connection.is_err()), "it is full");
    assert!(is_live(&path));
    let _other = ControlSocket::open_as(dir.path(), 7).unwrap();
    assert_eq!(names(dir.path()), ["control-1.sock", "control-7.sock"]);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("control-7.sock"), b"somebody's").unwrap();
    std::fs::write(dir.path().join("elsewhere"), b"somebody's").unwrap();
    symlink("elsewhere", dir.path().join("control-8.sock")).unwrap();
    let _socket = ControlSocket::open_as(dir.path(), 7).unwrap();
    let all = ["control-7-1.sock", "control-7.sock", "control-8.sock", "elsewhere"];
    assert_eq!(names(dir.path()), all);
    assert_eq!(std::fs::read(dir.path().join("control-7.sock")).unwrap(), b"somebody's");
}

#[test]
fn a_path_as_long_as_the_limit_and_longer_ones_are_reached() {
    let root = tempfile::tempdir().unwrap();
    let name = "control-7.sock";
    let longest = PATH_BYTES_MAX - name.len() - root.path().as_os_str().len() - 2;
    for length in [longest - 1, longest, longest + 1, 200] {
        let dir = root.path().join("d".repeat(length));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join(name);
        let _socket = ControlSocket::open_as(&dir, 7).unwrap();
        assert_eq!(names(&dir), [name], "{length}");
        assert!(is_live(&path), "{length}");
        let fits = path.as_os_str().len() <= PATH_BYTES_MAX;
        assert_eq!(fits, length <= longest);
        assert_eq!(reachable(&dir, name).unwrap().1.is_none(), fits);
    }
}

#[test]
fn a_directory_without_nodes_is_one_line_that_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let question = Question::new(crate::daemon::explain::Subject::Peers, 1);
    leave_behind(dir.path(), "control-7.sock");
    for dir in [dir.path().to_owned(), dir.path().join("missing")] {
        let text = client::ask_all(&dir, &question).unwrap_err().to_string();
        assert!(text.contains("troc relay") && text.contains("--state") && !text.contains('\n'), "{text}");
    }
}
