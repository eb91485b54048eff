//! A WebSocket of an ASGI server: frames come in from its receive loop, and go out from here.
//!
//! Every `send()` is stepped once where the wake-up is handled. Only one that really suspends, because the peer reads too slowly,
//! costs a task; meanwhile nothing else is taken for this connection. So there is one writer a connection, and no task.

use std::sync::{Arc, OnceLock, Weak};

use fraiseql_subs_engine::connection::{Connection, Outgoing};
use fraiseql_subs_engine::mailbox::Notify;
use fraiseql_subs_engine::protocol::{Close, Frame};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};

use crate::convert;
use crate::core::{Run, parse_viewer};
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
    /// The task of the send that is under way.
    sending: Mutex<Option<Py<PyAny>>>,
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
        let sending = self.sending.lock().as_ref().map(|task| task.clone_ref(py));
        match sending {
            None => self.send_all(py),
            Some(task) if self.connection().is_some_and(|connection| connection.is_urgent()) => {
                task.bind(py).call_method0("cancel").map(drop)
            }
            Some(_) => Ok(()),
        }
    }
}

impl Writer {
    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.get()
    }

    /// Sends until nothing waits or a send suspends.
    fn send_all(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        connection.listen();
        while let Some(outgoing) = connection.next() {
            let steps = self.begin(py, &outgoing);
            let first = steps.and_then(|mut steps| match steps.next() {
                None => Ok(None),
                Some(first) => Ok(Some((steps, first?))),
            });
            match first {
                Ok(None) => {}
                Ok(Some((steps, first))) => {
                    let done = Sent(self.clone());
                    let task = self.finish.bind(py).call1((steps, first, done))?;
                    *self.sending.lock() = Some(task.unbind());
                    return Ok(());
                }
                // The peer has gone; the server tells the receive loop as well.
                Err(_) => {
                    connection.lost();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn begin<'py>(&self, py: Python<'py>, outgoing: &Outgoing) -> PyResult<Bound<'py, PyIterator>> {
        let message = PyDict::new(py);
        let kind = intern!(py, "type");
        match outgoing {
            Outgoing::Text(text) => {
                message.set_item(kind, intern!(py, "websocket.send"))?;
                message.set_item(intern!(py, "text"), text)?;
            }
            Outgoing::Close(close) => {
                message.set_item(kind, intern!(py, "websocket.close"))?;
                message.set_item(intern!(py, "code"), close.code())?;
                message.set_item(intern!(py, "reason"), close.reason())?;
            }
        }
        let awaitable = self.send.bind(py).call1((message,))?;
        Ok(awaitable.call_method0(intern!(py, "__await__"))?.cast_into::<PyIterator>()?)
    }
}

/// What a suspended send calls when it is done.
#[pyclass(frozen)]
struct Sent(Arc<Writer>);

#[pymethods]
impl Sent {
    fn __call__(&self, py: Python<'_>, failed: bool) -> PyResult<()> {
        let task = self.0.sending.lock().take();
        drop(task);
        if failed {
            if let Some(connection) = self.0.connection() {
                connection.lost();
            }
            return Ok(());
        }
        self.0.send_all(py)
    }
}

impl Socket {
    pub(crate) fn open(
        py: Python<'_>,
        run: &Run,
        send: Py<PyAny>,
        finish: Py<PyAny>,
        introspection: bool,
    ) -> PyResult<Socket> {
        let bridge = run.bridge(py)?;
        let writer = Arc::new(Writer { connection: OnceLock::new(), bridge, send, finish, sending: Mutex::new(None) });
        let waker = Arc::new(Waker(Arc::downgrade(&writer)));
        let connection = Connection::open(&run.engine, waker, introspection);
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

    /// Takes a text frame, or `None` for a binary one. Returns what the auth handler has to judge, where it has to.
    fn receive<'py>(&self, py: Python<'py>, text: Option<&str>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(connection) = self.connection() else {
            return Ok(None);
        };
        let payload = connection.receive(text.map_or(Frame::Binary, Frame::Text));
        payload.map(|payload| convert::to_python(py, &payload)).transpose()
    }

    /// A text frame that is no valid Unicode: closes as the protocol says.
    fn receive_invalid(&self) {
        if let Some(connection) = self.connection() {
            connection.close(Close::invalid("not Unicode text"));
        }
    }

    /// The auth handler has accepted this viewer.
    fn accept(&self, context: Py<PyAny>, viewer: &str) -> PyResult<()> {
        let viewer = parse_viewer(viewer, context)?;
        if let Some(connection) = self.connection() {
            connection.authenticated(Some(viewer));
        }
        Ok(())
    }

    /// The auth handler has refused.
    fn refuse(&self) {
        if let Some(connection) = self.connection() {
            connection.authenticated(None);
        }
    }

    /// The socket is gone: nothing of it stays.
    fn lost(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(connection) = self.connection() {
            connection.lost();
        }
        let sending = self.0.sending.lock().take();
        match sending {
            Some(task) => task.bind(py).call_method0("cancel").map(drop),
            None => Ok(()),
        }
    }
}
