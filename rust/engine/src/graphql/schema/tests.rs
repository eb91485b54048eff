use super::*;
use crate::graphql::names::snake_case;
use crate::predicate::OperandKind;

/// A schema whose functions are all plain and async, one for each field of its subscription type.
pub(crate) fn schema(sdl: &str) -> Arc<Schema> {
    let (_, graphql, _) = sdl::parse(sdl.into()).expect("valid SDL");
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

fn guard(any: &[&[&str]]) -> Guard {
    let alternatives: Vec<Vec<Box<str>>> =
        any.iter().map(|all| all.iter().map(|one| Box::from(*one)).collect()).collect();
    Guard::from(alternatives)
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
    for (sdl, declarations, expected) in [
        (
            ORDERS,
            "[]",
            "Subscription.orderUpdated has no function: expected one that is called order_updated or orderUpdated, or has name=\"orderUpdated\"; or partial=True, which leaves such fields out",
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
            "f (Subscription.orderUpdated): channel \"o:{note}\": argument \"note\" is String, expected a non-null ID, String, Int, Boolean, UUID or enum",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{filter}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{filter}\": argument \"filter\" is Filter, expected a non-null ID, String, Int, Boolean, UUID or enum",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:{order_id"}]"#,
            "f (Subscription.orderUpdated): channel \"o:{order_id\": \"{order_id\" is neither a text without braces nor one placeholder: expected each placeholder \
             alone between \":\" or the ends, as in \"orders:{order_id}\"",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o-{order_id}"}]"#,
            "f (Subscription.orderUpdated): channel \"o-{order_id}\": \"o-{order_id}\" is neither a text without braces nor one placeholder: expected each placeholder \
             alone between \":\" or the ends, as in \"orders:{order_id}\"",
        ),
        (
            ORDERS,
            r#"[{"field": "orderUpdated", "function": "f", "channel": "o:order_id}"}]"#,
            "f (Subscription.orderUpdated): channel \"o:order_id}\": \"order_id}\" is neither a text without braces nor one placeholder: expected each placeholder \
             alone between \":\" or the ends, as in \"orders:{order_id}\"",
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
        ("type Subscription { a: Int } extend type Subscription { b: Int @policy(policies: [[\"x\"]]) }",
         "@policy on Subscription.b cannot be honoured: expected requires= or a function that checks (line 1, column 64)"),
        ("extend schema @link(url: \"https://specs.apollo.dev/federation/v2.5\", import: [{name: \"@policy\", as: \"@p\"}])
          type Subscription { a: Int @p }", "@p on Subscription.a cannot be honoured: expected requires= or a function that checks (line 2, column 38)"),
        ("extend schema @link(url: \"https://specs.apollo.dev/policy/v0.1\", as: \"p\") directive @p on FIELD_DEFINITION
          type Subscription { a: Int @p }", "@p on Subscription.a cannot be honoured"),
        ("type Subscription { a: Int } union U @fed__policy = Subscription extend schema @link(url: \"x/federation/v2.5\", as: \"fed\")",
         "@fed__policy on the union U cannot be honoured"),
        // What restricts access has its form.
        ("type Subscription { a: Int @authenticated(role: \"x\") }", "@authenticated on Subscription.a takes no arguments (line 1, column 28)"),
        ("directive @authenticated(role: String) on FIELD_DEFINITION type Subscription { a: Int @authenticated(role: \"x\") }",
         "@authenticated on Subscription.a takes no arguments"),
        ("type Subscription { a: Int @requiresScopes }", "@requiresScopes on Subscription.a takes one argument: scopes"),
        ("type Subscription { a: Int @requiresScopes(scope: \"a\") }", "@requiresScopes on Subscription.a takes one argument: scopes"),
        ("type Subscription { a: Int @requiresScopes(scopes: [], scopes: [[]]) }", "@requiresScopes on Subscription.a takes one argument: scopes"),
        ("type Subscription { a: Int @requiresScopes(scopes: null) }",
         "@requiresScopes on Subscription.a takes scopes that are lists of lists of strings, not null (line 1, column 28)"),
        ("type Subscription { a: Int @requiresScopes(scopes: [[\"a\", null]]) }", "@requiresScopes on Subscription.a takes scopes that"),
        ("type Subscription { a: Int @requiresScopes(scopes: [[\"a\"], 1]) }", "@requiresScopes on Subscription.a takes scopes that"),
        ("type Subscription { a: Int @requiresScopes(scopes: [[[\"a\"]]]) }", "@requiresScopes on Subscription.a takes scopes that"),
        ("type Subscription { a: Int @requiresScopes(scopes: a) }", "@requiresScopes on Subscription.a takes scopes that"),
        ("type Subscription { a: Int @requiresScopes(scopes: {a: 1}) }", "@requiresScopes on Subscription.a takes scopes that"),
        // And its places.
        ("type Subscription { a: Int } extend schema @authenticated", "@authenticated on the schema restricts nothing here: expected it on a field"),
        ("type Subscription { a: U } union U @authenticated = Subscription", "@authenticated on the union U restricts nothing here"),
        ("type Subscription { a: E } enum E { F @authenticated }", "@authenticated on the value E.F restricts nothing here"),
        ("type Subscription { a(i: I): Int } input I @authenticated { b: Int }", "@authenticated on the input I restricts nothing here"),
        ("type Subscription { a(i: I): Int } input I { b: Int @authenticated }", "@authenticated on the input field I.b restricts nothing here"),
        ("type Subscription { a(b: Int @authenticated): Int }", "@authenticated on the argument Subscription.a.b restricts nothing here"),
        ("directive @d(b: Int @authenticated) on OBJECT type Subscription { a: Int }", "@authenticated on the argument d.b restricts nothing here"),
        ("directive @authenticated on UNION type Subscription { a: U } union U @authenticated = Subscription", "@authenticated on the union U restricts nothing here"),
        // A link that is not understood may hide what restricts access.
        ("extend schema @link(url: \"https://specs.apollo.dev/federation/v2.5\", import: [\"@key\", 1]) type Subscription { a: Int }",
         "@link has an import that cannot be read: 1 (line 1, column 15)"),
        ("extend schema @link(url: \"https://specs.apollo.dev/federation/v2.5\", import: {as: \"@auth\"}) type Subscription { a: Int }",
         "@link has an import that cannot be read: {as: \"@auth\"}"),
        ("extend schema @link(url: \"x/federation/v2.5\", import: [\"@authenticated\"]) @link(url: \"x/y/v1\", import: [{name: \"@tag\", as: \"@authenticated\"}])
          type Subscription { a: Int @authenticated }", "@link imports a second directive as @authenticated"),
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

/// Each guard of a schema with this type system, as `Type.field requires ...`.
fn guards(sdl: &str) -> Vec<String> {
    let schema = schema(sdl);
    let mut guards: Vec<String> =
        schema.guards.iter().map(|(coordinate, guard)| format!("{coordinate} {guard}")).collect();
    guards.sort();
    guards
}

#[test]
fn what_restricts_access_is_read_under_any_name() {
    let federation = "https://specs.apollo.dev/federation/v2.5";
    for (head, directive) in [
        (String::new(), "authenticated"),
        (String::new(), "federation__authenticated"),
        ("directive @authenticated on FIELD_DEFINITION | OBJECT".into(), "authenticated"),
        (format!(r#"extend schema @link(url: "{federation}", import: ["@authenticated"])"#), "authenticated"),
        (format!(r#"extend schema @link(url: "{federation}", import: "@authenticated")"#), "authenticated"),
        // Not imported; the namespace is there all the same.
        (format!(r#"extend schema @link(url: "{federation}")"#), "federation__authenticated"),
        (format!(r#"extend schema @link(url: "{federation}")"#), "authenticated"),
        (format!(r#"extend schema @link(url: "{federation}", import: [{{name: "@authenticated", as: "@auth"}}])"#), "auth"),
        (format!(r#"extend schema @link(url: "{federation}", import: {{name: "@authenticated", as: "@auth"}})"#), "auth"),
        (
            format!(
                r#"directive @auth on FIELD_DEFINITION
                extend schema @link(url: "{federation}", import: [{{name: "@authenticated", as: "auth"}}])"#
            ),
            "auth",
        ),
        (format!(r#"schema @link(url: "{federation}", as: "fed") {{ subscription: Subscription }}"#), "fed__authenticated"),
        (format!(r#"extend schema @link(url: "{federation}/", as: "my_") @link(url: "x/my")"#), "my___authenticated"),
        (format!(r#"directive @a__b__authenticated on FIELD_DEFINITION extend schema @link(url: "x/a") @link(url: "{federation}", as: "a__b")"#), "a__b__authenticated"),
        (r#"extend schema @link(url: "https://specs.apollo.dev/authenticated/v0.1", for: SECURITY)"#.into(), "authenticated"),
        (r#"extend schema @link(url: "https://specs.apollo.dev/authenticated/v0.1?x#y", as: "auth")"#.into(), "auth"),
        (r#"extend schema @link(url: "https://specs.apollo.dev/authenticated/v0.1", import: [{name: "@authenticated", as: "@a"}])"#.into(), "a"),
        (r#"extend schema @core(feature: "https://specs.apollo.dev/authenticated/v0.1", as: "auth")"#.into(), "auth"),
        // The link's own specification is linked under another name.
        (
            format!(
                r#"extend schema @by(url: "https://specs.apollo.dev/link/v1.0", as: "by")
                @by(url: "{federation}", import: [{{name: "@authenticated", as: "@auth"}}])"#
            ),
            "auth",
        ),
    ] {
        let sdl = format!("{head} type Subscription {{ a: Int @{directive} b: Int }}");
        assert_eq!(guards(&sdl), ["Subscription.a requires a user_id"], "{sdl}");
    }
    for (head, directive) in [
        (String::new(), "requiresScopes"),
        (String::new(), "federation__requiresScopes"),
        ("directive @requiresScopes(scopes: [[String!]!]!) on FIELD_DEFINITION".into(), "requiresScopes"),
        (
            format!(
                r#"extend schema @link(url: "{federation}", import: ["Scope", {{name: "@requiresScopes", as: "@scopes"}}])"#
            ),
            "scopes",
        ),
        (format!(r#"extend schema @link(url: "{federation}", as: "fed")"#), "fed__requiresScopes"),
        (r#"extend schema @link(url: "https://specs.apollo.dev/requiresScopes/v0.1", as: "scopes")"#.into(), "scopes"),
    ] {
        let sdl = format!(r#"{head} type Subscription {{ a: Int @{directive}(scopes: [["a", "b"], ["c"]]) b: Int }}"#);
        assert_eq!(guards(&sdl), ["Subscription.a requires 'c', or 'a' and 'b'"], "{sdl}");
    }
    // One of the user's own is none of these.
    let own = r#"directive @auth on FIELD_DEFINITION directive @mine__authenticated on FIELD_DEFINITION
        extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key"])
        type Subscription { a: Int @auth b: Int @mine__authenticated }"#;
    assert_eq!(guards(own), [""; 0]);
}

#[test]
fn scopes_are_coerced_as_lists_are() {
    for (scopes, expected) in [
        (r#""a""#, "requires 'a'"),
        (r#"["a", "b"]"#, "requires 'a', or 'b'"),
        (r#"["a", ["b", "c"]]"#, "requires 'a', or 'b' and 'c'"),
        (r#"[["a", "b"]]"#, "requires 'a' and 'b'"),
        (r#"[["""a""", "a"]]"#, "requires 'a'"),
        ("[]", "is for nobody"),
        ("[[]]", "is for everybody"),
        (r#"[["a"], []]"#, "is for everybody"),
    ] {
        let sdl = format!("type Subscription {{ a: Int @requiresScopes(scopes: {scopes}) }}");
        assert_eq!(guards(&sdl), [format!("Subscription.a {expected}")], "{sdl}");
    }
}

#[test]
fn a_guard_on_a_type_holds_wherever_it_is_given() {
    assert_eq!(
        guards(
            r#"type Subscription @authenticated { a: A s: Int n: N m: [M!]! u: U d: D }
            interface N @requiresScopes(scopes: "n") { id: ID e: E @requiresScopes(scopes: "field") }
            interface M implements N { id: ID e: E }
            type A implements N & M { id: ID e: E }
            type B implements N { id: ID e: E a: [[A]!] }
            type C { a: Int }
            union U = B | C
            extend type A @requiresScopes(scopes: "a")
            extend type A @authenticated
            enum E @requiresScopes(scopes: "e") { F }
            scalar D
            extend scalar D @requiresScopes(scopes: "d")
            extend scalar ID @requiresScopes(scopes: "id")
            extend type C { more: String @requiresScopes(scopes: "c") }"#
        ),
        [
            "A requires a user_id and 'a' and 'n'",
            "A.e requires 'e' and 'field'",
            "A.id requires 'id'",
            "B requires 'n'",
            "B.a requires a user_id and 'a' and 'n'",
            "B.e requires 'e' and 'field'",
            "B.id requires 'id'",
            "C.more requires 'c'",
            "D requires 'd'",
            "E requires 'e'",
            "ID requires 'id'",
            "M requires 'n'",
            "M.e requires 'field'",
            "N requires 'n'",
            "N.e requires 'field'",
            "Subscription requires a user_id",
            "Subscription.a requires a user_id and 'a' and 'n'",
            "Subscription.d requires a user_id and 'd'",
            "Subscription.m requires a user_id and 'n'",
            "Subscription.n requires a user_id and 'n'",
            "Subscription.s requires a user_id",
            "Subscription.u requires a user_id",
        ]
    );
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
        requires: [("Subscription.a".to_owned(), guard(&[&["p"]]))].into(),
        ..SchemaInput::default()
    };
    let schema = Schema::build(input).expect("a schema");
    assert_eq!(schema.python_name("S.a.anId"), "other");
    assert_eq!(schema.guard("S", "a"), Some(&guard(&[&["p"]])));
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
        declarations: vec![Declaration { requires: Some(guard(&[&["root"]])), ..declaration("n") }],
        requires: serde_json::from_str(requires).expect("guards"),
        ..SchemaInput::default()
    }
    };
    let schema = Schema::build(input(r#"{"N.id": [["a"], ["b"]], "A.id": [["c", "d"]]}"#)).expect("a schema");
    assert_eq!(schema.guard("A", "id"), Some(&guard(&[&["a", "c", "d"], &["b", "c", "d"]])));
    assert_eq!(schema.guard("B", "id"), Some(&guard(&[&["a"], &["b"]])));
    assert_eq!(schema.guard("Subscription", "n"), Some(&guard(&[&["root"]])));
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
        let found = arguments.iter().find(|argument| python_name(&argument.name) == name)?;
        schema.operand_kind(&found.ty, &path.collect::<Vec<_>>(), false)
    };
    use OperandKind::{DateTime, Id, Json, Untyped};
    for (path, expected) in [
        ("order_id", Some(Id)),
        ("ids", Some(Id)),
        ("at", Some(DateTime)),
        ("note", Some(Json)),
        ("meta", Some(Untyped)),
        ("filter", Some(Json)),
        ("filter.tenant_id", Some(Id)),
        ("filter.since", Some(DateTime)),
        ("filter.minimum", Some(Json)),
        ("filter.nested", Some(Json)),
        ("meta.any.thing", Some(Untyped)),
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
    let declared = r#"[{"field": "a", "function": "f", "channel": "o:{order_id}:{n}:{b}:{e}"}]"#;
    let sdl = "type Subscription { a(orderId: ID!, n: Int = 1, b: Boolean!, e: E! = X): Int } enum E { X }";
    let schema = build(sdl, declared).expect("a schema");
    let channel = schema.fields["a"].channel.as_ref().expect("a channel");
    let render = |id: &str, n: &str| {
        let json = format!(r#"{{"order_id": {id}, "n": {n}, "b": true, "e": "X"}}"#);
        channel.render(&Value::parse(json.as_bytes()).expect("JSON")).map_err(|rejection| rejection.errors())
    };
    assert_eq!(render(r#""x y""#, "-3").expect("a channel"), "o:x y:-3:true:X");
    assert_eq!(render(r#""a:%\u00e9""#, "1").expect("a channel"), "o:a%3A%25é:1:true:X");
    let too_long = format!("\"{}\"", ":".repeat(400));
    for (id, n, expected) in [
        (r#""a\n""#, "1", "Argument 'orderId' is part of a channel's name: it must not hold control characters."),
        (r#""\u0085""#, "1", "Argument 'orderId' is part of a channel's name: it must not hold control characters."),
        (&*too_long, "1", "Argument 'orderId' is part of a channel's name: the name would be longer than 1024 bytes."),
        (r#""a""#, "null", "Argument 'n' is part of a channel's name: it must not be null."),
    ] {
        let errors = render(id, n).expect_err(id);
        assert_eq!((&*errors[0].code, &*errors[0].message), ("BAD_USER_INPUT", expected));
    }
}

#[test]
fn two_fields_never_share_a_channel_by_a_client_s_choice() {
    let declared = |one: &str, other: &str| {
        let fields = format!(
            r#"[{{"field": "a", "function": "f", "channel": "{one}"}}, {{"field": "b", "function": "g", "channel": "{other}"}}]"#
        );
        build("type Subscription { a(x: ID!): Int b(x: ID!): Int }", &fields).map(|_| ()).map_err(|error| error.0)
    };
    let expected = "f (channel \"o:{x}\") and g (channel \"o:all\") can have the same channel: a value of one is the text of the \
        other. Expected channels that always differ, as \"orders:id:{id}\" and \"orders:all\" do";
    assert_eq!(declared("o:{x}", "o:all"), Err(expected.to_owned()));
    assert_eq!(declared("o:{x}", "o:{x}"), Ok(()));
    assert_eq!(declared("o:{x}", "o:50%"), Ok(()));
}
