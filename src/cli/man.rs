//! `troc completions` and `troc man`: made from the same definition as `--help`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::error::CliError;
use super::out;

/// Prints the completion script of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "troc", &mut script);
    out::raw(&[&script])
}

/// Prints the manual page of the program, or writes those of all verbs too.
pub fn pages(args: &ManArgs) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| CliError::Failed(format!("cannot make the manual page: {error}")))?;
        return out::raw(&[&page]);
    };
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
        CliError::Failed(format!(
            "cannot write manual pages, {}: {error}: give --dir a directory that exists and can be written",
            dir.display()
        ))
    })
}
