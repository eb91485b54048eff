//! Who hears of an event: the groups that the index finds, and the delivery of one result to all of them.
//!
//! Members of a [`Group`] have equal conditions. Inside it, those with the same plan share one projection, and those with the
//! same resolve class share one call.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::mailbox::{Body, Mailbox};
use super::resolver::{ResolveClass, Shared};
use crate::error::{GraphQLError, code, errors_json};
use crate::event::{Event, Position};
use crate::graphql::{Plan, Source, project};
use crate::matching::Condition;
use crate::operators::{DropReason, Metrics};

/// Subscriptions with one condition.
pub(crate) struct Group {
    /// Their condition.
    pub condition: Condition,
    classes: Mutex<Vec<Class>>,
}

/// Members of a group that receive the same bytes.
struct Class {
    plan: Arc<Plan>,
    resolve: Option<Arc<ResolveClass>>,
    /// Each knows its place here.
    members: Vec<Arc<Mailbox>>,
}

impl Class {
    fn is(&self, plan: &Arc<Plan>, resolve: Option<&Arc<ResolveClass>>) -> bool {
        Arc::ptr_eq(&self.plan, plan) && self.resolves_by(resolve)
    }

    fn resolves_by(&self, resolve: Option<&Arc<ResolveClass>>) -> bool {
        match (&self.resolve, resolve) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Group {
    /// A group without members.
    pub(super) fn new(condition: Condition) -> Arc<Group> {
        Arc::new(Group { condition, classes: Mutex::default() })
    }

    /// Adds a member.
    pub(super) fn join(&self, mailbox: Arc<Mailbox>, plan: &Arc<Plan>, resolve: Option<Arc<ResolveClass>>) {
        let mut classes = self.classes.lock();
        if let Some(class) = classes.iter_mut().find(|class| class.is(plan, resolve.as_ref())) {
            mailbox.place.store(class.members.len(), Relaxed);
            class.members.push(mailbox);
            return;
        }
        mailbox.place.store(0, Relaxed);
        // Most groups have one class, and most classes of small groups one member.
        classes.reserve_exact(1);
        classes.push(Class { plan: plan.clone(), resolve, members: vec![mailbox] });
    }

    /// Removes a member; returns whether the group is empty now.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>, plan: &Arc<Plan>, resolve: Option<&Arc<ResolveClass>>) -> bool {
        let mut classes = self.classes.lock();
        if let Some(at) = classes.iter().position(|class| class.is(plan, resolve)) {
            let members = &mut classes[at].members;
            let place = mailbox.place.load(Relaxed);
            if members.get(place).is_some_and(|member| Arc::ptr_eq(member, mailbox)) {
                members.swap_remove(place);
                if let Some(moved) = members.get(place) {
                    moved.place.store(place, Relaxed);
                }
            }
            if members.is_empty() {
                classes.swap_remove(at);
            }
        }
        classes.is_empty()
    }

    /// Hands an event to the resolve classes of its members, each once, and its passthrough members their results.
    pub(super) fn receive(
        self: &Arc<Self>,
        event: &Event,
        results: &mut Results<'_>,
        calls: &mut FxHashMap<*const ResolveClass, (Arc<ResolveClass>, Vec<Arc<Group>>)>,
    ) {
        for class in &*self.classes.lock() {
            if results.shared.limits_events && !class.admit(event) {
                continue;
            }
            match &class.resolve {
                Some(resolve) => {
                    let (_, groups) =
                        calls.entry(Arc::as_ptr(resolve)).or_insert_with(|| (resolve.clone(), Vec::new()));
                    if !groups.last().is_some_and(|last| Arc::ptr_eq(last, self)) {
                        groups.push(self.clone());
                    }
                }
                None => class.deliver(event, results),
            }
        }
    }

    /// Delivers the results of an event to those members of a resolve class that heard of it.
    pub(super) fn deliver(&self, resolve: Option<&Arc<ResolveClass>>, event: &Event, results: &mut Results<'_>) {
        for class in self.classes.lock().iter().filter(|class| class.resolves_by(resolve)) {
            class.deliver(event, results);
        }
    }

    /// Every member of a resolve class that heard of an event, which does not go on.
    pub(super) fn each(
        &self,
        resolve: Option<&Arc<ResolveClass>>,
        event: &Event,
        mut visit: impl FnMut(&Arc<Plan>, &Arc<Mailbox>),
    ) {
        for class in self.classes.lock().iter().filter(|class| class.resolves_by(resolve)) {
            for mailbox in class.members.iter().filter(|mailbox| mailbox.hears(event.position.offset)) {
                visit(&class.plan, mailbox);
            }
            class.forget(event);
        }
    }

    /// Every member.
    pub(super) fn each_member(&self, visit: impl Fn(&Arc<Mailbox>)) {
        self.classes.lock().iter().flat_map(|class| class.members.iter()).for_each(visit);
    }

    /// The plans of a resolve class's members.
    pub(super) fn each_plan(
        &self,
        resolve: Option<&Arc<ResolveClass>>,
        event: &Event,
        mut visit: impl FnMut(&Arc<Plan>),
    ) {
        for class in self.classes.lock().iter().filter(|class| class.resolves_by(resolve)) {
            if class.members.iter().any(|mailbox| mailbox.hears(event.position.offset)) {
                visit(&class.plan);
            }
        }
    }
}

impl Class {
    fn deliver(&self, event: &Event, results: &mut Results<'_>) {
        let mut result = None;
        for mailbox in self.members.iter().filter(|mailbox| mailbox.hears(event.position.offset)) {
            // Projected when the first member wants it: a class whose members all came later costs nothing.
            let result = result.get_or_insert_with(|| results.of(&self.plan));
            result.push_to(mailbox, &results.shared.metrics);
        }
        if result.is_some() {
            results.shared.metrics.enqueued(event.published_at);
        }
        if results.shared.limits_events {
            self.forget(event);
        }
    }

    /// Asks the rate of each member, before any work is done for it; returns whether one of them hears of the event.
    fn admit(&self, event: &Event) -> bool {
        // Every member is asked, whatever the others are told.
        let heard = self.members.iter().filter(|mailbox| mailbox.admit(event.position.offset)).count();
        if heard == 0 {
            self.forget(event);
        }
        heard > 0
    }

    /// The event is through.
    fn forget(&self, event: &Event) {
        self.members.iter().for_each(|mailbox| mailbox.forget(event.position.offset));
    }
}

/// The results of one event, projected once for each plan.
pub(super) struct Results<'a> {
    event: &'a Event,
    source: Source<'a>,
    shared: &'a Shared,
    done: Vec<(*const Plan, ProjectedResult)>,
}

impl<'a> Results<'a> {
    /// Nothing is projected yet.
    pub(super) fn new(event: &'a Event, source: Source<'a>, shared: &'a Shared) -> Results<'a> {
        Results { event, source, shared, done: Vec::new() }
    }

    fn of(&mut self, plan: &Arc<Plan>) -> ProjectedResult {
        if let Some((_, result)) = self.done.iter().find(|(known, _)| *known == Arc::as_ptr(plan)) {
            return result.clone();
        }
        let result = result(plan, self.source, Some(self.event.position), self.shared);
        self.done.push((Arc::as_ptr(plan), result.clone()));
        result
    }
}

/// A result that is ready to be queued.
#[derive(Clone)]
pub(crate) struct ProjectedResult {
    body: Arc<Body>,
    too_large: bool,
}

impl ProjectedResult {
    /// Queues it.
    pub(super) fn push_to(&self, mailbox: &Arc<Mailbox>, metrics: &Metrics) {
        self.count(metrics);
        mailbox.push(self.body.clone());
    }

    /// Queues it where its maker has waited for room.
    pub(super) fn push_paced_to(&self, mailbox: &Arc<Mailbox>, metrics: &Metrics) {
        self.count(metrics);
        mailbox.push_paced(self.body.clone());
    }

    /// The length of the result.
    pub(super) fn bytes(&self) -> usize {
        self.body.json.len()
    }

    fn count(&self, metrics: &Metrics) {
        if self.too_large {
            metrics.dropped(DropReason::Result, 1);
        }
    }
}

/// Projects a result; one that is too large becomes an error.
pub(super) fn result(plan: &Plan, source: Source<'_>, position: Option<Position>, shared: &Shared) -> ProjectedResult {
    let projected = project(plan, source, shared.limits.max_result_bytes);
    let too_large = projected.is_err();
    let json = projected.unwrap_or_else(|_| {
        let error = GraphQLError::new(code::RESULT_TOO_LARGE, "Result too large");
        format!("{{\"data\":null,\"errors\":{}}}", errors_json(&[error]))
    });
    ProjectedResult { body: Arc::new(Body { json, position, made: shared.metrics.clock.now() }), too_large }
}
