//! Turns: who may call a function next, where more want to than may at once.
//!
//! The process runs `max_calls` calls at most, and of functions in threads as many as there are threads. What waits, waits here: tenants take
//! turns, within a tenant its users, and within a user those who asked first. So an account with a thousand argument sets waits for
//! itself, and another account for one call of his.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::accounts::{Account, Accounts};
use crate::graphql::Kind;
use crate::limits::Limits;

/// The turns of one run.
pub(crate) struct Turns {
    max_calls: usize,
    max_threads: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: usize,
    threads: usize,
    /// Those who wait for a thread, and all others.
    for_threads: Line,
    for_the_loop: Line,
    /// Whose line is asked first.
    threads_first: bool,
}

/// A place among the calls that run, until it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    in_thread: bool,
    is_used: bool,
}

/// Something that begins calls.
pub(super) trait Caller: Send + Sync {
    /// It is its turn; given back where there is nothing to call any more.
    fn granted(self: Arc<Self>, turn: Turn) -> Result<(), Turn>;
}

/// Somebody who waits.
pub(super) enum Waiter {
    Caller(Weak<dyn Caller>),
    One(oneshot::Sender<Turn>),
}

impl Waiter {
    /// Uses a turn, or gives it back.
    fn take(self, turn: Turn) -> Result<(), Turn> {
        match self {
            Waiter::Caller(caller) => match caller.upgrade() {
                Some(caller) => caller.granted(turn),
                None => Err(turn),
            },
            Waiter::One(sender) => sender.send(turn),
        }
    }
}

impl Turns {
    pub(super) fn new(limits: &Limits) -> Arc<Turns> {
        let (max_calls, max_threads) = (limits.max_calls, limits.resolver_threads);
        Arc::new(Turns { max_calls, max_threads, state: Mutex::default() })
    }

    /// A turn, where one is free and nobody waits for it; else `waiter` is told when it is its turn.
    pub(super) fn ask(
        self: &Arc<Self>,
        kind: Kind,
        accounts: &Accounts,
        waiter: impl FnOnce() -> Waiter,
    ) -> Option<Turn> {
        let in_thread = kind == Kind::Sync;
        let mut state = self.state.lock();
        let line = if in_thread { &state.for_threads } else { &state.for_the_loop };
        if line.is_empty() && self.has_room(&state, in_thread) {
            state.count(in_thread, true);
            return Some(Turn { turns: self.clone(), in_thread, is_used: true });
        }
        let line = if in_thread { &mut state.for_threads } else { &mut state.for_the_loop };
        line.push(accounts, waiter());
        None
    }

    /// Waits for a turn.
    pub(super) async fn wait(self: &Arc<Self>, kind: Kind, accounts: &Accounts) -> Option<Turn> {
        let (sender, receiver) = oneshot::channel();
        match self.ask(kind, accounts, || Waiter::One(sender)) {
            Some(turn) => Some(turn),
            None => receiver.await.ok(),
        }
    }

    fn has_room(&self, state: &State, in_thread: bool) -> bool {
        state.calls < self.max_calls && (!in_thread || state.threads < self.max_threads)
    }

    /// A turn is over: whoever waits and may begin does.
    fn ended(self: &Arc<Self>, in_thread: bool) {
        let mut state = self.state.lock();
        state.count(in_thread, false);
        while let Some((in_thread, waiter)) = self.pop(&mut state) {
            state.count(in_thread, true);
            drop(state);
            // Without the lock: it takes locks of its own.
            let returned = waiter.take(Turn { turns: self.clone(), in_thread, is_used: true });
            state = self.state.lock();
            if let Err(mut turn) = returned {
                turn.is_used = false;
                state.count(in_thread, false);
            }
        }
    }

    fn pop(&self, state: &mut State) -> Option<(bool, Waiter)> {
        state.threads_first = !state.threads_first;
        let first = state.threads_first;
        [first, !first].into_iter().find_map(|in_thread| {
            if !self.has_room(state, in_thread) {
                return None;
            }
            let line = if in_thread { &mut state.for_threads } else { &mut state.for_the_loop };
            Some((in_thread, line.pop()?))
        })
    }
}

impl State {
    fn count(&mut self, in_thread: bool, begins: bool) {
        let change = |count: &mut usize| *count = if begins { *count + 1 } else { *count - 1 };
        change(&mut self.calls);
        if in_thread {
            change(&mut self.threads);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_used {
            self.turns.ended(self.in_thread);
        }
    }
}

/// Those who wait, by tenant and user.
#[derive(Default)]
struct Line(Rotation<OfTenant>);

/// By user.
type OfTenant = Rotation<VecDeque<Waiter>>;

impl Line {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, accounts: &Accounts, waiter: Waiter) {
        self.0.entry(accounts.tenant.clone()).entry(accounts.user.clone()).push_back(waiter);
    }

    fn pop(&mut self) -> Option<Waiter> {
        self.0.next(|tenant| tenant.next(VecDeque::pop_front, VecDeque::is_empty), Rotation::is_empty)
    }
}

/// Queues that take turns; one that is empty is forgotten.
struct Rotation<Q, K = Option<Arc<Account>>, S = RandomState> {
    queues: HashMap<K, Q, S>,
    order: VecDeque<K>,
}

impl<Q, K, S: Default> Default for Rotation<Q, K, S> {
    fn default() -> Rotation<Q, K, S> {
        Rotation { queues: HashMap::default(), order: VecDeque::new() }
    }
}

impl<Q, K, S> Rotation<Q, K, S> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<Q: Default, K: Clone + Eq + Hash, S: BuildHasher> Rotation<Q, K, S> {
    /// The queue of a key, which something is about to be put into.
    fn entry(&mut self, key: K) -> &mut Q {
        let order = &mut self.order;
        self.queues.entry(key.clone()).or_insert_with(|| {
            order.push_back(key);
            Q::default()
        })
    }

    fn next<T>(&mut self, pop: impl FnOnce(&mut Q) -> Option<T>, is_empty: impl FnOnce(&Q) -> bool) -> Option<T> {
        let key = self.order.pop_front()?;
        let queue = self.queues.get_mut(&key)?;
        let next = pop(queue);
        if is_empty(queue) {
            self.queues.remove(&key);
        } else {
            self.order.push_back(key);
        }
        next
    }
}
