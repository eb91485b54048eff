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
use pyo3::types::{PyDict, PyIterator, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use crate::convert;
use crate::run::Run;
use crate::viewer::parse_viewer;
use crate::wake::{Bridge, OnLoop};

/// The protocol of one socket. All that it holds of Python is here, where the garbage collector sees it: the frames of the task that
/// serves the socket hold this.
#[pyclass(frozen, weakref, module = "fraiseql_subs._core")]
pub(crate) struct Socket {
    writer: Arc<Writer>,
    /// `None` once the socket is lost.
    hands: Mutex<Option<Arc<Hands>>>,
    /// The task of the send that is under way.
    sending: Mutex<Option<Py<PyAny>>>,
}

/// What it sends with.
struct Hands {
    send: Py<PyAny>,
    /// Python's `finish(steps, first, done)`: makes a task of a send that has suspended.
    finish: Py<PyAny>,
    /// The task that receives: what a `send()` sees as the current one where it is stepped without a task of its own.
    receiving: Py<PyAny>,
    /// Python's `interrupt(error)`: ends the receive loop, which then asks for `closing`.
    interrupt: Py<PyAny>,
}

impl Hands {
    fn begin<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyIterator>> {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "websocket.send"))?;
        message.set_item(intern!(py, "text"), text)?;
        let awaitable = self.send.bind(py).call1((message,))?;
        Ok(awaitable.call_method0(intern!(py, "__await__"))?.cast_into::<PyIterator>()?)
    }
}

/// Takes what is to be sent out of a connection and has its socket send it.
struct Writer {
    connection: OnceLock<Arc<Connection>>,
    bridge: Arc<Bridge>,
    socket: OnceLock<Py<PyWeakrefReference>>,
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
        let Some(socket) = self.socket(py) else { return Ok(()) };
        let is_free = socket.get().sending.lock().is_none();
        if is_free || self.connection().is_some_and(|connection| connection.is_urgent()) {
            return self.send_all(&socket);
        }
        Ok(())
    }
}

impl Writer {
    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.get()
    }

    /// The socket; there is none any more where nothing of it is left.
    fn socket<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Socket>> {
        self.socket.get()?.bind(py).upgrade()?.cast_into().ok()
    }

    /// Sends until nothing waits or a send suspends. Middleware may need a current task, as `asyncio.timeout` does.
    fn send_all(self: &Arc<Self>, socket: &Bound<'_, Socket>) -> PyResult<()> {
        static ENTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static LEAVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = socket.py();
        let Some(hands) = socket.get().hands() else { return Ok(()) };
        let here = (self.bridge.event_loop(py), hands.receiving.bind(py));
        ENTER.import(py, "asyncio.tasks", "_enter_task")?.call1(here)?;
        let sent = self.step_all(socket, &hands);
        LEAVE.import(py, "asyncio.tasks", "_leave_task")?.call1(here)?;
        sent
    }

    fn step_all(self: &Arc<Self>, socket: &Bound<'_, Socket>, hands: &Hands) -> PyResult<()> {
        let py = socket.py();
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
            let first = hands.begin(py, &text).and_then(|mut steps| match steps.next() {
                None => Ok(None),
                Some(first) => Ok(Some((steps, first?))),
            });
            match first {
                Ok(None) => {}
                Ok(Some((steps, first))) => {
                    let done = Sent { writer: self.clone(), handing: Mutex::new(Some(handing)) };
                    let task = hands.finish.bind(py).call1((steps, first, done))?;
                    *socket.get().sending.lock() = Some(task.unbind());
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
        let hands = self.writer.socket(py).and_then(|socket| socket.get().hands());
        hands.map_or(Ok(()), |hands| hands.interrupt.bind(py).call1((self.error.as_ref(),)).map(drop))
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
        let handing = self.handing.lock().take();
        drop(handing);
        let Some(socket) = self.writer.socket(py) else { return Ok(()) };
        let task = socket.get().sending.lock().take();
        drop(task);
        match error {
            Some(error) => self.writer.failed(py, error),
            None => self.writer.send_all(&socket),
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
    ) -> PyResult<Py<Socket>> {
        let bridge = run.bridge(py)?;
        let receiving = py.import("asyncio")?.call_method0("current_task")?.unbind();
        let writer = Arc::new(Writer {
            connection: OnceLock::new(),
            bridge,
            socket: OnceLock::new(),
            closing: OnceLock::new(),
            has_left: AtomicBool::new(false),
        });
        let waker = Arc::new(Waker(Arc::downgrade(&writer)));
        let connection = Connection::open(&run.sessions, waker, offer);
        let _ = writer.connection.set(connection);
        let hands = Mutex::new(Some(Arc::new(Hands { send, finish, receiving, interrupt })));
        let socket = Bound::new(py, Socket { writer: writer.clone(), hands, sending: Mutex::new(None) })?;
        let _ = writer.socket.set(PyWeakrefReference::new(&socket)?.unbind());
        // What was to be sent before the writer knew its connection.
        writer.bridge.push(writer.clone());
        Ok(socket.unbind())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.writer.connection()
    }

    /// For as long as the socket is held: nobody else may keep them.
    fn hands(&self) -> Option<Arc<Hands>> {
        self.hands.lock().clone()
    }

    /// Nothing of the connection stays, and what served it is let go.
    fn let_go(&self) {
        self.writer.has_left.store(true, SeqCst);
        if let Some(connection) = self.connection() {
            connection.lost();
        }
        let hands = self.hands.lock().take();
        drop(hands);
    }
}

impl Drop for Socket {
    /// Nobody serves it any more, however that came: a task that never began runs no `finally`.
    fn drop(&mut self) {
        self.let_go();
    }
}

#[pymethods]
impl Socket {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(Some(hands)) = self.hands.try_lock().as_deref() {
            let Hands { send, finish, receiving, interrupt } = &**hands;
            [send, finish, receiving, interrupt].into_iter().try_for_each(|each| visit.call(each))?;
        }
        self.sending.try_lock().as_deref().map_or(Ok(()), |sending| visit.call(sending))
    }

    fn __clear__(&self) {
        let sending = self.sending.lock().take();
        drop(sending);
        self.let_go();
    }

    /// The connection's id.
    #[getter]
    fn id(&self) -> &str {
        self.connection().map_or("", |connection| &connection.id)
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
        self.writer.closing.get().map(|close| (close.code(), close.reason()))
    }

    /// Gives up the send that is under way; returns its task, where there is one. Nothing is received any more.
    fn give_up(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.writer.has_left.store(true, SeqCst);
        let sending = self.sending.lock().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = &sending {
            task.bind(py).call_method0("cancel")?;
        }
        Ok(sending)
    }

    /// The socket is gone: nothing of it stays.
    fn lost(&self) {
        self.let_go();
    }
}
