//! A child process whose lines are events, ended when it goes out of scope.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use super::PATIENCE;

/// See the module.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: PathBuf,
}

impl Process {
    /// Starts `command`; its standard error goes to a file below `scratch`, shown when a test fails.
    pub fn spawn(name: &str, command: &mut Command, scratch: &Path) -> Self {
        std::fs::create_dir_all(scratch).expect("scratch directory");
        let errors = scratch.join(format!("{name}.stderr"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("file for standard error"))
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, lines, seen: Vec::new(), errors }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line for which `pick` has an answer, in order. Fails when the process ends before.
    pub fn expect_line<T>(&mut self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let answer = pick(&line);
                    self.seen.push(line);
                    if let Some(answer) = answer {
                        return answer;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("waited {PATIENCE:?} for {what}")),
                Err(RecvTimeoutError::Disconnected) => self.fail(&format!("ended before {what}")),
            }
        }
    }

    /// The next line, or `None` when the process has closed its standard output.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("said nothing for too long"),
        }
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        let said = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        if let Err(error) = said {
            self.fail(&format!("does not listen: {error}"));
        }
    }

    /// Waits for the end; the rest of its lines are kept.
    pub fn wait(&mut self) -> ExitStatus {
        while self.next_line().is_some() {}
        self.child.wait().expect("a child can be waited for")
    }

    /// Waits for the end and requires status 0.
    pub fn expect_success(&mut self) {
        let status = self.wait();
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// The kernel's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to end, as Ctrl-C or an init system does.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child can be signalled");
    }

    /// All lines so far.
    pub fn lines(&self) -> &[String] {
        &self.seen
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// Fails the test with all that is known.
    pub fn fail(&self, why: &str) -> ! {
        let tail = |text: &[String]| text[text.len().saturating_sub(8)..].join("\n");
        let errors: Vec<String> = self.errors().lines().map(str::to_owned).collect();
        panic!("{} {why}\n-- last output:\n{}\n-- errors:\n{}", self.name, tail(&self.seen), tail(&errors));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended: both say so, and there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
