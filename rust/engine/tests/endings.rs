//! How readers end when the engine stops, or their socket goes, at the worst moment.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/limits.rs"]
mod limits;

use std::sync::{Arc, OnceLock};

use fraiseql_subs_engine::bus::MemoryBus;
use fraiseql_subs_engine::delivery::mailbox::Notify;
use fraiseql_subs_engine::delivery::resolver::{Call, Generation, Resolver};
use fraiseql_subs_engine::engine::{Engine, Parts};
use fraiseql_subs_engine::error::Rejection;
use fraiseql_subs_engine::graphql::operation::Request;
use fraiseql_subs_engine::graphql::schema::{Schema, SchemaInput};
use fraiseql_subs_engine::operators::audit;
use fraiseql_subs_engine::sessions::connection::{Connection, Offer};
use fraiseql_subs_engine::sessions::protocol::Resume;
use fraiseql_subs_engine::sessions::stream::{Ask, Framing, OpenError, Stream};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use serde_json::json;

use limits::limits;

/// Stops the engine from another thread while a generator is being started.
#[derive(Default)]
struct Stopper(OnceLock<Arc<Engine>>);

impl Resolver for Stopper {
    fn call(&self, _call: Call) {}

    fn generate(&self, _generation: Arc<Generation>) {
        let engine = self.0.get().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| runtime().block_on(engine.stop(false)));
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

const OFFER: Offer = Offer { introspection: false, authenticates: false };

/// An audit trail that nobody reads.
struct Unread;

impl audit::Writer for Unread {
    fn write(&self, _record: audit::Record) {}

    fn warn(&self, _text: String) {}
}

fn engine(resolver: Arc<dyn Resolver>, runtime: &tokio::runtime::Runtime) -> Arc<Engine> {
    let declarations = json!([{ "field": "numbers", "function": "app.numbers", "kind": "generator" }]);
    let schema = Schema::build(SchemaInput {
        sdl: "type Query { _empty: Boolean } type Subscription { numbers: Int }".into(),
        declarations: serde_json::from_value(declarations).unwrap(),
        ..SchemaInput::default()
    });
    let bus = Arc::new(MemoryBus::new(0));
    let parts = Parts::new(schema.unwrap(), bus, limits(), false, Arc::new(Unread));
    let engine = Engine::new(parts, resolver, runtime.handle().clone());
    runtime.block_on(engine.start()).unwrap();
    engine
}

#[test]
fn a_stop_in_the_middle_of_a_subscribe_leaves_no_reader_behind() {
    let runtime = runtime();
    let resolver = Arc::new(Stopper::default());
    let engine = engine(resolver.clone(), &runtime);
    let _ = resolver.0.set(engine.clone());
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
        authorisation: engine.parts.revocations.begin(),
    };
    let refused = Stream::open(&engine, &ask, Arc::new(Silent)).err();
    assert!(matches!(refused, Some(OpenError::Rejected(Rejection::Stopped))), "{refused:?}");
    assert!(engine.parts.metrics.prometheus().contains("fraiseql_subs_subscriptions 0"));
}

#[test]
fn a_socket_that_is_gone_leaves_no_alarm_behind() {
    let runtime = runtime();
    let engine = engine(Arc::new(Stopper::default()), &runtime);
    let connection = Connection::open(&engine, Arc::new(Silent), OFFER);
    assert_eq!(
        Arc::weak_count(&connection),
        3,
        "its alarm, its place among those that are pending, and for revocations"
    );
    connection.lost();
    assert_eq!((Arc::weak_count(&connection), Arc::strong_count(&connection)), (0, 1));
}
