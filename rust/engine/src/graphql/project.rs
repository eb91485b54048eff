//! A value and a plan in, the JSON text of an ExecutionResult out: projected once, shared by every subscriber of the class.
//!
//! It completes values as the specification says ([spec](https://spec.graphql.org/October2021/#sec-Value-Completion)) and
//! words its errors like graphql-core. Fields are completed one after the other: where a null propagates, the rest of that
//! object or list is not looked at, what was already written of it is cut off, and errors already found are kept. It knows
//! neither schema nor document (see [`super::plan`]), and it runs no user code.
//!
//! On the good path nothing is allocated but the text itself.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::plan::{Leaf, Plan, PlannedField, PlannedType, Selection, Shape};
use super::shown::{self, python_float};
use crate::error::{GraphQLError, PathStep, code};
use crate::value::{Decimal, MAX_DIGITS, Value, write_float, write_string};

/// What the root field gave.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An event's `data`: members are looked up by Python name, then by GraphQL name.
    Passthrough(&'a Value),
    /// What was read of a function's result (see [`super::plan::Reads`]): members are looked up by slot.
    Read(&'a Value),
    /// The field failed.
    Failed(&'a GraphQLError),
}

/// The result is larger than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the result is larger than {0} bytes")]
pub struct TooLarge(pub usize);

/// Projects what the root field gave to an ExecutionResult of at most `max_bytes`.
pub fn project(plan: &Plan, source: Source<'_>, max_bytes: usize) -> Result<String, TooLarge> {
    let mut projection = Projection {
        out: String::with_capacity(256),
        errors: Vec::new(),
        error_bytes: 0,
        passthrough: matches!(source, Source::Passthrough(_)),
        max_bytes,
    };
    match projection.run(plan, source) {
        Ok(()) if projection.out.len() <= max_bytes => Ok(projection.out),
        _ => Err(TooLarge(max_bytes)),
    }
}

struct Projection {
    out: String,
    errors: Vec<GraphQLError>,
    /// What the errors will take at the least, so that they count before they are written.
    error_bytes: usize,
    passthrough: bool,
    max_bytes: usize,
}

/// Why a place was not completed.
enum Stop {
    /// It is null, for a reason that is among the errors; the nearest place that may be null takes it.
    Null,
    /// There is no more room.
    TooLarge,
}

/// Where we are: a field's value, or an item of a list that it holds. It becomes an error's path only when one is found.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    field: &'a PlannedField,
    index: Option<usize>,
}

impl Path<'_> {
    fn steps(&self) -> Vec<PathStep> {
        let step = |path: &Path<'_>| match path.index {
            Some(index) => PathStep::Index(index),
            None => PathStep::Key(path.field.place.response_key().into()),
        };
        let mut steps: Vec<PathStep> = std::iter::successors(Some(self), |path| path.parent).map(step).collect();
        steps.reverse();
        steps
    }
}

impl Projection {
    fn run(&mut self, plan: &Plan, source: Source<'_>) -> Result<(), Stop> {
        let field = &plan.root;
        self.out.push_str("{\"data\":");
        let start = self.out.len();
        self.out.push('{');
        self.out.push_str(&field.place.key_json);
        let (parent, index) = (None, None);
        let path = Path { parent, field, index };
        let placed = match source {
            Source::Passthrough(value) | Source::Read(value) => self.place(&field.ty, value, &path),
            Source::Failed(error) => {
                let from = self.out.len();
                let failed = self.raise(error.clone(), &path);
                self.settle(&field.ty, from, failed)
            }
        };
        match placed {
            Ok(()) => self.out.push('}'),
            Err(Stop::Null) => {
                self.out.truncate(start);
                self.out.push_str("null");
            }
            Err(stop) => return Err(stop),
        }
        // As in graphql-core: the same order whatever was completed first.
        self.errors.sort_by(|a, b| (&a.locations, &a.path, &a.message).cmp(&(&b.locations, &b.path, &b.message)));
        for (at, error) in self.errors.iter().enumerate() {
            self.out.push_str(if at == 0 { ",\"errors\":[" } else { "," });
            error.write_json(&mut self.out);
            if self.out.len() > self.max_bytes {
                return Err(Stop::TooLarge);
            }
        }
        self.out.push_str(if self.errors.is_empty() { "}" } else { "]}" });
        Ok(())
    }

    /// Completes one place: a field's value or a list's item.
    fn place(&mut self, ty: &PlannedType, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let from = self.out.len();
        let completed = self.complete(ty, value, path);
        self.settle(ty, from, completed)
    }

    /// Ends a place that began at `from`: a null stays here if it may.
    fn settle(&mut self, ty: &PlannedType, from: usize, completed: Result<(), Stop>) -> Result<(), Stop> {
        match completed {
            Err(Stop::Null) if ty.nullable => {
                self.out.truncate(from);
                self.out.push_str("null");
            }
            other => other?,
        }
        if self.out.len() + self.error_bytes > self.max_bytes {
            return Err(Stop::TooLarge);
        }
        Ok(())
    }

    fn complete(&mut self, ty: &PlannedType, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let coordinate = &path.field.coordinate;
        match (&ty.shape, value) {
            (Shape::Masked, _) => return self.forbid(path),
            (Shape::Typename(text), _) => self.out.push_str(text),
            (_, Value::Failed(error)) => return self.raise((**error).clone(), path),
            (_, Value::Null) if ty.nullable => self.out.push_str("null"),
            (_, Value::Null) => {
                return self.fail(format!("Cannot return null for non-nullable field {coordinate}."), path);
            }
            (Shape::Leaf(leaf), _) => match write_leaf(leaf.kind(), value, &mut self.out) {
                Ok(()) => {}
                Err(message) => return self.fail(leaf.reword(message, value.as_str().is_some()), path),
            },
            (Shape::List(item), Value::List(values)) => {
                self.out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    let (parent, index) = (Some(path), Some(index));
                    self.place(item, value, &Path { parent, index, ..*path })?;
                }
                self.out.push(']');
            }
            (Shape::List(_), _) => {
                let message = format!("Expected Iterable, but did not find one for field '{coordinate}'.");
                return self.fail(message, path);
            }
            (Shape::Object(selection), _) => return self.object(selection, value, path),
            (Shape::Abstract(possible), _) => {
                let expected = &possible.name;
                let name = value.get("__typename").and_then(Value::as_str);
                let message = match name.map(|name| possible.types.get(name).ok_or(name)) {
                    Some(Ok(Some(selection))) => return self.object(selection, value, path),
                    Some(Ok(None)) => return self.forbid(path),
                    Some(Err(name)) => {
                        let name = shorten(name);
                        format!("Runtime Object type '{name}' is not a possible type for '{expected}'.")
                    }
                    None => format!(
                        "Abstract type '{expected}' must resolve to an Object type at runtime for field '{coordinate}'."
                    ),
                };
                return self.fail(message, path);
            }
        }
        Ok(())
    }

    fn object(&mut self, selection: &Selection, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let Value::Object(members) = value else {
            // What a list holds may be guarded.
            let value = if matches!(value, Value::List(_)) { "[...]".into() } else { inspect(value) };
            let expected = &selection.type_name;
            return self.fail(format!("Expected value of type '{expected}' but got: {value}."), path);
        };
        self.out.push('{');
        for (at, field) in selection.fields.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.out.push_str(&field.place.key_json);
            let key = &field.key;
            let value = if self.passthrough {
                members.get(&*key.python_name).or_else(|| members.get(&*key.graphql_name))
            } else {
                members.get(&*key.slot)
            };
            let (parent, index) = (Some(path), None);
            self.place(&field.ty, value.unwrap_or(&Value::Null), &Path { parent, field, index })?;
        }
        self.out.push('}');
        Ok(())
    }

    fn forbid(&mut self, path: &Path<'_>) -> Result<(), Stop> {
        self.raise(GraphQLError::new(code::FORBIDDEN, "Forbidden"), path)
    }

    fn fail(&mut self, message: String, path: &Path<'_>) -> Result<(), Stop> {
        self.raise(GraphQLError::new(code::INTERNAL_SERVER_ERROR, message), path)
    }

    fn raise(&mut self, mut error: GraphQLError, path: &Path<'_>) -> Result<(), Stop> {
        error.path = path.steps();
        let locations = path.field.place.locations.iter();
        error.locations = locations.map(|(line, column)| (*line as usize, *column as usize)).collect();
        self.error_bytes += error.message.len() + error.path.len();
        self.errors.push(error);
        Err(Stop::Null)
    }
}

/// Appends a leaf as its type serialises it, or says why it cannot
/// ([spec](https://spec.graphql.org/October2021/#sec-Scalars.Built-in-Scalars)).
fn write_leaf(leaf: &Leaf, value: &Value, out: &mut String) -> Result<(), String> {
    match (leaf, value) {
        (
            Leaf::String | Leaf::Id | Leaf::DateTime | Leaf::Date | Leaf::Time | Leaf::Uuid | Leaf::Decimal,
            Value::String(text),
        ) => write_string(text, out),
        (Leaf::Enum(definition), Value::String(name)) if definition.values.contains_key(&**name) => {
            write_string(name, out);
        }
        (Leaf::Boolean, Value::Bool(_)) => value.write_json(out),
        (Leaf::Json, _) if is_json(value) => value.write_json(out),
        (Leaf::Decimal, Value::Int(_) | Value::Float(_) | Value::Number(_)) if is_json(value) => value.write_json(out),
        (Leaf::Int, _) => match integer(value) {
            Some(number) if i32::try_from(number).is_ok() => _ = write!(out, "{number}"),
            Some(_) => return refuse("Int cannot represent non 32-bit signed integer value:", value),
            None => return refuse(&leaf.complaint(), value),
        },
        (Leaf::Float, _) => match float(value) {
            Some(number) => write_exactly(number, value, out),
            None => return refuse(&leaf.complaint(), value),
        },
        (Leaf::Boolean, _) => match value {
            Value::Int(number) => out.push_str(if *number == 0 { "false" } else { "true" }),
            Value::Float(number) if number.is_finite() => out.push_str(if *number == 0.0 { "false" } else { "true" }),
            // A number that fits neither an integer nor a float is not zero.
            Value::Number(_) => out.push_str("true"),
            _ => return refuse(&leaf.complaint(), value),
        },
        (Leaf::String, Value::Bool(flag)) => write_string(if *flag { "true" } else { "false" }, out),
        (Leaf::String, Value::Float(number)) if number.is_finite() => write_string(&python_float(*number), out),
        (Leaf::String | Leaf::Id, Value::Int(number)) => _ = write!(out, "\"{number}\""),
        (Leaf::String, Value::Number(text)) => write_string(text, out),
        // Adding zero takes the sign off a negative zero.
        (Leaf::Id, Value::Float(number)) if number.fract() == 0.0 => _ = write!(out, "\"{:.0}\"", number + 0.0),
        (Leaf::Id, Value::Number(_)) => match whole(value).and_then(|number| number.whole()) {
            Some(text) => write_string(&text, out),
            None => return refuse(&leaf.complaint(), value),
        },
        _ => return refuse(&leaf.complaint(), value),
    }
    Ok(())
}

fn refuse(sentence: &str, value: &Value) -> Result<(), String> {
    Err(format!("{sentence} {}", inspect(value)))
}

/// The integer that a value stands for; one beyond 64 bits is as good as the greatest of 64.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Int(number) => Some(*number),
        // The conversion saturates.
        Value::Float(number) if number.fract() == 0.0 => Some(*number as i64),
        Value::Number(_) => whole(value).map(|_| i64::MAX),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            valid.then(|| text.parse().unwrap_or(i64::MAX))
        }
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Number(text) => text.parse().ok()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Appends a float, with a fraction or an exponent, or the digits of the value that it stands for where it has not all of them.
fn write_exactly(float: f64, value: &Value, out: &mut String) {
    let exact = match value {
        Value::Number(_) => value.as_decimal(),
        Value::Int(number) if number.unsigned_abs() > 1 << f64::MANTISSA_DIGITS => value.as_decimal(),
        // A `Decimal` is text.
        Value::String(text) => Decimal::parse_text(text.trim()),
        _ => None,
    };
    match exact.filter(|exact| Value::Float(float).as_decimal().as_ref() != Some(exact)) {
        Some(exact) => {
            let from = out.len();
            _ = write!(out, "{exact}");
            if !out[from..].contains(['.', 'e']) {
                out.push_str(".0");
            }
        }
        None => write_float(float, out),
    }
}

/// A whole number of a length that is told.
fn whole(value: &Value) -> Option<Decimal> {
    value.as_decimal().filter(|number| number.is_integer() && number.written_digits() <= MAX_DIGITS)
}

/// Whether it has a JSON text: nothing failed in it, and every number is finite.
fn is_json(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::List(items) => items.iter().all(is_json),
        Value::Object(members) => members.values().all(is_json),
        Value::Failed(_) => false,
        _ => true,
    }
}

/// At most so many characters of a value are told.
const SHOWN: usize = 60;

/// A value for a message, as Python prints it, but never much of it.
fn inspect(value: &Value) -> String {
    let shown = match value {
        Value::Float(number) => python_float(*number),
        // A letter takes at most four bytes.
        _ => shown::python(value, 4 * (SHOWN + 1)),
    };
    shorten(&shown).into_owned()
}

fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
