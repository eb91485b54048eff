//! A WebSocket of an ASGI server: frames come in from its receive loop, and go out from here.
//!
//! Every `send()` is stepped once where the wake-up is handled. Only one that really suspends, because the peer reads too slowly,
//! costs a task; meanwhile nothing else is taken for this connection. So there is one writer a connection, and no task.
//!
//! The close is not sent from here: the task that receives is interrupted and sends it, since some servers cannot close while
//! a receive is pending, and not all tell a receive of the close.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

use fraiseql_subs_engine::delivery::Notify;
use fraiseql_subs_engine::sessions::protocol::{Close, Frame};
use fraiseql_subs_engine::sessions::{Connection, Offer, Outgoing, Question};
use fraiseql_subs_engine::tasks::UnderWay;
use fraiseql_subs_engine::value::MAX_DIGITS;
use parking_lot::Mutex;
use pyo3::exceptions::PyBaseException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyString};
use pyo3_async_runtimes::generic::future_into_py;

use crate::convert;
use crate::run::Run;
use crate::runtime::Tokio;
use crate::viewer::parse_viewer;
use crate::wake::{Bridge, OnLoop};

/// The protocol of one socket.
#[pyclass(frozen, module = "fraiseql_subs._core")]
pub(crate) struct Socket(Arc<Writer>);

/// Takes what is to be sent out of a connection and sends it.
struct Writer {
    connection: OnceLock<Arc<Connection>>,
    bridge: Arc<Bridge>,
    send: Py<PyAny>,
    /// Python's `finish(steps, first, done)`: makes a task of a send that has suspended.
    finish: Py<PyAny>,
    /// The task that receives: what a `send()` sees as the current one where it is stepped without a task of its own.
    receiving: Py<PyAny>,
    /// Python's `interrupt(error)`: ends the receive loop, which then asks for `closing`.
    interrupt: Py<PyAny>,
    /// The task of the send that is under way.
    sending: Mutex<Option<Py<PyAny>>>,
    /// What the task that receives was interrupted for.
    closing: OnceLock<Close>,
    /// It receives no more, so that there is nothing to interrupt.
    has_left: AtomicBool,
}

struct Waker(Weak<Writer>);

impl Notify for Waker {
    fn notify(&self) {
        if let Some(writer) = self.0.upgrade() {
            writer.bridge.push(writer.clone());
        }
    }
}

impl OnLoop for Writer {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let is_free = self.sending.lock().is_none();
        if is_free || self.connection().is_some_and(|connection| connection.is_urgent()) {
            return self.send_all(py);
        }
        Ok(())
    }
}

impl Writer {
    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.get()
    }

    /// Sends until nothing waits or a send suspends. Middleware may need a current task, as `asyncio.timeout` does.
    fn send_all(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        static ENTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static LEAVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let here = (self.bridge.event_loop(py), self.receiving.bind(py));
        ENTER.import(py, "asyncio.tasks", "_enter_task")?.call1(here)?;
        let sent = self.step_all(py);
        LEAVE.import(py, "asyncio.tasks", "_leave_task")?.call1(here)?;
        sent
    }

    fn step_all(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        let handing = connection.hand();
        connection.listen();
        while let Some(outgoing) = connection.next() {
            let text = match outgoing {
                Outgoing::Text(text) => text,
                Outgoing::Close(close) => return self.close(py, close, None),
            };
            let first = self.begin(py, &text).and_then(|mut steps| match steps.next() {
                None => Ok(None),
                Some(first) => Ok(Some((steps, first?))),
            });
            match first {
                Ok(None) => {}
                Ok(Some((steps, first))) => {
                    let done = Sent { writer: self.clone(), handing: Mutex::new(Some(handing)) };
                    let task = self.finish.bind(py).call1((steps, first, done))?;
                    *self.sending.lock() = Some(task.unbind());
                    return Ok(());
                }
                Err(error) => return self.failed(py, error.value(py)),
            }
        }
        Ok(())
    }

    /// A send raised: the peer has gone, or something before the server is broken. Nothing more can be sent in order.
    fn failed(self: &Arc<Self>, py: Python<'_>, error: &Bound<'_, PyBaseException>) -> PyResult<()> {
        if let Some(connection) = self.connection() {
            connection.close(Close::INTERNAL_SERVER_ERROR);
            if let Some(Outgoing::Close(close)) = connection.next() {
                return self.close(py, close, Some(error));
            }
        }
        Ok(())
    }

    fn close(
        self: &Arc<Self>,
        py: Python<'_>,
        close: Close,
        error: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let error = error.map(|error| error.clone().unbind());
        self.bridge.push_late(py, Arc::new(Interruption { writer: self.clone(), close, error }))
    }

    fn begin<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyIterator>> {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "websocket.send"))?;
        message.set_item(intern!(py, "text"), text)?;
        let awaitable = self.send.bind(py).call1((message,))?;
        Ok(awaitable.call_method0(intern!(py, "__await__"))?.cast_into::<PyIterator>()?)
    }
}

/// The end of a connection, for the task that receives.
struct Interruption {
    writer: Arc<Writer>,
    close: Close,
    error: Option<Py<PyBaseException>>,
}

impl OnLoop for Interruption {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if self.writer.has_left.load(SeqCst) {
            return Ok(());
        }
        // There is one close a connection; the transport has no other.
        let _ = self.writer.closing.set(self.close.clone());
        self.writer.interrupt.bind(py).call1((self.error.as_ref(),)).map(drop)
    }
}

/// What a suspended send calls when it is done.
#[pyclass(frozen)]
struct Sent {
    writer: Arc<Writer>,
    handing: Mutex<Option<UnderWay>>,
}

#[pymethods]
impl Sent {
    fn __call__(&self, py: Python<'_>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let task = self.writer.sending.lock().take();
        drop(task);
        let handing = self.handing.lock().take();
        drop(handing);
        match error {
            Some(error) => self.writer.failed(py, error),
            None => self.writer.send_all(py),
        }
    }
}

impl Socket {
    pub(crate) fn open(
        py: Python<'_>,
        run: &Run,
        send: Py<PyAny>,
        finish: Py<PyAny>,
        interrupt: Py<PyAny>,
        offer: Offer,
    ) -> PyResult<Socket> {
        let bridge = run.bridge(py)?;
        let receiving = py.import("asyncio")?.call_method0("current_task")?.unbind();
        let writer = Arc::new(Writer {
            connection: OnceLock::new(),
            bridge,
            send,
            finish,
            receiving,
            interrupt,
            sending: Mutex::new(None),
            closing: OnceLock::new(),
            has_left: AtomicBool::new(false),
        });
        let waker = Arc::new(Waker(Arc::downgrade(&writer)));
        let connection = Connection::open(&run.sessions, waker, offer);
        let _ = writer.connection.set(connection);
        // What was to be sent before the writer knew its connection.
        writer.bridge.push(writer.clone());
        Ok(Socket(writer))
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.connection()
    }
}

#[pymethods]
impl Socket {
    /// The connection's id.
    #[getter]
    fn id(&self) -> &str {
        self.connection().map_or("", |connection| &connection.id)
    }

    /// A frame was read, which may come too fast: then returns what to wait for, until it may be handed in.
    fn arrives<'py>(
        &self,
        py: Python<'py>,
        text: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        // One that is no valid Unicode closes the connection.
        let bytes = text.and_then(|text| text.to_str().ok()).map_or(0, str::len);
        let held = self.connection().and_then(|connection| connection.arrives(bytes));
        held.map(|held| {
            future_into_py::<Tokio, _, ()>(py, async move {
                held.turn().await;
                Ok(())
            })
        })
        .transpose()
    }

    /// Takes a text frame, or `None` for a binary one. Returns what the auth handler has to judge, where it has to, with the number
    /// that its answer goes by; 0 is the number of the first question.
    fn receive<'py>(&self, py: Python<'py>, text: Option<&str>) -> PyResult<Option<(u64, Bound<'py, PyAny>)>> {
        let Some(connection) = self.connection() else {
            return Ok(None);
        };
        let Some(Question { number, payload }) = connection.receive(text.map_or(Frame::Binary, Frame::Text)) else {
            return Ok(None);
        };
        if payload.has_long_number() {
            // Whoever makes an integer of it would wait for long.
            let reason = format!("the payload has a number of more than {MAX_DIGITS} digits");
            connection.answered(number, Err(reason.into()));
            return Ok(None);
        }
        Ok(Some((number, convert::to_python(py, &payload)?)))
    }

    /// A text frame that is no valid Unicode: closes as the protocol says.
    fn receive_invalid(&self) {
        if let Some(connection) = self.connection() {
            connection.close(Close::invalid("not Unicode text"));
        }
    }

    /// The auth handler has accepted this viewer.
    fn accept(&self, question: u64, context: Py<PyAny>, viewer: &str) -> PyResult<()> {
        let viewer = parse_viewer(viewer, context)?;
        if let Some(connection) = self.connection() {
            connection.answered(question, Ok(viewer));
        }
        Ok(())
    }

    /// The auth handler has refused, for a reason that operators are told.
    fn refuse(&self, question: u64, reason: String) {
        if let Some(connection) = self.connection() {
            connection.answered(question, Err(reason.into()));
        }
    }

    /// Code and reason of the close that is to be sent, where there is one.
    #[getter]
    fn closing(&self) -> Option<(u16, &str)> {
        self.0.closing.get().map(|close| (close.code(), close.reason()))
    }

    /// Gives up the send that is under way; returns its task, where there is one. Nothing is received any more.
    fn give_up(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.0.has_left.store(true, SeqCst);
        let sending = self.0.sending.lock().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = &sending {
            task.bind(py).call_method0("cancel")?;
        }
        Ok(sending)
    }

    /// The socket is gone: nothing of it stays.
    fn lost(&self) {
        self.0.has_left.store(true, SeqCst);
        if let Some(connection) = self.connection() {
            connection.lost();
        }
    }
}
