//! Predicates: `where` and `rows` as values, compiled when the schema is built, bound to arguments and a viewer at subscribe.
//!
//! On the event's way they stand behind the index, which finds the candidates by their equalities; see [`crate::matching::index`].
//! Logic is SQL's: a [`Truth`] is true, false or unknown, unknown survives `~`, and only true matches.
//!
//! What compares with what:
//! * Missing and null, on either side: unknown.
//! * Ids (`ID` arguments, the viewer's `user_id` and `tenant_id`, UUID literals): where one side is an id, both are text. Strings
//!   and integers have a text; anything else (`42.0`, `true`, a list, an instant) is ill-typed: unknown. Ids have the order of text.
//! * Instants (datetime literals and arguments, the viewer's `expires_at`): where one side is an instant, the other must be one
//!   too, or an RFC 3339 string with a zone; anything else is unknown, an id included.
//! * Lists of ids or instants are compared with lists by element, `null` equal to `null` alone; against anything else: unknown.
//! * All else is typed JSON. Values of different types are simply not equal; only numbers and strings have an order, and
//!   `<` of two types is unknown.
//! * `contains` is membership where the left side is a list, else substring. Substrings, prefixes and suffixes are asked of strings,
//!   and of integers where one side is an id. Membership is an OR of `==`, so in an empty list it is false, whatever is sought.
//! * `exists` and `is_null` are never unknown. A path below an omitted argument, below `null` or a scalar, or into an old image that
//!   the event does not have is an absent key: both are false. An argument that was itself omitted, and a field of the viewer that is
//!   `None`, do not exist and are null.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};

pub(crate) use compare::{Constant, Side, Test, Truth};
pub(crate) use describe::{describe_unmet, shown};

use crate::event::Event;
use crate::value::Value;
use crate::viewer::Viewer;

mod compare;
mod describe;

/// How an operand compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperandKind {
    /// As text; a list of them by element.
    Id,
    /// As an instant; a list of them by element.
    DateTime,
    /// As typed JSON.
    Json,
}

impl OperandKind {
    /// How a scalar's value compares, or what stands below it; `None` where nothing can.
    pub(crate) fn of_scalar(name: &str, below: bool) -> Option<OperandKind> {
        let kind = match name {
            "ID" | "UUID" => OperandKind::Id,
            "DateTime" => OperandKind::DateTime,
            "Int" | "Float" | "String" | "Boolean" | "Date" | "Time" | "Decimal" => OperandKind::Json,
            // JSON and scalars that are not known here may hold objects.
            _ => return Some(OperandKind::Json),
        };
        (!below).then_some(kind)
    }
}

/// A predicate as it was declared. Its JSON is an array whose first item is the operator:
/// `["==", l, r]`, `!= < <= > >=` alike, `["&", a, b, …]`, `["|", a, b, …]`, `["~", a]`, `["is_in", x, list]`, `["contains", x, y]`,
/// `["startswith", x, y]`, `["endswith", x, y]`, `["exists", x]`, `["is_null", x]`. Operands: `["data", [key, …]]`,
/// `["previous", [key, …]]`, `["argument", name, [key, …]]`, `["viewer", name, [key, …]]`, `["literal", json]`,
/// `["datetime", text]`, `["id", text]`, and `["list", [operand, …]]` of literals.
#[derive(Clone, Debug)]
pub struct Expr(Tree<Operand>);

/// A predicate whose operands are known to exist, with their kinds.
#[derive(Clone, Debug)]
pub struct Predicate(Tree<Operand>);

/// A predicate with its arguments and viewer filled in and folded: what is left to ask an event. Its text is equal for predicates
/// that ask the same, whatever the order of `&`, `|` and `==`.
#[derive(Clone, Debug)]
pub struct Bound(pub(crate) Tree<Term>);

/// The operators over operands `T`.
#[derive(Clone, Debug)]
pub(crate) enum Tree<T> {
    /// `&` where the flag is true, else `|`. An empty `&` is always true, an empty `|` never.
    Join(bool, Vec<Tree<T>>),
    Not(Box<Tree<T>>),
    Test(Test, T, T),
    Presence(Presence, T),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Presence {
    Exists,
    IsNull,
}

#[derive(Clone, Debug)]
enum Operand {
    Event(Arc<Path>),
    Given(Given),
    Constant(Constant),
}

/// What becomes a constant at subscribe.
#[derive(Clone, Debug)]
struct Given {
    by_viewer: bool,
    /// A name and the keys below it.
    path: Vec<String>,
    kind: OperandKind,
}

/// A side of a bound comparison.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    Event(Arc<Path>),
    Constant(Constant),
}

/// A place in an event.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    previous: bool,
    keys: Vec<String>,
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expr, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Tree::parse(&value).map(Expr).map_err(D::Error::custom)
    }
}

impl Predicate {
    /// Checks the names of arguments and of the viewer's fields. `argument_kind` answers for an argument and a path below it,
    /// `None` where there is no such thing. The error names what is unknown.
    pub fn compile(
        expr: &Expr,
        argument_kind: &dyn Fn(&str, &[String]) -> Option<OperandKind>,
    ) -> Result<Predicate, String> {
        let mut tree = expr.0.clone();
        tree.each_given(&mut |given| {
            let Some((name, path)) = given.path.split_first() else {
                return Ok(());
            };
            let (what, kind) = if given.by_viewer {
                ("viewer field", viewer_kind(name, path))
            } else {
                ("argument", argument_kind(name, path))
            };
            given.kind = kind.ok_or_else(|| format!("unknown {what} \"{}\"", given.path.join(".")))?;
            Ok(())
        })?;
        Ok(Predicate(tree))
    }

    /// Fills in the coerced arguments (by Python name, omitted ones absent) and the viewer, and folds what no event can change.
    pub fn bind(&self, arguments: &Value, viewer: &Viewer) -> Bound {
        Bound(self.0.bind(false, &Scope { arguments, viewer }))
    }
}

impl Bound {
    /// Whether it is true of an event.
    pub fn holds(&self, event: &Event) -> bool {
        self.0.judge(event) == Some(true)
    }
}

impl Tree<Operand> {
    fn parse(value: &Value) -> Result<Tree<Operand>, String> {
        let (operator, operands) = tagged(value)?;
        let (negated, turned) = (operator == "!=", matches!(operator, ">" | ">="));
        let (test, left, right) = match (operator, operands) {
            ("&" | "|", parts) => {
                let parts = parts.iter().map(Tree::parse).collect::<Result<_, _>>()?;
                return Ok(Tree::Join(operator == "&", parts));
            }
            ("~", [part]) => return Ok(Tree::Not(Box::new(Tree::parse(part)?))),
            ("exists", [operand]) => return Ok(Tree::Presence(Presence::Exists, Operand::parse(operand)?)),
            ("is_null", [operand]) => return Ok(Tree::Presence(Presence::IsNull, Operand::parse(operand)?)),
            ("==" | "!=", [left, right]) => (Test::Equal, left, right),
            ("<" | ">", [left, right]) => (Test::Less, left, right),
            ("<=" | ">=", [left, right]) => (Test::AtMost, left, right),
            ("is_in", [left, right]) => (Test::In, left, right),
            ("contains", [left, right]) => (Test::Contains, left, right),
            ("startswith", [left, right]) => (Test::StartsWith, left, right),
            ("endswith", [left, right]) => (Test::EndsWith, left, right),
            _ => return Err(format!("unknown predicate {}", value.to_json())),
        };
        let (left, right) = if turned { (right, left) } else { (left, right) };
        Ok(Tree::Test(test, Operand::parse(left)?, Operand::parse(right)?).negated_if(negated))
    }

    fn each_given(&mut self, visit: &mut dyn FnMut(&mut Given) -> Result<(), String>) -> Result<(), String> {
        let operands = match self {
            Tree::Join(_, parts) => return parts.iter_mut().try_for_each(|part| part.each_given(visit)),
            Tree::Not(part) => return part.each_given(visit),
            Tree::Test(_, left, right) => vec![left, right],
            Tree::Presence(_, operand) => vec![operand],
        };
        operands.into_iter().try_for_each(|operand| match operand {
            Operand::Given(given) => visit(given),
            Operand::Event(_) | Operand::Constant(_) => Ok(()),
        })
    }

    /// Binds the tree, or its negation. Negations are moved down to the tests (De Morgan's laws hold with three values), so that all
    /// above the tests is monotone: there, unknown cannot become true, and may be folded as if it were false.
    fn bind(&self, negated: bool, scope: &Scope<'_>) -> Tree<Term> {
        match self {
            Tree::Not(part) => part.bind(!negated, scope),
            Tree::Join(all, parts) => Tree::join(*all != negated, parts.iter().map(|part| part.bind(negated, scope))),
            Tree::Test(test, left, right) => Tree::test(*test, scope.term(left), scope.term(right), negated),
            Tree::Presence(presence, Operand::Event(path)) => {
                Tree::Presence(*presence, Term::Event(path.clone())).negated_if(negated)
            }
            Tree::Presence(presence, operand) => Tree::known(scope.presence(*presence, operand) != negated),
        }
    }
}

impl<T> Tree<T> {
    fn known(truth: bool) -> Tree<T> {
        Tree::Join(truth, Vec::new())
    }

    fn negated_if(self, negated: bool) -> Tree<T> {
        if negated { Tree::Not(Box::new(self)) } else { self }
    }

    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Tree::Join(false, branches) if branches.is_empty())
    }
}

impl Tree<Term> {
    /// `&` or `|`, flat, sorted by text and without doubles.
    fn join(all: bool, parts: impl Iterator<Item = Tree<Term>>) -> Tree<Term> {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Tree::Join(other, inner) if other == all => flat.extend(inner),
                Tree::Join(_, inner) if inner.is_empty() => return Tree::known(!all),
                part => flat.push(part),
            }
        }
        flat.sort_by_cached_key(Tree::to_string);
        flat.dedup_by_key(|part| part.to_string());
        if flat.len() == 1 { flat.remove(0) } else { Tree::Join(all, flat) }
    }

    /// One comparison in its canonical form, folded where no event can change it.
    fn test(test: Test, left: Term, right: Term, negated: bool) -> Tree<Term> {
        use Constant::{IllTyped, Null};
        use Term::{Constant as Known, Event};
        match (test, left, right) {
            (test, Known(left), Known(right)) => Tree::known(test.judge(left.side(), right.side()) == Some(!negated)),
            (Test::Contains, Known(list), item) if list.side().items().is_some() => {
                Tree::test(Test::In, item, Known(list), negated)
            }
            // Membership in a list that is known is what it is defined to be, an OR of `==`.
            (Test::In, item @ Event(_), Known(list)) => list.items().map_or(Tree::known(false), |items| {
                let is = |one| Tree::test(Test::Equal, item.clone(), Known(one), negated);
                Tree::join(negated, items.into_iter().map(is))
            }),
            // What is sought may be null all the same: an empty list of the event does not hold it.
            (test, Known(Null | IllTyped), _) if test != Test::In => Tree::known(false),
            (test, _, Known(Null | IllTyped)) if test != Test::Contains => Tree::known(false),
            (Test::Less, left, right) if negated => Tree::Test(Test::AtMost, right, left),
            (Test::AtMost, left, right) if negated => Tree::Test(Test::Less, right, left),
            (Test::Equal, Known(left), right) => Tree::Test(test, right, Known(left)).negated_if(negated),
            (Test::Equal, Event(left), Event(right)) if right < left => {
                Tree::Test(test, Event(right), Event(left)).negated_if(negated)
            }
            (test, left, right) => Tree::Test(test, left, right).negated_if(negated),
        }
    }

    pub(crate) fn judge(&self, event: &Event) -> Truth {
        match self {
            Tree::Join(true, parts) => Some(parts.iter().all(|part| part.judge(event) == Some(true))),
            Tree::Join(false, parts) => Some(parts.iter().any(|part| part.judge(event) == Some(true))),
            Tree::Not(part) => part.judge(event).map(|truth| !truth),
            Tree::Test(test, left, right) => test.judge(left.side(event), right.side(event)),
            Tree::Presence(Presence::Exists, term) => Some(term.find(event).is_some()),
            Tree::Presence(Presence::IsNull, term) => Some(term.find(event).is_some_and(Value::is_null)),
        }
    }
}

impl Operand {
    fn parse(value: &Value) -> Result<Operand, String> {
        let keys = |value: &Value| match value {
            Value::List(keys) => keys.iter().map(|key| key.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let operand = match tagged(value)? {
            (root @ ("data" | "previous"), [path]) => {
                let previous = root == "previous";
                keys(path).map(|keys| Operand::Event(Arc::new(Path { previous, keys })))
            }
            (by @ ("argument" | "viewer"), [Value::String(name), path]) => keys(path).map(|mut path| {
                path.insert(0, name.to_string());
                Operand::Given(Given { by_viewer: by == "viewer", path, kind: OperandKind::Json })
            }),
            ("literal", [value]) => Some(Operand::Constant(Constant::new(value, OperandKind::Json))),
            ("id", [value]) => Some(Operand::Constant(Constant::new(value, OperandKind::Id))),
            ("datetime", [value]) => match Constant::new(value, OperandKind::DateTime) {
                Constant::IllTyped => None,
                constant => Some(Operand::Constant(constant)),
            },
            ("list", [Value::List(items)]) => {
                let constant = |item| match Operand::parse(item) {
                    Ok(Operand::Constant(constant)) => Some(constant),
                    _ => None,
                };
                let items = items.iter().map(constant).collect::<Option<_>>();
                items.map(|items| Operand::Constant(Constant::list(items)))
            }
            _ => None,
        };
        operand.ok_or_else(|| format!("unknown operand {}", value.to_json()))
    }
}

/// The constants of a subscription.
struct Scope<'a> {
    arguments: &'a Value,
    viewer: &'a Viewer,
}

impl Scope<'_> {
    fn find(&self, given: &Given) -> Option<Value> {
        if given.by_viewer {
            return self.viewer.field(&given.path);
        }
        self.arguments.at(given.path.iter().map(String::as_str)).cloned()
    }

    fn term(&self, operand: &Operand) -> Term {
        match operand {
            Operand::Event(path) => Term::Event(path.clone()),
            Operand::Constant(constant) => Term::Constant(constant.clone()),
            Operand::Given(given) => {
                Term::Constant(self.find(given).map_or(Constant::Null, |value| Constant::new(&value, given.kind)))
            }
        }
    }

    fn presence(&self, presence: Presence, operand: &Operand) -> bool {
        let Operand::Given(given) = operand else {
            return presence == Presence::Exists || matches!(operand, Operand::Constant(Constant::Null));
        };
        let value = self.find(given);
        let (whole, is_null) = (given.path.len() == 1, value.as_ref().is_none_or(Value::is_null));
        match presence {
            Presence::Exists => value.is_some() && !(given.by_viewer && whole && is_null),
            Presence::IsNull => is_null && (whole || value.is_some()),
        }
    }
}

impl Path {
    fn find<'a>(&self, event: &'a Event) -> Option<&'a Value> {
        let root = if self.previous { event.previous.as_ref()? } else { &event.data };
        root.at(self.keys.iter().map(String::as_str))
    }

    pub(crate) fn side<'a>(&self, event: &'a Event) -> Side<'a> {
        self.find(event).map_or(Side::Null, Side::of)
    }
}

impl Term {
    fn find<'a>(&self, event: &'a Event) -> Option<&'a Value> {
        match self {
            Term::Event(path) => path.find(event),
            Term::Constant(_) => None,
        }
    }

    fn side<'a>(&'a self, event: &'a Event) -> Side<'a> {
        match self {
            Term::Event(path) => path.side(event),
            Term::Constant(constant) => constant.side(),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Tree<Term> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Join(all, parts) => {
                out.write_str(if *all { "&(" } else { "|(" })?;
                parts.iter().try_for_each(|part| write!(out, "{part} "))?;
                out.write_str(")")
            }
            Tree::Not(part) => write!(out, "~{part}"),
            Tree::Test(test, left, right) => write!(out, "{test:?}({left} {right})"),
            Tree::Presence(presence, term) => write!(out, "{presence:?}({term})"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Event(path) => write!(out, "{}{:?}", if path.previous { "previous" } else { "data" }, path.keys),
            Term::Constant(constant) => constant.fmt(out),
        }
    }
}

/// The fields of `SecurityContext`; only claims have something below them.
pub(crate) fn viewer_kind(name: &str, path: &[String]) -> Option<OperandKind> {
    match (name, path) {
        ("user_id" | "tenant_id", []) => Some(OperandKind::Id),
        ("roles" | "permissions" | "sources", []) | ("claims", _) => Some(OperandKind::Json),
        ("expires_at", []) => Some(OperandKind::DateTime),
        _ => None,
    }
}

/// The items of an array after the string that comes first.
fn tagged(value: &Value) -> Result<(&str, &[Value]), String> {
    match value {
        Value::List(items) => items.split_first().and_then(|(tag, rest)| Some((tag.as_str()?, rest))),
        _ => None,
    }
    .ok_or_else(|| format!("no predicate: {}", value.to_json()))
}
