//! One socket's life: the protocol machine, its subscriptions and its outbox together, without I/O.
//!
//! A transport hands in frames and what its auth handler said, and takes out what is to be sent with [`Connection::next`]. Timers
//! call in from the engine. Whatever happens, [`Connection::lost`] leaves nothing behind.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::Instant;

use chrono::Utc;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use crate::bus::Position;
use crate::engine::{Engine, Phase, Start, Started, Subscription};
use crate::error::{Rejection, errors_json};
use crate::mailbox::{Body, End, Mailbox, Notify, Outbox, Taken};
use crate::metrics::{Counted, DropReason};
use crate::operation::Request;
use crate::protocol::{self, Action, Close, Frame, Protocol, Settings, Subscribe};
use crate::security::Viewer;
use crate::tasks::UnderWay;
use crate::timers::{Alarm, Timed};
use crate::value::Value;

/// A WebSocket connection.
pub struct Connection {
    /// The id that we gave it.
    pub id: Arc<str>,
    number: u64,
    engine: Arc<Engine>,
    outbox: Arc<Outbox>,
    introspection: bool,
    state: Mutex<State>,
}

struct State {
    protocol: Protocol,
    viewer: Option<Arc<Viewer>>,
    /// When the viewer's authority ends.
    expires: Option<Instant>,
    operations: FxHashMap<Arc<str>, Arc<Subscription>>,
    /// What goes out before any result: acks, pongs, refusals, the close.
    control: VecDeque<Outgoing>,
    control_bytes: usize,
    alarm: Option<Alarm>,
    counted: Option<Counted>,
    under_way: Option<UnderWay>,
    draining: bool,
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
    pub fn open(engine: &Arc<Engine>, notify: Arc<dyn Notify>, introspection: bool) -> Arc<Connection> {
        let limits = &engine.parts.limits;
        let now = tokio::time::Instant::now().into_std();
        let number = engine.number();
        let connection = Arc::new(Connection {
            id: uuid::Uuid::now_v7().simple().to_string().into(),
            number,
            engine: engine.clone(),
            outbox: Outbox::new(limits.connection_queue_bytes, notify),
            introspection,
            state: Mutex::new(State {
                protocol: Protocol::new(Settings::from(limits), now),
                viewer: None,
                expires: None,
                operations: FxHashMap::default(),
                control: VecDeque::new(),
                control_bytes: 0,
                alarm: None,
                counted: None,
                under_way: Some(engine.readers.start()),
                draining: false,
            }),
        });
        engine.connections.insert(connection.id.clone(), connection.clone());
        let oldest = {
            let mut pending = engine.pending.lock();
            pending.insert(number, Arc::downgrade(&connection));
            if pending.len() > limits.max_pending_connections { pending.pop_first() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|(_, oldest)| oldest.upgrade()) {
            oldest.close(Close::INIT_TIMEOUT);
        }
        if engine.phase() != Phase::Running {
            connection.close(Close::SERVICE_RESTART);
        }
        connection.settle(connection.state.lock());
        connection
    }

    /// A frame came in. The answer is a payload that the auth handler has to judge.
    pub fn receive(self: &Arc<Self>, frame: Frame<'_>) -> Option<Value> {
        let mut state = self.state.lock();
        let action = state.protocol.receive(frame, tokio::time::Instant::now().into_std());
        if let Some(Action::Authenticate(payload)) = action {
            return Some(payload);
        }
        self.act(&mut state, action);
        self.settle(state);
        None
    }

    /// What the auth handler said; `None` is a refusal.
    pub fn authenticated(self: &Arc<Self>, viewer: Option<Viewer>) {
        let limits = &self.engine.parts.limits;
        let now = tokio::time::Instant::now().into_std();
        let wall = Utc::now();
        let viewer = viewer
            .filter(|viewer| !viewer.is_expired(wall) && (!self.engine.parts.multi_tenant || viewer.has_tenant()));
        let mut state = self.state.lock();
        let action = match viewer {
            None => state.protocol.refuse(),
            Some(viewer) => {
                // Under this lock a connection is either pending or acknowledged, so the count below is exact.
                let mut pending = self.engine.pending.lock();
                pending.remove(&self.number);
                if self.engine.parts.metrics.connections() >= limits.max_connections as i64 {
                    state.protocol.close(Close::TOO_MANY_CONNECTIONS)
                } else {
                    let token = self.engine.position().map(|end| format!("{{\"resume\":\"{}\"}}", end.token()));
                    let action = state.protocol.acknowledge(token.as_deref(), now);
                    if state.protocol.is_acknowledged() {
                        state.counted = Some(self.engine.parts.metrics.connection());
                        state.expires = viewer.expires_in(wall).map(|left| now + left);
                        state.viewer = Some(Arc::new(viewer));
                    }
                    action
                }
            }
        };
        self.act(&mut state, action);
        self.settle(state);
    }

    /// Takes what is to be sent next; `None` until the outbox notifies again.
    pub fn next(self: &Arc<Self>) -> Option<Outgoing> {
        let mut state = self.state.lock();
        if self.outbox.is_slow() {
            // What waits for others goes down with the one that overflowed.
            let left: usize = state.operations.values().map(|subscription| subscription.mailbox.waiting()).sum();
            self.engine.parts.metrics.dropped(DropReason::Overflow, left as u64);
            self.end(&mut state, Close::SLOW_CONSUMER);
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
            self.end(&mut state, Close::SERVICE_RESTART);
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
        self.end(&mut state, close);
        self.settle(state);
    }

    /// The socket is gone, or the close was sent: nothing of the connection stays.
    pub fn lost(&self) {
        let mut state = self.state.lock();
        self.end(&mut state, Close::GOING_AWAY);
        state.control.clear();
        state.counted = None;
        state.under_way = None;
        self.engine.timers.set(&mut state.alarm, None, Weak::<Connection>::new());
        drop(state);
        self.engine.pending.lock().remove(&self.number);
        self.engine.connections.remove(&self.id);
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
        let left: usize = state.operations.values().map(|subscription| subscription.close()).sum();
        self.engine.parts.metrics.dropped(DropReason::Drain, left as u64);
        self.end(&mut state, Close::GOING_AWAY);
        self.settle(state);
    }

    fn act(self: &Arc<Self>, state: &mut State, action: Option<Action>) {
        match action {
            None | Some(Action::Authenticate(_)) => {}
            Some(Action::Send(text)) => self.send(state, [text]),
            Some(Action::Subscribe(request)) => self.subscribe(state, &request),
            Some(Action::Complete(id)) => {
                if let Some(subscription) = state.operations.remove(&id) {
                    subscription.close();
                }
            }
            Some(Action::Close(close)) => self.finish(state, close),
        }
    }

    fn subscribe(self: &Arc<Self>, state: &mut State, request: &Subscribe) {
        let Some(viewer) = &state.viewer else { return };
        let started = self.engine.subscribe(&Start {
            request: Request {
                query: &request.query,
                operation_name: request.operation_name.as_deref(),
                variables: &request.variables,
                introspection: self.introspection,
            },
            viewer,
            id: &request.id,
            resume: &request.resume,
            outbox: &self.outbox,
            connection_id: Some(&self.id),
        });
        match started {
            Ok(Started::Live(subscription)) => {
                state.operations.insert(request.id.clone(), subscription);
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
                self.engine.parts.metrics.events_delivered.inc();
                let extensions = extensions(&self.engine, mailbox, &body, dropped, gap);
                return Some(protocol::next(&mailbox.id, &body.json, extensions.as_deref()));
            }
            Taken::End(end) => end,
        };
        state.operations.remove(&mailbox.id);
        let message = match end {
            End::Complete => protocol::complete(&mailbox.id),
            End::Error(error) => protocol::error(&mailbox.id, &errors_json(std::slice::from_ref(&*error))),
            End::Forbidden | End::Slow => return None,
        };
        state.protocol.ended(&mailbox.id).then_some(message)
    }

    fn send<const N: usize>(&self, state: &mut State, messages: [String; N]) {
        let limits = &self.engine.parts.limits;
        // A client that asks without reading the answers is slow as well.
        if state.control.len() >= limits.queue_messages || state.control_bytes >= limits.connection_queue_bytes {
            return self.end(state, Close::SLOW_CONSUMER);
        }
        for text in messages {
            state.control_bytes += text.len();
            state.control.push_back(Outgoing::Text(text));
        }
    }

    fn end(&self, state: &mut State, close: Close) {
        if let Some(Action::Close(close)) = state.protocol.close(close) {
            self.finish(state, close);
        }
    }

    /// The machine has closed: every subscription ends, and the close is all that is still sent.
    fn finish(&self, state: &mut State, close: Close) {
        for (_, subscription) in state.operations.drain() {
            subscription.close();
        }
        state.counted = None;
        state.control.clear();
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
        self.engine.timers.set(&mut state.alarm, deadline, timed);
        let waiting = !state.control.is_empty();
        drop(state);
        if waiting {
            self.outbox.signal();
        }
    }
}

impl Timed for Connection {
    fn tick(&self, now: Instant) {
        // The registry holds every connection until it is lost.
        let Some(this) = self.engine.connections.get(&self.id).map(|found| found.value().clone()) else {
            return;
        };
        let mut state = this.state.lock();
        if state.expires.is_some_and(|expires| expires <= now) {
            this.end(&mut state, Close::FORBIDDEN);
        }
        let action = state.protocol.tick(now);
        this.act(&mut state, action);
        this.settle(state);
    }
}

/// What a message says beside its result.
pub(crate) fn extensions(engine: &Engine, mailbox: &Mailbox, body: &Body, dropped: u64, gap: bool) -> Option<String> {
    let position = match (mailbox.event_ids, body.offset, engine.position()) {
        (true, Some(offset), Some(end)) => Some(Position { offset, ..end }),
        _ => None,
    };
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
