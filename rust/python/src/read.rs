//! Reading a function's result: what stands at one place of a Python object. The order in which places are read, and how much, is the engine's.
//!
//! A field is read from a mapping's key or an attribute, under the Python name, else under the GraphQL name; a callable is
//! called with the field's arguments. What fails is kept in its place as a failure, for the projection to report.

use std::collections::HashMap;
use std::sync::Arc;

use fraiseql_subs_engine::error::{GraphQLError, code};
use fraiseql_subs_engine::graphql::{Budget, Found, Host, Leaf, ReadField, ReadObject, ReadType};
use fraiseql_subs_engine::value::{Object, Value};
use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PyMapping, PyString, PyTuple};

use crate::convert;
use crate::functions::{Functions, Origin, masked};

/// The awaitables of one result, each once.
#[derive(Default)]
pub(crate) struct Awaitables {
    all: Vec<Py<PyAny>>,
    by_address: HashMap<usize, usize>,
    /// How many have been given out to be awaited.
    given: usize,
}

impl Awaitables {
    /// Those that have not been given out, with their numbers.
    pub(crate) fn take<'py>(&mut self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyAny>)> {
        let new = self.all.iter().enumerate().skip(self.given);
        let taken = new.map(|(number, awaitable)| (number, awaitable.bind(py).clone())).collect();
        self.given = self.all.len();
        taken
    }
}

/// Python, for the engine.
pub(crate) struct Reader<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) functions: &'a Functions,
    pub(crate) origin: Origin<'a>,
    /// `None` where the function is not asynchronous: nothing can be awaited then.
    pub(crate) awaitables: Option<&'a mut Awaitables>,
}

impl Host for Reader<'_, '_> {
    type Object = Py<PyAny>;
    type Items = Py<PyIterator>;

    fn another(&self, object: &Py<PyAny>) -> Py<PyAny> {
        object.clone_ref(self.py)
    }

    fn read(&mut self, object: &Py<PyAny>, ty: &ReadType, room: Budget) -> Found<Self> {
        let value = object.bind(self.py);
        self.find(value, ty, room).unwrap_or_else(|error| Found::Value(self.failed(&error)))
    }

    fn field(&mut self, object: &Py<PyAny>, of: &ReadObject, field: &ReadField) -> Result<Option<Py<PyAny>>, Value> {
        match self.member(object.bind(self.py), &of.type_name, field) {
            Ok(member) => Ok(member.map(Bound::unbind)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn next(&mut self, items: &mut Py<PyIterator>) -> Option<Result<Py<PyAny>, Value>> {
        let next = items.bind(self.py).clone().next()?;
        Some(next.map(Bound::unbind).map_err(|error| self.failed(&error)))
    }

    fn apart(&self, work: impl FnOnce() + Send) {
        if self.awaitables.is_some() {
            return work();
        }
        // In a thread of its own.
        self.py.detach(work);
    }

    fn discard(&mut self, awaitable: Py<PyAny>) {
        if let Err(error) = close(awaitable.bind(self.py)) {
            error.write_unraisable(self.py, None);
        }
    }

    fn start(&mut self, awaitable: Py<PyAny>) -> usize {
        let Some(awaitables) = &mut self.awaitables else { return 0 };
        // The list keeps it alive, so nothing else has its address.
        let number = awaitables.all.len();
        let known = *awaitables.by_address.entry(awaitable.as_ptr() as usize).or_insert(number);
        if known == number {
            awaitables.all.push(awaitable);
        }
        known
    }
}

impl<'py> Reader<'_, 'py> {
    fn find(&mut self, value: &Bound<'py, PyAny>, ty: &ReadType, room: Budget) -> PyResult<Found<Self>> {
        if value.is_none() {
            return Ok(Found::Value(Value::Null));
        }
        if !convert::is_scalar(value)? && value.hasattr("__await__")? {
            if self.awaitables.is_some() {
                return Ok(Found::Awaitable);
            }
            close(value)?;
            let why = "an awaitable can be read where the function is async alone";
            return Ok(Found::Value(failure(why.to_owned())));
        }
        match ty {
            ReadType::Leaf(leaf) => self.leaf(value, leaf, room),
            ReadType::List(_) => Ok(list(value, room)),
            ReadType::Object(object) => self.object(value, &object.type_name, None),
            ReadType::Abstract(objects) => match self.type_name(value, objects)? {
                Some(name) => self.object(value, &name, Some(name.as_str().into())),
                // The projection says what was expected.
                None => Ok(Found::Value(typed(Value::Null))),
            },
        }
    }

    fn leaf(&mut self, value: &Bound<'py, PyAny>, leaf: &Leaf, room: Budget) -> PyResult<Found<Self>> {
        let (named, leaf) = (leaf, leaf.kind());
        let mut room = convert::Measured::new(room);
        let read = match leaf {
            Leaf::Json => convert::to_value_within(value, "result", &mut room).map(Some),
            _ => convert::scalar_within(value, &mut room),
        };
        if room.is_exceeded {
            return Ok(Found::TooLarge);
        }
        let read = match read {
            // A decimal is a text, of which a `Float` takes every digit.
            Ok(Some(Value::String(_))) if matches!(leaf, Leaf::Int | Leaf::Boolean) && convert::is_decimal(value)? => {
                number(value, leaf)
            }
            Ok(None) => foreign(value, leaf),
            other => other,
        };
        Ok(Found::Value(match read {
            Ok(Some(value)) => value,
            Ok(None) => {
                let class = value.get_type().qualname()?;
                failure(named.reword(format!("{} an instance of {class}", leaf.complaint()), false))
            }
            // NaN or an infinity: the projection says what was expected.
            Err(_) if value.is_instance_of::<PyFloat>() => Value::Float(value.extract()?),
            // The value's own code raised: only what has come through a Python frame has a traceback.
            Err(error) if error.traceback(value.py()).is_some() => self.failed(&error),
            Err(error) => failure(named.reword(format!("{} {}", leaf.complaint(), error.value(value.py())), false)),
        }))
    }

    fn object(&self, value: &Bound<'py, PyAny>, expected: &str, type_name: Option<Box<str>>) -> PyResult<Found<Self>> {
        if !(value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() || convert::is_scalar(value)?) {
            return Ok(Found::Object { type_name, instead: None });
        }
        let value = match convert::scalar(value) {
            // The projection says what was expected.
            Ok(Some(scalar)) => scalar,
            _ => {
                let class = value.get_type().qualname()?;
                failure(format!("Expected value of type '{expected}' but got: an instance of {class}."))
            }
        };
        // Who may not see its type is told nothing else.
        Ok(if type_name.is_some() { Found::Object { type_name, instead: Some(value) } } else { Found::Value(value) })
    }

    /// What a field gives, before it is read; `None` where it is missing.
    fn member(
        &self,
        value: &Bound<'py, PyAny>,
        type_name: &str,
        field: &ReadField,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let key = &field.key;
        let found = match lookup(value, &key.python_name)? {
            None if key.python_name != key.graphql_name => lookup(value, &key.graphql_name)?,
            found => found,
        };
        match found {
            Some(found) if found.is_callable() => {
                let arguments = match &key.arguments {
                    Some(arguments) => Some(self.arguments(value.py(), type_name, &key.graphql_name, arguments)?),
                    None => None,
                };
                found.call(PyTuple::empty(value.py()), arguments.as_ref()).map(Some)
            }
            None if value.cast::<PyMapping>().is_err() => {
                self.functions.say_missing(value, &format!("{type_name}.{}", key.graphql_name), &key.python_name);
                Ok(None)
            }
            found => Ok(found),
        }
    }

    /// Coerced arguments of a field below the root as its callable takes them.
    fn arguments(&self, py: Python<'py>, type_name: &str, field: &str, given: &Value) -> PyResult<Bound<'py, PyDict>> {
        let given = convert::to_python(py, given)?;
        let coordinate = format!("{type_name}.{field}");
        let converter = self.functions.nested.bind(py).call_method1("get", (coordinate,))?;
        let converted = if converter.is_none() { given } else { converter.call1((given,))? };
        Ok(converted.cast_into::<PyDict>()?)
    }

    /// The GraphQL type of an object behind an interface or a union: its `__typename`, else its class's name, or a base's.
    fn type_name(&self, value: &Bound<'_, PyAny>, objects: &[Arc<ReadObject>]) -> PyResult<Option<String>> {
        if let Some(name) = lookup(value, "__typename")? {
            return name.extract();
        }
        for class in value.get_type().mro().iter() {
            let name: String = class.getattr("__name__")?.extract()?;
            if objects.iter().any(|object| *object.type_name == name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// A failure with what a client may know of an exception.
    fn failed(&self, error: &PyErr) -> Value {
        Value::Failed(Arc::new(masked(self.py, self.functions, self.origin, error)))
    }
}

/// A coroutine that is never awaited would say so much later.
fn close(awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
    if awaitable.hasattr("close")? {
        awaitable.call_method0("close")?;
    }
    Ok(())
}

/// The items of a list.
fn list<'a, 'py>(value: &Bound<'py, PyAny>, room: Budget) -> Found<Reader<'a, 'py>> {
    let is_text = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>();
    let again = value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
    if again && value.len().is_ok_and(|items| items > room.nodes) {
        return Found::TooLarge;
    }
    match value.try_iter() {
        Ok(items) if !is_text && value.cast::<PyMapping>().is_err() => Found::Items { items: items.unbind(), again },
        // Anything that is no list: the projection says what was expected.
        _ => Found::Value(Value::Bool(false)),
    }
}

/// A value of a class that is none of those which always convert, as graphql-core has it: numbers by their own conversion, all else
/// for `String` and `ID` by `str()`. `None`: it has no such form.
fn foreign(value: &Bound<'_, PyAny>, leaf: &Leaf) -> PyResult<Option<Value>> {
    if value.get_type().module()?.to_str()? == "builtins" {
        return Ok(None);
    }
    match leaf {
        Leaf::String | Leaf::Id => convert::scalar(value.str()?.as_any()),
        _ => number(value, leaf),
    }
}

/// An `Int`, a `Float` or a `Boolean` of a number that is no `int` or `float`, such as a `Fraction` or one of numpy's.
fn number(value: &Bound<'_, PyAny>, leaf: &Leaf) -> PyResult<Option<Value>> {
    let (py, class) = (value.py(), value.get_type());
    let converts = class.hasattr("__float__")?;
    match leaf {
        Leaf::Int | Leaf::Float | Leaf::Boolean if converts => {
            let Some(float) = or_none(py, value.extract::<f64>())?.filter(|float| float.is_finite()) else {
                return Ok(None);
            };
            // Of one that is out of an `Int`'s range, the digits may be millions.
            if !matches!(leaf, Leaf::Int) || float.abs() > f64::from(u32::MAX) {
                return Ok(Some(Value::Float(float)));
            }
            match or_none(py, py.get_type::<PyInt>().call1((value,)))? {
                Some(integer) if integer.eq(value)? => convert::scalar(&integer),
                _ => Ok(None),
            }
        }
        Leaf::Int | Leaf::Float if class.hasattr("__index__")? => {
            let index = py.import("operator")?.call_method1("index", (value,));
            or_none(py, index)?.map_or(Ok(None), |index| convert::scalar(&index))
        }
        _ => Ok(None),
    }
}

/// `None` where a conversion says that there is no such number.
fn or_none<T>(py: Python<'_>, converted: PyResult<T>) -> PyResult<Option<T>> {
    match converted {
        Ok(converted) => Ok(Some(converted)),
        Err(error) if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOverflowError>(py) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn failure(message: String) -> Value {
    Value::Failed(Arc::new(GraphQLError::new(code::INTERNAL_SERVER_ERROR, message)))
}

/// An object of which only its type is known.
fn typed(name: Value) -> Value {
    Value::Object(Object::from_iter([("__typename".into(), name)]))
}

/// A mapping's key, or an attribute; `None` where it is missing.
fn lookup<'py>(value: &Bound<'py, PyAny>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    if let Ok(members) = value.cast::<PyDict>() {
        return members.get_item(name);
    }
    if let Ok(members) = value.cast::<PyMapping>() {
        return if members.contains(name)? { members.get_item(name).map(Some) } else { Ok(None) };
    }
    match value.getattr(name) {
        Ok(found) => Ok(Some(found)),
        // An attribute that exists and raises `AttributeError` itself is an error, not missing.
        Err(error) if error.is_instance_of::<PyAttributeError>(py) && !value.get_type().hasattr(name)? => Ok(None),
        Err(error) => Err(error),
    }
}
