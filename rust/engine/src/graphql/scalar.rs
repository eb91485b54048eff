//! Input coercion of single scalars: what JSON and which literals each of them takes, and the one form that equal values have.

use apollo_compiler::ast;
use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::input::Input;
use crate::value::{Decimal, MAX_DIGITS, Value};

/// The scalars of the specification.
pub(crate) const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];

/// [Spec](https://spec.graphql.org/October2021/#sec-Scalars.Built-in-Scalars). The error goes between `Int cannot` and the value.
pub(crate) fn built_in(name: &str, input: Input<'_>) -> Result<Value, &'static str> {
    match name {
        "Int" => int(input),
        "Float" => float(input).map(Value::Float).ok_or("represent non numeric value"),
        "Boolean" => match input {
            Input::Json(Value::Bool(flag)) => Ok(Value::Bool(*flag)),
            Input::Json(_) => Err("represent a non boolean value"),
            Input::Literal(literal) => literal.to_bool().map(Value::Bool).ok_or("represent a non boolean value"),
        },
        "String" => text(input).ok_or("represent a non string value").and_then(without_nul),
        _ => id(input).ok_or("represent value").and_then(|text| without_nul(&text)),
    }
}

/// An integer that no float is equal to is refused as JSON, as graphql-core does.
fn float(input: Input<'_>) -> Option<f64> {
    let exact = |text: &str| text.parse().ok().filter(|number: &f64| format!("{number:.0}") == text);
    let number = match input {
        Input::Json(Value::Int(number)) => exact(&number.to_string()),
        Input::Json(Value::Float(number)) => Some(*number),
        Input::Json(Value::Number(text)) if !text.contains(['.', 'e', 'E']) => exact(text),
        Input::Json(Value::Number(text)) => text.parse().ok(),
        Input::Json(_) => None,
        Input::Literal(literal) => literal.to_f64(),
    };
    number.filter(|number| number.is_finite())
}

fn int(input: Input<'_>) -> Result<Value, &'static str> {
    const TOO_LARGE: &str = "represent non 32-bit signed integer value";
    let whole = |number: f64| {
        let fits = number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX);
        if fits { Ok(number as i64) } else { Err(TOO_LARGE) }
    };
    let number = match input {
        Input::Json(Value::Int(number)) => Ok(*number),
        Input::Json(Value::Float(number)) if number.fract() == 0.0 => whole(*number),
        // What 64 bits and a float do not hold is larger than 32 bits, if it is whole.
        Input::Json(value @ Value::Number(_)) if value.as_decimal().is_some_and(|number| number.is_integer()) => {
            Err(TOO_LARGE)
        }
        Input::Literal(literal) => match &**literal {
            ast::Value::Int(number) => number.as_str().parse().map_err(|_| TOO_LARGE),
            _ => Err("represent non-integer value"),
        },
        Input::Json(_) => Err("represent non-integer value"),
    };
    i32::try_from(number?).map(|number| Value::Int(number.into())).map_err(|_| TOO_LARGE)
}

pub(super) fn text<'a>(input: Input<'a>) -> Option<&'a str> {
    match input {
        Input::Json(value) => value.as_str(),
        Input::Literal(literal) => literal.as_str(),
    }
}

fn id(input: Input<'_>) -> Option<String> {
    let whole = |number: f64| (number.is_finite() && number.fract() == 0.0).then(|| format!("{:.0}", number + 0.0));
    match input {
        Input::Json(Value::Int(number)) => Some(number.to_string()),
        Input::Json(Value::Float(number)) => whole(*number),
        Input::Json(value @ Value::Number(_)) => short(value.as_decimal()?)?.whole(),
        Input::Literal(literal) => match &**literal {
            ast::Value::Int(number) => (number.as_str().len() as i64 <= MAX_DIGITS).then(|| number.as_str().to_owned()),
            _ => literal.as_str().map(str::to_owned),
        },
        Input::Json(value) => value.as_str().map(str::to_owned),
    }
}

/// A number that is not too long for Python.
fn short(number: Decimal) -> Option<Decimal> {
    (number.written_digits() <= MAX_DIGITS).then_some(number)
}

fn without_nul(text: &str) -> Result<Value, &'static str> {
    if text.contains('\0') {
        return Err("hold NUL");
    }
    Ok(Value::string(text))
}

/// More than [`MAX_DIGITS`].
pub(super) const TOO_LONG: &str = "hold a number of more than 4300 digits";

/// A scalar of the schema's own that is called so, or said to be the one of this name; those that are not known here are JSON.
pub(crate) fn custom(name: &str, value: Value) -> Result<Value, &'static str> {
    const WRONG: &str = "represent value";
    if value.has_nul() {
        return Err("hold NUL");
    }
    if value.has_long_number() {
        return Err(TOO_LONG);
    }
    if BUILT_IN.contains(&name) {
        return built_in(name, Input::Json(&value));
    }
    let parse: fn(&str) -> Option<String> = match name {
        "DateTime" => date_time,
        "Date" => date,
        "Time" => time,
        "UUID" => |text| Some(uuid::Uuid::try_parse(text).ok()?.hyphenated().to_string()),
        "Decimal" => match &value {
            Value::Int(_) | Value::Float(_) | Value::Number(_) => return Ok(value),
            Value::String(text) => {
                let number = Decimal::parse_text(text).ok_or(WRONG)?;
                return short(number).map(|_| value).ok_or(TOO_LONG);
            }
            _ => return Err(WRONG),
        },
        _ => return Ok(value),
    };
    value.as_str().and_then(parse).map(Value::string).ok_or(WRONG)
}

/// ISO 8601 with or without a zone, in the form that every Python reads.
fn date_time(text: &str) -> Option<String> {
    let zoned = DateTime::parse_from_rfc3339(text);
    let (local, zone) = match zoned {
        Ok(zoned) => (zoned.naive_local(), Some(*zoned.offset())),
        Err(_) => {
            let (date, time) = text.split_at_checked(10)?;
            let time = time.strip_prefix(['T', 't', ' '])?;
            (NaiveDateTime::new(naive_date(date)?, naive_time(time)?), None)
        }
    };
    if !(1..=9999).contains(&local.year()) {
        return None;
    }
    Some(local.format("%Y-%m-%dT").to_string() + &clock(local.time(), zone)?)
}

fn date(text: &str) -> Option<String> {
    let date = naive_date(text)?;
    Some(date.format("%Y-%m-%d").to_string())
}

fn time(text: &str) -> Option<String> {
    // A time with a zone is one of any day.
    match DateTime::parse_from_rfc3339(&format!("2000-01-01T{text}")) {
        Ok(zoned) => clock(zoned.time(), Some(*zoned.offset())),
        Err(_) => clock(naive_time(text)?, None),
    }
}

fn naive_date(text: &str) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (text.len() == 10 && (1..=9999).contains(&date.year())).then_some(date)
}

fn naive_time(text: &str) -> Option<NaiveTime> {
    let is_time = text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte));
    let parsed = ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok());
    parsed.filter(|_| is_time && text.len() >= 5)
}

fn clock(time: NaiveTime, zone: Option<FixedOffset>) -> Option<String> {
    // Python knows neither leap seconds nor nanoseconds.
    if time.nanosecond() >= 1_000_000_000 {
        return None;
    }
    let format = if time.nanosecond() < 1_000 { "%H:%M:%S" } else { "%H:%M:%S%.6f" };
    let zone = zone.map_or_else(String::new, |zone| zone.to_string());
    Some(time.format(format).to_string() + &zone)
}
