//! The way of an event: published on a bus, matched by an index, authorised, resolved once, projected to bytes, delivered to mailboxes.
//!
//! The engine knows no Python and no HTTP. Its rooms, the lowest first; each uses only rooms that stand before it:
//!
//! * what all of them use: [`value`], [`error`], [`event`], [`viewer`], [`limits`], [`clock`], [`timers`], [`tasks`];
//! * what an event is asked, and who may: [`predicate`], [`security`], [`matching`];
//! * what clients ask for: [`graphql`], and the gate through which every request goes, [`admission`];
//! * where events come from, and what is counted and told meanwhile: [`accounts`], [`bus`], [`operators`];
//! * the way itself: [`delivery`], and [`engine`], the only file where the stages meet, on the [`parts`] of a manager;
//! * those who read: [`sessions`].

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
