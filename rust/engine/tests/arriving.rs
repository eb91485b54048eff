//! Subscribes that wait for the bus: when they are live, what is said meanwhile, and what is left behind by those who do not wait.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/limits.rs"]
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use fraiseql_subs_engine::accounts::Revocation;
use fraiseql_subs_engine::bus::{BoxFuture, BusError, EventBus, MemoryBus, Page, Published, Receiver, Status, Watched};
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::delivery::{Call, Generation, Notify, Resolver};
use fraiseql_subs_engine::event::{Audience, Event, Position};
use fraiseql_subs_engine::graphql::{Schema, SchemaInput};
use fraiseql_subs_engine::operators::audit;
use fraiseql_subs_engine::parts::Parts;
use fraiseql_subs_engine::sessions::protocol::Frame;
use fraiseql_subs_engine::sessions::{Connection, Offer, Outgoing, Sessions};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use limits::limits;

/// A memory bus that is as far away as the test wants.
struct Distant {
    memory: MemoryBus,
    /// Channels are handed over.
    live: watch::Sender<bool>,
    connected: AtomicBool,
    watched: Mutex<Vec<Arc<str>>>,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl EventBus for Distant {
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>> {
        self.memory.connect(receiver)
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        self.memory.disconnect()
    }

    fn publish(&self, events: Vec<Event>) -> Published {
        self.memory.publish(events)
    }

    fn revoke(&self, revocation: &Arc<Revocation>) -> Published {
        self.memory.revoke(revocation)
    }

    fn watch(&self, channel: &Arc<str>) -> Watched {
        self.watched.lock().push(channel.clone());
        if *self.live.borrow() {
            return self.memory.watch(channel);
        }
        let (mut live, end) = (self.live.subscribe(), self.memory.position().unwrap().offset);
        Watched::Later(Box::pin(async move {
            live.wait_for(|live| *live).await.unwrap();
            end
        }))
    }

    fn unwatch(&self, channel: &Arc<str>) {
        self.watched.lock().retain(|watched| watched != channel);
    }

    fn position(&self) -> Option<Position> {
        self.memory.position()
    }

    fn read<'a>(&'a self, channel: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Page, BusError>> {
        self.memory.read(channel, after, limit)
    }

    fn status(&self) -> Status {
        Status { connected: self.connected.load(SeqCst), ..self.memory.status() }
    }

    fn patience(&self) -> Duration {
        PATIENCE
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

impl Resolver for Silent {
    fn call(&self, _call: Call) {}

    fn generate(&self, _generation: Arc<Generation>) {}

    fn abandon(&self, _key: u64) {}
}

struct House {
    bus: Arc<Distant>,
    sessions: Arc<Sessions>,
    connection: Arc<Connection>,
}

impl House {
    /// An acknowledged connection of an engine whose bus is connected, and hands no channel over yet.
    async fn open() -> House {
        let schema = Schema::build(SchemaInput {
            sdl: "type Query { _empty: Boolean } type Subscription { ticks: Tick } type Tick { n: Int }".into(),
            declarations: serde_json::from_value(json!([
                { "field": "ticks", "function": "app.ticks", "kind": "passthrough", "channel": "ticks" }
            ]))
            .unwrap(),
            ..SchemaInput::default()
        });
        let bus = Arc::new(Distant {
            memory: MemoryBus::new(100),
            live: watch::Sender::new(false),
            connected: AtomicBool::new(true),
            watched: Mutex::default(),
        });
        let parts = Parts::new(schema.unwrap(), bus.clone(), limits(), false, Arc::new(Silent), Clock::system());
        let sessions = Sessions::new(parts, Arc::new(Silent), tokio::runtime::Handle::current());
        sessions.start().await.unwrap();
        let connection = Connection::open(
            &sessions,
            Arc::new(Silent),
            Offer { introspection: false, authenticates: false, host: None },
        );
        let house = House { bus, sessions, connection };
        let question = house.connection.receive(Frame::Text(r#"{"type":"connection_init"}"#)).unwrap();
        house.connection.answered(question.number, Ok(Viewer::default()));
        assert_eq!(house.sent().len(), 1);
        house
    }

    fn say(&self, message: &serde_json::Value) {
        assert!(self.connection.receive(Frame::Text(&message.to_string())).is_none());
    }

    fn subscribe(&self, id: &str, extensions: &serde_json::Value) {
        let payload = json!({ "query": "subscription { ticks { n } }", "extensions": extensions });
        self.say(&json!({ "id": id, "type": "subscribe", "payload": payload }));
    }

    fn ping(&self) {
        self.say(&json!({ "type": "ping" }));
    }

    /// What has been sent since: the type of each message, and the code of an error.
    fn sent(&self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(outgoing) = self.connection.next() {
            let Outgoing::Text(text) = outgoing else { panic!("{outgoing:?}") };
            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
            let code = message["payload"][0]["extensions"]["code"].as_str().map(str::to_owned);
            let n = message["payload"]["data"]["ticks"]["n"].as_i64().map(|n| n.to_string());
            let detail = code.or(n).map_or_else(String::new, |detail| format!(" {detail}"));
            sent.push(format!("{}{detail}", message["type"].as_str().unwrap()));
        }
        sent
    }

    async fn publish(&self, n: i64) {
        let event = Event {
            id: Event::new_id(),
            event_type: "tick".into(),
            channel: "ticks".into(),
            audience: Audience::Tenant(None),
            source: None,
            published_at: chrono::Utc::now(),
            data: Value::Object([("n".into(), Value::Int(n))].into_iter().collect()),
            size: 7,
            previous: None,
            position: Position::default(),
        };
        assert!(matches!(self.sessions.engine.publish(vec![event]), Ok(Published::Now)));
        self.settle().await;
    }

    /// Lets everything run that can.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

/// Time stands still, and goes on at once to the next thing that waits for it.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_pong_proves_that_an_earlier_subscribe_is_live() {
    run(async {
        let house = House::open().await;
        house.subscribe("1", &json!({}));
        house.ping();
        house.settle().await;
        assert_eq!(house.sent(), [""; 0]);
        house.bus.live.send_replace(true);
        house.settle().await;
        assert_eq!(house.sent(), ["pong"]);
        house.publish(1).await;
        assert_eq!(house.sent(), ["next 1"]);
    });
}

#[test]
fn a_pong_does_not_wait_for_a_bus_that_is_away() {
    run(async {
        let house = House::open().await;
        house.bus.connected.store(false, SeqCst);
        house.subscribe("1", &json!({}));
        house.ping();
        assert_eq!(house.sent(), ["pong"]);
        tokio::time::sleep(PATIENCE - Duration::from_millis(1)).await;
        assert_eq!(house.sent(), [""; 0]);
        tokio::time::sleep(Duration::from_millis(2)).await;
        house.settle().await;
        assert_eq!(house.sent(), ["error BUS_UNAVAILABLE"]);
        assert!(house.bus.watched.lock().is_empty());
    });
}

#[test]
fn a_pong_does_not_wait_long_for_a_bus_that_does_not_answer() {
    run(async {
        let house = House::open().await;
        house.subscribe("1", &json!({}));
        house.ping();
        tokio::time::sleep(Duration::from_millis(1001)).await;
        house.settle().await;
        assert_eq!(house.sent(), ["pong"]);
        // It still becomes live.
        house.bus.live.send_replace(true);
        house.settle().await;
        house.publish(1).await;
        assert_eq!(house.sent(), ["next 1"]);
    });
}

#[test]
fn a_refusal_stands_before_what_waited_for_it() {
    run(async {
        let house = House::open().await;
        let epoch = house.bus.position().unwrap().epoch;
        house.subscribe("1", &json!({ "resume": { "after": Position { epoch, offset: 77 }.token() } }));
        house.ping();
        assert_eq!(house.sent(), [""; 0]);
        house.bus.live.send_replace(true);
        house.settle().await;
        assert_eq!(house.sent(), ["error HISTORY_LOST", "pong"]);
    });
}

#[test]
fn who_does_not_wait_leaves_nothing_behind() {
    run(async {
        let house = House::open().await;
        house.subscribe("1", &json!({}));
        house.ping();
        house.settle().await;
        assert_eq!(house.bus.watched.lock().len(), 1);
        house.say(&json!({ "id": "1", "type": "complete" }));
        house.settle().await;
        assert_eq!(house.sent(), ["pong"]);
        assert!(house.bus.watched.lock().is_empty());
        house.bus.live.send_replace(true);
        house.publish(1).await;
        assert_eq!(house.sent(), [""; 0]);
        // The same id may be used again, and hears of what comes.
        house.subscribe("1", &json!({}));
        house.publish(2).await;
        assert_eq!(house.sent(), ["next 2"]);
    });
}

#[test]
fn what_was_missed_while_waiting_is_given_once() {
    run(async {
        let house = House::open().await;
        house.publish(1).await;
        let token = house.bus.position().unwrap().token();
        house.publish(2).await;
        house.subscribe("1", &json!({ "resume": { "after": token } }));
        house.publish(3).await;
        house.bus.live.send_replace(true);
        house.settle().await;
        house.publish(4).await;
        house.settle().await;
        assert_eq!(house.sent(), ["next 2", "next 3", "next 4"]);
    });
}
