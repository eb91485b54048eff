//! What operators read.

pub mod audit;
pub mod metrics;
