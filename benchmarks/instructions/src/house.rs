//! What the cases work with: an engine with a fixed schema, its events, and a reader. Nothing is counted here. The engine's paths are
//! imported in `main.rs`, all in one place.

use super::*;

/// An engine with a memory bus, and a reader without a connection.
pub(crate) struct House {
    pub(crate) sessions: Arc<Sessions>,
    outbox: Arc<Outbox>,
    viewer: Arc<Viewer>,
    seat: Arc<Seat>,
    /// Holds the engine's timers, and never runs them.
    _runtime: Runtime,
}

impl House {
    pub(crate) fn new() -> House {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limits = Limits { queue_messages: 1_000, ..limits::limits() };
        let (outbox, bus) = (Outbox::new((&limits).into(), Arc::new(Silent)), Arc::new(MemoryBus::new(0)));
        let parts = Parts::new(schema(), bus, limits, false, Arc::new(Silent), Clock::system());
        let sessions = Sessions::new(parts, Arc::new(Silent), runtime.handle().clone());
        runtime.block_on(sessions.start()).unwrap();
        let seat = Seat::new(Accounts::default(), &sessions.engine.parts.quotas.subscriptions);
        House { sessions, outbox, viewer: Arc::default(), seat, _runtime: runtime }
    }

    pub(crate) fn subscribe(&self, id: usize) -> Arc<Subscription> {
        self.start(&value(&json!({ "id": id.to_string() })))
    }

    pub(crate) fn start(&self, variables: &Value) -> Arc<Subscription> {
        let started = self.sessions.engine.subscribe(&Start {
            request: request(ORDER, variables),
            viewer: &self.viewer,
            seat: &self.seat,
            id: &Arc::from("operation-1"),
            resume: &Resume::No,
            outbox: &self.outbox,
            connection_id: None,
            host: None,
        });
        let Ok(Started::Live(subscription)) = started else { panic!("it is not live") };
        subscription
    }

    pub(crate) fn admit(&self, query: &str, variables: &Value) -> Admission {
        let admitted = self.sessions.engine.parts.gate.admit(&request(query, variables), &self.viewer, MOMENT);
        let Ok(Admitted::Subscription(admission)) = admitted else { panic!("{admitted:?}") };
        admission
    }

    pub(crate) fn publish(&self, events: &mut Vec<Event>) {
        black_box(self.sessions.engine.publish(std::mem::take(events)).unwrap());
    }

    /// Takes what waits.
    pub(crate) fn taken(&self) -> usize {
        self.outbox.listen();
        std::iter::from_fn(|| self.outbox.take()).count()
    }
}

const MOMENT: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn request<'a>(query: &'a str, variables: &'a Value) -> Request<'a> {
    Request { query, operation_name: None, variables, introspection: false }
}

const SDL: &str = "
    type Query { _empty: Boolean }
    type Subscription {
        orderUpdated(id: ID!): Order
        pageChanged: Page
        ordersFound(filter: OrderFilter!, first: Int = 20): Page
    }
    type Order { id: ID!, status: Status!, total: Float!, note: String, customer: Customer! }
    type Customer { id: ID!, name: String!, email: String }
    type Page { total: Int!, rows: [Order!]! }
    enum Status { OPEN PAID SHIPPED }
    input OrderFilter { statuses: [Status!], minTotal: Float, customer: CustomerFilter, tags: [String!] = [\"web\", \"shop\"] }
    input CustomerFilter { id: ID, name: String }
";

pub(crate) fn schema() -> Arc<Schema> {
    let by_id = json!(["==", ["data", ["id"]], ["argument", "id", []]]);
    let declarations = json!([
        { "field": "orderUpdated", "function": "order", "kind": "passthrough", "channel": "orders", "where": by_id },
        { "field": "pageChanged", "function": "page", "kind": "passthrough", "channel": "pages" },
        { "field": "ordersFound", "function": "found", "kind": "passthrough", "channel": "pages" },
    ]);
    let declarations = serde_json::from_value(declarations).unwrap();
    Schema::build(SchemaInput { sdl: SDL.into(), declarations, ..SchemaInput::default() }).unwrap()
}

pub(crate) fn order(id: usize) -> Json {
    let customer = json!({ "id": 7, "name": "Ada Lovelace", "email": "ada@example.com" });
    json!({ "id": id, "status": "PAID", "total": 129.5, "note": "Ring \"twice\"", "customer": customer })
}

pub(crate) fn page() -> Json {
    json!({ "total": 20, "rows": (1..=20).map(order).collect::<Vec<_>>() })
}

pub(crate) fn event(id: usize) -> Event {
    let data = order(id);
    Event {
        id: "0197f2d4c1b87d3c9a51e6f0b2d4a678".into(),
        event_type: "updated".into(),
        channel: "orders".into(),
        audience: Audience::Tenant(None),
        source: None,
        published_at: MOMENT,
        size: data.to_string().len(),
        data: value(&data),
        previous: None,
        position: Position::default(),
    }
}

pub(crate) fn value(json: &Json) -> Value {
    Value::parse(json.to_string().as_bytes()).unwrap()
}

pub(crate) fn acknowledged() -> Protocol {
    let mut protocol = Protocol::new(Settings::new(&limits::limits(), false), Instant::now());
    protocol.receive(Frame::Text(r#"{"type":"connection_init"}"#), Instant::now());
    assert!(matches!(protocol.acknowledge(None, Instant::now()), Some(Action::Send(_))));
    protocol
}

/// Does nothing: readers take without being woken, nobody reads the audit trail, and no function is called.
pub(crate) struct Silent;

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
