//! The tokio runtime of this process: started at the first use, and anew in a forked child.

use std::future::Future;
use std::pin::Pin;

use parking_lot::Mutex;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic;
use tokio::task::{JoinError, JoinHandle};

/// The process and its runtime. A child inherits the parent's, whose threads it does not have: it is left alone, and
/// the child gets its own.
static CURRENT: Mutex<Option<(u32, &'static tokio::runtime::Runtime)>> = Mutex::new(None);

/// The runtime of this process.
pub(crate) fn runtime() -> std::io::Result<&'static tokio::runtime::Runtime> {
    let mut current = CURRENT.lock();
    match *current {
        Some((process, runtime)) if process == std::process::id() => Ok(runtime),
        _ => {
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
        Handle(runtime().ok().map(|runtime| runtime.spawn_blocking(function)))
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
