//! A JSON value: an event's `data`, coerced arguments, a viewer's claims, and what was read of a function's result.
//!
//! Parsed once and shared by `Arc`. Numbers keep their value exactly (`decimal`), and of duplicate keys the last one counts
//! (`json`). It knows nothing of GraphQL types: see `graphql`.
//!
//! One circle of files: a place of a value may hold an error (`failure`), whose extensions are a value.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;

pub use decimal::Decimal;
pub use failure::{GraphQLError, PathStep};
pub use json::{ValueError, number, write_float, write_string};

mod decimal;
mod failure;
mod json;

/// Members of an object in the order in which they were given. Its hashes are seeded: clients choose the keys.
pub type Object = IndexMap<Box<str>, Value, RandomState>;

/// Arrays and objects may be nested this deep in anything that comes from outside.
pub const MAX_NESTING: usize = 128;

/// What an allocation takes beside what is in it,
const PER_ALLOCATION: usize = 24;
/// and a member of an object beside its value: its key, a hash and a place in the table.
const PER_MEMBER: usize = 64;

/// A number that a client sends may have so many digits, written without an exponent. Python reads no longer integer, and who
/// made one of a short `1e99999999` would wait for it for ever.
pub const MAX_DIGITS: i64 = 4_300;

/// A JSON value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A finite number with a fraction or an exponent. Its value is that of its shortest text.
    Float(f64),
    /// A number that neither of the two holds exactly: its JSON text, of which [`Decimal::parse`] knows the value.
    Number(Box<str>),
    /// Text without NUL.
    String(Box<str>),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(Object),
    /// Only in what was read of a function's result: reading this place failed.
    Failed(Arc<GraphQLError>),
}

impl Value {
    /// A string.
    pub fn string(text: impl Into<Box<str>>) -> Value {
        Value::String(text.into())
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The member of an object; `None` where this is no object or has no such key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// The value at a path of keys.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        path.into_iter().try_fold(self, Value::get)
    }

    /// The exact decimal that a number stands for.
    pub fn as_decimal(&self) -> Option<Decimal> {
        match self {
            Value::Int(number) => Decimal::parse(&number.to_string()),
            Value::Float(number) => {
                let mut text = String::new();
                write_float(*number, &mut text);
                Decimal::parse(&text)
            }
            Value::Number(text) => Decimal::parse(text),
            _ => None,
        }
    }

    /// The memory that it takes, about as the allocator has it.
    pub fn size(&self) -> usize {
        let below = match self {
            Value::Number(text) | Value::String(text) => text.len() + PER_ALLOCATION,
            Value::List(items) => {
                let spare = (items.capacity() - items.len()) * size_of::<Value>();
                items.iter().map(Value::size).sum::<usize>() + spare + PER_ALLOCATION
            }
            Value::Object(members) => {
                let sizes = members.iter().map(|(key, value)| key.len() + PER_MEMBER + value.size());
                sizes.sum::<usize>() + PER_ALLOCATION
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Failed(_) => 0,
        };
        size_of::<Value>() + below
    }

    /// The length of its compact JSON text, or more than `most` where that is longer; no more of it is looked at then.
    pub fn json_len(&self, most: usize) -> usize {
        let sum = |parts: &mut dyn Iterator<Item = (usize, &Value)>| {
            // The brackets, without the comma that the last one does not have.
            let mut length = 1;
            for (before, part) in parts {
                if length > most {
                    break;
                }
                length += before + part.json_len(most - length);
            }
            length.max(2)
        };
        match self {
            Value::Null | Value::Failed(_) => 4,
            Value::List(items) => sum(&mut items.iter().map(|item| (1, item))),
            Value::Object(members) => sum(&mut members.iter().map(|(key, value)| (json::string_len(key) + 2, value))),
            Value::String(text) => json::string_len(text),
            Value::Number(text) => text.len(),
            Value::Int(number) => itoa::Buffer::new().format(*number).len(),
            Value::Bool(_) | Value::Float(_) => self.to_json().len(),
        }
    }

    /// Whether a number of more than [`MAX_DIGITS`] stands anywhere in it.
    pub fn has_long_number(&self) -> bool {
        match self {
            Value::Number(_) => self.as_decimal().is_none_or(|number| number.written_digits() > MAX_DIGITS),
            Value::List(items) => items.iter().any(Value::has_long_number),
            Value::Object(members) => members.values().any(Value::has_long_number),
            _ => false,
        }
    }

    /// Whether a NUL stands anywhere in it.
    pub fn has_nul(&self) -> bool {
        match self {
            Value::String(text) => text.contains('\0'),
            Value::List(items) => items.iter().any(Value::has_nul),
            Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || value.has_nul()),
            _ => false,
        }
    }
}

/// Equal as typed JSON: numbers by their value, objects whatever their order of keys.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        use Value::{Bool, Float, Int, List, Null, Number, Object, String};
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a == b,
            // Below 2^53 the conversion is exact.
            (Int(int), Float(float)) | (Float(float), Int(int)) if float.abs() < 9_007_199_254_740_992.0 => {
                *int as f64 == *float
            }
            (String(a), String(b)) => a == b,
            (List(a), List(b)) => a == b,
            (Object(a), Object(b)) => a == b,
            (Number(a), Number(b)) if a == b => true,
            (Int(_) | Float(_) | Number(_), Int(_) | Float(_) | Number(_)) => {
                self.as_decimal().is_some_and(|number| other.as_decimal() == Some(number))
            }
            _ => false,
        }
    }
}
