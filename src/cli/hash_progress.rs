//! Progress of `create` and `verify`: a bar on a terminal, JSON lines if asked for, else a line now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::base::human::{format_eta, format_percent, format_rate, format_size, format_took};

use super::{bar, out};

/// Between two lines of `--json`.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines for people without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Columns of the bar between its brackets.
const BAR_WIDTH: usize = 30;

/// How far along the reading of a known number of bytes is.
pub struct HashProgress {
    verb: &'static str,
    total_bytes: u64,
    done_bytes: u64,
    started: Instant,
    shown: Instant,
    form: Form,
}

enum Form {
    Json,
    Lines,
    Bar(ProgressBar),
}

impl HashProgress {
    /// `verb` is what goes on, such as "hashing".
    pub fn new(verb: &'static str, total_bytes: u64, json: bool) -> Self {
        let form = match json {
            true => Form::Json,
            false if io::stderr().is_terminal() => {
                let target = ProgressDrawTarget::stderr();
                Form::Bar(bar::plain(ProgressBar::with_draw_target(Some(total_bytes), target)))
            }
            false => Form::Lines,
        };
        let now = now();
        Self { verb, total_bytes, done_bytes: 0, started: now, shown: now, form }
    }

    /// `bytes` more are done.
    pub fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        let now = now();
        let interval = match &self.form {
            Form::Json => JSON_INTERVAL,
            Form::Lines => LINE_INTERVAL,
            Form::Bar(_) => BAR_INTERVAL,
        };
        if now - self.shown >= interval {
            self.shown = now;
            self.show();
        }
    }

    /// Takes the bar away; how long it took and the mean rate, as text.
    pub fn finish(self) -> (Duration, String) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
        let took = now() - self.started;
        (
            took,
            format!(
                "{} at {}",
                format_took(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
                format_rate(mean(self.done_bytes, took))
            ),
        )
    }

    fn show(&self) {
        let rate = mean(self.done_bytes, now() - self.started);
        let (done, total) = (self.done_bytes, self.total_bytes);
        let text = || {
            let eta = format_eta(total.saturating_sub(done), rate);
            format!("{} of {}  {}  ETA {eta}", format_size(done), format_size(total), format_rate(rate))
        };
        match &self.form {
            Form::Json => {
                let line = format!(r#"{{"done_bytes":{done},"total_bytes":{total},"rate":{rate}}}"#);
                drop(out::line(&line));
            }
            Form::Lines => {
                out::complain(&format!("{}: {}%  {}", self.verb, format_percent(done, total), text()));
            }
            Form::Bar(shown) => shown.set_message(bar::text(self.verb, done, total, BAR_WIDTH, &text())),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell of the program may read the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Bytes per second.
fn mean(bytes: u64, took: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / took.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_survive_no_time_at_all() {
        assert_eq!(mean(5, Duration::from_secs(2)), 2);
        assert_eq!(mean(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
