//! The human: arguments, and one file per verb.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage. Every error is one line on standard error:
//! `troc: what, where: how to mend it`.

pub mod args;
mod ask;
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

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use args::{Cli, Verb};
use error::CliError;

/// Does what the words of a command line say, the program's name first.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let result = match Cli::try_parse_from(words) {
        Ok(cli) => {
            log_to_stderr();
            dispatch(cli.verb)
        }
        Err(error) => explain(&error),
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

/// Help and version are no errors; what remains of an error is its first paragraph, in one line.
fn explain(error: &clap::Error) -> Result<(), CliError> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => out::raw(&[text.as_bytes()]),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(CliError::Usage("no verb given: see troc --help".to_owned()))
        }
        _ => {
            let about = text.lines().take_while(|line| !line.starts_with("Usage:"));
            let about = about.take_while(|line| !line.starts_with("For more information"));
            let words: Vec<&str> = about.flat_map(str::split_whitespace).collect();
            let line = words.join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line).trim_end_matches('.');
            Err(CliError::Usage(format!("{line}: see troc --help")))
        }
    }
}

/// Warnings, or what the environment variable TROC_LOG asks for, such as `info` or `troc::daemon=debug`.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("TROC_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    // Fails only if there is one already, as in tests.
    let _ = subscriber.try_init();
}
