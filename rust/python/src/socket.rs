//! A WebSocket of an ASGI server: frames come in from its receive loop, and go out from here.
//!
//! Every `send()` belongs to one task of the connection, Python's `Sender`, which is parked. Where the wake-up is handled, it is stepped
//! once, under the identity and in the context of that task. Only one that really suspends, because the peer reads too slowly, is handed
//! to the task itself; meanwhile nothing else is taken for this connection. So there is one writer a connection, and a message costs no
//! turn of the loop.
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
use pyo3::types::{PyDict, PyIterator, PyString, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};
use pyo3_async_runtimes::generic::future_into_py;

use crate::convert;
use crate::run::Run;
use crate::runtime::Tokio;
use crate::viewer::parse_viewer;
use crate::wake::{Bridge, OnLoop};

/// The protocol of one socket. All that it holds of Python is here, where the garbage collector sees it: the frames of the task that
/// serves the socket hold this.
#[pyclass(frozen, weakref, module = "fraiseql_subs._core")]
pub(crate) struct Socket {
    writer: Arc<Writer>,
    /// `None` once the socket is lost.
    hands: Mutex<Option<Arc<Hands>>>,
}

/// What it sends with.
struct Hands {
    send: Py<PyAny>,
    /// Python's `Sender`: `wake()` has its task take a turn, `go_on(steps, first)` gives it a send that has suspended.
    sender: Py<PyAny>,
    /// The sender's task, once sends may be stepped in its place.
    parked: OnceLock<Py<PyAny>>,
    /// The context copied when the connection began.
    context: Arc<Py<PyAny>>,
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
    /// Held while a send is under way that has suspended.
    sending: Mutex<Option<UnderWay>>,
    /// What the task that receives was interrupted for.
    closing: OnceLock<Close>,
    /// It receives no more, so that there is nothing to interrupt, and nothing more is sent.
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
        let Some((_socket, hands)) = self.hands(py) else { return Ok(()) };
        if self.sending.lock().is_some() {
            return self.overtake(py);
        }
        match hands.parked.get() {
            Some(task) => self.step(py, &hands, task.bind(py)),
            None => hands.sender.call_method0(py, intern!(py, "wake")).map(drop),
        }
    }
}

/// A send that has suspended: its steps, and what it gave to wait for.
type Suspended<'py> = (Bound<'py, PyIterator>, Bound<'py, PyAny>);

impl Writer {
    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.get()
    }

    /// The socket and what it sends with; there is none any more where nothing of it is left.
    fn hands<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, Socket>, Arc<Hands>)> {
        let socket: Bound<'py, Socket> = self.socket.get()?.bind(py).upgrade()?.cast_into().ok()?;
        let hands = socket.get().hands()?;
        Some((socket, hands))
    }

    /// The close does not wait for a send that is stuck. Where it is urgent, nothing stands before it.
    fn overtake(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        match self.connection().filter(|connection| connection.is_urgent()).and_then(Connection::next) {
            Some(Outgoing::Close(close)) => self.close(py, close, None),
            _ => Ok(()),
        }
    }

    /// Takes a turn as the sender's task would.
    fn step(self: &Arc<Self>, py: Python<'_>, hands: &Arc<Hands>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        static ENTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static LEAVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let here = (self.bridge.event_loop(py), task);
        ENTER.import(py, "asyncio.tasks", "_enter_task")?.call1(here)?;
        let turn = Turn { writer: self.clone(), hands: hands.clone() };
        let suspended = hands.context.bind(py).call_method1(intern!(py, "run"), (turn,));
        LEAVE.import(py, "asyncio.tasks", "_leave_task")?.call1(here)?;
        let suspended = suspended?;
        if !suspended.is_none() {
            hands.sender.call_method1(py, intern!(py, "go_on"), (suspended,))?;
        }
        Ok(())
    }

    /// Sends until nothing waits or a send suspends. What was under way before is over.
    fn turn<'py>(self: &Arc<Self>, py: Python<'py>, hands: &Hands) -> PyResult<Option<Suspended<'py>>> {
        let handed = self.sending.lock().take();
        drop(handed);
        let Some(connection) = self.connection().filter(|_| !self.has_left.load(SeqCst)) else {
            return Ok(None);
        };
        let handing = connection.hand();
        connection.listen();
        while let Some(outgoing) = connection.next() {
            let text = match outgoing {
                Outgoing::Text(text) => text,
                Outgoing::Close(close) => return self.close(py, close, None).map(|()| None),
            };
            let first = hands.begin(py, &text).and_then(|mut steps| match steps.next() {
                None => Ok(None),
                Some(first) => Ok(Some((steps, first?))),
            });
            match first {
                Ok(None) => {}
                Ok(suspended) => {
                    *self.sending.lock() = Some(handing);
                    return Ok(suspended);
                }
                Err(error) => return self.failed(py, error.value(py)).map(|()| None),
            }
        }
        Ok(None)
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
        self.bridge.push_late(py, Arc::new(Interruption { writer: Arc::downgrade(self), close, error }))
    }
}

/// The end of a connection, for the task that receives.
struct Interruption {
    /// A loop that is never run again keeps this, and must not keep the connection.
    writer: Weak<Writer>,
    close: Close,
    error: Option<Py<PyBaseException>>,
}

impl OnLoop for Interruption {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(writer) = self.writer.upgrade().filter(|writer| !writer.has_left.load(SeqCst)) else { return Ok(()) };
        // There is one close a connection; the transport has no other.
        let _ = writer.closing.set(self.close.clone());
        let Some((_socket, hands)) = writer.hands(py) else { return Ok(()) };
        let end = (hands.interrupt.bind(py), self.error.as_ref());
        hands.context.bind(py).call_method1(intern!(py, "run"), end).map(drop)
    }
}

/// A turn, as something that a context can run.
#[pyclass(frozen)]
struct Turn {
    writer: Arc<Writer>,
    hands: Arc<Hands>,
}

#[pymethods]
impl Turn {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Option<Suspended<'py>>> {
        self.writer.turn(py, &self.hands)
    }
}

impl Socket {
    pub(crate) fn open(
        py: Python<'_>,
        run: &Run,
        send: Py<PyAny>,
        sender: Py<PyAny>,
        context: Arc<Py<PyAny>>,
        interrupt: Py<PyAny>,
        offer: Offer,
    ) -> PyResult<Py<Socket>> {
        let bridge = run.bridge(py)?;
        let writer = Arc::new(Writer {
            connection: OnceLock::new(),
            bridge,
            socket: OnceLock::new(),
            sending: Mutex::new(None),
            closing: OnceLock::new(),
            has_left: AtomicBool::new(false),
        });
        let waker = Arc::new(Waker(Arc::downgrade(&writer)));
        let connection = Connection::open(&run.sessions, waker, offer);
        // What was to be sent before that is found by the sender's first turn.
        let _ = writer.connection.set(connection);
        let hands = Hands { send, sender, parked: OnceLock::new(), context, interrupt };
        let hands = Mutex::new(Some(Arc::new(hands)));
        let socket = Bound::new(py, Socket { writer: writer.clone(), hands })?;
        let _ = writer.socket.set(PyWeakrefReference::new(&socket)?.unbind());
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
        let handing = self.writer.sending.lock().take();
        let hands = self.hands.lock().take();
        drop((handing, hands));
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
            // The connection has the context as well.
            let Hands { send, sender, parked, interrupt, .. } = &**hands;
            [send, sender, interrupt].into_iter().try_for_each(|each| visit.call(each))?;
            visit.call(parked.get())?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.let_go();
    }

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
        self.writer.closing.get().map(|close| (close.code(), close.reason()))
    }

    /// The sender's task is about to wait: from now on its sends are stepped in its place.
    fn parked(&self, task: Py<PyAny>) {
        if let Some(hands) = self.hands() {
            // A connection has one.
            let _ = hands.parked.set(task);
        }
    }

    /// Sends until nothing waits or a send suspends: gives its steps, and what it gave to wait for. For the sender's task, which then sees
    /// that one through and takes the next turn.
    fn turn<'py>(&self, py: Python<'py>) -> PyResult<Option<Suspended<'py>>> {
        self.hands().map_or(Ok(None), |hands| self.writer.turn(py, &hands))
    }

    /// A send has failed, or the sender's task was cancelled: the connection ends.
    fn failed(&self, py: Python<'_>, error: &Bound<'_, PyBaseException>) -> PyResult<()> {
        let handed = self.writer.sending.lock().take();
        drop(handed);
        if self.has_left() { Ok(()) } else { self.writer.failed(py, error) }
    }

    /// Whether nothing is received, and so nothing sent, any more.
    #[getter]
    fn has_left(&self) -> bool {
        self.writer.has_left.load(SeqCst)
    }

    /// Nothing is received, and nothing sent, any more.
    fn leave(&self) {
        self.writer.has_left.store(true, SeqCst);
    }

    /// The socket is gone: nothing of it stays.
    fn lost(&self) {
        self.let_go();
    }
}
