//! The two ways of waking a loop from a thread that may hold locks and does not hold the interpreter; the loop itself says which it takes.

use std::sync::{Arc, Weak};

use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3_async_runtimes::generic::Runtime;

use super::{Bridge, Drain, Watch};
use crate::runtime::Tokio;

/// How a loop is woken.
pub(super) trait Way: Send + Sync {
    /// Has the loop do what is queued, soon; from any thread.
    fn wake(&self);

    /// The loop has come.
    fn woken(&self) {}

    /// The loop lets go of its [`Watch`].
    fn leave(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()>;
}

/// The way that a loop takes. Either lets the loop keep a [`Watch`], of which it lets go when it is closed.
pub(super) fn open(event_loop: &Bound<'_, PyAny>, bridge: &Arc<Bridge>) -> PyResult<Box<dyn Way>> {
    let watch = Bound::new(event_loop.py(), Watch::new(bridge.clone()))?;
    #[cfg(unix)]
    match super::descriptor::open(event_loop, &watch) {
        Ok(way) => return Ok(Box::new(way)),
        Err(error) if watches_none(&error, event_loop.py()) => {}
        Err(error) => return Err(error),
    }
    let timer = PyWeakrefReference::new(&event_loop.call_method1("call_later", (NEVER, watch))?)?.unbind();
    Ok(Box::new(Threadsafe { bridge: Arc::downgrade(bridge), timer }))
}

/// Whether a loop has refused to watch a descriptor because it watches none.
#[cfg(unix)]
fn watches_none(error: &PyErr, py: Python<'_>) -> bool {
    error.is_instance_of::<PyNotImplementedError>(py) || error.is_instance_of::<PyAttributeError>(py)
}

/// No loop runs for so many seconds.
const NEVER: f64 = 1e9;

/// By `call_soon_threadsafe`.
struct Threadsafe {
    bridge: Weak<Bridge>,
    /// A timer that never comes, which the loop alone keeps, and lets go of when it is closed.
    timer: Py<PyWeakrefReference>,
}

impl Way for Threadsafe {
    fn wake(&self) {
        let Some(bridge) = self.bridge.upgrade() else { return };
        // Whoever holds the interpreter may be waiting for a lock that is held here: another thread asks for it.
        Tokio::spawn_blocking(move || {
            Python::attach(|py| {
                let drain = Drain(bridge.clone());
                if bridge.event_loop(py).call_method1("call_soon_threadsafe", (drain,)).is_err() {
                    // It is closed.
                    bridge.forget();
                }
            });
        });
    }

    fn leave(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let timer = self.timer.bind(event_loop.py()).upgrade();
        timer.map_or(Ok(()), |timer| timer.call_method0("cancel").map(drop))
    }
}
