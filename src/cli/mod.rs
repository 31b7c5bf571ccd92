//! The human: arguments, and one file per verb.

pub mod bench;
