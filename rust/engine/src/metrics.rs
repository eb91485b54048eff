//! Counters and gauges, kept by prometheus-client. Labels come from declarations, never from clients' data.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

/// A security module, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// The row filter.
    Rows,
    /// Tenant isolation.
    Tenant,
    /// Field access.
    Fields,
    /// The federation boundary.
    Sources,
    /// Variable scope.
    Scope,
}

const MODULES: [(Module, &str); 5] = [
    (Module::Rows, "rows"),
    (Module::Tenant, "tenant"),
    (Module::Fields, "fields"),
    (Module::Sources, "sources"),
    (Module::Scope, "scope"),
];

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;
type Level = Gauge<i64, std::sync::atomic::AtomicI64>;

/// The figures of one manager.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Events that the bus accepted.
    pub events_published: Counter,
    /// Results that a reader took.
    pub events_delivered: Counter,
    /// Function calls that failed.
    pub resolver_errors: Counter,
    events_dropped: Labelled,
    events_filtered: Labelled,
    violations: Labelled,
    connections: Level,
    subscriptions: Level,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("fraiseql_subs");
        let metrics = Metrics {
            registry: Mutex::default(),
            events_published: Counter::default(),
            events_delivered: Counter::default(),
            resolver_errors: Counter::default(),
            events_dropped: Labelled::default(),
            events_filtered: Labelled::default(),
            violations: Labelled::default(),
            connections: Level::default(),
            subscriptions: Level::default(),
        };
        registry.register("events_published", "Events that the bus accepted", metrics.events_published.clone());
        registry.register("events_delivered", "Results that a reader took", metrics.events_delivered.clone());
        registry.register("resolver_errors", "Function calls that failed", metrics.resolver_errors.clone());
        registry.register("events_dropped", "Messages lost before a reader took them", metrics.events_dropped.clone());
        registry.register("events_filtered", "Events that a security rule withheld", metrics.events_filtered.clone());
        registry.register("violations", "Requests that a security rule refused", metrics.violations.clone());
        registry.register("connections", "Acknowledged connections", metrics.connections.clone());
        registry.register("subscriptions", "Live subscriptions", metrics.subscriptions.clone());
        // Every label exists from the start, so that a rate over it has a zero to begin with.
        for (_, reason) in REASONS {
            drop(metrics.events_dropped.get_or_create(&[("reason", reason)]));
        }
        for (_, module) in MODULES {
            drop(metrics.events_filtered.get_or_create(&[("module", module)]));
            drop(metrics.violations.get_or_create(&[("module", module)]));
        }
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    /// Counts lost messages.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        let (_, label) = REASONS[reason as usize];
        self.events_dropped.get_or_create(&[("reason", label)]).inc_by(count);
    }

    /// Counts events that a module withheld.
    pub fn filtered(&self, module: Module, count: u64) {
        let (_, label) = MODULES[module as usize];
        self.events_filtered.get_or_create(&[("module", label)]).inc_by(count);
    }

    /// Counts a request that a module refused.
    pub fn violation(&self, module: Module) {
        let (_, label) = MODULES[module as usize];
        self.violations.get_or_create(&[("module", label)]).inc();
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
        let modules = || MODULES.iter().map(|(_, label)| *label);
        let members = [
            ("connections", Value::Int(self.connections.get())),
            ("subscriptions", Value::Int(self.subscriptions.get())),
            ("events_published", count(&self.events_published)),
            ("events_delivered", count(&self.events_delivered)),
            ("events_dropped", labelled(&self.events_dropped, "reason", &mut REASONS.iter().map(|(_, label)| *label))),
            ("events_filtered", labelled(&self.events_filtered, "module", &mut modules())),
            ("violations", labelled(&self.violations, "module", &mut modules())),
            ("resolver_errors", count(&self.resolver_errors)),
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
