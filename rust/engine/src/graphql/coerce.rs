//! [Input coercion](https://spec.graphql.org/October2021/#sec-Input-Values): variables, literals and defaults become arguments.
//! There is one way through here for JSON and for literals, and nothing reaches a function, a channel or a predicate beside it.
//!
//! Results carry Python names all the way down, so that a variable inside an argument is its coerced value as it is. Ids are text,
//! enums their names, and of the scalars that stand for text (`DateTime`, `UUID` …) equal ones have one form.

use std::fmt;

use apollo_compiler::ast::{self, Argument};
use apollo_compiler::executable::{ExecutableDocument, Field, Operation};
use apollo_compiler::parser::SourceSpan;
use apollo_compiler::schema::{ExtendedType, FieldDefinition, InputObjectType, InputValueDefinition, Type};
use apollo_compiler::{Name, Node};

use super::input::{Input, LONGEST, Room};
use super::positions::Positions;
use super::scalar;
use super::schema::Schema;
use super::shown;
use crate::error::{GraphQLError, code};
use crate::value::{Object, Value};

/// Who sent more than these is told no more, and what is left is not looked at.
const MAX_ERRORS: usize = 50;

/// [CoerceVariableValues](https://spec.graphql.org/October2021/#CoerceVariableValues()): by GraphQL name; a variable that
/// is not given and has no default stays absent. No errors: there was no `room`.
pub fn variables(
    schema: &Schema,
    operation: &Operation,
    document: &ExecutableDocument,
    given: &Value,
    room: &Room,
) -> Result<Object, Vec<GraphQLError>> {
    let mut errors = Vec::new();
    let mut coerced = Object::default();
    for definition in &operation.variables {
        let (name, ty) = (&definition.name, &*definition.ty);
        let mut refuse = |message: String| errors.push((message, definition.location()));
        let mut coercion = Coercion::new(schema, &coerced, room);
        let value = match (given.get(name), &definition.default_value) {
            (None, Some(default)) => coercion.value(ty, Input::Literal(default)),
            (None, None) if ty.is_non_null() => {
                refuse(format!("Variable '${name}' of required type '{ty}' was not provided."));
                None
            }
            (None, None) => None,
            (Some(Value::Null), _) if ty.is_non_null() => {
                refuse(format!("Variable '${name}' of non-null type '{ty}' must not be null."));
                None
            }
            (Some(value), _) => coercion.value(ty, Input::Json(value)),
        };
        for problem in coercion.problems {
            refuse(format!("Variable '${name}' got invalid value {}", problem.describe(name)));
        }
        if errors.len() > MAX_ERRORS || room.is_full() {
            break;
        }
        if let Some(value) = value {
            coerced.insert(name.as_str().into(), value);
        }
    }
    finish(coerced, errors, document, room)
}

/// [CoerceArgumentValues](https://spec.graphql.org/October2021/#CoerceArgumentValues()) of a field that stands at
/// `Type.field`: by Python name. `document` is asked for places when something is wrong.
pub(super) fn arguments(
    schema: &Schema,
    definition: &FieldDefinition,
    coordinate: &str,
    field: &Node<Field>,
    document: &ExecutableDocument,
    variables: &Object,
    room: &Room,
) -> Result<Object, Vec<GraphQLError>> {
    let mut errors = Vec::new();
    let mut coerced = Object::default();
    for argument in &definition.arguments {
        let (name, ty) = (&argument.name, &*argument.ty);
        let coordinate = format!("{coordinate}.{name}");
        let given = field.arguments.iter().find(|given| given.name == *name);
        let mut coercion = Coercion::new(schema, variables, room);
        let mut refuse = |message: String| {
            let location = given.map_or_else(|| field.location(), |given| given.value.location());
            errors.push((message, location));
            None
        };
        let value = match given {
            Some(given) if !coercion.is_missing(&given.value) => match coercion.literal_variable(&given.value) {
                Some(Value::Null) if ty.is_non_null() => {
                    refuse(format!("Argument '{name}' of non-null type '{ty}' must not be null."))
                }
                _ => coercion.value(ty, Input::Literal(&given.value)),
            },
            _ => match schema.default(&coordinate) {
                Some(default) => room.copy(default),
                None if ty.is_non_null() => refuse(missing(name, ty, given)),
                None => None,
            },
        };
        for problem in coercion.problems {
            let location = problem.location;
            errors.push((format!("Argument '{name}' got invalid value {}", problem.describe(name)), location));
        }
        if errors.len() > MAX_ERRORS || room.is_full() {
            break;
        }
        if let Some(value) = value {
            coerced.insert(schema.python_name(&coordinate).into(), value);
        }
    }
    finish(coerced, errors, document, room)
}

/// The value of a default of the schema. Fails where it does not fit its type, and where the default of another input field
/// that it needs is not there yet.
pub(crate) fn default(schema: &Schema, definition: &InputValueDefinition) -> Result<Value, String> {
    let (none, room) = (Object::default(), Room::new(usize::MAX));
    let mut coercion = Coercion::new(schema, &none, &room);
    let literal = definition.default_value.as_ref().ok_or("there is none")?;
    let value = coercion.value(&definition.ty, Input::Literal(literal));
    match coercion.problems.into_iter().next() {
        Some(problem) => Err(problem.describe(&definition.name)),
        None => value.ok_or_else(|| "it is absent".into()),
    }
}

/// What is wrong with a literal where a custom scalar, or a list of it, is expected; the items of a list are asked one by one.
pub(crate) fn custom_literal(schema: &Schema, ty: &Type, literal: &Node<ast::Value>) -> Option<String> {
    let name = ty.inner_named_type();
    let is_custom = !scalar::BUILT_IN.contains(&name.as_str()) && schema.graphql.get_scalar(name).is_some();
    if !is_custom
        || literal.is_null()
        || literal.as_variable().is_some()
        || (ty.is_list() && literal.as_list().is_some())
    {
        return None;
    }
    let (leaf, input) = (schema.scalar(name), Input::Literal(literal));
    let kind = leaf.kind().name();
    // How long a number may be is asked when it is coerced, as that of a variable.
    let value = input.untyped(&Object::default(), &Room::new(usize::MAX))?;
    let reason = scalar::custom(kind, value).err().filter(|why| *why != scalar::TOO_LONG)?;
    Some(leaf.reword(format!("{kind} cannot {reason}: {}", input.show()), scalar::text(input).is_some()))
}

fn missing(name: &Name, ty: &Type, given: Option<&Node<Argument>>) -> String {
    let variable = given.and_then(|given| given.value.as_variable());
    variable.map_or_else(
        || format!("Argument '{name}' of required type '{ty}' was not provided."),
        |variable| {
            format!(
                "Argument '{name}' of required type '{ty}' was provided the variable '${variable}' \
                 which was not provided a runtime value."
            )
        },
    )
}

fn finish(
    coerced: Object,
    mut errors: Vec<(String, Option<SourceSpan>)>,
    document: &ExecutableDocument,
    room: &Room,
) -> Result<Object, Vec<GraphQLError>> {
    if room.is_full() {
        return Err(Vec::new());
    }
    if errors.is_empty() {
        return Ok(coerced);
    }
    if errors.len() > MAX_ERRORS {
        errors.truncate(MAX_ERRORS);
        errors.push(("Too many errors, error limit reached.".into(), None));
    }
    let positions = Positions::new(document);
    let located = |(message, location)| {
        let mut error = GraphQLError::new(code::BAD_USER_INPUT, message);
        error.locations.extend(positions.at(location));
        error
    };
    Err(errors.into_iter().map(located).collect())
}

struct Problem {
    reason: String,
    value: String,
    /// Empty at the root.
    path: String,
    location: Option<SourceSpan>,
}

/// A step from an argument's value to what stands in it.
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Member(name) => write!(f, ".{name}"),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

struct Coercion<'a> {
    schema: &'a Schema,
    variables: &'a Object,
    room: &'a Room,
    path: Vec<Step<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Coercion<'a> {
    fn new(schema: &'a Schema, variables: &'a Object, room: &'a Room) -> Coercion<'a> {
        Coercion { schema, variables, room, path: Vec::new(), problems: Vec::new() }
    }

    /// The coerced value; `None` where something in it is wrong, which then is among the problems.
    fn value(&mut self, ty: &'a Type, input: Input<'_>) -> Option<Value> {
        if let Some(name) = input.variable() {
            // It was coerced to its own type, and validation knows that it fits here but for null.
            return match self.variables.get(name.as_str()) {
                Some(Value::Null) | None if ty.is_non_null() => self.refuse(expected_non_null(ty), input),
                None => Some(Value::Null),
                Some(value) => self.room.copy(value),
            };
        }
        if input.is_null() {
            return if ty.is_non_null() { self.refuse(expected_non_null(ty), input) } else { Some(Value::Null) };
        }
        match ty {
            Type::List(item) | Type::NonNullList(item) => self.list(item, input),
            Type::Named(name) | Type::NonNullNamed(name) => match self.schema.graphql.types.get(name) {
                Some(ExtendedType::InputObject(definition)) => self.object(definition, input),
                Some(ExtendedType::Enum(definition)) => {
                    let found = input.enum_name().filter(|found| definition.values.contains_key(*found));
                    match (found, input.enum_name()) {
                        (Some(found), _) => Some(Value::string(found)),
                        (None, Some(found)) => {
                            let found = shown::text(found, LONGEST);
                            self.refuse(format!("Value '{found}' does not exist in '{name}' enum."), input)
                        }
                        (None, None) => {
                            let shown = input.show();
                            self.refuse(format!("Enum '{name}' cannot represent non-string value: {shown}."), input)
                        }
                    }
                }
                Some(ExtendedType::Scalar(_)) => {
                    let leaf = self.schema.scalar(name);
                    let kind = leaf.kind().name();
                    let coerced = match scalar::BUILT_IN.contains(&name.as_str()) {
                        true => scalar::built_in(name, input),
                        false => scalar::custom(kind, input.untyped(self.variables, self.room)?),
                    };
                    match coerced {
                        Ok(value) => Some(value),
                        Err(reason) => {
                            let complaint = leaf.reword(
                                format!("{kind} cannot {reason}: {}", input.show()),
                                scalar::text(input).is_some(),
                            );
                            self.refuse(complaint, input)
                        }
                    }
                }
                _ => self.refuse(format!("'{name}' is no input type."), input),
            },
        }
    }

    fn list(&mut self, item: &'a Type, input: Input<'_>) -> Option<Value> {
        let Some(items) = input.items() else {
            return Some(Value::List(vec![self.value(item, input)?]));
        };
        let mut coerced = Some(Vec::with_capacity(items.len()));
        for (at, input) in items.into_iter().enumerate() {
            self.path.push(Step::Item(at));
            let value = self.value(item, input);
            self.path.pop();
            coerced = coerced.zip(value).map(|(mut list, value)| {
                list.push(value);
                list
            });
            if self.is_full() {
                return None;
            }
        }
        coerced.map(Value::List)
    }

    fn object(&mut self, definition: &'a InputObjectType, input: Input<'_>) -> Option<Value> {
        let type_name = &definition.name;
        let Some(names) = input.names() else {
            return self.refuse(format!("Expected type '{type_name}' to be a mapping."), input);
        };
        let before = self.problems.len();
        for name in names.filter(|name| !definition.fields.contains_key(*name)) {
            let name = shown::text(name, LONGEST);
            self.refuse(format!("Field '{name}' is not defined by type '{type_name}'."), input);
            if self.is_full() {
                return None;
            }
        }
        let mut coerced = Object::default();
        for ((name, field), known) in definition.fields.iter().zip(self.schema.input_fields(type_name)) {
            let value = match input.member(name).filter(|given| !self.is_missing_input(*given)) {
                Some(given) => {
                    self.path.push(Step::Member(name));
                    let value = self.value(&field.ty, given);
                    self.path.pop();
                    value
                }
                None if field.default_value.is_some() => match &known.default {
                    Some(default) => self.room.copy(default),
                    None => self.refuse(format!("the default of {type_name}.{name} needs itself"), input),
                },
                None if field.ty.is_non_null() => {
                    let ty = &field.ty;
                    self.refuse(format!("Field '{name}' of required type '{ty}' was not provided."), input)
                }
                None => None,
            };
            if self.is_full() {
                return None;
            }
            if let Some(value) = value {
                coerced.insert(known.python_name.clone(), value);
            }
        }
        if definition.directives.has("oneOf") && self.problems.len() == before {
            let mut names = input.names()?;
            match (names.next(), names.next()) {
                (Some(name), None) if coerced.len() == 1 => {
                    if coerced.values().any(Value::is_null) {
                        self.refuse(format!("Field '{name}' must be non-null."), input);
                    }
                }
                _ => {
                    self.refuse(format!("Exactly one key must be specified for OneOf type '{type_name}'."), input);
                }
            }
        }
        (self.problems.len() == before).then_some(Value::Object(coerced))
    }

    /// A variable without a value, at a place where that is the same as leaving it out.
    fn is_missing(&self, literal: &ast::Value) -> bool {
        literal.as_variable().is_some_and(|name| !self.variables.contains_key(name.as_str()))
    }

    fn literal_variable(&self, literal: &ast::Value) -> Option<&'a Value> {
        self.variables.get(literal.as_variable()?.as_str())
    }

    fn is_missing_input(&self, input: Input<'_>) -> bool {
        matches!(input, Input::Literal(literal) if self.is_missing(literal))
    }

    fn refuse(&mut self, reason: String, input: Input<'_>) -> Option<Value> {
        let path = self.path.iter().map(Step::to_string).collect();
        self.problems.push(Problem { reason, value: input.show(), path, location: input.location() });
        None
    }

    /// Nothing more is looked at.
    fn is_full(&self) -> bool {
        self.problems.len() > MAX_ERRORS || self.room.is_full()
    }
}

fn expected_non_null(ty: &Type) -> String {
    format!("Expected non-nullable type '{ty}' not to be None.")
}

impl Problem {
    fn describe(self, root: &str) -> String {
        let Problem { reason, value, path, .. } = self;
        if path.is_empty() { format!("{value}; {reason}") } else { format!("{value} at '{root}{path}'; {reason}") }
    }
}

#[cfg(test)]
mod tests;
