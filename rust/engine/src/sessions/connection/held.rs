//! Frames that come faster than their account may send: they wait for their turn, and nothing more is read of the connection meanwhile.

use std::sync::Arc;
use std::time::Instant;

use super::Connection;
use crate::accounts::{Kind, Weight};

/// A frame that waits for its turn. The transport waits, then hands the frame in; dropping this says that the connection is read again.
pub struct Held {
    connection: Arc<Connection>,
    until: Instant,
    _weight: Weight,
}

impl Connection {
    /// A frame of so many bytes was read. `None`: it may be handed in at once.
    pub fn arrives(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let parts = &self.sessions.engine.parts;
        let mut state = self.state.lock();
        // One that closes the connection need not wait.
        if state.protocol.is_closed() || bytes > parts.limits.max_message_bytes {
            return None;
        }
        let now = parts.clock.now();
        let until = state.load.account.arrives(bytes, now)?;
        let _weight = state.load.weigh(Kind::Inbound, bytes);
        state.protocol.hold(now);
        self.settle(state);
        Some(Held { connection: self.clone(), until, _weight })
    }
}

impl Held {
    /// Resolves when the frame may be handed in.
    pub async fn turn(self) {
        self.connection.sessions.engine.parts.clock.sleep_until(self.until).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.connection.state.lock();
        state.protocol.go_on(self.connection.sessions.engine.parts.clock.now());
        self.connection.settle(state);
    }
}
