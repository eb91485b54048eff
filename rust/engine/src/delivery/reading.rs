//! Reading what a function gave, for those who wait for it: plan by plan, each on its own account, and each goes out when it is complete.
//!
//! Every plan has a short slice of time, then a longer one; those that need more follow one by one. So who selects little does not wait for who
//! selects much.
//! What a plan selects may have to be awaited; then it takes a place among the calls of the process ([`super::turns`]), or waits for one.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::class::ResolveClass;
use super::group::{self, ProjectedResult};
use super::resolver::{Generation, Outcome, Shared};
use super::turns::{Caller, Purpose, Turn, Waiter};
use crate::accounts::Accounts;
use crate::clock::Slice;
use crate::error::{GraphQLError, code};
use crate::event::Position;
use crate::graphql::{Budget, Host, Manners, Plan, Source, Stop, Tree, Walk};
use crate::value::Value;

/// For so long a result is read before something else has its turn.
const SLICE: Duration = Duration::from_millis(2);
/// For so long a plan is read at first, then, and from then on.
const SLICES: [Duration; 3] = [Duration::from_micros(250), SLICE, SLICE];

/// A tree of more nodes than these takes its time to be let go of.
const LARGE: usize = 4_096;

/// Whoever reads a result, and may be told to go on.
pub trait Resume: Send + Sync {
    /// The plan at this position may be read now. Called under locks, from any thread: it must only note it and return.
    fn resume(&self, at: usize);
}

/// One plan's part of a result, from the function's return until it is delivered.
pub struct Part {
    plan: Arc<Plan>,
    position: Option<Position>,
    /// `None` once it is delivered.
    destination: Option<Destination>,
    place: Option<Arc<Place>>,
    accounts: Accounts,
    shared: Arc<Shared>,
}

pub(super) enum Destination {
    Class { class: Arc<ResolveClass>, number: u64 },
    One(oneshot::Sender<ProjectedResult>),
    Generation(Arc<Generation>),
}

/// A place among the calls of the process, for a part that has to wait.
struct Place {
    turn: Mutex<Option<Turn>>,
    reader: Weak<dyn Resume>,
    at: usize,
}

impl Caller for Place {
    fn granted(self: Arc<Self>, turn: Turn) -> Result<(), Turn> {
        *self.turn.lock() = Some(turn);
        if let Some(reader) = self.reader.upgrade() {
            reader.resume(self.at);
        }
        Ok(())
    }
}

impl Part {
    pub(super) fn new(
        plan: Arc<Plan>,
        position: Option<Position>,
        destination: Destination,
        accounts: Accounts,
        shared: Arc<Shared>,
    ) -> Part {
        Part { plan, position, destination: Some(destination), place: None, accounts, shared }
    }

    /// Whether it has a place to wait at. Where there is none, `reader` is told when it has one.
    fn may_wait(&mut self, reader: &Weak<dyn Resume>, at: usize) -> bool {
        if matches!(self.destination, Some(Destination::Generation(_))) {
            return true;
        }
        if let Some(place) = &self.place {
            return place.turn.lock().is_some();
        }
        let place = Arc::new(Place { turn: Mutex::default(), reader: reader.clone(), at });
        let waiter = || {
            let waiting: Weak<Place> = Arc::downgrade(&place);
            Waiter::Caller(waiting)
        };
        let turn = self.shared.turns.ask(Purpose::Reading, &self.accounts, waiter);
        let has_turn = turn.is_some();
        if has_turn {
            *place.turn.lock() = turn;
        }
        self.place = Some(place);
        has_turn
    }

    /// What the function gave, as far as this plan selects it, or why there is nothing.
    pub(super) fn deliver(mut self, outcome: &Outcome) {
        self.send(outcome);
    }

    fn too_large(mut self) {
        let result = group::too_large(self.position, &self.shared);
        self.hand_over(result);
    }

    fn send(&mut self, outcome: &Outcome) {
        let source = match outcome {
            Ok(value) => Source::Read(value),
            Err(error) => Source::Failed(error),
        };
        let result = group::result(&self.plan, source, self.position, &self.shared);
        self.hand_over(result);
    }

    fn hand_over(&mut self, result: ProjectedResult) {
        match self.destination.take() {
            Some(Destination::Class { class, number }) => class.deliver(number, &self.plan, result),
            // A receiver that has gone does not want it any more.
            Some(Destination::One(sender)) => _ = sender.send(result),
            Some(Destination::Generation(generation)) => {
                result.push_paced_to(&generation.mailbox, &self.shared.metrics);
            }
            None => {}
        }
        // Others may wait for its place; not under any lock.
        self.place = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.destination.is_some() {
            self.send(&Err(Arc::new(internal())));
        }
    }
}

/// What is said of a failure that clients may not know.
pub(super) fn internal() -> GraphQLError {
    GraphQLError::new(code::INTERNAL_SERVER_ERROR, "Internal server error")
}

/// Those for whom a result is to be read, until each has what is for it.
#[derive(Default)]
pub struct Parts(Mutex<Vec<Option<Part>>>);

impl Parts {
    /// What has not been delivered is this failure.
    pub fn fail(&self, error: &Arc<GraphQLError>) {
        let left: Vec<Part> = self.0.lock().iter_mut().filter_map(Option::take).collect();
        let outcome = Err(error.clone());
        left.into_iter().for_each(|part| part.deliver(&outcome));
    }

    fn take(&self, at: usize) -> Option<Part> {
        self.0.lock()[at].take()
    }
}

/// What a function's return sets going.
#[derive(Default)]
pub struct Returned {
    /// For whom its result is to be read.
    pub parts: Vec<Part>,
    /// Those of them that may be read at once.
    pub ready: Vec<usize>,
}

impl Returned {
    /// For one, at once.
    pub(super) fn one(part: Part) -> Returned {
        Returned { parts: vec![part], ready: vec![0] }
    }
}

/// A result that is being read: of objects `O`, and lists whose items are given by an `I`.
pub struct Reading<O, I> {
    tree: Tree<O, I>,
    parts: Arc<Parts>,
    jobs: Vec<Option<Job>>,
    /// Those who may be read, by how many slices they have had.
    ready: [VecDeque<usize>; 3],
    /// By the number of an awaitable: who waits for it. `None`: its outcome is known.
    waiters: Vec<Option<Vec<usize>>>,
    unfinished: usize,
    late: Option<Arc<GraphQLError>>,
    room: Budget,
}

struct Job {
    plan: Arc<Plan>,
    walk: Walk,
    /// How many slices it has had.
    slices: usize,
    /// How many awaitables are missing.
    missing: usize,
}

impl<O: Send, I: Send> Reading<O, I> {
    /// Nothing is read yet; `None` where nobody waits for it.
    pub fn new(result: O, returned: Returned) -> Option<Reading<O, I>> {
        let Returned { parts, ready } = returned;
        let limits = &parts.first()?.shared.limits;
        let room = Budget { nodes: limits.max_result_nodes, bytes: limits.max_result_bytes };
        let job = |part: &Part| Some(Job { plan: part.plan.clone(), walk: Walk::default(), slices: 0, missing: 0 });
        Some(Reading {
            tree: Tree::new(result),
            jobs: parts.iter().map(job).collect(),
            ready: [ready.into(), VecDeque::new(), VecDeque::new()],
            waiters: Vec::new(),
            unfinished: parts.len(),
            late: None,
            room,
            parts: Arc::new(Parts(Mutex::new(parts.into_iter().map(Some).collect()))),
        })
    }

    /// For whom it is read.
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Reads for a slice of time; returns whether there is more to be read at once.
    pub fn read<H>(&mut self, host: &mut H, reader: &Weak<dyn Resume>) -> bool
    where
        H: Host<Object = O, Items = I>,
    {
        let slice = Slice::of(SLICE);
        while let Some(at) = self.ready.iter_mut().find_map(VecDeque::pop_front) {
            let Some(mut job) = self.jobs[at].take() else { continue };
            if self.parts.0.lock()[at].is_none() {
                // It is not waited for any more.
                self.unfinished -= 1;
                continue;
            }
            let late = self.late.clone();
            let mut manners = Asked { parts: &self.parts, reader, at, slice: Slice::of(SLICES[job.slices]), late };
            match self.tree.read(&job.plan.reads.ty, self.room, &mut job.walk, host, &mut manners) {
                Ok(()) if job.walk.awaits.is_empty() => {
                    self.unfinished -= 1;
                    let (tree, is_last) = (&mut self.tree, self.unfinished == 0);
                    if let Some(part) = self.parts.take(at) {
                        host.apart(|| part.deliver(&Ok(tree.value(&job.plan.reads.ty, is_last))));
                    }
                }
                Err(Stop::TooLarge) => {
                    self.unfinished -= 1;
                    if let Some(part) = self.parts.take(at) {
                        part.too_large();
                    }
                }
                Ok(()) => {
                    job.missing = self.wait(at, &job.walk.awaits);
                    self.jobs[at] = Some(job);
                }
                // It comes back when it has a place.
                Err(Stop::MayNotWait) => self.jobs[at] = Some(job),
                Err(Stop::Paused) => {
                    let is_last = job.slices + 1 == SLICES.len();
                    if is_last {
                        // It comes to its end before the next one has more.
                        self.ready[job.slices].push_front(at);
                        self.jobs[at] = Some(job);
                        return true;
                    }
                    job.slices += 1;
                    self.ready[job.slices].push_back(at);
                    self.jobs[at] = Some(job);
                }
            }
            if self.unfinished > 0 && self.tree.shrink(self.room.nodes) {
                self.jobs.iter_mut().flatten().for_each(|job| job.walk.restart());
            }
            if slice.is_over() {
                break;
            }
        }
        self.has_more()
    }

    /// Whether there is something to be read at once.
    pub fn has_more(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// Notes who waits for awaitables; returns for how many.
    fn wait(&mut self, at: usize, awaits: &[usize]) -> usize {
        let mut missing = 0;
        for number in awaits {
            if let Some(waiters) = self.waiters(*number) {
                waiters.push(at);
                missing += 1;
            }
        }
        if missing == 0 {
            // They came while it was reading on.
            self.ready[0].push_back(at);
        }
        missing
    }

    fn waiters(&mut self, number: usize) -> &mut Option<Vec<usize>> {
        if self.waiters.len() <= number {
            self.waiters.resize_with(number + 1, || Some(Vec::new()));
        }
        &mut self.waiters[number]
    }

    /// The part at this position may go on.
    pub fn resume(&mut self, at: usize) {
        self.ready[0].push_back(at);
    }

    /// What an awaitable gave.
    pub fn supply(&mut self, number: usize, outcome: Result<O, Value>) {
        self.tree.supply(number, outcome);
        let waiters = self.waiters(number).take();
        for at in waiters.into_iter().flatten() {
            if let Some(job) = &mut self.jobs[at] {
                job.missing = job.missing.saturating_sub(1);
                if job.missing == 0 {
                    self.ready[0].push_back(at);
                }
            }
        }
    }

    /// Nothing is awaited any more: in the place of what is missing stands an error.
    pub fn expire(&mut self, error: &Arc<GraphQLError>) {
        self.late = Some(error.clone());
        for (number, waiters) in self.waiters.iter_mut().enumerate() {
            if waiters.take().is_some() {
                self.tree.supply(number, Err(Value::Failed(error.clone())));
            }
        }
        self.ready = [(0..self.jobs.len()).collect(), VecDeque::new(), VecDeque::new()];
    }

    /// Whether so much has been read that letting go of it takes its time.
    pub fn is_large(&self) -> bool {
        self.tree.size() > LARGE
    }

    /// Lets go of some of it, when it is done. Returns whether there is more.
    pub fn dismantle(&mut self) -> bool {
        self.tree.dismantle(LARGE / 4)
    }

    /// Whether every part is delivered.
    pub fn is_done(&self) -> bool {
        self.unfinished == 0
    }
}

struct Asked<'a> {
    parts: &'a Parts,
    reader: &'a Weak<dyn Resume>,
    at: usize,
    slice: Slice,
    late: Option<Arc<GraphQLError>>,
}

impl Manners for Asked<'_> {
    fn gives_way(&mut self) -> bool {
        self.slice.is_over()
    }

    fn may_wait(&mut self) -> bool {
        let mut parts = self.parts.0.lock();
        parts[self.at].as_mut().is_none_or(|part| part.may_wait(self.reader, self.at))
    }

    fn late(&self) -> Option<Value> {
        self.late.clone().map(Value::Failed)
    }
}
