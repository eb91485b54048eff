//! The one place where the engine's errors become Python exceptions.

use fraiseql_subs_engine::bus::BusError;
use fraiseql_subs_engine::error::{GraphQLError, Rejection, code};
use fraiseql_subs_engine::graphql::SchemaError;
use fraiseql_subs_engine::parts::PublishError;
use fraiseql_subs_engine::sessions::OpenError;
use fraiseql_subs_engine::value::{Object, Value};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::convert;

/// An exception of `fraiseql_subs.errors`.
pub(crate) fn raise<'py>(py: Python<'py>, name: &str, arguments: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    let made = py.import("fraiseql_subs.errors").and_then(|errors| errors.getattr(name)?.call1(arguments));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

pub(crate) fn not_running(py: Python<'_>) -> PyErr {
    let text = "the SubscriptionManager is not running: enter it first (`async with manager`, or the app's lifespan)";
    raise(py, "NotRunning", (text,))
}

pub(crate) fn schema(py: Python<'_>, error: &SchemaError) -> PyErr {
    raise(py, "SchemaError", (error.to_string(),))
}

pub(crate) fn bus(py: Python<'_>, error: &BusError) -> PyErr {
    let name = match error {
        BusError::Refused(reason) => return PyValueError::new_err(reason.clone()),
        BusError::Unavailable(_) => "BusUnavailable",
        BusError::Unknown(_) => "PublishUnknown",
        BusError::HistoryLost => "HistoryLost",
    };
    raise(py, name, (error.to_string(),))
}

pub(crate) fn publish(py: Python<'_>, error: &PublishError) -> PyErr {
    match error {
        PublishError::Invalid(reason) => PyValueError::new_err(reason.clone()),
        PublishError::Stopped => not_running(py),
        PublishError::Bus(error) => bus(py, error),
    }
}

pub(crate) fn open(py: Python<'_>, error: &OpenError) -> PyErr {
    match error {
        OpenError::InUse(reason) => PyValueError::new_err(reason.clone()),
        OpenError::Rejected(rejection) => rejected(py, rejection),
    }
}

pub(crate) fn rejected(py: Python<'_>, rejection: &Rejection) -> PyErr {
    match rejection {
        Rejection::Forbidden(_) => raise(py, "Forbidden", ()),
        Rejection::Limited(_, reason) => raise(py, "LimitExceeded", (*reason,)),
        Rejection::HistoryLost => raise(py, "HistoryLost", (rejection.to_string(),)),
        Rejection::BusUnavailable(reason) => raise(py, "BusUnavailable", (reason,)),
        Rejection::Stopped => not_running(py),
        Rejection::Request(_) | Rejection::ResumeUnavailable => request(py, &rejection.errors()),
    }
}

/// The exception for an error that ends a subscription.
pub(crate) fn ended(py: Python<'_>, error: &GraphQLError) -> PyErr {
    match &*error.code {
        code::HISTORY_LOST => raise(py, "HistoryLost", (error.to_string(),)),
        code::BUS_UNAVAILABLE => raise(py, "BusUnavailable", (error.to_string(),)),
        _ => request(py, std::slice::from_ref(error)),
    }
}

fn request(py: Python<'_>, errors: &[GraphQLError]) -> PyErr {
    let errors = errors.iter().map(|error| convert::to_python(py, &plain(error))).collect::<PyResult<Vec<_>>>();
    match errors.and_then(|errors| PyList::new(py, errors)) {
        Ok(errors) => raise(py, "GraphQLRequestError", (errors,)),
        Err(error) => error,
    }
}

/// An error as the object that a client would be sent.
fn plain(error: &GraphQLError) -> Value {
    let mut json = String::new();
    error.write_json(&mut json);
    // What we wrote ourselves is JSON.
    Value::parse(json.as_bytes()).unwrap_or_else(|_| Value::Object(Object::default()))
}
