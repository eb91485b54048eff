//! `manager.subscribe`: an async iterator whose messages are pushed.
//!
//! A reader that finds its queue full takes the next message without touching the loop. One that finds it empty waits on a future of
//! its loop; being woken says only that there is something, so a reader that was cancelled meanwhile has lost nothing.

use std::sync::{Arc, OnceLock, Weak};

use fraiseql_subs_engine::accounts::Authorisation;
use fraiseql_subs_engine::delivery::Notify;
use fraiseql_subs_engine::delivery::Settled;
use fraiseql_subs_engine::engine::Resume;
use fraiseql_subs_engine::error::Rejection;
use fraiseql_subs_engine::graphql::Request;
use fraiseql_subs_engine::sessions::{Ask as EngineAsk, Delivery, Framing, Stream};
use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyString};
use pyo3::{PyTraverseError, PyVisit};
use pyo3_async_runtimes::generic::future_into_py;

use crate::errors;
use crate::run::{Run, Runs};
use crate::runtime::Tokio;
use crate::wake::{Bridge, OnLoop};

/// What was asked for, until it is entered.
pub(crate) struct Ask {
    operation_name: Option<String>,
    viewer: Arc<Viewer>,
    id: Arc<str>,
    connection_id: Option<Arc<str>>,
    framing: Framing,
    resume: Resume,
    /// Until it is entered.
    open: Mutex<Option<Open>>,
}

/// What is let go of as soon as it is entered.
struct Open {
    query: String,
    variables: Value,
    authorisation: Authorisation,
}

impl Ask {
    #[expect(clippy::too_many_arguments, reason = "the arguments of `manager.subscribe`")]
    pub(crate) fn new(
        query: String,
        operation_name: Option<String>,
        variables: Value,
        viewer: Arc<Viewer>,
        id: &str,
        connection_id: Option<&str>,
        framing: &str,
        resume: &Bound<'_, PyAny>,
        authorisation: Authorisation,
    ) -> PyResult<Ask> {
        let framing = match framing {
            "next" => Framing::Next,
            "result" => Framing::Result,
            other => {
                return Err(PyValueError::new_err(format!("framing: expected 'next' or 'result', got {other:?}")));
            }
        };
        let resume = match (resume.cast::<PyBool>(), resume.cast::<PyString>()) {
            (Ok(flag), _) if flag.is_true() => Resume::Ids,
            (Ok(_), _) => Resume::No,
            (_, Ok(token)) => Resume::After(token.to_string()),
            _ if resume.is_none() => Resume::No,
            _ => return Err(PyTypeError::new_err("resume: expected True, a token or None")),
        };
        let (id, connection_id) = (id.into(), connection_id.map(Arc::from));
        let open = Mutex::new(Some(Open { query, variables, authorisation }));
        Ok(Ask { operation_name, viewer, id, connection_id, framing, resume, open })
    }
}

/// One subscription of this process.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Subscription {
    runs: Arc<Runs>,
    ask: Arc<Ask>,
    reader: Arc<Reader>,
}

/// What an iterator and the engine share; the engine holds it weakly.
#[derive(Default)]
struct Reader {
    stream: OnceLock<Arc<Stream>>,
    run: OnceLock<Weak<Run>>,
    /// Who waits, and on which loop.
    waiting: Mutex<Option<(Arc<Bridge>, Py<PyAny>)>>,
    /// The end was reported: whatever is asked next is the end again.
    ended: OnceLock<()>,
}

/// Wakes the reader; it holds the reader weakly, since the reader holds the stream.
struct Waker(Weak<Reader>);

impl Notify for Waker {
    fn notify(&self) {
        if let Some(reader) = self.0.upgrade() {
            let bridge = reader.waiting.lock().as_ref().map(|(bridge, _)| bridge.clone());
            if let Some(bridge) = bridge {
                bridge.push(reader);
            }
        }
    }
}

impl OnLoop for Reader {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let waiting = self.waiting.lock().take();
        if let Some((_, future)) = waiting
            && !future.bind(py).call_method0("done")?.is_truthy()?
        {
            future.bind(py).call_method1("set_result", (py.None(),))?;
        }
        Ok(())
    }
}

impl Subscription {
    pub(crate) fn new(runs: Arc<Runs>, ask: Ask) -> Subscription {
        Subscription { runs, ask: Arc::new(ask), reader: Arc::default() }
    }

    /// Subscribes, unless that has been done. What is returned is done when it is live, where it has to wait for that.
    fn enter(&self, py: Python<'_>) -> PyResult<Option<Settled>> {
        if self.reader.stream.get().is_some() || self.reader.ended.get().is_some() {
            return Ok(None);
        }
        let run = self.runs.running(py)?;
        let Ask { operation_name, viewer, id, connection_id, framing, resume, open } = &*self.ask;
        let open = open.lock().take();
        let Some(Open { query, variables, authorisation }) = open else {
            return Err(PyRuntimeError::new_err("a subscription that could not be entered cannot be entered again"));
        };
        let ask = EngineAsk {
            request: Request {
                query: &query,
                operation_name: operation_name.as_deref(),
                variables: &variables,
                introspection: true,
            },
            viewer: viewer.clone(),
            id: id.clone(),
            connection_id: connection_id.clone(),
            framing: *framing,
            resume: resume.clone(),
            authorisation,
        };
        let waker = Arc::new(Waker(Arc::downgrade(&self.reader)));
        let (stream, settled) = Stream::open(&run.sessions, &ask, waker).map_err(|error| errors::open(py, &error))?;
        let _ = self.reader.run.set(Arc::downgrade(&run));
        let _ = self.reader.stream.set(stream);
        Ok(settled)
    }

    fn close(&self) {
        let _ = self.reader.ended.set(());
        if let Some(stream) = self.reader.stream.get() {
            stream.close();
        }
        Waker(Arc::downgrade(&self.reader)).notify();
    }
}

#[pymethods]
impl Subscription {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.reader.waiting.try_lock().as_deref() {
            Some(Some((_, future))) => visit.call(future),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let waiting = self.reader.waiting.lock().take();
        drop(waiting);
    }

    /// The subscription's id.
    #[getter]
    fn id(&self) -> &str {
        &self.ask.id
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(slf: Py<Self>, py: Python<'_>) -> PyResult<Next> {
        // Where it is refused later, the reader is told when it reads.
        drop(slf.get().enter(py)?);
        Ok(Next { subscription: slf })
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match slf.get().enter(py)? {
            None => Ok(Bound::new(py, Ready(Some(slf.into_any())))?.into_any()),
            Some(settled) => {
                let mut entering = Entering(Some(slf));
                future_into_py::<Tokio, _, Entered>(py, async move {
                    // One that ended meanwhile is entered, and over.
                    let outcome = settled.await.unwrap_or(Ok(()));
                    Ok(Entered { subscription: entering.0.take(), outcome })
                })
            }
        }
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__(&self, _exception: &Bound<'_, PyAny>) -> Ready {
        self.close();
        Ready(None)
    }

    /// Ends the subscription.
    fn aclose(&self) -> Ready {
        self.close();
        Ready(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes a subscription that nobody waits for any more before it is live.
struct Entering(Option<Py<Subscription>>);

impl Drop for Entering {
    fn drop(&mut self) {
        if let Some(subscription) = self.0.take() {
            subscription.get().close();
        }
    }
}

/// What became of one that had to wait.
struct Entered {
    subscription: Option<Py<Subscription>>,
    outcome: Result<(), Rejection>,
}

impl<'py> IntoPyObject<'py> for Entered {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Entered { subscription, outcome } = self;
        if let Err(rejection) = outcome {
            if let Some(subscription) = &subscription {
                subscription.get().close();
            }
            return Err(errors::rejected(py, &rejection));
        }
        Ok(subscription.into_pyobject(py)?.into_any())
    }
}

/// An awaitable that is done.
#[pyclass]
struct Ready(Option<Py<PyAny>>);

#[pymethods]
impl Ready {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }

    fn __clear__(&mut self) {
        self.0 = None;
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self) -> PyResult<()> {
        Err(PyStopIteration::new_err((self.0.take(),)))
    }
}

/// The awaitable of one message.
#[pyclass(frozen)]
struct Next {
    subscription: Py<Subscription>,
}

#[pymethods]
impl Next {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.subscription)
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Ends with the message, or gives the future to wait for.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let reader = &self.subscription.get().reader;
        let Some(stream) = reader.stream.get().filter(|_| reader.ended.get().is_none()) else {
            return Err(PyStopAsyncIteration::new_err(()));
        };
        if let Some(delivery) = stream.take() {
            return Err(reader.outcome(py, delivery));
        }
        let run = reader.run.get().and_then(Weak::upgrade).ok_or_else(|| errors::not_running(py))?;
        let bridge = run.bridge(py)?;
        let future = bridge.event_loop(py).call_method0("create_future")?;
        let other = reader.waiting.lock().take();
        if let Some((_, waited)) = &other
            && !waited.bind(py).call_method0("done")?.is_truthy()?
        {
            // The other one goes on waiting; it may have been woken while it was looked at.
            *reader.waiting.lock() = other;
            Waker(Arc::downgrade(reader)).notify();
            return Err(PyRuntimeError::new_err("the subscription is being read by another task already"));
        }
        *reader.waiting.lock() = Some((bridge, future.clone().unbind()));
        stream.listen();
        // Something may have come before the reader listened.
        if let Some(delivery) = stream.take() {
            reader.waiting.lock().take();
            return Err(reader.outcome(py, delivery));
        }
        // The future's own iterator marks it as awaited and yields it.
        future.call_method0("__await__")?.call_method0("__next__")
    }
}

impl Reader {
    fn outcome(&self, py: Python<'_>, delivery: Delivery) -> PyErr {
        let end = match delivery {
            Delivery::Message(text) => {
                return PyStopIteration::new_err((PyBytes::new(py, text.as_bytes()).unbind(),));
            }
            Delivery::Complete => PyStopAsyncIteration::new_err(()),
            Delivery::Failed(error) => errors::ended(py, &error),
            Delivery::Forbidden => errors::raise(py, "Forbidden", ()),
            Delivery::Slow => errors::raise(py, "SlowConsumer", ("the subscription's queue overflowed",)),
        };
        let _ = self.ended.set(());
        end
    }
}
