//! What Python brings along to run functions, and what clients are told of their exceptions.

use std::collections::HashSet;
use std::ops::Deref;

use fraiseql_subs_engine::error::{GraphQLError, code};
use fraiseql_subs_engine::event::Event;
use fraiseql_subs_engine::graphql::Field;
use fraiseql_subs_engine::value::Value;
use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::convert;

/// So many kinds of missing attributes are told.
const MISSING: usize = 1_000;

/// The classes and functions of the package that calls need. They lead to what users declare, and that may lead back to the manager: so
/// Python's garbage collector looks into this.
#[pyclass(frozen)]
pub(crate) struct Callbacks {
    /// The class `Event`.
    pub(crate) event: Py<PyAny>,
    /// Starts a list of `Call`s.
    pub(crate) start: Py<PyAny>,
    /// Starts a `Generation`.
    pub(crate) generate: Py<PyAny>,
    /// Ends a generator, or the calls of a class, by their key.
    pub(crate) abandon: Py<PyAny>,
    /// Hears that the loop has ended, and whether that was noticed by something that has to run.
    pub(crate) ended: Py<PyAny>,
    /// Message and extensions of an exception that is made for clients, else `None`.
    pub(crate) told: Py<PyAny>,
    /// Logs an exception, and what had been called.
    pub(crate) report: Py<PyAny>,
    /// Logs a warning.
    pub(crate) warn: Py<PyAny>,
    /// Converters of the coerced arguments of fields below the root, by `Type.field`; where there is none they stay.
    pub(crate) nested: Py<PyAny>,
    /// Fields whose missing attributes were told.
    pub(crate) missing: Mutex<HashSet<String>>,
}

#[pymethods]
impl Callbacks {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let starting = [&self.event, &self.start, &self.generate, &self.abandon, &self.ended];
        let telling = [&self.told, &self.report, &self.warn, &self.nested];
        starting.into_iter().chain(telling).try_for_each(|each| visit.call(each))
    }
}

/// Holds them for a run, which the garbage collector does not look into: for as long as it lasts, so does what it may call.
pub(crate) struct Functions(pub(crate) Py<Callbacks>);

impl Deref for Functions {
    type Target = Callbacks;

    fn deref(&self) -> &Callbacks {
        self.0.get()
    }
}

impl Callbacks {
    /// Says once for each field that it is null as its object has no such attribute.
    pub(crate) fn say_missing(&self, object: &Bound<'_, PyAny>, coordinate: &str, attribute: &str) {
        {
            let mut missing = self.missing.lock();
            if missing.len() >= MISSING || missing.contains(coordinate) {
                return;
            }
            missing.insert(coordinate.to_owned());
        }
        let py = object.py();
        let said = object.get_type().fully_qualified_name().and_then(|class| {
            let text = format!("{coordinate} is null: an object of class {class} has no attribute '{attribute}'");
            self.warn.bind(py).call1((text,))
        });
        if let Err(error) = said {
            error.write_unraisable(py, None);
        }
    }
}

/// What had been called when something was raised, for the log.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) field: &'a Field,
    /// `None` for a generator.
    pub(crate) event: Option<&'a Event>,
}

impl Origin<'_> {
    fn report(self, py: Python<'_>, functions: &Functions, what: &str, exception: &PyErr) {
        let (id, event_type) = self.event.map(|event| (&*event.id, &*event.event_type)).unzip();
        // As a value of its own it carries the traceback.
        let exception = exception.clone_ref(py).into_value(py);
        let arguments = (what, exception, &*self.field.name, self.field.index, id, event_type);
        if let Err(error) = functions.report.bind(py).call1(arguments) {
            // What should log it raises itself.
            error.write_unraisable(py, None);
        }
    }
}

/// What a client may know of an exception; what it may not is logged. Whatever is raised meanwhile is logged too, and is an error
/// like the others.
pub(crate) fn masked(py: Python<'_>, functions: &Functions, origin: Origin<'_>, exception: &PyErr) -> GraphQLError {
    let told = match told(py, functions, exception) {
        Ok(told) => told,
        Err(error) => {
            origin.report(py, functions, "raised an error that cannot be told", &error);
            None
        }
    };
    let Some((message, extensions)) = told else {
        if !exception.is_instance_of::<CancelledError>(py) {
            origin.report(py, functions, "failed", exception);
        }
        return internal();
    };
    let extensions = match convert::to_value(&extensions, "extensions") {
        Ok(extensions @ (Value::Null | Value::Object(_))) => extensions,
        other => {
            let error = other.err().unwrap_or_else(|| PyTypeError::new_err("extensions: expected a mapping"));
            origin.report(py, functions, "raised an error whose extensions cannot be told", &error);
            Value::Null
        }
    };
    GraphQLError { extensions, ..GraphQLError::new(code::INTERNAL_SERVER_ERROR, message) }
}

/// Text and extensions of an exception that is made for clients.
fn told<'py>(
    py: Python<'py>,
    functions: &Functions,
    exception: &PyErr,
) -> PyResult<Option<(String, Bound<'py, PyAny>)>> {
    functions.told.bind(py).call1((exception.clone_ref(py).into_value(py),))?.extract()
}

/// What clients are told of all else.
pub(crate) fn internal() -> GraphQLError {
    GraphQLError::new(code::INTERNAL_SERVER_ERROR, "Internal server error")
}

/// What clients are told of what takes too long.
pub(crate) fn too_late() -> GraphQLError {
    GraphQLError::new(code::TIMEOUT, "The function timed out")
}
