//! The engine's port to user code: calls are queued from any thread, and started on the loop that entered the manager, in batches.
//! Once that loop is closed nothing can be started, and each call is an error.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use fraiseql_subs_engine::delivery::{
    Call as EngineCall, Generation as EngineGeneration, Parts, Resolver, Turn, Watcher,
};
use fraiseql_subs_engine::error::GraphQLError;
use fraiseql_subs_engine::event::{Audience, Event};
use fraiseql_subs_engine::graphql::{Field, Kind};
use fraiseql_subs_engine::value::Value;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3_async_runtimes::generic::{Runtime, future_into_py};

use crate::convert;
use crate::functions::{Functions, Origin, internal, masked, too_late};
use crate::reading::{Called, InProgress, Reading};
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
                Work::Call(call) => calls.append(Call::new(call, functions.clone(), self.home.clone())),
                Work::Generate(generation) => {
                    let (home, functions) = (self.home.clone(), functions.clone());
                    let started = Generation { generation: generation.clone(), functions, home };
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
    home: Arc<Bridge>,
    key: u64,
    /// Its place among the calls that run.
    turn: Mutex<Option<Turn>>,
    /// What a thread is at.
    in_thread: Mutex<InThread>,
}

/// What the thread of a sync function is at, as far as who waits for it matters.
#[derive(Default)]
enum InThread {
    #[default]
    Runs,
    /// The function has returned, and its result is read for these.
    Reads(Arc<Parts>),
    /// Nobody waits for it any more.
    Late,
    Done,
}

impl Call {
    fn new(mut call: EngineCall, functions: Arc<Functions>, home: Arc<Bridge>) -> Call {
        Call {
            turn: Mutex::new(call.turn.take()),
            key: call.abandon_key,
            field: call.field.clone(),
            event: call.event.clone(),
            arguments: call.arguments.clone(),
            watcher: call.watcher.clone(),
            call: Mutex::new(Some(call)),
            functions,
            home,
            in_thread: Mutex::default(),
        }
    }

    /// The first outcome counts; whatever comes later is discarded. Returns whether this is it.
    fn deliver_error(&self, error: GraphQLError) -> bool {
        let call = self.call.lock().take();
        let is_first = call.is_some();
        if let Some(call) = call {
            call.fail(error);
        }
        // A thread may go on for longer than it is waited for.
        if self.field.declaration.kind != Kind::Sync {
            self.release();
        }
        is_first
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

    /// Reads what the function gave, and delivers it. On the loop that may not come to its end at once, where something has to be awaited or
    /// there is much to be read; then the reading that goes on.
    fn finish(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<Option<Reading>> {
        let _inside = inside()?;
        let call = self.call.lock().take();
        // Without one the outcome has been delivered.
        let Some(call) = call else { return Ok(None) };
        let reading = InProgress::new(Called {
            field: self.field.clone(),
            event: Some(self.event.clone()),
            functions: self.functions.clone(),
            home: self.home.clone(),
        });
        let returned = call.returned(&reading.reader());
        if self.field.declaration.kind == Kind::Sync {
            reading.read_in_thread(py, result, returned, |parts| {
                let former = std::mem::replace(&mut *self.in_thread.lock(), InThread::Reads(parts.clone()));
                if matches!(former, InThread::Late) {
                    parts.fail(&Arc::new(too_late()));
                }
            });
            *self.in_thread.lock() = InThread::Done;
            return Ok(None);
        }
        self.release();
        reading.begin(py, result, returned)
    }

    /// The function raised.
    fn fail(&self, py: Python<'_>, exception: Bound<'_, PyAny>) {
        let Ok(_inside) = inside() else { return };
        self.deliver_error(masked(py, &self.functions, self.origin(), &PyErr::from_value(exception)));
    }

    /// The function took too long, or reading in its thread does. Returns whether something was still awaited.
    fn expire(&self) -> bool {
        let is_first = self.deliver_error(too_late());
        let former = {
            let mut in_thread = self.in_thread.lock();
            let next = if matches!(*in_thread, InThread::Done) { InThread::Done } else { InThread::Late };
            std::mem::replace(&mut *in_thread, next)
        };
        if let InThread::Reads(parts) = &former {
            parts.fail(&Arc::new(too_late()));
        }
        is_first || matches!(former, InThread::Reads(_))
    }
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
    home: Arc<Bridge>,
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
    fn emit(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Option<Reading>> {
        let _inside = inside()?;
        let reading = InProgress::new(Called {
            field: self.generation.field.clone(),
            event: None,
            functions: self.functions.clone(),
            home: self.home.clone(),
        });
        reading.begin(py, value, self.generation.yielded())
    }

    /// It ended by itself.
    fn complete(&self) {
        self.generation.finish(Ok(()));
    }

    /// It raised.
    fn fail(&self, py: Python<'_>, exception: Bound<'_, PyAny>) {
        let origin = Origin { field: &self.generation.field, event: None };
        let error = masked(py, &self.functions, origin, &PyErr::from_value(exception));
        self.generation.finish(Err(error));
    }
}
