//! Which past events are for whom. Those who catch up in a channel share the judging of its events, as those who are live do.
//!
//! Readers of one tenant are taken together into a panel: an index of all that they ask, which is asked once for each event and finds
//! whom it is for. What it found stays with the event, one bit a condition, and each reader looks at its own. Equal conditions are one.
//! Where there are few readers, or no place for what was found, each judges for itself; either way the same counts as withheld.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tokio::sync::OwnedSemaphorePermit;

use super::shelf::{Shelf, Weight};
use crate::admission::{Questions, is_routed};
use crate::event::Event;
use crate::matching::{Condition, Index, Verdict};

/// Fewer readers than these judge for themselves.
const LEAST: usize = 8;
/// Conditions of one panel: an event that none of its readers have come to may be judged for all of them.
const CONDITIONS: usize = 256;
/// Bytes of one panel's index; one condition alone may take more.
const BYTES: usize = 512 << 10;
/// Panels of one channel at the same time.
const PANELS: usize = u128::BITS as usize;

/// What judging an event costs, in units of looking at what was found.
const JUDGED: usize = 8;

/// The conditions of those who catch up in one channel. All of it is guarded by the lock of its past.
#[derive(Default)]
pub(super) struct Judging {
    /// Each once, by tenant and condition.
    asked: HashTable<Arc<Asked>>,
    hashing: RandomState,
    /// Those that are in no panel yet, by tenant.
    waiting: HashMap<Option<Arc<str>>, Waiting>,
    panels: Vec<Option<Panel>>,
    /// The number of the last panel that was made.
    last: u64,
}

/// What some readers of one tenant ask of events.
pub(super) struct Asked {
    tenant: Option<Arc<str>>,
    questions: Questions,
    hash: u64,
    readers: AtomicUsize,
    seat: OnceLock<Seat>,
}

/// Where the answers to some questions stand: in which panel, and under which of its bits.
struct Seat {
    panel: usize,
    whole: usize,
    without_rows: Option<usize>,
    of_sources: Option<[usize; 2]>,
}

#[derive(Default)]
struct Waiting {
    /// The oldest first; some may have gone, or have a seat.
    asked: Vec<Weak<Asked>>,
    readers: usize,
}

struct Panel {
    /// No other panel has had it.
    number: u64,
    tenant: Option<Arc<str>>,
    /// The bit of each condition, for as long as one of its readers is there.
    index: Index<usize>,
    readers: usize,
    /// Its part of the bytes of all panels.
    _share: Option<OwnedSemaphorePermit>,
}

/// What panels have found of one event, by their places.
#[derive(Default)]
pub(super) struct Findings {
    /// Those of which one reader has come by.
    seen: u128,
    found: Vec<Finding>,
}

#[derive(Default)]
struct Finding {
    /// Zero where none was asked yet.
    panel: u64,
    /// What is true of the event; empty where nothing is.
    bits: Box<[u64]>,
}

/// What becomes of an event for one reader.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// What it took to know that: one, where it was known.
    pub(super) cost: usize,
}

impl Judging {
    /// Somebody begins to catch up.
    pub(super) fn enter(
        &mut self,
        tenant: Option<&Arc<str>>,
        condition: &Condition,
        questions: impl FnOnce() -> Questions,
    ) -> Arc<Asked> {
        let hash = self.hashing.hash_one((tenant, condition));
        let is_it = |asked: &Arc<Asked>| {
            asked.hash == hash && asked.tenant.as_ref() == tenant && asked.questions.whole == *condition
        };
        let asked = self.asked.find(hash, is_it).cloned().unwrap_or_else(|| {
            let made = Arc::new(Asked {
                tenant: tenant.cloned(),
                questions: questions(),
                hash,
                readers: AtomicUsize::new(0),
                seat: OnceLock::new(),
            });
            self.asked.insert_unique(hash, made.clone(), |asked| asked.hash);
            self.waiting.entry(tenant.cloned()).or_default().asked.push(Arc::downgrade(&made));
            made
        });
        asked.readers.fetch_add(1, Relaxed);
        *self.readers_beside(&asked) += 1;
        asked
    }

    /// It has caught up, or has gone.
    pub(super) fn leave(&mut self, asked: &Arc<Asked>) {
        let is_last = asked.readers.fetch_sub(1, Relaxed) == 1;
        if is_last && let Ok(found) = self.asked.find_entry(asked.hash, |other| Arc::ptr_eq(other, asked)) {
            found.remove();
        }
        let readers = self.readers_beside(asked);
        *readers -= 1;
        let is_last = *readers == 0;
        match asked.seat.get() {
            Some(seat) if is_last => self.panels[seat.panel] = None,
            None if is_last => _ = self.waiting.remove(&asked.tenant),
            None => self.waiting.entry(asked.tenant.clone()).or_default().tidy(),
            Some(_) => {}
        }
    }

    /// How many readers are in the panel of this one, or wait beside it.
    fn readers_beside(&mut self, asked: &Asked) -> &mut usize {
        let panel = asked.seat.get().and_then(|seat| self.panels[seat.panel].as_mut());
        match panel {
            Some(panel) => &mut panel.readers,
            None => &mut self.waiting.entry(asked.tenant.clone()).or_default().readers,
        }
    }

    /// Gives a seat to one that has none, and to those that wait beside it, where that pays.
    pub(super) fn seat(&mut self, asked: &Arc<Asked>, shelf: &Arc<Shelf>) {
        if asked.seat.get().is_some() {
            return;
        }
        let Some(waiting) = self.waiting.get_mut(&asked.tenant).filter(|waiting| waiting.readers >= LEAST) else {
            return;
        };
        let free = self.panels.iter().position(Option::is_none).unwrap_or(self.panels.len());
        let share = shelf.panels.clone().try_acquire_many_owned(BYTES as u32).ok();
        let Some(mut share) = share.filter(|_| free < PANELS) else { return };
        let (mut index, mut size, mut readers) = (Index::default(), 0, 0);
        let mut take = |asked: &Asked| {
            let has_room = index.len() < CONDITIONS && size + asked.questions.whole.size() <= BYTES;
            if (has_room || index.is_empty()) && asked.seat.get().is_none() {
                let seat = asked.questions.seat(free, &mut index, &mut size);
                readers += usize::from(asked.seat.set(seat).is_ok()) * asked.readers.load(Relaxed);
            }
            has_room
        };
        take(asked);
        let mut rest = std::mem::take(&mut waiting.asked);
        // One that has gone, or has a seat now, does not wait any more.
        let still = rest.iter().position(|other| other.upgrade().is_some_and(|other| !take(&other)));
        waiting.asked = rest.split_off(still.unwrap_or(rest.len()));
        waiting.readers -= readers;
        if waiting.readers == 0 {
            self.waiting.remove(&asked.tenant);
        }
        self.last += 1;
        let share = share.split(size.min(BYTES));
        let panel = Panel { number: self.last, tenant: asked.tenant.clone(), index, readers, _share: share };
        match self.panels.get_mut(free) {
            Some(place) => *place = Some(panel),
            None => self.panels.push(Some(panel)),
        }
    }

    /// What becomes of an event for a reader. `weight` grows by what is kept of it.
    pub(super) fn judge(&self, asked: &Asked, event: &Event, findings: &mut Findings, weight: &mut Weight) -> Judged {
        let found = asked.seat.get().and_then(|seat| {
            let panel = self.panels[seat.panel].as_ref()?;
            Some((seat, findings.of(seat.panel, panel, event, weight)?))
        });
        let (verdict, cost) = match found {
            Some((seat, (finding, cost))) => (seat.verdict(finding), cost),
            None => (asked.judge(event), JUDGED),
        };
        Judged { verdict, cost }
    }
}

#[cfg(test)]
impl Judging {
    /// Nothing is left of anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.waiting.is_empty() && self.panels.iter().all(Option::is_none)
    }
}

impl Waiting {
    /// Lets go of those that have gone, where they are many.
    fn tidy(&mut self) {
        if self.asked.len() > 2 * self.readers + LEAST {
            self.asked.retain(|asked| asked.upgrade().is_some_and(|asked| asked.seat.get().is_none()));
        }
    }
}

impl Asked {
    fn judge(&self, event: &Event) -> Verdict {
        match is_routed(event, self.tenant.as_deref()) {
            true => self.questions.whole.judge(event),
            false => Verdict::Tenant,
        }
    }
}

impl Questions {
    /// Puts them into the index of a panel, each once.
    fn seat(&self, panel: usize, index: &mut Index<usize>, size: &mut usize) -> Seat {
        let mut bit = |condition: &Condition| match index.get(condition) {
            Some(bit) => *bit,
            None => {
                let bit = index.len();
                index.insert(condition, bit);
                *size += condition.size();
                bit
            }
        };
        Seat {
            panel,
            whole: bit(&self.whole),
            without_rows: self.without_rows.as_ref().map(&mut bit),
            of_sources: self.of_sources.as_ref().map(|[all, allowed]| [bit(all), bit(allowed)]),
        }
    }
}

impl Seat {
    /// As a condition judges; what matters to nobody is [`Verdict::Where`].
    fn verdict(&self, finding: &Finding) -> Verdict {
        if finding.has(self.whole) {
            Verdict::Match
        } else if self.without_rows.is_some_and(|bit| finding.has(bit)) {
            Verdict::Rows
        } else if self.of_sources.is_some_and(|[all, allowed]| finding.has(all) && !finding.has(allowed)) {
            Verdict::Sources
        } else {
            Verdict::Where
        }
    }
}

impl Findings {
    /// What a panel finds, and what it took to know that. Nothing for the first reader who comes by, who may be the only one; and
    /// nothing where too much is kept already.
    fn of(&mut self, place: usize, panel: &Panel, event: &Event, weight: &mut Weight) -> Option<(&Finding, usize)> {
        if self.found.get(place).is_some_and(|finding| finding.panel == panel.number) {
            return Some((&self.found[place], 1));
        }
        let is_first = self.seen >> place & 1 == 0;
        self.seen |= 1 << place;
        if is_first || weight.is_full() {
            return None;
        }
        let mut finding = Finding { panel: panel.number, ..Finding::default() };
        if is_routed(event, panel.tenant.as_deref()) {
            panel.index.matches(event, |bit| finding.set(*bit, panel.index.len()));
        }
        let missing = (place + 1).saturating_sub(self.found.len());
        weight.add(missing * size_of::<Finding>() + finding.bits.len() * size_of::<u64>());
        self.found.resize_with(self.found.len() + missing, Finding::default);
        self.found[place] = finding;
        // Each of its conditions may have had to be asked.
        Some((&self.found[place], JUDGED + panel.index.len() / JUDGED))
    }
}

impl Finding {
    fn set(&mut self, bit: usize, size: usize) {
        if self.bits.is_empty() {
            self.bits = vec![0; size.div_ceil(64)].into();
        }
        self.bits[bit / 64] |= 1 << (bit % 64);
    }

    fn has(&self, bit: usize) -> bool {
        self.bits.get(bit / 64).is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
    }
}
