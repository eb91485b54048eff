//! What is counted by account.

pub mod quota;
pub mod revocation;
