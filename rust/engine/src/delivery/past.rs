//! A channel's past, as those who are catching up share it: what one of them has read of the bus's history, whom its events are for, and
//! the results that one of them has made, are there for the others.
//!
//! It is kept in stretches, each without a hole; whoever asks for what no stretch holds reads a page and so begins or lengthens one.
//! One page of a channel is read at a time, so ten thousand who come back at once read what they missed once. How much is kept is
//! bounded, for each channel and for all of them; whatever is gone can be read again, so a reader that waits keeps a position alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::class::ClassKey;
use super::group::ProjectedResult;
use super::judging::{Asked, Findings, Judging};
use super::shelf::{Shelf, Shelved, Weight};
use crate::admission::Questions;
use crate::bus::{BusError, Page};
use crate::event::{Event, Offset, Position};
use crate::graphql::Plan;
use crate::matching::{Condition, Verdict, Withheld};

/// Events that are read of the bus at once.
const FETCH: usize = 256;
/// Events that a passthrough's reader takes at once,
pub(crate) const TAKE: usize = 16;
/// which together weigh so many bytes or are few,
const TAKE_BYTES: usize = 256 << 10;
/// and how much judging he asks for meanwhile, before others have their turn.
const JUDGE: usize = 512;
/// Bytes that one channel's stretches may weigh.
const CHANNEL_BYTES: usize = 4 << 20;
/// Stretches of one channel.
const STRETCHES: usize = 4;
/// Results of one event that are kept.
const RESULTS: usize = 8;

/// The past of one channel.
pub(crate) struct Past {
    channel: Arc<str>,
    shelf: Arc<Shelf>,
    state: Mutex<State>,
    /// Held by whoever reads.
    reading: Semaphore,
    looked_at: AtomicU64,
}

#[derive(Default)]
struct State {
    stretches: Vec<Stretch>,
    judging: Judging,
}

/// One who catches up, until it is dropped.
pub(crate) struct Reader {
    past: Arc<Past>,
    asked: Arc<Asked>,
}

/// All events of the channel beyond one position and up to an offset.
struct Stretch {
    after: Position,
    through: Offset,
    events: VecDeque<Known>,
    bytes: usize,
}

/// An event, and what is known of whom it is for.
struct Known {
    past: Arc<PastEvent>,
    findings: Findings,
    /// Of the event and the findings.
    weight: Weight,
}

/// One event, and the results that were made of it.
pub(crate) struct PastEvent {
    pub(crate) event: Arc<Event>,
    /// What it weighs.
    pub(crate) bytes: usize,
    /// `None` once it is not on the shelf any more.
    results: Mutex<Option<Vec<Shared>>>,
    shelf: Arc<Shelf>,
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

/// Some of the past, for one reader: all events up to an offset that are for him.
pub(crate) struct Excerpt {
    /// Each with how many more modules withhold from him before it.
    pub(crate) events: Vec<(Withheld, Arc<PastEvent>)>,
    /// And after them.
    pub(crate) withheld: Withheld,
    pub(crate) through: Offset,
}

impl Past {
    pub(crate) fn new(channel: Arc<str>, shelf: Arc<Shelf>) -> Arc<Past> {
        let (state, reading, looked_at) = (Mutex::default(), Semaphore::new(1), AtomicU64::default());
        let past = Arc::new(Past { channel, shelf, state, reading, looked_at });
        let shelved: Weak<dyn Shelved> = Arc::<Past>::downgrade(&past);
        past.shelf.add(shelved);
        past
    }

    /// Somebody begins to catch up, who asks this of the events of its tenant.
    pub(crate) fn enter(
        self: &Arc<Self>,
        tenant: Option<&Arc<str>>,
        condition: &Condition,
        questions: impl FnOnce() -> Questions,
    ) -> Reader {
        let asked = self.state.lock().judging.enter(tenant, condition, questions);
        Reader { past: self.clone(), asked }
    }

    fn find(&self, after: Position, most: usize, asked: &Arc<Asked>) -> Option<Excerpt> {
        let State { stretches, judging } = &mut *self.state.lock();
        let stretch = stretches.iter_mut().find(|stretch| stretch.holds(after))?;
        self.look();
        judging.seat(asked, &self.shelf);
        Some(stretch.excerpt(after, most, asked, judging))
    }

    fn look(&self) {
        self.looked_at.store(self.shelf.look(), SeqCst);
    }

    /// Reads a page of the bus.
    async fn page(&self, after: Position) -> Result<Stretch, BusError> {
        let Page { events, through } = self.shelf.bus.read(&self.channel, after, FETCH).await?;
        let own = events.into_iter().filter(|event| *event.channel == *self.channel);
        let events: VecDeque<_> = own.map(|event| Known::new(event, &self.shelf)).collect();
        Ok(Stretch { after, through, bytes: events.iter().map(|known| known.past.bytes).sum(), events })
    }

    /// Keeps a page, as long as there is room.
    fn keep(&self, stretches: &mut Vec<Stretch>, page: Stretch) {
        self.look();
        let after = page.after;
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
        Past::trim(stretches, after);
    }

    /// Those who are where a page was just read have it; of the others, whoever is furthest behind reads again.
    fn trim(stretches: &mut Vec<Stretch>, read: Position) {
        let first = |stretches: &[Stretch]| stretches.iter().position(|stretch| !stretch.reaches(read)).unwrap_or(0);
        while stretches.len() > STRETCHES {
            stretches.remove(first(stretches));
        }
        while stretches.iter().map(|stretch| stretch.bytes).sum::<usize>() > CHANNEL_BYTES {
            let at = first(stretches);
            let Some(stretch) = stretches.get_mut(at) else { return };
            if !stretch.drop_first() {
                stretches.remove(at);
            }
        }
    }
}

impl Reader {
    /// Whether it is known that the bus has all that follows a position.
    pub(crate) fn reaches(&self, after: Position) -> bool {
        self.past.state.lock().stretches.iter().any(|stretch| stretch.reaches(after))
    }

    /// Makes sure that the bus has it.
    pub(crate) async fn reach(&self, after: Position) -> Result<(), BusError> {
        let _reading = self.past.reading.acquire().await.ok();
        if !self.reaches(after) {
            let page = self.past.page(after).await?;
            self.past.keep(&mut self.past.state.lock().stretches, page);
            self.past.shelf.make_room();
        }
        Ok(())
    }

    /// What follows a position, `most` events of it: of what is kept, or read.
    pub(crate) async fn read(&self, after: Position, most: usize) -> Result<Excerpt, BusError> {
        let Reader { past, asked } = self;
        if let Some(excerpt) = past.find(after, most, asked) {
            return Ok(excerpt);
        }
        // It is never closed; without a permit everybody would read for himself.
        let _reading = past.reading.acquire().await.ok();
        if let Some(excerpt) = past.find(after, most, asked) {
            return Ok(excerpt);
        }
        let mut page = past.page(after).await?;
        let excerpt = {
            let State { stretches, judging } = &mut *past.state.lock();
            let excerpt = page.excerpt(after, most, asked, judging);
            past.keep(stretches, page);
            excerpt
        };
        past.shelf.make_room();
        Ok(excerpt)
    }
}

impl Shelved for Past {
    fn looked_at(&self) -> u64 {
        self.looked_at.load(SeqCst)
    }

    fn let_go(&self) {
        let stretches = std::mem::take(&mut self.state.lock().stretches);
        drop(stretches);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.past.state.lock().judging.leave(&self.asked);
    }
}

impl Stretch {
    fn reaches(&self, after: Position) -> bool {
        self.after.epoch == after.epoch && (self.after.offset..=self.through).contains(&after.offset)
    }

    /// Whether it has what follows a position.
    fn holds(&self, after: Position) -> bool {
        self.reaches(after) && after.offset < self.through
    }

    fn excerpt(&mut self, after: Position, most: usize, asked: &Asked, judging: &Judging) -> Excerpt {
        let mut excerpt = Excerpt { events: Vec::new(), withheld: Withheld::default(), through: self.through };
        let from = self.events.partition_point(|known| known.past.event.position.offset <= after.offset);
        let (mut left, mut bytes, mut last) = (JUDGE, 0, after.offset);
        for Known { past, findings, weight } in self.events.range_mut(from..) {
            if left == 0 || excerpt.events.len() == most || bytes >= TAKE_BYTES {
                excerpt.through = last;
                break;
            }
            last = past.event.position.offset;
            let judged = judging.judge(asked, &past.event, findings, weight);
            left = left.saturating_sub(judged.cost);
            excerpt.withheld.count(judged.verdict);
            if judged.verdict == Verdict::Match {
                bytes += past.bytes;
                excerpt.events.push((std::mem::take(&mut excerpt.withheld), past.clone()));
            }
        }
        excerpt
    }

    /// Takes over what another one, which begins within this one, has beyond it.
    fn absorb(&mut self, other: Stretch) {
        for known in other.events {
            if known.past.event.position.offset > self.through {
                self.bytes += known.past.bytes;
                self.events.push_back(known);
            }
        }
        self.through = self.through.max(other.through);
    }

    /// Whether there was one.
    fn drop_first(&mut self) -> bool {
        let Some(first) = self.events.pop_front() else { return false };
        self.bytes -= first.past.bytes;
        self.after = first.past.event.position;
        true
    }
}

impl Known {
    fn new(event: Arc<Event>, shelf: &Arc<Shelf>) -> Known {
        // A parsed value takes a multiple of its text.
        let text = event.size + event.previous.as_ref().map_or(0, |previous| previous.to_json().len());
        let (bytes, results) = (512 + 4 * text, Mutex::new(Some(Vec::new())));
        let past = Arc::new(PastEvent { event, bytes, results, shelf: shelf.clone() });
        Known { past, findings: Findings::default(), weight: shelf.weigh(bytes) }
    }
}

impl Drop for Known {
    /// Whoever still reads it holds the event, and nothing that was made of it.
    fn drop(&mut self) {
        let results = self.past.results.lock().take();
        drop(results);
    }
}

impl PastEvent {
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
        let shelf = &self.shelf;
        shelf.make_room();
        let is_it = |shared: &&Shared| Arc::ptr_eq(&shared.plan, plan) && shared.call.as_ref() == call;
        let cell = self.results.lock().as_mut().and_then(|results| match results.iter().find(is_it) {
            Some(shared) => Some(shared.cell.clone()),
            None if results.len() < RESULTS && !shelf.is_full() => {
                let cell = Arc::default();
                results.push(Shared { plan: plan.clone(), call: call.cloned(), cell: Arc::clone(&cell) });
                Some(cell)
            }
            None => None,
        });
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
mod tests;
