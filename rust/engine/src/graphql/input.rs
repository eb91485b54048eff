//! What is coerced: JSON of a request, or a literal of a document or of the schema, looked at alike.

use std::cell::Cell;

use apollo_compiler::parser::SourceSpan;
use apollo_compiler::{Name, Node, ast};

use super::shown;
use crate::error::{GraphQLError, Rejection, code};
use crate::value::{self, Object, Value};

/// A value or a name in a message is cut behind so many bytes.
pub(super) const LONGEST: usize = 200;

/// How much may still be copied for one operation, in bytes of JSON: a variable that is used many times is many.
#[derive(Debug)]
pub struct Room {
    most: usize,
    left: Cell<Option<usize>>,
}

impl Room {
    /// Room for so much.
    pub fn new(most: usize) -> Room {
        Room { most, left: Cell::new(Some(most)) }
    }

    /// A copy, where there is room for it.
    pub(super) fn copy(&self, value: &Value) -> Option<Value> {
        let left = self.left.get()?;
        self.left.set(left.checked_sub(value.json_len(left)));
        self.left.get().map(|_| value.clone())
    }

    /// What was coerced, where all of it has room.
    pub(super) fn hold(&self, coerced: Object) -> Result<Object, Vec<GraphQLError>> {
        let lengths = coerced.iter().map(|(name, value)| name.len() + 4 + value.json_len(self.most));
        if 1 + lengths.sum::<usize>() > self.most { Err(Vec::new()) } else { Ok(coerced) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.left.get().is_none()
    }

    /// Why coercion has failed: by errors, or without any for want of room.
    pub(super) fn refuse(errors: Vec<GraphQLError>) -> Rejection {
        if errors.is_empty() {
            return Rejection::Limited(code::LIMIT_EXCEEDED, "max_argument_bytes is reached");
        }
        Rejection::Request(errors)
    }
}

/// What comes in: JSON of a request, or a literal of a document or of the schema.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Json(&'a Value),
    Literal(&'a Node<ast::Value>),
}

impl<'a> Input<'a> {
    pub(super) fn location(self) -> Option<SourceSpan> {
        match self {
            Input::Json(_) => None,
            Input::Literal(literal) => literal.location(),
        }
    }

    pub(super) fn variable(self) -> Option<&'a Name> {
        match self {
            Input::Json(_) => None,
            Input::Literal(literal) => literal.as_variable(),
        }
    }

    pub(super) fn is_null(self) -> bool {
        match self {
            Input::Json(value) => value.is_null(),
            Input::Literal(literal) => literal.is_null(),
        }
    }

    pub(super) fn enum_name(self) -> Option<&'a str> {
        match self {
            Input::Json(value) => value.as_str(),
            Input::Literal(literal) => literal.as_enum().map(Name::as_str),
        }
    }

    pub(super) fn items(self) -> Option<Vec<Input<'a>>> {
        match self {
            Input::Json(Value::List(items)) => Some(items.iter().map(Input::Json).collect()),
            Input::Json(_) => None,
            Input::Literal(literal) => Some(literal.as_list()?.iter().map(Input::Literal).collect()),
        }
    }

    /// The names of an object's members.
    pub(super) fn names(self) -> Option<impl Iterator<Item = &'a str>> {
        let (json, literal) = match self {
            Input::Json(value) => (Some(value.as_object()?.keys()), None),
            Input::Literal(literal) => (None, Some(literal.as_object()?.iter())),
        };
        let json = json.into_iter().flatten().map(|name| &**name);
        Some(json.chain(literal.into_iter().flatten().map(|(name, _)| name.as_str())))
    }

    /// A member of an object.
    pub(super) fn member(self, name: &str) -> Option<Input<'a>> {
        match self {
            Input::Json(value) => value.get(name).map(Input::Json),
            Input::Literal(literal) => {
                let mut members = literal.as_object()?.iter().rev();
                members.find(|(member, _)| *member == name).map(|(_, value)| Input::Literal(value))
            }
        }
    }

    /// The JSON that a literal stands for where nothing says what is expected; `None`: there is no room for it.
    pub(super) fn untyped(self, variables: &Object, room: &Room) -> Option<Value> {
        let literal = match self {
            Input::Json(value) => return Some(value.clone()),
            Input::Literal(literal) => literal,
        };
        Some(match &**literal {
            ast::Value::Null => Value::Null,
            ast::Value::Enum(name) => Value::string(name.as_str()),
            ast::Value::Variable(name) => {
                variables.get(name.as_str()).map_or(Some(Value::Null), |value| room.copy(value))?
            }
            ast::Value::String(text) => Value::string(text.as_str()),
            ast::Value::Float(number) => any_number(number.as_str()),
            ast::Value::Int(number) => any_number(number.as_str()),
            ast::Value::Boolean(flag) => Value::Bool(*flag),
            ast::Value::List(items) => {
                let items = items.iter().map(|item| Input::Literal(item).untyped(variables, room));
                Value::List(items.collect::<Option<_>>()?)
            }
            ast::Value::Object(members) => {
                let given = members
                    .iter()
                    .filter(|(_, value)| value.as_variable().is_none_or(|name| variables.contains_key(name.as_str())));
                let member = |(name, value): &(Name, _)| {
                    Some((name.as_str().into(), Input::Literal(value).untyped(variables, room)?))
                };
                Value::Object(given.map(member).collect::<Option<_>>()?)
            }
        })
    }

    /// The value in a message: JSON as Python shows it, a literal as it was written; cut where it is long.
    pub(super) fn show(self) -> String {
        match self {
            Input::Json(value) => shown::python(value, LONGEST),
            Input::Literal(literal) => shown::text(literal.serialize().no_indent(), LONGEST),
        }
    }
}

/// A literal's number. One whose exponent is out of range has no value: whoever takes it asks for long numbers.
fn any_number(text: &str) -> Value {
    value::number(text).unwrap_or_else(|| Value::Number(text.into()))
}
