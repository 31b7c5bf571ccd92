//! The swarm laboratory: hundreds of nodes at the level of messages, in virtual time, with one seed.
//!
//! Nodes of ours are real engines with their schedulers, ledgers and pickers; beside them stand models of
//! other policies and of rule-breakers, which speak the same messages. No payload exists. Equal plan, equal
//! run.
//!
//! ```text
//! plan.rs       who is in a swarm              net.rs      links, connections, the clock
//! world.rs      the swarm, event by event      tally.rs    who gave how much to whom, and when
//! troc_node.rs  engines                        model.rs    a model node; store.rs, policy.rs
//! scenario/     what is measured, with bars    report.rs   figures and what they should be
//! ```

pub mod content;
pub mod model;
pub mod net;
pub mod plan;
pub mod policy;
pub mod report;
pub mod scenario;
pub mod store;
pub mod tally;
pub mod troc_node;
pub mod world;

pub use content::Content;
pub use net::Rates;
pub use plan::{Group, Home, Kind, Plan, Role, Stay};
pub use policy::{Policy, Rogue};
pub use report::{Bar, Figures, summary};
pub use scenario::{Scenario, Setup, Size};
pub use tally::{HostTally, Tally};
pub use world::{Swarm, run};
