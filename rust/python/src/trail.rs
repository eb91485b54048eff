//! What the engine has to say, on its way to Python's logging.

use std::sync::Arc;

use fraiseql_subs_engine::operators::audit::{Record, Writer};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::wake::{Bridge, OnLoop};

/// Brings audit records to Python's logging, on the loop that entered the manager.
pub(crate) struct Trail {
    /// Python's `write(event, reason, user_id, tenant_id, connection_id, suppressed)`.
    pub(crate) write: Arc<Py<PyAny>>,
    /// Python's `warn(text)`.
    pub(crate) warn: Arc<Py<PyAny>>,
    pub(crate) home: Mutex<Option<Arc<Bridge>>>,
}

impl Trail {
    fn push(&self, work: Arc<dyn OnLoop>) {
        let home = self.home.lock().clone();
        if let Some(home) = home {
            home.push(work);
        }
    }
}

impl Writer for Trail {
    fn write(&self, record: Record) {
        self.push(Arc::new(Entry { record, write: self.write.clone() }));
    }

    fn warn(&self, text: String) {
        self.push(Arc::new(Warning { text, warn: self.warn.clone() }));
    }
}

/// A warning on its way.
struct Warning {
    text: String,
    warn: Arc<Py<PyAny>>,
}

impl OnLoop for Warning {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.warn.bind(py).call1((&self.text,)).map(drop)
    }
}

/// A record on its way.
struct Entry {
    record: Record,
    write: Arc<Py<PyAny>>,
}

impl OnLoop for Entry {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Record { event, reason, user_id, tenant_id, connection_id, suppressed } = &self.record;
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let viewer = (text(user_id), text(tenant_id), text(connection_id));
        self.write.bind(py).call1((*event, &**reason, viewer.0, viewer.1, viewer.2, suppressed)).map(drop)
    }
}
