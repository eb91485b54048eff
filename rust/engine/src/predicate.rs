//! Predicates: `where` and `rows` as values, compiled when the schema is built, bound to arguments and a viewer at subscribe.
//!
//! On the event's way they stand behind the index, which finds the candidates by their equalities; see [`crate::index`].
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

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::event::Event;
use crate::security::Viewer;
use crate::value::{Value, write_string};

/// True, false, or unknown (`None`).
pub(crate) type Truth = Option<bool>;

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

/// A predicate as it was declared. Its JSON is an array whose first item is the operator:
/// `["==", l, r]`, `!= < <= > >=` alike, `["&", a, b, …]`, `["|", a, b, …]`, `["~", a]`, `["is_in", x, list]`, `["contains", x, y]`,
/// `["startswith", x, y]`, `["endswith", x, y]`, `["exists", x]`, `["is_null", x]`. Operands: `["data", [key, …]]`,
/// `["previous", [key, …]]`, `["argument", name, [key, …]]`, `["viewer", name, [key, …]]`, `["literal", json]`,
/// `["datetime", text]`, `["id", text]`, and `["list", [operand, …]]` of the last three.
#[derive(Clone, Debug)]
pub struct Expr(Tree<Operand>);

/// A predicate whose operands are known to exist, with their kinds.
#[derive(Clone, Debug)]
pub struct Predicate(Tree<Operand>);

/// A predicate with its arguments and viewer filled in and folded: what is left to ask an event.
#[derive(Clone, Debug)]
pub struct Bound(pub(crate) Tree<Term>);

/// The operators over operands `T`. `All` of nothing is always true, `Any` of nothing is never true.
#[derive(Clone, Debug)]
pub(crate) enum Tree<T> {
    All(Vec<Tree<T>>),
    Any(Vec<Tree<T>>),
    Not(Box<Tree<T>>),
    Test(Test, T, T),
    Exists(T),
    IsNull(T),
}

/// A comparison; the others are these negated or turned round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Test {
    Equal,
    Less,
    AtMost,
    In,
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Debug)]
enum Operand {
    Event(Arc<Path>),
    Argument(Reference),
    Viewer(Reference),
    Constant(Constant),
}

#[derive(Clone, Debug)]
struct Reference {
    name: String,
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
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Path {
    previous: bool,
    keys: Vec<Box<str>>,
}

/// A literal, or what an argument or the viewer gave.
#[derive(Clone, Debug)]
pub(crate) enum Constant {
    Null,
    /// A value that its kind does not allow, as a datetime without a zone.
    IllTyped,
    Id(Box<str>),
    Instant(DateTime<Utc>),
    /// A list of ids or instants.
    List(Vec<Constant>),
    Json(Box<Value>),
}

/// What a comparison sees of a constant or of a place in the event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side<'a> {
    /// Missing or null.
    Null,
    IllTyped,
    Id(&'a str),
    Instant(DateTime<Utc>),
    List(&'a [Constant]),
    Json(&'a Value),
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
        tree.each_operand(&mut |operand| {
            let (what, reference, kind) = match operand {
                Operand::Argument(reference) => {
                    let kind = argument_kind(&reference.name, &reference.path);
                    ("argument", reference, kind)
                }
                Operand::Viewer(reference) => {
                    let kind = viewer_kind(&reference.name, &reference.path);
                    ("viewer field", reference, kind)
                }
                Operand::Event(_) | Operand::Constant(_) => return Ok(()),
            };
            let unknown = || format!("unknown {what} \"{}\"", reference.dotted());
            reference.kind = kind.ok_or_else(unknown)?;
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
    /// Whether no event makes it true.
    pub fn is_never(&self) -> bool {
        self.0.is_never()
    }

    /// Its text: equal for predicates that were bound to the same, whatever the order of `&`, `|` and `==`.
    pub fn key(&self) -> String {
        self.0.key()
    }

    /// Whether it is true of an event.
    pub fn holds(&self, event: &Event) -> bool {
        self.0.judge(event) == Some(true)
    }
}

impl Tree<Operand> {
    fn parse(value: &Value) -> Result<Tree<Operand>, String> {
        let (operator, operands) = tagged(value)?;
        let trees = || operands.iter().map(Tree::parse).collect::<Result<Vec<_>, _>>();
        let test = |test, turned| match operands {
            [left, right] => {
                let (left, right) = (Operand::parse(left)?, Operand::parse(right)?);
                Ok(if turned {
                    Tree::Test(test, right, left)
                } else {
                    Tree::Test(test, left, right)
                })
            }
            _ => Err(format!("{operator} takes two operands")),
        };
        match (operator, operands) {
            ("&", _) => Ok(Tree::All(trees()?)),
            ("|", _) => Ok(Tree::Any(trees()?)),
            ("~", [operand]) => Ok(Tree::Not(Box::new(Tree::parse(operand)?))),
            ("exists", [operand]) => Ok(Tree::Exists(Operand::parse(operand)?)),
            ("is_null", [operand]) => Ok(Tree::IsNull(Operand::parse(operand)?)),
            ("==", _) => test(Test::Equal, false),
            ("!=", _) => Ok(Tree::Not(Box::new(test(Test::Equal, false)?))),
            ("<", _) => test(Test::Less, false),
            (">", _) => test(Test::Less, true),
            ("<=", _) => test(Test::AtMost, false),
            (">=", _) => test(Test::AtMost, true),
            ("is_in", _) => test(Test::In, false),
            ("contains", _) => test(Test::Contains, false),
            ("startswith", _) => test(Test::StartsWith, false),
            ("endswith", _) => test(Test::EndsWith, false),
            _ => Err(format!("unknown predicate {}", value.to_json())),
        }
    }

    fn each_operand(&mut self, visit: &mut dyn FnMut(&mut Operand) -> Result<(), String>) -> Result<(), String> {
        match self {
            Tree::All(parts) | Tree::Any(parts) => parts.iter_mut().try_for_each(|part| part.each_operand(visit)),
            Tree::Not(part) => part.each_operand(visit),
            Tree::Test(_, left, right) => visit(left).and_then(|()| visit(right)),
            Tree::Exists(operand) | Tree::IsNull(operand) => visit(operand),
        }
    }

    /// Binds the tree, or its negation. Negations are moved down to the tests (De Morgan's laws hold with three values), so that all
    /// above the tests is monotone: there, unknown cannot become true, and may be folded as if it were false.
    fn bind(&self, negated: bool, scope: &Scope<'_>) -> Tree<Term> {
        match self {
            Tree::Not(part) => part.bind(!negated, scope),
            Tree::All(parts) => Tree::join(!negated, parts.iter().map(|part| part.bind(negated, scope))),
            Tree::Any(parts) => Tree::join(negated, parts.iter().map(|part| part.bind(negated, scope))),
            Tree::Test(test, left, right) => Tree::test(*test, scope.term(left), scope.term(right), negated),
            Tree::Exists(Operand::Event(path)) => Tree::Exists(Term::Event(path.clone())).negated_if(negated),
            Tree::IsNull(Operand::Event(path)) => Tree::IsNull(Term::Event(path.clone())).negated_if(negated),
            Tree::Exists(operand) => Tree::known(Some(scope.presence(operand).0 != negated)),
            Tree::IsNull(operand) => Tree::known(Some(scope.presence(operand).1 != negated)),
        }
    }
}

impl Tree<Term> {
    const ALWAYS: Tree<Term> = Tree::All(Vec::new());
    const NEVER: Tree<Term> = Tree::Any(Vec::new());

    fn known(truth: Truth) -> Tree<Term> {
        if truth == Some(true) { Tree::ALWAYS } else { Tree::NEVER }
    }

    fn negated_if(self, negated: bool) -> Tree<Term> {
        if negated { Tree::Not(Box::new(self)) } else { self }
    }

    /// `&` or `|`, flat, sorted by text and without doubles.
    fn join(all: bool, parts: impl Iterator<Item = Tree<Term>>) -> Tree<Term> {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Tree::All(inner) if all => flat.extend(inner),
                Tree::Any(inner) if !all => flat.extend(inner),
                Tree::All(inner) | Tree::Any(inner) if inner.is_empty() => return Tree::known(Some(!all)),
                part => flat.push(part),
            }
        }
        flat.sort_by_cached_key(Tree::key);
        flat.dedup_by_key(|part| part.key());
        match flat.len() {
            1 => flat.remove(0),
            _ if all => Tree::All(flat),
            _ => Tree::Any(flat),
        }
    }

    /// One comparison in its canonical form, folded where no event can change it.
    fn test(test: Test, left: Term, right: Term, negated: bool) -> Tree<Term> {
        use Constant::{IllTyped, Null};
        use Term::{Constant as Known, Event};
        match (test, left, right) {
            (test, Known(left), Known(right)) => {
                Tree::known(test.judge(left.side(), right.side()).map(|truth| truth != negated))
            }
            (Test::Contains, Known(list), item) if list.side().len().is_some() => {
                Tree::test(Test::In, item, Known(list), negated)
            }
            (Test::In, _, Known(list)) if list.side().len() == Some(0) => Tree::known(Some(negated)),
            (Test::In, _, Known(list)) if list.side().len().is_none() => Tree::NEVER,
            // Membership in a list of the event is still false where that list is empty.
            (test, Known(Null | IllTyped), _) if test != Test::In => Tree::NEVER,
            (test, _, Known(Null | IllTyped)) if test != Test::Contains => Tree::NEVER,
            (Test::Less, left, right) if negated => Tree::Test(Test::AtMost, right, left),
            (Test::AtMost, left, right) if negated => Tree::Test(Test::Less, right, left),
            (Test::Equal, Known(left), right) => Tree::Test(Test::Equal, right, Known(left)).negated_if(negated),
            (Test::Equal, Event(left), Event(right)) => Tree::Test(
                Test::Equal,
                Event(left.clone().min(right.clone())),
                Event(left.max(right)),
            )
            .negated_if(negated),
            (test, left, right) => Tree::Test(test, left, right).negated_if(negated),
        }
    }

    fn key(&self) -> String {
        let mut out = String::new();
        self.write_key(&mut out);
        out
    }

    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Tree::Any(branches) if branches.is_empty())
    }

    pub(crate) fn write_key(&self, out: &mut String) {
        match self {
            Tree::All(parts) | Tree::Any(parts) => {
                out.push_str(if matches!(self, Tree::All(_)) { "&(" } else { "|(" });
                parts.iter().for_each(|part| part.write_key(out));
                out.push(')');
            }
            Tree::Not(part) => {
                out.push('~');
                part.write_key(out);
            }
            Tree::Test(test, left, right) => {
                left.write_key(out);
                out.push_str(match test {
                    Test::Equal => "=",
                    Test::Less => "<",
                    Test::AtMost => "<=",
                    Test::In => " in ",
                    Test::Contains => " has ",
                    Test::StartsWith => " starts ",
                    Test::EndsWith => " ends ",
                });
                right.write_key(out);
                out.push(';');
            }
            Tree::Exists(term) | Tree::IsNull(term) => {
                term.write_key(out);
                out.push_str(if matches!(self, Tree::Exists(_)) { "?" } else { "=null" });
                out.push(';');
            }
        }
    }

    pub(crate) fn judge(&self, event: &Event) -> Truth {
        match self {
            Tree::All(parts) => Some(parts.iter().all(|part| part.judge(event) == Some(true))),
            Tree::Any(parts) => Some(parts.iter().any(|part| part.judge(event) == Some(true))),
            Tree::Not(part) => part.judge(event).map(|truth| !truth),
            Tree::Test(test, left, right) => test.judge(left.side(event), right.side(event)),
            Tree::Exists(term) => Some(term.find(event).is_some()),
            Tree::IsNull(term) => Some(term.find(event).is_some_and(Value::is_null)),
        }
    }
}

impl Operand {
    fn parse(value: &Value) -> Result<Operand, String> {
        let (kind, rest) = tagged(value)?;
        let unknown = || format!("unknown operand {}", value.to_json());
        let keys = |value: &Value| -> Option<Vec<String>> {
            let Value::List(keys) = value else { return None };
            keys.iter().map(|key| key.as_str().map(str::to_owned)).collect()
        };
        let path = |value: &Value, previous| {
            let keys = keys(value)?.into_iter().map(String::into_boxed_str).collect();
            Some(Operand::Event(Arc::new(Path { previous, keys })))
        };
        let reference = |name: &Value, path: &Value| {
            let name = name.as_str()?.to_owned();
            Some(Reference {
                name,
                path: keys(path)?,
                kind: OperandKind::Json,
            })
        };
        match (kind, rest) {
            ("data", [keys]) => path(keys, false).ok_or_else(unknown),
            ("previous", [keys]) => path(keys, true).ok_or_else(unknown),
            ("argument", [name, path]) => reference(name, path).map(Operand::Argument).ok_or_else(unknown),
            ("viewer", [name, path]) => reference(name, path).map(Operand::Viewer).ok_or_else(unknown),
            ("literal", [value]) => Ok(Operand::Constant(Constant::new(Some(value), OperandKind::Json))),
            ("id", [value]) => Ok(Operand::Constant(Constant::new(Some(value), OperandKind::Id))),
            ("datetime", [value]) => match Constant::new(Some(value), OperandKind::DateTime) {
                Constant::IllTyped => Err(format!("{} is no datetime with a zone", value.to_json())),
                constant => Ok(Operand::Constant(constant)),
            },
            ("list", [Value::List(items)]) => {
                let constant = |item| match Operand::parse(item)? {
                    Operand::Constant(constant) => Ok(constant),
                    _ => Err(format!("no literal: {}", item.to_json())),
                };
                let items = items.iter().map(constant).collect::<Result<_, _>>()?;
                Ok(Operand::Constant(Constant::List(items)))
            }
            _ => Err(unknown()),
        }
    }
}

impl Reference {
    fn dotted(&self) -> String {
        let keys = self.path.iter().map(String::as_str);
        std::iter::once(&*self.name).chain(keys).collect::<Vec<_>>().join(".")
    }
}

/// The constants of a subscription.
struct Scope<'a> {
    arguments: &'a Value,
    viewer: &'a Viewer,
}

impl<'a> Scope<'a> {
    fn find(&self, operand: &Operand) -> Option<&'a Value> {
        let (reference, root) = match operand {
            Operand::Argument(reference) => (reference, self.arguments),
            Operand::Viewer(reference) => (reference, &self.viewer.fields),
            Operand::Event(_) | Operand::Constant(_) => return None,
        };
        let keys = std::iter::once(&reference.name).chain(&reference.path);
        root.at(keys.map(String::as_str))
    }

    fn term(&self, operand: &Operand) -> Term {
        Term::Constant(match operand {
            Operand::Event(path) => return Term::Event(path.clone()),
            Operand::Constant(constant) => constant.clone(),
            Operand::Viewer(reference) if reference.name == EXPIRES_AT => {
                self.viewer.expires_at.map_or(Constant::Null, Constant::Instant)
            }
            Operand::Argument(reference) | Operand::Viewer(reference) => {
                Constant::new(self.find(operand), reference.kind)
            }
        })
    }

    /// Whether a constant exists, and whether it is null.
    fn presence(&self, operand: &Operand) -> (bool, bool) {
        let whole = match operand {
            Operand::Argument(reference) | Operand::Viewer(reference) => reference.path.is_empty(),
            Operand::Event(_) | Operand::Constant(_) => false,
        };
        match self.term(operand) {
            Term::Constant(Constant::Null) => match (operand, self.find(operand)) {
                (Operand::Constant(_), _) => (true, true),
                (Operand::Viewer(_), _) if whole => (false, true),
                (_, None) => (false, whole),
                (_, Some(_)) => (true, true),
            },
            _ => (true, false),
        }
    }
}

impl Path {
    fn find<'a>(&self, event: &'a Event) -> Option<&'a Value> {
        let root = if self.previous {
            event.previous.as_ref()?
        } else {
            &event.data
        };
        root.at(self.keys.iter().map(|key| &**key))
    }
}

impl Term {
    fn find<'a>(&self, event: &'a Event) -> Option<&'a Value> {
        match self {
            Term::Event(path) => path.find(event),
            Term::Constant(_) => None,
        }
    }

    pub(crate) fn side<'a>(&'a self, event: &'a Event) -> Side<'a> {
        match self {
            Term::Event(path) => path.side(event),
            Term::Constant(constant) => constant.side(),
        }
    }

    fn write_key(&self, out: &mut String) {
        match self {
            Term::Event(path) => {
                out.push_str(if path.previous { "previous" } else { "data" });
                for key in &path.keys {
                    out.push('.');
                    write_string(key, out);
                }
            }
            Term::Constant(constant) => constant.write_key(out),
        }
    }
}

impl Path {
    pub(crate) fn side<'a>(&self, event: &'a Event) -> Side<'a> {
        self.find(event).map_or(Side::Null, Side::of)
    }
}

impl Constant {
    fn new(value: Option<&Value>, kind: OperandKind) -> Constant {
        match (value, kind) {
            (None | Some(Value::Null), _) => Constant::Null,
            (Some(value), OperandKind::Json) => Constant::Json(Box::new(value.clone())),
            (Some(Value::List(items)), _) => {
                Constant::List(items.iter().map(|item| Constant::new(Some(item), kind)).collect())
            }
            (Some(value), OperandKind::Id) => {
                let text = Side::Json(value).text(&mut itoa::Buffer::new()).map(Box::from);
                text.map_or(Constant::IllTyped, Constant::Id)
            }
            (Some(value), OperandKind::DateTime) => Side::Json(value)
                .instant()
                .map_or(Constant::IllTyped, Constant::Instant),
        }
    }

    pub(crate) fn json(value: &Value) -> Constant {
        Constant::new(Some(value), OperandKind::Json)
    }

    pub(crate) fn side(&self) -> Side<'_> {
        match self {
            Constant::Null => Side::Null,
            Constant::IllTyped => Side::IllTyped,
            Constant::Id(text) => Side::Id(text),
            Constant::Instant(instant) => Side::Instant(*instant),
            Constant::List(items) => Side::List(items),
            Constant::Json(value) => Side::of(value),
        }
    }

    /// Its text: equal for constants of one kind that are equal.
    pub(crate) fn write_key(&self, out: &mut String) {
        match self {
            Constant::Null => out.push_str("null"),
            Constant::IllTyped => out.push_str("ill-typed"),
            Constant::Id(text) => {
                out.push_str("id");
                write_string(text, out);
            }
            Constant::Instant(at) => _ = write!(out, "at{}.{}", at.timestamp(), at.timestamp_subsec_nanos()),
            Constant::List(items) => {
                out.push_str("list[");
                for item in items {
                    item.write_key(out);
                    out.push(',');
                }
                out.push(']');
            }
            Constant::Json(value) => out.push_str(&value.canonical()),
        }
    }
}

impl Test {
    fn judge(self, left: Side<'_>, right: Side<'_>) -> Truth {
        match self {
            Test::Equal => left.equals(right),
            Test::Less => left.compare(right).map(Ordering::is_lt),
            Test::AtMost => left.compare(right).map(Ordering::is_le),
            Test::In => right.includes(left),
            Test::Contains if left.len().is_some() => left.includes(right),
            Test::Contains => left.with_text(right, |text, part| text.contains(part)),
            Test::StartsWith => left.with_text(right, |text, part| text.starts_with(part)),
            Test::EndsWith => left.with_text(right, |text, part| text.ends_with(part)),
        }
    }
}

impl<'a> Side<'a> {
    fn of(value: &'a Value) -> Side<'a> {
        if value.is_null() { Side::Null } else { Side::Json(value) }
    }

    pub(crate) fn equals(self, other: Side<'_>) -> Truth {
        use Side::{Id, IllTyped, Instant, Json, List, Null};
        match (self, other) {
            (Null | IllTyped, _) | (_, Null | IllTyped) => None,
            (Json(left), Json(right)) => Some(left == right),
            (List(_), _) | (_, List(_)) => self.equals_list(other),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()? == other.instant()?),
            (Id(_), _) | (_, Id(_)) => self.with_text(other, |left, right| left == right),
        }
    }

    fn equals_list(self, other: Side<'_>) -> Truth {
        let len = self.len()?;
        if len != other.len()? {
            return Some(false);
        }
        let mut truth = Some(true);
        for at in 0..len {
            let same = match (self.item(at), other.item(at)) {
                (Side::Null, Side::Null) => Some(true),
                (Side::Null, Side::Json(_) | Side::Id(_) | Side::Instant(_)) => Some(false),
                (left, right) => left.equals(right),
            };
            match same {
                Some(false) => return same,
                None => truth = None,
                Some(true) => {}
            }
        }
        truth
    }

    fn compare(self, other: Side<'_>) -> Option<Ordering> {
        use Side::{Id, Instant, Json};
        match (self, other) {
            (Json(Value::String(left)), Json(Value::String(right))) => Some(left.cmp(right)),
            (Json(left), Json(right)) => compare_numbers(left, right),
            (Instant(_), _) | (_, Instant(_)) => Some(self.instant()?.cmp(&other.instant()?)),
            (Id(_), _) | (_, Id(_)) => self.with_text(other, str::cmp),
            _ => None,
        }
    }

    /// Whether one of its items equals another side; unknown where it is no list.
    fn includes(self, other: Side<'_>) -> Truth {
        let mut truth = Some(false);
        for at in 0..self.len()? {
            match self.item(at).equals(other) {
                Some(true) => return Some(true),
                None => truth = None,
                Some(false) => {}
            }
        }
        truth
    }

    /// How many items it has; `None` where it is no list.
    fn len(self) -> Option<usize> {
        match self {
            Side::List(items) => Some(items.len()),
            Side::Json(Value::List(items)) => Some(items.len()),
            _ => None,
        }
    }

    fn item(self, at: usize) -> Side<'a> {
        match self {
            Side::List(items) => items.get(at).map_or(Side::Null, Constant::side),
            Side::Json(Value::List(items)) => items.get(at).map_or(Side::Null, Side::of),
            _ => Side::Null,
        }
    }

    /// Asks both texts: of two strings or, where one side is an id, of strings and integers.
    fn with_text<T>(self, other: Side<'_>, ask: impl FnOnce(&str, &str) -> T) -> Option<T> {
        use Side::{Id, Json};
        let (mut left, mut right) = (itoa::Buffer::new(), itoa::Buffer::new());
        match (self, other) {
            (Json(Value::String(left)), Json(Value::String(right))) => Some(ask(left, right)),
            (Id(_), _) | (_, Id(_)) => Some(ask(self.text(&mut left)?, other.text(&mut right)?)),
            _ => None,
        }
    }

    /// As an id: the text of a string or an integer.
    pub(crate) fn text<'b>(&self, buffer: &'b mut itoa::Buffer) -> Option<&'b str>
    where
        'a: 'b,
    {
        match *self {
            Side::Id(text) => Some(text),
            Side::Json(Value::String(text)) => Some(text),
            Side::Json(Value::Int(number)) => Some(buffer.format(*number)),
            Side::Json(Value::Number(text)) if !text.contains(['.', 'e', 'E']) => Some(text),
            _ => None,
        }
    }

    /// As an instant: itself, or that of a string with a zone.
    pub(crate) fn instant(self) -> Option<DateTime<Utc>> {
        match self {
            Side::Instant(instant) => Some(instant),
            Side::Json(Value::String(text)) => Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc()),
            _ => None,
        }
    }
}

fn compare_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    // Conversions of integers are monotone, and exact where they could meet a float below 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Float(right)) if right.abs() < EXACT => (*left as f64).partial_cmp(right),
        (Value::Float(left), Value::Int(right)) if left.abs() < EXACT => left.partial_cmp(&(*right as f64)),
        _ => Some(left.as_decimal()?.cmp(&right.as_decimal()?)),
    }
}

const EXPIRES_AT: &str = "expires_at";

/// The fields of `SecurityContext`; only claims have something below them.
fn viewer_kind(name: &str, path: &[String]) -> Option<OperandKind> {
    match (name, path) {
        ("user_id" | "tenant_id", []) => Some(OperandKind::Id),
        ("roles" | "permissions" | "sources", []) | ("claims", _) => Some(OperandKind::Json),
        (EXPIRES_AT, []) => Some(OperandKind::DateTime),
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
