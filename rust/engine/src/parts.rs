//! What a manager is made of, whether it runs or not; and publishing, which needs no run.

use std::sync::Arc;

use crate::accounts::{Quotas, Revocations};
use crate::admission::Gate;
use crate::bus::{BusError, EventBus, Published};
use crate::clock::Clock;
use crate::event::Event;
use crate::graphql::Schema;
use crate::limits::Limits;
use crate::matching::{Declared, name_problem};
use crate::operators::audit::{self, Audit};
use crate::operators::{Metrics, Told};
use crate::security::tenant;

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
    /// What an operator is told once.
    pub told: Arc<Told>,
    /// What time it is.
    pub clock: Clock,
}

impl Parts {
    /// The parts of a manager that has not run yet.
    pub fn new(
        schema: Arc<Schema>,
        bus: Arc<dyn EventBus>,
        limits: Limits,
        multi_tenant: bool,
        audit: Arc<dyn audit::Writer>,
        clock: Clock,
    ) -> Parts {
        let heard = || schema.fields.values().filter_map(|field| Some((field, field.channel.as_ref()?)));
        let declared = Declared::new(heard().map(|(field, channel)| {
            let declaration = &field.declaration;
            (declaration.channel.as_str(), channel, declaration.event_types.as_deref())
        }));
        let judged = heard().map(|(field, _)| field.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(clock.clone(), judged));
        let fields = schema.fields.keys().cloned().collect();
        let audit = Arc::new(Audit::new(audit, &clock));
        Parts {
            gate: Arc::new(Gate::new(schema, &limits, multi_tenant)),
            bus,
            told: Arc::new(Told::new(audit.clone(), metrics.clone(), declared, fields)),
            metrics,
            quotas: Arc::new(Quotas::new(&limits, &clock)),
            limits,
            revocations: Arc::default(),
            audit,
            clock,
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
        // Where this process is all there is, who receives an event is known, and nobody else has to be asked for.
        if !bus.is_local() {
            events.iter().for_each(|event| _ = self.told.event(event));
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
        let problem = if let Some(problem) = name_problem(&event.channel) {
            format!("channel {problem}")
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
