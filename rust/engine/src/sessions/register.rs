//! All who read in one run: sockets and streams of this process, who of them can be revoked, and how all of them end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::connection::Connection;
use super::stream::Stream;
use crate::accounts::{Registry, Revocation, Weights};
use crate::bus::{BusError, Published, Receiver};
use crate::clock::within;
use crate::delivery::Resolver;
use crate::engine::{Engine, Phase};
use crate::event::Event;
use crate::operators::audit;
use crate::parts::Parts;
use crate::tasks::Tasks;
use crate::timers::Timers;

/// The label and the id of a subscribe of this process.
pub(super) type StreamKey = (Option<Arc<str>>, Arc<str>);

/// Those who read in one run of a manager, and its engine.
pub struct Sessions {
    /// What they read from.
    pub engine: Arc<Engine>,
    pub(super) timers: Arc<Timers>,
    pub(super) runtime: tokio::runtime::Handle,
    /// Sockets by the id that we gave them.
    pub(super) connections: DashMap<Arc<str>, Arc<Connection>>,
    /// Connections that are not acknowledged yet, the oldest first.
    pub(super) pending: Mutex<BTreeMap<u64, Weak<Connection>>>,
    /// Subscribes of this process by label and id.
    pub(super) streams: DashMap<StreamKey, Arc<Stream>>,
    /// Who can be revoked.
    pub(super) registry: Arc<Registry>,
    /// Readers that still have something to take.
    pub(super) readers: Arc<Tasks>,
    timer_task: Mutex<Option<tokio::task::AbortHandle>>,
    numbers: AtomicU64,
}

impl Sessions {
    /// Nobody reads yet; [`Sessions::start`] sets the engine going.
    pub fn new(parts: Parts, resolver: Arc<dyn Resolver>, runtime: tokio::runtime::Handle) -> Arc<Sessions> {
        let timers = Timers::new(parts.clock.clone());
        Arc::new(Sessions {
            engine: Engine::new(parts, resolver, timers.clone(), runtime.clone()),
            timers,
            runtime,
            connections: DashMap::new(),
            pending: Mutex::default(),
            streams: DashMap::new(),
            registry: Arc::default(),
            readers: Arc::default(),
            timer_task: Mutex::default(),
            numbers: AtomicU64::new(0),
        })
    }

    /// Connects the bus and starts the timers.
    pub async fn start(self: &Arc<Self>) -> Result<(), BusError> {
        let parts = &self.engine.parts;
        parts.bus.connect(Some(self.clone())).await?;
        let (timers, quotas) = (self.timers.clone(), parts.quotas.clone());
        let relief = relieve(Arc::downgrade(self), quotas.weights.clone());
        let timers = self.runtime.spawn(async move { tokio::join!(timers.run(), quotas.run(), relief) });
        *self.timer_task.lock() = Some(timers.abort_handle());
        self.engine.enter(Phase::Running);
        Ok(())
    }

    /// Tells every reader to finish what is queued.
    fn drain(&self) {
        self.streams().iter().for_each(|stream| stream.drain());
        self.connections().iter().for_each(|connection| connection.drain());
    }

    /// A number that no other reader of this run has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, SeqCst)
    }

    /// Finishes what is under way, tells every reader the end, and stops. With `drain` it takes `drain_timeout` at most, else
    /// it does not wait.
    pub async fn stop(self: &Arc<Self>, drain: bool) {
        self.engine.enter(Phase::Draining);
        let patience = if drain { self.engine.parts.limits.drain_timeout } else { Duration::ZERO };
        let drained = async {
            self.engine.dispatcher.shared.calls.idle().await;
            self.drain();
            self.readers.idle().await;
        };
        // A time-out is no error here: what still waits is dropped and counted below.
        if within(patience, drained).await.is_none() {
            self.drain();
        }
        self.engine.enter(Phase::Stopped);
        for stream in self.streams() {
            stream.stop();
        }
        for connection in self.connections() {
            connection.stop();
        }
        self.engine.parts.bus.disconnect().await;
        let timers = self.timer_task.lock().take();
        if let Some(timers) = timers {
            timers.abort();
        }
    }

    /// Ends everybody whom a revocation names, in this process, and tells the others. Returns how many it ended; when the future is
    /// done, nothing of an event is handed to a transport for them any more.
    pub fn revoke(
        &self,
        revocation: Revocation,
    ) -> (usize, impl Future<Output = Result<(), BusError>> + Send + 'static) {
        let revocation = Arc::new(revocation);
        let (ended, handing) = self.revoke_here(&revocation);
        let published = self.engine.parts.bus.revoke(&revocation);
        let done = async move {
            for handing in handing {
                handing.idle().await;
            }
            match published {
                Published::Now => Ok(()),
                Published::Later(published) => published.await,
            }
        };
        (ended, done)
    }

    /// How many it ended, and what they may still be handing over.
    fn revoke_here(&self, revocation: &Arc<Revocation>) -> (usize, Vec<Arc<Tasks>>) {
        self.engine.parts.revocations.note(revocation.clone());
        let found = self.registry.find(revocation);
        // What is ending already may still be handing something over.
        let named: Vec<_> = found.iter().filter_map(|one| Some((one.revoke(revocation)?, one))).collect();
        let ended = named.iter().filter(|(ended, _)| *ended).count();
        let Revocation { user_id, tenant_id, connection_id } = &**revocation;
        let reason = format!("{ended} connections and subscribes of this process ended");
        let names = (user_id.clone(), tenant_id.clone(), connection_id.clone());
        self.engine.parts.audit.write(audit::Kind::Revoked, names.0, names.1, names.2, None, reason.into());
        (ended, named.iter().filter_map(|(_, one)| one.handing()).collect())
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.iter().map(|entry| entry.value().clone()).collect()
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Lets go of the fullest connection, or stream, of the account that holds most; returns whether there was one.
    fn shed(&self) -> bool {
        let most = |holds: (usize, usize)| (holds.1 > 0).then_some(holds);
        let connections = self.connections().into_iter().map(|one| (most(one.holds()), one));
        let streams = self.streams().into_iter().map(|one| (most(one.holds()), one));
        let fullest = (connections.max_by_key(|(holds, _)| *holds), streams.max_by_key(|(holds, _)| *holds));
        match fullest {
            (Some((held, one)), other) if held.is_some() && Some(held) >= other.as_ref().map(|(held, _)| *held) => {
                one.shed();
            }
            (_, Some((Some(_), one))) => one.shed(),
            _ => return false,
        }
        true
    }

    /// Ends a subscription from the server's side; returns whether it existed.
    pub fn complete(&self, id: &str, connection_id: Option<&str>) -> bool {
        if let Some(connection) =
            connection_id.and_then(|id| self.connections.get(id).map(|found| found.value().clone()))
        {
            return connection.complete(id);
        }
        let key = (connection_id.map(Arc::from), Arc::from(id));
        let stream = self.streams.get(&key).map(|found| found.value().clone());
        stream.is_some_and(|stream| stream.complete())
    }
}

/// While the process holds more than it may, the account that holds most loses its fullest connection.
async fn relieve(sessions: Weak<Sessions>, weights: Arc<Weights>) {
    loop {
        weights.overfull().await;
        let Some(sessions) = sessions.upgrade() else { return };
        while weights.is_over() && sessions.shed() {}
    }
}

impl Receiver for Sessions {
    fn receive(&self, event: Arc<Event>) {
        self.engine.receive(&event);
    }

    fn revoke(&self, revocation: &Arc<Revocation>) {
        self.revoke_here(revocation);
    }

    fn skip(&self, channel: &str, reason: &str) {
        self.engine.skip(channel, reason);
    }

    fn warn(&self, text: String) {
        self.engine.parts.audit.warn(text);
    }

    fn gap(&self, channel: &str) {
        self.engine.gap(channel);
    }
}
