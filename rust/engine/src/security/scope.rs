//! Variable scope: an argument must equal what the viewer has. It is decided on the coerced arguments, so that it does not matter
//! whether a value came as a variable, a literal or a default, inside an input object or a list.

use serde::Deserialize;

use super::Decision;
use crate::predicate::{self, Constant, OperandKind, Test};
use crate::value::Value;
use crate::viewer::Viewer;

/// A rule as it was declared: an argument by Python names, and a field of the viewer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ScopeInput {
    /// `["filter", "tenant_id"]`
    pub argument: Vec<String>,
    /// `["claims", "org"]`
    pub viewer: Vec<String>,
}

/// One rule.
#[derive(Debug)]
pub struct Scope {
    argument: Vec<String>,
    argument_kind: OperandKind,
    viewer: Vec<String>,
    viewer_kind: OperandKind,
}

impl Scope {
    /// Checks that both sides exist; an error says which does not. `argument_kind` says how what stands at a path of Python names compares, through lists; `None` where there can be nothing.
    pub(crate) fn compile(
        input: &ScopeInput,
        argument_kind: &dyn Fn(&str, &[String]) -> Option<OperandKind>,
    ) -> Result<Scope, String> {
        let unknown = |what: &str, path: &[String]| format!("unknown {what} \"{}\"", path.join("."));
        let argument_kind = input
            .argument
            .split_first()
            .and_then(|(name, path)| argument_kind(name, path))
            .ok_or_else(|| unknown("argument", &input.argument))?;
        let viewer_kind = input
            .viewer
            .split_first()
            .and_then(|(name, path)| predicate::viewer_kind(name, path))
            .ok_or_else(|| unknown("viewer field", &input.viewer))?;
        let (argument, viewer) = (input.argument.clone(), input.viewer.clone());
        Ok(Scope { argument, argument_kind, viewer, viewer_kind })
    }

    /// Whether every value that the arguments have there equals the viewer's. None at all, and null on either side, is a no.
    pub fn decide(&self, arguments: &Value, viewer: &Viewer) -> Decision {
        let own = viewer.field(&self.viewer);
        let own = own.map_or(Constant::Null, |value| Constant::new(&value, self.viewer_kind));
        let is_own = |value: &Value| {
            let value = Constant::new(value, self.argument_kind);
            Test::Equal.judge(value.side(), own.side()) == Some(true)
        };
        Decision::allow_if(all(arguments, &self.argument, &is_own))
    }

    /// Rule and values, for operators.
    pub fn describe(&self, arguments: &Value, viewer: &Viewer) -> String {
        // What a list has below it is seen with the list.
        let given = arguments.get(&self.argument[0]).map_or("missing".into(), predicate::shown);
        let own = viewer.field(&self.viewer).as_ref().map_or("missing".into(), predicate::shown);
        let (path, root, field) = (self.argument.join("."), &self.argument[0], self.viewer.join("."));
        format!("the argument {path} must equal the viewer's {field}: {root} is {given}, {field} is {own}")
    }
}

/// Whether something stands at a path, through lists, and all of it fulfils a condition. An empty list holds nothing.
fn all(value: &Value, path: &[String], holds: &dyn Fn(&Value) -> bool) -> bool {
    match (value, path.split_first()) {
        (Value::List(items), _) => !items.is_empty() && items.iter().all(|item| all(item, path, holds)),
        (Value::Object(members), Some((step, rest))) => {
            members.get(step.as_str()).is_some_and(|member| all(member, rest, holds))
        }
        (_, Some(_)) => false,
        (value, None) => holds(value),
    }
}
