//! Where bytes live: layout, read and write plans, durability, journal. Pure planning.

pub mod durability;
pub mod journal;
pub mod layout;
pub mod plan;
pub mod resume;
