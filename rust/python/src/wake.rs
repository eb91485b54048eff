//! Bringing work from any thread onto an event loop: one wake-up for a burst, whatever it holds.
//!
//! A thread that has work for a loop queues it and wakes the loop, unless a wake-up is on its way already. Two ways do that (`way`): a
//! descriptor that the loop watches, which needs neither the interpreter nor a lock of the loop's, and `call_soon_threadsafe`, for loops
//! that watch none. Work that a publish on the loop's own thread makes needs neither: the loop is told by `call_soon` when the publish
//! is done.
//!
//! A loop that is closed lets go of what it was to call, and so we hear of its end without asking. One that merely stands still may run
//! again, and will do what is queued.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;

use self::way::Way;

#[cfg(unix)]
mod descriptor;
mod way;

/// Something to be done on a loop.
pub(crate) trait OnLoop: Send + Sync {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()>;
}

/// What is done when a loop ends that was not given back.
type AtTheEnd = Box<dyn FnOnce() + Send>;

/// The way onto one event loop.
pub(crate) struct Bridge {
    way: OnceLock<Box<dyn Way>>,
    /// `None` once it is closed: work keeps its way alive, so nothing may stay here that no loop will do.
    queue: Mutex<Option<VecDeque<Arc<dyn OnLoop>>>>,
    /// What can wait: a little of it is done in each turn, after everything else.
    late: Mutex<VecDeque<Arc<dyn OnLoop>>>,
    at_the_end: Mutex<Option<AtTheEnd>>,
    signalled: AtomicBool,
    /// Events that were published since the loop had its turn.
    unattended: AtomicUsize,
    /// How often the loop did what was queued.
    turns: AtomicU64,
    /// The loop's own thread is publishing, or does what is queued, and will look itself whether there is more.
    attending: AtomicBool,
    thread: ThreadId,
    event_loop: Py<PyAny>,
}

/// What is queued while the queue is worked on, such as the messages that calls make, is done in the same turn of the loop, so many times.
const PASSES: usize = 2;

/// So much of what can wait is done in one turn of the loop.
const LATE_WORK: usize = 4;

/// After this many events the publisher lets the loop run: readers on it could not keep up otherwise.
const BEFORE_YIELDING: usize = 64;
/// And a publisher of another thread waits no longer than this for the loop to do so.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

impl Bridge {
    /// The way onto the running loop, which must be this thread's.
    pub(crate) fn open(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Bridge>> {
        let bridge = Arc::new(Bridge {
            way: OnceLock::new(),
            queue: Mutex::new(Some(VecDeque::new())),
            late: Mutex::default(),
            at_the_end: Mutex::default(),
            signalled: AtomicBool::new(false),
            unattended: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            attending: AtomicBool::new(false),
            thread: std::thread::current().id(),
            event_loop: event_loop.clone().unbind(),
        });
        let _ = bridge.way.set(way::open(event_loop, &bridge)?);
        Ok(bridge)
    }

    /// What is to be done when the loop is closed before it is given back.
    pub(crate) fn at_the_end(&self, then: impl FnOnce() + Send + 'static) {
        *self.at_the_end.lock() = Some(Box::new(then));
    }

    /// Gives the loop back, from any thread: it does what is queued, in its next turn, and stops watching.
    pub(crate) fn close(self: &Arc<Self>, py: Python<'_>) {
        let unused = self.at_the_end.lock().take();
        drop(unused);
        // A loop that was closed, now or before its next turn, drops this instead of calling it.
        let closing = Closing(self.clone());
        let _ = self.event_loop(py).call_method1("call_soon_threadsafe", (closing,));
    }

    /// What is queued is forgotten, and whatever comes is: the loop is closed, or given back.
    pub(crate) fn forget(&self) {
        let queue = self.queue.lock().take();
        drop(queue);
        let late = std::mem::take(&mut *self.late.lock());
        drop(late);
        let then = self.at_the_end.lock().take();
        if let Some(then) = then {
            then();
        }
    }

    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// Whether the loop was closed.
    pub(crate) fn is_closed(&self, py: Python<'_>) -> bool {
        // An event loop that cannot say so is none any more.
        self.event_loop(py).call_method0("is_closed").and_then(|closed| closed.is_truthy()).unwrap_or(true)
    }

    /// Queues work, and wakes the loop unless it is on its way already; `false`: it is closed, and nothing will be done.
    pub(crate) fn push(&self, work: Arc<dyn OnLoop>) -> bool {
        match &mut *self.queue.lock() {
            Some(queue) => queue.push_back(work),
            None => return false,
        }
        let was_signalled = self.signalled.swap(true, SeqCst);
        if !(was_signalled || self.attending.load(SeqCst) && self.is_mine()) {
            self.way.get().inspect(|way| way.wake());
        }
        true
    }

    /// Queues work that can wait, from the loop's own thread: thousands of ends at once must not keep those waiting who go on.
    pub(crate) fn push_late(self: &Arc<Self>, py: Python<'_>, work: Arc<dyn OnLoop>) -> PyResult<()> {
        let is_first = {
            let mut late = self.late.lock();
            late.push_back(work);
            late.len() == 1
        };
        if is_first { self.soon(py) } else { Ok(()) }
    }

    /// Lets the loop come back to what waits.
    fn soon(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.event_loop(py).call_method1("call_soon", (Late(self.clone()),)).map(drop)
    }

    /// Does some of what can wait.
    fn drain_late(self: &Arc<Self>, py: Python<'_>, most: usize) -> PyResult<()> {
        for _ in 0..most {
            let Some(work) = self.late.lock().front().cloned() else {
                return Ok(());
            };
            if let Err(error) = work.run(py) {
                error.write_unraisable(py, None);
            }
            // Taken out last: until then nobody else asks the loop to come back.
            let done = self.late.lock().pop_front();
            drop(done);
        }
        if self.late.lock().is_empty() { Ok(()) } else { self.soon(py) }
    }

    /// Publishes. Where that makes work on this very thread's loop, the loop is told without a socket.
    pub(crate) fn publishing<T>(self: &Arc<Self>, py: Python<'_>, publish: impl FnOnce() -> T) -> PyResult<T> {
        if !self.is_mine() || self.signalled.load(SeqCst) {
            return Ok(publish());
        }
        let published = {
            let _publishing = Attending::begin(&self.attending);
            publish()
        };
        if self.signalled.load(SeqCst) {
            self.event_loop.bind(py).call_method1("call_soon", (Drain(self.clone()),))?;
        }
        Ok(published)
    }

    /// Whether a publisher should give the loop its turn before it goes on.
    pub(crate) fn is_unattended(&self) -> bool {
        self.unattended.load(SeqCst) >= BEFORE_YIELDING
    }

    /// Counts events that were published.
    pub(crate) fn published(&self, events: usize) {
        self.unattended.fetch_add(events, SeqCst);
    }

    /// The loop had its turn.
    pub(crate) fn attended(&self) {
        self.unattended.store(0, SeqCst);
    }

    /// How often the loop did what was queued. A wake-up that is on its way counts each time that this is asked.
    pub(crate) fn turns(&self) -> u64 {
        match self.signalled.load(SeqCst) {
            true => self.turns.fetch_add(1, SeqCst) + 1,
            false => self.turns.load(SeqCst),
        }
    }

    /// Gives a loop of another thread its turn; one that does not take it is not waited for.
    pub(crate) fn wait_for_turn(&self, py: Python<'_>) {
        let (turn, taken) = flume::bounded(1);
        self.push(Arc::new(Turn(turn)));
        let _ = py.detach(|| taken.recv_timeout(LONGEST_WAIT));
        self.attended();
    }

    pub(crate) fn is_mine(&self) -> bool {
        self.thread == std::thread::current().id()
    }

    fn drain(&self, py: Python<'_>) {
        self.way.get().inspect(|way| way.woken());
        self.turns.fetch_add(1, SeqCst);
        for _ in 0..PASSES {
            self.signalled.store(false, SeqCst);
            let _looks_again = Attending::begin(&self.attending);
            let queue = self.queue.lock().as_mut().map(std::mem::take);
            for work in queue.into_iter().flatten() {
                if let Err(error) = work.run(py) {
                    error.write_unraisable(py, None);
                }
            }
            if !self.signalled.load(SeqCst) {
                return;
            }
        }
        // Whatever else the loop has to do comes first.
        self.way.get().inspect(|way| way.wake());
    }
}

/// Holds a flag up, and takes it down however the work under it ends.
struct Attending<'a>(&'a AtomicBool);

impl<'a> Attending<'a> {
    fn begin(flag: &'a AtomicBool) -> Attending<'a> {
        flag.store(true, SeqCst);
        Attending(flag)
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// Says that the loop has come to it.
struct Turn(flume::Sender<()>);

impl OnLoop for Turn {
    fn run(self: Arc<Self>, _py: Python<'_>) -> PyResult<()> {
        // Who waited may have gone on.
        let _ = self.0.try_send(());
        Ok(())
    }
}

/// What the loop calls when its descriptor was written to. It keeps this until it stops watching, or is closed.
#[pyclass(frozen)]
struct Watch {
    bridge: Arc<Bridge>,
    /// A forked child has a copy of it, and no part in what it stands for.
    process: u32,
}

impl Watch {
    fn new(bridge: Arc<Bridge>) -> Watch {
        Watch { bridge, process: std::process::id() }
    }
}

#[pymethods]
impl Watch {
    fn __call__(&self, py: Python<'_>) {
        self.bridge.drain(py);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.bridge.forget();
        }
    }
}

/// What the loop calls when it was told without a descriptor.
#[pyclass(frozen)]
struct Drain(Arc<Bridge>);

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) {
        self.0.drain(py);
    }
}

/// What the loop calls to do what can wait.
#[pyclass(frozen)]
struct Late(Arc<Bridge>);

#[pymethods]
impl Late {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.0.drain_late(py, LATE_WORK)
    }
}

/// What the loop calls to stop watching.
#[pyclass(frozen)]
struct Closing(Arc<Bridge>);

#[pymethods]
impl Closing {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Closing(bridge) = self;
        // What was queued before would be forgotten with the watch, and whoever waits for it would never be woken.
        bridge.drain(py);
        bridge.drain_late(py, usize::MAX)?;
        bridge.way.get().map_or(Ok(()), |way| way.leave(bridge.event_loop(py)))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.forget();
    }
}
