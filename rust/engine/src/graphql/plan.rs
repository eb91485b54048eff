//! The selection of one operation, compiled: what [`super::project`] writes of a value, and what is read of a function's result.
//!
//! Built once per document, operation, variables used below the root and permissions, and shared by `Arc`: subscriptions
//! with the same plan are one projection class. Fragments, type conditions, `@skip` and `@include` are gone here: every
//! possible concrete type has its own list of fields. Guards are asked here too, so that nothing later can forget them: what
//! may not be seen is masked, or the operation is refused.

use std::fmt;
use std::sync::Arc;

use apollo_compiler::Node;
use apollo_compiler::schema::EnumType;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::reads::Reads;
use crate::security::fields::Guard;
use crate::value::Value;

/// The compiled selection of a subscription's root field.
#[derive(Debug)]
pub struct Plan {
    /// The root field.
    pub root: PlannedField,
    /// Dotted GraphQL paths below the root in the order of selection: `id`, `customer`, `customer.name`.
    /// Neither `__typename` nor what is masked is among them.
    pub selected: Box<[Box<str>]>,
    /// What to read of a function's result.
    pub reads: Arc<Reads>,
    /// Coordinates of the fields that are null, or may be, as the viewer may not see them: `Type.field`, in their order.
    pub masked: Box<[Box<str>]>,
    /// By what it is found, and shared with those who ask for the same.
    pub(super) known_by: Arc<PlanKey>,
    /// The memory that the selection takes.
    pub(super) size: usize,
}

impl Plan {
    /// The memory that it takes, with what it is found by.
    pub fn memory(&self) -> usize {
        let PlanKey { text, guards } = &*self.known_by;
        self.size + text.len() + size_of_val(&**guards)
    }
}

/// What plans differ by beside what their viewers may see.
#[derive(Default)]
pub(super) struct PlanKey {
    /// The operation's name and the variables used below the root.
    pub(super) text: Box<str>,
    /// What is asked of viewers.
    pub(super) guards: Box<[Guard]>,
}

/// It says nothing of what a plan does.
impl fmt::Debug for PlanKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PlanKey")
    }
}

/// A field of the result. Schemas have types by the dozen behind an interface, so what does not depend on the type is shared.
#[derive(Debug)]
pub struct PlannedField {
    /// What the document says of it.
    pub place: Arc<Place>,
    /// `Type.field`, for messages.
    pub coordinate: Arc<str>,
    /// Where its value is found.
    pub key: Arc<Key>,
    /// What it gives.
    pub ty: PlannedType,
}

/// Where the document selects a field.
#[derive(Debug)]
pub struct Place {
    /// The response key as it is written: `"alias":`.
    pub key_json: Box<str>,
    /// Line and column of each place.
    pub locations: SmallVec<[(u32, u32); 2]>,
}

impl Place {
    /// The alias, else the name.
    pub fn response_key(&self) -> &str {
        // A name has nothing that would have to be escaped.
        self.key_json.trim_end_matches(':').trim_matches('"')
    }
}

/// Where a field's value is found.
#[derive(Debug)]
pub struct Key {
    /// The key in what was read of a function's result: the GraphQL name, and the coerced arguments where it takes any.
    pub slot: Box<str>,
    /// The first name to look for in a mapping or an object.
    pub python_name: Box<str>,
    /// The second one, looked for where the first is missing.
    pub graphql_name: Box<str>,
    /// Coerced arguments by Python name; `None` where the schema gives the field none.
    pub arguments: Option<Arc<Value>>,
}

/// A field's or a list item's type.
#[derive(Debug)]
pub struct PlannedType {
    /// Whether null may stand here.
    pub nullable: bool,
    /// What stands here otherwise.
    pub shape: Shape,
}

/// A type, nullability apart.
#[derive(Debug)]
pub enum Shape {
    /// `__typename`, and introspection below the root: the answer as JSON.
    Typename(Box<str>),
    /// Always null and an error: the viewer may not see it. It is never read.
    Masked,
    /// A scalar or an enum.
    Leaf(Leaf),
    /// A list.
    List(Box<PlannedType>),
    /// An object type.
    Object(Arc<Selection>),
    /// An interface or a union.
    Abstract(Arc<Possible>),
}

/// The fields of one concrete type.
#[derive(Debug)]
pub struct Selection {
    /// The object type.
    pub type_name: Arc<str>,
    /// In the order of the result.
    pub fields: Box<[PlannedField]>,
}

/// The types that may stand behind an interface or a union.
#[derive(Debug)]
pub struct Possible {
    /// The interface or union.
    pub name: Box<str>,
    /// By `__typename`. `None`: a value of this type is null and an error, as the viewer may not see it. It is never read.
    pub types: IndexMap<Arc<str>, Option<Arc<Selection>>, FxBuildHasher>,
}

/// How a scalar or an enum is serialised.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are those of the scalars")]
pub enum Leaf {
    Int,
    Float,
    String,
    Boolean,
    Id,
    DateTime,
    Date,
    Time,
    Uuid,
    Decimal,
    /// Any JSON value; also every scalar that is not known here.
    Json,
    Enum(Node<EnumType>),
    /// A scalar of the SDL that is another one.
    Named(Arc<Named>),
}

/// A scalar of the SDL that is another one.
#[derive(Debug)]
pub struct Named {
    name: Box<str>,
    leaf: Leaf,
    /// The user has not said it.
    by_name: bool,
}

const SCALARS: [(&str, Leaf); 11] = [
    ("Int", Leaf::Int),
    ("Float", Leaf::Float),
    ("String", Leaf::String),
    ("Boolean", Leaf::Boolean),
    ("ID", Leaf::Id),
    ("DateTime", Leaf::DateTime),
    ("Date", Leaf::Date),
    ("Time", Leaf::Time),
    ("UUID", Leaf::Uuid),
    ("Decimal", Leaf::Decimal),
    ("JSON", Leaf::Json),
];

impl Leaf {
    /// How a scalar type is serialised.
    pub fn scalar(name: &str) -> Leaf {
        let known = SCALARS.into_iter().find(|(known, _)| *known == name);
        known.map_or(Leaf::Json, |(_, leaf)| leaf)
    }

    /// A scalar called `name` that is the one called `meaning`, by its name or by what the user has said.
    pub(super) fn named(name: &str, meaning: &str, by_name: bool) -> Leaf {
        match Leaf::scalar(meaning) {
            // Everything is JSON, and a number or a text is a decimal.
            leaf @ (Leaf::Json | Leaf::Decimal) if by_name => leaf,
            Leaf::Json => Leaf::Json,
            leaf => Leaf::Named(Arc::new(Named { name: name.into(), leaf, by_name })),
        }
    }

    /// How it is coerced and serialised, whatever its name.
    pub fn kind(&self) -> &Leaf {
        match self {
            Leaf::Named(named) => &named.leaf,
            leaf => leaf,
        }
    }

    /// A complaint of its kind about a value, as one of its own.
    pub fn reword(&self, complaint: String, is_text: bool) -> String {
        let Leaf::Named(named) = self else {
            return complaint;
        };
        let name = &named.name;
        let complaint = complaint.replacen(named.leaf.name(), name, 1);
        // A wrong text is a wrong value.
        if is_text || !named.by_name {
            return complaint;
        }
        format!(
            "{complaint}; where {name} is another scalar, expected Schema.from_sdl(..., scalars={{\"{name}\": ...}})"
        )
    }

    /// The name of the type, for messages.
    pub fn name(&self) -> &str {
        let kind = std::mem::discriminant(self);
        match (self, SCALARS.iter().find(|(_, leaf)| std::mem::discriminant(leaf) == kind)) {
            (Leaf::Enum(definition), _) => &definition.name,
            (Leaf::Named(named), _) => &named.name,
            (_, known) => known.map_or("JSON", |(name, _)| name),
        }
    }

    /// What is said of a value that it cannot serialise; the value follows.
    pub fn complaint(&self) -> String {
        match self {
            Leaf::Int => "Int cannot represent non-integer value:".into(),
            Leaf::Float => "Float cannot represent non numeric value:".into(),
            Leaf::Boolean => "Boolean cannot represent a non boolean value:".into(),
            Leaf::Enum(definition) => format!("Enum '{}' cannot represent value:", definition.name),
            _ => format!("{} cannot represent value:", self.name()),
        }
    }
}
