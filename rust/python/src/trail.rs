//! What the engine has to say, on its way to Python's logging: records on the loop that entered the manager, lines there or in a thread
//! that publishes, whichever comes first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fraiseql_subs_engine::operators::audit::{Record, Writer};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::wake::{Bridge, OnLoop};

/// So many lines wait at most; of events that reached nobody, further ones are left out and counted.
const LINES: usize = 1000;

/// Python's level of that name.
const DEBUG: u8 = 10;

/// Brings records and lines to Python's logging.
pub(crate) struct Trail {
    /// Python's `write(event, reason, user_id, tenant_id, connection_id, suppressed)`.
    write: Arc<Py<PyAny>>,
    log: Arc<Log>,
    /// The process that was entered, and its loop.
    home: Mutex<Option<(u32, Arc<Bridge>)>>,
}

impl Trail {
    /// `warn` takes a text, `events` is the logger of single events.
    pub(crate) fn new(write: Py<PyAny>, warn: Py<PyAny>, events: Py<PyAny>) -> Trail {
        let (followed, waits, lines) = Default::default();
        let log = Log { warn, events, followed, waits, lines };
        Trail { write: Arc::new(write), log: Arc::new(log), home: Mutex::new(None) }
    }

    /// A run begins on this loop.
    pub(crate) fn begin(&self, py: Python<'_>, home: Arc<Bridge>) {
        let inherited = self.home.lock().replace((std::process::id(), home));
        drop(inherited);
        self.log.write(py);
    }

    /// The run ends.
    pub(crate) fn end(&self, py: Python<'_>) {
        let home = self.home.lock().take();
        drop(home);
        self.flush(py);
    }

    /// Writes the lines that wait: those of a publish come while it is called, and where no loop was entered.
    pub(crate) fn flush(&self, py: Python<'_>) {
        if self.log.waits.load(Relaxed) {
            self.log.write(py);
        }
    }

    fn push(&self, work: Arc<dyn OnLoop>) {
        let home = self.home.lock().clone();
        // The loop that a forked child knows of is its parent's.
        if let Some((_, home)) = home.filter(|(process, _)| *process == std::process::id()) {
            home.push(work);
        }
    }

    fn line(&self, line: Line) {
        if self.log.add(line) {
            self.push(self.log.clone());
        }
    }
}

impl Writer for Trail {
    fn write(&self, record: Record) {
        self.push(Arc::new(Entry { record, write: self.write.clone() }));
    }

    fn warn(&self, text: String) {
        self.line(Line::Warning(text));
    }

    /// Levels may change at any time, and only Python knows them: they are asked for when a run begins, after lines, and on the loop
    /// whenever the engine wants to know.
    fn followed(&self) -> Arc<AtomicBool> {
        self.log.followed.clone()
    }

    fn ask(&self) {
        self.push(self.log.clone());
    }

    fn explain(&self, text: String) {
        self.line(Line::Event(text));
    }
}

/// Lines on their way, and whether they are wanted.
struct Log {
    /// Python's `warn(text)`.
    warn: Py<PyAny>,
    /// Python's logger of single events.
    events: Py<PyAny>,
    /// Whether that logger is at `DEBUG`.
    followed: Arc<AtomicBool>,
    /// Whether there are lines.
    waits: AtomicBool,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    queue: VecDeque<Line>,
    /// Left out since the last one.
    left_out: u64,
}

enum Line {
    Warning(String),
    Event(String),
}

impl Log {
    /// Adds a line; returns whether it is the first that waits.
    fn add(&self, line: Line) -> bool {
        let mut lines = self.lines.lock();
        // Whoever warns sees to it that it is not often.
        if lines.queue.len() >= LINES && matches!(line, Line::Event(_)) {
            lines.left_out += 1;
            return false;
        }
        lines.queue.push_back(line);
        self.waits.store(true, Relaxed);
        lines.queue.len() == 1
    }

    fn write(&self, py: Python<'_>) {
        let Lines { queue, left_out } = {
            let mut lines = self.lines.lock();
            self.waits.store(false, Relaxed);
            std::mem::take(&mut *lines)
        };
        let last = (left_out > 0).then(|| Line::Event(format!("{left_out} more events reached nobody")));
        for line in queue.into_iter().chain(last) {
            let written = match &line {
                Line::Warning(text) => self.warn.call1(py, (text,)),
                Line::Event(text) => self.events.call_method1(py, "debug", (text,)),
            };
            if let Err(error) = written {
                error.write_unraisable(py, None);
            }
        }
        let followed =
            self.events.call_method1(py, "isEnabledFor", (DEBUG,)).and_then(|followed| followed.is_truthy(py));
        match followed {
            Ok(followed) => self.followed.store(followed, Relaxed),
            Err(error) => error.write_unraisable(py, None),
        }
    }
}

impl OnLoop for Log {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.write(py);
        Ok(())
    }
}

/// A record on its way.
struct Entry {
    record: Record,
    write: Arc<Py<PyAny>>,
}

impl OnLoop for Entry {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Record { event, reason, user_id, tenant_id, connection_id, suppressed, host } = &self.record;
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let viewer = (text(user_id), text(tenant_id), text(connection_id));
        let write = self.write.bind(py);
        // A record of a connection is written in the connection's context.
        let written = match host.as_ref().and_then(|host| host.downcast_ref::<Py<PyAny>>()) {
            Some(context) => {
                let record = (write, *event, &**reason, viewer.0, viewer.1, viewer.2, *suppressed);
                // In a copy: the connection's loop may run in another thread, and be in it.
                context.bind(py).call_method0("copy")?.call_method1("run", record)
            }
            None => write.call1((*event, &**reason, viewer.0, viewer.1, viewer.2, *suppressed)),
        };
        written.map(drop)
    }
}
