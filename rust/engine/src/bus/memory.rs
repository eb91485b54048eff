//! The bus of one process: publishing hands the event over before it returns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;

use super::{BoxFuture, BusError, EventBus, Page, Published, Receiver, Status, Watched};
use crate::accounts::Revocation;
use crate::event::{Event, Offset, Position};

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
    channels: HashMap<Arc<str>, History>,
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

    fn page(&self, channel: &str, after: Position, limit: usize) -> Result<Page, BusError> {
        let state = self.state.lock();
        let history = state.channels.get(channel);
        let trimmed = history.map_or(0, |history| history.trimmed);
        if after.epoch != self.epoch || after.offset > state.end || after.offset < trimmed {
            return Err(BusError::HistoryLost);
        }
        let events: Vec<_> = history.map_or_else(Vec::new, |History { events, .. }| {
            let from = events.partition_point(|event| event.position.offset <= after.offset);
            events.range(from..).take(limit).cloned().collect()
        });
        let last = events.last().filter(|_| events.len() == limit);
        Ok(Page { through: last.map_or(state.end, |event| event.position.offset), events })
    }
}

impl EventBus for MemoryBus {
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>> {
        self.state.lock().receiver = receiver;
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
            event.position = Position { epoch: self.epoch, offset: state.end };
            let event = Arc::new(event);
            if self.history > 0 {
                let history = state.channels.entry(event.channel.clone()).or_default();
                history.events.push_back(event.clone());
                if history.events.len() > self.history {
                    history.trimmed =
                        history.events.pop_front().map_or(history.trimmed, |oldest| oldest.position.offset);
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

    fn watch(&self, _channel: &Arc<str>) -> Watched {
        Watched::Now(self.state.lock().end)
    }

    fn unwatch(&self, _channel: &Arc<str>) {}

    fn position(&self) -> Option<Position> {
        (self.history > 0).then(|| Position { epoch: self.epoch, offset: self.state.lock().end })
    }

    fn read<'a>(&'a self, channel: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Page, BusError>> {
        Box::pin(std::future::ready(self.page(channel, after, limit)))
    }

    fn status(&self) -> Status {
        Status { kind: "memory", connected: true, last_error: None, reconnects: 0, lag: Some(Duration::ZERO) }
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn is_local(&self) -> bool {
        true
    }
}
