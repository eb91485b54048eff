//! The bus of one process: publishing hands the event over before it returns.
//!
//! What it keeps is bounded by channel, and so is how many channels it keeps that nobody watches. Of one that it forgets it knows only
//! up to where there may have been events; a token from before that is refused on every channel that it does not know any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use foldhash::{HashMap, HashSet};
use parking_lot::Mutex;

use super::{BoxFuture, BusError, EventBus, Page, Published, Receiver, Status, Watched};
use crate::accounts::Revocation;
use crate::event::{Event, Offset, Position};

/// Channels that are kept while nobody watches them,
const UNWATCHED: usize = 10_000;
/// and for how long after their last event.
const AGE: TimeDelta = TimeDelta::hours(1);
/// A page has no further event when it has so many bytes.
const PAGE_BYTES: usize = 1 << 20;

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
    watched: HashSet<Arc<str>>,
    /// Channels with a history that nobody watches, by the offset of their last event.
    unwatched: BTreeMap<Offset, Arc<str>>,
    /// Channels that are forgotten had no event beyond it.
    forgotten: Offset,
}

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
        let trimmed = history.map_or(state.forgotten, |history| history.trimmed);
        if after.epoch != self.epoch || after.offset > state.end || after.offset < trimmed {
            return Err(BusError::HistoryLost);
        }
        let mut page = Page { events: Vec::new(), through: state.end };
        let kept = history.map(|history| &history.events);
        let from = kept.map_or(0, |kept| kept.partition_point(|event| event.position.offset <= after.offset));
        let mut bytes = 0;
        for event in kept.into_iter().flat_map(|kept| kept.range(from..)) {
            if page.events.len() == limit || bytes >= PAGE_BYTES {
                page.through = page.events.last().map_or(after.offset, |last| last.position.offset);
                break;
            }
            bytes += event.size;
            page.events.push(event.clone());
        }
        Ok(page)
    }
}

impl History {
    fn last(&self) -> Offset {
        self.events.back().map_or(0, |event| event.position.offset)
    }
}

impl State {
    /// Keeps an event, and the last `most` of its channel.
    fn keep(&mut self, event: &Arc<Event>, most: usize) {
        let begun = || History { events: VecDeque::new(), trimmed: self.forgotten };
        let history = self.channels.entry(event.channel.clone()).or_insert_with(begun);
        if !self.watched.contains(&event.channel) {
            self.unwatched.remove(&history.last());
            self.unwatched.insert(event.position.offset, event.channel.clone());
        }
        history.events.push_back(event.clone());
        if history.events.len() > most {
            history.trimmed = history.events.pop_front().map_or(history.trimmed, |oldest| oldest.position.offset);
        }
        self.forget(event.published_at);
    }

    /// Forgets channels that nobody watches, the one with the oldest last event first.
    fn forget(&mut self, now: DateTime<Utc>) {
        while let Some((last, channel)) = self.unwatched.first_key_value() {
            let newest = self.channels.get(channel).and_then(|history| history.events.back());
            let is_old = newest.is_none_or(|newest| now - newest.published_at > AGE);
            if self.unwatched.len() <= UNWATCHED && !is_old {
                return;
            }
            self.forgotten = *last;
            self.channels.remove(channel);
            self.unwatched.pop_first();
        }
    }

    fn unwatch(&mut self, channel: &Arc<str>) {
        if self.watched.remove(channel)
            && let Some(history) = self.channels.get(channel)
        {
            self.unwatched.insert(history.last(), channel.clone());
        }
    }
}

impl EventBus for MemoryBus {
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>> {
        let mut state = self.state.lock();
        state.receiver = receiver;
        // A run that never ended has left its own.
        let watched = Vec::from_iter(state.watched.iter().cloned());
        watched.iter().for_each(|channel| state.unwatch(channel));
        drop(state);
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
                state.keep(&event, self.history);
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

    fn watch(&self, channel: &Arc<str>) -> Watched {
        let State { end, channels, watched, unwatched, .. } = &mut *self.state.lock();
        if self.history > 0
            && watched.insert(channel.clone())
            && let Some(history) = channels.get(channel)
        {
            unwatched.remove(&history.last());
        }
        Watched::Now(*end)
    }

    fn unwatch(&self, channel: &Arc<str>) {
        self.state.lock().unwatch(channel);
    }

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

#[cfg(test)]
mod tests;
