//! Predicates and the index against a naive model, as tables, and by what they allocate.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cases::config;
use chrono::DateTime;
use fraiseql_subs_engine::event::{Audience, Event};
use fraiseql_subs_engine::matching::{Condition, Index, Verdict, Withheld};
use fraiseql_subs_engine::predicate::{Bound, Expr, OperandKind, Predicate};
use fraiseql_subs_engine::security::federation::{Sources, intersect};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

#[path = "common/cases.rs"]
mod cases;

// ---- What stands around a predicate --------------------------------------------------------------------------------------

fn argument_kind(name: &str, path: &[String]) -> Option<OperandKind> {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    match (name, path.as_slice()) {
        ("id" | "ids", []) | ("filter", ["id"]) => Some(OperandKind::Id),
        ("at" | "ats", []) => Some(OperandKind::DateTime),
        ("amount" | "amounts", []) => Some(OperandKind::Decimal),
        ("day", []) => Some(OperandKind::Date),
        ("status", []) => Some(OperandKind::Enum),
        ("any" | "filter", []) | ("filter", ["any"]) => Some(OperandKind::Untyped),
        _ => None,
    }
}

fn value(json: &Json) -> Value {
    Value::parse(json.to_string().as_bytes()).unwrap()
}

fn event(event_type: &str, data: &Json, previous: Option<&Json>) -> Event {
    Event {
        id: "1".into(),
        event_type: event_type.into(),
        channel: "orders".into(),
        audience: Audience::Tenant(None),
        source: None,
        published_at: DateTime::UNIX_EPOCH,
        data: value(data),
        size: 0,
        previous: previous.map(value),
        position: fraiseql_subs_engine::event::Position::default(),
    }
}

fn viewer(fields: &Json) -> Viewer {
    let expires_at = fields["expires_at"].as_str().map(|text| DateTime::parse_from_rfc3339(text).unwrap().to_utc());
    let mut fields = fields.clone();
    fields.as_object_mut().unwrap().remove("expires_at");
    Viewer { expires_at, fields: value(&fields), ..Viewer::default() }
}

fn compile(expr: &Json) -> Result<Predicate, String> {
    let expr: Expr = serde_json::from_str(&expr.to_string()).map_err(|error| error.to_string())?;
    Predicate::compile(&expr, &argument_kind)
}

fn bind(expr: &Json, arguments: &Json, fields: &Json) -> Bound {
    compile(expr).unwrap().bind(&value(arguments), &viewer(fields))
}

/// The truth of a predicate as the engine shows it: whether it, and its negation, are true.
fn truth(expr: &Json, arguments: &Json, fields: &Json, data: &Json, previous: Option<&Json>) -> Option<bool> {
    let event = event("e", data, previous);
    let [yes, no] = [expr.clone(), json!(["~", expr])].map(|expr| bind(&expr, arguments, fields).holds(&event));
    assert!(!(yes && no), "{expr}");
    (yes || no).then_some(yes)
}

// ---- The model: the contract's sentences in the most obvious way ----------------------------------------------------------

#[derive(Clone, Copy)]
struct World<'a> {
    arguments: &'a Json,
    viewer: &'a Json,
    data: &'a Json,
    previous: Option<&'a Json>,
}

#[derive(Clone, Debug)]
enum Model {
    Null,
    IllTyped,
    Id(String),
    Enum(String),
    Instant(DateTime<chrono::Utc>),
    Day(String),
    Decimal(i128),
    TypedList(Vec<Model>),
    Typed(Json),
}

fn typed(kind: OperandKind, json: &Json) -> Model {
    match (kind, json) {
        (_, Json::Null) => Model::Null,
        (OperandKind::Json | OperandKind::Untyped, json) => Model::Typed(json.clone()),
        (kind, Json::Array(items)) => Model::TypedList(items.iter().map(|item| typed(kind, item)).collect()),
        (OperandKind::Id, json) => id_text(&Model::Typed(json.clone())).map_or(Model::IllTyped, Model::Id),
        (OperandKind::Enum, json) => name(&Model::Typed(json.clone())).map_or(Model::IllTyped, Model::Enum),
        (OperandKind::DateTime, json) => instant(&Model::Typed(json.clone())).map_or(Model::IllTyped, Model::Instant),
        (OperandKind::Date, json) => day(&Model::Typed(json.clone())).map_or(Model::IllTyped, Model::Day),
        (OperandKind::Decimal, json) => decimal(&Model::Typed(json.clone())).map_or(Model::IllTyped, Model::Decimal),
        (OperandKind::Time, _) => panic!("times of day have tests of their own"),
    }
}

fn name(model: &Model) -> Option<String> {
    match model {
        Model::Enum(text) | Model::Typed(Json::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn day(model: &Model) -> Option<String> {
    match model {
        Model::Day(text) => Some(text.clone()),
        Model::Typed(Json::String(text)) => (text.len() == 10 && text.starts_with("202")).then(|| text.clone()),
        _ => None,
    }
}

fn decimal(model: &Model) -> Option<i128> {
    match model {
        Model::Decimal(number) => Some(*number),
        Model::Typed(Json::String(text)) => fixed(&serde_json::from_str(text).ok()?),
        Model::Typed(json) => fixed(json),
        _ => None,
    }
}

/// What stands in `decimal(...)`.
fn as_decimal(model: Model) -> Model {
    match model {
        Model::Null => Model::Null,
        Model::Typed(Json::Array(items)) => {
            Model::TypedList(items.iter().map(|item| typed(OperandKind::Decimal, item)).collect())
        }
        Model::TypedList(items) => Model::TypedList(items.into_iter().map(as_decimal).collect()),
        Model::Typed(json) => typed(OperandKind::Decimal, &json),
        Model::Decimal(_) => model,
        _ => Model::IllTyped,
    }
}

fn id_text(model: &Model) -> Option<String> {
    match model {
        Model::Id(text) | Model::Enum(text) => Some(text.clone()),
        Model::Typed(Json::String(text)) => Some(text.clone()),
        Model::Typed(Json::Number(number)) => {
            let text = number.to_string();
            text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()).then_some(text)
        }
        _ => None,
    }
}

fn instant(model: &Model) -> Option<DateTime<chrono::Utc>> {
    match model {
        Model::Instant(instant) => Some(*instant),
        Model::Typed(Json::String(text)) => Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc()),
        _ => None,
    }
}

/// The value, whether it exists, and whether it is null.
fn operand(operand: &Json, world: World<'_>) -> (Model, bool, bool) {
    let keys = |path: &Json| -> Vec<String> { serde_json::from_value(path.clone()).unwrap() };
    let walk = |root: Option<&Json>, path: &[String]| -> Option<Json> {
        let mut at = root?.clone();
        for key in path {
            at = at.as_object()?.get(key)?.clone();
        }
        Some(at)
    };
    let present = |found: Option<Json>, kind| match found {
        None => (Model::Null, false, false),
        Some(Json::Null) => (Model::Null, true, true),
        Some(json) => (typed(kind, &json), true, false),
    };
    match operand[0].as_str().unwrap() {
        "data" => present(walk(Some(world.data), &keys(&operand[1])), OperandKind::Json),
        "previous" => present(walk(world.previous, &keys(&operand[1])), OperandKind::Json),
        "argument" => {
            let (name, path) = (operand[1].as_str().unwrap(), keys(&operand[2]));
            let root = world.arguments.get(name);
            let found = walk(root, &path);
            if found.is_none() {
                return (Model::Null, false, true);
            }
            present(found, argument_kind(name, &path).unwrap())
        }
        "viewer" => {
            let (name, path) = (operand[1].as_str().unwrap(), keys(&operand[2]));
            let root = world.viewer.get(name);
            if path.is_empty() && root.is_none_or(Json::is_null) {
                return (Model::Null, false, true);
            }
            let kind = match name {
                "user_id" | "tenant_id" => OperandKind::Id,
                "expires_at" => OperandKind::DateTime,
                _ => OperandKind::Json,
            };
            present(walk(root, &path), kind)
        }
        "decimal" => {
            let (inner, exists, is_null) = self::operand(&operand[1], world);
            // The arguments of these tests are read anew, by the kind that they are to have.
            let read = match operand[1][0].as_str() {
                Some("argument") if !matches!(inner, Model::Null) => {
                    let path = keys(&operand[1][2]);
                    let found = walk(world.arguments.get(operand[1][1].as_str().unwrap()), &path);
                    found.map_or(Model::Null, |json| typed(OperandKind::Decimal, &json))
                }
                _ => as_decimal(inner),
            };
            (read, exists, is_null)
        }
        "number" => present(Some(operand[1].clone()), OperandKind::Decimal),
        "literal" => present(Some(operand[1].clone()), OperandKind::Json),
        "id" => present(Some(operand[1].clone()), OperandKind::Id),
        "datetime" => present(Some(operand[1].clone()), OperandKind::DateTime),
        "list" => {
            let items = operand[1].as_array().unwrap();
            if items.iter().all(|item| item[0] == "literal") {
                let plain: Vec<Json> = items.iter().map(|item| item[1].clone()).collect();
                return (Model::Typed(plain.into()), true, false);
            }
            (Model::TypedList(items.iter().map(|item| self::operand(item, world).0).collect()), true, false)
        }
        other => panic!("{other}"),
    }
}

/// As a fixed point number: those of these tests have at most 18 decimals and no exponent.
fn fixed(json: &Json) -> Option<i128> {
    let Json::Number(number) = json else { return None };
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{fraction:0<18}").parse().ok()
}

fn same_json(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(_), Json::Number(_)) => fixed(left) == fixed(right),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_json(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same_json(value, other)))
        }
        _ => left == right,
    }
}

fn items(model: &Model) -> Option<Vec<Model>> {
    match model {
        Model::TypedList(items) => Some(items.clone()),
        Model::Typed(Json::Array(items)) => Some(items.iter().map(|item| typed(OperandKind::Json, item)).collect()),
        _ => None,
    }
}

fn equal(left: &Model, right: &Model) -> Option<bool> {
    use Model::{Day, Decimal, Enum, Id, IllTyped, Instant, Null, Typed, TypedList};
    match (left, right) {
        (Null | IllTyped, _) | (_, Null | IllTyped) => None,
        (Typed(left), Typed(right)) => Some(same_json(left, right)),
        (TypedList(_), _) | (_, TypedList(_)) => {
            let (left, right) = (items(left)?, items(right)?);
            if left.len() != right.len() {
                return Some(false);
            }
            conjunction(left.iter().zip(&right).map(|(left, right)| match (left, right) {
                (Null, Null) => Some(true),
                (Null, _) | (_, Null) => Some(false),
                (left, right) => equal(left, right),
            }))
        }
        (Decimal(_), _) | (_, Decimal(_)) => Some(decimal(left)? == decimal(right)?),
        (Instant(_), _) | (_, Instant(_)) => Some(instant(left)? == instant(right)?),
        (Day(_), _) | (_, Day(_)) => Some(day(left)? == day(right)?),
        (Id(_), _) | (_, Id(_)) => Some(id_text(left)? == id_text(right)?),
        (Enum(_), _) | (_, Enum(_)) => Some(name(left)? == name(right)?),
    }
}

fn order(left: &Model, right: &Model) -> Option<Ordering> {
    use Model::{Day, Decimal, Enum, Id, Instant, Typed};
    match (left, right) {
        (Decimal(_), _) | (_, Decimal(_)) => Some(decimal(left)?.cmp(&decimal(right)?)),
        (Day(_), _) | (_, Day(_)) => Some(day(left)?.cmp(&day(right)?)),
        (Instant(_), _) | (_, Instant(_)) => Some(instant(left)?.cmp(&instant(right)?)),
        (Id(_), _) | (_, Id(_)) => Some(id_text(left)?.cmp(&id_text(right)?)),
        (Enum(_), _) | (_, Enum(_)) => None,
        (Typed(Json::String(left)), Typed(Json::String(right))) => Some(left.chars().cmp(right.chars())),
        (Typed(left), Typed(right)) => Some(fixed(left)?.cmp(&fixed(right)?)),
        _ => None,
    }
}

/// What is written as a string in JSON.
fn string(model: &Model) -> Option<String> {
    match model {
        Model::Day(text) => Some(text.clone()),
        other => name(other),
    }
}

fn texts(left: &Model, right: &Model) -> Option<(String, String)> {
    match (left, right) {
        (Model::Id(_), _) | (_, Model::Id(_)) => Some((id_text(left)?, id_text(right)?)),
        _ => Some((string(left)?, string(right)?)),
    }
}

fn conjunction(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let truths: Vec<_> = truths.collect();
    match truths.contains(&Some(false)) {
        true => Some(false),
        false => (!truths.contains(&None)).then_some(true),
    }
}

fn disjunction(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    conjunction(truths.map(|truth| truth.map(|truth| !truth))).map(|truth| !truth)
}

fn model(expr: &Json, world: World<'_>) -> Option<bool> {
    let parts = || expr.as_array().unwrap()[1..].iter().map(move |part| model(part, world));
    let value = |at: usize| operand(&expr[at], world).0;
    let compare = |is: fn(Ordering) -> bool| order(&value(1), &value(2)).map(is);
    let member = |item: &Model, list: &Model| disjunction(items(list)?.iter().map(|other| equal(other, item)));
    match expr[0].as_str().unwrap() {
        "&" => conjunction(parts()),
        "|" => disjunction(parts()),
        "~" => model(&expr[1], world).map(|truth| !truth),
        "exists" => Some(operand(&expr[1], world).1),
        "is_null" => Some(operand(&expr[1], world).2),
        "==" => equal(&value(1), &value(2)),
        "!=" => equal(&value(1), &value(2)).map(|truth| !truth),
        "<" => compare(Ordering::is_lt),
        "<=" => compare(Ordering::is_le),
        ">" => compare(Ordering::is_gt),
        ">=" => compare(Ordering::is_ge),
        "is_in" => member(&value(1), &value(2)),
        "contains" if items(&value(1)).is_some() => member(&value(2), &value(1)),
        "contains" => texts(&value(1), &value(2)).map(|(text, part)| text.contains(&part)),
        "startswith" => texts(&value(1), &value(2)).map(|(text, part)| text.starts_with(&part)),
        "endswith" => texts(&value(1), &value(2)).map(|(text, part)| text.ends_with(&part)),
        other => panic!("{other}"),
    }
}

// ---- What is tried ---------------------------------------------------------------------------------------------------------

fn scalars() -> Vec<Json> {
    let text = r#"[null, true, false, 1, 1.0, 42, 42.0, 1.5, -0.0, 0, -7, 9007199254740993, 9007199254740992.0,
        18446744073709551615, 18446744073709551616, "1", "42", "18446744073709551616", "é", "", "4", "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00.000+01:00", "2026-01-01T00:00:00", "2027-01-01T00:00:00Z",
        "1.50", "2026-01-01", "2026-01-02"]"#;
    serde_json::from_str(text).unwrap()
}

fn scalar() -> impl Strategy<Value = Json> {
    prop::sample::select(scalars())
}

fn any_json() -> impl Strategy<Value = Json> {
    prop_oneof![
        6 => scalar(),
        2 => prop::collection::vec(scalar(), 0..4).prop_map(Json::from),
        1 => prop::collection::vec(prop::collection::vec(scalar(), 0..2).prop_map(Json::from), 0..2).prop_map(Json::from),
        1 => (scalar(), scalar()).prop_map(|(a, b)| json!({"a": a, "b": b})),
        1 => scalar().prop_map(|b| json!({"b": b})),
    ]
}

fn ids() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![json!("1"), json!("42"), json!("é"), json!("18446744073709551616"), Json::Null])
}

fn instants() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:00"), Json::Null])
}

fn amounts() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![json!("1.50"), json!(1.5), json!("42"), json!(42), json!("1"), Json::Null])
}

fn object(members: Vec<(&'static str, BoxedStrategy<Json>)>) -> BoxedStrategy<Json> {
    let none = Just(serde_json::Map::new()).boxed();
    let add = |object: BoxedStrategy<serde_json::Map<String, Json>>,
               (name, value): (&'static str, BoxedStrategy<Json>)| {
        let member = prop::option::weighted(0.75, value);
        (object, member)
            .prop_map(move |(mut object, member)| {
                member.map(|member| object.insert(name.to_owned(), member));
                object
            })
            .boxed()
    };
    members.into_iter().fold(none, add).prop_map(Json::Object).boxed()
}

fn arguments() -> BoxedStrategy<Json> {
    let list = |items: BoxedStrategy<Json>| {
        prop_oneof![
            4 => prop::collection::vec(items, 0..3).prop_map(Json::from),
            1 => Just(Json::Null)
        ]
    };
    let filter = object(vec![("id", ids().boxed()), ("any", any_json().boxed())]);
    object(vec![
        ("id", ids().boxed()),
        ("ids", list(ids().boxed()).boxed()),
        ("at", instants().boxed()),
        ("ats", list(instants().boxed()).boxed()),
        ("amount", amounts().boxed()),
        ("amounts", list(amounts().boxed()).boxed()),
        ("day", prop::sample::select(vec![json!("2026-01-01"), json!("2026-01-02"), Json::Null]).boxed()),
        ("status", prop::sample::select(vec![json!("1"), json!("OPEN"), Json::Null]).boxed()),
        ("any", any_json().boxed()),
        ("filter", prop_oneof![3 => filter, 1 => Just(Json::Null)].boxed()),
    ])
}

fn viewers() -> BoxedStrategy<Json> {
    let expiry = prop_oneof![Just(json!("2026-01-01T00:00:00Z")), Just(Json::Null)];
    let claims = object(vec![("a", any_json().boxed())]);
    let roles = prop::collection::vec(ids(), 0..3).prop_map(|ids| ids.into_iter().filter(Json::is_string).collect());
    (ids(), expiry, claims, roles)
        .prop_map(|(user_id, expires_at, claims, roles): (_, _, _, Vec<Json>)| {
            json!({"user_id": user_id, "tenant_id": null, "roles": roles, "permissions": [], "sources": null,
                   "claims": claims, "expires_at": expires_at})
        })
        .boxed()
}

fn data() -> BoxedStrategy<Json> {
    object(vec![("a", any_json().boxed()), ("b", scalar().boxed())])
}

fn place() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![
        json!(["data", ["a"]]),
        json!(["data", ["a"]]),
        json!(["data", ["b"]]),
        json!(["data", ["a", "b"]]),
        json!(["data", []]),
        json!(["previous", ["a"]]),
        json!(["decimal", ["data", ["a"]]]),
    ])
}

fn constant() -> impl Strategy<Value = Json> {
    let item = prop_oneof![
        scalar().prop_map(|json| json!(["literal", json])),
        ids().prop_filter("a literal", Json::is_string).prop_map(|id| json!(["id", id])),
        Just(json!(["datetime", "2026-01-01T00:00:00+00:00"])),
        prop::sample::select(vec!["1.5", "42", "1"]).prop_map(|number| json!(["number", number])),
    ];
    let references = prop::sample::select(vec![
        json!(["argument", "id", []]),
        json!(["argument", "ids", []]),
        json!(["argument", "at", []]),
        json!(["argument", "ats", []]),
        json!(["argument", "amount", []]),
        json!(["argument", "amounts", []]),
        json!(["argument", "day", []]),
        json!(["argument", "status", []]),
        json!(["decimal", ["argument", "any", []]]),
        json!(["argument", "any", []]),
        json!(["argument", "filter", ["id"]]),
        json!(["argument", "filter", ["any"]]),
        json!(["viewer", "user_id", []]),
        json!(["viewer", "tenant_id", []]),
        json!(["viewer", "roles", []]),
        json!(["viewer", "sources", []]),
        json!(["viewer", "expires_at", []]),
        json!(["viewer", "claims", ["a"]]),
    ]);
    prop_oneof![
        3 => references,
        2 => any_json().prop_map(|json| json!(["literal", json])),
        1 => prop::collection::vec(item.clone(), 0..3).prop_map(|items| json!(["list", items])),
        2 => item,
    ]
}

fn expr() -> impl Strategy<Value = Json> {
    let side = || prop_oneof![place(), constant()];
    let tests = vec!["<", "<=", ">", ">=", "!=", "is_in", "contains", "startswith", "endswith"];
    let leaf = prop_oneof![
        5 => (place(), constant()).prop_map(|(left, right)| json!(["==", left, right])),
        1 => (constant(), side()).prop_map(|(left, right)| json!(["==", left, right])),
        2 => (place(), constant()).prop_map(|(left, right)| json!(["is_in", left, right])),
        4 => (prop::sample::select(tests), side(), side()).prop_map(|(test, left, right)| json!([test, left, right])),
        1 => (prop::sample::select(vec!["exists", "is_null"]), side()).prop_map(|(test, side)| json!([test, side])),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            4 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| [vec![json!("&")], parts].concat().into()),
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| [vec![json!("|")], parts].concat().into()),
            1 => inner.prop_map(|part| json!(["~", part])),
        ]
    })
}

/// The same predicate, whose constants of typed JSON are places of the event's old image.
fn with_constants_moved(expr: &Json, world: World<'_>, moved: &mut Vec<Json>) -> Json {
    let parts = expr.as_array().unwrap();
    let mut turned = vec![parts[0].clone()];
    turned.extend(parts[1..].iter().map(|part| {
        match &part[0] {
            Json::String(word)
                if [
                    "data", "previous", "id", "datetime", "number", "decimal", "viewer", "argument", "literal", "list",
                ]
                .contains(&&**word) =>
            {
                let constant = match word.as_str() {
                    "literal" => Some(part[1].clone()),
                    "list" => match operand(part, world).0 {
                        Model::Typed(list) => Some(list),
                        _ => None,
                    },
                    "argument" if part[1] == "any" => world.arguments.get("any").cloned(),
                    _ => None,
                };
                constant.map_or_else(
                    || part.clone(),
                    |constant| {
                        moved.push(constant);
                        json!(["previous", ["moved", (moved.len() - 1).to_string()]])
                    },
                )
            }
            _ => with_constants_moved(part, world, moved),
        }
    }));
    turned.into()
}

/// The same predicate in other words.
fn rewritten(expr: &Json, choices: &mut impl Iterator<Item = u8>) -> Json {
    let parts = expr.as_array().unwrap();
    let operator = parts[0].as_str().unwrap();
    let choice = choices.next().unwrap();
    let negated = |expr: Json| json!(["~", expr]);
    match (operator, &parts[1..]) {
        ("&" | "|", parts) => {
            let mut parts: Vec<Json> = parts.iter().map(|part| rewritten(part, choices)).collect();
            let middle = usize::from(choice) % parts.len();
            parts.rotate_left(middle);
            if choice & 16 != 0 {
                parts.push(parts[0].clone());
            }
            if choice & 32 != 0 {
                let inner = parts.split_off(middle);
                parts.push([vec![json!(operator)], inner].concat().into());
            }
            if choice & 64 == 0 {
                return [vec![json!(operator)], parts].concat().into();
            }
            let other = if operator == "&" { "|" } else { "&" };
            negated([vec![json!(other)], parts.into_iter().map(negated).collect()].concat().into())
        }
        ("~", [part]) => negated(rewritten(part, choices)),
        ("==" | "!=", [left, right]) => {
            let (left, right) = if choice & 1 != 0 { (right, left) } else { (left, right) };
            let other = if operator == "==" { "!=" } else { "==" };
            if choice & 2 != 0 { json!([operator, left, right]) } else { negated(json!([other, left, right])) }
        }
        ("<" | "<=" | ">" | ">=", [left, right]) => {
            let (turned, opposite) = match operator {
                "<" => (">", ">="),
                "<=" => (">=", ">"),
                ">" => ("<", "<="),
                _ => ("<=", "<"),
            };
            match choice % 3 {
                0 => json!([turned, right, left]),
                1 => negated(json!([opposite, left, right])),
                _ => expr.clone(),
            }
        }
        // Membership in a list is an OR of equalities.
        ("is_in", [item, list]) if choice & 1 != 0 && list[0] == "list" => {
            let is = |one: &Json| json!(["==", one, item]);
            [vec![json!("|")], list[1].as_array().unwrap().iter().map(is).collect()].concat().into()
        }
        ("is_in", [item, list]) if is_list(list) => json!(["contains", list, item]),
        ("contains", [list, item]) if is_list(list) => json!(["is_in", item, list]),
        _ if choice & 1 != 0 => negated(negated(expr.clone())),
        _ => expr.clone(),
    }
}

/// Whether an operand can be nothing but a list, or null.
fn is_list(operand: &Json) -> bool {
    let lists = [json!(["argument", "ids", []]), json!(["argument", "ats", []]), json!(["viewer", "roles", []])];
    operand[0] == "list" || (operand[0] == "literal" && operand[1].is_array()) || lists.contains(operand)
}

/// Values that are easily taken for each other.
fn similar_values() -> Vec<Json> {
    let text = r#"[null, true, 1, 1.0, -1, "1", "true", "null", "", " ", "a b", "a\" \"b", "\"1\"", "Id(\"1\")", "List(1 )", "[1,]", "1,1",
        [], [1], ["1"], [1, 1], ["1,1"], ["1", "1"], [[1], 1], [[1, 1]], [null], {}, {"a": 1}, {"a": 1.0}, {"a": "1"}, {"a:1": 1}, {"a": {"a": 1}},
        {"a": 1, "b": 2}, {"a\":1,\"b": 2}, 18446744073709551616, 18446744073709551617, 1e25, 10000000000000000000000000,
        "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.001Z"]"#;
    serde_json::from_str(text).unwrap()
}

fn similar() -> impl Strategy<Value = Json> {
    let constant = prop_oneof![
        3 => prop::sample::select(similar_values()).prop_map(|value| json!(["literal", value])),
        2 => prop::sample::select(vec!["1", "", " ", "a b", "true"]).prop_map(|id| json!(["id", id])),
        1 => prop::sample::select(vec!["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"]).prop_map(|at| json!(["datetime", at])),
        1 => Just(json!(["argument", "any", []])),
        1 => Just(json!(["argument", "id", []])),
        1 => Just(json!(["argument", "ids", []])),
    ];
    let place = prop_oneof![3 => Just(json!(["data", ["a"]])), 1 => Just(json!(["data", ["a", "a"]])), 1 => Just(json!(["data", ["b"]]))];
    let tests = vec!["==", "==", "!=", "<", "<=", ">", "is_in", "contains", "startswith"];
    let leaf = prop_oneof![
        4 => (prop::sample::select(tests), place.clone(), constant).prop_map(|(test, place, constant)| json!([test, place, constant])),
        1 => (prop::sample::select(vec!["exists", "is_null"]), place).prop_map(|(test, place)| json!([test, place])),
    ];
    leaf.prop_recursive(1, 3, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| json!(["&", one, other])),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| json!(["|", one, other])),
            inner.prop_map(|part| json!(["~", part])),
        ]
    })
}

fn similar_arguments() -> impl Strategy<Value = Json> {
    let ids = prop::sample::select(vec![
        json!([]),
        json!(["1"]),
        json!(["1", "1"]),
        json!(["1 1"]),
        json!([null]),
        Json::Null,
    ]);
    (prop::sample::select(similar_values()), prop::sample::select(vec![json!("1"), json!("a b"), Json::Null]), ids)
        .prop_map(|(any, id, ids)| json!({"any": any, "id": id, "ids": ids}))
}

fn types() -> impl Strategy<Value = Option<Vec<String>>> {
    let name = prop::sample::select(vec!["e".to_owned(), "f".to_owned(), "g".to_owned()]);
    prop::option::of(prop::collection::vec(name, 0..3))
}

fn sources() -> impl Strategy<Value = Option<Vec<String>>> {
    let names = prop::sample::subsequence(vec!["a".to_owned(), "b".to_owned()], 1..3);
    prop::option::weighted(0.3, names)
}

fn source() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec!["a".to_owned(), "b".to_owned(), String::new()]))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_predicate_is_what_the_model_says(
        expr in expr(), arguments in arguments(), fields in viewers(), data in data(), previous in prop::option::of(data()),
    ) {
        let previous = previous.as_ref();
        let expected = model(&expr, World { arguments: &arguments, viewer: &fields, data: &data, previous });
        prop_assert_eq!(truth(&expr, &arguments, &fields, &data, previous), expected);
    }

    /// Nothing is folded of a predicate whose constants all stand in the event.
    #[test]
    fn folding_does_not_change_a_verdict(
        expr in expr(), arguments in arguments(), fields in viewers(), data in data(), previous in prop::option::of(data()),
    ) {
        let world = World { arguments: &arguments, viewer: &fields, data: &data, previous: previous.as_ref() };
        let mut moved = Vec::new();
        let unfolded = with_constants_moved(&expr, world, &mut moved);
        let mut with_constants = previous.clone().unwrap_or_else(|| json!({}));
        let moved = moved.into_iter().enumerate().map(|(at, constant)| (at.to_string(), constant));
        with_constants["moved"] = Json::Object(moved.collect());
        prop_assert_eq!(
            truth(&expr, &arguments, &fields, &data, previous.as_ref()),
            truth(&unfolded, &arguments, &fields, &data, Some(&with_constants)),
            "{}", unfolded
        );
    }

    #[test]
    fn what_asks_the_same_has_one_text(
        expr in expr(), arguments in arguments(), fields in viewers(), choices in prop::collection::vec(any::<u8>(), 64),
    ) {
        let other = rewritten(&expr, &mut choices.into_iter().cycle());
        let [one, other_text] = [&expr, &other].map(|expr| bind(expr, &arguments, &fields).to_string());
        prop_assert_eq!(one, other_text, "{}", other);
    }

    #[test]
    fn what_has_one_text_asks_the_same(
        exprs in prop::collection::vec((similar(), similar_arguments()), 2..16), fields in viewers(),
    ) {
        let bound: Vec<Bound> = exprs.iter().map(|(expr, arguments)| bind(expr, arguments, &fields)).collect();
        let events: Vec<Event> = similar_values().iter().map(|value| event("e", &json!({"a": value, "b": 1}), None)).collect();
        let mut by_text: HashMap<String, (usize, Vec<bool>)> = HashMap::new();
        for (at, bound) in bound.iter().enumerate() {
            let verdicts: Vec<bool> = events.iter().map(|event| bound.holds(event)).collect();
            match by_text.entry(bound.to_string()) {
                Entry::Vacant(first) => _ = first.insert((at, verdicts)),
                Entry::Occupied(first) => {
                    let (other, expected) = first.get();
                    prop_assert_eq!(&verdicts, expected, "{:?} and {:?}: {}", exprs[at], exprs[*other], bound);
                }
            }
        }
    }

    /// Whatever was put in, replaced and taken out before.
    #[test]
    fn the_index_finds_what_the_model_finds(
        declared in
            prop::collection::vec((types(), sources(), prop::option::of(expr()), prop::option::of(expr()), arguments()), 1..8),
        fields in viewers(),
        events in prop::collection::vec((data(), prop::option::of(data()), source()), 1..4),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..10u8), 1..40),
    ) {
        let conditions: Vec<Condition> = declared.iter().map(|(types, sources, where_, rows, arguments)| {
            let [where_, rows] = [where_, rows].map(|expr| expr.as_ref().map(|expr| bind(expr, arguments, &fields)));
            Condition::new(0, types.as_deref(), intersect(sources.as_deref(), None).unwrap(), where_, rows)
        }).collect();
        let (mut index, mut expected) = (Index::default(), HashMap::<Condition, (usize, usize)>::new());
        for (number, (chosen, step)) in steps.into_iter().enumerate() {
            let at = chosen.index(conditions.len());
            let key = &conditions[at];
            match step {
                0..5 => {
                    index.insert(&conditions[at], number);
                    expected.insert(key.clone(), (number, at));
                }
                5..8 => prop_assert_eq!(index.remove(key), expected.remove(key).map(|(group, _)| group)),
                _ => {
                    let (data, previous, source) = &events[chosen.index(events.len())];
                    let previous = previous.as_ref();
                    let verdict = |at: usize| {
                        let (types, sources, where_, rows, arguments) = &declared[at];
                        let world = World { arguments, viewer: &fields, data, previous };
                        let holds = |expr: &Option<Json>| expr.as_ref().is_none_or(|expr| model(expr, world) == Some(true));
                        let is_from = |sources: &Vec<String>| source.as_ref().is_some_and(|source| sources.contains(source));
                        match () {
                            () if !types.as_ref().is_none_or(|types| types.iter().any(|name| name == "e")) => Verdict::EventType,
                            () if !sources.as_ref().is_none_or(is_from) => Verdict::Sources,
                            () if !holds(where_) => Verdict::Where,
                            () if !holds(rows) => Verdict::Rows,
                            () => Verdict::Match,
                        }
                    };
                    let event = Event { source: source.as_deref().map(Into::into), ..event("e", data, previous) };
                    let (mut scanned, mut withheld) = (Vec::new(), Withheld::default());
                    for (group, at) in expected.values() {
                        prop_assert_eq!(conditions[*at].judge(&event), verdict(*at));
                        match verdict(*at) {
                            Verdict::Match => scanned.push(*group),
                            Verdict::Sources => withheld.sources += 1,
                            Verdict::Rows => withheld.rows += 1,
                            _ => {}
                        }
                    }
                    let mut found = Vec::new();
                    let counted = index.matches(&event, |group| found.push(*group));
                    prop_assert!(counted.sources <= withheld.sources && counted.rows <= withheld.rows);
                    scanned.sort_unstable();
                    found.sort_unstable();
                    prop_assert_eq!(found, scanned);
                }
            }
            prop_assert_eq!(index.get(key), expected.get(key).map(|(group, _)| group));
            prop_assert_eq!((index.len(), index.is_empty()), (expected.len(), expected.is_empty()));
            let mut groups: Vec<usize> = index.groups().copied().collect();
            let mut all: Vec<usize> = expected.values().map(|(group, _)| *group).collect();
            groups.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(groups, all);
        }
    }

    #[test]
    fn the_index_finds_what_a_scan_finds(
        declared in prop::collection::vec((types(), prop::option::of(expr()), prop::option::of(expr()), arguments()), 1..12),
        fields in viewers(),
        events in prop::collection::vec((data(), prop::option::of(data())), 1..6),
        kept in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut index = Index::default();
        let mut conditions: Vec<Condition> = Vec::new();
        for (types, where_, rows, arguments) in &declared {
            let [where_, rows] = [where_, rows].map(|expr| expr.as_ref().map(|expr| bind(expr, arguments, &fields)));
            let condition = Condition::new(0, types.as_deref(), Sources::Any, where_, rows);
            if index.get(&condition).is_none() {
                index.insert(&condition, conditions.len());
                conditions.push(condition);
            }
        }
        for (at, condition) in conditions.iter().enumerate() {
            if !kept[at] {
                prop_assert_eq!(index.remove(condition), Some(at));
                prop_assert_eq!(index.remove(condition), None);
            }
        }
        for (data, previous) in &events {
            let event = event("e", data, previous.as_ref());
            let (mut scanned, mut by_rows) = (Vec::new(), 0);
            for (at, condition) in conditions.iter().enumerate().filter(|(at, _)| kept[*at]) {
                match condition.judge(&event) {
                    Verdict::Match => {
                        prop_assert!(!condition.is_never());
                        scanned.push(at);
                    }
                    Verdict::Rows => by_rows += 1,
                    _ => {}
                }
            }
            let mut found = Vec::new();
            let withheld = index.matches(&event, |at| found.push(*at));
            found.sort_unstable();
            prop_assert_eq!(found, scanned);
            prop_assert!(withheld.rows <= by_rows && withheld.sources == 0);
        }
        for condition in &conditions {
            index.remove(condition);
        }
        prop_assert!(index.is_empty());
    }
}

proptest! {
    #![proptest_config(config())]

    /// Lists of any length, put in and taken out in any order, beside what must be equal as well.
    #[test]
    fn long_lists_find_what_a_scan_finds(
        declared in prop::collection::vec((prop::collection::vec(0..60u32, 0..80), prop::option::of(0..3u32), any::<bool>()), 1..12),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..40),
        ids in prop::collection::vec((0..60u32, 0..3u32), 1..6),
    ) {
        let conditions: Vec<Condition> = declared.iter().map(|(list, kind, is_negated)| {
            let arguments = json!({"ids": list.iter().map(u32::to_string).collect::<Vec<_>>(), "any": kind});
            let member = json!(["contains", ["argument", "ids", []], ["data", ["id"]]]);
            let member = if *is_negated { json!(["~", member]) } else { member };
            let both = json!(["&", member, ["==", ["data", ["kind"]], ["argument", "any", []]]]);
            let expr = if kind.is_some() { both } else { member };
            Condition::new(0, None, Sources::Any, Some(bind(&expr, &arguments, &json!({}))), None)
        }).collect();
        let (mut index, mut expected) = (Index::default(), HashMap::new());
        for (at, comes) in steps {
            let at = at.index(conditions.len());
            if comes {
                index.insert(&conditions[at], at);
                expected.insert(conditions[at].clone(), at);
            } else {
                prop_assert_eq!(index.remove(&conditions[at]), expected.remove(&conditions[at]));
            }
            for (id, kind) in &ids {
                let event = event("e", &json!({"id": id, "kind": kind}), None);
                let mut found = Vec::new();
                index.matches(&event, |at| found.push(*at));
                let matching = expected.values().filter(|at| conditions[**at].judge(&event) == Verdict::Match);
                let mut scanned: Vec<usize> = matching.copied().collect();
                found.sort_unstable();
                scanned.sort_unstable();
                prop_assert_eq!(found, scanned);
            }
        }
    }
}

/// Each test of each value against each constant and each other value: equal values that look different, and the reverse.
#[test]
fn every_pair_is_what_the_model_says() {
    let values = [
        scalars(),
        vec![json!([]), json!([1]), json!([1.0]), json!([42, null]), json!(["42"]), json!([null]), json!([[1], 2])],
        vec![
            json!({}),
            json!({"a": 1, "b": [2]}),
            json!({"b": [2.0], "a": 1}),
            json!({"a": 1, "c": [2]}),
            json!({"a": null}),
        ],
    ]
    .concat();
    let (arguments, fields) =
        (json!({"ids": ["42", null], "ats": ["2026-01-01T00:00:00Z", "x"]}), json!({"user_id": "42"}));
    let mut sides: Vec<Json> = values.iter().map(|value| json!(["literal", value])).collect();
    sides.extend([
        json!(["data", ["b"]]),
        json!(["id", "42"]),
        json!(["id", "18446744073709551616"]),
        json!(["viewer", "user_id", []]),
        json!(["argument", "ids", []]),
        json!(["argument", "ats", []]),
        json!(["datetime", "2026-01-01T00:00:00+00:00"]),
        json!(["list", [["id", "42"], ["literal", 1], ["datetime", "2026-01-01T00:00:00+00:00"]]]),
    ]);
    let events: Vec<Json> = values.iter().zip(values.iter().rev()).map(|(a, b)| json!({"a": a, "b": b})).collect();
    for test in ["==", "!=", "<", "<=", ">", ">=", "is_in", "contains", "startswith", "endswith"] {
        for (side, turned) in sides.iter().flat_map(|side| [(side, false), (side, true)]) {
            let place = json!(["data", ["a"]]);
            let expr = if turned { json!([test, side, place]) } else { json!([test, place, side]) };
            let [yes, no] = [expr.clone(), json!(["~", expr])].map(|expr| {
                let condition = Condition::new(0, None, Sources::Any, Some(bind(&expr, &arguments, &fields)), None);
                let mut index = Index::default();
                index.insert(&condition, ());
                (condition, index)
            });
            for data in &events {
                let event = event("e", data, None);
                let world = World { arguments: &arguments, viewer: &fields, data, previous: None };
                let expected = model(&expr, world);
                for ((condition, index), truth) in [(&yes, true), (&no, false)] {
                    let mut found = 0;
                    index.matches(&event, |()| found += 1);
                    assert_eq!(condition.judge(&event) == Verdict::Match, expected == Some(truth), "{expr} of {data}");
                    assert_eq!(found == 1, expected == Some(truth), "the index: {expr} of {data}");
                }
            }
        }
    }
}

// ---- Sentences of the contract, one line each ----------------------------------------------------------------------------

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
const UNKNOWN: Option<bool> = None;

fn check(rows: &[(Json, Json, Option<bool>)]) {
    let arguments =
        json!({"id": "42", "ids": ["1", "2"], "at": "2026-01-01T00:00:00Z", "naive": null, "filter": {"any": null}});
    let fields = json!({"user_id": "7", "tenant_id": null, "roles": ["a"], "permissions": [], "sources": null,
                        "claims": {"none": null}, "expires_at": null});
    for (expr, data, expected) in rows {
        assert_eq!(truth(expr, &arguments, &fields, data, None), *expected, "{expr} of {data}");
        let world = World { arguments: &arguments, viewer: &fields, data, previous: None };
        assert_eq!(model(expr, world), *expected, "the model: {expr} of {data}");
    }
}

#[test]
fn ids_compare_as_text_with_strings_and_integers() {
    let id = |test: &str| json!([test, ["data", ["id"]], ["argument", "id", []]]);
    let long: Json = serde_json::from_str("7.000000000000000001").unwrap();
    let uuid = json!(["==", ["data", ["id"]], ["id", "0b9c7c1e-0000-4000-8000-00000000000a"]]);
    check(&[
        (id("=="), json!({"id": 42}), YES),
        (id("=="), json!({"id": "42"}), YES),
        (id("=="), json!({"id": "042"}), NO),
        (id("=="), json!({"id": 42.0}), UNKNOWN),
        (id("!="), json!({"id": 42.0}), UNKNOWN),
        (id("=="), json!({"id": true}), UNKNOWN),
        (id("=="), json!({"id": null}), UNKNOWN),
        (id("=="), json!({}), UNKNOWN),
        (id("!="), json!({}), UNKNOWN),
        (id("<"), json!({"id": 5}), NO),
        (id(">"), json!({"id": 5}), YES),
        (uuid.clone(), json!({"id": "0b9c7c1e-0000-4000-8000-00000000000a"}), YES),
        (uuid, json!({"id": "0B9C7C1E-0000-4000-8000-00000000000A"}), NO),
        (json!(["==", ["data", ["id"]], ["viewer", "tenant_id", []]]), json!({"id": "1"}), UNKNOWN),
        (json!(["==", ["viewer", "user_id", []], ["literal", 7]]), json!({}), YES),
        (json!(["!=", ["viewer", "user_id", []], ["literal", long]]), json!({}), UNKNOWN),
        (json!(["==", ["data", ["ids"]], ["argument", "ids", []]]), json!({"ids": [1, "2"]}), YES),
        (json!(["==", ["data", ["ids"]], ["argument", "ids", []]]), json!({"ids": [1, 2.0]}), UNKNOWN),
        (json!(["==", ["data", ["ids"]], ["argument", "ids", []]]), json!({"ids": [2.0, 3]}), NO),
        (json!(["is_in", ["data", ["id"]], ["argument", "ids", []]]), json!({"id": 2}), YES),
        (json!(["is_in", ["data", ["id"]], ["argument", "ids", []]]), json!({"id": 2.0}), UNKNOWN),
        (json!(["contains", ["data", ["ids"]], ["argument", "id", []]]), json!({"ids": ["x", 42]}), YES),
        (json!(["contains", ["data", ["ids"]], ["argument", "id", []]]), json!({"ids": ["x", null]}), UNKNOWN),
    ]);
}

#[test]
fn all_else_is_typed_json() {
    let big: Json = serde_json::from_str("18446744073709551617").unwrap();
    let is = |literal: Json| json!(["==", ["data", ["x"]], ["literal", literal]]);
    check(&[
        (is(json!(1)), json!({"x": 1.0}), YES),
        (is(json!(1)), json!({"x": "1"}), NO),
        (is(json!(1)), json!({"x": true}), NO),
        (is(json!(9_007_199_254_740_993_i64)), json!({"x": 9_007_199_254_740_992_i64}), NO),
        (is(big.clone()), json!({"x": big}), YES),
        (is(big), json!({"x": 18_446_744_073_709_551_615_u64}), NO),
        (is(json!({"a": 1, "b": [null]})), json!({"x": {"b": [null], "a": 1.0}}), YES),
        (is(json!([1, 2])), json!({"x": [2, 1]}), NO),
        // Floats in which these integers would be lost.
        (
            json!([">", ["data", ["x"]], ["literal", 9_007_199_254_740_996.0]]),
            json!({"x": 9_007_199_254_740_997_i64}),
            YES,
        ),
        (
            json!(["<", ["data", ["x"]], ["literal", 9_007_199_254_740_997_i64]]),
            json!({"x": 9_007_199_254_740_996.0}),
            YES,
        ),
        (json!(["<", ["data", ["x"]], ["literal", "b"]]), json!({"x": "a"}), YES),
        (json!(["<", ["literal", "\u{ffff}"], ["data", ["x"]]]), json!({"x": "\u{10000}"}), YES),
        (json!(["<", ["data", ["x"]], ["literal", "b"]]), json!({"x": 1}), UNKNOWN),
        (json!(["<=", ["data", ["x"]], ["literal", true]]), json!({"x": true}), UNKNOWN),
        (json!(["<=", ["data", ["x"]], ["literal", [1]]]), json!({"x": [1]}), UNKNOWN),
        (json!(["is_in", ["data", ["x"]], ["literal", [1, null]]]), json!({"x": 1}), YES),
        (json!(["is_in", ["data", ["x"]], ["literal", [1, null]]]), json!({"x": 2}), UNKNOWN),
        (json!(["!=", ["data", ["x"]], ["list", [["literal", 1], ["literal", null]]]]), json!({"x": 5}), YES),
        (json!(["is_in", ["data", ["x"]], ["literal", []]]), json!({}), NO),
        (json!(["is_in", ["data", ["x"]], ["viewer", "sources", []]]), json!({"x": 1}), UNKNOWN),
        (json!(["is_in", ["literal", "a"], ["viewer", "roles", []]]), json!({}), YES),
        (json!(["contains", ["data", ["x"]], ["literal", "b"]]), json!({"x": "abc"}), YES),
        (json!(["contains", ["data", ["x"]], ["literal", 1]]), json!({"x": "1"}), UNKNOWN),
        (json!(["contains", ["data", ["x"]], ["literal", 1]]), json!({"x": [2, 1.0]}), YES),
        (json!(["startswith", ["data", ["x"]], ["literal", "a"]]), json!({"x": "abc"}), YES),
        (json!(["endswith", ["data", ["x"]], ["literal", "a"]]), json!({"x": 1}), UNKNOWN),
    ]);
}

#[test]
fn objects_are_found_whatever_their_order_of_keys() {
    let is = json!(["==", ["data", ["x"]], ["literal", {"a": 1, "b": 2}]]);
    let mut index = Index::default();
    index.insert(&Condition::new(0, None, Sources::Any, Some(bind(&is, &json!({}), &json!({}))), None), ());
    let found = |text: &str| {
        let mut found = 0;
        let event = Event { data: Value::parse(text.as_bytes()).unwrap(), ..event("e", &json!({}), None) };
        index.matches(&event, |()| found += 1);
        found
    };
    assert_eq!([r#"{"x": {"b": 2, "a": 1}}"#, r#"{"x": {"b": 1, "a": 2}}"#].map(found), [1, 0]);
}

#[test]
fn datetimes_compare_as_instants() {
    let at = |test: &str| json!([test, ["data", ["at"]], ["datetime", "2026-01-01T00:00:00+00:00"]]);
    check(&[
        (at("=="), json!({"at": "2026-01-01T01:00:00.000+01:00"}), YES),
        (at("=="), json!({"at": "2026-01-01T00:00:00.000001Z"}), NO),
        (at("<"), json!({"at": "2025-12-31T23:59:59.999999Z"}), YES),
        (at("!="), json!({"at": "2026-01-01T00:00:00"}), UNKNOWN),
        (at("!="), json!({"at": 0}), UNKNOWN),
        (json!(["==", ["data", ["at"]], ["argument", "at", []]]), json!({"at": "2025-12-31T23:00:00-01:00"}), YES),
        (
            json!(["==", ["data", ["at"]], ["literal", "2026-01-01T00:00:00Z"]]),
            json!({"at": "2026-01-01T01:00:00+01:00"}),
            NO,
        ),
        (json!(["<", ["data", ["at"]], ["viewer", "expires_at", []]]), json!({"at": "2026-01-01T01:00:00Z"}), UNKNOWN),
        (json!(["==", ["argument", "id", []], ["datetime", "2026-01-01T00:00:00Z"]]), json!({}), UNKNOWN),
    ]);
    assert!(compile(&json!(["<", ["data", ["at"]], ["datetime", "2026-01-01T00:00:00"]])).is_err());
}

#[test]
fn presence_is_never_unknown() {
    let mut rows = Vec::new();
    let mut both = |operand: Json, data: Json, exists, is_null| {
        rows.push((json!(["exists", operand]), data.clone(), Some(exists)));
        rows.push((json!(["is_null", operand]), data, Some(is_null)));
    };
    both(json!(["data", ["a"]]), json!({}), false, false);
    both(json!(["data", ["a"]]), json!({"a": null}), true, true);
    both(json!(["data", ["a"]]), json!({"a": 1}), true, false);
    both(json!(["data", ["a", "b"]]), json!({"a": null}), false, false);
    both(json!(["data", ["a", "b"]]), json!({"a": [1]}), false, false);
    both(json!(["previous", ["a"]]), json!({"a": 1}), false, false);
    both(json!(["argument", "any", []]), json!({}), false, true);
    both(json!(["argument", "id", []]), json!({}), true, false);
    both(json!(["argument", "filter", ["id"]]), json!({}), false, true);
    both(json!(["argument", "filter", ["any"]]), json!({}), true, true);
    both(json!(["viewer", "tenant_id", []]), json!({}), false, true);
    both(json!(["viewer", "expires_at", []]), json!({}), false, true);
    both(json!(["viewer", "user_id", []]), json!({}), true, false);
    both(json!(["viewer", "claims", ["none"]]), json!({}), true, true);
    both(json!(["viewer", "claims", ["other"]]), json!({}), false, false);
    check(&rows);
}

#[test]
fn unknown_names_are_refused() {
    let error = |expr: Json| compile(&expr).unwrap_err();
    assert_eq!(error(json!(["==", ["data", ["id"]], ["argument", "ide", []]])), "unknown argument \"ide\"");
    assert_eq!(error(json!(["exists", ["argument", "filter", ["x"]]])), "unknown argument \"filter.x\"");
    assert_eq!(error(json!(["exists", ["viewer", "user", []]])), "unknown viewer field \"user\"");
    assert_eq!(error(json!(["exists", ["viewer", "user_id", ["x"]]])), "unknown viewer field \"user_id.x\"");
    assert_eq!(error(json!(["matches", ["data", ["x"]]])), "unknown predicate [\"matches\",[\"data\",[\"x\"]]]");
}

#[test]
fn conditions_fold_and_share_a_key() {
    let none = json!({"user_id": null, "claims": {}});
    let condition =
        |expr: &Json, arguments: &Json| Condition::new(0, None, Sources::Any, Some(bind(expr, arguments, &none)), None);
    let id = json!(["==", ["data", ["id"]], ["argument", "id", []]]);
    let optional = json!(["|", ["is_null", ["argument", "id", []]], id]);
    assert_eq!(condition(&optional, &json!({})), Condition::new(0, None, Sources::Any, None, None));
    assert_eq!(condition(&optional, &json!({"id": "1"})), condition(&id, &json!({"id": "1"})));
    assert_ne!(condition(&id, &json!({"id": "1"})), condition(&id, &json!({"id": "2"})));
    assert!(condition(&id, &json!({})).is_never());
    assert!(condition(&json!(["~", id]), &json!({})).is_never());
    let [a, b] = [1, 2].map(|n| json!(["==", ["data", ["x"]], ["literal", n]]));
    let [c, d] = ["y", "z"].map(|key| json!(["data", [key]]));
    assert!(condition(&json!(["&", a, b]), &json!({})).is_never());
    assert_eq!(condition(&json!(["==", c, d]), &json!({})), condition(&json!(["==", d, c]), &json!({})));
    assert_eq!(condition(&json!(["|", a, b]), &json!({})), condition(&json!(["|", b, ["|", a, b]]), &json!({})));
    assert_eq!(
        condition(&json!(["~", ["&", a, b]]), &json!({})),
        condition(&json!(["|", ["~", a], ["~", b]]), &json!({}))
    );
}

/// Whose events come from elsewhere is told apart, and counted, as who may not see a row is.
#[test]
fn an_event_is_withheld_by_source_before_rows() {
    let is = |key: &str| Some(bind(&json!(["<", ["data", [key]], ["literal", 1]]), &json!({}), &json!({})));
    let from = |names: &[&str]| {
        intersect(Some(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()), None).unwrap()
    };
    let mut index = Index::default();
    let parts = [(Sources::Any, 'n'), (from(&["a"]), 'o'), (from(&["a", "b"]), 'p'), (from(&["a, b"]), 'q')];
    for (sources, group) in parts {
        index.insert(&Condition::new(0, None, sources, is("w"), is("r")), group);
    }
    assert_eq!(index.len(), 4);
    let withheld = |source: Option<&str>, w: usize, r: usize| {
        let event = Event { source: source.map(Into::into), ..event("e", &json!({"w": w, "r": r}), None) };
        let mut found = String::new();
        let withheld = index.matches(&event, |group| found.push(*group));
        let mut found: Vec<char> = found.chars().collect();
        found.sort_unstable();
        (found.into_iter().collect::<String>(), withheld.sources, withheld.rows)
    };
    assert_eq!(withheld(Some("a"), 0, 0), ("nop".into(), 1, 0));
    assert_eq!(withheld(Some("b"), 0, 0), ("np".into(), 2, 0));
    assert_eq!(withheld(None, 0, 0), ("n".into(), 3, 0));
    assert_eq!(withheld(Some("a"), 0, 1), (String::new(), 1, 3));
    assert_eq!(withheld(None, 0, 1), (String::new(), 3, 1));
    assert_eq!(withheld(Some("a"), 1, 1), (String::new(), 1, 0));
    // Where an event is for every tenant, what each topic says is added.
    let of = |sources, rows| {
        let mut withheld = Withheld::default();
        (withheld.sources, withheld.rows) = (sources, rows);
        withheld
    };
    let mut sum = of(1, 2);
    sum += of(3, 5);
    assert_eq!(sum, of(4, 7));
}

/// A condition that no event can fulfil needs no place in the index, and one that every event fulfils is the condition of no `where`.
#[test]
fn what_no_event_can_change_is_folded() {
    let (place, one) = (json!(["data", ["x"]]), json!(["==", ["data", ["x"]], ["literal", 1]]));
    let arguments = json!({"id": "1", "ats": ["x"]});
    let [present, omitted] = ["id", "any"].map(|name| json!(["exists", ["argument", name, []]]));
    let condition = |expr: &Json| Condition::new(0, None, Sources::Any, Some(bind(expr, &arguments, &json!({}))), None);
    for expr in [
        json!(["&", one, omitted]),
        json!(["|", omitted, omitted]),
        json!(["~", ["|", one, present]]),
        json!(["==", ["literal", null], place]),
        json!(["==", place, ["literal", null]]),
        json!(["<", ["literal", null], place]),
        json!(["<", place, ["argument", "any", []]]),
        json!(["~", ["==", place, ["argument", "any", []]]]),
        json!(["is_in", place, ["argument", "any", []]]),
        json!(["~", ["is_in", place, ["argument", "any", []]]]),
        json!(["is_in", place, ["argument", "ats", []]]),
        json!(["is_in", place, ["literal", []]]),
        json!(["is_in", place, ["literal", 1]]),
        json!(["contains", ["argument", "any", []], place]),
        json!(["startswith", place, ["literal", null]]),
    ] {
        assert!(condition(&expr).is_never(), "{expr}");
    }
    for expr in [
        json!(["|", one, present]),
        json!(["&", present, present]),
        json!(["~", ["&", one, omitted]]),
        json!(["~", ["is_in", place, ["literal", []]]]),
    ] {
        assert_eq!(condition(&expr), Condition::new(0, None, Sources::Any, None, None), "{expr}");
    }
    // Here the event decides whether it is false or unknown: an empty list does not hold null.
    for expr in [json!(["is_in", ["literal", null], place]), json!(["contains", place, ["literal", null]]), one] {
        assert!(!condition(&expr).is_never(), "{expr}");
    }
}

// ---- What the key of a condition finds ------------------------------------------------------------------------------------

/// How many events the index has found but for `rows`: what is part of the key is never found, and not counted.
fn filtered(types: Option<&[String]>, rows: &Json, data: &Json) -> u64 {
    let mut index = Index::default();
    index.insert(&Condition::new(0, types, Sources::Any, None, Some(bind(rows, &json!({}), &json!({})))), ());
    index.matches(&event("e", data, None), |()| panic!("{rows} of {data}")).rows
}

/// `key` is one of this many numbers.
fn one_of(key: &str, numbers: usize) -> Json {
    json!(["is_in", ["data", [key]], ["literal", (0..numbers).collect::<Vec<_>>()]])
}

#[test]
fn a_place_is_part_of_the_key_while_the_keys_are_few() {
    let all = |parts: Vec<Json>| Json::from([vec![json!("&")], parts].concat());
    let other = json!({"x": 0, "y": -1});
    let types = |number: usize| -> Vec<String> { (0..number).map(|at| format!("e{at}")).chain(["e".into()]).collect() };
    for (what, types, rows, data, expected) in [
        ("one place of 16384", None, one_of("y", 16_384), other.clone(), 0),
        ("one place of more", None, one_of("y", 16_385), other.clone(), 1),
        ("two that make 64", None, all(vec![one_of("x", 8), one_of("y", 8)]), other.clone(), 0),
        ("two that make more", None, all(vec![one_of("x", 8), one_of("y", 9)]), other.clone(), 1),
        ("the smaller of two", None, all(vec![one_of("x", 100), one_of("y", 99)]), json!({"x": -1, "y": 0}), 1),
        ("the smaller of two", None, all(vec![one_of("x", 100), one_of("y", 99)]), other.clone(), 0),
        ("it before the event's type", Some(types(8)), one_of("y", 10), other, 0),
    ] {
        assert_eq!(filtered(types.as_deref(), &rows, &data), expected, "{what}");
    }
    let places = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let rows = all(places.iter().map(|key| one_of(key, 1)).collect());
    let found = places.map(|wrong| {
        let data = places.iter().map(|key| ((*key).to_owned(), json!(if *key == wrong { 1 } else { 0 }))).collect();
        filtered(None, &rows, &Json::Object(data))
    });
    assert_eq!(found, [0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

// ---- What it costs -----------------------------------------------------------------------------------------------------

/// Conditions of several shapes, none of which matches `{"id": "none", "n": 5.5, …}`.
fn conditions(groups: usize) -> Vec<Condition> {
    let optional = |test: &str, name: &str, operand: Json| json!([test, ["data", [name]], operand]);
    let argument = json!(["argument", "id", []]);
    let shapes = [
        json!(["&", optional("==", "id", argument.clone()), optional("<", "n", json!(["literal", 3]))]),
        json!(["&", optional("==", "n", json!(["argument", "any", []])), optional("==", "id", argument.clone())]),
        json!([
            "&",
            optional(">", "n", json!(["argument", "any", []])),
            optional("<=", "n", json!(["literal", 5.5])),
            optional("<=", "m", json!(["literal", 7])),
            optional("<=", "n", json!(["literal", 6])),
            json!([
                "|",
                optional("==", "m", json!(["literal", 4])),
                optional("==", "n", json!(["literal", 4])),
                optional("==", "n", json!(["literal", 4.5])),
                optional("startswith", "n", argument.clone())
            ])
        ]),
        optional("is_in", "at", json!(["argument", "ats", []])),
        optional("contains", "tags", argument),
    ];
    let condition = |group: usize| {
        let at = format!("2026-01-01T00:{:02}:{:02}Z", group / 60 % 60, group % 60);
        let arguments = json!({"id": group.to_string(), "any": -(group as i64), "ats": [at]});
        let where_ = bind(&shapes[group % shapes.len()], &arguments, &json!({}));
        let types = ["e".to_owned(), format!("type{group}")];
        Condition::new(0, Some(&types), Sources::Any, Some(where_), None)
    };
    (0..groups).map(condition).collect()
}

fn filled(groups: usize) -> Index<usize> {
    let mut index = Index::default();
    for (group, condition) in conditions(groups).iter().enumerate() {
        index.insert(condition, group);
    }
    index
}

#[test]
fn an_event_that_matches_nothing_allocates_no_more_beside_many() {
    let data = json!({"id": 99_999_999, "n": 5.5, "m": 5, "at": "2030-01-01T01:00:00+01:00", "tags": ["x", 1, null]});
    let event = event("e", &data, None);
    let [few, many] = [10, 10_000].map(|groups| {
        let index = filled(groups);
        assert_eq!(index.len(), groups);
        let mut found = 0;
        let cost = allocation_counter::measure(|| {
            index.matches(&event, |_| found += 1);
        });
        assert_eq!(found, 0);
        cost.count_total
    });
    // What is noted of the comparison that is ill-typed.
    assert_eq!((few, many), (1, 1));
    let hit = self::event("e", &json!({"id": 10, "n": 1}), None);
    let mut found = Vec::new();
    filled(10_000).matches(&hit, |group| found.push(*group));
    assert_eq!(found, [10]);
}

/// Comparing numbers beyond 64 bits that are not written alike allocates, and so tells how many comparisons were made.
#[test]
fn what_the_key_has_proved_is_not_asked_again() {
    let big = |number: usize| -> Json { serde_json::from_str(&format!("{}0000000000000000001", number + 1)).unwrap() };
    let same: Json = serde_json::from_str(&format!("{}.0", big(7))).unwrap();
    let cost = |conditions: Vec<Json>| {
        let mut index = Index::default();
        for (at, expr) in conditions.iter().enumerate() {
            index.insert(&Condition::new(0, None, Sources::Any, Some(bind(expr, &json!({}), &json!({}))), None), at);
        }
        assert_eq!(index.len(), conditions.len());
        let event = event("e", &json!({"n": same, "o": {"b": 1, "a": same}, "text": "none"}), None);
        allocation_counter::measure(|| _ = index.matches(&event, |at| panic!("{at}"))).count_total
    };
    let number = |of: usize| json!(["==", ["data", ["n"]], ["literal", big(of)]]);
    let object = |of: usize| json!(["==", ["data", ["o"]], ["literal", {"a": big(of), "b": 1}]]);
    let starts = |at: usize| json!(["startswith", ["data", ["text"]], ["literal", at.to_string()]]);
    for is in [&number as &dyn Fn(usize) -> Json, &object] {
        let one = cost(vec![json!(["&", is(7), starts(0)])]);
        assert!(one > 0);
        // One key: it is compared once, whatever the number of those behind it.
        assert_eq!(cost((0..100).map(|at| json!(["&", is(7), starts(at)])).collect()), one);
        // Many keys: but for a few that are taken for it by chance, only one is compared.
        let many = cost((0..1_000).map(|at| json!(["&", is(at), starts(at)])).collect());
        assert!(many < 10 * one, "{many} {one}");
    }
}

/// In the condition and in the index together, whatever else it has.
#[test]
fn an_element_of_a_list_takes_64_bytes_at_most() {
    let (lists, length) = (20, 4_000);
    let member = json!(["is_in", ["data", ["id"]], ["argument", "ids", []]]);
    let mut index = Index::default();
    let cost = allocation_counter::measure(|| {
        for list in 0..lists {
            let ids: Vec<String> = (0..length).map(|at| format!("{:08}", list * length + at)).collect();
            let where_ = bind(&member, &json!({"ids": ids}), &json!({}));
            index.insert(&Condition::new(0, None, Sources::Any, Some(where_), None), list);
        }
    });
    assert!(cost.bytes_current <= 64 * lists as i64 * length as i64, "{}", cost.bytes_current);
    let equal = allocation_counter::measure(|| {
        let ids: Vec<String> = (0..length).map(|at| format!("{at:08}")).collect();
        let where_ = bind(&member, &json!({"ids": ids}), &json!({}));
        assert_eq!(index.get(&Condition::new(0, None, Sources::Any, Some(where_), None)), Some(&0));
    });
    assert_eq!(equal.bytes_current, 0);
}

#[test]
fn removing_leaves_nothing_behind() {
    let conditions = conditions(1000);
    let mut index = Index::default();
    let cost = allocation_counter::measure(|| {
        for (group, condition) in conditions.iter().enumerate() {
            index.insert(condition, group);
        }
        for (group, condition) in conditions.iter().enumerate() {
            assert_eq!(index.remove(condition), Some(group));
        }
    });
    assert_eq!((index.len(), cost.count_current, cost.bytes_current), (0, 0, 0));
}
