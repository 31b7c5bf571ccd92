//! `scripts/bench-gate` counts one case and compares it with counts that are the same, lower and higher.

#![allow(clippy::disallowed_methods, reason = "the script is a process")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::skip;

/// One case, quickly counted, and a name that no other contains.
const CASE: &str = "slots/look-up";

/// Runs the script on the build that the tests use.
fn gate(counts: &Path, args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("scripts/bench-gate"));
    // What cargo tells its tests is not for the cargo that the script calls: crates would be built anew.
    let told = |name: &str| name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name);
    for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
        command.env_remove(name);
    }
    command.args(["--profile", "ci", "--only", CASE, "--counts"]).arg(counts).args(args);
    command.output().expect("scripts/bench-gate starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_case_that_got_worse_fails_the_gate_and_one_that_did_not_passes() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("scripts/bench-gate", "valgrind is not installed");
    }
    let scratch = tempfile::tempdir().expect("scratch directory");
    let counts = scratch.path().join("counts.txt");
    let none = gate(&counts, &[]);
    assert!(!none.status.success() && text(&none).contains("--update"), "{}", text(&none));

    let written = gate(&counts, &["--update"]);
    assert!(written.status.success(), "{}", text(&written));
    let table = std::fs::read_to_string(&counts).expect("counts were written");
    let row = table.lines().find(|line| line.starts_with(CASE)).expect("the case has a row");
    let count: u64 = row.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a count");
    assert!(count > 1000, "a thousand look-ups take {count} instructions");

    // Exactly the same again, then with a limit of 3 %, of which the row is just within and beyond.
    for (committed, verdict, passes) in [
        (count, "+0.00%", true),
        (count * 100 / 102, "+2.0", true),
        (count * 100 / 104, "WORSE", false),
        (count * 100 / 90, "better", true),
    ] {
        std::fs::write(&counts, table.replace(&count.to_string(), &committed.to_string())).expect("written");
        let compared = gate(&counts, &[]);
        let said = text(&compared);
        assert_eq!(compared.status.success(), passes, "{committed} committed: {said}");
        assert!(said.lines().any(|line| line.starts_with(CASE) && line.contains(verdict)), "{said}");
        assert!(!said.contains("note:"), "made with the same tools: {said}");
    }
}
