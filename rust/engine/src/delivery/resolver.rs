//! Functions: the one port to user code, a call of a function for an event, and a generator for a subscription.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::oneshot;

use super::class::ResolveClass;
use super::group::ProjectedResult;
use super::mailbox::{End, Mailbox};
use super::reading::{Destination, Part, Resume, Returned, internal};
use super::turns::{Turn, Turns};
use crate::accounts::{Accounts, Weights};
use crate::error::{GraphQLError, code};
use crate::event::Event;
use crate::graphql::{Field, Operation, Plan};
use crate::limits::Limits;
use crate::operators::{Metrics, Told};
use crate::tasks::Tasks;
use crate::timers::Timers;
use crate::value::{Object, Value};
use crate::viewer::Viewer;

/// Calls user code. All functions are called under locks: they must only queue what they were given and return.
pub trait Resolver: Send + Sync {
    /// Calls a function for one event; the outcome goes to [`Call::returned`] or [`Call::fail`].
    fn call(&self, call: Call);
    /// Starts a generator; what it yields goes to [`Generation::yielded`].
    fn generate(&self, generation: Arc<Generation>);
    /// Nobody waits any more for what goes by this key: a generator, the calls of a class, or a call of its own.
    fn abandon(&self, key: u64);
}

/// What a function with `info` may know of who is watching.
#[derive(Clone)]
pub struct Watcher {
    /// Who.
    pub viewer: Arc<Viewer>,
    /// A plan of the selection.
    pub plan: Arc<Plan>,
}

/// One call of a function for one event.
pub struct Call {
    /// The declaration.
    pub field: Arc<Field>,
    /// The event.
    pub event: Arc<Event>,
    /// Coerced arguments by Python name.
    pub arguments: Arc<Value>,
    /// Who watches, where the function takes `info`.
    pub watcher: Option<Watcher>,
    /// By which it is abandoned.
    pub abandon_key: u64,
    /// Its place among the calls that run; whoever runs it may take it, to give it back later than the outcome.
    pub turn: Option<Turn>,
    pub(super) begun: Instant,
    pub(super) shared: Arc<Shared>,
    /// `None` once it has returned.
    pub(super) destination: Option<ForWhom>,
}

/// For whom a function is called.
pub(super) enum ForWhom {
    Class { class: Arc<ResolveClass>, number: u64 },
    One { plan: Arc<Plan>, accounts: Accounts, result: oneshot::Sender<ProjectedResult> },
}

/// A tree of what was read for a plan, or why there is none.
pub type Outcome = Result<Value, Arc<GraphQLError>>;

impl Call {
    /// A call whose result goes to one place.
    pub(super) fn single(
        operation: &Operation,
        event: Arc<Event>,
        viewer: Arc<Viewer>,
        accounts: Accounts,
        shared: &Arc<Shared>,
        turn: Option<Turn>,
    ) -> (Call, Pending) {
        let (result, receiver) = oneshot::channel();
        let Operation { field, arguments, plan, .. } = operation;
        let watcher = field.declaration.takes_info.then(|| Watcher { viewer, plan: plan.clone() });
        let destination = Some(ForWhom::One { plan: plan.clone(), accounts, result });
        let (field, arguments) = (field.clone(), arguments.clone());
        let abandon_key = shared.abandon_key();
        let pending = Pending { result: receiver, waits: true, abandon_key, shared: shared.clone() };
        let (begun, shared) = (shared.metrics.clock.now(), shared.clone());
        (Call { field, event, arguments, watcher, abandon_key, turn, begun, shared, destination }, pending)
    }

    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        match &self.destination {
            Some(ForWhom::Class { class, .. }) => class.is_abandoned(),
            Some(ForWhom::One { result, .. }) => result.is_closed(),
            None => true,
        }
    }

    /// The function has returned. What it gave is to be read for these; `reader` is told when one that may not be read yet may be.
    pub fn returned(mut self, reader: &Weak<dyn Resume>) -> Returned {
        self.end(Some(reader))
    }

    /// The function has raised, or is not waited for any more.
    pub fn fail(mut self, error: GraphQLError) {
        self.fail_all(error);
    }

    fn fail_all(&mut self, error: GraphQLError) {
        let outcome = Err(Arc::new(error));
        if !self.is_abandoned() {
            self.shared.metrics.resolver_errors.inc();
        }
        self.end(None).parts.into_iter().for_each(|part| part.deliver(&outcome));
    }

    fn end(&mut self, reader: Option<&Weak<dyn Resume>>) -> Returned {
        self.shared.metrics.resolved(&self.field.name, self.begun);
        match self.destination.take() {
            Some(ForWhom::Class { class, number }) => class.returned(number, reader),
            Some(ForWhom::One { plan, accounts, result }) => {
                let destination = Destination::One(result);
                let position = Some(self.event.position);
                Returned::one(Part::new(plan, position, destination, accounts, self.shared.clone()))
            }
            None => Returned::default(),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.destination.is_some() {
            self.fail_all(internal());
        }
    }
}

/// The result of a call that goes to one place. Whoever drops this does not want it any more.
pub(super) struct Pending {
    result: oneshot::Receiver<ProjectedResult>,
    waits: bool,
    abandon_key: u64,
    shared: Arc<Shared>,
}

impl Pending {
    /// Waits for it. A call always ends: where it is dropped, by an error.
    pub(super) async fn result(mut self) -> Option<ProjectedResult> {
        let result = (&mut self.result).await;
        self.waits = false;
        result.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.waits {
            // Closed first: where the call has not begun, it does not begin.
            self.result.close();
            self.shared.resolver.abandon(self.abandon_key);
        }
    }
}

/// What all classes of an engine share.
pub(crate) struct Shared {
    /// The port.
    pub resolver: Arc<dyn Resolver>,
    /// The limits.
    pub limits: Limits,
    /// Whether anybody's events are limited.
    pub limits_events: bool,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// What an operator is told of single events.
    pub told: Arc<Told>,
    /// What memory is taken.
    pub weights: Arc<Weights>,
    /// Calls under way, for draining.
    pub calls: Arc<Tasks>,
    /// Who may begin one.
    pub(crate) turns: Arc<Turns>,
    /// When somebody has waited too long for a thread.
    pub(crate) timers: Arc<Timers>,
    /// The last key that was given.
    pub abandon_keys: AtomicU64,
}

impl Shared {
    /// Nobody is called yet. `limits_events`: whether anybody's events are limited.
    pub(crate) fn new(
        resolver: Arc<dyn Resolver>,
        limits: Limits,
        limits_events: bool,
        metrics: Arc<Metrics>,
        told: Arc<Told>,
        weights: Arc<Weights>,
        timers: Arc<Timers>,
    ) -> Shared {
        let (calls, turns, abandon_keys) = (Arc::default(), Turns::new(&limits), AtomicU64::default());
        Shared { resolver, limits, limits_events, metrics, told, weights, calls, turns, timers, abandon_keys }
    }

    /// A key that nothing else is abandoned by.
    pub(crate) fn abandon_key(&self) -> u64 {
        self.abandon_keys.fetch_add(1, Relaxed)
    }
}

/// What is said where no thread was free in time.
pub(super) fn too_late() -> GraphQLError {
    GraphQLError::new(code::TIMEOUT, "The function timed out")
}

/// A running generator and the subscription that it fills.
pub struct Generation {
    /// The declaration.
    pub field: Arc<Field>,
    /// Coerced arguments by Python name.
    pub arguments: Arc<Value>,
    /// Who watches, and what was selected.
    pub watcher: Watcher,
    /// The operation's name in the document.
    pub operation_name: Option<Box<str>>,
    /// The coerced variables by GraphQL name.
    pub variables: Object,
    /// The connection's id or label.
    pub connection_id: Option<Arc<str>>,
    /// Where the results go.
    pub mailbox: Arc<Mailbox>,
    /// By which it is abandoned.
    pub abandon_key: u64,
    pub(crate) shared: Arc<Shared>,
}

impl Generation {
    /// Resolves when the mailbox has room for one more, or is over; the answer says whether to go on.
    pub async fn room(&self) -> bool {
        self.mailbox.room(self.shared.limits.queue_messages).await;
        !self.mailbox.is_over()
    }

    /// Whether the mailbox has room for one more now.
    pub fn has_room(&self) -> bool {
        !self.mailbox.is_over() && self.mailbox.has_room(self.shared.limits.queue_messages)
    }

    /// The generator has yielded something that is to be read for this subscription.
    pub fn yielded(self: &Arc<Self>) -> Returned {
        let (plan, destination) = (self.watcher.plan.clone(), Destination::Generation(self.clone()));
        Returned::one(Part::new(plan, None, destination, Accounts::default(), self.shared.clone()))
    }

    /// It ended by itself, or raised.
    pub fn finish(&self, outcome: Result<(), GraphQLError>) {
        let failed = outcome.is_err();
        let end = outcome.map_or_else(|error| End::Error(Arc::new(error)), |()| End::Complete);
        // One whose subscription had ended before was cancelled.
        if self.mailbox.end(end) && failed {
            self.shared.metrics.resolver_errors.inc();
        }
    }
}
