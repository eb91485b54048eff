//! The way of an event: published on a bus, matched by an index, authorised, resolved once, projected to bytes, delivered to mailboxes.
//!
//! The engine knows no Python and no HTTP. In reading order: [`value`], [`event`], [`error`], [`limits`], [`security`].

pub mod error;
pub mod event;
pub mod limits;
pub mod protocol;
pub mod security;
pub mod value;
