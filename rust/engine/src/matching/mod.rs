//! What an event is matched against.

pub(crate) mod channel;
pub mod index;
