use super::*;
use crate::error::Rejection;

/// A schema whose functions are all plain and async, one for each field of its subscription type.
pub(crate) fn schema(sdl: &str) -> Arc<Schema> {
    let (_, graphql) = sdl::parse(sdl.into()).expect("valid SDL");
    let root = graphql.schema_definition.subscription.as_ref().expect("a subscription type");
    let fields = graphql.get_object(&root.name).expect("an object").fields.keys();
    let declarations = fields.map(|name| declaration(name)).collect();
    Schema::build(SchemaInput { sdl: sdl.into(), declarations, ..SchemaInput::default() }).expect("a schema")
}

pub(crate) fn declaration(field: &str) -> Declaration {
    Declaration {
        field: field.into(),
        function: format!("app.{field}"),
        channel: field.into(),
        ..Declaration::default()
    }
}

fn build(sdl: &str, declarations: &str) -> Result<Arc<Schema>, SchemaError> {
    let declarations = serde_json::from_str(declarations).expect("declarations");
    Schema::build(SchemaInput { sdl: sdl.into(), declarations, ..SchemaInput::default() })
}

const ORDERS: &str = "
    type Subscription { orderUpdated(orderId: ID!, filter: Filter, at: DateTime, note: String, meta: JSON, ids: [ID!]): Order }
    type Order { id: ID! customer: Customer }
    type Customer { id: ID! name: String }
    input Filter { tenantId: ID since: DateTime nested: [Filter] minimum: Int }
    scalar DateTime
    scalar JSON";

#[test]
fn says_what_is_wrong_with_a_declaration() {
    let arguments =
        "type Subscription { a: A } type A { b: B } union B = C | D type C { id: ID } type D { deep(x: Int): Int }";
    for (sdl, declarations, expected) in [
        (
            ORDERS,
            "[]",
            "Subscription.orderUpdated has no function: expected one that is called order_updated or orderUpdated, or has name=\"orderUpdated\"",
        ),
        (
            ORDERS,
            r#"[{"field": "orderMade", "function": "app.order_made", "channel": "c"}]"#,
            "app.order_made (Subscription.orderMade): there is no such field, expected one of orderUpdated",
        ),
        (
            ORDERS,
            r#"[{"field": "__typename", "function": "app.f", "channel": "c"}]"#,
            "app.f (Subscription.__typename): there is no such field, expected one of orderUpdated",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "a.f", "channel": "c"}, {"field": "orderUpdated", "function": "b.f", "channel": "c"}]"#,
            "two functions for one field: a.f and b.f both declare Subscription.orderUpdated",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": ""}]"#,
            "f (Subscription.orderUpdated): expected a channel that is not empty and holds no control character",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{orderId}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{orderId}\": there is no argument \"orderId\"",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{note}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{note}\": argument \"note\" is String, expected a non-null scalar",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{filter}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{filter}\": argument \"filter\" is Filter, expected a non-null scalar",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{order_id"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{order_id\": a brace stands alone, expected {argument}",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:order_id}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:order_id}\": a brace stands alone, expected {argument}",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "c", "where": ["==", ["data", ["id"]], ["argument", "oder_id", []]]}]"#,
            "f (Subscription.orderUpdated): where: unknown argument \"oder_id\"",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "kind": "generator", "event_types": ["a"]}]"#,
            "f (Subscription.orderUpdated): a generator takes no event_types",
        ),
        (
            arguments,
            r#"[{"field": "a", "function": "f", "channel": "c", "kind": "passthrough"}]"#,
            "f (Subscription.a): a passthrough cannot give D.deep, which takes arguments: expected a function, or fields without arguments",
        ),
    ] {
        assert_eq!(build(sdl, declarations).map(|_| ()), Err(SchemaError(expected.into())), "{declarations}");
    }
}

#[test]
fn says_what_is_wrong_with_the_sdl() {
    for (sdl, expected) in [
        ("type Query { a: Int }", "the schema has no subscription type"),
        ("type Subscription { a: ", "the SDL is not valid: syntax error: expected a Type (line 1, column 24)"),
        ("type Subscription { a: Nothing }", "the SDL is not valid: cannot find type `Nothing` in this document (line 1, column 24)"),
        ("type Subscription { a: Int @mine }", "the SDL is not valid: cannot find directive `@mine` in this document"),
        ("type Subscription { a(i: I): Int } input I @oneOf { a: Int! }", "I.a must be nullable and without default, as I is @oneOf"),
        ("type Subscription { a(i: I): Int } input I @oneOf { a: Int = 1 }", "I.a must be nullable and without default, as I is @oneOf"),
        ("type Subscription { a(i: Int = \"x\"): Int }", "the default of Subscription.a.i does not fit its type: \"x\"; Int cannot represent non-integer value: \"x\""),
        ("type Subscription { a(i: I = {}): Int } input I { i: I = {} }", "the default of Subscription.a.i does not fit its type: {}; the default of I.i needs itself"),
        ("type Subscription { a(d: DateTime = \"x\"): Int } scalar DateTime", "the default of Subscription.a.d does not fit its type: \"x\"; DateTime cannot represent value: \"x\""),
        ("type Subscription { a: Int @policy(policies: [[\"x\"]]) }", "@policy cannot be honoured: expected requires= or a function that checks (line 1, column 28)"),
        ("type Subscription { a: A } type A @requiresScopes(scopes: [[\"x\"]]) { b: Int }", "@requiresScopes is not supported yet: expected requires= on the field (line 1, column 35)"),
        ("directive @authenticated on ENUM type Subscription { a: A } enum A @authenticated { b }", "@authenticated is not supported yet: expected requires= on the field (line 1, column 68)"),
        ("extend schema @link(url: \"https://specs.apollo.dev/federation/v2.5\", import: [{name: \"@policy\", as: \"@p\"}])
          type Subscription { a: Int @p }", "@p cannot be honoured: expected requires= or a function that checks (line 2, column 38)"),
        ("extend schema @link(url: \"https://specs.apollo.dev/federation/v2.5\", as: \"fed\")
          type Subscription { a: Int @fed__authenticated }", "@fed__authenticated is not supported yet: expected requires= on the field (line 2, column 38)"),
    ] {
        let error = build(sdl, "[]").map(|_| ()).expect_err(sdl);
        assert!(error.0.starts_with(expected), "{sdl}\n{}\n{expected}", error.0);
    }
}

#[test]
fn accepts_federation_undeclared_renamed_and_namespaced() {
    let sdl = r#"
        extend schema
          @link(url: "https://specs.apollo.dev/federation/v2.3", import: ["@key", {name: "@shareable", as: "@share"}, "FieldSet"])
          @link(url: "https://specs.apollo.dev/connect/v0.1", import: ["@source"])
          @source(name: "x", http: {baseURL: "y"})
        extend type Subscription { a: A @share }
        type A @key(fields: "id") @key(fields: "b", resolvable: false) @federation__interfaceObject {
          id: ID! @external @tag(name: "x")
          b(c: Int @federation__inaccessible): E @override(from: "other") @deprecated
        }
        enum E @tag(name: "x") { F @inaccessible }"#;
    let schema = schema(sdl);
    assert_eq!(schema.sdl, format!("{sdl}\n\ntype Query {{\n  _empty: Boolean\n}}\n"));
    let printed = schema.graphql.to_string();
    for gone in ["@key", "@share", "@external", "@tag", "@override", "@federation", "@link", "@inaccessible", "@source"]
    {
        assert!(!printed.contains(gone), "{gone} {printed}");
    }
    assert!(printed.contains("@deprecated"));
}

#[test]
fn keeps_declared_directives_and_the_users_query_type() {
    let sdl = "directive @key(fields: String!) on OBJECT type Query { b: Int } type Subscription { a: A } type A @key(fields: \"b\") { b: Int }";
    let schema = schema(sdl);
    assert_eq!(schema.sdl, sdl);
    assert!(schema.graphql.get_object("A").expect("A").directives.has("key"));
}

#[test]
fn renames_of_root_types_work() {
    let declared = r#"[{"field": "a", "function": "f", "channel": "{an_id}"}]"#;
    let schema = build("schema { subscription: S } type S { a(anId: ID!): Int } type Query { x: Int }", declared)
        .expect("a schema");
    assert_eq!(schema.graphql.schema_definition.query.as_ref().map(|name| name.as_str()), Some("Query"));
    assert_eq!(schema.python_name("S.a.anId"), "an_id");
    let input = SchemaInput {
        sdl: "schema { subscription: S } type S { a(anId: ID!): Int }".into(),
        declarations: vec![Declaration { channel: "{other}".into(), ..declaration("a") }],
        python_names: [("Subscription.a.anId".to_owned(), "other".to_owned())].into(),
        requires: [("Subscription.a".to_owned(), vec![vec!["p".to_owned()]])].into(),
        ..SchemaInput::default()
    };
    let schema = Schema::build(input).expect("a schema");
    assert_eq!(schema.python_name("S.a.anId"), "other");
    assert_eq!(schema.guard("S", "a"), Some(&[vec!["p".to_owned()]][..]));
}

#[test]
fn names_are_snake_case() {
    for (name, expected) in [
        ("orderId", "order_id"),
        ("OrderID", "order_id"),
        ("HTTPServer", "http_server"),
        ("a", "a"),
        ("_empty", "_empty"),
        ("line1Address", "line1_address"),
        ("snake_case", "snake_case"),
        ("Snake_Case", "snake_case"),
        ("aB", "a_b"),
        ("ABC", "abc"),
    ] {
        assert_eq!(snake_case(name), expected);
    }
}

#[test]
fn guards_of_interfaces_hold_behind_them() {
    let input = |requires: &str| {
        SchemaInput {
        sdl: "interface N { id: ID! } interface M implements N { id: ID! } type A implements N & M { id: ID! } type B implements N { id: ID! }
              type Subscription { n: N }".into(),
        declarations: vec![Declaration { requires: Some(vec![vec!["root".into()]]), ..declaration("n") }],
        requires: serde_json::from_str(requires).expect("guards"),
        ..SchemaInput::default()
    }
    };
    let schema = Schema::build(input(r#"{"N.id": [["a"], ["b"]], "A.id": [["c", "d"]]}"#)).expect("a schema");
    let guard = |type_name| {
        let mut guard = schema.guard(type_name, "id").map(<[_]>::to_vec);
        guard.iter_mut().flatten().for_each(|all| all.sort());
        guard.map(|mut guard| {
            guard.sort();
            format!("{guard:?}").replace('"', "")
        })
    };
    assert_eq!(guard("A").as_deref(), Some("[[a, c, d], [b, c, d]]"));
    assert_eq!(guard("B").as_deref(), Some("[[a], [b]]"));
    assert_eq!(guard("N").as_deref(), Some("[[a], [b]]"));
    assert_eq!(schema.guard("Subscription", "n"), Some(&[vec!["root".to_owned()]][..]));
    assert_eq!(schema.guard("A", "other"), None);
    let error = Schema::build(input(r#"{"C.id": [["a"]]}"#)).map(|_| ());
    assert_eq!(error, Err(SchemaError("requires: there is no field C.id, expected Type.field".into())));
}

#[test]
fn operands_have_the_kinds_of_their_types() {
    let schema = schema(ORDERS);
    let kind = |path: &str| {
        let mut path = path.split('.').map(str::to_owned);
        let name = path.next().unwrap_or_default();
        let arguments = &schema.fields["orderUpdated"].definition.arguments;
        let found = arguments.iter().find(|argument| snake_case(&argument.name) == name)?;
        schema.operand_kind(found, &path.collect::<Vec<_>>())
    };
    use OperandKind::{DateTime, Id, Json};
    for (path, expected) in [
        ("order_id", Some(Id)),
        ("ids", Some(Id)),
        ("at", Some(DateTime)),
        ("note", Some(Json)),
        ("meta", Some(Json)),
        ("filter", Some(Json)),
        ("filter.tenant_id", Some(Id)),
        ("filter.since", Some(DateTime)),
        ("filter.minimum", Some(Json)),
        ("filter.nested", Some(Json)),
        ("meta.any.thing", Some(Json)),
        ("filter.tenantId", None),
        ("filter.nested.since", None),
        ("order_id.x", None),
        ("other", None),
        ("note.x", None),
    ] {
        assert_eq!(kind(path), expected, "{path}");
    }
}

#[test]
fn channels_are_rendered_and_cannot_be_escaped() {
    let declared = r#"[{"field": "a", "function": "f", "channel": "o:{id}:{n}{f}{b}"}]"#;
    let schema =
        build("type Subscription { a(id: ID!, n: Int = 1, f: Float!, b: Boolean!): Int }", declared).expect("a schema");
    let channel = schema.fields["a"].channel.as_ref().expect("a channel");
    let render = |json: &str| channel.render(&Value::parse(json.as_bytes()).expect("JSON"));
    assert_eq!(render(r#"{"id": "x y", "n": -3, "f": 1.5, "b": true}"#).expect("a channel"), "o:x y:-31.5true");
    for wrong in [r#""a:b""#, r#""a\n""#, "null", r#"["a"]"#, r#""\u0085""#] {
        let rendered = render(&format!(r#"{{"id": {wrong}, "n": 1, "f": 1, "b": true}}"#));
        assert!(matches!(&rendered, Err(Rejection::Request(errors)) if errors[0].code == "BAD_USER_INPUT"), "{wrong}");
    }
}
