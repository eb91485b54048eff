//! The engine's port to user code: calls are queued from any thread, and started on the loop that entered the manager, in batches.
//! Once that loop is closed nothing can be started, and each call is an error.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use fraiseql_subs_engine::delivery::{Call as EngineCall, Generation as EngineGeneration, Resolver, Turn, Watcher};
use fraiseql_subs_engine::error::{GraphQLError, code};
use fraiseql_subs_engine::event::{Audience, Event};
use fraiseql_subs_engine::graphql::{Field, Kind, Reads};
use fraiseql_subs_engine::value::Value;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3_async_runtimes::generic::{Runtime, future_into_py};

use crate::convert;
use crate::functions::{Functions, Origin, internal, masked};
use crate::read::Reading;
use crate::runtime::{Tokio, inside, runtime};
use crate::wake::{Bridge, OnLoop};

/// The engine's port.
pub(crate) struct Port {
    me: Weak<Port>,
    home: Arc<Bridge>,
    functions: Arc<Functions>,
    queue: Mutex<Vec<Work>>,
    /// It was said that the loop has ended.
    told: AtomicBool,
}

enum Work {
    Call(EngineCall),
    Generate(Arc<EngineGeneration>),
    Abandon(u64),
}

impl Port {
    pub(crate) fn new(home: Arc<Bridge>, functions: Arc<Functions>) -> Arc<Port> {
        let port = Arc::new_cyclic(|me| Port {
            me: me.clone(),
            home,
            functions,
            queue: Mutex::default(),
            told: AtomicBool::new(false),
        });
        let ended = port.me.clone();
        port.home.at_the_end(move || {
            if let Some(port) = ended.upgrade() {
                // What it had begun will never go on either.
                port.say_ended(false);
                port.lose();
            }
        });
        port
    }

    fn push(&self, work: Work) {
        let was_empty = {
            let mut queue = self.queue.lock();
            queue.push(work);
            queue.len() == 1
        };
        if was_empty
            && let Some(me) = self.me.upgrade()
            && !self.home.push(me)
        {
            self.lose();
        }
    }

    /// The loop has ended: what is queued is an error for whoever waits for it.
    fn lose(&self) {
        let queue = std::mem::take(&mut *self.queue.lock());
        let is_needed = queue.iter().any(|work| !matches!(work, Work::Abandon(_)));
        if is_needed && !self.told.swap(true, SeqCst) {
            self.say_ended(true);
        }
        if let Ok(runtime) = runtime() {
            // Not here: this may be under the locks that the errors go through.
            runtime.spawn(async move { queue.into_iter().for_each(Work::fail) });
        }
    }

    /// Tells Python, from a thread that may wait for the interpreter.
    fn say_ended(&self, is_needed: bool) {
        let functions = self.functions.clone();
        Tokio::spawn_blocking(move || {
            Python::attach(|py| {
                if let Err(error) = functions.ended.bind(py).call1((is_needed,)) {
                    error.write_unraisable(py, None);
                }
            });
        });
    }
}

impl Work {
    /// It is never done.
    fn fail(self) {
        match self {
            // It tells an error where it is dropped.
            Work::Call(call) => drop(call),
            Work::Generate(generation) => generation.finish(Err(internal())),
            Work::Abandon(_) => {}
        }
    }
}

impl Resolver for Port {
    fn call(&self, call: EngineCall) {
        self.push(Work::Call(call));
    }

    fn generate(&self, generation: Arc<EngineGeneration>) {
        self.push(Work::Generate(generation));
    }

    fn abandon(&self, key: u64) {
        self.push(Work::Abandon(key));
    }
}

impl OnLoop for Port {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let queue = std::mem::take(&mut *self.queue.lock());
        let functions = &self.functions;
        let calls = PyList::empty(py);
        for work in queue {
            let done = match work {
                Work::Call(call) if call.is_abandoned() => Ok(()),
                // One that is dropped is an error for those who wait for it.
                Work::Call(call) => calls.append(Call::new(call, functions.clone())),
                Work::Generate(generation) => {
                    let (started, functions) = (generation.clone(), functions.clone());
                    let started = Generation { generation: started, functions, reading: Mutex::default() };
                    let done = self.functions.generate.bind(py).call1((started,));
                    done.map(drop).inspect_err(|_| generation.finish(Err(internal())))
                }
                Work::Abandon(key) => functions.abandon.bind(py).call1((key,)).map(drop),
            };
            // What stands behind it goes on.
            if let Err(error) = done {
                error.write_unraisable(py, None);
            }
        }
        if calls.is_empty() { Ok(()) } else { functions.start.bind(py).call1((calls,)).map(drop) }
    }
}

/// One call of a function for one event.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Call {
    call: Mutex<Option<EngineCall>>,
    field: Arc<Field>,
    event: Arc<Event>,
    arguments: Arc<Value>,
    watcher: Option<Watcher>,
    functions: Arc<Functions>,
    reading: Mutex<Option<Reading>>,
    key: u64,
    /// Its place among the calls that run.
    turn: Mutex<Option<Turn>>,
}

impl Call {
    fn new(mut call: EngineCall, functions: Arc<Functions>) -> Call {
        Call {
            turn: Mutex::new(call.turn.take()),
            key: call.abandon_key,
            field: call.field.clone(),
            event: call.event.clone(),
            arguments: call.arguments.clone(),
            watcher: call.watcher.clone(),
            call: Mutex::new(Some(call)),
            functions,
            reading: Mutex::default(),
        }
    }

    /// The first outcome counts; whatever comes later is discarded.
    fn deliver(&self, outcome: Result<Value, GraphQLError>) {
        let call = self.call.lock().take();
        if let Some(call) = call {
            call.finish(outcome.map_err(Arc::new));
        }
        // A thread may go on for longer than it is waited for.
        if self.field.declaration.kind != Kind::Sync {
            self.release();
        }
    }

    fn advance<'py>(&self, py: Python<'py>, reading: Reading) -> PyResult<Option<Bound<'py, PyList>>> {
        advance(py, reading, &self.reading, |value| self.deliver(Ok(value)))
    }

    fn origin(&self) -> Origin<'_> {
        Origin { field: &self.field, event: Some(&self.event) }
    }
}

#[pymethods]
impl Call {
    /// Its thread is free again.
    fn release(&self) {
        let turn = self.turn.lock().take();
        drop(turn);
    }

    /// The function's position among the declarations.
    #[getter]
    fn function(&self) -> usize {
        self.field.index
    }

    /// By which it is abandoned, with others.
    #[getter]
    fn key(&self) -> u64 {
        self.key
    }

    /// The subscription field's GraphQL name.
    #[getter]
    fn field_name(&self) -> &str {
        &self.field.name
    }

    /// Seconds that the field allows in place of the limit.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.field.declaration.timeout
    }

    /// The event, with `data` of its own.
    fn event<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = inside()?;
        let event = &self.event;
        let tenant = match &event.audience {
            Audience::Tenant(tenant) => tenant.as_deref(),
            Audience::All => None,
        };
        let more = PyDict::new(py);
        more.set_item("tenant_id", tenant)?;
        more.set_item("source", event.source.as_deref())?;
        more.set_item("id", &*event.id)?;
        more.set_item("published_at", event.published_at)?;
        let data = convert::to_python(py, &event.data)?;
        self.functions.event.bind(py).call((&*event.event_type, &*event.channel, data), Some(&more))
    }

    /// The coerced arguments by Python name, as plain JSON values.
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.arguments)
    }

    /// The viewer and the selected paths, where the function takes `info`.
    fn watcher<'py>(&self, py: Python<'py>) -> PyResult<Option<(Py<PyAny>, Bound<'py, PyTuple>)>> {
        self.watcher.as_ref().map(|watcher| describe(py, watcher)).transpose()
    }

    /// Reads a result and delivers it. With `asynchronous`, awaitables found in it are returned: await them, then
    /// call `supply`.
    fn finish<'py>(
        &self,
        py: Python<'py>,
        result: &Bound<'py, PyAny>,
        asynchronous: bool,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let _inside = inside()?;
        let reads = self.call.lock().as_ref().map(EngineCall::reads);
        let reads = match reads {
            // The outcome has been delivered.
            None => return Ok(None),
            Some(Some(reads)) => reads,
            Some(None) => {
                self.deliver(Ok(Value::Null));
                return Ok(None);
            }
        };
        self.advance(py, Reading::begin(result, &reads.ty, asynchronous, &self.functions, self.origin()))
    }

    /// What the awaitables gave, in their order; an exception stands for its own failure.
    fn supply<'py>(&self, py: Python<'py>, results: &Bound<'py, PyList>) -> PyResult<Option<Bound<'py, PyList>>> {
        let reading = self.reading.lock().take();
        let Some(reading) = reading else { return Ok(None) };
        self.advance(py, reading.supply(results, &self.functions, self.origin()))
    }

    /// The function raised.
    fn fail(&self, py: Python<'_>, exception: Bound<'_, PyAny>) {
        let Ok(_inside) = inside() else { return };
        self.deliver(Err(masked(py, &self.functions, self.origin(), &PyErr::from_value(exception))));
    }

    /// The function took too long, or awaitables in its result did, and only they have failed then: whoever did not select
    /// them, or may not see them, is not told. Returns whether its outcome was still awaited.
    fn expire(&self) -> bool {
        let waited = self.call.lock().is_some();
        let late = GraphQLError::new(code::TIMEOUT, "The function timed out");
        let reading = self.reading.lock().take();
        self.deliver(match reading {
            Some(reading) => Ok(reading.give_up(late)),
            None => Err(late),
        });
        waited
    }
}

/// Keeps a reading that waits for awaitables, or delivers one that is complete.
fn advance<'py>(
    py: Python<'py>,
    reading: Reading,
    kept: &Mutex<Option<Reading>>,
    deliver: impl FnOnce(Value),
) -> PyResult<Option<Bound<'py, PyList>>> {
    if reading.awaited.is_empty() {
        deliver(reading.value);
        return Ok(None);
    }
    let awaited = PyList::new(py, reading.awaited.iter().map(|awaited| awaited.awaitable.bind(py)))?;
    *kept.lock() = Some(reading);
    Ok(Some(awaited))
}

fn describe<'py>(py: Python<'py>, watcher: &Watcher) -> PyResult<(Py<PyAny>, Bound<'py, PyTuple>)> {
    let host = watcher.viewer.host.as_ref().and_then(|host| host.downcast_ref::<Py<PyAny>>());
    let context = host.map_or_else(|| py.None(), |context| context.clone_ref(py));
    Ok((context, PyTuple::new(py, watcher.plan.selected.iter().map(|path| &**path))?))
}

/// One generator and the subscription that it fills.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Generation {
    generation: Arc<EngineGeneration>,
    functions: Arc<Functions>,
    reading: Mutex<Option<Reading>>,
}

impl Generation {
    fn advance<'py>(&self, py: Python<'py>, reading: Reading) -> PyResult<Option<Bound<'py, PyList>>> {
        advance(py, reading, &self.reading, |value| self.generation.emit(&value))
    }

    fn origin(&self) -> Origin<'_> {
        Origin { field: &self.generation.field, event: None }
    }

    fn reads(&self) -> &Arc<Reads> {
        &self.generation.watcher.plan.reads
    }
}

#[pymethods]
impl Generation {
    /// By which it is abandoned.
    #[getter]
    fn key(&self) -> u64 {
        self.generation.abandon_key
    }

    /// The function's position among the declarations.
    #[getter]
    fn function(&self) -> usize {
        self.generation.field.index
    }

    /// The subscription field's GraphQL name.
    #[getter]
    fn field_name(&self) -> &str {
        &self.generation.field.name
    }

    /// The coerced arguments by Python name, as plain JSON values.
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.generation.arguments)
    }

    /// The viewer and the selected paths.
    fn watcher<'py>(&self, py: Python<'py>) -> PyResult<(Py<PyAny>, Bound<'py, PyTuple>)> {
        describe(py, &self.generation.watcher)
    }

    /// What belongs to this one subscription: `operation_name`, `variables`, `connection_id`.
    fn operation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let operation = PyDict::new(py);
        let variables = PyDict::new(py);
        for (name, value) in &self.generation.variables {
            variables.set_item(&**name, convert::to_python(py, value)?)?;
        }
        operation.set_item("operation_name", self.generation.operation_name.as_deref())?;
        operation.set_item("variables", variables)?;
        operation.set_item("connection_id", self.generation.connection_id.as_deref())?;
        Ok(operation)
    }

    /// A future of whether to go on, done when the queue has room.
    fn room<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let generation = self.generation.clone();
        future_into_py::<Tokio, _, bool>(py, async move { Ok(generation.room().await) })
    }

    /// Whether the queue has room now.
    fn has_room(&self) -> bool {
        self.generation.has_room()
    }

    /// Reads what was yielded and delivers it, like `Call.finish`.
    fn emit<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.advance(py, Reading::begin(value, &self.reads().ty, true, &self.functions, self.origin()))
    }

    /// What the awaitables gave, in their order.
    fn supply<'py>(&self, py: Python<'py>, results: &Bound<'py, PyList>) -> PyResult<Option<Bound<'py, PyList>>> {
        let reading = self.reading.lock().take();
        let Some(reading) = reading else { return Ok(None) };
        self.advance(py, reading.supply(results, &self.functions, self.origin()))
    }

    /// It ended by itself.
    fn complete(&self) {
        self.generation.finish(Ok(()));
    }

    /// It raised.
    fn fail(&self, py: Python<'_>, exception: Bound<'_, PyAny>) {
        let error = masked(py, &self.functions, self.origin(), &PyErr::from_value(exception));
        self.generation.finish(Err(error));
    }
}
