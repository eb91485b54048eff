//! JSON that comes from outside, with serde_json beside it: what one takes for a value the other does too.

use fraiseql_subs_engine::value::{Decimal, MAX_NESTING, Value, ValueError};
use serde::Deserialize as _;
use serde_json::Value as Json;

/// The key by which serde_json hands a number over. It takes whoever writes that key at his word, as we do only where a number stands.
const NUMBER_KEY: &[u8] = b"$serde_json::private::Number";

/// One text, or several with the byte 0xff, which no JSON holds, between them.
pub(crate) fn run(input: &[u8]) {
    let mut values = Vec::new();
    for text in input.split(|byte| *byte == 0xff) {
        values.extend(one(text));
    }
    for pair in values.windows(2) {
        let [left, right] = pair else { continue };
        // Numbers that are written alike where they are not equal, or the reverse, would join or part those who share a call.
        assert_eq!(left == right, left.canonical() == right.canonical(), "{left:?} and {right:?}");
        assert_eq!(left.eq(right), right.eq(left), "{left:?} and {right:?}");
    }
}

fn one(text: &[u8]) -> Option<Value> {
    let brackets = |pair: [u8; 2]| text.iter().filter(|byte| pair.contains(byte)).count();
    let deepest = brackets(*b"[{");
    let is_asked = deepest <= MAX_NESTING && !contains(text, NUMBER_KEY);
    let expected = is_asked.then(|| read(text));
    let value = match (Value::parse(text), expected) {
        (Ok(value), expected) => {
            if let Some(expected) = expected {
                let expected = expected.unwrap_or_else(|error| panic!("taken for {value:?}: {error}"));
                assert!(is(&value, &expected), "{value:?} is not {expected:?}");
            }
            value
        }
        // serde_json takes numbers with any exponent.
        (Err(ValueError::Syntax(error)), _) if error.contains("number out of range") => return None,
        (Err(ValueError::Syntax(error)), expected) => {
            assert!(expected.is_none_or(|expected| expected.is_err()), "refused: {error}");
            return None;
        }
        (Err(ValueError::Nul), expected) => {
            assert!(expected.is_none_or(|expected| expected.is_ok_and(|json| has_nul(&json))), "there is no NUL");
            return None;
        }
        (Err(ValueError::TooDeep), _) => {
            assert!(deepest > MAX_NESTING, "it is not deep");
            return None;
        }
    };
    assert!(!value.has_nul());
    let written = value.to_json();
    let again = Value::parse(written.as_bytes()).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(value, again);
    assert_eq!(value.canonical(), again.canonical());
    assert_eq!(written, again.to_json());
    Some(value)
}

/// What serde_json reads; its own limit of nesting is not ours.
fn read(text: &[u8]) -> serde_json::Result<Json> {
    let mut text = serde_json::Deserializer::from_slice(text);
    text.disable_recursion_limit();
    let json = Json::deserialize(&mut text)?;
    text.end().map(|()| json)
}

/// Whether a value is what serde_json, which keeps each number's text, has read.
fn is(value: &Value, json: &Json) -> bool {
    match (value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(value), Json::Bool(json)) => value == json,
        (Value::String(value), Json::String(json)) => **value == **json,
        (Value::List(value), Json::Array(json)) => {
            value.len() == json.len() && value.iter().zip(json).all(|(value, json)| is(value, json))
        }
        (Value::Object(value), Json::Object(json)) => {
            value.len() == json.len()
                && value.iter().all(|(key, value)| json.get(&**key).is_some_and(|json| is(value, json)))
        }
        (Value::Int(value), Json::Number(json)) => json.as_str().parse() == Ok(*value),
        // The nearest float, as the standard library finds it, and only where it has the same value.
        (Value::Float(float), Json::Number(json)) => {
            json.as_str().parse() == Ok(*float) && value.as_decimal() == Decimal::parse(json.as_str())
        }
        (Value::Number(text), Json::Number(json)) => {
            value.as_decimal().is_some() && Decimal::parse(text) == Decimal::parse(json.as_str())
        }
        _ => false,
    }
}

fn has_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(has_nul),
        Json::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
