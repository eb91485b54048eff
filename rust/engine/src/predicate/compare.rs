//! How two sides of a predicate compare, in three-valued logic; [`super`] says what compares with what.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, Utc};

use super::OperandKind;
use crate::value::Value;

/// True, false, or unknown (`None`).
pub(crate) type Truth = Option<bool>;

/// A comparison; the others are these negated or turned round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Test {
    Equal,
    Less,
    AtMost,
    In,
    Contains,
    StartsWith,
    EndsWith,
}

/// A literal, or what an argument or the viewer gave.
#[derive(Clone, Debug)]
pub(crate) enum Constant {
    Null,
    /// A value that its kind does not allow, as a datetime without a zone.
    IllTyped,
    Id(Box<str>),
    Instant(DateTime<Utc>),
    /// A list of ids or instants.
    List(Vec<Constant>),
    Json(Box<Value>),
}

/// What a comparison sees of a constant or of a place in the event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side<'a> {
    /// Missing or null.
    Null,
    IllTyped,
    Id(&'a str),
    Instant(DateTime<Utc>),
    List(&'a [Constant]),
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
}

impl Constant {
    pub(crate) fn new(value: &Value, kind: OperandKind) -> Constant {
        match (value, kind) {
            (Value::Null, _) => Constant::Null,
            (value, OperandKind::Json) => Constant::Json(Box::new(value.clone())),
            (Value::List(items), _) => Constant::List(items.iter().map(|item| Constant::new(item, kind)).collect()),
            (value, OperandKind::Id) => {
                let text = Side::Json(value).text(&mut itoa::Buffer::new()).map(Box::from);
                text.map_or(Constant::IllTyped, Constant::Id)
            }
            (value, OperandKind::DateTime) => Side::Json(value).instant().map_or(Constant::IllTyped, Constant::Instant),
        }
    }

    /// A list of literals: one without ids and instants is plain JSON.
    pub(super) fn list(items: Vec<Constant>) -> Constant {
        let plain = |item: &Constant| match item {
            Constant::Json(value) => Some((**value).clone()),
            Constant::Null => Some(Value::Null),
            _ => None,
        };
        match items.iter().map(plain).collect() {
            Some(items) => Constant::Json(Box::new(Value::List(items))),
            None => Constant::List(items),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Constant>> {
        match self {
            Constant::List(items) => Some(items.clone()),
            Constant::Json(value) => match &**value {
                Value::List(items) => Some(items.iter().map(|item| Constant::new(item, OperandKind::Json)).collect()),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn side(&self) -> Side<'_> {
        match self {
            Constant::Null => Side::Null,
            Constant::IllTyped => Side::IllTyped,
            Constant::Id(text) => Side::Id(text),
            Constant::Instant(instant) => Side::Instant(*instant),
            Constant::List(items) => Side::List(items),
            Constant::Json(value) => Side::of(value),
        }
    }
}

/// Equal for constants of one kind that are equal.
impl fmt::Display for Constant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constant::Json(value) => out.write_str(&value.canonical()),
            Constant::List(items) => {
                out.write_str("List(")?;
                items.iter().try_for_each(|item| write!(out, "{item} "))?;
                out.write_str(")")
            }
            Constant::Null | Constant::IllTyped | Constant::Id(_) | Constant::Instant(_) => write!(out, "{self:?}"),
        }
    }
}

impl<'a> Side<'a> {
    pub(crate) fn of(value: &'a Value) -> Side<'a> {
        if value.is_null() { Side::Null } else { Side::Json(value) }
    }

    pub(crate) fn equals(self, other: Side<'_>) -> Truth {
        use Side::{Id, IllTyped, Instant, Json, List, Null};
        match (self, other) {
            (Null | IllTyped, _) | (_, Null | IllTyped) => None,
            (Json(left), Json(right)) => Some(left == right),
            (List(_), _) | (_, List(_)) => self.equals_list(other),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()? == other.instant()?),
            (Id(_), Id(_) | Json(_)) | (Json(_), Id(_)) => self.with_texts(other, |left, right| left == right),
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
        use Side::{Id, Instant, Json};
        match (self, other) {
            (Json(Value::String(left)), Json(Value::String(right))) => Some(left.cmp(right)),
            (Json(left), Json(right)) => compare_numbers(left, right),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()?.cmp(&other.instant()?)),
            (Id(_), _) | (_, Id(_)) => self.with_texts(other, str::cmp),
            _ => None,
        }
    }

    /// The items of a list.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Side<'a>>> {
        let (typed, json): (&[Constant], &[Value]) = match self {
            Side::List(items) => (items, &[]),
            Side::Json(Value::List(items)) => (&[], items),
            _ => return None,
        };
        Some(typed.iter().map(Constant::side).chain(json.iter().map(Side::of)))
    }

    /// Asks both texts: of two strings or, where one side is an id, of strings and integers.
    fn with_texts<T>(self, other: Side<'_>, ask: impl FnOnce(&str, &str) -> T) -> Option<T> {
        use Side::{Id, Json};
        match (self, other) {
            (Json(Value::String(left)), Json(Value::String(right))) => Some(ask(left, right)),
            (Id(_), _) | (_, Id(_)) => {
                let (mut left, mut right) = (itoa::Buffer::new(), itoa::Buffer::new());
                Some(ask(self.text(&mut left)?, other.text(&mut right)?))
            }
            _ => None,
        }
    }

    /// As an id: the text of a string or an integer.
    pub(crate) fn text<'b>(self, buffer: &'b mut itoa::Buffer) -> Option<&'b str>
    where
        'a: 'b,
    {
        match self {
            Side::Id(text) => Some(text),
            Side::Json(Value::String(text)) => Some(text),
            Side::Json(Value::Int(number)) => Some(buffer.format(*number)),
            Side::Json(Value::Number(text)) if !text.contains(['.', 'e', 'E']) => Some(text),
            _ => None,
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
