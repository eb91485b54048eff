//! Where the stages meet: an event comes from the bus, the topics of its channel find who hears of it ([`crate::delivery::topics`]), functions
//! are called once, results go to mailboxes. Read [`Engine::publish`], [`Receiver::receive`] and [`Engine::subscribe`] in this order.
//!
//! # Locks
//!
//! They are taken in this order, and none is held across an `.await` or a call into user code: a channel, a place, a
//! resolve class, a group, a mailbox, an outbox. Those of figures, and of what an operator is told, are taken last.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::accounts::{EventRate, Kept, Reached, Seat, Shares};
use crate::admission::{Admission, Admitted};
use crate::bus::{Published, Watched};
use crate::delivery::{
    Answering, Arriving, Dispatcher, Generation, Mailbox, NOBODY_LISTENS, Outbox, Resolver, Settled, Shared,
    Subscription, Ticket, Watcher,
};
use crate::error::{Module, Rejection, code};
use crate::event::{Event, Position};
use crate::graphql::{Introspection, Kind, Operation, Request};
use crate::operators::{Counted, Ended, audit};
use crate::parts::{Parts, PublishError};
use crate::security::tenant;
use crate::timers::Timers;
use crate::value::Value;
use crate::viewer::{Host, Viewer};

/// One run of a manager.
pub struct Engine {
    /// What it is made of.
    pub parts: Parts,
    pub(crate) dispatcher: Arc<Dispatcher>,
    phase: Mutex<Phase>,
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

/// What a subscribe wants to know of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing.
    No,
    /// `true`: a token in each `next`.
    Ids,
    /// `{"after": token}`: that, and first what came after this token.
    After(String),
}

impl Resume {
    /// Reads the value of `extensions.resume`; `None` where it is none of the forms.
    pub(crate) fn read(value: &Value) -> Option<Resume> {
        match value {
            Value::Null | Value::Bool(false) => Some(Resume::No),
            Value::Bool(true) => Some(Resume::Ids),
            other => Some(Resume::After(other.get("after")?.as_str()?.to_owned())),
        }
    }
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
    /// What the host language keeps of the connection.
    pub host: Option<&'a Host>,
}

/// What became of it.
pub enum Started {
    /// It is live.
    Live(Arc<Subscription>),
    /// It waits for the bus.
    Soon(Arc<Subscription>, Settled),
    /// It was a query about the schema: this is its ExecutionResult.
    Answer(String),
    /// It was one whose ExecutionResult is made first: the one message of this.
    Answering(Arc<Subscription>),
}

impl Engine {
    /// Makes an engine that is not running yet.
    pub(crate) fn new(
        parts: Parts,
        resolver: Arc<dyn Resolver>,
        timers: Arc<Timers>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Engine> {
        let (limits, metrics) = (parts.limits.clone(), parts.metrics.clone());
        let limits_events = limits.limit_events() || parts.gate.documents.limit_events();
        let (told, weights) = (parts.told.clone(), parts.quotas.weights.clone());
        let shared = Shared::new(resolver, limits, limits_events, metrics, told, weights, timers);
        let dispatcher = Dispatcher::new(parts.bus.clone(), shared, runtime);
        Arc::new(Engine { parts, dispatcher, phase: Mutex::new(Phase::Starting) })
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// It goes on to another phase of its life.
    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock() = phase;
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

    /// An event comes from the bus.
    pub(crate) fn receive(&self, event: &Arc<Event>) {
        let Some(channel) = self.dispatcher.channels.find(&event.channel) else {
            return self.unheard(event);
        };
        if !tenant::decide_event(self.parts.gate.multi_tenant, &event.audience).is_allowed() {
            self.parts.metrics.violation(Module::Tenant);
            return self.parts.told.no_tenant(event);
        }
        self.dispatcher.receive(&channel, event);
    }

    /// Nobody here listens to the channel of an event. Other processes may: what they publish on a channel of theirs is all right.
    fn unheard(&self, event: &Event) {
        let told = &self.parts.told;
        if self.parts.bus.is_local() {
            told.event(event);
        }
        if told.is_followed(event) {
            told.reached_nobody(event, NOBODY_LISTENS);
        }
    }

    /// The bus cannot read an entry of a channel.
    pub(crate) fn skip(&self, channel: &str, reason: &str) {
        self.parts.metrics.bus_skipped.inc();
        self.parts.told.skipped(channel, reason);
    }

    /// The bus may have lost events of a channel.
    pub(crate) fn gap(&self, channel: &str) {
        self.parts.metrics.bus_gaps.inc();
        self.dispatcher.gap(channel);
    }

    // ---- those who listen ----

    /// Admits a request and makes it live, or answers a query about the schema.
    pub fn subscribe(&self, start: &Start<'_>) -> Result<Started, Rejection> {
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
        let Start { viewer, connection_id, host, .. } = start;
        self.parts.audit.note(audit::Kind::SubscribeRefused, Some(viewer), *connection_id, *host, reason);
    }

    fn start_subscription(&self, start: &Start<'_>) -> Result<Started, Rejection> {
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
        let admission = match gate.admit(&start.request, start.viewer, self.parts.clock.utc())? {
            Admitted::Answer(json) => return Ok(Started::Answer(json)),
            Admitted::Introspection(introspection) => return Ok(self.introspect(introspection, start)),
            Admitted::Subscription(admission) => admission,
        };
        let from = self.resume_from(start.resume)?;
        let kept = self.keep(&admission, from.is_some(), start.outbox)?;
        let declaration = &admission.operation.field.declaration;
        let is_generator = declaration.kind == Kind::Generator;
        let overflow = declaration.overflow.unwrap_or(limits.overflow);
        let event_ids = *start.resume != Resume::No && !is_generator;
        let own_rate = declaration.events_per_second.or(limits.events_per_second_per_subscription);
        // A generator makes its own events.
        let rate = if is_generator { None } else { EventRate::new(own_rate, quotas, &start.seat.accounts) };
        let (outbox, counted) = (start.outbox.clone(), metrics.subscription());
        let mailbox = Mailbox::new(start.id.clone(), event_ids, overflow, rate, outbox, metrics.clone());
        let subscription = self.subscription(mailbox, Some((counted, shares, kept)));
        if is_generator {
            self.generate(&subscription, admission.operation, start);
            return Ok(Started::Live(subscription));
        }
        if admission.condition.is_never() && from.is_none() {
            return Ok(Started::Live(subscription));
        }
        let (channel, watched) = self.dispatcher.channels.hold(&admission.operation.channel);
        let (dispatcher, accounts) = (self.dispatcher.clone(), start.seat.accounts.clone());
        let ticket = Ticket { admission, channel, dispatcher, accounts };
        if let (Watched::Now(since), None) = (&watched, from) {
            subscription.join(&ticket, *since, None);
            return Ok(Started::Live(subscription));
        }
        let arriving = Arriving { subscription: subscription.clone(), ticket, watched, from };
        match arriving.start() {
            Ok(None) => Ok(Started::Live(subscription)),
            Ok(Some(settled)) => Ok(Started::Soon(subscription, settled)),
            Err(rejection) => {
                subscription.close(Ended::Error);
                Err(rejection)
            }
        }
    }

    /// Charges what a subscription keeps, where that is not too much.
    fn keep(&self, admission: &Admission, is_late: bool, outbox: &Outbox) -> Result<Kept, Rejection> {
        let (limits, load, plan) = (&self.parts.limits, outbox.load(), &admission.operation.plan);
        let refuse = |reason| Err(Rejection::Limited(code::LIMIT_EXCEEDED, reason));
        let own = admission.size(is_late);
        if own + plan.memory() > limits.max_subscription_bytes {
            return refuse("max_subscription_bytes is reached");
        }
        // Asked when it is charged, so that many at once are not more than one after the other.
        let kept = load.keep(own, plan.clone(), plan.memory());
        if load.state() > limits.max_connection_state_bytes {
            return refuse("max_connection_state_bytes is reached");
        }
        if load.account.is_over() {
            return refuse("max_user_bytes is reached");
        }
        Ok(kept)
    }

    fn subscription(&self, mailbox: Arc<Mailbox>, held: Option<(Counted, Shares, Kept)>) -> Arc<Subscription> {
        let (dispatcher, place) = (self.dispatcher.clone(), Mutex::default());
        Arc::new(Subscription { mailbox, dispatcher, place, held: Mutex::new(held) })
    }

    fn introspect(&self, introspection: Introspection, start: &Start<'_>) -> Started {
        let (id, outbox, metrics) = (start.id.clone(), start.outbox.clone(), self.parts.metrics.clone());
        let mailbox = Mailbox::new(id, false, self.parts.limits.overflow, None, outbox, metrics);
        let answer = self.parts.gate.documents.answer(&introspection);
        let (accounts, dispatcher) = (start.seat.accounts.clone(), self.dispatcher.clone());
        Answering { introspection, answer, mailbox: mailbox.clone(), accounts, dispatcher }.start();
        Started::Answering(self.subscription(mailbox, None))
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
            abandon_key: self.dispatcher.shared.abandon_key(),
            shared: self.dispatcher.shared.clone(),
        });
        subscription.set_generating(generation.clone());
        self.dispatcher.shared.resolver.generate(generation);
    }
}
