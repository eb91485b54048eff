//! The index: finds the groups of subscriptions whose condition an event fulfils, at the cost of what it finds.
//!
//! On the event's way it is asked first, one index for each tenant and channel. The equalities of a condition (event types, `where`,
//! `rows`) are a composite key; conditions with equalities on the same places share a *shape*, which is one hash table. An event looks
//! up, once a shape, the key that its own values give. Behind a hit only the residue is evaluated: what the key has not proved.
//! Hashes are keyed by chance, since the values are the clients'.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::event::Event;
use crate::predicate::{Bound, Constant, OperandKind, Path, Side, Term, Test, Tree, Truth};
use crate::security::federation::Sources;
use crate::security::rows;
use crate::value::Value;

/// A condition has at most this many keys of several places;
const MAX_KEYS: usize = 64;
/// and this many of one place. What would need more is left to the residue.
const MAX_KEYS_OF_ONE_PLACE: usize = 1024;
/// At most this many places make a shape.
const MAX_PLACES: usize = 8;

/// What one subscription asks of the events of its channel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Condition(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    key: Box<str>,
    event_types: Option<Box<[Box<str>]>>,
    sources: Sources,
    where_: Conjuncts,
    rows: Conjuncts,
}

/// The parts of an `&`, those first that the key of the index proves.
#[derive(Debug)]
struct Conjuncts {
    parts: Box<[Tree<Term>]>,
    proved: usize,
}

/// What decided about an event; the stages are asked in this order. An index knows neither of the first two: they are routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another tenant's.
    Tenant,
    /// It is on another channel.
    Channel,
    /// It is of another type.
    EventType,
    /// It comes from elsewhere.
    Sources,
    /// `where` is not true of it.
    Where,
    /// `where` is true of it, `rows` is not.
    Rows,
    /// It matches.
    Match,
}

impl Verdict {
    /// As operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Tenant => "tenant",
            Verdict::Channel => "channel",
            Verdict::EventType => "event_type",
            Verdict::Sources => "sources",
            Verdict::Where => "where",
            Verdict::Rows => "rows",
            Verdict::Match => "delivered",
        }
    }
}

/// How many groups that their keys found an event was withheld from, by a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// By the federation boundary.
    pub sources: u64,
    /// By the row filter.
    pub rows: u64,
}

impl std::ops::AddAssign for Withheld {
    fn add_assign(&mut self, other: Withheld) {
        self.sources += other.sources;
        self.rows += other.rows;
    }
}

/// A part of a composite key: a place whose value must equal something, by a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    EventType,
    Event(Arc<Path>, OperandKind),
}

impl Place {
    fn kind(&self) -> OperandKind {
        match self {
            Place::EventType => OperandKind::Id,
            Place::Event(_, kind) => *kind,
        }
    }
}

/// What a place may equal, by canonical text.
type Alternatives = BTreeMap<String, Constant>;

impl Condition {
    /// `None` of the event types are all types; `where_` and `rows` must both be true.
    pub fn new(
        event_types: Option<&[String]>,
        sources: Sources,
        where_: Option<Bound>,
        rows: Option<Bound>,
    ) -> Condition {
        let event_types = event_types.map(|types| {
            let mut types: Vec<Box<str>> = types.iter().map(|name| name.as_str().into()).collect();
            types.sort_unstable();
            types.dedup();
            types.into_boxed_slice()
        });
        let always = || Bound(Tree::Join(true, Vec::new()));
        let (where_, rows) = (where_.unwrap_or_else(always), rows.unwrap_or_else(always));
        let key = format!("{event_types:?}\n{sources:?}\n{where_}\n{rows}").into();
        let (where_, rows) = (Conjuncts::new(where_.0), Conjuncts::new(rows.0));
        let mut parts = Parts { key, event_types, sources, where_, rows };
        let keyed: Vec<Place> = parts.places().into_iter().map(|(place, _)| place).collect();
        parts.where_.prove(&keyed);
        parts.rows.prove(&keyed);
        Condition(Arc::new(parts))
    }

    /// Its text: equal conditions, which share a group, have equal texts.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The services that an event may come from.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// The types that an event may have; `None` is any.
    pub(super) fn event_types(&self) -> Option<&[Box<str>]> {
        self.0.event_types.as_deref()
    }

    /// The parts of the `&` that a verdict is about.
    pub(super) fn parts(&self, verdict: Verdict) -> &[Tree<Term>] {
        match verdict {
            Verdict::Where => &self.0.where_.parts,
            Verdict::Rows => &self.0.rows.parts,
            _ => &[],
        }
    }

    /// Whether no event can match.
    pub fn is_never(&self) -> bool {
        self.0.keys().1.is_empty()
    }

    /// Evaluates all of it, as behind a hit of the index but for what the key has proved there.
    pub fn judge(&self, event: &Event) -> Verdict {
        self.0.verdict(event, false)
    }
}

impl Parts {
    /// The verdict; `keyed` spares what the key of the index has proved.
    fn verdict(&self, event: &Event, keyed: bool) -> Verdict {
        let is_type = |types: &[Box<str>]| types.iter().any(|name| **name == *event.event_type);
        if !self.event_types.as_deref().is_none_or(is_type) {
            Verdict::EventType
        } else if !self.sources.decide(event.source.as_deref()).is_allowed() {
            Verdict::Sources
        } else if self.where_.judge(event, keyed) != Some(true) {
            Verdict::Where
        } else if !rows::decide(self.rows.judge(event, keyed)).is_allowed() {
            Verdict::Rows
        } else {
            Verdict::Match
        }
    }

    /// Every place that must equal one of some constants.
    fn equalities(&self) -> BTreeMap<Place, Alternatives> {
        let mut all: BTreeMap<Place, Alternatives> = BTreeMap::new();
        for (place, alternatives) in self.where_.parts.iter().chain(&self.rows.parts).filter_map(equality) {
            match all.get_mut(&place) {
                Some(known) => known.retain(|text, _| alternatives.contains_key(text)),
                None => _ = all.insert(place, alternatives),
            }
        }
        if let Some(types) = &self.event_types {
            let types = types.iter().map(|name| (name.to_string(), Constant::Id(name.clone())));
            all.insert(Place::EventType, types.collect());
        }
        all
    }

    /// The places that make its keys, in the order of shapes: those with the fewest alternatives first, the event type last, as
    /// long as the keys do not become too many.
    fn places(&self) -> Vec<(Place, Alternatives)> {
        let mut candidates: Vec<_> = self.equalities().into_iter().collect();
        candidates.sort_by_key(|(place, alternatives)| (*place == Place::EventType, alternatives.len()));
        let (mut keys, mut chosen) = (1, Vec::new());
        for (place, alternatives) in candidates {
            let product = keys * alternatives.len();
            let alone = chosen.is_empty() && product <= MAX_KEYS_OF_ONE_PLACE;
            if alone || product <= MAX_KEYS.max(keys) && chosen.len() < MAX_PLACES {
                keys = product;
                chosen.push((place, alternatives));
            }
        }
        chosen.sort_by(|(one, _), (other, _)| one.cmp(other));
        chosen
    }

    /// Its shape and its keys; none where no event can match.
    fn keys(&self) -> (Vec<Place>, Vec<Vec<Constant>>) {
        if self.where_.parts.iter().chain(&self.rows.parts).any(Tree::is_never) {
            return (Vec::new(), Vec::new());
        }
        let (mut shape, mut keys) = (Vec::new(), vec![Vec::new()]);
        for (place, alternatives) in self.places() {
            shape.push(place);
            let longer = |key: &Vec<Constant>| {
                let with = |value: &Constant| [key, std::slice::from_ref(value)].concat();
                alternatives.values().map(with).collect::<Vec<_>>()
            };
            keys = keys.iter().flat_map(longer).collect();
        }
        (shape, keys)
    }
}

impl Conjuncts {
    fn new(tree: Tree<Term>) -> Conjuncts {
        let parts = match tree {
            Tree::Join(true, parts) => parts,
            part => vec![part],
        };
        Conjuncts { parts: parts.into(), proved: 0 }
    }

    fn prove(&mut self, keyed: &[Place]) {
        let is_proved = |part: &Tree<Term>| equality(part).is_some_and(|(place, _)| keyed.contains(&place));
        self.parts.sort_by_cached_key(|part| !is_proved(part));
        self.proved = self.parts.iter().filter(|part| is_proved(part)).count();
    }

    /// What it says of an event; `keyed` spares what the key of the index has proved.
    fn judge(&self, event: &Event, keyed: bool) -> Truth {
        let from = if keyed { self.proved } else { 0 };
        Some(self.parts[from..].iter().all(|part| part.judge(event) == Some(true)))
    }
}

/// A tree that is nothing but one place equal to one of some constants.
fn equality(tree: &Tree<Term>) -> Option<(Place, Alternatives)> {
    match tree {
        Tree::Test(Test::Equal, Term::Event(path), Term::Constant(constant)) => {
            let kind = match constant {
                Constant::Id(_) => OperandKind::Id,
                Constant::Instant(_) => OperandKind::DateTime,
                Constant::Json(_) => OperandKind::Json,
                Constant::List(_) | Constant::Null | Constant::IllTyped => return None,
            };
            let alternatives = [(constant.to_string(), constant.clone())].into();
            Some((Place::Event(path.clone(), kind), alternatives))
        }
        Tree::Join(false, branches) => {
            let mut branches = branches.iter().map(equality);
            let (place, mut alternatives) = branches.next()??;
            for branch in branches {
                let (other, more) = branch?;
                (place == other).then(|| alternatives.extend(more))?;
            }
            Some((place, alternatives))
        }
        _ => None,
    }
}

/// Groups by their conditions.
#[derive(Debug)]
pub struct Index<G> {
    groups: HashTable<Arc<Entry<G>>>,
    shapes: Vec<Shape<G>>,
    hashing: RandomState,
}

#[derive(Debug)]
struct Entry<G> {
    condition: Condition,
    group: G,
}

#[derive(Debug)]
struct Shape<G> {
    places: Vec<Place>,
    buckets: HashTable<Bucket<G>>,
}

/// The groups of one key.
#[derive(Debug)]
struct Bucket<G> {
    hash: u64,
    key: Box<[Constant]>,
    entries: Vec<Arc<Entry<G>>>,
}

impl<G> Default for Index<G> {
    fn default() -> Index<G> {
        Index { groups: HashTable::new(), shapes: Vec::new(), hashing: RandomState::new() }
    }
}

impl<G> Index<G> {
    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Every group.
    pub fn groups(&self) -> impl Iterator<Item = &G> {
        self.groups.iter().map(|entry| &entry.group)
    }

    /// The group of the condition with this text.
    pub fn get(&self, key: &str) -> Option<&G> {
        let hash = self.hashing.hash_one(key);
        let entry = self.groups.find(hash, |entry| entry.condition.key() == key)?;
        Some(&entry.group)
    }

    /// Adds a group; one that stands under the same condition is replaced and dropped.
    pub fn insert(&mut self, condition: &Condition, group: G) {
        self.remove(condition.key());
        let condition = condition.clone();
        let (places, keys) = condition.0.keys();
        let entry = Arc::new(Entry { condition, group });
        let hash = |entry: &Arc<Entry<G>>| self.hashing.hash_one(entry.condition.key());
        self.groups.insert_unique(hash(&entry), entry.clone(), hash);
        if keys.is_empty() {
            return;
        }
        let known = self.shapes.iter().position(|shape| shape.places == places);
        let at = known.unwrap_or(self.shapes.len());
        if known.is_none() {
            let buckets = HashTable::new();
            // Most indexes have one shape.
            self.shapes.reserve_exact(1);
            self.shapes.push(Shape { places, buckets });
        }
        for key in keys {
            self.shapes[at].insert(key, &entry, &self.hashing);
        }
    }

    /// Removes the group of the condition with this text.
    pub fn remove(&mut self, key: &str) -> Option<G> {
        let hash = self.hashing.hash_one(key);
        let found = self.groups.find_entry(hash, |entry| entry.condition.key() == key);
        let (entry, _) = found.ok()?.remove();
        let (places, keys) = entry.condition.0.keys();
        if let Some(at) = self.shapes.iter().position(|shape| shape.places == places) {
            for key in keys {
                self.shapes[at].remove(&key, &entry, &self.hashing);
            }
            if self.shapes[at].buckets.is_empty() {
                self.shapes.swap_remove(at);
            }
        }
        if self.groups.is_empty() {
            *self = Index::default();
        }
        Arc::into_inner(entry).map(|entry| entry.group)
    }

    /// Calls `found` once for each group whose condition is true of the event; returns from how many more it was withheld, of those
    /// that their key found.
    pub fn matches<'a>(&'a self, event: &Event, mut found: impl FnMut(&'a G)) -> Withheld {
        let mut withheld = Withheld::default();
        let buckets = self.shapes.iter().filter_map(|shape| shape.find(event, &self.hashing));
        for entry in buckets.flat_map(|bucket| &bucket.entries) {
            match entry.condition.0.verdict(event, true) {
                Verdict::Match => found(&entry.group),
                Verdict::Sources => withheld.sources += 1,
                Verdict::Rows => withheld.rows += 1,
                Verdict::Tenant | Verdict::Channel | Verdict::EventType | Verdict::Where => {}
            }
        }
        withheld
    }
}

impl<G> Shape<G> {
    fn find(&self, event: &Event, hashing: &RandomState) -> Option<&Bucket<G>> {
        let mut sides = [Side::Null; MAX_PLACES];
        for (side, place) in sides.iter_mut().zip(&self.places) {
            *side = match place {
                Place::EventType => Side::Id(&event.event_type),
                Place::Event(path, _) => path.side(event),
            };
        }
        self.buckets.find(self.hash(sides, hashing)?, |bucket| bucket.has(sides))
    }

    /// The hash of a key; `None` where one of its sides equals nothing.
    fn hash<'s>(&self, sides: impl IntoIterator<Item = Side<'s>>, hashing: &RandomState) -> Option<u64> {
        let mut hasher = hashing.build_hasher();
        for (place, side) in self.places.iter().zip(sides) {
            side.hash(place.kind(), &mut hasher)?;
        }
        Some(hasher.finish())
    }

    fn insert(&mut self, key: Vec<Constant>, entry: &Arc<Entry<G>>, hashing: &RandomState) {
        let sides = || key.iter().map(Constant::side);
        let Some(hash) = self.hash(sides(), hashing) else {
            return;
        };
        match self.buckets.find_mut(hash, |bucket| bucket.has(sides())) {
            Some(bucket) => bucket.entries.push(entry.clone()),
            None => {
                let (key, entries) = (key.into(), vec![entry.clone()]);
                let bucket = Bucket { hash, key, entries };
                self.buckets.insert_unique(hash, bucket, |bucket| bucket.hash);
            }
        }
    }

    fn remove(&mut self, key: &[Constant], entry: &Arc<Entry<G>>, hashing: &RandomState) {
        let sides = || key.iter().map(Constant::side);
        let Some(hash) = self.hash(sides(), hashing) else {
            return;
        };
        if let Ok(mut found) = self.buckets.find_entry(hash, |bucket| bucket.has(sides())) {
            let entries = &mut found.get_mut().entries;
            if let Some(at) = entries.iter().position(|other| Arc::ptr_eq(other, entry)) {
                entries.swap_remove(at);
            }
            if entries.is_empty() {
                found.remove();
            }
        }
    }
}

impl<G> Bucket<G> {
    fn has<'s>(&self, sides: impl IntoIterator<Item = Side<'s>>) -> bool {
        let mut pairs = self.key.iter().zip(sides);
        pairs.all(|(key, side)| key.side().equals(side) == Some(true))
    }
}

impl Side<'_> {
    /// Hashes it so that sides which are equal by a kind have equal hashes; `None` where it equals nothing.
    fn hash(self, kind: OperandKind, hasher: &mut (impl Hasher + Clone)) -> Option<()> {
        match kind {
            OperandKind::Id => self.text(&mut itoa::Buffer::new())?.hash(hasher),
            OperandKind::DateTime => self.instant()?.hash(hasher),
            OperandKind::Json => {
                let Side::Json(value) = self else { return None };
                hash(value, hasher);
            }
        }
        Some(())
    }
}

fn hash(value: &Value, hasher: &mut (impl Hasher + Clone)) {
    match value {
        Value::Null | Value::Failed(_) => {}
        Value::Bool(bool) => bool.hash(hasher),
        // Equal numbers have one nearest float. Only a float can be -0, and adding zero makes it 0.
        Value::Int(number) => (*number as f64).to_bits().hash(hasher),
        Value::Float(number) => (number + 0.0).to_bits().hash(hasher),
        Value::Number(text) => text.parse::<f64>().unwrap_or_default().to_bits().hash(hasher),
        Value::String(text) => text.hash(hasher),
        Value::List(items) => items.iter().for_each(|item| hash(item, hasher)),
        // The order of keys must not count: each member has a hash of its own, and they are added.
        Value::Object(members) => {
            let mut sum = 0u64;
            for (key, value) in members {
                let mut member = hasher.clone();
                key.hash(&mut member);
                hash(value, &mut member);
                sum = sum.wrapping_add(member.finish());
            }
            sum.hash(hasher);
        }
    }
}
