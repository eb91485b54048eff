use std::sync::Arc;

use super::*;
use crate::graphql::planner::tests::{GUARDED, build, plan, schema, schema_of};

const ROOM: usize = 1 << 20;

/// What a passthrough of `data` gives, and the same data read by slot: one text for both.
fn projected(query: &str, data: &str) -> String {
    let (plan, data) = (plan(query), Value::parse(data.as_bytes()).unwrap());
    project(&plan, Source::Passthrough(&data), ROOM).unwrap()
}

/// The result of `subscription { order { FIELDS } }`: its data and its errors without what is the same everywhere.
fn order(fields: &str, data: &str) -> (String, Vec<String>) {
    parts(&projected(&format!("subscription {{ order {{ {fields} }} }}"), data))
}

fn parts(result: &str) -> (String, Vec<String>) {
    let result = Value::parse(result.as_bytes()).unwrap();
    let errors = match result.get("errors") {
        Some(Value::List(errors)) => errors.clone(),
        _ => Vec::new(),
    };
    let path = |error: &Value| error.get("path").unwrap().to_json().replace('"', "");
    let code = |error: &Value| match error.at(["extensions", "code"]).and_then(Value::as_str) {
        Some("INTERNAL_SERVER_ERROR") => String::new(),
        code => format!(" {}", code.unwrap()),
    };
    let line =
        |error: &Value| format!("{} {}{}", path(error), error.get("message").unwrap().as_str().unwrap(), code(error));
    (result.get("data").unwrap().to_json(), errors.iter().map(line).collect())
}

#[test]
fn keys_stand_in_the_order_of_selection_under_their_aliases() {
    let query = r#"subscription {
        renamed: order { __typename status ...Common kind: __typename ... on Node { owner { name } } total }
    }
    fragment Common on Order { id owner { id } customerName }"#;
    let data = r#"{"__typename": "Liar", "customer_name": "Ada \"A\"", "customerName": "no", "status": "PAID", "id": 7,
        "owner": {"id": "u", "name": null}, "total": 3, "count": 1}"#;
    assert_eq!(
        projected(query, data),
        concat!(
            r#"{"data":{"renamed":{"__typename":"Order","status":"PAID","id":"7","owner":{"id":"u","name":null},"#,
            r#""customerName":"Ada \"A\"","kind":"Order","total":3.0}}}"#
        )
    );
}

#[test]
fn names_are_looked_up_in_python_then_in_graphql() {
    assert_eq!(order("customerName", r#"{"customerName": "b"}"#).0, r#"{"order":{"customerName":"b"}}"#);
    assert_eq!(
        order("customerName", r#"{"customer_name": null, "customerName": "b"}"#).0,
        r#"{"order":{"customerName":null}}"#
    );
    assert_eq!(order("customerName", "{}").0, r#"{"order":{"customerName":null}}"#);
}

#[test]
fn what_was_read_is_looked_up_by_slot() {
    let plan = plan("subscription { node { id ... on Customer { a: friends(first: 1) { id } b: friends { id } } } }");
    let tree = Value::parse(
        br#"{"__typename": "Customer", "id": 1, "friends\n{\"first\":1,}": [{"id": 2}], "friends\n{}": [{"id": 3}]}"#,
    )
    .unwrap();
    // JSON text from outside cannot hold the NUL that separates a name from its arguments.
    let members = tree.as_object().unwrap().iter();
    let tree = Value::Object(members.map(|(key, value)| (key.replace('\n', "\0").into(), value.clone())).collect());
    assert_eq!(
        project(&plan, Source::Read(&tree), ROOM).unwrap(),
        r#"{"data":{"node":{"id":"1","a":[{"id":"2"}],"b":[{"id":"3"}]}}}"#
    );
}

#[test]
fn leafs_are_serialised_like_graphql_core_does() {
    let table = include_str!("../../../tests/leafs.tsv");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [field, value, expected] = cells[..] else { panic!("three cells: {line}") };
        let (data, errors) =
            order(&format!("x: {field}"), &format!(r#"{{"id":{value},"{field}":{value},"customer_name":{value}}}"#));
        match expected.strip_prefix('!') {
            Some(message) => assert_eq!(errors, [format!("[order,x] {message}")], "{line}"),
            None => {
                let data = Value::parse(data.as_bytes()).unwrap();
                let expected = Value::parse(expected.as_bytes()).unwrap();
                assert_eq!((data.at(["order", "x"]), errors), (Some(&expected), Vec::new()), "{line}");
            }
        }
    }
}

#[test]
fn scalars_beyond_the_specification_pass_as_they_are() {
    let data = r#"{"at":"2026-01-01T00:00:00Z","price":"1.50","key":"A-b","extra":{"a":[1,null,{"b":2.5}]},"odd":[1]}"#;
    let (fields, numbers) = ("at price key extra odd", r#"{"price":12345678901234567890,"odd":3}"#);
    assert_eq!(order(fields, data), (format!(r#"{{"order":{data}}}"#), vec![]));
    assert_eq!(order("price odd", numbers), (format!(r#"{{"order":{numbers}}}"#), vec![]));
    let (data, errors) = order("at price key", r#"{"at":1,"price":true,"key":{"a":1}}"#);
    assert_eq!(data, r#"{"order":{"at":null,"price":null,"key":null}}"#);
    let hint =
        |name| format!("; where {name} is another scalar, expected Schema.from_sdl(..., scalars={{\"{name}\": ...}})");
    assert_eq!(
        errors,
        [
            format!("[order,at] DateTime cannot represent value: 1{}", hint("DateTime")),
            "[order,price] Decimal cannot represent value: True".into(),
            format!("[order,key] UUID cannot represent value: {{'a': 1}}{}", hint("UUID"))
        ]
    );
}

#[test]
fn what_is_no_json_does_not_get_out() {
    let bad = |value: Value| {
        let plan = plan("subscription { order { total count customerName extra price } }");
        let slots = ["total", "count", "customerName", "extra", "price"];
        let tree = slots.iter().map(|slot| ((*slot).into(), value.clone())).collect();
        parts(&project(&plan, Source::Read(&Value::Object(tree)), ROOM).unwrap())
    };
    let nulls = r#"{"order":{"total":null,"count":null,"customerName":null,"extra":null,"price":null}}"#;
    let (data, errors) = bad(Value::Float(f64::NAN));
    assert_eq!(data, nulls);
    assert_eq!(
        errors,
        [
            "[order,total] Float cannot represent non numeric value: nan",
            "[order,count] Int cannot represent non-integer value: nan",
            "[order,customerName] String cannot represent value: nan",
            "[order,extra] JSON cannot represent value: nan",
            "[order,price] Decimal cannot represent value: nan"
        ]
    );
    let failed = Value::Failed(Arc::new(GraphQLError::new(code::TIMEOUT, "late")));
    let (data, errors) = bad(Value::List(vec![Value::Int(1), failed]));
    assert_eq!(data, nulls);
    assert_eq!(errors[3], "[order,extra] JSON cannot represent value: [1, None]");
}

#[test]
fn messages_tell_little_of_large_values() {
    let (_, errors) = order("count", &format!(r#"{{"count":"{}"}}"#, "é".repeat(100_000)));
    assert_eq!(errors, [format!("[order,count] Int cannot represent non-integer value: '{}...", "é".repeat(59))]);
    let (_, errors) = order("count", &format!(r#"{{"count":[{}1]}}"#, "[],".repeat(100_000)));
    assert_eq!(errors[0].len(), "[order,count] Int cannot represent non-integer value: ".len() + 63);
}

#[test]
fn null_stays_where_it_may() {
    let one = |data: &str| order("items { sku amount } status", data);
    assert_eq!(
        one(r#"{"items":[{"sku":"a","amount":1},{"sku":null,"amount":"x"}],"status":"PAID"}"#),
        (
            r#"{"order":{"items":null,"status":"PAID"}}"#.into(),
            vec!["[order,items,1,sku] Cannot return null for non-nullable field Item.sku.".into()]
        )
    );
    // The first null that propagates ends its object; what has failed before it is still told.
    assert_eq!(
        order("strict { price sku amount }", r#"{"strict":[{"price":"x","sku":"a","amount":"y"}]}"#),
        (
            r#"{"order":null}"#.into(),
            vec![
                "[order,strict,0,price] Float cannot represent non numeric value: 'x'".into(),
                "[order,strict,0,amount] Int cannot represent non-integer value: 'y'".into()
            ]
        )
    );
    assert_eq!(
        order("rows", r#"{"rows":[[1,null],[2,"x"]]}"#),
        (
            r#"{"order":{"rows":[[1,null],[2,null]]}}"#.into(),
            vec!["[order,rows,1,1] Int cannot represent non-integer value: 'x'".into()]
        )
    );
    assert_eq!(
        order("rows", r#"{"rows":[[1],null]}"#),
        (
            r#"{"order":null}"#.into(),
            vec!["[order,rows,1] Cannot return null for non-nullable field Order.rows.".into()]
        )
    );
    assert_eq!(
        parts(&projected("subscription { strictOrder { id } }", "{}")),
        ("null".into(), vec!["[strictOrder,id] Cannot return null for non-nullable field Order.id.".into()])
    );
}

#[test]
fn shapes_must_fit() {
    let (data, errors) =
        order("items { sku } customer { id } owner { id }", r#"{"items":{"sku":"a"},"customer":"x","owner":[]}"#);
    assert_eq!(data, r#"{"order":{"items":null,"customer":null,"owner":null}}"#);
    assert_eq!(
        errors,
        [
            "[order,items] Expected Iterable, but did not find one for field 'Order.items'.",
            "[order,customer] Expected value of type 'Customer' but got: 'x'.",
            "[order,owner] Expected value of type 'User' but got: [...]."
        ]
    );
}

#[test]
fn abstract_types_are_told_by_typename() {
    let node = |data: &str| parts(&projected("subscription { node { id ... on Order { status } __typename } }", data));
    assert_eq!(node(r#"{"__typename":"Order","id":1}"#).0, r#"{"node":{"id":"1","status":null,"__typename":"Order"}}"#);
    assert_eq!(node(r#"{"__typename":"Customer","id":1}"#).0, r#"{"node":{"id":"1","__typename":"Customer"}}"#);
    let must = "[node] Abstract type 'Node' must resolve to an Object type at runtime for field 'Subscription.node'.";
    assert_eq!(node(r#"{"id":1}"#), (r#"{"node":null}"#.into(), vec![must.into()]));
    assert_eq!(node(r#"{"__typename":1}"#).1, [must]);
    assert_eq!(
        node(r#"{"__typename":"User"}"#).1,
        ["[node] Runtime Object type 'User' is not a possible type for 'Node'."]
    );
    let found = parts(&projected("subscription { found { ... on User { name } } }", r#"{"__typename":"Order"}"#));
    assert_eq!(found, (r#"{"found":{}}"#.into(), vec![]));
}

#[test]
fn roots_may_be_of_any_type() {
    let data = r#"{"b":[1,{"a":null}]}"#;
    assert_eq!(projected("subscription { json }", data), format!(r#"{{"data":{{"json":{data}}}}}"#));
    let tree = Value::List(vec![Value::Null, Value::Object(Default::default())]);
    assert_eq!(
        project(&plan("subscription { orders { total } }"), Source::Read(&tree), ROOM).unwrap(),
        r#"{"data":{"orders":[null,{"total":null}]}}"#
    );
}

#[test]
fn failures_are_errors_at_their_place() {
    let error = GraphQLError::new(code::TIMEOUT, "late");
    let failed = |query: &str| project(&plan(query), Source::Failed(&error), ROOM).unwrap();
    assert_eq!(
        failed("subscription {\n  é: order { id } }".replace('é', "e").as_str()),
        concat!(
            r#"{"data":{"e":null},"errors":[{"message":"late","locations":[{"line":2,"column":3}],"#,
            r#""path":["e"],"extensions":{"code":"TIMEOUT"}}]}"#
        )
    );
    assert!(failed("subscription { strictOrder { id } }").starts_with(r#"{"data":null,"errors":[{"message":"late""#));
    let items = Value::List(vec![Value::Failed(Arc::new(error.clone())), Value::Null]);
    let tree =
        Value::Object([("rows".into(), Value::List(vec![items])), ("id".into(), Value::Int(1))].into_iter().collect());
    let plan = plan("subscription { order { rows id } }");
    assert_eq!(
        parts(&project(&plan, Source::Read(&tree), ROOM).unwrap()),
        (r#"{"order":{"rows":[[null,null]],"id":"1"}}"#.into(), vec!["[order,rows,0,0] late TIMEOUT".into()])
    );
}

#[test]
fn errors_stand_in_one_order() {
    let query = "subscription { order { b: count items { amount } ... on Order { a: count b: count } } }";
    let (_, errors) = parts(&projected(query, r#"{"count":"x","items":[{"amount":1}, {}]}"#));
    let places = errors.iter().map(|error| error.split(' ').next().unwrap()).collect::<Vec<_>>();
    assert_eq!(places, ["[order,b]", "[order,items,1,amount]", "[order,a]"]);
    let text = projected(query, r#"{"count":"x"}"#);
    assert!(
        text.contains(r#""locations":[{"line":1,"column":24},{"line":1,"column":74}],"path":["order","b"]"#),
        "{text}"
    );
}

#[test]
fn a_masked_type_is_null_where_it_stands_and_the_others_are_not() {
    let schema = schema_of(GUARDED, &[]);
    let projected = |query: &str, data: &str| {
        let (plan, data) = (build(&schema, query, "{}", &[]).unwrap(), Value::parse(data.as_bytes()).unwrap());
        let read = project(&plan, Source::Read(&data), ROOM).unwrap();
        assert_eq!(project(&plan, Source::Passthrough(&data), ROOM).unwrap(), read);
        parts(&read)
    };
    let query = "subscription { plain { all { __typename id } listed { id } found { ... on Node { id } } } }";
    let (plain, secret) = (r#"{"__typename":"Plain","id":1}"#, r#"{"__typename":"Secret","id":2}"#);
    assert_eq!(
        projected(query, &format!(r#"{{"all":[[{plain},{secret},null]],"listed":[{plain}],"found":{plain}}}"#)),
        (
            r#"{"plain":{"all":[[{"__typename":"Plain","id":"1"},null,null]],"listed":[{"id":"1"}],"found":{"id":"1"}}}"#.into(),
            vec!["[plain,all,0,1] Forbidden FORBIDDEN".into()]
        )
    );
    // An item that cannot be null takes the list along.
    assert_eq!(
        projected(query, &format!(r#"{{"all":[],"listed":[{plain},{secret}],"found":{secret}}}"#)),
        (
            r#"{"plain":{"all":[],"listed":null,"found":null}}"#.into(),
            vec!["[plain,listed,1] Forbidden FORBIDDEN".into(), "[plain,found] Forbidden FORBIDDEN".into()]
        )
    );
    let (data, errors) = projected("subscription { node { id } }", secret);
    assert_eq!((data.as_str(), errors), (r#"{"node":null}"#, vec!["[node] Forbidden FORBIDDEN".into()]));
}

#[test]
fn what_is_masked_is_null_and_an_error_at_each_place() {
    let schema = schema(&[("User.email", &[&["read"]])]);
    let query = "subscription { orders { owner { mail: email id } } }";
    let tree = Value::parse(br#"[{"owner":{"id":1,"email":"secret"}},null,{"owner":{"id":2,"email":null}}]"#).unwrap();
    let plan = build(&schema, query, "{}", &[]).unwrap();
    assert_eq!(
        parts(&project(&plan, Source::Read(&tree), ROOM).unwrap()),
        (
            r#"{"orders":[{"owner":{"mail":null,"id":"1"}},null,{"owner":{"mail":null,"id":"2"}}]}"#.into(),
            vec![
                "[orders,0,owner,mail] Forbidden FORBIDDEN".into(),
                "[orders,2,owner,mail] Forbidden FORBIDDEN".into()
            ]
        )
    );
    let plan = build(&schema, query, "{}", &["read"]).unwrap();
    let (data, errors) = parts(&project(&plan, Source::Read(&tree), ROOM).unwrap());
    assert!(data.contains("secret") && errors.is_empty(), "{data} {errors:?}");
}

#[test]
fn a_result_ends_at_its_limit() {
    let plan = plan("subscription { order { items { sku price } } }");
    let items = |price: &str| {
        format!(r#"{{"items":[{}{{"sku":"b"}}]}}"#, format!(r#"{{"sku":"a","price":{price}}},"#).repeat(1000))
    };
    for data in [items("1.5"), items("\"x\"")] {
        let data = Value::parse(data.as_bytes()).unwrap();
        let whole = project(&plan, Source::Passthrough(&data), ROOM).unwrap();
        assert_eq!(project(&plan, Source::Passthrough(&data), whole.len()).as_ref(), Ok(&whole));
        for room in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
            assert_eq!(project(&plan, Source::Passthrough(&data), room), Err(TooLarge(room)));
        }
    }
}
