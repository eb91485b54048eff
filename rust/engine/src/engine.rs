//! Where the stages meet: an event comes from the bus, the topics of its channel find who hears of it ([`crate::delivery::topics`]), functions
//! are called once, results go to mailboxes. Read [`Engine::publish`], [`Receiver::receive`] and [`Engine::subscribe`] in this order.
//!
//! # Locks
//!
//! They are taken in this order, and none is held across an `.await` or a call into user code: a channel, a place, a
//! resolve class, a group, a mailbox, an outbox.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::Utc;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::accounts::quota::{EventRate, Quotas, Reached, Seat};
use crate::accounts::revocation::{Registry, Revocation, Revocations};
use crate::admission::{Admitted, Gate};
use crate::bus::{BusError, EventBus, Published, Receiver, Watched};
pub use crate::delivery::catch_up::Settled;
use crate::delivery::catch_up::{self, Arriving};
use crate::delivery::mailbox::{Mailbox, Outbox};
use crate::delivery::past::Shelf;
use crate::delivery::resolver::{Generation, Resolver, Shared, Watcher};
use crate::delivery::subscription::{Subscription, Ticket};
use crate::delivery::topics::Channels;
use crate::error::Module;
use crate::error::{Rejection, code};
use crate::event::{Event, Position};
use crate::graphql::operation::{Operation, Request};
use crate::graphql::schema::{Kind, Schema};
use crate::limits::Limits;
use crate::operators::audit::{self, Audit};
use crate::operators::metrics::{Ended, Metrics};
use crate::security::tenant;
use crate::sessions::connection::Connection;
use crate::sessions::protocol::Resume;
use crate::sessions::stream::Stream;
use crate::tasks::Tasks;
use crate::timers::Timers;
use crate::viewer::Viewer;

/// What an engine is made of; all of it outlives one run of the manager.
#[derive(Clone)]
pub struct Parts {
    /// Who may what.
    pub gate: Arc<Gate>,
    /// Where events come from.
    pub bus: Arc<dyn EventBus>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// The limits.
    pub limits: Limits,
    /// What is counted by account.
    pub quotas: Arc<Quotas>,
    /// What those who are being authorised must be asked about.
    pub revocations: Arc<Revocations>,
    /// The audit trail.
    pub audit: Arc<Audit>,
}

impl Parts {
    /// The parts of a manager that has not run yet.
    pub fn new(
        schema: Arc<Schema>,
        bus: Arc<dyn EventBus>,
        limits: Limits,
        multi_tenant: bool,
        audit: Arc<dyn audit::Writer>,
    ) -> Parts {
        Parts {
            gate: Arc::new(Gate::new(schema, &limits, multi_tenant)),
            bus,
            metrics: Arc::default(),
            quotas: Arc::new(Quotas::new(&limits)),
            limits,
            revocations: Arc::default(),
            audit: Arc::new(Audit::new(audit)),
        }
    }

    /// Publishes all of these events or none on one of the buses of this manager.
    pub fn publish(&self, bus: &Arc<dyn EventBus>, events: Vec<Event>) -> Result<Published, PublishError> {
        for event in &events {
            self.check(event)?;
            if !tenant::decide_event(self.gate.multi_tenant, &event.audience).is_allowed() {
                let reason = "multi_tenant=True: an event needs a tenant_id, or ALL_TENANTS";
                return Err(PublishError::Invalid(reason.to_owned()));
            }
        }
        let (count, metrics) = (events.len() as u64, self.metrics.clone());
        Ok(match bus.publish(events) {
            Published::Now => {
                metrics.events_published.inc_by(count);
                Published::Now
            }
            Published::Later(accepted) => Published::Later(Box::pin(async move {
                accepted.await?;
                metrics.events_published.inc_by(count);
                Ok(())
            })),
        })
    }

    /// Whether an event may be published, whosever it is.
    pub fn check(&self, event: &Event) -> Result<(), PublishError> {
        let most = self.limits.max_event_bytes;
        let previous = event.previous.as_ref().map_or(0, |previous| previous.to_json().len());
        let problem = if event.channel.is_empty() {
            "channel must not be empty".to_owned()
        } else if event.channel.contains(char::is_control) {
            "channel must not hold control characters".to_owned()
        } else if event.event_type.is_empty() {
            "event_type must not be empty".to_owned()
        } else if event.size > most || previous > most {
            let (name, size) = if event.size > most { ("data", event.size) } else { ("previous", previous) };
            format!("{name} has {size} bytes as JSON; max_event_bytes is {most}")
        } else {
            return Ok(());
        };
        Err(PublishError::Invalid(problem))
    }
}

/// The label and the id of a subscribe of this process.
pub(crate) type StreamKey = (Option<Arc<str>>, Arc<str>);

/// One run of a manager.
pub struct Engine {
    /// What it is made of.
    pub parts: Parts,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) channels: Channels,
    /// Sockets by the id that we gave them.
    pub(crate) connections: DashMap<Arc<str>, Arc<Connection>>,
    /// Connections that are not acknowledged yet, the oldest first.
    pub(crate) pending: Mutex<BTreeMap<u64, Weak<Connection>>>,
    /// Subscribes of this process by label and id.
    pub(crate) streams: DashMap<StreamKey, Arc<Stream>>,
    /// What is read of the past, for all channels.
    pub(crate) shelf: Arc<Shelf>,
    /// Who can be revoked.
    pub(crate) registry: Arc<Registry>,
    /// Readers that still have something to take.
    pub(crate) readers: Arc<Tasks>,
    /// Channels that the operator has been warned of, and of what.
    told: Mutex<FxHashSet<(Oddity, Box<str>)>>,
    timer_task: Mutex<Option<tokio::task::AbortHandle>>,
    phase: Mutex<Phase>,
    numbers: AtomicU64,
}

/// Where in its life an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The bus is being connected.
    Starting,
    /// Everything is accepted.
    Running,
    /// What is under way is finished; nothing new is accepted.
    Draining,
    /// Over.
    Stopped,
}

/// Why an event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The event itself is at fault.
    #[error("{0}")]
    Invalid(String),
    /// The engine does not run.
    #[error("the manager is stopping")]
    Stopped,
    /// The bus did not accept it.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A request for a subscription.
pub struct Start<'a> {
    /// The document and what belongs to it.
    pub request: Request<'a>,
    /// Who asks.
    pub viewer: &'a Arc<Viewer>,
    /// What limits count for.
    pub seat: &'a Arc<Seat>,
    /// The operation's id as the client sent it.
    pub id: &'a Arc<str>,
    /// What it wants to know of history.
    pub resume: &'a Resume,
    /// Where its messages go.
    pub outbox: &'a Arc<Outbox>,
    /// The connection's id or label.
    pub connection_id: Option<&'a Arc<str>>,
}

/// What became of it.
pub enum Started {
    /// It is live.
    Live(Arc<Subscription>),
    /// It waits for the bus.
    Soon(Arc<Subscription>, Settled),
    /// It was a query about the schema: this is its ExecutionResult.
    Answer(String),
}

impl Engine {
    /// Makes an engine; [`Engine::start`] sets it going.
    pub fn new(parts: Parts, resolver: Arc<dyn Resolver>, runtime: tokio::runtime::Handle) -> Arc<Engine> {
        let shared = Arc::new(Shared {
            resolver,
            limits: parts.limits.clone(),
            limits_events: parts.limits.limit_events() || parts.gate.documents.limit_events(),
            metrics: parts.metrics.clone(),
            calls: Arc::default(),
            abandon_keys: AtomicU64::default(),
        });
        let (channels, shelf) = (Channels::new(parts.bus.clone()), Shelf::new(parts.bus.clone()));
        Arc::new(Engine {
            parts,
            shared,
            timers: Arc::default(),
            runtime,
            channels,
            connections: DashMap::new(),
            pending: Mutex::default(),
            streams: DashMap::new(),
            shelf,
            registry: Arc::default(),
            told: Mutex::default(),
            readers: Arc::default(),
            timer_task: Mutex::default(),
            phase: Mutex::new(Phase::Starting),
            numbers: AtomicU64::new(0),
        })
    }

    /// Connects the bus and starts the timers.
    pub async fn start(self: &Arc<Self>) -> Result<(), BusError> {
        self.parts.bus.connect(Some(self.clone())).await?;
        let (timers, quotas) = (self.timers.clone(), self.parts.quotas.clone());
        let timers = self.runtime.spawn(async move { tokio::join!(timers.run(), quotas.run()) });
        *self.timer_task.lock() = Some(timers.abort_handle());
        *self.phase.lock() = Phase::Running;
        Ok(())
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// A number that no other connection of this engine has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, SeqCst)
    }

    /// The bus's end, for `connection_ack`.
    pub(crate) fn position(&self) -> Option<Position> {
        self.parts.bus.position()
    }

    // ---- the way of an event ----

    /// Publishes all of these events or none.
    pub fn publish(&self, events: Vec<Event>) -> Result<Published, PublishError> {
        if self.phase() == Phase::Stopped {
            return Err(PublishError::Stopped);
        }
        self.parts.publish(&self.parts.bus, events)
    }

    // ---- those who listen ----

    /// Admits a request and makes it live, or answers a query about the schema.
    pub fn subscribe(self: &Arc<Self>, start: &Start<'_>) -> Result<Started, Rejection> {
        let started = self.start_subscription(start);
        if let Err(rejection) = &started {
            self.note(start, rejection);
        }
        started
    }

    /// Counts and notes that somebody was refused; whoever only asked wrongly is not.
    fn note(&self, start: &Start<'_>, rejection: &Rejection) {
        let reason = match rejection {
            Rejection::Forbidden(refusal) => {
                if let Some(module) = refusal.module {
                    self.parts.metrics.violation(module);
                }
                refusal.reason.clone()
            }
            Rejection::Limited(_, reason) => Cow::Borrowed(*reason),
            _ => return,
        };
        self.parts.audit.note(audit::Kind::SubscribeRefused, Some(start.viewer), start.connection_id, reason);
    }

    fn start_subscription(self: &Arc<Self>, start: &Start<'_>) -> Result<Started, Rejection> {
        if self.phase() != Phase::Running {
            return Err(Rejection::Stopped);
        }
        // Asked before anything is parsed.
        let Parts { quotas, limits, metrics, gate, .. } = &self.parts;
        let rated = quotas.subscribes.as_ref().zip(start.seat.accounts.user.as_ref());
        if !rated.is_none_or(|(rates, account)| rates.take(account)) {
            return Err(Rejection::Limited(code::RATE_LIMITED, "subscribes_per_second is reached"));
        }
        let shares = start.seat.take().map_err(|reached| {
            let limit = match reached {
                Reached::User => "max_subscriptions_per_user is reached",
                Reached::Tenant => "max_subscriptions_per_tenant is reached",
            };
            Rejection::Limited(code::LIMIT_EXCEEDED, limit)
        })?;
        let admission = match gate.admit(&start.request, start.viewer, Utc::now())? {
            Admitted::Answer(json) => return Ok(Started::Answer(json)),
            Admitted::Subscription(admission) => admission,
        };
        let from = self.resume_from(start.resume)?;
        let declaration = &admission.operation.field.declaration;
        let is_generator = declaration.kind == Kind::Generator;
        let overflow = declaration.overflow.unwrap_or(limits.overflow);
        let event_ids = *start.resume != Resume::No && !is_generator;
        let own_rate = declaration.events_per_second.or(limits.events_per_second_per_subscription);
        // A generator makes its own events.
        let rate = if is_generator { None } else { EventRate::new(own_rate, quotas, &start.seat.accounts) };
        let (outbox, counted) = (start.outbox.clone(), metrics.subscription());
        let subscription = Arc::new(Subscription {
            mailbox: Mailbox::new(start.id.clone(), event_ids, overflow, rate, outbox, metrics.clone()),
            engine: self.clone(),
            place: Mutex::default(),
            held: Mutex::new(Some((counted, shares))),
        });
        if is_generator {
            self.generate(&subscription, admission.operation, start);
            return Ok(Started::Live(subscription));
        }
        if admission.condition.is_never() && from.is_none() {
            return Ok(Started::Live(subscription));
        }
        let (channel, watched) = self.channels.hold(&admission.operation.channel);
        let ticket = Ticket { admission, channel, engine: self.clone() };
        if let (Watched::Now(since), None) = (&watched, from) {
            subscription.join(&ticket, *since, None);
            return Ok(Started::Live(subscription));
        }
        match catch_up::start(Arriving { subscription: subscription.clone(), ticket, watched, from }) {
            Ok(None) => Ok(Started::Live(subscription)),
            Ok(Some(settled)) => Ok(Started::Soon(subscription, settled)),
            Err(rejection) => {
                subscription.close(Ended::Error);
                Err(rejection)
            }
        }
    }

    /// The position that a resume begins after. A token of another epoch costs no question to the bus.
    fn resume_from(&self, resume: &Resume) -> Result<Option<Position>, Rejection> {
        if *resume == Resume::No {
            return Ok(None);
        }
        let end = self.position().ok_or(Rejection::ResumeUnavailable)?;
        let Resume::After(token) = resume else { return Ok(None) };
        match Position::parse(token) {
            Some(position) if position.epoch == end.epoch => Ok(Some(position)),
            _ => Err(Rejection::HistoryLost),
        }
    }

    fn generate(&self, subscription: &Arc<Subscription>, operation: Operation, start: &Start<'_>) {
        let generation = Arc::new(Generation {
            field: operation.field,
            arguments: operation.arguments,
            watcher: Watcher { viewer: start.viewer.clone(), plan: operation.plan },
            operation_name: operation.name,
            variables: operation.variables,
            connection_id: start.connection_id.cloned(),
            mailbox: subscription.mailbox.clone(),
            abandon_key: self.shared.abandon_key(),
            shared: self.shared.clone(),
        });
        subscription.set_generating(generation.clone());
        self.shared.resolver.generate(generation);
    }

    // ---- the end ----

    /// Finishes what is under way, tells every reader the end, and stops. With `drain` it takes `drain_timeout` at most, else
    /// it does not wait.
    pub async fn stop(self: &Arc<Self>, drain: bool) {
        *self.phase.lock() = Phase::Draining;
        let patience = if drain { self.parts.limits.drain_timeout } else { Duration::ZERO };
        let deadline = tokio::time::Instant::now() + patience;
        // A time-out is no error here: what still waits is dropped and counted below.
        let _ = tokio::time::timeout_at(deadline, self.shared.calls.idle()).await;
        for stream in self.streams() {
            stream.drain();
        }
        for connection in self.connections() {
            connection.drain();
        }
        let _ = tokio::time::timeout_at(deadline, self.readers.idle()).await;
        *self.phase.lock() = Phase::Stopped;
        for stream in self.streams() {
            stream.stop();
        }
        for connection in self.connections() {
            connection.stop();
        }
        self.parts.bus.disconnect().await;
        let timers = self.timer_task.lock().take();
        if let Some(timers) = timers {
            timers.abort();
        }
    }

    // ---- revoking ----

    /// Ends everybody whom a revocation names, in this process, and tells the others. Returns how many it ended; when the future is
    /// done, nothing of an event is handed to a transport for them any more.
    pub fn revoke(
        &self,
        revocation: Revocation,
    ) -> (usize, impl Future<Output = Result<(), BusError>> + Send + 'static) {
        let revocation = Arc::new(revocation);
        let (ended, handing) = self.revoke_here(&revocation);
        let published = self.parts.bus.revoke(&revocation);
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
        self.parts.revocations.note(revocation.clone());
        let found = self.registry.find(revocation);
        // What is ending already may still be handing something over.
        let named: Vec<_> = found.iter().filter_map(|one| Some((one.revoke(revocation)?, one))).collect();
        let ended = named.iter().filter(|(ended, _)| *ended).count();
        let Revocation { user_id, tenant_id, connection_id } = &**revocation;
        let reason = format!("{ended} connections and subscribes of this process ended");
        let names = (user_id.clone(), tenant_id.clone(), connection_id.clone());
        self.parts.audit.write(audit::Kind::Revoked, names.0, names.1, names.2, reason.into());
        (ended, named.iter().filter_map(|(_, one)| one.handing()).collect())
    }

    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.iter().map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|entry| entry.value().clone()).collect()
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

/// What an operator is warned of once a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Oddity {
    Tenant,
    Skipped,
}

/// Channels that are remembered as told of; beyond that nothing is told.
const TOLD: usize = 1000;

impl Engine {
    fn tell_once(&self, oddity: Oddity, channel: &str, reason: &str) {
        let is_new = {
            let mut told = self.told.lock();
            told.len() < TOLD && told.insert((oddity, channel.into()))
        };
        if is_new {
            self.parts.audit.warn(format!("channel {channel:?}: {reason}"));
        }
    }
}

impl Receiver for Engine {
    fn receive(&self, event: Arc<Event>) {
        let Some(channel) = self.channels.find(&event.channel) else {
            return;
        };
        if !tenant::decide_event(self.parts.gate.multi_tenant, &event.audience).is_allowed() {
            self.parts.metrics.violation(Module::Tenant);
            let reason = "multi_tenant=True: events without a tenant come from the bus, and are dropped";
            return self.tell_once(Oddity::Tenant, &event.channel, reason);
        }
        let withheld = channel.receive(&event, &self.shared);
        self.parts.metrics.filtered(Module::Sources, withheld.sources);
        self.parts.metrics.filtered(Module::Rows, withheld.rows);
    }

    fn revoke(&self, revocation: &Arc<Revocation>) {
        self.revoke_here(revocation);
    }

    fn skip(&self, channel: &str, reason: &str) {
        self.parts.metrics.bus_skipped.inc();
        self.tell_once(Oddity::Skipped, channel, reason);
    }

    fn warn(&self, text: String) {
        self.parts.audit.warn(text);
    }

    fn gap(&self, channel: &str) {
        self.parts.metrics.bus_gaps.inc();
        if let Some(channel) = self.channels.find(channel) {
            channel.gap();
        }
    }
}
