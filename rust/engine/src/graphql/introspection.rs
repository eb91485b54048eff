//! Answers to [introspection](https://spec.graphql.org/October2021/#sec-Introspection). A short query can ask for an answer of
//! any size, so it is counted before it is made: one that would be too long is refused, and one that takes time is for another thread
//! than the one that asks. Such an answer is made once and kept.

use std::collections::VecDeque;
use std::sync::Arc;

use apollo_compiler::collections::IndexMap;
use apollo_compiler::executable::{self, ExecutableDocument};
use apollo_compiler::request::RequestError;
use apollo_compiler::schema::{Component, ExtendedType, FieldDefinition, InputValueDefinition, Type};
use apollo_compiler::validation::Valid;
use apollo_compiler::{Name, Node, introspection, name};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::edition;
use super::positions::Positions;
use super::schema::Schema;
use crate::error::{GraphQLError, Rejection, code};
use crate::value::{Object, Value};

/// No field takes fewer bytes: `"a":1,`.
const SMALLEST_FIELD: usize = 6;
/// Bytes of the longest answer.
pub(super) const LONGEST: usize = 16 << 20;
/// An answer with no more fields takes no time.
const BRIEF: usize = 500;
/// Answers that are kept, and their bytes together.
const ANSWERS: usize = 64;
const ANSWER_BYTES: usize = 32 << 20;

/// An answer, once it was made.
pub(crate) type Answer = OnceCell<Result<Arc<str>, Rejection>>;

/// Answers by all that they are made of, the one that was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<VecDeque<(Arc<str>, Arc<Answer>)>>);

impl Answers {
    /// The answer of a key, which may have to be made.
    pub(super) fn of(&self, key: &Arc<str>) -> Arc<Answer> {
        let mut kept = self.0.lock();
        let known = kept.iter().position(|(known, _)| known == key).and_then(|at| kept.remove(at));
        let (key, answer) = known.unwrap_or_else(|| (key.clone(), Arc::default()));
        kept.push_back((key, answer.clone()));
        let mut bytes: usize = kept.iter().map(weight).sum();
        while kept.len() > ANSWERS || (bytes > ANSWER_BYTES && kept.len() > 1) {
            bytes -= kept.pop_front().as_ref().map_or(0, weight);
        }
        answer
    }
}

fn weight((key, answer): &(Arc<str>, Arc<Answer>)) -> usize {
    let made = answer.get().and_then(|made| made.as_ref().ok());
    key.len() + made.map_or(0, |made| made.len())
}

/// Whether so little is asked for that it can be answered where it is asked. What is nested too deeply is refused.
pub(super) fn is_brief(
    schema: &Schema,
    document: &Valid<ExecutableDocument>,
    operation: &Node<executable::Operation>,
    variables: &Object,
) -> Result<bool, Rejection> {
    introspection::check_max_depth(document, operation).map_err(|error| located(document, &error))?;
    let mut count = Count { schema, document, variables, left: BRIEF };
    Ok(count.selections(Place::Query, &operation.selection_set).is_some())
}

fn located(document: &ExecutableDocument, error: &RequestError) -> Rejection {
    let mut located = GraphQLError::new(code::LIMIT_EXCEEDED, error.message().to_string());
    located.locations.extend(Positions::new(document).at(error.location()));
    Rejection::Request(vec![located])
}

/// The ExecutionResult, as JSON, of a query that asks for `__schema`, `__type` and `__typename` alone.
pub(crate) fn answer(
    schema: &Schema,
    document: &Valid<ExecutableDocument>,
    operation: &Node<executable::Operation>,
    variables: &Object,
    max_bytes: usize,
) -> Result<String, Rejection> {
    let fault = |error: RequestError| located(document, &error);
    introspection::check_max_depth(document, operation).map_err(fault)?;
    let internal = |error: serde_json::Error| Rejection::request(code::INTERNAL_SERVER_ERROR, error.to_string());
    let mut count = Count { schema, document, variables, left: max_bytes / SMALLEST_FIELD };
    let answer = count.selections(Place::Query, &operation.selection_set).map(|()| {
        let variables = serde_json::from_str(&Value::Object(variables.clone()).to_json()).map_err(internal)?;
        let (graphql, variables) = (&schema.graphql, Valid::assume_valid(variables));
        let made = introspection::partial_execute(graphql, schema.implementers(), document, operation, &variables);
        let mut made = made.map_err(fault)?;
        made.data = made.data.map(|data| edition::answer_is_one_of(graphql, data));
        serde_json::to_string(&made).map_err(internal)
    });
    match answer.transpose()? {
        Some(answer) if answer.len() <= max_bytes => Ok(answer),
        _ => Err(Rejection::request(
            code::RESULT_TOO_LARGE,
            format!("The answer would be larger than {max_bytes} bytes."),
        )),
    }
}

/// The same for one field of a query type that stands below an operation's root, selected by `nodes`: its value alone.
pub(super) fn below(
    schema: &Schema,
    document: &ExecutableDocument,
    nodes: &[&Node<executable::Field>],
    variables: &Object,
    max_bytes: usize,
) -> Result<Box<str>, Rejection> {
    let query = schema.graphql.schema_definition.query.as_ref().map(|query| query.name.clone());
    let mut selection_set = executable::SelectionSet::new(query.unwrap_or(name!("Query")));
    selection_set.selections.extend(nodes.iter().map(|&node| executable::Selection::Field(node.clone())));
    let operation = Node::new(executable::Operation {
        operation_type: executable::OperationType::Query,
        name: None,
        variables: Vec::new(),
        directives: executable::DirectiveList::default(),
        selection_set,
    });
    let answer = answer(schema, Valid::assume_valid_ref(document), &operation, variables, max_bytes)?;
    let head = format!("{{\"data\":{{\"{}\":", nodes[0].response_key());
    let value = answer.strip_prefix(&head).and_then(|rest| rest.strip_suffix("}}"));
    value.map(Box::from).ok_or_else(|| Rejection::request(code::INTERNAL_SERVER_ERROR, "Introspection has failed."))
}

/// Walks a query over the schema, and stops when it has seen too many fields.
struct Count<'a> {
    schema: &'a Schema,
    document: &'a ExecutableDocument,
    variables: &'a Object,
    left: usize,
}

/// Where in the schema.
#[derive(Clone, Copy)]
enum Place<'a> {
    Query,
    Schema,
    Named(&'a str),
    /// A list or a non-null type; the flag tells that it is the type inside its `!`.
    Wrapped(&'a Type, bool),
    Field(&'a FieldDefinition),
    Input(&'a InputValueDefinition),
    Directive(&'a [Node<InputValueDefinition>]),
    Value,
}

impl<'a> Place<'a> {
    fn of(ty: &'a Type) -> Place<'a> {
        match ty {
            Type::Named(name) => Place::Named(name),
            wrapped => Place::Wrapped(wrapped, false),
        }
    }
}

impl<'a> Count<'a> {
    fn selections(&mut self, place: Place<'a>, set: &executable::SelectionSet) -> Option<()> {
        for selection in &set.selections {
            match selection {
                executable::Selection::Field(field) => {
                    self.left = self.left.checked_sub(1)?;
                    for inner in self.inner(place, field) {
                        self.selections(inner, &field.selection_set)?;
                    }
                }
                executable::Selection::InlineFragment(inline) => self.selections(place, &inline.selection_set)?,
                executable::Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.fragment_name) {
                        self.selections(place, &fragment.selection_set)?;
                    }
                }
            }
        }
        Some(())
    }

    fn inner(&self, place: Place<'a>, field: &executable::Field) -> Vec<Place<'a>> {
        let graphql = &self.schema.graphql;
        match (place, field.name.as_str()) {
            (Place::Query, "__schema") => vec![Place::Schema],
            (Place::Query, "__type") => {
                let name = field.specified_argument_by_name("name");
                let variable = name.and_then(|name| self.variables.get(name.as_variable()?.as_str()));
                let name = name.and_then(|name| name.as_str()).or(variable.and_then(Value::as_str));
                let found = name.and_then(|name| graphql.types.get_key_value(name));
                found.map(|(name, _)| Place::Named(name)).into_iter().collect()
            }
            (Place::Schema, "types") => graphql.types.keys().map(|name| Place::Named(name)).collect(),
            (Place::Schema, "directives") => {
                let definitions = graphql.directive_definitions.values();
                definitions.map(|definition| Place::Directive(&definition.arguments)).collect()
            }
            (Place::Schema, name) => {
                let roots = &graphql.schema_definition;
                let root = match name {
                    "queryType" => &roots.query,
                    "mutationType" => &roots.mutation,
                    "subscriptionType" => &roots.subscription,
                    _ => &None,
                };
                root.iter().map(|root| Place::Named(&root.name)).collect()
            }
            (Place::Field(definition), "args") => {
                definition.arguments.iter().map(|input| Place::Input(input)).collect()
            }
            (Place::Directive(arguments), "args") => arguments.iter().map(|input| Place::Input(input)).collect(),
            (Place::Field(definition), "type") => vec![Place::of(&definition.ty)],
            (Place::Input(definition), "type") => vec![Place::of(&definition.ty)],
            (Place::Wrapped(ty, inside), "ofType") => match (ty, inside) {
                (Type::NonNullNamed(name) | Type::Named(name), _) => vec![Place::Named(name)],
                (Type::NonNullList(_), false) => vec![Place::Wrapped(ty, true)],
                (Type::NonNullList(item) | Type::List(item), _) => vec![Place::of(item)],
            },
            (Place::Named(type_name), name) => self.named(type_name, name),
            _ => Vec::new(),
        }
    }

    fn named(&self, type_name: &str, field: &str) -> Vec<Place<'a>> {
        let fields = |fields: &'a IndexMap<Name, Component<FieldDefinition>>| {
            fields.values().map(|field| Place::Field(field)).collect()
        };
        match (self.schema.graphql.types.get(type_name), field) {
            (Some(ExtendedType::Object(object)), "fields") => fields(&object.fields),
            (Some(ExtendedType::Interface(interface)), "fields") => fields(&interface.fields),
            (Some(ExtendedType::InputObject(input)), "inputFields") => {
                input.fields.values().map(|input| Place::Input(input)).collect()
            }
            (Some(ExtendedType::Enum(definition)), "enumValues") => vec![Place::Value; definition.values.len()],
            (Some(ExtendedType::Object(object)), "interfaces") => {
                object.implements_interfaces.iter().map(|name| Place::Named(&name.name)).collect()
            }
            (Some(ExtendedType::Interface(interface)), "interfaces") => {
                interface.implements_interfaces.iter().map(|name| Place::Named(&name.name)).collect()
            }
            (Some(ExtendedType::Union(union_)), "possibleTypes") => {
                union_.members.iter().map(|name| Place::Named(&name.name)).collect()
            }
            (Some(ExtendedType::Interface(interface)), "possibleTypes") => {
                let behind = self.schema.implementers().get(&interface.name);
                behind.into_iter().flat_map(|types| &types.objects).map(|name| Place::Named(name)).collect()
            }
            _ => Vec::new(),
        }
    }
}
