//! Who hears of an event: the groups that the index finds, and the delivery of one result to all of them.
//!
//! Members of a [`Group`] have equal conditions. Inside it, those with the same plan share one projection, and those with the
//! same resolve class share one call.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::class::ResolveClass;
use super::mailbox::{Body, Mailbox};
use super::resolver::Shared;
use crate::error::{GraphQLError, code, errors_json};
use crate::event::{Event, Position};
use crate::graphql::{Plan, Source, project};
use crate::matching::Condition;
use crate::operators::{DropReason, Metrics};

/// Subscriptions with one condition.
pub(crate) struct Group {
    /// Their condition.
    pub condition: Condition,
    classes: Mutex<Classes>,
}

/// Members of a group that receive the same bytes.
struct Class {
    plan: Arc<Plan>,
    resolve: Option<Arc<ResolveClass>>,
    /// Each knows its place here.
    members: Vec<Arc<Mailbox>>,
}

impl Group {
    /// A group without members.
    pub(super) fn new(condition: Condition) -> Arc<Group> {
        Arc::new(Group { condition, classes: Mutex::default() })
    }

    /// Adds a member.
    pub(super) fn join(&self, mailbox: Arc<Mailbox>, plan: &Arc<Plan>, resolve: Option<Arc<ResolveClass>>) {
        let mut classes = self.classes.lock();
        let class = classes.entry(plan, resolve);
        mailbox.place.store(class.members.len(), Relaxed);
        class.members.push(mailbox);
    }

    /// Removes a member; returns whether the group is empty now.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>, plan: &Arc<Plan>, resolve: Option<&Arc<ResolveClass>>) -> bool {
        let mut classes = self.classes.lock();
        if let Some(at) = classes.find(plan, resolve) {
            let members = &mut classes.all[at].members;
            let place = mailbox.place.load(Relaxed);
            if members.get(place).is_some_and(|member| Arc::ptr_eq(member, mailbox)) {
                members.swap_remove(place);
                if let Some(moved) = members.get(place) {
                    moved.place.store(place, Relaxed);
                }
            }
            if members.is_empty() {
                classes.remove(at);
            }
        }
        classes.all.is_empty()
    }

    /// Hands an event to the resolve classes of its members, each once, and its passthrough members their results.
    pub(super) fn receive(
        self: &Arc<Self>,
        event: &Event,
        results: &mut Results<'_>,
        calls: &mut FxHashMap<*const ResolveClass, (Arc<ResolveClass>, Vec<Arc<Group>>)>,
    ) {
        for class in &self.classes.lock().all {
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
                None => class.deliver(event, results.shared, || results.of(&class.plan)),
            }
        }
    }

    /// Delivers a result to those members of a resolve class and a plan that heard of the event.
    pub(super) fn deliver(
        &self,
        resolve: &Arc<ResolveClass>,
        plan: &Arc<Plan>,
        event: &Event,
        result: &ProjectedResult,
        shared: &Shared,
    ) {
        let classes = self.classes.lock();
        // They may have left.
        if let Some(at) = classes.find(plan, Some(resolve)) {
            classes.all[at].deliver(event, shared, || result.clone());
        }
    }

    /// Every member of a resolve class that heard of an event, which does not go on.
    pub(super) fn each(
        &self,
        resolve: &Arc<ResolveClass>,
        event: &Event,
        mut visit: impl FnMut(&Arc<Plan>, &Arc<Mailbox>),
    ) {
        for class in self.classes.lock().of(resolve) {
            class.each(event, |mailbox| visit(&class.plan, mailbox));
        }
    }

    /// Every one of these that has a plan.
    pub(super) fn each_of(
        &self,
        resolve: &Arc<ResolveClass>,
        plan: &Arc<Plan>,
        event: &Event,
        visit: impl FnMut(&Arc<Mailbox>),
    ) {
        let classes = self.classes.lock();
        if let Some(at) = classes.find(plan, Some(resolve)) {
            classes.all[at].each(event, visit);
        }
    }

    /// Every member.
    pub(super) fn each_member(&self, visit: impl Fn(&Arc<Mailbox>)) {
        self.classes.lock().all.iter().flat_map(|class| class.members.iter()).for_each(visit);
    }

    /// The plans of a resolve class's members.
    pub(super) fn each_plan(&self, resolve: &Arc<ResolveClass>, event: &Event, mut visit: impl FnMut(&Arc<Plan>)) {
        for class in self.classes.lock().of(resolve) {
            if class.members.iter().any(|mailbox| mailbox.hears(event.position.offset)) {
                visit(&class.plan);
            }
        }
    }
}

impl Class {
    fn deliver(&self, event: &Event, shared: &Shared, make: impl FnOnce() -> ProjectedResult) {
        let (mut make, mut result) = (Some(make), None);
        for mailbox in self.members.iter().filter(|mailbox| mailbox.hears(event.position.offset)) {
            // Made when the first member wants it: a class whose members all came later costs nothing.
            if let Some(make) = make.take() {
                result = Some(make());
            }
            if let Some(result) = &result {
                result.push_to(mailbox, &shared.metrics);
            }
        }
        if result.is_some() {
            shared.metrics.enqueued(event.published_at);
        }
        if shared.limits_events {
            self.forget(event);
        }
    }

    /// Every member that heard of an event, which does not go on.
    fn each(&self, event: &Event, visit: impl FnMut(&Arc<Mailbox>)) {
        self.members.iter().filter(|mailbox| mailbox.hears(event.position.offset)).for_each(visit);
        self.forget(event);
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

/// The classes of a group. A few are searched through; where there are more, each is found by its hash.
#[derive(Default)]
struct Classes {
    all: Vec<Class>,
    index: Option<Box<Places>>,
}

/// Places in `all`, by the address of the resolve class, then of the plan.
type Places = FxHashMap<usize, FxHashMap<usize, usize>>;

impl Classes {
    /// More than these have an index.
    const FEW: usize = 16;

    fn find(&self, plan: &Arc<Plan>, resolve: Option<&Arc<ResolveClass>>) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&address(resolve))?.get(&address(Some(plan))).copied(),
            None => self.all.iter().position(|class| class.is_of(resolve) && Arc::ptr_eq(&class.plan, plan)),
        }
    }

    /// The class of a plan and a resolve class.
    fn entry(&mut self, plan: &Arc<Plan>, resolve: Option<Arc<ResolveClass>>) -> &mut Class {
        let at = self.find(plan, resolve.as_ref()).unwrap_or_else(|| {
            let at = self.all.len();
            if at < Classes::FEW {
                // Most groups have one class, and most classes of small groups one member.
                self.all.reserve_exact(1);
            }
            self.all.push(Class { plan: plan.clone(), resolve, members: Vec::with_capacity(1) });
            match &mut self.index {
                Some(index) => self.all[at].enter(index, at),
                None if at < Classes::FEW => {}
                None => {
                    let mut index = Places::default();
                    self.all.iter().enumerate().for_each(|(at, class)| class.enter(&mut index, at));
                    self.index = Some(Box::new(index));
                }
            }
            at
        });
        &mut self.all[at]
    }

    fn remove(&mut self, at: usize) {
        let gone = self.all.swap_remove(at);
        let Some(index) = &mut self.index else { return };
        let resolve = address(gone.resolve.as_ref());
        if let Some(plans) = index.get_mut(&resolve) {
            plans.remove(&address(Some(&gone.plan)));
            if plans.is_empty() {
                index.remove(&resolve);
            }
        }
        if let Some(moved) = self.all.get(at) {
            moved.enter(index, at);
        }
        if self.all.len() <= Classes::FEW / 2 {
            self.index = None;
        }
    }

    /// Those of a resolve class.
    fn of(&self, resolve: &Arc<ResolveClass>) -> impl Iterator<Item = &Class> {
        let (few, many) = match &self.index {
            None => (&*self.all, None),
            Some(index) => (&[][..], index.get(&address(Some(resolve)))),
        };
        let many = many.into_iter().flat_map(|plans| plans.values().map(|at| &self.all[*at]));
        few.iter().filter(move |class| class.is_of(Some(resolve))).chain(many)
    }
}

impl Class {
    fn is_of(&self, resolve: Option<&Arc<ResolveClass>>) -> bool {
        address(self.resolve.as_ref()) == address(resolve)
    }

    fn enter(&self, index: &mut Places, at: usize) {
        index.entry(address(self.resolve.as_ref())).or_default().insert(address(Some(&self.plan)), at);
    }
}

/// Where it stands in memory; zero for nothing.
pub(super) fn address<T>(pointed: Option<&Arc<T>>) -> usize {
    pointed.map_or(0, |pointed| Arc::as_ptr(pointed) as usize)
}

/// The results of one event, projected once for each plan.
pub(super) struct Results<'a> {
    event: &'a Event,
    source: Source<'a>,
    shared: &'a Shared,
    /// Most events have one.
    first: Option<(*const Plan, ProjectedResult)>,
    others: FxHashMap<*const Plan, ProjectedResult>,
}

impl<'a> Results<'a> {
    /// Nothing is projected yet.
    pub(super) fn new(event: &'a Event, source: Source<'a>, shared: &'a Shared) -> Results<'a> {
        Results { event, source, shared, first: None, others: FxHashMap::default() }
    }

    fn of(&mut self, plan: &Arc<Plan>) -> ProjectedResult {
        let key = Arc::as_ptr(plan);
        let known = match &self.first {
            Some((first, result)) if *first == key => Some(result),
            _ => self.others.get(&key),
        };
        if let Some(result) = known {
            return result.clone();
        }
        let result = result(plan, self.source, Some(self.event.position), self.shared);
        match self.first {
            None => self.first = Some((key, result.clone())),
            Some(_) => _ = self.others.insert(key, result.clone()),
        }
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
    match project(plan, source, shared.limits.max_result_bytes) {
        Ok(json) => ready(json, position, false, shared),
        Err(_) => too_large(position, shared),
    }
}

/// What is said in the place of a result that is too large.
pub(super) fn too_large(position: Option<Position>, shared: &Shared) -> ProjectedResult {
    let error = GraphQLError::new(code::RESULT_TOO_LARGE, "Result too large");
    let json = format!("{{\"data\":null,\"errors\":{}}}", errors_json(&[error]));
    ready(json, position, true, shared)
}

fn ready(json: String, position: Option<Position>, too_large: bool, shared: &Shared) -> ProjectedResult {
    let body = Body::new(json, position, shared.metrics.clock.now()).weighed(&shared.weights);
    ProjectedResult { body: Arc::new(body), too_large }
}
