//! JSON text to values and back.
//!
//! simd-json reads it. It is read by serde_json, which is slower and keeps the text of each number, where simd-json refuses a
//! number or makes a float of it that has another value.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Decimal, MAX_NESTING, Object, Value};

/// Why a text is not a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not JSON, or a number whose exponent is beyond 10^17.
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
        let scanned = Scan::of(text);
        // The nesting is bounded before any recursive parser sees the text.
        if scanned.deepest > deepest {
            return Err(ValueError::TooDeep);
        }
        let value = if scanned.floats_hold {
            simd_json::serde::from_slice::<Value>(&mut text.to_vec())
                .or_else(|error| parse_any_number(text).map_err(|_| ValueError::Syntax(error.to_string())))?
        } else {
            parse_any_number(text).map_err(|error| ValueError::Syntax(error.to_string()))?
        };
        if scanned.escaped_nul && value.has_nul() {
            return Err(ValueError::Nul);
        }
        Ok(value)
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
                Some(decimal) => _ = write!(out, "{decimal}"),
                None => self.write_json(out),
            },
            other => other.write_json(out),
        }
    }
}

/// The value of a JSON number's text: a float only where that has the same value. `None` where the exponent is beyond 10^17.
pub fn number(text: &str) -> Option<Value> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Value::Int(integer));
    }
    let float = if text.contains(['.', 'e', 'E']) { float(text) } else { None };
    float.map(Value::Float).or_else(|| Decimal::parse(text).map(|_| Value::Number(text.into())))
}

/// The float whose shortest text has the value of this one; `None` where there is none.
fn float(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    let mut shortest = [0; 32];
    let mut rest = &mut shortest[..];
    serde_json::to_writer(&mut rest, &number).ok()?;
    let written = 32 - rest.len();
    let shortest = &shortest[..written];
    // Most floats were written by a program that writes them like this.
    if text.as_bytes() == shortest {
        return Some(number);
    }
    let mantissa = text.split(['e', 'E']).next()?;
    let significant = mantissa.trim_start_matches(['-', '0', '.']).trim_end_matches(['0', '.']);
    let holds = match significant.len() - usize::from(significant.contains('.')) {
        digits if digits <= f64::DIGITS as usize && ORDINARY.contains(&number.abs()) => true,
        digits if digits > MOST_DIGITS => false,
        _ => Decimal::parse(text)? == Decimal::parse(str::from_utf8(shortest).ok()?)?,
    };
    holds.then_some(number)
}

/// No float's shortest text has more digits.
const MOST_DIGITS: usize = 17;

/// Where floats are as close to each other as they can be, so that each holds any decimal of `f64::DIGITS`.
const ORDINARY: RangeInclusive<f64> = 1e-300..=1e300;

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

/// The length of a text as a JSON string.
pub(super) fn string_len(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(more).sum::<usize>()
}

/// Appends a finite float as JSON, with a fraction or an exponent, so that it stays a float.
pub fn write_float(number: f64, out: &mut String) {
    match serde_json::to_string(&number) {
        Ok(text) => out.push_str(&text),
        Err(_) => out.push_str("null"),
    }
}

/// Parses JSON text with any numbers; the caller has bounded its nesting.
fn parse_any_number(text: &[u8]) -> serde_json::Result<Value> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser)?;
    parser.end().map(|()| value)
}

/// What is known of a text before it is parsed, from one pass over its bytes.
struct Scan {
    /// How deep arrays and objects are nested.
    deepest: usize,
    /// Whether each number with a fraction or an exponent has the value of a float.
    floats_hold: bool,
    /// Whether there may be an escaped NUL in a string; a raw one is no JSON.
    escaped_nul: bool,
}

impl Scan {
    fn of(text: &[u8]) -> Scan {
        let mut scan = Scan { deepest: 0, floats_hold: true, escaped_nul: false };
        let (mut at, mut depth) = (0, 0usize);
        while let Some(byte) = text.get(at) {
            match byte {
                b'"' => {
                    at = scan.string(text, at + 1);
                    continue;
                }
                b'-' | b'0'..=b'9' => {
                    at = scan.number(text, at);
                    continue;
                }
                b'[' | b'{' => {
                    depth += 1;
                    scan.deepest = scan.deepest.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        scan
    }

    /// Returns where a string that begins at `at` has ended.
    fn string(&mut self, text: &[u8], mut at: usize) -> usize {
        const WIDTH: usize = 16;
        let mut long = at + 2 * WIDTH;
        while let Some(byte) = text.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => {
                    self.escaped_nul |= text[at..].starts_with(b"\\u0000");
                    at += 2;
                }
                _ => at += 1,
            }
            if at >= long {
                // Without an exit, which is done many bytes at a time.
                let ends = |found: bool, byte: &u8| found | (*byte == b'"') | (*byte == b'\\');
                let parts = text.get(at..).unwrap_or_default().chunks_exact(WIDTH);
                at += WIDTH * parts.take_while(|part| !part.iter().fold(false, ends)).count();
                long = at + WIDTH;
            }
        }
        at
    }

    /// Returns where a number that begins at `start` has ended.
    fn number(&mut self, text: &[u8], start: usize) -> usize {
        let (mut at, mut has_point, mut has_exponent) = (start, false, false);
        while let Some(byte) = text.get(at) {
            match byte {
                b'0'..=b'9' | b'-' | b'+' => {}
                b'.' => has_point = true,
                b'e' | b'E' => has_exponent = true,
                _ => break,
            }
            at += 1;
        }
        // A float holds every decimal of 15 digits, and with a point these are 16 bytes.
        if has_exponent || (has_point && at - start > 16) {
            self.floats_hold =
                self.floats_hold && str::from_utf8(&text[start..at]).is_ok_and(|text| float(text).is_some());
        }
        at
    }
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
            return number(text).ok_or_else(|| A::Error::custom("number out of range"));
        }
        Ok(Value::Object(object))
    }
}
