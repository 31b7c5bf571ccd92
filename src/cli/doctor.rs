//! `troc doctor`: what this host allows, and the command that mends what it does not.

mod disk;
mod host;
mod network;

use serde::Serialize;

use crate::base::human::Escaped;
use crate::io::uring::probe::{self, Verdict};

use super::args::DoctorArgs;
use super::error::CliError;
use super::out;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, but slower or smaller than it could.
    Warn,
    /// `get` and `relay` will not work.
    Bad,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    level: Level,
    /// What was found.
    found: String,
    /// What it means and the command that mends it; none when all is well.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Ok, found: found.into(), remedy: None }
    }

    fn warn(name: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    fn bad(name: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Bad, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    fn line(&self) -> String {
        let mark = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Bad => "bad ",
        };
        let line = format!("{mark}  {:<16} {}", self.name, Escaped(&self.found));
        match &self.remedy {
            Some(remedy) => format!("{line}\n      {:<16} -> {remedy}", ""),
            None => line,
        }
    }
}

impl From<probe::Check> for Check {
    fn from(check: probe::Check) -> Self {
        let level = match check.verdict {
            Verdict::Ok => Level::Ok,
            Verdict::Warn => Level::Warn,
            Verdict::Bad => Level::Bad,
        };
        let remedy = Some(check.remedy).filter(|remedy| !remedy.is_empty());
        Self { name: check.name.to_owned(), level, found: check.detail, remedy }
    }
}

/// Prints every finding; fails if one of them is bad.
pub fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let mut checks = host::checks();
    checks.extend(probe::probe().into_iter().map(Check::from));
    checks.extend(network::checks());
    checks.extend(disk::checks(&args.dir));
    if args.json {
        let text = serde_json::json!({ "checks": checks }).to_string();
        out::line(&text)?;
    } else {
        checks.iter().try_for_each(|check| out::line(&check.line()))?;
    }
    let bad: Vec<&str> =
        checks.iter().filter(|check| check.level == Level::Bad).map(|check| check.name.as_str()).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!("this host does not allow it, {}: see the remedies above", bad.join(", "))))
}

/// The text of a small file of /proc or /sys, trimmed; `None` if there is none.
fn kernel_text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The whole numbers of such a file.
fn kernel_numbers(path: &str) -> Vec<u64> {
    let text = kernel_text(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
