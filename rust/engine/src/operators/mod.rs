//! What operators read: figures (`metrics`) and the audit trail. In comes what has happened; out go numbers and records. Nothing of it
//! reaches a client, and nothing here decides.
//!
//! It uses viewers, the rates of accounts, and the status of the bus.

pub mod audit;
mod metrics;

pub use metrics::{Counted, DropReason, Ended, Metrics, Queued};
