//! From a request's text to an [`Operation`] that may be started: parsed and validated once per distinct text, its variables
//! coerced, its selection compiled, its permissions asked. An invalid operation cannot exist. Nothing is subscribed here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use apollo_compiler::Node;
use apollo_compiler::executable;
use apollo_compiler::validation::Valid;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::coerce;
use super::document::{Document, ONLY_SUBSCRIPTIONS};
use super::field::Field;
use super::input::Room;
use super::introspection::{self, Answer, Answers};
use super::plan::{Plan, PlanKey};
use super::planner::Refuse;
use super::positions::Positions;
use super::schema::Schema;
use crate::error::{Rejection, code};
use crate::limits::Limits;
use crate::security::fields::{self, Guard, decide};
use crate::value::{Object, Value};
use crate::viewer::Viewer;

/// Documents kept, and about how many bytes of memory they may take.
const MAX_DOCUMENTS: usize = 1_000;
const MAX_WEIGHT: usize = 64 * 1024 * 1024;

/// Plans that are no longer in use are forgotten when a document has more than so many.
const PLANS: usize = 64;
/// What they may take is counted with their document.
const PLANS_WEIGHT: usize = 16 * 1024;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The document's text.
    pub query: &'a str,
    /// Which of its operations.
    pub operation_name: Option<&'a str>,
    /// An object or null.
    pub variables: &'a Value,
    /// Whether `__schema` and `__type` are answered.
    pub introspection: bool,
}

/// A subscription that may be started.
#[derive(Debug)]
pub struct Operation {
    /// Its name in the document.
    pub name: Option<Box<str>>,
    /// The coerced variables.
    pub variables: Object,
    /// The root field.
    pub field: Arc<Field>,
    /// Its arguments by Python name.
    pub arguments: Arc<Value>,
    /// Equal for equal arguments.
    pub arguments_key: Arc<str>,
    /// The same `Arc` for all operations whose results look alike.
    pub plan: Arc<Plan>,
    /// Where its events are published; empty for a generator.
    pub channel: String,
}

/// What a valid document asks for.
pub(crate) enum Asked {
    /// A subscription's root field.
    Subscription(AskedField),
    /// Nothing more: this is the ExecutionResult, as JSON, of a query for introspection.
    Answer(String),
    /// The same, where it has to be made first.
    Introspection(Introspection),
}

/// A query for introspection whose answer may be long.
#[derive(Debug)]
pub struct Introspection {
    schema: Arc<Schema>,
    known: Arc<Known>,
    operation: Node<executable::Operation>,
    variables: Object,
    /// By which its answer is kept.
    key: Arc<str>,
}

impl Introspection {
    /// The ExecutionResult, as JSON. It takes its time, so that no event loop should wait for it.
    pub fn answer(&self) -> Result<String, Rejection> {
        self.answer_within(introspection::LONGEST)
    }

    fn answer_within(&self, max_bytes: usize) -> Result<String, Rejection> {
        let document = &self.known.document.executable;
        introspection::answer(&self.schema, document, &self.operation, &self.variables, max_bytes)
    }
}

/// A root field that is asked for; nothing was decided about it.
pub(crate) struct AskedField {
    pub(crate) field: Arc<Field>,
    schema: Arc<Schema>,
    known: Arc<Known>,
    operation: Node<executable::Operation>,
    root: Node<executable::Field>,
}

/// The same with its variables and arguments coerced.
pub(crate) struct CoercedField {
    /// By Python name.
    pub(crate) arguments: Arc<Value>,
    variables: Object,
    asked: AskedField,
}

/// The documents that clients have sent: a bounded cache by their text. Shared by all threads.
#[derive(Debug)]
pub struct Documents {
    schema: Arc<Schema>,
    limits: Limits,
    cache: Mutex<Cache>,
    answers: Answers,
    parses: AtomicU64,
}

impl Documents {
    /// An empty cache.
    pub fn new(schema: Arc<Schema>, limits: &Limits) -> Documents {
        let (cache, answers, parses) = Default::default();
        Documents { schema, limits: limits.clone(), cache, answers, parses }
    }

    /// The answer to a query for introspection, which may have to be made.
    pub(crate) fn answer(&self, introspection: &Introspection) -> Arc<Answer> {
        self.answers.of(&introspection.key)
    }

    /// What a request asks for.
    pub(crate) fn open(&self, request: &Request<'_>) -> Result<Asked, Rejection> {
        let known = self.document(request)?;
        let document = &known.document.executable;
        let operation = find(document, request.operation_name)?.clone();
        if !operation.is_subscription() {
            if !operation.is_introspection(document) {
                let rejection = Rejection::request(code::VALIDATION_FAILED, ONLY_SUBSCRIPTIONS);
                return Err(located(rejection, document, &operation));
            }
            return self.introspect(request, &known, operation);
        }
        let introspection = |field: &&Node<executable::Field>| matches!(field.name.as_str(), "__schema" | "__type");
        if !request.introspection
            && known.document.may_introspect
            && let Some(field) = operation.all_fields(document).find(introspection)
        {
            return Err(switched_off(document, field));
        }
        let root = operation.root_fields(document).next().cloned();
        let served = root.and_then(|root| Some((self.schema.fields.get(root.name.as_str())?.clone(), root)));
        let (field, root) = served.ok_or_else(|| Rejection::request(code::VALIDATION_FAILED, ONLY_SUBSCRIPTIONS))?;
        let schema = self.schema.clone();
        Ok(Asked::Subscription(AskedField { field, schema, known, operation, root }))
    }

    /// Whether a field limits its events.
    pub(crate) fn limit_events(&self) -> bool {
        self.schema.fields.values().any(|field| field.declaration.events_per_second.is_some())
    }

    /// What bounds a request.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many texts were parsed.
    pub fn parses(&self) -> u64 {
        self.parses.load(Ordering::Relaxed)
    }

    fn document(&self, request: &Request<'_>) -> Result<Arc<Known>, Rejection> {
        if let Some(known) = self.cache.lock().get(request.query) {
            return Ok(known);
        }
        // Two threads may parse the same text; that costs less than all of them waiting for one.
        self.parses.fetch_add(1, Ordering::Relaxed);
        let mut document = Document::parse(&self.schema, &self.limits, request.query, request.operation_name)?;
        document.weight += PLANS_WEIGHT;
        let known = Arc::new(Known { document, plans: Mutex::default() });
        // Only valid documents are kept: whoever sends nonsense pushes nobody's document out.
        Ok(self.cache.lock().insert(request.query, known))
    }

    fn introspect(
        &self,
        request: &Request<'_>,
        known: &Arc<Known>,
        operation: Node<executable::Operation>,
    ) -> Result<Asked, Rejection> {
        let document = &known.document.executable;
        let refused = |field: &&Node<executable::Field>| field.name != "__typename";
        if let Some(field) = operation.root_fields(document).find(refused).filter(|_| !request.introspection) {
            return Err(switched_off(document, field));
        }
        let variables = variables(&self.schema, request, document, &operation, &self.limits)?;
        let is_brief = introspection::is_brief(&self.schema, document, &operation, &variables)?;
        let given = Value::Object(variables.clone()).canonical();
        let key = format!("{:?} {given} {}", operation.name, request.query).into();
        let (schema, known) = (self.schema.clone(), known.clone());
        let introspection = Introspection { schema, known, operation, variables, key };
        // Without introspection nothing but names of types is asked for.
        let is_brief = is_brief || !request.introspection;
        if is_brief { introspection.answer().map(Asked::Answer) } else { Ok(Asked::Introspection(introspection)) }
    }
}

impl AskedField {
    /// `Type.field`
    pub(crate) fn coordinate(&self) -> String {
        format!("{}.{}", self.operation.object_type(), self.field.name)
    }

    /// What the field asks of its viewers.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.schema.guard(self.operation.object_type(), &self.field.name)
    }

    /// Coerces the variables, then the arguments.
    pub(crate) fn coerce(self, request: &Request<'_>, limits: &Limits) -> Result<CoercedField, Rejection> {
        let document = &self.known.document.executable;
        let variables = variables(&self.schema, request, document, &self.operation, limits)?;
        let (definition, coordinate) = (&self.field.definition, self.coordinate());
        let room = Room::new(limits.max_argument_bytes);
        let arguments =
            coerce::arguments(&self.schema, definition, &coordinate, &self.root, document, &variables, &room);
        let arguments = arguments.and_then(|arguments| room.hold(arguments)).map_err(Room::refuse)?;
        Ok(CoercedField { arguments: Arc::new(Value::Object(arguments)), variables, asked: self })
    }
}

impl CoercedField {
    /// Compiles the selection as this viewer may see it.
    pub(crate) fn plan(self, viewer: &Viewer, limits: &Limits) -> Result<Operation, Rejection> {
        let CoercedField { arguments, variables, asked } = self;
        let AskedField { field, schema, known, operation, root } = asked;
        let channel = match &field.channel {
            Some(channel) => {
                let rendered = channel.render(&arguments);
                rendered.map_err(|rejection| located(rejection, &known.document.executable, &root))?
            }
            None => String::new(),
        };
        Ok(Operation {
            arguments_key: arguments.canonical().into(),
            arguments,
            plan: known.plan(&schema, &operation, &variables, viewer, limits)?,
            channel,
            name: operation.name.as_ref().map(|name| name.as_str().into()),
            variables,
            field,
        })
    }
}

fn switched_off(document: &executable::ExecutableDocument, field: &Node<executable::Field>) -> Rejection {
    let message = format!("Introspection is switched off: '{}' is not answered here.", field.name);
    located(Rejection::request(code::VALIDATION_FAILED, message), document, field)
}

fn variables(
    schema: &Schema,
    request: &Request<'_>,
    document: &Valid<executable::ExecutableDocument>,
    operation: &executable::Operation,
    limits: &Limits,
) -> Result<Object, Rejection> {
    if !matches!(request.variables, Value::Null | Value::Object(_)) {
        return Err(Rejection::request(code::BAD_USER_INPUT, "Variables must be an object."));
    }
    let room = Room::new(limits.max_argument_bytes);
    let variables = coerce::variables(schema, operation, document, request.variables, &room);
    variables.and_then(|variables| room.hold(variables)).map_err(Room::refuse)
}

/// [GetOperation](https://spec.graphql.org/October2021/#GetOperation())
fn find<'a>(
    document: &'a executable::ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a Node<executable::Operation>, Rejection> {
    document.operations.get(name).map_err(|_| {
        let message = match name {
            Some(name) => format!("Unknown operation named '{name}'."),
            None if document.operations.is_empty() => "Must provide an operation.".into(),
            None => "Must provide operation name if query contains multiple operations.".into(),
        };
        Rejection::request(code::OPERATION_RESOLUTION_FAILURE, message)
    })
}

fn located<T>(rejection: Rejection, document: &executable::ExecutableDocument, node: &Node<T>) -> Rejection {
    let Rejection::Request(mut errors) = rejection else {
        return rejection;
    };
    let position = Positions::new(document).at(node.location());
    errors.iter_mut().for_each(|error| error.locations.extend(position));
    Rejection::Request(errors)
}

/// A document, and the plans of its operations that are in use.
#[derive(Debug)]
struct Known {
    document: Document,
    plans: Mutex<Plans>,
}

/// What is kept of plans that nobody uses any more is their names' hash and place, not the names: they are held by the plans.
#[derive(Debug, Default)]
struct Plans {
    by_key: HashTable<Planned>,
    hashing: RandomState,
    /// How many plans stand here,
    count: usize,
    /// and how many were in use when that was last looked at.
    alive: usize,
}

/// The plans of one operation and variables: they differ by what the viewer may see.
#[derive(Debug)]
struct Planned {
    hash: u64,
    key: Weak<PlanKey>,
    plans: HashMap<Box<[bool]>, Weak<Plan>>,
}

impl Known {
    /// Plans are held by those who use them: while one lives, whoever subscribes to the same gets the same.
    fn plan(
        &self,
        schema: &Schema,
        operation: &executable::Operation,
        variables: &Object,
        viewer: &Viewer,
        limits: &Limits,
    ) -> Result<Arc<Plan>, Rejection> {
        let mut text = operation.name.as_deref().unwrap_or_default().to_owned();
        for name in self.document.inner_variables.get(&operation.name).into_iter().flatten() {
            if let Some(value) = variables.get(name.as_str()) {
                text.extend([" ", name, ":", &value.canonical()]);
            }
        }
        let hash = self.plans.lock().hashing.hash_one(&text);
        let is_permitted = |guard: &Guard| decide(guard, viewer).is_allowed();
        let mask = |guards: &[Guard]| guards.iter().map(is_permitted).collect::<Box<[bool]>>();

        if let Some(plan) = self.plans.lock().find(hash, &text, &mask) {
            return Ok(plan);
        }
        let build = |refuse: Refuse<'_>| {
            Plan::build(schema, operation, &self.document.executable, variables, limits.max_argument_bytes, refuse)
        };
        // Where nothing is refused the whole selection is walked: these are all the guards that matter for it.
        let asked = RefCell::new(Vec::<Guard>::new());
        let whole = build(&|_, guard| {
            let mut asked = asked.borrow_mut();
            if !asked.iter().any(|known| known == guard) {
                asked.push(guard.clone());
            }
            None
        })?;
        let key = PlanKey { text: text.into(), guards: asked.into_inner().into() };
        let own = mask(&key.guards);
        let is_whole = own.iter().all(|permitted| *permitted);
        let plan =
            if is_whole { whole } else { build(&|guarded, guard| fields::refusal(guarded, Some(guard), viewer))? };
        let mut plans = self.plans.lock();
        // Another thread may have come first.
        if let Some(plan) = plans.find(hash, &key.text, &mask) {
            return Ok(plan);
        }
        Ok(plans.insert(hash, key, own, plan))
    }
}

impl Plans {
    fn planned(&mut self, hash: u64, text: &str) -> Option<(&mut Planned, Arc<PlanKey>)> {
        let is = |planned: &Planned| planned.key.upgrade().is_some_and(|key| *key.text == *text);
        let planned = self.by_key.find_mut(hash, is)?;
        let key = planned.key.upgrade()?;
        Some((planned, key))
    }

    /// `mask` says which of some guards the viewer passes.
    fn find(&mut self, hash: u64, text: &str, mask: &impl Fn(&[Guard]) -> Box<[bool]>) -> Option<Arc<Plan>> {
        let (planned, key) = self.planned(hash, text)?;
        planned.plans.get(&mask(&key.guards))?.upgrade()
    }

    fn insert(&mut self, hash: u64, key: PlanKey, mask: Box<[bool]>, plan: Plan) -> Arc<Plan> {
        if self.count > PLANS.max(self.alive * 2) {
            self.by_key.retain(|planned| {
                planned.plans.retain(|_, plan| plan.strong_count() > 0);
                !planned.plans.is_empty()
            });
            self.alive = self.by_key.iter().map(|planned| planned.plans.len()).sum();
            self.count = self.alive;
        }
        self.count += 1;
        let Some((planned, known_by)) = self.planned(hash, &key.text) else {
            let known_by = Arc::new(key);
            let plan = Arc::new(Plan { known_by: known_by.clone(), ..plan });
            let plans = HashMap::from([(mask, Arc::downgrade(&plan))]);
            let planned = Planned { hash, key: Arc::downgrade(&known_by), plans };
            self.by_key.insert_unique(hash, planned, |planned| planned.hash);
            return plan;
        };
        let plan = Arc::new(Plan { known_by, ..plan });
        planned.plans.insert(mask, Arc::downgrade(&plan));
        plan
    }
}

/// Documents by text. Where there is no more room, those that were not asked for longest go.
#[derive(Debug, Default)]
struct Cache {
    by_text: HashMap<Arc<str>, (u64, Arc<Known>)>,
    weight: usize,
    clock: u64,
}

impl Cache {
    fn get(&mut self, text: &str) -> Option<Arc<Known>> {
        self.clock += 1;
        let (used, known) = self.by_text.get_mut(text)?;
        *used = self.clock;
        Some(Arc::clone(known))
    }

    fn insert(&mut self, text: &str, known: Arc<Known>) -> Arc<Known> {
        if let Some(first) = self.get(text) {
            return first;
        }
        self.weight += known.document.weight;
        self.by_text.insert(text.into(), (self.clock, Arc::clone(&known)));
        while self.by_text.len() > MAX_DOCUMENTS || (self.weight > MAX_WEIGHT && self.by_text.len() > 1) {
            let oldest = self.by_text.iter().min_by_key(|(_, (used, _))| *used).map(|(text, _)| Arc::clone(text));
            let gone = oldest.and_then(|oldest| self.by_text.remove(&oldest));
            self.weight -= gone.map_or(0, |(_, known)| known.document.weight);
        }
        known
    }
}

#[cfg(test)]
pub(crate) mod tests;
