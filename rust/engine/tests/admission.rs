//! The one place where all security modules stand: who is admitted, who is refused by which module, and what becomes of an event.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use fraiseql_subs_engine::admission::{Admission, Admitted, Explanation, Gate};
use fraiseql_subs_engine::error::Rejection;
use fraiseql_subs_engine::error::{Module, Refusal};
use fraiseql_subs_engine::event::{Audience, Event};
use fraiseql_subs_engine::graphql::{Request, Schema, SchemaInput};
use fraiseql_subs_engine::security::federation::Sources;
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use limits::limits;
use serde_json::{Value as Json, json};

#[path = "common/limits.rs"]
mod limits;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

const SDL: &str = "
    type Subscription {
        f(id: ID, ids: [ID], key: UUID, text: String, number: Int, any: JSON, in: In, ins: [In], day: Date, at: DateTime, made: Made): Thing
    }
    type Thing { id: ID secret: String open: String }
    input In { tenantId: ID below: [In!] extra: JSON }
    enum Made { HERE THERE }
    scalar JSON scalar Date scalar DateTime scalar UUID";

/// A gate for one field, which is declared with this beside its name.
fn build(declared: &Json, multi_tenant: bool) -> Result<Gate, String> {
    let mut declaration = json!({"field": "f", "function": "app.f"});
    if declared["kind"] != "generator" {
        declaration["channel"] = json!("c");
    }
    declaration.as_object_mut().unwrap().extend(declared.as_object().unwrap().clone());
    let input = SchemaInput {
        sdl: SDL.into(),
        declarations: serde_json::from_value(json!([declaration])).unwrap(),
        requires: serde_json::from_value(json!({"Thing.secret": [["secrets"]]})).unwrap(),
        ..SchemaInput::default()
    };
    let schema = Schema::build(input).map_err(|error| error.to_string())?;
    Ok(Gate::new(schema, &limits(), multi_tenant))
}

fn gate(declared: &Json) -> Gate {
    build(declared, false).unwrap()
}

fn value(json: &Json) -> Value {
    Value::parse(json.to_string().as_bytes()).unwrap()
}

/// A viewer with these fields.
fn viewer(fields: &Json) -> Viewer {
    let set = |name: &str| {
        let items = fields[name].as_array()?;
        Some(items.iter().map(|item| Box::from(item.as_str().unwrap())).collect())
    };
    let text = |name: &str| fields[name].as_str().map(Arc::from);
    Viewer {
        user_id: text("user_id"),
        tenant_id: text("tenant_id"),
        permissions: set("permissions").unwrap_or_default(),
        sources: set("sources"),
        fields: value(fields),
        key: fields.to_string().into(),
        ..Viewer::default()
    }
}

fn admit(gate: &Gate, query: &str, viewer: Viewer) -> Result<Admission, Rejection> {
    let request = Request { query, operation_name: None, variables: &Value::Null, introspection: true };
    match gate.admit(&request, &Arc::new(viewer), NOW)? {
        Admitted::Subscription(admission) => Ok(admission),
        other => panic!("{other:?}"),
    }
}

fn refusal(gate: &Gate, query: &str, viewer: Viewer) -> Option<Refusal> {
    match admit(gate, query, viewer) {
        Ok(_) => None,
        Err(Rejection::Forbidden(refusal)) => Some(refusal),
        Err(other) => panic!("{query}: {other:?}"),
    }
}

fn refused(module: Module, reason: &str) -> Option<Refusal> {
    Some(Refusal::by(module, reason.to_owned()))
}

// ---- Variable scope --------------------------------------------------------------------------------------------------------

fn scope(argument: &str, field: &str) -> Json {
    let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    json!({"scope": [{"argument": path(argument), "viewer": path(field)}]})
}

#[test]
fn every_value_of_an_argument_must_be_the_viewers() {
    let own = json!({"user_id": "1", "tenant_id": null, "roles": ["a"], "claims": {"n": 1, "list": ["x"], "text": "HERE", "none": null,
                     "day": "2026-01-01", "object": {"a": 1, "b": [2]}}});
    for (argument, field, given, expected) in [
        ("id", "user_id", "id: \"1\"", true),
        ("id", "user_id", "id: 1", true),
        ("id", "user_id", "id: \"2\"", false),
        ("id", "user_id", "id: null", false),
        ("id", "user_id", "text: \"1\"", false),
        ("id", "tenant_id", "id: \"1\"", false),
        ("id", "tenant_id", "id: null", false),
        ("id", "tenant_id", "text: \"1\"", false),
        ("id", "claims.none", "id: null", false),
        ("id", "claims.missing", "id: \"1\"", false),
        ("ids", "user_id", "ids: [1, \"1\"]", true),
        ("ids", "user_id", "ids: 1", true),
        ("ids", "user_id", "ids: [1, 2]", false),
        ("ids", "user_id", "ids: [2, 1]", false),
        ("ids", "user_id", "ids: [1, null]", false),
        ("ids", "user_id", "ids: []", false),
        ("text", "user_id", "text: \"1\"", true),
        ("number", "user_id", "number: 1", true),
        ("number", "user_id", "number: 2", false),
        ("any", "user_id", "any: 1.5", false),
        ("any", "user_id", "any: true", false),
        ("any", "claims.n", "any: 1.0", true),
        ("any", "claims.n", "any: \"1\"", false),
        ("any", "claims.n", "any: true", false),
        ("any", "claims.object", "any: {b: [2], a: 1}", true),
        ("any", "claims.object", "any: {b: [2], a: 2}", false),
        ("any.a.b", "claims.n", "any: {a: {b: 1}}", true),
        ("any.a.b", "claims.n", "any: {a: {b: 2}, b: 1}", false),
        ("any.a.b", "claims.n", "any: {a: 1}", false),
        ("any.a.b", "claims.n", "any: {a: [{b: 1}, {b: 1}]}", true),
        ("any.a.b", "claims.n", "any: {a: [{b: 1}, {c: 1}]}", false),
        // A list is its items: that the viewer has a list is no reason to accept one.
        ("any", "claims.list", "any: [\"x\"]", false),
        ("any", "claims.list.0", "any: \"x\"", false),
        ("made", "claims.text", "made: HERE", true),
        ("made", "claims.text", "made: THERE", false),
        ("day", "claims.day", "day: \"2026-01-01\"", true),
        ("day", "claims.day", "day: \"2026-01-02\"", false),
        ("key", "user_id", "key: \"00000000-0000-4000-8000-000000000000\"", false),
        ("in_.tenant_id", "user_id", "in: {tenantId: 1}", true),
        ("in_.tenant_id", "user_id", "in: {tenantId: 2}", false),
        ("in_.tenant_id", "user_id", "in: {}", false),
        ("in_.tenant_id", "user_id", "in: null", false),
        ("in_.below.tenant_id", "user_id", "in: {tenantId: 2, below: [{tenantId: 1}, {tenantId: 1}]}", true),
        ("in_.below.tenant_id", "user_id", "in: {tenantId: 1, below: [{tenantId: 1}, {}]}", false),
        ("in_.below.tenant_id", "user_id", "in: {below: []}", false),
        ("in_.extra.x", "claims.n", "in: {extra: {x: 1}}", true),
        ("ins.below.tenant_id", "user_id", "ins: [{below: {tenantId: 1}}, {below: [{tenantId: 1}]}]", true),
        ("ins.below.tenant_id", "user_id", "ins: [{below: {tenantId: 1}}, {below: []}]", false),
        ("ins.tenant_id", "user_id", "ins: [null]", false),
    ] {
        let query = format!("subscription {{ f({given}) {{ id }} }}");
        let found = refusal(&gate(&scope(argument, field)), &query, viewer(&own));
        assert_eq!(found.is_none(), expected, "{argument} {field}: {given}");
        assert!(found.is_none_or(|found| found.module == Some(Module::Scope)), "{argument} {field}: {given}");
    }
    let at = |given: &str| {
        let viewer = Viewer { expires_at: Some(NOW + TimeDelta::hours(1)), ..viewer(&own) };
        refusal(&gate(&scope("at", "expires_at")), &format!("subscription {{ f(at: \"{given}\") {{ id }} }}"), viewer)
    };
    assert_eq!(at("1970-01-01T03:00:00+02:00"), None);
    assert!(at("1970-01-01T01:00:01Z").is_some());
}

#[test]
fn operators_are_told_rule_and_values() {
    let told = |argument: &str, given: &str, fields: &Json| {
        let query = format!("subscription {{ f({given}) {{ id }} }}");
        refusal(&gate(&scope(argument, "user_id")), &query, viewer(fields))
    };
    assert_eq!(
        told("ids", "ids: [1, 2]", &json!({"user_id": "1"})),
        refused(Module::Scope, r#"the argument ids must equal the viewer's user_id: ids is ["1","2"], user_id is "1""#)
    );
    assert_eq!(
        told("in_.tenant_id", "id: 1", &json!({})),
        refused(
            Module::Scope,
            "the argument in_.tenant_id must equal the viewer's user_id: in_ is missing, user_id is missing"
        )
    );
}

#[test]
fn a_scope_names_what_exists() {
    for (argument, field, problem) in [
        ("nope", "user_id", "unknown argument \"nope\""),
        ("in_", "user_id", "unknown argument \"in_\""),
        ("in_.nope", "user_id", "unknown argument \"in_.nope\""),
        ("in_.tenant_id.x", "user_id", "unknown argument \"in_.tenant_id.x\""),
        ("id.x", "user_id", "unknown argument \"id.x\""),
        ("at.x", "user_id", "unknown argument \"at.x\""),
        ("text.x", "user_id", "unknown argument \"text.x\""),
        ("made.x", "user_id", "unknown argument \"made.x\""),
        ("id", "nope", "unknown viewer field \"nope\""),
        ("id", "user_id.x", "unknown viewer field \"user_id.x\""),
    ] {
        let found = build(&scope(argument, field), false).err();
        assert_eq!(found.unwrap_or_default(), format!("app.f (Subscription.f): scope: {problem}"));
    }
    assert!(build(&scope("any.x.y", "claims.x.y"), false).is_ok());
}

/// An argument's kind is how it compares, in `where` too.
#[test]
fn arguments_compare_as_their_type_says() {
    let event = |x: Json| event(&json!({"x": x}));
    for (argument, given, data, expected) in [
        ("id", "id: 1", json!(1), true),
        ("id", "id: 1", json!("1"), true),
        ("id", "id: 1", json!(1.0), false),
        ("key", "key: \"0B9C7C1E-0000-4000-8000-00000000000A\"", json!("0b9c7c1e-0000-4000-8000-00000000000a"), true),
        ("text", "text: \"1\"", json!(1), false),
        ("text", "text: \"2026-01-01T00:00:00Z\"", json!("2026-01-01T01:00:00+01:00"), false),
        ("at", "at: \"2026-01-01T00:00:00Z\"", json!("2026-01-01T01:00:00+01:00"), true),
        ("number", "number: 1", json!(1.0), true),
        ("number", "number: 1", json!("1"), false),
        ("any", "any: \"1\"", json!(1), false),
        ("made", "made: HERE", json!("HERE"), true),
    ] {
        let gate = gate(&json!({"where": ["==", ["data", ["x"]], ["argument", argument, []]]}));
        let admission = admit(&gate, &format!("subscription {{ f({given}) {{ id }} }}"), Viewer::default()).unwrap();
        let verdict = admission.judge(&event(data.clone())).name();
        assert_eq!(verdict, if expected { "delivered" } else { "where" }, "{given} {data}");
    }
}

// ---- The other modules -----------------------------------------------------------------------------------------------------

const QUERY: &str = "subscription { f { id secret } }";

#[test]
fn permissions_are_an_or_of_ands() {
    let gate = gate(&json!({"requires": [["a", "b"], ["c"]]}));
    for (held, expected) in [
        (json!([]), false),
        (json!(["a"]), false),
        (json!(["b"]), false),
        (json!(["a", "b"]), true),
        (json!(["c"]), true),
        (json!(["C", "a b", "a,b"]), false),
    ] {
        let found = refusal(&gate, QUERY, viewer(&json!({"permissions": held, "roles": ["c"]})));
        assert_eq!(found.is_none(), expected, "{held}");
        assert!(found.is_none_or(|found| found.module == Some(Module::Fields)), "{held}");
    }
    // Whoever may not subscribe learns nothing of what else is wrong.
    let wrong = "subscription($v: Int!) { f(number: $v) { id } }";
    assert_eq!(refusal(&gate, wrong, Viewer::default()).unwrap().module, Some(Module::Fields));
}

#[test]
fn only_sources_that_both_allow_are_left() {
    let only = |names: &[&str]| Some(Sources::Only(Arc::new(names.iter().map(|name| Box::from(*name)).collect())));
    for (declared, own, expected) in [
        (json!(null), json!(null), Some(Sources::Any)),
        (json!(["a", "b"]), json!(null), only(&["a", "b"])),
        (json!(null), json!(["a"]), only(&["a"])),
        (json!(["a", "b"]), json!(["b", "c"]), only(&["b"])),
        (json!(["a"]), json!(["b"]), None),
        (json!(null), json!([]), None),
    ] {
        let gate = gate(&json!({"sources": declared}));
        match admit(&gate, QUERY, viewer(&json!({"sources": own}))) {
            Ok(admission) => assert_eq!(Some(admission.condition.sources()), expected.as_ref(), "{declared} {own}"),
            Err(Rejection::Forbidden(refusal)) => {
                assert_eq!((refusal.module, expected), (Some(Module::Sources), None), "{declared} {own}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    // Nobody can tell where what a generator yields comes from.
    let gate = gate(&json!({"kind": "generator"}));
    assert_eq!(refusal(&gate, QUERY, Viewer::default()), None);
    let limited = refusal(&gate, QUERY, viewer(&json!({"sources": ["a"]}))).unwrap();
    assert_eq!(limited.module, Some(Module::Sources));
}

#[test]
fn everybody_has_a_tenant_where_there_are_many() {
    for (multi_tenant, tenant, expected) in [
        (false, json!(null), true),
        (false, json!(""), true),
        (true, json!(null), false),
        (true, json!(""), false),
        (true, json!("a"), true),
    ] {
        let gate = build(&json!({}), multi_tenant).unwrap();
        let found = refusal(&gate, QUERY, viewer(&json!({"tenant_id": tenant})));
        let expected = if expected { None } else { refused(Module::Tenant, "the viewer has no tenant") };
        assert_eq!(found, expected, "{tenant}");
    }
}

#[test]
fn authority_ends_at_its_time() {
    let gate = gate(&json!({}));
    let until = |end: Option<TimeDelta>| Viewer { expires_at: end.map(|end| NOW + end), ..Viewer::default() };
    let millisecond = TimeDelta::milliseconds(1);
    for (end, refused, left) in [
        (None, false, None),
        (Some(millisecond), false, Some(Duration::from_millis(1))),
        (Some(TimeDelta::zero()), true, Some(Duration::ZERO)),
        (Some(-millisecond), true, Some(Duration::ZERO)),
        // No timer is set further away than ten years.
        (Some(TimeDelta::days(3650)), false, Some(Duration::from_secs(315_360_000))),
        (Some(TimeDelta::days(4000)), false, Some(Duration::from_secs(315_360_000))),
        (Some(TimeDelta::days(3649)), false, Some(Duration::from_secs(315_273_600))),
    ] {
        assert_eq!(until(end).expires_in(NOW), left, "{end:?}");
        let found = refusal(&gate, QUERY, until(end));
        assert_eq!(found, refused.then(|| Refusal::ended("the context has expired")), "{end:?}");
    }
}

#[test]
fn viewers_differ_in_a_field_that_can_be_named() {
    let all = json!({"user_id": "1", "tenant_id": "t", "roles": ["r"], "permissions": ["p"], "sources": null, "claims": {"a": 1}});
    assert_eq!(viewer(&all).differs(&viewer(&all)), None);
    for field in ["user_id", "tenant_id", "roles", "permissions", "sources", "claims"] {
        let mut other = all.clone();
        other[field] = json!(["other"]);
        assert_eq!(viewer(&all).differs(&viewer(&other)), Some(field));
        assert_eq!(viewer(&other).differs(&viewer(&all)), Some(field));
    }
    // Equal texts of ids that are not equal.
    let other = Viewer { key: "another".into(), ..viewer(&all) };
    assert_eq!(viewer(&all).differs(&other), Some("the type of an id"));
}

// ---- What becomes of an event ------------------------------------------------------------------------------------------------

fn event(data: &Json) -> Event {
    Event {
        id: "1".into(),
        event_type: "made".into(),
        channel: "c".into(),
        audience: Audience::Tenant(None),
        source: None,
        published_at: NOW,
        data: value(data),
        size: 0,
        previous: None,
        position: fraiseql_subs_engine::event::Position::default(),
    }
}

#[test]
fn a_dry_run_names_the_stage_that_decided() {
    let declared = json!({
        "event_types": ["made"], "sources": ["a"], "requires": [["may"]],
        "where": ["==", ["data", ["w"]], ["argument", "number", []]], "rows": ["==", ["data", ["r"]], ["viewer", "user_id", []]],
    });
    let gate = gate(&declared);
    let own = json!({"user_id": "1", "permissions": ["may"]});
    let explain = |gate: &Gate, query: &str, fields: &Json, event: &Event| {
        let request = Request { query, operation_name: None, variables: &Value::Null, introspection: true };
        let Explanation { stage, reason, masked } = gate.explain(&request, &Arc::new(viewer(fields)), event, NOW);
        (stage, reason, masked.join(" "))
    };
    let good = || Event { source: Some("a".into()), ..event(&json!({"w": 7, "r": 1})) };
    let query = "subscription { f(number: 7) { id secret } }";
    let of = |event: Event| explain(&gate, query, &own, &event);
    let masked = || "Thing.secret".to_owned();
    assert_eq!(of(good()), ("delivered", "every stage says yes".into(), masked()));
    for (event, stage, reason) in [
        (
            Event { audience: Audience::Tenant(Some("t".into())), ..good() },
            "tenant",
            "the event is for tenant \"t\", the viewer's tenant is none",
        ),
        (
            Event { channel: "d".into(), ..good() },
            "channel",
            "the event is on channel \"d\", the subscription on \"c\"",
        ),
        (
            Event { event_type: "paid".into(), ..good() },
            "event_type",
            "the event's type is \"paid\", the field is about [\"made\"]",
        ),
        (Event { source: Some("b".into()), ..good() }, "sources", "the event's source is \"b\", allowed are [\"a\"]"),
        (
            Event { data: value(&json!({"w": 8, "r": 1})), ..good() },
            "where",
            "where is not true: data[\"w\"] == argument(\"number\"); data[\"w\"] is 8, argument(\"number\") is 7",
        ),
        (
            Event { data: value(&json!({"w": 7})), ..good() },
            "rows",
            "rows is not true: data[\"r\"] == viewer(\"user_id\"); data[\"r\"] is missing, viewer(\"user_id\") is \"1\"",
        ),
    ] {
        assert_eq!(of(event), (stage, reason.into(), masked()));
    }
    let everybody = Event { audience: Audience::All, ..good() };
    assert_eq!(of(everybody).0, "delivered");
    assert_eq!(explain(&gate, query, &json!({"permissions": ["may", "secrets"], "user_id": "1"}), &good()).2, "");
    assert_eq!(
        explain(&gate, query, &json!({}), &good()),
        ("forbidden", "Subscription.f requires 'may'; the viewer lacks 'may'".into(), String::new())
    );
    assert_eq!(explain(&gate, "subscription { nope }", &own, &good()).0, "request");
    assert_eq!(explain(&gate, "{ __typename }", &own, &good()).0, "request");
    let many = build(&json!({}), true).unwrap();
    let tenant = json!({"tenant_id": "t"});
    assert_eq!(explain(&many, QUERY, &tenant, &event(&json!({}))).0, "tenant");
    let theirs = Event { audience: Audience::Tenant(Some("t".into())), ..event(&json!({})) };
    assert_eq!(explain(&many, QUERY, &tenant, &theirs).0, "delivered");
    let generator = self::gate(&json!({"kind": "generator"}));
    assert_eq!(explain(&generator, QUERY, &own, &good()).0, "request");
}
