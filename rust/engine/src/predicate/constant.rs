//! What stands beside an event's values: literals, and what arguments and the viewer gave; and how each kind of them is read.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Timelike, Utc};

use super::compare::Side;
use crate::value::{Decimal, Value};

/// How an operand compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperandKind {
    /// As text; a list of them by element, as of all that follow but JSON.
    Id,
    /// By name; without an order.
    Enum,
    /// As an instant.
    DateTime,
    /// As a day.
    Date,
    /// As a time of day.
    Time,
    /// As an exact number.
    Decimal,
    /// As typed JSON: numbers, text and booleans of the schema.
    Json,
    /// As typed JSON whose type is known when an event comes: an order of it has no type of its own.
    Untyped,
}

impl OperandKind {
    /// How a scalar's value compares, or what stands below it; `None` where nothing can.
    pub(crate) fn of_scalar(name: &str, below: bool) -> Option<OperandKind> {
        let kind = match name {
            "ID" | "UUID" => OperandKind::Id,
            "DateTime" => OperandKind::DateTime,
            "Date" => OperandKind::Date,
            "Time" => OperandKind::Time,
            "Decimal" => OperandKind::Decimal,
            "Int" | "Float" | "String" | "Boolean" => OperandKind::Json,
            // JSON and scalars that are not known here may hold objects.
            _ => return Some(OperandKind::Untyped),
        };
        (!below).then_some(kind)
    }

    /// What a place must be to equal something of it, for operators.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OperandKind::Id => "ID",
            OperandKind::Enum => "enum",
            OperandKind::DateTime => "DateTime (an instant with a time zone)",
            OperandKind::Date => "Date",
            OperandKind::Time => "Time",
            OperandKind::Decimal => "Decimal (a number)",
            OperandKind::Json | OperandKind::Untyped => "JSON",
        }
    }
}

/// A literal, or what an argument or the viewer gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Constant {
    Null,
    /// A value that its kind does not allow, as a datetime without a zone.
    IllTyped,
    Id(Box<str>),
    Enum(Box<str>),
    Instant(DateTime<Utc>),
    Date(NaiveDate),
    Time(TimeOfDay),
    Decimal(Box<Decimal>),
    /// A list of these.
    List(Vec<Constant>),
    Json(Box<Value>),
}

impl Constant {
    pub(crate) fn new(value: &Value, kind: OperandKind) -> Constant {
        let side = Side::Json(value);
        let read = match (value, kind) {
            (Value::Null, _) => return Constant::Null,
            (value, OperandKind::Json | OperandKind::Untyped) => return Constant::Json(Box::new(value.clone())),
            (Value::List(items), _) => {
                return Constant::List(items.iter().map(|item| Constant::new(item, kind)).collect());
            }
            (_, OperandKind::Id) => side.text(&mut itoa::Buffer::new()).map(|text| Constant::Id(text.into())),
            (_, OperandKind::Enum) => side.name().map(|name| Constant::Enum(name.into())),
            (_, OperandKind::DateTime) => side.instant().map(Constant::Instant),
            (_, OperandKind::Date) => side.date().map(Constant::Date),
            (_, OperandKind::Time) => side.time().map(Constant::Time),
            (_, OperandKind::Decimal) => {
                side.decimal().map(|decimal| Constant::Decimal(Box::new(decimal.into_owned())))
            }
        };
        read.unwrap_or(Constant::IllTyped)
    }

    /// The same as an exact number, by element where it is a list.
    pub(super) fn into_decimal(self) -> Constant {
        match self {
            Constant::Json(value) => Constant::new(&value, OperandKind::Decimal),
            Constant::List(items) => Constant::List(items.into_iter().map(Constant::into_decimal).collect()),
            kept @ (Constant::Null | Constant::Decimal(_)) => kept,
            _ => Constant::IllTyped,
        }
    }

    /// A list of literals: one of plain JSON alone is JSON.
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
    pub(super) fn into_items(self) -> Option<Vec<Constant>> {
        match self {
            Constant::List(items) => Some(items),
            Constant::Json(value) => match *value {
                Value::List(items) => Some(items.iter().map(|item| Constant::new(item, OperandKind::Json)).collect()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Its kind, where it can be a member of a [`super::Set`].
    pub(super) fn kind(&self) -> Option<OperandKind> {
        Some(match self {
            Constant::Null | Constant::IllTyped | Constant::List(_) => return None,
            Constant::Id(_) => OperandKind::Id,
            Constant::Enum(_) => OperandKind::Enum,
            Constant::Instant(_) => OperandKind::DateTime,
            Constant::Date(_) => OperandKind::Date,
            Constant::Time(_) => OperandKind::Time,
            Constant::Decimal(_) => OperandKind::Decimal,
            Constant::Json(_) => OperandKind::Json,
        })
    }

    /// The memory that it takes beside itself.
    pub(super) fn memory(&self) -> usize {
        match self {
            Constant::Id(text) | Constant::Enum(text) => text.len(),
            Constant::Decimal(decimal) => decimal.size(),
            Constant::List(items) => items.iter().map(|item| size_of::<Constant>() + item.memory()).sum(),
            Constant::Json(value) => value.size(),
            _ => 0,
        }
    }

    pub(crate) fn side(&self) -> Side<'_> {
        match self {
            Constant::Null => Side::Null,
            Constant::IllTyped => Side::IllTyped,
            Constant::Id(text) => Side::Id(text),
            Constant::Enum(name) => Side::Enum(name),
            Constant::Instant(instant) => Side::Instant(*instant),
            Constant::Date(date) => Side::Date(*date),
            Constant::Time(time) => Side::Time(*time),
            Constant::Decimal(decimal) => Side::Decimal(decimal),
            Constant::List(items) => Side::List(items),
            Constant::Json(value) => Side::of(value),
        }
    }
}

impl Hash for Constant {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        std::mem::discriminant(self).hash(hasher);
        match self {
            Constant::Null | Constant::IllTyped => {}
            Constant::Id(text) | Constant::Enum(text) => text.hash(hasher),
            Constant::Instant(instant) => instant.hash(hasher),
            Constant::Date(date) => date.hash(hasher),
            Constant::Time(time) => time.hash(hasher),
            Constant::Decimal(decimal) => decimal.hash(hasher),
            Constant::List(items) => items.hash(hasher),
            Constant::Json(value) => value.canonical().hash(hasher),
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
            other => write!(out, "{other:?}"),
        }
    }
}

/// A time of day. One with a zone is earlier or later than another with a zone, and neither than one without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeOfDay {
    /// Nanoseconds since midnight, of UTC where there is a zone; then it may be of the day before or after.
    pub(super) nanos: i64,
    pub(super) zoned: bool,
}

impl TimeOfDay {
    /// Reads ISO's form: `10:00`, `10:00:00.5`, `10:00:00+02:00`.
    pub(super) fn parse(text: &str) -> Option<TimeOfDay> {
        let is_time = text.as_bytes().get(2) == Some(&b':');
        // A time with a zone is one of any day.
        if let Ok(zoned) = DateTime::<FixedOffset>::parse_from_rfc3339(&format!("2000-01-01T{text}")) {
            return is_time.then(|| TimeOfDay::new(zoned.time(), Some(*zoned.offset())));
        }
        let formats = ["%H:%M:%S%.f", "%H:%M"];
        let time = formats.iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
        is_time.then(|| TimeOfDay::new(time, None))
    }

    fn new(time: NaiveTime, zone: Option<FixedOffset>) -> TimeOfDay {
        let seconds = i64::from(time.num_seconds_from_midnight());
        let offset = zone.map_or(0, |zone| i64::from(zone.local_minus_utc()));
        TimeOfDay { nanos: (seconds - offset) * 1_000_000_000 + i64::from(time.nanosecond()), zoned: zone.is_some() }
    }

    pub(super) fn cmp(self, other: TimeOfDay) -> Option<Ordering> {
        (self.zoned == other.zoned).then(|| self.nanos.cmp(&other.nanos))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = 86_400_000_000_000;
        let nanos = self.nanos.rem_euclid(day);
        let time = NaiveTime::from_num_seconds_from_midnight_opt(
            (nanos / 1_000_000_000) as u32,
            (nanos % 1_000_000_000) as u32,
        );
        time.map_or(Ok(()), |time| write!(out, "{time}{}", if self.zoned { "+00:00" } else { "" }))
    }
}
