//! One run of a manager: its sessions, and the ways onto the event loops that readers run on.

use std::collections::HashMap;
use std::sync::Arc;

use fraiseql_subs_engine::sessions::Sessions;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::errors;
use crate::wake::Bridge;

/// One run, from the first entry to the last exit.
pub(crate) struct Run {
    pub(crate) sessions: Arc<Sessions>,
    /// The process that it runs in; a forked child has none of its threads.
    process: u32,
    pub(crate) home: Arc<Bridge>,
    /// The ways onto the loops that readers run on, by the address of the loop, which they keep.
    bridges: Mutex<HashMap<usize, Arc<Bridge>>>,
    /// The task that ends it.
    stopping: Mutex<Option<tokio::task::AbortHandle>>,
}

/// The runs of a manager, of which there is one at a time.
#[derive(Default)]
pub(crate) struct Runs(Mutex<Option<Arc<Run>>>);

impl Runs {
    /// A run begins.
    pub(crate) fn begin(&self, run: Run) {
        let inherited = self.0.lock().replace(Arc::new(run));
        // A forked child has no part in its parent's run, and must not end it: their descriptors are the same.
        std::mem::forget(inherited);
    }

    /// Gives the loops back, after the run has stopped.
    pub(crate) fn end(&self, py: Python<'_>) {
        let run = self.0.lock().take();
        let Some(run) = run else { return };
        if run.process != std::process::id() {
            // The loops' descriptors are the parent's too: to stop watching here would be to stop watching there.
            std::mem::forget(run);
            return;
        }
        let bridges: Vec<_> = run.bridges.lock().drain().map(|(_, bridge)| bridge).collect();
        for bridge in bridges.iter().chain([&run.home]) {
            bridge.close(py);
        }
    }

    /// The present run; a forked child has no part in its parent's.
    pub(crate) fn of_this_process(&self) -> Option<Arc<Run>> {
        self.0.lock().clone().filter(|run| run.process == std::process::id())
    }

    /// The present run, or why there is none.
    pub(crate) fn running(&self, py: Python<'_>) -> PyResult<Arc<Run>> {
        let run = self.0.lock().clone().ok_or_else(|| errors::not_running(py))?;
        if run.process != std::process::id() {
            let text = "the SubscriptionManager was entered before this process was forked: enter it in the child";
            return Err(errors::raise(py, "NotRunning", (text,)));
        }
        Ok(run)
    }
}

impl Run {
    pub(crate) fn new(sessions: Arc<Sessions>, home: Arc<Bridge>) -> Run {
        let process = std::process::id();
        Run { sessions, process, home, bridges: Mutex::default(), stopping: Mutex::default() }
    }

    /// This task ends it from now on, in place of one that was to before.
    pub(crate) fn stops(&self, task: tokio::task::AbortHandle) {
        let earlier = self.stopping.lock().replace(task);
        if let Some(earlier) = earlier {
            earlier.abort();
        }
    }

    /// Gives the loop its turn where it is due; `false`: this is its own thread, whose caller has to.
    pub(crate) fn give_turn(&self, py: Python<'_>) -> bool {
        if self.home.is_unattended() {
            if self.home.is_mine() {
                return false;
            }
            self.home.wait_for_turn(py);
        }
        true
    }

    /// The way onto the running loop of this thread.
    pub(crate) fn bridge(&self, py: Python<'_>) -> PyResult<Arc<Bridge>> {
        let running = py.import("asyncio")?.call_method0("get_running_loop")?;
        if running.is(self.home.event_loop(py)) {
            return Ok(self.home.clone());
        }
        let key = running.as_ptr() as usize;
        let known = self.bridges.lock().get(&key).cloned();
        if let Some(bridge) = known {
            return Ok(bridge);
        }
        let others: Vec<_> = self.bridges.lock().iter().map(|(key, bridge)| (*key, bridge.clone())).collect();
        for (key, closed) in others.iter().filter(|(_, bridge)| bridge.is_closed(py)) {
            self.bridges.lock().remove(key);
            closed.close(py);
        }
        let bridge = Bridge::open(&running)?;
        self.bridges.lock().insert(key, bridge.clone());
        Ok(bridge)
    }
}
