//! Compiling a selection. What is known before a value comes is done here: fragments and type conditions are spread, `@skip` and
//! `@include` decided, nested arguments coerced, guards asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use apollo_compiler::executable::{self, ExecutableDocument};
use apollo_compiler::schema::{ExtendedType, FieldDefinition, ObjectType, Type};
use apollo_compiler::{Name, Node};
use foldhash::HashSet;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use super::coerce;
use super::edition;
use super::field::Kind;
use super::input::Room;
use super::introspection;
use super::plan::{Key, Leaf, Place, Plan, PlannedField, PlannedType, Possible, Selection, Shape};
use super::positions::Positions;
use super::reads::{ReadObject, Reads};
use super::schema::Schema;
use crate::error::{GraphQLError, Refusal, Rejection, code};
use crate::security::fields::Guard;
use crate::value::{Object, Value};

/// Fields planned and selections visited for one operation, at most.
const BUDGET: usize = 20_000;

/// What introspection below the root may take in one plan, in bytes.
const INTROSPECTION: usize = 256 * 1024;

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
        max_argument_bytes: usize,
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
            introspection: INTROSPECTION,
            is_passthrough: false,
            done: FxHashMap::default(),
            places: FxHashMap::default(),
            possible: FxHashMap::default(),
            keys: FxHashMap::default(),
            room: Room::new(max_argument_bytes),
            masked: BTreeSet::new(),
            hashing: RandomState::default(),
            size: size_of::<Plan>(),
        };
        let object = schema.graphql.get_object(operation.object_type()).ok_or_else(invalid)?;
        let mut groups = Groups::default();
        planner.collect(object, &operation.selection_set, &mut HashSet::default(), &mut groups)?;
        let (_, nodes) = groups.pop().ok_or_else(|| {
            let message = "The subscription selects nothing: its root field is skipped.";
            Rejection::request(code::VALIDATION_FAILED, message)
        })?;
        let field = schema.fields.get(nodes[0].name.as_str());
        planner.is_passthrough = field.is_some_and(|field| field.declaration.kind == Kind::Passthrough);
        let root = planner.field(object, &nodes, true)?;
        let reads = Arc::new(Reads::of(&[&root.ty]));
        let mut selected = Vec::new();
        select(&reads.ty.objects(), "", &mut selected)?;
        let masked: Box<[_]> = planner.masked.into_iter().collect();
        let texts = selected.iter().chain(&masked).map(|text| text.len() + PER_TEXT).sum::<usize>();
        let (selected, size) = (selected.into(), planner.size + reads.size + texts);
        Ok(Plan { root, selected, reads, masked, known_by: Arc::default(), size })
    }
}

/// Why the viewer of this moment may not have what a guard stands before, if so; what that is comes first, in words.
pub(super) type Refuse<'a> = &'a dyn Fn(&str, &Guard) -> Option<Refusal>;

/// By response key.
type Groups<'a> = IndexMap<&'a str, Vec<&'a Node<executable::Field>>, RandomState>;

/// [Spec](https://spec.graphql.org/October2021/#CollectFields()) and everything that is known before a value comes.
struct Planner<'a> {
    schema: &'a Schema,
    variables: &'a Object,
    refuse: Refuse<'a>,
    document: &'a ExecutableDocument,
    positions: Positions<'a>,
    locations: FxHashMap<*const executable::Field, Option<(usize, usize)>>,
    budget: usize,
    /// How many bytes of introspection may still be answered.
    introspection: usize,
    is_passthrough: bool,
    /// Selections by concrete type and the places of the document that they come from. Without it, an interface whose
    /// fields lead back to interfaces would be planned as often as there are ways of types down to it.
    done: FxHashMap<(&'a str, Nodes), Arc<Selection>>,
    /// What the document says of a field, for all types that it is planned for.
    places: FxHashMap<Nodes, Arc<Place>>,
    /// Of an abstract type of which nothing is refused.
    possible: FxHashMap<(&'a str, Nodes), Arc<Possible>>,
    /// By a field with arguments: they are coerced once for all types that define it alike.
    keys: FxHashMap<*const executable::Field, Vec<Keyed<'a>>>,
    /// For their copies.
    room: Room,
    masked: BTreeSet<Box<str>>,
    hashing: RandomState,
    /// The memory that was made so far.
    size: usize,
}

/// A field of a type, and where its value is found with its arguments.
type Keyed<'a> = (Box<str>, &'a FieldDefinition, Arc<Key>);

/// Places of the document that select one field.
type Nodes = SmallVec<[*const executable::Field; 2]>;

fn addresses(nodes: &[&Node<executable::Field>]) -> Nodes {
    nodes.iter().map(|node| std::ptr::from_ref(&***node)).collect()
}

/// What a text takes beside its bytes,
const PER_TEXT: usize = 40;
/// a selection beside its fields,
const PER_SELECTION: usize = 64;
/// what the document says of a field beside the key,
const PER_PLACE: usize = 96;
/// a key with arguments,
const PER_KEY: usize = 160;
/// and each type behind an abstract one.
const PER_TYPE: usize = 64;

impl<'a> Planner<'a> {
    fn selection(
        &mut self,
        object: &'a ObjectType,
        nodes: &[&'a Node<executable::Field>],
    ) -> Result<Arc<Selection>, Rejection> {
        let key = (object.name.as_str(), addresses(nodes));
        if let Some(done) = self.done.get(&key) {
            return Ok(Arc::clone(done));
        }
        let mut groups = Groups::with_hasher(self.hashing.clone());
        let mut visited = HashSet::with_hasher(self.hashing.clone());
        for node in nodes {
            self.collect(object, &node.selection_set, &mut visited, &mut groups)?;
        }
        let fields: Result<Box<[_]>, _> = groups.values().map(|nodes| self.field(object, nodes, false)).collect();
        let (type_name, fields) = (object.name.as_str().into(), fields?);
        self.size += PER_SELECTION + object.name.len() + size_of_val(&*fields);
        let selection = Arc::new(Selection { type_name, fields });
        self.done.insert(key, Arc::clone(&selection));
        Ok(selection)
    }

    fn collect(
        &mut self,
        object: &ObjectType,
        set: &'a executable::SelectionSet,
        visited: &mut HashSet<&'a str>,
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
        if let Some(node) = nodes.iter().find(|node| edition::differ(&node.arguments, &first.arguments)) {
            let key = first.response_key();
            let message =
                format!("Fields '{key}' conflict because they have differing arguments. Use different aliases.");
            return Err(self.invalid_field(message, node));
        }
        let (planned, mut key) = self.schema.planned(&coordinate, name);
        let shape = if name == "__typename" {
            Shape::Typename(format!("\"{type_name}\"").into())
        } else if matches!(name, "__schema" | "__type") {
            let answer = introspection::below(self.schema, self.document, nodes, self.variables, self.introspection)?;
            self.introspection -= answer.len();
            self.size += PER_TEXT + answer.len();
            Shape::Typename(answer)
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
                if self.is_passthrough {
                    let message = format!(
                        "{coordinate} takes arguments, which no event's data can answer: select a field without."
                    );
                    return Err(self.invalid_field(message, first));
                }
                key = self.key(&coordinate, definition, first, &key)?;
            }
            self.ty(&definition.ty, nodes, &coordinate, false)?.shape
        };
        let ty = PlannedType { nullable: !definition.ty.is_non_null(), shape };
        Ok(PlannedField { place: self.place(nodes), coordinate: planned, key, ty })
    }

    /// Where a field with arguments is found.
    fn key(
        &mut self,
        coordinate: &str,
        definition: &'a FieldDefinition,
        node: &'a Node<executable::Field>,
        plain: &Key,
    ) -> Result<Arc<Key>, Rejection> {
        let Planner { schema, document, variables, room, .. } = &*self;
        let known = self.keys.get(&std::ptr::from_ref(&**node));
        let is_alike = |(other, known, key): &&Keyed<'_>| {
            key.python_name == plain.python_name && schema.takes_alike((coordinate, definition), (other, known))
        };
        if let Some((.., key)) = known.and_then(|known| known.iter().find(is_alike)) {
            return Ok(key.clone());
        }
        let coerced = coerce::arguments(schema, definition, coordinate, node, document, variables, room);
        let arguments = Value::Object(coerced.map_err(Room::refuse)?);
        let slot: Box<str> = format!("{}\0{}", node.name, arguments.canonical()).into();
        self.size += PER_KEY + slot.len() + arguments.size();
        let (python_name, graphql_name) = (plain.python_name.clone(), plain.graphql_name.clone());
        let key = Arc::new(Key { slot, python_name, graphql_name, arguments: Some(Arc::new(arguments)) });
        let keys = self.keys.entry(std::ptr::from_ref(&**node)).or_default();
        keys.push((coordinate.into(), definition, key.clone()));
        Ok(key)
    }

    /// What the document says of a field.
    fn place(&mut self, nodes: &[&'a Node<executable::Field>]) -> Arc<Place> {
        if let Some(place) = self.places.get(&addresses(nodes)) {
            return place.clone();
        }
        let locations = nodes.iter().filter_map(|node| self.location(node));
        let locations: SmallVec<_> = locations.map(|(line, column)| (line as u32, column as u32)).collect();
        let key_json = format!("\"{}\":", nodes[0].response_key()).into_boxed_str();
        self.size += PER_PLACE + key_json.len() + locations.spilled() as usize * 8 * locations.len();
        let place = Arc::new(Place { key_json, locations });
        self.places.insert(addresses(nodes), place.clone());
        place
    }

    fn invalid_field(&mut self, message: String, node: &Node<executable::Field>) -> Rejection {
        let mut error = GraphQLError::new(code::VALIDATION_FAILED, message);
        error.locations.extend(self.location(node));
        Rejection::Request(vec![error])
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
                    ExtendedType::Scalar(_) => Shape::Leaf(self.schema.scalar(name)),
                    ExtendedType::Enum(definition) => Shape::Leaf(Leaf::Enum(definition.clone())),
                    ExtendedType::Object(object) => Shape::Object(self.selection(object, nodes)?),
                    ExtendedType::Interface(_) | ExtendedType::Union(_) => {
                        Shape::Abstract(self.possible(name, nodes, coordinate, yields)?)
                    }
                    ExtendedType::InputObject(_) => return Err(invalid()),
                }
            }
        };
        Ok(PlannedType { nullable, shape })
    }

    /// The types behind an interface or a union.
    fn possible(
        &mut self,
        name: &'a Name,
        nodes: &[&'a Node<executable::Field>],
        coordinate: &str,
        yields: bool,
    ) -> Result<Arc<Possible>, Rejection> {
        let known = (name.as_str(), addresses(nodes));
        if let Some(possible) = self.possible.get(&known) {
            return Ok(possible.clone());
        }
        let (mut types, mut is_whole) = (IndexMap::default(), true);
        let objects = self.schema.possible_types(name);
        for object in objects.iter().filter_map(|name| self.schema.graphql.get_object(name)) {
            let guard = self.schema.type_guard(&object.name);
            let may_give = || format!("{coordinate} may give {}, which", object.name);
            let selection = match guard.and_then(|guard| (self.refuse)(&may_give(), guard)) {
                None => Some(self.selection(object, nodes)?),
                Some(refusal) if !yields => return Err(refusal.into()),
                Some(_) => {
                    // Each field that may give it is told of.
                    is_whole = false;
                    self.masked.insert(coordinate.into());
                    None
                }
            };
            let shared = selection.as_ref().map(|selection| selection.type_name.clone());
            types.insert(shared.unwrap_or_else(|| object.name.as_str().into()), selection);
        }
        self.size += PER_PLACE + types.len() * PER_TYPE;
        let possible = Arc::new(Possible { name: name.as_str().into(), types });
        if is_whole {
            self.possible.insert(known, possible.clone());
        }
        Ok(possible)
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
