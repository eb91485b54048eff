//! [graphql-transport-ws](https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md) as a machine without I/O: a
//! frame, a tick or a decision comes in, at most one action goes out.
//!
//! It stands between a transport and the engine, one machine a connection. It owns no socket and no timer, reads no
//! clock and calls no function: the transport hands it every frame and the time, and carries out the action before it
//! hands in the next one. Whether an operation is valid or allowed is not known here; what it writes is, byte for byte.
//!
//! # Closing
//! The first close is final, whoever decides it: no frame, tick or late decision after it has any effect.
//!
//! # Refresh
//! A `ping` whose payload has `refresh` asks to move the end of the viewer's authority. It is answered by a `pong` whose payload has
//! `refresh` too; the auth handler decides meanwhile, for `init_timeout` at most.
//!
//! # Silence
//! Until the ack the init time-out bounds a silent peer, the auth handler's time included. From the ack on a `ping`
//! goes out `ping_interval` after the ack and after each answered ping; a peer whose `pong` has not come `pong_timeout`
//! after it is gone. Only a `pong` is an answer, and one that is read before the tick counts, however late: a process
//! that was busy does not close the connections of those who did answer. While nothing is [read](Protocol::hold) of a client, the time for
//! its `pong` stands still.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Resume;
use crate::error::{GraphQLError, code, errors_json};
use crate::limits::Limits;
use crate::value::Value;

pub use close::Close;
pub(super) use message::extensions;
use message::{Message, message};
pub use message::{complete, error, next, result};

mod close;
mod message;

/// The subprotocol that a client has to offer.
pub const SUBPROTOCOL: &str = "graphql-transport-ws";

/// The longest id of an operation, in bytes; each message of the operation carries it.
pub const MAX_ID: usize = 1024;

/// What a connection may do, of [`Limits`].
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// From accept to ack.
    pub init_timeout: Duration,
    /// From the ack, and from each `pong`, to the next `ping`.
    pub ping_interval: Duration,
    /// From a `ping` to its `pong`.
    pub pong_timeout: Duration,
    /// The longest frame that is looked at.
    pub max_message_bytes: usize,
    /// Live operations.
    pub max_operations: usize,
    /// Whether there is an auth handler that a refresh can be put to.
    pub refreshable: bool,
}

impl Settings {
    /// Those of a connection with these limits.
    pub fn new(limits: &Limits, refreshable: bool) -> Settings {
        Settings {
            init_timeout: limits.connection_init_timeout,
            ping_interval: limits.ping_interval,
            pong_timeout: limits.pong_timeout,
            max_message_bytes: limits.max_message_bytes,
            max_operations: limits.max_subscriptions_per_connection,
            refreshable,
        }
    }
}

/// A frame of the client's. Text that is not UTF-8 has been refused (1007) before it gets here.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame, whatever is in it.
    Binary,
}

/// What the transport has to do now.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send this text frame.
    Send(String),
    /// Send this text frame, which refuses an operation beyond `max_operations`.
    Refuse(String),
    /// Ask the auth handler, with the payload of `connection_init` (`{}` where missing); then [`Protocol::acknowledge`]
    /// or [`Protocol::refuse`].
    Authenticate(Value),
    /// Ask the auth handler again, with this object; then [`Protocol::refreshed`] with this number. Frames go on meanwhile.
    Refresh(u64, Value),
    /// Start this operation. It is live until [`Protocol::ended`] or [`Action::Complete`].
    Subscribe(Subscribe),
    /// The client has completed this operation: drop it and what waits for it. Nothing of it may be sent any more.
    Complete(Arc<str>),
    /// Close the socket; every operation has ended.
    Close(Close),
}

/// An operation that a client asks for.
#[derive(Debug, PartialEq)]
pub struct Subscribe {
    /// As the client sent it, never empty. This `Arc` is the operation's identity towards [`Protocol::ended`].
    pub id: Arc<str>,
    /// The document, not looked at yet.
    pub query: String,
    /// Which of the document's operations.
    pub operation_name: Option<String>,
    /// An object or null.
    pub variables: Value,
    /// `extensions.resume`.
    pub resume: Resume,
}

/// One connection's state.
#[derive(Debug)]
pub struct Protocol {
    settings: Settings,
    phase: Phase,
    /// When the phase ends by itself; of no meaning once closed.
    deadline: Instant,
    operations: HashSet<Arc<str>>,
    refresh: Refresh,
    /// Since when nothing is read of the client.
    held: Option<Instant>,
}

/// Where a refresh of the viewer's authority stands; at most one is worked on at a time, and one a second.
#[derive(Clone, Copy, Debug, Default)]
struct Refresh {
    /// The number of the last one.
    number: u64,
    /// When the last one began.
    began: Option<Instant>,
    /// When the one that is under way is given up.
    deadline: Option<Instant>,
}

/// Between two refreshes that are worked on.
const BETWEEN_REFRESHES: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Accepted; `connection_init` has not come.
    Opened,
    /// The auth handler is at work.
    Authenticating,
    /// Acknowledged; no `ping` of ours is unanswered.
    Ready,
    /// Acknowledged; a `pong` is due.
    Pinged,
    Closed,
}

impl Protocol {
    /// The machine of a socket that has just been accepted.
    pub fn new(settings: Settings, now: Instant) -> Protocol {
        Protocol {
            settings,
            phase: Phase::Opened,
            deadline: now + settings.init_timeout,
            operations: HashSet::new(),
            refresh: Refresh::default(),
            held: None,
        }
    }

    /// Nothing is read of the client from now on, until [`Protocol::go_on`].
    pub fn hold(&mut self, now: Instant) {
        self.held = Some(now);
    }

    /// The client is read again.
    pub fn go_on(&mut self, now: Instant) {
        if let Some(held) = self.held.take()
            && self.phase == Phase::Pinged
        {
            let pinged = self.deadline.checked_sub(self.settings.pong_timeout).unwrap_or(held);
            self.deadline += now.saturating_duration_since(held.max(pinged));
        }
    }

    /// Takes the client's next frame.
    pub fn receive(&mut self, frame: Frame<'_>, now: Instant) -> Option<Action> {
        if self.phase == Phase::Closed {
            return None;
        }
        if !self.is_acknowledged() && now >= self.deadline {
            return self.tick(now);
        }
        let text = match frame {
            Frame::Text(text) if text.len() <= self.settings.max_message_bytes => text,
            Frame::Text(_) => return self.close(Close::MESSAGE_TOO_BIG),
            Frame::Binary => return self.close(Close::invalid("binary frame")),
        };
        match Message::parse(text) {
            Err(detail) => self.close(Close::invalid(detail)),
            Ok(Message::ConnectionInit(payload)) if self.phase == Phase::Opened => {
                self.phase = Phase::Authenticating;
                Some(Action::Authenticate(payload))
            }
            Ok(Message::ConnectionInit(_)) => self.close(Close::TOO_MANY_INITS),
            Ok(Message::Ping(payload)) => match payload.get("refresh") {
                Some(asked) => Some(self.refresh(asked, now)),
                None => self.pong(&payload),
            },
            Ok(Message::Pong) => {
                if self.phase == Phase::Pinged {
                    self.enter(Phase::Ready, now + self.settings.ping_interval);
                }
                None
            }
            Ok(Message::Subscribe(operation, resume)) => self.subscribe(operation, resume),
            Ok(Message::Complete(id)) => self.operations.take(&*id).map(Action::Complete),
        }
    }

    /// The auth handler said yes; `payload`, a JSON object, goes into the ack. Without effect where nothing was asked.
    pub fn acknowledge(&mut self, payload: Option<&str>, now: Instant) -> Option<Action> {
        if self.phase != Phase::Authenticating {
            return None;
        }
        if now >= self.deadline {
            return self.tick(now);
        }
        self.enter(Phase::Ready, now + self.settings.ping_interval);
        Some(Action::Send(message(None, "connection_ack", payload)))
    }

    /// The auth handler said no, or failed.
    pub fn refuse(&mut self) -> Option<Action> {
        self.close(Close::FORBIDDEN)
    }

    /// Does what is due at [`Protocol::deadline`]; before it, nothing.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.refresh.deadline.is_some_and(|deadline| now >= deadline) {
            return self.refreshed(self.refresh.number, None);
        }
        match self.phase {
            Phase::Opened | Phase::Authenticating => self.close(Close::INIT_TIMEOUT),
            Phase::Ready => {
                self.enter(Phase::Pinged, now + self.settings.pong_timeout);
                Some(Action::Send(message(None, "ping", None)))
            }
            Phase::Pinged if self.held.is_some() => None,
            Phase::Pinged => self.close(Close::PONG_TIMEOUT),
            Phase::Closed => None,
        }
    }

    /// When [`Protocol::tick`] wants to be called; `None` once closed. Every call may move it.
    pub fn deadline(&self) -> Option<Instant> {
        let own = (self.phase != Phase::Pinged || self.held.is_none()).then_some(self.deadline);
        let first = self.refresh.deadline.into_iter().chain(own).min();
        first.filter(|_| self.phase != Phase::Closed)
    }

    /// Whether the refresh with this number is under way.
    pub fn is_refreshing(&self, number: u64) -> bool {
        self.is_acknowledged() && self.refresh.deadline.is_some() && self.refresh.number == number
    }

    /// Whether [`Protocol::tick`] is about to give a refresh up.
    pub fn is_refresh_late(&self, now: Instant) -> bool {
        self.is_acknowledged() && self.refresh.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// What came of a refresh: the new end of the authority as JSON (a string or `null`), or `None` where it was refused. Without
    /// effect where it was given up before.
    pub fn refreshed(&mut self, number: u64, expires_at: Option<&str>) -> Option<Action> {
        if !self.is_refreshing(number) {
            return None;
        }
        self.refresh.deadline = None;
        Some(match expires_at {
            Some(expires_at) => refresh_pong(&format!("\"ok\":true,\"expiresAt\":{expires_at}")),
            None => refresh_pong(NOT_REFRESHED),
        })
    }

    /// Closes for a reason that was decided elsewhere (also: the socket has gone). `None` where a close came before.
    pub fn close(&mut self, close: Close) -> Option<Action> {
        if self.phase == Phase::Closed {
            return None;
        }
        self.phase = Phase::Closed;
        self.operations = HashSet::new();
        Some(Action::Close(close))
    }

    /// The engine has ended this operation. `true`: hand its `error` or `complete` to the socket now; its id is free
    /// again. `false`: the client has completed it before, or the connection is closed; send nothing. A new operation
    /// under the same id is another one, and not touched.
    #[must_use]
    pub fn ended(&mut self, id: &Arc<str>) -> bool {
        let live = self.operations.get(id).is_some_and(|own| Arc::ptr_eq(own, id));
        live && self.operations.remove(id)
    }

    /// Whether operations are allowed: after the ack and before the close.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Pinged)
    }

    /// Whether a close was decided.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// How many operations are live.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    fn enter(&mut self, phase: Phase, deadline: Instant) {
        self.phase = phase;
        self.deadline = deadline;
    }

    fn refresh(&mut self, asked: &Value, now: Instant) -> Action {
        if !self.is_acknowledged() || !self.settings.refreshable || asked.as_object().is_none() {
            return refresh_pong(NOT_REFRESHED);
        }
        let Refresh { number, began, deadline } = self.refresh;
        let wait = began.map_or(Duration::ZERO, |began| (began + BETWEEN_REFRESHES).saturating_duration_since(now));
        if deadline.is_some() || !wait.is_zero() {
            // Whole seconds, as in HTTP; one that is still worked on may take longer.
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            return refresh_pong(&format!("{NOT_REFRESHED},\"retryAfter\":{seconds}"));
        }
        let deadline = Some(now + self.settings.init_timeout);
        self.refresh = Refresh { number: number + 1, began: Some(now), deadline };
        Action::Refresh(self.refresh.number, asked.clone())
    }

    fn pong(&mut self, payload: &Value) -> Option<Action> {
        let payload = (!payload.is_null()).then(|| payload.to_json());
        let pong = message(None, "pong", payload.as_deref());
        // The echo is as long as the ping, but for numbers such as 1e9, which are written out.
        if pong.len() > self.settings.max_message_bytes {
            return self.close(Close::MESSAGE_TOO_BIG);
        }
        Some(Action::Send(pong))
    }

    fn subscribe(&mut self, operation: Subscribe, resume: Option<Resume>) -> Option<Action> {
        if !self.is_acknowledged() {
            return self.close(Close::UNAUTHORIZED);
        }
        if self.operations.contains(&operation.id) {
            return self.close(Close::already_exists(&operation.id));
        }
        if self.operations.len() >= self.settings.max_operations {
            let message = "Too many subscriptions on this connection";
            let errors = errors_json(&[GraphQLError::new(code::LIMIT_EXCEEDED, message)]);
            return Some(Action::Refuse(error(&operation.id, &errors)));
        }
        let Some(resume) = resume else {
            let message = "extensions.resume is neither a boolean nor {\"after\": token}";
            let errors = errors_json(&[GraphQLError::new(code::BAD_USER_INPUT, message)]);
            return Some(Action::Send(error(&operation.id, &errors)));
        };
        self.operations.insert(Arc::clone(&operation.id));
        Some(Action::Subscribe(Subscribe { resume, ..operation }))
    }
}

const NOT_REFRESHED: &str = "\"ok\":false";

fn refresh_pong(members: &str) -> Action {
    Action::Send(message(None, "pong", Some(&format!("{{\"refresh\":{{{members}}}}}"))))
}
