//! One socket's life: the protocol machine, its subscriptions and its outbox together, without I/O.
//!
//! A transport hands in frames and what its auth handler said, and takes out what is to be sent with [`Connection::next`]. Timers
//! call in from the engine. Whatever happens, [`Connection::lost`] leaves nothing behind.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use foldhash::HashMap;
use parking_lot::{Mutex, MutexGuard};

use crate::accounts::{Accounts, Authorisation, ConnectionLoad, Kind, Registered, Seat, Shares, Weight};
use crate::delivery::{Notify, Outbox, Subscription};
use crate::engine::Phase;
use crate::operators::audit;
use crate::operators::{Counted, Ended};
use crate::sessions::protocol::{Action, Close, Frame, Protocol, Settings};
use crate::sessions::register::Sessions;
use crate::tasks::{Tasks, UnderWay};
use crate::timers::{Alarm, Timed};
use crate::viewer::{Host, Viewer};

pub use authority::{Answer, Question};
pub use held::Held;

mod authority;
mod ending;
mod held;
mod operations;

/// A WebSocket connection.
pub struct Connection {
    /// The id that we gave it.
    pub id: Arc<str>,
    number: u64,
    sessions: Arc<Sessions>,
    outbox: Arc<Outbox>,
    introspection: bool,
    host: Option<Host>,
    /// What the transport is handing over.
    handing: Arc<Tasks>,
    state: Mutex<State>,
}

struct State {
    protocol: Protocol,
    viewer: Option<Arc<Viewer>>,
    /// What limits on subscriptions count for; nobody's until somebody watches.
    seat: Arc<Seat>,
    /// What it holds; its own until it is known who watches.
    load: Arc<ConnectionLoad>,
    /// While the auth handler is at work.
    authorisation: Option<Authorisation>,
    /// What the auth handler was given.
    asked: Option<Weight>,
    registered: Option<Registered>,
    /// When the viewer's authority ends.
    expires: Option<Instant>,
    operations: HashMap<Arc<str>, Arc<Subscription>>,
    /// What goes out before any result: acks, pongs, refusals, the close.
    control: VecDeque<Outgoing>,
    control_bytes: usize,
    /// Of these bytes.
    answers: Option<Weight>,
    alarm: Option<Alarm>,
    held: Option<(Counted, Shares)>,
    under_way: Option<UnderWay>,
    draining: bool,
    /// Subscribes that wait for the bus, and what is not said before they are live or refused.
    waiting: usize,
    held_back: VecDeque<String>,
}

/// What a transport offers to those who connect.
#[derive(Clone)]
pub struct Offer {
    /// Whether `__schema` and `__type` are answered.
    pub introspection: bool,
    /// Whether there is an auth handler.
    pub authenticates: bool,
    /// What the host language keeps of the connection; its audit records have it.
    pub host: Option<Host>,
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
        let nobody = Accounts::of(&Viewer::default(), Some(number));
        let connection = Arc::new(Connection {
            id: uuid::Uuid::now_v7().simple().to_string().into(),
            number,
            sessions: sessions.clone(),
            outbox: Outbox::new(limits.into(), notify),
            introspection: offer.introspection,
            host: offer.host,
            handing: Arc::default(),
            state: Mutex::new(State {
                protocol: Protocol::new(Settings::new(limits, offer.authenticates), now),
                viewer: None,
                seat: Seat::new(Accounts::default(), &sessions.engine.parts.quotas.subscriptions),
                load: sessions.engine.parts.quotas.load(&nobody),
                authorisation: None,
                asked: None,
                registered: None,
                expires: None,
                operations: HashMap::default(),
                control: VecDeque::new(),
                control_bytes: 0,
                answers: None,
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
        if let Some(Question { payload, .. }) = &question {
            state.authorisation = Some(self.sessions.engine.parts.revocations.begin());
            state.asked = Some(state.load.weigh(Kind::Inbound, payload.size()));
        }
        self.settle(state);
        question
    }

    /// The auth handler has answered.
    pub fn answered(self: &Arc<Self>, number: u64, answer: Answer) {
        let mut state = self.state.lock();
        state.asked = None;
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
        self.sessions.engine.parts.audit.note(kind, viewer, Some(&self.id), self.host.as_ref(), reason);
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
            self.slow(&mut state);
        }
        if let Some(outgoing) = state.control.pop_front() {
            if let Outgoing::Text(text) = &outgoing {
                state.control_bytes -= text.len();
                state.weigh_answers();
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

    fn send<const N: usize>(&self, state: &mut State, messages: [String; N]) {
        let limits = &self.sessions.engine.parts.limits;
        let length = messages.iter().map(String::len).sum();
        // A client that asks without reading the answers is slow as well.
        if state.control.len() + state.held_back.len() >= limits.queue_messages
            || state.control_bytes >= limits.connection_queue_bytes
            || !state.control.is_empty() && !state.load.account.fits(length)
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
        state.weigh_answers();
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

impl State {
    /// What waits of answers is charged as it is.
    fn weigh_answers(&mut self) {
        let State { load, answers, control_bytes, .. } = self;
        answers.get_or_insert_with(|| load.weigh(Kind::Queues, 0)).set(*control_bytes);
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
