//! What operators read: figures (`metrics`), the audit trail, and what is told once (`told`). In comes what has happened; out go numbers,
//! records and lines of a log. Nothing of it
//! reaches a client, and nothing here decides.
//!
//! It uses viewers, events and what declarations name of them, the rates of accounts, and the status of the bus.

pub mod audit;
mod metrics;
mod told;

pub use metrics::{Counted, DropReason, Ended, Metrics};
pub use told::Told;
