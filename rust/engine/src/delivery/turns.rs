//! Turns: who may call a function next, where more want to than may at once.
//!
//! The process runs `max_calls` calls at most, readings that wait for something counted with them, which take half of the places at most; and of
//! functions in threads as many as there are threads. What waits, waits here: tenants take
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

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A function on the loop.
    Loop,
    /// A function in a thread.
    Thread,
    /// A reading that waits for awaitables.
    Reading,
}

impl Purpose {
    const ALL: [Purpose; 3] = [Purpose::Loop, Purpose::Thread, Purpose::Reading];

    /// A call's.
    pub(super) fn of(kind: Kind) -> Purpose {
        if kind == Kind::Sync { Purpose::Thread } else { Purpose::Loop }
    }
}

/// The turns of one run.
pub(crate) struct Turns {
    max_calls: usize,
    /// How many of these, by purpose.
    most: [usize; 3],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many places are taken, by purpose, and who waits for one.
    taken: [usize; 3],
    lines: [Line; 3],
    /// Whose line is asked first.
    next: usize,
}

/// A place among the calls that run, until it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    purpose: Purpose,
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
        let most = [max_calls, max_threads, (max_calls / 2).max(1)];
        Arc::new(Turns { max_calls, most, state: Mutex::default() })
    }

    /// A turn, where one is free and nobody waits for it; else `waiter` is told when it is its turn.
    pub(super) fn ask(
        self: &Arc<Self>,
        purpose: Purpose,
        accounts: &Accounts,
        waiter: impl FnOnce() -> Waiter,
    ) -> Option<Turn> {
        let mut state = self.state.lock();
        if state.lines[purpose as usize].is_empty() && self.has_room(&state, purpose) {
            state.taken[purpose as usize] += 1;
            return Some(Turn { turns: self.clone(), purpose, is_used: true });
        }
        state.lines[purpose as usize].push(accounts, waiter());
        None
    }

    /// Waits for a turn.
    pub(super) async fn wait(self: &Arc<Self>, purpose: Purpose, accounts: &Accounts) -> Option<Turn> {
        let (sender, receiver) = oneshot::channel();
        match self.ask(purpose, accounts, || Waiter::One(sender)) {
            Some(turn) => Some(turn),
            None => receiver.await.ok(),
        }
    }

    fn has_room(&self, state: &State, purpose: Purpose) -> bool {
        state.taken.iter().sum::<usize>() < self.max_calls
            && state.taken[purpose as usize] < self.most[purpose as usize]
    }

    /// A turn is over: whoever waits and may begin does.
    fn ended(self: &Arc<Self>, purpose: Purpose) {
        let mut state = self.state.lock();
        state.taken[purpose as usize] -= 1;
        while let Some((purpose, waiter)) = self.pop(&mut state) {
            state.taken[purpose as usize] += 1;
            drop(state);
            // Without the lock: it takes locks of its own.
            let returned = waiter.take(Turn { turns: self.clone(), purpose, is_used: true });
            state = self.state.lock();
            if let Err(mut turn) = returned {
                turn.is_used = false;
                state.taken[purpose as usize] -= 1;
            }
        }
    }

    fn pop(&self, state: &mut State) -> Option<(Purpose, Waiter)> {
        state.next += 1;
        let first = state.next;
        (first..first + Purpose::ALL.len()).find_map(|at| {
            let purpose = Purpose::ALL[at % Purpose::ALL.len()];
            if !self.has_room(state, purpose) {
                return None;
            }
            Some((purpose, state.lines[purpose as usize].pop()?))
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_used {
            self.turns.ended(self.purpose);
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
