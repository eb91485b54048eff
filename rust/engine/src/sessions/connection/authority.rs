//! The life of an authority: how somebody comes to watch on a connection, how that is refreshed, and how it ends.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use super::{Connection, State};
use crate::accounts::{Accounts, Reached, Revocable, Revocation, Seat};
use crate::operators::Ended;
use crate::operators::audit;
use crate::sessions::protocol::Close;
use crate::tasks::Tasks;
use crate::value::Value;
use crate::viewer::Viewer;

/// What an auth handler has to judge.
#[derive(Debug)]
pub struct Question {
    /// By which the answer is given.
    pub number: u64,
    /// What the client gave.
    pub payload: Value,
}

/// What an auth handler said: who watches, or why nobody does, for operators.
pub type Answer = Result<Viewer, Cow<'static, str>>;

/// The number of the question that `connection_init` asks.
pub(super) const INIT: u64 = 0;

impl Connection {
    /// The answer to `connection_init`.
    pub(super) fn authenticated(self: &Arc<Self>, state: &mut State, answer: Answer) {
        let authorisation = state.authorisation.take();
        let viewer = match answer {
            Ok(viewer) => viewer,
            Err(reason) => return self.refuse(state, Close::FORBIDDEN, None, reason),
        };
        let wall = self.sessions.engine.parts.clock.utc();
        if let Err(refusal) = self.sessions.engine.parts.gate.enter(&viewer, wall) {
            if let Some(module) = refusal.module {
                self.sessions.engine.parts.metrics.violation(module);
            }
            return self.refuse(state, Close::FORBIDDEN, Some(&viewer), refusal.reason);
        }
        let (accounts, quotas) = (Accounts::of(&viewer, Some(self.number)), &self.sessions.engine.parts.quotas);
        state.seat = Seat::new(accounts.clone(), &quotas.subscriptions);
        if viewer.user_id.is_some() {
            state.load = quotas.load(&accounts);
        }
        self.outbox.charge_to(state.load.clone());
        let shares = match Seat::new(accounts, &quotas.connections).take() {
            Ok(shares) => shares,
            Err(Reached::User) => {
                let reason = "max_connections_per_user is reached";
                return self.refuse(state, Close::TOO_MANY_OF_ACCOUNT, Some(&viewer), reason.into());
            }
            Err(Reached::Tenant) => {
                let reason = "max_connections_per_tenant is reached";
                return self.refuse(state, Close::TOO_MANY_OF_ACCOUNT, Some(&viewer), reason.into());
            }
        };
        let viewer = Arc::new(viewer);
        state.viewer = Some(viewer.clone());
        self.register(state);
        // Asked when a revocation would find it: one that came before is in the log, one that comes later waits for our lock.
        if authorisation.is_none_or(|authorisation| authorisation.is_revoked(&viewer, Some(&self.id))) {
            return self.refuse(state, Close::FORBIDDEN, Some(&viewer), "revoked meanwhile".into());
        }
        // Under this lock a connection is either pending or acknowledged, so the count below is exact.
        let mut pending = self.sessions.pending.lock();
        pending.remove(&self.number);
        if self.sessions.engine.parts.metrics.connections() >= self.sessions.engine.parts.limits.max_connections as i64
        {
            drop(pending);
            let reason = "max_connections is reached";
            return self.refuse(state, Close::TOO_MANY_CONNECTIONS, Some(&viewer), reason.into());
        }
        let now = self.sessions.engine.parts.clock.now();
        let token = self.sessions.engine.position().map(|end| format!("{{\"resume\":\"{}\"}}", end.token()));
        let action = state.protocol.acknowledge(token.as_deref(), now);
        if state.protocol.is_acknowledged() {
            state.held = Some((self.sessions.engine.parts.metrics.connection(), shares));
            state.expires = viewer.expires_in(wall).map(|left| now + left);
            self.note(audit::Kind::ConnectionAccepted, Some(&viewer), "");
        }
        drop(pending);
        self.act(state, action);
    }

    /// An answer to a refresh that is still waited for. It moves the end of the authority, never a right.
    pub(super) fn refreshed(self: &Arc<Self>, state: &mut State, number: u64, answer: Answer) {
        let Some(old) = state.viewer.clone() else { return };
        let authorisation = state.authorisation.take();
        let wall = self.sessions.engine.parts.clock.utc();
        let refused = |state: &mut State, reason: Cow<'static, str>| {
            self.note(audit::Kind::RefreshRefused, Some(&old), reason);
            let action = state.protocol.refreshed(number, None);
            self.act(state, action);
        };
        let viewer = match answer {
            Ok(viewer) => viewer,
            Err(reason) => return refused(state, reason),
        };
        if let Some(field) = old.differs(&viewer) {
            self.note(audit::Kind::RefreshRefused, Some(&old), format!("another context: {field} differs"));
            return self.end(state, Close::FORBIDDEN, Ended::Disconnect);
        }
        if viewer.is_expired(wall) {
            return refused(state, "the context has expired".into());
        }
        if authorisation.is_none_or(|authorisation| authorisation.is_revoked(&viewer, Some(&self.id))) {
            self.note(audit::Kind::RefreshRefused, Some(&old), "revoked meanwhile");
            return self.end(state, Close::FORBIDDEN, Ended::Revoked);
        }
        let now = self.sessions.engine.parts.clock.now();
        state.expires = viewer.expires_in(wall).map(|left| now + left);
        let expires_at = viewer.expires_at.map_or("null".into(), |at| format!("\"{}\"", at.to_rfc3339()));
        state.viewer = Some(Arc::new(viewer));
        self.note(audit::Kind::Refreshed, Some(&old), "");
        let action = state.protocol.refreshed(number, Some(&expires_at));
        self.act(state, action);
    }

    /// Enters it where revocations look.
    pub(super) fn register(self: &Arc<Self>, state: &mut State) {
        let this: Weak<dyn Revocable> = Arc::<Connection>::downgrade(self);
        // What it was entered as before goes first: a number stands under a name once.
        state.registered = None;
        state.registered =
            Some(self.sessions.registry.register(self.number, state.viewer.as_deref(), Some(&self.id), &this));
    }

    /// The authority has ended in time.
    pub(super) fn expire(&self, state: &mut State) {
        if !state.protocol.is_closed() {
            self.note(audit::Kind::Expired, state.viewer.as_deref(), "");
        }
        self.end(state, Close::FORBIDDEN, Ended::Expired);
    }
}

impl Revocable for Connection {
    fn revoke(&self, revocation: &Revocation) -> Option<bool> {
        // The registry of connections holds every one until it is lost.
        let this = self.sessions.connections.get(&self.id).map(|found| found.value().clone())?;
        let mut state = this.state.lock();
        if !revocation.names(state.viewer.as_deref(), Some(&self.id)) {
            return None;
        }
        let is_live = !state.protocol.is_closed();
        this.end(&mut state, Close::FORBIDDEN, Ended::Revoked);
        this.settle(state);
        Some(is_live)
    }

    fn handing(&self) -> Option<Arc<Tasks>> {
        Some(self.handing.clone())
    }
}
