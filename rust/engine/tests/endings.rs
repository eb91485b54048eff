//! How readers end when the engine stops, or their socket goes, at the worst moment.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/limits.rs"]
mod limits;

use std::sync::{Arc, OnceLock};

use fraiseql_subs_engine::bus::MemoryBus;
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::delivery::{Call, Generation, Notify, Resolver};
use fraiseql_subs_engine::engine::Resume;
use fraiseql_subs_engine::error::Rejection;
use fraiseql_subs_engine::graphql::{Request, Schema, SchemaInput};
use fraiseql_subs_engine::operators::audit;
use fraiseql_subs_engine::parts::Parts;
use fraiseql_subs_engine::sessions::{Ask, Connection, Framing, Offer, OpenError, Sessions, Stream};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use serde_json::json;

use limits::limits;

/// Stops the engine from another thread while a generator is being started.
#[derive(Default)]
struct Stopper(OnceLock<Arc<Sessions>>);

impl Resolver for Stopper {
    fn call(&self, _call: Call) {}

    fn generate(&self, _generation: Arc<Generation>) {
        let sessions = self.0.get().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| runtime().block_on(sessions.stop(false)));
        });
    }

    fn abandon(&self, _key: u64) {}
}

struct Silent;

impl Notify for Silent {
    fn notify(&self) {}
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const OFFER: Offer = Offer { introspection: false, authenticates: false, host: None };

/// An audit trail that nobody reads.
struct Unread;

impl audit::Writer for Unread {
    fn write(&self, _record: audit::Record) {}

    fn warn(&self, _text: String) {}
}

fn sessions(resolver: Arc<dyn Resolver>, runtime: &tokio::runtime::Runtime) -> Arc<Sessions> {
    let declarations = json!([{ "field": "numbers", "function": "app.numbers", "kind": "generator" }]);
    let schema = Schema::build(SchemaInput {
        sdl: "type Query { _empty: Boolean } type Subscription { numbers: Int }".into(),
        declarations: serde_json::from_value(declarations).unwrap(),
        ..SchemaInput::default()
    });
    let bus = Arc::new(MemoryBus::new(0));
    let parts = Parts::new(schema.unwrap(), bus, limits(), false, Arc::new(Unread), Clock::system());
    let sessions = Sessions::new(parts, resolver, runtime.handle().clone());
    runtime.block_on(sessions.start()).unwrap();
    sessions
}

#[test]
fn a_stop_in_the_middle_of_a_subscribe_leaves_no_reader_behind() {
    let runtime = runtime();
    let resolver = Arc::new(Stopper::default());
    let sessions = sessions(resolver.clone(), &runtime);
    let _ = resolver.0.set(sessions.clone());
    let ask = Ask {
        request: Request {
            query: "subscription { numbers }",
            operation_name: None,
            variables: &Value::Null,
            introspection: false,
        },
        viewer: Arc::new(Viewer::default()),
        id: "1".into(),
        connection_id: None,
        framing: Framing::Next,
        resume: Resume::No,
        authorisation: sessions.engine.parts.revocations.begin(),
    };
    let refused = Stream::open(&sessions, &ask, Arc::new(Silent)).err();
    assert!(matches!(refused, Some(OpenError::Rejected(Rejection::Stopped))), "{refused:?}");
    assert!(sessions.engine.parts.metrics.prometheus().contains("fraiseql_subs_subscriptions 0"));
}

#[test]
fn a_socket_that_is_gone_leaves_no_alarm_behind() {
    let runtime = runtime();
    let sessions = sessions(Arc::new(Stopper::default()), &runtime);
    let connection = Connection::open(&sessions, Arc::new(Silent), OFFER);
    assert_eq!(
        Arc::weak_count(&connection),
        3,
        "its alarm, its place among those that are pending, and for revocations"
    );
    connection.lost();
    assert_eq!((Arc::weak_count(&connection), Arc::strong_count(&connection)), (0, 1));
}
