//! What becomes of a request: a document, its variables and its operation's name against a schema in which everything occurs.
//!
//! The input is the document's text; after a line `%%` the variables, after another the name.

use std::sync::{Arc, LazyLock};

use chrono::DateTime;
use fraiseql_subs_engine::admission::{Admission, Admitted, Gate};
use fraiseql_subs_engine::delivery::ClassKey;
use fraiseql_subs_engine::error::Module;
use fraiseql_subs_engine::error::{Rejection, code, errors_json};
use fraiseql_subs_engine::graphql::{Operation, Request, Schema, SchemaInput, Source, project};
use fraiseql_subs_engine::limits::Limits;
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;

const SDL: &str = r#"
    type Query { _empty: Boolean }
    type Subscription {
        order(id: ID! = 1, filter: Filter, tags: [String!] = ["a"], by: By, extra: JSON): Order
        number(int: Int, float: Float = 1, flag: Boolean, at: DateTime, day: Date, time: Time, price: Decimal, key: UUID, lists: [[Int!]]): Int
        node(id: ID!): Node
        found: [Found!]!
    }
    interface Node { id: ID! next(first: Int = 1): Node }
    type Order implements Node {
        id: ID! next(first: Int = 1, where: Filter): Node status: Status total(in: String = "EUR"): Float at: DateTime extra(path: JSON): JSON
        items: [Item!] customer: Customer strict: Customer! rows: [[Int]!]
    }
    type Customer implements Node { id: ID! next(first: Int = 1): Node name: String email: String! orders: [Order] }
    type Item { sku: ID! price: Decimal open: Boolean order: Order }
    union Found = Order | Customer | Item
    enum Status { OPEN PAID }
    input Filter { id: ID status: Status = OPEN nested: Filter all: [Filter!] minimum: Float since: DateTime extra: JSON = {a: [1]} }
    input By @oneOf { id: ID filter: Filter }
    scalar JSON scalar DateTime scalar Date scalar Time scalar Decimal scalar UUID
"#;

const DECLARATIONS: &str = r#"[
    {"field": "order", "function": "order", "channel": "orders:{id}", "event_types": ["made", "paid"], "takes_info": true,
     "where": ["&", ["|", ["is_null", ["argument", "filter", []]], ["==", ["data", ["status"]], ["argument", "filter", ["status"]]]],
               ["is_in", ["data", ["tag"]], ["argument", "tags", []]], [">=", ["data", ["total"]], ["argument", "filter", ["minimum"]]]],
     "rows": ["|", ["==", ["data", ["id"]], ["argument", "id", []]], ["~", ["==", ["data", ["extra"]], ["argument", "extra", []]]]]},
    {"field": "number", "function": "number", "channel": "numbers", "sources": ["a", "b"],
     "where": ["|", ["<", ["data", ["at"]], ["argument", "at", []]], ["contains", ["argument", "lists", []], ["data", ["row"]]]]},
    {"field": "node", "function": "node", "channel": "nodes", "kind": "sync", "requires": [["nodes"], ["all", "most"]],
     "scope": [{"argument": ["id"], "viewer": ["user_id"]}]},
    {"field": "found", "function": "found", "kind": "generator", "takes_info": true}
]"#;

const GUARDS: &str = r#"{"Customer.name": [["names"]], "Node.next": [["all"]], "Customer.email": [["names", "all"]]}"#;

const LIMITS: &str = r#"{
    "max_connections": 1, "max_connections_per_user": null, "max_connections_per_tenant": null, "max_pending_connections": 1,
    "max_subscriptions_per_connection": 1, "max_subscriptions_per_user": null, "max_subscriptions_per_tenant": null,
    "max_message_bytes": 1, "max_query_bytes": 65536, "max_query_tokens": 2000, "max_query_depth": 20, "max_query_fields": 1000,
    "max_query_aliases": 30,
    "max_argument_bytes": 262144, "max_subscription_bytes": 1048576, "max_connection_state_bytes": 8388608,
    "max_user_bytes": 67108864, "max_process_bytes": 1073741824, "messages_per_second": 100, "message_burst": 1000,
    "bytes_per_second": 262144, "connection_init_timeout": 1, "ping_interval": 1, "pong_timeout": 1, "subscribes_per_second": null,
    "burst": 1, "events_per_second_per_subscription": null, "events_per_second_per_user": null, "max_event_bytes": 1,
    "queue_messages": 1, "queue_bytes": 1, "connection_queue_bytes": 1, "overflow": "disconnect", "max_result_bytes": 4194304, "max_result_nodes": 100000,
    "resolver_concurrency": 1, "max_calls": 1000, "resolver_threads": 1, "drain_timeout": 1, "resolver_timeout": 1}"#;

const RESULT: &str = r#"{"id": 1, "status": "PAID", "total": 9.5, "at": "2026-01-01T00:00:00Z", "extra": {"a": [1, null]}, "rows": [[1, null], []],
    "items": [{"sku": "a", "price": "1.10", "open": true, "order": null}, {"__typename": "Item", "sku": null}],
    "customer": {"id": "c", "name": "é\"", "email": "e", "orders": [{"id": 1.5}, null]}, "strict": null}"#;

/// What a client is told of what is wrong with a request.
const CODES: [&str; 6] = [
    code::PARSE_FAILED,
    code::VALIDATION_FAILED,
    code::OPERATION_RESOLUTION_FAILURE,
    code::BAD_USER_INPUT,
    code::LIMIT_EXCEEDED,
    code::RESULT_TOO_LARGE,
];

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let input = SchemaInput {
        sdl: SDL.into(),
        declarations: serde_json::from_str(DECLARATIONS).expect("declarations"),
        requires: serde_json::from_str(GUARDS).expect("guards"),
        ..SchemaInput::default()
    };
    Schema::build(input).expect("a schema")
});

static LIMITS_PARSED: LazyLock<Limits> = LazyLock::new(|| serde_json::from_str(LIMITS).expect("limits"));

static RESULT_PARSED: LazyLock<Value> = LazyLock::new(|| Value::parse(RESULT.as_bytes()).expect("JSON"));

/// One request, by somebody who may nothing and somebody who may everything.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, "\n%%\n");
    let query = parts.next().unwrap_or_default();
    let variables = parts.next().and_then(|text| Value::parse(text.as_bytes()).ok()).unwrap_or_default();
    let operation_name = parts.next();
    let request = Request { query, operation_name, variables: &variables, introspection: true };
    for held in [&[] as &[&str], &["names", "all", "most", "nodes"]] {
        let permissions = held.iter().map(|permission| Box::from(*permission)).collect();
        let fields = Value::parse(br#"{"user_id": "1"}"#).expect("JSON");
        admit(&request, &Arc::new(Viewer { permissions, fields, ..Viewer::default() }));
    }
}

fn admit(request: &Request<'_>, viewer: &Arc<Viewer>) {
    let gates = [(); 2].map(|()| Gate::new(Arc::clone(&SCHEMA), &LIMITS_PARSED, false));
    let admit = |gate: &Gate| gate.admit(request, viewer, DateTime::UNIX_EPOCH);
    let first = admit(&gates[0]);
    // Known by now, and known to nobody.
    for (at, gate) in gates.iter().enumerate() {
        match (&first, &admit(gate)) {
            (Ok(Admitted::Subscription(first)), Ok(Admitted::Subscription(again))) => same(first, again, at == 0),
            (Ok(Admitted::Answer(first)), Ok(Admitted::Answer(again))) => assert_eq!(first, again),
            // It is made elsewhere, and has bounds of its own.
            (Ok(Admitted::Introspection(_)), Ok(Admitted::Introspection(_))) => {}
            (Err(first), Err(again)) => assert_eq!(first, again),
            (first, again) => panic!("{first:?} and {again:?}"),
        }
    }
    match &first {
        Ok(Admitted::Subscription(Admission { operation, .. })) => {
            assert!(!operation.arguments.has_nul() && !Value::Object(operation.variables.clone()).has_nul());
            assert_eq!(operation.channel.is_empty(), &*operation.field.name == "found");
            assert!(!operation.channel.contains(char::is_control));
            let holds = operation.channel.matches(':').count();
            assert!(holds <= 1, "an argument reaches beyond its place: {}", operation.channel);
            assert_is_json(&shown(operation));
        }
        Ok(Admitted::Answer(answer)) => assert_is_json(answer),
        Ok(Admitted::Introspection(_)) => {}
        // Whoever may everything is bound to his own id all the same.
        Err(Rejection::Forbidden(refusal)) => {
            assert!(!viewer.permissions.contains("all") || refusal.module == Some(Module::Scope), "{refusal:?}");
        }
        Err(rejection) => {
            let errors = rejection.errors();
            assert!(!errors.is_empty());
            assert_is_json(&errors_json(&errors));
            let lines = request.query.split(['\n', '\r']).count();
            for error in errors {
                assert!(CODES.contains(&&*error.code) && !error.message.is_empty(), "{error:?}");
                assert!(
                    error.locations.iter().all(|(line, column)| (1..=lines).contains(line) && *column > 0),
                    "{error:?}"
                );
            }
        }
    }
}

/// The same request by the same viewer is the same subscription.
fn same(first: &Admission, again: &Admission, same_gate: bool) {
    let [one, two] = [first, again].map(|admission| &admission.operation);
    assert_eq!(Arc::ptr_eq(&one.plan, &two.plan), same_gate, "equal requests at one gate share a plan");
    assert_eq!(
        (&one.name, &one.variables, &one.arguments, &one.channel),
        (&two.name, &two.variables, &two.arguments, &two.channel)
    );
    assert_eq!(ClassKey::of(one, &first.viewer).0, ClassKey::of(two, &again.viewer).0);
    assert_eq!((&one.plan.selected, &one.plan.masked, shown(one)), (&two.plan.selected, &two.plan.masked, shown(two)));
    assert_eq!(first.condition, again.condition);
}

/// What a client would see of a result.
fn shown(operation: &Operation) -> String {
    let projected = project(&operation.plan, Source::Passthrough(&RESULT_PARSED), LIMITS_PARSED.max_result_bytes);
    projected.unwrap_or_else(|error| format!("\"{error}\""))
}

fn assert_is_json(text: &str) {
    assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
}
