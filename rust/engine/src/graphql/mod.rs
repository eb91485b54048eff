//! What is asked for.

pub mod coerce;
pub(crate) mod document;
pub(crate) mod introspection;
pub mod operation;
pub mod plan;
pub mod project;
pub(crate) mod scalar;
pub mod schema;
pub(crate) mod sdl;
