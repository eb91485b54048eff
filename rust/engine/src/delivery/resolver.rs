//! Functions: the one port to user code, and the classes that share a call.
//!
//! A [`ResolveClass`] is a field with its coerced arguments and, only where the function takes `info`, a viewer and a selection. For each event
//! that somebody in it hears of, the function is called once. Up to `resolver_concurrency` events of a class are under way at
//! once; their results are delivered in the order of the events, so a slow function delays its own class alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::group::{self, Group, Results};
use super::mailbox::{End, Mailbox};
use super::turns::{Caller, Turn, Turns, Waiter};
use crate::accounts::{Accounts, Weights};
use crate::error::{GraphQLError, code};
use crate::event::Event;
use crate::graphql::{Field, Kind, Operation, Plan, Reads, Source};
use crate::limits::Limits;
use crate::operators::{DropReason, Metrics, Told};
use crate::tasks::{Tasks, UnderWay};
use crate::timers::{Alarm, Timed, Timers};
use crate::value::{Object, Value};
use crate::viewer::Viewer;

/// Calls user code. All functions are called under locks: they must only queue what they were given and return.
pub trait Resolver: Send + Sync {
    /// Calls a function for one event; the outcome goes to [`Call::finish`].
    fn call(&self, call: Call);
    /// Starts a generator; what it yields goes to [`Generation::emit`].
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
    begun: Instant,
    shared: Arc<Shared>,
    destination: Destination,
    finished: bool,
}

enum Destination {
    Class { class: Arc<ResolveClass>, number: u64 },
    One { plan: Arc<Plan>, outcome: tokio::sync::oneshot::Sender<Outcome> },
}

/// What a function gave: a tree of what was read, or why not.
pub type Outcome = Result<Value, Arc<GraphQLError>>;

impl Call {
    /// A call whose outcome goes to one place.
    pub(super) fn single(
        operation: &Operation,
        event: Arc<Event>,
        viewer: Arc<Viewer>,
        shared: &Arc<Shared>,
        turn: Option<Turn>,
    ) -> (Call, Pending) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let Operation { field, arguments, plan, .. } = operation;
        let watcher = field.declaration.takes_info.then(|| Watcher { viewer, plan: plan.clone() });
        let destination = Destination::One { plan: plan.clone(), outcome: sender };
        let (field, arguments) = (field.clone(), arguments.clone());
        let pending =
            Pending { outcome: receiver, waits: true, abandon_key: shared.abandon_key(), shared: shared.clone() };
        let abandon_key = pending.abandon_key;
        let (begun, shared) = (shared.metrics.clock.now(), shared.clone());
        let finished = false;
        (Call { field, event, arguments, watcher, abandon_key, turn, begun, shared, destination, finished }, pending)
    }

    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        match &self.destination {
            Destination::Class { class, .. } => class.state.lock().abandoned,
            Destination::One { outcome, .. } => outcome.is_closed(),
        }
    }

    /// What has to be read of the function's result: what those who wait for it have selected. `None`: nobody does any more.
    pub fn reads(&self) -> Option<Arc<Reads>> {
        match &self.destination {
            Destination::Class { class, number } => class.reads(*number),
            Destination::One { plan, .. } => Some(plan.reads.clone()),
        }
    }

    /// The outcome.
    pub fn finish(mut self, outcome: Outcome) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: Outcome) {
        self.finished = true;
        self.shared.metrics.resolved(&self.field.name, self.begun);
        match &mut self.destination {
            Destination::Class { class, number } => class.finish(*number, outcome),
            Destination::One { outcome: sender, .. } => {
                // A receiver that has gone does not want it any more.
                let (unused, _) = tokio::sync::oneshot::channel();
                let _ = std::mem::replace(sender, unused).send(outcome);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.finished {
            let error = GraphQLError::new(code::INTERNAL_SERVER_ERROR, "Internal server error");
            self.deliver(Err(Arc::new(error)));
        }
    }
}

/// The outcome of a call that goes to one place. Whoever drops this does not want it any more.
pub(super) struct Pending {
    outcome: tokio::sync::oneshot::Receiver<Outcome>,
    waits: bool,
    abandon_key: u64,
    shared: Arc<Shared>,
}

impl Pending {
    /// Waits for it. A call always finishes: where it is dropped, by an error.
    pub(super) async fn outcome(mut self) -> Option<Outcome> {
        let outcome = (&mut self.outcome).await;
        self.waits = false;
        outcome.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.waits {
            // Closed first: where the call has not begun, it does not begin.
            self.outcome.close();
            self.shared.resolver.abandon(self.abandon_key);
        }
    }
}

/// What those who share a call have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClassKey {
    field: usize,
    arguments: Arc<str>,
    /// Viewer and selection, where the function takes `info`.
    watcher: Option<(Arc<str>, Arc<str>)>,
}

impl ClassKey {
    /// The key of an operation for a viewer, and what the function may know of who is watching.
    pub fn of(operation: &Operation, viewer: &Arc<Viewer>) -> (Arc<ClassKey>, Option<Watcher>) {
        let Operation { field, plan, arguments_key, .. } = operation;
        let watcher = field.declaration.takes_info.then(|| Watcher { viewer: viewer.clone(), plan: plan.clone() });
        let key = ClassKey {
            field: field.index,
            arguments: arguments_key.clone(),
            watcher: watcher.as_ref().map(|_| (viewer.key.clone(), plan.selected.join(",").into())),
        };
        (Arc::new(key), watcher)
    }
}

/// Those who share the calls of one function.
pub(crate) struct ResolveClass {
    /// What they have in common.
    pub key: Arc<ClassKey>,
    field: Arc<Field>,
    arguments: Arc<Value>,
    watcher: Option<Watcher>,
    abandon_key: u64,
    /// For whom it waits: those who came first.
    accounts: Accounts,
    shared: Arc<Shared>,
    me: Weak<ResolveClass>,
    state: Mutex<State>,
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

#[derive(Default)]
struct State {
    /// The number of the first slot; numbers go on by one.
    first: u64,
    slots: VecDeque<Slot>,
    /// How many slots, from the first, have been started.
    started: usize,
    /// The bytes of the events that have not.
    waiting_bytes: usize,
    /// A turn was asked for.
    is_queued: bool,
    alarm: Option<Alarm>,
    /// Everybody has left, for good: who comes next makes a new class.
    abandoned: bool,
}

/// An event on its way through the class.
struct Slot {
    event: Arc<Event>,
    /// Those who hear of it.
    groups: Vec<Arc<Group>>,
    outcome: Option<Outcome>,
    /// Since when only a turn is missing.
    asked: Option<Instant>,
    _under_way: UnderWay,
}

impl ResolveClass {
    /// A class that nothing waits in.
    pub(super) fn new(
        key: Arc<ClassKey>,
        operation: &Operation,
        watcher: Option<Watcher>,
        accounts: Accounts,
        shared: Arc<Shared>,
    ) -> Arc<ResolveClass> {
        let (field, arguments) = (operation.field.clone(), operation.arguments.clone());
        let (abandon_key, state) = (shared.abandon_key(), Mutex::default());
        Arc::new_cyclic(|me| {
            let me = me.clone();
            ResolveClass { key, field, arguments, watcher, abandon_key, accounts, shared, me, state }
        })
    }

    /// Takes an event that these groups hear of, or drops it where too many wait.
    pub(super) fn offer(self: &Arc<Self>, event: &Arc<Event>, groups: Vec<Arc<Group>>) {
        let limits = &self.shared.limits;
        let mut state = self.state.lock();
        let waiting = state.slots.len() - state.started;
        let starts_now = state.started < limits.resolver_concurrency;
        let has_room =
            waiting < limits.queue_messages && state.waiting_bytes + event.size <= limits.queue_bytes || waiting == 0;
        if !starts_now && !has_room {
            drop(state);
            for group in groups {
                group.each(Some(self), event, |_, mailbox| mailbox.lost(1, DropReason::Resolver));
            }
            return;
        }
        state.waiting_bytes += event.size;
        let under_way = self.shared.calls.start();
        let slot = Slot { event: event.clone(), groups, outcome: None, asked: None, _under_way: under_way };
        state.slots.push_back(slot);
        let calls = self.start(&mut state);
        drop(state);
        self.call(calls);
    }

    fn finish(self: &Arc<Self>, number: u64, outcome: Outcome) {
        let mut state = self.state.lock();
        let at = (number - state.first) as usize;
        self.settle(&mut state, at, outcome);
        let calls = self.start(&mut state);
        drop(state);
        self.call(calls);
    }

    /// The outcome of a slot; what can be delivered in the order of the events is.
    fn settle(self: &Arc<Self>, state: &mut State, at: usize, outcome: Outcome) {
        if outcome.is_err() && !state.abandoned {
            self.shared.metrics.resolver_errors.inc();
        }
        state.slots[at].outcome = Some(outcome);
        while state.slots.front().is_some_and(|slot| slot.outcome.is_some()) {
            // Delivered under the lock: a later event of the class must not overtake.
            if let Some(Slot { event, groups, outcome: Some(outcome), _under_way, .. }) = state.slots.pop_front() {
                state.first += 1;
                state.started -= 1;
                let source = match &outcome {
                    Ok(value) => Source::Read(value),
                    Err(error) => Source::Failed(error),
                };
                let mut results = Results::new(&event, source, &self.shared);
                for group in groups {
                    group.deliver(Some(self), &event, &mut results);
                }
            }
        }
    }

    /// Everybody has left: what waits is dropped, what runs is cancelled.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.waiting_bytes = 0;
        let started = state.started;
        state.slots.truncate(started);
        self.shared.timers.set(&mut state.alarm, None, Weak::<ResolveClass>::new());
        drop(state);
        if started > 0 {
            self.shared.resolver.abandon(self.abandon_key);
        }
    }

    /// Begins what may be begun, as far as it has turns; asks for one where it has none.
    fn start(self: &Arc<Self>, state: &mut State) -> Vec<Call> {
        let mut calls = Vec::new();
        let kind = self.field.declaration.kind;
        while !state.is_queued && self.has_next(state) {
            let waiter = || {
                let me: Weak<dyn Caller> = self.me.clone();
                Waiter::Caller(me)
            };
            match self.shared.turns.ask(kind, &self.accounts, waiter) {
                Some(turn) => calls.push(self.begin(state, turn)),
                None => state.is_queued = true,
            }
        }
        self.watch(state);
        calls
    }

    fn has_next(&self, state: &State) -> bool {
        state.started < self.shared.limits.resolver_concurrency && state.started < state.slots.len()
    }

    fn begin(self: &Arc<Self>, state: &mut State, turn: Turn) -> Call {
        let (number, event) = self.take_next(state);
        Call {
            field: self.field.clone(),
            event,
            arguments: self.arguments.clone(),
            watcher: self.watcher.clone(),
            abandon_key: self.abandon_key,
            turn: Some(turn),
            begun: self.shared.metrics.clock.now(),
            shared: self.shared.clone(),
            destination: Destination::Class { class: self.clone(), number },
            finished: false,
        }
    }

    /// The next event that waits is on its way.
    fn take_next(&self, state: &mut State) -> (u64, Arc<Event>) {
        let number = state.first + state.started as u64;
        let event = state.slots[state.started].event.clone();
        state.waiting_bytes -= event.size;
        state.started += 1;
        (number, event)
    }

    /// How long an event may wait for a thread; others wait as long as it takes.
    fn patience(&self) -> Option<Duration> {
        let own = self.field.declaration.timeout.map(Duration::from_secs_f64);
        (self.field.declaration.kind == Kind::Sync).then(|| own.unwrap_or(self.shared.limits.resolver_timeout))
    }

    /// Sets the alarm for the event that has waited longest for a thread.
    fn watch(self: &Arc<Self>, state: &mut State) {
        let Some(patience) = self.patience() else { return };
        let now = self.shared.metrics.clock.now();
        let (from, to) = (state.started, state.slots.len().min(self.shared.limits.resolver_concurrency));
        for slot in state.slots.iter_mut().take(to).skip(from) {
            slot.asked.get_or_insert(now);
        }
        let first = state.slots.get(from).and_then(|slot| slot.asked);
        self.shared.timers.set(&mut state.alarm, first.map(|asked| asked + patience), self.me.clone());
    }

    /// The port is called without the lock: it may finish a call at once.
    fn call(&self, calls: Vec<Call>) {
        for call in calls {
            self.shared.resolver.call(call);
        }
    }

    fn reads(self: &Arc<Self>, number: u64) -> Option<Arc<Reads>> {
        let (event, groups) = {
            let state = self.state.lock();
            let slot = &state.slots[(number - state.first) as usize];
            (slot.event.clone(), slot.groups.clone())
        };
        let (mut plans, mut known) = (Vec::new(), FxHashSet::default());
        for group in groups {
            group.each_plan(Some(self), &event, |plan| {
                if known.insert(Arc::as_ptr(plan)) {
                    plans.push(plan.clone());
                }
            });
        }
        plans.split_first().map(|(first, others)| Reads::union(first, others))
    }
}

impl Caller for ResolveClass {
    fn granted(self: Arc<Self>, turn: Turn) -> Result<(), Turn> {
        let mut state = self.state.lock();
        state.is_queued = false;
        if !self.has_next(&state) {
            return Err(turn);
        }
        let mut calls = vec![self.begin(&mut state, turn)];
        calls.extend(self.start(&mut state));
        drop(state);
        self.call(calls);
        Ok(())
    }
}

impl Timed for ResolveClass {
    /// Who has waited too long for a thread is told so; the function is not called.
    fn tick(&self, now: Instant) {
        let (Some(this), Some(patience)) = (self.me.upgrade(), self.patience()) else { return };
        let mut state = this.state.lock();
        state.alarm = None;
        let is_late = |state: &State| {
            let asked = state.slots.get(state.started).and_then(|slot| slot.asked);
            asked.is_some_and(|asked| asked + patience <= now)
        };
        while is_late(&state) {
            let at = state.started;
            this.take_next(&mut state);
            this.settle(&mut state, at, Err(Arc::new(too_late())));
        }
        let calls = this.start(&mut state);
        drop(state);
        this.call(calls);
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

    /// One value that the generator yielded, read for this subscription's selection.
    pub fn emit(&self, value: &Value) {
        let result = group::result(&self.watcher.plan, Source::Read(value), None, &self.shared);
        result.push_paced_to(&self.mailbox, &self.shared.metrics);
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
