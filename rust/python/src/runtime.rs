//! The tokio runtime of this process: started at the first use, and anew in a forked child.
//!
//! Its threads enter the interpreter only to resolve a future of a loop. One that is inside while the interpreter ends would crash
//! the process, so the end waits for those that are inside and lets no other in. The threads of sync functions are daemons, which
//! the end cuts off wherever they are: in native code they count as well.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic;
use tokio::task::{JoinError, JoinHandle};

/// The process and its runtime. A child inherits the parent's, whose threads it does not have: it is left alone, and
/// the child gets its own.
static CURRENT: Mutex<Option<(u32, &'static tokio::runtime::Runtime)>> = Mutex::new(None);

/// The threads that are in native code and in the interpreter, and are not joined at its end.
static INSIDE: Mutex<Inside> = Mutex::new(Inside { threads: 0, closed: false });
static LEFT: Condvar = Condvar::new();

/// The interpreter's end waits no longer for them: one may be in a property of a result that never returns.
const LONGEST_END: Duration = Duration::from_millis(500);

struct Inside {
    threads: usize,
    closed: bool,
}

impl Inside {
    fn enter() -> Option<Guard> {
        let mut inside = INSIDE.lock();
        inside.threads += usize::from(!inside.closed);
        // One that is made in vain would take the lock again where it is dropped.
        (!inside.closed).then(|| Guard)
    }
}

/// A thread that is inside.
pub(crate) struct Guard;

/// Keeps the interpreter's end waiting while a thread that may be a daemon is in native code.
pub(crate) fn inside() -> PyResult<Guard> {
    Inside::enter().ok_or_else(|| PyRuntimeError::new_err("the interpreter is ending"))
}

impl Drop for Guard {
    fn drop(&mut self) {
        INSIDE.lock().threads -= 1;
        LEFT.notify_all();
    }
}

/// Has the interpreter wait for those inside at its end, after what was registered later.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let close = wrap_pyfunction!(close, module)?;
    module.py().import("atexit")?.call_method1("register", (close,))?;
    Ok(())
}

#[pyfunction]
fn close(py: Python<'_>) {
    let is_own = CURRENT.lock().is_some_and(|(process, _)| process == std::process::id());
    if is_own {
        py.detach(|| {
            let mut inside = INSIDE.lock();
            inside.closed = true;
            // Whoever is still inside then is left behind.
            let _ = LEFT.wait_while_for(&mut inside, |inside| inside.threads > 0, LONGEST_END);
        });
    }
}

/// The runtime of this process.
pub(crate) fn runtime() -> std::io::Result<&'static tokio::runtime::Runtime> {
    let mut current = CURRENT.lock();
    match *current {
        Some((process, runtime)) if process == std::process::id() => {
            if INSIDE.lock().closed {
                return Err(std::io::Error::other("the interpreter is ending"));
            }
            Ok(runtime)
        }
        _ => {
            // The threads that a parent counted are not in this process.
            *INSIDE.lock() = Inside { threads: 0, closed: false };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("fraiseql-subs")
                .enable_all()
                .build()?;
            let runtime = Box::leak(Box::new(runtime));
            *current = Some((std::process::id(), runtime));
            Ok(runtime)
        }
    }
}

/// What pyo3-async-runtimes spawns on.
pub(crate) struct Tokio;

pub(crate) struct SpawnError(JoinError);

impl generic::JoinError for SpawnError {
    fn is_panic(&self) -> bool {
        self.0.is_panic()
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        self.0.into_panic()
    }
}

pub(crate) struct Handle(Option<JoinHandle<()>>);

impl Future for Handle {
    type Output = Result<(), SpawnError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        match &mut self.0 {
            Some(handle) => Pin::new(handle).poll(context).map_err(SpawnError),
            // Without a runtime nothing was spawned; its future was dropped, which its caller sees as cancelled.
            None => std::task::Poll::Ready(Ok(())),
        }
    }
}

impl generic::Runtime for Tokio {
    type JoinError = SpawnError;
    type JoinHandle = Handle;

    fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> Handle {
        Handle(runtime().ok().map(|runtime| runtime.spawn(future)))
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(function: F) -> Handle {
        let guarded = move || match Inside::enter() {
            Some(_inside) => function(),
            // What it holds of the interpreter must not be touched any more.
            None => std::mem::forget(function),
        };
        Handle(runtime().ok().map(|runtime| runtime.spawn_blocking(guarded)))
    }
}

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl generic::ContextExt for Tokio {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(TaskLocals::clone).ok()
    }
}
