//! A value and a plan in, the JSON text of an ExecutionResult out: projected once, shared by every subscriber of the class.
//!
//! It completes values as the specification says ([spec](https://spec.graphql.org/October2021/#sec-Value-Completion)) and
//! words its errors like graphql-core. Fields are completed one after the other: where a null propagates, the rest of that
//! object or list is not looked at, what was already written of it is cut off, and errors already found are kept. It knows
//! neither schema nor document (see [`crate::plan`]), and it runs no user code.
//!
//! On the good path nothing is allocated but the text itself.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::error::{GraphQLError, PathStep, code};
use crate::plan::{Leaf, Plan, PlannedField, PlannedType, Selection, Shape};
use crate::scalar::write_python;
use crate::value::{Value, write_float, write_string};

/// What the root field gave.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An event's `data`: members are looked up by Python name, then by GraphQL name.
    Passthrough(&'a Value),
    /// What was read of a function's result (see [`crate::plan::Reads`]): members are looked up by slot.
    Read(&'a Value),
    /// The field failed.
    Failed(&'a GraphQLError),
}

/// The result is larger than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the result is larger than {0} bytes")]
pub struct TooLarge(pub usize);

/// Projects what the root field gave to an ExecutionResult of at most `max_bytes`.
pub fn project(plan: &Plan, source: Source<'_>, max_bytes: usize) -> Result<String, TooLarge> {
    let mut projection = Projection {
        out: String::with_capacity(256),
        errors: Vec::new(),
        error_bytes: 0,
        passthrough: matches!(source, Source::Passthrough(_)),
        max_bytes,
    };
    match projection.run(plan, source) {
        Ok(()) if projection.out.len() <= max_bytes => Ok(projection.out),
        _ => Err(TooLarge(max_bytes)),
    }
}

struct Projection {
    out: String,
    errors: Vec<GraphQLError>,
    /// What the errors will take at the least, so that they count before they are written.
    error_bytes: usize,
    passthrough: bool,
    max_bytes: usize,
}

/// Why a place was not completed.
enum Stop {
    /// It is null, for a reason that is among the errors; the nearest place that may be null takes it.
    Null,
    /// There is no more room.
    TooLarge,
}

/// Where we are: a field's value, or an item of a list that it holds. It becomes an error's path only when one is found.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    field: &'a PlannedField,
    index: Option<usize>,
}

impl Path<'_> {
    fn steps(&self) -> Vec<PathStep> {
        let step = |path: &Path<'_>| match path.index {
            Some(index) => PathStep::Index(index),
            None => PathStep::Key(path.field.response_key.clone()),
        };
        let mut steps: Vec<PathStep> = std::iter::successors(Some(self), |path| path.parent).map(step).collect();
        steps.reverse();
        steps
    }
}

impl Projection {
    fn run(&mut self, plan: &Plan, source: Source<'_>) -> Result<(), Stop> {
        let field = &plan.root;
        self.out.push_str("{\"data\":");
        let start = self.out.len();
        self.out.push('{');
        self.out.push_str(&field.key_json);
        let (parent, index) = (None, None);
        let path = Path { parent, field, index };
        let placed = match source {
            Source::Passthrough(value) | Source::Read(value) => self.place(&field.ty, value, &path),
            Source::Failed(error) => {
                let from = self.out.len();
                let failed = self.raise(error.clone(), &path);
                self.settle(&field.ty, from, failed)
            }
        };
        match placed {
            Ok(()) => self.out.push('}'),
            Err(Stop::Null) => {
                self.out.truncate(start);
                self.out.push_str("null");
            }
            Err(stop) => return Err(stop),
        }
        // As in graphql-core: the same order whatever was completed first.
        self.errors.sort_by(|a, b| (&a.locations, &a.path, &a.message).cmp(&(&b.locations, &b.path, &b.message)));
        for (at, error) in self.errors.iter().enumerate() {
            self.out.push_str(if at == 0 { ",\"errors\":[" } else { "," });
            error.write_json(&mut self.out);
            if self.out.len() > self.max_bytes {
                return Err(Stop::TooLarge);
            }
        }
        self.out.push_str(if self.errors.is_empty() { "}" } else { "]}" });
        Ok(())
    }

    /// Completes one place: a field's value or a list's item.
    fn place(&mut self, ty: &PlannedType, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let from = self.out.len();
        let completed = self.complete(ty, value, path);
        self.settle(ty, from, completed)
    }

    /// Ends a place that began at `from`: a null stays here if it may.
    fn settle(&mut self, ty: &PlannedType, from: usize, completed: Result<(), Stop>) -> Result<(), Stop> {
        match completed {
            Err(Stop::Null) if ty.nullable => {
                self.out.truncate(from);
                self.out.push_str("null");
            }
            other => other?,
        }
        if self.out.len() + self.error_bytes > self.max_bytes {
            return Err(Stop::TooLarge);
        }
        Ok(())
    }

    fn complete(&mut self, ty: &PlannedType, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let coordinate = &path.field.coordinate;
        match (&ty.shape, value) {
            (Shape::Masked, _) => return self.forbid(path),
            (Shape::Typename(text), _) => self.out.push_str(text),
            (_, Value::Failed(error)) => return self.raise((**error).clone(), path),
            (_, Value::Null) if ty.nullable => self.out.push_str("null"),
            (_, Value::Null) => {
                return self.fail(format!("Cannot return null for non-nullable field {coordinate}."), path);
            }
            (Shape::Leaf(leaf), _) => match write_leaf(leaf, value, &mut self.out) {
                Ok(()) => {}
                Err(message) => return self.fail(message, path),
            },
            (Shape::List(item), Value::List(values)) => {
                self.out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    let (parent, index) = (Some(path), Some(index));
                    self.place(item, value, &Path { parent, index, ..*path })?;
                }
                self.out.push(']');
            }
            (Shape::List(_), _) => {
                let message = format!("Expected Iterable, but did not find one for field '{coordinate}'.");
                return self.fail(message, path);
            }
            (Shape::Object(selection), _) => return self.object(selection, value, path),
            (Shape::Abstract(possible), _) => {
                let expected = &possible.name;
                let name = value.get("__typename").and_then(Value::as_str);
                let message = match name.map(|name| possible.types.get(name).ok_or(name)) {
                    Some(Ok(Some(selection))) => return self.object(selection, value, path),
                    Some(Ok(None)) => return self.forbid(path),
                    Some(Err(name)) => {
                        let name = shorten(name);
                        format!("Runtime Object type '{name}' is not a possible type for '{expected}'.")
                    }
                    None => format!(
                        "Abstract type '{expected}' must resolve to an Object type at runtime for field '{coordinate}'."
                    ),
                };
                return self.fail(message, path);
            }
        }
        Ok(())
    }

    fn object(&mut self, selection: &Selection, value: &Value, path: &Path<'_>) -> Result<(), Stop> {
        let Value::Object(members) = value else {
            // What a list holds may be guarded.
            let value = if matches!(value, Value::List(_)) { "[...]".into() } else { inspect(value) };
            let expected = &selection.type_name;
            return self.fail(format!("Expected value of type '{expected}' but got: {value}."), path);
        };
        self.out.push('{');
        for (at, field) in selection.fields.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.out.push_str(&field.key_json);
            let key = &field.key;
            let value = if self.passthrough {
                members.get(&*key.python_name).or_else(|| members.get(&*key.graphql_name))
            } else {
                members.get(&*key.slot)
            };
            let (parent, index) = (Some(path), None);
            self.place(&field.ty, value.unwrap_or(&Value::Null), &Path { parent, field, index })?;
        }
        self.out.push('}');
        Ok(())
    }

    fn forbid(&mut self, path: &Path<'_>) -> Result<(), Stop> {
        self.raise(GraphQLError::new(code::FORBIDDEN, "Forbidden"), path)
    }

    fn fail(&mut self, message: String, path: &Path<'_>) -> Result<(), Stop> {
        self.raise(GraphQLError::new(code::INTERNAL_SERVER_ERROR, message), path)
    }

    fn raise(&mut self, mut error: GraphQLError, path: &Path<'_>) -> Result<(), Stop> {
        error.path = path.steps();
        error.locations = path.field.locations.to_vec();
        self.error_bytes += error.message.len() + error.path.len();
        self.errors.push(error);
        Err(Stop::Null)
    }
}

/// Appends a leaf as its type serialises it, or says why it cannot
/// ([spec](https://spec.graphql.org/October2021/#sec-Scalars.Built-in-Scalars)).
fn write_leaf(leaf: &Leaf, value: &Value, out: &mut String) -> Result<(), String> {
    match (leaf, value) {
        (
            Leaf::String | Leaf::Id | Leaf::DateTime | Leaf::Date | Leaf::Time | Leaf::Uuid | Leaf::Decimal,
            Value::String(text),
        ) => write_string(text, out),
        (Leaf::Enum(definition), Value::String(name)) if definition.values.contains_key(&**name) => {
            write_string(name, out);
        }
        (Leaf::Boolean, Value::Bool(_)) => value.write_json(out),
        (Leaf::Json, _) if is_json(value) => value.write_json(out),
        (Leaf::Decimal, Value::Int(_) | Value::Float(_) | Value::Number(_)) if is_json(value) => value.write_json(out),
        (Leaf::Int, _) => match integer(value) {
            Some(number) if i32::try_from(number).is_ok() => _ = write!(out, "{number}"),
            Some(_) => return refuse("Int cannot represent non 32-bit signed integer value:", value),
            None => return refuse(&leaf.complaint(), value),
        },
        (Leaf::Float, _) => match float(value) {
            Some(number) => write_float(number, out),
            None => return refuse(&leaf.complaint(), value),
        },
        (Leaf::Boolean, _) => match value {
            Value::Int(number) => out.push_str(if *number == 0 { "false" } else { "true" }),
            Value::Float(number) if number.is_finite() => out.push_str(if *number == 0.0 { "false" } else { "true" }),
            // A number that fits neither an integer nor a float is not zero.
            Value::Number(_) => out.push_str("true"),
            _ => return refuse(&leaf.complaint(), value),
        },
        (Leaf::String, Value::Bool(flag)) => write_string(if *flag { "true" } else { "false" }, out),
        (Leaf::String, Value::Float(number)) if number.is_finite() => write_string(&python_float(*number), out),
        (Leaf::String | Leaf::Id, Value::Int(number)) => _ = write!(out, "\"{number}\""),
        (Leaf::String, Value::Number(text)) => write_string(text, out),
        // Adding zero takes the sign off a negative zero.
        (Leaf::Id, Value::Float(number)) if number.fract() == 0.0 => _ = write!(out, "\"{:.0}\"", number + 0.0),
        (Leaf::Id, Value::Number(text)) if !text.contains(['.', 'e', 'E']) => write_string(text, out),
        _ => return refuse(&leaf.complaint(), value),
    }
    Ok(())
}

fn refuse(sentence: &str, value: &Value) -> Result<(), String> {
    Err(format!("{sentence} {}", inspect(value)))
}

/// The integer that a value stands for; one beyond 64 bits is as good as the greatest of 64.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Int(number) => Some(*number),
        // The conversion saturates.
        Value::Float(number) if number.fract() == 0.0 => Some(*number as i64),
        Value::Number(text) => (!text.contains(['.', 'e', 'E'])).then_some(i64::MAX),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            valid.then(|| text.parse().unwrap_or(i64::MAX))
        }
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Number(text) => text.parse().ok()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Whether it has a JSON text: nothing failed in it, and every number is finite.
fn is_json(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::List(items) => items.iter().all(is_json),
        Value::Object(members) => members.values().all(is_json),
        Value::Failed(_) => false,
        _ => true,
    }
}

/// A float as Python prints it; Rust's own form differs in its exponent and in NaN.
fn python_float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text.to_lowercase(),
    }
}

/// At most so many characters of a value are told.
const SHOWN: usize = 60;

/// A value for a message, as Python prints it, but never much of it.
fn inspect(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Float(number) => out = python_float(*number),
        _ => write_python(value, SHOWN, &mut out),
    }
    shorten(&out).into_owned()
}

fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::tests::{GUARDED, build, plan, schema, schema_of};

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
        let line = |error: &Value| {
            format!("{} {}{}", path(error), error.get("message").unwrap().as_str().unwrap(), code(error))
        };
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
        let plan =
            plan("subscription { node { id ... on Customer { a: friends(first: 1) { id } b: friends { id } } } }");
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
        let table = include_str!("../tests/leafs.tsv");
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let cells: Vec<&str> = line.split('\t').collect();
            let [field, value, expected] = cells[..] else { panic!("three cells: {line}") };
            let (data, errors) = order(
                &format!("x: {field}"),
                &format!(r#"{{"id":{value},"{field}":{value},"customer_name":{value}}}"#),
            );
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
        let data =
            r#"{"at":"2026-01-01T00:00:00Z","price":"1.50","key":"A-b","extra":{"a":[1,null,{"b":2.5}]},"odd":[1]}"#;
        let (fields, numbers) = ("at price key extra odd", r#"{"price":12345678901234567890,"odd":3}"#);
        assert_eq!(order(fields, data), (format!(r#"{{"order":{data}}}"#), vec![]));
        assert_eq!(order("price odd", numbers), (format!(r#"{{"order":{numbers}}}"#), vec![]));
        let (data, errors) = order("at price key", r#"{"at":1,"price":true,"key":{"a":1}}"#);
        assert_eq!(data, r#"{"order":{"at":null,"price":null,"key":null}}"#);
        assert_eq!(
            errors,
            [
                "[order,at] DateTime cannot represent value: 1",
                "[order,price] Decimal cannot represent value: True",
                "[order,key] UUID cannot represent value: {'a': 1}"
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
        let node =
            |data: &str| parts(&projected("subscription { node { id ... on Order { status } __typename } }", data));
        assert_eq!(
            node(r#"{"__typename":"Order","id":1}"#).0,
            r#"{"node":{"id":"1","status":null,"__typename":"Order"}}"#
        );
        assert_eq!(node(r#"{"__typename":"Customer","id":1}"#).0, r#"{"node":{"id":"1","__typename":"Customer"}}"#);
        let must =
            "[node] Abstract type 'Node' must resolve to an Object type at runtime for field 'Subscription.node'.";
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
        assert!(
            failed("subscription { strictOrder { id } }").starts_with(r#"{"data":null,"errors":[{"message":"late""#)
        );
        let items = Value::List(vec![Value::Failed(Arc::new(error.clone())), Value::Null]);
        let tree = Value::Object(
            [("rows".into(), Value::List(vec![items])), ("id".into(), Value::Int(1))].into_iter().collect(),
        );
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
        let tree =
            Value::parse(br#"[{"owner":{"id":1,"email":"secret"}},null,{"owner":{"id":2,"email":null}}]"#).unwrap();
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
}
