//! The protocol machine under an arbitrary peer, clock and engine.
//!
//! Each line of the input is one step; what follows its first byte belongs to it:
//!
//! ```text
//! *OPERATIONS BYTES    limits other than the defaults, and no auth handler for a refresh; first line only
//! >TEXT                the client sends this text frame
//! b                    the client sends a binary frame
//! aPAYLOAD             the auth handler says yes; a payload that is no object is left out
//! r                    the auth handler says no
//! @MILLISECONDS        time passes, and timers fire when they are due
//! sMILLISECONDS        time passes, and no timer fires
//! eNUMBER              the engine ends the operation that started as this one, live or not
//! yNUMBER              the auth handler says yes to the refresh with this number
//! nNUMBER              it says no
//! cCODE                something else closes the connection
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use fraiseql_subs_engine::sessions::protocol::{Action, Close, Frame, Protocol, Settings, complete, error, next};
use fraiseql_subs_engine::value::Value;

const SETTINGS: Settings = Settings {
    init_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(25),
    pong_timeout: Duration::from_secs(10),
    max_message_bytes: 262_144,
    max_operations: 4,
    refreshable: true,
};

/// No deadline is further away than this, the longest of the settings.
const FURTHEST: Duration = SETTINGS.ping_interval;

/// The steps of one connection.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').peekable();
    let mut settings = SETTINGS;
    if let Some(limits) = lines.peek().and_then(|line| line.strip_prefix('*')) {
        let mut numbers = limits.split(' ').map(number);
        settings.max_operations = numbers.next().unwrap_or(0) as usize;
        settings.max_message_bytes = numbers.next().unwrap_or(100) as usize;
        settings.refreshable = false;
        lines.next();
    }
    let mut connection = Connection::new(settings);
    for line in lines {
        let mut rest = line.chars();
        if let Some(step) = rest.next() {
            connection.step(step, rest.as_str());
            connection.check();
        }
    }
}

/// The first digits of a text, or 0.
fn number(text: &str) -> u64 {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text[..end.min(6)].parse().unwrap_or(0)
}

struct Connection {
    protocol: Protocol,
    settings: Settings,
    now: Instant,
    deadline: Instant,
    /// All that ever started, and those of them that have not ended.
    started: Vec<Arc<str>>,
    live: Vec<Arc<str>>,
    /// When a refresh last began.
    refreshed: Option<Instant>,
    closed: bool,
}

impl Connection {
    fn new(settings: Settings) -> Connection {
        let now = Instant::now();
        let protocol = Protocol::new(settings, now);
        let deadline = now + settings.init_timeout;
        let (started, live) = (Vec::new(), Vec::new());
        Connection { protocol, settings, now, deadline, started, live, refreshed: None, closed: false }
    }

    fn step(&mut self, step: char, rest: &str) {
        let (before, was_acknowledged) = (self.protocol.deadline(), self.protocol.is_acknowledged());
        let is_due = before.is_some_and(|deadline| deadline <= self.now);
        match step {
            '>' => {
                let action = self.protocol.receive(Frame::Text(rest), self.now);
                self.answers(rest, action.as_ref());
                let is_refresh = matches!(action, Some(Action::Refresh(..)));
                self.act(action);
                if rest.len() > self.settings.max_message_bytes {
                    assert!(self.closed, "a frame that is too big is not looked at");
                }
                let is_pong = |message: Value| message.get("type").and_then(Value::as_str) == Some("pong");
                if was_acknowledged && !self.closed && !is_refresh && !Value::parse(rest.as_bytes()).is_ok_and(is_pong)
                {
                    assert_eq!(self.protocol.deadline(), before, "only a pong is a sign of life");
                }
            }
            'b' => {
                let action = self.protocol.receive(Frame::Binary, self.now);
                self.act(action);
                assert!(self.closed);
            }
            'a' => {
                let payload = Value::parse(rest.as_bytes()).ok().filter(|payload| payload.as_object().is_some());
                let action = self.protocol.acknowledge(payload.map(|payload| payload.to_json()).as_deref(), self.now);
                assert!(!(is_due && matches!(action, Some(Action::Send(_)))), "an ack that is late");
                self.act(action);
            }
            'r' => {
                let action = self.protocol.refuse();
                self.act(action);
                assert!(self.closed);
            }
            '@' => {
                self.now += Duration::from_millis(number(rest));
                // A refresh may be given up and a pong be missing at once.
                for _ in 0..2 {
                    let is_due = self.protocol.deadline().is_some_and(|deadline| deadline <= self.now);
                    let action = self.protocol.tick(self.now);
                    assert_eq!(action.is_some(), is_due, "a tick does what is due, and nothing else");
                    self.act(action);
                }
                assert!(self.protocol.deadline().is_none_or(|deadline| deadline > self.now));
                assert_eq!(self.protocol.tick(self.now), None);
            }
            's' => self.now += Duration::from_millis(number(rest)),
            'e' => self.end(number(rest) as usize),
            'y' | 'n' => {
                let number = number(rest);
                let was_refreshing = self.protocol.is_refreshing(number);
                let action = self.protocol.refreshed(number, (step == 'y').then_some("null"));
                assert_eq!(action.is_some(), was_refreshing);
                assert!(!self.protocol.is_refreshing(number));
                self.act(action);
            }
            'c' => {
                let action = self.protocol.close(Close::new(number(rest) as u16, rest.to_owned()));
                self.act(action);
                assert!(self.closed);
            }
            _ => {}
        }
    }

    /// A ping is echoed; what the machine says to a frame is about that frame.
    fn answers(&self, frame: &str, action: Option<&Action>) {
        let Some(Action::Send(text) | Action::Refuse(text)) = action else { return };
        let (sent, message) = (parsed(text), parsed(frame));
        match sent.get("type").and_then(Value::as_str) {
            Some("pong") => {
                assert_eq!(message.get("type"), Some(&Value::string("ping")));
                let payload = message.get("payload").filter(|payload| !payload.is_null());
                if payload.is_some_and(|payload| payload.get("refresh").is_some()) {
                    assert_eq!(sent.at(["payload", "refresh", "ok"]), Some(&Value::Bool(false)));
                } else {
                    assert_eq!(sent.get("payload"), payload);
                    assert!(text.len() <= self.settings.max_message_bytes, "an echo that is too big");
                }
            }
            Some("error") => {
                assert_eq!(message.get("type"), Some(&Value::string("subscribe")));
                assert_eq!(sent.get("id"), message.get("id"));
            }
            // The frame came when the init time-out was over, or nothing was.
            other => panic!("{other:?} is no answer to a frame"),
        }
    }

    fn end(&mut self, nth: usize) {
        let Some(id) = self.started.get(nth).cloned() else { return };
        let at = self.live.iter().position(|own| Arc::ptr_eq(own, &id));
        assert_eq!(self.protocol.ended(&id), at.is_some());
        if let Some(at) = at {
            self.live.remove(at);
            for message in [next(&id, r#"{"data":null}"#, Some("{}")), error(&id, "[]"), complete(&id)] {
                assert_eq!(parsed(&message).get("id"), Some(&Value::string(&*id)));
            }
        }
    }

    fn act(&mut self, action: Option<Action>) {
        assert!(!self.closed || action.is_none(), "after the close: {action:?}");
        match action {
            None => {}
            Some(Action::Send(text) | Action::Refuse(text)) => {
                let kind = parsed(&text).get("type").and_then(Value::as_str).map(str::to_owned);
                let kinds = ["connection_ack", "ping", "pong", "error"];
                assert!(kind.is_some_and(|kind| kinds.contains(&&*kind)), "{text}");
            }
            Some(Action::Refresh(number, payload)) => {
                assert!(payload.as_object().is_some() && self.settings.refreshable);
                assert!(self.protocol.is_refreshing(number) && !self.protocol.is_refreshing(number + 1));
                assert!(
                    self.refreshed.is_none_or(|before| self.now >= before + Duration::from_secs(1)),
                    "one a second"
                );
                self.refreshed = Some(self.now);
            }
            Some(Action::Authenticate(payload)) => assert!(payload.as_object().is_some()),
            Some(Action::Subscribe(subscribe)) => {
                assert!(self.protocol.is_acknowledged() && !subscribe.id.is_empty());
                assert!(!self.live.contains(&subscribe.id), "an id that is in use");
                assert!(matches!(subscribe.variables, Value::Null | Value::Object(_)));
                self.started.push(subscribe.id.clone());
                self.live.push(subscribe.id);
            }
            Some(Action::Complete(id)) => {
                let at = self.live.iter().position(|own| Arc::ptr_eq(own, &id));
                self.live.remove(at.expect("only a live operation is completed"));
            }
            Some(Action::Close(close)) => {
                assert!(close.reason().len() <= Close::MAX_REASON);
                self.closed = true;
                self.live.clear();
            }
        }
    }

    /// What holds after each step.
    fn check(&mut self) {
        assert_eq!(self.protocol.is_closed(), self.closed);
        assert_eq!(self.protocol.operations(), self.live.len());
        assert!(self.live.len() <= self.settings.max_operations);
        assert!(self.live.is_empty() || self.protocol.is_acknowledged());
        match self.protocol.deadline() {
            None => assert!(self.closed),
            Some(deadline) => {
                assert!(!self.closed && deadline <= self.now + FURTHEST);
                if !self.protocol.is_acknowledged() {
                    assert_eq!(deadline, self.deadline, "nothing but the ack moves the time to init");
                }
            }
        }
    }
}

/// Every text that is written is an object in JSON.
fn parsed(text: &str) -> Value {
    match Value::parse(text.as_bytes()) {
        Ok(value @ Value::Object(_)) => value,
        other => panic!("{text}: {other:?}"),
    }
}
