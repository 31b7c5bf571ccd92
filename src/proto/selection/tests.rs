use Priority::{High, Low, Normal, Skip};

use super::*;

/// `t` with files `a.txt`, `sub/b.txt`, padding, `sub/deep/c.bin`, and an empty `sub/e`.
fn torrent() -> Metainfo {
    let file = |path: &str, length: u64, attr: &str| {
        let path: String = path.split('/').map(|name| format!("{}:{name}", name.len())).collect();
        format!("d{attr}6:lengthi{length}e4:pathl{path}ee")
    };
    let files = [
        file("a.txt", 10, ""),
        file("sub/b.txt", 20, ""),
        file(".pad/2", 2, "4:attr1:p"),
        file("sub/deep/c.bin", 30, ""),
        file("sub/e", 0, ""),
    ];
    parse(&format!("5:filesl{}e", files.concat()))
}

fn parse(files: &str) -> Metainfo {
    let pieces = "a".repeat(20);
    let bytes = format!("d4:infod{files}4:name1:t12:piece lengthi16384e6:pieces20:{pieces}ee");
    Metainfo::parse(bytes.as_bytes()).unwrap()
}

fn select(files: &[&str], exclude: &[&str], priorities: &[&str]) -> Result<Chosen, SelectionError> {
    let own = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    Selection::new(&own(files), &own(exclude), &own(priorities))?.choose(&torrent(), None)
}

fn files(patterns: &[&str]) -> Chosen {
    select(patterns, &[], &[]).unwrap()
}

#[test]
fn globs_are_of_the_path_below_the_name() {
    assert_eq!(files(&["*"]), Some(vec![Normal, Skip, Skip, Skip, Skip]), "within a component");
    assert_eq!(files(&["*.txt"]), Some(vec![Normal, Skip, Skip, Skip, Skip]));
    assert_eq!(files(&["**/*.txt"]), Some(vec![Normal, Normal, Skip, Skip, Skip]));
    assert_eq!(files(&["sub/*"]), Some(vec![Skip, Normal, Skip, Skip, Normal]));
    assert_eq!(files(&["sub/**"]), Some(vec![Skip, Normal, Skip, Normal, Normal]));
    assert_eq!(files(&["**/{c.bin,e}"]), Some(vec![Skip, Skip, Skip, Normal, Normal]));
    assert_eq!(files(&["sub/?.txt"]), Some(vec![Skip, Normal, Skip, Skip, Skip]));
    assert_eq!(files(&["a.txt", "3-4"]), Some(vec![Normal, Skip, Skip, Normal, Normal]));
    assert_eq!(files(&["**"]), None, "all alike is as nothing said, whatever is with padding");
}

#[test]
fn numbers_are_those_of_the_metainfo_and_padding_is_never_meant() {
    assert_eq!(files(&["3"]), Some(vec![Skip, Skip, Skip, Normal, Skip]));
    assert_eq!(files(&["0,2-3"]), Some(vec![Normal, Skip, Skip, Normal, Skip]));
    assert_eq!(files(&["1-4294967295"]), Some(vec![Skip, Normal, Skip, Normal, Normal]));
    assert!(matches!(select(&["2"], &[], &[]), Err(SelectionError::NoMatch { .. })));
    assert!(matches!(select(&["5"], &[], &[]), Err(SelectionError::NoMatch { .. })));
    assert_eq!(files(&["0-9"]), None);
}

#[test]
fn what_is_left_out_stays_out_and_later_priorities_win() {
    assert_eq!(select(&[], &["sub/**"], &[]), Ok(Some(vec![Normal, Skip, Skip, Skip, Skip])));
    let ranked = select(&["sub/**"], &["sub/e"], &["**=low", "**/*.bin=high", "a.txt=high"]);
    assert_eq!(ranked, Ok(Some(vec![Skip, Low, Skip, High, Skip])));
    let ranked = select(&[], &[], &["**=skip", "0=normal"]);
    assert_eq!(ranked, Ok(Some(vec![Normal, Skip, Skip, Skip, Skip])));
    assert_eq!(select(&[], &[], &["**=low", "**=normal"]), Ok(None));
    assert_eq!(select(&[], &[], &["3=high"]), Ok(Some(vec![Normal, Normal, Skip, High, Normal])));
}

#[test]
fn a_name_with_an_equals_sign_can_be_ranked() {
    let selection = Selection::new(&[], &[], &["a=b.txt=high".to_owned()]).unwrap();
    assert_eq!((&*selection.priorities[0].0.text, selection.priorities[0].1), ("a=b.txt", High));
}

#[test]
fn errors_are_one_line_and_say_what_there_is() {
    let text = |files: &[&str], exclude: &[&str], priorities: &[&str]| {
        let text = select(files, exclude, priorities).unwrap_err().to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert_eq!(
        text(&["*.mkv"], &[], &[]),
        "*.mkv matches no file of t: its files by number are 0 a.txt, 1 sub/b.txt, 3 sub/deep/c.bin, 4 sub/e \
         (troc show --files lists all)"
    );
    for name in ["sub", "sub/", "sub/deep"] {
        assert!(text(&[name], &[], &[]).contains("is a directory; write 'sub/"), "{name}");
    }
    assert!(text(&[], &["x"], &[]).starts_with("x matches no file"));
    assert!(text(&[], &[], &["x=low"]).starts_with("x matches no file"));
    assert!(text(&[], &["**"], &[]).starts_with("no file of t is wanted"));
    assert!(text(&[], &[], &["**=skip"]).starts_with("no file of t is wanted"));
    assert!(text(&["[z-a]"], &[], &[]).starts_with("bad pattern, [z-a]: "));
    assert!(text(&["{a"], &[], &[]).starts_with("bad pattern, {a: "));
    assert!(text(&[""], &[], &[]).starts_with("bad pattern, : "));
    assert!(text(&["3-1"], &[], &[]).starts_with("bad pattern, 3-1: "));
    for priority in ["a.txt", "a.txt=", "a.txt=urgent", "high"] {
        assert!(text(&[], &[], &[priority]).starts_with("bad priority, "), "{priority}");
    }
}

#[test]
fn t12_names_in_errors_are_escaped() {
    let metainfo = parse("5:filesld6:lengthi1e4:pathl5:\u{1b}[2Jxeee");
    let selection = Selection::new(&["nothing".to_owned()], &[], &[]).unwrap();
    let text = selection.choose(&metainfo, None).unwrap_err().to_string();
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn a_single_file_is_matched_by_its_name() {
    let single = parse("6:lengthi5e");
    let choose =
        |pattern: &str| Selection::new(&[pattern.to_owned()], &[], &[]).unwrap().choose(&single, None);
    for pattern in ["t", "*", "**", "0", "0-7"] {
        assert_eq!(choose(pattern), Ok(None), "{pattern}");
    }
    assert!(choose("u").is_err() && choose("1").is_err());
}

#[test]
fn bep53_a_link_counts_where_no_files_are_asked_for() {
    let named = FileRanges::parse("1,2,400").unwrap();
    let choose = |files: &[String]| Selection::new(files, &[], &[]).unwrap().choose(&torrent(), Some(&named));
    assert_eq!(choose(&[]), Ok(Some(vec![Skip, Normal, Skip, Skip, Skip])));
    assert_eq!(
        Selection::default().choose(&torrent(), Some(&named)),
        Ok(Some(vec![Skip, Normal, Skip, Skip, Skip]))
    );
    assert_eq!(choose(&["a.txt".to_owned()]), Ok(Some(vec![Normal, Skip, Skip, Skip, Skip])));
    let none = FileRanges::parse("2,400").unwrap();
    assert!((0..5).filter(|&file| none.contains(file)).eq([2]), "padding alone");
    assert!(matches!(
        Selection::default().choose(&torrent(), Some(&none)),
        Err(SelectionError::Nothing { .. })
    ));
}

#[test]
fn of_several_torrents_one_must_match_and_the_others_want_nothing() {
    let (many, single) = (torrent(), parse("6:lengthi5e"));
    let choose = |files: &[&str]| {
        let files: Vec<String> = files.iter().map(|&text| text.to_owned()).collect();
        Selection::new(&files, &[], &[]).unwrap().choose_all(&[&many, &single])
    };
    assert_eq!(choose(&[]), Ok(vec![None, None]));
    assert_eq!(choose(&["sub/e"]).unwrap()[1], Some(vec![Skip]));
    assert_eq!(choose(&["t"]).unwrap()[1], None);
    assert!(choose(&["t", "nowhere"]).is_err());
}

#[test]
fn an_error_shows_so_many_names_and_counts_the_rest() {
    for (count, more) in
        [(FILE_NAMES_SHOWN_MAX - 1, false), (FILE_NAMES_SHOWN_MAX, false), (FILE_NAMES_SHOWN_MAX + 1, true)]
    {
        let files: String = (0..count).map(|name| format!("d6:lengthi1e4:pathl1:{name}ee")).collect();
        let metainfo = parse(&format!("5:filesl{files}e"));
        let selection = Selection::new(&["nothing".to_owned()], &[], &[]).unwrap();
        let text = selection.choose(&metainfo, None).unwrap_err().to_string();
        assert_eq!(text.matches(", ").count() + 1, count.min(FILE_NAMES_SHOWN_MAX), "{text}");
        assert_eq!(text.contains(" and 1 more"), more, "{text}");
    }
}
