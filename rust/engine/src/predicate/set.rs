//! What a place of an event may equal: one constant or many, in the one form that all equal values of a kind have.
//!
//! The index is made of these forms: a key of it is what an event's own values give, and an element of a [`Set`] is what a condition
//! asks for. A long list takes the bytes of its elements and four more for each.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use super::compare::{Side, Truth};
use super::constant::{Constant, OperandKind, TimeOfDay};
use super::describe::{SHOWN, cut};
use crate::value::{self, Value};

/// The form of a side under a kind: equal for sides that are equal by it, and for no others. The first byte tells kinds and types of JSON apart.
#[derive(Debug)]
pub(crate) enum Form<'a> {
    Text(u8, &'a str),
    Short(u8, [u8; 31]),
    Long(Box<[u8]>),
}

impl<'a> Form<'a> {
    /// `None` where the side equals nothing: it is missing, or ill-typed.
    pub(crate) fn of(side: Side<'a>, kind: OperandKind) -> Option<Form<'a>> {
        Some(match kind {
            OperandKind::Id => match side {
                Side::Json(Value::Int(number)) => Form::short(b'i', itoa::Buffer::new().format(*number).as_bytes()),
                Side::Id(text) | Side::Enum(text) => Form::Text(b'i', text),
                Side::Json(Value::String(text)) => Form::Text(b'i', text),
                side => Form::long(b'i', side.text(&mut itoa::Buffer::new())?),
            },
            OperandKind::Enum => Form::Text(b'e', side.name()?),
            OperandKind::DateTime => {
                let instant = side.instant()?;
                let mut bytes = [0; 12];
                bytes[..8].copy_from_slice(&instant.timestamp().to_be_bytes());
                bytes[8..].copy_from_slice(&instant.timestamp_subsec_nanos().to_be_bytes());
                Form::short(b't', &bytes)
            }
            OperandKind::Date => Form::short(b'd', &chrono::Datelike::num_days_from_ce(&side.date()?).to_be_bytes()),
            OperandKind::Time => {
                let time = side.time()?;
                let mut bytes = [u8::from(time.zoned); 9];
                bytes[..8].copy_from_slice(&time.nanos.to_be_bytes());
                Form::short(b'c', &bytes)
            }
            OperandKind::Decimal => Form::long(b'n', &side.decimal()?.to_string()),
            OperandKind::Json | OperandKind::Untyped => match side {
                Side::Json(value) => Form::json(value)?,
                _ => return None,
            },
        })
    }

    fn json(value: &'a Value) -> Option<Form<'a>> {
        // Below 2^53 a float that is whole is an integer of its own.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let integer = |number: i64| Form::short(b'n', itoa::Buffer::new().format(number).as_bytes());
        let fraction = |number: f64| Form::short(b'f', &number.to_bits().to_be_bytes());
        // What a float holds is one, however it is written.
        if let Value::Number(text) = value
            && let Some(Value::Float(number)) = value::number(text)
            && number.fract() != 0.0
        {
            return Some(fraction(number));
        }
        Some(match value {
            Value::Null | Value::Failed(_) => return None,
            Value::Bool(flag) => Form::short(b'b', &[u8::from(*flag)]),
            Value::String(text) => Form::Text(b's', text),
            Value::Int(number) => integer(*number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < EXACT => integer(*number as i64),
            Value::Float(number) if number.fract() != 0.0 => fraction(*number),
            Value::Float(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => {
                let tag = if matches!(value, Value::List(_) | Value::Object(_)) { b'j' } else { b'n' };
                Form::long(tag, &value.canonical())
            }
        })
    }

    fn short(tag: u8, bytes: &[u8]) -> Form<'static> {
        let mut form = [0; 31];
        form[0] = tag;
        form[1..=bytes.len()].copy_from_slice(bytes);
        Form::Short(bytes.len() as u8 + 1, form)
    }

    fn long(tag: u8, text: &str) -> Form<'static> {
        match text.len() {
            ..31 => Form::short(tag, text.as_bytes()),
            _ => Form::Long([&[tag], text.as_bytes()].concat().into()),
        }
    }

    /// The first byte and the others.
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Form::Text(tag, text) => (*tag, text.as_bytes()),
            Form::Short(length, form) => (form[0], &form[1..usize::from(*length)]),
            Form::Long(form) => (form[0], &form[1..]),
        }
    }

    fn compare(&self, kept: &[u8]) -> Ordering {
        let (tag, rest) = self.parts();
        let Some((other, others)) = kept.split_first() else { return Ordering::Greater };
        tag.cmp(other).then_with(|| rest.cmp(others))
    }

    pub(crate) fn is(&self, kept: &[u8]) -> bool {
        self.compare(kept).is_eq()
    }

    pub(crate) fn hash(&self, hasher: &mut impl Hasher) {
        let (tag, rest) = self.parts();
        hash_parts(tag, rest, hasher);
    }

    fn into_bytes(self) -> Arc<[u8]> {
        let (tag, rest) = self.parts();
        [&[tag], rest].concat().into()
    }
}

/// A form as it could have been declared.
fn in_words(form: &[u8]) -> String {
    let (tag, rest) = form.split_first().map_or((0, form), |(tag, rest)| (*tag, rest));
    let number =
        |from: usize| rest.get(from..from + 8).and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
    let text = String::from_utf8_lossy(rest);
    let word = match tag {
        b'i' | b'e' | b's' => Some(format!("{text:?}")),
        b'b' => Some((rest == [1]).to_string()),
        b'f' => number(0).map(|bits| f64::from_bits(bits as u64).to_string()),
        b't' => number(0).and_then(|seconds| Some(chrono::DateTime::from_timestamp(seconds, 0)?.to_rfc3339())),
        b'd' => {
            let days = rest.try_into().ok().map(i32::from_be_bytes);
            days.and_then(|days| Some(chrono::NaiveDate::from_num_days_from_ce_opt(days)?.to_string()))
        }
        b'c' => number(0).map(|nanos| TimeOfDay { nanos, zoned: rest.last() == Some(&1) }.to_string()),
        _ => None,
    };
    cut(&word.unwrap_or_else(|| text.into_owned()))
}

/// As [`Form::hash`].
pub(crate) fn hash_form(form: &[u8], hasher: &mut impl Hasher) {
    if let Some((tag, rest)) = form.split_first() {
        hash_parts(*tag, rest, hasher);
    }
}

fn hash_parts(tag: u8, rest: &[u8], hasher: &mut impl Hasher) {
    // Its length too: keys of several places must not run into each other.
    hasher.write_usize(rest.len() << 8 | usize::from(tag));
    hasher.write(rest);
}

/// Constants of one kind, of which a place may equal any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) kind: OperandKind,
    forms: Forms,
}

/// Sorted and without doubles.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Forms {
    One(Arc<[u8]>),
    Many(Arc<Packed>),
}

/// The forms one after the other, and where each ends.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Packed {
    bytes: Box<[u8]>,
    ends: Box<[u32]>,
}

impl Packed {
    fn get(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[from..self.ends[at] as usize]
    }
}

impl Set {
    /// Of one constant; `None` where it is nothing that a place could equal.
    pub(super) fn one(constant: &Constant) -> Option<Set> {
        let kind = constant.kind()?;
        Some(Set { kind, forms: Forms::One(Form::of(constant.side(), kind)?.into_bytes()) })
    }

    /// Of constants of this kind.
    pub(super) fn many<'a>(kind: OperandKind, constants: impl IntoIterator<Item = &'a Constant>) -> Set {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for form in constants.into_iter().filter_map(|constant| Form::of(constant.side(), kind)) {
            let (tag, rest) = form.parts();
            let from = bytes.len();
            bytes.push(tag);
            bytes.extend_from_slice(rest);
            places.push(from..bytes.len());
        }
        Set::packed(kind, &bytes, places)
    }

    /// Names that a text may equal, as ids do.
    pub(crate) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Set {
        let ids: Vec<Constant> = names.into_iter().map(|name| Constant::Id(name.into())).collect();
        Set::many(OperandKind::Id, &ids)
    }

    fn of_forms<'a>(kind: OperandKind, forms: impl Iterator<Item = &'a [u8]>) -> Set {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for form in forms {
            places.push(bytes.len()..bytes.len() + form.len());
            bytes.extend_from_slice(form);
        }
        Set::packed(kind, &bytes, places)
    }

    fn packed(kind: OperandKind, bytes: &[u8], mut places: Vec<std::ops::Range<usize>>) -> Set {
        places.sort_unstable_by(|one, other| bytes[one.clone()].cmp(&bytes[other.clone()]));
        places.dedup_by(|one, other| bytes[one.clone()] == bytes[other.clone()]);
        if let [place] = &places[..] {
            return Set { kind, forms: Forms::One(bytes[place.clone()].into()) };
        }
        let (mut packed, mut ends) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(places.len()));
        for place in places {
            packed.extend_from_slice(&bytes[place]);
            ends.push(packed.len() as u32);
        }
        Set { kind, forms: Forms::Many(Arc::new(Packed { bytes: packed.into(), ends: ends.into() })) }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.forms {
            Forms::One(_) => 1,
            Forms::Many(packed) => packed.ends.len(),
        }
    }

    /// The memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        match &self.forms {
            Forms::One(form) => form.len(),
            Forms::Many(packed) => packed.bytes.len() + size_of_val(&*packed.ends),
        }
    }

    pub(crate) fn get(&self, at: usize) -> &[u8] {
        match &self.forms {
            Forms::One(form) => form,
            Forms::Many(packed) => packed.get(at),
        }
    }

    /// The names that it was made of.
    pub(crate) fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.forms().map(|form| String::from_utf8_lossy(form.get(1..).unwrap_or_default()))
    }

    /// The first of its elements, for operators.
    pub(super) fn in_words(&self) -> Vec<String> {
        self.forms().take(SHOWN).map(in_words).collect()
    }

    fn forms(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Whether a form is one of its own.
    pub(crate) fn has(&self, form: &Form<'_>) -> bool {
        self.finds(|kept| form.compare(kept))
    }

    /// Whether a name is one of its own.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.has(&Form::Text(b'i', name))
    }

    /// Whether there is one that what is sought compares with as equal.
    fn finds(&self, sought: impl Fn(&[u8]) -> Ordering) -> bool {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            match sought(self.get(middle)) {
                Ordering::Equal => return true,
                Ordering::Less => to = middle,
                Ordering::Greater => from = middle + 1,
            }
        }
        false
    }

    /// Whether a side equals one of them; unknown where it is missing or ill-typed.
    pub(super) fn judge(&self, side: Side<'_>) -> Truth {
        Some(self.has(&Form::of(side, self.kind)?))
    }

    /// What any of these sets, which are of one kind, has.
    pub(super) fn union(sets: &[Set]) -> Set {
        match sets {
            [one] => one.clone(),
            _ => Set::of_forms(sets[0].kind, sets.iter().flat_map(Set::forms)),
        }
    }

    /// What both of two sets of one kind have.
    pub(crate) fn intersection(&self, other: &Set) -> Set {
        Set::of_forms(self.kind, self.forms().filter(|form| other.finds(|kept| (**form).cmp(kept))))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}{{", self.kind)?;
        self.forms().try_for_each(|form| write!(out, "\"{}\" ", form.escape_ascii()))?;
        out.write_str("}")
    }
}
