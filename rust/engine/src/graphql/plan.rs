//! The selection of one operation, compiled: what [`crate::graphql::project`] writes of a value, and what is read of a function's result.
//!
//! Built once per document, operation, variables used below the root and permissions, and shared by `Arc`: subscriptions
//! with the same plan are one projection class. Fragments, type conditions, `@skip` and `@include` are gone here: every
//! possible concrete type has its own list of fields. Guards are asked here too, so that nothing later can forget them: what
//! may not be seen is masked, or the operation is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use apollo_compiler::executable::{self, ExecutableDocument};
use apollo_compiler::schema::{EnumType, ExtendedType, ObjectType, Type};
use apollo_compiler::{Name, Node};
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::error::Refusal;
use crate::error::{GraphQLError, Rejection, code};
use crate::graphql::coerce;
use crate::graphql::document::Positions;
use crate::graphql::schema::Schema;
use crate::security::fields::Guard;
use crate::value::{Object, Value};

/// Fields planned and selections visited for one operation, at most.
const BUDGET: usize = 20_000;

/// The compiled selection of a subscription's root field.
#[derive(Debug)]
pub struct Plan {
    /// The root field.
    pub root: PlannedField,
    /// Dotted GraphQL paths below the root in the order of selection: `id`, `customer`, `customer.name`.
    /// Neither `__typename` nor what is masked is among them.
    pub selected: Vec<Box<str>>,
    /// Equal where a function could not tell the selections apart.
    pub selection_key: Arc<str>,
    /// What to read of a function's result.
    pub reads: Arc<Reads>,
    /// Coordinates of the fields that are null, or may be, as the viewer may not see them: `Type.field`, in their order.
    pub masked: Box<[Box<str>]>,
}

/// A field of the result.
#[derive(Debug)]
pub struct PlannedField {
    /// The alias, else the name.
    pub response_key: Box<str>,
    /// The response key as it is written: `"alias":`.
    pub key_json: Box<str>,
    /// `Type.field`, for messages.
    pub coordinate: Box<str>,
    /// Where its value is found.
    pub key: Arc<Key>,
    /// What it gives.
    pub ty: PlannedType,
    /// Line and column of each place of the document that selects it.
    pub locations: Box<[(usize, usize)]>,
}

/// Where a field's value is found.
#[derive(Debug)]
pub struct Key {
    /// The key in what was read of a function's result: the GraphQL name, and the coerced arguments where it takes any.
    pub slot: Box<str>,
    /// The first name to look for in a mapping or an object.
    pub python_name: Box<str>,
    /// The second one, looked for where the first is missing.
    pub graphql_name: Box<str>,
    /// Coerced arguments by Python name; `None` where the schema gives the field none.
    pub arguments: Option<Arc<Value>>,
}

/// A field's or a list item's type.
#[derive(Debug)]
pub struct PlannedType {
    /// Whether null may stand here.
    pub nullable: bool,
    /// What stands here otherwise.
    pub shape: Shape,
}

/// A type, nullability apart.
#[derive(Debug)]
pub enum Shape {
    /// `__typename`: the answer as JSON.
    Typename(Box<str>),
    /// Always null and an error: the viewer may not see it. It is never read.
    Masked,
    /// A scalar or an enum.
    Leaf(Leaf),
    /// A list.
    List(Box<PlannedType>),
    /// An object type.
    Object(Arc<Selection>),
    /// An interface or a union.
    Abstract(Possible),
}

/// The fields of one concrete type.
#[derive(Debug)]
pub struct Selection {
    /// The object type.
    pub type_name: Box<str>,
    /// In the order of the result.
    pub fields: Vec<PlannedField>,
}

/// The types that may stand behind an interface or a union.
#[derive(Debug)]
pub struct Possible {
    /// The interface or union.
    pub name: Box<str>,
    /// By `__typename`. `None`: a value of this type is null and an error, as the viewer may not see it. It is never read.
    pub types: IndexMap<Box<str>, Option<Arc<Selection>>, FxBuildHasher>,
}

/// How a scalar or an enum is serialised.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are those of the scalars")]
pub enum Leaf {
    Int,
    Float,
    String,
    Boolean,
    Id,
    DateTime,
    Date,
    Time,
    Uuid,
    Decimal,
    /// Any JSON value; also every scalar that is not known here.
    Json,
    Enum(Node<EnumType>),
}

const SCALARS: [(&str, Leaf); 11] = [
    ("Int", Leaf::Int),
    ("Float", Leaf::Float),
    ("String", Leaf::String),
    ("Boolean", Leaf::Boolean),
    ("ID", Leaf::Id),
    ("DateTime", Leaf::DateTime),
    ("Date", Leaf::Date),
    ("Time", Leaf::Time),
    ("UUID", Leaf::Uuid),
    ("Decimal", Leaf::Decimal),
    ("JSON", Leaf::Json),
];

impl Leaf {
    /// How a scalar type is serialised.
    pub fn scalar(name: &str) -> Leaf {
        let known = SCALARS.into_iter().find(|(known, _)| *known == name);
        known.map_or(Leaf::Json, |(_, leaf)| leaf)
    }

    /// The name of the type, for messages.
    pub fn name(&self) -> &str {
        let kind = std::mem::discriminant(self);
        match (self, SCALARS.iter().find(|(_, leaf)| std::mem::discriminant(leaf) == kind)) {
            (Leaf::Enum(definition), _) => &definition.name,
            (_, known) => known.map_or("JSON", |(name, _)| name),
        }
    }

    /// What is said of a value that it cannot serialise; the value follows.
    pub fn complaint(&self) -> String {
        match self {
            Leaf::Int => "Int cannot represent non-integer value:".into(),
            Leaf::Float => "Float cannot represent non numeric value:".into(),
            Leaf::Boolean => "Boolean cannot represent a non boolean value:".into(),
            Leaf::Enum(definition) => format!("Enum '{}' cannot represent value:", definition.name),
            _ => format!("{} cannot represent value:", self.name()),
        }
    }
}

impl Plan {
    /// Compiles a valid subscription. `refuse` is asked for each guard that matters.
    ///
    /// Refused are a root field that is not permitted, a nested one that is not and cannot be null, a type that is not
    /// where no null can stand for its values, arguments that do not fit, and a selection that is too large once its
    /// fragments are spread over all possible types.
    pub fn build(
        schema: &Schema,
        operation: &executable::Operation,
        document: &ExecutableDocument,
        variables: &Object,
        refuse: Refuse<'_>,
    ) -> Result<Plan, Rejection> {
        let mut planner = Planner {
            schema,
            variables,
            refuse,
            document,
            positions: Positions::new(document),
            locations: FxHashMap::default(),
            budget: BUDGET,
            done: FxHashMap::default(),
            masked: BTreeSet::new(),
        };
        let object = schema.graphql.get_object(operation.object_type()).ok_or_else(invalid)?;
        let mut groups = Groups::default();
        planner.collect(object, &operation.selection_set, &mut FxHashSet::default(), &mut groups)?;
        let (_, nodes) = groups.pop().ok_or_else(|| {
            let message = "The subscription selects nothing: its root field is skipped.";
            Rejection::request(code::VALIDATION_FAILED, message)
        })?;
        let root = planner.field(object, &nodes, true)?;
        let reads = Arc::new(Reads::of(&[&root.ty]));
        let mut selected = Vec::new();
        select(&reads.ty.objects(), "", &mut selected)?;
        let selection_key = selected.join(",").into();
        let masked = planner.masked.into_iter().collect();
        Ok(Plan { root, selected, selection_key, reads, masked })
    }
}

/// Why the viewer of this moment may not have what a guard stands before, if so; what that is comes first, in words.
pub type Refuse<'a> = &'a dyn Fn(&str, &Guard) -> Option<Refusal>;

type Groups<'a> = IndexMap<&'a str, Vec<&'a Node<executable::Field>>, FxBuildHasher>;

/// [Spec](https://spec.graphql.org/October2021/#CollectFields()) and everything that is known before a value comes.
struct Planner<'a> {
    schema: &'a Schema,
    variables: &'a Object,
    refuse: Refuse<'a>,
    document: &'a ExecutableDocument,
    positions: Positions<'a>,
    locations: FxHashMap<*const executable::Field, Option<(usize, usize)>>,
    budget: usize,
    /// Selections by concrete type and the places of the document that they come from. Without it, an interface whose
    /// fields lead back to interfaces would be planned as often as there are ways of types down to it.
    done: FxHashMap<(&'a str, Vec<*const executable::Field>), Arc<Selection>>,
    masked: BTreeSet<Box<str>>,
}

impl<'a> Planner<'a> {
    fn selection(
        &mut self,
        object: &'a ObjectType,
        nodes: &[&'a Node<executable::Field>],
    ) -> Result<Arc<Selection>, Rejection> {
        let key = (object.name.as_str(), nodes.iter().map(|node| std::ptr::from_ref(&***node)).collect());
        if let Some(done) = self.done.get(&key) {
            return Ok(Arc::clone(done));
        }
        let (mut groups, mut visited) = (Groups::default(), FxHashSet::default());
        for node in nodes {
            self.collect(object, &node.selection_set, &mut visited, &mut groups)?;
        }
        let fields: Result<_, _> = groups.values().map(|nodes| self.field(object, nodes, false)).collect();
        let type_name = object.name.as_str().into();
        let selection = Arc::new(Selection { type_name, fields: fields? });
        self.done.insert(key, Arc::clone(&selection));
        Ok(selection)
    }

    fn collect(
        &mut self,
        object: &ObjectType,
        set: &'a executable::SelectionSet,
        visited: &mut FxHashSet<&'a str>,
        groups: &mut Groups<'a>,
    ) -> Result<(), Rejection> {
        for selection in &set.selections {
            self.budget = self.budget.checked_sub(1).ok_or_else(too_large)?;
            if !self.is_included(selection.directives())? {
                continue;
            }
            let (condition, set) = match selection {
                executable::Selection::Field(field) => {
                    groups.entry(field.response_key()).or_default().push(field);
                    continue;
                }
                executable::Selection::InlineFragment(inline) => {
                    (inline.type_condition.as_ref(), &inline.selection_set)
                }
                executable::Selection::FragmentSpread(spread) => {
                    let fragment = self.document.fragments.get(&spread.fragment_name).ok_or_else(invalid)?;
                    if !visited.insert(&spread.fragment_name) {
                        continue;
                    }
                    (Some(fragment.type_condition()), &fragment.selection_set)
                }
            };
            let applies = |name: &Name| *name == object.name || self.schema.graphql.is_subtype(name, &object.name);
            if condition.is_none_or(applies) {
                self.collect(object, set, visited, groups)?;
            }
        }
        Ok(())
    }

    fn is_included(&self, directives: &executable::DirectiveList) -> Result<bool, Rejection> {
        for (name, wanted) in [("skip", false), ("include", true)] {
            let Some(directive) = directives.get(name) else {
                continue;
            };
            let flag = match directive.specified_argument_by_name("if").map(|value| &**value) {
                Some(executable::Value::Boolean(flag)) => *flag,
                Some(executable::Value::Variable(name)) => match self.variables.get(name.as_str()) {
                    Some(Value::Bool(flag)) => *flag,
                    // A nullable variable with a default is allowed here, and null may be given for it all the same.
                    _ => {
                        let message = "Argument 'if' of non-null type 'Boolean!' must not be null.";
                        let mut error = GraphQLError::new(code::BAD_USER_INPUT, message);
                        error.locations.extend(self.positions.at(directive.location()));
                        return Err(Rejection::Request(vec![error]));
                    }
                },
                _ => return Err(invalid()),
            };
            if flag != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One field of a concrete type; the places that select it say the same, as the document is valid.
    fn field(
        &mut self,
        object: &'a ObjectType,
        nodes: &[&'a Node<executable::Field>],
        is_root: bool,
    ) -> Result<PlannedField, Rejection> {
        let first = nodes[0];
        let (type_name, name) = (object.name.as_str(), first.name.as_str());
        let definition = self.schema.graphql.type_field(type_name, name).map_err(|_| invalid())?;
        let coordinate = format!("{type_name}.{name}");
        let mut arguments = None;
        let shape = if name == "__typename" {
            Shape::Typename(format!("\"{type_name}\"").into())
        } else if let Some(guard) = self.schema.guard(type_name, name)
            && let Some(refusal) = (self.refuse)(&coordinate, guard)
        {
            if is_root || definition.ty.is_non_null() {
                return Err(refusal.into());
            }
            self.masked.insert(coordinate.as_str().into());
            Shape::Masked
        } else {
            // The root's arguments are the operation's: plans are shared whatever they are.
            if !definition.arguments.is_empty() && !is_root {
                let (schema, document, variables) = (self.schema, self.document, self.variables);
                let coerced = coerce::arguments(schema, definition, &coordinate, first, document, variables);
                arguments = Some(Arc::new(Value::Object(coerced.map_err(Rejection::Request)?)));
            }
            self.ty(&definition.ty, nodes, &coordinate, false)?.shape
        };
        let slot = match &arguments {
            Some(arguments) => format!("{name}\0{}", arguments.canonical()).into(),
            None => name.into(),
        };
        let (python_name, graphql_name) = (self.schema.python_name(&coordinate).into(), name.into());
        let nullable = !definition.ty.is_non_null();
        let locations = nodes.iter().filter_map(|node| self.location(node)).collect();
        Ok(PlannedField {
            response_key: first.response_key().as_str().into(),
            key_json: format!("\"{}\":", first.response_key()).into(),
            coordinate: coordinate.into(),
            key: Arc::new(Key { slot, python_name, graphql_name, arguments }),
            ty: PlannedType { nullable, shape },
            locations,
        })
    }

    /// Each place is looked up once: a long line takes its time, and a place may be planned for many types.
    fn location(&mut self, node: &Node<executable::Field>) -> Option<(usize, usize)> {
        let known = self.locations.entry(std::ptr::from_ref(&**node));
        *known.or_insert_with(|| self.positions.at(node.location()))
    }

    /// `yields` tells whether a null that cannot stand here may stand further up in the same field.
    fn ty(
        &mut self,
        ty: &'a Type,
        nodes: &[&'a Node<executable::Field>],
        coordinate: &str,
        yields: bool,
    ) -> Result<PlannedType, Rejection> {
        let nullable = !ty.is_non_null();
        let yields = yields || nullable;
        let shape = match ty {
            Type::List(item) | Type::NonNullList(item) => {
                Shape::List(Box::new(self.ty(item, nodes, coordinate, yields)?))
            }
            Type::Named(name) | Type::NonNullNamed(name) => {
                let types = &self.schema.graphql.types;
                match types.get(name).ok_or_else(invalid)? {
                    ExtendedType::Scalar(_) => Shape::Leaf(Leaf::scalar(name)),
                    ExtendedType::Enum(definition) => Shape::Leaf(Leaf::Enum(definition.clone())),
                    ExtendedType::Object(object) => Shape::Object(self.selection(object, nodes)?),
                    ExtendedType::Interface(_) | ExtendedType::Union(_) => {
                        let objects = self.schema.possible_types(name);
                        let objects = objects.iter().filter_map(|name| self.schema.graphql.get_object(name));
                        let mut types = IndexMap::default();
                        for object in objects {
                            let guard = self.schema.type_guard(&object.name);
                            let may_give = || format!("{coordinate} may give {}, which", object.name);
                            let selection = match guard.and_then(|guard| (self.refuse)(&may_give(), guard)) {
                                None => Some(self.selection(object, nodes)?),
                                Some(refusal) if !yields => return Err(refusal.into()),
                                Some(_) => {
                                    self.masked.insert(coordinate.into());
                                    None
                                }
                            };
                            types.insert(object.name.as_str().into(), selection);
                        }
                        Shape::Abstract(Possible { name: name.as_str().into(), types })
                    }
                    ExtendedType::InputObject(_) => return Err(invalid()),
                }
            }
        };
        Ok(PlannedType { nullable, shape })
    }
}

/// Only a document that was not validated against this schema leads here.
fn invalid() -> Rejection {
    Rejection::request(code::INTERNAL_SERVER_ERROR, "The document does not fit the schema.")
}

fn too_large() -> Rejection {
    let message = "The selection is too large for the types that it may meet.";
    Rejection::request(code::LIMIT_EXCEEDED, message)
}

/// What has to be read of a function's result: a tree of values whose objects are keyed by slot (and have `__typename`
/// where the type is an interface or a union).
#[derive(Debug)]
pub struct Reads {
    /// The root field's type.
    pub ty: ReadType,
}

/// A type, as far as reading it matters.
#[derive(Clone, Debug)]
pub enum ReadType {
    /// A scalar or an enum.
    Leaf(Leaf),
    /// A list.
    List(Arc<ReadType>),
    /// An object type.
    Object(Arc<ReadObject>),
    /// An interface or a union: the fields to read by `__typename`.
    Abstract(Arc<[Arc<ReadObject>]>),
}

/// The fields to read of an object.
#[derive(Debug)]
pub struct ReadObject {
    /// The object type.
    pub type_name: Box<str>,
    /// No slot stands here twice.
    pub fields: Vec<ReadField>,
}

/// A field to read.
#[derive(Debug)]
pub struct ReadField {
    /// Where it is found.
    pub key: Arc<Key>,
    /// What it gives.
    pub ty: ReadType,
}

impl Reads {
    /// What plans of one field that wait for the same call need together.
    pub fn union(first: &Arc<Plan>, others: &[Arc<Plan>]) -> Arc<Reads> {
        if others.iter().all(|other| Arc::ptr_eq(first, other)) {
            return Arc::clone(&first.reads);
        }
        let types: Vec<_> = std::iter::once(first).chain(others).map(|plan| &plan.root.ty).collect();
        Arc::new(Reads::of(&types))
    }

    fn of(types: &[&PlannedType]) -> Reads {
        Reads { ty: Merge::default().ty(types) }
    }
}

impl ReadType {
    /// The objects at the bottom of it.
    fn objects(&self) -> Vec<&Arc<ReadObject>> {
        match self {
            ReadType::Leaf(_) => Vec::new(),
            ReadType::List(item) => item.objects(),
            ReadType::Object(object) => vec![object],
            ReadType::Abstract(objects) => objects.iter().collect(),
        }
    }
}

/// Merges planned types by slot, all the way down, and each set of selections once.
#[derive(Default)]
struct Merge {
    done: FxHashMap<(Box<str>, Vec<*const Selection>), Arc<ReadObject>>,
}

impl Merge {
    /// All parts are of one type of the schema.
    fn ty(&mut self, parts: &[&PlannedType]) -> ReadType {
        let mut types = IndexMap::<_, Vec<&Arc<Selection>>, FxBuildHasher>::default();
        let mut items = Vec::new();
        for part in parts {
            match &part.shape {
                Shape::Leaf(leaf) => return ReadType::Leaf(leaf.clone()),
                Shape::List(item) => items.push(&**item),
                Shape::Object(selection) => types.entry(&selection.type_name).or_default().push(selection),
                Shape::Abstract(possible) => {
                    for (name, selection) in &possible.types {
                        // One that is masked is told from the others, and no more is read of it.
                        types.entry(name).or_default().extend(selection);
                    }
                }
                Shape::Typename(_) | Shape::Masked => {}
            }
        }
        let mut objects = types.into_iter().map(|(name, selections)| self.object(name, &selections));
        match &parts[0].shape {
            Shape::Abstract(_) => ReadType::Abstract(objects.collect()),
            _ => match objects.next() {
                Some(object) => ReadType::Object(object),
                None => ReadType::List(Arc::new(self.ty(&items))),
            },
        }
    }

    fn object(&mut self, type_name: &str, parts: &[&Arc<Selection>]) -> Arc<ReadObject> {
        let mut selections: Vec<_> = parts.iter().map(|part| Arc::as_ptr(part)).collect();
        selections.sort_unstable();
        selections.dedup();
        let key = (type_name.into(), selections);
        if let Some(done) = self.done.get(&key) {
            return Arc::clone(done);
        }
        let mut slots = IndexMap::<_, Vec<&PlannedField>, FxBuildHasher>::default();
        for field in parts.iter().flat_map(|part| &part.fields) {
            // Typenames are known, and what is masked is not even read.
            if !matches!(field.ty.shape, Shape::Typename(_) | Shape::Masked) {
                slots.entry(&field.key.slot).or_default().push(field);
            }
        }
        let merge = |fields: &Vec<&PlannedField>| ReadField {
            key: Arc::clone(&fields[0].key),
            ty: self.ty(&fields.iter().map(|field| &field.ty).collect::<Vec<_>>()),
        };
        let fields = slots.values().map(merge).collect();
        let merged = Arc::new(ReadObject { type_name: type_name.into(), fields });
        self.done.insert(key, Arc::clone(&merged));
        merged
    }
}

/// Collects the dotted paths below some objects that stand at one place.
fn select(objects: &[&Arc<ReadObject>], above: &str, selected: &mut Vec<Box<str>>) -> Result<(), Rejection> {
    let mut names = IndexMap::<_, IndexMap<_, _, FxBuildHasher>, FxBuildHasher>::default();
    for field in objects.iter().flat_map(|object| &object.fields) {
        let below = names.entry(&field.key.graphql_name).or_default();
        below.extend(field.ty.objects().into_iter().map(|object| (Arc::as_ptr(object), object)));
    }
    for (name, below) in names {
        if selected.len() == BUDGET {
            return Err(too_large());
        }
        let dot = if above.is_empty() { "" } else { "." };
        let path = format!("{above}{dot}{name}");
        selected.push(path.as_str().into());
        select(&below.into_values().collect::<Vec<_>>(), &path, selected)?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests;
