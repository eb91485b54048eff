//! The operations of a connection: how one begins, what is said of it, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Outgoing, State};
use crate::clock::within;
use crate::delivery::{End, Mailbox, Settled, Subscription, Taken};
use crate::engine::{Start, Started};
use crate::error::{Rejection, errors_json};
use crate::graphql::Request;
use crate::operators::Ended;
use crate::sessions::protocol::{self, Subscribe};

/// What comes after a subscribe that waits for the bus is answered after it, but no later than this.
const HELD_BACK: Duration = Duration::from_secs(1);

impl Connection {
    /// Ends an operation from the server's side; the client gets `complete`.
    pub(crate) fn complete(&self, id: &str) -> bool {
        let state = self.state.lock();
        state.operations.get(id).is_some_and(|subscription| subscription.mailbox.end(End::Complete))
    }

    pub(super) fn subscribe(self: &Arc<Self>, state: &mut State, request: &Subscribe) {
        let Some(viewer) = &state.viewer else { return };
        let started = self.sessions.engine.subscribe(&Start {
            request: Request {
                query: &request.query,
                operation_name: request.operation_name.as_deref(),
                variables: &request.variables,
                introspection: self.introspection,
            },
            viewer,
            seat: &state.seat,
            id: &request.id,
            resume: &request.resume,
            outbox: &self.outbox,
            connection_id: Some(&self.id),
            host: self.host.as_ref(),
        });
        match started {
            Ok(Started::Live(subscription) | Started::Answering(subscription)) => {
                state.operations.insert(request.id.clone(), subscription);
            }
            Ok(Started::Soon(subscription, settled)) => {
                state.operations.insert(request.id.clone(), subscription.clone());
                // Nobody knows how long the bus is away.
                let holds = self.sessions.engine.parts.bus.status().connected;
                state.waiting += usize::from(holds);
                let arrival = Arrival { connection: self.clone(), subscription, holds };
                self.sessions.runtime.spawn(arrival.wait(settled));
            }
            Ok(Started::Answer(json)) => {
                let answer = protocol::next(&request.id, &json, None);
                self.over(state, &request.id, [answer, protocol::complete(&request.id)]);
            }
            Err(rejection) => self.reject(state, &request.id, &rejection),
        }
    }

    fn reject(&self, state: &mut State, id: &Arc<str>, rejection: &Rejection) {
        self.over(state, id, [protocol::error(id, &errors_json(&rejection.errors()))]);
    }

    /// A subscribe that waited for the bus is refused.
    fn refused(self: &Arc<Self>, subscription: &Arc<Subscription>, rejection: &Rejection) {
        let mut state = self.state.lock();
        let id = subscription.mailbox.id.clone();
        if state.operations.get(&id).is_some_and(|found| Arc::ptr_eq(found, subscription)) {
            state.operations.remove(&id);
            subscription.close(Ended::Error);
            // Before what is held back because of it.
            let held_back = std::mem::take(&mut state.held_back);
            let waiting = std::mem::take(&mut state.waiting);
            self.reject(&mut state, &id, rejection);
            (state.held_back, state.waiting) = (held_back, waiting);
        }
        self.settle(state);
    }

    /// One less to wait for.
    fn arrived(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            let held_back = std::mem::take(&mut state.held_back);
            state.control.extend(held_back.into_iter().map(Outgoing::Text));
        }
        self.settle(state);
    }

    fn over<const N: usize>(&self, state: &mut State, id: &Arc<str>, messages: [String; N]) {
        if state.protocol.ended(id) {
            self.send(state, messages);
        }
    }

    /// The frame for what was taken of a mailbox; `None` where its operation is no longer live.
    pub(super) fn frame(&self, state: &mut State, mailbox: &Arc<Mailbox>, taken: Taken) -> Option<String> {
        let subscription = state.operations.get(&mailbox.id)?;
        if !Arc::ptr_eq(&subscription.mailbox, mailbox) {
            return None;
        }
        let end = match taken {
            Taken::Next { body, dropped, gap } => {
                self.sessions.engine.parts.metrics.events_delivered.inc();
                let extensions = protocol::extensions(mailbox.event_id(&body), dropped, gap);
                return Some(protocol::next(&mailbox.id, &body.json, extensions.as_deref()));
            }
            Taken::End(end) => end,
        };
        let (how, message) = match end {
            End::Complete if state.draining => (Ended::Drained, Some(protocol::complete(&mailbox.id))),
            End::Complete => (Ended::Complete, Some(protocol::complete(&mailbox.id))),
            End::Error(error) => {
                let errors = errors_json(std::slice::from_ref(&*error));
                (Ended::Error, Some(protocol::error(&mailbox.id, &errors)))
            }
            // These end whole connections.
            End::Expired => (Ended::Expired, None),
            End::Revoked => (Ended::Revoked, None),
            End::Slow => (Ended::Slow, None),
        };
        subscription.close(how);
        state.operations.remove(&mailbox.id);
        let message = message?;
        state.protocol.ended(&mailbox.id).then_some(message)
    }
}

/// A subscribe that waits for the bus.
struct Arrival {
    connection: Arc<Connection>,
    subscription: Arc<Subscription>,
    /// Whether what comes after it is held back.
    holds: bool,
}

impl Arrival {
    async fn wait(mut self, mut settled: Settled) {
        let outcome = match within(HELD_BACK, &mut settled).await {
            Some(outcome) => outcome,
            None => {
                self.let_go();
                settled.await
            }
        };
        // One that ended meanwhile says nothing.
        if let Ok(Err(rejection)) = outcome {
            self.connection.refused(&self.subscription, &rejection);
        }
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.connection.arrived();
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.let_go();
    }
}
