//! The schema: SDL, and the functions declared for its subscription fields. All that can be wrong with a declaration is
//! said here, when it is built; from then on documents are validated against it (`operation`), arguments coerced to it
//! (`coerce`), selections compiled against it (`plan`). It knows neither clients nor events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use apollo_compiler::collections::HashMap as ApolloMap;
use apollo_compiler::schema::{ExtendedType, FieldDefinition, Implementers, InputValueDefinition, Type};
use apollo_compiler::validation::Valid;
use apollo_compiler::{Name, Node};
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use serde::Deserialize;

use crate::graphql::coerce;
use crate::graphql::sdl::{self, Restricted};
use crate::limits::Overflow;
use crate::matching::channel::ChannelTemplate;
use crate::predicate::{Expr, OperandKind, Predicate};
use crate::security::fields::Guard;
use crate::security::scope::{Scope, ScopeInput};
use crate::value::{Object, Value};

/// What a schema is built from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaInput {
    /// The type system, printed from Python types or written by the user.
    pub sdl: String,
    /// Whether the SDL was printed from Python types.
    pub code_first: bool,
    /// The functions.
    pub declarations: Vec<Declaration>,
    /// Python names by coordinate: `Type.field`, `Type.field.argument`, `Input.field`; the root type is `Subscription`
    /// whatever the SDL calls it. Where one is missing it is the snake_case of the GraphQL name.
    pub python_names: HashMap<String, String>,
    /// Guards of types' fields by coordinate.
    pub requires: HashMap<String, Guard>,
}

/// One function that was declared with `@subscription`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declaration {
    /// The field of the subscription type.
    pub field: String,
    /// The function's qualified name, for messages.
    pub function: String,
    /// The channel's template, whose placeholders are Python argument names: `orders:{order_id}`.
    pub channel: String,
    /// Event types that the field is about; `None` is any.
    pub event_types: Option<Vec<String>>,
    /// Which events the subscription is about.
    #[serde(rename = "where")]
    pub where_: Option<Expr>,
    /// Which of them the viewer may see.
    pub rows: Option<Expr>,
    /// How the function runs.
    pub kind: Kind,
    /// Whether it is called with `info`, so that its result may differ from viewer to viewer.
    pub takes_info: bool,
    /// What arguments must equal of the viewer.
    pub scope: Vec<ScopeInput>,
    /// What the field asks of its viewers.
    pub requires: Option<Guard>,
    /// The only services whose events the field is about; `None` is any.
    pub sources: Option<Vec<String>>,
    /// Seconds that one call may take, in place of the limit.
    pub timeout: Option<f64>,
    /// In place of the limit.
    pub overflow: Option<Overflow>,
    /// In place of the limit.
    pub events_per_second: Option<f64>,
}

/// How a function runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Not at all: the event's data is the result.
    Passthrough,
    /// On the event loop.
    #[default]
    Async,
    /// In a worker thread.
    Sync,
    /// One async generator for each subscription.
    Generator,
}

/// Why a schema cannot be built, in words that name function, field and what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// A valid [type system](https://spec.graphql.org/October2021/#sec-Type-System) with a function behind every
/// subscription field.
#[derive(Debug)]
pub struct Schema {
    /// The type system.
    pub graphql: Valid<apollo_compiler::Schema>,
    /// Its text.
    pub sdl: String,
    /// The fields of the subscription type.
    pub fields: IndexMap<Arc<str>, Arc<Field>, FxBuildHasher>,
    implementers: ApolloMap<Name, Implementers>,
    python_names: HashMap<String, String>,
    /// By coordinate: `Type.field` and `Type`.
    guards: HashMap<String, Guard>,
    defaults: FxHashMap<String, Value>,
    root: Name,
}

/// A field of the subscription type with its function, compiled once.
#[derive(Debug)]
pub struct Field {
    /// The position among the declarations: how the resolver knows the function.
    pub index: usize,
    /// The GraphQL name.
    pub name: Arc<str>,
    /// The field as the type system has it.
    pub definition: Node<FieldDefinition>,
    /// What was declared.
    pub declaration: Declaration,
    /// Where its events are published; `None` for a generator, which finds its events itself.
    pub channel: Option<ChannelTemplate>,
    /// Which events the subscription is about.
    pub where_: Option<Predicate>,
    /// Which of them the viewer may see.
    pub rows: Option<Predicate>,
    /// What arguments must equal of the viewer.
    pub scope: Vec<Scope>,
}

impl Schema {
    /// Checks everything.
    pub fn build(input: SchemaInput) -> Result<Arc<Schema>, SchemaError> {
        let (sdl, graphql, restricted) = sdl::parse(input.sdl)?;
        let root = graphql.schema_definition.subscription.as_ref().map(|root| root.name.clone());
        let root = root.ok_or_else(|| SchemaError("the schema has no subscription type".into()))?;
        let mut schema = Schema {
            implementers: graphql.implementers_map(),
            graphql,
            sdl,
            fields: IndexMap::default(),
            python_names: input.python_names,
            guards: HashMap::new(),
            defaults: FxHashMap::default(),
            root,
        };
        schema.fill_defaults()?;
        schema.check_one_of()?;
        schema.fill_guards(&input.requires, &restricted)?;
        for (index, mut declaration) in input.declarations.into_iter().enumerate() {
            let camel = camel_case(&declaration.field);
            if !schema.root_fields().any(|name| **name == declaration.field)
                && schema.root_fields().any(|name| **name == camel)
            {
                declaration.field = camel;
            }
            let field = Field::build(&schema, index, declaration)?;
            if let Some(other) = schema.fields.get(&field.name) {
                return Err(SchemaError(format!(
                    "two functions for one field: {} and {} both declare {}.{}",
                    other.declaration.function, field.declaration.function, schema.root, field.name
                )));
            }
            if let Some(guard) = &field.declaration.requires {
                schema.add_guard(format!("{}.{}", schema.root, field.name), guard);
            }
            schema.fields.insert(field.name.clone(), Arc::new(field));
        }
        let missing = schema.root_fields().find(|name| !schema.fields.contains_key(name.as_str()));
        if let Some(name) = missing {
            let (root, snake) = (&schema.root, snake_case(name));
            return Err(SchemaError(format!(
                "{root}.{name} has no function: expected one that is called {snake} or {name}, or has name=\"{name}\""
            )));
        }
        Ok(Arc::new(schema))
    }

    /// The Python name of what stands at a coordinate: `Type.field`, `Type.field.argument`, `Input.field`.
    pub fn python_name(&self, coordinate: &str) -> Cow<'_, str> {
        let declared = self.python_names.get(coordinate).or_else(|| {
            let rest = coordinate.strip_prefix(self.root.as_str())?.strip_prefix('.')?;
            self.python_names.get(&format!("Subscription.{rest}"))
        });
        match declared {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(snake_case(coordinate.rsplit('.').next().unwrap_or(coordinate))),
        }
    }

    /// What a field of an object type asks of its viewers. Included is what its interfaces, its function and the type that
    /// it gives ask for.
    pub fn guard(&self, type_name: &str, field: &str) -> Option<&Guard> {
        // Most schemas have none, and the key is a new string.
        if self.guards.is_empty() {
            return None;
        }
        self.guards.get(&format!("{type_name}.{field}"))
    }

    /// What an object type asks of its viewers, wherever it stands; that of its interfaces included.
    pub fn type_guard(&self, type_name: &str) -> Option<&Guard> {
        self.guards.get(type_name)
    }

    /// The object types that a value of this composite type may have.
    pub fn possible_types(&self, type_name: &str) -> Vec<Name> {
        match self.graphql.types.get(type_name) {
            Some(ExtendedType::Object(object)) => vec![object.name.clone()],
            Some(ExtendedType::Union(union_)) => union_.members.iter().map(|member| member.name.clone()).collect(),
            Some(ExtendedType::Interface(_)) => {
                let implementers = self.implementers.get(type_name);
                implementers.map_or_else(Vec::new, |types| types.objects.iter().cloned().collect())
            }
            _ => Vec::new(),
        }
    }

    /// Which types implement which interfaces.
    pub fn implementers(&self) -> &ApolloMap<Name, Implementers> {
        &self.implementers
    }

    /// The coerced default of an argument or an input field, by coordinate.
    pub(crate) fn default(&self, coordinate: &str) -> Option<&Value> {
        self.defaults.get(coordinate)
    }

    /// What a caller of the functions has to know: type references by Python name of each field's arguments (`fields`, in the order of the
    /// declarations), of the arguments below them (`nested`, by `Type.field`) and of each input object's fields (`inputs`), and the names of each
    /// enum (`enums`).
    pub fn signatures(&self) -> Value {
        let references = |owner: &str, definitions: &mut dyn Iterator<Item = &InputValueDefinition>| {
            let reference = |definition: &InputValueDefinition| {
                let name = self.python_name(&format!("{owner}.{}", definition.name));
                (name.into(), Value::string(definition.ty.to_string()))
            };
            Value::Object(definitions.map(reference).collect::<Object>())
        };
        let object = |members: Vec<(&str, Value)>| {
            Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
        };
        let fields = self.fields.values().map(|field| {
            let owner = format!("{}.{}", self.root, field.name);
            let arguments = references(&owner, &mut field.definition.arguments.iter().map(|argument| &**argument));
            object(vec![("field", Value::string(&*field.name)), ("arguments", arguments)])
        });
        let (mut inputs, mut enums) = (Vec::new(), Vec::new());
        let mut nested = Object::default();
        for (name, definition) in self.graphql.types.iter().filter(|(_, definition)| !definition.is_built_in()) {
            match definition {
                ExtendedType::InputObject(input) => {
                    inputs.push((name.as_str(), references(name, &mut input.fields.values().map(|field| &***field))));
                }
                ExtendedType::Enum(values) => {
                    let names = values.values.keys().map(|value| Value::string(value.as_str())).collect();
                    enums.push((name.as_str(), Value::List(names)));
                }
                ExtendedType::Object(object) if *name != self.root => {
                    for (field, definition) in object.fields.iter().filter(|(_, field)| !field.arguments.is_empty()) {
                        let owner = format!("{name}.{field}");
                        let arguments =
                            references(&owner, &mut definition.arguments.iter().map(|argument| &**argument));
                        nested.insert(owner.into(), arguments);
                    }
                }
                _ => {}
            }
        }
        let fields = Value::List(fields.collect());
        object(vec![
            ("fields", fields),
            ("nested", Value::Object(nested)),
            ("inputs", object(inputs)),
            ("enums", object(enums)),
        ])
    }

    fn root_fields(&self) -> impl Iterator<Item = &Name> {
        self.graphql.get_object(&self.root).into_iter().flat_map(|object| object.fields.keys())
    }

    /// Coerces every default of the schema once. One may need another (an input object's field); one that needs itself is
    /// found by nothing being left that can be coerced.
    fn fill_defaults(&mut self) -> Result<(), SchemaError> {
        let graphql = self.graphql.clone();
        let mut pending: Vec<(String, &InputValueDefinition)> = Vec::new();
        for (type_name, definition) in graphql.types.iter().filter(|(_, definition)| !definition.is_built_in()) {
            let fields = match definition {
                ExtendedType::InputObject(input) => {
                    pending.extend(input.fields.values().map(|field| (type_name.to_string(), &***field)));
                    continue;
                }
                ExtendedType::Object(object) => &object.fields,
                ExtendedType::Interface(interface) => &interface.fields,
                _ => continue,
            };
            for field in fields.values() {
                let owner = format!("{type_name}.{}", field.name);
                pending.extend(field.arguments.iter().map(|argument| (owner.clone(), &**argument)));
            }
        }
        pending.retain(|(_, definition)| definition.default_value.is_some());
        while !pending.is_empty() {
            let before = pending.len();
            let mut problem = None;
            pending.retain(|(owner, definition)| {
                let coordinate = format!("{owner}.{}", definition.name);
                match coerce::default(self, definition) {
                    Ok(value) => _ = self.defaults.insert(coordinate, value),
                    Err(reason) => {
                        problem.get_or_insert(format!("the default of {coordinate} does not fit its type: {reason}"));
                        return true;
                    }
                }
                false
            });
            if pending.len() == before {
                return Err(SchemaError(problem.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// [Spec](https://spec.graphql.org/September2025/#sec-OneOf-Input-Objects): nothing in a `@oneOf` is required or has a default.
    fn check_one_of(&self) -> Result<(), SchemaError> {
        let inputs = self.graphql.types.values().filter_map(ExtendedType::as_input_object);
        for input in inputs.filter(|input| input.directives.has("oneOf")) {
            let wrong = |field: &&Node<InputValueDefinition>| field.ty.is_non_null() || field.default_value.is_some();
            if let Some(field) = input.fields.values().map(|field| &field.node).find(wrong) {
                let coordinate = format!("{}.{}", input.name, field.name);
                return Err(SchemaError(format!(
                    "{coordinate} must be nullable and without default, as {} is @oneOf",
                    input.name
                )));
            }
        }
        Ok(())
    }

    /// Brings each guard to every place where it holds.
    fn fill_guards(&mut self, requires: &HashMap<String, Guard>, restricted: &Restricted) -> Result<(), SchemaError> {
        for (coordinate, guard) in requires {
            let unknown = || SchemaError(format!("requires: there is no field {coordinate}, expected Type.field"));
            let (type_name, field) = coordinate.split_once('.').ok_or_else(unknown)?;
            // The root type is `Subscription` to Python, whatever the SDL calls it.
            let is_root = type_name == "Subscription" && !self.graphql.types.contains_key(type_name);
            let type_name = if is_root { self.root.clone() } else { Name::new(type_name).map_err(|_| unknown())? };
            self.graphql.type_field(&type_name, field).map_err(|_| unknown())?;
            self.guard_field(&type_name, field, guard);
        }
        for (type_name, field, guard) in &restricted.fields {
            self.guard_field(type_name, field, guard);
        }
        for (type_name, guard) in &restricted.types {
            for name in self.behind(type_name) {
                self.add_guard(name.to_string(), guard);
            }
        }
        if !restricted.types.is_empty() {
            self.guard_what_gives_types();
        }
        Ok(())
    }

    /// A field that gives a guarded type is guarded itself, and so are the fields of a guarded root.
    fn guard_what_gives_types(&mut self) {
        let graphql = self.graphql.clone();
        for object in graphql.types.values().filter_map(ExtendedType::as_object) {
            for field in object.fields.values() {
                let given = self.guards.get(field.ty.inner_named_type().as_str()).cloned();
                let own = self.guards.get(object.name.as_str()).filter(|_| object.name == self.root).cloned();
                for guard in given.iter().chain(&own) {
                    self.add_guard(format!("{}.{}", object.name, field.name), guard);
                }
            }
        }
    }

    fn guard_field(&mut self, type_name: &Name, field: &str, guard: &Guard) {
        for name in self.behind(type_name) {
            self.add_guard(format!("{name}.{field}"), guard);
        }
    }

    /// A type, and every type that implements it.
    fn behind(&self, type_name: &Name) -> Vec<Name> {
        let implementers = self.implementers.get(type_name);
        let names = implementers.into_iter().flat_map(|types| types.objects.iter().chain(&types.interfaces));
        names.chain([type_name]).cloned().collect()
    }

    /// Adds to what is asked for already.
    fn add_guard(&mut self, coordinate: String, guard: &Guard) {
        let known = self.guards.entry(coordinate);
        known.and_modify(|first| *first = first.and(guard)).or_insert_with(|| guard.clone());
    }
}

impl Field {
    fn build(schema: &Schema, index: usize, declaration: Declaration) -> Result<Field, SchemaError> {
        let root = &schema.root;
        let wrong = |problem: String| {
            SchemaError(format!("{} ({root}.{}): {problem}", declaration.function, declaration.field))
        };
        let definition = schema.graphql.type_field(root, &declaration.field).ok();
        // Introspection fields have no function.
        let definition = definition.filter(|_| !declaration.field.starts_with("__")).ok_or_else(|| {
            let names: Vec<&str> = schema.root_fields().map(Name::as_str).collect();
            wrong(format!("there is no such field, expected one of {}", names.join(", ")))
        })?;
        let argument = |name: &str| {
            let coordinate = |argument: &InputValueDefinition| format!("{root}.{}.{}", definition.name, argument.name);
            let found = |argument: &&Node<InputValueDefinition>| schema.python_name(&coordinate(argument)) == name;
            definition.arguments.iter().find(found)
        };
        let is_generator = declaration.kind == Kind::Generator;
        let filters = [
            ("channel", !declaration.channel.is_empty()),
            ("event_types", declaration.event_types.is_some()),
            ("where", declaration.where_.is_some()),
            ("rows", declaration.rows.is_some()),
            ("sources", declaration.sources.is_some()),
            ("timeout", declaration.timeout.is_some()),
            ("events_per_second", declaration.events_per_second.is_some()),
        ];
        if let Some((name, _)) = filters.iter().find(|(_, given)| is_generator && *given) {
            return Err(wrong(format!("a generator takes no {name}")));
        }
        let channel = if is_generator {
            None
        } else {
            Some(ChannelTemplate::parse(&declaration.channel, schema, &argument).map_err(wrong)?)
        };
        if declaration.kind == Kind::Passthrough
            && let Some(coordinate) = schema.reachable_arguments(definition.ty.inner_named_type())
        {
            return Err(wrong(format!(
                "a passthrough cannot give {coordinate}, which takes arguments: expected a function, or fields without arguments"
            )));
        }
        let kind = |name: &str, path: &[String]| schema.operand_kind(argument(name)?, path);
        let compile = |expr: &Option<Expr>, what: &str| {
            let compiled = expr.as_ref().map(|expr| Predicate::compile(expr, &kind)).transpose();
            compiled.map_err(|problem| wrong(format!("{what}: {problem}")))
        };
        let scope = declaration.scope.iter().map(|rule| Scope::compile(rule, schema, &argument));
        let scope = scope.collect::<Result<_, _>>().map_err(|problem| wrong(format!("scope: {problem}")))?;
        Ok(Field {
            index,
            name: declaration.field.as_str().into(),
            definition: definition.node.clone(),
            channel,
            where_: compile(&declaration.where_, "where")?,
            rows: compile(&declaration.rows, "rows")?,
            scope,
            declaration,
        })
    }
}

impl Schema {
    /// The first field with arguments that a value of this type may lead to.
    fn reachable_arguments(&self, type_name: &str) -> Option<String> {
        let (mut seen, mut open) = (FxHashSet::default(), vec![type_name.to_owned()]);
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for object in self.possible_types(&name).iter().filter_map(|name| self.graphql.get_object(name)) {
                seen.insert(object.name.to_string());
                for field in object.fields.values() {
                    if !field.arguments.is_empty() {
                        return Some(format!("{}.{}", object.name, field.name));
                    }
                    open.push(field.ty.inner_named_type().to_string());
                }
            }
        }
        None
    }

    /// How an argument, or what a path of Python names leads to below it, compares in a predicate.
    fn operand_kind(&self, argument: &InputValueDefinition, path: &[String]) -> Option<OperandKind> {
        let mut ty: &Type = &argument.ty;
        let mut path = path.iter();
        loop {
            match self.graphql.types.get(ty.inner_named_type())? {
                ExtendedType::InputObject(input) => {
                    let Some(step) = path.next() else {
                        return Some(OperandKind::Json);
                    };
                    let python_name = |name: &Name| self.python_name(&format!("{}.{name}", input.name));
                    let found = input.fields.values().find(|field| python_name(&field.name) == step.as_str());
                    // There is no way through a list.
                    ty = &found.filter(|_| !ty.is_list())?.ty;
                }
                ExtendedType::Scalar(scalar) => return OperandKind::of_scalar(&scalar.name, path.next().is_some()),
                _ => return path.next().is_none().then_some(OperandKind::Json),
            }
        }
    }
}

/// `orderId` and `OrderID` are `order_id`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        camel + &head.to_uppercase() + tail
    })
}

pub(crate) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let starts = |before: char| {
            let next_is_small = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            before != '_' && (!before.is_ascii_uppercase() || next_is_small)
        };
        if letter.is_ascii_uppercase() && before.is_some_and(starts) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
pub(crate) mod tests;
