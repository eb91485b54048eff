//! A subscription inside this process: what `manager.subscribe` iterates over.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::protocol;
use super::register::Sessions;
use crate::accounts::{Accounts, Authorisation, Registered, Revocable, Revocation, Seat};
use crate::delivery::{End, Notify, Outbox, Settled, Subscription, Taken};
use crate::engine::Resume;
use crate::engine::{Phase, Start, Started};
use crate::error::{GraphQLError, Refusal, Rejection};
use crate::graphql::Request;
use crate::operators::audit;
use crate::operators::{DropReason, Ended};
use crate::tasks::{Tasks, UnderWay};
use crate::timers::{Alarm, Timed};
use crate::viewer::Viewer;

/// What a message looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A whole graphql-transport-ws `next` message.
    Next,
    /// The bare ExecutionResult.
    Result,
}

/// What is asked for.
pub struct Ask<'a> {
    /// The document and what belongs to it.
    pub request: Request<'a>,
    /// Who asks.
    pub viewer: Arc<Viewer>,
    /// The subscription's id.
    pub id: Arc<str>,
    /// A label; ids are unique under it.
    pub connection_id: Option<Arc<str>>,
    /// What its messages look like.
    pub framing: Framing,
    /// What it wants to know of history.
    pub resume: Resume,
    /// Begun when the viewer was decided upon.
    pub authorisation: Authorisation,
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The id or the label is in use.
    #[error("{0}")]
    InUse(String),
    /// The request was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// A live subscription of this process.
pub struct Stream {
    sessions: Arc<Sessions>,
    outbox: Arc<Outbox>,
    key: (Option<Arc<str>>, Arc<str>),
    framing: Framing,
    viewer: Arc<Viewer>,
    /// When the viewer's authority ends.
    expires: Option<Instant>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscription: Option<Arc<Subscription>>,
    alarm: Option<Alarm>,
    under_way: Option<UnderWay>,
    registered: Option<Registered>,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Delivery {
    /// A message.
    Message(String),
    /// The iteration ends.
    Complete,
    /// It ends by an error.
    Failed(Arc<GraphQLError>),
    /// The viewer's authority ended.
    Forbidden,
    /// The reader was too slow.
    Slow,
}

impl Stream {
    /// Subscribes; from now on every event is seen, or from when it is settled on.
    pub fn open(
        sessions: &Arc<Sessions>,
        ask: &Ask<'_>,
        notify: Arc<dyn Notify>,
    ) -> Result<(Arc<Stream>, Option<Settled>), OpenError> {
        let key = (ask.connection_id.clone(), ask.id.clone());
        if let Some(label) = &ask.connection_id
            && sessions.connections.contains_key(label)
        {
            return Err(OpenError::InUse(format!("connection_id {label:?} is a socket's")));
        }
        let (clock, quotas) = (&sessions.engine.parts.clock, &sessions.engine.parts.quotas);
        let accounts = Accounts::of(&ask.viewer, None);
        let stream = Arc::new(Stream {
            sessions: sessions.clone(),
            outbox: Outbox::new((&sessions.engine.parts.limits).into(), notify),
            key: key.clone(),
            framing: ask.framing,
            viewer: ask.viewer.clone(),
            expires: ask.viewer.expires_in(clock.utc()).map(|left| clock.now() + left),
            state: Mutex::default(),
        });
        stream.outbox.charge_to(quotas.load(&accounts));
        // The place is taken before anything is started, so that two opens under one id cannot both succeed.
        match sessions.streams.entry(key) {
            dashmap::Entry::Occupied(_) => {
                return Err(OpenError::InUse(format!("subscription_id {:?} is in use", ask.id)));
            }
            dashmap::Entry::Vacant(vacant) => drop(vacant.insert(stream.clone())),
        }
        let started = sessions.engine.subscribe(&Start {
            request: Request { ..ask.request },
            viewer: &ask.viewer,
            seat: &Seat::new(accounts, &quotas.subscriptions),
            id: &ask.id,
            resume: &ask.resume,
            outbox: &stream.outbox,
            connection_id: ask.connection_id.as_ref(),
            host: None,
        });
        let (subscription, settled) = match started {
            Ok(Started::Live(subscription)) => (subscription, None),
            Ok(Started::Soon(subscription, settled)) => (subscription, Some(settled)),
            Ok(Started::Answer(_) | Started::Answering(_)) => {
                stream.close();
                let error = GraphQLError::new(
                    crate::error::code::VALIDATION_FAILED,
                    "manager.subscribe takes a subscription operation",
                );
                return Err(Rejection::Request(vec![error]).into());
            }
            Err(rejection) => {
                stream.close();
                return Err(rejection.into());
            }
        };
        let timed: Weak<dyn Timed> = Arc::<Stream>::downgrade(&stream);
        let revocable: Weak<dyn Revocable> = Arc::<Stream>::downgrade(&stream);
        let label = ask.connection_id.as_ref();
        let mut state = stream.state.lock();
        state.subscription = Some(subscription);
        state.under_way = Some(sessions.readers.start());
        state.registered = Some(sessions.registry.register(sessions.number(), Some(&ask.viewer), label, &revocable));
        sessions.timers.set(&mut state.alarm, stream.expires, timed);
        drop(state);
        // Asked when a revocation would find it: one that came before is in the log.
        if ask.authorisation.is_revoked(&ask.viewer, label.map(|label| &**label)) {
            stream.note(audit::Kind::SubscribeRefused, "revoked meanwhile");
            stream.end(Ended::Revoked);
            return Err(Rejection::Forbidden(Refusal::ended("revoked meanwhile")).into());
        }
        // A stop that began meanwhile may have passed by before there was anything to end.
        if sessions.engine.phase() != Phase::Running {
            stream.end(Ended::Drained);
            return Err(Rejection::Stopped.into());
        }
        Ok((stream, settled))
    }

    /// Takes the next message, or the end; `None` until the outbox notifies.
    pub fn take(&self) -> Option<Delivery> {
        if self.expires.is_some_and(|expires| expires <= self.sessions.engine.parts.clock.now()) {
            // The alarm may be late; what is handed over is not.
            self.expire();
        }
        if self.outbox.is_slow() {
            self.end(Ended::Slow);
            return Some(Delivery::Slow);
        }
        let Some((mailbox, taken)) = self.outbox.take() else {
            // One that was closed gives nothing but the end.
            return self.state.lock().subscription.is_none().then_some(Delivery::Complete);
        };
        let (how, delivery) = match taken {
            Taken::Next { body, dropped, gap } => {
                self.sessions.engine.parts.metrics.events_delivered.inc();
                let extensions = protocol::extensions(mailbox.event_id(&body), dropped, gap);
                return Some(Delivery::Message(match self.framing {
                    Framing::Next => protocol::next(&mailbox.id, &body.json, extensions.as_deref()),
                    Framing::Result => protocol::result(&body.json, extensions.as_deref()),
                }));
            }
            Taken::End(End::Complete) => (Ended::Complete, Delivery::Complete),
            Taken::End(End::Error(error)) => (Ended::Error, Delivery::Failed(error)),
            Taken::End(End::Expired) => (Ended::Expired, Delivery::Forbidden),
            Taken::End(End::Revoked) => (Ended::Revoked, Delivery::Forbidden),
            Taken::End(End::Slow) => (Ended::Slow, Delivery::Slow),
        };
        self.end(how);
        Some(delivery)
    }

    fn expire(&self) {
        let subscription = self.state.lock().subscription.clone();
        if subscription.is_some_and(|subscription| subscription.cut(End::Expired, Ended::Expired)) {
            self.note(audit::Kind::Expired, "");
        }
    }

    fn note(&self, kind: audit::Kind, reason: &'static str) {
        self.sessions.engine.parts.audit.note(kind, Some(&self.viewer), self.key.0.as_ref(), None, reason);
    }

    /// To be called before [`Stream::take`] is called until it gives `None`.
    pub fn listen(&self) {
        self.outbox.listen();
    }

    /// The reader goes away.
    pub fn close(&self) {
        self.end(Ended::Client);
    }

    /// It is over. Returns how many messages are left behind.
    fn end(&self, how: Ended) -> usize {
        let (subscription, mut alarm, registered) = {
            let mut state = self.state.lock();
            state.under_way = None;
            (state.subscription.take(), state.alarm.take(), state.registered.take())
        };
        drop(registered);
        if how == Ended::Slow && subscription.is_some() {
            self.note(audit::Kind::SlowConsumer, "");
        }
        self.sessions.timers.set(&mut alarm, None, Weak::<Stream>::new());
        self.sessions.streams.remove_if(&self.key, |_, found| std::ptr::eq(&**found, self));
        let left = subscription.map_or(0, |subscription| subscription.close(how));
        // A mailbox that nobody takes from any more would hold its outbox, which holds it.
        self.outbox.clear();
        left
    }

    /// Lets go of it, as its account holds most of what the process may hold.
    pub(crate) fn shed(&self) {
        self.outbox.overflowed();
        let left = self.end(Ended::Slow);
        self.sessions.engine.parts.metrics.dropped(DropReason::Overflow, left as u64);
    }

    /// What its account, and itself, hold.
    pub(crate) fn holds(&self) -> (usize, usize) {
        let load = self.outbox.load();
        (load.account.total(), self.outbox.bytes() + load.total())
    }

    /// Ends it from the server's side, after what is queued.
    pub(crate) fn complete(&self) -> bool {
        let subscription = self.state.lock().subscription.clone();
        subscription.is_some_and(|subscription| subscription.mailbox.end(End::Complete))
    }

    /// Ends it after what is queued; one where nothing is queued needs no waiting for.
    pub(crate) fn drain(&self) {
        self.complete();
        let mut state = self.state.lock();
        if state.subscription.as_ref().is_none_or(|subscription| subscription.mailbox.waiting() == 0) {
            state.under_way = None;
        }
    }

    /// Gives up what draining has not delivered, and counts it. The reader, if there is one, finds the end.
    pub(crate) fn stop(&self) {
        let left = self.end(Ended::Drained);
        self.sessions.engine.parts.metrics.dropped(DropReason::Drain, left as u64);
        self.outbox.signal();
    }
}

impl Timed for Stream {
    fn tick(&self, _now: Instant) {
        self.expire();
    }
}

impl Revocable for Stream {
    fn revoke(&self, revocation: &Revocation) -> Option<bool> {
        if !revocation.names(Some(&self.viewer), self.key.0.as_deref()) {
            return None;
        }
        let subscription = self.state.lock().subscription.clone();
        Some(subscription.is_some_and(|subscription| subscription.cut(End::Revoked, Ended::Revoked)))
    }

    fn handing(&self) -> Option<Arc<Tasks>> {
        None
    }
}
