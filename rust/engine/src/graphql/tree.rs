//! A function's result, as far as it has been read: one tree that grows plan by plan.
//!
//! Each plan is read by a [`Walk`] of its own. What another plan has read is there and is not read again, but every plan pays for all that it
//! selects, out of its own budget, and before it is read. An awaitable stands at its place until its outcome is known; a walk notes it and goes
//! on beside it. A walk gives way between the items of a list alone, so no object is seen half at one time and half at another.
//!
//! What reading means is the host's matter: this knows no language, and [`super::project`] writes what comes out.

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::reads::{ReadField, ReadObject, ReadType};
use crate::value::{Object, Value};

/// The language that a function is written in.
pub trait Host {
    /// Something that can be read.
    type Object;
    /// The items of a list, one after the other.
    type Items;

    /// The same object once more.
    fn another(&self, object: &Self::Object) -> Self::Object;
    /// What stands at a place, of which no more than `room` may be read at once.
    fn read(&mut self, object: &Self::Object, ty: &ReadType, room: Budget) -> Found<Self>;
    /// What a field gives; `None` where it is missing. What fails is a [`Value::Failed`].
    fn field(
        &mut self,
        object: &Self::Object,
        of: &ReadObject,
        field: &ReadField,
    ) -> Result<Option<Self::Object>, Value>;
    /// The next item of a list.
    fn next(&mut self, items: &mut Self::Items) -> Option<Result<Self::Object, Value>>;
    /// Does work that needs nothing of the language, and may let others use that meanwhile.
    fn apart(&self, work: impl FnOnce() + Send) {
        work();
    }
    /// An awaitable that nobody will await.
    fn discard(&mut self, awaitable: Self::Object);
    /// Sees to it that something is awaited, once. Returns its number: they go on by one from zero.
    fn start(&mut self, awaitable: Self::Object) -> usize;
}

/// What a host finds at a place.
pub enum Found<H: Host + ?Sized> {
    /// A leaf, null, or a [`Value::Failed`].
    Value(Value),
    /// A list.
    Items {
        /// Its items.
        items: H::Items,
        /// Whether it gives the same items again when it is read once more.
        again: bool,
    },
    /// An object.
    Object {
        /// Its type's name, where its type may be one of several.
        type_name: Option<Box<str>>,
        /// What it is to those who select more of it than its type, where it is no object at all.
        instead: Option<Value>,
    },
    /// Its value comes later.
    Awaitable,
    /// It is larger than the room that there was.
    TooLarge,
}

/// How much may be read yet.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Values: each field, each item of a list, and what stands in JSON.
    pub nodes: usize,
    /// Bytes of text.
    pub bytes: usize,
}

/// There is no room.
#[derive(Debug)]
pub struct Full;

impl Budget {
    /// As much as there is.
    pub const ALL: Budget = Budget { nodes: usize::MAX, bytes: usize::MAX };

    /// Takes so many values and bytes of text.
    pub fn take(&mut self, nodes: usize, bytes: usize) -> Result<(), Full> {
        self.nodes = self.nodes.checked_sub(nodes).ok_or(Full)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Full)?;
        Ok(())
    }

    /// Pays for what is below a value, and for its text.
    fn pay(&mut self, value: &Value) -> Result<(), Full> {
        match value {
            Value::String(text) | Value::Number(text) => self.take(0, text.len()),
            Value::List(items) => {
                self.take(items.len(), 0)?;
                items.iter().try_for_each(|item| self.pay(item))
            }
            Value::Object(members) => {
                self.take(members.len(), members.keys().map(|key| key.len()).sum())?;
                members.values().try_for_each(|member| self.pay(member))
            }
            _ => Ok(()),
        }
    }
}

/// So many bytes of text count as one node in the size of a tree.
const TEXT: usize = 32;

/// A result.
pub struct Tree<O, I> {
    root: Node<O, I>,
    /// What awaitables gave, by their numbers.
    outcomes: Vec<Option<Result<O, Value>>>,
    /// Roughly how many nodes it has.
    nodes: usize,
}

enum Node<O, I> {
    Unread(O),
    /// An awaitable, by its number, and what it gave.
    Awaited(usize, Option<Box<Node<O, I>>>),
    Value(Value),
    List {
        /// Where it can be read again.
        again: Option<O>,
        items: Vec<Node<O, I>>,
        rest: Option<I>,
    },
    Object {
        object: O,
        type_name: Option<Box<str>>,
        instead: Option<Value>,
        /// By slot.
        members: IndexMap<Box<str>, Node<O, I>, RandomState>,
    },
}

/// Reads a tree for one plan.
#[derive(Default)]
pub struct Walk {
    /// Where it gave way: the positions in each list and object, the deepest first.
    stopped: Vec<usize>,
    /// What it may read yet.
    left: Option<Budget>,
    /// The numbers of the awaitables that it waits for.
    pub awaits: Vec<usize>,
}

impl Walk {
    /// Begins at the root again.
    pub fn restart(&mut self) {
        self.stopped.clear();
    }
}

/// Why a walk has not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// It gave way.
    Paused,
    /// It would have to wait, and may not.
    MayNotWait,
    /// The plan selects more than it may.
    TooLarge,
}

/// What a walk asks on its way.
pub trait Manners {
    /// Whether to give way.
    fn gives_way(&mut self) -> bool;
    /// Whether it may wait for awaitables.
    fn may_wait(&mut self) -> bool;
    /// What stands in the place of an awaitable that is not waited for any more.
    fn late(&self) -> Option<Value>;
}

impl<O, I> Tree<O, I> {
    /// Nothing is read yet.
    pub fn new(result: O) -> Tree<O, I> {
        Tree { root: Node::Unread(result), outcomes: Vec::new(), nodes: 1 }
    }

    /// What an awaitable gave. The first outcome counts.
    pub fn supply(&mut self, number: usize, outcome: Result<O, Value>) {
        if self.outcomes.len() <= number {
            self.outcomes.resize_with(number + 1, || None);
        }
        self.outcomes[number].get_or_insert(outcome);
    }

    /// Reads for a plan, from where its walk gave way, or else from the root. What it then awaits stands in the walk; where that is nothing,
    /// everything has been read.
    pub fn read<H: Host<Object = O, Items = I>>(
        &mut self,
        ty: &ReadType,
        room: Budget,
        walk: &mut Walk,
        host: &mut H,
        manners: &mut impl Manners,
    ) -> Result<(), Stop> {
        if walk.stopped.is_empty() {
            walk.awaits.clear();
            walk.left = None;
        }
        let left = walk.left.get_or_insert(room);
        let outcomes = &self.outcomes;
        let (stopped, awaits, nodes) = (&mut walk.stopped, &mut walk.awaits, &mut self.nodes);
        let read = Reader { host, manners, outcomes, stopped, awaits, left, nodes }.visit(&mut self.root, ty);
        if read == Err(Stop::MayNotWait) {
            walk.restart();
        }
        read
    }

    /// What has been read for a plan whose walk has come to its end. Where it is the `last` one, nothing is copied.
    pub fn value(&mut self, ty: &ReadType, last: bool) -> Value {
        self.root.value(ty, last)
    }

    /// Lets go of some nodes of a tree that is not read any more. Returns whether there are others.
    pub fn dismantle(&mut self, nodes: usize) -> bool {
        let root = std::mem::replace(&mut self.root, Node::Value(Value::Null));
        let mut left = match root {
            Node::List { items, again: None, rest: None } => items,
            root => vec![root],
        };
        for _ in 0..nodes {
            match left.pop() {
                None => return false,
                Some(Node::List { mut items, .. }) => left.append(&mut items),
                Some(Node::Object { members, .. }) => left.extend(members.into_values()),
                Some(Node::Awaited(_, Some(outcome))) => left.push(*outcome),
                Some(Node::Value(_) | Node::Unread(_) | Node::Awaited(_, None)) => {}
            }
        }
        self.root = Node::List { items: left, again: None, rest: None };
        true
    }

    /// Roughly how many nodes it has.
    pub fn size(&self) -> usize {
        self.nodes
    }

    /// Lets go of what can be read again, where the tree has become larger than this; all walks must begin anew then. Returns whether it has.
    pub fn shrink(&mut self, nodes: usize) -> bool {
        let is_large = self.nodes > nodes;
        if is_large {
            self.root.forget();
            self.nodes = self.root.count();
        }
        is_large
    }
}

struct Reader<'a, H: Host, M> {
    host: &'a mut H,
    manners: &'a mut M,
    outcomes: &'a [Option<Result<H::Object, Value>>],
    stopped: &'a mut Vec<usize>,
    awaits: &'a mut Vec<usize>,
    left: &'a mut Budget,
    nodes: &'a mut usize,
}

impl<H: Host, M: Manners> Reader<'_, H, M> {
    fn visit(&mut self, node: &mut Node<H::Object, H::Items>, ty: &ReadType) -> Result<(), Stop> {
        if self.stopped.is_empty() {
            // Else it was paid when the walk first came here.
            self.left.take(1, 0)?;
        }
        let mut is_new = false;
        if let Node::Unread(object) = node {
            is_new = true;
            let found = self.host.read(object, ty, *self.left);
            let Node::Unread(object) = std::mem::replace(node, Node::Value(Value::Null)) else { return Ok(()) };
            let (read, stop) = match found {
                Found::Value(value) => (Node::Value(value), None),
                Found::Items { items, again } => {
                    (Node::List { again: again.then_some(object), items: Vec::new(), rest: Some(items) }, None)
                }
                Found::Object { type_name, instead } => {
                    (Node::Object { object, type_name, instead, members: IndexMap::default() }, None)
                }
                Found::Awaitable => match self.manners.late() {
                    Some(late) => {
                        self.host.discard(object);
                        (Node::Value(late), None)
                    }
                    None if self.manners.may_wait() => (Node::Awaited(self.host.start(object), None), None),
                    None => (Node::Unread(object), Some(Stop::MayNotWait)),
                },
                Found::TooLarge => (Node::Unread(object), Some(Stop::TooLarge)),
            };
            *node = read;
            if let Some(stop) = stop {
                return Err(stop);
            }
        }
        match node {
            Node::Value(value) => {
                let before = *self.left;
                self.left.pay(value)?;
                if is_new {
                    *self.nodes += before.nodes - self.left.nodes + (before.bytes - self.left.bytes) / TEXT;
                }
                Ok(())
            }
            Node::Awaited(number, outcome) => self.awaited(*number, outcome, ty),
            Node::List { items, rest, .. } => match ty {
                ReadType::List(item) => match self.list(items, rest, item)? {
                    None => Ok(()),
                    Some(failed) => {
                        *node = Node::Value(failed);
                        Ok(())
                    }
                },
                _ => Ok(()),
            },
            Node::Object { object, type_name, instead, members } => match ty.object(type_name.as_deref()) {
                Some(of) => match instead.as_ref().filter(|_| !of.fields.is_empty()) {
                    Some(value) => Ok(self.left.pay(value)?),
                    None => self.object(object, of, members),
                },
                // It is no possible type, or nothing of it may be read: the projection says so.
                None => Ok(()),
            },
            Node::Unread(_) => Ok(()),
        }
    }

    fn awaited(
        &mut self,
        number: usize,
        known: &mut Option<Box<Node<H::Object, H::Items>>>,
        ty: &ReadType,
    ) -> Result<(), Stop> {
        if known.is_none() {
            *known = match self.outcomes.get(number).and_then(Option::as_ref) {
                Some(Ok(outcome)) => Some(Box::new(Node::Unread(self.host.another(outcome)))),
                Some(Err(failed)) => Some(Box::new(Node::Value(failed.clone()))),
                None => None,
            };
        }
        match known {
            Some(node) => self.visit(node, ty),
            None if self.manners.may_wait() => {
                self.awaits.push(number);
                Ok(())
            }
            None => Err(Stop::MayNotWait),
        }
    }

    /// Reads a list; returns what stands in its place where it fails.
    fn list(
        &mut self,
        items: &mut Vec<Node<H::Object, H::Items>>,
        rest: &mut Option<H::Items>,
        ty: &ReadType,
    ) -> Result<Option<Value>, Stop> {
        let mut at = self.stopped.pop().unwrap_or(0);
        loop {
            if at == items.len() {
                match rest.as_mut().and_then(|rest| self.host.next(rest)) {
                    None => break,
                    Some(Ok(item)) => items.push(Node::Unread(item)),
                    Some(Err(failed)) => return Ok(Some(failed)),
                }
                *self.nodes += 1;
            }
            let visited = if self.stopped.is_empty() && self.manners.gives_way() {
                Err(Stop::Paused)
            } else {
                self.visit(&mut items[at], ty)
            };
            visited.inspect_err(|_| self.stopped.push(at))?;
            at += 1;
        }
        *rest = None;
        Ok(None)
    }

    fn object(
        &mut self,
        object: &H::Object,
        of: &ReadObject,
        members: &mut IndexMap<Box<str>, Node<H::Object, H::Items>, RandomState>,
    ) -> Result<(), Stop> {
        let from = self.stopped.pop().unwrap_or(0);
        for (at, field) in of.fields.iter().enumerate().skip(from) {
            let member = match members.entry(field.key.slot.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    *self.nodes += 1;
                    unknown.insert(match self.host.field(object, of, field) {
                        Ok(Some(member)) => Node::Unread(member),
                        Ok(None) => Node::Value(Value::Null),
                        Err(failed) => Node::Value(failed),
                    })
                }
            };
            let visited = self.visit(member, &field.ty);
            visited.inspect_err(|_| self.stopped.push(at))?;
        }
        Ok(())
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Stop {
        Stop::TooLarge
    }
}

impl<O, I> Node<O, I> {
    fn value(&mut self, ty: &ReadType, last: bool) -> Value {
        match self {
            Node::Value(value) if last => std::mem::take(value),
            Node::Value(value) => value.clone(),
            Node::List { items, .. } => match ty {
                ReadType::List(item) => Value::List(items.iter_mut().map(|each| each.value(item, last)).collect()),
                _ => Value::Null,
            },
            Node::Object { type_name, instead, members, .. } => {
                let of = ty.object(type_name.as_deref());
                let fields = of.map_or(&[][..], |of| &of.fields);
                if let Some(value) = instead.as_ref().filter(|_| !fields.is_empty()) {
                    return value.clone();
                }
                let mut object = Object::with_capacity_and_hasher(fields.len() + 1, RandomState::default());
                if let Some(name) = type_name {
                    object.insert("__typename".into(), Value::string(&**name));
                }
                for field in fields {
                    if let Some(member) = members.get_mut(&field.key.slot) {
                        object.insert(field.key.slot.clone(), member.value(&field.ty, last));
                    }
                }
                Value::Object(object)
            }
            Node::Awaited(_, Some(outcome)) => outcome.value(ty, last),
            Node::Unread(_) | Node::Awaited(_, None) => Value::Null,
        }
    }

    /// Lets go of what can be read again. Returns whether nothing is left but that.
    fn forget(&mut self) -> bool {
        match self {
            Node::Unread(_) | Node::Value(_) => true,
            Node::Awaited(_, outcome) => {
                *outcome = None;
                false
            }
            Node::Object { members, .. } => {
                members.retain(|_, member| !member.forget());
                if !members.is_empty() {
                    return false;
                }
                if let Node::Object { object, .. } = std::mem::replace(self, Node::Value(Value::Null)) {
                    *self = Node::Unread(object);
                }
                true
            }
            Node::List { again, items, .. } => {
                let kept = items.iter_mut().filter_map(|item| (!item.forget()).then_some(())).count();
                let list = again.take_if(|_| kept == 0);
                let is_forgotten = list.is_some();
                if let Some(list) = list {
                    *self = Node::Unread(list);
                }
                is_forgotten
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Object { members, .. } => 1 + members.values().map(Node::count).sum::<usize>(),
            Node::List { items, .. } => 1 + items.iter().map(Node::count).sum::<usize>(),
            Node::Value(_) | Node::Unread(_) | Node::Awaited(..) => 1,
        }
    }
}
