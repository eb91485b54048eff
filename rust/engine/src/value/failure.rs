//! An error as GraphQL has it, without its texts' writers (see [`crate::error`]): a place of a value may hold one.

use std::borrow::Cow;

use super::Value;

/// One step of an error's path: a response key or a list index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathStep {
    /// A response key.
    Key(Box<str>),
    /// A list index.
    Index(usize),
}

/// An error as a client sees it ([spec](https://spec.graphql.org/October2021/#sec-Errors)).
#[derive(Clone, Debug, Default, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct GraphQLError {
    /// What went wrong, in words.
    pub message: Cow<'static, str>,
    /// Line and column in the document, both from 1.
    pub locations: Vec<(usize, usize)>,
    /// Where in the result.
    pub path: Vec<PathStep>,
    /// `extensions.code`; empty where `extensions` carries its own or none is wanted.
    pub code: Cow<'static, str>,
    /// Further `extensions`, an object or null.
    pub extensions: Value,
}
