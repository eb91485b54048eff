//! The way of an event: published on a bus, matched by an index, authorised, resolved once, projected to bytes, delivered to mailboxes.
//!
//! The engine knows no Python and no HTTP. The modules, in reading order: what travels ([`value`], [`event`], [`error`]), what is
//! asked for ([`graphql::schema`], [`graphql::coerce`], [`graphql::operation`], [`graphql::plan`], [`predicate`]), who may ([`security`], [`admission`], [`limits`]), the way
//! itself ([`bus`], [`engine`], [`matching::index`], [`delivery::group`], [`delivery::resolver`], [`graphql::project`], [`delivery::mailbox`]), and those who read ([`sessions::stream`], [`sessions::connection`], [`sessions::protocol`]).

pub mod accounts;
pub mod admission;
pub mod bus;
pub mod clock;
pub mod delivery;
pub mod engine;
pub mod error;
pub mod event;
pub mod graphql;
pub mod limits;
pub mod matching;
pub mod operators;
pub mod parts;
pub mod predicate;
pub mod security;
pub mod sessions;
pub mod tasks;
pub mod timers;
pub mod value;
pub mod viewer;
