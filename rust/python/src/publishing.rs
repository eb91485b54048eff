//! Publishing: events as Python gives them, on their way to the bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use fraiseql_subs_engine::bus::Published;
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::event::{Audience, Event, Position};
use fraiseql_subs_engine::matching;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};
use pyo3_async_runtimes::generic::future_into_py;

use crate::bus::{Accepted, Ids};
use crate::run::Run;
use crate::runtime::Tokio;
use crate::{convert, errors};

/// The arguments of `manager.publish_event`: type, channel, data, tenant, source, previous.
#[derive(FromPyObject)]
pub(crate) struct Given<'py>(
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
);

impl Given<'_> {
    pub(crate) fn event(&self, clock: &Clock) -> PyResult<Event> {
        let Given(event_type, channel, data, tenant_id, source, previous) = self;
        let (data, size) = convert::object(data, "data")?;
        let size = size.unwrap_or_else(|| data.to_json().len());
        let previous = if previous.is_none() { None } else { Some(convert::object(previous, "previous")?.0) };
        Ok(Event {
            id: Event::new_id(),
            event_type: text(event_type, "event_type")?,
            channel: text(channel, "channel")?,
            audience: match tenant_id.cast::<PyBool>() {
                // Python hands `ALL_TENANTS` over as `True`.
                Ok(_) => Audience::All,
                Err(_) if tenant_id.is_none() => Audience::Tenant(None),
                Err(_) => Audience::Tenant(Some(text(tenant_id, "tenant_id")?)),
            },
            source: if source.is_none() { None } else { Some(text(source, "source")?) },
            published_at: clock.utc(),
            data,
            size,
            previous,
            position: Position::default(),
        })
    }
}

fn text(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Arc<str>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(convert::utf8(text, name)?.into()),
        Err(_) => Err(PyTypeError::new_err(format!("{name}: expected a str, got {}", value.get_type().qualname()?))),
    }
}

#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a dict as a map")]
pub(crate) fn channel_name(template: &str, values: BTreeMap<String, String>) -> PyResult<String> {
    matching::channel_name(template, &values).map_err(PyValueError::new_err)
}

/// Gives events to the bus of a run.
pub(crate) fn hand_over(py: Python<'_>, run: &Run, events: Vec<Event>) -> PyResult<Published> {
    let count = events.len();
    let published = run
        .home
        .publishing(py, || run.sessions.engine.publish(events))?
        .map_err(|error| errors::publish(py, &error))?;
    if matches!(published, Published::Now) {
        run.home.published(count);
    }
    Ok(published)
}

/// Publishes; what is returned are the ids, or a future of them.
pub(crate) fn publish<'py>(py: Python<'py>, run: &Run, events: Vec<Event>, ids: Ids) -> PyResult<Bound<'py, PyAny>> {
    match hand_over(py, run, events)? {
        Published::Now => ids.into_pyobject(py),
        Published::Later(accepted) => {
            future_into_py::<Tokio, _, Accepted>(py, async move { Ok(Accepted { outcome: accepted.await, ids }) })
        }
    }
}
