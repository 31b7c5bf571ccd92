//! Where bytes live: layout, read and write plans, durability, journal, ledger. Pure planning.

pub mod durability;
mod frame;
pub mod journal;
pub mod layout;
pub mod ledger;
pub mod parts;
pub mod plan;
pub mod resume;
pub mod wanted;
