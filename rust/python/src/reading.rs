//! A function's result while it is read: the engine's reading, what is awaited for it, and when it goes on.
//!
//! It is read on the loop in slices, each in a turn of its own, or in the function's thread, which lets go of the interpreter between them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fraiseql_subs_engine::delivery::{Parts, Reading as EngineReading, Resume, Returned};
use fraiseql_subs_engine::event::Event;
use fraiseql_subs_engine::graphql::Field;
use fraiseql_subs_engine::value::Value;
use parking_lot::Mutex;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use pyo3_async_runtimes::generic::Runtime;

use crate::functions::{Functions, Origin, masked, too_late};
use crate::read::{Awaitables, Reader};
use crate::runtime::Tokio;
use crate::wake::{Bridge, OnLoop};

/// So many slices are read in a thread before others may take the interpreter,
const SLICES: usize = 5;
/// for so long.
const LENT: Duration = Duration::from_micros(500);

/// A result that is being read on the loop.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Reading(Arc<InProgress>);

/// What was called, for a result of it.
pub(crate) struct Called {
    pub(crate) field: Arc<Field>,
    /// `None` for a generator.
    pub(crate) event: Option<Arc<Event>>,
    pub(crate) functions: Arc<Functions>,
    pub(crate) home: Arc<Bridge>,
}

pub(crate) struct InProgress {
    me: Weak<InProgress>,
    called: Called,
    /// `None` while it is read, as no lock is held while Python runs, and once it is done.
    state: Mutex<Option<State>>,
    /// Parts that may be read since it was read last.
    resumed: Mutex<Vec<usize>>,
    /// What the loop calls to go on.
    go_on: Mutex<Option<Py<PyAny>>>,
}

struct State {
    reading: EngineReading<Py<PyAny>, Py<PyIterator>>,
    awaitables: Awaitables,
}

impl InProgress {
    pub(crate) fn new(called: Called) -> Arc<InProgress> {
        let (state, resumed, go_on) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new_cyclic(|me| InProgress { me: me.clone(), called, state, resumed, go_on })
    }

    /// Whom to tell of parts that may be read.
    pub(crate) fn reader(&self) -> Weak<dyn Resume> {
        self.me.clone()
    }

    /// Reads on the loop. What has not come to its end goes on by `Reading`.
    pub(crate) fn begin(
        self: Arc<Self>,
        py: Python<'_>,
        result: &Bound<'_, PyAny>,
        returned: Returned,
    ) -> PyResult<Option<Reading>> {
        let Some(reading) = EngineReading::new(result.clone().unbind(), returned) else { return Ok(None) };
        *self.state.lock() = Some(State { reading, awaitables: Awaitables::default() });
        let is_done = self.read(py);
        Ok((!is_done).then(|| Reading(self)))
    }

    /// Reads in the function's thread, all of it. `begin` is told who waits for it meanwhile.
    pub(crate) fn read_in_thread(
        self: Arc<Self>,
        py: Python<'_>,
        result: &Bound<'_, PyAny>,
        returned: Returned,
        begin: impl FnOnce(&Arc<Parts>),
    ) {
        let Some(mut reading) = EngineReading::new(result.clone().unbind(), returned) else { return };
        begin(reading.parts());
        // To have the interpreter again may take its time: it is lent after some slices, not after each.
        for slice in 1.. {
            if !reading.read(&mut self.host(py, None), &self.reader()) {
                break;
            }
            if slice % SLICES == 0 {
                lend(py);
            }
        }
        while reading.dismantle() {
            lend(py);
        }
    }

    fn host<'a, 'py>(&'a self, py: Python<'py>, awaitables: Option<&'a mut Awaitables>) -> Reader<'a, 'py> {
        let Called { field, event, functions, .. } = &self.called;
        Reader { py, functions, origin: Origin { field, event: event.as_deref() }, awaitables }
    }

    /// Reads for a slice of time. Returns whether it is done: everything is delivered.
    fn read(&self, py: Python<'_>) -> bool {
        let taken = self.state.lock().take();
        // Without it, it is done, or being read further up.
        let Some(mut state) = taken else { return true };
        loop {
            for at in std::mem::take(&mut *self.resumed.lock()) {
                state.reading.resume(at);
            }
            let State { reading, awaitables } = &mut state;
            let more = reading.read(&mut self.host(py, Some(awaitables)), &self.reader());
            if state.reading.is_done() {
                if state.reading.is_large() {
                    Tokio::spawn_blocking(|| dismantle(state));
                }
                return true;
            }
            // Whoever notes a part from now on finds the state, and wakes the loop for it.
            let resumed = self.resumed.lock();
            if more || resumed.is_empty() {
                *self.state.lock() = Some(state);
                return false;
            }
        }
    }
}

/// Lets others have the interpreter, for long enough: who waits for it has to wake up before it is taken again.
fn lend(py: Python<'_>) {
    py.detach(|| std::thread::sleep(LENT));
}

/// Lets go of a large result, a little at a time, so that the loop can have the interpreter between.
fn dismantle(mut state: State) {
    while Python::try_attach(|_| state.reading.dismantle()).unwrap_or(false) {
        std::thread::sleep(LENT);
    }
}

impl Resume for InProgress {
    fn resume(&self, at: usize) {
        self.resumed.lock().push(at);
        if let Some(me) = self.me.upgrade() {
            // A loop that is closed will never read it: whoever holds it is told.
            self.called.home.push(me);
        }
    }
}

impl OnLoop for InProgress {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let go_on = self.go_on.lock().as_ref().map(|go_on| go_on.clone_ref(py));
        go_on.map_or(Ok(()), |go_on| go_on.call0(py).map(drop))
    }
}

#[pymethods]
impl Reading {
    /// What the loop is to call when it may be read further.
    fn go_on(&self, callback: Py<PyAny>) {
        let former = self.0.go_on.lock().replace(callback);
        drop(former);
    }

    /// Reads on. Returns whether it is done: everything is delivered.
    fn read(&self, py: Python<'_>) -> bool {
        self.0.read(py)
    }

    /// Whether there is more to be read at once.
    #[getter]
    fn has_more(&self) -> bool {
        self.0.state.lock().as_ref().is_some_and(|state| state.reading.has_more())
    }

    /// Nobody waits for it any more, or it is done.
    fn close(&self) {
        let callback = self.0.go_on.lock().take();
        let state = self.0.state.lock().take();
        drop((callback, state));
    }

    /// Awaitables that were found since the last time, with their numbers. What they give goes to `supply`.
    fn awaitables<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyAny>)> {
        let mut state = self.0.state.lock();
        state.as_mut().map(|state| state.awaitables.take(py)).unwrap_or_default()
    }

    /// What an awaitable gave; an exception stands for its own failure. `read` goes on with it.
    fn supply(&self, py: Python<'_>, number: usize, outcome: Bound<'_, PyAny>) {
        let outcome = match outcome.cast::<PyBaseException>() {
            Ok(exception) => {
                let error = PyErr::from_value(exception.clone().into_any());
                let origin = self.0.host(py, None).origin;
                Err(Value::Failed(Arc::new(masked(py, &self.0.called.functions, origin, &error))))
            }
            Err(_) => Ok(outcome.unbind()),
        };
        if let Some(state) = &mut *self.0.state.lock() {
            state.reading.supply(number, outcome);
        }
    }

    /// It took too long: only what is still awaited has failed, so whoever did not select that, or may not see it, is not told. `read`
    /// delivers what there is.
    fn expire(&self) {
        if let Some(state) = &mut *self.0.state.lock() {
            state.reading.expire(&Arc::new(too_late()));
        }
    }
}
