//! What is coerced: JSON of a request, or a literal of a document or of the schema, looked at alike.

use apollo_compiler::parser::SourceSpan;
use apollo_compiler::{Name, Node, ast};

use super::shown::write_python;
use crate::value::{self, Object, Value};

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

    pub(super) fn members(self) -> Option<Vec<(&'a str, Input<'a>)>> {
        match self {
            Input::Json(value) => {
                let members = value.as_object()?.iter();
                Some(members.map(|(name, value)| (&**name, Input::Json(value))).collect())
            }
            Input::Literal(literal) => {
                let members = literal.as_object()?.iter();
                Some(members.map(|(name, value)| (name.as_str(), Input::Literal(value))).collect())
            }
        }
    }

    /// The JSON that a literal stands for where nothing says what is expected.
    pub(super) fn untyped(self, variables: &Object) -> Value {
        let literal = match self {
            Input::Json(value) => return value.clone(),
            Input::Literal(literal) => literal,
        };
        match &**literal {
            ast::Value::Null => Value::Null,
            ast::Value::Enum(name) => Value::string(name.as_str()),
            ast::Value::Variable(name) => variables.get(name.as_str()).cloned().unwrap_or_default(),
            ast::Value::String(text) => Value::string(text.as_str()),
            ast::Value::Float(number) => any_number(number.as_str()),
            ast::Value::Int(number) => any_number(number.as_str()),
            ast::Value::Boolean(flag) => Value::Bool(*flag),
            ast::Value::List(items) => {
                let items = items.iter().map(|item| Input::Literal(item).untyped(variables));
                Value::List(items.collect())
            }
            ast::Value::Object(members) => {
                let given = members
                    .iter()
                    .filter(|(_, value)| value.as_variable().is_none_or(|name| variables.contains_key(name.as_str())));
                let members =
                    given.map(|(name, value)| (name.as_str().into(), Input::Literal(value).untyped(variables)));
                Value::Object(members.collect())
            }
        }
    }

    /// The value in a message: JSON as Python shows it, a literal as it was written; cut where it is long.
    pub(super) fn show(self) -> String {
        const LONGEST: usize = 200;
        let mut text = String::new();
        match self {
            Input::Json(value) => write_python(value, LONGEST, &mut text),
            Input::Literal(literal) => text = literal.serialize().no_indent().to_string(),
        }
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

/// A literal's number. One whose exponent is out of range has no value: whoever takes it asks for long numbers.
fn any_number(text: &str) -> Value {
    value::number(text).unwrap_or_else(|| Value::Number(text.into()))
}
