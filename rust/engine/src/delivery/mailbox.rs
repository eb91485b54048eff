//! Bounded queues between the engine and a reader: a [`Mailbox`] for each subscription, an [`Outbox`] for each connection.
//!
//! A publisher never waits for a reader. The engine pushes, a transport takes; nothing here knows frames or sockets.
//!
//! # Lagging
//!
//! A mailbox holds at most `queue_messages` messages and `queue_bytes` bytes of results, and all mailboxes of an outbox
//! hold `connection_queue_bytes` together, all that its account holds is at most `max_user_bytes`. A message that nothing else waits beside
//! enters whatever its size, and so does the one that a generator or a catch-up made after it had found room. What has no room is handled
//! by the subscription's [`Overflow`]; whatever is lost is counted, and the next message that the reader takes carries the count.
//!
//! # Closing
//!
//! A mailbox [ends](Mailbox::end) once. What was queued before a [`End::Complete`] or [`End::Error`] is still taken, then the end
//! itself, then nothing. Any other end discards what waits. After [`Mailbox::close`], by the reader, nothing can be taken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::accounts::{ConnectionLoad, EventRate, Kind, Weight, Weights};
use crate::error::GraphQLError;
use crate::event::{Offset, Position};
use crate::limits::{Limits, Overflow};
use crate::operators::{DropReason, Metrics};

/// One result, made once and shared by all who receive it.
#[derive(Debug)]
pub struct Body {
    /// The ExecutionResult as JSON text; it ends with `}`.
    pub json: String,
    /// The event that it stems from, where there is one.
    pub position: Option<Position>,
    /// When it was made.
    pub made: Instant,
    /// What the process holds by it, however many wait for it.
    weight: Option<Weight>,
}

impl Body {
    /// A result that is not charged to anybody.
    pub fn new(json: String, position: Option<Position>, made: Instant) -> Body {
        Body { json, position, made, weight: None }
    }

    /// The same, charged to the process.
    pub(super) fn weighed(mut self, weights: &Arc<Weights>) -> Body {
        // A text that has grown may have as much again to grow on.
        if self.json.capacity() - self.json.len() > SPARE {
            self.json.shrink_to_fit();
        }
        self.weight = Some(weights.weigh(Kind::Queues, self.size()));
        self
    }

    /// The memory that it takes.
    fn size(&self) -> usize {
        size_of::<Body>() + self.json.capacity()
    }
}

/// How a subscription ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Nothing follows.
    Complete,
    /// A generator raised, or history was lost.
    Error(Arc<GraphQLError>),
    /// The authority of the viewer ended in time.
    Expired,
    /// The viewer was revoked.
    Revoked,
    /// The reader was too slow.
    Slow,
}

impl End {
    /// Whether what was queued before is not to be read any more.
    fn discards(&self) -> bool {
        matches!(self, End::Expired | End::Revoked | End::Slow)
    }
}

/// What a reader takes.
#[derive(Debug)]
pub enum Taken {
    /// A result.
    Next {
        /// The result itself.
        body: Arc<Body>,
        /// How many messages were lost since the previous one.
        dropped: u64,
        /// Whether the bus lost events before this one.
        gap: bool,
    },
    /// The end; nothing follows.
    End(End),
}

/// Tells a reader that there is something to take. It is called under locks: it must neither block nor call back.
pub trait Notify: Send + Sync {
    /// Wakes the reader.
    fn notify(&self);
}

/// How much may wait for one reader.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Messages of each subscription.
    pub messages: usize,
    /// Bytes of results of each subscription.
    pub bytes: usize,
    /// Bytes of all of them.
    pub together: usize,
}

impl From<&Limits> for Capacity {
    fn from(limits: &Limits) -> Capacity {
        Capacity { messages: limits.queue_messages, bytes: limits.queue_bytes, together: limits.connection_queue_bytes }
    }
}

/// What all subscriptions of one reader share.
pub struct Outbox {
    ready: Mutex<VecDeque<Arc<Mailbox>>>,
    bytes: AtomicUsize,
    capacity: Capacity,
    signalled: AtomicBool,
    slow: AtomicBool,
    notify: Arc<dyn Notify>,
    /// Set once, before there is anything to charge.
    load: OnceLock<Arc<ConnectionLoad>>,
    /// Held by the answer to introspection that is made or waits.
    pub(super) answers: Semaphore,
}

impl Outbox {
    /// An empty outbox whose reader is woken by `notify`.
    pub fn new(capacity: Capacity, notify: Arc<dyn Notify>) -> Arc<Outbox> {
        Arc::new(Outbox {
            ready: Mutex::default(),
            bytes: AtomicUsize::new(0),
            capacity,
            signalled: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            notify,
            load: OnceLock::new(),
            answers: Semaphore::new(1),
        })
    }

    /// Says to whom it is charged: to be called before there is a mailbox.
    pub fn charge_to(&self, load: Arc<ConnectionLoad>) {
        _ = self.load.set(load);
    }

    /// To whom it is charged.
    pub fn load(&self) -> &Arc<ConnectionLoad> {
        self.load.get_or_init(ConnectionLoad::unlimited)
    }

    /// Its reader has gone: no mailbox that is still listed here is kept by it.
    pub(crate) fn clear(&self) {
        let left = std::mem::take(&mut *self.ready.lock());
        drop(left);
    }

    /// Takes the next item of any of its mailboxes, in turn.
    pub fn take(&self) -> Option<(Arc<Mailbox>, Taken)> {
        loop {
            let mailbox = self.ready.lock().pop_front()?;
            let (taken, more) = mailbox.take_one();
            if more {
                self.ready.lock().push_back(mailbox.clone());
            }
            if let Some(taken) = taken {
                return Some((mailbox, taken));
            }
        }
    }

    /// To be called before taking: whatever comes from now on wakes the reader again.
    pub fn listen(&self) {
        self.signalled.store(false, SeqCst);
    }

    /// Wakes the reader, unless it has been woken since it last listened.
    pub fn signal(&self) {
        if !self.signalled.swap(true, SeqCst) {
            self.notify.notify();
        }
    }

    /// Wakes the reader in any case: even one that has been woken and is stuck in a send must hear of an end.
    pub fn urge(&self) {
        self.signalled.store(true, SeqCst);
        self.notify.notify();
    }

    /// Whether a mailbox overflowed that ends the whole connection.
    pub fn is_slow(&self) -> bool {
        self.slow.load(SeqCst)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ready.lock().is_empty()
    }

    /// The bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// Its reader is let go.
    pub(crate) fn overflowed(&self) {
        if !self.slow.swap(true, SeqCst) {
            self.urge();
        }
    }
}

/// The queue of one subscription.
pub struct Mailbox {
    /// The operation's id as the client sent it.
    pub id: Arc<str>,
    /// Whether its messages carry `extensions.eventId`.
    pub event_ids: bool,
    /// Only events beyond this offset are for it.
    since: AtomicU64,
    /// Its place among the members of its class; the group's lock guards it.
    pub(crate) place: AtomicUsize,
    overflow: Overflow,
    /// `None` where its events are not limited.
    rate: Option<Box<Rated>>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Woken when something was taken and somebody waits for it: those who fill the mailbox at the reader's pace.
    room: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    /// Given back after a burst.
    queue: VecDeque<Arc<Body>>,
    bytes: usize,
    /// Somebody waits for room.
    is_awaited: bool,
    charged: Option<Box<Charged>>,
    dropped: u64,
    gap: bool,
    end: Option<End>,
    /// It stands in the outbox's list of those that have something to take.
    listed: bool,
    /// The end was taken, or the reader went away.
    closed: bool,
}

/// What is charged for a mailbox from its first message on.
struct Charged {
    waiting: Weight,
    /// Of the queue itself.
    places: Weight,
}

/// A rate, and the events that it has refused but that are still on their way to the other members of the class.
struct Rated {
    rate: EventRate,
    refused: Mutex<VecDeque<Offset>>,
}

/// A result may have so many bytes more than it needs.
const SPARE: usize = 1024;
/// A queue that has grown beyond this is given back once it is empty.
const KEEP_MESSAGES: usize = 32;

impl Mailbox {
    /// An empty mailbox.
    pub fn new(
        id: Arc<str>,
        event_ids: bool,
        overflow: Overflow,
        rate: Option<EventRate>,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
    ) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            id,
            event_ids,
            since: AtomicU64::new(0),
            place: AtomicUsize::new(0),
            overflow,
            rate: rate.map(|rate| Box::new(Rated { rate, refused: Mutex::default() })),
            outbox,
            metrics,
            state: Mutex::default(),
            room: tokio::sync::Notify::new(),
        })
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What `extensions.eventId` says of a result, where it is asked for.
    pub(crate) fn event_id(&self, body: &Body) -> Option<Position> {
        body.position.filter(|_| self.event_ids)
    }

    /// From now on it hears of events beyond `offset`.
    pub fn listen_since(&self, offset: Offset) {
        self.since.store(offset, SeqCst);
    }

    /// Whether the event at `offset` came after it began to listen, and its rate has not refused it.
    pub fn hears(&self, offset: Offset) -> bool {
        let refuses = |rated: &Rated| rated.refused.lock().binary_search(&offset).is_ok();
        offset > self.since.load(SeqCst) && !self.rate.as_deref().is_some_and(refuses)
    }

    /// Asks its rate about an event that has arrived; one that is refused is not heard, and counted. Events of a mailbox arrive in
    /// order. Returns whether it hears of it.
    pub fn admit(&self, offset: Offset) -> bool {
        let Some(rated) = &self.rate else { return self.hears(offset) };
        if !self.hears(offset) || self.is_over() {
            return false;
        }
        if rated.rate.take() {
            return true;
        }
        rated.refused.lock().push_back(offset);
        self.lost(1, DropReason::Rate);
        false
    }

    /// The event at `offset` does not go on to anybody any more.
    pub fn forget(&self, offset: Offset) {
        if let Some(rated) = &self.rate {
            let mut refused = rated.refused.lock();
            if let Ok(at) = refused.binary_search(&offset) {
                refused.remove(at);
            }
        }
    }

    /// Queues a result, or handles the overflow.
    pub fn push(self: &Arc<Self>, body: Arc<Body>) {
        let mut state = self.state.lock();
        if state.end.is_some() || state.closed {
            return;
        }
        if self.outbox.is_slow() {
            // Its reader is about to be told.
            return self.metrics.dropped(DropReason::Overflow, 1);
        }
        while !self.fits(&state, &body) {
            let lost = match self.overflow {
                Overflow::Disconnect => {
                    self.metrics.dropped(DropReason::Overflow, state.queue.len() as u64 + 1);
                    self.discard(&mut state);
                    drop(state);
                    self.outbox.overflowed();
                    return;
                }
                Overflow::DropNewest => None,
                Overflow::DropOldest | Overflow::Latest => self.pop(&mut state),
            };
            state.dropped += 1;
            self.metrics.dropped(DropReason::Overflow, 1);
            if lost.is_none() {
                return;
            }
        }
        self.enqueue(&mut state, body);
    }

    /// Queues a result whatever its size: whoever made it has waited for [`Mailbox::room`] before.
    pub fn push_paced(self: &Arc<Self>, body: Arc<Body>) {
        let mut state = self.state.lock();
        if state.end.is_none() && !state.closed {
            self.enqueue(&mut state, body);
        }
    }

    /// Notes that messages were lost before they could be queued.
    pub fn lost(&self, count: u64, reason: DropReason) {
        let mut state = self.state.lock();
        if state.end.is_none() && !state.closed {
            state.dropped += count;
            self.metrics.dropped(reason, count);
        }
    }

    /// The next message says that the bus lost events.
    pub fn gap(&self) {
        self.state.lock().gap = true;
    }

    /// Ends the subscription; a second end changes nothing, unless it takes back what the first has left to be read. Returns whether it
    /// had an effect.
    pub fn end(self: &Arc<Self>, end: End) -> bool {
        let mut state = self.state.lock();
        let may_follow = |first: &End| end.discards() && !first.discards();
        if state.closed || !state.end.as_ref().is_none_or(may_follow) {
            return false;
        }
        if end.discards() {
            self.discard(&mut state);
        }
        state.end = Some(end);
        self.list(&mut state);
        self.room.notify_waiters();
        true
    }

    /// The reader goes away: nothing can be taken or pushed any more. Returns how many messages it leaves behind.
    pub fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let left = state.queue.len();
        self.discard(&mut state);
        self.room.notify_waiters();
        left
    }

    /// Whether it has ended or its reader has gone: pushing is in vain.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.end.is_some()
    }

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Whether fewer than `messages` wait and half of the bytes are free, or it is over.
    pub fn has_room(&self, messages: usize) -> bool {
        let state = self.state.lock();
        let waiting = state.queue.len();
        let free = waiting < messages.min(self.most()) && state.bytes <= self.outbox.capacity.bytes / 2;
        // What others hold of the connection's bytes must not be overrun, and an empty mailbox can always be filled.
        let shared = waiting == 0 || self.outbox.bytes() <= self.outbox.capacity.together / 2;
        free && shared && self.outbox.load().account.has_room() || state.closed || state.end.is_some()
    }

    /// Resolves when it has room.
    pub async fn room(&self, messages: usize) {
        self.when(|| self.has_room(messages)).await;
    }

    /// Resolves when it has ended or its reader has gone.
    pub(super) async fn over(&self) {
        self.when(|| self.is_over()).await;
    }

    /// Resolves when its reader has taken the end or gone.
    pub(super) async fn closed(&self) {
        self.when(|| self.state.lock().closed).await;
    }

    async fn when(&self, holds: impl Fn() -> bool) {
        loop {
            let (own, users) = (self.room.notified(), self.outbox.load().account.freed());
            tokio::pin!(own, users);
            own.as_mut().enable();
            users.as_mut().enable();
            self.state.lock().is_awaited = true;
            if holds() {
                return;
            }
            tokio::select! {
                () = own => {}
                () = users => {}
            }
        }
    }

    /// Whether a message has room.
    fn fits(&self, state: &State, body: &Body) -> bool {
        let (waiting, size) = (state.queue.len(), body.json.len());
        let together = self.outbox.bytes();
        let fits = waiting == 0 && together == 0
            || waiting < self.most()
                && state.bytes + size <= self.outbox.capacity.bytes
                && together + size <= self.outbox.capacity.together;
        fits && self.outbox.load().account.fits(body.size())
    }

    /// How many messages may wait.
    fn most(&self) -> usize {
        if self.overflow == Overflow::Latest { 1 } else { self.outbox.capacity.messages }
    }

    fn enqueue(self: &Arc<Self>, state: &mut State, body: Arc<Body>) {
        let (size, weight) = (body.json.len(), body.size());
        state.bytes += size;
        self.outbox.bytes.fetch_add(size, SeqCst);
        self.metrics.queued(size);
        state.queue.push_back(body);
        let places = state.queue.capacity();
        let charged = state.charged.get_or_insert_with(|| Box::new(Charged::new(self.outbox.load())));
        charged.waiting.add(weight);
        if places > KEEP_MESSAGES {
            charged.places.set(places * size_of::<Arc<Body>>());
        }
        self.list(state);
    }

    fn list(self: &Arc<Self>, state: &mut State) {
        if !state.listed {
            state.listed = true;
            self.outbox.ready.lock().push_back(self.clone());
        }
        self.outbox.signal();
    }

    /// Takes one item; the flag says that more can be taken.
    fn take_one(&self) -> (Option<Taken>, bool) {
        let mut state = self.state.lock();
        let taken = match self.pop(&mut state) {
            _ if state.closed => None,
            Some(body) => {
                self.metrics.waited(body.made);
                let dropped = std::mem::take(&mut state.dropped);
                let gap = std::mem::take(&mut state.gap);
                Some(Taken::Next { body, dropped, gap })
            }
            None => state.end.clone().map(|end| {
                state.closed = true;
                Taken::End(end)
            }),
        };
        let more = !state.closed && (!state.queue.is_empty() || state.end.is_some());
        state.listed = more;
        if std::mem::take(&mut state.is_awaited) {
            self.room.notify_waiters();
        }
        (taken, more)
    }

    fn pop(&self, state: &mut State) -> Option<Arc<Body>> {
        let body = state.queue.pop_front()?;
        let (size, weight) = (body.json.len(), body.size());
        state.bytes -= size;
        self.outbox.bytes.fetch_sub(size, SeqCst);
        self.metrics.unqueued(1, size);
        if let Some(charged) = &mut state.charged {
            charged.waiting.sub(weight);
        }
        if state.queue.is_empty() && state.queue.capacity() > KEEP_MESSAGES {
            (state.queue, state.charged) = (VecDeque::new(), None);
        }
        Some(body)
    }

    fn discard(&self, state: &mut State) {
        let (queue, bytes) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.bytes));
        state.charged = None;
        self.outbox.bytes.fetch_sub(bytes, SeqCst);
        self.metrics.unqueued(queue.len(), bytes);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut());
        self.discard(&mut state);
    }
}

impl Charged {
    fn new(load: &Arc<ConnectionLoad>) -> Charged {
        Charged { waiting: load.account.waiting(), places: load.account.weights().weigh(Kind::Queues, 0) }
    }
}
