//! Where bytes live: layout, read and write plans, durability, journal. Pure planning.

pub mod layout;
pub mod plan;
