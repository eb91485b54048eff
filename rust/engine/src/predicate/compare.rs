//! How two sides of a predicate compare, in three-valued logic; [`super`] says what compares with what.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, Utc};

use super::constant::{Constant, OperandKind, TimeOfDay};
use crate::value::{Decimal, Value};

/// True, false, or unknown (`None`).
pub(crate) type Truth = Option<bool>;

/// A comparison; the others are these negated or turned round.
#[derive(Clone, Copy, Debug, PartialEq, Hash)]
pub(crate) enum Test {
    Equal,
    Less,
    AtMost,
    In,
    Contains,
    StartsWith,
    EndsWith,
}

/// What a comparison sees of a constant or of a place in the event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side<'a> {
    /// Missing or null.
    Null,
    IllTyped,
    Id(&'a str),
    Enum(&'a str),
    Instant(DateTime<Utc>),
    Date(NaiveDate),
    Time(TimeOfDay),
    Decimal(&'a Decimal),
    /// A list of these.
    List(&'a [Constant]),
    /// What stands in `decimal(...)`, by element where it is a list.
    Numeric(&'a Value),
    Json(&'a Value),
}

impl Test {
    pub(crate) fn judge(self, left: Side<'_>, right: Side<'_>) -> Truth {
        match self {
            Test::Equal => left.equals(right),
            Test::Less => left.compare(right).map(Ordering::is_lt),
            Test::AtMost => left.compare(right).map(Ordering::is_le),
            Test::In => right.includes(left),
            Test::Contains if left.items().is_some() => left.includes(right),
            Test::Contains => left.with_texts(right, |text, part| text.contains(part)),
            Test::StartsWith => left.with_texts(right, |text, part| text.starts_with(part)),
            Test::EndsWith => left.with_texts(right, |text, part| text.ends_with(part)),
        }
    }

    /// Whether a comparison that is unknown is so because of a side that is there.
    pub(crate) fn is_ill_typed(self, left: Side<'_>, right: Side<'_>) -> bool {
        let any = |list: Side<'_>, item: Side<'_>| match list.items() {
            Some(mut items) => items.any(|one| one.is_present() && item.is_present() && one.equals(item).is_none()),
            None => list.is_present(),
        };
        match self {
            Test::In => any(right, left),
            Test::Contains if left.items().is_some() => any(left, right),
            _ => left.is_present() && right.is_present(),
        }
    }
}

impl<'a> Side<'a> {
    pub(crate) fn of(value: &'a Value) -> Side<'a> {
        if value.is_null() { Side::Null } else { Side::Json(value) }
    }

    /// What stands in `decimal(...)`.
    pub(crate) fn numeric(value: &'a Value) -> Side<'a> {
        if value.is_null() { Side::Null } else { Side::Numeric(value) }
    }

    pub(crate) fn is_present(self) -> bool {
        !matches!(self, Side::Null)
    }

    /// Its type, for operators.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Side::Null => "null",
            Side::Json(Value::Null | Value::Failed(_)) | Side::Numeric(Value::Null | Value::Failed(_)) => "null",
            Side::IllTyped => "a value that its type does not allow",
            Side::Id(_) => OperandKind::Id.name(),
            Side::Enum(_) => OperandKind::Enum.name(),
            Side::Instant(_) => OperandKind::DateTime.name(),
            Side::Date(_) => OperandKind::Date.name(),
            Side::Time(_) => OperandKind::Time.name(),
            Side::Decimal(_) => OperandKind::Decimal.name(),
            Side::Json(value) | Side::Numeric(value) => match value {
                Value::Bool(_) => "boolean",
                Value::Int(_) | Value::Float(_) | Value::Number(_) => "number",
                Value::String(_) => "text",
                Value::List(_) => "list",
                _ => "object",
            },
            Side::List(_) => "list",
        }
    }

    pub(crate) fn equals(self, other: Side<'_>) -> Truth {
        use Side::{Date, Decimal, Enum, Id, IllTyped, Instant, Json, List, Null, Numeric, Time};
        match (self, other) {
            (Null | IllTyped, _) | (_, Null | IllTyped) => None,
            (Json(left), Json(right)) => Some(left == right),
            (List(_) | Numeric(Value::List(_)), _) | (_, List(_) | Numeric(Value::List(_))) => self.equals_list(other),
            (Decimal(_) | Numeric(_), _) | (_, Decimal(_) | Numeric(_)) => Some(self.decimal()? == other.decimal()?),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()? == other.instant()?),
            (Date(_), _) | (_, Date(_)) => Some(self.date()? == other.date()?),
            (Time(_), _) | (_, Time(_)) => Some(self.time()?.cmp(other.time()?)?.is_eq()),
            (Id(_), _) | (_, Id(_)) => self.with_ids(other, |left, right| left == right),
            (Enum(_), _) | (_, Enum(_)) => Some(self.name()? == other.name()?),
        }
    }

    /// By element, null equal to null alone.
    fn equals_list(self, other: Side<'_>) -> Truth {
        let (mut left, mut right, mut truth) = (self.items()?, other.items()?, Some(true));
        loop {
            let same = match (left.next(), right.next()) {
                (None, None) => return truth,
                (Some(Side::Null), Some(Side::Null)) => Some(true),
                (None | Some(Side::Null), _) | (_, None | Some(Side::Null)) => Some(false),
                (Some(left), Some(right)) => left.equals(right),
            };
            if same == Some(false) {
                return same;
            }
            truth = truth.and(same);
        }
    }

    /// Whether one of its items equals another side; unknown where it is no list.
    fn includes(self, other: Side<'_>) -> Truth {
        let mut truth = Some(false);
        for item in self.items()? {
            match item.equals(other) {
                Some(true) => return Some(true),
                miss => truth = truth.and(miss),
            }
        }
        truth
    }

    fn compare(self, other: Side<'_>) -> Option<Ordering> {
        use Side::{Date, Decimal, Id, Instant, Json, Numeric, Time};
        match (self, other) {
            (Json(Value::String(left)), Json(Value::String(right))) => Some(left.cmp(right)),
            (Json(left), Json(right)) => compare_numbers(left, right),
            (Decimal(_) | Numeric(_), _) | (_, Decimal(_) | Numeric(_)) => Some(self.decimal()?.cmp(&other.decimal()?)),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()?.cmp(&other.instant()?)),
            (Date(_), _) | (_, Date(_)) => Some(self.date()?.cmp(&other.date()?)),
            (Time(_), _) | (_, Time(_)) => self.time()?.cmp(other.time()?),
            (Id(_), _) | (_, Id(_)) => self.with_ids(other, str::cmp),
            _ => None,
        }
    }

    /// The items of a list.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Side<'a>>> {
        let (typed, numeric, json): (&[Constant], &[Value], &[Value]) = match self {
            Side::List(items) => (items, &[], &[]),
            Side::Numeric(Value::List(items)) => (&[], items, &[]),
            Side::Json(Value::List(items)) => (&[], &[], items),
            _ => return None,
        };
        let (typed, numeric) = (typed.iter().map(Constant::side), numeric.iter().map(Side::numeric));
        Some(typed.chain(numeric).chain(json.iter().map(Side::of)))
    }

    /// Asks both texts: of two strings or, where one side is an id, of strings and integers.
    fn with_texts<T>(self, other: Side<'_>, ask: impl FnOnce(&str, &str) -> T) -> Option<T> {
        use Side::Id;
        match (self, other) {
            (Id(_), _) | (_, Id(_)) => self.with_ids(other, ask),
            _ => Some(ask(&self.string()?, &other.string()?)),
        }
    }

    fn with_ids<T>(self, other: Side<'_>, ask: impl FnOnce(&str, &str) -> T) -> Option<T> {
        let (mut left, mut right) = (itoa::Buffer::new(), itoa::Buffer::new());
        Some(ask(self.text(&mut left)?, other.text(&mut right)?))
    }

    /// As an id: the text of a string or an integer.
    pub(crate) fn text<'b>(self, buffer: &'b mut itoa::Buffer) -> Option<&'b str>
    where
        'a: 'b,
    {
        match self {
            Side::Id(text) | Side::Enum(text) => Some(text),
            Side::Json(Value::String(text)) => Some(text),
            Side::Json(Value::Int(number)) => Some(buffer.format(*number)),
            Side::Json(Value::Number(text)) if !text.contains(['.', 'e', 'E']) => Some(text),
            _ => None,
        }
    }

    /// As an enum's name.
    pub(super) fn name(self) -> Option<&'a str> {
        match self {
            Side::Enum(text) => Some(text),
            Side::Json(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// As text that may hold another: what is written as a string in JSON.
    fn string(self) -> Option<Cow<'a, str>> {
        match self {
            Side::Date(date) => Some(date.to_string().into()),
            Side::Time(time) => Some(time.to_string().into()),
            other => other.name().map(Cow::Borrowed),
        }
    }

    /// As an instant: itself, or that of a string with a zone.
    pub(crate) fn instant(self) -> Option<DateTime<Utc>> {
        match self {
            Side::Instant(instant) => Some(instant),
            Side::Json(Value::String(text)) => Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc()),
            _ => None,
        }
    }

    /// As a day: itself, or that of a string in ISO's form.
    pub(super) fn date(self) -> Option<NaiveDate> {
        match self {
            Side::Date(date) => Some(date),
            Side::Json(Value::String(text)) if text.len() == 10 => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok(),
            _ => None,
        }
    }

    /// As a time of day: itself, or that of a string in ISO's form.
    pub(super) fn time(self) -> Option<TimeOfDay> {
        match self {
            Side::Time(time) => Some(time),
            Side::Json(Value::String(text)) => TimeOfDay::parse(text),
            _ => None,
        }
    }

    /// As an exact number: itself, a number, or the text of one.
    pub(super) fn decimal(self) -> Option<Cow<'a, Decimal>> {
        match self {
            Side::Decimal(decimal) => Some(Cow::Borrowed(decimal)),
            Side::Json(Value::String(text)) | Side::Numeric(Value::String(text)) => {
                Decimal::parse_text(text).map(Cow::Owned)
            }
            Side::Json(value) | Side::Numeric(value) => value.as_decimal().map(Cow::Owned),
            _ => None,
        }
    }
}

fn compare_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    // Below 2^53 a float meets only integers that it holds exactly; those above stay above.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Float(right)) if right.abs() < EXACT => (*left as f64).partial_cmp(right),
        (Value::Float(left), Value::Int(right)) if left.abs() < EXACT => left.partial_cmp(&(*right as f64)),
        _ => Some(left.as_decimal()?.cmp(&right.as_decimal()?)),
    }
}
