//! What `troc peers` and `troc ledger` have in common: the question to all running nodes of a state
//! directory, and how their answers are printed.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::base::human::format_duration;
use crate::daemon::explain::{NodeHead, Question, Subject, VERSION};
use crate::daemon::socket::client::ask_all;

use super::args::AskArgs;
use super::error::CliError;
use super::node::state_dir_here;
use super::out;

/// Asks about `subject`, and prints each answer by `show`, or all of them as one JSON object.
pub fn run<D: DeserializeOwned>(
    args: &AskArgs,
    subject: Subject,
    show: impl Fn(&D) -> String,
) -> Result<(), CliError> {
    let dir = state_dir_here(args.state.as_deref())?;
    let question = Question::new(subject, args.top as usize);
    let (answers, failures) =
        ask_all(&dir, &question).map_err(|error| CliError::Failed(error.to_string()))?;
    failures.iter().for_each(|failure| out::warn(&failure.to_string()));
    if args.json {
        return out::line(&json!({ "nodes": answers }).to_string());
    }
    let texts = answers.into_iter().map(|answer| Ok(show(&read(answer)?)));
    out::line(texts.collect::<Result<Vec<_>, CliError>>()?.join("\n").trim_end())
}

/// An answer in the shape that this version knows.
fn read<D: DeserializeOwned>(answer: Value) -> Result<D, CliError> {
    serde_json::from_value(answer).map_err(|error| {
        let text =
            format!("an answer that is not of version {VERSION}, {error}: use the troc that runs the node");
        CliError::Failed(text)
    })
}

/// The line above a node's table: `said` of it, and how many rows are left out.
pub fn heading(node: NodeHead, said: &str, rows: usize, all: u64) -> String {
    let uptime = format_duration(node.uptime_ns / 1_000_000_000);
    let left_out = all.saturating_sub(rows as u64);
    let more = if left_out > 0 { format!("; {left_out} more with a larger --top") } else { String::new() };
    format!("node {}, up {uptime}: {said}{more}\n", node.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::explain::PeersDocument;

    #[test]
    fn a_heading_names_the_node_and_says_what_is_left_out() {
        let node = NodeHead { version: VERSION, pid: 7, uptime_ns: 65_000_000_000 };
        assert_eq!(heading(node, "3 peers", 3, 3), "node 7, up 1m 05s: 3 peers\n");
        let text = heading(node, "30 peers", 20, 30);
        assert_eq!(text, "node 7, up 1m 05s: 30 peers; 10 more with a larger --top\n");
    }

    #[test]
    fn an_answer_of_another_shape_is_one_line() {
        for answer in [json!([]), json!({"version": 1, "pid": 1, "uptime_ns": 1, "peers": "none"})] {
            let line = read::<PeersDocument>(answer).unwrap_err().line();
            assert!(line.contains("version 1") && !line.contains('\n'), "{line}");
        }
    }
}
