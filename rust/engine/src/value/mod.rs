//! A JSON value: an event's `data`, coerced arguments, a viewer's claims, and what was read of a function's result.
//!
//! Parsed once (simd-json; serde_json for numbers that simd-json refuses) and shared by `Arc`. Integers keep every digit,
//! of duplicate keys the last one counts. It knows nothing of GraphQL types: see `graphql`.
//!
//! One circle of files: a place of a value may hold an error (`failure`), whose extensions are a value.

use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

pub use failure::{GraphQLError, PathStep};

mod failure;

/// Members of an object in the order in which they were given. Its hashes are seeded: clients choose the keys.
pub type Object = IndexMap<Box<str>, Value, RandomState>;

/// Arrays and objects may be nested this deep in anything that comes from outside.
pub const MAX_NESTING: usize = 128;

/// A JSON value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A finite number with a fraction or an exponent.
    Float(f64),
    /// A number that neither of the two holds exactly: its JSON text.
    Number(Box<str>),
    /// Text without NUL.
    String(Box<str>),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(Object),
    /// Only in what was read of a function's result: reading this place failed.
    Failed(Arc<GraphQLError>),
}

/// Why a text is not a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// `\u0000` somewhere in a key or a string.
    #[error("contains NUL")]
    Nul,
    /// Nested deeper than [`MAX_NESTING`].
    #[error("nested deeper than {MAX_NESTING}")]
    TooDeep,
}

impl Value {
    /// Parses JSON text.
    pub fn parse(text: &[u8]) -> Result<Value, ValueError> {
        Value::parse_within(text, MAX_NESTING)
    }

    /// Parses JSON text that is nested `deepest` deep at most.
    pub(crate) fn parse_within(text: &[u8], deepest: usize) -> Result<Value, ValueError> {
        // The nesting is bounded before any recursive parser sees the text.
        if nesting(text) > deepest {
            return Err(ValueError::TooDeep);
        }
        let mut buffer = text.to_vec();
        let value = match simd_json::serde::from_slice::<Value>(&mut buffer) {
            Ok(value) => value,
            Err(error) => parse_any_number(text).map_err(|_| ValueError::Syntax(error.to_string()))?,
        };
        if memchr_nul_escape(text) && value.has_nul() {
            return Err(ValueError::Nul);
        }
        Ok(value)
    }

    /// A string.
    pub fn string(text: impl Into<Box<str>>) -> Value {
        Value::String(text.into())
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The member of an object; `None` where this is no object or has no such key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// The value at a path of keys.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        path.into_iter().try_fold(self, Value::get)
    }

    /// Its compact JSON text.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    /// Appends its compact JSON text; a failed place is `null`.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Value::Null | Value::Failed(_) => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Int(number) => _ = write!(out, "{number}"),
            Value::Float(number) => write_float(*number, out),
            Value::Number(text) => out.push_str(text),
            Value::String(text) => write_string(text, out),
            Value::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_string(key, out);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }

    /// Its JSON text with sorted keys and one form for equal numbers: equal for equal values, so it can be part of a key.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        match self {
            Value::List(items) => {
                out.push('[');
                for item in items {
                    item.write_canonical(out);
                    out.push(',');
                }
                out.push(']');
            }
            Value::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                out.push('{');
                for (key, value) in sorted {
                    write_string(key, out);
                    out.push(':');
                    value.write_canonical(out);
                    out.push(',');
                }
                out.push('}');
            }
            Value::Float(_) | Value::Number(_) => match self.as_decimal() {
                Some(decimal) => decimal.write(out),
                None => self.write_json(out),
            },
            Value::Int(number) => _ = write!(out, "{number}"),
            other => other.write_json(out),
        }
    }

    /// The exact decimal that a number stands for.
    pub fn as_decimal(&self) -> Option<Decimal> {
        match self {
            Value::Int(number) => Decimal::parse(&number.to_string()),
            Value::Float(number) => {
                let mut text = String::new();
                write_float(*number, &mut text);
                Decimal::parse(&text)
            }
            Value::Number(text) => Decimal::parse(text),
            _ => None,
        }
    }

    /// Whether a NUL stands anywhere in it.
    pub fn has_nul(&self) -> bool {
        match self {
            Value::String(text) => text.contains('\0'),
            Value::List(items) => items.iter().any(Value::has_nul),
            Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || value.has_nul()),
            _ => false,
        }
    }
}

/// Equal as typed JSON: numbers by their value, objects whatever their order of keys.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        use Value::{Bool, Float, Int, List, Null, Number, Object, String};
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a == b,
            // Below 2^53 the conversion is exact, and above it no integer can meet such a float.
            (Int(int), Float(float)) | (Float(float), Int(int)) if float.abs() < 9_007_199_254_740_992.0 => {
                *int as f64 == *float
            }
            (String(a), String(b)) => a == b,
            (List(a), List(b)) => a == b,
            (Object(a), Object(b)) => a == b,
            (Int(_) | Float(_) | Number(_), Int(_) | Float(_) | Number(_)) => self.as_decimal() == other.as_decimal(),
            _ => false,
        }
    }
}

/// A number as a sign, its digits without leading or trailing zeros, and the place of the decimal point:
/// `0.d₁d₂d₃… × 10^point`. Zero has no digits. It has one form for each number, and an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    digits: Box<str>,
    point: i64,
}

impl Decimal {
    /// Reads a JSON number.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            // An exponent beyond 64 bits is as good as the end of the scale.
            Some((mantissa, exponent)) => {
                let far = if exponent.starts_with('-') { i64::MIN / 4 } else { i64::MAX / 4 };
                (mantissa, exponent.parse::<i64>().unwrap_or(far).clamp(i64::MIN / 4, i64::MAX / 4))
            }
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = format!("{whole}{fraction}");
        let leading = digits.len() - digits.trim_start_matches('0').len();
        let trimmed = digits.trim_matches('0');
        if trimmed.is_empty() {
            return Some(Decimal { negative: false, digits: "".into(), point: 0 });
        }
        let point = whole.len() as i64 - leading as i64 + exponent;
        Some(Decimal { negative, digits: trimmed.into(), point })
    }

    /// Reads numeric text as clients write it.
    pub fn parse_text(text: &str) -> Option<Decimal> {
        Decimal::parse(text.strip_prefix('+').unwrap_or(text))
    }

    /// Whether it is a whole number.
    pub fn is_integer(&self) -> bool {
        self.point >= self.digits.len() as i64
    }

    fn write(&self, out: &mut String) {
        if self.negative {
            out.push('-');
        }
        match self.point {
            // Whole numbers of ordinary size look like integers, so that 1.0 and 1 have one form.
            point if self.is_integer() && point <= 40 => {
                out.push_str(if self.digits.is_empty() { "0" } else { &self.digits });
                out.extend(std::iter::repeat_n('0', point as usize - self.digits.len()));
            }
            point => _ = write!(out, "0.{}e{point}", self.digits),
        }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        out.write_str(&text)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> std::cmp::Ordering {
        let sign = |d: &Decimal| {
            if d.digits.is_empty() {
                0
            } else if d.negative {
                -1
            } else {
                1
            }
        };
        let magnitude = || (self.point, &self.digits).cmp(&(other.point, &other.digits));
        let within = || if self.negative { magnitude().reverse() } else { magnitude() };
        sign(self).cmp(&sign(other)).then_with(within)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Appends a JSON string.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    // Most text needs no escape, and a scan without an exit is done many bytes at a time.
    let escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => _ = write!(out, "\\u{control:04x}"),
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Appends a finite float as JSON, with a fraction or an exponent, so that it stays a float.
pub fn write_float(number: f64, out: &mut String) {
    match serde_json::to_string(&number) {
        Ok(text) => out.push_str(&text),
        Err(_) => out.push_str("null"),
    }
}

/// Parses JSON text with numbers of any length; the caller has bounded its nesting.
fn parse_any_number(text: &[u8]) -> serde_json::Result<Value> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser)?;
    parser.end().map(|()| value)
}

/// How deep arrays and objects are nested in a text, brackets inside strings apart.
fn nesting(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    deepest
}

/// Whether the text may hold an escaped NUL; a raw one is no JSON.
fn memchr_nul_escape(text: &[u8]) -> bool {
    text.windows(6).any(|window| window == b"\\u0000")
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// The key under which serde_json hands over a number of arbitrary precision.
const NUMBER_KEY: &str = "$serde_json::private::Number";

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(value.to_string().into()), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(64));
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object =
            Object::with_capacity_and_hasher(members.size_hint().unwrap_or(0).min(64), RandomState::default());
        while let Some((key, value)) = members.next_entry::<Box<str>, Value>()? {
            object.insert(key, value);
        }
        // serde_json's only way to hand over a number is an object with this one key.
        if object.len() == 1
            && let Some(text) = object.get(NUMBER_KEY).and_then(Value::as_str)
            // Anyone can write that key: what is no number stays an object, else its text would be JSON of its own.
            && text.parse::<serde_json::Number>().is_ok()
        {
            return Ok(number(text));
        }
        Ok(Value::Object(object))
    }
}

/// The value of a JSON number's text.
pub fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse::<i64>() {
        return Value::Int(integer);
    }
    match text.parse::<f64>() {
        Ok(float)
            if float.is_finite()
                && Value::Float(float).as_decimal() == Decimal::parse(text)
                && text.contains(['.', 'e', 'E']) =>
        {
            Value::Float(float)
        }
        _ => Value::Number(text.into()),
    }
}
