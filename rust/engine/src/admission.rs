//! Admission: the one place where all five modules stand, in order. [`Gate::admit`] decides when somebody asks for a subscription,
//! [`Admission::judge`] what becomes of an event for it.
//!
//! Who is admitted carries the decisions along: tenant and channel are where it is routed, sources and rows are bound into its
//! [`Condition`], masked fields are gone from its plan. Nothing that is shared with others is joined before.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::{Module, Refusal, Rejection};
use crate::event::Event;
use crate::graphql::{Asked, Documents, Introspection, Kind, Operation, Request, Schema};
use crate::limits::Limits;
use crate::matching::{Condition, Verdict};
use crate::predicate::{Bound, Predicate};
use crate::security::federation::Sources;
use crate::security::{Decision, federation, fields, tenant};
use crate::viewer::Viewer;

/// Admits requests against one schema.
pub struct Gate {
    /// The documents that clients have sent.
    pub documents: Documents,
    /// Whether everybody must have a tenant.
    pub multi_tenant: bool,
}

/// What becomes of a request that is not rejected.
#[derive(Debug)]
pub enum Admitted {
    /// It may be started.
    Subscription(Admission),
    /// The ExecutionResult, as JSON, of a query for introspection.
    Answer(String),
    /// The same, where it has to be made first.
    Introspection(Introspection),
}

/// A subscription that every module has let pass.
#[derive(Debug)]
pub struct Admission {
    /// What is asked for.
    pub operation: Operation,
    /// Who asks.
    pub viewer: Arc<Viewer>,
    /// What it asks of the events of its channel and tenant.
    pub condition: Condition,
}

/// What is asked of the events of a channel and tenant, so that an index finds whom each is for, and from whom it is withheld.
#[derive(Debug)]
pub(crate) struct Questions {
    /// For whom is it?
    pub(crate) whole: Condition,
    /// What this finds and the whole does not, `rows` withholds; `None` where there is no such rule.
    pub(crate) without_rows: Option<Condition>,
    /// What the first finds and the second does not, the federation boundary withholds; `None` where there is none.
    pub(crate) of_sources: Option<[Condition; 2]>,
}

/// What a dry run finds.
#[derive(Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What decided: `request`, `forbidden`, or the verdict about the event.
    pub stage: &'static str,
    /// In words, for operators: rule, path and values.
    pub reason: String,
    /// `Type.field` of what the viewer's permissions null.
    pub masked: Vec<Box<str>>,
}

impl Gate {
    /// A gate without documents.
    pub fn new(schema: Arc<Schema>, limits: &Limits, multi_tenant: bool) -> Gate {
        Gate { documents: Documents::new(schema, limits), multi_tenant }
    }

    /// Whether a viewer may do anything at all here.
    pub fn enter(&self, viewer: &Viewer, now: DateTime<Utc>) -> Result<(), Refusal> {
        if viewer.is_expired(now) {
            return Err(Refusal::ended("the context has expired"));
        }
        match tenant::decide(self.multi_tenant, viewer.tenant_id.as_deref()) {
            Decision::Allow => Ok(()),
            Decision::Refuse => Err(Refusal::by(Module::Tenant, "the viewer has no tenant")),
        }
    }

    /// Decides about a request. Whoever is refused by one module learns nothing of what the next ones would say.
    pub fn admit(
        &self,
        request: &Request<'_>,
        viewer: &Arc<Viewer>,
        now: DateTime<Utc>,
    ) -> Result<Admitted, Rejection> {
        self.enter(viewer, now)?;
        let asked = match self.documents.open(request)? {
            Asked::Subscription(asked) => asked,
            Asked::Answer(json) => return Ok(Admitted::Answer(json)),
            Asked::Introspection(introspection) => return Ok(Admitted::Introspection(introspection)),
        };
        if let Some(refusal) = fields::refusal(&asked.coordinate(), asked.guard(), viewer) {
            return Err(refusal.into());
        }
        let field = asked.field.clone();
        let coerced = asked.coerce(request, self.documents.limits())?;
        for rule in &field.scope {
            if !rule.decide(&coerced.arguments, viewer).is_allowed() {
                return Err(Refusal::by(Module::Scope, rule.describe(&coerced.arguments, viewer)).into());
            }
        }
        let declared = field.declaration.sources.as_deref();
        let no_source = |reason| Err(Refusal::by(Module::Sources, reason).into());
        let Some(sources) = federation::intersect(declared, viewer.sources.as_ref()) else {
            return no_source("there is no source that both the field and the viewer allow");
        };
        if field.declaration.kind == Kind::Generator && viewer.sources.is_some() {
            return no_source("the viewer is limited to sources, and nobody can tell those of a generator");
        }
        let operation = coerced.plan(viewer, self.documents.limits())?;
        let bind = |predicate: &Option<Predicate>| Some(predicate.as_ref()?.bind(&operation.arguments, viewer));
        let (where_, rows) = (bind(&field.where_), bind(&field.rows));
        let condition = Condition::new(field.index, field.declaration.event_types.as_deref(), sources, where_, rows);
        Ok(Admitted::Subscription(Admission { operation, viewer: viewer.clone(), condition }))
    }

    /// What would become of an event for such a subscription, and why. Nothing is called and nothing published.
    pub fn explain(
        &self,
        request: &Request<'_>,
        viewer: &Arc<Viewer>,
        event: &Event,
        now: DateTime<Utc>,
    ) -> Explanation {
        let refused = |stage, reason: Cow<'_, str>| Explanation { stage, reason: reason.into(), masked: Vec::new() };
        let admission = match self.admit(request, viewer, now) {
            Ok(Admitted::Subscription(admission)) => admission,
            Ok(Admitted::Answer(_) | Admitted::Introspection(_)) => {
                return refused("request", "a query for the schema hears of no event".into());
            }
            Err(Rejection::Forbidden(refusal)) => return refused("forbidden", refusal.reason),
            Err(rejection) => return refused("request", rejection.to_string().into()),
        };
        if admission.operation.field.declaration.kind == Kind::Generator {
            return refused("request", "a generator finds its events itself".into());
        }
        let verdict = match tenant::decide_event(self.multi_tenant, &event.audience) {
            Decision::Allow => admission.judge(event),
            Decision::Refuse => Verdict::Tenant,
        };
        Explanation {
            stage: verdict.name(),
            reason: admission.describe(verdict, event),
            masked: admission.operation.plan.masked.to_vec(),
        }
    }
}

impl Admission {
    /// What becomes of an event: routing by tenant and channel, then what the index asks.
    pub fn judge(&self, event: &Event) -> Verdict {
        if !is_routed(event, self.viewer.tenant_id.as_deref()) {
            Verdict::Tenant
        } else if *event.channel != *self.operation.channel {
            Verdict::Channel
        } else {
            self.condition.judge(event)
        }
    }

    /// The memory that is kept of it, its plan apart. Whoever reads the past first keeps all of it.
    pub(crate) fn size(&self, is_late: bool) -> usize {
        let Operation { field, arguments, arguments_key, variables, channel, .. } = &self.operation;
        let variables = || variables.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>();
        let given = match field.declaration.kind {
            Kind::Passthrough if !is_late => 0,
            Kind::Generator => arguments.size() + variables(),
            _ => arguments.size() + arguments_key.len() + if is_late { variables() } else { 0 },
        };
        given + channel.len() + self.condition.memory()
    }

    /// The same for an index, which finds more than one verdict.
    pub(crate) fn questions(&self) -> Questions {
        let Operation { field, arguments, .. } = &self.operation;
        let bound = || field.where_.as_ref().map(|rule| rule.bind(arguments, &self.viewer));
        Questions::new(&self.condition, field.declaration.event_types.as_deref(), bound, field.rows.is_some())
    }

    /// A verdict in words: the rule, and what stood on its sides.
    fn describe(&self, verdict: Verdict, event: &Event) -> String {
        let Operation { field, arguments, channel, .. } = &self.operation;
        match verdict {
            Verdict::Tenant => {
                let tenant =
                    self.viewer.tenant_id.as_ref().map_or_else(|| "none".into(), |tenant| format!("{tenant:?}"));
                format!("the event is for {}, the viewer's tenant is {tenant}", event.audience)
            }
            Verdict::Channel => {
                format!("the event is on channel {:?}, the subscription on {channel:?}", &*event.channel)
            }
            verdict => self.condition.describe(verdict, event, || {
                let rule = if verdict == Verdict::Rows { &field.rows } else { &field.where_ };
                rule.as_ref().map_or_else(String::new, |rule| rule.describe(event, arguments, &self.viewer))
            }),
        }
    }
}

impl Questions {
    /// Those of a condition of these event types, this `where`, and perhaps `rows`.
    pub(crate) fn new(
        whole: &Condition,
        event_types: Option<&[String]>,
        where_: impl FnOnce() -> Option<Bound>,
        has_rows: bool,
    ) -> Questions {
        let (field, sources) = (whole.field(), whole.sources());
        let about = |sources| Condition::new(field, event_types, sources, None, None);
        let of_sources = (*sources != Sources::Any).then(|| [Sources::Any, sources.clone()].map(about));
        let without_rows = has_rows.then(|| Condition::new(field, event_types, sources.clone(), where_(), None));
        Questions { whole: whole.clone(), without_rows, of_sources }
    }
}

/// Whether an event is for this tenant's viewers at all.
pub(crate) fn is_routed(event: &Event, tenant: Option<&str>) -> bool {
    tenant::route(&event.audience, tenant).is_allowed()
}
