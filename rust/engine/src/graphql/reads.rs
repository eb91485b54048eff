//! What has to be read of a function's result for a plan: each slot once, whatever the number of aliases.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::plan::{Key, Leaf, PlannedField, PlannedType, Selection, Shape};

/// What an object takes beside its fields.
const PER_OBJECT: usize = 80;

/// What has to be read of a function's result: a tree of values whose objects are keyed by slot (and have `__typename`
/// where the type is an interface or a union).
#[derive(Debug)]
pub struct Reads {
    /// The root field's type.
    pub ty: ReadType,
    /// The memory that it takes.
    pub(super) size: usize,
}

/// A type, as far as reading it matters.
#[derive(Clone, Debug)]
pub enum ReadType {
    /// A scalar or an enum.
    Leaf(Leaf),
    /// A list.
    List(Arc<ReadType>),
    /// An object type.
    Object(Arc<ReadObject>),
    /// An interface or a union: the fields to read by `__typename`.
    Abstract(Arc<[Arc<ReadObject>]>),
}

/// The fields to read of an object.
#[derive(Debug)]
pub struct ReadObject {
    /// The object type.
    pub type_name: Arc<str>,
    /// No slot stands here twice.
    pub fields: Box<[ReadField]>,
}

/// A field to read.
#[derive(Debug)]
pub struct ReadField {
    /// Where it is found.
    pub key: Arc<Key>,
    /// What it gives.
    pub ty: ReadType,
}

impl Reads {
    pub(super) fn of(types: &[&PlannedType]) -> Reads {
        let mut merge = Merge::default();
        Reads { ty: merge.ty(types), size: merge.size }
    }
}

impl ReadType {
    /// The fields to read of an object: of this type, where it may be one of several.
    pub(super) fn object(&self, type_name: Option<&str>) -> Option<&ReadObject> {
        match self {
            ReadType::Object(object) => Some(object),
            ReadType::Abstract(objects) => {
                objects.iter().find(|object| Some(&*object.type_name) == type_name).map(|object| &**object)
            }
            ReadType::Leaf(_) | ReadType::List(_) => None,
        }
    }

    /// The objects at the bottom of it.
    pub(super) fn objects(&self) -> Vec<&Arc<ReadObject>> {
        match self {
            ReadType::Leaf(_) => Vec::new(),
            ReadType::List(item) => item.objects(),
            ReadType::Object(object) => vec![object],
            ReadType::Abstract(objects) => objects.iter().collect(),
        }
    }
}

/// Merges planned types by slot, all the way down, and each set of selections once.
#[derive(Default)]
struct Merge {
    hashing: RandomState,
    done: FxHashMap<(Arc<str>, Vec<*const Selection>), Arc<ReadObject>>,
    size: usize,
}

impl Merge {
    /// All parts are of one type of the schema.
    fn ty(&mut self, parts: &[&PlannedType]) -> ReadType {
        let mut types = IndexMap::<_, Vec<&Arc<Selection>>, FxBuildHasher>::default();
        let mut items = Vec::new();
        for part in parts {
            match &part.shape {
                Shape::Leaf(leaf) => return ReadType::Leaf(leaf.clone()),
                Shape::List(item) => items.push(&**item),
                Shape::Object(selection) => types.entry(&selection.type_name).or_default().push(selection),
                Shape::Abstract(possible) => {
                    for (name, selection) in &possible.types {
                        // One that is masked is told from the others, and no more is read of it.
                        types.entry(name).or_default().extend(selection);
                    }
                }
                Shape::Typename(_) | Shape::Masked => {}
            }
        }
        let mut objects = types.into_iter().map(|(name, selections)| self.object(name, &selections));
        match &parts[0].shape {
            Shape::Abstract(_) => ReadType::Abstract(objects.collect()),
            _ => match objects.next() {
                Some(object) => ReadType::Object(object),
                None => ReadType::List(Arc::new(self.ty(&items))),
            },
        }
    }

    fn object(&mut self, type_name: &Arc<str>, parts: &[&Arc<Selection>]) -> Arc<ReadObject> {
        let mut selections: Vec<_> = parts.iter().map(|part| Arc::as_ptr(part)).collect();
        selections.sort_unstable();
        selections.dedup();
        let key = (type_name.clone(), selections);
        if let Some(done) = self.done.get(&key) {
            return Arc::clone(done);
        }
        let mut slots = IndexMap::<_, Vec<&PlannedField>, _>::with_hasher(self.hashing.clone());
        for field in parts.iter().flat_map(|part| &part.fields) {
            // Typenames are known, and what is masked is not even read.
            if !matches!(field.ty.shape, Shape::Typename(_) | Shape::Masked) {
                slots.entry(&field.key.slot).or_default().push(field);
            }
        }
        let merge = |fields: &Vec<&PlannedField>| ReadField {
            key: Arc::clone(&fields[0].key),
            ty: self.ty(&fields.iter().map(|field| &field.ty).collect::<Vec<_>>()),
        };
        let fields: Box<[ReadField]> = slots.values().map(merge).collect();
        self.size += PER_OBJECT + size_of_val(&*fields);
        let merged = Arc::new(ReadObject { type_name: type_name.clone(), fields });
        self.done.insert(key, Arc::clone(&merged));
        merged
    }
}
