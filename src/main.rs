//! The `troc` binary: parse, run, exit code.
fn main() {}
