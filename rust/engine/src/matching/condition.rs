//! What one subscription asks of the events of its channel, in the order in which it is asked; and which places of an event must equal
//! something for it, which is what the index finds it by.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;

use crate::event::Event;
use crate::predicate::{Bound, Notes, OperandKind, Path, Set, Side, Term, Tree, Truth};
use crate::security::federation::Sources;
use crate::security::rows;

/// A condition has at most this many keys where several of its places have more than one;
const MAX_KEYS: usize = 64;
/// and this many where one has. What would need more is left to the residue.
const MAX_KEYS_OF_ONE_LIST: usize = 16_384;
/// What a condition takes where it asks for nothing, its group included,
const PER_CONDITION: usize = 512;
/// and each of its keys in an index.
const PER_POSTING: usize = 24;
/// At most this many places make a shape.
pub(super) const MAX_PLACES: usize = 8;

/// What one subscription asks of the events of its channel. Cheap to clone; equal for those that share a group.
#[derive(Clone, Debug)]
pub struct Condition(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    asked: Asked,
    /// Its hash, keyed by chance: constants are the clients'.
    hash: u64,
    /// The places that make its keys and what they may equal, in the order of shapes.
    keys: Box<[(Place, Set)]>,
    is_never: bool,
}

#[derive(Debug, PartialEq, Hash)]
struct Asked {
    /// The declaration that it stems from.
    field: usize,
    /// `None` is any.
    event_types: Option<Set>,
    sources: Sources,
    where_: Conjuncts,
    rows: Conjuncts,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.asked == other.0.asked)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash.hash(hasher);
    }
}

/// The parts of an `&`, those first that the key of the index proves.
#[derive(Debug, PartialEq, Hash)]
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

/// A part of a composite key: a place whose value must equal something, by a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    EventType,
    Event(Arc<Path>, OperandKind),
}

impl Place {
    pub(super) fn kind(&self) -> OperandKind {
        match self {
            Place::EventType => OperandKind::Id,
            Place::Event(_, kind) => *kind,
        }
    }

    pub(super) fn side<'e>(&self, event: &'e Event) -> Side<'e> {
        match self {
            Place::EventType => Side::Id(&event.event_type),
            Place::Event(path, _) => path.side(event),
        }
    }
}

impl Condition {
    /// Of the declaration with this number. `None` of the event types are all types; `where_` and `rows` must both be true.
    pub fn new(
        field: usize,
        event_types: Option<&[String]>,
        sources: Sources,
        where_: Option<Bound>,
        rows: Option<Bound>,
    ) -> Condition {
        let event_types = event_types.map(|types| Set::of_names(types.iter().map(String::as_str)));
        let [where_, rows] = [where_, rows].map(|part| Conjuncts::new(part.map(|Bound(tree)| tree)));
        let mut asked = Asked { field, event_types, sources, where_, rows };
        let keys = asked.keys();
        asked.where_.prove(&keys);
        asked.rows.prove(&keys);
        let is_never = asked.where_.parts.iter().chain(&asked.rows.parts).any(Tree::is_never)
            || keys.iter().any(|(_, set)| set.len() == 0);
        static HASHING: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Condition(Arc::new(Parts { hash: HASHING.hash_one(&asked), asked, keys: keys.into(), is_never }))
    }

    /// The declaration that it stems from.
    pub(crate) fn field(&self) -> usize {
        self.0.asked.field
    }

    /// The types of events that it is about; `None` is any.
    pub(super) fn event_types(&self) -> Option<&Set> {
        self.0.asked.event_types.as_ref()
    }

    /// The parts of the `&` that a verdict is about.
    pub(super) fn parts(&self, verdict: Verdict) -> &[Tree<Term>] {
        match verdict {
            Verdict::Where => &self.0.asked.where_.parts,
            Verdict::Rows => &self.0.asked.rows.parts,
            _ => &[],
        }
    }

    /// Equal for equal conditions.
    pub(super) fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The places that must equal something, and what; they make its keys.
    pub(super) fn keys(&self) -> &[(Place, Set)] {
        &self.0.keys
    }

    /// About how many bytes it takes in an index.
    pub(crate) fn size(&self) -> usize {
        512 + 64 * self.0.keys.iter().map(|(_, set)| set.len()).product::<usize>()
    }

    /// The memory that it takes, its places in an index included.
    pub(crate) fn memory(&self) -> usize {
        let Parts { asked, keys, .. } = &*self.0;
        let trees = asked.where_.parts.iter().chain(&asked.rows.parts).map(Tree::memory);
        let postings = keys.iter().map(|(_, set)| set.len()).product::<usize>();
        PER_CONDITION + trees.sum::<usize>() + postings * PER_POSTING
    }

    /// The services that an event may come from.
    pub fn sources(&self) -> &Sources {
        &self.0.asked.sources
    }

    /// Whether no event can match.
    pub fn is_never(&self) -> bool {
        self.0.is_never
    }

    /// Evaluates all of it, as behind a hit of the index but for what the key has proved there.
    pub fn judge(&self, event: &Event) -> Verdict {
        self.0.asked.verdict(event, false, &mut Notes::new())
    }

    /// The same of an event that its key has found, with what is noted meanwhile.
    pub(super) fn judge_found(&self, event: &Event, notes: &mut Notes) -> Verdict {
        self.0.asked.verdict(event, true, notes)
    }
}

impl Asked {
    /// `keyed` spares what the key of the index has proved.
    fn verdict(&self, event: &Event, keyed: bool, notes: &mut Notes) -> Verdict {
        if !self.is_about(event) {
            Verdict::EventType
        } else if !self.sources.decide(event.source.as_deref()).is_allowed() {
            Verdict::Sources
        } else if self.where_.judge(event, keyed, notes) != Some(true) {
            Verdict::Where
        } else if !rows::decide(self.rows.judge(event, keyed, notes)).is_allowed() {
            Verdict::Rows
        } else {
            Verdict::Match
        }
    }

    fn is_about(&self, event: &Event) -> bool {
        self.event_types.as_ref().is_none_or(|types| types.has_name(&event.event_type))
    }

    /// The places that make its keys and what they may equal, in the order of shapes: those with the fewest alternatives first, the
    /// event type last, as long as the keys do not become too many. Where a place can equal nothing no event can match.
    fn keys(&self) -> Vec<(Place, Set)> {
        let mut all: BTreeMap<Place, Set> = BTreeMap::new();
        for (path, set) in self.where_.parts.iter().chain(&self.rows.parts).filter_map(Tree::as_member) {
            let place = Place::Event(path.clone(), set.kind);
            match all.get_mut(&place) {
                Some(known) => *known = known.intersection(set),
                None => _ = all.insert(place, set.clone()),
            }
        }
        all.extend(self.event_types.iter().map(|types| (Place::EventType, types.clone())));
        let mut candidates: Vec<_> = all.into_iter().collect();
        candidates.sort_by_key(|(place, set)| (*place == Place::EventType, set.len()));
        let (mut keys, mut chosen) = (1, Vec::new());
        for (place, set) in candidates {
            let product = keys * set.len();
            let most = if keys == 1 { MAX_KEYS_OF_ONE_LIST } else { MAX_KEYS.max(keys) };
            if product <= most && chosen.len() < MAX_PLACES {
                keys = product;
                chosen.push((place, set));
            }
        }
        chosen.sort_by(|(one, _), (other, _)| one.cmp(other));
        chosen
    }
}

impl Conjuncts {
    fn new(tree: Option<Tree<Term>>) -> Conjuncts {
        let parts = match tree {
            None => Vec::new(),
            Some(Tree::Join(true, parts)) => parts,
            Some(part) => vec![part],
        };
        Conjuncts { parts: parts.into(), proved: 0 }
    }

    fn prove(&mut self, keys: &[(Place, Set)]) {
        let is_proved = |part: &Tree<Term>| {
            let is_key = |(path, set): (&Arc<Path>, &Set)| {
                keys.iter()
                    .any(|(place, _)| matches!(place, Place::Event(key, kind) if key == path && *kind == set.kind))
            };
            part.as_member().is_some_and(is_key)
        };
        self.parts.sort_by_cached_key(|part| !is_proved(part));
        self.proved = self.parts.iter().filter(|part| is_proved(part)).count();
    }

    /// What it says of an event; `keyed` spares what the key of the index has proved.
    fn judge(&self, event: &Event, keyed: bool, notes: &mut Notes) -> Truth {
        let from = if keyed { self.proved } else { 0 };
        Some(self.parts[from..].iter().all(|part| part.judge(event, notes) == Some(true)))
    }
}
