//! Who hears of an event in a group with few or many plans and resolve classes, while they come and go, against a list of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/cases.rs"]
mod cases;
#[path = "common/limits.rs"]
mod limits;

use std::sync::{Arc, Weak};

use cases::config;
use fraiseql_subs_engine::bus::{MemoryBus, Published};
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::delivery::{self, Call, Generation, Notify, Reading, Resolver};
use fraiseql_subs_engine::engine::Resume;
use fraiseql_subs_engine::event::{Audience, Event, Position};
use fraiseql_subs_engine::graphql::{
    Budget, Found, Host, ReadField, ReadObject, ReadType, Request, Schema, SchemaInput,
};
use fraiseql_subs_engine::limits::Limits;
use fraiseql_subs_engine::operators::audit;
use fraiseql_subs_engine::parts::Parts;
use fraiseql_subs_engine::sessions::{Ask, Delivery, Framing, Sessions, Stream};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use limits::limits;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

/// Functions that are at work.
#[derive(Default)]
struct Calls(Mutex<Vec<Call>>);

impl Resolver for Calls {
    fn call(&self, call: Call) {
        self.0.lock().push(call);
    }

    fn generate(&self, _generation: Arc<Generation>) {}

    fn abandon(&self, _key: u64) {}
}

impl Calls {
    /// Each gives the event's number. Returns how many there were.
    fn finish(&self) -> usize {
        let calls = std::mem::take(&mut *self.0.lock());
        let count = calls.len();
        for call in calls {
            let n = call.event.data.get("n").cloned().unwrap_or_default();
            let reader: Weak<dyn delivery::Resume> = Weak::<Nobody>::new();
            let mut reading = Reading::<_, ()>::new(n, call.returned(&reader)).unwrap();
            while reading.read(&mut Leaves, &reader) {}
            assert!(reading.is_done());
        }
        count
    }
}

/// Whom nothing has to be told.
struct Nobody;

impl delivery::Resume for Nobody {
    fn resume(&self, _at: usize) {}
}

/// Results are leaves.
struct Leaves;

impl Host for Leaves {
    type Object = Value;
    type Items = ();

    fn another(&self, object: &Value) -> Value {
        object.clone()
    }

    fn read(&mut self, object: &Value, _ty: &ReadType, _room: Budget) -> Found<Leaves> {
        Found::Value(object.clone())
    }

    fn field(&mut self, _object: &Value, _of: &ReadObject, _field: &ReadField) -> Result<Option<Value>, Value> {
        Ok(None)
    }

    fn next(&mut self, _items: &mut ()) -> Option<Result<Value, Value>> {
        None
    }

    fn discard(&mut self, _awaitable: Value) {}

    fn start(&mut self, _awaitable: Value) -> usize {
        0
    }
}

struct Silent;

impl Notify for Silent {
    fn notify(&self) {}
}

impl audit::Writer for Silent {
    fn write(&self, _record: audit::Record) {}

    fn warn(&self, _text: String) {}
}

/// A passthrough, a function, and one that takes `info`.
const FIELDS: [&str; 3] = ["plain", "made", "watched"];

struct House {
    sessions: Arc<Sessions>,
    calls: Arc<Calls>,
    runtime: tokio::runtime::Runtime,
    last: usize,
}

impl House {
    fn open(limits: Limits) -> House {
        let declarations = json!([
            { "field": "plain", "function": "app.plain", "kind": "passthrough", "channel": "c" },
            { "field": "made", "function": "app.made", "channel": "c" },
            { "field": "watched", "function": "app.watched", "channel": "c", "takes_info": true },
        ]);
        let sdl = "type Query { _empty: Boolean } type Subscription { plain: Plain made: Int watched: Int } type Plain { n: Int }";
        let schema = Schema::build(SchemaInput {
            sdl: sdl.into(),
            declarations: serde_json::from_value(declarations).unwrap(),
            ..SchemaInput::default()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bus = Arc::new(MemoryBus::new(0));
        let parts = Parts::new(schema.unwrap(), bus, limits, false, Arc::new(Silent), Clock::system());
        let calls = Arc::new(Calls::default());
        let sessions = Sessions::new(parts, calls.clone(), runtime.handle().clone());
        runtime.block_on(sessions.start()).unwrap();
        House { sessions, calls, runtime, last: 0 }
    }

    fn subscribe(&mut self, member: Member) -> Arc<Stream> {
        self.last += 1;
        let Member { field, alias, viewer } = member;
        let inner = if field == 0 { " { n }" } else { "" };
        let query = format!("subscription {{ a{alias}: {}{inner} }}", FIELDS[field]);
        let variables = Value::Null;
        let ask = Ask {
            request: Request { query: &query, operation_name: None, variables: &variables, introspection: false },
            viewer: Arc::new(Viewer { key: viewer.to_string().into(), ..Viewer::default() }),
            id: self.last.to_string().into(),
            connection_id: None,
            framing: Framing::Result,
            resume: Resume::No,
            authorisation: self.sessions.engine.parts.revocations.begin(),
        };
        Stream::open(&self.sessions, &ask, Arc::new(Silent)).unwrap().0
    }

    fn publish(&self, n: i64) {
        let event = Event {
            id: Event::new_id(),
            event_type: "e".into(),
            channel: "c".into(),
            audience: Audience::Tenant(None),
            source: None,
            published_at: chrono::Utc::now(),
            data: Value::Object([("n".into(), Value::Int(n))].into_iter().collect()),
            size: 7,
            previous: None,
            position: Position::default(),
        };
        let _runtime = self.runtime.enter();
        assert!(matches!(self.sessions.engine.publish(vec![event]), Ok(Published::Now)));
    }
}

/// What a member asks for.
#[derive(Clone, Copy, Debug)]
struct Member {
    field: usize,
    alias: usize,
    viewer: usize,
}

impl Member {
    fn message(self, n: i64) -> String {
        let Member { field, alias, .. } = self;
        if field == 0 {
            format!("{{\"data\":{{\"a{alias}\":{{\"n\":{n}}}}}}}")
        } else {
            format!("{{\"data\":{{\"a{alias}\":{n}}}}}")
        }
    }
}

fn taken(stream: &Stream) -> Vec<String> {
    let message = |delivery| match delivery {
        Delivery::Message(text) => text,
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| stream.take()).map(message).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Join(Member),
    Leave(prop::sample::Index),
    LeaveMany(u8),
    Publish,
}

fn step(aliases: usize, viewers: usize) -> impl Strategy<Value = Step> {
    let member =
        (0..FIELDS.len(), 0..aliases, 0..viewers).prop_map(|(field, alias, viewer)| Member { field, alias, viewer });
    prop_oneof![
        12 => member.prop_map(Step::Join),
        3 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::LeaveMany),
        2 => Just(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 8, ..config() })]

    #[test]
    fn everybody_in_a_group_is_given_his_own_form_once(
        steps in prop_oneof![
            prop::collection::vec(step(3, 2), 1..60),
            prop::collection::vec(step(40, 4), 1..200),
        ],
        is_limited in any::<bool>(),
    ) {
        // Where events are limited, every class is asked before anything is done for it.
        let events_per_second_per_subscription = is_limited.then_some(1e6);
        let mut house = House::open(Limits { events_per_second_per_subscription, ..limits() });
        let mut members: Vec<(Member, Arc<Stream>)> = Vec::new();
        for (n, step) in steps.into_iter().chain([Step::Publish]).enumerate() {
            match step {
                Step::Join(member) => {
                    let stream = house.subscribe(member);
                    members.push((member, stream));
                }
                Step::Leave(at) if !members.is_empty() => members.swap_remove(at.index(members.len())).1.close(),
                Step::LeaveMany(seed) => {
                    let leaves = |at: usize| !(at * 31 + usize::from(seed)).is_multiple_of(8);
                    for at in (0..members.len()).rev().filter(|at| leaves(*at)) {
                        members.swap_remove(at).1.close();
                    }
                }
                Step::Leave(_) => {}
                Step::Publish => {
                    let n = n as i64;
                    house.publish(n);
                    let mut classes: Vec<_> = members.iter().filter_map(|(member, _)| match member.field {
                        0 => None,
                        1 => Some((0, 0)),
                        _ => Some((member.viewer + 1, 1)),
                    }).collect();
                    classes.sort_unstable();
                    classes.dedup();
                    prop_assert_eq!(house.calls.finish(), classes.len());
                    for (member, stream) in &members {
                        prop_assert_eq!(taken(stream), [member.message(n)]);
                    }
                }
            }
        }
        for (_, stream) in members.drain(..) {
            stream.close();
        }
        house.publish(0);
        prop_assert_eq!(house.calls.finish(), 0);
    }
}
