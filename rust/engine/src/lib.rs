//! The way of an event: published on a bus, matched by an index, authorised, resolved once, projected to bytes, delivered to mailboxes.
//!
//! The engine knows no Python and no HTTP. The modules, in reading order: what travels ([`value`], [`event`], [`error`]), what is
//! asked for ([`schema`], [`coerce`], [`operation`], [`plan`], [`predicate`]), who may ([`security`], [`admission`], [`limits`]), the way
//! itself ([`bus`], [`engine`], [`index`], [`group`], [`resolver`], [`project`], [`mailbox`]), and those who read ([`stream`], [`connection`], [`protocol`]).

pub mod admission;
pub mod audit;
pub mod bus;
mod catch_up;
mod channel;
pub mod coerce;
pub mod connection;
mod document;
pub mod engine;
pub mod error;
pub mod event;
pub mod group;
pub mod index;
mod introspection;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod operation;
mod past;
pub mod plan;
pub mod predicate;
pub mod project;
pub mod protocol;
pub mod quota;
pub mod resolver;
pub mod revocation;
mod scalar;
pub mod schema;
mod sdl;
pub mod security;
pub mod stream;
pub mod subscription;
pub mod tasks;
pub mod timers;
mod topics;
pub mod value;
