//! The schema: SDL, and the functions declared for its subscription fields. From when it is built documents are validated against it (`operation`), arguments coerced to it
//! (`coerce`), selections compiled against it (`plan`). It knows neither clients nor events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use apollo_compiler::collections::HashMap as ApolloMap;
use apollo_compiler::schema::{ExtendedType, FieldDefinition, Implementers, InputValueDefinition};
use apollo_compiler::validation::Valid;
use apollo_compiler::{Name, Node};
use indexmap::IndexMap;
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::Deserialize;

use super::coerce;
use super::field::{Declaration, Field};
use super::names::{camel_case, python_name};
use super::plan::{Key, Leaf};
use super::sdl::{self, SchemaError};
use crate::predicate::Predicate;
use crate::security::fields::Guard;
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
    /// Whether subscription fields without a function are left out.
    pub partial: bool,
    /// What scalars of the SDL are, by name: one of the scalars that are known here.
    pub scalars: HashMap<String, String>,
    /// Guards of types' fields by coordinate.
    pub requires: HashMap<String, Guard>,
}

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
    /// What is allowed, and can hardly be meant; each text names its function.
    pub warnings: Vec<String>,
    pub(super) implementers: ApolloMap<Name, Implementers>,
    python_names: HashMap<String, String>,
    /// By coordinate: `Type.field` and `Type`.
    pub(super) guards: HashMap<String, Guard>,
    /// Of arguments, by coordinate.
    defaults: FxHashMap<String, Value>,
    /// Of every input object, in the order of its definition.
    inputs: FxHashMap<Name, Box<[InputField]>>,
    pub(super) root: Name,
    /// What is known of the SDL's own scalars.
    scalars: IndexMap<Name, Leaf, FxBuildHasher>,
    /// Of fields that somebody has selected, by coordinate.
    planned: Mutex<FxHashMap<Arc<str>, Arc<Key>>>,
}

/// What coercing an input object asks of each of its fields, looked up once for all values.
#[derive(Debug)]
pub(super) struct InputField {
    pub(super) python_name: Box<str>,
    /// Coerced.
    pub(super) default: Option<Value>,
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
            warnings: Vec::new(),
            python_names: input.python_names,
            guards: HashMap::new(),
            defaults: FxHashMap::default(),
            inputs: FxHashMap::default(),
            scalars: IndexMap::default(),
            root,
            planned: Mutex::default(),
        };
        schema.fill_scalars(&input.scalars, input.code_first)?;
        schema.fill_inputs();
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
            schema.check_channel(&field)?;
            if let Some(guard) = &field.declaration.requires {
                schema.add_guard(format!("{}.{}", schema.root, field.name), guard);
            }
            schema.warnings.extend(field.untyped_orders());
            schema.fields.insert(field.name.clone(), Arc::new(field));
        }
        if input.partial {
            schema.leave_out();
        }
        let missing = schema.root_fields().find(|name| !schema.fields.contains_key(name.as_str()));
        if let Some(name) = missing {
            let (root, snake) = (&schema.root, python_name(name));
            return Err(SchemaError(format!(
                "{root}.{name} has no function: expected one that is called {snake} or {name}, or has name=\"{name}\"; or \
                 partial=True, which leaves such fields out"
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
            None => Cow::Owned(python_name(coordinate.rsplit('.').next().unwrap_or(coordinate))),
        }
    }

    /// The coordinate of a field, and where its value is found without arguments: one of each for all plans.
    pub(super) fn planned(&self, coordinate: &str, name: &str) -> (Arc<str>, Arc<Key>) {
        let mut planned = self.planned.lock();
        if let Some((coordinate, key)) = planned.get_key_value(coordinate) {
            return (coordinate.clone(), key.clone());
        }
        let (slot, python_name, arguments) = (name.into(), (&*self.python_name(coordinate)).into(), None);
        let key = Arc::new(Key { slot, python_name, graphql_name: name.into(), arguments });
        let coordinate: Arc<str> = coordinate.into();
        planned.insert(coordinate.clone(), key.clone());
        (coordinate, key)
    }

    /// Whether the arguments of two fields are coerced alike.
    pub(super) fn takes_alike(&self, one: (&str, &FieldDefinition), other: (&str, &FieldDefinition)) -> bool {
        let ((place, one), (elsewhere, other)) = (one, other);
        let is_alike = |(one, other): (&Node<InputValueDefinition>, &Node<InputValueDefinition>)| {
            let at = [place, elsewhere].map(|place| format!("{place}.{}", one.name));
            let [python, others] = [&at[0], &at[1]].map(|at| self.python_name(at));
            (&one.name, &one.ty, python, self.default(&at[0])) == (&other.name, &other.ty, others, self.default(&at[1]))
        };
        one.arguments.len() == other.arguments.len() && one.arguments.iter().zip(&other.arguments).all(is_alike)
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

    /// The coordinates of what depends on who the viewer is: fields with such `rows`, and what needs permissions.
    pub fn asks_for_viewer(&self) -> Vec<String> {
        let by_rows = self.fields.values().filter(|field| field.rows.as_ref().is_some_and(Predicate::asks_for_viewer));
        let by_rows = by_rows.map(|field| format!("{}.{}", self.root, field.name));
        let mut all: Vec<String> = by_rows.chain(self.guards.keys().cloned()).collect();
        all.sort_unstable();
        all.dedup();
        all
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

    /// The coerced default of an argument, by coordinate.
    pub(crate) fn default(&self, coordinate: &str) -> Option<&Value> {
        self.defaults.get(coordinate)
    }

    /// The fields of an input object, in the order of its definition.
    pub(super) fn input_fields(&self, name: &Name) -> &[InputField] {
        self.inputs.get(name).map_or(&[], |fields| fields)
    }

    /// What a caller of the functions has to know: type references by Python name of each field's arguments (`fields`, in the order of the
    /// declarations), of the arguments below them (`nested`, by `Type.field`) and of each input object's fields (`inputs`), and the names of each
    /// enum (`enums`).
    pub fn signatures(&self) -> Value {
        let references = |owner: &str, definitions: &mut dyn Iterator<Item = &InputValueDefinition>| {
            let reference = |definition: &InputValueDefinition| {
                let name = self.python_name(&format!("{owner}.{}", definition.name));
                let inner = definition.ty.inner_named_type();
                let meaning = self.scalars.get(inner).map_or(inner.as_str(), |leaf| leaf.kind().name());
                (name.into(), Value::string(definition.ty.to_string().replace(inner.as_str(), meaning)))
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

    /// Takes off what has no function.
    fn leave_out(&mut self) {
        let mut graphql = self.graphql.clone().into_inner();
        if let Some(ExtendedType::Object(root)) = graphql.types.get_mut(&self.root) {
            let root = root.make_mut();
            root.fields.retain(|name, _| self.fields.contains_key(name.as_str()));
            // It may ask for a field that is gone.
            root.implements_interfaces.clear();
        }
        let mut printed = graphql.clone();
        // Its `isOneOf` is ours.
        printed.types.shift_remove("__Type");
        self.sdl = printed.to_string();
        self.implementers = graphql.implementers_map();
        self.graphql = Valid::assume_valid(graphql);
    }

    /// How a scalar type is coerced and serialised.
    pub(super) fn scalar(&self, name: &str) -> Leaf {
        self.scalars.get(name).cloned().unwrap_or_else(|| Leaf::scalar(name))
    }

    fn fill_scalars(&mut self, given: &HashMap<String, String>, code_first: bool) -> Result<(), SchemaError> {
        let is_own = |definition: &ExtendedType| definition.is_scalar() && !definition.is_built_in() && !code_first;
        for (name, _) in self.graphql.types.iter().filter(|(_, definition)| is_own(definition)) {
            let meaning = given.get(name.as_str());
            self.scalars.insert(name.clone(), Leaf::named(name, meaning.map_or(name, |name| name), meaning.is_none()));
        }
        let Some(unknown) = given.keys().find(|name| !self.scalars.contains_key(name.as_str())) else {
            return Ok(());
        };
        let own = self.scalars.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
        Err(SchemaError(format!("scalars: the SDL defines no scalar {unknown}; expected some of {own}")))
    }

    pub(super) fn root_fields(&self) -> impl Iterator<Item = &Name> {
        self.graphql.get_object(&self.root).into_iter().flat_map(|object| object.fields.keys())
    }

    fn fill_inputs(&mut self) {
        for input in self.graphql.types.values().filter_map(ExtendedType::as_input_object) {
            let field = |field: &Name| {
                let python_name = self.python_name(&format!("{}.{field}", input.name)).into();
                InputField { python_name, default: None }
            };
            let fields = input.fields.keys().map(field).collect();
            self.inputs.insert(input.name.clone(), fields);
        }
    }

    /// Coerces every default of the schema once. One may need another (an input object's field); one that needs itself is
    /// found by nothing being left that can be coerced.
    fn fill_defaults(&mut self) -> Result<(), SchemaError> {
        let graphql = self.graphql.clone();
        let mut pending: Vec<(String, usize, &InputValueDefinition)> = Vec::new();
        for (type_name, definition) in graphql.types.iter().filter(|(_, definition)| !definition.is_built_in()) {
            let fields = match definition {
                ExtendedType::InputObject(input) => {
                    let fields = input.fields.values().enumerate();
                    pending.extend(fields.map(|(at, field)| (type_name.to_string(), at, &***field)));
                    continue;
                }
                ExtendedType::Object(object) => &object.fields,
                ExtendedType::Interface(interface) => &interface.fields,
                _ => continue,
            };
            for field in fields.values() {
                let owner = format!("{type_name}.{}", field.name);
                let arguments = field.arguments.iter().enumerate();
                pending.extend(arguments.map(|(at, argument)| (owner.clone(), at, &**argument)));
            }
        }
        pending.retain(|(.., definition)| definition.default_value.is_some());
        while !pending.is_empty() {
            let before = pending.len();
            let mut problem = None;
            pending.retain(|(owner, at, definition)| {
                let coordinate = format!("{owner}.{}", definition.name);
                match coerce::default(self, definition) {
                    Ok(value) => match self.inputs.get_mut(owner.as_str()) {
                        Some(fields) => fields[*at].default = Some(value),
                        None => _ = self.defaults.insert(coordinate, value),
                    },
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

    /// No client may choose a value by which its subscription to one field listens to the channel of another.
    fn check_channel(&self, field: &Field) -> Result<(), SchemaError> {
        let collides = |other: &&Arc<Field>| match (&field.channel, &other.channel) {
            (Some(channel), Some(other)) => channel.collides(other),
            _ => false,
        };
        let Some(other) = self.fields.values().find(collides) else { return Ok(()) };
        let (one, two) = (&other.declaration, &field.declaration);
        Err(SchemaError(format!(
            "{} (channel \"{}\") and {} (channel \"{}\") can have the same channel: a value of one is the text of the other. \
             Expected channels that always differ, as \"orders:id:{{id}}\" and \"orders:all\" do",
            one.function, one.channel, two.function, two.channel
        )))
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
}

#[cfg(test)]
pub(crate) mod tests;
