//! Who hears of an event.

pub(crate) mod catch_up;
pub mod group;
pub mod mailbox;
pub(crate) mod past;
pub mod resolver;
pub mod subscription;
pub(crate) mod topics;
