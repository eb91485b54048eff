//! The classes that share a call, and the lanes in which its results go out.
//!
//! A [`ResolveClass`] is a field with its coerced arguments and, only where the function takes `info`, a viewer and a selection. For each event
//! that somebody in it hears of, the function is called once. Up to `resolver_concurrency` events of a class are worked on at
//! once; so a slow function delays its own class alone.
//!
//! What the function gave is read for each plan by itself ([`super::reading`]). Results of a plan go out in the order of the events, in a lane of
//! its own, so a slow field delays only the plans that select it; what has no room in a lane is lost to these alone, and told.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::group::{Group, ProjectedResult, address};
use super::reading::{Destination, Part, Resume, Returned};
use super::resolver::{Call, ForWhom, Shared, Watcher, too_late};
use super::turns::{Caller, Purpose, Turn, Waiter};
use crate::accounts::Accounts;
use crate::event::Event;
use crate::graphql::{Field, Kind, Operation, Plan};
use crate::operators::DropReason;
use crate::tasks::UnderWay;
use crate::timers::{Alarm, Timed};
use crate::value::Value;
use crate::viewer::Viewer;

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

#[derive(Default)]
struct State {
    /// The number of the first slot, and of the first event whose function has not returned; numbers go on by one.
    first: u64,
    slots: VecDeque<Slot>,
    /// How many slots, from the first, have been started,
    started: usize,
    /// and how many of these have not returned.
    running: usize,
    /// The bytes of the events that have not been started.
    waiting_bytes: usize,
    /// By the addresses of their plans.
    lanes: FxHashMap<usize, Lane>,
    /// A turn was asked for.
    is_queued: bool,
    alarm: Option<Alarm>,
    /// Everybody has left, for good: who comes next makes a new class.
    abandoned: bool,
}

/// An event that the function has not returned for, or that has overtaken one.
struct Slot {
    event: Arc<Event>,
    /// Those who hear of it.
    groups: Vec<Arc<Group>>,
    returned: bool,
    /// Since when only a turn is missing.
    asked: Option<Instant>,
    _under_way: UnderWay,
}

/// The results of a plan that have not gone out.
struct Lane {
    plan: Arc<Plan>,
    /// In the order of the events.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// How many of them are being read.
    reading: usize,
}

/// The result of an event, on its way.
struct Entry {
    number: u64,
    event: Arc<Event>,
    /// Those of its plan who hear of it.
    groups: Vec<Arc<Group>>,
    stage: Stage,
    _under_way: UnderWay,
}

enum Stage {
    /// Too many of its plan are being read.
    Waits(Weak<dyn Resume>, usize),
    Reads,
    Done(ProjectedResult),
}

impl Lane {
    fn new(plan: Arc<Plan>) -> Lane {
        Lane { plan, entries: VecDeque::new(), bytes: 0, reading: 0 }
    }
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
        let waiting = state.slots.len() - state.running;
        let starts_now = waiting == 0 && state.running < limits.resolver_concurrency;
        let has_room =
            waiting < limits.queue_messages && state.waiting_bytes + event.size <= limits.queue_bytes || waiting == 0;
        if !starts_now && !has_room {
            drop(state);
            for group in groups {
                group.each(self, event, |_, mailbox| mailbox.lost(1, DropReason::Resolver));
            }
            return;
        }
        state.waiting_bytes += event.size;
        let under_way = self.shared.calls.start();
        let slot = Slot { event: event.clone(), groups, returned: false, asked: None, _under_way: under_way };
        state.slots.push_back(slot);
        let calls = self.start(&mut state);
        drop(state);
        self.call(calls);
    }

    /// Nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// The function has returned for an event. What it gave is to be read for these plans; those that must wait are told by `reader`. Without
    /// one there is nothing to be read.
    pub(super) fn returned(self: &Arc<Self>, number: u64, reader: Option<&Weak<dyn Resume>>) -> Returned {
        let mut state = self.state.lock();
        let returned = self.settle(&mut state, number, reader);
        let calls = self.start(&mut state);
        drop(state);
        self.call(calls);
        returned
    }

    /// The function is done with an event: each plan that waits for it has it in its lane.
    fn settle(self: &Arc<Self>, state: &mut State, number: u64, reader: Option<&Weak<dyn Resume>>) -> Returned {
        let at = (number - state.first) as usize;
        state.running -= 1;
        state.slots[at].returned = true;
        let (event, groups) = (state.slots[at].event.clone(), std::mem::take(&mut state.slots[at].groups));
        let mut returned = Returned::default();
        if !state.abandoned {
            let mut plans: Vec<(Arc<Plan>, Vec<Arc<Group>>)> = Vec::new();
            let mut known = FxHashMap::default();
            for group in groups {
                group.each_plan(self, &event, |plan| {
                    let at = *known.entry(address(Some(plan))).or_insert(plans.len());
                    if at == plans.len() {
                        plans.push((plan.clone(), Vec::with_capacity(1)));
                    }
                    plans[at].1.push(group.clone());
                });
            }
            for (plan, groups) in plans {
                self.enter(state, number, &event, plan, groups, reader, &mut returned);
            }
        }
        let before = state.first;
        while state.slots.front().is_some_and(|slot| slot.returned) {
            state.slots.pop_front();
            state.first += 1;
            state.started -= 1;
        }
        if state.first > before + 1 {
            // Later ones had overtaken it.
            let (first, lanes) = (state.first, &mut state.lanes);
            lanes.retain(|_, lane| self.flush(lane, first));
        }
        returned
    }

    /// A plan waits for what the function gave, if its lane has room.
    #[expect(clippy::too_many_arguments, reason = "they are what an entry is made of")]
    fn enter(
        self: &Arc<Self>,
        state: &mut State,
        number: u64,
        event: &Arc<Event>,
        plan: Arc<Plan>,
        groups: Vec<Arc<Group>>,
        reader: Option<&Weak<dyn Resume>>,
        returned: &mut Returned,
    ) {
        let limits = &self.shared.limits;
        let lane = state.lanes.entry(address(Some(&plan))).or_insert_with(|| Lane::new(plan.clone()));
        let is_full = lane.entries.len() >= limits.queue_messages || lane.bytes + event.size > limits.queue_bytes;
        if is_full && !lane.entries.is_empty() {
            for group in &groups {
                group.each_of(self, &plan, event, |mailbox| mailbox.lost(1, DropReason::Resolver));
            }
            return;
        }
        // What is read in a thread is read there at once.
        let may_begin = lane.reading < limits.resolver_concurrency || self.field.declaration.kind == Kind::Sync;
        let part = returned.parts.len();
        let stage = match reader {
            Some(reader) if !may_begin => Stage::Waits(reader.clone(), part),
            _ => {
                lane.reading += 1;
                returned.ready.push(part);
                Stage::Reads
            }
        };
        lane.bytes += event.size;
        let _under_way = self.shared.calls.start();
        let entry = Entry { number, event: event.clone(), groups, stage, _under_way };
        let at = lane.entries.partition_point(|known| known.number < number);
        lane.entries.insert(at, entry);
        let destination = Destination::Class { class: self.clone(), number };
        let position = Some(event.position);
        returned.parts.push(Part::new(plan, position, destination, self.accounts.clone(), self.shared.clone()));
    }

    /// The result of a plan.
    pub(super) fn deliver(self: &Arc<Self>, number: u64, plan: &Arc<Plan>, result: ProjectedResult) {
        let mut state = self.state.lock();
        let (first, key) = (state.first, address(Some(plan)));
        // Everybody may have left.
        let Some(lane) = state.lanes.get_mut(&key) else { return };
        let at = lane.entries.partition_point(|entry| entry.number < number);
        let Some(entry) = lane.entries.get_mut(at).filter(|entry| entry.number == number) else { return };
        let had_begun = matches!(std::mem::replace(&mut entry.stage, Stage::Done(result)), Stage::Reads);
        let mut next = None;
        if had_begun {
            lane.reading -= 1;
            next = lane.entries.iter_mut().find(|entry| matches!(entry.stage, Stage::Waits(..)));
        }
        let next = next.map(|entry| std::mem::replace(&mut entry.stage, Stage::Reads));
        if let Some(Stage::Waits(reader, part)) = next {
            lane.reading += 1;
            // Without its reader the part has been dropped, and was an error.
            if let Some(reader) = reader.upgrade() {
                reader.resume(part);
            }
        }
        if !self.flush(lane, first) {
            state.lanes.remove(&key);
        }
    }

    /// Sends out what may go out, under the lock: a later event must not overtake. Returns whether anything is left.
    fn flush(self: &Arc<Self>, lane: &mut Lane, first: u64) -> bool {
        while lane.entries.front().is_some_and(|entry| entry.number < first && matches!(entry.stage, Stage::Done(_))) {
            let Some(entry) = lane.entries.pop_front() else { break };
            lane.bytes -= entry.event.size;
            if let Stage::Done(result) = &entry.stage {
                for group in &entry.groups {
                    group.deliver(self, &lane.plan, &entry.event, result, &self.shared);
                }
            }
        }
        !lane.entries.is_empty()
    }

    /// Everybody has left: what waits is dropped, what runs is cancelled.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.waiting_bytes = 0;
        let started = state.started;
        state.slots.truncate(started);
        let lanes = std::mem::take(&mut state.lanes);
        self.shared.timers.set(&mut state.alarm, None, Weak::<ResolveClass>::new());
        drop(state);
        if started > 0 || !lanes.is_empty() {
            self.shared.resolver.abandon(self.abandon_key);
        }
    }

    /// Begins what may be begun, as far as it has turns; asks for one where it has none.
    fn start(self: &Arc<Self>, state: &mut State) -> Vec<Call> {
        let mut calls = Vec::new();
        let purpose = Purpose::of(self.field.declaration.kind);
        while !state.is_queued && self.has_next(state) {
            let waiter = || {
                let me: Weak<dyn Caller> = self.me.clone();
                Waiter::Caller(me)
            };
            match self.shared.turns.ask(purpose, &self.accounts, waiter) {
                Some(turn) => calls.push(self.begin(state, turn)),
                None => state.is_queued = true,
            }
        }
        self.watch(state);
        calls
    }

    fn has_next(&self, state: &State) -> bool {
        state.running < self.shared.limits.resolver_concurrency && state.started < state.slots.len()
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
            destination: Some(ForWhom::Class { class: self.clone(), number }),
        }
    }

    /// The next event that waits is on its way.
    fn take_next(&self, state: &mut State) -> (u64, Arc<Event>) {
        let number = state.first + state.started as u64;
        let event = state.slots[state.started].event.clone();
        state.waiting_bytes -= event.size;
        state.started += 1;
        state.running += 1;
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
        let free = self.shared.limits.resolver_concurrency.saturating_sub(state.running);
        for slot in state.slots.iter_mut().skip(state.started).take(free) {
            slot.asked.get_or_insert(now);
        }
        let first = state.slots.get(state.started).and_then(|slot| slot.asked);
        self.shared.timers.set(&mut state.alarm, first.map(|asked| asked + patience), self.me.clone());
    }

    /// The port is called without the lock: it may finish a call at once.
    fn call(&self, calls: Vec<Call>) {
        for call in calls {
            self.shared.resolver.call(call);
        }
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
        let mut late = Vec::new();
        while is_late(&state) {
            let (number, _) = this.take_next(&mut state);
            this.shared.metrics.resolver_errors.inc();
            late.extend(this.settle(&mut state, number, None).parts);
        }
        let calls = this.start(&mut state);
        drop(state);
        this.call(calls);
        let outcome = Err(Arc::new(too_late()));
        late.into_iter().for_each(|part| part.deliver(&outcome));
    }
}
