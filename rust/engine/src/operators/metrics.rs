//! Counters, gauges and histograms, kept by prometheus-client. Labels come from declarations, never from clients' data; gauges follow
//! from guards, so that they cannot drift.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::accounts::KINDS;
use crate::bus::Status;
use crate::clock::Clock;
use crate::error::Module;
use crate::value::{Object, Value};

/// Why a message was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A mailbox was full.
    Overflow,
    /// Events came faster than a limit allows.
    Rate,
    /// Too many events waited for a function.
    Resolver,
    /// The result was too large for one message.
    Result,
    /// The manager stopped first.
    Drain,
}

const REASONS: [(DropReason, &str); 5] = [
    (DropReason::Overflow, "overflow"),
    (DropReason::Rate, "rate"),
    (DropReason::Resolver, "resolver"),
    (DropReason::Result, "result"),
    (DropReason::Drain, "drain"),
];

/// How a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server completed it, or its generator did.
    Complete,
    /// Its client completed it, or its reader in this process left.
    Client,
    /// Its connection went away.
    Disconnect,
    /// The viewer's authority ended in time.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its reader was too slow.
    Slow,
    /// Its generator raised, or its history was lost.
    Error,
    /// The manager stopped.
    Drained,
}

const ENDS: [(Ended, &str); 8] = [
    (Ended::Complete, "complete"),
    (Ended::Client, "client"),
    (Ended::Disconnect, "disconnect"),
    (Ended::Expired, "expired"),
    (Ended::Revoked, "revoked"),
    (Ended::Slow, "slow"),
    (Ended::Error, "error"),
    (Ended::Drained, "drained"),
];

/// Upper bounds of the histograms, in seconds.
const BUCKETS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];

const MODULES: [(Module, &str); 5] = [
    (Module::Rows, "rows"),
    (Module::Tenant, "tenant"),
    (Module::Fields, "fields"),
    (Module::Sources, "sources"),
    (Module::Scope, "scope"),
];

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;
type Level = Gauge<i64, std::sync::atomic::AtomicI64>;
type ByField<M> = Family<[(&'static str, Arc<str>); 1], M>;

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The figures of one manager.
pub struct Metrics {
    pub(crate) clock: Clock,
    registry: Mutex<Registry>,
    /// Events that the bus accepted.
    pub events_published: Counter,
    /// Results that a reader took.
    pub events_delivered: Counter,
    /// Function calls that failed.
    pub resolver_errors: Counter,
    /// Channels in which the bus may have lost events, each time.
    pub bus_gaps: Counter,
    /// Entries of the bus that could not be read.
    pub bus_skipped: Counter,
    bus_connected: Level,
    bus_reconnects: Counter,
    bus_lag: Gauge<f64, AtomicU64>,
    events_dropped: Labelled,
    events_filtered: Labelled,
    events_ill_typed: ByField<Counter>,
    /// The labels of what is counted by field from the start.
    fields: Box<[Arc<str>]>,
    violations: Labelled,
    subscriptions_ended: Labelled,
    connections: Level,
    subscriptions: Level,
    queued_messages: Level,
    queued_bytes: Level,
    memory_bytes: Family<[(&'static str, &'static str); 1], Level>,
    publish_to_enqueue: Histogram,
    queue_wait: Histogram,
    resolver: ByField<Histogram>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new(Clock::system(), Box::default())
    }
}

impl Metrics {
    /// Nothing has happened yet. `fields` are those that hear of events.
    pub fn new(clock: Clock, fields: Box<[Arc<str>]>) -> Metrics {
        let mut registry = Registry::with_prefix("fraiseql_subs");
        let metrics = Metrics {
            clock,
            registry: Mutex::default(),
            events_published: Counter::default(),
            events_delivered: Counter::default(),
            resolver_errors: Counter::default(),
            bus_gaps: Counter::default(),
            bus_skipped: Counter::default(),
            bus_connected: Level::default(),
            bus_reconnects: Counter::default(),
            bus_lag: Gauge::default(),
            events_dropped: Labelled::default(),
            events_filtered: Labelled::default(),
            events_ill_typed: ByField::default(),
            fields,
            violations: Labelled::default(),
            subscriptions_ended: Labelled::default(),
            connections: Level::default(),
            subscriptions: Level::default(),
            queued_messages: Level::default(),
            queued_bytes: Level::default(),
            memory_bytes: Family::default(),
            publish_to_enqueue: histogram(),
            queue_wait: histogram(),
            resolver: ByField::new_with_constructor(histogram),
        };
        registry.register("events_published", "Events that the bus accepted", metrics.events_published.clone());
        registry.register("events_delivered", "Results that a reader took", metrics.events_delivered.clone());
        registry.register("resolver_errors", "Function calls that failed", metrics.resolver_errors.clone());
        registry.register("bus_connected", "Whether events flow, 1 or 0", metrics.bus_connected.clone());
        registry.register("bus_reconnects", "Lost connections that were made anew", metrics.bus_reconnects.clone());
        let text = "How far what is handed over is behind the bus, as last measured";
        registry.register("bus_lag_seconds", text, metrics.bus_lag.clone());
        registry.register("bus_gaps", "Channels in which events may have been lost", metrics.bus_gaps.clone());
        registry.register("bus_skipped", "Entries of the bus that could not be read", metrics.bus_skipped.clone());
        registry.register("events_dropped", "Messages lost before a reader took them", metrics.events_dropped.clone());
        registry.register("events_filtered", "Events that a security rule withheld", metrics.events_filtered.clone());
        let text = "Events that a predicate could not compare, as the types had nothing in common";
        registry.register("events_ill_typed", text, metrics.events_ill_typed.clone());
        registry.register("violations", "Requests that a security rule refused", metrics.violations.clone());
        registry.register("subscriptions_ended", "How subscriptions ended", metrics.subscriptions_ended.clone());
        registry.register("queued_messages", "Results that wait for readers", metrics.queued_messages.clone());
        registry.register("queued_bytes", "Bytes of results that wait for readers", metrics.queued_bytes.clone());
        registry.register("memory_bytes", "Memory that is held for clients", metrics.memory_bytes.clone());
        let text = "From an event's publishing until its results are queued";
        registry.register("publish_to_enqueue_seconds", text, metrics.publish_to_enqueue.clone());
        registry.register("queue_wait_seconds", "How long a result waits for its reader", metrics.queue_wait.clone());
        let text = "From the call of a function until its result is read";
        registry.register("resolver_seconds", text, metrics.resolver.clone());
        registry.register("connections", "Acknowledged connections", metrics.connections.clone());
        registry.register("subscriptions", "Live subscriptions", metrics.subscriptions.clone());
        // Every label exists from the start, so that a rate over it has a zero to begin with.
        for (_, reason) in REASONS {
            drop(metrics.events_dropped.get_or_create(&[("reason", reason)]));
        }
        for (_, reason) in ENDS {
            drop(metrics.subscriptions_ended.get_or_create(&[("reason", reason)]));
        }
        for field in &metrics.fields {
            drop(metrics.events_ill_typed.get_or_create(&[("field", field.clone())]));
        }
        for (_, module) in MODULES {
            drop(metrics.events_filtered.get_or_create(&[("module", module)]));
            drop(metrics.violations.get_or_create(&[("module", module)]));
        }
        *metrics.registry.lock() = registry;
        metrics
    }

    /// Takes over what memory is held, by what it is held for.
    pub fn observe_memory(&self, held: impl Iterator<Item = (&'static str, usize)>) {
        held.for_each(|(kind, bytes)| _ = self.memory_bytes.get_or_create(&[("kind", kind)]).set(bytes as i64));
    }

    /// Takes over how the bus is.
    pub fn observe(&self, status: &Status) {
        self.bus_connected.set(status.connected.into());
        self.bus_reconnects.inc_by(status.reconnects.saturating_sub(self.bus_reconnects.get()));
        self.bus_lag.set(status.lag.unwrap_or_default().as_secs_f64());
    }

    /// Counts lost messages.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        let (_, label) = REASONS[reason as usize];
        self.events_dropped.get_or_create(&[("reason", label)]).inc_by(count);
    }

    /// Counts events that a module withheld.
    pub fn filtered(&self, module: Module, count: u64) {
        if count == 0 {
            return;
        }
        let (_, label) = MODULES[module as usize];
        self.events_filtered.get_or_create(&[("module", label)]).inc_by(count);
    }

    /// Counts an event that a field's predicate could not compare.
    pub fn ill_typed(&self, field: &Arc<str>) {
        self.events_ill_typed.get_or_create(&[("field", field.clone())]).inc();
    }

    /// Counts a request that a module refused.
    pub fn violation(&self, module: Module) {
        let (_, label) = MODULES[module as usize];
        self.violations.get_or_create(&[("module", label)]).inc();
    }

    /// Counts the end of a subscription.
    pub fn ended(&self, how: Ended) {
        let (_, label) = ENDS[how as usize];
        self.subscriptions_ended.get_or_create(&[("reason", label)]).inc();
    }

    /// A message waits; whoever queues it says when it no longer does.
    pub fn queued(&self, bytes: usize) {
        self.queued_messages.inc();
        self.queued_bytes.inc_by(bytes as i64);
    }

    /// So many messages do not wait any more.
    pub fn unqueued(&self, messages: usize, bytes: usize) {
        self.queued_messages.dec_by(messages as i64);
        self.queued_bytes.dec_by(bytes as i64);
    }

    /// The results of an event that was published then are queued.
    pub fn enqueued(&self, published_at: DateTime<Utc>) {
        // Clocks of several machines may differ: an event from the future has taken no time.
        let after = (self.clock.utc() - published_at).to_std().unwrap_or_default();
        self.publish_to_enqueue.observe(after.as_secs_f64());
    }

    /// A result that was made then has come to its reader.
    pub fn waited(&self, made: Instant) {
        self.queue_wait.observe((self.clock.now() - made).as_secs_f64());
    }

    /// A function that was called then has given its result.
    pub fn resolved(&self, field: &Arc<str>, begun: Instant) {
        let time = (self.clock.now() - begun).as_secs_f64();
        self.resolver.get_or_create(&[("field", field.clone())]).observe(time);
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts a subscription for as long as the guard lives.
    pub fn subscription(&self) -> Counted {
        Counted::new(&self.subscriptions)
    }

    /// Acknowledged connections.
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }

    /// The figures as an object.
    pub fn to_value(&self) -> Value {
        let count = |count: &Counter<u64, AtomicU64>| Value::Int(count.get() as i64);
        let labelled = |family: &Labelled, key: &'static str, labels: &mut dyn Iterator<Item = &'static str>| {
            Value::Object(
                labels.map(|label| (label.into(), count(&family.get_or_create(&[(key, label)])))).collect::<Object>(),
            )
        };
        let ill_typed = |field: &Arc<str>| {
            let counted = self.events_ill_typed.get_or_create(&[("field", field.clone())]);
            ((&**field).into(), count(&counted))
        };
        let memory =
            |kind: &'static str| (kind.into(), Value::Int(self.memory_bytes.get_or_create(&[("kind", kind)]).get()));
        let modules = || MODULES.iter().map(|(_, label)| *label);
        let members = [
            ("connections", Value::Int(self.connections.get())),
            ("subscriptions", Value::Int(self.subscriptions.get())),
            ("events_published", count(&self.events_published)),
            ("events_delivered", count(&self.events_delivered)),
            ("events_dropped", labelled(&self.events_dropped, "reason", &mut REASONS.iter().map(|(_, label)| *label))),
            ("events_filtered", labelled(&self.events_filtered, "module", &mut modules())),
            ("events_ill_typed", Value::Object(self.fields.iter().map(ill_typed).collect::<Object>())),
            ("violations", labelled(&self.violations, "module", &mut modules())),
            ("resolver_errors", count(&self.resolver_errors)),
            ("bus_connected", Value::Int(self.bus_connected.get())),
            ("bus_reconnects", count(&self.bus_reconnects)),
            ("bus_lag_seconds", Value::Float(self.bus_lag.get())),
            ("bus_gaps", count(&self.bus_gaps)),
            ("bus_skipped", count(&self.bus_skipped)),
            ("queued_messages", Value::Int(self.queued_messages.get())),
            ("queued_bytes", Value::Int(self.queued_bytes.get())),
            ("memory_bytes", Value::Object(KINDS.into_iter().map(memory).collect::<Object>())),
            (
                "subscriptions_ended",
                labelled(&self.subscriptions_ended, "reason", &mut ENDS.iter().map(|(_, label)| *label)),
            ),
        ];
        Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The figures in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry.lock());
        out
    }
}

/// A level that goes down again when this is dropped.
#[derive(Debug)]
pub struct Counted(Level);

impl Counted {
    fn new(level: &Level) -> Counted {
        level.inc();
        Counted(level.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
