//! A channel's past, as those who are catching up share it: what one of them has read of the bus's history, and the results that one of
//! them has made, are there for the others.
//!
//! It is kept in stretches, each without a hole; whoever asks for what no stretch holds reads a page and so begins or lengthens one.
//! One page of a channel is read at a time, so ten thousand who come back at once read what they missed once. How much is kept is
//! bounded, for each channel and for all of them; whatever is gone can be read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::group::ProjectedResult;
use super::resolver::ClassKey;
use crate::bus::{BusError, EventBus, Page};
use crate::event::{Event, Offset, Position};
use crate::graphql::Plan;

/// Events that are read of the bus at once.
const FETCH: usize = 256;
/// Events that a reader takes at once.
const TAKE: usize = 64;
/// Bytes that one channel's stretches may weigh,
const CHANNEL_BYTES: usize = 4 << 20;
/// and those of all channels, with the results.
const SHELF_BYTES: usize = 16 << 20;
/// Stretches of one channel.
const STRETCHES: usize = 4;
/// Results of one event that are kept.
const RESULTS: usize = 8;
/// Readers that are given something at the same time: what waits for them all is bounded by it.
const AT_ONCE: usize = 32;

/// What the pasts of all channels share.
pub(crate) struct Shelf {
    bus: Arc<dyn EventBus>,
    bytes: AtomicUsize,
    /// Turns of readers.
    pub(crate) turns: Semaphore,
}

impl Shelf {
    pub(crate) fn new(bus: Arc<dyn EventBus>) -> Arc<Shelf> {
        Arc::new(Shelf { bus, bytes: AtomicUsize::new(0), turns: Semaphore::new(AT_ONCE) })
    }

    fn weigh(self: &Arc<Self>, bytes: usize) -> Weight {
        self.bytes.fetch_add(bytes, SeqCst);
        Weight { shelf: self.clone(), bytes }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(SeqCst) > SHELF_BYTES
    }
}

/// Something that is kept; dropped with it.
struct Weight {
    shelf: Arc<Shelf>,
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shelf.bytes.fetch_sub(self.bytes, SeqCst);
    }
}

/// The past of one channel.
pub(crate) struct Past {
    channel: Arc<str>,
    shelf: Arc<Shelf>,
    stretches: Mutex<Vec<Stretch>>,
    /// Held by whoever reads.
    reading: Semaphore,
}

/// All events of the channel beyond one position and up to an offset.
struct Stretch {
    after: Position,
    through: Offset,
    events: VecDeque<Arc<PastEvent>>,
    bytes: usize,
}

/// One event, and the results that were made of it.
pub(crate) struct PastEvent {
    pub(crate) event: Arc<Event>,
    results: Mutex<Vec<Shared>>,
    weight: Weight,
}

/// A call that viewers share: those of one class and one tenant. An event for all tenants is one call for each of them.
#[derive(PartialEq, Eq, Clone)]
pub(crate) struct SharedCall {
    pub(crate) class: Arc<ClassKey>,
    pub(crate) tenant: Option<Arc<str>>,
}

/// A result by what it was made for.
struct Shared {
    plan: Arc<Plan>,
    /// `None` where no function is called.
    call: Option<SharedCall>,
    cell: Arc<OnceCell<Kept>>,
}

struct Kept {
    result: ProjectedResult,
    _weight: Weight,
}

/// Some of the past: all events up to an offset.
pub(crate) struct Excerpt {
    pub(crate) events: Vec<Arc<PastEvent>>,
    pub(crate) through: Offset,
}

impl Past {
    pub(crate) fn new(channel: Arc<str>, shelf: Arc<Shelf>) -> Arc<Past> {
        Arc::new(Past { channel, shelf, stretches: Mutex::default(), reading: Semaphore::new(1) })
    }

    /// Whether it is known that the bus has all that follows a position.
    pub(crate) fn reaches(&self, after: Position) -> bool {
        self.stretches.lock().iter().any(|stretch| stretch.reaches(after))
    }

    /// What follows a position: of what is kept, or read.
    pub(crate) async fn read(&self, after: Position) -> Result<Excerpt, BusError> {
        if let Some(excerpt) = self.find(after) {
            return Ok(excerpt);
        }
        // It is never closed; without a permit everybody would read for himself.
        let _reading = self.reading.acquire().await.ok();
        if let Some(excerpt) = self.find(after) {
            return Ok(excerpt);
        }
        let page = self.shelf.bus.read(&self.channel, after, FETCH).await?;
        Ok(self.keep(after, page))
    }

    fn find(&self, after: Position) -> Option<Excerpt> {
        self.stretches.lock().iter().find_map(|stretch| stretch.excerpt(after))
    }

    /// Keeps a page, and gives its first events.
    fn keep(&self, after: Position, page: Page) -> Excerpt {
        let events: Vec<_> = page.events.into_iter().map(|event| PastEvent::new(event, &self.shelf)).collect();
        let page = Stretch {
            after,
            through: page.through,
            bytes: events.iter().map(PastEvent::bytes).sum(),
            events: events.into(),
        };
        let excerpt = page.excerpt(after).unwrap_or(Excerpt { events: Vec::new(), through: page.through });
        let mut stretches = self.stretches.lock();
        // Another epoch's are of no use to anybody any more.
        stretches.retain(|stretch| stretch.after.epoch == after.epoch);
        let at = stretches.partition_point(|stretch| stretch.after.offset <= after.offset);
        match at.checked_sub(1) {
            Some(before) if stretches[before].through >= after.offset => stretches[before].absorb(page),
            _ => stretches.insert(at, page),
        }
        let mut at = at.saturating_sub(1);
        while at + 1 < stretches.len() {
            if stretches[at].through < stretches[at + 1].after.offset {
                at += 1;
            } else {
                let next = stretches.remove(at + 1);
                stretches[at].absorb(next);
            }
        }
        self.trim(&mut stretches);
        excerpt
    }

    /// Whoever is furthest behind reads again.
    fn trim(&self, stretches: &mut Vec<Stretch>) {
        while stretches.len() > STRETCHES {
            stretches.remove(0);
        }
        while stretches.iter().map(|stretch| stretch.bytes).sum::<usize>() > CHANNEL_BYTES || self.shelf.is_full() {
            let Some(first) = stretches.first_mut() else { return };
            if !first.drop_first() {
                stretches.remove(0);
            }
        }
    }
}

impl Stretch {
    fn reaches(&self, after: Position) -> bool {
        self.after.epoch == after.epoch && (self.after.offset..=self.through).contains(&after.offset)
    }

    fn excerpt(&self, after: Position) -> Option<Excerpt> {
        let holds = self.after.epoch == after.epoch && (self.after.offset..self.through).contains(&after.offset);
        holds.then(|| {
            let from = self.events.partition_point(|past| past.event.position.offset <= after.offset);
            let events: Vec<_> = self.events.range(from..).take(TAKE).cloned().collect();
            let is_rest = from + events.len() == self.events.len();
            let last = events.last().filter(|_| !is_rest);
            Excerpt { through: last.map_or(self.through, |last| last.event.position.offset), events }
        })
    }

    /// Takes over what another one, which begins within this one, has beyond it.
    fn absorb(&mut self, other: Stretch) {
        for past in other.events {
            if past.event.position.offset > self.through {
                self.bytes += PastEvent::bytes(&past);
                self.events.push_back(past);
            }
        }
        self.through = self.through.max(other.through);
    }

    /// Whether there was one.
    fn drop_first(&mut self) -> bool {
        let Some(first) = self.events.pop_front() else { return false };
        self.bytes -= PastEvent::bytes(&first);
        self.after = first.event.position;
        true
    }
}

impl PastEvent {
    fn new(event: Arc<Event>, shelf: &Arc<Shelf>) -> Arc<PastEvent> {
        // A parsed value takes a multiple of its text.
        let text = event.size + event.previous.as_ref().map_or(0, |previous| previous.to_json().len());
        let weight = shelf.weigh(512 + 4 * text);
        Arc::new(PastEvent { event, results: Mutex::default(), weight })
    }

    fn bytes(this: &Arc<PastEvent>) -> usize {
        this.weight.bytes
    }

    /// The result for a plan and a call; made by the first who asks, unless too much is kept already.
    pub(crate) async fn result<F>(
        &self,
        plan: &Arc<Plan>,
        call: Option<&SharedCall>,
        make: impl FnOnce() -> F,
    ) -> Option<ProjectedResult>
    where
        F: Future<Output = Option<ProjectedResult>>,
    {
        let shelf = &self.weight.shelf;
        let cell = {
            let mut results = self.results.lock();
            let known = results.iter().find(|shared| Arc::ptr_eq(&shared.plan, plan) && shared.call.as_ref() == call);
            match known {
                Some(shared) => Some(shared.cell.clone()),
                None if results.len() < RESULTS && !shelf.is_full() => {
                    let cell = Arc::default();
                    results.push(Shared { plan: plan.clone(), call: call.cloned(), cell: Arc::clone(&cell) });
                    Some(cell)
                }
                None => None,
            }
        };
        let Some(cell) = cell else { return make().await };
        let keep = || async {
            let result = make().await.ok_or(())?;
            Ok(Kept { _weight: shelf.weigh(result.bytes()), result })
        };
        let kept: Result<&Kept, ()> = cell.get_or_try_init(keep).await;
        kept.ok().map(|kept| kept.result.clone())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::{MemoryBus, Published};
    use crate::event::Audience;
    use crate::value::Value;

    fn event(channel: &str) -> Event {
        Event {
            id: Event::new_id(),
            event_type: "e".into(),
            channel: channel.into(),
            audience: Audience::Tenant(None),
            source: None,
            published_at: chrono::Utc::now(),
            data: Value::Object([("n".into(), Value::Int(1))].into_iter().collect()),
            size: 7,
            previous: None,
            position: Position::default(),
        }
    }

    proptest! {
        /// Readers who begin anywhere, and take turns in any order, are given what they missed: once, in order, without a hole.
        #[test]
        fn everybody_reads_everything(
            published in proptest::collection::vec(any::<bool>(), 1..2000),
            starts in proptest::collection::vec(0u64..2000, 1..8),
            turns in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let bus: Arc<dyn EventBus> = Arc::new(MemoryBus::new(10_000));
            for own in &published {
                let published = bus.publish(vec![event(if *own { "own" } else { "other" })]);
                prop_assert!(matches!(published, Published::Now));
            }
            let end = bus.position().unwrap();
            let past = Past::new("own".into(), Shelf::new(bus));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut cursors: Vec<u64> = starts.iter().map(|start| start % (end.offset + 1)).collect();
            let mut expected: Vec<_> = cursors.iter().map(|from| {
                let offsets = (from + 1)..=end.offset;
                offsets.filter(|offset| published[*offset as usize - 1]).collect::<VecDeque<_>>()
            }).collect();
            let readers = cursors.len();
            let all = (0..readers * 40).map(|turn| turn % readers);
            for reader in turns.iter().map(|turn| turn.index(readers)).chain(all) {
                let after = Position { offset: cursors[reader], ..end };
                if after.offset < end.offset {
                    let excerpt = runtime.block_on(past.read(after)).unwrap();
                    prop_assert!(excerpt.through > after.offset);
                    for past in &excerpt.events {
                        prop_assert_eq!(Some(past.event.position.offset), expected[reader].pop_front());
                    }
                    cursors[reader] = excerpt.through;
                }
            }
            prop_assert!(cursors.iter().all(|cursor| *cursor == end.offset));
            prop_assert!(expected.iter().all(VecDeque::is_empty));
        }
    }
}
