//! Reading a function's result: only what is selected, once, into a tree that needs no interpreter any more.
//!
//! A field is read from a mapping's key or an attribute, under the Python name, else under the GraphQL name; a callable is
//! called with the field's arguments. What fails is kept in its place as a failure, for the projection to report.

use std::sync::Arc;

use fraiseql_subs_engine::error::{GraphQLError, code};
use fraiseql_subs_engine::graphql::{Leaf, ReadField, ReadObject, ReadType};
use fraiseql_subs_engine::value::{Object, Value};
use pyo3::exceptions::{PyAttributeError, PyBaseException, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use crate::convert;
use crate::functions::{Functions, Origin, masked};

/// A result that has been read as far as it can be without awaiting.
pub(crate) struct Reading {
    /// The tree.
    pub(crate) value: Value,
    /// Awaitables whose outcomes belong into it.
    pub(crate) awaited: Vec<Awaited>,
}

/// An awaitable that stood in the place of a value.
pub(crate) struct Awaited {
    pub(crate) awaitable: Py<PyAny>,
    place: Vec<Step>,
    ty: ReadType,
}

#[derive(Clone)]
enum Step {
    Slot(Box<str>),
    Index(usize),
}

impl Reading {
    /// Reads a result; awaitables in it are collected, or failures where the function is not asynchronous.
    pub(crate) fn begin(
        result: &Bound<'_, PyAny>,
        ty: &ReadType,
        asynchronous: bool,
        functions: &Functions,
        origin: Origin<'_>,
    ) -> Reading {
        let mut reader = Reader { functions, origin, asynchronous, place: Vec::new(), awaited: Vec::new() };
        let value = reader.read_or_await(result, ty);
        Reading { value, awaited: reader.awaited }
    }

    /// Puts the outcomes of its awaitables into their places.
    pub(crate) fn supply(mut self, results: &Bound<'_, PyList>, functions: &Functions, origin: Origin<'_>) -> Reading {
        let mut reader = Reader { functions, origin, asynchronous: true, place: Vec::new(), awaited: Vec::new() };
        for (Awaited { place, ty, .. }, result) in std::mem::take(&mut self.awaited).into_iter().zip(results.iter()) {
            reader.place.clone_from(&place);
            let value = match result.cast::<PyBaseException>() {
                Ok(exception) => reader.failed(&PyErr::from_value(exception.clone().into_any())),
                Err(_) => reader.read_or_await(&result, &ty),
            };
            if let Some(there) = at(&mut self.value, &place) {
                *there = value;
            }
        }
        Reading { value: self.value, awaited: reader.awaited }
    }

    /// What there is without its awaitables, which failed.
    pub(crate) fn give_up(mut self, error: GraphQLError) -> Value {
        let failed = Value::Failed(Arc::new(error));
        for Awaited { place, .. } in &self.awaited {
            if let Some(there) = at(&mut self.value, place) {
                *there = failed.clone();
            }
        }
        self.value
    }
}

fn at<'a>(value: &'a mut Value, place: &[Step]) -> Option<&'a mut Value> {
    place.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(members), Step::Slot(slot)) => members.get_mut(slot),
        (Value::List(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    })
}

struct Reader<'a> {
    functions: &'a Functions,
    origin: Origin<'a>,
    asynchronous: bool,
    place: Vec<Step>,
    awaited: Vec<Awaited>,
}

impl Reader<'_> {
    fn read(&mut self, value: &Bound<'_, PyAny>, ty: &ReadType) -> PyResult<Value> {
        if value.is_none() {
            return Ok(Value::Null);
        }
        match ty {
            ReadType::Leaf(leaf) => self.leaf(value, leaf),
            ReadType::List(item) => self.list(value, item),
            ReadType::Object(object) => self.object(value, object, None),
            ReadType::Abstract(objects) => {
                let name = match self.type_name(value, objects) {
                    Ok(name) => name,
                    Err(error) => return Ok(self.failed(&error)),
                };
                match objects.iter().find(|object| Some(&*object.type_name) == name.as_deref()) {
                    // That is all there is to know: nobody who waits may see more, or wants to.
                    Some(object) if object.fields.is_empty() => Ok(typed(Value::string(&*object.type_name))),
                    Some(object) => self.object(value, object, Some(&object.type_name)),
                    // The projection says what was expected.
                    None => Ok(typed(name.map_or(Value::Null, Value::string))),
                }
            }
        }
    }

    fn leaf(&mut self, value: &Bound<'_, PyAny>, leaf: &Leaf) -> PyResult<Value> {
        let (named, leaf) = (leaf, leaf.kind());
        let read = match leaf {
            Leaf::Json => convert::to_value(value, "result").map(Some),
            _ => convert::scalar(value),
        };
        let read = match read {
            // A decimal is a text, of which a `Float` takes every digit.
            Ok(Some(Value::String(_))) if matches!(leaf, Leaf::Int | Leaf::Boolean) && convert::is_decimal(value)? => {
                number(value, leaf)
            }
            Ok(None) => foreign(value, leaf),
            other => other,
        };
        match read {
            Ok(Some(value)) => Ok(value),
            Ok(None) => {
                let class = value.get_type().qualname()?;
                Ok(failure(named.reword(format!("{} an instance of {class}", leaf.complaint()), false)))
            }
            // NaN or an infinity: the projection says what was expected.
            Err(_) if value.is_instance_of::<PyFloat>() => Ok(Value::Float(value.extract()?)),
            // The value's own code raised: only what has come through a Python frame has a traceback.
            Err(error) if error.traceback(value.py()).is_some() => Ok(self.failed(&error)),
            Err(error) => Ok(failure(named.reword(format!("{} {}", leaf.complaint(), error.value(value.py())), false))),
        }
    }

    fn list(&mut self, value: &Bound<'_, PyAny>, item: &ReadType) -> PyResult<Value> {
        let is_text = value.is_instance_of::<PyString>()
            || value.is_instance_of::<PyBytes>()
            || value.is_instance_of::<PyByteArray>();
        let items = match value.try_iter() {
            Ok(items) if !is_text && value.cast::<PyMapping>().is_err() => items,
            // Anything that is no list: the projection says what was expected.
            _ => return Ok(Value::Bool(false)),
        };
        let mut list = Vec::new();
        for (index, member) in items.enumerate() {
            let member = match member {
                Ok(member) => member,
                Err(error) => return Ok(self.failed(&error)),
            };
            self.place.push(Step::Index(index));
            list.push(self.read_or_await(&member, item));
            self.place.pop();
        }
        Ok(Value::List(list))
    }

    fn object(&mut self, value: &Bound<'_, PyAny>, object: &ReadObject, type_name: Option<&str>) -> PyResult<Value> {
        if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() || convert::is_scalar(value)? {
            if let Ok(Some(scalar)) = convert::scalar(value) {
                // The projection says what was expected.
                return Ok(scalar);
            }
            let (expected, class) = (&object.type_name, value.get_type().qualname()?);
            return Ok(failure(format!("Expected value of type '{expected}' but got: an instance of {class}.")));
        }
        let mut members = Object::with_capacity_and_hasher(object.fields.len() + 1, Default::default());
        if let Some(name) = type_name {
            members.insert("__typename".into(), Value::string(name));
        }
        for field in &object.fields {
            self.place.push(Step::Slot(field.key.slot.clone()));
            let member = match self.field(value, &object.type_name, field) {
                Ok(Some(member)) => self.read_or_await(&member, &field.ty),
                Ok(None) => Value::Null,
                Err(error) => self.failed(&error),
            };
            self.place.pop();
            members.insert(field.key.slot.clone(), member);
        }
        Ok(Value::Object(members))
    }

    /// What a field gives, before it is read; `None` where it is missing.
    fn field<'py>(
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
    fn arguments<'py>(
        &self,
        py: Python<'py>,
        type_name: &str,
        field: &str,
        given: &Value,
    ) -> PyResult<Bound<'py, PyDict>> {
        let given = convert::to_python(py, given)?;
        let coordinate = format!("{type_name}.{field}");
        let converter = self.functions.nested.bind(py).call_method1("get", (coordinate,))?;
        let converted = if converter.is_none() { given } else { converter.call1((given,))? };
        Ok(converted.cast_into::<PyDict>()?)
    }

    /// What cannot be read is a failure at its own place.
    fn read_or_await(&mut self, value: &Bound<'_, PyAny>, ty: &ReadType) -> Value {
        let depth = self.place.len();
        self.try_read(value, ty).unwrap_or_else(|error| {
            self.place.truncate(depth);
            self.failed(&error)
        })
    }

    fn try_read(&mut self, value: &Bound<'_, PyAny>, ty: &ReadType) -> PyResult<Value> {
        if value.is_none() || convert::is_scalar(value)? || !value.hasattr("__await__")? {
            return self.read(value, ty);
        }
        if !self.asynchronous {
            // A coroutine that is never awaited would say so much later.
            if value.hasattr("close")? {
                value.call_method0("close")?;
            }
            return Ok(failure("an awaitable can be read where the function is async alone".to_owned()));
        }
        let awaitable = value.clone().unbind();
        self.awaited.push(Awaited { awaitable, place: self.place.clone(), ty: ty.clone() });
        Ok(Value::Null)
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
        Python::attach(|py| Value::Failed(Arc::new(masked(py, self.functions, self.origin, error))))
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
