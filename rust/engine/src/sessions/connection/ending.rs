//! How a connection ends: its reader is too slow, the socket is gone, the server drains and stops, or somebody decided so elsewhere.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use super::{Connection, Outgoing, State};
use crate::delivery::End;
use crate::operators::{DropReason, Ended, audit};
use crate::sessions::protocol::{Action, Close};
use crate::viewer::Viewer;

impl Connection {
    /// Closes it for a reason that was decided elsewhere.
    pub fn close(self: &Arc<Self>, close: Close) {
        let mut state = self.state.lock();
        self.end(&mut state, close, Ended::Disconnect);
        self.settle(state);
    }

    /// Its reader is too slow: what waits is discarded.
    pub(super) fn slow(&self, state: &mut State) {
        if !state.protocol.is_closed() {
            self.note(audit::Kind::SlowConsumer, state.viewer.as_deref(), "");
            // What waits for others goes down with the one that overflowed.
            let left: usize = state.operations.values().map(|subscription| subscription.mailbox.waiting()).sum();
            self.sessions.engine.parts.metrics.dropped(DropReason::Overflow, left as u64);
        }
        self.end(state, Close::SLOW_CONSUMER, Ended::Slow);
    }

    /// Lets go of it, as its account holds most of what the process may hold.
    pub(crate) fn shed(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.slow(&mut state);
        self.settle(state);
    }

    /// What its account, and itself, hold.
    pub(crate) fn holds(&self) -> (usize, usize) {
        let load = self.state.lock().load.clone();
        (load.account.total(), self.outbox.bytes() + load.total())
    }

    /// The socket is gone, or the close was sent: nothing of the connection stays.
    pub fn lost(&self) {
        let mut state = self.state.lock();
        if let Some(Action::Close(close)) = state.protocol.close(Close::GOING_AWAY) {
            self.finish(&mut state, close, Ended::Disconnect);
        }
        state.control.clear();
        state.registered = None;
        state.authorisation = None;
        state.under_way = None;
        self.sessions.timers.set(&mut state.alarm, None, Weak::<Connection>::new());
        drop(state);
        self.sessions.pending.lock().remove(&self.number);
        self.sessions.connections.remove(&self.id);
    }

    /// Completes every operation; when all is sent, the connection closes.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for subscription in state.operations.values() {
            subscription.mailbox.end(End::Complete);
        }
        self.outbox.signal();
    }

    /// Closes what draining has not; what still waits is dropped and counted.
    pub(crate) fn stop(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let left: usize = state.operations.values().map(|subscription| subscription.close(Ended::Drained)).sum();
        self.sessions.engine.parts.metrics.dropped(DropReason::Drain, left as u64);
        self.end(&mut state, Close::GOING_AWAY, Ended::Drained);
        self.settle(state);
    }

    /// Closes it, unless it is closed already.
    pub(super) fn end(&self, state: &mut State, close: Close, how: Ended) {
        if let Some(Action::Close(close)) = state.protocol.close(close) {
            self.closed(state, close, how);
        }
    }

    /// The machine has closed. One that was never acknowledged was refused.
    pub(super) fn closed(&self, state: &mut State, close: Close, how: Ended) {
        if state.held.is_none() {
            self.note(audit::Kind::ConnectionRefused, None, close.reason().to_owned());
        }
        self.finish(state, close, how);
    }

    /// Every subscription ends, and the close is all that is still sent.
    fn finish(&self, state: &mut State, close: Close, how: Ended) {
        for (_, subscription) in state.operations.drain() {
            subscription.close(how);
        }
        state.held = None;
        state.control.clear();
        state.held_back.clear();
        state.control_bytes = 0;
        state.answers = None;
        state.asked = None;
        state.control.push_back(Outgoing::Close(close));
        // A mailbox that nobody takes from any more would hold its outbox, which holds it.
        self.outbox.clear();
    }

    /// Closes what was not acknowledged, for a reason that operators are told.
    pub(super) fn refuse(&self, state: &mut State, close: Close, viewer: Option<&Viewer>, reason: Cow<'static, str>) {
        if let Some(Action::Close(close)) = state.protocol.close(close) {
            self.note(audit::Kind::ConnectionRefused, viewer, reason);
            self.finish(state, close, Ended::Disconnect);
        }
    }
}
