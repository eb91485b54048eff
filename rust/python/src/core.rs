//! The native half of a manager: its schema, its bus, and the engine of the present run.

use std::sync::Arc;

use fraiseql_subs_engine::accounts::Revocation;
use fraiseql_subs_engine::bus::{BusError, Published, Status};
use fraiseql_subs_engine::clock::Clock;
use fraiseql_subs_engine::engine::Phase;
use fraiseql_subs_engine::graphql::{Request, Schema as EngineSchema, SchemaError, SchemaInput};
use fraiseql_subs_engine::limits::Limits;
use fraiseql_subs_engine::operators::audit;
use fraiseql_subs_engine::parts::Parts;
use fraiseql_subs_engine::sessions::{Offer, Sessions};
use fraiseql_subs_engine::value::{Object, Value};
use fraiseql_subs_engine::viewer::Host;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use pyo3_async_runtimes::generic::future_into_py;

use crate::bus::{self, Buses, Ids};
use crate::calls::Port;
use crate::functions::{Callbacks, Functions};
use crate::publishing::{Given, hand_over, publish};
use crate::run::{Run, Runs};
use crate::runtime::{Tokio, runtime};
use crate::socket::Socket;
use crate::stream::{Ask, Subscription};
use crate::trail::Trail;
use crate::viewer::parse_viewer;
use crate::wake::Bridge;
use crate::{convert, errors};

/// A schema that was built and validated.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Schema(Arc<EngineSchema>);

#[pymethods]
impl Schema {
    #[new]
    fn new(py: Python<'_>, input: &str) -> PyResult<Schema> {
        let input: SchemaInput = serde_json::from_str(input).map_err(|error| {
            errors::schema(py, &SchemaError(format!("the declarations are not as expected: {error}")))
        })?;
        EngineSchema::build(input).map(Schema).map_err(|error| errors::schema(py, &error))
    }

    #[getter]
    fn sdl(&self) -> &str {
        &self.0.sdl
    }

    /// What is allowed, and can hardly be meant; each text names its function.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings.clone()
    }

    /// The coordinates of what depends on who the viewer is.
    #[getter]
    fn asks_for_viewer(&self) -> Vec<String> {
        self.0.asks_for_viewer()
    }

    /// As JSON: what a caller of the functions has to know of their arguments.
    #[getter]
    fn signatures(&self) -> String {
        self.0.signatures().to_json()
    }
}

/// The native half of a manager.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Core {
    parts: Parts,
    buses: Buses,
    callbacks: Py<Callbacks>,
    trail: Arc<Trail>,
    runs: Arc<Runs>,
}

/// What became of a start; told in the interpreter, which the runtime's own threads do not enter.
struct Connected(Result<(), BusError>);

impl<'py> IntoPyObject<'py> for Connected {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.map_err(|error| errors::bus(py, &error)).map(|()| py.None().into_bound(py))
    }
}

#[pymethods]
impl Core {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "one caller, which names them all")]
    #[pyo3(signature = (
        schema, *, bus, limits, multi_tenant, event, start, generate, abandon, ended, told, report, nested, audit, warn, events
    ))]
    fn new(
        py: Python<'_>,
        schema: &Schema,
        bus: &str,
        limits: &str,
        multi_tenant: bool,
        event: Py<PyAny>,
        start: Py<PyAny>,
        generate: Py<PyAny>,
        abandon: Py<PyAny>,
        ended: Py<PyAny>,
        told: Py<PyAny>,
        report: Py<PyAny>,
        nested: Py<PyAny>,
        audit: Py<PyAny>,
        warn: Py<PyAny>,
        events: Py<PyAny>,
    ) -> PyResult<Core> {
        let invalid = |error: serde_json::Error| PyValueError::new_err(error.to_string());
        let limits: Limits = serde_json::from_str(limits).map_err(invalid)?;
        let buses = Buses::new(py, bus)?;
        let callbacks = Callbacks {
            event,
            start,
            generate,
            abandon,
            ended,
            told,
            report,
            warn: warn.clone_ref(py),
            nested,
            missing: Mutex::default(),
        };
        let trail = Arc::new(Trail::new(audit, warn, events));
        let parts = Parts::new(schema.0.clone(), buses.own(py)?, limits, multi_tenant, trail.clone(), Clock::system());
        Ok(Core { parts, buses, callbacks: Py::new(py, callbacks)?, trail, runs: Arc::default() })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callbacks)
    }

    /// Begins a run on the running loop; the future is done when the bus is connected.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let running = py.import("asyncio")?.call_method0("get_running_loop")?;
        let home = Bridge::open(&running)?;
        self.trail.begin(py, home.clone());
        let port = Port::new(home.clone(), Arc::new(Functions(self.callbacks.clone_ref(py))));
        let parts = Parts { bus: self.buses.own(py)?, ..self.parts.clone() };
        let sessions = Sessions::new(parts, port, runtime()?.handle().clone());
        self.runs.begin(Run::new(sessions.clone(), home));
        future_into_py::<Tokio, _, Connected>(py, async move { Ok(Connected(sessions.start().await)) })
    }

    /// Stops, after draining where that is asked for; the future is done when nothing is left. It goes on when nobody waits for it
    /// any more. A second stop takes the place of the first.
    fn stop<'py>(&self, py: Python<'py>, drain: bool) -> PyResult<Bound<'py, PyAny>> {
        let run = self.runs.running(py)?;
        let sessions = run.sessions.clone();
        let stopping = runtime()?.spawn(async move { sessions.stop(drain).await });
        run.stops(stopping.abort_handle());
        future_into_py::<Tokio, _, ()>(py, async move {
            stopping.await.map_err(|error| PyRuntimeError::new_err(error.to_string()))
        })
    }

    /// Gives the loops back, after the run has stopped.
    fn release(&self, py: Python<'_>) {
        self.trail.end(py);
        self.runs.end(py);
    }

    /// Publishes an event and returns its id, or a future of it; `None`: nothing was done yet, the loop has to run first.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a tuple as a struct")]
    fn publish<'py>(&self, py: Python<'py>, event: Given<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let run = self.runs.running(py)?;
        if !run.give_turn(py) {
            return Ok(None);
        }
        let event = event.event(&self.parts.clock)?;
        let id = Ids::One(event.id.clone());
        let published = publish(py, &run, vec![event], id);
        self.trail.flush(py);
        published.map(Some)
    }

    /// Publishes an event from a thread that runs no event loop, and waits; connects where there is no run. `None` as with `publish`.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a tuple as a struct")]
    fn publish_sync(&self, py: Python<'_>, event: Given<'_>) -> PyResult<Option<String>> {
        let run = match self.runs.running(py) {
            Ok(run) => Some(run),
            // Beyond this process somebody may hear it.
            Err(_) if self.buses.reaches_others() => None,
            Err(error) => return Err(error),
        };
        if !run.as_ref().is_none_or(|run| run.give_turn(py)) {
            return Ok(None);
        }
        let event = event.event(&self.parts.clock)?;
        let id = String::from(&*event.id);
        let published = match run {
            Some(run) => hand_over(py, &run, vec![event]),
            None => {
                let bus = self.buses.publisher(py)?;
                self.parts.publish(&bus, vec![event]).map_err(|error| errors::publish(py, &error))
            }
        };
        self.trail.flush(py);
        let published = published?;
        if let Published::Later(accepted) = published {
            bus::wait(py, accepted)?;
        }
        Ok(Some(id))
    }

    /// Ends what `publish_sync` has connected.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.buses.close(py)
    }

    /// Publishes several events, all or none. `None`: as with `publish`.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a list as a Vec")]
    fn publish_many<'py>(&self, py: Python<'py>, events: Vec<Given<'py>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let run = self.runs.running(py)?;
        if !run.give_turn(py) {
            return Ok(None);
        }
        let events = events.iter().map(|event| event.event(&self.parts.clock)).collect::<PyResult<Vec<_>>>()?;
        let ids = Ids::Many(events.iter().map(|event| event.id.clone()).collect());
        let published = publish(py, &run, events, ids);
        self.trail.flush(py);
        published.map(Some)
    }

    /// Whether `publish` lets the loop run first.
    fn is_unattended(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.runs.running(py)?.home.is_unattended())
    }

    /// The loop has run.
    fn attended(&self, py: Python<'_>) -> PyResult<()> {
        self.runs.running(py)?.home.attended();
        Ok(())
    }

    /// Changes while the loop's readers and functions get on.
    fn progress(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.runs.running(py)?.home.turns() + self.parts.metrics.events_delivered.get())
    }

    /// Asks for a subscription; it is live when it is entered.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `manager.subscribe`")]
    #[pyo3(signature = (query, *, variables, operation_name, context, viewer, subscription_id, connection_id, framing, resume))]
    fn subscribe(
        &self,
        query: String,
        variables: &Bound<'_, PyAny>,
        operation_name: Option<String>,
        context: Py<PyAny>,
        viewer: &str,
        subscription_id: &str,
        connection_id: Option<&str>,
        framing: &str,
        resume: &Bound<'_, PyAny>,
    ) -> PyResult<Subscription> {
        let variables = if variables.is_none() { Value::Null } else { convert::object(variables, "variables")?.0 };
        let viewer = Arc::new(parse_viewer(viewer, context)?);
        let authorisation = self.parts.revocations.begin_of(viewer.clone(), connection_id.map(Arc::from));
        let ask = Ask::new(
            query,
            operation_name,
            variables,
            viewer,
            subscription_id,
            connection_id,
            framing,
            resume,
            authorisation,
        )?;
        Ok(Subscription::new(self.runs.clone(), ask))
    }

    /// Opens the protocol for a socket that is about to be accepted.
    #[expect(clippy::too_many_arguments, reason = "one caller")]
    fn connect(
        &self,
        py: Python<'_>,
        send: Py<PyAny>,
        sender: Py<PyAny>,
        context: Py<PyAny>,
        interrupt: Py<PyAny>,
        introspection: bool,
        authenticates: bool,
    ) -> PyResult<Py<Socket>> {
        let run = self.runs.running(py)?;
        let context = Arc::new(context);
        let offer = Offer { introspection, authenticates, host: Some(context.clone()) };
        Socket::open(py, &run, send, sender, context, interrupt, offer)
    }

    /// Notes that a connection was refused before there was a socket.
    fn refused(&self, reason: String, context: Py<PyAny>) {
        let host: Host = Arc::new(context);
        self.parts.audit.note(audit::Kind::ConnectionRefused, None, None, Some(&host), reason);
    }

    /// Ends everybody whom this names. Returns how many in this process, and a future that is done when nothing of an event is handed
    /// over for them any more.
    fn revoke<'py>(
        &self,
        py: Python<'py>,
        user_id: Option<&str>,
        tenant_id: Option<&str>,
        connection_id: Option<&str>,
    ) -> PyResult<(usize, Bound<'py, PyAny>)> {
        let text = |text: Option<&str>| text.map(Arc::from);
        let (user_id, tenant_id, connection_id) = (text(user_id), text(tenant_id), text(connection_id));
        let (ended, done) = self.runs.running(py)?.sessions.revoke(Revocation { user_id, tenant_id, connection_id });
        Ok((ended, future_into_py::<Tokio, _, Connected>(py, async move { Ok(Connected(done.await)) })?))
    }

    /// What would become of an event for such a subscription: stage, reason, masked fields.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `manager.explain`")]
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a tuple as a struct")]
    #[pyo3(signature = (query, event, *, variables, operation_name, context, viewer))]
    fn explain(
        &self,
        py: Python<'_>,
        query: &str,
        event: Given<'_>,
        variables: &Bound<'_, PyAny>,
        operation_name: Option<&str>,
        context: Py<PyAny>,
        viewer: &str,
    ) -> PyResult<(&'static str, String, Vec<String>)> {
        let event = event.event(&self.parts.clock)?;
        self.parts.check(&event).map_err(|error| errors::publish(py, &error))?;
        let variables = if variables.is_none() { Value::Null } else { convert::object(variables, "variables")?.0 };
        let viewer = Arc::new(parse_viewer(viewer, context)?);
        let request = Request { query, operation_name, variables: &variables, introspection: true };
        let found = py.detach(|| self.parts.gate.explain(&request, &viewer, &event, self.parts.clock.utc()));
        Ok((found.stage, found.reason, found.masked.into_iter().map(String::from).collect()))
    }

    /// Ends a subscription; returns whether it existed.
    fn complete(&self, py: Python<'_>, subscription_id: &str, connection_id: Option<&str>) -> PyResult<bool> {
        Ok(self.runs.running(py)?.sessions.complete(subscription_id, connection_id))
    }

    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.observe(py)?;
        convert::to_python(py, &self.parts.metrics.to_value())
    }

    fn prometheus(&self, py: Python<'_>) -> PyResult<String> {
        self.observe(py)?;
        Ok(self.parts.metrics.prometheus())
    }

    /// How many documents were parsed since the manager was made.
    fn parses(&self) -> u64 {
        self.parts.gate.documents.parses()
    }

    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (phase, status) = self.observe(py)?;
        let state = match phase {
            Some(Phase::Starting) => "starting",
            Some(Phase::Running) => "running",
            Some(Phase::Draining) => "draining",
            Some(Phase::Stopped) | None => "stopped",
        };
        let connected = status.connected;
        let bus = [
            ("kind", Value::string(status.kind)),
            ("connected", Value::Bool(connected)),
            ("last_error", status.last_error.map_or(Value::Null, Value::string)),
        ];
        let bus: Object = bus.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let ok = connected && phase == Some(Phase::Running) && !self.has_lost_its_loop(py);
        let health = [("ok", Value::Bool(ok)), ("state", Value::string(state)), ("bus", Value::Object(bus))];
        convert::to_python(py, &Value::Object(health.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }
}

impl Core {
    /// Whether the loop that entered the manager is closed, and the manager was not left.
    fn has_lost_its_loop(&self, py: Python<'_>) -> bool {
        let run = self.runs.of_this_process().filter(|run| run.home.is_closed(py));
        // Not every loop lets go of what it was to call.
        run.inspect(|run| run.home.forget()).is_some()
    }

    /// Where in its life the run is, and how its bus is, of which the figures take note.
    fn observe(&self, py: Python<'_>) -> PyResult<(Option<Phase>, Status)> {
        let phase = self.runs.of_this_process().map(|run| run.sessions.engine.phase());
        let mut status = self.buses.own(py)?.status();
        status.connected &= phase.is_some();
        self.parts.metrics.observe(&status);
        self.parts.metrics.observe_memory(self.parts.quotas.weights.held());
        Ok((phase, status))
    }
}
