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
use crate::predicate::{Bound, Constant, OperandKind, Path, Side, Term, Test, Tree};
use crate::value::{Value, write_string};

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
    where_: Conjuncts,
    rows: Conjuncts,
    /// Whether the key of the index proves the event type.
    type_is_proved: bool,
}

/// The parts of an `&`, those first that the key of the index proves.
#[derive(Debug)]
struct Conjuncts {
    parts: Box<[Tree<Term>]>,
    proved: usize,
}

/// What decided about an event; the stages are asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matches.
    Match,
    /// It is of another type.
    EventType,
    /// `where` is not true of it.
    Where,
    /// `where` is true of it, `rows` is not.
    Rows,
}

/// A part of a composite key: a place whose value must equal something, by a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    EventType,
    Event(Arc<Path>, OperandKind),
}

/// What a place may equal, by canonical text.
type Alternatives = BTreeMap<String, Constant>;

impl Condition {
    /// `None` of the event types are all types; `where_` and `rows` must both be true.
    pub fn new(event_types: Option<&[String]>, where_: Option<Bound>, rows: Option<Bound>) -> Condition {
        let event_types = event_types.map(|types| {
            let mut types: Vec<Box<str>> = types.iter().map(|name| name.as_str().into()).collect();
            types.sort_unstable();
            types.dedup();
            types.into_boxed_slice()
        });
        let (where_, rows) = (Conjuncts::new(where_), Conjuncts::new(rows));
        let mut parts = Parts {
            key: key(event_types.as_deref(), &where_, &rows),
            event_types,
            where_,
            rows,
            type_is_proved: false,
        };
        let keyed: Vec<Place> = parts.places().into_iter().map(|(place, _)| place).collect();
        parts.type_is_proved = keyed.contains(&Place::EventType);
        parts.where_.prove(&keyed);
        parts.rows.prove(&keyed);
        Condition(Arc::new(parts))
    }

    /// Its text: equal conditions, which share a group, have equal texts.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Whether no event can match.
    pub fn is_never(&self) -> bool {
        self.0.keys().1.is_empty()
    }

    /// Evaluates all of it.
    pub fn judge(&self, event: &Event) -> Verdict {
        self.0.verdict(event, false)
    }
}

impl Parts {
    /// The verdict, on all parts or on those that the key has not proved.
    fn verdict(&self, event: &Event, keyed: bool) -> Verdict {
        let is_type = |types: &Box<[Box<str>]>| types.iter().any(|name| **name == *event.event_type);
        if !(keyed && self.type_is_proved) && !self.event_types.as_ref().is_none_or(is_type) {
            Verdict::EventType
        } else if !self.where_.hold(event, keyed) {
            Verdict::Where
        } else if !self.rows.hold(event, keyed) {
            Verdict::Rows
        } else {
            Verdict::Match
        }
    }

    /// Every place that must equal one of some constants.
    fn equalities(&self) -> BTreeMap<Place, Alternatives> {
        let mut all = BTreeMap::new();
        for part in self.where_.parts.iter().chain(&self.rows.parts) {
            narrow(&mut all, equalities(part));
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
            let most = if chosen.is_empty() {
                MAX_KEYS_OF_ONE_PLACE
            } else {
                MAX_KEYS.max(keys)
            };
            if product <= most && chosen.len() < MAX_PLACES {
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
                let key = key.clone();
                alternatives
                    .values()
                    .map(move |value| key.iter().chain([value]).cloned().collect())
                    .collect::<Vec<_>>()
            };
            keys = keys.iter().flat_map(longer).collect();
        }
        (shape, keys)
    }
}

impl Conjuncts {
    fn new(bound: Option<Bound>) -> Conjuncts {
        let parts = match bound.map(|bound| bound.0) {
            None => Vec::new(),
            Some(Tree::All(parts)) => parts,
            Some(part) => vec![part],
        };
        Conjuncts {
            parts: parts.into(),
            proved: 0,
        }
    }

    fn prove(&mut self, keyed: &[Place]) {
        let is_proved = |part: &Tree<Term>| equality(part).is_some_and(|(place, _)| keyed.contains(&place));
        self.parts.sort_by_cached_key(|part| !is_proved(part));
        self.proved = self.parts.iter().filter(|part| is_proved(part)).count();
    }

    fn hold(&self, event: &Event, keyed: bool) -> bool {
        let from = if keyed { self.proved } else { 0 };
        self.parts[from..].iter().all(|part| part.judge(event) == Some(true))
    }
}

fn key(event_types: Option<&[Box<str>]>, where_: &Conjuncts, rows: &Conjuncts) -> Box<str> {
    let mut key = String::new();
    match event_types {
        None => key.push('*'),
        Some(types) => types.iter().for_each(|name| write_string(name, &mut key)),
    }
    for conjuncts in [where_, rows] {
        key.push('\n');
        conjuncts.parts.iter().for_each(|part| part.write_key(&mut key));
    }
    key.into()
}

/// A tree that is nothing but one place equal to one of some constants.
fn equality(tree: &Tree<Term>) -> Option<(Place, Alternatives)> {
    match tree {
        Tree::Test(Test::Equal, Term::Event(path), Term::Constant(constant)) => {
            one_of(path, std::iter::once(constant.clone()))
        }
        Tree::Test(Test::In, Term::Event(path), Term::Constant(Constant::List(items))) => {
            one_of(path, items.iter().cloned())
        }
        Tree::Test(Test::In, Term::Event(path), Term::Constant(Constant::Json(list))) => match &**list {
            Value::List(items) => one_of(path, items.iter().map(Constant::json)),
            _ => None,
        },
        Tree::Any(branches) => {
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

fn one_of(path: &Arc<Path>, constants: impl Iterator<Item = Constant>) -> Option<(Place, Alternatives)> {
    let (mut place, mut alternatives) = (None, Alternatives::new());
    for constant in constants {
        let kind = match &constant {
            Constant::Id(_) => OperandKind::Id,
            Constant::Instant(_) => OperandKind::DateTime,
            Constant::Json(_) => OperandKind::Json,
            Constant::List(_) => return None,
            // Nothing equals it.
            Constant::Null | Constant::IllTyped => continue,
        };
        if *place.get_or_insert(kind) != kind {
            return None;
        }
        let mut text = String::new();
        constant.write_key(&mut text);
        alternatives.insert(text, constant);
    }
    Some((
        Place::Event(path.clone(), place.unwrap_or(OperandKind::Json)),
        alternatives,
    ))
}

/// Every place that must equal one of some constants for the tree to be true.
fn equalities(tree: &Tree<Term>) -> BTreeMap<Place, Alternatives> {
    match tree {
        Tree::All(parts) => parts.iter().map(equalities).fold(BTreeMap::new(), |mut all, part| {
            narrow(&mut all, part);
            all
        }),
        Tree::Any(branches) => {
            let widen = |mut all: BTreeMap<Place, Alternatives>, mut branch: BTreeMap<Place, Alternatives>| {
                all.retain(|place, alternatives| {
                    let more = branch.remove(place);
                    alternatives.extend(more.iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
                    more.is_some()
                });
                all
            };
            branches.iter().map(equalities).reduce(widen).unwrap_or_default()
        }
        leaf => equality(leaf).into_iter().collect(),
    }
}

/// Both hold: of a place that both name, what both allow.
fn narrow(all: &mut BTreeMap<Place, Alternatives>, part: BTreeMap<Place, Alternatives>) {
    for (place, alternatives) in part {
        match all.get_mut(&place) {
            Some(known) => known.retain(|key, _| alternatives.contains_key(key)),
            None => _ = all.insert(place, alternatives),
        }
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
        Index {
            groups: HashTable::new(),
            shapes: Vec::new(),
            hashing: RandomState::new(),
        }
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
        let entry = self
            .groups
            .find(self.hashing.hash_one(key), |entry| entry.condition.key() == key)?;
        Some(&entry.group)
    }

    /// Adds a group; one that stands under the same condition is replaced and dropped.
    pub fn insert(&mut self, condition: &Condition, group: G) {
        self.remove(condition.key());
        let entry = Arc::new(Entry {
            condition: condition.clone(),
            group,
        });
        let hashing = &self.hashing;
        let hash = hashing.hash_one(condition.key());
        self.groups
            .insert_unique(hash, entry.clone(), |entry| hashing.hash_one(entry.condition.key()));
        let (places, keys) = condition.0.keys();
        if keys.is_empty() {
            return;
        }
        let at = self
            .shapes
            .iter()
            .position(|shape| shape.places == places)
            .unwrap_or_else(|| {
                self.shapes.push(Shape {
                    places,
                    buckets: HashTable::new(),
                });
                self.shapes.len() - 1
            });
        for key in keys {
            self.shapes[at].insert(key, &entry, hashing);
        }
    }

    /// Removes the group of the condition with this text.
    pub fn remove(&mut self, key: &str) -> Option<G> {
        let hash = self.hashing.hash_one(key);
        let (entry, _) = self
            .groups
            .find_entry(hash, |entry| entry.condition.key() == key)
            .ok()?
            .remove();
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
            self.groups = HashTable::new();
        }
        Arc::into_inner(entry).map(|entry| entry.group)
    }

    /// Calls `found` once for each group whose condition is true of the event; returns how many more would have been but for `rows`,
    /// of those that their key found.
    pub fn matches<'a>(&'a self, event: &Event, mut found: impl FnMut(&'a G)) -> usize {
        let mut filtered = 0;
        for shape in &self.shapes {
            for entry in shape.find(event, &self.hashing) {
                match entry.condition.0.verdict(event, true) {
                    Verdict::Match => found(&entry.group),
                    Verdict::Rows => filtered += 1,
                    Verdict::EventType | Verdict::Where => {}
                }
            }
        }
        filtered
    }
}

impl<G> Shape<G> {
    fn hash<'s>(&self, sides: impl IntoIterator<Item = Side<'s>>, hashing: &RandomState) -> Option<u64> {
        let mut hasher = hashing.build_hasher();
        for (place, side) in self.places.iter().zip(sides) {
            let kind = if let Place::Event(_, kind) = place {
                *kind
            } else {
                OperandKind::Id
            };
            side.hash(kind, &mut hasher)?;
        }
        Some(hasher.finish())
    }

    fn find(&self, event: &Event, hashing: &RandomState) -> &[Arc<Entry<G>>] {
        let mut sides = [Side::Null; MAX_PLACES];
        for (side, place) in sides.iter_mut().zip(&self.places) {
            *side = match place {
                Place::EventType => Side::Id(&event.event_type),
                Place::Event(path, _) => path.side(event),
            };
        }
        let is_key = |bucket: &Bucket<G>| {
            bucket
                .key
                .iter()
                .zip(sides)
                .all(|(key, side)| key.side().equals(side) == Some(true))
        };
        let bucket = self
            .hash(sides, hashing)
            .and_then(|hash| self.buckets.find(hash, is_key));
        bucket.map_or(&[], |bucket| &bucket.entries)
    }

    fn insert(&mut self, key: Vec<Constant>, entry: &Arc<Entry<G>>, hashing: &RandomState) {
        let Some(hash) = self.hash(key.iter().map(Constant::side), hashing) else {
            return;
        };
        match self.buckets.find_mut(hash, |bucket| bucket.is(&key)) {
            Some(bucket) => bucket.entries.push(entry.clone()),
            None => {
                let bucket = Bucket {
                    hash,
                    key: key.into(),
                    entries: vec![entry.clone()],
                };
                self.buckets.insert_unique(hash, bucket, |bucket| bucket.hash);
            }
        }
    }

    fn remove(&mut self, key: &[Constant], entry: &Arc<Entry<G>>, hashing: &RandomState) {
        let Some(hash) = self.hash(key.iter().map(Constant::side), hashing) else {
            return;
        };
        if let Ok(mut found) = self.buckets.find_entry(hash, |bucket| bucket.is(key)) {
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
    fn is(&self, key: &[Constant]) -> bool {
        self.key
            .iter()
            .zip(key)
            .all(|(one, other)| one.side().equals(other.side()) == Some(true))
    }
}

impl Side<'_> {
    /// Hashes it so that sides which are equal by a kind have equal hashes; `None` where it equals nothing.
    fn hash(self, kind: OperandKind, hasher: &mut impl Hasher) -> Option<()> {
        match kind {
            OperandKind::Id => self.text(&mut itoa::Buffer::new())?.hash(hasher),
            OperandKind::DateTime => self.instant()?.hash(hasher),
            OperandKind::Json => match self {
                Side::Json(value) => hash(value, hasher),
                _ => return None,
            },
        }
        Some(())
    }
}

fn hash(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Null | Value::Failed(_) => {}
        Value::Bool(bool) => bool.hash(hasher),
        // Equal numbers have one nearest float, and adding zero makes -0 to 0.
        Value::Int(number) => (*number as f64 + 0.0).to_bits().hash(hasher),
        Value::Float(number) => (number + 0.0).to_bits().hash(hasher),
        Value::Number(text) => (text.parse::<f64>().unwrap_or(0.0) + 0.0).to_bits().hash(hasher),
        Value::String(text) => text.hash(hasher),
        Value::List(items) => items.iter().for_each(|item| hash(item, hasher)),
        // The order of keys must not count.
        Value::Object(members) => members.len().hash(hasher),
    }
}
