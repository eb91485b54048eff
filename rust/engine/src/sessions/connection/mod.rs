//! One socket's life: the protocol machine, its subscriptions and its outbox together, without I/O.
//!
//! A transport hands in frames and what its auth handler said, and takes out what is to be sent with [`Connection::next`]. Timers
//! call in from the engine. Whatever happens, [`Connection::lost`] leaves nothing behind.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use crate::accounts::{Accounts, Authorisation, Registered, Seat, Shares};
use crate::clock::within;
use crate::delivery::{Body, End, Mailbox, Notify, Outbox, Settled, Subscription, Taken};
use crate::engine::{Phase, Start, Started};
use crate::error::{Rejection, errors_json};
use crate::graphql::Request;
use crate::operators::audit;
use crate::operators::{Counted, DropReason, Ended};
use crate::sessions::protocol::{self, Action, Close, Frame, Protocol, Settings, Subscribe};
use crate::sessions::register::Sessions;
use crate::tasks::{Tasks, UnderWay};
use crate::timers::{Alarm, Timed};
use crate::viewer::Viewer;

pub use authority::{Answer, Question};

mod authority;

/// A WebSocket connection.
pub struct Connection {
    /// The id that we gave it.
    pub id: Arc<str>,
    number: u64,
    sessions: Arc<Sessions>,
    outbox: Arc<Outbox>,
    introspection: bool,
    /// What the transport is handing over.
    handing: Arc<Tasks>,
    state: Mutex<State>,
}

struct State {
    protocol: Protocol,
    viewer: Option<Arc<Viewer>>,
    /// What limits on subscriptions count for; nobody's until somebody watches.
    seat: Arc<Seat>,
    /// While the auth handler is at work.
    authorisation: Option<Authorisation>,
    registered: Option<Registered>,
    /// When the viewer's authority ends.
    expires: Option<Instant>,
    operations: FxHashMap<Arc<str>, Arc<Subscription>>,
    /// What goes out before any result: acks, pongs, refusals, the close.
    control: VecDeque<Outgoing>,
    control_bytes: usize,
    alarm: Option<Alarm>,
    held: Option<(Counted, Shares)>,
    under_way: Option<UnderWay>,
    draining: bool,
    /// Subscribes that wait for the bus, and what is not said before they are live or refused.
    waiting: usize,
    held_back: VecDeque<String>,
}

/// What comes after a subscribe that waits for the bus is answered after it, but no later than this.
const HELD_BACK: Duration = Duration::from_secs(1);

/// What a transport offers to those who connect.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Whether `__schema` and `__type` are answered.
    pub introspection: bool,
    /// Whether there is an auth handler.
    pub authenticates: bool,
}

/// What a transport sends.
#[derive(Debug, PartialEq)]
pub enum Outgoing {
    /// A text frame.
    Text(String),
    /// The close; nothing follows.
    Close(Close),
}

impl Connection {
    /// A socket that has just been accepted. `notify` is called when there is something to send.
    pub fn open(sessions: &Arc<Sessions>, notify: Arc<dyn Notify>, offer: Offer) -> Arc<Connection> {
        let limits = &sessions.engine.parts.limits;
        let now = sessions.engine.parts.clock.now();
        let number = sessions.number();
        let connection = Arc::new(Connection {
            id: uuid::Uuid::now_v7().simple().to_string().into(),
            number,
            sessions: sessions.clone(),
            outbox: Outbox::new(limits.into(), notify),
            introspection: offer.introspection,
            handing: Arc::default(),
            state: Mutex::new(State {
                protocol: Protocol::new(Settings::new(limits, offer.authenticates), now),
                viewer: None,
                seat: Seat::new(Accounts::default(), &sessions.engine.parts.quotas.subscriptions),
                authorisation: None,
                registered: None,
                expires: None,
                operations: FxHashMap::default(),
                control: VecDeque::new(),
                control_bytes: 0,
                alarm: None,
                held: None,
                under_way: Some(sessions.readers.start()),
                draining: false,
                waiting: 0,
                held_back: VecDeque::new(),
            }),
        });
        sessions.connections.insert(connection.id.clone(), connection.clone());
        connection.register(&mut connection.state.lock());
        let oldest = {
            let mut pending = sessions.pending.lock();
            pending.insert(number, Arc::downgrade(&connection));
            if pending.len() > limits.max_pending_connections { pending.pop_first() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|(_, oldest)| oldest.upgrade()) {
            let mut state = oldest.state.lock();
            oldest.refuse(&mut state, Close::INIT_TIMEOUT, None, "max_pending_connections is reached".into());
            oldest.settle(state);
        }
        if sessions.engine.phase() != Phase::Running {
            connection.close(Close::SERVICE_RESTART);
        }
        connection.settle(connection.state.lock());
        connection
    }

    /// A frame came in. What is returned has to be judged by the auth handler.
    pub fn receive(self: &Arc<Self>, frame: Frame<'_>) -> Option<Question> {
        let mut state = self.state.lock();
        let action = state.protocol.receive(frame, self.sessions.engine.parts.clock.now());
        let question = match action {
            Some(Action::Authenticate(payload)) => Some(Question { number: authority::INIT, payload }),
            Some(Action::Refresh(number, payload)) => Some(Question { number, payload }),
            other => {
                self.act(&mut state, other);
                None
            }
        };
        if question.is_some() {
            state.authorisation = Some(self.sessions.engine.parts.revocations.begin());
        }
        self.settle(state);
        question
    }

    /// The auth handler has answered.
    pub fn answered(self: &Arc<Self>, number: u64, answer: Answer) {
        let mut state = self.state.lock();
        if number == authority::INIT {
            // A second answer would put somebody else in the first one's place.
            if state.viewer.is_none() {
                self.authenticated(&mut state, answer);
            }
        } else if state.protocol.is_refreshing(number) {
            self.refreshed(&mut state, number, answer);
        }
        self.settle(state);
    }

    fn note(&self, kind: audit::Kind, viewer: Option<&Viewer>, reason: impl Into<Cow<'static, str>>) {
        self.sessions.engine.parts.audit.note(kind, viewer, Some(&self.id), reason);
    }

    /// Held by a transport from before it takes an event until that is handed over or given up.
    pub fn hand(&self) -> UnderWay {
        self.handing.start()
    }

    /// Takes what is to be sent next; `None` until the outbox notifies again.
    pub fn next(self: &Arc<Self>) -> Option<Outgoing> {
        let mut state = self.state.lock();
        if state.expires.is_some_and(|expires| expires <= self.sessions.engine.parts.clock.now()) {
            // The alarm may be late; what is handed over is not.
            self.expire(&mut state);
        }
        if self.outbox.is_slow() && !state.protocol.is_closed() {
            // What waits for others goes down with the one that overflowed.
            let left: usize = state.operations.values().map(|subscription| subscription.mailbox.waiting()).sum();
            self.sessions.engine.parts.metrics.dropped(DropReason::Overflow, left as u64);
            self.slow(&mut state);
        }
        if let Some(outgoing) = state.control.pop_front() {
            if let Outgoing::Text(text) = &outgoing {
                state.control_bytes -= text.len();
            }
            return Some(outgoing);
        }
        while let Some((mailbox, taken)) = self.outbox.take() {
            if let Some(text) = self.frame(&mut state, &mailbox, taken) {
                return Some(Outgoing::Text(text));
            }
        }
        if state.draining && state.operations.is_empty() {
            self.end(&mut state, Close::SERVICE_RESTART, Ended::Drained);
            return state.control.pop_front();
        }
        None
    }

    /// To be called before [`Connection::next`] is called until it gives `None`.
    pub fn listen(&self) {
        self.outbox.listen();
    }

    /// Whether a send that is stuck should be given up, because the connection is to be closed at once.
    pub fn is_urgent(&self) -> bool {
        self.outbox.is_slow() || self.state.lock().protocol.is_closed()
    }

    /// Closes it for a reason that was decided elsewhere.
    pub fn close(self: &Arc<Self>, close: Close) {
        let mut state = self.state.lock();
        self.end(&mut state, close, Ended::Disconnect);
        self.settle(state);
    }

    fn slow(&self, state: &mut State) {
        if !state.protocol.is_closed() {
            self.note(audit::Kind::SlowConsumer, state.viewer.as_deref(), "");
        }
        self.end(state, Close::SLOW_CONSUMER, Ended::Slow);
    }

    /// The socket is gone, or the close was sent: nothing of the connection stays.
    pub fn lost(&self) {
        let mut state = self.state.lock();
        if let Some(Action::Close(close)) = state.protocol.close(Close::GOING_AWAY) {
            self.finish(&mut state, close, Ended::Disconnect);
        }
        state.control.clear();
        state.registered = None;
        state.authorisation = None;
        state.under_way = None;
        self.sessions.timers.set(&mut state.alarm, None, Weak::<Connection>::new());
        drop(state);
        self.sessions.pending.lock().remove(&self.number);
        self.sessions.connections.remove(&self.id);
    }

    /// Ends an operation from the server's side; the client gets `complete`.
    pub(crate) fn complete(&self, id: &str) -> bool {
        let state = self.state.lock();
        state.operations.get(id).is_some_and(|subscription| subscription.mailbox.end(End::Complete))
    }

    /// Completes every operation; when all is sent, the connection closes.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for subscription in state.operations.values() {
            subscription.mailbox.end(End::Complete);
        }
        self.outbox.signal();
    }

    /// Closes what draining has not; what still waits is dropped and counted.
    pub(crate) fn stop(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let left: usize = state.operations.values().map(|subscription| subscription.close(Ended::Drained)).sum();
        self.sessions.engine.parts.metrics.dropped(DropReason::Drain, left as u64);
        self.end(&mut state, Close::GOING_AWAY, Ended::Drained);
        self.settle(state);
    }

    fn act(self: &Arc<Self>, state: &mut State, action: Option<Action>) {
        match action {
            None | Some(Action::Authenticate(_) | Action::Refresh(..)) => {}
            Some(Action::Send(text)) => self.send(state, [text]),
            Some(Action::Refuse(text)) => {
                let reason = "max_subscriptions_per_connection is reached";
                self.note(audit::Kind::SubscribeRefused, state.viewer.as_deref(), reason);
                self.send(state, [text]);
            }
            Some(Action::Subscribe(request)) => self.subscribe(state, &request),
            Some(Action::Complete(id)) => {
                if let Some(subscription) = state.operations.remove(&id) {
                    subscription.close(Ended::Client);
                }
            }
            Some(Action::Close(close)) => self.closed(state, close, Ended::Disconnect),
        }
    }

    fn subscribe(self: &Arc<Self>, state: &mut State, request: &Subscribe) {
        let Some(viewer) = &state.viewer else { return };
        let started = self.sessions.engine.subscribe(&Start {
            request: Request {
                query: &request.query,
                operation_name: request.operation_name.as_deref(),
                variables: &request.variables,
                introspection: self.introspection,
            },
            viewer,
            seat: &state.seat,
            id: &request.id,
            resume: &request.resume,
            outbox: &self.outbox,
            connection_id: Some(&self.id),
        });
        match started {
            Ok(Started::Live(subscription)) => {
                state.operations.insert(request.id.clone(), subscription);
            }
            Ok(Started::Soon(subscription, settled)) => {
                state.operations.insert(request.id.clone(), subscription.clone());
                // Nobody knows how long the bus is away.
                let holds = self.sessions.engine.parts.bus.status().connected;
                state.waiting += usize::from(holds);
                let arrival = Arrival { connection: self.clone(), subscription, holds };
                self.sessions.runtime.spawn(arrival.wait(settled));
            }
            Ok(Started::Answer(json)) => {
                let answer = protocol::next(&request.id, &json, None);
                self.over(state, &request.id, [answer, protocol::complete(&request.id)]);
            }
            Err(rejection) => self.reject(state, &request.id, &rejection),
        }
    }

    fn reject(&self, state: &mut State, id: &Arc<str>, rejection: &Rejection) {
        self.over(state, id, [protocol::error(id, &errors_json(&rejection.errors()))]);
    }

    /// A subscribe that waited for the bus is refused.
    fn refused(self: &Arc<Self>, subscription: &Arc<Subscription>, rejection: &Rejection) {
        let mut state = self.state.lock();
        let id = subscription.mailbox.id.clone();
        if state.operations.get(&id).is_some_and(|found| Arc::ptr_eq(found, subscription)) {
            state.operations.remove(&id);
            subscription.close(Ended::Error);
            // Before what is held back because of it.
            let held_back = std::mem::take(&mut state.held_back);
            let waiting = std::mem::take(&mut state.waiting);
            self.reject(&mut state, &id, rejection);
            (state.held_back, state.waiting) = (held_back, waiting);
        }
        self.settle(state);
    }

    /// One less to wait for.
    fn arrived(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            let held_back = std::mem::take(&mut state.held_back);
            state.control.extend(held_back.into_iter().map(Outgoing::Text));
        }
        self.settle(state);
    }

    fn over<const N: usize>(&self, state: &mut State, id: &Arc<str>, messages: [String; N]) {
        if state.protocol.ended(id) {
            self.send(state, messages);
        }
    }

    /// The frame for what was taken of a mailbox; `None` where its operation is no longer live.
    fn frame(&self, state: &mut State, mailbox: &Arc<Mailbox>, taken: Taken) -> Option<String> {
        let subscription = state.operations.get(&mailbox.id)?;
        if !Arc::ptr_eq(&subscription.mailbox, mailbox) {
            return None;
        }
        let end = match taken {
            Taken::Next { body, dropped, gap } => {
                self.sessions.engine.parts.metrics.events_delivered.inc();
                let extensions = extensions(mailbox, &body, dropped, gap);
                return Some(protocol::next(&mailbox.id, &body.json, extensions.as_deref()));
            }
            Taken::End(end) => end,
        };
        let (how, message) = match end {
            End::Complete if state.draining => (Ended::Drained, Some(protocol::complete(&mailbox.id))),
            End::Complete => (Ended::Complete, Some(protocol::complete(&mailbox.id))),
            End::Error(error) => {
                let errors = errors_json(std::slice::from_ref(&*error));
                (Ended::Error, Some(protocol::error(&mailbox.id, &errors)))
            }
            // These end whole connections.
            End::Expired => (Ended::Expired, None),
            End::Revoked => (Ended::Revoked, None),
            End::Slow => (Ended::Slow, None),
        };
        subscription.close(how);
        state.operations.remove(&mailbox.id);
        let message = message?;
        state.protocol.ended(&mailbox.id).then_some(message)
    }

    fn send<const N: usize>(&self, state: &mut State, messages: [String; N]) {
        let limits = &self.sessions.engine.parts.limits;
        // A client that asks without reading the answers is slow as well.
        if state.control.len() + state.held_back.len() >= limits.queue_messages
            || state.control_bytes >= limits.connection_queue_bytes
        {
            return self.slow(state);
        }
        for text in messages {
            state.control_bytes += text.len();
            match state.waiting {
                0 => state.control.push_back(Outgoing::Text(text)),
                _ => state.held_back.push_back(text),
            }
        }
    }

    fn end(&self, state: &mut State, close: Close, how: Ended) {
        if let Some(Action::Close(close)) = state.protocol.close(close) {
            self.closed(state, close, how);
        }
    }

    /// The machine has closed. One that was never acknowledged was refused.
    fn closed(&self, state: &mut State, close: Close, how: Ended) {
        if state.held.is_none() {
            self.note(audit::Kind::ConnectionRefused, None, close.reason().to_owned());
        }
        self.finish(state, close, how);
    }

    /// Every subscription ends, and the close is all that is still sent.
    fn finish(&self, state: &mut State, close: Close, how: Ended) {
        for (_, subscription) in state.operations.drain() {
            subscription.close(how);
        }
        state.held = None;
        state.control.clear();
        state.held_back.clear();
        state.control_bytes = 0;
        state.control.push_back(Outgoing::Close(close));
    }

    /// After every step: the alarm follows the deadlines, and the transport hears of what there is to send.
    fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let deadline = match (state.protocol.deadline(), state.expires) {
            (Some(own), Some(expires)) => Some(own.min(expires)),
            (own, _) => own,
        };
        let timed: Weak<dyn Timed> = Arc::<Connection>::downgrade(self);
        self.sessions.timers.set(&mut state.alarm, deadline, timed);
        let (closed, waiting) = (state.protocol.is_closed(), !state.control.is_empty());
        drop(state);
        match waiting {
            true if closed => self.outbox.urge(),
            true => self.outbox.signal(),
            false => {}
        }
    }
}

/// A subscribe that waits for the bus.
struct Arrival {
    connection: Arc<Connection>,
    subscription: Arc<Subscription>,
    /// Whether what comes after it is held back.
    holds: bool,
}

impl Arrival {
    async fn wait(mut self, mut settled: Settled) {
        let outcome = match within(HELD_BACK, &mut settled).await {
            Some(outcome) => outcome,
            None => {
                self.let_go();
                settled.await
            }
        };
        // One that ended meanwhile says nothing.
        if let Ok(Err(rejection)) = outcome {
            self.connection.refused(&self.subscription, &rejection);
        }
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.connection.arrived();
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Timed for Connection {
    fn tick(&self, now: Instant) {
        // The registry holds every connection until it is lost.
        let Some(this) = self.sessions.connections.get(&self.id).map(|found| found.value().clone()) else {
            return;
        };
        let mut state = this.state.lock();
        if state.expires.is_some_and(|expires| expires <= now) {
            this.expire(&mut state);
        }
        if state.protocol.is_refresh_late(now) {
            state.authorisation = None;
            this.note(audit::Kind::RefreshRefused, state.viewer.as_deref(), "auth_handler took too much time");
        }
        // A refresh may be given up at the moment at which something else is due.
        while let Some(action) = state.protocol.tick(now) {
            this.act(&mut state, Some(action));
        }
        this.settle(state);
    }
}

/// What a message says beside its result.
pub(crate) fn extensions(mailbox: &Mailbox, body: &Body, dropped: u64, gap: bool) -> Option<String> {
    let position = body.position.filter(|_| mailbox.event_ids);
    if dropped == 0 && !gap && position.is_none() {
        return None;
    }
    let mut out = String::new();
    if dropped > 0 {
        _ = write!(out, ",\"dropped\":{dropped}");
    }
    if gap {
        out.push_str(",\"gap\":true");
    }
    if let Some(position) = position {
        _ = write!(out, ",\"eventId\":\"{}\"", position.token());
    }
    out.replace_range(..1, "{");
    out.push('}');
    Some(out)
}
