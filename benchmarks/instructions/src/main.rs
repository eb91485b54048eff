//! Fixed cases of the engine, whose instructions `run.py` counts under valgrind.
//!
//! Without arguments the program lists the cases; with a case's name it runs that case. A case does its operation many times, each time
//! by way of [`measured`], the only function in which valgrind counts. Before each operation the case makes what the operation needs;
//! afterwards it checks the outcome and clears it away. Counts are compared over months, so a case never changes: add one with
//! another name.
#![expect(clippy::unwrap_used, reason = "a case that cannot go on has nothing to count")]

use std::hint::black_box;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use apollo_compiler::ExecutableDocument;
use chrono::{DateTime, Utc};
use fraiseql_subs_engine::accounts::{Accounts, Seat};
use fraiseql_subs_engine::admission::{Admission, Admitted};
use fraiseql_subs_engine::bus::MemoryBus;
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::delivery::{Body, Call, Generation, Mailbox, Notify, Outbox, Resolver, Subscription, Taken};
use fraiseql_subs_engine::engine::{Resume, Start, Started};
use fraiseql_subs_engine::event::{Audience, Event, Position};
use fraiseql_subs_engine::graphql::{self, Request, Schema, SchemaInput, Source, project};
use fraiseql_subs_engine::limits::{Limits, Overflow};
use fraiseql_subs_engine::operators::{Ended, Metrics, audit};
use fraiseql_subs_engine::parts::Parts;
use fraiseql_subs_engine::sessions::protocol::{Action, Frame, Protocol, Settings};
use fraiseql_subs_engine::sessions::{Connection, Offer, Outgoing, Sessions};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use house::{House, Silent, acknowledged, event, order, page, schema, value};

mod house;
/// The limits of the engine's own tests.
#[path = "../../../rust/engine/tests/common/limits.rs"]
mod limits;

// ---- The cases ----

/// Its name, how many houses it builds, how many operations are counted in each, and the case itself. The hash tables of each house
/// have their own seeds, and the cost of a lookup depends on the seed. Cases where that shows build many houses.
type Case = (&'static str, usize, usize, fn(Counter));

const CASES: [Case; 15] = [
    ("publish-among-1", 1, 1_000, |counter| publish(counter, 1)),
    ("publish-among-10000", 4, 250, |counter| publish(counter, 10_000)),
    ("publish-matches-nothing-of-10000", 8, 125, publish_matches_nothing),
    ("publish-to-100-equal", 1, 100, publish_to_100_equal),
    ("project-object", 1, 1_000, |counter| project_data(counter, ORDER, &order(1))),
    ("project-20-rows", 1, 1_000, |counter| project_data(counter, PAGE, &page())),
    ("push-and-take", 1, 1_000, push_and_take),
    ("subscribe-equal", 100, 20, |counter| subscribe(counter, |_| 1)),
    ("subscribe-own-id", 100, 20, |counter| subscribe(counter, |n| n + 2)),
    ("frame-in-ping", 1, 1_000, frame_in_ping),
    ("frame-in-subscribe", 1, 1_000, frame_in_subscribe),
    ("frame-out", 1, 1_000, frame_out),
    ("coerce-variables", 1, 1_000, coerce_variables),
    ("plan-anew", 50, 20, plan_anew),
    ("new-document", 20, 20, new_document),
];

const ORDER: &str = "subscription Order($id: ID!) {
    orderUpdated(id: $id) { id status total note customer { id name email } }
}";

const PAGE: &str = "subscription Page {
    pageChanged { total rows { id status total note customer { id name email } } }
}";

const FOUND: &str = "subscription Found($filter: OrderFilter!, $first: Int) {
    ordersFound(filter: $filter, first: $first) { total rows { id } }
}";

/// An event for one of so many subscriptions, each with its own id.
fn publish(mut counter: Counter, subscriptions: usize) {
    let house = House::new();
    let _live: Vec<_> = (0..subscriptions).map(|id| house.subscribe(id)).collect();
    for n in counter.rounds() {
        let mut events = vec![event(n * 7_919 % subscriptions)];
        counter.count(&mut || house.publish(&mut events));
        assert_eq!(house.taken(), 1);
    }
}

fn publish_matches_nothing(mut counter: Counter) {
    let house = House::new();
    let _live: Vec<_> = (0..10_000).map(|id| house.subscribe(id)).collect();
    for n in counter.rounds() {
        let mut events = vec![event(10_000 + n)];
        counter.count(&mut || house.publish(&mut events));
        assert_eq!(house.taken(), 0);
    }
}

fn publish_to_100_equal(mut counter: Counter) {
    let house = House::new();
    let _live: Vec<_> = (0..100).map(|_| house.subscribe(1)).collect();
    for _ in counter.rounds() {
        let mut events = vec![event(1)];
        counter.count(&mut || house.publish(&mut events));
        assert_eq!(house.taken(), 100);
    }
}

fn project_data(mut counter: Counter, query: &str, data: &Json) {
    let (house, data) = (House::new(), value(data));
    let plan = house.admit(query, &value(&json!({ "id": "1" }))).operation.plan;
    for _ in counter.rounds() {
        let mut result = None;
        counter.count(&mut || result = Some(project(&plan, Source::Passthrough(&data), 65_536)));
        let json = result.unwrap().unwrap();
        assert!(json.contains("ada@example.com") && !json.contains("errors"), "{json}");
    }
}

fn push_and_take(mut counter: Counter) {
    let limits = limits::limits();
    let outbox = Outbox::new((&limits).into(), Arc::new(Silent));
    let mailbox =
        Mailbox::new("1".into(), false, Overflow::Disconnect, None, outbox.clone(), Arc::new(Metrics::default()));
    for _ in counter.rounds() {
        let mut body = Some(Arc::new(Body::new("{}".repeat(100), None, Instant::now())));
        let mut taken = None;
        counter.count(&mut || {
            mailbox.push(body.take().unwrap());
            outbox.listen();
            taken = outbox.take();
        });
        assert!(matches!(taken, Some((_, Taken::Next { .. }))));
    }
}

/// A known document, while a subscription to order 1 is live.
fn subscribe(mut counter: Counter, id: fn(usize) -> usize) {
    let house = House::new();
    let _live = house.subscribe(1);
    for n in counter.rounds() {
        let variables = value(&json!({ "id": id(n).to_string() }));
        let mut started = None;
        counter.count(&mut || started = Some(house.start(&variables)));
        started.unwrap().close(Ended::Client);
    }
}

fn frame_in_ping(mut counter: Counter) {
    let mut protocol = acknowledged();
    for _ in counter.rounds() {
        let mut action = None;
        let (frame, now) = (Frame::Text(r#"{"type":"ping"}"#), Instant::now());
        counter.count(&mut || action = protocol.receive(frame, now));
        assert!(matches!(action, Some(Action::Send(_))));
    }
}

fn frame_in_subscribe(mut counter: Counter) {
    let mut protocol = acknowledged();
    let payload = json!({ "query": ORDER, "variables": { "id": "1" }, "operationName": "Order" });
    for n in counter.rounds() {
        let frame = json!({ "id": format!("operation-{n}"), "type": "subscribe", "payload": payload }).to_string();
        let (mut action, now) = (None, Instant::now());
        counter.count(&mut || action = protocol.receive(Frame::Text(&frame), now));
        let Some(Action::Subscribe(subscribe)) = action else { panic!("{action:?}") };
        assert!(protocol.ended(&subscribe.id));
    }
}

/// A connection takes the frame of an event that waits.
fn frame_out(mut counter: Counter) {
    let house = House::new();
    let connection = Connection::open(
        &house.sessions,
        Arc::new(Silent),
        Offer { introspection: false, authenticates: false, host: None },
    );
    let question = connection.receive(Frame::Text(r#"{"type":"connection_init"}"#)).unwrap();
    connection.answered(question.number, Ok(Viewer::default()));
    let payload = json!({ "query": ORDER, "variables": { "id": "1" } });
    let frame = json!({ "id": "operation-1", "type": "subscribe", "payload": payload }).to_string();
    assert!(connection.receive(Frame::Text(&frame)).is_none());
    assert!(matches!(connection.next(), Some(Outgoing::Text(text)) if text.contains("connection_ack")));
    for _ in counter.rounds() {
        house.publish(&mut vec![event(1)]);
        connection.listen();
        let mut outgoing = None;
        counter.count(&mut || outgoing = connection.next());
        assert!(matches!(outgoing, Some(Outgoing::Text(text)) if text.contains("operation-1")));
    }
}

/// Variables with an input object, lists, an enum and defaults.
fn coerce_variables(mut counter: Counter) {
    let schema = schema();
    let document = ExecutableDocument::parse_and_validate(&schema.graphql, FOUND, "found.graphql").unwrap();
    let operation = document.operations.get(None).unwrap();
    let filter = json!({ "statuses": ["OPEN", "PAID"], "minTotal": 10, "customer": { "id": 7, "name": "Ada" } });
    let given = value(&json!({ "filter": filter, "first": 50 }));
    for _ in counter.rounds() {
        let (mut coerced, room) = (None, graphql::Room::new(usize::MAX));
        counter.count(&mut || coerced = Some(graphql::coerce_variables(&schema, operation, &document, &given, &room)));
        assert_eq!(coerced.unwrap().unwrap().len(), 2);
    }
}

/// A known document whose plan is no longer in use.
fn plan_anew(mut counter: Counter) {
    let house = House::new();
    for _ in counter.rounds() {
        let mut admission = None;
        counter.count(&mut || admission = Some(house.admit(PAGE, &Value::Null)));
        assert_eq!(Arc::strong_count(&admission.unwrap().operation.plan), 1);
    }
}

/// A document that nobody has sent before.
fn new_document(mut counter: Counter) {
    let house = House::new();
    let variables = value(&json!({ "id": "1" }));
    for n in counter.rounds() {
        let query = ORDER.replace("Order(", &format!("Order{n:04}("));
        counter.count(&mut || drop(black_box(house.admit(&query, &variables))));
        assert_eq!(house.sessions.engine.parts.gate.documents.parses(), n as u64 + 1);
    }
}

// ---- Counting ----

/// The first operations of a house are not counted: they fill caches and let queues grow.
const UNCOUNTED: usize = 16;

/// Counts the operations of a case.
struct Counter {
    counted: usize,
    done: usize,
}

impl Counter {
    fn new(counted: usize) -> Counter {
        Counter { counted, done: 0 }
    }

    /// One for each operation.
    fn rounds(&self) -> Range<usize> {
        0..UNCOUNTED + self.counted
    }

    fn count(&mut self, operation: &mut dyn FnMut()) {
        match self.done {
            0..UNCOUNTED => operation(),
            _ => measured(operation),
        }
        self.done += 1;
    }
}

/// Valgrind counts while this runs; `run.py` has its name.
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    operation();
    // Without this the call could become a jump, and valgrind would see this function end before the operation.
    black_box(());
}

fn main() -> ExitCode {
    let asked = std::env::args().nth(1);
    let Some(asked) = asked else {
        CASES.iter().for_each(|(name, houses, counted, _)| println!("{name}\t{}", houses * counted));
        return ExitCode::SUCCESS;
    };
    let Some((_, houses, counted, case)) = CASES.iter().find(|(name, ..)| *name == asked) else {
        eprintln!("expected the name of a case, got {asked:?}; without arguments this lists them");
        return ExitCode::FAILURE;
    };
    (0..*houses).for_each(|_| case(Counter::new(*counted)));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs() {
        for (.., case) in CASES {
            case(Counter::new(1));
        }
    }
}
