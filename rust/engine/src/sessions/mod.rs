//! Those who read.

pub mod connection;
pub mod protocol;
pub mod stream;
