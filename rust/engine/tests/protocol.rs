//! The protocol machine against transcripts (`transcripts/*.txt`) and against random input.
//!
//! A transcript is one connection, told line by line:
//!
//! ```text
//! == TITLE                a new connection, just accepted; with "(machine)" at the end it is for this test alone,
//!                         without it a test over a real socket can run it too
//! * NAME = VALUE          a limit other than its default; first lines only
//! > TEXT                  the client sends this text frame
//! >binary                 the client sends a binary frame
//! < TEXT                  the server sends exactly this text frame
//! <close CODE REASON      the server closes, exactly so
//! = authenticate JSON     the auth handler is asked with this payload
//! = refresh N JSON        it is asked again, with this object; its answer goes by this number                (machine)
//! = subscribe JSON        an operation starts; members that are null are left out
//! = complete ID           an operation was completed by the client
//! ! acknowledge           the auth handler says yes      (machine: a payload for the ack may follow)
//! ! refuse                the auth handler says no
//! ! refreshed N JSON      it says yes to a refresh: when the authority ends                                  (machine)
//! ! unrefreshed N         it says no                                                                         (machine)
//! ! next ID RESULT        an event comes for this operation, if it is live   (machine: extensions may follow)
//! ! complete ID           the application ends this operation, if it is live
//! ! answer ID RESULT      the engine has the answer to a query: over a socket it comes by itself
//! ! error ID ERRORS       the engine refuses the operation                                           (machine)
//! ! close CODE REASON     the engine closes the connection                                           (machine)
//! @ 1.5s                  time passes, and timers fire when they are due                             (machine)
//! @stalled 1.5s           time passes, and no timer fires: the process was busy                      (machine)
//! ? operations N          how many operations are live
//! ? deadline 1.5s|none    when the machine wants a tick, from the accept on
//! +acknowledged           short for the four lines from `> {"type":"connection_init"}` to its ack
//! # ...                   a remark; empty lines are for the eye
//! ```
//!
//! What comes out must be told by the `<` and `=` lines before the next thing goes in, and at the end nothing may be
//! left. Over a socket `=` and `?` lines are skipped, and `tick(of: ID)` is a passthrough subscription to the channel
//! `ticks:ID`: `! next ID {"data":{"tick":T}}` publishes `T` there.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fraiseql_subs_engine::engine::Resume;
use fraiseql_subs_engine::sessions::protocol::{
    Action, Close, Frame, Protocol, Settings, Subscribe, complete, error, next,
};
use fraiseql_subs_engine::value::Value;
use proptest::prelude::*;

const SETTINGS: Settings = Settings {
    init_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(25),
    pong_timeout: Duration::from_secs(10),
    max_message_bytes: 262_144,
    max_operations: 100,
    refreshable: true,
};

const ACKNOWLEDGED: [&str; 4] =
    [r#"> {"type":"connection_init"}"#, "= authenticate {}", "! acknowledge", r#"< {"type":"connection_ack"}"#];

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let (mut ran, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).expect("the transcripts are there") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("UTF-8 text");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        for transcript in text.split("\n== ").skip(1) {
            ran += 1;
            let title = transcript.lines().next().unwrap_or_default();
            if let Err(what) = run(transcript) {
                failed.push(format!("{name:?}: {title}\n    {what}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(ran >= 90, "only {ran} transcripts were found");
}

#[test]
fn a_transcript_that_is_not_true_fails() {
    for (transcript, what) in [
        ("t\n> {\"type\":\"ping\"}\n< {\"type\":\"pong\",\"payload\":{}}", "expected"),
        ("t\n> {\"type\":\"ping\"}", "left"),
        ("t\n> {\"type\":\"ping\"}\n> {\"type\":\"ping\"}", "left"),
        ("t\n+acknowledged\n? operations 1", "operations"),
        ("t\n@ 1s", "(machine)"),
        ("t (machine)\n@ 10s\n<close 4408 Other", "expected"),
        ("t\nping", "no transcript line"),
    ] {
        let error = run(transcript).expect_err(what);
        assert!(error.contains(what), "{error}");
    }
}

/// Plays one transcript, its title first; `Err` says at which line it was not true.
fn run(transcript: &str) -> Result<(), String> {
    let mut lines = transcript.lines();
    let machine_only = lines.next().is_some_and(|title| title.ends_with(" (machine)"));
    let lines = lines.flat_map(|line| match line {
        "+acknowledged" => ACKNOWLEDGED.to_vec(),
        line => vec![line],
    });
    let mut settings = SETTINGS;
    let mut connection = None;
    for line in lines {
        let at = |what: String| format!("{what}\n    at {line}");
        if let Some((name, value)) = line.strip_prefix("* ").and_then(|limit| limit.split_once(" = ")) {
            set(&mut settings, name, value).map_err(at)?;
            continue;
        }
        let connection = connection.get_or_insert_with(|| Connection::new(settings));
        let machine = ["@", "! error", "! close", "! acknowledge {"];
        if !machine_only && machine.iter().any(|prefix| line.starts_with(prefix)) {
            return Err(at("only a (machine) transcript can have this".into()));
        }
        connection.play(line).map_err(at)?;
    }
    connection.map_or(Ok(()), |connection| connection.nothing_left())
}

fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
    let number: f64 = value.parse().map_err(|_| "no number")?;
    match name {
        "connection_init_timeout" => settings.init_timeout = Duration::from_secs_f64(number),
        "ping_interval" => settings.ping_interval = Duration::from_secs_f64(number),
        "pong_timeout" => settings.pong_timeout = Duration::from_secs_f64(number),
        "max_message_bytes" => settings.max_message_bytes = number as usize,
        "auth_handler" => settings.refreshable = number != 0.0,
        "max_subscriptions_per_connection" => settings.max_operations = number as usize,
        _ => return Err("unknown limit".into()),
    }
    Ok(())
}

/// A transport and an engine of the simplest kind around the machine.
struct Connection {
    protocol: Protocol,
    start: Instant,
    now: Instant,
    operations: HashMap<String, Arc<str>>,
    /// What came out, as transcript lines.
    out: VecDeque<String>,
}

impl Connection {
    fn new(settings: Settings) -> Connection {
        let start = Instant::now();
        Connection {
            protocol: Protocol::new(settings, start),
            start,
            now: start,
            operations: HashMap::new(),
            out: VecDeque::new(),
        }
    }

    fn play(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line.starts_with(['<', '=']) {
            return match self.out.pop_front() {
                Some(came) if came == line => Ok(()),
                came => Err(format!("expected this, came {came:?}")),
            };
        }
        self.nothing_left()?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            ">" => {
                let action = self.protocol.receive(Frame::Text(rest), self.now);
                self.act(action);
            }
            ">binary" => {
                let action = self.protocol.receive(Frame::Binary, self.now);
                self.act(action);
            }
            "!" => self.decide(rest)?,
            "@" => self.pass(seconds(rest)?),
            "@stalled" => self.now += seconds(rest)?,
            "?" => return self.check(rest),
            _ => return Err("no transcript line".into()),
        }
        Ok(())
    }

    fn nothing_left(&self) -> Result<(), String> {
        match self.out.front() {
            Some(left) => Err(format!("left over: {left}")),
            None => Ok(()),
        }
    }

    /// What is decided outside of the machine.
    fn decide(&mut self, decision: &str) -> Result<(), String> {
        let (verb, rest) = decision.split_once(' ').unwrap_or((decision, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "acknowledge" => {
                let action = self.protocol.acknowledge(Some(rest).filter(|payload| !payload.is_empty()), self.now);
                self.act(action);
            }
            "refuse" => {
                let action = self.protocol.refuse();
                self.act(action);
            }
            "refreshed" | "unrefreshed" => {
                let number = first.parse().map_err(|_| "no number")?;
                let action = self.protocol.refreshed(number, (verb == "refreshed").then_some(second));
                self.act(action);
            }
            "close" => {
                let code = first.parse().map_err(|_| "no code")?;
                let action = self.protocol.close(Close::new(code, second.to_owned()));
                self.act(action);
            }
            "next" => {
                let (body, extensions) = match second.split_once(' ') {
                    Some((body, extensions)) => (body, Some(extensions)),
                    None => (second, None),
                };
                if self.operations.contains_key(first) {
                    self.send(&next(first, body, extensions));
                }
            }
            "complete" => self.end(first, |id| vec![complete(id)]),
            "answer" => self.end(first, |id| vec![next(id, second, None), complete(id)]),
            "error" => self.end(first, |id| vec![error(id, second)]),
            _ => return Err("unknown decision".into()),
        }
        Ok(())
    }

    fn end(&mut self, id: &str, messages: impl Fn(&str) -> Vec<String>) {
        if let Some(operation) = self.operations.remove(id)
            && self.protocol.ended(&operation)
        {
            messages(id).iter().for_each(|message| self.send(message));
        }
    }

    /// Lets timers fire at their time, and once more at the end, where nothing is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.protocol.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let action = self.protocol.tick(self.now);
            assert!(action.is_some(), "a deadline at which nothing is due");
            self.act(action);
        }
        self.now = end;
        let action = self.protocol.tick(self.now);
        self.act(action);
    }

    fn check(&self, state: &str) -> Result<(), String> {
        let is = match state.split_once(' ') {
            Some(("operations", _)) => format!("operations {}", self.protocol.operations()),
            _ => match self.protocol.deadline() {
                Some(deadline) => format!("deadline {}s", (deadline - self.start).as_secs_f64()),
                None => "deadline none".into(),
            },
        };
        if is == state { Ok(()) } else { Err(format!("is {is}")) }
    }

    fn send(&mut self, text: &str) {
        self.out.push_back(format!("< {text}"));
    }

    fn act(&mut self, action: Option<Action>) {
        let Some(action) = action else { return };
        let line = match action {
            Action::Send(text) | Action::Refuse(text) => format!("< {text}"),
            Action::Authenticate(payload) => format!("= authenticate {}", payload.to_json()),
            Action::Refresh(number, payload) => format!("= refresh {number} {}", payload.to_json()),
            Action::Subscribe(subscribe) => {
                let line = format!("= subscribe {}", json(&subscribe));
                self.operations.insert(subscribe.id.to_string(), subscribe.id);
                line
            }
            Action::Complete(id) => {
                self.operations.remove(&*id);
                format!("= complete {id}")
            }
            Action::Close(close) => {
                self.operations.clear();
                format!("<close {} {}", close.code(), close.reason())
            }
        };
        self.out.push_back(line);
    }
}

fn json(subscribe: &Subscribe) -> String {
    let text = |text: &str| Value::string(text).to_json();
    let mut members = vec![format!("\"id\":{}", text(&subscribe.id)), format!("\"query\":{}", text(&subscribe.query))];
    members.extend(subscribe.operation_name.iter().map(|name| format!("\"operationName\":{}", text(name))));
    if !subscribe.variables.is_null() {
        members.push(format!("\"variables\":{}", subscribe.variables.to_json()));
    }
    match &subscribe.resume {
        Resume::No => {}
        Resume::Ids => members.push("\"resume\":true".into()),
        Resume::After(token) => members.push(format!("\"resume\":{{\"after\":{}}}", text(token))),
    }
    format!("{{{}}}", members.join(","))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    number.map(Duration::from_secs_f64).ok_or_else(|| "no time".into())
}

#[test]
fn an_operation_that_ends_late_does_not_end_its_successor() {
    let now = Instant::now();
    let mut protocol = Protocol::new(SETTINGS, now);
    let receive = |protocol: &mut Protocol, text: &str| protocol.receive(Frame::Text(text), now);
    receive(&mut protocol, r#"{"type":"connection_init"}"#);
    protocol.acknowledge(None, now);
    let subscribe =
        |protocol: &mut Protocol| match receive(protocol, r#"{"id":"1","type":"subscribe","payload":{"query":"q"}}"#) {
            Some(Action::Subscribe(subscribe)) => subscribe.id,
            other => panic!("{other:?}"),
        };
    let first = subscribe(&mut protocol);
    let completed = protocol.receive(Frame::Text(r#"{"id":"1","type":"complete"}"#), now);
    assert_eq!(completed, Some(Action::Complete(Arc::clone(&first))));
    let second = subscribe(&mut protocol);
    assert!(!protocol.ended(&first));
    assert_eq!(protocol.operations(), 1);
    assert!(protocol.ended(&second));
    assert!(!protocol.ended(&second));
    assert_eq!(protocol.operations(), 0);
}

/// What a random peer, timer or engine does.
#[derive(Clone, Debug)]
enum Step {
    Text(String),
    Binary,
    Acknowledge,
    Refuse,
    Pass(u32),
    Stall(u32),
    /// The engine ends the nth operation that ever started, live or not.
    Ended(usize),
    Close,
}

fn member() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["id", "type", "payload", "query", "extensions", "resume", "x"]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "1",
            "\"\"",
            "\"1\"",
            "{}",
            "[]",
            "\"ping\"",
            "\"subscribe\"",
            "\"\\ud800\"",
            "1e999",
            r#"{"query":"q"}"#,
            r#"{"query":"q","variables":{"a":[1]},"extensions":{"resume":{"after":"t"}}}"#,
            "\"",
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| Value::string(text).to_json()),
    ];
    (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"))
}

fn text() -> impl Strategy<Value = String> {
    let id = prop::sample::select(vec!["1", "2", "3", "é\\n"]);
    prop_oneof![
        2 => Just(r#"{"type":"connection_init"}"#.to_owned()),
        8 => id.clone().prop_map(|id| format!(r#"{{"id":"{id}","type":"subscribe","payload":{{"query":"q"}}}}"#)),
        4 => id.prop_map(|id| format!(r#"{{"id":"{id}","type":"complete"}}"#)),
        2 => Just(r#"{"type":"ping","payload":{"a":[1.5,"é"]}}"#.to_owned()),
        2 => Just(r#"{"type":"pong"}"#.to_owned()),
        1 => prop::collection::vec(member(), 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        1 => any::<String>(),
        1 => any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => text().prop_map(Step::Text),
        1 => Just(Step::Binary),
        20 => Just(Step::Acknowledge),
        1 => Just(Step::Refuse),
        4 => (0..8_000u32).prop_map(Step::Pass),
        2 => (0..8_000u32).prop_map(Step::Stall),
        8 => (0..12usize).prop_map(Step::Ended),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: no panic, ids are counted exactly, a close is final and its reason fits, what is sent is JSON.
    #[test]
    fn random_peers(ready in any::<bool>(), steps in prop::collection::vec(step(), 0..60)) {
        let mut now = Instant::now();
        let mut protocol = Protocol::new(Settings { max_operations: 3, ..SETTINGS }, now);
        let (mut started, mut live) = (Vec::<Arc<str>>::new(), Vec::<Arc<str>>::new());
        let mut closed = false;
        if ready {
            protocol.receive(Frame::Text(r#"{"type":"connection_init"}"#), now);
            protocol.acknowledge(None, now);
        }
        for step in steps {
            let action = match step {
                Step::Text(text) => protocol.receive(Frame::Text(&text), now),
                Step::Binary => protocol.receive(Frame::Binary, now),
                Step::Acknowledge => protocol.acknowledge(None, now),
                Step::Refuse => protocol.refuse(),
                Step::Close => protocol.close(Close::SLOW_CONSUMER),
                Step::Stall(millis) => {
                    now += Duration::from_millis(millis.into());
                    None
                }
                Step::Pass(millis) => {
                    now += Duration::from_millis(millis.into());
                    let action = protocol.tick(now);
                    prop_assert!(protocol.deadline().is_none_or(|deadline| deadline > now));
                    prop_assert_eq!(protocol.tick(now), None);
                    action
                }
                Step::Ended(nth) => {
                    if let Some(id) = started.get(nth) {
                        let at = live.iter().position(|own| Arc::ptr_eq(own, id));
                        prop_assert_eq!(protocol.ended(id), at.is_some());
                        at.map(|at| live.remove(at));
                    }
                    None
                }
            };
            prop_assert!(!closed || action.is_none(), "after the close: {action:?}");
            match action {
                None => {}
                Some(Action::Send(text) | Action::Refuse(text)) => prop_assert!(Value::parse(text.as_bytes()).is_ok(), "{text}"),
                Some(Action::Refresh(number, payload)) => {
                    prop_assert!(payload.as_object().is_some() && protocol.is_refreshing(number));
                }
                Some(Action::Authenticate(payload)) => prop_assert!(payload.as_object().is_some()),
                Some(Action::Subscribe(subscribe)) => {
                    prop_assert!(protocol.is_acknowledged() && !subscribe.id.is_empty());
                    prop_assert!(!live.contains(&subscribe.id));
                    started.push(Arc::clone(&subscribe.id));
                    live.push(subscribe.id);
                }
                Some(Action::Complete(id)) => {
                    let at = live.iter().position(|own| Arc::ptr_eq(own, &id));
                    prop_assert!(at.is_some());
                    at.map(|at| live.remove(at));
                }
                Some(Action::Close(close)) => {
                    prop_assert!(close.reason().len() < 123);
                    closed = true;
                    live.clear();
                }
            }
            prop_assert!(live.len() <= 3);
            prop_assert_eq!(protocol.operations(), live.len());
            prop_assert_eq!(protocol.deadline().is_none(), closed);
        }
    }
}
