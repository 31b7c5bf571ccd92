//! The human: arguments, and one file per verb.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage. Every error is one line on standard error:
//! `troc: what, where: how to mend it`.

pub mod args;
mod ask;
mod bar;
pub mod bench;
mod create;
mod doctor;
mod error;
mod file_progress;
mod get;
mod hash_progress;
mod ledger;
mod man;
mod node;
mod out;
mod peer_sources;
mod peers;
mod progress;
mod relay;
mod scrape;
pub mod select;
mod show;
mod source;
mod table;
mod tracker;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use args::{Cli, Verb};
use error::CliError;

/// Does what the words of a command line say, the program's name first.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    let result = match Cli::try_parse_from(&words) {
        Ok(cli) => {
            log_to_stderr(&cli.verb);
            dispatch(cli.verb)
        }
        Err(error) => explain(&error, &verb_of(&words)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&error.line());
            ExitCode::from(error.exit_status())
        }
    }
}

fn dispatch(verb: Verb) -> Result<(), CliError> {
    match verb {
        Verb::Create(args) => create::run(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Get(args) => get::run(&args),
        Verb::Relay(args) => relay::run(&args),
        Verb::Tracker(args) => tracker::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Peers(args) => peers::run(&args),
        Verb::Ledger(args) => ledger::run(&args),
        Verb::Bench(args) => Ok(bench::run(args)?),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Completions(args) => man::completions(&args),
        Verb::Man(args) => man::pages(&args),
    }
}

/// `troc`, and of what follows all that names a verb, such as `troc bench seed`.
fn verb_of(words: &[OsString]) -> String {
    let (mut command, mut named) = (Cli::command(), "troc".to_owned());
    for word in words.iter().skip(1) {
        let Some(found) = command.find_subcommand(word).cloned() else { break };
        named = format!("{named} {}", found.get_name());
        command = found;
    }
    named
}

/// Help and version are no errors; what remains of an error is its first paragraph, in one line.
fn explain(error: &clap::Error, verb: &str) -> Result<(), CliError> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => out::raw(&[text.as_bytes()]),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(CliError::Usage(format!("no verb given: see {verb} --help")))
        }
        _ => {
            let about = text.lines().take_while(|line| !line.starts_with("Usage:"));
            let about = about.take_while(|line| !line.starts_with("For more information"));
            let words: Vec<&str> = about.flat_map(str::split_whitespace).collect();
            let line = words.join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line).trim_end_matches('.');
            Err(CliError::Usage(format!("{line}: see {verb} --help")))
        }
    }
}

/// Warnings, or what the environment variable TROC_LOG asks for, such as `info` or `troc::daemon=debug`. What
/// `doctor` tries and fails at is what it prints: no log has to say it first.
fn log_to_stderr(verb: &Verb) {
    let default = if matches!(verb, Verb::Doctor(_)) { "error" } else { "warn" };
    let filter = EnvFilter::try_from_env("TROC_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // As https://no-color.org has it: set to anything but nothing.
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()) && !is_plain)
        .with_writer(|| out::Log);
    // Fails only if there is one already, as in tests.
    let _ = subscriber.try_init();
}
