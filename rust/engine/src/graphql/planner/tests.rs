use super::*;
use crate::graphql::field::Declaration;
use crate::graphql::reads::{ReadField, ReadObject, ReadType};
use crate::graphql::schema::SchemaInput;
use crate::security::fields::refusal;
use crate::viewer::Viewer;

pub(crate) const SDL: &str = r#"
    directive @guarded on FIELD_DEFINITION
    scalar JSON scalar DateTime scalar Decimal scalar UUID scalar Odd
    type Query { _empty: Boolean }
    enum Status { OPEN PAID }
    interface Node { id: ID! owner: User kids: [Node!] }
    type Customer implements Node { id: ID! owner: User kids: [Node!] name: String! friends(first: Int): [Customer!] }
    type User { id: ID! name: String email: String secret: String! }
    type Item { sku: String! amount: Int! price: Float }
    type Order implements Node {
        id: ID! owner: User kids: [Node!] status: Status customerName: String total: Float count: Int open: Boolean at: DateTime
        price: Decimal key: UUID extra: JSON odd: Odd items: [Item!] rows: [[Int]!]! strict: [Item!]! customer: Customer
    }
    union Found = Order | User
    type Subscription {
        order: Order strictOrder: Order! orders: [Order] node: Node found: Found! number: Int json: JSON withArguments(id: ID): Order
    }
"#;

pub(crate) fn schema(guarded: &[(&str, &[&[&str]])]) -> Arc<Schema> {
    schema_of(SDL, guarded)
}

/// A schema whose functions are all plain, with guards on some of its fields.
pub(crate) fn schema_of(sdl: &str, guarded: &[(&str, &[&[&str]])]) -> Arc<Schema> {
    let guard = |any: &[&[&str]]| {
        let alternatives = any.iter().map(|all| all.iter().map(|one| Box::from(*one)).collect());
        Guard::from(alternatives.collect::<Vec<_>>())
    };
    let (_, graphql, _) = crate::graphql::sdl::parse(sdl.into()).unwrap();
    let declarations = graphql.get_object("Subscription").unwrap().fields.keys().map(|name| Declaration {
        field: name.to_string(),
        function: name.to_string(),
        channel: name.to_string(),
        ..Declaration::default()
    });
    let input = SchemaInput {
        sdl: sdl.into(),
        declarations: declarations.collect(),
        requires: guarded.iter().map(|(field, any)| (field.to_string(), guard(any))).collect(),
        ..SchemaInput::default()
    };
    Schema::build(input).unwrap()
}

/// A plan for the first operation of `query`; `variables` are coerced already.
pub(crate) fn build(schema: &Schema, query: &str, variables: &str, held: &[&str]) -> Result<Arc<Plan>, Rejection> {
    let document = ExecutableDocument::parse_and_validate(&schema.graphql, query, "").unwrap();
    let operation = document.operations.iter().next().unwrap();
    let variables = Value::parse(variables.as_bytes()).unwrap();
    let permissions = held.iter().map(|one| Box::from(*one)).collect();
    let viewer = Viewer { permissions, ..Viewer::default() };
    let refuse = |guarded: &str, guard: &Guard| refusal(guarded, Some(guard), &viewer);
    let plan = Plan::build(schema, operation, &document, variables.as_object().unwrap(), usize::MAX, &refuse);
    plan.map(Arc::new)
}

/// A plan without variables and guards.
pub(crate) fn plan(query: &str) -> Arc<Plan> {
    build(&schema(&[]), query, "{}", &[]).unwrap()
}

fn names(reads: &ReadType) -> String {
    match reads {
        ReadType::Leaf(_) => String::new(),
        ReadType::List(item) => format!("[{}]", names(item)),
        ReadType::Object(object) => {
            let field = |field: &ReadField| format!("{}{}", field.key.slot.replace('\0', ""), names(&field.ty));
            let fields: Vec<String> = object.fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(" "))
        }
        ReadType::Abstract(objects) => {
            let object = |object: &Arc<ReadObject>| {
                format!("{}{}", object.type_name, names(&ReadType::Object(Arc::clone(object))))
            };
            objects.iter().map(object).collect::<Vec<_>>().join("|")
        }
    }
}

fn keys(selection: &Selection) -> Vec<&str> {
    selection.fields.iter().map(|field| field.place.response_key()).collect()
}

fn told(result: Result<Arc<Plan>, Rejection>) -> String {
    match result.unwrap_err() {
        Rejection::Request(errors) => crate::error::errors_json(&errors),
        other => other.to_string(),
    }
}

#[test]
fn equal_keys_are_merged_all_the_way_down() {
    let plan = plan(
        "subscription { order { ...A id customer { b: name } ...B ...A ... { status } } }
        fragment A on Node { id owner { id } ... on Order { customer { a: name } } ... on Customer { name } }
        fragment B on Found { ... on Order { customer { b: name owner { name } } owner { name id } } }",
    );
    let Shape::Object(order) = &plan.root.ty.shape else { panic!() };
    assert_eq!(keys(order), ["id", "owner", "customer", "status"]);
    let Shape::Object(customer) = &order.fields[2].ty.shape else { panic!() };
    assert_eq!(keys(customer), ["a", "b", "owner"]);
    assert_eq!(names(&plan.reads.ty), "{id owner{id name} customer{name owner{name}} status}");
    assert_eq!(
        plan.selected.join(" "),
        "id owner owner.id owner.name customer customer.name customer.owner customer.owner.name status"
    );
    assert_eq!(order.fields[0].place.locations.len(), 2);
}

#[test]
fn skip_and_include_are_decided_here() {
    let query = "subscription ($yes: Boolean! = true, $no: Boolean = false) { order {
        a: id @skip(if: $yes) b: id @include(if: $no) c: id @skip(if: $no) @include(if: $yes) d: id @skip(if: true) @include(if: true)
        ... @include(if: $no) { e: id } ...F @skip(if: $yes) ...F f: id @include(if: true)
    } } fragment F on Order { g: id }";
    let schema = schema(&[]);
    let found = build(&schema, query, r#"{"yes": true, "no": false}"#, &[]).unwrap();
    let Shape::Object(order) = &found.root.ty.shape else { panic!() };
    assert_eq!(keys(order), ["c", "g", "f"]);
    let refused = told(build(&schema, query, r#"{"yes": true, "no": null}"#, &[]));
    assert!(refused.contains("must not be null") && refused.contains("BAD_USER_INPUT"), "{refused}");
}

#[test]
fn every_possible_type_has_its_own_fields() {
    let plan = plan("subscription { node { id ... on Customer { __typename friends(first: 2) { id } } } }");
    assert_eq!(names(&plan.reads.ty), "Customer{id friends{\"first\":2,}[{id}]}|Order{id}");
    assert_eq!(plan.selected.join(" "), "id friends friends.id");
    let Shape::Abstract(possible) = &plan.root.ty.shape else { panic!() };
    assert_eq!(keys(possible.types["Customer"].as_ref().unwrap()), ["id", "__typename", "friends"]);
}

#[test]
fn arguments_below_the_root_are_coerced_and_part_of_the_slot() {
    let query = "subscription ($n: Int) { order { customer { a: friends(first: 1) { id } b: friends(first: $n) { name } c: friends { id } } } }";
    let schema = schema(&[]);
    let one = build(&schema, query, r#"{"n": 1}"#, &[]).unwrap();
    assert_eq!(names(&one.reads.ty), "{customer{friends{\"first\":1,}[{id name}] friends{}[{id}]}}");
    let two = build(&schema, query, r#"{"n": 2}"#, &[]).unwrap();
    assert_eq!(
        names(&two.reads.ty),
        "{customer{friends{\"first\":1,}[{id}] friends{\"first\":2,}[{name}] friends{}[{id}]}}"
    );
    assert_eq!(one.selected, two.selected);
    let ReadType::Object(order) = &two.reads.ty else { panic!() };
    let ReadType::Object(customer) = &order.fields[0].ty else { panic!() };
    assert_eq!(customer.fields[1].key.arguments.as_deref().unwrap().to_json(), r#"{"first":2}"#);
    // The root's own arguments do not make a plan another one.
    let root = build(&schema, "subscription { withArguments(id: 1) { id } }", "{}", &[]).unwrap();
    assert_eq!((&*root.root.key.slot, root.root.key.arguments.is_none()), ("withArguments", true));
}

#[test]
fn a_guard_holds_wherever_its_field_is_reached() {
    let refused = |guarded: &[(&str, &[&[&str]])], query: &str, held: &[&str]| {
        matches!(build(&schema(guarded), query, "{}", held), Err(Rejection::Forbidden(_)))
    };
    // A root field, whatever its type.
    let root: &[(&str, &[&[&str]])] = &[("Subscription.order", &[&["a", "b"], &["c"]])];
    for (held, expected) in [(&[][..], true), (&["a"], true), (&["a", "b"], false), (&["c"], false)] {
        assert_eq!(refused(root, "subscription { order { id } }", held), expected, "{held:?}");
    }
    // A nested one that cannot be null, through aliases, fragments and types behind interfaces and unions.
    let secret: &[(&str, &[&[&str]])] = &[("User.secret", &[&["a"]])];
    for query in [
        "subscription { order { owner { x: secret } } }",
        "subscription { node { ...F } } fragment F on Node { kids { owner { ... { secret } } } }",
        "subscription { found { ... on User { secret } } }",
    ] {
        assert!(refused(secret, query, &["b"]) && !refused(secret, query, &["a"]), "{query}");
    }
    // One on an interface's field, where the field is selected on the object type; null there is null.
    let id: &[(&str, &[&[&str]])] = &[("Node.id", &[&["a"]]), ("Node.owner", &[&["a"]])];
    assert!(refused(id, "subscription { order { id } }", &[]));
    let plan = build(&schema(id), "subscription { order { owner { id } status } }", "{}", &[]).unwrap();
    assert_eq!((names(&plan.reads.ty), plan.selected.join(",")), ("{status}".to_owned(), "status".to_owned()));
    // Behind one type only.
    let order: &[(&str, &[&[&str]])] = &[("Order.id", &[&["a"]])];
    assert!(refused(order, "subscription { node { id } }", &[]));
    assert!(!refused(order, "subscription { node { ... on Customer { id } } }", &[]));
}

pub(crate) const GUARDED: &str = r#"
    interface Node { id: ID! secret: Secret }
    type Plain implements Node { id: ID! secret: Secret strict: Node! listed: [Node!] all: [[Node]!]! none: [[Node!]!]! found: Found }
    type Secret implements Node @requiresScopes(scopes: "see") { id: ID! secret: Secret own: String @requiresScopes(scopes: "own") }
    union Found = Plain | Secret
    type Subscription { node: Node strict: Node! plain: Plain secret: Secret found: Found }
"#;

#[test]
fn a_guarded_type_is_masked_where_it_may_stand() {
    let schema = schema_of(GUARDED, &[]);
    let plan = |fields: &str, held: &[&str]| build(&schema, &format!("subscription {{ {fields} }}"), "{}", held);
    // Behind an interface it is told from the others, and not read.
    let masked = plan("node { id __typename ... on Secret { own } }", &["own"]).unwrap();
    assert_eq!(names(&masked.reads.ty), "Plain{id}|Secret{}");
    assert_eq!((masked.selected.join(" ").as_str(), masked.masked.join(" ").as_str()), ("id", "Subscription.node"));
    let seen = plan("node { id __typename ... on Secret { own } }", &["see"]).unwrap();
    assert_eq!(names(&seen.reads.ty), "Plain{id}|Secret{id}");
    assert_eq!(seen.masked.join(" "), "Secret.own");
    // Where a field gives nothing else it is masked as a whole, wherever it stands in the document.
    let query = "plain { x: secret { id } ...F found { ... on Node { id } ... on Secret { secret { id } } } } }
        fragment F on Node { ... { y: secret { own } } id";
    let nested = plan(query, &["own"]).unwrap();
    assert_eq!(names(&nested.reads.ty), "{id foundPlain{id}|Secret{}}");
    assert_eq!(nested.masked.join(" "), "Plain.found Plain.secret");
    // Two masked types at one place stay two.
    assert_eq!(plan("plain { listed { id } all { id } found { __typename } }", &[]).unwrap().masked.len(), 3);
}

#[test]
fn a_type_that_is_refused_where_nothing_can_be_null_refuses() {
    let schema = schema_of(GUARDED, &[]);
    for (fields, reason) in [
        ("secret { id }", "Subscription.secret requires 'see'; the viewer lacks 'see'"),
        ("strict { id }", "Subscription.strict may give Secret, which requires 'see'; the viewer lacks 'see'"),
        (
            "plain { s: strict { __typename } }",
            "Plain.strict may give Secret, which requires 'see'; the viewer lacks 'see'",
        ),
        (
            "node { ... on Plain { none { id } } }",
            "Plain.none may give Secret, which requires 'see'; the viewer lacks 'see'",
        ),
    ] {
        let query = format!("subscription {{ {fields} }}");
        match build(&schema, &query, "{}", &["own"]) {
            Err(Rejection::Forbidden(refusal)) => assert_eq!(refusal.reason, reason),
            other => panic!("{query}: {other:?}"),
        }
        build(&schema, &query, "{}", &["see"]).unwrap();
    }
    for fields in ["plain { listed { id } }", "plain { all { id } }", "found { ... on Node { id } }"] {
        build(&schema, &format!("subscription {{ {fields} }}"), "{}", &[]).unwrap();
    }
}

#[test]
fn a_selection_may_be_deep_but_not_without_end() {
    let nested = |depth: usize| {
        let query =
            format!("subscription {{ node {{ {} id {} }} }}", "kids { owner { id } ".repeat(depth), "}".repeat(depth));
        build(&schema(&[]), &query, "{}", &[])
    };
    // Two types at each of many levels are still planned once a level.
    assert_eq!(nested(60).unwrap().selected.len(), 3 * 60 + 1);
    let wide: String = (0..200).map(|at| format!("...F{at} ")).collect();
    let fragments: String =
        (0..200).map(|at| format!("fragment F{at} on Order {{ {} }} ", "id ".repeat(100))).collect();
    let wide = format!("subscription {{ order {{ {wide} }} }} {fragments}");
    assert!(told(build(&schema(&[]), &wide, "{}", &[])).contains("LIMIT_EXCEEDED"));
}

#[test]
fn places_count_lines_and_characters() {
    let plan = plan("# é\r\nsubscription {\r order { # ü\n  a: id, status } }");
    let Shape::Object(order) = &plan.root.ty.shape else { panic!() };
    assert_eq!(*plan.root.place.locations, [(3, 2)]);
    assert_eq!([&*order.fields[0].place.locations, &*order.fields[1].place.locations], [[(4, 3)], [(4, 10)]]);
}
