//! What takes memory, and for whom: results that wait, what subscriptions keep, frames that wait for their turn, the past that was read.
//!
//! Whatever holds memory for a client has a [`Weight`] beside it, which is charged to its connection, its account and the process until it
//! is dropped. A result that waits for many is one weight of the process, and one of each account.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::inflow::{Inflow, Paces};
use crate::limits::Limits;

/// What memory is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Results and answers that wait for readers.
    Queues,
    /// Arguments, conditions and plans of subscriptions.
    State,
    /// What came in and waits for its turn.
    Inbound,
    /// What was read of the past.
    Past,
}

/// Their names for operators.
pub const KINDS: [&str; 4] = ["queues", "state", "inbound", "past"];

/// Bytes by kind.
#[derive(Debug, Default)]
struct Held([AtomicUsize; KINDS.len()]);

impl Held {
    fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize].load(SeqCst)
    }

    fn total(&self) -> usize {
        self.0.iter().map(|bytes| bytes.load(SeqCst)).sum()
    }

    fn change(&self, kind: Kind, before: usize, after: usize) {
        // Wraps where it is less.
        self.0[kind as usize].fetch_add(after.wrapping_sub(before), SeqCst);
    }
}

/// What a process holds.
#[derive(Debug)]
pub struct Weights {
    most: usize,
    per_user: usize,
    pub(super) paces: Paces,
    held: Held,
    over: Notify,
}

impl Weights {
    /// Nothing is held.
    pub fn new(limits: &Limits) -> Arc<Weights> {
        let (held, over) = (Held::default(), Notify::new());
        let (most, per_user) = (limits.max_process_bytes, limits.max_user_bytes);
        Arc::new(Weights { most, per_user, paces: Paces::new(limits), held, over })
    }

    /// Bytes by what they are taken for.
    pub fn held(&self) -> impl Iterator<Item = (&'static str, usize)> {
        KINDS.into_iter().zip(self.held.0.iter().map(|bytes| bytes.load(SeqCst)))
    }

    /// Whether more is held than may be.
    pub fn is_over(&self) -> bool {
        self.held.total() > self.most
    }

    /// Resolves when more was taken while more was held than may be.
    pub async fn overfull(&self) {
        self.over.notified().await;
    }

    /// Something that is held for nobody in particular.
    pub fn weigh(self: &Arc<Self>, kind: Kind, bytes: usize) -> Weight {
        Weight::new(Holder::Process(self.clone()), kind, bytes)
    }

    fn change(&self, kind: Kind, before: usize, after: usize) {
        self.held.change(kind, before, after);
        if after > before && self.is_over() {
            self.over.notify_one();
        }
    }
}

/// What an account holds over all of its connections, and how fast it sends.
#[derive(Debug)]
pub struct AccountLoad {
    most: usize,
    held: Held,
    inflow: Mutex<Inflow>,
    /// Somebody waits for [`AccountLoad::freed`].
    is_awaited: AtomicBool,
    freed: Notify,
    weights: Arc<Weights>,
}

impl AccountLoad {
    /// Of a user; where nobody is named it is counted without a limit.
    pub(super) fn new(weights: &Arc<Weights>, is_limited: bool) -> Arc<AccountLoad> {
        Arc::new(AccountLoad {
            most: if is_limited { weights.per_user } else { usize::MAX },
            held: Held::default(),
            inflow: Mutex::new(Inflow::default()),
            is_awaited: AtomicBool::new(false),
            freed: Notify::new(),
            weights: weights.clone(),
        })
    }

    /// A message of so many bytes has come. `None`: it may be looked at now; else when.
    pub fn arrives(&self, bytes: usize, now: Instant) -> Option<Instant> {
        self.inflow.lock().take(&self.weights.paces, bytes, now)
    }

    /// What the process holds.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Results that wait for one of its subscriptions. Others may wait for the same, so the process has them by a weight of their own.
    pub fn waiting(self: &Arc<Self>) -> Weight {
        Weight::new(Holder::Account(self.clone()), Kind::Queues, 0)
    }

    /// All that it holds.
    pub fn total(&self) -> usize {
        self.held.total()
    }

    fn change(&self, kind: Kind, before: usize, after: usize) {
        self.held.change(kind, before, after);
        if after < before && self.is_awaited.load(SeqCst) && self.has_room() {
            self.is_awaited.store(false, SeqCst);
            self.freed.notify_waiters();
        }
    }

    /// Whether it may hold as much as it does.
    pub fn is_over(&self) -> bool {
        self.total() > self.most
    }

    /// Whether it may have so much more waiting; a message that nothing else waits beside always enters.
    pub fn fits(&self, bytes: usize) -> bool {
        self.total() + bytes <= self.most || self.held.of(Kind::Queues) == 0
    }

    /// Whether half of what it may have waiting is free; whoever has nothing waiting always has room for one message.
    pub fn has_room(&self) -> bool {
        let queued = self.held.of(Kind::Queues);
        queued == 0 || self.total().saturating_add(queued) <= self.most
    }

    /// For those who wait for room: to be made, and enabled, before they ask for it.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.is_awaited.store(true, SeqCst);
        self.freed.notified()
    }

    /// Whether nothing needs to be remembered of it.
    pub(super) fn is_idle(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) == 1 && self.inflow.lock().is_idle(now)
    }
}

/// What a connection holds beside its results, and whose it is.
#[derive(Debug)]
pub struct ConnectionLoad {
    /// Whose it is.
    pub account: Arc<AccountLoad>,
    held: Held,
    /// What several of its subscriptions keep together, by address.
    shared: Mutex<FxHashMap<usize, Weak<Shared>>>,
}

impl ConnectionLoad {
    /// One of an account's.
    pub fn new(account: Arc<AccountLoad>) -> Arc<ConnectionLoad> {
        Arc::new(ConnectionLoad { account, held: Held::default(), shared: Mutex::default() })
    }

    /// One that nothing limits.
    pub fn unlimited() -> Arc<ConnectionLoad> {
        let (held, over) = (Held::default(), Notify::new());
        let weights = Weights { most: usize::MAX, per_user: usize::MAX, paces: Paces::default(), held, over };
        ConnectionLoad::new(AccountLoad::new(&Arc::new(weights), false))
    }

    /// Something that is held for it.
    pub fn weigh(self: &Arc<Self>, kind: Kind, bytes: usize) -> Weight {
        Weight::new(Holder::Connection(self.clone()), kind, bytes)
    }

    /// What one of its subscriptions keeps: so many bytes of its own, and what others may keep as well, which counts once.
    pub fn keep(self: &Arc<Self>, own: usize, shared: Arc<dyn Any + Send + Sync>, bytes: usize) -> Kept {
        let address = Arc::as_ptr(&shared).addr();
        let mut all = self.shared.lock();
        let known = all.get(&address).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            let made = Arc::new(Shared { address, _shared: shared, weight: self.weigh(Kind::State, bytes) });
            all.insert(address, Arc::downgrade(&made));
            made
        });
        drop(all);
        Kept { _own: self.weigh(Kind::State, own), _shared: shared }
    }

    /// What its subscriptions keep.
    pub fn state(&self) -> usize {
        self.held.of(Kind::State)
    }

    /// All that it holds beside its results.
    pub fn total(&self) -> usize {
        self.held.total()
    }
}

/// What a subscription keeps, until it is dropped.
#[derive(Debug)]
pub struct Kept {
    _own: Weight,
    _shared: Arc<Shared>,
}

/// Kept too: its address is no other's while it counts.
#[derive(Debug)]
struct Shared {
    address: usize,
    _shared: Arc<dyn Any + Send + Sync>,
    weight: Weight,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Holder::Connection(load) = &self.weight.holder else { return };
        let mut all = load.shared.lock();
        // Another may have taken its place meanwhile.
        if all.get(&self.address).is_some_and(|known| known.strong_count() == 0) {
            all.remove(&self.address);
        }
    }
}

/// Memory that something takes, charged until this is dropped.
#[derive(Debug)]
pub struct Weight {
    holder: Holder,
    kind: Kind,
    bytes: usize,
}

#[derive(Debug)]
enum Holder {
    Process(Arc<Weights>),
    Account(Arc<AccountLoad>),
    Connection(Arc<ConnectionLoad>),
}

impl Weight {
    fn new(holder: Holder, kind: Kind, bytes: usize) -> Weight {
        let mut weight = Weight { holder, kind, bytes: 0 };
        weight.set(bytes);
        weight
    }

    /// It takes more.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    /// It takes less.
    pub fn sub(&mut self, bytes: usize) {
        self.set(self.bytes - bytes);
    }

    /// It takes so much now.
    pub fn set(&mut self, bytes: usize) {
        let (kind, before) = (self.kind, std::mem::replace(&mut self.bytes, bytes));
        if before == bytes {
            return;
        }
        match &self.holder {
            Holder::Process(weights) => weights.change(kind, before, bytes),
            Holder::Account(account) => account.change(kind, before, bytes),
            Holder::Connection(load) => {
                load.held.change(kind, before, bytes);
                load.account.change(kind, before, bytes);
                load.account.weights.change(kind, before, bytes);
            }
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.set(0);
    }
}
