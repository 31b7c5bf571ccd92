//! What the documents say is looked up. README.md: its command blocks are run here, each in a directory of
//! its own, and the flags, messages and files that it names exist. ARCHITECTURE.md: so do its names.
//!
//! - `sh (run)` blocks are run as they are, `console` blocks by the lines that begin with `$ `; both must end
//!   with status 0. Every block starts in an empty directory. Ports and sizes are exchanged for a port of
//!   the kernel's choice and a few MiB.
//! - `bash` blocks need root or a build; only their syntax and what they name is checked.
//! - `ini` and `text` blocks are files and output.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TROC: &str = env!("CARGO_BIN_EXE_troc");

/// The port that README shows, with its address.
const SHOWN_ADDRESS: &str = "127.0.0.1:6881";
/// The same of its tracker.
const SHOWN_TRACKER: &str = "127.0.0.1:6969";
/// The size that README shows in its recorded session, and what is enough here.
const SIZES: (&str, &str) = ("head -c 1G", "head -c 4M");

/// One fenced block.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for (line, number) in text.lines().zip(1..) {
        match line.strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                found.push(Block { language: language.to_owned(), line: number, text: String::new() });
            }
            Some(_) => inside = false,
            None if inside => {
                let block = found.last_mut().expect("a block is open");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!inside, "the last block is not closed");
    found
}

/// The shell lines of a block that is to be run.
fn script(block: &Block) -> Option<String> {
    match block.language.as_str() {
        "sh (run)" => Some(block.text.clone()),
        "console" => Some(
            block
                .text
                .lines()
                .filter_map(|line| line.strip_prefix("$ "))
                .map(|line| format!("{line}\n"))
                .collect(),
        ),
        "bash" | "ini" | "text" => None,
        other => panic!("README.md:{}: what is to be done with a block of {other:?}?", block.line),
    }
}

/// An address on which nobody listens now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").to_string()
}

/// Runs a script in an empty directory of its own; what it started in the background ends with it.
fn run(block: &Block, script: &str) {
    let home = tempfile::tempdir().expect("temporary directory");
    let work = home.path().join("work");
    std::fs::create_dir(&work).expect("work directory");
    let script = script.replace(SHOWN_ADDRESS, &free_address()).replace(SIZES.0, SIZES.1);
    let script = script.replace(SHOWN_TRACKER, &free_address());
    let bin = Path::new(TROC).parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("set -euo pipefail -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"),
        ])
        .current_dir(&work)
        .env("PATH", format!("{bin}:{path}"))
        .env("HOME", home.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("TROC_STATE")
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .expect("bash");
    assert!(
        output.status.success(),
        "README.md:{}: {}\n{script}\n--- stdout\n{}--- stderr\n{}",
        block.line,
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

#[test]
fn commands_of_the_readme_run() {
    let mut count = 0;
    for block in blocks(&readme()) {
        if let Some(script) = script(&block) {
            run(&block, &script);
            count += 1;
        }
    }
    assert!(count >= 3, "{count} blocks were run: are they marked?");
}

#[test]
fn commands_that_are_not_run_are_at_least_shell_and_name_what_exists() {
    for block in blocks(&readme()).into_iter().filter(|block| block.language == "bash") {
        let checked = Command::new("bash").args(["-n", "-c", &block.text]).status().expect("bash");
        assert!(checked.success(), "README.md:{}: {}", block.line, block.text);
        for word in block.text.split_whitespace().filter(|word| word.starts_with("scripts/")) {
            assert!(root().join(word).is_file(), "README.md:{}: no {word}", block.line);
        }
    }
}

fn output_of(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it starts");
    assert!(output.status.success(), "{} {words:?}: {}", program.display(), output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn help(verb: &[&str]) -> String {
    output_of(Path::new(TROC), &[verb, &["--help"]].concat())
}

/// Long flags of a text: two dashes and a word.
fn flags(text: &str) -> Vec<&str> {
    let is_flag =
        |word: &&str| word.strip_prefix("--").is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    text.split(|c: char| !(c.is_alphanumeric() || c == '-')).filter(is_flag).collect()
}

/// The verbs with two words.
fn verb<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().take(if words.first() == Some(&"bench") { 2 } else { 1 }).collect()
}

#[test]
fn every_verb_and_flag_of_the_readme_is_in_the_help() {
    let mut helps: BTreeMap<Vec<&str>, String> = BTreeMap::new();
    let text = readme();
    let blocks = blocks(&text);
    let lines =
        blocks.iter().flat_map(|block| block.text.lines()).filter(|line| !line.trim().starts_with('#'));
    let mut seen = 0;
    for line in lines {
        for (at, name) in line.match_indices("troc ") {
            let starts = line[..at].chars().next_back().is_none_or(|c| c == ' ' || c == '/');
            let command = line[at + name.len()..].split([';', '|', '&', '>', '\'']).next().unwrap_or("");
            let words: Vec<&str> = command.split_whitespace().collect();
            let is_verb = words.first().is_some_and(|word| word.chars().all(char::is_alphabetic));
            if !starts || !is_verb || line.contains("Description=") {
                continue;
            }
            let verb = verb(&words);
            let help = helps.entry(verb.clone()).or_insert_with(|| help(&verb));
            for flag in flags(command) {
                assert!(help.contains(flag), "troc {} has no {flag}: {line}", verb.join(" "));
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "{seen} flags seen");
    for verb in [
        "create",
        "show",
        "get",
        "relay",
        "tracker",
        "verify",
        "peers",
        "ledger",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(helps.contains_key(&vec![verb]), "README shows no `troc {verb}`");
    }
}

/// Text in single backticks.
fn inline_code(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn flags_in_the_prose_exist_somewhere() {
    let verbs: &[&[&str]] = &[
        &["create"],
        &["show"],
        &["get"],
        &["relay"],
        &["tracker"],
        &["verify"],
        &["peers"],
        &["ledger"],
        &["doctor"],
        &["bench", "leech"],
        &["bench", "seed"],
        &["bench", "storm"],
        &["bench", "hash"],
    ];
    let mut known: String = verbs.iter().map(|verb| help(verb)).collect();
    for script in ["quickstart", "test", "setup", "load-serve", "swarm"] {
        known += &output_of(&root().join("scripts").join(script), &["--help"]);
    }
    let text = readme();
    // Another program's.
    let foreign = ["--security-opt"];
    for code in inline_code(&text) {
        for flag in flags(code).into_iter().filter(|flag| !foreign.contains(flag)) {
            assert!(known.contains(flag), "nothing has {flag}");
        }
    }
}

/// All files below src.
fn source_files() -> Vec<PathBuf> {
    let mut pending = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).expect("src").flatten() {
            let path = entry.path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found
}

/// All source in one line, so that a message that is wrapped in the source is found.
fn source() -> String {
    let files = source_files();
    let all: String = files.iter().map(|path| std::fs::read_to_string(path).expect("text")).collect();
    all.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn messages_that_the_readme_explains_are_those_of_the_program() {
    let text = readme();
    let source = source();
    let table =
        text.split("| message |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("the table");
    let mut count = 0;
    for row in table.lines().skip(2) {
        let message = row.split('|').nth(1).expect("a cell");
        for part in message.split('`').skip(1).step_by(2) {
            assert!(source.contains(part), "no message has {part:?}");
            count += 1;
        }
    }
    assert!(count > 10, "{count} messages");
}

#[test]
fn names_in_the_architecture_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (source, files, mut count) = (source(), source_files(), 0);
    for code in inline_code(&text) {
        // A function, type or variant: the last part of its path; everything else is prose.
        let name = code.rsplit("::").next().unwrap_or(code);
        let is_name = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == '_');
        // Names in capitals are the kernel's.
        let is_ours = (code.contains("::") || code.contains('_')) && code.contains(char::is_lowercase);
        if is_ours && is_name(name) && code.split("::").all(is_name) {
            assert!(source.contains(name), "ARCHITECTURE.md names {code}, which is not in src");
            count += 1;
        }
        if code.ends_with(".rs") && !code.contains('*') {
            let exists = files.iter().any(|path| path.ends_with(code))
                || ["", "tests"].iter().any(|dir| root().join(dir).join(code).is_file());
            assert!(exists, "ARCHITECTURE.md names {code}, which is not there");
        }
    }
    assert!(count > 40, "{count} names");
}

#[test]
fn blocks_are_found_with_their_language_and_lines() {
    let text = "a\n```sh (run)\necho 1\n```\n```console\n$ echo 2\n2\n$ echo 3\n```\n";
    let blocks = blocks(text);
    let scripts: Vec<_> = blocks.iter().map(|block| (block.line, script(block).unwrap())).collect();
    assert_eq!(scripts, [(2, "echo 1\n".to_owned()), (5, "echo 2\necho 3\n".to_owned())]);
    assert_eq!(flags("get --peer A --no-dht, -o x -- --1 a--b"), ["--peer", "--no-dht"]);
}
