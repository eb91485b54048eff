use super::*;

pub(crate) fn limits() -> Limits {
    serde_json::from_str(
        r#"{"max_connections": 10000, "max_connections_per_user": 100, "max_connections_per_tenant": null,
        "max_pending_connections": 1000, "max_subscriptions_per_connection": 100, "max_subscriptions_per_user": 1000,
        "max_subscriptions_per_tenant": null, "max_message_bytes": 262144, "max_query_bytes": 65536, "max_query_tokens": 2000,
        "max_query_depth": 20, "max_query_fields": 1000, "max_query_aliases": 30, "max_argument_bytes": 262144,
        "max_subscription_bytes": 1048576, "max_connection_state_bytes": 8388608, "max_user_bytes": 67108864,
        "max_process_bytes": 1073741824, "messages_per_second": 100, "message_burst": 1000, "bytes_per_second": 262144, "connection_init_timeout": 10, "ping_interval": 25,
        "pong_timeout": 10, "subscribes_per_second": 50, "burst": 200, "events_per_second_per_subscription": null,
        "events_per_second_per_user": null, "max_event_bytes": 1048576, "queue_messages": 1024, "queue_bytes": 1048576,
        "connection_queue_bytes": 4194304, "overflow": "disconnect", "max_result_bytes": 4194304, "max_result_nodes": 100000, "resolver_concurrency": 16, "max_calls": 1000,
        "resolver_threads": 32, "drain_timeout": 5, "resolver_timeout": 10}"#,
    )
    .expect("limits")
}

use std::collections::HashSet;
use std::time::{Duration, Instant};

use apollo_compiler::ExecutableDocument;
use chrono::Utc;

use crate::admission::{Admitted, Gate};
use crate::graphql::field::Declaration;
use crate::graphql::schema::SchemaInput;
use crate::graphql::schema::tests::{declaration, schema};

const SDL: &str = "
    type Subscription {
        order(id: ID! = 1, note: String): Order
        at(day: Int): Int
    }
    type Order implements Node { id: ID! total(in: String = \"EUR\"): Float customer: Customer items(first: Int, where: Where): [Item] next: Order nodes: [Node] }
    interface Node { id: ID! next: Node }
    type Customer { id: ID! name: String orders: [Order] }
    type Item { id: ID! order: Order }
    input Where { all: [Where!] name: String }";

fn documents(sdl: &str) -> Gate {
    Gate::new(schema(sdl), &limits(), false)
}

fn ask(gate: &Gate, request: &Request<'_>) -> Result<Admitted, Rejection> {
    gate.admit(request, &Arc::default(), Utc::now())
}

fn request<'a>(query: &'a str, variables: &'a Value) -> Request<'a> {
    Request { query, operation_name: None, variables, introspection: true }
}

fn admit(documents: &Gate, query: &str, variables: &str, held: &[&str]) -> Result<Admitted, Rejection> {
    let variables = Value::parse(variables.as_bytes()).expect("JSON");
    let permissions = held.iter().map(|permission| Box::from(*permission)).collect();
    let viewer = Arc::new(Viewer { permissions, ..Viewer::default() });
    documents.admit(&request(query, &variables), &viewer, Utc::now())
}

fn subscription(documents: &Gate, query: &str, variables: &str, held: &[&str]) -> Operation {
    match admit(documents, query, variables, held) {
        Ok(Admitted::Subscription(admission)) => admission.operation,
        other => panic!("{query}: {other:?}"),
    }
}

/// `CODE message (line, column)` of the first error.
fn refused(result: Result<Admitted, Rejection>) -> String {
    match result {
        Err(Rejection::Request(errors)) => {
            let place = errors[0].locations.first().map_or_else(String::new, |at| format!(" {at:?}"));
            format!("{} {}{place}", errors[0].code, errors[0].message)
        }
        Err(Rejection::Forbidden(_)) => "FORBIDDEN".into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn says_what_is_wrong_with_a_request() {
    let documents = documents(SDL);
    for (query, name, expected) in [
        ("", None, "GRAPHQL_PARSE_FAILED syntax error: Unexpected <EOF>. (1,"),
        (" # nothing", None, "GRAPHQL_PARSE_FAILED syntax error: Unexpected <EOF>. (1,"),
        (
            "subscription {\r\n  order {",
            None,
            "GRAPHQL_PARSE_FAILED syntax error: expected at least one Selection in Selection Set (2, 10)",
        ),
        ("subscription { é }", None, "GRAPHQL_PARSE_FAILED syntax error: Unexpected character \"é\" (1, 16)"),
        ("subscription { order(id: \"\\uD800\") { id } }", None, "GRAPHQL_PARSE_FAILED syntax error: "),
        ("subscription { order { é: id } }", None, "GRAPHQL_PARSE_FAILED syntax error: "),
        (
            "subscription {\n order { nope } }",
            None,
            "GRAPHQL_VALIDATION_FAILED type `Order` does not have a field `nope` (2, 10)",
        ),
        (
            "subscription { order }",
            None,
            "GRAPHQL_VALIDATION_FAILED interface, union and object types must have a subselection set (1, 16)",
        ),
        (
            "subscription { at order { id } }",
            None,
            "GRAPHQL_VALIDATION_FAILED anonymous subscription can only have one root field (1, 1)",
        ),
        (
            "subscription { ...F at } fragment F on Subscription { order { id } }",
            None,
            "GRAPHQL_VALIDATION_FAILED anonymous subscription can only have one root field (1, 1)",
        ),
        (
            "subscription { __typename }",
            None,
            "GRAPHQL_VALIDATION_FAILED anonymous subscription can not have an introspection field as a root field (1, 16)",
        ),
        ("subscription { __schema { types { name } } }", None, "GRAPHQL_VALIDATION_FAILED "),
        (
            "subscription($v: Boolean!) { at @skip(if: $v) }",
            None,
            "GRAPHQL_VALIDATION_FAILED anonymous subscription can not specify @skip or @include on root fields (1, 33)",
        ),
        (
            "subscription { ...F @include(if: true) } fragment F on Subscription { at }",
            None,
            "GRAPHQL_VALIDATION_FAILED anonymous subscription can not specify @skip or @include on root fields (1, 21)",
        ),
        (
            "subscription A { at } subscription B { at }",
            None,
            "OPERATION_RESOLUTION_FAILURE Must provide operation name if query contains multiple operations.",
        ),
        ("subscription A { at }", Some("C"), "OPERATION_RESOLUTION_FAILURE Unknown operation named 'C'."),
        (
            "fragment F on Order { id }",
            None,
            "GRAPHQL_VALIDATION_FAILED fragment `F` must be used in an operation (1, 1)",
        ),
        (
            "type A { b: Int }",
            None,
            "GRAPHQL_VALIDATION_FAILED an executable document must not contain an object type definition (1, 1)",
        ),
        (
            "mutation { pay }",
            None,
            "GRAPHQL_VALIDATION_FAILED Only subscriptions are served here, and queries for __schema, __type and __typename. (1, 12)",
        ),
        (
            "mutation { __typename }",
            None,
            "GRAPHQL_VALIDATION_FAILED Only subscriptions are served here, and queries for __schema, __type and __typename. (1, 1)",
        ),
        (
            "{ users { id } }",
            None,
            "GRAPHQL_VALIDATION_FAILED Only subscriptions are served here, and queries for __schema, __type and __typename. (1, 3)",
        ),
        (
            "{ __typename ...F } fragment F on Query { _empty }",
            None,
            "GRAPHQL_VALIDATION_FAILED Only subscriptions are served here, and queries for __schema, __type and __typename. (1, 43)",
        ),
        (
            "subscription A { at } query B { _empty }",
            Some("B"),
            "GRAPHQL_VALIDATION_FAILED Only subscriptions are served here, and queries for __schema, __type and __typename. (1, 33)",
        ),
        (
            "subscription A { at } mutation B { pay }",
            Some("A"),
            "GRAPHQL_VALIDATION_FAILED `mutation` root operation type is not defined",
        ),
        (
            "subscription($v: Int!) { at(day: $v) }",
            None,
            "BAD_USER_INPUT Variable '$v' of required type 'Int!' was not provided. (1, 14)",
        ),
        (
            "subscription { order(id: 1) { items(where: {all: [{nam: \"x\"}]}) { id } } }",
            None,
            "GRAPHQL_VALIDATION_FAILED ",
        ),
    ] {
        let variables = Value::Null;
        let mut request = request(query, &variables);
        request.operation_name = name;
        let found = refused(ask(&documents, &request));
        assert!(found.starts_with(expected), "{query}\n{found}\n{expected}");
    }
    let found = refused(ask(&documents, &request("subscription { at }", &Value::List(vec![]))));
    assert_eq!(found, "BAD_USER_INPUT Variables must be an object.");
}

#[test]
fn answers_introspection() {
    let documents = documents(SDL);
    let variables = Value::parse(br#"{"n": "Where", "yes": true}"#).expect("JSON");
    let ask = |query: &str, introspection: bool| {
        let mut request = request(query, &variables);
        request.introspection = introspection;
        let admitted = ask(&documents, &request).and_then(|admitted| match admitted {
            Admitted::Introspection(introspection) => introspection.answer().map(Admitted::Answer),
            other => Ok(other),
        });
        match admitted {
            Ok(Admitted::Answer(answer)) => answer,
            other => refused(other),
        }
    };
    assert_eq!(ask("{ a: __typename }", false), r#"{"data":{"a":"Query"}}"#);
    assert_eq!(
        ask(
            "query($n: String!, $yes: Boolean!) { __type(name: $n) { kind name @skip(if: $yes) inputFields { name } } }",
            true
        ),
        r#"{"data":{"__type":{"kind":"INPUT_OBJECT","inputFields":[{"name":"all"},{"name":"name"}]}}}"#
    );
    let off = "GRAPHQL_VALIDATION_FAILED Introspection is switched off: '__schema' is not answered here. (1, 41)";
    assert_eq!(ask("{ __typename ...F } fragment F on Query{__schema { types { name } } }", false), off);
    assert!(ask("{ __type(name: \"Order\") { name } }", false).starts_with("GRAPHQL_VALIDATION_FAILED Introspection"));
    let deep = "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }";
    assert_eq!(ask(deep, true), "LIMIT_EXCEEDED Maximum introspection depth exceeded (1, 54)");
    // What GraphiQL and code generators send.
    let type_ref = (0..9).fold("kind name".to_owned(), |inner, _| format!("kind name ofType {{ {inner} }}"));
    let full = format!(
        "query IntrospectionQuery {{ __schema {{ description queryType {{ name }} mutationType {{ name }} subscriptionType {{ name }}
         types {{ ...FullType }} directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ ...InputValue }} }} }} }}
         fragment FullType on __Type {{ kind name description specifiedByURL
           fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason }}
           inputFields(includeDeprecated: true) {{ ...InputValue }} interfaces {{ ...TypeRef }}
           enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} possibleTypes {{ ...TypeRef }} }}
         fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue isDeprecated deprecationReason }}
         fragment TypeRef on __Type {{ {type_ref} }}"
    );
    assert!(ask(&full, true).starts_with(r#"{"data":{"__schema":{"description":null,"queryType":{"name":"Query"}"#));
}

/// What fits is answered, what does not is refused before it is made.
#[test]
fn introspection_is_counted_before_it_is_made() {
    let types: String = (0..100)
        .map(|at| {
            let field = |field: usize| format!("f{field}(a: [Int!]!): [T{}!] ", (at + field) % 100);
            format!("type T{at} {{ {} }} ", (0..20).map(field).collect::<String>())
        })
        .collect();
    let sdl = format!("{types} type Subscription {{ a: T0 }}");
    let documents = documents(&sdl);
    let answer = |query: &str, max_bytes: usize| match admit(&documents, query, "{}", &[]) {
        Ok(Admitted::Introspection(introspection)) => introspection.answer_within(max_bytes),
        other => panic!("{other:?}"),
    };
    let query = "{ __schema { types { kind fields { args { type { kind ofType { kind ofType { kind ofType { kind ofType { kind } } } } } }
        type { kind ofType { kind ofType { kind } } } } } } }";
    let whole = answer(query, 10_000_000).expect("an answer");
    assert!(answer(query, whole.len()).is_ok());
    let refused_with = |max| refused(answer(query, max).map(Admitted::Answer));
    assert_eq!(
        refused_with(whole.len() - 1),
        format!("RESULT_TOO_LARGE The answer would be larger than {} bytes.", whole.len() - 1)
    );
    let start = Instant::now();
    let nested = "types { fields { type { ofType { ofType { fields { name } } } } } }";
    let aliases: String = (0..30).map(|at| format!("a{at}: __schema {{ {nested} {nested} }} ")).collect();
    assert_eq!(
        refused(answer(&format!("{{ {aliases} }}"), 4_194_304).map(Admitted::Answer)).split(' ').next(),
        Some("RESULT_TOO_LARGE")
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_known_document_is_not_parsed_again_and_nonsense_is_not_kept() {
    let documents = documents(SDL);
    for at in 0..3 {
        let operation =
            subscription(&documents, "subscription($d: Int) { at(day: $d) }", &format!("{{\"d\": {at}}}"), &[]);
        assert_eq!(operation.arguments_key.as_ref(), format!("{{\"day\":{at},}}"));
        assert_eq!(operation.channel, "at");
    }
    assert_eq!(documents.documents.parses(), 1);
    for _ in 0..3 {
        refused(admit(&documents, "subscription { nope }", "{}", &[]));
    }
    assert_eq!((documents.documents.parses(), documents.documents.cache.lock().by_text.len()), (4, 1));
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let documents = documents(SDL);
    let good = "subscription Good { at }";
    for at in 0..MAX_DOCUMENTS + 200 {
        subscription(&documents, &format!("subscription S{at} {{ at }}"), "{}", &[]);
        subscription(&documents, good, "{}", &[]);
    }
    let parses = MAX_DOCUMENTS as u64 + 201;
    assert_eq!((documents.documents.parses(), documents.documents.cache.lock().by_text.len()), (parses, MAX_DOCUMENTS));
    let large = |at: usize| format!("subscription S{at} {{ order(note: \"{}\") {{ id }} }}", "x".repeat(60_000));
    for at in 0..800 {
        subscription(&documents, &large(at), "{}", &[]);
    }
    let cache = documents.documents.cache.lock();
    assert!(cache.weight <= MAX_WEIGHT && cache.weight > MAX_WEIGHT / 2, "{}", cache.weight);
    assert_eq!(cache.weight, cache.by_text.values().map(|(_, known)| known.document.weight).sum::<usize>());
}

#[test]
fn one_plan_for_all_who_differ_in_root_arguments() {
    let documents = documents(SDL);
    let query = "subscription($id: ID!, $cur: String, $first: Int, $yes: Boolean!) {
        order(id: $id) { id total(in: $cur) items(first: $first) @include(if: $yes) { id } } }";
    let ask = |id: usize, inner: &str| subscription(&documents, query, &format!("{{\"id\": {id}, {inner}}}"), &[]).plan;
    let first = ask(1, "\"cur\": \"EUR\", \"yes\": true");
    let mut held = Vec::new();
    for id in 0..10_000 {
        held.push(ask(id, "\"yes\": true, \"cur\": \"EUR\""));
    }
    assert!(held.iter().all(|plan| Arc::ptr_eq(plan, &first)));
    for other in [
        "\"cur\": \"USD\", \"yes\": true",
        "\"cur\": \"EUR\", \"yes\": false",
        "\"yes\": true",
        "\"cur\": null, \"yes\": true",
        "\"cur\": \"EUR\", \"first\": 1, \"yes\": true",
    ] {
        assert!(!Arc::ptr_eq(&ask(1, other), &first), "{other}");
    }
    let other = "subscription Other($id: ID!) { order(id: $id) { id } } subscription($id: ID!) { at @skip(if: $id) }";
    refused(admit(&documents, other, "{}", &[]));
}

/// Keys of dropped plans are let go together, once they have doubled what is in use: one by one it would take ever longer.
#[test]
fn dropped_plans_are_let_go_together() {
    let documents = documents(SDL);
    let query = "subscription($cur: String) { order { total(in: $cur) } }";
    let ask = |cur: String| subscription(&documents, query, &format!("{{\"cur\": \"{cur}\"}}"), &[]).plan;
    let keys = || documents.documents.cache.lock().by_text[query].1.plans.lock().by_key.len();
    (0..50).for_each(|at| drop(ask(format!("few{at}"))));
    assert_eq!(keys(), 50);
    let held: Vec<_> = (0..400).map(|at| ask(format!("held{at}"))).collect();
    assert_eq!(keys(), held.len());
    (0..100).for_each(|at| drop(ask(format!("more{at}"))));
    assert_eq!(keys(), held.len() + 100);
}

#[test]
fn plans_that_nobody_holds_leave_no_memory() {
    let documents = documents(SDL);
    let query = "subscription($cur: String) { order { total(in: $cur) } }";
    let held: Vec<_> =
        (0..500).map(|at| subscription(&documents, query, &format!("{{\"cur\": \"h{at}\"}}"), &[]).plan).collect();
    for at in 0..20_000 {
        subscription(&documents, query, &format!("{{\"cur\": \"{at}{}\"}}", "x".repeat(100)), &[]);
    }
    for (at, plan) in held.iter().enumerate() {
        assert!(Arc::ptr_eq(plan, &subscription(&documents, query, &format!("{{\"cur\": \"h{at}\"}}"), &[]).plan));
    }
    let cache = documents.documents.cache.lock();
    let known = &cache.by_text[query].1;
    let plans = known.plans.lock();
    assert!(plans.by_key.len() < 2_000, "{}", plans.by_key.len());
    assert_eq!(plans.count, plans.by_key.iter().map(|planned| planned.plans.len()).sum::<usize>());
}

#[test]
fn permissions_part_plans_only_where_they_matter() {
    let input = SchemaInput {
        sdl: SDL.into(),
        declarations: vec![
            Declaration {
                requires: Some(Guard::from(vec![vec!["orders".into()]])),
                channel: "orders:{id}".into(),
                ..declaration("order")
            },
            declaration("at"),
        ],
        requires: serde_json::from_str(
            r#"{"Order.total": [["totals"], ["admin", "all"]], "Node.id": [["ids"]], "Customer.name": [["names"]]}"#,
        )
        .expect("guards"),
        ..SchemaInput::default()
    };
    let documents = Gate::new(Schema::build(input).expect("a schema"), &limits(), false);
    let total = "subscription { order(id: \"7\") { total next { total } } }";
    let plan = |held: &[&str]| subscription(&documents, total, "{}", held).plan;
    let (with, without) = (plan(&["orders", "totals"]), plan(&["orders"]));
    assert!(!Arc::ptr_eq(&with, &without));
    assert!(Arc::ptr_eq(&with, &plan(&["all", "orders", "admin", "names"])));
    assert!(Arc::ptr_eq(&without, &plan(&["orders", "names", "admin"])));
    assert_eq!(subscription(&documents, total, "{}", &["orders"]).channel, "orders:7");
    // The root, whatever else is wrong; a field that cannot be null, by its interface's guard.
    assert_eq!(
        refused(admit(
            &documents,
            "subscription($v: Int!) { order { total } at: order { id @skip(if: $v) } }",
            "{}",
            &[]
        ))
        .split(' ')
        .next(),
        Some("GRAPHQL_VALIDATION_FAILED")
    );
    assert_eq!(
        refused(admit(&documents, "subscription($v: String!) { order(note: $v) { total } }", "{}", &["totals"])),
        "FORBIDDEN"
    );
    assert_eq!(refused(admit(&documents, "subscription { order { id } }", "{}", &["orders"])), "FORBIDDEN");
    subscription(&documents, "subscription { order { id } }", "{}", &["orders", "ids"]);
}

#[test]
fn whoever_else_watches_a_viewer_gets_the_plan_that_is_his() {
    let schema = schema(
        "interface Node { id: ID @requiresScopes(scopes: \"id\") }
        type Order implements Node { id: ID at: Instant level: Level customer: Customer }
        type Customer implements Node @requiresScopes(scopes: [[\"a\", \"b\"], [\"c\"]]) { id: ID name: String @authenticated }
        union Found = Order | Customer
        scalar Instant @requiresScopes(scopes: \"instant\")
        enum Level @requiresScopes(scopes: [\"low\", \"high\"]) { LOW }
        type Subscription { order: Order node: Node found: [Found] }",
    );
    let held = ["id", "a", "b", "c", "instant", "low", "high"];
    let viewers: Vec<Arc<Viewer>> = (0..256)
        .map(|bits| {
            Arc::new(Viewer {
                user_id: (bits & 128 != 0).then(|| "u".into()),
                permissions: (0..7).filter(|at| bits & (1 << at) != 0).map(|at| held[at].into()).collect(),
                ..Viewer::default()
            })
        })
        .collect();
    let gate = Gate::new(Arc::clone(&schema), &limits(), false);
    for (query, different) in [
        ("subscription { order { id at level customer { name } } }", 2 * 2 * 2 * 3),
        ("subscription { node { id ... on Customer { name } ... on Order { at level } } }", 2 * 2 * 2 * 3),
        ("subscription { found { ... on Customer { name } ... on Node { __typename } } }", 3),
        ("subscription { found { __typename } }", 2),
    ] {
        let document = ExecutableDocument::parse_and_validate(&schema.graphql, query, "").expect("a document");
        let operation = document.operations.iter().next().expect("an operation");
        // Plans live as long as someone holds them: all are held, and found again by those who come later.
        let (mut plans, mut texts) = (Vec::new(), HashSet::new());
        for viewer in viewers.iter().chain(viewers.iter().rev()) {
            let Ok(Admitted::Subscription(admission)) = gate.admit(&request(query, &Value::Null), viewer, Utc::now())
            else {
                panic!("{query}");
            };
            let refuse = |guarded: &str, guard: &Guard| fields::refusal(guarded, Some(guard), viewer);
            let own = Plan::build(&schema, operation, &document, &Object::default(), usize::MAX, &refuse);
            let (own, given) = (format!("{:?}", own.expect("a plan")), format!("{:?}", admission.operation.plan));
            assert_eq!(own, given, "{query} {viewer:?}");
            plans.push(admission.operation.plan);
            texts.insert(given);
        }
        assert_eq!(texts.len(), different, "{query}");
    }
}

#[test]
fn size_is_counted_as_if_fragments_were_inlined() {
    let mut limits = limits();
    (limits.max_query_depth, limits.max_query_fields, limits.max_query_aliases) = (3, 6, 2);
    let documents = Gate::new(schema(SDL), &limits, false);
    for (query, expected) in [
        ("subscription { order { id next { id } } }", ""),
        ("subscription { order { id next { next { id } } } }", "LIMIT_EXCEEDED The operation is deeper than 3."),
        (
            "subscription { order { ...A } } fragment A on Order { next { ... on Order { ...B } } } fragment B on Order { next { id } }",
            "LIMIT_EXCEEDED The operation is deeper than 3.",
        ),
        ("subscription { order { id id id id id } }", ""),
        ("subscription { order { id id id id id id } }", "LIMIT_EXCEEDED The operation has more fields than 6."),
        (
            "subscription { order { ...A ...A ...A } } fragment A on Order { id next { id } }",
            "LIMIT_EXCEEDED The operation has more fields than 6.",
        ),
        ("subscription { a: order { b: id } }", ""),
        (
            "subscription { order { ...A next { ...A } } } fragment A on Order { a: id b: id }",
            "LIMIT_EXCEEDED The operation has more aliases than 2.",
        ),
        (
            "subscription { order { id } } query B { a: __typename b: __typename c: __typename }",
            "LIMIT_EXCEEDED The operation has more aliases than 2.",
        ),
    ] {
        let found = match admit(&documents, query, "{}", &[]) {
            Ok(_) => String::new(),
            other => refused(other),
        };
        assert_eq!(found, expected, "{query}");
    }
}

/// Name, text, and what it is refused with (empty where it may be valid).
fn hostile() -> Vec<(&'static str, String, &'static str)> {
    let repeat = |what: &str, times: usize| vec![what; times].join(" ");
    let each = |times: usize, one: &dyn Fn(usize) -> String| (0..times).map(one).collect::<Vec<_>>().join(" ");
    let bomb = |levels: usize, wide: usize| {
        let spread = |at: usize| repeat(&format!("...F{}", at + 1), wide);
        each(levels, &|at| format!("fragment F{at} on Order {{ next {{ {} }} }}", spread(at)))
            + &format!(" fragment F{levels} on Order {{ id }}")
    };
    let order = |inner: &str| format!("subscription {{ order {{ {inner} }} }}");
    vec![
        ("fragment bomb", order("...F0") + " " + &bomb(15, 20), "LIMIT_EXCEEDED"),
        (
            "fragment bomb without depth",
            order("...F0") + " " + &bomb(100, 2).replace("next", "... on Order"),
            "LIMIT_EXCEEDED",
        ),
        ("fragment chain", order("...F0") + " " + &bomb(180, 1).replace("next", "... on Order"), "LIMIT_EXCEEDED"),
        ("short fragment chain", order("...F0") + " " + &bomb(90, 1).replace("next", "... on Order"), ""),
        ("cycle of one", order("...A") + " fragment A on Order { ...A }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "cycle of many",
            order("...F0")
                + " "
                + &each(90, &|at| {
                    format!("fragment F{at} on Order {{ ...F{} id ...F{} }}", (at + 1) % 90, (at + 7) % 90)
                }),
            "LIMIT_EXCEEDED",
        ),
        (
            "cycle through fields",
            order("...A") + " fragment A on Order { next { ...B } } fragment B on Order { next { ...A } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("alias bomb", order(&each(600, &|at| format!("a{at}: id"))), "LIMIT_EXCEEDED"),
        ("alias bomb in fragments", order(&repeat("...A", 40)) + " fragment A on Order { a: id }", "LIMIT_EXCEEDED"),
        (
            "deep selections",
            repeat("subscription { order { next {", 1) + &" next {".repeat(60) + "id" + &"}".repeat(63),
            "LIMIT_EXCEEDED",
        ),
        ("deeper selections", "{a".repeat(600) + &"}".repeat(600), "LIMIT_EXCEEDED"),
        ("unclosed", "{a".repeat(900), "LIMIT_EXCEEDED"),
        (
            "deep lists",
            order(&format!("items(first: {}1{}) {{ id }}", "[".repeat(900), "]".repeat(900))),
            "LIMIT_EXCEEDED",
        ),
        ("deep objects", order(&format!("items(where: {}{{}}{}) {{ id }}", "{all:".repeat(120), "}".repeat(120))), ""),
        (
            "deep types",
            format!("subscription($v: {}Int{}) {{ at }}", "[".repeat(900), "]".repeat(900)),
            "LIMIT_EXCEEDED",
        ),
        ("directives", format!("subscription {{ at {} }}", repeat("@a", 900)), ""),
        ("known directives", order(&format!("id {}", repeat("@skip(if:true)", 280))), ""),
        ("directives on fields", order(&repeat("id @a @b", 300)), ""),
        ("too many tokens", order(&repeat("id", 2_000)), "LIMIT_EXCEEDED"),
        ("commas", order(&format!("id {}", ",".repeat(60_000))), "LIMIT_EXCEEDED"),
        ("comment", order(&format!("id\n#{}\n", "x".repeat(60_000))), ""),
        ("comments", order(&format!("id\n{}\n", "#\n".repeat(30_000))), "LIMIT_EXCEEDED"),
        ("too large", order(&format!("id {}", " ".repeat(70_000))), "LIMIT_EXCEEDED"),
        ("strings", order(&repeat("total(in: \"\"\"\\\"\"\"\"\"\")", 180)), ""),
        ("long string", order(&format!("total(in: \"{}\")", "\\u00e9".repeat(10_000))), ""),
        ("long block string", order(&format!("total(in: \"\"\"{}\"\"\")", "\n \\\"\"\"".repeat(8_000))), ""),
        ("broken strings", "\"\n".repeat(1_900), "GRAPHQL_PARSE_FAILED"),
        ("nonsense", "é".repeat(1_900), "GRAPHQL_PARSE_FAILED"),
        ("braces", "}".repeat(1_900), "GRAPHQL_PARSE_FAILED"),
        ("spreads", "...".repeat(1_900), "GRAPHQL_PARSE_FAILED"),
        ("dollars", "query(".to_owned() + &"$".repeat(1_900), "GRAPHQL_PARSE_FAILED"),
        ("variables", format!("subscription({}) {{ at }}", each(480, &|at| format!("$v{at}: Int"))), ""),
        ("one variable often", format!("subscription({}) {{ at }}", repeat("$v: Int", 480)), ""),
        (
            "variables used",
            format!(
                "subscription({}) {{ order {{ items(first: 1, where: {{ all: [{}] }}) {{ id }} }} }}",
                each(240, &|at| format!("$v{at}: Where!")),
                each(240, &|at| format!("$v{at}"))
            ),
            "",
        ),
        (
            "variables in operations",
            each(15, &|op| {
                format!(
                    "subscription S{op}({}) {{ order {{ items(where: {{ all: [{}] }}) {{ id }} }} }}",
                    each(12, &|at| format!("$v{at}: Where!")),
                    each(12, &|at| format!("$v{at}"))
                )
            }),
            "",
        ),
        ("operations", each(330, &|at| format!("subscription S{at} {{ at }}")), ""),
        (
            "operations over a fragment",
            each(80, &|at| format!("subscription S{at} {{ order {{ ...A }} }}"))
                + " fragment A on Order { "
                + &repeat("id", 900)
                + " }",
            "LIMIT_EXCEEDED",
        ),
        (
            "operations over fragments",
            each(30, &|at| format!("subscription S{at} {{ order {{ ...A }} }}"))
                + " fragment A on Order { "
                + &repeat("...B", 50)
                + " } fragment B on Order { "
                + &repeat("id", 18)
                + " }",
            "LIMIT_EXCEEDED",
        ),
        (
            "fewer operations over a fragment",
            each(4, &|at| format!("subscription S{at} {{ order {{ ...A }} }}"))
                + " fragment A on Order { "
                + &repeat("id", 990)
                + " }",
            "",
        ),
        ("same field", order(&repeat("id", 990)), ""),
        ("same field with arguments", order(&repeat("total(in: \"a\")", 280)), ""),
        ("conflicting arguments", order(&each(280, &|at| format!("total(in: \"{at}\")"))), ""),
        ("same field with selections", order(&repeat("next { id }", 390)), ""),
        ("nested same fields", order(&repeat("next { next { next { next { id } } } }", 145)), ""),
        ("nested same fields, deep", order(&repeat(&("next {".repeat(17) + "id" + &"}".repeat(17)), 36)), ""),
        (
            "doubling selections",
            {
                let inner = (0..7).fold("id".to_owned(), |inner, _| format!("next {{ {inner} }} next {{ {inner} }}"));
                order(&inner)
            },
            "",
        ),
        (
            "aliases over types",
            order(&format!("nodes {{ {} }}", repeat("... on Order { next { id } } ... on Node { next { id } }", 95))),
            "",
        ),
        (
            "spreads of one fragment",
            order(&repeat("...A", 480)) + " fragment A on Order { id next { id } }",
            "LIMIT_EXCEEDED",
        ),
        ("inline fragments", order(&("... on Order {".repeat(100) + "id" + &"}".repeat(100))), ""),
        ("inline fragments side by side", order(&repeat("... on Order { id }", 320)), ""),
        (
            "fragment per field",
            order(&each(100, &|at| format!("...F{at}")))
                + " "
                + &each(100, &|at| format!("fragment F{at} on Order {{ id total next {{ id }} }}")),
            "",
        ),
        (
            "fragments that meet",
            order(&each(40, &|at| format!("...F{at}")))
                + " "
                + &each(40, &|at| {
                    format!("fragment F{at} on Order {{ next {{ next {{ next {{ ...F{} }} }} }} }}", at + 40)
                })
                + " "
                + &each(40, &|at| format!("fragment F{} on Order {{ next {{ id }} }}", at + 40)),
            "",
        ),
        ("unknown fields", order(&each(990, &|at| format!("x{at}"))), "GRAPHQL_VALIDATION_FAILED"),
        ("unknown fragments", order(&each(490, &|at| format!("...x{at}"))), "GRAPHQL_VALIDATION_FAILED"),
        (
            "unused fragments",
            order("id") + " " + &each(240, &|at| format!("fragment F{at} on Order {{ id }}")),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "object literal",
            order(&format!("items(where: {{ {} }}) {{ id }}", each(490, &|at| format!("x{at}: 1")))),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "object literal, one name",
            order(&format!("items(where: {{ {} }}) {{ id }}", repeat("name: \"x\"", 490))),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "arguments",
            order(&format!("items({}) {{ id }}", each(490, &|at| format!("x{at}: 1")))),
            "GRAPHQL_VALIDATION_FAILED",
        ),
    ]
}

/// Time is not asserted tightly, as tests run in debug builds beside others; `timing` prints it.
#[test]
fn hostile_documents_are_refused_or_harmless() {
    let documents = documents(SDL);
    for (name, text, expected) in hostile() {
        let start = Instant::now();
        let found = admit(&documents, &text, "{}", &[]);
        let found = found.map_or_else(|rejection| refused(Err(rejection)), |_| String::new());
        assert!(expected.is_empty() || found.starts_with(expected), "{name}: {found}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    }
}

#[test]
#[ignore = "prints figures: cargo test --release timing -- --ignored --nocapture"]
fn timing() {
    for (name, text, _) in hostile() {
        let documents = documents(SDL);
        let start = Instant::now();
        let found = admit(&documents, &text, "{}", &[]);
        let elapsed = start.elapsed();
        let found = found.map_or_else(|rejection| refused(Err(rejection)), |_| "admitted".into());
        println!("{:8.2} ms  {name}: {}", elapsed.as_secs_f64() * 1e3, found.chars().take(100).collect::<String>());
    }
    let documents = documents(SDL);
    let query = "subscription($id: ID!) { order(id: $id) { id total customer { name } } }";
    let start = Instant::now();
    for at in 0..100_000 {
        subscription(&documents, query, &format!("{{\"id\": {at}}}"), &[]);
    }
    println!("{:?} an admit, plan not held", start.elapsed() / 100_000);
    let held = subscription(&documents, query, "{\"id\": 1}", &[]);
    let start = Instant::now();
    for at in 0..100_000 {
        subscription(&documents, query, &format!("{{\"id\": {at}}}"), &[]);
    }
    println!("{:?} an admit, plan held", start.elapsed() / 100_000);
    drop(held);
    let start = Instant::now();
    for at in 0..5_000 {
        subscription(&documents, &format!("{query} # {at}"), "{\"id\": 1}", &[]);
    }
    println!("{:?} an admit of a new document", start.elapsed() / 5_000);
}

#[test]
fn threads_share_documents_and_plans() {
    let documents = documents(SDL);
    let query = "subscription($id: ID!) { order(id: $id) { id } }";
    let plans: Vec<_> = std::thread::scope(|scope| {
        let ask = |at: usize| {
            let documents = &documents;
            move || subscription(documents, query, &format!("{{\"id\": {at}}}"), &[]).plan
        };
        let threads: Vec<_> = (0..16).map(|at| scope.spawn(ask(at))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(plans.iter().all(|plan| Arc::ptr_eq(plan, &subscription(&documents, query, "{\"id\": 1}", &[]).plan)));
}
