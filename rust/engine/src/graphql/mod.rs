//! What is asked for. In comes SDL with declarations, once, and then documents with variables; out go operations that are valid,
//! coerced and compiled, and results projected to bytes. The files are chapters of the specification: the type system ([`Schema`]), a
//! document, coercion, an operation, its plan, the projection of a value, introspection.
//!
//! It uses values, errors, limits, predicates, security's guards and scopes, and channel templates. It knows no channel, queue or
//! connection, and runs no function.
//!
//! Two circles of files. A schema coerces its defaults (`coerce`), brings guards to its types (`access`) and builds its fields
//! (`field`), and each of these asks the schema for its types. A plan holds what has to be read (`reads`), which is made of plans.

mod access;
mod coerce;
mod document;
mod edition;
mod field;
mod input;
mod introspection;
mod names;
mod operation;
mod plan;
mod planner;
mod positions;
mod project;
mod reads;
mod scalar;
mod schema;
mod sdl;
mod shown;
mod tree;

pub use coerce::variables as coerce_variables;
pub use field::{Declaration, Field, Kind};
pub use input::Room;
pub(crate) use introspection::Answer;
pub(crate) use operation::Asked;
pub use operation::{Documents, Introspection, Operation, Request};
pub use plan::{Key, Leaf, Place, Plan, PlannedField, PlannedType, Possible, Selection, Shape};
pub use project::{Source, TooLarge, project};
pub use reads::{ReadField, ReadObject, ReadType, Reads};
pub use schema::{Schema, SchemaInput};
pub use sdl::SchemaError;
pub use tree::{Budget, Found, Full, Host, Manners, Stop, Tree, Walk};
