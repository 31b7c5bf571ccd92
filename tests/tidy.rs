//! Style as a test: what ARCHITECTURE.md and CONTRIBUTING.md promise is checked here, file by file.
//!
//! The checks read text, not syntax: they rely on `cargo fmt` having been run. Each reports every place
//! at once, with what to do instead.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, tests included.
const FILE_LINES_MAX: usize = 600;
/// Longest function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest line in characters.
const COLUMNS_MAX: usize = 110;

/// Functions that may be longer, as `file: function`. Empty is how it should be.
const LONG_FUNCTIONS: &[&str] = &[];

/// Bottom-up: a layer imports itself and what stands before it, but for [`FORBIDDEN`].
const LAYERS: &[&str] =
    &["base", "proto", "hash", "storage", "shared", "engine", "io", "worker", "daemon", "cli", "sim"];

/// Imports that the order would allow: what is encoded, digested and planned knows values only, and the
/// kernel's layer does not know what a torrent is.
const FORBIDDEN: &[(&str, &[&str])] =
    &[("hash", &["proto"]), ("storage", &["proto", "hash"]), ("io", &["proto", "engine"])];

/// Layers without I/O, clocks, threads and locks.
const PURE: &[&str] = &["base", "proto", "hash", "storage", "engine"];
/// Layers whose code runs for every byte.
const DATA_PATH: &[&str] = &["shared", "engine", "io", "worker"];

/// What pure layers never name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::std",
    "thread::",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "rustix::",
    "libc::",
    "tokio",
    "socket2::",
    "getrandom",
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/io/", "src/hash/", "src/shared/", "src/worker/mesh.rs"];

/// One text file of the project.
struct Source {
    /// Below the project's directory, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The layer, for files in `src/<layer>`.
    fn layer(&self) -> Option<&str> {
        let layer = self.path.strip_prefix("src/")?.split('/').next()?;
        LAYERS.contains(&layer).then_some(layer)
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.contains("/tests")
    }

    /// Lines with their numbers, without comments, up to the test module at the end.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_end = |at: &usize| {
            let next = lines.get(at + 1).copied().unwrap_or_default();
            lines[*at] == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{')
        };
        let end = if self.is_test() { 0 } else { (0..lines.len()).find(is_end).unwrap_or(lines.len()) };
        lines.into_iter().take(end).enumerate().map(|(index, line)| (index + 1, code(line)))
    }
}

/// The line without its comment; a comment sign inside a string counts as none.
fn code(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dirs` whose name satisfies `wanted`, sorted.
fn sources(dirs: &[&str], wanted: fn(&str) -> bool) -> Vec<Source> {
    let mut pending: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let below = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else if wanted(&below) {
                // Not text: nothing that these checks are about.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                found.push(Source { path: below, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_sources() -> Vec<Source> {
    let found = sources(&["src", "tests", "benches"], |path| path.ends_with(".rs"));
    assert!(found.len() > 20, "the checks look at the wrong directory");
    found
}

/// Fails with every finding, one per line.
fn report(findings: &[String], remedy: &str) {
    assert!(findings.is_empty(), "{remedy}:\n  {}\n", findings.join("\n  "));
}

/// The layers that a line of code names behind `crate::` (or `troc::`), grouped imports included.
fn imports(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, prefix) in line.match_indices("crate::") {
        let rest = &line[at + prefix.len()..];
        let group = rest.strip_prefix('{').unwrap_or(rest);
        let mut depth = 0;
        let mut start = 0;
        for (index, char) in group.char_indices().chain([(group.len(), ',')]) {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth > 0 => {}
                ',' | ':' | ' ' | ';' | ')' | '(' | '<' | '>' => {
                    named.push(group[start..index].trim());
                    start = index + 1;
                    if group.len() == rest.len() {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    named.retain(|name| LAYERS.contains(name));
    named
}

fn may_import(layer: &str, other: &str) -> bool {
    let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let forbidden = FORBIDDEN.iter().any(|(from, to)| *from == layer && to.contains(&other));
    place(other) <= place(layer) && !forbidden
}

#[test]
fn layers_import_only_what_is_below_them() {
    let mut findings = Vec::new();
    for source in rust_sources().iter().filter(|source| source.layer().is_some()) {
        let layer = source.layer().unwrap();
        for (number, line) in source.production() {
            // The rule reads single lines.
            if line.trim_end().ends_with("crate::{") {
                findings.push(format!("{}:{number}: write one use per layer", source.path));
            }
            for other in imports(line).into_iter().filter(|other| !may_import(layer, other)) {
                findings.push(format!("{}:{number}: {layer} imports {other}", source.path));
            }
        }
    }
    report(&findings, "move the code up, or what it needs down (ARCHITECTURE.md, layers)");
}

#[test]
fn the_layer_rule_sees_grouped_and_inline_imports() {
    assert_eq!(imports("use crate::base::ids::{InfoHash, PeerId};"), ["base"]);
    assert_eq!(imports("use crate::{base::ids, engine::peer};"), ["base", "engine"]);
    assert_eq!(imports("use crate::{base::{ids, time}, io::Io};"), ["base", "io"]);
    assert_eq!(
        imports("let x: crate::io::Io = crate::shared::y(crate::cli::run());"),
        ["io", "shared", "cli"]
    );
    assert_eq!(imports("use std::io;"), [""; 0]);
    assert!(may_import("worker", "io") && may_import("cli", "cli") && may_import("engine", "shared"));
    assert!(!may_import("base", "proto") && !may_import("storage", "proto") && !may_import("io", "engine"));
}

#[test]
fn pure_layers_call_nothing_impure() {
    let mut findings = Vec::new();
    for source in rust_sources().iter().filter(|source| source.layer().is_some_and(|l| PURE.contains(&l))) {
        for (number, line) in source.production() {
            for call in IMPURE.iter().filter(|call| names(line, call)) {
                findings.push(format!("{}:{number}: {call}", source.path));
            }
        }
    }
    report(&findings, "take it as an argument: pure layers have no I/O, clocks or threads");
}

#[test]
fn the_data_path_has_no_locks() {
    let locks = ["Mutex", "RwLock", "Condvar"];
    let mut findings = Vec::new();
    for source in
        rust_sources().iter().filter(|source| source.layer().is_some_and(|l| DATA_PATH.contains(&l)))
    {
        for (number, line) in source.production() {
            for lock in locks.iter().filter(|lock| names(line, lock)) {
                findings.push(format!("{}:{number}: {lock}", source.path));
            }
        }
    }
    report(&findings, "use shared/ or a mesh lane: nothing waits for a lock on the data path");
}

/// Whether `line` has `word` at the start of a name.
fn names(line: &str, word: &str) -> bool {
    let starts = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| starts(at))
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut findings = Vec::new();
    for source in rust_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (number, line) in source.text.lines().zip(1..).map(|(line, number)| (number, line)) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                findings.push(format!("{}:{number}: {columns} columns, at most {COLUMNS_MAX}", source.path));
            }
        }
        for (name, number, length) in functions(&source.text) {
            let excepted = LONG_FUNCTIONS.contains(&format!("{}: {name}", source.path).as_str());
            if length > FUNCTION_LINES_MAX && !excepted {
                let place = format!("{}:{number}", source.path);
                findings.push(format!("{place}: fn {name} has {length} lines, at most {FUNCTION_LINES_MAX}"));
            }
        }
    }
    report(&findings, "split it");
}

/// Name, first line and length of every function of formatted code: its closing brace stands alone at
/// the indentation of its first line.
fn functions(text: &str) -> Vec<(&str, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let words: Vec<&str> = trimmed.split(' ').take_while(|word| *word != "fn").collect();
        let qualifiers = ["pub", "pub(super)", "pub(crate)", "const", "async", "unsafe", "extern"];
        let is_qualifier = |word: &&str| qualifiers.contains(word) || word.starts_with("pub(in");
        let Some(rest) = trimmed.split_once("fn ").map(|(_, rest)| rest) else { continue };
        if !words.iter().all(is_qualifier) || line.ends_with(['}', ';']) {
            continue;
        }
        let indent = &line[..line.len() - trimmed.len()];
        let closing = format!("{indent}}}");
        let signature = format!("{indent})");
        for (end, line) in lines.iter().enumerate().skip(start + 1) {
            // A trait's method without a body.
            if line.starts_with(&signature) && line.ends_with(';') {
                break;
            }
            if *line == closing {
                let name = rest.split(['(', '<']).next().unwrap_or(rest);
                found.push((name, start + 1, end - start + 1));
                break;
            }
        }
    }
    found
}

#[test]
fn the_length_of_a_function_is_counted_to_its_own_brace() {
    let text = [
        "fn a() {}",
        "impl X {",
        "    pub const fn b(",
        "        x: u8,",
        "    ) -> u8 {",
        "        if x {",
        "        }",
        "    }",
        "    fn c(",
        "        y: u8,",
        "    );",
        "}",
        "async fn d() {",
        "}",
        "let fn_e = 1;",
    ]
    .join("\n");
    let text = text.as_str();
    assert_eq!(functions(text), [("b", 3, 6), ("d", 13, 2)]);
}

#[test]
fn unsafe_is_where_it_may_be_and_says_why() {
    let mut findings = Vec::new();
    for source in rust_sources().iter().filter(|source| source.path != "tests/tidy.rs") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let is_use = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"]
                .iter()
                .any(|u| names(code(line), u));
            if !is_use {
                continue;
            }
            let place = format!("{}:{}", source.path, index + 1);
            if !UNSAFE.iter().any(|allowed| source.path.starts_with(allowed)) {
                findings.push(format!("{place}: unsafe outside {}", UNSAFE.join(", ")));
            }
            // The reason stands above the statement, or above the item and its documentation.
            let above = &lines[index.saturating_sub(12)..=index];
            if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                findings.push(format!("{place}: no SAFETY: comment above it"));
            }
        }
    }
    report(&findings, "use safe code, or give the reason why it is sound");
}

#[test]
fn nothing_is_left_over() {
    // In two parts each, so that this file is none of the findings.
    let markers = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("X", "XX"),
        concat!("HA", "CK"),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("/wo", "rk/"),
    ];
    let dirs = ["src", "tests", "benches", "scripts", "perf", ".ci"];
    let mut findings = Vec::new();
    for source in sources(&dirs, |path| !path.contains("/data/") && !path.contains("__pycache__")) {
        for (line, number) in source.text.lines().zip(1..) {
            for marker in markers.iter().filter(|marker| marks(line, marker)) {
                findings.push(format!("{}:{number}: {marker}", source.path));
            }
        }
    }
    report(&findings, "finish it or take it out");
}

/// Whether `line` has the marker; one of capitals as a whole word, since mktemp has templates like it.
fn marks(line: &str, marker: &str) -> bool {
    let is_word = marker.chars().all(|char| char.is_ascii_uppercase());
    let ends = |at: usize| !line[at + marker.len()..].starts_with(|c: char| c.is_alphanumeric());
    let starts = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
    line.match_indices(marker).any(|(at, _)| starts(at) && (!is_word || ends(at)))
}

#[test]
fn every_source_file_is_reachable() {
    let all: BTreeSet<String> =
        sources(&["src"], |path| path.ends_with(".rs")).into_iter().map(|source| source.path).collect();
    let mut reached = BTreeSet::new();
    let mut pending = vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for line in text.lines().map(str::trim) {
            let Some(name) =
                line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name)
            else {
                continue;
            };
            let dir = match path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix("/lib.rs")) {
                Some(dir) => dir,
                None => path.strip_suffix(".rs").unwrap_or(&path),
            };
            pending.extend([format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")]);
        }
        reached.insert(path);
    }
    let dead: Vec<String> = all.difference(&reached).cloned().collect();
    report(&dead, "add a mod line, or delete the file");
}

#[test]
fn every_script_explains_itself() {
    // Files with an ending are parts of scripts, not scripts.
    let scripts = sources(&["scripts", "perf"], |path| {
        !Path::new(path).file_name().unwrap().to_str().unwrap().contains('.')
    });
    let mute: Vec<String> =
        scripts.iter().filter(|script| !script.text.contains("--help")).map(|s| s.path.clone()).collect();
    report(&mute, "give it a --help");
}

/// The rows of docs/threats.md that a test's name begins with: `p9_p28_what_it_proves`.
fn hazards(name: &str) -> impl Iterator<Item = String> {
    let is_row = |word: &&str| {
        let number = word.strip_prefix(['d', 'e', 'n', 'p', 's', 't']).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.split('_').take_while(is_row).map(str::to_uppercase)
}

#[test]
fn the_table_of_hazards_has_the_rows_of_all_tests_and_names_tests_that_exist() {
    let table = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let sources = rust_sources();
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.text.lines())
        .filter_map(|line| {
            line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next()
        })
        .collect();
    let mut findings: Vec<String> = tests
        .iter()
        .flat_map(|name| hazards(name))
        .filter(|row| !rows.iter().any(|cells| cells[0] == row))
        .map(|row| format!("no row {row}"))
        .collect();
    for cells in rows.iter().filter(|cells| hazards(&cells[0].to_lowercase()).next().is_some()) {
        let name = cells.last().unwrap().trim_matches('`');
        if !tests.contains(name) || !hazards(name).any(|row| row == cells[0]) {
            findings.push(format!("{}: no test {name}", cells[0]));
        }
    }
    report(&findings, "keep docs/threats.md in step with the tests");
    assert_eq!(hazards("p9_p28_of_12_things").collect::<Vec<_>>(), ["P9", "P28"]);
    assert_eq!(hazards("t_1_prints_p2").next(), None);
}

#[test]
fn modules_and_formats_are_documented() {
    let mut findings = Vec::new();
    for source in rust_sources().iter().filter(|source| source.is_rust()) {
        let is_test_module = source.path.starts_with("src/") && source.path.contains("/tests");
        if !is_test_module && !source.text.starts_with("//! ") {
            findings.push(source.path.clone());
        }
    }
    report(&findings, "open the file with what it owns and what it never does (//! ...)");
}
