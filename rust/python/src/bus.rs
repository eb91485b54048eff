//! The bus of a manager: made of what Python describes, anew in each process, and publishing through it.

use std::sync::Arc;

use fraiseql_subs_engine::bus::postgres::{PostgresBus, PostgresConfig};
use fraiseql_subs_engine::bus::{BoxFuture, BusError, EventBus, MemoryBus, RedisBus, RedisConfig};
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use serde::Deserialize;

use crate::errors;
use crate::runtime::runtime;

/// Which bus, as `EventBusConfig` describes it: its options under its kind. A tag among them would have serde buffer them, which
/// fractions do not survive where numbers keep every digit.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BusInput {
    Memory { history: usize },
    Redis(RedisConfig),
    Postgresql(PostgresConfig),
}

impl BusInput {
    /// A bus that is not connected.
    fn open(&self) -> Result<Arc<dyn EventBus>, BusError> {
        match self {
            BusInput::Memory { history } => Ok(Arc::new(MemoryBus::new(*history))),
            BusInput::Redis(config) => Ok(Arc::new(RedisBus::new(config)?)),
            BusInput::Postgresql(config) => Ok(Arc::new(PostgresBus::new(config)?)),
        }
    }
}

/// Raises `ValueError` where a bus's description is wrong.
#[pyfunction]
pub(crate) fn check_bus(py: Python<'_>, bus: &str) -> PyResult<()> {
    Buses::new(py, bus).map(drop)
}

/// The buses of one manager: that of its runs, and one that only publishes, for those who never enter it.
pub(crate) struct Buses {
    input: BusInput,
    /// With the process that they belong to: a forked child has none of its parent's tasks, and must not touch its sockets.
    own: Mutex<(u32, Arc<dyn EventBus>)>,
    publisher: Mutex<Option<(u32, Arc<dyn EventBus>)>>,
}

impl Buses {
    pub(crate) fn new(py: Python<'_>, input: &str) -> PyResult<Buses> {
        let input: BusInput = serde_json::from_str(input).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let bus = input.open().map_err(|error| errors::bus(py, &error))?;
        Ok(Buses { input, own: Mutex::new((std::process::id(), bus)), publisher: Mutex::default() })
    }

    /// Whether there may be anybody else on the bus.
    pub(crate) fn reaches_others(&self) -> bool {
        !matches!(self.input, BusInput::Memory { .. })
    }

    /// The bus of this process's runs.
    pub(crate) fn own(&self, py: Python<'_>) -> PyResult<Arc<dyn EventBus>> {
        let mut own = self.own.lock();
        if own.0 != std::process::id() {
            let bus = self.input.open().map_err(|error| errors::bus(py, &error))?;
            std::mem::forget(std::mem::replace(&mut *own, (std::process::id(), bus)));
        }
        Ok(own.1.clone())
    }

    /// A bus that publishes without a run, connected by whoever asks first.
    pub(crate) fn publisher(&self, py: Python<'_>) -> PyResult<Arc<dyn EventBus>> {
        let runtime = runtime()?;
        let connect = || {
            let mut publisher = self.publisher.lock();
            if let Some((process, bus)) = &*publisher
                && *process == std::process::id()
            {
                return Ok(bus.clone());
            }
            let bus = self.input.open()?;
            runtime
                .block_on(async { runtime.spawn(connected(bus.clone())).await })
                .map_err(|error| BusError::Unavailable(error.to_string()))??;
            std::mem::forget(publisher.replace((std::process::id(), bus.clone())));
            Ok(bus)
        };
        py.detach(connect).map_err(|error| errors::bus(py, &error))
    }

    /// Ends that one.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = runtime()?;
        let taken = py.detach(|| self.publisher.lock().take());
        match taken {
            Some((process, bus)) if process == std::process::id() => {
                py.detach(|| runtime.block_on(bus.disconnect()));
            }
            inherited => std::mem::forget(inherited),
        }
        Ok(())
    }
}

async fn connected(bus: Arc<dyn EventBus>) -> Result<(), BusError> {
    bus.connect(None).await
}

/// Waits for a bus's answer in a thread that runs no event loop.
pub(crate) fn wait(py: Python<'_>, accepted: BoxFuture<'static, Result<(), BusError>>) -> PyResult<()> {
    let runtime = runtime()?;
    let task = runtime.spawn(accepted);
    let outcome = py.detach(|| runtime.block_on(task));
    let outcome = outcome.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    outcome.map_err(|error| errors::bus(py, &error))
}

/// The ids of what was published, as the caller wants them, once the bus has accepted it.
pub(crate) struct Accepted {
    pub(crate) ids: Ids,
    pub(crate) outcome: Result<(), BusError>,
}

/// Of one event, or of several.
pub(crate) enum Ids {
    One(Box<str>),
    Many(Vec<Box<str>>),
}

impl<'py> IntoPyObject<'py> for Ids {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Ids::One(id) => Ok(PyString::new(py, &id).into_any()),
            Ids::Many(ids) => Ok(PyList::new(py, ids.iter().map(|id| &**id))?.into_any()),
        }
    }
}

impl<'py> IntoPyObject<'py> for Accepted {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.outcome.map_err(|error| errors::bus(py, &error))?;
        self.ids.into_pyobject(py)
    }
}
