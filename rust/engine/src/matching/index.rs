//! The index: finds the groups of subscriptions whose condition an event fulfils, at the cost of what it finds.
//!
//! On the event's way it is asked first, one index for each tenant and channel. The places that must equal something (event types,
//! `where`, `rows`) are a composite key; conditions with the same places share a *shape*, which is one hash table. An event looks up,
//! once a shape, the key that its own values give: once, however many conditions there are and however long their lists. Behind a hit
//! only the residue is evaluated: what the key has not proved. Hashes are keyed by chance, since the values are the clients'.
//!
//! A key is not kept: it is the number of a condition and which of its alternatives it is, so that an element of a list takes its
//! own bytes in the condition, and twelve more in the table.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::condition::{Condition, MAX_PLACES, Place, Verdict};
use crate::event::Event;
use crate::predicate::{Form, IllTyped, Notes, Set, hash_form};

/// What became of an event beside the groups that it was for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Withheld {
    /// How many groups that their keys found it was withheld from by the federation boundary.
    pub sources: u64,
    /// And by the row filter.
    pub rows: u64,
    /// Comparisons that were unknown because a side that is there was ill-typed, by declaration.
    pub(crate) ill_typed: Vec<(usize, IllTyped)>,
}

impl std::ops::AddAssign for Withheld {
    fn add_assign(&mut self, other: Withheld) {
        self.sources += other.sources;
        self.rows += other.rows;
        for (field, note) in other.ill_typed {
            self.note(field, note);
        }
    }
}

impl Withheld {
    /// What one condition's verdict withholds comes in addition.
    pub(crate) fn count(&mut self, verdict: Verdict) {
        self.sources += u64::from(verdict == Verdict::Sources);
        self.rows += u64::from(verdict == Verdict::Rows);
    }

    fn note(&mut self, field: usize, note: IllTyped) {
        let is_known = |(known, other): &(usize, IllTyped)| *known == field && other.path == note.path;
        if !self.ill_typed.iter().any(is_known) {
            self.ill_typed.push((field, note));
        }
    }
}

/// Groups by their conditions.
#[derive(Debug)]
pub struct Index<G> {
    entries: Vec<Option<Entry<G>>>,
    /// Numbers of entries that are free again.
    free: Vec<u32>,
    by_condition: HashTable<u32>,
    shapes: Vec<Shape>,
    hashing: RandomState,
}

#[derive(Debug)]
struct Entry<G> {
    condition: Condition,
    group: G,
}

/// Conditions with the same places.
#[derive(Debug)]
struct Shape {
    places: Box<[Place]>,
    buckets: HashTable<Bucket>,
    /// Further postings of keys that several conditions have.
    more: Vec<Vec<Posting>>,
    /// Lists of `more` that are free again.
    spare: Vec<u32>,
    /// How many conditions there are of each declaration, with its event types.
    declarations: Vec<(usize, Option<Set>, usize)>,
}

/// The conditions that have a key.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    first: Posting,
    /// The number of a list of others.
    more: u32,
}

const NO_MORE: u32 = u32::MAX;

/// A key of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Posting {
    entry: u32,
    /// Which of its keys, counted with the first place turning fastest.
    key: u32,
}

impl<G> Default for Index<G> {
    fn default() -> Index<G> {
        Index {
            entries: Vec::new(),
            free: Vec::new(),
            by_condition: HashTable::new(),
            shapes: Vec::new(),
            hashing: RandomState::default(),
        }
    }
}

impl<G> Index<G> {
    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.by_condition.is_empty()
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.by_condition.len()
    }

    /// Every group.
    pub fn groups(&self) -> impl Iterator<Item = &G> {
        self.entries.iter().flatten().map(|entry| &entry.group)
    }

    /// The group of a condition.
    pub fn get(&self, condition: &Condition) -> Option<&G> {
        let number = self.by_condition.find(condition.hash(), |number| self.is_of(*number, condition))?;
        self.entry(*number).map(|entry| &entry.group)
    }

    /// Adds a group; one that stands under the same condition is replaced and dropped.
    pub fn insert(&mut self, condition: &Condition, group: G) {
        self.remove(condition);
        let entry = Entry { condition: condition.clone(), group };
        let count = entry.count();
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.entries.push(None);
                self.entries.len() as u32 - 1
            }
        };
        self.entries[number as usize] = Some(entry);
        let entries = &self.entries;
        let hash = |number: &u32| entries[*number as usize].as_ref().map_or(0, |entry| entry.condition.hash());
        self.by_condition.insert_unique(condition.hash(), number, hash);
        if condition.is_never() {
            return;
        }
        let at = self.shape_of(condition).unwrap_or_else(|| {
            // Most indexes have one shape.
            self.shapes.reserve_exact(1);
            self.shapes.push(Shape::new(condition.keys().iter().map(|(place, _)| place.clone()).collect()));
            self.shapes.len() - 1
        });
        self.shapes[at].count(condition, true);
        for key in 0..count {
            self.shapes[at].insert(Posting { entry: number, key }, &self.entries, &self.hashing);
        }
    }

    /// Removes the group of a condition.
    pub fn remove(&mut self, condition: &Condition) -> Option<G> {
        let found = self.by_condition.find(condition.hash(), |number| self.is_of(*number, condition)).copied();
        let number = found?;
        if let Ok(found) = self.by_condition.find_entry(condition.hash(), |other| *other == number) {
            found.remove();
        }
        if !condition.is_never()
            && let Some(at) = self.shape_of(condition)
        {
            for key in 0..self.entry(number).map_or(0, Entry::count) {
                self.shapes[at].remove(Posting { entry: number, key }, &self.entries, &self.hashing);
            }
            self.shapes[at].count(condition, false);
            if self.shapes[at].buckets.is_empty() {
                self.shapes.swap_remove(at);
            }
        }
        let entry = self.entries[number as usize].take();
        self.free.push(number);
        if self.is_empty() {
            *self = Index::default();
        }
        entry.map(|entry| entry.group)
    }

    /// Calls `found` once for each group whose condition is true of the event; returns from how many more it was withheld, of those
    /// that their key found.
    pub fn matches<'a>(&'a self, event: &Event, mut found: impl FnMut(&'a G)) -> Withheld {
        let (mut withheld, mut notes) = (Withheld::default(), Notes::new());
        for shape in &self.shapes {
            let Some(bucket) = shape.find(event, &self.entries, &self.hashing, &mut withheld) else { continue };
            for posting in shape.postings(bucket) {
                let Some(entry) = self.entry(posting.entry) else { continue };
                match entry.condition.judge_found(event, &mut notes) {
                    Verdict::Match => {
                        found(&entry.group);
                        notes.clear();
                    }
                    Verdict::Sources => withheld.sources += 1,
                    Verdict::Rows => withheld.rows += 1,
                    Verdict::Tenant | Verdict::Channel | Verdict::EventType | Verdict::Where => {}
                }
                notes.drain(..).for_each(|note| withheld.note(entry.condition.field(), note));
            }
        }
        withheld
    }

    fn entry(&self, number: u32) -> Option<&Entry<G>> {
        self.entries[number as usize].as_ref()
    }

    /// Where the shape of a condition stands.
    fn shape_of(&self, condition: &Condition) -> Option<usize> {
        let places = || condition.keys().iter().map(|(place, _)| place);
        self.shapes.iter().position(|shape| shape.places.iter().eq(places()))
    }

    fn is_of(&self, number: u32, condition: &Condition) -> bool {
        self.entry(number).is_some_and(|entry| entry.condition == *condition)
    }
}

impl<G> Entry<G> {
    /// How many keys it has.
    fn count(&self) -> u32 {
        self.condition.keys().iter().map(|(_, set)| set.len() as u32).product()
    }

    /// The forms of one of its keys.
    fn key(&self, mut key: u32) -> impl Iterator<Item = &[u8]> {
        self.condition.keys().iter().map(move |(_, set)| {
            let length = set.len() as u32;
            let form = set.get((key % length) as usize);
            key /= length;
            form
        })
    }
}

impl Shape {
    fn new(places: Box<[Place]>) -> Shape {
        Shape { places, buckets: HashTable::new(), more: Vec::new(), spare: Vec::new(), declarations: Vec::new() }
    }

    /// Notes that a condition has come, or gone.
    fn count(&mut self, condition: &Condition, comes: bool) {
        let field = condition.field();
        match self.declarations.iter().position(|(known, ..)| *known == field) {
            Some(at) if comes => self.declarations[at].2 += 1,
            Some(at) => {
                self.declarations[at].2 -= 1;
                if self.declarations[at].2 == 0 {
                    self.declarations.swap_remove(at);
                }
            }
            None => self.declarations.push((field, condition.event_types().cloned(), 1)),
        }
    }

    /// The bucket of the key that an event's values give.
    fn find<G>(
        &self,
        event: &Event,
        entries: &[Option<Entry<G>>],
        hashing: &RandomState,
        withheld: &mut Withheld,
    ) -> Option<Bucket> {
        const NONE: Option<Form<'static>> = None;
        let mut forms = [NONE; MAX_PLACES];
        let mut hasher = hashing.build_hasher();
        for (form, place) in forms.iter_mut().zip(&self.places) {
            let side = place.side(event);
            let Some(own) = Form::of(side, place.kind()) else {
                if let Place::Event(path, kind) = place
                    && side.is_present()
                {
                    self.note(event, &IllTyped::of_member(path, side, *kind), withheld);
                }
                return None;
            };
            own.hash(&mut hasher);
            *form = Some(own);
        }
        let is_it = |bucket: &Bucket| {
            let entry = entries[bucket.first.entry as usize].as_ref();
            entry.is_some_and(|entry| {
                entry.key(bucket.first.key).zip(forms.iter().flatten()).all(|(key, own)| own.is(key))
            })
        };
        self.buckets.find(hasher.finish(), is_it).copied()
    }

    /// An event whose value is ill-typed is so for all who ask for it, as far as they are about such events.
    fn note(&self, event: &Event, note: &IllTyped, withheld: &mut Withheld) {
        for (field, event_types, _) in &self.declarations {
            if event_types.as_ref().is_none_or(|types| types.has_name(&event.event_type)) {
                withheld.note(*field, note.clone());
            }
        }
    }

    fn postings(&self, bucket: Bucket) -> impl Iterator<Item = Posting> {
        let more = self.more.get(bucket.more as usize).map_or(&[][..], Vec::as_slice);
        std::iter::once(bucket.first).chain(more.iter().copied())
    }

    fn insert<G>(&mut self, posting: Posting, entries: &[Option<Entry<G>>], hashing: &RandomState) {
        let hash = hash(posting, entries, hashing);
        match self.buckets.find_mut(hash, |bucket| same(bucket.first, posting, entries)) {
            None => {
                let bucket = Bucket { first: posting, more: NO_MORE };
                self.buckets.insert_unique(hash, bucket, |bucket| self::hash(bucket.first, entries, hashing));
            }
            Some(bucket) => {
                if bucket.more == NO_MORE {
                    bucket.more = self.spare.pop().unwrap_or(self.more.len() as u32);
                    if bucket.more as usize == self.more.len() {
                        self.more.push(Vec::new());
                    }
                }
                self.more[bucket.more as usize].push(posting);
            }
        }
    }

    fn remove<G>(&mut self, posting: Posting, entries: &[Option<Entry<G>>], hashing: &RandomState) {
        let hash = hash(posting, entries, hashing);
        let Ok(mut found) = self.buckets.find_entry(hash, |bucket| same(bucket.first, posting, entries)) else {
            return;
        };
        let bucket = found.get_mut();
        let Some(more) = self.more.get_mut(bucket.more as usize) else {
            found.remove();
            return;
        };
        if bucket.first == posting {
            bucket.first = more.pop().unwrap_or(posting);
        } else if let Some(at) = more.iter().position(|other| *other == posting) {
            more.swap_remove(at);
        }
        if more.is_empty() {
            *more = Vec::new();
            self.spare.push(bucket.more);
            bucket.more = NO_MORE;
        }
    }
}

fn hash<G>(posting: Posting, entries: &[Option<Entry<G>>], hashing: &RandomState) -> u64 {
    let mut hasher = hashing.build_hasher();
    if let Some(entry) = &entries[posting.entry as usize] {
        entry.key(posting.key).for_each(|form| hash_form(form, &mut hasher));
    }
    hasher.finish()
}

/// Whether two postings are of one key.
fn same<G>(one: Posting, other: Posting, entries: &[Option<Entry<G>>]) -> bool {
    let [one_entry, other_entry] = [one, other].map(|posting| entries[posting.entry as usize].as_ref());
    match (one_entry, other_entry) {
        (Some(left), Some(right)) => left.key(one.key).eq(right.key(other.key)),
        _ => false,
    }
}
