//! The bus of one process: publishing hands the event over before it returns.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{BoxFuture, BusError, EventBus, Position, Published, Receiver, Status};
use crate::event::{Event, Offset};
use crate::revocation::Revocation;

/// Events of this process, with an optional history for each channel.
pub struct MemoryBus {
    history: usize,
    epoch: u64,
    /// Held while an event is handed over: that is what gives all channels one order.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    receiver: Option<Arc<dyn Receiver>>,
    end: Offset,
    channels: FxHashMap<Arc<str>, History>,
}

#[derive(Default)]
struct History {
    events: VecDeque<Arc<Event>>,
    /// The greatest offset that is not kept any more.
    trimmed: Offset,
}

impl MemoryBus {
    /// A bus that keeps the last `history` events of every channel.
    pub fn new(history: usize) -> MemoryBus {
        // A version 7 UUID's last 64 bits are random.
        let (_, epoch) = uuid::Uuid::now_v7().as_u64_pair();
        MemoryBus { history, epoch, state: Mutex::default() }
    }
}

impl EventBus for MemoryBus {
    fn connect(&self, receiver: Arc<dyn Receiver>) -> BoxFuture<'_, Result<(), BusError>> {
        self.state.lock().receiver = Some(receiver);
        Box::pin(std::future::ready(Ok(())))
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        let receiver = self.state.lock().receiver.take();
        drop(receiver);
        Box::pin(std::future::ready(()))
    }

    fn publish(&self, events: Vec<Event>) -> Published {
        let mut state = self.state.lock();
        for mut event in events {
            state.end += 1;
            event.offset = state.end;
            let event = Arc::new(event);
            if self.history > 0 {
                let history = state.channels.entry(event.channel.clone()).or_default();
                history.events.push_back(event.clone());
                if history.events.len() > self.history {
                    history.trimmed = history.events.pop_front().map_or(history.trimmed, |oldest| oldest.offset);
                }
            }
            if let Some(receiver) = &state.receiver {
                receiver.receive(event);
            }
        }
        Published::Now
    }

    fn revoke(&self, _revocation: &Arc<Revocation>) -> Published {
        // There are no others.
        Published::Now
    }

    fn watch(&self, _channel: &Arc<str>) {}

    fn unwatch(&self, _channel: &Arc<str>) {}

    fn position(&self) -> Option<Position> {
        (self.history > 0).then(|| Position { epoch: self.epoch, offset: self.state.lock().end })
    }

    fn read<'a>(
        &'a self,
        channel: &'a str,
        after: Offset,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusError>> {
        let state = self.state.lock();
        let page = match state.channels.get(channel) {
            Some(history) if after < history.trimmed => Err(BusError::HistoryLost),
            Some(history) => {
                let from = history.events.partition_point(|event| event.offset <= after);
                Ok(history.events.range(from..).take(limit).cloned().collect())
            }
            None => Ok(Vec::new()),
        };
        Box::pin(std::future::ready(page))
    }

    fn status(&self) -> Status {
        Status { kind: "memory", connected: true, last_error: None }
    }
}
