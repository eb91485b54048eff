//! Predicates in words, for operators: the rule as it was declared, and what stood on its sides.

use std::fmt;

use super::{Constant, Notes, Operand, Path, Predicate, Presence, Scope, Term, Test, Tree};
use crate::event::Event;
use crate::value::Value;
use crate::viewer::Viewer;

/// Elements of a list that are written out.
pub(super) const SHOWN: usize = 10;
/// A value in a text is cut after this many characters.
const LONGEST: usize = 200;

impl Predicate {
    /// The rule, and the value of each operand that is no literal.
    pub fn describe(&self, event: &Event, arguments: &Value, viewer: &Viewer) -> String {
        let scope = Scope { arguments, viewer };
        let mut values = Vec::new();
        self.0.each_operand(&mut |operand| {
            let value = match operand {
                Operand::Event(path, _) => path.find(event).cloned(),
                Operand::Given(given) => scope.find(given),
                Operand::Constant(_) => return,
            };
            let text = match value {
                None => format!("{operand} is missing"),
                Some(value) => format!("{operand} is {}", shown(&value)),
            };
            if !values.contains(&text) {
                values.push(text);
            }
        });
        let values = values.join(", ");
        if values.is_empty() { self.0.to_string() } else { format!("{}; {values}", self.0) }
    }
}

/// Those parts of an `&` that are not true of an event, and the values of the event in them.
pub(crate) fn describe_unmet(parts: &[Tree<Term>], event: &Event) -> String {
    let unmet = parts.iter().filter(|part| part.judge(event, &mut Notes::new()) != Some(true));
    let mut unmet: Vec<_> = unmet.map(Tree::unbound).collect();
    let rule = if unmet.len() == 1 { unmet.remove(0) } else { Tree::Join(true, unmet) };
    Predicate(rule).describe(event, &Value::Null, &Viewer::default())
}

/// A value in a text.
pub(crate) fn shown(value: &Value) -> String {
    cut(&value.to_json())
}

pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Tree<Term> {
    /// As it could have been declared.
    fn unbound(&self) -> Tree<Operand> {
        let operand = |term: &Term| match term {
            Term::Event(path, is_decimal) => Operand::Event(path.clone(), *is_decimal),
            Term::Constant(constant) => Operand::Constant(constant.clone()),
        };
        match self {
            Tree::Join(all, parts) => Tree::Join(*all, parts.iter().map(Tree::unbound).collect()),
            Tree::Not(part) => Tree::Not(Box::new(part.unbound())),
            Tree::Test(test, left, right) => Tree::Test(*test, operand(left), operand(right)),
            Tree::Member(path, set) => Tree::Member(path.clone(), set.clone()),
            Tree::Presence(presence, term) => Tree::Presence(*presence, operand(term)),
        }
    }
}

impl Tree<Operand> {
    fn each_operand(&self, visit: &mut dyn FnMut(&Operand)) {
        match self {
            Tree::Join(_, parts) => parts.iter().for_each(|part| part.each_operand(visit)),
            Tree::Not(part) => part.each_operand(visit),
            Tree::Test(_, left, right) => [left, right].into_iter().for_each(visit),
            Tree::Presence(_, operand) => visit(operand),
            Tree::Member(path, _) => visit(&Operand::Event(path.clone(), false)),
        }
    }
}

impl fmt::Display for Tree<Operand> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Join(all, parts) => {
                let operator = if *all { " & " } else { " | " };
                let parts: Vec<String> = parts.iter().map(|part| format!("({part})")).collect();
                out.write_str(&parts.join(operator))
            }
            Tree::Not(part) => match &**part {
                Tree::Member(path, set) if set.len() == 1 => write!(out, "{path} != {}", set.in_words().join("")),
                Tree::Test(Test::Equal, left, right) => write!(out, "{left} != {right}"),
                part => write!(out, "~({part})"),
            },
            Tree::Test(test, left, right) => match test {
                Test::Equal => write!(out, "{left} == {right}"),
                Test::Less => write!(out, "{left} < {right}"),
                Test::AtMost => write!(out, "{left} <= {right}"),
                Test::In => write!(out, "{left}.is_in({right})"),
                Test::Contains => write!(out, "{left}.contains({right})"),
                Test::StartsWith => write!(out, "{left}.startswith({right})"),
                Test::EndsWith => write!(out, "{left}.endswith({right})"),
            },
            Tree::Presence(Presence::Exists, operand) => write!(out, "{operand}.exists()"),
            Tree::Presence(Presence::IsNull, operand) => write!(out, "{operand}.is_null()"),
            Tree::Member(path, set) if set.len() == 1 => write!(out, "{path} == {}", set.in_words().join("")),
            Tree::Member(path, set) => {
                let more = if set.len() > SHOWN { format!(", and {} more", set.len() - SHOWN) } else { String::new() };
                write!(out, "{path}.is_in([{}{more}])", set.in_words().join(", "))
            }
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Event(path, false) => path.fmt(out),
            Operand::Event(path, true) => write!(out, "decimal({path})"),
            Operand::Given(given) => {
                let steps: Vec<String> = given.path.iter().map(|step| format!("{step:?}")).collect();
                let given_as = if given.by_viewer { "viewer" } else { "argument" };
                let text = format!("{given_as}({})", steps.join(", "));
                if given.is_decimal { write!(out, "decimal({text})") } else { out.write_str(&text) }
            }
            Operand::Constant(constant) => match constant {
                Constant::Id(text) => write!(out, "{text:?}"),
                Constant::Instant(instant) => write!(out, "{}", instant.to_rfc3339()),
                Constant::Decimal(number) => write!(out, "Decimal({:?})", number.to_string()),
                constant => write!(out, "{}", cut(&constant.to_string())),
            },
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.previous { "previous" } else { "data" })?;
        self.keys.iter().try_for_each(|key| write!(out, "[{key:?}]"))
    }
}
