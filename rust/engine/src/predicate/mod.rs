//! Predicates: `where` and `rows` as values, compiled when the schema is built, bound to arguments and a viewer at subscribe.
//!
//! On the event's way they stand behind the index, which finds the candidates by their equalities; see [`crate::matching`].
//! Logic is SQL's: a [`Truth`] is true, false or unknown, unknown survives `~`, and only true matches.
//!
//! What compares with what:
//! * Missing and null, on either side: unknown.
//! * A side may have a type of its own: ids (`ID` and `UUID` arguments, the viewer's `user_id` and `tenant_id`, UUID literals),
//!   enums, instants, days, times of day, and exact numbers (`Decimal` arguments, literals and claims, and whatever stands in
//!   `decimal(...)`). The other side must then have it too, or be of JSON's type that stands for it; anything else is ill-typed:
//!   unknown. Ids are strings and integers, and have the order of their text; enums are strings, without an order; instants are
//!   RFC 3339 strings with a zone; days and times strings in ISO's form; exact numbers are numbers and numeric text.
//! * Lists of these are compared with lists by element, `null` equal to `null` alone; against anything else: unknown.
//! * All else is typed JSON. Values of different types are simply not equal; only numbers and strings have an order, and
//!   `<` of two types is unknown.
//! * `contains` is membership where the left side is a list, else substring. Substrings, prefixes and suffixes are asked of strings,
//!   and of integers where one side is an id. Membership is an OR of `==`, so in an empty list it is false, whatever is sought.
//! * `exists` and `is_null` are never unknown. What an argument does not have (it was omitted, or stands below what is omitted or
//!   null) and a field of the viewer that is `None` do not exist and are null. In the event and in claims, what stands below
//!   something missing or null is an absent key: both are false.
//!
//! One circle of files: the tree knows how sides compare ([`compare`]), which constants there are ([`constant`]), what a place may
//! equal ([`set`]) and how to say it (`describe`), and each of them reads the others' types.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;
use serde::de::{Deserialize, Deserializer, Error as _};
use smallvec::SmallVec;

pub(crate) use compare::{Side, Test, Truth};
pub(crate) use constant::Constant;
pub use constant::OperandKind;
pub(crate) use describe::{describe_unmet, shown};
pub(crate) use set::{Form, Set, hash_form};

use crate::event::Event;
use crate::value::Value;
use crate::viewer::Viewer;

mod compare;
mod constant;
mod describe;
mod memory;
mod set;

/// A predicate as it was declared. Its JSON is an array whose first item is the operator:
/// `["==", l, r]`, `!= < <= > >=` alike, `["&", a, b, …]`, `["|", a, b, …]`, `["~", a]`, `["is_in", x, list]`, `["contains", x, y]`,
/// `["startswith", x, y]`, `["endswith", x, y]`, `["exists", x]`, `["is_null", x]`. Operands: `["data", [key, …]]`,
/// `["previous", [key, …]]`, `["argument", name, [key, …]]`, `["viewer", name, [key, …]]`, `["literal", json]`,
/// `["datetime", text]`, `["id", text]`, `["number", text]`, `["list", [operand, …]]` of literals, and `["decimal", operand]` of what is
/// no literal.
#[derive(Clone, Debug)]
pub struct Expr(Tree<Operand>);

/// A predicate whose operands are known to exist, with their kinds.
#[derive(Clone, Debug)]
pub struct Predicate(Tree<Operand>);

/// A predicate with its arguments and viewer filled in and folded: what is left to ask an event. Equal for predicates that ask the
/// same, whatever the order of `&`, `|` and `==`, and so is its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound(pub(crate) Tree<Term>);

/// The operators over operands `T`.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) enum Tree<T> {
    /// `&` where the flag is true, else `|`. An empty `&` is always true, an empty `|` never.
    Join(bool, Vec<Tree<T>>),
    Not(Box<Tree<T>>),
    Test(Test, T, T),
    /// A place of the event equals one of some constants; only where arguments and viewer are filled in.
    Member(Arc<Path>, Set),
    Presence(Presence, T),
}

#[derive(Clone, Copy, Debug, PartialEq, Hash)]
pub(crate) enum Presence {
    Exists,
    IsNull,
}

#[derive(Clone, Debug)]
enum Operand {
    /// With the flag, as an exact number.
    Event(Arc<Path>, bool),
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
    /// It stands in `decimal(...)`.
    is_decimal: bool,
}

/// A comparison that was unknown because of a side that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IllTyped {
    /// Where the event's value stands.
    pub(crate) path: Arc<Path>,
    /// Where the other side stands, if in the event as well.
    other: Option<Arc<Path>>,
    /// The types of both.
    types: (&'static str, &'static str),
}

/// What is noted while one condition is asked; few have more than two.
pub(crate) type Notes = SmallVec<[IllTyped; 2]>;

/// A side of a bound comparison.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) enum Term {
    /// With the flag, as an exact number.
    Event(Arc<Path>, bool),
    Constant(Constant),
}

/// A place in an event.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
            let kind = kind.ok_or_else(|| format!("unknown {what} \"{}\"", given.path.join(".")))?;
            given.kind = if given.is_decimal { OperandKind::Decimal } else { kind };
            Ok(())
        })?;
        Ok(Predicate(tree))
    }

    /// Each order that it asks of two sides without a type, in words: two numbers are compared as such, two texts by their letters.
    pub(crate) fn untyped_orders(&self) -> Vec<String> {
        let mut orders = Vec::new();
        self.0.each_test(&mut |test, left, right| {
            if matches!(test, Test::Less | Test::AtMost) && !left.has_type() && !right.has_type() {
                orders.push(Tree::Test(test, left.clone(), right.clone()).to_string());
            }
        });
        orders
    }

    /// Whether it asks who the viewer is.
    pub(crate) fn asks_for_viewer(&self) -> bool {
        let mut found = false;
        let visited = self.0.clone().each_given(&mut |given| {
            found |= given.by_viewer;
            Ok(())
        });
        visited.is_ok() && found
    }

    /// Fills in the coerced arguments (by Python name, omitted ones absent) and the viewer, and folds what no event can change.
    pub fn bind(&self, arguments: &Value, viewer: &Viewer) -> Bound {
        Bound(self.0.bind(false, &Scope { arguments, viewer }))
    }
}

impl Bound {
    /// Whether it is true of an event.
    pub fn holds(&self, event: &Event) -> bool {
        self.0.judge(event, &mut Notes::new()) == Some(true)
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
            Tree::Member(..) => return Ok(()),
        };
        operands.into_iter().try_for_each(|operand| match operand {
            Operand::Given(given) => visit(given),
            Operand::Event(..) | Operand::Constant(_) => Ok(()),
        })
    }

    fn each_test(&self, visit: &mut dyn FnMut(Test, &Operand, &Operand)) {
        match self {
            Tree::Join(_, parts) => parts.iter().for_each(|part| part.each_test(visit)),
            Tree::Not(part) => part.each_test(visit),
            Tree::Test(test, left, right) => visit(*test, left, right),
            Tree::Member(..) | Tree::Presence(..) => {}
        }
    }

    /// Binds the tree, or its negation. Negations are moved down to the tests (De Morgan's laws hold with three values), so that all
    /// above the tests is monotone: there, unknown cannot become true, and may be folded as if it were false.
    fn bind(&self, negated: bool, scope: &Scope<'_>) -> Tree<Term> {
        match self {
            Tree::Not(part) => part.bind(!negated, scope),
            Tree::Join(all, parts) => Tree::join(*all != negated, parts.iter().map(|part| part.bind(negated, scope))),
            Tree::Test(test, left, right) => Tree::test(*test, scope.term(left), scope.term(right), negated),
            Tree::Presence(presence, Operand::Event(path, _)) => {
                Tree::Presence(*presence, Term::Event(path.clone(), false)).negated_if(negated)
            }
            Tree::Presence(presence, operand) => Tree::known(scope.presence(*presence, operand) != negated),
            Tree::Member(path, set) => Tree::Member(path.clone(), set.clone()).negated_if(negated),
        }
    }
}

/// As operators read it.
impl fmt::Display for IllTyped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IllTyped { path, other, types: (found, asked) } = self;
        write!(out, "{path} could not be compared ({found} with {asked}")?;
        other.as_ref().map_or(Ok(()), |other| write!(out, " in {other}"))?;
        out.write_str(")")
    }
}

impl<T> Tree<T> {
    fn known(truth: bool) -> Tree<T> {
        Tree::Join(truth, Vec::new())
    }

    fn negated_if(self, negated: bool) -> Tree<T> {
        if negated { Tree::Not(Box::new(self)) } else { self }
    }

    /// What a place must equal, where that is all that is asked.
    pub(crate) fn as_member(&self) -> Option<(&Arc<Path>, &Set)> {
        match self {
            Tree::Member(path, set) => Some((path, set)),
            _ => None,
        }
    }

    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Tree::Join(false, branches) if branches.is_empty())
    }
}

impl Tree<Term> {
    /// `&` or `|`, flat, in an order of its own, and without doubles; what is asked of one place is one question.
    fn join(all: bool, parts: impl Iterator<Item = Tree<Term>>) -> Tree<Term> {
        let mut flat: Vec<Tree<Term>> = Vec::new();
        for part in parts {
            match part {
                Tree::Join(other, inner) if other == all => flat.extend(inner),
                Tree::Join(_, inner) if inner.is_empty() => return Tree::known(!all),
                part => flat.push(part),
            }
        }
        // An OR of memberships is one, and so is an AND of their negations.
        let member = |part: &mut Tree<Term>| -> Option<(Arc<Path>, Set)> {
            match (all, part) {
                (false, Tree::Member(path, set)) => Some((path.clone(), set.clone())),
                (true, Tree::Not(inner)) => match &**inner {
                    Tree::Member(path, set) => Some((path.clone(), set.clone())),
                    _ => None,
                },
                _ => None,
            }
        };
        let (mut members, mut others) = (Vec::<(Arc<Path>, Vec<Set>)>::new(), Vec::new());
        for mut part in flat {
            match member(&mut part) {
                None => others.push(part),
                Some((path, set)) => {
                    match members.iter_mut().find(|(known, sets)| *known == path && sets[0].kind == set.kind) {
                        Some((_, sets)) => sets.push(set),
                        None => members.push((path, vec![set])),
                    }
                }
            }
        }
        others.extend(members.into_iter().map(|(path, sets)| Tree::Member(path, Set::union(&sets)).negated_if(all)));
        let mut flat = others;
        flat.sort_by_cached_key(digest);
        flat.dedup();
        if flat.len() == 1 { flat.remove(0) } else { Tree::Join(all, flat) }
    }

    /// One comparison in its canonical form, folded where no event can change it.
    fn test(test: Test, left: Term, right: Term, negated: bool) -> Tree<Term> {
        use Constant::{IllTyped, Null};
        use Term::{Constant as Known, Event};
        match (test, left, right) {
            // A constant beside an exact number is one itself.
            (test, Event(path, true), Known(constant)) => {
                Tree::test(test, Event(path, false), Known(constant.into_decimal()), negated)
            }
            (test, Known(constant), Event(path, true)) => {
                Tree::test(test, Known(constant.into_decimal()), Event(path, false), negated)
            }
            (test, Known(left), Known(right)) => Tree::known(test.judge(left.side(), right.side()) == Some(!negated)),
            (Test::Contains, Known(list), item) if list.side().items().is_some() => {
                Tree::test(Test::In, item, Known(list), negated)
            }
            (Test::In, Event(path, _), Known(list)) => Tree::member(&path, list, negated),
            // What is sought may be null all the same: an empty list of the event does not hold it.
            (test, Known(Null | IllTyped), _) if test != Test::In => Tree::known(false),
            (test, _, Known(Null | IllTyped)) if test != Test::Contains => Tree::known(false),
            (Test::Less, left, right) if negated => Tree::Test(Test::AtMost, right, left),
            (Test::AtMost, left, right) if negated => Tree::Test(Test::Less, right, left),
            (Test::Equal, Known(left), right) => Tree::test(test, right, Known(left), negated),
            (Test::Equal, Event(path, is_decimal), Known(constant)) => match Set::one(&constant) {
                Some(set) => Tree::Member(path, set).negated_if(negated),
                None => Tree::Test(test, Event(path, is_decimal), Known(constant)).negated_if(negated),
            },
            (Test::Equal, Event(left, is_decimal), Event(right, other)) if (&right, other) < (&left, is_decimal) => {
                Tree::Test(test, Event(right, other), Event(left, is_decimal)).negated_if(negated)
            }
            (test, left, right) => Tree::Test(test, left, right).negated_if(negated),
        }
    }

    /// Membership in a list that is known is what it is defined to be, an OR of `==`: one question for each kind of its elements. One
    /// that is null or ill-typed makes a miss unknown, which is no more than false unless it is negated; then it is never true.
    fn member(path: &Arc<Path>, list: Constant, negated: bool) -> Tree<Term> {
        let Some(items) = list.into_items() else {
            return Tree::known(false);
        };
        if negated && items.iter().any(|item| matches!(item, Constant::Null | Constant::IllTyped)) {
            return Tree::known(false);
        }
        let mut kinds: Vec<OperandKind> = items.iter().filter_map(Constant::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let of_kind = |kind| {
            let items = items.iter().filter(move |item| item.kind() == Some(kind));
            Tree::Member(path.clone(), Set::many(kind, items)).negated_if(negated)
        };
        let lists = items.iter().filter(|item| matches!(item, Constant::List(_)));
        let is = |list: &Constant| {
            Tree::test(Test::Equal, Term::Event(path.clone(), false), Term::Constant(list.clone()), negated)
        };
        Tree::join(negated, kinds.iter().map(|kind| of_kind(*kind)).chain(lists.map(is)))
    }

    /// What it says of an event; each comparison that was unknown because a side that is there is ill-typed is noted.
    pub(crate) fn judge(&self, event: &Event, notes: &mut Notes) -> Truth {
        match self {
            Tree::Join(true, parts) => Some(parts.iter().all(|part| part.judge(event, notes) == Some(true))),
            Tree::Join(false, parts) => Some(parts.iter().any(|part| part.judge(event, notes) == Some(true))),
            Tree::Not(part) => part.judge(event, notes).map(|truth| !truth),
            Tree::Test(test, left, right) => {
                let (one, other) = (left.side(event), right.side(event));
                let truth = test.judge(one, other);
                if truth.is_none() && test.is_ill_typed(one, other) {
                    let note = |path: &Arc<Path>, other: Option<&Arc<Path>>, types| IllTyped {
                        path: path.clone(),
                        other: other.cloned(),
                        types,
                    };
                    let (found, asked) = (one.type_name(), other.type_name());
                    notes.extend(match (left, right) {
                        (Term::Event(path, _), Term::Event(other, _)) => Some(note(path, Some(other), (found, asked))),
                        (Term::Event(path, _), _) => Some(note(path, None, (found, asked))),
                        (_, Term::Event(path, _)) => Some(note(path, None, (asked, found))),
                        _ => None,
                    });
                }
                truth
            }
            Tree::Member(path, set) => {
                let side = path.side(event);
                let truth = set.judge(side);
                if truth.is_none() && side.is_present() {
                    notes.push(IllTyped::of_member(path, side, set.kind));
                }
                truth
            }
            Tree::Presence(Presence::Exists, term) => Some(term.find(event).is_some()),
            Tree::Presence(Presence::IsNull, term) => Some(term.find(event).is_some_and(Value::is_null)),
        }
    }
}

/// What the parts of a join are sorted by. Parts of one digest that differ stay in the order in which they stood.
fn digest(part: &Tree<Term>) -> u64 {
    let mut hasher = FxHasher::default();
    part.hash(&mut hasher);
    hasher.finish()
}

impl IllTyped {
    /// Of a place that should equal something of a kind.
    pub(crate) fn of_member(path: &Arc<Path>, found: Side<'_>, kind: OperandKind) -> IllTyped {
        IllTyped { path: path.clone(), other: None, types: (found.type_name(), kind.name()) }
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
                keys(path).map(|keys| Operand::Event(Arc::new(Path { previous, keys }), false))
            }
            (by @ ("argument" | "viewer"), [Value::String(name), path]) => keys(path).map(|mut path| {
                path.insert(0, name.to_string());
                let (by_viewer, kind) = (by == "viewer", OperandKind::Untyped);
                Operand::Given(Given { by_viewer, path, kind, is_decimal: false })
            }),
            ("decimal", [inner]) => match Operand::parse(inner)? {
                Operand::Event(path, _) => Some(Operand::Event(path, true)),
                Operand::Given(given) => Some(Operand::Given(Given { is_decimal: true, ..given })),
                Operand::Constant(_) => None,
            },
            ("number", [value]) => match Constant::new(value, OperandKind::Decimal) {
                Constant::IllTyped => None,
                constant => Some(Operand::Constant(constant)),
            },
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

    /// Whether an order with it is one of its type.
    fn has_type(&self) -> bool {
        match self {
            Operand::Event(_, is_decimal) => *is_decimal,
            Operand::Given(given) => given.kind != OperandKind::Untyped,
            Operand::Constant(_) => true,
        }
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
            Operand::Event(path, is_decimal) => Term::Event(path.clone(), *is_decimal),
            Operand::Constant(constant) => Term::Constant(constant.clone()),
            Operand::Given(given) => {
                let is_decimal = given.by_viewer && self.viewer.is_decimal(&given.path);
                let kind = if is_decimal { OperandKind::Decimal } else { given.kind };
                Term::Constant(self.find(given).map_or(Constant::Null, |value| Constant::new(&value, kind)))
            }
        }
    }

    fn presence(&self, presence: Presence, operand: &Operand) -> bool {
        let Operand::Given(given) = operand else {
            return presence == Presence::Exists || matches!(operand, Operand::Constant(Constant::Null));
        };
        let value = self.find(given);
        let is_null = value.as_ref().is_none_or(Value::is_null);
        // What an argument does not have is null; of the viewer that is so for a field, and a claim that is missing is an absent key.
        let lacks = if given.by_viewer { given.path.len() == 1 && is_null } else { value.is_none() };
        match presence {
            Presence::Exists => value.is_some() && !lacks,
            Presence::IsNull => is_null && (lacks || value.is_some()),
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
            Term::Event(path, _) => path.find(event),
            Term::Constant(_) => None,
        }
    }

    fn side<'a>(&'a self, event: &'a Event) -> Side<'a> {
        match self {
            Term::Event(path, false) => path.side(event),
            Term::Event(path, true) => path.find(event).map_or(Side::Null, Side::numeric),
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
            Tree::Member(path, set) => write!(out, "{path} in {set}"),
            Tree::Presence(presence, term) => write!(out, "{presence:?}({term})"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Event(path, false) => path.fmt(out),
            Term::Event(path, true) => write!(out, "decimal({path})"),
            Term::Constant(constant) => constant.fmt(out),
        }
    }
}

/// The fields of `SecurityContext`; only claims have something below them.
pub(crate) fn viewer_kind(name: &str, path: &[String]) -> Option<OperandKind> {
    match (name, path) {
        ("user_id" | "tenant_id", []) => Some(OperandKind::Id),
        ("roles" | "permissions" | "sources", []) | ("claims", _) => Some(OperandKind::Untyped),
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
