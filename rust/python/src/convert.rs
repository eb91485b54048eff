//! Python values to the engine's and back.

use fraiseql_subs_engine::graphql::{Budget, Full};
use fraiseql_subs_engine::value::{MAX_NESTING, Object, Value, ValueError, number};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple, PyType};

/// Classes that are not Python's built-in ones but convert all the same.
pub(crate) struct Known {
    uuid: Py<PyType>,
    datetime: Py<PyType>,
    date: Py<PyType>,
    time: Py<PyType>,
    decimal: Py<PyType>,
    enumeration: Py<PyType>,
}

static KNOWN: PyOnceLock<Known> = PyOnceLock::new();

impl Known {
    fn of(py: Python<'_>) -> PyResult<&Known> {
        KNOWN.get_or_try_init(py, || {
            let class = |module: &str, name: &str| -> PyResult<Py<PyType>> {
                Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
            };
            Ok(Known {
                uuid: class("uuid", "UUID")?,
                datetime: class("datetime", "datetime")?,
                date: class("datetime", "date")?,
                time: class("datetime", "time")?,
                decimal: class("decimal", "Decimal")?,
                enumeration: class("enum", "Enum")?,
            })
        })
    }
}

/// A Python value as JSON. An error names the place, which begins with `place`.
pub(crate) fn to_value(value: &Bound<'_, PyAny>, place: &str) -> PyResult<Value> {
    to_value_within(value, place, &mut Measured::new(Budget::ALL))
}

/// The same, of a value that has not more in it than there is room for.
pub(crate) fn to_value_within(value: &Bound<'_, PyAny>, place: &str, room: &mut Measured) -> PyResult<Value> {
    convert(value, &Place { name: place, outer: None }, 0, room)
}

/// A budget that is asked before something is converted.
pub(crate) struct Measured {
    room: Budget,
    /// There was more.
    pub(crate) is_exceeded: bool,
}

impl Measured {
    pub(crate) fn new(room: Budget) -> Measured {
        Measured { room, is_exceeded: false }
    }

    fn take(&mut self, nodes: usize, bytes: usize) -> PyResult<()> {
        self.room.take(nodes, bytes).map_err(|Full| {
            self.is_exceeded = true;
            PyValueError::new_err("too large")
        })
    }
}

/// The text of an object's JSON, or a mapping.
pub(crate) fn object(value: &Bound<'_, PyAny>, place: &str) -> PyResult<(Value, Option<usize>)> {
    let text = if let Ok(bytes) = value.cast::<PyBytes>() {
        Some(bytes.as_bytes())
    } else if let Ok(text) = value.cast::<PyString>() {
        Some(utf8(text, place)?.as_bytes())
    } else {
        None
    };
    let (object, size) = match text {
        Some(text) => {
            let parsed =
                Value::parse(text).map_err(|error: ValueError| PyValueError::new_err(format!("{place}: {error}")))?;
            (parsed, Some(text.len()))
        }
        None => (to_value(value, place)?, None),
    };
    if object.as_object().is_none() {
        let given = value.get_type().qualname()?.to_string();
        return Err(PyTypeError::new_err(format!("{place}: expected a JSON object, got {given}")));
    }
    Ok((object, size))
}

/// Where in a value an error is.
struct Place<'a> {
    name: &'a str,
    outer: Option<(&'a Place<'a>, Step<'a>)>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        match &self.outer {
            None => self.name.to_owned(),
            Some((outer, Step::Key(key))) => format!("{}[{key:?}]", outer.path()),
            Some((outer, Step::Index(index))) => format!("{}[{index}]", outer.path()),
        }
    }

    fn inner<'b>(&'b self, step: Step<'b>) -> Place<'b> {
        Place { name: self.name, outer: Some((self, step)) }
    }
}

fn convert(value: &Bound<'_, PyAny>, place: &Place<'_>, depth: usize, room: &mut Measured) -> PyResult<Value> {
    if depth > MAX_NESTING {
        return Err(PyValueError::new_err(format!("{}: nested deeper than {MAX_NESTING}", place.name)));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return string(text, place, room);
    }
    if let Ok(members) = value.cast::<PyDict>() {
        room.take(members.len(), 0)?;
        let mut object = Object::with_capacity_and_hasher(members.len(), Default::default());
        for (key, member) in members.iter() {
            insert(&mut object, &key, &member, place, depth, room)?;
        }
        return Ok(Value::Object(object));
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyFloat>() {
        return numeric(value, place, room);
    }
    if let Ok(items) = value.cast::<PyList>() {
        return list(items.iter(), place, depth, room);
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        return list(items.iter(), place, depth, room);
    }
    other(value, place, depth, room)
}

fn list<'py>(
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    place: &Place<'_>,
    depth: usize,
    room: &mut Measured,
) -> PyResult<Value> {
    room.take(items.len(), 0)?;
    let convert_item =
        |(at, item): (usize, Bound<'py, PyAny>)| convert(&item, &place.inner(Step::Index(at)), depth + 1, room);
    Ok(Value::List(items.enumerate().map(convert_item).collect::<PyResult<_>>()?))
}

fn insert(
    object: &mut Object,
    key: &Bound<'_, PyAny>,
    member: &Bound<'_, PyAny>,
    place: &Place<'_>,
    depth: usize,
    room: &mut Measured,
) -> PyResult<()> {
    let Ok(key) = key.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("{}: expected str keys, got {}", place.path(), key.repr()?)));
    };
    room.take(0, key.len()?)?;
    let text = utf8(key, &place.path())?;
    let value = convert(member, &place.inner(Step::Key(text)), depth + 1, room)?;
    object.insert(text.into(), value);
    Ok(())
}

fn string(text: &Bound<'_, PyString>, place: &Place<'_>, room: &mut Measured) -> PyResult<Value> {
    // A character takes a byte at the least, and its bytes would be kept with the text.
    room.take(0, text.len()?)?;
    match text.to_str() {
        Ok(text) if !text.contains('\0') => Ok(Value::string(text)),
        _ => utf8(text, &place.path()).map(Value::string),
    }
}

/// The text of a `str`, which must hold neither lone surrogates nor NUL.
pub(crate) fn utf8<'a>(text: &'a Bound<'_, PyString>, place: &str) -> PyResult<&'a str> {
    let utf8 = text.to_str().map_err(|_| PyValueError::new_err(format!("{place}: contains a lone surrogate")))?;
    if utf8.contains('\0') {
        return Err(PyValueError::new_err(format!("{place}: contains NUL")));
    }
    Ok(utf8)
}

fn numeric(value: &Bound<'_, PyAny>, place: &Place<'_>, room: &mut Measured) -> PyResult<Value> {
    if value.is_instance_of::<PyFloat>() {
        let float: f64 = value.extract()?;
        if !float.is_finite() {
            return Err(PyValueError::new_err(format!("{}: {float} is not JSON", place.path())));
        }
        return Ok(Value::Float(float));
    }
    match value.extract::<i64>() {
        Ok(integer) => Ok(Value::Int(integer)),
        // `int.__repr__`, so that a subclass cannot change the digits.
        Err(_) => {
            // A digit has less than four bits.
            room.take(0, value.call_method0("bit_length")?.extract::<usize>()? / 4)?;
            let text: String = value.py().get_type::<PyInt>().call_method1("__repr__", (value,))?.extract()?;
            number(&text).ok_or_else(|| PyValueError::new_err(format!("{}: not a number", place.path())))
        }
    }
}

/// What is neither JSON nor a subclass of what is.
fn other(value: &Bound<'_, PyAny>, place: &Place<'_>, depth: usize, room: &mut Measured) -> PyResult<Value> {
    if let Some(leaf) = leaf(value, place, room)? {
        return Ok(leaf);
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        room.take(mapping.len()?, 0)?;
        let mut object = Object::default();
        for item in mapping.items()?.iter() {
            let (key, member): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            insert(&mut object, &key, &member, place, depth, room)?;
        }
        return Ok(Value::Object(object));
    }
    let class = value.get_type();
    let names: Option<Bound<'_, PyAny>> = match value.getattr_opt("__dataclass_fields__")? {
        Some(fields) if !value.is_instance_of::<PyType>() => Some(fields),
        _ if class.hasattr("model_dump")? => class.getattr_opt("model_fields")?,
        _ => None,
    };
    let Some(names) = names else {
        let class = class.qualname()?;
        return Err(PyTypeError::new_err(format!("{}: {class} does not convert to JSON", place.path())));
    };
    let mut object = Object::default();
    for name in names.try_iter()? {
        let name = name?;
        room.take(1, 0)?;
        insert(&mut object, &name, &value.getattr(name.cast::<PyString>()?)?, place, depth, room)?;
    }
    Ok(Value::Object(object))
}

/// A scalar that is not JSON's own: by its text; `None` where it is none.
fn leaf(value: &Bound<'_, PyAny>, place: &Place<'_>, room: &mut Measured) -> PyResult<Option<Value>> {
    let py = value.py();
    let known = Known::of(py)?;
    let text = if value.is_instance(known.enumeration.bind(py))? {
        value.getattr("name")?
    } else if value.is_instance_of::<PyString>() {
        return string(value.cast::<PyString>()?, place, room).map(Some);
    } else if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        return numeric(value, place, room).map(Some);
    } else if value.is_instance(known.uuid.bind(py))? {
        value.str()?.into_any()
    } else if value.is_instance(known.decimal.bind(py))? {
        if !value.call_method0("is_finite")?.is_truthy()? {
            return Err(PyValueError::new_err(format!("{}: {} is not JSON", place.path(), value.str()?)));
        }
        value.str()?.into_any()
    } else if value.is_instance(known.datetime.bind(py))?
        || value.is_instance(known.date.bind(py))?
        || value.is_instance(known.time.bind(py))?
    {
        value.call_method0("isoformat")?
    } else {
        return Ok(None);
    };
    string(text.cast::<PyString>()?, place, room).map(Some)
}

/// Whether it is one of Python's plain scalars or one that converts by its text.
pub(crate) fn is_scalar(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    let known = Known::of(py)?;
    let texts = [&known.enumeration, &known.uuid, &known.decimal, &known.datetime, &known.date, &known.time];
    let plain =
        value.is_instance_of::<PyString>() || value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
    Ok(plain || texts.into_iter().any(|class| value.is_instance(class.bind(py)).unwrap_or(false)))
}

/// Whether it is a `Decimal`.
pub(crate) fn is_decimal(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.is_instance(Known::of(value.py())?.decimal.bind(value.py()))
}

/// A scalar as JSON, where it is one: no list, mapping or object.
pub(crate) fn scalar(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    scalar_within(value, &mut Measured::new(Budget::ALL))
}

/// The same, of a scalar that is not longer than there is room for.
pub(crate) fn scalar_within(value: &Bound<'_, PyAny>, room: &mut Measured) -> PyResult<Option<Value>> {
    let place = Place { name: "result", outer: None };
    if let Ok(text) = value.cast_exact::<PyString>() {
        return string(text, &place, room).map(Some);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Some(Value::Bool(flag.is_true())));
    }
    leaf(value, &place, room)
}

/// A value as Python's own types.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null | Value::Failed(_) => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Int(integer) => integer.into_pyobject(py)?.into_any(),
        Value::Float(float) => PyFloat::new(py, *float).into_any(),
        Value::Number(text) => long_number(py, text)?,
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(members) => {
            let dict = PyDict::new(py);
            for (key, member) in members {
                dict.set_item(&**key, to_python(py, member)?)?;
            }
            dict.into_any()
        }
    })
}

/// An integer, or a `Decimal`: a number that is not whole, or that has more digits than Python takes for an `int`.
fn long_number<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    if !text.contains(['.', 'e', 'E']) {
        match py.get_type::<PyInt>().call1((text,)) {
            Err(error) if error.is_instance_of::<PyValueError>(py) => {}
            integer => return integer,
        }
    }
    Known::of(py)?.decimal.bind(py).call1((text,))
}
