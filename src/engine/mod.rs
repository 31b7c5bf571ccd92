//! Decisions: sans-io state machines, one instance per core.

pub mod announcer;
